/* SPDX-License-Identifier: Apache-2.0 */
/* SyncDirty, SyncDirtyAll and DirtyInfo.Keep: what is written, in which order, and what is dirty afterwards. */
#include "rig.h"

static struct sync_dirty sync_state;
static bool sync_done;
static int sync_result;

static void done(struct sync_dirty *s, int error)
{
	sync_done = true;
	sync_result = error;
}

static int sync_range(struct rig *rig, uint64_t from, uint64_t to)
{
	sync_done = false;
	sync_dirty_range(&sync_state, rig->f, from, to, done);
	rig_run(rig, &sync_done, 0);
	return sync_result;
}

static int sync_all(struct rig *rig)
{
	sync_done = false;
	sync_dirty_all(&sync_state, rig->f, done);
	rig_run(rig, &sync_done, 0);
	return sync_result;
}

static void all_that_is_dirty_is_written_and_nothing_else(void **state)
{
	struct rig *rig = rig_new(64 * PAGE, 1000);

	rig_fill(rig, 0, 64);
	rig_store_page(rig, 3, 'a');
	rig_store_page(rig, 40, 'b');
	assert_int_equal(sync_all(rig), 0);
	assert_int_equal(rig_count(rig, 'w'), 2);
	assert_int_equal(rig->store.data[3 * PAGE], 'a');
	assert_int_equal(rig->store.data[40 * PAGE + 4095], 'b');
	assert_int_equal(rig->store.data[4 * PAGE], 5);
	assert_false(rig_dirty(rig, 3) || rig_dirty(rig, 40));
	assert_int_equal(rig->f->e->dirty, 0);
	assert_int_equal(rig->f->e->writeback, 0);
	rig_free(rig);
}

static void writes_ascend(void **state)
{
	struct rig *rig = rig_new(900 * PAGE, 2000);
	uint64_t last = 0;

	rig_fill(rig, 0, 900);
	for (uint64_t p = 899; p > 0; p -= 31)
		rig_store_page(rig, p, 'x');
	assert_int_equal(sync_all(rig), 0);
	for (unsigned i = 0; i < rig->store.n; i++)
		if (rig->store.log[i].what == 'w') {
			assert_true(rig->store.log[i].off >= last);
			last = rig->store.log[i].off;
		}
	assert_int_equal(rig_count(rig, 'w'), 29);
	rig_free(rig);
}

static void a_range_leaves_the_rest_dirty(void **state)
{
	struct rig *rig = rig_new(64 * PAGE, 1000);

	rig_fill(rig, 0, 64);
	for (uint64_t p = 8; p < 16; p++)
		rig_store_page(rig, p, 'r');
	assert_int_equal(sync_range(rig, 10, 12), 0);
	for (uint64_t p = 8; p < 16; p++)
		assert_int_equal(rig_dirty(rig, p), p != 10 && p != 11);
	assert_int_equal(rig_count(rig, 'w'), 1);
	assert_int_equal(rig->store.log[rig->store.n - 1].off, 10 * PAGE);
	assert_int_equal(rig->store.log[rig->store.n - 1].len, 2 * PAGE);
	rig_free(rig);
}

static void the_mtime_of_a_client_is_put_back_after_a_write_out(void **state)
{
	struct rig *rig = rig_new(8 * PAGE, 1000);
	struct timespec changed;

	rig_fill(rig, 0, 8);
	rig_store_page(rig, 1, 'a');
	file_changed(rig->f);
	changed = rig->f->times.changed;
	assert_int_equal(sync_all(rig), 0);
	rig_run(rig, NULL, 20);
	assert_int_equal(rig->store.restores, 1);
	assert_int_equal(rig->store.mtime.tv_sec, changed.tv_sec);
	assert_int_equal(rig->store.mtime.tv_nsec, changed.tv_nsec);
	assert_true(rig->f->version.valid);
	rig_free(rig);
}

static void an_mtime_that_was_set_before_a_write_out_outlives_it(void **state)
{
	struct rig *rig = rig_new(8 * PAGE, 1000);

	rig_fill(rig, 0, 8);
	rig_store_page(rig, 1, 'a');
	file_changed(rig->f);
	rig->store.mtime.tv_sec = 5;
	rig->store.ctime = (struct timespec){ .tv_sec = rig->f->times.order.tv_sec + 1 };
	assert_int_equal(sync_all(rig), 0);
	rig_run(rig, NULL, 20);
	assert_int_equal(rig->store.restores, 1);
	assert_int_equal(rig->store.mtime.tv_sec, 5);
	rig_free(rig);
}

static bool store_settled;

static void settled(struct store_sync *s, int error)
{
	store_settled = true;
	assert_int_equal(error, 0);
}

static struct store_sync store_sync;

static void then_sync_the_store(struct sync_dirty *s, int error)
{
	writeback_store_sync(&store_sync, s->file, false, settled);
}

static void the_store_is_synced_after_its_times_are_right(void **state)
{
	struct rig *rig = rig_new(8 * PAGE, 1000);

	rig_fill(rig, 0, 8);
	rig_store_page(rig, 1, 'a');
	file_changed(rig->f);
	store_settled = false;
	sync_dirty_all(&sync_state, rig->f, then_sync_the_store);
	rig_run(rig, &store_settled, 0);
	assert_int_equal(rig_count(rig, 's'), 1);
	assert_int_equal(rig->store.restores_at_sync, 1);
	assert_false(rig->f->times.moved);
	rig_free(rig);
}

static void what_is_clean_moves_no_times(void **state)
{
	struct rig *rig = rig_new(8 * PAGE, 1000);
	struct store_sync s;

	rig_fill(rig, 0, 8);
	assert_int_equal(sync_all(rig), 0);
	store_settled = false;
	writeback_store_sync(&s, rig->f, false, settled);
	rig_run(rig, &store_settled, 0);
	assert_int_equal(rig->store.restores, 0);
	rig_free(rig);
}

static void a_contiguous_run_is_one_large_write(void **state)
{
	struct rig *rig = rig_new(512 * PAGE, 1000);

	rig_fill(rig, 0, 512);
	for (uint64_t p = 0; p < 512; p++)
		rig_store_page(rig, p, 'm');
	assert_int_equal(sync_all(rig), 0);
	assert_int_equal(rig_count(rig, 'w'), 2); /* of a mebibyte each */
	rig_free(rig);
}

static void a_short_write_goes_on_where_it_stopped(void **state)
{
	struct rig *rig = rig_new(16 * PAGE, 1000);

	rig_fill(rig, 0, 16);
	for (uint64_t p = 2; p < 8; p++)
		rig_store_page(rig, p, (char)('0' + p));
	rig->store.short_max = 5000;
	assert_int_equal(sync_all(rig), 0);
	assert_true(rig_count(rig, 'w') > 3);
	for (uint64_t i = 2 * PAGE; i < 8 * PAGE; i++)
		assert_int_equal(rig->store.data[i], '0' + (int)(i / PAGE));
	assert_int_equal(rig->f->e->dirty, 0);
	rig_free(rig);
}

static void a_store_that_accepts_nothing_is_an_error(void **state)
{
	struct rig *rig = rig_new(4 * PAGE, 1000);

	rig_fill(rig, 0, 4);
	rig_store_page(rig, 1, 'n');
	rig->store.write_nothing = true;
	assert_int_equal(sync_all(rig), -EIO);
	assert_int_equal(rig_count(rig, 'w'), 1);
	assert_true(rig_dirty(rig, 1));
	rig_free(rig);
}

static void nothing_is_written_past_the_true_size(void **state)
{
	struct rig *rig = rig_new(3 * PAGE + 100, 1000);

	rig_fill(rig, 0, 4);
	rig_store_page(rig, 3, 'z');
	assert_int_equal(sync_all(rig), 0);
	assert_int_equal(rig->store.log[rig->store.n - 1].len, 100);
	assert_int_equal(rig->store.size, 3 * PAGE + 100);
	rig_free(rig);
}

static void dirt_beyond_the_size_is_dropped(void **state)
{
	struct rig *rig = rig_new(8 * PAGE, 1000);

	rig_fill(rig, 0, 8);
	rig_store_page(rig, 2, 'a');
	rig_store_page(rig, 6, 'b');
	assert_int_equal(file_set_size(rig->f, 4 * PAGE), 0);
	assert_int_equal(rig->f->e->dirty, 1);
	assert_int_equal(sync_all(rig), 0);
	assert_int_equal(rig_count(rig, 'w'), 1);
	assert_int_equal(rig->store.data[6 * PAGE], 7);
	rig_free(rig);
}

static void what_failed_stays_dirty_and_what_was_written_before_is_clean(void **state)
{
	struct rig *rig = rig_new(64 * PAGE, 1000);

	rig_fill(rig, 0, 64);
	for (uint64_t p = 10; p < 20; p++)
		rig_store_page(rig, p, 'e');
	rig_store_page(rig, 30, 'e');
	rig->store.short_max = 3 * PAGE;
	rig->store.write_error = -ENOSPC;
	rig->store.error_page = 17;
	assert_int_equal(sync_all(rig), -ENOSPC);
	for (uint64_t p = 10; p < 20; p++)
		assert_int_equal(rig_dirty(rig, p), p >= 16); /* the write that failed began at 16 */
	assert_false(rig_dirty(rig, 30));
	assert_int_equal(rig->f->errseq, 1);
	assert_int_equal(rig->f->e->error, ENOSPC);
	rig->store.write_error = 0;
	assert_int_equal(sync_all(rig), 0);
	assert_int_equal(rig->f->e->dirty, 0);
	assert_int_equal(rig->f->errseq, 1);
	assert_int_equal(rig->f->e->error, 0);
	rig_free(rig);
}

static void kept_pages_are_written_and_stay_dirty(void **state)
{
	struct rig *rig = rig_new(8 * PAGE, 1000);
	struct block *b;

	rig_fill(rig, 0, 8);
	b = block_tree_find(&rig->f->blocks, 0);
	rig_store_page(rig, 1, 'k');
	rig_store_page(rig, 2, 'c');
	block_set_keep(b, 1ull << 1, true);
	assert_int_equal(sync_all(rig), 0);
	assert_int_equal(rig->store.data[PAGE], 'k');
	assert_true(rig_dirty(rig, 1));
	assert_false(rig_dirty(rig, 2));
	assert_int_equal(sync_all(rig), 0);
	assert_int_equal(rig_count(rig, 'w'), 3); /* what is kept apart from what is not */
	/* Kept no more, it is dirty like any other. */
	block_set_keep(b, 1ull << 1, false);
	assert_int_equal(sync_all(rig), 0);
	assert_false(rig_dirty(rig, 1));
	rig_free(rig);
}

static void a_page_dirtied_during_its_write_is_dirty_after_it(void **state)
{
	struct rig *rig = rig_new(8 * PAGE, 1000);

	rig_fill(rig, 0, 8);
	rig_store_page(rig, 4, '1');
	rig->store.held = true;
	sync_done = false;
	sync_dirty_all(&sync_state, rig->f, done);
	rig_run(rig, NULL, 20);
	assert_int_equal(rig->store.n_waiting, 1);
	assert_false(rig_dirty(rig, 4));
	assert_int_equal(rig->f->e->writeback, 1);
	rig_store_page(rig, 4, '2');
	rig_release(rig);
	rig_run(rig, &sync_done, 0);
	assert_int_equal(rig_count(rig, 'w'), 1);
	assert_true(rig_dirty(rig, 4));
	assert_int_equal(sync_all(rig), 0);
	assert_int_equal(rig->store.data[4 * PAGE], '2');
	rig_free(rig);
}

static void a_sync_waits_for_writes_that_others_began(void **state)
{
	struct rig *rig = rig_new(8 * PAGE, 1000);

	rig_fill(rig, 0, 8);
	rig_store_page(rig, 4, '1');
	rig->store.held = true;
	writeback_background(rig->f);
	rig_run(rig, NULL, 20);
	sync_done = false;
	sync_dirty_all(&sync_state, rig->f, done);
	rig_run(rig, NULL, 20);
	assert_false(sync_done); /* nothing is dirty, but the page is not in the store */
	rig_release(rig);
	rig_run(rig, &sync_done, 0);
	assert_int_equal(rig_count(rig, 'w'), 1);
	rig_free(rig);
}

static unsigned protect_calls, protect_refuse;
static unsigned writes_at_protect;
static struct rig *protect_rig;

static int protect(struct file *f, uint64_t first, uint64_t n)
{
	protect_calls++;
	writes_at_protect = rig_count(protect_rig, 'w');
	if (protect_refuse > 0) {
		protect_refuse--;
		return -EAGAIN;
	}
	return 0;
}

static void pages_are_protected_before_they_are_read(void **state)
{
	struct rig *rig = protect_rig = rig_new(8 * PAGE, 1000);

	writeback_protect_hook = protect;
	protect_calls = protect_refuse = 0;
	rig_fill(rig, 0, 8);
	rig_store_page(rig, 3, 'p');
	assert_int_equal(sync_all(rig), 0);
	assert_int_equal(protect_calls, 1);
	assert_int_equal(writes_at_protect, 0);
	writeback_protect_hook = NULL;
	rig_free(rig);
}

static void protecting_is_tried_again_when_an_event_waits(void **state)
{
	struct rig *rig = protect_rig = rig_new(8 * PAGE, 1000);

	writeback_protect_hook = protect;
	protect_calls = 0;
	protect_refuse = 5;
	rig_fill(rig, 0, 8);
	rig_store_page(rig, 3, 'p');
	assert_int_equal(sync_all(rig), 0);
	assert_int_equal(protect_calls, 6);
	assert_false(rig_dirty(rig, 3));
	writeback_protect_hook = NULL;
	rig_free(rig);
}

static void kept_pages_are_written_without_protection(void **state)
{
	struct rig *rig = protect_rig = rig_new(8 * PAGE, 1000);

	writeback_protect_hook = protect;
	protect_calls = protect_refuse = 0;
	rig_fill(rig, 0, 8);
	rig_store_page(rig, 1, 'a');
	rig_store_page(rig, 2, 'k');
	rig_store_page(rig, 3, 'b');
	block_set_keep(block_tree_find(&rig->f->blocks, 0), 1ull << 2, true);
	assert_int_equal(sync_all(rig), 0);
	assert_int_equal(protect_calls, 2); /* what lies before and behind it */
	assert_int_equal(rig->store.data[2 * PAGE], 'k');
	assert_true(rig_dirty(rig, 2));
	assert_false(rig_dirty(rig, 1) || rig_dirty(rig, 3));
	writeback_protect_hook = NULL;
	rig_free(rig);
}

static void pages_that_cannot_be_protected_are_written_and_stay_dirty(void **state)
{
	struct rig *rig = protect_rig = rig_new(8 * PAGE, 1000);

	writeback_protect_hook = protect;
	protect_refuse = ~0u;
	rig_fill(rig, 0, 8);
	rig_store_page(rig, 3, 'p');
	assert_int_equal(sync_all(rig), 0); /* after a second of trying */
	assert_int_equal(rig->store.data[3 * PAGE], 'p');
	assert_true(rig_dirty(rig, 3));
	writeback_protect_hook = NULL;
	rig_free(rig);
}

static struct store_sync store_sync_state;
static void store_done(struct store_sync *s, int error)
{
	sync_done = true;
	sync_result = error;
}

static void a_failed_fsync_of_the_store_makes_dirty_again(void **state)
{
	struct rig *rig = rig_new(8 * PAGE, 1000);

	rig_fill(rig, 0, 8);
	rig_store_page(rig, 5, 'f');
	assert_int_equal(sync_all(rig), 0);
	assert_false(rig_dirty(rig, 5));
	rig->store.sync_error = -EIO;
	sync_done = false;
	writeback_store_sync(&store_sync_state, rig->f, false, store_done);
	rig_run(rig, &sync_done, 0);
	assert_int_equal(sync_result, -EIO);
	assert_true(rig_dirty(rig, 5));
	assert_int_equal(rig->f->errseq, 1);
	/* Once it is durable, a later failure is not its own. */
	rig->store.sync_error = 0;
	assert_int_equal(sync_all(rig), 0);
	sync_done = false;
	writeback_store_sync(&store_sync_state, rig->f, false, store_done);
	rig_run(rig, &sync_done, 0);
	rig->store.sync_error = -EIO;
	sync_done = false;
	writeback_store_sync(&store_sync_state, rig->f, false, store_done);
	rig_run(rig, &sync_done, 0);
	assert_false(rig_dirty(rig, 5));
	rig_free(rig);
}

static void zero_pages_over_holes_are_not_written(void **state)
{
	struct rig *rig = rig_new(8 * PAGE, 1000);

	rig_fill(rig, 0, 8);
	rig->f->sparse = true;
	rig_store_page(rig, 2, 0);
	rig_store_page(rig, 3, 'd');
	assert_int_equal(sync_all(rig), 0);
	assert_int_equal(rig_count(rig, 'h'), 1);
	assert_int_equal(rig_count(rig, 'w'), 1);
	assert_int_equal(rig->f->e->dirty, 0);
	rig_free(rig);
}

static int refuse(struct file *f, uint64_t first, uint64_t n) { return -EPERM; }

/* Nobody uses the file, and a client that may have its pages writable is still to come: what is written stays dirty. */
static void what_cannot_become_clean_is_not_written_over_and_over(void **state)
{
	struct rig *rig = rig_new(8 * PAGE, 1000);

	rig->budget.dirty_expire_ms = 200;
	rig_fill(rig, 0, 8);
	rig_store_page(rig, 2, 'x');
	writeback_protect_hook = refuse;
	rig->f->awaited = 1;
	rig->f->requests = 0;
	file_maybe_idle(rig->f);
	rig_run(rig, NULL, 150);
	assert_in_range(rig_count(rig, 'w'), 0, 1);
	rig_run(rig, NULL, 500);
	assert_in_range(rig_count(rig, 'w'), 1, 5); /* it is tried, when the timer says so */
	rig->f->awaited = 0;
	writeback_protect_hook = NULL;
	rig->f->requests = 1;
	assert_int_equal(sync_all(rig), 0);
	assert_int_equal(rig->f->e->dirty, 0);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_that_is_dirty_is_written_and_nothing_else),
		cmocka_unit_test(writes_ascend),
		cmocka_unit_test(a_range_leaves_the_rest_dirty),
		cmocka_unit_test(the_mtime_of_a_client_is_put_back_after_a_write_out),
		cmocka_unit_test(an_mtime_that_was_set_before_a_write_out_outlives_it),
		cmocka_unit_test(the_store_is_synced_after_its_times_are_right),
		cmocka_unit_test(what_is_clean_moves_no_times),
		cmocka_unit_test(a_contiguous_run_is_one_large_write),
		cmocka_unit_test(a_short_write_goes_on_where_it_stopped),
		cmocka_unit_test(a_store_that_accepts_nothing_is_an_error),
		cmocka_unit_test(nothing_is_written_past_the_true_size),
		cmocka_unit_test(dirt_beyond_the_size_is_dropped),
		cmocka_unit_test(what_failed_stays_dirty_and_what_was_written_before_is_clean),
		cmocka_unit_test(kept_pages_are_written_and_stay_dirty),
		cmocka_unit_test(a_page_dirtied_during_its_write_is_dirty_after_it),
		cmocka_unit_test(a_sync_waits_for_writes_that_others_began),
		cmocka_unit_test(pages_are_protected_before_they_are_read),
		cmocka_unit_test(protecting_is_tried_again_when_an_event_waits),
		cmocka_unit_test(kept_pages_are_written_without_protection),
		cmocka_unit_test(pages_that_cannot_be_protected_are_written_and_stay_dirty),
		cmocka_unit_test(a_failed_fsync_of_the_store_makes_dirty_again),
		cmocka_unit_test(zero_pages_over_holes_are_not_written),
		cmocka_unit_test(what_cannot_become_clean_is_not_written_over_and_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
