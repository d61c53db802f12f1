/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The range map: an ascending array of segments, found by binary search. Segments are few (one a mapping, a
 * dirty run), so that moving the array's end costs less than the pointers of a tree would.
 *
 * Invariants: seg[i].start < seg[i].end <= seg[i + 1].start. Whatever may fail is done before anything is
 * changed. Any thread, one at a time; calls nothing but the allocator and the functions it was given.
 */
#include "daemon/util/range_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/util/util.h"

#define FIRST_ALLOCATION 8

void range_map_init(struct range_map *m, const struct range_map_functions *fn)
{
	*m = (struct range_map){ .fn = fn };
}

void range_map_free(struct range_map *m)
{
	if (!m)
		return;
	free(m->seg);
	range_map_init(m, m->fn);
}

int range_map_reserve(struct range_map *m, size_t extra)
{
	size_t want, room = m->allocated ? m->allocated : FIRST_ALLOCATION;
	struct range_seg *seg;

	if (__builtin_add_overflow(m->n, extra, &want))
		return -ENOMEM;
	if (want <= m->allocated)
		return 0;
	while (room < want)
		if (__builtin_mul_overflow(room, (size_t)2, &room))
			return -ENOMEM;
	seg = reallocarray(m->seg, room, sizeof(*seg));
	if (!seg)
		return -ENOMEM;
	m->seg = seg;
	m->allocated = room;
	return 0;
}

/* Index of the first segment that ends after `key`; n when there is none. */
static size_t index_above(const struct range_map *m, uint64_t key)
{
	size_t lo = 0, hi = m->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (m->seg[mid].r.end > key)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

struct range_seg *range_map_lower(const struct range_map *m, uint64_t key)
{
	size_t i = index_above(m, key);

	return i < m->n ? &m->seg[i] : NULL;
}

struct range_seg *range_map_find(const struct range_map *m, uint64_t key)
{
	struct range_seg *s = range_map_lower(m, key);

	return s && s->r.start <= key ? s : NULL;
}

struct range_seg *range_map_next(const struct range_map *m, const struct range_seg *s)
{
	size_t i = (size_t)(s - m->seg) + 1;

	return i < m->n ? &m->seg[i] : NULL;
}

static bool try_merge(const struct range_map *m, struct range_seg *low, const struct range_seg *high)
{
	struct range_value v;

	if (low->r.end != high->r.start || !m->fn->merge(low->r, low->v, high->r, high->v, &v))
		return false;
	low->r.end = high->r.end;
	low->v = v;
	return true;
}

static void split_value(const struct range_map *m, const struct range_seg *s, uint64_t at, struct range_value *ret_low,
			struct range_value *ret_high)
{
	struct range_value v = s->v;

	if (m->fn->split)
		m->fn->split(s->r, v, at, ret_low, ret_high);
	else
		*ret_low = *ret_high = v;
}

/* The array has room for one more. */
static void open_slot(struct range_map *m, size_t i)
{
	memmove(&m->seg[i + 1], &m->seg[i], (m->n - i) * sizeof(*m->seg));
	m->n++;
}

static void close_slots(struct range_map *m, size_t from, size_t to)
{
	if (from == to)
		return;
	memmove(&m->seg[from], &m->seg[to], (m->n - to) * sizeof(*m->seg));
	m->n -= to - from;
}

int range_map_insert(struct range_map *m, struct range r, struct range_value v)
{
	struct range_seg new = { r, v };
	bool below, above;
	size_t i;
	int err;

	if (r.start >= r.end)
		return -EINVAL;
	i = index_above(m, r.start);
	if (i < m->n && m->seg[i].r.start < r.end)
		return -EEXIST;
	err = range_map_reserve(m, 1);
	if (err)
		return err;

	below = i > 0 && try_merge(m, &m->seg[i - 1], &new);
	if (below)
		new = m->seg[i - 1];
	above = i < m->n && try_merge(m, &new, &m->seg[i]);
	if (below) {
		m->seg[i - 1] = new;
		if (above)
			close_slots(m, i, i + 1);
	} else {
		if (!above)
			open_slot(m, i);
		m->seg[i] = new;
	}
	return 0;
}

/* Splits at `at`, for which room has been made. Returns the index of the first segment at or above it. */
static size_t split_index(struct range_map *m, uint64_t at)
{
	size_t i = index_above(m, at);
	struct range_value low, high;

	if (i == m->n || m->seg[i].r.start >= at)
		return i;
	split_value(m, &m->seg[i], at, &low, &high);
	open_slot(m, i);
	m->seg[i].r.end = at;
	m->seg[i].v = low;
	m->seg[i + 1].r.start = at;
	m->seg[i + 1].v = high;
	return i + 1;
}

int range_map_split_at(struct range_map *m, uint64_t at)
{
	struct range_seg *s = range_map_lower(m, at);
	int err;

	if (!s || s->r.start >= at)
		return 0;
	err = range_map_reserve(m, 1);
	if (err)
		return err;
	split_index(m, at);
	return 0;
}

int range_map_remove(struct range_map *m, struct range r)
{
	struct range_value low, high;
	struct range_seg *s;
	size_t from, to;
	int err;

	if (r.start >= r.end)
		return 0;
	from = index_above(m, r.start);
	if (from == m->n)
		return 0;

	/* Only a hole in the middle of one segment makes segments more. */
	s = &m->seg[from];
	if (s->r.start < r.start && s->r.end > r.end) {
		err = range_map_reserve(m, 1);
		if (err)
			return err;
		from = split_index(m, r.start);
		s = &m->seg[from];
	} else if (s->r.start < r.start) {
		split_value(m, s, r.start, &low, &high);
		s->r.end = r.start;
		s->v = low;
		from++;
	}

	for (to = from; to < m->n && m->seg[to].r.end <= r.end; to++)
		;
	if (to < m->n && m->seg[to].r.start < r.end) {
		s = &m->seg[to];
		split_value(m, s, r.end, &low, &high);
		s->r.start = r.end;
		s->v = high;
	}
	close_slots(m, from, to);
	return 0;
}

void range_map_merge_range(struct range_map *m, struct range r)
{
	/* From the segment that ends where r starts to the one that starts where r ends. */
	size_t at = r.start ? index_above(m, r.start - 1) : 0, next;

	if (at >= m->n)
		return;
	for (next = at + 1; next < m->n && m->seg[next].r.start <= r.end; next++)
		if (!try_merge(m, &m->seg[at], &m->seg[next]))
			m->seg[++at] = m->seg[next];
	close_slots(m, at + 1, next);
}

int range_map_fill_gaps(struct range_map *m, struct range r, struct range_value v)
{
	size_t gaps = 0, i;
	uint64_t at = r.start;
	int err;

	for (i = index_above(m, at); at < r.end; i++) {
		uint64_t start = i < m->n ? m->seg[i].r.start : UINT64_MAX;

		gaps += start > at;
		at = i < m->n ? m->seg[i].r.end : UINT64_MAX;
	}
	err = range_map_reserve(m, gaps);
	if (err)
		return err;

	/* The gap's own end is kept, because inserting merges segments and moves others. */
	for (at = r.start; at < r.end;) {
		struct range_seg *s = range_map_lower(m, at);
		struct range gap = { at, s ? MIN(s->r.start, r.end) : r.end };

		if (s && s->r.start <= at) {
			at = s->r.end;
			continue;
		}
		range_map_insert(m, gap, v);
		at = gap.end;
	}
	return 0;
}

int range_map_walk(const struct range_map *m, struct range r,
		   int (*segment)(void *arg, struct range r, struct range_value v),
		   int (*gap)(void *arg, struct range r), void *arg)
{
	uint64_t at = r.start;
	int err = 0;

	for (size_t i = index_above(m, at); at < r.end && !err; i++) {
		struct range_seg s;
		struct range_value other;

		if (i == m->n || m->seg[i].r.start >= r.end)
			return gap ? gap(arg, (struct range){ at, r.end }) : 0;
		s = m->seg[i];
		if (s.r.start > at && gap) {
			err = gap(arg, (struct range){ at, s.r.start });
			if (err)
				return err;
		}
		if (s.r.start < at) {
			split_value(m, &s, at, &other, &s.v);
			s.r.start = at;
		}
		if (s.r.end > r.end) {
			split_value(m, &s, r.end, &s.v, &other);
			s.r.end = r.end;
		}
		at = s.r.end;
		if (segment)
			err = segment(arg, s.r, s.v);
	}
	return err;
}
