/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control connection of the process: made at the first question, made anew in a forked child, and for a question that found it broken. One question at a
 * time. Its descriptor is hidden.
 *
 * A daemon that dies leaves what it had to the next one, which is waited for: until then the store may have old bytes, and an old size. One that stops in order has
 * written everything, and its socket has no name any more (ENOENT): then the store is right.
 */
#include "ctl.h"

static struct {
	pthread_mutex_t lock;
	bool open;
	struct conn conn;          /* nobody else uses it */
	pid_t owner;               /* another process came by a fork that no handler saw */
	bool known;                /* there has been a daemon, which said orphan_ms */
	uint64_t orphan_ms;
} ctl = { .lock = PTHREAD_MUTEX_INITIALIZER };

#define RETRY_MS    10
#define PATIENCE_MS 10000          /* with daemons that hang up, or wait for what another client has (EAGAIN) */

static void disconnect(void)
{
	if (ctl.open)
		conn_destroy(&ctl.conn);
	ctl.open = false;
}

static void forked(void)
{
	int fd = ctl.conn.fd;

	pthread_mutex_init(&ctl.lock, NULL);
	/* Another thread may have been making or ending it: the descriptor alone is certain. */
	if (ctl.open)
		close_fd(&fd);
	ctl.open = false;
}

static int hello(struct conn *c)
{
	struct pgc_msg m = { .type = PGC_MSG_HELLO };
	int r;

	m.hello = (struct pgc_hello){ .magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .role = PGC_ROLE_CONTROL };
	r = conn_request(c, &m, NULL, 0, NULL, 0);
	if (r == 0) {
		__atomic_store_n(&ctl.orphan_ms, file_orphan_ms(m.hello_reply.orphan_timeout_ms), __ATOMIC_RELAXED);
		__atomic_store_n(&ctl.known, true, __ATOMIC_RELEASE);
	}
	return r;
}

static int make(struct conn *c)
{
	int r;

	conn_init(c);
	c->single = true;
	r = conn_socket();
	if (r < 0)
		conn_destroy(c);
	else
		c->fd = r;
	return MIN(r, 0);
}

static int greet(struct conn *c)
{
	int r = conn_dial(c->fd);

	return r < 0 ? r : hello(c);
}

static int dial(void)
{
	static bool once;
	int r;

	if (!once) {
		once = true;
		pthread_atfork(NULL, NULL, forked);
	}
	r = make(&ctl.conn);
	if (r < 0)
		return r;
	ctl.open = true;
	ctl.owner = getpid();
	r = greet(&ctl.conn);
	if (r < 0)
		disconnect();
	return r;
}

/* Whether it is worth another try; then a moment has passed. -EINTR: a signal ends the wait. */
static int wait_for_daemon(int error, struct waiting *w)
{
	uint64_t waited = clock_ms() - w->since, orphan_ms = __atomic_load_n(&ctl.orphan_ms, __ATOMIC_RELAXED);
	bool again = error == -ECONNRESET || error == -EAGAIN ? waited < PATIENCE_MS
		   : error == -ECONNREFUSED ? __atomic_load_n(&ctl.known, __ATOMIC_ACQUIRE) && (orphan_ms == 0 || waited < orphan_ms) : false;

	return again ? file_wait(w, RETRY_MS) : error;
}

static int ask(struct pgc_msg *m)
{
	int r = ctl.open ? 0 : dial();

	if (r < 0)
		return r;
	r = conn_request(&ctl.conn, m, NULL, 0, NULL, 0);
	if (ctl.conn.dead)
		disconnect();
	return r;
}

static int ask_once(struct pgc_msg *m)
{
	int r;

	pthread_mutex_lock(&ctl.lock);
	if (ctl.open && ctl.owner != getpid())
		disconnect();
	r = ask(m);
	pthread_mutex_unlock(&ctl.lock);
	return r;
}

/* By a connection of its own, with no lock. The reply is in *m. */
static int ask_alone(struct pgc_msg *m)
{
	struct conn c;
	int r = make(&c);

	if (r < 0)
		return r;
	r = greet(&c);
	if (r == 0)
		r = conn_request(&c, m, NULL, 0, NULL, 0);
	conn_destroy(&c);
	return r;
}

/* Asks by `once` until a daemon has answered. The reply is in *m. */
static int request(struct pgc_msg *m, int (*once)(struct pgc_msg *m))
{
	struct waiting w = { .since = clock_ms() };
	struct pgc_msg reply;
	uint64_t from;
	int r;
	NO_CANCEL;
	ENTER;

	if (fork_unseen())
		fork_late();
	do {
		from = clock_ms();
		reply = *m;
		r = once(&reply);
		file_not_waited(&w, from);
	} while (r < 0 && (r = wait_for_daemon(r, &w)) == 0);
	if (r == 0)
		*m = reply;
	return r;
}

int ctl_stat(const struct stat *st, struct pgc_stat_reply *ret)
{
	struct pgc_msg m = { .type = PGC_CTL_STAT };
	int r;

	m.ctl_stat = (struct pgc_ctl_stat){
		.dev = st->st_dev, .ino = st->st_ino, .size = (uint64_t)st->st_size, .blocks = (uint64_t)st->st_blocks,
		.mtime_s = st->st_mtim.tv_sec, .mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
		.ctime_s = st->st_ctim.tv_sec, .ctime_ns = (uint32_t)st->st_ctim.tv_nsec,
	};
	r = request(&m, ask_once);
	if (r == 0)
		*ret = m.stat_reply;
	return r;
}

int ctl_sync(dev_t dev, ino_t ino)
{
	struct pgc_msg m = { .type = PGC_CTL_SYNC, .ctl_file = { .dev = dev, .ino = ino, .wait = 1 } };
	int r = request(&m, ask_alone);

	return r == -ENOENT ? 0 : r;
}

int ctl_daemon(pid_t *ret)
{
	struct pgc_msg m = { .type = PGC_CTL_STATUS };
	int r = request(&m, ask_alone);

	if (r == 0)
		*ret = (pid_t)m.ctl_status_reply.pid;
	return r;
}
