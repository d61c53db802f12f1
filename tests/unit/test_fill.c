/* SPDX-License-Identifier: Apache-2.0 */
/* Fills and waiters, and the budget's charges for them. */
#include "rig.h"

struct waiting { struct waiter w; unsigned calls; int error; };

static void ready(struct waiter *w, int error)
{
	struct waiting *x = container_of(w, struct waiting, w);

	x->calls++;
	x->error = error;
}

static void wait_for(struct rig *rig, struct waiting *x, uint64_t page)
{
	waiter_init(&x->w, ready);
	waiter_add(&x->w, block_tree_find(&rig->f->blocks, page / PGC_BLOCK_PAGES), 1ull << (page % PGC_BLOCK_PAGES));
}

static void run_fills(struct rig *rig)
{
	while (!list_empty(&rig->f->fills))
		worker_round(&rig->w, true);
}

static char byte_in_memory(struct rig *rig, uint64_t off)
{
	char c;

	assert_int_equal(pread(rig->f->memfd, &c, 1, (off_t)off), 1);
	return c;
}

static void one_read_serves_many_waiters(void **state)
{
	struct rig *rig = rig_new(64 * PAGE, 1000);
	struct waiting a = { 0 }, b = { 0 };

	assert_int_equal(fill_start(rig->f, 7, 1, 1, NULL, 0), 0);
	assert_int_equal(fill_start(rig->f, 7, 1, 1, NULL, 0), 0);
	wait_for(rig, &a, 7);
	wait_for(rig, &b, 7);
	run_fills(rig);
	assert_int_equal(rig_count(rig, 'r'), 1);
	assert_int_equal(a.calls, 1);
	assert_int_equal(b.calls, 1);
	assert_int_equal(a.error, 0);
	assert_true(rig_resident(rig, 7));
	assert_int_equal(byte_in_memory(rig, 7 * PAGE + 9), 8);
	rig_free(rig);
}

static void an_error_outside_what_is_required_is_none(void **state)
{
	struct rig *rig = rig_new(64 * PAGE, 1000);
	struct waiting a = { 0 };

	rig->store.read_error = -EIO;
	rig->store.error_page = 12;
	assert_int_equal(fill_start(rig->f, 8, 16, 1, NULL, 0), 0);
	wait_for(rig, &a, 8);
	run_fills(rig);
	assert_int_equal(a.calls, 1);
	assert_int_equal(a.error, 0);
	assert_true(rig_resident(rig, 8));
	assert_false(rig_resident(rig, 12));
	rig_free(rig);
}

static void a_required_page_that_cannot_be_read_is_an_error_for_who_waits(void **state)
{
	struct rig *rig = rig_new(64 * PAGE, 1000);
	struct waiting a = { 0 }, b = { 0 };

	rig->store.read_error = -EIO;
	rig->store.error_page = 12;
	assert_int_equal(fill_start(rig->f, 8, 16, 1, NULL, 0), 0);
	wait_for(rig, &a, 12);
	wait_for(rig, &b, 13);
	run_fills(rig);
	assert_int_equal(a.error, -EIO);
	assert_int_equal(b.error, 0);
	assert_true(rig_resident(rig, 13));
	/* And once the store can, it is there. */
	rig->store.read_error = 0;
	rig_fill(rig, 12, 1);
	assert_true(rig_resident(rig, 12));
	rig_free(rig);
}

static void a_short_read_goes_on(void **state)
{
	struct rig *rig = rig_new(64 * PAGE, 1000);

	rig->store.short_max = 5000;
	rig_fill(rig, 0, 16);
	for (uint64_t p = 0; p < 16; p++)
		assert_int_equal(byte_in_memory(rig, p * PAGE + 4095), (char)(p + 1));
	rig_free(rig);
}

static void past_the_stores_end_are_zeros(void **state)
{
	struct rig *rig = rig_new(2 * PAGE + 10, 1000);

	assert_int_equal(file_set_size(rig->f, 8 * PAGE), 0);
	rig_fill(rig, 0, 8);
	assert_int_equal(byte_in_memory(rig, 2 * PAGE + 9), 3);
	assert_int_equal(byte_in_memory(rig, 2 * PAGE + 10), 0);
	assert_int_equal(byte_in_memory(rig, 7 * PAGE), 0);
	assert_true(rig_resident(rig, 7));
	assert_int_equal(rig->store.log[0].len, 3 * PAGE); /* nothing is asked of it beyond its last page */
	rig_free(rig);
}

static void a_fill_from_before_a_cut_is_thrown_away(void **state)
{
	struct rig *rig = rig_new(64 * PAGE, 1000);
	struct waiting a = { 0 };

	rig->store.held = true;
	assert_int_equal(fill_start(rig->f, 3, 1, 1, NULL, 0), 0);
	wait_for(rig, &a, 3);
	rig->f->fill_gen++;
	rig_release(rig);
	run_fills(rig);
	assert_int_equal(a.calls, 1); /* to look again */
	assert_int_equal(a.error, 0);
	assert_false(rig_resident(rig, 3));
	assert_int_equal(rig_used(rig), 0);
	rig_free(rig);
}

static void memory_is_charged_before_the_read_and_never_above_the_budget(void **state)
{
	struct rig *rig = rig_new(1000 * PAGE, 100);

	rig->store.held = true;
	assert_int_equal(fill_start(rig->f, 0, 60, 60, NULL, 0), 0);
	assert_int_equal(rig_used(rig), 60);
	/* Readahead takes what there is room for, a required page is refused while all is in flight. */
	assert_int_equal(fill_start(rig->f, 100, 60, 1, NULL, 0), 0);
	assert_true(rig_used(rig) <= 100);
	assert_int_equal(fill_start(rig->f, 200, 60, 60, NULL, 0), -ENOBUFS);
	rig_release(rig);
	run_fills(rig);
	/* Clean pages make room, oldest first. */
	worker_round(&rig->w, false);
	usleep(2000);
	rig_fill(rig, 200, 60);
	assert_true(rig_used(rig) <= 100);
	assert_true(rig_resident(rig, 259));
	assert_false(rig_resident(rig, 0));
	rig_free(rig);
}

static void dirty_pages_are_never_dropped(void **state)
{
	struct rig *rig = rig_new(1000 * PAGE, 100);

	rig_fill(rig, 0, 40);
	rig_store_page(rig, 5, 'd');
	rig->store.held = true; /* it is being written, and stays */
	assert_true(reclaim_pages(&rig->w, 1000) == 39);
	assert_true(rig_resident(rig, 5));
	assert_int_equal(byte_in_memory(rig, 5 * PAGE), 'd');
	rig_run(rig, NULL, 5);
	rig_release(rig);
	while (rig_dirty(rig, 5) || !list_empty(&rig->f->writes) || !list_empty(&rig->f->syncs))
		worker_round(&rig->w, true);
	assert_int_equal(rig_count(rig, 'w'), 1); /* that it was in the way had it written */
	assert_int_equal(reclaim_pages(&rig->w, 1000), 1);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_read_serves_many_waiters),
		cmocka_unit_test(an_error_outside_what_is_required_is_none),
		cmocka_unit_test(a_required_page_that_cannot_be_read_is_an_error_for_who_waits),
		cmocka_unit_test(a_short_read_goes_on),
		cmocka_unit_test(past_the_stores_end_are_zeros),
		cmocka_unit_test(a_fill_from_before_a_cut_is_thrown_away),
		cmocka_unit_test(memory_is_charged_before_the_read_and_never_above_the_budget),
		cmocka_unit_test(dirty_pages_are_never_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
