/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon dies and no other comes, at least not soon: what clients wait for, how long (orphan_timeout, $PAGECACHED_ORPHAN_TIMEOUT), and how that ends. They never
 * see zeros, nor old bytes.
 */
#include "tests/system/harness.h"

#define TIMEOUT_MS 700
#define ORPHAN     .config = "orphan_timeout = 700ms"

static void daemon_vanishes(void)
{
	int st;

	CHECK(kill(env.daemon, SIGKILL) == 0);
	CHECK(waitpid(env.daemon, &st, 0) == env.daemon);
	env.daemon = 0;
}

/*
 * A test is a client, a process of its own, which calls orphaned() where its daemon is to vanish. The next one comes `pause_ms` later, or when the client has ended if
 * that is 0; it must start and stop as it should.
 */
static struct peer *inside;

static void orphaned(void) { (void)peer_ask(inside, 1); }

static void client(struct peer *p, void *arg)
{
	void (*body)(void) = arg;

	inside = p;
	body();
}

static void run_client(void (*body)(void), unsigned pause_ms)
{
	struct peer *p = peer_start(client, body);

	CHECK_EQ(peer_hear(p), 1);
	daemon_vanishes();
	peer_tell(p, 1);
	if (pause_ms) {
		usleep(pause_ms * 1000);
		daemon_start();
	}
	peer_join(p);
	if (!pause_ms)
		daemon_start();
}

#define CLIENT_TEST(name, pause_ms, ...) \
	static void name##_client(void); \
	SYSTEM_TEST(name, __VA_ARGS__) { run_client(name##_client, pause_ms); } \
	static void name##_client(void)

/* Expects that `what` takes as long as clients are to wait. */
#define CHECK_WAITS(what) \
	do { \
		uint64_t start_ = now_ms(), took_; \
		what; \
		took_ = now_ms() - start_; \
		if (took_ < TIMEOUT_MS - 200 || took_ > TIMEOUT_MS + 20000) \
			FAIL("%s took %llu ms", #what, (unsigned long long)took_); \
	} while (0)

static uint8_t *open_and_map(struct pgc_file **ret, int prot)
{
	uint8_t *m;

	*ret = open_file(make_file("f", 64 * PAGE, 1), O_RDWR);
	m = map(*ret, 64 * PAGE, prot, MAP_SHARED, 0);
	CHECK_EQ(pgc_madvise(m, 64 * PAGE, MADV_RANDOM), 0); /* what is not touched is not there */
	return m;
}

/* --- it ends --- */

CLIENT_TEST(calls_fail_when_orphan_timeout_has_passed, 0, ORPHAN)
{
	struct pgc_file *f = open_file(make_file("f", 64 * PAGE, 1), O_RDWR);
	char byte;

	orphaned();
	CHECK_WAITS(CHECK_EQ(pgc_pread(f, &byte, 1, 0), -ECONNRESET));
	CHECK_WAITS(CHECK_EQ(pgc_pwrite(f, "x", 1, 0), -ECONNRESET));
	CHECK_WAITS(CHECK_EQ(pgc_fsync(f), -ECONNRESET));
}

CLIENT_TEST(an_absent_page_is_waited_for_and_then_gets_SIGBUS, 0, ORPHAN)
{
	struct pgc_file *f;
	uint8_t *m = open_and_map(&f, PROT_READ), byte = 0;

	CHECK_EQ(load(m), pattern_byte(0, 1));
	orphaned();
	CHECK_WAITS(CHECK_EQ(load_signal(m + 40 * PAGE, &byte), SIGBUS));
	CHECK_EQ(load_signal(m + 50 * PAGE, &byte), SIGBUS);
	CHECK_EQ(load_signal(m, &byte), 0);
	CHECK_EQ(byte, pattern_byte(0, 1));
}

/* Nobody would write it out. */
CLIENT_TEST(a_store_to_a_page_that_is_mapped_is_waited_with_and_then_gets_SIGBUS, 0, ORPHAN, .tracking = "sync")
{
	struct pgc_file *f;
	uint8_t *m = open_and_map(&f, PROT_READ | PROT_WRITE);

	CHECK_EQ(load(m), pattern_byte(0, 1)); /* write-protected */
	orphaned();
	CHECK_WAITS(CHECK_EQ(store_signal(m, 9), SIGBUS));
	CHECK_EQ(store_signal(m, 9), SIGBUS);
	CHECK_EQ(pgc_munmap(m, 64 * PAGE), 0);
}

/* A store to a page that is writable already tells nobody: it must not be lost without a word, in a forked child neither. */
static void stores_on(void)
{
	struct pgc_file *f;
	uint8_t *m = open_and_map(&f, PROT_READ | PROT_WRITE), byte;
	int pipes[2];
	pid_t pid;

	store(m + PAGE, 7);
	CHECK_EQ(load(m + 2 * PAGE), pattern_byte(2 * PAGE, 1));
	orphaned();
	CHECK_WAITS(CHECK_EQ(load_signal(m + 40 * PAGE, &byte), SIGBUS));
	for (unsigned i = 0; i < 64; i++)
		CHECK_EQ(store_signal(m + i * PAGE, 9), SIGBUS);
	/* What the kernel stores there for a call is no less lost. */
	CHECK(pipe(pipes) == 0 && write(pipes[1], "x", 1) == 1);
	CHECK(read(pipes[0], m + PAGE, 1) == -1 && errno == EFAULT);
	CHECK_EQ(pgc_msync(m, 64 * PAGE, MS_SYNC), -ECONNRESET);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		_exit(store_signal(m + PAGE, 9) != SIGBUS);
	expect_exit_0(pid);
	CHECK_EQ(pgc_munmap(m, 32 * PAGE), 0);
	CHECK(mremap(m + 32 * PAGE, 32 * PAGE, 64 * PAGE, MREMAP_MAYMOVE) != MAP_FAILED);
	CHECK_EQ(pgc_close(f), 0);
}

SYSTEM_TEST(no_store_is_taken_any_more_where_nobody_would_write_it_out, ORPHAN)
{
	run_client(stores_on, 0);
	daemon_stop_losing();
}

/* A private page is the program's own: what it has stored there stays, and more may be. */
CLIENT_TEST(private_pages_stay, 0, ORPHAN)
{
	struct pgc_file *f = open_file(make_file("f", 64 * PAGE, 1), O_RDWR);
	uint8_t *m = map(f, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0), byte;

	CHECK_EQ(pgc_madvise(m, 64 * PAGE, MADV_RANDOM), 0);
	store(m + PAGE, 7);
	orphaned();
	CHECK_WAITS(CHECK_EQ(load_signal(m + 40 * PAGE, &byte), SIGBUS));
	CHECK_EQ(load(m + PAGE), 7);
	CHECK_EQ(store_signal(m + PAGE + 1, 8), 0);
	CHECK_EQ(load(m + PAGE + 1), 8);
}

CLIENT_TEST(an_unmap_is_over_when_orphan_timeout_has_passed, 0, ORPHAN)
{
	struct pgc_file *f;
	uint8_t *m = open_and_map(&f, PROT_READ | PROT_WRITE);

	orphaned();
	CHECK(munmap(m, 64 * PAGE) == 0);
	CHECK_EQ(pgc_close(f), 0);
}

/* Forks and changes of mappings after that wait for nobody, and a child sees no zeros either. */
CLIENT_TEST(forks_and_unmaps_go_on_afterwards, 0, ORPHAN)
{
	struct pgc_file *f, *g;
	uint8_t *m = open_and_map(&f, PROT_READ | PROT_WRITE), *n = open_and_map(&g, PROT_READ | PROT_WRITE), byte;

	orphaned();
	CHECK_EQ(load_signal(m, &byte), SIGBUS);
	CHECK_EQ(load_signal(n, &byte), SIGBUS);
	for (unsigned i = 0; i < 3; i++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0)
			_exit(load_signal(m + 5 * PAGE, &byte) == 0 && byte == 0);
		expect_exit_0(pid);
	}
	CHECK(munmap(m + 5 * PAGE, PAGE) == 0);
	CHECK(mremap(n, 64 * PAGE, 32 * PAGE, MREMAP_MAYMOVE) == n);
}

CLIENT_TEST(the_environment_comes_before_the_daemons_setting, 0, .config = "orphan_timeout = 0")
{
	struct pgc_file *f;
	uint8_t *m, byte = 0;

	CHECK(setenv("PAGECACHED_ORPHAN_TIMEOUT", "0.7", 1) == 0);
	m = open_and_map(&f, PROT_READ);
	orphaned();
	CHECK_WAITS(CHECK_EQ(load_signal(m, &byte), SIGBUS));
	CHECK_WAITS(CHECK_EQ(pgc_pread(f, &byte, 1, 0), -ECONNRESET));
}

/* --- it is waited for --- */

CLIENT_TEST(for_ever_is_longer_than_the_setting_and_ends_with_the_next_daemon, 2 * TIMEOUT_MS, ORPHAN)
{
	struct pgc_file *f;
	uint8_t *m;

	CHECK(setenv("PAGECACHED_ORPHAN_TIMEOUT", "0", 1) == 0);
	m = open_and_map(&f, PROT_READ | PROT_WRITE);
	store(m + 3 * PAGE + 1, 77);
	orphaned();
	CHECK_WAITS(CHECK_EQ(load(m + 40 * PAGE), pattern_byte(40 * PAGE, 1)));
	for (unsigned i = 0; i < 64; i++)
		CHECK_EQ(load(m + i * PAGE), pattern_byte(i * PAGE, 1));
	CHECK_EQ(load(m + 3 * PAGE + 1), 77);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(file_path("f"), 3 * PAGE + 1, 77));
}

CLIENT_TEST(a_call_that_waits_goes_on_with_a_daemon_that_comes_in_time, 200, .config = "orphan_timeout = 1min")
{
	struct pgc_file *f = open_file(make_file("f", 64 * PAGE, 1), O_RDWR);
	char buf[4];

	CHECK_EQ(pgc_pwrite(f, "new", 3, 5 * PAGE), 3);
	orphaned();
	CHECK_EQ(pgc_pwrite(f, "er", 2, 5 * PAGE + 3), 2);
	CHECK_EQ(pgc_pread(f, buf, 4, 5 * PAGE), 4);
	CHECK(memcmp(buf, "newe", 4) == 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(file_path("f"), 5 * PAGE + 4, 'r'));
}

/* What it has not written only it can bring; the store's size is not the answer. */
static void stopped_holder(struct peer *p, void *arg)
{
	struct pgc_file *f = open_file(file_path("f"), O_RDWR);

	CHECK_EQ(pgc_pwrite(f, "x", 1, 9 * PAGE), 1);
	(void)peer_ask(p, 1);
	CHECK_EQ(pgc_fsync(f), 0);
}

SYSTEM_TEST(a_size_by_path_waits_for_who_has_the_file)
{
	char *path = make_file("f", PAGE, 1);
	struct peer *p = peer_start(stopped_holder, NULL);
	struct pgc_stat_reply st;

	CHECK_EQ(peer_hear(p), 1);
	CHECK_EQ(kill(p->pid, SIGSTOP), 0);
	daemon_vanishes();
	daemon_start();
	CHECK_EQ(ctl_stat(path, &st), -EAGAIN);
	CHECK_EQ(kill(p->pid, SIGCONT), 0);
	WAIT_UNTIL(ctl_stat(path, &st) == 0);
	CHECK_EQ(st.size, 9 * PAGE + 1);
	peer_tell(p, 1);
	peer_join(p);
}

SYSTEM_TESTS_MAIN("orphan", cmocka_unit_test(calls_fail_when_orphan_timeout_has_passed),
		  cmocka_unit_test(an_absent_page_is_waited_for_and_then_gets_SIGBUS),
		  cmocka_unit_test(a_store_to_a_page_that_is_mapped_is_waited_with_and_then_gets_SIGBUS),
		  cmocka_unit_test(no_store_is_taken_any_more_where_nobody_would_write_it_out),
		  cmocka_unit_test(private_pages_stay),
		  cmocka_unit_test(an_unmap_is_over_when_orphan_timeout_has_passed),
		  cmocka_unit_test(forks_and_unmaps_go_on_afterwards),
		  cmocka_unit_test(the_environment_comes_before_the_daemons_setting),
		  cmocka_unit_test(for_ever_is_longer_than_the_setting_and_ends_with_the_next_daemon),
		  cmocka_unit_test(a_call_that_waits_goes_on_with_a_daemon_that_comes_in_time),
		  cmocka_unit_test(a_size_by_path_waits_for_who_has_the_file))
