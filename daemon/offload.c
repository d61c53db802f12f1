/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The offload threads: each a lane, which is a ring, messages in, messages out.
 *
 * A disk that stops answering holds the job that asks it, and all behind that one. So a lane has jobs of one key at a time: those of a key
 * go where jobs of it are, else to a lane that has none. Only when all lanes are taken do keys share one. Key 0 has the first lane to itself, as its
 * jobs rely on running one at a time.
 *
 * Invariants: a job is the submitter's, then its lane's from offload_submit() on, and the submitter's again when `done` runs.
 * A result leaves before the next job begins, so a job that blocks delays only those behind it.
 * Thread: offload_start() and offload_stop() on one thread; offload_submit() on any that owns `from`; the rest on the lane's thread. `lock`
 * guards keys and counts, and is held for a look at them.
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
#define LANES 8

struct offload_lane {
	struct ring    ring;
	struct ring_op stop;
	pthread_t      thread;
	bool           stopping;   /* the lane's thread's */
	uint64_t       key;        /* of its jobs; under `lock`, as is what follows */
	size_t         jobs;       /* sent and not yet run */
};

static struct {
	struct offload_lane lanes[LANES];
	pthread_mutex_t lock;
	unsigned started;          /* the starter's */
} offload = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct offload_lane *lane_take(uint64_t key)
{
	struct offload_lane *found = key == 0 ? offload.lanes : NULL;

	pthread_mutex_lock(&offload.lock);
	for (struct offload_lane *l = offload.lanes + 1; key != 0 && l < offload.lanes + LANES; l++)
		if (l->jobs > 0 && l->key == key) {
			found = l;
			break;
		} else if (l->jobs == 0 && !found) {
			found = l;
		}
	if (!found)
		found = &offload.lanes[1 + key % (LANES - 1)];
	if (found->jobs == 0)
		found->key = key;
	found->jobs++;
	pthread_mutex_unlock(&offload.lock);
	return found;
}

static void lane_put(struct offload_lane *l)
{
	pthread_mutex_lock(&offload.lock);
	l->jobs--;
	pthread_mutex_unlock(&offload.lock);
}

static void job_arrived(struct ring_op *op, int res, uint32_t cflags)
{
	struct offload_job *job = container_of(op, struct offload_job, start);
	struct offload_lane *l = job->lane;

	job->run(job);
	lane_put(l);
	/* The submitter waits for this answer: out of memory is waited out, which is what this thread may do. */
	while (ring_post(&l->ring, job->from, &job->done, 0) < 0) {
		const struct timespec pause = { .tv_nsec = 1000000 };

		nanosleep(&pause, NULL);
	}
	ring_flush(&l->ring);
}

static void stop_arrived(struct ring_op *op, int res, uint32_t cflags)
{
	container_of(op, struct offload_lane, stop)->stopping = true;
}

static void *lane_main(void *arg)
{
	struct offload_lane *l = arg;

	while (!l->stopping) {
		if (ring_run(&l->ring, true, 16) < 0)
			abort(); /* a ring of ours that cannot be entered: nothing would ever be answered */
	}
	ring_flush(&l->ring);
	return NULL;
}

static int lane_start(struct offload_lane *l)
{
	sigset_t all, before;
	int r;

	*l = (struct offload_lane){ .stop.done = stop_arrived };
	r = ring_init(&l->ring, OFFLOAD_RING_ENTRIES);
	if (r < 0)
		return r;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&l->thread, NULL, lane_main, l);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		ring_free(&l->ring);
	return -r;
}

static void lanes_stop(struct ring *from)
{
	for (unsigned i = 0; i < offload.started; i++)
		while (ring_post(from, &offload.lanes[i].ring, &offload.lanes[i].stop, 0) < 0) {
			const struct timespec pause = { .tv_nsec = 1000000 };

			nanosleep(&pause, NULL);
		}
	ring_push(from);
	for (unsigned i = 0; i < offload.started; i++)
		pthread_join(offload.lanes[i].thread, NULL);
	for (unsigned i = 0; i < offload.started; i++)
		ring_free(&offload.lanes[i].ring);
	offload.started = 0;
}

int offload_start(void)
{
	assert(offload.started == 0);
	for (; offload.started < LANES; offload.started++) {
		struct ring from;
		int r = lane_start(&offload.lanes[offload.started]);

		if (r == 0)
			continue;
		/* What has begun is ended by a ring of its own, as the caller has given none. */
		if (offload.started > 0 && ring_init(&from, 8) == 0) {
			lanes_stop(&from);
			ring_free(&from);
		}
		return r;
	}
	return 0;
}

void offload_stop(struct ring *from)
{
	if (offload.started > 0)
		lanes_stop(from);
}

bool offload_is_running(void) { return offload.started > 0; }

int offload_submit(struct ring *from, struct offload_job *job)
{
	int r;

	job->start.done = job_arrived;
	job->from = from;
	job->lane = lane_take(job->key);
	r = ring_post(from, &job->lane->ring, &job->start, 0);
	if (r < 0)
		lane_put(job->lane);
	return r;
}
