/* SPDX-License-Identifier: Apache-2.0 */
/* How pages get from the store to who touches them: cold files, holes, identity, read errors, many at once, handles that go early. */
#include "harness.h"

#include <pthread.h>

#define MIB (1ul << 20)

/* --- cold files --- */

static const size_t odd_sizes[] = {0, 1, 4095, 4096, 4097, 256 * 1024, 256 * 1024 + 1, MIB + 4095};

SYSTEM_TEST(cold_files_of_odd_sizes_are_mapped_whole)
{
	for (size_t i = 0; i < sizeof(odd_sizes) / sizeof(odd_sizes[0]); i++) {
		char name[32];
		size_t size = odd_sizes[i], room = (size + PAGE) & ~(PAGE - 1);
		struct pgc_file *f;
		uint8_t *m, v;

		snprintf(name, sizeof(name), "f%zu", size);
		f = open_file(make_file(name, size, 1), O_RDWR);
		m = map(f, room + PAGE, PROT_READ, i % 2 ? MAP_SHARED : MAP_PRIVATE, 0);
		PATTERN_CHECK(m, size, 0, 1);
		if (size % PAGE)
			ZERO_CHECK(m + size, room - size);
		CHECK_EQ(load_signal(m + ((size + PAGE - 1) & ~(PAGE - 1)), &v), SIGBUS);
	}
}

SYSTEM_TEST(cold_files_of_odd_sizes_are_read_whole)
{
	for (size_t i = 0; i < sizeof(odd_sizes) / sizeof(odd_sizes[0]); i++) {
		char name[32];
		size_t size = odd_sizes[i];
		struct pgc_file *f;
		uint8_t *b = malloc(size + 100);

		snprintf(name, sizeof(name), "f%zu", size);
		f = open_file(make_file(name, size, 1), O_RDONLY);
		CHECK_EQ(pgc_pread(f, b, size + 100, 0), size);
		PATTERN_CHECK(b, size, 0, 1);
		free(b);
	}
}

SYSTEM_TEST(cold_file_is_read_backwards_and_at_random)
{
	size_t pages = 700;
	struct pgc_file *f = open_file(make_file("f", pages * PAGE, 1), O_RDWR), *g = open_file(make_file("g", pages * PAGE, 2), O_RDWR);
	uint8_t *m = map(f, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), *n = map(g, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	unsigned seed = 42;

	for (size_t page = pages; page-- > 0;)
		PATTERN_CHECK(m + page * PAGE, PAGE, page * PAGE, 1);
	for (unsigned i = 0; i < 300; i++) {
		size_t at = (size_t)rand_r(&seed) % (pages * PAGE);

		CHECK_EQ(load(n + at), pattern_byte(at, 2));
	}
	PATTERN_CHECK(n, pages * PAGE, 0, 2);
}

SYSTEM_TEST(sequential_scan_is_not_one_fault_a_page)
{
	size_t pages = 2048;
	struct pgc_file *f = open_file(make_file("f", pages * PAGE, 1), O_RDWR);
	uint8_t *m = map(f, pages * PAGE, PROT_READ, MAP_SHARED, 0);
	struct pgc_ctl_status_reply s;

	for (size_t page = 0; page < pages; page++)
		CHECK_EQ(load(m + page * PAGE + 9), pattern_byte(page * PAGE + 9, 1));
	s = status();
	CHECK(s.faults < pages / 8);
	CHECK(s.fills >= 1 && s.fills < pages / 8);
	CHECK_EQ(s.fill_bytes, pages * PAGE);
}

/* The kernel marks the mutexes of a thread that dies, and asks no userfaultfd then: their page must stay writable over a write-out. */
SYSTEM_TEST(robust_mutex_in_a_kept_page_survives_the_death_of_its_owner)
{
	struct pgc_file *f = open_file(make_file("f", 4 * PAGE, 1), O_RDWR);
	struct { pthread_mutex_t mutex; int locked; } *m = (void *)map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct timespec limit;
	pthread_mutexattr_t attr;
	pid_t child;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	CHECK_EQ(pgc_keep(f, 0, PAGE, true), 0);
	m->locked = 0;
	CHECK_EQ(pthread_mutex_init(&m->mutex, &attr), 0);
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		pthread_mutex_lock(&m->mutex);
		__atomic_store_n(&m->locked, 1, __ATOMIC_RELEASE);
		pause();
		_exit(0);
	}
	while (!__atomic_load_n(&m->locked, __ATOMIC_ACQUIRE))
		usleep(1000);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(kill(child, SIGKILL), 0);
	CHECK_EQ(waitpid(child, NULL, 0), child);
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 10;
	CHECK_EQ(pthread_mutex_timedlock(&m->mutex, &limit), EOWNERDEAD);
}

SYSTEM_TEST(second_mapping_of_a_warm_file_reads_nothing)
{
	size_t pages = 1024;
	struct pgc_file *f = open_file(make_file("f", pages * PAGE, 1), O_RDWR);
	struct pgc_ctl_status_reply before, after;

	PATTERN_CHECK(map(f, pages * PAGE, PROT_READ, MAP_SHARED, 0), pages * PAGE, 0, 1);
	before = status();
	PATTERN_CHECK(map(f, pages * PAGE, PROT_READ, MAP_SHARED, 0), pages * PAGE, 0, 1);
	after = status();
	CHECK_EQ(after.fills, before.fills);
	CHECK_EQ(after.fill_bytes, before.fill_bytes);
	CHECK(after.faults - before.faults < pages / 8);
}

SYSTEM_TEST(short_reads_of_the_store_go_on_where_they_stopped)
{
	static const unsigned most[] = {4096, 5000, 70000};
	struct pgc_file *f = open_mem("mem:s", 100 * PAGE + 50, 1);
	uint8_t *m = map(f, 100 * PAGE + 50, PROT_READ, MAP_SHARED, 0);

	for (unsigned i = 0; i < sizeof(most) / sizeof(most[0]); i++) {
		inject("mem:s", PGC_INJECT_READ_SHORT, most[i], 0);
		PATTERN_CHECK(m, 100 * PAGE + 50, 0, 1);
		ZERO_CHECK(m + 100 * PAGE + 50, PAGE - 50);
		drop_clean();
		CHECK_EQ(file_state("mem:s").resident, 0);
	}
}

SYSTEM_TEST(populate_of_a_private_and_a_read_only_mapping_shows_the_bytes)
{
	char *path = make_file("f", 90 * PAGE + 1, 1);
	struct pgc_file *rw = open_file(path, O_RDWR), *ro = open_file(path, O_RDONLY);

	PATTERN_CHECK(map(ro, 90 * PAGE + 1, PROT_READ, MAP_SHARED | MAP_POPULATE, 0), 90 * PAGE + 1, 0, 1);
	PATTERN_CHECK(map(ro, 90 * PAGE + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_POPULATE, 0), 90 * PAGE + 1, 0, 1);
	PATTERN_CHECK(map(rw, 90 * PAGE + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_POPULATE, 0), 90 * PAGE + 1, 0, 1);
	PATTERN_CHECK(map(rw, 90 * PAGE + 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, 0), 90 * PAGE + 1, 0, 1);
}

/* --- holes --- */

static blkcnt_t blocks_of(const char *path)
{
	struct stat st;

	CHECK(stat(path, &st) == 0);
	return st.st_blocks;
}

SYSTEM_TEST(holes_are_kept_when_a_sparse_file_is_stored_into_elsewhere)
{
	char *path = make_file("f", PAGE, 1);
	struct pgc_file *f;
	uint8_t *m;

	CHECK(truncate(path, 8 * MIB) == 0);
	f = open_file(path, O_RDWR);
	m = map(f, 8 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	ZERO_CHECK(m + PAGE, 8 * MIB - PAGE);
	store(m + 4 * MIB + 77, 1);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 4 * MIB + 77, 1));
	CHECK(store_has(path, PAGE, 0, 1));
	CHECK(store_is_zero(path, 4 * MIB - PAGE, PAGE));
	CHECK(blocks_of(path) * 512 <= 64 * 1024);
}

SYSTEM_TEST(dirty_page_that_is_still_zero_leaves_the_hole)
{
	char *path = make_file("f", PAGE, 1);
	struct pgc_file *f;
	uint8_t *m;

	CHECK(truncate(path, 4 * MIB) == 0);
	f = open_file(path, O_RDWR);
	m = map(f, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	for (size_t page = 1; page < 1024; page++)
		store(m + page * PAGE, 0);
	store(m + 600 * PAGE, 3);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(file_state(path).dirty, 0);
	CHECK_EQ(store_size(path), 4 * MIB);
	CHECK(store_has_byte(path, 600 * PAGE, 3));
	CHECK(store_is_zero(path, 599 * PAGE, PAGE));
	CHECK(blocks_of(path) * 512 <= 128 * 1024);
}

SYSTEM_TEST(zeros_stored_over_data_are_written)
{
	char *path = make_file("f", 100 * PAGE, 1);
	struct pgc_file *f;
	uint8_t *m;

	CHECK(truncate(path, 4 * MIB) == 0);
	f = open_file(path, O_RDWR);
	m = map(f, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	memset(m + 10 * PAGE, 0, 5 * PAGE);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_is_zero(path, 5 * PAGE, 10 * PAGE));
	CHECK(store_has(path, 10 * PAGE, 0, 1));
	CHECK(store_has(path, 85 * PAGE, 15 * PAGE, 1));
}

/* --- identity --- */

SYSTEM_TEST(two_names_of_one_inode_are_one_file)
{
	char *a = make_file("a", 3 * PAGE, 1), *b = file_path("b");
	struct pgc_file *f, *g;
	uint8_t *m, *n;

	CHECK(link(a, b) == 0);
	f = open_file(a, O_RDWR);
	g = open_file(b, O_RDWR);
	m = map(f, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	n = map(g, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	PATTERN_CHECK(n, 3 * PAGE, 0, 1);
	pattern_fill(m, 3 * PAGE, 0, 2);
	PATTERN_CHECK(n, 3 * PAGE, 0, 2);
	CHECK_EQ(count_files(), 1);
	CHECK_EQ(file_state(a).handles, 2);
}

SYSTEM_TEST(new_file_of_an_old_name_is_another_file)
{
	char *a = make_file("a", 3 * PAGE, 1), *b = make_file("b", 3 * PAGE, 2);
	struct pgc_file *f = open_file(a, O_RDWR), *g;
	uint8_t *m = map(f, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	PATTERN_CHECK(m, PAGE, 0, 1);
	CHECK(rename(b, a) == 0);
	g = open_file(a, O_RDWR);
	PATTERN_CHECK(map(g, 3 * PAGE, PROT_READ, MAP_SHARED, 0), 3 * PAGE, 0, 2);
	PATTERN_CHECK(m, 3 * PAGE, 0, 1);
}

SYSTEM_TEST(unlinked_file_lives_while_it_is_mapped)
{
	char *path = make_file("f", 30 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 30 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	CHECK(unlink(path) == 0);
	PATTERN_CHECK(m, 30 * PAGE, 0, 1);
	pattern_fill(m, 30 * PAGE, 0, 2);
	CHECK_EQ(pgc_fsync(f), 0);
	PATTERN_CHECK(m, 30 * PAGE, 0, 2);
}

/* Writes past pagecached until the file's time of modification has moved. */
static void change_outside(const char *path, size_t size, unsigned gen)
{
	struct stat before, after;
	uint8_t *b = malloc(size);

	pattern_fill(b, size, 0, gen);
	CHECK(stat(path, &before) == 0);
	do {
		store_write(path, b, size, 0);
		CHECK(stat(path, &after) == 0);
	} while (memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)) == 0);
	free(b);
}

SYSTEM_TEST(change_from_outside_is_noticed_at_the_next_open)
{
	char *path = make_file("f", 50 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 50 * PAGE, PROT_READ, MAP_SHARED, 0);

	PATTERN_CHECK(m, 50 * PAGE, 0, 1);
	CHECK_EQ(pgc_munmap(m, 50 * PAGE), 0);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(file_state(path).handles == 0);
	change_outside(path, 50 * PAGE, 2);
	f = open_file(path, O_RDWR);
	PATTERN_CHECK(map(f, 50 * PAGE, PROT_READ, MAP_SHARED, 0), 50 * PAGE, 0, 2);
}

SYSTEM_TEST(file_that_was_not_changed_keeps_its_pages_between_opens)
{
	char *path = make_file("f", 50 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 50 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct pgc_ctl_status_reply s;

	/* Our own write-out is no change from outside either. */
	pattern_fill(m, 50 * PAGE, 0, 2);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(pgc_munmap(m, 50 * PAGE), 0);
	CHECK_EQ(pgc_close(f), 0);
	WAIT_UNTIL(file_state(path).handles == 0);
	s = status();
	f = open_file(path, O_RDWR);
	PATTERN_CHECK(map(f, 50 * PAGE, PROT_READ, MAP_SHARED, 0), 50 * PAGE, 0, 2);
	CHECK_EQ(status().fills, s.fills);
}

SYSTEM_TEST(change_from_outside_reaches_mappings_made_before_the_next_open)
{
	char *path = make_file("f", 50 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR), *g;
	uint8_t *m = map(f, 50 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	PATTERN_CHECK(m, 50 * PAGE, 0, 1);
	change_outside(path, 50 * PAGE, 2);
	g = open_file(path, O_RDWR);
	PATTERN_CHECK(m, 50 * PAGE, 0, 2);
	CHECK_EQ(pgc_close(g), 0);
}

SYSTEM_TEST(dirty_page_outlives_a_change_from_outside)
{
	char *path = make_file("f", 50 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 50 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	store(m + 20 * PAGE, 0);
	change_outside(path, 50 * PAGE, 2);
	open_file(path, O_RDWR);
	CHECK_EQ(load(m + 20 * PAGE), 0);
	PATTERN_CHECK(m, 20 * PAGE, 0, 2);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 20 * PAGE, 0));
}

SYSTEM_TEST(change_of_size_from_outside_is_noticed_at_the_next_open)
{
	char *path = make_file("f", 10 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	struct stat st;
	uint8_t *m = map(f, 30 * PAGE, PROT_READ, MAP_SHARED, 0), v;

	PATTERN_CHECK(m, 10 * PAGE, 0, 1);
	change_outside(path, 30 * PAGE, 2);
	f = open_file(path, O_RDWR);
	CHECK_EQ(pgc_fstat(f, &st), 0);
	CHECK_EQ(st.st_size, 30 * PAGE);
	PATTERN_CHECK(m, 30 * PAGE, 0, 2);
	CHECK(truncate(path, 5 * PAGE) == 0);
	f = open_file(path, O_RDWR);
	CHECK_EQ(pgc_fstat(f, &st), 0);
	CHECK_EQ(st.st_size, 5 * PAGE);
	CHECK_EQ(load_signal(m + 5 * PAGE, &v), SIGBUS);
	PATTERN_CHECK(m, 5 * PAGE, 0, 2);
}

/* --- read errors --- */

SYSTEM_TEST(read_error_is_sigbus_and_eio_until_the_store_heals)
{
	struct pgc_file *f = open_mem("mem:r", 30 * PAGE, 1);
	uint8_t *m = map(f, 30 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), b[PAGE], v;
	uint8_t *private = map(f, 30 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);

	inject("mem:r", PGC_INJECT_READ_ERROR, EIO, 0);
	CHECK_EQ(load_signal(m, &v), SIGBUS);
	CHECK_EQ(store_signal(m + 20 * PAGE, 1), SIGBUS);
	CHECK_EQ(load_signal(private + 3 * PAGE, &v), SIGBUS);
	CHECK_EQ(pgc_pread(f, b, PAGE, 0), -EIO);
	CHECK_EQ(pgc_pread(f, b, PAGE, 25 * PAGE), -EIO);
	CHECK(status().fill_errors > 0);
	inject("mem:r", PGC_INJECT_READ_ERROR, 0, 0);
	CHECK_EQ(pgc_pread(f, b, PAGE, 0), PAGE);
	PATTERN_CHECK(b, PAGE, 0, 1);
	WAIT_UNTIL_MS(load_signal(m, &v) == 0, 5000);
	WAIT_UNTIL_MS(load_signal(m + 20 * PAGE, &v) == 0, 5000);
	WAIT_UNTIL_MS(load_signal(private + 3 * PAGE, &v) == 0, 5000);
	WAIT_UNTIL_MS(store_signal(m + 20 * PAGE, pattern_byte(20 * PAGE, 1)) == 0, 5000);
	PATTERN_CHECK(m, 30 * PAGE, 0, 1);
	PATTERN_CHECK(private, 30 * PAGE, 0, 1);
	CHECK_EQ(pgc_fsync(f), 0);
}

SYSTEM_TEST(page_comes_back_of_itself_once_the_store_does)
{
	struct pgc_file *f = open_mem("mem:r", 2 * PAGE, 1);
	uint8_t *m = map(f, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), v;

	inject("mem:r", PGC_INJECT_READ_ERROR, EIO, 0);
	CHECK_EQ(load_signal(m + PAGE, &v), SIGBUS);
	inject("mem:r", PGC_INJECT_READ_ERROR, 0, 0);
	/* Nobody but the toucher asks. */
	WAIT_UNTIL_MS(load_signal(m + PAGE, &v) == 0, 5000);
	CHECK_EQ(v, pattern_byte(PAGE, 1));
	/* What is stored to it then is known of. */
	store(m + PAGE, 77);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(pgc_madvise(m, 2 * PAGE, MADV_PAGEOUT), 0);
	CHECK_EQ(load(m + PAGE), 77);
}

SYSTEM_TEST(read_error_of_one_page_spares_the_others)
{
	struct pgc_file *f = open_mem("mem:r", 300 * PAGE, 1);
	uint8_t *m = map(f, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), v;

	PATTERN_CHECK(m, 5 * PAGE, 0, 1);
	inject("mem:r", PGC_INJECT_READ_ERROR, EIO, 0);
	CHECK_EQ(load_signal(m + 299 * PAGE, &v), SIGBUS);
	PATTERN_CHECK(m, 5 * PAGE, 0, 1);
	store(m + PAGE, pattern_byte(PAGE, 1));
	inject("mem:r", PGC_INJECT_READ_ERROR, 0, 0);
	PATTERN_CHECK(m, 200 * PAGE, 0, 1);
	CHECK_EQ(pgc_fsync(f), 0);
}

SYSTEM_TEST(whole_page_write_heals_a_page_that_cannot_be_read)
{
	struct pgc_file *f = open_mem("mem:r", 4 * PAGE, 1);
	uint8_t *m = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), b[PAGE], v;

	inject("mem:r", PGC_INJECT_READ_ERROR, EIO, 0);
	CHECK_EQ(load_signal(m + PAGE, &v), SIGBUS);
	CHECK_EQ(pgc_pwrite(f, b, 10, 100), -EIO);
	pattern_fill(b, PAGE, PAGE, 2);
	CHECK_EQ(pgc_pwrite(f, b, PAGE, PAGE), PAGE);
	WAIT_UNTIL_MS(load_signal(m + PAGE, &v) == 0, 5000);
	PATTERN_CHECK(m + PAGE, PAGE, PAGE, 2);
	inject("mem:r", PGC_INJECT_READ_ERROR, 0, 0);
}

/* --- many at once --- */

struct crowd {
	const char *name;
	size_t size;
};

static void crowd_peer(struct peer *p, void *arg)
{
	const struct crowd *c = arg;
	struct pgc_file *f = open_file(c->name, O_RDWR);
	uint8_t *m = map(f, c->size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	peer_tell(p, 0);
	peer_hear(p);
	PATTERN_CHECK(m, c->size, 0, 1);
}

SYSTEM_TEST(many_processes_that_fault_one_cold_page_cause_one_read)
{
	static struct crowd c = {"mem:m", PAGE};
	struct peer *p[8];
	uint64_t before, bytes;

	for (unsigned i = 0; i < 8; i++)
		p[i] = peer_start(crowd_peer, &c);
	for (unsigned i = 0; i < 8; i++)
		peer_hear(p[i]);
	open_mem(c.name, c.size, 1);
	before = status().fills;
	bytes = status().fill_bytes;
	inject(c.name, PGC_INJECT_READ_DELAY, 300000, 0);
	for (unsigned i = 0; i < 8; i++)
		peer_tell(p[i], 1);
	for (unsigned i = 0; i < 8; i++)
		peer_join(p[i]);
	CHECK_EQ(status().fills - before, 1);
	CHECK_EQ(status().fill_bytes - bytes, PAGE);
}

SYSTEM_TEST(many_processes_that_scan_one_cold_file_read_it_once)
{
	static struct crowd c = {"mem:m", 500 * PAGE};
	struct peer *p[4];
	uint64_t bytes;

	for (unsigned i = 0; i < 4; i++)
		p[i] = peer_start(crowd_peer, &c);
	for (unsigned i = 0; i < 4; i++)
		peer_hear(p[i]);
	open_mem(c.name, c.size, 1);
	bytes = status().fill_bytes;
	inject(c.name, PGC_INJECT_READ_DELAY, 2000, 0);
	for (unsigned i = 0; i < 4; i++)
		peer_tell(p[i], 1);
	for (unsigned i = 0; i < 4; i++)
		peer_join(p[i]);
	CHECK_EQ(status().fill_bytes - bytes, c.size);
}

struct thread_arg {
	uint8_t *m;
	size_t pages;
	unsigned seed;
};

static void *touch_thread(void *arg)
{
	struct thread_arg *t = arg;

	for (unsigned i = 0; i < 2000; i++) {
		size_t at = (size_t)rand_r(&t->seed) % (t->pages * PAGE);

		if (i % 3 == 0)
			store(t->m + at, pattern_byte(at, 1));
		else
			CHECK_EQ(load(t->m + at), pattern_byte(at, 1));
	}
	return NULL;
}

SYSTEM_TEST(threads_of_one_process_fault_at_once)
{
	size_t pages = 1500;
	char *path = make_file("f", pages * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	struct thread_arg a[6];
	pthread_t t[6];

	for (unsigned i = 0; i < 6; i++) {
		a[i] = (struct thread_arg){m, pages, i + 1};
		CHECK(pthread_create(&t[i], NULL, touch_thread, &a[i]) == 0);
	}
	for (unsigned i = 0; i < 10; i++)
		CHECK_EQ(pgc_fsync(f), 0);
	for (unsigned i = 0; i < 6; i++)
		CHECK(pthread_join(t[i], NULL) == 0);
	PATTERN_CHECK(m, pages * PAGE, 0, 1);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has(path, pages * PAGE, 0, 1));
}

/* --- dropped pages --- */

SYSTEM_TEST(dropped_pages_are_read_again_in_every_mapping)
{
	char *path = make_file("f", 100 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 100 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), *n = map(f, 100 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);

	for (unsigned i = 0; i < 3; i++) {
		PATTERN_CHECK(m, 100 * PAGE, 0, 1);
		PATTERN_CHECK(n, 100 * PAGE, 0, 1);
		drop_clean();
		CHECK_EQ(file_state(path).resident, 0);
	}
	store(m + 5 * PAGE, 0);
	drop_clean();
	CHECK_EQ(file_state(path).resident, 1);
	CHECK_EQ(file_state(path).dirty, 1);
	CHECK_EQ(load(m + 5 * PAGE), 0);
	CHECK_EQ(load(n + 5 * PAGE), 0);
	PATTERN_CHECK(m + 6 * PAGE, 94 * PAGE, 6 * PAGE, 1);
}

/* --- handles and mappings --- */

SYSTEM_TEST(mapping_outlives_close)
{
	char *path = make_file("f", 200 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 200 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint8_t *n = map(f, 200 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);

	CHECK_EQ(load(m), pattern_byte(0, 1));
	CHECK_EQ(pgc_close(f), 0);
	PATTERN_CHECK(m, 200 * PAGE, 0, 1);
	PATTERN_CHECK(n, 200 * PAGE, 0, 1);
	store(m + 100 * PAGE, 0);
	CHECK_EQ(load(n + 100 * PAGE), 0);
	CHECK_EQ(pgc_msync(m + 100 * PAGE, PAGE, MS_SYNC), 0);
	CHECK(store_has_byte(path, 100 * PAGE, 0));
	CHECK(mremap(m, 200 * PAGE, 150 * PAGE, 0) == m);
	store(m + 149 * PAGE, 0);
	CHECK(munmap(m, 150 * PAGE) == 0);
	CHECK_EQ(file_state(path).handles, 1);
	CHECK(munmap(n, 200 * PAGE) == 0);
	WAIT_UNTIL(file_state(path).handles == 0 && file_state(path).mappings == 0);
	WAIT_UNTIL(store_has_byte(path, 149 * PAGE, 0));
}

SYSTEM_TEST(mapping_outlives_close_and_fork)
{
	char *path = make_file("f", 200 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 200 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	pid_t pid;

	CHECK_EQ(pgc_close(f), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		PATTERN_CHECK(m, 100 * PAGE, 0, 1);
		store(m + 150 * PAGE, 0);
		_exit(0);
	}
	expect_exit_0(pid);
	CHECK_EQ(load(m + 150 * PAGE), 0);
	PATTERN_CHECK(m + 151 * PAGE, 49 * PAGE, 151 * PAGE, 1);
	CHECK_EQ(pgc_munmap(m, 200 * PAGE), 0);
	WAIT_UNTIL(store_has_byte(path, 150 * PAGE, 0));
	WAIT_UNTIL(file_state(path).handles == 0);
}

SYSTEM_TEST(many_mappings_of_one_handle_come_and_go)
{
	char *path = make_file("f", 64 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);

	for (unsigned i = 0; i < 300; i++) {
		size_t page = i % 60;
		uint8_t *m = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, i % 3 ? MAP_SHARED : MAP_PRIVATE, (off_t)(page * PAGE));

		CHECK_EQ(load(m + 5), pattern_byte(page * PAGE + 5, 1));
		CHECK_EQ(i % 2 ? munmap(m, 4 * PAGE) : pgc_munmap(m, 4 * PAGE), 0);
	}
	WAIT_UNTIL(file_state(path).mappings == 0);
	CHECK_EQ(file_state(path).handles, 1);
}

SYSTEM_TEST(other_memory_at_the_place_of_a_mapping_is_left_alone)
{
	struct pgc_file *f = open_file(make_file("f", 8 * PAGE, 1), O_RDWR);
	uint8_t *m = map(f, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	PATTERN_CHECK(m, 8 * PAGE, 0, 1);
	CHECK(mmap(m + 2 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == m + 2 * PAGE);
	ZERO_CHECK(m + 2 * PAGE, 2 * PAGE);
	memset(m + 2 * PAGE, 5, 2 * PAGE);
	CHECK_EQ(pgc_fsync(f), 0);
	drop_clean();
	CHECK_EQ(load(m + 3 * PAGE), 5);
	PATTERN_CHECK(m, 2 * PAGE, 0, 1);
	PATTERN_CHECK(m + 4 * PAGE, 4 * PAGE, 4 * PAGE, 1);
}

SYSTEM_TEST(private_page_read_then_stored_is_the_process_s_own)
{
	char *path = make_file("f", 8 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0), *n = map(f, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);

	PATTERN_CHECK(m, 8 * PAGE, 0, 1);
	pattern_fill(m, 8 * PAGE, 0, 2);
	PATTERN_CHECK(n, 8 * PAGE, 0, 1);
	drop_clean();
	PATTERN_CHECK(m, 8 * PAGE, 0, 2);
	PATTERN_CHECK(n, 8 * PAGE, 0, 1);
	CHECK_EQ(file_state(path).dirty, 0);
}

SYSTEM_TESTS_MAIN("faults",
	cmocka_unit_test(cold_files_of_odd_sizes_are_mapped_whole),
	cmocka_unit_test(cold_files_of_odd_sizes_are_read_whole),
	cmocka_unit_test(cold_file_is_read_backwards_and_at_random),
	cmocka_unit_test(sequential_scan_is_not_one_fault_a_page),
	cmocka_unit_test(second_mapping_of_a_warm_file_reads_nothing),
	cmocka_unit_test(robust_mutex_in_a_kept_page_survives_the_death_of_its_owner),
	cmocka_unit_test(short_reads_of_the_store_go_on_where_they_stopped),
	cmocka_unit_test(populate_of_a_private_and_a_read_only_mapping_shows_the_bytes),
	cmocka_unit_test(holes_are_kept_when_a_sparse_file_is_stored_into_elsewhere),
	cmocka_unit_test(dirty_page_that_is_still_zero_leaves_the_hole),
	cmocka_unit_test(zeros_stored_over_data_are_written),
	cmocka_unit_test(two_names_of_one_inode_are_one_file),
	cmocka_unit_test(new_file_of_an_old_name_is_another_file),
	cmocka_unit_test(unlinked_file_lives_while_it_is_mapped),
	cmocka_unit_test(change_from_outside_is_noticed_at_the_next_open),
	cmocka_unit_test(file_that_was_not_changed_keeps_its_pages_between_opens),
	cmocka_unit_test(change_from_outside_reaches_mappings_made_before_the_next_open),
	cmocka_unit_test(dirty_page_outlives_a_change_from_outside),
	cmocka_unit_test(change_of_size_from_outside_is_noticed_at_the_next_open),
	cmocka_unit_test(read_error_is_sigbus_and_eio_until_the_store_heals),
	cmocka_unit_test(page_comes_back_of_itself_once_the_store_does),
	cmocka_unit_test(read_error_of_one_page_spares_the_others),
	cmocka_unit_test(whole_page_write_heals_a_page_that_cannot_be_read),
	cmocka_unit_test(many_processes_that_fault_one_cold_page_cause_one_read),
	cmocka_unit_test(many_processes_that_scan_one_cold_file_read_it_once),
	cmocka_unit_test(threads_of_one_process_fault_at_once),
	cmocka_unit_test(dropped_pages_are_read_again_in_every_mapping),
	cmocka_unit_test(mapping_outlives_close),
	cmocka_unit_test(mapping_outlives_close_and_fork),
	cmocka_unit_test(many_mappings_of_one_handle_come_and_go),
	cmocka_unit_test(other_memory_at_the_place_of_a_mapping_is_left_alone),
	cmocka_unit_test(private_page_read_then_stored_is_the_process_s_own))
