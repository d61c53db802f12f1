/* SPDX-License-Identifier: Apache-2.0 */
/* Advice, and what is read ahead with and without it, as a program sees it: by what is read from the store and what is resident. */
#include "memory_tools.h"

#define SIZE (64 * MIB)
#define PAGES (SIZE / PAGE)

/* What was read since start_counting(), in pages. */
struct counts { uint64_t read, ahead, hits, faults; };
static struct counts before;

static struct counts count_now(void)
{
	struct pgc_ctl_status_reply s = status();
	struct pgc_ctl_memory_reply m = memory();

	return (struct counts){ s.fill_bytes / PAGE, m.readahead_pages, m.readahead_hits, s.faults };
}

static void start_counting(void) { before = count_now(); }

static struct counts since(void)
{
	struct counts c = count_now();

	return (struct counts){ c.read - before.read, c.ahead - before.ahead, c.hits - before.hits, c.faults - before.faults };
}

/* Until what is on its way has come: the same count twice, a little apart. */
static struct counts since_quiet(void)
{
	struct counts c = since(), d;

	for (;;) {
		nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
		d = since();
		if (d.read == c.read && d.ahead == c.ahead)
			return d;
		c = d;
	}
}

static uint8_t *map_file(struct pgc_file **ret, const char *name, size_t size)
{
	*ret = open_file(make_stamped(name, size, 1), O_RDWR);
	return map(*ret, size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
}

/* --- without advice --- */

SYSTEM_TEST(a_sequential_reader_seldom_waits)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", SIZE);
	struct counts c;

	start_counting();
	scan(m, SIZE, 1);
	c = since_quiet();
	CHECK_EQ(c.read, PAGES);
	if (c.read - c.ahead > 64)
		FAIL("%" PRIu64 " pages were read on demand", c.read - c.ahead);
	CHECK(c.hits >= c.ahead * 95 / 100);
	CHECK(c.faults < PAGES / 8);
}

SYSTEM_TEST(a_sequential_reader_by_calls_seldom_waits)
{
	struct pgc_file *f = open_file(make_stamped("f", SIZE, 1), O_RDONLY);
	struct counts c;
	char buf[PAGE];

	start_counting();
	for (uint64_t page = 0; page < PAGES; page++) {
		CHECK_EQ(pgc_pread(f, buf, PAGE, (off_t)(page * PAGE)), PAGE);
		check_stamp(buf, page, page, 1);
	}
	c = since_quiet();
	CHECK_EQ(c.read, PAGES);
	CHECK(c.read - c.ahead <= 64);
	CHECK(c.hits >= c.ahead * 95 / 100);
}

static void expect_random(struct counts c, uint64_t touched)
{
	if (c.read * 100 > touched * 105)
		FAIL("%" PRIu64 " pages were read for %" PRIu64 " that were touched", c.read, touched);
	CHECK(c.read >= touched);
}

SYSTEM_TEST(a_random_reader_reads_what_lies_around_while_there_is_memory)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", SIZE);
	struct counts c;

	start_counting();
	for (uint64_t i = 0; i < PAGES; i++)
		check_stamp(m, 0, scattered(i, PAGES), 1);
	c = since_quiet();
	CHECK_EQ(c.read, PAGES);
	if (c.read - c.ahead > PAGES / 16)
		FAIL("%" PRIu64 " pages were read on demand", c.read - c.ahead);
	CHECK(c.faults < PAGES / 8);
}

/* At first, while the memory fills, it may be otherwise. */
SYSTEM_TEST(a_random_reader_reads_what_it_touches_where_memory_is_short, .memory_max = "16M", .workers = 1)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", SIZE);
	struct counts c;

	for (uint64_t i = 0; i < 3000; i++)
		check_stamp(m, 0, scattered(i, PAGES), 1);
	start_counting();
	for (uint64_t i = 3000; i < 6000; i++)
		check_stamp(m, 0, scattered(i, PAGES), 1);
	c = since_quiet();
	if (c.read > 3000 * 105 / 100)
		FAIL("%" PRIu64 " pages were read for 3000 that were touched", c.read);
	CHECK(c.read >= 1000);
}

SYSTEM_TEST(a_random_reader_by_calls_reads_what_it_touches)
{
	struct pgc_file *f = open_file(make_stamped("f", SIZE, 1), O_RDONLY);
	char buf[PAGE];

	start_counting();
	for (uint64_t i = 0; i < 3000; i++) {
		uint64_t page = scattered(i, PAGES);

		CHECK_EQ(pgc_pread(f, buf, PAGE, (off_t)(page * PAGE)), PAGE);
		check_stamp(buf, page, page, 1);
	}
	expect_random(since_quiet(), 3000);
}

SYSTEM_TEST(a_backward_reader_seldom_waits)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", SIZE);
	struct counts c;

	start_counting();
	for (uint64_t page = PAGES; page-- > 0;)
		check_stamp(m, 0, page, 1);
	c = since_quiet();
	CHECK_EQ(c.read, PAGES);
	CHECK(c.read - c.ahead <= 128);
	CHECK(c.hits >= c.ahead * 95 / 100);
}

SYSTEM_TEST(a_strided_reader_seldom_waits)
{
	uint64_t first = 1000, stride = 9, touched = (PAGES - first) / stride;
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", SIZE);
	struct counts c;

	start_counting();
	for (uint64_t i = 0; i < touched; i++)
		check_stamp(m, 0, first + i * stride, 1);
	c = since_quiet();
	CHECK(c.read - c.ahead <= touched / 10);
	CHECK(c.hits >= c.ahead * 90 / 100);
	/* And nothing of what lies between. */
	if (c.read > touched * 11 / 10 + 128)
		FAIL("%" PRIu64 " pages were read for %" PRIu64 " that were touched", c.read, touched);
}

SYSTEM_TEST(without_readahead_each_page_is_read_for_itself, .config = "readahead_max = 0")
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", MIB);

	start_counting();
	scan(m, MIB / 2, 1);
	CHECK_EQ(since_quiet().ahead, 0);
	CHECK_EQ(since().read, MIB / 2 / PAGE);
}

/* --- RANDOM, SEQUENTIAL, NORMAL --- */

SYSTEM_TEST(random_reads_exactly_what_is_touched)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", SIZE);

	CHECK_EQ(pgc_madvise(m, SIZE, MADV_RANDOM), 0);
	start_counting();
	scan(m, MIB, 1); /* in sequence, which would be read ahead otherwise */
	CHECK_EQ(since_quiet().read, MIB / PAGE);
	CHECK_EQ(since().ahead, 0);
}

SYSTEM_TEST(fadvise_random_holds_for_calls_and_mappings)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", SIZE);
	char buf[PAGE];

	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_RANDOM), 0);
	start_counting();
	for (uint64_t page = 0; page < 100; page++) {
		CHECK_EQ(pgc_pread(f, buf, PAGE, (off_t)(page * PAGE)), PAGE);
		check_stamp(m, 0, 8192 + page, 1);
	}
	CHECK_EQ(since_quiet().read, 200);
	CHECK_EQ(since().ahead, 0);
}

SYSTEM_TEST(sequential_reads_ahead_at_once)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", SIZE);

	CHECK_EQ(pgc_madvise(m, SIZE, MADV_SEQUENTIAL), 0);
	start_counting();
	/* Not at the beginning of the file, where anyone is taken for a sequential reader. */
	check_stamp(m, 0, 5000, 1);
	check_stamp(m, 0, 5001, 1);
	CHECK(since_quiet().ahead >= 32);
}

SYSTEM_TEST(normal_takes_advice_back)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", SIZE);

	CHECK_EQ(pgc_madvise(m, SIZE, MADV_RANDOM), 0);
	start_counting();
	for (uint64_t page = 1000; page < 1064; page++)
		check_stamp(m, 0, page, 1);
	CHECK_EQ(since_quiet().ahead, 0);
	CHECK_EQ(pgc_madvise(m, SIZE, MADV_NORMAL), 0);
	for (uint64_t page = 3000; page < 3064; page++)
		check_stamp(m, 0, page, 1);
	CHECK(since_quiet().ahead > 0);
}

SYSTEM_TEST(fadvise_normal_takes_advice_back)
{
	struct pgc_file *f = open_file(make_stamped("f", SIZE, 1), O_RDONLY);
	char buf[PAGE];

	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_RANDOM), 0);
	start_counting();
	for (uint64_t page = 1000; page < 1064; page++)
		CHECK_EQ(pgc_pread(f, buf, PAGE, (off_t)(page * PAGE)), PAGE);
	CHECK_EQ(since_quiet().ahead, 0);
	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_NORMAL), 0);
	for (uint64_t page = 3000; page < 3064; page++)
		CHECK_EQ(pgc_pread(f, buf, PAGE, (off_t)(page * PAGE)), PAGE);
	CHECK(since_quiet().ahead > 0);
}

SYSTEM_TEST(advice_is_of_the_mapping)
{
	struct pgc_file *f;
	uint8_t *a = map_file(&f, "f", SIZE), *b = map(f, SIZE, PROT_READ, MAP_SHARED, 0);

	CHECK_EQ(pgc_madvise(a, SIZE, MADV_RANDOM), 0);
	CHECK_EQ(pgc_madvise(b, SIZE, MADV_SEQUENTIAL), 0);
	start_counting();
	for (uint64_t page = 1000; page < 1064; page++)
		check_stamp(a, 0, page, 1);
	CHECK_EQ(since_quiet().ahead, 0);
	for (uint64_t page = 3000; page < 3004; page++)
		check_stamp(b, 0, page, 1);
	CHECK(since_quiet().ahead > 0);
}

SYSTEM_TEST(advice_is_of_the_part_that_it_names)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", SIZE);

	CHECK_EQ(pgc_madvise(m + SIZE / 2, SIZE / 2, MADV_RANDOM), 0);
	start_counting();
	for (uint64_t page = PAGES / 2 + 1000; page < PAGES / 2 + 1064; page++)
		check_stamp(m, 0, page, 1);
	CHECK_EQ(since_quiet().ahead, 0);
	for (uint64_t page = 1000; page < 1064; page++)
		check_stamp(m, 0, page, 1);
	CHECK(since_quiet().ahead > 0);
}

/* --- WILLNEED, POPULATE --- */

SYSTEM_TEST(madvise_willneed_reads_in)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", SIZE);
	char *path = file_path("f");

	CHECK_EQ(pgc_madvise(m + 4 * MIB, 2 * MIB, MADV_WILLNEED), 0);
	WAIT_UNTIL(file_state(path).resident == 2 * MIB / PAGE);
	CHECK_EQ(resident_in(path, 4 * MIB / PAGE, 2 * MIB / PAGE), 2 * MIB / PAGE);
	start_counting();
	for (uint64_t page = 4 * MIB / PAGE; page < 5 * MIB / PAGE; page++)
		check_stamp(m, 0, page, 1);
	CHECK(since().read - since().ahead == 0);
}

SYSTEM_TEST(fadvise_willneed_reads_in)
{
	char *path = make_stamped("f", SIZE, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);

	CHECK_EQ(pgc_fadvise(f, 100, 2 * MIB - 200, POSIX_FADV_WILLNEED), 0);
	WAIT_UNTIL(file_state(path).resident == 2 * MIB / PAGE);
	CHECK_EQ(resident_in(path, 0, 2 * MIB / PAGE), 2 * MIB / PAGE);
}

SYSTEM_TEST(populate_read_maps_clean_pages)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", SIZE);
	char *path = file_path("f");

	CHECK_EQ(pgc_madvise(m + MIB, 2 * MIB, MADV_POPULATE_READ), 0);
	CHECK_EQ(resident_in(path, MIB / PAGE, 2 * MIB / PAGE), 2 * MIB / PAGE);
	CHECK_EQ(file_state(path).dirty, 0);
	start_counting();
	for (uint64_t page = MIB / PAGE; page < 3 * MIB / PAGE; page++)
		check_stamp(m, 0, page, 1);
	CHECK_EQ(since().faults, 0);
}

SYSTEM_TEST(populate_write_maps_writable_pages)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", SIZE);
	char *path = file_path("f");

	CHECK_EQ(pgc_madvise(m + MIB, MIB, MADV_POPULATE_WRITE), 0);
	CHECK_EQ(file_state(path).dirty, MIB / PAGE);
	start_counting();
	for (uint64_t page = MIB / PAGE; page < 2 * MIB / PAGE; page++)
		store(m + page * PAGE + 100, 5);
	CHECK_EQ(since().faults, 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, MIB + 100, 5) && store_has_byte(path, 2 * MIB - PAGE + 100, 5));
}

/* --- DONTNEED --- */

SYSTEM_TEST(dontneed_drops_whole_pages_only)
{
	char *path = make_stamped("f", 4 * MIB, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);

	scan_by_calls(f, 4 * MIB, 1);
	CHECK_EQ(file_state(path).resident, 4 * MIB / PAGE);
	/* Pages 10 and 90 are named in part. */
	CHECK_EQ(pgc_fadvise(f, 10 * PAGE + 1, 80 * PAGE, POSIX_FADV_DONTNEED), 0);
	CHECK_EQ(resident_in(path, 11, 79), 0);
	CHECK_EQ(file_state(path).resident, 4 * MIB / PAGE - 79);
	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_DONTNEED), 0);
	CHECK_EQ(file_state(path).resident, 0);
	scan_by_calls(f, 4 * MIB, 1);
}

SYSTEM_TEST(dontneed_keeps_what_is_mapped)
{
	char *path = make_stamped("f", 4 * MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, MIB);

	scan_by_calls(f, 4 * MIB, 1);
	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_DONTNEED), 0);
	CHECK_EQ(file_state(path).resident, MIB / PAGE);
	CHECK_EQ(resident_in(path, MIB / PAGE, MIB / PAGE), MIB / PAGE);
	check_stamp(m, MIB / PAGE, MIB / PAGE + 3, 1);
}

SYSTEM_TEST(dontneed_writes_what_is_dirty)
{
	char *path = make_stamped("f", 4 * MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR);

	CHECK_EQ(pgc_pwrite(f, "dirty", 5, 5 * PAGE + 100), 5);
	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_DONTNEED), 0);
	WAIT_UNTIL(file_state(path).dirty == 0 && file_state(path).writeback == 0);
	CHECK(store_has_byte(path, 5 * PAGE + 100, 'd'));
}

/* --- NOREUSE, COLD, PAGEOUT --- */

static void expect_hot(const char *path)
{
	uint64_t left = file_state(path).resident, all = 8 * MIB / PAGE;

	if (left < all * 95 / 100)
		FAIL("of %" PRIu64 " hot pages %" PRIu64 " are left", all, left);
}

SYSTEM_TEST(a_noreuse_scan_does_not_push_out_what_others_use, .memory_max = "32M", .workers = 1, .seconds = 120)
{
	char *hot = make_hot();
	struct pgc_file *f = open_file(make_stamped("f", 128 * MIB, 1), O_RDONLY);

	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_NOREUSE), 0);
	scan_scattered(f, 128 * MIB, 1);
	expect_hot(hot);
}

SYSTEM_TEST(noreuse_pages_that_are_used_again_are_not_proved, .memory_max = "32M", .workers = 1, .seconds = 120)
{
	char *path = make_stamped("f", 16 * MIB, 1), *hot = make_hot();
	struct pgc_file *f = open_file(path, O_RDONLY);

	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_NOREUSE), 0);
	for (int i = 0; i < 4; i++)
		scan_scattered(f, 16 * MIB, 1);
	/* Room is made: of them first. */
	scan_scattered(open_file(make_stamped("other", 16 * MIB, 3), O_RDONLY), 16 * MIB, 3);
	expect_hot(hot);
	CHECK(file_state(path).resident < 16 * MIB / PAGE * 3 / 4);
}

SYSTEM_TEST(cold_pages_are_the_first_to_go, .memory_max = "32M", .workers = 1, .seconds = 120)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", 16 * MIB);
	char *path = file_path("f");
	uint64_t half = 8 * MIB / PAGE, warm, cold;

	/* The cold half comes last, so that age alone would keep it. */
	scan(m, 16 * MIB, 1);
	CHECK_EQ(file_state(path).resident, 2 * half);
	CHECK_EQ(pgc_madvise(m + 8 * MIB, 8 * MIB, MADV_COLD), 0);
	CHECK_EQ(file_state(path).resident, 2 * half); /* nothing is lost by it */
	scan_scattered(open_file(make_stamped("other", 16 * MIB, 2), O_RDONLY), 16 * MIB, 2);
	warm = resident_in(path, 0, half);
	cold = resident_in(path, half, half);
	if (warm < half * 9 / 10 || cold > half * 8 / 10)
		FAIL("of %" PRIu64 " pages %" PRIu64 " are left, of as many cold ones %" PRIu64, half, warm, cold);
}

SYSTEM_TEST(pageout_gives_clean_pages_back)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", 4 * MIB);
	char *path = file_path("f");

	scan(m, 4 * MIB, 1);
	CHECK_EQ(pgc_madvise(m + MIB, 2 * MIB, MADV_PAGEOUT), 0);
	WAIT_UNTIL(resident_in(path, MIB / PAGE, 2 * MIB / PAGE) == 0);
	CHECK_EQ(file_state(path).resident, 2 * MIB / PAGE);
	scan(m, 4 * MIB, 1);
}

SYSTEM_TEST(pageout_writes_dirty_pages_and_gives_them_back)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", 4 * MIB);
	char *path = file_path("f");

	scan(m, 4 * MIB, 1);
	for (uint64_t page = MIB / PAGE; page < 3 * MIB / PAGE; page += 2)
		store(m + page * PAGE + 100, 7);
	CHECK_EQ(pgc_madvise(m + MIB, 2 * MIB, MADV_PAGEOUT), 0);
	WAIT_UNTIL(resident_in(path, MIB / PAGE, 2 * MIB / PAGE) == 0);
	for (uint64_t page = MIB / PAGE; page < 3 * MIB / PAGE; page += 2) {
		CHECK(store_has_byte(path, (off_t)(page * PAGE + 100), 7));
		CHECK_EQ(load(m + page * PAGE + 100), 7);
	}
	scan(m, 4 * MIB, 1);
}

SYSTEM_TEST(pageout_loses_nothing_where_the_store_takes_nothing)
{
	struct pgc_file *f = open_mem("mem:f", MIB, 1);
	uint8_t *m = map(f, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	inject("mem:f", PGC_INJECT_WRITE_ERROR, EIO, 0);
	for (uint64_t page = 0; page < MIB / PAGE; page++)
		store(m + page * PAGE, 7);
	CHECK_EQ(pgc_madvise(m, MIB, MADV_PAGEOUT), 0);
	WAIT_UNTIL(status().writeout_errors > 0);
	CHECK_EQ(file_state("mem:f").dirty, MIB / PAGE);
	for (uint64_t page = 0; page < MIB / PAGE; page++)
		CHECK_EQ(load(m + page * PAGE), 7);
	inject("mem:f", PGC_INJECT_WRITE_ERROR, 0, 0);
	CHECK(pgc_fsync(f) <= 0);
	CHECK_EQ(pgc_fsync(f), 0);
}

/* --- nonsense --- */

SYSTEM_TEST(unknown_advice_is_refused)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", MIB);

	CHECK_EQ(pgc_madvise(m, MIB, 9999), -EINVAL);
	CHECK_EQ(pgc_madvise(m + 1, PAGE, MADV_RANDOM), -EINVAL);
	CHECK_EQ(pgc_fadvise(f, 0, 0, 9999), -EINVAL);
	CHECK_EQ(pgc_fadvise(f, -1, 0, POSIX_FADV_RANDOM), -EINVAL);
	CHECK_EQ(pgc_fadvise(f, 0, -1, POSIX_FADV_RANDOM), -EINVAL);
	scan(m, MIB, 1);
}

SYSTEM_TEST(advice_past_the_end_of_file_does_nothing)
{
	struct pgc_file *f;
	uint8_t *m = map_file(&f, "f", MIB);

	CHECK_EQ(pgc_fadvise(f, 10 * MIB, MIB, POSIX_FADV_WILLNEED), 0);
	CHECK_EQ(pgc_fadvise(f, 10 * MIB, MIB, POSIX_FADV_DONTNEED), 0);
	scan(m, MIB, 1);
	CHECK_EQ(pgc_fadvise(f, INT64_MAX, 0, POSIX_FADV_WILLNEED), 0);
	CHECK_EQ(file_state(file_path("f")).resident, MIB / PAGE);
}

SYSTEM_TESTS_MAIN("advice",
	cmocka_unit_test(a_sequential_reader_seldom_waits),
	cmocka_unit_test(a_sequential_reader_by_calls_seldom_waits),
	cmocka_unit_test(a_random_reader_reads_what_lies_around_while_there_is_memory),
	cmocka_unit_test(a_random_reader_reads_what_it_touches_where_memory_is_short),
	cmocka_unit_test(a_random_reader_by_calls_reads_what_it_touches),
	cmocka_unit_test(a_backward_reader_seldom_waits),
	cmocka_unit_test(a_strided_reader_seldom_waits),
	cmocka_unit_test(without_readahead_each_page_is_read_for_itself),
	cmocka_unit_test(random_reads_exactly_what_is_touched),
	cmocka_unit_test(fadvise_random_holds_for_calls_and_mappings),
	cmocka_unit_test(sequential_reads_ahead_at_once),
	cmocka_unit_test(normal_takes_advice_back),
	cmocka_unit_test(fadvise_normal_takes_advice_back),
	cmocka_unit_test(advice_is_of_the_mapping),
	cmocka_unit_test(advice_is_of_the_part_that_it_names),
	cmocka_unit_test(madvise_willneed_reads_in),
	cmocka_unit_test(fadvise_willneed_reads_in),
	cmocka_unit_test(populate_read_maps_clean_pages),
	cmocka_unit_test(populate_write_maps_writable_pages),
	cmocka_unit_test(dontneed_drops_whole_pages_only),
	cmocka_unit_test(dontneed_keeps_what_is_mapped),
	cmocka_unit_test(dontneed_writes_what_is_dirty),
	cmocka_unit_test(a_noreuse_scan_does_not_push_out_what_others_use),
	cmocka_unit_test(noreuse_pages_that_are_used_again_are_not_proved),
	cmocka_unit_test(cold_pages_are_the_first_to_go),
	cmocka_unit_test(pageout_gives_clean_pages_back),
	cmocka_unit_test(pageout_writes_dirty_pages_and_gives_them_back),
	cmocka_unit_test(pageout_loses_nothing_where_the_store_takes_nothing),
	cmocka_unit_test(unknown_advice_is_refused),
	cmocka_unit_test(advice_past_the_end_of_file_does_nothing))
