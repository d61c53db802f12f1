/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes, truncations and fallocate of a file, one at a time.
 *
 * A write copies with pwrite(2) from the client's memory into the memfd, 256 KiB a round. Pages that it covers in part are filled
 * first; whole ones are not read. Nothing is being filled in the range while it copies. What the store's file system cannot have is refused before. A truncation or a hole first puts up the
 * barrier, behind which new faults, fills and write-outs wait, lets write-outs there finish, changes the store, and
 * then the memory: a store that fails leaves all as it was.
 * Runs on the file's worker. May call file, fill, writeback, reclaim and the store.
 */
#include "daemon/ops.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "daemon/file_save.h"
#include "daemon/kill_point.h"
#include "daemon/reclaim.h"
#include "daemon/window.h"
#include "daemon/writeback.h"

#define HOLD_NS 1000000000ull
#define SIZE_SURE ((uint64_t)INT32_MAX) /* bytes that every file system takes */
#define WAIT 1                       /* a step's answer: it comes back by itself */

/* In the turn of whose operation comes next. */
static void queue_ops(struct file *f)
{
	f->ops_task.flow = worker_flow(&list_first(&f->ops, struct file_op, link)->toucher);
	worker_queue(f->worker, &f->ops_task);
}

static void op_again(struct file_op *op) { queue_ops(op->file); }

static void op_ready(struct waiter *w, int error)
{
	struct file_op *op = container_of(w, struct file_op, waiter);

	if (op->needs_page)
		op->store_op.result = error; /* a page that is covered whole need not have been read */
	op_again(op);
}

static void op_resume(struct parked *p) { op_again(container_of(p, struct file_op, parked)); }

static int op_wait_for_room(struct file_op *op)
{
	list_append(&op->file->worker->no_room, &op->parked.link);
	return WAIT;
}

/* --- write --- */

static bool page_resident(struct file *f, uint64_t page)
{
	struct block *b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);

	return b && (b->e->resident & (1ull << (page % PGC_BLOCK_PAGES)));
}

/* A page that the write covers in part, and that has bytes of the file which stay: it must be resident. */
static int need_page(struct file_op *op, uint64_t page)
{
	struct file *f = op->file;
	struct block *b;
	int r;

	if (page >= file_pages(f) || page_resident(f, page))
		return 0;
	r = fill_start(f, page, 1, 1, &op->toucher, POLICY_CALL | POLICY_WRITE);
	if (r == -ENOBUFS)
		return op_wait_for_room(op);
	if (r < 0)
		return r;
	if (page_resident(f, page))
		return 0;
	b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);
	if (!b || !(b->filling & (1ull << (page % PGC_BLOCK_PAGES))))
		return -EIO;
	op->needs_page = true;
	waiter_add(&op->waiter, b, 1ull << (page % PGC_BLOCK_PAGES));
	return WAIT;
}

/* Pages of [from, to) that are not resident, each in a block that exists. -EINPROGRESS: it waits for a fill; -ENOBUFS: no slot. */
static int64_t count_new(struct file_op *op, uint64_t from, uint64_t to)
{
	struct file *f = op->file;
	int64_t n = 0;

	for (uint64_t p = from; p < to; p = align_down(p, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES) {
		struct block *b = file_block(f, p / PGC_BLOCK_PAGES, &op->toucher);
		uint64_t pages;

		if (!b)
			return -ENOBUFS;
		pages = block_mask(b, p, to);
		reclaim_restore(b, pages, POLICY_CALL | POLICY_WRITE);
		if (b->filling & pages) {
			op->needs_page = false;
			waiter_add(&op->waiter, b, pages);
			return -EINPROGRESS;
		}
		n += __builtin_popcountll(pages & ~b->e->resident);
	}
	return n;
}

/* Blocks that were made for the write and stay empty. That is no room that others wait for. */
static void free_empty(struct file *f, uint64_t from, uint64_t to)
{
	bool room = f->worker->room_made;

	for (uint64_t p = from; p < to; p = align_down(p, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES) {
		struct block *b = block_tree_find(&f->blocks, p / PGC_BLOCK_PAGES);

		if (b)
			block_maybe_free(b);
	}
	f->worker->room_made = room;
}

static void mark_written(struct file_op *op, uint64_t from, uint64_t to)
{
	for (uint64_t p = from; p < to; p = align_down(p, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES) {
		struct block *b = block_tree_find(&op->file->blocks, p / PGC_BLOCK_PAGES);
		uint64_t pages = block_mask(b, p, to);

		block_touched(b, pages, POLICY_CALL | POLICY_WRITE);
		block_set_resident(b, pages, POLICY_CALL | POLICY_WRITE);
		kill_point("write.resident");
		block_dirtied_by(b, &op->toucher);
		block_set_dirty(b, pages);
		block_apply_keep(b);
	}
	file_changed(op->file);
}

static int write_chunk(struct file_op *op, uint64_t lo, uint64_t hi)
{
	struct file *f = op->file;
	struct worker *w = f->worker;
	uint64_t from = lo / PAGE_SIZE_, to = page_up(hi), full;
	int64_t fresh, again;
	struct domain *d;
	ssize_t n;
	int r, error = 0;

	if (op->store_op.result < 0)
		return (int)op->store_op.result; /* a page at an end could not be read */
	if (file_is_stuck(f))
		return f->last_error;
	if (!budget_may_dirty(w->budget, op->toucher.client, op->toucher.user)) {
		if (!op->throttled)
			w->stats->throttled++;
		op->throttled = true;
		reclaim_wake(w);
		return op_wait_for_room(op);
	}
	op->throttled = false;
	for (int tries = 0;; tries++) {
		if (lo % PAGE_SIZE_) {
			r = need_page(op, from);
			if (r)
				return r;
		}
		if (hi % PAGE_SIZE_ && hi < f->size) {
			r = need_page(op, to - 1);
			if (r)
				return r;
		}
		fresh = count_new(op, from, to);
		if (fresh == -EINPROGRESS)
			return WAIT;
		d = fresh < 0 ? NULL : block_tree_find(&f->blocks, from / PGC_BLOCK_PAGES)->domain; /* the range is of one block */
		if (fresh < 0 || !reclaim_charge(w, d, (uint64_t)fresh, false)) {
			free_empty(f, from, to);
			return op_wait_for_room(op);
		}
		/* Making room may have dropped a page of the range, the ends too: then once more. */
		again = count_new(op, from, to);
		if (again == fresh)
			break;
		budget_uncharge(w, d, (uint64_t)fresh);
		w->room_made = false;
		if (again == -EINPROGRESS)
			return WAIT;
		if (tries == 8) {
			free_empty(f, from, to);
			return op_wait_for_room(op);
		}
	}

	if (fresh > 0 && lane_free_run(&f->lent, from, to - from) < to - from) { /* a lane may map what is not whole yet */
		budget_uncharge(w, d, (uint64_t)fresh);
		w->room_made = false;
		free_empty(f, from, to);
		return op_wait_for_room(op);
	}
	if (hi > f->size)
		file_zero_tail(f, f->size);
	kill_point("write.room_made");
	file_stat_hide(f);
	n = pwrite(f->memfd, op->src + op->moved, (size_t)(hi - lo), (off_t)lo);
	kill_point("write.copied");
	if (n < 0) {
		error = -errno;
		n = 0;
	} else if ((uint64_t)n < hi - lo) {
		error = -EFAULT; /* the client's memory ended */
	}
	full = lo + (uint64_t)n;
	if (error) {
		/* Whole pages count. One that was begun counts if it was resident; else it is no page of the file, and goes. */
		uint64_t end = full / PAGE_SIZE_;
		int64_t kept;

		if (n > 0 && full % PAGE_SIZE_) {
			if (page_resident(f, end)) {
				end++;
			} else {
				file_bump_seq(f);
				(void)file_punch(f, end, 1);
				full = MAX(end * PAGE_SIZE_, lo);
			}
		}
		end = n > 0 ? MAX(end, from) : from;
		kept = count_new(op, from, end);
		if (end > from)
			mark_written(op, from, end);
		budget_uncharge(w, d, (uint64_t)(fresh - MAX(kept, 0)));
		free_empty(f, from, to);
		if (full > lo)
			file_grown(f, full);
		(void)!ftruncate(f->memfd, (off_t)MAX(f->size, f->uncut));
		op->moved += full - lo;
		return error;
	}
	file_grown(f, full);
	kill_point("write.grown");
	op->moved += (uint64_t)n;
	mark_written(op, from, to);
	kill_point("write.marked");
	return 0;
}

/* WRITE_ASKED waits for the store; its answer is the step after. */
enum { WRITE_BEGIN, WRITE_ASKED, WRITE_ANSWERED, WRITE_COPIES };

static void store_answered(struct store_op *so, ssize_t result);

/*
 * Whether the store's file system takes a file that long, before anything in the cache is: at the write-out it would be too late. The kernel compares any fallocate with its limit
 * before it asks the file system, and this one no file system carries out: nothing can be taken out of a file that is no block, and beyond the end. So it does not matter when it
 * comes to the store.
 */
static int ask_for_size(struct file_op *op, uint64_t size)
{
	struct file *f = op->file;

	op->step = WRITE_ASKED;
	op->asked = size;
	op->store_op.done = store_answered;
	file_moving(f); /* some note the time of the attempt */
	f->store->ops->fallocate(f->store, &op->store_op, FALLOC_FL_COLLAPSE_RANGE, size - 1, 1);
	return WAIT;
}

static int begin_write(struct file_op *op)
{
	struct file *f = op->file;
	uint64_t end;

	if (op->append)
		op->off = f->size;
	if (op->off > (uint64_t)INT64_MAX - op->len)
		return -EFBIG;
	if (!f->store->writable)
		return -EBADF;
	end = op->off + op->len;
	if (op->len == 0 || end <= MAX(f->size, MAX(f->size_sure, SIZE_SURE)))
		return 0;
	return ask_for_size(op, end <= INT64_MAX / 2 ? end * 2 : end); /* so that one that grows and grows asks seldom */
}

static int size_answered(struct file_op *op)
{
	uint64_t end = op->off + op->len;
	ssize_t result = op->store_op.result;

	if (result == -EFBIG)
		return op->asked > end ? ask_for_size(op, end) : -EFBIG;
	if (result == -EINVAL || result == -EOPNOTSUPP)
		op->file->size_sure = op->asked;
	return 0; /* anything else says nothing about it */
}

static int step_write(struct file_op *op)
{
	struct file *f = op->file;
	uint64_t lo, hi;
	int r = 0;

	if (op->step == WRITE_ASKED)
		return WAIT;
	if (op->step == WRITE_BEGIN)
		r = begin_write(op);
	else if (op->step == WRITE_ANSWERED)
		r = size_answered(op);
	if (r)
		return r;
	if (op->step != WRITE_COPIES) {
		op->step = WRITE_COPIES;
		op->store_op.result = 0;
		if (op->handle && !op->held)
			file_save_op(f, op->kind, 0, op->handle, op->tag, op->off, op->len);
		kill_point("write.begun");
	}
	if (op->len == 0)
		return 0;
	lo = op->off + op->moved;
	hi = MIN(op->off + op->len, align_down(lo, PGC_BLOCK_SIZE) + PGC_BLOCK_SIZE);
	r = write_chunk(op, lo, hi);
	if (r)
		return r;
	f->version.valid = false;
	if (op->moved < op->len) {
		op_again(op); /* a long one: the others' turn in between */
		return WAIT;
	}
	return 0;
}

/* --- the store's answer --- */

static void store_answered(struct store_op *so, ssize_t result)
{
	struct file_op *op = container_of(so, struct file_op, store_op);

	so->result = result;
	op->step++;
	op_again(op);
}

static void put_barrier(struct file *f, uint64_t from, uint64_t to)
{
	f->barrier = (struct file_barrier){ true, from, to };
}

/* --- truncate --- */

/* ASKED and EXTENDING wait for the store; its answer is the step after. */
enum { BEGIN, BARRIER, ASKED, ANSWERED, EXTENDING, EXTENDED };

static int step_truncate(struct file_op *op)
{
	struct file *f = op->file;
	int r;

	switch (op->step) {
	case BEGIN:
		if (op->off > INT64_MAX)
			return -EFBIG;
		if (!f->store->writable)
			return -EINVAL;
		if (op->handle)
			file_save_op(f, op->kind, 0, op->handle, op->tag, op->off, 0);
		kill_point("truncate.begun");
		if (op->off < f->size)
			put_barrier(f, op->off / PAGE_SIZE_, ~0ull);
		op->step = BARRIER;
		/* fall through */
	case BARRIER:
		if (f->barrier.active && writeback_in_flight(f, f->barrier.from, f->barrier.to))
			return WAIT; /* the write-out's end comes back to us */
		op->step = ASKED;
		op->store_op.done = store_answered;
		file_moving(f);
		f->store->ops->truncate(f->store, &op->store_op, op->off);
		kill_point("truncate.store_asked");
		return WAIT;
	case ASKED:
		return WAIT;
	default:
		r = (int)op->store_op.result;
		if (r == 0) {
			kill_point("truncate.store_done");
			r = file_set_size(f, op->off);
			kill_point("truncate.memory_done");
			f->store_size = op->off;
			file_changed(f);
		}
		file_lift_barrier(f);
		return r;
	}
}

/* --- fallocate --- */

/* Zeroes the part [from, to) of one page, if it is resident; what the second-chance buffer has of it is no more what the store has. */
static void zero_part(struct file *f, uint64_t from, uint64_t to)
{
	struct block *b = from < to ? block_tree_find(&f->blocks, from >> BLOCK_SHIFT) : NULL;

	if (b && b->second) {
		block_forget_second(b, block_mask(b, from / PAGE_SIZE_, from / PAGE_SIZE_ + 1));
		block_maybe_free(b);
	}
	if (from < to && page_resident(f, from / PAGE_SIZE_))
		(void)fallocate(f->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from));
}

/* The store has zeros in [off, end): so has the memory. */
static void punch_memory(struct file *f, uint64_t off, uint64_t end)
{
	uint64_t from = page_up(off), to = end / PAGE_SIZE_, index;
	struct block *b;

	f->fill_gen++;
	file_stat_hide(f);
	window_hide(f, from, from < to ? to - from : 0);
	if (from > to) { /* within one page */
		zero_part(f, off, end);
		return;
	}
	zero_part(f, off, from * PAGE_SIZE_);
	zero_part(f, to * PAGE_SIZE_, end);
	if (from == to)
		return;
	if (file_punch(f, from, to - from) < 0)
		return;
	kill_point("fallocate.punched");
	for (index = from / PGC_BLOCK_PAGES; (b = block_tree_next(&f->blocks, index, false)) && block_first(b) < to;) {
		index = b->e->index + 1;
		block_forget(b, block_mask(b, from, to));
		block_maybe_free(b);
	}
}

static int fallocate_check(struct file_op *op)
{
	switch (op->mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (op->len == 0 || op->off > INT64_MAX || op->len > INT64_MAX)
		return -EINVAL;
	if (op->off + op->len > INT64_MAX)
		return -EFBIG;
	return op->file->store->writable ? 0 : -EBADF;
}

static int step_fallocate(struct file_op *op)
{
	struct file *f = op->file;
	bool zeroes = op->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	uint64_t end = op->off + op->len;
	int r;

	switch (op->step) {
	case BEGIN:
		r = fallocate_check(op);
		if (r < 0)
			return r;
		if (op->handle)
			file_save_op(f, op->kind, op->mode, op->handle, op->tag, op->off, op->len);
		kill_point("fallocate.begun");
		if (zeroes)
			put_barrier(f, op->off / PAGE_SIZE_, page_up(end));
		op->step = BARRIER;
		/* fall through */
	case BARRIER:
		if (f->barrier.active && writeback_in_flight(f, f->barrier.from, f->barrier.to))
			return WAIT;
		op->step = ASKED;
		op->store_op.done = store_answered;
		file_moving(f);
		f->store->ops->fallocate(f->store, &op->store_op, op->mode, op->off, op->len);
		kill_point("fallocate.store_asked");
		return WAIT;
	case ASKED:
	case EXTENDING:
		return WAIT;
	default:
		r = (int)op->store_op.result;
		if (r == 0 && zeroes && op->step == ANSWERED && f->store_size < f->size && end > f->store_size &&
		    ((op->mode & FALLOC_FL_KEEP_SIZE) || end < f->size)) {
			/* The dirty pages that would have made the store this long may be among those that go. */
			op->step = EXTENDING;
			kill_point("fallocate.extending");
			f->store->ops->truncate(f->store, &op->store_op, f->size);
			return WAIT;
		}
		if (op->step == EXTENDED && r == 0)
			f->store_size = f->size;
		kill_point("fallocate.store_done");
		if (zeroes && (r == 0 || op->step == EXTENDED))
			punch_memory(f, op->off, end); /* the store has zeros there, whatever came after */
		kill_point("fallocate.memory_done");
		if (r == 0) {
			if (!(op->mode & FALLOC_FL_KEEP_SIZE)) {
				f->store_size = MAX(f->store_size, end);
				if (end > f->size)
					r = file_set_size(f, end);
			}
			file_changed(f);
		}
		file_lift_barrier(f);
		return r;
	}
}

/* --- extend --- */

static int step_extend(struct file_op *op)
{
	struct file *f = op->file;

	switch (op->step) {
	case BEGIN:
		if (f->store_size >= f->size || !f->store->writable)
			return 0;
		/* No write-out goes beyond the file's size, so this cannot cut what one has just written. */
		op->step = ASKED;
		op->store_op.done = store_answered;
		file_save_op(f, op->kind, 0, 0, 0, f->size, 0); /* if it ended after our death, it could cut what the next daemon writes */
		file_moving(f);
		f->store->ops->truncate(f->store, &op->store_op, f->size);
		kill_point("extend.store_asked");
		return WAIT;
	case ASKED:
		return WAIT;
	default:
		kill_point("extend.store_done");
		if (op->store_op.result == 0)
			f->store_size = f->size;
		return (int)op->store_op.result;
	}
}

/* --- hold --- */

static void hold_expired(struct ring_timer *t)
{
	struct file_op *op = container_of(t, struct file_op, timer);

	op->file->timers--;
	op->step = ANSWERED;
	op_again(op);
}

static int step_hold(struct file_op *op)
{
	if (op->step == BEGIN) {
		op->step = ASKED;
		op->file->timers++;
		ring_timer_init(&op->timer, hold_expired);
		op->timer.cancelled = hold_expired;
		ring_timer_arm(&op->file->worker->ring, &op->timer, HOLD_NS);
	}
	return op->step == ASKED ? WAIT : 0;
}

/* The append that a hold waits for goes where the dead daemon had begun it, before all others. Whether `op` is it. */
static bool take_held_place(struct file *f, struct file_op *op)
{
	struct file_op *hold = list_first(&f->ops, struct file_op, link);

	if (!hold || hold->kind != FILE_OP_HOLD || op->kind != FILE_OP_WRITE || op->handle != hold->handle || op->tag != hold->tag)
		return false;
	op->off = hold->off;
	op->append = false;
	op->held = true;
	list_insert_before(hold->link.next, &op->link);
	if (hold->timer.armed)
		ring_cancel(&f->worker->ring, &hold->timer.op); /* it expires now */
	return true;
}

/* --- the queue --- */

static void finish_op(struct file *f, struct file_op *op, int error)
{
	struct file_op *next;

	list_remove(&op->link);
	f->moves += op->kind > FILE_OP_WRITE; /* each of the others may have asked something of the store */
	f->requests++; /* whoever is told may be the last to use the file */
	kill_point("operation.done");
	op->done(op, error);
	f->requests--;
	/* The record of an append that was held is right as it is, and must not be missing for a moment: the file may have grown by it. */
	next = list_first(&f->ops, struct file_op, link);
	if (!next || !next->held)
		file_save_op_end(f);
	if (next)
		queue_ops(f);
	else if ((f->times.moved || (f->e->dirty == 0 && !f->version.valid)) && list_empty(&f->writes))
		file_refresh_version(f);
	file_maybe_idle(f);
}

static void run_ops(struct task *t)
{
	struct file *f = container_of(t, struct file, ops_task);
	struct file_op *op = list_first(&f->ops, struct file_op, link);
	int r;

	if (!op || !list_empty(&op->waiter.link) || !list_empty(&op->parked.link))
		return;
	if (f->hold_writes && op->kind != FILE_OP_WRITE && op->kind != FILE_OP_HOLD) {
		list_append(&f->worker->lifeline_wait, &op->parked.link); /* what a dead daemon has asked of the store may come after ours */
		return;
	}
	if (op->step == 0 && op->was_done && op->was_done(op, &r)) {
		finish_op(f, op, r);
		return;
	}
	switch (op->kind) {
	case FILE_OP_WRITE:
		r = step_write(op);
		break;
	case FILE_OP_TRUNCATE:
		r = step_truncate(op);
		break;
	case FILE_OP_FALLOCATE:
		r = step_fallocate(op);
		break;
	case FILE_OP_HOLD:
		r = step_hold(op);
		break;
	default:
		r = step_extend(op);
		break;
	}
	if (r != WAIT)
		finish_op(f, op, r);
}

void ops_queue(struct file *f, struct file_op *op)
{
	op->file = f;
	op->moved = 0;
	op->step = 0;
	op->store_op = (struct store_op){ 0 };
	waiter_init(&op->waiter, op_ready);
	list_init(&op->parked.link);
	op->parked.resume = op_resume;
	if (!take_held_place(f, op))
		list_append(&f->ops, &op->link);
	op_again(op);
}

void ops_file_init(struct file *f) { f->ops_task.run = run_ops; }
