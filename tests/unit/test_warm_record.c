/* SPDX-License-Identifier: Apache-2.0 */
/* daemon/warm_record.c: what is written is read again, what is broken is found out, and nothing that is read is believed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "daemon/util/util.h"
#include "daemon/warm_record.h"

static uint64_t random_state;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* A record of a file of `blocks` blocks, still empty. */
static struct warm_record record_of(uint64_t blocks)
{
	struct warm_record r;

	warm_record_init(&r);
	r.dev = 0x801;
	r.ino = 4711;
	strcpy(r.name, "/data/file");
	r.size = blocks * PGC_BLOCK_SIZE;
	r.mtime = (struct timespec){ 1700000000, 123456789 };
	r.ctime = (struct timespec){ 1700000001, 999999999 };
	r.written = 1700000002;
	return r;
}

static struct warm_record some_record(void)
{
	struct warm_record r = record_of(1000);

	assert_int_equal(warm_record_add(&r, 0, 1), 0);
	assert_int_equal(warm_record_add(&r, 3, 0xff00), 0);
	for (uint64_t i = 10; i < 20; i++)
		assert_int_equal(warm_record_add(&r, i, ~0ull), 0);
	assert_int_equal(warm_record_add(&r, 999, 1ull << 63), 0);
	return r;
}

/* For changes after which only the checksum is right. */
static void sign(uint8_t *data, size_t size)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < size - 8; i++)
		h = (h ^ data[i]) * 0x100000001b3ull;
	for (size_t i = 0; i < 8; i++)
		data[size - 8 + i] = (uint8_t)(h >> (8 * i));
}

static void put(uint8_t *data, size_t off, uint64_t v)
{
	for (size_t i = 0; i < 8; i++)
		data[off + i] = (uint8_t)(v >> (8 * i));
}

#define OFF_LENGTH 8
#define OFF_SIZE   32
#define OFF_MTIME_NSEC 48
#define OFF_N      80
#define OFF_NAME   88
#define OFF_RUNS   (88 + PGC_NAME_MAX)

static void assert_refused(uint8_t *data, size_t size, const char *what)
{
	struct warm_record r;
	const char *why = NULL;

	assert_int_equal(warm_record_decode(&r, data, size, &why), -EBADMSG);
	assert_non_null(why);
	assert_non_null(strstr(why, what));
}

/* Decodes a copy with one number changed and the checksum made right. */
static void assert_number_refused(size_t off, uint64_t value, const char *what)
{
	struct warm_record r = some_record();
	void *data;
	size_t size;

	assert_int_equal(warm_record_encode(&r, &data, &size), 0);
	put(data, off, value);
	sign(data, size);
	assert_refused(data, size, what);
	free(data);
	warm_record_free(&r);
}

static void test_what_is_encoded_is_decoded(void **state)
{
	struct warm_record r = some_record(), back;
	const char *why;
	void *data;
	size_t size;

	assert_int_equal(warm_record_encode(&r, &data, &size), 0);
	assert_int_equal(warm_record_decode(&back, data, size, &why), 0);
	assert_int_equal(back.dev, r.dev);
	assert_int_equal(back.ino, r.ino);
	assert_string_equal(back.name, r.name);
	assert_int_equal(back.size, r.size);
	assert_int_equal(back.written, r.written);
	assert_null(warm_record_mismatch(&back, &r));
	assert_int_equal(back.n, r.n);
	assert_memory_equal(back.runs, r.runs, r.n * sizeof(*r.runs));
	free(data);
	warm_record_free(&back);
	warm_record_free(&r);
}

static void test_record_on_disk_is_little_endian(void **state)
{
	struct warm_record r = record_of(10);
	uint8_t *d;
	void *data;
	size_t size;

	assert_int_equal(warm_record_add(&r, 2, 0x0102030405060708ull), 0);
	assert_int_equal(warm_record_encode(&r, &data, &size), 0);
	d = data;
	assert_int_equal(size, OFF_RUNS + 24 + 8);
	assert_memory_equal(d, "PGCWARM1", 8);
	assert_int_equal(d[OFF_N], 1);
	assert_int_equal(d[OFF_RUNS], 2);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(d[OFF_RUNS + 8 + i], 8 - i);
	free(data);
	warm_record_free(&r);
}

static void test_equal_neighbours_become_one_run(void **state)
{
	struct warm_record r = some_record();

	assert_int_equal(r.n, 4);
	assert_int_equal(r.runs[2].index, 10);
	assert_int_equal(r.runs[2].blocks, 10);
	assert_int_equal(warm_record_pages(&r), 1 + 8 + 640 + 1);
	warm_record_free(&r);
}

static void test_block_without_hot_pages_is_not_recorded(void **state)
{
	struct warm_record r = record_of(10);

	assert_int_equal(warm_record_add(&r, 1, 0), 0);
	assert_int_equal(r.n, 0);
	warm_record_free(&r);
}

/* Every tenth block is full, the others have one page, of alternating place so that they do not merge. */
static void test_when_there_is_too_much_the_fullest_blocks_stay(void **state)
{
	uint64_t blocks = 10ull * WARM_RUNS_MAX / 4, full = 0;
	struct warm_record r = record_of(blocks);
	void *data;
	size_t size;

	for (uint64_t i = 0; i < blocks; i++)
		assert_int_equal(warm_record_add(&r, i, i % 10 == 0 ? ~0ull : 1ull << (i % 2)), 0);
	for (uint32_t i = 0; i < r.n; i++) {
		full += r.runs[i].pages == ~0ull;
		if (i > 0)
			assert_true(r.runs[i].index >= r.runs[i - 1].index + r.runs[i - 1].blocks);
	}
	assert_int_equal(full, blocks / 10);
	assert_true(r.n <= WARM_RUNS_MAX);
	assert_int_equal(warm_record_encode(&r, &data, &size), 0);
	assert_true(size <= WARM_RECORD_MAX);
	free(data);
	warm_record_free(&r);
}

static void test_truncated_record_is_refused_at_every_length(void **state)
{
	struct warm_record r = some_record();
	void *data;
	size_t size;

	assert_int_equal(warm_record_encode(&r, &data, &size), 0);
	for (size_t n = 0; n < size; n++) {
		uint8_t *cut = malloc(n + 1); /* of its own, so that a read past it is seen */

		memcpy(cut, data, n);
		cut = realloc(cut, n ? n : 1);
		assert_refused(cut, n, "it");
		free(cut);
	}
	free(data);
	warm_record_free(&r);
}

static void test_every_changed_byte_is_found_out(void **state)
{
	struct warm_record r = some_record(), back;
	const char *why;
	uint8_t *d;
	void *data;
	size_t size;

	assert_int_equal(warm_record_encode(&r, &data, &size), 0);
	d = data;
	for (size_t i = 0; i < size; i++)
		for (unsigned bit = 0; bit < 8; bit++) {
			d[i] ^= (uint8_t)(1u << bit);
			assert_int_equal(warm_record_decode(&back, data, size, &why), -EBADMSG);
			d[i] ^= (uint8_t)(1u << bit);
		}
	free(data);
	warm_record_free(&r);
}

static void test_trailing_bytes_are_refused(void **state)
{
	struct warm_record r = some_record();
	uint8_t *more;
	void *data;
	size_t size;

	assert_int_equal(warm_record_encode(&r, &data, &size), 0);
	more = calloc(1, size + 24);
	memcpy(more, data, size);
	assert_refused(more, size + 24, "length");
	free(more);
	free(data);
	warm_record_free(&r);
}

static void test_other_magic_is_refused(void **state)
{
	assert_number_refused(0, 0x3257524157434750ull, "version");
}

static void test_wrong_checksum_is_refused(void **state)
{
	struct warm_record r = some_record();
	void *data;
	size_t size;

	assert_int_equal(warm_record_encode(&r, &data, &size), 0);
	((uint8_t *)data)[size - 1] ^= 1;
	assert_refused(data, size, "checksum");
	free(data);
	warm_record_free(&r);
}

static void test_absurd_numbers_are_refused(void **state)
{
	assert_number_refused(OFF_LENGTH, ~0ull, "length");
	assert_number_refused(OFF_N, ~0ull, "number of runs");
	assert_number_refused(OFF_N, 3, "number of runs");
	assert_number_refused(OFF_N, 1ull << 61, "number of runs"); /* times 24 it is 3 << 64 */
	assert_number_refused(OFF_SIZE, ~0ull, "header");
	assert_number_refused(OFF_MTIME_NSEC, 1000000000, "header");
}

static void test_name_without_an_end_is_refused(void **state)
{
	struct warm_record r = some_record();
	void *data;
	size_t size;

	assert_int_equal(warm_record_encode(&r, &data, &size), 0);
	memset((uint8_t *)data + OFF_NAME, 'x', PGC_NAME_MAX);
	sign(data, size);
	assert_refused(data, size, "header");
	free(data);
	warm_record_free(&r);
}

static void test_impossible_runs_are_refused(void **state)
{
	assert_number_refused(OFF_RUNS + 8, 0, "runs");                /* no pages */
	assert_number_refused(OFF_RUNS + 16, 0, "runs");               /* no blocks */
	assert_number_refused(OFF_RUNS + 16, 4, "runs");               /* overlaps the next */
	assert_number_refused(OFF_RUNS + 16, ~0ull, "runs");
	assert_number_refused(OFF_RUNS + 24, 0, "runs");               /* not ascending */
	assert_number_refused(OFF_RUNS + 3 * 24, 1001, "runs");        /* past the end of the file */
	assert_number_refused(OFF_RUNS + 3 * 24, ~0ull, "runs");
	assert_number_refused(OFF_RUNS + 3 * 24 + 16, 3, "runs");
}

static void test_record_of_another_state_of_the_file_is_told(void **state)
{
	struct warm_record r = some_record(), now = record_of(1000);

	assert_null(warm_record_mismatch(&r, &now));
	now.size++;
	assert_non_null(warm_record_mismatch(&r, &now));
	now = record_of(1000);
	now.mtime.tv_nsec++;
	assert_non_null(warm_record_mismatch(&r, &now));
	now = record_of(1000);
	now.ctime.tv_sec++;
	assert_non_null(warm_record_mismatch(&r, &now));
	warm_record_free(&r);
}

static void test_record_of_another_file_is_told(void **state)
{
	struct warm_record r = some_record(), now = record_of(1000);

	now.ino++;
	assert_non_null(strstr(warm_record_mismatch(&r, &now), "another file"));
	warm_record_free(&r);
}

static void assert_next(const struct warm_record *r, uint64_t from, uint64_t max, uint64_t first, uint64_t n)
{
	uint64_t got_first, got_n;

	assert_true(warm_record_next(r, from, max, &got_first, &got_n));
	assert_int_equal(got_first, first);
	assert_int_equal(got_n, n);
}

static void test_reads_are_as_large_as_they_may_be(void **state)
{
	struct warm_record r = some_record();

	assert_next(&r, 4 * 64, 256, 640, 256);
	assert_next(&r, 640 + 256, 256, 640 + 256, 256);
	assert_next(&r, 640 + 512, 256, 640 + 512, 128);
	warm_record_free(&r);
}

static void test_nothing_is_left_after_the_last_page(void **state)
{
	struct warm_record r = some_record();
	uint64_t first, n;

	assert_next(&r, 20 * 64, 256, 999 * 64 + 63, 1);
	assert_false(warm_record_next(&r, 1000 * 64, 256, &first, &n));
	assert_false(warm_record_next(&r, ~0ull, 256, &first, &n));
	warm_record_free(&r);
}

static void test_small_gap_is_read_along(void **state)
{
	struct warm_record r = record_of(10);

	assert_int_equal(warm_record_add(&r, 0, 0xff00ff), 0); /* 8 pages, a gap of 8, 8 pages */
	assert_next(&r, 0, 256, 0, 24);
	warm_record_free(&r);
}

static void test_large_gap_parts_two_reads(void **state)
{
	struct warm_record r = record_of(10);

	assert_int_equal(warm_record_add(&r, 0, 0xffffffull | 0xffffffull << 41), 0); /* 24 pages, a gap of 17 */
	assert_next(&r, 0, 256, 0, 24);
	assert_next(&r, 24, 256, 41, 23);
	warm_record_free(&r);
}

static void test_gaps_are_not_read_along_when_they_are_most_of_it(void **state)
{
	struct warm_record r = record_of(10);

	assert_int_equal(warm_record_add(&r, 0, 0x11111111), 0); /* every fourth page */
	assert_next(&r, 0, 256, 0, 1);
	assert_next(&r, 1, 256, 4, 1);
	warm_record_free(&r);
}

/* All that was recorded is asked for, in order, once, in reads of the size allowed, and at most as much again. */
static void test_walk_covers_every_hot_page_once(void **state)
{
	random_state = 99;
	for (unsigned round = 0; round < 200; round++) {
		struct warm_record r = record_of(64);
		uint64_t bitmap[64], from = 0, first, n, max = 1 + random_next() % 300, asked = 0;

		for (uint64_t i = 0; i < 64; i++) {
			bitmap[i] = random_next() & random_next() & (round % 2 ? ~0ull : random_next());
			if (random_next() % 4 == 0)
				bitmap[i] = ~0ull;
			assert_int_equal(warm_record_add(&r, i, bitmap[i]), 0);
		}
		while (warm_record_next(&r, from, max, &first, &n)) {
			assert_true(first >= from && n >= 1 && n <= max);
			for (uint64_t p = from; p < first; p++)
				assert_false(bitmap[p / 64] >> (p % 64) & 1);
			assert_true(bitmap[first / 64] >> (first % 64) & 1);
			assert_true(bitmap[(first + n - 1) / 64] >> ((first + n - 1) % 64) & 1);
			asked += n;
			from = first + n;
		}
		for (uint64_t p = from; p < 64 * 64; p++)
			assert_false(bitmap[p / 64] >> (p % 64) & 1);
		assert_true(asked >= warm_record_pages(&r) && asked <= 2 * warm_record_pages(&r));
		warm_record_free(&r);
	}
}

/* Random damage, with the checksum made right half of the time: refused, or a record that keeps what runs promise. */
static void test_random_damage_is_refused_or_harmless(void **state)
{
	unsigned accepted = 0, refused = 0;

	random_state = 20240229;
	for (unsigned round = 0; round < 20000; round++) {
		struct warm_record r = some_record(), back;
		size_t size, changes = 1 + random_next() % 8;
		const char *why = NULL;
		uint8_t *exact;
		void *data;

		assert_int_equal(warm_record_encode(&r, &data, &size), 0);
		for (size_t i = 0; i < changes; i++) {
			size_t off = random_next() % 3 ? random_next() % size : OFF_RUNS + random_next() % (size - OFF_RUNS);

			((uint8_t *)data)[off] = random_next() % 2 ? (uint8_t)random_next() : (uint8_t)(random_next() % 2 ? 0 : 0xff);
		}
		if (random_next() % 8 == 0)
			size = 8 + random_next() % (size - 8);
		exact = malloc(size);
		memcpy(exact, data, size);
		if (random_next() % 2)
			sign(exact, size);
		if (warm_record_decode(&back, exact, size, &why) == 0) {
			uint64_t next = 0, from = 0, first, n;

			accepted++;
			assert_true(back.n <= WARM_RUNS_MAX);
			for (uint32_t i = 0; i < back.n; i++) {
				assert_true(back.runs[i].index >= next && back.runs[i].blocks > 0 && back.runs[i].pages != 0);
				next = back.runs[i].index + back.runs[i].blocks;
				assert_true(next <= page_up(back.size) / PGC_BLOCK_PAGES + 1);
			}
			for (unsigned i = 0; i < 100 && warm_record_next(&back, from, 256, &first, &n); i++) {
				assert_true(first >= from && n > 0);
				from = first + n;
			}
			warm_record_free(&back);
		} else {
			refused++;
			assert_non_null(why);
		}
		free(exact);
		free(data);
		warm_record_free(&r);
	}
	assert_true(accepted > 100 && refused > 100); /* both were tried */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_encoded_is_decoded),
		cmocka_unit_test(test_record_on_disk_is_little_endian),
		cmocka_unit_test(test_equal_neighbours_become_one_run),
		cmocka_unit_test(test_block_without_hot_pages_is_not_recorded),
		cmocka_unit_test(test_when_there_is_too_much_the_fullest_blocks_stay),
		cmocka_unit_test(test_truncated_record_is_refused_at_every_length),
		cmocka_unit_test(test_every_changed_byte_is_found_out),
		cmocka_unit_test(test_trailing_bytes_are_refused),
		cmocka_unit_test(test_other_magic_is_refused),
		cmocka_unit_test(test_wrong_checksum_is_refused),
		cmocka_unit_test(test_absurd_numbers_are_refused),
		cmocka_unit_test(test_name_without_an_end_is_refused),
		cmocka_unit_test(test_impossible_runs_are_refused),
		cmocka_unit_test(test_record_of_another_state_of_the_file_is_told),
		cmocka_unit_test(test_record_of_another_file_is_told),
		cmocka_unit_test(test_reads_are_as_large_as_they_may_be),
		cmocka_unit_test(test_nothing_is_left_after_the_last_page),
		cmocka_unit_test(test_small_gap_is_read_along),
		cmocka_unit_test(test_large_gap_parts_two_reads),
		cmocka_unit_test(test_gaps_are_not_read_along_when_they_are_most_of_it),
		cmocka_unit_test(test_walk_covers_every_hot_page_once),
		cmocka_unit_test(test_random_damage_is_refused_or_harmless),
	};

	return cmocka_run_group_tests_name("warm_record", tests, NULL, NULL);
}
