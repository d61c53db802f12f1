/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of a daemon that is gone comes back to life. Its memory is there (file_restore()); then
 *
 *   blocks    what the memfd really has; what it has besides is punched, so that reads of the dead daemon end in pages that nobody sees
 *   store     is asked for its size and version
 *   changes   that were under way are carried out
 *   mappings  of each space from /proc/PID/maps, and from the kernel's answer which userfaultfd serves them; until then its faults are only collected
 *   wake      all who wait
 *
 * The daemon may die again at any of these steps: nothing of a record goes before what replaces it is there.
 * Runs on the file's worker. May call fault and what is below.
 */
#include "daemon/revive.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "daemon/conn.h"
#include "daemon/fault.h"
#include "daemon/file_save.h"
#include "daemon/huge.h"
#include "daemon/kept.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/ops.h"
#include "daemon/poison.h"
#include "daemon/saved.h"
#include "daemon/space_save.h"
#include "daemon/track.h"
#include "daemon/vma_query.h"
#include "daemon/writeback.h"
#include "daemon/written.h"

#define ASK_TRIES 1000u /* a fraction of a second, while its mappings change all the time */

/* --- what there is too little of --- */

bool revive_may_pass(int error) { return error == -ENOMEM || error == -EMFILE || error == -ENFILE || error == -ENOSPC || error == -EAGAIN; }

void revive_die(const char *name, const char *what, int error)
{
	log_at(LOG_LEVEL_ERROR, name, 0, "%s: %s: this daemon ends, so that the next one tries it again", what, strerror(-error));
	(void)kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

void *revive_alloc(size_t size)
{
	void *p = NULL;

	for (unsigned i = 0; !p && i < REVIVE_TRIES; i++)
		p = calloc(1, size);
	if (!p)
		revive_die(NULL, "taking over", -ENOMEM);
	return p;
}

/* --- files and blocks --- */

int revive_store(struct file *f, int *fds, unsigned n)
{
	struct worker *w = f->worker;
	uint32_t align = f->saved->dio_align;
	int r = n == 0 ? 0 : fcntl(fds[0], F_GETFL) & O_DIRECT ? -EBADF : -EAGAIN;

	for (unsigned i = 0; revive_may_pass(r) && i < REVIVE_TRIES; i++)
		r = file_store_open(&f->store, &w->ring, fds[0], -1, align);
	if (revive_may_pass(r))
		revive_die(f->e->name, "its store cannot be taken over", r);

	if (n == 0 || r < 0) {
		for (unsigned i = 0; i < n; i++)
			conn_close_fd(&w->ring, fds[i]);
		return r;
	}
	for (unsigned i = 1; i < n; i++) {
		bool direct = fcntl(fds[i], F_GETFL) & O_DIRECT;

		file_store_add(f->store, direct ? -1 : fds[i], direct ? fds[i] : -1, align);
	}
	return 0;
}

void revive_forget_file(struct worker *w, uint32_t slot, const char *why)
{
	struct pgc_file_entry *e = &w->state->files[slot];
	struct pgc_saved_file *s = &w->state->saved_files[slot];
	char name[FDSTORE_NAME_MAX];

	if (why) {
		e->name[sizeof(e->name) - 1] = 0;
		log_at(e->dirty ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING, e->name, 0, "not taken over: %s%s", why,
		       e->dirty ? "; what was dirty is lost" : "");
	}
	saved_clear(s);
	kill_point("restore.record_cleared");
	saved_clear(e);
	kept_remove(w, fdstore_name(name, 's', slot), 0, NULL, 0);
	kept_remove(w, fdstore_name(name, 't', slot), 0, NULL, 0);
	kept_remove(w, fdstore_name(name, 'f', slot), 0, &w->file_slots, slot);
}

/* Pages of the block that the memfd has. */
static uint64_t present_pages(struct revive_run *run, struct file *f, uint64_t index)
{
	uint64_t start = index << BLOCK_SHIFT, end = start + PGC_BLOCK_SIZE, at = start, present = 0;

	while (at < end) {
		if (run->file != f || at < run->start || at >= run->end) {
			off_t data = lseek(f->memfd, (off_t)at, SEEK_DATA), hole;

			if (data < 0 || (uint64_t)data >= end)
				break;
			hole = lseek(f->memfd, data, SEEK_HOLE);
			*run = (struct revive_run){ f, (uint64_t)data, hole < 0 ? end : align_up((uint64_t)hole, PAGE_SIZE_) };
			at = run->start;
		}
		uint64_t to = MIN(run->end, end);

		present |= bits_range((unsigned)((at - start) / PAGE_SIZE_), (unsigned)((to - at) / PAGE_SIZE_));
		at = to;
	}
	return present;
}

void revive_forget_block(struct worker *w, uint32_t slot)
{
	saved_clear(&w->state->blocks[slot]);
	kill_point("restore.block_forgotten");
	slot_pool_give(&w->block_slots, slot);
}

/* Has a change that was under way, whose effect on the memory may be half there, touched these pages? They count as changed. */
static uint64_t being_written(struct file *f, uint64_t index)
{
	const struct pgc_saved_op *o = &f->saved->op;
	uint64_t from, to, first = index * PGC_BLOCK_PAGES;

	if (o->kind != 1 + FILE_OP_WRITE || o->len == 0 || o->off > INT64_MAX || o->len > INT64_MAX)
		return 0;
	from = MAX(o->off / PAGE_SIZE_, first);
	to = MIN(page_up(o->off + o->len), first + PGC_BLOCK_PAGES);
	return from < to ? bits_range((unsigned)(from - first), (unsigned)(to - from)) : 0;
}

static void take_block(struct file *f, uint32_t slot, uint64_t resident, uint64_t dirty, uint64_t keep)
{
	int r = -ENOMEM;

	for (unsigned i = 0; r == -ENOMEM && i < REVIVE_TRIES; i++)
		r = block_restore(f, slot, resident, dirty, keep);
	if (r < 0)
		revive_die(f->e->name, "its pages cannot be taken over", r);
}

/* Pages that were being dropped, and whose bytes went with the pipe that they were in. They had been clean: the store has them, but for what was stored to in between. */
static uint64_t dropped_pages(struct file *f, const struct pgc_block_entry *e, uint64_t present)
{
	uint64_t gone = track_was_dropping(f, e->index) & e->resident & ~present, lost = gone & (e->dirty | e->writeback);

	if (lost) {
		log_at(LOG_LEVEL_ERROR, f->e->name, 0, "%d pages were stored to while they were given up, and are lost", __builtin_popcountll(lost));
		file_record_error(f, -EIO);
	}
	return gone;
}

void revive_block(struct worker *w, uint32_t slot, struct revive_run *run)
{
	struct pgc_block_entry *e = &w->state->blocks[slot];
	struct file *f = w->file_of[e->file - w->file_slots.first];
	uint64_t resident, dirty, present, dropped, left, written;

	if (e->index * PGC_BLOCK_PAGES >= file_pages(f) || block_tree_find(&f->blocks, e->index)) {
		revive_forget_block(w, slot);
		return;
	}
	present = f->exact || f->huge ? ~0ull : present_pages(run, f, e->index);
	dropped = dropped_pages(f, e, present);
	resident = e->resident & ~dropped & bits_range(0, (unsigned)MIN(file_pages(f) - e->index * PGC_BLOCK_PAGES, PGC_BLOCK_PAGES));
	written = written_bits(f, e->index);
	dirty = (e->dirty | e->writeback | ((being_written(f, e->index) | track_was_busy(f, e->index) | written) & e->resident)) & resident;
	if (e->writeback)
		file_hold_writes(f, true);
	if (written & resident)
		file_changed(f);
	if (f->distrusted && f->tracked.fd < 0)
		resident = dirty;
	else if (f->distrusted) /* what was stored to without a fault is not known yet, and would be lost with what is clean */
		dirty = resident &= present;
	/* What a client has punched out of its own file is zeros written by it; of what is clean the store still knows. */
	for (left = dirty & ~present; left; left &= left - 1)
		(void)file_zero_pages(f, e->index * PGC_BLOCK_PAGES + (unsigned)__builtin_ctzll(left), 1);
	if (dirty & ~present)
		run->file = NULL;
	kill_point("restore.block_looked_at");
	resident &= present | dirty;
	if (resident == 0 && f->huge && e->index % HUGE_BLOCKS == 0)
		huge_release(f, e->index * PGC_BLOCK_PAGES); /* it was about to be read in */
	if (resident == 0)
		revive_forget_block(w, slot);
	else
		take_block(f, slot, resident, dirty, e->keep);
}

/* The memfd has nothing but what is resident. */
static void punch_the_rest(struct file *f)
{
	off_t at = 0, data, end;

	if (f->huge)
		huge_settle(f);
	while (!f->exact && !f->huge && (data = lseek(f->memfd, at, SEEK_DATA)) >= 0) {
		end = lseek(f->memfd, data, SEEK_HOLE);
		if (end <= data)
			break;
		(void)file_punch_strays(f, (uint64_t)data / PAGE_SIZE_, page_up((uint64_t)end));
		at = end;
	}
	kill_point("restore.rest_punched");
	crash_order();
	f->saved->filling = 0;
	f->saved->scan_from = f->saved->scan_to = f->saved->drop_n = 0;
}

/* --- changes that were under way --- */

struct redone {
	struct file_op op;
	struct pgc_msg request;
};

static void redone_done(struct file_op *op, int error)
{
	struct redone *r = container_of(op, struct redone, op);
	struct file *f = op->file;
	struct space *s;
	struct pgc_msg reply = { .status = (uint32_t)-error };

	reply.write_reply.size = f->size;
	list_for_each(s, &f->spaces, by_file)
		if (s->id == op->handle)
			space_save_done(s, &r->request, &reply);
	kill_point("restore.change_done");
	free(r);
}

/* It had its answer already; it was only not crossed out yet. */
static bool op_is_over(struct file *f, const struct pgc_saved_op *o)
{
	struct space *s;

	list_for_each(s, &f->spaces, by_file)
		if (s->id == o->handle && s->saved && s->saved->done.tag == o->tag)
			return true;
	return false;
}

void revive_hold(struct file *f)
{
	bool moves = f->saved->op.kind > 1 + FILE_OP_WRITE; /* each of the others asks something of the store */

	file_hold_writes(f, (f->hold_writes || moves) && f->worker->lifelines > 0);
}

static void redo_op(struct file *f)
{
	const struct pgc_saved_op o = f->saved->op;
	struct redone *r;

	if (o.kind == 0)
		return;
	if (op_is_over(f, &o) || (o.kind == 1 + FILE_OP_WRITE && o.off < o.size)) {
		f->saved->op.kind = 0; /* a write that is no append does as well where its client asks for it again */
		return;
	}
	r = revive_alloc(sizeof(*r));
	r->op = (struct file_op){ .off = o.off, .len = o.len, .mode = (int)o.mode, .handle = o.handle, .tag = o.tag, .done = redone_done };
	r->request.tag = o.tag;
	switch (o.kind - 1) {
	case FILE_OP_WRITE:
		r->op.kind = FILE_OP_HOLD;
		break;
	case FILE_OP_TRUNCATE:
		r->op.kind = FILE_OP_TRUNCATE;
		r->request.type = PGC_MSG_TRUNCATE;
		break;
	case FILE_OP_FALLOCATE:
		r->op.kind = FILE_OP_FALLOCATE;
		r->request.type = PGC_MSG_FALLOCATE;
		break;
	default:
		f->saved->op.kind = 0;
		free(r);
		return;
	}
	kill_point("restore.change_begun");
	ops_queue(f, &r->op);
}

void revive_space(struct space *s)
{
	s->restoring = true;
	s->tracker.known = false;
	s->tracker.waits = true;
	s->unprotected_lo = 0;
	s->unprotected_hi = 1ull << 52;
}

/* --- mappings, and the end of it --- */

static void space_restored(struct space *s)
{
	struct pgc_saved_file *saved = s->file->saved;

	s->restoring = s->tracker.waits = false;
	s->tracker.known = !s->blind;
	for (unsigned i = 0; i < MIN(saved->n_poisoned, (unsigned)PGC_SAVED_POISONED); i++)
		poison_restore(s, saved->poisoned[i]);
	kill_point("restore.mapped");
	(void)uffd_wake_all(s->uffd);
	kill_point("restore.woken");
	if (s->revived)
		s->revived(s);
	if (!s->closed)
		worker_queue(s->worker, &s->task);
}

/* The child's parent; NULL: it has ended. */
static struct space *parent_of(const struct space *s)
{
	struct space *o;

	list_for_each(o, &s->file->spaces, by_file)
		if (s->saved && o->id == s->saved->parent)
			return o;
	return NULL;
}

/* Changes of what is asked about: a child that never faulted has no number, so its parent is. */
static uint64_t changes_of(const struct space *s)
{
	const struct space *parent = s->pid == 0 ? parent_of(s) : NULL;

	return s->changes + (parent ? parent->changes : 0);
}

static bool is_changing(const struct space *s)
{
	const struct space *parent = s->pid == 0 ? parent_of(s) : NULL;

	return uffd_is_changing(s->uffd) || (parent && uffd_is_changing(parent->uffd));
}

static bool parent_unmaps(const struct space *s)
{
	const struct space *parent = parent_of(s);

	return !parent || parent->unheard;
}

/* Now it can be asked about itself. */
static void ask_itself(struct space *s)
{
	s->blind = false;
	s->ask_tries = 0;
	revive_space(s);
	if (!s->asking)
		revive_ask(s);
}

static void ask_again(struct task *t) { revive_ask(container_of(t, struct space, asking_again)); }

static void ask_when(struct space *s, void (*when)(struct worker *w, struct task *t))
{
	s->asking_again.run = ask_again;
	s->asking_again.flow = worker_flow(&s->toucher);
	when(s->worker, &s->asking_again);
}

/* A shortage passes, and its client waits for nothing else: for want of an answer its pages would stay dirty for good. */
static void ask_later(struct space *s) { ask_when(s, worker_later); }

/* -ENOMEM: not all of it is in the table. What is, the next try passes by: a mapping in its place would be taken for a newer one. */
static int learn_mappings(struct space *s, const struct vma_query *q)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < q->n_segs; i++) {
		const struct vma_seg *v = &q->segs[i];
		bool shared = v->shared && s->writable;

		/* Another handle of the process may serve it; or nobody does, as it is about to be unmapped. */
		if (!space_in_window(s, v->start) && !space_has(s, v->start, v->end, v->off, shared) && uffd_serves(s->uffd, v->start))
			r = space_learn(s, v->start, v->end, v->off, shared);
	}
	return r;
}

static void mappings_answered(struct space *s, struct vma_query *q, int error)
{
	bool changing = is_changing(s), changed; /* first: what is under way later is newer than the look */

	fault_drain_events(s);
	if (tracker_on(&s->tracker) && s->tracker.pagemap < 0)
		s->tracker.pagemap = take_fd(&q->pagemap);
	changed = changing || q->changes != changes_of(s);
	if (changed && (s->pid != 0 || q->pid == 0) && ++s->ask_tries < ASK_TRIES) {
		ask_when(s, changing ? worker_retry : worker_queue);
		return;
	}
	if (error == -EAGAIN) { /* no memory or descriptor, for as long as was waited */
		ask_later(s);
		return;
	}
	if (changed && s->pid != 0) {
		error = -EBUSY; /* each is looked up when it is touched */
	} else if (error == 0) {
		error = learn_mappings(s, q);
		if (error == -ENOMEM) {
			ask_later(s);
			return;
		}
	}
	/* What its parent has unmapped since the fork, it may still have. */
	if (s->pid == 0 && (error == -ESRCH || parent_unmaps(s) || changed)) {
		s->blind = true;
		s->numbered = ask_itself;
	}
	if (error < 0 && error != -ESRCH) {
		s->blind = true;
		log_at(LOG_LEVEL_WARNING, s->file->e->name, s->pid, "what it has mapped cannot be told, its pages stay dirty: %s",
		       strerror(-error));
	}
	space_restored(s);
}

static void mappings_known(struct vma_query *q, int error)
{
	struct space *s = q->owner;

	s->asking = false;
	if (!s->closed && s->restoring)
		mappings_answered(s, q, error);
	cleanup_close(&q->pagemap);
	free(q->segs);
	free(q);
	space_unpin(s);
}

void revive_ask(struct space *s)
{
	struct file *f = s->file;
	struct vma_query *q = calloc(1, sizeof(*q));
	struct space *parent = s->pid == 0 ? parent_of(s) : NULL;
	/* A child that never faulted has no number yet; what it has mapped is what its parent had. */
	pid_t pid = parent ? parent->pid : s->pid;

	fault_drain_events(s);
	if (q)
		*q = (struct vma_query){
			.pid = pid, .all = true, .list = true, .want_pagemap = tracker_on(&s->tracker), .dev = f->memfd_dev, .ino = f->memfd_ino, .changes = changes_of(s), .owner = s,
			.done = mappings_known,
		};
	if (!q || vma_query_start(q, &s->worker->ring) < 0) {
		free(q);
		ask_later(s);
		return;
	}
	s->asking = true;
	space_pin(s);
}

struct restoring { struct store_op op; struct store_stat stat; struct file *file; uint64_t moves; };

static void store_known(struct store_op *op, ssize_t result)
{
	struct restoring *r = container_of(op, struct restoring, op);
	struct file *f = r->file;
	struct space *s, *next;

	if (result < 0)
		log_at(LOG_LEVEL_WARNING, f->e->name, 0, "its store cannot be looked at: %s", strerror((int)-result));
	f->taking_over = false;
	f->store_size = result < 0 ? f->size : r->stat.size;
	revive_hold(f);
	if (result == 0 && f->version.valid)
		result = file_opened(f, &r->stat, r->moves);
	else if (result == 0)
		file_looked_at(f, &r->stat);
	f->state = FILE_READY;
	file_stat_show(f);
	free(r);
	kill_point("restore.store_known");
	redo_op(f);
	if (f->distrusted) {
		log_at(LOG_LEVEL_ERROR, f->e->name, 0, "its record was damaged: %llu pages count as dirty and are written out, the rest is dropped",
		       (unsigned long long)f->e->dirty);
		f->distrusted = false;
		writeback_background(f);
	}
	list_for_each_safe(s, next, &f->spaces, by_file) {
		/* Children of forks that nobody had heard of are added meanwhile. */
		if (!s->watched)
			fault_watch(s);
		if (!s->asking)
			revive_ask(s);
	}
	f->requests--;
	file_maybe_idle(f);
}

void revive_file(struct file *f)
{
	struct restoring *r;

	punch_the_rest(f);
	written_free(f); /* its blocks have it */
	if (!f->store) {
		f->state = FILE_IDLE;
		f->taking_over = false;
		f->saved->op.kind = 0;
		if (f->e->dirty > 0)
			log_at(LOG_LEVEL_ERROR, f->e->name, 0, "%llu dirty pages wait for somebody to open it: its store's descriptors are gone",
			       (unsigned long long)f->e->dirty);
		else if (!f->version.valid && f->awaited == 0)
			file_free(f);
		return;
	}
	r = revive_alloc(sizeof(*r));
	r->file = f;
	r->moves = f->moves;
	r->op.done = store_known;
	f->requests++;
	f->store->ops->stat(f->store, &r->op, &r->stat);
}

