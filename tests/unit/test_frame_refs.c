/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/frame_refs.h"
#include "daemon/util/util.h"
#include "failing_alloc.h"
#include "model.h"

#define P PAGE_SIZE_
#define GROUPS 4

static int64_t charged[GROUPS];
static unsigned calls;

static void charge(void *arg, uint64_t cgroup, uint64_t bytes)
{
	assert_ptr_equal(arg, charged);
	charged[cgroup] += (int64_t)bytes;
	calls++;
}

static void uncharge(void *arg, uint64_t cgroup, uint64_t bytes)
{
	assert_ptr_equal(arg, charged);
	charged[cgroup] -= (int64_t)bytes;
	assert_true(charged[cgroup] >= 0);
	calls++;
}

static const struct frame_refs_functions fn = { charge, uncharge };

static struct range R(uint64_t first, uint64_t end) { return (struct range){ first * P, end * P }; }

static int setup(void **state)
{
	static struct frame_refs f;

	memset(charged, 0, sizeof(charged));
	calls = 0;
	frame_refs_init(&f, &fn, charged);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	fail_alloc = false;
	frame_refs_free(*state);
	for (int i = 0; i < GROUPS; i++)
		assert_int_equal(charged[i], 0);
	return 0;
}

static void first_reference_charges_its_cgroup(void **state)
{
	struct frame_refs *f = *state;
	uint64_t cgroup = 0;

	assert_int_equal(frame_refs_at(f, 0, &cgroup), 0);
	assert_int_equal(frame_refs_inc(f, R(0, 4), 1), 0);
	assert_int_equal(charged[1], 4 * P);
	assert_int_equal(frame_refs_at(f, 3 * P, &cgroup), 1);
	assert_int_equal(cgroup, 1);
	assert_int_equal(frame_refs_at(f, 4 * P, NULL), 0);
}

static void second_reference_charges_nobody(void **state)
{
	struct frame_refs *f = *state;
	uint64_t cgroup = 0;

	frame_refs_inc(f, R(0, 4), 1);
	frame_refs_inc(f, R(0, 4), 2);
	assert_int_equal(calls, 1);
	assert_int_equal(charged[2], 0);
	assert_int_equal(frame_refs_at(f, 0, &cgroup), 2);
	assert_int_equal(cgroup, 1);
}

static void last_dereference_uncharges_the_first_toucher(void **state)
{
	struct frame_refs *f = *state;

	frame_refs_inc(f, R(0, 4), 1);
	frame_refs_inc(f, R(0, 4), 2);
	assert_int_equal(frame_refs_dec(f, R(0, 4)), 0);
	assert_int_equal(charged[1], 4 * P);
	assert_int_equal(frame_refs_dec(f, R(0, 4)), 0);
	assert_int_equal(charged[1], 0);
	assert_int_equal(f->map.n, 0);
	frame_refs_inc(f, R(0, 4), 2);
	assert_int_equal(charged[2], 4 * P);
}

static void overlap_charges_only_what_is_new(void **state)
{
	struct frame_refs *f = *state;

	frame_refs_inc(f, R(2, 4), 1);
	frame_refs_inc(f, R(6, 8), 1);
	frame_refs_inc(f, R(0, 10), 2);
	assert_int_equal(charged[1], 4 * P);
	assert_int_equal(charged[2], 6 * P);
	assert_int_equal(frame_refs_at(f, 5 * P, NULL), 1);
	assert_int_equal(frame_refs_at(f, 6 * P, NULL), 2);
	assert_int_equal(frame_refs_max(f, R(0, 2)), 1);
	assert_int_equal(frame_refs_max(f, R(0, 10)), 2);
	assert_int_equal(frame_refs_max(f, R(10, 20)), 0);
}

static void neighbours_merge_if_count_and_cgroup_are_equal(void **state)
{
	struct frame_refs *f = *state;

	frame_refs_inc(f, R(0, 2), 1);
	frame_refs_inc(f, R(2, 4), 1);
	assert_int_equal(f->map.n, 1);
	frame_refs_inc(f, R(4, 6), 2);
	assert_int_equal(f->map.n, 2);
	frame_refs_inc(f, R(0, 2), 1);
	assert_int_equal(f->map.n, 3);
	frame_refs_dec(f, R(0, 2));
	assert_int_equal(f->map.n, 2);
}

static void dereference_without_reference_is_refused_whole(void **state)
{
	struct frame_refs *f = *state;

	assert_int_equal(frame_refs_dec(f, R(0, 1)), -EINVAL);
	frame_refs_inc(f, R(0, 4), 1);
	assert_int_equal(frame_refs_dec(f, R(2, 5)), -EINVAL);
	assert_int_equal(frame_refs_at(f, 2 * P, NULL), 1);
	assert_int_equal(f->map.n, 1);
	assert_int_equal(charged[1], 4 * P);
}

static void ranges_that_are_not_whole_pages_are_einval(void **state)
{
	struct frame_refs *f = *state;

	assert_int_equal(frame_refs_inc(f, (struct range){ 0, 0 }, 1), -EINVAL);
	assert_int_equal(frame_refs_inc(f, (struct range){ P, 0 }, 1), -EINVAL);
	assert_int_equal(frame_refs_inc(f, (struct range){ 1, P }, 1), -EINVAL);
	assert_int_equal(frame_refs_inc(f, (struct range){ 0, P + 1 }, 1), -EINVAL);
	assert_int_equal(frame_refs_dec(f, (struct range){ 0, 17 }), -EINVAL);
	assert_int_equal(f->map.n, 0);
}

static void count_that_would_overflow_is_refused_whole(void **state)
{
	struct frame_refs *f = *state;

	frame_refs_inc(f, R(2, 3), 1);
	f->map.seg[0].v.a = UINT32_MAX;
	assert_int_equal(frame_refs_inc(f, R(0, 4), 1), -EOVERFLOW);
	assert_int_equal(f->map.n, 1);
	assert_int_equal(charged[1], P);
	assert_int_equal(frame_refs_at(f, 2 * P, NULL), UINT32_MAX);
}

static void out_of_memory_changes_nothing(void **state)
{
	struct frame_refs *f = *state;
	size_t n;

	for (uint64_t i = 0; i < 6; i++)
		assert_int_equal(frame_refs_inc(f, R(i * 4, i * 4 + 3), 1), 0);
	f->map.allocated = f->map.n;       /* no room is left */
	n = f->map.n;
	calls = 0;
	fail_alloc = true;
	assert_int_equal(frame_refs_inc(f, R(1, 6), 2), -ENOMEM);
	assert_int_equal(frame_refs_dec(f, R(1, 2)), -ENOMEM);
	assert_int_equal(f->map.n, n);
	assert_int_equal(calls, 0);
	assert_int_equal(frame_refs_max(f, R(0, 1000)), 1);
}

static void free_uncharges_the_rest(void **state)
{
	struct frame_refs *f = *state;

	frame_refs_inc(f, R(0, 4), 1);
	frame_refs_inc(f, R(2, 6), 2);
	frame_refs_free(f);
	assert_int_equal(charged[1], 0);
	assert_int_equal(charged[2], 0);
}

static void without_functions_it_only_counts(void **state)
{
	struct frame_refs f;

	frame_refs_init(&f, NULL, NULL);
	assert_int_equal(frame_refs_inc(&f, R(0, 4), 3), 0);
	assert_int_equal(frame_refs_dec(&f, R(0, 2)), 0);
	assert_int_equal(frame_refs_at(&f, 2 * P, NULL), 1);
	frame_refs_free(&f);
	assert_int_equal(calls, 0);
}

#define PAGES 64

static void random_changes_match_a_naive_model(void **state)
{
	struct frame_refs *f = *state;
	struct { uint32_t refs; uint64_t cgroup; } model[PAGES] = {};

	model_seed();
	for (int i = 0; i < 20000; i++) {
		uint64_t start = model_random(PAGES), len = 1 + model_random(12), end = MIN(start + len, PAGES);
		uint64_t cgroup = model_random(GROUPS);
		int64_t sums[GROUPS] = {};
		bool whole = true;

		if (model_random(2)) {
			assert_int_equal(frame_refs_inc(f, R(start, end), cgroup), 0);
			for (uint64_t p = start; p < end; p++)
				if (!model[p].refs++)
					model[p].cgroup = cgroup;
		} else {
			for (uint64_t p = start; p < end; p++)
				whole &= model[p].refs > 0;
			assert_int_equal(frame_refs_dec(f, R(start, end)), whole ? 0 : -EINVAL);
			for (uint64_t p = start; whole && p < end; p++)
				model[p].refs--;
		}
		for (uint64_t p = 0; p < PAGES; p++) {
			uint64_t got = 0;

			assert_int_equal(frame_refs_at(f, p * P + 1, &got), model[p].refs);
			if (model[p].refs) {
				assert_int_equal(got, model[p].cgroup);
				sums[got] += (int64_t)P;
			}
		}
		assert_memory_equal(sums, charged, sizeof(sums));
		for (size_t s = 0; s < f->map.n; s++) {
			const struct range_seg *g = &f->map.seg[s];

			assert_true(g->v.a > 0);
			if (s > 0 && g[-1].r.end == g->r.start)
				assert_true(g[-1].v.a != g->v.a || g[-1].v.b != g->v.b);
		}
	}
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(first_reference_charges_its_cgroup), T(second_reference_charges_nobody),
		T(last_dereference_uncharges_the_first_toucher), T(overlap_charges_only_what_is_new),
		T(neighbours_merge_if_count_and_cgroup_are_equal), T(dereference_without_reference_is_refused_whole),
		T(ranges_that_are_not_whole_pages_are_einval), T(count_that_would_overflow_is_refused_whole),
		T(out_of_memory_changes_nothing), T(free_uncharges_the_rest), T(without_functions_it_only_counts),
		T(random_changes_match_a_naive_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
