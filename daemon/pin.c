/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins. The range is charged against pin_max first (file_pin), so that what is being read in stays; then its pages are filled one run after the other. When one
 * cannot be read, what this pin has added is let go again.
 * Runs on the file's worker. May call fill and file.
 */
#include "daemon/pin.h"

#define RUN 512u                     /* pages asked for at a time */

static struct range pages_of(const struct file *f, uint64_t off, uint64_t len)
{
	uint64_t end = align_up(f->size, PAGE_SIZE_);

	if (len && len < end - MIN(off, end))
		end = align_up(off + len, PAGE_SIZE_);
	return (struct range){ align_down(off, PAGE_SIZE_), end };
}

static int add_gap(void *arg, struct range gap)
{
	return dirty_set_mark_dirty(arg, gap, false);
}

static int unpin(void *arg, struct range r, bool keep)
{
	(void)file_pin(arg, r.start, r.end, false);
	return 0;
}

static void pin_end(struct pin *p, int error)
{
	if (error)
		(void)dirty_set_walk(&p->added, (struct range){ 0, UINT64_MAX }, unpin, p->file);
	dirty_set_free(&p->added);
	p->done(p, error);
}

static void step(struct task *t)
{
	struct pin *p = container_of(t, struct pin, task);
	struct file *f = p->file;
	struct toucher nobody = { 0 };

	p->end = MIN(p->end, file_pages(f)); /* it may have been cut meanwhile */
	while (p->cursor < p->end && p->error == 0) {
		struct block *b = block_tree_find(&f->blocks, p->cursor / PGC_BLOCK_PAGES);
		uint64_t bit = 1ull << (p->cursor % PGC_BLOCK_PAGES);
		int r;

		if (b && (b->e->resident & bit)) {
			p->cursor++;
			continue;
		}
		if (!f->store) {
			p->error = -EAGAIN;
			break;
		}
		if (file_park(f, p->cursor, 1, &p->parked))
			return;
		r = fill_start(f, p->cursor, MIN(p->end - p->cursor, RUN), 1, &nobody, POLICY_CALL);
		b = block_tree_find(&f->blocks, p->cursor / PGC_BLOCK_PAGES);
		if (b && (b->e->resident & bit))
			continue;
		if (b && (b->filling & bit)) {
			waiter_add(&p->waiter, b, bit);
			return;
		}
		if (r < 0 && r != -ENOBUFS) {
			p->error = r;
			break;
		}
		list_append(&f->worker->no_room, &p->parked.link);
		return;
	}
	pin_end(p, p->error);
}

static void ready(struct waiter *w, int error)
{
	struct pin *p = container_of(w, struct pin, waiter);

	p->error = error == -EAGAIN || error == -EINTR || error == -ENOMEM ? 0 : error;
	worker_queue(p->file->worker, &p->task);
}

static void resume(struct parked *parked)
{
	struct pin *p = container_of(parked, struct pin, parked);

	worker_queue(p->file->worker, &p->task);
}

static void refused(struct task *t)
{
	struct pin *p = container_of(t, struct pin, task);

	dirty_set_free(&p->added);
	p->done(p, p->error);
}

void pin_start(struct pin *p, struct file *f, uint64_t off, uint64_t len, void (*done)(struct pin *p, int error))
{
	struct range r = pages_of(f, off, len);

	*p = (struct pin){ .file = f, .from = r.start, .to = r.end, .done = done };
	dirty_set_init(&p->added);
	list_init(&p->task.link);
	list_init(&p->parked.link);
	p->parked.resume = resume;
	waiter_init(&p->waiter, ready);
	p->task.run = step;
	if (off >= f->size)
		p->error = -EINVAL;
	else if (!f->store || f->state != FILE_READY)
		p->error = -EAGAIN;
	else
		p->error = range_map_walk(&f->pins.map, r, NULL, add_gap, &p->added);
	if (p->error == 0)
		p->error = file_pin(f, r.start, r.end, true);
	if (p->error)
		p->task.run = refused;
	p->cursor = r.start / PAGE_SIZE_;
	p->end = r.end / PAGE_SIZE_;
	worker_queue(f->worker, &p->task);
}

int pin_release(struct file *f, uint64_t off, uint64_t len)
{
	struct range r = pages_of(f, off, len);

	if (len == 0)
		r.end = UINT64_MAX & ~(PAGE_SIZE_ - 1); /* what was pinned before a truncation, too */
	return r.start < r.end ? file_pin(f, r.start, r.end, false) : 0;
}
