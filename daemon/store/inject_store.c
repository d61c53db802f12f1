/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See inject_store.h. An operation that fails here is never begun behind, so that nothing has changed, as with a disk that refuses it. Transfers that are cut
 * or said to be undone are begun: what they moved besides, the caller moves again.
 *
 * Thread: the worker that owns the store. May call inject, ring and the store behind.
 */
#include "daemon/store/inject_store.h"

#ifdef PGC_FAILURE_INJECTION
#include <errno.h>

#include "daemon/inject.h"
#include "daemon/util/util.h"

#define DELAY_NS 5000000ull          /* at most, where nothing else is said */

static const struct store_ops *behind;

enum { STAT, READ, WRITE, SYNC, TRUNCATE, FALLOCATE, RESTORE, SEEK, IS_HOLE };

/* Its arguments are in the operation's own fields, which the store behind sets anew; `moved` has what is no buffer, offset or length. */
static void go(struct store_op *op)
{
	struct store *s = op->store;

	switch (op->step) {
	case STAT: behind->stat(s, op, op->buf); break;
	case READ: behind->read(s, op, op->buf, op->len, op->off); break;
	case WRITE: behind->write(s, op, op->buf, op->len, op->off); break;
	case SYNC: behind->sync(s, op, op->moved); break;
	case TRUNCATE: behind->truncate(s, op, op->off); break;
	case FALLOCATE: behind->fallocate(s, op, (int)op->moved, op->off, op->len); break;
	case RESTORE: behind->restore(s, op, op->buf); break;
	case SEEK: behind->seek(s, op, (int)op->moved, op->off); break;
	case IS_HOLE: behind->is_hole(s, op, op->off, op->len); break;
	}
}

static void delayed(struct ring_op *rop, int res, uint32_t cflags)
{
	struct store_op *op = container_of(rop, struct store_op, ring);

	if (op->result)
		op->done(op, op->result);
	else
		go(op);
}

static int error_of(int step)
{
	static const int write_errors[] = { EIO, ENOSPC, EDQUOT };
	enum inject_kind kind = step == READ ? INJECT_STORE_READ : step == WRITE ? INJECT_STORE_WRITE : step == SYNC ? INJECT_STORE_SYNC : INJECT_STORE_OTHER;

	/* Not to know of a hole is no error. */
	if (step == IS_HOLE || !inject(kind))
		return 0;
	return step == WRITE || step == FALLOCATE ? -write_errors[inject_below(ELEMENTSOF(write_errors))] : -EIO;
}

static void begin(struct store *s, struct store_op *op, int step, void *buf, size_t len, uint64_t off, size_t more)
{
	uint64_t ns = inject(INJECT_STORE_DELAY) ? 1 + inject_below(inject_value(INJECT_STORE_DELAY, DELAY_NS)) : 0;

	op->store = s;
	op->step = step;
	op->buf = buf;
	op->len = len;
	op->off = off;
	op->moved = more;
	op->result = error_of(step);
	if (ns == 0 && op->result == 0) {
		go(op);
		return;
	}
	op->ring.done = delayed;
	op->delay = (struct __kernel_timespec){ .tv_sec = (int64_t)(ns / 1000000000u), .tv_nsec = (int64_t)(ns % 1000000000u) };
	io_uring_prep_timeout(ring_sqe(s->ring, &op->ring), &op->delay, 0, 0);
}

static void inject_stat(struct store *s, struct store_op *op, struct store_stat *ret) { begin(s, op, STAT, ret, 0, 0, 0); }
static void inject_read(struct store *s, struct store_op *op, void *buf, size_t len, uint64_t off) { begin(s, op, READ, buf, len, off, 0); }
static void inject_sync(struct store *s, struct store_op *op, bool data_only) { begin(s, op, SYNC, NULL, 0, 0, data_only); }
static void inject_truncate(struct store *s, struct store_op *op, uint64_t size) { begin(s, op, TRUNCATE, NULL, 0, size, 0); }
static void inject_restore(struct store *s, struct store_op *op, struct store_restore *r) { begin(s, op, RESTORE, r, 0, 0, 0); }
static void inject_seek(struct store *s, struct store_op *op, int whence, uint64_t off) { begin(s, op, SEEK, NULL, 0, off, (size_t)whence); }
static void inject_is_hole(struct store *s, struct store_op *op, uint64_t off, uint64_t len) { begin(s, op, IS_HOLE, NULL, len, off, 0); }
static unsigned inject_descriptors(struct store *s, int *fds, unsigned max) { return behind->descriptors(s, fds, max); }
static void inject_close(struct store *s) { behind->close(s); }

static void inject_write(struct store *s, struct store_op *op, const void *buf, size_t len, uint64_t off)
{
	begin(s, op, WRITE, (void *)(uintptr_t)buf, len, off, 0);
}

static void inject_fallocate(struct store *s, struct store_op *op, int mode, uint64_t off, uint64_t len)
{
	begin(s, op, FALLOCATE, NULL, len, off, (size_t)mode);
}

const struct store_ops *inject_store(const struct store_ops *ops)
{
	static struct store_ops front = {
		.stat = inject_stat, .read = inject_read, .write = inject_write, .sync = inject_sync, .truncate = inject_truncate,
		.fallocate = inject_fallocate, .restore = inject_restore, .seek = inject_seek, .is_hole = inject_is_hole,
		.descriptors = inject_descriptors, .close = inject_close,
	};

	__atomic_store_n(&behind, ops, __ATOMIC_RELAXED); /* by every worker, to the same */
	__atomic_store_n(&front.name, ops->name, __ATOMIC_RELAXED);
	return &front;
}

ssize_t inject_transfer(ssize_t res, bool some)
{
	static const int passing[] = { EAGAIN, EINTR, ECANCELED };

	if (inject(INJECT_STORE_AGAIN))
		return -passing[inject_below(ELEMENTSOF(passing))];
	if (res <= 1 || !some || !inject(INJECT_STORE_SHORT))
		return res;
	/* Mostly whole pages, as of a device; a file system may stop anywhere. */
	if (res > (ssize_t)PAGE_SIZE_ && inject_below(4))
		return (ssize_t)(PAGE_SIZE_ * (1 + inject_below((uint64_t)(res - 1) / PAGE_SIZE_)));
	return 1 + (ssize_t)inject_below((uint64_t)res - 1);
}
#endif
