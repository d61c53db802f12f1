/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Write-out: SyncDirty over a range and over all of a file, on demand and in the background. Runs on the file's worker.
 */
#pragma once

#include "daemon/file.h"

/*
 * SyncDirty of one range. Ascending: what is dirty when the cursor gets there is protected in every mapping, then read and written. Done
 * when all of it, and all write-outs that were in flight in the file when the cursor reached the end, have
 * completed. done() may free it.
 */
struct sync_dirty {
	struct list link;          /* file->syncs */
	struct file *file;
	struct parked parked;
	uint64_t looked_to;        /* pages: so far it has been looked for what was stored to without a fault */
	bool only_look;
	uint64_t cursor, end;      /* pages */
	uint64_t wait_seq;         /* 0: the cursor is not at the end yet */
	unsigned in_flight;
	uint64_t flying;           /* pages of them */
	bool looked;               /* at the store's times, before the first write moves them */
	uint64_t blocked_since;    /* ns; protecting has failed since, 0: no */
	uint64_t pages;            /* written */
	int error;                 /* the first of its own writes */
	void (*done)(struct sync_dirty *s, int error);
};

/* `from`, `to` in pages; done() may run before this returns. */
void sync_dirty_range(struct sync_dirty *s, struct file *f, uint64_t from, uint64_t to, void (*done)(struct sync_dirty *, int));
/* Only finds out what is dirty: no error. */
void sync_look_range(struct sync_dirty *s, struct file *f, uint64_t from, uint64_t to, void (*done)(struct sync_dirty *, int));
void sync_dirty_all(struct sync_dirty *s, struct file *f, void (*done)(struct sync_dirty *, int));

/*
 * The store's own fsync, before which its times are put right (with data_only soon after it). When it fails, what was written since the last good one is dirty again, as far as it is still here, and every handle
 * hears of it. done() comes later or, where there is nothing to sync, at once; it may free it. The file stays meanwhile.
 */
struct store_sync {
	struct store_op op;
	struct file *file;
	struct parked parked;
	uint64_t writes_done;      /* file->writes_done when it was issued */
	void (*done)(struct store_sync *s, int error);
};
void writeback_store_sync(struct store_sync *s, struct file *f, bool data_only, void (*done)(struct store_sync *, int));
/* As that without the fsync: after what was written the store's times are put right. */
void writeback_settle(struct store_sync *s, struct file *f, void (*done)(struct store_sync *, int));

/* Is a write of any of pages [from, to) in flight? */
bool writeback_in_flight(struct file *f, uint64_t from, uint64_t to);
/* The first page from `page` on that is being written, ~0: none, and the end of the pages that are written with it. */
uint64_t writeback_next(struct file *f, uint64_t page, uint64_t *ret_end);

/* Starts a write-out of all that is dirty, unless one is running; nobody waits for it. */
void writeback_background(struct file *f);
/* Arms the worker's timer for the oldest dirty page. */
void writeback_arm_timer(struct worker *w);
/* The timer's handler. */
void writeback_expire(struct worker *w);
/*
 * Begins to look for what was stored to without a fault, in all files where that may be. Clients that have more dirty than they may lose what they can store to without
 * a fault. When it is to be called again (ns); 0: not before there is something.
 */
uint64_t writeback_look(struct worker *w);
void writeback_file_init(struct file *f);

/* Protects pages against writes in every mapping of the file: 0, or -EAGAIN to be called again soon. Set by fault.c. */
extern int (*writeback_protect_hook)(struct file *f, uint64_t first, uint64_t n);
