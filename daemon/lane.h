/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes: threads that map pages for workers. To map resident pages (CONTINUE) is nearly all that a fault costs its file's worker; so a worker that has enough to do
 * gives that to a lane, and goes on with the next fault. All else of a fault stays with the worker: a lane knows nothing of files and has no state of theirs, only jobs.
 *
 * A job is the worker's before lane_send() and after it has been settled, and the lane's in between.
 *
 * Invariants, which are the worker's to keep (fault.c):
 *   - Of a space with a job under way no message is read. So no event is taken that the job was not planned with, and while one waits the kernel refuses the job (EAGAIN).
 *   - Nothing is put into a page that a job under way may map (lane_free_run()): what was resident when the job was planned is right, or not there, until it has ended.
 *   - The job's descriptor stays open until then.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/ring.h"
#include "daemon/util/util.h"

#define LANE_MIN_PAGES 16u           /* less is done sooner than said */
#define LANE_JOBS      4u            /* of one message */
#define LANE_BATCHES   64u           /* messages of one worker under way, for each lane */

struct lane;

struct lane_job {
	/* The worker's. */
	struct lane *lane;         /* that has it: set by lane_send() */
	struct list by_file, by_space;
	void *file, *space, *fault; /* fault NULL: it is gone */
	uint64_t page, n;          /* of the file */
	void (*done)(struct lane_job *j);
	/* What is to be done, and what came of it: uffd_continue(). */
	int uffd, result;
	uint64_t addr, mapped;
	bool protect;
	_Atomic bool finished;     /* release by the lane, after `result` and `mapped`; acquire by the worker, which may look before it is told */
};

struct lanes;

struct lane_batch {
	struct list link;          /* lane_user->unused */
	struct ring_op op, back;   /* to the lane, and to the worker */
	struct lane_user *user;
	struct lane *lane;
	_Atomic unsigned n;        /* jobs: release by the worker when they are complete, acquire by the lane */
	_Atomic uint64_t ns;       /* that they took: release by the lane, acquire by the worker */
	struct lane_job job[LANE_JOBS];
};

/* A worker's side. */
struct lane_user {
	struct lanes *lanes;       /* NULL: there are none, and nothing else of this is used */
	struct ring *ring;
	struct list unused;        /* struct lane_batch */
	struct lane_batch *batches, *open; /* open: is being filled */
	uint64_t since, idle_ns, lane_ns; /* what it and its lanes have done since then */
	bool busy;                 /* by that, of late */
};

/* Starts `n` threads. 0: *ret is NULL. `eager`: they get whatever they can do, for tests. */
int lanes_start(struct lanes **ret, unsigned n, bool eager);
/* When no worker is left that could send something. From the thread that has `from`. */
void lanes_stop(struct lanes *l, struct ring *from);

/* -ENOMEM. `ring`: the worker's. */
int lane_user_init(struct lane_user *u, struct lanes *l, struct ring *ring);
void lane_user_free(struct lane_user *u);

/*
 * A job for pages [page, page + n) to be filled in and sent, if the worker has enough to do and a lane has not; else NULL: who asks does it itself. `jobs` (a list of by_file): under way. Two
 * threads that map the same pages at one time, in whatever processes, wait for each other at each page; so whoever has one of these gets the next one as well.
 */
struct lane_job *lane_take(struct lane_user *u, const struct list *jobs, uint64_t page, uint64_t n);
/* It is begun soon, and `done` is called on this thread when it has ended. */
void lane_send(struct lane_user *u, struct lane_job *j);
/* At the end of a round: all that was sent goes out. */
void lane_flush(struct lane_user *u);
/* Calls `done` if it has ended, before the lane tells. Whether it has; the job is no more then. */
bool lane_settle(struct lane_job *j);

/* Pages from `page` on, at most `max`, that none of these jobs (a list of by_file) may map any more. */
uint64_t lane_free_run(const struct list *jobs, uint64_t page, uint64_t max);
