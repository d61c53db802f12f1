/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory. Mappings of files of ours are libpagecached's; what works on ranges of addresses asks its table whether any of the range may be one,
 * and is the kernel's otherwise. mincore(2) needs nothing: the pages of the memfd are what it speaks of.
 */
#include <limits.h>
#include <stdarg.h>
#include <sys/mman.h>

#include "preload.h"

/* Is a part of the range one of our mappings, as far as the table knows? Where it is, *ret (unless NULL) is the first part. */
static bool range_ours(const void *addr, size_t len, struct mapping *ret)
{
	uintptr_t start = (uintptr_t)addr, end = len > UINTPTR_MAX - start ? UINTPTR_MAX : start + len;
	struct mapping m;
	bool found;

	if (likely(__atomic_load_n(&lib.n_map, __ATOMIC_RELAXED) == 0) || shim_depth > 0)
		return false;
	ENTER;
	found = table_next(start, end, &m);
	if (found) {
		file_put(m.f);
		if (ret)
			*ret = m;
	}
	return found;
}

bool mem_fault_in(const struct iovec *iov, int n, bool write)
{
	bool any = false;

	for (int i = 0; i < n && i < IOV_MAX; i++)
		if (range_ours(iov[i].iov_base, iov[i].iov_len, NULL)) {
			ENTER;
			any |= map_populate_buffer(iov[i].iov_base, iov[i].iov_len, write, false);
		}
	return any;
}

EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	if ((flags & MAP_ANONYMOUS) || !fd_maybe(fd))
		return REAL(mmap)(addr, len, prot, flags, fd, off);
	WITH_OFD(o, fd, REAL(mmap)(addr, len, prot, flags, fd, off));
	return pgc_mmap(o->file, addr, len, prot, flags, off);
}
ALSO(mmap64, mmap64, mmap);

EXPORT int munmap(void *addr, size_t len)
{
	if (!range_ours(addr, len, NULL))
		return REAL(munmap)(addr, len);
	ENTER;
	return (int)shim_result(pgc_munmap(addr, len));
}

EXPORT void *mremap(void *old, size_t old_len, size_t len, int flags, ...)
{
	va_list ap;
	void *to, *p;

	va_start(ap, flags);
	to = va_arg(ap, void *);
	va_end(ap);
	if (!range_ours(old, MAX(old_len, 1u), NULL))
		return REAL(mremap)(old, old_len, len, flags, to);
	ENTER;
	p = REAL(mremap)(old, old_len, len, flags, to);
	if (p != MAP_FAILED) {
		pthread_mutex_lock(&lib.lock);
		table_resync();
		pthread_mutex_unlock(&lib.lock);
	}
	return p;
}

/*
 * A shared mapping of a file that was opened for reading is a private one underneath, on which the kernel would allow PROT_WRITE.
 */
EXPORT int mprotect(void *addr, size_t len, int prot)
{
	struct mapping m;

	if ((prot & PROT_WRITE) && range_ours(addr, len, &m) && m.shared && !m.tracked) {
		/* The table may be old: something else may have been mapped over it. */
		ENTER;
		pthread_mutex_lock(&lib.lock);
		table_resync();
		pthread_mutex_unlock(&lib.lock);
		shim_leave(&shim_scope_);
		if (range_ours(addr, len, &m) && m.shared && !m.tracked)
			return (int)shim_result(-EACCES);
	}
	return REAL(mprotect)(addr, len, prot);
}

EXPORT int msync(void *addr, size_t len, int flags)
{
	if (!range_ours(addr, len, NULL))
		return REAL(msync)(addr, len, flags);
	ENTER;
	return (int)shim_result(pgc_msync(addr, len, flags));
}

EXPORT int madvise(void *addr, size_t len, int advice)
{
	if (!range_ours(addr, len, NULL))
		return REAL(madvise)(addr, len, advice);
	ENTER;
	return (int)shim_result(pgc_madvise(addr, len, advice));
}

EXPORT int posix_madvise(void *addr, size_t len, int advice)
{
	/* POSIX_MADV_DONTNEED must not lose what is stored, which MADV_DONTNEED does in private mappings: the C library does nothing, either. */
	if (advice == POSIX_MADV_DONTNEED || !range_ours(addr, len, NULL))
		return REAL(posix_madvise)(addr, len, advice);
	ENTER;
	return -pgc_madvise(addr, len, advice);
}

/* mlock(2) faults the range in, by a system call: where the daemon may not serve such faults, beforehand. */
static void fault_in(const void *addr, size_t len)
{
	if (range_ours(addr, len, NULL)) {
		ENTER;
		map_populate_buffer(addr, len, false, false);
	}
}

EXPORT int mlock(const void *addr, size_t len)
{
	fault_in(addr, len);
	return REAL(mlock)(addr, len);
}

EXPORT int mlock2(const void *addr, size_t len, unsigned flags)
{
	if (!(flags & MLOCK_ONFAULT))
		fault_in(addr, len);
	return REAL(mlock2)(addr, len, flags);
}

/*
 * When a thread dies, the kernel marks the robust mutexes that it holds, in memory, and no userfaultfd is asked by then: a page that is write-protected, or gone, stays
 * as it was, and others wait for ever. So pages with such mutexes are kept: writable by who has stored there, and dirty.
 */
EXPORT int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr)
{
	int shared = PTHREAD_PROCESS_PRIVATE, robust = PTHREAD_MUTEX_STALLED, r = REAL(pthread_mutex_init)(mutex, attr);
	struct mapping m;

	if (r != 0 || !attr || pthread_mutexattr_getpshared(attr, &shared) != 0 || pthread_mutexattr_getrobust(attr, &robust) != 0 ||
	    shared != PTHREAD_PROCESS_SHARED || robust != PTHREAD_MUTEX_ROBUST || !range_ours(mutex, sizeof(*mutex), &m) || !m.tracked)
		return r;
	ENTER;
	if (table_next((uintptr_t)mutex, (uintptr_t)(mutex + 1), &m)) {
		if (!m.closed)
			pgc_keep(m.f, (off_t)m.off, (off_t)m.len, true);
		file_put(m.f);
	}
	return r;
}
