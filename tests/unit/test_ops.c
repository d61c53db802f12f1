/* SPDX-License-Identifier: Apache-2.0 */
/* Writes, truncations and fallocate of a file, one at a time. */
#include <fcntl.h>
#include <linux/falloc.h>

#include "rig.h"

static bool op_done[4];
static int op_result[4];
static struct file_op ops[4];

static void done(struct file_op *op, int error)
{
	op_done[op - ops] = true;
	op_result[op - ops] = error;
}

static void start(struct rig *rig, unsigned i, struct file_op op)
{
	ops[i] = op;
	ops[i].done = done;
	op_done[i] = false;
	ops_queue(rig->f, &ops[i]);
}

static int run(struct rig *rig, struct file_op op)
{
	start(rig, 0, op);
	rig_run(rig, &op_done[0], 0);
	return op_result[0];
}

static void memory_is(struct rig *rig, uint64_t off, uint64_t len, char value)
{
	for (uint64_t i = off; i < off + len; i++) {
		char c;

		assert_int_equal(pread(rig->f->memfd, &c, 1, (off_t)i), 1);
		assert_int_equal(c, value);
	}
}

static char bytes[300 * 4096];

static void a_part_of_a_page_is_filled_first_and_a_whole_one_is_not_read(void **state)
{
	struct rig *rig = rig_new(16 * PAGE, 1000);

	memset(bytes, 'w', sizeof(bytes));
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = 4 * PAGE, .len = 2 * PAGE, .src = bytes }), 0);
	assert_int_equal(rig_count(rig, 'r'), 0);
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = 8 * PAGE + 10, .len = 20, .src = bytes }), 0);
	assert_int_equal(rig_count(rig, 'r'), 1);
	memory_is(rig, 8 * PAGE, 10, 9);
	memory_is(rig, 8 * PAGE + 10, 20, 'w');
	memory_is(rig, 8 * PAGE + 30, 100, 9);
	assert_true(rig_dirty(rig, 4) && rig_dirty(rig, 5) && rig_dirty(rig, 8));
	assert_int_equal(rig->f->e->dirty, 3);
	assert_int_equal(rig_used(rig), 3);
	rig_free(rig);
}

static void a_page_that_cannot_be_read_fails_the_write_and_changes_nothing(void **state)
{
	struct rig *rig = rig_new(16 * PAGE, 1000);

	rig->store.read_error = -EIO;
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = 10, .len = 20, .src = bytes }), -EIO);
	assert_int_equal(ops[0].moved, 0);
	assert_int_equal(rig->f->e->dirty, 0);
	assert_int_equal(rig_used(rig), 0);
	rig_free(rig);
}

/* Four pages of 'w', of which a system call can read the first two. */
static char *memory_that_ends(void)
{
	char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	memset(p, 'w', 4 * PAGE);
	assert_int_equal(mprotect(p + 2 * PAGE, 2 * PAGE, PROT_NONE), 0);
	return p;
}

static void a_write_from_memory_that_ends_keeps_the_whole_pages_before(void **state)
{
	struct rig *rig = rig_new(16 * PAGE, 1000);
	char *src = memory_that_ends();

	/* Into pages that are not here: the one that was begun is thrown away, and still has the store's bytes. */
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = 4 * PAGE, .len = 3 * PAGE,
						    .src = src + 100 }), -EFAULT);
	assert_int_equal(ops[0].moved, PAGE);
	memory_is(rig, 4 * PAGE, PAGE, 'w');
	assert_true(rig_dirty(rig, 4));
	assert_false(rig_resident(rig, 5) || rig_resident(rig, 6));
	assert_int_equal(rig_used(rig), 1);
	assert_int_equal(lseek(rig->f->memfd, 5 * PAGE, SEEK_HOLE), 5 * PAGE); /* no memory without a charge */
	rig_fill(rig, 5, 2);
	memory_is(rig, 5 * PAGE, PAGE, 6);
	memory_is(rig, 6 * PAGE, 100, 7);

	/* Into pages that are here: what was copied of the last one counts, its other bytes stay. */
	rig_fill(rig, 8, 3);
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = 8 * PAGE, .len = 3 * PAGE,
						    .src = src + 100 }), -EFAULT);
	assert_int_equal(ops[0].moved, 2 * PAGE - 100);
	memory_is(rig, 8 * PAGE, 2 * PAGE - 100, 'w');
	memory_is(rig, 10 * PAGE - 100, 100, 10);
	assert_true(rig_dirty(rig, 8) && rig_dirty(rig, 9));
	assert_false(rig_dirty(rig, 10));
	munmap(src, 4 * PAGE);
	rig_free(rig);
}

static void an_append_from_memory_that_ends_grows_by_what_was_written(void **state)
{
	struct rig *rig = rig_new(PAGE, 1000);
	char *src = memory_that_ends();
	struct stat st;

	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .append = true, .len = 4 * PAGE,
						    .src = src }), -EFAULT);
	assert_int_equal(ops[0].moved, 2 * PAGE);
	assert_int_equal(rig->f->size, 3 * PAGE);
	assert_int_equal(fstat(rig->f->memfd, &st), 0);
	assert_int_equal(st.st_size, 3 * PAGE);
	assert_int_equal(rig_used(rig), 2);
	/* It ends in the middle of a new page: the file ends before that one, and so does the memory. */
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .append = true, .len = 3 * PAGE,
						    .src = src + 100 }), -EFAULT);
	assert_int_equal(ops[0].moved, PAGE);
	assert_int_equal(rig->f->size, 4 * PAGE);
	assert_int_equal(fstat(rig->f->memfd, &st), 0);
	assert_int_equal(st.st_size, 4 * PAGE);
	assert_int_equal(rig_used(rig), 3);
	/* Nothing at all can be read: nothing changes. */
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .append = true, .len = PAGE,
						    .src = src + 2 * PAGE }), -EFAULT);
	assert_int_equal(ops[0].moved, 0);
	assert_int_equal(rig->f->size, 4 * PAGE);
	assert_int_equal(rig_used(rig), 3);
	munmap(src, 4 * PAGE);
	rig_free(rig);
}

static void appends_follow_each_other(void **state)
{
	struct rig *rig = rig_new(PAGE + 5, 1000);
	struct file_op append = { .kind = FILE_OP_WRITE, .append = true, .len = 100000, .src = bytes };

	memset(bytes, 'a', sizeof(bytes));
	for (unsigned i = 0; i < 3; i++)
		start(rig, i, append);
	for (unsigned i = 0; i < 3; i++)
		rig_run(rig, &op_done[i], 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(op_result[i], 0);
		assert_int_equal(ops[i].off, PAGE + 5 + i * 100000);
	}
	assert_int_equal(rig->f->size, PAGE + 5 + 300000);
	rig_free(rig);
}

static void growing_zeroes_what_was_stored_past_the_end(void **state)
{
	struct rig *rig = rig_new(PAGE + 100, 1000);

	rig_fill(rig, 0, 2);
	/* As a client does through its mapping: past the end, in the last page. */
	{
		struct block *b = block_tree_find(&rig->f->blocks, 0);

		b->addr[PAGE + 200] = 'J';
	}
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_TRUNCATE, .off = 4 * PAGE }), 0);
	memory_is(rig, PAGE + 99, 1, 2);
	memory_is(rig, PAGE + 100, 400, 0);
	assert_int_equal(rig->store.size, 4 * PAGE);
	rig_free(rig);
}

static void a_cut_drops_what_is_beyond_and_zeroes_the_tail(void **state)
{
	struct rig *rig = rig_new(16 * PAGE, 1000);

	rig_fill(rig, 0, 16);
	rig_store_page(rig, 3, 'd');
	rig_store_page(rig, 9, 'd');
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_TRUNCATE, .off = 3 * PAGE + 50 }), 0);
	assert_int_equal(rig->f->e->dirty, 1);
	assert_int_equal(rig->f->e->resident, 4);
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_TRUNCATE, .off = 16 * PAGE }), 0);
	memory_is(rig, 3 * PAGE, 50, 'd');
	memory_is(rig, 3 * PAGE + 50, PAGE - 50, 0);
	rig_fill(rig, 4, 12);
	memory_is(rig, 9 * PAGE, 100, 0);
	rig_free(rig);
}

static void a_cut_waits_for_a_write_out_beyond_it(void **state)
{
	struct rig *rig = rig_new(16 * PAGE, 1000);

	rig_fill(rig, 0, 16);
	rig_store_page(rig, 9, 'd');
	rig->store.held = true;
	writeback_background(rig->f);
	rig_run(rig, NULL, 20);
	start(rig, 0, (struct file_op){ .kind = FILE_OP_TRUNCATE, .off = 4 * PAGE });
	rig_run(rig, NULL, 20);
	assert_int_equal(rig_count(rig, 't'), 0);
	rig_release(rig);
	rig_run(rig, &op_done[0], 0);
	assert_int_equal(op_result[0], 0);
	assert_int_equal(rig->store.size, 4 * PAGE); /* the write did not make it longer again */
	rig_free(rig);
}

static void a_store_that_fails_leaves_all_as_it_was(void **state)
{
	struct rig *rig = rig_new(16 * PAGE, 1000);

	rig_fill(rig, 0, 16);
	rig_store_page(rig, 9, 'd');
	rig->store.truncate_error = -EIO;
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_TRUNCATE, .off = 4 * PAGE }), -EIO);
	assert_int_equal(rig->f->size, 16 * PAGE);
	assert_true(rig_dirty(rig, 9));
	assert_false(rig->f->barrier.active);
	memory_is(rig, 9 * PAGE, 10, 'd');
	rig_free(rig);
}

#define LARGE (1ull << 40)

static void what_the_store_cannot_have_is_refused_before_it_is_in_the_cache(void **state)
{
	struct rig *rig = rig_new(16 * PAGE, 1000);

	rig->store.size_max = LARGE;
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = LARGE * 8, .len = 10, .src = bytes }), -EFBIG);
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = LARGE - 5, .len = 10, .src = bytes }), -EFBIG);
	assert_int_equal(rig->f->size, 16 * PAGE);
	assert_int_equal(rig->f->e->dirty, 0);
	assert_int_equal(rig_used(rig), 0);
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = LARGE - 10, .len = 10, .src = bytes }), 0);
	assert_int_equal(rig->f->size, LARGE);
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .append = true, .len = 1, .src = bytes }), -EFBIG);
	assert_int_equal(rig->f->size, LARGE);
	rig_free(rig);
}

static void a_file_that_grows_asks_seldom_how_long_it_may_be(void **state)
{
	struct rig *rig = rig_new(16 * PAGE, 1000);
	uint64_t end = 1ull << 31;

	rig->store.size_max = 1ull << 60;
	for (unsigned i = 0; i < 40; i++, end += end / 8)
		assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = end - 10, .len = 10, .src = bytes }), 0);
	assert_in_range(rig_count(rig, 'f'), 1, 10);
	rig_free(rig);
}

/* That it does not answer is no answer: nor does it hold up what lies within the file. */
static void an_error_says_nothing_about_the_size(void **state)
{
	struct rig *rig = rig_new(16 * PAGE, 1000);

	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = 0, .len = 10, .src = bytes }), 0);
	assert_int_equal(rig_count(rig, 'f'), 0);
	rig->store.fallocate_error = -EIO;
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = LARGE, .len = 10, .src = bytes }), 0);
	assert_int_equal(rig_count(rig, 'f'), 1);
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = LARGE + 10, .len = 10, .src = bytes }), 0);
	assert_int_equal(rig_count(rig, 'f'), 2);
	rig_free(rig);
}

static void a_hole_within_a_page_and_over_pages_reads_as_zeros(void **state)
{
	struct rig *rig = rig_new(16 * PAGE, 1000);
	struct file_op punch = { .kind = FILE_OP_FALLOCATE, .mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE };

	rig_fill(rig, 0, 16);
	rig_store_page(rig, 6, 'd');
	punch.off = 2 * PAGE + 100;
	punch.len = 50;
	assert_int_equal(run(rig, punch), 0);
	memory_is(rig, 2 * PAGE, 100, 3);
	memory_is(rig, 2 * PAGE + 100, 50, 0);
	memory_is(rig, 2 * PAGE + 150, 100, 3);
	punch.off = 5 * PAGE + 10;
	punch.len = 3 * PAGE;
	assert_int_equal(run(rig, punch), 0);
	memory_is(rig, 5 * PAGE, 10, 6);
	memory_is(rig, 5 * PAGE + 10, PAGE - 10, 0);
	assert_false(rig_resident(rig, 6) || rig_resident(rig, 7));
	assert_int_equal(rig->f->e->dirty, 0);
	memory_is(rig, 8 * PAGE, 10, 0);
	memory_is(rig, 8 * PAGE + 10, 100, 9);
	rig_fill(rig, 6, 2);
	memory_is(rig, 6 * PAGE, 20, 0);
	rig_free(rig);
}

static void a_hole_at_a_dirty_end_keeps_the_stores_size_right(void **state)
{
	struct rig *rig = rig_new(PAGE, 1000);

	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = 3 * PAGE, .len = 100, .src = bytes }), 0);
	assert_int_equal(rig->store.size, PAGE);
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_FALLOCATE, .mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
						    .off = 3 * PAGE, .len = PAGE }), 0);
	assert_int_equal(rig->f->e->dirty, 0);
	assert_int_equal(rig->store.size, 3 * PAGE + 100);
	rig_free(rig);
}

static void zeroing_beyond_a_store_that_is_shorter_makes_it_as_long_as_the_file(void **state)
{
	struct rig *rig = rig_new(0, 1000);

	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = 0, .len = PAGE, .src = bytes }), 0);
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_FALLOCATE, .mode = FALLOC_FL_ZERO_RANGE, .off = 0, .len = 2 * PAGE }), 0);
	assert_int_equal(rig->f->size, 2 * PAGE);
	assert_int_equal(rig->store.size, 2 * PAGE);
	rig_free(rig);
}

static void written_pages_in_a_kept_range_are_kept(void **state)
{
	struct rig *rig = rig_new(16 * PAGE, 1000);

	assert_int_equal(dirty_set_mark_dirty(&rig->f->kept, (struct range){ 2 * PAGE, 4 * PAGE }, true), 0);
	rig->f->kept_bytes = rig->w.kept_bytes = 2 * PAGE;
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = PAGE, .len = 2 * PAGE, .src = bytes }), 0);
	assert_int_equal(rig->f->e->keep, 1);
	assert_true(block_tree_find(&rig->f->blocks, 0)->e->keep == 1ull << 2);
	file_clear_keep(rig->f);
	rig_free(rig);
}

static void modes_that_are_not_known_are_refused(void **state)
{
	struct rig *rig = rig_new(4 * PAGE, 1000);

	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_FALLOCATE, .mode = FALLOC_FL_COLLAPSE_RANGE, .len = PAGE }), -EOPNOTSUPP);
	assert_int_equal(run(rig, (struct file_op){ .kind = FILE_OP_FALLOCATE, .mode = 0, .len = 0 }), -EINVAL);
	assert_int_equal(rig_count(rig, 'f'), 0);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_part_of_a_page_is_filled_first_and_a_whole_one_is_not_read),
		cmocka_unit_test(a_page_that_cannot_be_read_fails_the_write_and_changes_nothing),
		cmocka_unit_test(a_write_from_memory_that_ends_keeps_the_whole_pages_before),
		cmocka_unit_test(an_append_from_memory_that_ends_grows_by_what_was_written),
		cmocka_unit_test(appends_follow_each_other),
		cmocka_unit_test(growing_zeroes_what_was_stored_past_the_end),
		cmocka_unit_test(a_cut_drops_what_is_beyond_and_zeroes_the_tail),
		cmocka_unit_test(a_cut_waits_for_a_write_out_beyond_it),
		cmocka_unit_test(a_store_that_fails_leaves_all_as_it_was),
		cmocka_unit_test(what_the_store_cannot_have_is_refused_before_it_is_in_the_cache),
		cmocka_unit_test(a_file_that_grows_asks_seldom_how_long_it_may_be),
		cmocka_unit_test(an_error_says_nothing_about_the_size),
		cmocka_unit_test(a_hole_within_a_page_and_over_pages_reads_as_zeros),
		cmocka_unit_test(a_hole_at_a_dirty_end_keeps_the_stores_size_right),
		cmocka_unit_test(zeroing_beyond_a_store_that_is_shorter_makes_it_as_long_as_the_file),
		cmocka_unit_test(written_pages_in_a_kept_range_are_kept),
		cmocka_unit_test(modes_that_are_not_known_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
