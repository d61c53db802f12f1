/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What to read before it is asked for. A set follows the streams of accesses of one space (faults) or one handle (read
 * calls): forward, backward, and with a constant stride. Pure bookkeeping: pages in, a plan out. Belongs to the file's worker.
 *
 * A stream starts small and doubles while it is used. The next window is read when the reader comes to the marker, a page
 * inside the last window that is left unmapped so that touching it is seen. A window whose marker nobody reaches was read
 * in vain: the set backs off.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define READAHEAD_STREAMS 8
#define READAHEAD_RUNS    16   /* two accesses of each of 8 streams, for a stride to be seen */

/* Accesses that adjoin, too few to be a stream. */
struct readahead_run {
	uint64_t at;               /* the page of the first one */
	uint64_t from, to;         /* pages that were touched or mapped: [from, to) */
	unsigned forward, backward;/* accesses that made it longer, at which end */
	uint64_t used, grown;      /* the set's clock at the last access and the last growth; used 0: free */
};

/*
 * A stream. Its positions are page numbers if it runs forward. If it runs backward they are mirrored, so that it runs
 * forward as well.
 * It consists of runs of `n` pages, `stride` pages from one to the next; a stream without gaps has n = 1 and stride = 1.
 */
struct readahead {
	uint64_t next;             /* where the next access is expected */
	uint64_t start, end;       /* where the reader was when the last window was read, and where that window ends */
	uint64_t marker;           /* the access that starts the next window, or UINT64_MAX */
	uint64_t window;           /* runs */
	uint64_t stride, n;
	bool backward;
	bool proved;               /* it reads ahead; a stride is not believed at once */
	unsigned hits;             /* accesses that carried it on */
	unsigned markers;          /* that were reached */
	unsigned skips;            /* accesses in turn that left out something before them */
	uint64_t used;             /* the set's clock at the last access; 0: free */
};

struct readahead_set {
	struct readahead stream[READAHEAD_STREAMS];
	struct readahead_run run[READAHEAD_RUNS];      /* a ring, by the first access */
	unsigned run_head;
	uint64_t clock;            /* accesses */
	uint64_t last_page, last_n;/* the last one, and whether it was part of a stream */
	bool last_stream;
	int advice;                /* POSIX_FADV_NORMAL, RANDOM, SEQUENTIAL: set it at any time */
	unsigned backoff;          /* windows read in vain of late; each halves what is tried next */
	uint64_t wasted;           /* pages dropped unused, not yet counted in `backoff` */
	uint64_t ceiling;          /* pages: windows grow slowly from here, 0: no matter */
	unsigned around_halved;    /* so often, as what was read around was dropped unasked for */
	uint64_t around_tried;     /* the clock when that was last changed */
	uint64_t around_last;      /* where that was done last, in units of what is read around an access */
	int around_walk;           /* so many times it was right behind, or before (negative), the one before */
	unsigned around_alone;     /* so many accesses are left alone, as they may be a stride */
};

struct readahead_in {
	uint64_t page, n;          /* wanted: [page, page + n) */
	bool missing;              /* the first page is neither here nor on its way */
	bool write;                /* a store */
	uint64_t max;              /* pages: the largest window, 0: none */
	uint64_t file_pages;
	uint64_t around;           /* pages: what a random access may read with its page, a power of two; 0: nothing */
	uint64_t wide;             /* pages: what else may be read then, a power of two; no more than `around`: nothing */
	uint64_t before, after;    /* so many pages right before and behind it are here, so that accesses there may not have been seen */
};

/*
 * Runs of pages to read, beyond what is wanted: `count` runs of `n` pages, the first at `first`, each `stride` pages after
 * the one before (may be negative). n * count is at most the largest window, or twice that with SEQUENTIAL.
 */
struct readahead_plan {
	uint64_t first, n, count;
	int64_t stride;
	uint64_t around_from, around_to; /* a random access: it may be worth to read these with its page, which is one of them; 0, 0: none */
	uint64_t wide_from, wide_to; /* and, after that, what of these is not here; 0, 0: none */
	uint64_t map_from, map_to; /* may be mapped without hiding a marker; holds what of the access is within the file */
	bool stream;               /* the access is part of a stream that is proved */
};

void readahead_set_init(struct readahead_set *ra);
/*
 * An access was seen. The plan never reaches past file_pages; count 0: nothing to read. The same access may be told again (a fault
 * that had to wait): nothing is planned twice.
 */
void readahead_access(struct readahead_set *ra, const struct readahead_in *in, struct readahead_plan *ret);
/*
 * [page, end) was mapped, so that accesses in there will not be seen: the streams whose next access is there go on behind it. `around`: with a random access,
 * so that one right behind it is no neighbour of that.
 */
void readahead_mapped(struct readahead_set *ra, uint64_t page, uint64_t end, bool around);
/* `pages` that were read ahead have been dropped without ever having been asked for. */
void readahead_wasted(struct readahead_set *ra, uint64_t pages);
