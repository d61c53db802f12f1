/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker is to the modules that run on it: its ring, its share of the state, the limits. The loop itself
 * is in worker.c. A worker owns its files outright; only `inbox` operations (ring_post) come from other threads.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/block_tree.h"
#include "daemon/config.h"
#include "daemon/ring.h"
#include "daemon/state.h"
#include "daemon/uffd.h"
#include "daemon/util/util.h"

struct cgroup_table;
struct server;

/*
 * Shared by all workers. `used` counts pages charged, resident or about to be. Relaxed atomic adds: the limit is checked by the
 * add itself, and no other memory is published through it.
 */
struct budget {
	uint64_t max;              /* pages */
	_Atomic uint64_t used;
};

/* Something that waits for room, or for a barrier on a file to go. Called again, on the worker, when it may try. */
struct parked {
	struct list link;
	void (*resume)(struct parked *p);
};

/* Work that a round of the loop left over: `run` is called once in the next round. */
struct task {
	struct list link;
	void (*run)(struct task *t);
};

#define FILE_HASH_SIZE 1024

struct worker {
	unsigned id, n_workers;
	pthread_t thread;
	struct ring ring;
	struct worker *all;        /* array of n_workers */
	struct server *server;     /* for messages up; opaque here */
	struct ring *main_ring;
	const struct config *config;
	const struct uffd_caps *caps;
	struct state *state;
	struct budget *budget;
	struct pgc_stats_entry *stats;

	/* Slots of the visible state that are this worker's, and the private side of its blocks. */
	struct slot_pool file_slots, block_slots, mapping_slots;
	struct block *blocks;      /* by slot - block_slots.first */
	struct list blocks_by_age;

	struct list files[FILE_HASH_SIZE];
	struct list all_files;
	struct list spaces;        /* struct space */
	struct list sockets;       /* struct handle */
	unsigned n_files;

	struct list ready;         /* struct task: for the next round */
	struct list no_room;       /* struct parked: wait for memory or block slots */
	struct list retry;         /* struct task: run again when retry_timer fires */
	struct ring_timer retry_timer, expire_timer, child_timer;
	unsigned fills_in_flight, writes_in_flight;
	uint64_t used;             /* pages charged by this worker */
	struct reclaim_ask *asks;  /* one for each other worker: reclaim.c */
	uint64_t no_reclaim_until; /* ns: reclaim found nothing */
	uint64_t kept_bytes;       /* by pgc_keep, in all files */
	bool room_made;            /* since the loop last tried those in no_room */
	bool no_slots_logged;
	unsigned live;             /* handles and spaces that are not freed yet */
	struct drain *drain;       /* worker.c: at shutdown */

	bool draining;             /* shutting down: write faults wait, everything is written back */
	bool stopped;
	_Atomic bool failed;       /* something could not be written at shutdown; release by the worker, acquire by main after join */
};

/* Runs `t` in the next round; nothing if it is queued already. */
static inline void worker_queue(struct worker *w, struct task *t)
{
	if (list_empty(&t->link))
		list_append(&w->ready, &t->link);
}

/* Runs `t` again in about 100 us: for ioctls that say EAGAIN because the client is about to finish an event. */
#define WORKER_RETRY_NS 100000ull
static inline void worker_retry(struct worker *w, struct task *t)
{
	if (!list_empty(&t->link))
		return;
	list_append(&w->retry, &t->link);
	ring_timer_arm(&w->ring, &w->retry_timer, WORKER_RETRY_NS);
}

/* Charges `pages` if they fit. Only reclaim_charge() and tests call it. */
static inline bool budget_try_charge(struct worker *w, uint64_t pages)
{
	uint64_t used = atomic_fetch_add_explicit(&w->budget->used, pages, memory_order_relaxed) + pages;

	if (used > w->budget->max) {
		atomic_fetch_sub_explicit(&w->budget->used, pages, memory_order_relaxed);
		return false;
	}
	w->used += pages;
	return true;
}

static inline void budget_uncharge(struct worker *w, uint64_t pages)
{
	atomic_fetch_sub_explicit(&w->budget->used, pages, memory_order_relaxed);
	w->used -= pages;
	w->room_made = true;
}

/* Which worker owns (dev, ino). */
static inline unsigned worker_index(unsigned n_workers, uint64_t dev, uint64_t ino)
{
	uint64_t h = (ino ^ (dev << 32 | dev >> 32)) * 0x9e3779b97f4a7c15ull;

	return (unsigned)((h >> 32) % n_workers);
}

/* --- worker.c --- */
int worker_init(struct worker *w);
int worker_start(struct worker *w);
/* One round of the loop, on the worker's thread: what is ready, then what the ring brings; waits for something when nothing is ready. */
void worker_round(struct worker *w, bool wait);
/* From the main thread: write everything back, end all handles, end the thread (to be joined). */
int worker_drain(struct worker *w, struct ring *from);
void worker_free(struct worker *w);
