/* SPDX-License-Identifier: Apache-2.0 */
/* Data and holes of a file: what the store says and what is dirty, together. */
#include "rig.h"

#include "daemon/seek.h"

static bool seek_done;
static int seek_error;

static void done(struct seek *k, int error)
{
	seek_done = true;
	seek_error = error;
}

static bool written;

static void write_done(struct file_op *op, int error)
{
	written = true;
	assert_int_equal(error, 0);
}

static int64_t seek(struct rig *rig, uint64_t off, int whence)
{
	static struct seek k;

	seek_done = false;
	seek_start(&k, rig->f, off, whence, done);
	rig_run(rig, &seek_done, 0);
	return seek_error ? seek_error : (int64_t)k.off;
}

/* 16 pages, of which 4 to 11 are a hole in the store. */
static struct rig *rig_with_hole(void)
{
	struct rig *rig = rig_new(16 * PAGE, 1000);

	rig->store.hole_from = 4 * PAGE;
	rig->store.hole_to = 12 * PAGE;
	return rig;
}

static void the_stores_holes_are_holes(void **state)
{
	struct rig *rig = rig_with_hole();

	assert_int_equal(seek(rig, 0, SEEK_DATA), 0);
	assert_int_equal(seek(rig, 5, SEEK_HOLE), 4 * PAGE);
	assert_int_equal(seek(rig, 4 * PAGE, SEEK_DATA), 12 * PAGE);
	assert_int_equal(seek(rig, 5 * PAGE + 7, SEEK_HOLE), 5 * PAGE + 7);
	assert_int_equal(seek(rig, 12 * PAGE, SEEK_HOLE), 16 * PAGE);
	rig_free(rig);
}

static void clean_pages_over_a_hole_stay_a_hole(void **state)
{
	struct rig *rig = rig_with_hole();

	rig_fill(rig, 0, 16);
	assert_int_equal(seek(rig, 4 * PAGE, SEEK_DATA), 12 * PAGE);
	assert_int_equal(seek(rig, 0, SEEK_HOLE), 4 * PAGE);
	rig_free(rig);
}

static void a_dirty_page_over_a_hole_is_data(void **state)
{
	struct rig *rig = rig_with_hole();

	rig_fill(rig, 0, 16);
	rig_store_page(rig, 6, 'd');
	assert_int_equal(seek(rig, 4 * PAGE, SEEK_DATA), 6 * PAGE);
	assert_int_equal(seek(rig, 6 * PAGE + 1, SEEK_DATA), 6 * PAGE + 1);
	assert_int_equal(seek(rig, 6 * PAGE, SEEK_HOLE), 7 * PAGE);
	assert_int_equal(seek(rig, 7 * PAGE, SEEK_DATA), 12 * PAGE);
	rig_free(rig);
}

static void dirty_pages_join_what_is_data_in_the_store(void **state)
{
	struct rig *rig = rig_with_hole();

	rig_fill(rig, 0, 16);
	for (uint64_t p = 4; p < 12; p++)
		rig_store_page(rig, p, 'd');
	assert_int_equal(seek(rig, 0, SEEK_HOLE), 16 * PAGE);
	rig_free(rig);
}

static void a_page_that_is_being_written_is_data(void **state)
{
	struct rig *rig = rig_with_hole();

	rig_fill(rig, 0, 16);
	rig_store_page(rig, 6, 'd');
	rig_store_page(rig, 7, 'd');
	rig->store.held = true;
	writeback_background(rig->f);
	rig_run(rig, NULL, 20);
	assert_false(rig_dirty(rig, 6));
	rig->store.held = false;
	assert_int_equal(seek(rig, 4 * PAGE, SEEK_DATA), 6 * PAGE);
	assert_int_equal(seek(rig, 6 * PAGE, SEEK_HOLE), 8 * PAGE);
	rig_release(rig);
	rig_run(rig, NULL, 20);
	rig_free(rig);
}

static void what_was_appended_is_data_before_the_store_has_it(void **state)
{
	struct rig *rig = rig_new(2 * PAGE + 100, 1000);
	static struct file_op op;

	op = (struct file_op){ .kind = FILE_OP_WRITE, .off = 20 * PAGE, .len = 10, .src = "0123456789", .done = write_done };
	written = false;
	ops_queue(rig->f, &op);
	rig_run(rig, &written, 0);
	assert_int_equal(rig->f->size, 20 * PAGE + 10);
	/* Between the store's end and there is nothing. */
	rig->store.hole_from = rig->store.size;
	assert_int_equal(seek(rig, 0, SEEK_HOLE), 2 * PAGE + 100);
	assert_int_equal(seek(rig, 3 * PAGE, SEEK_DATA), 20 * PAGE);
	assert_int_equal(seek(rig, 20 * PAGE + 4, SEEK_HOLE), 20 * PAGE + 10);
	assert_int_equal(seek(rig, 20 * PAGE + 10, SEEK_DATA), -ENXIO);
	assert_int_equal(seek(rig, 20 * PAGE + 10, SEEK_HOLE), -ENXIO);
	rig_free(rig);
}

static void no_data_up_to_the_end_is_no_answer(void **state)
{
	struct rig *rig = rig_with_hole();

	rig->store.hole_to = 16 * PAGE;
	assert_int_equal(seek(rig, 5 * PAGE, SEEK_DATA), -ENXIO);
	assert_int_equal(seek(rig, 5 * PAGE, SEEK_HOLE), 5 * PAGE);
	rig_free(rig);
}

static void where_the_store_cannot_tell_all_is_data(void **state)
{
	struct rig *rig = rig_with_hole();

	rig->store.no_seek = true;
	assert_int_equal(seek(rig, 5 * PAGE + 1, SEEK_DATA), 5 * PAGE + 1);
	assert_int_equal(seek(rig, 5 * PAGE, SEEK_HOLE), 16 * PAGE);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_stores_holes_are_holes),
		cmocka_unit_test(clean_pages_over_a_hole_stay_a_hole),
		cmocka_unit_test(a_dirty_page_over_a_hole_is_data),
		cmocka_unit_test(dirty_pages_join_what_is_data_in_the_store),
		cmocka_unit_test(a_page_that_is_being_written_is_data),
		cmocka_unit_test(what_was_appended_is_data_before_the_store_has_it),
		cmocka_unit_test(no_data_up_to_the_end_is_no_answer),
		cmocka_unit_test(where_the_store_cannot_tell_all_is_data),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
