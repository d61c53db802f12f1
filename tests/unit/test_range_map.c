/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/util/range_map.h"
#include "daemon/util/util.h"
#include "failing_alloc.h"
#include "model.h"

/* Equal a merges; b goes with the key, as an offset would, so that a split has to give each part its own. */
static bool same(struct range r1, struct range_value v1, struct range r2, struct range_value v2,
		 struct range_value *ret)
{
	if (v1.a != v2.a || v1.b + (r1.end - r1.start) != v2.b)
		return false;
	*ret = v1;
	return true;
}

static void part(struct range r, struct range_value v, uint64_t at, struct range_value *low, struct range_value *high)
{
	*low = v;
	*high = (struct range_value){ v.a, v.b + (at - r.start) };
}

static const struct range_map_functions fn = { same, part };

static struct range R(uint64_t start, uint64_t end) { return (struct range){ start, end }; }

static struct range_value V(uint64_t a, uint64_t start) { return (struct range_value){ a, start }; }

static void check_seg(const struct range_map *m, size_t i, uint64_t start, uint64_t end, uint64_t a)
{
	assert_true(i < m->n);
	assert_int_equal(m->seg[i].r.start, start);
	assert_int_equal(m->seg[i].r.end, end);
	assert_int_equal(m->seg[i].v.a, a);
	assert_int_equal(m->seg[i].v.b, start);
}

static int setup(void **state)
{
	static struct range_map m;

	range_map_init(&m, &fn);
	*state = &m;
	return 0;
}

static int teardown(void **state)
{
	fail_alloc = false;
	range_map_free(*state);
	return 0;
}

static void empty_map_finds_nothing(void **state)
{
	struct range_map *m = *state;

	assert_null(range_map_find(m, 0));
	assert_null(range_map_lower(m, 0));
	assert_int_equal(range_map_remove(m, R(0, UINT64_MAX)), 0);
	range_map_merge_range(m, R(0, UINT64_MAX));
	assert_int_equal(m->n, 0);
}

static void insert_keeps_order(void **state)
{
	struct range_map *m = *state;

	assert_int_equal(range_map_insert(m, R(20, 30), V(2, 20)), 0);
	assert_int_equal(range_map_insert(m, R(0, 10), V(1, 0)), 0);
	assert_int_equal(range_map_insert(m, R(40, 50), V(3, 40)), 0);
	assert_int_equal(m->n, 3);
	check_seg(m, 0, 0, 10, 1);
	check_seg(m, 1, 20, 30, 2);
	check_seg(m, 2, 40, 50, 3);
}

static void insert_empty_is_einval(void **state)
{
	assert_int_equal(range_map_insert(*state, R(5, 5), V(1, 5)), -EINVAL);
	assert_int_equal(range_map_insert(*state, R(6, 5), V(1, 6)), -EINVAL);
}

static void insert_overlapping_is_eexist(void **state)
{
	struct range_map *m = *state;

	assert_int_equal(range_map_insert(m, R(10, 20), V(1, 10)), 0);
	assert_int_equal(range_map_insert(m, R(19, 25), V(1, 19)), -EEXIST);
	assert_int_equal(range_map_insert(m, R(5, 11), V(1, 5)), -EEXIST);
	assert_int_equal(range_map_insert(m, R(0, 100), V(1, 0)), -EEXIST);
	assert_int_equal(range_map_insert(m, R(12, 13), V(1, 12)), -EEXIST);
	assert_int_equal(m->n, 1);
	check_seg(m, 0, 10, 20, 1);
}

static void insert_merges_below_above_and_both(void **state)
{
	struct range_map *m = *state;

	range_map_insert(m, R(10, 20), V(1, 10));
	range_map_insert(m, R(20, 30), V(1, 20));
	assert_int_equal(m->n, 1);
	check_seg(m, 0, 10, 30, 1);
	range_map_insert(m, R(5, 10), V(1, 5));
	assert_int_equal(m->n, 1);
	check_seg(m, 0, 5, 30, 1);
	range_map_insert(m, R(40, 50), V(1, 40));
	range_map_insert(m, R(30, 40), V(1, 30));
	assert_int_equal(m->n, 1);
	check_seg(m, 0, 5, 50, 1);
}

static void adjoining_segments_that_differ_stay_apart(void **state)
{
	struct range_map *m = *state;

	range_map_insert(m, R(0, 10), V(1, 0));
	range_map_insert(m, R(10, 20), V(2, 10));
	assert_int_equal(m->n, 2);
	assert_int_equal(range_map_find(m, 9)->v.a, 1);
	assert_int_equal(range_map_find(m, 10)->v.a, 2);
}

static void find_lower_and_next(void **state)
{
	struct range_map *m = *state;

	range_map_insert(m, R(10, 20), V(1, 10));
	range_map_insert(m, R(30, 40), V(2, 30));
	assert_null(range_map_find(m, 9));
	assert_ptr_equal(range_map_find(m, 10), &m->seg[0]);
	assert_ptr_equal(range_map_find(m, 19), &m->seg[0]);
	assert_null(range_map_find(m, 20));
	assert_ptr_equal(range_map_lower(m, 0), &m->seg[0]);
	assert_ptr_equal(range_map_lower(m, 20), &m->seg[1]);
	assert_null(range_map_lower(m, 40));
	assert_ptr_equal(range_map_next(m, &m->seg[0]), &m->seg[1]);
	assert_null(range_map_next(m, &m->seg[1]));
}

static void remove_splits_at_both_ends(void **state)
{
	struct range_map *m = *state;

	range_map_insert(m, R(0, 100), V(1, 0));
	assert_int_equal(range_map_remove(m, R(40, 60)), 0);
	assert_int_equal(m->n, 2);
	check_seg(m, 0, 0, 40, 1);
	check_seg(m, 1, 60, 100, 1);
}

static void remove_over_several_segments(void **state)
{
	struct range_map *m = *state;

	for (uint64_t i = 0; i < 5; i++)
		range_map_insert(m, R(i * 20, i * 20 + 10), V(i, i * 20));
	assert_int_equal(range_map_remove(m, R(5, 65)), 0);
	assert_int_equal(m->n, 3);
	check_seg(m, 0, 0, 5, 0);
	check_seg(m, 1, 65, 70, 3);
	check_seg(m, 2, 80, 90, 4);
}

static void remove_without_memory_changes_nothing(void **state)
{
	struct range_map *m = *state;

	for (uint64_t i = 0; m->n == 0 || m->n < m->allocated; i++)
		assert_int_equal(range_map_insert(m, R(i * 20, i * 20 + 10), V(i, i * 20)), 0);
	fail_alloc = true;
	assert_int_equal(range_map_remove(m, R(22, 28)), -ENOMEM);
	assert_int_equal(range_map_split_at(m, 25), -ENOMEM);
	assert_int_equal(range_map_insert(m, R(12, 18), V(9, 12)), -ENOMEM);
	assert_int_equal(range_map_fill_gaps(m, R(0, 40), V(9, 0)), -ENOMEM);
	for (uint64_t i = 0; i < m->n; i++)
		check_seg(m, i, i * 20, i * 20 + 10, i);
}

static void remove_that_makes_nothing_more_needs_no_memory(void **state)
{
	struct range_map *m = *state;

	for (uint64_t i = 0; m->n == 0 || m->n < m->allocated; i++)
		assert_int_equal(range_map_insert(m, R(i * 20, i * 20 + 10), V(i, i * 20)), 0);
	fail_alloc = true;
	assert_int_equal(range_map_remove(m, R(5, 25)), 0);
	check_seg(m, 0, 0, 5, 0);
	check_seg(m, 1, 25, 30, 1);
}

static void reserve_makes_room(void **state)
{
	struct range_map *m = *state;

	assert_int_equal(range_map_reserve(m, 100), 0);
	fail_alloc = true;
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(range_map_insert(m, R(i * 2, i * 2 + 1), V(i, i * 2)), 0);
	assert_int_equal(range_map_reserve(m, SIZE_MAX), -ENOMEM);
}

static void split_at_and_merge_range_undo_each_other(void **state)
{
	struct range_map *m = *state;

	range_map_insert(m, R(0, 100), V(1, 0));
	assert_int_equal(range_map_split_at(m, 0), 0);
	assert_int_equal(range_map_split_at(m, 100), 0);
	assert_int_equal(m->n, 1);
	assert_int_equal(range_map_split_at(m, 30), 0);
	assert_int_equal(range_map_split_at(m, 60), 0);
	assert_int_equal(m->n, 3);
	check_seg(m, 1, 30, 60, 1);
	range_map_merge_range(m, R(30, 60));
	assert_int_equal(m->n, 1);
	check_seg(m, 0, 0, 100, 1);
}

static void keys_reach_the_top(void **state)
{
	struct range_map *m = *state;

	assert_int_equal(range_map_insert(m, R(UINT64_MAX - 10, UINT64_MAX), V(1, UINT64_MAX - 10)), 0);
	assert_non_null(range_map_find(m, UINT64_MAX - 1));
	assert_null(range_map_find(m, UINT64_MAX));
	assert_int_equal(range_map_fill_gaps(m, R(UINT64_MAX - 20, UINT64_MAX), V(2, UINT64_MAX - 20)), 0);
	assert_int_equal(m->n, 2);
	assert_int_equal(range_map_remove(m, R(0, UINT64_MAX)), 0);
	assert_int_equal(m->n, 0);
}

struct seen { char text[256]; int stop_after; };

static int note(struct seen *s, char kind, struct range r, uint64_t b)
{
	size_t n = strlen(s->text);

	snprintf(s->text + n, sizeof(s->text) - n, "%c%d-%d:%d ", kind, (int)r.start, (int)r.end, (int)b);
	return s->stop_after && --s->stop_after == 0 ? 7 : 0;
}

static int note_segment(void *arg, struct range r, struct range_value v) { return note(arg, 's', r, v.b); }
static int note_gap(void *arg, struct range r) { return note(arg, 'g', r, 0); }

static void walk_clips_and_splits_values(void **state)
{
	struct range_map *m = *state;
	struct seen s = {};

	range_map_insert(m, R(0, 10), V(1, 0));
	range_map_insert(m, R(20, 40), V(2, 20));
	assert_int_equal(range_map_walk(m, R(5, 30), note_segment, note_gap, &s), 0);
	assert_string_equal(s.text, "s5-10:5 g10-20:0 s20-30:20 ");
	assert_int_equal(m->n, 2);
}

static void walk_stops_at_non_zero(void **state)
{
	struct range_map *m = *state;
	struct seen s = { .stop_after = 2 };

	range_map_insert(m, R(10, 20), V(1, 10));
	assert_int_equal(range_map_walk(m, R(0, 30), note_segment, note_gap, &s), 7);
	assert_string_equal(s.text, "g0-10:0 s10-20:10 ");
}

static void walk_of_one_kind_only(void **state)
{
	struct range_map *m = *state;
	struct seen s = {}, g = {};

	range_map_insert(m, R(10, 20), V(1, 10));
	assert_int_equal(range_map_walk(m, R(0, 30), note_segment, NULL, &s), 0);
	assert_int_equal(range_map_walk(m, R(0, 30), NULL, note_gap, &g), 0);
	assert_string_equal(s.text, "s10-20:10 ");
	assert_string_equal(g.text, "g0-10:0 g20-30:0 ");
}

#define KEYS 96

static void check_model(const struct range_map *m, const uint8_t *model)
{
	uint64_t key = 0;

	for (size_t i = 0; i < m->n; i++) {
		const struct range_seg *s = &m->seg[i];

		assert_true(s->r.start < s->r.end);
		if (i > 0)
			assert_true(m->seg[i - 1].r.end < s->r.start || m->seg[i - 1].v.a != s->v.a);
		assert_int_equal(s->v.b, s->r.start);
		for (; key < s->r.start; key++)
			assert_int_equal(model[key], 0);
		for (; key < s->r.end; key++)
			assert_int_equal(model[key], s->v.a);
	}
	for (; key < KEYS; key++)
		assert_int_equal(model[key], 0);
}

static void random_changes_match_a_naive_model(void **state)
{
	struct range_map *m = *state;
	uint8_t model[KEYS] = {};

	model_seed();
	for (int i = 0; i < 20000; i++) {
		uint64_t start = model_random(KEYS), len = model_random(12), end = MIN(start + len, KEYS);
		uint8_t a = (uint8_t)(1 + model_random(3));
		bool free_ = true;

		for (uint64_t k = start; k < end; k++)
			free_ &= !model[k];
		switch (model_random(4)) {
		case 0:
			assert_int_equal(range_map_insert(m, R(start, end), V(a, start)),
					 start == end ? -EINVAL : free_ ? 0 : -EEXIST);
			if (free_)
				memset(model + start, a, end - start);
			break;
		case 1:
			assert_int_equal(range_map_remove(m, R(start, end)), 0);
			memset(model + start, 0, end - start);
			break;
		case 2:
			assert_int_equal(range_map_split_at(m, start), 0);
			assert_int_equal(range_map_split_at(m, end), 0);
			for (struct range_seg *s = range_map_lower(m, start); s && s->r.start < end; s = range_map_next(m, s))
				s->v.a = a;
			for (uint64_t k = start; k < end; k++)
				model[k] = model[k] ? a : 0;
			range_map_merge_range(m, R(start, end));
			break;
		case 3:
			if (free_ && start < end) {
				assert_int_equal(range_map_fill_gaps(m, R(start, end), V(a, start)), 0);
				memset(model + start, a, end - start);
			}
			break;
		}
		check_model(m, model);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(empty_map_finds_nothing), T(insert_keeps_order), T(insert_empty_is_einval),
		T(insert_overlapping_is_eexist), T(insert_merges_below_above_and_both),
		T(adjoining_segments_that_differ_stay_apart), T(find_lower_and_next), T(remove_splits_at_both_ends),
		T(remove_over_several_segments), T(remove_without_memory_changes_nothing),
		T(remove_that_makes_nothing_more_needs_no_memory), T(reserve_makes_room),
		T(split_at_and_merge_range_undo_each_other), T(keys_reach_the_top), T(walk_clips_and_splits_values),
		T(walk_stops_at_non_zero), T(walk_of_one_kind_only), T(random_changes_match_a_naive_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
