/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readahead: finds streams in the accesses that are seen and says what to read next.
 *
 * An access first looks for a stream that it carries on. Failing that it makes one of the latest runs longer, and a run
 * that has grown often enough becomes a stream; or it begins a run, and if the runs begin at a constant distance they are
 * a stream with a stride, which is believed one access later. Random accesses come to neither, and read nothing ahead, but, where the caller
 * has memory to spare, what lies around them; how many accesses are enough grows with the backoff.
 *
 * Invariants: a stream that is proved has everything in [start, end) asked for. Its marker lies in [next, end), or was
 * touched, or there is none, and no plan lets it be mapped. What is planned begins behind the access and behind `end`, so
 * nothing is planned twice unless it went missing. Positions are at most MIRROR plus two windows' strides: no overflow.
 *
 * Runs on the worker that owns the set. No memory, no clock, no calls.
 */
#include "daemon/readahead.h"

#include <fcntl.h>
#include <string.h>

#include "daemon/util/util.h"

#define NO_MARKER      UINT64_MAX
#define MIRROR         (1ull << 62)  /* a backward stream's positions count down from here */
#define PAGES_MAX      (1ull << 60)  /* pages past this are never read ahead */
#define WINDOW_MAX     (1ull << 30)
#define STRIDE_MAX     (1ull << 18)  /* pages: 1 GiB */

#define FIRST          4u            /* runs of the first window */
#define FIRST_WANTED   64u           /* at most, where single accesses want more than that */
#define FIRST_FILE     32u           /* pages, when a file is read from its beginning */
#define STRIDED_RUNS   128u          /* of a strided window at most: each is a read of its own */
#define RUN_MAX        16u           /* pages of a run, if they are not seen in one access */
#define RUN_IDLE       64u           /* accesses elsewhere between two that count as growth of one run */
#define STRIDE_PROOF   4u            /* accesses at a constant distance */
#define SLACK          16u           /* pages by which accesses may be out of order */
#define SKIPS_MAX      8u            /* accesses in turn that leave something out, until a stream is found to be none */
#define BACKOFF_MAX    6u
#define OFTEN          48u           /* accesses elsewhere between two of a stream that grows */
#define SELDOM         384u          /* the same for one that shrinks */
#define YOUNG_IDLE     128u          /* accesses elsewhere until a stream that never reached a marker is given up */
#define IDLE           2048u         /* the same for any other */
#define AROUND_HALVED_MAX 8u
#define AROUND_WALK    2             /* neighbours in turn that may be a stride, of which little is seen as long as much is mapped around */
#define AROUND_ALONE   12u           /* accesses that are enough to find it */
#define AROUND_AGAIN   512u          /* accesses until twice as much is read around one, after that was halved */

/* From bad to good. SAME: the last access once more, as a fault that has waited for its page is told. */
enum fit { FIT_NONE, FIT_LATE, FIT_NEAR, FIT_EXACT, FIT_SAME };

/* An access within the file, with what goes for it. */
struct access {
	uint64_t page, n;
	uint64_t file;             /* pages */
	uint64_t max;              /* pages of a window */
	bool missing, write;
	uint64_t around, wide;
};

void readahead_set_init(struct readahead_set *ra)
{
	memset(ra, 0, sizeof(*ra));
}

static bool sequential(const struct readahead_set *ra) { return ra->advice == POSIX_FADV_SEQUENTIAL; }
static bool strided(const struct readahead *s) { return s->stride > 1; }

/* Where [page, page + n) begins as a stream sees it; its own inverse. */
static uint64_t position(bool backward, uint64_t page, uint64_t n)
{
	return backward ? MIRROR - page - n : page;
}

/* --- backing off --- */

static void back_off(struct readahead_set *ra)
{
	ra->backoff = MIN(ra->backoff + 1, BACKOFF_MAX);
}

/* The last window was read in vain, as far as can be seen: with the reader at `position`, its marker was not reached. */
static bool unread(const struct readahead *s, uint64_t position)
{
	if (!s->proved)
		return false;
	if (s->marker != NO_MARKER)
		return position <= s->marker;
	return s->end > position && (s->end - position) / s->stride > s->window / 2;
}

static void stream_drop(struct readahead_set *ra, struct readahead *s)
{
	if (s->used && unread(s, s->next))
		back_off(ra);
	memset(s, 0, sizeof(*s));
}

static bool is_idle(const struct readahead_set *ra, const struct readahead *s)
{
	return ra->clock - s->used > (s->markers ? IDLE : YOUNG_IDLE);
}

/* Streams that nobody carries on: they would catch random accesses by and by, and what was read in vain must be known soon. */
static void drop_idle(struct readahead_set *ra)
{
	for (struct readahead *s = ra->stream; s < ra->stream + READAHEAD_STREAMS; s++)
		if (s->used && is_idle(ra, s))
			stream_drop(ra, s);
}

void readahead_wasted(struct readahead_set *ra, uint64_t pages)
{
	uint64_t largest = 2 * FIRST, step;

	for (const struct readahead *s = ra->stream; s < ra->stream + READAHEAD_STREAMS; s++)
		if (s->used && s->proved)
			largest = MAX(largest, s->window * s->n);
	/* In proportion to the windows, so that a large one dropped bit by bit is not punished for each bit. */
	step = MAX(largest / 4, FIRST);
	if (pages > 0) {
		ra->around_halved = MIN(ra->around_halved + 1, AROUND_HALVED_MAX);
		ra->around_tried = ra->clock;
	}
	ra->wasted += MIN(pages, WINDOW_MAX);
	if (ra->wasted < step)
		return;
	ra->wasted = 0;
	ra->ceiling = MAX(largest / 2, FIRST);
	back_off(ra);
	for (struct readahead *s = ra->stream; s < ra->stream + READAHEAD_STREAMS; s++)
		if (s->used && s->proved)
			s->window = MIN(s->window, MAX(ra->ceiling / s->n, 1));
}

/* --- windows --- */

/* Runs that a window may have. */
static uint64_t window_limit(const struct readahead_set *ra, const struct readahead *s, const struct access *a)
{
	uint64_t pages = sequential(ra) ? a->max * 2 : a->max;

	return strided(s) ? MIN(pages / s->n, STRIDED_RUNS) : pages;
}

static uint64_t first_window(const struct readahead_set *ra, const struct access *a)
{
	uint64_t window = MAX(MAX(FIRST, a->around), MIN(a->n, FIRST_WANTED));

	if (sequential(ra))
		window = MAX(2 * FIRST_FILE, window);
	return MAX(window >> ra->backoff, 1);
}

/* The window that follows one that was used. `gap`: accesses since the stream's last one. */
static uint64_t next_window(struct readahead_set *ra, const struct readahead *s, uint64_t gap)
{
	uint64_t window = MAX(MIN(s->window, WINDOW_MAX), 1), ceiling = ra->ceiling / s->n;

	/* What others do in between says how soon more will be needed, and whether it is a stream at all. */
	if (gap > SELDOM && window > FIRST)
		return window / 2;
	if (gap > OFTEN || s->skips > 1)
		return window;
	if (ra->ceiling == 0 || window * 2 <= ceiling)
		return window * 2;
	/* That much was too much not long ago: slowly from here. */
	window += MAX(window / 8, FIRST);
	if (window > ceiling)
		ra->ceiling = window * s->n;
	return window;
}

/* Reads `window` runs, from where the last window ends or the reader will be; half of them lie behind the marker. */
static void stream_read(const struct readahead_set *ra, struct readahead *s, const struct access *a, uint64_t window,
			struct readahead_plan *plan)
{
	uint64_t from = MAX(s->end, s->next), limit = s->backward ? MIRROR : a->file, count = 0;

	window = MIN(window, window_limit(ra, s, a));
	if (window == 0) {
		s->marker = NO_MARKER;
		return;
	}
	if (from + s->n <= limit)
		count = MIN(window, (limit - s->n - from) / s->stride + 1);
	s->start = position(s->backward, a->page, a->n);
	s->window = window;
	s->end = from + count * s->stride;
	/* A window that the end of the file cuts short has no successor. If the file grows, the reader goes past `end`. */
	s->marker = count < window ? NO_MARKER : s->end - (window + 1) / 2 * s->stride;
	if (count == 0)
		return;
	if (strided(s)) {
		plan->n = s->n;
		plan->count = count;
		plan->first = position(s->backward, from, s->n);
		plan->stride = s->backward ? -(int64_t)s->stride : (int64_t)s->stride;
	} else {
		plan->n = count;
		plan->count = 1;
		plan->first = position(s->backward, from, count);
		plan->stride = s->backward ? -(int64_t)count : (int64_t)count;
	}
}

/* The reader is at `at` and is expected at `next`. */
static void stream_advance(struct readahead_set *ra, struct readahead *s, const struct access *a, uint64_t at, uint64_t next,
			   struct readahead_plan *plan)
{
	uint64_t reach = strided(s) ? at + 1 : next, window = 0;
	/* What was read ahead is not here: it was dropped, or there was no room for it. Too much, then, and again from here. */
	bool again = a->missing && at >= s->start && at < s->end;

	if (again) {
		if (unread(s, at))
			back_off(ra);
		s->end = 0;
		window = MAX(s->window / 2, 1);
		ra->ceiling = window * s->n;
	} else if (s->marker != NO_MARKER && reach > s->marker) {
		s->markers++;
		ra->backoff -= ra->backoff > 0;
		ra->wasted /= 2;
		window = next_window(ra, s, ra->clock - s->used);
	} else if (next > s->end) {
		window = next_window(ra, s, ra->clock - s->used);
	}
	s->next = next;
	s->used = ra->clock;
	if (window > 0)
		stream_read(ra, s, a, window, plan);
}

/* --- carrying a stream on --- */

/* How an access fits into the gaps of a strided stream: the start of its run there, and how far behind that it is. */
static enum fit fit_strided(const struct readahead *s, uint64_t x, uint64_t n, uint64_t *ret_at)
{
	uint64_t runs, at, off;

	if (x >= s->next) {
		runs = (x - s->next) / s->stride;
		at = s->next + runs * s->stride;
		if (runs > (s->proved ? 2 : 0))
			return FIT_NONE;
	} else {
		runs = (s->next - x + s->stride - 1) / s->stride;
		if (runs > (s->proved ? 4 : 1) || runs * s->stride > s->next)
			return FIT_NONE;
		at = s->next - runs * s->stride;
	}
	off = x - at;
	if (off > s->n || off + n > s->stride)
		return FIT_NONE;
	/* A run that is longer than was known. No sequential scan that begins there: that is none of it. */
	if (off > 0 && (at + s->stride != s->next || off + n > MAX(s->n, RUN_MAX)))
		return FIT_NONE;
	*ret_at = at;
	if (at < s->next)
		return at + s->stride == s->next && off == 0 ? FIT_SAME : FIT_LATE;
	return at == s->next && off == 0 ? FIT_EXACT : s->proved ? FIT_NEAR : FIT_NONE;
}

static enum fit stream_fit(const struct readahead *s, const struct access *a, uint64_t *ret_at)
{
	uint64_t x = position(s->backward, a->page, a->n), ahead;

	if (strided(s))
		return fit_strided(s, x, a->n, ret_at);
	*ret_at = x;
	if (x == s->next)
		return FIT_EXACT;
	if (x + a->n == s->next)
		return FIT_SAME;
	/* A small window allows for little: random accesses near a stream must not carry it on. */
	ahead = MIN(s->window / 4, MAX(SLACK, MIN(2 * a->n, 16 * SLACK)));
	if (x + a->n > s->next)
		return x <= s->next + ahead ? FIT_NEAR : FIT_NONE;
	/* Another thread, or the same access once more; but if it is missing, it is no part of what this stream has read. */
	return !a->missing && x + a->n + SLACK > s->next ? FIT_LATE : FIT_NONE;
}

static void stream_carry(struct readahead_set *ra, struct readahead *s, const struct access *a, enum fit fit, uint64_t at,
			 struct readahead_plan *plan)
{
	uint64_t x = position(s->backward, a->page, a->n);

	if (strided(s) && x - at == s->n && x - at + a->n < s->stride)
		s->n += a->n; /* a run is longer than was known */
	if (fit == FIT_LATE || fit == FIT_SAME) {
		if (x + a->n < s->next)
			s->skips = 0; /* what was skipped has come after all */
		return;
	}
	s->skips = x <= s->next ? 0 : s->skips + 1;
	s->hits++;
	if (s->proved) {
		stream_advance(ra, s, a, at, strided(s) ? at + s->stride : x + a->n, plan);
		return;
	}
	s->used = ra->clock;
	s->next = at + s->stride;
	if (s->hits >= STRIDE_PROOF + ra->backoff) {
		s->proved = true;
		stream_read(ra, s, a, MAX(FIRST >> ra->backoff, 1), plan);
	}
}

/* The stream that fits best, the latest used of those. NULL: none. */
static struct readahead *find_stream(struct readahead_set *ra, const struct access *a, enum fit *ret_fit, uint64_t *ret_at)
{
	struct readahead *best = NULL;

	*ret_fit = FIT_NONE;
	for (struct readahead *s = ra->stream; s < ra->stream + READAHEAD_STREAMS; s++) {
		uint64_t at = 0;
		enum fit fit = s->used ? stream_fit(s, a, &at) : FIT_NONE;

		if (fit == FIT_NONE || fit < *ret_fit || (fit == *ret_fit && best && s->used < best->used))
			continue;
		best = s;
		*ret_fit = fit;
		*ret_at = at;
	}
	return best;
}

/* --- new streams --- */

/* A free one, or else the longest unused of those that are not proved or idle, or else of all. */
static struct readahead *take_stream(struct readahead_set *ra)
{
	struct readahead *best = NULL;
	bool best_busy = false;

	for (struct readahead *s = ra->stream; s < ra->stream + READAHEAD_STREAMS; s++) {
		bool busy = s->used && s->proved && ra->clock - s->used <= YOUNG_IDLE;

		if (best && (busy > best_busy || (busy == best_busy && s->used >= best->used)))
			continue;
		best = s;
		best_busy = busy;
	}
	stream_drop(ra, best);
	return best;
}

static struct readahead *stream_begin(struct readahead_set *ra, const struct access *a, bool backward, uint64_t window,
				      struct readahead_plan *plan)
{
	uint64_t x = position(backward, a->page, a->n);
	struct readahead *s;

	/* Within what a stream has read: it is the reader of that, which has jumped. */
	for (s = ra->stream; s < ra->stream + READAHEAD_STREAMS; s++)
		if (s->used && s->proved && !strided(s) && s->backward == backward && x >= s->start && x < s->end) {
			stream_advance(ra, s, a, x, x + a->n, plan);
			return s;
		}
	s = take_stream(ra);
	*s = (struct readahead){
		.next = x + a->n, .marker = NO_MARKER, .stride = 1, .n = 1, .backward = backward, .proved = true, .used = ra->clock,
	};
	stream_read(ra, s, a, window, plan);
	return s;
}

/*
 * The runs that began k and 2k runs ago, for k streams in turn: if this one goes on at the same distance, that is a
 * stride. The smallest is the likeliest: streams that lie at equal distances are no stride themselves.
 */
static void look_for_stride(struct readahead_set *ra, const struct access *a)
{
	uint64_t stride = STRIDE_MAX + 1;
	bool backward = false;
	struct readahead *s;

	for (unsigned k = 1; k <= READAHEAD_RUNS / 2; k++) {
		const struct readahead_run *r1 = &ra->run[(ra->run_head - k) % READAHEAD_RUNS];
		const struct readahead_run *r2 = &ra->run[(ra->run_head - 2 * k) % READAHEAD_RUNS];
		uint64_t distance = a->page < r1->at ? r1->at - a->page : a->page - r1->at;

		if (!r1->used || !r2->used || r2->at - r1->at != r1->at - a->page || distance <= a->n || distance >= stride)
			continue;
		stride = distance;
		backward = a->page < r1->at;
	}
	if (stride > STRIDE_MAX)
		return;
	s = take_stream(ra);
	*s = (struct readahead){
		.next = position(backward, a->page, a->n) + stride, .marker = NO_MARKER, .stride = stride, .n = a->n,
		.backward = backward, .hits = 3, .used = ra->clock,
	};
}

static void run_begin(struct readahead_set *ra, const struct access *a)
{
	look_for_stride(ra, a);
	ra->run[ra->run_head % READAHEAD_RUNS] = (struct readahead_run){
		.at = a->page, .from = a->page, .to = a->page + a->n, .used = ra->clock, .grown = ra->clock,
	};
	ra->run_head++;
}

/* The run that the access is in or adjoins, the latest used of those. */
static struct readahead_run *find_run(struct readahead_set *ra, const struct access *a)
{
	struct readahead_run *best = NULL;

	for (struct readahead_run *r = ra->run; r < ra->run + READAHEAD_RUNS; r++) {
		/* Once it has grown, a page may be left out: two threads take turns. */
		uint64_t hole = r->forward + r->backward > 0 && r->used + 1 >= ra->clock ? 1 : 0;

		if (r->used && a->page <= r->to + hole && a->page + a->n + hole >= r->from && (!best || r->used > best->used))
			best = r;
	}
	return best;
}

/* Makes the run longer. Returns whether it is a stream now, and which way. */
static bool run_extend(const struct readahead_set *ra, struct readahead_run *r, const struct access *a, bool *ret_backward)
{
	/* Neighbours one right after the other are no accident; with other accesses in between they may be. */
	unsigned enough = (r->used + 1 == ra->clock ? 1 : 2) + ra->backoff, *grown;
	uint64_t end = a->page + a->n;

	r->used = ra->clock;
	if (a->page >= r->from && end <= r->to)
		return false;
	if (ra->clock - r->grown > RUN_IDLE)
		r->forward = r->backward = 0; /* what random accesses fill in by and by */
	r->grown = ra->clock;
	*ret_backward = a->page < r->from;
	r->from = MIN(r->from, a->page);
	r->to = MAX(r->to, end);
	grown = *ret_backward ? &r->backward : &r->forward;
	*grown += *grown < BACKOFF_MAX + 8;
	if (*ret_backward)
		enough = 2 + ra->backoff;
	/* Where pages are here anyway there is no hurry to believe it. */
	if (!a->missing)
		enough += 2;
	return *grown >= enough && *grown > (*ret_backward ? r->forward : r->backward);
}

/* The file is read from its beginning for the first time, or again by who has read it to its end. */
static bool from_the_beginning(const struct readahead_set *ra, const struct access *a)
{
	const struct readahead *last = NULL;

	if (a->page > 0 || a->write || ra->backoff)
		return false;
	for (const struct readahead *s = ra->stream; s < ra->stream + READAHEAD_STREAMS; s++)
		if (s->used && (!last || s->used > last->used))
			last = s;
	return ra->clock == 1 || (last && last->proved && !last->backward && last->markers && last->next >= a->file);
}

/* An access that carries no stream on. Returns the stream that it has made, or NULL. */
static struct readahead *access_alone(struct readahead_set *ra, const struct access *a, struct readahead_plan *plan)
{
	struct readahead_run *r = find_run(ra, a);
	bool backward = false;

	/* What was touched there once has been dropped since: this is a new pass over it. */
	if (r && a->missing && ra->clock - r->used > SLACK && a->page >= r->from && a->page + a->n <= r->to) {
		memset(r, 0, sizeof(*r));
		r = NULL;
	}
	if (r && run_extend(ra, r, a, &backward))
		return stream_begin(ra, a, backward, first_window(ra, a), plan);
	if (!r)
		run_begin(ra, a);
	if (sequential(ra))
		return stream_begin(ra, a, false, first_window(ra, a), plan);
	if (from_the_beginning(ra, a))
		return stream_begin(ra, a, false, MAX(FIRST_FILE, MIN(a->n, FIRST_WANTED)), plan);
	return NULL;
}

/* --- around --- */

/* How much may be read around a random access. */
static uint64_t around_now(struct readahead_set *ra, const struct readahead_in *in)
{
	if (ra->advice != POSIX_FADV_NORMAL || in->around > in->max)
		return 0;
	if (ra->around_halved > 0 && ra->clock - ra->around_tried > AROUND_AGAIN) {
		ra->around_halved--;
		ra->around_tried = ra->clock;
	}
	return in->around >> ra->around_halved;
}

/* Does it go on from unit to unit? */
static bool walks(struct readahead_set *ra, uint64_t unit)
{
	int64_t step = (int64_t)(unit - ra->around_last);

	if (step == 1 || step == 2)
		ra->around_walk = MAX(ra->around_walk, 0) + 1;
	else if (step == -1 || step == -2)
		ra->around_walk = MIN(ra->around_walk, 0) - 1;
	else
		ra->around_walk = 0;
	ra->around_last = unit;
	return ra->around_walk >= AROUND_WALK || ra->around_walk <= -AROUND_WALK;
}

/* Aligned, so that what accesses nearby read adjoins and nothing is read in pieces. */
static void plan_around(struct readahead_set *ra, const struct access *a, struct readahead_plan *plan)
{
	if (a->around < 2)
		return;
	if (ra->around_alone == 0 && walks(ra, a->page / a->around)) {
		ra->around_walk = 0;
		ra->around_alone = AROUND_ALONE;
	}
	if (ra->around_alone > 0) {
		ra->around_alone--;
		return;
	}
	plan->around_from = align_down(a->page, a->around);
	plan->around_to = MIN(plan->around_from + a->around, a->file);
	if (a->wide > a->around && ra->around_halved == 0) {
		plan->wide_from = align_down(a->page, a->wide);
		plan->wide_to = MIN(plan->wide_from + a->wide, a->file);
	}
}

/* --- mapping --- */

/* The pages to map end before the next marker on either side. */
static void spare_markers(const struct readahead_set *ra, const struct access *a, struct readahead_plan *plan)
{
	for (const struct readahead *s = ra->stream; s < ra->stream + READAHEAD_STREAMS; s++) {
		uint64_t page;

		if (!s->used || s->marker == NO_MARKER)
			continue;
		page = position(s->backward, s->marker, s->n);
		if (page >= a->page + a->n)
			plan->map_to = MIN(plan->map_to, page);
		else if (page + s->n <= a->page)
			plan->map_from = MAX(plan->map_from, page + s->n);
	}
}

void readahead_mapped(struct readahead_set *ra, uint64_t page, uint64_t end, bool around)
{
	end = MIN(end, PAGES_MAX);
	if (page >= end)
		return;
	for (struct readahead *s = ra->stream; s < ra->stream + READAHEAD_STREAMS; s++) {
		uint64_t from = position(s->backward, page, end - page), to = from + (end - page);

		if (!s->used || s->next < from || s->next > to)
			continue;
		if (from + 1 < s->next)
			s->skips = 0; /* nobody can see whether it was skipped */
		if (s->next < to)
			s->next += (to - s->next + s->stride - 1) / s->stride * s->stride;
	}
	for (struct readahead_run *r = ra->run; r < ra->run + READAHEAD_RUNS && !around; r++) {
		if (!r->used || page > r->to || end < r->from)
			continue;
		r->from = MIN(r->from, page);
		r->to = MAX(r->to, end);
	}
}

/* --- the whole --- */

/* Between where a stream was expected and this access all pages were here, perhaps mapped long ago: the stream has come this far unseen. */
static void catch_up(struct readahead_set *ra, const struct access *a, uint64_t before, uint64_t after)
{
	struct readahead *best = NULL;

	for (struct readahead *s = ra->stream; s < ra->stream + READAHEAD_STREAMS; s++) {
		uint64_t x = position(s->backward, a->page, a->n), unseen = s->backward ? after : before;

		if (s->used && s->proved && !strided(s) && s->next < x && x - s->next <= unseen && (!best || s->used > best->used))
			best = s;
	}
	if (!best)
		return;
	best->next = position(best->backward, a->page, a->n);
	best->skips = 0;
}

void readahead_access(struct readahead_set *ra, const struct readahead_in *in, struct readahead_plan *ret)
{
	struct access a = {
		.page = in->page, .n = in->n, .file = MIN(in->file_pages, PAGES_MAX), .max = MIN(in->max, WINDOW_MAX),
		.missing = in->missing, .write = in->write, .wide = in->wide <= in->max ? in->wide : 0,
	};
	struct readahead *s;
	enum fit fit;
	uint64_t at;

	*ret = (struct readahead_plan){ .map_from = a.page, .map_to = a.page };
	if (a.n == 0 || a.page >= in->file_pages)
		return;
	a.n = MIN(a.n, in->file_pages - a.page);
	*ret = (struct readahead_plan){ .map_from = 0, .map_to = in->file_pages };
	if (a.page >= a.file || a.n > a.file - a.page || a.max == 0 || ra->advice == POSIX_FADV_RANDOM)
		return;
	if (!a.missing && a.page == ra->last_page && a.n == ra->last_n) {
		ret->stream = ra->last_stream;
		spare_markers(ra, &a, ret);
		return;
	}
	ra->clock++;
	a.around = around_now(ra, in);
	drop_idle(ra);
	catch_up(ra, &a, in->before, in->after);
	s = find_stream(ra, &a, &fit, &at);
	if (s && fit == FIT_NEAR && s->skips >= SKIPS_MAX) {
		stream_drop(ra, s);
		s = NULL;
	}
	if (s)
		stream_carry(ra, s, &a, fit, at, ret);
	else
		s = access_alone(ra, &a, ret);
	ret->stream = s && s->proved;
	if (!ret->stream && a.missing && a.n == 1)
		plan_around(ra, &a, ret);
	ra->last_page = a.page;
	ra->last_n = a.n;
	ra->last_stream = ret->stream;
	spare_markers(ra, &a, ret);
}
