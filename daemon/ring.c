/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop's engine: an io_uring, its completions handed to struct ring_op, and messages to other rings.
 *
 * Invariants:
 * - user_data of an entry is the address of its op; 0 is nobody; an address with bit 0 set is a struct ring_post of ours.
 * - A completion is never lost: where the completion queue is full the kernel keeps them (IORING_FEAT_NODROP, checked), and
 *   a message that the kernel had no memory for is sent again.
 * - No callback runs but from ring_run(), so nothing that submits is ever re-entered.
 *
 * Thread: one at a time uses a ring, but any may have made it: rings are made on the main thread before their threads start.
 * That, and messages that arrive before the thread runs, is why rings are not IORING_SETUP_SINGLE_ISSUER.
 * May call: liburing only.
 */
#include "daemon/ring.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/inject.h"

#define POST_TAG 1ull
#define PUSH_TRIES 10000
#define POSTS_SPARE 64           /* messages that can be under way whatever the allocator says */
/* Of the kernel's threads for calls that block, made when they are needed. Its own limit is four a processor: a disk that stops answering holds that many
   fsyncs, and then no file of any other disk is synced. */
#define BLOCKED_MAX 1024

/* One message under way; it goes back to the sender's ring when the kernel has delivered it. */
struct ring_post {
	struct ring_post *next;
	struct ring      *to;
	struct ring_op   *op;
	int               res;
};

static int post_spare(struct ring *ring)
{
	struct ring_post *p = malloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->next = ring->posts_unused;
	ring->posts_unused = p;
	return 0;
}

int ring_init(struct ring *ring, unsigned entries)
{
	/*
	 * COOP_TASKRUN: no interrupt to a thread that computes, it looks by itself; TASKRUN_FLAG tells it that there is
	 * something to look for. SUBMIT_ALL: an entry that the kernel refuses completes with an error, the ones behind it go on.
	 */
	struct io_uring_params p = {
		.flags = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
			 IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
		.cq_entries = (unsigned)inject_value(INJECT_CQ, (uint64_t)entries * 4),
	};
	int r;

	entries = (unsigned)inject_value(INJECT_SQ, entries);
	memset(ring, 0, sizeof(*ring));
	ring->uring.ring_fd = -1;
	r = io_uring_queue_init_params(entries, &ring->uring, &p);
	if (r < 0) {
		ring->uring.ring_fd = -1;
		return r;
	}
	if (!(p.features & IORING_FEAT_NODROP)) {
		ring_free(ring);
		return -EOPNOTSUPP;
	}
	r = io_uring_register_iowq_max_workers(&ring->uring, (unsigned[2]){ BLOCKED_MAX, 0 });
	for (unsigned i = 0; i < POSTS_SPARE && r == 0; i++)
		r = post_spare(ring);
	if (r < 0)
		ring_free(ring);
	return r;
}

static void posts_free(struct ring_post *p)
{
	while (p) {
		struct ring_post *next = p->next;

		free(p);
		p = next;
	}
}

void ring_free(struct ring *ring)
{
	struct io_uring_cqe *cqe;

	if (!ring || ring->uring.ring_fd < 0)
		return;
	/* Messages that were sent and whose acknowledgement nobody has looked at yet. */
	io_uring_submit(&ring->uring);
	while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
		if (cqe->user_data & POST_TAG)
			free((void *)(uintptr_t)(cqe->user_data & ~POST_TAG));
		io_uring_cqe_seen(&ring->uring, cqe);
	}
	posts_free(ring->posts_unused);
	posts_free(ring->posts_failed);
	ring->posts_unused = ring->posts_failed = NULL;
	io_uring_queue_exit(&ring->uring);
	ring->uring.ring_fd = -1;
}

/* The kernel is short of memory, was interrupted, or wants completions taken first: all pass by themselves. */
static bool is_passing(int r)
{
	return r == -EINTR || r == -EAGAIN || r == -EBUSY;
}

struct io_uring_sqe *ring_sqe(struct ring *ring, struct ring_op *op)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&ring->uring))) {
		int r = io_uring_submit(&ring->uring);

		assert(r >= 0 || is_passing(r));
		if (r == -EAGAIN || r == -EBUSY) {
			const struct timespec pause = { .tv_nsec = 100000 };

			nanosleep(&pause, NULL);
		}
	}
	/* The io_uring_prep_*() functions that the caller goes on with leave user_data alone (liburing 2.3 and later). */
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data(sqe, op);
	return sqe;
}

static void post_submit(struct ring *from, struct ring_post *p)
{
	struct io_uring_sqe *sqe = ring_sqe(from, NULL);

	io_uring_prep_msg_ring(sqe, p->to->uring.ring_fd, (unsigned)p->res, (uint64_t)(uintptr_t)p->op, 0);
	io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)p | POST_TAG);
}

int ring_post(struct ring *from, struct ring *to, struct ring_op *op, int res)
{
	struct ring_post *p = from->posts_unused;

	if (p)
		from->posts_unused = p->next;
	else if (!(p = malloc(sizeof(*p))))
		return -ENOMEM;
	*p = (struct ring_post){ .to = to, .op = op, .res = res };
	if (from->posts_failed || inject(INJECT_POST)) {
		/* Behind those that wait to be sent again, so that the order stays. */
		struct ring_post **at = &from->posts_failed;

		while (*at)
			at = &(*at)->next;
		*at = p;
		return 0;
	}
	post_submit(from, p);
	return 0;
}

static void post_done(struct ring *ring, struct ring_post *p, int res)
{
	struct ring_post **list = &ring->posts_unused;

	if (res == -ENOMEM || res == -EOVERFLOW || res == -EAGAIN || res == -EINTR) {
		list = &ring->posts_failed;
		while (*list)
			list = &(*list)->next;
		p->next = NULL;
	} else {
		/* Anything else means that the receiver's ring is gone: a mistake of the caller's, who owns both lifetimes. */
		assert(res >= 0);
		p->next = *list;
	}
	*list = p;
}

static void posts_send_again(struct ring *ring)
{
	struct ring_post *p = ring->posts_failed;

	ring->posts_failed = NULL;
	while (p) {
		struct ring_post *next = p->next;

		post_submit(ring, p);
		p = next;
	}
}

int ring_run(struct ring *ring, bool wait, unsigned max)
{
	struct io_uring_cqe *cqe;
	unsigned seen, n = 0;
	int r;

	posts_send_again(ring);
	r = io_uring_submit_and_wait(&ring->uring, wait ? 1 : 0);
	if (r < 0 && !is_passing(r))
		return r;

	for (seen = 0; seen < max && io_uring_peek_cqe(&ring->uring, &cqe) == 0; seen++) {
		uint64_t data = cqe->user_data;
		uint32_t cflags = cqe->flags;
		int res = cqe->res;

		/* Given back first: `done` may submit, and what it submits needs the room. */
		io_uring_cqe_seen(&ring->uring, cqe);
		if (data & POST_TAG) {
			post_done(ring, (struct ring_post *)(uintptr_t)(data & ~POST_TAG), res);
		} else if (data) {
			struct ring_op *op = (struct ring_op *)(uintptr_t)data;

			n++;
			op->done(op, res, cflags);
		}
	}
	return (int)n;
}

int ring_flush(struct ring *ring)
{
	int r;

	posts_send_again(ring);
	r = io_uring_submit(&ring->uring);

	/* What stays queued goes out with the next ring_run(). */
	return r >= 0 || is_passing(r) ? 0 : r;
}

void ring_push(struct ring *ring)
{
	const struct timespec pause = { .tv_nsec = 100000 };

	for (int tries = 0; ring_flush(ring) == 0 && (io_uring_sq_ready(&ring->uring) > 0 || ring->posts_failed) && tries < PUSH_TRIES; tries++)
		nanosleep(&pause, NULL);
}

void ring_close_fd(struct ring *ring, int fd)
{
	struct io_uring_sqe *sqe;

	if (fd < 0)
		return;
	sqe = ring_sqe(ring, NULL);
	io_uring_prep_close(sqe, fd);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

static void timer_done(struct ring_op *op, int res, uint32_t cflags)
{
	struct ring_timer *t = (struct ring_timer *)((char *)op - offsetof(struct ring_timer, op));

	t->armed = false;
	if (res != -ECANCELED)
		t->expired(t);
	else if (t->cancelled)
		t->cancelled(t);
}

void ring_timer_init(struct ring_timer *t, void (*expired)(struct ring_timer *t))
{
	*t = (struct ring_timer){ .op.done = timer_done, .expired = expired };
}

void ring_timer_arm(struct ring *ring, struct ring_timer *t, uint64_t ns)
{
	struct io_uring_sqe *sqe;

	if (t->armed)
		return;
	t->armed = true;
	t->ts = (struct __kernel_timespec){ .tv_sec = (int64_t)(ns / 1000000000u), .tv_nsec = (int64_t)(ns % 1000000000u) };
	sqe = ring_sqe(ring, &t->op);
	io_uring_prep_timeout(sqe, &t->ts, 0, 0);
}

void ring_cancel(struct ring *ring, struct ring_op *op)
{
	struct io_uring_sqe *sqe = ring_sqe(ring, NULL);

	io_uring_prep_cancel(sqe, op, 0);
}
