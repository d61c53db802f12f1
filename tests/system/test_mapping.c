/* SPDX-License-Identifier: Apache-2.0 */
/* What programs rely on when they map a file: contents, limits, errors, sharing, mremap, fork, advice. */
#include <pthread.h>

#include "harness.h"

/* --- 1: contents --- */

SYSTEM_TEST(c01_shared_and_private_mappings_show_the_bytes)
{
	size_t size = 70 * PAGE + 123, whole = 71 * PAGE;
	struct pgc_file *f = open_file(make_file("f", size, 1), O_RDWR);
	uint8_t *shared = map(f, size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	uint8_t *private = map(f, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);

	PATTERN_CHECK(shared, size, 0, 1);
	ZERO_CHECK(shared + size, whole - size);
	PATTERN_CHECK(private, size, 0, 1);
	ZERO_CHECK(private + size, whole - size);
	CHECK_EQ(pgc_munmap(shared, size), 0);
	CHECK_EQ(pgc_munmap(private, size), 0);
	CHECK_EQ(pgc_close(f), 0);
}

SYSTEM_TEST(c01_read_only_handle_shows_the_bytes_and_stays_coherent)
{
	char *path = make_file("f", 3 * PAGE, 1);
	struct pgc_file *r = open_file(path, O_RDONLY), *w = open_file(path, O_RDWR);
	uint8_t *shared = map(r, 3 * PAGE, PROT_READ, MAP_SHARED, 0), *private = map(r, 3 * PAGE, PROT_READ, MAP_PRIVATE, 0);
	uint8_t *writer = map(w, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	PATTERN_CHECK(shared, 2 * PAGE, 0, 1);
	PATTERN_CHECK(private, 2 * PAGE, 0, 1);
	for (size_t page = 0; page < 3; page++) {
		pattern_fill(writer + page * PAGE, PAGE, page * PAGE, 2);
		PATTERN_CHECK(shared + page * PAGE, PAGE, page * PAGE, 2);
		PATTERN_CHECK(private + page * PAGE, PAGE, page * PAGE, 2);
	}
}

SYSTEM_TEST(c01_nonzero_offset_shows_the_bytes_there)
{
	static const size_t page[] = {1, 3, 63, 64, 129};
	char *path = make_file("f", 140 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);

	for (size_t i = 0; i < sizeof(page) / sizeof(page[0]); i++)
		for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
			uint8_t *p = map(f, 7 * PAGE, PROT_READ | PROT_WRITE, flags, (off_t)(page[i] * PAGE));

			PATTERN_CHECK(p, 7 * PAGE, page[i] * PAGE, 1);
		}
}

SYSTEM_TEST(c01_store_at_an_offset_reaches_that_offset)
{
	char *path = make_file("f", 140 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *p = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 67 * PAGE);

	store(p + 2 * PAGE + 5, 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has(path, 69 * PAGE + 5, 0, 1));
	CHECK(store_has_byte(path, 69 * PAGE + 5, 0));
	CHECK(store_has(path, 71 * PAGE - 6, 69 * PAGE + 6, 1));
}

SYSTEM_TEST(c01_mapping_may_be_longer_than_the_file)
{
	struct pgc_file *f = open_file(make_file("f", PAGE + PAGE / 2, 1), O_RDWR);
	uint8_t v;

	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		uint8_t *p = map(f, 200 * PAGE, PROT_READ | PROT_WRITE, flags, 0);

		PATTERN_CHECK(p, PAGE + PAGE / 2, 0, 1);
		CHECK_EQ(load_signal(p + 2 * PAGE, &v), SIGBUS);
		CHECK_EQ(load_signal(p + 199 * PAGE, &v), SIGBUS);
	}
	/* It need not touch the file at all. */
	CHECK_EQ(load_signal(map(f, PAGE, PROT_READ, MAP_SHARED, 90 * PAGE), &v), SIGBUS);
}

SYSTEM_TEST(c01_mapping_longer_than_the_file_shows_what_is_appended)
{
	struct pgc_file *f = open_file(make_file("f", PAGE / 2, 1), O_RDWR);
	uint8_t *p = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), v, data[PAGE];

	CHECK_EQ(load_signal(p + PAGE, &v), SIGBUS);
	pattern_fill(data, PAGE, PAGE, 2);
	CHECK_EQ(pgc_pwrite(f, data, PAGE, PAGE), PAGE);
	PATTERN_CHECK(p + PAGE, PAGE, PAGE, 2);
	CHECK_EQ(load_signal(p + 2 * PAGE, &v), SIGBUS);
}

/* --- 2: the end --- */

SYSTEM_TEST(c02_touch_beyond_the_last_page_raises_sigbus)
{
	struct pgc_file *f = open_file(make_file("f", 2 * PAGE + 1, 1), O_RDWR);
	uint8_t v;

	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		uint8_t *p = map(f, 5 * PAGE, PROT_READ | PROT_WRITE, flags, 0);

		CHECK_EQ(load_signal(p + 3 * PAGE, &v), SIGBUS);
		CHECK_EQ(store_signal(p + 4 * PAGE, 1), SIGBUS);
		CHECK_EQ(load_signal(p + 2 * PAGE, &v), 0);
	}
	CHECK_EQ(pgc_fsync(f), 0);
}

SYSTEM_TEST(c02_last_page_is_whole_and_zero_past_the_end)
{
	struct pgc_file *f = open_file(make_file("f", 2 * PAGE + 10, 1), O_RDWR);

	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		uint8_t *p = map(f, 3 * PAGE, PROT_READ | PROT_WRITE, flags, 0);

		PATTERN_CHECK(p + 2 * PAGE, 10, 2 * PAGE, 1);
		ZERO_CHECK(p + 2 * PAGE + 10, PAGE - 10);
		store(p + 3 * PAGE - 1, 77);
		CHECK_EQ(load(p + 3 * PAGE - 1), 77);
		store(p + 3 * PAGE - 1, 0);
	}
}

SYSTEM_TEST(c02_empty_file_raises_sigbus_everywhere)
{
	struct pgc_file *f = open_file(make_file("f", 0, 1), O_RDWR);
	uint8_t v;

	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		uint8_t *p = map(f, 2 * PAGE, PROT_READ | PROT_WRITE, flags, 0);

		CHECK_EQ(load_signal(p, &v), SIGBUS);
		CHECK_EQ(store_signal(p + PAGE, 1), SIGBUS);
	}
}

/* --- 3: errors and flags --- */

static void expect_map_error(struct pgc_file *f, void *addr, size_t len, int prot, int flags, off_t off, int error)
{
	void *p;

	errno = 0;
	p = pgc_mmap(f, addr, len, prot, flags, off);
	if (p != MAP_FAILED)
		FAIL("mapping succeeds: len %zx prot %x flags %x off %llx, %s was due", len, (unsigned)prot, (unsigned)flags,
		     (unsigned long long)off, strerror(error));
	CHECK_EQ(errno, error);
}

SYSTEM_TEST(c03_writable_shared_mapping_of_a_read_only_handle_is_eacces)
{
	char *path = make_file("f", 2 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);

	expect_map_error(f, NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0, EACCES);
	expect_map_error(f, NULL, PAGE, PROT_WRITE, MAP_SHARED, 0, EACCES);
}

SYSTEM_TEST(c03_writable_private_mapping_of_a_read_only_handle_is_allowed)
{
	char *path = make_file("f", 2 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t *p = map(f, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0), b;

	store(p + 1, 200);
	store(p + PAGE, 201);
	CHECK_EQ(load(p + 1), 200);
	CHECK_EQ(load(p + PAGE), 201);
	PATTERN_CHECK(p + 2, PAGE - 2, 2, 1);
	CHECK_EQ(pgc_pread(f, &b, 1, 1), 1);
	CHECK_EQ(b, pattern_byte(1, 1));
	CHECK_EQ(pgc_pread(f, &b, 1, PAGE), 1);
	CHECK_EQ(b, pattern_byte(PAGE, 1));
}

SYSTEM_TEST(c03_shared_mapping_of_a_read_only_handle_cannot_be_made_writable)
{
	struct pgc_file *f = open_file(make_file("f", PAGE, 1), O_RDONLY);
	uint8_t *p = map(f, PAGE, PROT_READ, MAP_SHARED, 0), b;

	PATTERN_CHECK(p, PAGE, 0, 1);
	/* mprotect(2) is the kernel's. If it is allowed, what is stored must stay this process's own. */
	if (mprotect(p, PAGE, PROT_READ | PROT_WRITE) == 0)
		store(p, 3);
	CHECK_EQ(pgc_pread(f, &b, 1, 0), 1);
	CHECK_EQ(b, pattern_byte(0, 1));
}

SYSTEM_TEST(c03_write_only_handle_cannot_be_mapped)
{
	struct pgc_file *f = open_file(make_file("f", PAGE, 1), O_WRONLY);

	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		expect_map_error(f, NULL, PAGE, PROT_READ, flags, 0, EACCES);
		expect_map_error(f, NULL, PAGE, PROT_WRITE, flags, 0, EACCES);
		expect_map_error(f, NULL, PAGE, PROT_READ | PROT_WRITE, flags, 0, EACCES);
		expect_map_error(f, NULL, PAGE, PROT_NONE, flags, 0, EACCES);
	}
}

SYSTEM_TEST(c03_neither_or_both_of_shared_and_private_is_einval)
{
	struct pgc_file *f = open_file(make_file("f", PAGE, 1), O_RDWR);

	expect_map_error(f, NULL, PAGE, PROT_READ, 0, 0, EINVAL);
	expect_map_error(f, NULL, PAGE, PROT_READ, MAP_SHARED | MAP_PRIVATE, 0, EINVAL);
}

SYSTEM_TEST(c03_length_zero_is_einval)
{
	struct pgc_file *f = open_file(make_file("f", PAGE, 1), O_RDWR);

	expect_map_error(f, NULL, 0, PROT_READ, MAP_SHARED, 0, EINVAL);
	expect_map_error(f, NULL, 0, PROT_READ, MAP_PRIVATE, 0, EINVAL);
}

SYSTEM_TEST(c03_unaligned_offset_is_einval)
{
	struct pgc_file *f = open_file(make_file("f", 3 * PAGE, 1), O_RDWR);

	expect_map_error(f, NULL, PAGE, PROT_READ, MAP_SHARED, 1, EINVAL);
	expect_map_error(f, NULL, PAGE, PROT_READ, MAP_PRIVATE, PAGE + 512, EINVAL);
	expect_map_error(f, NULL, PAGE, PROT_READ, MAP_PRIVATE, PAGE - 1, EINVAL);
}

SYSTEM_TEST(c03_offset_plus_length_overflow_is_eoverflow)
{
	struct pgc_file *f = open_file(make_file("f", PAGE, 1), O_RDWR);

	expect_map_error(f, NULL, 2 * PAGE, PROT_READ, MAP_SHARED, INT64_MAX & ~(off_t)(PAGE - 1), EOVERFLOW);
	expect_map_error(f, NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, INT64_MAX & ~(off_t)(PAGE - 1), EOVERFLOW);
}

SYSTEM_TEST(c03_absurd_length_is_enomem)
{
	struct pgc_file *f = open_file(make_file("f", PAGE, 1), O_RDWR);

	expect_map_error(f, NULL, 1ul << 62, PROT_READ, MAP_SHARED, 0, ENOMEM);
	expect_map_error(f, NULL, SIZE_MAX, PROT_READ, MAP_PRIVATE, 0, ENOMEM);
	expect_map_error(f, NULL, 1ul << 50, PROT_READ, MAP_SHARED, 0, ENOMEM);
}

SYSTEM_TEST(c03_map_fixed_replaces_what_is_there)
{
	struct pgc_file *f = open_file(make_file("f", 8 * PAGE, 1), O_RDWR);
	uint8_t *p = mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	memset(p, 9, 6 * PAGE);
	CHECK(pgc_mmap(f, p + 2 * PAGE, 2 * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, 0) == p + 2 * PAGE);
	PATTERN_CHECK(p + 2 * PAGE, 2 * PAGE, 0, 1);
	CHECK_EQ(load(p + 2 * PAGE - 1), 9);
	CHECK_EQ(load(p + 4 * PAGE), 9);
	/* One of ours may be what is replaced, whole or in part. */
	CHECK(pgc_mmap(f, p + 3 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, 5 * PAGE) == p + 3 * PAGE);
	PATTERN_CHECK(p + 2 * PAGE, PAGE, 0, 1);
	PATTERN_CHECK(p + 3 * PAGE, 2 * PAGE, 5 * PAGE, 1);
	store(p + 3 * PAGE, 0);
	CHECK_EQ(load(map(f, PAGE, PROT_READ, MAP_SHARED, 5 * PAGE)), 0);
	expect_map_error(f, p + 1, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, 0, EINVAL);
}

SYSTEM_TEST(c03_map_fixed_noreplace_refuses_what_is_taken)
{
	struct pgc_file *f = open_file(make_file("f", 2 * PAGE, 1), O_RDWR);
	uint8_t *p = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	memset(p, 9, 3 * PAGE);
	expect_map_error(f, p + PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, 0, EEXIST);
	CHECK_EQ(load(p + PAGE), 9);
	CHECK(munmap(p + PAGE, 2 * PAGE) == 0);
	CHECK(pgc_mmap(f, p + PAGE, 2 * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, 0) == p + PAGE);
	PATTERN_CHECK(p + PAGE, 2 * PAGE, 0, 1);
	CHECK_EQ(load(p), 9);
	expect_map_error(f, p + 2 * PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, 0, EEXIST);
	PATTERN_CHECK(p + PAGE, 2 * PAGE, 0, 1);
}

SYSTEM_TEST(c03_address_is_a_hint_without_fixed)
{
	struct pgc_file *f = open_file(make_file("f", PAGE, 1), O_RDWR);
	uint8_t *taken = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *p;

	store(taken, 5);
	p = pgc_mmap(f, taken, PAGE, PROT_READ, MAP_SHARED, 0);
	CHECK(p != MAP_FAILED && p != taken);
	CHECK_EQ(load(taken), 5);
	PATTERN_CHECK(p, PAGE, 0, 1);
	/* An address of no page is no error either. */
	CHECK(pgc_mmap(f, taken + 1, PAGE, PROT_READ, MAP_SHARED, 0) != MAP_FAILED);
}

SYSTEM_TEST(c03_populate_fills)
{
	size_t pages = 150;
	struct pgc_file *f = open_file(make_file("f", pages * PAGE, 1), O_RDWR);

	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		uint8_t *p = map(f, pages * PAGE, PROT_READ, flags | MAP_POPULATE, 0);
		struct pgc_ctl_status_reply before, after;

		for (size_t i = 0; i < pages; i++)
			CHECK(page_in_core(p + i * PAGE));
		before = status();
		PATTERN_CHECK(p, pages * PAGE, 0, 1);
		after = status();
		if (after.pid == before.pid) { /* else it counts from 0 */
			CHECK_EQ(after.faults, before.faults);
			CHECK_EQ(after.fills, before.fills);
		}
	}
}

SYSTEM_TEST(c03_prot_none_then_mprotect_keeps_data)
{
	struct pgc_file *f = open_file(make_file("f", 2 * PAGE, 1), O_RDWR);
	uint8_t v;

	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		uint8_t *p = map(f, 2 * PAGE, PROT_NONE, flags, 0);

		CHECK_EQ(load_signal(p, &v), SIGSEGV);
		CHECK(mprotect(p, 2 * PAGE, PROT_READ | PROT_WRITE) == 0);
		PATTERN_CHECK(p, 100, 0, 1);
		store(p + 100, 42);
		CHECK(mprotect(p, 2 * PAGE, PROT_NONE) == 0);
		CHECK_EQ(load_signal(p, &v), SIGSEGV);
		CHECK_EQ(store_signal(p + PAGE, 1), SIGSEGV);
		CHECK(mprotect(p, 2 * PAGE, PROT_READ) == 0);
		CHECK_EQ(load(p + 100), 42);
		PATTERN_CHECK(p + 101, 2 * PAGE - 101, 101, 1);
		CHECK_EQ(store_signal(p, 1), SIGSEGV);
		CHECK(mprotect(p, 2 * PAGE, PROT_READ | PROT_WRITE) == 0);
		store(p + 100, pattern_byte(100, 1));
	}
}

/* --- 4: two processes --- */

#define ROUNDS 200

static void interleave_peer(struct peer *p, void *path)
{
	uint8_t *m = map(open_file(path, O_RDWR), PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (unsigned i = 1; i <= ROUNDS; i++) {
		CHECK_EQ(peer_hear(p), i);
		CHECK_EQ(load(m + 2 * i), (uint8_t)i);
		store(m + 2 * i + 1, (uint8_t)~i);
		peer_tell(p, i);
	}
}

SYSTEM_TEST(c04_stores_of_two_processes_to_one_page_interleave)
{
	char *path = make_file("f", PAGE, 1);
	struct peer *p = peer_start(interleave_peer, path);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), expect[PAGE];

	pattern_fill(expect, PAGE, 0, 1);
	for (unsigned i = 1; i <= ROUNDS; i++) {
		store(m + 2 * i, (uint8_t)i);
		CHECK_EQ(peer_ask(p, i), i);
		CHECK_EQ(load(m + 2 * i + 1), (uint8_t)~i);
		expect[2 * i] = (uint8_t)i;
		expect[2 * i + 1] = (uint8_t)~i;
	}
	peer_join(p);
	CHECK(memcmp(m, expect, PAGE) == 0);
	CHECK_EQ(pgc_fsync(f), 0);
	store_read(path, m, PAGE, 0);
	CHECK(memcmp(m, expect, PAGE) == 0);
}

#define CONCURRENT_PAGES 16
#define CONCURRENT_ROUNDS 60

/* Process `who` of two owns every other byte; both write at once, over and over. */
static void concurrent_stores(uint8_t *m, unsigned who)
{
	for (unsigned round = 1; round <= CONCURRENT_ROUNDS; round++)
		for (size_t i = who; i < CONCURRENT_PAGES * PAGE; i += 2)
			store(m + i, pattern_byte(i, round));
}

static void concurrent_peer(struct peer *p, void *path)
{
	uint8_t *m = map(open_file(path, O_RDWR), CONCURRENT_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	peer_hear(p);
	concurrent_stores(m, 1);
}

SYSTEM_TEST(c04_concurrent_stores_of_two_processes_lose_nothing)
{
	char *path = make_file("f", CONCURRENT_PAGES * PAGE, 200);
	struct peer *p = peer_start(concurrent_peer, path);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, CONCURRENT_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	peer_tell(p, 1);
	concurrent_stores(m, 0);
	/* Write-outs in the middle of it protect pages under the other's hands. */
	for (int i = 0; i < 20; i++)
		CHECK_EQ(pgc_fsync(f), 0);
	peer_join(p);
	PATTERN_CHECK(m, CONCURRENT_PAGES * PAGE, 0, CONCURRENT_ROUNDS);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has(path, CONCURRENT_PAGES * PAGE, 0, CONCURRENT_ROUNDS));
}

/* --- 5: private --- */

SYSTEM_TEST(c05_private_stores_never_reach_the_file)
{
	char *path = make_file("f", 4 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *private = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	uint8_t *shared = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), data[4 * PAGE];

	/* Onto a cold page, and onto one that was read before. */
	CHECK_EQ(load(private + PAGE), pattern_byte(PAGE, 1));
	pattern_fill(private, 3 * PAGE, 0, 2);
	PATTERN_CHECK(private, 3 * PAGE, 0, 2);
	PATTERN_CHECK(private + 3 * PAGE, PAGE, 3 * PAGE, 1);
	PATTERN_CHECK(shared, 4 * PAGE, 0, 1);
	CHECK_EQ(pgc_pread(f, data, sizeof(data), 0), sizeof(data));
	PATTERN_CHECK(data, sizeof(data), 0, 1);
	CHECK_EQ(pgc_msync(private, 4 * PAGE, MS_SYNC), 0);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK_EQ(status().writeouts, 0);
	CHECK_EQ(pgc_munmap(private, 4 * PAGE), 0);
	CHECK_EQ(pgc_close(f), 0);
	CHECK_EQ(sync_all(), 0);
	CHECK(store_has(path, 4 * PAGE, 0, 1));
}

SYSTEM_TEST(c05_private_copy_keeps_its_bytes_when_the_file_changes)
{
	struct pgc_file *f = open_file(make_file("f", 2 * PAGE, 1), O_RDWR);
	uint8_t *private = map(f, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0), data[2 * PAGE];

	store(private + 10, 0);
	pattern_fill(data, sizeof(data), 0, 2);
	CHECK_EQ(pgc_pwrite(f, data, sizeof(data), 0), sizeof(data));
	CHECK_EQ(load(private + 10), 0);
	PATTERN_CHECK(private + 11, PAGE - 11, 11, 1);
	PATTERN_CHECK(private + PAGE, PAGE, PAGE, 2);
}

SYSTEM_TEST(c05_truncation_drops_private_copies_beyond_the_end)
{
	struct pgc_file *f = open_file(make_file("f", 4 * PAGE, 1), O_RDWR);
	uint8_t *private = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0), v;

	pattern_fill(private, 4 * PAGE, 0, 2);
	CHECK_EQ(pgc_ftruncate(f, PAGE), 0);
	PATTERN_CHECK(private, PAGE, 0, 2);
	CHECK_EQ(load_signal(private + PAGE, &v), SIGBUS);
	CHECK_EQ(load_signal(private + 3 * PAGE, &v), SIGBUS);
	CHECK_EQ(pgc_ftruncate(f, 4 * PAGE), 0);
	PATTERN_CHECK(private, PAGE, 0, 2);
	ZERO_CHECK(private + PAGE, 3 * PAGE);
}

/* --- 6: mremap, munmap, mprotect --- */

/* Address space of `pages` with nothing in it; racy in principle, not in a process with one thread. */
static uint8_t *free_space(size_t pages)
{
	uint8_t *p = mmap(NULL, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(p != MAP_FAILED && munmap(p, pages * PAGE) == 0);
	return p;
}

SYSTEM_TEST(c06_mremap_shrinks)
{
	struct pgc_file *f = open_file(make_file("f", 8 * PAGE, 1), O_RDWR);
	uint8_t v;

	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		uint8_t *p = map(f, 8 * PAGE, PROT_READ | PROT_WRITE, flags, 0);

		CHECK_EQ(load(p + 7 * PAGE), pattern_byte(7 * PAGE, 1));
		CHECK(mremap(p, 8 * PAGE, 3 * PAGE, 0) == p);
		CHECK_EQ(load_signal(p + 3 * PAGE, &v), SIGSEGV);
		PATTERN_CHECK(p, 3 * PAGE, 0, 1);
		store(p, load(p));
	}
}

SYSTEM_TEST(c06_mremap_grows_in_place)
{
	struct pgc_file *f = open_file(make_file("f", 100 * PAGE, 1), O_RDWR);

	(void)map(f, PAGE, PROT_READ, MAP_SHARED, 0); /* with the first one the library makes a thread, whose stack must not come in between */
	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		uint8_t *p = free_space(100);

		CHECK(pgc_mmap(f, p, 2 * PAGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, 0) == p);
		CHECK_EQ(load(p), pattern_byte(0, 1));
		CHECK(mremap(p, 2 * PAGE, 100 * PAGE, 0) == p);
		PATTERN_CHECK(p, 100 * PAGE, 0, 1);
		store(p + 99 * PAGE, 7);
		CHECK_EQ(load(p + 99 * PAGE), 7);
		if (flags == MAP_SHARED) {
			uint8_t b;

			CHECK_EQ(pgc_pread(f, &b, 1, 99 * PAGE), 1);
			CHECK_EQ(b, 7);
			store(p + 99 * PAGE, pattern_byte(99 * PAGE, 1));
		}
	}
}

SYSTEM_TEST(c06_stores_into_what_mremap_grew_are_written)
{
	char *path = make_file("f", 10 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *p = free_space(10);

	CHECK(pgc_mmap(f, p, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, 0) == p);
	CHECK(mremap(p, PAGE, 10 * PAGE, 0) == p);
	pattern_fill(p, 10 * PAGE, 0, 2);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has(path, 10 * PAGE, 0, 2));
	/* Protected again by that fsync, or the next store would be missed. */
	pattern_fill(p, 10 * PAGE, 0, 3);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has(path, 10 * PAGE, 0, 3));
}

SYSTEM_TEST(c06_mremap_moves)
{
	char *path = make_file("f", 20 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);

	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		uint8_t *p = free_space(5), *q, v;

		CHECK(pgc_mmap(f, p, 4 * PAGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, 0) == p);
		CHECK(mmap(p + 4 * PAGE, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == p + 4 * PAGE);
		store(p + PAGE, 0);
		q = mremap(p, 4 * PAGE, 20 * PAGE, MREMAP_MAYMOVE);
		CHECK(q != MAP_FAILED && q != p);
		CHECK_EQ(load_signal(p, &v), SIGSEGV);
		CHECK_EQ(load(q + PAGE), 0);
		store(q + PAGE, pattern_byte(PAGE, 1));
		PATTERN_CHECK(q, 20 * PAGE, 0, 1);
		store(q + 2 * PAGE, 9);
		store(q + 19 * PAGE, 9);
		CHECK_EQ(load(q + 2 * PAGE), 9);
		CHECK_EQ(load(q + 19 * PAGE), 9);
		CHECK_EQ(pgc_fsync(f), 0);
		CHECK(store_has_byte(path, 19 * PAGE, flags == MAP_SHARED ? 9 : pattern_byte(19 * PAGE, 1)));
		store(q + 2 * PAGE, pattern_byte(2 * PAGE, 1));
		store(q + 19 * PAGE, pattern_byte(19 * PAGE, 1));
		CHECK_EQ(pgc_fsync(f), 0);
		CHECK(store_has(path, 20 * PAGE, 0, 1));
		CHECK_EQ(pgc_munmap(q, 20 * PAGE), 0);
	}
}

SYSTEM_TEST(c06_mremap_fixed)
{
	struct pgc_file *f = open_file(make_file("f", 6 * PAGE, 1), O_RDWR);
	uint8_t *p = map(f, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), *q = free_space(6), v;

	store(p + 2, 0);
	CHECK(mremap(p, 6 * PAGE, 6 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q) == q);
	CHECK_EQ(load_signal(p, &v), SIGSEGV);
	CHECK_EQ(load(q + 2), 0);
	PATTERN_CHECK(q + 3, 6 * PAGE - 3, 3, 1);
	/* A part of it, onto another mapping of ours. */
	p = map(f, 2 * PAGE, PROT_READ, MAP_PRIVATE, 0);
	CHECK_EQ(load(p + 5), pattern_byte(5, 1));
	CHECK(mremap(q + 3 * PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p) == p);
	PATTERN_CHECK(p, 2 * PAGE, 3 * PAGE, 1);
	CHECK_EQ(load_signal(q + 3 * PAGE, &v), SIGSEGV);
	PATTERN_CHECK(q + PAGE, 2 * PAGE, PAGE, 1);
	PATTERN_CHECK(q + 5 * PAGE, PAGE, 5 * PAGE, 1);
	store(p, 1);
	CHECK_EQ(pgc_pread(f, &v, 1, 3 * PAGE), 1);
	CHECK_EQ(v, 1);
}

SYSTEM_TEST(c06_mremap_of_old_size_0_duplicates)
{
	char *path = make_file("f", 4 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *p = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0), *q;

	store(p, 0);
	q = mremap(p, 0, 4 * PAGE, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED && q != p);
	CHECK_EQ(load(q), 0);
	PATTERN_CHECK(q + 1, 4 * PAGE - 1, 1, 1);
	store(q + PAGE, 0);
	CHECK_EQ(load(p + PAGE), 0);
	store(p + 2 * PAGE, 0);
	CHECK_EQ(load(q + 2 * PAGE), 0);
	CHECK_EQ(pgc_fsync(f), 0);
	/* Both are protected by the write-out: a store through either is seen by the next. */
	store(q + 3 * PAGE, 1);
	store(q, 1);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 3 * PAGE, 1));
	CHECK(store_has_byte(path, 0, 1));
	CHECK_EQ(pgc_munmap(p, 4 * PAGE), 0);
	store(q + 1, 1);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 1, 1));
}

SYSTEM_TEST(c06_partial_munmap_keeps_the_rest)
{
	char *path = make_file("f", 8 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t v;

	for (int how = 0; how < 2; how++) {
		uint8_t *p = map(f, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

		store(p, 0);
		store(p + 3 * PAGE, 0);
		CHECK_EQ(how ? munmap(p + 3 * PAGE, 2 * PAGE) : pgc_munmap(p + 3 * PAGE, 2 * PAGE), 0);
		CHECK_EQ(load_signal(p + 3 * PAGE, &v), SIGSEGV);
		CHECK_EQ(load_signal(p + 4 * PAGE, &v), SIGSEGV);
		CHECK_EQ(load(p), 0);
		PATTERN_CHECK(p + 1, 3 * PAGE - 1, 1, 1);
		PATTERN_CHECK(p + 5 * PAGE, 3 * PAGE, 5 * PAGE, 1);
		store(p + 7 * PAGE, 0);
		CHECK_EQ(pgc_fsync(f), 0);
		CHECK(store_has_byte(path, 0, 0));
		CHECK(store_has_byte(path, 3 * PAGE, 0));
		CHECK(store_has_byte(path, 7 * PAGE, 0));
		store(p, pattern_byte(0, 1));
		store(p + 7 * PAGE, pattern_byte(7 * PAGE, 1));
		CHECK_EQ(pgc_munmap(p, 8 * PAGE), 0);
	}
}

SYSTEM_TEST(c06_mprotect_works)
{
	char *path = make_file("f", 4 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *p = map(f, 4 * PAGE, PROT_READ, MAP_SHARED, 0);

	CHECK_EQ(store_signal(p, 1), SIGSEGV);
	CHECK(mprotect(p + PAGE, 2 * PAGE, PROT_READ | PROT_WRITE) == 0);
	CHECK_EQ(store_signal(p, 1), SIGSEGV);
	CHECK_EQ(store_signal(p + 3 * PAGE, 1), SIGSEGV);
	pattern_fill(p + PAGE, 2 * PAGE, PAGE, 2);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has(path, 2 * PAGE, PAGE, 2));
	CHECK(mprotect(p + PAGE, PAGE, PROT_READ) == 0);
	CHECK_EQ(store_signal(p + PAGE, 1), SIGSEGV);
	/* A store after mprotect and a write-out is seen by the next write-out. */
	CHECK(mprotect(p, 4 * PAGE, PROT_READ | PROT_WRITE) == 0);
	pattern_fill(p, 4 * PAGE, 0, 3);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has(path, 4 * PAGE, 0, 3));
}

#define MOVED 32ul                     /* pages that move, of 256 that a thread has for itself */

struct mover { struct pgc_file *f; unsigned self; uint8_t value[256]; bool *stop; };

/* Onto mappings of the same file, while others get the addresses that become free. What is stored before and after a move is there. */
static void *mover_main(void *arg)
{
	struct mover *v = arg;
	unsigned seed = v->self + 1;

	for (unsigned i = 0; i < 3000 && !__atomic_load_n(v->stop, __ATOMIC_RELAXED); i++) {
		unsigned first = (unsigned)rand_r(&seed) % (256 - MOVED), page = first + (unsigned)rand_r(&seed) % MOVED;
		uint8_t *m = map(v->f, MOVED * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, (off_t)((v->self * 256 + first) * PAGE));
		uint8_t *to = map(v->f, MOVED * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, (off_t)(v->self * 256 * PAGE));

		CHECK_EQ(load(m + (page - first) * PAGE), v->value[page]);
		store(m + (page - first) * PAGE, ++v->value[page]);
		CHECK(mremap(m, MOVED * PAGE, MOVED * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
		for (unsigned k = 0; k < MOVED; k += 5)
			CHECK_EQ(load(to + k * PAGE), v->value[first + k]);
		store(to + (page - first) * PAGE, ++v->value[page]);
		CHECK_EQ(pgc_munmap(to, MOVED * PAGE), 0);
	}
	return NULL;
}

SYSTEM_TEST(c06_mappings_move_onto_others_in_many_threads, .dirty_expire = "20ms", .seconds = 120)
{
	char *path = make_file("f", 4 * 256 * PAGE, 1);
	static struct mover v[4];
	bool stop = false;
	pthread_t t[4];

	for (unsigned i = 0; i < 4; i++) {
		v[i] = (struct mover){ .f = open_file(path, O_RDWR), .self = i, .stop = &stop };
		for (unsigned k = 0; k < 256; k++)
			v[i].value[k] = pattern_byte((i * 256 + k) * PAGE, 1);
		if (i % 2) { /* two threads a handle */
			CHECK_EQ(pgc_close(v[i].f), 0);
			v[i].f = v[i - 1].f;
		}
		CHECK_EQ(pthread_create(&t[i], NULL, mover_main, &v[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(t[i], NULL), 0);
	CHECK_EQ(pgc_fsync(v[0].f), 0);
	for (unsigned i = 0; i < 4; i++)
		for (unsigned k = 0; k < 256; k++)
			CHECK(store_has_byte(path, (off_t)((i * 256 + k) * PAGE), v[i].value[k]));
}

/* --- 7: fork, exec --- */

SYSTEM_TEST(c07_fork_shares_shared_stores_both_ways)
{
	char *path = make_file("f", 10 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *p = map(f, 10 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	int up[2], down[2];
	pid_t pid;
	char c;

	store(p, 1);
	CHECK(pipe(up) == 0 && pipe(down) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK_EQ(load(p), 1);
		store(p + 1, 2);                   /* a page that the parent has touched */
		store(p + 2 * PAGE, 3);            /* one that nobody has */
		CHECK(write(up[1], "x", 1) == 1 && read(down[0], &c, 1) == 1);
		CHECK_EQ(load(p + 2), 4);
		CHECK_EQ(load(p + 3 * PAGE), 5);
		PATTERN_CHECK(p + 4 * PAGE, PAGE, 4 * PAGE, 1);
		_exit(0);
	}
	CHECK_EQ(read(up[0], &c, 1), 1);
	CHECK_EQ(load(p + 1), 2);
	CHECK_EQ(load(p + 2 * PAGE), 3);
	store(p + 2, 4);
	store(p + 3 * PAGE, 5);
	CHECK_EQ(write(down[1], "x", 1), 1);
	expect_exit_0(pid);
	PATTERN_CHECK(p + 5 * PAGE, 5 * PAGE, 5 * PAGE, 1);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, 2 * PAGE, 3));
	CHECK(store_has_byte(path, 1, 2));
}

SYSTEM_TEST(c07_fork_isolates_private_stores)
{
	struct pgc_file *f = open_file(make_file("f", 8 * PAGE, 1), O_RDWR);
	uint8_t *p = map(f, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	int up[2], down[2];
	pid_t pid;
	char c;

	store(p, 1);
	CHECK(pipe(up) == 0 && pipe(down) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK_EQ(load(p), 1);
		store(p, 2);
		store(p + PAGE, 3);
		CHECK(write(up[1], "x", 1) == 1 && read(down[0], &c, 1) == 1);
		CHECK_EQ(load(p), 2);
		CHECK_EQ(load(p + PAGE), 3);
		PATTERN_CHECK(p + 2 * PAGE, 4 * PAGE, 2 * PAGE, 1);
		_exit(0);
	}
	CHECK_EQ(read(up[0], &c, 1), 1);
	CHECK_EQ(load(p), 1);
	PATTERN_CHECK(p + PAGE, PAGE, PAGE, 1);
	store(p + 2 * PAGE, 4);
	CHECK_EQ(write(down[1], "x", 1), 1);
	expect_exit_0(pid);
	CHECK_EQ(load(p), 1);
	CHECK_EQ(load(p + 2 * PAGE), 4);
	PATTERN_CHECK(p + 3 * PAGE, 5 * PAGE, 3 * PAGE, 1);
}

SYSTEM_TEST(c07_forked_child_goes_on_without_its_parent)
{
	size_t pages = 300;
	char *path = make_file("f", pages * PAGE, 1);
	uint8_t *done = shared_memory(PAGE);
	int ready[2];
	char c;
	pid_t middle;

	CHECK(pipe(ready) == 0);
	middle = fork();
	CHECK(middle >= 0);
	if (middle == 0) {
		struct pgc_file *f = open_file(path, O_RDWR);
		uint8_t *p = map(f, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
		uint8_t *q = map(f, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
		pid_t parent = getpid(), child;

		store(p, 0);
		store(q, 0);
		child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			WAIT_UNTIL(getppid() != parent);
			PATTERN_CHECK(p + 1, pages * PAGE - 1, 1, 1);
			PATTERN_CHECK(q + 1, pages * PAGE - 1, 1, 1);
			store(p + 200 * PAGE, 0);
			CHECK_EQ(pgc_fsync(f), 0);
			*(volatile uint8_t *)done = 1;
			_exit(0);
		}
		_exit(0);
	}
	close(ready[1]);
	CHECK_EQ(read(ready[0], &c, 1), 0);        /* both have ended */
	expect_exit_0(middle);
	CHECK_EQ(load(done), 1);
	CHECK(store_has_byte(path, 0, 0));
	CHECK(store_has_byte(path, 200 * PAGE, 0));
}

SYSTEM_TEST(c07_forked_child_can_use_the_handle)
{
	char *path = make_file("f", 4 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *p = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		uint8_t data[PAGE], *q = map(f, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, PAGE);

		CHECK_EQ(pgc_pread(f, data, PAGE, 3 * PAGE), PAGE);
		PATTERN_CHECK(data, PAGE, 3 * PAGE, 1);
		pattern_fill(data, PAGE, 0, 2);
		CHECK_EQ(pgc_pwrite(f, data, PAGE, 0), PAGE);
		PATTERN_CHECK(p, PAGE, 0, 2);
		store(q, 9);
		CHECK_EQ(load(p + PAGE), 9);
		CHECK_EQ(pgc_msync(q, PAGE, MS_SYNC), 0);
		CHECK_EQ(pgc_close(f), 0);
		_exit(0);
	}
	expect_exit_0(pid);
	PATTERN_CHECK(p, PAGE, 0, 2);
	CHECK_EQ(load(p + PAGE), 9);
	CHECK(store_has_byte(path, PAGE, 9));
	store(p + PAGE, 10);
	CHECK_EQ(pgc_fsync(f), 0);
	CHECK(store_has_byte(path, PAGE, 10));
}

SYSTEM_TEST(c07_fork_of_a_fork_faults)
{
	struct pgc_file *f = open_file(make_file("f", 200 * PAGE, 1), O_RDWR);
	uint8_t *p = map(f, 200 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		pid_t inner = fork();

		CHECK(inner >= 0);
		if (inner == 0) {
			PATTERN_CHECK(p + 100 * PAGE, 100 * PAGE, 100 * PAGE, 1);
			store(p + 150 * PAGE, 0);
			_exit(0);
		}
		expect_exit_0(inner);
		CHECK_EQ(load(p + 150 * PAGE), 0);
		_exit(0);
	}
	expect_exit_0(pid);
	CHECK_EQ(load(p + 150 * PAGE), 0);
	PATTERN_CHECK(p, 100 * PAGE, 0, 1);
}

static void exec_peer(struct peer *p, void *path)
{
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *m = map(f, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	store(m, 0);
	CHECK(dup2(p->sock, 0) == 0);
	peer_tell(p, 1);
	peer_hear(p);
	execlp("cat", "cat", NULL);
	FAIL("exec: %s", strerror(errno));
}

SYSTEM_TEST(c07_exec_drops_all)
{
	char *path = make_file("f", 2 * PAGE, 1);
	struct peer *p = peer_start(exec_peer, path);
	struct pgc_ctl_file_reply s;

	peer_hear(p);
	WAIT_UNTIL((s = file_state(path), s.mappings == 1 && s.handles == 1)); /* not while it is taken over */
	peer_tell(p, 1);
	WAIT_UNTIL((s = file_state(path), s.mappings == 0 && s.handles == 0));
	CHECK(kill(p->pid, 0) == 0);               /* it lives, as another program */
	WAIT_UNTIL(store_has_byte(path, 0, 0));
	peer_kill(p);
}

/* --- 8: advice, locks --- */

static int advise(int how, void *p, size_t n, int advice)
{
	if (how == 0)
		return pgc_madvise(p, n, advice);
	return madvise(p, n, advice) == 0 ? 0 : -errno;
}

SYSTEM_TEST(c08_dontneed_takes_a_private_mapping_back_to_the_file)
{
	struct pgc_file *f = open_file(make_file("f", 4 * PAGE, 1), O_RDWR);

	for (int how = 0; how < 2; how++) {
		uint8_t *p = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);

		pattern_fill(p, 4 * PAGE, 0, 2);
		CHECK_EQ(advise(how, p + PAGE, 2 * PAGE, MADV_DONTNEED), 0);
		PATTERN_CHECK(p, PAGE, 0, 2);
		PATTERN_CHECK(p + PAGE, 2 * PAGE, PAGE, 1);
		PATTERN_CHECK(p + 3 * PAGE, PAGE, 3 * PAGE, 2);
		store(p + PAGE, 0);
		CHECK_EQ(load(p + PAGE), 0);
	}
}

SYSTEM_TEST(c08_dontneed_of_a_shared_mapping_keeps_its_data)
{
	char *path = make_file("f", 4 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);

	for (int how = 0; how < 2; how++) {
		uint8_t *p = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
		unsigned gen = 2 + 2 * (unsigned)how;

		pattern_fill(p, 4 * PAGE, 0, gen);
		CHECK_EQ(advise(how, p, 4 * PAGE, MADV_DONTNEED), 0);
		PATTERN_CHECK(p, 4 * PAGE, 0, gen);
		CHECK_EQ(pgc_fsync(f), 0);
		CHECK(store_has(path, 4 * PAGE, 0, gen));
		CHECK_EQ(advise(how, p, 4 * PAGE, MADV_DONTNEED), 0);
		pattern_fill(p, 4 * PAGE, 0, gen + 1);
		CHECK_EQ(pgc_fsync(f), 0);
		CHECK(store_has(path, 4 * PAGE, 0, gen + 1));
	}
}

SYSTEM_TEST(c08_other_advice_changes_no_data)
{
	static const int advice[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_COLD};
	struct pgc_file *f = open_file(make_file("f", 70 * PAGE, 1), O_RDWR);
	uint8_t *p = map(f, 70 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (size_t i = 0; i < sizeof(advice) / sizeof(advice[0]); i++) {
		CHECK_EQ(pgc_madvise(p, 70 * PAGE, advice[i]), 0);
		PATTERN_CHECK(p, 70 * PAGE, 0, 1);
	}
	CHECK_EQ(pgc_madvise(p, PAGE, 12345), -EINVAL);
	CHECK_EQ(pgc_madvise(p + 1, PAGE, MADV_NORMAL), -EINVAL);
}

SYSTEM_TEST(c08_willneed_reads_ahead, .no_kills = ADVICE_DIES)
{
	char *path = make_file("f", 40 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *p = map(f, 40 * PAGE, PROT_READ, MAP_SHARED, 0);

	CHECK_EQ(pgc_madvise(p + 10 * PAGE, 20 * PAGE, MADV_WILLNEED), 0);
	WAIT_UNTIL(file_state(path).resident >= 20);
	CHECK(page_in_core(p + 10 * PAGE));
	CHECK(page_in_core(p + 29 * PAGE));
}

SYSTEM_TEST(c08_fadvise_reads_ahead_and_drops, .no_kills = ADVICE_DIES)
{
	char *path = make_file("f", 40 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t b[PAGE];

	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_WILLNEED), 0);
	WAIT_UNTIL(file_state(path).resident == 40);
	CHECK_EQ(pgc_fadvise(f, 0, 0, POSIX_FADV_DONTNEED), 0);
	WAIT_UNTIL(file_state(path).resident == 0);
	CHECK_EQ(pgc_pread(f, b, PAGE, PAGE), PAGE);
	PATTERN_CHECK(b, PAGE, PAGE, 1);
	CHECK_EQ(pgc_fadvise(f, 0, 0, 4711), -EINVAL);
}

SYSTEM_TEST(c08_locked_pages_stay_and_dontneed_on_them_fails)
{
	struct pgc_file *f = open_file(make_file("f", 4 * PAGE, 1), O_RDWR);

	for (int flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		uint8_t *p = map(f, 4 * PAGE, PROT_READ | PROT_WRITE, flags, 0);
		struct pgc_ctl_status_reply before, after;

		/* mlock(2) faults inside the kernel, which without privilege only works on pages that are there. */
		if (env.user)
			PATTERN_CHECK(p, 4 * PAGE, 0, 1);
		lock_memory(p, 4 * PAGE);
		for (size_t i = 0; i < 4; i++)
			CHECK(page_in_core(p + i * PAGE));
		before = status();
		PATTERN_CHECK(p, 4 * PAGE, 0, 1);
		CHECK_EQ(pgc_madvise(p, 4 * PAGE, MADV_DONTNEED), -EINVAL);
		CHECK_EQ(pgc_madvise(p + 2 * PAGE, PAGE, MADV_DONTNEED), -EINVAL);
		PATTERN_CHECK(p, 4 * PAGE, 0, 1);
		after = status();
		if (after.pid == before.pid) /* else it counts from 0 */
			CHECK_EQ(after.faults, before.faults);
		unlock_memory(p, 4 * PAGE);
		CHECK_EQ(pgc_madvise(p, 4 * PAGE, MADV_DONTNEED), 0);
		PATTERN_CHECK(p, 4 * PAGE, 0, 1);
	}
}

/* --- 9: mincore --- */

SYSTEM_TEST(c09_mincore_tells_the_truth, .config = "readahead_max = 0")
{
	char *path = make_file("f", 200 * PAGE, 1);
	struct pgc_file *f = open_file(path, O_RDWR);
	uint8_t *p = map(f, 200 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	unsigned char in[200];
	size_t n = 0;

	CHECK(mincore(p, 200 * PAGE, in) == 0);
	for (size_t i = 0; i < 200; i++)
		CHECK_EQ(in[i] & 1, 0);
	CHECK_EQ(load(p + 5 * PAGE), pattern_byte(5 * PAGE, 1));
	store(p + 150 * PAGE, 1);
	CHECK(page_in_core(p + 5 * PAGE));
	CHECK(page_in_core(p + 150 * PAGE));
	/* What it shows is what the daemon has. */
	CHECK(mincore(p, 200 * PAGE, in) == 0);
	for (size_t i = 0; i < 200; i++)
		n += in[i] & 1;
	CHECK_EQ(n, file_state(path).resident);
	CHECK(n < 200);
	CHECK_EQ(pgc_fsync(f), 0);
	drop_clean();
	CHECK(mincore(p, 200 * PAGE, in) == 0);
	n = 0;
	for (size_t i = 0; i < 200; i++)
		n += in[i] & 1;
	CHECK_EQ(n, 0);
	CHECK_EQ(load(p + 150 * PAGE), 1);
	PATTERN_CHECK(p, 150 * PAGE, 0, 1);
}

SYSTEM_TESTS_MAIN("mapping",
	cmocka_unit_test(c01_shared_and_private_mappings_show_the_bytes),
	cmocka_unit_test(c01_read_only_handle_shows_the_bytes_and_stays_coherent),
	cmocka_unit_test(c01_nonzero_offset_shows_the_bytes_there),
	cmocka_unit_test(c01_store_at_an_offset_reaches_that_offset),
	cmocka_unit_test(c01_mapping_may_be_longer_than_the_file),
	cmocka_unit_test(c01_mapping_longer_than_the_file_shows_what_is_appended),
	cmocka_unit_test(c02_touch_beyond_the_last_page_raises_sigbus),
	cmocka_unit_test(c02_last_page_is_whole_and_zero_past_the_end),
	cmocka_unit_test(c02_empty_file_raises_sigbus_everywhere),
	cmocka_unit_test(c03_writable_shared_mapping_of_a_read_only_handle_is_eacces),
	cmocka_unit_test(c03_writable_private_mapping_of_a_read_only_handle_is_allowed),
	cmocka_unit_test(c03_shared_mapping_of_a_read_only_handle_cannot_be_made_writable),
	cmocka_unit_test(c03_write_only_handle_cannot_be_mapped),
	cmocka_unit_test(c03_neither_or_both_of_shared_and_private_is_einval),
	cmocka_unit_test(c03_length_zero_is_einval),
	cmocka_unit_test(c03_unaligned_offset_is_einval),
	cmocka_unit_test(c03_offset_plus_length_overflow_is_eoverflow),
	cmocka_unit_test(c03_absurd_length_is_enomem),
	cmocka_unit_test(c03_map_fixed_replaces_what_is_there),
	cmocka_unit_test(c03_map_fixed_noreplace_refuses_what_is_taken),
	cmocka_unit_test(c03_address_is_a_hint_without_fixed),
	cmocka_unit_test(c03_populate_fills),
	cmocka_unit_test(c03_prot_none_then_mprotect_keeps_data),
	cmocka_unit_test(c04_stores_of_two_processes_to_one_page_interleave),
	cmocka_unit_test(c04_concurrent_stores_of_two_processes_lose_nothing),
	cmocka_unit_test(c05_private_stores_never_reach_the_file),
	cmocka_unit_test(c05_private_copy_keeps_its_bytes_when_the_file_changes),
	cmocka_unit_test(c05_truncation_drops_private_copies_beyond_the_end),
	cmocka_unit_test(c06_mremap_shrinks),
	cmocka_unit_test(c06_mremap_grows_in_place),
	cmocka_unit_test(c06_stores_into_what_mremap_grew_are_written),
	cmocka_unit_test(c06_mremap_moves),
	cmocka_unit_test(c06_mremap_fixed),
	cmocka_unit_test(c06_mremap_of_old_size_0_duplicates),
	cmocka_unit_test(c06_partial_munmap_keeps_the_rest),
	cmocka_unit_test(c06_mprotect_works),
	cmocka_unit_test(c06_mappings_move_onto_others_in_many_threads),
	cmocka_unit_test(c07_fork_shares_shared_stores_both_ways),
	cmocka_unit_test(c07_fork_isolates_private_stores),
	cmocka_unit_test(c07_forked_child_goes_on_without_its_parent),
	cmocka_unit_test(c07_forked_child_can_use_the_handle),
	cmocka_unit_test(c07_fork_of_a_fork_faults),
	cmocka_unit_test(c07_exec_drops_all),
	cmocka_unit_test(c08_dontneed_takes_a_private_mapping_back_to_the_file),
	cmocka_unit_test(c08_dontneed_of_a_shared_mapping_keeps_its_data),
	cmocka_unit_test(c08_other_advice_changes_no_data),
	cmocka_unit_test(c08_willneed_reads_ahead),
	cmocka_unit_test(c08_fadvise_reads_ahead_and_drops),
	cmocka_unit_test(c08_locked_pages_stay_and_dontneed_on_them_fails),
	cmocka_unit_test(c09_mincore_tells_the_truth))
