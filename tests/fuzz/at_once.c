/* SPDX-License-Identifier: Apache-2.0 */
/* See at_once.h. */
#include "tests/fuzz/at_once.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define OP_FTRUNCATE       55u  /* liburing 2.5 has the name */
#define NOP_INJECT_RESULT  1u   /* Linux 6.10 */

int __real_io_uring_submit(struct io_uring *ring);
int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned n);
int __wrap_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned n);

static bool can;
static __thread bool here, off;

static int result(long r) { return r < 0 ? -errno : (int)r; }

/* What it comes to. False: it is left to the kernel. */
static bool do_now(const struct io_uring_sqe *s, int *ret)
{
	switch (s->opcode) {
	case IORING_OP_READ:
		*ret = result(pread(s->fd, (void *)(uintptr_t)s->addr, s->len, (off_t)s->off));
		return true;
	case IORING_OP_WRITE:
		*ret = result(pwrite(s->fd, (const void *)(uintptr_t)s->addr, s->len, (off_t)s->off));
		return true;
	case IORING_OP_STATX:
		*ret = result(statx(s->fd, (const char *)(uintptr_t)s->addr, (int)s->statx_flags, s->len, (struct statx *)(uintptr_t)s->off));
		return true;
	case IORING_OP_FSYNC:
		*ret = result(s->fsync_flags & IORING_FSYNC_DATASYNC ? fdatasync(s->fd) : fsync(s->fd));
		return true;
	case IORING_OP_FALLOCATE:
		*ret = result(fallocate(s->fd, (int)s->len, (off_t)s->off, (off_t)s->addr));
		return true;
	case OP_FTRUNCATE:
		*ret = result(ftruncate(s->fd, (off_t)s->off));
		return true;
	case IORING_OP_FADVISE:
		*ret = -posix_fadvise(s->fd, (off_t)s->off, s->len, (int)s->fadvise_advice);
		return true;
	case IORING_OP_CLOSE:
		*ret = result(close(s->fd));
		return true;
	default:
		return false;
	}
}

static void prepare_result(struct io_uring_sqe *s, int r)
{
	unsigned flags = s->flags & IOSQE_CQE_SKIP_SUCCESS;

	io_uring_prep_nop(s);
	s->flags = (uint8_t)flags;
	s->len = (uint32_t)r;
	s->rw_flags = NOP_INJECT_RESULT;
}

static void do_all(struct io_uring *ring)
{
	struct io_uring_sq *q = &ring->sq;

	for (unsigned i = q->sqe_head; here && can && !off && i != q->sqe_tail; i++) {
		struct io_uring_sqe *s = &q->sqes[i & q->ring_mask];
		int r;

		if (do_now(s, &r))
			prepare_result(s, r);
	}
}

int __wrap_io_uring_submit(struct io_uring *ring)
{
	do_all(ring);
	return __real_io_uring_submit(ring);
}

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned n)
{
	do_all(ring);
	return __real_io_uring_submit_and_wait(ring, n);
}

void at_once_init(void)
{
	struct io_uring ring;
	struct io_uring_cqe *cqe;

	REQUIRE(io_uring_queue_init(2, &ring, 0) == 0);
	prepare_result(io_uring_get_sqe(&ring), 1234);
	REQUIRE(__real_io_uring_submit_and_wait(&ring, 1) == 1 && io_uring_wait_cqe(&ring, &cqe) == 0);
	can = cqe->res == 1234;
	io_uring_queue_exit(&ring);
	here = true;
}

void at_once(bool on) { off = !on; }
