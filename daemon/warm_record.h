/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record of a file's hot pages, as it lies on disk. Pure: bytes in, a record out, and back. Nothing that is read is trusted.
 *
 * On disk, all numbers little-endian:
 *	header      as in warm_record.c: magic, length, identity, version of the store, time of writing, number of runs
 *	runs        24 bytes each, ascending, none overlapping: first block, pages of each block (a bitmap), number of blocks
 *	checksum    FNV-1a, 64 bits, of all before it
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "pagecached/maps.h"

#define WARM_RECORD_MAX  (1u << 20)  /* bytes of one record */
#define WARM_RUNS_MAX    43680u      /* as many runs as fit */

/* Blocks [index, index + blocks) of the file, in each of which `pages` were hot. */
struct warm_run {
	uint64_t index, pages;
	uint64_t blocks;
};

struct warm_record {
	uint64_t dev, ino;
	char name[PGC_NAME_MAX];   /* for people; what names a file is (dev, ino) */
	uint64_t size;             /* of the store's file, in bytes, like the times: whose bytes were cached */
	struct timespec mtime, ctime;
	int64_t written;           /* seconds since 1970 */

	struct warm_run *runs;
	uint32_t n, room;
	unsigned floor;            /* lighter blocks are left out: see warm_record_add() */
};

/* A record of nothing yet. warm_record_free() frees what is in it, not the struct. */
void warm_record_init(struct warm_record *r);
void warm_record_free(struct warm_record *r);
/*
 * Block `index`, above all that were added before, has these hot pages (0: nothing happens). When there are more runs than a record
 * may have, the half with the fewest pages goes. -ENOMEM: it is as before.
 */
int warm_record_add(struct warm_record *r, uint64_t index, uint64_t pages);
/* Pages in all runs. */
uint64_t warm_record_pages(const struct warm_record *r);

/* The bytes to be written, in memory that the caller frees. -ENOMEM. */
int warm_record_encode(const struct warm_record *r, void **ret, size_t *ret_size);
/* -EBADMSG: it is no record, and `ret_why` says what is wrong with it; -ENOMEM. `ret` is to be freed after 0 only. */
int warm_record_decode(struct warm_record *ret, const void *data, size_t size, const char **ret_why);
/* Was it made of this very file in this very state? NULL, or what differs. */
const char *warm_record_mismatch(const struct warm_record *r, const struct warm_record *now);

/*
 * The next pages to read at or above page `from`: a run of at most `max` pages that begins and ends with a hot one. Gaps of up to WARM_GAP_PAGES
 * are read along where they are no more than the hot pages. Returns false when nothing is left.
 */
#define WARM_GAP_PAGES 16u
bool warm_record_next(const struct warm_record *r, uint64_t from, uint64_t max, uint64_t *ret_first, uint64_t *ret_n);
