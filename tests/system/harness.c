/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See harness.h. Of each test program three layers of processes are seen here: the one that cmocka runs in (it never calls the
 * library, so what it forks is fresh), the test itself, which is a child of it with a process group of its own and is the
 * parent of the daemon, and the test's peers. Whatever a test leaves running is killed by its group.
 */
#include "harness.h"

#include <dirent.h>
#include <ftw.h>
#include <glob.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define NOBODY 65534
#define EXIT_SKIP 77
#define DEFAULT_SECONDS 60
#define STOP_MS 30000

struct env env;
extern char **environ;

static char base[96];           /* folder of the program */
static bool base_small, base_bpf;
static const char *group_name;
static unsigned test_number;

/* With PGC_TEST_KILL_MS. The process that cmocka runs in kills the daemons of its tests. */
enum kill_state {
	KILL_NO,                /* no daemon, or one that is to stop */
	KILL_MAY,               /* `keeper` has one, or is about to start the next */
	KILL_NOW,               /* it is being done */
};
static struct {
	_Atomic unsigned state;         /* enum kill_state. The test changes MAY to NO and NO to MAY, the killer MAY to NOW and back; seq_cst */
	_Atomic pid_t keeper;           /* set before `state` is MAY */
} *killed;                              /* shared with the test */
static struct {
	unsigned every_ms;              /* 0: daemons are left alone */
	uint64_t watched_ms, all_watched_ms; /* how long there was a daemon that served, in this test and in those before */
	uint64_t next_ms, rng;          /* on the clock of both */
	uint64_t dead_ms;               /* when the last one died; 0: nobody in this test */
	bool serves;                    /* since the last death a daemon has answered ... */
	int asked;                      /* ... else where one is asked; -1: nowhere */
	pid_t last;                     /* who was killed; its keeper may not have reaped it */
	unsigned deaths;                /* of all tests, as keepers tell */
} killer;

/* --- failing --- */

void check_failed(const char *file, int line, const char *what, ...)
{
	const char *slash = strrchr(file, '/');
	char text[1024];
	va_list ap;

	va_start(ap, what);
	vsnprintf(text, sizeof(text), what, ap);
	va_end(ap);
	fprintf(stderr, "%s:%d: process %d: %s\n", slash ? slash + 1 : file, line, (int)getpid(), text);
	_exit(1);
}

void skip_test(const char *why)
{
	const char *require = getenv("PGC_REQUIRE_KERNEL");

	if (require && strcmp(require, "1") == 0)
		FAIL("cannot run here: %s", why);
	fprintf(stderr, "skipped: %s\n", why);
	_exit(EXIT_SKIP);
}

uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

unsigned patience(void)
{
	return getenv("PGC_TEST_KILL_MS") ? 3 : 1;
}

static void pause_ms(unsigned ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l}, NULL);
}

/* Waits for `pid` with an end. False: it is still running. */
static bool wait_with_end(pid_t pid, int *ret_status, uint64_t ms)
{
	uint64_t end = now_ms() + ms * patience();

	for (;;) {
		pid_t r = waitpid(pid, ret_status, WNOHANG);

		if (r == pid)
			return true;
		CHECK(r == 0);
		if (now_ms() > end)
			return false;
		pause_ms(2);
	}
}

/* --- files --- */

char *read_whole(const char *path)
{
	size_t n = 0, room = 1 << 16;
	char *text = malloc(room);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t r;

	CHECK(text);
	if (fd < 0) {
		*text = '\0';
		return text;
	}
	while ((r = read(fd, text + n, room - n - 1)) > 0) {
		n += (size_t)r;
		if (room - n < 4096) {
			text = realloc(text, room *= 2);
			CHECK(text);
		}
	}
	CHECK(r == 0);
	text[n] = '\0';
	close(fd);
	return text;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	(void)st;
	(void)type;
	(void)f;
	remove(path);
	return 0;
}

static void remove_tree(const char *path)
{
	nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* What a killed daemon of this socket without BPF maps has left: its state, on a tmpfs. */
static void remove_state(void)
{
	char pattern[PATH_MAX] = "/dev/shm/pagecached-*";
	size_t n = strlen(pattern);
	glob_t found;

	for (const char *p = env.socket; *p; p++) {
		pattern[n++] = *p == '/' ? '-' : *p;
		if (*p == '-')
			pattern[n++] = '-';
	}
	strcpy(pattern + n, ".*");
	if (glob(pattern, 0, NULL, &found) != 0)
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		unlink(found.gl_pathv[i]);
	globfree(&found);
}

/* --- memory faults --- */

static __thread sigjmp_buf fault_jump;
static __thread volatile sig_atomic_t fault_expected;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (fault_expected) {
		fault_expected = 0;
		siglongjmp(fault_jump, sig);
	}
	fprintf(stderr, "process %d: unexpected signal %d (%s) at %p\n", (int)getpid(), sig, strsignal(sig), info->si_addr);
	_exit(1);
}

static void catch_faults(void)
{
	struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

	sigaction(SIGBUS, &a, NULL);
	sigaction(SIGSEGV, &a, NULL);
}

int load_signal(const volatile void *p, uint8_t *ret)
{
	int sig = sigsetjmp(fault_jump, 1);

	if (sig)
		return sig;
	fault_expected = 1;
	*ret = *(const volatile uint8_t *)p;
	fault_expected = 0;
	return 0;
}

int store_signal(volatile void *p, uint8_t value)
{
	int sig = sigsetjmp(fault_jump, 1);

	if (sig)
		return sig;
	fault_expected = 1;
	*(volatile uint8_t *)p = value;
	fault_expected = 0;
	return 0;
}

uint8_t load(const volatile void *p)
{
	return *(const volatile uint8_t *)p;
}

void store(volatile void *p, uint8_t value)
{
	*(volatile uint8_t *)p = value;
}

void *map(struct pgc_file *f, size_t len, int prot, int flags, off_t off)
{
	void *p = pgc_mmap(f, NULL, len, prot, flags, off);

	CHECK(p != MAP_FAILED);
	return p;
}

bool page_in_core(const void *p)
{
	unsigned char in = 0;

	CHECK(mincore((void *)((uintptr_t)p & ~(PAGE - 1)), PAGE, &in) == 0);
	return in & 1;
}

void lock_memory(void *p, size_t n)
{
	CHECK(syscall(SYS_mlock, p, n) == 0);
}

void unlock_memory(void *p, size_t n)
{
	CHECK(syscall(SYS_munlock, p, n) == 0);
}

/* --- the daemon's deaths --- */

bool under_keeper(void)
{
	return env.options->keep || killer.every_ms > 0;
}

static void kills_begin(pid_t keeper)
{
	if (!killer.every_ms)
		return;
	atomic_store(&killed->keeper, keeper);
	atomic_store(&killed->state, KILL_MAY);
}

/* When this has returned nobody is killed any more. */
static void kills_end(void)
{
	unsigned may = KILL_MAY;

	if (!killer.every_ms)
		return;
	while (!atomic_compare_exchange_strong(&killed->state, &may, KILL_NO) && may != KILL_NO) {
		may = KILL_MAY;
		pause_ms(1);
	}
}

static uint64_t killer_clock(void)
{
	return killer.all_watched_ms + killer.watched_ms;
}

static void killer_schedule(void)
{
	uint64_t x = killer.rng = killer.rng * 6364136223846793005ull + 1442695040888963407ull;

	killer.next_ms = killer_clock() + killer.every_ms / 2 + (x >> 33) % (killer.every_ms + 1);
}

/* What was spared one test's daemon is not the next one's. */
static void killer_unspare(void)
{
	if (killer.next_ms > killer_clock() + killer.every_ms * 3 / 2)
		killer_schedule();
}

/* It serves at least as long as the test has waited for it: else a busy machine would do little but start daemons. */
static void killer_spare(void)
{
	uint64_t next = killer_clock() + now_ms() - killer.dead_ms;

	if (killer.dead_ms && killer.next_ms < next)
		killer.next_ms = next;
}

/* "" of a process that has just gone. */
static void read_proc(pid_t pid, const char *what, char *ret, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, ret, size - 1) : -1;
	if (fd >= 0)
		close(fd);
	ret[n > 0 ? n : 0] = '\0';
}

/* The keeper's child that is a daemon: not yet the keeper's program, and not what a dead one has left for a moment. 0: none at this moment. */
static pid_t daemon_of(pid_t keeper)
{
	char what[32], children[512], name[32];

	snprintf(what, sizeof(what), "task/%d/children", (int)keeper);
	read_proc(keeper, what, children, sizeof(children));
	for (char *save = NULL, *t = strtok_r(children, " ", &save); t; t = strtok_r(NULL, " ", &save)) {
		pid_t pid = (pid_t)atoi(t);

		read_proc(pid, "comm", name, sizeof(name));
		if (pid > 0 && pid != killer.last && *name && strcmp(name, "pgc-twin\n") != 0 && strcmp(name, "pagecached-keep\n") != 0)
			return pid;
	}
	return 0;
}

/* Connects as a control connection; the answer is still to come. -1: nobody listens. */
static int say_hello(int flags)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct pgc_msg m = {
		.type = PGC_MSG_HELLO, .tag = 1,
		.hello = {.magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .role = PGC_ROLE_CONTROL},
	};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0);

	CHECK(fd >= 0 && strlen(env.socket) < sizeof(a.sun_path));
	strcpy(a.sun_path, env.socket);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || send(fd, &m, sizeof(m), MSG_NOSIGNAL) != sizeof(m)) {
		close(fd);
		return -1;
	}
	return fd;
}

static void killer_forget(void)
{
	if (killer.asked >= 0)
		close(killer.asked);
	killer.asked = -1;
	killer.serves = false;
}

/* Does not wait: one that never comes to serve must not be killed again, since its keeper would give up. */
static void killer_ask(void)
{
	struct pgc_msg m;
	ssize_t n;

	if (killer.asked < 0)
		killer.asked = say_hello(SOCK_NONBLOCK);
	if (killer.asked < 0)
		return;
	n = recv(killer.asked, &m, sizeof(m), 0);
	if (n < 0 && errno == EAGAIN)
		return;
	killer_forget();
	if (n != sizeof(m) || m.status != 0)
		return;
	killer.serves = true;
	killer_spare();
}

/* Called all the time while a test runs. */
static void killer_poll(void)
{
	static uint64_t before;
	uint64_t now = now_ms(), passed = now - before;
	unsigned may = KILL_MAY;
	pid_t pid;

	before = now;
	if (atomic_load(&killed->state) == KILL_NO) {
		killer_forget();
		return;
	}
	if (!killer.serves) {
		killer_ask();
		return;
	}
	killer.watched_ms += passed;
	if (killer_clock() < killer.next_ms || !atomic_compare_exchange_strong(&killed->state, &may, KILL_NOW))
		return;
	pid = daemon_of(atomic_load(&killed->keeper));
	if (pid > 0 && kill(pid, SIGKILL) == 0) {
		killer.last = pid;
		killer.dead_ms = now;
		killer_schedule();
		killer_forget();
	}
	atomic_store(&killed->state, KILL_MAY);
}

/* After a test, before its log goes. Not that a signal was sent counts, but what the keeper has seen. False: it was long enough, and nobody died. */
static bool killer_look(const char *name)
{
	static const char death[] = "was killed by signal 9";
	char *log = read_whole(env.log);
	uint64_t watched = killer.watched_ms;
	unsigned deaths = 0;

	for (const char *p = log; (p = strstr(p, death)); p += strlen(death))
		deaths++;
	free(log);
	killer.deaths += deaths;
	killer.all_watched_ms += watched;
	killer.watched_ms = killer.dead_ms = 0;
	killer_unspare();
	killer_forget();
	atomic_store(&killed->state, KILL_NO);
	if (deaths > 0 || watched < 3 * killer.every_ms + 1000)
		return true;
	fprintf(stderr, "%s: the daemon was to die every %u ms, and has not died in %" PRIu64 " ms\n", name, killer.every_ms, watched);
	return false;
}

static void killer_prepare(void)
{
	const char *ms = getenv("PGC_TEST_KILL_MS");

	killer.every_ms = ms ? (unsigned)atoi(ms) : 0;
	if (!killer.every_ms)
		return;
	killed = shared_memory(sizeof(*killed));
	killer.asked = -1;
	killer.rng = now_ms() ^ (uint64_t)getpid() << 32;
	killer_schedule();
}

/* False: no test saw a death, though some were run. */
static bool killer_sum(const char *group, bool all)
{
	if (!killer.every_ms)
		return true;
	printf("%s: the daemon was killed %u times in %" PRIu64 " ms\n", group, killer.deaths, killer.all_watched_ms);
	if (killer.deaths > 0 || !all)
		return true;
	fprintf(stderr, "%s: failed: it was over before the daemon was killed\n", group);
	return false;
}

/* --- the daemon --- */

char *daemon_log(void)
{
	return read_whole(env.log);
}

static void write_config(void)
{
	const struct test_options *o = env.options;
	const char *tracking = o->tracking ? o->tracking : getenv("PGC_TEST_TRACKING");
	FILE *f = fopen(env.config, "we");

	CHECK(f);
	fprintf(f, "[daemon]\ntest_stores = yes\ndirty_expire = %s\n", o->dirty_expire ? o->dirty_expire : "10min");
	if (tracking)
		fprintf(f, "write_tracking = %s\n", tracking);
	if (getenv("PGC_TEST_LANES"))
		fprintf(f, "lanes = %s\n", getenv("PGC_TEST_LANES"));
	if (o->max_files)
		fprintf(f, "max_files = %u\n", o->max_files);
	if (o->max_mappings)
		fprintf(f, "max_mappings = %u\n", o->max_mappings);
	if (o->max_blocks)
		fprintf(f, "max_blocks = %u\n", o->max_blocks);
	if (o->config)
		fprintf(f, "%s\n", o->config);
	CHECK(fclose(f) == 0);
}

pid_t daemon_spawn(const char *log, char *const extra[])
{
	const struct test_options *o = env.options;
	const char *bin = getenv("PAGECACHED_BIN");
	const char *bpffs = env.bpffs[0] ? env.bpffs : "none";
	const char *memory_max = o->memory_max ? o->memory_max : "1G";
	char workers[16];
	const char *argv[32] = {
		bin, "--config", env.config, "--socket", env.socket, "--state-dir", env.state_dir, "--bpffs", bpffs,
		"--memory-max", memory_max, "--workers", workers,
	};
	size_t n = 0;
	pid_t parent = getpid(), pid;

	if (!bin)
		FAIL("PAGECACHED_BIN is not set");
	snprintf(workers, sizeof(workers), "%u", o->workers ? o->workers : 2);
	while (argv[n])
		n++;
	if (under_keeper())
		argv[n++] = "--keep";
	for (; extra && *extra; extra++) {
		CHECK(n < sizeof(argv) / sizeof(argv[0]) - 1);
		argv[n++] = *extra;
	}
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent || fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
			_exit(126);
		close(fd);
		execv(bin, (char *const *)argv);
		dprintf(2, "cannot run %s: %s\n", bin, strerror(errno));
		_exit(127);
	}
	return pid;
}

int control_try(void)
{
	struct timeval end = {.tv_sec = 30};
	struct pgc_msg m;
	int fd = say_hello(0);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &end, sizeof(end));
	if (recv(fd, &m, sizeof(m), 0) != sizeof(m) || m.type != (PGC_MSG_HELLO | PGC_MSG_REPLY) || m.status != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

void daemon_start(void)
{
	uint64_t end = now_ms() + 20000;
	int fd, st;

	write_config();
	env.daemon = daemon_spawn(env.log, NULL);
	while ((fd = control_try()) < 0) {
		if (waitpid(env.daemon, &st, WNOHANG) == env.daemon) {
			env.daemon = 0;
			FAIL("the daemon ended at its start, status 0x%x", (unsigned)st);
		}
		if (now_ms() > end)
			FAIL("the daemon does not answer");
		pause_ms(5);
	}
	close(fd);
	kills_begin(env.daemon);
}

static void check_log(void)
{
	static const char *const bad[] = {"ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:", "ThreadSanitizer", "Assertion"};
	char *log = daemon_log();

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (strstr(log, bad[i]))
			FAIL("the daemon's log has \"%s\"", bad[i]);
	free(log);
}

pid_t daemon_pid(void)
{
	return (pid_t)status().pid;
}

/* SIGSTOP has come to all threads. */
static bool is_stopped(pid_t pid)
{
	char path[64], line[512];
	struct dirent *e;
	bool all = true;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	CHECK(d);
	while (all && (e = readdir(d))) {
		int fd = -1;
		ssize_t n;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/stat", pid, e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? 0 : read(fd, line, sizeof(line) - 1);
		close(fd);
		line[n > 0 ? n : 0] = 0;
		all = n <= 0 || strstr(line, ") T ");
	}
	closedir(d);
	return all;
}

void stop_process(pid_t pid)
{
	CHECK_EQ(kill(pid, SIGSTOP), 0);
	WAIT_UNTIL(is_stopped(pid));
}

void daemon_kill(void)
{
	pid_t pid = daemon_pid();

	CHECK(under_keeper());
	CHECK(kill(pid, SIGKILL) == 0);
}

/* SIGTERM, and how it ended. */
static int end_daemon(void)
{
	int st;

	CHECK(env.daemon > 0);
	kills_end();
	CHECK(kill(env.daemon, SIGTERM) == 0);
	if (!wait_with_end(env.daemon, &st, STOP_MS))
		FAIL("the daemon does not end on SIGTERM");
	env.daemon = 0;
	check_log();
	return st;
}

void daemon_stop(void)
{
	int st = end_daemon();

	if (!WIFEXITED(st) || WEXITSTATUS(st) != 0)
		FAIL("the daemon ended with status 0x%x, not with exit code 0", (unsigned)st);
}

void daemon_stop_losing(void)
{
	int st = end_daemon();

	/* 0: it has said so before. */
	if (!WIFEXITED(st) || (WEXITSTATUS(st) != 3 && WEXITSTATUS(st) != 0))
		FAIL("the daemon ended with status 0x%x, not with exit code 3", (unsigned)st);
	CHECK(strstr(daemon_log(), "no client came back with its memory"));
}

void drop_privilege(void)
{
	if (geteuid() != 0)
		return;
	CHECK(setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0);
	/* Else /proc/self belongs to root, and the library cannot open its own descriptors again. */
	CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
}

static void set_env_default(const char *name, const char *value)
{
	const char *now = getenv(name);
	char both[512];

	snprintf(both, sizeof(both), "%s%s%s", value, now && *now ? ":" : "", now ? now : "");
	setenv(name, both, 1);
}

static void test_process(test_body body, const struct test_options *o)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	catch_faults();
	signal(SIGPIPE, SIG_IGN);
	/* What runs in the background has these ignored, and so had a shell that is to trap them. */
	signal(SIGHUP, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGQUIT, SIG_DFL);
	setenv("PAGECACHED_SOCKET", env.socket, 1);
	unsetenv("JOURNAL_STREAM");
	unsetenv("NOTIFY_SOCKET");
	unsetenv("LISTEN_FDS");
	set_env_default("ASAN_OPTIONS", "exitcode=99");
	set_env_default("UBSAN_OPTIONS", "print_stacktrace=1");
	CHECK(chdir(env.dir) == 0);
	if (o->as_user && geteuid() == 0) {
		CHECK(chown(env.dir, NOBODY, NOBODY) == 0);
		drop_privilege();
	}
	if (geteuid() != 0)
		env.user = true;
	CHECK(mkdir(env.state_dir, 0700) == 0);
	if (!o->no_daemon)
		daemon_start();
	body();
	if (env.daemon)
		daemon_stop();
	fflush(stdout);
	_exit(0);
}

static void print_log(void)
{
	char *log = read_whole(env.log);
	size_t n = strlen(log);

	if (n)
		fprintf(stderr, "--- the daemon said:\n%s---\n", log + (n > 4000 ? n - 4000 : 0));
	free(log);
}

static uint64_t time_limit_ms(const struct test_options *o)
{
	const char *s = getenv("PGC_TEST_SECONDS");
	int v = s ? atoi(s) : 0;

	if (v > 0)
		return (uint64_t)v * 1000;
	return (o->seconds ? o->seconds : DEFAULT_SECONDS) * 1000 * patience();
}

void system_test_run(const char *name, test_body body, const struct test_options *o)
{
	uint64_t limit = time_limit_ms(o), end = now_ms() + limit;
	bool late = false, died = true;
	siginfo_t info = {0};
	pid_t pid;
	int st;

	if (killer.every_ms && o->no_kills) {
		fprintf(stderr, "%s: not while the daemon is killed: %s\n", name, o->no_kills);
		skip();
	}
	memset(&env, 0, sizeof(env));
	env.options = o;
	env.user = geteuid() != 0;
	snprintf(env.dir, sizeof(env.dir), "%s/%u", base, ++test_number);
	snprintf(env.socket, sizeof(env.socket), "%s/socket", env.dir);
	snprintf(env.state_dir, sizeof(env.state_dir), "%s/state", env.dir);
	snprintf(env.config, sizeof(env.config), "%s/config", env.dir);
	snprintf(env.log, sizeof(env.log), "%s/log", env.dir);
	if (base_small)
		snprintf(env.small, sizeof(env.small), "%s/small", base);
	if (base_bpf && !o->no_bpf)
		snprintf(env.bpffs, sizeof(env.bpffs), "%s/bpf/%u", base, test_number);
	CHECK(mkdir(env.dir, 0755) == 0);

	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		setpgid(0, 0);
		test_process(body, o);
	}
	setpgid(pid, pid);
	while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0) {
		if (now_ms() > end) {
			late = true;
			break;
		}
		if (killer.every_ms)
			killer_poll();
		pause_ms(2);
	}
	kill(-pid, SIGKILL);    /* the test is not reaped yet, so the group is its own */
	waitpid(pid, &st, 0);
	if (killer.every_ms)
		died = killer_look(name);
	if (late)
		fprintf(stderr, "%s: not done within %" PRIu64 " ms\n", name, limit);
	if (late || !WIFEXITED(st) || (WEXITSTATUS(st) != 0 && WEXITSTATUS(st) != EXIT_SKIP))
		print_log();
	remove_tree(env.dir);
	remove_state();
	if (env.bpffs[0])
		remove_tree(env.bpffs);
	if (late)
		fail_msg("%s: not done in time", name);
	if (WIFSIGNALED(st))
		fail_msg("%s: ended by signal %d", name, WTERMSIG(st));
	if (WEXITSTATUS(st) == EXIT_SKIP)
		skip();
	if (WEXITSTATUS(st) != 0)
		fail_msg("%s: exit code %d, see above", name, WEXITSTATUS(st));
	if (!died)
		fail_msg("%s: its daemon was not killed", name);
}

/* What needs root is made before privilege is dropped; it goes with the mount namespace. */
static void make_mounts(bool with_bpf)
{
	char path[128];

	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		return;
	snprintf(path, sizeof(path), "%s/bpf", base);
	base_bpf = with_bpf && mkdir(path, 0755) == 0 && mount("bpf", path, "bpf", 0, "mode=0755") == 0;
	snprintf(path, sizeof(path), "%s/small", base);
	base_small = mkdir(path, 0755) == 0 && mount("small", path, "tmpfs", 0, "size=1m,mode=0777") == 0;
}

static void remove_base(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/bpf", base);
	if (base_bpf)
		umount2(path, MNT_DETACH);
	rmdir(path);
	snprintf(path, sizeof(path), "%s/small", base);
	if (base_small)
		umount2(path, MNT_DETACH);
	rmdir(path);
	remove_tree(base);
}

/* The loader takes LD_PRELOAD apart at spaces and colons: a library in such a folder is named by a link in ours. */
static void name_preload(void)
{
	const char *library = getenv("PAGECACHED_PRELOAD");
	char link[sizeof(base) + 64];

	if (!library || !strpbrk(library, " :"))
		return;
	snprintf(link, sizeof(link), "%s/libpagecached-preload.so", base);
	CHECK(symlink(library, link) == 0);
	CHECK(setenv("PAGECACHED_PRELOAD", link, 1) == 0);
}

/*
 * Most have their state in files: to look for what BPF iterators need, in the kernel's own types, takes a daemon a fifth of a second. Both kinds of state are one to
 * all but state.c.
 */
static bool wants_bpf(const char *group)
{
	static const char *const groups[] = { "advice", "bpf_view", "check", "control", "daemon", "limits", "memory", "run", "security", "stop", "takeover" };

	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		if (strcmp(group, groups[i]) == 0)
			return true;
	return false;
}

int system_tests_main(const char *group, const struct CMUnitTest *tests, size_t n)
{
	const char *tmp = getenv("TMPDIR"), *user = getenv("PGC_TEST_USER"), *only = getenv("PGC_TEST_ONLY");
	bool as_user = user && strcmp(user, "1") == 0;
	pid_t cleaner;
	int pipe_fds[2], r;

	group_name = group;
	umask(022);
	snprintf(base, sizeof(base), "%s/pagecached-test-XXXXXX", tmp && *tmp == '/' ? tmp : "/var/tmp");
	CHECK(mkdtemp(base));
	CHECK(chmod(base, 0755) == 0);
	name_preload();
	CHECK(pipe2(pipe_fds, O_CLOEXEC) == 0);
	if (geteuid() == 0) {
		make_mounts(!as_user && wants_bpf(group));
		if (as_user)
			CHECK(chown(base, NOBODY, NOBODY) == 0);
	}
	/* The folders are root's to remove, also when this process is nobody by then or is killed. */
	fflush(NULL);
	cleaner = fork();
	CHECK(cleaner >= 0);
	if (cleaner == 0) {
		char c;

		setsid();
		close(pipe_fds[1]);
		while (read(pipe_fds[0], &c, 1) < 0 && errno == EINTR)
			;
		remove_base();
		_exit(0);
	}
	close(pipe_fds[0]);
	if (as_user)
		drop_privilege();
	if (only && *only)
		cmocka_set_test_filter(only);
	killer_prepare();
	r = _cmocka_run_group_tests(group_name, tests, n, NULL, NULL);
	if (!killer_sum(group, !only || !*only) && r == 0)
		r = 1;
	close(pipe_fds[1]);
	waitpid(cleaner, NULL, 0);
	return r;
}

/* --- peers --- */

struct peer *peer_start(peer_body fn, void *arg)
{
	struct peer *p = calloc(1, sizeof(*p));
	pid_t parent = getpid();
	int s[2];

	CHECK(p && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s) == 0);
	fflush(NULL);
	p->pid = fork();
	CHECK(p->pid >= 0);
	if (p->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		close(s[0]);
		p->sock = s[1];
		p->inside = true;
		p->pid = getpid();
		env.daemon = 0;
		fn(p, arg);
		fflush(stdout);
		_exit(0);
	}
	close(s[1]);
	p->sock = s[0];
	return p;
}

void peer_tell(struct peer *p, uint64_t value)
{
	CHECK(send(p->sock, &value, sizeof(value), MSG_NOSIGNAL) == sizeof(value));
}

uint64_t peer_hear(struct peer *p)
{
	struct pollfd f = {.fd = p->sock, .events = POLLIN};
	uint64_t value;

	if (poll(&f, 1, 45000 * (int)patience()) <= 0)
		FAIL("no word from the other process");
	if (recv(p->sock, &value, sizeof(value), 0) != sizeof(value))
		FAIL("the other process has ended");
	return value;
}

uint64_t peer_ask(struct peer *p, uint64_t value)
{
	peer_tell(p, value);
	return peer_hear(p);
}

int wait_child(pid_t pid)
{
	int st;

	if (!wait_with_end(pid, &st, 45000))
		FAIL("process %d does not end", (int)pid);
	return st;
}

void expect_exit_0(pid_t pid)
{
	int st = wait_child(pid);

	if (!WIFEXITED(st) || WEXITSTATUS(st) != 0)
		FAIL("process %d ended with status 0x%x", (int)pid, (unsigned)st);
}

void peer_join(struct peer *p)
{
	expect_exit_0(p->pid);
	close(p->sock);
	free(p);
}

void peer_kill(struct peer *p)
{
	CHECK(kill(p->pid, SIGKILL) == 0);
	wait_child(p->pid);
	close(p->sock);
	free(p);
}

void *shared_memory(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

/* --- data --- */

uint8_t pattern_byte(uint64_t off, unsigned gen)
{
	uint64_t x = (off + 1) * 0x9e3779b97f4a7c15ull + gen * 0xd1342543de82ef95ull;

	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ull;
	return (uint8_t)(1 + (x >> 40) % 255);
}

void pattern_fill(void *buf, size_t n, uint64_t off, unsigned gen)
{
	for (size_t i = 0; i < n; i++)
		((volatile uint8_t *)buf)[i] = pattern_byte(off + i, gen);
}

void pattern_check_at(const char *file, int line, const void *buf, size_t n, uint64_t off, unsigned gen)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t have = ((const volatile uint8_t *)buf)[i], want = pattern_byte(off + i, gen);

		if (have != want)
			check_failed(file, line, "byte %" PRIu64 " (page %" PRIu64 ") is 0x%02x, not 0x%02x", off + i, (off + i) / PAGE, have, want);
	}
}

void zero_check_at(const char *file, int line, const void *buf, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((const volatile uint8_t *)buf)[i] != 0)
			check_failed(file, line, "byte %zu is 0x%02x, not 0", i, ((const volatile uint8_t *)buf)[i]);
}

/* --- the store --- */

char *file_path(const char *name)
{
	char *path = NULL;

	if (strchr(name, '/'))
		CHECK(asprintf(&path, "%s", name) > 0);
	else
		CHECK(asprintf(&path, "%s/%s", env.dir, name) > 0);
	return path;
}

void store_write(const char *path, const void *buf, size_t n, off_t off)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	CHECK(fd >= 0);
	while (n) {
		ssize_t r = pwrite(fd, buf, n, off);

		CHECK(r > 0);
		buf = (const char *)buf + r;
		n -= (size_t)r;
		off += r;
	}
	CHECK(fsync(fd) == 0);
	close(fd);
}

char *make_file(const char *name, size_t size, unsigned gen)
{
	char *path = file_path(name), *buf = malloc(size + 1);

	CHECK(buf);
	pattern_fill(buf, size, 0, gen);
	store_write(path, buf, size, 0);
	free(buf);
	return path;
}

static ssize_t read_range(int fd, char *buf, size_t n, off_t off)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = pread(fd, buf + done, n - done, off + (off_t)done);

		if (r < 0)
			return r;
		if (r == 0)
			break;
		done += (size_t)r;
		if (done % PAGE)
			break;
	}
	return (ssize_t)done;
}

/* Reads what is there; returns how much. A plain read and, where there is such a thing, a direct one must agree. */
static size_t store_get(const char *path, void *buf, size_t n, off_t off)
{
	off_t from = off & ~(off_t)(PAGE - 1);
	size_t room = ((size_t)(off - from) + n + PAGE - 1) & ~(PAGE - 1);
	char *a = aligned_alloc(PAGE, room), *b = aligned_alloc(PAGE, room);
	int fd = open(path, O_RDONLY | O_CLOEXEC), direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	ssize_t got, got_direct = -1;
	size_t r;

	CHECK(a && b && fd >= 0);
	if (direct >= 0) {
		got_direct = read_range(direct, b, room, from);
		CHECK(got_direct >= 0);
		close(direct);
	}
	got = read_range(fd, a, room, from);
	CHECK(got >= 0);
	close(fd);
	if (direct >= 0) {
		CHECK_EQ(got, got_direct);
		CHECK(memcmp(a, b, (size_t)got) == 0);
	}
	r = got > off - from ? (size_t)(got - (off - from)) : 0;
	if (r > n)
		r = n;
	memcpy(buf, a + (off - from), r);
	free(a);
	free(b);
	return r;
}

void store_read(const char *path, void *buf, size_t n, off_t off)
{
	CHECK_EQ(store_get(path, buf, n, off), n);
}

/* These may look while the daemon writes, so only a plain read; what it sees is then confirmed by a direct one. */
static bool store_is(const char *path, size_t n, off_t off, int gen)
{
	uint8_t *buf = malloc(n);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool same = true;

	CHECK(buf && fd >= 0);
	if (pread(fd, buf, n, off) != (ssize_t)n)
		same = false;
	close(fd);
	for (size_t i = 0; same && i < n; i++)
		same = buf[i] == (gen < 0 ? 0 : pattern_byte((uint64_t)off + i, (unsigned)gen));
	if (same)
		store_read(path, buf, n, off);
	for (size_t i = 0; same && i < n; i++)
		same = buf[i] == (gen < 0 ? 0 : pattern_byte((uint64_t)off + i, (unsigned)gen));
	free(buf);
	return same;
}

bool store_has(const char *path, size_t n, off_t off, unsigned gen)
{
	return store_is(path, n, off, (int)gen);
}

bool store_is_zero(const char *path, size_t n, off_t off)
{
	return store_is(path, n, off, -1);
}

bool store_has_byte(const char *path, off_t off, uint8_t value)
{
	uint8_t have = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool same;

	CHECK(fd >= 0);
	same = pread(fd, &have, 1, off) == 1 && have == value;
	close(fd);
	if (!same)
		return false;
	return store_get(path, &have, 1, off) == 1 && have == value;
}

off_t store_size(const char *path)
{
	struct stat st;

	CHECK(stat(path, &st) == 0);
	return st.st_size;
}

struct pgc_file *open_file(const char *path, int flags)
{
	struct pgc_file *f = NULL;
	int r = pgc_open(&f, path, flags, 0644);

	if (r < 0)
		FAIL("pgc_open %s: %s", path, strerror(-r));
	CHECK(f);
	return f;
}

struct pgc_file *open_mem(const char *name, size_t size, unsigned gen)
{
	struct pgc_file *f = open_file(name, O_RDWR);
	char *buf = malloc(size);

	CHECK(buf);
	pattern_fill(buf, size, 0, gen);
	for (size_t done = 0; done < size;) {
		ssize_t r = pgc_pwrite(f, buf + done, size - done, (off_t)done);

		CHECK(r > 0);
		done += (size_t)r;
	}
	free(buf);
	CHECK_EQ(pgc_fsync(f), 0);
	drop_clean();
	CHECK_EQ(file_state(name).resident, 0);
	return f;
}

/* --- the daemon's own view --- */

int control_connect(void)
{
	int fd = control_try();

	CHECK(fd >= 0);
	return fd;
}

static int control_fd = -1;

/* One connection a process: a forked one would steal the other's replies. */
static int control(void)
{
	static pid_t owner;
	static pid_t keeper_of;
	int fd = control_fd;
	char byte;

	errno = 0;
	bool dead = fd >= 0 && under_keeper() && owner == getpid() && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0 && errno != EAGAIN;

	if (owner != getpid() || dead || (env.daemon && keeper_of != env.daemon)) {
		if (fd >= 0)
			close(fd);
		if (under_keeper())
			WAIT_UNTIL((fd = control_try()) >= 0);
		else
			fd = control_connect();
		owner = getpid();
		keeper_of = env.daemon;
	}
	return control_fd = fd;
}

/* One more reply to what was asked for on `fd`. False: the daemon has died, which only one under a keeper may. */
static bool control_receive(int fd, struct pgc_msg *m, uint32_t type, uint64_t tag)
{
	if (recv(fd, m, sizeof(*m), 0) != sizeof(*m)) {
		CHECK(under_keeper());
		return false;
	}
	CHECK_EQ(m->type, type | PGC_MSG_REPLY);
	CHECK_EQ(m->tag, tag);
	return true;
}

void control_request(struct pgc_msg *m)
{
	static uint64_t tag;
	uint32_t type = m->type;

	m->tag = ++tag + 1000;
	/* A daemon under a keeper may end at any time: the next one is asked. */
	for (;;) {
		struct pgc_msg reply;
		int fd = control();

		if (send(fd, m, sizeof(*m), MSG_NOSIGNAL) == sizeof(*m) && recv(fd, &reply, sizeof(reply), 0) == sizeof(reply)) {
			*m = reply;
			break;
		}
		CHECK(under_keeper());
	}
	CHECK_EQ(m->type, type | PGC_MSG_REPLY);
	CHECK_EQ(m->tag, tag + 1000);
}

struct pgc_ctl_status_reply status(void)
{
	struct pgc_msg m = {.type = PGC_CTL_STATUS};

	control_request(&m);
	CHECK_EQ(m.status, 0);
	return m.ctl_status_reply;
}

uint64_t cached_bytes(void)
{
	struct pgc_msg m = {.type = PGC_CTL_MEMORY};

	control_request(&m);
	CHECK_EQ(m.status, 0);
	return m.ctl_memory_reply.memory_used - m.ctl_memory_reply.tables;
}

/* Calls `want` for each file until it says yes; once more for all if the daemon dies meanwhile. */
static bool each_file(bool (*want)(const struct pgc_ctl_file_reply *f, void *arg), void *arg, struct pgc_ctl_file_reply *ret, unsigned *ret_n)
{
	struct pgc_msg m = {0};
	bool found = false, more = false;

	for (;;) {
		if (!more) {
			m = (struct pgc_msg){ .type = PGC_CTL_FILES };
			control_request(&m);
			*ret_n = 0;
			found = false;
		}
		CHECK_EQ(m.status, 0);
		if (m.ctl_file_reply.file) {
			++*ret_n;
			if (!found && want(&m.ctl_file_reply, arg)) {
				*ret = m.ctl_file_reply;
				found = true;
			}
		}
		if (!m.ctl_file_reply.more)
			return found;
		more = control_receive(control_fd, &m, PGC_CTL_FILES, m.tag);
	}
}

struct wanted {
	const char *name;
	struct stat st;
};

static bool is_wanted(const struct pgc_ctl_file_reply *f, void *arg)
{
	const struct wanted *w = arg;

	if (w->st.st_ino)
		return f->dev == w->st.st_dev && f->ino == w->st.st_ino;
	return strcmp(f->name, w->name) == 0;
}

bool cached_file(const char *name, struct pgc_ctl_file_reply *ret)
{
	struct wanted w = {.name = name};
	unsigned n;

	if (strncmp(name, "mem:", 4) != 0)
		CHECK(stat(name, &w.st) == 0);
	return each_file(is_wanted, &w, ret, &n);
}

struct pgc_ctl_file_reply file_state(const char *name)
{
	struct pgc_ctl_file_reply r = {0};

	cached_file(name, &r);
	return r;
}

static bool never(const struct pgc_ctl_file_reply *f, void *arg)
{
	(void)f;
	(void)arg;
	return false;
}

unsigned count_files(void)
{
	struct pgc_ctl_file_reply f;
	unsigned n;

	each_file(never, NULL, &f, &n);
	return n;
}

void inject(const char *uri, enum pgc_inject what, uint64_t value, uint32_t count)
{
	struct pgc_msg m = {.type = PGC_CTL_INJECT, .ctl_inject = {.what = what, .count = count, .value = value}};

	CHECK(strlen(uri) < sizeof(m.ctl_inject.uri));
	strcpy(m.ctl_inject.uri, uri);
	control_request(&m);
	CHECK_EQ(m.status, 0);
}

int ctl_stat(const char *path, struct pgc_stat_reply *ret)
{
	struct pgc_msg m = { .type = PGC_CTL_STAT };
	struct stat st;

	CHECK_EQ(stat(path, &st), 0);
	m.ctl_stat = (struct pgc_ctl_stat){
		.dev = st.st_dev, .ino = st.st_ino, .size = (uint64_t)st.st_size, .blocks = (uint64_t)st.st_blocks,
		.mtime_s = st.st_mtim.tv_sec, .ctime_s = st.st_ctim.tv_sec,
		.mtime_ns = (uint32_t)st.st_mtim.tv_nsec, .ctime_ns = (uint32_t)st.st_ctim.tv_nsec,
	};
	control_request(&m);
	*ret = m.stat_reply;
	return -(int)m.status;
}

void drop_clean(void)
{
	struct pgc_msg m = {.type = PGC_CTL_DROP, .ctl_file = {.wait = 1}};

	control_request(&m);
	CHECK_EQ(m.status, 0);
}

int sync_all(void)
{
	struct pgc_msg m = {.type = PGC_CTL_SYNC, .ctl_file = {.wait = 1}};

	control_request(&m);
	return -(int)m.status;
}

void file_clock_tick(void)
{
	struct timespec from, t;

	clock_gettime(CLOCK_REALTIME_COARSE, &from);
	do {
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
		clock_gettime(CLOCK_REALTIME_COARSE, &t);
	} while (t.tv_sec < from.tv_sec || (t.tv_sec == from.tv_sec && t.tv_nsec <= from.tv_nsec));
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

uint64_t look_for_stores(void)
{
	struct pgc_msg m = {.type = PGC_CTL_SYNC, .ctl_file = {.wait = PGC_CTL_SYNC_LOOK}};

	control_request(&m);
	CHECK_EQ(m.status, 0);
	return m.ctl_count_reply.pages;
}

/* --- programs --- */

static char *take_output(int fd)
{
	struct stat st;
	char *text;

	CHECK(fstat(fd, &st) == 0);
	text = malloc((size_t)st.st_size + 1);
	CHECK(text && pread(fd, text, (size_t)st.st_size, 0) == st.st_size);
	text[st.st_size] = '\0';
	close(fd);
	return text;
}

struct output run_program(const char *const argv[])
{
	posix_spawn_file_actions_t actions;
	int out = memfd_create("out", MFD_CLOEXEC), err = memfd_create("err", MFD_CLOEXEC), st, r;
	struct output o = {0};
	pid_t pid;

	CHECK(out >= 0 && err >= 0 && argv[0]);
	/* Not fork(): that is something that a process with mappings notices. */
	CHECK(posix_spawn_file_actions_init(&actions) == 0);
	CHECK(posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) == 0);
	CHECK(posix_spawn_file_actions_adddup2(&actions, out, 1) == 0);
	CHECK(posix_spawn_file_actions_adddup2(&actions, err, 2) == 0);
	r = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
	if (r != 0)
		FAIL("cannot run %s: %s", argv[0], strerror(r));
	posix_spawn_file_actions_destroy(&actions);
	if (!wait_with_end(pid, &st, 40000)) {
		kill(pid, SIGKILL);
		waitpid(pid, &st, 0);
		FAIL("%s %s does not end", argv[0], argv[1] ? argv[1] : "");
	}
	o.code = WIFEXITED(st) ? WEXITSTATUS(st) : -WTERMSIG(st);
	o.out = take_output(out);
	o.err = take_output(err);
	return o;
}

void output_free(struct output *o)
{
	free(o->out);
	free(o->err);
}

const char *pagecachectl(void)
{
	const char *bin = getenv("PAGECACHECTL_BIN");

	if (!bin)
		FAIL("PAGECACHECTL_BIN is not set");
	return bin;
}

json_object *ctl_json(const char *const argv[])
{
	struct output o = run_program(argv);
	json_object *j;

	if (o.code != 0)
		FAIL("pagecachectl %s: exit code %d: %s", argv[1], o.code, o.err);
	j = json_tokener_parse(o.out);
	if (!j)
		FAIL("pagecachectl %s: not JSON: %.300s", argv[1], o.out);
	output_free(&o);
	return j;
}

int64_t json_int(json_object *o, const char *key)
{
	json_object *v = NULL;

	if (!json_object_object_get_ex(o, key, &v))
		FAIL("no \"%s\" in %.600s", key, json_object_to_json_string(o));
	return json_object_get_int64(v);
}

const char *json_string(json_object *o, const char *key)
{
	json_object *v = NULL;

	if (!json_object_object_get_ex(o, key, &v) || json_object_get_type(v) != json_type_string)
		FAIL("no text \"%s\" in %.600s", key, json_object_to_json_string(o));
	return json_object_get_string(v);
}

json_object *bpf_dump(const char *map_name)
{
	const char *bin = getenv("BPFTOOL_BIN");
	char path[256];
	struct output o;
	json_object *all, *values = json_object_new_array();

	snprintf(path, sizeof(path), "%s/%s", env.bpffs, map_name);
	o = RUN(bin && *bin ? bin : "bpftool", "-j", "map", "dump", "pinned", path);
	if (o.code != 0)
		FAIL("bpftool map dump pinned %s: exit code %d: %s%s", path, o.code, o.out, o.err);
	all = json_tokener_parse(o.out);
	CHECK(all && json_object_get_type(all) == json_type_array);
	for (size_t i = 0; i < json_object_array_length(all); i++) {
		json_object *e = json_object_array_get_idx(all, i), *formatted, *value;

		/* Without BTF there would be no "formatted": named fields are what is promised. */
		if (!json_object_object_get_ex(e, "formatted", &formatted) || !json_object_object_get_ex(formatted, "value", &value))
			FAIL("no named fields in %.300s", json_object_to_json_string(e));
		json_object_array_add(values, json_object_get(value));
	}
	json_object_put(all);
	output_free(&o);
	return values;
}
