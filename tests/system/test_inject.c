/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A daemon whose calls, and whose store, fail ($PGC_INJECT, a build with -Dfailure_injection=true): it never crashes, a client sees an errno or SIGBUS and never a
 * wrong byte, and afterwards everything works and nothing is left over. What is stored is always the same bytes, so that they are known whatever failed.
 */
#include <dirent.h>

#include "exerciser_inject.h"
#include "harness.h"

#define PAGES  96ul
#define SIZE   (PAGES * PAGE + 1234)
#define ROUNDS 40

static unsigned count_fds(void)
{
	char path[64];
	unsigned n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)env.daemon);
	d = opendir(path);
	CHECK(d != NULL);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* An error that a failure may have. ESTALE: the daemon could not even say that it has ended a connection, so it was taken for one that died. */
static void expect(const char *what, long r)
{
	if (r < 0 && r != -ESTALE && !inject_expects(r))
		FAIL("%s: %s", what, strerror((int)-r));
}

static void load_and_store(uint8_t *m)
{
	for (unsigned i = 0; i < 24; i++) {
		size_t off = (size_t)(rand() % (int)SIZE);
		uint8_t byte;
		int signal;

		signal = i % 2 ? store_signal(m + off, pattern_byte(off, 1)) : load_signal(m + off, &byte);
		if (signal && signal != SIGBUS)
			FAIL("an access raised %s", strsignal(signal));
		if (!signal && i % 2 == 0)
			CHECK_EQ(byte, pattern_byte(off, 1));
	}
}

static void call(struct pgc_file *f)
{
	static uint8_t buf[8 * PAGE];
	off_t off = rand() % (int)(SIZE - sizeof(buf));
	ssize_t n;

	n = pgc_pread(f, buf, sizeof(buf), off);
	expect("pread", n);
	if (n > 0)
		PATTERN_CHECK(buf, (size_t)n, (uint64_t)off, 1);
	pattern_fill(buf, sizeof(buf), (uint64_t)off, 1);
	expect("pwrite", pgc_pwrite(f, buf, sizeof(buf), off));
	expect("fsync", pgc_fsync(f));
	expect("ftruncate", pgc_ftruncate(f, SIZE));
}

static void fork_on(uint8_t *m)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		load_and_store(m);
		_exit(0);
	}
	load_and_store(m);
	expect_exit_0(pid);
}

static void one_round(const char *path, bool forks)
{
	struct pgc_file *f;
	uint8_t *m;
	int r;

	r = pgc_open(&f, path, O_RDWR, 0);
	expect("open", r);
	if (r < 0)
		return;
	m = pgc_mmap(f, NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	if (m == MAP_FAILED)
		expect("mmap", -errno);
	else
		load_and_store(m);
	call(f);
	if (m != MAP_FAILED && forks)
		fork_on(m);
	if (m != MAP_FAILED)
		CHECK_EQ(pgc_munmap(m, SIZE), 0);
	CHECK_EQ(pgc_close(f), 0);
}

/* All works, and every byte is there. */
static void check_whole(const char *path)
{
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint64_t end = now_ms() + WAIT_MS;

	/* A page that could not be read is read again after a while. */
	for (size_t off = 0; off < SIZE; off += PAGE)
		for (uint8_t byte; load_signal(m + off, &byte) != 0;)
			CHECK(now_ms() < end);
	PATTERN_CHECK(m, SIZE, 0, 1);
	store(m, pattern_byte(0, 1));
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(pgc_munmap(m, SIZE), 0);
	CHECK_EQ(pgc_close(f), 0);
	CHECK(store_has(path, SIZE, 0, 1));
	WAIT_UNTIL(status().handles == 0);
	drop_clean();
}

/* Each kind that was asked for must have failed, or this tests nothing: "NAME FAILED/ASKED". */
static void check_failures(void)
{
	char *log = daemon_log(), *at = strstr(log, "injected (of so many asked):"), *end;

	if (!at)
		FAIL("the daemon does not say what it injected");
	at += strlen("injected (of so many asked):");
	printf("%.*s\n", (int)strcspn(at, "\n"), at);
	if ((end = strchr(at, '\n')))
		*end = '\0';
	if (strstr(at, " 0/"))
		FAIL("something did not fail even once:%s", at);
	free(log);
}

static void with_failures(const char *spec)
{
	char *path = make_file("f", SIZE, 1);
	unsigned fds;

	srand(1);
	if (inject_prepare(env.dir, spec, 1))
		FAIL("the file for failures cannot be written");
	daemon_start();
	one_round(path, false);
	check_whole(path);
	WAIT_UNTIL(cached_bytes() == 0);
	fds = count_fds();
	inject_switch(true);
	for (unsigned i = 0; i < ROUNDS; i++) {
		one_round(path, i % 4 == 0);
		inject_switch(false);
		(void)sync_all();
		drop_clean();          /* so that there is something to read again */
		inject_switch(true);
	}
	inject_switch(false);
	check_whole(path);
	WAIT_UNTIL(cached_bytes() == 0);
	WAIT_UNTIL(count_fds() <= fds);
	inject_remove();
	daemon_stop();
	check_failures();
}

SYSTEM_TEST(out_of_memory, .no_daemon = true) { with_failures("malloc:0.02"); }
SYSTEM_TEST(out_of_address_space, .no_daemon = true) { with_failures("mmap:0.3"); }
SYSTEM_TEST(no_pages_for_memfds, .no_daemon = true) { with_failures("memory:0.2"); }
SYSTEM_TEST(out_of_descriptors, .no_daemon = true) { with_failures("fd:0.1,ctrunc:0.05"); }
SYSTEM_TEST(sockets_that_take_nothing, .no_daemon = true) { with_failures("send:0.02"); }
SYSTEM_TEST(rings_that_overflow, .no_daemon = true) { with_failures("sq:4,cq:4,enter:0.05,post:0.2"); }
SYSTEM_TEST(a_store_that_fails, .no_daemon = true) { with_failures("store_read:0.2,store_sync:0.2,store_other:0.2"); }
SYSTEM_TEST(a_store_that_takes_nothing, .no_daemon = true) { with_failures("store_write:0.3"); }
SYSTEM_TEST(a_store_that_stutters, .no_daemon = true) { with_failures("store_again:0.3,store_short:0.5,store_delay:0.2:5ms"); }
SYSTEM_TEST(mappings_that_change_all_the_time, .no_daemon = true) { with_failures("uffd_again:0.3,uffd_exist:0.3,uffd_part:0.5"); }

/* --- at its start --- */

/* Serves, or says why not and ends: never by a signal, and not without an end. */
static void start_with(const char *spec)
{
	uint64_t end = now_ms() + WAIT_MS;
	int fd, st;

	setenv("PGC_INJECT", spec, 1);
	env.daemon = daemon_spawn(env.log, NULL);
	while ((fd = control_try()) < 0) {
		if (waitpid(env.daemon, &st, WNOHANG) == env.daemon) {
			if (!WIFEXITED(st) || (WEXITSTATUS(st) != 1 && WEXITSTATUS(st) != 2))
				FAIL("%s: the daemon ended with status 0x%x", spec, (unsigned)st);
			env.daemon = 0;
			return;
		}
		if (now_ms() > end)
			FAIL("%s: the daemon neither serves nor ends", spec);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	close(fd);
	daemon_stop();
}

static void starts(const char *kind, unsigned most)
{
	char spec[64];

	daemon_start();                /* writes the configuration */
	daemon_stop();
	for (unsigned n = 1; n < most; n += 1 + n / 2) {
		snprintf(spec, sizeof(spec), "start,%s:@%u", kind, n);
		start_with(spec);
	}
}

SYSTEM_TEST(a_start_without_memory, .no_daemon = true) { starts("malloc", 700); }
SYSTEM_TEST(a_start_without_descriptors, .no_daemon = true) { starts("fd", 60); }
SYSTEM_TEST(a_start_without_address_space, .no_daemon = true) { starts("mmap", 30); }
SYSTEM_TEST(a_start_without_threads, .no_daemon = true) { starts("thread", 12); }

/* --- while it takes over --- */

/* Everything that was stored is there, to the parent and to a child that was forked before the death. */
static void child_of_the_dead(uint8_t *m, int go)
{
	char byte;

	CHECK_EQ(read(go, &byte, 1), 1);
	CHECK(madvise(m, SIZE, MADV_DONTNEED) == 0);
	PATTERN_CHECK(m, SIZE, 0, 2);
	store(m + 5, pattern_byte(5, 2));
	_exit(0);
}

/* The daemon dies. Those that start in the next 400 ms fail at the Nth time. */
static void take_over_with(const char *kind, unsigned n)
{
	char spec[64], name[64], *path;
	struct pgc_file *f;
	int go[2];
	uint8_t *m;
	pid_t pid;

	snprintf(spec, sizeof(spec), "start,%s:@%u", kind, n);
	if (inject_prepare(env.dir, spec, 1))
		FAIL("the file for failures cannot be written");
	daemon_start();
	snprintf(name, sizeof(name), "%s-%u", kind, n);
	path = make_file(name, SIZE, 1);
	f = open_file(path, O_RDWR);
	m = map(f, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	pattern_fill(m, SIZE, 0, 2);
	CHECK(pipe(go) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		child_of_the_dead(m, go[0]);
	inject_switch(true);
	daemon_kill();
	nanosleep(&(struct timespec){ .tv_nsec = 400000000 }, NULL);
	inject_switch(false);
	CHECK_EQ(write(go[1], "", 1), 1);
	CHECK(madvise(m, SIZE, MADV_DONTNEED) == 0);
	PATTERN_CHECK(m, SIZE, 0, 2);
	expect_exit_0(pid);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has(path, SIZE, 0, 2));
	CHECK_EQ(pgc_munmap(m, SIZE), 0);
	CHECK_EQ(pgc_close(f), 0);
	close(go[0]);
	close(go[1]);
	daemon_stop();
	inject_remove();
}

static void take_overs(const char *kind, unsigned most)
{
	for (unsigned n = 1; n < most; n += 1 + n / 4)
		take_over_with(kind, n);
}

#define TAKE_OVER .no_daemon = true, .keep = true, .seconds = 120
SYSTEM_TEST(a_take_over_without_memory, TAKE_OVER) { take_overs("malloc", 400); }
SYSTEM_TEST(a_take_over_without_descriptors, TAKE_OVER) { take_overs("fd", 60); }
SYSTEM_TEST(a_take_over_without_address_space, TAKE_OVER) { take_overs("mmap", 30); }

static void die_next_at(const char *path, const char *point)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && write(fd, point, strlen(point)) == (ssize_t)strlen(point));
	close(fd);
}

static bool is_empty(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && st.st_size == 0;
}

SYSTEM_TEST(an_append_that_two_daemons_die_in_is_done_once, .no_daemon = true, .keep = true)
{
	char *path = make_file("f", 100, 1), point[200], spec[210];
	struct pgc_file *f;
	struct stat st;
	off_t off = 0;

	snprintf(point, sizeof(point), "%s/kill-point", env.dir);
	snprintf(spec, sizeof(spec), "@%s", point);
	setenv("PGC_KILL_POINT", spec, 1);
	daemon_start();
	f = open_file(path, O_RDWR);
	die_next_at(point, "write.grown");
	daemon_kill();
	WAIT_UNTIL(is_empty(point));
	die_next_at(point, "write.grown");
	CHECK_EQ(pgc_append(f, "abc", 3, &off), 3);
	CHECK(is_empty(point));
	CHECK_EQ(off, 100);
	CHECK_EQ(pgc_fstat(f, &st), 0);
	CHECK_EQ(st.st_size, 103);
	CHECK_EQ(pgc_close(f), 0);
	unlink(point);
}

/* The store has an old size, and times that the dead daemon's writes have moved, and takes long to be asked for them. */
SYSTEM_TEST(a_size_by_path_is_right_while_a_file_is_taken_over, .no_daemon = true, .keep = true)
{
	char *path = make_file("f", PAGE, 1);
	struct pgc_stat_reply st;
	struct pgc_file *f;
	uint8_t buf[3 * PAGE];
	pid_t dead;

	if (inject_prepare(env.dir, "store_delay:1:200ms,start", 1))
		FAIL("the file for failures cannot be written");
	daemon_start();
	f = open_file(path, O_RDWR);
	pattern_fill(buf, sizeof(buf), PAGE, 1);
	CHECK_EQ(pgc_pwrite(f, buf, sizeof(buf), PAGE), sizeof(buf));
	for (unsigned i = 0; i < 4; i++) { /* the keeper waits longer each time */
		CHECK_EQ(utimensat(AT_FDCWD, path, NULL, 0), 0);
		inject_switch(true);
		dead = daemon_pid();
		CHECK_EQ(kill(dead, SIGKILL), 0);
		WAIT_UNTIL(kill(dead, 0) < 0);
		for (unsigned k = 0; k < 20; k++) {
			CHECK_EQ(ctl_stat(path, &st), 0);
			CHECK_EQ(st.size, 4 * PAGE);
		}
		inject_switch(false);
		CHECK_EQ(pgc_pread(f, buf, PAGE, 3 * PAGE), PAGE); /* it is taken over */
	}
	inject_remove();
}

static void pages_out(struct peer *p, void *arg)
{
	struct pgc_file *f = open_file(file_path("f"), O_RDWR);
	uint8_t buf[64 * PAGE], *m = map(f, sizeof(buf), PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (unsigned k = 0; k < 64; k++)
		CHECK_EQ(load(m + k * PAGE), pattern_byte(k * PAGE, 1));
	CHECK_EQ(pgc_madvise(m, sizeof(buf), MADV_PAGEOUT), 0); /* in the end the next daemon does it */
	CHECK_EQ(pgc_pread(f, buf, sizeof(buf), 0), sizeof(buf));
	PATTERN_CHECK(buf, sizeof(buf), 0, 1);
	CHECK_EQ(pgc_fsync(f), 0);
	for (unsigned k = 0; k < 64; k++)
		CHECK(store_has_byte(file_path("f"), k * PAGE, pattern_byte(k * PAGE, 1)));
}

/* Without a keeper the pipe that its bytes are in goes with the daemon; the store has them. */
SYSTEM_TEST(a_page_that_a_daemon_dies_in_dropping_is_read_again, .no_daemon = true, .tracking = "async")
{
	static const char *const points[] = { "track.dropping", "track.punched" };

	make_file("f", 64 * PAGE, 1);
	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		struct peer *p;

		setenv("PGC_KILL_POINT", points[i], 1);
		daemon_start();
		unsetenv("PGC_KILL_POINT");
		p = peer_start(pages_out, NULL);
		CHECK(waitpid(env.daemon, NULL, 0) == env.daemon);
		env.daemon = 0;
		daemon_start();
		peer_join(p);
		daemon_stop();
	}
}

/* Each block has these that are loaded only, and others that are stored to. */
#define LOADED    16u
#define BLOCKS    64u
#define PER_BLOCK (BLOCK / PAGE)

static void expect_all(const uint8_t *m)
{
	for (size_t p = 0; p < BLOCKS * PER_BLOCK; p++)
		CHECK_EQ(load(m + p * PAGE + 9), pattern_byte(p * PAGE + 9, 1));
}

/*
 * A daemon dies with pages in the pipe that it had not noted yet, or no more. What the next one gives up and puts back must not be those: each block's clean pages, where too
 * much is dirty.
 */
SYSTEM_TEST(what_a_dead_daemon_has_left_in_its_pipe_is_nobodys, .no_daemon = true, .keep = true, .tracking = "async", .workers = 1,
	    .config = "dirty_background = 1M\ndirty_max = 4M", .seconds = 120)
{
	static const char *const points[] = { "track.held:2", "track.drop_over:2" };
	char *path = make_file("f", BLOCKS * BLOCK, 1), point[200], spec[210];

	snprintf(point, sizeof(point), "%s/kill-point", env.dir);
	snprintf(spec, sizeof(spec), "@%s", point);
	if (inject_prepare(env.dir, "store_delay:1:3s,start", 1))
		FAIL("the file for failures cannot be written");
	inject_switch(false);
	setenv("PGC_KILL_POINT", spec, 1);
	daemon_start();
	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		struct pgc_file *f = open_file(path, O_RDWR);
		uint8_t *m = map(f, BLOCKS * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
		uint64_t until;
		pid_t dies;

		die_next_at(point, points[i]);
		daemon_kill();
		WAIT_UNTIL(is_empty(point));
		expect_all(m);
		dies = daemon_pid();
		inject_switch(true); /* what is dirty stays so for a while */
		for (size_t p = 0; p < BLOCKS * PER_BLOCK; p++)
			if (p % PER_BLOCK >= LOADED)
				store(m + p * PAGE, pattern_byte(p * PAGE, 1));
		WAIT_UNTIL_MS(daemon_pid() != dies && control_try() >= 0, 20000);
		WAIT_UNTIL(status().dirty > BLOCKS * PER_BLOCK / 2); /* the one that serves now has to give up as much */
		for (until = now_ms() + 2000; now_ms() < until; usleep(50000))
			expect_all(m);
		inject_switch(false);
		CHECK_EQ(pgc_fsync(f), 0);
		CHECK_EQ(pgc_close(f), 0);
	}
	inject_remove();
	unlink(point);
}

SYSTEM_TEST(a_specification_that_is_wrong_is_refused, .no_daemon = true)
{
	static const char *const wrong[] = { "malloc", "malloc:", "malloc:0", "malloc:1.5", "malloc:-1", "malloc:x", "malloc:@0", "no:1", "malloc:1:5", "sq:0",
		"store_delay:1:5", "store_delay:1:ms", "seed:x", "@/nonexistent" };
	const char *program = getenv("PAGECACHED_BIN");

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct output o;

		setenv("PGC_INJECT", wrong[i], 1);
		o = RUN(program, "--version");
		if (o.code != 2 || !strstr(o.err, "PGC_INJECT"))
			FAIL("\"%s\": exit code %d, \"%s\"", wrong[i], o.code, o.err);
		output_free(&o);
	}
}

SYSTEM_TESTS_MAIN("inject",
	cmocka_unit_test(a_page_that_a_daemon_dies_in_dropping_is_read_again), cmocka_unit_test(what_a_dead_daemon_has_left_in_its_pipe_is_nobodys),
	cmocka_unit_test(a_specification_that_is_wrong_is_refused),
	cmocka_unit_test(out_of_memory), cmocka_unit_test(out_of_address_space), cmocka_unit_test(no_pages_for_memfds),
	cmocka_unit_test(out_of_descriptors), cmocka_unit_test(sockets_that_take_nothing),
	cmocka_unit_test(rings_that_overflow), cmocka_unit_test(a_store_that_fails), cmocka_unit_test(a_store_that_takes_nothing), cmocka_unit_test(a_store_that_stutters),
	cmocka_unit_test(mappings_that_change_all_the_time), cmocka_unit_test(a_size_by_path_is_right_while_a_file_is_taken_over),
	cmocka_unit_test(a_start_without_memory), cmocka_unit_test(a_start_without_descriptors), cmocka_unit_test(a_start_without_address_space),
	cmocka_unit_test(a_start_without_threads),
	cmocka_unit_test(an_append_that_two_daemons_die_in_is_done_once), cmocka_unit_test(a_take_over_without_memory), cmocka_unit_test(a_take_over_without_descriptors), cmocka_unit_test(a_take_over_without_address_space))
