/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeking data and holes. A clean page has the store's bytes, so the store knows; a page that is dirty or being written is data, whatever it holds; and what
 * is clean beyond the store's end is a hole. A hole may be called data, never the reverse:
 *   - what is dirty is looked at before the store is asked: a page that is clean by then is in the store, also as the store's own lseek sees it;
 *   - where the store cannot tell, all is data.
 * The store's answer may come late. What changes meanwhile may be seen or not, as with lseek(2).
 * Runs on the file's worker. May call file, writeback and the store.
 */
#include "daemon/seek.h"

#include "daemon/writeback.h"

#define ASKED_MAX 64u                /* of one search: then the rest of the file is called data */

static void answered(struct store_op *op, ssize_t result);

static void ask(struct seek *k)
{
	k->asked++;
	k->op.done = answered;
	k->file->store->ops->seek(k->file->store, &k->op, k->whence, k->off);
}

/* The first byte from `off` on that is not in the store yet, ~0: none. */
static uint64_t next_unwritten(struct file *f, uint64_t off)
{
	uint64_t page = off / PAGE_SIZE_, index = page / PGC_BLOCK_PAGES, written_to, next = writeback_next(f, page, &written_to);

	for (struct block *b; (b = block_tree_next(&f->blocks, index, true)); index = b->e->index + 1) {
		uint64_t pages = b->e->dirty & block_mask(b, page, ~0ull);

		if (pages) {
			next = MIN(next, block_first(b) + (unsigned)__builtin_ctzll(pages));
			break;
		}
	}
	return next == ~0ull ? next : MAX(off, next * PAGE_SIZE_);
}

/* The end of the run of pages that are not in the store yet and have the byte `off`; `off` itself: there is none. */
static uint64_t unwritten_end(struct file *f, uint64_t off)
{
	uint64_t page = off / PAGE_SIZE_, first = page, written_to;

	for (;;) {
		struct block *b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);
		unsigned run = b ? bits_run(b->e->dirty, (unsigned)(page % PGC_BLOCK_PAGES)) : 0;

		if (run > 0)
			page += run;
		else if (b && (b->e->writeback & (1ull << (page % PGC_BLOCK_PAGES))) && writeback_next(f, page, &written_to) == page)
			page = written_to;
		else
			return page == first ? off : page * PAGE_SIZE_;
	}
}

static void end(struct seek *k, uint64_t off)
{
	uint64_t size = k->file->size;

	k->off = MIN(off, size);
	/* The end of file is the last hole. */
	k->done(k, k->whence == SEEK_DATA && off >= size ? -ENXIO : 0);
}

/* Over what is dirty, and over what the store has, until neither has the byte. */
static void next_hole(struct seek *k)
{
	struct file *f = k->file;

	k->off = unwritten_end(f, k->off);
	if (k->off >= f->size || k->off >= f->store_size)
		end(k, k->off);
	else if (k->asked == ASKED_MAX)
		end(k, f->size);
	else
		ask(k);
}

static void answered(struct store_op *op, ssize_t result)
{
	struct seek *k = container_of(op, struct seek, op);
	struct file *f = k->file;
	uint64_t at = (uint64_t)result;

	if (k->whence == SEEK_DATA) {
		uint64_t found = k->found;

		if (result >= 0)
			found = MIN(found, at);
		else if (result != -ENXIO)
			found = k->off;
		end(k, found);
	} else if (result == -ENXIO) {
		end(k, k->off); /* the store ends before it: truncated meanwhile */
	} else if (result < 0) {
		end(k, f->size);
	} else if (at <= k->off) {
		end(k, k->off);
	} else {
		k->off = at;
		next_hole(k);
	}
}

void seek_start(struct seek *k, struct file *f, uint64_t off, int whence, void (*done)(struct seek *, int))
{
	*k = (struct seek){ .file = f, .off = off, .whence = whence, .done = done };
	if (off >= f->size) {
		done(k, -ENXIO);
	} else if (whence == SEEK_HOLE) {
		next_hole(k);
	} else {
		k->found = next_unwritten(f, off);
		if (k->found > off && off < f->store_size)
			ask(k);
		else
			end(k, k->found);
	}
}
