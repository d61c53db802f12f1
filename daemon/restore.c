/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking over. Of a dead daemon there are its state (state.h, `recovered`), descriptors (fdstore.h) and clients that wait. On the main thread it is found out
 * whom the handles belong to; all else runs on the worker that owns the file, before its first round:
 *
 *   files     memfd and control page; a record without them waits for a client that attaches (attach.c)
 *   blocks    of those files
 *   handles   socket and userfaultfd, and forked children's
 *   the rest  revive.c; at its end each client hears RESUMED
 *
 * Writes that the dead daemon had begun may still be under way; files with such wait for its ring's lifeline before they write. The daemon may die again at
 * any of these steps: nothing of a record goes before what replaces it is there.
 * May call everything below server.
 */
#include "daemon/restore.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/attach.h"
#include "daemon/conn.h"
#include "daemon/domain.h"
#include "daemon/fdstore.h"
#include "daemon/file_save.h"
#include "daemon/kept.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/memory.h"
#include "daemon/ops.h"
#include "daemon/proc_fd.h"
#include "daemon/process.h"
#include "daemon/reclaim.h"
#include "daemon/revive.h"
#include "daemon/saved.h"
#include "daemon/space_save.h"
#include "daemon/track.h"
#include "daemon/twin.h"
#include "daemon/uffd.h"
#include "daemon/written.h"

#define UNKNOWN_IO_NS 2000000000ull  /* for a dead daemon's writes, where no lifeline tells when they are over */

/* --- descriptors --- */

/* The next passed descriptor of that name, from `*at` on; -1: none. The caller's. */
static int take_passed(const char *name, unsigned *at)
{
	unsigned n;
	struct fdstore_fd *p = fdstore_passed(&n);

	for (; *at < n; (*at)++)
		if (p[*at].fd >= 0 && strcmp(p[*at].name, name) == 0)
			return take_fd(&p[(*at)++].fd);
	return -1;
}

static void take_memory(uint32_t slot, int *ret_memfd, int *ret_control)
{
	char name[FDSTORE_NAME_MAX];
	unsigned at = 0;
	int fd;

	*ret_memfd = *ret_control = -1;
	fdstore_name(name, 'f', slot);
	while ((fd = take_passed(name, &at)) >= 0) {
		int *place = proc_fd_is(fd, "/memfd:pagecached-control") ? ret_control : ret_memfd;

		if (*place < 0 && proc_fd_is(fd, "/memfd:pagecached"))
			*place = fd;
		else
			close(fd);
	}
}

/* The bits of who tracks stores without faults. */
static void take_tracked(struct file *f)
{
	char name[FDSTORE_NAME_MAX];
	unsigned at = 0;
	int fd = take_passed(fdstore_name(name, 't', f->slot), &at);

	if (fd >= 0 && proc_fd_is(fd, "/memfd:pagecached-tracked")) {
		f->tracked.fd = take_fd(&fd);
		f->tracked.kept = true;
		f->saved->tracked = 1;
	}
	cleanup_close(&fd);
	track_put_back(f);
	at = 0;
	fd = take_passed(fdstore_name(name, 'w', f->slot), &at);
	if (fd >= 0 && proc_fd_is(fd, "/memfd:pagecached-written"))
		written_restore(f, take_fd(&fd));
	cleanup_close(&fd);
}

/* Descriptors of the store; those without O_DIRECT first. How many. */
static unsigned take_store(struct worker *w, uint32_t slot, int fds[8])
{
	char name[FDSTORE_NAME_MAX];
	unsigned at = 0, n = 0;
	int fd;

	fdstore_name(name, 's', slot);
	while ((fd = take_passed(name, &at)) >= 0) {
		int flags = fcntl(fd, F_GETFL);

		if (flags < 0 || n == 8) {
			conn_close_fd(&w->ring, fd);
		} else if (flags & O_DIRECT) {
			fds[n++] = fd;
		} else {
			memmove(fds + 1, fds, n * sizeof(*fds));
			fds[0] = fd;
			n++;
		}
	}
	return n;
}

/* Userfaultfds that are passed are nobody's that was just forked: the twin must not take them for such, and holds children's (twin.h). So one of them is closed like this. */
static void close_uffd(int fd)
{
	twin_forget(fd);
	close(fd);
}

static void know_passed(const struct state *state)
{
	unsigned n;
	struct fdstore_fd *p = fdstore_passed(&n);

	for (unsigned i = 0; i < n; i++) {
		uint64_t slot = *p[i].name ? strtoull(p[i].name + 1, NULL, 10) : UINT64_MAX;
		bool child = *p[i].name == 'c' || *p[i].name == 'o';
		const struct pgc_saved_handle *r = child && slot < state->params.handles ? &state->saved_handles[slot] : NULL;

		if (p[i].fd < 0 || (!child && *p[i].name != 'h'))
			continue;
		if (r && saved_check_handle(r))
			twin_child_passed(p[i].fd, (struct twin_record){ (uint32_t)slot, r->id }, *p[i].name == 'o', r->last_addr);
		else
			twin_knows(p[i].fd);
	}
}

/*
 * What has these names and no record is given up before any of the names is used again, so that what is kept under it then is not given up, too. Of the
 * worker's own slots.
 */
static void drop_passed(struct worker *w, const char *kinds, const struct slot_pool *slots)
{
	unsigned n;
	struct fdstore_fd *p = fdstore_passed(&n);

	for (unsigned i = 0; i < n; i++) {
		bool taken = false;
		unsigned same = 0;
		char *end;
		uint64_t slot;

		if (p[i].fd < 0 || !*p[i].name || !strchr(kinds, *p[i].name))
			continue;
		slot = strtoull(p[i].name + 1, &end, 10);
		if (*end || end == p[i].name + 1 || slot < slots->first || slot - slots->first >= slots->count)
			continue;
		for (unsigned k = 0; k < n; k++)
			if (strcmp(p[k].name, p[i].name) == 0) {
				taken |= p[k].fd < 0;
				same++;
			}
		if (!taken)
			kept_remove(w, p[i].name, same, NULL, 0);
		for (unsigned k = n; k-- > i;)
			if (p[k].fd >= 0 && strcmp(p[k].name, p[i].name) == 0) {
				twin_forget(p[k].fd);
				conn_close_fd(&w->ring, take_fd(&p[k].fd));
			}
	}
}

/* --- files and blocks --- */

/* A record that is in use and damaged: what it cannot do without is known from the memory itself, whose name and size say it. */
static bool rebuild_record(struct worker *w, uint32_t slot, int memfd)
{
	struct pgc_saved_file *s = &w->state->saved_files[slot];
	struct pgc_file_entry *e = &w->state->files[slot];
	uint64_t dev, ino;
	struct stat st;

	if (s->file == 0 || memfd < 0 || !memory_file_of(memfd, &dev, &ino) || fstat(memfd, &st) < 0 || worker_index(w->n_workers, dev, ino) != w->id)
		return false;
	saved_clear(s);
	*s = (struct pgc_saved_file){ .dev = dev, .ino = ino, .memfd_dev = st.st_dev, .memfd_ino = st.st_ino, .filling = 1, .moving = 1 };
	saved_seal_file(s, slot);
	e->file = slot;
	e->size = (uint64_t)st.st_size;
	return true;
}

static int take_over(struct file **ret, struct worker *w, uint32_t slot, int memfd, int control)
{
	int r = -EAGAIN;

	for (unsigned i = 0; revive_may_pass(r) && i < REVIVE_TRIES; i++)
		r = file_restore(ret, w, slot, memfd, control);
	if (revive_may_pass(r))
		revive_die(w->state->files[slot].name, "its memory cannot be taken over", r);
	return r;
}

static void restore_file(struct worker *w, uint32_t slot)
{
	bool sound = saved_check_file(&w->state->saved_files[slot], slot) && w->state->files[slot].file == slot;
	int memfd, control, fds[8], r;
	struct file *f;
	unsigned n;

	take_memory(slot, &memfd, &control);
	if (!sound && !rebuild_record(w, slot, memfd)) {
		/* It was just being made, or is no record. */
		if (memfd >= 0)
			close(memfd);
		if (control >= 0)
			close(control);
		revive_forget_file(w, slot, w->state->saved_files[slot].file == slot ? "its record is damaged" : NULL);
		return;
	}
	if (memfd < 0) {
		if (control >= 0)
			close(control);
		attach_await_file(w, slot);
		return;
	}
	r = take_over(&f, w, slot, memfd, control);
	kill_point("restore.memory");
	if (r < 0) {
		close(memfd);
		if (control >= 0)
			close(control);
		revive_forget_file(w, slot, strerror(-r));
		return;
	}
	f->distrusted = !sound;
	take_tracked(f);
	n = take_store(w, slot, fds);
	r = revive_store(f, fds, n);
	if (r < 0) {
		log_at(LOG_LEVEL_ERROR, f->e->name, 0, "its store could not be taken over, what was dirty is lost: %s", strerror(-r));
		file_free(f);
		return;
	}
	if (f->store)
		f->n_kept_fds = f->store->ops->descriptors(f->store, f->kept_fds, ELEMENTSOF(f->kept_fds));
	ops_file_init(f);
	kill_point("restore.file");
}

/* --- when the dead daemon's writes are over --- */

struct lifeline {
	struct list link;          /* worker->lifeline_waits */
	struct ring_op op;
	struct ring_timer timer;
	struct worker *worker;
	char name[FDSTORE_NAME_MAX];
	int fd;
};

static void lifeline_over(struct worker *w)
{
	struct list waiting;
	struct parked *p;
	struct file *f;

	if (--w->lifelines > 0)
		return;
	list_for_each(f, &w->all_files, by_worker)
		file_hold_writes(f, false);
	kill_point("restore.writes_released");
	list_init(&waiting);
	list_splice(&waiting, &w->lifeline_wait);
	while ((p = list_first(&waiting, struct parked, link))) {
		list_remove(&p->link);
		p->resume(p);
	}
}

static void lifeline_ended(struct ring_op *op, int res, uint32_t cflags)
{
	struct lifeline *l = container_of(op, struct lifeline, op);
	struct worker *w = l->worker;

	close(l->fd);
	kill_point("restore.lifeline_ended");
	kept_remove(w, l->name, 1, NULL, 0);
	list_remove(&l->link);
	free(l);
	lifeline_over(w);
}

static void unknown_over(struct ring_timer *t)
{
	struct lifeline *l = container_of(t, struct lifeline, timer);
	struct worker *w = l->worker;

	list_remove(&l->link);
	free(l);
	lifeline_over(w);
}

static void watch_lifelines(struct worker *w)
{
	char prefix[FDSTORE_NAME_MAX];
	unsigned n, found = 0;
	struct fdstore_fd *p = fdstore_passed(&n);
	struct lifeline *l;

	(void)snprintf(prefix, sizeof(prefix), "L%u.", w->id);
	for (unsigned i = 0; i < n; i++) {
		if (p[i].fd < 0 || strncmp(p[i].name, prefix, strlen(prefix)) != 0)
			continue;
		l = revive_alloc(sizeof(*l));
		l->worker = w;
		list_append(&w->lifeline_waits, &l->link);
		memcpy(l->name, p[i].name, sizeof(l->name));
		l->fd = take_fd(&p[i].fd);
		l->op.done = lifeline_ended;
		io_uring_prep_poll_add(ring_sqe(&w->ring, &l->op), l->fd, POLLHUP);
		w->lifelines++;
		found++;
	}
	if (found > 0)
		return;
	l = revive_alloc(sizeof(*l));
	l->worker = w;
	list_append(&w->lifeline_waits, &l->link);
	ring_timer_init(&l->timer, unknown_over);
	ring_timer_arm(&w->ring, &l->timer, UNKNOWN_IO_NS);
	w->lifelines++;
}

static void send_resumed(struct space *s)
{
	struct pgc_msg m = { .type = PGC_MSG_RESUMED, .resumed.incarnation = state_header(s->worker->state)->incarnation };
	struct handle *h = s->owner;

	handle_reply(h, &m, NULL, 0);
	kill_point("restore.resumed");
	handle_watch(h);
}

/* --- handles and children --- */

static struct space *new_space(struct file *f, int fd)
{
	struct space *s = NULL;
	int r = -ENOMEM;

	for (unsigned i = 0; r == -ENOMEM && i < REVIVE_TRIES; i++)
		r = space_new(&s, f, fd);
	if (r < 0)
		revive_die(f->e->name, "a forked child cannot be taken over", r);
	return s;
}

static int restore_child(struct worker *w, uint32_t slot, struct file *f, int fd, struct space **ret)
{
	const struct pgc_saved_handle *r = &w->state->saved_handles[slot];
	const struct restored_client *c = &w->restored[slot];
	struct space *s;

	/* Of one that has ended nobody could tell what it has mapped; where daemons die soon, children that ended would be asked about by none, and get more and more. */
	if (!uffd_alive(fd, r->last_addr)) {
		close_uffd(fd);
		return -ESRCH;
	}
	s = new_space(f, fd);
	twin_child_own(fd, (struct twin_record){ slot, r->id }, r->last_addr);
	handle_set_up_child(s);
	if (process_lives(r->pid, r->start_time)) {
		s->pid = r->pid;
		s->start_time = r->start_time;
	}
	s->writable = r->flags & PGC_SAVED_WRITABLE;
	s->kernel_faults = r->flags & PGC_SAVED_KERNEL_FAULTS;
	s->toucher = (struct toucher){ .cgroup = c->cgroup, .domain = domain_get(w, c->tenant[0], c->tenant[1]), .user = c->user, .client = budget_client_slot(w->budget, r->pid) };
	s->last_addr = r->last_addr;
	f->e->kernel_fault_handles += s->kernel_faults;
	space_save_adopt(s, slot);
	handle_count_child(s, r->uid, c->user, c->cgroup_slot);
	revive_space(s);
	*ret = s;
	return 0;
}

static int restore_kept_child(struct worker *w, uint32_t slot, struct file *f)
{
	char name[FDSTORE_NAME_MAX];
	unsigned at = 0;
	int fd = take_passed(fdstore_name(name, 'c', slot), &at), r;
	struct space *s;

	r = fd < 0 ? -ENOENT : restore_child(w, slot, f, fd, &s);
	if (r == 0)
		twin_child_kept(fd, (struct twin_record){ slot, s->id });
	return r;
}

static int restore_client(struct worker *w, uint32_t slot, struct file *f)
{
	const struct pgc_saved_handle *r = &w->state->saved_handles[slot];
	const struct restored_client *c = &w->restored[slot];
	struct open_job job = {
		.sock = -1, .uffd = -1, .buffered = -1, .direct = -1, .memfd = -1, .fourth = -1, .worker = w, .file = f, .pid = r->pid,
		.start_time = r->start_time, .uid = r->uid, .user = c->user,
		.readable = r->flags & PGC_SAVED_READABLE, .writable = r->flags & PGC_SAVED_WRITABLE,
		.kernel_faults = r->flags & PGC_SAVED_KERNEL_FAULTS, .cgroup_slot = c->cgroup_slot, .cgroup = c->cgroup,
		.tenant = { c->tenant[0], c->tenant[1] }, .pagemap = -1, .async = r->flags & PGC_SAVED_ASYNC, .dead = true,
		.track_row = f->tracked.fd >= 0 ? r->track_row : UINT32_MAX,
	};
	char name[FDSTORE_NAME_MAX];
	unsigned at = 0;
	struct handle *h;
	int fd, e;

	fdstore_name(name, 'h', slot);
	while ((fd = take_passed(name, &at)) >= 0) {
		bool socket = proc_fd_is(fd, "socket:");
		int *place = socket ? &job.sock : &job.uffd;

		if (socket)
			twin_forget(fd);
		if (*place >= 0)
			close_uffd(fd);
		else
			*place = fd;
	}
	if (job.sock < 0 || job.uffd < 0) {
		if (job.sock >= 0)
			close(job.sock);
		if (job.uffd >= 0)
			close_uffd(job.uffd);
		return -ENOENT;
	}
	e = -ENOMEM;
	for (unsigned i = 0; e == -ENOMEM && i < REVIVE_TRIES; i++)
		e = handle_make(&job, &h);
	if (e < 0)
		revive_die(f->e->name, "a client cannot be taken over", e);
	h->restored = revive_alloc(sizeof(*h->restored));
	h->errseq = r->errseq;
	h->closing = r->flags & PGC_SAVED_CLOSING;
	h->space->last_addr = r->last_addr;
	space_save_adopt(h->space, slot);
	h->space->revived = send_resumed;
	revive_space(h->space);
	return 0;
}

static void restore_handle(struct worker *w, uint32_t slot)
{
	const struct pgc_saved_handle *r = &w->state->saved_handles[slot];
	bool child = r->flags & PGC_SAVED_CHILD;
	struct file *f = NULL;
	int e;

	if (!saved_check_handle(r) || r->file < w->file_slots.first || r->file - w->file_slots.first >= w->file_slots.count) {
		attach_drop_handle(w, slot);
		return;
	}
	f = w->file_of[r->file - w->file_slots.first];
	/* A child cannot attach; but what it has writable counts as long as it lives. */
	if (!f && w->state->saved_files[r->file].file == r->file) {
		attach_await_handle(w, slot);
		return;
	}
	if (!f || !f->store)
		e = -ENOENT;
	else
		e = child ? restore_kept_child(w, slot, f) : restore_client(w, slot, f);
	if (e == -ENOENT && f && (r->flags & PGC_SAVED_ASYNC))
		track_lost(f);
	if (e == -ENOENT && f && (r->pid <= 0 || process_lives(r->pid, r->start_time)))
		attach_await_handle(w, slot); /* its socket or its store is gone, but it may attach */
	else if (e < 0)
		attach_drop_handle(w, slot);
	kill_point("restore.handle");
}

/* The same userfaultfd: each has an inode of its own. */
static bool is_known(const struct file *f, int fd)
{
	struct stat a, b;
	struct space *s;

	list_for_each(s, &f->spaces, by_file)
		if (fstat(s->uffd, &a) == 0 && fstat(fd, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev)
			return true;
	return false;
}

/* A child of `parent` that has no record yet. Takes `fd`. -ESRCH: it has ended. */
static int restore_orphan(struct space *parent, int fd, struct space **ret)
{
	if (!uffd_alive(fd, parent->last_addr)) {
		close_uffd(fd);
		return -ESRCH;
	}
	*ret = new_space(parent->file, fd);
	twin_child(fd, (struct twin_record){ parent->saved_slot, parent->id }, parent->last_addr);
	handle_adopt_child(*ret, parent);
	revive_space(*ret);
	return 0;
}

/* Children of the space that the dead daemon had not come to keep (twin.h). */
static void restore_orphans(struct worker *w, struct space *parent)
{
	char name[FDSTORE_NAME_MAX];
	unsigned at = 0, n = 0;
	struct space *s;
	int fd;

	fdstore_name(name, 'o', parent->saved_slot);
	while ((fd = take_passed(name, &at)) >= 0) {
		n++;
		if (is_known(parent->file, fd))
			close_uffd(fd);
		else
			(void)restore_orphan(parent, fd, &s);
		kill_point("restore.orphan_adopted");
	}
	kill_point("restore.orphans");
	if (n > 0)
		kept_remove(w, name, n, NULL, 0);
}

/* The space whose record that is. */
static struct space *space_of_record(struct worker *w, uint32_t slot, uint64_t id)
{
	struct space *s;

	list_for_each(s, &w->spaces, by_worker)
		if (s->saved && s->saved_slot == slot && s->id == id)
			return s;
	return NULL;
}

/* 0: it is served, or was already. */
static int late_child(struct open_job *job, struct space **ret)
{
	const struct pgc_child *m = &job->msg.child;
	struct worker *w = job->worker;
	struct space *known = space_of_record(w, m->slot, m->id);
	const struct pgc_saved_handle *r = &w->state->saved_handles[m->slot];
	struct file *f;
	int e;

	if (known)
		return !m->of_parent || is_known(known->file, job->uffd) ? 0 : restore_orphan(known, take_fd(&job->uffd), ret);
	if (!attach_awaits(w, m->slot, true) || r->id != m->id || (!m->of_parent && !(r->flags & PGC_SAVED_CHILD)))
		return -ESRCH;
	f = w->file_of[r->file - w->file_slots.first];
	if (m->of_parent || !f || !f->store || (fdstore_active() && !f->memory_kept))
		return -EAGAIN;
	if (is_known(f, job->uffd)) { /* another twin was first, which had it as its parent's: it has a new record */
		attach_child_came(w, m->slot);
		attach_drop_handle(w, m->slot);
		return 0;
	}
	e = restore_child(w, m->slot, f, take_fd(&job->uffd), ret);
	if (e < 0)
		return e;
	/* Who keeps descriptors for us does not have it yet. */
	(*ret)->kept = false;
	handle_keep_child(*ret);
	attach_child_came(w, m->slot);
	return 0;
}

static void restore_late_child(struct open_job *job)
{
	struct worker *w = job->worker;
	const struct pgc_child *m = &job->msg.child;
	struct space *s = NULL;
	int r = -ESRCH;

	if (m->slot - w->handle_slots.first < w->handle_slots.count && w->restored && uffd_is_one(job->uffd))
		r = late_child(job, &s);
	if (s && s->file->state == FILE_READY) { /* else it is done with all others when that is ready: revive.c */
		if (!s->watched)
			fault_watch(s);
		if (!s->asking)
			revive_ask(s);
	}
	kill_point("restore.late_child");
	handle_open_failed(job, r);
}

/* --- the worker's share --- */

static bool file_used(void *arg, uint32_t slot)
{
	struct worker *w = arg;

	return w->state->files[slot].file || w->state->saved_files[slot].file;
}

static bool block_used(void *arg, uint32_t slot) { return ((struct worker *)arg)->state->blocks[slot].file != 0; }
static bool handle_used(void *arg, uint32_t slot) { return ((struct worker *)arg)->state->saved_handles[slot].file != 0; }

/* Of a file that waits for somebody to attach, or one that is gone. */
static bool orphan_block(struct worker *w, const struct pgc_block_entry *e)
{
	return e->file >= w->file_slots.first && e->file - w->file_slots.first < w->file_slots.count &&
	       w->state->saved_files[e->file].file == e->file;
}

#define TELL_BLOCKS 4u               /* a round: some 100 us */

/* The policy hears of the pages when everybody is served again. */
static void tell_policy(struct task *t)
{
	struct worker *w = container_of(t, struct worker, tell);
	unsigned n = 0;

	for (; w->told < w->block_slots.count && n < TELL_BLOCKS; w->told++) {
		struct block *b = &w->blocks[w->told];

		if (w->state->blocks[w->block_slots.first + w->told].file == 0 || !b->file || !b->unknown)
			continue;
		block_tell_policy(b);
		kill_point("restore.policy_told");
		n++;
	}
	if (w->told < w->block_slots.count)
		worker_queue(w, t);
	else
		reclaim_wake(w);
}

static void restore_worker(struct task *t)
{
	struct worker *w = container_of(t, struct worker, restore);
	struct revive_run run = { 0 };
	struct space *s, *next_space;
	struct file *f, *next;
	uint64_t start = now_ns(), pages = 0;

	for (uint32_t i = 0; i < w->file_slots.count; i++)
		if (file_used(w, w->file_slots.first + i) && w->file_slots.first + i != 0)
			restore_file(w, w->file_slots.first + i);
	track_empty_pipe(w);
	kill_point("restore.pipe_emptied");
	for (uint32_t i = 0; i < w->block_slots.count; i++) {
		uint32_t slot = w->block_slots.first + i;
		struct pgc_block_entry *e = &w->state->blocks[slot];

		if (!e->file)
			continue;
		if (!orphan_block(w, e))
			revive_forget_block(w, slot);
		else if (w->file_of[e->file - w->file_slots.first])
			revive_block(w, slot, &run);
	}
	kill_point("restore.blocks");
	for (uint32_t i = 0; i < w->handle_slots.count; i++)
		if (handle_used(w, w->handle_slots.first + i))
			restore_handle(w, w->handle_slots.first + i);
	drop_passed(w, "fst", &w->file_slots);
	drop_passed(w, "hc", &w->handle_slots);
	kill_point("restore.rest_dropped");
	list_for_each_safe(s, next_space, &w->spaces, by_worker)
		if (s->saved)
			restore_orphans(w, s);
	watch_lifelines(w);
	kill_point("restore.lifelines_watched");
	list_for_each_safe(f, next, &w->all_files, by_worker) {
		pages += f->e->resident;
		f->warm_looked = f->n_handles > 0; /* it is in use, and has been all the time */
		revive_file(f);
	}
	list_init(&w->tell.link);
	w->tell.run = tell_policy;
	worker_queue(w, &w->tell);
	log_info("worker %u has taken over %u files, %llu pages, in %llu us", w->id, w->n_files, (unsigned long long)pages,
		 (unsigned long long)((now_ns() - start) / 1000));
	server_worker_restored(w);
}

int restore_begin(struct server *s)
{
	int r = server_find_clients(s);

	handle_late_child_hook = restore_late_child;
	if (r < 0)
		return r;
	know_passed(&s->state);
	kill_point("restore.clients_found");
	for (unsigned i = 0; i < s->n_workers; i++) {
		struct worker *w = &s->workers[i];

		w->restored = s->restored;
		slot_pool_exclude(&w->file_slots, file_used, w);
		slot_pool_exclude(&w->block_slots, block_used, w);
		slot_pool_exclude(&w->handle_slots, handle_used, w);
		list_init(&w->restore.link);
		w->restore.run = restore_worker;
		worker_queue(w, &w->restore);
	}
	return 0;
}
