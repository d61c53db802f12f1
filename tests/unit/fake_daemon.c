/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_daemon.h. */
#include "fake_daemon.h"

#include <poll.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

struct fake fake;

struct client {
	int fd, uffd, xfer;
	int number;                /* as in fake.opened */
	struct pgc_map map[MAPS];
	int n_map;
	bool closed;
	struct pgc_msg held[HELD];
	int n_held;
	int epoch;                 /* as it was when the connection was made */
	uint64_t incarnation;
	uint64_t tag[HELD];        /* of requests since the last RESUMED, which may come again when it is read */
	int n_tags;
};

uint64_t fake_file_size(void)
{
	struct stat st;

	fstat(fake.memfd, &st);
	return (uint64_t)st.st_size;
}

static bool send_msg(int fd, const struct pgc_msg *m, size_t size, const int *fds, int n)
{
	union { struct cmsghdr h; char space[CMSG_SPACE(4 * sizeof(int))]; } control = { 0 };
	struct iovec iov = { (void *)m, size };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n > 0) {
		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE((size_t)n * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, (size_t)n * sizeof(int));
	}
	return sendmsg(fd, &h, MSG_NOSIGNAL) == (ssize_t)size;
}

static bool receive_msg(int fd, struct pgc_msg *m, int *fds, int *n)
{
	union { struct cmsghdr h; char space[CMSG_SPACE(4 * sizeof(int))]; } control;
	struct iovec iov = { m, sizeof(*m) };
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control),
	};

	*n = 0;
	if (recvmsg(fd, &h, MSG_CMSG_CLOEXEC) != sizeof(*m))
		return false;
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);
	if (c) {
		*n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), (size_t)*n * sizeof(int));
	}
	return true;
}

/* The page exists and is mapped; one that is write-protected becomes writable. */
static void serve_page(struct client *c, uint64_t addr)
{
	for (int i = 0; i < c->n_map; i++) {
		const struct pgc_map *m = &c->map[i];

		if (addr < m->addr || addr >= m->addr + m->len)
			continue;
		off_t off = (off_t)(m->off + addr - m->addr);
		struct uffdio_continue k = { .range = { addr, PAGE } };
		struct uffdio_range wake = { addr, PAGE };
		char b = 0;

		if (pread(fake.memfd, &b, 1, off) == 1 && pwrite(fake.memfd, &b, 1, off) == 1)
			ioctl(c->uffd, UFFDIO_CONTINUE, &k);
		ioctl(c->uffd, UFFDIO_WAKE, &wake);
	}
}

static void forget_range(struct client *c, uint64_t start, uint64_t end)
{
	for (int i = 0; i < c->n_map; i++)
		if (c->map[i].addr >= start && c->map[i].addr < end)
			c->map[i--] = c->map[--c->n_map];
}

static void serve_uffd(struct client *c)
{
	struct uffd_msg e;

	while (read(c->uffd, &e, sizeof(e)) == sizeof(e)) {
		if (e.event == UFFD_EVENT_PAGEFAULT)
			serve_page(c, e.arg.pagefault.address & ~(uint64_t)(PAGE - 1));
		else if (e.event == UFFD_EVENT_UNMAP)
			forget_range(c, e.arg.remove.start, e.arg.remove.end);
	}
}

static int open_file(struct client *c, struct pgc_msg *m, const int *fds, int n, int *out)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			    UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_EVENT_UNMAP,
	};
	bool clone = m->type == PGC_MSG_CLONE;
	uint32_t flags = clone ? m->clone.flags : m->open.flags;
	char path[40];
	int k = 0;

	c->uffd = fds[0];
	c->number = add(fake.opened, 1);
	if (ioctl(c->uffd, UFFDIO_API, &api) < 0)
		m->status = (uint32_t)errno;
	set(fake.last_flags, flags);
	set(fake.last_len, (uint64_t)n);
	out[k++] = dup(fake.control_fd);
	if (!clone && flags != O_WRONLY && get(fake.bad) != BAD_NO_MEMFD) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fake.memfd);
		out[k++] = open(path, (flags == O_RDONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	}
	for (int i = 1; i < n; i++)
		close(fds[i]);
	m->open_reply = (struct pgc_open_reply){
		.file_dev = 1, .file_ino = 2, .size = fake_file_size(), .handle = 1, .flags = get(fake.handle_flags), .orphan_timeout_ms = get(fake.orphan_ms),
	};
	return k;
}

static bool is_memfd(int fd)
{
	struct stat ours, its;

	return fstat(fake.memfd, &ours) == 0 && fstat(fd, &its) == 0 && ours.st_dev == its.st_dev && ours.st_ino == its.st_ino;
}

static bool is_uffd(int fd)
{
	char path[32], target[64] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return readlink(path, target, sizeof(target) - 1) > 0 && strstr(target, "userfaultfd");
}

static int attach_file(struct client *c, struct pgc_msg *m, const int *fds, int n, int *out)
{
	fake.attached = m->attach;
	fake.attached_fds = n;
	fake.attached_memfd = fake.attached_uffd = -1;
	for (int i = 0; i < n; i++) {
		if (is_memfd(fds[i]))
			fake.attached_memfd = i;
		if (is_uffd(fds[i]))
			fake.attached_uffd = i;
		if (i > 0)
			close(fds[i]);
	}
	c->uffd = fds[0];
	c->number = add(fake.opened, 1);
	m->status = (uint32_t)get(fake.attach);
	if (m->status)
		return 0;
	if (fake.attach_map.len > 0)
		c->map[c->n_map++] = fake.attach_map;
	out[0] = dup(fake.control_fd);
	m->open_reply = (struct pgc_open_reply){ .file_dev = 1, .file_ino = 2, .size = fake_file_size(), .handle = 3, .flags = get(fake.handle_flags) };
	return 1;
}

static void write_file(struct client *c, struct pgc_msg *m, int data)
{
	struct pgc_write w = m->write;
	char *buf = malloc(w.len);
	uint64_t off = w.flags & PGC_WRITE_APPEND ? fake_file_size() : w.off;
	ssize_t n = pread(w.flags & PGC_WRITE_DATAFD ? data : c->xfer, buf, w.len, (off_t)w.pos);

	if (n > 0)
		n = pwrite(fake.memfd, buf, (size_t)n, (off_t)off);
	free(buf);
	set(fake.last_flags, w.flags);
	set(fake.control->size, fake_file_size());
	m->write_reply = (struct pgc_write_reply){ n > 0 ? (uint64_t)n : 0, off, fake_file_size() };
}

static void read_file(struct pgc_msg *m)
{
	uint64_t off = m->read.off, len = m->read.len, size = fake_file_size(), seq = get(fake.control->seq);

	m->read_reply = (struct pgc_read_reply){ off >= size ? 0 : MIN(len, size - off), seq, size };
	if (get(fake.drop) > 0) {
		add(fake.drop, -1);
		add(fake.control->seq, 1);
	}
}

static bool reply(struct client *c, struct pgc_msg *m, int *fds, int n)
{
	struct pgc_msg out = *m;
	size_t size = sizeof(out);
	int bad = get(fake.bad), extra = -1;

	out.type |= PGC_MSG_REPLY;
	if (get(fake.mute) > 0 && m->type > PGC_MSG_CLOSE && m->type != PGC_MSG_ATTACH && m->type != PGC_MSG_XFER) {
		add(fake.mute, -1);
		return true;
	}
	if (m->type != PGC_MSG_HELLO && bad != BAD_NONE && bad != BAD_NO_MEMFD) {
		set(fake.bad, BAD_NONE);
		switch (bad) {
		case BAD_TAG: out.tag += 1000; break;
		case BAD_TYPE: out.type++; break;
		case BAD_SHORT: size = 16; break;
		case BAD_STATUS: out.status = 1u << 30; break;
		case BAD_FDS: extra = fds[n++] = dup(fake.memfd); break;
		case BAD_HANGUP: return false;
		}
	}
	bool ok = send_msg(c->fd, &out, size, fds, n);
	(void)extra;
	for (int i = 0; i < n; i++)
		close(fds[i]);
	return ok;
}

/* Another daemon has the socket: what the dead one had of it, and its transfer area, is unknown to it. */
static bool resume(struct client *c, uint64_t incarnation)
{
	struct pgc_msg m = { .type = PGC_MSG_RESUMED, .resumed.incarnation = incarnation };

	c->incarnation = incarnation;
	c->n_tags = 0;
	if (c->xfer >= 0)
		close(c->xfer);
	c->xfer = -1;
	return send_msg(c->fd, &m, sizeof(m), NULL, 0);
}

/* As the daemon does: what it has got since RESUMED and comes again is dropped, and a write that its transfer area comes after. */
static bool comes_twice(struct client *c, const struct pgc_msg *m)
{
	if (m->type == PGC_MSG_WRITE && !(m->write.flags & PGC_WRITE_DATAFD) && c->xfer < 0)
		return true;
	for (int i = 0; i < c->n_tags && m->status; i++)
		if (c->tag[i] == m->tag)
			return true;
	if (!m->status && c->n_tags < HELD)
		c->tag[c->n_tags++] = m->tag;
	return false;
}

static bool handle(struct client *c, struct pgc_msg *m, const int *fds, int n)
{
	int out[4], k = 0;

	int at;

	if (m->type < PGC_MSG_RESUMED)
		add(fake.seen[m->type], 1);
	if (m->type != PGC_MSG_HELLO && (at = add(fake.logged, 1) - 1) < FAKE_LOG)
		fake.log[at] = (struct fake_request){ m->type, m->status, m->tag };
	if (comes_twice(c, m))
		return true;
	m->status = 0;
	switch (m->type) {
	case PGC_MSG_HELLO:
		for (int i = 0; i < n; i++)
			close(fds[i]);
		m->hello_reply = (struct pgc_hello_reply){ .magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION };
		if (get(fake.bad) == BAD_VERSION)
			m->hello_reply.version++;
		break;
	case PGC_MSG_OPEN:
		if (get(fake.late) > 0) {
			for (int i = 0; i < n; i++)
				close(fds[i]);
			add(fake.late, -1);
			return true;
		}
		/* fall through */
	case PGC_MSG_CLONE:
		k = open_file(c, m, fds, n, out);
		break;
	case PGC_MSG_CLOSE:
		c->closed = true;
		break;
	case PGC_MSG_MAP:
		if (c->n_map == MAPS)
			m->status = ENOSPC;
		else
			c->map[c->n_map++] = m->map;
		break;
	case PGC_MSG_POPULATE:
		for (uint64_t a = m->populate.addr; a < m->populate.addr + m->populate.len; a += PAGE)
			serve_page(c, a);
		break;
	case PGC_MSG_READ:
		if (get(fake.hold) > 0 && c->n_held < HELD) {
			c->held[c->n_held++] = *m;
			set(fake.held, c->n_held);
			if (c->n_held < get(fake.hold))
				return true;
			set(fake.hold, 0);
			while (c->n_held > 0) {
				struct pgc_msg *h = &c->held[--c->n_held];
				read_file(h);
				if (!reply(c, h, out, 0))
					return false;
			}
			set(fake.held, 0);
			return true;
		}
		read_file(m);
		break;
	case PGC_MSG_WINDOW:
		add(fake.windows, 1);
		for (int i = 0; i < n; i++)
			close(fds[i]);
		m->status = EOPNOTSUPP;
		break;
	case PGC_MSG_XFER:
		if (get(fake.no_room) > 0) {
			add(fake.no_room, -1);
			close(fds[0]);
			m->status = ENOMEM;
			break;
		}
		if (c->xfer >= 0)
			close(c->xfer);
		c->xfer = fds[0];
		break;
	case PGC_MSG_WRITE:
		if (get(fake.take_over)) {
			set(fake.take_over, 0);
			set(fake.incarnation, 2);
			return resume(c, 2);
		}
		m->status = (uint32_t)get(fake.error);
		if (!m->status)
			write_file(c, m, n > 0 ? fds[0] : -1);
		if (n > 0)
			close(fds[0]);
		break;
	case PGC_MSG_SYNC:
		set(fake.last_handle, c->number);
		set(fake.last_off, m->sync.off);
		set(fake.last_len, m->sync.len);
		set(fake.last_flags, m->sync.flags);
		m->status = (uint32_t)get(fake.error);
		break;
	case PGC_MSG_TRUNCATE:
		m->status = ftruncate(fake.memfd, (off_t)m->truncate.size) < 0 ? (uint32_t)errno : 0;
		set(fake.control->size, fake_file_size());
		break;
	case PGC_MSG_STAT:
		m->stat_reply = (struct pgc_stat_reply){
			.dev = 5, .ino = 6, .size = fake_file_size(), .mode = S_IFREG | 0640, .nlink = 1,
			.mtime_s = 7, .mtime_ns = 8,
		};
		break;
	case PGC_MSG_ATTACH:
		if (get(fake.attach) != ATTACH_NEVER) {
			k = attach_file(c, m, fds, n, out);
			break;
		}
		for (int i = 0; i < n; i++)
			close(fds[i]);
		return false; /* it hangs up for good */
	case PGC_MSG_KEEP:
		set(fake.last_off, m->keep.off);
		set(fake.last_len, m->keep.len);
		break;
	case PGC_MSG_SEEK:
		set(fake.last_off, m->seek.off);
		set(fake.last_flags, m->seek.whence);
		m->status = (uint32_t)get(fake.error);
		m->seek_reply.off = m->seek.off + 7;
		break;
	case PGC_MSG_MADVISE:
		set(fake.last_flags, (uint32_t)m->madvise.advice);
		break;
	}
	if (m->type == PGC_MSG_READ && get(fake.answer_first)) {
		uint64_t incarnation = get(fake.answer_first);

		set(fake.answer_first, 0);
		set(fake.incarnation, incarnation);
		return reply(c, m, out, k) && resume(c, incarnation);
	}
	return reply(c, m, out, k);
}

static void *serve_client(void *arg)
{
	struct client *c = arg;

	while (!get(fake.kill) && get(fake.epoch) == c->epoch && !(c->closed && c->n_map == 0)) {
		struct pollfd p[2] = { { c->fd, POLLIN, 0 }, { c->uffd, POLLIN, 0 } };
		struct pgc_msg m;
		int fds[4], n;

		if (c->number > 0 && get(fake.incarnation) != c->incarnation && !resume(c, get(fake.incarnation)))
			break;
		if (poll(p, c->uffd >= 0 ? 2 : 1, 20) <= 0)
			continue;
		if (p[1].revents & POLLIN)
			serve_uffd(c);
		if ((p[0].revents & (POLLIN | POLLHUP)) && (!receive_msg(c->fd, &m, fds, &n) || !handle(c, &m, fds, n)))
			break;
	}
	if (c->closed && c->n_map == 0) {
		struct pgc_msg ended = { .type = PGC_MSG_ENDED };

		(void)send_msg(c->fd, &ended, sizeof(ended), NULL, 0);
	}
	shutdown(c->fd, SHUT_RDWR); /* a forked child has it, too */
	close(c->fd);
	if (c->uffd >= 0)
		close(c->uffd);
	if (c->xfer >= 0)
		close(c->xfer);
	free(c);
	add(fake.connections, -1);
	return NULL;
}

static void *serve(void *arg)
{
	int fd;

	while ((fd = accept4(fake.listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		struct client *c = calloc(1, sizeof(*c));
		pthread_t t;

		*c = (struct client){ .fd = fd, .uffd = -1, .xfer = -1, .epoch = get(fake.epoch), .incarnation = get(fake.incarnation) };
		add(fake.connections, 1);
		pthread_create(&t, NULL, serve_client, c);
		pthread_detach(t);
	}
	return NULL;
}

char byte_at(size_t off)
{
	return (char)('a' + off / PAGE % 16 + off % 3);
}

static void listen_here(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	strcpy(sa.sun_path, fake.path);
	fake.listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fake.listen_fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fake.listen_fd, 64), 0);
	assert_int_equal(pthread_create(&fake.thread, NULL, serve, NULL), 0);
}

static void listen_no_more(void)
{
	shutdown(fake.listen_fd, SHUT_RDWR);
	pthread_join(fake.thread, NULL);
	close(fake.listen_fd);
	unlink(fake.path);
}

void fake_die(int attach)
{
	set(fake.attach, attach);
	add(fake.epoch, 1);
}

void fake_goes(void)
{
	listen_no_more();
	add(fake.epoch, 1);
	assert_true(wait_for(&fake.connections, 0));
}

void fake_comes(void) { listen_here(); }

int fake_logged(uint32_t type, bool again)
{
	int n = 0;

	for (int i = 0; i < MIN(get(fake.logged), FAKE_LOG); i++)
		n += fake.log[i].type == type && (!again || fake.log[i].status);
	return n;
}

int setup(void **state)
{
	static char content[FILE_SIZE];

	memset(&fake, 0, sizeof(fake));
	strcpy(fake.path, "/tmp/pgc-test-XXXXXX");
	assert_non_null(mkdtemp(fake.path));
	strcat(fake.path, "/socket");
	fake.attach = ATTACH_NEVER;
	setenv("PAGECACHED_SOCKET", fake.path, 1);
	setenv("PAGECACHED_ORPHAN_TIMEOUT", "0.1", 1); /* a daemon that hangs up here does not come back */

	fake.memfd = memfd_create("file", MFD_CLOEXEC);
	for (size_t i = 0; i < FILE_SIZE; i++)
		content[i] = byte_at(i);
	assert_int_equal(pwrite(fake.memfd, content, FILE_SIZE, 0), FILE_SIZE);
	fake.control_fd = memfd_create("control", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fake.control_fd, PAGE), 0);
	fake.control = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fake.control_fd, 0);
	fake.control->size = FILE_SIZE;
	listen_here();
	return 0;
}

bool wait_for(int *what, int value)
{
	for (int i = 0; i < 5000 && get(*what) != value; i++)
		usleep(1000);
	return get(*what) == value;
}

static bool listed(const struct pgc_file *only)
{
	bool is;

	pthread_mutex_lock(&lib.lock);
	is = lib.files == only && (!only || !only->next);
	pthread_mutex_unlock(&lib.lock);
	return is;
}

/* The watcher may just be looking at one. */
bool reaped_but(const struct pgc_file *only)
{
	for (int i = 0; i < 5000 && !listed(only); i++) {
		usleep(1000);
		file_reap();
	}
	return listed(only);
}

bool all_reaped(void)
{
	return reaped_but(NULL);
}

/* Who takes a handle from the list destroys it after that, and that may be the watcher. A number may be in use again. */
bool is_closed(int uffd)
{
	char path[32], target[64] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", uffd);
	for (int i = 0; i < 5000; i++) {
		ssize_t n = readlink(path, target, sizeof(target) - 1);

		if (n < 0)
			return true;
		target[n] = '\0';
		if (!strstr(target, "userfaultfd"))
			return true;
		usleep(1000);
	}
	return false;
}

int teardown(void **state)
{
	/* What a test left mapped or open would be seen here. */
	file_reap();
	int left = !wait_for(&fake.connections, 0);

	if (!left)
		(void)all_reaped();

	listen_no_more();
	close(fake.memfd);
	close(fake.control_fd);
	munmap(fake.control, PAGE);
	*strrchr(fake.path, '/') = '\0';
	rmdir(fake.path);
	return left || lib.files || lib.n_map ? -1 : 0;
}

struct pgc_file *open_mem(int flags)
{
	struct pgc_file *f = NULL;

	assert_int_equal(pgc_open(&f, "mem:test", flags, 0), 0);
	return f;
}

int fd_count(void)
{
	int n = 0;

	for (int i = 0; i < 512; i++)
		n += fcntl(i, F_GETFD) >= 0;
	return n;
}

bool comes_to(int fds)
{
	for (int i = 0; i < 5000 && fd_count() != fds; i++)
		usleep(1000);
	return fd_count() == fds;
}
