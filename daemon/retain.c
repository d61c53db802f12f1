/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retention by mappings (retain=mapped). The rule is by range: as soon as no mapping of a range of the file is left, what is dirty there is written, and then its
 * memory is given back; it counts block by block (256 KiB), so what shares a block with a mapped page stays. That happens with the unmap, not only when the last
 * handle goes: pages that only read and write calls brought in have no mapping, and live until the next unmap around them, at the latest until the last handle
 * goes, with which all of the file is freed (file_maybe_idle).
 *
 * Nothing is dropped that was not written. Where the store takes no writes, the pages stay, the timer tries them again, and they go after that.
 * In file: `unmapped_from`, `unmapped_to` are the pages still to be looked at; file_maybe_idle() queues `retain_task` for them whenever something that was in
 * flight has ended.
 * Runs on the file's worker. May call file and writeback.
 */
#include "daemon/retain.h"

#include "daemon/writeback.h"

/* Is there anything to be written in [from, to) that no mapping covers? */
static bool dirty_unmapped(struct file *f, uint64_t from, uint64_t to)
{
	uint64_t index = from / PGC_BLOCK_PAGES;

	for (struct block *b; (b = block_tree_next(&f->blocks, index, true)) && block_first(b) < to; index = b->e->index + 1)
		if (b->e->refs == 0 && (b->e->dirty & ~b->e->keep))
			return true;
	return false;
}

static void forget_range(struct file *f) { f->unmapped_from = f->unmapped_to = 0; }

static void written(struct sync_dirty *s, int error)
{
	struct file *f = s->file;

	free(s);
	f->retain_busy = false;
	(void)file_drop_clean(f, f->unmapped_from, f->unmapped_to, true);
	/* The failed write may have been another write-out's; the range stays noted then. Else, what has become dirty meanwhile is somebody's new use of it. */
	if (!error && !(f->last_error && dirty_unmapped(f, f->unmapped_from, f->unmapped_to)))
		forget_range(f);
}

static void look(struct task *t)
{
	struct file *f = container_of(t, struct file, retain_task);
	struct sync_dirty *s;

	/* What is being read in is dropped when it is here. */
	if (f->unmapped_to == 0 || f->retain_busy || !list_empty(&f->fills))
		return;
	/* A page in writeback counts as clean until that has failed: it is waited for in the same way. */
	if (dirty_unmapped(f, f->unmapped_from, f->unmapped_to) || writeback_in_flight(f, f->unmapped_from, f->unmapped_to)) {
		if (f->last_error || !f->store)
			return; /* writing is the timer's until it goes well again */
		s = calloc(1, sizeof(*s));
		if (!s)
			return;
		f->retain_busy = true;
		sync_dirty_range(s, f, f->unmapped_from, MIN(f->unmapped_to, file_pages(f)), written);
		return;
	}
	(void)file_drop_clean(f, f->unmapped_from, f->unmapped_to, true);
	forget_range(f);
}

void retain_unmapped(struct file *f, struct range r)
{
	uint64_t from = align_down(page_down(r.start), PGC_BLOCK_PAGES), to = align_up(page_up(r.end), PGC_BLOCK_PAGES);

	if (f->retain != RETAIN_MAPPED || from >= to)
		return;
	f->unmapped_from = f->unmapped_to ? MIN(f->unmapped_from, from) : from;
	f->unmapped_to = MAX(f->unmapped_to, to);
	f->retain_task.run = look;
	worker_queue(f->worker, &f->retain_task);
}
