/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of warm starts. First byte 0: the rest is a record as it stands; else magic, length and checksum are put right, since no mutation would hit
 * them. What is accepted keeps what warm_record.h promises, comes out of encode as it went in, and is read in by steps that go on and end on hot pages.
 */
#include <errno.h>

#include "daemon/util/util.h"
#include "daemon/warm_record.h"
#include "tests/fuzz/fuzz.h"

#define STEPS 100

static uint64_t fnv(const uint8_t *p, size_t n)
{
	uint64_t h = 0xcbf29ce484222325ull;

	while (n--)
		h = (h ^ *p++) * 0x100000001b3ull;
	return h;
}

static void put(uint8_t *at, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		at[i] = (uint8_t)(v >> (8 * i));
}

/* As many whole runs as there are bytes for. */
static void mend(uint8_t *p, size_t n)
{
	const size_t header = 88 + PGC_NAME_MAX;

	if (n < header + 8)
		return;
	memcpy(p, "PGCWARM1", 8);
	put(p + 8, n);
	put(p + 80, (n - header - 8) / 24);
	p[header - 1] = 0;
	put(p + n - 8, fnv(p, n - 8));
}

static bool hot(const struct warm_record *r, uint64_t page)
{
	for (uint32_t i = 0; i < r->n; i++)
		if (r->runs[i].index <= page / 64 && page / 64 - r->runs[i].index < r->runs[i].blocks)
			return r->runs[i].pages >> (page % 64) & 1;
	return false;
}

static void check_runs(const struct warm_record *r)
{
	uint64_t next = 0;

	REQUIRE(r->n <= WARM_RUNS_MAX);
	for (uint32_t i = 0; i < r->n; i++) {
		const struct warm_run *run = &r->runs[i];

		REQUIRE(run->pages && run->blocks && run->index >= next);
		REQUIRE(run->index + run->blocks > run->index);
		next = run->index + run->blocks;
	}
}

static void check_steps(const struct warm_record *r, uint64_t max)
{
	uint64_t from = 0, first, n;

	for (int i = 0; i < STEPS && warm_record_next(r, from, max, &first, &n); i++) {
		REQUIRE(first >= from && n > 0 && n <= max);
		REQUIRE(hot(r, first) && hot(r, first + n - 1));
		for (uint64_t page = from; page < first && page < from + 16; page++)
			REQUIRE(!hot(r, page));
		from = first + n;
	}
}

static void decode(const uint8_t *data, size_t size, uint64_t max)
{
	const char *why = NULL;
	struct warm_record r;
	size_t out_size;
	void *out;
	int e = warm_record_decode(&r, data, size, &why);

	if (e < 0) {
		REQUIRE(e == -EBADMSG && why);
		return;
	}
	check_runs(&r);
	REQUIRE(memchr(r.name, 0, sizeof(r.name)));
	REQUIRE(!warm_record_mismatch(&r, &r));
	(void)warm_record_pages(&r);
	check_steps(&r, max);
	REQUIRE(warm_record_encode(&r, &out, &out_size) == 0);
	REQUIRE(out_size == size && memcmp(out, data, size) == 0);
	free(out);
	warm_record_free(&r);
}

/* What is collected block by block, and back. */
static void collect(struct input *in)
{
	struct warm_record r, back;
	uint64_t index = 0, pages = 0;
	const char *why;
	size_t size;
	void *data;

	warm_record_init(&r);
	while (in->n) {
		uint8_t how = take_byte(in);

		index += how & 15;
		if (how & 16)
			pages = take_number(in, 8);
		REQUIRE(warm_record_add(&r, index++, pages) == 0);
	}
	r.size = (index + 1) * PGC_BLOCK_SIZE;
	check_runs(&r);
	check_steps(&r, 256);
	REQUIRE(warm_record_encode(&r, &data, &size) == 0);
	REQUIRE(warm_record_decode(&back, data, size, &why) == 0);
	REQUIRE(back.n == r.n && warm_record_pages(&back) == warm_record_pages(&r));
	free(data);
	warm_record_free(&back);
	warm_record_free(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t how = take_byte(&in);
	uint64_t max = 1 + take_byte(&in);
	uint8_t *copy;

	if (how % 4 == 3) {
		collect(&in);
		return 0;
	}
	copy = malloc(in.n + 1); /* its end is where the record ends */
	REQUIRE(copy);
	copy = realloc(copy, in.n ? in.n : 1);
	REQUIRE(copy);
	if (in.n)
		memcpy(copy, in.p, in.n);
	if (how % 4)
		mend(copy, in.n);
	decode(copy, in.n, max);
	free(copy);
	return 0;
}
