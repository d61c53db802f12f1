/* SPDX-License-Identifier: Apache-2.0 */
/* Making room: what is given up and what not, the second-chance buffer, the marks of the background, and that each page is charged once. */
#include "rig.h"

#include "daemon/domain.h"
#include "daemon/pin.h"
#include "model.h"

#define FILE_PAGES 1000u

static struct domain *domain(struct rig *rig) { return worker_domain(&rig->w); }

static struct block *block_at(struct rig *rig, uint64_t page) { return block_tree_find(&rig->f->blocks, page / PGC_BLOCK_PAGES); }

static bool in_second(struct rig *rig, uint64_t page)
{
	struct block *b = block_at(rig, page);

	return b && (b->second & (1ull << (page % PGC_BLOCK_PAGES)));
}

static uint64_t count_second(struct rig *rig)
{
	uint64_t n = 0;

	for (uint64_t page = 0; page < file_pages(rig->f); page++)
		n += in_second(rig, page);
	return n;
}

/* The first page of the buffer from `page` on. */
static uint64_t next_second(struct rig *rig, uint64_t page)
{
	while (page < file_pages(rig->f) && !in_second(rig, page))
		page++;
	assert_true(page < file_pages(rig->f));
	return page;
}

static void memory_is(struct rig *rig, uint64_t off, uint64_t n, char value)
{
	char buf[PAGE];

	assert_in_range(n, 0, PAGE);
	assert_int_equal(pread(rig->f->memfd, buf, n, (off_t)off), n);
	for (uint64_t i = 0; i < n; i++)
		assert_int_equal((unsigned char)buf[i], (unsigned char)value);
}

static struct file_op op;
static bool op_ended;
static int op_error;

static void op_done(struct file_op *o, int error)
{
	op_ended = true;
	op_error = error;
}

/* Runs one change of the file to its end. */
static int change(struct rig *rig, struct file_op o)
{
	op = o;
	op.done = op_done;
	op_ended = false;
	ops_queue(rig->f, &op);
	rig_run(rig, &op_ended, 0);
	return op_error;
}

static int truncate_to(struct rig *rig, uint64_t size)
{
	return change(rig, (struct file_op){ .kind = FILE_OP_TRUNCATE, .off = size });
}

static int write_at(struct rig *rig, uint64_t off, uint64_t len, char value)
{
	static char buf[PGC_BLOCK_SIZE];

	memset(buf, value, len);
	return change(rig, (struct file_op){ .kind = FILE_OP_WRITE, .off = off, .len = len, .src = buf });
}

static bool synced;

static void sync_ended(struct sync_dirty *s, int error) { synced = true; }

static void sync_all(struct rig *rig)
{
	static struct sync_dirty s;

	synced = false;
	sync_dirty_all(&s, rig->f, sync_ended);
	rig_run(rig, &synced, 0);
}

/* What was started in the background comes to its end. */
static void settle(struct rig *rig)
{
	struct file *f = rig->f;
	bool busy;

	do {
		busy = !list_empty(&f->fills) || !list_empty(&f->writes) || f->version_busy;
		worker_round(&rig->w, busy && drr_empty(&rig->w.turns));
	} while (busy || !list_empty(&f->syncs) || !drr_empty(&rig->w.turns));
}

static void end(struct rig *rig)
{
	settle(rig);
	rig_free(rig);
}

/* What holds at any time when nothing is in flight. */
static void check_charges(struct rig *rig)
{
	uint64_t resident = 0, second = 0, pinned = 0, dirty = 0;
	struct stat st;

	for (struct block *b = block_tree_next(&rig->f->blocks, 0, false); b; b = block_tree_next(&rig->f->blocks, b->e->index + 1, false)) {
		assert_int_equal(b->filling, 0);
		assert_int_equal(b->e->resident & b->second, 0);
		assert_int_equal((b->e->dirty | b->pinned | b->ahead) & ~b->e->resident, 0);
		resident += (uint64_t)__builtin_popcountll(b->e->resident);
		second += (uint64_t)__builtin_popcountll(b->second);
		pinned += (uint64_t)__builtin_popcountll(b->pinned);
		dirty += (uint64_t)__builtin_popcountll(b->e->dirty | b->e->writeback);
	}
	assert_int_equal(rig->w.stats->resident, resident);
	assert_int_equal(rig->w.stats->second_chance, second);
	assert_int_equal(rig->w.stats->pinned, pinned);
	assert_int_equal(domain(rig)->second_used, second);
	assert_in_range(domain(rig)->second_touched, second, second + 128);
	assert_int_equal(domain(rig)->used, resident + domain(rig)->second_touched);
	assert_int_equal(rig->w.used, domain(rig)->used);
	assert_int_equal(rig_used(rig), domain(rig)->used);
	assert_int_equal(rig->budget.dirty, dirty);
	assert_int_equal(policy_counters(domain(rig)->policy)->second_chance, second);
	assert_int_equal(policy_counters(domain(rig)->policy)->probation + policy_counters(domain(rig)->policy)->main + second,
			 resident - pinned + second);
	/* And the memfd has no page that is not charged. */
	assert_int_equal(fstat(rig->f->memfd, &st), 0);
	assert_int_equal((uint64_t)st.st_blocks * 512 / PAGE, resident);
}

/* A file of FILE_PAGES, 2000 pages of memory, 200 of them for the buffer; the first `n` pages are resident, then `give` are given up. */
static struct rig *filled(uint64_t n, uint64_t give)
{
	struct rig *rig = rig_new_second(FILE_PAGES * PAGE, 2000, 10);

	rig_fill(rig, 0, n);
	/* What the buffer does not use any more stays charged for a while. */
	if (give)
		assert_in_range(reclaim_pages(&rig->w, give), give - 128, give);
	check_charges(rig);
	return rig;
}

/* --- the second-chance buffer --- */

static void what_is_given_up_stays_in_the_buffer_for_a_while(void **state)
{
	struct rig *rig = filled(600, 300);

	assert_int_equal(rig->w.stats->resident + count_second(rig), 600 - policy_counters(domain(rig)->policy)->dropped);
	assert_in_range(count_second(rig), 1, 200);
	assert_int_equal(rig->w.stats->reclaimed, 600 - rig->w.stats->resident);
	end(rig);
}

static void a_page_of_the_buffer_comes_back_without_a_read(void **state)
{
	struct rig *rig = filled(600, 300);
	uint64_t reads = rig_count(rig, 'r'), back = 0;

	for (uint64_t page = 0; page < 600; page++)
		if (in_second(rig, page)) {
			assert_int_equal(fill_start(rig->f, page, 1, 1, NULL, 0), 0);
			assert_true(rig_resident(rig, page)); /* at once */
			memory_is(rig, page * PAGE, PAGE, (char)(page + 1));
			back++;
		}
	assert_true(back > 0);
	assert_int_equal(rig_count(rig, 'r'), reads);
	assert_int_equal(rig->w.stats->soft_faults, back);
	assert_int_equal(count_second(rig), 0);
	check_charges(rig);
	end(rig);
}

static void a_read_of_many_pages_takes_those_of_the_buffer_along(void **state)
{
	struct rig *rig = filled(600, 300);
	uint64_t first = next_second(rig, 0), bytes = 0, here = rig->w.stats->resident + count_second(rig);

	rig->store.n = 0;
	rig_fill(rig, 0, 600);
	for (uint64_t page = 0; page < 600; page++)
		memory_is(rig, page * PAGE, PAGE, (char)(page + 1));
	for (unsigned i = 0; i < rig->store.n; i++) {
		const struct recorded *r = &rig->store.log[i];

		assert_false(r->off <= first * PAGE && first * PAGE < r->off + r->len);
		bytes += r->len;
	}
	assert_int_equal(bytes / PAGE, 600 - here);
	check_charges(rig);
	end(rig);
}

static void a_truncation_forgets_what_it_cuts_of_the_buffer(void **state)
{
	struct rig *rig = filled(600, 300);
	uint64_t page = next_second(rig, 0);

	while (in_second(rig, page + 1))
		page++; /* the last of a run, so that some are below */
	assert_int_equal(truncate_to(rig, page * PAGE + 100), 0);
	assert_false(in_second(rig, page)); /* it has a tail now */
	assert_int_equal(policy_slot(domain(rig)->policy, file_key(rig->f, page)), POLICY_NO_SLOT);
	check_charges(rig);
	/* Grown again, it has the bytes that were left, and zeros. */
	assert_int_equal(truncate_to(rig, FILE_PAGES * PAGE), 0);
	rig_fill(rig, page, 3);
	memory_is(rig, page * PAGE, 100, (char)(page + 1));
	memory_is(rig, page * PAGE + 100, PAGE - 100, 0);
	memory_is(rig, (page + 1) * PAGE, PAGE, 0);
	check_charges(rig);
	end(rig);
}

static void a_hole_in_a_part_of_a_page_is_not_undone_by_the_buffer(void **state)
{
	struct rig *rig = filled(600, 300);
	uint64_t page = next_second(rig, 0);
	struct file_op hole = {
		.kind = FILE_OP_FALLOCATE, .mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, .off = page * PAGE + 100, .len = 50,
	};

	assert_int_equal(change(rig, hole), 0);
	rig_fill(rig, page, 1);
	memory_is(rig, page * PAGE, 100, (char)(page + 1));
	memory_is(rig, page * PAGE + 100, 50, 0);
	memory_is(rig, page * PAGE + 150, PAGE - 150, (char)(page + 1));
	check_charges(rig);
	end(rig);
}

static void a_truncation_leaves_the_buffer_below_it(void **state)
{
	struct rig *rig = filled(600, 300);
	uint64_t page = next_second(rig, 0);

	assert_int_equal(truncate_to(rig, (page + 1) * PAGE), 0);
	assert_true(in_second(rig, page));
	rig_fill(rig, page, 1);
	memory_is(rig, page * PAGE, PAGE, (char)(page + 1));
	end(rig);
}

/* A file of 300 pages and 5 bytes, whose last page, which has bytes past the end, is in the buffer. */
static struct rig *end_in_second(void)
{
	struct rig *rig = rig_new_second(300 * PAGE + 5, 2000, 10);
	struct stat st;

	rig_fill(rig, 0, 100);
	rig_fill(rig, 300, 1);
	rig_fill(rig, 100, 200);
	/* As a client stores through its mapping, which ends with the page. */
	memcpy(block_at(rig, 300)->addr + (300 % PGC_BLOCK_PAGES) * PAGE + 5, "past the end", 12);
	for (int i = 0; i < 200 && !in_second(rig, 300); i++)
		(void)reclaim_pages(&rig->w, 1);
	assert_true(in_second(rig, 300));
	assert_int_equal(fstat(rig->f->memfd, &st), 0);
	assert_int_equal(st.st_size, rig->f->size);
	check_charges(rig);
	return rig;
}

static void the_page_of_the_end_of_file_comes_back_as_it_was(void **state)
{
	struct rig *rig = end_in_second();
	struct stat st;

	rig_fill(rig, 300, 1);
	memory_is(rig, 300 * PAGE, 5, (char)301);
	assert_int_equal(fstat(rig->f->memfd, &st), 0);
	assert_int_equal(st.st_size, rig->f->size);
	check_charges(rig);
	end(rig);
}

static void a_file_that_grows_has_zeros_where_the_buffer_ended(void **state)
{
	struct rig *rig = end_in_second();

	assert_int_equal(truncate_to(rig, 320 * PAGE), 0);
	rig_fill(rig, 300, 2);
	memory_is(rig, 300 * PAGE, 5, (char)301);
	memory_is(rig, 300 * PAGE + 5, PAGE - 5, 0);
	memory_is(rig, 301 * PAGE, PAGE, 0);
	check_charges(rig);
	end(rig);
}

static void a_write_past_the_end_leaves_zeros_where_the_buffer_ended(void **state)
{
	struct rig *rig = end_in_second();

	assert_int_equal(write_at(rig, 310 * PAGE, PAGE, 'w'), 0);
	rig_fill(rig, 300, 1);
	memory_is(rig, 300 * PAGE, 5, (char)301);
	memory_is(rig, 300 * PAGE + 5, PAGE - 5, 0);
	check_charges(rig);
	end(rig);
}

static void small_files_are_given_up_like_others(void **state)
{
	struct rig *rig = rig_new_second(100, 2000, 10);

	rig_fill(rig, 0, 1);
	for (int i = 0; i < 10 && rig->w.stats->resident > 0; i++)
		(void)reclaim_pages(&rig->w, 1);
	assert_int_equal(rig->w.stats->resident, 0);
	end(rig);
}

static void growth_leaves_the_buffer(void **state)
{
	struct rig *rig = filled(600, 300);
	uint64_t page = next_second(rig, 0);

	assert_int_equal(truncate_to(rig, (FILE_PAGES + 20) * PAGE), 0);
	assert_true(in_second(rig, page));
	rig_fill(rig, page, 1);
	memory_is(rig, page * PAGE, PAGE, (char)(page + 1));
	check_charges(rig);
	end(rig);
}

static void a_write_into_a_page_of_the_buffer_keeps_its_other_bytes(void **state)
{
	struct rig *rig = filled(600, 300);
	uint64_t page = next_second(rig, 0);

	rig->store.n = 0;
	assert_int_equal(write_at(rig, page * PAGE + 100, 10, 'w'), 0);
	assert_int_equal(rig_count(rig, 'r'), 0);
	assert_false(in_second(rig, page));
	assert_true(rig_dirty(rig, page));
	memory_is(rig, page * PAGE, 100, (char)(page + 1));
	memory_is(rig, page * PAGE + 100, 10, 'w');
	memory_is(rig, page * PAGE + 110, PAGE - 110, (char)(page + 1));
	check_charges(rig);
	end(rig);
}

static void a_write_over_pages_of_the_buffer_has_the_last_word(void **state)
{
	struct rig *rig = filled(600, 300);
	uint64_t page = next_second(rig, 0);

	assert_int_equal(write_at(rig, page * PAGE, 2 * PAGE, 'w'), 0);
	assert_false(in_second(rig, page));
	assert_false(in_second(rig, page + 1));
	memory_is(rig, page * PAGE, PAGE, 'w');
	sync_all(rig);
	(void)reclaim_pages(&rig->w, 600);
	rig_fill(rig, page, 2);
	memory_is(rig, page * PAGE, PAGE, 'w');
	memory_is(rig, (page + 1) * PAGE, PAGE, 'w');
	check_charges(rig);
	end(rig);
}

static void a_drop_empties_the_buffer(void **state)
{
	struct rig *rig = filled(600, 300);
	uint64_t here = rig->w.stats->resident + count_second(rig);

	assert_int_equal(file_drop_clean(rig->f, 0, ~0ull, false), here);
	assert_int_equal(count_second(rig), 0);
	assert_int_equal(rig->w.stats->resident, 0);
	check_charges(rig);
	end(rig);
}

static void without_a_buffer_pages_are_dropped(void **state)
{
	struct rig *rig = rig_new(FILE_PAGES * PAGE, 2000);

	rig_fill(rig, 0, 600);
	assert_int_equal(reclaim_pages(&rig->w, 300), 300);
	assert_int_equal(rig->w.stats->resident, 300);
	assert_int_equal(rig->w.stats->demoted, 0);
	check_charges(rig);
	end(rig);
}

/* Readers by calls compare it after they have read. */
static void seq_grows_when_pages_go(void **state)
{
	struct rig *rig = filled(100, 0);
	uint64_t seq = rig->f->control->seq;

	(void)reclaim_pages(&rig->w, 10);
	assert_true(rig->w.stats->reclaimed > 0);
	assert_true(rig->f->control->seq > seq);
	seq = rig->f->control->seq;
	(void)file_drop_clean(rig->f, 0, 100, false);
	assert_true(rig->f->control->seq > seq);
	end(rig);
}

/* --- what stays --- */

static void dirty_pages_stay_until_they_are_written(void **state)
{
	struct rig *rig = filled(200, 0);

	for (uint64_t page = 0; page < 200; page += 4)
		rig_store_page(rig, page, 'd');
	while (reclaim_pages(&rig->w, 200) > 0)
		;
	for (uint64_t page = 0; page < 200; page++)
		assert_int_equal(rig_resident(rig, page), page % 4 == 0);
	/* The walk has started their write-out: then they may go. */
	settle(rig);
	assert_int_equal(rig->f->e->dirty, 0);
	assert_int_equal(rig->store.data[4 * PAGE], 'd');
	while (reclaim_pages(&rig->w, 200) > 0)
		;
	assert_int_equal(rig->w.stats->resident, 0);
	check_charges(rig);
	end(rig);
}

static void pages_that_are_being_written_stay(void **state)
{
	struct rig *rig = filled(100, 0);

	for (uint64_t page = 10; page < 20; page++)
		rig_store_page(rig, page, 'd');
	rig->store.held = true;
	writeback_background(rig->f);
	while (rig->f->e->writeback < 10)
		worker_round(&rig->w, false);
	while (reclaim_pages(&rig->w, 200) > 0)
		;
	for (uint64_t page = 0; page < 100; page++)
		assert_int_equal(rig_resident(rig, page), page >= 10 && page < 20);
	rig_release(rig);
	while (rig->f->e->writeback)
		worker_round(&rig->w, true);
	end(rig);
}

static void kept_pages_stay(void **state)
{
	struct rig *rig = filled(100, 0);
	struct block *b = block_at(rig, 0);

	assert_int_equal(dirty_set_mark_dirty(&rig->f->kept, (struct range){ 10 * PAGE, 20 * PAGE }, true), 0);
	rig->f->kept_bytes = rig->w.kept_bytes = 10 * PAGE;
	block_apply_keep(b);
	sync_all(rig);
	while (reclaim_pages(&rig->w, 200) > 0)
		;
	for (uint64_t page = 0; page < 100; page++)
		assert_int_equal(rig_resident(rig, page), page >= 10 && page < 20);
	check_charges(rig);
	file_clear_keep(rig->f);
	sync_all(rig);
	while (reclaim_pages(&rig->w, 200) > 0)
		;
	assert_int_equal(rig->w.stats->resident, 0);
	end(rig);
}

static void kept_pages_make_nobody_wait(void **state)
{
	struct rig *rig = filled(100, 0);

	rig->budget.dirty_max = 6;
	assert_int_equal(dirty_set_mark_dirty(&rig->f->kept, (struct range){ 10 * PAGE, 20 * PAGE }, true), 0);
	rig->f->kept_bytes = rig->w.kept_bytes = 10 * PAGE;
	block_dirtied_by(block_at(rig, 0), &(struct toucher){ .client = 7 });
	block_apply_keep(block_at(rig, 0));
	assert_true(budget_may_dirty(&rig->budget, 7, NULL));
	sync_all(rig);
	assert_true(budget_may_dirty(&rig->budget, 7, NULL));
	assert_int_equal(write_at(rig, 0, 4 * PAGE, 'w'), 0);
	assert_int_equal(rig->budget.dirty_by[7], 4);
	/* Once it is let go it counts like the rest, until it is written. */
	file_clear_keep(rig->f);
	assert_int_equal(rig->budget.dirty_by[7], 14);
	assert_false(budget_may_dirty(&rig->budget, 7, NULL));
	sync_all(rig);
	assert_int_equal(rig->budget.dirty_by[7], 0);
	end(rig);
}

static void pinned_pages_stay(void **state)
{
	struct rig *rig = filled(200, 0);

	rig->budget.pin_max = 100;
	assert_int_equal(file_pin(rig->f, 50 * PAGE, 150 * PAGE, true), 0);
	check_charges(rig);
	while (reclaim_pages(&rig->w, 200) > 0)
		;
	for (uint64_t page = 0; page < 200; page++)
		assert_int_equal(rig_resident(rig, page), page >= 50 && page < 150);
	assert_int_equal(file_pin(rig->f, 50 * PAGE, 150 * PAGE, false), 0);
	assert_int_equal(rig->budget.pinned, 0);
	while (reclaim_pages(&rig->w, 200) > 0)
		;
	assert_int_equal(rig->w.stats->resident, 0);
	end(rig);
}

static bool pin_ended;
static int pin_error;

static void pinned(struct pin *p, int error)
{
	pin_ended = true;
	pin_error = error;
}

static void a_pin_that_cannot_be_read_leaves_those_before(void **state)
{
	struct rig *rig = rig_new_second(FILE_PAGES * PAGE, 2000, 10);
	struct pin p;

	rig->budget.pin_max = 100;
	rig_fill(rig, 20, 10);
	assert_int_equal(file_pin(rig->f, 20 * PAGE, 30 * PAGE, true), 0);
	rig->store.read_error = -EIO;
	pin_ended = false;
	pin_start(&p, rig->f, 10 * PAGE, 30 * PAGE, pinned);
	rig_run(rig, &pin_ended, 0);
	assert_int_equal(pin_error, -EIO);
	assert_int_equal(rig->budget.pinned, 10);
	assert_true(dirty_set_dirty_at(&rig->f->pins, 20 * PAGE) && dirty_set_dirty_at(&rig->f->pins, 30 * PAGE - 1));
	assert_false(dirty_set_dirty_at(&rig->f->pins, 19 * PAGE) || dirty_set_dirty_at(&rig->f->pins, 30 * PAGE));
	end(rig);
}

static void a_pin_takes_pages_out_of_the_buffer(void **state)
{
	struct rig *rig = filled(600, 300);
	uint64_t page = next_second(rig, 0);

	rig->budget.pin_max = 100;
	assert_int_equal(file_pin(rig->f, page * PAGE, (page + 1) * PAGE, true), 0);
	assert_true(rig_resident(rig, page));
	memory_is(rig, page * PAGE, PAGE, (char)(page + 1));
	check_charges(rig);
	end(rig);
}

static void more_than_pin_max_is_not_pinned(void **state)
{
	struct rig *rig = filled(200, 0);

	rig->budget.pin_max = 100;
	assert_int_equal(file_pin(rig->f, 0, 101 * PAGE, true), -ENOSPC);
	assert_int_equal(rig->budget.pinned, 0);
	assert_int_equal(rig->w.stats->pinned, 0);
	assert_int_equal(file_pin(rig->f, 0, 60 * PAGE, true), 0);
	assert_int_equal(file_pin(rig->f, 40 * PAGE, 100 * PAGE, true), 0); /* what is pinned already costs nothing */
	assert_int_equal(rig->budget.pinned, 100);
	assert_int_equal(file_pin(rig->f, 100 * PAGE, 101 * PAGE, true), -ENOSPC);
	end(rig);
}

/* --- marks and charges --- */

static uint64_t free_pages(struct rig *rig) { return rig->budget.max - rig->budget.used; }

static void the_background_stops_at_the_low_mark(void **state)
{
	struct rig *rig = rig_new(FILE_PAGES * PAGE, 20000);
	uint64_t reserve = budget_reserve(20000), n = 0, others = 20000 - rig->budget.used - 2 * reserve - 100;

	/* Other workers hold most. Page by page, until the reserve is touched. */
	assert_true(reserve > 256); /* more than one turn is to do */
	rig->budget.used += others;
	while (free_pages(rig) > reserve && n < FILE_PAGES - 1)
		rig_fill(rig, n++, 1);
	assert_int_equal(rig->w.stats->reclaimed, 0);
	rig_fill(rig, n, 1);
	settle(rig);
	assert_in_range(free_pages(rig), 2 * reserve, 2 * reserve + 64 + 8); /* a batch, and tables that shrink */
	assert_int_equal(rig->w.stats->direct_reclaims, 0);
	/* And begins no sooner than at the high one. */
	n = rig->w.stats->reclaimed;
	reclaim_wake(&rig->w);
	settle(rig);
	assert_int_equal(rig->w.stats->reclaimed, n);
	rig->budget.used -= others;
	end(rig);
}

static void a_lowered_budget_is_reached_in_the_background(void **state)
{
	struct rig *rig = rig_new_second(FILE_PAGES * PAGE, 900, 10);

	rig_fill(rig, 0, 800);
	rig->budget.max = rig->budget.memory_max = 200;
	reclaim_wake(&rig->w);
	settle(rig);
	assert_true(rig->budget.used <= 200);
	check_charges(rig);
	end(rig);
}

static void much_that_is_dirty_is_written_in_the_background(void **state)
{
	struct rig *rig = filled(100, 0);

	rig->budget.dirty_background = 50;
	for (uint64_t page = 0; page < 50; page++)
		rig_store_page(rig, page, 'd');
	settle(rig);
	assert_int_equal(rig_count(rig, 'w'), 0);
	rig_store_page(rig, 50, 'd');
	settle(rig);
	assert_int_equal(rig->f->e->dirty, 0);
	assert_true(rig_count(rig, 'w') > 0);
	end(rig);
}

static void a_charge_that_finds_no_room_makes_some(void **state)
{
	struct rig *rig = rig_new_second(FILE_PAGES * PAGE, 900, 10);

	rig_fill(rig, 0, 700);
	rig->budget.max = rig->budget.used;
	assert_true(reclaim_charge(&rig->w, domain(rig), 10, false));
	assert_true(rig->budget.used <= rig->budget.max);
	assert_int_equal(rig->w.stats->direct_reclaims, 1);
	budget_uncharge(&rig->w, domain(rig), 10);
	end(rig);
}

static void a_charge_is_refused_while_all_is_dirty_and_all_is_written(void **state)
{
	struct rig *rig = filled(300, 0);

	for (uint64_t page = 0; page < 300; page++)
		rig_store_page(rig, page, 'd');
	rig->budget.max = rig->budget.used;
	assert_false(reclaim_charge(&rig->w, domain(rig), 1, false));
	check_charges(rig);
	settle(rig);
	assert_int_equal(rig->f->e->dirty, 0);
	rig_run(rig, NULL, 5); /* it does not look again at once */
	assert_true(reclaim_charge(&rig->w, domain(rig), 1, false));
	budget_uncharge(&rig->w, domain(rig), 1);
	end(rig);
}

static void what_is_read_ahead_never_takes_the_reserve(void **state)
{
	struct rig *rig = filled(300, 0);
	uint64_t reserve, n = 0;

	for (uint64_t page = 0; page < 300; page++)
		rig_store_page(rig, page, 'd'); /* nothing can be given up */
	rig->budget.max = rig->budget.used + 100;
	reserve = budget_reserve(rig->budget.max);
	assert_true(reserve > 2);
	while (reclaim_charge(&rig->w, domain(rig), 1, true)) {
		assert_in_range(free_pages(rig), reserve, 100);
		n++;
	}
	assert_int_equal(n, 100 - reserve);
	/* The policy's tables are charged when something is to be given up. */
	rig->budget.max = rig->budget.used + reserve;
	/* What is asked for may. */
	assert_true(reclaim_charge(&rig->w, domain(rig), 1, false));
	budget_uncharge(&rig->w, domain(rig), n + 1);
	end(rig);
}

static void a_read_ahead_does_not_push_out_what_is_used(void **state)
{
	struct rig *rig = filled(300, 0);
	struct block *b;

	for (int i = 0; i < 3; i++)
		for (b = block_tree_next(&rig->f->blocks, 0, false); b; b = block_tree_next(&rig->f->blocks, b->e->index + 1, false))
			block_touched(b, ~0ull, 0);
	rig->budget.max = rig->budget.used + 20;
	(void)fill_start(rig->f, 400, 200, 0, NULL, POLICY_AHEAD);
	while (!list_empty(&rig->f->fills))
		worker_round(&rig->w, true);
	assert_true(rig->w.stats->resident + count_second(rig) >= 300);
	for (uint64_t page = 0; page < 300; page++)
		assert_true(rig_resident(rig, page) || in_second(rig, page));
	end(rig);
}

static void a_fill_of_more_than_the_memory_takes_what_there_is(void **state)
{
	struct rig *rig = rig_new_second(FILE_PAGES * PAGE, 150, 0);

	for (uint64_t page = 0; page < FILE_PAGES; page++) {
		rig_fill(rig, page, 1);
		assert_true(rig_resident(rig, page));
		assert_true(rig->budget.used <= 150);
	}
	check_charges(rig);
	end(rig);
}

/* --- any sequence --- */

#define HALVES (2 * FILE_PAGES)

/* What the file should hold, by half pages; size in half pages. */
struct model { unsigned char half[HALVES]; uint64_t size; };

static void random_truncate(struct rig *rig, struct model *m)
{
	uint64_t size = 1 + model_random(HALVES);

	assert_int_equal(truncate_to(rig, size * PAGE / 2), 0);
	for (uint64_t i = MIN(size, m->size); i < HALVES; i++)
		m->half[i] = 0;
	m->size = size;
}

static void random_stores(struct rig *rig, struct model *m)
{
	for (unsigned i = 0; i < 20; i++) {
		uint64_t page = model_random(page_up(m->size * PAGE / 2));
		char value = (char)model_random(256);

		if (!rig_resident(rig, page))
			continue;
		rig_store_page(rig, page, value);
		m->half[page * 2] = (unsigned char)value;
		if (page * 2 + 1 < m->size)
			m->half[page * 2 + 1] = (unsigned char)value;
	}
}

static void random_write(struct rig *rig, struct model *m)
{
	uint64_t from = model_random(m->size), n = 1 + model_random(60), to = MIN(from + n, (uint64_t)HALVES);
	char value = (char)model_random(256);

	assert_int_equal(write_at(rig, from * PAGE / 2, (to - from) * PAGE / 2, value), 0);
	memset(m->half + from, value, to - from);
	m->size = MAX(m->size, to);
}

static void check_page(struct rig *rig, const struct model *m, uint64_t page)
{
	memory_is(rig, page * PAGE, PAGE / 2, (char)m->half[page * 2]);
	if (page * 2 + 1 < m->size)
		memory_is(rig, page * PAGE + PAGE / 2, PAGE / 2, (char)m->half[page * 2 + 1]);
}

static void random_step(struct rig *rig, struct model *m)
{
	uint64_t pages = page_up(m->size * PAGE / 2), page = model_random(pages);
	uint64_t end = MIN(page + 1 + model_random(100), pages);

	switch (model_random(10)) {
	case 0: case 1: case 2:
		rig_fill(rig, page, end - page);
		break;
	case 3:
		random_stores(rig, m);
		break;
	case 4:
		random_write(rig, m);
		break;
	case 5:
		sync_all(rig);
		break;
	case 6:
		(void)reclaim_pages(&rig->w, 1 + model_random(200));
		break;
	case 7:
		if (model_random(4) == 0)
			random_truncate(rig, m);
		else
			(void)file_drop_clean(rig->f, page, end, false);
		break;
	case 8:
		(void)file_pin(rig->f, page * PAGE, end * PAGE, model_random(3) > 0);
		break;
	default:
		for (struct block *b = block_tree_next(&rig->f->blocks, 0, false); b; b = block_tree_next(&rig->f->blocks, b->e->index + 1, false)) {
			if (model_random(2))
				block_touched(b, model_random(UINT64_MAX), 0);
			else
				reclaim_restore(b, model_random(UINT64_MAX), 0);
		}
	}
	settle(rig);
}

static void any_sequence_keeps_bytes_and_charges_right(void **state)
{
	struct rig *rig = rig_new_second(FILE_PAGES * PAGE, 700, 15);
	struct model m = { .size = HALVES };

	model_seed();
	rig->budget.pin_max = 150;
	for (uint64_t i = 0; i < HALVES; i++)
		m.half[i] = (unsigned char)(i / 2 + 1);
	for (unsigned i = 0; i < 1500; i++) {
		uint64_t page;

		rig->store.n = 0;
		random_step(rig, &m);
		assert_int_equal(rig->f->size, m.size * PAGE / 2);
		check_charges(rig);
		assert_true(rig->budget.used <= rig->budget.max + 64); /* what comes back from the buffer does not wait */
		page = model_random(file_pages(rig->f));
		if (rig_resident(rig, page))
			check_page(rig, &m, page);
	}
	assert_true(rig->w.stats->soft_faults > 0 && rig->w.stats->demoted > 0 && rig->w.stats->reclaimed > 0);
	(void)file_pin(rig->f, 0, FILE_PAGES * PAGE, false);
	for (uint64_t page = 0; page < file_pages(rig->f); page++) {
		rig->store.n = 0;
		rig_fill(rig, page, 1);
		check_page(rig, &m, page);
	}
	end(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_given_up_stays_in_the_buffer_for_a_while),
		cmocka_unit_test(a_page_of_the_buffer_comes_back_without_a_read),
		cmocka_unit_test(a_read_of_many_pages_takes_those_of_the_buffer_along),
		cmocka_unit_test(a_truncation_forgets_what_it_cuts_of_the_buffer),
		cmocka_unit_test(a_hole_in_a_part_of_a_page_is_not_undone_by_the_buffer),
		cmocka_unit_test(a_truncation_leaves_the_buffer_below_it),
		cmocka_unit_test(the_page_of_the_end_of_file_comes_back_as_it_was),
		cmocka_unit_test(a_file_that_grows_has_zeros_where_the_buffer_ended),
		cmocka_unit_test(a_write_past_the_end_leaves_zeros_where_the_buffer_ended),
		cmocka_unit_test(small_files_are_given_up_like_others),
		cmocka_unit_test(growth_leaves_the_buffer),
		cmocka_unit_test(a_write_into_a_page_of_the_buffer_keeps_its_other_bytes),
		cmocka_unit_test(a_write_over_pages_of_the_buffer_has_the_last_word),
		cmocka_unit_test(a_drop_empties_the_buffer),
		cmocka_unit_test(without_a_buffer_pages_are_dropped),
		cmocka_unit_test(seq_grows_when_pages_go),
		cmocka_unit_test(dirty_pages_stay_until_they_are_written),
		cmocka_unit_test(pages_that_are_being_written_stay),
		cmocka_unit_test(kept_pages_stay),
		cmocka_unit_test(kept_pages_make_nobody_wait),
		cmocka_unit_test(pinned_pages_stay),
		cmocka_unit_test(a_pin_takes_pages_out_of_the_buffer),
		cmocka_unit_test(a_pin_that_cannot_be_read_leaves_those_before),
		cmocka_unit_test(more_than_pin_max_is_not_pinned),
		cmocka_unit_test(the_background_stops_at_the_low_mark),
		cmocka_unit_test(a_lowered_budget_is_reached_in_the_background),
		cmocka_unit_test(much_that_is_dirty_is_written_in_the_background),
		cmocka_unit_test(a_charge_that_finds_no_room_makes_some),
		cmocka_unit_test(a_charge_is_refused_while_all_is_dirty_and_all_is_written),
		cmocka_unit_test(what_is_read_ahead_never_takes_the_reserve),
		cmocka_unit_test(a_read_ahead_does_not_push_out_what_is_used),
		cmocka_unit_test(a_fill_of_more_than_the_memory_takes_what_there_is),
		cmocka_unit_test(any_sequence_keeps_bytes_and_charges_right),
	};

	return cmocka_run_group_tests_name("reclaim", tests, NULL, NULL);
}
