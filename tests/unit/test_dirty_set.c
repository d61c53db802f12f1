/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/dirty_set.h"
#include "daemon/util/util.h"
#include "failing_alloc.h"
#include "model.h"

static struct range R(uint64_t start, uint64_t end) { return (struct range){ start, end }; }

static int setup(void **state)
{
	static struct dirty_set d;

	dirty_set_init(&d);
	*state = &d;
	return 0;
}

static int teardown(void **state)
{
	fail_alloc = false;
	dirty_set_free(*state);
	return 0;
}

static void marked_is_dirty_and_not_kept(void **state)
{
	struct dirty_set *d = *state;

	assert_int_equal(dirty_set_mark_dirty(d, R(10, 20), false), 0);
	assert_false(dirty_set_dirty_at(d, 9));
	assert_true(dirty_set_dirty_at(d, 10));
	assert_true(dirty_set_dirty_at(d, 19));
	assert_false(dirty_set_dirty_at(d, 20));
	assert_false(dirty_set_keep_at(d, 15));
}

static void marking_nothing_is_einval(void **state)
{
	assert_int_equal(dirty_set_mark_dirty(*state, R(5, 5), false), -EINVAL);
	assert_int_equal(dirty_set_mark_dirty(*state, R(6, 5), true), -EINVAL);
}

static void segments_merge_if_and_only_if_keep_is_equal(void **state)
{
	struct dirty_set *d = *state;

	dirty_set_mark_dirty(d, R(0, 10), false);
	dirty_set_mark_dirty(d, R(10, 20), false);
	assert_int_equal(d->map.n, 1);
	dirty_set_mark_dirty(d, R(20, 30), true);
	assert_int_equal(d->map.n, 2);
	dirty_set_mark_dirty(d, R(30, 40), true);
	assert_int_equal(d->map.n, 2);
}

static void marking_dirty_never_lowers_keep(void **state)
{
	struct dirty_set *d = *state;

	dirty_set_mark_dirty(d, R(10, 20), true);
	assert_int_equal(dirty_set_mark_dirty(d, R(0, 30), false), 0);
	assert_int_equal(d->map.n, 3);
	assert_false(dirty_set_keep_at(d, 9));
	assert_true(dirty_set_keep_at(d, 10));
	assert_true(dirty_set_keep_at(d, 19));
	assert_false(dirty_set_keep_at(d, 20));
}

static void marking_kept_raises_what_is_dirty(void **state)
{
	struct dirty_set *d = *state;

	dirty_set_mark_dirty(d, R(0, 30), false);
	assert_int_equal(dirty_set_mark_dirty(d, R(10, 20), true), 0);
	assert_int_equal(d->map.n, 3);
	assert_true(dirty_set_keep_at(d, 15));
	assert_false(dirty_set_keep_at(d, 25));
}

static void marking_clean_skips_keep(void **state)
{
	struct dirty_set *d = *state;

	dirty_set_mark_dirty(d, R(0, 30), false);
	dirty_set_mark_dirty(d, R(10, 20), true);
	assert_int_equal(dirty_set_mark_clean(d, R(0, 30)), 0);
	assert_int_equal(d->map.n, 1);
	assert_false(dirty_set_dirty_at(d, 5));
	assert_true(dirty_set_keep_at(d, 15));
	assert_false(dirty_set_dirty_at(d, 25));
}

static void marking_clean_splits_and_copies_the_value(void **state)
{
	struct dirty_set *d = *state;

	dirty_set_mark_dirty(d, R(0, 30), false);
	assert_int_equal(dirty_set_mark_clean(d, R(10, 20)), 0);
	assert_int_equal(d->map.n, 2);
	assert_true(dirty_set_dirty_at(d, 9));
	assert_false(dirty_set_any(d, R(10, 20)));
	assert_true(dirty_set_dirty_at(d, 20));
	dirty_set_mark_dirty(d, R(100, 130), true);
	assert_int_equal(dirty_set_forget(d, R(110, 120)), 0);
	assert_true(dirty_set_keep_at(d, 109));
	assert_true(dirty_set_keep_at(d, 120));
	assert_false(dirty_set_dirty_at(d, 115));
}

static void cleaning_within_a_kept_segment_leaves_it_whole(void **state)
{
	struct dirty_set *d = *state;

	dirty_set_mark_dirty(d, R(0, 30), true);
	assert_int_equal(dirty_set_mark_clean(d, R(10, 20)), 0);
	assert_int_equal(d->map.n, 1);
	assert_true(dirty_set_keep_at(d, 15));
}

static void allow_clean_leaves_dirty_and_lets_clean(void **state)
{
	struct dirty_set *d = *state;

	dirty_set_mark_dirty(d, R(0, 30), true);
	assert_int_equal(dirty_set_allow_clean(d, R(10, 20)), 0);
	assert_true(dirty_set_dirty_at(d, 15));
	assert_false(dirty_set_keep_at(d, 15));
	assert_true(dirty_set_keep_at(d, 5));
	dirty_set_mark_clean(d, R(0, 30));
	assert_false(dirty_set_dirty_at(d, 15));
	assert_true(dirty_set_dirty_at(d, 25));
}

static void allow_clean_makes_nothing_dirty(void **state)
{
	struct dirty_set *d = *state;

	assert_int_equal(dirty_set_allow_clean(d, R(0, 30)), 0);
	assert_false(dirty_set_any(d, R(0, 30)));
}

static void any_and_any_keep_look_at_the_range_only(void **state)
{
	struct dirty_set *d = *state;

	dirty_set_mark_dirty(d, R(10, 20), false);
	dirty_set_mark_dirty(d, R(20, 30), true);
	assert_false(dirty_set_any(d, R(0, 10)));
	assert_true(dirty_set_any(d, R(0, 11)));
	assert_false(dirty_set_any(d, R(15, 15)));
	assert_false(dirty_set_any_keep(d, R(0, 20)));
	assert_true(dirty_set_any_keep(d, R(0, 21)));
	assert_false(dirty_set_any(d, R(30, 99)));
}

static int note(void *arg, struct range r, bool keep)
{
	char *text = arg;

	snprintf(text + strlen(text), 64, "%d-%d%s ", (int)r.start, (int)r.end, keep ? "k" : "");
	return r.start >= 20 ? 5 : 0;
}

static void walk_is_ascending_clipped_and_stops(void **state)
{
	struct dirty_set *d = *state;
	char text[256] = "";

	dirty_set_mark_dirty(d, R(20, 30), false);
	dirty_set_mark_dirty(d, R(10, 20), true);
	dirty_set_mark_dirty(d, R(40, 50), true);
	assert_int_equal(dirty_set_walk(d, R(15, 60), note, text), 5);
	assert_string_equal(text, "15-20k 20-30 ");
}

static void out_of_memory_changes_nothing(void **state)
{
	struct dirty_set *d = *state;
	size_t n;

	for (uint64_t i = 0; i < 6; i++)
		assert_int_equal(dirty_set_mark_dirty(d, R(i * 20, i * 20 + 10), i & 1), 0);
	d->map.allocated = d->map.n;       /* no room is left */
	n = d->map.n;
	fail_alloc = true;
	assert_int_equal(dirty_set_mark_dirty(d, R(2, 18), true), -ENOMEM);
	assert_int_equal(dirty_set_mark_dirty(d, R(2, 18), false), -ENOMEM);
	assert_int_equal(dirty_set_mark_clean(d, R(2, 8)), -ENOMEM);
	assert_int_equal(dirty_set_allow_clean(d, R(22, 28)), -ENOMEM);
	assert_int_equal(dirty_set_forget(d, R(2, 8)), -ENOMEM);
	assert_int_equal(d->map.n, n);
	assert_true(dirty_set_dirty_at(d, 5) && !dirty_set_keep_at(d, 5));
	assert_true(dirty_set_keep_at(d, 25));
	assert_false(dirty_set_dirty_at(d, 15));
}

#define KEYS 96

static void random_changes_match_a_naive_model(void **state)
{
	struct dirty_set *d = *state;
	uint8_t model[KEYS] = {};  /* 0 clean, 1 dirty, 2 kept */

	model_seed();
	for (int i = 0; i < 20000; i++) {
		uint64_t start = model_random(KEYS), len = 1 + model_random(20), end = MIN(start + len, KEYS);
		unsigned what = (unsigned)model_random(5);

		switch (what) {
		case 0: assert_int_equal(dirty_set_mark_dirty(d, R(start, end), false), 0); break;
		case 1: assert_int_equal(dirty_set_mark_dirty(d, R(start, end), true), 0); break;
		case 2: assert_int_equal(dirty_set_mark_clean(d, R(start, end)), 0); break;
		case 3: assert_int_equal(dirty_set_allow_clean(d, R(start, end)), 0); break;
		case 4: assert_int_equal(dirty_set_forget(d, R(start, end)), 0); break;
		}
		for (uint64_t k = start; k < end; k++) {
			switch (what) {
			case 0: model[k] = MAX(model[k], 1); break;
			case 1: model[k] = 2; break;
			case 2: model[k] = model[k] == 1 ? 0 : model[k]; break;
			case 3: model[k] = MIN(model[k], 1); break;
			case 4: model[k] = 0; break;
			}
		}
		for (uint64_t k = 0; k < KEYS; k++) {
			assert_int_equal(dirty_set_dirty_at(d, k), model[k] > 0);
			assert_int_equal(dirty_set_keep_at(d, k), model[k] == 2);
		}
		for (size_t s = 1; s < d->map.n; s++)
			assert_true(d->map.seg[s - 1].r.end < d->map.seg[s].r.start ||
				    d->map.seg[s - 1].v.a != d->map.seg[s].v.a);
	}
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(marked_is_dirty_and_not_kept), T(marking_nothing_is_einval),
		T(segments_merge_if_and_only_if_keep_is_equal), T(marking_dirty_never_lowers_keep),
		T(marking_kept_raises_what_is_dirty), T(marking_clean_skips_keep),
		T(marking_clean_splits_and_copies_the_value), T(cleaning_within_a_kept_segment_leaves_it_whole),
		T(allow_clean_leaves_dirty_and_lets_clean), T(allow_clean_makes_nothing_dirty),
		T(any_and_any_keep_look_at_the_range_only), T(walk_is_ascending_clipped_and_stops),
		T(out_of_memory_changes_nothing), T(random_changes_match_a_naive_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
