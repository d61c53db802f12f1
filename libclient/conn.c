/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection to the daemon, shared by the threads that use a handle.
 *
 * There is no receiver thread. Each request has a record on its caller's stack; of the callers that wait, one (the
 * leader) is in recvmsg() and hands every reply to its owner by tag; when it has its own it leaves and wakes one of
 * the others to lead. Sends need no lock: a SOCK_SEQPACKET message is sent whole or not at all.
 *
 * The daemon may die and another take over the socket: RESUMED. Whoever reads that sends all requests without an answer
 * once more. One whose caller is just sending it is left to the caller, who sees by `epoch` that it has to.
 *
 * Invariants: a record is on the list from before its message is sent until its caller leaves; `dead` becomes 0 again only
 * in conn_renew(), when nobody is inside, and until then the socket stays open: its number might be another handle's, and a caller
 * that is late would read or write there. Whoever sets `dead` wakes everybody. Any thread; calls nothing above.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "libclient/internal.h"

/* Tags of transfer areas that are given to the next daemon, which nobody waits for. */
#define XFER_TAG (1ull << 63)
#define XFER_PAUSE_NS 5000000        /* between two tries to give it */

struct pending {
	struct pending *next;
	pthread_cond_t wake;
	struct pgc_msg *msg;       /* the request, then the reply */
	int *fds;
	int n_fds;
	struct pgc_msg request;    /* as it was sent, with these descriptors */
	const int *sent_fds;
	int n_sent;
	bool sending;              /* its caller is at it, or has not begun yet */
	bool done;
	bool waiting;              /* in pthread_cond_wait() */
};

void conn_init(struct conn *c)
{
	*c = (struct conn){ .fd = -1, .xfer_fd = -1 };
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

/* So often a thread that waits for an answer looks for signals that it has blocked. */
#define LOOK_MS 300

#define LOOK_NS    20000u            /* for an answer, before the thread sleeps */
#define LOOKS_MAX  8u                /* in vain, before it sleeps at once */
#define LOOK_AGAIN 64u               /* then it looks once in so many answers */

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

int conn_socket(void)
{
	const struct timeval look = { .tv_usec = LOOK_MS * 1000 };
	int fd = fd_keep(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));

	if (fd < 0)
		return -errno;
	if (fd_hooks.signals) {
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &look, sizeof(look));
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &look, sizeof(look));
	}
	return fd;
}

/* After a call on the socket that failed: is it to be made again? A signal that ends the program has ended it here. `*looks`: so often it looked. */
static bool again(bool single, unsigned *looks)
{
	if (errno == EINTR)
		return true;
	if (errno != EAGAIN || !fd_hooks.signals)
		return false;
	if (fd_hooks.signals(false) == 0 || !single || ++*looks < INTERRUPT_MS / LOOK_MS)
		return true;
	errno = EINTR;
	return false;
}

int conn_dial(int fd)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	unsigned looks = 0;
	int r;

	for (unsigned n = 0;; n++) {
		r = conn_address(n, sa.sun_path, sizeof(sa.sun_path));
		if (r == -ENOENT)
			return -ECONNREFUSED;
		if (r < 0)
			return r;
		do
			r = connect(fd, (struct sockaddr *)&sa, sizeof(sa));
		while (r < 0 && again(true, &looks));
		if (r < 0)
			r = -errno;
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

static int conn_send(const struct conn *c, struct pgc_msg *msg, const int *fds, int n_fds)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(PGC_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = { msg, sizeof(*msg) };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	unsigned looks = 0;
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
		n = sendmsg(c->fd, &h, MSG_NOSIGNAL);
	while (n < 0 && again(c->single, &looks));
	if (n < 0)
		return errno == EPIPE ? -ECONNRESET : -errno;
	return n == sizeof(*msg) ? 0 : -EPROTO;
}

/* Waits for one message, unless `flags` has MSG_DONTWAIT. fds has room for PGC_FDS_MAX. */
static int conn_receive(const struct conn *c, struct pgc_msg *msg, int *fds, int *ret_n, int flags)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(PGC_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = { msg, sizeof(*msg) };
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control),
	};
	unsigned looks = 0;
	int n_fds = 0;
	ssize_t n;

	do
		n = recvmsg(c->fd, &h, MSG_CMSG_CLOEXEC | flags);
	while (n < 0 && !((flags & MSG_DONTWAIT) && errno != EINTR) && again(c->single, &looks));
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

static int send_again(struct conn *c, struct pending *p)
{
	p->request.status = PGC_REQUEST_AGAIN_TO(c->incarnation);
	return conn_send(c, &p->request, p->sent_fds, p->n_sent);
}

static bool needs_xfer(const struct pgc_msg *m) { return m->type == PGC_MSG_WRITE && !(m->write.flags & PGC_WRITE_DATAFD); }

/* The transfer area, and then what has no answer, or of that what needs the area. With the lock held: nothing new is sent in between. */
static int send_all_again(struct conn *c, bool all)
{
	uint64_t tag = 0;
	int r = 0;

	c->epoch++;
	if (c->xfer_fd >= 0) {
		struct pgc_msg m = { .type = PGC_MSG_XFER, .status = PGC_REQUEST_AGAIN_TO(c->incarnation), .tag = XFER_TAG | ++c->xfers };

		r = conn_send(c, &m, &c->xfer_fd, 1);
	}
	while (r == 0) {
		struct pending *next = NULL;

		for (struct pending *p = c->pending; p; p = p->next)
			if (!p->done && !p->sending && (all || needs_xfer(&p->request)) && p->request.tag > tag &&
			    (!next || p->request.tag < next->request.tag))
				next = p;
		if (!next)
			break;
		tag = next->request.tag;
		r = send_again(c, next);
	}
	return r;
}

/* The daemon that we talked to is gone, and another one has the socket. */
static int resume(struct conn *c, uint64_t incarnation)
{
	c->incarnation = incarnation;
	return send_all_again(c, true);
}

/*
 * The next daemon has no room for the transfer area just now. Writes that followed it were left out by the daemon, as those are that it finds in the socket before an area.
 */
static int xfer_failed(struct conn *c)
{
	nanosleep(&(struct timespec){ .tv_nsec = XFER_PAUSE_NS }, NULL);
	return send_all_again(c, false);
}

static void deliver(struct conn *c, const struct pgc_msg *msg, int *fds, int n_fds)
{
	int r = 0;

	if (msg->type == PGC_MSG_RESUMED && msg->tag == 0 && n_fds == 0) {
		r = resume(c, msg->resumed.incarnation);
		if (r < 0)
			conn_die(c, r);
		return;
	}
	if (msg->type == PGC_MSG_ENDED && msg->tag == 0 && n_fds == 0) {
		c->ended = true;
		return;
	}
	/* More than one may be on its way: another daemon may have died meanwhile. */
	if ((msg->tag & XFER_TAG) && (msg->tag & ~XFER_TAG) <= c->xfers && msg->type == (PGC_MSG_XFER | PGC_MSG_REPLY) && n_fds == 0) {
		r = msg->status && (msg->tag & ~XFER_TAG) == c->xfers ? xfer_failed(c) : 0; /* one of a daemon that is gone has had its successor */
		if (r < 0)
			conn_die(c, r);
		return;
	}
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

/*
 * Looks for an answer for as long as that has paid of late: to be woken takes longer than most answers of a daemon that is at work. -EAGAIN: none yet. By who leads, alone.
 */
static int receive_soon(struct conn *c, struct pgc_msg *msg, int *fds, int *ret_n)
{
	uint64_t start;
	int r;

	if (c->looks == 0 && ++c->unlooked % LOOK_AGAIN != 0)
		return -EAGAIN;
	start = clock_ns();
	do {
		r = conn_receive(c, msg, fds, ret_n, MSG_DONTWAIT);
		if (r != -EAGAIN) {
			c->looks = LOOKS_MAX;
			return r;
		}
		cpu_relax();
	} while (clock_ns() - start < LOOK_NS);
	c->looks -= c->looks > 0;
	return -EAGAIN;
}

/* Leads: receives one message for whoever it is for. The lock is dropped meanwhile. */
static void receive_one(struct conn *c)
{
	struct pgc_msg msg;
	int fds[PGC_FDS_MAX], n_fds = 0, r;

	c->receiving = true;
	pthread_mutex_unlock(&c->lock);
	r = receive_soon(c, &msg, fds, &n_fds);
	if (r == -EAGAIN)
		r = conn_receive(c, &msg, fds, &n_fds, 0);
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
	unsigned epoch;
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
	/* One that goes on after ATTACH keeps its tag. */
	if (msg->status == 0)
		msg->tag = ++c->tag;
	/* A copy is sent: once the lock is dropped the leader may write a reply into *msg. */
	me.request = *msg;
	me.sent_fds = fds;
	me.n_sent = n_fds;
	me.sending = true;
	me.next = c->pending;
	c->pending = &me;
	c->outstanding++;
	epoch = c->epoch;
	pthread_mutex_unlock(&c->lock);

	r = conn_send(c, &me.request, fds, n_fds);

	pthread_mutex_lock(&c->lock);
	me.sending = false;
	if (r == 0 && c->epoch != epoch && !me.done && !c->dead)
		r = send_again(c, &me); /* whichever daemon has got it: the next one finds out */
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
	if (!me.done)
		*msg = me.request; /* to be sent again over another connection */
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

int conn_hello(struct conn *c, bool stores, int *ret_dev)
{
	struct pgc_msg m = { .type = PGC_MSG_HELLO };
	/* Not there, in a sandbox say: then stores are tracked with faults. */
	_cleanup_close_ int pagemap = stores ? open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC) : -1;
	int fds[PGC_FDS_MAX], r;

	m.hello = (struct pgc_hello){
		.magic = PGC_WIRE_MAGIC,
		.version = PGC_WIRE_VERSION,
		.features = PGC_FEATURE_KERNEL_FAULTS | (pagemap >= 0 ? PGC_FEATURE_PAGEMAP : 0),
		.role = PGC_ROLE_CLIENT,
	};
	r = conn_request(c, &m, &pagemap, pagemap >= 0, fds, -1);
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

void conn_empty(struct conn *c)
{
	pthread_mutex_lock(&c->lock);
	while (c->outstanding > 0)
		pthread_cond_wait(&c->slot, &c->lock);
	pthread_mutex_unlock(&c->lock);
}

void conn_renew(struct conn *c, int fd, int xfer_fd)
{
	pthread_mutex_lock(&c->lock);
	close_fd(&c->fd);
	/* HELLO, ATTACH and XFER had tags of their own. */
	c->tag += 3;
	c->fd = fd;
	c->dead = 0;
	c->xfer_fd = xfer_fd;
	c->incarnation = 0;
	c->ended = false;
	pthread_mutex_unlock(&c->lock);
}

void conn_set_xfer(struct conn *c, int fd)
{
	pthread_mutex_lock(&c->lock);
	c->xfer_fd = fd;
	pthread_mutex_unlock(&c->lock);
}

void conn_kill(struct conn *c)
{
	pthread_mutex_lock(&c->lock);
	conn_die(c, -ECONNRESET);
	if (c->fd >= 0)
		(void)shutdown(c->fd, SHUT_RDWR); /* whoever still reads from it leaves */
	pthread_mutex_unlock(&c->lock);
}

int conn_dead(struct conn *c)
{
	int dead;

	pthread_mutex_lock(&c->lock);
	dead = c->dead;
	pthread_mutex_unlock(&c->lock);
	return dead;
}

bool conn_hung_up(struct conn *c)
{
	struct pollfd p = { .fd = -1 };
	bool over;

	pthread_mutex_lock(&c->lock);
	p.fd = c->fd;
	/* Messages that nobody has read may lie before the end. */
	over = c->dead || c->fd < 0 || (poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)));
	pthread_mutex_unlock(&c->lock);
	return over;
}

bool conn_ended(struct conn *c)
{
	int fds[PGC_FDS_MAX], n = 0;
	struct pgc_msg m;
	bool ended;

	pthread_mutex_lock(&c->lock);
	/* The second try is for the error that tells of what the daemon has left unread. */
	for (int failed = 0; c->fd >= 0 && !c->receiving && !c->ended && failed < 2;) {
		if (conn_receive(c, &m, fds, &n, MSG_DONTWAIT) < 0)
			failed++;
		else
			deliver(c, &m, fds, n);
	}
	ended = c->ended;
	pthread_mutex_unlock(&c->lock);
	return ended;
}
