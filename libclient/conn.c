/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection to the daemon, shared by the threads that use a handle.
 *
 * There is no receiver thread. Each request has a record on its caller's stack; of the callers that wait, one (the
 * leader) is in recvmsg() and hands every reply to its owner by tag; when it has its own it leaves and wakes one of
 * the others to lead. Sends need no lock: a SOCK_SEQPACKET message is sent whole or not at all.
 *
 * Invariants: a record is on the list from before its message is sent until its caller leaves; `dead` never becomes 0
 * again; whoever sets it wakes everybody. Any thread; calls nothing above.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "libclient/internal.h"

struct pending {
	struct pending *next;
	pthread_cond_t wake;
	struct pgc_msg *msg;       /* the request, then the reply */
	int *fds;
	int n_fds;
	bool done;
	bool waiting;              /* in pthread_cond_wait() */
};

void conn_init(struct conn *c)
{
	*c = (struct conn){ .fd = -1 };
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->slot, NULL);
}

void conn_destroy(struct conn *c)
{
	close_fd(&c->fd);
	pthread_cond_destroy(&c->slot);
	pthread_mutex_destroy(&c->lock);
}

int conn_address(unsigned n, char *ret, size_t size)
{
	const char *e = fd_hooks.address ? fd_hooks.address : secure_getenv("PAGECACHED_SOCKET");
	int k;

	if (e && *e) {
		if (n > 0)
			return -ENOENT;
		k = snprintf(ret, size, "%s", e);
	} else if (n == 0) {
		k = snprintf(ret, size, "/run/pagecached/socket");
	} else {
		e = secure_getenv("XDG_RUNTIME_DIR");
		if (n > 1 || !e || !*e)
			return -ENOENT;
		k = snprintf(ret, size, "%s/pagecached/socket", e);
	}
	return k < 0 || (size_t)k >= size ? -ENAMETOOLONG : 0;
}

int conn_dial(int fd)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int r;

	for (unsigned n = 0;; n++) {
		r = conn_address(n, sa.sun_path, sizeof(sa.sun_path));
		if (r == -ENOENT)
			return -ECONNREFUSED;
		if (r < 0)
			return r;
		do
			r = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ? -errno : 0;
		while (r == -EINTR);
		if (r != -ENOENT && r != -ECONNREFUSED && r != -ENOTDIR)
			return r;
	}
}

static void wake_all(struct conn *c)
{
	for (struct pending *p = c->pending; p; p = p->next)
		pthread_cond_signal(&p->wake);
	pthread_cond_broadcast(&c->slot);
}

static void conn_die(struct conn *c, int error)
{
	if (c->dead)
		return;
	c->dead = error;
	wake_all(c);
}

static void close_fds(int *fds, int n)
{
	for (int i = 0; i < n; i++)
		close_fd(&fds[i]);
}

static int conn_send(int fd, struct pgc_msg *msg, const int *fds, int n_fds)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(PGC_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = { msg, sizeof(*msg) };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (n_fds > 0) {
		memset(&control, 0, sizeof(control));
		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE((size_t)n_fds * sizeof(int));
		struct cmsghdr *cm = CMSG_FIRSTHDR(&h);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN((size_t)n_fds * sizeof(int));
		memcpy(CMSG_DATA(cm), fds, (size_t)n_fds * sizeof(int));
	}
	do
		n = sendmsg(fd, &h, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EPIPE ? -ECONNRESET : -errno;
	return n == sizeof(*msg) ? 0 : -EPROTO;
}

/* Waits for one message. fds has room for PGC_FDS_MAX. */
static int conn_receive(int fd, struct pgc_msg *msg, int *fds, int *ret_n)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(PGC_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = { msg, sizeof(*msg) };
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control),
	};
	int n_fds = 0;
	ssize_t n;

	do
		n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EPIPE ? -ECONNRESET : -errno;
	if (n == 0)
		return -ECONNRESET;
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(&h); cm; cm = CMSG_NXTHDR(&h, cm)) {
		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		size_t k = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < k; i++) {
			int got;
			memcpy(&got, CMSG_DATA(cm) + i * sizeof(int), sizeof(int));
			if (n_fds < PGC_FDS_MAX)
				fds[n_fds++] = got;
			else
				close(got);
		}
	}
	if (n != sizeof(*msg) || (h.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		close_fds(fds, n_fds);
		return h.msg_flags & MSG_CTRUNC ? -EMFILE : -EPROTO;
	}
	*ret_n = n_fds;
	return 0;
}

static void deliver(struct conn *c, const struct pgc_msg *msg, int *fds, int n_fds)
{
	for (struct pending *p = c->pending; p; p = p->next) {
		if (p->done || p->msg->tag != msg->tag)
			continue;
		if (msg->type != (p->msg->type | PGC_MSG_REPLY) || msg->status > 4095)
			break;
		*p->msg = *msg;
		memcpy(p->fds, fds, (size_t)n_fds * sizeof(int));
		p->n_fds = n_fds;
		p->done = true;
		pthread_cond_signal(&p->wake);
		return;
	}
	close_fds(fds, n_fds);
	conn_die(c, -EPROTO);
}

/* Leads: receives one message for whoever it is for. The lock is dropped meanwhile. */
static void receive_one(struct conn *c)
{
	struct pgc_msg msg;
	int fds[PGC_FDS_MAX], n_fds = 0, r;

	c->receiving = true;
	pthread_mutex_unlock(&c->lock);
	r = conn_receive(c->fd, &msg, fds, &n_fds);
	pthread_mutex_lock(&c->lock);
	c->receiving = false;
	if (r < 0)
		conn_die(c, r);
	else
		deliver(c, &msg, fds, n_fds);
}

static void leave(struct conn *c, struct pending *me)
{
	struct pending **p = &c->pending;

	while (*p != me)
		p = &(*p)->next;
	*p = me->next;
	c->outstanding--;
	pthread_cond_signal(&c->slot);
	if (c->receiving)
		return;
	/* Nobody leads now. One that is still sending will see that by itself. */
	for (struct pending *w = c->pending; w; w = w->next)
		if (w->waiting && !w->done) {
			pthread_cond_signal(&w->wake);
			return;
		}
}

int conn_request(struct conn *c, struct pgc_msg *msg, const int *fds, int n_fds, int *ret_fds, int want_fds)
{
	int none[PGC_FDS_MAX], r;
	struct pending me = { .msg = msg, .fds = ret_fds ? ret_fds : none };

	for (int i = 0; i < PGC_FDS_MAX; i++)
		me.fds[i] = -1;
	if (fork_unseen())
		return -EIO; /* the connection is the parent's */
	pthread_cond_init(&me.wake, NULL);
	pthread_mutex_lock(&c->lock);
	while (!c->dead && c->outstanding >= PGC_REQUESTS_MAX)
		pthread_cond_wait(&c->slot, &c->lock);
	if (c->dead) {
		r = c->dead;
		pthread_mutex_unlock(&c->lock);
		pthread_cond_destroy(&me.wake);
		return r;
	}
	msg->tag = ++c->tag;
	me.next = c->pending;
	c->pending = &me;
	c->outstanding++;
	/* A copy is sent: once the lock is dropped the leader may write a reply into *msg. */
	struct pgc_msg request = *msg;
	pthread_mutex_unlock(&c->lock);

	r = conn_send(c->fd, &request, fds, n_fds);

	pthread_mutex_lock(&c->lock);
	if (r < 0)
		conn_die(c, r);
	while (!me.done && !c->dead) {
		if (c->receiving) {
			me.waiting = true;
			pthread_cond_wait(&me.wake, &c->lock);
			me.waiting = false;
		} else {
			receive_one(c);
		}
	}
	r = me.done ? -(int)msg->status : c->dead;
	if (me.done && want_fds >= 0 && me.n_fds != (r == 0 ? want_fds : 0)) {
		close_fds(me.fds, me.n_fds);
		r = -EPROTO;
		conn_die(c, r);
	}
	leave(c, &me);
	pthread_mutex_unlock(&c->lock);
	pthread_cond_destroy(&me.wake);
	return r;
}

int conn_hello(struct conn *c, int *ret_dev)
{
	struct pgc_msg m = { .type = PGC_MSG_HELLO };
	int fds[PGC_FDS_MAX], r;

	m.hello = (struct pgc_hello){
		.magic = PGC_WIRE_MAGIC,
		.version = PGC_WIRE_VERSION,
		.features = PGC_FEATURE_KERNEL_FAULTS,
		.role = PGC_ROLE_CLIENT,
	};
	r = conn_request(c, &m, NULL, 0, fds, -1);
	if (r == 0 && (m.hello_reply.magic != PGC_WIRE_MAGIC || m.hello_reply.version != PGC_WIRE_VERSION ||
		       fds[1] >= 0 || (fds[0] >= 0) != !!(m.hello_reply.features & PGC_FEATURE_KERNEL_FAULTS)))
		r = -EPROTO;
	if (r < 0) {
		close_fds(fds, PGC_FDS_MAX);
		return r;
	}
	*ret_dev = fds[0];
	return 0;
}

bool conn_hung_up(struct conn *c)
{
	char b;
	int dead;

	pthread_mutex_lock(&c->lock);
	dead = c->dead;
	pthread_mutex_unlock(&c->lock);
	return dead || c->fd < 0 || recv(c->fd, &b, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}
