/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asynchronous calls, and system calls by number.
 *
 * POSIX aio: on a file of ours the operation is done in the call. Its result is put where the C library's aio_error(3), aio_return(3), aio_suspend(3) and
 * aio_cancel(3) look for it, so these serve files of ours and others alike.
 *
 * The kernel's asynchronous interfaces (io_uring, io_submit) take descriptors past us. While there are patterns they do not exist (ENOSYS): programs that
 * know them go on with plain calls.
 *
 * syscall(2): the numbers for which there is a function here go to that function.
 */
#include <aio.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "preload.h"

/* --- POSIX aio --- */

struct notice { void (*function)(union sigval); union sigval value; };

static void *notice_thread(void *arg)
{
	struct notice n = *(struct notice *)arg;

	free(arg);
	n.function(n.value);
	return NULL;
}

static void notify_thread(const struct sigevent *e)
{
	struct notice *n = malloc(sizeof(*n));
	pthread_attr_t attr, *given = e->sigev_notify_attributes;
	pthread_t thread;

	if (!n)
		return;
	*n = (struct notice){ e->sigev_notify_function, e->sigev_value };
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, given ? given : &attr, notice_thread, n) != 0)
		free(n);
	pthread_attr_destroy(&attr);
}

static void notify(const struct sigevent *e)
{
	siginfo_t info = { .si_signo = e->sigev_signo, .si_code = SI_ASYNCIO };

	if (e->sigev_notify == SIGEV_THREAD) {
		notify_thread(e);
	} else if (e->sigev_notify == SIGEV_SIGNAL) {
		info.si_pid = getpid();
		info.si_uid = getuid();
		info.si_value = e->sigev_value;
		REAL(syscall)(SYS_rt_sigqueueinfo, info.si_pid, e->sigev_signo, &info);
	}
}

enum { AIO_READ, AIO_WRITE, AIO_SYNC, AIO_DATA_SYNC, AIO_OTHERS };

static ssize_t perform(struct ofd *o, struct aiocb *cb, int what)
{
	struct iovec iov = { (void *)cb->aio_buf, MIN(cb->aio_nbytes, RW_MAX) };

	switch (what) {
	case AIO_READ:
		return cb->aio_offset < 0 ? -EINVAL : ofd_pread(o, &iov, 1, cb->aio_offset);
	case AIO_WRITE:
		return ofd_pwrite(o, cb->aio_fildes, &iov, 1, cb->aio_offset);
	case AIO_SYNC:
		return pgc_fsync(o->file);
	default:
		return pgc_fdatasync(o->file);
	}
}

/* 0: done, the result is in `cb`. AIO_OTHERS: the descriptor is not ours. -1 with errno. Outside a scope when it returns. */
static int do_now(struct aiocb *cb, int what)
{
	ssize_t r;
	WITH_OFD(o, cb->aio_fildes, AIO_OTHERS);

	if (cb->aio_reqprio < 0 || cb->aio_reqprio > sysconf(_SC_AIO_PRIO_DELTA_MAX))
		return (int)shim_result(-EINVAL);
	r = perform(o, cb, what);
	cb->__return_value = r < 0 ? -1 : r;
	/* What aio_error(3) waits for, perhaps in another thread, comes last. */
	__atomic_store_n(&cb->__error_code, r < 0 ? (int)-r : 0, __ATOMIC_RELEASE);
	return 0;
}

static int single(struct aiocb *cb, int what)
{
	int r = do_now(cb, what);

	if (r == 0)
		notify(&cb->aio_sigevent);
	return r;
}

EXPORT int aio_read(struct aiocb *cb)
{
	int r = fd_maybe(cb->aio_fildes) ? single(cb, AIO_READ) : AIO_OTHERS;

	return r == AIO_OTHERS ? REAL(aio_read)(cb) : r;
}
ALSO(aio_read64, aio_read64, aio_read);

EXPORT int aio_write(struct aiocb *cb)
{
	int r = fd_maybe(cb->aio_fildes) ? single(cb, AIO_WRITE) : AIO_OTHERS;

	return r == AIO_OTHERS ? REAL(aio_write)(cb) : r;
}
ALSO(aio_write64, aio_write64, aio_write);

EXPORT int aio_fsync(int op, struct aiocb *cb)
{
	int r = AIO_OTHERS;

	if ((op == O_SYNC || op == O_DSYNC) && fd_maybe(cb->aio_fildes))
		r = single(cb, op == O_SYNC ? AIO_SYNC : AIO_DATA_SYNC);
	return r == AIO_OTHERS ? REAL(aio_fsync)(op, cb) : r;
}
ALSO(aio_fsync64, aio_fsync64, aio_fsync);

/*
 * Ours are done, and the C library gets the list without them: it waits for the others, and sends the list's notification, also when there are none.
 */
EXPORT int lio_listio(int mode, struct aiocb *const list[], int n, struct sigevent *event)
{
	struct aiocb **rest;
	bool any = false, failed = false;
	int r;

	for (int i = 0; i < n; i++)
		any |= list[i] && list[i]->aio_lio_opcode != LIO_NOP && fd_maybe(list[i]->aio_fildes);
	if (!any || (mode != LIO_WAIT && mode != LIO_NOWAIT))
		return REAL(lio_listio)(mode, list, n, event);
	rest = malloc((size_t)n * sizeof(struct aiocb *));
	if (!rest) {
		errno = EAGAIN;
		return -1;
	}
	for (int i = 0; i < n; i++) {
		struct aiocb *cb = list[i];

		rest[i] = cb;
		if (!cb || (cb->aio_lio_opcode != LIO_READ && cb->aio_lio_opcode != LIO_WRITE) || !fd_maybe(cb->aio_fildes))
			continue;
		r = single(cb, cb->aio_lio_opcode == LIO_READ ? AIO_READ : AIO_WRITE);
		if (r == AIO_OTHERS)
			continue;
		rest[i] = NULL;
		if (r < 0) {
			cb->__return_value = -1;
			__atomic_store_n(&cb->__error_code, errno, __ATOMIC_RELEASE);
		}
		failed |= r < 0 || (mode == LIO_WAIT && cb->__error_code != 0);
	}
	r = REAL(lio_listio)(mode, rest, n, event);
	free(rest);
	if (r == 0 && failed) {
		errno = EIO;
		r = -1;
	}
	return r;
}
ALSO(lio_listio64, lio_listio64, lio_listio);

/* --- the kernel's asynchronous interfaces --- */

static bool refused(void)
{
	return unlikely(paths_any) && shim_depth == 0;
}

/* libaio and liburing return negative errors. Their types are not needed here. */
EXPORT int io_setup(int n, void *ret);
EXPORT int io_setup(int n, void *ret)
{
	return refused() ? -ENOSYS : REAL(io_setup)(n, ret);
}

EXPORT int io_queue_init(int n, void *ret);
EXPORT int io_queue_init(int n, void *ret)
{
	return refused() ? -ENOSYS : REAL(io_queue_init)(n, ret);
}

EXPORT int io_uring_queue_init(unsigned n, void *ring, unsigned flags);
EXPORT int io_uring_queue_init(unsigned n, void *ring, unsigned flags)
{
	return refused() ? -ENOSYS : REAL(io_uring_queue_init)(n, ring, flags);
}

EXPORT int io_uring_queue_init_params(unsigned n, void *ring, void *params);
EXPORT int io_uring_queue_init_params(unsigned n, void *ring, void *params)
{
	return refused() ? -ENOSYS : REAL(io_uring_queue_init_params)(n, ring, params);
}

EXPORT int io_uring_queue_init_mem(unsigned n, void *ring, void *params, void *buf, size_t size);
EXPORT int io_uring_queue_init_mem(unsigned n, void *ring, void *params, void *buf, size_t size)
{
	return refused() ? -ENOSYS : REAL(io_uring_queue_init_mem)(n, ring, params, buf, size);
}

EXPORT int io_uring_setup(unsigned n, void *params);
EXPORT int io_uring_setup(unsigned n, void *params)
{
	return refused() ? -ENOSYS : REAL(io_uring_setup)(n, params);
}

/* --- system calls by number --- */

#define PASS REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5])
#define I(n) ((int)a[n])
#define P(n) ((void *)a[n])

int openat2(int dirfd, const char *path, const void *how, size_t size);

static long by_descriptor(long number, const long a[6])
{
	switch (number) {
	case SYS_read:
		return read(I(0), P(1), (size_t)a[2]);
	case SYS_write:
		return write(I(0), P(1), (size_t)a[2]);
	case SYS_pread64:
		return pread(I(0), P(1), (size_t)a[2], a[3]);
	case SYS_pwrite64:
		return pwrite(I(0), P(1), (size_t)a[2], a[3]);
	case SYS_readv:
		return readv(I(0), P(1), I(2));
	case SYS_writev:
		return writev(I(0), P(1), I(2));
	/* The offset comes in two halves, of which the first is all on a 64-bit machine. */
	case SYS_preadv:
		return preadv(I(0), P(1), I(2), a[3]);
	case SYS_pwritev:
		return pwritev(I(0), P(1), I(2), a[3]);
	case SYS_preadv2:
		return preadv2(I(0), P(1), I(2), a[3], I(5));
	case SYS_pwritev2:
		return pwritev2(I(0), P(1), I(2), a[3], I(5));
	case SYS_lseek:
		return lseek(I(0), a[1], I(2));
	case SYS_fstat:
		return fstat(I(0), P(1));
	case SYS_fsync:
		return fsync(I(0));
	case SYS_fdatasync:
		return fdatasync(I(0));
	case SYS_ftruncate:
		return ftruncate(I(0), a[1]);
	case SYS_fallocate:
		return fallocate(I(0), I(1), a[2], a[3]);
	case SYS_sync_file_range:
		return sync_file_range(I(0), a[1], a[2], (unsigned)a[3]);
	case SYS_syncfs:
		return syncfs(I(0));
	case SYS_close:
		return close(I(0));
	case SYS_dup:
		return dup(I(0));
	case SYS_dup3:
		return dup3(I(0), I(1), I(2));
	case SYS_fcntl:
		return fcntl(I(0), I(1), P(2));
	case SYS_flock:
		return flock(I(0), I(1));
	case SYS_sendfile:
		return sendfile(I(0), I(1), P(2), (size_t)a[3]);
	case SYS_copy_file_range:
		return copy_file_range(I(0), P(1), I(2), P(3), (size_t)a[4], (unsigned)a[5]);
	case SYS_mmap:
		return (long)mmap(P(0), (size_t)a[1], I(2), I(3), I(4), a[5]);
#ifdef SYS_dup2
	case SYS_dup2:
		return dup2(I(0), I(1));
#endif
	default:
		return PASS;
	}
}

/* As the C library's it takes six arguments however many were given; the last one is read from the caller's stack, where AddressSanitizer may have put something. */
EXPORT __attribute__((no_sanitize("address"))) long syscall(long number, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (likely(!paths_any) || shim_depth > 0)
		return PASS;
	switch (number) {
	case SYS_io_uring_setup:
	case SYS_io_setup:
		errno = ENOSYS;
		return -1;
	case SYS_openat:
		return openat(I(0), P(1), I(2), (mode_t)a[3]);
	case SYS_openat2:
		return openat2(I(0), P(1), P(2), (size_t)a[3]);
#ifdef SYS_open
	case SYS_open:
		return open(P(0), I(1), (mode_t)a[2]);
	case SYS_creat:
		return creat(P(0), (mode_t)a[1]);
	case SYS_stat:
		return stat(P(0), P(1));
	case SYS_lstat:
		return lstat(P(0), P(1));
#endif
	case SYS_newfstatat:
		return fstatat(I(0), P(1), P(2), I(3));
	case SYS_statx:
		return statx(I(0), P(1), I(2), (unsigned)a[3], P(4));
	case SYS_execve:
		return execve(P(0), P(1), P(2));
	case SYS_execveat:
		return execveat(I(0), P(1), P(2), P(3), I(4));
	case SYS_truncate:
		return truncate(P(0), a[1]);
	case SYS_close_range:
		return close_range((unsigned)a[0], (unsigned)a[1], I(2));
	case SYS_munmap:
		return munmap(P(0), (size_t)a[1]);
	case SYS_mremap:
		return (long)mremap(P(0), (size_t)a[1], (size_t)a[2], I(3), P(4));
	case SYS_mprotect:
		return mprotect(P(0), (size_t)a[1], I(2));
	case SYS_msync:
		return msync(P(0), (size_t)a[1], I(2));
	case SYS_madvise:
		return madvise(P(0), (size_t)a[1], I(2));
	default:
		return by_descriptor(number, a);
	}
}
