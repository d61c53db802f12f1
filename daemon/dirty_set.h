/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DirtySet: ranges of a file that are newer than its store. `keep`: writable outside tracking, so a write-out
 * does not make it clean. Segments merge if and only if keep is equal. Bytes or pages, as the user likes.
 * Not thread-safe.
 */
#pragma once

#include "daemon/util/range_map.h"

struct dirty_set {
	struct range_map map;      /* a: keep, 0 or 1 */
};

void dirty_set_init(struct dirty_set *d);
void dirty_set_free(struct dirty_set *d);
/* Never lowers keep. -EINVAL: empty; -ENOMEM. Nothing was changed then. */
int dirty_set_mark_dirty(struct dirty_set *d, struct range r, bool keep);
/* Written out: clean, except what is kept. -ENOMEM: nothing was changed. */
int dirty_set_mark_clean(struct dirty_set *d, struct range r);
/* Keep no more: still dirty, and clean after the next write-out. -ENOMEM: nothing was changed. */
int dirty_set_allow_clean(struct dirty_set *d, struct range r);
/* Forgets all of `r`, kept or not: the bytes are gone (truncation, hole). -ENOMEM: nothing was changed. */
int dirty_set_forget(struct dirty_set *d, struct range r);
/* Is any part of `r` dirty (kept or not)? Is any part of it kept? */
bool dirty_set_any(const struct dirty_set *d, struct range r);
bool dirty_set_any_keep(const struct dirty_set *d, struct range r);
/* Is this offset dirty; is it kept? */
bool dirty_set_dirty_at(const struct dirty_set *d, uint64_t off);
bool dirty_set_keep_at(const struct dirty_set *d, uint64_t off);
/* Calls `segment` for each dirty part of `r`, ascending, clipped; a non-zero return stops and is returned. */
int dirty_set_walk(const struct dirty_set *d, struct range r, int (*segment)(void *arg, struct range r, bool keep),
		   void *arg);
