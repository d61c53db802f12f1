/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address spaces: what is mapped where, kept exact by the kernel's events, and the references that follow from it.
 *
 * Events can lag behind: munmap(2) lets go of the address space's lock before its event is queued, so another thread may map, and
 * tell us of it, first. What is told later is true: the older segment goes, and the event that is still to come for
 * that range is expected and ignored (`expect`).
 * Runs on the file's worker. May call file and util.
 */
#include "daemon/space.h"

#include <assert.h>
#include <fcntl.h>

#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/retain.h"
#include "daemon/saved.h"
#include "daemon/space_save.h"
#include "daemon/twin.h"
#include "daemon/writeback.h"

void (*space_end_hook)(struct space *s);

#define FORKER_SHARE 32u            /* of fork_max: who has so much less waits for nobody else's children */
#define EXPECT_NS    1000000000ull  /* what has not come by then comes no more */
#define ADDRESS_MAX (1ull << 56)     /* x86-64 with five levels has less; arm64 too */

/* A spare one is all zeros but for its link to the next, which is its owner's field. */
static struct space *take_spare(struct worker *w)
{
	struct space *s = w->spare_spaces;

	if (!s)
		return NULL;
	w->spare_spaces = s->owner;
	w->n_spare_spaces--;
	s->owner = NULL;
	return s;
}

void space_spare_free(struct worker *w)
{
	struct space *s;

	while ((s = take_spare(w)))
		free(s);
}

int space_prepare(struct space *s, unsigned n)
{
	struct worker *w = s->worker;
	size_t segments = s->maps.map.n + (size_t)3 * n;
	int r;

	while (w->caps->fork_events && w->n_spare_spaces < n) {
		struct space *spare = calloc(1, sizeof(*spare));

		if (!spare)
			return -ENOMEM;
		spare->owner = w->spare_spaces;
		w->spare_spaces = spare;
		w->n_spare_spaces++;
	}
	/* An unmap makes a hole, a move one where it was and one where it goes; each end of a piece that goes may split a range of references. */
	r = range_map_reserve(&s->maps.map, (size_t)3 * n);
	return r < 0 ? r : range_map_reserve(&s->file->refs.map, 2 * segments);
}

int space_new(struct space **ret, struct file *f, int uffd)
{
	struct space *s = calloc(1, sizeof(*s));

	if (!s)
		s = take_spare(f->worker);
	if (!s)
		return -ENOMEM;
	s->worker = f->worker;
	s->file = f;
	s->uffd = uffd;
	list_init(&s->task.link);
	list_init(&s->ending.link);
	list_init(&s->rewatch.link);
	list_init(&s->keeping.link);
	list_init(&s->asking_again.link);
	list_init(&s->faults);
	list_init(&s->pending);
	list_init(&s->poisoned);
	list_init(&s->jobs);
	file_range_set_init(&s->maps);
	readahead_set_init(&s->readahead);
	window_readers_init(&s->readers, &s->noreuse, &s->toucher);
	tracker_init(&s->tracker);
	list_append(&f->spaces, &s->by_file);
	list_append(&f->worker->spaces, &s->by_worker);
	s->pins = 1; /* until space_close() */
	s->worker->live++;
	f->n_handles++;
	f->e->handles = f->n_handles;
	*ret = s;
	return 0;
}

void space_pin(struct space *s) { s->pins++; }

static void close_uffd(struct space *s)
{
	if (s->uffd >= 0) {
		twin_forget(s->uffd);
		close(s->uffd);
	}
	s->uffd = -1;
}

void space_unpin(struct space *s)
{
	assert(s->pins > 0);
	if (--s->pins > 0)
		return;
	assert(s->closed && list_empty(&s->faults));
	close_uffd(s);
	s->worker->live--;
	free(s);
}

/* --- tracking without faults --- */

struct pieces { uint64_t from, to; track_piece fn; void *arg; };

static int shared_piece(void *arg, struct range r, uint64_t off, uint64_t attr)
{
	const struct pieces *p = arg;
	uint64_t first = off / PAGE_SIZE_, from = MAX(first, p->from), to = MIN(first + (r.end - r.start) / PAGE_SIZE_, p->to);

	if ((attr & SEG_SHARED) && from < to)
		p->fn(p->arg, r.start + (from - first) * PAGE_SIZE_, from, to - from);
	return 0;
}

static void pieces(struct tracker *t, uint64_t from, uint64_t to, track_piece fn, void *arg)
{
	struct pieces p = { from, to, fn, arg };

	(void)file_range_set_walk(&container_of(t, struct space, tracker)->maps, (struct range){ 0, ~0ull }, shared_piece, &p);
}

int space_track(struct space *s, int *pagemap, bool dead, uint32_t row)
{
	int r = dead ? track_adopt(&s->tracker, s->file, &s->toucher, s->uffd, row) : track_begin(&s->tracker, s->file, &s->toucher, s->uffd);

	if (r < 0) {
		if (tracker_on(&s->tracker))
			track_end(&s->tracker);
		return r;
	}
	s->tracker.pieces = pieces;
	s->tracker.pid = s->pid;
	s->tracker.known = !dead;
	s->tracker.pagemap = take_fd(pagemap);
	return 0;
}

/*
 * CONTINUE where stores are tracked without faults: what is mapped counts as such before it is. What turns out not to be does so no more, unless it did before.
 */
int space_continue(struct space *s, uint64_t addr, uint64_t page, uint64_t n, bool shared, bool protect, uint64_t *ret_mapped)
{
	struct track_before before;
	uint64_t done;
	int r;

	if (!shared || !tracker_on(&s->tracker))
		return uffd_continue(s->uffd, addr, n * PAGE_SIZE_, protect, ret_mapped);
	*ret_mapped = 0;
	r = track_set(&s->tracker, page, n, &before);
	if (r < 0)
		return r;
	track_remapped(&s->tracker, page, n, &before);
	kill_point("fault.tracked");
	r = uffd_continue(s->uffd, addr, n * PAGE_SIZE_, protect, ret_mapped);
	done = *ret_mapped / PAGE_SIZE_ + (r == -EEXIST);
	if (done < n)
		track_unset(&s->tracker, page + done, n - done, &before);
	return r;
}

/* --- references --- */

/* What is shown of a block: the most references that any page of it has. */
static void block_refs(struct file *f, struct range r)
{
	uint64_t from = r.start >> BLOCK_SHIFT, to = (r.end + PGC_BLOCK_SIZE - 1) >> BLOCK_SHIFT;

	for (struct block *b = block_tree_next(&f->blocks, from, false); b && b->e->index < to;
	     b = block_tree_next(&f->blocks, b->e->index + 1, false))
		b->e->refs = frame_refs_max(&f->refs, (struct range){ b->e->index << BLOCK_SHIFT, (b->e->index + 1) << BLOCK_SHIFT });
}

static int ref_range(struct space *s, struct range r)
{
	int e = frame_refs_inc(&s->file->refs, r, s->toucher.cgroup ? s->toucher.cgroup->id : 0);

	if (e < 0)
		return e;
	block_refs(s->file, r);
	file_refs_changed(s->file);
	return 0;
}

static void unref_range(struct space *s, struct range r)
{
	if (frame_refs_dec(&s->file->refs, r) < 0)
		log_at(LOG_LEVEL_ERROR, s->file->e->name, s->pid, "references of %llu-%llu could not be given back",
		       (unsigned long long)r.start, (unsigned long long)r.end);
	block_refs(s->file, r);
	retain_unmapped(s->file, r);
	file_refs_changed(s->file);
}

/* The number of mappings may have changed: for the file's row, and for what the last unmap sets off. */
static void count_segments(struct space *s, size_t before)
{
	struct file *f = s->file;

	f->maps_changes++;
	f->n_mappings = (unsigned)(f->n_mappings + s->maps.map.n - before);
	f->e->mappings = f->n_mappings;
	if (f->n_mappings == 0 && before > 0)
		writeback_background(f);
}

#define GONE_MAX 8u

/* What goes of shared mappings: ranges of the file, the last of which may cover more. */
struct gone { struct space *s; struct range r[GONE_MAX]; unsigned n; };

static int unref_segment(void *arg, struct range r, uint64_t off, uint64_t attr)
{
	struct gone *g = arg;
	struct range part = { off, off + (r.end - r.start) };

	unref_range(g->s, part);
	if (!(attr & SEG_SHARED))
		return 0;
	if (g->n == GONE_MAX)
		g->r[g->n - 1] = (struct range){ MIN(g->r[g->n - 1].start, part.start), MAX(g->r[g->n - 1].end, part.end) };
	else
		g->r[g->n++] = part;
	return 0;
}

static void forget_poisoned(struct space *s, uint64_t start, uint64_t end)
{
	struct poisoned *p, *next;

	list_for_each_safe(p, next, &s->poisoned, by_space)
		if (p->addr >= start && p->addr < end) {
			list_remove(&p->by_space);
			list_remove(&p->by_file);
			s->file->n_poisoned--;
			free(p);
		}
}

static void tell_tracker(const struct gone *g)
{
	for (unsigned i = 0; i < g->n; i++)
		track_unmapped(&g->s->tracker, g->r[i].start / PAGE_SIZE_, page_up(g->r[i].end));
}

/* *g is what goes of shared mappings; the tracker is the caller's to tell. */
static void take_range(struct space *s, uint64_t start, uint64_t end, struct gone *g)
{
	struct range r = { start, end };
	size_t before = s->maps.map.n;

	if (start >= end)
		return;
	/* A hole in one segment makes two of it: the room for that first, so that the removal cannot fail. */
	if (range_map_reserve(&s->maps.map, 1) < 0) {
		log_at(LOG_LEVEL_ERROR, s->file->e->name, s->pid, "out of memory: a mapping that is gone stays in the table");
		return;
	}
	file_range_set_walk(&s->maps, r, unref_segment, g);
	kill_point("unmap.unreferenced");
	(void)file_range_set_remove(&s->maps, r);
	forget_poisoned(s, start, end);
	count_segments(s, before);
}

static void remove_range(struct space *s, uint64_t start, uint64_t end)
{
	struct gone g = { .s = s };

	take_range(s, start, end, &g);
	tell_tracker(&g);
}

/* --- what the client and the kernel say --- */

static bool expect_add(struct space *s, struct space_expect e)
{
	if (s->n_expect == SPACE_EXPECT_MAX)
		return false;
	s->expect[s->n_expect++] = e;
	return true;
}

static void expect_remove(struct space *s, unsigned i) { s->expect[i] = s->expect[--s->n_expect]; }

static int expect_segment(void *arg, struct range r, uint64_t off, uint64_t attr)
{
	const struct space_expect x = { .start = r.start, .end = r.end, .off = off, .attr = attr, .may_move = true, .since = now_ns() };

	return expect_add(arg, x) ? 0 : -EMFILE;
}

static int map_segment(struct space *s, uint64_t addr, uint64_t len, uint64_t off, uint64_t attr)
{
	struct range r = { addr, addr + len };
	struct gone expected = { .s = s };
	size_t before;
	int e;

	log_at(LOG_LEVEL_DEBUG, s->file->e->name, s->pid, "%p map %#llx+%#llx at %#llx%s", (void *)s, (unsigned long long)addr,
	       (unsigned long long)len, (unsigned long long)off,
	       attr & SEG_SHARED ? " shared" : "");

	if (len == 0 || !is_aligned(addr | len | off, PAGE_SIZE_))
		return -EINVAL;
	if (len > ADDRESS_MAX || addr > ADDRESS_MAX - len || off > (uint64_t)INT64_MAX - len)
		return -EOVERFLOW;
	if ((attr & SEG_SHARED) && !s->writable)
		return -EACCES;
	if (s->maps.map.n >= SPACE_SEGMENTS_MAX)
		return -EMFILE;
	e = file_range_set_walk(&s->maps, r, expect_segment, s);
	if (e < 0)
		return e;
	take_range(s, r.start, r.end, &expected);
	e = ref_range(s, (struct range){ off, off + len });
	if (e < 0)
		return e;
	kill_point("map.referenced");
	before = s->maps.map.n;
	e = file_range_set_insert(&s->maps, r, off, attr);
	kill_point("map.inserted");
	if (e < 0) {
		unref_range(s, (struct range){ off, off + len });
		return e;
	}
	count_segments(s, before);
	(void)space_save_address(s);
	return 0;
}

int space_map(struct space *s, uint64_t addr, uint64_t len, uint64_t off, bool shared)
{
	if (len > 0 && len <= ADDRESS_MAX && off <= (uint64_t)INT64_MAX - len && frame_refs_max(&s->file->refs, (struct range){ off, off + len }) >= PAGE_MAPPINGS_MAX)
		return -EMFILE;
	return map_segment(s, addr, len, off, shared ? SEG_SHARED : 0);
}

/* [start, end) of an expected range is gone for good. */
static void expected_gone(struct space *s, const struct space_expect *x, uint64_t start, uint64_t end)
{
	struct gone g = { .s = s, .r = { { x->off + (start - x->start), x->off + (end - x->start) } }, .n = 1 };

	if (x->may_move && (x->attr & SEG_SHARED))
		tell_tracker(&g);
}

void space_unmapped(struct space *s, uint64_t start, uint64_t end)
{
	size_t before = s->maps.map.n;

	log_at(LOG_LEVEL_DEBUG, s->file->e->name, s->pid, "%p unmapped %#llx-%#llx, %u expected", (void *)s, (unsigned long long)start,
	       (unsigned long long)end, s->n_expect);
	s->changes++;
	while (start < end) {
		uint64_t stop = end, next = end;

		/* Up to the next expected range; that one is answered by this event and stays mapped. */
		for (unsigned i = 0; i < s->n_expect; i++) {
			struct space_expect *x = &s->expect[i];

			if (x->end <= start || x->start >= stop)
				continue;
			stop = MAX(x->start, start);
			next = MIN(x->end, end);
			if (x->start <= start)
				expected_gone(s, x, start, next);
			if (x->start <= start && next == x->end) {
				expect_remove(s, i);
			} else if (x->start <= start) {
				x->off += next - x->start;
				x->start = next;
			} else {
				next = stop; /* come back to it from its beginning */
			}
			break;
		}
		remove_range(s, start, stop);
		start = MAX(next, stop);
		if (stop == end)
			break;
	}
	if (before > 0 && s->maps.map.n == 0 && s->changed)
		s->changed(s);
}

/* The expected range that overlaps [from, end) first, of a mapping that may have been moved; NULL: none. */
static struct space_expect *expect_moved(struct space *s, uint64_t from, uint64_t end)
{
	struct space_expect *found = NULL;

	for (unsigned i = 0; i < s->n_expect; i++) {
		struct space_expect *x = &s->expect[i];

		if (x->may_move && x->end > from && x->start < end && (!found || x->start < found->start))
			found = x;
	}
	return found;
}

bool space_expects_move(const struct space *s)
{
	for (unsigned i = 0; i < s->n_expect; i++)
		if (s->expect[i].may_move && (s->expect[i].attr & SEG_SHARED) && now_ns() - s->expect[i].since < EXPECT_NS)
			return true;
	return false;
}

/* What another mapping has the place of already goes on at `to`. */
static int move_replaced(struct space *s, struct space_expect *x, uint64_t from, uint64_t to, uint64_t len)
{
	uint64_t off = x->off + (from - x->start);

	x->may_move = false; /* of what is left of it the next look finds nothing, and takes it as stored to */
	return map_segment(s, to, len, off, x->attr);
}

static int move_piece(struct space *s, uint64_t from, uint64_t to, uint64_t len)
{
	/* The kernel tells of the old range once more, as an UNMAP (not with MREMAP_DONTUNMAP: see space_learn()). */
	(void)expect_add(s, (struct space_expect){ .start = from, .end = from + len });
	kill_point("remap.expected");
	return file_range_set_move(&s->maps, from, len, to);
}

static int move_all(struct space *s, uint64_t from, uint64_t to, uint64_t len)
{
	uint64_t at = from, end = from + len, next;
	int r = 0;

	for (; at < end && r == 0; at = next) {
		struct space_expect *x = expect_moved(s, at, end);

		next = x && x->start <= at ? MIN(x->end, end) : x ? x->start : end;
		if (x && x->start <= at)
			r = move_replaced(s, x, at, to + (at - from), next - at);
		else
			r = move_piece(s, at, to + (at - from), next - at);
	}
	return r;
}

void space_remapped(struct space *s, uint64_t from, uint64_t to, uint64_t len)
{
	struct poisoned *p;
	size_t before;

	log_at(LOG_LEVEL_DEBUG, s->file->e->name, s->pid, "%p remapped %#llx+%#llx to %#llx", (void *)s, (unsigned long long)from,
	       (unsigned long long)len, (unsigned long long)to);
	s->changes++;
	/* A length of 0 is a second mapping of the same pages. How long it is shows when it is touched. */
	if (len == 0 || from == to || !is_aligned(from | to | len, PAGE_SIZE_))
		return;
	remove_range(s, to, to + len);
	before = s->maps.map.n;
	if (move_all(s, from, to, len) < 0) {
		log_at(LOG_LEVEL_ERROR, s->file->e->name, s->pid, "out of memory: a moved mapping is lost, its pages stay dirty");
		s->blind = true; /* what is writable there is not known until it is touched */
		s->tracker.known = false;
		remove_range(s, from, from + len);
		return;
	}
	count_segments(s, before);
	list_for_each(p, &s->poisoned, by_space)
		if (p->addr >= from && p->addr < from + len)
			p->addr += to - from;
}

static bool forks_wait(const struct space *s)
{
	const struct user_count *u = s->toucher.user;
	uint32_t max;

	if (!u)
		return false;
	max = atomic_load_explicit(&u->fork_max, memory_order_relaxed);
	return atomic_load_explicit(&u->handles, memory_order_relaxed) >= max && s->worker->children[s->toucher.client] >= max / FORKER_SHARE;
}

int space_may_read(const struct space *s, int most)
{
	return forks_wait(s) ? MIN(MAX(uffd_pending(s->uffd), 0), most) : most;
}

static int copy_segment(void *arg, struct range r, uint64_t off, uint64_t attr)
{
	return map_segment(arg, r.start, r.end - r.start, off, attr);
}

int space_copy(struct space *child, struct space *parent)
{
	child->writable = parent->writable;
	child->kernel_faults = parent->kernel_faults;
	child->toucher = parent->toucher;
	child->unprotected_lo = parent->unprotected_lo;
	child->unprotected_hi = parent->unprotected_hi;
	return file_range_set_walk(&parent->maps, (struct range){ 0, ADDRESS_MAX }, copy_segment, child);
}

struct twin_record space_record(const struct space *s)
{
	return (struct twin_record){ s->saved ? s->saved_slot : UINT32_MAX, s->id };
}

uint64_t space_some_address(struct space *s)
{
	struct range_seg *seg = range_map_lower(&s->maps.map, 0);

	return seg ? seg->r.start : s->last_addr;
}

uint64_t space_save_address(struct space *s)
{
	uint64_t addr = space_some_address(s);

	if (s->saved && addr)
		s->saved->last_addr = addr;
	return addr;
}

int space_read(struct space *s, struct uffd_msg *ret, int most)
{
	uint64_t addr = space_save_address(s);
	int n;

	twin_reading(s->worker->id, space_record(s), addr);
	n = uffd_read(s->uffd, s->worker->caps, ret, most);
	for (int i = 0; i < n; i++)
		if (ret[i].event == UFFD_EVENT_FORK) {
			kill_point("fork.read");
			twin_child((int)ret[i].arg.fork.ufd, space_record(s), addr);
		}
	twin_read(s->worker->id);
	return n;
}

/* The last segment that ends at or below `addr`, or NULL. */
static struct range_seg *segment_below(struct space *s, uint64_t addr)
{
	struct range_map *m = &s->maps.map;
	size_t lo = 0, hi = m->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (m->seg[mid].r.end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo ? &m->seg[lo - 1] : NULL;
}

int space_find(struct space *s, uint64_t addr, struct range *ret_seg, uint64_t *ret_off, bool *ret_shared)
{
	uint64_t attr;

	if (!file_range_set_find(&s->maps, addr, ret_seg, ret_off, &attr)) {
		if (!space_in_window(s, addr))
			return -ENOENT;
		*ret_seg = (struct range){ s->window_start, s->window_end };
		*ret_off = 0;
		*ret_shared = false;
		return 0;
	}
	*ret_shared = attr & SEG_SHARED;
	return 0;
}

bool space_has(struct space *s, uint64_t start, uint64_t end, uint64_t off, bool shared)
{
	struct range seg;
	uint64_t at, attr;

	return file_range_set_find(&s->maps, start, &seg, &at, &attr) && seg.end >= end && at + (start - seg.start) == off && !!(attr & SEG_SHARED) == shared;
}

int space_set_window(struct space *s, uint64_t addr, uint64_t len)
{
	if (!is_aligned(addr | len, PAGE_SIZE_) || len > ADDRESS_MAX || addr > ADDRESS_MAX - len)
		return -EINVAL;
	remove_range(s, addr, addr + len); /* taken for a mapping by a daemon that had not heard of it */
	s->window_start = addr;
	s->window_end = addr + len;
	s->changes++;
	s->file->maps_changes++;
	if (s->saved) {
		s->saved->window_len = 0;
		crash_order();
		s->saved->window_addr = addr;
		crash_order();
		s->saved->window_len = len;
	}
	return 0;
}

void space_end_window(struct space *s)
{
	window_close(&s->readers);
	(void)space_set_window(s, 0, 0);
}

int space_advice(struct space *s, uint64_t addr)
{
	struct range seg;
	uint64_t off, attr;

	return file_range_set_find(&s->maps, addr, &seg, &off, &attr) ? SEG_ADVICE_OF(attr) : POSIX_FADV_NORMAL;
}

int space_advise(struct space *s, uint64_t addr, uint64_t len, int advice)
{
	uint64_t end = addr + len;

	while (addr < end) {
		struct range_seg *next = range_map_lower(&s->maps.map, addr);
		struct range part;
		uint64_t off, attr;
		size_t before = s->maps.map.n;
		int e;

		if (!next || next->r.start >= end)
			return 0;
		part = (struct range){ MAX(next->r.start, addr), MIN(next->r.end, end) };
		off = next->v.a + (part.start - next->r.start);
		attr = (next->v.b & SEG_SHARED) | SEG_ADVICE(advice);
		addr = part.end;
		if (attr == next->v.b)
			continue;
		if (before + 2 > SPACE_SEGMENTS_MAX)
			return -EMFILE;
		/* One segment becomes three at most: the room for that first, so that nothing is lost. */
		e = range_map_reserve(&s->maps.map, 3);
		if (e == 0)
			e = file_range_set_remove(&s->maps, part);
		if (e == 0)
			e = file_range_set_insert(&s->maps, part, off, attr);
		if (e < 0)
			return e;
		count_segments(s, before);
	}
	return 0;
}

int space_learn(struct space *s, uint64_t start, uint64_t end, uint64_t off, bool shared)
{
	struct gone g = { .s = s };
	int r;

	log_at(LOG_LEVEL_DEBUG, s->file->e->name, s->pid, "%p learn %#llx-%#llx %#llx", (void *)s, (unsigned long long)start, (unsigned long long)end, (unsigned long long)off);
	for (unsigned i = 0; i < s->n_expect;)
		if (s->expect[i].start < end && s->expect[i].end > start)
			expect_remove(s, i); /* it is mapped: that event has come, or never will */
		else
			i++;
	take_range(s, start, end, &g);
	r = map_segment(s, start, end - start, off, shared ? SEG_SHARED : 0);
	tell_tracker(&g); /* what is mapped as before may be stored to as before */
	return r;
}

int space_guess(struct space *s, uint64_t addr)
{
	struct range_seg *below = segment_below(s, addr);
	uint64_t off;

	addr = align_down(addr, PAGE_SIZE_);
	if (!below)
		return -ENOENT;
	off = below->v.a + (addr - below->r.start);
	if (off >= align_up(s->file->size, PAGE_SIZE_))
		return -ENOENT;
	return map_segment(s, addr, PAGE_SIZE_, off, below->v.b);
}

void space_note_unprotected(struct space *s, uint64_t first, uint64_t n)
{
	if (s->unprotected_lo == s->unprotected_hi) {
		s->unprotected_lo = first;
		s->unprotected_hi = first + n;
		return;
	}
	s->unprotected_lo = MIN(s->unprotected_lo, first);
	s->unprotected_hi = MAX(s->unprotected_hi, first + n);
}

void space_close(struct space *s)
{
	struct file *f = s->file;

	if (s->closed)
		return;
	s->closed = true;
	window_close(&s->readers);
	remove_range(s, 0, ADDRESS_MAX);
	track_end(&s->tracker);
	forget_poisoned(s, 0, ~0ull);
	file_range_set_free(&s->maps);
	list_remove(&s->by_file);
	list_remove(&s->by_worker);
	list_remove(&s->task.link);
	list_remove(&s->ending.link);
	list_remove(&s->rewatch.link);
	list_remove(&s->keeping.link);
	list_remove(&s->asking_again.link);
	space_save_end(s);
	if (list_empty(&s->jobs)) /* else a lane may be about to use it; its job holds a pin */
		close_uffd(s);
	kill_point("space.closed");
	f->n_handles--;
	f->e->handles = f->n_handles;
	if (s->kernel_faults)
		f->e->kernel_fault_handles--;
	if (f->n_handles == 0) {
		file_clear_keep(f);
		writeback_background(f);
	}
	s->file = NULL;
	file_maybe_idle(f);
	space_unpin(s);
}
