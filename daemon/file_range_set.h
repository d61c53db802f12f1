/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FileRangeSet: maps ranges of keys (file offsets, or the addresses of one client) to offsets of something
 * else, each with an attribute word. Two segments merge if they are contiguous on both sides and their
 * attributes are equal; a split keeps the offset of every byte. Bytes throughout. Not thread-safe.
 */
#pragma once

#include "daemon/util/range_map.h"

struct file_range_set {
	struct range_map map;      /* a: offset of the range's start, b: attribute */
};

/*
 * Provides what backs the start of `gap`: *ret_done bytes of it, at *ret_off and following, with *ret_attr. May do less
 * than all, and is then called again for the rest; 0 without an error is taken for -EIO. On error *ret_done counts
 * too: that much was done before. Only whole pages count, so the page at the end of a file is padded with zeros
 * by the callback and counted whole. May not change the set.
 */
typedef int (*file_range_fill)(void *arg, struct range gap, uint64_t *ret_off, uint64_t *ret_attr, uint64_t *ret_done);

void file_range_set_init(struct file_range_set *s);
void file_range_set_free(struct file_range_set *s);
/* -EINVAL: empty; -EOVERFLOW: off + length; -EEXIST: a part is mapped already; -ENOMEM. Nothing was changed then. */
int file_range_set_insert(struct file_range_set *s, struct range r, uint64_t off, uint64_t attr);
/* -ENOMEM: nothing was changed. */
int file_range_set_remove(struct file_range_set *s, struct range r);
/* The segment that holds `key`, the offset of its start, its attribute; each ret_ may be NULL. False: not mapped. */
bool file_range_set_find(const struct file_range_set *s, uint64_t key, struct range *ret_seg, uint64_t *ret_off,
			 uint64_t *ret_attr);
/*
 * What is mapped in [from, from + len) is found at `to` from here on, gaps included, and no more at `from`; what was
 * at the destination goes. Source and destination may overlap. -EINVAL: len is 0; -EOVERFLOW; -ENOMEM. Nothing was
 * changed then.
 */
int file_range_set_move(struct file_range_set *s, uint64_t from, uint64_t len, uint64_t to);
/* The same, but the source stays mapped too: mremap with an old size of 0. What lies in the destination is replaced. */
int file_range_set_copy(struct file_range_set *s, uint64_t from, uint64_t len, uint64_t to);
/* Calls `segment` for each mapped part of `r`: ascending, clipped, with that part's offset. Non-zero stops. */
int file_range_set_walk(const struct file_range_set *s, struct range r,
			int (*segment)(void *arg, struct range r, uint64_t off, uint64_t attr), void *arg);
/*
 * Has every gap of `required` filled. A gap is offered as far as it reaches within `optional` (readahead), which
 * holds `required`. What was filled stays, whatever comes later. Returns the callback's error only when a part of
 * `required` is still missing. -EINVAL: not page-aligned, empty, or `optional` does not hold `required`; -EOVERFLOW;
 * -ENOMEM.
 */
int file_range_set_fill(struct file_range_set *s, struct range required, struct range optional, file_range_fill fill,
			void *arg);
/*
 * The file ends at byte `end`: forgets the pages past the one that holds it. *ret_tail (may be NULL) gets the offsets
 * that back the rest of that last page, which are to be zeroed; empty when there are none.
 */
void file_range_set_truncate(struct file_range_set *s, uint64_t end, struct range *ret_tail);
