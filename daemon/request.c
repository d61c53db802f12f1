/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests. Each is a small machine: request_begin() checks every field, starts it, and it ends in request_end(), which
 * replies. Outstanding ones are bounded by PGC_REQUESTS_MAX a handle. A request outlives its handle when something of it is
 * in flight (`handle` is NULL then); it holds its file through file->requests.
 * Runs on the worker. May call fault, ops, writeback, fill, file.
 */
#include "daemon/request.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/conn.h"
#include "daemon/file_save.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/memory.h"
#include "daemon/ops.h"
#include "daemon/seek.h"
#include "daemon/space_check.h"
#include "daemon/space_save.h"
#include "daemon/writeback.h"
#include "daemon/written.h"

#define POPULATE_STEP   (512 * PAGE_SIZE_)
#define WILLNEED_MAX    (32ull << 20)

struct request {
	struct list link;          /* handle->requests */
	struct handle *handle;     /* NULL: it ended */
	struct file *file;
	struct pgc_msg msg, reply;
	struct task task;          /* advance() in a later round */
	struct waiter waiter;
	struct parked parked;
	int error;                 /* of a waiter */
	uint64_t done;             /* READ, POPULATE: bytes */
	bool answered_before;      /* by a daemon that is gone: the answer is repeated */
	bool begun, stream;        /* READ: readahead knows of it; it is part of a stream */
	struct sync_dirty sync;
	struct store_sync store_sync;
	struct store_op store_op;
	struct store_stat stat;
	struct file_op file_op;
	struct seek seek;
	struct xfer *xfer;         /* WRITE holds it */
	void *data;                /* WRITE's data memfd, mapped */
	size_t data_len;
};

static void advance(struct task *t);
static void start(struct request *r, int fd);

/* --- life --- */

static void request_free(struct request *r)
{
	struct file *f = r->file;

	waiter_cancel(&r->waiter);
	list_remove(&r->parked.link);
	list_remove(&r->task.link);
	list_remove(&r->link);
	xfer_unref(r->xfer);
	if (r->data)
		munmap(r->data, r->data_len);
	if (r->handle) {
		struct handle *h = r->handle;

		if (r->data)
			h->data_writes--;
		if (h->n_requests-- == PGC_REQUESTS_MAX)
			worker_queue(h->worker, &h->task); /* its socket was not read any more */
	}
	free(r);
	f->requests--;
	file_maybe_idle(f);
}

static void request_end(struct request *r, int error)
{
	struct handle *h = r->handle;
	const int life = window_life();

	kill_point("request.ended");
	if (h) {
		r->reply.status = (uint32_t)-error;
		if (!r->answered_before)
			space_save_done(h->space, &r->msg, &r->reply);
		kill_point("request.done");
		handle_reply(h, &r->reply, &life, r->msg.type == PGC_MSG_STAT && r->msg.stat.life && error == 0);
		kill_point("request.answered");
	}
	request_free(r);
}

/* Waiting for a page, room or a barrier: such a request has nothing in flight that points to it. */
static void request_ready(struct waiter *w, int error)
{
	struct request *r = container_of(w, struct request, waiter);

	r->error = error;
	worker_queue(r->file->worker, &r->task);
}

static void request_resume(struct parked *p)
{
	struct request *r = container_of(p, struct request, parked);

	worker_queue(r->file->worker, &r->task);
}

void request_abandon_all(struct handle *h)
{
	struct request *r, *next;

	list_for_each_safe(r, next, &h->requests, link) {
		bool idle = !list_empty(&r->waiter.link) || !list_empty(&r->parked.link) || !list_empty(&r->task.link);

		list_remove(&r->link);
		r->handle = NULL;
		r->file_op.toucher.cgroup = NULL; /* its slot may be another's soon */
		h->n_requests--;
		if (idle)
			request_free(r);
	}
}

/* --- READ --- */

/* Waits until the page is here. `n`: pages that are wanted from it on. 0: it is resident; 1: it waits; or an error. */
static int want_page(struct request *r, uint64_t page, uint64_t n, unsigned flags)
{
	struct file *f = r->file;
	uint64_t bit = 1ull << (page % PGC_BLOCK_PAGES);
	struct block *b;
	int e;

	if (file_park(f, page, 1, &r->parked))
		return 1;
	b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);
	if (b && (b->e->resident & bit))
		return 0;
	e = fill_start(f, page, n, n, &r->handle->space->toucher, flags);
	b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);
	if (b && (b->e->resident & bit))
		return 0;
	if (b && (b->filling & bit)) {
		/* The whole of what is wanted in this block, so that one wake-up does for all. */
		waiter_add(&r->waiter, b, b->filling & block_mask(b, page, page + n));
		return 1;
	}
	if (e < 0 && e != -ENOBUFS)
		return e;
	list_append(&f->worker->no_room, &r->parked.link);
	return 1;
}

static bool is_resident(struct file *f, uint64_t page)
{
	struct block *b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);

	return b && (b->e->resident & (1ull << (page % PGC_BLOCK_PAGES)));
}

/* What is here already is asked for once more. */
static void touch_range(struct file *f, uint64_t from, uint64_t to)
{
	for (uint64_t p = from; p < to; p = align_down(p, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES) {
		struct block *b = block_tree_find(&f->blocks, p / PGC_BLOCK_PAGES);

		if (b)
			block_touched(b, block_mask(b, p, to), POLICY_CALL);
	}
}

/* What the stream has read ahead and may be read without a word, up to its marker. */
static void show_ahead(struct request *r, uint64_t page, const struct readahead_plan *plan)
{
	struct file *f = r->file;
	uint64_t to;

	if (!r->handle->space->readers.slot || plan->map_to <= page)
		return;
	to = page + file_resident_run(f, page, plan->map_to - page);
	file_used_ahead(f, page, to);
	readahead_mapped(&r->handle->readahead, page, to, false);
}

/* The first look at a READ: starts its own reads and those that its stream asks for. Whether it is part of a stream. */
static bool begin_read(struct request *r, uint64_t page, uint64_t n)
{
	struct file *f = r->file;
	struct block *b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);
	uint64_t bit = 1ull << (page % PGC_BLOCK_PAGES), first;
	struct readahead_in in = {
		.page = page, .n = n, .missing = !b || !((b->e->resident | b->filling) & bit), .max = f->readahead_max / PAGE_SIZE_,
		.file_pages = file_pages(f),
	};
	const struct toucher *who = &r->handle->space->toucher;
	struct readahead_plan plan;
	unsigned flags;

	readahead_wasted(&r->handle->readahead, file_take_wasted(f));
	window_touched(&r->handle->space->readers);
	readahead_access(&r->handle->readahead, &in, &plan);
	flags = POLICY_CALL | (plan.stream ? POLICY_STREAM : 0);
	if (r->handle->space->noreuse)
		flags |= POLICY_STREAM;
	else
		touch_range(f, page, page + n);
	show_ahead(r, page, &plan);
	first = plan.first;
	if (plan.count == 1 && first == page + n) { /* one read for both */
		(void)fill_start(f, page, n + plan.n, n, who, flags);
	} else {
		(void)fill_start(f, page, n, n, who, flags);
		for (uint64_t k = 0; k < plan.count; k++, first += (uint64_t)plan.stride)
			(void)fill_start(f, first, plan.n, 0, who, flags | POLICY_AHEAD);
	}
	return plan.stream;
}

static void advance_read(struct request *r)
{
	struct file *f = r->file;
	uint64_t off = r->msg.read.off, end = MIN(off + r->msg.read.len, f->size), page;
	int e = 0;

	if (!r->begun && off < end && !(f->barrier.active && f->barrier.from < page_up(end) && f->barrier.to > off / PAGE_SIZE_)) {
		r->begun = true;
		r->stream = begin_read(r, off / PAGE_SIZE_, page_up(end) - off / PAGE_SIZE_);
	}
	while (off + r->done < end && r->error == 0) {
		page = (off + r->done) / PAGE_SIZE_;
		e = want_page(r, page, page_up(end) - page, POLICY_CALL | (r->stream ? POLICY_STREAM : 0));
		if (e == 1)
			return;
		if (e < 0)
			break;
		r->done = MIN((page + 1) * PAGE_SIZE_, end) - off;
	}
	/* Room may have been made at the expense of what was read first: then only what is still here counts. */
	end = MIN(off + (r->error ? r->msg.read.len : r->done), f->size);
	r->done = 0;
	while (off + r->done < end && is_resident(f, (off + r->done) / PAGE_SIZE_))
		r->done = MIN(align_down(off + r->done, PAGE_SIZE_) + PAGE_SIZE_, end) - off;
	if (r->done == 0 && off < end && r->error == 0 && e == 0) {
		/* The range may be more than there is room for; a page is not. */
		r->msg.read.len = MIN(r->msg.read.len, PAGE_SIZE_ - off % PAGE_SIZE_);
		worker_queue(f->worker, &r->task);
		return;
	}
	r->reply.read_reply.len = r->done;
	kill_point("read.resident");
	r->reply.read_reply.size = f->size;
	r->reply.read_reply.seq = f->control->seq;
	/* Bytes before the page that could not be read are a short read; the next one says why. */
	request_end(r, r->done ? 0 : r->error ? r->error : e);
}

/* --- POPULATE --- */

static void advance_populate(struct request *r)
{
	struct file *f = r->file;
	struct space *s = r->handle->space;
	const struct pgc_populate *p = &r->msg.populate;

	if (r->error) {
		request_end(r, r->error);
		return;
	}
	while (r->done < p->len) {
		uint64_t step = MIN(p->len - r->done, POPULATE_STEP), off, page;
		int64_t n = fault_populate(s, p->addr + r->done, step, p->write);
		struct range seg;
		bool shared;
		int e;

		if (n == -EAGAIN) {
			fault_drain_events(s);
			worker_retry(f->worker, &r->task);
			return;
		}
		if (n < 0) {
			request_end(r, n == -ENOENT ? -ENOMEM : (int)n);
			return;
		}
		r->done += (uint64_t)n;
		if (n > 0) {
			worker_queue(f->worker, &r->task); /* others' turn in between */
			return;
		}
		if (space_find(s, p->addr + r->done, &seg, &off, &shared) < 0) {
			request_end(r, -ENOMEM);
			return;
		}
		page = (off + (p->addr + r->done - seg.start)) / PAGE_SIZE_;
		step = MIN(p->len - r->done, seg.end - (p->addr + r->done)) / PAGE_SIZE_;
		e = want_page(r, page, MIN(step, 512), 0);
		if (e == 1)
			return;
		if (e < 0) {
			request_end(r, e);
			return;
		}
	}
	request_end(r, 0);
}

/* --- SYNC --- */

static void synced(struct request *r, int error)
{
	struct file *f = r->file;
	struct handle *h = r->handle;

	/* Once a handle, whoever's write-out it was that failed. */
	if (h && h->errseq != f->errseq) {
		h->errseq = f->errseq;
		error = f->errseq_code;
		r->reply.status = (uint32_t)-error;
		space_save_done(h->space, &r->msg, &r->reply);
		space_save_errseq(h->space, h->errseq);
	}
	kill_point("fsync.done");
	if (!f->version.valid && list_empty(&f->writes) && list_empty(&f->ops))
		file_refresh_version(f);
	request_end(r, error);
}

static void store_settled(struct store_sync *s, int error)
{
	struct request *r = container_of(s, struct request, store_sync);

	/* What went wrong before is not kept from the next fsync. */
	request_end(r, r->handle && r->handle->errseq != r->file->errseq ? r->file->errseq_code : 0);
}

static void store_synced(struct store_sync *s, int error)
{
	synced(container_of(s, struct request, store_sync), error);
}

/* Pages that a SYNC names. */
static void sync_range(const struct request *r, uint64_t *ret_from, uint64_t *ret_to)
{
	const struct pgc_sync *m = &r->msg.sync;

	*ret_from = m->off / PAGE_SIZE_;
	*ret_to = m->len ? page_up(m->off + m->len) : file_pages(r->file);
}

/* All is written that was asked for. */
static void sync_store(struct request *r, int error)
{
	uint32_t flags = r->msg.sync.flags;

	if (error && (flags & PGC_SYNC_WRITE))
		request_end(r, error);
	else if (error)
		synced(r, error);
	else if (flags & PGC_SYNC_WRITE)
		writeback_settle(&r->store_sync, r->file, store_settled);
	else
		writeback_store_sync(&r->store_sync, r->file, flags & PGC_SYNC_DATA, store_synced);
}

static void sync_extended(struct file_op *op, int error) { sync_store(container_of(op, struct request, file_op), error); }

static void sync_written(struct sync_dirty *s, int error)
{
	struct request *r = container_of(s, struct request, sync);

	uint64_t from, to;

	kill_point("fsync.pages_written");
	sync_range(r, &from, &to);
	if (!error && r->file->store_size < MIN(r->file->size, to * PAGE_SIZE_)) {
		/* Dirty pages beyond the range would make the store long enough to have it; they are not written now. */
		r->file_op = (struct file_op){ .kind = FILE_OP_EXTEND, .done = sync_extended };
		ops_queue(r->file, &r->file_op);
		return;
	}
	sync_store(r, error);
}

static void looked(struct sync_dirty *s, int error) { request_end(container_of(s, struct request, sync), error); }

#define ASYNC_MAX 16u                /* of one file at once; with more, one write-out of all does as well */

static void async_written(struct sync_dirty *s, int error)
{
	s->file->n_async--;
	free(s);
}

/* As MS_ASYNC: the write-out is started, and an error is a later fsync's. */
static int start_async(struct request *r)
{
	struct file *f = r->file;
	struct sync_dirty *s;
	uint64_t from, to;

	if (f->n_async >= ASYNC_MAX) {
		writeback_background(f);
		return 0;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	f->n_async++;
	sync_range(r, &from, &to);
	sync_dirty_range(s, f, from, to, async_written);
	return 0;
}

/* --- WRITE, TRUNCATE, FALLOCATE --- */

/* Only a request that comes once more can have been carried out. */
static bool op_was_done(struct file_op *op, int *ret_error)
{
	struct request *r = container_of(op, struct request, file_op);

	r->answered_before = r->handle && r->msg.status == PGC_REQUEST_AGAIN && space_was_done(r->handle->space, &r->msg, &r->reply);
	*ret_error = -(int)r->reply.status;
	return r->answered_before;
}

static void file_op_done(struct file_op *op, int error)
{
	struct request *r = container_of(op, struct request, file_op);

	if (r->answered_before) {
		request_end(r, error);
		return;
	}
	r->reply.write_reply.len = op->kind == FILE_OP_WRITE ? op->moved : 0;
	r->reply.write_reply.off = op->kind == FILE_OP_WRITE ? op->off : 0;
	r->reply.write_reply.size = r->file->size;
	/* A part that was written is a short write; the next one says why. An append is whole or reported. */
	request_end(r, op->kind == FILE_OP_WRITE && op->moved > 0 && !op->append ? 0 : error);
}

static int begin_write(struct request *r, int fd)
{
	const struct pgc_write *m = &r->msg.write;
	struct handle *h = r->handle;

	r->file_op = (struct file_op){
		.kind = FILE_OP_WRITE, .append = m->flags & PGC_WRITE_APPEND, .off = m->off, .len = m->len,
		.toucher = h->space->toucher, .handle = h->space->id, .tag = r->msg.tag, .was_done = op_was_done, .done = file_op_done,
	};
	if (m->flags & PGC_WRITE_DATAFD) {
		uint64_t pos = align_down(m->pos, PAGE_SIZE_);
		int e = h->data_writes > 0 ? -EBUSY : memory_map_sealed(fd, pos, m->pos - pos + m->len, &r->data, &r->data_len);

		if (e < 0)
			return e;
		h->data_writes++;
		r->file_op.src = (char *)r->data + (m->pos - pos);
	} else {
		r->xfer = h->xfer;
		r->xfer->refs++;
		r->file_op.src = h->xfer->mem + m->pos;
	}
	ops_queue(r->file, &r->file_op);
	return 0;
}

/* --- STAT, advice, keep --- */

static void stat_done(struct store_op *op, ssize_t result)
{
	struct request *r = container_of(op, struct request, store_op);
	struct store_stat *st = &r->stat;

	if (result >= 0) {
		file_stat_shown(r->file, st);
		r->reply.stat_reply = (struct pgc_stat_reply){
			.dev = st->dev, .ino = st->ino, .size = st->size, .blocks = st->blocks, .rdev = st->rdev,
			.mode = st->mode, .nlink = st->nlink, .uid = st->uid, .gid = st->gid, .blksize = st->blksize,
			.atime_s = st->atime.tv_sec, .mtime_s = st->mtime.tv_sec, .ctime_s = st->ctime.tv_sec,
			.atime_ns = (uint32_t)st->atime.tv_nsec, .mtime_ns = (uint32_t)st->mtime.tv_nsec, .ctime_ns = (uint32_t)st->ctime.tv_nsec,
		};
	}
	request_end(r, (int)result);
}

static void start_stat(struct request *r)
{
	r->store_op.done = stat_done;
	r->file->store->ops->stat(r->file->store, &r->store_op, &r->stat);
}

static void looked_for_stat(struct sync_dirty *s, int error) { start_stat(container_of(s, struct request, sync)); }

static void seek_done(struct seek *k, int error)
{
	struct request *r = container_of(k, struct request, seek);

	r->reply.seek_reply.off = error ? 0 : k->off;
	request_end(r, error);
}

static void willneed(struct request *r, uint64_t off, uint64_t len)
{
	uint64_t first = off / PAGE_SIZE_, last = page_up(MIN(off + len, r->file->size));

	if (first < last)
		(void)fill_start(r->file, first, MIN(last - first, WILLNEED_MAX / PAGE_SIZE_), 0, &r->handle->space->toucher, POLICY_AHEAD);
}

/* Is not likely to be used soon: what room is made of next. Dirty pages are written first. */
static void make_cold(struct file *f, uint64_t from, uint64_t to)
{
	for (struct block *b = block_tree_next(&f->blocks, from / PGC_BLOCK_PAGES, false); b && block_first(b) < to;
	     b = block_tree_next(&f->blocks, b->e->index + 1, false))
		block_deactivate(b, block_mask(b, from, to));
}

static int do_fadvise(struct request *r)
{
	const struct pgc_fadvise *m = &r->msg.fadvise;
	uint64_t len = m->len ? m->len : (uint64_t)INT64_MAX - m->off;
	struct space *s = r->handle->space;

	switch (m->advice) {
	case POSIX_FADV_NORMAL:
		s->noreuse = false;
		/* fallthrough */
	case POSIX_FADV_RANDOM:
	case POSIX_FADV_SEQUENTIAL:
		r->handle->readahead.advice = s->advice = m->advice;
		return 0;
	case POSIX_FADV_WILLNEED:
		willneed(r, m->off, len);
		return 0;
	case POSIX_FADV_DONTNEED:
		/* As in Linux: pages that somebody has mapped stay. Dirty ones are written, and stay this time. */
		writeback_background(r->file);
		(void)file_drop_clean(r->file, page_up(m->off), m->len ? (m->off + m->len) / PAGE_SIZE_ : ~0ull, true);
		return 0;
	case POSIX_FADV_NOREUSE:
		s->noreuse = true; /* of all of the file: as in Linux, the range is not looked at */
		return 0;
	default:
		return -EINVAL;
	}
}

struct pageout { struct sync_dirty sync; uint64_t from, to; };

static void pageout_written(struct sync_dirty *s, int error)
{
	struct pageout *p = container_of(s, struct pageout, sync);
	struct file *f = s->file;

	f->n_async--;
	(void)file_drop_clean(f, p->from, p->to, false);
	free(p);
}

/* Pages [from, to) go: what is clean at once, the rest as soon as it is written. */
static void page_out(struct file *f, uint64_t from, uint64_t to)
{
	struct pageout *p;

	(void)file_drop_clean(f, from, to, false);
	if (f->e->dirty == 0 && f->e->writeback == 0)
		return;
	p = f->n_async < ASYNC_MAX ? calloc(1, sizeof(*p)) : NULL;
	if (!p) {
		writeback_background(f); /* cold, they go soon after it */
		return;
	}
	f->n_async++;
	p->from = from;
	p->to = to;
	sync_dirty_range(&p->sync, f, from, MIN(to, file_pages(f)), pageout_written);
}

struct advised { struct request *r; int advice; };

static int madvise_segment(void *arg, struct range seg, uint64_t off, uint64_t attr)
{
	const struct advised *a = arg;
	struct file *f = a->r->file;
	uint64_t from = off / PAGE_SIZE_, to = page_up(off + (seg.end - seg.start));

	if (a->advice == MADV_WILLNEED) {
		willneed(a->r, off, seg.end - seg.start);
		return 0;
	}
	make_cold(f, from, to);
	if (a->advice == MADV_PAGEOUT)
		page_out(f, from, to);
	return 0;
}

static int do_madvise(struct request *r)
{
	const struct pgc_madvise *m = &r->msg.madvise;
	struct space *s = r->handle->space;
	struct advised a = { r, m->advice };

	switch (m->advice) {
	case MADV_NORMAL:
		return space_advise(s, m->addr, m->len, POSIX_FADV_NORMAL);
	case MADV_RANDOM:
		return space_advise(s, m->addr, m->len, POSIX_FADV_RANDOM);
	case MADV_SEQUENTIAL:
		return space_advise(s, m->addr, m->len, POSIX_FADV_SEQUENTIAL);
	case MADV_WILLNEED:
	case MADV_COLD:
	case MADV_PAGEOUT:
		fault_drain_events(s);
		return file_range_set_walk(&s->maps, (struct range){ m->addr, m->addr + m->len }, madvise_segment, &a);
	default:
		return -EINVAL;
	}
}

static int add_kept(void *arg, struct range r, bool keep)
{
	*(uint64_t *)arg += r.end - r.start;
	return 0;
}

/* Kept pages cannot be reclaimed: all files together may keep an eighth of the memory. */
static int do_keep(struct request *r)
{
	struct worker *w = r->file->worker;
	uint64_t limit = atomic_load_explicit(&w->budget->memory_max, memory_order_relaxed) / 8 / w->n_workers * PAGE_SIZE_, had = 0;
	const struct pgc_keep *m = &r->msg.keep;
	struct file *f = r->file;
	struct range range = { align_down(m->off, PAGE_SIZE_), align_up(m->off + m->len, PAGE_SIZE_) };
	uint64_t len = range.end - range.start;
	int e;

	dirty_set_walk(&f->kept, range, add_kept, &had);
	if (m->on) {
		if (len - had > limit || w->kept_bytes + (len - had) > limit)
			return -EDQUOT;
		e = dirty_set_mark_dirty(&f->kept, range, true);
		len -= had;
	} else {
		e = dirty_set_forget(&f->kept, range);
		len = -had;
	}
	if (e < 0)
		return e;
	f->kept_bytes += len;
	w->kept_bytes += len;
	file_save_ranges(f);
	for (uint64_t index = range.start >> BLOCK_SHIFT;;) {
		struct block *b = block_tree_next(&f->blocks, index, false);
		uint64_t pages;

		if (!b || block_first(b) * PAGE_SIZE_ >= range.end)
			break;
		pages = block_mask(b, range.start / PAGE_SIZE_, range.end / PAGE_SIZE_) & b->e->resident;
		/* One in writeback too: it is writable until now, or from now on. */
		block_set_dirty(b, m->on ? pages : pages & b->e->keep);
		block_set_keep(b, pages, m->on);
		kill_point("keep.set");
		index = b->e->index + 1;
	}
	if (m->on)
		file_changed(f);
	return 0;
}

/* --- checks and dispatch --- */

static void advance(struct task *t)
{
	struct request *r = container_of(t, struct request, task);

	switch (r->msg.type) {
	case PGC_MSG_READ:
		advance_read(r);
		break;
	case PGC_MSG_POPULATE:
		advance_populate(r);
		break;
	default:
		start(r, -1);
	}
}

/* Starts it. 0 or an error: it is answered at once; 1: it ends by itself. */
static int begin(struct request *r, int fd)
{
	struct handle *h = r->handle;
	struct file *f = r->file;
	const struct pgc_msg *m = &r->msg;
	uint64_t from, to;
	int e;

	switch (m->type) {
	case PGC_MSG_CLOSE:
		h->closing = true;
		space_end_window(h->space);
		space_save_closing(h->space);
		kill_point("close.begun");
		fault_drain_events(h->space);
		space_confirm_unmapped(h->space);
		return 0;
	case PGC_MSG_MAP:
		if (!h->readable)
			return -EACCES;
		if (!is_aligned(m->map.addr | m->map.len | m->map.off, file_unit(f)))
			return -EINVAL;
		if (!fault_drain_events(h->space)) {
			worker_retry(f->worker, &r->task); /* begins again */
			return 1;
		}
		/*
		 * Known from the kernel already. If it is that range's older mapping, the event of its end is still to come, before which nothing can be mapped
		 * there; then it is looked up.
		 */
		if (space_has(h->space, m->map.addr, m->map.addr + m->map.len, m->map.off, m->map.flags & PGC_MAP_SHARED))
			return 0;
		return space_map(h->space, m->map.addr, m->map.len, m->map.off, m->map.flags & PGC_MAP_SHARED);
	case PGC_MSG_READ:
		if (!h->readable)
			return -EBADF;
		f->worker->stats->reads++;
		worker_queue(f->worker, &r->task);
		return 1;
	case PGC_MSG_POPULATE:
		if (!h->readable)
			return -EACCES;
		worker_queue(f->worker, &r->task);
		return 1;
	case PGC_MSG_XFER:
		if (h->xfer && m->status != PGC_REQUEST_AGAIN)
			return -EEXIST;
		e = memory_map_sealed(fd, 0, PGC_XFER_SIZE, &r->data, &r->data_len);
		if (e < 0)
			return e;
		xfer_unref(h->xfer);
		h->xfer = calloc(1, sizeof(*h->xfer));
		if (!h->xfer)
			return -ENOMEM;
		*h->xfer = (struct xfer){ TAKE_PTR(r->data), 1 };
		kill_point("xfer.mapped");
		return 0;
	case PGC_MSG_WRITE:
		if (!h->writable)
			return -EBADF;
		f->worker->stats->writes++;
		written_take(f, 0, UINT64_MAX); /* it waits as for writes that nobody asked for */
		e = begin_write(r, fd);
		return e < 0 ? e : 1;
	case PGC_MSG_SYNC:
		if (m->status == PGC_REQUEST_AGAIN && space_was_done(h->space, m, &r->reply)) {
			r->answered_before = true;
			return -(int)r->reply.status;
		}
		f->worker->stats->syncs++;
		if (m->sync.flags & PGC_SYNC_ASYNC)
			return start_async(r);
		sync_range(r, &from, &to);
		if (m->sync.flags & PGC_SYNC_LOOK)
			sync_look_range(&r->sync, f, from, to, looked);
		else
			sync_dirty_range(&r->sync, f, from, to, sync_written);
		return 1;
	case PGC_MSG_TRUNCATE:
		if (!h->writable)
			return -EINVAL;
		r->file_op = (struct file_op){
			.kind = FILE_OP_TRUNCATE, .off = m->truncate.size, .toucher = h->space->toucher, .handle = h->space->id, .tag = m->tag, .was_done = op_was_done,
			.done = file_op_done,
		};
		ops_queue(f, &r->file_op);
		return 1;
	case PGC_MSG_FALLOCATE:
		if (!h->writable)
			return -EBADF;
		r->file_op = (struct file_op){
			.kind = FILE_OP_FALLOCATE, .off = m->fallocate.off, .len = m->fallocate.len, .mode = m->fallocate.mode,
			.toucher = h->space->toucher, .handle = h->space->id, .tag = m->tag, .was_done = op_was_done, .done = file_op_done,
		};
		ops_queue(f, &r->file_op);
		return 1;
	case PGC_MSG_STAT:
		if (m->stat.life && window_life() < 0)
			return -EOPNOTSUPP;
		if (track_needed(f)) /* what was stored to moves its times */
			sync_look_range(&r->sync, f, 0, file_pages(f), looked_for_stat);
		else
			start_stat(r);
		return 1;
	case PGC_MSG_SEEK:
		seek_start(&r->seek, f, m->seek.off, (int)m->seek.whence, seek_done);
		return 1;
	case PGC_MSG_FADVISE:
		return h->readable ? do_fadvise(r) : 0;
	case PGC_MSG_MADVISE:
		return do_madvise(r);
	case PGC_MSG_KEEP:
		return h->writable ? do_keep(r) : -EBADF;
	default:
		assert(0);
		return -EINVAL;
	}
}

static void start(struct request *r, int fd)
{
	int e = begin(r, fd);

	if (e <= 0)
		request_end(r, e);
}

/*
 * After a take-over requests can come twice: those that lay in the socket unread, and were sent again by a client that had not heard yet. Whether this one is
 * left out.
 */
static bool comes_twice(struct handle *h, const struct pgc_msg *msg)
{
	struct restored_tags *t = h->restored;
	bool to_us = msg->status >> 8; /* else it may have been sent to the daemon before, even one that was sent again after an ATTACH */

	if (!t)
		return false;
	/* It needs the transfer area, which comes before it when it is sent again. */
	if (msg->type == PGC_MSG_WRITE && !(msg->write.flags & PGC_WRITE_DATAFD) && !h->xfer)
		return true;
	for (unsigned i = 0; i < t->n && to_us; i++)
		if (t->tag[i] == msg->tag)
			return true;
	if (!to_us && t->n < ELEMENTSOF(t->tag))
		t->tag[t->n++] = msg->tag;
	return false;
}

/* Answers at once, with descriptors. */
static void open_window(struct handle *h, const struct pgc_msg *msg, const int *memfds)
{
	const struct pgc_window *m = &msg->window;
	struct space *s = h->space;
	struct pgc_msg reply;
	int fds[3] = { -1, -1, -1 }, r;
	bool writes = h->readable && h->writable;

	conn_reply_init(&reply, msg, 0);
	if (m->len == 0) {
		space_end_window(s);
		handle_reply(h, &reply, NULL, 0);
		return;
	}
	r = h->readable ? 0 : -EBADF;
	if (r == 0)
		r = window_open(&s->readers, h->file, writes, memfds, m->len, fds, &reply.window_reply.blocks);
	if (r == 0) {
		r = space_set_window(s, m->addr, m->len);
		if (r < 0)
			window_close(&s->readers);
	}
	reply.status = (uint32_t)-r;
	fds[2] = h->file->written.fd;
	handle_reply(h, &reply, fds, r < 0 ? 0 : writes ? 3 : 2);
	cleanup_close(&fds[0]);
}

void request_refuse(struct handle *h, const struct pgc_msg *msg, int error)
{
	struct pgc_msg reply;

	conn_reply_init(&reply, msg, error);
	handle_reply(h, &reply, NULL, 0);
}

const char *request_begin(struct handle *h, const struct pgc_msg *received, const int *fds, unsigned n_fds)
{
	struct pgc_msg copy = *received;
	const struct pgc_msg *msg = &copy;
	struct request *r;
	const char *wrong;

	if ((copy.status & 0xff) == PGC_REQUEST_AGAIN) {
		/* Meant for a daemon that is dead as well by now: it comes once more, or had its answer. */
		if (copy.status >> 8 && copy.status != PGC_REQUEST_AGAIN_TO(state_header(h->worker->state)->incarnation))
			return NULL;
		copy.status = PGC_REQUEST_AGAIN;
	}
	if (comes_twice(h, received))
		return NULL;
	if (copy.status == PGC_REQUEST_AGAIN && h->restored && (copy.type == PGC_MSG_OPEN || copy.type == PGC_MSG_CLONE || copy.type == PGC_MSG_ATTACH)) {
		handle_answer_open(h, msg); /* the dead daemon had made the handle, and not said so */
		return NULL;
	}
	wrong = request_check(h, msg, n_fds);
	if (wrong)
		return wrong;
	if (msg->type == PGC_MSG_WINDOW) {
		open_window(h, msg, fds);
		return NULL;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		request_refuse(h, msg, -ENOMEM);
		return NULL;
	}
	r->handle = h;
	r->file = h->file;
	r->msg = *msg;
	conn_reply_init(&r->reply, msg, 0);
	list_init(&r->task.link);
	r->task.run = advance;
	r->task.flow = worker_flow(&h->space->toucher);
	waiter_init(&r->waiter, request_ready);
	list_init(&r->parked.link);
	r->parked.resume = request_resume;
	list_append(&h->requests, &r->link);
	h->n_requests++;
	h->file->requests++;
	kill_point("request.received");
	start(r, n_fds ? fds[0] : -1);
	return NULL;
}
