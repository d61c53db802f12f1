/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stat(2) and its kin. The kernel answers, and of a file that the cache has, size, blocks and times come from the daemon: what was written may not be on the store
 * yet. Of a descriptor of ours its handle knows them, or asks. So does that of a file which has one for its path, if it knows; else a path is asked for over the
 * control connection, and without a daemon the kernel's answer stands.
 *
 * access(2) and getdents(2) speak of nothing that the cache changes.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "ctl.h"

/* False: it has to be asked for. */
static bool quick_stat(struct ofd *o, struct stat *st)
{
	struct stat_look look;
	bool known;

	if (!o)
		return false;
	known = stat_look(o->file, &look) && REAL(fstat)(ofd_real(o), st) == 0 && stat_shown(o->file, &look, st);
	ofd_quick_end(o);
	return known;
}

int stat_overlay(struct stat *st)
{
	struct pgc_stat_reply s;
	struct stat now;
	int r;

	if (quick_stat(ofd_quick_of(st->st_dev, st->st_ino), &now)) {
		*st = now;
		return 0;
	}
	r = ctl_stat(st, &s);
	if (r < 0)
		return r;
	st->st_size = (off_t)s.size;
	st->st_blocks = (blkcnt_t)s.blocks;
	st->st_mtim = (struct timespec){ s.mtime_s, s.mtime_ns };
	st->st_ctim = (struct timespec){ s.ctime_s, s.ctime_ns };
	return 0;
}

static int fstat_ours(int fd, struct stat *st)
{
	if (st && quick_stat(ofd_quick(fd), st))
		return 0;
	WITH_OFD(o, fd, REAL(fstat)(fd, st));

	return (int)shim_result(ofd_stat(o, st));
}

/* What a call by path has said. */
static int overlaid(int r, struct stat *st)
{
	int saved = errno;

	if (r == 0 && S_ISREG(st->st_mode) && stat_overlay(st) == -EINTR)
		return (int)shim_result(-EINTR); /* nobody has said what is right */
	errno = saved;
	return r;
}

static bool empty(const char *path)
{
	return !path_given(path) || !*path;
}

/* Is it about a descriptor of ours, given as itself or by a name of it? */
static bool by_descriptor(int dirfd, const char *path, int flags, int named)
{
	return named >= 0 ? !(flags & AT_SYMLINK_NOFOLLOW) : empty(path) && (flags & AT_EMPTY_PATH) && fd_maybe(dirfd);
}

static int stat_at(int dirfd, const char *path, struct stat *st, int flags)
{
	char abs[4096];
	int named = -1;
	bool ours = path_maybe(path) && *path && path_is_ours(dirfd, path, abs, &named);

	if (by_descriptor(dirfd, path, flags, named))
		return fstat_ours(named >= 0 ? named : dirfd, st);
	return ours && named < 0 ? overlaid(REAL(fstatat)(dirfd, path, st, flags), st) : REAL(fstatat)(dirfd, path, st, flags);
}

EXPORT int stat(const char *path, struct stat *st)
{
	return path_may_be_ours(path) ? stat_at(AT_FDCWD, path, st, 0) : REAL(stat)(path, st);
}
ALSO(stat64, stat64, stat);

EXPORT int lstat(const char *path, struct stat *st)
{
	return path_may_be_ours(path) ? stat_at(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW) : REAL(lstat)(path, st);
}
ALSO(lstat64, lstat64, lstat);

EXPORT int fstat(int fd, struct stat *st)
{
	return fd_maybe(fd) ? fstat_ours(fd, st) : REAL(fstat)(fd, st);
}
ALSO(fstat64, fstat64, fstat);

EXPORT int fstatat(int dirfd, const char *path, struct stat *st, int flags)
{
	return path_may_be_ours(path) || fd_maybe(dirfd) ? stat_at(dirfd, path, st, flags) : REAL(fstatat)(dirfd, path, st, flags);
}
ALSO(fstatat64, fstatat64, fstatat);

/* --- the names that binaries for older C libraries use: the kernel's call, which knows the versions, comes first --- */

EXPORT int __xstat(int version, const char *path, struct stat *st);
EXPORT int __lxstat(int version, const char *path, struct stat *st);
EXPORT int __fxstat(int version, int fd, struct stat *st);
EXPORT int __fxstatat(int version, int dirfd, const char *path, struct stat *st, int flags);

EXPORT int __xstat(int version, const char *path, struct stat *st)
{
	int r = REAL(__xstat)(version, path, st);

	return r == 0 && path_may_be_ours(path) ? stat_at(AT_FDCWD, path, st, 0) : r;
}
ALSO(__xstat, __xstat64, __xstat);

EXPORT int __lxstat(int version, const char *path, struct stat *st)
{
	int r = REAL(__lxstat)(version, path, st);

	return r == 0 && path_may_be_ours(path) ? stat_at(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW) : r;
}
ALSO(__lxstat, __lxstat64, __lxstat);

EXPORT int __fxstat(int version, int fd, struct stat *st)
{
	int r = REAL(__fxstat)(version, fd, st);

	return r == 0 && fd_maybe(fd) ? fstat_ours(fd, st) : r;
}
ALSO(__fxstat, __fxstat64, __fxstat);

EXPORT int __fxstatat(int version, int dirfd, const char *path, struct stat *st, int flags)
{
	int r = REAL(__fxstatat)(version, dirfd, path, st, flags);

	return r == 0 && (path_may_be_ours(path) || fd_maybe(dirfd)) ? stat_at(dirfd, path, st, flags) : r;
}
ALSO(__fxstatat, __fxstatat64, __fxstatat);

/* --- statx --- */

static void put_time(struct statx_timestamp *t, struct timespec from)
{
	t->tv_sec = from.tv_sec;
	t->tv_nsec = (uint32_t)from.tv_nsec;
}

static void statx_put(struct statx *stx, const struct stat *st)
{
	stx->stx_size = (uint64_t)st->st_size;
	stx->stx_blocks = (uint64_t)st->st_blocks;
	put_time(&stx->stx_mtime, st->st_mtim);
	put_time(&stx->stx_ctime, st->st_ctim);
	stx->stx_mask |= STATX_SIZE | STATX_BLOCKS | STATX_MTIME | STATX_CTIME;
}

static int statx_ours(int fd, int dirfd, const char *path, int flags, unsigned mask, struct statx *stx)
{
	struct stat st;
	int r;
	WITH_OFD(o, fd, REAL(statx)(dirfd, path, flags, mask, stx));

	if (REAL(statx)(ofd_real(o), "", flags | AT_EMPTY_PATH, mask, stx) < 0)
		return -1;
	r = ofd_stat(o, &st);
	if (r < 0)
		return (int)shim_result(r);
	statx_put(stx, &st);
	return 0;
}

static int statx_overlaid(int dirfd, const char *path, int flags, unsigned mask, struct statx *stx)
{
	/* What the overlay goes by. More than was asked for may always be there. */
	int r = REAL(statx)(dirfd, path, flags, mask | STATX_TYPE | STATX_INO | STATX_SIZE | STATX_BLOCKS | STATX_MTIME | STATX_CTIME, stx), saved = errno;
	struct stat st;

	if (r == 0 && S_ISREG(stx->stx_mode)) {
		st = (struct stat){
			.st_dev = makedev(stx->stx_dev_major, stx->stx_dev_minor), .st_ino = stx->stx_ino,
			.st_size = (off_t)stx->stx_size, .st_blocks = (blkcnt_t)stx->stx_blocks,
			.st_mtim = { stx->stx_mtime.tv_sec, stx->stx_mtime.tv_nsec },
			.st_ctim = { stx->stx_ctime.tv_sec, stx->stx_ctime.tv_nsec },
		};
		switch (stat_overlay(&st)) {
		case 0:
			statx_put(stx, &st);
			break;
		case -EINTR:
			return (int)shim_result(-EINTR);
		}
	}
	errno = saved;
	return r;
}

static int statx_at(int dirfd, const char *path, int flags, unsigned mask, struct statx *stx)
{
	char abs[4096];
	int named = -1;
	bool ours = path_maybe(path) && *path && path_is_ours(dirfd, path, abs, &named);

	if (by_descriptor(dirfd, path, flags, named))
		return statx_ours(named >= 0 ? named : dirfd, dirfd, path, flags, mask, stx);
	return ours && named < 0 ? statx_overlaid(dirfd, path, flags, mask, stx) : REAL(statx)(dirfd, path, flags, mask, stx);
}

EXPORT int statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *stx)
{
	return path_may_be_ours(path) || fd_maybe(dirfd) ? statx_at(dirfd, path, flags, mask, stx) : REAL(statx)(dirfd, path, flags, mask, stx);
}
