/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that could not be read are poisoned where they were touched: SIGBUS, as with a failing disk. The file remembers them and reads again on a
 * timer, at first after 50 ms, then less often; a CONTINUE takes the poison away.
 * Runs on the file's worker. May call space, fill, file, uffd.
 */
#include "daemon/poison.h"

#include "daemon/file_save.h"
#include "daemon/fill.h"

#define POISON_PER_TURN    64u
#define POISON_RETRY_NS    50000000ull
#define POISON_BACKOFF_MAX 6u        /* 50 ms << 6 = 3.2 s */

static void poison_timer_expired(struct ring_timer *t);

static void poison_arm(struct file *f)
{
	if (f->poison_timer.armed || list_empty(&f->poisoned))
		return;
	f->timers++;
	ring_timer_arm(&f->worker->ring, &f->poison_timer, POISON_RETRY_NS << MIN(f->poison_backoff, POISON_BACKOFF_MAX));
}

/* Pages became resident: what was poisoned for want of them is mapped, which takes the poison away. */
void poison_heal(struct file *f, uint64_t first, uint64_t n)
{
	struct poisoned *p, *next;
	uint64_t mapped;

	list_for_each_safe(p, next, &f->poisoned, by_file) {
		int r;

		if (p->page < first || p->page >= first + n)
			continue;
		r = space_continue(p->space, p->addr, p->page, file_unit(f) / PAGE_SIZE_, p->shared, p->shared, &mapped);
		if (r == -EAGAIN || r == -ENOMEM)
			continue; /* the timer tries again */
		list_remove(&p->by_file);
		list_remove(&p->by_space);
		f->n_poisoned--;
		free(p);
	}
	f->poison_backoff = 0;
	if (list_empty(&f->poisoned))
		f->saved->n_poisoned = 0;
}

static void poison_timer_expired(struct ring_timer *t)
{
	struct file *f = container_of(t, struct file, poison_timer);
	struct list turn;
	struct poisoned *p;

	f->timers--;
	f->poison_backoff++;
	/* Each has one turn; healing takes it, and others of its page, off whichever list they are on. */
	list_init(&turn);
	list_splice(&turn, &f->poisoned);
	for (unsigned n = 0; n < POISON_PER_TURN && (p = list_first(&turn, struct poisoned, by_file)); n++) {
		uint64_t page = p->page;
		struct block *b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);

		list_remove(&p->by_file);
		list_append(&f->poisoned, &p->by_file);
		if (b && (b->e->resident & (1ull << (page % PGC_BLOCK_PAGES))))
			poison_heal(f, page, 1);
		else if (page < file_pages(f))
			(void)fill_start(f, page, 1, 1, &p->space->toucher, 0); /* no room: the next turn */
	}
	list_splice(&turn, &f->poisoned); /* those that had no turn come first next time */
	list_splice(&f->poisoned, &turn);
	poison_arm(f);
	file_maybe_idle(f);
}

int poison_page(struct space *s, uint64_t addr, uint64_t page, bool shared)
{
	struct file *f = s->file;
	struct poisoned *p;
	int r;

	if (shared) {
		r = uffd_protect(s->uffd, addr, PAGE_SIZE_, false, true);
		if (r < 0)
			return r;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return -EAGAIN;
	r = uffd_poison(s->uffd, addr, file_unit(f));
	if (r < 0) {
		free(p);
		return r == -EEXIST ? uffd_wake(s->uffd, addr, PAGE_SIZE_) : r;
	}
	*p = (struct poisoned){ .space = s, .addr = addr, .page = page, .shared = shared };
	list_append(&f->poisoned, &p->by_file);
	list_append(&s->poisoned, &p->by_space);
	f->n_poisoned++;
	file_save_poisoned(f, page);
	s->worker->stats->poisoned_pages++;
	if (!f->poison_timer.expired) {
		ring_timer_init(&f->poison_timer, poison_timer_expired);
		f->poison_backoff = 0;
	}
	poison_arm(f);
	return 0;
}

struct restored { struct space *s; uint64_t page; };

static int restore_poisoned(void *arg, struct range r, uint64_t off, uint64_t attr)
{
	const struct restored *x = arg;
	struct space *s = x->s;
	uint64_t first = off / PAGE_SIZE_;
	struct poisoned *p;

	if (x->page < first || x->page >= first + (r.end - r.start) / PAGE_SIZE_)
		return 0;
	p = calloc(1, sizeof(*p));
	if (!p)
		return 0;
	*p = (struct poisoned){ .space = s, .addr = r.start + (x->page - first) * PAGE_SIZE_, .page = x->page, .shared = attr & SEG_SHARED };
	list_append(&s->file->poisoned, &p->by_file);
	list_append(&s->poisoned, &p->by_space);
	s->file->n_poisoned++;
	return 0;
}

void poison_restore(struct space *s, uint64_t page)
{
	struct file *f = s->file;
	struct restored x = { s, page };

	(void)file_range_set_walk(&s->maps, (struct range){ 0, ~0ull }, restore_poisoned, &x);
	if (list_empty(&f->poisoned))
		return;
	if (!f->poison_timer.expired) {
		ring_timer_init(&f->poison_timer, poison_timer_expired);
		f->poison_backoff = 0;
	}
	poison_arm(f);
}
