/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's visible state: arrays that are mmapable BPF maps pinned under a bpffs folder, or, where
 * that is not allowed, plain shared memory of a memfd with the same layout. See pagecached/maps.h.
 *
 * Slots of `files` and `mappings` and `blocks` are split into equal shares, one a worker, so that
 * each worker allocates its own without a lock. `cgroups` is allocated by the main thread; its counters are
 * changed with atomic adds by every worker.
 *
 * The pins and the tables (show_files, show_blocks, show_mappings) are readable by the daemon's own user only:
 * they name everybody's files.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pagecached/maps.h"

struct state_params {
	const char *bpffs;         /* folder for the pins, made when missing; "", "none" or NULL: no BPF maps */
	unsigned workers;          /* at least 1 */
	uint32_t files, blocks, mappings, cgroups, handles;  /* slots wanted */
	/*
	 * Without BPF maps: a path that files on a tmpfs begin with, which outlive the daemon as pins do. NULL: memfds, which do not.
	 */
	const char *prefix;
	bool recover;              /* take over what an earlier daemon has left, instead of replacing it; then its sizes and number of workers hold */
	bool kept;                 /* with it, descriptors of an earlier daemon have come: its state must be there, and is not lost as long as somebody holds it */
};

struct state_map {             /* one array */
	const char *name;
	void *mem;
	size_t mem_size;
	uint32_t entries, entry_size;
	int fd;                    /* BPF map or memfd */
};

struct state {
	struct pgc_file_entry    *files;
	struct pgc_block_entry   *blocks;
	struct pgc_mapping_entry *mappings;
	struct pgc_cgroup_entry  *cgroups;
	struct pgc_stats_entry   *stats;       /* one a worker, and [workers] for the main thread */
	struct pgc_saved_file    *saved_files; /* [0] is the header */
	struct pgc_saved_handle  *saved_handles;
	struct state_map map[7];               /* in the order above */
	bool recovered;                        /* it was an earlier daemon's: all of it is as that left it */
	char *not_recovered;                   /* why what was there is not used; NULL: nothing was there, or it is */
	bool bpf;                              /* pinned BPF maps */
	bool lasting;                          /* it outlives the daemon */
	bool found;                            /* by state_open(): there is something that may be taken over */
	bool held;                             /* by state_open(): somebody else has the folder */
	char *missing;                         /* what is lacking and why; NULL: nothing, or nothing was asked for */
	struct state_bpf *priv;
	char *prefix;                          /* of the files, which are ours; NULL: none */
	const struct state_params *wanted;     /* while it is opened */
	/*
	 * What there is: of files, blocks and mappings one slot more than was asked for (for slot 0), rounded up
	 * to a multiple of workers, so that worker w's share of files is [w * files / workers, (w + 1) * files /
	 * workers); cgroups with slot 0 added. bpffs: NULL without BPF maps.
	 */
	struct state_params params;
};

/*
 * Returns 0 or a negative errno: -EINVAL (no worker, no slot, or more than 2^32), -ENOMEM, -EMFILE and the like, -EBUSY (`kept`, and
 * a daemon that does not come to its end holds the state).
 * That BPF maps cannot be had is no error: a memfd takes their place and `missing` says why. With `bpf` and
 * `missing` both set the maps are there, but not all tables. An earlier daemon's stale pins of the same names are
 * replaced; a living daemon's are not (it holds a lock on the folder).
 */
int state_open(struct state *s, const struct state_params *p);
/* Removes the pins (and the folder, if state_open() made it and it is empty) or files. A zeroed struct is fine. */
void state_close(struct state *s);

static inline struct pgc_saved_header *state_header(const struct state *s) { return (struct pgc_saved_header *)s->saved_files; }

/*
 * A worker's share of slots of one kind: a free list, no lock. Slot 0 of a map is never handed out, so a share that
 * begins there has one less.
 */
struct slot_pool {
	uint32_t *free;
	uint32_t first, count, n_free;
};
/* -EINVAL: first + count is more than 2^32; -ENOMEM. */
int slot_pool_init(struct slot_pool *p, uint32_t first, uint32_t count);
void slot_pool_free(struct slot_pool *p);
/* The slot's index in the map (the one given back last, else the lowest), or -ENOSPC. */
int64_t slot_pool_take(struct slot_pool *p);
void slot_pool_give(struct slot_pool *p, uint32_t slot);
/* Before the first is taken: those that `used` names are in use already. */
void slot_pool_exclude(struct slot_pool *p, bool (*used)(void *arg, uint32_t slot), void *arg);
