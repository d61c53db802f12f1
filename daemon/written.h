/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes that ask nobody: a client copies into a mapping of its own, its window, as long as a bit that the daemon shows says that the page is there, and then sets the
 * page's bit in a memfd of the file's (wire.h: WINDOW). A page whose bit is set counts as dirty from the next look on (track.h): before write-outs, STAT and reclaim, and once a second.
 *
 * Invariants
 *   - A page that a slot names, or whose bit is set, is not dropped: it is hidden first, then slots and bits are looked at. A writer takes its slot, then looks whether the page is shown, and gives the
 *     slot back when the bit is set.
 *   - A bit is set before the copy, so that who sees the bytes sees that the file has changed, and after it. It is cleared when the page is marked dirty; while somebody writes, the bit of the first
 *     page stays, and others ask.
 *   - While clients must ask (control page: `must_ask`) no write counts that was not seen before: who finds that when the copy is done asks, too.
 *
 * For the next daemon: the memfd is kept. Nobody writes so while there is no daemon.
 * Runs on the file's worker. May call file, block and what is below.
 */
#pragma once

#include "daemon/file.h"

static inline bool written_on(const struct file *f) { return f->written.word != NULL; }

/* There are bits for `blocks` blocks. -ENOSPC: they would take too much of the budget; -errno. */
int written_reach(struct file *f, uint64_t blocks);
/* Nobody writes so any more. What was written is dirty. */
void written_end(struct file *f);
/* Without a look. */
void written_free(struct file *f);

/* What was written of pages [from, to) is dirty, and changed the file. */
void written_take(struct file *f, uint64_t from, uint64_t to);
/* Pages [first, first + n), at most PGC_BLOCK_PAGES, hidden by now: those that must not be dropped, the lowest bit for `first`. What of them was written is dirty. */
uint64_t written_among(struct file *f, uint64_t first, unsigned n);
/* One handle's slots: what they name may be half written. Whether there is any. */
bool written_left(struct file *f, const struct pgc_reader_slot *slot);
/* Whether clients must ask: limits, a stop, a store that takes nothing. */
void written_limit(struct file *f);

/* Of a daemon that is gone: takes the memfd. */
void written_restore(struct file *f, int fd);
/* Pages of a block whose bit is set. */
uint64_t written_bits(const struct file *f, uint64_t index);
