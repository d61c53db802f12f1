/* SPDX-License-Identifier: Apache-2.0 */
/* See written.h. The memfd: a page with a bit for each PGC_WRITTEN_SPAN words that may have one set, then the words. */
#include "daemon/written.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include "daemon/kept.h"
#include "daemon/kill_point.h"
#include "daemon/window.h"

#define HEADER     (PGC_PAGE_SIZE / sizeof(uint64_t)) /* words */
#define SPAN_PAGES ((uint64_t)PGC_WRITTEN_SPAN * PGC_BLOCK_PAGES)

static uint64_t *word_of(const struct file *f, uint64_t index) { return &f->written.word[HEADER + index]; }

static uint64_t pages_of(uint64_t blocks) { return PGC_WRITTEN_SIZE(blocks) / PAGE_SIZE_; }

int written_reach(struct file *f, uint64_t blocks)
{
	struct written *k = &f->written;
	uint64_t had = k->word ? pages_of(k->blocks) : 0, pages = pages_of(blocks);
	void *p;
	int r;

	if (k->word && blocks <= k->blocks)
		return 0;
	if (!window_may_charge(f, pages - had))
		return -ENOSPC;
	if (k->fd < 0) {
		r = window_make_bits("pagecached-written", 0600);
		if (r < 0)
			return r;
		k->fd = r;
	}
	p = ftruncate(k->fd, (off_t)PGC_WRITTEN_SIZE(blocks)) < 0 ? MAP_FAILED :
	    mmap(NULL, PGC_WRITTEN_SIZE(blocks), PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
	if (p == MAP_FAILED) {
		r = -errno;
		if (!k->word)
			written_free(f);
		return r;
	}
	if (k->word)
		munmap(k->word, PGC_WRITTEN_SIZE(k->blocks));
	k->word = p;
	k->blocks = blocks;
	window_charge(f, (int64_t)(pages - had));
	f->saved->tracked = 1;
	if (!f->worker->track_timer.armed)
		ring_timer_arm(&f->worker->ring, &f->worker->track_timer, TRACK_NS);
	return 0;
}

void written_free(struct file *f)
{
	struct written *k = &f->written;
	char name[FDSTORE_NAME_MAX];

	if (k->kept)
		kept_remove(f->worker, fdstore_name(name, 'w', f->slot), 1, NULL, 0);
	if (k->word) {
		munmap(k->word, PGC_WRITTEN_SIZE(k->blocks));
		window_charge(f, -(int64_t)pages_of(k->blocks));
	}
	if (k->fd >= 0)
		close(k->fd);
	*k = (struct written){ .fd = -1 };
}

void written_end(struct file *f)
{
	written_take(f, 0, UINT64_MAX);
	written_free(f);
}

/* --- looks --- */

/* Who writes so; of several, who began last. */
static const struct toucher *writer(const struct file *f)
{
	const struct window_readers *r, *found = NULL;

	list_for_each(r, &f->readers, by_file)
		found = r->writes ? r : found;
	return found ? found->toucher : NULL;
}

/* Marks, then clears: what is written after the mark and before the write-out is written out. Whether there was anything. */
static bool take_word(struct file *f, uint64_t index, uint64_t among)
{
	uint64_t bits = __atomic_load_n(word_of(f, index), __ATOMIC_ACQUIRE) & among, pages;
	const struct toucher *by;
	struct block *b;

	if (!bits)
		return false;
	b = block_tree_find(&f->blocks, index);
	pages = b ? bits & b->e->resident : 0;
	by = writer(f);
	if (pages && by)
		block_dirtied_by(b, by);
	if (pages)
		block_set_dirty(b, pages);
	kill_point("written.dirty_set");
	__atomic_fetch_and(word_of(f, index), ~bits, __ATOMIC_SEQ_CST);
	kill_point("written.taken");
	return true;
}

/* The words of one bit of the first page, of pages [from, to); `busy`: somebody is writing, and others are to ask. */
static bool take_span(struct file *f, uint64_t span, uint64_t from, uint64_t to, bool busy)
{
	uint64_t bit = 1ull << (span % 64), first = span * SPAN_PAGES, end = MIN(first + SPAN_PAGES, f->written.blocks * PGC_BLOCK_PAGES);
	bool any = false;

	if (!(__atomic_load_n(&f->written.word[span / 64], __ATOMIC_ACQUIRE) & bit))
		return false;
	file_stat_hide(f); /* clients go by that bit */
	if (from <= first && to >= end && !busy)
		__atomic_fetch_and(&f->written.word[span / 64], ~bit, __ATOMIC_SEQ_CST); /* who sets one from here on sets it again */
	from = MAX(from, first);
	to = MIN(to, end);
	for (uint64_t i = from / PGC_BLOCK_PAGES; i * PGC_BLOCK_PAGES < to; i++)
		any |= take_word(f, i, block_part(i, from, to));
	return any;
}

/* The page that a writer's slot names; UINT64_MAX: none. */
static uint64_t named_by(const struct pgc_reader_slot *slot)
{
	uint64_t end = __atomic_load_n(&slot->end, __ATOMIC_ACQUIRE);

	return end & PGC_SLOT_WRITES ? (end & ~PGC_SLOT_WRITES) - 1 : UINT64_MAX;
}

bool written_left(struct file *f, const struct pgc_reader_slot *slot)
{
	bool any = false;

	for (unsigned i = 0; written_on(f) && i < PGC_READER_SLOTS; i++) {
		uint64_t page = named_by(&slot[i]);
		struct block *b = page < file_pages(f) ? block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES) : NULL;

		if (!b)
			continue;
		block_set_dirty(b, b->e->resident & 1ull << (page % PGC_BLOCK_PAGES));
		file_changed(f);
		any = true;
	}
	return any;
}

/* What slots name counts as written. Before the bits are looked at: a slot that was given back has left one. Whether there are any. */
static bool take_slots(struct file *f)
{
	struct window_readers *r;
	bool any = false;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	list_for_each(r, &f->readers, by_file)
		any |= r->writes && written_left(f, r->slot);
	return any;
}

void written_take(struct file *f, uint64_t from, uint64_t to)
{
	bool any = false, busy;

	if (!written_on(f))
		return;
	busy = take_slots(f);
	to = MIN(to < file_pages(f) ? to : UINT64_MAX, f->written.blocks * PGC_BLOCK_PAGES); /* behind the end nobody writes so */
	for (uint64_t span = from / SPAN_PAGES; span * SPAN_PAGES < to; span++)
		any |= take_span(f, span, from, to, busy);
	if (any)
		file_changed(f);
	written_limit(f);
}

uint64_t written_among(struct file *f, uint64_t first, unsigned n)
{
	struct window_readers *r;
	uint64_t stay = 0;
	bool any = false;

	if (!written_on(f))
		return 0;
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* a writer takes its slot and then looks whether the page is shown, we the other way round */
	list_for_each(r, &f->readers, by_file)
		for (unsigned i = 0; r->writes && i < PGC_READER_SLOTS; i++) {
			uint64_t page = named_by(&r->slot[i]);

			stay |= page - first < n ? 1ull << (page - first) : 0;
		}
	/* A slot that was given back has left its bit. */
	for (uint64_t i = first / PGC_BLOCK_PAGES; i * PGC_BLOCK_PAGES < first + n && i < f->written.blocks; i++)
		any |= take_word(f, i, block_part(i, first, first + n));
	if (any)
		file_changed(f);
	for (unsigned i = 0; any && i < n; i++) {
		struct block *b = block_tree_find(&f->blocks, (first + i) / PGC_BLOCK_PAGES);

		stay |= b && (b->e->dirty >> ((first + i) % PGC_BLOCK_PAGES) & 1) ? 1ull << i : 0;
	}
	return stay;
}

void written_limit(struct file *f)
{
	const struct toucher *t = written_on(f) ? writer(f) : NULL;
	uint32_t ask = f->worker->draining || file_is_stuck(f) || (t && !budget_may_dirty(f->worker->budget, t->client, t->user));

	if (__atomic_load_n(&f->control->must_ask, __ATOMIC_RELAXED) != ask)
		__atomic_store_n(&f->control->must_ask, ask, __ATOMIC_SEQ_CST);
}

/* --- a daemon that is gone --- */

void written_restore(struct file *f, int fd)
{
	struct written *k = &f->written;
	struct stat st;
	void *p;

	f->written.fd = fd;
	f->written.kept = true;
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < PGC_WRITTEN_SIZE(1))
		return;
	k->blocks = ((uint64_t)st.st_size - PGC_PAGE_SIZE) / sizeof(uint64_t);
	p = mmap(NULL, PGC_WRITTEN_SIZE(k->blocks), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return;
	k->word = p;
	window_charge(f, (int64_t)pages_of(k->blocks));
}

uint64_t written_bits(const struct file *f, uint64_t index)
{
	if (f->written.fd < 0)
		return 0;
	if (!written_on(f)) /* they cannot be read */
		return ~0ull;
	return index < f->written.blocks ? __atomic_load_n(word_of(f, index), __ATOMIC_ACQUIRE) : 0;
}
