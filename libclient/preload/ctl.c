/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control connection of the process: made at the first question, made anew in a forked child, and once for a question that found it broken. One question at a
 * time. Its descriptor is hidden.
 */
#include <sys/socket.h>

#include "ctl.h"

static struct {
	pthread_mutex_t lock;
	bool open;
	struct conn conn;          /* nobody else uses it */
	pid_t owner;               /* another process came by a fork that no handler saw */
} ctl = { .lock = PTHREAD_MUTEX_INITIALIZER };

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

	m.hello = (struct pgc_hello){ .magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .role = PGC_ROLE_CONTROL };
	return conn_request(c, &m, NULL, 0, NULL, 0);
}

static int make(struct conn *c)
{
	int r = 0;

	conn_init(c);
	c->fd = fd_keep(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
	if (c->fd < 0) {
		r = -errno;
		conn_destroy(c);
	}
	return r;
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

static int request(struct pgc_msg *m)
{
	struct pgc_msg reply;
	int r = 0;
	NO_CANCEL;
	ENTER;

	if (fork_unseen())
		fork_late();
	pthread_mutex_lock(&ctl.lock);
	if (ctl.open && ctl.owner != getpid())
		disconnect();
	for (int attempt = 0; attempt < 2; attempt++) {
		bool fresh = !ctl.open;

		r = fresh ? dial() : 0;
		if (r < 0)
			break;
		reply = *m;
		r = conn_request(&ctl.conn, &reply, NULL, 0, NULL, 0);
		if (!ctl.conn.dead)
			break;
		disconnect();
		/* The daemon may be another by now; one that hangs up at once does not know the question. */
		if (fresh)
			break;
	}
	pthread_mutex_unlock(&ctl.lock);
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
	r = request(&m);
	if (r == 0)
		*ret = m.stat_reply;
	return r;
}

int ctl_sync(dev_t dev, ino_t ino)
{
	struct pgc_msg m = { .type = PGC_CTL_SYNC, .ctl_file = { .dev = dev, .ino = ino, .wait = 1 } };
	struct conn c;
	int r;
	NO_CANCEL;
	ENTER;

	if (fork_unseen())
		fork_late();
	r = make(&c);
	if (r < 0)
		return r;
	r = greet(&c);
	if (r == 0)
		r = conn_request(&c, &m, NULL, 0, NULL, 0);
	conn_destroy(&c);
	return r == -ENOENT ? 0 : r;
}
