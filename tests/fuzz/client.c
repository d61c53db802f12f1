/* SPDX-License-Identifier: Apache-2.0 */
/* See client.h. */
#include "tests/fuzz/client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "daemon/vma_query.h"

#define NOBODY     65534
#define FDS_MOST   8u
#define ROUNDS     40u
#define PATIENCE_NS 20000000000ull

/* --- files --- */

static const size_t sizes[CLIENT_FILES] = { 0, 5000, 70 * 4096 + 100 };
static int files[CLIENT_FILES];
static bool used[CLIENT_FILES];

void client_files_reset(void)
{
	static char bytes[70 * 4096 + 100];

	if (!bytes[0])
		memset(bytes, 'a', sizeof(bytes));
	for (unsigned i = 0; i < CLIENT_FILES; i++) {
		if (used[i])
			REQUIRE(ftruncate(files[i], 0) == 0 && pwrite(files[i], bytes, sizes[i], 0) == (ssize_t)sizes[i]);
		used[i] = false;
	}
}

int client_file(unsigned n, int flags)
{
	char path[64];

	used[n % CLIENT_FILES] = true;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", files[n % CLIENT_FILES]);
	return open(path, flags | O_CLOEXEC);
}

int client_uffd(int flags)
{
	int fd = (int)syscall(SYS_userfaultfd, flags | O_CLOEXEC);

	return fd >= 0 ? fd : (int)syscall(SYS_userfaultfd, flags | O_CLOEXEC | UFFD_USER_MODE_ONLY);
}

int client_memfd(size_t size, bool sealed)
{
	int fd = memfd_create("client", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	REQUIRE(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	if (sealed)
		REQUIRE(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
	return fd;
}

/* --- the connection --- */

bool client_connect(struct served *d, struct client *c, bool nobody)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	bool root = geteuid() == 0;
	int r;

	client_end(c);
	c->tag = 1;
	c->sent = c->answered = 0;
	c->lists = false;
	c->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	REQUIRE(c->sock >= 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", d->config.socket);
	/* Of this thread alone: the C library would do it for all. */
	if (nobody && root)
		REQUIRE(syscall(SYS_setresuid, -1, NOBODY, -1) == 0);
	r = connect(c->sock, (struct sockaddr *)&a, sizeof(a));
	if (nobody && root)
		REQUIRE(syscall(SYS_setresuid, -1, 0, -1) == 0);
	if (r == 0)
		return true;
	close(c->sock);
	c->sock = -1;
	return false;
}

int client_send(struct client *c, const void *bytes, size_t n, const int *fds, unsigned n_fds)
{
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * FDS_MOST)]; } control = { 0 };
	struct iovec iov = { (void *)bytes, n };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		struct cmsghdr *m;

		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		m = CMSG_FIRSTHDR(&h);
		m->cmsg_level = SOL_SOCKET;
		m->cmsg_type = SCM_RIGHTS;
		m->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(m), fds, sizeof(int) * n_fds);
	}
	if (sendmsg(c->sock, &h, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return -errno;
	c->sent++;
	return 0;
}

static bool is_list(uint32_t type)
{
	return type == PGC_CTL_FILES || type == PGC_CTL_MAPPINGS || type == PGC_CTL_CGROUPS || type == PGC_CTL_PINS;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	while (n > 0 && !p[n - 1])
		n--;
	return n == 0;
}

/* What a daemon may say: answers to what was asked, an error without a body, descriptors where there are some. */
static void check_answer(struct client *c, const struct pgc_msg *m, unsigned n_fds)
{
	uint32_t type = m->type & ~PGC_MSG_REPLY;

	if (m->type == PGC_MSG_RESUMED || m->type == PGC_MSG_ENDED) {
		REQUIRE(m->tag == 0 && m->status == 0 && n_fds == 0);
		return;
	}
	REQUIRE(m->type & PGC_MSG_REPLY);
	REQUIRE(m->status < 4096);
	c->answered++;
	c->lists |= is_list(type);
	REQUIRE(c->lists || c->answered <= c->sent);
	if (m->status && (type == PGC_MSG_OPEN || type == PGC_MSG_CLONE || type == PGC_MSG_ATTACH || type == PGC_MSG_STAT || type == PGC_MSG_SEEK))
		REQUIRE(is_zero(m->bytes, sizeof(m->bytes)) && n_fds == 0);
	switch (type) {
	case PGC_MSG_HELLO:
		REQUIRE(n_fds <= 1);
		break;
	case PGC_MSG_OPEN:
		REQUIRE(m->status || n_fds == 1 || n_fds == 2);
		break;
	case PGC_MSG_CLONE:
	case PGC_MSG_ATTACH:
		REQUIRE(m->status || n_fds == 1);
		break;
	case PGC_MSG_STAT:
		REQUIRE(n_fds == 0 || (n_fds == 1 && m->status == 0));
		break;
	case PGC_MSG_WINDOW:
		REQUIRE(n_fds == 0 || ((n_fds == 2 || n_fds == 3) && m->status == 0));
		break;
	default:
		REQUIRE(n_fds == 0);
	}
}

static void take_answer(struct client *c, const struct pgc_msg *m, int *fds, unsigned n_fds)
{
	if (m->type == (PGC_MSG_HELLO | PGC_MSG_REPLY) && m->status == 0 && c->role == 0)
		c->role = PGC_ROLE_CLIENT;
	if ((m->type == (PGC_MSG_OPEN | PGC_MSG_REPLY) || m->type == (PGC_MSG_CLONE | PGC_MSG_REPLY) || m->type == (PGC_MSG_ATTACH | PGC_MSG_REPLY)) &&
	    m->status == 0 && !c->opened) {
		c->opened = true;
		c->reply = m->open_reply;
		c->control = take_fd(&fds[0]);
		if (n_fds > 1 && c->memfd < 0)
			c->memfd = take_fd(&fds[1]);
	}
	for (unsigned i = 0; i < n_fds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

bool client_receive(struct client *c)
{
	for (unsigned i = 0; i < 64; i++) {
		union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * FDS_MOST)]; } control;
		char bytes[PGC_MSG_SIZE + 1];
		struct iovec iov = { bytes, sizeof(bytes) };
		struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
		ssize_t n = recvmsg(c->sock, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		struct cmsghdr *m = CMSG_FIRSTHDR(&h);
		int fds[FDS_MOST];
		unsigned n_fds = 0;
		struct pgc_msg msg;

		if (n < 0)
			return errno == EAGAIN;
		if (n == 0)
			return false;
		REQUIRE(n == PGC_MSG_SIZE && !(h.msg_flags & MSG_CTRUNC));
		if (m) {
			n_fds = (unsigned)((m->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(fds, CMSG_DATA(m), sizeof(int) * n_fds);
		}
		memcpy(&msg, bytes, sizeof(msg));
		check_answer(c, &msg, n_fds);
		take_answer(c, &msg, fds, n_fds);
	}
	return true;
}

/* --- memory --- */

static struct {
	pthread_t thread;
	int wake;                  /* eventfd: there is something to do; -1: no thread yet */
	_Atomic bool busy;         /* release by the thread, acquire by who turns the daemon */
	enum client_act act;
	uint8_t *at;
	size_t len, whole;         /* whole: to the end of the mapping */
	int in, out;               /* /dev/zero, and a memfd to write to */
} actor = { .wake = -1 };

static void do_act(void)
{
	switch (actor.act) {
	case ACT_LOAD:
		(void)!pwrite(actor.out, actor.at, 1, 0);
		break;
	case ACT_STORE:
		(void)!read(actor.in, actor.at, 1);
		break;
	case ACT_CUT:
		REQUIRE(munmap(actor.at, actor.whole) == 0);
		break;
	case ACT_MREMAP: /* shorter, and at the same place */
		REQUIRE(mremap(actor.at - PAGE_SIZE_, actor.whole + PAGE_SIZE_, PAGE_SIZE_, 0) != MAP_FAILED);
		break;
	case ACT_DONTNEED:
		(void)madvise(actor.at, actor.len, MADV_DONTNEED);
		break;
	case ACT_REMOVE:
		(void)madvise(actor.at, actor.len, MADV_REMOVE);
		break;
	case ACT_MLOCK:
		(void)syscall(SYS_mlock2, actor.at, actor.len, MLOCK_ONFAULT);
		break;
	case ACTS:
		break;
	}
}

static void *actor_main(void *arg)
{
	uint64_t n;

	while (read(actor.wake, &n, sizeof(n)) == sizeof(n)) {
		do_act();
		atomic_store_explicit(&actor.busy, false, memory_order_release);
	}
	return NULL;
}

static bool actor_busy(void) { return atomic_load_explicit(&actor.busy, memory_order_acquire); }

static void actor_start(void)
{
	actor.wake = eventfd(0, EFD_CLOEXEC);
	actor.in = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	actor.out = client_memfd(4096, false);
	REQUIRE(actor.wake >= 0 && actor.in >= 0 && pthread_create(&actor.thread, NULL, actor_main, NULL) == 0);
}

void client_do(struct served *d, struct client *c, unsigned slot, enum client_act act, size_t off, size_t len)
{
	struct client_map *m = &c->map[slot % CLIENT_MAPS];

	off = align_down(off, PAGE_SIZE_);
	if (actor_busy() || !m->at || off >= m->len || (act == ACT_MREMAP && off == 0))
		return;
	actor.act = act;
	actor.at = m->at + off;
	actor.whole = m->len - off;
	actor.len = MIN(page_up(MAX(len, 1ul)) * PAGE_SIZE_, actor.whole);
	if (act == ACT_CUT || act == ACT_MREMAP) {
		m->len = off;
		m->at = off == 0 ? NULL : m->at;
	}
	atomic_store_explicit(&actor.busy, true, memory_order_release);
	REQUIRE(eventfd_write(actor.wake, 1) == 0);
	for (unsigned i = 0; i < ROUNDS && actor_busy(); i++)
		if (!serve_turn(d))
			serve_wait();
}

bool client_mmap(struct client *c, unsigned slot, size_t len, uint64_t off, bool shared, bool writable)
{
	struct client_map *m = &c->map[slot % CLIENT_MAPS];
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR };
	void *at;

	if (c->memfd < 0 || m->at || actor_busy())
		return false;
	at = mmap(NULL, len, PROT_READ | (writable ? PROT_WRITE : 0), shared ? MAP_SHARED : MAP_PRIVATE, c->memfd, (off_t)off);
	if (at == MAP_FAILED)
		return false;
	*m = (struct client_map){ at, len };
	if (shared && writable)
		reg.mode |= UFFDIO_REGISTER_MODE_WP;
	reg.range.start = (uintptr_t)at;
	reg.range.len = len;
	(void)ioctl(c->uffd, UFFDIO_REGISTER, &reg);
	return true;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(take_fd(fd));
}

void client_end(struct client *c)
{
	close_one(&c->sock);
	close_one(&c->uffd);
	close_one(&c->memfd);
	close_one(&c->control);
	c->role = 0;
	c->opened = false;
}

void client_forget(struct served *d, struct client *c, unsigned n)
{
	uint64_t start = now_ns();

	while (actor_busy()) {
		if (!serve_turn(d))
			serve_wait();
		REQUIRE(now_ns() - start < PATIENCE_NS);
	}
	serve_quiesce(d);
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < CLIENT_MAPS; k++) {
			struct client_map *m = &c[i].map[k];

			if (m->at)
				REQUIRE(munmap(m->at, m->len) == 0);
			*m = (struct client_map){ NULL, 0 };
		}
}

/* --- what the daemon hears of our own process --- */

/*
 * The daemon's windows are in this process, too; of clients it is to find what they have mapped only. In place of vma_query.h's (-Wl,--wrap).
 */
#define QUERIES 64u

static struct asked { struct vma_query *q; void (*done)(struct vma_query *q, int error); bool list; } asked[QUERIES];
static struct client *owners;
static unsigned n_owners;

int __real_vma_query_start(struct vma_query *q, struct ring *ring);
int __wrap_vma_query_start(struct vma_query *q, struct ring *ring);

void client_init(struct client *c, unsigned n)
{
	owners = c;
	n_owners = n;
	for (unsigned i = 0; i < n; i++)
		c[i] = (struct client){ .sock = -1, .uffd = -1, .memfd = -1, .control = -1 };
	for (unsigned i = 0; i < CLIENT_FILES; i++) {
		files[i] = memfd_create("store", MFD_CLOEXEC);
		REQUIRE(files[i] >= 0);
		used[i] = true;
	}
	client_files_reset();
	actor_start();
}

static bool is_a_clients(uint64_t addr)
{
	for (unsigned i = 0; i < n_owners; i++)
		for (unsigned k = 0; k < CLIENT_MAPS; k++)
			if (owners[i].map[k].at && addr - (uintptr_t)owners[i].map[k].at < owners[i].map[k].len)
				return true;
	return false;
}

static void query_done(struct vma_query *q, int error)
{
	struct asked *a = asked;
	size_t n = 0;

	while (a->q != q)
		REQUIRE(++a < asked + QUERIES);
	a->q = NULL;
	if (q->all) {
		q->total = 0;
		for (size_t i = 0; i < q->n_segs; i++)
			if (is_a_clients(q->segs[i].start)) {
				q->segs[n++] = q->segs[i];
				q->total += q->segs[i].end - q->segs[i].start;
			}
		q->n_segs = n;
	} else if (error == 0 && !is_a_clients(q->addr)) {
		error = -ENOENT;
	}
	if (!a->list) {
		free(q->segs);
		q->segs = NULL;
		q->n_segs = 0;
	}
	a->done(q, error);
}

int __wrap_vma_query_start(struct vma_query *q, struct ring *ring)
{
	struct asked *a = asked;
	int r;

	while (a->q)
		if (++a == asked + QUERIES)
			return -ENOMEM;
	*a = (struct asked){ q, q->done, q->list };
	q->done = query_done;
	q->list = true;
	r = __real_vma_query_start(q, ring);
	if (r < 0)
		a->q = NULL;
	return r;
}
