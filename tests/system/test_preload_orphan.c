/* SPDX-License-Identifier: Apache-2.0 */
/* Programs that were not rebuilt wait for a daemon that does not come, or not soon: what signals do meanwhile. */
#include "preload_acts.h"

#include <pthread.h>
#include <sys/time.h>

#define INTERRUPT_MS 5000 /* as in libclient: from then on a handler ends a wait */

/* --- the test's side --- */

static void vanish(void)
{
	int st;

	CHECK_EQ(kill(env.daemon, SIGKILL), 0);
	CHECK_EQ(waitpid(env.daemon, &st, 0), env.daemon);
	env.daemon = 0;
}

/* The keeper, which has the sockets, lives, and starts no other. */
static void stand_still(void)
{
	pid_t daemon = daemon_pid();

	CHECK_EQ(kill(env.daemon, SIGSTOP), 0);
	CHECK_EQ(kill(daemon, SIGKILL), 0);
}

static void go_on(void) { CHECK_EQ(kill(env.daemon, SIGCONT), 0); }

/* Steps of the program are files beside the folder that is served. */
static bool done(const char *step) { return access(file_path(step), F_OK) == 0; }

static bool ended(pid_t pid, int *ret)
{
	pid_t r = waitpid(pid, ret, WNOHANG);

	CHECK(r >= 0);
	return r == pid;
}

static void ends_by(pid_t pid, int sig)
{
	int st = 0;

	nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL); /* so that it waits, for all that can be known */
	CHECK(!ended(pid, &st));
	CHECK_EQ(kill(pid, sig), 0);
	WAIT_UNTIL(ended(pid, &st));
	CHECK(WIFSIGNALED(st));
	CHECK_EQ(WTERMSIG(st), sig);
}

/* --- the program's side --- */

static void step(const char *name)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "../%s", name);
	fd = open(path, O_CREAT | O_WRONLY, 0644);
	CHECK(fd >= 0);
	CHECK_EQ(close(fd), 0);
}

static bool is_there(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "../%s", name);
	return access(path, F_OK) == 0;
}

static int make(const char *name, int flags)
{
	int fd = open(name, O_RDWR | O_CREAT | flags, 0644);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "0123456789", 10), 10);
	return fd;
}

static void handle(int sig, void (*handler)(int), int flags)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = flags };

	CHECK_EQ(sigaction(sig, &sa, NULL), 0);
}

/* --- signals that end the program --- */

ACT_TEST_BESIDE(a_signal_ends_a_program_that_waits_for_a_daemon)
{
	pid_t pid = act_start("a_signal_ends_a_program_that_waits_for_a_daemon");

	WAIT_UNTIL(done("ready"));
	vanish();
	ends_by(pid, SIGINT);
	daemon_start();
	daemon_stop_losing();
}

ACT_OF(a_signal_ends_a_program_that_waits_for_a_daemon)
{
	int fd = make("f", 0);
	char byte;

	step("ready");
	while (pread(fd, &byte, 1, 0) == 1)
		;
	FAIL("pread: %s", strerror(errno));
}

ACT_TEST_BESIDE(a_signal_ends_a_program_that_waits_for_a_size_by_path)
{
	pid_t pid = act_start("a_signal_ends_a_program_that_waits_for_a_size_by_path");

	WAIT_UNTIL(done("ready"));
	vanish();
	ends_by(pid, SIGTERM);
	daemon_start();
	daemon_stop_losing();
}

ACT_OF(a_signal_ends_a_program_that_waits_for_a_size_by_path)
{
	struct stat st;

	(void)make("f", 0);
	CHECK_EQ(stat("f", &st), 0);
	step("ready");
	while (stat("f", &st) == 0 && st.st_size == 10)
		;
	FAIL("stat: %s, %lld bytes", strerror(errno), (long long)st.st_size);
}

ACT_TEST_BESIDE(a_signal_ends_a_program_that_waits_while_a_keeper_lives, .keep = true)
{
	pid_t pid = act_start("a_signal_ends_a_program_that_waits_while_a_keeper_lives");

	WAIT_UNTIL(done("ready"));
	stand_still();
	ends_by(pid, SIGHUP);
	go_on();
}

ACT_OF(a_signal_ends_a_program_that_waits_while_a_keeper_lives)
{
	a_signal_ends_a_program_that_waits_for_a_daemon_act();
}

ACT_TEST_BESIDE(a_signal_that_the_program_has_blocked_waits_on)
{
	pid_t pid = act_start("a_signal_that_the_program_has_blocked_waits_on");

	WAIT_UNTIL(done("ready"));
	vanish();
	nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL); /* it waits by then */
	CHECK_EQ(kill(pid, SIGINT), 0);  /* blocked */
	CHECK_EQ(kill(pid, SIGUSR2), 0); /* ignored */
	CHECK_EQ(kill(pid, SIGCHLD), 0); /* ignored by default */
	nanosleep(&(struct timespec){ .tv_nsec = 800000000 }, NULL);
	daemon_start();
	expect_exit_0(pid);
}

ACT_OF(a_signal_that_the_program_has_blocked_waits_on)
{
	sigset_t set;
	int fd = make("f", 0);
	char byte;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	handle(SIGUSR2, SIG_IGN, 0);
	step("ready");
	do
		CHECK_EQ(pread(fd, &byte, 1, 0), 1);
	while (sigpending(&set) == 0 && sigismember(&set, SIGINT) != 1);
}

/* --- handlers --- */

static int file_of_handler;

/* Files of ours are as good in a handler as between calls. */
static void note(int sig)
{
	char byte = 0;

	if (pread(file_of_handler, &byte, 1, 0) >= 0)
		step("too early");
}

static void note_by_file(int sig)
{
	step("handled");
}

ACT_TEST_BESIDE(a_handler_runs_at_once_and_the_call_goes_on)
{
	pid_t pid = act_start("a_handler_runs_at_once_and_the_call_goes_on");

	WAIT_UNTIL(done("ready"));
	vanish();
	nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL);
	CHECK_EQ(kill(pid, SIGUSR1), 0);
	WAIT_UNTIL(done("handled"));
	daemon_start();
	expect_exit_0(pid);
}

ACT_OF(a_handler_runs_at_once_and_the_call_goes_on)
{
	int fd = make("f", 0);
	char byte;

	handle(SIGUSR1, note_by_file, SA_RESTART);
	step("ready");
	do
		CHECK_EQ(pread(fd, &byte, 1, 3), 1);
	while (!is_there("handled"));
	CHECK_EQ(byte, '3');
	CHECK_EQ(pwrite(fd, "x", 1, 3), 1);
	CHECK_EQ(pread(fd, &byte, 1, 3), 1);
	CHECK_EQ(byte, 'x');
}

static void nothing(int sig) {}

/* Every few milliseconds, taken by who waits. */
static void signals_begin(void)
{
	sigset_t set;

	handle(SIGALRM, nothing, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	CHECK_EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	CHECK_EQ(setitimer(ITIMER_REAL, &(struct itimerval){ { .tv_usec = 5000 }, { .tv_usec = 5000 } }, NULL), 0);
}

static void signals_here(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0);
}

struct caller { pthread_t thread; const char *name; int fd; long (*call)(int fd); uint64_t took; long r; int error; };

static void *caller(void *arg)
{
	struct caller *c = arg;
	uint64_t start;
	bool gone;

	signals_here();
	do {
		gone = is_there("gone"); /* the last call begins when the daemon is */
		start = now_ms();
		c->r = c->call(c->fd);
		c->error = errno;
		c->took = now_ms() - start;
	} while (c->r >= 0 && !gone && c->took < 500);
	return NULL;
}

static void callers_run(struct caller *c, unsigned n)
{
	signals_begin();
	for (unsigned i = 0; i < n; i++)
		CHECK_EQ(pthread_create(&c[i].thread, NULL, caller, &c[i]), 0);
	step("ready");
	for (unsigned i = 0; i < n; i++)
		CHECK_EQ(pthread_join(c[i].thread, NULL), 0);
}

static long call_pread(int fd)
{
	char b;
	long r = pread(fd, &b, 1, 0);

	CHECK(r != 1 || b == '0');
	return r;
}

static void was_interrupted(const struct caller *c)
{
	if (c->r != -1 || c->error != EINTR || c->took < INTERRUPT_MS - 300)
		FAIL("%s: %ld, %s, after %llu ms", c->name, c->r, strerror(c->error), (unsigned long long)c->took);
}

static long call_pwrite(int fd) { return pwrite(fd, "y", 1, 0); }
static long call_stat(int fd) { struct stat st; return stat("f", &st); }
static long call_open(int fd)
{
	int r = open("another", O_RDWR | O_CREAT, 0644);

	return r < 0 ? r : close(r);
}

ACT_TEST_BESIDE(a_handler_without_SA_RESTART_ends_a_wait_that_is_no_pause)
{
	pid_t pid = act_start("a_handler_without_SA_RESTART_ends_a_wait_that_is_no_pause");

	WAIT_UNTIL(done("ready"));
	vanish();
	close(open(file_path("gone"), O_CREAT, 0644));
	expect_exit_0(pid);
	daemon_start();
	daemon_stop_losing();
}

ACT_OF(a_handler_without_SA_RESTART_ends_a_wait_that_is_no_pause)
{
	struct caller c[] = {
		{ .name = "pread", .fd = make("f", 0), .call = call_pread }, { .name = "pwrite", .fd = make("g", 0), .call = call_pwrite }, { .name = "stat", .call = call_stat },
	};
	struct stat st;

	CHECK_EQ(stat("f", &st), 0);
	callers_run(c, 3);
	for (unsigned i = 0; i < 3; i++)
		was_interrupted(&c[i]);
}

/* The daemon that died may have appended; a program that asks again after EINTR would do it twice. */
ACT_TEST_BESIDE(an_append_is_not_interrupted)
{
	pid_t pid = act_start("an_append_is_not_interrupted");

	WAIT_UNTIL(done("ready"));
	vanish();
	close(open(file_path("gone"), O_CREAT, 0644));
	nanosleep(&(struct timespec){ .tv_sec = INTERRUPT_MS / 1000 + 1 }, NULL);
	daemon_start();
	expect_exit_0(pid);
}

static long call_append(int fd) { return write(fd, "z", 1); }

ACT_OF(an_append_is_not_interrupted)
{
	struct caller c = { .name = "append", .fd = make("f", O_APPEND), .call = call_append };

	callers_run(&c, 1);
	CHECK_EQ(c.r, 1);
	CHECK(c.took > INTERRUPT_MS);
}

ACT_TEST_BESIDE(a_handler_ends_an_open_that_waits_while_a_keeper_lives, .keep = true)
{
	pid_t pid = act_start("a_handler_ends_an_open_that_waits_while_a_keeper_lives");

	WAIT_UNTIL(done("ready"));
	stand_still();
	expect_exit_0(pid);
	go_on();
}

ACT_OF(a_handler_ends_an_open_that_waits_while_a_keeper_lives)
{
	struct caller c[] = { { .name = "open", .call = call_open }, { .name = "stat", .call = call_stat } };
	struct stat st;

	(void)make("f", 0);
	CHECK_EQ(stat("f", &st), 0);
	callers_run(c, 2);
	was_interrupted(&c[0]);
	was_interrupted(&c[1]);
}

ACT_TEST_BESIDE(a_handler_that_uses_the_file_waits_itself_and_goes_on)
{
	pid_t pid = act_start("a_handler_that_uses_the_file_waits_itself_and_goes_on");

	WAIT_UNTIL(done("ready"));
	vanish();
	nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL);
	CHECK_EQ(kill(pid, SIGUSR1), 0);
	nanosleep(&(struct timespec){ .tv_nsec = 900000000 }, NULL);
	CHECK(!done("too early"));
	daemon_start();
	expect_exit_0(pid);
}

ACT_OF(a_handler_that_uses_the_file_waits_itself_and_goes_on)
{
	char byte;

	file_of_handler = make("f", 0);
	handle(SIGUSR1, note, SA_RESTART);
	step("ready");
	do
		CHECK_EQ(pread(file_of_handler, &byte, 1, 5), 1);
	while (!is_there("too early")); /* by now it is not */
	CHECK_EQ(byte, '5');
}

ACTS_MAIN("preload_orphan", ACT(a_signal_ends_a_program_that_waits_for_a_daemon), ACT(a_signal_ends_a_program_that_waits_for_a_size_by_path),
	  ACT(a_signal_ends_a_program_that_waits_while_a_keeper_lives), ACT(a_signal_that_the_program_has_blocked_waits_on),
	  ACT(a_handler_runs_at_once_and_the_call_goes_on), ACT(a_handler_that_uses_the_file_waits_itself_and_goes_on),
	  ACT(a_handler_without_SA_RESTART_ends_a_wait_that_is_no_pause), ACT(an_append_is_not_interrupted),
	  ACT(a_handler_ends_an_open_that_waits_while_a_keeper_lives))
