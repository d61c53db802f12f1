/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file's mtime and ctime as its clients are to see them. They change when a client changes the file, as with any file; the store's own change when we
 * write out, at some other moment. So the time of the last change is kept, shown in place of the store's, and put back there after a write-out; and what
 * others do to the store's times (utimensat, chmod, a write past the cache) is told from what we did to them. Clients who ask nobody read the same (pagecached/shown.h).
 *
 * Bookkeeping alone: clocks and what the store says are passed in. Who is right, when a client and somebody past the cache have both set times, is who came
 * later; the store's ctime, which nobody can set, says when that was. The kernel's stamps lag behind the clock by some milliseconds. So somebody who sets an mtime
 * that soon after a client's change may count as earlier: his mtime is lost, but never a change hidden. After a write-out that was waited for there is no
 * change to compare with, and what is set stays in any case.
 */
#pragma once

#include "daemon/store/store.h"
#include "pagecached/shown.h"

/* `coarse` is what the kernel stamps inodes with, so that files in and past the cache compare; `exact` tells what came first. */
struct file_now { struct timespec coarse, exact; };

struct file_now file_times_now(void);
/* A client has changed the file. */
void file_times_changed(struct pgc_times *t, struct file_now now);
/* An operation of ours that moves the store's times is about to begin. */
void file_times_moving(struct pgc_times *t, struct file_now now);
/* What to show, with a stat of the store that need not be the newest one. */
void file_times_show(const struct pgc_times *t, struct file_now now, const struct store_stat *st, struct timespec *ret_mtime, struct timespec *ret_ctime);
/* The store was looked at. `quiet`: and no operation of ours was under way. */
void file_times_looked(struct pgc_times *t, struct file_now now, const struct store_stat *st, bool quiet);

/* The mtime that the store should have is to be put back: what to ask of it. */
void file_times_restore(struct pgc_times *t, struct store_restore *ret);
/* It was done: r->found and r->after are there. */
void file_times_restored(struct pgc_times *t, struct file_now now, const struct store_restore *r, bool quiet);
/* Is the store as the last look left it? */
bool file_times_unchanged(const struct pgc_times *t, struct timespec mtime, struct timespec ctime);
/* Is `ctime` older than what the last look has seen? */
bool file_times_stale(const struct pgc_times *t, struct timespec ctime);
