/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker is to the modules that run on it: its ring, its share of the state, the limits. The loop itself
 * is in worker.c. A worker owns its files outright; only `inbox` operations (ring_post) come from other threads.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/block_tree.h"
#include "daemon/budget.h"
#include "daemon/config.h"
#include "daemon/drr.h"
#include "daemon/lane.h"
#include "daemon/placement.h"
#include "daemon/ring.h"
#include "daemon/staging.h"
#include "daemon/state.h"
#include "daemon/uffd.h"
#include "daemon/util/rate.h"
#include "daemon/util/util.h"

struct cgroup_table;
struct server;

/*
 * Pages of one kind of owner in one worker, with a policy of their own: those of a user or cgroup that has a limit can so be given up first.
 * The first domain of a worker is of all who have none. Made when the first handle of such an owner opens a file here; lives as long as the worker.
 */
struct domain {
	struct list link;          /* worker->domains */
	uint32_t tenant[2];        /* of the user and of the cgroup: slots of budget->tenant, 0: none */
	struct policy *policy;
	uint64_t used;             /* pages charged */
	uint64_t tables;           /* pages charged for the policy's own memory */
	uint64_t fitted;           /* pages that the policy was told to reckon with */
	/* The second-chance buffer: slots that were touched hold memory, and are charged, until they are given back. */
	char *second;
	uint64_t *touched;         /* a bit a slot */
	uint32_t second_slots, second_touched, second_used;
	/* Huge pages, of which the policy knows nothing: huge.c. */
	struct list chunks;        /* the first block of each, in the order in which they are given up */
	uint64_t huge;             /* pages of them */
	int64_t huge_due;          /* pages that they are to give up; less than 0: they have given more than their share */
};

/* Who is charged for what is read or written: the first toucher of a block. */
struct toucher {
	struct pgc_cgroup_entry *cgroup; /* NULL: not known */
	struct domain *domain;     /* NULL: the worker's first */
	struct user_count *user;   /* NULL: not known */
	uint32_t client;           /* budget_client_slot(); 0: nobody */
};

/* Something that waits for room, or for a barrier on a file to go. Called again, on the worker, when it may try. */
struct parked {
	struct list link;
	void (*resume)(struct parked *p);
};

/* Whose a handle of an earlier daemon is: found out by the main thread. */
struct restored_client {
	bool counted;
	struct user_count *user;
	uint32_t cgroup_slot;
	struct pgc_cgroup_entry *cgroup;
	uint32_t tenant[2];
};

/* A handle has come or gone, and the main thread does not know yet, for want of memory: server.c. */
struct unsent_count {
	uint32_t cgroup_slot;
	int delta;
};

#define FILE_HASH_SIZE 1024
#define WORKER_ENDED   UINT64_MAX

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
	struct slot_pool file_slots, block_slots, mapping_slots, handle_slots;
	struct block *blocks;      /* by slot - block_slots.first */
	uint32_t blocks_high;      /* of `blocks`, so many have been used at one time: their memory is charged */
	struct file **file_of;     /* by file slot - file_slots.first */
	unsigned page_bits;        /* of a policy_key: below these is the page, above the file */
	struct list domains;

	struct list files[FILE_HASH_SIZE];
	struct list all_files;
	struct list spaces;        /* struct space */
	struct list unused_faults; /* of fault.c, to be used again: each begins with its link */
	unsigned n_unused_faults;
	struct space *spare_spaces; /* space.c: for forked children, when there is no memory */
	unsigned n_spare_spaces;
	struct list sockets;       /* struct handle */
	struct list readers;       /* struct window_readers */
	uint64_t readers_asked;    /* ns: when all were asked what they have read */
	unsigned n_files;

	struct drr turns;          /* struct task: for the next rounds */
	struct lane_user lanes;
	struct list no_room;       /* struct parked: wait for memory or block slots */
	struct list retry;         /* struct task: queued again when retry_timer fires */
	struct list later;         /* the same, when later_timer fires */
	struct ring_timer retry_timer, later_timer, expire_timer, child_timer, audit_timer, track_timer;
	int drop_pipe[2], drop_sink; /* track.c */
	uint32_t children[CLIENT_SLOTS]; /* forked ones, of each client */
	unsigned fills_in_flight, writes_in_flight;
	struct staging staging;
	struct list unstaged;      /* struct fill: wait for a buffer of it; fill.c, as the next four */
	struct ring_timer staged_timer;
	unsigned n_unstaged;
	bool staged_stuck;
	uint64_t staged_ends, staged_ends_seen; /* reads into buffers that ended; the same when the timer was armed */
	struct rate writeout_rate; /* read by the main thread */
	uint64_t used;             /* pages charged by this worker */
	struct reclaim_ask *asks;  /* one for each other worker: reclaim.c */
	struct ring_op wake;       /* from the main thread: the limits have changed */
	struct task balance;       /* reclaim and write-out in the background */
	_Atomic uint64_t weight;   /* its share of what reclaim gives up; relaxed, read by the others */
	uint64_t owed;             /* pages of that, too few to begin with */
	uint64_t turn;             /* pages that reclaim gives up in one round */
	struct list prefetches;    /* struct prefetch: warm.c, as the next four */
	struct ring_timer prefetch_timer, stop_timer;
	unsigned warm_jobs;        /* on the offload thread */
	size_t warm_bytes, prefetch_bytes; /* that jobs and prefetches take */
	uint64_t others_owe;       /* pages, in units of reclaim.c: what other workers should give up for what this one has */
	uint64_t no_idle_until;    /* ns: until then what is idle makes no room */
	uint64_t no_reclaim_until; /* ns: reclaim found nothing */
	uint64_t asked_at;         /* ns: the other workers were asked to look at the budget */
	struct ring_timer lock_timer; /* locked.c */
	bool looking;
	bool look_again;           /* not all that is locked could be read in */
	uint64_t pressure_at_look;
	unsigned locked_files;     /* with something that clients have locked */
	uint64_t kept_bytes;       /* by pgc_keep, in all files */
	/* For the next daemon: kept.c and restore.c. */
	struct list removals;      /* of kept descriptors, not sent yet */
	struct task removals_task;
	uint64_t next_handle;      /* the next handle's name for ATTACH */
	unsigned lifelines;        /* rings of dead daemons that have something under way */
	struct list lifeline_waits; /* struct lifeline of restore.c, each begins with its link: freed after the ring that they wait on */
	struct list lifeline_wait; /* struct parked: until there is none */
	struct list awaited, attach_jobs; /* attach.c */
	struct ring_timer attach_timer;
	const struct restored_client *restored; /* by slot of saved_handles */
	uint32_t told;             /* of `blocks`: those below this slot have been told to the policy */
	struct task tell;          /* goes on with that */
	struct task restore;       /* the first thing that runs, where there is a state to be taken over */

	unsigned checks;           /* steps of check.h that wait for something */
	uint64_t changes;          /* of whatever check.h counts */

	bool room_made;            /* since the loop last tried those in no_room */
	bool no_slots_logged, no_huge_logged;
	unsigned live;             /* handles and spaces that are not freed yet */
	struct drain *drain;       /* worker.c: at shutdown */
	struct unsent_count unsent_counts[64];
	unsigned n_unsent_counts;
	struct task count_task;

	struct placement placement;
	uint64_t spin_ns;          /* how long it looks before it sleeps */
	bool spun_for_nothing;     /* just now */
	uint64_t no_spin_until;    /* ns, while it follows a thread (placement.h) */
	bool alone;                /* on the only processor: to look would keep others from what is waited for */
	bool draining;             /* shutting down: write faults wait, everything is written back */
	bool stopped;
	bool abandoned;            /* it has ended with operations under way, which may still write into its memory; main reads it after join */
	_Atomic uint64_t rounds;   /* of the loop; WORKER_ENDED: the thread has done its work. Relaxed: the watchdog looks whether it moves */
	_Atomic bool failed;       /* something could not be written at shutdown; release by the worker, acquire by main after join */
};

/* Runs `t` in a later round, when it is its flow's turn, also if it was to wait for a timer; nothing if it is queued already. */
static inline void worker_queue(struct worker *w, struct task *t)
{
	if (t->waiting)
		list_remove(&t->link);
	t->waiting = false;
	drr_queue(&w->turns, t);
}

#define WORKER_GLANCE_NS 10000ull  /* so long a turn is at least */
/* After its time, or when the ring has brought somebody meanwhile whose turn may come first. `start`: now_ns() when it began. */
static inline bool worker_turn_is_over(const struct worker *w, uint64_t start, uint64_t most)
{
	uint64_t ns = now_ns() - start;

	return ns >= most || (ns >= WORKER_GLANCE_NS && ring_has_news(&w->ring));
}

/* The flow of a client's work. */
static inline uint32_t worker_flow(const struct toucher *who) { return who->client; }
_Static_assert(DRR_FLOWS == CLIENT_SLOTS, "a flow for each client");

/* Runs `t` again in about 100 us: for ioctls that say EAGAIN because the client is about to finish an event. */
#define AUDIT_NS        2000000000ull
#define TRACK_NS        1000000000ull /* between two looks for what was stored to without a fault */
#define TRACK_SOON_NS    100000000ull /* while somebody has more dirty than it may */
#define WORKER_RETRY_NS 100000ull
static inline void worker_retry(struct worker *w, struct task *t)
{
	if (!list_empty(&t->link))
		return;
	t->waiting = true;
	list_append(&w->retry, &t->link);
	ring_timer_arm(&w->ring, &w->retry_timer, WORKER_RETRY_NS);
}

/* The same in about 5 ms: for what may last. */
#define WORKER_LATER_NS 5000000ull
static inline void worker_later(struct worker *w, struct task *t)
{
	if (!list_empty(&t->link))
		return;
	t->waiting = true;
	list_append(&w->later, &t->link);
	ring_timer_arm(&w->ring, &w->later_timer, WORKER_LATER_NS);
}

/* What budget->used has been charged with is charged to the worker and its domain, too. */
static inline void budget_account(struct worker *w, struct domain *d, uint64_t pages)
{
	struct budget *b = w->budget;

	w->changes++;
	w->used += pages;
	d->used += pages;
	for (int i = 0; i < 2; i++)
		if (d->tenant[i])
			atomic_fetch_add_explicit(&b->tenant[d->tenant[i]].used, pages, memory_order_relaxed);
}

/* Charges `pages` whatever the limit: for what cannot wait, out of the reserve that reclaim keeps free. */
static inline void budget_charge(struct worker *w, struct domain *d, uint64_t pages)
{
	atomic_fetch_add_explicit(&w->budget->used, pages, memory_order_relaxed);
	budget_account(w, d, pages);
}

static inline void budget_uncharge(struct worker *w, struct domain *d, uint64_t pages)
{
	struct budget *b = w->budget;

	atomic_fetch_sub_explicit(&b->used, pages, memory_order_relaxed);
	w->changes++;
	w->used -= pages;
	d->used -= pages;
	for (int i = 0; i < 2; i++)
		if (d->tenant[i])
			atomic_fetch_sub_explicit(&b->tenant[d->tenant[i]].used, pages, memory_order_relaxed);
	w->room_made = true;
}

/* Memory of the daemon's own that grows and shrinks with what it holds. */
static inline void budget_charge_tables(struct worker *w, int64_t pages)
{
	atomic_fetch_add_explicit(&w->budget->used, (uint64_t)pages, memory_order_relaxed);
	atomic_fetch_add_explicit(&w->budget->tables, (uint64_t)pages, memory_order_relaxed);
}

#define PLENTY 8                     /* an eighth of the memory, or of what a tenant may have, stays free of what nobody has asked for */

static inline bool is_plenty(uint64_t max, uint64_t used, uint64_t pages) { return used + pages + max / PLENTY <= max; }

/* Is there room for `pages` that can be done without, so that nothing need go for them? `d`: whose they would be, or NULL. */
static inline bool worker_has_plenty(const struct worker *w, const struct domain *d, uint64_t pages)
{
	struct budget *b = w->budget;

	for (int i = 0; d && i < 2; i++) {
		struct tenant *t = &b->tenant[d->tenant[i]];
		uint64_t limit = d->tenant[i] ? atomic_load_explicit(&t->limit, memory_order_relaxed) : 0;

		if (limit && !is_plenty(limit, atomic_load_explicit(&t->used, memory_order_relaxed), pages))
			return false;
	}
	return is_plenty(atomic_load_explicit(&b->max, memory_order_relaxed), atomic_load_explicit(&b->used, memory_order_relaxed), pages);
}

static inline struct domain *worker_domain(struct worker *w) { return list_entry(w->domains.next, struct domain, link); }

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
