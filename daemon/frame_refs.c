/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FrameRefSet over the range map. Invariants: no segment has 0 references, and the bytes charged to a cgroup
 * are those of the segments that carry its id. A change is checked and its memory found before it begins, so
 * it is made whole or not at all.
 *
 * Runs on the file's worker; calls the range map and the charge functions.
 */
#include "daemon/frame_refs.h"

#include "daemon/util/util.h"

static bool values_equal(struct range r1, struct range_value v1, struct range r2, struct range_value v2,
			 struct range_value *ret)
{
	if (v1.a != v2.a || v1.b != v2.b)
		return false;
	*ret = v1;
	return true;
}

static const struct range_map_functions frame_refs_map = { .merge = values_equal };

void frame_refs_init(struct frame_refs *f, const struct frame_refs_functions *fn, void *arg)
{
	range_map_init(&f->map, &frame_refs_map);
	f->fn = fn;
	f->arg = arg;
}

static void uncharge(struct frame_refs *f, uint64_t cgroup, uint64_t bytes)
{
	if (f->fn)
		f->fn->uncharge(f->arg, cgroup, bytes);
}

void frame_refs_free(struct frame_refs *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->map.n; i++)
		uncharge(f, f->map.seg[i].v.b, f->map.seg[i].r.end - f->map.seg[i].r.start);
	range_map_free(&f->map);
}

static bool range_is_pages(struct range r)
{
	return r.start < r.end && is_aligned(r.start, PAGE_SIZE_) && is_aligned(r.end, PAGE_SIZE_);
}

static int add_gap(void *arg, struct range r)
{
	*(uint64_t *)arg += r.end - r.start;
	return 0;
}

static int check_room(void *arg, struct range r, struct range_value v)
{
	return v.a >= UINT32_MAX ? -EOVERFLOW : 0;
}

int frame_refs_inc(struct frame_refs *f, struct range r, uint64_t cgroup)
{
	uint64_t fresh = 0;
	size_t inside = 0;
	struct range_seg *s;
	int err;

	if (!range_is_pages(r))
		return -EINVAL;
	err = range_map_walk(&f->map, r, check_room, add_gap, &fresh);
	if (err)
		return err;
	/* Two splits, and a gap before each segment and after the last. */
	for (s = range_map_lower(&f->map, r.start); s && s->r.start < r.end; s = range_map_next(&f->map, s))
		inside++;
	err = range_map_reserve(&f->map, inside + 3);
	if (err)
		return err;

	range_map_split_at(&f->map, r.start);
	range_map_split_at(&f->map, r.end);
	for (s = range_map_lower(&f->map, r.start); s && s->r.start < r.end; s = range_map_next(&f->map, s))
		s->v.a++;
	/* Segments inside count 2 or more by now, so what fills the gaps does not merge with them. */
	range_map_fill_gaps(&f->map, r, (struct range_value){ .a = 1, .b = cgroup });
	range_map_merge_range(&f->map, r);
	if (fresh && f->fn)
		f->fn->charge(f->arg, cgroup, fresh);
	return 0;
}

static int refuse_gap(void *arg, struct range r)
{
	return -EINVAL;
}

int frame_refs_dec(struct frame_refs *f, struct range r)
{
	struct range_seg *s;
	int err;

	if (!range_is_pages(r))
		return -EINVAL;
	err = range_map_walk(&f->map, r, NULL, refuse_gap, NULL);
	if (err)
		return err;
	err = range_map_reserve(&f->map, 2);
	if (err)
		return err;

	range_map_split_at(&f->map, r.start);
	range_map_split_at(&f->map, r.end);
	for (uint64_t at = r.start; at < r.end;) {
		s = range_map_find(&f->map, at);
		at = s->r.end;
		if (--s->v.a > 0)
			continue;
		uncharge(f, s->v.b, s->r.end - s->r.start);
		range_map_remove(&f->map, s->r);
	}
	range_map_merge_range(&f->map, r);
	return 0;
}

uint32_t frame_refs_at(const struct frame_refs *f, uint64_t off, uint64_t *ret_cgroup)
{
	const struct range_seg *s = range_map_find(&f->map, off);

	if (!s)
		return 0;
	if (ret_cgroup)
		*ret_cgroup = s->v.b;
	return (uint32_t)s->v.a;
}

static int find_most(void *arg, struct range r, struct range_value v)
{
	uint32_t *most = arg;

	*most = MAX(*most, (uint32_t)v.a);
	return 0;
}

uint32_t frame_refs_max(const struct frame_refs *f, struct range r)
{
	uint32_t most = 0;

	range_map_walk(&f->map, r, find_most, NULL, &most);
	return most;
}
