/* SPDX-License-Identifier: Apache-2.0 */
/* The programs as one runs them: flags, configuration, start and stop, pagecachectl; and what the daemon must bear. */
#include "harness.h"

#include <sys/resource.h>
#include <sys/socket.h>

/* --- flags and configuration --- */

static const char *pagecached_bin(void)
{
	const char *bin = getenv("PAGECACHED_BIN");

	CHECK(bin);
	return bin;
}

static void expect_text(const struct output *o, const char *text, const char *word)
{
	if (!strstr(text, word))
		FAIL("no \"%s\" in what it says (exit code %d):\n%s%s", word, o->code, o->out, o->err);
}

SYSTEM_TEST(help_names_every_flag, .no_daemon = true)
{
	static const char *const flags[] = {"--config", "--socket", "--memory-max", "--bpffs", "--state-dir", "--workers", "--log-level"};
	struct output o = RUN(pagecached_bin(), "--help");

	CHECK_EQ(o.code, 0);
	CHECK_EQ(o.err[0], 0);
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		expect_text(&o, o.out, flags[i]);
}

SYSTEM_TEST(version_is_told, .no_daemon = true)
{
	struct output o = RUN(pagecached_bin(), "--version");

	CHECK_EQ(o.code, 0);
	expect_text(&o, o.out, pgc_version());
	o = RUN(pagecachectl(), "--version");
	CHECK_EQ(o.code, 0);
	expect_text(&o, o.out, pgc_version());
}

SYSTEM_TEST(wrong_flags_are_refused, .no_daemon = true)
{
	struct output o = RUN(pagecached_bin(), "--no-such-flag");

	CHECK(o.code > 0);
	expect_text(&o, o.err, "no-such-flag");
	o = RUN(pagecached_bin(), "--workers", "0");
	CHECK(o.code > 0);
	expect_text(&o, o.err, "--workers");
	o = RUN(pagecached_bin(), "--memory-max", "lots");
	CHECK(o.code > 0);
	expect_text(&o, o.err, "--memory-max");
	o = RUN(pagecached_bin(), "--socket", env.socket, "surplus");
	CHECK(o.code > 0);
	expect_text(&o, o.err, "surplus");
}

SYSTEM_TEST(configuration_errors_name_file_and_line, .no_daemon = true)
{
	static const struct {
		const char *text, *where, *what;
	} bad[] = {
		{"[daemon]\nworkers = 1\nworkers = many\n", ":3:", "workers"},
		{"# a comment\n\n[daemon]\nno_such_key = 1\n", ":4:", "no_such_key"},
		{"[daemon]\nmemory_max = 12 parsecs\n", ":2:", "memory_max"},
		{"[daemon]\ndirty_expire = soon\n", ":2:", "dirty_expire"},
		{"[other]\nworkers = 1\n", ":1:", "other"},
		{"[daemon]\nlog_level = shouting\n", ":2:", "log_level"},
		{"[daemon]\nnonsense\n", ":2:", ""},
	};
	char *path = file_path("bad.conf");

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		FILE *f = fopen(path, "we");
		struct output o;
		char where[256];

		CHECK(f && fputs(bad[i].text, f) >= 0 && fclose(f) == 0);
		o = RUN(pagecached_bin(), "--config", path, "--socket", env.socket);
		CHECK(o.code > 0);
		snprintf(where, sizeof(where), "%s%s", path, bad[i].where);
		expect_text(&o, o.err, where);
		expect_text(&o, o.err, bad[i].what);
	}
	{
		struct output o = RUN(pagecached_bin(), "--config", file_path("missing.conf"), "--socket", env.socket);

		CHECK(o.code > 0);
		expect_text(&o, o.err, "missing.conf");
	}
}

SYSTEM_TEST(every_flag_is_a_key_and_a_flag_overrides_it, .no_daemon = true)
{
	char *conf = file_path("c.conf"), *log = file_path("log2");
	char *argv[] = {(char *)pagecached_bin(), "--config", conf, "--memory-max", "96M", NULL};
	FILE *f = fopen(conf, "we");
	int st, fd;
	pid_t pid;

	CHECK(f);
	fprintf(f, "[daemon]\nsocket = %s\nmemory_max = 64M\nbpffs = none\nstate_dir = %s\nworkers = 3\nlog_level = warning\n",
		env.socket, env.state_dir);
	CHECK(fclose(f) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		fd = open(log, O_WRONLY | O_CREAT, 0600);
		dup2(fd, 1);
		dup2(fd, 2);
		execv(argv[0], argv);
		_exit(127);
	}
	WAIT_UNTIL(RUN(pagecachectl(), "status").code == 0);
	CHECK_EQ(status().workers, 3);
	CHECK_EQ(status().memory_max, 96ul << 20);
	CHECK_EQ(status().pid, pid);
	CHECK(kill(pid, SIGTERM) == 0);
	st = wait_child(pid);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 0);
	/* Level warning, and nothing to warn of but what is missing. */
	CHECK(!strstr(read_whole(log), "version"));
}

SYSTEM_TEST(files_of_conf_d_are_read_after_the_file, .no_daemon = true)
{
	char *conf = file_path("pagecached.conf"), *dir = file_path("pagecached.conf.d"), path[256];
	const struct {
		const char *name, *text;
	} part[] = {{"20-b.conf", "[daemon]\nworkers = 2\n"}, {"10-a.conf", "[daemon]\nworkers = 4\nmemory_max = 77M\n"}, {"30-c.txt", "nonsense\n"}};
	FILE *f = fopen(conf, "we");
	pid_t pid;

	CHECK(f && fprintf(f, "[daemon]\nworkers = 1\nbpffs = none\nmemory_max = 50M\n") > 0 && fclose(f) == 0);
	CHECK(mkdir(dir, 0700) == 0);
	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, part[i].name);
		f = fopen(path, "we");
		CHECK(f && fputs(part[i].text, f) >= 0 && fclose(f) == 0);
	}
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		execl(pagecached_bin(), pagecached_bin(), "--config", conf, "--socket", env.socket, "--state-dir", env.state_dir, NULL);
		_exit(127);
	}
	WAIT_UNTIL(RUN(pagecachectl(), "status").code == 0);
	CHECK_EQ(status().workers, 2);
	CHECK_EQ(status().memory_max, 77ul << 20);
	CHECK(kill(pid, SIGTERM) == 0);
	expect_exit_0(pid);
}

/* --- start and stop --- */

SYSTEM_TEST(second_daemon_on_the_socket_refuses_and_the_first_goes_on)
{
	char *path = make_file("f", PAGE, 1), *log = file_path("second.log"), *text;
	int st = wait_child(daemon_spawn(log, NULL));

	CHECK(WIFEXITED(st) && WEXITSTATUS(st) != 0);
	text = read_whole(log);
	if (!strstr(text, env.socket))
		FAIL("it does not say which socket: %s", text);
	CHECK_EQ(status().pid, env.daemon);
	PATTERN_CHECK(map(open_file(path, O_RDWR), PAGE, PROT_READ, MAP_SHARED, 0), PAGE, 0, 1);
}

SYSTEM_TEST(sigterm_ends_it_with_0_and_removes_the_socket)
{
	daemon_stop();
	CHECK(access(env.socket, F_OK) != 0 && errno == ENOENT);
	daemon_start();
	CHECK_EQ(status().files, 0);
	CHECK_EQ(status().pid, env.daemon);
}

SYSTEM_TEST(socket_of_a_killed_daemon_is_taken_over)
{
	CHECK(kill(env.daemon, SIGKILL) == 0);
	wait_child(env.daemon);
	CHECK(access(env.socket, F_OK) == 0);
	daemon_start();
	CHECK_EQ(status().pid, env.daemon);
}

/* Touches page `page` and ends with 1 if the load came back, whatever it saw. Ended by SIGALRM when it waits. */
static void touch_and_wait(const uint8_t *p, size_t page)
{
	alarm(2);
	(void)load(p + page * PAGE);
	_exit(1);
}

SYSTEM_TEST(faults_of_a_client_wait_when_the_daemon_is_killed)
{
	char *path = make_file("f", 512 * PAGE, 1);
	pid_t client = fork();
	int status;

	if (client == 0) {
		struct pgc_file *f = open_file(path, O_RDWR);
		uint8_t *p = map(f, 512 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

		store(p, 0);
		CHECK(kill(env.daemon, SIGKILL) == 0);
		touch_and_wait(p, 400);
	}
	wait_child(env.daemon);
	status = wait_child(client);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
	env.daemon = 0;
	unlink(env.socket);
}

/* The only child of the daemon. */
static pid_t twin_of(pid_t daemon)
{
	char path[64], line[64] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", daemon, daemon);
	f = fopen(path, "r");
	CHECK(f && fgets(line, sizeof(line), f));
	fclose(f);
	return (pid_t)atoi(line);
}

/* A forked child's userfaultfd comes to the daemon alone: its twin is who holds it then. */
SYSTEM_TEST(faults_of_a_forked_child_wait_when_the_daemon_is_killed)
{
	char *path = make_file("f", 512 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *p = map(f, 512 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	volatile uint8_t *go = shared_memory(PAGE);
	pid_t child, twin = twin_of(env.daemon);
	int status;

	CHECK_EQ(pgc_madvise(p, 512 * PAGE, MADV_RANDOM), 0); /* what is touched later must not be there by readahead */
	store(p, 0);
	child = fork();
	if (child == 0) {
		WAIT_UNTIL(*go);
		touch_and_wait(p, 400);
	}
	/* fork(2) returns when the daemon has read of it. It may have come no further. */
	CHECK(kill(env.daemon, SIGKILL) == 0);
	wait_child(env.daemon);
	env.daemon = 0;
	*go = 1;
	status = wait_child(child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
	/* With nobody left to hold anything for, it goes. */
	WAIT_UNTIL(kill(twin, 0) < 0);
	unlink(env.socket);
	_exit(0); /* unmapping would wait for the daemon, too */
}

SYSTEM_TEST(client_without_a_daemon_gets_an_error, .no_daemon = true)
{
	struct pgc_file *f;
	int r = pgc_open(&f, make_file("f", PAGE, 1), O_RDWR, 0);

	CHECK(r == -ENOENT || r == -ECONNREFUSED);
}

SYSTEM_TEST(garbage_ends_that_connection_only)
{
	char *path = make_file("f", PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	int fd = control_connect();
	char b[PGC_MSG_SIZE];
	char *log;

	memset(b, 0xff, sizeof(b));
	CHECK_EQ(send(fd, b, sizeof(b), MSG_NOSIGNAL), sizeof(b));
	CHECK(recv(fd, b, sizeof(b), 0) <= 0);
	close(fd);
	PATTERN_CHECK(map(f, PAGE, PROT_READ, MAP_SHARED, 0), PAGE, 0, 1);
	log = daemon_log();
	CHECK(strstr(log, "pagecached: "));
}

/* --- what it must bear --- */

/* Private memory, which is the daemon's own: pages of the cached file are counted elsewhere. */
static long rss_kib(const char *what)
{
	char path[64], *text, *at;
	long v;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)env.daemon);
	text = read_whole(path);
	at = strstr(text, what);
	CHECK(at);
	v = atol(at + strlen(what));
	free(text);
	return v;
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

SYSTEM_TEST(sparse_file_of_1_tib_is_mapped_in_under_50_ms)
{
	uint64_t best = UINT64_MAX;
	char *path = make_file("huge", 0, 1);
	long before, after;
	uint8_t *m = NULL;
	struct pgc_file *f;

	if (truncate(path, 1l << 40) != 0)
		FAIL("this file system cannot hold a sparse file of 1 TiB: %s", strerror(errno));
	f = open_file(make_file("small", PAGE, 1), O_RDWR);
	CHECK_EQ(load(map(f, PAGE, PROT_READ, MAP_SHARED, 0)), pattern_byte(0, 1));
	CHECK_EQ(pgc_close(f), 0);
	before = rss_kib("VmRSS:");
	for (unsigned i = 0; i < 5; i++) {
		uint64_t begin = now_us(), took;

		f = open_file(path, O_RDWR);
		m = map(f, 1ul << 40, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
		took = now_us() - begin;
		best = took < best ? took : best;
		if (i < 4) {
			CHECK_EQ(pgc_munmap(m, 1ul << 40), 0);
			CHECK_EQ(pgc_close(f), 0);
		}
	}
	after = rss_kib("VmRSS:");
	if (best >= 50000)
		FAIL("it took %" PRIu64 " us", best);
	if (after - before >= 1024)
		FAIL("the daemon grew by %ld KiB", after - before);
	/* Touched at both ends and in the middle it is a file like any other. */
	CHECK_EQ(load(m + (1ul << 40) - 1), 0);
	store(m + (1ul << 39), 7);
	CHECK_EQ(load(m), 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 1l << 39, 7));
	CHECK_EQ(pgc_munmap(m, 1ul << 40), 0);
}

SYSTEM_TEST(thousand_open_files_are_served, .seconds = 120)
{
	struct rlimit many;
	static struct pgc_file *f[1000];
	uint8_t v;

	CHECK(getrlimit(RLIMIT_NOFILE, &many) == 0);
	many.rlim_cur = many.rlim_max;
	CHECK(setrlimit(RLIMIT_NOFILE, &many) == 0);
	if (many.rlim_cur < 10000)
		skip_test("the limit of open files is below 10,000");
	for (unsigned i = 0; i < 1000; i++) {
		char name[32];

		snprintf(name, sizeof(name), "f%u", i);
		v = (uint8_t)(i * 7 + 1);
		store_write(file_path(name), &v, 1, 0);
		f[i] = open_file(file_path(name), O_RDWR);
	}
	CHECK_EQ(status().files, 1000);
	CHECK_EQ(status().handles, 1000);
	for (unsigned i = 0; i < 1000; i++) {
		uint8_t *m = map(f[i], PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

		CHECK_EQ(load(m), (uint8_t)(i * 7 + 1));
		store(m, (uint8_t)(i * 3));
	}
	CHECK_EQ(status().mappings, 1000);
	CHECK_EQ(sync_all(), 0);
	for (unsigned i = 0; i < 1000; i += 37) {
		char name[32];

		snprintf(name, sizeof(name), "f%u", i);
		CHECK(store_has_byte(file_path(name), 0, (uint8_t)(i * 3)));
	}
	for (unsigned i = 0; i < 1000; i++)
		CHECK_EQ(pgc_close(f[i]), 0);
}

static void client_peer(struct peer *p, void *path)
{
	unsigned number = (unsigned)peer_hear(p);
	uint8_t *m = map(open_file(path, O_RDWR), 200 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	CHECK_EQ(load(m + number * PAGE + 9), pattern_byte(number * PAGE + 9, 1));
	store(m + number * PAGE, (uint8_t)number);
	peer_tell(p, 1);
	peer_hear(p);
	/* All others have stored theirs. */
	for (unsigned i = 0; i < 200; i++)
		CHECK_EQ(load(m + i * PAGE), (uint8_t)i);
	peer_tell(p, 2);
	peer_hear(p);
}

SYSTEM_TEST(two_hundred_client_processes_are_served, .seconds = 120)
{
	char *path = make_file("f", 200 * PAGE, 1);
	static struct peer *p[200];

	for (unsigned i = 0; i < 200; i++)
		p[i] = peer_start(client_peer, path);
	for (unsigned i = 0; i < 200; i++)
		peer_tell(p[i], i);
	for (unsigned i = 0; i < 200; i++)
		CHECK_EQ(peer_hear(p[i]), 1);
	CHECK_EQ(file_state(path).handles, 200);
	CHECK_EQ(file_state(path).mappings, 200);
	for (unsigned i = 0; i < 200; i++)
		peer_tell(p[i], 0);
	for (unsigned i = 0; i < 200; i++)
		CHECK_EQ(peer_hear(p[i]), 2);
	CHECK_EQ(sync_all(), 0);
	for (unsigned i = 0; i < 200; i++)
		CHECK(store_has_byte(path, (off_t)(i * PAGE), (uint8_t)i));
	for (unsigned i = 0; i < 200; i++)
		peer_tell(p[i], 0);
	for (unsigned i = 0; i < 200; i++)
		peer_join(p[i]);
	WAIT_UNTIL(file_state(path).handles == 0);
}

SYSTEM_TEST(two_thousand_mappings_of_one_file_are_served, .seconds = 120)
{
	char *path = make_file("f", 300 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	static uint8_t *m[2000];

	for (unsigned i = 0; i < 2000; i++)
		m[i] = map(f, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, (off_t)((i % 299) * PAGE));
	CHECK_EQ(file_state(path).mappings, 2000);
	for (unsigned i = 0; i < 2000; i++)
		CHECK_EQ(load(m[i] + 5), pattern_byte((i % 299) * PAGE + 5, 1));
	store(m[100], 77);
	for (unsigned i = 100; i < 2000; i += 299)
		CHECK_EQ(load(m[i]), 77);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 100 * PAGE, 77));
	/* Protected in all of them. */
	for (unsigned i = 100; i < 2000; i += 299) {
		store(m[i], (uint8_t)i);
		CHECK_EQ(pgc_fsync(f), 0);
		CHECK(store_has_byte(path, 100 * PAGE, (uint8_t)i));
	}
	for (unsigned i = 0; i < 2000; i++)
		CHECK_EQ(pgc_munmap(m[i], 2 * PAGE), 0);
	WAIT_UNTIL(file_state(path).mappings == 0);
}

/* Ticks of processor time and voluntary switches of all threads. */
static void activity(uint64_t *ret_ticks, uint64_t *ret_switches)
{
	char path[96], *text, *at;
	unsigned long user, sys;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)env.daemon);
	text = read_whole(path);
	at = strrchr(text, ')');
	CHECK(at && sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys) == 2);
	*ret_ticks = user + sys;
	free(text);
	{
		struct output o;
		char script[160];

		snprintf(script, sizeof(script), "cat /proc/%d/task/*/status | awk '/^voluntary_ctxt/ {n += $2} END {print n}'", (int)env.daemon);
		o = RUN("sh", "-c", script);
		CHECK_EQ(o.code, 0);
		*ret_switches = strtoull(o.out, NULL, 10);
		output_free(&o);
	}
}

SYSTEM_TEST(idle_daemon_uses_no_processor)
{
	char *path = make_file("f", 100 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 100 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint64_t ticks[2], switches[2], best_ticks = UINT64_MAX, best_switches = UINT64_MAX;

	/* Clients are there, files are open, pages are clean and dirty: nobody asks for anything. */
	PATTERN_CHECK(m, 100 * PAGE, 0, 1);
	store(m, 0);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t end = now_ms() + 2000;

		activity(&ticks[0], &switches[0]);
		while (now_ms() < end)
			nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
		activity(&ticks[1], &switches[1]);
		if (ticks[1] - ticks[0] < best_ticks)
			best_ticks = ticks[1] - ticks[0];
		if (switches[1] - switches[0] < best_switches)
			best_switches = switches[1] - switches[0];
		if (best_ticks == 0 && best_switches <= 4)
			break;
	}
	CHECK_EQ(best_ticks, 0);
	CHECK(best_switches <= 4);
}

SYSTEM_TEST(memory_stays_within_the_budget, .memory_max = "8M", .seconds = 120)
{
	size_t size = 40ul << 20;
	char *path = make_file("big", size, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (size_t at = 0; at < size; at += PAGE) {
		CHECK_EQ(load(m + at + 1), pattern_byte(at + 1, 1));
		if (at % (4 * BLOCK) == 0)
			CHECK(status().memory_used <= 8ul << 20);
	}
	for (size_t at = 0; at < size; at += 16 * PAGE) {
		store(m + at, (uint8_t)(at >> 16));
		if (at % (4 * BLOCK) == 0)
			CHECK(status().memory_used <= 8ul << 20);
	}
	CHECK_EQ(pgc_fsync(f), 0);
	for (size_t at = 0; at < size; at += 16 * PAGE)
		CHECK(store_has_byte(path, (off_t)at, (uint8_t)(at >> 16)));
}

/* --- pagecachectl --- */

SYSTEM_TEST(pagecachectl_status_tells_what_is_so)
{
	char *path = make_file("f", 10 * PAGE, 1);
	uint8_t *m = map(open_file(path, O_RDWR), 10 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	json_object *j;
	struct output o;

	PATTERN_CHECK(m, 10 * PAGE, 0, 1);
	store(m + 5 * PAGE, 0);
	j = CTL_JSON("--json", "status");
	CHECK_EQ(json_int(j, "pid"), env.daemon);
	CHECK_EQ(json_int(j, "workers"), 2);
	CHECK_EQ(json_int(j, "memory_max"), 1 << 30);
	CHECK_EQ(json_int(j, "files"), 1);
	CHECK_EQ(json_int(j, "handles"), 1);
	CHECK_EQ(json_int(j, "mappings"), 1);
	CHECK_EQ(json_int(j, "clients"), 1);
	CHECK_EQ(json_int(j, "resident"), 10);
	CHECK(json_int(j, "memory_used") >= 10 * (long)PAGE && json_int(j, "memory_used") <= 1 << 30);
	CHECK_EQ(cached_bytes(), 10 * PAGE);
	CHECK_EQ(json_int(j, "dirty"), 1);
	CHECK(strcmp(json_string(j, "version"), pgc_version()) == 0);
	o = RUN(pagecachectl(), "status");
	CHECK_EQ(o.code, 0);
	expect_text(&o, o.out, "dirty");
	expect_text(&o, o.out, pgc_version());
}

SYSTEM_TEST(pagecachectl_files_and_mappings_list_all_or_one)
{
	char *a = make_file("a", 10 * PAGE, 1), *b = make_file("b", 10 * PAGE, 1);
	json_object *j;
	struct output o;

	map(open_file(a, O_RDWR), 4 * PAGE, PROT_READ, MAP_SHARED, 2 * PAGE);
	map(open_file(b, O_RDONLY), PAGE, PROT_READ, MAP_SHARED, 0);
	j = CTL_JSON("--json", "files");
	CHECK_EQ(json_object_array_length(j), 2);
	j = CTL_JSON("--json", "files", b);
	CHECK_EQ(json_object_array_length(j), 1);
	CHECK(strstr(json_string(json_object_array_get_idx(j, 0), "name"), "/b"));
	CHECK_EQ(json_int(json_object_array_get_idx(j, 0), "writable"), 0);
	j = CTL_JSON("--json", "mappings");
	CHECK_EQ(json_object_array_length(j), 2);
	j = CTL_JSON("--json", "mappings", a);
	CHECK_EQ(json_object_array_length(j), 1);
	CHECK_EQ(json_int(json_object_array_get_idx(j, 0), "start"), 2 * PAGE);
	CHECK_EQ(json_int(json_object_array_get_idx(j, 0), "end"), 6 * PAGE);
	o = RUN(pagecachectl(), "files");
	CHECK_EQ(o.code, 0);
	expect_text(&o, o.out, a);
	expect_text(&o, o.out, b);
	o = RUN(pagecachectl(), "mappings");
	CHECK_EQ(o.code, 0);
	expect_text(&o, o.out, a);
}

SYSTEM_TEST(pagecachectl_sync_and_drop_say_how_much)
{
	char *path = make_file("f", 10 * PAGE, 1);
	uint8_t *m = map(open_file(path, O_RDWR), 10 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	json_object *j;

	PATTERN_CHECK(m, 10 * PAGE, 0, 1);
	store(m + 5 * PAGE, 0);
	j = CTL_JSON("--json", "drop", path);
	CHECK_EQ(json_int(j, "pages"), 9);
	CHECK_EQ(file_state(path).resident, 1);
	j = CTL_JSON("--json", "sync");
	CHECK_EQ(json_int(j, "pages"), 1);
	CHECK(store_has_byte(path, 5 * PAGE, 0));
	j = CTL_JSON("--json", "drop");
	CHECK_EQ(json_int(j, "pages"), 1);
	CHECK_EQ(status().resident, 0);
	PATTERN_CHECK(m, 5 * PAGE, 0, 1);
	CHECK_EQ(load(m + 5 * PAGE), 0);
}

SYSTEM_TEST(pagecachectl_version_tells_both)
{
	json_object *j = CTL_JSON("--json", "version");

	CHECK(strcmp(json_string(j, "pagecachectl"), pgc_version()) == 0);
	CHECK(strcmp(json_string(j, "pagecached"), pgc_version()) == 0);
}

SYSTEM_TEST(pagecachectl_errors_are_clear_and_have_exit_codes)
{
	char *path = make_file("not-cached", PAGE, 1), *missing = file_path("missing");
	struct output o;

	o = RUN(pagecachectl(), "--help");
	CHECK_EQ(o.code, 0);
	expect_text(&o, o.out, "mappings");
	o = RUN(pagecachectl());
	CHECK_EQ(o.code, 2);
	o = RUN(pagecachectl(), "frobnicate");
	CHECK_EQ(o.code, 2);
	expect_text(&o, o.err, "frobnicate");
	o = RUN(pagecachectl(), "--frobnicate", "status");
	CHECK_EQ(o.code, 2);
	o = RUN(pagecachectl(), "status", "surplus");
	CHECK_EQ(o.code, 2);
	o = RUN(pagecachectl(), "files", path);
	CHECK_EQ(o.code, 1);
	expect_text(&o, o.err, path);
	o = RUN(pagecachectl(), "sync", missing);
	CHECK_EQ(o.code, 1);
	expect_text(&o, o.err, strerror(ENOENT));
	o = RUN(pagecachectl(), "--json", "drop", missing);
	CHECK_EQ(o.code, 1);
	CHECK_EQ(o.out[0], 0);
	o = RUN(pagecachectl(), "--socket", missing, "status");
	CHECK_EQ(o.code, 3);
	expect_text(&o, o.err, missing);
	daemon_stop();
	o = RUN(pagecachectl(), "status");
	CHECK_EQ(o.code, 3);
	expect_text(&o, o.err, env.socket);
	daemon_start();
}

SYSTEM_TESTS_MAIN("daemon",
	cmocka_unit_test(help_names_every_flag),
	cmocka_unit_test(version_is_told),
	cmocka_unit_test(wrong_flags_are_refused),
	cmocka_unit_test(configuration_errors_name_file_and_line),
	cmocka_unit_test(every_flag_is_a_key_and_a_flag_overrides_it),
	cmocka_unit_test(files_of_conf_d_are_read_after_the_file),
	cmocka_unit_test(second_daemon_on_the_socket_refuses_and_the_first_goes_on),
	cmocka_unit_test(sigterm_ends_it_with_0_and_removes_the_socket),
	cmocka_unit_test(socket_of_a_killed_daemon_is_taken_over),
	cmocka_unit_test(faults_of_a_client_wait_when_the_daemon_is_killed),
	cmocka_unit_test(faults_of_a_forked_child_wait_when_the_daemon_is_killed),
	cmocka_unit_test(client_without_a_daemon_gets_an_error),
	cmocka_unit_test(garbage_ends_that_connection_only),
	cmocka_unit_test(sparse_file_of_1_tib_is_mapped_in_under_50_ms),
	cmocka_unit_test(thousand_open_files_are_served),
	cmocka_unit_test(two_hundred_client_processes_are_served),
	cmocka_unit_test(two_thousand_mappings_of_one_file_are_served),
	cmocka_unit_test(idle_daemon_uses_no_processor),
	cmocka_unit_test(memory_stays_within_the_budget),
	cmocka_unit_test(pagecachectl_status_tells_what_is_so),
	cmocka_unit_test(pagecachectl_files_and_mappings_list_all_or_one),
	cmocka_unit_test(pagecachectl_sync_and_drop_say_how_much),
	cmocka_unit_test(pagecachectl_version_tells_both),
	cmocka_unit_test(pagecachectl_errors_are_clear_and_have_exit_codes))
