/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the linker (--wrap) puts in the place of functions that the daemon calls, so that they can fail as inject.h says. Libraries' own calls are not seen.
 * Names are those that files with large offsets give (open is open64).
 * May call inject and what it stands in front of.
 */
#include "daemon/inject.h"

#ifdef PGC_FAILURE_INJECTION
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "daemon/uffd.h"
#include "daemon/util/util.h"

/* Declares what is wrapped and what wraps it. */
#define WRAP(type, name, ...) type __real_##name(__VA_ARGS__); type __wrap_##name(__VA_ARGS__); type __wrap_##name(__VA_ARGS__)

/* --- memory --- */

static bool no_memory(enum inject_kind kind)
{
	if (!inject(kind))
		return false;
	errno = ENOMEM;
	return true;
}

WRAP(void *, malloc, size_t n) { return no_memory(INJECT_MALLOC) ? NULL : __real_malloc(n); }
WRAP(void *, calloc, size_t n, size_t size) { return no_memory(INJECT_MALLOC) ? NULL : __real_calloc(n, size); }
WRAP(void *, realloc, void *p, size_t n) { return no_memory(INJECT_MALLOC) ? NULL : __real_realloc(p, n); }
WRAP(void *, reallocarray, void *p, size_t n, size_t size) { return no_memory(INJECT_MALLOC) ? NULL : __real_reallocarray(p, n, size); }
WRAP(char *, strdup, const char *s) { return no_memory(INJECT_MALLOC) ? NULL : __real_strdup(s); }
WRAP(FILE *, open_memstream, char **buf, size_t *n) { return no_memory(INJECT_MALLOC) ? NULL : __real_open_memstream(buf, n); }
WRAP(ssize_t, getline, char **line, size_t *room, FILE *f) { return no_memory(INJECT_MALLOC) ? -1 : __real_getline(line, room, f); }

int __wrap_asprintf(char **ret, const char *format, ...) __attribute__((format(printf, 2, 3)));
int __wrap_asprintf(char **ret, const char *format, ...)
{
	va_list args;
	int r;

	if (no_memory(INJECT_MALLOC))
		return -1;
	va_start(args, format);
	r = vasprintf(ret, format, args);
	va_end(args);
	return r;
}

WRAP(void *, mmap64, void *addr, size_t n, int prot, int flags, int fd, off_t off)
{
	return no_memory(INJECT_MMAP) ? MAP_FAILED : __real_mmap64(addr, n, prot, flags, fd, off);
}

/* A memfd gets no page: for the first, or, of several, for one in the middle. */
WRAP(ssize_t, pwrite64, int fd, const void *buf, size_t n, off_t off)
{
	if (inject(INJECT_MEMORY)) {
		size_t some = n > PAGE_SIZE_ ? PAGE_SIZE_ * inject_below(n / PAGE_SIZE_) : 0;

		some = some ? some - (size_t)off % PAGE_SIZE_ : 0;
		if (some)
			return __real_pwrite64(fd, buf, some, off);
		errno = inject_below(2) ? ENOSPC : ENOMEM;
		return -1;
	}
	return __real_pwrite64(fd, buf, n, off);
}

/* Only what makes pages: a hole needs none. */
WRAP(int, fallocate64, int fd, int mode, off_t off, off_t len)
{
	if (!(mode & FALLOC_FL_PUNCH_HOLE) && inject(INJECT_MEMORY)) {
		errno = inject_below(2) ? ENOSPC : ENOMEM;
		return -1;
	}
	return __real_fallocate64(fd, mode, off, len);
}

/* --- descriptors --- */

static bool no_descriptor(void)
{
	if (!inject(INJECT_FD))
		return false;
	errno = inject_below(4) ? EMFILE : ENFILE;
	return true;
}

static mode_t mode_of(int flags, va_list args) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0; }

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = mode_of(flags, args);
	va_end(args);
	return no_descriptor() ? -1 : __real_open64(path, flags, mode);
}

int __real_openat64(int dir, const char *path, int flags, ...);
int __wrap_openat64(int dir, const char *path, int flags, ...);
int __wrap_openat64(int dir, const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = mode_of(flags, args);
	va_end(args);
	return no_descriptor() ? -1 : __real_openat64(dir, path, flags, mode);
}

int __real_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...)
{
	va_list args;
	void *arg;

	va_start(args, command);
	arg = va_arg(args, void *); /* whatever it is, it has this size at most */
	va_end(args);
	return (command == F_DUPFD || command == F_DUPFD_CLOEXEC) && no_descriptor() ? -1 : __real_fcntl64(fd, command, arg);
}

WRAP(FILE *, fopen64, const char *path, const char *mode) { return no_descriptor() ? NULL : __real_fopen64(path, mode); }
WRAP(int, memfd_create, const char *name, unsigned flags) { return no_descriptor() ? -1 : __real_memfd_create(name, flags); }
WRAP(int, dup, int fd) { return no_descriptor() ? -1 : __real_dup(fd); }
WRAP(int, pipe2, int end[2], int flags) { return no_descriptor() ? -1 : __real_pipe2(end, flags); }
WRAP(int, eventfd, unsigned value, int flags) { return no_descriptor() ? -1 : __real_eventfd(value, flags); }
WRAP(int, socket, int domain, int type, int protocol) { return no_descriptor() ? -1 : __real_socket(domain, type, protocol); }
WRAP(int, accept4, int fd, struct sockaddr *a, socklen_t *n, int flags) { return no_descriptor() ? -1 : __real_accept4(fd, a, n, flags); }

/* Reading a fork event makes a descriptor. Nothing else of a userfaultfd's messages fails, but fewer may come. */
WRAP(ssize_t, preadv64v2, int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	struct iovec one = { iov->iov_base, sizeof(struct uffd_msg) };

	if (no_descriptor())
		return -1;
	return n == 1 && inject(INJECT_UFFD_PART) ? __real_preadv64v2(fd, &one, 1, off, flags) : __real_preadv64v2(fd, iov, n, off, flags);
}

/* --- sockets --- */

/* As the kernel does without a free number: those that were received so far stay, the others are dropped, and the flag says so. */
static void drop_descriptors(struct msghdr *h)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(h);
	size_t n, keep;

	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || !inject(INJECT_CTRUNC))
		return;
	n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	keep = inject_below(n);
	for (size_t i = keep; i < n; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
		close(fd);
	}
	c->cmsg_len = CMSG_LEN(keep * sizeof(int));
	h->msg_controllen = keep ? CMSG_SPACE(keep * sizeof(int)) : 0;
	h->msg_flags |= MSG_CTRUNC;
}

WRAP(ssize_t, recvmsg, int fd, struct msghdr *h, int flags)
{
	ssize_t n = __real_recvmsg(fd, h, flags);

	if (n >= 0)
		drop_descriptors(h);
	return n;
}

WRAP(ssize_t, sendmsg, int fd, const struct msghdr *h, int flags)
{
	if (inject(INJECT_SEND)) {
		errno = inject_below(2) ? EAGAIN : ENOBUFS;
		return -1;
	}
	return __real_sendmsg(fd, h, flags);
}

/* --- threads and rings --- */

WRAP(int, pthread_create, pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
	return inject(INJECT_THREAD) ? EAGAIN : __real_pthread_create(t, a, fn, arg);
}

static int passing(void)
{
	static const int errors[] = { EAGAIN, EBUSY, EINTR };

	return -errors[inject_below(ELEMENTSOF(errors))];
}

WRAP(int, io_uring_submit, struct io_uring *ring) { return inject(INJECT_ENTER) ? passing() : __real_io_uring_submit(ring); }
WRAP(int, io_uring_submit_and_wait, struct io_uring *ring, unsigned n)
{
	return inject(INJECT_ENTER) ? passing() : __real_io_uring_submit_and_wait(ring, n);
}

/* --- userfaultfds --- */

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

static int uffd_again(void)
{
	errno = EAGAIN;
	return -1;
}

static int continue_part(int fd, struct uffdio_continue *c)
{
	uint64_t pages = c->range.len / PAGE_SIZE_, len = c->range.len;
	int r;

	c->range.len = (1 + inject_below(pages - 1)) * PAGE_SIZE_;
	r = __real_ioctl(fd, UFFDIO_CONTINUE, c);
	c->range.len = len;
	return r < 0 ? r : uffd_again();
}

/* The first page twice: what the second says is what there is when another thread's fault came first. */
static int continue_twice(int fd, struct uffdio_continue *c)
{
	struct uffdio_continue first = *c;

	first.range.len = PAGE_SIZE_;
	(void)__real_ioctl(fd, UFFDIO_CONTINUE, &first);
	return __real_ioctl(fd, UFFDIO_CONTINUE, c);
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	switch (request) {
	case UFFDIO_CONTINUE:
		((struct uffdio_continue *)arg)->mapped = 0;
		if (inject(INJECT_UFFD_AGAIN))
			return uffd_again();
		if (((struct uffdio_continue *)arg)->range.len > PAGE_SIZE_ && inject(INJECT_UFFD_PART))
			return continue_part(fd, arg);
		if (inject(INJECT_UFFD_EXIST))
			return continue_twice(fd, arg);
		break;
	case UFFDIO_WRITEPROTECT:
	case UFFDIO_POISON:
		if (inject(INJECT_UFFD_AGAIN))
			return uffd_again();
		break;
	}
	return __real_ioctl(fd, request, arg);
}
#endif
