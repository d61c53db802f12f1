/* SPDX-License-Identifier: Apache-2.0 */
/* Fills and waiters, and the budget's charges for them. */
#include "rig.h"

#include "daemon/offload.h"

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

static void a_page_and_those_around_it_are_one_read_of_which_it_was_asked_for(void **state)
{
	struct rig *rig = rig_new(64 * PAGE, 1000);
	struct waiting a = { 0 };

	assert_int_equal(fill_start_around(rig->f, 8, 32, 20, NULL), 0);
	wait_for(rig, &a, 20);
	run_fills(rig);
	assert_int_equal(rig_count(rig, 'r'), 1);
	assert_int_equal(rig->store.log[0].off, 8 * PAGE);
	assert_int_equal(rig->store.log[0].len, 32 * PAGE);
	assert_int_equal(a.calls, 1);
	assert_int_equal(block_tree_find(&rig->f->blocks, 0)->e->resident, bits_range(8, 32));
	assert_int_equal(block_tree_find(&rig->f->blocks, 0)->ahead, bits_range(8, 32) & ~(1ull << 20));
	rig_free(rig);
}

static void an_error_around_a_page_is_none(void **state)
{
	struct rig *rig = rig_new(64 * PAGE, 1000);
	struct waiting a = { 0 };

	rig->store.read_error = -EIO;
	rig->store.error_page = 9;
	assert_int_equal(fill_start_around(rig->f, 8, 32, 20, NULL), 0);
	wait_for(rig, &a, 20);
	run_fills(rig);
	assert_int_equal(a.calls, 1);
	assert_int_equal(a.error, 0);
	assert_int_equal(block_tree_find(&rig->f->blocks, 0)->e->resident, 1ull << 20);
	rig_free(rig);
}

/* --- by way of buffers --- */

#define PIECE 16ull                  /* pages of a read that is large enough for a buffer */

static struct rig *rig_new_direct(uint64_t size)
{
	struct rig *rig = rig_new(size, 1ull << 20);

	rig->store.s.direct = true;
	return rig;
}

static void read_ahead(struct rig *rig, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		assert_int_equal(fill_start(rig->f, i * PIECE, PIECE, 0, NULL, POLICY_AHEAD), 0);
}

static unsigned buffers_in_use(const struct rig *rig)
{
	return rig->w.staging.memory ? STAGING_BUFFERS - rig->w.staging.n_unused : 0;
}

static void large_reads_by_way_of_buffers_bring_what_the_store_has(void **state)
{
	struct rig *rig = rig_new_direct(1000 * PAGE + 10);

	rig_fill(rig, 0, 500);
	rig->store.short_max = 70001;
	rig_fill(rig, 500, 501);
	assert_non_null(rig->w.staging.memory);
	assert_int_equal(buffers_in_use(rig), 0);
	for (uint64_t p = 0; p < 1001; p++) {
		assert_true(rig_resident(rig, p));
		assert_int_equal(byte_in_memory(rig, p * PAGE), (char)(p + 1));
		if (p < 1000)
			assert_int_equal(byte_in_memory(rig, p * PAGE + 4095), (char)(p + 1));
	}
	rig_free(rig);
}

static void small_memory_has_no_buffers(void **state)
{
	struct rig *rig = rig_new(64 * PAGE, 1000);

	rig->store.s.direct = true;
	rig_fill(rig, 0, 64);
	assert_null(rig->w.staging.memory);
	assert_int_equal(byte_in_memory(rig, 63 * PAGE), 64);
	rig_free(rig);
}

static void what_is_read_ahead_waits_for_a_buffer(void **state)
{
	struct rig *rig = rig_new_direct(1024 * PAGE);

	rig->store.held = true;
	read_ahead(rig, 0, STAGING_BUFFERS + 5);
	assert_int_equal(rig_count(rig, 'r'), STAGING_BUFFERS);
	rig_release(rig);
	run_fills(rig);
	assert_int_equal(rig_count(rig, 'r'), STAGING_BUFFERS + 5);
	for (uint64_t p = 0; p < (STAGING_BUFFERS + 5) * PIECE; p++)
		assert_int_equal(byte_in_memory(rig, p * PAGE + 7), (char)(p + 1));
	assert_int_equal(rig->w.n_unstaged, 0);
	assert_int_equal(buffers_in_use(rig), 0);
	rig_free(rig);
}

static void what_somebody_waits_for_does_not_wait_for_a_buffer(void **state)
{
	struct rig *rig = rig_new_direct(1024 * PAGE);

	rig->store.held = true;
	read_ahead(rig, 0, STAGING_BUFFERS + 1);
	assert_int_equal(fill_start(rig->f, 600, PIECE, 1, NULL, 0), 0);
	assert_int_equal(rig_count(rig, 'r'), STAGING_BUFFERS + 1);
	assert_int_equal(rig->store.log[rig->store.n - 1].off, 600 * PAGE);
	rig_release(rig);
	run_fills(rig);
	assert_true(rig_resident(rig, 600));
	rig_free(rig);
}

static void a_store_that_hangs_with_all_buffers_holds_up_no_other_read(void **state)
{
	struct rig *rig = rig_new_direct(1024 * PAGE);

	rig->store.held = true;
	read_ahead(rig, 0, STAGING_BUFFERS + 3);
	for (int i = 0; i < 200 && rig_count(rig, 'r') < STAGING_BUFFERS + 3; i++)
		rig_run(rig, NULL, 20);
	assert_int_equal(rig_count(rig, 'r'), STAGING_BUFFERS + 3);
	/* As long as it hangs nobody waits again. */
	read_ahead(rig, STAGING_BUFFERS + 3, STAGING_BUFFERS + 5);
	assert_int_equal(rig_count(rig, 'r'), STAGING_BUFFERS + 5);
	rig_release(rig);
	run_fills(rig);
	rig->store.held = true;
	read_ahead(rig, STAGING_BUFFERS + 5, 2 * STAGING_BUFFERS + 6);
	assert_int_equal(rig_count(rig, 'r'), 2 * STAGING_BUFFERS + 5);
	rig_release(rig);
	run_fills(rig);
	rig_free(rig);
}

/* Two rounds of buffers that take longer than a quick store does. */
static void a_slow_store_gets_large_reads_without_buffers(void **state)
{
	struct rig *rig = rig_new_direct(1024 * PAGE);

	for (unsigned round = 0; round < 2; round++) {
		rig->store.held = true;
		read_ahead(rig, round * STAGING_BUFFERS, (round + 1) * STAGING_BUFFERS);
		rig_run(rig, NULL, 15);
		rig_release(rig);
		run_fills(rig);
	}
	rig->store.held = true;
	assert_int_equal(fill_start(rig->f, 512, 256, 0, NULL, POLICY_AHEAD | POLICY_STREAM), 0);
	assert_int_equal(rig_count(rig, 'r'), 2 * STAGING_BUFFERS + 4);
	assert_int_equal(buffers_in_use(rig), 0);
	rig_release(rig);
	run_fills(rig);
	rig_free(rig);
}

static uint64_t pages_in_memory(struct rig *rig)
{
	struct stat st;

	assert_int_equal(fstat(rig->f->memfd, &st), 0);
	return (uint64_t)st.st_blocks / (PAGE / 512);
}

static void what_there_is_no_hurry_for_is_read_in_large_pieces(void **state)
{
	struct rig *rig = rig_new_direct(1024 * PAGE);

	assert_int_equal(fill_start(rig->f, 0, 256, 0, NULL, POLICY_AHEAD), 0);
	assert_int_equal(rig_count(rig, 'r'), 1);
	assert_int_equal(rig->store.log[0].len, 256 * PAGE);
	assert_int_equal(buffers_in_use(rig), 0);
	run_fills(rig);
	rig_free(rig);
}

static void a_buffer_from_before_a_cut_is_thrown_away(void **state)
{
	struct rig *rig = rig_new_direct(1024 * PAGE);

	rig->store.held = true;
	read_ahead(rig, 0, STAGING_BUFFERS + 2);
	rig->f->fill_gen++;
	rig_release(rig);
	run_fills(rig);
	assert_int_equal(pages_in_memory(rig), 0);
	assert_int_equal(rig_used(rig), 0);
	assert_int_equal(buffers_in_use(rig), 0);
	rig_free(rig);
}

static void a_buffer_does_not_make_memory_longer_that_a_client_has_cut(void **state)
{
	struct rig *rig = rig_new_direct(1024 * PAGE);
	struct waiting a = { 0 };
	struct stat st;

	rig->store.held = true;
	assert_int_equal(fill_start(rig->f, 512, PIECE, PIECE, NULL, 0), 0);
	wait_for(rig, &a, 515);
	assert_int_equal(ftruncate(rig->f->memfd, PAGE), 0);
	rig_release(rig);
	run_fills(rig);
	/* It was found out, and mended. */
	assert_int_equal(fstat(rig->f->memfd, &st), 0);
	assert_int_equal(st.st_size, 1024 * PAGE);
	assert_int_equal(a.calls, 1);
	assert_int_equal(a.error, 0);
	assert_true(rig_resident(rig, 515));
	assert_false(rig_resident(rig, 516));
	assert_int_equal(pages_in_memory(rig), 1);
	rig_free(rig);
}

/* --- copies on another thread --- */

/* Holds up the thread that copies. */
static struct holdup { struct offload_job job; bool over, done; } holdup;

static void holdup_run(struct offload_job *job)
{
	while (!__atomic_load_n(&holdup.over, __ATOMIC_ACQUIRE))
		usleep(100);
}

static void holdup_done(struct ring_op *op, int res, uint32_t cflags) { holdup.done = true; }

static void copies_go_on(struct rig *rig)
{
	__atomic_store_n(&holdup.over, true, __ATOMIC_RELEASE);
	rig_run(rig, &holdup.done, 0);
}

/* With `n` reads that were read ahead and have just ended; until copies_go_on() no copy has. */
static struct rig *rig_new_copying(unsigned n)
{
	struct rig *rig = rig_new_direct(1024 * PAGE);

	rig->w.alone = false;
	assert_int_equal(offload_start(), 0);
	holdup = (struct holdup){ .job = { .run = holdup_run, .done = { holdup_done }, .key = (uintptr_t)&rig->w.staging } };
	assert_int_equal(offload_submit(&rig->w.ring, &holdup.job), 0);
	rig->store.held = true;
	read_ahead(rig, 0, n);
	rig_release(rig);
	while (n > 0 && rig->w.staging.copies == 0)
		worker_round(&rig->w, true);
	if (n == 0)
		copies_go_on(rig);
	return rig;
}

static void rig_free_copying(struct rig *rig)
{
	assert_int_equal(rig->w.staging.copies, 0);
	assert_int_equal(buffers_in_use(rig), 0);
	for (unsigned i = 0; i < STAGING_VIEWS; i++)
		assert_int_equal(rig->w.staging.view[i].users, 0);
	offload_stop(&rig->w.ring);
	rig_free(rig);
}

static void what_is_read_ahead_is_copied_on_another_thread(void **state)
{
	struct rig *rig = rig_new_copying(STAGING_BUFFERS + 5);

	assert_in_range(rig->w.staging.copies, 1, STAGING_COPIES);
	copies_go_on(rig);
	run_fills(rig);
	for (uint64_t p = 0; p < (STAGING_BUFFERS + 5) * PIECE; p++) {
		assert_true(rig_resident(rig, p));
		assert_int_equal(byte_in_memory(rig, p * PAGE + 7), (char)(p + 1));
	}
	assert_int_equal(pages_in_memory(rig), (STAGING_BUFFERS + 5) * PIECE);
	rig_free_copying(rig);
}

static void what_somebody_asked_for_is_copied_at_once(void **state)
{
	struct rig *rig = rig_new_copying(0);

	rig->store.held = true;
	assert_int_equal(fill_start(rig->f, 32, PIECE, 1, NULL, 0), 0);
	rig_release(rig);
	while (!list_empty(&rig->f->fills)) {
		worker_round(&rig->w, true);
		assert_int_equal(rig->w.staging.copies, 0);
	}
	assert_int_equal(byte_in_memory(rig, 32 * PAGE), 33);
	rig_free_copying(rig);
}

static void a_copy_finds_pages_that_are_there_already(void **state)
{
	struct rig *rig = rig_new_copying(0);

	rig->store.held = true;
	read_ahead(rig, 0, 2);
	assert_int_equal(pwrite(rig->f->memfd, "stray", 5, 5 * PAGE), 5);
	rig_release(rig);
	run_fills(rig);
	for (uint64_t p = 0; p < 2 * PIECE; p++)
		assert_int_equal(byte_in_memory(rig, p * PAGE), (char)(p + 1));
	rig_free_copying(rig);
}

/* The copies are under way, or about to be. */
static void a_copy_makes_nothing_longer_that_was_cut(void **state)
{
	struct rig *rig = rig_new_copying(4);
	struct stat st;

	assert_int_equal(file_set_size(rig->f, PAGE), 0);
	copies_go_on(rig);
	run_fills(rig);
	assert_int_equal(fstat(rig->f->memfd, &st), 0);
	assert_int_equal(st.st_size, PAGE);
	assert_false(rig_resident(rig, 1));
	assert_true(pages_in_memory(rig) <= 1);
	rig_free_copying(rig);
}

static void a_copy_from_before_a_cut_is_thrown_away(void **state)
{
	struct rig *rig = rig_new_copying(4);

	rig->f->fill_gen++;
	copies_go_on(rig);
	run_fills(rig);
	assert_false(rig_resident(rig, 3 * PIECE));
	assert_int_equal(pages_in_memory(rig), rig_used(rig));
	rig_free_copying(rig);
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
		cmocka_unit_test(a_page_and_those_around_it_are_one_read_of_which_it_was_asked_for),
		cmocka_unit_test(an_error_around_a_page_is_none),
		cmocka_unit_test(large_reads_by_way_of_buffers_bring_what_the_store_has),
		cmocka_unit_test(small_memory_has_no_buffers),
		cmocka_unit_test(what_is_read_ahead_waits_for_a_buffer),
		cmocka_unit_test(what_somebody_waits_for_does_not_wait_for_a_buffer),
		cmocka_unit_test(a_store_that_hangs_with_all_buffers_holds_up_no_other_read),
		cmocka_unit_test(a_slow_store_gets_large_reads_without_buffers),
		cmocka_unit_test(what_there_is_no_hurry_for_is_read_in_large_pieces),
		cmocka_unit_test(a_buffer_from_before_a_cut_is_thrown_away),
		cmocka_unit_test(a_buffer_does_not_make_memory_longer_that_a_client_has_cut),
		cmocka_unit_test(what_is_read_ahead_is_copied_on_another_thread),
		cmocka_unit_test(what_somebody_asked_for_is_copied_at_once),
		cmocka_unit_test(a_copy_finds_pages_that_are_there_already),
		cmocka_unit_test(a_copy_makes_nothing_longer_that_was_cut),
		cmocka_unit_test(a_copy_from_before_a_cut_is_thrown_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
