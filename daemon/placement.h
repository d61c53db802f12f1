/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On which processor a worker runs: see placement.c. Belongs to the worker, and runs on it.
 */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/ring.h"

struct worker;

struct placement {
	pid_t tid;                 /* whose faults are most of late; 0: not known */
	int score;                 /* how sure that is: more with each of its faults, far less with anything else */
	bool follows;              /* the worker is confined to that thread's processor */
	int cpu;                   /* which that is */
	cpu_set_t allowed;         /* where it may be otherwise */
	uint64_t faults, faults_seen; /* since it follows; the same when the timer was armed */
	uint64_t next, pause;      /* ns: not before, and how long not after one that did not last */
	struct ring_timer timer;
};

void placement_init(struct worker *w);
/* A fault of this thread (0: not known) was answered for which no more was done than it asked for. */
void placement_fault(struct worker *w, pid_t tid);
/* Something else was done: for others, or what is better done at the same time as what the client does. */
void placement_other(struct worker *w);
/* Before the worker waits: moves it, if that pays. */
void placement_look(struct worker *w);
