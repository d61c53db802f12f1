/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of fstat(2) without a request: what in the control page counts and what does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "libclient/internal.h"

static struct pgc_control_page page;
static uint32_t life;
static struct pgc_file file;
static struct stat st;

/* Clean, 10,000 bytes, last changed at 100 by a client and written out at 200. */
static void begin(void)
{
	page = (struct pgc_control_page){
		.stat_seq = 6,
		.shown = { .size = 10000, .times = { .known = true, .mtime = { 100, 1 }, .ctime = { 100, 1 }, .left_mtime = { 100, 1 }, .left_ctime = { 200, 2 } } },
	};
	life = 0x1234;
	file = (struct pgc_file){ .control = &page, .life = &life, .life_of = 1, .controls = 1 };
	st = (struct stat){ .st_mode = S_IFREG | 0644, .st_size = 5, .st_blocks = 24, .st_mtim = { 100, 1 }, .st_ctim = { 200, 2 }, .st_nlink = 3 };
}

static bool look_and_show(void)
{
	struct stat_look look;

	return stat_look(&file, &look) && stat_shown(&file, &look, &st);
}

static void size_blocks_and_times_are_what_the_daemon_shows(void **state)
{
	begin();
	assert_true(look_and_show());
	assert_int_equal(st.st_size, 10000);
	assert_int_equal(st.st_blocks, 24);
	assert_int_equal(st.st_mtim.tv_sec, 100);
	assert_int_equal(st.st_ctim.tv_sec, 100);
	assert_int_equal(st.st_nlink, 3);
	assert_int_equal(st.st_mode, S_IFREG | 0644);
}

static void what_is_not_written_counts_up_to_a_file_without_holes(void **state)
{
	begin();
	st.st_blocks = 0;
	page.shown.unwritten = 1;
	assert_true(look_and_show());
	assert_int_equal(st.st_blocks, 8);
	page.shown.unwritten = 100;
	assert_true(look_and_show());
	assert_int_equal(st.st_blocks, 24);
	st.st_blocks = 1000; /* allocated beyond the end */
	assert_true(look_and_show());
	assert_int_equal(st.st_blocks, 1000);
}

static void a_change_by_a_client_is_shown_and_so_is_one_past_the_cache(void **state)
{
	begin();
	page.shown.times.pending = true;
	page.shown.times.changed = page.shown.times.order = (struct timespec){ 300, 3 };
	assert_true(look_and_show());
	assert_int_equal(st.st_mtim.tv_sec, 300);
	assert_int_equal(st.st_ctim.tv_sec, 300);
	begin();
	st.st_ctim.tv_sec = 400;   /* chmod(2) */
	assert_true(look_and_show());
	assert_int_equal(st.st_mtim.tv_sec, 100);
	assert_int_equal(st.st_ctim.tv_sec, 400);
	begin();
	st.st_ctim.tv_sec = 400;   /* utimensat(2) */
	st.st_mtim.tv_sec = 50;
	assert_true(look_and_show());
	assert_int_equal(st.st_mtim.tv_sec, 50);
}

static void an_mtime_that_a_write_out_leaves_is_not_shown(void **state)
{
	struct timespec now;

	begin();
	clock_gettime(CLOCK_REALTIME, &now);
	page.shown.times.moved = true;
	page.shown.times.moved_since = (struct timespec){ now.tv_sec - 1, 0 };
	st.st_mtim = st.st_ctim = now;
	assert_true(look_and_show());
	assert_int_equal(st.st_mtim.tv_sec, 100);
	assert_int_equal(st.st_ctim.tv_sec, 100);
}

static void what_is_hidden_does_not_count(void **state)
{
	begin();
	page.stat_seq = 7;
	assert_false(look_and_show());
}

static void what_changes_meanwhile_does_not_count(void **state)
{
	struct stat_look look;

	begin();
	assert_true(stat_look(&file, &look));
	page.stat_seq++;
	assert_false(stat_shown(&file, &look, &st));
	page.stat_seq++;
	assert_false(stat_shown(&file, &look, &st));
	assert_true(look_and_show());
}

static void what_a_daemon_that_died_shows_does_not_count(void **state)
{
	struct stat_look look;

	begin();
	assert_true(stat_look(&file, &look));
	life |= PGC_LIFE_DIED;
	assert_false(stat_shown(&file, &look, &st));
	assert_false(look_and_show());
}

static void the_page_of_a_daemon_whose_life_is_not_known_does_not_count(void **state)
{
	struct stat_look look;

	begin();
	assert_true(stat_look(&file, &look));
	file.controls++;
	assert_false(stat_shown(&file, &look, &st));
	begin();
	file.life = NULL;
	assert_false(look_and_show());
	begin();
	file.stale = true; /* a forked child that is not connected yet */
	assert_false(look_and_show());
}

static void a_device_has_to_be_asked_for(void **state)
{
	begin();
	st.st_mode = S_IFBLK | 0600;
	assert_false(look_and_show());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(size_blocks_and_times_are_what_the_daemon_shows),
		cmocka_unit_test(what_is_not_written_counts_up_to_a_file_without_holes),
		cmocka_unit_test(a_change_by_a_client_is_shown_and_so_is_one_past_the_cache),
		cmocka_unit_test(an_mtime_that_a_write_out_leaves_is_not_shown),
		cmocka_unit_test(what_is_hidden_does_not_count),
		cmocka_unit_test(what_changes_meanwhile_does_not_count),
		cmocka_unit_test(what_a_daemon_that_died_shows_does_not_count),
		cmocka_unit_test(the_page_of_a_daemon_whose_life_is_not_known_does_not_count),
		cmocka_unit_test(a_device_has_to_be_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
