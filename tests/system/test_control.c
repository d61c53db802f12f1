/* SPDX-License-Identifier: Apache-2.0 */
/* Settings that change while the daemon runs, by pagecachectl and by SIGHUP; whose the memory is; files read in on request. */
#include "harness.h"

static void expect_text(const struct output *o, const char *text, const char *word)
{
	if (!strstr(text, word))
		FAIL("no \"%s\" in what it says (exit code %d):\n%s%s", word, o->code, o->out, o->err);
}

static struct pgc_ctl_memory_reply memory(void)
{
	struct pgc_msg m = {.type = PGC_CTL_MEMORY};

	control_request(&m);
	CHECK_EQ(m.status, 0);
	return m.ctl_memory_reply;
}

static int set(const char *key, const char *value)
{
	struct output o = RUN(pagecachectl(), "set", "--", key, value);
	int code = o.code;

	output_free(&o);
	return code;
}

static void write_config(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* --- set --- */

SYSTEM_TEST(set_of_memory_max_holds_at_once)
{
	CHECK_EQ(set("memory_max", "64M"), 0);
	CHECK_EQ(status().memory_max, 64 << 20);
	CHECK_EQ(memory().memory_max, 64 << 20);
	CHECK_EQ(memory().memory_limit, 64 << 20);
	CHECK(strstr(daemon_log(), "memory_max is 64M now"));
}

SYSTEM_TEST(shares_follow_memory_max)
{
	CHECK_EQ(memory().dirty_max, (1 << 30) / PAGE / 5);
	CHECK_EQ(set("memory_max", "100M"), 0);
	CHECK_EQ(memory().dirty_background, (10 << 20) / PAGE);
	CHECK_EQ(memory().dirty_max, (20 << 20) / PAGE);
	CHECK_EQ(set("dirty_max", "50M"), 0);
	CHECK_EQ(memory().dirty_max, (50 << 20) / PAGE);
}

SYSTEM_TEST(lowered_memory_max_is_kept_to, .memory_max = "64M", .seconds = 120)
{
	size_t size = 40ul << 20;
	char *big = make_file("big", size, 1), *other = make_file("other", BLOCK, 2);
	uint8_t *m = map(open_file(big, O_RDWR), size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	PATTERN_CHECK(m, size, 0, 1);
	CHECK(status().memory_used > 8ul << 20);
	CHECK_EQ(set("memory_max", "8M"), 0);
	/* Whoever needs a page next finds room, and by then the rest has gone. */
	PATTERN_CHECK(map(open_file(other, O_RDWR), BLOCK, PROT_READ, MAP_SHARED, 0), BLOCK, 0, 2);
	CHECK(status().memory_used <= 8ul << 20);
	PATTERN_CHECK(m, size, 0, 1);
}

SYSTEM_TEST(set_takes_dashes_as_flags_do)
{
	CHECK_EQ(set("dirty-max", "30%"), 0);
	CHECK_EQ(memory().dirty_max, memory().memory_max / 100 * 30 / PAGE);
}

SYSTEM_TEST(bad_sets_say_what_is_allowed_and_change_nothing)
{
	static const struct {
		const char *key, *value, *word;
	} bad[] = {
		{"memory_max", "lots", "allowed: bytes"},
		{"memory_max", "1000000T", "out of range"},
		{"memory_max", "0", "out of range"},
		{"memory_max", "-1", "not valid"},
		{"memory_max", "", "empty"},
		{"memory_min", "2G", "more than memory_max"},
		{"dirty_background", "90%", "more than dirty_max"},
		{"pin_max", "100%", "out of range"},
		{"dirty_expire", "never", "allowed: seconds"},
		{"retain", "forever", "allowed: lru or mapped"},
		{"log_level", "loud", "allowed: error"},
		{"workers", "3", "needs a restart"},
		{"frobnicate", "3", "unknown"},
		{"", "3", "unknown"},
	};
	struct pgc_ctl_memory_reply before = memory(), after;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct output o = RUN(pagecachectl(), "set", "--", bad[i].key, bad[i].value);

		CHECK_EQ(o.code, 1);
		CHECK_EQ(o.out[0], 0);
		expect_text(&o, o.err, bad[i].word);
		output_free(&o);
	}
	after = memory();
	CHECK(memcmp(&before, &after, sizeof(before)) == 0);
}

SYSTEM_TEST(set_without_its_arguments_is_wrong_usage)
{
	static char long_value[300];
	struct output o = RUN(pagecachectl(), "set", "memory_max");

	CHECK_EQ(o.code, 2);
	expect_text(&o, o.err, "KEY VALUE");
	CHECK_EQ(set("memory_max", memset(long_value, '1', sizeof(long_value) - 1)), 2);
	o = RUN(pagecachectl(), "set", "memory_max", "1G", "2G");
	CHECK_EQ(o.code, 2);
}

static void another_user(struct peer *p, void *arg)
{
	struct output o;

	CHECK(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
	o = RUN(pagecachectl(), "set", "memory_max", "64M");
	CHECK_EQ(o.code, 1);
	expect_text(&o, o.err, strerror(EPERM));
	o = RUN(pagecachectl(), "memory");
	CHECK_EQ(o.code, 0);
}

SYSTEM_TEST(another_user_may_look_but_not_set)
{
	if (geteuid() != 0)
		skip_test("needs root, to be another user");
	CHECK(chmod(env.dir, 0755) == 0);
	peer_join(peer_start(another_user, NULL));
	CHECK_EQ(status().memory_max, 1 << 30);
}

/* --- SIGHUP --- */

static unsigned count(const char *text, const char *word)
{
	unsigned n = 0;

	for (; (text = strstr(text, word)); text++)
		n++;
	return n;
}

/* Sends it and waits until the log has another line with `word`; returns the log. */
static char *reload(const char *word)
{
	unsigned before = count(daemon_log(), word);

	CHECK(kill(env.daemon, SIGHUP) == 0);
	WAIT_UNTIL(count(daemon_log(), word) > before);
	return daemon_log();
}

SYSTEM_TEST(sighup_takes_settings_and_rules_over, .tracking = "async")
{
	char *log;

	write_config(env.config, "[daemon]\ntest_stores = yes\ndirty_background = 5%\ndirty_max = 6%\n[limit uid=1000]\nmemory_max = 64M\n"
		     "[file /no/such/file/*]\nretain = mapped\n[store mem]\nreadahead_max = 0\n");
	log = reload("configuration read again and taken over");
	CHECK(!strstr(log, "restart"));
	CHECK_EQ(memory().dirty_background, (1 << 30) / 100 * 5 / PAGE);
	CHECK_EQ(memory().dirty_max, (1 << 30) / 100 * 6 / PAGE);
}

SYSTEM_TEST(sighup_takes_back_what_was_set)
{
	CHECK_EQ(set("memory_max", "64M"), 0);
	reload("configuration read again and taken over");
	CHECK_EQ(status().memory_max, 1 << 30);
}

SYSTEM_TEST(sighup_names_what_needs_a_restart, .tracking = "async")
{
	write_config(env.config, "[daemon]\nmax_handles = 7\npolicy = fifo\n");
	CHECK(strstr(reload("configuration read again"), "a restart is needed for: policy, max_handles, test_stores"));
	CHECK(strcmp(memory().policy, "adaptive") == 0);
}

SYSTEM_TEST(sighup_with_a_broken_file_changes_nothing)
{
	static const char *const broken[] = {
		"[daemon]\ndirty_max = 60%\nworkers = many\n", "[daemon]\ndirty_max = 60%\nfrobnicate = 1\n", "[deamon]\n",
		"[limit uid=no-such-user-here]\nmemory_max = 1G\n", "[limit cgroup=x]\nmemory_max = 1G\n", "[limit uid=1]\n",
		"[file ]\nretain = lru\n", "[daemon]\ndirty_background = 50%\n",
	};
	struct pgc_ctl_memory_reply before = memory(), after;
	char where[256];

	snprintf(where, sizeof(where), "configuration not taken over: pagecached: %s:", env.config);
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		write_config(env.config, broken[i]);
		reload(where);
	}
	after = memory();
	CHECK(memcmp(&before, &after, sizeof(before)) == 0);
	CHECK(unlink(env.config) == 0);
	reload(where + strlen("configuration "));
	CHECK_EQ(status().pid, env.daemon);
	write_config(env.config, "[daemon]\n");
}

SYSTEM_TEST(sighup_serves_clients_on)
{
	char *path = make_file("f", 100 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 100 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	PATTERN_CHECK(m, 50 * PAGE, 0, 1);
	store(m, 7);
	reload("configuration read again and taken over");
	CHECK_EQ(load(m), 7);
	PATTERN_CHECK(m + 50 * PAGE, 50 * PAGE, 50 * PAGE, 1);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 0, 7));
}

/* --- what it tells --- */

SYSTEM_TEST(cgroups_show_whose_the_pages_are)
{
	char *path = make_file("f", 10 * PAGE, 1);
	uint8_t *m = map(open_file(path, O_RDWR), 10 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	json_object *rows, *row, *v;
	struct output o;

	PATTERN_CHECK(m, 10 * PAGE, 0, 1);
	store(m, 1);
	rows = CTL_JSON("--json", "cgroups");
	CHECK_EQ(json_object_array_length(rows), 1);
	row = json_object_array_get_idx(rows, 0);
	CHECK_EQ(json_int(row, "mapped"), 10);
	CHECK_EQ(json_int(row, "resident"), 10);
	CHECK_EQ(json_int(row, "dirty"), 1);
	CHECK_EQ(json_int(row, "handles"), 1);
	CHECK_EQ(json_int(row, "limit"), 0);
	/* The path is found from the number alone. */
	o = RUN(pagecachectl(), "cgroups");
	CHECK_EQ(o.code, 0);
	expect_text(&o, o.out, "RESIDENT");
	if (json_object_object_get_ex(row, "path", &v)) {
		CHECK(strstr(read_whole("/proc/self/cgroup"), json_object_get_string(v)));
		expect_text(&o, o.out, json_object_get_string(v));
	} else {
		json_object_object_get_ex(row, "cgroup", &v);
		CHECK(json_object_get_uint64(v) == UINT64_MAX);
		expect_text(&o, o.out, "other");
	}
}

SYSTEM_TEST(memory_tells_limits_and_policy, .config = "policy = lru\ndirty_background = 1M\ndirty_max = 2M")
{
	json_object *j = CTL_JSON("--json", "memory");
	struct output o = RUN(pagecachectl(), "memory");

	CHECK_EQ(json_int(j, "memory_max"), 1 << 30);
	CHECK_EQ(json_int(j, "memory_limit"), 1 << 30);
	CHECK_EQ(json_int(j, "dirty_background"), (1 << 20) / PAGE);
	CHECK_EQ(json_int(j, "dirty_max"), (2 << 20) / PAGE);
	CHECK(strcmp(json_string(j, "policy"), "lru") == 0);
	CHECK_EQ(o.code, 0);
	expect_text(&o, o.out, "lru");
	expect_text(&o, o.out, "writers wait at 2M");
}

SYSTEM_TEST(status_tells_dirty_age_and_write_out_rate)
{
	char *path = make_file("f", 256 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 256 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct output o;

	for (unsigned i = 0; i < 256; i++)
		store(m + i * PAGE, 1);
	WAIT_UNTIL(status().oldest_dirty_ms >= 20);
	CHECK_EQ(status().writeout_rate, 0);
	CHECK_EQ(status().dirty, 256);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(status().dirty, 0);
	/* A mebibyte over five seconds and a part of one. */
	CHECK(status().writeout_rate >= (1 << 20) / 8 && status().writeout_rate <= (1 << 20) / 5);
	o = RUN(pagecachectl(), "status");
	expect_text(&o, o.out, "write-out rate");
	CHECK(json_int(CTL_JSON("--json", "status"), "memory_limit") == 1 << 30);
}

/* --- warm --- */

SYSTEM_TEST(warm_reads_whole_files_in)
{
	size_t size = (20ul << 20) + 100;
	char *a = make_file("a", size, 1), *b = make_file("b", 3 * PAGE, 2), *empty = make_file("empty", 0, 1);
	struct output o = RUN(pagecachectl(), "warm", a, b, empty);
	uint64_t fills;

	CHECK_EQ(o.code, 0);
	expect_text(&o, o.out, a);
	expect_text(&o, o.out, b);
	CHECK_EQ(file_state(a).resident, (size + PAGE - 1) / PAGE);
	CHECK_EQ(file_state(b).resident, 3);
	fills = status().fills;
	PATTERN_CHECK(map(open_file(a, O_RDWR), size, PROT_READ, MAP_SHARED, 0), size, 0, 1);
	PATTERN_CHECK(map(open_file(b, O_RDWR), 3 * PAGE, PROT_READ, MAP_SHARED, 0), 3 * PAGE, 0, 2);
	CHECK_EQ(status().fills, fills);
}

SYSTEM_TEST(warm_in_json_tells_each_file_once)
{
	char *a = make_file("a", 5000, 1), *b = make_file("b", 6000, 2);
	json_object *j = CTL_JSON("--json", "warm", a, b);

	CHECK_EQ(json_object_array_length(j), 2);
	CHECK(strcmp(json_string(json_object_array_get_idx(j, 0), "name"), a) == 0);
	CHECK_EQ(json_int(json_object_array_get_idx(j, 0), "bytes"), 5000);
	CHECK_EQ(json_int(json_object_array_get_idx(j, 1), "bytes"), 6000);
}

SYSTEM_TEST(warm_of_more_than_the_memory_says_so_and_reads_nothing, .memory_max = "16M")
{
	char *a = make_file("a", 10ul << 20, 1), *b = make_file("b", 12ul << 20, 1), *c = make_file("c", 17ul << 20, 1);
	struct output o = RUN(pagecachectl(), "warm", c);

	CHECK_EQ(o.code, 1);
	expect_text(&o, o.err, c);
	expect_text(&o, o.err, "17M do not fit");
	CHECK_EQ(status().resident, 0);
	/* Together they are too much: the first is read. */
	o = RUN(pagecachectl(), "warm", a, b);
	CHECK_EQ(o.code, 1);
	expect_text(&o, o.err, b);
	expect_text(&o, o.err, "beside 10M");
	CHECK_EQ(file_state(a).resident, (10 << 20) / PAGE);
	CHECK_EQ(file_state(b).resident, 0);
}

SYSTEM_TEST(warm_on_a_pipe_tells_how_far_it_is)
{
	size_t size = 64ul << 20;
	struct output o;

	open_mem("mem:slow", size, 1);
	inject("mem:slow", PGC_INJECT_READ_DELAY, 1200000, 0);
	inject("mem:slow", PGC_INJECT_READ_SHORT, 1 << 20, 0);
	o = RUN(pagecachectl(), "warm", "mem:slow");
	CHECK_EQ(o.code, 0);
	expect_text(&o, o.out, " of 64M, ");
	expect_text(&o, o.out, "mem:slow: 64M in ");
	CHECK_EQ(file_state("mem:slow").resident, size / PAGE);
}

SYSTEM_TEST(warm_of_what_cannot_be_read_fails)
{
	char *missing = file_path("missing");
	struct output o = RUN(pagecachectl(), "warm", missing);

	CHECK_EQ(o.code, 1);
	expect_text(&o, o.err, missing);
	expect_text(&o, o.err, strerror(ENOENT));
	o = RUN(pagecachectl(), "warm", env.dir);
	CHECK_EQ(o.code, 1);
	expect_text(&o, o.err, strerror(EISDIR));
	open_mem("mem:bad", 20ul << 20, 1);
	inject("mem:bad", PGC_INJECT_READ_ERROR, EIO, 0);
	o = RUN(pagecachectl(), "warm", "mem:bad");
	CHECK_EQ(o.code, 1);
	expect_text(&o, o.err, "mem:bad");
	o = RUN(pagecachectl(), "warm");
	CHECK_EQ(o.code, 2);
	daemon_stop();
	o = RUN(pagecachectl(), "warm", missing);
	CHECK_EQ(o.code, 3);
	daemon_start();
}

/* --- pins: what is wrong already on the command line --- */

SYSTEM_TEST(ranges_that_are_none_are_wrong_usage)
{
	static const char *const bad[] = {"", "x", "1M-1M", "2M-1M", "1M+0", "-1M", "1M..2M", "1M-2M-3M", "1.5M", "0x10", "1M ", "99999999999999999999"};
	char *path = make_file("f", PAGE, 1);

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct output o = RUN(pagecachectl(), "pin", "--", path, bad[i]);

		CHECK_EQ(o.code, 2);
		expect_text(&o, o.err, bad[i]);
		o = RUN(pagecachectl(), "unpin", "--", path, bad[i]);
		CHECK_EQ(o.code, 2);
	}
	CHECK_EQ(count_files(), 0);
}

SYSTEM_TESTS_MAIN("control",
	cmocka_unit_test(set_of_memory_max_holds_at_once),
	cmocka_unit_test(shares_follow_memory_max),
	cmocka_unit_test(lowered_memory_max_is_kept_to),
	cmocka_unit_test(set_takes_dashes_as_flags_do),
	cmocka_unit_test(bad_sets_say_what_is_allowed_and_change_nothing),
	cmocka_unit_test(set_without_its_arguments_is_wrong_usage),
	cmocka_unit_test(another_user_may_look_but_not_set),
	cmocka_unit_test(sighup_takes_settings_and_rules_over),
	cmocka_unit_test(sighup_takes_back_what_was_set),
	cmocka_unit_test(sighup_names_what_needs_a_restart),
	cmocka_unit_test(sighup_with_a_broken_file_changes_nothing),
	cmocka_unit_test(sighup_serves_clients_on),
	cmocka_unit_test(cgroups_show_whose_the_pages_are),
	cmocka_unit_test(memory_tells_limits_and_policy),
	cmocka_unit_test(status_tells_dirty_age_and_write_out_rate),
	cmocka_unit_test(warm_reads_whole_files_in),
	cmocka_unit_test(warm_in_json_tells_each_file_once),
	cmocka_unit_test(warm_of_more_than_the_memory_says_so_and_reads_nothing),
	cmocka_unit_test(warm_on_a_pipe_tells_how_far_it_is),
	cmocka_unit_test(warm_of_what_cannot_be_read_fails),
	cmocka_unit_test(ranges_that_are_none_are_wrong_usage))
