/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changes a file's size or content by request: write, truncate, fallocate. They are queued by file and run one at a time
 * in order of arrival, so that an append is atomic and nothing meets half a truncation. Runs on the file's worker.
 */
#pragma once

#include "daemon/file.h"
#include "daemon/fill.h"

/* EXTEND: the store is made as long as the file is, before dirty pages at the end do so. */
enum file_op_kind { FILE_OP_WRITE, FILE_OP_TRUNCATE, FILE_OP_FALLOCATE, FILE_OP_EXTEND };

struct file_op {
	/* Set by the caller. */
	enum file_op_kind kind;
	bool append;               /* write: `off` becomes the end of file */
	int mode;                  /* fallocate */
	uint64_t off, len;         /* bytes; truncate: off is the size */
	const char *src;           /* write: a client's memory; only handed to system calls, never loaded from */
	struct toucher toucher;
	void (*done)(struct file_op *op, int error); /* may free it */

	/* ops.c */
	struct list link;
	struct file *file;
	uint64_t moved;            /* bytes that were written, also when it fails */
	unsigned step;
	bool throttled;            /* it waits for dirty pages to be written */
	bool needs_page;           /* the waiter's page must have been read */
	struct waiter waiter;
	struct parked parked;
	struct store_op store_op;
};

/* Queues it; done() comes later, never from within this call. */
void ops_queue(struct file *f, struct file_op *op);
/* The file is made: sets up its queue. */
void ops_file_init(struct file *f);
