/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files whose memory is huge pages of 2 MiB (`huge = yes` for their path; MFD_HUGETLB). Runs on the file's worker.
 *
 * Of such a page all is resident or nothing, what lies behind the end of the file included, which is zeros: it is read whole (fill.c), mapped whole, and given up whole.
 * Nobody has such a file open to write, so nothing of it is dirty, and each page of it can go.
 */
#pragma once

#include "daemon/file.h"

#define HUGE_PAGES  (HOST_CHUNK_SIZE / PAGE_SIZE_)
#define HUGE_BLOCKS (HUGE_PAGES / PGC_BLOCK_PAGES)

/* In place of the policy: pages of a block have come, are asked for again, are the next to be given up, or are out of its hands. */
void huge_came(struct block *b, uint64_t pages);
void huge_touched(struct block *b);
void huge_deactivate(struct block *b);
void huge_went(struct block *b, uint64_t pages);

/* Gives up at least so many pages of the domain's, if there are any that may go. Returns how many pages less are charged. */
uint64_t huge_give_up(struct domain *d, uint64_t pages);
/* As file_drop_clean(), of huge pages that lie in [from, to) up to the end of the file. */
uint64_t huge_drop(struct file *f, uint64_t from, uint64_t to, bool unmapped);
/* What a window over the huge page has set aside goes back to the system, whether there is something in it or not. */
void huge_release(struct file *f, uint64_t first);
/* All from `page` on, also what is pinned: the file is another from there on. */
void huge_forget_from(struct file *f, uint64_t page);
/* Some of what a client has made of it, by mapping it behind our back, is given back, if there is any. */
void huge_audit(struct file *f);
/* Of a daemon that is gone, its blocks restored: memory and blocks have whole pages only, and each has what the other has. */
void huge_settle(struct file *f);
