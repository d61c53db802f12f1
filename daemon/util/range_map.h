/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An ordered map from half-open ranges [start, end) of u64 to a small value, as the specification's
 * segment sets: neighbours merge when the value type says so, a split gives each part its value.
 * Keys may be file offsets, page numbers or addresses. Not thread-safe.
 *
 * Segments never overlap and are never empty. After every change but range_map_split_at() no two neighbours
 * are left unmerged that the functions would merge. A range that is empty or upside down changes nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct range { uint64_t start, end; };
struct range_value { uint64_t a, b; };      /* what the two words mean is the user's business */

struct range_map_functions {
	/* May [r1.start, r1.end) with v1 and the adjoining r2 with v2 become one? If so writes its value. */
	bool (*merge)(struct range r1, struct range_value v1, struct range r2, struct range_value v2,
		      struct range_value *ret);
	/* The values of [r.start, at) and [at, r.end). NULL: both are v. */
	void (*split)(struct range r, struct range_value v, uint64_t at, struct range_value *ret_low, struct range_value *ret_high);
};

struct range_seg { struct range r; struct range_value v; };

struct range_map {
	const struct range_map_functions *fn;
	struct range_seg *seg;      /* ascending */
	size_t n, allocated;
};

void range_map_init(struct range_map *m, const struct range_map_functions *fn);
void range_map_free(struct range_map *m);
/* The segment that holds `key`, or NULL. Valid until the next change. */
struct range_seg *range_map_find(const struct range_map *m, uint64_t key);
/* The first segment that ends after `key` (so holds it or lies above it), or NULL. */
struct range_seg *range_map_lower(const struct range_map *m, uint64_t key);
/* The segment after `s`, or NULL. */
struct range_seg *range_map_next(const struct range_map *m, const struct range_seg *s);
/* -EEXIST when it overlaps a segment, -ENOMEM, -EINVAL when empty. Merges with its neighbours. */
int range_map_insert(struct range_map *m, struct range r, struct range_value v);
/* Removes all of [r.start, r.end), splitting at the ends. -ENOMEM: nothing was changed. */
int range_map_remove(struct range_map *m, struct range r);
/* Makes room for `extra` more segments: that many inserts, splits and removals cannot run out of memory then. */
int range_map_reserve(struct range_map *m, size_t extra);
/* Maps what is not mapped in `r` to v, as it stands. -ENOMEM: nothing was changed. */
int range_map_fill_gaps(struct range_map *m, struct range r, struct range_value v);
/*
 * Splits the segment that holds `at`, if it starts below it, so that values may be changed in place; then call
 * range_map_merge_range(). -ENOMEM: nothing was changed.
 */
int range_map_split_at(struct range_map *m, uint64_t at);
/* Merges what may be merged in and around `r`, after values were changed in place. */
void range_map_merge_range(struct range_map *m, struct range r);
/*
 * Calls `segment` for each part of `r` that is mapped and `gap` for each that is not, ascending, clipped to r; the
 * value is the one that the clipped part would have after a split. Either may be NULL; a non-zero return stops and
 * is returned. They may not change the map.
 */
int range_map_walk(const struct range_map *m, struct range r,
		   int (*segment)(void *arg, struct range r, struct range_value v),
		   int (*gap)(void *arg, struct range r), void *arg);
