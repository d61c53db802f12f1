/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The radix tree of a file's blocks. Invariants: `present` has a bit for each child that is not NULL, no inner
 * node is empty, and a bit of `dirty` is set exactly when the child (or something below it) is tagged.
 * Runs on the file's worker; calls nothing but malloc.
 */
#include "daemon/block_tree.h"

#include <assert.h>

#define FANOUT_SHIFT 6
#define FANOUT (1u << FANOUT_SHIFT)

struct block_node {
	uint64_t present, dirty;
	void *child[FANOUT];       /* nodes, or blocks on the lowest level */
};

static unsigned slot_of(uint64_t index, unsigned level)
{
	return (index >> (level * FANOUT_SHIFT)) & (FANOUT - 1);
}

/* Does a tree of this height reach `index`? */
static bool reaches(unsigned height, uint64_t index)
{
	unsigned bits = height * FANOUT_SHIFT;

	return bits >= 64 || (index >> bits) == 0;
}

struct block *block_tree_find(const struct block_tree *t, uint64_t index)
{
	struct block_node *n = t->root;

	if (!n || !reaches(t->height, index))
		return NULL;
	for (unsigned level = t->height - 1; level > 0; level--) {
		n = n->child[slot_of(index, level)];
		if (!n)
			return NULL;
	}
	return n->child[slot_of(index, 0)];
}

int block_tree_insert(struct block_tree *t, struct block *b)
{
	uint64_t index = b->e->index;
	struct block_node *n;

	while (t->height == 0 || !reaches(t->height, index)) {
		n = calloc(1, sizeof(*n));
		if (!n)
			return -ENOMEM;
		if (t->root) {
			n->child[0] = t->root;
			n->present = 1;
			n->dirty = t->root->dirty != 0;
		}
		t->root = n;
		t->height++;
	}
	n = t->root;
	for (unsigned level = t->height - 1; level > 0; level--) {
		unsigned s = slot_of(index, level);

		if (!n->child[s]) {
			n->child[s] = calloc(1, sizeof(*n));
			if (!n->child[s])
				return -ENOMEM; /* the empty nodes made so far hang on a path that the next insert fills */
			n->present |= 1ull << s;
		}
		n = n->child[s];
	}
	assert(!n->child[slot_of(index, 0)]);
	n->child[slot_of(index, 0)] = b;
	n->present |= 1ull << slot_of(index, 0);
	t->count++;
	return 0;
}

static void set_tag(struct block_tree *t, uint64_t index, bool on)
{
	struct block_node *path[11];
	struct block_node *n = t->root;

	if (!n || !reaches(t->height, index))
		return;
	for (unsigned level = t->height; level-- > 0;) {
		path[level] = n;
		if (on)
			n->dirty |= 1ull << slot_of(index, level);
		if (level)
			n = n->child[slot_of(index, level)];
	}
	if (on)
		return;
	for (unsigned level = 0; level < t->height; level++) {
		path[level]->dirty &= ~(1ull << slot_of(index, level));
		if (path[level]->dirty)
			break;
	}
}

void block_tree_tag_dirty(struct block_tree *t, uint64_t index) { set_tag(t, index, true); }
void block_tree_untag_dirty(struct block_tree *t, uint64_t index) { set_tag(t, index, false); }

void block_tree_remove(struct block_tree *t, struct block *b)
{
	uint64_t index = b->e->index;
	struct block_node *path[11] = { 0 }, *n = t->root;

	set_tag(t, index, false);
	for (unsigned level = t->height; level-- > 0;) {
		path[level] = n;
		if (level)
			n = n->child[slot_of(index, level)];
	}
	assert(path[0]->child[slot_of(index, 0)] == b);
	for (unsigned level = 0; level < t->height; level++) {
		unsigned s = slot_of(index, level);

		path[level]->child[s] = NULL;
		path[level]->present &= ~(1ull << s);
		if (path[level]->present)
			break;
		free(path[level]);
		if (level == t->height - 1) {
			t->root = NULL;
			t->height = 0;
		}
	}
	t->count--;
}

struct block *block_tree_next(const struct block_tree *t, uint64_t index, bool dirty)
{
	struct block_node *path[11];
	unsigned level;

	if (!t->root || !reaches(t->height, index))
		return NULL;
	level = t->height - 1;
	path[level] = t->root;
	for (;;) {
		struct block_node *n = path[level];
		uint64_t bits = (dirty ? n->dirty : n->present) & (~0ull << slot_of(index, level));

		if (bits) {
			unsigned s = (unsigned)__builtin_ctzll(bits);

			if (s != slot_of(index, level)) /* a later subtree: from its beginning */
				index = ((index >> (level * FANOUT_SHIFT)) - slot_of(index, level) + s) << (level * FANOUT_SHIFT);
			if (level == 0)
				return n->child[s];
			level--;
			path[level] = n->child[s];
			continue;
		}
		/* Nothing here: the first index past this subtree, from the lowest level that it does not overflow. */
		do {
			if (++level == t->height)
				return NULL;
		} while (slot_of(index, level) == FANOUT - 1);
		index = ((index >> (level * FANOUT_SHIFT)) + 1) << (level * FANOUT_SHIFT);
	}
}

static void free_node(struct block_node *n, unsigned level)
{
	if (!n)
		return;
	if (level > 0)
		for (unsigned i = 0; i < FANOUT; i++)
			free_node(n->child[i], level - 1);
	free(n);
}

void block_tree_free(struct block_tree *t)
{
	if (t->height)
		free_node(t->root, t->height - 1);
	*t = (struct block_tree){ 0 };
}
