/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of a file: their bits, counts and charges, what the policy is told of their pages, and the daemon's window over them.
 *
 * Invariants
 *   - A page is charged from the moment it is being filled or becomes resident until it is forgotten or given up; in the second-chance buffer its
 *     slot is charged.
 *   - dirty, writeback, keep, ahead and pinned are subsets of resident; filling, second and resident do not meet.
 *   - A resident page is in its domain's policy unless it is pinned; one in the second-chance buffer is in the policy, too.
 *   - A block exists while any bit of it is set or someone waits for it; while a block of a 2 MiB chunk exists the chunk is mapped.
 * Runs on the file's worker. May call the block table, domains, policy and util; knows nothing of handles or faults.
 */
#include "daemon/file.h"

#include <assert.h>
#include <string.h>

#include "daemon/cgroup.h"
#include "daemon/domain.h"
#include "daemon/huge.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/reclaim.h"
#include "daemon/saved.h"
#include "daemon/track.h"
#include "daemon/window.h"
#include "daemon/writeback.h"

#define CHUNK_BLOCKS (HOST_CHUNK_SIZE / PGC_BLOCK_SIZE)

/* Another block of the same window chunk, which is mapped while there is one. */
static struct block *chunk_sibling(struct file *f, uint64_t index)
{
	uint64_t first = align_down(index, CHUNK_BLOCKS);
	struct block *b = block_tree_next(&f->blocks, first, false);

	if (b && b->e->index == index)
		b = block_tree_next(&f->blocks, index + 1, false);
	return b && b->e->index < first + CHUNK_BLOCKS ? b : NULL;
}

static struct range chunk_of(uint64_t index)
{
	uint64_t start = align_down(index << BLOCK_SHIFT, HOST_CHUNK_SIZE);

	return (struct range){ start, start + HOST_CHUNK_SIZE };
}

/* Where the daemon's window over the block is. A chunk's page tables are memory, too: one page. */
static char *map_window(struct file *f, uint64_t index)
{
	struct block *sibling = chunk_sibling(f, index);
	struct range chunk = chunk_of(index);
	struct iovec iov;

	if (sibling)
		return sibling->addr + (int64_t)(index - sibling->e->index) * (int64_t)PGC_BLOCK_SIZE;
	if (host_mapper_inc_ref(&f->mapper, chunk) < 0)
		return NULL;
	if (host_mapper_map(&f->mapper, chunk, true, &iov, 1) != 1) {
		f->no_page = true;
		host_mapper_dec_ref(&f->mapper, chunk);
		return NULL;
	}
	budget_charge_tables(f->worker, 1);
	return (char *)iov.iov_base + ((index << BLOCK_SHIFT) - chunk.start);
}

/* The block at `index` is not in the tree. */
static void unmap_window(struct file *f, uint64_t index)
{
	if (chunk_sibling(f, index))
		return;
	host_mapper_dec_ref(&f->mapper, chunk_of(index));
	budget_charge_tables(f->worker, -1);
}

#define BLOCKS_A_PAGE (PAGE_SIZE_ / sizeof(struct block))

/* The private side of a block lies in an array that gets memory as far as it is used. */
static void note_block(struct worker *w, uint32_t n)
{
	if (n < w->blocks_high)
		return;
	budget_charge_tables(w, (int64_t)(n / BLOCKS_A_PAGE) - (int64_t)(w->blocks_high / BLOCKS_A_PAGE) + (w->blocks_high == 0));
	w->blocks_high = n + 1;
}

static struct block *block_make(struct file *f, uint32_t slot, char *addr, const struct toucher *who)
{
	struct worker *w = f->worker;
	struct block *b = &w->blocks[slot - w->block_slots.first];

	note_block(w, slot - w->block_slots.first);
	*b = (struct block){ .e = &w->state->blocks[slot], .file = f, .slot = slot, .addr = addr };
	b->domain = who && who->domain ? who->domain : worker_domain(w);
	list_init(&b->waiters);
	list_init(&b->by_unsynced);
	list_init(&b->by_chunk);
	return b;
}

struct block *file_block(struct file *f, uint64_t index, const struct toucher *who)
{
	struct worker *w = f->worker;
	struct block *b = block_tree_find(&f->blocks, index);
	struct range r = { index << BLOCK_SHIFT, (index + 1) << BLOCK_SHIFT };
	int64_t slot;
	char *addr;

	if (b)
		return b;
	slot = slot_pool_take(&w->block_slots);
	if (slot < 0 && reclaim_slots(w))
		slot = slot_pool_take(&w->block_slots);
	if (slot < 0)
		return NULL;
	addr = map_window(f, index);
	if (!addr) {
		slot_pool_give(&w->block_slots, (uint32_t)slot);
		return NULL;
	}
	b = block_make(f, (uint32_t)slot, addr, who);
	*b->e = (struct pgc_block_entry){ .index = index, .refs = frame_refs_max(&f->refs, r) };
	if (block_tree_insert(&f->blocks, b) < 0) {
		unmap_window(f, index);
		memset(b->e, 0, sizeof(*b->e));
		slot_pool_give(&w->block_slots, (uint32_t)slot);
		return NULL;
	}
	crash_order();
	b->e->file = f->slot;
	w->changes++;
	kill_point("block.made");
	if (who)
		block_set_cgroup(b, who->cgroup);
	return b;
}

void block_set_cgroup(struct block *b, struct pgc_cgroup_entry *cg)
{
	if (b->cgroup || !cg)
		return;
	b->cgroup = cg;
	b->e->cgroup = cg->id;
	b->file->worker->changes++;
	cgroup_count(&cg->resident, (uint64_t)__builtin_popcountll(b->e->resident));
	cgroup_count(&cg->dirty, (uint64_t)__builtin_popcountll(b->e->dirty));
}

static void count_resident(struct block *b, uint64_t pages)
{
	uint64_t n = (uint64_t)__builtin_popcountll(pages & ~b->e->resident);

	b->e->resident |= pages;
	window_show(b);
	kill_point("block.resident_set");
	b->file->e->resident += n;
	b->file->worker->stats->resident += n;
	b->file->worker->changes++;
	if (b->cgroup)
		cgroup_count(&b->cgroup->resident, n);
}

void block_in_policy(struct block *b, uint64_t pages, unsigned flags)
{
	struct worker *w = b->file->worker;
	uint64_t first = block_first(b);

	if (b->file->huge) {
		huge_came(b, pages);
		return;
	}
	for (; pages; pages &= pages - 1) {
		uint64_t page = first + (unsigned)__builtin_ctzll(pages);
		bool refault = false;

		if (policy_insert(b->domain->policy, file_key(b->file, page), flags, &refault) < 0)
			log_at(LOG_LEVEL_ERROR, b->file->e->name, 0, "out of memory: page %llu stays until the file is closed",
			       (unsigned long long)page);
		w->stats->refaults += refault;
	}
}

void block_set_resident(struct block *b, uint64_t pages, unsigned flags)
{
	uint64_t fresh = pages & ~b->e->resident;

	assert((fresh & b->second) == 0);
	if (flags & POLICY_AHEAD)
		b->ahead |= fresh;
	count_resident(b, pages);
	block_in_policy(b, fresh, flags);
}

void block_came_back(struct block *b, uint64_t pages) { count_resident(b, pages); }

void block_touched(struct block *b, uint64_t pages, unsigned flags)
{
	uint64_t ahead = pages & b->ahead, first = block_first(b);

	if (ahead) {
		b->ahead &= ~ahead;
		b->file->worker->stats->readahead_hits += (uint64_t)__builtin_popcountll(ahead);
		window_show(b);
	}
	if (b->file->huge) {
		if (!(flags & POLICY_AHEAD) && !ahead && (pages & b->e->resident))
			huge_touched(b);
		return;
	}
	for (pages &= b->e->resident & ~b->pinned; pages; pages &= pages - 1)
		policy_touch(b->domain->policy, file_key(b->file, first + (unsigned)__builtin_ctzll(pages)), flags);
}

void block_deactivate(struct block *b, uint64_t pages)
{
	uint64_t first = block_first(b);

	if (b->file->huge) {
		huge_deactivate(b);
		return;
	}
	for (pages &= b->e->resident & ~b->pinned; pages; pages &= pages - 1)
		policy_deactivate(b->domain->policy, file_key(b->file, first + (unsigned)__builtin_ctzll(pages)));
}

void block_dirtied_by(struct block *b, const struct toucher *who)
{
	if (((b->e->dirty | b->e->writeback) == 0)) {
		b->dirtier = who->client;
		b->dirty_user = who->user;
	}
}

/* `was` pages of the block were dirty or being written. */
static void count_dirty(struct block *b, uint64_t was)
{
	uint64_t now = b->e->dirty | b->e->writeback;
	int64_t change = __builtin_popcountll(now) - __builtin_popcountll(was);
	struct budget *g = b->file->worker->budget;

	b->file->worker->changes++;
	if (change == 0)
		return;
	atomic_fetch_add_explicit(&g->dirty, (uint64_t)change, memory_order_relaxed);
	atomic_fetch_add_explicit(&g->dirty_by[b->dirtier], (uint64_t)change, memory_order_relaxed);
	if (b->dirty_user)
		atomic_fetch_add_explicit(&b->dirty_user->dirty, (uint64_t)change, memory_order_relaxed);
	if (change < 0)
		b->file->worker->room_made = true;
}

void block_set_dirty(struct block *b, uint64_t pages)
{
	struct file *f = b->file;
	uint64_t n = (uint64_t)__builtin_popcountll(pages & ~b->e->dirty), was = b->e->dirty | b->e->writeback, background;

	if (n == 0)
		return;
	assert((pages & ~b->e->resident) == 0);
	file_stat_hide(f);
	if (b->e->dirty == 0) {
		b->e->dirty_since = now_ns();
		block_tree_tag_dirty(&f->blocks, b->e->index);
		if (f->dirty_since == 0) {
			f->dirty_since = b->e->dirty_since;
			f->e->dirty_since = f->dirty_since;
			writeback_arm_timer(f->worker);
		}
	}
	b->e->dirty |= pages;
	kill_point("block.dirty_set");
	f->e->dirty += n;
	f->worker->stats->dirty += n;
	if (b->cgroup)
		cgroup_count(&b->cgroup->dirty, n);
	count_dirty(b, was);
	background = atomic_load_explicit(&f->worker->budget->dirty_background, memory_order_relaxed);
	if (background && atomic_load_explicit(&f->worker->budget->dirty, memory_order_relaxed) > background)
		reclaim_wake(f->worker);
}

void block_clear_dirty(struct block *b, uint64_t pages)
{
	struct file *f = b->file;
	uint64_t n = (uint64_t)__builtin_popcountll(pages & b->e->dirty), was = b->e->dirty | b->e->writeback;

	if (n == 0)
		return;
	file_stat_hide(f);
	b->e->dirty &= ~pages;
	kill_point("block.dirty_cleared");
	count_dirty(b, was);
	f->e->dirty -= n;
	f->worker->stats->dirty -= n;
	if (b->cgroup)
		cgroup_count(&b->cgroup->dirty, -(int64_t)n);
	if (b->e->dirty == 0) {
		b->e->dirty_since = 0;
		block_tree_untag_dirty(&f->blocks, b->e->index);
	}
	if (f->e->dirty == 0)
		f->dirty_since = f->e->dirty_since = 0;
}

void block_set_writeback(struct block *b, uint64_t pages, bool on)
{
	uint64_t changed = on ? pages & ~b->e->writeback : pages & b->e->writeback;
	uint64_t n = (uint64_t)__builtin_popcountll(changed), was = b->e->dirty | b->e->writeback;

	file_stat_hide(b->file);
	b->e->writeback ^= changed;
	kill_point("block.writeback_set");
	count_dirty(b, was);
	if (on) {
		b->file->e->writeback += n;
		b->file->worker->stats->writeback += n;
	} else {
		b->file->e->writeback -= n;
		b->file->worker->stats->writeback -= n;
	}
}

static void count_keep(struct block *b, uint64_t n, bool on)
{
	b->file->worker->changes++;
	atomic_fetch_add_explicit(&b->file->worker->budget->kept, on ? n : -n, memory_order_relaxed);
	/* Nobody is made to wait for pages that do not become clean. */
	atomic_fetch_add_explicit(&b->file->worker->budget->dirty_by[b->dirtier], on ? -n : n, memory_order_relaxed);
	if (b->dirty_user)
		atomic_fetch_add_explicit(&b->dirty_user->dirty, on ? -n : n, memory_order_relaxed);
	if (on) {
		b->file->e->keep += n;
		b->file->worker->stats->keep += n;
	} else {
		b->file->e->keep -= n;
		b->file->worker->stats->keep -= n;
	}
}

void block_set_keep(struct block *b, uint64_t pages, bool on)
{
	uint64_t changed = on ? pages & ~b->e->keep : pages & b->e->keep;

	b->e->keep ^= changed;
	count_keep(b, (uint64_t)__builtin_popcountll(changed), on);
}

/* The parts of [r.start, r.end) bytes that pgc_keep declared are dirty from the start. */
static int keep_part(void *arg, struct range r, bool keep)
{
	struct block *b = arg;
	uint64_t pages = block_mask(b, r.start / PAGE_SIZE_, page_up(r.end)) & b->e->resident;

	if (keep) {
		block_set_dirty(b, pages);
		block_set_keep(b, pages, true);
	}
	return 0;
}

void block_apply_keep(struct block *b)
{
	if (b->file->kept_bytes > 0)
		dirty_set_walk(&b->file->kept, (struct range){ b->e->index << BLOCK_SHIFT, (b->e->index + 1) << BLOCK_SHIFT },
			       keep_part, b);
}

int block_restore(struct file *f, uint32_t slot, uint64_t resident, uint64_t dirty, uint64_t keep)
{
	struct worker *w = f->worker;
	struct pgc_block_entry *e = &w->state->blocks[slot];
	char *addr = map_window(f, e->index);
	struct block *b;
	uint64_t n;

	if (!addr)
		return -ENOMEM;
	b = block_make(f, slot, addr, NULL);
	if (block_tree_insert(&f->blocks, b) < 0) {
		b->file = NULL;
		unmap_window(f, e->index);
		return -ENOMEM;
	}
	/* The daemon may die here as well: no bit goes that the next one needs. */
	e->dirty |= dirty;
	crash_order();
	e->writeback = 0;
	e->resident = resident;
	e->dirty &= resident;
	e->keep = keep & e->dirty;
	e->refs = 0;
	e->cgroup = 0;
	n = (uint64_t)__builtin_popcountll(resident);
	budget_charge(w, b->domain, n);
	f->e->resident += n;
	w->stats->resident += n;
	b->unknown = resident;
	if (e->dirty) {
		n = (uint64_t)__builtin_popcountll(e->dirty);
		if (e->dirty_since == 0 || e->dirty_since > now_ns())
			e->dirty_since = now_ns();
		f->dirty_since = f->dirty_since ? MIN(f->dirty_since, e->dirty_since) : e->dirty_since;
		f->e->dirty_since = f->dirty_since;
		block_tree_tag_dirty(&f->blocks, e->index);
		f->e->dirty += n;
		w->stats->dirty += n;
		count_dirty(b, 0);
	} else {
		e->dirty_since = 0;
	}
	count_keep(b, (uint64_t)__builtin_popcountll(e->keep), true);
	block_apply_keep(b);
	file_apply_pins(f, b);
	if (f->dirty_since)
		writeback_arm_timer(w);
	block_maybe_free(b);
	return 0;
}

void block_set_unsynced(struct block *b, uint64_t pages)
{
	b->unsynced |= pages;
	if (list_empty(&b->by_unsynced))
		list_append(&b->file->unsynced, &b->by_unsynced);
}

void block_clear_unsynced(struct block *b)
{
	b->unsynced = 0;
	list_remove(&b->by_unsynced);
}

static void not_resident(struct block *b, uint64_t gone)
{
	uint64_t n = (uint64_t)__builtin_popcountll(gone);

	assert((gone & (b->e->writeback | b->e->dirty | b->e->keep | ~b->e->resident)) == 0);
	b->e->resident &= ~gone;
	kill_point("block.resident_cleared");
	b->ahead &= ~gone;
	window_show(b);
	b->unknown &= ~gone;
	b->file->e->resident -= n;
	b->file->worker->stats->resident -= n;
	if (b->cgroup)
		cgroup_count(&b->cgroup->resident, -(int64_t)n);
	budget_uncharge(b->file->worker, b->domain, n);
}

void block_give_up(struct block *b, uint64_t pages)
{
	if (b->cgroup) /* before the last page of it goes: its slot may be another's then */
		cgroup_count(&b->cgroup->reclaimed, (uint64_t)__builtin_popcountll(pages));
	not_resident(b, pages);
}

static void not_in_policy(struct block *b, uint64_t pages)
{
	uint64_t first = block_first(b);

	if (b->file->huge) {
		huge_went(b, pages);
		return;
	}
	for (; pages; pages &= pages - 1)
		policy_remove(b->domain->policy, file_key(b->file, first + (unsigned)__builtin_ctzll(pages)));
}

void block_forget_second(struct block *b, uint64_t pages)
{
	uint64_t first = block_first(b);

	for (pages &= b->second; pages; pages &= pages - 1) {
		policy_key key = file_key(b->file, first + (unsigned)__builtin_ctzll(pages));
		uint32_t slot = policy_slot(b->domain->policy, key);

		policy_remove(b->domain->policy, key);
		domain_put_slot(b->file->worker, b->domain, slot);
		b->second &= ~(pages & -pages);
	}
}

static void count_pinned(struct block *b, uint64_t changed, bool on)
{
	uint64_t n = (uint64_t)__builtin_popcountll(changed);

	b->pinned ^= changed;
	b->file->worker->stats->pinned += on ? n : -n;
}

void block_set_pinned(struct block *b, uint64_t pages, bool on)
{
	uint64_t changed = on ? pages & b->e->resident & ~b->pinned : pages & b->pinned;

	if (on)
		not_in_policy(b, changed);
	b->unknown &= ~changed;
	count_pinned(b, changed, on);
	if (!on)
		block_in_policy(b, changed, 0);
}

void block_forget(struct block *b, uint64_t pages)
{
	uint64_t gone = pages & b->e->resident;

	block_forget_second(b, pages);
	if (gone == 0)
		return;
	assert((gone & b->e->writeback) == 0);
	block_clear_dirty(b, gone);
	block_set_keep(b, gone, false);
	not_in_policy(b, gone & ~b->pinned);
	count_pinned(b, gone & b->pinned, false);
	not_resident(b, gone);
}

void block_tell_policy(struct block *b)
{
	uint64_t pages = b->unknown;

	b->unknown = 0;
	block_in_policy(b, pages, 0);
}

bool block_maybe_free(struct block *b)
{
	struct file *f = b->file;
	struct worker *w = f->worker;
	uint64_t index = b->e->index;

	if (b->e->resident || b->second || b->filling || b->e->writeback || !list_empty(&b->waiters))
		return false;
	block_tree_remove(&f->blocks, b);
	list_remove(&b->by_unsynced);
	list_remove(&b->by_chunk);
	w->changes++;
	kill_point("block.freed");
	unmap_window(f, index);
	b->e->file = 0;
	crash_order();
	memset(b->e, 0, sizeof(*b->e));
	slot_pool_give(&w->block_slots, b->slot);
	w->room_made = true;
	return true;
}

uint64_t block_drop_clean(struct block *b, uint64_t among)
{
	struct file *f = b->file;
	uint64_t pages = among & b->e->resident & ~b->e->dirty & ~b->e->writeback & ~b->e->keep & ~b->pinned;
	uint64_t left = pages, stay, kept = 0, second = (uint64_t)__builtin_popcountll(b->second & among);

	block_forget_second(b, among);
	while (left) {
		unsigned from = (unsigned)__builtin_ctzll(left), n = bits_run(left, from);

		window_hide(f, block_first(b) + from, n);
		if (track_punch(f, block_first(b) + from, n, NULL, &stay) < 0) {
			window_show(b);
			break;
		}
		kill_point("drop.punched");
		stay <<= from;
		block_forget(b, bits_range(from, n) & ~stay);
		left &= ~bits_range(from, n);
		kept |= stay;
		if (stay)
			window_show(b);
	}
	block_maybe_free(b);
	return (uint64_t)__builtin_popcountll(pages & ~left & ~kept) + second;
}

/* --- runs over several blocks --- */

uint64_t file_resident_run(struct file *f, uint64_t page, uint64_t max)
{
	uint64_t n = 0;

	while (n < max) {
		struct block *b = block_tree_find(&f->blocks, (page + n) / PGC_BLOCK_PAGES);
		unsigned bit = (unsigned)((page + n) % PGC_BLOCK_PAGES), run = b ? bits_run(b->e->resident, bit) : 0;

		n += run;
		if (bit + run < 64)
			break;
	}
	return MIN(n, max);
}

uint64_t file_resident_below(struct file *f, uint64_t page, uint64_t max)
{
	uint64_t n = 0;

	while (n < max && n < page) {
		struct block *b = block_tree_find(&f->blocks, (page - n - 1) / PGC_BLOCK_PAGES);
		unsigned bits = (unsigned)((page - n - 1) % PGC_BLOCK_PAGES) + 1, run;
		uint64_t missing = b ? ~b->e->resident << (64 - bits) : ~0ull;

		run = missing ? MIN((unsigned)__builtin_clzll(missing), bits) : bits;
		n += run;
		if (run < bits)
			break;
	}
	return MIN(n, max);
}

void file_used_ahead(struct file *f, uint64_t from, uint64_t to)
{
	for (uint64_t p = from; p < to; p = align_down(p, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES) {
		struct block *b = block_tree_find(&f->blocks, p / PGC_BLOCK_PAGES);
		uint64_t used = b ? b->ahead & block_mask(b, p, to) : 0;

		if (used)
			block_touched(b, used, POLICY_AHEAD);
	}
}
