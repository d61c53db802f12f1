/* SPDX-License-Identifier: Apache-2.0 */
/* Pinning a range of a file: its pages are read in and are not given up until they are unpinned. Runs on the file's worker. */
#pragma once

#include "daemon/dirty_set.h"
#include "daemon/fill.h"

struct pin {
	struct file *file;
	uint64_t cursor, end;      /* pages */
	uint64_t from, to;         /* bytes, of whole pages */
	struct dirty_set added;    /* byte ranges that were not pinned before */
	struct waiter waiter;
	struct parked parked;
	struct task task;
	int error;
	void (*done)(struct pin *p, int error);
};

/*
 * Pins bytes [off, off + len), widened to whole pages; len 0: to the end of file. done() when all of it is resident, in a later round; with an error nothing
 * more is pinned than before. -ENOSPC: pin_max; -EINVAL: past the end of file; -EAGAIN: the file has no handle, so its store is not open.
 */
void pin_start(struct pin *p, struct file *f, uint64_t off, uint64_t len, void (*done)(struct pin *p, int error));
/* Unpins the same range. -ENOMEM. */
int pin_release(struct file *f, uint64_t off, uint64_t len);
