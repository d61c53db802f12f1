/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files whose memory is huge pages (`huge = yes`). The system's settings are changed for it: so many as a test wants may be taken from ordinary memory, and none is
 * set aside. Afterwards they are as before.
 */
#include "tests/system/harness.h"

#define HUGE    (2ul << 20)
#define OVERCOMMIT "/proc/sys/vm/nr_overcommit_hugepages"
#define RESERVED   "/proc/sys/vm/nr_hugepages"
#define HUGE_FILES .config = "[file *]\nhuge = yes"
#define PAGES(bytes) (((bytes) + HUGE - 1) / HUGE * (HUGE / PAGE))
#define LONG    (2 * HUGE + 700000)    /* ends within a page, within a huge page */

/* --- the system --- */

static long read_setting(const char *path)
{
	FILE *f = fopen(path, "re");
	long v = -1;

	if (!f || fscanf(f, "%ld", &v) != 1)
		v = -1;
	if (f)
		fclose(f);
	return v;
}

static bool write_setting(const char *path, long v)
{
	FILE *f = fopen(path, "we");
	bool ok = f && fprintf(f, "%ld\n", v) > 0;

	return f && fclose(f) == 0 && ok;
}

static void allow_huge_pages(long n) { CHECK(write_setting(OVERCOMMIT, n)); }

/* --- what a test looks at --- */

static void expect_no_difference(void)
{
	struct output o = RUN(pagecachectl(), "check", "--content", "--rate", "0");

	if (o.code != 0)
		FAIL("check says (exit code %d):\n%s%s", o.code, o.out, o.err);
	output_free(&o);
}

static bool is_huge(const char *path)
{
	return json_object_get_boolean(json_object_object_get(json_object_array_get_idx(CTL_JSON("--json", "files"), 0), "huge")) && cached_file(path, &(struct pgc_ctl_file_reply){0});
}

/* Huge pages that are taken from the system, by anybody. */
static unsigned long taken(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	char line[128];
	unsigned long n = 0;

	CHECK(f);
	while (fgets(line, sizeof(line), f))
		(void)sscanf(line, "HugePages_Total: %lu", &n);
	fclose(f);
	return n;
}

/* The first byte of each page, in steps of `step` pages. */
static void check_pages_of(const uint8_t *m, size_t size, size_t step, unsigned gen)
{
	for (size_t at = 0; at < size; at += step * PAGE)
		CHECK_EQ(load(m + at), pattern_byte(at, gen));
}

static bool log_has(const char *what)
{
	char *log = daemon_log();
	bool has = strstr(log, what);

	free(log);
	return has;
}

/* Lines of /proc/self/maps with a file's memory. */
static unsigned mapped_parts(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned n = 0;

	CHECK(f);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, "/memfd:pagecached:") != NULL;
	fclose(f);
	return n;
}

/* --- bytes --- */

SYSTEM_TEST(bytes_are_right_on_both_sides_of_borders_and_at_the_end, HUGE_FILES)
{
	char *path = make_file("f", LONG, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t *m = map(f, LONG, PROT_READ, MAP_SHARED, 0);

	CHECK_EQ((uintptr_t)m % HUGE, 0);
	CHECK_EQ(load(m + HUGE), pattern_byte(HUGE, 1));
	CHECK_EQ(load(m + HUGE - 1), pattern_byte(HUGE - 1, 1));
	CHECK_EQ(load(m + LONG - 1), pattern_byte(LONG - 1, 1));
	PATTERN_CHECK(m, LONG, 0, 1);
	/* Behind the end of the file are zeros, as far as the huge page goes. */
	ZERO_CHECK(m + LONG, 3 * HUGE - LONG);
	CHECK_EQ(pgc_msync(m, LONG, MS_SYNC), 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(file_state(path).resident, PAGES(LONG));
	CHECK(cached_bytes() >= PAGES(LONG) * PAGE);
	CHECK(is_huge(path));
	expect_no_difference();
	CHECK_EQ(pgc_munmap(m, LONG), 0);
	CHECK_EQ(mapped_parts(), 0);
	WAIT_UNTIL(file_state(path).mappings == 0);
}

SYSTEM_TEST(behind_the_last_huge_page_is_a_signal, HUGE_FILES)
{
	char *path = make_file("f", LONG, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t *m = map(f, 5 * HUGE, PROT_READ, MAP_SHARED, 0), byte;

	CHECK_EQ(load_signal(m + 3 * HUGE, &byte), SIGBUS);
	CHECK_EQ(load_signal(m + 3 * HUGE - 1, &byte), 0);
	CHECK_EQ(byte, 0);
	expect_no_difference();
}

SYSTEM_TEST(files_smaller_than_a_page_and_empty_ones, HUGE_FILES)
{
	struct pgc_file *f = open_file(make_file("small", 10, 1), O_RDONLY), *none = open_file(make_file("empty", 0, 1), O_RDONLY);
	uint8_t *m = map(f, 10, PROT_READ, MAP_PRIVATE, 0), *e = map(none, PAGE, PROT_READ, MAP_SHARED, 0), byte;

	PATTERN_CHECK(m, 10, 0, 1);
	ZERO_CHECK(m + 10, PAGE - 10);
	CHECK_EQ(load_signal(e, &byte), SIGBUS);
	CHECK_EQ(pgc_pread(none, &byte, 1, 0), 0);
	expect_no_difference();
}

SYSTEM_TEST(calls_read_what_is_mapped, HUGE_FILES)
{
	char *path = make_file("f", LONG, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	size_t at[] = { 0, 5, HUGE - 3, HUGE, 2 * HUGE - 5000, LONG - 4000 };
	uint8_t buf[9000];
	struct stat st;

	for (unsigned round = 0; round < 20; round++) /* often enough for a window, which such a file has not */
		for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
			size_t n = LONG - at[i] < sizeof(buf) ? LONG - at[i] : sizeof(buf), done = 0;

			while (done < n) {
				ssize_t r = pgc_pread(f, buf + done, sizeof(buf) - done, (off_t)(at[i] + done));

				CHECK(r > 0);
				done += (size_t)r;
			}
			CHECK_EQ(done, n);
			PATTERN_CHECK(buf, n, at[i], 1);
		}
	CHECK_EQ(pgc_pread(f, buf, 10, LONG), 0);
	CHECK_EQ(pgc_pread(f, buf, 10, 3 * HUGE - 5), 0);
	CHECK_EQ(pgc_fstat(f, &st), 0);
	CHECK_EQ(st.st_size, LONG);
	expect_no_difference();
}

/* --- where it is mapped --- */

SYSTEM_TEST(any_page_can_be_where_a_mapping_begins, HUGE_FILES)
{
	char *path = make_file("f", LONG, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	static const struct { size_t off, len; } part[] = {
		{ PAGE, PAGE }, { 3 * PAGE, HUGE }, { HUGE - PAGE, 2 * PAGE }, { HUGE, 5 }, { HUGE + 7 * PAGE, HUGE - 7 * PAGE }, { 2 * HUGE, LONG - 2 * HUGE },
	};

	for (size_t i = 0; i < sizeof(part) / sizeof(part[0]); i++) {
		uint8_t *m = map(f, part[i].len, PROT_READ, MAP_SHARED, (off_t)part[i].off);

		PATTERN_CHECK(m, part[i].len, part[i].off, 1);
		CHECK_EQ(pgc_munmap(m, part[i].len), 0);
		CHECK_EQ(mapped_parts(), 0);
	}
	WAIT_UNTIL(file_state(path).mappings == 0);
	expect_no_difference();
}

SYSTEM_TEST(whole_huge_pages_are_unmapped_and_no_parts_of_them, HUGE_FILES)
{
	char *path = make_file("f", 4 * HUGE, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t *m = map(f, 4 * HUGE - PAGE, PROT_READ, MAP_SHARED, PAGE);

	check_pages_of(m - PAGE, 4 * HUGE, 16, 1);
	CHECK_EQ(pgc_munmap(m, PAGE), -EINVAL);
	CHECK_EQ(load(m), pattern_byte(PAGE, 1));
	CHECK_EQ(pgc_munmap(m, HUGE - PAGE), 0);
	CHECK_EQ(pgc_munmap(m + 2 * HUGE - PAGE, HUGE), 0);
	CHECK_EQ(mapped_parts(), 2);
	CHECK_EQ(load(m + HUGE), pattern_byte(HUGE + PAGE, 1));
	WAIT_UNTIL(file_state(path).mappings == 2);
	CHECK_EQ(pgc_munmap(m + HUGE - PAGE, HUGE), 0);
	CHECK_EQ(pgc_munmap(m + 3 * HUGE - PAGE, HUGE), 0);
	CHECK_EQ(mapped_parts(), 0);
	WAIT_UNTIL(file_state(path).mappings == 0);
	expect_no_difference();
}

SYSTEM_TEST(fixed_addresses_are_whole_huge_pages, HUGE_FILES)
{
	struct pgc_file *f = open_file(make_file("f", 2 * HUGE, 1), O_RDONLY);
	uint8_t *room = mmap(NULL, 4 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *at = (uint8_t *)(((uintptr_t)room + HUGE - 1) & ~(HUGE - 1)), *m;

	CHECK(room != MAP_FAILED);
	CHECK(pgc_mmap(f, at + PAGE, HUGE, PROT_READ, MAP_SHARED | MAP_FIXED, 0) == MAP_FAILED && errno == EINVAL);
	CHECK(pgc_mmap(f, at, HUGE, PROT_READ, MAP_SHARED | MAP_FIXED, PAGE) == MAP_FAILED && errno == EINVAL);
	CHECK(pgc_mmap(f, at, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, 0) == MAP_FAILED && errno == EINVAL);
	m = pgc_mmap(f, at, 2 * HUGE, PROT_READ, MAP_SHARED | MAP_FIXED, 0);
	CHECK(m == at);
	PATTERN_CHECK(m, 2 * HUGE, 0, 1);
	m = pgc_mmap(f, at + 5 * PAGE, PAGE, PROT_READ, MAP_SHARED, 0); /* a wish, and taken */
	CHECK(m != MAP_FAILED && m != at + 5 * PAGE);
	PATTERN_CHECK(m, PAGE, 0, 1);
}

SYSTEM_TEST(a_mapping_populates_whole, HUGE_FILES)
{
	char *path = make_file("f", 3 * HUGE, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t *m = map(f, 3 * HUGE - 2 * PAGE, PROT_READ, MAP_SHARED | MAP_POPULATE, 2 * PAGE);
	uint64_t faults = status().faults;

	CHECK_EQ(file_state(path).resident, PAGES(3 * HUGE));
	PATTERN_CHECK(m, 3 * HUGE - 2 * PAGE, 2 * PAGE, 1);
	CHECK_EQ(status().faults, faults);
	CHECK_EQ(pgc_munmap(m, 3 * HUGE - 2 * PAGE), 0);
	m = map(f, 3 * HUGE, PROT_READ, MAP_SHARED, 0);
	CHECK_EQ(pgc_madvise(m + HUGE + PAGE, PAGE, MADV_POPULATE_READ), 0);
	faults = status().faults;
	PATTERN_CHECK(m + HUGE, HUGE, HUGE, 1);
	CHECK_EQ(status().faults, faults);
}

/* --- who may what --- */

SYSTEM_TEST(writers_are_refused, HUGE_FILES)
{
	char *path = make_file("f", HUGE, 1);
	struct pgc_file *f, *g;

	CHECK_EQ(pgc_open(&f, path, O_RDWR, 0), -EROFS);
	CHECK_EQ(pgc_open(&f, path, O_WRONLY, 0), -EROFS);
	f = open_file(path, O_RDONLY);
	CHECK_EQ(pgc_open(&g, path, O_RDWR, 0), -EROFS);
	CHECK_EQ(pgc_open(&g, path, O_RDWR | O_TRUNC, 0), -EROFS);
	CHECK_EQ(store_size(path), HUGE);
	CHECK(pgc_mmap(f, NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0) == MAP_FAILED && errno == EACCES);
	CHECK(pgc_mmap(f, NULL, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0) == MAP_FAILED && errno == EOPNOTSUPP);
	PATTERN_CHECK(map(f, HUGE, PROT_READ, MAP_SHARED, 0), HUGE, 0, 1);
}

SYSTEM_TEST(other_files_have_ordinary_pages, .config = "[file *.huge]\nhuge = yes")
{
	char *path = make_file("f", HUGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	store(m, 1);
	CHECK(!is_huge(path));
	CHECK_EQ(file_state(path).dirty, 1);
}

/* The library's own descriptor of the file's memory. */
static int memory_of_the_file(void)
{
	char path[64], target[256];

	for (int fd = 3; fd < 1024; fd++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = 0;
		if (strncmp(target, "/memfd:pagecached:", 18) == 0)
			return fd;
	}
	FAIL("no such descriptor");
}

SYSTEM_TEST(memory_that_a_reader_makes_by_itself_goes_again, HUGE_FILES)
{
	char *path = make_file("f", 16 * HUGE, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t *m = map(f, 16 * HUGE, PROT_READ, MAP_SHARED, 0), *own;

	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_RANDOM), 0);
	PATTERN_CHECK(m + HUGE, HUGE, HUGE, 1);
	CHECK_EQ(taken(), 1);
	own = mmap(NULL, 16 * HUGE, PROT_READ, MAP_SHARED | MAP_NORESERVE, memory_of_the_file(), 0);
	CHECK(own != MAP_FAILED);
	for (unsigned i = 0; i < 16; i++) /* nobody serves these faults */
		CHECK_EQ(load(own + i * HUGE), i == 1 ? pattern_byte(HUGE, 1) : 0);
	CHECK_EQ(taken(), 16);
	WAIT_UNTIL(taken() == file_state(path).resident / (HUGE / PAGE));
	CHECK(munmap(own, 16 * HUGE) == 0);
	expect_no_difference();
	PATTERN_CHECK(m, 16 * HUGE, 0, 1);
	expect_no_difference();
}

/* --- two processes --- */

struct other { char *path; size_t size; };

static void second_process(struct peer *p, void *arg)
{
	const struct other *o = arg;
	struct pgc_file *f;
	uint8_t *m;

	(void)peer_hear(p);
	f = open_file(o->path, O_RDONLY);
	m = map(f, o->size, PROT_READ, MAP_SHARED, 0);
	PATTERN_CHECK(m, o->size, 0, 1);
	peer_tell(p, 1);
	(void)peer_hear(p);
}

SYSTEM_TEST(a_second_process_maps_with_few_faults, HUGE_FILES)
{
	static struct other o = { .size = 32 * HUGE };
	struct peer *p;
	uint64_t faults, fills;
	uint8_t *m;

	o.path = make_file("f", o.size, 1);
	p = peer_start(second_process, &o);
	m = map(open_file(o.path, O_RDONLY), o.size, PROT_READ, MAP_SHARED, 0);
	PATTERN_CHECK(m, o.size, 0, 1);
	faults = status().faults;
	fills = status().fills;
	CHECK(faults <= 32 * patience());
	(void)peer_ask(p, 1);
	CHECK(status().faults - faults <= 32);
	CHECK_EQ(status().fills, fills);
	expect_no_difference();
	peer_tell(p, 1);
	peer_join(p);
}

static void fork_and_read(void)
{
	char *path = make_file("f", 4 * HUGE, 1);
	uint8_t *m = map(open_file(path, O_RDONLY), 4 * HUGE, PROT_READ, MAP_SHARED, 0);
	pid_t pid;

	CHECK_EQ(load(m), pattern_byte(0, 1));
	pid = fork();
	if (pid == 0) {
		PATTERN_CHECK(m, 4 * HUGE, 0, 1);
		_exit(0);
	}
	PATTERN_CHECK(m, 4 * HUGE, 0, 1);
	expect_exit_0(pid);
	CHECK(is_huge(path));
}

SYSTEM_TEST(a_forked_child_reads_on, HUGE_FILES) { fork_and_read(); }
SYSTEM_TEST(a_forked_child_of_an_ordinary_user_reads_on, HUGE_FILES, .as_user = true) { fork_and_read(); }

/* --- room --- */

#define SMALL 24ul                     /* MiB: of which a little is the daemon's own */

SYSTEM_TEST(under_reclaim_bytes_are_right_and_the_limit_holds, HUGE_FILES, .memory_max = "24M", .workers = 1)
{
	char *path = make_file("f", 40 * HUGE, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t *m = map(f, 40 * HUGE, PROT_READ, MAP_SHARED, 0), buf[PAGE];

	for (unsigned round = 0; round < 3; round++)
		for (size_t i = 0; i < 40; i++) {
			size_t at = (round == 1 ? 39 - i : i) * HUGE;

			check_pages_of(m + at, 0, 1, 1);
			PATTERN_CHECK(m + at, HUGE, at, 1);
			CHECK_EQ(pgc_pread(f, buf, PAGE, (off_t)((i * 17 % 40) * HUGE + 5 * PAGE)), PAGE);
			PATTERN_CHECK(buf, PAGE, (i * 17 % 40) * HUGE + 5 * PAGE, 1);
			CHECK(status().memory_used <= SMALL << 20);
			CHECK_EQ(file_state(path).resident % (HUGE / PAGE), 0);
			CHECK(taken() <= (SMALL << 20) / HUGE);
		}
	WAIT_UNTIL(taken() == file_state(path).resident / (HUGE / PAGE));
	expect_no_difference();
}

SYSTEM_TEST(ordinary_files_and_huge_ones_share_the_memory, .config = "[file *.huge]\nhuge = yes", .memory_max = "32M")
{
	char *small = make_file("small", 20 * HUGE, 1), *huge = make_file("f.huge", 20 * HUGE, 2);
	uint8_t *s = map(open_file(small, O_RDONLY), 20 * HUGE, PROT_READ, MAP_SHARED, 0);
	uint8_t *h = map(open_file(huge, O_RDONLY), 20 * HUGE, PROT_READ, MAP_SHARED, 0);

	/* Each gets room at the other's expense. */
	for (unsigned round = 0; round < 3; round++) {
		check_pages_of(s, 20 * HUGE, 1, 1);
		CHECK(status().memory_used <= 32ul << 20);
		CHECK(file_state(small).resident > 1024);
		check_pages_of(h, 20 * HUGE, 1, 2);
		CHECK(status().memory_used <= 32ul << 20);
		CHECK(file_state(huge).resident > 0);
	}
	expect_no_difference();
}

SYSTEM_TEST(what_is_pinned_stays, HUGE_FILES, .memory_max = "24M", .workers = 1)
{
	char *path = make_file("f", 20 * HUGE, 1);
	uint8_t *m = map(open_file(path, O_RDONLY), 20 * HUGE, PROT_READ, MAP_SHARED, 0);
	struct output o = RUN(pagecachectl(), "pin", path, "3145728-3149824");
	uint64_t bytes;

	if (o.code != 0)
		FAIL("%s", o.err);
	check_pages_of(m, 20 * HUGE, 64, 1);
	bytes = status().fill_bytes;
	PATTERN_CHECK(m + HUGE, HUGE, HUGE, 1);
	CHECK_EQ(status().fill_bytes, bytes);
	expect_no_difference();
}

SYSTEM_TEST(advice_drops_whole_huge_pages, HUGE_FILES)
{
	char *path = make_file("f", LONG, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t byte;

	CHECK_EQ(pgc_fadvise(f, 0, LONG, POSIX_FADV_RANDOM), 0);
	for (size_t at = 0; at < LONG; at += HUGE)
		CHECK_EQ(pgc_pread(f, &byte, 1, (off_t)at), 1);
	CHECK_EQ(file_state(path).resident, PAGES(LONG));
	CHECK_EQ(pgc_fadvise(f, PAGE, HUGE, POSIX_FADV_DONTNEED), 0); /* none is whole in that */
	CHECK_EQ(file_state(path).resident, PAGES(LONG));
	CHECK_EQ(pgc_fadvise(f, HUGE, LONG - HUGE, POSIX_FADV_DONTNEED), 0);
	CHECK_EQ(file_state(path).resident, PAGES(HUGE));
	expect_no_difference();
	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_DONTNEED), 0);
	CHECK_EQ(file_state(path).resident, 0);
	CHECK_EQ(pgc_pread(f, &byte, 1, LONG - 1), 1);
	CHECK_EQ(byte, pattern_byte(LONG - 1, 1));
}

SYSTEM_TEST(retained_is_what_is_mapped, .config = "retain = mapped\n[file *]\nhuge = yes")
{
	char *path = make_file("f", LONG, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t *m = map(f, LONG, PROT_READ, MAP_SHARED, 0);

	PATTERN_CHECK(m, LONG, 0, 1);
	CHECK_EQ(pgc_munmap(m, HUGE), 0);
	WAIT_UNTIL(file_state(path).resident == PAGES(LONG) - PAGES(HUGE));
	PATTERN_CHECK(m + HUGE, LONG - HUGE, HUGE, 1);
	CHECK_EQ(pgc_munmap(m + HUGE, LONG - HUGE), 0);
	WAIT_UNTIL(file_state(path).resident == 0);
	expect_no_difference();
}

SYSTEM_TEST(what_was_hot_is_read_in_at_the_next_open, HUGE_FILES, .no_kills = "the test stops it")
{
	char *path = make_file("f", 6 * HUGE + 5, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t byte;

	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_RANDOM), 0);
	CHECK_EQ(pgc_pread(f, &byte, 1, HUGE), 1);
	CHECK_EQ(pgc_pread(f, &byte, 1, 6 * HUGE), 1);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(file_state(path).handles == 0);
	daemon_stop();
	daemon_start();
	f = open_file(path, O_RDONLY);
	WAIT_UNTIL(file_state(path).resident == PAGES(2 * HUGE));
	expect_no_difference();
	PATTERN_CHECK(map(f, 6 * HUGE + 5, PROT_READ, MAP_SHARED, 0), 6 * HUGE + 5, 0, 1);
}

/* --- the store --- */

SYSTEM_TEST(what_changed_in_the_store_is_read_at_the_next_open, HUGE_FILES)
{
	char *path = make_file("f", LONG, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	size_t size[] = { LONG + 5000, 2 * HUGE + 10, HUGE / 2, 3 * HUGE };

	PATTERN_CHECK(map(f, LONG, PROT_READ, MAP_SHARED, 0), LONG, 0, 1);
	for (unsigned i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
		struct pgc_file *g;
		uint8_t *m;

		CHECK(truncate(path, (off_t)size[i]) == 0);
		CHECK(make_file(path, size[i], 2 + i));
		g = open_file(path, O_RDONLY);
		m = map(g, size[i], PROT_READ, MAP_SHARED, 0);
		PATTERN_CHECK(m, size[i], 0, 2 + i);
		ZERO_CHECK(m + size[i], (HUGE - size[i] % HUGE) % HUGE);
		CHECK_EQ(file_state(path).size, size[i]);
		expect_no_difference();
		CHECK_EQ(pgc_munmap(m, size[i]), 0);
		CHECK_EQ(pgc_close(g), 0);
	}
}

SYSTEM_TEST(a_page_that_cannot_be_read_is_a_signal_in_all_of_its_huge_page, HUGE_FILES, .no_kills = STORE_DIES)
{
	const char *uri = "mem:f?size=6291456";
	struct pgc_file *f = open_file(uri, O_RDONLY);
	uint8_t *m = map(f, 3 * HUGE, PROT_READ, MAP_SHARED, 0), byte;

	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_RANDOM), 0);
	inject(uri, PGC_INJECT_READ_ERROR, EIO, 1);
	CHECK_EQ(load_signal(m + HUGE + 100 * PAGE, &byte), SIGBUS);
	CHECK_EQ(load_signal(m + HUGE, &byte), SIGBUS);
	CHECK_EQ(load_signal(m, &byte), 0);
	CHECK_EQ(byte, 0);
	/* It is read again after a while. */
	WAIT_UNTIL(load_signal(m + HUGE, &byte) == 0);
	ZERO_CHECK(m, 3 * HUGE);
	inject(uri, PGC_INJECT_READ_ERROR, EIO, 0);
	drop_clean();
	CHECK_EQ(file_state(uri).resident, 0);
	CHECK_EQ(pgc_pread(f, &byte, 1, HUGE), -EIO);
	CHECK_EQ(taken(), 0);
	expect_no_difference();
	inject(uri, PGC_INJECT_READ_ERROR, 0, 0);
	CHECK_EQ(pgc_pread(f, &byte, 1, HUGE), 1);
}

/* --- no huge pages --- */

/* Takes all that the system would give. */
static void *take_pool(size_t n)
{
	void *p = mmap(NULL, n * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

SYSTEM_TEST(without_huge_pages_a_file_has_ordinary_ones, HUGE_FILES, .no_daemon = true)
{
	char *path = make_file("f", LONG, 1);
	struct pgc_file *f;

	allow_huge_pages(0);
	daemon_start();
	f = open_file(path, O_RDONLY);
	PATTERN_CHECK(map(f, LONG, PROT_READ, MAP_SHARED, 0), LONG, 0, 1);
	CHECK(!is_huge(path));
	CHECK(log_has("no huge pages are to be had"));
	CHECK_EQ(pgc_open(&f, path, O_RDWR, 0), -EROFS); /* the same, whatever the system has */
	expect_no_difference();
}

SYSTEM_TEST(with_few_huge_pages_files_take_them_from_each_other, HUGE_FILES, .workers = 2)
{
	char *path[4];
	uint8_t *m[4];
	char name[16];

	allow_huge_pages(5);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		path[i] = make_file(name, 4 * HUGE, 1 + i);
		m[i] = map(open_file(path[i], O_RDONLY), 4 * HUGE, PROT_READ, MAP_SHARED, 0);
	}
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < 4; i++)
			check_pages_of(m[i], 4 * HUGE, 8, 1 + i);
	expect_no_difference();
	CHECK(read_setting(RESERVED) <= 5);
}

SYSTEM_TEST(with_none_left_faults_and_reads_fail_and_later_do_not, HUGE_FILES)
{
	char *path = make_file("f", 4 * HUGE, 1);
	struct pgc_file *f;
	uint8_t *m, byte;
	void *taken;

	allow_huge_pages(8);
	f = open_file(path, O_RDONLY);
	m = map(f, 4 * HUGE, PROT_READ, MAP_SHARED, 0);
	CHECK(is_huge(path));
	taken = take_pool(8);
	CHECK_EQ(load_signal(m + 5, &byte), SIGBUS);
	CHECK_EQ(pgc_pread(f, &byte, 1, HUGE), -ENOMEM);
	expect_no_difference();
	CHECK(munmap(taken, 8 * HUGE) == 0);
	CHECK_EQ(pgc_pread(f, &byte, 1, HUGE), 1);
	CHECK_EQ(byte, pattern_byte(HUGE, 1));
	WAIT_UNTIL(load_signal(m + 5, &byte) == 0);
	PATTERN_CHECK(m, 4 * HUGE, 0, 1);
	expect_no_difference();
}

/* --- the daemon's death --- */

static void next_daemon(int signal)
{
	pid_t before = daemon_pid();
	int fd = -1;

	CHECK(kill(before, signal) == 0);
	WAIT_UNTIL(kill(before, 0) < 0);
	WAIT_UNTIL((fd = control_try()) >= 0);
	close(fd);
}

SYSTEM_TEST(nothing_is_read_again_after_a_take_over, HUGE_FILES, .keep = true)
{
	char *path = make_file("f", LONG, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t *m = map(f, LONG, PROT_READ, MAP_SHARED, 0);

	PATTERN_CHECK(m, LONG, 0, 1);
	for (unsigned i = 0; i < 3; i++) {
		next_daemon(i == 1 ? SIGUSR1 : SIGKILL);
		WAIT_UNTIL(file_state(path).resident == PAGES(LONG));
		CHECK(madvise(m, 3 * HUGE, MADV_DONTNEED) == 0);
		PATTERN_CHECK(m, LONG, 0, 1);
		CHECK_EQ(status().fill_bytes, 0);
		CHECK(is_huge(path));
		expect_no_difference();
	}
	CHECK_EQ(pgc_munmap(m, LONG), 0);
	WAIT_UNTIL(file_state(path).mappings == 0);
}

SYSTEM_TEST(deaths_while_pages_come_and_go_show_nobody_wrong_bytes, HUGE_FILES, .keep = true, .memory_max = "24M", .seconds = 120)
{
	char *path = make_file("f", 20 * HUGE, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t *m = map(f, 20 * HUGE, PROT_READ, MAP_SHARED, 0), buf[3 * PAGE];
	unsigned at = 0;

	for (unsigned i = 0; i < 12; i++) {
		pid_t before = daemon_pid();
		uint64_t end = now_ms() + 30 + 17 * i;

		while (now_ms() < end) {
			at = (at * 13 + 7) % 20;
			check_pages_of(m + at * HUGE, 0, 1, 1);
			CHECK_EQ(load(m + at * HUGE + 3000 * (at + i)), pattern_byte(at * HUGE + 3000 * (at + i), 1));
			PATTERN_CHECK(m + at * HUGE + HUGE / 2, PAGE, at * HUGE + HUGE / 2, 1);
			CHECK_EQ(pgc_pread(f, buf, sizeof(buf), (off_t)((at + 3) % 20 * HUGE)), sizeof(buf));
			PATTERN_CHECK(buf, sizeof(buf), (at + 3) % 20 * HUGE, 1);
		}
		CHECK(kill(before, SIGKILL) == 0);
	}
	WAIT_UNTIL(file_state(path).handles == 1);
	WAIT_UNTIL(taken() == file_state(path).resident / (HUGE / PAGE)); /* none is left over of what dead daemons were about to read */
	expect_no_difference();
	PATTERN_CHECK(m, 20 * HUGE, 0, 1);
}

static void outlives_the_daemon(struct peer *p, void *arg)
{
	char *path = arg;
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t *m = map(f, LONG - PAGE, PROT_READ, MAP_SHARED, PAGE);

	PATTERN_CHECK(m, HUGE, PAGE, 1);
	(void)peer_ask(p, 1);
	PATTERN_CHECK(m, LONG - PAGE, PAGE, 1);
	(void)peer_ask(p, 1);
}

SYSTEM_TEST(clients_bring_the_memory_where_nobody_kept_it, HUGE_FILES)
{
	char *path = make_file("f", LONG, 1);
	struct peer *p = peer_start(outlives_the_daemon, path);
	int st;

	CHECK_EQ(peer_hear(p), 1);
	CHECK(kill(env.daemon, SIGKILL) == 0);
	CHECK(waitpid(env.daemon, &st, 0) == env.daemon);
	env.daemon = 0;
	daemon_start();
	CHECK_EQ(peer_ask(p, 1), 1);
	CHECK(is_huge(path));
	CHECK_EQ(file_state(path).resident, PAGES(LONG));
	expect_no_difference();
	peer_tell(p, 1);
	peer_join(p);
}

#define T(name) cmocka_unit_test_setup(name, set_up)

static int set_up(void **state) { return write_setting(OVERCOMMIT, 1024) ? 0 : -1; }

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(bytes_are_right_on_both_sides_of_borders_and_at_the_end),
		T(behind_the_last_huge_page_is_a_signal),
		T(files_smaller_than_a_page_and_empty_ones),
		T(calls_read_what_is_mapped),
		T(any_page_can_be_where_a_mapping_begins),
		T(whole_huge_pages_are_unmapped_and_no_parts_of_them),
		T(fixed_addresses_are_whole_huge_pages),
		T(a_mapping_populates_whole),
		T(writers_are_refused),
		T(other_files_have_ordinary_pages),
		T(memory_that_a_reader_makes_by_itself_goes_again),
		T(a_second_process_maps_with_few_faults),
		T(a_forked_child_reads_on),
		T(a_forked_child_of_an_ordinary_user_reads_on),
		T(under_reclaim_bytes_are_right_and_the_limit_holds),
		T(ordinary_files_and_huge_ones_share_the_memory),
		T(what_is_pinned_stays),
		T(advice_drops_whole_huge_pages),
		T(retained_is_what_is_mapped),
		T(what_was_hot_is_read_in_at_the_next_open),
		T(what_changed_in_the_store_is_read_at_the_next_open),
		T(a_page_that_cannot_be_read_is_a_signal_in_all_of_its_huge_page),
		T(without_huge_pages_a_file_has_ordinary_ones),
		T(with_few_huge_pages_files_take_them_from_each_other),
		T(with_none_left_faults_and_reads_fail_and_later_do_not),
		T(nothing_is_read_again_after_a_take_over),
		T(deaths_while_pages_come_and_go_show_nobody_wrong_bytes),
		T(clients_bring_the_memory_where_nobody_kept_it),
	};
	long overcommit = read_setting(OVERCOMMIT), reserved = read_setting(RESERVED);
	int r;

	if (!write_setting(RESERVED, 0) || !write_setting(OVERCOMMIT, overcommit)) {
		fprintf(stderr, "%s cannot be set: this wants root\n", OVERCOMMIT);
		return getenv("PGC_REQUIRE_KERNEL") ? 1 : 77; /* skipped, to Meson */
	}
	r = system_tests_main("huge", tests, sizeof(tests) / sizeof(tests[0]));
	(void)write_setting(OVERCOMMIT, overcommit);
	(void)write_setting(RESERVED, reserved);
	return r;
}
