/* SPDX-License-Identifier: Apache-2.0 */
/* What programs rely on when they want their bytes kept: fsync, fdatasync, msync, errors, the last unmap, SIGKILL. */
#include "harness.h"

#define SIZE (70 * PAGE + 321)

/* --- 17: a zero means that the store has it --- */

static int by_fsync(struct pgc_file *f, void *m)
{
	(void)m;
	return pgc_fsync(f);
}

static int by_fdatasync(struct pgc_file *f, void *m)
{
	(void)m;
	return pgc_fdatasync(f);
}

static int by_msync(struct pgc_file *f, void *m)
{
	(void)f;
	return pgc_msync(m, SIZE, MS_SYNC);
}

/* Stores of this process, of another, and a pwrite; the file has an odd size. */
static void store_peer(struct peer *p, void *path)
{
	uint8_t *m = map(open_file(path, O_RDWR), SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (uint64_t gen; (gen = peer_hear(p)) != 0; peer_tell(p, gen))
		pattern_fill(m + 20 * PAGE, 30 * PAGE, 20 * PAGE, (unsigned)gen);
}

static void has_the_bytes(int (*sync)(struct pgc_file *f, void *m))
{
	char *path = make_file("f", SIZE, 1);
	struct peer *p = peer_start(store_peer, path);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), b[PAGE + 321];

	for (unsigned gen = 2; gen < 6; gen++) {
		pattern_fill(m, 20 * PAGE, 0, gen);
		CHECK_EQ(peer_ask(p, gen), gen);
		pattern_fill(m + 50 * PAGE, 19 * PAGE, 50 * PAGE, gen);
		pattern_fill(b, sizeof(b), 69 * PAGE, gen);
		CHECK_EQ(pgc_pwrite(f, b, sizeof(b), 69 * PAGE), sizeof(b));
		CHECK_EQ(sync(f, m), 0);
		CHECK(store_has(path, SIZE, 0, gen));
		CHECK_EQ(store_size(path), SIZE);
		CHECK_EQ(file_state(path).dirty, 0);
		CHECK_EQ(file_state(path).writeback, 0);
	}
	peer_tell(p, 0);
	peer_join(p);
}

SYSTEM_TEST(c17_after_fsync_the_store_has_the_bytes)
{
	has_the_bytes(by_fsync);
}

SYSTEM_TEST(c17_after_fdatasync_the_store_has_the_bytes)
{
	has_the_bytes(by_fdatasync);
}

SYSTEM_TEST(c17_after_msync_the_store_has_the_bytes)
{
	has_the_bytes(by_msync);
}

SYSTEM_TEST(c17_fsync_of_another_handle_covers_the_file)
{
	char *path = make_file("f", SIZE, 1);
	struct pgc_file *f = open_file(path, O_RDWR), *g = open_file(path, O_RDONLY);
	uint8_t *m = map(f, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pattern_fill(m, SIZE, 0, 2);
	CHECK_EQ(pgc_fsync(g), 0);
	CHECK(store_has(path, SIZE, 0, 2));
}

SYSTEM_TEST(c17_write_on_a_synchronous_handle_is_in_the_store)
{
	char *path = make_file("f", SIZE, 1);
	struct pgc_file *f = open_file(path, O_RDWR | O_SYNC);
	uint8_t b[3 * PAGE];

	pattern_fill(b, sizeof(b), 777, 2);
	CHECK_EQ(pgc_pwrite(f, b, sizeof(b), 777), sizeof(b));
	CHECK(store_has(path, sizeof(b), 777, 2));
	CHECK(store_has(path, 777, 0, 1));
}

SYSTEM_TEST(c17_store_of_one_byte_keeps_its_neighbours)
{
	char *path = make_file("f", SIZE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	/* Onto cold pages: what is written back must have been filled. */
	store(m, 0);
	store(m + 33 * PAGE + 99, 0);
	store(m + SIZE - 1, 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 0, 0));
	CHECK(store_has(path, 33 * PAGE + 98, 1, 1));
	CHECK(store_has_byte(path, 33 * PAGE + 99, 0));
	CHECK(store_has(path, SIZE - 1 - (33 * PAGE + 100), 33 * PAGE + 100, 1));
	CHECK_EQ(store_size(path), SIZE);
}

/* --- 18: msync --- */

SYSTEM_TEST(c18_msync_writes_the_range_only)
{
	/* In an order that is no sequence: the daemon counts pages ahead of a sequence of stores as dirty too. */
	static const size_t dirty[] = {12, 2, 7, 6, 10, 66, 68};
	char *path = make_file("f", SIZE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct pgc_ctl_status_reply before, after;

	for (size_t i = 0; i < sizeof(dirty) / sizeof(dirty[0]); i++)
		store(m + dirty[i] * PAGE, 0);
	CHECK_EQ(file_state(path).dirty, 7);
	before = status();
	CHECK_EQ(pgc_msync(m + 6 * PAGE, 2 * PAGE, MS_SYNC), 0);
	CHECK_EQ(file_state(path).dirty, 5);
	after = status();
	if (after.pid == before.pid) /* else it counts from 0 */
		CHECK_EQ(after.writeout_bytes - before.writeout_bytes, 2 * PAGE);
	CHECK(store_has_byte(path, 6 * PAGE, 0) && store_has_byte(path, 7 * PAGE, 0));
	CHECK(store_has(path, 6 * PAGE, 0, 1));
	CHECK(store_has(path, SIZE - 8 * PAGE, 8 * PAGE, 1));
	/* A length that ends within a page takes all of it. */
	CHECK_EQ(pgc_msync(m + 10 * PAGE, 1, MS_SYNC), 0);
	CHECK_EQ(file_state(path).dirty, 4);
	CHECK(store_has_byte(path, 10 * PAGE, 0));
}

SYSTEM_TEST(c18_msync_sync_and_async_together_is_einval)
{
	struct pgc_file *f = open_file(make_file("f", SIZE, 1), O_RDWR);
	uint8_t *m = map(f, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	CHECK_EQ(pgc_msync(m, PAGE, MS_SYNC | MS_ASYNC), -EINVAL);
	CHECK_EQ(pgc_msync(m, PAGE, MS_SYNC | MS_ASYNC | MS_INVALIDATE), -EINVAL);
	CHECK_EQ(pgc_msync(m, PAGE, 1 << 10), -EINVAL);
}

SYSTEM_TEST(c18_msync_of_an_unaligned_address_is_einval)
{
	struct pgc_file *f = open_file(make_file("f", SIZE, 1), O_RDWR);
	uint8_t *m = map(f, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	CHECK_EQ(pgc_msync(m + 1, PAGE, MS_SYNC), -EINVAL);
	CHECK_EQ(pgc_msync(m + PAGE / 2, 0, MS_ASYNC), -EINVAL);
}

SYSTEM_TEST(c18_msync_of_an_unmapped_range_is_enomem)
{
	char *path = make_file("f", SIZE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	store(m, 0);
	store(m + 5 * PAGE, 0);
	CHECK_EQ(pgc_munmap(m + 2 * PAGE, 2 * PAGE), 0);
	CHECK_EQ(pgc_msync(m + 2 * PAGE, 2 * PAGE, MS_SYNC), -ENOMEM);
	/* What is mapped of the range is written all the same. */
	CHECK_EQ(pgc_msync(m, 8 * PAGE, MS_SYNC), -ENOMEM);
	CHECK(store_has_byte(path, 0, 0));
	CHECK(store_has_byte(path, 5 * PAGE, 0));
}

SYSTEM_TEST(c18_msync_of_length_0_is_fine)
{
	char *path = make_file("f", SIZE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	store(m, 0);
	CHECK_EQ(pgc_msync(m, 0, MS_SYNC), 0);
	CHECK_EQ(pgc_msync(m, 0, MS_ASYNC), 0);
	CHECK_EQ(file_state(path).dirty, 1);
}

SYSTEM_TEST(c18_msync_invalidate_of_a_locked_range_is_ebusy)
{
	struct pgc_file *f = open_file(make_file("f", SIZE, 1), O_RDWR);
	uint8_t *m = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	PATTERN_CHECK(m, 4 * PAGE, 0, 1);
	lock_memory(m + PAGE, PAGE);
	CHECK_EQ(pgc_msync(m, 4 * PAGE, MS_SYNC | MS_INVALIDATE), -EBUSY);
	CHECK_EQ(pgc_msync(m + PAGE, PAGE, MS_INVALIDATE), -EBUSY);
	CHECK_EQ(pgc_msync(m + 2 * PAGE, 2 * PAGE, MS_SYNC | MS_INVALIDATE), 0);
	unlock_memory(m + PAGE, PAGE);
	CHECK_EQ(pgc_msync(m, 4 * PAGE, MS_SYNC | MS_INVALIDATE), 0);
	PATTERN_CHECK(m, 4 * PAGE, 0, 1);
}

SYSTEM_TEST(c18_msync_async_starts_the_write_out_and_does_not_wait, .no_kills = STORE_DIES)
{
	struct pgc_file *f = open_mem("mem:a", 8 * PAGE, 1);
	uint8_t *m = map(f, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint64_t begin;

	store(m, 0);
	store(m + 5 * PAGE, 0);
	inject("mem:a", PGC_INJECT_WRITE_DELAY, 2000000, 0);
	begin = now_ms();
	CHECK_EQ(pgc_msync(m, PAGE, MS_ASYNC), 0);
	CHECK(now_ms() - begin < 1500);
	WAIT_UNTIL(file_state("mem:a").dirty == 1 && file_state("mem:a").writeback == 0);
}

SYSTEM_TEST(c18_msync_spans_mappings)
{
	char *path = make_file("f", SIZE, 1), *other = make_file("g", SIZE, 2);
	struct pgc_file *f = open_file(path, O_RDWR), *g = open_file(other, O_RDWR);
	uint8_t *m = mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(pgc_mmap(f, m + PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, 0) == m + PAGE);
	CHECK(pgc_mmap(g, m + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, PAGE) == m + 4 * PAGE);
	memset(m, 7, 6 * PAGE);
	CHECK_EQ(pgc_msync(m, 6 * PAGE, MS_SYNC), 0);
	CHECK(store_has_byte(path, 0, 7) && store_has_byte(path, 2 * PAGE - 1, 7));
	CHECK(store_has_byte(other, PAGE, 7) && store_has(other, PAGE, 0, 2));
}

/* --- 19: errors --- */

static void error_peer(struct peer *p, void *name)
{
	struct pgc_file *f = open_file(name, O_RDWR);

	peer_tell(p, 0);
	while (peer_hear(p) != 0)
		peer_tell(p, (uint64_t)-pgc_fsync(f));
}

SYSTEM_TEST(c19_failed_write_out_is_reported_once_on_each_handle, .no_kills = STORE_DIES)
{
	static char name[] = "mem:e";
	struct peer *p = peer_start(error_peer, name);
	struct pgc_file *f = open_mem(name, 4 * PAGE, 1), *g = open_file(name, O_RDWR), *late;
	uint8_t *m = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	peer_hear(p);
	store(m, 0);
	inject(name, PGC_INJECT_WRITE_ERROR, EIO, 1);
	CHECK_EQ(pgc_fsync(f), -EIO);
	late = open_file(name, O_RDWR);
	/* The store works again, so whatever is reported now is what happened before. */
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(pgc_fsync(g), -EIO);
	CHECK_EQ(pgc_fsync(g), 0);
	CHECK_EQ(peer_ask(p, 1), EIO);
	CHECK_EQ(peer_ask(p, 1), 0);
	CHECK_EQ(pgc_fsync(late), 0);
	peer_tell(p, 0);
	peer_join(p);
}

SYSTEM_TEST(c19_pages_of_a_failed_write_out_stay_dirty_and_are_tried_again, .no_kills = STORE_DIES)
{
	char name[] = "mem:e";
	struct pgc_file *f = open_mem(name, 4 * PAGE, 1);
	uint8_t *m = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), b[4 * PAGE];
	struct pgc_ctl_file_reply s;

	pattern_fill(m, 4 * PAGE, 0, 2);
	inject(name, PGC_INJECT_WRITE_ERROR, ENOSPC, 0);
	CHECK_EQ(pgc_fsync(f), -ENOSPC);
	s = file_state(name);
	CHECK_EQ(s.dirty, 4);
	CHECK_EQ(s.writeback, 0);
	CHECK_EQ(s.error, ENOSPC);
	PATTERN_CHECK(m, 4 * PAGE, 0, 2);
	CHECK_EQ(pgc_fsync(f), -ENOSPC);
	CHECK_EQ(file_state(name).dirty, 4);
	inject(name, PGC_INJECT_WRITE_ERROR, 0, 0);
	CHECK_EQ(pgc_fsync(f), 0);
	s = file_state(name);
	CHECK_EQ(s.dirty, 0);
	CHECK_EQ(s.error, 0);
	drop_clean();
	CHECK_EQ(file_state(name).resident, 0);
	CHECK_EQ(pgc_pread(f, b, sizeof(b), 0), sizeof(b));
	PATTERN_CHECK(b, 4 * PAGE, 0, 2);
}

SYSTEM_TEST(c19_failed_write_out_of_the_timer_is_reported_by_the_next_fsync, .no_kills = STORE_DIES, .dirty_expire = "100ms")
{
	char name[] = "mem:e";
	struct pgc_file *f = open_mem(name, 2 * PAGE, 1), *g = open_file(name, O_RDWR);
	uint8_t *m = map(f, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	inject(name, PGC_INJECT_WRITE_ERROR, EIO, 1);
	store(m, 0);
	WAIT_UNTIL(status().writeout_errors > 0);
	/* The timer tries again of itself. */
	WAIT_UNTIL(file_state(name).dirty == 0);
	CHECK_EQ(pgc_fsync(f), -EIO);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(pgc_fdatasync(g), -EIO);
	CHECK_EQ(pgc_fsync(g), 0);
}

SYSTEM_TEST(c19_msync_reports_a_failed_write_out, .no_kills = STORE_DIES)
{
	char name[] = "mem:e";
	struct pgc_file *f = open_mem(name, 2 * PAGE, 1);
	uint8_t *m = map(f, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	store(m, 0);
	inject(name, PGC_INJECT_WRITE_ERROR, EIO, 1);
	CHECK_EQ(pgc_msync(m, PAGE, MS_SYNC), -EIO);
	CHECK_EQ(file_state(name).dirty, 1);
	CHECK_EQ(pgc_msync(m, PAGE, MS_SYNC), 0);
	CHECK_EQ(file_state(name).dirty, 0);
}

SYSTEM_TEST(c19_error_of_the_store_s_own_sync_is_reported, .no_kills = STORE_DIES)
{
	char name[] = "mem:e";
	struct pgc_file *f = open_mem(name, 2 * PAGE, 1);
	uint8_t *m = map(f, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	store(m, 0);
	inject(name, PGC_INJECT_SYNC_ERROR, EIO, 1);
	CHECK_EQ(pgc_fsync(f), -EIO);
	CHECK_EQ(pgc_fsync(f), 0);
}

/* --- 20: nobody asks --- */

SYSTEM_TEST(c20_dirty_pages_are_written_after_the_last_unmap_and_close)
{
	char *path = make_file("f", SIZE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pattern_fill(m, SIZE, 0, 2);
	CHECK_EQ(pgc_close(f), 0);
	CHECK_EQ(pgc_munmap(m, SIZE), 0);
	WAIT_UNTIL(store_has(path, SIZE, 0, 2));
	WAIT_UNTIL(file_state(path).dirty == 0);
}

SYSTEM_TEST(c20_dirty_pages_are_written_after_a_plain_munmap_and_close)
{
	char *path = make_file("f", SIZE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pattern_fill(m, SIZE, 0, 2);
	CHECK(munmap(m, SIZE) == 0);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(store_has(path, SIZE, 0, 2));
}

SYSTEM_TEST(c20_pwritten_pages_are_written_after_close)
{
	char *path = make_file("f", SIZE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *b = malloc(SIZE);

	pattern_fill(b, SIZE, 0, 2);
	CHECK_EQ(pgc_pwrite(f, b, SIZE, 0), SIZE);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(store_has(path, SIZE, 0, 2));
}

static void leave_peer(struct peer *p, void *path)
{
	uint8_t *m = map(open_file(path, O_RDWR), SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	(void)p;
	pattern_fill(m, SIZE, 0, 2);
}

SYSTEM_TEST(c20_dirty_pages_are_written_after_the_client_has_ended)
{
	char *path = make_file("f", SIZE, 1);

	peer_join(peer_start(leave_peer, path));
	WAIT_UNTIL(store_has(path, SIZE, 0, 2));
	WAIT_UNTIL(file_state(path).handles == 0 && file_state(path).mappings == 0);
}

SYSTEM_TEST(c20_pagecachectl_sync_writes_all)
{
	char *a = make_file("a", SIZE, 1), *b = make_file("b", SIZE, 1);
	uint8_t *m = map(open_file(a, O_RDWR), SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint8_t *n = map(open_file(b, O_RDWR), SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct output o;

	pattern_fill(m, SIZE, 0, 2);
	pattern_fill(n, SIZE, 0, 3);
	o = RUN(pagecachectl(), "sync");
	if (o.code != 0)
		FAIL("pagecachectl sync: %d: %s", o.code, o.err);
	CHECK(store_has(a, SIZE, 0, 2));
	CHECK(store_has(b, SIZE, 0, 3));
	CHECK_EQ(status().dirty, 0);
}

SYSTEM_TEST(c20_pagecachectl_sync_of_a_file_writes_that_file)
{
	char *a = make_file("a", SIZE, 1), *b = make_file("b", SIZE, 1);
	uint8_t *m = map(open_file(a, O_RDWR), SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint8_t *n = map(open_file(b, O_RDWR), SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct output o;

	store(m, 0);
	store(n, 0);
	o = RUN(pagecachectl(), "sync", a);
	if (o.code != 0)
		FAIL("pagecachectl sync: %d: %s", o.code, o.err);
	CHECK(store_has_byte(a, 0, 0));
	CHECK(store_has(b, SIZE, 0, 1));
	CHECK_EQ(file_state(b).dirty, 1);
}

SYSTEM_TEST(c20_pagecachectl_sync_reports_the_first_error, .no_kills = STORE_DIES)
{
	char name[] = "mem:e";
	char *path = make_file("f", SIZE, 1);
	struct pgc_file *f = open_mem(name, 2 * PAGE, 1);
	uint8_t *m = map(f, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint8_t *n = map(open_file(path, O_RDWR), SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct output o;

	store(m, 0);
	store(n, 0);
	inject(name, PGC_INJECT_WRITE_ERROR, ENOSPC, 1);
	o = RUN(pagecachectl(), "sync");
	CHECK(o.code != 0);
	if (!strstr(o.err, strerror(ENOSPC)))
		FAIL("it does not say which error: %s", o.err);
	/* The other file is written all the same. */
	CHECK(store_has_byte(path, 0, 0));
	CHECK_EQ(file_state(name).dirty, 1);
	o = RUN(pagecachectl(), "sync");
	CHECK_EQ(o.code, 0);
	CHECK_EQ(status().dirty, 0);
}

/* --- 21: SIGKILL --- */

struct progress {
	char path[256];
	volatile uint64_t stored;      /* bytes, in order, that are surely stored */
};

static void store_until_killed(struct peer *p, void *arg)
{
	struct progress *g = arg;
	uint8_t *m = map(open_file(g->path, O_RDWR), 400 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	peer_tell(p, 1);
	for (unsigned gen = 2;; gen++)
		for (uint64_t i = 0; i < 400 * PAGE; i += 512) {
			pattern_fill(m + i, 512, i, gen);
			g->stored = (uint64_t)(gen - 2) * 400 * PAGE + i + 512;
		}
}

static void pwrite_until_killed(struct peer *p, void *arg)
{
	struct progress *g = arg;
	struct pgc_file *f = open_file(g->path, O_RDWR);
	uint8_t b[512];

	peer_tell(p, 1);
	for (unsigned gen = 2;; gen++)
		for (uint64_t i = 0; i < 400 * PAGE; i += 512) {
			pattern_fill(b, 512, i, gen);
			CHECK_EQ(pgc_pwrite(f, b, 512, (off_t)i), 512);
			g->stored = (uint64_t)(gen - 2) * 400 * PAGE + i + 512;
		}
}

static void killed_while(peer_body body, uint64_t at_least)
{
	struct progress *g = shared_memory(sizeof(*g));
	char *path = make_file("f", 400 * PAGE, 1);
	uint8_t *b = malloc(400 * PAGE);
	struct peer *p;
	uint64_t round, in_round;

	snprintf(g->path, sizeof(g->path), "%s", path);
	p = peer_start(body, g);
	peer_hear(p);
	WAIT_UNTIL(g->stored >= at_least);
	peer_kill(p);
	WAIT_UNTIL(file_state(path).handles == 0 && file_state(path).dirty == 0 && file_state(path).writeback == 0);
	round = g->stored / (400 * PAGE);
	in_round = g->stored % (400 * PAGE);
	store_read(path, b, 400 * PAGE, 0);
	/* All that it said it stored; the 512 bytes that it was at may be either. */
	PATTERN_CHECK(b, in_round, 0, (unsigned)round + 2);
	PATTERN_CHECK(b + in_round + 512, 400 * PAGE - in_round - 512, in_round + 512, (unsigned)round + 1);
	CHECK_EQ(store_size(path), 400 * PAGE);
}

SYSTEM_TEST(c21_what_a_killed_client_stored_is_written_out)
{
	killed_while(store_until_killed, 150 * PAGE);
}

SYSTEM_TEST(c21_what_a_client_stored_before_being_killed_later_is_written_out)
{
	killed_while(store_until_killed, 900 * PAGE);
}

SYSTEM_TEST(c21_what_a_killed_client_pwrote_is_written_out)
{
	killed_while(pwrite_until_killed, 150 * PAGE);
}

SYSTEM_TESTS_MAIN("durability",
	cmocka_unit_test(c17_after_fsync_the_store_has_the_bytes),
	cmocka_unit_test(c17_after_fdatasync_the_store_has_the_bytes),
	cmocka_unit_test(c17_after_msync_the_store_has_the_bytes),
	cmocka_unit_test(c17_fsync_of_another_handle_covers_the_file),
	cmocka_unit_test(c17_write_on_a_synchronous_handle_is_in_the_store),
	cmocka_unit_test(c17_store_of_one_byte_keeps_its_neighbours),
	cmocka_unit_test(c18_msync_writes_the_range_only),
	cmocka_unit_test(c18_msync_sync_and_async_together_is_einval),
	cmocka_unit_test(c18_msync_of_an_unaligned_address_is_einval),
	cmocka_unit_test(c18_msync_of_an_unmapped_range_is_enomem),
	cmocka_unit_test(c18_msync_of_length_0_is_fine),
	cmocka_unit_test(c18_msync_invalidate_of_a_locked_range_is_ebusy),
	cmocka_unit_test(c18_msync_async_starts_the_write_out_and_does_not_wait),
	cmocka_unit_test(c18_msync_spans_mappings),
	cmocka_unit_test(c19_failed_write_out_is_reported_once_on_each_handle),
	cmocka_unit_test(c19_pages_of_a_failed_write_out_stay_dirty_and_are_tried_again),
	cmocka_unit_test(c19_failed_write_out_of_the_timer_is_reported_by_the_next_fsync),
	cmocka_unit_test(c19_msync_reports_a_failed_write_out),
	cmocka_unit_test(c19_error_of_the_store_s_own_sync_is_reported),
	cmocka_unit_test(c20_dirty_pages_are_written_after_the_last_unmap_and_close),
	cmocka_unit_test(c20_dirty_pages_are_written_after_a_plain_munmap_and_close),
	cmocka_unit_test(c20_pwritten_pages_are_written_after_close),
	cmocka_unit_test(c20_dirty_pages_are_written_after_the_client_has_ended),
	cmocka_unit_test(c20_pagecachectl_sync_writes_all),
	cmocka_unit_test(c20_pagecachectl_sync_of_a_file_writes_that_file),
	cmocka_unit_test(c20_pagecachectl_sync_reports_the_first_error),
	cmocka_unit_test(c21_what_a_killed_client_stored_is_written_out),
	cmocka_unit_test(c21_what_a_client_stored_before_being_killed_later_is_written_out),
	cmocka_unit_test(c21_what_a_killed_client_pwrote_is_written_out))
