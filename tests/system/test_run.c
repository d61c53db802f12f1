/* SPDX-License-Identifier: Apache-2.0 */
/* pagecachectl run: the environment that it sets, the daemon of one's own, signals and exit codes. What the preload library then does is tested elsewhere. */
#include "harness.h"

#include <glob.h>
#include <pty.h>
#include <sys/prctl.h>

#define MISSING "/does/not/exist"

static void expect_text(const char *text, const char *word)
{
	if (!strstr(text, word))
		FAIL("no \"%s\" in:\n%s", word, text);
}

static struct output run_expecting(int code, const char *const argv[])
{
	struct output o = run_program(argv);

	if (o.code != code)
		FAIL("exit code %d, not %d; it says:\n%s%s", o.code, code, o.out, o.err);
	return o;
}
#define RUN_EXPECT(code, ...) run_expecting(code, (const char *const[]){pagecachectl(), "run", __VA_ARGS__, NULL})

/* The value of a variable that a dry run prints. */
static char *dry_value(const struct output *o, const char *name)
{
	char start[64], *at;

	snprintf(start, sizeof(start), "%s=", name);
	for (at = o->out; at && strncmp(at, start, strlen(start)) != 0; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
		;
	if (!at || !strchr(at, '\n'))
		FAIL("no line %s= in:\n%s", name, o->out);
	at += strlen(start);
	return strndup(at, strcspn(at, "\n"));
}

static char *dry_paths(const char *const argv[])
{
	struct output o = run_expecting(0, argv);

	return dry_value(&o, "PAGECACHED_PATHS");
}
#define DRY_PATHS(...) dry_paths((const char *const[]){pagecachectl(), "run", "--dry-run", __VA_ARGS__, NULL})

static void check_text(const char *have, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void check_text(const char *have, const char *format, ...)
{
	char want[4096];
	va_list ap;

	va_start(ap, format);
	vsnprintf(want, sizeof(want), format, ap);
	va_end(ap);
	if (strcmp(have, want) != 0)
		FAIL("\"%s\" is not \"%s\"", have, want);
}

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* So that private folders are ours alone to look for. */
static void own_runtime_dir(void)
{
	CHECK(setenv("XDG_RUNTIME_DIR", env.dir, 1) == 0);
}

static bool private_folder(char *ret, size_t size)
{
	char pattern[200];
	bool found;
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/pagecached-run-*", env.dir);
	found = glob(pattern, 0, NULL, &g) == 0;
	if (found && ret)
		snprintf(ret, size, "%s", g.gl_pathv[0]);
	globfree(&g);
	return found;
}

/* The process whose command line names the private folder: the daemon, or its keeper. 0: none. */
static pid_t private_process(const char *folder, bool keeper)
{
	pid_t found = 0;
	glob_t g;

	CHECK(glob("/proc/[0-9]*/cmdline", 0, NULL, &g) == 0);
	for (size_t i = 0; i < g.gl_pathc && !found; i++) {
		char text[4096];
		int fd = open(g.gl_pathv[i], O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
		int pid = atoi(g.gl_pathv[i] + strlen("/proc/"));

		if (fd >= 0)
			close(fd);
		if (n > 0 && memmem(text, (size_t)n, folder, strlen(folder)) && memmem(text, (size_t)n, "--state-dir", 11) && pid != getpid() &&
		    keeper == !!memmem(text, (size_t)n, "--keep", 7))
			found = pid;
	}
	globfree(&g);
	return found;
}

static pid_t private_daemon(const char *folder) { return private_process(folder, false); }

/* Starts `pagecachectl run` with these, its output in the files out and err of the test's folder. */
static pid_t run_begin(const char *const argv[])
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		int out = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0600), err = open("err", O_WRONLY | O_CREAT | O_TRUNC, 0600);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (dup2(out, 1) < 0 || dup2(err, 2) < 0)
			_exit(99);
		execv(argv[0], (char *const *)argv);
		_exit(99);
	}
	return pid;
}
#define RUN_BEGIN(...) run_begin((const char *const[]){pagecachectl(), "run", __VA_ARGS__, NULL})

static bool exists(const char *name)
{
	return access(name, F_OK) == 0;
}

/* --- the environment --- */

SYSTEM_TEST(dry_run_prints_what_it_would_set)
{
	struct output o = RUN_EXPECT(0, "--dry-run", "--path", "/srv/data/*.db");
	char *preload = dry_value(&o, "LD_PRELOAD");

	check_text(dry_value(&o, "PAGECACHED_PATHS"), "/srv/data/*.db");
	check_text(dry_value(&o, "PAGECACHED_SOCKET"), "%s", env.socket);
	CHECK(exists(preload) && strstr(preload, "/libpagecached-preload.so"));
}

SYSTEM_TEST(command_gets_the_environment)
{
	struct output o = RUN_EXPECT(0, "--path", "/srv/data/*.db", "--", "env");

	check_text(dry_value(&o, "PAGECACHED_PATHS"), "/srv/data/*.db");
	check_text(dry_value(&o, "PAGECACHED_SOCKET"), "%s", env.socket);
	expect_text(dry_value(&o, "LD_PRELOAD"), "/libpagecached-preload.so");
}

SYSTEM_TEST(other_preloaded_libraries_stay_behind_ours, .no_daemon = true)
{
	struct output o;
	char *ours;

	unsetenv("LD_PRELOAD");
	o = RUN_EXPECT(0, "--dry-run", "--path", "/a");
	ours = dry_value(&o, "LD_PRELOAD");
	/* Nobody is there to preload: the names are all that counts. */
	setenv("PAGECACHED_PRELOAD", ours, 1);
	o = run_expecting(0, (const char *const[]){"env", "LD_PRELOAD=/lib/one.so /lib/two.so", pagecachectl(), "run", "--dry-run", "--path", "/a", NULL});
	check_text(dry_value(&o, "LD_PRELOAD"), "%s:/lib/one.so:/lib/two.so", ours);
}

SYSTEM_TEST(library_is_not_preloaded_twice, .no_daemon = true)
{
	struct output o = RUN_EXPECT(0, "--dry-run", "--path", "/a");
	char *first = dry_value(&o, "LD_PRELOAD"), *again;

	CHECK(asprintf(&again, "LD_PRELOAD=%s", first) > 0);
	o = run_expecting(0, (const char *const[]){"env", again, pagecachectl(), "run", "--dry-run", "--path", "/a", NULL});
	check_text(dry_value(&o, "LD_PRELOAD"), "%s", first);
}

SYSTEM_TEST(library_that_is_named_but_not_there_is_told, .no_daemon = true)
{
	setenv("PAGECACHED_PRELOAD", MISSING, 1);
	expect_text(RUN_EXPECT(125, "--dry-run", "--path", "/a").err, "$PAGECACHED_PRELOAD: " MISSING);
}

SYSTEM_TEST(relative_socket_is_made_absolute)
{
	struct output o;

	unsetenv("PAGECACHED_SOCKET");
	o = RUN_EXPECT(0, "--socket", "./socket", "--path", "/a", "--", "env");
	check_text(dry_value(&o, "PAGECACHED_SOCKET"), "%s/./socket", env.dir);
}

/* --- patterns --- */

SYSTEM_TEST(relative_patterns_are_made_absolute, .no_daemon = true)
{
	CHECK(mkdir("sub", 0755) == 0);
	check_text(DRY_PATHS("--path", "*.db", "--path", "sub/../x?", "--path", "./sub//f[0-9]"), "%s/*.db:%s/x?:%s/sub/f[0-9]", env.dir, env.dir, env.dir);
}

SYSTEM_TEST(folder_that_exists_stands_for_all_below, .no_daemon = true)
{
	CHECK(mkdir("sub", 0755) == 0);
	check_text(DRY_PATHS("--path", "sub", "--path", "."), "%s/sub/**:%s/**", env.dir, env.dir);
	check_text(DRY_PATHS("--path", "/"), "/**");
}

SYSTEM_TEST(name_of_a_file_stands_for_itself, .no_daemon = true)
{
	make_file("f", 1, 1);
	check_text(DRY_PATHS("--path", "f", "--path", "later"), "%s/f:%s/later", env.dir, env.dir);
}

SYSTEM_TEST(trailing_slash_makes_a_folder_of_what_is_to_come, .no_daemon = true)
{
	check_text(DRY_PATHS("--path", "later/", "--path", "run*/"), "%s/later/**:%s/run*/**", env.dir, env.dir);
}

SYSTEM_TEST(symbolic_links_in_the_literal_part_give_both_names, .no_daemon = true)
{
	CHECK(mkdir("real", 0755) == 0 && mkdir("real/deep", 0755) == 0 && symlink("real", "link") == 0);
	check_text(DRY_PATHS("--path", "link/*.db"), "%s/link/*.db:%s/real/*.db", env.dir, env.dir);
	check_text(DRY_PATHS("--path", "link"), "%s/link/**:%s/real/**", env.dir, env.dir);
	check_text(DRY_PATHS("--path", "link/later/f*"), "%s/link/later/f*:%s/real/later/f*", env.dir, env.dir);
	check_text(DRY_PATHS("--path", "real/*.db"), "%s/real/*.db", env.dir);
}

SYSTEM_TEST(folder_with_special_characters_is_taken_literally, .no_daemon = true)
{
	CHECK(mkdir("a[1]*", 0755) == 0);
	check_text(DRY_PATHS("--path", "a[1]*"), "%s/a\\[1]\\*/**", env.dir);
	/* The other way round, as the environment has it. */
	setenv("PAGECACHED_PATHS", "a\\[1]\\*/**:a\\[1]\\*", 1);
	check_text(DRY_PATHS("--"), "%s/a\\[1]\\*/**", env.dir);
}

SYSTEM_TEST(colon_of_a_name_is_escaped, .no_daemon = true)
{
	CHECK(mkdir("a:b", 0755) == 0);
	check_text(DRY_PATHS("--path", "a:b", "--path", "later\\:/x*"), "%s/a\\:b/**:%s/later\\:/x*", env.dir, env.dir);
}

SYSTEM_TEST(pattern_that_is_given_twice_is_set_once, .no_daemon = true)
{
	check_text(DRY_PATHS("--path", "/a/*", "--path", "/b", "--path", "/a/*"), "/a/*:/b");
}

SYSTEM_TEST(patterns_that_cannot_be_are_told, .no_daemon = true)
{
	expect_text(RUN_EXPECT(125, "--dry-run", "--path", "").err, "empty");
	expect_text(RUN_EXPECT(125, "--dry-run", "--path", "/a:/b").err, "a --path of its own");
}

/* --- where patterns come from --- */

SYSTEM_TEST(without_path_the_environment_says_which_files, .no_daemon = true)
{
	CHECK(mkdir("sub", 0755) == 0);
	setenv("PAGECACHED_PATHS", "/from/env/*:sub", 1);
	check_text(DRY_PATHS("--config", "/dev/null"), "/from/env/*:%s/sub/**", env.dir);
	check_text(DRY_PATHS("--path", "/mine"), "/mine");
}

SYSTEM_TEST(without_path_and_environment_the_configuration_says, .no_daemon = true)
{
	write_text("c.conf", "; a comment\n[daemon]\n  workers = 1\n  preload_paths = /from/one:/from/two/*\n[file /x/[ab]*]\npreload_paths = /not/ours\n");
	CHECK(mkdir("c.conf.d", 0755) == 0);
	write_text("c.conf.d/10.conf", "[daemon]\npreload_paths = /three/**\n");
	check_text(DRY_PATHS("--config", "c.conf"), "/from/one:/from/two/*:/three/**");
	write_text("c.conf.d/20.conf", "[ daemon ]\npreload_paths = none\npreload_paths = /four\n");
	check_text(DRY_PATHS("--config", "c.conf"), "/four");
}

SYSTEM_TEST(configuration_of_the_user_is_found, .as_user = true, .no_daemon = true)
{
	CHECK(mkdir("pagecached", 0755) == 0);
	write_text("pagecached/pagecached.conf", "[daemon]\npreload_paths = /of/the/user\n");
	setenv("XDG_CONFIG_HOME", env.dir, 1);
	check_text(DRY_PATHS("--"), "/of/the/user");
}

SYSTEM_TEST(configuration_that_is_wrong_is_named, .no_daemon = true)
{
	write_text("c.conf", "[daemon]\npreload_paths = relative\n");
	expect_text(RUN_EXPECT(125, "--dry-run", "--config", "c.conf").err, "c.conf: preload_paths");
	expect_text(RUN_EXPECT(125, "--dry-run", "--config", MISSING).err, MISSING);
}

SYSTEM_TEST(no_pattern_at_all_is_told, .no_daemon = true)
{
	unsetenv("PAGECACHED_PATHS");
	expect_text(RUN_EXPECT(125, "--config", "/dev/null", "--", "true").err, "which files?");
}

/* --- exit codes --- */

SYSTEM_TEST(exit_code_of_the_command_passes)
{
	RUN_EXPECT(7, "--path", "/a", "--", "sh", "-c", "exit 7");
	RUN_EXPECT(0, "--path", "/a", "true");
}

SYSTEM_TEST(command_keeps_our_pid)
{
	pid_t pid = RUN_BEGIN("--path", "/a", "sh", "-c", "echo $$");
	char want[32];

	CHECK(WEXITSTATUS(wait_child(pid)) == 0);
	snprintf(want, sizeof(want), "%d\n", (int)pid);
	check_text(read_whole("out"), "%s", want);
}

SYSTEM_TEST(options_of_the_command_are_its_own)
{
	struct output o = RUN_EXPECT(0, "--path", "/a", "printf", "%s", "--json");

	check_text(o.out, "--json");
}

SYSTEM_TEST(command_that_is_not_found_is_127)
{
	expect_text(RUN_EXPECT(127, "--path", "/a", "--", MISSING).err, MISSING);
	RUN_EXPECT(127, "--private", "--path", "/a", "--", MISSING);
}

SYSTEM_TEST(command_that_cannot_be_run_is_126)
{
	expect_text(RUN_EXPECT(126, "--path", "/a", "--", make_file("plain", 1, 1)).err, "Permission denied");
	RUN_EXPECT(126, "--private", "--path", "/a", "--", make_file("plain", 1, 1));
}

SYSTEM_TEST(without_a_daemon_private_is_advised, .no_daemon = true)
{
	struct output o = RUN_EXPECT(125, "--path", "/a", "--", "touch", "ran");

	expect_text(o.err, env.socket);
	expect_text(o.err, "--private");
	CHECK(!exists("ran"));
}

SYSTEM_TEST(wrong_usage_is_125, .no_daemon = true)
{
	RUN_EXPECT(125, "--path", "/a");
	RUN_EXPECT(125, "--no-such-option", "true");
	RUN_EXPECT(125, "--path", "/a", "--memory", "1G", "true");
	RUN_EXPECT(125, "--path", "/a", "--private", "--socket", "x", "true");
}

/* --- a daemon of one's own --- */

SYSTEM_TEST(private_daemon_answers_and_is_gone_afterwards, .no_daemon = true)
{
	char script[512], folder[256] = "";
	struct output o;

	own_runtime_dir();
	snprintf(script, sizeof(script), "dirname \"$PAGECACHED_SOCKET\"; stat -c %%a \"${PAGECACHED_SOCKET%%/*}\"; '%s' status >status || exit 3; exit 7", pagecachectl());
	o = RUN_EXPECT(7, "--private", "--path", "/a", "--", "sh", "-c", script);
	CHECK(sscanf(o.out, "%255s", folder) == 1);
	CHECK(strncmp(folder, env.dir, strlen(env.dir)) == 0);
	expect_text(o.out, "\n700\n");
	CHECK(!exists(folder));
	CHECK(private_daemon(folder) == 0);
	CHECK(!private_folder(NULL, 0));
	check_text(o.err, "%s", "");
}

SYSTEM_TEST(private_daemon_gets_the_memory_that_is_said, .no_daemon = true)
{
	char script[512];

	own_runtime_dir();
	snprintf(script, sizeof(script), "'%s' --json status", pagecachectl());
	expect_text(RUN_EXPECT(0, "--private", "--memory", "48M", "--path", "/a", "--", "sh", "-c", script).out, "50331648");
}

SYSTEM_TEST(private_daemon_reads_the_configuration_that_is_named, .no_daemon = true)
{
	char script[512];

	own_runtime_dir();
	write_text("c.conf", "[daemon]\nmemory_max = 40M\npreload_paths = /a\n");
	snprintf(script, sizeof(script), "'%s' --json status", pagecachectl());
	expect_text(RUN_EXPECT(0, "--private", "--config", "c.conf", "--", "sh", "-c", script).out, "41943040");
}

SYSTEM_TEST(private_daemon_that_cannot_start_says_why, .no_daemon = true)
{
	struct output o;

	own_runtime_dir();
	o = RUN_EXPECT(125, "--private", "--memory", "lots", "--path", "/a", "--", "touch", "ran");
	expect_text(o.err, "\"lots\" is not valid");
	CHECK(!exists("ran") && !private_folder(NULL, 0));
}

SYSTEM_TEST(what_was_written_is_in_the_file_afterwards, .no_daemon = true)
{
	own_runtime_dir();
	CHECK(mkdir("data", 0755) == 0);
	RUN_EXPECT(0, "--private", "--path", "data", "--", "sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x >data/f && test $(wc -c <data/f) = 300000");
	CHECK_EQ(store_size("data/f"), 300000);
	CHECK(store_has_byte("data/f", 299999, 'x'));
}

SYSTEM_TEST(signal_that_ends_the_command_ends_us, .no_daemon = true)
{
	own_runtime_dir();
	RUN_EXPECT(-SIGTERM, "--private", "--path", "/a", "--", "sh", "-c", "kill -TERM $$");
	RUN_EXPECT(-SIGKILL, "--private", "--path", "/a", "--", "sh", "-c", "kill -KILL $$");
	CHECK(!private_folder(NULL, 0));
}

/* Sends each of these to us and looks that the command gets it, once. */
SYSTEM_TEST(signals_are_passed_on, .no_daemon = true)
{
	static const struct { int sig; const char *name; } signals[] = {
		{SIGTERM, "TERM"}, {SIGINT, "INT"}, {SIGHUP, "HUP"}, {SIGQUIT, "QUIT"}, {SIGUSR1, "USR1"}, {SIGUSR2, "USR2"}, {SIGCONT, "CONT"}, {SIGTSTP, "TSTP"},
	};
	pid_t pid;

	own_runtime_dir();
	pid = RUN_BEGIN("--private", "--path", "/a", "--", "sh", "-c",
			"for s in TERM INT HUP QUIT USR1 USR2 CONT TSTP; do trap \"echo $s >>got\" $s; done; touch ready; while ! test -e end; do sleep 0.02; done; exit 9");
	WAIT_UNTIL(exists("ready"));
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		char *got = read_whole("got");
		size_t before = strlen(got);

		CHECK(kill(pid, signals[i].sig) == 0);
		WAIT_UNTIL((got = read_whole("got")) && strlen(got) > before);
		check_text(got + before, "%s\n", signals[i].name);
	}
	write_text("end", "");
	CHECK_EQ(WEXITSTATUS(wait_child(pid)), 9);
	check_text(read_whole("got"), "TERM\nINT\nHUP\nQUIT\nUSR1\nUSR2\nCONT\nTSTP\n");
}

SYSTEM_TEST(command_that_was_stopped_goes_on_with_us, .no_daemon = true)
{
	char path[64], text[64] = "";
	pid_t pid, command;

	own_runtime_dir();
	pid = RUN_BEGIN("--private", "--path", "/a", "--", "sh", "-c", "echo $$ >pid.new; mv pid.new pid; while ! test -e end; do sleep 0.02; done; exit 9");
	WAIT_UNTIL(exists("pid"));
	command = atoi(read_whole("pid"));
	CHECK(kill(pid, SIGTSTP) == 0);
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)command);
	WAIT_UNTIL((snprintf(text, sizeof(text), "%.60s", read_whole(path)), strstr(text, ") T")));
	write_text("end", "");
	CHECK(kill(pid, SIGCONT) == 0);
	CHECK_EQ(WEXITSTATUS(wait_child(pid)), 9);
}

/* A shell with job control, for one job: whenever that is stopped it makes the file "stopped", and once "continue" is there goes on with it. */
static void control_job(const char *const argv[])
{
	pid_t job = fork();
	int st;

	CHECK(job >= 0);
	setpgid(job, job);
	if (job == 0) {
		int out = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0600);

		signal(SIGTTOU, SIG_IGN);
		CHECK(tcsetpgrp(0, getpid()) == 0);
		signal(SIGTTOU, SIG_DFL);
		dup2(out, 1);
		execv(argv[0], (char *const *)argv);
		_exit(99);
	}
	while (waitpid(job, &st, WUNTRACED) == job && WIFSTOPPED(st)) {
		write_text("stopped", "");
		WAIT_UNTIL(exists("continue"));
		kill(-job, SIGCONT);
	}
	_exit(WIFEXITED(st) ? WEXITSTATUS(st) : 98);
}

/* The same at a terminal; returns its other end. */
static int run_at_terminal(const char *const argv[], pid_t *ret_pid)
{
	int terminal;

	fflush(NULL);
	*ret_pid = forkpty(&terminal, NULL, NULL, NULL);
	CHECK(*ret_pid >= 0);
	if (*ret_pid == 0)
		control_job(argv);
	return terminal;
}
#define RUN_AT_TERMINAL(ret_pid, ...) run_at_terminal((const char *const[]){pagecachectl(), "run", __VA_ARGS__, NULL}, ret_pid)

SYSTEM_TEST(interrupt_from_the_terminal_comes_once, .no_daemon = true)
{
	pid_t pid;
	int terminal;

	own_runtime_dir();
	terminal = RUN_AT_TERMINAL(&pid, "--private", "--path", "/a", "--", "sh", "-c",
				   "trap 'echo INT >>got' INT; trap 'echo QUIT >>got' QUIT; touch ready; while ! test -e end; do sleep 0.02; done; exit 9");
	WAIT_UNTIL(exists("ready"));
	CHECK(write(terminal, "\003", 1) == 1);
	WAIT_UNTIL(strcmp(read_whole("got"), "INT\n") == 0);
	CHECK(write(terminal, "\034", 1) == 1);
	WAIT_UNTIL(strstr(read_whole("got"), "QUIT\n"));
	write_text("end", "");
	CHECK_EQ(WEXITSTATUS(wait_child(pid)), 9);
	check_text(read_whole("got"), "INT\nQUIT\n");
	close(terminal);
}

SYSTEM_TEST(stop_from_the_terminal_stops_the_job, .no_daemon = true)
{
	pid_t pid;
	int terminal;

	own_runtime_dir();
	terminal = RUN_AT_TERMINAL(&pid, "--private", "--path", "/a", "--", "sh", "-c", "touch ready; while ! test -e end; do sleep 0.02; done; exit 9");
	WAIT_UNTIL(exists("ready"));
	CHECK(write(terminal, "\032", 1) == 1);
	WAIT_UNTIL(exists("stopped"));
	write_text("end", "");
	write_text("continue", "");
	CHECK_EQ(WEXITSTATUS(wait_child(pid)), 9);
	close(terminal);
}

SYSTEM_TEST(death_of_the_private_daemon_is_a_pause, .no_daemon = true)
{
	char folder[256] = "", *log;
	pid_t pid;

	own_runtime_dir();
	CHECK(mkdir("data", 0755) == 0);
	pid = RUN_BEGIN("--private", "--path", "data", "--", "sh", "-c",
			"exec 3>data/f; for i in $(seq 1000 1999); do echo $i >&3; test $i = 1010 && touch ready; done; touch written; "
			"while ! test -e end; do sleep 0.02; done");
	WAIT_UNTIL(exists("ready"));
	CHECK(private_folder(folder, sizeof(folder)));
	for (unsigned i = 0; i < 3; i++) {
		pid_t daemon;

		WAIT_UNTIL((daemon = private_daemon(folder)) > 0);
		CHECK(kill(daemon, SIGKILL) == 0);
		WAIT_UNTIL(private_daemon(folder) != daemon);
	}
	WAIT_UNTIL(exists("written"));
	write_text("end", "");
	CHECK_EQ(wait_child(pid), 0);
	check_text(read_whole("err"), "%s", "");
	log = read_whole("data/f");
	CHECK_EQ(strlen(log), 5000);
	for (int i = 0; i < 1000; i++)
		CHECK_EQ(atoi(log + 5 * i), 1000 + i);
	CHECK(!exists(folder));
}

SYSTEM_TEST(death_of_the_private_keeper_is_told, .no_daemon = true)
{
	char folder[256] = "";
	pid_t pid, keeper;
	int st;

	own_runtime_dir();
	pid = RUN_BEGIN("--private", "--path", "/a", "--", "sh", "-c", "touch ready; while ! test -e end; do sleep 0.02; done");
	WAIT_UNTIL(exists("ready"));
	CHECK(private_folder(folder, sizeof(folder)));
	keeper = private_process(folder, true);
	CHECK(keeper > 0 && kill(keeper, SIGKILL) == 0);
	WAIT_UNTIL(strstr(read_whole("err"), "the daemon has ended"));
	CHECK(private_daemon(folder) == 0);
	write_text("end", "");
	st = wait_child(pid);
	CHECK(WIFEXITED(st));
	CHECK_EQ(WEXITSTATUS(st), 125);
	expect_text(read_whole("err"), "signal 9");
	CHECK(!exists(folder));
}

SYSTEM_TEST(private_daemon_ends_when_we_are_killed, .no_daemon = true)
{
	char folder[256] = "";
	pid_t pid;

	own_runtime_dir();
	pid = RUN_BEGIN("--private", "--path", "/a", "--", "sh", "-c", "touch ready; while ! test -e end; do sleep 0.02; done; touch ended");
	WAIT_UNTIL(exists("ready"));
	CHECK(private_folder(folder, sizeof(folder)));
	CHECK(private_daemon(folder) > 0);
	CHECK(kill(pid, SIGKILL) == 0);
	wait_child(pid);
	WAIT_UNTIL(private_process(folder, true) == 0 && private_daemon(folder) == 0);
	WAIT_UNTIL(!exists(folder));
	write_text("end", "");
	WAIT_UNTIL(exists("ended"));
}

/* A handle on DATA, until the file "end" is there: what stays behind when the command ends. */
static void hold_open(void)
{
	CHECK(setsid() > 0);
	struct pgc_file *f = open_file("data", O_RDWR);

	write_text("held", "");
	WAIT_UNTIL(exists("end"));
	CHECK_EQ(pgc_pwrite(f, "late", 4, 0), 4);
	CHECK_EQ(pgc_close(f), 0);
	_exit(0);
}

/* The command tells its socket; another process then uses that daemon beyond the command's end. */
static pid_t leave_something_open(pid_t *ret_run)
{
	pid_t pid;

	own_runtime_dir();
	make_file("data", PAGE, 1);
	*ret_run = RUN_BEGIN("--private", "--path", "/a", "--", "sh", "-c", "echo $PAGECACHED_SOCKET >where.new; mv where.new where; while ! test -e held; do sleep 0.02; done");
	WAIT_UNTIL(exists("where"));
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		char *socket = read_whole("where");

		socket[strcspn(socket, "\n")] = '\0';
		setenv("PAGECACHED_SOCKET", socket, 1);
		hold_open();
	}
	return pid;
}

SYSTEM_TEST(private_daemon_stays_for_what_the_command_left_running, .no_daemon = true)
{
	pid_t run, other = leave_something_open(&run);

	WAIT_UNTIL(strstr(read_whole("err"), "has files open"));
	write_text("end", "");
	expect_exit_0(run);
	expect_exit_0(other);
	CHECK(store_has_byte(file_path("data"), 0, 'l'));
	CHECK(!private_folder(NULL, 0));
}

SYSTEM_TEST(signal_ends_the_wait_for_what_was_left_running, .no_daemon = true)
{
	pid_t run, other = leave_something_open(&run);

	WAIT_UNTIL(strstr(read_whole("err"), "has files open"));
	CHECK(kill(run, SIGTERM) == 0);
	expect_exit_0(run);
	CHECK(!private_folder(NULL, 0));
	CHECK(kill(other, SIGKILL) == 0);
	wait_child(other);
}

SYSTEM_TEST(write_out_that_fails_at_the_end_is_told, .no_daemon = true)
{
	char script[1024];
	struct output o;

	own_runtime_dir();
	write_text("c.conf", "[daemon]\ntest_stores = yes\ndirty_expire = 10min\npreload_paths = /a\n");
	snprintf(script, sizeof(script), "echo $PAGECACHED_SOCKET >where.new; mv where.new where; while ! test -e held; do sleep 0.02; done");
	pid_t run = RUN_BEGIN("--private", "--config", "c.conf", "--", "sh", "-c", script);
	WAIT_UNTIL(exists("where"));
	snprintf(env.socket, sizeof(env.socket), "%s", read_whole("where"));
	env.socket[strcspn(env.socket, "\n")] = '\0';
	setenv("PAGECACHED_SOCKET", env.socket, 1);
	struct pgc_file *f = open_mem("mem:f", 65536, 1);
	CHECK_EQ(pgc_pwrite(f, "new", 3, 0), 3);
	inject("mem:f", PGC_INJECT_WRITE_ERROR, EIO, 0);
	(void)pgc_close(f);
	write_text("held", "");
	o.code = wait_child(run);
	CHECK(WIFEXITED(o.code));
	CHECK_EQ(WEXITSTATUS(o.code), 125);
	expect_text(read_whole("err"), "could not be written");
	CHECK(!private_folder(NULL, 0));
}

SYSTEM_TESTS_MAIN("run",
	cmocka_unit_test(dry_run_prints_what_it_would_set),
	cmocka_unit_test(command_gets_the_environment),
	cmocka_unit_test(other_preloaded_libraries_stay_behind_ours),
	cmocka_unit_test(library_is_not_preloaded_twice),
	cmocka_unit_test(library_that_is_named_but_not_there_is_told),
	cmocka_unit_test(relative_socket_is_made_absolute),
	cmocka_unit_test(relative_patterns_are_made_absolute),
	cmocka_unit_test(folder_that_exists_stands_for_all_below),
	cmocka_unit_test(name_of_a_file_stands_for_itself),
	cmocka_unit_test(trailing_slash_makes_a_folder_of_what_is_to_come),
	cmocka_unit_test(symbolic_links_in_the_literal_part_give_both_names),
	cmocka_unit_test(folder_with_special_characters_is_taken_literally),
	cmocka_unit_test(colon_of_a_name_is_escaped),
	cmocka_unit_test(pattern_that_is_given_twice_is_set_once),
	cmocka_unit_test(patterns_that_cannot_be_are_told),
	cmocka_unit_test(without_path_the_environment_says_which_files),
	cmocka_unit_test(without_path_and_environment_the_configuration_says),
	cmocka_unit_test(configuration_of_the_user_is_found),
	cmocka_unit_test(configuration_that_is_wrong_is_named),
	cmocka_unit_test(no_pattern_at_all_is_told),
	cmocka_unit_test(exit_code_of_the_command_passes),
	cmocka_unit_test(command_keeps_our_pid),
	cmocka_unit_test(options_of_the_command_are_its_own),
	cmocka_unit_test(command_that_is_not_found_is_127),
	cmocka_unit_test(command_that_cannot_be_run_is_126),
	cmocka_unit_test(without_a_daemon_private_is_advised),
	cmocka_unit_test(wrong_usage_is_125),
	cmocka_unit_test(private_daemon_answers_and_is_gone_afterwards),
	cmocka_unit_test(private_daemon_gets_the_memory_that_is_said),
	cmocka_unit_test(private_daemon_reads_the_configuration_that_is_named),
	cmocka_unit_test(private_daemon_that_cannot_start_says_why),
	cmocka_unit_test(what_was_written_is_in_the_file_afterwards),
	cmocka_unit_test(signal_that_ends_the_command_ends_us),
	cmocka_unit_test(signals_are_passed_on),
	cmocka_unit_test(command_that_was_stopped_goes_on_with_us),
	cmocka_unit_test(interrupt_from_the_terminal_comes_once),
	cmocka_unit_test(stop_from_the_terminal_stops_the_job),
	cmocka_unit_test(death_of_the_private_daemon_is_a_pause),
	cmocka_unit_test(death_of_the_private_keeper_is_told),
	cmocka_unit_test(private_daemon_ends_when_we_are_killed),
	cmocka_unit_test(private_daemon_stays_for_what_the_command_left_running),
	cmocka_unit_test(signal_ends_the_wait_for_what_was_left_running),
	cmocka_unit_test(write_out_that_fails_at_the_end_is_told))
