/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room for pages. The budget is one counter for all workers; each drops clean pages of its own files, oldest block first, and asks
 * the others by message when that is not enough. Dirty pages are written out first, in the background; whoever needs room
 * meanwhile is parked in worker->no_room, which the worker's loop tries again.
 * Runs on the worker. May call file and writeback.
 */
#include "daemon/reclaim.h"

#include "daemon/file.h"
#include "daemon/writeback.h"

#define RECLAIM_BATCH 256u           /* pages */
#define NO_RECLAIM_NS 1000000ull
#define RECLAIM_SCAN  8192u          /* blocks looked at in one go */

struct reclaim_ask {
	struct ring_op op;
	struct worker *from, *to;
	bool busy;
};

static void write_all_back(struct worker *w)
{
	struct file *f, *next;

	list_for_each_safe(f, next, &w->all_files, by_worker)
		if (f->e->dirty > f->e->keep)
			writeback_background(f);
}

uint64_t reclaim_pages(struct worker *w, uint64_t pages)
{
	uint64_t dropped = 0;
	struct block *last = list_empty(&w->blocks_by_age) ? NULL : list_entry(w->blocks_by_age.prev, struct block, by_age);

	for (unsigned i = 0; i < RECLAIM_SCAN && dropped < pages && !list_empty(&w->blocks_by_age); i++) {
		struct block *b = list_first(&w->blocks_by_age, struct block, by_age);
		bool end = b == last;

		/* What stays (dirty, being filled) goes to the end, so that the next call starts behind it. */
		list_remove(&b->by_age);
		list_append(&w->blocks_by_age, &b->by_age);
		dropped += block_drop_clean(b);
		if (end)
			break;
	}
	return dropped;
}

bool reclaim_slots(struct worker *w)
{
	uint32_t before = w->block_slots.n_free;

	for (unsigned i = 0; i < 4 && w->block_slots.n_free == before; i++)
		if (reclaim_pages(w, RECLAIM_BATCH) == 0)
			break;
	if (w->block_slots.n_free > before)
		return true;
	write_all_back(w);
	return false;
}

/* On the asking worker: the other has done what it could; the loop tries the parked again. */
static void ask_answered(struct ring_op *op, int res, uint32_t cflags)
{
	struct reclaim_ask *ask = container_of(op, struct reclaim_ask, op);

	ask->busy = false;
}

/* On the asked worker. */
static void ask_arrived(struct ring_op *op, int res, uint32_t cflags)
{
	struct reclaim_ask *ask = container_of(op, struct reclaim_ask, op);

	if (reclaim_pages(ask->to, (uint64_t)res) < (uint64_t)res)
		write_all_back(ask->to);
	op->done = ask_answered;
	ring_post(&ask->to->ring, &ask->from->ring, op, 0);
}

int reclaim_init(struct worker *w)
{
	w->asks = calloc(w->n_workers, sizeof(*w->asks));
	if (!w->asks)
		return -ENOMEM;
	for (unsigned i = 0; i < w->n_workers; i++)
		w->asks[i] = (struct reclaim_ask){ .from = w, .to = &w->all[i] };
	return 0;
}

void reclaim_free(struct worker *w)
{
	free(w->asks);
	w->asks = NULL;
}

bool reclaim_charge(struct worker *w, uint64_t pages)
{
	uint64_t now;

	if (budget_try_charge(w, pages))
		return true;
	/* Nothing could be dropped a moment ago: looking through all blocks for each who asks would be all that is done. */
	now = now_ns();
	if (now < w->no_reclaim_until)
		return false;
	if (reclaim_pages(w, MAX(pages, RECLAIM_BATCH)) > 0 && budget_try_charge(w, pages))
		return true;
	w->no_reclaim_until = now + NO_RECLAIM_NS;
	write_all_back(w);
	for (unsigned i = 0; i < w->n_workers; i++)
		if (i != w->id && !w->asks[i].busy) {
			w->asks[i].busy = true;
			w->asks[i].op.done = ask_arrived;
			if (ring_post(&w->ring, &w->all[i].ring, &w->asks[i].op, (int)MAX(pages, RECLAIM_BATCH)) < 0)
				w->asks[i].busy = false;
		}
	return false;
}
