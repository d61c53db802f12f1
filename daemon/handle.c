/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles: from an accepted OPEN to the end of the connection. See handle.h for the lifetime.
 *
 * Invariants
 *   - A handle's requests and faults never run after handle_end(): what is in flight then ends without it.
 *   - A client that does not read its replies, or sends what it may not, loses its connection and harms nothing else.
 * Runs on the file's worker. May call request, fault, space, file, conn.
 */
#include "daemon/handle.h"

#include <assert.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "daemon/conn.h"
#include "daemon/domain.h"
#include "daemon/log.h"
#include "daemon/ops.h"
#include "daemon/request.h"
#include "daemon/warm.h"

#define MESSAGES_PER_ROUND 8

void (*handle_count_hook)(struct worker *w, uid_t uid, uint32_t cgroup_slot, int delta);

void xfer_unref(struct xfer *x)
{
	if (!x || --x->refs > 0)
		return;
	munmap(x->mem, PGC_XFER_SIZE);
	free(x);
}

void open_job_free(struct ring *ring, struct open_job *job)
{
	int *fds[] = { &job->sock, &job->uffd, &job->buffered, &job->direct, &job->memfd };

	for (size_t i = 0; i < ELEMENTSOF(fds); i++)
		conn_close_fd(ring, *fds[i]);
	free(job);
}

/* --- the connection --- */

static void handle_unpin(struct handle *h)
{
	assert(h->pins > 0);
	if (--h->pins > 0)
		return;
	h->worker->live--;
	free(h);
}

void handle_end(struct handle *h, const char *reason)
{
	struct worker *w = h->worker;

	if (h->ended)
		return;
	h->ended = true;
	if (reason) {
		w->stats->bad_messages++;
		log_at(LOG_LEVEL_WARNING, h->file->e->name, h->pid, "connection ended: %s", reason);
	}
	request_abandon_all(h);
	list_remove(&h->task.link);
	list_remove(&h->ending.link);
	list_remove(&h->link);
	ring_cancel(&w->ring, &h->poll);
	shutdown(h->sock, SHUT_RDWR); /* the poll holds the socket a little longer */
	close(h->sock);
	h->sock = -1;
	fault_unwatch(h->space);
	h->space = NULL;
	h->file = NULL;
	xfer_unref(h->xfer);
	h->xfer = NULL;
	handle_count_hook(w, h->uid, h->cgroup_slot, -1);
	handle_unpin(h);
}

/* --- forked children: spaces without a socket --- */

struct child { uid_t uid; uint32_t cgroup_slot; };

static void child_ending(struct task *t)
{
	struct space *s = container_of(t, struct space, ending);
	struct worker *w = s->worker;
	struct child *c = s->owner;

	s->owner = NULL;
	if (c)
		handle_count_hook(w, c->uid, c->cgroup_slot, -1);
	free(c);
	fault_unwatch(s);
}

void handle_end_all(struct worker *w)
{
	struct handle *h;
	struct space *s;

	while ((h = list_first(&w->sockets, struct handle, link)))
		handle_end(h, NULL);
	while ((s = list_first(&w->spaces, struct space, by_worker)))
		child_ending(&s->ending);
}

/* Ends in a later round, out of whatever is going on. */
static void run_ending(struct task *t)
{
	struct handle *h = container_of(t, struct handle, ending);

	handle_end(h, NULL);
}

void handle_reply(struct handle *h, const struct pgc_msg *reply, const int *fds, unsigned n_fds)
{
	int r;

	if (h->ended)
		return;
	r = conn_send(h->sock, reply, fds, n_fds);
	if (r == -EAGAIN || r == -ENOBUFS)
		log_at(LOG_LEVEL_WARNING, h->file->e->name, h->pid, "connection ended: it does not read its replies");
	if (r < 0)
		worker_queue(h->worker, &h->ending);
}

static void read_requests(struct handle *h)
{
	for (int i = 0; i < MESSAGES_PER_ROUND; i++) {
		int fds[PGC_FDS_MAX], r;
		const char *reason = NULL;
		unsigned n_fds = 0;
		struct pgc_msg msg;

		if (h->n_requests >= PGC_REQUESTS_MAX || h->worker->draining)
			return; /* goes on when one is answered */
		r = conn_receive(&h->worker->ring, h->sock, &msg, fds, &n_fds, &reason);
		if (r == -EAGAIN)
			return;
		if (r <= 0) {
			handle_end(h, r == -EPROTO ? reason : NULL);
			return;
		}
		reason = request_begin(h, &msg, fds, n_fds);
		for (unsigned k = 0; k < n_fds; k++)
			conn_close_fd(&h->worker->ring, fds[k]);
		if (reason) {
			handle_end(h, reason);
			return;
		}
	}
	worker_queue(h->worker, &h->task);
}

static void run_reading(struct task *t)
{
	struct handle *h = container_of(t, struct handle, task);

	h->pins++;
	read_requests(h);
	handle_unpin(h);
}

static void watch_socket(struct handle *h);

static void socket_ready(struct ring_op *op, int res, uint32_t cflags)
{
	struct handle *h = container_of(op, struct handle, poll);
	bool last = !(cflags & IORING_CQE_F_MORE);

	h->pins++;
	if (!h->ended && res >= 0)
		read_requests(h);
	if (last) {
		if (!h->ended && res >= 0)
			watch_socket(h);
		else if (!h->ended && res != -ECANCELED)
			handle_end(h, "its socket cannot be polled");
		handle_unpin(h); /* the poll's own */
	}
	handle_unpin(h);
}

static void watch_socket(struct handle *h)
{
	h->pins++;
	h->poll.done = socket_ready;
	io_uring_prep_poll_multishot(ring_sqe(&h->worker->ring, &h->poll), h->sock, POLLIN | POLLRDHUP);
}

/* --- what its space says --- */

static void space_changed(struct space *s)
{
	struct handle *h = s->owner;

	if (s->gone || (h->closing && s->maps.map.n == 0 && s->confirmed))
		worker_queue(h->worker, &h->ending);
	else if (h->closing && s->maps.map.n == 0)
		fault_confirm_unmapped(s);
}

static void child_changed(struct space *s)
{
	if (s->gone)
		worker_queue(s->worker, &s->ending);
}

static void child_forked(struct space *child, struct space *parent);

static void adopt_child(struct space *s, uid_t uid, uint32_t cgroup_slot)
{
	struct worker *w = s->worker;
	struct child *c = calloc(1, sizeof(*c));

	s->changed = child_changed;
	s->forked = child_forked;
	s->ending.run = child_ending;
	ring_timer_arm(&w->ring, &w->child_timer, SPACE_CHECK_NS);
	if (!c)
		return; /* it is served all the same, and counted for nobody */
	*c = (struct child){ uid, cgroup_slot };
	s->owner = c;
	handle_count_hook(w, uid, cgroup_slot, 1);
}

static void child_forked(struct space *child, struct space *parent)
{
	struct child *c = parent->owner;

	if (c)
		adopt_child(child, c->uid, c->cgroup_slot);
}

static void client_forked(struct space *child, struct space *parent)
{
	struct handle *h = parent->owner;

	adopt_child(child, h->uid, h->cgroup_slot);
}

/* --- opening --- */

static void open_failed(struct open_job *job, int error)
{
	struct file *f = job->file;
	struct pgc_msg reply;

	conn_reply_init(&reply, &job->msg, error);
	(void)conn_send(job->sock, &reply, NULL, 0);
	handle_count_hook(job->worker, job->uid, job->cgroup_slot, -1);
	list_remove(&job->link);
	open_job_free(&job->worker->ring, job);
	if (f)
		file_maybe_idle(f);
}

static void show_flags(struct file *f)
{
	f->e->flags = (f->e->flags & PGC_FILE_ERROR) | (f->store->writable ? PGC_FILE_WRITABLE : 0) |
		      (f->store->direct ? PGC_FILE_DIRECT : 0);
}

static int make_handle(struct open_job *job, struct handle **ret)
{
	struct file *f = job->file;
	struct worker *w = job->worker;
	struct handle *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return -ENOMEM;
	r = space_new(&h->space, f, job->uffd);
	if (r < 0) {
		free(h);
		return r;
	}
	job->uffd = -1;
	h->worker = w;
	h->file = f;
	h->sock = take_fd(&job->sock);
	h->readable = job->readable;
	h->writable = job->writable;
	h->pid = job->pid;
	h->uid = job->uid;
	h->cgroup_slot = job->cgroup_slot;
	h->errseq = f->errseq;
	h->pins = 1;
	w->live++;
	list_init(&h->requests);
	list_init(&h->task.link);
	h->task.run = run_reading;
	list_init(&h->ending.link);
	h->ending.run = run_ending;
	list_append(&w->sockets, &h->link);

	h->space->owner = h;
	h->space->has_handle = true;
	h->space->writable = job->writable && job->readable;
	h->space->pid = job->pid;
	h->space->toucher = (struct toucher){
		.cgroup = job->cgroup, .domain = domain_get(w, job->tenant[0], job->tenant[1]), .client = budget_dirty_slot(job->pid),
	};
	readahead_set_init(&h->readahead);
	h->space->kernel_faults = job->kernel_faults;
	h->space->changed = space_changed;
	h->space->forked = client_forked;
	if (job->kernel_faults)
		f->e->kernel_fault_handles++;
	*ret = h;
	return 0;
}

static void opened(struct store_op *op, ssize_t result)
{
	struct open_job *job = container_of(op, struct open_job, stat_op);
	struct file *f = job->file;
	struct handle *h = NULL;
	struct pgc_msg reply;
	int fds[2], r = (int)result;

	if (r == 0 && job->worker->draining)
		r = -ESHUTDOWN;
	if (r == 0)
		r = file_opened(f, &job->stat);
	if (r == 0)
		r = make_handle(job, &h);
	if (r < 0) {
		open_failed(job, r);
		return;
	}
	list_remove(&job->link);
	show_flags(f);
	if (h->space->writable)
		ring_timer_arm(&f->worker->ring, &f->worker->audit_timer, AUDIT_NS);
	warm_opened(f, &h->space->toucher);
	job->worker->stats->handles_opened++;
	conn_reply_init(&reply, &job->msg, 0);
	reply.open_reply = (struct pgc_open_reply){
		.file_dev = f->dev, .file_ino = f->ino, .size = f->size, .file = f->slot,
		.flags = (job->worker->caps->fork_events ? PGC_HANDLE_FORK_EVENTS : 0) |
			 (job->kernel_faults ? PGC_HANDLE_KERNEL_FAULTS : 0),
	};
	fds[0] = f->control_fd;
	fds[1] = h->writable ? f->memfd : f->memfd_ro;
	fault_watch(h->space);
	watch_socket(h);
	handle_reply(h, &reply, fds, h->readable && job->msg.type == PGC_MSG_OPEN ? 2 : 1);
	open_job_free(&job->worker->ring, job);
}

/* CLONE: the memfd that came must be this file's own. */
static int check_clone(struct open_job *job, struct file *f)
{
	struct stat ours, theirs;

	if (!f || !f->store || f->state != FILE_READY)
		return -ESTALE;
	if (fstat(f->memfd, &ours) < 0 || fstat(job->memfd, &theirs) < 0)
		return -errno;
	return ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino ? 0 : -EINVAL;
}

static int open_store(struct open_job *job, struct file *f)
{
	int r = 0;

	if (job->msg.type == PGC_MSG_CLONE)
		return 0;
	if (job->msg.open.uri[0]) {
		if (!f->store)
			r = mem_store_open(&f->store, &job->worker->ring, job->msg.open.uri);
		return r;
	}
	if (f->store) {
		file_store_add(f->store, take_fd(&job->buffered), take_fd(&job->direct), job->dio_align);
		return 0;
	}
	r = file_store_open(&f->store, &job->worker->ring, job->buffered, job->direct, job->dio_align);
	if (r == 0)
		job->buffered = job->direct = -1;
	return r;
}

void handle_open(struct open_job *job)
{
	struct worker *w = job->worker;
	struct file *f = file_find(w, job->dev, job->ino);
	int r;

	list_init(&job->link);
	if (w->draining) {
		open_failed(job, -ESHUTDOWN);
		return;
	}
	if (job->msg.type == PGC_MSG_CLONE) {
		r = check_clone(job, f);
		if (r < 0) {
			open_failed(job, r);
			return;
		}
	}
	if (!f) {
		r = file_new(&f, w, job->dev, job->ino, job->name);
		if (r < 0) {
			open_failed(job, r);
			return;
		}
		ops_file_init(f);
	}
	job->file = f;
	list_append(&f->opening, &job->link);
	if (job->msg.type == PGC_MSG_OPEN) {
		f->retain = job->retain;
		f->warm_start = job->warm_start;
		f->readahead_max = job->readahead_max;
	}
	if (f->state == FILE_IDLE) {
		f->state = FILE_OPENING;
		file_set_name(f, job->name);
	}
	r = open_store(job, f);
	if (r == 0) {
		r = uffd_accept(job->uffd, w->caps);
		if (r < 0)
			log_at(LOG_LEVEL_WARNING, f->e->name, job->pid,
			       "open refused: the userfaultfd is none, or blocking, or configured already: %s", strerror(-r));
	}
	if (r < 0) {
		open_failed(job, r);
		return;
	}
	job->stat_op.done = opened;
	f->store->ops->stat(f->store, &job->stat_op, &job->stat);
}
