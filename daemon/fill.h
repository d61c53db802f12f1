/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filling pages from the store, and waiting for them. One fetch for many waiters. Runs on the file's worker.
 */
#pragma once

#include "daemon/file.h"

struct store_op;

/* A read under way of pages [first, first + n), straight into the daemon's window. */
struct fill {
	struct store_op op;
	struct list link;          /* file->fills */
	struct file *file;
	uint64_t first, n;         /* pages */
	uint64_t moved;            /* bytes */
	uint64_t gen;
};

/* Waits until none of `pages` of the block is being filled. ready(w, 0) or ready(w, -errno), once; it may free `w`. */
struct waiter {
	struct list link;
	struct block *block;
	uint64_t pages;
	void (*ready)(struct waiter *w, int error);
};

void waiter_init(struct waiter *w, void (*ready)(struct waiter *w, int error));
void waiter_add(struct waiter *w, struct block *b, uint64_t pages);
void waiter_cancel(struct waiter *w);

/*
 * Starts reads for those of [first, first + n) that are neither resident nor being filled, below the end of file and outside the
 * barrier. `required`: how many from `first` on the caller cannot do without; beyond them it stops quietly where there is no room.
 * `cg`: who is charged for new blocks. Returns 0, or -ENOBUFS when a required page found no room: park in worker->no_room.
 */
int fill_start(struct file *f, uint64_t first, uint64_t n, uint64_t required, struct pgc_cgroup_entry *cg);

/* Told when pages became resident, for poisoned mappings: set by fault.c. */
extern void (*fill_resident_hook)(struct file *f, uint64_t first, uint64_t n);

/* --- readahead: one stream of accesses --- */
struct readahead {
	uint64_t next;             /* page where the stream goes on, if it is sequential */
	uint64_t issued;           /* reads were started up to here */
	uint64_t window;           /* pages */
	uint64_t used;             /* for replacing the oldest */
};
#define READAHEAD_STREAMS 4
struct readahead_set {
	struct readahead stream[READAHEAD_STREAMS];
	uint64_t clock;
	int advice;                /* POSIX_FADV_NORMAL, RANDOM or SEQUENTIAL */
};
/*
 * An access to [page, page + n): returns up to which page to read, at least page + n. `missing`: the first page is neither here nor on
 * its way, so what was read ahead before is gone. *ret_run: the window in pages when the access runs in sequence, else 0.
 */
uint64_t readahead_access(struct readahead_set *ra, uint64_t page, uint64_t n, bool missing, uint64_t max_pages, uint64_t *ret_run);
/* The stream at `page` was mapped up to `end`: its next fault will be there. */
void readahead_mapped(struct readahead_set *ra, uint64_t page, uint64_t end);
