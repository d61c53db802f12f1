/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See file_times.h. Invariants
 *   - A change by a client is shown from the moment it is made, and is never lost to an mtime that a write-out of ours left.
 *   - An mtime that somebody has set past the cache stays, unless a client changed the file after it. Not so for one that is set between a write-out and the
 *     look that follows it, if it lies in that time, too: it cannot be told from ours.
 * Any thread that owns the file. May call util.
 */
#include "daemon/file_times.h"

#include "daemon/util/util.h"

struct file_now file_times_now(void)
{
	struct file_now now;

	clock_gettime(CLOCK_REALTIME_COARSE, &now.coarse);
	clock_gettime(CLOCK_REALTIME, &now.exact);
	return now;
}

void file_times_changed(struct pgc_times *t, struct file_now now)
{
	t->pending = true;
	t->changed = t->known ? pgc_change_after(now.coarse, now.exact, t->ctime) : now.coarse;
	t->order = now.exact;
}

void file_times_moving(struct pgc_times *t, struct file_now now)
{
	if (t->moved)
		return;
	t->moved = true;
	t->moved_since = now.coarse;
}

static void show(const struct pgc_times *t, struct file_now now, const struct store_stat *st, bool newest, struct timespec *ret_mtime, struct timespec *ret_ctime)
{
	struct timespec mtime = st->mtime, ctime = st->ctime;

	pgc_show_times(t, now.exact, newest, &mtime, &ctime);
	*ret_mtime = mtime; /* may be t's own */
	*ret_ctime = ctime;
}

void file_times_show(const struct pgc_times *t, struct file_now now, const struct store_stat *st, struct timespec *ret_mtime, struct timespec *ret_ctime)
{
	show(t, now, st, false, ret_mtime, ret_ctime);
}

void file_times_looked(struct pgc_times *t, struct file_now now, const struct store_stat *st, bool quiet)
{
	show(t, now, st, true, &t->mtime, &t->ctime);
	t->pending = t->pending && !t->known; /* what is shown has it from here on */
	t->known = true;
	t->left_mtime = st->mtime;
	t->left_ctime = st->ctime;
	t->moved = t->moved && !quiet;
}

void file_times_restore(struct pgc_times *t, struct store_restore *ret)
{
	t->restoring = t->pending ? t->changed : t->mtime;
	*ret = (struct store_restore){ .to = t->restoring, .since = t->moved_since, .left = t->left_mtime };
}

void file_times_restored(struct pgc_times *t, struct file_now now, const struct store_restore *r, bool quiet)
{
	bool pending = t->pending && !same_time(t->changed, r->to); /* a client was here meanwhile */
	struct timespec mtime, ctime;

	show(t, now, &r->found, true, &mtime, &ctime);
	t->mtime = mtime;
	t->ctime = ctime;
	t->pending = pending;
	t->left_mtime = r->after.mtime;
	t->left_ctime = r->after.ctime;
	t->moved = t->moved && !quiet;
	t->restoring = (struct timespec){ 0 };
}

bool file_times_unchanged(const struct pgc_times *t, struct timespec mtime, struct timespec ctime)
{
	return same_time(mtime, t->left_mtime) && same_time(ctime, t->left_ctime);
}

bool file_times_stale(const struct pgc_times *t, struct timespec ctime) { return compare_times(ctime, t->left_ctime) < 0; }
