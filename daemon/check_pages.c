/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A window of a file's pages, in one round of its worker: what the memfd has against what is resident, then what clients have mapped of it.
 *
 * SEEK_DATA tells pages with content, swapped ones too, but not those that fallocate(2) made and nobody has touched, which are zeros that the daemon made: where a
 * page seems to be missing cachestat(2) is asked. Where that is not to be had such pages count as skipped.
 *
 * Page tables are read on an offload thread while the worker goes on. As long as it has begun no write-out, given no page up, cut nothing and heard of no change of
 * mappings, a page can only become resident, and dirty before it is writable: what is wrong then was so at the moment of the look. Else it is looked at again.
 */
#include <sys/stat.h>
#include <sys/syscall.h>

#include "daemon/check.h"
#include "daemon/check_look.h"
#include "daemon/fault.h"
#include "daemon/kernel_compat.h"

/* What must not have changed since the bits were copied. */
struct moment { uint64_t writes, fills, punched, size, maps; };

struct pages_step {
	struct check *c;
	struct file *f;
	uint64_t index;            /* the window's first block */
	unsigned tries;
	struct moment moment;
	struct check_look look;
};

static struct moment moment_of(const struct file *f)
{
	return (struct moment){ f->write_seq, f->fill_gen, f->worker->stats->punched_pages, f->size, f->maps_changes };
}

static bool same_moment(struct moment a, struct moment b)
{
	return a.writes == b.writes && a.fills == b.fills && a.punched == b.punched && a.size == b.size && a.maps == b.maps;
}

/* --- the memfd --- */

/* Pages of the memfd in [first, first + n), in whatever state. -errno: cannot be told. */
static int64_t pages_allocated(const struct file *f, uint64_t first, uint64_t n)
{
	struct { uint64_t off, len; } range = { first * PAGE_SIZE_, n * PAGE_SIZE_ };
	struct { uint64_t cache, dirty, writeback, evicted, recently_evicted; } stat;

	if (syscall(SYS_cachestat, f->memfd, &range, &stat, 0) < 0)
		return -errno;
	return (int64_t)(stat.cache + stat.evicted);
}

static uint64_t pages_with_data(const struct file *f, uint64_t first)
{
	off_t at = (off_t)(first * PAGE_SIZE_), end = at + (off_t)PGC_BLOCK_SIZE;
	uint64_t pages = 0;

	while (at < end) {
		off_t data = lseek(f->memfd, at, SEEK_DATA), hole;
		uint64_t from, to;

		if (data < 0 || data >= end)
			break;
		hole = lseek(f->memfd, data, SEEK_HOLE);
		at = hole < 0 || hole > end ? end : (off_t)align_up((uint64_t)hole, PAGE_SIZE_);
		from = (uint64_t)data / PAGE_SIZE_ - first;
		to = (uint64_t)at / PAGE_SIZE_ - first;
		pages |= bits_range((unsigned)from, (unsigned)(to - from));
	}
	return pages;
}

static void report_runs(struct pages_step *s, enum pgc_check_kind kind, uint64_t first, uint64_t pages)
{
	while (pages) {
		unsigned from = (unsigned)__builtin_ctzll(pages), n = bits_run(pages, from);

		check_differs(s->c, kind, s->f, first + from, first + from + n, 0, 0);
		pages &= ~bits_range(from, n);
	}
}

static void compare_block(struct pages_step *s, uint64_t index)
{
	struct file *f = s->f;
	struct block *b = block_tree_find(&f->blocks, index);
	uint64_t first = index * PGC_BLOCK_PAGES, resident = b ? b->e->resident : 0, filling = b ? b->filling : 0;
	uint64_t data = f->huge ? resident : pages_with_data(f, first), stray = data & ~(resident | filling), missing = 0, left;
	int64_t n;

	if (f->huge) { /* compare_huge() */
		s->c->end.pages += (uint64_t)__builtin_popcountll(resident);
		return;
	}
	for (left = resident & ~data; left; left &= left - 1) {
		n = pages_allocated(f, first + (unsigned)__builtin_ctzll(left), 1);
		missing |= n == 0 ? left & -left : 0;
		s->c->end.skipped += n < 0;
	}
	s->c->end.pages += (uint64_t)__builtin_popcountll(resident);
	report_runs(s, PGC_DIFFERS_MISSING, first, missing);
	report_runs(s, PGC_DIFFERS_STRAY, first, stray);
	/* Untouched pages besides, which show by their number only; what is being read in may be there or not. */
	n = filling ? -1 : pages_allocated(f, first, PGC_BLOCK_PAGES);
	if (n > __builtin_popcountll(data | (resident & ~missing)))
		check_differs(s->c, PGC_DIFFERS_STRAY, f, first, first + PGC_BLOCK_PAGES, (uint64_t)n,
			      (uint64_t)__builtin_popcountll(resident & ~missing));
}

/* Of huge pages no more can be told than how many there are in all. */
static void compare_huge(struct check *c, struct file *f)
{
	uint64_t n;
	struct stat st;

	if (!list_empty(&f->fills) || fstat(f->memfd, &st) < 0)
		return;
	n = (uint64_t)st.st_blocks / (PAGE_SIZE_ / 512);
	if (n != f->e->resident)
		check_differs(c, n > f->e->resident ? PGC_DIFFERS_STRAY : PGC_DIFFERS_MISSING, f, 0, file_pages(f), n, f->e->resident);
}

/* The block at or after `index` where there is something: of ours, or in the memfd. */
static bool next_index(const struct file *f, uint64_t index, uint64_t *ret)
{
	struct block *b = block_tree_next(&f->blocks, index, false);
	off_t data = f->huge ? -1 : lseek(f->memfd, (off_t)(index << BLOCK_SHIFT), SEEK_DATA);
	uint64_t next = MIN(b ? b->e->index : UINT64_MAX, data >= 0 ? (uint64_t)data >> BLOCK_SHIFT : UINT64_MAX);

	if (next == UINT64_MAX)
		return false;
	*ret = next;
	return true;
}

/* --- clients --- */

struct gathering { struct pages_step *s; struct space *space; };

static int gather_segment(void *arg, struct range r, uint64_t off, uint64_t attr)
{
	struct gathering *g = arg;
	struct check_look *l = &g->s->look;
	uint64_t first = off / PAGE_SIZE_, end = first + (r.end - r.start) / PAGE_SIZE_;
	uint64_t from = MAX(first, l->first), to = MIN(end, l->first + CHECK_LOOK_BLOCKS * PGC_BLOCK_PAGES);

	if (from >= to)
		return 0;
	if (g->space->pid <= 0 || l->n_parts == CHECK_LOOK_MAX) {
		g->s->c->end.skipped++;
		return 0;
	}
	l->part[l->n_parts++] = (struct check_part){
		.pid = g->space->pid, .tracked = attr & SEG_SHARED, .async = tracker_on(&g->space->tracker), .addr = r.start + (from - first) * PAGE_SIZE_, .first = from, .n = to - from,
		.writable_from = g->space->unprotected_lo, .writable_to = g->space->unprotected_hi, .owner = g->space,
	};
	return 0;
}

static uint64_t may_be_writable(const struct block *b) { return b->e->dirty | b->e->writeback | b->e->keep; }

static void gather(struct pages_step *s)
{
	struct check_look *l = &s->look;
	struct space *space;

	l->first = s->index * PGC_BLOCK_PAGES;
	l->n_parts = 0;
	for (unsigned i = 0; i < CHECK_LOOK_BLOCKS; i++) {
		struct block *b = block_tree_find(&s->f->blocks, s->index + i);

		l->resident[i] = b ? b->e->resident : 0;
		l->writable[i] = b ? may_be_writable(b) : 0;
		l->async_mapped[i] = track_mapped(s->f, s->index + i);
	}
	list_for_each(space, &s->f->spaces, by_file)
		if (!space->restoring && !space->gone) {
			struct gathering g = { s, space };

			(void)file_range_set_walk(&space->maps, (struct range){ 0, ~0ull }, gather_segment, &g);
			if (space->window_end > space->window_start)
				(void)gather_segment(&g, (struct range){ space->window_start, space->window_end }, 0, 0);
		}
	s->moment = moment_of(s->f);
}

static void step_done(struct pages_step *s)
{
	struct check *c = s->c;

	check_release(c, s->f);
	free(s);
	c->done(c);
}

static void looked(struct ring_op *op, int res, uint32_t cflags);

static void look(struct pages_step *s)
{
	uint64_t skipped = s->c->end.skipped;

	gather(s);
	if (s->tries++ > 0)
		s->c->end.skipped = skipped; /* they have been counted */
	s->look.job.done.done = looked;
	if (s->look.n_parts > 0) {
		int r = check_look_start(&s->look, &s->f->worker->ring);

		if (r == 0)
			return;
		s->c->error = r;
	}
	step_done(s);
}

/* What was found may have been told meanwhile. */
static void drain_events(struct file *f)
{
	struct space *space;

	list_for_each(space, &f->spaces, by_file)
		fault_drain_events(space);
}

/* At the same moment, so the space is still there. */
static bool still_wrong(const struct check_found *x, const struct file *f, uint64_t page)
{
	const struct block *b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);
	const struct space *space = x->part->owner;
	uint64_t bit = 1ull << (page % PGC_BLOCK_PAGES);

	/* The kernel maps in a window what is around, so also what is being read in (window.h). */
	if (!x->writable)
		return !b || !((b->e->resident | (space_in_window(space, x->part->addr) ? b->filling : 0)) & bit);
	if (tracker_on(&space->tracker))
		return !track_any(&space->tracker, page, 1);
	return !b || !(may_be_writable(b) & bit) || page < space->unprotected_lo || page >= space->unprotected_hi;
}

static void report_found(struct pages_step *s, const struct check_found *x)
{
	uint64_t end = x->first + x->n;

	for (uint64_t page = x->first, first = page; page < end; first = page) {
		while (page < end && still_wrong(x, s->f, page))
			page++;
		if (page > first)
			check_row(s->c, &(struct pgc_ctl_check_reply){
				.kind = x->writable ? PGC_DIFFERS_WRITABLE : PGC_DIFFERS_MAPPED, .file = s->f->slot, .pid = x->part->pid,
				.start = first, .end = page,
			});
		else
			page++;
	}
}

static void looked(struct ring_op *op, int res, uint32_t cflags)
{
	struct pages_step *s = container_of(container_of(op, struct offload_job, done), struct pages_step, look.job);
	struct file *f = s->f;

	s->c->end.skipped += s->look.skipped;
	s->look.skipped = 0;
	if (s->look.n_found > 0)
		drain_events(f);
	if (s->look.n_found > 0 && !same_moment(s->moment, moment_of(f))) {
		if (s->tries < CHECK_TRIES) {
			look(s);
			return;
		}
		for (size_t i = 0; i < s->look.n_found; i++)
			s->c->end.busy += s->look.found[i].n;
		s->look.n_found = 0;
	}
	for (size_t i = 0; i < s->look.n_found; i++)
		report_found(s, &s->look.found[i]);
	step_done(s);
}

void check_pages(struct check *c, struct file *f)
{
	struct pages_step *s;
	uint64_t next;

	if (f->huge && c->request.from == 0)
		compare_huge(c, f);
	if (!next_index(f, c->request.from / PGC_BLOCK_PAGES, &next)) {
		c->done(c);
		return;
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		c->error = -ENOMEM;
		c->done(c);
		return;
	}
	s->c = c;
	s->f = f;
	s->index = next;
	check_hold(c, f);
	for (unsigned i = 0; i < CHECK_LOOK_BLOCKS; i++)
		compare_block(s, s->index + i);
	if (next_index(f, s->index + CHECK_LOOK_BLOCKS, &next))
		c->end.next = next * PGC_BLOCK_PAGES;
	look(s);
}
