/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mappings: the client maps the file's memfd itself, registers the range with the handle's userfaultfd and tells the
 * daemon.
 *
 * Invariant: no load ever sees a hole of the memfd as zeros. So a range is mapped PROT_NONE, registered, announced,
 * and only then given its protection; whatever fails in between, it is taken away again and was never accessible.
 *
 * What a mapping really is:
 *   MAP_SHARED through a read-write handle    MAP_SHARED of the memfd, MISSING|MINOR|WP
 *   MAP_SHARED through a read-only handle     MAP_PRIVATE of the read-only memfd, MISSING|MINOR
 *   MAP_PRIVATE                               MAP_PRIVATE of the memfd, MISSING|MINOR
 *
 * A file whose memory is huge pages can be had in whole ones only: what encloses the range is mapped, and no memory is set aside for copies of it, which a
 * private mapping that can be written would take from the pool.
 *
 * A shared mapping of a read-only memfd cannot be registered; the private one, not being writable, shows the cache's
 * own pages.
 *
 * Any thread. No lock is held over a request.
 */
#include <fcntl.h>
#include <linux/mman.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "libclient/internal.h"

#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

#define REGISTER_TRIES 8
#define MAP_REFUSED (MAP_ANONYMOUS | MAP_HUGETLB | MAP_GROWSDOWN)
/* What the kernel is left to deal with. POPULATE and LOCKED would fault before the range is registered. */
#define MAP_PASSED  (MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_32BIT | MAP_NORESERVE | MAP_STACK)
#define MAP_KNOWN   (MAP_PASSED | MAP_REFUSED | MAP_TYPE | MAP_POPULATE | MAP_NONBLOCK | MAP_LOCKED | MAP_DENYWRITE | \
		     MAP_EXECUTABLE)

static uintptr_t page_round(uintptr_t v)
{
	return (v + PAGE_MASK_) & ~PAGE_MASK_;
}

static bool follows_forks(const struct pgc_file *f)
{
	return file_flags(f) & PGC_HANDLE_FORK_EVENTS;
}

int map_attach(struct pgc_file *f, const struct mapping *m)
{
	struct uffdio_register reg = {
		.range = { .start = m->addr, .len = m->len },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR |
			(m->tracked ? UFFDIO_REGISTER_MODE_WP : 0),
	};
	struct pgc_msg msg = { .type = PGC_MSG_MAP };
	int r;

	msg.map = (struct pgc_map){
		.addr = m->addr,
		.len = m->len,
		.off = m->off,
		.flags = m->tracked ? PGC_MAP_SHARED : 0,
		.prot = (uint32_t)m->prot & (PROT_READ | PROT_WRITE | PROT_EXEC),
	};
	if (!follows_forks(f) && madvise((void *)m->addr, m->len, MADV_DONTFORK) < 0)
		return -errno;
	if (ioctl(f->uffd, UFFDIO_REGISTER, &reg) < 0)
		return -errno;
	__atomic_store_n(&f->mapped, true, __ATOMIC_RELAXED);
	r = file_request(f, &msg, NULL, 0);
	if (r < 0)
		map_detach(f, m->addr, m->len);
	return r;
}

/*
 * Ends the registration without a word to the daemon, who may be dead: munmap(2) of a registered range would wait for
 * it.
 */
void map_detach(struct pgc_file *f, uintptr_t addr, uintptr_t len)
{
	struct uffdio_range range = { .start = addr, .len = len };

	mprotect((void *)addr, len, PROT_NONE);
	ioctl(f->uffd, UFFDIO_UNREGISTER, &range);
}

static int map_remember(const struct mapping *m)
{
	int r;

	pthread_mutex_lock(&lib.lock);
	r = table_reserve(2);
	if (r == 0)
		table_insert(m);
	pthread_mutex_unlock(&lib.lock);
	return r;
}

static int map_forget(uintptr_t addr, uintptr_t len)
{
	int r;

	pthread_mutex_lock(&lib.lock);
	r = table_reserve(1);
	if (r == 0)
		table_remove(addr, len);
	pthread_mutex_unlock(&lib.lock);
	return r;
}

/* Arguments, in the order and with the errors of mmap(2). */
static int map_check(const struct pgc_file *f, size_t len, int prot, int flags, off_t off, size_t *ret_len)
{
	int type = flags & MAP_TYPE;

	if (!f)
		return -EBADF;
	if ((uint64_t)off & PAGE_MASK_)
		return -EINVAL;
	if (type == MAP_SHARED_VALIDATE && (flags & ~MAP_KNOWN))
		return -EOPNOTSUPP;
	if (len == 0 || (type != MAP_SHARED && type != MAP_PRIVATE) || (flags & MAP_REFUSED))
		return -EINVAL;
	*ret_len = page_round(len);
	if (*ret_len < len || *ret_len > INT64_MAX)
		return -ENOMEM;
	if (off < 0 || (off_t)*ret_len > INT64_MAX - off)
		return -EOVERFLOW;
	if (f->accmode == O_WRONLY)
		return -EACCES;
	if (type == MAP_SHARED && (prot & PROT_WRITE) && f->accmode == O_RDONLY)
		return -EACCES;
	return 0;
}

static int map_lock(const struct mapping *m)
{
	/* Not mlock(2), which would fault in what no client can: pages past the end. */
	if (mlock2((void *)m->addr, m->len, MLOCK_ONFAULT) == 0)
		return 0;
	return errno == ENOMEM ? -EAGAIN : -errno;
}

/* -ENOMEM: some of it is not known to the daemon; mremap(2) has made it longer. */
static int map_populate(const struct mapping *m, bool write)
{
	struct pgc_msg msg = { .type = PGC_MSG_POPULATE };

	msg.populate = (struct pgc_populate){ .addr = m->addr, .len = m->len, .write = write };
	if (m->f->huge) {
		msg.populate.addr = m->addr & ~HUGE_MASK;
		msg.populate.len = ((m->addr + m->len + HUGE_MASK) & ~HUGE_MASK) - msg.populate.addr;
	}
	return file_request(m->f, &msg, NULL, 0);
}

/* Makes whole huge pages of the range: m's offset, head and tail, and the length. */
static int map_whole(struct mapping *m, void **addr, size_t *len, int prot, int flags)
{
	uintptr_t head = m->off & HUGE_MASK, total = (head + *len + HUGE_MASK) & ~HUGE_MASK;

	if (prot & PROT_WRITE)
		return -EOPNOTSUPP;
	if (total < *len)
		return -ENOMEM;
	if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) && ((head | *len | (uintptr_t)*addr) & HUGE_MASK))
		return -EINVAL; /* it would replace what lies beside it */
	if ((uintptr_t)*addr > head)
		*addr = (void *)(((uintptr_t)*addr - head) & ~HUGE_MASK);
	m->off -= head;
	m->head = head;
	m->tail = total - head - *len;
	*len = total;
	return 0;
}

static int map_file(struct pgc_file *f, void *addr, size_t size, int prot, int flags, off_t off, void **ret)
{
	struct mapping m = { .off = (uint64_t)off, .prot = prot, .f = f };
	size_t len;
	bool first;
	int how, r;
	void *p;

	r = map_check(f, size, prot, flags, off, &len);
	if (r == 0)
		r = file_connect(f);
	if (r == 0 && f->huge)
		r = map_whole(&m, &addr, &len, prot, flags);
	if (r < 0)
		return r;
	how = (flags & MAP_PASSED) | (f->huge ? MAP_NORESERVE : 0);
	first = !__atomic_load_n(&f->mapped, __ATOMIC_RELAXED);
	m.shared = (flags & MAP_TYPE) == MAP_SHARED;
	m.tracked = m.shared && f->accmode == O_RDWR;
	how |= m.tracked ? MAP_SHARED : MAP_PRIVATE;
	p = mmap(addr, len, PROT_NONE, how, f->memfd, (off_t)m.off);
	if (p == MAP_FAILED)
		return -errno;
	m.addr = (uintptr_t)p;
	m.len = len;
	r = map_attach(f, &m);
	for (int tries = 0; r == -EBUSY && tries < REGISTER_TRIES; tries++) {
		/* A daemon that takes over has just tried which userfaultfd serves it. */
		munmap(p, len);
		p = mmap(addr, len, PROT_NONE, how, f->memfd, (off_t)m.off);
		if (p == MAP_FAILED)
			return -errno;
		m.addr = (uintptr_t)p;
		r = map_attach(f, &m);
	}
	if (r == 0) {
		r = map_remember(&m);
		if (r == 0 && prot != PROT_NONE && mprotect(p, len, prot) < 0)
			r = -errno;
		if (r == 0 && (flags & MAP_POPULATE) && !(flags & MAP_NONBLOCK))
			map_populate(&m, false);
		if (r == 0 && (flags & MAP_LOCKED))
			r = map_lock(&m);
	}
	if (r < 0) {
		map_forget(m.addr, m.len);
		munmap(p, len);
		return r;
	}
	if (first)
		watch_changed(); /* a forked child's first */
	*ret = (char *)p + m.head;
	return 0;
}

PGC_PUBLIC void *pgc_mmap(struct pgc_file *f, void *addr, size_t len, int prot, int flags, off_t off)
{
	NO_CANCEL;
	void *p = MAP_FAILED;
	int r = map_file(f, addr, len, prot, flags, off, &p);

	if (r < 0)
		errno = -r;
	return p;
}

/*
 * Where the daemon is gone nobody would answer the event that munmap(2) waits for. Not while the next one is told of the handle: it would take for mapped what
 * goes without a word.
 */
static void detach_dead(uintptr_t addr, uintptr_t end)
{
	struct mapping m;

	while (addr < end && table_next(addr, end, &m)) {
		if (!m.inherited && __atomic_load_n(&m.f->mapped, __ATOMIC_RELAXED)) {
			pthread_mutex_lock(&m.f->connect_lock);
			if (conn_hung_up(&m.f->conn))
				map_detach(m.f, m.addr, m.len);
			pthread_mutex_unlock(&m.f->connect_lock);
		}
		file_put(m.f);
		addr = m.addr + m.len;
	}
}

/*
 * Of what is unmapped, or ends with the process, the daemon can no longer find out what was stored to, and takes all of it for stored to. So it looks before that, at
 * pages that are out of the page tables by then: who stores to one now has a fault. Nobody waits for a daemon that is gone.
 */
void map_look_before_end(uintptr_t addr, uintptr_t end)
{
	struct mapping m;

	while (addr < end && table_next(addr, end, &m)) {
		struct pgc_msg msg = { .type = PGC_MSG_SYNC, .sync = { .off = m.off, .len = m.len, .flags = PGC_SYNC_LOOK } };

		if (m.tracked && !m.inherited && (file_flags(m.f) & PGC_HANDLE_ASYNC) && !__atomic_load_n(&m.f->stale, __ATOMIC_RELAXED) &&
		    !conn_hung_up(&m.f->conn) && madvise((void *)m.addr, m.len, MADV_DONTNEED) == 0)
			(void)conn_request(&m.f->conn, &msg, NULL, 0, NULL, 0);
		file_put(m.f);
		addr = m.addr + m.len;
	}
}

/* The program ends. */
__attribute__((destructor)) static void map_end(void)
{
	bool any = false;

	if (fork_unseen())
		return; /* what there is belongs to the parent */
	pthread_mutex_lock(&lib.lock);
	for (size_t i = 0; i < lib.n_map; i++)
		any |= lib.map[i].tracked && (file_flags(lib.map[i].f) & PGC_HANDLE_ASYNC);
	any = any && table_resync(); /* whatever else is mapped there by now is left alone */
	pthread_mutex_unlock(&lib.lock);
	if (any)
		map_look_before_end(0, UINTPTR_MAX);
}

PGC_PUBLIC int pgc_munmap(void *addr, size_t len)
{
	NO_CANCEL;
	uintptr_t start = (uintptr_t)addr, end = start + page_round(len);
	int r;

	if ((start & PAGE_MASK_) || end <= start || end < start + len)
		return -EINVAL;
	if (!table_enlarge(&start, &end))
		return -EINVAL; /* as munmap(2) of a part of a huge page */
	detach_dead(start, end);
	map_look_before_end(start, end);
	/* Before the call: once it is done, another thread may map something there and remember that. */
	r = map_forget(start, end - start);
	if (r < 0)
		return r;
	if (munmap((void *)start, end - start) < 0) {
		r = -errno;
		pthread_mutex_lock(&lib.lock);
		table_resync();
		pthread_mutex_unlock(&lib.lock);
		return r;
	}
	file_reap();
	return 0;
}

/* A part of the range as a range of some memfd, and where the first of it is mapped. */
struct msync_part { dev_t dev; ino_t ino; uint64_t off, len; uintptr_t addr; };
#define MSYNC_PARTS 64

/*
 * What is really mapped in [*addr, end), from the kernel: programs move mappings behind the library. Up to MSYNC_PARTS,
 * and *addr is where to go on. Returns how many, or a negative errno.
 */
static int msync_parts(uintptr_t *addr, uintptr_t end, struct msync_part *part)
{
	struct vma_iter it;
	struct vma v;
	int n = 0, r;

	r = vma_open(&it);
	if (r < 0)
		return r;
	while (n < MSYNC_PARTS && (r = vma_next(&it, &v)) > 0 && v.start < end) {
		uintptr_t from = MAX(v.start, *addr), to = MIN(v.end, end);
		uint64_t off = v.off + (from - v.start);

		if (from >= to)
			continue;
		*addr = to;
		/*
		 * A private mapping has nothing that msync would write, but a read-only handle's shared one is private
		 * underneath. The table may tell them apart, or may be old: what cannot be written is rather synced.
		 */
		if (v.ino == 0 || (!v.shared && (v.prot & PROT_WRITE)))
			continue;
		if (n > 0 && part[n - 1].ino == v.ino && part[n - 1].dev == v.dev &&
		    part[n - 1].off + part[n - 1].len == off)
			part[n - 1].len += to - from;
		else
			part[n++] = (struct msync_part){ v.dev, v.ino, off, to - from, from };
	}
	vma_close(&it);
	if (n < MSYNC_PARTS)
		*addr = end;
	return r < 0 ? r : n;
}

/* The handle that the table names is the one whose errors are told, as with msync(2). */
static int msync_part(const struct msync_part *p, bool async)
{
	struct mapping m = { .f = NULL };
	bool known;
	int r;

	if (watch_has_replaced(p->dev, p->ino))
		return -ECONNRESET;
	known = table_next(p->addr, p->addr + PGC_PAGE_SIZE, &m);
	r = file_sync_memfd(m.f, p->dev, p->ino, p->off, p->len, async);

	if (known)
		file_put(m.f);
	return r;
}

/*
 * When the kernel does not say what is mapped: all of each file that the table names in the range. Where it names none
 * there may be one all the same, and `why` is the answer.
 */
static int msync_by_table(uintptr_t at, uintptr_t end, bool async, int why)
{
	struct mapping m;
	int r = 0;

	while (at < end) {
		struct pgc_msg msg = { .type = PGC_MSG_SYNC, .sync = { .flags = async ? PGC_SYNC_ASYNC : 0 } };
		int k = 0;

		if (!table_next(at, end, &m))
			return r < 0 ? r : why;
		if (m.addr > at && r == 0)
			r = why;
		if (m.shared)
			k = file_request(m.f, &msg, NULL, 0);
		file_put(m.f);
		if (k < 0 && (r == 0 || r == why))
			r = k;
		at = m.addr + m.len;
	}
	return r;
}

PGC_PUBLIC int pgc_msync(void *addr, size_t len, int flags)
{
	NO_CANCEL;
	uintptr_t start = (uintptr_t)addr, end = start + page_round(len);
	struct msync_part part[MSYNC_PARTS];
	int hole = 0, r = 0, n, k;

	/* The kernel judges the arguments and the range; the memfd itself has nothing to write. */
	if (msync(addr, len, flags) < 0) {
		if (errno != ENOMEM || end <= start)
			return -errno;
		hole = -ENOMEM;
	}
	if (end == start || !(flags & (MS_SYNC | MS_ASYNC)))
		return hole;
	while (start < end) {
		uintptr_t from = start;

		n = msync_parts(&start, end, part);
		if (n < 0) {
			k = msync_by_table(from, end, flags & MS_ASYNC, n);
			return r < 0 ? r : k < 0 ? k : hole;
		}
		for (int i = 0; i < n; i++) {
			k = msync_part(&part[i], flags & MS_ASYNC);
			if (r == 0)
				r = k;
		}
	}
	return r < 0 ? r : hole;
}

/* MADV_DOFORK must not undo what the child handler relies on: with lib.lock held nobody forks in between. */
static int madvise_fork(uintptr_t start, uintptr_t end, int advice)
{
	int r;

	pthread_mutex_lock(&lib.lock);
	r = table_set_dontfork(start, end, advice == MADV_DONTFORK);
	if (r == 0 && madvise((void *)start, end - start, advice) < 0)
		r = -errno;
	for (size_t i = 0; i < lib.n_map && advice == MADV_DOFORK; i++) {
		const struct mapping *m = &lib.map[i];
		uintptr_t a = MAX(m->addr, start), e = MIN(m->addr + m->len, end);

		if (a < e && !follows_forks(m->f))
			madvise((void *)a, e - a, MADV_DONTFORK);
	}
	pthread_mutex_unlock(&lib.lock);
	return r;
}

static int madvise_request(const struct mapping *m, int advice)
{
	struct pgc_msg msg = { .type = PGC_MSG_MADVISE };

	if (advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE) {
		map_populate(m, advice == MADV_POPULATE_WRITE && m->tracked);
		return 0;
	}
	msg.madvise = (struct pgc_madvise){ .addr = m->addr, .len = m->len, .advice = advice };
	return file_request(m->f, &msg, NULL, 0);
}

PGC_PUBLIC int pgc_madvise(void *addr, size_t len, int advice)
{
	NO_CANCEL;
	uintptr_t start = (uintptr_t)addr, end = start + page_round(len);
	bool populate = advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE;
	struct mapping m;
	int r = 0;

	if ((start & PAGE_MASK_) || end < start || (len > 0 && end == start))
		return -EINVAL;
	switch (advice) {
	case MADV_DONTFORK:
	case MADV_DOFORK:
		return madvise_fork(start, end, advice);
	case MADV_NORMAL:
	case MADV_RANDOM:
	case MADV_SEQUENTIAL:
	case MADV_WILLNEED:
	case MADV_COLD:
	case MADV_PAGEOUT:
	case MADV_POPULATE_READ:
	case MADV_POPULATE_WRITE:
		break;
	default:
		return madvise(addr, len, advice) < 0 ? -errno : 0;
	}
	/* The kernel judges the range. Populating comes after, so that what is left to the kernel is there already. */
	if (!populate && madvise(addr, len, advice) < 0)
		r = -errno;
	for (uintptr_t at = start; at < end && table_next(at, end, &m); at = m.addr + m.len) {
		int k = m.inherited || m.closed ? 0 : madvise_request(&m, advice);

		file_put(m.f);
		/* An address that moved behind our back is nothing that a hint should fail for. */
		if (r == 0 && k != -ENOMEM && k != -EINVAL)
			r = k;
	}
	if (populate && madvise(addr, len, advice) < 0)
		r = -errno;
	return r;
}

/* One byte a page, below the end of file, where the mapping allows it. The bytes stay what they are. */
static void touch(const struct mapping *m, bool write)
{
	uint64_t size = __atomic_load_n(&m->f->control->size, __ATOMIC_ACQUIRE);

	if (!(m->prot & (write ? PROT_WRITE : PROT_READ)))
		return;
	for (uintptr_t d = 0; d < m->len && m->off + (d & ~PAGE_MASK_) < size; d += PGC_PAGE_SIZE) {
		char *p = (char *)m->addr + d;

		if (write)
			__atomic_fetch_or(p, 0, __ATOMIC_RELAXED);
		else
			(void)__atomic_load_n(p, __ATOMIC_RELAXED);
	}
}

bool map_populate_buffer(const void *buf, size_t n, bool write, bool again)
{
	uintptr_t at = (uintptr_t)buf & ~PAGE_MASK_, end = page_round((uintptr_t)buf + n);
	bool any = false, resynced = again;
	struct mapping m;

	if (again) {
		pthread_mutex_lock(&lib.lock);
		table_resync();
		pthread_mutex_unlock(&lib.lock);
	}
	while (at < end && table_next(at, end, &m)) {
		struct pgc_file *f = m.f;
		bool by_hand = m.inherited || m.closed;

		if (file_flags(f) & PGC_HANDLE_KERNEL_FAULTS) {
			file_put(f);
			at = m.addr + m.len;
			continue;
		}
		if (by_hand && !resynced) {
			/* A touch must not hit what the table only believes to be there. */
			pthread_mutex_lock(&lib.lock);
			table_resync();
			pthread_mutex_unlock(&lib.lock);
			resynced = true;
			file_put(f);
			continue;
		}
		if (by_hand || map_populate(&m, write && m.tracked) == -ENOMEM)
			touch(&m, write);
		any = true;
		file_put(f);
		at = m.addr + m.len;
	}
	return any;
}
