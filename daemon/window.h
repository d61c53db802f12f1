/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads that ask nobody: a client copies from a mapping of its own, its window, as long as a bit that the daemon shows says that the page is there, and the file's
 * seq says afterwards that it was there all the time (wire.h: WINDOW).
 *
 * Invariants
 *   - A bit is shown only of pages that are resident, and not of those that were read ahead and that nobody has asked for.
 *   - It is hidden, and seq has grown, before the page is punched.
 *   - The memfd is not cut where a reader's slot says that it may be reading: until then its end lies behind the file's (file->uncut).
 *
 * Runs on the file's worker, but for window_global_init(). May call file, block and what is below.
 */
#pragma once

#include "daemon/file.h"

/* Of one handle: its slots, and what it has read. In file->readers and worker->readers. */
struct window_readers {
	struct list by_file, by_worker;
	struct file *file;
	const struct pgc_reader_slot *slot; /* NULL: none */
	uint64_t *touched;         /* words of `blocks` blocks, and behind them the bits that say which of those are not 0 */
	uint64_t blocks;
	uint64_t next;             /* of these bits' words: looked at next */
	const bool *noreuse;       /* what it reads proves nothing */
	const struct toucher *toucher;
	bool writes;               /* it may write so, too: written.h */
};

/* At the start, on the thread that lives as long as the daemon: the page that tells of its end. Without it nobody gets a window. */
int window_global_init(void);
/* A descriptor of that page for clients; -1: there is none. */
int window_life(void);

void window_readers_init(struct window_readers *r, const bool *noreuse, const struct toucher *toucher);
/*
 * A handle of the file has a window of `len` bytes, with slots and touched pages in `fds`; what it had before goes. -EINVAL: not such memfds, or such a length; -EOPNOTSUPP; -ENOSPC: the bits would
 * take too much of the budget; -ENOMEM. Descriptors for the client: ret_fds, the first of which is the caller's.
 */
int window_open(struct window_readers *r, struct file *f, bool writes, const int fds[2], uint64_t len, int ret_fds[2], uint64_t *ret_blocks);
void window_close(struct window_readers *r);
void window_free(struct file *f);
/* A memfd that may grow and not shrink; a negative errno. */
int window_make_bits(const char *name, mode_t mode);
/* Bits are charged to the budget, which leaves so much to them; in pages. */
bool window_may_charge(const struct file *f, uint64_t pages);
void window_charge(struct file *f, int64_t pages);

/* The block's bits are as they should be. */
static inline void window_show(const struct block *b)
{
	const struct file *f = b->file;

	if (b->e->index < f->shown.blocks)
		__atomic_store_n(&f->shown.word[b->e->index], b->e->resident & ~b->ahead, __ATOMIC_RELEASE);
}

/* The pages are about to be dropped. */
void window_hide(struct file *f, uint64_t first, uint64_t n);

/* Does somebody read, or may be about to, behind the page? What is hidden and behind the size nobody begins to read any more. */
bool window_is_read(struct file *f, uint64_t page);

/* The policy hears of what was read. One handle's, or those of some. */
void window_touched(struct window_readers *r);
void window_touched_all(struct worker *w);
