/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The range map, the sets on it, the host mapper and the block tree, against arrays with one element a page. First byte: which of them; then operations, a few bytes each.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/block_tree.h"
#include "daemon/dirty_set.h"
#include "daemon/file_range_set.h"
#include "daemon/frame_refs.h"
#include "daemon/host_mapper.h"
#include "daemon/util/range_map.h"
#include "daemon/util/util.h"
#include "tests/fuzz/fuzz.h"

#define PAGES 64u

static struct range take_range(struct input *in, uint64_t unit)
{
	uint64_t start = take_below(in, PAGES), n = take_below(in, PAGES + 1 - (unsigned)start);

	return (struct range){ start * unit, (start + n) * unit };
}

/* Ascending, not empty, not overlapping, and no neighbours that would merge by `same`. */
static void check_shape(const struct range_map *m, bool (*same)(const struct range_seg *a, const struct range_seg *b))
{
	for (size_t i = 0; i < m->n; i++) {
		REQUIRE(m->seg[i].r.start < m->seg[i].r.end);
		if (i == 0)
			continue;
		REQUIRE(m->seg[i - 1].r.end <= m->seg[i].r.start);
		if (m->seg[i - 1].r.end == m->seg[i].r.start)
			REQUIRE(!same(&m->seg[i - 1], &m->seg[i]));
	}
}

/* --- range_map itself: `a` is equal where it merges, `b` goes with the key --- */

static bool merge(struct range r1, struct range_value v1, struct range r2, struct range_value v2, struct range_value *ret)
{
	if (v1.a != v2.a || v1.b + (r1.end - r1.start) != v2.b)
		return false;
	*ret = v1;
	return true;
}

static void split(struct range r, struct range_value v, uint64_t at, struct range_value *low, struct range_value *high)
{
	*low = v;
	*high = (struct range_value){ v.a, v.b + (at - r.start) };
}

static const struct range_map_functions functions = { merge, split };

static bool merges(const struct range_seg *a, const struct range_seg *b)
{
	struct range_value v;

	return merge(a->r, a->v, b->r, b->v, &v);
}

struct walked { uint8_t seen[PAGES]; uint64_t next; };

static int walk_segment(void *arg, struct range r, struct range_value v)
{
	struct walked *w = arg;

	REQUIRE(r.start == w->next && r.end > r.start && v.b == r.start);
	for (uint64_t i = r.start; i < r.end; i++)
		w->seen[i] = (uint8_t)v.a;
	w->next = r.end;
	return 0;
}

static int walk_gap(void *arg, struct range r)
{
	struct walked *w = arg;

	REQUIRE(r.start == w->next && r.end > r.start);
	w->next = r.end;
	return 0;
}

static void range_map_operations(struct input *in)
{
	uint8_t model[PAGES] = { 0 };
	struct range_map m;

	range_map_init(&m, &functions);
	while (in->n) {
		unsigned what = take_below(in, 6);
		struct range r = take_range(in, 1);
		uint8_t a = (uint8_t)(1 + take_below(in, 3));
		bool any = false, empty = r.start == r.end;
		struct walked w = { .next = r.start };
		int e;

		for (uint64_t i = r.start; i < r.end; i++)
			any |= model[i] != 0;
		switch (what) {
		case 0:
			e = range_map_insert(&m, r, (struct range_value){ a, r.start });
			REQUIRE(e == (empty ? -EINVAL : any ? -EEXIST : 0));
			if (e == 0)
				memset(model + r.start, a, r.end - r.start);
			break;
		case 1:
			REQUIRE(range_map_remove(&m, r) == 0);
			memset(model + r.start, 0, r.end - r.start);
			break;
		case 2: /* as they stand: `b` is the same in each gap, so only one whose start it fits can be told from the others */
			REQUIRE(range_map_remove(&m, r) == 0);
			REQUIRE(range_map_fill_gaps(&m, r, (struct range_value){ a, r.start }) == 0);
			memset(model + r.start, a, r.end - r.start);
			break;
		case 3:
			REQUIRE(range_map_split_at(&m, r.start) == 0 && range_map_split_at(&m, r.end) == 0);
			for (struct range_seg *s = range_map_lower(&m, r.start); s && s->r.start < r.end; s = range_map_next(&m, s))
				s->v.a = a;
			for (uint64_t i = r.start; i < r.end; i++)
				model[i] = model[i] ? a : 0;
			range_map_merge_range(&m, r);
			break;
		case 4:
			REQUIRE(range_map_walk(&m, r, walk_segment, walk_gap, &w) == 0 && w.next == r.end);
			REQUIRE(memcmp(w.seen + r.start, model + r.start, r.end - r.start) == 0);
			break;
		case 5:
			REQUIRE(range_map_reserve(&m, r.start) == 0 && m.allocated >= m.n + r.start);
			break;
		}
		check_shape(&m, merges);
		for (uint64_t i = 0; i < PAGES; i++) {
			const struct range_seg *s = range_map_find(&m, i), *lower = range_map_lower(&m, i);

			REQUIRE(s ? s->v.a == model[i] && s->v.b == s->r.start && lower == s : model[i] == 0);
			REQUIRE(!lower || lower->r.end > i);
		}
	}
	range_map_free(&m);
}

/* --- file_range_set --- */

struct backing { uint64_t off, attr; bool there; };

static bool contiguous(const struct range_seg *a, const struct range_seg *b)
{
	return a->v.b == b->v.b && a->v.a + (a->r.end - a->r.start) == b->v.a;
}

struct filler { struct backing *model; struct input *in; struct range optional; };

static int fill(void *arg, struct range gap, uint64_t *ret_off, uint64_t *ret_attr, uint64_t *ret_done)
{
	struct filler *f = arg;
	uint64_t pages = (gap.end - gap.start) / PAGE_SIZE_, n;
	uint8_t how = take_byte(f->in);

	REQUIRE(gap.start < gap.end && is_aligned(gap.start | gap.end, PAGE_SIZE_));
	REQUIRE(gap.start >= f->optional.start && gap.end <= f->optional.end);
	n = how & 128 ? 0 : 1 + how % pages;
	*ret_off = (uint64_t)(how & 15) * PAGE_SIZE_;
	*ret_attr = how & 1;
	*ret_done = n * PAGE_SIZE_;
	for (uint64_t i = 0; i < n; i++) {
		struct backing *b = &f->model[gap.start / PAGE_SIZE_ + i];

		REQUIRE(!b->there);
		*b = (struct backing){ *ret_off + i * PAGE_SIZE_, *ret_attr, true };
	}
	return how & 64 ? -ENOSPC : 0;
}

static void fill_some(struct file_range_set *s, struct backing *model, struct input *in, struct range r)
{
	uint64_t before = take_below(in, 8) * PAGE_SIZE_, after = take_below(in, 8) * PAGE_SIZE_;
	struct range optional = { r.start - MIN(before, r.start), MIN(r.end + after, PAGES * PAGE_SIZE_) };
	bool missing = false;
	int e = file_range_set_fill(s, r, optional, fill, &(struct filler){ model, in, optional });

	if (r.start == r.end) {
		REQUIRE(e == -EINVAL);
		return;
	}
	for (uint64_t i = r.start / PAGE_SIZE_; i < r.end / PAGE_SIZE_; i++)
		missing |= !model[i].there;
	REQUIRE(missing ? e == -ENOSPC || e == -EIO : e == 0);
}

static void file_range_set_operations(struct input *in)
{
	struct backing model[2 * PAGES] = { { 0 } }, old[2 * PAGES];
	struct file_range_set s;

	file_range_set_init(&s);
	while (in->n) {
		unsigned what = take_below(in, 6);
		struct range r = take_range(in, PAGE_SIZE_), tail;
		uint64_t first = r.start / PAGE_SIZE_, n = (r.end - r.start) / PAGE_SIZE_, to, attr, end;
		bool any = false;
		int e;

		for (uint64_t i = first; i < first + n; i++)
			any |= model[i].there;
		switch (what) {
		case 0:
			to = take_below(in, 128) * PAGE_SIZE_;
			attr = take_below(in, 2);
			e = file_range_set_insert(&s, r, to, attr);
			REQUIRE(e == (n == 0 ? -EINVAL : any ? -EEXIST : 0));
			for (uint64_t i = 0; i < n && e == 0; i++)
				model[first + i] = (struct backing){ to + i * PAGE_SIZE_, attr, true };
			break;
		case 1:
			REQUIRE(file_range_set_remove(&s, r) == 0);
			memset(&model[first], 0, n * sizeof(*model));
			break;
		case 2:
		case 3:
			to = take_below(in, PAGES);
			e = what == 2 ? file_range_set_move(&s, r.start, n * PAGE_SIZE_, to * PAGE_SIZE_) :
					file_range_set_copy(&s, r.start, n * PAGE_SIZE_, to * PAGE_SIZE_);
			REQUIRE(e == (n == 0 ? -EINVAL : 0));
			memcpy(old, model, sizeof(old));
			if (what == 2)
				memset(&model[first], 0, n * sizeof(*model));
			memcpy(&model[to], &old[first], n * sizeof(*model));
			/* What was moved past the end of the model is cut. */
			REQUIRE(file_range_set_remove(&s, (struct range){ PAGES * PAGE_SIZE_, 2 * PAGES * PAGE_SIZE_ }) == 0);
			memset(&model[PAGES], 0, PAGES * sizeof(*model));
			break;
		case 4:
			fill_some(&s, model, in, r);
			break;
		case 5:
			end = r.start + take_byte(in);
			first = page_up(end);
			file_range_set_truncate(&s, end, &tail);
			for (uint64_t i = first; i < PAGES; i++)
				model[i].there = false;
			if (end % PAGE_SIZE_ && model[end / PAGE_SIZE_].there)
				REQUIRE(tail.start == model[end / PAGE_SIZE_].off + end % PAGE_SIZE_ && tail.end == align_up(tail.start, PAGE_SIZE_));
			else
				REQUIRE(tail.start >= tail.end);
			break;
		}
		check_shape(&s.map, contiguous);
		for (uint64_t i = 0; i < PAGES; i++) {
			struct range seg;
			uint64_t off;
			bool there = file_range_set_find(&s, i * PAGE_SIZE_ + 5, &seg, &off, &attr);

			REQUIRE(there == model[i].there);
			if (there)
				REQUIRE(off + (i * PAGE_SIZE_ - seg.start) == model[i].off && attr == model[i].attr);
		}
	}
	file_range_set_free(&s);
}

/* --- dirty_set --- */

static bool same_keep(const struct range_seg *a, const struct range_seg *b) { return a->v.a == b->v.a; }

static int walk_dirty(void *arg, struct range r, bool keep)
{
	for (uint64_t i = r.start; i < r.end; i++)
		((uint8_t *)arg)[i] = keep ? 2 : 1;
	return 0;
}

static void dirty_set_operations(struct input *in)
{
	uint8_t model[PAGES] = { 0 }; /* 0 clean, 1 dirty, 2 kept */
	struct dirty_set d;

	dirty_set_init(&d);
	while (in->n) {
		unsigned what = take_below(in, 5);
		struct range r = take_range(in, 1);
		uint8_t seen[PAGES] = { 0 };
		bool any = false, kept = false;

		if (what < 2)
			REQUIRE(dirty_set_mark_dirty(&d, r, what) == (r.start == r.end ? -EINVAL : 0));
		else if (what == 2)
			REQUIRE(dirty_set_mark_clean(&d, r) == 0);
		else if (what == 3)
			REQUIRE(dirty_set_allow_clean(&d, r) == 0);
		else
			REQUIRE(dirty_set_forget(&d, r) == 0);
		for (uint64_t i = r.start; i < r.end; i++) {
			uint8_t was = model[i];

			model[i] = what < 2 ? MAX(was, (uint8_t)(1 + what)) : what == 2 ? (was == 2 ? 2 : 0) : what == 3 ? (was ? 1 : 0) : 0;
			any |= model[i] != 0;
			kept |= model[i] == 2;
		}
		check_shape(&d.map, same_keep);
		REQUIRE(dirty_set_any(&d, r) == any && dirty_set_any_keep(&d, r) == kept);
		REQUIRE(dirty_set_walk(&d, (struct range){ 0, PAGES }, walk_dirty, seen) == 0);
		REQUIRE(memcmp(seen, model, sizeof(seen)) == 0);
		for (uint64_t i = 0; i < PAGES; i++)
			REQUIRE(dirty_set_dirty_at(&d, i) == (model[i] > 0) && dirty_set_keep_at(&d, i) == (model[i] == 2));
	}
	dirty_set_free(&d);
}

/* --- frame_refs --- */

static int64_t charged[4];

static void charge(void *arg, uint64_t cgroup, uint64_t bytes) { charged[cgroup] += (int64_t)bytes; }
static void uncharge(void *arg, uint64_t cgroup, uint64_t bytes) { charged[cgroup] -= (int64_t)bytes; }
static const struct frame_refs_functions charging = { charge, uncharge };

static bool same_refs(const struct range_seg *a, const struct range_seg *b) { return a->v.a == b->v.a && a->v.b == b->v.b; }

static void frame_refs_operations(struct input *in)
{
	struct { uint32_t refs, cgroup; } model[PAGES] = { { 0 } };
	struct frame_refs f;

	memset(charged, 0, sizeof(charged));
	frame_refs_init(&f, &charging, NULL);
	while (in->n) {
		bool inc = take_byte(in) & 1, hole = false;
		struct range r = take_range(in, PAGE_SIZE_);
		uint32_t cgroup = take_below(in, 4), most = 0;
		int64_t want[4] = { 0 };
		int e = inc ? frame_refs_inc(&f, r, cgroup) : frame_refs_dec(&f, r);

		for (uint64_t i = page_down(r.start); i < page_down(r.end); i++)
			hole |= model[i].refs == 0;
		REQUIRE(e == (r.start == r.end || (!inc && hole) ? -EINVAL : 0));
		for (uint64_t i = page_down(r.start); i < page_down(r.end) && e == 0; i++) {
			if (inc && model[i].refs == 0)
				model[i].cgroup = cgroup;
			model[i].refs += inc ? 1u : -1u;
		}
		check_shape(&f.map, same_refs);
		for (uint64_t i = 0; i < PAGES; i++) {
			uint64_t got = 0;

			REQUIRE(frame_refs_at(&f, i * PAGE_SIZE_, &got) == model[i].refs);
			if (model[i].refs) {
				REQUIRE(got == model[i].cgroup);
				want[got] += (int64_t)PAGE_SIZE_;
			}
			if (i >= page_down(r.start) && i < page_down(r.end))
				most = MAX(most, model[i].refs);
		}
		REQUIRE(frame_refs_max(&f, r) == most);
		REQUIRE(memcmp(want, charged, sizeof(want)) == 0);
	}
	frame_refs_free(&f);
	for (int i = 0; i < 4; i++)
		REQUIRE(charged[i] == 0);
}

/* --- host_mapper: 64 units of 64 pages, eight chunks --- */

#define UNIT  (64 * PAGE_SIZE_)
#define CHUNK (HOST_CHUNK_SIZE / UNIT) /* units */

/* Each unit begins with its number. */
static int numbered_memory(void)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	REQUIRE(fd >= 0 && ftruncate(fd, PAGES * UNIT) == 0);
	for (uint64_t i = 0; i < PAGES; i++)
		REQUIRE(pwrite(fd, &i, sizeof(i), (off_t)(i * UNIT)) == sizeof(i));
	return fd;
}

static void check_pieces(struct range r, const struct iovec *iov, int n)
{
	uint64_t at = r.start;

	for (int i = 0; i < n; i++) {
		for (size_t k = 0; k < iov[i].iov_len; k += UNIT)
			REQUIRE(*(uint64_t *)((char *)iov[i].iov_base + k) == (at + k) / UNIT);
		at += iov[i].iov_len;
	}
	REQUIRE(at == r.end);
}

static void host_mapper_operations(struct input *in)
{
	static int fds[2];
	uint32_t model[PAGES] = { 0 };
	struct host_mapper m;
	unsigned which = 0;

	if (fds[0] == 0)
		for (unsigned i = 0; i < 2; i++)
			fds[i] = numbered_memory();
	host_mapper_init(&m, fds[0]);
	while (in->n) {
		unsigned what = take_below(in, 5);
		struct range r = take_range(in, UNIT);
		bool empty = r.start == r.end, gap = false;
		struct iovec iov[PAGES / CHUNK];
		int n;

		for (uint64_t i = r.start / UNIT; i < r.end / UNIT; i++)
			gap |= model[i] == 0;
		if (what == 0) {
			REQUIRE(host_mapper_inc_ref(&m, r) == (empty ? -EINVAL : 0));
			for (uint64_t i = r.start / UNIT; i < r.end / UNIT; i++)
				model[i]++;
		} else if (what == 1) {
			REQUIRE(host_mapper_dec_ref(&m, r) == (empty || gap ? -EINVAL : 0));
			for (uint64_t i = r.start / UNIT; i < r.end / UNIT && !gap; i++)
				model[i]--;
		} else if (what == 2) {
			n = host_mapper_map(&m, r, take_byte(in) & 1, iov, ELEMENTSOF(iov));
			if (empty || gap) {
				REQUIRE(n == -EINVAL);
			} else {
				REQUIRE(n > 0);
				check_pieces(r, iov, n);
			}
		} else if (what == 3) {
			which = !which;
			REQUIRE(host_mapper_regenerate(&m, fds[which]) == 0);
		} else {
			host_mapper_unmap_all(&m);
		}
		/* No chunk is mapped that nobody holds. */
		for (size_t i = 0; i < m.n; i++) {
			bool held = false;

			REQUIRE(i == 0 || m.chunk[i - 1].index < m.chunk[i].index);
			for (uint64_t k = 0; k < CHUNK; k++)
				held |= model[m.chunk[i].index * CHUNK + k] > 0;
			REQUIRE(held);
		}
	}
	host_mapper_free(&m);
}

/* --- block_tree: 64 indexes, in four heights --- */

static uint64_t index_of(unsigned v) { return (1ull + v % 16) << (6 * (v / 16)); }

static void block_tree_operations(struct input *in)
{
	struct pgc_block_entry e[PAGES] = { { 0 } };
	struct block b[PAGES] = { { 0 } };
	bool there[PAGES] = { false }, dirty[PAGES] = { false };
	struct block_tree t = { 0 };
	uint64_t count = 0;

	while (in->n) {
		unsigned what = take_below(in, 5), v = take_below(in, PAGES);

		e[v].index = index_of(v);
		b[v].e = &e[v];
		if (what == 0 && !there[v]) {
			REQUIRE(block_tree_insert(&t, &b[v]) == 0);
			there[v] = true;
			count++;
		} else if (what == 1 && there[v]) {
			if (dirty[v])
				block_tree_untag_dirty(&t, e[v].index);
			block_tree_remove(&t, &b[v]);
			there[v] = dirty[v] = false;
			count--;
		} else if (what == 2 && there[v]) {
			block_tree_tag_dirty(&t, e[v].index);
			dirty[v] = true;
		} else if (what == 3 && there[v]) {
			block_tree_untag_dirty(&t, e[v].index);
			dirty[v] = false;
		}
		REQUIRE(t.count == count);
		REQUIRE(block_tree_find(&t, index_of(v)) == (there[v] ? &b[v] : NULL));
		for (unsigned only = 0; only < 2; only++) {
			uint64_t from = index_of(v) + (what == 4);
			unsigned k = v + (what == 4);

			while (k < PAGES && !(only ? dirty[k] : there[k]))
				k++;
			REQUIRE(block_tree_next(&t, from, only) == (k < PAGES ? &b[k] : NULL));
		}
	}
	block_tree_free(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const operations[])(struct input *in) = {
		range_map_operations, file_range_set_operations, dirty_set_operations, frame_refs_operations, host_mapper_operations, block_tree_operations,
	};
	struct input in = { data, size };

	operations[take_below(&in, ELEMENTSOF(operations))](&in);
	return 0;
}
