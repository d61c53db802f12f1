/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that is confined to one processor, and takes nearly all of a worker's faults, has the worker come to its processor: waking somebody there takes less time
 * than waking him on another, and no time of a second processor. The worker sleeps at once then, as the thread cannot run before; only while it waits for a read
 * it looks for a while (worker.c).
 *
 * Who is not confined is not followed: the scheduler would wake the thread on another processor, which is idle.
 *
 * It ends with the first signs of other work, and some milliseconds after the last fault, since the thread may keep the processor busy with something else by then.
 * What did not last is not tried again for a while, longer each time. What an administrator has confined the worker to is kept, and what he changes meanwhile stands.
 *
 * Runs on the worker. May call ring.
 */
#include "daemon/placement.h"

#include "daemon/worker.h"

#define SCORE_FOLLOW 64              /* faults in turn */
#define SCORE_MAX    256
#define SCORE_OTHER  16              /* anything else counts as so many */
#define LOOK_NS      1000000ull      /* the timer; fewer faults in that time are the end of it: */
#define LOOK_FAULTS  8u
#define LASTED       1000u           /* faults: then it was worth it */
#define PAUSE_MIN_NS 10000000ull
#define PAUSE_MAX_NS 2000000000ull

/* The one processor that the thread may be on; -1: there are several, or it is not to be found, as one of another pid namespace. */
static int confined_to(pid_t tid)
{
	cpu_set_t cpus;

	if (tid <= 0 || sched_getaffinity(tid, sizeof(cpus), &cpus) < 0 || CPU_COUNT(&cpus) != 1)
		return -1;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &cpus))
			return cpu;
	return -1;
}

static void follow(struct worker *w)
{
	struct placement *p = &w->placement;
	cpu_set_t one;

	p->cpu = confined_to(p->tid);
	CPU_ZERO(&one);
	if (p->cpu >= 0)
		CPU_SET(p->cpu, &one);
	if (p->cpu < 0 || sched_getaffinity(0, sizeof(p->allowed), &p->allowed) < 0 || !CPU_ISSET(p->cpu, &p->allowed) ||
	    sched_setaffinity(0, sizeof(one), &one) < 0) {
		p->score = 0;
		p->next = now_ns() + PAUSE_MIN_NS;
		return;
	}
	p->follows = true;
	p->faults = p->faults_seen = 0;
	ring_timer_arm(&w->ring, &p->timer, LOOK_NS);
}

static void leave(struct worker *w)
{
	struct placement *p = &w->placement;

	p->follows = false;
	if (confined_to(gettid()) == p->cpu)
		(void)sched_setaffinity(0, sizeof(p->allowed), &p->allowed);
	p->score = 0;
	p->pause = p->faults >= LASTED ? PAUSE_MIN_NS : MIN(p->pause * 2, PAUSE_MAX_NS);
	p->next = now_ns() + p->pause;
}

static void look(struct ring_timer *t)
{
	struct worker *w = container_of(t, struct worker, placement.timer);
	struct placement *p = &w->placement;

	if (!p->follows)
		return;
	if (p->faults - p->faults_seen < LOOK_FAULTS || confined_to(p->tid) != p->cpu) {
		leave(w);
		return;
	}
	p->faults_seen = p->faults;
	ring_timer_arm(&w->ring, t, LOOK_NS);
}

void placement_init(struct worker *w)
{
	w->placement = (struct placement){ .pause = PAUSE_MIN_NS };
	ring_timer_init(&w->placement.timer, look);
}

void placement_other(struct worker *w) { w->placement.score = MAX(w->placement.score - SCORE_OTHER, 0); }

void placement_fault(struct worker *w, pid_t tid)
{
	struct placement *p = &w->placement;

	if (tid == p->tid) {
		p->score += p->score < SCORE_MAX;
		p->faults++;
		return;
	}
	placement_other(w);
	if (p->score == 0 && !p->follows)
		p->tid = tid;
}

void placement_look(struct worker *w)
{
	struct placement *p = &w->placement;

	if (p->follows && p->score == 0)
		leave(w);
	else if (!p->follows && p->score >= SCORE_FOLLOW && now_ns() >= p->next)
		follow(w);
}
