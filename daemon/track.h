/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asynchronous write tracking: the kernel lets a store to a protected page through and takes the protection off (UFFD_FEATURE_WP_ASYNC), and the daemon looks
 * for it (pagemap.h). What a store costs is 0.8 us and no message; what was stored to shows late.
 *
 * A *tracker* is what the daemon knows of one address space that is tracked so. `mapped` has a bit for each page that may be in its page tables in a shared mapping: set
 * before the page is mapped, taken back when a look shows a marker and no page. Of these a page is clean only if the kernel shows its protection: whatever
 * else it finds, a page without protection, nothing, another mapping, no process, counts as written.
 *
 *   track_scan()      before fsync, msync, write-outs, listings, and once a second: what was written is dirty from then on, and protected again
 *   track_punch()     reclaim: looks, takes a reference to the pages (vmsplice(2)), punches, looks again; what was written in between is put back, dirty
 *   track_unmapped()  of what was unmapped without a look before, all counts as written
 *
 * For the next daemon: the bits lie in a memfd of the file's, a row a tracker, that is kept; what is being looked at, or dropped, is in the file's record.
 * Runs on the file's worker.
 */
#pragma once

#include "daemon/file.h"

typedef void (*track_piece)(void *arg, uint64_t addr, uint64_t page, uint64_t n);

struct tracker {
	struct list by_file;       /* file->trackers; empty: it tracks with faults */
	struct file *file;
	const struct toucher *toucher;
	/* Calls fn for each piece of pages [from, to) of the file that is mapped there to be stored to. */
	void (*pieces)(struct tracker *t, uint64_t from, uint64_t to, track_piece fn, void *arg);
	int uffd, pagemap;         /* uffd is the space's; pagemap -1: nobody can look: nothing of it is clean */
	bool known, waits;         /* what is mapped is known; is being found out */
	uint32_t row;              /* of the file's memfd of bits */
	uint64_t *word, words;     /* mapped: a word a block */
	uint32_t *count;           /* bits of each page of words */
	uint64_t pages;            /* bits that are set */
	uint64_t shed_cursor;      /* block */
	pid_t pid;                 /* whose it is */
	uint64_t room_until;       /* ns: until then nobody counts again */
};

void tracker_init(struct tracker *t);
static inline bool tracker_on(const struct tracker *t) { return !list_empty(&t->by_file); }
/* Can it be told what was written? */
static inline bool tracker_sees(const struct tracker *t) { return t->known && t->pagemap >= 0; }

/* Begins; `pieces`, `known`, `pid` and `pagemap` are the caller's to set. -ENOMEM, -EMFILE and the like: then the space must not be tracked so. */
int track_begin(struct tracker *t, struct file *f, const struct toucher *toucher, int uffd);
/* The same for one of a daemon that is gone, whose row is there or (all count as mapped) is not. */
int track_adopt(struct tracker *t, struct file *f, const struct toucher *toucher, int uffd, uint32_t row);
/* The space ends: what was mapped counts as written. */
void track_end(struct tracker *t);

#define TRACK_SET_MAX 4160u /* a whole number of blocks */
struct track_before { uint64_t index, word[TRACK_SET_MAX / PGC_BLOCK_PAGES + 1]; };

/* Pages that are about to be mapped, at most TRACK_SET_MAX. -ENOMEM: they must not be. */
int track_set(struct tracker *t, uint64_t page, uint64_t n, struct track_before *ret_before);
/*
 * What of them was mapped before and is not any more, as it was swapped out, say, shows by a marker that it was not stored to. Mapping it takes that away: so all
 * else is dirty from here on.
 */
void track_remapped(struct tracker *t, uint64_t page, uint64_t n, const struct track_before *before);
/* Pages of those that were not mapped after all: as they were before. */
void track_unset(struct tracker *t, uint64_t page, uint64_t n, const struct track_before *before);
/* Pages of block `index` that some tracker has mapped. */
uint64_t track_mapped(const struct file *f, uint64_t index);
/* Is any of these mapped in it? */
bool track_any(const struct tracker *t, uint64_t page, uint64_t n);

/* Pages [from, to) are not mapped at one place any more. */
void track_unmapped(struct tracker *t, uint64_t from, uint64_t to);
/* Pages have been punched out of the memfd, whatever they held. */
void track_punched(struct file *f, uint64_t first, uint64_t n);

/* Is there anything to look at? */
bool track_needed(const struct file *f);
/* Has any tracker a page? */
bool track_any_pages(const struct file *f);
/* Looks at pages [from, to): what was written is dirty then. A bounded part of it; returns where it came to. */
uint64_t track_scan(struct file *f, uint64_t from, uint64_t to);
/* Somebody's mappings are being found out: nothing can be looked at yet. */
bool track_waits(const struct file *f);
/* Nothing of [first, first + n) can become clean now: 0, or -EAGAIN (not yet), -EPERM (nobody can look). */
int track_may_clean(const struct file *f, uint64_t first, uint64_t n);

/*
 * Punches resident pages, clean as far as is known, out of the memfd, at most PGC_BLOCK_PAGES. Those that turn out to have been
 * written stay (a bit in *ret_stay, the lowest for `first`), dirty. Returns 0 or a negative errno: then nothing was punched.
 * `copy`: where what goes is wanted, a page each; copy->done has a bit for each that is there. NULL: nowhere.
 */
struct track_copy { const struct iovec *to; uint64_t done; };
int track_punch(struct file *f, uint64_t first, unsigned n, struct track_copy *copy, uint64_t *ret_stay);
/*
 * Takes what is clean, or (`all`) everything that is not being written, out of the page tables in which it could be stored to, and leaves it where it is: stores are
 * faults from then on. A bounded part of it from block *cursor on; whether there is more.
 */
bool track_revoke(struct file *f, bool all, uint64_t *cursor);

/* Has somebody who stores to it more dirty than it may, or does its store take nothing? */
bool track_is_over_limit(const struct file *f);
/* It may have more mapped. */
bool track_has_room(struct tracker *t);
/* The same; or else something of its own has been given up, or written out, and it tries again. */
bool track_may_map(struct tracker *t);

void track_file_free(struct file *f);

/* The pipe that track_punch() needs. -errno. */
int track_worker_init(struct worker *w);
void track_worker_free(struct worker *w);
/* A daemon that is gone was at it: puts back what its pipe has. Before the file's blocks are looked at. */
void track_put_back(struct file *f);
/* After the last of them: it may have pages that nobody had noted yet, or any more, and what is next to be put back must not be one of those. */
void track_empty_pipe(struct worker *w);
/* It had one whose client is not here (yet), so that nobody knows what that has stored to: all that is here is dirty. */
void track_lost(struct file *f);
/* Pages of a block that it was looking at, or dropping: nobody knows whether those that are here were written. */
uint64_t track_was_busy(const struct file *f, uint64_t index);
/* Those that it was dropping. */
uint64_t track_was_dropping(const struct file *f, uint64_t index);
