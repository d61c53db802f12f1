/* SPDX-License-Identifier: Apache-2.0 */
/* How dirty pages get to the store: merged, each once, in time, in spite of short writes and errors, and at shutdown. */
#include "harness.h"

#define MIB (1ul << 20)

SYSTEM_TEST(contiguous_run_is_written_in_few_large_writes)
{
	char *path = make_file("f", 4 * MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct pgc_ctl_status_reply s;

	pattern_fill(m, 4 * MIB, 0, 2);
	CHECK_EQ(pgc_fsync(f), 0);
	s = status();
	CHECK_EQ(s.writeout_bytes, 4 * MIB);
	CHECK(s.writeouts >= 1 && s.writeouts <= 4 * MIB / BLOCK);
	CHECK(store_has(path, 4 * MIB, 0, 2));
}

SYSTEM_TEST(scattered_pages_are_written_alone)
{
	char *path = make_file("f", 4 * MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct pgc_ctl_status_reply s;

	for (size_t page = 0; page < 1024; page += 100)
		store(m + page * PAGE, 0);
	CHECK_EQ(file_state(path).dirty, 11);
	CHECK_EQ(pgc_fsync(f), 0);
	s = status();
	CHECK_EQ(s.writeout_bytes, 11 * PAGE);
	CHECK_EQ(s.writeouts, 11);
	for (size_t page = 0; page < 1024; page += 100)
		CHECK(store_has_byte(path, (off_t)(page * PAGE), 0));
}

SYSTEM_TEST(each_dirty_page_is_written_once)
{
	char *path = make_file("f", MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pattern_fill(m, MIB, 0, 2);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(status().writeout_bytes, MIB);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(pgc_msync(m, MIB, MS_SYNC), 0);
	CHECK_EQ(sync_all(), 0);
	CHECK_EQ(status().writeout_bytes, MIB);
	store(m + 3 * PAGE, 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(status().writeout_bytes, MIB + PAGE);
	CHECK(store_has_byte(path, 3 * PAGE, 0));
}

SYSTEM_TEST(reading_makes_nothing_dirty)
{
	char *path = make_file("f", MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0), *b = malloc(MIB);

	PATTERN_CHECK(m, MIB, 0, 1);
	CHECK_EQ(pgc_pread(f, b, MIB, 0), MIB);
	CHECK_EQ(file_state(path).dirty, 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(status().writeouts, 0);
}

SYSTEM_TEST(stores_in_sequence_do_not_fault_on_each_page)
{
	char *path = make_file("f", 4 * MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint64_t before;

	PATTERN_CHECK(m, 4 * MIB, 0, 1);
	before = status().faults;
	for (size_t page = 0; page < 1024; page++)
		store(m + page * PAGE, 0);
	CHECK(status().faults - before < 256);
	/* The window ahead may not run past what is there, and the file is right in any case. */
	CHECK_EQ(pgc_fsync(f), 0);
	for (size_t page = 0; page < 1024; page += 93)
		CHECK(store_has_byte(path, (off_t)(page * PAGE), 0) && store_has(path, PAGE - 1, (off_t)(page * PAGE + 1), 1));
	CHECK_EQ(store_size(path), 4 * MIB);
}

SYSTEM_TEST(timer_writes_what_is_dirty_for_longer_than_dirty_expire, .dirty_expire = "700ms")
{
	char *path = make_file("f", MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint64_t begin = now_ms();

	pattern_fill(m, 5 * PAGE, 0, 2);
	WAIT_UNTIL_MS(store_has(path, 5 * PAGE, 0, 2), 5000);
	CHECK(now_ms() - begin >= 650);
	WAIT_UNTIL(file_state(path).dirty == 0);
	/* And again: the timer is not for one time. */
	pattern_fill(m, 5 * PAGE, 0, 3);
	WAIT_UNTIL_MS(store_has(path, 5 * PAGE, 0, 3), 5000);
}

SYSTEM_TEST(last_page_is_written_to_the_true_size_only)
{
	char *path = make_file("f", PAGE + 905, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pattern_fill(m, 2 * PAGE, 0, 2);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(store_size(path), PAGE + 905);
	CHECK(store_has(path, PAGE + 905, 0, 2));
	CHECK_EQ(pgc_close(f), 0);
	CHECK_EQ(pgc_munmap(m, 2 * PAGE), 0);
	CHECK_EQ(sync_all(), 0);
	CHECK_EQ(store_size(path), PAGE + 905);
}

SYSTEM_TEST(dirt_beyond_the_size_is_dropped)
{
	char *path = make_file("f", 20 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 20 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pattern_fill(m, 20 * PAGE, 0, 2);
	CHECK_EQ(file_state(path).dirty, 20);
	CHECK_EQ(pgc_ftruncate(f, 3 * PAGE), 0);
	CHECK(file_state(path).dirty <= 3);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(status().writeout_bytes <= 3 * PAGE);
	CHECK_EQ(store_size(path), 3 * PAGE);
	CHECK(store_has(path, 3 * PAGE, 0, 2));
}

static void check_mem(const char *name, struct pgc_file *f, size_t size, unsigned gen)
{
	uint8_t *b = malloc(size);

	drop_clean();
	CHECK_EQ(file_state(name).resident, 0);
	CHECK_EQ(pgc_pread(f, b, size, 0), size);
	PATTERN_CHECK(b, size, 0, gen);
	free(b);
}

SYSTEM_TEST(short_writes_go_on_where_they_stopped)
{
	static const unsigned most[] = {4096, 5000, 12288, 100000};
	struct pgc_file *f = open_mem("mem:s", 100 * PAGE + 50, 1);
	uint8_t *m = map(f, 100 * PAGE + 50, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (unsigned i = 0; i < sizeof(most) / sizeof(most[0]); i++) {
		inject("mem:s", PGC_INJECT_WRITE_SHORT, most[i], 0);
		pattern_fill(m, 100 * PAGE + 50, 0, 2 + i);
		CHECK_EQ(pgc_fsync(f), 0);
		CHECK_EQ(file_state("mem:s").dirty, 0);
		inject("mem:s", PGC_INJECT_WRITE_SHORT, 0, 0);
		check_mem("mem:s", f, 100 * PAGE + 50, 2 + i);
	}
}

SYSTEM_TEST(store_that_accepts_0_bytes_is_an_error)
{
	struct pgc_file *f = open_mem("mem:z", 10 * PAGE, 1);
	uint8_t *m = map(f, 10 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pattern_fill(m, 10 * PAGE, 0, 2);
	inject("mem:z", PGC_INJECT_WRITE_ZERO, 1, 0);
	CHECK(pgc_fsync(f) < 0);
	CHECK_EQ(file_state("mem:z").dirty, 10);
	CHECK_EQ(file_state("mem:z").writeback, 0);
	inject("mem:z", PGC_INJECT_WRITE_ZERO, 0, 0);
	CHECK_EQ(pgc_fsync(f), 0);
	check_mem("mem:z", f, 10 * PAGE, 2);
}

SYSTEM_TEST(failing_part_stays_dirty_and_the_rest_is_clean)
{
	struct pgc_file *f = open_mem("mem:p", 300 * PAGE, 1);
	uint8_t *m = map(f, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	/* Two runs far from each other; one write fails. */
	store(m, 0);
	store(m + 200 * PAGE, 0);
	inject("mem:p", PGC_INJECT_WRITE_ERROR, EIO, 1);
	CHECK_EQ(pgc_fsync(f), -EIO);
	CHECK(file_state("mem:p").dirty >= 1 && file_state("mem:p").dirty <= 2);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(file_state("mem:p").dirty, 0);
	drop_clean();
	CHECK_EQ(load(m), 0);
	CHECK_EQ(load(m + 200 * PAGE), 0);
	PATTERN_CHECK(m + 1, 200 * PAGE - 1, 1, 1);
}

SYSTEM_TEST(full_file_system_is_reported_and_written_once_there_is_room)
{
	char path[256], ballast[256], block[PAGE];
	struct pgc_file *f, *g;
	uint8_t *m;
	int fd;

	if (!env.small[0])
		skip_test("a small file system needs root");
	snprintf(path, sizeof(path), "%s/f", env.small);
	snprintf(ballast, sizeof(ballast), "%s/ballast", env.small);
	make_file(path, PAGE, 1);
	CHECK(truncate(path, 40 * PAGE) == 0);
	fd = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	memset(block, 1, sizeof(block));
	while (write(fd, block, sizeof(block)) > 0)
		;
	CHECK_EQ(errno, ENOSPC);

	f = open_file(path, O_RDWR);
	g = open_file(path, O_RDWR);
	m = map(f, 40 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	pattern_fill(m, 40 * PAGE, 0, 2);
	CHECK_EQ(pgc_fsync(f), -ENOSPC);
	CHECK(file_state(path).dirty > 0);
	PATTERN_CHECK(m, 40 * PAGE, 0, 2);
	CHECK(ftruncate(fd, 0) == 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(pgc_fsync(g), -ENOSPC);
	CHECK_EQ(pgc_fsync(g), 0);
	CHECK_EQ(file_state(path).dirty, 0);
	CHECK(store_has(path, 40 * PAGE, 0, 2));
	close(fd);
	unlink(ballast);
	unlink(path);
}

SYSTEM_TEST(eio_is_reported_once_a_handle_and_written_once_the_store_heals)
{
	struct pgc_file *f = open_mem("mem:e", 30 * PAGE, 1), *g = open_file("mem:e", O_RDWR);
	uint8_t *m = map(f, 30 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pattern_fill(m, 30 * PAGE, 0, 2);
	inject("mem:e", PGC_INJECT_WRITE_ERROR, EIO, 0);
	CHECK_EQ(pgc_fsync(f), -EIO);
	CHECK_EQ(file_state("mem:e").dirty, 30);
	CHECK_EQ(file_state("mem:e").error, EIO);
	inject("mem:e", PGC_INJECT_WRITE_ERROR, 0, 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(pgc_fsync(g), -EIO);
	CHECK_EQ(pgc_fsync(g), 0);
	CHECK_EQ(pgc_fsync(f), 0);
	check_mem("mem:e", f, 30 * PAGE, 2);
}

struct slow_sync {
	const char *name;
};

static void slow_sync_peer(struct peer *p, void *arg)
{
	const struct slow_sync *s = arg;
	struct pgc_file *f = open_file(s->name, O_RDWR);

	peer_tell(p, 0);
	peer_hear(p);
	peer_tell(p, (uint64_t)-pgc_fsync(f));
}

SYSTEM_TEST(page_dirtied_during_its_write_out_is_dirty_afterwards)
{
	static struct slow_sync s = {"mem:w"};
	struct peer *p = peer_start(slow_sync_peer, &s);
	struct pgc_file *f = open_mem(s.name, 4 * PAGE, 1);
	uint8_t *m = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	peer_hear(p);
	pattern_fill(m + 2 * PAGE, PAGE, 2 * PAGE, 2);
	inject(s.name, PGC_INJECT_WRITE_DELAY, 400000, 0);
	peer_tell(p, 1);
	WAIT_UNTIL(file_state(s.name).writeback == 1);
	pattern_fill(m + 2 * PAGE, PAGE, 2 * PAGE, 3);
	CHECK_EQ(peer_hear(p), 0);
	peer_join(p);
	PATTERN_CHECK(m + 2 * PAGE, PAGE, 2 * PAGE, 3);
	CHECK_EQ(file_state(s.name).dirty, 1);
	inject(s.name, PGC_INJECT_WRITE_DELAY, 0, 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(file_state(s.name).dirty, 0);
	drop_clean();
	CHECK_EQ(file_state(s.name).resident, 0);
	PATTERN_CHECK(m + 2 * PAGE, PAGE, 2 * PAGE, 3);
	PATTERN_CHECK(m, 2 * PAGE, 0, 1);
	PATTERN_CHECK(m + 3 * PAGE, PAGE, 3 * PAGE, 1);
}

SYSTEM_TEST(kept_range_is_written_by_each_sync_and_stays_dirty)
{
	char *path = make_file("f", 20 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 20 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	PATTERN_CHECK(m, 20 * PAGE, 0, 1);
	CHECK_EQ(pgc_keep(f, 2 * PAGE, 3 * PAGE, true), 0);
	CHECK_EQ(file_state(path).keep, 3);
	for (unsigned gen = 2; gen < 5; gen++) {
		pattern_fill(m + 2 * PAGE, 3 * PAGE, 2 * PAGE, gen);
		CHECK_EQ(pgc_fsync(f), 0);
		CHECK(store_has(path, 3 * PAGE, 2 * PAGE, gen));
		CHECK_EQ(status().writeout_bytes, (gen - 1) * 3 * PAGE);
		CHECK_EQ(file_state(path).keep, 3);
		CHECK_EQ(file_state(path).dirty, 3);
	}
	CHECK_EQ(pgc_keep(f, 2 * PAGE, 3 * PAGE, false), 0);
	CHECK_EQ(file_state(path).keep, 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(file_state(path).dirty, 0);
	CHECK(store_has(path, 3 * PAGE, 2 * PAGE, 4));
	CHECK(store_has(path, 15 * PAGE, 5 * PAGE, 1));
}

static void hold_peer(struct peer *p, void *path)
{
	uint8_t *m = map(open_file(path, O_RDWR), 50 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pattern_fill(m + 25 * PAGE, 25 * PAGE, 25 * PAGE, 2);
	peer_tell(p, 1);
	peer_hear(p);
}

SYSTEM_TEST(sigterm_writes_everything_back)
{
	char *path = make_file("f", 50 * PAGE, 1), *other = make_file("g", 10 * PAGE + 1, 1);
	struct peer *p = peer_start(hold_peer, path);
	struct pgc_file *f = open_file(path, O_RDWR), *g = open_file(other, O_RDWR);
	uint8_t *m = map(f, 50 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), *b = malloc(10 * PAGE + 1);

	peer_hear(p);
	pattern_fill(m, 25 * PAGE, 0, 2);
	pattern_fill(b, 10 * PAGE + 1, 0, 3);
	CHECK_EQ(pgc_pwrite(g, b, 10 * PAGE + 1, 0), 10 * PAGE + 1);
	CHECK_EQ(status().dirty, 61);
	/* Both processes still have their mappings. */
	daemon_stop();
	CHECK(store_has(path, 50 * PAGE, 0, 2));
	CHECK(store_has(other, 10 * PAGE + 1, 0, 3));
	peer_kill(p);
}

SYSTEM_TEST(new_daemon_serves_what_the_old_one_wrote)
{
	char *path = make_file("f", 5 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *b = malloc(5 * PAGE);

	pattern_fill(b, 5 * PAGE, 0, 2);
	CHECK_EQ(pgc_pwrite(f, b, 5 * PAGE, 0), 5 * PAGE);
	daemon_stop();
	daemon_start();
	CHECK_EQ(pgc_fsync(f), 0); /* the handle is handed over to it */
	CHECK_EQ(pgc_close(f), 0);
	f = open_file(path, O_RDWR);
	PATTERN_CHECK(map(f, 5 * PAGE, PROT_READ, MAP_SHARED, 0), 5 * PAGE, 0, 2);
}

SYSTEM_TESTS_MAIN("writeback",
	cmocka_unit_test(contiguous_run_is_written_in_few_large_writes),
	cmocka_unit_test(scattered_pages_are_written_alone),
	cmocka_unit_test(each_dirty_page_is_written_once),
	cmocka_unit_test(reading_makes_nothing_dirty),
	cmocka_unit_test(stores_in_sequence_do_not_fault_on_each_page),
	cmocka_unit_test(timer_writes_what_is_dirty_for_longer_than_dirty_expire),
	cmocka_unit_test(last_page_is_written_to_the_true_size_only),
	cmocka_unit_test(dirt_beyond_the_size_is_dropped),
	cmocka_unit_test(short_writes_go_on_where_they_stopped),
	cmocka_unit_test(store_that_accepts_0_bytes_is_an_error),
	cmocka_unit_test(failing_part_stays_dirty_and_the_rest_is_clean),
	cmocka_unit_test(full_file_system_is_reported_and_written_once_there_is_room),
	cmocka_unit_test(eio_is_reported_once_a_handle_and_written_once_the_store_heals),
	cmocka_unit_test(page_dirtied_during_its_write_out_is_dirty_afterwards),
	cmocka_unit_test(kept_range_is_written_by_each_sync_and_stays_dirty),
	cmocka_unit_test(sigterm_writes_everything_back),
	cmocka_unit_test(new_daemon_serves_what_the_old_one_wrote))
