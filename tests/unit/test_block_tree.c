/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of a file's blocks: look-up, order, the dirty tag. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/block_tree.h"
#include "model.h"

static struct block *new_block(uint64_t index)
{
	struct block *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	b->e = calloc(1, sizeof(*b->e));
	assert_non_null(b->e);
	b->e->index = index;
	return b;
}

static void free_block(struct block *b)
{
	free(b->e);
	free(b);
}

static void blocks_are_found_by_their_index(void **state)
{
	static const uint64_t indexes[] = { 0, 1, 63, 64, 4095, 4096, (1ull << 22) - 1, 1ull << 22, 1ull << 45 };
	struct block_tree t = { 0 };
	struct block *b;

	assert_null(block_tree_find(&t, 0));
	for (size_t i = 0; i < ELEMENTSOF(indexes); i++)
		assert_int_equal(block_tree_insert(&t, new_block(indexes[i])), 0);
	for (size_t i = 0; i < ELEMENTSOF(indexes); i++)
		assert_true(block_tree_find(&t, indexes[i])->e->index == indexes[i]);
	assert_null(block_tree_find(&t, 2));
	assert_null(block_tree_find(&t, 1ull << 46));
	assert_int_equal(t.count, ELEMENTSOF(indexes));
	while ((b = block_tree_next(&t, 0, false))) {
		block_tree_remove(&t, b);
		free_block(b);
	}
	assert_null(t.root);
	block_tree_free(&t);
}

static void next_ascends_over_sparse_indexes(void **state)
{
	static const uint64_t indexes[] = { 5, 64, 70, 4096 * 3 + 1, 1ull << 30 };
	struct block_tree t = { 0 };
	struct block *b;
	uint64_t at = 0;

	for (size_t i = ELEMENTSOF(indexes); i-- > 0;)
		assert_int_equal(block_tree_insert(&t, new_block(indexes[i])), 0);
	for (size_t i = 0; i < ELEMENTSOF(indexes); i++) {
		b = block_tree_next(&t, at, false);
		assert_true(b && b->e->index == indexes[i]);
		at = b->e->index + 1;
	}
	assert_null(block_tree_next(&t, at, false));
	while ((b = block_tree_next(&t, 0, false))) {
		block_tree_remove(&t, b);
		free_block(b);
	}
}

static void only_tagged_blocks_are_dirty(void **state)
{
	struct block_tree t = { 0 };
	struct block *b;

	for (uint64_t i = 0; i < 1000; i += 10)
		assert_int_equal(block_tree_insert(&t, new_block(i)), 0);
	assert_null(block_tree_next(&t, 0, true));
	block_tree_tag_dirty(&t, 500);
	block_tree_tag_dirty(&t, 990);
	assert_int_equal(block_tree_next(&t, 0, true)->e->index, 500);
	assert_int_equal(block_tree_next(&t, 501, true)->e->index, 990);
	block_tree_untag_dirty(&t, 500);
	assert_int_equal(block_tree_next(&t, 0, true)->e->index, 990);
	/* A block that goes takes its tag along. */
	b = block_tree_find(&t, 990);
	block_tree_remove(&t, b);
	free_block(b);
	assert_null(block_tree_next(&t, 0, true));
	while ((b = block_tree_next(&t, 0, false))) {
		block_tree_remove(&t, b);
		free_block(b);
	}
}

#define MODEL 5000

static void random_changes_agree_with_a_model(void **state)
{
	static bool there[MODEL], dirty[MODEL];
	struct block_tree t = { 0 };
	struct block *b;

	model_seed();
	for (int i = 0; i < 200000; i++) {
		uint64_t index = model_random(MODEL), at;

		switch (model_random(4)) {
		case 0:
			if (!there[index])
				assert_int_equal(block_tree_insert(&t, new_block(index)), 0);
			there[index] = true;
			break;
		case 1:
			b = block_tree_find(&t, index);
			assert_true(!!b == there[index]);
			if (b) {
				block_tree_remove(&t, b);
				free_block(b);
			}
			there[index] = dirty[index] = false;
			break;
		case 2:
			if (!there[index])
				break;
			dirty[index] = !dirty[index];
			if (dirty[index])
				block_tree_tag_dirty(&t, index);
			else
				block_tree_untag_dirty(&t, index);
			break;
		default:
			for (at = index; at < MODEL && !there[at];)
				at++;
			b = block_tree_next(&t, index, false);
			assert_true(at == MODEL ? !b : b && b->e->index == at);
			for (at = index; at < MODEL && !dirty[at];)
				at++;
			b = block_tree_next(&t, index, true);
			assert_true(at == MODEL ? !b : b && b->e->index == at);
		}
	}
	while ((b = block_tree_next(&t, 0, false))) {
		block_tree_remove(&t, b);
		free_block(b);
	}
	assert_int_equal(t.count, 0);
}

/* Indexes of every depth of the tree, the edges of its nodes among them, in any order. */
static void sparse_random_changes_agree_with_a_model(void **state)
{
	enum { N = 3 * 45 };
	static uint64_t index[N];
	static bool there[N], dirty[N];
	struct block_tree t = { 0 };
	struct block *b;
	size_t n = 0;

	index[n++] = 0;
	for (unsigned bit = 1; bit < 45; bit++) /* 2^bit, its neighbour, the last below 2^(bit + 1) */
		for (uint64_t k = 0; k < 3; k++) {
			uint64_t i = k == 0 ? 1ull << bit : k == 1 ? (1ull << bit) + 1 : (2ull << bit) - 1;

			if (i > index[n - 1])
				index[n++] = i;
		}
	model_seed();
	for (int i = 0; i < 100000; i++) {
		size_t k = model_random(n), at;
		uint64_t from = index[k] + model_random(2);

		b = block_tree_find(&t, index[k]);
		assert_true(!!b == there[k]);
		switch (model_random(4)) {
		case 0:
			if (b)
				break;
			assert_int_equal(block_tree_insert(&t, new_block(index[k])), 0);
			there[k] = true;
			break;
		case 1:
			if (!b)
				break;
			block_tree_remove(&t, b);
			free_block(b);
			there[k] = dirty[k] = false;
			break;
		case 2:
			if (!b)
				break;
			dirty[k] = !dirty[k];
			if (dirty[k])
				block_tree_tag_dirty(&t, index[k]);
			else
				block_tree_untag_dirty(&t, index[k]);
			break;
		default:
			for (at = 0; at < n && (index[at] < from || !there[at]);)
				at++;
			b = block_tree_next(&t, from, false);
			assert_true(at == n ? !b : b && b->e->index == index[at]);
			for (at = 0; at < n && (index[at] < from || !dirty[at]);)
				at++;
			b = block_tree_next(&t, from, true);
			assert_true(at == n ? !b : b && b->e->index == index[at]);
		}
	}
	while ((b = block_tree_next(&t, 0, false))) {
		block_tree_remove(&t, b);
		free_block(b);
	}
	assert_int_equal(t.count, 0);
	assert_null(t.root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_are_found_by_their_index),
		cmocka_unit_test(next_ascends_over_sparse_indexes),
		cmocka_unit_test(only_tagged_blocks_are_dirty),
		cmocka_unit_test(random_changes_agree_with_a_model),
		cmocka_unit_test(sparse_random_changes_agree_with_a_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
