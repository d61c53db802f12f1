/* SPDX-License-Identifier: Apache-2.0 */
/*
 * open(2) and its kin. The kernel opens the file as the program asked, so that it decides who may and what is made; what then is a regular file or a block device
 * gets a handle, and the program a placeholder. O_TRUNC is left out of the open and done through the cache.
 */
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "preload.h"

/* What the placeholder keeps and the real description must not have. */
#define NOT_REAL (O_TRUNC | O_APPEND | O_DIRECT | O_ASYNC)

/* It is what the kernel opened: with what was left out of the flags. */
static int give_back(int fd, int flags)
{
	if (flags & (O_APPEND | O_DIRECT | O_ASYNC))
		REAL(fcntl)(fd, F_SETFL, REAL(fcntl)(fd, F_GETFL) | (flags & (O_APPEND | O_DIRECT | O_ASYNC)));
	if (!(flags & O_CLOEXEC))
		REAL(fcntl)(fd, F_SETFD, 0);
	return table_plain(fd);
}

static int fail(int fd, struct ofd *o, const char *abs, const char *what, int error)
{
	shim_debug("pagecached: %s: %s: %s", abs, what, strerror(error));
	if (fd >= 0)
		real_file_close(fd);
	if (o)
		ofd_put(o);
	errno = error;
	return -1;
}

int open_take_over(int fd, const char *abs, int flags, bool truncate)
{
	struct ofd *o;
	struct stat st;
	int r;
	ENTER;

	if (REAL(fstat)(fd, &st) < 0)
		return fail(fd, NULL, abs, "fstat", errno);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return give_back(fd, flags);
	o = ofd_new(fd, abs, flags & O_ACCMODE);
	if (!o)
		return fail(-1, NULL, abs, "no handle", errno);
	r = truncate ? pgc_ftruncate(o->file, 0) : 0;
	if (r < 0)
		return fail(-1, o, abs, "truncation", -r);
	r = placeholder_make(o, flags, &st);
	if (r < 0)
		return fail(-1, o, abs, "no descriptor", -r);
	if (r >= FD_MAX) {
		REAL(close)(r);
		return fail(-1, o, abs, "no descriptor", EMFILE);
	}
	o->holder_dev = st.st_dev;
	o->holder_ino = st.st_ino;
	paths_fd_gone(r);
	table_set(r, o);
	shim_debug("pagecached: %s is descriptor %d", abs, r);
	return r;
}

/* What is opened is a file of ours again, by a name of its descriptor (/dev/fd/N). */
static int open_again(int fd, const char *abs, int flags)
{
	char link[40];
	int n;
	WITH_OFD(o, fd, REAL(open)(abs, flags));

	snprintf(link, sizeof(link), "/proc/self/fd/%d", ofd_real(o));
	n = REAL(open)(link, (flags & ~NOT_REAL) | O_CLOEXEC);
	return n < 0 ? -1 : open_take_over(n, o->path, flags, (flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY);
}

static bool left_to_kernel(int flags)
{
	return (flags & O_PATH) || ((flags & O_DIRECTORY) && (flags & O_TMPFILE) != O_TMPFILE);
}

int open_ours(int dirfd, const char *path, const char *abs, int flags, mode_t mode)
{
	bool truncate = (flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY;
	/* O_TRUNC with O_RDONLY truncates, too, says Linux: that is left to it, with what else is unusual. */
	int keep = (flags & ~NOT_REAL) | (truncate ? 0 : flags & O_TRUNC);
	int fd = REAL(openat)(dirfd, path, keep | O_CLOEXEC, mode), r;
	struct stat made, now;

	if (fd < 0)
		return fd;
	if (!(flags & O_CREAT) || !(flags & O_EXCL) || REAL(fstat)(fd, &made) < 0)
		return open_take_over(fd, abs, flags, truncate);
	r = open_take_over(fd, abs, flags, truncate);
	if (r < 0) {
		/* An open that fails makes nothing: the next one with O_EXCL would find it. */
		int error = errno;
		ENTER;

		if (REAL(fstatat)(dirfd, path, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_dev == made.st_dev && now.st_ino == made.st_ino &&
		    now.st_size == 0)
			REAL(unlinkat)(dirfd, path, 0);
		errno = error;
	}
	return r;
}

/* A file without a name is where its folder is: as if it had some name there. */
static __attribute__((noinline)) bool nameless_is_ours(int dirfd, const char *path, char abs[4096], int *ret_fd)
{
	char inside[4096];

	return *path && snprintf(inside, sizeof(inside), "%s/#", path) < (int)sizeof(inside) && path_is_ours(dirfd, inside, abs, ret_fd);
}

static bool file_is_ours(int dirfd, const char *path, int flags, char abs[4096], int *ret_fd)
{
	return (flags & O_TMPFILE) == O_TMPFILE ? nameless_is_ours(dirfd, path, abs, ret_fd) : path_is_ours(dirfd, path, abs, ret_fd);
}

static int open_any(int dirfd, const char *path, int flags, mode_t mode)
{
	char abs[4096];
	int fd;

	if (left_to_kernel(flags) || !file_is_ours(dirfd, path, flags, abs, &fd))
		return table_plain(REAL(openat)(dirfd, path, flags, mode));
	cancellation_point();
	fd = fd >= 0 ? open_again(fd, abs, flags) : open_ours(dirfd, path, abs, flags, mode);
	stdio_fd_changed(fd);
	return fd;
}

/* With O_TMPFILE the path is the folder's. */
static inline bool open_maybe(const char *path, int flags)
{
	return path_maybe(path) && ((flags & O_TMPFILE) == O_TMPFILE || !path_is_other(path));
}

#define MODE(flags) ({ \
	mode_t mode_ = 0; \
	if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) { \
		va_list ap_; \
		va_start(ap_, flags); \
		mode_ = va_arg(ap_, mode_t); \
		va_end(ap_); \
	} \
	mode_; })

EXPORT int open(const char *path, int flags, ...)
{
	mode_t mode = MODE(flags);

	return open_maybe(path, flags) ? open_any(AT_FDCWD, path, flags, mode) : table_plain(REAL(open)(path, flags, mode));
}
ALSO(open64, open64, open);

EXPORT int openat(int dirfd, const char *path, int flags, ...)
{
	mode_t mode = MODE(flags);

	return open_maybe(path, flags) ? open_any(dirfd, path, flags, mode) : table_plain(REAL(openat)(dirfd, path, flags, mode));
}
ALSO(openat64, openat64, openat);

EXPORT int creat(const char *path, mode_t mode)
{
	return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
ALSO(creat64, creat64, creat);

/* The fortified names, for calls without a mode. Those that would need one end the program, as in the C library. */
EXPORT int __open_2(const char *path, int flags);
EXPORT int __open_2(const char *path, int flags)
{
	if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE || !path_may_be_ours(path))
		return table_plain(REAL(__open_2)(path, flags));
	return open_any(AT_FDCWD, path, flags, 0);
}
ALSO(__open_2, __open64_2, __open_2);

EXPORT int __openat_2(int dirfd, const char *path, int flags);
EXPORT int __openat_2(int dirfd, const char *path, int flags)
{
	if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE || !path_may_be_ours(path))
		return table_plain(REAL(__openat_2)(dirfd, path, flags));
	return open_any(dirfd, path, flags, 0);
}
ALSO(__openat_2, __openat64_2, __openat_2);

/* Not in every C library; programs also come here by syscall(2). */
EXPORT int openat2(int dirfd, const char *path, const struct open_how *how, size_t size);
EXPORT int openat2(int dirfd, const char *path, const struct open_how *how, size_t size)
{
	struct open_how keep;
	char abs[4096];
	int fd, flags;

	if (!path_maybe(path) || !how || size != sizeof(keep) || left_to_kernel((int)how->flags) || !path_is_ours(dirfd, path, abs, &fd) || fd >= 0)
		return table_plain((int)REAL(syscall)(SYS_openat2, dirfd, path, how, size));
	keep = *how;
	flags = (int)how->flags;
	keep.flags = (how->flags & ~(uint64_t)NOT_REAL) | O_CLOEXEC;
	fd = (int)REAL(syscall)(SYS_openat2, dirfd, path, &keep, size);
	return fd < 0 ? fd : open_take_over(fd, abs, flags, (flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY);
}
