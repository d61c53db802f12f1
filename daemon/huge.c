/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Huge pages: which of them are here, and giving them up. See huge.h.
 *
 * The policy knows nothing of them. What clients do with 2 MiB that are mapped cannot be seen, so a domain has them in the order in which they came; one that
 * was asked for again since has a second turn.
 *
 * Unlike with small pages, bits go before the memory does: nobody can say afterwards what of the memfd is there (it has no SEEK_DATA), so a daemon that takes over
 * punches all that has no bits.
 *
 * Runs on the file's worker. May call file, block, window and util; and reads the file's list of fills.
 */
#include "daemon/huge.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "daemon/cgroup.h"
#include "daemon/fill.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/window.h"

#define LOOKED_AT_MAX 64u            /* in one go */
#define AUDITED_MAX   64u            /* likewise */

static struct block *head_of(const struct block *b) { return block_tree_find(&b->file->blocks, align_down(b->e->index, HUGE_BLOCKS)); }

static bool is_head(const struct block *b) { return b->e->index % HUGE_BLOCKS == 0; }

void huge_came(struct block *b, uint64_t pages)
{
	b->domain->huge += (uint64_t)__builtin_popcountll(pages);
	if (pages && is_head(b) && list_empty(&b->by_chunk))
		list_append(&b->domain->chunks, &b->by_chunk);
}

void huge_went(struct block *b, uint64_t pages)
{
	/* Of those that are unknown it was not told yet. */
	b->domain->huge -= (uint64_t)__builtin_popcountll(pages & ~b->unknown);
	if (pages && is_head(b))
		list_remove(&b->by_chunk);
}

void huge_touched(struct block *b)
{
	struct block *head = head_of(b);

	if (head)
		head->used = true;
}

void huge_deactivate(struct block *b)
{
	struct block *head = head_of(b);

	if (!head || list_empty(&head->by_chunk))
		return;
	head->used = false;
	list_remove(&head->by_chunk);
	list_insert_before(head->domain->chunks.next, &head->by_chunk);
}

/* --- giving up --- */

static void note_unused(struct block *b)
{
	uint64_t wasted = (uint64_t)__builtin_popcountll(b->ahead);

	b->file->worker->stats->readahead_wasted += wasted;
	b->file->wasted += wasted;
}

/* What was set aside stays so without the window, until there was something in it and has gone. */
void huge_release(struct file *f, uint64_t first)
{
	(void)fallocate(f->memfd, FALLOC_FL_KEEP_SIZE, (off_t)(first * PAGE_SIZE_), (off_t)HOST_CHUNK_SIZE);
	(void)file_punch(f, first, HUGE_PAGES);
}

/* What of [first, first + HUGE_PAGES) is resident goes. Returns how many pages less are charged. */
static uint64_t drop(struct file *f, uint64_t first)
{
	uint64_t n = 0;

	window_hide(f, first, HUGE_PAGES);
	for (uint64_t i = 0; i < HUGE_BLOCKS; i++) {
		struct block *b = block_tree_find(&f->blocks, first / PGC_BLOCK_PAGES + i);

		if (!b || b->filling)
			continue;
		n += (uint64_t)__builtin_popcountll(b->e->resident);
		note_unused(b);
		block_forget(b, ~0ull);
		block_maybe_free(b);
	}
	kill_point("huge.forgotten");
	(void)file_punch(f, first, HUGE_PAGES);
	kill_point("huge.punched");
	return n;
}

static bool may_go(const struct file *f, uint64_t first, bool unmapped)
{
	for (uint64_t i = 0; i < HUGE_BLOCKS; i++) {
		const struct block *b = block_tree_find(&f->blocks, first / PGC_BLOCK_PAGES + i);

		if (b && (b->filling || b->pinned || (unmapped && b->e->refs > 0)))
			return false;
	}
	return true;
}

uint64_t huge_give_up(struct domain *d, uint64_t pages)
{
	uint64_t freed = 0;
	struct block *b;

	for (unsigned i = 0; i < LOOKED_AT_MAX && freed < pages && (b = list_first(&d->chunks, struct block, by_chunk)); i++) {
		struct file *f = b->file;

		if (!b->used && may_go(f, block_first(b), false)) {
			if (b->cgroup)
				cgroup_count(&b->cgroup->reclaimed, HUGE_PAGES);
			f->worker->stats->reclaimed += HUGE_PAGES;
			freed += drop(f, block_first(b));
			continue;
		}
		b->used = false;
		list_remove(&b->by_chunk);
		list_append(&d->chunks, &b->by_chunk);
	}
	return freed;
}

uint64_t huge_drop(struct file *f, uint64_t from, uint64_t to, bool unmapped)
{
	uint64_t dropped = 0, page = align_up(from, HUGE_PAGES);
	struct block *b;

	while ((b = block_tree_next(&f->blocks, page / PGC_BLOCK_PAGES, false))) {
		page = align_down(block_first(b), HUGE_PAGES);
		if (to < MIN(page + HUGE_PAGES, f->size / PAGE_SIZE_))
			break;
		if (may_go(f, page, unmapped))
			dropped += drop(f, page);
		page += HUGE_PAGES;
	}
	return dropped;
}

void huge_forget_from(struct file *f, uint64_t page)
{
	struct block *b;

	f->fill_gen++; /* what is being read there does not count, whose memory may go with the rest */
	page = align_down(page, HUGE_PAGES);
	while ((b = block_tree_next(&f->blocks, page / PGC_BLOCK_PAGES, false))) {
		page = align_down(block_first(b), HUGE_PAGES);
		(void)drop(f, page);
		page += HUGE_PAGES;
	}
}

/* --- memory that clients made --- */

static uint64_t pages_there(const struct file *f)
{
	struct stat st;

	return fstat(f->memfd, &st) < 0 ? 0 : (uint64_t)st.st_blocks / (PAGE_SIZE_ / 512);
}

void huge_audit(struct file *f)
{
	uint64_t ours = f->e->resident;
	struct fill *fill;

	list_for_each(fill, &f->fills, link)
		ours += HUGE_PAGES;
	if (pages_there(f) <= ours)
		return;
	if (!f->stray_logged)
		log_at(LOG_LEVEL_WARNING, f->e->name, 0, "a client made huge pages of its own in the cache's memory: they are dropped");
	f->stray_logged = true;
	for (unsigned i = 0; i < AUDITED_MAX; i++) {
		uint64_t page = f->stray_cursor < file_pages(f) ? f->stray_cursor : 0;
		struct block *b = block_tree_next(&f->blocks, page / PGC_BLOCK_PAGES, false);

		if (!b || block_first(b) >= page + HUGE_PAGES)
			(void)file_punch(f, page, HUGE_PAGES);
		f->stray_cursor = page + HUGE_PAGES;
	}
}

/* --- taking over --- */

static bool is_whole(const struct file *f, uint64_t first)
{
	for (uint64_t i = 0; i < HUGE_BLOCKS; i++) {
		const struct block *b = block_tree_find(&f->blocks, first / PGC_BLOCK_PAGES + i);

		if (!b || ~b->e->resident)
			return false;
	}
	return true;
}

void huge_settle(struct file *f)
{
	uint64_t page = 0, end = file_pages(f), gap = 0;
	struct block *b;

	while ((b = block_tree_next(&f->blocks, page / PGC_BLOCK_PAGES, false))) {
		page = align_down(block_first(b), HUGE_PAGES);
		if (!is_whole(f, page)) {
			(void)drop(f, page);
			page += HUGE_PAGES;
			continue;
		}
		if (gap < page)
			(void)file_punch(f, gap, page - gap);
		page += HUGE_PAGES;
		gap = page;
	}
	if (gap < end)
		(void)file_punch(f, gap, end - gap);
	kill_point("huge.rest_punched");
	if (pages_there(f) == f->e->resident)
		return;
	log_at(LOG_LEVEL_WARNING, f->e->name, 0, "its memory is not what was said of it: all of it is read again");
	huge_forget_from(f, 0);
}
