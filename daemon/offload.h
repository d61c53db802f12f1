/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads for the few calls that may block and that io_uring does not have (lseek with SEEK_DATA, futimens, opening
 * /proc/self/fd/N again, ftruncate before Linux 6.9). Jobs of key 0 run one at a time in order of arrival, on a thread of
 * their own; so do those of another key as long as there are no more keys than threads. A job that blocks delays no other key until then.
 */
#pragma once

#include "daemon/ring.h"

struct offload_job {
	void (*run)(struct offload_job *job);   /* on an offload thread; may block; touches only the job */
	struct ring_op done;                    /* its done(op, 0, 0) runs on the submitter's thread afterwards */
	uint64_t key;                           /* of the jobs that it may wait with: a device; 0: none in particular */

	/* The offload threads' own. */
	struct ring_op start;
	struct ring   *from;
	struct offload_lane *lane;
};

/* Starts the threads, once for the process, before the first job. All signals are blocked on them. 0 or a negative errno. */
int offload_start(void);
/*
 * Ends the threads after the jobs that were sent before, and joins them: may block as long as they do. Any ring may be named, and each
 * ring that sent a job must live until here. Nothing when it does not run. For the thread that started it.
 */
void offload_stop(struct ring *from);

/* From offload_start() on, as long as that is before the threads that ask. */
bool offload_is_running(void);

/* Hands `job` over; it must live until `done` was called. -ENOMEM: not sent. Leaves with the next ring_run() or ring_flush(). */
int offload_submit(struct ring *from, struct offload_job *job);
