/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placeholders: what a program's descriptor number really is. A memfd of its own for each open, sealed, and opened again for writing only: nothing can be read
 * from it, written to it or mapped of it, but it has a file offset and status flags, which the kernel shares between dup, fork and exec. Its
 * content says what it stands for, for the program that finds it after exec.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "preload.h"

#define MAGIC 0x50474350u      /* "PGCP" */
#define VERSION 1
/* What of open(2)'s flags the description keeps. */
#define STATUS (O_APPEND | O_NONBLOCK | O_ASYNC | O_DIRECT | O_SYNC | O_DSYNC | O_NOATIME)

struct header {
	uint32_t magic, version;
	int32_t accmode, flags, real;
	uint32_t path_len;
	uint64_t dev, ino;
};
struct content {
	struct header h;
	char path[4096];
};
_Static_assert(offsetof(struct content, path) == sizeof(struct header), "the path follows at once");

/* A limit of files' sizes (RLIMIT_FSIZE) is for memfds as well, with its signal: then the next program is told nothing. */
static bool content_write(int memfd, const struct iovec content[2])
{
	struct rlimit limit;
	size_t len = content[0].iov_len + content[1].iov_len;

	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < len)
		return true;
	return REAL(writev)(memfd, content, 2) == (ssize_t)len;
}

int placeholder_make(const struct ofd *o, int flags, struct stat *ret)
{
	/* In two parts: a thread's stack may be small. */
	struct header h = {
		.magic = MAGIC, .version = VERSION, .accmode = o->accmode, .flags = flags & STATUS, .real = ofd_real(o),
		.path_len = (uint32_t)strlen(o->path), .dev = o->dev, .ino = o->ino,
	};
	const struct iovec content[2] = { { &h, sizeof(h) }, { o->path, h.path_len + 1 } };
	char link[40];
	int fd, memfd, high;

	if (h.path_len >= sizeof(((struct content *)0)->path))
		return -ENAMETOOLONG;
	memfd = memfd_create(PLACEHOLDER_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (memfd < 0)
		return -errno;
	/* Away from the number that the program gets, which another thread may be using too late for what it was before. */
	high = REAL(fcntl)(memfd, F_DUPFD_CLOEXEC, shim.fd_base);
	if (high >= 0) {
		REAL(close)(memfd);
		memfd = high;
	}
	if (!content_write(memfd, content) || REAL(fcntl)(memfd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 ||
	    REAL(fstat)(memfd, ret) < 0) {
		REAL(close)(memfd);
		return -EIO;
	}
	snprintf(link, sizeof(link), "/proc/self/fd/%d", memfd);
	fd = REAL(open)(link, O_WRONLY | (flags & (STATUS | O_CLOEXEC)));
	if (fd < 0) {
		fd = -errno;
	} else if (fd > memfd && REAL(dup3)(fd, memfd, flags & O_CLOEXEC) >= 0) {
		/* Where there was no high number it has the lowest one: there the new description goes. */
		high = fd;
		fd = memfd;
		memfd = high;
	}
	REAL(close)(memfd);
	return fd;
}

int placeholder_read(int fd, struct placeholder *ret)
{
	static const char name[] = "/memfd:" PLACEHOLDER_NAME " (deleted)";
	char link[40], target[sizeof(name) + 1];
	struct content c = { 0 };
	ssize_t n;
	int own;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, target, sizeof(target));
	if (n != (ssize_t)sizeof(name) - 1 || memcmp(target, name, sizeof(name) - 1) != 0)
		return 0;
	own = REAL(open)(link, O_RDONLY | O_CLOEXEC);
	if (own < 0)
		return -errno;
	n = REAL(pread)(own, &c, sizeof(c), 0);
	if (REAL(fstat)(own, &ret->self) < 0)
		n = -1;
	REAL(close)(own);
	if (n <= (ssize_t)offsetof(struct content, path) || c.h.magic != MAGIC || c.h.version != VERSION || c.h.path_len >= sizeof(c.path))
		return 0;
	ret->accmode = c.h.accmode;
	ret->flags = c.h.flags;
	ret->real = c.h.real;
	ret->dev = c.h.dev;
	ret->ino = c.h.ino;
	memcpy(ret->path, c.path, c.h.path_len);
	ret->path[c.h.path_len] = '\0';
	return 1;
}
