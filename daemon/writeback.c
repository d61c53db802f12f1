/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Write-out of dirty pages, the specification's SyncDirty.
 *
 * The order that makes it safe: the pages are protected in every mapping, their dirty bits are cleared, then they are read by the
 * write. A store before the protection is in what is read; one after it faults, and as the worker sees that message only
 * after it has cleared the bits, the page is dirty again. A page in writeback is never written a second time at once. What fails is dirty again, and counted in file->errseq.
 *
 * Each struct wb is one write in flight of contiguous pages; it completes in wb_done(), which steps the syncs of the
 * file through a task, so that no done() runs inside somebody else's call.
 * Runs on the file's worker. May call file and the store; protecting is a hook, as mappings are above.
 */
#include "daemon/writeback.h"

#include <assert.h>
#include <string.h>

#include "daemon/file_save.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/reclaim.h"
#include "daemon/saved.h"
#include "daemon/track.h"

#define WB_MAX_PAGES   256u                   /* 1 MiB a write */
#define WRITES_MAX     128u                   /* in flight for one file: a store that is slow takes as many at a time as it can */
#define FLYING_MAX     8192u                  /* pages of them */
#define REVOKE_TURN_NS 50000ull
#define PROTECT_GIVE_UP_NS 1000000000ull      /* a client that keeps an event unfinished for longer: its pages stay dirty */

int (*writeback_protect_hook)(struct file *f, uint64_t first, uint64_t n);

struct wb {
	struct store_op op;
	struct list link;          /* file->writes */
	struct file *file;
	struct sync_dirty *sync;   /* who started it; lives at least as long */
	uint64_t first, n;         /* pages */
	uint64_t len, moved;       /* bytes: the last page of a file only up to its end */
	uint64_t seq;
	bool asking_hole;
	bool stays_dirty;          /* could not be protected */
};

static void wb_done(struct store_op *op, ssize_t result);

/* --- one write --- */

static struct block *wb_block(struct wb *wb, uint64_t page)
{
	return block_tree_find(&wb->file->blocks, page / PGC_BLOCK_PAGES);
}

static void wb_submit(struct wb *wb)
{
	struct file *f = wb->file;
	uint64_t off = wb->first * PAGE_SIZE_ + wb->moved;
	struct block *b = wb_block(wb, off / PAGE_SIZE_);

	wb->op.done = wb_done;
	f->store->ops->write(f->store, &wb->op, b->addr + (off & (PGC_BLOCK_SIZE - 1)), (size_t)(wb->len - wb->moved), off);
}

/* Ends the writeback of pages [from, to) of it, clean or dirty again. */
static void wb_settle(struct wb *wb, uint64_t from, uint64_t to, bool clean)
{
	for (uint64_t p = from; p < to; p = align_down(p, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES) {
		struct block *b = wb_block(wb, p);
		uint64_t pages = block_mask(b, p, to);

		if (clean)
			block_set_unsynced(b, pages);
		block_set_dirty(b, clean && !wb->stays_dirty ? pages & b->e->keep : pages);
		kill_point("writeback.settling");
		crash_order(); /* a page that is neither is clean to the next daemon */
		block_set_writeback(b, pages, false);
		kill_point("writeback.ended");
	}
}

static void wb_done(struct store_op *op, ssize_t result)
{
	struct wb *wb = container_of(op, struct wb, op);
	struct file *f = wb->file;
	struct worker *w = f->worker;
	uint64_t clean_to = wb->first;

	kill_point("writeback.written");
	if (wb->asking_hole) {
		wb->asking_hole = false;
		if (result != 1) {
			wb_submit(wb);
			return;
		}
		result = (ssize_t)wb->len; /* zeros over a hole: it is written already */
	} else if (result > 0) {
		w->stats->writeout_bytes += (uint64_t)result;
		rate_add(&w->writeout_rate, now_ns(), (uint64_t)result);
	}
	if (result == 0)
		result = -EIO; /* a store that accepts nothing would be asked for ever */
	if (result > 0) {
		wb->moved += (uint64_t)result;
		if (wb->moved < wb->len) {
			/* A short write goes on where it stopped, at a page boundary if it came that far: direct I/O asks for that. */
			if (align_down(wb->moved, PAGE_SIZE_) > wb->moved - (uint64_t)result)
				wb->moved = align_down(wb->moved, PAGE_SIZE_);
			wb_submit(wb);
			return;
		}
	}
	if (result == -EFAULT) {
		file_heal(f);
		result = -EIO;
	}
	clean_to = wb->moved >= wb->len ? wb->first + wb->n : wb->first + wb->moved / PAGE_SIZE_;
	wb_settle(wb, wb->first, clean_to, true);
	wb_settle(wb, clean_to, wb->first + wb->n, false);
	kill_point("writeback.settled");
	f->store_size = MAX(f->store_size, MIN(f->size, wb->first * PAGE_SIZE_ + wb->moved));
	if (result < 0) {
		file_record_error(f, (int)result);
		if (wb->sync->error == 0)
			wb->sync->error = (int)result;
		log_at(LOG_LEVEL_ERROR, f->e->name, 0, "writing %llu bytes at %llu failed, they stay dirty: %s",
		       (unsigned long long)(wb->len - wb->moved),
		       (unsigned long long)(wb->first * PAGE_SIZE_ + wb->moved), strerror((int)-result));
	} else if (f->last_error) {
		f->last_error = 0;
		file_save_errors(f);
		f->e->error = 0;
		f->e->flags &= ~PGC_FILE_ERROR;
	}
	f->writes_done++;
	f->moves++;
	wb->sync->in_flight--;
	wb->sync->flying -= wb->n;
	wb->sync->pages += clean_to - wb->first;
	list_remove(&wb->link);
	w->writes_in_flight--;
	free(wb);
	worker_queue(w, &f->sync_task);
	if (!list_empty(&f->ops))
		worker_queue(w, &f->ops_task);
}

/* Starts the write of pages [first, first + n), which are dirty, protected and not in writeback. */
static int wb_start(struct sync_dirty *s, uint64_t first, uint64_t n, bool zeros, bool stays_dirty)
{
	struct file *f = s->file;
	struct wb *wb = calloc(1, sizeof(*wb));

	if (!wb)
		return -ENOMEM;
	wb->file = f;
	wb->sync = s;
	wb->first = first;
	wb->n = n;
	wb->len = MIN((first + n) * PAGE_SIZE_, f->size) - first * PAGE_SIZE_;
	wb->seq = ++f->write_seq;
	wb->stays_dirty = stays_dirty;
	s->in_flight++;
	s->flying += n;
	file_moving(f);
	list_append(&f->writes, &wb->link);
	f->worker->writes_in_flight++;
	f->worker->stats->writeouts++;
	kill_point("writeback.submitting");
	if (zeros && first * PAGE_SIZE_ + wb->len <= f->store_size) {
		wb->asking_hole = true;
		wb->op.done = wb_done;
		f->store->ops->is_hole(f->store, &wb->op, first * PAGE_SIZE_, wb->len);
	} else {
		wb_submit(wb);
	}
	return 0;
}

/* Is the page all zeros? Read with pread(2): a client may have cut the memfd under the daemon's mapping. */
static bool page_is_zero(struct file *f, uint64_t page)
{
	static _Thread_local uint64_t buf[PGC_PAGE_SIZE / 8];
	ssize_t n = pread(f->memfd, buf, sizeof(buf), (off_t)(page * PAGE_SIZE_));

	if (n < 0)
		return false;
	memset((char *)buf + n, 0, sizeof(buf) - (size_t)n);
	return buf[0] == 0 && memcmp(buf, buf + 1, sizeof(buf) - 8) == 0;
}

bool writeback_in_flight(struct file *f, uint64_t from, uint64_t to)
{
	struct wb *wb;

	list_for_each(wb, &f->writes, link)
		if (wb->first < to && from < wb->first + wb->n)
			return true;
	return false;
}

uint64_t writeback_next(struct file *f, uint64_t page, uint64_t *ret_end)
{
	uint64_t next = ~0ull;
	struct wb *wb;

	list_for_each(wb, &f->writes, link)
		if (wb->first + wb->n > page && MAX(wb->first, page) < next) {
			next = MAX(wb->first, page);
			*ret_end = wb->first + wb->n;
		}
	return next;
}

/* --- SyncDirty --- */

static bool page_dirty(struct file *f, uint64_t page, bool *ret_writeback)
{
	struct block *b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);
	uint64_t bit = 1ull << (page % PGC_BLOCK_PAGES);

	if (!b || !(b->e->dirty & bit))
		return false;
	*ret_writeback = b->e->writeback & bit;
	return true;
}

/* Marks [first, first + n) as being written. */
static void begin_writeback(struct file *f, uint64_t first, uint64_t n, bool on)
{
	for (uint64_t p = first; p < first + n; p = align_down(p, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES) {
		struct block *b = block_tree_find(&f->blocks, p / PGC_BLOCK_PAGES);
		uint64_t pages = block_mask(b, p, first + n);

		if (on)
			block_set_writeback(b, pages, true);
		else
			block_set_dirty(b, pages);
		kill_point("writeback.begun");
		crash_order();
		if (on)
			block_clear_dirty(b, pages);
		else
			block_set_writeback(b, pages, false);
	}
}

/* The end of the window of pages that is protected with one call: up to the last dirty page that may be written now, all kept as the first or all not. */
static uint64_t window_end(struct file *f, uint64_t first, uint64_t end, bool keep)
{
	uint64_t chunk_end = align_down(first, HOST_CHUNK_SIZE / PAGE_SIZE_) + HOST_CHUNK_SIZE / PAGE_SIZE_;
	uint64_t last = first + 1;
	bool writeback;

	end = MIN(MIN(end, first + WB_MAX_PAGES), MIN(chunk_end, file_pages(f)));
	if (f->barrier.active && f->barrier.from > first)
		end = MIN(end, f->barrier.from);
	for (uint64_t p = first + 1; p < end; p++) {
		struct block *b = block_tree_find(&f->blocks, p / PGC_BLOCK_PAGES);
		uint64_t pages = b ? b->e->dirty >> (p % PGC_BLOCK_PAGES) : 0;

		if (pages == 0) { /* the rest of this block is clean */
			p = align_down(p, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES - 1;
			continue;
		}
		p += (unsigned)__builtin_ctzll(pages);
		if (p >= end || !!(b->e->keep & (1ull << (p % PGC_BLOCK_PAGES))) != keep)
			break;
		if (page_dirty(f, p, &writeback) && writeback)
			break;
		last = p + 1;
	}
	return last;
}

/* Writes the dirty runs of [first, end), which has just been protected. */
static int start_runs(struct sync_dirty *s, uint64_t first, uint64_t end, bool stays_dirty)
{
	struct file *f = s->file;
	bool writeback;
	int r;

	for (uint64_t p = first; p < end;) {
		uint64_t n = 1;
		bool zeros;

		if (!page_dirty(f, p, &writeback)) {
			p++;
			continue;
		}
		zeros = f->sparse && page_is_zero(f, p);
		while (p + n < end && page_dirty(f, p + n, &writeback) && (f->sparse && page_is_zero(f, p + n)) == zeros)
			n++;
		begin_writeback(f, p, n, true);
		kill_point("writeback.cleared");
		r = wb_start(s, p, n, zeros, stays_dirty);
		if (r < 0) {
			begin_writeback(f, p, n, false);
			return r;
		}
		p += n;
	}
	return 0;
}

static void sync_resume(struct parked *p)
{
	struct sync_dirty *s = container_of(p, struct sync_dirty, parked);

	worker_queue(s->file->worker, &s->file->sync_task);
}

/* Looks for what was stored to without a fault, a part at a time. Returns false when there is more to do, or when it has to wait for what is being found out. */
static bool sync_look(struct sync_dirty *s)
{
	struct file *f = s->file;

	if (track_waits(f)) {
		worker_retry(f->worker, &f->sync_task);
		return false;
	}
	s->looked_to = track_scan(f, s->looked_to, s->end);
	if (s->looked_to < s->end)
		worker_queue(f->worker, &f->sync_task);
	return s->looked_to >= s->end;
}

/* Moves the cursor on. Returns false when it has to wait: for a write of this file, the barrier, or a client's event. */
static bool sync_advance(struct sync_dirty *s)
{
	struct file *f = s->file;
	struct worker *w = f->worker;

	if (f->awaited > 0 && f->store && !f->store->writable && f->e->dirty > 0) {
		if (w->draining) { /* nobody comes any more */
			s->error = -EBADF;
			s->cursor = s->end;
			return true;
		}
		worker_retry(w, &f->sync_task); /* a client that may write is still to come */
		return false;
	}
	if (f->hold_writes && f->e->dirty > 0) {
		list_append(&w->lifeline_wait, &s->parked.link);
		return false;
	}
	if (!s->looked && f->store && f->e->dirty > 0) {
		/* An mtime that somebody has set shows only until we write. */
		s->looked = true;
		if (!f->times.moved) {
			file_look(f, &s->parked);
			return false;
		}
	}
	while (s->cursor < s->end) {
		struct block *b = block_tree_next(&f->blocks, s->cursor / PGC_BLOCK_PAGES, true);
		uint64_t pages, first, end, bit;
		bool stays_dirty = false, keep;
		int r;

		if (!b || block_first(b) >= s->end) {
			s->cursor = s->end;
			break;
		}
		pages = b->e->dirty & block_mask(b, s->cursor, s->end);
		if (!pages) {
			s->cursor = block_first(b) + PGC_BLOCK_PAGES;
			continue;
		}
		first = block_first(b) + (unsigned)__builtin_ctzll(pages);
		bit = pages & -pages;
		s->cursor = first;
		if ((b->e->writeback & bit) || s->in_flight >= WRITES_MAX || s->flying >= FLYING_MAX)
			return false;
		if (file_park(f, first, 1, &s->parked))
			return false;
		keep = b->e->keep & bit;
		end = window_end(f, first, s->end, keep);
		/*
		 * What is kept stays dirty and may change while it is written, so it needs no protection, and must not have any: at the death of a thread the kernel
		 * stores into robust mutexes that it holds, and no userfaultfd is asked then.
		 */
		r = writeback_protect_hook && !keep ? writeback_protect_hook(f, first, end - first) : 0;
		if (r == -EAGAIN) {
			uint64_t now = now_ns();

			if (s->blocked_since == 0)
				s->blocked_since = now;
			if (now - s->blocked_since < PROTECT_GIVE_UP_NS) {
				worker_retry(w, &f->sync_task);
				return false;
			}
			stays_dirty = true;
		}
		if (r == -EPERM) /* somebody who may have it writable cannot be asked */
			stays_dirty = true;
		if (!stays_dirty)
			s->blocked_since = 0; /* else the next window would wait as long again */
		kill_point("writeback.protected");
		r = start_runs(s, first, end, stays_dirty);
		if (r < 0) {
			if (s->in_flight == 0) {
				s->error = r;
				s->cursor = s->end;
				break;
			}
			return false;
		}
		s->cursor = end;
	}
	return true;
}

static bool sync_step(struct sync_dirty *s)
{
	struct file *f = s->file;
	struct wb *oldest;

	if (!list_empty(&s->parked.link) || (s->looked_to < s->end && !sync_look(s)))
		return false;
	if (s->only_look)
		return true;
	if (!sync_advance(s))
		return false;
	if (s->wait_seq == 0)
		s->wait_seq = f->write_seq + 1;
	/* What others had in flight when the cursor came to the end belongs to what was dirty when this began. */
	oldest = list_first(&f->writes, struct wb, link);
	return s->in_flight == 0 && (!oldest || oldest->seq >= s->wait_seq);
}

static void step_syncs(struct task *t)
{
	struct file *f = container_of(t, struct file, sync_task);
	struct sync_dirty *s, *next;
	struct list done;

	list_init(&done);
	list_for_each_safe(s, next, &f->syncs, link)
		if (sync_step(s)) {
			list_remove(&s->link);
			list_append(&done, &s->link);
		}
	f->requests++; /* whoever is told may be the last to use the file */
	while ((s = list_first(&done, struct sync_dirty, link))) {
		list_remove(&s->link);
		s->done(s, s->error);
	}
	f->requests--;
	if (f->times.moved && list_empty(&f->syncs) && list_empty(&f->writes) && list_empty(&f->ops))
		file_refresh_version(f);
	file_maybe_idle(f);
}

void sync_dirty_range(struct sync_dirty *s, struct file *f, uint64_t from, uint64_t to, void (*done)(struct sync_dirty *, int))
{
	*s = (struct sync_dirty){ .file = f, .cursor = from, .looked_to = from, .end = MAX(from, to), .done = done };
	s->parked.resume = sync_resume;
	list_init(&s->parked.link);
	list_append(&f->syncs, &s->link);
	worker_queue(f->worker, &f->sync_task);
}

void sync_look_range(struct sync_dirty *s, struct file *f, uint64_t from, uint64_t to, void (*done)(struct sync_dirty *, int))
{
	sync_dirty_range(s, f, from, to, done);
	s->only_look = true;
}

void sync_dirty_all(struct sync_dirty *s, struct file *f, void (*done)(struct sync_dirty *, int))
{
	sync_dirty_range(s, f, 0, file_pages(f), done);
}

/* --- the store's fsync --- */

static void store_synced(struct store_op *op, ssize_t result)
{
	struct store_sync *s = container_of(op, struct store_sync, op);
	struct file *f = s->file;
	struct block *b;

	kill_point("fsync.store_done");
	if (result < 0) {
		log_at(LOG_LEVEL_ERROR, f->e->name, 0, "fsync of the store failed, what was written since the last one is dirty again: %s",
		       strerror((int)-result));
		file_record_error(f, (int)result);
		while ((b = list_first(&f->unsynced, struct block, by_unsynced))) {
			uint64_t pages = b->unsynced & b->e->resident & ~b->e->writeback;

			block_clear_unsynced(b);
			block_set_dirty(b, pages);
		}
	} else if (s->writes_done == f->writes_done) {
		while ((b = list_first(&f->unsynced, struct block, by_unsynced)))
			block_clear_unsynced(b);
	} /* else more was written meanwhile; some of it may not be covered, so all of it counts as not */
	s->done(s, (int)result);
	f->requests--;
	file_maybe_idle(f);
}

static void issue_sync(struct store_sync *s, bool data_only)
{
	struct file *f = s->file;

	s->writes_done = f->writes_done;
	s->op.done = store_synced;
	kill_point("fsync.begun");
	f->store->ops->sync(f->store, &s->op, data_only);
}

static void settled(struct parked *p) { issue_sync(container_of(p, struct store_sync, parked), false); }

static void only_settled(struct parked *p)
{
	struct store_sync *s = container_of(p, struct store_sync, parked);
	struct file *f = s->file;

	s->done(s, 0);
	f->requests--;
	file_maybe_idle(f);
}

/* Whether s->parked.resume() comes. */
static bool settle(struct store_sync *s, struct file *f, void (*resume)(struct parked *))
{
	s->parked.resume = resume;
	list_init(&s->parked.link);
	if (!f->times.moved)
		return false;
	file_look(f, &s->parked);
	return true;
}

void writeback_store_sync(struct store_sync *s, struct file *f, bool data_only, void (*done)(struct store_sync *, int))
{
	s->file = f;
	s->done = done;
	if (!f->store || !f->store->writable) {
		done(s, 0);
		return;
	}
	f->requests++;
	if (data_only || !settle(s, f, settled))
		issue_sync(s, data_only);
}

void writeback_settle(struct store_sync *s, struct file *f, void (*done)(struct store_sync *, int))
{
	s->file = f;
	s->done = done;
	f->requests++;
	if (!f->store || !f->store->writable || !settle(s, f, only_settled))
		only_settled(&s->parked);
}

/* --- in the background --- */

static uint64_t dirty_expire_ns(struct worker *w)
{
	return atomic_load_explicit(&w->budget->dirty_expire_ms, memory_order_relaxed) * 1000000ull;
}

static void background_done(struct sync_dirty *s, int error)
{
	struct file *f = s->file;

	free(s);
	f->background = false;
	if (error == 0)
		worker_queue(f->worker, &f->worker->balance); /* what became dirty behind it may be too much again */
	/* What failed is tried again after dirty_expire; then a file without handles goes on from there. */
	if (error == 0 && !f->version.valid && list_empty(&f->writes))
		file_refresh_version(f);
}

void writeback_background(struct file *f)
{
	struct sync_dirty *s;

	if (f->background || !f->store || (f->e->dirty == 0 && !track_needed(f)))
		return;
	/* After a failure, or where nothing becomes clean: not again before the timer says so. */
	if ((f->last_error || f->awaited > 0) && now_ns() - f->dirty_since < dirty_expire_ns(f->worker))
		return;
	s = calloc(1, sizeof(*s));
	if (!s)
		return; /* the timer comes again */
	f->background = true;
	if (f->e->dirty > 0)
		f->dirty_since = f->e->dirty_since = now_ns();
	sync_dirty_all(s, f, background_done);
}

void writeback_arm_timer(struct worker *w)
{
	uint64_t oldest = 0, now = now_ns(), expire = dirty_expire_ns(w);
	struct file *f;

	if (w->expire_timer.armed)
		return;
	list_for_each(f, &w->all_files, by_worker)
		if (f->dirty_since && (oldest == 0 || f->dirty_since < oldest))
			oldest = f->dirty_since;
	if (oldest)
		ring_timer_arm(&w->ring, &w->expire_timer, oldest + expire > now ? oldest + expire - now : 1000000);
}

void writeback_expire(struct worker *w)
{
	uint64_t now = now_ns(), expire = dirty_expire_ns(w);
	struct file *f, *next;

	list_for_each_safe(f, next, &w->all_files, by_worker)
		if (f->dirty_since && now - f->dirty_since >= expire) {
			if (f->store && f->e->dirty > 0)
				writeback_background(f);
			f->dirty_since = f->e->dirty_since = now;
		}
	writeback_arm_timer(w);
}

/* --- stores that no fault tells of --- */

struct look_job {
	struct sync_dirty sync;
	struct task task;
	struct file *file;
	uint64_t cursor;           /* block: what lies below has been revoked */
};

static void look_over(struct look_job *j)
{
	struct file *f = j->file;

	f->track_looking = false;
	free(j);
	f->requests--;
	file_maybe_idle(f);
}

static void revoke_some(struct task *t)
{
	struct look_job *j = container_of(t, struct look_job, task);
	struct worker *w = j->file->worker;
	uint64_t begun = now_ns();

	while (track_revoke(j->file, false, &j->cursor))
		if (worker_turn_is_over(w, begun, REVOKE_TURN_NS)) {
			worker_queue(w, t);
			return;
		}
	look_over(j);
}

/* Who has made more dirty than it may has a fault at its next stores, which wait. */
static void timer_looked(struct sync_dirty *s, int error)
{
	struct look_job *j = container_of(s, struct look_job, sync);

	if (track_is_over_limit(j->file)) {
		reclaim_wake(j->file->worker);
		writeback_background(j->file);
		worker_queue(j->file->worker, &j->task);
	} else {
		look_over(j);
	}
}

uint64_t writeback_look(struct worker *w)
{
	bool again = false, soon = false;
	struct file *f;

	list_for_each(f, &w->all_files, by_worker) {
		struct look_job *j = f->track_looking || !track_needed(f) ? NULL : calloc(1, sizeof(*j));

		again |= f->track_looking || track_needed(f);
		soon |= track_is_over_limit(f);
		if (!j)
			continue;
		j->file = f;
		j->task.run = revoke_some;
		list_init(&j->task.link);
		f->track_looking = true;
		f->requests++;
		sync_look_range(&j->sync, f, 0, file_pages(f), timer_looked);
	}
	return soon ? TRACK_SOON_NS : again ? TRACK_NS : 0;
}

void writeback_file_init(struct file *f)
{
	list_init(&f->writes);
	list_init(&f->syncs);
	list_init(&f->sync_task.link);
	f->sync_task.run = step_syncs;
}
