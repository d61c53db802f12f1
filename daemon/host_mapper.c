/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HostFileMapper: windows of 2 MiB over one memfd. References are counted by page, so that taking too many or
 * giving back too many is caught where it happens.
 *
 * Invariants: `chunk` holds the mapped chunks, ascending, none twice. A chunk without a referenced page is not
 * mapped, unless munmap had no memory to split the kernel's area: it is then used or tried again later.
 *
 * Runs on the file's worker; calls the kernel's mmap family and the reference set.
 */
#include "daemon/host_mapper.h"

#include <string.h>
#include <sys/mman.h>

#include "daemon/util/util.h"

void host_mapper_init(struct host_mapper *m, int fd)
{
	*m = (struct host_mapper){ .fd = fd };
	frame_refs_init(&m->refs, NULL, NULL);
}

void host_mapper_free(struct host_mapper *m)
{
	if (!m)
		return;
	host_mapper_unmap_all(m);
	frame_refs_free(&m->refs);
	free(m->chunk);
	host_mapper_init(m, -1);
}

int host_mapper_inc_ref(struct host_mapper *m, struct range r)
{
	return frame_refs_inc(&m->refs, r, 0);
}

/* Index in the array of the first chunk at or above chunk `index` of the file. */
static size_t position(const struct host_mapper *m, uint64_t index)
{
	size_t lo = 0, hi = m->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (m->chunk[mid].index >= index)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

static bool chunk_referenced(const struct host_mapper *m, uint64_t index)
{
	uint64_t start = index << HOST_CHUNK_SHIFT;
	const struct range_seg *s = range_map_lower(&m->refs.map, start);

	return s && s->r.start >> HOST_CHUNK_SHIFT <= index;
}

int host_mapper_dec_ref(struct host_mapper *m, struct range r)
{
	size_t from, to;
	int err = frame_refs_dec(&m->refs, r);

	if (err)
		return err;
	from = to = position(m, r.start >> HOST_CHUNK_SHIFT);
	for (; from < m->n && m->chunk[from].index <= (r.end - 1) >> HOST_CHUNK_SHIFT; from++) {
		struct host_chunk *c = &m->chunk[from];

		if (chunk_referenced(m, c->index) || munmap(c->addr, HOST_CHUNK_SIZE) < 0)
			m->chunk[to++] = *c;
	}
	if (from > to)
		memmove(&m->chunk[to], &m->chunk[from], (m->n - from) * sizeof(*m->chunk));
	m->n -= from - to;
	return 0;
}

static int reserve(struct host_mapper *m, size_t extra)
{
	size_t want, room = m->allocated ? m->allocated : 4;
	struct host_chunk *chunk;

	if (__builtin_add_overflow(m->n, extra, &want))
		return -ENOMEM;
	if (want <= m->allocated)
		return 0;
	while (room < want)
		if (__builtin_mul_overflow(room, (size_t)2, &room))
			return -ENOMEM;
	chunk = reallocarray(m->chunk, room, sizeof(*chunk));
	if (!chunk)
		return -ENOMEM;
	m->chunk = chunk;
	m->allocated = room;
	return 0;
}

/* Where a run before chunk[at] would adjoin the mapped neighbours; a wish, which the kernel grants when it is free. */
static void *wished_address(const struct host_mapper *m, size_t at, uint64_t index, size_t bytes)
{
	const struct host_chunk *below = at > 0 ? &m->chunk[at - 1] : NULL;
	const struct host_chunk *above = at < m->n ? &m->chunk[at] : NULL;

	if (below && below->index + 1 == index)
		return below->addr + HOST_CHUNK_SIZE;
	if (above && above->index == index + (bytes >> HOST_CHUNK_SHIFT) && (uintptr_t)above->addr > bytes)
		return above->addr - bytes;
	return NULL;
}

/* Maps `count` chunks from `index`, none of which is mapped, as one area before chunk[at]. */
static int map_run(struct host_mapper *m, size_t at, uint64_t index, uint64_t count, bool write)
{
	int prot = PROT_READ | (write ? PROT_WRITE : 0);
	size_t bytes;
	char *addr;
	int err;

	if (__builtin_mul_overflow(count, HOST_CHUNK_SIZE, &bytes))
		return -EOVERFLOW;
	err = reserve(m, count);
	if (err)
		return err;
	addr = mmap(wished_address(m, at, index, bytes), bytes, prot, MAP_SHARED, m->fd,
		    (off_t)(index << HOST_CHUNK_SHIFT));
	if (addr == MAP_FAILED)
		return -errno;
	memmove(&m->chunk[at + count], &m->chunk[at], (m->n - at) * sizeof(*m->chunk));
	m->n += count;
	for (uint64_t i = 0; i < count; i++)
		m->chunk[at + i] = (struct host_chunk){ index + i, addr + i * HOST_CHUNK_SIZE, write };
	return 0;
}

/* Maps what is missing of chunks [first, last], and makes them writable when that is asked for. */
static int map_chunks(struct host_mapper *m, uint64_t first, uint64_t last, bool write)
{
	size_t at = position(m, first);
	int err;

	for (uint64_t index = first; index <= last; index++, at++) {
		struct host_chunk *c = at < m->n ? &m->chunk[at] : NULL;

		if (!c || c->index != index) {
			uint64_t end = c ? MIN(c->index, last + 1) : last + 1;

			err = map_run(m, at, index, end - index, write);
			if (err)
				return err;
		} else if (write && !c->writable) {
			if (mprotect(c->addr, HOST_CHUNK_SIZE, PROT_READ | PROT_WRITE) < 0)
				return -errno;
			c->writable = true;
		}
	}
	return 0;
}

static int refuse_gap(void *arg, struct range r)
{
	return -EINVAL;
}

int host_mapper_map(struct host_mapper *m, struct range r, bool write, struct iovec *iov, int n)
{
	size_t at;
	int pieces = 0, err;

	if (r.start >= r.end || !is_aligned(r.start | r.end, PAGE_SIZE_) ||
	    range_map_walk(&m->refs.map, r, NULL, refuse_gap, NULL) < 0)
		return -EINVAL;
	err = map_chunks(m, r.start >> HOST_CHUNK_SHIFT, (r.end - 1) >> HOST_CHUNK_SHIFT, write);
	if (err)
		return err;

	at = position(m, r.start >> HOST_CHUNK_SHIFT);
	for (uint64_t off = r.start; off < r.end; at++) {
		uint64_t in = off & (HOST_CHUNK_SIZE - 1), len = MIN(HOST_CHUNK_SIZE - in, r.end - off);
		char *addr = m->chunk[at].addr + in;

		off += len;
		if (pieces > 0 && (char *)iov[pieces - 1].iov_base + iov[pieces - 1].iov_len == addr) {
			iov[pieces - 1].iov_len += len;
			continue;
		}
		if (pieces >= n)
			return -E2BIG;
		iov[pieces++] = (struct iovec){ addr, len };
	}
	return pieces;
}

static int map_over(const struct host_chunk *c, int fd)
{
	int prot = PROT_READ | (c->writable ? PROT_WRITE : 0);

	if (mmap(c->addr, HOST_CHUNK_SIZE, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)(c->index << HOST_CHUNK_SHIFT)) ==
	    MAP_FAILED)
		return -errno;
	return 0;
}

/* A descriptor that cannot be mapped is found out before any chunk is touched. */
static int probe(const struct host_chunk *c, int fd)
{
	int prot = PROT_READ | (c->writable ? PROT_WRITE : 0);
	void *p = mmap(NULL, HOST_CHUNK_SIZE, prot, MAP_SHARED, fd, (off_t)(c->index << HOST_CHUNK_SHIFT));

	if (p == MAP_FAILED)
		return -errno;
	munmap(p, HOST_CHUNK_SIZE);
	return 0;
}

int host_mapper_regenerate(struct host_mapper *m, int fd)
{
	size_t i;
	int err;

	for (i = 0; i < m->n; i++) {
		err = probe(&m->chunk[i], fd);
		if (err)
			return err;
	}
	for (i = 0; i < m->n; i++) {
		err = map_over(&m->chunk[i], fd);
		if (err)
			goto back;
	}
	m->fd = fd;
	return 0;

back:
	/* The failed one too: mmap may have taken the old area away first. An address left empty makes I/O fail, no more. */
	for (size_t j = 0; j <= i; j++)
		map_over(&m->chunk[j], m->fd);
	return err;
}

void host_mapper_unmap_all(struct host_mapper *m)
{
	for (size_t i = 0; i < m->n; i++)
		munmap(m->chunk[i].addr, HOST_CHUNK_SIZE);
	m->n = 0;
}
