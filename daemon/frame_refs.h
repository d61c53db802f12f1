/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FrameRefSet: reference count and memory cgroup of ranges of one file. Two segments merge if both are
 * equal. The reference that makes a range go from 0 to 1 fixes its cgroup, which is charged; the one
 * that makes it go back to 0 uncharges that same cgroup; references between charge nobody. The charge
 * functions may not call back into the same set. Not thread-safe.
 */
#pragma once

#include "daemon/util/range_map.h"

struct frame_refs_functions {
	void (*charge)(void *arg, uint64_t cgroup, uint64_t bytes);
	void (*uncharge)(void *arg, uint64_t cgroup, uint64_t bytes);
};

struct frame_refs {
	struct range_map map;      /* bytes -> a: references (never 0), b: cgroup id */
	const struct frame_refs_functions *fn;
	void *arg;
};

/* `fn` may be NULL: references are counted, nobody is charged. */
void frame_refs_init(struct frame_refs *f, const struct frame_refs_functions *fn, void *arg);
/* Uncharges whatever is still referenced. */
void frame_refs_free(struct frame_refs *f);
/* -EINVAL: empty or not page-aligned; -EOVERFLOW: a count would overflow u32; -ENOMEM. Nothing was changed then. */
int frame_refs_inc(struct frame_refs *f, struct range r, uint64_t cgroup);
/* -EINVAL: likewise, or a part has no reference; -ENOMEM. Nothing was changed then. */
int frame_refs_dec(struct frame_refs *f, struct range r);
/* References at one offset; its cgroup in *ret_cgroup when there are any and it is not NULL. */
uint32_t frame_refs_at(const struct frame_refs *f, uint64_t off, uint64_t *ret_cgroup);
/* The most references that any part of `r` has. */
uint32_t frame_refs_max(const struct frame_refs *f, struct range r);
