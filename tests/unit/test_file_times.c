/* SPDX-License-Identifier: Apache-2.0 */
/* What times a file shows, while clients, the cache's own write-outs and others past the cache change them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/file_times.h"
#include "daemon/util/util.h"

/* Moments are milliseconds; the coarse clock ticks every four. */
static struct timespec at(uint64_t ms) { return (struct timespec){ .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 + 1 }; }
static struct file_now now(uint64_t ms) { return (struct file_now){ .coarse = at(ms / 4 * 4), .exact = at(ms) }; }
static struct store_stat store(uint64_t mtime, uint64_t ctime) { return (struct store_stat){ .mtime = at(mtime), .ctime = at(ctime) }; }

static void is_time(struct timespec t, uint64_t ms)
{
	assert_int_equal(t.tv_sec, ms / 1000);
	assert_int_equal(t.tv_nsec, (ms % 1000) * 1000000 + 1);
}

static void shows(const struct pgc_times *t, uint64_t when, struct store_stat st, uint64_t mtime, uint64_t ctime)
{
	struct timespec m, c;

	file_times_show(t, now(when), &st, &m, &c);
	is_time(m, mtime);
	is_time(c, ctime);
}

/* Looked at when the store had mtime 1000 and ctime 2000. */
static struct pgc_times opened(void)
{
	struct pgc_times t = { 0 };
	struct store_stat st = store(1000, 2000);

	file_times_looked(&t, now(5000), &st, true);
	return t;
}

static void looked(struct pgc_times *t, uint64_t when, struct store_stat st, bool quiet) { file_times_looked(t, now(when), &st, quiet); }

/* A write-out that begins at `from`, ends at `to` and is settled then, by a store that lets us; `ctime`: of the restoring. */
static void written_out(struct pgc_times *t, uint64_t from, uint64_t to, uint64_t ctime)
{
	struct store_restore r;

	file_times_moving(t, now(from));
	file_times_restore(t, &r);
	r.found = store(to, to);
	r.after = r.found;
	r.after.mtime = r.to;
	r.after.ctime = at(ctime);
	file_times_restored(t, now(ctime), &r, true);
}

static void the_stores_times_are_shown_at_first(void **state)
{
	struct pgc_times t = { 0 };

	shows(&t, 5000, store(1000, 2000), 1000, 2000);
	t = opened();
	shows(&t, 5000, store(1000, 2000), 1000, 2000);
}

static void a_clients_change_moves_both_at_once(void **state)
{
	struct pgc_times t = opened();

	file_times_changed(&t, now(6002));
	shows(&t, 6003, store(1000, 2000), 6000, 6000); /* as the kernel would have stamped it */
	file_times_changed(&t, now(7000));
	shows(&t, 7000, store(1000, 2000), 7000, 7000);
}

/* The kernel gives a stamp of the exact clock where somebody has looked at the one before, and none that is earlier after it. */
static void no_time_goes_back_where_stamps_are_finer_than_the_clock(void **state)
{
	struct pgc_times t = { 0 };
	struct store_stat st = store(6002, 6002);

	looked(&t, 6002, st, true);
	file_times_changed(&t, now(6003)); /* the clock says 6000 */
	shows(&t, 6003, st, 6002, 6002);
	looked(&t, 6003, st, true);
	shows(&t, 6003, st, 6002, 6002);
	file_times_changed(&t, now(6004));
	shows(&t, 6004, st, 6004, 6004);

	/* By somebody past the cache, since the last look. */
	t = opened();
	st = store(6002, 6002);
	file_times_changed(&t, now(6003));
	shows(&t, 6003, st, 6002, 6002);

	/* One that is ahead of all clocks is no measure: somebody has set the clock back. */
	t = opened();
	file_times_changed(&t, now(1500));
	shows(&t, 1500, store(1000, 2000), 1500, 2000);
}

static void a_write_out_moves_neither(void **state)
{
	struct pgc_times t = opened();

	file_times_changed(&t, now(6000));
	looked(&t, 9000, store(1000, 2000), true);
	shows(&t, 9000, store(1000, 2000), 6000, 6000);
	file_times_moving(&t, now(9000));
	shows(&t, 9001, store(1000, 2000), 6000, 6000);
	shows(&t, 9004, store(9004, 9004), 6000, 6000);
	written_out(&t, 9000, 9004, 9008);
	shows(&t, 9100, store(6000, 9008), 6000, 6000);
}

static void what_is_put_back_is_the_last_change(void **state)
{
	struct pgc_times t = opened();
	struct store_restore r;

	file_times_changed(&t, now(6000));
	file_times_moving(&t, now(9000));
	file_times_restore(&t, &r);
	is_time(r.to, 6000);
	is_time(r.since, 9000);
}

static void a_stat_while_it_is_put_back_shows_the_same(void **state)
{
	struct pgc_times t = opened();
	struct store_restore r;

	file_times_changed(&t, now(6000));
	file_times_moving(&t, now(9000));
	file_times_restore(&t, &r);
	shows(&t, 9010, store(6000, 9008), 6000, 6000);
}

static void a_change_while_it_is_put_back_is_not_lost(void **state)
{
	struct pgc_times t = opened();
	struct store_restore r;

	file_times_changed(&t, now(6000));
	file_times_moving(&t, now(9000));
	file_times_restore(&t, &r);
	file_times_changed(&t, now(9020));
	r.found = store(9004, 9004);
	r.after = store(6000, 9021);
	file_times_restored(&t, now(9030), &r, true);
	shows(&t, 9030, store(6000, 9021), 9020, 9020);
	file_times_moving(&t, now(9100));
	file_times_restore(&t, &r);
	is_time(r.to, 9020);
}

static void a_store_that_does_not_let_us_shows_the_right_time_all_the_same(void **state)
{
	struct pgc_times t = opened();
	struct store_restore r;

	file_times_changed(&t, now(6000));
	file_times_moving(&t, now(9000));
	file_times_restore(&t, &r);
	r.found = r.after = store(9004, 9004);
	file_times_restored(&t, now(9010), &r, true);
	shows(&t, 9100, store(9004, 9004), 6000, 6000);
}

static void a_chmod_past_the_cache_moves_the_ctime_only(void **state)
{
	struct pgc_times t = opened();

	written_out(&t, 3000, 3004, 3008);
	shows(&t, 9000, store(1000, 8000), 1000, 8000);
	file_times_changed(&t, now(8500));
	shows(&t, 9000, store(1000, 8000), 8500 / 4 * 4, 8500 / 4 * 4);
}

static void a_chmod_does_not_hide_a_change_before_it(void **state)
{
	struct pgc_times t = opened();

	file_times_changed(&t, now(6000));
	shows(&t, 9000, store(1000, 8000), 6000, 8000);
}

static void an_mtime_set_after_a_change_stays(void **state)
{
	struct pgc_times t = opened();

	file_times_changed(&t, now(6000));
	shows(&t, 9000, store(500, 7000), 500, 7000);
	/* Nor does a write-out undo it, which looks before it begins. */
	looked(&t, 9000, store(500, 7000), true);
	written_out(&t, 9000, 9004, 9008);
	shows(&t, 9100, store(500, 9008), 500, 7000);
}

static void a_change_after_an_mtime_was_set_stands(void **state)
{
	struct pgc_times t = opened();

	file_times_changed(&t, now(8000));
	shows(&t, 9000, store(500, 7000), 8000, 8000);
	looked(&t, 9000, store(500, 7000), true);
	shows(&t, 9000, store(500, 7000), 8000, 8000);
}

static void an_mtime_set_between_write_out_and_look_stays(void **state)
{
	struct pgc_times t = opened();
	struct store_restore r;

	file_times_changed(&t, now(6000));
	file_times_moving(&t, now(9000));
	shows(&t, 9010, store(500, 9006), 500, 9006);
	file_times_restore(&t, &r);
	r.found = r.after = store(500, 9006); /* neither left nor since the write: the store does not touch it */
	file_times_restored(&t, now(9010), &r, true);
	shows(&t, 9100, store(500, 9006), 500, 9006);
}

static void an_mtime_in_the_future_is_not_ours(void **state)
{
	struct pgc_times t = opened();

	file_times_moving(&t, now(9000));
	shows(&t, 9010, store(99000, 9006), 99000, 9006);
}

static void an_mtime_of_whole_seconds_may_be_ours(void **state)
{
	struct pgc_times t = opened();
	struct store_stat st = { .mtime = { .tv_sec = 9 }, .ctime = { .tv_sec = 9 } };

	file_times_changed(&t, now(6000));
	file_times_moving(&t, now(9500));
	shows(&t, 9600, st, 6000, 6000);
}

static void an_old_stat_shows_what_is_known_since(void **state)
{
	struct pgc_times t = opened();

	file_times_changed(&t, now(6000));
	written_out(&t, 9000, 9004, 9008);
	shows(&t, 9100, store(1000, 2000), 6000, 6000);
}

static void a_clock_that_was_set_back_does_not_hide_what_others_do(void **state)
{
	struct pgc_times t = opened();

	looked(&t, 1500, store(1400, 1500), true);
	shows(&t, 1500, store(1400, 1500), 1400, 1500);
}

static void a_look_during_a_write_leaves_it_open_whose_the_mtime_is(void **state)
{
	struct pgc_times t = opened();

	file_times_changed(&t, now(6000));
	file_times_moving(&t, now(9000));
	looked(&t, 9010, store(9004, 9004), false);
	assert_true(t.moved);
	shows(&t, 9020, store(9016, 9016), 6000, 6000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_stores_times_are_shown_at_first),
		cmocka_unit_test(a_clients_change_moves_both_at_once),
		cmocka_unit_test(no_time_goes_back_where_stamps_are_finer_than_the_clock), cmocka_unit_test(a_write_out_moves_neither),
		cmocka_unit_test(what_is_put_back_is_the_last_change),
		cmocka_unit_test(a_stat_while_it_is_put_back_shows_the_same),
		cmocka_unit_test(a_change_while_it_is_put_back_is_not_lost),
		cmocka_unit_test(a_store_that_does_not_let_us_shows_the_right_time_all_the_same),
		cmocka_unit_test(a_chmod_past_the_cache_moves_the_ctime_only),
		cmocka_unit_test(a_chmod_does_not_hide_a_change_before_it),
		cmocka_unit_test(an_mtime_set_after_a_change_stays),
		cmocka_unit_test(a_change_after_an_mtime_was_set_stands),
		cmocka_unit_test(an_mtime_set_between_write_out_and_look_stays),
		cmocka_unit_test(an_mtime_in_the_future_is_not_ours),
		cmocka_unit_test(an_mtime_of_whole_seconds_may_be_ours),
		cmocka_unit_test(an_old_stat_shows_what_is_known_since),
		cmocka_unit_test(a_clock_that_was_set_back_does_not_hide_what_others_do),
		cmocka_unit_test(a_look_during_a_write_leaves_it_open_whose_the_mtime_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
