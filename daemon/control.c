/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control connections: what pagecachectl asks. Listings are read out of the state that workers keep in shared memory, as anyone with
 * bpftool reads it, and sent as fast as the peer takes them. SYNC and DROP are done by the workers, by message.
 * Main thread; the functions marked so run on workers.
 */
#include "daemon/server.h"

#include <assert.h>
#include <string.h>

#include "daemon/conn.h"
#include "daemon/log.h"
#include "daemon/writeback.h"

#define REPLIES_PER_ROUND 64

/* --- SYNC and DROP: one part a worker --- */

struct control_part {
	struct ring_op op;
	struct control_job *job;
	struct worker *worker;
	bool drop, wait;
	uint64_t dev, ino;         /* 0, 0: all files */
	unsigned busy;
	int error;
	uint64_t files, pages;
};

struct control_job {
	struct conn *conn;         /* NULL: it ended */
	struct server *server;
	unsigned parts_left, n_parts;
	struct control_part part[];
};

static void job_reply(struct control_job *job)
{
	struct conn *c = job->conn;
	struct pgc_msg reply;
	int error = 0;

	conn_reply_init(&reply, &c->request, 0);
	for (unsigned i = 0; i < job->n_parts; i++) {
		reply.ctl_count_reply.files += job->part[i].files;
		reply.ctl_count_reply.pages += job->part[i].pages;
		if (error == 0)
			error = job->part[i].error;
	}
	if (error == 0 && c->request.ctl_file.ino && reply.ctl_count_reply.files == 0)
		error = -ENOENT;
	reply.status = (uint32_t)-error;
	c->control = NULL;
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
	free(job);
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
static void part_file(struct control_part *p, struct file *f)
{
	struct control_sync *cs;

	p->files++;
	if (p->drop) {
		p->pages += file_drop_clean(f, 0, ~0ull, false);
		return;
	}
	if (!f->store)
		return; /* idle, so clean */
	if (!p->wait) {
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
	} else {
		list_for_each_safe(f, next, &w->all_files, by_worker)
			part_file(p, f);
	}
	part_done_one(p);
}

static int begin_job(struct conn *c, bool drop)
{
	struct server *s = c->server;
	const struct pgc_ctl_file *m = &c->request.ctl_file;
	bool one = m->dev || m->ino;
	unsigned n = one ? 1 : s->n_workers;
	struct control_job *job;

	if (drop && !conn_privileged(c))
		return -EPERM;
	job = calloc(1, sizeof(*job) + n * sizeof(job->part[0]));
	if (!job)
		return -ENOMEM;
	job->conn = c;
	job->server = s;
	job->n_parts = job->parts_left = n;
	c->control = job;
	for (unsigned i = 0; i < n; i++) {
		struct control_part *p = &job->part[i];

		p->job = job;
		p->drop = drop;
		p->wait = m->wait;
		p->dev = m->dev;
		p->ino = m->ino;
		p->worker = &s->workers[one ? worker_index(s->n_workers, m->dev, m->ino) : i];
		p->op.done = part_arrived;
		if (ring_post(&s->ring, &p->worker->ring, &p->op, 0) < 0) {
			p->error = -ENOMEM;
			job->parts_left--;
		}
	}
	if (job->parts_left == 0) {
		job_reply(job);
		free(job);
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
		.memory_max = s->budget.max * PAGE_SIZE_,
		.memory_used = atomic_load_explicit(&s->budget.used, memory_order_relaxed) * PAGE_SIZE_,
		.clients = server_handles(s), .uptime_ms = (now - s->started) / 1000000, .workers = s->n_workers,
		.pid = (uint32_t)getpid(), .bpf = st->bpf, .kernel_faults = s->caps.device >= 0,
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
		r->fills += e->fills;
		r->fill_bytes += e->fill_bytes;
		r->fill_errors += e->fill_errors;
		r->writeouts += e->writeouts;
		r->writeout_bytes += e->writeout_bytes;
		r->writeout_errors += e->writeout_errors;
	}
	r->oldest_dirty_ms = oldest && oldest < now ? (now - oldest) / 1000000 : 0;
	strncpy(r->version, PGC_VERSION, sizeof(r->version) - 1);
}

static bool file_reply(struct server *s, uint32_t slot, struct pgc_ctl_file_reply *r)
{
	const struct pgc_file_entry *e = &s->state.files[slot];

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

static bool mapping_reply(struct server *s, uint32_t slot, struct pgc_ctl_mapping_reply *r)
{
	const struct pgc_mapping_entry *e = &s->state.mappings[slot];
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

/* The next row of the listing, from c->cursor on; false at its end. */
static bool next_row(struct conn *c, struct pgc_msg *reply)
{
	struct server *s = c->server;
	bool files = c->request.type == PGC_CTL_FILES;
	uint32_t n = s->state.map[files ? 0 : 2].entries;

	conn_reply_init(reply, &c->request, 0);
	while (c->cursor < n) {
		uint32_t slot = c->cursor;

		if (files ? file_reply(s, slot, &reply->ctl_file_reply) : mapping_reply(s, slot, &reply->ctl_mapping_reply))
			return true;
		c->cursor++;
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
			conn_watch(c, false);
			return;
		}
		c->cursor++;
	}
	conn_watch(c, true);
}

/* --- dispatch --- */

static int reply_status(struct conn *c)
{
	struct pgc_msg reply;

	conn_reply_init(&reply, &c->request, 0);
	fill_status(c->server, &reply.ctl_status_reply);
	return conn_send(c->sock, &reply, NULL, 0);
}

const char *control_begin(struct conn *c, const struct pgc_msg *msg, unsigned n_fds)
{
	size_t used = msg->type == PGC_CTL_SYNC || msg->type == PGC_CTL_DROP ? sizeof(struct pgc_ctl_file) :
		      msg->type == PGC_CTL_INJECT ? sizeof(struct pgc_ctl_inject) : 0;
	struct pgc_msg reply;
	int r = 0;

	if (n_fds || msg->status || !conn_body_is_clean(msg, used))
		return "a malformed control request";
	if (used == sizeof(struct pgc_ctl_file) && (msg->ctl_file.wait > 1 || msg->ctl_file.pad))
		return "a malformed control request";
	c->request = *msg;
	switch (msg->type) {
	case PGC_CTL_STATUS:
		r = reply_status(c);
		c->request.type = 0;
		if (r < 0)
			return "it does not read its replies";
		conn_watch(c, false);
		return NULL;
	case PGC_CTL_FILES:
	case PGC_CTL_MAPPINGS:
		c->cursor = 0;
		control_continue(c);
		return NULL;
	case PGC_CTL_SYNC:
	case PGC_CTL_DROP:
		r = begin_job(c, msg->type == PGC_CTL_DROP);
		if (r == 0)
			return NULL;
		break;
	case PGC_CTL_INJECT:
		if (!memchr(msg->ctl_inject.uri, 0, sizeof(msg->ctl_inject.uri)))
			return "a malformed control request";
		if (!c->server->config->test_stores || !conn_privileged(c))
			r = -EPERM;
		else
			r = mem_store_inject(msg->ctl_inject.uri, msg->ctl_inject.what, msg->ctl_inject.value, msg->ctl_inject.count);
		break;
	default:
		c->request.type = 0;
		return "an unknown control request";
	}
	conn_reply_init(&reply, msg, r);
	c->request.type = 0;
	if (conn_send(c->sock, &reply, NULL, 0) < 0)
		return "it does not read its replies";
	conn_watch(c, false);
	return NULL;
}
