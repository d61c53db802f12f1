/* SPDX-License-Identifier: Apache-2.0 */
/* SEEK_DATA and SEEK_HOLE of a file: what the store says and what is dirty, together. Runs on the file's worker. */
#pragma once

#include "daemon/file.h"

struct seek {
	struct store_op op;
	struct file *file;
	int whence;
	uint64_t off;              /* where it begins, and its answer */
	uint64_t found;            /* SEEK_DATA: data that the store need not have yet */
	unsigned asked;            /* how often the store was */
	void (*done)(struct seek *k, int error); /* 0, or -ENXIO as lseek(2); may free it */
};

/* done() comes later, or from within this call. The caller keeps the file. */
void seek_start(struct seek *k, struct file *f, uint64_t off, int whence, void (*done)(struct seek *, int));
