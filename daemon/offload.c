/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The offload thread: a ring, messages in, messages out, and nothing shared, so no lock.
 *
 * Invariants: a job is the submitter's, then this thread's from offload_submit() on, and the submitter's again when `done` runs.
 * A result leaves before the next job begins, so a job that blocks delays only those behind it.
 * Thread: offload_start() and offload_stop() on one thread; offload_submit() on any that owns `from`; the rest on the offload thread.
 * May call: ring.
 */
#include "daemon/offload.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <signal.h>
#include <time.h>

#include "daemon/util/util.h"

#define OFFLOAD_RING_ENTRIES 64

static struct {
	struct ring    ring;
	struct ring_op stop;
	pthread_t      thread;
	bool           running;    /* the starter's */
	bool           stopping;   /* the offload thread's */
} offload;

static void job_arrived(struct ring_op *op, int res, uint32_t cflags)
{
	struct offload_job *job = container_of(op, struct offload_job, start);

	job->run(job);
	/* The submitter waits for this answer: out of memory is waited out, which is what this thread may do. */
	while (ring_post(&offload.ring, job->from, &job->done, 0) < 0) {
		const struct timespec pause = { .tv_nsec = 1000000 };

		nanosleep(&pause, NULL);
	}
	ring_flush(&offload.ring);
}

static void stop_arrived(struct ring_op *op, int res, uint32_t cflags)
{
	offload.stopping = true;
}

static void *offload_main(void *arg)
{
	while (!offload.stopping) {
		if (ring_run(&offload.ring, true, 16) < 0)
			abort(); /* a ring of ours that cannot be entered: nothing would ever be answered */
	}
	ring_flush(&offload.ring);
	return NULL;
}

int offload_start(void)
{
	sigset_t all, before;
	int r;

	assert(!offload.running);
	r = ring_init(&offload.ring, OFFLOAD_RING_ENTRIES);
	if (r < 0)
		return r;
	offload.stopping = false;
	offload.stop.done = stop_arrived;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&offload.thread, NULL, offload_main, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0) {
		ring_free(&offload.ring);
		return -r;
	}
	offload.running = true;
	return 0;
}

void offload_stop(struct ring *from)
{
	if (!offload.running)
		return;
	while (ring_post(from, &offload.ring, &offload.stop, 0) < 0) {
		const struct timespec pause = { .tv_nsec = 1000000 };

		nanosleep(&pause, NULL);
	}
	ring_flush(from);
	pthread_join(offload.thread, NULL);
	offload.running = false;
	ring_free(&offload.ring);
}

int offload_submit(struct ring *from, struct offload_job *job)
{
	job->start.done = job_arrived;
	job->from = from;
	return ring_post(from, &offload.ring, &job->start, 0);
}
