/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of all workers together: how much there may be, how much is used and dirty, and whose it is. Shared by all threads. Every field that
 * changes is a relaxed atomic: each is a number of its own, checked by the add that changes it, and publishes no other memory.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/config.h"

#define TENANTS_MAX      CONFIG_LIMITS_MAX
#define CLIENT_SLOTS     1024u       /* clients are told apart by a hash of their process */

/* A user or a cgroup with a limit of its own. Slot 0 is nobody. Set by the main thread before any worker knows the number. */
struct tenant {
	_Atomic uint64_t limit;    /* pages; 0: none (any more) */
	_Atomic uint64_t used;     /* pages charged */
	_Atomic uint64_t reclaimed;
	char *cgroup;              /* NULL: a user */
	uid_t uid;
};

/*
 * What a user has open, of all workers together. Made by the main thread, and another user's only once all counts are 0. Forks cannot be refused, so they wait
 * from `fork_max` on: above the number from which on opens are refused, so that those show first.
 */
struct user_count {
	uid_t uid;
	_Atomic uint32_t handles;  /* and forked children */
	_Atomic uint32_t fork_max;
	_Atomic uint64_t dirty;    /* pages dirty or in writeback, without those kept */
	unsigned conns;            /* the main thread's */
};

struct budget {
	_Atomic uint64_t max;      /* pages now: memory_max, or less under pressure */
	_Atomic uint64_t used;     /* pages charged: resident or about to be, the second-chance buffer, tables */
	_Atomic uint64_t tables;   /* of these: tables */
	_Atomic uint64_t shown;    /* of these: bits that clients see (window.c) */
	_Atomic bool reclaiming;   /* from the high watermark to the low one, by all workers */
	_Atomic uint64_t dirty;    /* pages dirty or in writeback */
	_Atomic uint64_t kept;     /* of these: by pgc_keep, which no write-out makes clean */
	_Atomic uint64_t dirty_by[CLIENT_SLOTS]; /* without those kept */
	_Atomic uint64_t tracked;  /* pages that clients may store to without a fault, as often as they have them mapped */
	_Atomic uint64_t tracked_by[CLIENT_SLOTS];
	_Atomic uint64_t pinned;   /* pages pinned or locked */
	uint64_t secret;           /* of budget_client_slot(); set before the workers start */
	/* Settings, which may change while the daemon runs: written by the main thread. */
	_Atomic uint64_t memory_max, memory_min, dirty_background, dirty_max, pin_max; /* pages */
	_Atomic uint64_t dirty_expire_ms;
	_Atomic uint64_t pressed;  /* pages, by budget_press(); 0: no pressure */
	_Atomic uint64_t pressure_episodes;
	struct tenant tenant[TENANTS_MAX + 1];
	_Atomic uint32_t n_tenants; /* slots in use, slot 0 included; release by main, acquire by who reads the table */
};

/* Takes over the settings of `c`: at start, after a reload and after PGC_CTL_SET. Main thread. */
void budget_configure(struct budget *b, const struct config *c);
/* Under pressure: at most `pages` from now on (0: memory_max again). Main thread. */
void budget_press(struct budget *b, uint64_t pages);
void budget_free(struct budget *b);

/* Pages that are kept free for charges that cannot wait: reclaim begins in the background when less than this is free, and ends at twice as much. */
static inline uint64_t budget_reserve(uint64_t max)
{
	uint64_t r = max / 64;

	return r > 4096 ? 4096 : r;
}

/* The slot of a client: in dirty_by, and whose turn it is on a worker. Which processes share one is not known beforehand. Never 0, which is nobody's. */
uint32_t budget_client_slot(const struct budget *b, pid_t pid);

/*
 * May this client make more pages dirty? Each may hold twice what is still free (the dynamic thresholds of Choudhury and Hahne, 1998): one alone
 * gets two thirds, and whoever comes next finds room for its first store. All clients of a user together (NULL: not known) may hold fifteen times what is free: so
 * what they cannot get rid of, as their stores hang, leaves a sixteenth to the other users, however many they are.
 */
static inline bool budget_may_dirty(struct budget *b, uint32_t client, const struct user_count *user)
{
	uint64_t max = atomic_load_explicit(&b->dirty_max, memory_order_relaxed), dirty, kept, own;

	if (max == 0)
		return true;
	dirty = atomic_load_explicit(&b->dirty, memory_order_relaxed);
	kept = atomic_load_explicit(&b->kept, memory_order_relaxed);
	own = atomic_load_explicit(&b->dirty_by[client], memory_order_relaxed);
	dirty = dirty > kept ? dirty - kept : 0;
	return dirty < max && own < 2 * (max - dirty) &&
	       (!user || atomic_load_explicit(&user->dirty, memory_order_relaxed) < 15 * (max - dirty));
}

/*
 * So many pages a client may have mapped that it can store to without a fault. All of them may turn out dirty at once: so it leaves a sixteenth of the memory to others.
 */
static inline uint64_t budget_track_max(struct budget *b) { return atomic_load_explicit(&b->max, memory_order_relaxed) / 16 * 15; }

/* The tenants of a new handle: slots, 0 for none. `cgroup`: its path in the memory hierarchy, "" if not known. Any thread. */
void budget_tenants_of(struct budget *b, uid_t uid, const char *cgroup, uint32_t *ret_user, uint32_t *ret_cgroup);
