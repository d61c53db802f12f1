/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading, writing, positions, sizes and syncs.
 *
 * The file offset is the placeholder's. A read or write of n bytes first moves it by n, which the kernel does in one step, and then has the range before it for
 * itself, whoever shares the description; what was not moved after all is given back. So writes by processes that share an offset never overlap, as
 * with the kernel's own f_pos lock.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sendfile.h>

#include "preload.h"

#define PIPE_STEP (64u << 10)  /* moved at a time between a file of ours and something else */
#define COPY_STEP (1u << 20)

/* --- on an ofd --- */

static ssize_t length_of(const struct iovec *iov, int n)
{
	size_t len;
	int r = vector_length(iov, n, &len);

	return r < 0 ? r : (ssize_t)len;
}

static bool appends(int fd)
{
	return REAL(fcntl)(fd, F_GETFL) & O_APPEND;
}

/* The process's limit of a file's size: a signal as well, as from the kernel. It comes when the scope ends. */
static ssize_t limit_reached(ssize_t r)
{
	struct rlimit limit;

	if (r == -EFBIG && getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		pthread_kill(pthread_self(), SIGXFSZ);
	return r;
}

/* May the file become that long? */
static int check_limit(struct ofd *o, uint64_t size)
{
	struct rlimit limit;

	if (size <= ofd_size(o) || getrlimit(RLIMIT_FSIZE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY || size <= limit.rlim_cur)
		return 0;
	return (int)limit_reached(-EFBIG);
}

/* Moves the offset on by n and tells where it was. */
static off_t claim(int fd, size_t n)
{
	off_t end = REAL(lseek)(fd, (off_t)n, SEEK_CUR);

	return end < 0 ? -errno : end - (off_t)n;
}

static void give_back(int fd, size_t n)
{
	if (n > 0)
		REAL(lseek)(fd, -(off_t)n, SEEK_CUR);
}

ssize_t ofd_pread(struct ofd *o, const struct iovec *iov, int n, off_t off)
{
	return o->accmode == O_WRONLY ? -EBADF : pgc_preadv(o->file, iov, n, off);
}

ssize_t ofd_read(struct ofd *o, int fd, const struct iovec *iov, int n)
{
	ssize_t len = length_of(iov, n), done;
	off_t at;

	if (o->accmode == O_WRONLY)
		return -EBADF;
	if (len <= 0)
		return len;
	at = claim(fd, (size_t)len);
	if (at < 0)
		return at;
	done = pgc_preadv(o->file, iov, n, at);
	give_back(fd, (size_t)(len - MAX(done, 0)));
	return done;
}

static ssize_t append(struct ofd *o, int fd, const struct iovec *iov, int n, size_t len, bool move)
{
	off_t at;
	ssize_t done = file_append(o->file, iov, n, len, &at);

	if (done > 0 && move)
		REAL(lseek)(fd, at + done, SEEK_SET);
	return limit_reached(done);
}

ssize_t ofd_pwrite(struct ofd *o, int fd, const struct iovec *iov, int n, off_t off)
{
	ssize_t len = length_of(iov, n);

	if (o->accmode == O_RDONLY)
		return -EBADF;
	if (len < 0)
		return len;
	if (off < 0)
		return -EINVAL;
	return appends(fd) ? append(o, fd, iov, n, (size_t)len, false) : limit_reached(pgc_pwritev(o->file, iov, n, off));
}

ssize_t ofd_write(struct ofd *o, int fd, const struct iovec *iov, int n)
{
	ssize_t len = length_of(iov, n), done;
	off_t at;

	if (o->accmode == O_RDONLY)
		return -EBADF;
	if (len <= 0)
		return len;
	if (appends(fd))
		return append(o, fd, iov, n, (size_t)len, true);
	at = claim(fd, (size_t)len);
	if (at < 0)
		return at;
	done = pgc_pwritev(o->file, iov, n, at);
	give_back(fd, (size_t)(len - MAX(done, 0)));
	return limit_reached(done);
}

off_t ofd_seek(struct ofd *o, int fd, off_t off, int whence)
{
	off_t to = off, size;
	int r;

	switch (whence) {
	case SEEK_SET:
	case SEEK_CUR:
		break;
	case SEEK_END:
		size = (off_t)ofd_size(o);
		if (__builtin_add_overflow(size, off, &to))
			return -EOVERFLOW;
		whence = SEEK_SET;
		break;
	case SEEK_DATA:
	case SEEK_HOLE:
		r = pgc_seek(o->file, off, whence, &to);
		if (r < 0)
			return r;
		whence = SEEK_SET;
		break;
	default:
		return -EINVAL;
	}
	to = REAL(lseek)(fd, to, whence);
	return to < 0 ? -errno : to;
}

int ofd_stat(struct ofd *o, struct stat *ret)
{
	return pgc_fstat(o->file, ret);
}

/* --- read and write --- */

/* All of a read from the file's window. -EAGAIN: it has to be asked for. */
static ssize_t quick_read(struct ofd *o, void *buf, size_t n, off_t off)
{
	ssize_t k = table_may_cover((uintptr_t)buf, (uintptr_t)buf + n) ? -EAGAIN : window_read(o->file, buf, n, (uint64_t)off);
	char c;

	if (k >= 0 && (size_t)k < n && window_read(o->file, &c, 1, (uint64_t)off + (uint64_t)k) != 0)
		return -EAGAIN; /* that was not the end of file */
	return k;
}

static ssize_t quick_pread(int fd, void *buf, size_t n, off_t off)
{
	struct ofd *o = off >= 0 ? ofd_quick(fd) : NULL;
	ssize_t k = -EAGAIN;

	if (o) {
		k = quick_read(o, buf, n, off);
		ofd_quick_end(o);
	}
	return k;
}

static ssize_t quick_read_on(int fd, void *buf, size_t n)
{
	struct ofd *o = n > 0 ? ofd_quick(fd) : NULL;
	ssize_t k = -EAGAIN;
	off_t at;

	if (!o)
		return -EAGAIN;
	at = claim(fd, n);
	if (at >= 0) {
		k = quick_read(o, buf, n, at);
		give_back(fd, n - (size_t)MAX(k, 0));
	}
	ofd_quick_end(o);
	return k;
}

/* A call on something else, whose buffers may lie in mappings of ours. Pages may be dropped again before it comes to them, so not for ever. */
#define PLAIN(call, iov, n, into) ({ \
	ssize_t plain_ = (call); \
	for (int try_ = 0; unlikely(plain_ < 0) && errno == EFAULT && try_ < 8 && mem_fault_in(iov, n, into); try_++) \
		plain_ = (call); \
	plain_; })

EXPORT ssize_t read(int fd, void *buf, size_t n)
{
	struct iovec iov = { buf, MIN(n, RW_MAX) };
	ssize_t quick;

	if (!fd_maybe(fd))
		return PLAIN(REAL(read)(fd, buf, n), &iov, 1, true);
	cancellation_point();
	quick = quick_read_on(fd, buf, iov.iov_len);
	if (quick >= 0)
		return quick;
	WITH_OFD(o, fd, REAL(read)(fd, buf, n));
	return shim_result(ofd_read(o, fd, &iov, 1));
}

EXPORT ssize_t write(int fd, const void *buf, size_t n)
{
	struct iovec iov = { (void *)buf, MIN(n, RW_MAX) };

	if (!fd_maybe(fd))
		return PLAIN(REAL(write)(fd, buf, n), &iov, 1, false);
	cancellation_point();
	WITH_OFD(o, fd, REAL(write)(fd, buf, n));
	return shim_result(ofd_write(o, fd, &iov, 1));
}

EXPORT ssize_t pread(int fd, void *buf, size_t n, off_t off)
{
	struct iovec iov = { buf, MIN(n, RW_MAX) };
	ssize_t quick;

	if (!fd_maybe(fd))
		return PLAIN(REAL(pread)(fd, buf, n, off), &iov, 1, true);
	cancellation_point();
	quick = quick_pread(fd, buf, iov.iov_len, off);
	if (quick >= 0)
		return quick;
	WITH_OFD(o, fd, REAL(pread)(fd, buf, n, off));
	return shim_result(ofd_pread(o, &iov, 1, off));
}
ALSO(pread64, pread64, pread);

EXPORT ssize_t pwrite(int fd, const void *buf, size_t n, off_t off)
{
	struct iovec iov = { (void *)buf, MIN(n, RW_MAX) };

	if (!fd_maybe(fd))
		return PLAIN(REAL(pwrite)(fd, buf, n, off), &iov, 1, false);
	cancellation_point();
	WITH_OFD(o, fd, REAL(pwrite)(fd, buf, n, off));
	return shim_result(ofd_pwrite(o, fd, &iov, 1, off));
}
ALSO(pwrite64, pwrite64, pwrite);

EXPORT ssize_t readv(int fd, const struct iovec *iov, int n)
{
	if (!fd_maybe(fd))
		return PLAIN(REAL(readv)(fd, iov, n), iov, n, true);
	cancellation_point();
	WITH_OFD(o, fd, REAL(readv)(fd, iov, n));
	return shim_result(ofd_read(o, fd, iov, n));
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int n)
{
	if (!fd_maybe(fd))
		return PLAIN(REAL(writev)(fd, iov, n), iov, n, false);
	cancellation_point();
	WITH_OFD(o, fd, REAL(writev)(fd, iov, n));
	return shim_result(ofd_write(o, fd, iov, n));
}

EXPORT ssize_t preadv(int fd, const struct iovec *iov, int n, off_t off)
{
	if (!fd_maybe(fd))
		return PLAIN(REAL(preadv)(fd, iov, n, off), iov, n, true);
	cancellation_point();
	WITH_OFD(o, fd, REAL(preadv)(fd, iov, n, off));
	return shim_result(ofd_pread(o, iov, n, off));
}
ALSO(preadv64, preadv64, preadv);

EXPORT ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	if (!fd_maybe(fd))
		return PLAIN(REAL(pwritev)(fd, iov, n, off), iov, n, false);
	cancellation_point();
	WITH_OFD(o, fd, REAL(pwritev)(fd, iov, n, off));
	return shim_result(ofd_pwrite(o, fd, iov, n, off));
}
ALSO(pwritev64, pwritev64, pwritev);

EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	if (!fd_maybe(fd))
		return REAL(preadv2)(fd, iov, n, off, flags);
	cancellation_point();
	WITH_OFD(o, fd, REAL(preadv2)(fd, iov, n, off, flags));
	if (flags & ~RWF_HIPRI) /* RWF_NOWAIT: nobody knows beforehand */
		return shim_result(-EOPNOTSUPP);
	return shim_result(off == -1 ? ofd_read(o, fd, iov, n) : ofd_pread(o, iov, n, off));
}
ALSO(preadv64v2, preadv64v2, preadv2);

static ssize_t write_flags(struct ofd *o, int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	ssize_t len = length_of(iov, n), done;
	int r = 0;

	if (flags & ~(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_APPEND))
		return -EOPNOTSUPP;
	if (o->accmode == O_RDONLY)
		return -EBADF;
	if (len < 0)
		return len;
	if (flags & RWF_APPEND)
		done = append(o, fd, iov, n, (size_t)len, off == -1);
	else
		done = off == -1 ? ofd_write(o, fd, iov, n) : ofd_pwrite(o, fd, iov, n, off);
	if (done > 0 && (flags & (RWF_SYNC | RWF_DSYNC)))
		r = flags & RWF_SYNC ? pgc_fsync(o->file) : pgc_fdatasync(o->file);
	return r < 0 ? r : done;
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	if (!fd_maybe(fd))
		return REAL(pwritev2)(fd, iov, n, off, flags);
	cancellation_point();
	WITH_OFD(o, fd, REAL(pwritev2)(fd, iov, n, off, flags));
	return shim_result(write_flags(o, fd, iov, n, off, flags));
}
ALSO(pwritev64v2, pwritev64v2, pwritev2);

/* The fortified names: the C library's own check of the buffer's size comes first, and ends the program. */
EXPORT ssize_t __read_chk(int fd, void *buf, size_t n, size_t size);
EXPORT ssize_t __read_chk(int fd, void *buf, size_t n, size_t size)
{
	return n > size || !fd_maybe(fd) ? REAL(__read_chk)(fd, buf, n, size) : read(fd, buf, n);
}

EXPORT ssize_t __pread_chk(int fd, void *buf, size_t n, off_t off, size_t size);
EXPORT ssize_t __pread_chk(int fd, void *buf, size_t n, off_t off, size_t size)
{
	return n > size || !fd_maybe(fd) ? REAL(__pread_chk)(fd, buf, n, off, size) : pread(fd, buf, n, off);
}
ALSO(__pread_chk, __pread64_chk, __pread_chk);

EXPORT off_t lseek(int fd, off_t off, int whence)
{
	if (!fd_maybe(fd))
		return REAL(lseek)(fd, off, whence);
	WITH_OFD(o, fd, REAL(lseek)(fd, off, whence));
	return shim_result(ofd_seek(o, fd, off, whence));
}
ALSO(lseek64, lseek64, lseek);

/* --- between descriptors: by way of a buffer, with plain calls, since the other side may wait and is no business of ours --- */

static ssize_t write_all_of(int out, off_t *off_out, const char *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t k = off_out ? pwrite(out, buf + done, n - done, *off_out) : write(out, buf + done, n - done);

		if (k < 0 && errno == EINTR && done > 0)
			continue;
		if (k <= 0)
			return done > 0 ? (ssize_t)done : k;
		done += (size_t)k;
		if (off_out)
			*off_out += k;
	}
	return (ssize_t)done;
}

/* Where `in` can be positioned nothing is lost that `out` does not take: what was read too much is given back. */
static ssize_t copy_step(int in, off_t *off_in, int out, off_t *off_out, char *buf, size_t n)
{
	ssize_t k = off_in ? pread(in, buf, n, *off_in) : read(in, buf, n), w;

	if (k <= 0)
		return k;
	w = write_all_of(out, off_out, buf, (size_t)k);
	if (off_in && w > 0)
		*off_in += w;
	else if (!off_in && w < k)
		lseek(in, MAX(w, 0) - k, SEEK_CUR);
	return w;
}

static ssize_t copy(int in, off_t *off_in, int out, off_t *off_out, size_t n, size_t step)
{
	size_t done = 0;
	char *buf;

	n = MIN(n, RW_MAX);
	step = MIN(step, MAX(n, 1u));
	buf = malloc(step);
	if (!buf)
		return -1;
	while (done < n) {
		ssize_t k = copy_step(in, off_in, out, off_out, buf, MIN(step, n - done));

		if (k < 0 && done == 0) {
			free(buf);
			return -1;
		}
		if (k <= 0)
			break;
		done += (size_t)k;
		/* A pipe that is full, or has no more for now, ends it: what it has got counts. */
		if ((size_t)k < MIN(step, n))
			break;
	}
	free(buf);
	return (ssize_t)done;
}

EXPORT ssize_t sendfile(int out, int in, off_t *off, size_t n)
{
	if (!fd_maybe(out) && !fd_maybe(in))
		return REAL(sendfile)(out, in, off, n);
	return copy(in, off, out, NULL, n, COPY_STEP);
}
ALSO(sendfile64, sendfile64, sendfile);

EXPORT ssize_t copy_file_range(int in, off_t *off_in, int out, off_t *off_out, size_t n, unsigned flags)
{
	struct stat a, b;

	if (!fd_maybe(out) && !fd_maybe(in))
		return REAL(copy_file_range)(in, off_in, out, off_out, n, flags);
	if (flags)
		return shim_result(-EINVAL);
	if (fstat(in, &a) < 0 || fstat(out, &b) < 0)
		return -1;
	if (S_ISDIR(a.st_mode) || S_ISDIR(b.st_mode))
		return shim_result(-EISDIR);
	if (!S_ISREG(a.st_mode) || !S_ISREG(b.st_mode))
		return shim_result(-EINVAL);
	if (fcntl(out, F_GETFL) & O_APPEND)
		return shim_result(-EBADF);
	if (a.st_dev == b.st_dev && a.st_ino == b.st_ino) {
		off_t from = off_in ? *off_in : lseek(in, 0, SEEK_CUR), to = off_out ? *off_out : lseek(out, 0, SEEK_CUR);

		if (from < to + (off_t)MIN(n, RW_MAX) && to < from + (off_t)MIN(n, RW_MAX))
			return shim_result(-EINVAL);
	}
	return copy(in, off_in, out, off_out, n, COPY_STEP);
}

EXPORT ssize_t splice(int in, off_t *off_in, int out, off_t *off_out, size_t n, unsigned flags)
{
	struct stat a, b;

	if (!fd_maybe(out) && !fd_maybe(in))
		return REAL(splice)(in, off_in, out, off_out, n, flags);
	if (fstat(in, &a) < 0 || fstat(out, &b) < 0)
		return -1;
	if (!S_ISFIFO(a.st_mode) && !S_ISFIFO(b.st_mode))
		return shim_result(-EINVAL);
	if ((S_ISFIFO(a.st_mode) && off_in) || (S_ISFIFO(b.st_mode) && off_out))
		return shim_result(-ESPIPE);
	/* One step: from a pipe whatever it has, to a pipe no more than an empty one takes. */
	return copy(in, off_in, out, off_out, MIN(n, PIPE_STEP), PIPE_STEP);
}

/* --- size, space, advice, sync --- */

EXPORT int ftruncate(int fd, off_t size)
{
	if (!fd_maybe(fd))
		return REAL(ftruncate)(fd, size);
	WITH_OFD(o, fd, REAL(ftruncate)(fd, size));
	if (o->accmode == O_RDONLY)
		return (int)shim_result(-EINVAL);
	if (size > 0 && check_limit(o, (uint64_t)size) < 0)
		return (int)shim_result(-EFBIG);
	return (int)shim_result(pgc_ftruncate(o->file, size));
}
ALSO(ftruncate64, ftruncate64, ftruncate);

EXPORT int fallocate(int fd, int mode, off_t off, off_t len)
{
	if (!fd_maybe(fd))
		return REAL(fallocate)(fd, mode, off, len);
	WITH_OFD(o, fd, REAL(fallocate)(fd, mode, off, len));
	if (off >= 0 && len > 0 && !(mode & FALLOC_FL_KEEP_SIZE) && check_limit(o, (uint64_t)off + (uint64_t)len) < 0)
		return (int)shim_result(-EFBIG);
	return (int)shim_result(pgc_fallocate(o->file, mode, off, len));
}
ALSO(fallocate64, fallocate64, fallocate);

EXPORT int posix_fallocate(int fd, off_t off, off_t len)
{
	int saved = errno, r;

	if (!fd_maybe(fd))
		return REAL(posix_fallocate)(fd, off, len);
	WITH_OFD(o, fd, REAL(posix_fallocate)(fd, off, len));
	r = off >= 0 && len > 0 ? check_limit(o, (uint64_t)off + (uint64_t)len) : 0;
	if (r == 0)
		r = pgc_fallocate(o->file, 0, off, len);
	/* Where the store has no fallocate(2), the size is what can be had; the C library writes to each block, which reserves nothing more here. */
	if (r == -EOPNOTSUPP)
		r = ofd_size(o) < (uint64_t)off + (uint64_t)len ? pgc_ftruncate(o->file, off + len) : 0;
	errno = saved;
	return -r;
}
ALSO(posix_fallocate64, posix_fallocate64, posix_fallocate);

EXPORT int posix_fadvise(int fd, off_t off, off_t len, int advice)
{
	if (!fd_maybe(fd))
		return REAL(posix_fadvise)(fd, off, len, advice);
	WITH_OFD(o, fd, REAL(posix_fadvise)(fd, off, len, advice));
	return -pgc_fadvise(o->file, MAX(off, 0), len, advice);
}
ALSO(posix_fadvise64, posix_fadvise64, posix_fadvise);

EXPORT ssize_t readahead(int fd, off_t off, size_t n)
{
	if (!fd_maybe(fd))
		return REAL(readahead)(fd, off, n);
	WITH_OFD(o, fd, REAL(readahead)(fd, off, n));
	if (o->accmode == O_WRONLY)
		return shim_result(-EBADF);
	return shim_result(pgc_fadvise(o->file, off, (off_t)MIN(n, (size_t)INT64_MAX), POSIX_FADV_WILLNEED));
}

EXPORT int fsync(int fd)
{
	if (!fd_maybe(fd))
		return REAL(fsync)(fd);
	cancellation_point();
	WITH_OFD(o, fd, REAL(fsync)(fd));
	return (int)shim_result(pgc_fsync(o->file));
}

EXPORT int fdatasync(int fd)
{
	if (!fd_maybe(fd))
		return REAL(fdatasync)(fd);
	cancellation_point();
	WITH_OFD(o, fd, REAL(fdatasync)(fd));
	return (int)shim_result(pgc_fdatasync(o->file));
}

EXPORT int sync_file_range(int fd, off_t off, off_t len, unsigned flags)
{
	if (!fd_maybe(fd))
		return REAL(sync_file_range)(fd, off, len, flags);
	WITH_OFD(o, fd, REAL(sync_file_range)(fd, off, len, flags));
	if (off < 0 || len < 0 || (flags & ~(SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER)))
		return (int)shim_result(-EINVAL);
	if (flags == 0)
		return 0;
	return (int)shim_result(file_write_out(o->file, (uint64_t)off, (uint64_t)len, flags & ~SYNC_FILE_RANGE_WRITE));
}

EXPORT int syncfs(int fd)
{
	int r;

	if (!fd_maybe(fd))
		return REAL(syncfs)(fd);
	WITH_OFD(o, fd, REAL(syncfs)(fd));
	r = pgc_fsync(o->file);
	return r < 0 ? (int)shim_result(r) : REAL(syncfs)(ofd_real(o));
}
