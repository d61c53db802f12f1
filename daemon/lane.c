/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See lane.h. Jobs go in messages of a few (struct lane_batch), as much as one lane has to do; the same message comes back when all of them are done. Each job says by itself when it
 * has ended: whose page is there goes on and may fault again before the others' are.
 *
 * Whether a worker has enough to do: it and its lanes were at work for 9/10 of the last 5 ms, whoever did it. So it stays with lanes as long as one thread alone could not do all.
 * May call ring, uffd, util.
 */
#include "daemon/lane.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "daemon/uffd.h"

#define RING_ENTRIES  64
#define RING_MAX      16             /* messages a round */
#define SPIN_NS       50000ull       /* as long as that has paid of late */
#define WINDOW_NS     5000000ull
#define SAME_MAX      32768u         /* the same, where it maps the same pages: some 7 ms */
#define PAGES_MAX     128u           /* while a lane has so many to map, some 20 us, it gets no more: the worker is as soon done with it by itself */

struct lane {
	unsigned id;
	pthread_t thread;
	struct ring ring;
	struct ring_op stop;
	struct list unsent;        /* struct lane_batch: there was no memory to send it back */
	uint64_t spin_ns;
	bool alone, stopped;
	_Atomic uint64_t pages;    /* that it has to do; relaxed: added by workers, taken by the lane */
};

struct lanes {
	unsigned n;
	bool eager;
	struct lane lane[];
};

/* --- the lane --- */

static void send_back(struct lane *l, struct lane_batch *b)
{
	if (ring_post(&l->ring, b->user->ring, &b->back, 0) < 0)
		list_append(&l->unsent, &b->link);
}

/* Whose it was: afterwards all of it is the worker's. */
static struct lane *carry_out(struct lane_batch *b)
{
	unsigned n = atomic_load_explicit(&b->n, memory_order_acquire);
	uint64_t start = now_ns(), pages = 0;
	struct lane *l = b->lane;

	for (unsigned i = 0; i < n; i++) {
		struct lane_job *j = &b->job[i];

		pages += j->n; /* settled jobs are the worker's */
		j->result = uffd_continue(j->uffd, j->addr, j->n * PAGE_SIZE_, j->protect, &j->mapped);
		atomic_store_explicit(&j->finished, true, memory_order_release);
	}
	atomic_fetch_sub_explicit(&l->pages, pages, memory_order_relaxed);
	atomic_store_explicit(&b->ns, now_ns() - start, memory_order_release);
	return l;
}

static void arrived(struct ring_op *op, int res, uint32_t cflags)
{
	struct lane_batch *b = container_of(op, struct lane_batch, op);
	struct lane *l = carry_out(b);

	send_back(l, b);
	(void)ring_flush(&l->ring);
}

static void stopped(struct ring_op *op, int res, uint32_t cflags) { container_of(op, struct lane, stop)->stopped = true; }

/* Looks for a while before it sleeps, as a worker does. */
static bool spin(struct lane *l)
{
	uint64_t start;

	if (l->spin_ns == 0 || l->alone)
		return false;
	start = now_ns();
	do {
		if (ring_has_news(&l->ring) && ring_run(&l->ring, false, RING_MAX) > 0) {
			l->spin_ns = SPIN_NS;
			return true;
		}
		cpu_relax();
	} while (now_ns() - start < l->spin_ns);
	l->spin_ns = l->spin_ns / 2 < SPIN_NS / 16 ? 0 : l->spin_ns / 2;
	return false;
}

static void send_unsent(struct lane *l)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	struct lane_batch *b;
	struct list now;

	if (list_empty(&l->unsent))
		return;
	nanosleep(&pause, NULL);
	list_init(&now);
	list_splice(&now, &l->unsent);
	while ((b = list_first(&now, struct lane_batch, link))) {
		list_remove(&b->link);
		send_back(l, b);
	}
}

static void *lane_main(void *arg)
{
	struct lane *l = arg;
	char name[16];

	(void)snprintf(name, sizeof(name), "lane %u", l->id);
	(void)prctl(PR_SET_NAME, name);
	while (!l->stopped) {
		uint64_t start;

		send_unsent(l);
		if (spin(l))
			continue;
		start = now_ns();
		ring_run(&l->ring, list_empty(&l->unsent), RING_MAX);
		if (now_ns() - start < SPIN_NS)
			l->spin_ns = SPIN_NS;
	}
	(void)ring_flush(&l->ring);
	return NULL;
}

int lanes_start(struct lanes **ret, unsigned n, bool eager)
{
	struct lanes *l;

	*ret = NULL;
	if (n == 0)
		return 0;
	l = calloc(1, sizeof(*l) + n * sizeof(l->lane[0]));
	if (!l)
		return -ENOMEM;
	l->eager = eager;
	for (; l->n < n; l->n++) {
		struct lane *lane = &l->lane[l->n];
		int r;

		*lane = (struct lane){ .id = l->n, .stop.done = stopped, .alone = sysconf(_SC_NPROCESSORS_ONLN) < 2 };
		list_init(&lane->unsent);
		r = ring_init(&lane->ring, RING_ENTRIES);
		if (r < 0)
			break; /* fewer will do */
		if (pthread_create(&lane->thread, NULL, lane_main, lane)) {
			ring_free(&lane->ring);
			break;
		}
	}
	if (l->n > 0)
		*ret = l;
	else
		free(l);
	return *ret ? 0 : -EAGAIN;
}

void lanes_stop(struct lanes *l, struct ring *from)
{
	for (unsigned i = 0; l && i < l->n; i++)
		while (ring_post(from, &l->lane[i].ring, &l->lane[i].stop, 0) < 0)
			usleep(1000);
	ring_push(from);
	for (unsigned i = 0; l && i < l->n; i++) {
		pthread_join(l->lane[i].thread, NULL);
		ring_free(&l->lane[i].ring);
	}
	free(l);
}

/* --- the worker's side --- */

void lane_user_free(struct lane_user *u)
{
	free(u->batches);
	*u = (struct lane_user){ 0 };
}

bool lane_settle(struct lane_job *j)
{
	if (!atomic_load_explicit(&j->finished, memory_order_acquire))
		return false;
	list_remove(&j->by_file);
	list_remove(&j->by_space);
	j->done(j);
	return true;
}

/* On the worker. */
static void returned(struct ring_op *op, int res, uint32_t cflags)
{
	struct lane_batch *b = container_of(op, struct lane_batch, back);

	b->user->lane_ns += atomic_load_explicit(&b->ns, memory_order_acquire);
	for (unsigned i = 0; i < b->n; i++)
		if (!list_empty(&b->job[i].by_file))
			(void)lane_settle(&b->job[i]);
	list_append(&b->user->unused, &b->link);
}

int lane_user_init(struct lane_user *u, struct lanes *l, struct ring *ring)
{
	unsigned n = l ? l->n * LANE_BATCHES : 0;

	*u = (struct lane_user){ .lanes = l, .ring = ring, .since = now_ns() };
	list_init(&u->unused);
	if (!l)
		return 0;
	u->batches = calloc(n, sizeof(*u->batches));
	if (!u->batches)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		u->batches[i].user = u;
		u->batches[i].op.done = arrived;
		u->batches[i].back.done = returned;
		list_append(&u->unused, &u->batches[i].link);
	}
	return 0;
}

static bool is_busy(struct lane_user *u)
{
	uint64_t ns = now_ns() - u->since;

	if (ns >= WINDOW_NS) {
		u->busy = (ns - MIN(u->idle_ns, ns) + u->lane_ns) * 10 > ns * 9;
		u->since += ns;
		u->idle_ns = u->lane_ns = 0;
	}
	return u->busy;
}

static uint64_t pages_of(struct lane *l) { return atomic_load_explicit(&l->pages, memory_order_relaxed); }

static struct lane *least_busy(struct lanes *l)
{
	struct lane *best = NULL;
	uint64_t least = PAGES_MAX;

	for (unsigned i = 0; i < l->n && least > 0; i++) {
		uint64_t pages = pages_of(&l->lane[i]);

		if (pages < least) {
			best = &l->lane[i];
			least = pages;
		}
	}
	return best;
}

/* Who maps some of these pages already. */
static struct lane *same_pages(const struct list *jobs, uint64_t page, uint64_t n)
{
	struct lane_job *j;

	list_for_each(j, jobs, by_file)
		if (j->page < page + n && page < j->page + j->n)
			return j->lane;
	return NULL;
}

static bool open_batch(struct lane_user *u, struct lane *l)
{
	struct lane_batch *b = list_first(&u->unused, struct lane_batch, link);

	if (!b)
		return false;
	list_remove(&b->link);
	b->lane = l;
	atomic_store_explicit(&b->n, 0, memory_order_relaxed);
	u->open = b;
	return true;
}

void lane_flush(struct lane_user *u)
{
	struct lane_batch *b = u->open;

	if (!b || b->n == 0)
		return;
	u->open = NULL;
	if (ring_post(u->ring, &b->lane->ring, &b->op, 0) < 0) {
		(void)carry_out(b);
		returned(&b->back, 0, 0);
		return;
	}
	(void)ring_flush(u->ring);
}

struct lane_job *lane_take(struct lane_user *u, const struct list *jobs, uint64_t page, uint64_t n)
{
	struct lane *l;

	if (!u->lanes || (!u->lanes->eager && (n < LANE_MIN_PAGES || !is_busy(u))))
		return NULL;
	l = same_pages(jobs, page, n);
	if (l && pages_of(l) >= SAME_MAX)
		return NULL;
	if (!l)
		l = u->open ? u->open->lane : least_busy(u->lanes);
	if (u->open && u->open->lane != l)
		lane_flush(u);
	return l && (u->open || open_batch(u, l)) ? &u->open->job[u->open->n] : NULL;
}

void lane_send(struct lane_user *u, struct lane_job *j)
{
	struct lane_batch *b = u->open;

	j->lane = b->lane;
	atomic_store_explicit(&j->finished, false, memory_order_relaxed);
	atomic_fetch_add_explicit(&b->lane->pages, j->n, memory_order_relaxed);
	atomic_fetch_add_explicit(&b->n, 1, memory_order_release);
	if (b->n == LANE_JOBS || pages_of(b->lane) >= PAGES_MAX)
		lane_flush(u);
}

uint64_t lane_free_run(const struct list *jobs, uint64_t page, uint64_t max)
{
	struct lane_job *j;

	list_for_each(j, jobs, by_file)
		if (j->page + j->n > page)
			max = MIN(max, j->page > page ? j->page - page : 0);
	return max;
}
