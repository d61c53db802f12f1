/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/file_range_set.h"
#include "daemon/util/util.h"
#include "failing_alloc.h"
#include "model.h"

#define P PAGE_SIZE_

static struct range R(uint64_t start, uint64_t end) { return (struct range){ start * P, end * P }; }

static int setup(void **state)
{
	static struct file_range_set s;

	file_range_set_init(&s);
	*state = &s;
	return 0;
}

static int teardown(void **state)
{
	fail_alloc = false;
	file_range_set_free(*state);
	return 0;
}

/* The page at key `page` is backed by page `off`, with this attribute. */
static void check_at(struct file_range_set *s, uint64_t page, uint64_t off, uint64_t attr)
{
	uint64_t got_off, got_attr;
	struct range seg;

	assert_true(file_range_set_find(s, page * P, &seg, &got_off, &got_attr));
	assert_int_equal(got_off + (page * P - seg.start), off * P);
	assert_int_equal(got_attr, attr);
}

static void check_gap(struct file_range_set *s, uint64_t page)
{
	assert_false(file_range_set_find(s, page * P, NULL, NULL, NULL));
}

static void find_gives_segment_offset_and_attribute(void **state)
{
	struct file_range_set *s = *state;
	struct range seg;
	uint64_t off, attr;

	assert_int_equal(file_range_set_insert(s, R(10, 20), 5 * P, 3), 0);
	assert_true(file_range_set_find(s, 15 * P, &seg, &off, &attr));
	assert_int_equal(seg.start, 10 * P);
	assert_int_equal(seg.end, 20 * P);
	assert_int_equal(off, 5 * P);
	assert_int_equal(attr, 3);
	check_gap(s, 20);
}

static void bad_inserts_are_refused(void **state)
{
	struct file_range_set *s = *state;

	assert_int_equal(file_range_set_insert(s, R(10, 10), 0, 0), -EINVAL);
	assert_int_equal(file_range_set_insert(s, R(10, 20), UINT64_MAX - P, 0), -EOVERFLOW);
	assert_int_equal(file_range_set_insert(s, R(10, 20), 0, 0), 0);
	assert_int_equal(file_range_set_insert(s, R(19, 21), 0, 0), -EEXIST);
	assert_int_equal(s->map.n, 1);
}

static void contiguous_on_both_sides_merges(void **state)
{
	struct file_range_set *s = *state;

	file_range_set_insert(s, R(10, 20), 0, 1);
	file_range_set_insert(s, R(20, 30), 10 * P, 1);
	assert_int_equal(s->map.n, 1);
	check_at(s, 29, 19, 1);
}

static void other_offset_or_attribute_does_not_merge(void **state)
{
	struct file_range_set *s = *state;

	file_range_set_insert(s, R(10, 20), 0, 1);
	file_range_set_insert(s, R(20, 30), 11 * P, 1);
	file_range_set_insert(s, R(30, 40), 21 * P, 2);
	assert_int_equal(s->map.n, 3);
}

static void split_keeps_the_offset(void **state)
{
	struct file_range_set *s = *state;

	file_range_set_insert(s, R(10, 20), 100 * P, 1);
	assert_int_equal(file_range_set_remove(s, R(13, 15)), 0);
	check_at(s, 12, 102, 1);
	check_gap(s, 13);
	check_at(s, 15, 105, 1);
}

static void move_rekeys_and_leaves_a_gap(void **state)
{
	struct file_range_set *s = *state;

	file_range_set_insert(s, R(10, 20), 0, 1);
	assert_int_equal(file_range_set_move(s, 12 * P, 4 * P, 50 * P), 0);
	check_at(s, 11, 1, 1);
	check_gap(s, 12);
	check_gap(s, 15);
	check_at(s, 16, 6, 1);
	check_at(s, 50, 2, 1);
	check_at(s, 53, 5, 1);
	check_gap(s, 54);
}

static void move_takes_several_segments_and_their_gaps(void **state)
{
	struct file_range_set *s = *state;

	file_range_set_insert(s, R(0, 2), 10 * P, 1);
	file_range_set_insert(s, R(4, 6), 20 * P, 2);
	file_range_set_insert(s, R(100, 110), 0, 9);
	assert_int_equal(file_range_set_move(s, 0, 6 * P, 102 * P), 0);
	check_at(s, 101, 1, 9);
	check_at(s, 102, 10, 1);
	check_gap(s, 104);
	check_at(s, 106, 20, 2);
	check_at(s, 108, 8, 9);
	check_gap(s, 0);
	check_gap(s, 5);
}

static void move_may_overlap_itself(void **state)
{
	struct file_range_set *s = *state;

	file_range_set_insert(s, R(10, 20), 0, 1);
	assert_int_equal(file_range_set_move(s, 10 * P, 10 * P, 13 * P), 0);
	check_gap(s, 12);
	check_at(s, 13, 0, 1);
	check_at(s, 22, 9, 1);
	assert_int_equal(file_range_set_move(s, 13 * P, 10 * P, 9 * P), 0);
	check_at(s, 9, 0, 1);
	check_at(s, 18, 9, 1);
	check_gap(s, 19);
	assert_int_equal(s->map.n, 1);
}

static void move_to_the_same_place_changes_nothing(void **state)
{
	struct file_range_set *s = *state;

	file_range_set_insert(s, R(10, 20), 0, 1);
	assert_int_equal(file_range_set_move(s, 12 * P, 4 * P, 12 * P), 0);
	assert_int_equal(s->map.n, 1);
}

static void bad_moves_are_refused(void **state)
{
	struct file_range_set *s = *state;

	file_range_set_insert(s, R(10, 20), 0, 1);
	assert_int_equal(file_range_set_move(s, 10 * P, 0, 0), -EINVAL);
	assert_int_equal(file_range_set_move(s, 10 * P, 10 * P, UINT64_MAX - P), -EOVERFLOW);
	assert_int_equal(file_range_set_move(s, UINT64_MAX - P, 2 * P, 0), -EOVERFLOW);
	check_at(s, 10, 0, 1);
}

static void move_without_memory_changes_nothing(void **state)
{
	struct file_range_set *s = *state;

	file_range_set_insert(s, R(10, 20), 0, 1);
	fail_alloc = true;
	assert_int_equal(file_range_set_move(s, 12 * P, 4 * P, 50 * P), -ENOMEM);
	assert_int_equal(s->map.n, 1);
	check_at(s, 13, 3, 1);
}

static void copy_leaves_the_source(void **state)
{
	struct file_range_set *s = *state;

	file_range_set_insert(s, R(10, 20), 0, 1);
	assert_int_equal(file_range_set_copy(s, 10 * P, 10 * P, 50 * P), 0);
	check_at(s, 10, 0, 1);
	check_at(s, 50, 0, 1);
	check_at(s, 59, 9, 1);
}

static int note(void *arg, struct range r, uint64_t off, uint64_t attr)
{
	char *text = arg;

	snprintf(text + strlen(text), 64, "%d-%d@%d/%d ", (int)(r.start / P), (int)(r.end / P), (int)(off / P), (int)attr);
	return 0;
}

static void walk_clips_with_the_right_offset(void **state)
{
	struct file_range_set *s = *state;
	char text[128] = "";

	file_range_set_insert(s, R(10, 20), 0, 1);
	file_range_set_insert(s, R(30, 40), 50 * P, 2);
	assert_int_equal(file_range_set_walk(s, R(15, 33), note, text), 0);
	assert_string_equal(text, "15-20@5/1 30-33@50/2 ");
}

/* A store: backs key k by offset k, at most `step` bytes a call, and fails at page `bad`. */
struct source {
	uint64_t step;             /* 0: as much as is asked */
	uint64_t bad;              /* page; 0: none */
	int error;
	unsigned calls;
	uint64_t pages;
	struct range first;        /* the first gap that was asked for */
};

static int fill(void *arg, struct range gap, uint64_t *ret_off, uint64_t *ret_attr, uint64_t *ret_done)
{
	struct source *src = arg;
	uint64_t done = gap.end - gap.start;
	int err = 0;

	if (!src->calls++)
		src->first = gap;
	if (src->step)
		done = MIN(done, src->step);
	if (src->bad && gap.start <= src->bad * P && gap.start + done > src->bad * P) {
		done = src->bad * P - gap.start;
		err = src->error;
	}
	*ret_off = gap.start;
	*ret_attr = 0;
	*ret_done = done;
	src->pages += done / P;
	return err;
}

static void fill_fills_gaps_only(void **state)
{
	struct file_range_set *s = *state;
	struct source src = {};

	file_range_set_insert(s, R(4, 6), 4 * P, 0);
	assert_int_equal(file_range_set_fill(s, R(0, 10), R(0, 10), fill, &src), 0);
	assert_int_equal(src.calls, 2);
	assert_int_equal(src.pages, 8);
	assert_int_equal(s->map.n, 1);
	check_at(s, 9, 9, 0);
	assert_int_equal(file_range_set_fill(s, R(0, 10), R(0, 20), fill, &src), 0);
	assert_int_equal(src.calls, 2);
}

static void fill_offers_the_gap_as_far_as_optional(void **state)
{
	struct file_range_set *s = *state;
	struct source src = {};

	file_range_set_insert(s, R(20, 30), 20 * P, 0);
	assert_int_equal(file_range_set_fill(s, R(8, 10), R(4, 40), fill, &src), 0);
	assert_int_equal(src.first.start, 4 * P);
	assert_int_equal(src.first.end, 20 * P);
	assert_int_equal(src.calls, 1);
	check_gap(s, 3);
	check_gap(s, 30);
}

static void fill_goes_on_after_a_short_one(void **state)
{
	struct file_range_set *s = *state;
	struct source src = { .step = 3 * P };

	assert_int_equal(file_range_set_fill(s, R(0, 10), R(0, 10), fill, &src), 0);
	assert_int_equal(src.calls, 4);
	assert_int_equal(s->map.n, 1);
	check_at(s, 9, 9, 0);
}

static void fill_error_in_required_is_returned_and_progress_kept(void **state)
{
	struct file_range_set *s = *state;
	struct source src = { .bad = 6, .error = -EIO };

	assert_int_equal(file_range_set_fill(s, R(0, 10), R(0, 20), fill, &src), -EIO);
	check_at(s, 5, 5, 0);
	check_gap(s, 6);
}

static void fill_error_beyond_required_is_none(void **state)
{
	struct file_range_set *s = *state;
	struct source src = { .bad = 12, .error = -EIO };

	assert_int_equal(file_range_set_fill(s, R(0, 10), R(0, 20), fill, &src), 0);
	check_at(s, 11, 11, 0);
	check_gap(s, 12);
}

static void fill_error_below_required_is_none(void **state)
{
	struct file_range_set *s = *state;
	struct source src = { .bad = 5, .error = -EIO };

	assert_int_equal(file_range_set_fill(s, R(8, 10), R(2, 20), fill, &src), 0);
	check_at(s, 4, 4, 0);
	check_gap(s, 5);
	check_at(s, 8, 8, 0);
	check_at(s, 9, 9, 0);
}

static int fill_nothing(void *arg, struct range gap, uint64_t *ret_off, uint64_t *ret_attr, uint64_t *ret_done)
{
	++*(unsigned *)arg;
	*ret_done = P - 1;
	return 0;
}

static void fill_of_less_than_a_page_is_eio_not_a_loop(void **state)
{
	unsigned calls = 0;

	assert_int_equal(file_range_set_fill(*state, R(0, 1), R(0, 4), fill_nothing, &calls), -EIO);
	assert_int_equal(calls, 1);
	check_gap(*state, 0);
}

static int fill_too_much(void *arg, struct range gap, uint64_t *ret_off, uint64_t *ret_attr, uint64_t *ret_done)
{
	*ret_off = gap.start;
	*ret_attr = 0;
	*ret_done = UINT64_MAX;
	return 0;
}

static void fill_that_claims_too_much_is_clipped(void **state)
{
	assert_int_equal(file_range_set_fill(*state, R(0, 2), R(0, 4), fill_too_much, NULL), 0);
	check_at(*state, 3, 3, 0);
	check_gap(*state, 4);
}

static void bad_fills_are_refused(void **state)
{
	struct source src = {};

	assert_int_equal(file_range_set_fill(*state, R(1, 1), R(0, 4), fill, &src), -EINVAL);
	assert_int_equal(file_range_set_fill(*state, R(1, 5), R(0, 4), fill, &src), -EINVAL);
	assert_int_equal(file_range_set_fill(*state, R(1, 2), R(2, 4), fill, &src), -EINVAL);
	assert_int_equal(file_range_set_fill(*state, (struct range){ 5, P }, R(0, 4), fill, &src), -EINVAL);
	assert_int_equal(src.calls, 0);
}

static void truncate_drops_later_pages_and_tells_the_tail(void **state)
{
	struct file_range_set *s = *state;
	struct range tail;

	file_range_set_insert(s, R(0, 10), 100 * P, 0);
	file_range_set_truncate(s, 4 * P + 7, &tail);
	check_at(s, 4, 104, 0);
	check_gap(s, 5);
	assert_int_equal(tail.start, 104 * P + 7);
	assert_int_equal(tail.end, 105 * P);
}

static void truncate_at_a_page_or_in_a_gap_has_no_tail(void **state)
{
	struct file_range_set *s = *state;
	struct range tail;

	file_range_set_insert(s, R(0, 2), 0, 0);
	file_range_set_truncate(s, 5 * P + 7, &tail);
	assert_int_equal(tail.start, tail.end);
	file_range_set_truncate(s, P, &tail);
	assert_int_equal(tail.start, tail.end);
	check_at(s, 0, 0, 0);
	check_gap(s, 1);
	file_range_set_truncate(s, UINT64_MAX, &tail);
	check_at(s, 0, 0, 0);
	file_range_set_truncate(s, 0, NULL);
	assert_int_equal(s->map.n, 0);
}

static void truncate_needs_no_memory(void **state)
{
	struct file_range_set *s = *state;

	for (uint64_t i = 0; s->map.n == 0 || s->map.n < s->map.allocated; i++)
		assert_int_equal(file_range_set_insert(s, R(i * 10, i * 10 + 5), 0, 0), 0);
	fail_alloc = true;
	file_range_set_truncate(s, 12 * P, NULL);
	assert_int_equal(s->map.n, 2);
	check_at(s, 11, 1, 0);
	check_gap(s, 12);
}

#define PAGES 96

static void random_changes_match_a_naive_model(void **state)
{
	struct file_range_set *s = *state;
	struct { bool mapped; uint64_t off, attr; } model[2 * PAGES] = {}, moved[PAGES];

	model_seed();
	for (int i = 0; i < 20000; i++) {
		uint64_t start = model_random(PAGES), len = 1 + model_random(16), off = model_random(8), attr = model_random(2);
		uint64_t to = model_random(PAGES);
		unsigned what = (unsigned)model_random(5);

		switch (what) {
		case 0:
			file_range_set_remove(s, R(start, start + len));
			assert_int_equal(file_range_set_insert(s, R(start, start + len), off * P, attr), 0);
			for (uint64_t k = 0; k < len; k++) {
				model[start + k].mapped = true;
				model[start + k].off = off + k;
				model[start + k].attr = attr;
			}
			break;
		case 1:
			assert_int_equal(file_range_set_remove(s, R(start, start + len)), 0);
			memset(&model[start], 0, len * sizeof(model[0]));
			break;
		case 2:
		case 3:
			assert_int_equal(what == 2 ? file_range_set_move(s, start * P, len * P, to * P) :
						     file_range_set_copy(s, start * P, len * P, to * P), 0);
			memcpy(moved, &model[start], len * sizeof(model[0]));
			if (what == 2)
				memset(&model[start], 0, len * sizeof(model[0]));
			memcpy(&model[to], moved, len * sizeof(model[0]));
			break;
		case 4:
			if (model_random(8))
				break;
			file_range_set_truncate(s, start * P, NULL);
			memset(&model[start], 0, (2 * PAGES - start) * sizeof(model[0]));
			break;
		}
		for (uint64_t k = 0; k < 2 * PAGES; k++) {
			if (model[k].mapped)
				check_at(s, k, model[k].off, model[k].attr);
			else
				check_gap(s, k);
		}
		for (size_t n = 1; n < s->map.n; n++) {
			struct range_seg *g = &s->map.seg[n];

			assert_true(g[-1].r.end < g->r.start || g[-1].v.b != g->v.b ||
				    g[-1].v.a + (g[-1].r.end - g[-1].r.start) != g->v.a);
		}
	}
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(find_gives_segment_offset_and_attribute), T(bad_inserts_are_refused), T(contiguous_on_both_sides_merges),
		T(other_offset_or_attribute_does_not_merge), T(split_keeps_the_offset), T(move_rekeys_and_leaves_a_gap),
		T(move_takes_several_segments_and_their_gaps), T(move_may_overlap_itself),
		T(move_to_the_same_place_changes_nothing), T(bad_moves_are_refused),
		T(move_without_memory_changes_nothing), T(copy_leaves_the_source), T(walk_clips_with_the_right_offset),
		T(fill_fills_gaps_only), T(fill_offers_the_gap_as_far_as_optional), T(fill_goes_on_after_a_short_one),
		T(fill_error_in_required_is_returned_and_progress_kept), T(fill_error_beyond_required_is_none),
		T(fill_error_below_required_is_none), T(fill_of_less_than_a_page_is_eio_not_a_loop),
		T(fill_that_claims_too_much_is_clipped), T(bad_fills_are_refused),
		T(truncate_drops_later_pages_and_tells_the_tail), T(truncate_at_a_page_or_in_a_gap_has_no_tail),
		T(truncate_needs_no_memory), T(random_changes_match_a_naive_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
