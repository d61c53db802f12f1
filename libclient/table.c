/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of mappings: which range of addresses belongs to which handle, sorted by address and without overlap.
 *
 * It is a hint. munmap(2), mremap(2), mprotect(2) and a MAP_FIXED of something else change the address space without
 * the library. Whoever needs the truth calls table_resync(), which reads /proc/self/maps and looks for the memfds of
 * the handles. Where an address is new there, the handle is guessed among those of the same memfd; users must bear a
 * wrong guess.
 *
 * lib.lock is held in everything here but table_next().
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "libclient/internal.h"

int table_reserve(size_t more)
{
	size_t n = lib.n_map + more;
	struct mapping *m;

	if (n <= lib.allocated)
		return 0;
	n = MAX(n, lib.allocated * 2);
	m = realloc(lib.map, n * sizeof(*m));
	if (!m)
		return -ENOMEM;
	lib.map = m;
	lib.allocated = n;
	return 0;
}

/* The first entry that ends above addr. */
static size_t table_find(uintptr_t addr)
{
	size_t lo = 0, hi = lib.n_map;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (lib.map[mid].addr + lib.map[mid].len > addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

static void table_erase(size_t i, size_t n)
{
	memmove(&lib.map[i], &lib.map[i + n], (lib.n_map - i - n) * sizeof(lib.map[0]));
	lib.n_map -= n;
}

static void table_put(size_t i, const struct mapping *m)
{
	memmove(&lib.map[i + 1], &lib.map[i], (lib.n_map - i) * sizeof(lib.map[0]));
	lib.map[i] = *m;
	lib.n_map++;
	m->f->maps++;
}

/* What is left of *m from `addr` on. */
static void mapping_advance(struct mapping *m, uintptr_t addr)
{
	m->head = addr > m->addr ? 0 : m->head;
	m->off += addr - m->addr;
	m->len -= addr - m->addr;
	m->addr = addr;
}

/* What is left of *m up to `end`. */
static void mapping_cut(struct mapping *m, uintptr_t end)
{
	if (end >= m->addr + m->len)
		return;
	m->len = end - m->addr;
	m->tail = 0;
}

void table_remove(uintptr_t addr, uintptr_t len)
{
	uintptr_t end = len > UINTPTR_MAX - addr ? UINTPTR_MAX : addr + len;
	size_t i = table_find(addr), n;
	struct mapping *m;

	if (i == lib.n_map)
		return;
	if (lib.map[i].addr < addr) {
		struct mapping tail = lib.map[i];

		mapping_cut(&lib.map[i], addr);
		i++;
		if (tail.addr + tail.len > end) {
			mapping_advance(&tail, end);
			table_put(i, &tail);
			return;
		}
	}
	for (n = i; n < lib.n_map && lib.map[n].addr + lib.map[n].len <= end; n++)
		lib.map[n].f->maps--;
	table_erase(i, n - i);
	m = &lib.map[i];
	if (i < lib.n_map && m->addr < end)
		mapping_advance(m, end);
}

void table_insert(const struct mapping *m)
{
	table_remove(m->addr, m->len);
	table_put(table_find(m->addr), m);
	if (m->addr < lib.lowest || lib.highest == 0)
		__atomic_store_n(&lib.lowest, m->addr, __ATOMIC_RELAXED);
	if (m->addr + m->len > lib.highest)
		__atomic_store_n(&lib.highest, m->addr + m->len, __ATOMIC_RELAXED);
}

bool table_may_cover(uintptr_t addr, uintptr_t end)
{
	return addr < __atomic_load_n(&lib.highest, __ATOMIC_RELAXED) && end > __atomic_load_n(&lib.lowest, __ATOMIC_RELAXED);
}

bool table_covers(uintptr_t addr, uintptr_t end)
{
	bool any;
	size_t i;

	if (!table_may_cover(addr, end))
		return false;
	pthread_mutex_lock(&lib.lock);
	i = table_find(addr);
	any = i < lib.n_map && lib.map[i].addr < end;
	pthread_mutex_unlock(&lib.lock);
	return any;
}

int table_set_dontfork(uintptr_t addr, uintptr_t end, bool on)
{
	for (size_t i = table_find(addr); i < lib.n_map && lib.map[i].addr < end; i = table_find(addr)) {
		struct mapping m = lib.map[i];

		if (m.addr < addr)
			mapping_advance(&m, addr);
		mapping_cut(&m, end);
		m.dontfork = on;
		if (table_reserve(2) < 0)
			return -ENOMEM;
		table_insert(&m);
		addr = m.addr + m.len;
	}
	return 0;
}

bool table_next(uintptr_t addr, uintptr_t end, struct mapping *ret)
{
	bool found = false;
	size_t i;

	pthread_mutex_lock(&lib.lock);
	i = table_find(addr);
	if (i < lib.n_map && lib.map[i].addr < end) {
		*ret = lib.map[i];
		if (ret->addr < addr)
			mapping_advance(ret, addr);
		mapping_cut(ret, end);
		ret->closed = ret->f->closed;
		ret->f->busy++;
		found = true;
	}
	pthread_mutex_unlock(&lib.lock);
	return found;
}

/* The entry that has `addr` within it, not at its beginning, and consists of huge pages. */
static const struct mapping *huge_around(uintptr_t addr)
{
	size_t i = table_find(addr);

	return i < lib.n_map && lib.map[i].addr < addr && lib.map[i].f->huge ? &lib.map[i] : NULL;
}

bool table_enlarge(uintptr_t *addr, uintptr_t *end)
{
	const struct mapping *m;
	bool whole = true;

	pthread_mutex_lock(&lib.lock);
	m = huge_around(*addr);
	if (m && *addr - m->addr <= m->head)
		*addr = m->addr;
	else if (m)
		whole = (*addr & HUGE_MASK) == 0;
	m = huge_around(*end);
	if (m && m->addr + m->len - *end <= m->tail)
		*end = m->addr + m->len;
	else if (m)
		whole &= (*end & HUGE_MASK) == 0;
	pthread_mutex_unlock(&lib.lock);
	return whole;
}

/*
 * A handle of that memfd, for a shared mapping one that can have made it; a closed one before others, so that it is
 * rather kept too long than freed too early, unless it has nothing mapped any more.
 */
static struct pgc_file *file_of_memfd(dev_t dev, ino_t ino, bool shared)
{
	struct pgc_file *found = NULL;

	for (struct pgc_file *f = lib.files; f; f = f->next)
		if (f->memfd >= 0 && f->mem_ino == ino && f->mem_dev == dev && (!shared || f->accmode == O_RDWR) &&
		    (!found || found->ended || (f->closed && !f->ended)))
			found = f;
	return found;
}

/* The entry for what is really mapped, with what the table knows about it. False: not ours. */
static bool mapping_of_vma(const struct vma *v, struct mapping *ret)
{
	struct pgc_file *f = file_of_memfd(v->dev, v->ino, v->shared);
	size_t i;

	if (!f || window_is_at(v->start))
		return false;
	*ret = (struct mapping){
		.addr = v->start, .len = v->end - v->start, .off = v->off, .prot = v->prot,
		.shared = v->shared, .tracked = v->shared, .f = f,
	};
	i = table_find(v->start);
	if (i == lib.n_map || lib.map[i].addr >= v->end)
		return true;
	const struct mapping *old = &lib.map[i];
	if (old->f->mem_ino != v->ino || old->f->mem_dev != v->dev || old->tracked != v->shared)
		return true;
	ret->f = old->f;
	ret->shared = old->shared;
	ret->inherited = old->inherited;
	ret->head = v->start == old->addr ? old->head : 0;
	ret->tail = v->end == old->addr + old->len ? old->tail : 0;
	ret->dontfork = old->dontfork;
	return true;
}

bool table_resync(void)
{
	struct vma_iter it;
	struct mapping *map = NULL, m;
	size_t n = 0, allocated = 0;
	struct vma v;
	int r;

	if (vma_open(&it) < 0)
		return false;
	while ((r = vma_next(&it, &v)) > 0) {
		if (v.ino == 0 || !mapping_of_vma(&v, &m))
			continue;
		if (n == allocated) {
			allocated = MAX(allocated * 2, 16u);
			struct mapping *larger = realloc(map, allocated * sizeof(*map));
			if (!larger) {
				r = -ENOMEM;
				break;
			}
			map = larger;
		}
		map[n++] = m;
	}
	vma_close(&it);
	if (r < 0) {
		free(map);
		return false;
	}
	for (size_t i = 0; i < lib.n_map; i++)
		lib.map[i].f->maps--;
	for (size_t i = 0; i < n; i++)
		map[i].f->maps++;
	free(lib.map);
	lib.map = map;
	lib.n_map = n;
	lib.allocated = allocated;
	return true;
}
