/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's thread: rounds of what is ready, then what the ring brings. Nothing in a round waits; a round is bounded by what each
 * module does in one turn.
 *
 * Shutdown: the main thread posts `drain`. From then on stores to clean pages wait, requests are not read, and everything dirty is
 * written and synced; what fails is tried again a few times. Where nothing more gets written for `stop_timeout`, since a store does not answer, that is the end of it, too.
 * What could not be written is told, file by file. Then all handles end and the thread returns.
 */
#include "daemon/worker.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "daemon/attach.h"
#include "daemon/fault.h"
#include "daemon/fill.h"
#include "daemon/handle.h"
#include "daemon/kept.h"
#include "daemon/kill_point.h"
#include "daemon/locked.h"
#include "daemon/log.h"
#include "daemon/reclaim.h"
#include "daemon/space_check.h"
#include "daemon/track.h"
#include "daemon/trap.h"
#include "daemon/warm.h"
#include "daemon/writeback.h"
#include "daemon/written.h"

#define RING_ENTRIES   1024
#define RING_MAX       256           /* completions a round */
#define DRAIN_TRIES    6
#define DRAIN_PAUSE_NS 500000000ull
#define DRAIN_LOOK_NS  200000000ull
#define SPIN_NS        100000ull
#define NO_SPIN_NS     10000000ull
#define TURN_NS        50000ull      /* of what is ready */
#define NO_ROOM_NS     1000000ull
#define END_PATIENCE_NS 2000000000ull /* for a store that hangs; its operations end with the process */

/* --- rounds --- */

static void try_no_room(struct worker *w)
{
	struct list now;
	struct parked *p;

	w->room_made = false;
	list_init(&now);
	list_splice(&now, &w->no_room);
	while ((p = list_first(&now, struct parked, link))) {
		list_remove(&p->link);
		p->resume(p);
	}
}

static void queue_all(struct worker *w, struct list *from)
{
	struct task *t;

	while ((t = list_first(from, struct task, link)))
		worker_queue(w, t);
}

static void later_expired(struct ring_timer *t)
{
	struct worker *w = container_of(t, struct worker, later_timer);

	queue_all(w, &w->later);
}

static void retry_expired(struct ring_timer *t)
{
	struct worker *w = container_of(t, struct worker, retry_timer);

	queue_all(w, &w->retry);
	try_no_room(w);
}

static void expire_expired(struct ring_timer *t) { writeback_expire(container_of(t, struct worker, expire_timer)); }

static void track_expired(struct ring_timer *t)
{
	struct worker *w = container_of(t, struct worker, track_timer);
	uint64_t next = writeback_look(w);

	if (next)
		ring_timer_arm(&w->ring, t, next);
}

static void audit_expired(struct ring_timer *t)
{
	struct worker *w = container_of(t, struct worker, audit_timer);

	if (file_audit(w))
		ring_timer_arm(&w->ring, t, AUDIT_NS);
}

static void child_expired(struct ring_timer *t)
{
	struct worker *w = container_of(t, struct worker, child_timer);

	if (spaces_check(w))
		ring_timer_arm(&w->ring, t, SPACE_CHECK_NS);
}

static void run_round(struct worker *w)
{
	uint64_t start = now_ns();

	atomic_fetch_add_explicit(&w->rounds, 1, memory_order_relaxed);
	while (drr_run(&w->turns, WORKER_GLANCE_NS) && !worker_turn_is_over(w, start, TURN_NS))
		continue;
	locked_look(w);
	if (w->placement.follows && now_ns() - start >= TURN_NS)
		placement_other(w); /* it keeps the thread from running */
	if (list_empty(&w->no_room))
		return;
	if (w->room_made)
		try_no_room(w);
	else
		ring_timer_arm(&w->ring, &w->retry_timer, NO_ROOM_NS);
}

/* --- shutdown --- */

struct drain {
	struct ring_op op;         /* posted by the main thread */
	struct worker *worker;
	struct ring_timer pause;
	unsigned busy, tries;
	struct list files;         /* struct drain_file: of this pass, that are not done */
	struct ring_timer look;    /* whether it goes on */
	uint64_t left, since;      /* pages that were left at the last look, and since when there are no fewer (ns) */
};

struct drain_file {
	struct list link;
	struct drain *drain;
	struct file *file;
	struct sync_dirty sync;
	struct store_sync store_sync;
};

static void drain_pass(struct drain *d);

/* It was written, and counts as dirty only because somebody who cannot be asked may have it writable. */
static bool written_as_far_as_can_be(const struct file *f)
{
	const struct space *s;
	bool blind = f->awaited > 0;

	list_for_each(s, &f->spaces, by_file)
		blind |= s->blind;
	return blind && f->last_error == 0 && f->store && f->store->writable;
}

static bool anything_dirty(struct worker *w)
{
	struct file *f;

	list_for_each(f, &w->all_files, by_worker)
		if ((f->e->dirty > f->e->keep && !written_as_far_as_can_be(f)) || f->e->writeback || !list_empty(&f->ops))
			return true;
	return false;
}

static void say_unwritten(struct file *f, const char *why)
{
	log_at(LOG_LEVEL_ERROR, f->e->name, 0, "%llu bytes could not be written: %s",
	       (unsigned long long)(f->e->dirty + f->e->writeback) * PAGE_SIZE_, why);
	atomic_store_explicit(&f->worker->failed, true, memory_order_release);
}

static void drain_pass_done(struct drain *d)
{
	struct worker *w = d->worker;
	struct file *f;

	/* From here on stores are faults, and wait: what was stored to until now shows, and is written in another pass. */
	list_for_each(f, &w->all_files, by_worker) {
		for (uint64_t cursor = 0; f->store && track_revoke(f, true, &cursor);)
			continue;
		written_take(f, 0, UINT64_MAX);
	}
	if (anything_dirty(w) && ++d->tries < DRAIN_TRIES) {
		ring_timer_arm(&w->ring, &d->pause, DRAIN_PAUSE_NS);
		return;
	}
	list_for_each(f, &w->all_files, by_worker)
		if (f->e->dirty > f->e->keep && !written_as_far_as_can_be(f))
			say_unwritten(f, f->last_error ? strerror(-f->last_error) : f->store && !f->store->writable ? "nobody has it open who may write it" : strerror(EIO));
		else if (!f->unlinked && (f->times.moved || (!f->version.valid && f->blocks.count > 0)))
			file_refresh_version(f); /* for its times and its warm record; in_flight() waits for it */
	w->stopped = true;
	kill_point("drain.done");
}

static void drain_one_done(struct drain_file *df)
{
	struct drain *d = df->drain;

	df->file->requests--;
	list_remove(&df->link);
	free(df);
	if (--d->busy == 0 && !d->worker->stopped)
		drain_pass_done(d);
}

static void drain_synced(struct store_sync *s, int error)
{
	drain_one_done(container_of(s, struct drain_file, store_sync)); /* what an error leaves is dirty again: the next pass */
}

static void drain_written(struct sync_dirty *s, int error)
{
	struct drain_file *df = container_of(s, struct drain_file, sync);

	if (error)
		drain_one_done(df);
	else
		writeback_store_sync(&df->store_sync, df->file, false, drain_synced);
}

static void drain_pass(struct drain *d)
{
	struct file *f;

	d->busy = 1;
	list_for_each(f, &d->worker->all_files, by_worker) {
		struct drain_file *df;

		if (!f->store || (d->tries > 0 && f->e->dirty == 0 && !track_needed(f)))
			continue;
		df = calloc(1, sizeof(*df));
		if (!df)
			continue; /* counted as dirty, so the next pass tries again */
		df->drain = d;
		df->file = f;
		list_append(&d->files, &df->link);
		f->requests++; /* it stays */
		d->busy++;
		sync_dirty_all(&df->sync, f, drain_written);
	}
	if (--d->busy == 0)
		drain_pass_done(d);
}

static void pause_expired(struct ring_timer *t)
{
	struct drain *d = container_of(t, struct drain, pause);

	if (!d->worker->stopped)
		drain_pass(d);
}

/* A store that does not answer: whoever stops us waits no longer for it. */
static void drain_give_up(struct drain *d)
{
	struct worker *w = d->worker;
	struct drain_file *df;
	struct file *f;

	list_for_each(df, &d->files, link)
		say_unwritten(df->file, df->file->e->dirty + df->file->e->writeback > 0 ? "its store does not answer" :
			      "but its store does not confirm what was written last");
	list_for_each(f, &w->all_files, by_worker) {
		bool told = false;

		list_for_each(df, &d->files, link)
			told |= df->file == f;
		if (!told && f->e->dirty > f->e->keep && !written_as_far_as_can_be(f))
			say_unwritten(f, strerror(f->last_error ? -f->last_error : EIO));
	}
	w->stopped = true;
}

static void look_at_drain(struct ring_timer *t)
{
	struct drain *d = container_of(t, struct drain, look);
	struct worker *w = d->worker;
	uint64_t left = 0, now = now_ns(), patience = w->config->stop_timeout_ms * 1000000;
	struct file *f;

	if (w->stopped)
		return;
	list_for_each(f, &w->all_files, by_worker)
		left += f->e->dirty + f->e->writeback;
	if (left < d->left) {
		d->left = left;
		d->since = now;
	}
	if (patience && now - d->since >= patience)
		drain_give_up(d);
	else
		ring_timer_arm(&w->ring, t, DRAIN_LOOK_NS);
}

static void drain_begin(struct ring_op *op, int res, uint32_t cflags)
{
	struct drain *d = container_of(op, struct drain, op);
	struct file *f;

	d->worker->draining = true;
	list_for_each(f, &d->worker->all_files, by_worker)
		written_limit(f);
	kill_point("drain.begun");
	d->left = UINT64_MAX;
	look_at_drain(&d->look);
	drain_pass(d);
}

int worker_drain(struct worker *w, struct ring *from)
{
	struct drain *d = w->drain;

	d->worker = w;
	d->op.done = drain_begin;
	list_init(&d->files);
	ring_timer_init(&d->pause, pause_expired);
	ring_timer_init(&d->look, look_at_drain);
	return ring_post(from, &w->ring, &d->op, 0);
}

/* --- the thread --- */

static bool idle(struct worker *w) { return drr_empty(&w->turns) && !w->stopped; }

/* On the processor of the thread whose faults it answers, which cannot run meanwhile: to look pays as long as that waits for a device. */
static bool is_in_the_way(struct worker *w, uint64_t now)
{
	return w->placement.follows && (w->fills_in_flight == 0 || now < w->no_spin_until);
}

/*
 * Looks for a while before it sleeps: to be woken on another processor takes longer than most of what is waited for. Only as long as that
 * has paid of late, so that an idle worker sleeps.
 */
static bool spin(struct worker *w)
{
	uint64_t start, limit = w->spin_ns;

	if (limit == 0 || w->alone)
		return false;
	start = now_ns();
	if (is_in_the_way(w, start))
		return false;
	do {
		if (ring_run(&w->ring, false, RING_MAX) > 0) {
			w->spin_ns = SPIN_NS;
			return true;
		}
		cpu_relax();
	} while (now_ns() - start < limit);
	w->spun_for_nothing = true;
	w->spin_ns /= 2;
	if (w->spin_ns < SPIN_NS / 16)
		w->spin_ns = 0;
	return false;
}

/* What comes so soon after it has looked for nothing seems to have waited for that. */
static void slept(struct worker *w, uint64_t since)
{
	uint64_t now = now_ns(), ns = now - since;

	if (w->spun_for_nothing && ns < SPIN_NS / 4)
		w->no_spin_until = now + NO_SPIN_NS;
	w->spun_for_nothing = false;
	if (ns < SPIN_NS)
		w->spin_ns = SPIN_NS;
}

static void wait_for_news(struct worker *w)
{
	uint64_t start;

	if (spin(w))
		return;
	start = now_ns();
	ring_run(&w->ring, idle(w), RING_MAX);
	slept(w, start);
}

void worker_round(struct worker *w, bool wait)
{
	uint64_t start;

	run_round(w);
	placement_look(w);
	lane_flush(&w->lanes);
	if (!wait || !idle(w) || reclaim_idle(w)) {
		ring_run(&w->ring, false, RING_MAX);
		return;
	}
	start = w->lanes.lanes ? now_ns() : 0;
	wait_for_news(w);
	if (w->lanes.lanes)
		w->lanes.idle_ns += now_ns() - start;
}

/* Does anything in flight still point into the worker's memory? */
static bool in_flight(struct worker *w)
{
	struct file *f;

	if (w->live > 0 || w->looking)
		return true;
	list_for_each(f, &w->all_files, by_worker)
		if (!list_empty(&f->fills) || !list_empty(&f->writes) || !list_empty(&f->syncs) || !list_empty(&f->opening) ||
		    f->requests > 0 || f->version_busy)
			return true;
	return false;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct file *f, *next;
	char name[16];

	(void)snprintf(name, sizeof(name), "worker %u", w->id);
	(void)prctl(PR_SET_NAME, name); /* for top(1), and who looks for the one that is stuck */
	trap_blocking_calls();
	while (!w->stopped)
		worker_round(w, true);
	attach_stop(w);
	handle_end_all(w);
	/* The polls and timers that point into our memory are cancelled; their last completions are waited for. */
	ring_timer_arm(&w->ring, &w->retry_timer, END_PATIENCE_NS); /* so that the wait for them ends */
	for (uint64_t until = now_ns() + END_PATIENCE_NS; in_flight(w) && now_ns() < until;) {
		atomic_fetch_add_explicit(&w->rounds, 1, memory_order_relaxed);
		(void)drr_run(&w->turns, TURN_NS);
		ring_run(&w->ring, drr_empty(&w->turns) && in_flight(w), RING_MAX);
	}
	warm_stop(w);
	list_for_each(f, &w->all_files, by_worker)
		f->control->stopped = f->e->dirty + f->e->writeback == 0;
	w->abandoned = in_flight(w);
	if (!w->abandoned)
		list_for_each_safe(f, next, &w->all_files, by_worker)
			file_free(f);
	kept_flush(w);
	ring_flush(&w->ring);
	atomic_store_explicit(&w->rounds, WORKER_ENDED, memory_order_relaxed);
	return NULL;
}

/* Before the worker starts. */
static int keep_now(const char *name, const int *fds, unsigned n)
{
	int r = fdstore_add(name, fds, n);

	for (int i = 0; r == -EAGAIN && i < 100; i++) {
		usleep(1000);
		r = fdstore_add(name, fds, n);
	}
	return r;
}

/*
 * The ring has the only writing end of a pipe: it ends when all that the ring has begun is over, also when the daemon died long before. The next daemon
 * waits for that.
 */
static int keep_lifeline(struct worker *w)
{
	char name[FDSTORE_NAME_MAX];
	int end[2], r;

	if (!fdstore_active())
		return 0;
	if (pipe2(end, O_CLOEXEC) < 0)
		return -errno;
	r = io_uring_register_files(&w->ring.uring, &end[1], 1);
	close(end[1]);
	(void)snprintf(name, sizeof(name), "L%u.%u", w->id, state_header(w->state)->incarnation);
	if (r == 0)
		r = keep_now(name, end, 1);
	close(end[0]);
	return r;
}

/* Where stores are tracked without faults the pipe that pages are in while they are given up outlives the daemon: track.c. */
static int keep_drop_pipe(struct worker *w)
{
	char name[FDSTORE_NAME_MAX];
	struct fdstore_fd *p;
	unsigned n;
	int r;

	(void)snprintf(name, sizeof(name), "P%u", w->id);
	p = fdstore_passed(&n);
	for (unsigned i = 0; i < n; i++)
		if (p[i].fd >= 0 && strcmp(p[i].name, name) == 0) {
			int *end = &w->drop_pipe[(fcntl(p[i].fd, F_GETFL) & O_ACCMODE) == O_WRONLY];

			cleanup_close(end);
			*end = take_fd(&p[i].fd);
		}
	if (w->drop_pipe[0] >= 0 && w->drop_pipe[1] >= 0)
		return track_worker_init(w);
	cleanup_close(&w->drop_pipe[0]);
	cleanup_close(&w->drop_pipe[1]);
	w->drop_pipe[0] = w->drop_pipe[1] = -1;
	r = track_worker_init(w);
	return r == 0 && fdstore_active() && w->config->write_tracking == TRACKING_ASYNC ? keep_now(name, w->drop_pipe, 2) : r;
}

int worker_init(struct worker *w)
{
	uint32_t share;
	int r;

	for (size_t i = 0; i < ELEMENTSOF(w->files); i++)
		list_init(&w->files[i]);
	list_init(&w->all_files);
	list_init(&w->spaces);
	list_init(&w->unused_faults);
	list_init(&w->sockets);
	list_init(&w->readers);
	drr_init(&w->turns);
	list_init(&w->no_room);
	list_init(&w->retry);
	list_init(&w->later);
	list_init(&w->lifeline_wait);
	list_init(&w->lifeline_waits);
	list_init(&w->count_task.link);
	kept_init(w);
	attach_init(w);
	{
		struct timespec now;

		/* Never the same again: a worker makes fewer than one a microsecond. */
		(void)clock_gettime(CLOCK_REALTIME, &now);
		w->next_handle = (uint64_t)w->id << 56 | ((uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
	}
	w->drop_pipe[0] = w->drop_pipe[1] = w->drop_sink = -1;
	ring_timer_init(&w->retry_timer, retry_expired);
	ring_timer_init(&w->later_timer, later_expired);
	ring_timer_init(&w->expire_timer, expire_expired);
	ring_timer_init(&w->child_timer, child_expired);
	ring_timer_init(&w->audit_timer, audit_expired);
	ring_timer_init(&w->track_timer, track_expired);
	locked_init(w);
	warm_worker_init(w);
	fill_worker_init(w);
	placement_init(w);
	w->alone = sysconf(_SC_NPROCESSORS_ONLN) < 2;
	w->stats = &w->state->stats[w->id];

	share = w->state->map[0].entries / w->n_workers;
	r = slot_pool_init(&w->file_slots, w->id * share, share);
	share = w->state->map[1].entries / w->n_workers;
	if (r == 0)
		r = slot_pool_init(&w->block_slots, w->id * share, share);
	w->blocks = calloc(share, sizeof(*w->blocks));
	if (r == 0 && !w->blocks)
		r = -ENOMEM;
	share = w->state->map[2].entries / w->n_workers;
	if (r == 0)
		r = slot_pool_init(&w->mapping_slots, w->id * share, share);
	share = w->state->map[6].entries / w->n_workers;
	if (r == 0)
		r = slot_pool_init(&w->handle_slots, w->id * share, share);
	w->file_of = calloc(w->file_slots.count, sizeof(*w->file_of));
	w->drain = calloc(1, sizeof(*w->drain)); /* there must be memory for it at the end */
	if (r == 0 && (!w->file_of || !w->drain))
		r = -ENOMEM;
	w->page_bits = 63;
	for (uint32_t n = w->file_slots.count; n > 1; n = (n + 1) / 2)
		w->page_bits--;
	if (r == 0)
		r = reclaim_init(w);
	if (r == 0)
		r = ring_init(&w->ring, RING_ENTRIES);
	if (r == 0)
		r = lane_user_init(&w->lanes, w->lanes.lanes, &w->ring);
	if (r == 0)
		r = keep_lifeline(w);
	if (r == 0)
		r = keep_drop_pipe(w);
	return r;
}

int worker_start(struct worker *w)
{
	return -pthread_create(&w->thread, NULL, worker_main, w);
}

/* Of what begins with its link. */
static void free_all(struct list *all)
{
	struct list *l;

	while (all->next && (l = all->next) != all) {
		list_remove(l);
		free(l);
	}
}

void worker_free(struct worker *w)
{
	ring_free(&w->ring);
	if (!w->abandoned) /* else a lane may still write into it */
		lane_user_free(&w->lanes);
	free_all(&w->lifeline_waits);
	free_all(&w->unused_faults);
	reclaim_free(w);
	track_worker_free(w);
	staging_free(w);
	space_spare_free(w);
	slot_pool_free(&w->file_slots);
	slot_pool_free(&w->block_slots);
	slot_pool_free(&w->mapping_slots);
	slot_pool_free(&w->handle_slots);
	free(w->blocks);
	free(w->file_of);
	free(w->drain);
	w->blocks = NULL;
	w->file_of = NULL;
}
