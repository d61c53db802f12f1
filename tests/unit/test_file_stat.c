/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the control page says to clients that ask nobody: at any time either nothing, or what an answer to STAT would go by. It is looked at whenever something of it
 * can be seen outside: at each call of the store, when an operation ends, after each round.
 */
#include "rig.h"

static bool hidden(const struct file *f) { return f->control->stat_seq & 1; }

static void is_time(struct timespec a, struct timespec b)
{
	assert_int_equal(a.tv_sec, b.tv_sec);
	assert_int_equal(a.tv_nsec, b.tv_nsec);
}

static void is_shown(const struct file *f)
{
	const struct pgc_shown *s = &f->control->shown;
	const struct pgc_times *a = &s->times, *b = &f->times;

	assert_false(hidden(f));
	assert_int_equal(s->size, f->size);
	assert_int_equal(s->unwritten, f->e->dirty + f->e->writeback);
	assert_int_equal(a->known, b->known);
	assert_int_equal(a->pending, b->pending);
	assert_int_equal(a->moved, b->moved);
	is_time(a->changed, b->changed);
	is_time(a->order, b->order);
	is_time(a->moved_since, b->moved_since);
	is_time(a->restoring, b->restoring);
	is_time(a->mtime, b->mtime);
	is_time(a->ctime, b->ctime);
	is_time(a->left_mtime, b->left_mtime);
	is_time(a->left_ctime, b->left_ctime);
}

static void is_true(const struct file *f)
{
	if (!hidden(f))
		is_shown(f);
}

/* --- a store that looks --- */

static unsigned looks;

static void look(struct store *store)
{
	is_true(container_of(container_of(store, struct rig_store, s), struct rig, store)->f);
	looks++;
}

static void look_stat(struct store *s, struct store_op *op, struct store_stat *ret) { look(s); rig_stat(s, op, ret); }
static void look_write(struct store *s, struct store_op *op, const void *buf, size_t len, uint64_t off) { look(s); rig_write(s, op, buf, len, off); }
static void look_sync(struct store *s, struct store_op *op, bool data) { look(s); rig_sync(s, op, data); }
static void look_truncate(struct store *s, struct store_op *op, uint64_t size) { look(s); rig_truncate(s, op, size); }
static void look_fallocate(struct store *s, struct store_op *op, int mode, uint64_t off, uint64_t len) { look(s); rig_fallocate(s, op, mode, off, len); }
static void look_restore(struct store *s, struct store_op *op, struct store_restore *r) { look(s); rig_restore(s, op, r); }

static const struct store_ops looking = {
	"looking", look_stat, rig_read, look_write, look_sync, look_truncate, look_fallocate, look_restore, rig_seek, rig_is_hole, NULL, rig_close,
};

static struct rig *rig_looking(uint64_t pages)
{
	struct rig *rig = rig_new(pages * PAGE, 1000);

	rig->store.s.ops = &looking;
	looks = 0;
	is_shown(rig->f);
	rig_fill(rig, 0, pages);
	return rig;
}

/* Rounds until the flag is set. */
static void run(struct rig *rig, const bool *flag)
{
	uint64_t start = now_ns();

	while (!*flag) {
		worker_round(&rig->w, false);
		is_true(rig->f);
		assert_true(now_ns() - start < 5000000000ull);
	}
}

/* Until all that was begun is over. Then it is shown. */
static void settle(struct rig *rig)
{
	for (int i = 0; i < 200 && (i < 10 || rig->f->version_busy || hidden(rig->f)); i++) {
		worker_round(&rig->w, false);
		is_true(rig->f);
	}
	is_shown(rig->f);
}

static struct file_op op;
static bool ended;
static int error_at_end;

static void op_ended(struct file_op *o, int error)
{
	is_shown(o->file); /* before its client hears of it, so that it need not ask */
	ended = true;
	error_at_end = error;
}

static int change(struct rig *rig, struct file_op o)
{
	op = o;
	op.done = op_ended;
	ended = false;
	ops_queue(rig->f, &op);
	run(rig, &ended);
	settle(rig);
	return error_at_end;
}

static bool synced;
static void sync_ended(struct sync_dirty *s, int error)
{
	is_true(s->file);
	synced = true;
}

static void sync_all(struct rig *rig)
{
	static struct sync_dirty s;

	synced = false;
	sync_dirty_all(&s, rig->f, sync_ended);
	run(rig, &synced);
	settle(rig);
}

/* --- the tests --- */

static void it_is_hidden_while_more_becomes_dirty_and_shown_with_the_time(void **state)
{
	struct rig *rig = rig_looking(8);
	uint64_t seq = rig->f->control->stat_seq;

	rig_store_page(rig, 3, 'a');
	assert_true(hidden(rig->f));
	rig_store_page(rig, 4, 'a');
	assert_true(hidden(rig->f));
	file_changed(rig->f);
	is_shown(rig->f);
	assert_true(rig->f->control->stat_seq > seq);
	assert_int_equal(rig->f->control->shown.unwritten, 2);
	rig_free(rig);
}

static void what_nobody_shows_is_shown_in_a_later_round(void **state)
{
	struct rig *rig = rig_looking(8);

	rig_store_page(rig, 3, 'a');
	assert_true(hidden(rig->f));
	worker_round(&rig->w, false);
	is_shown(rig->f);
	rig_free(rig);
}

static void it_is_hidden_while_pages_are_written_and_become_clean(void **state)
{
	struct rig *rig = rig_looking(8);
	struct block *b = block_tree_find(&rig->f->blocks, 0);

	rig_store_page(rig, 3, 'a');
	file_changed(rig->f);
	block_set_writeback(b, 1 << 3, true);
	assert_true(hidden(rig->f));
	block_clear_dirty(b, 1 << 3);
	file_stat_show(rig->f);
	is_shown(rig->f);
	block_set_writeback(b, 1 << 3, false);
	assert_true(hidden(rig->f));
	file_stat_show(rig->f);
	rig_store_page(rig, 3, 'b');
	file_stat_show(rig->f);
	block_clear_dirty(b, 1 << 3);
	assert_true(hidden(rig->f));
	settle(rig);
	rig_free(rig);
}

static void a_write_out_is_followed(void **state)
{
	struct rig *rig = rig_looking(200);

	for (uint64_t p = 0; p < 200; p += 3)
		rig_store_page(rig, p, 'a');
	file_changed(rig->f);
	sync_all(rig);
	assert_int_equal(rig->f->control->shown.unwritten, 0);
	assert_false(rig->f->control->shown.times.moved);
	assert_true(looks > 67);
	rig_free(rig);
}

static void a_write_out_that_fails_is_followed(void **state)
{
	struct rig *rig = rig_looking(20);

	rig_store_page(rig, 3, 'a');
	rig_store_page(rig, 9, 'a');
	rig->store.write_error = -EIO;
	rig->store.error_page = 3;
	sync_all(rig);
	assert_int_equal(rig->f->control->shown.unwritten, 1);
	rig_free(rig);
}

static void changes_by_request_are_shown_when_they_end(void **state)
{
	static char buf[20 * PAGE];
	struct rig *rig = rig_looking(100);

	assert_int_equal(change(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = 30, .len = sizeof(buf), .src = buf }), 0);
	assert_int_equal(change(rig, (struct file_op){ .kind = FILE_OP_WRITE, .append = true, .len = 77, .src = buf }), 0);
	assert_int_equal(rig->f->control->shown.size, 100 * PAGE + 77);
	assert_int_equal(change(rig, (struct file_op){ .kind = FILE_OP_TRUNCATE, .off = 10 * PAGE + 5 }), 0);
	assert_int_equal(rig->f->control->shown.size, 10 * PAGE + 5);
	assert_int_equal(rig->f->control->shown.unwritten, 11);
	assert_int_equal(change(rig, (struct file_op){ .kind = FILE_OP_TRUNCATE, .off = 50 * PAGE }), 0);
	assert_int_equal(change(rig, (struct file_op){ .kind = FILE_OP_FALLOCATE, .off = 2 * PAGE, .len = 4 * PAGE,
						       .mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE }), 0);
	assert_int_equal(rig->f->control->shown.unwritten, 7);
	assert_int_equal(change(rig, (struct file_op){ .kind = FILE_OP_FALLOCATE, .off = 60 * PAGE, .len = PAGE }), 0);
	assert_int_equal(rig->f->control->shown.size, 61 * PAGE);
	sync_all(rig);
	rig_free(rig);
}

static void to_hide_it_twice_is_as_once(void **state)
{
	struct rig *rig = rig_looking(4);

	file_stat_hide(rig->f);
	assert_true(hidden(rig->f));
	file_stat_hide(rig->f);
	assert_true(hidden(rig->f));
	settle(rig);
	rig_free(rig);
}

static void a_change_of_size_hides_it(void **state)
{
	struct rig *rig = rig_looking(8);

	assert_int_equal(file_set_size(rig->f, 3 * PAGE), 0);
	assert_true(hidden(rig->f));
	settle(rig);
	assert_int_equal(file_set_size(rig->f, 5 * PAGE), 0);
	assert_true(hidden(rig->f));
	settle(rig);
	file_grown(rig->f, 6 * PAGE);
	assert_true(hidden(rig->f));
	assert_int_equal(ftruncate(rig->f->memfd, 6 * PAGE), 0);
	settle(rig);
	rig_free(rig);
}

static void nothing_is_shown_of_what_is_not_known_at_once(void **state)
{
	struct rig *rig = rig_looking(8);

	file_stat_hide(rig->f);
	rig->f->taking_over = true;
	file_stat_show(rig->f);
	assert_true(hidden(rig->f));
	file_changed(rig->f);
	assert_true(hidden(rig->f));
	rig->f->taking_over = false;
	file_stat_show(rig->f);
	is_shown(rig->f);
	rig_free(rig);
}

static void a_file_that_goes_leaves_nothing_shown(void **state)
{
	struct rig *rig = rig_looking(8);
	const struct pgc_control_page *page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, rig->f->control_fd, 0);

	assert_ptr_not_equal(page, MAP_FAILED);
	assert_int_equal(page->stat_seq & 1, 0);
	rig_free(rig);
	assert_int_equal(page->stat_seq & 1, 1);
	munmap((void *)page, PAGE);
}

static void a_later_page_begins_with_a_higher_number(void **state)
{
	struct rig *rig = rig_looking(8);
	uint64_t last;

	for (int i = 0; i < 100000; i++)
		file_changed(rig->f);
	last = rig->f->control->stat_seq;
	rig->f->control->stat_seq = 0; /* as a new one has it */
	file_stat_begin(rig->f);
	assert_true(hidden(rig->f));
	assert_true(rig->f->control->stat_seq > last);
	/* And what a dead daemon has left in the middle goes on. */
	rig->f->control->stat_seq = UINT64_MAX / 2;
	file_stat_begin(rig->f);
	assert_true(hidden(rig->f));
	assert_true(rig->f->control->stat_seq >= UINT64_MAX / 2);
	file_stat_show(rig->f);
	is_shown(rig->f);
	assert_true(rig->f->control->stat_seq > UINT64_MAX / 2);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_hidden_while_more_becomes_dirty_and_shown_with_the_time),
		cmocka_unit_test(what_nobody_shows_is_shown_in_a_later_round),
		cmocka_unit_test(it_is_hidden_while_pages_are_written_and_become_clean),
		cmocka_unit_test(a_write_out_is_followed),
		cmocka_unit_test(a_write_out_that_fails_is_followed),
		cmocka_unit_test(changes_by_request_are_shown_when_they_end),
		cmocka_unit_test(to_hide_it_twice_is_as_once),
		cmocka_unit_test(a_change_of_size_hides_it),
		cmocka_unit_test(nothing_is_shown_of_what_is_not_known_at_once),
		cmocka_unit_test(a_file_that_goes_leaves_nothing_shown),
		cmocka_unit_test(a_later_page_begins_with_a_higher_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
