/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may store to a file has a descriptor of its memory, and may write(2) there as well. The kernel holds the memfd's lock for as long as the bytes of such a call take to come:
 * for ever, if they lie in memory whose faults nobody answers. Whatever a worker has to do to the memfd then waits, and with it all files of that worker. The library makes no
 * such call. Nothing but its end makes a process give the lock back: so who has kept a thread of the daemon waiting for seconds is killed, by SIGKILL, and the log says why.
 *
 * Main thread, on its ring. Two seconds lie between two looks, each of which reads some files of /proc.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/ring.h"

#define LOCK_GUARD_THREADS 64

struct state;

/* A thread of ours that was found in a call on a memfd. */
struct lock_wait {
	pid_t    tid;
	int      fd;
	uint64_t switches;         /* so often it had come to wait for something */
	unsigned looks;            /* in which it was the same */
};

struct lock_guard {
	struct ring        *ring;
	const struct state *state;
	struct ring_timer   timer;
	struct lock_wait    wait[LOCK_GUARD_THREADS];
	unsigned            n;
};

void lock_guard_start(struct lock_guard *g, struct ring *ring, const struct state *state);
