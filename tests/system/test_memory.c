/* SPDX-License-Identifier: Apache-2.0 */
/* The budget, as the daemon counts it and as the kernel does, and the limits of what is dirty. */
#include <dirent.h>
#include <sys/syscall.h>

#include "memory_tools.h"

#define MAX_MIB 64ul
#define SLACK (4 * MIB)                /* what may be used above the budget: 1 % or 4 MiB */

static uint64_t used(void) { return memory().memory_used; }

/* Bytes of the files' memory, as the kernel has them: the blocks of the daemon's memfds. */
static uint64_t memfd_bytes(void)
{
	uint64_t bytes = 0;
	ino_t seen[256];
	size_t n = 0;
	struct dirent *e;
	char path[600], name[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)env.daemon);
	dir = opendir(path);
	CHECK(dir);
	while ((e = readdir(dir))) {
		struct stat st;
		bool known = false;
		ssize_t len;

		snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)env.daemon, e->d_name);
		len = readlink(path, name, sizeof(name) - 1);
		if (len < 0)
			continue;
		name[len] = 0;
		if (strncmp(name, "/memfd:pagecached:", 18) != 0 || stat(path, &st) != 0)
			continue;
		for (size_t i = 0; i < n && !known; i++)
			known = seen[i] == st.st_ino;
		if (known)
			continue; /* a second descriptor of the same */
		CHECK(n < sizeof(seen) / sizeof(seen[0]));
		seen[n++] = st.st_ino;
		bytes += (uint64_t)st.st_blocks * 512;
	}
	closedir(dir);
	return bytes;
}

static uint64_t distance(uint64_t a, uint64_t b) { return a > b ? a - b : b - a; }

/* What is charged is what there is: looks until nothing moves any more. */
static void expect_agreement(void)
{
	struct pgc_ctl_memory_reply m = {0};
	unsigned workers = env.options->workers ? env.options->workers : 2;
	uint64_t there = 0, end = now_ms() + WAIT_MS;

	while (now_ms() < end) {
		m = memory();
		there = memfd_bytes();
		/* The buffer holds on to a little of what it does not use: 128 pages a worker. */
		if (there == m.resident * PAGE &&
		    distance(m.memory_used, there + m.second_chance * PAGE + m.tables) <= workers * 128 * PAGE)
			return;
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	}
	FAIL("used %" PRIu64 ", resident %" PRIu64 " pages, second chance %" PRIu64 " pages, tables %" PRIu64 ", the memfds have %" PRIu64,
	     m.memory_used, m.resident, m.second_chance, m.tables, there);
}

struct load {
	const char *path;
	size_t size;
	unsigned gen;
};

static void loads(struct peer *p, void *arg)
{
	const struct load *l = arg;
	struct pgc_file *f = open_file(l->path, O_RDWR);
	uint8_t *m = map(f, l->size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (int i = 0; i < 2; i++)
		scan(m, l->size, l->gen);
	peer_tell(p, 1);
}

/* Stores over the bytes behind the stamps, in every page. */
static void stores(struct peer *p, void *arg)
{
	const struct load *l = arg;
	struct pgc_file *f = open_file(l->path, O_RDWR);
	uint8_t *m = map(f, l->size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (unsigned i = 1; i <= 2; i++) {
		for (uint64_t page = 0; page < l->size / PAGE; page++)
			store(m + page * PAGE + 100, (uint8_t)i);
		scan(m, l->size, l->gen);
	}
	for (uint64_t page = 0; page < l->size / PAGE; page++)
		CHECK_EQ(load(m + page * PAGE + 100), 2);
	CHECK_EQ(pgc_fsync(f), 0);
	peer_tell(p, 1);
}

static void calls(struct peer *p, void *arg)
{
	const struct load *l = arg;
	struct pgc_file *f = open_file(l->path, O_RDWR);

	for (int i = 0; i < 2; i++) {
		scan_by_calls(f, l->size, l->gen);
		for (uint64_t page = 0; page < l->size / PAGE; page += 3)
			CHECK_EQ(pgc_pwrite(f, "written", 7, (off_t)(page * PAGE + 200)), 7);
	}
	CHECK_EQ(pgc_fsync(f), 0);
	peer_tell(p, 1);
}

/* Three processes, three files that are each nearly as large as the memory, three ways. Calls `sample` all the while. */
static void load_heavily(void (*sample)(void *arg), void *arg)
{
	static struct load l[3] = {{"a", 48 * MIB, 1}, {"b", 48 * MIB, 2}, {"c", 48 * MIB, 3}};
	peer_body body[3] = {loads, stores, calls};
	struct peer *p[3];

	for (int i = 0; i < 3; i++) {
		l[i].path = make_stamped(l[i].path, l[i].size, l[i].gen);
		p[i] = peer_start(body[i], &l[i]);
	}
	for (int left = 3; left > 0;) {
		for (int i = 0; i < 3; i++) {
			int st;

			if (p[i] && waitpid(p[i]->pid, &st, WNOHANG) == p[i]->pid) {
				CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 0);
				p[i] = NULL;
				left--;
			}
		}
		sample(arg);
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
}

static void sample_budget(void *arg)
{
	uint64_t *most = arg, now = used(), there = memfd_bytes();

	if (now > MAX_MIB * MIB + SLACK)
		FAIL("%" PRIu64 " bytes are used", now);
	/* The files are looked at one after the other, while pages of one make room for another: what is too much is so at every look. */
	for (int looks = 1; there > MAX_MIB * MIB + SLACK; looks++) {
		if (looks == 5)
			FAIL("the memfds have %" PRIu64 " bytes", there);
		there = memfd_bytes();
	}
	*most = now > *most ? now : *most;
}

/* --- the budget --- */

SYSTEM_TEST(memory_stays_within_the_budget_whatever_the_load, .memory_max = "64M", .workers = 2, .seconds = 180)
{
	uint64_t most = 0;

	load_heavily(sample_budget, &most);
	CHECK(most > MAX_MIB * MIB * 9 / 10); /* all of it was wanted */
	CHECK(memory().second_chance > 0);
	expect_agreement();
}

SYSTEM_TEST(memory_stays_within_the_budget_with_one_worker_and_fifo, .memory_max = "64M", .workers = 1, .seconds = 180,
	    .config = "policy = fifo")
{
	uint64_t most = 0;

	load_heavily(sample_budget, &most);
	CHECK(most > MAX_MIB * MIB * 9 / 10);
	expect_agreement();
}

struct usage {
	struct test_cgroup cgroup;
	uint64_t at_start, tables_at_start, most;
};

/*
 * Of the kernel's count only what grew since the start is compared, since code, stacks and rings of the daemon are no part of the budget. The
 * kernel charges in batches of up to 64 pages a processor, and the heap and the page tables of what is mapped make some noise: hence SLACK.
 * A sanitizer's own memory is none that the daemon knows of.
 */
#if defined(__SANITIZE_ADDRESS__)
#define HEAP_NOISE (256 * MIB)
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HEAP_NOISE (256 * MIB)
#endif
#endif
#ifndef HEAP_NOISE
#define HEAP_NOISE 0ul
#endif

static void sample_usage(void *arg)
{
	struct usage *u = arg;
	uint64_t now = cgroup_usage(&u->cgroup), limit = MAX_MIB * MIB - u->tables_at_start + SLACK + HEAP_NOISE;

	now = now > u->at_start ? now - u->at_start : 0;
	if (now > limit)
		FAIL("the daemon's cgroup has %" PRIu64 " bytes more than at the start, not at most %" PRIu64 "; it says that %" PRIu64 " are used",
		     now, limit, used());
	u->most = now > u->most ? now : u->most;
}

SYSTEM_TEST(the_kernel_counts_no_more_than_the_budget, .memory_max = "64M", .workers = 2, .seconds = 180, .no_daemon = true)
{
	struct usage u = {.cgroup = cgroup_make()};

	cgroup_move(u.cgroup.path);
	daemon_start();
	cgroup_move(u.cgroup.home);
	(void)used();
	u.at_start = cgroup_usage(&u.cgroup);
	u.tables_at_start = memory().tables;
	load_heavily(sample_usage, &u);
	CHECK(u.most > MAX_MIB * MIB * 8 / 10);
	/* And at rest it counts as much as the daemon does. */
	WAIT_UNTIL(distance(cgroup_usage(&u.cgroup) - u.at_start, used() - u.tables_at_start) <= SLACK + HEAP_NOISE);
}

/* A file of another worker than `other`: DIR/NAME with a number behind it, empty so far. */
static char *on_another_worker(const char *other)
{
	for (unsigned i = 0;; i++) {
		char name[32], *path;
		struct pgc_file *f;
		uint32_t worker;

		CHECK(i < 100);
		snprintf(name, sizeof(name), "f%u", i);
		path = make_stamped(name, PAGE, 1);
		f = open_file(path, O_RDONLY);
		worker = file_state(path).worker;
		CHECK_EQ(pgc_close(f), 0);
		if (worker != file_state(other).worker)
			return strdup(name);
		free(path);
	}
}

SYSTEM_TEST(a_scan_on_one_worker_leaves_what_is_used_on_another, .memory_max = "32M", .workers = 2, .seconds = 120)
{
	char *hot = make_hot();
	uint64_t left, all = 8 * MIB / PAGE;

	scan_scattered(open_file(make_stamped(on_another_worker(hot), 128 * MIB, 1), O_RDONLY), 128 * MIB, 1);
	left = file_state(hot).resident;
	if (left < all / 2)
		FAIL("of %" PRIu64 " hot pages %" PRIu64 " are left", all, left);
}

static void touch_scattered(const uint8_t *m, uint64_t first, uint64_t n, uint64_t of, unsigned gen)
{
	for (uint64_t i = first; i < first + n; i++) {
		uint64_t page = scattered(i, of);

		check_stamp(m + page * PAGE, page, page, gen);
	}
}

/* A client may have less than the memory mapped to store to. What goes for that is no other than what goes for memory. */
SYSTEM_TEST(a_scan_of_what_can_be_stored_to_leaves_what_is_used, .config = "second_chance = 0", .memory_max = "32M", .workers = 1, .seconds = 120)
{
	const uint64_t hot_pages = 8 * MIB / PAGE, cold_pages = 128 * MIB / PAGE, step = 2048;
	struct pgc_file *f = open_file(make_stamped("hot", 8 * MIB, 2), O_RDWR), *g = open_file(make_stamped("cold", 128 * MIB, 1), O_RDWR);
	const uint8_t *hot = map(f, 8 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0), *cold = map(g, 128 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint64_t again = 0, before;

	for (uint64_t i = 0; i < cold_pages; i += step) {
		touch_scattered(cold, i, step, cold_pages, 1);
		before = status().fill_bytes;
		touch_scattered(hot, 0, hot_pages, hot_pages, 2);
		again += i >= cold_pages / 2 ? status().fill_bytes - before : 0;
	}
	if (again > 8 * MIB)
		FAIL("of 8 MiB that are used all the time %" PRIu64 " KiB were read again in the second half", again >> 10);
}

/* The memory is full of what was used on one worker and is not any more. */
SYSTEM_TEST(what_is_used_by_now_finds_room_on_another_worker, .memory_max = "32M", .workers = 2, .seconds = 120)
{
	char *old = make_stamped("old", 32 * MIB, 1), *path;
	struct pgc_file *f = open_file(old, O_RDONLY);
	uint64_t before;

	for (int i = 0; i < 3; i++)
		scan_scattered(f, 32 * MIB, 1);
	CHECK(file_state(old).resident > 20 * MIB / PAGE);
	path = make_stamped(on_another_worker(old), 8 * MIB, 2);
	f = open_file(path, O_RDONLY);
	/* After some times what is read once more comes from memory: a dozen where both workers have processors. */
	for (int i = 0;; i++) {
		before = status().fill_bytes;
		scan_scattered(f, 8 * MIB, 2);
		if (status().fill_bytes - before <= 2 * MIB)
			break;
		if (i == 60)
			FAIL("%" PRIu64 " KiB of 8 MiB were read once more", (status().fill_bytes - before) >> 10);
	}
}

/* --- changed while it runs --- */

/* Three quarters of 64 MiB, some of it dirty. */
static uint8_t *fill_memory(struct pgc_file **ret_f)
{
	size_t size = 48 * MIB;
	uint8_t *m;

	*ret_f = open_file(make_stamped("big", size, 1), O_RDWR);
	m = map(*ret_f, size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	scan(m, size, 1);
	for (uint64_t page = 0; page < size / PAGE; page += 16)
		store(m + page * PAGE + 100, 9);
	CHECK(used() > 40 * MIB);
	return m;
}

SYSTEM_TEST(lowered_to_a_tenth_memory_is_given_back_within_two_seconds, .memory_max = "64M", .seconds = 120)
{
	struct pgc_file *f;
	uint8_t *m = fill_memory(&f);
	uint64_t before;

	CHECK_EQ(set("memory_max", "6500K"), 0);
	WAIT_UNTIL_MS(used() <= 6500 << 10, 2000);
	before = used();
	CHECK_EQ(set("memory_max", "lots"), -EINVAL);
	CHECK_EQ(set("memory_max", "0"), -EINVAL);
	CHECK_EQ(memory().memory_limit, 6500 << 10);
	CHECK(distance(used(), before) < MIB);
	scan(m, 48 * MIB, 1);
	CHECK(used() <= (6500 << 10) + SLACK);
	/* Raised again it grows again. */
	CHECK_EQ(set("memory_max", "64M"), 0);
	scan(m, 48 * MIB, 1);
	CHECK(used() > 40 * MIB);
	for (uint64_t page = 0; page < 48 * MIB / PAGE; page += 16)
		CHECK_EQ(load(m + page * PAGE + 100), 9);
	CHECK_EQ(pgc_fsync(f), 0);
}

SYSTEM_TEST(sighup_lowers_memory_max_while_it_is_full, .memory_max = "8M", .seconds = 120)
{
	struct pgc_file *f;

	CHECK_EQ(set("memory_max", "64M"), 0);
	fill_memory(&f);
	/* The configuration says 8M, as it did at the start. */
	CHECK(kill(env.daemon, SIGHUP) == 0);
	WAIT_UNTIL(memory().memory_max == 8 * MIB);
	WAIT_UNTIL_MS(used() <= 8 * MIB, 2000);
	expect_agreement();
}

SYSTEM_TEST(memory_that_does_not_hold_the_tables_is_refused_at_start, .no_daemon = true, .memory_max = "4M")
{
	char *const extra[] = {NULL};
	FILE *f = fopen(env.config, "we");
	pid_t pid;
	int st;

	CHECK(f && fputs("[daemon]\nmax_blocks = 200000\n", f) >= 0 && fclose(f) == 0);
	pid = daemon_spawn(env.log, extra);
	st = wait_child(pid);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) != 0);
	CHECK(strstr(daemon_log(), "memory_max is too small: the tables alone take"));
	CHECK(strstr(daemon_log(), "max_blocks"));
}

/* --- dirty limits --- */

#define DIRTY_CONFIG "dirty_background = 4M\ndirty_max = 12M"
#define DIRTY_MAX (12 * MIB / PAGE)
#define WINDOW 64u                     /* pages that one store makes writable at most */
#define WRITE 256u                     /* pages of one write-out */

/* A file of test store `uri`, `size` bytes of zeros; writes to it take `delay_ms`. */
static struct pgc_file *open_slow(const char *uri, size_t size, unsigned delay_ms)
{
	struct pgc_file *f = open_file(uri, O_RDWR);

	CHECK_EQ(pgc_ftruncate(f, (off_t)size), 0);
	inject(uri, PGC_INJECT_WRITE_DELAY, delay_ms * 1000, 0);
	return f;
}

#define HEAVY_SIZE (48 * MIB)

/* Makes pages dirty as fast as it can until it is killed. */
static void stores_heavily(struct peer *p, void *arg)
{
	const char *uri = arg;
	struct pgc_file *f = open_slow(uri, HEAVY_SIZE, 400);
	uint8_t *m = map(f, HEAVY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	peer_tell(p, 1);
	for (unsigned i = 1;; i++)
		for (uint64_t page = 0; page < HEAVY_SIZE / PAGE; page++)
			store(m + page * PAGE, (uint8_t)i);
}

static void writes_heavily(struct peer *p, void *arg)
{
	const char *uri = arg;
	struct pgc_file *f = open_slow(uri, HEAVY_SIZE, 400);
	char *buf = calloc(1, 64 * PAGE);

	CHECK(buf);
	peer_tell(p, 1);
	for (unsigned i = 1;; i++)
		for (uint64_t off = 0; off < HEAVY_SIZE; off += 64 * PAGE) {
			memset(buf, (int)i, 64 * PAGE);
			CHECK_EQ(pgc_pwrite(f, buf, 64 * PAGE, (off_t)off), 64 * PAGE);
		}
}

/* Pages that are newer than the store, or on their way to it. Those of one write that begins while both are looked at count twice. */
static uint64_t dirty_pages(void)
{
	struct pgc_ctl_status_reply s = status();

	return s.dirty + s.writeback;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

#define FIRST_STORES 9

/* When told to: the median of what the first stores into each of several blocks took, in us. */
static void stores_a_little(struct peer *p, void *arg)
{
	struct pgc_file *f = open_file("mem:light", O_RDWR);
	uint64_t took[FIRST_STORES];
	uint8_t *m;

	CHECK_EQ(pgc_ftruncate(f, FIRST_STORES * BLOCK), 0);
	m = map(f, FIRST_STORES * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	peer_tell(p, 1);
	peer_hear(p);
	for (int i = 0; i < FIRST_STORES; i++) {
		struct timespec a, b;

		clock_gettime(CLOCK_MONOTONIC, &a);
		store(m + (size_t)i * BLOCK, 1);
		clock_gettime(CLOCK_MONOTONIC, &b);
		took[i] = (uint64_t)((b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000);
	}
	qsort(took, FIRST_STORES, sizeof(took[0]), by_value);
	peer_tell(p, took[FIRST_STORES / 2]);
}

/* One heavy writer to a slow store, and another client. */
static void heavy_and_light(peer_body heavy)
{
	struct peer *h = peer_start(heavy, (void *)"mem:slow"), *l = peer_start(stores_a_little, NULL);
	struct pgc_ctl_memory_reply m = {0};
	uint64_t most = 0, end, median;

	peer_hear(h);
	peer_hear(l);
	WAIT_UNTIL(memory().throttled > 0);
	for (end = now_ms() + 1500; now_ms() < end;) {
		uint64_t now = dirty_pages();

		most = now > most ? now : most;
	}
	m = memory();
	/* Two thirds, since it is alone. */
	if (most < DIRTY_MAX * 2 / 3 - WINDOW || most > DIRTY_MAX * 2 / 3 + WINDOW + WRITE)
		FAIL("one heavy writer makes %" PRIu64 " pages dirty, not two thirds of %lu", most, DIRTY_MAX);
	median = peer_ask(l, 1);
	if (median > 200000)
		FAIL("another client's first store takes %" PRIu64 " us", median);
	CHECK(dirty_pages() <= DIRTY_MAX + WINDOW + WRITE);
	WAIT_UNTIL(memory().throttled > m.throttled); /* again and again */
	WAIT_UNTIL(status().writeout_rate > 0 && status().oldest_dirty_ms > 0);
	peer_join(l);
	inject("mem:slow", PGC_INJECT_WRITE_DELAY, 0, 0);
	peer_kill(h);
	WAIT_UNTIL(memory().throttled_ms > 0 || heavy == writes_heavily);
}

SYSTEM_TEST(heavy_stores_wait_and_others_do_not, .tracking = "sync", .memory_max = "128M", .config = DIRTY_CONFIG, .seconds = 120)
{
	heavy_and_light(stores_heavily);
}

SYSTEM_TEST(heavy_writes_wait_and_others_do_not, .memory_max = "128M", .config = DIRTY_CONFIG, .seconds = 120)
{
	heavy_and_light(writes_heavily);
}

SYSTEM_TEST(dirty_never_exceeds_its_limit_with_many_writers, .tracking = "sync", .memory_max = "128M", .config = DIRTY_CONFIG, .seconds = 120)
{
	static const char *const uri[] = {"mem:s1", "mem:s2", "mem:s3", "mem:s4"};
	struct peer *p[4];
	uint64_t end, most = 0;

	for (int i = 0; i < 4; i++)
		p[i] = peer_start(i % 2 ? stores_heavily : writes_heavily, (void *)uri[i]);
	for (int i = 0; i < 4; i++)
		peer_hear(p[i]);
	for (end = now_ms() + 3000; now_ms() < end;) {
		uint64_t now = dirty_pages();

		if (now > DIRTY_MAX + WINDOW + WRITE)
			FAIL("%" PRIu64 " pages are dirty", now);
		most = now > most ? now : most;
	}
	CHECK(most > DIRTY_MAX * 2 / 3);
	for (int i = 0; i < 4; i++) {
		inject(uri[i], PGC_INJECT_WRITE_DELAY, 0, 0);
		peer_kill(p[i]);
	}
}

/* Stores into `n` MiB of the mapping from `from` MiB on. */
static void make_dirty(uint8_t *m, unsigned from, unsigned n)
{
	for (uint64_t page = from * MIB / PAGE; page < (from + n) * MIB / PAGE; page++)
		store(m + page * PAGE, 1);
}

SYSTEM_TEST(write_out_begins_at_dirty_background, .memory_max = "128M", .config = DIRTY_CONFIG)
{
	struct pgc_file *f = open_slow("mem:f", 16 * MIB, 0);
	uint8_t *m = map(f, 16 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	make_dirty(m, 0, 3);
	for (uint64_t end = now_ms() + 500; now_ms() < end;)
		CHECK_EQ(status().writeouts, 0);
	CHECK_EQ(status().dirty, 3 * MIB / PAGE);
	make_dirty(m, 3, 3);
	WAIT_UNTIL(status().writeout_bytes >= 3 * MIB);
	WAIT_UNTIL(status().dirty <= 4 * MIB / PAGE);
}

SYSTEM_TEST(dirty_limits_follow_a_set, .memory_max = "128M", .config = DIRTY_CONFIG)
{
	struct pgc_file *f = open_slow("mem:f", 16 * MIB, 0);
	uint8_t *m = map(f, 16 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	make_dirty(m, 0, 3);
	CHECK_EQ(status().writeouts, 0);
	CHECK_EQ(set("dirty_background", "1M"), 0);
	WAIT_UNTIL(status().dirty <= MIB / PAGE);
}

static void stores_into_bad(struct peer *p, void *arg)
{
	struct pgc_file *f = open_file("mem:bad", O_RDWR);
	uint8_t *m;

	CHECK_EQ(pgc_ftruncate(f, HEAVY_SIZE), 0);
	m = map(f, HEAVY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	inject("mem:bad", PGC_INJECT_WRITE_ERROR, EIO, 0);
	peer_tell(p, 1);
	for (uint64_t page = 0; page < HEAVY_SIZE / PAGE; page++)
		store(m + page * PAGE, 1);
	peer_tell(p, 2);
	for (;;)
		pause();
}

static void stores_into_good(struct peer *p, void *arg)
{
	struct pgc_file *f = open_slow("mem:good", HEAVY_SIZE, 0);
	uint8_t *m = map(f, HEAVY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	peer_tell(p, 1);
	peer_hear(p);
	make_dirty(m, 0, HEAVY_SIZE / MIB);
	peer_tell(p, (uint64_t)-pgc_fsync(f));
}

SYSTEM_TEST(a_store_that_takes_nothing_stops_its_own_writers_only, .tracking = "sync", .memory_max = "128M", .config = DIRTY_CONFIG, .seconds = 120)
{
	struct peer *bad = peer_start(stores_into_bad, NULL), *good = peer_start(stores_into_good, NULL);
	uint64_t before;

	peer_hear(bad);
	peer_hear(good);
	WAIT_UNTIL(memory().throttled > 0);
	before = file_state("mem:bad").dirty;
	CHECK(before > 0 && before <= DIRTY_MAX * 2 / 3 + WINDOW);
	CHECK_EQ(peer_ask(good, 1), 0);
	peer_join(good);
	CHECK(file_state("mem:bad").dirty <= DIRTY_MAX * 2 / 3 + WINDOW);
	CHECK(file_state("mem:bad").flags & PGC_FILE_ERROR);
	/* Once it takes them again its writer goes on to the end. */
	inject("mem:bad", PGC_INJECT_WRITE_ERROR, 0, 0);
	CHECK_EQ(sync_all(), 0);
	CHECK_EQ(peer_hear(bad), 2);
	peer_kill(bad);
}

SYSTEM_TESTS_MAIN("memory",
	cmocka_unit_test(memory_stays_within_the_budget_whatever_the_load),
	cmocka_unit_test(memory_stays_within_the_budget_with_one_worker_and_fifo),
	cmocka_unit_test(the_kernel_counts_no_more_than_the_budget),
	cmocka_unit_test(a_scan_on_one_worker_leaves_what_is_used_on_another),
	cmocka_unit_test(a_scan_of_what_can_be_stored_to_leaves_what_is_used),
	cmocka_unit_test(what_is_used_by_now_finds_room_on_another_worker),
	cmocka_unit_test(lowered_to_a_tenth_memory_is_given_back_within_two_seconds),
	cmocka_unit_test(sighup_lowers_memory_max_while_it_is_full),
	cmocka_unit_test(memory_that_does_not_hold_the_tables_is_refused_at_start),
	cmocka_unit_test(heavy_stores_wait_and_others_do_not),
	cmocka_unit_test(heavy_writes_wait_and_others_do_not),
	cmocka_unit_test(dirty_never_exceeds_its_limit_with_many_writers),
	cmocka_unit_test(write_out_begins_at_dirty_background),
	cmocka_unit_test(dirty_limits_follow_a_set),
	cmocka_unit_test(a_store_that_takes_nothing_stops_its_own_writers_only))
