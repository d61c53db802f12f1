/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control connections: what pagecachectl asks. Listings are read out of the state that workers keep in shared memory, as anyone with
 * bpftool reads it, and sent as fast as the peer takes them. SYNC, DROP and STAT are done by the workers, by message. SET changes the
 * configuration, here.
 * Main thread; the functions marked so run on workers.
 */
#include "daemon/server.h"

#include <assert.h>
#include <string.h>

#include "daemon/attach.h"
#include "daemon/config_value.h"
#include "daemon/conn.h"
#include "daemon/log.h"
#include "daemon/pin.h"
#include "daemon/writeback.h"
#include "version.h"

#define REPLIES_PER_ROUND 64

/* --- SYNC, DROP, STAT, PIN and PINS: one part a worker --- */

#define PIN_ROWS_MAX 65536u         /* of one worker in one listing */

struct control_part {
	struct ring_op op;
	struct control_job *job;
	struct worker *worker;
	const struct pgc_msg *request; /* of the job */
	uint64_t dev, ino;         /* 0, 0: all files */
	unsigned busy;
	int error;
	uint64_t files, pages;
	struct pin pin;
	struct pgc_ctl_pin_reply *rows;
	size_t n_rows, allocated;
	struct pgc_stat_reply stat;
};

struct control_job {
	struct conn *conn;         /* NULL: it ended */
	struct server *server;
	struct pgc_msg request;
	unsigned parts_left, n_parts;
	struct control_part part[];
};

static void job_free(struct control_job *job)
{
	for (unsigned i = 0; i < job->n_parts; i++)
		free(job->part[i].rows);
	free(job);
}

/* The rows of all workers become the listing that control_continue() sends. */
static void take_rows(struct conn *c, struct control_job *job)
{
	size_t n = 0;

	for (unsigned i = 0; i < job->n_parts; i++)
		n += job->part[i].n_rows;
	c->rows = calloc(MAX(n, (size_t)1), sizeof(*c->rows));
	for (unsigned i = 0; i < job->n_parts && c->rows; i++) {
		if (job->part[i].n_rows == 0)
			continue;
		memcpy(c->rows + c->n_rows, job->part[i].rows, job->part[i].n_rows * sizeof(*c->rows));
		c->n_rows += (uint32_t)job->part[i].n_rows;
	}
	c->cursor = 0;
	control_continue(c);
}

static void answer_now(struct conn *c);

static void job_reply(struct control_job *job)
{
	struct conn *c = job->conn;
	struct pgc_msg reply;
	int error = 0;

	c->control = NULL;
	if (job->request.type != c->request.type) {
		answer_now(c); /* it has been looked for what is dirty: now it is told */
		return;
	}
	if (job->request.type == PGC_CTL_PINS) {
		take_rows(c, job);
		return;
	}
	conn_reply_init(&reply, &c->request, 0);
	for (unsigned i = 0; i < job->n_parts; i++) {
		reply.ctl_count_reply.files += job->part[i].files;
		reply.ctl_count_reply.pages += job->part[i].pages;
		if (error == 0)
			error = job->part[i].error;
	}
	if (error == 0 && c->request.ctl_file.ino && reply.ctl_count_reply.files == 0)
		error = -ENOENT;
	if (job->request.type == PGC_CTL_STAT)
		reply.stat_reply = job->part[0].stat;
	reply.status = (uint32_t)-error;
	c->request.type = 0;
	if (conn_send(c->sock, &reply, NULL, 0) < 0)
		conn_end(c, NULL);
	else
		conn_watch(c, false);
}

static void part_returned(struct ring_op *op, int res, uint32_t cflags)
{
	struct control_job *job = container_of(op, struct control_part, op)->job;

	if (--job->parts_left > 0)
		return;
	if (job->conn)
		job_reply(job);
	job_free(job);
}

/* On the worker. */
static void part_done_one(struct control_part *p)
{
	if (--p->busy > 0)
		return;
	p->op.done = part_returned;
	ring_post(&p->worker->ring, p->worker->main_ring, &p->op, 0);
}

struct control_sync {
	struct control_part *part;
	struct file *file;
	struct sync_dirty sync;
	struct store_sync store_sync;
};

/* On the worker. */
static void control_sync_end(struct control_sync *cs, int error)
{
	struct control_part *p = cs->part;
	struct file *f = cs->file;

	if (error && p->error == 0)
		p->error = error;
	p->pages += cs->sync.pages;
	free(cs);
	f->requests--;
	if (!f->version.valid && list_empty(&f->writes) && list_empty(&f->ops))
		file_refresh_version(f);
	file_maybe_idle(f);
	part_done_one(p);
}

/* On the worker. */
static void control_store_synced(struct store_sync *s, int error)
{
	control_sync_end(container_of(s, struct control_sync, store_sync), error);
}

/* On the worker. */
static void control_written(struct sync_dirty *s, int error)
{
	struct control_sync *cs = container_of(s, struct control_sync, sync);

	if (error)
		control_sync_end(cs, error);
	else
		writeback_store_sync(&cs->store_sync, cs->file, false, control_store_synced);
}

/* On the worker. */
static void part_pinned(struct pin *pin, int error)
{
	struct control_part *p = container_of(pin, struct control_part, pin);
	struct file *f = pin->file;

	p->error = error;
	p->pages = error ? 0 : (pin->to - pin->from) / PAGE_SIZE_;
	f->requests--;
	file_maybe_idle(f);
	part_done_one(p);
}

/* On the worker. */
static void part_pin(struct control_part *p, struct file *f)
{
	const struct pgc_ctl_pin *m = &p->request->ctl_pin;

	if (!m->on) {
		p->error = pin_release(f, m->off, m->len);
		file_maybe_idle(f);
		return;
	}
	f->requests++;
	p->busy++;
	pin_start(&p->pin, f, m->off, m->len, part_pinned);
}

/* On the worker. What the kernel says of the store came with the request, so nothing is waited for. */
static void part_stat(struct control_part *p, const struct file *f)
{
	const struct pgc_ctl_stat *m = &p->request->ctl_stat;
	struct store_stat st = {
		.size = m->size, .blocks = m->blocks,
		.mtime = { .tv_sec = m->mtime_s, .tv_nsec = m->mtime_ns }, .ctime = { .tv_sec = m->ctime_s, .tv_nsec = m->ctime_ns },
	};

	p->error = file_stat_overlay(f, &st);
	if (p->error == 0)
		p->stat = (struct pgc_stat_reply){
			.dev = f->dev, .ino = f->ino, .size = st.size, .blocks = st.blocks, .mtime_s = st.mtime.tv_sec, .ctime_s = st.ctime.tv_sec,
			.mtime_ns = (uint32_t)st.mtime.tv_nsec, .ctime_ns = (uint32_t)st.ctime.tv_nsec,
		};
}

/* On the worker. */
static void control_looked(struct sync_dirty *s, int error)
{
	struct control_sync *cs = container_of(s, struct control_sync, sync);
	struct control_part *p = cs->part;
	struct file *f = cs->file;

	if (p->request->type == PGC_CTL_STAT)
		part_stat(p, f);
	else
		p->pages += f->e->dirty;
	free(cs);
	f->requests--;
	file_maybe_idle(f);
	part_done_one(p);
}

struct row_of { struct control_part *part; struct file *file; };

/* On the worker. */
static int add_row(void *arg, struct range r, bool keep)
{
	const struct row_of *of = arg;
	struct control_part *p = of->part;

	if (p->n_rows == p->allocated) {
		size_t n = p->allocated ? p->allocated * 2 : 16;
		struct pgc_ctl_pin_reply *rows = n > PIN_ROWS_MAX ? NULL : reallocarray(p->rows, n, sizeof(*rows));

		if (!rows)
			return -ENOMEM;
		p->rows = rows;
		p->allocated = n;
	}
	p->rows[p->n_rows] = (struct pgc_ctl_pin_reply){ .more = 1, .file = of->file->slot, .start = r.start, .end = r.end };
	memcpy(p->rows[p->n_rows].name, of->file->e->name, sizeof(p->rows->name));
	p->n_rows++;
	return 0;
}

/* On the worker. */
static void part_file(struct control_part *p, struct file *f)
{
	bool look = p->request->type == PGC_CTL_SYNC && p->request->ctl_file.wait == PGC_CTL_SYNC_LOOK;
	struct control_sync *cs;

	p->files++;
	switch (p->request->type) {
	case PGC_CTL_DROP:
		p->pages += file_drop_clean(f, 0, ~0ull, false);
		file_maybe_idle(f);
		return;
	case PGC_CTL_STAT:
		if (!track_needed(f)) {
			part_stat(p, f);
			return;
		}
		look = true; /* what was stored to moves its times */
		break;
	case PGC_CTL_PIN:
		part_pin(p, f);
		return;
	case PGC_CTL_PINS:
		(void)dirty_set_walk(&f->pins, (struct range){ 0, ~0ull }, add_row, &(struct row_of){ p, f });
		return;
	}
	if (!f->store)
		return; /* idle, so clean */
	if (!look && !p->request->ctl_file.wait) {
		writeback_background(f);
		return;
	}
	cs = calloc(1, sizeof(*cs));
	if (!cs) {
		p->error = -ENOMEM;
		return;
	}
	cs->part = p;
	cs->file = f;
	f->requests++;
	p->busy++;
	if (look)
		sync_look_range(&cs->sync, f, 0, file_pages(f), control_looked);
	else
		sync_dirty_all(&cs->sync, f, control_written);
}

/* On the worker. */
static void part_arrived(struct ring_op *op, int res, uint32_t cflags)
{
	struct control_part *p = container_of(op, struct control_part, op);
	struct worker *w = p->worker;
	struct file *f, *next;

	p->busy = 1;
	if (p->dev || p->ino) {
		f = file_find(w, p->dev, p->ino);
		if (f)
			part_file(p, f);
		else if (attach_awaits_file(w, p->dev, p->ino))
			p->error = -EAGAIN; /* what is not in the store yet comes with a client */
	} else {
		list_for_each_safe(f, next, &w->all_files, by_worker)
			part_file(p, f);
	}
	part_done_one(p);
}

static int begin_job(struct conn *c, const struct pgc_msg *request)
{
	struct server *s = c->server;
	bool pins = request->type == PGC_CTL_PINS;
	uint64_t dev = pins ? 0 : request->ctl_file.dev, ino = pins ? 0 : request->ctl_file.ino; /* a PIN's are in the same place */
	bool one = dev || ino;
	unsigned n = one ? 1 : s->n_workers;
	struct control_job *job;

	if ((request->type == PGC_CTL_DROP || request->type == PGC_CTL_PIN) && !conn_privileged(c))
		return -EPERM;
	job = calloc(1, sizeof(*job) + n * sizeof(job->part[0]));
	if (!job)
		return -ENOMEM;
	job->conn = c;
	job->server = s;
	job->n_parts = job->parts_left = n;
	job->request = *request;
	c->control = job;
	for (unsigned i = 0; i < n; i++) {
		struct control_part *p = &job->part[i];

		p->job = job;
		p->request = &job->request;
		p->dev = dev;
		p->ino = ino;
		p->worker = &s->workers[one ? worker_index(s->n_workers, dev, ino) : i];
		p->op.done = part_arrived;
		if (ring_post(&s->ring, &p->worker->ring, &p->op, 0) < 0) {
			p->error = -ENOMEM;
			job->parts_left--;
		}
	}
	if (job->parts_left == 0) {
		job_reply(job);
		job_free(job);
	}
	return 0;
}

void control_abandon(struct conn *c)
{
	c->control->conn = NULL;
	c->control = NULL;
}

/* --- listings --- */

static void fill_status(struct server *s, struct pgc_ctl_status_reply *r)
{
	const struct state *st = &s->state;
	uint64_t now = now_ns(), oldest = 0;

	*r = (struct pgc_ctl_status_reply){
		.memory_max = s->config->memory_max,
		.memory_used = atomic_load_explicit(&s->budget.used, memory_order_relaxed) * PAGE_SIZE_,
		.clients = server_handles(s), .uptime_ms = (now - s->started) / 1000000, .workers = s->n_workers,
		.lanes = s->config->lanes, .pid = (uint32_t)getpid(), .bpf = st->bpf, .kernel_faults = s->caps.device >= 0,
	};
	for (uint32_t i = 1; i < st->map[0].entries; i++) {
		const struct pgc_file_entry *e = &st->files[i];

		if (!e->file)
			continue;
		r->files++;
		r->handles += e->handles;
		r->mappings += e->mappings;
		if (e->dirty_since && (oldest == 0 || e->dirty_since < oldest))
			oldest = e->dirty_since;
	}
	for (unsigned i = 0; i < s->n_workers; i++) {
		const struct pgc_stats_entry *e = &st->stats[i];

		r->resident += e->resident;
		r->dirty += e->dirty;
		r->writeback += e->writeback;
		r->keep += e->keep;
		r->faults += e->faults_missing + e->faults_minor + e->faults_wp;
		r->faults_lent += e->faults_lent;
		r->fills += e->fills;
		r->fill_bytes += e->fill_bytes;
		r->fill_errors += e->fill_errors;
		r->writeouts += e->writeouts;
		r->writeout_bytes += e->writeout_bytes;
		r->writeout_errors += e->writeout_errors;
		r->writeout_rate += rate_of(&s->workers[i].writeout_rate, now);
	}
	r->oldest_dirty_ms = oldest && oldest < now ? (now - oldest) / 1000000 : 0;
	strncpy(r->version, PGC_VERSION, sizeof(r->version) - 1);
}

/* The limits, and what all workers together count. */
static void fill_memory(struct server *s, struct pgc_ctl_memory_reply *r)
{
	const struct config *c = s->config;
	uint64_t longest_ns = 0, throttled_ns = 0;

	*r = (struct pgc_ctl_memory_reply){
		.memory_max = c->memory_max,
		.memory_limit = atomic_load_explicit(&s->budget.max, memory_order_relaxed) * PAGE_SIZE_,
		.memory_used = atomic_load_explicit(&s->budget.used, memory_order_relaxed) * PAGE_SIZE_,
		.tables = atomic_load_explicit(&s->budget.tables, memory_order_relaxed) * PAGE_SIZE_,
		.dirty = atomic_load_explicit(&s->budget.dirty, memory_order_relaxed),
		.dirty_background = atomic_load_explicit(&s->budget.dirty_background, memory_order_relaxed),
		.dirty_max = atomic_load_explicit(&s->budget.dirty_max, memory_order_relaxed),
		.pressure_episodes = atomic_load_explicit(&s->budget.pressure_episodes, memory_order_relaxed),
	};
	for (unsigned i = 0; i < s->n_workers; i++) {
		const struct pgc_stats_entry *e = &s->state.stats[i];

		r->resident += e->resident;
		r->second_chance += e->second_chance;
		r->pinned += e->pinned;
		r->kept += e->keep;
		r->refaults += e->refaults;
		r->soft_faults += e->soft_faults;
		r->reclaimed += e->reclaimed;
		r->direct_reclaims += e->direct_reclaims;
		r->readahead_pages += e->readahead_pages;
		r->readahead_hits += e->readahead_hits;
		r->readahead_wasted += e->readahead_wasted;
		r->throttled += e->throttled;
		throttled_ns += e->throttled_ns;
		longest_ns = MAX(longest_ns, e->fault_wait_max_ns);
	}
	r->throttled_ms = throttled_ns / 1000000;
	r->fault_wait_max_us = longest_ns / 1000;
	strncpy(r->policy, config_policy_words[c->policy], sizeof(r->policy) - 1);
}

static bool file_reply(struct server *s, uint32_t slot, struct pgc_msg *reply)
{
	const struct pgc_file_entry *e = &s->state.files[slot];
	struct pgc_ctl_file_reply *r = &reply->ctl_file_reply;

	if (!e->file)
		return false;
	*r = (struct pgc_ctl_file_reply){
		.more = 1, .file = e->file, .dev = e->dev, .ino = e->ino, .size = e->size, .resident = e->resident,
		.dirty = e->dirty, .writeback = e->writeback, .keep = e->keep, .handles = e->handles, .mappings = e->mappings,
		.flags = e->flags, .error = e->error, .worker = e->worker, .kernel_fault_handles = e->kernel_fault_handles,
	};
	if (e->handles && e->kernel_fault_handles == e->handles)
		r->flags |= PGC_FILE_KERNEL_FAULTS;
	memcpy(r->name, e->name, sizeof(r->name));
	r->name[sizeof(r->name) - 1] = 0;
	return true;
}

static bool mapping_reply(struct server *s, uint32_t slot, struct pgc_msg *reply)
{
	const struct pgc_mapping_entry *e = &s->state.mappings[slot];
	struct pgc_ctl_mapping_reply *r = &reply->ctl_mapping_reply;
	uint32_t file = e->file;

	if (!file || file >= s->state.map[0].entries)
		return false;
	*r = (struct pgc_ctl_mapping_reply){
		.more = 1, .file = file, .start = e->start, .end = e->end, .cgroup = e->cgroup, .refs = e->refs,
	};
	memcpy(r->name, s->state.files[file].name, sizeof(r->name));
	r->name[sizeof(r->name) - 1] = 0;
	return true;
}

static bool cgroup_reply(struct server *s, uint32_t slot, struct pgc_msg *reply)
{
	const struct pgc_cgroup_entry *e = &s->state.cgroups[slot];
	uint64_t id = __atomic_load_n(&e->id, __ATOMIC_RELAXED);

	if (!id)
		return false;
	reply->ctl_cgroup_reply = (struct pgc_ctl_cgroup_reply){
		.more = 1, .id = id, .mapped = e->mapped, .resident = e->resident, .dirty = e->dirty, .limit = e->limit,
		.reclaimed = e->reclaimed, .handles = e->handles,
	};
	return true;
}

/* Users with a limit. Cgroups with one are in the map, once something in them has opened a file. */
static bool tenant_reply(struct server *s, uint32_t slot, struct pgc_msg *reply)
{
	struct tenant *t = &s->budget.tenant[slot];
	uint64_t limit = atomic_load_explicit(&t->limit, memory_order_relaxed), used = atomic_load_explicit(&t->used, memory_order_relaxed);

	if (slot == 0 || t->cgroup || (!limit && !used))
		return false;
	reply->ctl_cgroup_reply = (struct pgc_ctl_cgroup_reply){
		.more = 1, .is_user = 1, .id = t->uid, .resident = used, .limit = limit,
		.reclaimed = atomic_load_explicit(&t->reclaimed, memory_order_relaxed),
	};
	return true;
}

static bool pin_reply(struct conn *c, uint32_t row, struct pgc_msg *reply)
{
	reply->ctl_pin_reply = c->rows[row];
	return true;
}

static uint32_t tenant_slots(const struct server *s) { return atomic_load_explicit(&s->budget.n_tenants, memory_order_acquire); }
static uint32_t file_slots(const struct server *s) { return s->state.map[0].entries; }
static uint32_t mapping_slots(const struct server *s) { return s->state.map[2].entries; }
static uint32_t cgroup_slots(const struct server *s) { return s->state.map[3].entries; }

/* What a listing shows: the rows of one table, then of the next. A slot may have none. */
static const struct row_source {
	uint32_t type;
	uint32_t (*slots)(const struct server *s);
	bool (*row)(struct server *s, uint32_t slot, struct pgc_msg *reply);
} row_sources[] = {
	{ PGC_CTL_FILES, file_slots, file_reply },
	{ PGC_CTL_MAPPINGS, mapping_slots, mapping_reply },
	{ PGC_CTL_CGROUPS, cgroup_slots, cgroup_reply },
	{ PGC_CTL_CGROUPS, tenant_slots, tenant_reply },
};

/* The next row of the listing, from c->cursor on, which counts through all of its tables; false at its end. */
static bool next_row(struct conn *c, struct pgc_msg *reply)
{
	struct server *s = c->server;
	uint32_t first = 0;

	conn_reply_init(reply, &c->request, 0);
	if (c->request.type == PGC_CTL_PINS)
		return c->cursor < c->n_rows && pin_reply(c, c->cursor, reply);
	if (c->request.type == PGC_CTL_CHECK)
		return control_check_row(c, reply);
	for (size_t i = 0; i < ELEMENTSOF(row_sources); i++) {
		const struct row_source *from = &row_sources[i];
		uint32_t end;

		if (from->type != c->request.type)
			continue;
		end = first + from->slots(s);
		for (; c->cursor < end; c->cursor++)
			if (from->row(s, c->cursor - first, reply))
				return true;
		first = end;
	}
	return false;
}

void control_continue(struct conn *c)
{
	for (int i = 0; i < REPLIES_PER_ROUND; i++) {
		struct pgc_msg reply;
		bool row = next_row(c, &reply);
		int r = conn_send(c->sock, &reply, NULL, 0);

		if (r == -EAGAIN)
			break;
		if (r < 0) {
			conn_end(c, NULL);
			return;
		}
		if (!row) {
			c->request.type = 0;
			control_check_end(c);
			free(c->rows);
			c->rows = NULL;
			c->n_rows = 0;
			conn_watch(c, false);
			return;
		}
		c->cursor++;
	}
	conn_watch(c, true);
}

/* --- dispatch --- */

/* PGC_CTL_SET. */
static int set(struct conn *c, struct pgc_ctl_set_reply *ret)
{
	const struct pgc_ctl_set *m = &c->request.ctl_set;
	int r;

	if (!conn_privileged(c))
		return -EPERM;
	r = config_set(c->server->config, m->name, m->value, ret->message, sizeof(ret->message));
	if (r < 0)
		return r;
	server_configure(c->server);
	log_at(LOG_LEVEL_NOTICE, NULL, c->pid, "%s is %s now", m->name, m->value);
	return 0;
}

/* The body of a request that is answered at once; the result is its status. */
static int answer(struct conn *c, struct pgc_msg *reply)
{
	const struct pgc_ctl_inject *inject = &c->request.ctl_inject;

	switch (c->request.type) {
	case PGC_CTL_STATUS:
		fill_status(c->server, &reply->ctl_status_reply);
		return 0;
	case PGC_CTL_MEMORY:
		fill_memory(c->server, &reply->ctl_memory_reply);
		return 0;
	case PGC_CTL_SET:
		return set(c, &reply->ctl_set_reply);
	default:
		assert(c->request.type == PGC_CTL_INJECT);
		if (!c->server->config->test_stores || !conn_privileged(c))
			return -EPERM;
		return mem_store_inject(inject->uri, inject->what, inject->value, inject->count);
	}
}

/* How much of the body a request uses; SIZE_MAX: there is no such request, or what is in it is malformed. */
static size_t body_used(const struct pgc_msg *msg)
{
	switch (msg->type) {
	case PGC_CTL_STATUS:
	case PGC_CTL_MEMORY:
	case PGC_CTL_FILES:
	case PGC_CTL_MAPPINGS:
	case PGC_CTL_CGROUPS:
	case PGC_CTL_PINS:
		return 0;
	case PGC_CTL_PIN:
		return msg->ctl_pin.on > 1 || msg->ctl_pin.pad || msg->ctl_pin.ino == 0 || msg->ctl_pin.off > INT64_MAX - PAGE_SIZE_ ||
		       msg->ctl_pin.len > INT64_MAX - PAGE_SIZE_ - msg->ctl_pin.off ? SIZE_MAX : sizeof(msg->ctl_pin);
	case PGC_CTL_STAT:
		return msg->ctl_stat.ino == 0 || msg->ctl_stat.mtime_ns >= 1000000000u || msg->ctl_stat.ctime_ns >= 1000000000u ?
		       SIZE_MAX : sizeof(msg->ctl_stat);
	case PGC_CTL_SYNC:
	case PGC_CTL_DROP:
		return msg->ctl_file.wait > (msg->type == PGC_CTL_SYNC ? PGC_CTL_SYNC_LOOK : 1) || msg->ctl_file.pad ? SIZE_MAX : sizeof(msg->ctl_file);
	case PGC_CTL_CHECK:
		return msg->ctl_check.step < PGC_CHECK_PAGES || msg->ctl_check.step > PGC_CHECK_WORKER ||
		       (msg->ctl_check.step != PGC_CHECK_WORKER && msg->ctl_check.worker) || msg->ctl_check.from > INT64_MAX / PAGE_SIZE_ ?
		       SIZE_MAX : sizeof(msg->ctl_check);
	case PGC_CTL_INJECT:
		return memchr(msg->ctl_inject.uri, 0, sizeof(msg->ctl_inject.uri)) ? sizeof(msg->ctl_inject) : SIZE_MAX;
	case PGC_CTL_SET:
		return memchr(msg->ctl_set.name, 0, sizeof(msg->ctl_set.name)) && memchr(msg->ctl_set.value, 0, sizeof(msg->ctl_set.value)) ?
		       sizeof(msg->ctl_set) : SIZE_MAX;
	default:
		return SIZE_MAX;
	}
}

/* Without anything to wait for. */
static void answer_now(struct conn *c)
{
	struct pgc_msg reply;
	int r;

	if (c->request.type == PGC_CTL_FILES || c->request.type == PGC_CTL_MAPPINGS || c->request.type == PGC_CTL_CGROUPS) {
		c->cursor = 0;
		control_continue(c);
		return;
	}
	conn_reply_init(&reply, &c->request, 0);
	r = answer(c, &reply);
	reply.status = (uint32_t)-r;
	c->request.type = 0;
	if (conn_send(c->sock, &reply, NULL, 0) < 0)
		conn_end(c, "it does not read its replies");
	else
		conn_watch(c, false);
}

/* What shows dirty pages shows those that were stored to without a fault, too. */
static bool looks_first(const struct conn *c, uint32_t type)
{
	return (type == PGC_CTL_FILES || type == PGC_CTL_CGROUPS || type == PGC_CTL_STATUS || type == PGC_CTL_MEMORY) &&
	       atomic_load_explicit(&c->server->budget.tracked, memory_order_relaxed) > 0;
}

const char *control_begin(struct conn *c, const struct pgc_msg *msg, unsigned n_fds)
{
	static const struct pgc_msg look = { .type = PGC_CTL_SYNC, .ctl_file.wait = PGC_CTL_SYNC_LOOK };
	size_t used = body_used(msg);
	struct pgc_msg reply;
	int r;

	if (used == SIZE_MAX || n_fds || msg->status || !conn_body_is_clean(msg, used))
		return "a malformed or unknown control request";
	c->request = *msg;
	switch (msg->type) {
	case PGC_CTL_SYNC:
	case PGC_CTL_DROP:
	case PGC_CTL_STAT:
	case PGC_CTL_PIN:
	case PGC_CTL_PINS:
		r = begin_job(c, msg);
		break;
	case PGC_CTL_CHECK:
		r = control_check_begin(c);
		break;
	default:
		if (!looks_first(c, msg->type) || begin_job(c, &look) < 0)
			answer_now(c);
		return NULL;
	}
	if (r == 0)
		return NULL;
	conn_reply_init(&reply, msg, 0);
	reply.status = (uint32_t)-r;
	c->request.type = 0;
	if (conn_send(c->sock, &reply, NULL, 0) < 0)
		return "it does not read its replies";
	conn_watch(c, false);
	return NULL;
}
