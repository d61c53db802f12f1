/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers that large reads go through on their way into a memfd. See staging.c. Belong to the worker.
 */
#pragma once

#include <stdint.h>

#include "daemon/offload.h"

#define STAGING_BUFFER  (256ull << 10) /* bytes */
#define STAGING_BUFFERS 16u

#define STAGING_VIEWS   8u
#define STAGING_COPIES  12u             /* on another thread; if so many wait there it has no processor, and the worker does its own */

struct worker;

/* A piece of a memfd, mapped for copies to it. */
struct staging_view {
	int memfd;
	uint64_t first;            /* page */
	char *addr;
	unsigned users;            /* copies; 0: there is no mapping */
};

/* From a buffer to a memfd. */
struct staging_copy {
	struct offload_job job;    /* its `done` is the caller's */
	struct staging_view *view;
	int uffd;
	char *to;
	const char *from;
	size_t len;                /* bytes, whole pages */
	int error;                 /* of the copy, once it is done */
};

struct staging {
	char *memory;              /* NULL: none yet */
	unsigned n_unused;
	uint8_t unused[STAGING_BUFFERS];
	int uffd;                  /* of the views; negative: all copies are the worker's */
	struct staging_view view[STAGING_VIEWS];
	unsigned copies;           /* under way */
};

/* NULL: all are in use, or there is no memory for any (then w->staging.memory is NULL). */
char *staging_take(struct worker *w);
void staging_give(struct worker *w, char *buffer);
/*
 * Copies n pages from a buffer to those of the memfd from `first` on, which has none of them, on another thread; the memfd does not become longer. Then done(), which calls
 * staging_copy_end(). False: it does not.
 */
bool staging_copy_begin(struct worker *w, struct staging_copy *c, int memfd, uint64_t first, uint64_t n, const char *buffer,
			void (*done)(struct ring_op *op, int res, uint32_t cflags));
/* 0, or a negative errno: some or all of it was not copied. */
int staging_copy_end(struct worker *w, struct staging_copy *c);
/* Does nothing while some are in use: a read that never ends may still write there. */
void staging_free(struct worker *w);
