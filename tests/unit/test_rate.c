/* SPDX-License-Identifier: Apache-2.0 */
/* The rate of late: what the last seconds count, and what is forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/util/rate.h"

#define SECOND 1000000000ull

static void nothing_is_no_rate(void **state)
{
	const struct rate r = { 0 };

	assert_int_equal(rate_of(&r, 0), 0);
	assert_int_equal(rate_of(&r, 1000 * SECOND), 0);
}

static void steady_stream_is_its_rate(void **state)
{
	struct rate r = { 0 };

	for (uint64_t t = 0; t < 100; t++)
		rate_add(&r, 1000 * SECOND + t * SECOND / 10, 100);
	assert_int_equal(rate_of(&r, 1010 * SECOND), 1000);
	rate_add(&r, 1010 * SECOND, 500);
	assert_int_equal(rate_of(&r, 1010 * SECOND + SECOND / 2), 1000);
}

static void burst_is_spread_over_the_seconds(void **state)
{
	struct rate r = { 0 };

	rate_add(&r, 1000 * SECOND, 5000);
	assert_int_equal(rate_of(&r, 1000 * SECOND), 1000);
	assert_int_equal(rate_of(&r, 1005 * SECOND), 1000);
}

static void what_is_long_past_is_forgotten(void **state)
{
	struct rate r = { 0 };

	rate_add(&r, 1000 * SECOND, 5000);
	assert_int_equal(rate_of(&r, 1006 * SECOND), 0);
	/* The same bucket, eight seconds later, starts from nothing. */
	rate_add(&r, 1008 * SECOND, 50);
	assert_int_equal(rate_of(&r, 1008 * SECOND), 10);
}

static void add_of_a_later_second_is_not_counted_yet(void **state)
{
	struct rate r = { 0 };

	/* The reader's clock was read before the writer's. */
	rate_add(&r, 1001 * SECOND, 5000);
	assert_int_equal(rate_of(&r, 1000 * SECOND), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_no_rate),
		cmocka_unit_test(steady_stream_is_its_rate),
		cmocka_unit_test(burst_is_spread_over_the_seconds),
		cmocka_unit_test(what_is_long_past_is_forgotten),
		cmocka_unit_test(add_of_a_later_second_is_not_counted_yet),
	};

	return cmocka_run_group_tests_name("rate", tests, NULL, NULL);
}
