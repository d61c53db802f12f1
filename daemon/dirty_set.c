/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DirtySet over the range map. What is in the map is dirty; its value says whether it is kept. Memory is found
 * before a change begins, so a change is made whole or not at all.
 *
 * Runs on the file's worker; calls the range map.
 */
#include "daemon/dirty_set.h"

#include "daemon/util/util.h"

static bool keep_equal(struct range r1, struct range_value v1, struct range r2, struct range_value v2,
		       struct range_value *ret)
{
	if (v1.a != v2.a)
		return false;
	*ret = v1;
	return true;
}

static const struct range_map_functions dirty_set_map = { .merge = keep_equal };

void dirty_set_init(struct dirty_set *d)
{
	range_map_init(&d->map, &dirty_set_map);
}

void dirty_set_free(struct dirty_set *d)
{
	if (d)
		range_map_free(&d->map);
}

/* Makes the ends of `r` ends of segments. */
static int isolate(struct dirty_set *d, struct range r)
{
	int err = range_map_reserve(&d->map, 2);

	if (err)
		return err;
	range_map_split_at(&d->map, r.start);
	range_map_split_at(&d->map, r.end);
	return 0;
}

int dirty_set_mark_dirty(struct dirty_set *d, struct range r, bool keep)
{
	int err;

	if (r.start >= r.end)
		return -EINVAL;
	if (!keep)
		return range_map_fill_gaps(&d->map, r, (struct range_value){ .a = 0 });

	/* Kept is the most that a range can be: it replaces whatever is there. One for a hole, one for the range. */
	err = range_map_reserve(&d->map, 2);
	if (err)
		return err;
	range_map_remove(&d->map, r);
	return range_map_insert(&d->map, r, (struct range_value){ .a = 1 });
}

int dirty_set_mark_clean(struct dirty_set *d, struct range r)
{
	struct range_seg *s;
	int err;

	if (r.start >= r.end)
		return 0;
	err = isolate(d, r);
	if (err)
		return err;
	for (uint64_t at = r.start; (s = range_map_lower(&d->map, at)) && s->r.start < r.end;) {
		at = s->r.end;
		if (!s->v.a)
			range_map_remove(&d->map, s->r);
	}
	range_map_merge_range(&d->map, r);
	return 0;
}

int dirty_set_allow_clean(struct dirty_set *d, struct range r)
{
	struct range_seg *s;
	int err;

	if (r.start >= r.end)
		return 0;
	err = isolate(d, r);
	if (err)
		return err;
	for (s = range_map_lower(&d->map, r.start); s && s->r.start < r.end; s = range_map_next(&d->map, s))
		s->v.a = 0;
	range_map_merge_range(&d->map, r);
	return 0;
}

int dirty_set_forget(struct dirty_set *d, struct range r)
{
	return range_map_remove(&d->map, r);
}

bool dirty_set_any(const struct dirty_set *d, struct range r)
{
	const struct range_seg *s = range_map_lower(&d->map, r.start);

	return r.start < r.end && s && s->r.start < r.end;
}

static int find_keep(void *arg, struct range r, struct range_value v)
{
	return v.a != 0;
}

bool dirty_set_any_keep(const struct dirty_set *d, struct range r)
{
	return range_map_walk(&d->map, r, find_keep, NULL, NULL) != 0;
}

bool dirty_set_dirty_at(const struct dirty_set *d, uint64_t off)
{
	return range_map_find(&d->map, off) != NULL;
}

bool dirty_set_keep_at(const struct dirty_set *d, uint64_t off)
{
	const struct range_seg *s = range_map_find(&d->map, off);

	return s && s->v.a;
}

struct walk {
	int (*segment)(void *arg, struct range r, bool keep);
	void *arg;
};

static int walk_segment(void *arg, struct range r, struct range_value v)
{
	struct walk *w = arg;

	return w->segment(w->arg, r, v.a != 0);
}

int dirty_set_walk(const struct dirty_set *d, struct range r, int (*segment)(void *arg, struct range r, bool keep),
		   void *arg)
{
	struct walk w = { segment, arg };

	return range_map_walk(&d->map, r, walk_segment, NULL, &w);
}
