/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stat(2) shows of a file, and the control page, where clients read it without asking: see file.h and wire.h.
 *
 * Invariant: what is shown there is what STAT would go by at that moment. So it is hidden from before anything of it changes until all of it has changed.
 * Runs on the file's worker. May call what is below file.
 */
#include "daemon/file.h"

#include <string.h>

#include "daemon/kill_point.h"
#include "daemon/track.h"
#include "daemon/written.h"

/* Does the daemon know of all that clients do to the file when it is done, and of the store? Only then they need not ask. */
static bool is_exact(const struct file *f)
{
	return f->state == FILE_READY && f->times.known && !f->taking_over && !track_any_pages(f);
}

static struct pgc_shown shown_now(const struct file *f)
{
	return (struct pgc_shown){ .times = f->times, .size = f->size, .unwritten = f->e->dirty + f->e->writeback, .bits = written_on(f) };
}

/* --- the control page --- */

static bool is_hidden(const struct file *f) { return f->control->stat_seq & 1; }

/* What is done next comes after it, to everybody. */
static void set_hidden(struct file *f)
{
	if (is_hidden(f))
		return;
	__atomic_store_n(&f->control->stat_seq, f->control->stat_seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static void show_later(struct task *t) { file_stat_show(container_of(t, struct file, stat_task)); }

void file_stat_begin(struct file *f)
{
	/* The clock is ahead of every number that an earlier page of the file has come to: each takes longer than a nanosecond. */
	f->control->stat_seq = MAX(f->control->stat_seq, now_ns());
	set_hidden(f);
	f->stat_task.run = show_later;
}

void file_stat_end(struct file *f) { set_hidden(f); }

void file_stat_hide(struct file *f)
{
	if (is_hidden(f))
		return;
	set_hidden(f);
	kill_point("stat.hidden");
	worker_queue(f->worker, &f->stat_task);
}

void file_stat_show(struct file *f)
{
	const struct pgc_shown shown = shown_now(f);
	uint64_t words[sizeof(shown) / sizeof(uint64_t)], *to = (uint64_t *)&f->control->shown;

	list_remove(&f->stat_task.link);
	set_hidden(f);
	if (!is_exact(f))
		return; /* until somebody knows better */
	memcpy(words, &shown, sizeof(words));
	for (size_t i = 0; i < ELEMENTSOF(words); i++)
		__atomic_store_n(&to[i], words[i], __ATOMIC_RELAXED);
	kill_point("stat.written");
	__atomic_store_n(&f->control->stat_seq, f->control->stat_seq + 1, __ATOMIC_RELEASE);
}

/* --- what is shown --- */

void file_stat_shown(const struct file *f, struct store_stat *st)
{
	const struct pgc_shown shown = shown_now(f);

	st->blocks = pgc_show_blocks(&shown, st->blocks);
	st->size = shown.size;
	file_times_show(&f->times, file_times_now(), st, &st->mtime, &st->ctime);
}

int file_stat_overlay(const struct file *f, struct store_stat *st)
{
	if (!f->times.known && !f->taking_over)
		return -ENOENT; /* it is just being opened */
	if (f->times.known && file_times_stale(&f->times, st->ctime)) {
		/* The asker's look was before the last one of our own. */
		st->blocks = MAX(st->blocks, f->version.blocks);
		st->mtime = f->times.left_mtime;
		st->ctime = f->times.left_ctime;
	}
	/* While it is taken over what moved the store's times may well be the dead daemon's writes, and the store has an old size. */
	if (f->state != FILE_READY && !f->taking_over && !file_times_unchanged(&f->times, st->mtime, st->ctime))
		return -ENOENT; /* changed past the cache, which its next open will find out */
	file_stat_shown(f, st);
	return 0;
}
