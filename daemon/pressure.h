/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gives memory back when the machine or our memory cgroup runs short, and takes it again later. It only says how much the cache may hold; the caller
 * sees to it. Main thread, on its ring.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/memory_room.h"
#include "daemon/pressure_step.h"
#include "daemon/ring.h"

struct pressure;

/* One thing of the kernel's that tells of pressure: a file or an eventfd that is polled. */
struct pressure_source {
	struct ring_op op;
	struct pressure *p;
	int      fd;
	short    events;           /* to poll for */
	uint8_t  kind;             /* enum pressure_kind */
	bool     polled;           /* a poll is under way */
	bool     gone;             /* it will not tell any more: its cgroup was removed */
	uint64_t told, count;      /* when it last said something; of memory.events: the counters then */
};

#define PRESSURE_SOURCES_MAX (2 + ROOM_LEVELS_MAX)

struct pressure_params {
	struct ring *ring;
	const char *proc;          /* "/proc", but for tests */
	/* Our cgroup in the memory hierarchy and where that is mounted; mount_point is NULL when there is none. */
	const char *mount_point, *cgroup;
	bool v1;
	struct pressure_timing timing;
	void *arg;
	uint64_t (*used)(void *arg), (*memory_max)(void *arg), (*memory_min)(void *arg);   /* pages; asked again at each look */
	bool (*enabled)(void *arg);
	void (*set_limit)(void *arg, uint64_t pages);  /* 0: no limit but memory_max; more than 0 after 0 is a new episode; the same again: it is not reached yet */
};

struct pressure {
	struct pressure_params params;
	struct memory_room room;
	struct pressure_state state;
	struct pressure_source source[PRESSURE_SOURCES_MAX];
	unsigned n_sources;
	struct ring_timer timer;
	uint64_t used_before;
	const char *event;         /* what the kernel has told since the last look; NULL: nothing */
	bool     waking;           /* the timer is being cancelled, to look at once */
	bool     stopping;
};

/* Begins to watch. Sources that are not there or that we may not use are left out. Copies what `params` names. -ENOMEM. */
int pressure_start(struct pressure *p, const struct pressure_params *params);
/* Looks at everything now, `now_ms` being the time. Called by the timer; tests call it with a time of their own. How many ms until the next look. */
uint64_t pressure_look(struct pressure *p, uint64_t now_ms);
/* Runs the ring until nothing of ours is under way on it; the limit stays. May be called when pressure_start() was not, or failed. */
void pressure_stop(struct pressure *p);
