/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changes a file's size or content by request: write, truncate, fallocate. They are queued by file and run one at a time
 * in order of arrival, so that an append is atomic and nothing meets half a truncation. Runs on the file's worker.
 */
#pragma once

#include "daemon/file.h"
#include "daemon/fill.h"

/*
 * HOLD: an append that a dead daemon had begun keeps its place for its client, who asks for it again; for a second. EXTEND: the store is made as long as the file is, before
 * dirty pages at the end do so.
 */
enum file_op_kind { FILE_OP_WRITE, FILE_OP_TRUNCATE, FILE_OP_FALLOCATE, FILE_OP_EXTEND, FILE_OP_HOLD };

struct file_op {
	/* Set by the caller. */
	enum file_op_kind kind;
	bool append;               /* write: `off` becomes the end of file */
	bool held;                 /* ops.c: an append that has the place that a dead daemon gave it, and its record */
	int mode;                  /* fallocate */
	uint64_t off, len;         /* bytes; truncate: off is the size */
	const char *src;           /* write: a client's memory; only handed to system calls, never loaded from */
	struct toucher toucher;
	uint64_t handle, tag;      /* whose request it is; 0: nobody's, it is not written down */
	bool (*was_done)(struct file_op *op, int *ret_error); /* a dead daemon may have carried it out; NULL: it cannot */
	void (*done)(struct file_op *op, int error); /* may free it */

	/* ops.c */
	struct list link;
	struct file *file;
	uint64_t moved;            /* bytes that were written, also when it fails */
	unsigned step;
	uint64_t asked;            /* write: the size that the store was asked about */
	bool throttled;            /* it waits for dirty pages to be written */
	bool needs_page;           /* the waiter's page must have been read */
	struct waiter waiter;
	struct parked parked;
	struct store_op store_op;
	struct ring_timer timer;   /* HOLD */
};

/* Queues it; done() comes later, never from within this call. */
void ops_queue(struct file *f, struct file_op *op);
/* The file is made: sets up its queue. */
void ops_file_init(struct file *f);
