/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon dies and the next one takes over, under a keeper: clients see a pause and nothing else. What is killed is the daemon of --keep, by SIGKILL, or
 * asked to hand over by SIGUSR1.
 */
#include "pagecached/maps.h"
#include "tests/system/harness.h"

#define TAKEOVER .keep = true, .seconds = 60

static bool daemon_answers(void)
{
	int fd = control_try();

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* Kills the daemon and waits until another answers. */
static void next_daemon(int signal)
{
	pid_t before = daemon_pid();

	CHECK(kill(before, signal) == 0);
	WAIT_UNTIL(kill(before, 0) < 0);
	WAIT_UNTIL(daemon_answers());
	CHECK(daemon_pid() != before);
}

/* --- mappings --- */

SYSTEM_TEST(bytes_stored_before_the_death_are_there_after_it, TAKEOVER)
{
	char *path = make_file("f", 300 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (unsigned i = 0; i < 300; i += 2)
		store(m + i * PAGE + 7, (uint8_t)(i + 1));
	next_daemon(SIGKILL);
	CHECK(madvise(m, 300 * PAGE, MADV_DONTNEED) == 0); /* out of the page tables: each is asked for anew */
	for (unsigned i = 0; i < 300; i += 2)
		CHECK_EQ(load(m + i * PAGE + 7), (uint8_t)(i + 1));
	WAIT_UNTIL(file_state(path).dirty == 150);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 298 * PAGE + 7, (uint8_t)299));
}

SYSTEM_TEST(a_fault_that_waits_while_there_is_no_daemon_is_answered_by_the_next, TAKEOVER)
{
	char *path = make_file("f", 100 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 100 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint8_t byte;

	daemon_kill();
	for (unsigned i = 0; i < 100; i++) {
		CHECK_EQ(load_signal(m + i * PAGE, &byte), 0);
		CHECK_EQ(byte, pattern_byte(i * PAGE, 1));
	}
}

SYSTEM_TEST(nothing_is_read_from_the_store_again, TAKEOVER)
{
	char *path = make_file("f", 200 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t *m = map(f, 200 * PAGE, PROT_READ, MAP_SHARED, 0);

	for (unsigned i = 0; i < 200; i++)
		CHECK_EQ(load(m + i * PAGE), pattern_byte(i * PAGE, 1));
	next_daemon(SIGKILL);
	WAIT_UNTIL(file_state(path).resident == 200);
	CHECK(madvise(m, 200 * PAGE, MADV_DONTNEED) == 0);
	for (unsigned i = 0; i < 200; i++)
		CHECK_EQ(load(m + i * PAGE), pattern_byte(i * PAGE, 1));
	CHECK_EQ(status().fill_bytes, 0);
}

SYSTEM_TEST(a_file_that_nobody_had_open_is_read_on_from_its_store, TAKEOVER)
{
	char *path = make_file("f", 64 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t byte;

	CHECK_EQ(pgc_pread(f, &byte, 1, 0), 1);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(file_state(path).handles == 0);
	next_daemon(SIGKILL);
	WAIT_UNTIL(file_state(path).resident > 0); /* when its worker has taken over */
	f = open_file(path, O_RDONLY);
	drop_clean();
	for (unsigned i = 0; i < 64; i++) {
		CHECK_EQ(pgc_pread(f, &byte, 1, i * PAGE), 1);
		CHECK_EQ(byte, pattern_byte(i * PAGE, 1));
	}
}

SYSTEM_TEST(a_page_stored_to_after_the_death_is_written_out, TAKEOVER)
{
	char *path = make_file("f", 64 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	store(m, 1);
	CHECK_EQ(pgc_fsync(f), 0);
	next_daemon(SIGKILL);
	store(m, 2);               /* it may still be writable: the next daemon must have seen to it that it is not */
	store(m + 5 * PAGE, 3);
	CHECK_EQ(sync_all(), 0);
	CHECK(store_has_byte(path, 0, 2) && store_has_byte(path, 5 * PAGE, 3));
	store(m, 4);
	CHECK_EQ(sync_all(), 0);
	CHECK(store_has_byte(path, 0, 4));
}

SYSTEM_TEST(a_hand_over_by_SIGUSR1_keeps_everything_too, TAKEOVER)
{
	char *path = make_file("f", 64 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	store(m + 9 * PAGE, 9);
	next_daemon(SIGUSR1);
	CHECK_EQ(load(m + 9 * PAGE), 9);
	WAIT_UNTIL(file_state(path).dirty == 1);
	WAIT_UNTIL(file_state(path).handles == 1 && file_state(path).mappings == 1);
}

SYSTEM_TEST(state_on_a_tmpfs_does_as_well_as_BPF_maps, TAKEOVER, .no_bpf = true)
{
	char *path = make_file("f", 64 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	CHECK_EQ(status().bpf, 0);
	store(m + 9 * PAGE, 9);
	next_daemon(SIGKILL);
	WAIT_UNTIL(file_state(path).dirty == 1);
	CHECK_EQ(load(m + 9 * PAGE), 9);
}

SYSTEM_TEST(an_ordinary_users_daemon_is_taken_over_as_well, TAKEOVER, .as_user = true)
{
	char *path = make_file("f", 64 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	store(m + 9 * PAGE, 9);
	next_daemon(SIGKILL);
	CHECK_EQ(load(m + 9 * PAGE), 9);
	CHECK_EQ(load(m + 10 * PAGE), pattern_byte(10 * PAGE, 1));
	WAIT_UNTIL(file_state(path).dirty == 1);
}

SYSTEM_TEST(mappings_made_and_moved_before_the_death_are_found, TAKEOVER)
{
	char *path = make_file("f", 256 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR), *g = open_file(path, O_RDWR);
	uint8_t *m = map(f, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), *n = map(g, 64 * PAGE, PROT_READ, MAP_SHARED, 64 * PAGE);
	uint8_t *moved = mremap(m, 32 * PAGE, 32 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);

	if (moved == MAP_FAILED)       /* not for shared mappings on every kernel */
		moved = m;
	CHECK(munmap(n + 10 * PAGE, 4 * PAGE) == 0);
	WAIT_UNTIL(file_state(path).mappings >= 3);
	next_daemon(SIGKILL);
	WAIT_UNTIL(file_state(path).handles == 2);
	CHECK_EQ(load(moved + 3 * PAGE), pattern_byte(3 * PAGE, 1));
	CHECK_EQ(load(n + 9 * PAGE), pattern_byte(73 * PAGE, 1));
	CHECK_EQ(load(n + 14 * PAGE), pattern_byte(78 * PAGE, 1));
	CHECK(munmap(n, 64 * PAGE) == 0 && munmap(m, 64 * PAGE) == 0);
	if (moved != m)
		CHECK(munmap(moved, 32 * PAGE) == 0);
	WAIT_UNTIL(file_state(path).mappings == 0);
}

static void child_reads(uint8_t *m, int start, int done)
{
	char c;

	if (read(start, &c, 1) != 1)
		_exit(3);
	for (unsigned i = 0; i < 64; i++)
		if (m[i * PAGE] != (i == 5 ? 77 : pattern_byte(i * PAGE, 1)))
			_exit(1);
	m[6 * PAGE] = 66;
	if (write(done, "x", 1) != 1)
		_exit(4);
	_exit(0);
}

SYSTEM_TEST(forked_children_go_on, TAKEOVER)
{
	char *path = make_file("f", 64 * PAGE, 1), c;
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	int start[2], done[2];
	pid_t pid;

	store(m + 5 * PAGE, 77);
	CHECK(pipe(start) == 0 && pipe(done) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		child_reads(m, start[0], done[1]);
	close(done[1]);
	next_daemon(SIGKILL); /* who may have read of the child, and no more */
	CHECK(write(start[1], "x", 1) == 1);
	CHECK(read(done[0], &c, 1) == 1);
	expect_exit_0(pid);
	CHECK_EQ(load(m + 6 * PAGE), 66);
	CHECK_EQ(sync_all(), 0);
	CHECK(store_has_byte(path, 6 * PAGE, 66));
}

/* Its event is read before the next daemon knows what the parent has mapped, and so what the child can store into without a fault. */
SYSTEM_TEST(a_fork_while_there_is_no_daemon_is_known_to_the_next, TAKEOVER)
{
	char *path = make_file("f", 64 * PAGE, 1), c;
	int go[2], done[2];
	struct pgc_file *f;
	pid_t keeper = env.daemon, helper, pid;
	uint8_t *m;

	helper = fork();
	CHECK(helper >= 0);
	if (helper == 0) {
		usleep(300000);
		_exit(kill(keeper, SIGCONT) == 0 ? 0 : 1);
	}
	f = open_file(path, O_RDWR);
	m = map(f, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	store(m, 1);
	CHECK(pipe(go) == 0 && pipe(done) == 0);
	CHECK(kill(keeper, SIGSTOP) == 0);
	daemon_kill();
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		if (read(go[0], &c, 1) != 1)
			_exit(1);
		m[0] = 2;
		_exit(write(done[1], "x", 1) == 1 ? 0 : 1);
	}
	expect_exit_0(helper);
	CHECK_EQ(sync_all(), 0);
	CHECK(store_has_byte(path, 0, 1));
	CHECK(write(go[1], "x", 1) == 1 && read(done[0], &c, 1) == 1);
	drop_clean();
	CHECK_EQ(load(m), 2);
	CHECK_EQ(sync_all(), 0);
	CHECK(store_has_byte(path, 0, 2));
	expect_exit_0(pid);
}

SYSTEM_TEST(a_client_that_died_with_the_daemon_leaves_nothing, TAKEOVER)
{
	char *path = make_file("f", 64 * PAGE, 1), c = 0;
	int ready[2];
	pid_t pid;

	CHECK(pipe(ready) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		struct pgc_file *f = open_file(path, O_RDWR);
		uint8_t *m = map(f, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

		store(m, 42);
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	CHECK(read(ready[0], &c, 1) == 1);
	CHECK(kill(env.daemon, SIGSTOP) == 0); /* so that the keeper starts nobody before the client is dead, too */
	daemon_kill();
	CHECK(kill(pid, SIGKILL) == 0);
	wait_child(pid);
	CHECK(kill(env.daemon, SIGCONT) == 0);
	WAIT_UNTIL(store_has_byte(path, 0, 42));
	WAIT_UNTIL(status().handles == 0);
}

/* Changes a byte of what the daemon has open as that part of its state. */
static void damage_state(pid_t pid, const char *part, off_t at)
{
	for (int fd = 3; fd < 200; fd++) {
		char link[64], path[300], byte = 0x5a;
		ssize_t n;
		int state;

		snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)pid, fd);
		n = readlink(link, path, sizeof(path) - 1);
		path[n > 0 ? n : 0] = 0;
		if (n < (ssize_t)strlen(part) || strcmp(path + n - strlen(part), part) != 0)
			continue;
		state = open(path, O_WRONLY);
		CHECK(state >= 0 && pwrite(state, &byte, 1, at) == 1);
		close(state);
		return;
	}
	FAIL("the daemon has no %s", part);
}

/* Kills the daemon and damages its state, before the keeper starts the next one. */
static void damage_and_kill(const char *part, off_t at)
{
	pid_t daemon = daemon_pid();

	CHECK(kill(env.daemon, SIGSTOP) == 0);
	damage_state(daemon, part, at);
	CHECK(kill(daemon, SIGKILL) == 0);
	CHECK(kill(env.daemon, SIGCONT) == 0);
	WAIT_UNTIL(kill(daemon, 0) < 0);
	WAIT_UNTIL(daemon_answers());
}

#define HEADER_MAGIC 8 /* in slot 0 of saved_files */

SYSTEM_TEST(clients_of_a_state_that_is_damaged_hear_of_it, TAKEOVER, .no_bpf = true)
{
	char *path = make_file("f", 64 * PAGE, 1), buf[100];
	struct pgc_file *f = open_file(path, O_RDWR), *g;

	CHECK_EQ(pgc_pread(f, buf, 100, 0), 100);
	damage_and_kill(".saved_files", HEADER_MAGIC);
	/* The call comes back, with the bytes or an error, and whoever opens the file has it. */
	if (pgc_pread(f, buf, 100, PAGE) >= 0)
		PATTERN_CHECK(buf, 100, PAGE, 1);
	g = open_file(path, O_RDONLY);
	CHECK_EQ(pgc_pread(g, buf, 100, 2 * PAGE), 100);
	PATTERN_CHECK(buf, 100, 2 * PAGE, 1);
	WAIT_UNTIL(strstr(daemon_log(), "is not taken over"));
}

SYSTEM_TEST(what_was_dirty_under_a_state_that_is_damaged_is_in_the_file, TAKEOVER, .no_bpf = true)
{
	char *path = make_file("f", 300 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (unsigned i = 0; i < 300; i++)
		(void)load(m + i * PAGE);
	for (unsigned i = 0; i < 300; i += 3)
		store(m + i * PAGE + 7, (uint8_t)(i + 1));
	memset(m + 100 * PAGE, 0, PAGE); /* mapped: no page that a read was about to fill */
	CHECK_EQ(pgc_pwrite(f, "end", 3, 310 * PAGE), 3);
	damage_and_kill(".saved_files", HEADER_MAGIC);
	WAIT_UNTIL(strstr(daemon_log(), "/f: state lost:"));
	for (unsigned i = 0; i < 300; i += 3)
		CHECK(store_has_byte(path, i * PAGE + 7, (uint8_t)(i + 1)));
	CHECK(store_has_byte(path, 310 * PAGE + 2, 'd'));
	CHECK(store_is_zero(path, PAGE, 100 * PAGE));
	CHECK(store_has(path, 2 * PAGE, PAGE, 1));
}

SYSTEM_TEST(a_file_whose_record_is_damaged_goes_on_with_what_was_dirty, TAKEOVER, .no_bpf = true)
{
	char *path = make_file("f", 300 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint32_t slot = file_state(path).file;

	for (unsigned i = 0; i < 300; i++)
		(void)load(m + i * PAGE);
	for (unsigned i = 0; i < 300; i += 3)
		store(m + i * PAGE + 7, (uint8_t)(i + 1));
	damage_and_kill(".saved_files", (off_t)(slot * sizeof(struct pgc_saved_file) + offsetof(struct pgc_saved_file, ino)));
	WAIT_UNTIL(strstr(daemon_log(), "its record was damaged: "));
	CHECK(!strstr(daemon_log(), "its record was damaged: 0 "));
	for (unsigned i = 0; i < 300; i += 3)
		CHECK_EQ(load(m + i * PAGE + 7), (uint8_t)(i + 1));
	PATTERN_CHECK(m + PAGE, PAGE, PAGE, 1);
	WAIT_UNTIL(file_state(path).dirty + file_state(path).writeback == 0); /* nobody asked for it */
	for (unsigned i = 0; i < 300; i += 3)
		CHECK(store_has_byte(path, i * PAGE + 7, (uint8_t)(i + 1)));
	store(m + 4 * PAGE, 0x44);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 4 * PAGE, 0x44));
}

SYSTEM_TEST(a_full_stop_leaves_neither_state_nor_pins, TAKEOVER)
{
	char *path = make_file("f", 64 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	store(m, 1);
	next_daemon(SIGKILL);
	store(m + PAGE, 2);
	daemon_stop();
	CHECK(store_has_byte(path, 0, 1) && store_has_byte(path, PAGE, 2));
	if (env.bpffs[0])
		CHECK(access(env.bpffs, F_OK) < 0);
}

/* --- calls --- */

SYSTEM_TEST(calls_take_longer_and_do_not_fail, TAKEOVER)
{
	char *path = make_file("f", 64 * PAGE, 1), buf[100];
	struct pgc_file *f = open_file(path, O_RDWR);
	off_t at = 0;

	for (unsigned i = 0; i < 6; i++) {
		if (i > 0)
			daemon_kill();
		CHECK_EQ(pgc_pwrite(f, "hello", 5, (off_t)(i * PAGE)), 5);
		CHECK_EQ(pgc_pread(f, buf, 5, (off_t)(i * PAGE)), 5);
		CHECK(memcmp(buf, "hello", 5) == 0);
		CHECK_EQ(pgc_append(f, "end", 3, &at), 3);
		CHECK_EQ(at, (off_t)(64 * PAGE + 3 * i));
		CHECK_EQ(pgc_fsync(f), 0);
		WAIT_UNTIL(daemon_answers());
	}
	CHECK_EQ(store_size(path), (off_t)(64 * PAGE + 18));
}

SYSTEM_TEST(opens_wait_for_the_next_daemon, TAKEOVER)
{
	char *path = make_file("f", 64 * PAGE, 1);
	struct pgc_file *f;

	daemon_kill();
	f = open_file(path, O_RDWR);
	CHECK_EQ(load(map(f, PAGE, PROT_READ, MAP_SHARED, 0)), pattern_byte(0, 1));
}

SYSTEM_TESTS_MAIN("takeover", cmocka_unit_test(bytes_stored_before_the_death_are_there_after_it),
		  cmocka_unit_test(a_fault_that_waits_while_there_is_no_daemon_is_answered_by_the_next),
		  cmocka_unit_test(nothing_is_read_from_the_store_again),
		  cmocka_unit_test(a_file_that_nobody_had_open_is_read_on_from_its_store),
		  cmocka_unit_test(a_page_stored_to_after_the_death_is_written_out),
		  cmocka_unit_test(a_hand_over_by_SIGUSR1_keeps_everything_too),
		  cmocka_unit_test(state_on_a_tmpfs_does_as_well_as_BPF_maps),
		  cmocka_unit_test(an_ordinary_users_daemon_is_taken_over_as_well),
		  cmocka_unit_test(mappings_made_and_moved_before_the_death_are_found), cmocka_unit_test(forked_children_go_on),
		  cmocka_unit_test(a_fork_while_there_is_no_daemon_is_known_to_the_next),
		  cmocka_unit_test(a_client_that_died_with_the_daemon_leaves_nothing),
		  cmocka_unit_test(clients_of_a_state_that_is_damaged_hear_of_it),
		  cmocka_unit_test(what_was_dirty_under_a_state_that_is_damaged_is_in_the_file),
		  cmocka_unit_test(a_file_whose_record_is_damaged_goes_on_with_what_was_dirty),
		  cmocka_unit_test(a_full_stop_leaves_neither_state_nor_pins), cmocka_unit_test(calls_take_longer_and_do_not_fail),
		  cmocka_unit_test(opens_wait_for_the_next_daemon))
