/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file's blocks by index: a radix tree of 64-way nodes, as deep as the file needs, in which every node
 * also remembers under which children something is dirty. Look-ups, the next block and the next dirty block
 * in ascending order cost one step a level (4 levels reach 4 TiB). Belongs to the file's worker.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/util/util.h"
#include "pagecached/maps.h"

struct file;
struct domain;

/* The worker's private side of a block; `e` is the side that everyone can see. */
struct block {
	struct pgc_block_entry *e;
	struct file *file;
	char *addr;                /* the daemon's window over it, while the block exists */
	struct pgc_cgroup_entry *cgroup; /* the first toucher's: charged */
	struct domain *domain;     /* likewise */
	uint64_t filling;          /* pages with a read from the store under way */
	uint64_t second;           /* pages whose bytes are in the second-chance buffer, and not in the memfd: not resident */
	uint64_t ahead;            /* resident pages that were read ahead and not asked for yet */
	uint64_t unknown;          /* resident pages that the policy has not been told of: block_tell_policy() */
	uint64_t pinned;           /* resident pages that may not be given up: pinned, or locked by a client */
	uint64_t unsynced;         /* pages written since the store's last good fsync */
	struct list by_unsynced;   /* file->unsynced */
	struct list by_chunk;      /* domain->chunks: the first block of a huge page (huge.h) */
	struct list waiters;       /* struct waiter */
	uint32_t slot;
	uint32_t dirtier;          /* slot of budget->dirty_by: who made the first of its dirty pages so */
	struct user_count *dirty_user; /* and whose that is; NULL: not known */
	bool used;                 /* the huge page was asked for again */
};

struct block_node;

struct block_tree {
	struct block_node *root;
	unsigned height;           /* levels; 0: empty */
	uint64_t count;
};

struct block *block_tree_find(const struct block_tree *t, uint64_t index);
/* -ENOMEM. There must be none at e->index yet. */
int block_tree_insert(struct block_tree *t, struct block *b);
void block_tree_remove(struct block_tree *t, struct block *b);
/* The first block at or above `index`; with `dirty` only tagged ones. NULL: none. */
struct block *block_tree_next(const struct block_tree *t, uint64_t index, bool dirty);
void block_tree_tag_dirty(struct block_tree *t, uint64_t index);
void block_tree_untag_dirty(struct block_tree *t, uint64_t index);
/* Frees the nodes; the blocks are the caller's. */
void block_tree_free(struct block_tree *t);
