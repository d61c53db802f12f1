/* SPDX-License-Identifier: Apache-2.0 */
/* Writes without a system call: they ask nobody, and none is lost to write-outs, reclaim, cuts, deaths of the daemon or of the client, or a stop; limits and stat(2) know of them. */
#include <pthread.h>

#include "harness.h"

#include "libclient/internal.h"

#define MIB   (1024 * 1024ul)
#define OFTEN 40                       /* writes after which a handle has a window */

static void write_at(struct pgc_file *f, size_t n, off_t off, unsigned gen)
{
	uint8_t b[3 * PAGE];

	pattern_fill(b, n, (uint64_t)off, gen);
	CHECK_EQ(pgc_pwrite(f, b, n, off), n);
}

static void expect_read(struct pgc_file *f, size_t n, off_t off, unsigned gen)
{
	uint8_t b[3 * PAGE];

	CHECK_EQ(pgc_pread(f, b, n, off), n);
	PATTERN_CHECK(b, n, (uint64_t)off, gen);
}

/* With all of the file read, as nothing else is written so. */
static struct pgc_file *open_often_written(const char *path)
{
	struct pgc_file *f = open_file(path, O_RDWR);
	struct stat st;

	CHECK_EQ(pgc_fstat(f, &st), 0);
	for (off_t off = 0; off < st.st_size; off += PAGE)
		CHECK(pgc_pread(f, (uint8_t[1]){ 0 }, 1, off) == 1);
	for (int i = 0; i < OFTEN; i++)
		write_at(f, 10, 50, 1);
	return f;
}

struct alone { struct pgc_file *f; size_t n; off_t off; unsigned gen; };

static void *write_alone(void *arg)
{
	struct alone *a = arg;

	write_at(a->f, a->n, a->off, a->gen);
	return NULL;
}

/* With the daemon stopped: does the write end? */
static bool needs_nobody(struct pgc_file *f, size_t n, off_t off, unsigned gen)
{
	struct alone a = { f, n, off, gen };
	pid_t daemon = under_keeper() ? daemon_pid() : env.daemon;
	struct timespec until;
	pthread_t t;
	bool alone;

	stop_process(daemon);
	CHECK_EQ(pthread_create(&t, NULL, write_alone, &a), 0);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	alone = pthread_timedjoin_np(t, NULL, &until) == 0;
	CHECK(kill(daemon, SIGCONT) == 0);
	if (!alone)
		CHECK_EQ(pthread_join(t, NULL), 0);
	return alone;
}

SYSTEM_TEST(who_writes_often_asks_nobody)
{
	char *path = make_file("f", 20 * PAGE + 100, 1);
	struct pgc_file *f = open_often_written(path), *g = open_file(path, O_RDONLY);

	CHECK(needs_nobody(f, 100, 50, 2));
	expect_read(f, 100, 50, 2);
	expect_read(g, 100, 50, 2);
	CHECK(needs_nobody(f, 2 * PAGE, 5 * PAGE + 7, 3)); /* over the ends of pages */
	expect_read(g, 2 * PAGE, 5 * PAGE + 7, 3);
	CHECK(needs_nobody(f, 100, 20 * PAGE, 4)); /* up to the end of file */
	CHECK(!needs_nobody(f, 101, 20 * PAGE, 4)); /* past it */
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 50, pattern_byte(50, 2)));
	CHECK(store_has_byte(path, 6 * PAGE, pattern_byte(6 * PAGE, 3)));
	CHECK(store_has_byte(path, 20 * PAGE + 100, pattern_byte(20 * PAGE + 100, 4)));
	drop_clean();
	CHECK(!needs_nobody(f, 10, 9 * PAGE, 5));
	expect_read(g, 10, 9 * PAGE, 5);
}

SYSTEM_TEST(it_is_written_out_in_time, .dirty_expire = "100ms")
{
	char *path = make_file("f", 20 * PAGE, 1);
	struct pgc_file *f = open_often_written(path);

	for (unsigned gen = 2; gen < 6; gen++) {
		CHECK(needs_nobody(f, 100, 3 * PAGE, gen));
		WAIT_UNTIL(store_has_byte(path, 3 * PAGE + 50, pattern_byte(3 * PAGE + 50, gen)));
	}
}

SYSTEM_TEST(listings_and_stat_know_of_it)
{
	char *path = make_file("f", 20 * PAGE, 1);
	struct pgc_file *f = open_often_written(path), *g = open_file(path, O_RDONLY);
	struct stat before, after;
	struct timespec from;

	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(file_state("f").dirty, 0);
	CHECK(needs_nobody(f, 100, 3 * PAGE, 2));
	CHECK_EQ(sync_all(), 0);
	CHECK_EQ(file_state("f").dirty, 0);
	for (int i = 0; i < 20; i++) {
		CHECK_EQ(pgc_fstat(i % 2 ? f : g, &before), 0);
		usleep(10000);
		clock_gettime(CLOCK_REALTIME_COARSE, &from);
		write_at(f, 100, 3 * PAGE, 3);
		CHECK_EQ(pgc_fstat(i % 3 ? f : g, &after), 0);
		CHECK(after.st_mtim.tv_sec > before.st_mtim.tv_sec || (after.st_mtim.tv_sec == before.st_mtim.tv_sec && after.st_mtim.tv_nsec > before.st_mtim.tv_nsec));
		CHECK_EQ(pgc_fstat(f, &after), 0);
		WAIT_UNTIL(pgc_fstat(f, &after) == 0 && window_has_no_writes(f)); /* that was looked at: who asks again needs nobody */
		CHECK(after.st_mtim.tv_sec > from.tv_sec || (after.st_mtim.tv_sec == from.tv_sec && after.st_mtim.tv_nsec >= from.tv_nsec));
	}
}

/* --- reclaim, cuts --- */

static void write_at_random(struct peer *p, void *arg)
{
	static unsigned gen[16384];
	unsigned self = *(unsigned *)arg;
	struct pgc_file *f = open_file(file_path("f"), O_RDWR);
	uint64_t at = self * 77 + 1;

	for (int i = 0; i < 30000; i++) {
		uint64_t page, off;

		at = at * 6364136223846793005ull + 1442695040888963407ull;
		page = (at >> 33) % (i % 4 ? 900 : 16384) / 3 * 3 + self; /* each process has pages of its own */
		if (page >= 16384)
			continue;
		off = page * PAGE + (at >> 20) % 4000;
		if (gen[page])
			expect_read(f, 90, (off_t)(page * PAGE + 4000), gen[page]);
		gen[page] = (unsigned)i % 250 + 1;
		write_at(f, 90, (off_t)(page * PAGE + 4000), gen[page]);
		(void)pgc_pread(f, (uint8_t[1]){ 0 }, 1, (off_t)off);
	}
	for (unsigned page = self; page < 16384; page += 3)
		if (gen[page])
			expect_read(f, 90, (off_t)(page * PAGE + 4000), gen[page]);
	CHECK_EQ(pgc_fsync(f), 0);
	for (unsigned page = self; page < 16384; page += 3)
		if (gen[page])
			CHECK(store_has_byte(file_path("f"), (off_t)(page * PAGE + 4020), pattern_byte(page * PAGE + 4020, gen[page])));
	peer_tell(p, 1);
	pgc_close(f);
}

SYSTEM_TEST(writes_are_right_while_room_is_made, .memory_max = "16M", .dirty_expire = "50ms", .seconds = 180)
{
	unsigned self[3] = { 0, 1, 2 };
	struct peer *p[3];

	make_file("f", 64 * MIB, 1);
	for (int i = 0; i < 3; i++)
		p[i] = peer_start(write_at_random, &self[i]);
	for (int i = 0; i < 3; i++) {
		peer_hear(p[i]);
		peer_join(p[i]);
	}
	CHECK(status().memory_used <= 16 * MIB);
}

struct cutting { struct pgc_file *f; bool *stop; unsigned writes; };

static void *write_while_cut(void *arg)
{
	struct cutting *c = arg;

	while (!__atomic_load_n(c->stop, __ATOMIC_RELAXED)) {
		write_at(c->f, 64, (off_t)(c->writes % 8 * PAGE + 100), 1);
		c->writes++;
	}
	return NULL;
}

SYSTEM_TEST(a_cut_ends_no_write_in_a_signal, .seconds = 120)
{
	char *path = make_file("f", 8 * PAGE, 1);
	struct pgc_file *f = open_often_written(path), *g = open_file(path, O_RDWR);
	bool stop = false;
	struct cutting c[2];
	pthread_t t[2];

	for (int i = 0; i < 2; i++) {
		c[i] = (struct cutting){ .f = f, .stop = &stop };
		CHECK_EQ(pthread_create(&t[i], NULL, write_while_cut, &c[i]), 0);
	}
	for (int i = 0; i < 1500; i++) {
		CHECK_EQ(pgc_ftruncate(g, 2 * PAGE), 0);
		CHECK_EQ(pgc_ftruncate(g, 8 * PAGE), 0);
		if (i % 100 == 0)
			CHECK_EQ(pgc_fsync(g), 0);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(pthread_join(t[i], NULL), 0);
		CHECK(c[i].writes > 100);
	}
	for (unsigned i = 0; i < 8; i++)
		write_at(f, 64, (off_t)(i * PAGE + 100), 9);
	CHECK_EQ(pgc_fsync(g), 0);
	for (unsigned i = 0; i < 8; i++)
		CHECK(store_has_byte(path, (off_t)(i * PAGE + 120), pattern_byte(i * PAGE + 120, 9)));
}

/* --- ends --- */

SYSTEM_TEST(none_is_lost_to_a_death, .keep = true, .seconds = 120)
{
	char *path = make_file("f", 200 * PAGE, 1);
	struct pgc_file *f = open_often_written(path);

	for (unsigned round = 2; round < 8; round++) {
		for (unsigned i = 0; i < 2000; i++) {
			write_at(f, 100, (off_t)(i % 200 * PAGE), round);
			if (i == 700 + round * 100)
				daemon_kill();
		}
		daemon_kill();
		for (unsigned i = 0; i < 200; i++)
			expect_read(f, 100, (off_t)(i * PAGE), round);
		CHECK_EQ(pgc_fsync(f), 0);
		for (unsigned i = 0; i < 200; i++)
			CHECK(store_has_byte(path, (off_t)(i * PAGE + 20), pattern_byte(i * PAGE + 20, round)));
	}
}

static void writes_and_waits(struct peer *p, void *arg)
{
	struct pgc_file *f = open_often_written(file_path("f"));

	for (unsigned i = 0; i < 200; i++)
		write_at(f, 100, (off_t)(i * PAGE), 7);
	peer_tell(p, 1);
	pause();
}

SYSTEM_TEST(none_is_lost_to_the_end_of_its_client, .seconds = 60)
{
	char *path = make_file("f", 200 * PAGE, 1);
	struct peer *p = peer_start(writes_and_waits, NULL);

	peer_hear(p);
	peer_kill(p);
	CHECK_EQ(sync_all(), 0);
	for (unsigned i = 0; i < 200; i++)
		WAIT_UNTIL(store_has_byte(path, (off_t)(i * PAGE + 20), pattern_byte(i * PAGE + 20, 7)));
}

/* The daemon and the client die together, the keeper lives. */
SYSTEM_TEST(none_is_lost_to_both, .keep = true, .seconds = 60)
{
	char *path = make_file("f", 200 * PAGE, 1);
	struct peer *p = peer_start(writes_and_waits, NULL);

	peer_hear(p);
	daemon_kill();
	peer_kill(p);
	WAIT_UNTIL(sync_all() == 0);
	for (unsigned i = 0; i < 200; i++)
		WAIT_UNTIL(store_has_byte(path, (off_t)(i * PAGE + 20), pattern_byte(i * PAGE + 20, 7)));
}

SYSTEM_TEST(a_stop_writes_it, .seconds = 60)
{
	char *path = make_file("f", 200 * PAGE, 1);
	struct peer *p = peer_start(writes_and_waits, NULL);

	peer_hear(p);
	daemon_stop();
	for (unsigned i = 0; i < 200; i++)
		CHECK(store_has_byte(path, (off_t)(i * PAGE + 20), pattern_byte(i * PAGE + 20, 7)));
	peer_kill(p);
	daemon_start();
}

/* 64 MiB may be dirty of the memory, and a writer is asked every 4 MiB. */
SYSTEM_TEST(who_makes_too_much_dirty_waits, .memory_max = "512M", .config = "dirty_max = 64M", .seconds = 120)
{
	char *path = make_file("f", 256 * MIB, 1);
	struct pgc_file *f = open_often_written(path);
	uint64_t most = 0;

	for (uint64_t off = 0; off < 256 * MIB; off += PAGE) {
		write_at(f, 100, (off_t)off, 2);
		if (off % (4 * MIB) == 0)
			most = file_state("f").dirty > most ? file_state("f").dirty : most;
	}
	CHECK(most > 0 && most <= (64 + 8) * MIB / PAGE);
	CHECK_EQ(pgc_fsync(f), 0);
	for (uint64_t off = 0; off < 256 * MIB; off += MIB)
		CHECK(store_has_byte(path, (off_t)off + 9, pattern_byte(off + 9, 2)));
}

SYSTEM_TEST(a_child_writes_by_itself)
{
	char *path = make_file("f", 20 * PAGE, 1);
	struct pgc_file *f = open_often_written(path);
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		for (int i = 0; i < OFTEN; i++)
			write_at(f, 100, 5 * PAGE, 3);
		_exit(0);
	}
	for (int i = 0; i < OFTEN; i++)
		write_at(f, 100, 6 * PAGE, 4);
	expect_exit_0(pid);
	expect_read(f, 100, 5 * PAGE, 3);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(file_state("f").handles == 0);
	CHECK_EQ(sync_all(), 0);
	CHECK(store_has_byte(path, 5 * PAGE + 9, pattern_byte(5 * PAGE + 9, 3)) && store_has_byte(path, 6 * PAGE + 9, pattern_byte(6 * PAGE + 9, 4)));
}

SYSTEM_TESTS_MAIN("written",
	cmocka_unit_test(who_writes_often_asks_nobody),
	cmocka_unit_test(it_is_written_out_in_time),
	cmocka_unit_test(listings_and_stat_know_of_it),
	cmocka_unit_test(writes_are_right_while_room_is_made),
	cmocka_unit_test(a_cut_ends_no_write_in_a_signal),
	cmocka_unit_test(none_is_lost_to_a_death),
	cmocka_unit_test(none_is_lost_to_the_end_of_its_client),
	cmocka_unit_test(none_is_lost_to_both),
	cmocka_unit_test(a_stop_writes_it),
	cmocka_unit_test(who_makes_too_much_dirty_waits),
	cmocka_unit_test(a_child_writes_by_itself))
