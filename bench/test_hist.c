/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the histograms of latencies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "run.h"

static struct hist h, other;

static int empty(void **state)
{
	h = other = (struct hist){ 0 };
	return 0;
}

static void test_value_is_near(void **state)
{
	for (uint64_t ns = 1; ns < 60000000000ull; ns += ns / 50 + 1) {
		double got;

		h = (struct hist){ 0 };
		hist_add(&h, ns);
		got = hist_quantile(&h, .5);
		assert_true(got >= (double)ns * (1 - 1.0 / HIST_SUB) && got <= (double)ns * (1 + 1.0 / HIST_SUB));
	}
}

static void test_more_is_never_less(void **state)
{
	for (unsigned i = 1; i < HIST_BUCKETS; i++)
		assert_true(hist_value(i) > hist_value(i - 1));
}

static void test_quantiles(void **state)
{
	for (uint64_t ns = 1000; ns >= 1; ns--)
		hist_add(&h, ns * 1000);
	assert_in_range((uint64_t)hist_quantile(&h, .5), 484000, 516000);
	assert_in_range((uint64_t)hist_quantile(&h, .99), 959000, 1021000);
	assert_in_range((uint64_t)hist_quantile(&h, .999), 968000, 1031000);
	assert_in_range((uint64_t)hist_quantile(&h, 0), 968, 1031);
}

static void test_merged(void **state)
{
	for (int i = 0; i < 90; i++)
		hist_add(&h, 10);
	for (int i = 0; i < 10; i++)
		hist_add(&other, 20);
	hist_merge(&h, &other);
	assert_int_equal(h.n, 100);
	assert_int_equal((int)hist_quantile(&h, .9), 10);
	assert_int_equal((int)hist_quantile(&h, .91), 20);
}

static void test_longest_has_a_bucket(void **state)
{
	hist_add(&h, UINT64_MAX);
	assert_int_equal(h.bucket[HIST_BUCKETS - 1], 1);
}

static void test_empty_is_zero(void **state)
{
	assert_true(hist_quantile(&h, .5) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_value_is_near, empty), cmocka_unit_test_setup(test_more_is_never_less, empty),
		cmocka_unit_test_setup(test_quantiles, empty), cmocka_unit_test_setup(test_merged, empty),
		cmocka_unit_test_setup(test_longest_has_a_bucket, empty), cmocka_unit_test_setup(test_empty_is_zero, empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
