/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that take more than their part: they are charged, refused or made to wait, and another client hardly notices. One worker serves all of
 * them. Figures of time are compared with those of the same test without the greedy client, and the best of several tries counts: the machine may be busy.
 */
#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#define VICTIM_PAGES  400u
#define GREEDY_PAGES  4096u
#define GREEDY_THREADS 48
#define GREEDY_HANDLES 8
#define TRIES 3
#define SLACK_US 1000.0          /* a moment's preemption is no unfairness */

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* --- faults --- */

/* How long nine of ten faults on pages that the cache has take at most, in microseconds. */
static double fault_us(struct pgc_file *f)
{
	static double took[VICTIM_PAGES];
	uint8_t *m = map(f, VICTIM_PAGES * PAGE, PROT_READ, MAP_SHARED, 0);

	CHECK_EQ(pgc_madvise(m, VICTIM_PAGES * PAGE, MADV_RANDOM), 0);
	/* Downwards: what is mapped with a page lies above it. */
	for (unsigned i = VICTIM_PAGES; i-- > 0;) {
		double from = now_us();

		(void)load(m + i * PAGE);
		took[i] = now_us() - from;
		nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
	}
	CHECK_EQ(pgc_munmap(m, VICTIM_PAGES * PAGE), 0);
	qsort(took, VICTIM_PAGES, sizeof(*took), by_value);
	return took[VICTIM_PAGES * 9 / 10];
}

static void read_in(struct pgc_file *f, size_t size)
{
	char *buf = malloc(size);

	CHECK(buf);
	CHECK_EQ(pgc_pread(f, buf, size, 0), (ssize_t)size);
	free(buf);
}

struct greed {
	_Atomic bool on;
	_Atomic uint64_t faults;
	bool stores;
	unsigned handles;
	struct pgc_file *f[GREEDY_HANDLES];
};

struct greedy_thread { struct greed *greed; unsigned n; };

static void *take_faults(void *arg)
{
	const struct greedy_thread *t = arg;
	struct greed *g = t->greed;
	size_t pages = GREEDY_PAGES / GREEDY_THREADS, len = pages * PAGE;

	for (;;) {
		uint8_t *m;

		while (!atomic_load(&g->on))
			nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
		m = map(g->f[t->n % g->handles], len, PROT_READ | PROT_WRITE, MAP_SHARED, (off_t)(t->n * len));
		CHECK_EQ(pgc_madvise(m, len, MADV_RANDOM), 0);
		for (size_t i = pages; i-- > 0 && atomic_load(&g->on);) {
			uint8_t byte = load(m + i * PAGE);

			if (g->stores)
				store(m + i * PAGE, byte);
			atomic_fetch_add_explicit(&g->faults, g->stores ? 2 : 1, memory_order_relaxed);
		}
		CHECK_EQ(pgc_munmap(m, len), 0);
	}
	return NULL;
}

static void greedy_body(struct peer *p, void *arg)
{
	static struct greedy_thread threads[GREEDY_THREADS];
	struct greed *g = arg;
	pthread_t thread;

	for (unsigned i = 0; i < g->handles; i++)
		g->f[i] = open_file("greedy", O_RDWR);
	read_in(g->f[0], GREEDY_PAGES * PAGE);
	for (unsigned i = 0; i < GREEDY_THREADS; i++) {
		threads[i] = (struct greedy_thread){g, i};
		CHECK(pthread_create(&thread, NULL, take_faults, &threads[i]) == 0);
	}
	peer_tell(p, 1);
	for (;;)
		pause();
}

static void faults_wait_for_no_other(bool stores, unsigned handles)
{
	struct greed *g = shared_memory(sizeof(*g));
	double alone = 0, beside = 0;
	struct pgc_file *f;
	struct peer *p;

	make_file("victim", VICTIM_PAGES * PAGE, 1);
	make_file("greedy", GREEDY_PAGES * PAGE, 2);
	g->stores = stores;
	g->handles = handles;
	p = peer_start(greedy_body, g);
	peer_hear(p);
	f = open_file("victim", O_RDONLY);
	read_in(f, VICTIM_PAGES * PAGE);
	for (unsigned i = 0; i < TRIES; i++) {
		uint64_t faults;

		alone = fault_us(f);
		atomic_store(&g->on, true);
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
		faults = atomic_load(&g->faults);
		beside = fault_us(f);
		faults = atomic_load(&g->faults) - faults;
		atomic_store(&g->on, false);
		CHECK(faults > VICTIM_PAGES); /* it was greedy */
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
		if (beside < 3 * alone + SLACK_US)
			break;
		if (i == TRIES - 1)
			FAIL("nine of ten faults take up to %.0f us alone, and %.0f us beside %llu faults of another", alone, beside,
			     (unsigned long long)faults);
	}
	peer_kill(p);
}

SYSTEM_TEST(loads_of_a_greedy_client_delay_nobody, .workers = 1) { faults_wait_for_no_other(false, 1); }
SYSTEM_TEST(first_stores_of_a_greedy_client_delay_nobody, .workers = 1) { faults_wait_for_no_other(true, 1); }
SYSTEM_TEST(many_handles_are_no_more_than_one, .workers = 1) { faults_wait_for_no_other(false, GREEDY_HANDLES); }

/* --- limits of a user --- */

static void need_root(void)
{
	if (geteuid() != 0)
		skip_test("needs root, to be another user");
}

static struct peer *peer_of_nobody(peer_body body, void *arg)
{
	struct peer *p;

	CHECK(chmod("f", 0666) == 0 && chmod(".", 0755) == 0);
	p = peer_start(body, arg);
	return p;
}

#define HANDLES 16

static void opens_to_the_limit(struct peer *p, void *arg)
{
	struct pgc_file *f[HANDLES], *more;

	drop_privilege();
	for (unsigned i = 0; i < HANDLES; i++)
		f[i] = open_file("f", O_RDONLY);
	CHECK_EQ(pgc_open(&more, "f", O_RDONLY, 0), -EMFILE);
	peer_tell(p, 1);
	peer_hear(p);
	CHECK_EQ(pgc_open(&more, "f", O_RDONLY, 0), -EMFILE);
	CHECK_EQ(pgc_close(f[0]), 0);
	WAIT_UNTIL(pgc_open(&more, "f", O_RDONLY, 0) == 0);
}

SYSTEM_TEST(opens_to_the_limit_are_refused_and_others_are_not, .config = "max_handles = 16")
{
	struct pgc_file *f[2 * HANDLES];
	struct peer *p;

	need_root();
	make_file("f", 10 * PAGE, 1);
	p = peer_of_nobody(opens_to_the_limit, NULL);
	peer_hear(p);
	CHECK_EQ(file_state("f").handles, HANDLES);
	for (unsigned i = 0; i < 2 * HANDLES; i++) {
		uint8_t byte;

		f[i] = open_file("f", O_RDONLY);
		CHECK_EQ(pgc_pread(f[i], &byte, 1, 5), 1);
	}
	peer_tell(p, 1);
	peer_join(p);
}

struct forks {
	_Atomic unsigned made;
	_Atomic int refused;           /* what an open said afterwards */
};

/* Forks for ever; its children live until it is killed, and have the file mapped. */
static void forks_madly(struct peer *p, void *arg)
{
	struct forks *forks = arg;
	struct pgc_file *f;
	uint8_t *m;
	int hold[2];

	drop_privilege();
	CHECK(pipe(hold) == 0);
	f = open_file("f", O_RDWR);
	m = map(f, 10 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	store(m, 7);
	peer_tell(p, 1);
	for (;;) {
		pid_t pid = fork();

		if (pid == 0) {
			char byte;

			close(hold[1]);
			(void)!read(hold[0], &byte, 1);
			_exit(0);
		}
		if (pid > 0)
			atomic_fetch_add(&forks->made, 1);
	}
}

static void opens_beside_the_forker(struct peer *p, void *arg)
{
	struct forks *forks = arg;
	struct pgc_file *f;

	drop_privilege();
	peer_hear(p);
	atomic_store(&forks->refused, -pgc_open(&f, "f", O_RDONLY, 0));
	peer_tell(p, 1);
}

SYSTEM_TEST(a_mad_forker_waits_and_its_user_opens_nothing_more, .config = "max_handles = 16", .tracking = "sync")
{
	struct forks *forks = shared_memory(sizeof(*forks));
	struct peer *p, *q;
	struct pgc_file *f;
	unsigned made;
	uint8_t *m;

	need_root();
	make_file("f", 10 * PAGE, 1);
	make_file("g", 10 * PAGE, 1);
	p = peer_of_nobody(forks_madly, forks);
	q = peer_start(opens_beside_the_forker, forks);
	peer_hear(p);
	if (!(file_state("f").flags & PGC_FILE_WRITABLE))
		FAIL("the file is not open");
	/* Twice the handles that it may open, and no more. */
	WAIT_UNTIL(file_state("f").handles >= 2 * HANDLES);
	for (uint64_t until = now_ms() + 300; now_ms() < until;)
		CHECK(file_state("f").handles <= 2 * HANDLES);
	made = atomic_load(&forks->made);
	CHECK(made <= 2 * HANDLES);
	/* Its user is refused, and others open, load, store and write out, also the file of the forker, whose process cannot be asked meanwhile. */
	peer_ask(q, 1);
	CHECK_EQ(atomic_load(&forks->refused), EMFILE);
	for (int i = 0; i < 2; i++) {
		f = open_file(i ? "f" : "g", O_RDWR);
		m = map(f, 10 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
		store(m + PAGE, 9);
		CHECK_EQ(pgc_fsync(f), 0);
		CHECK(store_has_byte(i ? "f" : "g", PAGE, 9));
		CHECK_EQ(pgc_munmap(m, 10 * PAGE), 0);
		CHECK_EQ(pgc_close(f), 0);
	}
	peer_join(q);
	/* It can be killed while it waits, and its children end with it. */
	peer_kill(p);
	WAIT_UNTIL(file_state("f").handles == 0);
	CHECK(store_has_byte("f", 0, 7));
}

static void fork_and_end(struct peer *p, void *arg)
{
	struct forks *forks = arg;
	struct pgc_file *f;

	drop_privilege();
	f = open_file("f", O_RDWR);
	map(f, 10 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	for (unsigned i = 0; i < 3 * HANDLES; i++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
			_exit(0);
		}
		atomic_fetch_add(&forks->made, 1);
	}
	while (wait(NULL) > 0)
		;
}

SYSTEM_TEST(forks_that_waited_go_on_when_children_end, .config = "max_handles = 16")
{
	struct forks *forks = shared_memory(sizeof(*forks));
	struct peer *p;

	need_root();
	make_file("f", 10 * PAGE, 1);
	p = peer_of_nobody(fork_and_end, forks);
	WAIT_UNTIL(atomic_load(&forks->made) == 3 * HANDLES);
	peer_join(p);
	WAIT_UNTIL(file_state("f").handles == 0);
}

/* --- connections --- */

#define CONNECTIONS_MAX 512

static int connected(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	strcpy(a.sun_path, env.socket);
	return connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? fd : (close(fd), -1);
}

static void connects_without_end(struct peer *p, void *arg)
{
	static int fd[2 * CONNECTIONS_MAX];
	unsigned refused = 0;
	char byte;

	CHECK(setrlimit(RLIMIT_NOFILE, &(struct rlimit){4096, 4096}) == 0);
	drop_privilege();
	for (unsigned i = 0; i < 2 * CONNECTIONS_MAX; i++)
		fd[i] = connected();
	/* Those above the limit are hung up on. */
	for (uint64_t until = now_ms() + WAIT_MS; refused < CONNECTIONS_MAX && now_ms() < until;) {
		refused = 0;
		for (unsigned i = 0; i < 2 * CONNECTIONS_MAX; i++)
			refused += fd[i] < 0 || recv(fd[i], &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
	}
	CHECK_EQ(refused, CONNECTIONS_MAX);
	peer_tell(p, 1);
	peer_hear(p);
}

SYSTEM_TEST(connections_to_the_limit_are_refused_and_others_are_not)
{
	struct pgc_file *f;
	struct peer *p;
	uint8_t byte;

	need_root();
	make_file("f", 10 * PAGE, 1);
	p = peer_of_nobody(connects_without_end, NULL);
	peer_hear(p);
	f = open_file("f", O_RDONLY);
	CHECK_EQ(pgc_pread(f, &byte, 1, 5), 1);
	peer_tell(p, 1);
	peer_join(p);
}

/* --- a store that does not answer --- */

#define HANG_US   4000000u
#define LONGEST_US 1500000.0     /* of what has nothing to do with it */

static void waits_for_the_store(struct peer *p, void *arg)
{
	struct pgc_file *f = open_mem("mem:hung", 64 * PAGE, 1);
	uint8_t *m = map(f, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	pid_t pid;

	CHECK_EQ(pgc_madvise(m, 64 * PAGE, MADV_RANDOM), 0);
	store(m, 1);
	inject("mem:hung", PGC_INJECT_READ_DELAY, HANG_US, 0);
	inject("mem:hung", PGC_INJECT_WRITE_DELAY, HANG_US, 0);
	peer_tell(p, 1);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		(void)load(m + 20 * PAGE);
		_exit(0);
	}
	(void)pgc_fsync(f);
	wait_child(pid);
}

/* All that others may want of the daemon. Returns how long the longest of it took. */
static double others_work(const char *path, size_t size)
{
	double longest = 0;
	struct pgc_file *f;
	uint8_t *m;

#define timed(call) do { double from = now_us(); call; from = now_us() - from; longest = from > longest ? from : longest; } while (0)
	timed(f = open_file(path, O_RDWR));
	timed(m = map(f, size, PROT_READ | PROT_WRITE, MAP_SHARED, 0));
	for (size_t off = 0; off < size; off += PAGE)
		timed((void)load(m + off));
	timed(store(m + 3 * PAGE, 5));
	timed(CHECK_EQ(pgc_fsync(f), 0));
	timed(CHECK_EQ(pgc_pwrite(f, "x", 1, 10), 1));
	timed(CHECK_EQ(pgc_ftruncate(f, (off_t)size / 2), 0));
	timed(CHECK_EQ(RUN(pagecachectl(), "sync", path).code, 0));
	timed((void)status());
	timed(CHECK_EQ(pgc_munmap(m, size), 0));
	timed(CHECK_EQ(pgc_close(f), 0));
#undef timed
	return longest;
}

SYSTEM_TEST(a_store_that_hangs_holds_no_other_file, .workers = 1, .memory_max = "16M")
{
	struct peer *p = peer_start(waits_for_the_store, NULL);
	char *path = make_file("f", 32 << 20, 1);
	double longest;

	peer_hear(p);
	WAIT_UNTIL(file_state("mem:hung").writeback > 0);
	/* Twice the memory, so that room is made. */
	longest = others_work(path, 32 << 20);
	CHECK(file_state("mem:hung").writeback > 0);
	if (longest > LONGEST_US)
		FAIL("something took %.0f us while the store of another file hung", longest);
	inject("mem:hung", PGC_INJECT_READ_DELAY, 0, 0);
	inject("mem:hung", PGC_INJECT_WRITE_DELAY, 0, 0);
	peer_kill(p);
}

/* --- where the worker runs --- */

#define FAULTS 200u
#define BURSTS 40u

static int one_processor(cpu_set_t *ret_all, bool second)
{
	bool skip = second;

	CHECK_EQ(sched_getaffinity(0, sizeof(*ret_all), ret_all), 0);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, ret_all)) {
			if (!skip)
				return i;
			skip = false;
		}
	skip_test("one processor alone");
}

/* Of the daemon that is called "worker 0": the test has one. */
static pid_t worker_thread(void)
{
	pid_t found = 0;
	char script[128];
	struct output o;

	snprintf(script, sizeof(script), "cd /proc/%d/task && grep -l '^worker 0$' */comm", (int)daemon_pid());
	o = RUN("sh", "-c", script);
	found = atoi(o.out);
	output_free(&o);
	CHECK(found > 0);
	return found;
}

static bool is_on(pid_t tid, int cpu)
{
	cpu_set_t now;

	CHECK_EQ(sched_getaffinity(tid, sizeof(now), &now), 0);
	return CPU_COUNT(&now) == 1 && CPU_ISSET(cpu, &now);
}

static bool is_anywhere(pid_t tid, const cpu_set_t *all)
{
	cpu_set_t now;

	CHECK_EQ(sched_getaffinity(tid, sizeof(now), &now), 0);
	return CPU_EQUAL(&now, all);
}

static void confine(pid_t tid, int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	CHECK_EQ(sched_setaffinity(tid, sizeof(one), &one), 0);
}

static uint8_t *map_at_random(const char *name)
{
	struct pgc_file *f = open_file(make_file(name, BURSTS * FAULTS * PAGE, 1), O_RDWR);
	uint8_t *m = map(f, BURSTS * FAULTS * PAGE, PROT_READ, MAP_SHARED, 0);

	CHECK_EQ(pgc_madvise(m, BURSTS * FAULTS * PAGE, MADV_RANDOM), 0);
	return m;
}

/* Each a fault of its own. */
static void fault_burst(const uint8_t *m, unsigned burst)
{
	for (unsigned i = 0; i < FAULTS; i++) {
		size_t at = ((size_t)i * BURSTS + burst) * PAGE;

		CHECK_EQ(load(m + at), pattern_byte(at, 1));
	}
}

SYSTEM_TEST(worker_comes_to_a_thread_on_one_processor_and_leaves_it, .workers = 1, .no_kills = "each daemon has another worker")
{
	cpu_set_t all;
	int cpu = one_processor(&all, true);
	pid_t worker = worker_thread();
	uint8_t *m = map_at_random("f");
	bool came = false;

	CHECK(is_anywhere(worker, &all));
	confine(0, cpu);
	for (unsigned i = 0; i < BURSTS && !came; i++) {
		fault_burst(m, i);
		came = is_on(worker, cpu);
	}
	CHECK(came);
	WAIT_UNTIL(is_anywhere(worker, &all));
}

SYSTEM_TEST(worker_follows_nobody_who_is_on_several_processors, .workers = 1, .no_kills = "each daemon has another worker")
{
	cpu_set_t all;
	int cpu = one_processor(&all, true);
	pid_t worker = worker_thread();
	uint8_t *m = map_at_random("f");

	for (unsigned i = 0; i < BURSTS; i++) {
		fault_burst(m, i);
		CHECK(!is_on(worker, cpu));
		CHECK(is_anywhere(worker, &all));
	}
}

SYSTEM_TEST(worker_stays_where_it_was_put, .workers = 1, .no_kills = "each daemon has another worker")
{
	cpu_set_t all;
	int cpu = one_processor(&all, false), other = one_processor(&all, true);
	pid_t worker = worker_thread();
	uint8_t *m = map_at_random("f");

	confine(worker, other);
	confine(0, cpu);
	for (unsigned i = 0; i < BURSTS; i++) {
		fault_burst(m, i);
		CHECK(is_on(worker, other));
	}
}

SYSTEM_TESTS_MAIN("fairness",
	cmocka_unit_test(loads_of_a_greedy_client_delay_nobody),
	cmocka_unit_test(first_stores_of_a_greedy_client_delay_nobody),
	cmocka_unit_test(many_handles_are_no_more_than_one),
	cmocka_unit_test(opens_to_the_limit_are_refused_and_others_are_not),
	cmocka_unit_test(a_mad_forker_waits_and_its_user_opens_nothing_more),
	cmocka_unit_test(forks_that_waited_go_on_when_children_end),
	cmocka_unit_test(connections_to_the_limit_are_refused_and_others_are_not),
	cmocka_unit_test(a_store_that_hangs_holds_no_other_file),
	cmocka_unit_test(worker_comes_to_a_thread_on_one_processor_and_leaves_it),
	cmocka_unit_test(worker_follows_nobody_who_is_on_several_processors),
	cmocka_unit_test(worker_stays_where_it_was_put))
