/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filling pages from the store, and waiting for them. One fetch for many waiters. Runs on the file's worker.
 */
#pragma once

#include "daemon/file.h"
#include "daemon/staging.h"

struct store_op;

/* A huge page that is being read in, in pieces side by side: all of it becomes resident, or nothing. */
struct chunk_fill {
	uint64_t first;            /* page */
	bool must;                 /* asked for, and not read ahead */
	unsigned flags;            /* POLICY_* */
	unsigned left;             /* pieces that are not here, and one while more are begun */
	int error;                 /* -ESTALE: it does not count; whoever waits looks again */
};

/* A read under way of pages [first, first + n), straight into the daemon's window or by way of a buffer. */
struct fill {
	struct store_op op;
	struct list link;          /* file->fills */
	struct list unstaged;      /* worker->unstaged: it waits for a buffer, and has not begun */
	char *staged;              /* the buffer, NULL: straight */
	uint64_t since;            /* ns: when it began to read into that */
	bool slow;                 /* that took long */
	struct staging_copy copy;  /* from there to the memfd, on another thread */
	struct file *file;
	uint64_t first, n;         /* pages */
	uint64_t asked, must;      /* pages [asked, must) were asked for, the others are read ahead */
	uint64_t moved;            /* bytes */
	uint64_t gen;
	unsigned flags;            /* POLICY_* */
	struct chunk_fill *chunk;  /* which it is a piece of, or NULL */
};

/* Waits until none of `pages` of the block is being filled. ready(w, 0) or ready(w, -errno), once; it may free `w`. */
struct waiter {
	struct list link;
	struct block *block;
	uint64_t pages;
	void (*ready)(struct waiter *w, int error);
};

void fill_worker_init(struct worker *w);

void waiter_init(struct waiter *w, void (*ready)(struct waiter *w, int error));
void waiter_add(struct waiter *w, struct block *b, uint64_t pages);
void waiter_cancel(struct waiter *w);

/*
 * Starts reads for those of [first, first + n) that are neither resident nor being filled, below the end of file and outside the
 * barrier; what the second-chance buffer has comes back at once. `required`: how many from `first` on the caller cannot do without; beyond them it
 * stops quietly where there is no room. `who` is charged for new blocks (NULL: nobody). `flags`: POLICY_*, how it was asked for.
 * Returns 0, or -ENOBUFS when a required page found no room: park in worker->no_room. Of a file with huge pages all comes of those that are touched; -ENOMEM: the
 * system has had none for a while, or one is more than there may be.
 */
int fill_start(struct file *f, uint64_t first, uint64_t n, uint64_t required, const struct toucher *who, unsigned flags);

/* As that, for a page that is asked for with those around it, [first, first + n), which are read ahead. It is in there. */
int fill_start_around(struct file *f, uint64_t first, uint64_t n, uint64_t page, const struct toucher *who);

/* Told when pages became resident, for poisoned mappings: set by fault.c. */
extern void (*fill_resident_hook)(struct file *f, uint64_t first, uint64_t n);
