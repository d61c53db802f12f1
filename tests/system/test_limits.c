/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of users and cgroups, pins, and memory that clients have locked. */
#include <sys/socket.h>

#include "memory_tools.h"

/* --- limits of users and cgroups --- */

#define NOBODY 65534u
#define LIMIT (8 * MIB)
#define LIMITED_SIZE (40 * MIB)
#define HOT_SIZE (16 * MIB)
/*
 * What may be seen above the limit for a moment: a worker copies 64 pages at a time into the second-chance buffer before their memory goes, and what
 * comes back from there (64 at a time as well) does not wait for room. Two workers.
 */
#define ROW_SLACK 256u

/* The row of a user (by uid) or of a cgroup (by the number of its folder). */
static bool tenant_row(bool user, uint64_t id, struct pgc_ctl_cgroup_reply *ret)
{
	struct pgc_msg m = {.type = PGC_CTL_CGROUPS, .tag = 7};
	int fd = control_connect();
	bool found = false;

	CHECK(send(fd, &m, sizeof(m), MSG_NOSIGNAL) == sizeof(m));
	do {
		CHECK(recv(fd, &m, sizeof(m), 0) == sizeof(m));
		CHECK_EQ(m.status, 0);
		if (m.ctl_cgroup_reply.more && m.ctl_cgroup_reply.is_user == user && m.ctl_cgroup_reply.id == id) {
			*ret = m.ctl_cgroup_reply;
			found = true;
		}
	} while (m.ctl_cgroup_reply.more);
	close(fd);
	return found;
}

struct tenant_test {
	char *path;                    /* LIMITED_SIZE */
	bool as_user;
	const char *cgroup;            /* folder, NULL: none */
	int flags;
};

static void scans_as_tenant(struct peer *p, void *arg)
{
	const struct tenant_test *t = arg;
	struct pgc_file *f;
	uint8_t *m;

	if (t->cgroup)
		cgroup_move(t->cgroup);
	if (t->as_user)
		drop_privilege();
	f = open_file(t->path, t->flags);
	m = map(f, LIMITED_SIZE, t->flags == O_RDWR ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, 0);
	peer_tell(p, 1);
	for (int i = 0; i < 2; i++) {
		scan(m, LIMITED_SIZE, 1);
		if (t->flags == O_RDWR)
			for (uint64_t page = 0; page < LIMITED_SIZE / PAGE; page += 4)
				store(m + page * PAGE + 100, 1);
	}
	scan_by_calls(f, LIMITED_SIZE, 1);
	peer_tell(p, 2);
	peer_hear(p);
}

/* A tenant scans more than its limit while the pages of another are there. */
static void tenant_keeps_to_its_limit(struct tenant_test *t, bool user, uint64_t id)
{
	struct pgc_ctl_cgroup_reply row = {0};
	uint64_t most = 0, hot_pages = HOT_SIZE / PAGE;
	char *hot = make_stamped("hot", HOT_SIZE, 2);
	struct peer *p;
	struct pgc_file *f;
	int st;

	t->path = make_stamped("limited", LIMITED_SIZE, 1);
	CHECK(chmod(t->path, 0666) == 0);
	p = peer_start(scans_as_tenant, t);
	f = open_file(hot, O_RDONLY);
	scan_by_calls(f, HOT_SIZE, 2);
	WAIT_UNTIL(file_state(hot).resident == hot_pages);
	peer_hear(p);
	for (bool done = false; !done;) {
		uint64_t value;

		if (tenant_row(user, id, &row)) {
			most = row.resident > most ? row.resident : most;
			if (row.resident > LIMIT / PAGE + ROW_SLACK)
				FAIL("%" PRIu64 " pages are resident, the limit is %lu", row.resident, LIMIT / PAGE);
		}
		CHECK_EQ(file_state(hot).resident, hot_pages);
		done = recv(p->sock, &value, sizeof(value), MSG_DONTWAIT) == sizeof(value);
		CHECK(waitpid(p->pid, &st, WNOHANG) == 0);
	}
	CHECK(most > LIMIT / PAGE / 2);
	CHECK(tenant_row(user, id, &row));
	CHECK_EQ(row.limit, LIMIT / PAGE);
	CHECK(row.reclaimed > (LIMITED_SIZE - LIMIT) / PAGE);
	CHECK(memory().memory_used < memory().memory_max / 2);
	peer_tell(p, 1);
	peer_join(p);
}

SYSTEM_TEST(a_user_at_its_limit_gives_up_its_own_pages, .memory_max = "128M", .seconds = 120, .config = "[limit uid=65534]\nmemory_max = 8M")
{
	if (geteuid() != 0)
		skip_test("needs root, to be another user");
	tenant_keeps_to_its_limit(&(struct tenant_test){.as_user = true, .flags = O_RDONLY}, true, NOBODY);
}

SYSTEM_TEST(a_user_at_its_limit_may_store, .memory_max = "128M", .seconds = 120, .config = "[limit uid=65534]\nmemory_max = 8M")
{
	if (geteuid() != 0)
		skip_test("needs root, to be another user");
	tenant_keeps_to_its_limit(&(struct tenant_test){.as_user = true, .flags = O_RDWR}, true, NOBODY);
}

#define SCATTERED 16384u               /* pages */
#define TOUCHES   3000u

static void touches_at_random_as_tenant(struct peer *p, void *arg)
{
	struct pgc_file *f;
	uint8_t *m;

	drop_privilege();
	f = open_file(arg, O_RDONLY);
	m = map(f, SCATTERED * PAGE, PROT_READ, MAP_SHARED, 0);
	for (uint64_t i = 0; i < 2 * TOUCHES; i++) {
		if (i % TOUCHES == 0) {
			peer_tell(p, 1);
			peer_hear(p);
		}
		check_stamp(m, 0, scattered(i, SCATTERED), 1);
	}
	peer_tell(p, 1);
}

/* There is memory to spare, but not for this one. */
SYSTEM_TEST(for_a_user_at_its_limit_nothing_is_read_around_what_it_touches, .memory_max = "256M", .config = "[limit uid=65534]\nmemory_max = 8M")
{
	char *path = make_stamped("scattered", SCATTERED * PAGE, 1);
	uint64_t before, read;
	struct peer *p;

	if (geteuid() != 0)
		skip_test("needs root, to be another user");
	CHECK(chmod(path, 0666) == 0);
	p = peer_start(touches_at_random_as_tenant, path);
	for (int i = 0; i < 2; i++) {
		peer_hear(p);
		before = status().fill_bytes;
		peer_tell(p, 1);
	}
	peer_hear(p);
	read = (status().fill_bytes - before) / PAGE;
	if (read < TOUCHES / 2 || read > TOUCHES * 105 / 100)
		FAIL("%" PRIu64 " pages were read for %u that were touched", read, TOUCHES);
	peer_join(p);
}

SYSTEM_TEST(a_cgroup_at_its_limit_gives_up_its_own_pages, .memory_max = "128M", .seconds = 120)
{
	struct test_cgroup c = cgroup_make();
	FILE *f = fopen(env.config, "we");
	struct stat st;
	struct output o;

	/* The name of the group is known now only. */
	CHECK(f && fprintf(f, "[daemon]\ntest_stores = yes\n[limit cgroup=%s]\nmemory_max = 8M\n", c.name) > 0 && fclose(f) == 0);
	CHECK(kill(env.daemon, SIGHUP) == 0);
	WAIT_UNTIL(strstr(daemon_log(), "configuration read again and taken over"));
	CHECK(stat(c.path, &st) == 0);
	tenant_keeps_to_its_limit(&(struct tenant_test){.cgroup = c.path, .flags = O_RDONLY}, false, st.st_ino);
	o = RUN(pagecachectl(), "cgroups");
	CHECK_EQ(o.code, 0);
	CHECK(strstr(o.out, "LIMIT"));
}

SYSTEM_TEST(a_limit_that_is_taken_away_holds_no_more, .memory_max = "128M", .seconds = 120, .config = "[limit uid=65534]\nmemory_max = 8M")
{
	struct tenant_test t = {.as_user = true, .flags = O_RDONLY};
	struct pgc_ctl_cgroup_reply row;
	struct peer *p;
	FILE *f;

	if (geteuid() != 0)
		skip_test("needs root, to be another user");
	t.path = make_stamped("limited", LIMITED_SIZE, 1);
	f = fopen(env.config, "we");
	CHECK(f && fputs("[daemon]\ntest_stores = yes\n", f) >= 0 && fclose(f) == 0);
	CHECK(kill(env.daemon, SIGHUP) == 0);
	WAIT_UNTIL(strstr(daemon_log(), "configuration read again and taken over"));
	p = peer_start(scans_as_tenant, &t);
	peer_hear(p);
	peer_hear(p);
	CHECK_EQ(file_state(t.path).resident, LIMITED_SIZE / PAGE);
	CHECK(!tenant_row(true, NOBODY, &row) || row.limit == 0);
	peer_tell(p, 1);
	peer_join(p);
}

/* --- pins --- */

/* 16 MiB of memory, and a scan of four times as much. */
#define SMALL_MEMORY "16M"
#define PRESSURE_SIZE (64 * MIB)

static void press(const char *path, unsigned gen)
{
	struct pgc_file *f = open_file(path, O_RDONLY);
	void *m = map(f, PRESSURE_SIZE, PROT_READ, MAP_SHARED, 0);

	scan(m, PRESSURE_SIZE, gen);
	CHECK_EQ(pgc_munmap(m, PRESSURE_SIZE), 0);
	scan_by_calls(f, PRESSURE_SIZE, gen);
	CHECK_EQ(pgc_close(f), 0);
}

/* PGC_CTL_PIN. 0 or -errno. */
static int pin(const char *path, uint64_t off, uint64_t len, bool on)
{
	struct pgc_ctl_file_reply f = {0};
	struct pgc_msg m = {.type = PGC_CTL_PIN};
	struct stat st;

	/* One that the daemon does not have is named all the same. */
	if (!cached_file(path, &f)) {
		CHECK(stat(path, &st) == 0);
		f.dev = st.st_dev;
		f.ino = st.st_ino;
	}
	m.ctl_pin = (struct pgc_ctl_pin){.dev = f.dev, .ino = f.ino, .off = off, .len = len, .on = on};
	control_request(&m);
	return -(int)m.status;
}

SYSTEM_TEST(a_pinned_range_is_read_in_and_stays, .memory_max = SMALL_MEMORY, .seconds = 120)
{
	char *path = make_stamped("f", 4 * MIB, 1), *other = make_stamped("other", PRESSURE_SIZE, 2);
	uint8_t *m = map(open_file(path, O_RDONLY), 4 * MIB, PROT_READ, MAP_SHARED, 0);
	uint64_t fills;

	CHECK_EQ(pgc_madvise(m, 4 * MIB, MADV_RANDOM), 0); /* nothing is read beyond what is touched */
	CHECK_EQ(file_state(path).resident, 0);
	CHECK_EQ(pin(path, MIB + 1, 2 * MIB - 2, true), 0);
	CHECK_EQ(resident_in(path, MIB / PAGE, 2 * MIB / PAGE), 2 * MIB / PAGE);
	CHECK_EQ(memory().pinned, 2 * MIB / PAGE);
	press(other, 2);
	CHECK_EQ(resident_in(path, MIB / PAGE, 2 * MIB / PAGE), 2 * MIB / PAGE);
	fills = status().fills;
	for (uint64_t page = MIB / PAGE; page < 3 * MIB / PAGE; page++)
		check_stamp(m, 0, page, 1);
	CHECK_EQ(status().fills, fills);
	CHECK_EQ(pin(path, MIB, 2 * MIB, false), 0);
	CHECK_EQ(memory().pinned, 0);
	press(other, 2);
	press(other, 2);
	CHECK(resident_in(path, MIB / PAGE, 2 * MIB / PAGE) < 2 * MIB / PAGE / 2);
}

SYSTEM_TEST(half_of_a_pin_is_let_go, .memory_max = SMALL_MEMORY, .seconds = 120)
{
	char *path = make_stamped("f", 4 * MIB, 1), *other = make_stamped("other", PRESSURE_SIZE, 2);
	struct pgc_file *f = open_file(path, O_RDONLY);

	CHECK_EQ(pin(path, 0, 4 * MIB, true), 0);
	CHECK_EQ(pin(path, 0, 4 * MIB, true), 0); /* charged once */
	CHECK_EQ(memory().pinned, 4 * MIB / PAGE);
	CHECK_EQ(pin(path, 2 * MIB, 2 * MIB, false), 0);
	CHECK_EQ(memory().pinned, 2 * MIB / PAGE);
	press(other, 2);
	press(other, 2);
	CHECK_EQ(resident_in(path, 0, 2 * MIB / PAGE), 2 * MIB / PAGE);
	CHECK(resident_in(path, 2 * MIB / PAGE, 2 * MIB / PAGE) < MIB / PAGE);
	CHECK_EQ(pgc_close(f), 0);
}

SYSTEM_TEST(a_pin_larger_than_pin_max_changes_nothing, .memory_max = "64M", .config = "pin_max = 2M")
{
	char *path = make_stamped("f", 4 * MIB, 1);
	struct pgc_ctl_memory_reply before, after;
	struct output o;

	open_file(path, O_RDONLY);
	CHECK_EQ(pin(path, 0, MIB, true), 0);
	before = memory();
	CHECK_EQ(pin(path, MIB, 3 * MIB, true), -ENOSPC);
	CHECK_EQ(pin(path, 0, 0, true), -ENOSPC);
	after = memory();
	CHECK(memcmp(&before, &after, sizeof(before)) == 0);
	CHECK_EQ(file_state(path).resident, MIB / PAGE);
	o = RUN(pagecachectl(), "pin", path);
	CHECK_EQ(o.code, 1);
	CHECK(strstr(o.err, "pin_max"));
	/* What is left may still be. */
	CHECK_EQ(pin(path, MIB, MIB, true), 0);
	CHECK_EQ(memory().pinned, 2 * MIB / PAGE);
}

SYSTEM_TEST(a_pin_of_a_file_that_is_not_open_is_refused)
{
	char *path = make_stamped("f", MIB, 1);
	struct pgc_file *f;
	uint8_t byte;

	CHECK_EQ(pin(path, 0, 0, true), -ENOENT);
	/* One that was open is known, but cannot be read. */
	f = open_file(path, O_RDONLY);
	CHECK_EQ(pgc_pread(f, &byte, 1, 0), 1);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(file_state(path).handles == 0);
	WAIT_UNTIL(pin(path, 0, 0, true) == -EAGAIN);
	CHECK_EQ(memory().pinned, 0);
}

SYSTEM_TEST(pagecachectl_pin_opens_the_file_itself)
{
	char *path = make_stamped("f", MIB, 1), *gone = file_path("gone");
	struct output o = RUN(pagecachectl(), "pin", path);

	CHECK_EQ(o.code, 0);
	CHECK_EQ(memory().pinned, MIB / PAGE);
	o = RUN(pagecachectl(), "pin", gone);
	CHECK_EQ(o.code, 1);
	CHECK(strstr(o.err, gone) && strstr(o.err, strerror(ENOENT)));
}

SYSTEM_TEST(a_pin_past_the_end_of_file_is_refused)
{
	char *path = make_stamped("f", MIB, 1);

	open_file(path, O_RDONLY);
	CHECK_EQ(pin(path, MIB, PAGE, true), -EINVAL);
	CHECK_EQ(memory().pinned, 0);
}

SYSTEM_TEST(a_pin_whose_page_cannot_be_read_pins_nothing)
{
	struct pgc_file *f = open_mem("mem:f", MIB, 1);
	uint8_t byte;

	inject("mem:f", PGC_INJECT_READ_ERROR, EIO, 0);
	CHECK_EQ(pin("mem:f", 0, 0, true), -EIO);
	CHECK_EQ(memory().pinned, 0);
	CHECK_EQ(json_object_array_length(CTL_JSON("--json", "pins")), 0);
	inject("mem:f", PGC_INJECT_READ_ERROR, 0, 0);
	CHECK_EQ(pin("mem:f", 0, 0, true), 0);
	CHECK_EQ(memory().pinned, MIB / PAGE);
	CHECK_EQ(pgc_pread(f, &byte, 1, 5), 1);
	CHECK_EQ(byte, pattern_byte(5, 1));
}

SYSTEM_TEST(another_user_may_not_pin)
{
	char *path = make_stamped("f", MIB, 1);
	pid_t pid;

	if (geteuid() != 0)
		skip_test("needs root, to be another user");
	open_file(path, O_RDONLY);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		drop_privilege();
		_exit(pin(path, 0, 0, true) == -EPERM ? 0 : 1);
	}
	expect_exit_0(pid);
	CHECK_EQ(memory().pinned, 0);
}

SYSTEM_TEST(pagecachectl_pins_shows_and_unpins)
{
	char *path = make_stamped("f", 4 * MIB, 1), *other = make_stamped("g", MIB, 1);
	json_object *rows, *row;
	struct output o;

	open_file(path, O_RDONLY);
	open_file(other, O_RDONLY);
	o = RUN(pagecachectl(), "pin", path, "1M+1M");
	CHECK_EQ(o.code, 0);
	CHECK_EQ(RUN(pagecachectl(), "pin", path, "3M-").code, 0);
	CHECK_EQ(RUN(pagecachectl(), "pin", other).code, 0);
	CHECK_EQ(file_state(path).resident, 2 * MIB / PAGE);
	rows = CTL_JSON("--json", "pins", path);
	CHECK_EQ(json_object_array_length(rows), 2);
	for (unsigned i = 0; i < 2; i++) {
		row = json_object_array_get_idx(rows, i);
		CHECK(strcmp(json_string(row, "name"), path) == 0);
		CHECK_EQ(json_int(row, "start"), (1 + 2 * i) * MIB);
		CHECK_EQ(json_int(row, "end"), (2 + 2 * i) * MIB);
	}
	CHECK_EQ(json_object_array_length(CTL_JSON("--json", "pins")), 3);
	o = RUN(pagecachectl(), "pins");
	CHECK(o.code == 0 && strstr(o.out, path) && strstr(o.out, "0x100000"));
	CHECK_EQ(RUN(pagecachectl(), "unpin", path).code, 0);
	rows = CTL_JSON("--json", "pins");
	CHECK_EQ(json_object_array_length(rows), 1);
	CHECK(strcmp(json_string(json_object_array_get_idx(rows, 0), "name"), other) == 0);
	CHECK_EQ(json_int(CTL_JSON("--json", "memory"), "pinned"), MIB / PAGE);
	CHECK_EQ(RUN(pagecachectl(), "pin", path, "nonsense").code, 2);
}

SYSTEM_TEST(a_pin_outlives_the_handle, .memory_max = SMALL_MEMORY, .seconds = 120)
{
	char *path = make_stamped("f", 2 * MIB, 1), *other = make_stamped("other", PRESSURE_SIZE, 2);
	struct pgc_file *f = open_file(path, O_RDONLY);

	CHECK_EQ(pin(path, 0, 0, true), 0);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(file_state(path).handles == 0);
	press(other, 2);
	CHECK_EQ(file_state(path).resident, 2 * MIB / PAGE);
	CHECK_EQ(memory().pinned, 2 * MIB / PAGE);
	CHECK_EQ(pin(path, 0, 0, false), 0);
	CHECK_EQ(memory().pinned, 0);
}

SYSTEM_TEST(dirty_pinned_pages_are_written_and_stay, .memory_max = SMALL_MEMORY, .seconds = 120)
{
	char *path = make_stamped("f", 2 * MIB, 1), *other = make_stamped("other", PRESSURE_SIZE, 2);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	CHECK_EQ(pin(path, 0, 0, true), 0);
	for (uint64_t page = 0; page < 2 * MIB / PAGE; page++)
		store(m + page * PAGE + 100, 3);
	press(other, 2);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 100, 3) && store_has_byte(path, 2 * MIB - PAGE + 100, 3));
	CHECK_EQ(file_state(path).resident, 2 * MIB / PAGE);
}

SYSTEM_TEST(a_truncation_cuts_what_is_pinned, .memory_max = SMALL_MEMORY)
{
	char *path = make_stamped("f", 2 * MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR);

	CHECK_EQ(pin(path, 0, 0, true), 0);
	CHECK_EQ(pgc_ftruncate(f, MIB), 0);
	CHECK_EQ(file_state(path).resident, MIB / PAGE);
	CHECK_EQ(memory().pinned, MIB / PAGE);
	CHECK_EQ(pin(path, 0, 0, false), 0);
	CHECK_EQ(memory().pinned, 0);
}

/* --- locked by clients --- */

SYSTEM_TEST(locked_memory_stays_until_it_is_unlocked, .memory_max = SMALL_MEMORY, .seconds = 120)
{
	char *path = make_stamped("f", 4 * MIB, 1), *other = make_stamped("other", PRESSURE_SIZE, 2);
	uint8_t *m = map(open_file(path, O_RDWR), 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint64_t fills;

	CHECK_EQ(pgc_madvise(m, 4 * MIB, MADV_RANDOM), 0); /* nothing is read beyond what is touched */
	lock_memory(m + MIB, 2 * MIB);
	/* The lock is noticed within a second or so of reclaim; until then its pages may be dropped, so being resident proves nothing yet. */
	for (uint64_t end = now_ms() + 10000; memory().pinned < 2 * MIB / PAGE;) {
		CHECK(now_ms() < end);
		press(other, 2);
	}
	WAIT_UNTIL_MS(resident_in(path, MIB / PAGE, 2 * MIB / PAGE) == 2 * MIB / PAGE, 3000);
	for (int i = 0; i < 3; i++) {
		press(other, 2);
		CHECK_EQ(resident_in(path, MIB / PAGE, 2 * MIB / PAGE), 2 * MIB / PAGE);
	}
	CHECK_EQ(memory().pinned, 2 * MIB / PAGE);
	fills = status().fills;
	for (uint64_t page = MIB / PAGE; page < 3 * MIB / PAGE; page++)
		check_stamp(m, 0, page, 1);
	CHECK_EQ(status().fills, fills);
	unlock_memory(m + MIB, 2 * MIB);
	/* Noticed within a second or so of reclaim. */
	for (uint64_t end = now_ms() + 10000; memory().pinned > 0;) {
		CHECK(now_ms() < end);
		press(other, 2);
	}
	press(other, 2);
	CHECK(resident_in(path, MIB / PAGE, 2 * MIB / PAGE) < 2 * MIB / PAGE);
}

SYSTEM_TEST(more_locked_memory_than_may_be_pinned_is_told_once, .memory_max = SMALL_MEMORY, .seconds = 120, .config = "pin_max = 1M")
{
	char *path = make_stamped("f", 4 * MIB, 1), *other = make_stamped("other", PRESSURE_SIZE, 2);
	uint8_t *m = map(open_file(path, O_RDWR), 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	const char *line = "more is locked in memory than may be pinned";

	lock_memory(m, 4 * MIB);
	for (uint64_t end = now_ms() + 10000; !strstr(daemon_log(), line);) {
		CHECK(now_ms() < end);
		press(other, 2);
	}
	/* More looks, a second apart, say nothing more. */
	for (uint64_t end = now_ms() + 2500; now_ms() < end;)
		press(other, 2);
	CHECK_EQ(count_words(daemon_log(), line), 1);
	CHECK_EQ(memory().pinned, 0);
	scan(m, 4 * MIB, 1);
	unlock_memory(m, 4 * MIB);
}

SYSTEM_TEST(a_locker_that_ends_holds_nothing, .memory_max = SMALL_MEMORY, .seconds = 120)
{
	char *path = make_stamped("f", 4 * MIB, 1), *other = make_stamped("other", PRESSURE_SIZE, 2);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	lock_memory(m, 2 * MIB);
	for (uint64_t end = now_ms() + 10000; memory().pinned != 2 * MIB / PAGE;) {
		CHECK(now_ms() < end);
		press(other, 2);
	}
	CHECK_EQ(pgc_munmap(m, 2 * MIB), 0);
	CHECK_EQ(pgc_close(f), 0);
	for (uint64_t end = now_ms() + 10000; memory().pinned > 0;) {
		CHECK(now_ms() < end);
		press(other, 2);
	}
	press(other, 2);
	CHECK(file_state(path).resident < 2 * MIB / PAGE);
}

SYSTEM_TESTS_MAIN("limits",
	cmocka_unit_test(a_user_at_its_limit_gives_up_its_own_pages),
	cmocka_unit_test(a_user_at_its_limit_may_store),
	cmocka_unit_test(for_a_user_at_its_limit_nothing_is_read_around_what_it_touches),
	cmocka_unit_test(a_cgroup_at_its_limit_gives_up_its_own_pages),
	cmocka_unit_test(a_limit_that_is_taken_away_holds_no_more),
	cmocka_unit_test(a_pinned_range_is_read_in_and_stays),
	cmocka_unit_test(half_of_a_pin_is_let_go),
	cmocka_unit_test(a_pin_larger_than_pin_max_changes_nothing),
	cmocka_unit_test(a_pin_of_a_file_that_is_not_open_is_refused),
	cmocka_unit_test(pagecachectl_pin_opens_the_file_itself),
	cmocka_unit_test(a_pin_past_the_end_of_file_is_refused),
	cmocka_unit_test(a_pin_whose_page_cannot_be_read_pins_nothing),
	cmocka_unit_test(another_user_may_not_pin),
	cmocka_unit_test(pagecachectl_pins_shows_and_unpins),
	cmocka_unit_test(a_pin_outlives_the_handle),
	cmocka_unit_test(dirty_pinned_pages_are_written_and_stay),
	cmocka_unit_test(a_truncation_cuts_what_is_pinned),
	cmocka_unit_test(locked_memory_stays_until_it_is_unlocked),
	cmocka_unit_test(more_locked_memory_than_may_be_pinned_is_told_once),
	cmocka_unit_test(a_locker_that_ends_holds_nothing))
