/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of a worker against what it has, and what it counts against its blocks. Entries are gone through in order, as if they were one table: blocks, files,
 * mappings, handles. Counts of all steps together are of one moment only if nothing has changed meanwhile, which worker->changes tells.
 */
#include <string.h>

#include "daemon/attach.h"
#include "daemon/check.h"
#include "daemon/check_compare.h"
#include "daemon/saved.h"

#define ENTRIES_A_STEP 8192u
#define USED_A_STEP    512u          /* entries that are in use take longer */

static uint64_t ones(uint64_t bits) { return (uint64_t)__builtin_popcountll(bits); }

/* The file that slot `slot` of `files` stands for, on this worker. */
static struct file *file_at(const struct worker *w, uint32_t slot)
{
	uint32_t n = slot - w->file_slots.first;

	return n < w->file_slots.count ? w->file_of[n] : NULL;
}

/* A file of a daemon that is gone, whose memory is still to come. */
static bool is_awaited(struct worker *w, uint32_t slot)
{
	return slot - w->file_slots.first < w->file_slots.count && attach_awaits(w, slot, false);
}

static void check_block_bits(struct check *c, const struct file *f, const struct block *b)
{
	const struct pgc_block_entry *e = b->e;
	uint64_t last = file_pages(f), first = block_first(b), wrong;
	struct check_bits bits = {
		.resident = e->resident, .dirty = e->dirty, .writeback = e->writeback, .keep = e->keep, .filling = b->filling, .second = b->second,
		.ahead = b->ahead, .pinned = b->pinned, .beyond = block_mask(b, MAX(last, first), ~0ull),
		.shown = e->index < f->shown.blocks ? f->shown.word[e->index] : 0,
	};

	wrong = check_bits_wrong(&bits);
	if (wrong)
		check_differs(c, PGC_DIFFERS_BITS, f, first, first + PGC_BLOCK_PAGES, e->resident, wrong);
	/* A write-out finds dirty blocks by their tags. */
	b = block_tree_next(&f->blocks, e->index, true);
	if ((e->dirty != 0) != (b && b->e->index == e->index))
		check_differs(c, PGC_DIFFERS_BITS, f, first, first + PGC_BLOCK_PAGES, e->dirty, e->dirty);
}

/* The functions for an entry return whether it is in use. */
static bool check_block(struct check *c, uint32_t slot)
{
	struct worker *w = c->worker;
	const struct pgc_block_entry *e = &w->state->blocks[slot];
	struct block *b = &w->blocks[slot - w->block_slots.first];
	struct file *f = file_at(w, e->file);
	uint64_t start = e->index << BLOCK_SHIFT;
	uint32_t refs;

	if (e->file == 0)
		return false;
	check_count(c, PGC_COUNT_WORKER_USE, 0, w->id, (uint64_t[4]){ 0, 1, 0, 0 });
	if (!f && is_awaited(w, e->file))
		return true;
	if (!f || b->file != f || block_tree_find(&f->blocks, e->index) != b) {
		check_differs(c, PGC_DIFFERS_BLOCK, f, e->index, e->index + 1, slot, 0);
		return true;
	}
	check_block_bits(c, f, b);
	refs = frame_refs_max(&f->refs, (struct range){ start, start + PGC_BLOCK_SIZE });
	if (e->refs != refs)
		check_differs(c, PGC_DIFFERS_REFERENCES, f, start, start + PGC_BLOCK_SIZE, e->refs, refs);
	if ((b->cgroup ? b->cgroup->id : 0) != e->cgroup)
		check_differs(c, PGC_DIFFERS_BLOCK, f, e->index, e->index + 1, slot, 0);
	check_count(c, PGC_COUNT_FILE, f->slot, 0, (uint64_t[4]){ ones(e->resident), ones(e->dirty), ones(e->writeback), ones(e->keep) });
	check_count(c, PGC_COUNT_WORKER, 0, w->id, (uint64_t[4]){ ones(e->resident), ones(e->dirty), ones(e->writeback), ones(e->keep) });
	check_count(c, PGC_COUNT_WORKER_USE, 0, w->id, (uint64_t[4]){ ones(e->resident | b->filling), 0, 0, 0 });
	check_count(c, PGC_COUNT_BUDGET, 0, 0, (uint64_t[4]){ 0, ones(e->dirty | e->writeback), 0, 0 });
	if (b->cgroup)
		check_count(c, PGC_COUNT_CGROUP, 0, b->cgroup->id, (uint64_t[4]){ ones(e->resident), ones(e->dirty), 0, 0 });
	return true;
}

static bool check_file_entry(struct check *c, uint32_t slot)
{
	struct worker *w = c->worker;
	const struct pgc_file_entry *e = &w->state->files[slot];
	const struct pgc_saved_file *s = &w->state->saved_files[slot];
	struct file *f = file_at(w, slot);

	if (slot == 0 || (!f && is_awaited(w, slot)))
		return false;
	if (f ? e->file != slot || e->worker != w->id || e->dev != f->dev || e->ino != f->ino : e->file != 0)
		check_differs(c, PGC_DIFFERS_FILE_ENTRY, f, slot, slot + 1, 0, 0);
	if (!f && s->file != 0)
		check_differs(c, PGC_DIFFERS_FILE_RECORD, f, slot, slot + 1, 0, 0);
	if (f)
		check_count(c, PGC_SHOWN_FILE, slot, 0, (uint64_t[4]){ e->resident, e->dirty, e->writeback, e->keep });
	return f;
}

static bool check_mapping_entry(struct check *c, uint32_t slot)
{
	struct worker *w = c->worker;
	const struct pgc_mapping_entry *e = &w->state->mappings[slot];

	if (e->file == 0)
		return false;
	check_count(c, PGC_COUNT_WORKER_USE, 0, w->id, (uint64_t[4]){ 0, 0, 1, 0 });
	if (!file_at(w, e->file) && !is_awaited(w, e->file))
		check_differs(c, PGC_DIFFERS_MAPPINGS, NULL, e->start, e->end, e->refs, 0);
	return true;
}

static bool check_handle_entry(struct check *c, uint32_t slot)
{
	if (c->worker->state->saved_handles[slot].file == 0)
		return false;
	check_count(c, PGC_COUNT_WORKER_USE, 0, c->worker->id, (uint64_t[4]){ 0, 0, 0, 1 });
	return true;
}

/* Records of handles that are here, or are waited for. */
static uint64_t records_in_use(struct worker *w)
{
	uint64_t n = attach_awaited_handles(w);
	struct space *s;

	list_for_each(s, &w->spaces, by_worker)
		n += s->saved && s->saved->file != 0;
	return n;
}

static void show_worker(struct check *c)
{
	struct worker *w = c->worker;
	const struct pgc_stats_entry *st = w->stats;
	uint64_t charged = 0, second = 0, mappings = 0;
	struct domain *d;
	struct file *f;

	list_for_each(d, &w->domains, link) {
		charged += d->used;
		second += d->second_touched;
	}
	list_for_each(f, &w->all_files, by_worker)
		mappings += f->n_ref_slots;
	if (charged != w->used)
		check_differs(c, PGC_DIFFERS_CHARGES, NULL, w->id, w->id + 1, charged, w->used);
	check_count(c, PGC_SHOWN_WORKER, 0, w->id, (uint64_t[4]){ st->resident, st->dirty, st->writeback, st->keep });
	check_count(c, PGC_SHOWN_WORKER_USE, 0, w->id, (uint64_t[4]){
		w->used - second, w->block_slots.count - (w->block_slots.first == 0) - w->block_slots.n_free, mappings, records_in_use(w),
	});
	check_count(c, PGC_COUNT_BUDGET, 0, 0, (uint64_t[4]){ w->used, 0, 0, 0 });
}

void check_tables(struct check *c)
{
	struct worker *w = c->worker;
	const struct {
		const struct slot_pool *pool;
		bool (*entry)(struct check *c, uint32_t slot);
	} table[] = {
		{ &w->block_slots, check_block },
		{ &w->file_slots, check_file_entry },
		{ &w->mapping_slots, check_mapping_entry },
		{ &w->handle_slots, check_handle_entry },
	};
	uint64_t at = c->request.from, first = 0;
	unsigned left = ENTRIES_A_STEP, used = 0;

	for (size_t i = 0; i < ELEMENTSOF(table); first += table[i].pool->count, i++)
		for (; at < first + table[i].pool->count; at++) {
			if (left-- == 0 || used == USED_A_STEP) {
				c->end.next = at;
				return;
			}
			used += table[i].entry(c, table[i].pool->first + (uint32_t)(at - first));
		}
	show_worker(c);
}
