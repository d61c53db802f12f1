/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See warm_record.h.
 *
 * Invariants
 *   - A record that was decoded keeps what is promised of runs: ascending, not overlapping, not empty, inside the file, at most WARM_RUNS_MAX.
 *   - Memory is bounded: nothing is allocated by a number that was read before that number has been compared with the size of the data.
 * Any thread; a record belongs to one at a time. May call util.
 */
#include "daemon/warm_record.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "daemon/util/util.h"

#define MAGIC   "PGCWARM1"     /* the digit is the version of the format */

struct disk_header {
	char magic[8];
	uint64_t length;           /* of the whole record, checksum included */
	uint64_t dev, ino;
	uint64_t size;
	uint64_t mtime_sec, mtime_nsec, ctime_sec, ctime_nsec;
	uint64_t written;
	uint64_t n;
	char name[PGC_NAME_MAX];
};

struct disk_run {
	uint64_t index, pages, blocks;
};

#define RECORD_SIZE(n) (sizeof(struct disk_header) + (n) * sizeof(struct disk_run) + sizeof(uint64_t))
_Static_assert(sizeof(struct disk_header) == 88 + PGC_NAME_MAX && sizeof(struct disk_run) == 24, "no padding on disk");
_Static_assert(RECORD_SIZE(WARM_RUNS_MAX) <= WARM_RECORD_MAX, "the largest record");

static uint64_t checksum(const void *data, size_t n)
{
	const uint8_t *p = data;
	uint64_t h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h;
}

void warm_record_init(struct warm_record *r) { *r = (struct warm_record){ .runs = NULL }; }

void warm_record_free(struct warm_record *r)
{
	free(r->runs);
	r->runs = NULL;
	r->n = r->room = 0;
}

/* --- collecting --- */

#define WEIGHT_MAX 255u

/* Pages of a run; long runs are all alike. */
static unsigned weight(const struct warm_run *run)
{
	return (unsigned)MIN((uint64_t)__builtin_popcountll(run->pages) * MIN(run->blocks, WEIGHT_MAX), WEIGHT_MAX);
}

/* Keeps the heaviest half, in order. Of those at the limit the first ones stay. */
static void drop_lightest(struct warm_record *r)
{
	uint32_t count[WEIGHT_MAX + 1] = { 0 }, keep = r->n / 2, above = 0, at_limit, n = 0;
	unsigned limit = WEIGHT_MAX;

	for (uint32_t i = 0; i < r->n; i++)
		count[weight(&r->runs[i])]++;
	while (above + count[limit] <= keep && limit > 0)
		above += count[limit--];
	at_limit = keep - above;
	for (uint32_t i = 0; i < r->n; i++) {
		unsigned w = weight(&r->runs[i]);

		if (w > limit || (w == limit && at_limit > 0 && at_limit--))
			r->runs[n++] = r->runs[i];
	}
	r->n = n;
	r->floor = limit;
}

int warm_record_add(struct warm_record *r, uint64_t index, uint64_t pages)
{
	struct warm_run run = { index, pages, 1 };

	if (pages == 0)
		return 0;
	if (r->n > 0) {
		struct warm_run *last = &r->runs[r->n - 1];

		if (last->index + last->blocks == index && last->pages == pages) {
			last->blocks++;
			return 0;
		}
	}
	if (weight(&run) < r->floor)
		return 0;
	if (r->n == WARM_RUNS_MAX)
		drop_lightest(r);
	if (r->n == r->room) {
		uint32_t room = MIN(MAX(r->room * 2, 16u), WARM_RUNS_MAX);
		struct warm_run *runs = reallocarray(r->runs, room, sizeof(*runs));

		if (!runs)
			return -ENOMEM;
		r->runs = runs;
		r->room = room;
	}
	r->runs[r->n++] = run;
	return 0;
}

uint64_t warm_record_pages(const struct warm_record *r)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < r->n; i++)
		n += (uint64_t)__builtin_popcountll(r->runs[i].pages) * r->runs[i].blocks;
	return n;
}

/* --- to disk and back --- */

int warm_record_encode(const struct warm_record *r, void **ret, size_t *ret_size)
{
	size_t size = RECORD_SIZE(r->n);
	struct disk_header h = {
		.magic = MAGIC, .length = htole64(size), .dev = htole64(r->dev), .ino = htole64(r->ino), .size = htole64(r->size),
		.mtime_sec = htole64((uint64_t)r->mtime.tv_sec), .mtime_nsec = htole64((uint64_t)r->mtime.tv_nsec),
		.ctime_sec = htole64((uint64_t)r->ctime.tv_sec), .ctime_nsec = htole64((uint64_t)r->ctime.tv_nsec),
		.written = htole64((uint64_t)r->written), .n = htole64(r->n),
	};
	uint8_t *data = malloc(size), *p = data + sizeof(h);
	uint64_t sum;

	if (!data)
		return -ENOMEM;
	memcpy(h.name, r->name, sizeof(h.name));
	memcpy(data, &h, sizeof(h));
	for (uint32_t i = 0; i < r->n; i++, p += sizeof(struct disk_run)) {
		struct disk_run d = { htole64(r->runs[i].index), htole64(r->runs[i].pages), htole64(r->runs[i].blocks) };

		memcpy(p, &d, sizeof(d));
	}
	sum = htole64(checksum(data, size - sizeof(sum)));
	memcpy(p, &sum, sizeof(sum));
	*ret = data;
	*ret_size = size;
	return 0;
}

/* What is wrong with the frame around the runs, or NULL. */
static const char *check_frame(const struct disk_header *h, const void *data, size_t size)
{
	uint64_t sum;

	if (size < RECORD_SIZE(0))
		return "it is too short";
	if (memcmp(h->magic, MAGIC, sizeof(h->magic)) != 0)
		return "it is no record of a version that is known";
	if (size > WARM_RECORD_MAX || le64toh(h->length) != size)
		return "its length is wrong";
	memcpy(&sum, (const uint8_t *)data + size - sizeof(sum), sizeof(sum));
	if (le64toh(sum) != checksum(data, size - sizeof(sum)))
		return "its checksum is wrong";
	if (le64toh(h->n) > WARM_RUNS_MAX || RECORD_SIZE(le64toh(h->n)) != size)
		return "its number of runs is wrong";
	if (le64toh(h->size) > INT64_MAX || le64toh(h->mtime_nsec) > 999999999 || le64toh(h->ctime_nsec) > 999999999 ||
	    !memchr(h->name, 0, sizeof(h->name)))
		return "its header is wrong";
	return NULL;
}

static const char *decode_runs(struct warm_record *r, const uint8_t *p, uint64_t n)
{
	uint64_t end = page_up(r->size) / PGC_BLOCK_PAGES + 1, next = 0;

	for (; n > 0; n--, p += sizeof(struct disk_run)) {
		struct warm_run run;
		struct disk_run d;

		memcpy(&d, p, sizeof(d));
		run = (struct warm_run){ le64toh(d.index), le64toh(d.pages), le64toh(d.blocks) };
		if (run.pages == 0 || run.blocks == 0 || run.index < next || run.index >= end || run.blocks > end - run.index)
			return "its runs are wrong";
		next = run.index + run.blocks;
		r->runs[r->n++] = run;
	}
	return NULL;
}

int warm_record_decode(struct warm_record *ret, const void *data, size_t size, const char **ret_why)
{
	struct warm_record r;
	struct disk_header h = { .n = 0 };

	memcpy(&h, data, MIN(size, sizeof(h)));
	*ret_why = check_frame(&h, data, size);
	if (*ret_why)
		return -EBADMSG;
	warm_record_init(&r);
	r.dev = le64toh(h.dev);
	r.ino = le64toh(h.ino);
	memcpy(r.name, h.name, sizeof(r.name));
	r.size = le64toh(h.size);
	r.mtime = (struct timespec){ (time_t)le64toh(h.mtime_sec), (long)le64toh(h.mtime_nsec) };
	r.ctime = (struct timespec){ (time_t)le64toh(h.ctime_sec), (long)le64toh(h.ctime_nsec) };
	r.written = (int64_t)le64toh(h.written);
	r.room = (uint32_t)le64toh(h.n);
	if (r.room > 0) {
		r.runs = calloc(r.room, sizeof(*r.runs));
		if (!r.runs)
			return -ENOMEM;
	}
	*ret_why = decode_runs(&r, (const uint8_t *)data + sizeof(h), r.room);
	if (*ret_why) {
		warm_record_free(&r);
		return -EBADMSG;
	}
	*ret = r;
	return 0;
}

const char *warm_record_mismatch(const struct warm_record *r, const struct warm_record *now)
{
	if (r->dev != now->dev || r->ino != now->ino)
		return "it is of another file";
	if (r->size != now->size || !same_time(r->mtime, now->mtime) || !same_time(r->ctime, now->ctime))
		return "the file has changed since";
	return NULL;
}

/* --- reading it in --- */

/* The run that block `index` is in, or the first one above it; r->n: none. */
static uint32_t find_run(const struct warm_record *r, uint64_t index)
{
	uint32_t lo = 0, hi = r->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (r->runs[mid].index + r->runs[mid].blocks <= index)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The first hot page at or above `page`, and how many adjoin it inside its block. */
static bool next_hot(const struct warm_record *r, uint64_t page, uint64_t *ret_first, uint64_t *ret_n)
{
	for (uint32_t i = find_run(r, page / PGC_BLOCK_PAGES); i < r->n; i++) {
		const struct warm_run *run = &r->runs[i];

		page = MAX(page, run->index * PGC_BLOCK_PAGES);
		for (; page / PGC_BLOCK_PAGES < run->index + run->blocks; page = align_down(page, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES) {
			unsigned from = (unsigned)(page % PGC_BLOCK_PAGES);
			uint64_t pages = run->pages >> from;
			unsigned skip;

			if (!pages)
				continue;
			skip = (unsigned)__builtin_ctzll(pages);
			pages = ~(pages >> skip);
			*ret_first = page + skip;
			*ret_n = MIN(pages ? (uint64_t)__builtin_ctzll(pages) : 64, 64 - from - skip);
			return true;
		}
	}
	return false;
}

bool warm_record_next(const struct warm_record *r, uint64_t from, uint64_t max, uint64_t *ret_first, uint64_t *ret_n)
{
	uint64_t first, n, next, more, hot, gaps = 0;

	if (!next_hot(r, from, &first, &n))
		return false;
	n = hot = MIN(n, max);
	while (n < max && next_hot(r, first + n, &next, &more)) {
		uint64_t gap = next - (first + n);

		if (gap > WARM_GAP_PAGES || gaps + gap > hot || n + gap >= max)
			break;
		more = MIN(more, max - n - gap);
		gaps += gap;
		hot += more;
		n += gap + more;
	}
	*ret_first = first;
	*ret_n = n;
	return true;
}
