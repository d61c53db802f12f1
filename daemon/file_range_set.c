/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FileRangeSet over the range map. Invariant: a segment's offset + length does not overflow, so that merging
 * and splitting may add without looking. Memory is found before a change begins, so a change is made whole
 * or not at all; file_range_set_fill() keeps what it has done.
 *
 * Runs on the worker that owns the set; calls the range map and the callbacks it is given.
 */
#include "daemon/file_range_set.h"

#include <assert.h>

#include "daemon/util/util.h"

static bool merge_contiguous(struct range r1, struct range_value v1, struct range r2, struct range_value v2,
			     struct range_value *ret)
{
	if (v1.a + (r1.end - r1.start) != v2.a || v1.b != v2.b)
		return false;
	*ret = v1;
	return true;
}

static void split_offset(struct range r, struct range_value v, uint64_t at, struct range_value *ret_low,
			 struct range_value *ret_high)
{
	*ret_low = v;
	*ret_high = (struct range_value){ v.a + (at - r.start), v.b };
}

static const struct range_map_functions file_range_map = { .merge = merge_contiguous, .split = split_offset };

void file_range_set_init(struct file_range_set *s)
{
	range_map_init(&s->map, &file_range_map);
}

void file_range_set_free(struct file_range_set *s)
{
	if (s)
		range_map_free(&s->map);
}

int file_range_set_insert(struct file_range_set *s, struct range r, uint64_t off, uint64_t attr)
{
	uint64_t end;

	if (r.start >= r.end)
		return -EINVAL;
	if (__builtin_add_overflow(off, r.end - r.start, &end))
		return -EOVERFLOW;
	return range_map_insert(&s->map, r, (struct range_value){ off, attr });
}

int file_range_set_remove(struct file_range_set *s, struct range r)
{
	return range_map_remove(&s->map, r);
}

bool file_range_set_find(const struct file_range_set *s, uint64_t key, struct range *ret_seg, uint64_t *ret_off,
			 uint64_t *ret_attr)
{
	const struct range_seg *seg = range_map_find(&s->map, key);

	if (!seg)
		return false;
	if (ret_seg)
		*ret_seg = seg->r;
	if (ret_off)
		*ret_off = seg->v.a;
	if (ret_attr)
		*ret_attr = seg->v.b;
	return true;
}

struct collect {
	struct range_seg *seg;
	size_t n;
};

static int collect_segment(void *arg, struct range r, struct range_value v)
{
	struct collect *c = arg;

	c->seg[c->n++] = (struct range_seg){ r, v };
	return 0;
}

static int rekey(struct file_range_set *s, uint64_t from, uint64_t len, uint64_t to, bool stays)
{
	_cleanup_free_ struct range_seg *seg = NULL;
	struct range src = { .start = from }, dst = { .start = to };
	struct collect c = {};
	size_t n = 0;
	int err;

	if (!len)
		return -EINVAL;
	if (__builtin_add_overflow(from, len, &src.end) || __builtin_add_overflow(to, len, &dst.end))
		return -EOVERFLOW;
	if (from == to)
		return 0;
	for (struct range_seg *i = range_map_lower(&s->map, from); i && i->r.start < src.end;
	     i = range_map_next(&s->map, i))
		n++;
	seg = reallocarray(NULL, n + 1, sizeof(*seg));
	if (!seg)
		return -ENOMEM;
	/* The segments, and a hole made in the source and one in the destination. */
	err = range_map_reserve(&s->map, n + 2);
	if (err)
		return err;

	c.seg = seg;
	range_map_walk(&s->map, src, collect_segment, NULL, &c);
	if (!stays)
		range_map_remove(&s->map, src);
	range_map_remove(&s->map, dst);
	for (size_t i = 0; i < c.n; i++) {
		struct range r = { seg[i].r.start - from + to, seg[i].r.end - from + to };

		err = range_map_insert(&s->map, r, seg[i].v);
		assert(!err);      /* the room is there and the destination is empty */
	}
	return err;
}

int file_range_set_move(struct file_range_set *s, uint64_t from, uint64_t len, uint64_t to)
{
	return rekey(s, from, len, to, false);
}

int file_range_set_copy(struct file_range_set *s, uint64_t from, uint64_t len, uint64_t to)
{
	return rekey(s, from, len, to, true);
}

struct walk {
	int (*segment)(void *arg, struct range r, uint64_t off, uint64_t attr);
	void *arg;
};

static int walk_segment(void *arg, struct range r, struct range_value v)
{
	struct walk *w = arg;

	return w->segment(w->arg, r, v.a, v.b);
}

int file_range_set_walk(const struct file_range_set *s, struct range r,
			int (*segment)(void *arg, struct range r, uint64_t off, uint64_t attr), void *arg)
{
	struct walk w = { segment, arg };

	return range_map_walk(&s->map, r, walk_segment, NULL, &w);
}

/* The gap that holds `at`, no further than `within`. */
static struct range gap_around(const struct file_range_set *s, uint64_t at, struct range within)
{
	const struct range_seg *above = range_map_lower(&s->map, at);
	size_t below = above ? (size_t)(above - s->map.seg) : s->map.n;
	struct range gap = within;

	if (above)
		gap.end = MIN(gap.end, above->r.start);
	if (below > 0)
		gap.start = MAX(gap.start, s->map.seg[below - 1].r.end);
	return gap;
}

/* Fills one gap as far as it goes. Returns an error whatever part of the gap it is in; *ret_filled is where it stopped. */
static int fill_gap(struct file_range_set *s, struct range gap, file_range_fill fill, void *arg, uint64_t *ret_filled)
{
	int err = 0;

	*ret_filled = gap.start;
	while (gap.start < gap.end && !err) {
		uint64_t off = 0, attr = 0, done = 0;
		int inserted;

		/* Before the callback: what it has filled is never lost for want of memory. */
		err = range_map_reserve(&s->map, 1);
		if (err)
			return err;
		err = fill(arg, gap, &off, &attr, &done);
		done = align_down(MIN(done, gap.end - gap.start), PAGE_SIZE_);
		if (!done)
			return err ? err : -EIO;
		inserted = file_range_set_insert(s, (struct range){ gap.start, gap.start + done }, off, attr);
		if (inserted)
			return inserted;
		gap.start += done;
		*ret_filled = gap.start;
	}
	return err;
}

int file_range_set_fill(struct file_range_set *s, struct range required, struct range optional, file_range_fill fill,
			void *arg)
{
	if (required.start >= required.end || optional.start > required.start || optional.end < required.end ||
	    !is_aligned(required.start | required.end | optional.start | optional.end, PAGE_SIZE_))
		return -EINVAL;

	for (uint64_t at = required.start; at < required.end;) {
		const struct range_seg *seg = range_map_find(&s->map, at);
		uint64_t filled;
		struct range gap;
		int err;

		if (seg) {
			at = seg->r.end;
			continue;
		}
		gap = gap_around(s, at, optional);
		err = fill_gap(s, gap, fill, arg, &filled);
		/* An error below the required range is not its own: tried again without what lies below. */
		if (err && filled < at && gap.start < at)
			err = fill_gap(s, (struct range){ at, gap.end }, fill, arg, &filled);
		/* What is missing beyond the required range is for another time. */
		if (err && filled < MIN(gap.end, required.end))
			return err;
		at = gap.end;
	}
	return 0;
}

void file_range_set_truncate(struct file_range_set *s, uint64_t end, struct range *ret_tail)
{
	uint64_t pages_end;
	struct range seg;
	uint64_t off;

	if (ret_tail)
		*ret_tail = (struct range){ 0, 0 };
	if (end > UINT64_MAX - (PAGE_SIZE_ - 1))
		return;            /* in the last page of all, which no aligned range holds */
	pages_end = align_up(end, PAGE_SIZE_);
	/* Nothing lies above, so this makes no segment more and cannot fail. */
	range_map_remove(&s->map, (struct range){ pages_end, UINT64_MAX });
	if (ret_tail && end < pages_end && file_range_set_find(s, end, &seg, &off, NULL))
		*ret_tail = (struct range){ off + (end - seg.start), off + (MIN(seg.end, pages_end) - seg.start) };
}
