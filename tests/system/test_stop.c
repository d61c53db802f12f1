/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A full stop (SIGTERM) comes to an end, whatever stores and clients do; what could not be written is told for each file, and by the exit status.
 */
#include "harness.h"

#define UNWRITTEN 3
#define SOON_MS   15000
#define DIRTY     160u             /* pages: more writes than are made at one time, */
#define APART     (1ul << 20)      /* since they are so far apart */

/* Stops the daemon: its exit status, and how long that took. */
static int stop(uint64_t *ret_ms)
{
	uint64_t start = now_ms();
	int st;

	CHECK(kill(env.daemon, SIGTERM) == 0);
	WAIT_UNTIL(waitpid(env.daemon, &st, WNOHANG) == env.daemon);
	env.daemon = 0;
	CHECK(WIFEXITED(st));
	*ret_ms = now_ms() - start;
	return WEXITSTATUS(st);
}

static void check_told(const char *line)
{
	char *log = daemon_log();

	if (!strstr(log, line))
		FAIL("the log has no line \"%s\":\n%s", line, log);
	free(log);
}

static void dirty_pages_peer(struct peer *p, void *arg)
{
	struct pgc_file *f = open_mem(arg, DIRTY * APART, 1);

	for (unsigned i = 0; i < DIRTY; i++)
		CHECK_EQ(pgc_pwrite(f, "x", 1, (off_t)(i * APART)), 1);
	peer_tell(p, 1);
	peer_hear(p);
}

SYSTEM_TEST(a_store_that_does_not_answer_is_waited_for_no_longer_than_stop_timeout, .config = "stop_timeout = 1s", .workers = 1)
{
	struct peer *p = peer_start(dirty_pages_peer, (void *)"mem:hung");
	char *path = make_file("g", 10 * PAGE, 1);
	struct pgc_file *g = open_file(path, O_RDWR);
	uint64_t ms;

	peer_hear(p);
	CHECK_EQ(pgc_pwrite(g, "y", 1, 5), 1);
	inject("mem:hung", PGC_INJECT_WRITE_DELAY, 600000000, 0);
	CHECK_EQ(stop(&ms), UNWRITTEN);
	CHECK(ms >= 1000 && ms < SOON_MS);
	check_told("mem:hung: 655360 bytes could not be written: its store does not answer");
	CHECK(store_has_byte(path, 5, 'y'));
	peer_kill(p);
}

SYSTEM_TEST(a_store_that_fails_for_ever_is_tried_for_some_seconds)
{
	struct peer *p = peer_start(dirty_pages_peer, (void *)"mem:bad");
	uint64_t ms;

	peer_hear(p);
	inject("mem:bad", PGC_INJECT_WRITE_ERROR, EIO, 0);
	CHECK_EQ(stop(&ms), UNWRITTEN);
	CHECK(ms < SOON_MS);
	check_told("mem:bad: 655360 bytes could not be written: Input/output error");
	peer_kill(p);
}

/* Each part within the patience, all together not. */
SYSTEM_TEST(a_store_that_is_slow_but_writes_is_waited_for, .config = "stop_timeout = 1500ms", .workers = 1)
{
	struct peer *p = peer_start(dirty_pages_peer, (void *)"mem:slow");
	uint64_t ms;

	peer_hear(p);
	inject("mem:slow", PGC_INJECT_WRITE_DELAY, 1300000, 0);
	CHECK_EQ(stop(&ms), 0);
	CHECK(ms > 1500);
	peer_kill(p);
}

/* --- clients that have not come back --- */

static void writer(struct peer *p, void *arg)
{
	struct pgc_file *f = open_file(arg, O_RDWR);
	uint8_t *m = map(f, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (unsigned i = 0; i < 8; i++)
		store(m + i * 3 * PAGE, 9); /* not in sequence, so that each is dirty by itself */
	peer_tell(p, 1);
	peer_hear(p);
}

static void reader(struct peer *p, void *arg)
{
	struct pgc_file *f = open_file(arg, O_RDONLY);

	CHECK_EQ(load(map(f, 64 * PAGE, PROT_READ, MAP_SHARED, 0)), 9);
	peer_tell(p, 1);
	peer_hear(p);
}

/* The daemon dies with all that it kept; `who` cannot come back to the next one. */
static void next_daemon_without(struct peer *who)
{
	int st;

	CHECK(kill(who->pid, SIGSTOP) == 0);
	CHECK(kill(env.daemon, SIGKILL) == 0 && waitpid(env.daemon, &st, 0) == env.daemon);
	daemon_start();
}

SYSTEM_TEST(what_an_awaited_client_had_dirty_ends_with_the_stop_and_is_told)
{
	char *path = make_file("f", 64 * PAGE, 1), line[300];
	struct peer *w = peer_start(writer, path);
	uint64_t ms;

	peer_hear(w);
	next_daemon_without(w);
	CHECK_EQ(stop(&ms), UNWRITTEN);
	CHECK(ms < SOON_MS);
	snprintf(line, sizeof(line), "%s: %llu bytes could not be written: no client came back with its memory", path, 8 * (unsigned long long)PAGE);
	check_told(line);
	peer_kill(w);
}

/* Its reader has brought the memory, but nobody may write the store. */
SYSTEM_TEST(a_file_whose_writer_is_awaited_ends_with_the_stop_and_is_told, .tracking = "sync")
{
	char *path = make_file("f", 64 * PAGE, 1), line[300];
	struct peer *w = peer_start(writer, path), *r;
	uint64_t ms;

	peer_hear(w);
	r = peer_start(reader, path);
	peer_hear(r);
	next_daemon_without(w);
	WAIT_UNTIL(file_state(path).handles == 1 && file_state(path).dirty == 8);
	CHECK_EQ(stop(&ms), UNWRITTEN);
	CHECK(ms < SOON_MS);
	snprintf(line, sizeof(line), "%s: %llu bytes could not be written: nobody has it open who may write it", path, 8 * (unsigned long long)PAGE);
	check_told(line);
	peer_kill(w);
	peer_kill(r);
}

SYSTEM_TESTS_MAIN("stop",
	cmocka_unit_test(a_store_that_does_not_answer_is_waited_for_no_longer_than_stop_timeout),
	cmocka_unit_test(a_store_that_fails_for_ever_is_tried_for_some_seconds),
	cmocka_unit_test(a_store_that_is_slow_but_writes_is_waited_for),
	cmocka_unit_test(what_an_awaited_client_had_dirty_ends_with_the_stop_and_is_told),
	cmocka_unit_test(a_file_whose_writer_is_awaited_ends_with_the_stop_and_is_told))
