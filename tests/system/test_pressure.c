/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache gives way when its memory cgroup runs short, and takes the memory back later. Daemon, test and hog run in a cgroup of their own, which a process
 * outside of it removes when all of them are gone, however the test ends.
 */
#include "harness.h"

#define MIB (1ul << 20)
#ifdef __SANITIZE_ADDRESS__
#define OVERHEAD (24 * MIB)      /* memory of the sanitizer's own, some of it for each thread of the daemon */
#else
#define OVERHEAD 0
#endif
#define LIMIT (256 * MIB + OVERHEAD)
#define FILE_SIZE (140 * MIB)
#define HOG_SIZE (150 * MIB + OVERHEAD)

static struct {
	char folder[128];
	bool v1;
} cgroup;

static bool try_write(const char *folder, const char *name, const char *text)
{
	char path[256];
	bool good;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (fd >= 0)
		close(fd);
	return good;
}

static bool set_number(const char *name, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	return try_write(cgroup.folder, name, text);
}

static bool has_file(const char *folder, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return access(path, F_OK) == 0;
}

/* Removes the cgroup when the last process that holds the other end of the pipe is gone: us, our peers, and the daemon until it runs its program. */
static void start_cleaner(void)
{
	int hold[2], ready[2];
	pid_t pid;
	char c;

	CHECK(pipe2(hold, O_CLOEXEC) == 0 && pipe2(ready, O_CLOEXEC) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		uint64_t end;

		/* What kills the test kills its process group. */
		setsid();
		close(hold[1]);
		if (write(ready[1], "r", 1) != 1)
			_exit(1);
		close(ready[1]);
		while (read(hold[0], &c, 1) < 0 && errno == EINTR)
			;
		end = now_ms() + 20000;
		while (rmdir(cgroup.folder) < 0 && errno == EBUSY && now_ms() < end)
			nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
		_exit(0);
	}
	close(hold[0]);
	close(ready[1]);
	CHECK(read(ready[0], &c, 1) == 1);
	close(ready[0]);
}

/* A cgroup with LIMIT, in which this process and all that it makes from now on are. */
static void enter_cgroup(void)
{
	static const char v1_root[] = "/sys/fs/cgroup/memory", v2_root[] = "/sys/fs/cgroup";
	const char *root = v1_root;

	cgroup.v1 = has_file(v1_root, "memory.limit_in_bytes");
	if (!cgroup.v1) {
		char controllers[160], *text;

		root = v2_root;
		snprintf(controllers, sizeof(controllers), "%s/cgroup.controllers", root);
		text = read_whole(controllers);
		if (!strstr(text, "memory") || !try_write(root, "cgroup.subtree_control", "+memory"))
			skip_test("no memory cgroups");
		free(text);
	}
	snprintf(cgroup.folder, sizeof(cgroup.folder), "%s/pgc-test-%d", root, (int)getpid());
	if (mkdir(cgroup.folder, 0755) < 0)
		skip_test("cannot make a memory cgroup");
	start_cleaner();
	CHECK(set_number(cgroup.v1 ? "memory.limit_in_bytes" : "memory.max", LIMIT));
	if (!cgroup.v1 && has_file(cgroup.folder, "memory.swap.max"))
		CHECK(set_number("memory.swap.max", 0));
	CHECK(set_number("cgroup.procs", (uint64_t)getpid()));
}

/* How many processes of the cgroup the kernel has killed. */
static uint64_t killed(void)
{
	char path[256], *text, *at;
	uint64_t n;

	snprintf(path, sizeof(path), "%s/%s", cgroup.folder, cgroup.v1 ? "memory.oom_control" : "memory.events");
	text = read_whole(path);
	at = strstr(text, "\noom_kill ");
	CHECK(at);
	n = strtoull(at + strlen("\noom_kill "), NULL, 10);
	free(text);
	return n;
}

static struct pgc_ctl_memory_reply memory(void)
{
	struct pgc_msg m = {.type = PGC_CTL_MEMORY};

	control_request(&m);
	CHECK_EQ(m.status, 0);
	return m.ctl_memory_reply;
}

static bool is_within_limit(void)
{
	struct pgc_ctl_memory_reply r = memory();

	return r.memory_used <= r.memory_limit;
}

static bool is_limited(void)
{
	struct pgc_ctl_memory_reply r = memory();

	return r.memory_limit < r.memory_max;
}

static unsigned logged(const char *text)
{
	char *log = daemon_log();
	unsigned n = 0;

	for (const char *at = log; (at = strstr(at, text)); at++)
		n++;
	free(log);
	return n;
}

/* Takes memory in steps, says so, and gives it back when it is told. */
static void hog(struct peer *p, void *arg)
{
	uint8_t *m;

	(void)arg;
	(void)peer_hear(p);
	m = mmap(NULL, HOG_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(m != MAP_FAILED);
	for (size_t at = 0; at < HOG_SIZE; at += 2 * MIB) {
		memset(m + at, 1, 2 * MIB);
		nanosleep(&(struct timespec){.tv_nsec = 40000000}, NULL);
	}
	peer_tell(p, 1);
	(void)peer_hear(p);
}

/* Maps a file and reads all of it. */
static const uint8_t *fill_cache(const char *path)
{
	struct pgc_file *f = open_file(path, O_RDONLY);
	const uint8_t *m = map(f, FILE_SIZE, PROT_READ, MAP_SHARED, 0);

	PATTERN_CHECK(m, FILE_SIZE, 0, 1);
	CHECK(memory().memory_used >= FILE_SIZE);
	CHECK_EQ(logged("memory pressure"), 0);
	return m;
}

SYSTEM_TEST(cache_gives_way_to_a_hog_and_nobody_is_killed, .memory_max = "192M", .no_daemon = true, .seconds = 150)
{
	char *path = make_file("f", FILE_SIZE, 1);
	struct pgc_ctl_memory_reply r;
	const uint8_t *m;
	struct peer *p;

	enter_cgroup();
	p = peer_start(hog, NULL);
	daemon_start();
	m = fill_cache(path);
	CHECK_EQ(peer_ask(p, 1), 1);
	/* Both together have never had room for all of it. */
	r = memory();
	CHECK(r.memory_used < LIMIT - HOG_SIZE);
	CHECK(r.memory_limit < r.memory_max);
	WAIT_UNTIL(is_within_limit());
	CHECK_EQ(memory().pressure_episodes, 1);
	CHECK_EQ(logged("memory pressure: "), 1);
	CHECK_EQ(killed(), 0);
	PATTERN_CHECK(m, 8 * MIB, 0, 1);
	peer_tell(p, 1);
	peer_join(p);
	WAIT_UNTIL_MS(!is_limited(), 40000);
	CHECK_EQ(logged("memory pressure is over"), 1);
	CHECK_EQ(logged("memory pressure: "), 1);
	CHECK_EQ(killed(), 0);
	PATTERN_CHECK(m, FILE_SIZE, 0, 1);
}

SYSTEM_TEST(cache_stays_below_a_limit_that_does_not_kill, .memory_max = "192M", .no_daemon = true, .seconds = 120)
{
	char *path = make_file("f", FILE_SIZE, 1);
	const char *high;

	enter_cgroup();
	high = cgroup.v1 ? "memory.soft_limit_in_bytes" : "memory.high";
	daemon_start();
	(void)fill_cache(path);
	CHECK(set_number(high, 120 * MIB));
	WAIT_UNTIL(memory().memory_limit < 120 * MIB && is_within_limit());
	CHECK_EQ(logged("memory pressure: "), 1);
	CHECK(set_number(high, LIMIT));
	WAIT_UNTIL_MS(!is_limited(), 40000);
	CHECK_EQ(logged("memory pressure is over"), 1);
}

SYSTEM_TESTS_MAIN("pressure",
	cmocka_unit_test(cache_gives_way_to_a_hog_and_nobody_is_killed),
	cmocka_unit_test(cache_stays_below_a_limit_that_does_not_kill))
