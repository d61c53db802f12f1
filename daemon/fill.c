/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fills: reads from the store into the memfd's pages, through the daemon's window, without a copy. Large direct reads from a store that is quick go by way
 * of a buffer instead (staging.h), which costs less than to have the kernel make the pages one by one; those that nobody waits for wait their turn for it.
 * From a slow store that would only be fewer reads at a time.
 *
 * A page is `filling` from fill_start() until its read has completed, and only then resident: who wants it waits on the
 * block. A fill that was begun before a truncation, a hole punch or an invalidation (file->fill_gen) is thrown away and its
 * waiters look again. When a read of many pages fails, only the pages that someone waits for are read again, one by one: an
 * error outside what was required is not an error. Of a file with huge pages one of these is read in pieces, and is resident when all of them are here; an error in
 * any of them is one of all.
 * Runs on the file's worker. May call file, reclaim and the store.
 */
#include "daemon/fill.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/huge.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/reclaim.h"
#include "daemon/saved.h"

#define FILL_MAX_PAGES 256           /* 1 MiB a read */
/*
 * Where somebody waits, or will soon, the first reads are smaller: the kernel makes the pages of one while the device is at the one before. When there is enough
 * to do for the device fewer and larger ones do better, above all where each takes long.
 */
#define FILL_SOON_PAGES 64
#define FILLS_SOON      16u
#define STAGED_MIN_PAGES 16u         /* below that a page costs no more than a copy and a system call */
#define STAGED_SLOW_NS 10000000ull   /* a store of which so many reads in turn take longer does better with more of them at a time */
#define STAGED_SLOW    (2 * STAGING_BUFFERS)
#define STAGED_STUCK_NS 50000000ull
#define UNSTAGED_FILLS 1024u         /* then it is tried again */
#define FILLS_MAX      256           /* reads in flight of one worker; only readahead is held back by it */

void (*fill_resident_hook)(struct file *f, uint64_t first, uint64_t n);

static void fill_done(struct store_op *op, ssize_t result);
static void fill_end(struct fill *fill, ssize_t result);

/* --- waiters --- */

void waiter_init(struct waiter *w, void (*ready)(struct waiter *w, int error))
{
	list_init(&w->link);
	w->ready = ready;
	w->block = NULL;
}

void waiter_add(struct waiter *w, struct block *b, uint64_t pages)
{
	w->block = b;
	w->pages = pages;
	list_append(&b->waiters, &w->link);
}

void waiter_cancel(struct waiter *w)
{
	struct block *b = w->block;

	if (list_empty(&w->link))
		return;
	list_remove(&w->link);
	w->block = NULL;
	if (b)
		block_maybe_free(b);
}

/* Calls those waiters of b that wait for nothing any more, or, with an error, those that wanted one of `pages`. */
static void wake_waiters(struct block *b, uint64_t pages, int error)
{
	struct waiter *w, *next;
	struct list woken;

	list_init(&woken);
	list_for_each_safe(w, next, &b->waiters, link)
		if (error ? (w->pages & pages) != 0 : (w->pages & b->filling) == 0) {
			list_remove(&w->link);
			w->block = NULL; /* the list it is on now is not the block's */
			list_append(&woken, &w->link);
		}
	block_maybe_free(b);
	while ((w = list_first(&woken, struct waiter, link))) {
		list_remove(&w->link);
		w->ready(w, error);
	}
}

/* --- reads --- */

static char *fill_addr(struct fill *fill)
{
	struct block *b = block_tree_find(&fill->file->blocks, (fill->first * PAGE_SIZE_ + fill->moved) >> BLOCK_SHIFT);

	return b->addr + ((fill->first * PAGE_SIZE_ + fill->moved) & (PGC_BLOCK_SIZE - 1));
}

static void fill_submit(struct fill *fill)
{
	struct store *s = fill->file->store;

	fill->op.done = fill_done;
	s->ops->read(s, &fill->op, fill->staged ? fill->staged + fill->moved : fill_addr(fill), (size_t)(fill->n * PAGE_SIZE_ - fill->moved),
		     fill->first * PAGE_SIZE_ + fill->moved);
}

/* --- by way of buffers --- */

static bool is_staged(const struct file *f) { return f->store->direct && f->unstaged_fills == 0; }

/* Takes a buffer. False: there is none. */
static bool stage(struct fill *fill)
{
	struct worker *w = fill->file->worker;
	unsigned straight;

	fill->staged = staging_take(w);
	straight = w->fills_in_flight - w->n_unstaged - (w->staging.memory ? STAGING_BUFFERS - w->staging.n_unused : 0);
	/* Behind many that go straight it says nothing how long it takes. */
	fill->since = straight > STAGING_BUFFERS ? UINT64_MAX : now_ns();
	return fill->staged;
}

static void unstaged_begin(struct fill *fill)
{
	list_remove(&fill->unstaged);
	fill->file->worker->n_unstaged--;
	fill_submit(fill);
}

/* Those of `f`, or all, wait no longer. */
static void unstaged_begin_all(struct worker *w, const struct file *f)
{
	struct fill *fill, *next;

	list_for_each_safe(fill, next, &w->unstaged, unstaged)
		if (!f || fill->file == f)
			unstaged_begin(fill);
}

static void stage_later(struct fill *fill)
{
	struct worker *w = fill->file->worker;

	list_append(&w->unstaged, &fill->unstaged);
	w->n_unstaged++;
	if (!w->staged_timer.armed)
		w->staged_ends_seen = w->staged_ends;
	ring_timer_arm(&w->ring, &w->staged_timer, STAGED_STUCK_NS);
}

/* A store that hangs has the buffers, and holds up nobody else's reads: as long as it does all go straight. */
static void staged_expired(struct ring_timer *t)
{
	struct worker *w = container_of(t, struct worker, staged_timer);

	if (list_empty(&w->unstaged))
		return;
	if (w->staged_ends == w->staged_ends_seen) {
		w->staged_stuck = true;
		unstaged_begin_all(w, NULL);
		return;
	}
	w->staged_ends_seen = w->staged_ends;
	ring_timer_arm(&w->ring, t, STAGED_STUCK_NS);
}

void fill_worker_init(struct worker *w)
{
	list_init(&w->unstaged);
	ring_timer_init(&w->staged_timer, staged_expired);
}

/* What was read into the buffer goes into the memfd, up to the file's size: a write makes a memfd longer. -EFAULT: a client has cut it. */
static int staged_copy(const struct fill *fill)
{
	const struct file *f = fill->file;
	uint64_t off = fill->first * PAGE_SIZE_, end = MIN(off + fill->moved, f->size);
	struct stat st;

	if (fstat(f->memfd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size < end)
		return -EFAULT;
	for (uint64_t at = off; at < end;) {
		ssize_t n = pwrite(f->memfd, fill->staged + (at - off), (size_t)(end - at), (off_t)at);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += (uint64_t)n;
	}
	return 0;
}

/* Its read has ended: the buffer goes to the next one, which the device has before anything else is done here. */
static void staged_end(struct fill *fill)
{
	struct file *f = fill->file;
	struct worker *w = f->worker;
	struct fill *next;

	staging_give(w, TAKE_PTR(fill->staged));
	w->staged_ends++;
	w->staged_stuck = false;
	f->staged_slow = fill->slow ? f->staged_slow + 1 : 0;
	if (f->staged_slow >= STAGED_SLOW) {
		f->staged_slow = 0;
		f->unstaged_fills = UNSTAGED_FILLS;
		unstaged_begin_all(w, f);
	}
	next = list_first(&w->unstaged, struct fill, unstaged);
	if (!next || !stage(next))
		return;
	unstaged_begin(next);
	ring_flush(&w->ring);
}

static void copied(struct ring_op *op, int res, uint32_t cflags)
{
	struct fill *fill = container_of(op, struct fill, copy.job.done);
	struct file *f = fill->file;
	int r = staging_copy_end(f->worker, &fill->copy);

	kill_point("fill.copied");
	/* There was a page already, or not that much memory, or a client has cut the file. */
	if (r < 0)
		r = fill->gen == f->fill_gen ? staged_copy(fill) : 0;
	staged_end(fill);
	fill_end(fill, r);
}

/* What nobody has asked for is copied on another thread; but not the page that the file ends in. */
static bool copy_elsewhere(struct fill *fill)
{
	const struct file *f = fill->file;
	uint64_t first = fill->first, n = fill->n;

	return first >= fill->must && fill->moved == n * PAGE_SIZE_ && (first + n) * PAGE_SIZE_ <= f->size &&
		staging_copy_begin(f->worker, &fill->copy, f->memfd, first, n, fill->staged, copied);
}

/* Begins a fill: at once, or, when nobody waits for it and all buffers are in use, as soon as there is one. */
static void fill_begin(struct fill *fill)
{
	struct file *f = fill->file;
	bool large = fill->n >= STAGED_MIN_PAGES && f->store->direct && !fill->chunk; /* no write goes into a huge page */

	if (large && is_staged(f) && fill->n * PAGE_SIZE_ <= STAGING_BUFFER) {
		if (!stage(fill) && f->worker->staging.memory && !f->worker->staged_stuck && fill->first >= fill->must) {
			stage_later(fill);
			return;
		}
	} else if (large) {
		f->unstaged_fills -= f->unstaged_fills > 0;
	}
	fill_submit(fill);
}

static int fill_issue(struct file *f, uint64_t first, uint64_t n, uint64_t asked, uint64_t must, unsigned flags, struct chunk_fill *chunk)
{
	struct fill *fill = calloc(1, sizeof(*fill));

	if (!fill)
		return -ENOMEM;
	fill->file = f;
	fill->first = first;
	fill->n = n;
	fill->asked = asked;
	fill->must = must;
	fill->flags = flags;
	fill->gen = f->fill_gen;
	fill->chunk = chunk;
	list_append(&f->fills, &fill->link);
	f->saved->filling++;
	crash_order();
	f->worker->fills_in_flight++;
	f->worker->stats->fills++;
	list_init(&fill->unstaged);
	fill_begin(fill);
	kill_point("fill.submitted");
	return 0;
}

/* Calls fn for each block that pages [first, first + n) touch, with their bits. All of these blocks exist: their pages are filling. */
static void for_each_part(struct file *f, uint64_t first, uint64_t n,
			  void (*fn)(struct block *b, uint64_t pages, int arg), int arg)
{
	for (uint64_t p = first; p < first + n; p = align_down(p, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES) {
		struct block *b = block_tree_find(&f->blocks, p / PGC_BLOCK_PAGES);

		fn(b, block_mask(b, p, first + n), arg);
	}
}


static void part_give_up(struct block *b, uint64_t pages, int error)
{
	b->filling &= ~pages;
	/* The read may have left memory there, which nobody would be charged for. */
	for (uint64_t left = pages; left;) {
		unsigned from = (unsigned)__builtin_ctzll(left), n = bits_run(left, from);

		(void)file_punch(b->file, block_first(b) + from, n);
		kill_point("fill.given_up");
		left &= ~bits_range(from, n);
	}
	budget_uncharge(b->file->worker, b->domain, (uint64_t)__builtin_popcountll(pages));
	wake_waiters(b, pages, error);
}


static void part_wake(struct block *b, uint64_t pages, int arg)
{
	if (b)
		wake_waiters(b, pages, 0);
}

static void made_resident(struct file *f, uint64_t first, uint64_t n, uint64_t from, uint64_t must, unsigned flags)
{
	for (uint64_t p = first; p < first + n; p = align_down(p, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES) {
		struct block *b = block_tree_find(&f->blocks, p / PGC_BLOCK_PAGES);
		uint64_t pages = block_mask(b, p, first + n), asked = block_mask(b, from, must) & pages;

		b->filling &= ~pages;
		block_set_resident(b, asked, flags);
		kill_point("fill.resident");
		block_set_resident(b, pages & ~asked, flags | POLICY_AHEAD);
		block_apply_keep(b);
		file_apply_pins(f, b);
	}
	if (fill_resident_hook && !list_empty(&f->poisoned))
		fill_resident_hook(f, first, n);
	/* Who is woken may drop what comes next, so each block is looked up again. */
	for (uint64_t p = first; p < first + n; p = align_down(p, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES)
		part_wake(block_tree_find(&f->blocks, p / PGC_BLOCK_PAGES), ~0ull, 0);
}

/* A read of several pages failed: the pages that someone waits for are read again alone, the others are let go. */
static void retry_one_by_one(struct file *f, uint64_t first, uint64_t n, unsigned flags)
{
	for (uint64_t p = first; p < first + n; p = align_down(p, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES) {
		struct block *b = block_tree_find(&f->blocks, p / PGC_BLOCK_PAGES);
		uint64_t pages = block_mask(b, p, first + n), base = block_first(b), wanted = 0, failed = 0, again;
		struct waiter *w;

		list_for_each(w, &b->waiters, link)
			wanted |= w->pages & pages;
		/* Those to be read again stay `filling`, so the block stays. */
		for (again = wanted; again; again &= again - 1)
			if (fill_issue(f, base + (unsigned)__builtin_ctzll(again), 1, 0, ~0ull, flags, NULL) < 0)
				failed |= again & -again;
		if (pages & ~wanted)
			part_give_up(b, pages & ~wanted, -EIO);
		/* The last use of the block here: `failed` kept it. */
		if (failed)
			part_give_up(b, failed, -ENOMEM);
	}
}

static void part_unfill(struct block *b, uint64_t pages, int error)
{
	b->filling &= ~pages;
	budget_uncharge(b->file->worker, b->domain, (uint64_t)__builtin_popcountll(pages));
	wake_waiters(b, pages, error);
}

/* A piece is here, or will not come. */
static void chunk_settle(struct file *f, struct chunk_fill *c, int error)
{
	if (c->error == 0 || error == -ESTALE)
		c->error = error;
	if (--c->left > 0)
		return;
	if (c->error == 0) {
		f->starved_since = 0;
		made_resident(f, c->first, HUGE_PAGES, 0, c->must ? ~0ull : 0, c->flags);
	} else {
		huge_release(f, c->first);
		kill_point("fill.given_up");
		for_each_part(f, c->first, HUGE_PAGES, part_unfill, c->error == -ESTALE ? 0 : c->error);
	}
	free(c);
}

/* What the store does not have reads as zeros: the rest of the page where it ended, and whole pages after it. */
static int zero_rest(struct fill *fill)
{
	struct file *f = fill->file;
	uint64_t end = fill->first * PAGE_SIZE_ + fill->moved, first = page_up(end), last = fill->first + fill->n;

	file_zero_tail(f, end);
	return first < last ? file_zero_pages(f, first, last - first) : 0;
}

static void fill_done(struct store_op *op, ssize_t result)
{
	struct fill *fill = container_of(op, struct fill, op);
	struct file *f = fill->file;
	struct worker *w = f->worker;
	uint64_t want = fill->n * PAGE_SIZE_, off = fill->first * PAGE_SIZE_;
	bool stale = fill->gen != f->fill_gen;

	kill_point("fill.read");
	if (result > 0 && !stale) {
		uint64_t moved = fill->moved + (uint64_t)result;

		w->stats->fill_bytes += (uint64_t)result;
		if (moved < want && off + moved < f->store_size) {
			/* A short read that is not the end of file goes on where it stopped, at a page boundary if it came that far. */
			fill->moved = align_down(moved, PAGE_SIZE_) > fill->moved ? align_down(moved, PAGE_SIZE_) : moved;
			fill_submit(fill);
			return;
		}
		fill->moved = moved;
	}
	if (fill->staged) {
		uint64_t now = now_ns();
		int r = 0;

		fill->slow = fill->since <= now && now - fill->since > STAGED_SLOW_NS;
		if (result >= 0 && !stale) {
			if (copy_elsewhere(fill))
				return;
			r = staged_copy(fill);
		}
		result = r < 0 ? r : result;
		staged_end(fill);
	}
	fill_end(fill, result);
}

/* What was read is in the memfd, or there was an error. */
static void fill_end(struct fill *fill, ssize_t result)
{
	struct file *f = fill->file;
	struct worker *w = f->worker;
	uint64_t want = fill->n * PAGE_SIZE_;
	bool stale = fill->gen != f->fill_gen;

	if (result == -EFAULT)
		file_heal(f);
	if (result >= 0 && !stale && fill->moved < want)
		result = zero_rest(fill);
	kill_point("fill.zeroed");

	list_remove(&fill->link);
	w->fills_in_flight--;
	if (fill->chunk) {
		if (result < 0 && !stale) {
			w->stats->fill_errors++;
			log_at(LOG_LEVEL_WARNING, f->e->name, 0, "reading pages %llu to %llu failed, so their huge page cannot be had: %s",
			       (unsigned long long)fill->first, (unsigned long long)(fill->first + fill->n - 1), strerror((int)-result));
		}
		/* The kernel may refuse the page itself, as a limit of a hugetlb cgroup does: that is no fault of ours to mend. */
		chunk_settle(f, fill->chunk, stale ? -ESTALE : result == -EFAULT ? -EIO : (int)MIN(result, 0));
	} else if (stale) {
		for_each_part(f, fill->first, fill->n, part_give_up, 0);
	} else if (result >= 0) {
		made_resident(f, fill->first, fill->n, fill->asked, fill->must, fill->flags);
	} else {
		w->stats->fill_errors++;
		if (fill->n > 1) {
			retry_one_by_one(f, fill->first, fill->n, fill->flags);
		} else {
			log_at(LOG_LEVEL_WARNING, f->e->name, 0, "reading page %llu failed: %s",
			       (unsigned long long)fill->first, strerror((int)-result));
			for_each_part(f, fill->first, fill->n, part_give_up, (int)result);
		}
	}
	free(fill);
	crash_order();
	f->saved->filling--; /* resident, or punched */
	file_maybe_idle(f);
}

/*
 * Pages from `first` on, at most `max`, that are not here in any way, whose addresses adjoin, and that are of one domain. Makes blocks as it
 * goes, and marks the pages as filling.
 */
static uint64_t missing_run(struct file *f, uint64_t first, uint64_t max, const struct toucher *who, struct domain **ret_domain)
{
	uint64_t n = 0;
	/* A window chunk is one mapping; the next one is somewhere else. */
	uint64_t chunk_end = align_down(first, HOST_CHUNK_SIZE / PAGE_SIZE_) + HOST_CHUNK_SIZE / PAGE_SIZE_;

	*ret_domain = NULL;
	max = MIN(max, chunk_end - first);
	while (n < max) {
		struct block *b = file_block(f, (first + n) / PGC_BLOCK_PAGES, who);
		uint64_t here;
		unsigned from;

		if (!b)
			break;
		from = (unsigned)((first + n) % PGC_BLOCK_PAGES);
		here = MIN(bits_run(~(b->e->resident | b->filling | b->second), from), max - n);
		if (here == 0 || (*ret_domain && b->domain != *ret_domain)) {
			block_maybe_free(b);
			break;
		}
		*ret_domain = b->domain;
		b->filling |= bits_range(from, (unsigned)here); /* holds the block while the next one is made */
		n += here;
		if (from + here < 64)
			break;
	}
	return n;
}

/* A block that was made for nothing is no room that others wait for. */
static void part_unbegin(struct block *b, uint64_t pages, int arg)
{
	struct worker *w = b->file->worker;
	bool room = w->room_made;

	b->filling &= ~pages;
	block_maybe_free(b);
	w->room_made = room;
}

/* Charges the run, or as much of it as there is room for. Returns how many pages; the others are let go. */
static uint64_t charge_run(struct file *f, struct domain *d, uint64_t first, uint64_t run, uint64_t must)
{
	uint64_t need = first < must ? MIN(run, must - first) : 0, got = need;

	/* All that is wanted may be more than there is room for; a page is not. */
	while (got > 0 && !reclaim_charge(f->worker, d, got, false))
		got /= 2;
	if (got == need && run > need && reclaim_charge(f->worker, d, run - need, true))
		got = run;
	if (got < run)
		for_each_part(f, first + got, run - got, part_unbegin, 0);
	return got;
}

/* Reads pages [first, first + n), which are filling and charged. */
static int begin_run(struct file *f, uint64_t first, uint64_t n, uint64_t asked, uint64_t must, unsigned flags)
{
	uint64_t end = page_up(f->store_size), in_store = end > first ? MIN(n, end - first) : 0;
	int r = 0;

	if (in_store < n) {
		/* Past the store's end: zeros, without asking it. */
		int e = file_zero_pages(f, first + in_store, n - in_store);

		if (e < 0)
			for_each_part(f, first + in_store, n - in_store, part_give_up, e);
		else
			made_resident(f, first + in_store, n - in_store, asked, must, flags);
	}
	if (in_store > 0) {
		r = fill_issue(f, first, in_store, asked, must, flags, NULL);
		if (r < 0)
			for_each_part(f, first, in_store, part_give_up, r);
	}
	return r;
}

/* --- huge pages --- */

#define STARVED_NS 1000000000ull     /* so long a huge page is waited for */
#define HUGE_TRIES 2

/* More than there may be at all. */
static bool chunk_never_fits(const struct worker *w, const struct domain *d)
{
	for (int i = 0; i < 2; i++) {
		uint64_t limit = d->tenant[i] ? atomic_load_explicit(&w->budget->tenant[d->tenant[i]].limit, memory_order_relaxed) : 0;

		if (limit && limit < HUGE_PAGES)
			return true;
	}
	return atomic_load_explicit(&w->budget->memory_max, memory_order_relaxed) < 2 * HUGE_PAGES;
}

/* The pool is empty: others may have something to give up. An error after a while, as nobody can say whether there will be one ever again. */
static int chunk_starves(struct file *f)
{
	uint64_t now = now_ns();

	huge_audit(f);
	if (f->starved_since == 0 || now - f->starved_last > STARVED_NS)
		f->starved_since = now;
	f->starved_last = now;
	return now - f->starved_since > STARVED_NS ? -ENOMEM : -ENOBUFS;
}

/* Its charge, its blocks, and a page of the pool, which the window over it takes. */
static int chunk_claim(struct file *f, uint64_t first, bool must, const struct toucher *who)
{
	struct worker *w = f->worker;
	struct domain *d = who && who->domain ? who->domain : worker_domain(w), *of;

	for (int i = 0; i < HUGE_TRIES; i++) {
		uint64_t run;

		if (!reclaim_charge(w, d, HUGE_PAGES, !must))
			return must && chunk_never_fits(w, d) ? -ENOMEM : -ENOBUFS;
		f->no_page = false;
		run = missing_run(f, first, HUGE_PAGES, who, &of);
		if (run == HUGE_PAGES && of == d)
			return 0;
		budget_uncharge(w, d, HUGE_PAGES);
		for_each_part(f, first, run, part_unbegin, 0);
		if (run > 0)
			huge_release(f, first);
		if (!must || !f->no_page)
			return -ENOBUFS;
		if (!reclaim_huge_page(w))
			break;
	}
	return chunk_starves(f);
}

static int chunk_start(struct file *f, uint64_t first, bool must, const struct toucher *who, unsigned flags)
{
	struct block *b = block_tree_find(&f->blocks, first / PGC_BLOCK_PAGES);
	uint64_t end = page_up(f->store_size), in_store = end > first ? MIN(HUGE_PAGES, end - first) : 0, at, n;
	struct chunk_fill *c;
	int r;

	if (b && (b->e->resident | b->filling))
		return 0;
	r = chunk_claim(f, first, must, who);
	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c) {
		huge_release(f, first);
		for_each_part(f, first, HUGE_PAGES, part_unfill, -ENOMEM);
		return -ENOBUFS;
	}
	*c = (struct chunk_fill){ .first = first, .must = must, .flags = flags, .left = 1 };
	if (!must)
		f->worker->stats->readahead_pages += HUGE_PAGES;
	kill_point("fill.begun");
	/* A page that is new is zeros, which is right for what lies behind the store's end. */
	r = in_store == 0 ? file_zero_pages(f, first, HUGE_PAGES) : 0;
	for (at = 0; r == 0 && at < in_store; at += n) {
		n = MIN(in_store - at, f->worker->fills_in_flight < FILLS_SOON ? FILL_SOON_PAGES : FILL_MAX_PAGES);
		c->left++;
		r = fill_issue(f, first + at, n, 0, 0, flags, c);
		c->left -= r < 0;
	}
	chunk_settle(f, c, r == -ENOMEM ? -EAGAIN : r);
	return 0;
}

static int start_chunks(struct file *f, uint64_t first, uint64_t n, uint64_t required, const struct toucher *who, unsigned flags)
{
	uint64_t end = MIN(first + n, file_pages(f));

	for (uint64_t p = align_down(first, HUGE_PAGES); p < end; p += HUGE_PAGES) {
		bool must = required > 0 && p < first + required;
		int r;

		if (!must && f->worker->fills_in_flight >= FILLS_MAX)
			return 0;
		r = chunk_start(f, p, must, who, flags);
		if (r < 0)
			return must ? r : 0;
	}
	return 0;
}

static uint64_t common(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end)
{
	uint64_t from = MAX(a, b), to = MIN(a_end, b_end);

	return from < to ? to - from : 0;
}

/* Those below `asked` are no less required than those up to `must`, though nobody has asked for them. */
static int start(struct file *f, uint64_t first, uint64_t n, uint64_t asked, uint64_t required, const struct toucher *who, unsigned flags)
{
	struct worker *w = f->worker;
	uint64_t end = MIN(first + n, file_pages(f)), must = first + required;
	bool soon = required > 0 || flags != POLICY_AHEAD, small;

	if (f->huge)
		return start_chunks(f, first, n, required, who, flags);
	if (f->barrier.active && first + required <= f->barrier.from)
		end = MIN(end, f->barrier.from);
	for (uint64_t p = first; p < end;) {
		struct block *b = block_tree_find(&f->blocks, p / PGC_BLOCK_PAGES);
		struct domain *d;
		uint64_t run;
		int r;

		if (b) { /* skip what is here or on its way */
			reclaim_restore(b, block_mask(b, p, end), p >= asked && p < must ? flags : flags | POLICY_AHEAD);
			run = bits_run(b->e->resident | b->filling, (unsigned)(p % PGC_BLOCK_PAGES));
			if (run > 0) {
				p += run;
				continue;
			}
		}
		if (p >= must && w->fills_in_flight >= FILLS_MAX)
			return 0;
		small = soon && (is_staged(f) || w->fills_in_flight < FILLS_SOON);
		run = lane_free_run(&f->lent, p, MIN(end - p, small ? FILL_SOON_PAGES : FILL_MAX_PAGES)); /* the rest was here a moment ago, and is mapped where a lane finds it */
		if (run > 0)
			run = missing_run(f, p, run, who, &d);
		if (run > 0)
			run = charge_run(f, d, p, run, must);
		if (run == 0)
			return p < must ? -ENOBUFS : 0;
		w->stats->readahead_pages += run - common(p, p + run, asked, must);
		kill_point("fill.begun");
		r = begin_run(f, p, run, asked, must, flags);
		if (r < 0)
			return r;
		p += run;
	}
	return 0;
}

int fill_start(struct file *f, uint64_t first, uint64_t n, uint64_t required, const struct toucher *who, unsigned flags)
{
	return start(f, first, n, first, required, who, flags);
}

int fill_start_around(struct file *f, uint64_t first, uint64_t n, uint64_t page, const struct toucher *who)
{
	return start(f, first, n, page, page - first + 1, who, 0);
}
