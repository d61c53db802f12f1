/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One io_uring a thread, and messages between threads over it.
 *
 * Everything asynchronous is a struct ring_op: its `done` is called on the ring's own thread when the
 * completion arrives. An op is in use from submission until `done` is called without
 * IORING_CQE_F_MORE in `cflags`; the memory around it must live as long. Not thread-safe: a ring
 * belongs to one thread; only ring_post() names another thread's ring.
 */
#pragma once

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

struct ring_op {
	void (*done)(struct ring_op *op, int res, uint32_t cflags);
};

struct ring_post;

struct ring {
	struct io_uring   uring;
	struct ring_post *posts_unused;   /* messages that have arrived: used again for the next */
	struct ring_post *posts_failed;   /* the kernel had no memory for them: sent again by the next ring_run() */
};

/* Returns 0 or a negative errno. `entries`: submission queue entries; the completion queue is four times that. */
int ring_init(struct ring *ring, unsigned entries);
void ring_free(struct ring *ring);

/* A submission entry bound to `op` (NULL: nobody is told of its completion). Never NULL: submits what is queued when full. */
struct io_uring_sqe *ring_sqe(struct ring *ring, struct ring_op *op);

/* Submits, waits for at least one completion when `wait`, then calls `done` of all that arrived (at most `max`). Returns how many, or a negative errno. */
int ring_run(struct ring *ring, bool wait, unsigned max);
/* Whether ring_run() would bring something, as far as can be told without a system call. */
static inline bool ring_has_news(const struct ring *ring)
{
	return io_uring_cq_ready(&ring->uring) > 0 || (IO_URING_READ_ONCE(*ring->uring.sq.kflags) & IORING_SQ_TASKRUN);
}
/* Submits what is queued without waiting. */
int ring_flush(struct ring *ring);
/* The same by a thread that may wait, until the kernel has taken it. */
void ring_push(struct ring *ring);

/*
 * Sends `op` to another thread: its done(op, res, 0) runs there. The memory is the receiver's from this call on. Safe on any
 * thread that owns `from`; `from` and `to` may be the same. Leaves with the next ring_run() or ring_flush() of `from`, and messages
 * from one ring arrive in their order. -ENOMEM: not sent.
 */
int ring_post(struct ring *from, struct ring *to, struct ring_op *op, int res);

/* Closes a descriptor whose close may block (a store's). Nobody is told. */
void ring_close_fd(struct ring *ring, int fd);

/*
 * One-shot timer of `ns` from now. `expired` is called with `armed` already false, so it may arm it again. After ring_cancel(ring, &t->op)
 * it stays armed until the kernel has answered: then `cancelled` is called instead, where it is set (or `expired` if it came first).
 */
struct ring_timer {
	struct ring_op           op;
	struct __kernel_timespec ts;
	bool                     armed;
	void                   (*expired)(struct ring_timer *t);
	void                   (*cancelled)(struct ring_timer *t);   /* may be NULL */
};
void ring_timer_init(struct ring_timer *t, void (*expired)(struct ring_timer *t));
void ring_timer_arm(struct ring *ring, struct ring_timer *t, uint64_t ns); /* nothing if it is armed already */

/* Asks for the cancellation of a poll, timer or I/O that was submitted with `op`. */
void ring_cancel(struct ring *ring, struct ring_op *op);
