/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pgc_pread, pgc_pwrite and their kin.
 *
 * A read is made from the handle's window, and a write into it, if that has what it wants (window.c). Else it asks the daemon to make a range resident and then takes the bytes from the memfd with pread(2); a counter in
 * the control page proves afterwards that no page was dropped in between. A write puts the bytes into one of four
 * slots of a transfer area with pwrite(2) and asks the daemon to copy them. So but for reads from the window it is the kernel that touches
 * the caller's buffer, and a bad address is EFAULT and no signal.
 *
 * Where userfaults are served in user mode only, a buffer in a mapping that is not filled yet makes those calls fail
 * as well: the range is then filled by a request of its own, and the call repeated once.
 *
 * Any thread. Calls file, map_populate_buffer() and conn.
 */
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "libclient/internal.h"

#define PIECES 64              /* of a vector, in one step */

/* Where we are in the caller's buffers. */
struct cursor {
	const struct iovec *iov;
	int n;
	size_t skip;               /* bytes of iov[0] that are done */
};

/* The next pieces, at most `max` bytes of them, without moving on. Returns their number. */
static int cursor_peek(const struct cursor *c, size_t max, struct iovec *out)
{
	size_t skip = c->skip;
	int n = 0;

	for (int i = 0; i < c->n && n < PIECES && max > 0; i++) {
		size_t len = MIN(c->iov[i].iov_len - skip, max);

		if (len > 0) {
			out[n].iov_base = (char *)c->iov[i].iov_base + skip;
			out[n++].iov_len = len;
		}
		max -= len;
		skip = 0;
	}
	return n;
}

static void cursor_advance(struct cursor *c, size_t by)
{
	while (c->n > 0 && by >= c->iov->iov_len - c->skip) {
		by -= c->iov->iov_len - c->skip;
		c->iov++;
		c->n--;
		c->skip = 0;
	}
	c->skip += by;
}

static bool populate_pieces(const struct iovec *iov, int n, bool write, bool again)
{
	bool any = false;

	for (int i = 0; i < n; i++)
		any |= map_populate_buffer(iov[i].iov_base, iov[i].iov_len, write, again);
	return any;
}

/* Pages may be dropped again between filling and the call. */
#define POPULATE_TRIES 8

/* preadv(2) or pwritev(2) on a memfd, again when the buffers were not filled. */
static ssize_t move(int fd, const struct cursor *c, size_t len, off_t off, bool into_buffers)
{
	struct iovec iov[PIECES];
	int n = cursor_peek(c, len, iov);
	int populated = 0;
	ssize_t k;

	for (;;) {
		k = into_buffers ? preadv(fd, iov, n, off) : pwritev(fd, iov, n, off);
		if (k >= 0)
			return k;
		if (errno == EINTR)
			continue;
		if (errno != EFAULT)
			return -errno;
		/* Nothing of ours there as far as the table knows: the first time, that may be old. */
		if (populated == POPULATE_TRIES ||
		    (!populate_pieces(iov, n, into_buffers, populated > 0) && populated > 0))
			return -EFAULT;
		populated++;
	}
}

/*
 * One READ and what it made resident. Returns the bytes moved, which are less than `want` where the pieces end, too;
 * *ret_end: the file ends behind them; *ret_again: pages were dropped while we read, nothing counts.
 */
static ssize_t read_step(struct pgc_file *f, const struct cursor *c, size_t want, off_t off, bool *ret_end,
			 bool *ret_again)
{
	struct pgc_msg m = { .type = PGC_MSG_READ };
	ssize_t n;
	int r;

	*ret_end = *ret_again = false;
	m.read = (struct pgc_read){ .off = (uint64_t)off, .len = want };
	r = file_request(f, &m, NULL, 0);
	if (r < 0)
		return r;
	if (m.read_reply.len > want)
		return -EPROTO;
	if (m.read_reply.len == 0) {
		*ret_end = true;
		return 0;
	}
	n = move(f->memfd, c, m.read_reply.len, off, true);
	if (n < 0)
		return n;
	/*
	 * The loads of the copy come before this one; it pairs with the daemon's store, which comes before it drops a
	 * page.
	 */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (__atomic_load_n(&f->control->seq, __ATOMIC_ACQUIRE) != m.read_reply.seq) {
		*ret_again = true;
		return 0;
	}
	/*
	 * Less than was asked for need not be the end: pages may have been dropped again, and an error comes with the
	 * next READ.
	 */
	*ret_end = n == 0 || (uint64_t)off + (uint64_t)n >= m.read_reply.size;
	return n;
}

static ssize_t read_all(struct pgc_file *f, struct cursor c, size_t n, off_t off)
{
	size_t done = 0, chunk = PGC_READ_MAX;
	bool end = false, again;

	if (f->accmode == O_WRONLY)
		return -EBADF;
	if (off < 0)
		return -EINVAL;
	n = MIN(n, (uint64_t)(INT64_MAX - off));
	while (done < n && !end) {
		size_t piece = MIN(n - done, c.iov->iov_len - c.skip);
		char *to = (char *)c.iov->iov_base + c.skip;
		ssize_t k = table_covers((uintptr_t)to, (uintptr_t)to + piece) ? -EAGAIN : window_read(f, to, piece, (uint64_t)off + done);

		end = k == 0 && piece > 0;
		if (k == -EAGAIN) {
			k = read_step(f, &c, MIN(n - done, chunk), off + (off_t)done, &end, &again);
			if (k > 0)
				window_asked(f);
			else if (again)
				chunk = MAX(chunk / 2, PGC_PAGE_SIZE); /* under heavy reclaim a smaller step is more likely to get through */
		}
		if (k < 0)
			return done > 0 ? (ssize_t)done : k;
		done += (size_t)k;
		cursor_advance(&c, (size_t)k);
	}
	return (ssize_t)done;
}

/*
 * A memfd of `size` bytes that can neither shrink nor grow, which is what lets the daemon read from it without a fear.
 */
int sealed_memfd(const char *name, uint64_t size)
{
	_cleanup_close_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return take_fd(&fd);
}

/* With xfer_lock held: the transfer area, at the first write. */
static int xfer_make(struct pgc_file *f)
{
	struct pgc_msg m = { .type = PGC_MSG_XFER };
	_cleanup_close_ int fd = sealed_memfd("pagecached-transfer", PGC_XFER_SIZE);
	int r;

	if (fd < 0)
		return fd;
	r = file_request(f, &m, &fd, 1);
	if (r == 0) {
		f->xfer_fd = fd_keep(take_fd(&fd));
		conn_set_xfer(&f->conn, f->xfer_fd);
	}
	return r;
}

/* A free slot's number; waits for one. */
static int xfer_take(struct pgc_file *f)
{
	int r = file_connect(f), slot;

	if (r < 0)
		return r;
	pthread_mutex_lock(&f->xfer_lock);
	if (f->xfer_fd < 0)
		r = xfer_make(f);
	while (r == 0 && f->xfer_used == (1u << XFER_SLOTS) - 1)
		pthread_cond_wait(&f->xfer_free, &f->xfer_lock);
	if (r == 0) {
		slot = __builtin_ctz(~f->xfer_used);
		f->xfer_used |= 1u << slot;
		r = slot;
	}
	pthread_mutex_unlock(&f->xfer_lock);
	return r;
}

static void xfer_give(struct pgc_file *f, int slot)
{
	pthread_mutex_lock(&f->xfer_lock);
	f->xfer_used &= ~(1u << slot);
	pthread_cond_signal(&f->xfer_free);
	pthread_mutex_unlock(&f->xfer_lock);
}

/* One WRITE of bytes that lie at `pos` of the transfer area, or of `data`. *ret_off: where they went. */
static ssize_t write_request(struct pgc_file *f, uint64_t off, uint64_t len, uint64_t pos, uint32_t flags, int data,
			     off_t *ret_off)
{
	struct pgc_msg m = { .type = PGC_MSG_WRITE };
	int r;

	m.write = (struct pgc_write){ .off = off, .len = len, .pos = pos, .flags = flags };
	r = file_request(f, &m, &data, data >= 0 ? 1 : 0);
	if (r < 0)
		return r;
	if (m.write_reply.len > len)
		return -EPROTO;
	*ret_off = (off_t)m.write_reply.off;
	return (ssize_t)m.write_reply.len;
}

/* At most PGC_WRITE_MAX bytes through a slot. */
static ssize_t write_step(struct pgc_file *f, const struct cursor *c, size_t want, off_t off, uint32_t flags,
			  off_t *ret_off)
{
	int slot = xfer_take(f);
	uint64_t pos;
	ssize_t n;

	if (slot < 0)
		return slot;
	pos = (uint64_t)slot * PGC_WRITE_MAX;
	n = move(f->xfer_fd, c, want, (off_t)pos, false);
	if (n > 0)
		n = write_request(f, (uint64_t)off, (uint64_t)n, pos, flags, -1, ret_off);
	xfer_give(f, slot);
	return n;
}

/* What every write needs: whether it may be, and how much RLIMIT_FSIZE leaves of it. No SIGXFSZ is sent, and none may
 * come of our own memfds. */
static int check_write(struct pgc_file *f, off_t off, size_t *n)
{
	struct rlimit limit;
	uint64_t max = INT64_MAX;

	if (f->accmode == O_RDONLY)
		return -EBADF;
	if (off < 0)
		return -EINVAL;
	if (*n == 0)
		return 0;
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
		if (limit.rlim_cur < PGC_XFER_SIZE)
			return -EFBIG;
		max = MIN(max, limit.rlim_cur);
	}
	if ((uint64_t)off >= max)
		return -EFBIG;
	*n = MIN(*n, max - (uint64_t)off);
	return 0;
}

static ssize_t sync_written(struct pgc_file *f, ssize_t n)
{
	int r = 0;

	if (n > 0 && f->sync_flags)
		r = file_sync(f, (f->sync_flags & O_SYNC) != O_SYNC);
	return r < 0 ? r : n;
}

/* A piece into the handle's window. -EAGAIN: the daemon has to be asked. */
static ssize_t write_unasked(struct pgc_file *f, const struct cursor *c, size_t n, off_t off)
{
	const char *from = (char *)c->iov->iov_base + c->skip;
	size_t piece = MIN(n, c->iov->iov_len - c->skip);

	if (piece == 0 || table_covers((uintptr_t)from, (uintptr_t)from + piece))
		return -EAGAIN;
	return window_write(f, from, piece, (uint64_t)off);
}

static ssize_t write_all(struct pgc_file *f, struct cursor c, size_t n, off_t off)
{
	size_t done = 0;
	off_t at;
	ssize_t k = check_write(f, off, &n);

	if (k < 0)
		return k;
	while (done < n) {
		k = write_unasked(f, &c, n - done, off + (off_t)done);
		if (k == -EAGAIN) {
			k = write_step(f, &c, MIN(n - done, PGC_WRITE_MAX), off + (off_t)done, 0, &at);
			if (k > 0) {
				__atomic_store_n(&f->writes_unasked, 0, __ATOMIC_RELAXED);
				window_asked(f);
			}
		}
		if (k <= 0)
			break;
		done += (size_t)k;
		cursor_advance(&c, (size_t)k);
	}
	if (done == 0)
		return k < 0 ? k : n == 0 ? 0 : -EIO;
	return sync_written(f, (ssize_t)done);
}

int vector_length(const struct iovec *iov, int n, size_t *ret)
{
	size_t sum = 0;

	if (n < 0 || n > IOV_MAX)
		return -EINVAL;
	for (int i = 0; i < n; i++) {
		if (iov[i].iov_len > SSIZE_MAX - sum)
			return -EINVAL;
		sum += iov[i].iov_len;
	}
	*ret = MIN(sum, RW_MAX);
	return 0;
}

PGC_PUBLIC ssize_t pgc_pread(struct pgc_file *f, void *buf, size_t n, off_t off)
{
	NO_CANCEL;
	struct iovec iov = { buf, MIN(n, RW_MAX) };

	return f ? read_all(f, (struct cursor){ &iov, 1, 0 }, iov.iov_len, off) : -EBADF;
}

PGC_PUBLIC ssize_t pgc_preadv(struct pgc_file *f, const struct iovec *iov, int iovcnt, off_t off)
{
	NO_CANCEL;
	size_t n = 0;
	int r = f ? vector_length(iov, iovcnt, &n) : -EBADF;

	return r < 0 ? r : read_all(f, (struct cursor){ iov, iovcnt, 0 }, n, off);
}

PGC_PUBLIC ssize_t pgc_pwrite(struct pgc_file *f, const void *buf, size_t n, off_t off)
{
	NO_CANCEL;
	struct iovec iov = { (void *)buf, MIN(n, RW_MAX) };

	return f ? write_all(f, (struct cursor){ &iov, 1, 0 }, iov.iov_len, off) : -EBADF;
}

PGC_PUBLIC ssize_t pgc_pwritev(struct pgc_file *f, const struct iovec *iov, int iovcnt, off_t off)
{
	NO_CANCEL;
	size_t n = 0;
	int r = f ? vector_length(iov, iovcnt, &n) : -EBADF;

	return r < 0 ? r : write_all(f, (struct cursor){ iov, iovcnt, 0 }, n, off);
}

/* More than a slot holds goes in a memfd of its own, in one request, so that it stays in one piece. */
static ssize_t append_large(struct pgc_file *f, struct cursor c, size_t n, off_t *ret_off)
{
	_cleanup_close_ int fd = sealed_memfd("pagecached-append", n);
	size_t done = 0;
	ssize_t k = 0;

	if (fd < 0)
		return fd;
	while (done < n) {
		k = move(fd, &c, n - done, (off_t)done, false);
		if (k <= 0)
			break;
		done += (size_t)k;
		cursor_advance(&c, (size_t)k);
	}
	if (done == 0)
		return k;
	return write_request(f, 0, done, 0, PGC_WRITE_APPEND | PGC_WRITE_DATAFD, fd, ret_off);
}

ssize_t file_append(struct pgc_file *f, const struct iovec *iov, int iovcnt, size_t n, off_t *ret_off)
{
	struct cursor c = { iov, iovcnt, 0 };
	off_t at = 0;
	ssize_t k = check_write(f, 0, &n);

	if (k < 0)
		return k;
	if (n == 0) {
		at = (off_t)__atomic_load_n(&f->control->size, __ATOMIC_ACQUIRE);
	} else {
		k = n <= PGC_WRITE_MAX ? write_step(f, &c, n, 0, PGC_WRITE_APPEND, &at) : append_large(f, c, n, &at);
		if (k == 0)
			k = -EIO;
		k = sync_written(f, k);
	}
	if (k >= 0 && ret_off)
		*ret_off = at;
	return k;
}

PGC_PUBLIC ssize_t pgc_append(struct pgc_file *f, const void *buf, size_t n, off_t *ret_off)
{
	NO_CANCEL;
	struct iovec iov = { (void *)buf, MIN(n, RW_MAX) };

	return f ? file_append(f, &iov, 1, iov.iov_len, ret_off) : -EBADF;
}
