/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors: close, duplicates, flags, locks. */
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <stdarg.h>
#include <stdint.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include "preload.h"

EXPORT int close(int fd)
{
	if (shim_depth == 0)
		paths_fd_gone(fd);
	if (!fd_maybe(fd))
		return REAL(close)(fd);
	cancellation_point();
	WITH_OFD(o, fd, REAL(close)(fd));
	record_locks_drop(o);
	return table_close(fd);
}

/* --- close_range --- */

static int close_between(unsigned first, unsigned last, unsigned flags)
{
	return first > last ? 0 : (int)REAL(syscall)(SYS_close_range, first, last, flags);
}

/* Ours are closed one by one, hidden ones stay, and the kernel closes what lies between. */
static int close_all(unsigned first, unsigned last, unsigned flags)
{
	unsigned from = first;
	int fd = first > INT_MAX ? -1 : table_find_next((int)first, (int)MIN(last, (unsigned)INT_MAX)), r = 0;

	for (; fd >= 0 && r == 0; fd = table_find_next(fd + 1, (int)MIN(last, (unsigned)INT_MAX))) {
		if (!fd_is_hidden(fd)) {
			close(fd);
			continue;
		}
		r = close_between(from, (unsigned)fd - 1, flags);
		from = (unsigned)fd + 1;
		if (from > last)
			return r;
	}
	return r < 0 ? r : close_between(from, last, flags);
}

EXPORT int close_range(unsigned first, unsigned last, int flags)
{
	/* Marked close-on-exec is what hidden ones are anyway. */
	if (shim_depth > 0 || first > last || (flags & CLOSE_RANGE_CLOEXEC))
		return REAL(close_range)(first, last, flags);
	if ((flags & CLOSE_RANGE_UNSHARE) && (int)REAL(syscall)(SYS_unshare, CLONE_FILES) < 0)
		return -1;
	return close_all(first, last, (unsigned)flags & ~(unsigned)CLOSE_RANGE_UNSHARE);
}

EXPORT void closefrom(int first)
{
	close_range((unsigned)MAX(first, 0), ~0u, 0);
}

/* --- duplicates --- */

struct dup_args { int from, to, flags; };

static int make_dup(void *arg)
{
	struct dup_args *a = arg;

	return REAL(fcntl)(a->from, a->flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, a->to);
}

static int make_dup3(void *arg)
{
	struct dup_args *a = arg;

	return REAL(dup3)(a->from, a->to, a->flags);
}

static int dup_from(int fd, int least, int flags)
{
	struct dup_args a = { fd, least, flags };
	int n;
	WITH_OFD(o, fd, REAL(fcntl)(fd, flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, least));

	n = table_dup(o, make_dup, &a);
	if (n >= 0)
		paths_fd_gone(n);
	shim_leave(&shim_scope_);
	stdio_fd_changed(n);
	return n;
}

EXPORT int dup(int fd)
{
	return fd_maybe(fd) ? dup_from(fd, 0, 0) : table_plain(REAL(dup)(fd));
}

static int dup_to(int from, int to, int flags)
{
	struct dup_args a = { from, to, flags };
	struct ofd *o _cleanup_ofd_ = NULL, *old _cleanup_ofd_ = NULL;
	int n;
	ENTER;

	if (fd_is_hidden(from) || fd_is_hidden(to)) {
		errno = EBADF;
		return -1;
	}
	o = ofd_get(from);
	old = ofd_get(to);
	/* It closes `to`, and with it the record locks. */
	if (old && REAL(fcntl)(from, F_GETFD) >= 0)
		record_locks_drop(old);
	n = table_dup(o, make_dup3, &a);
	if (n >= 0)
		paths_fd_gone(n);
	return n;
}

static int dup_over(int from, int to, int flags)
{
	int n;

	if (!fd_maybe(from) && !fd_maybe(to))
		return table_plain(REAL(dup3)(from, to, flags));
	stdio_fd_changing(to);
	n = dup_to(from, to, flags);
	stdio_fd_changed(to);
	return n;
}

EXPORT int dup3(int from, int to, int flags)
{
	return from == to ? REAL(dup3)(from, to, flags) : dup_over(from, to, flags);
}

EXPORT int dup2(int from, int to)
{
	return from == to ? REAL(dup2)(from, to) : dup_over(from, to, 0);
}

/* --- locks --- */

/*
 * The lock in terms of SEEK_SET, as the real description has another offset and perhaps another size. 0 or -errno.
 */
static int lock_absolute(struct ofd *o, int fd, const struct flock *lock, struct flock *ret)
{
	off_t base = 0;

	*ret = *lock;
	if (lock->l_whence == SEEK_CUR)
		base = REAL(lseek)(fd, 0, SEEK_CUR);
	else if (lock->l_whence == SEEK_END)
		base = (off_t)ofd_size(o);
	else if (lock->l_whence != SEEK_SET)
		return -EINVAL;
	if (base < 0 || __builtin_add_overflow(base, lock->l_start, &ret->l_start))
		return -EOVERFLOW;
	ret->l_whence = SEEK_SET;
	return 0;
}

/* A lock may be waited for as long as others like: outside the scope, so that signals end it. */
static int lock_record(int fd, int cmd, struct flock *lock)
{
	struct flock absolute;
	int r;
	WITH_OFD(o, fd, REAL(fcntl)(fd, cmd, lock));

	if (!lock)
		return (int)shim_result(-EFAULT);
	r = lock_absolute(o, fd, lock, &absolute);
	if (r < 0)
		return (int)shim_result(r);
	if (cmd != F_GETLK && cmd != F_OFD_GETLK &&
	    ((lock->l_type == F_RDLCK && o->accmode == O_WRONLY) || (lock->l_type == F_WRLCK && o->accmode == O_RDONLY)))
		return (int)shim_result(-EBADF);
	if ((cmd == F_SETLK || cmd == F_SETLKW) && lock->l_type != F_UNLCK)
		record_locks_taken(o);
	shim_leave(&shim_scope_);
	r = REAL(fcntl)(ofd_real(o), cmd, &absolute);
	if (r == 0 && (cmd == F_GETLK || cmd == F_OFD_GETLK)) {
		if (absolute.l_type == F_UNLCK)
			lock->l_type = F_UNLCK;
		else
			*lock = absolute;
	}
	return r;
}

static int get_flags(int fd)
{
	int flags;
	WITH_OFD(o, fd, REAL(fcntl)(fd, F_GETFL));

	flags = REAL(fcntl)(fd, F_GETFL);
	return flags < 0 ? -1 : (flags & ~O_ACCMODE) | o->accmode;
}

/* Concerns the file and not the description. */
static int fcntl_real(int fd, int cmd, void *arg)
{
	WITH_OFD(o, fd, REAL(fcntl)(fd, cmd, arg));

	return REAL(fcntl)(ofd_real(o), cmd, arg);
}

static int fcntl_ours(int fd, int cmd, void *arg)
{
	switch (cmd) {
	case F_DUPFD:
		return dup_from(fd, (int)(intptr_t)arg, 0);
	case F_DUPFD_CLOEXEC:
		return dup_from(fd, (int)(intptr_t)arg, O_CLOEXEC);
	case F_GETFL:
		return get_flags(fd);
	case F_SETLK:
	case F_SETLKW:
	case F_GETLK:
	case F_OFD_SETLK:
	case F_OFD_SETLKW:
	case F_OFD_GETLK:
		return lock_record(fd, cmd, arg);
	case F_GETFD:
	case F_SETFD:
	case F_SETFL:
	case F_GETOWN:
	case F_SETOWN:
	case F_GETOWN_EX:
	case F_SETOWN_EX:
	case F_GETSIG:
	case F_SETSIG:
		/* The placeholder's own; nothing of a hidden one is the program's business. */
		if (fd_is_hidden(fd))
			return (int)shim_result(-EBADF);
		return REAL(fcntl)(fd, cmd, arg);
	case F_ADD_SEALS:
	case F_GET_SEALS:
		return (int)shim_result(-EINVAL);
	default:
		return fcntl_real(fd, cmd, arg);
	}
}

EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;
	int r;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (fd_maybe(fd))
		return fcntl_ours(fd, cmd, arg);
	r = REAL(fcntl)(fd, cmd, arg);
	return cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC ? table_plain(r) : r;
}
ALSO(fcntl64, fcntl64, fcntl);

EXPORT int flock(int fd, int operation)
{
	if (!fd_maybe(fd))
		return REAL(flock)(fd, operation);
	WITH_OFD(o, fd, REAL(flock)(fd, operation));
	shim_leave(&shim_scope_);
	return REAL(flock)(ofd_real(o), operation);
}

EXPORT int lockf(int fd, int cmd, off_t len)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_CUR, .l_len = len };

	if (!fd_maybe(fd))
		return REAL(lockf)(fd, cmd, len);
	switch (cmd) {
	case F_LOCK:
		return lock_record(fd, F_SETLKW, &lock);
	case F_TLOCK:
		return lock_record(fd, F_SETLK, &lock);
	case F_ULOCK:
		lock.l_type = F_UNLCK;
		return lock_record(fd, F_SETLK, &lock);
	case F_TEST:
		if (lock_record(fd, F_GETLK, &lock) < 0)
			return -1;
		return lock.l_type == F_UNLCK ? 0 : (int)shim_result(-EACCES);
	default:
		return (int)shim_result(-EINVAL);
	}
}
ALSO(lockf64, lockf64, lockf);
