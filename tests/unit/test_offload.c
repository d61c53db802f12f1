/* SPDX-License-Identifier: Apache-2.0 */
/* daemon/offload.c: jobs run elsewhere, in order, and are answered where they came from. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/offload.h"
#include "daemon/util/util.h"

struct job {
	struct offload_job job;
	pthread_t ran_on, answered_on;
	bool signals_blocked;
	unsigned *sequence, ran_as;
	unsigned *answers;
	unsigned sleep_us;
};

static void job_run(struct offload_job *oj)
{
	struct job *j = container_of(oj, struct job, job);
	sigset_t set;

	usleep(j->sleep_us);
	j->ran_on = pthread_self();
	pthread_sigmask(SIG_BLOCK, NULL, &set);
	j->signals_blocked = sigismember(&set, SIGTERM) == 1;
	j->ran_as = (*j->sequence)++;
}

static void job_done(struct ring_op *op, int res, uint32_t cflags)
{
	struct job *j = container_of(op, struct job, job.done);

	j->answered_on = pthread_self();
	++*j->answers;
}

static void run_until(struct ring *ring, const unsigned *what, unsigned count)
{
	uint64_t end = now_ns() + 10000000000ull;

	while (*what < count) {
		if (now_ns() >= end || ring_run(ring, true, 64) < 0)
			abort();
	}
}

static void test_job_runs_elsewhere_and_is_answered_here(void **state)
{
	unsigned sequence = 0, answers = 0;
	struct job j = { .job = { .run = job_run, .done.done = job_done }, .sequence = &sequence, .answers = &answers };
	struct ring ring;

	assert_int_equal(ring_init(&ring, 8), 0);
	assert_int_equal(offload_start(), 0);
	assert_int_equal(offload_submit(&ring, &j.job), 0);
	assert_int_equal(answers, 0);
	run_until(&ring, &answers, 1);
	assert_int_equal(sequence, 1);
	assert_false(pthread_equal(j.ran_on, pthread_self()));
	assert_true(pthread_equal(j.answered_on, pthread_self()));
	assert_true(j.signals_blocked);
	offload_stop(&ring);
	ring_free(&ring);
}

static void test_submitter_goes_on_while_a_job_blocks(void **state)
{
	unsigned sequence = 0, answers = 0;
	struct job j = { .job = { .run = job_run, .done.done = job_done }, .sequence = &sequence, .answers = &answers, .sleep_us = 100000 };
	struct ring ring;
	uint64_t start = now_ns();

	assert_int_equal(ring_init(&ring, 8), 0);
	assert_int_equal(offload_start(), 0);
	assert_int_equal(offload_submit(&ring, &j.job), 0);
	assert_true(ring_run(&ring, false, 8) >= 0);
	assert_true(now_ns() - start < 90000000);
	run_until(&ring, &answers, 1);
	assert_true(now_ns() - start >= 100000000);
	offload_stop(&ring);
	ring_free(&ring);
}

enum { JOBS = 200 };
struct submitter {
	struct ring ring;
	struct job *jobs;
	unsigned answers;
};

static void *submitter_main(void *arg)
{
	struct submitter *s = arg;

	for (int i = 0; i < JOBS; i++)
		if (offload_submit(&s->ring, &s->jobs[i].job) < 0)
			abort();
	run_until(&s->ring, &s->answers, JOBS);
	return NULL;
}

static void test_two_submitters_each_in_their_order(void **state)
{
	struct submitter s[2] = { 0 };
	unsigned sequence = 0;
	pthread_t t[2];

	assert_int_equal(offload_start(), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ring_init(&s[i].ring, 8), 0);
		s[i].jobs = calloc(JOBS, sizeof(struct job));
		assert_non_null(s[i].jobs);
		for (int k = 0; k < JOBS; k++)
			s[i].jobs[k] = (struct job){ .job = { .run = job_run, .done.done = job_done },
						     .sequence = &sequence, .answers = &s[i].answers };
		assert_int_equal(pthread_create(&t[i], NULL, submitter_main, &s[i]), 0);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(sequence, 2 * JOBS);
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < JOBS; k++) {
			assert_true(pthread_equal(s[i].jobs[k].answered_on, t[i]));
			if (k > 0)
				assert_true(s[i].jobs[k].ran_as > s[i].jobs[k - 1].ran_as);
		}
	offload_stop(&s[0].ring);
	for (int i = 0; i < 2; i++) {
		ring_free(&s[i].ring);
		free(s[i].jobs);
	}
}

static void test_job_that_blocks_delays_no_other_key(void **state)
{
	unsigned sequence[2] = { 0 }, answers[2] = { 0 };
	struct job j[3];
	struct ring ring;

	assert_int_equal(ring_init(&ring, 8), 0);
	assert_int_equal(offload_start(), 0);
	for (int i = 0; i < 3; i++) { /* the first blocks, the second is of its key, the third is not */
		j[i] = (struct job){ .job = { .run = job_run, .done.done = job_done, .key = i < 2 ? 7 : 8 }, .sequence = &sequence[i / 2],
				     .answers = &answers[i / 2], .sleep_us = i == 0 ? 300000 : 0 };
		assert_int_equal(offload_submit(&ring, &j[i].job), 0);
	}
	run_until(&ring, &answers[1], 1);
	assert_int_equal(answers[0], 0);
	run_until(&ring, &answers[0], 2);
	assert_int_equal(j[0].ran_as, 0);
	assert_int_equal(j[1].ran_as, 1);
	offload_stop(&ring);
	ring_free(&ring);
}

static void test_stop_runs_what_was_sent_before(void **state)
{
	unsigned sequence = 0, answers = 0;
	struct job j[3];
	struct ring ring;

	assert_int_equal(ring_init(&ring, 8), 0);
	assert_int_equal(offload_start(), 0);
	for (int i = 0; i < 3; i++) {
		j[i] = (struct job){ .job = { .run = job_run, .done.done = job_done }, .sequence = &sequence,
				     .answers = &answers, .sleep_us = 1000 };
		assert_int_equal(offload_submit(&ring, &j[i].job), 0);
	}
	offload_stop(&ring);
	assert_int_equal(sequence, 3);
	run_until(&ring, &answers, 3);
	offload_stop(&ring);    /* stopped already: nothing */
	assert_int_equal(offload_start(), 0);
	offload_stop(&ring);
	ring_free(&ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_job_runs_elsewhere_and_is_answered_here),
		cmocka_unit_test(test_submitter_goes_on_while_a_job_blocks),
		cmocka_unit_test(test_two_submitters_each_in_their_order),
		cmocka_unit_test(test_job_that_blocks_delays_no_other_key),
		cmocka_unit_test(test_stop_runs_what_was_sent_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
