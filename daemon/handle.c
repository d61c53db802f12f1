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

#include "daemon/attach.h"
#include "daemon/conn.h"
#include "daemon/domain.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/memory.h"
#include "daemon/ops.h"
#include "daemon/request.h"
#include "daemon/revive.h"
#include "daemon/space_check.h"
#include "daemon/space_save.h"
#include "daemon/twin.h"
#include "daemon/warm.h"

#define MESSAGES_PER_ROUND 8
#define TURN_NS            40000ull  /* of one handle: then others have their turn */

void (*handle_count_hook)(struct worker *w, struct user_count *user, uint32_t cgroup_slot, int delta);

void xfer_unref(struct xfer *x)
{
	if (!x || --x->refs > 0)
		return;
	munmap(x->mem, PGC_XFER_SIZE);
	free(x);
}

void open_job_free(struct ring *ring, struct open_job *job)
{
	int *fds[] = { &job->sock, &job->uffd, &job->buffered, &job->direct, &job->memfd, &job->fourth, &job->pagemap };

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
	kill_point("handle.ending");
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
	kill_point("handle.unwatched");
	h->file = NULL;
	xfer_unref(h->xfer);
	h->xfer = NULL;
	free(h->restored);
	h->restored = NULL;
	if (h->attaching)
		open_job_free(&w->ring, TAKE_PTR(h->attaching));
	handle_count_hook(w, h->user, h->cgroup_slot, -1);
	handle_unpin(h);
}

/* --- forked children: spaces without a socket --- */

struct child { uid_t uid; struct user_count *user; uint32_t cgroup_slot; };

static void child_ending(struct task *t)
{
	struct space *s = container_of(t, struct space, ending);
	struct worker *w = s->worker;
	struct child *c = s->owner;

	kill_point("child.ending");
	s->owner = NULL;
	w->children[s->toucher.client]--;
	if (c)
		handle_count_hook(w, c->user, c->cgroup_slot, -1);
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
	struct pgc_msg m = { .type = PGC_MSG_ENDED };

	if (h->closing && h->space->maps.map.n == 0 && !h->ended)
		(void)conn_send(h->sock, &m, NULL, 0);
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
	uint64_t start = now_ns();

	for (int i = 0; i < MESSAGES_PER_ROUND && (i == 0 || now_ns() - start < TURN_NS); i++) {
		int fds[PGC_FDS_MAX], r;
		const char *reason = NULL;
		unsigned n_fds = 0;
		struct pgc_msg msg;

		if (h->n_requests >= PGC_REQUESTS_MAX || h->worker->draining)
			return; /* goes on when one is answered */
		r = conn_receive(&h->worker->ring, h->sock, &msg, fds, &n_fds, &reason);
		if (r == -EAGAIN)
			return;
		if (r == -EMFILE) {
			request_refuse(h, &msg, r);
			continue;
		}
		if (r <= 0) {
			handle_end(h, r == -EPROTO ? reason : NULL);
			return;
		}
		placement_other(h->worker);
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

static void socket_ready(struct ring_op *op, int res, uint32_t cflags)
{
	struct handle *h = container_of(op, struct handle, poll);
	bool last = !(cflags & IORING_CQE_F_MORE);

	h->pins++;
	if (!h->ended && res >= 0)
		worker_queue(h->worker, &h->task);
	if (last) {
		if (!h->ended && res >= 0)
			handle_watch(h);
		else if (!h->ended && res != -ECANCELED)
			handle_end(h, "its socket cannot be polled");
		handle_unpin(h); /* the poll's own */
	}
	handle_unpin(h);
}

void handle_watch(struct handle *h)
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
		space_confirm_unmapped(s);
}

static uint32_t saved_flags(const struct space *s, bool readable, bool writable)
{
	return (readable ? PGC_SAVED_READABLE : 0) | (writable ? PGC_SAVED_WRITABLE : 0) | (s->kernel_faults ? PGC_SAVED_KERNEL_FAULTS : 0) |
	       (tracker_on(&s->tracker) ? PGC_SAVED_ASYNC : 0);
}

static void child_changed(struct space *s)
{
	if (s->gone)
		worker_queue(s->worker, &s->ending);
}

static void child_forked(struct space *child, struct space *parent);

static void keep_child(struct task *t)
{
	struct space *s = container_of(t, struct space, keeping);
	int r = space_keep(s, -1);

	if (r == 0)
		twin_child_kept(s->uffd, space_record(s));
	else if (r == -EAGAIN)
		worker_retry(s->worker, t);
	else
		log_at(LOG_LEVEL_WARNING, s->file->e->name, s->pid, "a forked child would not survive the daemon: %s", strerror(-r));
}

void handle_keep_child(struct space *s) { keep_child(&s->keeping); }

void handle_set_up_child(struct space *s)
{
	s->changed = child_changed;
	s->forked = child_forked;
	s->ending.run = child_ending;
	s->keeping.run = keep_child;
}

void handle_count_child(struct space *s, uid_t uid, struct user_count *user, uint32_t cgroup_slot)
{
	struct child *c = calloc(1, sizeof(*c));

	s->worker->children[s->toucher.client]++;
	ring_timer_arm(&s->worker->ring, &s->worker->child_timer, SPACE_CHECK_NS);
	if (!c)
		return; /* it is served all the same, and counted for nobody */
	*c = (struct child){ uid, user, cgroup_slot };
	s->owner = c;
}

static void adopt_child(struct space *s, struct space *parent, uid_t uid, struct user_count *user, uint32_t cgroup_slot)
{
	handle_set_up_child(s);
	if (space_save_new(s, PGC_SAVED_CHILD | saved_flags(s, true, s->writable), uid, parent->id) == 0 && s->saved) {
		s->saved->last_addr = s->last_addr;
		keep_child(&s->keeping);
	}
	handle_count_child(s, uid, user, cgroup_slot);
	if (s->owner)
		handle_count_hook(s->worker, user, cgroup_slot, 1);
	/* What the child has mapped is not known either, and it may store to it. */
	if (parent->restoring) {
		revive_space(s);
		if (s->file->state == FILE_READY)
			revive_ask(s);
	}
}

static void child_forked(struct space *child, struct space *parent)
{
	struct child *c = parent->owner;

	if (c)
		adopt_child(child, parent, c->uid, c->user, c->cgroup_slot);
}

static void client_forked(struct space *child, struct space *parent)
{
	struct handle *h = parent->owner;

	adopt_child(child, parent, h->uid, h->user, h->cgroup_slot);
}

void handle_adopt_child(struct space *child, struct space *parent)
{
	child->last_addr = parent->last_addr;
	(void)space_copy(child, parent); /* which maps nothing yet */
	child->file->e->kernel_fault_handles += child->kernel_faults;
	parent->forked(child, parent);
}

/* --- opening --- */

void (*handle_late_child_hook)(struct open_job *job);

void handle_open_failed(struct open_job *job, int error)
{
	struct file *f = job->file;
	struct pgc_msg reply;

	conn_reply_init(&reply, &job->msg, error);
	(void)conn_send(job->sock, &reply, NULL, 0);
	handle_count_hook(job->worker, job->user, job->cgroup_slot, -1);
	list_remove(&job->link);
	open_job_free(&job->worker->ring, job);
	if (f)
		file_maybe_idle(f);
}

static void show_flags(struct file *f)
{
	f->e->flags = (f->e->flags & PGC_FILE_ERROR) | (f->store->writable ? PGC_FILE_WRITABLE : 0) |
		      (f->store->direct ? PGC_FILE_DIRECT : 0) | (f->huge ? PGC_FILE_HUGE : 0);
}

int handle_make(struct open_job *job, struct handle **ret)
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
	h->space->pid = job->pid;
	h->space->toucher = (struct toucher){
		.cgroup = job->cgroup, .domain = domain_get(w, job->tenant[0], job->tenant[1]), .user = job->user,
		.client = budget_client_slot(w->budget, job->pid),
	};
	if (job->async) { /* what a dead daemon had mapped counts for that client */
		r = space_track(h->space, &job->pagemap, job->dead, job->track_row);
		if (r < 0) {
			h->space->uffd = -1; /* the job's */
			space_close(h->space);
			free(h);
			return r;
		}
	}
	job->uffd = -1;
	twin_knows(h->space->uffd);
	h->worker = w;
	h->file = f;
	h->sock = take_fd(&job->sock);
	h->readable = job->readable;
	h->writable = job->writable;
	h->pid = job->pid;
	h->uid = job->uid;
	h->user = job->user;
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
	h->space->start_time = job->start_time;
	h->task.flow = h->ending.flow = worker_flow(&h->space->toucher);
	readahead_set_init(&h->readahead);
	h->space->kernel_faults = job->kernel_faults;
	h->space->changed = space_changed;
	h->space->forked = client_forked;
	if (job->kernel_faults)
		f->e->kernel_fault_handles++;
	*ret = h;
	return 0;
}

static void keep_opened(struct task *t);
static void attached(struct space *s);
static void refuse_opened(struct open_job *job, int error);

static void opened(struct store_op *op, ssize_t result)
{
	struct open_job *job = container_of(op, struct open_job, stat_op);
	struct file *f = job->file;
	struct handle *h = NULL;
	bool known = false; /* to the daemon before */
	int r = (int)result;

	if (r == 0 && job->worker->draining)
		r = -ESHUTDOWN;
	kill_point("open.stat_done");
	if (r == 0)
		r = file_opened(f, &job->stat, job->moves);
	if (r == 0)
		r = handle_make(job, &h);
	if (r < 0) {
		handle_open_failed(job, r);
		return;
	}
	kill_point("open.handle_made");
	list_remove(&job->link);
	job->handle = h;
	h->pins++;
	job->task.run = keep_opened;
	list_init(&job->task.link);
	if (job->msg.type == PGC_MSG_ATTACH) {
		revive_space(h->space);
		h->space->unheard = true;
		h->space->revived = attached;
		known = attach_take_record(h->space, job->msg.attach.handle, h->uid, saved_flags(h->space, h->readable, h->writable));
		(void)space_set_window(h->space, job->msg.attach.window_addr, job->msg.attach.window_len);
	}
	if (!known)
		r = space_save_new(h->space, saved_flags(h->space, h->readable, h->writable), h->uid, 0);
	if (h->space->saved)
		h->errseq = h->space->saved->errseq;
	if (r < 0)
		refuse_opened(job, r);
	else
		keep_opened(&job->task);
}

void handle_answer_open(struct handle *h, const struct pgc_msg *request)
{
	struct file *f = h->file;
	struct pgc_msg reply;
	int fds[2] = { f->control_ro, h->writable ? f->memfd : f->memfd_ro };

	conn_reply_init(&reply, request, 0);
	reply.open_reply = (struct pgc_open_reply){
		.file_dev = f->dev, .file_ino = f->ino, .size = f->size, .file = f->slot, .handle = h->space->id,
		.orphan_timeout_ms = h->worker->config->orphan_timeout_ms,
		.flags = (h->worker->caps->fork_events && !tracker_on(&h->space->tracker) ? PGC_HANDLE_FORK_EVENTS : 0) |
			 (tracker_on(&h->space->tracker) ? PGC_HANDLE_ASYNC : 0) |
			 (h->space->kernel_faults ? PGC_HANDLE_KERNEL_FAULTS : 0),
	};
	handle_reply(h, &reply, fds, h->readable && request->type == PGC_MSG_OPEN ? 2 : 1);
	space_save_answered(h->space);
}

/* The handle is made and kept: from here on the client has it. */
static void begin_handle(struct open_job *job)
{
	struct file *f = job->file;
	struct handle *h = job->handle;

	show_flags(f);
	if (h->space->writable || f->huge)
		ring_timer_arm(&f->worker->ring, &f->worker->audit_timer, AUDIT_NS);
	warm_opened(f, &h->space->toucher);
	job->worker->stats->handles_opened++;
	kill_point("open.answering");
	handle_watch(h);
	handle_answer_open(h, &job->msg);
	kill_point("open.answered");
}

static void refuse_opened(struct open_job *job, int error)
{
	struct handle *h = job->handle;
	struct pgc_msg reply;

	if (!h->ended) {
		conn_reply_init(&reply, &job->msg, error);
		handle_reply(h, &reply, NULL, 0);
		handle_end(h, NULL);
	}
	handle_unpin(h);
	open_job_free(&job->worker->ring, job);
}

static void keep_opened(struct task *t)
{
	struct open_job *job = container_of(t, struct open_job, task);
	struct handle *h = job->handle;
	int r = h->ended ? -ECONNRESET : file_keep(job->file);

	if (r == 0)
		r = space_keep(h->space, h->sock);
	if (r == -EAGAIN) {
		worker_retry(job->worker, t);
	} else if (r < 0) {
		refuse_opened(job, r);
	} else if (job->msg.type == PGC_MSG_ATTACH) {
		h->attaching = job;
		handle_unpin(h);
		fault_watch(h->space);
		revive_ask(h->space);
	} else {
		fault_watch(h->space);
		begin_handle(job);
		handle_unpin(h);
		open_job_free(&job->worker->ring, job);
	}
}

/* What it has mapped is known: now it is answered. */
static void attached(struct space *s)
{
	struct handle *h = s->owner;
	struct open_job *job = TAKE_PTR(h->attaching);

	begin_handle(job);
	open_job_free(&h->worker->ring, job);
}

/* CLONE: the memfd that came must be this file's own. */
static int check_clone(struct open_job *job, struct file *f)
{
	struct stat ours, theirs;

	if (!f || !f->store || f->state == FILE_IDLE) /* one that is taken over just now has a store, and is not ready yet */
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
	if (job->msg.type == PGC_MSG_OPEN && job->msg.open.uri[0]) {
		if (!f->store)
			r = mem_store_open(&f->store, &job->worker->ring, job->msg.open.uri);
		return r;
	}
	f->saved->dio_align = MAX(f->saved->dio_align, job->dio_align);
	if (f->store) {
		file_store_add(f->store, take_fd(&job->buffered), take_fd(&job->direct), job->dio_align);
		return 0;
	}
	r = file_store_open(&f->store, &job->worker->ring, job->buffered, job->direct, job->dio_align);
	if (r == 0)
		job->buffered = job->direct = -1;
	return r;
}

/*
 * A file that nobody has open keeps its memory, but not its inode: the number may be another file's by now, and who had the first one open may have kept its
 * memory, to write. Where no time of birth tells, one that has changed counts as another.
 */
static bool is_another(const struct file *f, const struct open_job *job)
{
	if (f->state != FILE_IDLE || job->msg.type == PGC_MSG_CLONE)
		return false;
	if (!memory_is_of(f->memfd, job->dev, job->ino, job->birth))
		return true;
	return job->birth == 0 && job->msg.type == PGC_MSG_OPEN && !job->msg.open.uri[0] && f->e->dirty == 0 && f->pins.map.n == 0 &&
	       file_version_differs(f, job->size, job->mtime, job->ctime);
}

static void forget_removed(struct file *f)
{
	if (f->e->dirty > 0)
		log_at(LOG_LEVEL_ERROR, f->e->name, 0, "was removed, and another file has its number: %llu dirty pages are lost",
		       (unsigned long long)f->e->dirty);
	file_free(f);
}

void handle_open(struct open_job *job)
{
	struct worker *w = job->worker;
	struct file *f = file_find(w, job->dev, job->ino);
	int r;

	list_init(&job->link);
	if (w->draining) {
		handle_open_failed(job, -ESHUTDOWN);
		return;
	}
	if (job->msg.type == PGC_MSG_CHILD) {
		if (handle_late_child_hook)
			handle_late_child_hook(job);
		else
			handle_open_failed(job, -ESRCH);
		return;
	}
	if (job->writable && job->huge) {
		handle_open_failed(job, -EROFS);
		return;
	}
	if (f && is_another(f, job)) {
		forget_removed(f);
		f = NULL;
	}
	if (job->msg.type == PGC_MSG_ATTACH) {
		attach_open(job);
		return;
	}
	if (job->msg.type == PGC_MSG_CLONE) {
		r = check_clone(job, f);
		if (r < 0) {
			handle_open_failed(job, r);
			return;
		}
	}
	if (!f && attach_park(job))
		return;
	if (!f) {
		r = file_new(&f, w, job->dev, job->ino, job->birth, job->name, job->huge);
		if (r < 0) {
			handle_open_failed(job, r);
			return;
		}
		ops_file_init(f);
	}
	handle_open_on(job, f, false);
}

void handle_open_on(struct open_job *job, struct file *f, bool dead)
{
	struct worker *w = job->worker;
	int r;

	job->file = f;
	list_append(&f->opening, &job->link);
	if (job->msg.type != PGC_MSG_CLONE) {
		f->retain = job->retain;
		f->warm_start = job->warm_start;
		f->readahead_max = job->readahead_max;
	}
	kill_point("open.file_made");
	if (f->state == FILE_IDLE) {
		f->state = FILE_OPENING;
		file_set_name(f, job->name);
	}
	r = job->writable && f->huge ? -EROFS : open_store(job, f);
	kill_point("open.store_made");
	if (r == 0 && dead)
		revive_file(f);
	if (r == 0 && job->msg.type == PGC_MSG_ATTACH) {
		/* A forked child's is new. */
		/* The bits that told what was mapped went with that daemon. */
		job->async = job->readable && job->writable && uffd_is_async(job->uffd);
		job->dead = true;
		job->track_row = UINT32_MAX;
		r = uffd_accept(job->uffd, w->caps, false) == 0 || uffd_is_readable(job->uffd, w->caps) ? 0 : -EINVAL;
	} else if (r == 0) {
		job->async = job->readable && job->writable && job->pagemap >= 0 && w->caps->wp_async && w->config->write_tracking == TRACKING_ASYNC;
		r = uffd_accept(job->uffd, w->caps, job->async);
		if (r < 0)
			log_at(LOG_LEVEL_WARNING, f->e->name, job->pid,
			       "open refused: the userfaultfd is none, or blocking, or configured already: %s", strerror(-r));
	}
	if (r < 0) {
		handle_open_failed(job, r);
		return;
	}
	kill_point("open.uffd_accepted");
	job->stat_op.done = opened;
	job->moves = f->moves;
	f->store->ops->stat(f->store, &job->stat_op, &job->stat);
}
