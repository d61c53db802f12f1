/* SPDX-License-Identifier: Apache-2.0 */
/* daemon/ring.c: completions reach their op, none is lost, messages cross threads, timers and cancellation. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/ring.h"
#include "daemon/util/util.h"

struct counter {
	struct ring_op op;
	unsigned calls;
	int res;
	uint32_t cflags;
};

static void count_done(struct ring_op *op, int res, uint32_t cflags)
{
	struct counter *c = container_of(op, struct counter, op);

	c->calls++;
	c->res = res;
	c->cflags = cflags;
}

static void run_until(struct ring *ring, const unsigned *what, unsigned count)
{
	uint64_t end = now_ns() + 10000000000ull;

	while (*what < count) {
		assert_true(now_ns() < end);
		assert_true(ring_run(ring, true, 64) >= 0);
	}
}

static void test_completion_reaches_its_op(void **state)
{
	struct ring ring;
	struct counter c = { .op.done = count_done };
	char byte = 'x';
	int p[2];

	assert_int_equal(ring_init(&ring, 8), 0);
	assert_int_equal(pipe(p), 0);
	io_uring_prep_read(ring_sqe(&ring, &c.op), p[0], &byte, 1, 0);
	assert_int_equal(ring_run(&ring, false, 8), 0);
	assert_int_equal(c.calls, 0);
	assert_int_equal(write(p[1], "y", 1), 1);
	run_until(&ring, &c.calls, 1);
	assert_int_equal(c.res, 1);
	assert_int_equal(byte, 'y');
	close(p[0]);
	close(p[1]);
	ring_free(&ring);
}

static void test_nobody_is_told_of_a_null_op(void **state)
{
	struct ring ring;
	struct counter c = { .op.done = count_done };

	assert_int_equal(ring_init(&ring, 8), 0);
	ring_sqe(&ring, NULL);
	ring_sqe(&ring, &c.op);
	ring_sqe(&ring, NULL);
	assert_int_equal(ring_run(&ring, true, 8), 1);
	assert_int_equal(c.calls, 1);
	ring_free(&ring);
}

static void test_error_is_the_result_and_later_entries_go_on(void **state)
{
	struct ring ring;
	struct counter bad = { .op.done = count_done }, good = { .op.done = count_done };
	char byte;

	assert_int_equal(ring_init(&ring, 8), 0);
	io_uring_prep_read(ring_sqe(&ring, &bad.op), -1, &byte, 1, 0);
	ring_sqe(&ring, &good.op);
	run_until(&ring, &good.calls, 1);
	run_until(&ring, &bad.calls, 1);
	assert_int_equal(bad.res, -EBADF);
	assert_int_equal(good.res, 0);
	ring_free(&ring);
}

/* Far more entries than either queue holds, with nobody taking completions meanwhile. */
static void test_overflow_loses_nothing(void **state)
{
	enum { N = 500 };
	struct counter *c = calloc(N, sizeof(*c));
	struct ring ring;
	unsigned total = 0;
	int r;

	assert_non_null(c);
	assert_int_equal(ring_init(&ring, 4), 0);
	for (unsigned i = 0; i < N; i++) {
		c[i].op.done = count_done;
		ring_sqe(&ring, &c[i].op);
	}
	while (total < N) {
		r = ring_run(&ring, true, 64);
		assert_true(r > 0);
		total += (unsigned)r;
	}
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(c[i].calls, 1);
	assert_int_equal(ring_run(&ring, false, 64), 0);
	ring_free(&ring);
	free(c);
}

static void test_run_delivers_at_most_max(void **state)
{
	struct ring ring;
	struct counter c = { .op.done = count_done };

	assert_int_equal(ring_init(&ring, 16), 0);
	for (int i = 0; i < 10; i++)
		ring_sqe(&ring, &c.op);
	assert_int_equal(ring_run(&ring, true, 3), 3);
	assert_int_equal(c.calls, 3);
	assert_int_equal(ring_run(&ring, false, 100), 7);
	ring_free(&ring);
}

struct chain {
	struct ring_op op;
	struct ring *ring;
	unsigned left, calls;
};

static void chain_done(struct ring_op *op, int res, uint32_t cflags)
{
	struct chain *c = container_of(op, struct chain, op);

	c->calls++;
	if (--c->left)
		ring_sqe(c->ring, op);
}

static void test_done_may_submit(void **state)
{
	struct ring ring;
	struct chain c = { .op.done = chain_done, .ring = &ring, .left = 100 };

	assert_int_equal(ring_init(&ring, 2), 0);
	ring_sqe(&ring, &c.op);
	run_until(&ring, &c.calls, 100);
	assert_int_equal(c.left, 0);
	ring_free(&ring);
}

struct peer {
	struct ring ring;
	pthread_t thread;
	pthread_t seen_on;
	struct ring *home;
	unsigned got;
	int last;
	bool stop, in_order;
};

struct message {
	struct ring_op op;
	struct peer *peer;
	struct ring_op reply;
	unsigned *replies;
};

static void message_answered(struct ring_op *op, int res, uint32_t cflags)
{
	struct message *m = container_of(op, struct message, reply);

	assert_int_equal(res, -EPERM);
	assert_int_equal(cflags, 0);
	++*m->replies;
}

static void message_arrived(struct ring_op *op, int res, uint32_t cflags)
{
	struct message *m = container_of(op, struct message, op);

	m->peer->seen_on = pthread_self();
	m->peer->got++;
	if (res != m->peer->last + 1)
		m->peer->in_order = false;
	m->peer->last = res;
	if (ring_post(&m->peer->ring, m->peer->home, &m->reply, -EPERM) < 0)
		abort();
}

static void stop_arrived(struct ring_op *op, int res, uint32_t cflags)
{
	container_of(op, struct message, op)->peer->stop = true;
}

static void *peer_main(void *arg)
{
	struct peer *p = arg;

	while (!p->stop)
		if (ring_run(&p->ring, true, 16) < 0)
			abort();
	ring_flush(&p->ring);
	return NULL;
}

/* Sent before the receiving thread exists, more than its queue holds, answered across. */
static void test_messages_cross_threads_in_order(void **state)
{
	enum { N = 300 };
	struct message *m = calloc(N, sizeof(*m)), stop;
	struct ring home;
	struct peer p = { .home = &home, .last = -1, .in_order = true };
	unsigned replies = 0;

	assert_non_null(m);
	assert_int_equal(ring_init(&home, 16), 0);
	assert_int_equal(ring_init(&p.ring, 4), 0);
	for (int i = 0; i < N; i++) {
		m[i] = (struct message){ .op.done = message_arrived, .reply.done = message_answered, .peer = &p, .replies = &replies };
		assert_int_equal(ring_post(&home, &p.ring, &m[i].op, i), 0);
		if (i == N / 2)
			assert_int_equal(pthread_create(&p.thread, NULL, peer_main, &p), 0);
	}
	run_until(&home, &replies, N);
	stop = (struct message){ .op.done = stop_arrived, .peer = &p };
	assert_int_equal(ring_post(&home, &p.ring, &stop.op, 0), 0);
	assert_int_equal(ring_flush(&home), 0);
	pthread_join(p.thread, NULL);
	assert_int_equal(p.got, N);
	assert_true(p.in_order);
	assert_true(pthread_equal(p.seen_on, p.thread));
	ring_free(&p.ring);
	ring_free(&home);
	free(m);
}

static void test_message_to_itself(void **state)
{
	struct ring ring;
	struct counter c = { .op.done = count_done };

	assert_int_equal(ring_init(&ring, 4), 0);
	assert_int_equal(ring_post(&ring, &ring, &c.op, -123), 0);
	run_until(&ring, &c.calls, 1);
	assert_int_equal(c.res, -123);
	ring_free(&ring);
}

static void test_close_fd_closes(void **state)
{
	struct ring ring;
	struct counter c = { .op.done = count_done };
	struct pollfd hup;
	int p[2];

	assert_int_equal(ring_init(&ring, 4), 0);
	assert_int_equal(pipe(p), 0);
	ring_close_fd(&ring, p[1]);
	ring_close_fd(&ring, -1);
	assert_int_equal(ring_flush(&ring), 0);
	hup = (struct pollfd){ .fd = p[0], .events = POLLIN };
	assert_int_equal(poll(&hup, 1, 5000), 1);
	assert_true(hup.revents & POLLHUP);
	ring_sqe(&ring, &c.op);
	run_until(&ring, &c.calls, 1);
	close(p[0]);
	ring_free(&ring);
}

struct test_timer {
	struct ring_timer t;
	struct ring *ring;
	unsigned expired, cancelled, again;
};

static void timer_expired(struct ring_timer *t)
{
	struct test_timer *tt = container_of(t, struct test_timer, t);

	tt->expired++;
	assert_false(t->armed);
	if (tt->again) {
		tt->again--;
		ring_timer_arm(tt->ring, t, 1000000);
	}
}

static void timer_cancelled(struct ring_timer *t)
{
	struct test_timer *tt = container_of(t, struct test_timer, t);

	tt->cancelled++;
	assert_false(t->armed);
}

static void test_timer_expires_no_earlier_and_may_rearm(void **state)
{
	struct ring ring;
	struct test_timer tt = { .ring = &ring, .again = 2 };
	uint64_t start;

	assert_int_equal(ring_init(&ring, 4), 0);
	ring_timer_init(&tt.t, timer_expired);
	start = now_ns();
	ring_timer_arm(&ring, &tt.t, 20000000);
	ring_timer_arm(&ring, &tt.t, 1);    /* armed already: nothing */
	run_until(&ring, &tt.expired, 1);
	assert_true(now_ns() - start >= 20000000);
	run_until(&ring, &tt.expired, 3);
	assert_int_equal(tt.expired, 3);
	assert_false(tt.t.armed);
	ring_free(&ring);
}

static void test_cancelled_timer_tells_so(void **state)
{
	struct ring ring;
	struct test_timer tt = { .ring = &ring };

	assert_int_equal(ring_init(&ring, 4), 0);
	ring_timer_init(&tt.t, timer_expired);
	tt.t.cancelled = timer_cancelled;
	ring_timer_arm(&ring, &tt.t, 3600ull * 1000000000ull);
	assert_int_equal(ring_run(&ring, false, 4), 0);
	assert_true(tt.t.armed);
	ring_cancel(&ring, &tt.t.op);
	run_until(&ring, &tt.cancelled, 1);
	assert_int_equal(tt.expired, 0);
	ring_free(&ring);
}

static void test_cancel_of_a_poll(void **state)
{
	struct ring ring;
	struct counter c = { .op.done = count_done };
	int p[2];

	assert_int_equal(ring_init(&ring, 4), 0);
	assert_int_equal(pipe(p), 0);
	io_uring_prep_poll_multishot(ring_sqe(&ring, &c.op), p[0], POLLIN);
	assert_int_equal(ring_run(&ring, false, 4), 0);
	assert_int_equal(write(p[1], "a", 1), 1);
	run_until(&ring, &c.calls, 1);
	assert_true(c.cflags & IORING_CQE_F_MORE);
	ring_cancel(&ring, &c.op);
	run_until(&ring, &c.calls, 2);
	assert_int_equal(c.res, -ECANCELED);
	assert_false(c.cflags & IORING_CQE_F_MORE);
	close(p[0]);
	close(p[1]);
	ring_free(&ring);
}

static void test_free_of_a_ring_that_never_was(void **state)
{
	struct ring ring;

	assert_true(ring_init(&ring, 0) < 0);
	ring_free(&ring);
	ring_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_completion_reaches_its_op),
		cmocka_unit_test(test_nobody_is_told_of_a_null_op),
		cmocka_unit_test(test_error_is_the_result_and_later_entries_go_on),
		cmocka_unit_test(test_overflow_loses_nothing),
		cmocka_unit_test(test_run_delivers_at_most_max),
		cmocka_unit_test(test_done_may_submit),
		cmocka_unit_test(test_messages_cross_threads_in_order),
		cmocka_unit_test(test_message_to_itself),
		cmocka_unit_test(test_close_fd_closes),
		cmocka_unit_test(test_timer_expires_no_earlier_and_may_rearm),
		cmocka_unit_test(test_cancelled_timer_tells_so),
		cmocka_unit_test(test_cancel_of_a_poll),
		cmocka_unit_test(test_free_of_a_ring_that_never_was),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
