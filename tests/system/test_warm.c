/* SPDX-License-Identifier: Apache-2.0 */
/* Warm starts: what was hot is read in again at the next open. Retention: what a file's pages do after its last unmap. */
#include "harness.h"

#include <dirent.h>

#define MIB (1ul << 20)
#define DEBUG_LOG .config = "log_level = debug"

/* Parts of a file, in pages, far enough apart that no gap between them is read along. */
static const struct part { size_t first, n; } parts[] = { { 3, 5 }, { 100, 1 }, { 640, 300 }, { 2000, 48 } };
#define PARTS (sizeof(parts) / sizeof(parts[0]))
#define PART_PAGES (5 + 1 + 300 + 48)
#define FILE_PAGES 2048ul

/* Reads n bytes at `off`, which must be pattern `gen`, and only those pages. */
static void read_part(struct pgc_file *f, size_t off, size_t n, unsigned gen)
{
	uint8_t *b = malloc(n);

	CHECK(b);
	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_RANDOM), 0);
	for (size_t done = 0; done < n;) {
		ssize_t r = pgc_pread(f, b + done, n - done, (off_t)(off + done));

		CHECK(r > 0);
		done += (size_t)r;
	}
	PATTERN_CHECK(b, n, off, gen);
	free(b);
}

static void read_parts(struct pgc_file *f, unsigned gen)
{
	for (size_t i = 0; i < PARTS; i++)
		read_part(f, parts[i].first * PAGE, parts[i].n * PAGE, gen);
}

static bool in_a_part(size_t page)
{
	for (size_t i = 0; i < PARTS; i++)
		if (page >= parts[i].first && page < parts[i].first + parts[i].n)
			return true;
	return false;
}

/* Those pages and no others are in memory, without touching any. */
static void check_parts_in_memory(struct pgc_file *f)
{
	uint8_t *m = map(f, FILE_PAGES * PAGE, PROT_READ, MAP_SHARED, 0);

	for (size_t page = 0; page < FILE_PAGES; page++)
		if (page_in_core(m + page * PAGE) != in_a_part(page))
			FAIL("page %zu is %sin memory", page, in_a_part(page) ? "not " : "");
	CHECK_EQ(pgc_munmap(m, FILE_PAGES * PAGE), 0);
}

static void restart(void)
{
	daemon_stop();
	daemon_start();
}

/* A file that the daemon has no handle of, but the parts in memory and a record. */
static char *leave_parts_hot(void)
{
	char *path = make_file("f", FILE_PAGES * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);

	read_parts(f, 1);
	CHECK_EQ(file_state(path).resident, PART_PAGES);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(file_state(path).handles == 0);
	return path;
}

static unsigned count_records(char ret_name[512])
{
	DIR *dir = opendir(env.state_dir);
	struct dirent *e;
	unsigned n = 0;

	CHECK(dir);
	while ((e = readdir(dir)))
		if (strstr(e->d_name, ".warm")) {
			n++;
			if (ret_name)
				snprintf(ret_name, 512, "%s/%s", env.state_dir, e->d_name);
		}
	closedir(dir);
	return n;
}

static unsigned lines_with(const char *what)
{
	char *log = daemon_log(), *at = log;
	unsigned n = 0;

	for (; (at = strstr(at, what)); at += strlen(what))
		n++;
	free(log);
	return n;
}

/* --- warm starts --- */

SYSTEM_TEST(hot_pages_are_read_in_at_the_next_open)
{
	char *path = leave_parts_hot();
	struct pgc_file *f;

	restart();
	CHECK(!cached_file(path, &(struct pgc_ctl_file_reply){0}));
	f = open_file(path, O_RDWR);
	WAIT_UNTIL(file_state(path).resident == PART_PAGES);
	check_parts_in_memory(f);
	read_parts(f, 1);
	CHECK_EQ(file_state(path).resident, PART_PAGES);
}

SYSTEM_TEST(pages_read_in_for_a_warm_start_cost_few_reads)
{
	char *path = make_file("f", 16 * MIB, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	struct pgc_ctl_status_reply s;

	read_part(f, 0, 16 * MIB, 1);
	CHECK_EQ(pgc_close(f), 0);
	restart();
	f = open_file(path, O_RDONLY);
	WAIT_UNTIL(file_state(path).resident == 16 * MIB / PAGE);
	s = status();
	CHECK_EQ(s.faults, 0);
	CHECK_EQ(s.fill_bytes, 16 * MIB);
	CHECK(s.fills <= 32);
}

SYSTEM_TEST(files_open_at_shutdown_are_recorded)
{
	char *path = make_file("f", FILE_PAGES * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);

	read_parts(f, 1);
	daemon_stop();
	CHECK_EQ(count_records(NULL), 1);
	CHECK_EQ(pgc_close(f), 0); /* or it would be handed over to the next daemon */
	daemon_start();
	f = open_file(path, O_RDWR);
	WAIT_UNTIL(file_state(path).resident == PART_PAGES);
	check_parts_in_memory(f);
}

static void comes_back(struct peer *p, void *arg)
{
	struct pgc_file *f = open_file(arg, O_RDONLY);
	uint8_t *m = map(f, FILE_PAGES * PAGE, PROT_READ, MAP_SHARED, 0);

	CHECK_EQ(load(m + parts[0].first * PAGE), pattern_byte(parts[0].first * PAGE, 1));
	peer_tell(p, 1);
	peer_hear(p);
}

/* Handles of before the stop attach at the same time as somebody opens the file: whoever is first, it starts warm. */
SYSTEM_TEST(a_handle_that_comes_back_beside_a_new_one_spoils_no_warm_start, .seconds = 120)
{
	char *path = leave_parts_hot();

	for (unsigned i = 0; i < 10; i++) {
		struct peer *p = peer_start(comes_back, path);
		struct pgc_file *f;

		peer_hear(p);
		WAIT_UNTIL(file_state(path).resident == PART_PAGES);
		restart();
		f = open_file(path, O_RDONLY);
		WAIT_UNTIL(file_state(path).resident == PART_PAGES);
		check_parts_in_memory(f);
		peer_kill(p);
		CHECK_EQ(pgc_close(f), 0);
		WAIT_UNTIL(file_state(path).handles == 0);
	}
}

SYSTEM_TEST(file_dirty_at_shutdown_is_recorded_as_it_is_written)
{
	char *path = make_file("f", FILE_PAGES * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *b = malloc(64 * PAGE);

	pattern_fill(b, 64 * PAGE, 640 * PAGE, 2);
	CHECK_EQ(pgc_pwrite(f, b, 64 * PAGE, 640 * PAGE), 64 * PAGE);
	CHECK_EQ(file_state(path).dirty, 64);
	daemon_stop();
	CHECK(store_has(path, 64 * PAGE, 640 * PAGE, 2));
	CHECK_EQ(pgc_close(f), 0);
	daemon_start();
	f = open_file(path, O_RDONLY);
	WAIT_UNTIL(file_state(path).resident == 64);
	read_part(f, 640 * PAGE, 64 * PAGE, 2);
	CHECK_EQ(file_state(path).resident, 64);
}

SYSTEM_TEST(file_written_and_closed_is_recorded_as_it_is_written)
{
	char *path = make_file("f", FILE_PAGES * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, FILE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	CHECK_EQ(pgc_madvise(m, FILE_PAGES * PAGE, MADV_RANDOM), 0);
	store(m + 700 * PAGE, 0);
	CHECK_EQ(pgc_munmap(m, FILE_PAGES * PAGE), 0);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(count_records(NULL) == 1);
	restart();
	f = open_file(path, O_RDWR);
	WAIT_UNTIL(file_state(path).resident > 0);
	m = map(f, FILE_PAGES * PAGE, PROT_READ, MAP_SHARED, 0);
	WAIT_UNTIL(page_in_core(m + 700 * PAGE));
	CHECK_EQ(load(m + 700 * PAGE), 0);
}

SYSTEM_TEST(file_changed_in_between_is_not_read_in)
{
	char *path = leave_parts_hot(), byte = 0;
	struct pgc_file *f;

	daemon_stop();
	store_write(path, &byte, 1, 5 * PAGE);
	CHECK_EQ(count_records(NULL), 1);
	daemon_start();
	f = open_file(path, O_RDONLY);
	WAIT_UNTIL(count_records(NULL) == 0);
	CHECK_EQ(lines_with("record of hot pages is ignored"), 1);
	CHECK_EQ(lines_with("the file has changed since"), 1);
	/* A second open finds nothing to complain of. */
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(!cached_file(path, &(struct pgc_ctl_file_reply){0}));
	f = open_file(path, O_RDONLY);
	CHECK_EQ(file_state(path).resident, 0);
	read_part(f, 0, 5 * PAGE, 1);
	CHECK_EQ(lines_with("record of hot pages is ignored"), 1);
}

/* The record, as `damage` leaves it, costs one line and nothing else. */
static void check_broken_record_is_ignored(void (*damage)(const char *name))
{
	char *path = leave_parts_hot(), name[512];
	struct pgc_file *f;

	daemon_stop();
	CHECK_EQ(count_records(name), 1);
	damage(name);
	daemon_start();
	f = open_file(path, O_RDONLY);
	WAIT_UNTIL(count_records(NULL) == 0);
	CHECK_EQ(lines_with("record of hot pages is ignored"), 1);
	CHECK_EQ(file_state(path).resident, 0);
	read_parts(f, 1);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(count_records(NULL) == 1); /* a new one */
}

static void make_garbage(const char *name)
{
	uint8_t b[4096];

	pattern_fill(b, sizeof(b), 0, 9);
	store_write(name, b, sizeof(b), 0);
}

static void cut_short(const char *name)
{
	CHECK_EQ(truncate(name, store_size(name) - 1), 0);
}

static void make_empty(const char *name)
{
	CHECK_EQ(truncate(name, 0), 0);
}

SYSTEM_TEST(record_of_garbage_is_ignored) { check_broken_record_is_ignored(make_garbage); }
SYSTEM_TEST(record_that_was_cut_short_is_ignored) { check_broken_record_is_ignored(cut_short); }
SYSTEM_TEST(empty_record_is_ignored) { check_broken_record_is_ignored(make_empty); }

SYSTEM_TEST(warm_start_takes_only_free_memory, .memory_max = "32M", .workers = 1, DEBUG_LOG)
{
	char *path = make_file("f", 24 * MIB, 1), *other = make_file("other", 20 * MIB, 2);
	struct pgc_file *f = open_file(path, O_RDONLY), *g;

	read_part(f, 0, 24 * MIB, 1);
	CHECK_EQ(pgc_close(f), 0);
	restart();
	g = open_file(other, O_RDONLY);
	read_part(g, 0, 20 * MIB, 2);
	f = open_file(path, O_RDONLY);
	WAIT_UNTIL(lines_with("there is no more free memory") == 1);
	CHECK(file_state(path).resident > 0);
	CHECK_EQ(file_state(other).resident, 20 * MIB / PAGE); /* nothing had to go */
	CHECK(status().memory_used <= 32 * MIB);
	read_part(f, 0, 24 * MIB, 1);
}

SYSTEM_TEST(state_folder_that_cannot_be_used_is_told_once, .no_daemon = true)
{
	char *path[3] = { make_file("a", 64 * PAGE, 1), make_file("b", 64 * PAGE, 1), make_file("c", 64 * PAGE, 1) };

	/* Root may write anywhere; what is no folder is one for nobody. */
	CHECK_EQ(rmdir(env.state_dir), 0);
	store_write(make_file(env.state_dir, PAGE, 1), "x", 1, 0);
	daemon_start();
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 3; i++) {
			struct pgc_file *f = open_file(path[i], O_RDWR);
			uint8_t byte = pattern_byte(0, 1);

			read_part(f, 0, 64 * PAGE, 1);
			CHECK_EQ(pgc_pwrite(f, &byte, 1, 0), 1);
			CHECK_EQ(pgc_fsync(f), 0);
			CHECK_EQ(pgc_close(f), 0);
		}
	daemon_stop();
	CHECK_EQ(lines_with("no warm starts"), 1);
}

SYSTEM_TEST(missing_state_folder_is_made)
{
	struct stat st;

	CHECK_EQ(rmdir(env.state_dir), 0);
	strcat(env.state_dir, "/below/it");
	restart();
	leave_parts_hot();
	WAIT_UNTIL(stat(env.state_dir, &st) == 0 && count_records(NULL) == 1);
	CHECK_EQ(st.st_mode & 07777, 0700);
}

SYSTEM_TEST(without_warm_start_nothing_is_recorded, .config = "warm_start = no")
{
	struct pgc_file *f;
	char *path = leave_parts_hot();

	f = open_file(path, O_RDONLY); /* open at shutdown, too */
	CHECK(f);
	daemon_stop();
	CHECK_EQ(count_records(NULL), 0);
}

SYSTEM_TEST(without_warm_start_no_record_is_used)
{
	static const struct test_options off = {.config = "warm_start = no\nlog_level = debug"};
	char *path = leave_parts_hot(), name[512];
	struct pgc_file *f;

	daemon_stop();
	CHECK_EQ(count_records(name), 1);
	make_garbage(name); /* so that reading it would show */
	env.options = &off;
	daemon_start();
	f = open_file(path, O_RDONLY);
	read_part(f, 0, PAGE, 1);
	daemon_stop();
	CHECK_EQ(count_records(NULL), 1);
	CHECK_EQ(lines_with("hot pages"), 0);
}

SYSTEM_TEST(file_whose_pages_are_all_there_needs_no_record, DEBUG_LOG)
{
	char *path = leave_parts_hot(), name[512];
	struct pgc_file *f;

	WAIT_UNTIL(count_records(name) == 1);
	make_garbage(name); /* so that reading it would show */
	f = open_file(path, O_RDONLY);
	CHECK_EQ(file_state(path).resident, PART_PAGES);
	read_parts(f, 1);
	daemon_stop();
	CHECK_EQ(lines_with("hot pages"), 0);
}

/* Slow enough to be looked at: a read takes 50 ms, and four are under way at a time. */
#define SLOW_PAGES (32 * MIB / PAGE)
static void leave_slow_file_hot(void)
{
	struct pgc_file *f = open_mem("mem:slow", 32 * MIB, 1);

	read_part(f, 0, 32 * MIB, 1);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(count_records(NULL) == 1);
	drop_clean();
	CHECK_EQ(file_state("mem:slow").resident, 0);
	inject("mem:slow", PGC_INJECT_READ_DELAY, 50000, 0);
}

SYSTEM_TEST(prefetch_ends_with_the_last_handle, DEBUG_LOG)
{
	struct pgc_file *f;
	uint64_t resident;

	leave_slow_file_hot();
	f = open_file("mem:slow", O_RDONLY);
	WAIT_UNTIL(file_state("mem:slow").resident > 0);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(lines_with("the file is closed") == 1);
	resident = file_state("mem:slow").resident;
	CHECK(resident < SLOW_PAGES);
	nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL); /* in which as much as four reads would have come */
	CHECK_EQ(file_state("mem:slow").resident, resident);
}

SYSTEM_TEST(prefetch_that_was_cut_short_keeps_the_record)
{
	struct pgc_file *f;

	leave_slow_file_hot();
	f = open_file("mem:slow", O_RDONLY);
	WAIT_UNTIL(file_state("mem:slow").resident > 0);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(file_state("mem:slow").handles == 0);
	CHECK(file_state("mem:slow").resident < SLOW_PAGES);
	inject("mem:slow", PGC_INJECT_READ_DELAY, 0, 0);
	f = open_file("mem:slow", O_RDONLY);
	WAIT_UNTIL(file_state("mem:slow").resident == SLOW_PAGES);
	read_part(f, 0, 32 * MIB, 1);
}

SYSTEM_TEST(file_opened_and_closed_at_once_stays_warm)
{
	char *path = make_file("f", 32 * MIB, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);

	read_part(f, 0, 32 * MIB, 1);
	CHECK_EQ(pgc_close(f), 0);
	restart();
	for (int i = 0; i < 20; i++)
		CHECK_EQ(pgc_close(open_file(path, O_RDONLY)), 0);
	restart();
	f = open_file(path, O_RDONLY);
	WAIT_UNTIL(file_state(path).resident == SLOW_PAGES);
}

static void read_other(struct peer *p, void *arg)
{
	struct pgc_file *f;

	peer_hear(p);
	f = open_file("mem:other", O_RDONLY);
	peer_tell(p, 1);
	read_part(f, 0, PAGE, 1);
	peer_tell(p, 2);
}

SYSTEM_TEST(prefetch_gives_way_to_what_is_asked_for, .workers = 1, DEBUG_LOG)
{
	struct peer *p = peer_start(read_other, NULL);
	uint64_t samples = 0, before;
	struct pgc_file *f;

	open_mem("mem:other", PAGE, 1);
	leave_slow_file_hot();
	inject("mem:slow", PGC_INJECT_READ_DELAY, 0, 0);
	drop_clean();
	inject("mem:other", PGC_INJECT_READ_DELAY, 1500000, 0);
	before = status().fills;
	CHECK_EQ(peer_ask(p, 1), 1);
	WAIT_UNTIL(status().fills == before + 1); /* its read is under way */
	f = open_file("mem:slow", O_RDONLY);
	for (;;) {
		/* In this order: while the other's page is not there, nothing had been read ahead. */
		uint64_t slow = file_state("mem:slow").resident;

		if (file_state("mem:other").resident > 0)
			break;
		CHECK_EQ(slow, 0);
		samples += lines_with("hot pages begins") > 0;
	}
	CHECK(samples > 3);
	WAIT_UNTIL(file_state("mem:slow").resident == SLOW_PAGES);
	CHECK_EQ(peer_hear(p), 2);
	peer_join(p);
	read_part(f, 0, 32 * MIB, 1);
}

SYSTEM_TEST(file_that_shrinks_while_it_is_read_in_is_right)
{
	struct pgc_file *f;

	leave_slow_file_hot();
	f = open_file("mem:slow", O_RDWR);
	WAIT_UNTIL(file_state("mem:slow").resident > 0);
	CHECK_EQ(pgc_ftruncate(f, 5 * MIB + 100), 0);
	inject("mem:slow", PGC_INJECT_READ_DELAY, 0, 0);
	read_part(f, 0, 5 * MIB + 100, 1);
	CHECK(file_state("mem:slow").resident <= 5 * MIB / PAGE + 1);
	CHECK_EQ(pgc_ftruncate(f, 6 * MIB), 0);
	{
		uint8_t *b = malloc(MIB - 100);

		CHECK_EQ(pgc_pread(f, b, MIB - 100, 5 * MIB + 100), MIB - 100);
		ZERO_CHECK(b, MIB - 100);
		free(b);
	}
}

SYSTEM_TEST(hung_store_does_not_keep_the_daemon_from_its_records, .no_daemon = true)
{
	char *path = make_file("f", FILE_PAGES * PAGE, 1);
	struct pgc_file *f;
	uint64_t before;

	/* What belongs to a read that never ends is not freed when the process ends. */
	setenv("ASAN_OPTIONS", "detect_leaks=0:exitcode=99", 1);
	daemon_start();
	f = open_file(path, O_RDONLY);
	leave_slow_file_hot(); /* drops what is clean */
	read_parts(f, 1);
	inject("mem:slow", PGC_INJECT_READ_DELAY, 60000000, 0);
	before = status().fills;
	open_file("mem:slow", O_RDONLY);
	WAIT_UNTIL(status().fills > before);
	daemon_stop();
	CHECK_EQ(count_records(NULL), 2);
}

/* --- retention --- */

#define MAPPED .config = "retain = mapped"

SYSTEM_TEST(retained_by_mappings_memory_is_freed_with_the_last_unmap, MAPPED)
{
	char *path = make_file("f", 4 * MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pattern_fill(m, 4 * MIB, 0, 2);
	CHECK_EQ(file_state(path).resident, 4 * MIB / PAGE);
	CHECK_EQ(pgc_munmap(m, 4 * MIB), 0);
	WAIT_UNTIL(file_state(path).resident == 0);
	CHECK_EQ(file_state(path).handles, 1);
	CHECK_EQ(cached_bytes(), 0);
	CHECK(store_has(path, 4 * MIB, 0, 2));
	read_part(f, 0, 4 * MIB, 2);
}

SYSTEM_TEST(retained_by_mappings_file_goes_with_unmap_and_close, MAPPED)
{
	char *path = make_file("f", 4 * MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pattern_fill(m, 4 * MIB, 0, 2);
	CHECK_EQ(pgc_close(f), 0);
	CHECK_EQ(file_state(path).resident, 4 * MIB / PAGE); /* the mapping outlives its handle */
	CHECK_EQ(pgc_munmap(m, 4 * MIB), 0);
	WAIT_UNTIL(!cached_file(path, &(struct pgc_ctl_file_reply){0}));
	CHECK(store_has(path, 4 * MIB, 0, 2));
	CHECK_EQ(cached_bytes(), 0);
}

SYSTEM_TEST(retained_by_mappings_pages_of_calls_go_with_the_last_handle, MAPPED)
{
	char *path = make_file("f", MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t byte = 7;

	read_part(f, 0, MIB, 1);
	CHECK_EQ(pgc_pwrite(f, &byte, 1, 5), 1);
	CHECK_EQ(file_state(path).resident, MIB / PAGE);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(!cached_file(path, &(struct pgc_ctl_file_reply){0}));
	CHECK(store_has_byte(path, 5, 7));
}

SYSTEM_TEST(retained_by_mappings_only_what_no_mapping_covers_goes, MAPPED)
{
	char *path = make_file("f", 4 * MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR), *g = open_file(path, O_RDWR);
	uint8_t *m = map(f, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint8_t *other = map(g, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 3 * MIB);

	pattern_fill(m, 4 * MIB, 0, 2);
	/* A part of a mapping: the rest of it is still mapped. */
	CHECK_EQ(pgc_munmap(m, MIB), 0);
	WAIT_UNTIL(file_state(path).resident == 3 * MIB / PAGE);
	CHECK(store_has(path, MIB, 0, 2));
	CHECK_EQ(pgc_munmap(m + MIB, 3 * MIB), 0);
	WAIT_UNTIL(file_state(path).resident == MIB / PAGE);
	CHECK(store_has(path, 3 * MIB, 0, 2));
	PATTERN_CHECK(other, MIB, 3 * MIB, 2);
	CHECK_EQ(file_state(path).resident, MIB / PAGE);
}

SYSTEM_TEST(retained_by_mappings_what_cannot_be_written_stays_until_it_can, MAPPED, .dirty_expire = "100ms")
{
	struct pgc_file *f = open_mem("mem:f", MIB, 1);
	uint8_t *m = map(f, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	/* From the start: what the timer could write before the end of the stores would rightly go. */
	inject("mem:f", PGC_INJECT_WRITE_ERROR, EIO, 0);
	pattern_fill(m, MIB, 0, 2);
	CHECK_EQ(pgc_munmap(m, MIB), 0);
	WAIT_UNTIL(status().writeout_errors > 0);
	CHECK_EQ(file_state("mem:f").resident, MIB / PAGE);
	CHECK(file_state("mem:f").dirty > 0);
	inject("mem:f", PGC_INJECT_WRITE_ERROR, 0, 0);
	WAIT_UNTIL(file_state("mem:f").resident == 0);
	read_part(f, 0, MIB, 2);
}

SYSTEM_TEST(retained_by_mappings_there_are_no_records, MAPPED)
{
	char *path = make_file("f", FILE_PAGES * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);

	read_parts(f, 1);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(!cached_file(path, &(struct pgc_ctl_file_reply){0}));
	daemon_stop();
	CHECK_EQ(count_records(NULL), 0);
}

SYSTEM_TEST(retained_by_recency_pages_stay_after_unmap_and_close)
{
	char *path = make_file("f", 4 * MIB, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pattern_fill(m, 4 * MIB, 0, 2);
	CHECK_EQ(pgc_munmap(m, 4 * MIB), 0);
	WAIT_UNTIL(file_state(path).dirty == 0 && file_state(path).writeback == 0);
	CHECK_EQ(file_state(path).resident, 4 * MIB / PAGE);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(file_state(path).handles == 0);
	CHECK(store_has(path, 4 * MIB, 0, 2));
	CHECK_EQ(file_state(path).resident, 4 * MIB / PAGE);
}

/* The whole path counts, not only the end of it that is shown. */
SYSTEM_TEST(retention_is_chosen_by_the_whole_path, .config = "[file */long-folder-name-0/*/gone]\nretain = mapped")
{
	char name[256] = "", *gone, *kept;
	struct pgc_file *f, *g;

	for (int i = 0; i < 9; i++) {
		sprintf(name + strlen(name), "%slong-folder-name-%d", i ? "/" : "", i);
		CHECK_EQ(mkdir(name, 0700), 0);
	}
	strcat(name, "/gone");
	gone = make_file(name, MIB, 1);
	strcpy(strrchr(name, '/'), "/kept");
	kept = make_file(name, MIB, 1);
	f = open_file(gone, O_RDONLY);
	g = open_file(kept, O_RDONLY);
	read_part(f, 0, MIB, 1);
	read_part(g, 0, MIB, 1);
	CHECK_EQ(status().resident, 2 * MIB / PAGE);
	CHECK_EQ(pgc_close(f), 0);
	CHECK_EQ(pgc_close(g), 0);
	WAIT_UNTIL(count_files() == 1 && status().handles == 0);
	CHECK_EQ(status().resident, MIB / PAGE);
}

SYSTEM_TESTS_MAIN("warm",
	cmocka_unit_test(hot_pages_are_read_in_at_the_next_open),
	cmocka_unit_test(pages_read_in_for_a_warm_start_cost_few_reads),
	cmocka_unit_test(files_open_at_shutdown_are_recorded),
	cmocka_unit_test(a_handle_that_comes_back_beside_a_new_one_spoils_no_warm_start),
	cmocka_unit_test(file_dirty_at_shutdown_is_recorded_as_it_is_written),
	cmocka_unit_test(file_written_and_closed_is_recorded_as_it_is_written),
	cmocka_unit_test(file_changed_in_between_is_not_read_in),
	cmocka_unit_test(record_of_garbage_is_ignored),
	cmocka_unit_test(record_that_was_cut_short_is_ignored),
	cmocka_unit_test(empty_record_is_ignored),
	cmocka_unit_test(warm_start_takes_only_free_memory),
	cmocka_unit_test(state_folder_that_cannot_be_used_is_told_once),
	cmocka_unit_test(missing_state_folder_is_made),
	cmocka_unit_test(without_warm_start_nothing_is_recorded),
	cmocka_unit_test(without_warm_start_no_record_is_used),
	cmocka_unit_test(file_whose_pages_are_all_there_needs_no_record),
	cmocka_unit_test(prefetch_ends_with_the_last_handle),
	cmocka_unit_test(prefetch_that_was_cut_short_keeps_the_record),
	cmocka_unit_test(file_opened_and_closed_at_once_stays_warm),
	cmocka_unit_test(prefetch_gives_way_to_what_is_asked_for),
	cmocka_unit_test(file_that_shrinks_while_it_is_read_in_is_right),
	cmocka_unit_test(hung_store_does_not_keep_the_daemon_from_its_records),
	cmocka_unit_test(retained_by_mappings_memory_is_freed_with_the_last_unmap),
	cmocka_unit_test(retained_by_mappings_file_goes_with_unmap_and_close),
	cmocka_unit_test(retained_by_mappings_pages_of_calls_go_with_the_last_handle),
	cmocka_unit_test(retained_by_mappings_only_what_no_mapping_covers_goes),
	cmocka_unit_test(retained_by_mappings_what_cannot_be_written_stays_until_it_can),
	cmocka_unit_test(retained_by_mappings_there_are_no_records),
	cmocka_unit_test(retained_by_recency_pages_stay_after_unmap_and_close),
	cmocka_unit_test(retention_is_chosen_by_the_whole_path))
