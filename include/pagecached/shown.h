/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stat(2) of a cached file is to say, out of what it says of the store: size, blocks and times as they are with what the cache holds. The daemon goes by this in
 * its answers to STAT, and clients do, who find in the control page what the daemon would go by just now (wire.h: stat_seq), so that both say the same.
 *
 * Bookkeeping alone. How the times get there: daemon/file_times.h.
 */
#ifndef PAGECACHED_SHOWN_H
#define PAGECACHED_SHOWN_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* mtime and ctime as clients are to see them, and how to tell what somebody else does to the store's from what the daemon did. */
struct pgc_times {
	bool known;                /* the store was looked at */
	bool pending;              /* clients have changed the file since the last look, at: */
	struct timespec changed, order; /* on the clock that the kernel stamps inodes with, and on the exact one */
	bool moved;                /* operations of the daemon's have moved the store's times since the last look, none before: */
	struct timespec moved_since; /* coarse */
	struct timespec restoring; /* the mtime that is being put back */
	struct timespec mtime, ctime; /* what was shown at the last look, and stands while the store has: */
	struct timespec left_mtime, left_ctime;
};

struct pgc_shown {
	struct pgc_times times;
	uint64_t size;             /* bytes */
	uint64_t unwritten;        /* pages that are dirty or being written */
	uint64_t bits;             /* 1: all this as long as no bit is set that tells of a write that asked nobody (wire.h: WINDOW) */
};
_Static_assert(sizeof(struct timespec) == 16 && sizeof(struct pgc_shown) == 168, "layout of pgc_shown");

static inline bool pgc_same_time(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }
/* -1: a is earlier, 1: later. */
static inline int pgc_compare_times(struct timespec a, struct timespec b)
{
	if (a.tv_sec != b.tv_sec)
		return a.tv_sec < b.tv_sec ? -1 : 1;
	return a.tv_nsec < b.tv_nsec ? -1 : a.tv_nsec > b.tv_nsec;
}

/* Can an operation that was issued at `since` or later, and has ended by `now`, have left this mtime? File systems may keep whole seconds, or two of them. */
static inline bool pgc_mtime_within(struct timespec mtime, struct timespec since, struct timespec now)
{
	if (mtime.tv_nsec == 0)
		return mtime.tv_sec >= since.tv_sec - 1 && mtime.tv_sec <= now.tv_sec;
	return pgc_compare_times(mtime, since) >= 0 && pgc_compare_times(mtime, now) <= 0;
}

/*
 * When a change was, on the clock that the kernel stamps inodes with, after one that the file shows for `ctime`. A stamp may be ahead of that clock's last tick, where somebody
 * had looked at it (multigrain timestamps, Linux 6.13); the next one is not before it, then.
 */
static inline struct timespec pgc_change_after(struct timespec changed, struct timespec exact, struct timespec ctime)
{
	return pgc_compare_times(ctime, changed) > 0 && pgc_compare_times(ctime, exact) <= 0 ? ctime : changed;
}

/*
 * Turns the store's times into those to show; `now`: on the exact clock, after the store was asked. `newest`: no look was later, so that any difference is news, also
 * after a step back of the clock.
 */
static inline void pgc_show_times(const struct pgc_times *t, struct timespec now, bool newest, struct timespec *mtime, struct timespec *ctime)
{
	const struct timespec stored_mtime = *mtime, stored_ctime = *ctime;
	struct timespec changed;
	int later = pgc_compare_times(stored_ctime, t->left_ctime);
	bool touched = newest ? later != 0 : later > 0, set = touched && !pgc_same_time(stored_mtime, t->left_mtime);

	if (!t->known)
		return;
	if (t->moved) /* the store's ctime is ours then, and so is an mtime that a write of ours can have left */
		touched = set = set && !pgc_same_time(stored_mtime, t->restoring) && !pgc_mtime_within(stored_mtime, t->moved_since, now);
	*mtime = set ? stored_mtime : t->mtime;
	*ctime = touched ? stored_ctime : t->ctime;
	if (!t->pending)
		return;
	changed = pgc_change_after(t->changed, t->order, *ctime);
	if (!set || pgc_compare_times(t->order, stored_ctime) >= 0)
		*mtime = changed;
	if (pgc_compare_times(changed, *ctime) > 0)
		*ctime = changed;
}

/* Blocks of 512 bytes. What is not written yet may come to lie on what the store has, or where it has a hole: no more than a file without holes has. */
static inline uint64_t pgc_show_blocks(const struct pgc_shown *s, uint64_t stored)
{
	uint64_t pages = (s->size >> 12) + ((s->size & 4095) != 0), most = stored > pages * 8 ? stored : pages * 8, all = stored + s->unwritten * 8;

	return all < most ? all : most;
}

#endif
