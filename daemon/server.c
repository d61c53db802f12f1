/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread's connections: accept, HELLO, and OPEN or CLONE, which are checked here as far as they name
 * descriptors and then handed to the worker that owns the file. Connections and handles are counted by user.
 * May call control, handle (its open_job), and everything below.
 */
#include "daemon/server.h"

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "daemon/conn.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/fdstore.h"
#include "daemon/memory.h"
#include "daemon/pagemap.h"
#include "daemon/proc_fd.h"
#include "daemon/process.h"
#include "daemon/saved.h"
#include "daemon/twin.h"
#include "daemon/uffd.h"
#include "version.h"

#define ACCEPTS_PER_ROUND 64
#define ACCEPT_PAUSE_NS   200000000ull

/* --- counting --- */

static bool unlimited(uid_t uid) { return uid == 0 || uid == geteuid(); }

static unsigned handles_of(const struct user_count *u) { return atomic_load_explicit(&u->handles, memory_order_relaxed); }

/* As many descriptors as one user's children may have us hold. */
static uint32_t fork_max(const struct server *s, uid_t uid)
{
	struct rlimit files = { .rlim_cur = 4096 };

	(void)getrlimit(RLIMIT_NOFILE, &files);
	return (uint32_t)MIN(unlimited(uid) ? UINT32_MAX : 2ull * s->config->max_handles, MIN(files.rlim_cur, UINT32_MAX) / 4);
}

static struct user_count *user_of(struct server *s, uid_t uid)
{
	struct user_count **users, *u;

	for (size_t i = 0; i < s->n_users; i++)
		if (s->users[i]->uid == uid)
			return s->users[i];
	for (size_t i = 0; i < s->n_users; i++)
		if (handles_of(s->users[i]) == 0 && s->users[i]->conns == 0 && atomic_load_explicit(&s->users[i]->dirty, memory_order_relaxed) == 0) {
			s->users[i]->uid = uid;
			return s->users[i];
		}
	u = calloc(1, sizeof(*u));
	users = u ? reallocarray(s->users, s->n_users + 1, sizeof(*users)) : NULL;
	if (!users) {
		free(u);
		return NULL;
	}
	s->users = users;
	u->uid = uid;
	return users[s->n_users++] = u;
}

struct count_message {
	struct ring_op op;
	struct server *server;
	uint32_t cgroup_slot;
	int delta;
};

static void count_handles(struct server *s, uint32_t cgroup_slot, int delta)
{
	if (delta > 0)
		(void)cgroup_table_take(&s->cgroups, cgroup_table_id(&s->cgroups, cgroup_slot));
	else
		cgroup_table_put(&s->cgroups, cgroup_slot);
	s->n_clients = (unsigned)((int)s->n_clients + delta);
}

static void count_arrived(struct ring_op *op, int res, uint32_t cflags)
{
	struct count_message *m = container_of(op, struct count_message, op);

	count_handles(m->server, m->cgroup_slot, m->delta);
	free(m);
}

static int send_count(struct worker *w, uint32_t cgroup_slot, int delta)
{
	struct count_message *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	*m = (struct count_message){ { count_arrived }, w->server, cgroup_slot, delta };
	r = ring_post(&w->ring, w->main_ring, &m->op, 0);
	if (r < 0)
		free(m);
	return r;
}

static void send_counts(struct task *t)
{
	struct worker *w = container_of(t, struct worker, count_task);

	while (w->n_unsent_counts > 0) {
		const struct unsent_count *u = &w->unsent_counts[w->n_unsent_counts - 1];

		if (send_count(w, u->cgroup_slot, u->delta) < 0) {
			worker_retry(w, t);
			return;
		}
		w->n_unsent_counts--;
	}
}

/* On a worker. What there is no memory for is sent later: a count that stays too high would keep its user out. */
static void post_count(struct worker *w, struct user_count *u, uint32_t cgroup_slot, int delta)
{
	if (u)
		atomic_fetch_add_explicit(&u->handles, (uint32_t)delta, memory_order_relaxed);
	if (send_count(w, cgroup_slot, delta) == 0)
		return;
	if (w->n_unsent_counts == ELEMENTSOF(w->unsent_counts))
		return; /* a count stays wrong */
	w->unsent_counts[w->n_unsent_counts++] = (struct unsent_count){ cgroup_slot, delta };
	w->count_task.run = send_counts;
	worker_retry(w, &w->count_task);
}

static void show_limit(struct server *s, uint32_t slot, uint32_t tenant)
{
	s->cgroup_tenant[slot] = tenant;
	if (slot)
		s->state.cgroups[slot].limit = atomic_load_explicit(&s->budget.tenant[tenant].limit, memory_order_relaxed);
}

void server_configure(struct server *s)
{
	__atomic_store_n(&log_max_level, s->config->log_level, __ATOMIC_RELAXED);
	budget_configure(&s->budget, s->config);
	for (uint32_t i = 0; s->cgroup_tenant && i < s->cgroups.n; i++)
		show_limit(s, i, s->cgroup_tenant[i]);
	for (unsigned i = 0; i < s->n_workers; i++)
		(void)ring_post(&s->ring, &s->workers[i].ring, &s->workers[i].wake, 0);
}

unsigned server_handles(const struct server *s) { return s->n_clients; }

bool conn_privileged(const struct conn *c) { return unlimited(c->uid); }

/* --- connections --- */

static void conn_free(struct conn *c)
{
	struct server *s = c->server;
	struct user_count *u = user_of(s, c->uid);

	if (u && u->conns > 0)
		u->conns--;
	if (c->control)
		control_abandon(c);
	control_check_end(c);
	free(c->rows);
	if (c->job)
		open_job_free(&s->ring, c->job);
	cleanup_close(&c->pagemap);
	if (c->sock >= 0)
		close(c->sock);
	list_remove(&c->link);
	s->n_conns--;
	free(c);
}

void conn_end(struct conn *c, const char *reason)
{
	if (reason)
		log_at(LOG_LEVEL_WARNING, NULL, c->pid, "connection ended: %s", reason);
	conn_free(c);
}

static int reply_error(struct conn *c, const struct pgc_msg *msg, int error)
{
	struct pgc_msg reply;

	conn_reply_init(&reply, msg, error);
	return conn_send(c->sock, &reply, NULL, 0);
}

/*
 * Faults inside system calls are what the kernel lets nobody have by default but whom the device's permissions name. We may open it, which is no reason to pass that on: only who
 * could open it, too, is handed a descriptor, or everybody where the configuration says so.
 */
static bool may_have_device(const struct conn *c)
{
	static gid_t groups[NGROUPS_MAX]; /* the main thread's */
	struct server *s = c->server;
	socklen_t size = sizeof(groups);

	if (s->caps.device < 0)
		return false;
	if (s->config->kernel_faults_for_all || c->uid == geteuid())
		return true;
	if (getsockopt(c->sock, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
		size = 0;
	return uffd_device_is_for(s->caps.device, c->uid, c->gid, groups, size / sizeof(*groups));
}

static const char *hello(struct conn *c, const struct pgc_msg *msg, int *fds_in, unsigned n_fds)
{
	const struct pgc_hello *h = &msg->hello;
	struct server *s = c->server;
	struct pgc_msg reply;
	int fds[1] = { s->caps.device };
	bool give;

	if (n_fds != !!(h->features & PGC_FEATURE_PAGEMAP) || !conn_body_is_clean(msg, sizeof(*h)) || h->pad || msg->status)
		return "a malformed HELLO";
	if (h->magic != PGC_WIRE_MAGIC)
		return "a HELLO that is not ours";
	if (h->version != PGC_WIRE_VERSION) {
		(void)reply_error(c, msg, -EPROTO);
		return "a version of the protocol that this daemon does not speak";
	}
	if (h->role != PGC_ROLE_CLIENT && h->role != PGC_ROLE_CONTROL && (h->role != PGC_ROLE_TWIN || c->uid != geteuid()))
		return "a HELLO with an unknown role";
	give = h->role == PGC_ROLE_CLIENT && (h->features & PGC_FEATURE_KERNEL_FAULTS) && may_have_device(c);
	c->role = h->role;
	/* Another proc(5) than ours, as in a container: then stores are tracked with faults. */
	if (n_fds > 0 && h->role == PGC_ROLE_CLIENT && pagemap_is_one(fds_in[0]))
		c->pagemap = take_fd(&fds_in[0]);
	kill_point("hello.done");
	c->features = give ? PGC_FEATURE_KERNEL_FAULTS : 0;
	conn_reply_init(&reply, msg, 0);
	reply.hello_reply = (struct pgc_hello_reply){
		.magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .features = c->features,
		.memory_max = atomic_load_explicit(&s->budget.memory_max, memory_order_relaxed) * PAGE_SIZE_,
		.orphan_timeout_ms = s->config->orphan_timeout_ms,
	};
	snprintf(reply.hello_reply.daemon_version, sizeof(reply.hello_reply.daemon_version), "%s", PGC_VERSION);
	if (conn_send(c->sock, &reply, fds, give ? 1 : 0) < 0)
		return "its HELLO cannot be answered";
	return NULL;
}

/* --- OPEN and CLONE --- */

static struct worker *worker_of_record(struct server *s, uint32_t handle)
{
	for (unsigned i = 1; i < s->n_workers; i++)
		if (handle - s->workers[i].handle_slots.first < s->workers[i].handle_slots.count)
			return &s->workers[i];
	return &s->workers[0];
}

/* Hands the connection to the file's worker; the conn is done. */
static void hand_over(struct conn *c)
{
	struct server *s = c->server;
	struct open_job *job = TAKE_PTR(c->job);
	char path[PATH_MAX] = "";
	uint64_t cgroup = 0;

	job->pid = c->pid;
	job->start_time = process_start(c->pid);
	job->uid = c->uid;
	job->sock = take_fd(&c->sock);
	job->kernel_faults = c->features & PGC_FEATURE_KERNEL_FAULTS;
	if (cgroup_of_pid_path(c->pid, &cgroup, path, sizeof(path)) < 0) {
		cgroup = 0;
		path[0] = 0;
	}
	budget_tenants_of(&s->budget, c->uid, path, &job->tenant[0], &job->tenant[1]);
	job->cgroup_slot = cgroup_table_take(&s->cgroups, cgroup);
	job->cgroup = &s->state.cgroups[job->cgroup_slot];
	show_limit(s, job->cgroup_slot, job->tenant[1]);
	job->user = user_of(s, c->uid);
	if (job->user)
		atomic_fetch_add_explicit(&job->user->handles, 1, memory_order_relaxed);
	s->n_clients++;
	job->worker = job->msg.type == PGC_MSG_CHILD ? worker_of_record(s, job->msg.child.slot) : &s->workers[worker_index(s->n_workers, job->dev, job->ino)];
	kill_point("open.checked");
	conn_free(c);
	if (ring_post(&s->ring, &job->worker->ring, &job->op, 0) < 0) {
		struct pgc_msg reply;

		conn_reply_init(&reply, &job->msg, -ENOMEM);
		(void)conn_send(job->sock, &reply, NULL, 0);
		if (job->user)
			atomic_fetch_sub_explicit(&job->user->handles, 1, memory_order_relaxed);
		count_handles(s, job->cgroup_slot, -1);
		open_job_free(&s->ring, job);
	}
}

int server_find_clients(struct server *s)
{
	uint32_t n = s->state.params.handles;

	s->restored = calloc(n, sizeof(*s->restored));
	if (!s->restored)
		return -ENOMEM;
	s->restoring = s->n_workers;
	for (uint32_t i = 0; i < n; i++) {
		const struct pgc_saved_handle *r = &s->state.saved_handles[i];
		struct restored_client *c = &s->restored[i];
		char path[PATH_MAX] = "";
		uint64_t cgroup = 0;

		if (!saved_check_handle(r))
			continue;
		if (!process_lives(r->pid, r->start_time) || cgroup_of_pid_path(r->pid, &cgroup, path, sizeof(path)) < 0)
			cgroup = path[0] = 0;
		budget_tenants_of(&s->budget, r->uid, path, &c->tenant[0], &c->tenant[1]);
		c->cgroup_slot = cgroup_table_take(&s->cgroups, cgroup);
		c->cgroup = &s->state.cgroups[c->cgroup_slot];
		show_limit(s, c->cgroup_slot, c->tenant[1]);
		c->user = user_of(s, r->uid);
		if (c->user) {
			atomic_fetch_add_explicit(&c->user->handles, 1, memory_order_relaxed);
			atomic_store_explicit(&c->user->fork_max, fork_max(s, r->uid), memory_order_relaxed);
		}
		s->n_clients++;
		c->counted = true;
	}
	return 0;
}

/* What is closed now is nothing that the twin has to know any more. */
static void forget_passed(void)
{
	unsigned n;
	struct fdstore_fd *p = fdstore_passed(&n);

	for (unsigned i = 0; i < n; i++)
		if (p[i].fd >= 0)
			twin_forget(p[i].fd);
}

struct restored_message { struct ring_op op; struct server *server; };

static void restored_arrived(struct ring_op *op, int res, uint32_t cflags)
{
	struct restored_message *m = container_of(op, struct restored_message, op);

	if (--m->server->restoring == 0) {
		kill_point("restore.done");
		forget_passed();
		fdstore_drop_rest();
	}
	free(m);
}

void server_worker_restored(struct worker *w)
{
	struct restored_message *m = calloc(1, sizeof(*m));

	if (!m)
		return; /* what nobody has taken stays open */
	*m = (struct restored_message){ { restored_arrived }, w->server };
	if (ring_post(&w->ring, w->main_ring, &m->op, 0) < 0)
		free(m);
}

/* On the worker. */
static void open_posted(struct ring_op *op, int res, uint32_t cflags)
{
	handle_open(container_of(op, struct open_job, op));
}

/* An OPEN that cannot be: the client is told and may try again. */
static void refuse(struct conn *c, int error)
{
	int r = reply_error(c, &c->job->msg, error);

	open_job_free(&c->server->ring, TAKE_PTR(c->job));
	if (r < 0)
		conn_end(c, "it does not read its replies");
	else
		conn_watch(c, false);
}

static int may(int fd, uint32_t flags)
{
	int have = fcntl(fd, F_GETFL);

	if (have < 0 || (have & O_PATH))
		return -EBADF;
	if (have & O_APPEND)
		return -EINVAL; /* every write would go to the end */
	if (flags != O_WRONLY && (have & O_ACCMODE) == O_WRONLY)
		return -EACCES;
	if (flags != O_RDONLY && (have & O_ACCMODE) == O_RDONLY)
		return -EACCES;
	return 0;
}

static void stat_done(struct ring_op *op, int res, uint32_t cflags);

static void start_stat(struct conn *c, int fd)
{
	struct io_uring_sqe *sqe = ring_sqe(&c->server->ring, &c->op);

	c->op.done = stat_done;
	io_uring_prep_statx(sqe, fd, "", AT_EMPTY_PATH | AT_STATX_SYNC_AS_STAT, STATX_BASIC_STATS | STATX_BTIME | STATX_DIOALIGN, &c->statx);
}

/* What kind of file it is, and who. */
static int identify(const struct statx *st, uint64_t *ret_dev, uint64_t *ret_ino)
{
	if (S_ISDIR(st->stx_mode))
		return -EISDIR;
	if (S_ISREG(st->stx_mode)) {
		*ret_dev = makedev(st->stx_dev_major, st->stx_dev_minor);
		*ret_ino = st->stx_ino;
		return 0;
	}
	if (S_ISBLK(st->stx_mode)) {
		*ret_dev = 1ull << 63;
		*ret_ino = makedev(st->stx_rdev_major, st->stx_rdev_minor);
		return 0;
	}
	return -EINVAL;
}

static struct timespec timespec_of(const struct statx_timestamp *t) { return (struct timespec){ t->tv_sec, t->tv_nsec }; }

static void note_stat(struct open_job *job, const struct statx *st)
{
	bool born = S_ISREG(st->stx_mode) && (st->stx_mask & STATX_BTIME);

	job->birth = born ? (uint64_t)st->stx_btime.tv_sec * 1000000000u + st->stx_btime.tv_nsec : 0;
	job->size = st->stx_size;
	job->mtime = timespec_of(&st->stx_mtime);
	job->ctime = timespec_of(&st->stx_ctime);
}

static void stat_done(struct ring_op *op, int res, uint32_t cflags)
{
	struct conn *c = container_of(op, struct conn, op);
	struct open_job *job = c->job;
	uint64_t dev = 0, ino = 0;
	int r = res;

	if (r == 0)
		r = identify(&c->statx, &dev, &ino);
	if (r == 0 && c->second && (dev != job->dev || ino != job->ino))
		r = -EINVAL; /* two files: whose bytes would be cached? */
	if (r == 0 && job->msg.type == PGC_MSG_ATTACH && (dev != job->msg.attach.file_dev || ino != job->msg.attach.file_ino))
		r = -ESTALE;
	if (r < 0) {
		refuse(c, r);
		return;
	}
	job->dev = dev;
	job->ino = ino;
	if (!c->second)
		note_stat(job, &c->statx);
	if (job->direct >= 0 && !c->second) {
		c->second = true;
		start_stat(c, job->direct);
		return;
	}
	if (job->msg.type == PGC_MSG_ATTACH && job->memfd >= 0) {
		r = memory_claim(job->memfd, dev, ino, job->birth);
		if (r < 0) {
			refuse(c, r);
			return;
		}
		close(job->memfd);
		job->memfd = r;
	}
	if (c->second)
		job->dio_align = (c->statx.stx_mask & STATX_DIOALIGN) ? MAX(c->statx.stx_dio_mem_align, c->statx.stx_dio_offset_align) : 0;
	hand_over(c);
}

/* What holds for a file by its whole path or its URI, of which the job keeps only the end. */
static void settings_of(const struct server *s, struct open_job *job, const char *name, const char *store)
{
	struct file_settings settings;

	config_file_settings(s->config, name, store, &settings);
	job->retain = settings.retain;
	job->warm_start = settings.warm_start;
	job->huge = settings.huge;
	job->readahead_max = settings.readahead_max;
}

static int may_both(const struct open_job *job, uint32_t flags)
{
	int r = may(job->buffered, flags);

	return r == 0 && job->direct >= 0 ? may(job->direct, flags) : r;
}

/* The descriptors may be used; what they are of, and what holds for it. */
static void look_at_files(struct conn *c)
{
	struct open_job *job = c->job;
	char path[4096];
	size_t n;

	proc_fd_name(job->buffered, path, sizeof(path));
	settings_of(c->server, job, path, "file");
	n = strlen(path);
	/* The end says more than the beginning. */
	memcpy(job->name, path + n - MIN(n, sizeof(job->name) - 1), MIN(n, sizeof(job->name) - 1));
	c->second = false;
	start_stat(c, job->buffered);
}

static int open_uri(struct conn *c)
{
	struct open_job *job = c->job;
	const char *uri = job->msg.open.uri;

	if (strncmp(uri, "mem:", 4) != 0 || !c->server->config->test_stores)
		return -EPROTONOSUPPORT;
	if (snprintf(job->name, sizeof(job->name), "%s", uri) >= (int)sizeof(job->name))
		return -ENAMETOOLONG;
	settings_of(c->server, job, uri, "mem");
	return mem_store_identity(uri, &job->dev, &job->ino);
}

/* Checks an OPEN. 0: it goes on; an error is told to the client. *ret_wrong: the message is malformed. */
static int begin_open(struct conn *c, unsigned n_fds, const char **ret_wrong)
{
	const struct pgc_open *o = &c->job->msg.open;
	struct open_job *job = c->job;
	bool uri = o->uri[0];
	int r;

	if (!conn_body_is_clean(&job->msg, sizeof(*o)) || o->has_direct > 1 || (o->flags & ~O_ACCMODE) || o->flags == O_ACCMODE ||
	    !memchr(o->uri, 0, sizeof(o->uri)) || (uri && o->has_direct)) {
		*ret_wrong = "a malformed OPEN";
		return 0;
	}
	if (n_fds != (uri ? 1u : 2u + o->has_direct)) {
		*ret_wrong = "an OPEN with a wrong number of descriptors";
		return 0;
	}
	job->readable = o->flags != O_WRONLY;
	job->writable = o->flags != O_RDONLY;
	if (uri) {
		r = open_uri(c);
		if (r == 0)
			hand_over(c);
		return r;
	}
	r = may_both(job, o->flags);
	if (r < 0)
		return r;
	look_at_files(c);
	return 0;
}

static int begin_clone(struct conn *c, unsigned n_fds, const char **ret_wrong)
{
	const struct pgc_clone *m = &c->job->msg.clone;
	struct open_job *job = c->job;
	int r;

	if (!conn_body_is_clean(&job->msg, sizeof(*m)) || m->pad || (m->flags & ~O_ACCMODE) || m->flags == O_ACCMODE) {
		*ret_wrong = "a malformed CLONE";
		return 0;
	}
	if (n_fds != 2) {
		*ret_wrong = "a CLONE with a wrong number of descriptors";
		return 0;
	}
	job->memfd = take_fd(&job->buffered);
	r = may(job->memfd, m->flags);
	if (r < 0)
		return r;
	if (fcntl(job->memfd, F_GET_SEALS) < 0)
		return -EINVAL; /* not a memory file; its fstat on a worker might block */
	job->readable = m->flags != O_WRONLY;
	job->writable = m->flags != O_RDONLY;
	job->dev = m->file_dev;
	job->ino = m->file_ino;
	hand_over(c);
	return 0;
}

/* As an OPEN, with the memfd of the daemon before. */
static int begin_attach(struct conn *c, unsigned n_fds, const char **ret_wrong)
{
	const struct pgc_attach *m = &c->job->msg.attach;
	struct open_job *job = c->job;
	bool memfd = m->flags != O_WRONLY;
	int r = 0;

	if (!conn_body_is_clean(&job->msg, sizeof(*m)) || m->has_direct > 1 || m->kernel_faults > 1 || (m->flags & ~O_ACCMODE) ||
	    m->flags == O_ACCMODE || (m->attach & ~PGC_ATTACH_CLEAN) || !memchr(m->uri, 0, sizeof(m->uri))) {
		*ret_wrong = "a malformed ATTACH";
		return 0;
	}
	if (m->uri[0])
		return -ESTALE; /* what such a store held went with the daemon */
	if (n_fds != 2u + memfd + m->has_direct) {
		*ret_wrong = "an ATTACH with a wrong number of descriptors";
		return 0;
	}
	if (memfd) {
		job->memfd = take_fd(&job->buffered);
		job->buffered = take_fd(&job->direct);
		job->direct = take_fd(&job->fourth);
		r = may(job->memfd, m->flags);
		if (r == 0 && fcntl(job->memfd, F_GET_SEALS) < 0)
			r = -EINVAL; /* not a memory file */
	}
	if (r == 0)
		r = may_both(job, m->flags);
	if (r < 0)
		return r;
	job->readable = m->flags != O_WRONLY;
	job->writable = m->flags != O_RDONLY;
	c->features = m->kernel_faults ? PGC_FEATURE_KERNEL_FAULTS : 0;
	look_at_files(c);
	return 0;
}

static int begin_child(struct conn *c, unsigned n_fds, const char **ret_wrong)
{
	const struct pgc_child *m = &c->job->msg.child;

	if (!conn_body_is_clean(&c->job->msg, sizeof(*m)) || m->of_parent > 1 || n_fds != 1)
		*ret_wrong = "a malformed CHILD";
	else
		hand_over(c);
	return 0;
}

static const char *begin_handle(struct conn *c, const struct pgc_msg *msg, int *fds, unsigned n_fds)
{
	struct user_count *u = user_of(c->server, c->uid);
	struct open_job *job = calloc(1, sizeof(*job));
	const char *wrong = NULL;
	int r;

	if (!job) {
		if (reply_error(c, msg, -ENOMEM) < 0)
			return "it does not read its replies";
		conn_watch(c, false);
		return NULL;
	}
	job->msg = *msg;
	job->op.done = open_posted;
	job->sock = job->memfd = -1;
	job->pagemap = take_fd(&c->pagemap);
	job->uffd = take_fd(&fds[0]);
	uffd_set_seen(job->uffd);
	job->buffered = take_fd(&fds[1]);
	job->direct = take_fd(&fds[2]);
	job->fourth = take_fd(&fds[3]);
	c->job = job;
	if (msg->status)
		return "reserved bytes that are set";
	if (u)
		atomic_store_explicit(&u->fork_max, fork_max(c->server, c->uid), memory_order_relaxed);
	if (!unlimited(c->uid) && (!u || handles_of(u) >= c->server->config->max_handles)) {
		refuse(c, -EMFILE);
		return NULL;
	}
	r = msg->type == PGC_MSG_OPEN ? begin_open(c, n_fds, &wrong) : msg->type == PGC_MSG_CLONE ? begin_clone(c, n_fds, &wrong) :
	    msg->type == PGC_MSG_CHILD ? begin_child(c, n_fds, &wrong) : begin_attach(c, n_fds, &wrong);
	if (wrong)
		return wrong;
	if (r < 0)
		refuse(c, r);
	return NULL;
}

/* --- messages --- */

static void conn_message(struct conn *c)
{
	struct server *s = c->server;
	int fds[PGC_FDS_MAX] = { -1, -1, -1, -1 }, r;
	const char *reason = NULL;
	unsigned n_fds = 0;
	struct pgc_msg msg;

	r = conn_receive(&s->ring, c->sock, &msg, fds, &n_fds, &reason);
	if (r == -EAGAIN) {
		conn_watch(c, false);
		return;
	}
	if (r == -EMFILE && reply_error(c, &msg, r) == 0) {
		conn_watch(c, false);
		return;
	}
	if (r <= 0) {
		conn_end(c, r == -EPROTO ? reason : NULL);
		return;
	}
	if (c->role == 0) {
		reason = msg.type == PGC_MSG_HELLO ? hello(c, &msg, fds, n_fds) : "a message before HELLO";
		if (!reason)
			conn_watch(c, false);
	} else if (c->role == PGC_ROLE_CONTROL) {
		reason = control_begin(c, &msg, n_fds);
	} else if (c->role == PGC_ROLE_TWIN ? msg.type == PGC_MSG_CHILD :
		   msg.type == PGC_MSG_OPEN || msg.type == PGC_MSG_CLONE || msg.type == PGC_MSG_ATTACH) {
		reason = begin_handle(c, &msg, fds, n_fds);
	} else {
		reason = "a request without a handle";
	}
	for (int i = 0; i < PGC_FDS_MAX; i++)
		conn_close_fd(&s->ring, fds[i]);
	if (reason)
		conn_end(c, reason);
}

static void conn_ready(struct ring_op *op, int res, uint32_t cflags)
{
	struct conn *c = container_of(op, struct conn, op);

	if (res < 0)
		conn_end(c, NULL);
	else if (c->control || c->request.type)
		control_continue(c);
	else
		conn_message(c);
}

void conn_watch(struct conn *c, bool for_writing)
{
	c->op.done = conn_ready;
	io_uring_prep_poll_add(ring_sqe(&c->server->ring, &c->op), c->sock, for_writing ? POLLOUT : POLLIN);
}

static void add_conn(struct server *s, int sock)
{
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);
	struct user_count *u;
	struct conn *c;

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0) {
		close(sock);
		return;
	}
	u = user_of(s, cred.uid);
	if (!u || s->n_conns >= SERVER_CONNS_MAX || (!unlimited(cred.uid) && u->conns >= SERVER_CONNS_USER_MAX)) {
		log_at(LOG_LEVEL_WARNING, NULL, cred.pid, "connection refused: too many that have opened nothing");
		close(sock);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		close(sock);
		return;
	}
	*c = (struct conn){ .server = s, .sock = sock, .pagemap = -1, .pid = cred.pid, .uid = cred.uid, .gid = cred.gid, .since = now_ns() };
	u->conns++;
	kill_point("connection.accepted");
	s->n_conns++;
	list_append(&s->conns, &c->link);
	ring_timer_arm(&s->ring, &s->idle_timer, SERVER_HELLO_NS);
	conn_watch(c, false);
}

static void accept_again(struct ring_timer *t) { server_watch(container_of(t, struct server, accept_timer)); }

static void accept_ready(struct ring_op *op, int res, uint32_t cflags)
{
	struct server *s = container_of(op, struct server, accept_poll);
	bool exhausted = res < 0;

	if (s->listen_fd < 0)
		return;
	for (int i = 0; i < ACCEPTS_PER_ROUND && res >= 0; i++) {
		int sock = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (sock < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
				log_warning("a connection cannot be accepted: %m");
			exhausted = errno != EAGAIN && errno != EINTR && errno != ECONNABORTED;
			break;
		}
		add_conn(s, sock);
	}
	if (exhausted)
		ring_timer_arm(&s->ring, &s->accept_timer, ACCEPT_PAUSE_NS); /* the backlog would say so again at once */
	else
		server_watch(s);
}

/* Connections that say nothing do not stay. */
static void idle_expired(struct ring_timer *t)
{
	struct server *s = container_of(t, struct server, idle_timer);
	uint64_t now = now_ns();
	bool more = false;
	struct conn *c;

	list_for_each(c, &s->conns, link) {
		if (c->role == PGC_ROLE_CONTROL || c->job)
			continue;
		if (now - c->since >= SERVER_HELLO_NS)
			ring_cancel(&s->ring, &c->op); /* its poll ends, and the connection with it */
		else
			more = true;
	}
	if (more)
		ring_timer_arm(&s->ring, t, SERVER_HELLO_NS);
}

void server_watch(struct server *s)
{
	if (s->listen_fd < 0)
		return;
	s->accept_poll.done = accept_ready;
	io_uring_prep_poll_add(ring_sqe(&s->ring, &s->accept_poll), s->listen_fd, POLLIN);
}

/* --- the listening socket --- */

static int make_parent(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return 0;
	*slash = 0;
	return mkdir(dir, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

static int lock_socket(struct server *s, const char *path)
{
	char lock[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];
	int r;

	snprintf(lock, sizeof(lock), "%s.lock", path);
	s->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0)
		return -errno;
	r = twin_lock(s->lock_fd);
	if (r < 0) {
		close(s->lock_fd); /* so that it is not removed: it is another's */
		s->lock_fd = -1;
	}
	return r == -EWOULDBLOCK ? -EADDRINUSE : r;
}

/*
 * With the lock held, who answers is a daemon whose socket came from the service manager; or the io_uring of one that was killed a moment ago
 * still holds the listening socket, which passes.
 */
static int socket_is_free(const struct sockaddr_un *addr)
{
	for (int i = 0; i < 200; i++) {
		_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		if (fd < 0)
			return -errno;
		if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0) {
			if (errno == ECONNREFUSED)
				(void)unlink(addr->sun_path);
			if (errno != EAGAIN)
				return 0; /* what else is wrong with the path, bind(2) will say */
		}
		usleep(50000);
	}
	return -EADDRINUSE;
}

int server_listen(struct server *s, int listen_fd, bool kept)
{
	const char *path = s->config->socket;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;
	int r;

	list_init(&s->conns);
	ring_timer_init(&s->idle_timer, idle_expired);
	ring_timer_init(&s->accept_timer, accept_again);
	handle_count_hook = post_count;
	s->lock_fd = s->listen_fd = -1;
	if (listen_fd >= 0) {
		s->listen_fd = listen_fd;
		s->socket_passed = !kept;
		if (kept) {
			r = lock_socket(s, path);
			if (r < 0)
				return r;
		}
		return fcntl(listen_fd, F_SETFL, fcntl(listen_fd, F_GETFL) | O_NONBLOCK) < 0 ? -errno : 0;
	}
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	r = make_parent(path);
	if (r == 0)
		r = lock_socket(s, path);
	if (r < 0)
		return r;
	r = socket_is_free(&addr);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	if (chmod(path, s->config->socket_mode) < 0 || listen(fd, 1024) < 0) {
		r = -errno;
		(void)unlink(path);
		return r;
	}
	s->listen_fd = take_fd(&fd);
	(void)fdstore_add("listen", &s->listen_fd, 1); /* so that clients can wait in its queue while there is no daemon */
	return 0;
}

void server_stop(struct server *s)
{
	struct conn *c;

	if (s->listen_fd >= 0)
		ring_cancel(&s->ring, &s->accept_poll);
	list_for_each(c, &s->conns, link)
		if (!c->control && !c->check && !c->job)
			ring_cancel(&s->ring, &c->op);
	server_unlisten(s);
}

void server_unlisten(struct server *s)
{
	char lock[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];

	if (s->listen_fd >= 0) {
		if (!s->socket_passed)
			(void)unlink(s->config->socket);
		close(s->listen_fd);
		s->listen_fd = -1;
	}
	if (s->lock_fd >= 0) {
		snprintf(lock, sizeof(lock), "%s.lock", s->config->socket);
		(void)unlink(lock);
		close(s->lock_fd);
		s->lock_fd = -1;
	}
}
