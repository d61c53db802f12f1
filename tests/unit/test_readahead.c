/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <math.h>

#include "daemon/readahead.h"
#include "daemon/util/util.h"
#include "model.h"

#define MAX_WINDOW 2048u           /* 8 MiB */
#define AROUND     16u             /* pages that a fault maps at once, off a stream */
#define ALONG      512u            /* and on one */

/* --- a daemon of one file and one client --- */

enum { RESIDENT = 1, MAPPED = 2, TOUCHED = 4, AHEAD = 8 };

struct sim {
	struct readahead_set ra;
	uint64_t pages;            /* of the file */
	uint64_t max;
	uint8_t *state;            /* of each page */
	bool calls;                /* read calls, all of which are seen, rather than faults */
	bool no_mapping_around;
	uint64_t around;           /* there is memory to spare for so much around a random access */
	uint64_t cache;            /* pages that may be resident, 0: all of them */
	uint64_t *fifo, head, n_resident;
	uint64_t seen, missed, read, ahead, again, largest, markers_hidden;
	uint64_t vain;             /* read ahead, but dropped untouched */
};

static struct sim *sim_new(uint64_t pages, uint64_t cache)
{
	struct sim *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	readahead_set_init(&s->ra);
	s->pages = pages;
	s->max = MAX_WINDOW;
	s->cache = cache;
	s->state = calloc(pages, 1);
	s->fifo = calloc(cache ? cache : 1, sizeof(*s->fifo));
	assert_non_null(s->state);
	assert_non_null(s->fifo);
	return s;
}

static void sim_free(struct sim *s)
{
	free(s->state);
	free(s->fifo);
	free(s);
}

static void cleanup_sim(struct sim **s) { sim_free(*s); }
#define _cleanup_sim_ CLEANUP(cleanup_sim)

static void make_resident(struct sim *s, uint64_t page, bool ahead)
{
	uint8_t *st = &s->state[page];

	if (*st & RESIDENT)
		return;
	if (s->cache) {
		uint64_t *slot = &s->fifo[s->head++ % s->cache];

		if (s->n_resident == s->cache) {
			if ((s->state[*slot] & (AHEAD | TOUCHED)) == AHEAD) {
				readahead_wasted(&s->ra, 1);
				s->vain++;
			}
			s->state[*slot] &= (uint8_t)~(RESIDENT | MAPPED | AHEAD | TOUCHED);
			s->n_resident--;
		}
		*slot = page;
		s->n_resident++;
	}
	*st |= RESIDENT | (ahead ? AHEAD : 0);
	s->read++;
	s->ahead += ahead;
}

static void read_ahead(struct sim *s, const struct readahead_plan *plan)
{
	for (uint64_t i = 0; i < plan->count; i++)
		for (uint64_t j = 0; j < plan->n; j++) {
			uint64_t page = plan->first + i * (uint64_t)plan->stride + j;

			assert_true(page < s->pages);
			if (s->state[page] & RESIDENT)
				s->again++;
			make_resident(s, page, true);
		}
	s->largest = MAX(s->largest, plan->n * plan->count);
}

static void read_around(struct sim *s, uint64_t page, const struct readahead_plan *plan)
{
	if (plan->around_to == 0)
		return;
	assert_true(plan->around_from <= page && page < plan->around_to);
	assert_true(plan->around_to <= s->pages && !plan->stream && plan->count == 0);
	for (uint64_t p = plan->around_from; p < plan->around_to; p++)
		make_resident(s, p, true);
}

/* Maps what is resident around the page, as far as the plan lets it. */
static void map_around(struct sim *s, uint64_t page, const struct readahead_plan *plan)
{
	uint64_t max = plan->stream ? ALONG : AROUND, from = page, to = page + 1;

	assert_true(plan->map_from <= page && page < plan->map_to);
	if (plan->around_to > 0) { /* what was read with it */
		to = MIN(plan->around_to, plan->map_to);
		from = MAX(plan->around_from, plan->map_from);
	} else if (!s->no_mapping_around) {
		while (to < plan->map_to && to - page < max && to < s->pages && (s->state[to] & RESIDENT))
			to++;
		while (from > plan->map_from && page - from < max && (s->state[from - 1] & RESIDENT))
			from--;
	}
	for (uint64_t p = from; p < to; p++)
		s->state[p] |= MAPPED;
	for (const struct readahead *r = s->ra.stream; r < s->ra.stream + READAHEAD_STREAMS; r++) {
		uint64_t marker = r->backward ? (1ull << 62) - r->marker - 1 : r->marker;

		if (r->used && r->marker != UINT64_MAX && r->stride == 1 && marker >= from && marker < to && marker != page)
			s->markers_hidden++;
	}
	readahead_mapped(&s->ra, from, to, plan->around_to > 0);
}

/* The client touches or reads [page, page + n). */
static void touch(struct sim *s, uint64_t page, uint64_t n)
{
	struct readahead_in in = { .page = page, .n = n, .max = s->max, .file_pages = s->pages, .around = s->around };
	struct readahead_plan plan, again;

	assert_true(page + n <= s->pages);
	if (!s->calls && (s->state[page] & MAPPED)) {
		s->state[page] |= TOUCHED;
		return;
	}
	s->seen++;
	in.missing = !(s->state[page] & RESIDENT);
	readahead_access(&s->ra, &in, &plan);
	for (uint64_t p = page; p < page + n; p++) {
		s->missed += !(s->state[p] & RESIDENT);
		make_resident(s, p, false);
		s->state[p] |= TOUCHED;
	}
	read_ahead(s, &plan);
	read_around(s, page, &plan);
	if (in.missing) { /* it waited for its page, and looks again */
		in.missing = false;
		readahead_access(&s->ra, &in, &again);
		assert_int_equal(again.count, 0);
		assert_int_equal(again.around_to, 0);
		again.around_from = plan.around_from;
		again.around_to = plan.around_to;
		plan = again;
	}
	if (!s->calls)
		map_around(s, page, &plan);
}

/* Pages that were read ahead and never touched. */
static uint64_t in_vain(const struct sim *s)
{
	uint64_t n = s->vain;

	for (uint64_t p = 0; p < s->pages; p++)
		n += (s->state[p] & (AHEAD | TOUCHED)) == AHEAD;
	return n;
}

static void scan(struct sim *s, uint64_t from, uint64_t to)
{
	for (uint64_t p = from; p < to; p++)
		touch(s, p, 1);
}

static void scan_back(struct sim *s, uint64_t from, uint64_t to)
{
	for (uint64_t p = from; p-- > to;)
		touch(s, p, 1);
}

/* --- sequential --- */

static void a_sequential_scan_misses_only_at_its_start(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);

	scan(s, 10, s->pages);
	assert_true(s->missed <= 2);
	assert_int_equal(s->read, s->pages - 10);
	assert_int_equal(s->again, 0);
	assert_int_equal(s->markers_hidden, 0);
}

static void windows_grow_to_the_largest_and_no_further(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);

	s->max = 300;
	scan(s, 10, s->pages);
	assert_int_equal(s->largest, 300);
	assert_int_equal(s->read, s->pages - 10);
}

static void the_second_access_in_sequence_starts_four_pages(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(1000, 0);

	touch(s, 10, 1);
	assert_int_equal(s->ahead, 0);
	touch(s, 11, 1);
	assert_int_equal(s->ahead, 4);
}

static void the_first_page_of_a_file_starts_32_pages(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(1000, 0);

	touch(s, 0, 1);
	assert_int_equal(s->ahead, 32);
}

static void the_first_page_starts_nothing_for_who_was_elsewhere(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(1000, 0);

	touch(s, 500, 1);
	touch(s, 0, 1);
	assert_int_equal(s->ahead, 0);
}

static void a_second_pass_starts_at_once(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(20000, 5000);
	uint64_t missed;

	scan(s, 0, s->pages);
	missed = s->missed;
	scan(s, 0, s->pages);
	assert_int_equal(missed, 1);
	assert_int_equal(s->missed, 2);
	assert_int_equal(s->read, 2 * s->pages);
}

/* Half of the window and more is ahead of the reader when the next one is asked for. */
static void half_a_window_is_ahead_at_the_marker(void **state)
{
	struct readahead_set ra;
	struct readahead_plan plan;
	uint64_t end = 0, window = 0;
	unsigned windows = 0;

	readahead_set_init(&ra);
	for (uint64_t p = 10; p < 50000; p++) {
		readahead_access(&ra, &(struct readahead_in){ p, 1, p < 12, false, MAX_WINDOW, 1 << 20 }, &plan);
		if (plan.count == 0)
			continue;
		assert_int_equal(plan.first, MAX(end, p + 1));
		if (windows++ > 0)
			assert_true(end - p >= window / 2);
		end = plan.first + plan.n;
		window = plan.n;
		assert_true(plan.map_to > p && end - plan.map_to >= window / 2);
	}
	assert_true(windows > 20);
}

static void a_marker_is_not_mapped_before_it_is_touched(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(60000, 0);
	unsigned moved = 0;

	for (uint64_t p = 10; p < 40000; p++) {
		uint64_t marker = s->ra.stream[0].marker;

		if (marker > p && marker != UINT64_MAX && s->ra.stream[0].used)
			assert_false(s->state[marker] & MAPPED);
		touch(s, p, 1);
		moved += s->ra.stream[0].marker != marker;
	}
	assert_true(moved > 20);
}

static void read_calls_of_many_pages_run_ahead(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(64000, 0);

	s->calls = true;
	for (uint64_t p = 32; p + 32 <= s->pages; p += 32)
		touch(s, p, 32);
	assert_true(s->missed <= 2 * 32);
	assert_int_equal(s->read, s->pages - 32);
	assert_int_equal(s->largest, MAX_WINDOW);
}

static void read_calls_across_page_boundaries_run_ahead(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(20000, 0);

	s->calls = true;
	for (uint64_t off = 40 * PAGE_SIZE_; off + 10000 < s->pages * PAGE_SIZE_; off += 10000)
		touch(s, page_down(off), page_up(off + 10000) - page_down(off));
	assert_true(s->missed <= 10);
	assert_int_equal(s->read, s->ahead + s->missed);
	assert_int_equal(s->largest, MAX_WINDOW);
}

static void a_jump_within_the_window_starts_no_second_stream(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(60000, 0);

	s->calls = true;
	scan(s, 10, 20000);
	scan(s, 20300, 50000);
	assert_true(s->missed <= 2);
	assert_int_equal(s->again, 0);
	assert_int_equal(s->ra.stream[1].used, 0);
}

/* --- backward, strides --- */

static void a_backward_scan_misses_only_at_its_start(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);

	scan_back(s, 99000, 0);
	assert_true(s->missed <= 3);
	assert_int_equal(s->read, 99000);
	assert_int_equal(s->again, 0);
	assert_int_equal(s->largest, MAX_WINDOW);
	assert_int_equal(s->markers_hidden, 0);
}

static void backward_read_calls_run_ahead(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(64000, 0);

	s->calls = true;
	for (uint64_t p = 63000; p >= 8; p -= 8)
		touch(s, p - 8, 8);
	assert_true(s->missed <= 3 * 8);
	assert_int_equal(s->read, 63000);
	assert_int_equal(s->largest, MAX_WINDOW);
}

static void every_seventh_page_is_found(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);

	for (uint64_t p = 5; p < s->pages; p += 7)
		touch(s, p, 1);
	assert_int_equal(s->missed, 4);
	assert_int_equal(s->read, (s->pages - 5 + 6) / 7);
	assert_int_equal(s->again, 0);
	assert_int_equal(s->largest, 128);
}

static void a_negative_stride_is_found(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);
	uint64_t accesses = 0;

	for (uint64_t p = 99990; p >= 50; p -= 50, accesses++)
		touch(s, p, 1);
	assert_int_equal(s->missed, 4);
	assert_int_equal(s->again, 0);
	assert_true(s->read - accesses <= 1); /* the page past the last one that was touched */
}

static void strides_of_several_pages_are_found_either_way(void **state)
{
	_cleanup_sim_ struct sim *up = sim_new(100000, 0);
	_cleanup_sim_ struct sim *down = sim_new(100000, 0);

	up->calls = down->calls = true;
	for (uint64_t p = 3; p + 5 <= up->pages; p += 16)
		touch(up, p, 5);
	for (uint64_t p = 99000; p >= 40; p -= 40)
		touch(down, p, 16);
	assert_int_equal(up->missed, 4 * 5);
	assert_int_equal(down->missed, 4 * 16);
	assert_int_equal(up->read, 6250 * 5);
	assert_int_equal(up->again + down->again, 0);
	assert_int_equal(up->largest, 128 * 5);
	assert_int_equal(down->largest, 128 * 16);
}

/* A fault is of one page, so that the length of a run has to be learnt. */
static void faults_teach_how_long_the_runs_of_a_stride_are(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);
	uint64_t missed;

	for (uint64_t p = 0; p < 50000; p += 100)
		scan(s, p + 20, p + 23);
	missed = s->missed;
	for (uint64_t p = 50000; p < 100000; p += 100)
		scan(s, p + 20, p + 23);
	assert_true(missed < 40);
	assert_int_equal(s->missed, missed);
	assert_true(s->read < 3000 + 40);
}

static void interleaved_strides_are_told_apart(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);

	for (uint64_t i = 0; i < 1000; i++)
		for (uint64_t j = 0; j < 8; j++)
			touch(s, 3 + j * 12000 + j * j * 37 + i * (5 + j % 3), 1);
	assert_true(s->missed <= 8 * 4);
	assert_true(s->read <= 8000 + 8 * (128 + 64));
}

/* Their first accesses have a stride themselves, which does not last. */
static void interleaved_strides_at_equal_distances_are_found_in_the_end(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);
	uint64_t missed = 0;

	for (uint64_t i = 0; i < 1000; i++) {
		if (i == 100)
			missed = s->missed;
		for (uint64_t j = 0; j < 8; j++)
			touch(s, j * 12000 + i * (5 + j % 3), 1);
	}
	assert_true(missed < 200);
	assert_int_equal(s->missed, missed);
}

static void a_scan_from_where_a_stride_has_come_to_is_a_scan(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);
	uint64_t missed, page;

	s->calls = true;
	for (page = 50; page < 20000; page += 1000)
		touch(s, page, 1);
	missed = s->missed;
	scan(s, page, page + 900);
	assert_true(s->missed - missed < 30);
}

/* Near enough to be taken for a sequential scan at first, which would read seven times what is wanted. */
static void a_small_stride_from_the_first_page_is_no_sequential_scan(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);

	s->calls = true;
	for (uint64_t p = 0; p < s->pages; p += 7)
		touch(s, p, 1);
	assert_true(s->missed < 12);
	assert_true(s->read < 100000 / 7 + 300);
}

/* --- several readers --- */

static void eight_interleaved_streams_are_followed(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(400000, 0);
	uint64_t next[8];

	model_seed();
	for (unsigned i = 0; i < 8; i++)
		next[i] = 100 + i * 50000;
	for (unsigned i = 0; i < 160000; i++)
		touch(s, next[model_random(8)]++, 1);
	assert_true(s->missed <= 8 * 8);
	assert_true(s->again <= 16); /* a stride among the first accesses of all of them */
	assert_true(s->read <= 160000 + 8 * (MAX_WINDOW + MAX_WINDOW / 2));
	assert_int_equal(s->largest, MAX_WINDOW);
}

static void streams_of_either_direction_do_not_disturb_each_other(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);

	for (uint64_t i = 0; i < 30000; i++) {
		touch(s, 10 + i, 1);
		touch(s, 99000 - i, 1);
	}
	assert_true(s->missed <= 6);
	assert_int_equal(s->again, 0);
	assert_int_equal(s->markers_hidden, 0);
}

static void a_scan_among_random_accesses_stays_a_stream(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(1000000, 0);

	model_seed();
	for (uint64_t p = 10; p < 50000; p++) {
		touch(s, p, 1);
		if (p % 4 == 0)
			touch(s, 100000 + model_random(900000), 1);
	}
	assert_true(s->missed <= 12500 + 60);
	assert_true(s->ahead <= 50000 + 2 * MAX_WINDOW);
}

/* Two other pages in turn, which start nothing. */
static void elsewhere(struct sim *s, unsigned accesses)
{
	for (unsigned i = 0; i < accesses; i++)
		touch(s, i % 2 ? 60000 : 80000, 1);
}

static void a_stream_that_is_seldom_used_does_not_grow(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);

	s->calls = true;
	scan(s, 10, 12);
	assert_int_equal(s->largest, 4);
	for (uint64_t p = 12; p < 500; p++) {
		touch(s, p, 1);
		elsewhere(s, 60);
	}
	assert_true(s->missed < 10);
	assert_int_equal(s->largest, 4);
}

/* Two threads take turns at neighbours, and are now and then the wrong way round. */
static void accesses_out_of_order_are_one_stream(void **state)
{
	for (int calls = 0; calls < 2; calls++) {
		_cleanup_sim_ struct sim *s = sim_new(100000, 0);

		model_seed();
		s->calls = calls;
		for (uint64_t p = 10; p + 1 < s->pages; p += 2) {
			bool swap = model_random(2);

			touch(s, p + swap, 1);
			touch(s, p + !swap, 1);
		}
		assert_true(s->missed <= 12);
		assert_int_equal(s->read, s->pages - 10);
		assert_int_equal(s->largest, MAX_WINDOW);
	}
}

static void from_the_first_access_in_pairs_the_wrong_way_round(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(10000, 0);

	for (uint64_t p = 10; p + 1 < s->pages; p += 2) {
		touch(s, p + 1, 1);
		touch(s, p, 1);
	}
	assert_true(s->missed <= 8);
	assert_int_equal(s->read, s->pages - 10);
}

static void an_access_told_twice_counts_once(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(10000, 0);

	s->calls = true;
	for (int i = 0; i < 100; i++)
		touch(s, 50, 1);
	assert_int_equal(s->ahead, 0);
	assert_int_equal(s->ra.clock, 1);
	touch(s, 51, 1);
	assert_int_equal(s->ahead, 4);
	touch(s, 51, 1);
	assert_int_equal(s->ahead, 4);
}

/* --- random --- */

static double *zipf_table(uint64_t n)
{
	double *cdf = calloc(n, sizeof(*cdf)), sum = 0;

	assert_non_null(cdf);
	for (uint64_t i = 0; i < n; i++)
		cdf[i] = sum += pow((double)i + 1, -.99);
	for (uint64_t i = 0; i < n; i++)
		cdf[i] /= sum;
	return cdf;
}

static uint64_t zipf(const double *cdf, uint64_t n)
{
	double u = (double)model_random(1ull << 53) / (double)(1ull << 53);
	uint64_t low = 0, high = n - 1;

	while (low < high) {
		uint64_t mid = (low + high) / 2;

		if (cdf[mid] < u)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Which page has which rank: scattered, or with the hottest side by side. */
static uint64_t *ranking(uint64_t n, bool scattered)
{
	uint64_t *page = calloc(n, sizeof(*page));

	assert_non_null(page);
	for (uint64_t i = 0; i < n; i++)
		page[i] = i;
	for (uint64_t i = n - 1; scattered && i > 0; i--) {
		uint64_t j = model_random(i + 1), t = page[i];

		page[i] = page[j];
		page[j] = t;
	}
	return page;
}

#define ZIPF_ACCESSES 100000u

static void zipf_run(uint64_t pages, uint64_t cache, bool calls, bool scattered)
{
	_cleanup_sim_ struct sim *s = sim_new(pages, cache);
	_cleanup_free_ uint64_t *page = ranking(pages, scattered);
	_cleanup_free_ double *cdf = zipf_table(pages);
	uint64_t vain;

	s->calls = calls;
	for (unsigned i = 0; i < ZIPF_ACCESSES; i++)
		touch(s, page[zipf(cdf, pages)], 1);
	vain = in_vain(s);
	if (vain >= ZIPF_ACCESSES / 50 || (scattered && s->ahead >= ZIPF_ACCESSES / 50))
		print_message("%llu pages, cache %llu, %s, %s: %llu seen, %llu missed, %llu read ahead, %llu in vain\n",
			      (unsigned long long)pages, (unsigned long long)cache, calls ? "calls" : "faults",
			      scattered ? "scattered" : "in order", (unsigned long long)s->seen, (unsigned long long)s->missed,
			      (unsigned long long)s->ahead, (unsigned long long)vain);
	/* Where the hottest pages lie side by side, some of what is read ahead is what comes next. */
	assert_true(vain < ZIPF_ACCESSES / 50);
	if (scattered)
		assert_true(s->ahead < ZIPF_ACCESSES / 50);
}

static void zipf_random_faults_read_almost_nothing_ahead(void **state)
{
	model_seed();
	for (uint64_t pages = 1000; pages <= 1000000; pages *= 10)
		for (int scattered = 0; scattered < 2; scattered++) {
			zipf_run(pages, pages / 10, false, scattered);
			zipf_run(pages, 0, false, scattered);
		}
}

static void zipf_random_calls_read_almost_nothing_ahead(void **state)
{
	model_seed();
	for (uint64_t pages = 1000; pages <= 1000000; pages *= 10)
		for (int scattered = 0; scattered < 2; scattered++) {
			zipf_run(pages, pages / 10, true, scattered);
			zipf_run(pages, 0, true, scattered);
		}
}

static void uniformly_random_accesses_read_almost_nothing_ahead(void **state)
{
	model_seed();
	for (int calls = 0; calls < 2; calls++) {
		_cleanup_sim_ struct sim *s = sim_new(5000, 500);

		s->calls = calls;
		for (unsigned i = 0; i < 100000; i++)
			touch(s, model_random(s->pages), 1);
		assert_true(s->ahead < 2000);
	}
}

/* What is left of the scan's large windows must not be set off by accident. */
static void random_accesses_after_a_scan_read_almost_nothing_ahead(void **state)
{
	model_seed();
	for (int calls = 0; calls < 2; calls++) {
		_cleanup_sim_ struct sim *s = sim_new(20000, 2500);
		uint64_t ahead;

		s->calls = calls;
		scan(s, 10, 15000);
		ahead = s->ahead;
		for (unsigned i = 0; i < 100000; i++)
			touch(s, model_random(s->pages), 1);
		assert_true(s->ahead - ahead < 2 * MAX_WINDOW);
	}
}

static void neighbours_by_accident_start_no_large_window(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);

	touch(s, 70000, 1);
	touch(s, 500, 1);
	touch(s, 70001, 1);
	assert_int_equal(s->ahead, 0);
	touch(s, 70, 1);
	touch(s, 71, 1);
	assert_int_equal(s->ahead, 4);
}

static void a_run_that_grows_by_and_by_is_no_stream(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);

	s->calls = true;
	for (uint64_t p = 10; p < 40; p++) {
		touch(s, p, 1);
		elsewhere(s, 80);
	}
	assert_int_equal(s->ahead, 0);
}

static void neighbours_on_either_side_are_no_stream(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);

	s->calls = true;
	touch(s, 500, 1);
	touch(s, 499, 1);
	touch(s, 501, 1);
	assert_int_equal(s->ahead, 0);
}

/* --- backing off --- */

/* Pairs of neighbours, none of which goes on. */
static void pairs(struct sim *s, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t p = 50000 + model_random(s->pages - 60000);

		touch(s, p, 1);
		touch(s, p + 1, 1);
	}
}

static void windows_read_in_vain_stop_readahead(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(10000000, 0);
	uint64_t ahead;

	model_seed();
	pairs(s, 200);
	ahead = s->ahead;
	assert_true(s->ra.backoff > 0);
	assert_true(ahead < 300);
	pairs(s, 1000);
	assert_true(s->ahead - ahead < 20);
}

static void a_scan_after_backing_off_recovers(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(10000000, 0);
	uint64_t missed;

	model_seed();
	pairs(s, 1000);
	for (int i = 0; i < 20; i++)
		readahead_wasted(&s->ra, 1000);
	s->largest = 0;
	missed = s->missed;
	scan(s, 10, 40000);
	assert_true(s->missed - missed <= 10);
	assert_int_equal(s->largest, MAX_WINDOW);
	assert_int_equal(s->ra.backoff, 0);
}

static void each_step_back_asks_for_one_more_access_and_halves_the_window(void **state)
{
	static const uint64_t windows[] = { 4, 2, 1, 1 };

	for (unsigned backoff = 0; backoff < ELEMENTSOF(windows); backoff++) {
		_cleanup_sim_ struct sim *s = sim_new(1000, 0);

		s->ra.backoff = backoff;
		scan(s, 50, 51 + backoff);
		assert_int_equal(s->ahead, 0);
		touch(s, 51 + backoff, 1);
		assert_int_equal(s->ahead, windows[backoff]);
	}
}

static void pages_dropped_unused_make_windows_smaller(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);
	uint64_t window;

	scan(s, 10, 20000);
	window = s->ra.stream[0].window;
	assert_int_equal(window, MAX_WINDOW);
	for (unsigned i = 0; i < window / 4 - 1; i++)
		readahead_wasted(&s->ra, 1);
	assert_int_equal(s->ra.stream[0].window, window);
	assert_int_equal(s->ra.backoff, 0);
	readahead_wasted(&s->ra, 1);
	assert_int_equal(s->ra.stream[0].window, window / 2);
	assert_int_equal(s->ra.backoff, 1);
}

/* A cache that is smaller than the windows: what is read is dropped before its time, so less must be read. */
static void windows_shrink_to_what_the_cache_holds(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(200000, 1000);

	scan(s, 10, s->pages);
	assert_true(s->read < s->pages * 3 / 2);
	assert_true(s->missed < s->pages / 100);
}

static void a_scan_that_stops_half_way_counts_as_one_window_in_vain(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(1000000, 0);
	uint64_t ahead, p = 10;

	model_seed();
	/* Up to a marker, behind which a whole window has just been read for nothing. */
	for (bool more = true; more; p++) {
		uint64_t marker = s->ra.stream[0].marker;

		touch(s, p, 1);
		more = p < 20000 || s->ra.stream[0].marker == marker;
	}
	ahead = s->ahead;
	assert_true(ahead - p <= 2 * MAX_WINDOW);
	for (unsigned i = 0; i < 3000; i++)
		touch(s, 100000 + model_random(800000), 1);
	assert_true(s->ahead - ahead < 50);
	assert_true(s->ra.backoff >= 1);
	for (unsigned i = 0; i < READAHEAD_STREAMS; i++)
		assert_true(s->ra.stream[i].used == 0 || s->ra.stream[i].start > 90000);
}

static void a_page_that_was_dropped_again_restarts_the_window(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);
	uint64_t page = 20000, window, missed;

	s->calls = true;
	scan(s, 10, page);
	window = s->ra.stream[0].window;
	for (uint64_t p = page; p < page + 4000; p++)
		s->state[p] = 0;
	missed = s->missed;
	touch(s, page, 1);
	assert_int_equal(s->missed, missed + 1);
	for (uint64_t p = page; p <= page + window / 2; p++)
		assert_true(s->state[p] & RESIDENT);
	assert_false(s->state[page + window / 2 + 1] & RESIDENT);
	scan(s, page + 1, page + 4000);
	assert_int_equal(s->missed, missed + 1);
}

/* --- advice --- */

static void random_advice_reads_nothing_ahead(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(10000, 0);

	s->ra.advice = POSIX_FADV_RANDOM;
	scan(s, 0, s->pages);
	assert_int_equal(s->ahead, 0);
	assert_int_equal(s->missed, s->pages);
}

static void sequential_advice_starts_with_one_access_and_grows_to_twice_the_window(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);

	s->ra.advice = POSIX_FADV_SEQUENTIAL;
	touch(s, 10, 1);
	assert_int_equal(s->ahead, 64);
	scan(s, 11, s->pages);
	assert_int_equal(s->missed, 1);
	assert_int_equal(s->largest, 2 * MAX_WINDOW);
	assert_int_equal(s->again, 0);
}

static void normal_advice_after_sequential_comes_back_to_the_window(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(200000, 0);

	s->ra.advice = POSIX_FADV_SEQUENTIAL;
	scan(s, 10, 50000);
	s->ra.advice = POSIX_FADV_NORMAL;
	s->largest = 0;
	scan(s, 50000, s->pages);
	assert_int_equal(s->largest, MAX_WINDOW);
	assert_int_equal(s->missed, 1);
}

/* --- mapping, and the edges --- */

static void pages_mapped_unseen_carry_the_stream_on(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(10000, 0);

	scan(s, 100, 1000);
	assert_true(s->seen < 900 / 4);
	assert_true(s->missed <= 2);
}

/* The marker was mapped by another way, which nobody can forbid. */
static void a_hidden_marker_is_made_up_for_at_the_next_access(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(10000, 0);
	struct readahead *r = &s->ra.stream[0];
	uint64_t end;

	s->no_mapping_around = true;
	scan(s, 100, 600);
	end = r->end;
	readahead_mapped(&s->ra, 600, end, false);
	assert_int_equal(r->next, end);
	touch(s, end, 1);
	assert_true(r->end > end + 2);
	assert_true(r->marker > end);
}

static void a_stream_over_pages_that_are_here_goes_on_where_they_end(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(20000, 0);

	for (uint64_t p = 100; p < 10000; p++)
		s->state[p] = RESIDENT;
	scan(s, 100, s->pages);
	assert_int_equal(s->missed, 0);
	assert_int_equal(s->read, 10000);
}

static void no_window_reads_nothing(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(10000, 0);

	s->max = 0;
	s->ra.advice = POSIX_FADV_SEQUENTIAL;
	scan(s, 0, s->pages);
	assert_int_equal(s->ahead, 0);
}

static void a_window_of_one_page_reads_one_page_ahead(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(10000, 0);

	s->max = 1;
	scan(s, 0, s->pages);
	assert_int_equal(s->largest, 1);
	assert_int_equal(s->missed, 1);
	assert_int_equal(s->read, s->pages);
}

static void a_window_smaller_than_a_run_reads_no_part_of_it(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(10000, 0);

	s->calls = true;
	s->max = 8;
	for (uint64_t p = 0; p + 16 <= 5000; p += 50)
		touch(s, p + 1, 16);
	assert_int_equal(s->ahead, 0);
	s->max = 32;
	for (uint64_t p = 5000; p + 16 <= s->pages; p += 50)
		touch(s, p + 1, 16);
	assert_true(s->ahead > 0);
	assert_int_equal(s->largest, 32);
}

static void a_file_that_shrinks_and_grows_is_followed(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(100000, 0);
	uint64_t missed;

	s->calls = true;
	scan(s, 10, 20000);
	s->pages = 20010; /* the plan is checked against it */
	scan(s, 20000, 20010);
	s->pages = 100000;
	memset(s->state + 20010, 0, s->pages - 20010);
	missed = s->missed;
	scan(s, 20010, s->pages);
	assert_true(s->missed - missed <= 1);
}

static void a_file_that_grows_at_its_end_is_followed(void **state)
{
	_cleanup_sim_ struct sim *s = sim_new(50000, 0);

	s->pages = 1000;
	scan(s, 10, 1000);
	s->pages = 50000;
	scan(s, 1000, 50000);
	assert_true(s->missed <= 3);
	assert_int_equal(s->largest, MAX_WINDOW);
}

/* --- anything at all --- */

static uint64_t wild(void)
{
	switch (model_random(6)) {
	case 0: return model_random(8);
	case 1: return model_random(5000);
	case 2: return model_random(1ull << 40);
	case 3: return UINT64_MAX - model_random(5000);
	case 4: return (1ull << (52 + model_random(12))) - model_random(100);
	default: return model_random(UINT64_MAX);
	}
}

static void check_plan(const struct readahead_in *in, const struct readahead_plan *plan, int advice)
{
	uint64_t max = advice == POSIX_FADV_SEQUENTIAL ? in->max * 2 : in->max, first = plan->first, n = plan->n, pages;
	uint64_t end = in->n < in->file_pages - in->page ? in->page + in->n : in->file_pages;

	if (in->n == 0 || in->page >= in->file_pages) {
		assert_int_equal(plan->count, 0);
		return;
	}
	assert_true(plan->map_from <= in->page && end <= plan->map_to && plan->map_to <= in->file_pages);
	if (plan->count == 0)
		return;
	assert_int_not_equal(advice, POSIX_FADV_RANDOM);
	assert_true(n > 0);
	assert_false(__builtin_mul_overflow(n, plan->count, &pages));
	assert_true(pages <= max || max < in->max);
	for (uint64_t i = 0; i < plan->count; i++, first += (uint64_t)plan->stride) {
		assert_true(first < in->file_pages && n <= in->file_pages - first);
		assert_true(first >= end || first + n <= in->page);
	}
}

static void wild_calls_get_plans_within_bounds(void **state)
{
	struct readahead_set ra;
	struct readahead_in in = { .n = 1 };
	struct readahead_plan plan;
	uint64_t step = 1, plans = 0, arounds = 0;

	model_seed();
	readahead_set_init(&ra);
	for (unsigned i = 0; i < 1000000; i++) {
		if (model_random(20) == 0) {
			in.page = wild();
			in.n = model_random(8) ? 1 + model_random(64) : wild();
			step = model_random(2) ? in.n : model_random(2) ? (uint64_t)-in.n : model_random(300) - 150;
		} else {
			in.page += step;
		}
		if (model_random(50) == 0)
			in.max = model_random(4) ? model_random(5000) : wild();
		if (model_random(50) == 0)
			in.file_pages = model_random(2) ? UINT64_MAX : wild();
		if (model_random(200) == 0)
			ra.advice = (const int[]){ POSIX_FADV_NORMAL, POSIX_FADV_RANDOM, POSIX_FADV_SEQUENTIAL }[model_random(3)];
		in.around = model_random(3) ? 1ull << model_random(10) : 0;
		in.wide = model_random(3) ? 1ull << model_random(14) : 0;
		in.missing = model_random(3) == 0;
		in.write = model_random(3) == 0;
		readahead_access(&ra, &in, &plan);
		plans += plan.count > 0;
		check_plan(&in, &plan, ra.advice);
		if (plan.around_to > 0) {
			arounds++;
			assert_true(plan.around_from <= in.page && in.page < plan.around_to && plan.around_to <= in.file_pages);
			assert_true(plan.around_to - plan.around_from <= MIN(in.around, in.max) && ra.advice == POSIX_FADV_NORMAL);
		}
		if (plan.wide_to > 0) {
			assert_true(plan.around_to > 0 && plan.wide_from <= plan.around_from && plan.around_to <= plan.wide_to && plan.wide_to <= in.file_pages);
			assert_true(plan.wide_to - plan.wide_from <= MIN(in.wide, in.max));
		}
		if (model_random(4) == 0)
			readahead_mapped(&ra, model_random(4) ? in.page : wild(), model_random(4) ? in.page + model_random(100) : wild(), model_random(2));
		if (model_random(100) == 0)
			readahead_wasted(&ra, wild());
		assert_true(ra.backoff < 10);
	}
	assert_true(plans > 10000 && arounds > 0);
}

/* --- around --- */

#define UNIT 32u

static struct sim *sim_around(uint64_t pages)
{
	struct sim *s = sim_new(pages, 0);

	s->around = UNIT;
	return s;
}

static void random_accesses_read_what_lies_around_them(void **state)
{
	_cleanup_sim_ struct sim *s = sim_around(64000);

	/* Squares modulo a prime: 1009 units, none of them at a distance that others have. */
	for (uint64_t i = 1; i < 500; i++)
		touch(s, i * i % 1009 * UNIT + i % UNIT, 1);
	/* By units, so that what two of them read adjoins and is never the same; a few have looked like a stream. */
	assert_in_range(s->missed, 400, 499);
	assert_in_range(s->read, 499 * UNIT, 560 * UNIT);
}

static struct readahead_plan plan_with(struct sim *s, uint64_t page, bool missing, uint64_t around, uint64_t wide)
{
	struct readahead_plan plan;

	readahead_access(&s->ra, &(struct readahead_in){ .page = page, .n = 1, .missing = missing, .max = s->max, .file_pages = s->pages, .around = around, .wide = wide }, &plan);
	return plan;
}

static struct readahead_plan plan_of(struct sim *s, uint64_t page, bool missing, uint64_t around) { return plan_with(s, page, missing, around, 0); }

static void what_lies_around_ends_with_the_file(void **state)
{
	_cleanup_sim_ struct sim *s = sim_around(10 * UNIT + 5);
	struct readahead_plan plan = plan_of(s, 10 * UNIT + 2, true, UNIT);

	assert_int_equal(plan.around_from, 10 * UNIT);
	assert_int_equal(plan.around_to, s->pages);
}

static void nothing_is_read_around_what_is_here_or_where_there_is_no_memory_to_spare(void **state)
{
	_cleanup_sim_ struct sim *s = sim_around(64000);

	assert_int_equal(plan_of(s, 5000, false, UNIT).around_to, 0);
	assert_int_equal(plan_of(s, 9000, true, 0).around_to, 0);
	s->max = UNIT / 2;
	assert_int_equal(plan_of(s, 17000, true, UNIT).around_to, 0);
	s->max = UNIT;
	assert_int_equal(plan_of(s, 30000, true, UNIT).around_to, align_down(30000, UNIT) + UNIT);
}

static struct readahead_plan wide_plan_of(struct sim *s, uint64_t page, uint64_t wide) { return plan_with(s, page, true, UNIT, wide); }

static void more_is_read_after_what_lies_around_where_most_of_the_file_is_wanted(void **state)
{
	_cleanup_sim_ struct sim *s = sim_around(64000);
	struct readahead_plan plan = wide_plan_of(s, 4 * UNIT + 3, 4 * UNIT);

	assert_int_equal(plan.around_from, 4 * UNIT);
	assert_int_equal(plan.around_to, 5 * UNIT);
	assert_int_equal(plan.wide_from, 4 * UNIT);
	assert_int_equal(plan.wide_to, 8 * UNIT);
	assert_int_equal(wide_plan_of(s, 20000, UNIT).wide_to, 0);
	s->max = 4 * UNIT;
	assert_int_equal(wide_plan_of(s, 30000, 8 * UNIT).wide_to, 0);
	s->max = 8 * UNIT;
	assert_int_equal(wide_plan_of(s, 63990, 8 * UNIT).wide_to, s->pages);
	readahead_wasted(&s->ra, 1); /* what was read so has been dropped unasked for */
	assert_int_equal(wide_plan_of(s, 50000, 8 * UNIT).wide_to, 0);
}

static void nothing_is_read_around_after_advice_that_accesses_are_random(void **state)
{
	_cleanup_sim_ struct sim *s = sim_around(64000);

	s->ra.advice = POSIX_FADV_RANDOM;
	for (uint64_t i = 1; i < 1000; i++)
		touch(s, i * 7919 * UNIT % s->pages, 1);
	assert_int_equal(s->read, 999);
}

static void nothing_is_read_around_a_stream(void **state)
{
	_cleanup_sim_ struct sim *s = sim_around(100000);

	scan(s, 1000, s->pages);
	/* The first accesses did not look like one. */
	assert_true(s->read <= s->pages - 1000 + UNIT);
	assert_in_range(s->missed, 1, 4);
}

static void a_stride_shorter_than_what_is_read_around_an_access_is_found(void **state)
{
	for (uint64_t stride = 3; stride <= 2 * UNIT; stride++) {
		_cleanup_sim_ struct sim *s = sim_around(100000), *back = sim_around(100000);
		uint64_t n = 1000;

		for (uint64_t i = 0; i < n; i++) {
			touch(s, 1000 + i * stride, 1);
			touch(back, 90000 - i * stride, 1);
		}
		assert_in_range(s->missed, 1, 30);
		assert_in_range(s->read, n, n + 400);
		assert_in_range(back->missed, 1, 30);
		assert_in_range(back->read, n, n + 400);
	}
}

static void a_stream_begins_with_as_much_as_is_read_around_an_access(void **state)
{
	_cleanup_sim_ struct sim *s = sim_around(64000);

	(void)plan_of(s, 1000, true, UNIT);
	assert_int_equal(plan_of(s, 1001, true, UNIT).n, UNIT);
}

static void what_was_read_around_in_vain_makes_it_less_for_a_while(void **state)
{
	_cleanup_sim_ struct sim *s = sim_around(1 << 20);
	uint64_t page = 3;

	readahead_wasted(&s->ra, 1);
	assert_int_equal(plan_of(s, page, true, UNIT).around_to, UNIT / 2);
	for (unsigned i = 0; i < 20; i++)
		readahead_wasted(&s->ra, 1);
	assert_int_equal(plan_of(s, 7919, true, UNIT).around_to, 0);
	for (unsigned i = 0; i < 10000; i++)
		(void)plan_of(s, page = (page + 7919 * 7) % s->pages, true, UNIT);
	page = 777777;
	assert_int_equal(plan_of(s, page, true, UNIT).around_to, align_down(page, UNIT) + UNIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sequential_scan_misses_only_at_its_start),
		cmocka_unit_test(windows_grow_to_the_largest_and_no_further),
		cmocka_unit_test(the_second_access_in_sequence_starts_four_pages),
		cmocka_unit_test(the_first_page_of_a_file_starts_32_pages),
		cmocka_unit_test(the_first_page_starts_nothing_for_who_was_elsewhere),
		cmocka_unit_test(a_second_pass_starts_at_once),
		cmocka_unit_test(half_a_window_is_ahead_at_the_marker),
		cmocka_unit_test(a_marker_is_not_mapped_before_it_is_touched),
		cmocka_unit_test(read_calls_of_many_pages_run_ahead),
		cmocka_unit_test(read_calls_across_page_boundaries_run_ahead),
		cmocka_unit_test(a_jump_within_the_window_starts_no_second_stream),
		cmocka_unit_test(a_backward_scan_misses_only_at_its_start),
		cmocka_unit_test(backward_read_calls_run_ahead),
		cmocka_unit_test(every_seventh_page_is_found),
		cmocka_unit_test(a_negative_stride_is_found),
		cmocka_unit_test(strides_of_several_pages_are_found_either_way),
		cmocka_unit_test(faults_teach_how_long_the_runs_of_a_stride_are),
		cmocka_unit_test(interleaved_strides_are_told_apart),
		cmocka_unit_test(interleaved_strides_at_equal_distances_are_found_in_the_end),
		cmocka_unit_test(a_scan_from_where_a_stride_has_come_to_is_a_scan),
		cmocka_unit_test(a_small_stride_from_the_first_page_is_no_sequential_scan),
		cmocka_unit_test(eight_interleaved_streams_are_followed),
		cmocka_unit_test(streams_of_either_direction_do_not_disturb_each_other),
		cmocka_unit_test(a_scan_among_random_accesses_stays_a_stream),
		cmocka_unit_test(a_stream_that_is_seldom_used_does_not_grow),
		cmocka_unit_test(accesses_out_of_order_are_one_stream),
		cmocka_unit_test(from_the_first_access_in_pairs_the_wrong_way_round),
		cmocka_unit_test(an_access_told_twice_counts_once),
		cmocka_unit_test(zipf_random_faults_read_almost_nothing_ahead),
		cmocka_unit_test(zipf_random_calls_read_almost_nothing_ahead),
		cmocka_unit_test(uniformly_random_accesses_read_almost_nothing_ahead),
		cmocka_unit_test(random_accesses_after_a_scan_read_almost_nothing_ahead),
		cmocka_unit_test(neighbours_by_accident_start_no_large_window),
		cmocka_unit_test(a_run_that_grows_by_and_by_is_no_stream),
		cmocka_unit_test(neighbours_on_either_side_are_no_stream),
		cmocka_unit_test(windows_read_in_vain_stop_readahead),
		cmocka_unit_test(a_scan_after_backing_off_recovers),
		cmocka_unit_test(each_step_back_asks_for_one_more_access_and_halves_the_window),
		cmocka_unit_test(pages_dropped_unused_make_windows_smaller),
		cmocka_unit_test(windows_shrink_to_what_the_cache_holds),
		cmocka_unit_test(a_scan_that_stops_half_way_counts_as_one_window_in_vain),
		cmocka_unit_test(a_page_that_was_dropped_again_restarts_the_window),
		cmocka_unit_test(random_advice_reads_nothing_ahead),
		cmocka_unit_test(sequential_advice_starts_with_one_access_and_grows_to_twice_the_window),
		cmocka_unit_test(normal_advice_after_sequential_comes_back_to_the_window),
		cmocka_unit_test(pages_mapped_unseen_carry_the_stream_on),
		cmocka_unit_test(a_hidden_marker_is_made_up_for_at_the_next_access),
		cmocka_unit_test(a_stream_over_pages_that_are_here_goes_on_where_they_end),
		cmocka_unit_test(no_window_reads_nothing),
		cmocka_unit_test(a_window_of_one_page_reads_one_page_ahead),
		cmocka_unit_test(a_window_smaller_than_a_run_reads_no_part_of_it),
		cmocka_unit_test(a_file_that_shrinks_and_grows_is_followed),
		cmocka_unit_test(a_file_that_grows_at_its_end_is_followed),
		cmocka_unit_test(wild_calls_get_plans_within_bounds),
		cmocka_unit_test(random_accesses_read_what_lies_around_them),
		cmocka_unit_test(what_lies_around_ends_with_the_file),
		cmocka_unit_test(nothing_is_read_around_what_is_here_or_where_there_is_no_memory_to_spare),
		cmocka_unit_test(more_is_read_after_what_lies_around_where_most_of_the_file_is_wanted),
		cmocka_unit_test(nothing_is_read_around_after_advice_that_accesses_are_random),
		cmocka_unit_test(nothing_is_read_around_a_stream),
		cmocka_unit_test(a_stride_shorter_than_what_is_read_around_an_access_is_found),
		cmocka_unit_test(a_stream_begins_with_as_much_as_is_read_around_an_access),
		cmocka_unit_test(what_was_read_around_in_vain_makes_it_less_for_a_while),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
