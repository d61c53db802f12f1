/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults whose pages lanes map, who get all that they can do here: while pages come and go, while mappings and the file change, while processes fork. Most of what is tested elsewhere is
 * run with lanes as well (PGC_TEST_LANES).
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>

#define MIB (1ul << 20)
#define PEERS 4
#define LANES .config = "lanes = 2", .workers = 1

static uint64_t word_of(uint64_t page) { return page * 0x9e3779b97f4a7c15ull | 1; }

/* A file whose pages each begin with a word of their own. */
static const char *make_words(const char *name, uint64_t pages)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, (off_t)(pages * PAGE)), 0);
	for (uint64_t p = 0; p < pages; p++) {
		uint64_t word = word_of(p);

		CHECK_EQ(pwrite(fd, &word, sizeof(word), (off_t)(p * PAGE)), sizeof(word));
	}
	CHECK_EQ(fsync(fd), 0);
	close(fd);
	return name;
}

/* Pages in random order, each as it should be. */
static void read_words(const uint8_t *m, uint64_t pages, unsigned loads, unsigned seed)
{
	for (unsigned i = 0; i < loads; i++) {
		uint64_t page = (uint64_t)rand_r(&seed) % pages;

		CHECK_EQ(*(const volatile uint64_t *)(m + page * PAGE), word_of(page));
	}
}

/* Forks `PEERS` processes that have opened nothing before, and waits for them. */
static void in_peers(void (*body)(unsigned i))
{
	pid_t pids[PEERS];

	for (unsigned i = 0; i < PEERS; i++) {
		pids[i] = fork();
		CHECK(pids[i] >= 0);
		if (pids[i] == 0) {
			body(i);
			_exit(0);
		}
	}
	for (unsigned i = 0; i < PEERS; i++) {
		int how;

		CHECK_EQ(waitpid(pids[i], &how, 0), pids[i]);
		CHECK(WIFEXITED(how) && WEXITSTATUS(how) == 0);
	}
}

#define WARM_PAGES 2048ul

/* With advice that makes many faults of it. */
static const uint8_t *map_at_random(struct pgc_file *f, int prot, int flags)
{
	uint8_t *m = map(f, WARM_PAGES * PAGE, prot, flags, 0);

	CHECK_EQ(pgc_madvise(m, WARM_PAGES * PAGE, MADV_RANDOM), 0);
	return m;
}

static void warm_peer(unsigned i)
{
	struct pgc_file *f = open_file("w", i % 2 ? O_RDWR : O_RDONLY);

	read_words(map_at_random(f, PROT_READ, MAP_SHARED), WARM_PAGES, 5000, i);
	read_words(map_at_random(f, PROT_READ | PROT_WRITE, MAP_PRIVATE), WARM_PAGES, 5000, i);
}

SYSTEM_TEST(lanes_map_what_is_resident, LANES)
{
	make_words("w", WARM_PAGES);
	in_peers(warm_peer);
	CHECK_EQ(status().lanes, 2);
	CHECK(status().faults_lent > 100);
	CHECK(status().faults_lent <= status().faults);
}

#define LARGE_PAGES 8192ul

static void large_peer(unsigned i)
{
	struct pgc_file *f = open_file("l", i % 2 ? O_RDWR : O_RDONLY);

	read_words(map(f, LARGE_PAGES * PAGE, PROT_READ, MAP_SHARED, 0), LARGE_PAGES, 20000, i);
}

SYSTEM_TEST(pages_that_come_and_go_are_right, LANES, .memory_max = "8M", .seconds = 120)
{
	make_words("l", LARGE_PAGES);
	in_peers(large_peer);
	CHECK(status().faults_lent > 100);
	CHECK(status().fills > LARGE_PAGES / 64);
}

/* --- while the client's mappings change --- */

static _Atomic bool stop;
static struct pgc_file *shared;

static void *changer(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (!stop) {
		uint64_t first = (uint64_t)rand_r(&seed) % (WARM_PAGES - 64);
		uint8_t *m = pgc_mmap(shared, NULL, 64 * PAGE, PROT_READ, MAP_SHARED, (off_t)(first * PAGE)), *moved;

		CHECK(m != MAP_FAILED);
		CHECK_EQ(*(volatile uint64_t *)m, word_of(first));
		moved = mremap(m, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, mmap(NULL, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		CHECK(moved != MAP_FAILED);
		for (unsigned p = 0; p < 64; p += 7)
			CHECK_EQ(*(volatile uint64_t *)(moved + p * PAGE), word_of(first + p));
		CHECK_EQ(pgc_munmap(moved, 64 * PAGE), 0);
	}
	return NULL;
}

static void *dropper(void *arg)
{
	while (!stop)
		CHECK_EQ(madvise(arg, WARM_PAGES * PAGE, MADV_DONTNEED), 0);
	return NULL;
}

static void *forker(void *arg)
{
	while (!stop) {
		pid_t pid = fork();
		int how;

		CHECK(pid >= 0);
		if (pid == 0) {
			read_words(arg, WARM_PAGES, 200, (unsigned)getpid());
			_exit(0);
		}
		CHECK_EQ(waitpid(pid, &how, 0), pid);
		CHECK(WIFEXITED(how) && WEXITSTATUS(how) == 0);
	}
	return NULL;
}

SYSTEM_TEST(mappings_change_while_lanes_map, .tracking = "sync", LANES)
{
	uint64_t end = now_ms() + 3000;
	pthread_t thread[4];
	uint8_t *m;

	shared = open_file(make_words("w", WARM_PAGES), O_RDWR);
	m = map(shared, WARM_PAGES * PAGE, PROT_READ, MAP_SHARED, 0);
	CHECK_EQ(pthread_create(&thread[0], NULL, changer, (void *)1), 0);
	CHECK_EQ(pthread_create(&thread[1], NULL, changer, (void *)2), 0);
	CHECK_EQ(pthread_create(&thread[2], NULL, dropper, m), 0);
	CHECK_EQ(pthread_create(&thread[3], NULL, forker, m), 0);
	for (unsigned seed = 9; now_ms() < end; seed++)
		read_words(m, WARM_PAGES, 1000, seed);
	stop = true;
	for (unsigned i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	CHECK(status().faults_lent > 100);
}

/* --- while the file changes --- */

static void hole_reader(unsigned i)
{
	struct pgc_file *f = open_file("w", i % 2 ? O_RDWR : O_RDONLY);
	uint8_t *m = map(f, WARM_PAGES * PAGE, PROT_READ, MAP_SHARED, 0);
	unsigned seed = i;

	if (i == 0) {
		struct pgc_file *w = open_file("w", O_RDWR);

		for (unsigned n = 0; n < 300; n++) {
			uint64_t page = (uint64_t)rand_r(&seed) % (WARM_PAGES - 8), word;

			CHECK_EQ(pgc_fallocate(w, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(page * PAGE), 8 * PAGE), 0);
			for (unsigned p = 0; p < 8; p++) {
				CHECK_EQ(*(volatile uint64_t *)(m + (page + p) * PAGE), 0);
				word = word_of(page + p);
				CHECK_EQ(pgc_pwrite(w, &word, sizeof(word), (off_t)((page + p) * PAGE)), sizeof(word));
				CHECK_EQ(*(volatile uint64_t *)(m + (page + p) * PAGE), word);
			}
			if (n % 8 == 0) /* what is mapped goes, so that there are faults */
				CHECK_EQ(madvise(m, WARM_PAGES * PAGE, MADV_DONTNEED), 0);
		}
		return;
	}
	for (unsigned n = 0; n < 20000; n++) {
		uint64_t page = (uint64_t)rand_r(&seed) % WARM_PAGES, word = *(volatile uint64_t *)(m + page * PAGE);

		CHECK(word == 0 || word == word_of(page));
		if (n % 500 == 0)
			CHECK_EQ(madvise(m, WARM_PAGES * PAGE, MADV_DONTNEED), 0);
	}
}

SYSTEM_TEST(the_file_changes_while_lanes_map, LANES)
{
	make_words("w", WARM_PAGES);
	in_peers(hole_reader);
	CHECK(status().faults_lent > 100);
}

SYSTEM_TEST(a_handle_ends_while_lanes_map, LANES)
{
	make_words("w", WARM_PAGES);
	for (unsigned n = 0; n < 20; n++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0)
			for (;;)
				warm_peer(n);
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
		CHECK_EQ(kill(pid, SIGKILL), 0);
		CHECK_EQ(waitpid(pid, NULL, 0), pid);
	}
	WAIT_UNTIL(status().handles == 0);
	CHECK(status().faults_lent > 100);
}

SYSTEM_TESTS_MAIN("lanes", cmocka_unit_test(lanes_map_what_is_resident), cmocka_unit_test(pages_that_come_and_go_are_right),
		  cmocka_unit_test(mappings_change_while_lanes_map), cmocka_unit_test(the_file_changes_while_lanes_map),
		  cmocka_unit_test(a_handle_ends_while_lanes_map))
