/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls on attributes, which the cache has no part in: they go to the real file instead of the placeholder, whether the program names it by a descriptor or by a descriptor's
 * name in /proc. Times: what is dirty is written first, since a write-out after the call would move them. Calls by an ordinary path are the kernel's.
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <utime.h>

#include "ctl.h"

/* --- by descriptor --- */

#define ON_REAL_FD(f, fd, ...) \
	if (!fd_maybe(fd)) \
		return REAL(f)(fd, ##__VA_ARGS__); \
	WITH_OFD(o, fd, REAL(f)(fd, ##__VA_ARGS__)); \
	return REAL(f)(ofd_real(o), ##__VA_ARGS__)

EXPORT int fchmod(int fd, mode_t mode)
{
	ON_REAL_FD(fchmod, fd, mode);
}

EXPORT int fchown(int fd, uid_t uid, gid_t gid)
{
	ON_REAL_FD(fchown, fd, uid, gid);
}

EXPORT ssize_t fgetxattr(int fd, const char *name, void *value, size_t size)
{
	ON_REAL_FD(fgetxattr, fd, name, value, size);
}

EXPORT int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
	ON_REAL_FD(fsetxattr, fd, name, value, size, flags);
}

EXPORT ssize_t flistxattr(int fd, char *list, size_t size)
{
	ON_REAL_FD(flistxattr, fd, list, size);
}

EXPORT int fremovexattr(int fd, const char *name)
{
	ON_REAL_FD(fremovexattr, fd, name);
}

EXPORT int fstatfs(int fd, struct statfs *ret)
{
	ON_REAL_FD(fstatfs, fd, ret);
}
ALSO(fstatfs64, fstatfs64, fstatfs);

EXPORT int fstatvfs(int fd, struct statvfs *ret)
{
	ON_REAL_FD(fstatvfs, fd, ret);
}
ALSO(fstatvfs64, fstatvfs64, fstatvfs);

EXPORT long fpathconf(int fd, int name)
{
	ON_REAL_FD(fpathconf, fd, name);
}

/* --- ioctl --- */

/* Of XFS, and the kernel's for all file systems: the argument is a struct space_resv. */
struct space_range { __s16 type, whence; __s64 start, len; __s32 sysid; __u32 pid; __s32 pad[4]; };
#define SPACE_ALLOCATE    _IOW('X', 36, struct space_range)
#define SPACE_FREE        _IOW('X', 37, struct space_range)
#define SPACE_RESERVE     _IOW('X', 40, struct space_range)
#define SPACE_UNRESERVE   _IOW('X', 41, struct space_range)
#define SPACE_RESERVE64   _IOW('X', 42, struct space_range)
#define SPACE_UNRESERVE64 _IOW('X', 43, struct space_range)
#define SPACE_ZERO        _IOW('X', 57, struct space_range)

static int ioctl_size(struct ofd *o, int fd, unsigned long request, void *arg)
{
	off_t at;

	if (!arg)
		return -EFAULT;
	if (request == FIOQSIZE) {
		*(loff_t *)arg = (loff_t)ofd_size(o);
		return 0;
	}
	at = REAL(lseek)(fd, 0, SEEK_CUR);
	*(int *)arg = (int)((off_t)ofd_size(o) - at);
	return 0;
}

static int ioctl_ours(int fd, unsigned long request, void *arg)
{
	struct stat st;
	int r;
	WITH_OFD(o, fd, REAL(ioctl)(fd, request, arg));

	switch (request) {
	case FIOCLEX:
	case FIONCLEX:
	case FIONBIO:
	case FIOASYNC:
		return REAL(ioctl)(fd, request, arg);
	case FIONREAD:
	case FIOQSIZE:
		/* A device has its own idea of them. */
		if (REAL(fstat)(ofd_real(o), &st) == 0 && S_ISREG(st.st_mode))
			return (int)shim_result(ioctl_size(o, fd, request, arg));
		break;
	case BLKFLSBUF:
		r = pgc_fsync(o->file);
		if (r < 0)
			return (int)shim_result(r);
		break;
	case FIBMAP:
	case FS_IOC_FIEMAP:
		/* Where its bytes lie on the store: programs that ask take holes there for zeros. */
	case FICLONE:
	case FICLONERANGE:
	case FIDEDUPERANGE:
	case SPACE_ALLOCATE:
	case SPACE_FREE:
	case SPACE_RESERVE:
	case SPACE_UNRESERVE:
	case SPACE_RESERVE64:
	case SPACE_UNRESERVE64:
	case SPACE_ZERO:
	case BLKDISCARD:
	case BLKSECDISCARD:
	case BLKZEROOUT:
		/* These change the store past the cache. Programs copy or write instead. */
		return (int)shim_result(-EOPNOTSUPP);
	}
	return REAL(ioctl)(ofd_real(o), request, arg);
}

/* The source of a clone into another file. */
static int clone_source(unsigned long request, void *arg)
{
	if (request == FICLONE)
		return (int)(intptr_t)arg;
	return request == FICLONERANGE && arg ? (int)((struct file_clone_range *)arg)->src_fd : -1;
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (fd_maybe(fd))
		return ioctl_ours(fd, request, arg);
	if (unlikely(request == FICLONE || request == FICLONERANGE) && fd_maybe(clone_source(request, arg)))
		return (int)shim_result(-EOPNOTSUPP);
	return REAL(ioctl)(fd, request, arg);
}

/* --- names of descriptors --- */

static __attribute__((noinline)) int path_fd_closer(const char *path)
{
	char abs[4096];
	int fd;

	return path_is_ours(AT_FDCWD, path, abs, &fd) ? fd : -1;
}

/* The descriptor of ours that an absolute path in /proc or /dev names, or -1. */
static int path_fd(const char *path)
{
	return path_may_be_ours(path) && *path == '/' ? path_fd_closer(path) : -1;
}

struct fd_link { char text[40]; };

static const char *fd_link(struct fd_link *l, int fd)
{
	snprintf(l->text, sizeof(l->text), "/proc/self/fd/%d", fd);
	return l->text;
}

#define NAMED_REAL(fd, call_other, name, call_real) \
	if (fd < 0) \
		return call_other; \
	WITH_OFD(o, fd, call_other); \
	struct fd_link link_; \
	const char *name = fd_link(&link_, ofd_real(o)); \
	return call_real

/* Calls whose first argument is a path that is followed. */
#define ON_REAL_PATH(f, path, ...) \
	int fd = path_fd(path); \
	NAMED_REAL(fd, REAL(f)(path, ##__VA_ARGS__), name, REAL(f)(name, ##__VA_ARGS__))

EXPORT int chmod(const char *path, mode_t mode)
{
	ON_REAL_PATH(chmod, path, mode);
}

EXPORT int chown(const char *path, uid_t uid, gid_t gid)
{
	ON_REAL_PATH(chown, path, uid, gid);
}

EXPORT int access(const char *path, int mode)
{
	ON_REAL_PATH(access, path, mode);
}

EXPORT int euidaccess(const char *path, int mode)
{
	ON_REAL_PATH(euidaccess, path, mode);
}
ALSO(eaccess, eaccess, euidaccess);

EXPORT ssize_t getxattr(const char *path, const char *key, void *value, size_t size)
{
	ON_REAL_PATH(getxattr, path, key, value, size);
}

EXPORT int setxattr(const char *path, const char *key, const void *value, size_t size, int flags)
{
	ON_REAL_PATH(setxattr, path, key, value, size, flags);
}

EXPORT ssize_t listxattr(const char *path, char *list, size_t size)
{
	ON_REAL_PATH(listxattr, path, list, size);
}

EXPORT int removexattr(const char *path, const char *key)
{
	ON_REAL_PATH(removexattr, path, key);
}

EXPORT int statfs(const char *path, struct statfs *ret)
{
	ON_REAL_PATH(statfs, path, ret);
}
ALSO(statfs64, statfs64, statfs);

EXPORT int statvfs(const char *path, struct statvfs *ret)
{
	ON_REAL_PATH(statvfs, path, ret);
}
ALSO(statvfs64, statvfs64, statvfs);

EXPORT long pathconf(const char *path, int key)
{
	ON_REAL_PATH(pathconf, path, key);
}

/* Calls on what a folder's descriptor and a path name, or that descriptor itself. -1: nothing of ours. */
static int at_fd(int dirfd, const char *path, int flags)
{
	if ((flags & AT_EMPTY_PATH) && (!path_given(path) || !*path))
		return fd_maybe(dirfd) ? dirfd : -1;
	return flags & AT_SYMLINK_NOFOLLOW ? -1 : path_fd(path);
}

EXPORT int fchmodat(int dirfd, const char *path, mode_t mode, int flags)
{
	int fd = at_fd(dirfd, path, flags);

	NAMED_REAL(fd, REAL(fchmodat)(dirfd, path, mode, flags), name, REAL(fchmodat)(AT_FDCWD, name, mode, flags & ~AT_EMPTY_PATH));
}

EXPORT int fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
	int fd = at_fd(dirfd, path, flags);

	NAMED_REAL(fd, REAL(fchownat)(dirfd, path, uid, gid, flags), name,
		   REAL(fchownat)(AT_FDCWD, name, uid, gid, flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)));
}

EXPORT int faccessat(int dirfd, const char *path, int mode, int flags)
{
	int fd = at_fd(dirfd, path, flags);

	NAMED_REAL(fd, REAL(faccessat)(dirfd, path, mode, flags), name,
		   REAL(faccessat)(AT_FDCWD, name, mode, flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)));
}

/* A file without a name gets one (O_TMPFILE). Here links are not followed unless it is asked for. */
EXPORT int linkat(int dirfd, const char *path, int new_dirfd, const char *new_path, int flags)
{
	bool itself = (flags & AT_EMPTY_PATH) && path_given(path) && !*path;
	int fd = itself ? (fd_maybe(dirfd) ? dirfd : -1) : flags & AT_SYMLINK_FOLLOW ? path_fd(path) : -1;

	NAMED_REAL(fd, REAL(linkat)(dirfd, path, new_dirfd, new_path, flags), name,
		   itself ? REAL(linkat)(ofd_real(o), "", new_dirfd, new_path, flags) : REAL(linkat)(AT_FDCWD, name, new_dirfd, new_path, flags));
}

/* What the link says: the kernel's own words of the real file, which knows of a new name and of none. */
EXPORT ssize_t readlinkat(int dirfd, const char *path, char *buf, size_t size)
{
	int fd = path_fd(path);

	NAMED_REAL(fd, REAL(readlinkat)(dirfd, path, buf, size), name, REAL(readlinkat)(AT_FDCWD, name, buf, size));
}

EXPORT ssize_t readlink(const char *path, char *buf, size_t size)
{
	return path_maybe(path) ? readlinkat(AT_FDCWD, path, buf, size) : REAL(readlink)(path, buf, size);
}

/* The fortified names: the C library's own check comes first, and ends the program. */
EXPORT ssize_t __readlink_chk(const char *path, char *buf, size_t size, size_t room);
EXPORT ssize_t __readlink_chk(const char *path, char *buf, size_t size, size_t room)
{
	return size > room || !path_maybe(path) ? REAL(__readlink_chk)(path, buf, size, room) : readlinkat(AT_FDCWD, path, buf, size);
}

EXPORT ssize_t __readlinkat_chk(int dirfd, const char *path, char *buf, size_t size, size_t room);
EXPORT ssize_t __readlinkat_chk(int dirfd, const char *path, char *buf, size_t size, size_t room)
{
	return size > room || !path_maybe(path) ? REAL(__readlinkat_chk)(dirfd, path, buf, size, room) : readlinkat(dirfd, path, buf, size);
}

/* The C library follows links by itself. */
EXPORT char *realpath(const char *path, char *ret)
{
	int fd = path_fd(path);

	NAMED_REAL(fd, REAL(realpath)(path, ret), name, REAL(realpath)(name, ret));
}

EXPORT char *__realpath_chk(const char *path, char *ret, size_t room);
EXPORT char *__realpath_chk(const char *path, char *ret, size_t room)
{
	int fd = path_fd(path);

	NAMED_REAL(fd, REAL(__realpath_chk)(path, ret, room), name, REAL(__realpath_chk)(name, ret, room));
}

EXPORT char *canonicalize_file_name(const char *path)
{
	return realpath(path, NULL);
}

/* --- size by path --- */

/*
 * As a program would that had only ftruncate(2): the cache says what the size is. What the kernel would refuse, or is no regular file, is left to it, so that
 * nothing is opened that waits for somebody.
 */
EXPORT int truncate(const char *path, off_t size)
{
	char abs[4096];
	struct stat st;
	int named, fd, r, saved;

	if (!path_maybe(path) || size < 0 || !path_is_ours(AT_FDCWD, path, abs, &named))
		return REAL(truncate)(path, size);
	if (REAL(stat)(path, &st) < 0 || (named < 0 && !S_ISREG(st.st_mode)))
		return REAL(truncate)(path, size);
	fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -1;
	r = ftruncate(fd, size);
	saved = errno;
	close(fd);
	errno = saved;
	return r;
}
ALSO(truncate64, truncate64, truncate);

/* --- times --- */

/* Outside a scope. Whether that succeeds or not, times are the kernel's to set. */
static void write_out_fd(int fd)
{
	struct ofd *o _cleanup_ofd_ = NULL;
	ENTER;

	o = ofd_get(fd);
	if (o)
		file_write_out(o->file, 0, 0, true);
}

/* By a handle of its own where the program may open it, as that asks less than a sync of the store. */
static void write_out_found(int dirfd, const char *path, const struct stat *st)
{
	struct pgc_file *f;
	struct stat again;
	int fd = REAL(openat)(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), r = -EACCES;

	if (fd >= 0 && REAL(fstat)(fd, &again) == 0 && again.st_dev == st->st_dev && again.st_ino == st->st_ino)
		r = pgc_fdopen(&f, fd);
	if (fd >= 0)
		real_file_close(fd);
	if (r == 0) {
		file_write_out(f, 0, 0, true);
		pgc_close(f);
	} else if (r == -EACCES) {
		ctl_sync(st->st_dev, st->st_ino);
	}
}

static void write_out_path(int dirfd, const char *path, int flags)
{
	int saved = errno, named;
	char abs[4096];
	struct pgc_stat_reply reply;
	struct stat st;

	if (path_maybe(path) && *path && path_is_ours(dirfd, path, abs, &named) && named < 0 &&
	    REAL(fstatat)(dirfd, path, &st, flags & AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && ctl_stat(&st, &reply) == 0) {
		ENTER;
		write_out_found(dirfd, path, &st);
	}
	errno = saved;
}

EXPORT int futimens(int fd, const struct timespec times[2])
{
	if (fd_maybe(fd))
		write_out_fd(fd);
	ON_REAL_FD(futimens, fd, times);
}

EXPORT int futimes(int fd, const struct timeval times[2])
{
	if (fd_maybe(fd))
		write_out_fd(fd);
	ON_REAL_FD(futimes, fd, times);
}

EXPORT int utimensat(int dirfd, const char *path, const struct timespec times[2], int flags)
{
	int fd = path_given(path) ? at_fd(dirfd, path, flags) : -1;

	if (fd >= 0)
		return futimens(fd, times);
	write_out_path(dirfd, path, flags);
	return REAL(utimensat)(dirfd, path, times, flags);
}

static void to_timespec(const struct timeval from[2], struct timespec ret[2])
{
	for (int i = 0; i < 2; i++)
		ret[i] = (struct timespec){ from[i].tv_sec, from[i].tv_usec * 1000 };
}

static int utimes_at(int dirfd, const char *path, const struct timeval times[2], int flags)
{
	struct timespec ts[2];

	if (!times)
		return utimensat(dirfd, path, NULL, flags);
	for (int i = 0; i < 2; i++)
		if (times[i].tv_usec < 0 || times[i].tv_usec >= 1000000)
			return (int)shim_result(-EINVAL);
	to_timespec(times, ts);
	return utimensat(dirfd, path, ts, flags);
}

EXPORT int utimes(const char *path, const struct timeval times[2])
{
	return path_maybe(path) ? utimes_at(AT_FDCWD, path, times, 0) : REAL(utimes)(path, times);
}

EXPORT int lutimes(const char *path, const struct timeval times[2])
{
	return path_maybe(path) ? utimes_at(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) : REAL(lutimes)(path, times);
}

EXPORT int futimesat(int dirfd, const char *path, const struct timeval times[2])
{
	if (!path && fd_maybe(dirfd))
		return futimes(dirfd, times);
	return path_maybe(path) ? utimes_at(dirfd, path, times, 0) : REAL(futimesat)(dirfd, path, times);
}

EXPORT int utime(const char *path, const struct utimbuf *times)
{
	struct timeval tv[2];

	if (!path_maybe(path))
		return REAL(utime)(path, times);
	if (!times)
		return utimes_at(AT_FDCWD, path, NULL, 0);
	tv[0] = (struct timeval){ times->actime, 0 };
	tv[1] = (struct timeval){ times->modtime, 0 };
	return utimes_at(AT_FDCWD, path, tv, 0);
}
