/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See attach.h. The first client of a file that attaches brings its memfd; with the dead daemon's bits it is the cache again. Without them (the state was
 * lost) it can be only if that daemon had stopped after everything was written: then nothing of it counts as resident.
 *
 * What a client brings is believed as far as it cannot be forged: the memfd must be one that the daemon's own user made for that very file (memory.h), and where
 * there is a record, the very inode that it names.
 * Runs on the worker. May call handle, revive and what is below.
 */
#include "daemon/attach.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "daemon/conn.h"
#include "daemon/kept.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/memory.h"
#include "daemon/offload.h"
#include "daemon/ops.h"
#include "daemon/process.h"
#include "daemon/revive.h"
#include "daemon/saved.h"
#include "daemon/space_save.h"
#include "daemon/track.h"

#define TICK_NS     200000000ull
#define GRACE_NS  10000000000ull     /* for a client to come, and for an open to wait for it */

#define LOOK_NS    1000000000ull

struct awaited {
	struct list link;          /* worker->awaited */
	uint32_t slot;
	bool handle;
	bool without;              /* the process lives, but has the memory no more: it has closed the handle, or is another program now */
	uint64_t since, looked;
};

/* Whether a process still has the memory of a file. */
struct look {
	struct offload_job job;
	struct worker *worker;
	uint32_t slot;             /* of the handle's record, which may be another's when the answer is there: `id` */
	uint64_t id;
	pid_t pid;
	char name[MEMORY_LINK_MAX];
	bool has;
};

static void await(struct worker *w, uint32_t slot, bool handle)
{
	struct awaited *a = revive_alloc(sizeof(*a));

	*a = (struct awaited){ .slot = slot, .handle = handle, .since = now_ns() };
	list_append(&w->awaited, &a->link);
	ring_timer_arm(&w->ring, &w->attach_timer, TICK_NS);
}

/* A handle's record is awaited, or no more: its file, if that is there, knows how many. */
static void count_awaited(struct worker *w, uint32_t handle, int change)
{
	uint32_t file = w->state->saved_handles[handle].file;
	struct file *f = file - w->file_slots.first < w->file_slots.count ? w->file_of[file - w->file_slots.first] : NULL;

	if (!f)
		return;
	f->awaited = (unsigned)((int)f->awaited + change);
	if (f->awaited == 0)
		file_maybe_idle(f);
}

void attach_await_file(struct worker *w, uint32_t slot) { await(w, slot, false); }

void attach_await_handle(struct worker *w, uint32_t slot)
{
	await(w, slot, true);
	count_awaited(w, slot, 1);
}

static struct awaited *awaited_file(struct worker *w, uint64_t dev, uint64_t ino)
{
	struct awaited *a;

	list_for_each(a, &w->awaited, link) {
		const struct pgc_saved_file *s = &w->state->saved_files[a->slot];

		if (!a->handle && s->dev == dev && s->ino == ino)
			return a;
	}
	return NULL;
}

bool attach_awaits_file(struct worker *w, uint64_t dev, uint64_t ino) { return awaited_file(w, dev, ino) != NULL; }

bool attach_awaits(struct worker *w, uint32_t slot, bool handle)
{
	struct awaited *a;

	list_for_each(a, &w->awaited, link)
		if (a->slot == slot && a->handle == handle)
			return true;
	return false;
}

uint64_t attach_awaited_handles(struct worker *w)
{
	struct awaited *a;
	uint64_t n = 0;

	list_for_each(a, &w->awaited, link)
		n += a->handle && w->state->saved_handles[a->slot].file != 0;
	return n;
}

static void awaited_free(struct awaited *a)
{
	list_remove(&a->link);
	free(a);
}

/* --- opens that wait --- */

bool attach_park(struct open_job *job)
{
	struct worker *w = job->worker;

	if (!awaited_file(w, job->dev, job->ino))
		return false;
	if (job->parked_since == 0)
		job->parked_since = now_ns();
	list_append(&w->attach_jobs, &job->link);
	return true;
}

static void try_jobs(struct worker *w)
{
	uint64_t now = now_ns();
	struct open_job *job;
	struct list jobs;

	list_init(&jobs);
	list_splice(&jobs, &w->attach_jobs);
	while ((job = list_first(&jobs, struct open_job, link))) {
		list_remove(&job->link);
		if (awaited_file(w, job->dev, job->ino) && now - job->parked_since >= GRACE_NS) {
			log_at(LOG_LEVEL_WARNING, job->name, job->pid, "open refused: a client that has its cache since before the daemon's death does not come");
			handle_open_failed(job, -EAGAIN);
		} else {
			handle_open(job); /* which parks it again */
		}
	}
}

/* --- records that nobody will come for --- */

/* One whose client never heard of it opens anew. */
static bool lives(const struct pgc_saved_handle *r)
{
	return (r->flags & (PGC_SAVED_ANSWERED | PGC_SAVED_CHILD)) && process_lives(r->pid, r->start_time);
}

/* Has it the memory of the file, and lives? One that only writes has none, and a forked child cannot attach. */
static bool brings(const struct awaited *a, const struct pgc_saved_handle *r, uint32_t file)
{
	return a->handle && !a->without && r->file == file && (r->flags & PGC_SAVED_READABLE) && !(r->flags & PGC_SAVED_CHILD) && lives(r);
}

/* Does a client of the file live, which may still come? */
static bool somebody_lives(struct worker *w, uint32_t file)
{
	struct awaited *a;

	list_for_each(a, &w->awaited, link)
		if (brings(a, &w->state->saved_handles[a->slot], file))
			return true;
	return false;
}

void attach_drop_handle(struct worker *w, uint32_t slot)
{
	struct pgc_saved_handle *r = &w->state->saved_handles[slot];
	const struct restored_client *c = &w->restored[slot];
	bool child = r->flags & PGC_SAVED_CHILD;
	char name[FDSTORE_NAME_MAX];

	if (c->counted)
		handle_count_hook(w, c->user, c->cgroup_slot, -1);
	saved_clear(r);
	kill_point("attach.record_dropped");
	kept_remove(w, fdstore_name(name, child ? 'c' : 'h', slot), 0, &w->handle_slots, slot);
}

static void drop_file_record(struct worker *w, uint32_t slot)
{
	uint64_t dirty = 0;
	char why[100];

	for (uint32_t i = 0; i < w->block_slots.count; i++) {
		struct pgc_block_entry *e = &w->state->blocks[w->block_slots.first + i];

		if (e->file != slot)
			continue;
		dirty += (uint64_t)__builtin_popcountll(e->dirty | e->writeback);
		revive_forget_block(w, w->block_slots.first + i);
	}
	(void)snprintf(why, sizeof(why), "no client came back with its memory, of which %llu pages were dirty", (unsigned long long)dirty);
	revive_forget_file(w, slot, why);
}

static void look_into(struct offload_job *job)
{
	struct look *l = container_of(job, struct look, job);

	l->has = process_holds(l->pid, l->name);
}

static void looked(struct ring_op *op, int res, uint32_t cflags)
{
	struct look *l = container_of(op, struct look, job.done);
	struct awaited *a;

	list_for_each(a, &l->worker->awaited, link)
		if (a->handle && a->slot == l->slot && l->worker->state->saved_handles[a->slot].id == l->id)
			a->without = !l->has;
	l->worker->live--;
	free(l);
}

/* Once a second; an answer that does not come is asked for again. */
static void look(struct worker *w, struct awaited *a, uint64_t now)
{
	const struct pgc_saved_handle *r = &w->state->saved_handles[a->slot];
	const struct pgc_saved_file *f = &w->state->saved_files[r->file];
	struct look *l;

	if (a->without || now - a->looked < LOOK_NS || !(r->flags & PGC_SAVED_READABLE) || (r->flags & PGC_SAVED_CHILD))
		return;
	a->looked = now;
	l = calloc(1, sizeof(*l));
	if (!l)
		return;
	*l = (struct look){ .job.run = look_into, .job.done.done = looked, .worker = w, .slot = a->slot, .id = r->id, .pid = (pid_t)r->pid };
	memory_link(l->name, f->dev, f->ino);
	if (offload_submit(&w->ring, &l->job) < 0)
		free(l);
	else
		w->live++;
}

/* At a full stop: what files had dirty whose memory no client has brought. */
static void say_lost(struct worker *w)
{
	uint64_t *pages = list_empty(&w->awaited) ? NULL : calloc(w->file_slots.count, sizeof(*pages));
	struct awaited *a;

	for (uint32_t i = 0; pages && i < w->block_slots.count; i++) {
		struct pgc_block_entry *e = &w->state->blocks[w->block_slots.first + i];

		if (e->file >= w->file_slots.first && e->file - w->file_slots.first < w->file_slots.count)
			pages[e->file - w->file_slots.first] += (uint64_t)__builtin_popcountll(e->dirty | e->writeback);
	}
	list_for_each(a, &w->awaited, link) {
		struct pgc_file_entry *e = &w->state->files[a->slot];

		if (a->handle || !pages || pages[a->slot - w->file_slots.first] == 0)
			continue;
		e->name[sizeof(e->name) - 1] = 0;
		log_at(LOG_LEVEL_ERROR, e->name, 0, "%llu bytes could not be written: no client came back with its memory",
		       (unsigned long long)pages[a->slot - w->file_slots.first] * PAGE_SIZE_);
		atomic_store_explicit(&w->failed, true, memory_order_release);
	}
	free(pages);
}

static void tick(struct ring_timer *t)
{
	struct worker *w = container_of(t, struct worker, attach_timer);
	struct awaited *a, *next;
	uint64_t now = now_ns();

	list_for_each_safe(a, next, &w->awaited, link) {
		if (now - a->since < GRACE_NS || a->handle || somebody_lives(w, a->slot))
			continue;
		drop_file_record(w, a->slot);
		awaited_free(a);
	}
	list_for_each_safe(a, next, &w->awaited, link) {
		if (!a->handle || now - a->since < GRACE_NS)
			continue;
		if (lives(&w->state->saved_handles[a->slot]) && !a->without) {
			look(w, a, now);
			continue;
		}
		count_awaited(w, a->slot, -1);
		attach_drop_handle(w, a->slot);
		awaited_free(a);
	}
	try_jobs(w);
	if (!list_empty(&w->awaited) || !list_empty(&w->attach_jobs))
		ring_timer_arm(&w->ring, t, TICK_NS);
}

/* A record says what the next daemon will let its client do: it goes to the same process, with the same rights. */
static bool is_its_record(const struct pgc_saved_handle *r, const struct space *s, uid_t uid, uint32_t flags)
{
	static const uint32_t fixed = PGC_SAVED_READABLE | PGC_SAVED_WRITABLE | PGC_SAVED_CHILD;

	return r->file == s->file->slot && r->pid == s->pid && r->uid == uid && ((r->flags ^ flags) & fixed) == 0 &&
	       (r->start_time == 0 || s->start_time == 0 || r->start_time == s->start_time);
}

bool attach_take_record(struct space *s, uint64_t id, uid_t uid, uint32_t flags)
{
	struct worker *w = s->worker;
	struct awaited *a;

	list_for_each(a, &w->awaited, link) {
		struct pgc_saved_handle *r = &w->state->saved_handles[a->slot];

		if (!a->handle || r->id != id || !is_its_record(r, s, uid, flags))
			continue;
		if (w->restored[a->slot].counted) /* the connection that it came by counts */
			handle_count_hook(w, w->restored[a->slot].user, w->restored[a->slot].cgroup_slot, -1);
		count_awaited(w, a->slot, -1);
		space_save_adopt(s, a->slot);
		s->last_addr = r->last_addr;
		kill_point("attach.record_taken");
		s->kept = false;
		awaited_free(a);
		return true;
	}
	return false;
}

void attach_child_came(struct worker *w, uint32_t slot)
{
	struct awaited *a, *next;

	list_for_each_safe(a, next, &w->awaited, link) {
		if (!a->handle || a->slot != slot)
			continue;
		awaited_free(a);
		count_awaited(w, slot, -1);
	}
}

/* --- ATTACH --- */

/* With the bits of the dead daemon. */
static int adopt_file(struct open_job *job, struct awaited *a, struct file **ret)
{
	struct worker *w = job->worker;
	uint32_t slot = a->slot;
	struct revive_run run = { 0 };
	struct file *f;
	int r;

	r = file_adopt(&f, w, slot, take_fd(&job->memfd));
	if (r < 0)
		return r; /* the record waits for one that has the right memory */
	awaited_free(a);
	list_for_each(a, &w->awaited, link)
		f->awaited += a->handle && w->state->saved_handles[a->slot].file == slot;
	for (uint32_t i = 0; i < w->block_slots.count; i++)
		if (w->state->blocks[w->block_slots.first + i].file == slot)
			revive_block(w, w->block_slots.first + i, &run);
	if (f->saved->tracked)
		track_lost(f);
	kill_point("attach.file_adopted");
	revive_hold(f);
	*ret = f;
	return 0;
}

void attach_open(struct open_job *job)
{
	struct worker *w = job->worker;
	struct file *f = file_find(w, job->dev, job->ino);
	struct awaited *a = awaited_file(w, job->dev, job->ino);
	bool dead = !f;
	struct stat st;
	int r = 0;

	list_init(&job->link);
	if (job->memfd >= 0 && fstat(job->memfd, &st) < 0)
		r = -errno;
	else if (f && job->memfd >= 0 && (st.st_ino != f->memfd_ino || st.st_dev != f->memfd_dev))
		r = -ESTALE; /* another cache of it is in use by now */
	else if (!f && job->memfd < 0)
		r = a ? -EAGAIN : -ESTALE; /* it has nothing to bring: after somebody who has */
	else if (!f && a)
		r = adopt_file(job, a, &f);
	else if (!f && (job->msg.attach.attach & PGC_ATTACH_CLEAN))
		r = file_new_empty(&f, w, job->dev, job->ino, job->name, take_fd(&job->memfd));
	else if (!f)
		r = -ESTALE;
	if (r == 0 && dead)
		ops_file_init(f);
	if (r < 0) {
		handle_open_failed(job, r);
		return;
	}
	handle_open_on(job, f, dead);
	try_jobs(w);
}

void attach_stop(struct worker *w)
{
	struct open_job *job;
	struct awaited *a;

	while ((job = list_first(&w->attach_jobs, struct open_job, link)))
		handle_open_failed(job, -ESHUTDOWN);
	say_lost(w);
	while ((a = list_first(&w->awaited, struct awaited, link)))
		awaited_free(a);
}

void attach_init(struct worker *w)
{
	list_init(&w->awaited);
	list_init(&w->attach_jobs);
	ring_timer_init(&w->attach_timer, tick);
}
