/* SPDX-License-Identifier: Apache-2.0 */
/* Reads without a system call: right under reclaim, cuts, holes, deaths and forks, never a signal; and what a hostile client makes of them. */
#include <linux/falloc.h>
#include <pthread.h>

#include "raw.h"

#define MIB (1024 * 1024ul)
#define OFTEN 40                       /* reads after which a handle has a window */

static void expect_read(struct pgc_file *f, size_t n, off_t off, unsigned gen)
{
	uint8_t b[3 * PAGE];

	CHECK_EQ(pgc_pread(f, b, n, off), n);
	PATTERN_CHECK(b, n, (uint64_t)off, gen);
}

static struct pgc_file *open_often_read(const char *path, int flags)
{
	struct pgc_file *f = open_file(path, flags);

	for (int i = 0; i < OFTEN; i++)
		expect_read(f, 100, 50, 1);
	return f;
}

struct alone { struct pgc_file *f; size_t n; off_t off; unsigned gen; ssize_t result; };

static void *read_alone(void *arg)
{
	struct alone *a = arg;
	uint8_t b[3 * PAGE];

	a->result = pgc_pread(a->f, b, a->n, a->off);
	if (a->result > 0)
		PATTERN_CHECK(b, (size_t)a->result, (uint64_t)a->off, a->gen);
	return NULL;
}

/* With the daemon stopped: does the read end? It may need nobody, or else ends when the daemon goes on. */
static bool needs_nobody(struct pgc_file *f, size_t n, off_t off, unsigned gen, ssize_t expected)
{
	struct alone a = { f, n, off, gen, -1 };
	struct timespec until;
	pid_t daemon = under_keeper() ? daemon_pid() : env.daemon;
	pthread_t t;
	bool alone;

	stop_process(daemon);
	CHECK_EQ(pthread_create(&t, NULL, read_alone, &a), 0);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += 300000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	alone = pthread_timedjoin_np(t, NULL, &until) == 0;
	CHECK(kill(daemon, SIGCONT) == 0);
	if (!alone)
		CHECK_EQ(pthread_join(t, NULL), 0);
	CHECK_EQ(a.result, expected);
	return alone;
}

SYSTEM_TEST(who_reads_often_asks_nobody)
{
	char *path = make_file("f", 20 * PAGE + 100, 1);

	for (int i = 0; i < 2; i++) {
		struct pgc_file *f = open_often_read(path, i ? O_RDWR : O_RDONLY);

		CHECK(needs_nobody(f, 100, 50, 1, 100));
		expect_read(f, 2 * PAGE, 5 * PAGE + 7, 1);
		CHECK(needs_nobody(f, 2 * PAGE, 5 * PAGE + 7, 1, 2 * PAGE)); /* over the ends of pages */
		expect_read(f, 200, 20 * PAGE - 100, 1);
		CHECK(needs_nobody(f, 3 * PAGE, 20 * PAGE - 100, 1, 200)); /* up to the end of file */
		CHECK(needs_nobody(f, 10, 20 * PAGE + 100, 1, 0));
		CHECK(needs_nobody(f, 10, 30 * PAGE, 1, 0));
		CHECK_EQ(pgc_close(f), 0);
	}
}

SYSTEM_TEST(what_is_not_here_is_asked_for)
{
	char *path = make_file("f", 400 * PAGE, 1);
	struct pgc_file *f = open_often_read(path, O_RDONLY);

	CHECK(!needs_nobody(f, 10, 300 * PAGE, 1, 10));
	CHECK(needs_nobody(f, 10, 300 * PAGE, 1, 10));
	drop_clean();
	CHECK(!needs_nobody(f, 10, 300 * PAGE, 1, 10));
	CHECK(needs_nobody(f, 10, 300 * PAGE, 1, 10));
}

SYSTEM_TEST(a_scan_asks_once_a_window_of_readahead)
{
	char *path = make_file("f", 64 * MIB, 1);
	struct pgc_file *f = open_often_read(path, O_RDONLY);
	uint64_t before, asked;

	before = (uint64_t)json_int(CTL_JSON("status", "--json"), "fills");
	for (off_t off = 0; off < (off_t)(64 * MIB); off += PAGE)
		expect_read(f, PAGE, off, 1);
	asked = (uint64_t)json_int(CTL_JSON("status", "--json"), "fills") - before;
	CHECK(asked < 64 * MIB / PAGE / 8);
	CHECK(needs_nobody(f, PAGE, 32 * MIB, 1, PAGE));
}

SYSTEM_TEST(what_was_written_is_read_at_once)
{
	char *path = make_file("f", 20 * PAGE, 1);
	struct pgc_file *f = open_often_read(path, O_RDWR), *g = open_file(path, O_RDWR);
	uint8_t b[100], *m = map(g, 20 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (unsigned gen = 2; gen < 200; gen++) {
		pattern_fill(b, sizeof(b), 50, gen);
		CHECK_EQ(pgc_pwrite(gen & 1 ? f : g, b, sizeof(b), 50), sizeof(b));
		expect_read(f, 100, 50, gen);
		pattern_fill(m + 60, 10, 60, gen + 1);
		expect_read(f, 10, 60, gen + 1);
	}
	CHECK_EQ(pgc_ftruncate(g, 55), 0);
	CHECK_EQ(pgc_pread(f, b, sizeof(b), 50), 5);
	CHECK_EQ(pgc_ftruncate(g, 5 * PAGE), 0);
	CHECK_EQ(pgc_pread(f, b, sizeof(b), 55), sizeof(b));
	ZERO_CHECK(b, sizeof(b));
}

SYSTEM_TEST(a_file_that_grows_gets_a_larger_window)
{
	char *path = make_file("f", PAGE, 1);
	struct pgc_file *f = open_often_read(path, O_RDWR);
	off_t far = 300 * (off_t)MIB;
	uint8_t b[100];

	pattern_fill(b, sizeof(b), (uint64_t)far, 1);
	CHECK_EQ(pgc_pwrite(f, b, sizeof(b), far), sizeof(b));
	for (int i = 0; i < OFTEN; i++)
		expect_read(f, 100, far, 1);
	CHECK(needs_nobody(f, 100, far, 1, 100));
	CHECK(needs_nobody(f, 100, 50, 1, 100));
}

SYSTEM_TEST(a_buffer_in_a_mapping_is_filled_or_refused)
{
	char *path = make_file("f", 20 * PAGE, 1), *other = make_file("g", 3 * PAGE, 2);
	struct pgc_file *f = open_often_read(path, O_RDONLY), *g = open_file(other, O_RDWR);
	uint8_t *m = map(g, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	CHECK_EQ(pgc_pread(f, m + PAGE + 10, PAGE, 50), PAGE);
	PATTERN_CHECK(m + PAGE + 10, PAGE, 50, 1);
	PATTERN_CHECK(m, PAGE + 10, 0, 2);
	CHECK_EQ(pgc_pread(f, m + 4 * PAGE, PAGE, 50), -EFAULT);
	CHECK_EQ(pgc_fsync(g), 0);
	CHECK(store_has(other, PAGE + 10, 0, 2) && store_has(path, 20 * PAGE, 0, 1));
}

/* --- cuts --- */

struct cutting { struct pgc_file *f; bool *stop; uint64_t reads, short_reads; };

/* Of a file that is 8 pages long or 2, all of one generation: what is read is that, as far as the file goes. */
static void *read_while_cut(void *arg)
{
	struct cutting *c = arg;
	uint8_t b[6 * PAGE];
	unsigned at = 1;

	while (!__atomic_load_n(c->stop, __ATOMIC_RELAXED)) {
		off_t off = (off_t)((at = at * 1103515245 + 12345) >> 8) % (off_t)(7 * PAGE);
		size_t n = 1 + (at >> 3) % (2 * PAGE);
		ssize_t k = pgc_pread(c->f, b, n, off);

		CHECK(k >= 0 && (size_t)k <= n);
		for (ssize_t i = 0; i < k; i++) /* zeros where it has just grown again */
			CHECK(b[i] == pattern_byte((uint64_t)(off + i), 1) || (b[i] == 0 && off + i >= (off_t)(2 * PAGE)));
		c->reads++;
		c->short_reads += (size_t)k < n;
	}
	return NULL;
}

SYSTEM_TEST(a_cut_ends_no_read_in_a_signal, .seconds = 120)
{
	char *path = make_file("f", 8 * PAGE, 1);
	struct pgc_file *f = open_often_read(path, O_RDONLY), *g = open_file(path, O_RDWR);
	bool stop = false;
	struct cutting c[3];
	pthread_t t[3];
	uint8_t b[6 * PAGE];

	pattern_fill(b, sizeof(b), 2 * PAGE, 1);
	for (int i = 0; i < 3; i++) {
		c[i] = (struct cutting){ .f = f, .stop = &stop };
		CHECK_EQ(pthread_create(&t[i], NULL, read_while_cut, &c[i]), 0);
	}
	for (int i = 0; i < 2000; i++) {
		CHECK_EQ(pgc_ftruncate(g, 2 * PAGE), 0);
		CHECK_EQ(pgc_pwrite(g, b, sizeof(b), 2 * PAGE), sizeof(b));
		if (i % 100 == 0)
			CHECK_EQ(pgc_fsync(g), 0);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(pthread_join(t[i], NULL), 0);
		CHECK(c[i].reads > 100 && c[i].short_reads > 0);
	}
	CHECK_EQ(pgc_fsync(g), 0);
	CHECK(store_has(path, 8 * PAGE, 0, 1));
}

SYSTEM_TEST(a_hole_is_read_as_zeros_or_what_was_there, .seconds = 120)
{
	char *path = make_file("f", 8 * PAGE, 1);
	struct pgc_file *f = open_often_read(path, O_RDONLY), *g = open_file(path, O_RDWR);
	bool stop = false;
	struct cutting c = { .f = f, .stop = &stop };
	uint8_t b[6 * PAGE];
	pthread_t t;

	pattern_fill(b, sizeof(b), 2 * PAGE, 1);
	CHECK_EQ(pthread_create(&t, NULL, read_while_cut, &c), 0);
	for (int i = 0; i < 1000; i++) {
		CHECK_EQ(pgc_fallocate(g, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * PAGE, 6 * PAGE), 0);
		if (i % 2)
			drop_clean();
		CHECK_EQ(pgc_pwrite(g, b, sizeof(b), 2 * PAGE), sizeof(b));
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	CHECK_EQ(pthread_join(t, NULL), 0);
	CHECK(c.reads > 100);
}

/* --- reclaim --- */

static void read_at_random(struct peer *p, void *path)
{
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint64_t at = (uint64_t)getpid();

	for (int i = 0; i < 40000; i++) {
		uint64_t page;

		at = at * 6364136223846793005ull + 1442695040888963407ull;
		page = (at >> 33) % (i % 4 ? 1500 : 16384);
		expect_read(f, 1 + (at >> 20) % PAGE, (off_t)(page * PAGE), 1);
	}
	peer_tell(p, 1);
	pgc_close(f);
}

SYSTEM_TEST(reads_are_right_while_room_is_made, .memory_max = "16M", .seconds = 180)
{
	char *path = make_file("f", 64 * MIB, 1);
	struct peer *p[3];

	for (int i = 0; i < 3; i++)
		p[i] = peer_start(read_at_random, path);
	for (int i = 0; i < 3; i++) {
		peer_hear(p[i]);
		peer_join(p[i]);
	}
	CHECK(status().memory_used <= 16 * MIB);
}

/* --- deaths, forks --- */

SYSTEM_TEST(reads_go_on_after_a_death, .keep = true, .seconds = 120)
{
	char *path = make_file("f", 200 * PAGE, 1);
	struct pgc_file *f = open_often_read(path, O_RDWR);

	for (int i = 0; i < 4; i++) {
		daemon_kill();
		for (int k = 0; k < OFTEN; k++)
			expect_read(f, 100, (off_t)((k * 5 + i) * (long)PAGE), 1);
		for (int k = 0; k < OFTEN; k++)
			expect_read(f, 100, 50, 1);
		CHECK(needs_nobody(f, 100, 50, 1, 100));
	}
}

SYSTEM_TEST(reads_go_on_without_a_keeper, .seconds = 120)
{
	char *path = make_file("f", 200 * PAGE, 1);
	struct pgc_file *f = open_often_read(path, O_RDWR);

	for (int i = 0; i < 3; i++) {
		daemon_stop();
		daemon_start();
		for (int k = 0; k < OFTEN; k++)
			expect_read(f, 100, 50, 1);
		CHECK(needs_nobody(f, 100, 50, 1, 100));
	}
}

SYSTEM_TEST(a_child_has_a_window_of_its_own)
{
	char *path = make_file("f", 20 * PAGE, 1);
	struct pgc_file *f = open_often_read(path, O_RDWR);
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		for (int i = 0; i < OFTEN; i++)
			expect_read(f, 100, 50, 1);
		_exit(needs_nobody(f, 100, 50, 1, 100) ? 0 : 1);
	}
	expect_exit_0(pid);
	CHECK(needs_nobody(f, 100, 50, 1, 100));
}

SYSTEM_TEST(a_closed_handle_leaves_nothing)
{
	char *path = make_file("f", 20 * PAGE, 1);
	char line[512];
	FILE *maps;

	for (int i = 0; i < 50; i++) {
		struct pgc_file *f = open_often_read(path, i & 1 ? O_RDWR : O_RDONLY);
		uint8_t *m = i % 3 ? NULL : map(f, PAGE, PROT_READ, MAP_SHARED, 0);

		CHECK_EQ(pgc_close(f), 0);
		if (m) {
			PATTERN_CHECK(m, PAGE, 0, 1);
			CHECK_EQ(pgc_munmap(m, PAGE), 0);
		}
	}
	WAIT_UNTIL(file_state(path).handles == 0);
	CHECK_EQ(file_state(path).mappings, 0);
	maps = fopen("/proc/self/maps", "re");
	CHECK(maps);
	while (fgets(line, sizeof(line), maps))
		CHECK(!strstr(line, "memfd:pagecached"));
	fclose(maps);
}

SYSTEM_TEST(a_window_is_no_reference)
{
	char *path = make_file("f", 20 * PAGE, 1);
	struct pgc_file *f = open_often_read(path, O_RDWR);
	struct pgc_ctl_file_reply state = file_state(path);

	CHECK(needs_nobody(f, 100, 50, 1, 100));
	CHECK_EQ(state.mappings, 0);
	CHECK_EQ(state.handles, 1);
}

/* --- hostile clients --- */

/* WINDOW: the status; -1: the daemon hung up. */
static int raw_window(struct raw *r, uint64_t addr, uint64_t len, const int *fds, unsigned n_fds)
{
	struct pgc_msg m = { .type = PGC_MSG_WINDOW, .tag = 77 };
	int got[3] = { -1, -1, -1 };

	m.window = (struct pgc_window){ addr, len };
	send_msg(r->sock, &m, fds, n_fds);
	if (!recv_msg(r->sock, &m, got))
		return -1;
	for (int i = 0; i < 3; i++)
		if (got[i] >= 0) {
			/* What comes may only be read, but for what was written. */
			CHECK((fcntl(got[i], F_GETFL) & O_ACCMODE) == (i < 2 ? O_RDONLY : O_RDWR));
			CHECK(i == 2 || mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, got[i], 0) == MAP_FAILED);
			close(got[i]);
		}
	return (int)m.status;
}

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

SYSTEM_TEST(a_window_of_nonsense_is_refused)
{
	uint64_t len = 128 * MIB;
	char *path = make_file("f", 20 * PAGE, 1);
	int slots = sealed_memfd(PAGE, SEALS), touched = sealed_memfd(PGC_TOUCHED_SIZE(len), SEALS);
	int open_slots = sealed_memfd(PAGE, 0), small = sealed_memfd(PAGE, SEALS), plain = open(path, O_RDWR | O_CLOEXEC);
	const int bad[][2] = { { open_slots, touched }, { slots, open_slots }, { slots, plain }, { plain, touched }, { touched, slots } };
	struct raw r;

	raw_open(&r, "f", O_RDWR);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK_EQ(raw_window(&r, 1 << 30, len, bad[i], 2), EINVAL);
	CHECK_EQ(raw_window(&r, 1 << 30, 100 * BLOCK + PAGE, (int[]){ slots, small }, 2), EINVAL);
	CHECK_EQ(raw_window(&r, (1 << 30) + 1, len, (int[]){ slots, touched }, 2), EINVAL);
	CHECK_EQ(raw_window(&r, 1 << 30, 1ull << 62, (int[]){ slots, small }, 2), EINVAL);
	CHECK_EQ(raw_window(&r, UINT64_MAX - PAGE + 1, len, (int[]){ slots, touched }, 2), EINVAL);
	for (int i = 0; i < 100; i++)
		CHECK_EQ(raw_window(&r, 1 << 30, len, (int[]){ slots, touched }, 2), 0);
	CHECK_EQ(raw_window(&r, 0, 0, NULL, 0), 0);
	raw_close(&r);
	raw_open(&r, "f", O_RDWR);
	CHECK_EQ(raw_window(&r, 1 << 30, len, &slots, 1), -1);
	raw_close(&r);
	raw_open(&r, "f", O_WRONLY);
	CHECK_EQ(raw_window(&r, 1 << 30, len, (int[]){ slots, touched }, 2), EBADF);
	raw_close(&r);
}

static off_t memfd_size(const struct raw *r)
{
	struct stat st;

	CHECK(fstat(r->memfd, &st) == 0);
	return st.st_size;
}

/* One that says for ever that it reads, and has read everything: only the memory is cut later, and nobody else waits for that. */
SYSTEM_TEST(who_never_gives_its_slot_back_delays_the_cut_alone, .seconds = 120)
{
	uint64_t len = 128 * MIB;
	char *path = make_file("f", 20 * PAGE, 1);
	int slots = sealed_memfd(PAGE, SEALS), touched = sealed_memfd(PGC_TOUCHED_SIZE(len), SEALS);
	struct pgc_reader_slot *slot = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, slots, 0);
	uint64_t *bits = mmap(NULL, PGC_TOUCHED_SIZE(len), PROT_READ | PROT_WRITE, MAP_SHARED, touched, 0);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t b[2 * PAGE], *m = map(f, 20 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct raw r;

	PATTERN_CHECK(m, 20 * PAGE, 0, 1);
	raw_open(&r, "f", O_RDONLY);
	CHECK_EQ(raw_window(&r, 1 << 30, len, (int[]){ slots, touched }, 2), 0);
	memset(bits, 0xff, PGC_TOUCHED_SIZE(len));
	__atomic_store_n(&slot[3].end, UINT64_MAX, __ATOMIC_SEQ_CST);
	for (int i = 0; i < 20; i++) {
		CHECK_EQ(pgc_ftruncate(f, 3 * PAGE + 10), 0);
		CHECK_EQ(pgc_pread(f, b, sizeof(b), 3 * PAGE), 10);
		PATTERN_CHECK(b, 10, 3 * PAGE, 1);
		CHECK_EQ(memfd_size(&r), 20 * PAGE);
		/* What comes after the end is zeros when the file grows again. */
		CHECK_EQ(pgc_ftruncate(f, (10 + i % 10) * (off_t)PAGE), 0);
		CHECK_EQ(pgc_pread(f, b, PAGE, 4 * PAGE), PAGE);
		ZERO_CHECK(b, PAGE);
		ZERO_CHECK(m + 5 * PAGE, PAGE);
		CHECK(memfd_size(&r) >= 20 * (off_t)PAGE);
		CHECK_EQ(pgc_fsync(f), 0);
	}
	CHECK_EQ(pgc_ftruncate(f, 3 * PAGE + 10), 0);
	CHECK_EQ(load(m + 3 * PAGE), pattern_byte(3 * PAGE, 1));
	/* What is past the end is so for everybody else, until the file has it. */
	CHECK_EQ(load_signal(m + 15 * PAGE, b), SIGBUS);
	CHECK_EQ(pgc_ftruncate(f, 20 * PAGE), 0);
	WAIT_UNTIL(load_signal(m + 15 * PAGE, b) == 0);
	ZERO_CHECK(m + 15 * PAGE, PAGE);
	CHECK_EQ(pgc_ftruncate(f, 3 * PAGE + 10), 0);
	__atomic_store_n(&slot[3].end, 0, __ATOMIC_SEQ_CST);
	WAIT_UNTIL(memfd_size(&r) == 3 * PAGE + 10);
	CHECK_EQ(load_signal(m + 5 * PAGE, b), SIGBUS);
	/* One that grows over what was not cut yet, and is cut again before anybody has looked: again and again. */
	for (int i = 0; i < 200; i++) {
		CHECK_EQ(pgc_ftruncate(f, 20 * PAGE), 0);
		__atomic_store_n(&slot[3].end, UINT64_MAX, __ATOMIC_SEQ_CST);
		CHECK_EQ(pgc_ftruncate(f, PAGE), 0);
		CHECK_EQ(memfd_size(&r), 20 * PAGE);
		__atomic_store_n(&slot[3].end, 0, __ATOMIC_SEQ_CST);
	}
	WAIT_UNTIL(memfd_size(&r) == PAGE);
	/* And with its end. */
	CHECK_EQ(pgc_ftruncate(f, 20 * PAGE), 0);
	__atomic_store_n(&slot[3].end, UINT64_MAX, __ATOMIC_SEQ_CST);
	CHECK_EQ(pgc_ftruncate(f, PAGE), 0);
	CHECK_EQ(memfd_size(&r), 20 * PAGE);
	int kept = fcntl(r.memfd, F_DUPFD_CLOEXEC, 0);
	raw_close(&r);
	r.memfd = kept;
	WAIT_UNTIL(memfd_size(&r) == PAGE);
	close(kept);
	CHECK_EQ(store_size(path), PAGE);
	/* Nor does the daemon's end wait. */
	raw_open(&r, "f", O_RDONLY);
	__atomic_store_n(&slot[3].end, 0, __ATOMIC_SEQ_CST);
	CHECK_EQ(raw_window(&r, 1 << 30, len, (int[]){ slots, touched }, 2), 0);
	CHECK_EQ(pgc_ftruncate(f, 20 * PAGE), 0);
	__atomic_store_n(&slot[3].end, UINT64_MAX, __ATOMIC_SEQ_CST);
	CHECK_EQ(pgc_ftruncate(f, PAGE), 0);
	CHECK_EQ(memfd_size(&r), 20 * PAGE);
}

/* As many files as would have bits that take all the memory: some are asked for as before. */
SYSTEM_TEST(bits_take_no_more_than_their_part, .memory_max = "8M", .seconds = 120)
{
	struct pgc_file *f[96];
	uint64_t before, after;

	for (int i = 0; i < 96; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%d", i);
		f[i] = open_file(make_file(name, 3 * PAGE, 1), O_RDWR);
		CHECK_EQ(pgc_ftruncate(f[i], 1ll << 40), 0);
	}
	before = (uint64_t)json_int(CTL_JSON("memory", "--json"), "tables");
	for (int i = 0; i < 96; i++)
		for (int k = 0; k < OFTEN; k++)
			expect_read(f[i], 100, 50, 1);
	after = (uint64_t)json_int(CTL_JSON("memory", "--json"), "tables");
	CHECK(after - before < MIB);
	CHECK(needs_nobody(f[0], 100, 50, 1, 100));
	CHECK(!needs_nobody(f[95], 100, 50, 1, 100));
}

SYSTEM_TESTS_MAIN("window",
	cmocka_unit_test(who_reads_often_asks_nobody),
	cmocka_unit_test(what_is_not_here_is_asked_for),
	cmocka_unit_test(a_scan_asks_once_a_window_of_readahead),
	cmocka_unit_test(what_was_written_is_read_at_once),
	cmocka_unit_test(a_file_that_grows_gets_a_larger_window),
	cmocka_unit_test(a_buffer_in_a_mapping_is_filled_or_refused),
	cmocka_unit_test(a_cut_ends_no_read_in_a_signal),
	cmocka_unit_test(a_hole_is_read_as_zeros_or_what_was_there),
	cmocka_unit_test(reads_are_right_while_room_is_made),
	cmocka_unit_test(reads_go_on_after_a_death),
	cmocka_unit_test(reads_go_on_without_a_keeper),
	cmocka_unit_test(a_child_has_a_window_of_its_own),
	cmocka_unit_test(a_closed_handle_leaves_nothing),
	cmocka_unit_test(a_window_is_no_reference),
	cmocka_unit_test(a_window_of_nonsense_is_refused),
	cmocka_unit_test(who_never_gives_its_slot_back_delays_the_cut_alone),
	cmocka_unit_test(bits_take_no_more_than_their_part))
