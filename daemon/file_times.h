/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file's mtime and ctime as its clients are to see them. They change when a client changes the file, as with any file; the store's own change when we
 * write out, at some other moment. So the time of the last change is kept, shown in place of the store's, and put back there after a write-out; and what
 * others do to the store's times (utimensat, chmod, a write past the cache) is told from what we did to them.
 *
 * Bookkeeping alone: clocks and what the store says are passed in. Who is right, when a client and somebody past the cache have both set times, is who came
 * later; the store's ctime, which nobody can set, says when that was. The kernel's stamps lag behind the clock by some milliseconds. So somebody who sets an mtime
 * that soon after a client's change may count as earlier: his mtime is lost, but never a change hidden. After a write-out that was waited for there is no
 * change to compare with, and what is set stays in any case.
 */
#pragma once

#include "daemon/store/store.h"

/* `coarse` is what the kernel stamps inodes with, so that files in and past the cache compare; `exact` tells what came first. */
struct file_now { struct timespec coarse, exact; };

struct file_times {
	bool known;                /* the store was looked at */
	bool pending;              /* clients have changed the file since the last look, at: */
	struct timespec changed, order; /* file_now's coarse and exact */
	bool moved;                /* operations of ours have moved the store's times since the last look, none before: */
	struct timespec moved_since; /* coarse */
	struct timespec restoring; /* the mtime that is being put back */
	struct timespec mtime, ctime; /* what was shown at the last look, and stands while the store has: */
	struct timespec left_mtime, left_ctime;
};

struct file_now file_times_now(void);
/* A client has changed the file. */
void file_times_changed(struct file_times *t, struct file_now now);
/* An operation of ours that moves the store's times is about to begin. */
void file_times_moving(struct file_times *t, struct file_now now);
/* What to show, with a stat of the store that need not be the newest one. */
void file_times_show(const struct file_times *t, struct file_now now, const struct store_stat *st, struct timespec *ret_mtime, struct timespec *ret_ctime);
/* The store was looked at. `quiet`: and no operation of ours was under way. */
void file_times_looked(struct file_times *t, struct file_now now, const struct store_stat *st, bool quiet);

/* The mtime that the store should have is to be put back: what to ask of it. */
void file_times_restore(struct file_times *t, struct store_restore *ret);
/* It was done: r->found and r->after are there. */
void file_times_restored(struct file_times *t, struct file_now now, const struct store_restore *r, bool quiet);
/* Is the store as the last look left it? */
bool file_times_unchanged(const struct file_times *t, struct timespec mtime, struct timespec ctime);
/* Is `ctime` older than what the last look has seen? */
bool file_times_stale(const struct file_times *t, struct timespec ctime);
