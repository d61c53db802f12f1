/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault path.
 *
 *   watch_done()        the userfaultfd has something to read
 *   read_messages()     faults are queued, events change the space's table at once
 *   fault_try()         segment, page, block; a page that is not resident is filled and the fault waits on its block
 *   fault_resolve()     marks dirty if it is a store to a shared mapping, then maps (CONTINUE) or un-protects (WRITEPROTECT)
 *
 * Invariants
 *   - Only pages whose resident bit is set are ever mapped.
 *   - A page is marked dirty before it becomes writable in a shared mapping.
 *   - While an event waits, the kernel refuses ioctls with EAGAIN: the fault stays in `pending` and is tried again.
 *   - Whatever the client does, a round is bounded: so many messages, then the other clients' turn.
 *   - While a lane has something to map in a space (lane.h), nothing is read from it, and its descriptor stays open.
 * Runs on the file's worker. May call space, file, fill, uffd.
 */
#include "daemon/fault.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <string.h>

#include "daemon/around.h"
#include "daemon/fork_event.h"
#include "daemon/huge.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/poison.h"
#include "daemon/protect.h"
#include "daemon/reclaim.h"
#include "daemon/space_check.h"
#include "daemon/space_save.h"
#include "daemon/track.h"
#include "daemon/vma_query.h"
#include "daemon/writeback.h"

#define MESSAGES_PER_READ  16
#define READS_MAX          4
#define TURN_NS            40000ull  /* of one space: then others have their turn */
#define STALL_NS           5000000ull /* who has not come to the end of an event by then may not for long */
#define UNUSED_MAX         256u      /* faults that a worker keeps to use again */
#define WRITE_WINDOW_MAX   64u
#define LEND_PAUSE_NS      1000000ull
#define UNSEEN_MAX         8192u     /* pages: how far a stream is looked for on the other side of what is here already */

struct fault {
	struct list link;          /* space->faults, or worker->unused_faults */
	struct list pending;       /* space->pending */
	struct space *space;
	struct waiter waiter;
	struct parked parked;
	uint64_t addr;             /* page-aligned */
	pid_t tid;                 /* whose it is; 0: not known */
	bool write, protected;     /* protected: the page is mapped, write-protected */
	int error;                 /* its page could not be read */
	bool asked;                /* the kernel, what is mapped at addr */
	bool brought;              /* its page was not here, and came for it: no second use */
	bool planned;              /* readahead knows of it */
	bool throttled;            /* it waits for dirty pages to be written */
	bool was_lent;             /* a lane has tried, in vain */
	struct lane_job *job;      /* a lane has it; NULL: none */
	struct readahead_plan plan;
	uint64_t since;            /* ns */
};

static void queue_pending(struct space *s);

/* --- faults: lists and life --- */

static struct fault *fault_alloc(struct worker *w)
{
	struct fault *x = list_first(&w->unused_faults, struct fault, link);

	if (!x)
		return calloc(1, sizeof(*x));
	list_remove(&x->link);
	w->n_unused_faults--;
	memset(x, 0, sizeof(*x));
	return x;
}

static void fault_free(struct fault *x)
{
	struct worker *w = x->space->worker;

	if (x->job)
		x->job->fault = NULL;
	waiter_cancel(&x->waiter);
	list_remove(&x->parked.link);
	list_remove(&x->pending);
	list_remove(&x->link);
	x->space->n_faults--;
	if (w->n_unused_faults >= UNUSED_MAX) {
		free(x);
		return;
	}
	list_append(&w->unused_faults, &x->link);
	w->n_unused_faults++;
}

static void fault_again(struct fault *x)
{
	if (list_empty(&x->pending))
		list_append(&x->space->pending, &x->pending);
}

static void fault_ready(struct waiter *w, int error)
{
	struct fault *x = container_of(w, struct fault, waiter);

	x->error = error;
	fault_again(x);
	queue_pending(x->space);
}

static void fault_resume(struct parked *p)
{
	struct fault *x = container_of(p, struct fault, parked);

	fault_again(x);
	queue_pending(x->space);
}

static int fault_new(struct space *s, uint64_t addr, uint64_t flags, pid_t tid)
{
	struct fault *x = fault_alloc(s->worker);

	if (!x)
		return -ENOMEM;
	x->space = s;
	x->since = now_ns();
	x->addr = align_down(addr, file_unit(s->file));
	if (!s->has_handle && tid > 0) {
		s->pid = tid; /* in the child's pid namespace, as far as that is ours */
		space_save_process(s);
	}
	x->tid = tid;
	x->write = flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
	x->protected = flags & UFFD_PAGEFAULT_FLAG_WP;
	waiter_init(&x->waiter, fault_ready);
	list_init(&x->parked.link);
	x->parked.resume = fault_resume;
	list_init(&x->pending);
	list_append(&s->faults, &x->link);
	s->n_faults++;
	s->last_addr = x->addr;
	fault_again(x);
	if (flags & UFFD_PAGEFAULT_FLAG_WP)
		s->worker->stats->faults_wp++;
	else if (flags & UFFD_PAGEFAULT_FLAG_MINOR)
		s->worker->stats->faults_minor++;
	else
		s->worker->stats->faults_missing++;
	return 0;
}

/* --- resolving --- */

/* Resident pages from `bit` on. */
static unsigned resident_run(const struct block *b, unsigned bit)
{
	return bits_run(b->e->resident, bit);
}

/*
 * The kernel finds no page to map although it is resident. Either a client that may write punched it, which wrote zeros; or what this client has
 * registered there is another file, and this one is none the worse for it: -EPERM.
 */
static int page_vanished(struct file *f, struct block *b, uint64_t page)
{
	off_t data;
	int r;

	file_heal(f);
	data = lseek(f->memfd, (off_t)(page * PAGE_SIZE_), SEEK_DATA);
	if (data == (off_t)(page * PAGE_SIZE_))
		return -EPERM;
	r = file_zero_pages(f, page, 1);
	if (r < 0)
		return r;
	kill_point("fault.vanished");
	if (f->store && f->store->writable)
		block_set_dirty(b, 1ull << (page % PGC_BLOCK_PAGES));
	return 0;
}

/* How many pages from `page` on become writable with it: more while stores run in sequence. */
static uint64_t write_window(struct space *s, struct block *b, uint64_t page, uint64_t max)
{
	unsigned bit = (unsigned)(page % PGC_BLOCK_PAGES);

	s->write_window = page == s->next_write && s->write_window ? MIN(s->write_window * 2, WRITE_WINDOW_MAX) : 1;
	max = MIN(MIN(max, s->write_window), resident_run(b, bit));
	s->next_write = page + max;
	return max;
}

/* The page itself is dirty and open to stores; what comes next in a run of stores is mapped with it, and dirty when it is found so. */
static int resolve_store_tracked(struct space *s, struct block *b, uint64_t addr, uint64_t page, uint64_t n)
{
	uint64_t mapped = 0, more = 0;
	int r;

	block_dirtied_by(b, &s->toucher);
	block_set_dirty(b, 1ull << (page % PGC_BLOCK_PAGES));
	kill_point("fault.dirty_set");
	file_changed(s->file);
	r = space_continue(s, addr, page, 1, true, false, &mapped);
	kill_point("fault.mapped");
	if (mapped == 0)
		return r == -EEXIST ? uffd_wake(s->uffd, addr, PAGE_SIZE_) : r; /* stores to what is mapped are let through */
	if (n > 1)
		(void)space_continue(s, addr + PAGE_SIZE_, page + 1, n - 1, true, true, &more);
	s->worker->stats->pages_mapped += (mapped + more) / PAGE_SIZE_;
	return 0;
}

/* A store to a shared mapping: dirty first, then writable. */
static int resolve_store(struct space *s, struct block *b, uint64_t addr, uint64_t page, uint64_t max, bool protected)
{
	uint64_t n = write_window(s, b, page, max), mapped = 0;
	int r;

	if (tracker_on(&s->tracker))
		return resolve_store_tracked(s, b, addr, page, n);
	block_dirtied_by(b, &s->toucher);
	block_set_dirty(b, bits_range((unsigned)(page % PGC_BLOCK_PAGES), (unsigned)n));
	kill_point("fault.dirty_set");
	file_changed(s->file);
	space_note_unprotected(s, page, n);
	if (protected) {
		r = uffd_protect(s->uffd, addr, n * PAGE_SIZE_, false, false);
		kill_point("fault.unprotected");
		if (r == -ENOENT && n > 1)
			r = uffd_protect(s->uffd, addr, PAGE_SIZE_, false, false);
		return r;
	}
	r = uffd_continue(s->uffd, addr, n * PAGE_SIZE_, false, &mapped);
	kill_point("fault.mapped");
	if (r == -ENOENT && n > 1)
		r = uffd_continue(s->uffd, addr, PAGE_SIZE_, false, &mapped);
	s->worker->stats->pages_mapped += mapped / PAGE_SIZE_;
	if (mapped == 0 && r == -EEXIST) /* mapped by another thread's fault, perhaps protected */
		return uffd_protect(s->uffd, addr, PAGE_SIZE_, false, false);
	return mapped > 0 ? 0 : r;
}

/* Pages [from, to) were mapped for a load of `page`, or what comes before it alone. */
static void load_mapped(struct fault *x, uint64_t page, uint64_t from, uint64_t to)
{
	struct space *s = x->space;

	file_used_ahead(s->file, from, to);
	if (to > page)
		readahead_mapped(&s->readahead, from, to, x->plan.around_to > 0);
}

static void fault_answered(struct fault *x)
{
	struct worker *w = x->space->worker;
	struct pgc_stats_entry *stats = w->stats;

	if (x->plan.stream)
		placement_other(w);
	else
		placement_fault(w, x->tid);
	stats->fault_wait_max_ns = MAX(stats->fault_wait_max_ns, now_ns() - x->since);
	fault_free(x);
}

/* What it could not map at once is tried here. */
static void lent_done(struct lane_job *j)
{
	struct space *s = j->space;
	struct file *f = j->file;
	struct fault *x = j->fault;

	s->worker->stats->pages_mapped += j->mapped / PAGE_SIZE_;
	if (x) {
		uint64_t page = j->page + (x->addr - j->addr) / PAGE_SIZE_, to = j->page + j->mapped / PAGE_SIZE_;

		x->job = NULL;
		x->was_lent = true;
		load_mapped(x, page, j->page, to);
		if (to > page)
			fault_answered(x);
		else
			fault_again(x);
	}
	if (!s->settling)
		queue_pending(s); /* there may be messages that were not read */
	f->requests--;
	if (s->closed)
		file_maybe_idle(f);
	space_unpin(s);
}

/* Lets a lane map pages [page, page + n), which are resident, if that is worth it. */
static bool lend(struct fault *x, uint64_t addr, uint64_t page, uint64_t n, bool protect)
{
	struct space *s = x->space;
	struct lane_job *j = x->was_lent || s->file->huge || now_ns() < s->lend_from ? NULL : lane_take(&s->worker->lanes, &s->file->lent, page, n);

	if (!j)
		return false;
	*j = (struct lane_job){
		.file = s->file, .space = s, .fault = x, .page = page, .n = n, .done = lent_done, .uffd = s->uffd, .addr = addr, .protect = protect,
	};
	x->job = j;
	list_append(&s->file->lent, &j->by_file);
	list_append(&s->jobs, &j->by_space);
	s->file->requests++;
	space_pin(s);
	s->worker->stats->faults_lent++;
	lane_send(&s->worker->lanes, j);
	kill_point("fault.lent");
	return true;
}

/* A load, or a store to a private mapping, which the kernel copies itself: map it and its resident neighbours. */
static int resolve_load(struct fault *x, uint64_t page, uint64_t below, uint64_t above, bool shared)
{
	struct space *s = x->space;
	uint64_t from, to, addr, mapped = 0;
	int r;

	around_mapped(s, x->planned ? &x->plan : NULL, page, below, above, &from, &to);
	addr = x->addr - (page - from) * PAGE_SIZE_;
	if (s->worker->lanes.lanes && !(shared && tracker_on(&s->tracker)) && lend(x, addr, from, to - from, shared))
		return -EINPROGRESS;
	r = space_continue(s, addr, from, to - from, shared, shared, &mapped);
	kill_point("fault.load_mapped");
	if (from + mapped / PAGE_SIZE_ <= page && r != -EAGAIN) { /* it stopped before the page itself, or the range is not one piece */
		load_mapped(x, page, from, from + mapped / PAGE_SIZE_);
		from = page;
		r = space_continue(s, x->addr, page, to - page, shared, shared, &mapped);
		if (r == -ENOENT && to > page + 1)
			r = space_continue(s, x->addr, page, file_unit(s->file) / PAGE_SIZE_, shared, shared, &mapped);
	}
	s->worker->stats->pages_mapped += mapped / PAGE_SIZE_;
	if (mapped > 0) {
		load_mapped(x, page, from, from + mapped / PAGE_SIZE_);
		return 0;
	}
	return r == -EEXIST ? uffd_wake(s->uffd, x->addr, PAGE_SIZE_) : r;
}

/* Whether a fault there was taken for one that nobody waits with any more. If so it is not a second time. */
static bool was_unknown(struct space *s, uint64_t addr)
{
	for (size_t i = 0; i < ELEMENTSOF(s->unknown); i++)
		if (s->unknown[i] == addr) {
			s->unknown[i] = 0;
			return true;
		}
	s->unknown[s->next_unknown++ % ELEMENTSOF(s->unknown)] = addr;
	return false;
}

/*
 * At an address that nobody told us of. It may be over: who had it was woken by the answer to another's fault, and has unmapped the page since; then what is
 * there now is none of its business. Who still waits comes again, and gets SIGBUS, so that the thread does not hang: not ours to map.
 */
static int fault_unknown(struct fault *x)
{
	struct space *s = x->space;

	if (!was_unknown(s, x->addr)) {
		(void)uffd_wake(s->uffd, x->addr, PAGE_SIZE_);
		return 0;
	}
	s->worker->stats->faults_unknown++;
	if (!s->logged_unknown)
		log_at(LOG_LEVEL_WARNING, s->file->e->name, s->pid,
		       "a fault at %#llx, where no mapping was announced: it gets SIGBUS", (unsigned long long)x->addr);
	s->logged_unknown = true;
	if (s->worker->caps->poison) {
		(void)uffd_protect(s->uffd, x->addr, PAGE_SIZE_, false, true);
		if (uffd_poison(s->uffd, x->addr, file_unit(s->file)) == -EAGAIN)
			return -EAGAIN;
	}
	(void)uffd_wake(s->uffd, x->addr, PAGE_SIZE_);
	return 0;
}

/* --- asking the kernel --- */

static void asked(struct vma_query *q, int error)
{
	struct space *s = q->owner;
	uint64_t addr = q->addr;
	struct fault *x;

	s->asking = false;
	/* Else it may be history, or newer than an event that was not read yet: ask again. */
	if (!s->closed && !uffd_is_changing(s->uffd) && q->changes == s->changes) {
		if (error == 0 && !uffd_serves(s->uffd, addr))
			error = -ENOENT; /* another handle's, which has come to that address since */
		if (error == 0)
			error = space_learn(s, q->start, q->end, q->off, q->shared && s->writable);
		else if (error == -EACCES || error == -ESRCH)
			error = space_guess(s, addr);
		/* Without memory for the answer, or to get one, it is asked again. */
		list_for_each(x, &s->faults, link)
			if (x->addr == addr && error != -ENOMEM && error != -EAGAIN)
				x->asked = true;
	}
	free(q);
	if (!s->closed)
		queue_pending(s);
	space_unpin(s);
}

/* A registered address that nobody told us of: an mremap has made a mapping longer, or the client plays. */
static int ask_kernel(struct fault *x)
{
	struct space *s = x->space;
	struct file *f = s->file;
	struct vma_query *q;

	if (s->asking)
		return -EAGAIN;
	q = calloc(1, sizeof(*q));
	if (!q)
		return -EAGAIN;
	*q = (struct vma_query){
		.pid = s->pid, .addr = x->addr, .dev = f->memfd_dev, .ino = f->memfd_ino,
		.changes = s->changes, .owner = s, .done = asked,
	};
	if (vma_query_start(q, &s->worker->ring) < 0) {
		free(q);
		return -EAGAIN;
	}
	s->asking = true;
	space_pin(s);
	return -EAGAIN;
}

static int wait_for_room(struct fault *x)
{
	list_append(&x->space->worker->no_room, &x->parked.link);
	return -EINPROGRESS;
}

/* A store that would make a page dirty, while there is too much dirty, of its client's or of its file's. */
static bool throttle(struct fault *x, struct block *b, uint64_t bit)
{
	struct space *s = x->space;
	struct worker *w = s->worker;

	if (b && (b->e->dirty & bit))
		return false;
	if (!file_is_stuck(s->file) && budget_may_dirty(w->budget, s->toucher.client, s->toucher.user)) {
		if (x->throttled)
			w->stats->throttled_ns += now_ns() - x->since;
		x->throttled = false;
		return false;
	}
	w->stats->throttled += !x->throttled;
	x->throttled = true;
	reclaim_wake(w); /* each time: a write-out that was running may have passed by what is dirty now */
	return true;
}

/* What is mapped where stores are tracked without faults may be stored to unseen: not while its file's store takes nothing, and not all of the memory. */
static bool may_be_tracked(struct fault *x)
{
	struct space *s = x->space;

	if (!file_is_stuck(s->file) && reclaim_may_track(&s->tracker))
		return true;
	writeback_background(s->file); /* what could not be given up may have been stored to */
	reclaim_wake(s->worker);
	return false;
}

/* Reads what the plan names, as far as the mapping reaches: [lo, hi) are pages. */
static void read_ahead(struct fault *x, struct file *f, uint64_t lo, uint64_t hi)
{
	const struct readahead_plan *p = &x->plan;
	unsigned flags = POLICY_AHEAD | (p->stream ? POLICY_STREAM : 0);
	uint64_t first = p->first;

	for (uint64_t k = 0; k < p->count; k++, first += (uint64_t)p->stride) {
		uint64_t from = MAX(first, lo), to = MIN(first + p->n, hi);

		if (from < to)
			(void)fill_start(f, from, to - from, 0, &x->space->toucher, flags);
	}
}

/* The page with those around it, and after these what lies farther off. */
static void read_around(struct fault *x, struct file *f, uint64_t from, uint64_t n, uint64_t page, uint64_t lo, uint64_t hi)
{
	uint64_t wide_from = MAX(x->plan.wide_from, lo), wide_to = MIN(x->plan.wide_to, hi);

	(void)fill_start_around(f, from, n, page, &x->space->toucher);
	if (wide_from < wide_to)
		(void)fill_start(f, wide_from, wide_to - wide_from, 0, &x->space->toucher, POLICY_AHEAD);
}

/*
 * Makes the page come, if it is not here. 0: it is resident; -EINPROGRESS: the fault waits; -ENOMEM: it will not, for want of a huge page.
 */
static int fault_page(struct fault *x, uint64_t page, uint64_t lo, uint64_t hi)
{
	struct space *s = x->space;
	struct file *f = s->file;
	uint64_t bit = 1ull << (page % PGC_BLOCK_PAGES), n = 1, around = page;
	struct block *b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);
	bool here = b && (b->e->resident & bit), ahead = false;

	if (!x->planned && !x->protected) {
		struct readahead_in in = {
			.page = page, .n = 1, .missing = !b || !((b->e->resident | b->filling) & bit), .write = x->write,
			.max = f->readahead_max / PAGE_SIZE_, .file_pages = file_pages(f),
			.around = around_read(s, x->addr),
		};

		in.wide = in.around && in.missing ? around_wide(s) : 0;
		s->readahead.advice = space_advice(s, x->addr);
		if (s->readahead.advice == POSIX_FADV_NORMAL)
			s->readahead.advice = s->advice;
		if (in.missing) {
			in.before = file_resident_below(f, page, UNSEEN_MAX);
			in.after = file_resident_run(f, page + 1, UNSEEN_MAX);
		}
		readahead_wasted(&s->readahead, file_take_wasted(f));
		readahead_access(&s->readahead, &in, &x->plan);
		x->planned = ahead = true;
		/* One read for the page and what follows it. */
		if (!here && x->plan.count == 1 && x->plan.first == page + 1 && x->plan.first < hi) {
			n += MIN(x->plan.n, hi - x->plan.first);
			ahead = false;
		}
		if (!here && x->plan.around_to > 0) {
			around = MAX(x->plan.around_from, lo);
			n = MIN(x->plan.around_to, hi) - around;
		}
	}
	if (!here) {
		x->brought = true;
		if (n > 1 && x->planned && x->plan.around_to > 0)
			read_around(x, f, around, n, page, lo, hi);
		else if (fill_start(f, page, n, 1, &s->toucher, (x->plan.stream && x->planned) || s->noreuse ? POLICY_STREAM : 0) == -ENOMEM && f->huge)
			return -ENOMEM;
	} else if (!x->brought) {
		if (!s->noreuse)
			block_touched(b, bit, x->write ? POLICY_WRITE : 0);
		x->brought = true;
	}
	if (ahead)
		read_ahead(x, f, lo, hi);
	b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);
	if (!b || !((b->e->resident | b->filling) & bit))
		return wait_for_room(x);
	if (b->filling & bit) {
		waiter_add(&x->waiter, b, bit);
		return -EINPROGRESS;
	}
	return 0;
}

/*
 * A reader that asks nobody has come to a page that went while it was at it. It is about to find that out, and must not get a signal: zeros will do, which nobody
 * looks at.
 */
static int answer_reader(struct fault *x, uint64_t page)
{
	struct space *s = x->space;
	uint64_t mapped;
	int r;

	if (lane_free_run(&s->file->lent, page, 1) == 0 || fallocate(s->file->memfd, FALLOC_FL_KEEP_SIZE, (off_t)(page * PAGE_SIZE_), PAGE_SIZE_) < 0)
		return -EAGAIN;
	r = uffd_continue(s->uffd, x->addr, PAGE_SIZE_, false, &mapped);
	return mapped > 0 ? 0 : r == -EEXIST ? uffd_wake(s->uffd, x->addr, PAGE_SIZE_) : r;
}

/* SIGBUS, as with a failing disk, until it can be read. */
static int answer_unreadable(struct fault *x, uint64_t page, bool shared)
{
	struct space *s = x->space;
	int r;

	if (!s->worker->caps->poison || s->file->n_poisoned >= POISON_MAX) {
		x->error = 0; /* it waits a little, and the page is read again */
		return wait_for_room(x);
	}
	r = poison_page(s, x->addr, page, shared);
	return r == -EAGAIN || r == -ESRCH ? r : 0;
}

/*
 * 0: answered; -EAGAIN: try again soon; -EINPROGRESS: it waits for a page, room or a barrier and comes back by itself.
 */
static int fault_step(struct fault *x)
{
	struct space *s = x->space;
	struct file *f = s->file;
	struct worker *w = s->worker;
	uint64_t off, page, below, above, bit;
	struct range seg;
	struct block *b;
	bool shared;
	int r;

	if (space_find(s, x->addr, &seg, &off, &shared) < 0)
		return x->asked ? fault_unknown(x) : ask_kernel(x);
	page = (off + (x->addr - seg.start)) / PAGE_SIZE_;
	if (space_in_window(s, x->addr) && (x->error || (page >= file_pages(f) && f->uncut > 0)))
		return answer_reader(x, page);
	if (page >= file_pages(f)) {
		file_heal(f); /* past the end: the kernel raises SIGBUS when it looks again */
		if (f->uncut > 0) { /* it does not yet */
			r = w->caps->poison && f->n_poisoned < POISON_MAX ? poison_page(s, x->addr, page, shared) : wait_for_room(x);
			return r == -EAGAIN || r == -ESRCH || r == -EINPROGRESS ? r : 0;
		}
		return uffd_wake(s->uffd, x->addr, PAGE_SIZE_);
	}
	bit = 1ull << (page % PGC_BLOCK_PAGES);
	if (shared && x->write && !x->error && throttle(x, block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES), bit))
		return wait_for_room(x);
	if (shared && !x->error && tracker_on(&s->tracker) && !may_be_tracked(x))
		return wait_for_room(x);
	if (shared && (x->write || tracker_on(&s->tracker)) && w->draining)
		return -EINPROGRESS; /* nothing may become dirty any more: it waits for the next daemon */
	if (file_park(f, page, 1, &x->parked))
		return -EINPROGRESS;
	if (x->error == -EAGAIN || x->error == -EINTR || x->error == -ENOMEM) {
		x->error = 0;
		return -EAGAIN;
	}
	if (x->error && x->error != -EFAULT)
		return answer_unreadable(x, page, shared);
	x->error = 0;
	below = (x->addr - seg.start) / PAGE_SIZE_;
	above = MIN((seg.end - x->addr) / PAGE_SIZE_, file_pages(f) - page);
	r = fault_page(x, page, page - below, page + above);
	kill_point("fault.page_wanted");
	if (r < 0)
		return r == -ENOMEM ? answer_unreadable(x, page, shared) : r;
	b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);
	/* Twice: between the kernel's answer and the look, a write-out may have put zeros where a client punched. */
	for (int tries = 0; tries < 3; tries++) {
		if (shared && x->write)
			r = resolve_store(s, b, x->addr, page, above, x->protected);
		else
			r = resolve_load(x, page, below, above, shared);
		if (r != -EFAULT)
			break;
		r = page_vanished(f, b, page);
		if (r < 0 && (r != -EPERM || tries > 0))
			break;
	}
	return r;
}

static void fault_try(struct fault *x)
{
	struct space *s = x->space;
	int r = fault_step(x);

	switch (r) {
	case -EINPROGRESS:
		return;
	case -EAGAIN:
	case -ENOMEM:
		s->worker->stats->ioctl_retries++;
		fault_again(x);
		return;
	case -ESRCH:
		space_set_gone(s);
		break;
	case -ENOENT: /* unmapped meanwhile: the thread finds out when it runs again */
	case 0:
		if (r < 0)
			(void)uffd_wake(s->uffd, x->addr, PAGE_SIZE_);
		break;
	default: /* waking alone would bring the same fault at once */
		if (!s->logged_unknown)
			log_at(LOG_LEVEL_WARNING, s->file->e->name, s->pid, "a fault at %#llx cannot be answered, it gets SIGBUS: %s",
			       (unsigned long long)x->addr, strerror(-r));
		s->logged_unknown = true;
		(void)uffd_protect(s->uffd, x->addr, PAGE_SIZE_, false, true);
		(void)uffd_poison(s->uffd, x->addr, file_unit(s->file));
		(void)uffd_wake(s->uffd, x->addr, PAGE_SIZE_);
		break;
	}
	fault_answered(x);
}

/* --- messages --- */

static void handle_message(struct space *s, const struct uffd_msg *m)
{
	struct pgc_stats_entry *stats = s->worker->stats;

	switch (m->event) {
	case UFFD_EVENT_PAGEFAULT:
		kill_point("fault.read");
		if (fault_new(s, m->arg.pagefault.address, m->arg.pagefault.flags, (pid_t)m->arg.pagefault.feat.ptid) < 0)
			(void)uffd_wake(s->uffd, align_down(m->arg.pagefault.address, PAGE_SIZE_), PAGE_SIZE_);
		break;
	case UFFD_EVENT_FORK:
		fault_fork_event(s, (int)m->arg.fork.ufd);
		break;
	case UFFD_EVENT_REMAP:
		kill_point("remap.read");
		stats->events_remap++;
		space_remapped(s, m->arg.remap.from, m->arg.remap.to, m->arg.remap.len);
		break;
	case UFFD_EVENT_REMOVE:
		stats->events_remove++; /* what is gone from the page tables faults again; nothing of ours changes */
		break;
	case UFFD_EVENT_UNMAP:
		kill_point("unmap.read");
		stats->events_unmap++;
		space_unmapped(s, m->arg.remove.start, m->arg.remove.end);
		break;
	}
}

/* One read brings all that wait, but for a forked child's, and where the kernel cannot (uffd_read()): there it brings one. */
static bool reads_all(const struct space *s) { return s->has_handle && s->worker->caps->read_nowait; }
/* Whether lanes have done all that they had to do in it. */
static bool settle(struct space *s)
{
	struct lane_job *j, *next;

	s->settling = true;
	list_for_each_safe(j, next, &s->jobs, by_space)
		(void)lane_settle(j);
	s->settling = false;
	return list_empty(&s->jobs);
}

/* Returns whether more may be waiting. */
static bool read_messages(struct space *s, int reads)
{
	struct uffd_msg m[MESSAGES_PER_READ];

	for (int i = 0; i < reads; i++) {
		int most, n;

		if (!settle(s) || s->n_faults >= SPACE_FAULTS_MAX || s->closed)
			return false; /* goes on when some are answered: run_pending(), lent_done() */
		most = space_may_read(s, MESSAGES_PER_READ);
		/* Before anything is read, since an event that was read goes on and cannot fail any more. */
		n = most > 0 ? space_prepare(s, (unsigned)most) : 0;
		if (most > 0 && n == 0)
			n = space_read(s, m, most);
		if (most == 0 || n == -EMFILE || n == -ENFILE || n == -ENOMEM)
			s->read_later = true; /* no more children for now, or no descriptor or memory for one */
		if (n <= 0)
			return false;
		for (int j = 0; j < n; j++)
			handle_message(s, &m[j]);
		if (n < most && (n > 1 || reads_all(s)))
			return false;
	}
	return true;
}

/* Tries what is pending, once each, as many as its turn is long for. Returns whether some were not tried; else those that are left said EAGAIN. */
static bool run_pending(struct space *s)
{
	uint64_t start = now_ns();
	struct list now;
	struct fault *x;
	bool left;

	list_init(&now);
	list_splice(&now, &s->pending);
	for (bool first = true; (x = list_first(&now, struct fault, pending)) && (first || !worker_turn_is_over(s->worker, start, TURN_NS)); first = false) {
		list_remove(&x->pending);
		if (s->gone || s->closed) {
			fault_free(x);
			continue;
		}
		fault_try(x);
	}
	left = !list_empty(&now);
	list_splice(&now, &s->pending); /* which come after those that were not tried */
	list_splice(&s->pending, &now);
	return left;
}

static void space_round(struct task *t)
{
	struct space *s = container_of(t, struct space, task);
	bool full = s->n_faults >= SPACE_FAULTS_MAX, more, left;

	space_pin(s);
	more = read_messages(s, 1);
	if (s->numbered && s->pid > 0)
		TAKE_PTR(s->numbered)(s);
	if (s->restoring) {
		/* Faults wait until it is known what they are of; who wants to know reads on by itself. */
		space_unpin(s);
		return;
	}
	left = run_pending(s);
	if (left || list_empty(&s->pending))
		s->stalled_since = 0;
	else if (s->stalled_since == 0)
		s->stalled_since = now_ns();
	if (s->closed)
		;
	else if (left)
		worker_queue(s->worker, &s->task);
	else if (s->stalled_since && now_ns() - s->stalled_since > STALL_NS)
		worker_later(s->worker, &s->task);
	else if (s->stalled_since)
		worker_retry(s->worker, &s->task);
	else if ((more || full) && s->n_faults < SPACE_FAULTS_MAX)
		worker_queue(s->worker, &s->task);
	else if (s->read_later)
		worker_later(s->worker, &s->task);
	s->read_later = false;
	space_unpin(s);
}

static void queue_pending(struct space *s)
{
	if (!s->closed)
		worker_queue(s->worker, &s->task);
}

static void watch_again(struct space *s);
static void watch_done(struct ring_op *op, int res, uint32_t cflags)
{
	struct space *s = container_of(op, struct space, poll);

	if (s->closed) {
		if (!(cflags & IORING_CQE_F_MORE))
			space_unpin(s);
		return;
	}
	space_pin(s);
	if (res >= 0 && (res & POLLERR) && !(res & POLLIN))
		/* The client cleared O_NONBLOCK, which the descriptions share. */
		uffd_unblock(s->uffd);
	if (res >= 0) /* not at once: others may have waited longer */
		worker_queue(s->worker, &s->task);
	if (!(cflags & IORING_CQE_F_MORE)) {
		if (!s->closed && res != -ECANCELED) {
			if (res < 0 || (res & POLLERR))
				worker_retry(s->worker, &s->rewatch); /* not at once: it may do so again */
			else
				watch_again(s);
		}
		space_unpin(s); /* the pin of the poll that ended */
	}
	space_unpin(s);
}

static void watch_again(struct space *s)
{
	struct io_uring_sqe *sqe;

	space_pin(s);
	s->poll.done = watch_done;
	sqe = ring_sqe(&s->worker->ring, &s->poll);
	io_uring_prep_poll_multishot(sqe, s->uffd, POLLIN);
}

static void rewatch(struct task *t) { watch_again(container_of(t, struct space, rewatch)); }

void fault_watch(struct space *s)
{
	s->task.run = space_round;
	s->rewatch.run = rewatch;
	s->task.flow = s->rewatch.flow = s->ending.flow = worker_flow(&s->toucher);
	s->watched = true;
	watch_again(s);
}

void fault_unwatch(struct space *s)
{
	struct fault *x;

	if (s->closed)
		return;
	ring_cancel(&s->worker->ring, &s->poll);
	/* The cancellation names the poll by its op: it must reach the kernel before the descriptor is closed. */
	ring_flush(&s->worker->ring);
	while ((x = list_first(&s->faults, struct fault, link)))
		fault_free(x);
	space_close(s);
}

bool fault_drain_events(struct space *s)
{
	if (!s->closed)
		(void)read_messages(s, READS_MAX);
	if (!list_empty(&s->jobs)) {
		s->file->maps_changes++; /* as there may be something that was not read */
		s->lend_from = now_ns() + LEND_PAUSE_NS;
	}
	if (!s->closed && !list_empty(&s->pending))
		queue_pending(s);
	return list_empty(&s->jobs);
}

/* --- for requests and timers --- */

int64_t fault_populate(struct space *s, uint64_t addr, uint64_t len, bool write)
{
	uint64_t done = 0;

	while (done < len) {
		struct range seg;
		uint64_t off, page, max, n, mapped = 0;
		struct block *b;
		bool shared, dirty;
		int r;

		if (space_find(s, addr + done, &seg, &off, &shared) < 0)
			return done ? (int64_t)done : -ENOENT;
		page = (off + (addr + done - seg.start)) / PAGE_SIZE_;
		if (page >= file_pages(s->file))
			return (int64_t)len; /* past the end: nothing to map */
		max = MIN(seg.end - addr - done, len - done) / PAGE_SIZE_;
		n = file_resident_run(s->file, page, MIN(max, s->file->huge ? HUGE_PAGES : PGC_BLOCK_PAGES - page % PGC_BLOCK_PAGES));
		if (n == 0)
			return (int64_t)done;
		b = block_tree_find(&s->file->blocks, page / PGC_BLOCK_PAGES);
		dirty = write && shared && !s->worker->draining && !file_is_stuck(s->file) &&
			budget_may_dirty(s->worker->budget, s->toucher.client, s->toucher.user);
		if (dirty) {
			block_dirtied_by(b, &s->toucher);
			block_set_dirty(b, bits_range((unsigned)(page % PGC_BLOCK_PAGES), (unsigned)n));
			file_changed(s->file);
			if (!tracker_on(&s->tracker))
				space_note_unprotected(s, page, n);
			kill_point("populate.dirty_set");
		}
		r = space_continue(s, addr + done, page, n, shared, shared && !dirty, &mapped);
		kill_point("populate.mapped");
		if (mapped == 0 && (r == -EEXIST || r == -ENOENT || r == -EFAULT)) {
			if (r == -EEXIST && dirty && !tracker_on(&s->tracker))
				(void)uffd_protect(s->uffd, addr + done, PAGE_SIZE_, false, false);
			mapped = file_unit(s->file); /* step over it */
		} else if (r < 0 && mapped == 0) {
			return r;
		}
		s->worker->stats->pages_mapped += mapped / PAGE_SIZE_;
		done += mapped;
	}
	return (int64_t)done;
}

void fault_init(void)
{
	fill_resident_hook = poison_heal;
	writeback_protect_hook = protect_pages;
}
