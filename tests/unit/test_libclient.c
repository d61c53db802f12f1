/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libpagecached against a small daemon in a thread of the test: one file in a memfd, real userfaults, and knobs that
 * make it answer late, out of order, wrongly or not at all. Its threads only count and collect: the tests judge.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "libclient/internal.h"

#define PAGE PGC_PAGE_SIZE
#define FILE_SIZE (16 * PAGE + 100)
#define MAPS 16
#define HELD 128

#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

enum bad { BAD_NONE, BAD_TAG, BAD_TYPE, BAD_SHORT, BAD_STATUS, BAD_FDS, BAD_HANGUP, BAD_VERSION, BAD_NO_MEMFD };

struct fake {
	char path[64];
	int listen_fd;
	int memfd, control_fd;
	struct pgc_control_page *control;
	pthread_t thread;

	/* Atomic: knobs, and what was seen. */
	int bad;                   /* enum bad: what is wrong with the next reply to a request on a handle */
	int hold;                  /* collect that many READs, then answer the last one first */
	int held;                  /* how many are held now */
	int drop;                  /* so many READs find their pages dropped right after */
	int error;                 /* errno of every WRITE and SYNC */
	int kill;                  /* connections hang up at once */
	int seen[PGC_MSG_SEEK + 1];
	int connections;
	int opened;                /* handles so far, CLONE as well */
	int last_handle;           /* of a SYNC: which of them */
	uint64_t last_off, last_len;
	uint32_t last_flags;
	uint32_t handle_flags;
};
static struct fake fake;

#define get(v) __atomic_load_n(&(v), __ATOMIC_SEQ_CST)
#define set(v, x) __atomic_store_n(&(v), (x), __ATOMIC_SEQ_CST)
#define add(v, x) __atomic_add_fetch(&(v), (x), __ATOMIC_SEQ_CST)

struct client {
	int fd, uffd, xfer;
	int number;                /* as in fake.opened */
	struct pgc_map map[MAPS];
	int n_map;
	bool closed;
	struct pgc_msg held[HELD];
	int n_held;
};

static uint64_t file_size(void)
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
	m->open_reply = (struct pgc_open_reply){ 1, 2, file_size(), 1, get(fake.handle_flags) };
	return k;
}

static void write_file(struct client *c, struct pgc_msg *m, int data)
{
	struct pgc_write w = m->write;
	char *buf = malloc(w.len);
	uint64_t off = w.flags & PGC_WRITE_APPEND ? file_size() : w.off;
	ssize_t n = pread(w.flags & PGC_WRITE_DATAFD ? data : c->xfer, buf, w.len, (off_t)w.pos);

	if (n > 0)
		n = pwrite(fake.memfd, buf, (size_t)n, (off_t)off);
	free(buf);
	set(fake.last_flags, w.flags);
	set(fake.control->size, file_size());
	m->write_reply = (struct pgc_write_reply){ n > 0 ? (uint64_t)n : 0, off, file_size() };
}

static void read_file(struct pgc_msg *m)
{
	uint64_t off = m->read.off, len = m->read.len, size = file_size(), seq = get(fake.control->seq);

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

static bool handle(struct client *c, struct pgc_msg *m, const int *fds, int n)
{
	int out[4], k = 0;

	if (m->type <= PGC_MSG_SEEK)
		add(fake.seen[m->type], 1);
	switch (m->type) {
	case PGC_MSG_HELLO:
		m->hello_reply = (struct pgc_hello_reply){ .magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION };
		if (get(fake.bad) == BAD_VERSION)
			m->hello_reply.version++;
		break;
	case PGC_MSG_OPEN:
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
	case PGC_MSG_XFER:
		c->xfer = fds[0];
		break;
	case PGC_MSG_WRITE:
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
		set(fake.control->size, file_size());
		break;
	case PGC_MSG_STAT:
		m->stat_reply = (struct pgc_stat_reply){
			.dev = 5, .ino = 6, .size = file_size(), .mode = S_IFREG | 0640, .nlink = 1,
			.mtime_s = 7, .mtime_ns = 8,
		};
		break;
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
	return reply(c, m, out, k);
}

static void *serve_client(void *arg)
{
	struct client *c = arg;

	while (!get(fake.kill) && !(c->closed && c->n_map == 0)) {
		struct pollfd p[2] = { { c->fd, POLLIN, 0 }, { c->uffd, POLLIN, 0 } };
		struct pgc_msg m;
		int fds[4], n;

		if (poll(p, c->uffd >= 0 ? 2 : 1, 20) <= 0)
			continue;
		if (p[1].revents & POLLIN)
			serve_uffd(c);
		if ((p[0].revents & (POLLIN | POLLHUP)) && (!receive_msg(c->fd, &m, fds, &n) || !handle(c, &m, fds, n)))
			break;
	}
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

		*c = (struct client){ .fd = fd, .uffd = -1, .xfer = -1 };
		add(fake.connections, 1);
		pthread_create(&t, NULL, serve_client, c);
		pthread_detach(t);
	}
	return NULL;
}

/* Byte `off` of the file as each test finds it. */
static char byte_at(size_t off)
{
	return (char)('a' + off / PAGE % 16 + off % 3);
}

static int setup(void **state)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	static char content[FILE_SIZE];

	memset(&fake, 0, sizeof(fake));
	strcpy(fake.path, "/tmp/pgc-test-XXXXXX");
	assert_non_null(mkdtemp(fake.path));
	strcat(fake.path, "/socket");
	strcpy(sa.sun_path, fake.path);
	fake.listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fake.listen_fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fake.listen_fd, 64), 0);
	setenv("PAGECACHED_SOCKET", fake.path, 1);

	fake.memfd = memfd_create("file", MFD_CLOEXEC);
	for (size_t i = 0; i < FILE_SIZE; i++)
		content[i] = byte_at(i);
	assert_int_equal(pwrite(fake.memfd, content, FILE_SIZE, 0), FILE_SIZE);
	fake.control_fd = memfd_create("control", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fake.control_fd, PAGE), 0);
	fake.control = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fake.control_fd, 0);
	fake.control->size = FILE_SIZE;
	assert_int_equal(pthread_create(&fake.thread, NULL, serve, NULL), 0);
	return 0;
}

static bool wait_for(int *what, int value)
{
	for (int i = 0; i < 5000 && get(*what) != value; i++)
		usleep(1000);
	return get(*what) == value;
}

static int teardown(void **state)
{
	/* What a test left mapped or open would be seen here. */
	file_reap();
	int left = !wait_for(&fake.connections, 0);

	shutdown(fake.listen_fd, SHUT_RDWR);
	pthread_join(fake.thread, NULL);
	close(fake.listen_fd);
	close(fake.memfd);
	close(fake.control_fd);
	munmap(fake.control, PAGE);
	unlink(fake.path);
	*strrchr(fake.path, '/') = '\0';
	rmdir(fake.path);
	return left || lib.files || lib.n_map ? -1 : 0;
}

static struct pgc_file *open_mem(int flags)
{
	struct pgc_file *f = NULL;

	assert_int_equal(pgc_open(&f, "mem:test", flags, 0), 0);
	return f;
}

static int fd_count(void)
{
	int n = 0;

	for (int i = 0; i < 512; i++)
		n += fcntl(i, F_GETFD) >= 0;
	return n;
}

/* --- open ------------------------------------------------------------------------------------------------------- */

static void open_refuses_bad_arguments(void **state)
{
	struct pgc_file *f = NULL;
	char uri[256];

	assert_int_equal(pgc_open(NULL, "mem:x", O_RDONLY, 0), -EFAULT);
	assert_int_equal(pgc_open(&f, NULL, O_RDONLY, 0), -EFAULT);
	assert_int_equal(pgc_open(&f, "mem:x", 3, 0), -EINVAL);
	assert_int_equal(pgc_open(&f, "mem:x", O_PATH, 0), -EBADF);
	assert_int_equal(pgc_open(&f, "mem:x", O_RDONLY | O_TRUNC, 0), -EINVAL);
	assert_int_equal(pgc_open(&f, "mem:x", O_RDWR | O_CREAT | O_EXCL, 0), -EINVAL);
	assert_int_equal(pgc_open(&f, "/nonexistent/file", O_RDONLY, 0), -ENOENT);
	assert_int_equal(pgc_open(&f, "/tmp", O_RDONLY, 0), -EISDIR);
	assert_int_equal(pgc_open(&f, "/dev/null", O_RDONLY, 0), -EINVAL);
	memset(uri, 'x', sizeof(uri));
	memcpy(uri, "mem:", 4);
	uri[200] = '\0';
	assert_int_equal(pgc_open(&f, uri, O_RDONLY, 0), -ENAMETOOLONG);
	assert_null(f);
	assert_int_equal(get(fake.seen[PGC_MSG_OPEN]), 0);
}

static void fdopen_refuses_what_is_no_file(void **state)
{
	struct pgc_file *f = NULL;
	int p[2], d = open("/tmp", O_RDONLY | O_CLOEXEC), o = open("/tmp", O_PATH | O_CLOEXEC);

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(pgc_fdopen(&f, -1), -EBADF);
	assert_int_equal(pgc_fdopen(&f, p[0]), -EINVAL);
	assert_int_equal(pgc_fdopen(&f, fake.listen_fd), -EINVAL);
	assert_int_equal(pgc_fdopen(&f, d), -EISDIR);
	assert_int_equal(pgc_fdopen(&f, o), -EBADF);
	assert_null(f);
	close(p[0]);
	close(p[1]);
	close(d);
	close(o);
}

static void a_uri_is_told_from_a_path(void **state)
{
	assert_true(file_is_uri("mem:x"));
	assert_true(file_is_uri("s3+http:"));
	assert_false(file_is_uri("./mem:x"));
	assert_false(file_is_uri("dir/mem:x"));
	assert_false(file_is_uri("Mem:x"));
	assert_false(file_is_uri("3s:x"));
	assert_false(file_is_uri("name"));
	assert_false(file_is_uri(":x"));
	assert_false(file_is_uri(""));
}

static void open_passes_descriptors_of_a_path_and_none_of_a_uri(void **state)
{
	char path[] = "/tmp/pgc-test-file-XXXXXX";
	struct pgc_file *f;
	int fd = mkostemp(path, O_CLOEXEC);

	f = open_mem(O_RDWR);
	assert_int_equal(get(fake.last_len), 1);
	assert_int_equal(pgc_close(f), 0);
	assert_int_equal(pgc_open(&f, path, O_WRONLY, 0), 0);
	assert_int_equal(get(fake.last_flags), O_WRONLY);
	assert_int_equal(get(fake.last_len), 2 + (f->direct >= 0));
	assert_int_equal(fcntl(f->buffered, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR);
	assert_int_equal(pgc_close(f), 0);
	assert_int_equal(pgc_open(&f, path, O_RDWR | O_APPEND | O_SYNC | O_DIRECT, 0), 0);
	assert_int_equal(fcntl(f->buffered, F_GETFL) & (O_ACCMODE | O_APPEND | O_SYNC | O_DIRECT), O_RDWR);
	assert_int_equal(f->sync_flags, O_SYNC);
	assert_int_equal(pgc_close(f), 0);
	assert_int_equal(pgc_fdopen(&f, fd), 0);
	assert_int_equal(f->accmode, O_RDWR);
	assert_int_not_equal(f->buffered, fd);
	assert_int_equal(pgc_close(f), 0);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	close(fd);
	unlink(path);
}

static void open_with_trunc_truncates_through_the_daemon(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR | O_TRUNC);

	assert_int_equal(get(fake.seen[PGC_MSG_TRUNCATE]), 1);
	assert_int_equal(file_size(), 0);
	pgc_close(f);
}

static void open_without_a_daemon_is_refused(void **state)
{
	struct pgc_file *f = NULL;

	setenv("PAGECACHED_SOCKET", "/nonexistent/socket", 1);
	assert_int_equal(pgc_open(&f, "mem:x", O_RDONLY, 0), -ECONNREFUSED);
	setenv("PAGECACHED_SOCKET", fake.path, 1);
	assert_null(f);
}

static void another_version_is_refused(void **state)
{
	struct pgc_file *f = NULL;

	set(fake.bad, BAD_VERSION);
	assert_int_equal(pgc_open(&f, "mem:x", O_RDONLY, 0), -EPROTO);
	set(fake.bad, BAD_NO_MEMFD);
	assert_int_equal(pgc_open(&f, "mem:x", O_RDONLY, 0), -EPROTO);
	set(fake.bad, BAD_NONE);
	assert_null(f);
}

static void the_socket_is_named_by_the_environment(void **state)
{
	char a[108], old[108];
	const char *xdg = getenv("XDG_RUNTIME_DIR");

	snprintf(old, sizeof(old), "%s", xdg ? xdg : "");
	assert_int_equal(conn_address(0, a, sizeof(a)), 0);
	assert_string_equal(a, fake.path);
	assert_int_equal(conn_address(1, a, sizeof(a)), -ENOENT);
	unsetenv("PAGECACHED_SOCKET");
	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	assert_int_equal(conn_address(0, a, sizeof(a)), 0);
	assert_string_equal(a, "/run/pagecached/socket");
	assert_int_equal(conn_address(1, a, sizeof(a)), 0);
	assert_string_equal(a, "/run/user/7/pagecached/socket");
	assert_int_equal(conn_address(2, a, sizeof(a)), -ENOENT);
	assert_int_equal(conn_address(1, a, 10), -ENAMETOOLONG);
	if (*old)
		setenv("XDG_RUNTIME_DIR", old, 1);
	else
		unsetenv("XDG_RUNTIME_DIR");
	setenv("PAGECACHED_SOCKET", fake.path, 1);
}

/* --- read and write --------------------------------------------------------------------------------------------- */

static void read_checks_its_arguments(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY), *w = open_mem(O_WRONLY);
	struct iovec iov = { NULL, SSIZE_MAX }, two[2] = { { NULL, SSIZE_MAX }, { NULL, 1 } };
	char b[8];

	assert_int_equal(pgc_pread(NULL, b, 1, 0), -EBADF);
	assert_int_equal(pgc_pread(w, b, 1, 0), -EBADF);
	assert_int_equal(pgc_pread(f, b, 1, -1), -EINVAL);
	assert_int_equal(pgc_pread(f, b, 0, 0), 0);
	assert_int_equal(pgc_preadv(f, &iov, -1, 0), -EINVAL);
	assert_int_equal(pgc_preadv(f, &iov, IOV_MAX + 1, 0), -EINVAL);
	assert_int_equal(pgc_preadv(f, two, 2, 0), -EINVAL);
	assert_int_equal(pgc_pread(f, (void *)8, 8, 0), -EFAULT);
	assert_int_equal(pgc_pwrite(f, b, 1, 0), -EBADF);
	assert_int_equal(pgc_pwrite(w, b, 1, -1), -EINVAL);
	assert_int_equal(pgc_pwrite(w, b, 0, 0), 0);
	assert_int_equal(pgc_pwrite(w, b, 1, INT64_MAX), -EFBIG);
	assert_int_equal(pgc_pwrite(w, (void *)8, 8, 0), -EFAULT);
	assert_int_equal(pgc_append(f, b, 1, NULL), -EBADF);
	assert_int_equal(get(fake.seen[PGC_MSG_WRITE]), 0);
	pgc_close(f);
	pgc_close(w);
}

static void read_gives_the_bytes_and_stops_at_the_end(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	static char b[FILE_SIZE + 50];

	assert_int_equal(pgc_pread(f, b, sizeof(b), 0), FILE_SIZE);
	for (size_t i = 0; i < FILE_SIZE; i++)
		assert_int_equal(b[i], byte_at(i));
	assert_int_equal(pgc_pread(f, b, 10, FILE_SIZE - 4), 4);
	assert_int_equal(b[0], byte_at(FILE_SIZE - 4));
	assert_int_equal(pgc_pread(f, b, 10, FILE_SIZE), 0);
	assert_int_equal(pgc_pread(f, b, 10, INT64_MAX - 5), 0);
	pgc_close(f);
}

static void vectors_are_read_and_written_in_order(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	struct iovec iov[200];
	char b[200][3];

	for (int i = 0; i < 200; i++)
		iov[i] = (struct iovec){ b[i], i % 4 == 3 ? 0 : 3 };
	assert_int_equal(pgc_preadv(f, iov, 200, 10), 450);
	for (size_t i = 0, off = 10; i < 200; i++)
		for (size_t j = 0; j < iov[i].iov_len; j++)
			assert_int_equal(b[i][j], byte_at(off++));
	memset(b, 'Z', sizeof(b));
	b[198][2] = '!';
	assert_int_equal(pgc_pwritev(f, iov, 200, 5), 450);
	assert_int_equal(pread(fake.memfd, b[0], 3, 5 + 447), 3);
	assert_memory_equal(b[0], "ZZ!", 3);
	pgc_close(f);
}

static void a_read_that_lost_its_pages_is_repeated(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	static char b[FILE_SIZE];

	set(fake.drop, 3);
	assert_int_equal(pgc_pread(f, b, sizeof(b), 0), FILE_SIZE);
	assert_true(get(fake.seen[PGC_MSG_READ]) >= 4);
	for (size_t i = 0; i < FILE_SIZE; i++)
		assert_int_equal(b[i], byte_at(i));
	pgc_close(f);
}

static void a_partly_bad_buffer_gives_a_partial_count(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *b = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_int_equal(munmap(b + PAGE, PAGE), 0);
	assert_int_equal(pgc_pread(f, b + PAGE - 10, 100, 0), 10);
	assert_int_equal(pgc_pwrite(f, b + PAGE - 10, 100, 0), 10);
	munmap(b, PAGE);
	pgc_close(f);
}

static void a_long_write_goes_in_steps(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	size_t n = 3 * PGC_WRITE_MAX + 17;
	char *b = malloc(n), *got = malloc(n);

	for (size_t i = 0; i < n; i++)
		b[i] = (char)(i * 7 + i / PAGE);
	assert_int_equal(pgc_pwrite(f, b, n, 33), n);
	assert_int_equal(get(fake.seen[PGC_MSG_WRITE]), 4);
	assert_int_equal(get(fake.seen[PGC_MSG_XFER]), 1);
	assert_int_equal(pread(fake.memfd, got, n, 33), n);
	assert_memory_equal(b, got, n);
	free(b);
	free(got);
	pgc_close(f);
}

static void append_says_where_it_went(void **state)
{
	struct pgc_file *f = open_mem(O_WRONLY);
	size_t n = PGC_WRITE_MAX + 5;
	char *b = malloc(n), last;
	off_t at = -1;

	memset(b, 'A', n);
	b[n - 1] = 'B';
	assert_int_equal(pgc_append(f, b, 10, &at), 10);
	assert_int_equal(at, FILE_SIZE);
	assert_int_equal(get(fake.last_flags), PGC_WRITE_APPEND);
	assert_int_equal(pgc_append(f, b, n, &at), n);
	assert_int_equal(at, FILE_SIZE + 10);
	assert_int_equal(get(fake.last_flags), PGC_WRITE_APPEND | PGC_WRITE_DATAFD);
	assert_int_equal(get(fake.seen[PGC_MSG_WRITE]), 2);
	assert_int_equal(pgc_append(f, b, 0, &at), 0);
	assert_int_equal(at, FILE_SIZE + 10 + (off_t)n);
	assert_int_equal(pread(fake.memfd, &last, 1, at - 1), 1);
	assert_int_equal(last, 'B');
	free(b);
	pgc_close(f);
}

static void a_failed_write_is_reported(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);

	set(fake.error, ENOSPC);
	assert_int_equal(pgc_pwrite(f, "x", 1, 0), -ENOSPC);
	assert_int_equal(pgc_append(f, "x", 1, NULL), -ENOSPC);
	assert_int_equal(pgc_fsync(f), -ENOSPC);
	set(fake.error, 0);
	assert_int_equal(pgc_pwrite(f, "x", 1, 0), 1);
	pgc_close(f);
}

static void o_dsync_syncs_each_write(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR | O_DSYNC);

	assert_int_equal(pgc_pwrite(f, "x", 1, 0), 1);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 1);
	assert_int_equal(get(fake.last_flags), PGC_SYNC_DATA);
	pgc_close(f);
}

static void a_write_out_names_its_range_and_leaves_the_store_alone(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);

	assert_int_equal(file_write_out(f, 4096, 8192, true), 0);
	assert_int_equal(get(fake.last_flags), PGC_SYNC_WRITE);
	assert_int_equal(get(fake.last_off), 4096);
	assert_int_equal(get(fake.last_len), 8192);
	assert_int_equal(file_write_out(f, 0, 0, false), 0);
	assert_int_equal(get(fake.last_flags), PGC_SYNC_WRITE | PGC_SYNC_ASYNC);
	pgc_close(f);
}

static void seek_asks_the_daemon_for_data_and_holes(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	off_t at = 1;

	assert_int_equal(pgc_seek(f, 5, SEEK_HOLE, &at), 0);
	assert_int_equal(at, 12);
	assert_int_equal(get(fake.last_off), 5);
	assert_int_equal(get(fake.last_flags), SEEK_HOLE);
	set(fake.error, ENXIO);
	assert_int_equal(pgc_seek(f, 5, SEEK_DATA, &at), -ENXIO);
	assert_int_equal(at, 12); /* written on success only */
	set(fake.error, 0);
	pgc_close(f);
}

static void seeks_that_make_no_sense_are_not_asked(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	off_t at;

	assert_int_equal(pgc_seek(f, 5, SEEK_END, &at), -EINVAL);
	assert_int_equal(pgc_seek(f, -5, SEEK_DATA, &at), -ENXIO);
	assert_int_equal(pgc_seek(f, 5, SEEK_DATA, NULL), -EFAULT);
	assert_int_equal(pgc_seek(NULL, 5, SEEK_DATA, &at), -EBADF);
	assert_int_equal(get(fake.seen[PGC_MSG_SEEK]), 0);
	pgc_close(f);
}

static void a_small_file_size_limit_refuses_without_a_signal(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	struct rlimit old, small;

	getrlimit(RLIMIT_FSIZE, &old);
	small = (struct rlimit){ 4096, old.rlim_max };
	setrlimit(RLIMIT_FSIZE, &small);
	ssize_t n = pgc_pwrite(f, "x", 1, 0);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_int_equal(n, -EFBIG);
	pgc_close(f);
}

static void size_and_sync_calls_check_their_arguments(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR), *r = open_mem(O_RDONLY);
	struct stat st;

	assert_int_equal(pgc_ftruncate(f, -1), -EINVAL);
	assert_int_equal(pgc_ftruncate(r, 0), -EINVAL);
	assert_int_equal(pgc_ftruncate(f, 5000), 0);
	assert_int_equal(file_size(), 5000);
	assert_int_equal(pgc_fallocate(f, 0, -1, 1), -EINVAL);
	assert_int_equal(pgc_fallocate(f, 0, 0, 0), -EINVAL);
	assert_int_equal(pgc_fallocate(f, 2 /* PUNCH_HOLE alone */, 0, 1), -EOPNOTSUPP);
	assert_int_equal(pgc_fallocate(f, 0, INT64_MAX, 1), -EFBIG);
	assert_int_equal(pgc_fallocate(r, 0, 0, 1), -EBADF);
	assert_int_equal(pgc_fallocate(f, 3, 0, 1), 0);
	assert_int_equal(pgc_fadvise(f, 0, -1, POSIX_FADV_NORMAL), -EINVAL);
	assert_int_equal(pgc_fadvise(f, 0, 0, 99), -EINVAL);
	assert_int_equal(pgc_fadvise(f, 0, 0, POSIX_FADV_WILLNEED), 0);
	assert_int_equal(pgc_keep(r, 0, 1, true), -EBADF);
	assert_int_equal(pgc_keep(f, 0, 0, true), -EINVAL);
	assert_int_equal(pgc_keep(f, PAGE + 1, PAGE, true), 0);
	assert_int_equal(get(fake.last_off), PAGE);
	assert_int_equal(get(fake.last_len), 2 * PAGE);
	assert_int_equal(pgc_fstat(f, NULL), -EFAULT);
	assert_int_equal(pgc_fstat(f, &st), 0);
	assert_int_equal(st.st_size, 5000);
	assert_int_equal(st.st_ino, 6);
	assert_int_equal(st.st_mtim.tv_nsec, 8);
	assert_int_equal(pgc_fsync(NULL), -EBADF);
	assert_int_equal(pgc_close(NULL), -EBADF);
	assert_string_equal(pgc_version(), PGC_VERSION);
	pgc_close(f);
	pgc_close(r);
}

/* --- the connection --------------------------------------------------------------------------------------------- */

struct reader {
	struct pgc_file *f;
	pthread_t t;
	off_t off;
	ssize_t n;
	char b[32];
};

static void *reader_run(void *arg)
{
	struct reader *r = arg;

	r->n = pgc_pread(r->f, r->b, sizeof(r->b), r->off);
	return NULL;
}

static void readers_start(struct reader *r, int n, struct pgc_file *f)
{
	for (int i = 0; i < n; i++) {
		r[i] = (struct reader){ .f = f, .off = i * 37 };
		assert_int_equal(pthread_create(&r[i].t, NULL, reader_run, &r[i]), 0);
	}
}

static void readers_join(struct reader *r, int n)
{
	for (int i = 0; i < n; i++)
		pthread_join(r[i].t, NULL);
}

static void replies_out_of_order_reach_their_callers(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	struct reader r[24];

	for (int round = 0; round < 20; round++) {
		set(fake.hold, 24);
		readers_start(r, 24, f);
		readers_join(r, 24);
		for (int i = 0; i < 24; i++) {
			assert_int_equal(r[i].n, sizeof(r[i].b));
			for (size_t j = 0; j < sizeof(r[i].b); j++)
				assert_int_equal(r[i].b[j], byte_at((size_t)r[i].off + j));
		}
	}
	pgc_close(f);
}

static void no_more_requests_are_outstanding_than_allowed(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	struct reader r[80];

	set(fake.hold, HELD);
	readers_start(r, 80, f);
	assert_true(wait_for(&fake.held, PGC_REQUESTS_MAX));
	usleep(50000);
	assert_int_equal(get(fake.held), PGC_REQUESTS_MAX);
	set(fake.kill, 1);
	readers_join(r, 80);
	for (int i = 0; i < 80; i++)
		assert_int_equal(r[i].n, -ECONNRESET);
	pgc_close(f);
}

static void a_hang_up_ends_every_waiting_request(void **state)
{
	struct pgc_file *f = open_mem(O_RDONLY);
	struct reader r[8];
	char b;

	set(fake.hold, HELD);
	readers_start(r, 8, f);
	assert_true(wait_for(&fake.held, 8));
	set(fake.kill, 1);
	readers_join(r, 8);
	for (int i = 0; i < 8; i++)
		assert_int_equal(r[i].n, -ECONNRESET);
	assert_int_equal(pgc_pread(f, &b, 1, 0), -ECONNRESET);
	assert_int_equal(pgc_fsync(f), -ECONNRESET);
	assert_int_equal(pgc_close(f), 0);
}

static void a_malformed_reply_ends_the_connection(void **state)
{
	static const struct { int bad, result; } cases[] = {
		{ BAD_TAG, -EPROTO }, { BAD_TYPE, -EPROTO }, { BAD_SHORT, -EPROTO }, { BAD_STATUS, -EPROTO },
		{ BAD_FDS, -EPROTO }, { BAD_HANGUP, -ECONNRESET },
	};
	int fds = fd_count();

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pgc_file *f = open_mem(O_RDONLY);
		char b;

		set(fake.bad, cases[i].bad);
		assert_int_equal(pgc_pread(f, &b, 1, 0), cases[i].result);
		assert_int_equal(pgc_pread(f, &b, 1, 0), cases[i].result);
		pgc_close(f);
	}
	assert_true(wait_for(&fake.connections, 0));
	assert_int_equal(fd_count(), fds);
}

/* --- mappings --------------------------------------------------------------------------------------------------- */

#define assert_mmap_fails(f, addr, len, prot, flags, off, error) \
	do { \
		errno = 0; \
		assert_ptr_equal(pgc_mmap(f, addr, len, prot, flags, off), MAP_FAILED); \
		assert_int_equal(errno, error); \
	} while (0)

static void mmap_checks_its_arguments(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR), *r = open_mem(O_RDONLY), *w = open_mem(O_WRONLY);
	const int rw = PROT_READ | PROT_WRITE;

	assert_mmap_fails(NULL, NULL, PAGE, rw, MAP_SHARED, 0, EBADF);
	assert_mmap_fails(f, NULL, 0, rw, MAP_SHARED, 0, EINVAL);
	assert_mmap_fails(f, NULL, PAGE, rw, 0, 0, EINVAL);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_SHARED | MAP_PRIVATE, 0, EINVAL);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_SHARED_VALIDATE | 0x80000 /* MAP_SYNC */, 0, EOPNOTSUPP);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_SHARED, 100, EINVAL);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_SHARED, -(off_t)PAGE, EOVERFLOW);
	assert_mmap_fails(f, NULL, 2 * PAGE, rw, MAP_SHARED, INT64_MAX & ~(off_t)(PAGE - 1), EOVERFLOW);
	assert_mmap_fails(f, NULL, SIZE_MAX, rw, MAP_SHARED, 0, ENOMEM);
	assert_mmap_fails(f, NULL, SIZE_MAX / 4, rw, MAP_SHARED, 0, ENOMEM);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS, 0, EINVAL);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_SHARED | MAP_HUGETLB, 0, EINVAL);
	assert_mmap_fails(f, NULL, PAGE, rw, MAP_PRIVATE | MAP_GROWSDOWN, 0, EINVAL);
	assert_mmap_fails(r, NULL, PAGE, rw, MAP_SHARED, 0, EACCES);
	assert_mmap_fails(w, NULL, PAGE, PROT_READ, MAP_SHARED, 0, EACCES);
	assert_mmap_fails(w, NULL, PAGE, PROT_WRITE, MAP_PRIVATE, 0, EACCES);
	assert_mmap_fails(f, &fake, PAGE, rw, MAP_SHARED | MAP_FIXED, 0, EINVAL);
	assert_mmap_fails(f, (char *)&fake - (uintptr_t)&fake % PAGE, PAGE, rw, MAP_SHARED | MAP_FIXED_NOREPLACE, 0,
			  EEXIST);
	assert_int_equal(lib.n_map, 0);
	pgc_close(f);
	pgc_close(r);
	pgc_close(w);
}

static void mappings_show_the_file(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR), *r = open_mem(O_RDONLY);
	char *s = pgc_mmap(f, NULL, 20 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	char *p = pgc_mmap(f, NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, PAGE);
	char *o = pgc_mmap(r, NULL, 3 * PAGE + 1, PROT_READ, MAP_SHARED | MAP_POPULATE, PAGE);
	char b;

	assert_ptr_not_equal(s, MAP_FAILED);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_ptr_not_equal(o, MAP_FAILED);
	assert_int_equal(get(fake.seen[PGC_MSG_MAP]), 3);
	assert_int_equal(get(fake.seen[PGC_MSG_POPULATE]), 1);
	assert_int_equal(lib.n_map, 3);
	for (size_t i = 0; i < FILE_SIZE; i += 1000)
		assert_int_equal(s[i], byte_at(i));
	assert_int_equal(p[PAGE], byte_at(2 * PAGE));
	assert_int_equal(o[0], byte_at(PAGE));
	s[PAGE] = 'S';
	assert_int_equal(o[0], 'S');
	assert_int_equal(p[0], 'S');
	p[0] = 'P';
	assert_int_equal(s[PAGE], 'S');
	assert_int_equal(pread(fake.memfd, &b, 1, PAGE), 1);
	assert_int_equal(b, 'S');
	assert_int_equal(pgc_munmap(s, 20 * PAGE), 0);
	assert_int_equal(pgc_munmap(p, 2 * PAGE), 0);
	assert_int_equal(pgc_munmap(o, 4 * PAGE), 0);
	assert_int_equal(lib.n_map, 0);
	pgc_close(f);
	pgc_close(r);
}

static void map_fixed_replaces_what_was_there(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ, MAP_SHARED, 0);
	char *t = pgc_mmap(f, s + PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, 5 * PAGE);

	assert_ptr_equal(t, s + PAGE);
	assert_int_equal(lib.n_map, 3);
	assert_int_equal(s[PAGE], byte_at(5 * PAGE));
	assert_int_equal(s[2 * PAGE], byte_at(2 * PAGE));
	assert_int_equal(pgc_munmap(s, 4 * PAGE), 0);
	pgc_close(f);
}

static void a_mapping_refused_by_the_daemon_is_taken_away(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	void *p[MAPS];

	for (int i = 0; i < MAPS; i++)
		p[i] = pgc_mmap(f, NULL, PAGE, PROT_READ, MAP_SHARED, 2 * i * PAGE);
	assert_mmap_fails(f, NULL, PAGE, PROT_READ, MAP_SHARED, 0, ENOSPC);
	assert_int_equal(lib.n_map, MAPS);
	for (int i = 0; i < MAPS; i++)
		assert_int_equal(pgc_munmap(p[i], PAGE), 0);
	pgc_close(f);
}

static void a_buffer_in_an_untouched_mapping_works(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	assert_int_equal(pgc_pread(f, s + 2 * PAGE, 100, 5 * PAGE), 100);
	assert_int_equal(s[2 * PAGE + 1], byte_at(5 * PAGE + 1));
	assert_int_equal(pgc_pwrite(f, s + 6 * PAGE, 100, 7 * PAGE), 100);
	assert_int_equal(s[7 * PAGE + 2], byte_at(6 * PAGE + 2));
	pgc_munmap(s, 8 * PAGE);
	pgc_close(f);
}

static void msync_checks_and_asks_for_its_range(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	assert_int_equal(pgc_msync(s, PAGE, MS_SYNC | MS_ASYNC), -EINVAL);
	assert_int_equal(pgc_msync(s + 1, PAGE, MS_SYNC), -EINVAL);
	assert_int_equal(pgc_msync(s, 0, MS_SYNC), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 0);
	assert_int_equal(pgc_msync(s + PAGE, PAGE + 1, MS_SYNC), 0);
	assert_int_equal(get(fake.last_off), PAGE);
	assert_int_equal(get(fake.last_len), 2 * PAGE);
	assert_int_equal(pgc_msync(s, PAGE, MS_ASYNC), 0);
	assert_int_equal(get(fake.last_flags), PGC_SYNC_ASYNC);
	assert_int_equal(pgc_munmap(s + 3 * PAGE, PAGE), 0);
	assert_int_equal(pgc_msync(s, 8 * PAGE, MS_SYNC), -ENOMEM);
	assert_int_equal(get(fake.last_off), 4 * PAGE);
	assert_int_equal(get(fake.last_len), 4 * PAGE);
	set(fake.error, EIO);
	assert_int_equal(pgc_msync(s, PAGE, MS_SYNC), -EIO);
	set(fake.error, 0);
	pgc_munmap(s, 8 * PAGE);
	pgc_close(f);
}

static void msync_finds_a_mapping_that_was_moved(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	char *t = mremap(s, 4 * PAGE, 2 * 4 * PAGE, MREMAP_MAYMOVE);

	/* Whether it moved or grew in place: what the table never heard of is synced. */
	assert_ptr_not_equal(t, MAP_FAILED);
	assert_int_equal(pgc_msync(t + 6 * PAGE, PAGE, MS_SYNC), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 1);
	assert_int_equal(get(fake.last_off), 6 * PAGE);
	assert_int_equal(pgc_munmap(t, 8 * PAGE), 0);
	set(fake.kill, 1); /* it has heard of no event, so it waits for an unmap that it cannot know */
	pgc_close(f);
}

static void msync_of_a_private_mapping_asks_nothing(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR), *ro = open_mem(O_RDONLY);
	char *s = pgc_mmap(f, NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	char *t = pgc_mmap(ro, NULL, PAGE, PROT_READ, MAP_SHARED, 0);

	assert_int_equal(pgc_msync(s, PAGE, MS_SYNC), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 0);
	/* A shared one of a read-only handle is private underneath; others may have stored. */
	assert_int_equal(pgc_msync(t, PAGE, MS_SYNC), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 1);
	pgc_munmap(s, PAGE);
	pgc_munmap(t, PAGE);
	pgc_close(f);
	pgc_close(ro);
}

static void msync_joins_what_adjoins_in_the_file(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	/* Three mappings for the kernel. */
	assert_int_equal(mprotect(s + 2 * PAGE, PAGE, PROT_READ), 0);
	assert_int_equal(pgc_msync(s + PAGE, 6 * PAGE, MS_SYNC), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 1);
	assert_int_equal(get(fake.last_off), PAGE);
	assert_int_equal(get(fake.last_len), 6 * PAGE);
	assert_int_equal(pgc_munmap(s + 2 * PAGE, PAGE), 0);
	assert_int_equal(pgc_msync(s + PAGE, 6 * PAGE, MS_SYNC), -ENOMEM);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 3);
	pgc_munmap(s, 8 * PAGE);
	pgc_close(f);
}

/* An error is told once a handle, so it must not be some other one that hears of it. */
static void msync_asks_the_handle_that_mapped(void **state)
{
	struct pgc_file *f[3];
	char *s[3];

	for (int i = 0; i < 3; i++) {
		f[i] = open_mem(i == 1 ? O_RDONLY : O_RDWR);
		s[i] = pgc_mmap(f[i], NULL, PAGE, PROT_READ, MAP_SHARED, 0);
		assert_ptr_not_equal(s[i], MAP_FAILED);
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(pgc_msync(s[i], PAGE, MS_SYNC), 0);
		assert_int_equal(get(fake.last_handle), i + 1);
	}
	/* A closed one answers for its mapping as well. */
	assert_int_equal(pgc_close(f[0]), 0);
	assert_int_equal(pgc_msync(s[0], PAGE, MS_SYNC), 0);
	assert_int_equal(get(fake.last_handle), 1);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 4);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pgc_munmap(s[i], PAGE), 0);
	pgc_close(f[1]);
	pgc_close(f[2]);
}

static void msync_asks_another_handle_when_a_closed_one_hung_up(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR), *other = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	pgc_close(f);
	set(fake.bad, BAD_HANGUP);
	assert_int_equal(pgc_msync(s, PAGE, MS_SYNC), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_SYNC]), 2);
	assert_int_equal(get(fake.last_handle), 2);
	assert_int_equal(pgc_munmap(s, PAGE), 0);
	pgc_close(other);
}

static void msync_without_proc_syncs_what_the_table_names(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR), *ro = open_mem(O_RDONLY);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	char *private = pgc_mmap(f, NULL, PAGE, PROT_READ, MAP_PRIVATE, 0);
	char *t = pgc_mmap(ro, NULL, PAGE, PROT_READ, MAP_SHARED, 0);
	char *none = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct rlimit old, no_more;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	no_more = (struct rlimit){ 2, old.rlim_max }; /* the fake daemon polls two */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &no_more), 0);
	int shared = pgc_msync(s + PAGE, PAGE, MS_SYNC), handle = get(fake.last_handle);
	uint64_t off = get(fake.last_off), len = get(fake.last_len);
	int reader = pgc_msync(t, PAGE, MS_ASYNC), reader_handle = get(fake.last_handle);
	uint32_t flags = get(fake.last_flags);
	int of_private = pgc_msync(private, PAGE, MS_SYNC), unknown = pgc_msync(none, PAGE, MS_SYNC);
	int seen = get(fake.seen[PGC_MSG_SYNC]);
	set(fake.error, EIO);
	int failed = pgc_msync(s, PAGE, MS_SYNC);
	set(fake.error, 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);

	assert_int_equal(shared, 0);
	assert_int_equal(handle, 1);
	assert_int_equal(off, 0);
	assert_int_equal(len, 0);
	assert_int_equal(reader, 0);
	assert_int_equal(reader_handle, 2);
	assert_int_equal(flags, PGC_SYNC_ASYNC);
	assert_int_equal(of_private, 0);
	assert_int_equal(unknown, -EMFILE);
	assert_int_equal(seen, 2);
	assert_int_equal(failed, -EIO);
	pgc_munmap(s, 4 * PAGE);
	pgc_munmap(private, PAGE);
	pgc_munmap(t, PAGE);
	munmap(none, PAGE);
	pgc_close(f);
	pgc_close(ro);
}

static void madvise_goes_to_the_daemon_or_the_kernel(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	assert_int_equal(pgc_madvise(s, PAGE, 9999), -EINVAL);
	assert_int_equal(pgc_madvise(s + 1, PAGE, MADV_RANDOM), -EINVAL);
	assert_int_equal(pgc_madvise(s, PAGE, MADV_RANDOM), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_MADVISE]), 1);
	assert_int_equal(get(fake.last_flags), MADV_RANDOM);
	assert_int_equal(pgc_madvise(s, 4 * PAGE, 22 /* POPULATE_READ */), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_POPULATE]), 1);
	assert_int_equal(pgc_madvise(s, PAGE, MADV_DONTNEED), 0);
	assert_int_equal(s[1], byte_at(1));
	assert_int_equal(pgc_madvise(s + PAGE, PAGE, MADV_DONTFORK), 0);
	assert_int_equal(lib.n_map, 3);
	assert_true(lib.map[1].dontfork);
	pgc_munmap(s, 4 * PAGE);
	pgc_close(f);
}

static void a_mapping_outlives_its_handle(void **state)
{
	int fds = fd_count();
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	assert_int_equal(pgc_close(f), 0);
	assert_non_null(lib.files);
	assert_int_equal(s[2 * PAGE], byte_at(2 * PAGE));
	assert_int_equal(pgc_msync(s, PAGE, MS_SYNC), 0);
	assert_int_equal(pgc_madvise(s, PAGE, MADV_RANDOM), 0);
	assert_int_equal(get(fake.seen[PGC_MSG_MADVISE]), 0);
	assert_int_equal(pgc_munmap(s, 4 * PAGE), 0);
	assert_null(lib.files);
	assert_true(wait_for(&fake.connections, 0));
	assert_int_equal(fd_count(), fds);
}

static void plain_munmap_of_a_closed_handle_is_noticed(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ, MAP_SHARED, 0);

	pgc_close(f);
	assert_int_equal(munmap(s, 4 * PAGE), 0);
	assert_true(wait_for(&fake.connections, 0));
	f = open_mem(O_RDONLY);
	assert_ptr_equal(lib.files, f);
	assert_null(f->next);
	pgc_close(f);
}

static void a_dead_daemon_leaves_mappings_registered(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 4 * PAGE, PROT_READ, MAP_SHARED, 0);
	int uffd = f->uffd;

	set(fake.kill, 1);
	assert_true(wait_for(&fake.connections, 0));
	pgc_close(f);
	file_reap();
	/* The last descriptor of the userfaultfd: were it closed, holes would read as zeros. */
	assert_true(fcntl(uffd, F_GETFD) >= 0);
	assert_int_equal(pgc_munmap(s, 4 * PAGE), 0);
	assert_null(lib.files);
	assert_true(fcntl(uffd, F_GETFD) < 0);
}

/* --- the table, /proc/self/maps --------------------------------------------------------------------------------- */

static void put(struct pgc_file *f, uintptr_t page, uintptr_t pages, uint64_t off)
{
	struct mapping m = { .addr = page * PAGE, .len = pages * PAGE, .off = off * PAGE, .f = f };

	assert_int_equal(table_reserve(2), 0);
	table_insert(&m);
}

static void assert_entry(size_t i, uintptr_t page, uintptr_t pages, uint64_t off)
{
	assert_true(i < lib.n_map);
	assert_int_equal(lib.map[i].addr, page * PAGE);
	assert_int_equal(lib.map[i].len, pages * PAGE);
	assert_int_equal(lib.map[i].off, off * PAGE);
}

static void the_table_stays_sorted_and_cuts_what_is_replaced(void **state)
{
	struct pgc_file a = { 0 }, b = { 0 };
	struct mapping m;

	put(&a, 100, 10, 0);
	put(&a, 300, 10, 50);
	put(&b, 200, 10, 20);
	assert_entry(0, 100, 10, 0);
	assert_entry(1, 200, 10, 20);
	assert_entry(2, 300, 10, 50);
	put(&b, 104, 2, 7);        /* in the middle */
	assert_int_equal(lib.n_map, 5);
	assert_entry(0, 100, 4, 0);
	assert_entry(1, 104, 2, 7);
	assert_entry(2, 106, 4, 6);
	assert_int_equal(a.maps, 3);
	assert_int_equal(b.maps, 2);
	put(&a, 108, 94, 0);       /* the end of one and the beginning of another */
	assert_entry(2, 106, 2, 6);
	assert_entry(3, 108, 94, 0);
	assert_entry(4, 202, 8, 22);
	assert_true(table_next(109 * PAGE, 110 * PAGE, &m));
	assert_int_equal(m.addr, 109 * PAGE);
	assert_int_equal(m.len, PAGE);
	assert_int_equal(m.off, PAGE);
	assert_int_equal(a.busy, 1);
	file_put(&a);
	assert_false(table_next(210 * PAGE, 300 * PAGE, &m));
	assert_int_equal(table_reserve(1), 0);
	table_remove(0, UINTPTR_MAX);
	assert_int_equal(lib.n_map, 0);
	assert_int_equal(a.maps, 0);
	assert_int_equal(b.maps, 0);
}

static void resync_follows_the_address_space(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, PAGE);

	assert_int_equal(munmap(s + 2 * PAGE, PAGE), 0);
	assert_int_equal(mprotect(s, PAGE, PROT_READ), 0);
	pthread_mutex_lock(&lib.lock);
	assert_true(table_resync());
	pthread_mutex_unlock(&lib.lock);
	assert_int_equal(lib.n_map, 3);
	assert_entry(0, (uintptr_t)s / PAGE, 1, 1);
	assert_entry(1, (uintptr_t)s / PAGE + 1, 1, 2);
	assert_entry(2, (uintptr_t)s / PAGE + 3, 5, 4);
	assert_int_equal(lib.map[0].prot, PROT_READ);
	assert_true(lib.map[0].tracked);
	assert_int_equal(f->maps, 3);
	pgc_munmap(s, 8 * PAGE);
	pthread_mutex_lock(&lib.lock);
	assert_true(table_resync());
	pthread_mutex_unlock(&lib.lock);
	assert_int_equal(lib.n_map, 0);
	set(fake.kill, 1); /* it does not split what it knows */
	pgc_close(f);
}

static void a_line_of_maps_is_parsed(void **state)
{
	struct vma v;

	assert_true(vma_parse("7f1c00000000-7f1c00001000 r-xp 00002000 fd:01 4026531840    /usr/lib/x", &v));
	assert_int_equal(v.start, 0x7f1c00000000);
	assert_int_equal(v.end, 0x7f1c00001000);
	assert_int_equal(v.prot, PROT_READ | PROT_EXEC);
	assert_false(v.shared);
	assert_int_equal(v.off, 0x2000);
	assert_int_equal(v.ino, 4026531840);
	assert_true(vma_parse("1000-2000 -w-s 0 00:01 7", &v));
	assert_true(v.shared);
	assert_int_equal(v.prot, PROT_WRITE);
	assert_false(vma_parse("", &v));
	assert_false(vma_parse("1000-2000 rw", &v));
	assert_false(vma_parse("1000-fffffffffffffffff rw-p 0 0:0 0", &v));
	assert_false(vma_parse("x000-2000 rw-p 0 0:0 0", &v));
}

/* --- fork ------------------------------------------------------------------------------------------------------- */

static int run_child(int (*f)(void *), void *arg)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		alarm(20);
		_exit(f(arg));
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

struct family {
	struct pgc_file *f, *w;
	char *shared, *private, *moved;
};

static int child_uses_all(void *arg)
{
	struct family *a = arg;
	char b[10];

	if (a->shared[3 * PAGE] != byte_at(3 * PAGE))
		return 1;
	a->shared[3 * PAGE] = 'C';
	if (a->private[0] != 'P' || a->private[PAGE] != byte_at(PAGE))
		return 2;
	a->private[0] = 'Q';
	if (a->moved[5 * PAGE] != byte_at(5 * PAGE))
		return 3;
	if (pgc_pread(a->f, b, 10, 7 * PAGE) != 10 || b[1] != byte_at(7 * PAGE + 1))
		return 4;
	if (pgc_pwrite(a->w, "W", 1, 9 * PAGE) != 1)
		return 5;
	if (pgc_msync(a->shared, PAGE, MS_SYNC) != 0)
		return 6;
	char *p = pgc_mmap(a->f, NULL, PAGE, PROT_READ, MAP_SHARED, 4 * PAGE);
	if (p == MAP_FAILED || p[0] != byte_at(4 * PAGE) || pgc_munmap(p, PAGE) != 0)
		return 7;
	if (pgc_close(a->f) != 0 || a->shared[6 * PAGE] != byte_at(6 * PAGE))
		return 8;
	return 0;
}

static void a_child_goes_on_with_handles_and_mappings(void **state)
{
	struct family a = { open_mem(O_RDWR), open_mem(O_WRONLY) };
	char *reserved = mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	a.shared = pgc_mmap(a.f, NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	a.private = pgc_mmap(a.f, NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	a.moved = pgc_mmap(a.f, NULL, 8 * PAGE, PROT_READ, MAP_SHARED, 0);
	a.private[0] = 'P';
	assert_int_equal(pgc_pwrite(a.w, "x", 1, 0), 1);
	/* Behind the library's back; the daemon of this test does not care. */
	a.moved = mremap(a.moved, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, reserved);
	assert_ptr_equal(a.moved, reserved);
	assert_int_equal(run_child(child_uses_all, &a), 0);
	assert_int_equal(a.shared[3 * PAGE], 'C');
	assert_int_equal(a.private[0], 'P');
	assert_int_equal(a.shared[9 * PAGE - 2 * PAGE], byte_at(7 * PAGE));
	assert_int_equal(pgc_pread(a.f, a.private, 1, 9 * PAGE), 1);
	assert_int_equal(a.private[0], 'W');
	assert_true(get(fake.seen[PGC_MSG_CLONE]) == 1);
	assert_true(get(fake.seen[PGC_MSG_OPEN]) == 3);
	pgc_munmap(a.shared, 8 * PAGE);
	pgc_munmap(a.private, 2 * PAGE);
	pgc_munmap(a.moved, 8 * PAGE);
	set(fake.kill, 1); /* it knows the moved mapping by its old address */
	pgc_close(a.f);
	pgc_close(a.w);
}

static int child_touches(void *arg)
{
	char *p = arg;

	/* Inaccessible: the kernel refuses to read from it. */
	int fd[2];

	if (pipe(fd) < 0)
		return 1;
	return write(fd[1], p, 1) < 0 && errno == EFAULT ? 0 : 2;
}

static void without_a_daemon_a_childs_mappings_are_inaccessible(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	char *s = pgc_mmap(f, NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	char *p = pgc_mmap(f, NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, PAGE);

	p[0] = 'P';
	setenv("PAGECACHED_SOCKET", "/nonexistent/socket", 1);
	int a = run_child(child_touches, s), b = run_child(child_touches, p);
	setenv("PAGECACHED_SOCKET", fake.path, 1);
	assert_int_equal(a, 0);
	assert_int_equal(b, 0);
	assert_int_equal(p[0], 'P');
	pgc_munmap(s, PAGE);
	pgc_munmap(p, PAGE);
	pgc_close(f);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(open_refuses_bad_arguments),
		T(fdopen_refuses_what_is_no_file),
		T(a_uri_is_told_from_a_path),
		T(open_passes_descriptors_of_a_path_and_none_of_a_uri),
		T(open_with_trunc_truncates_through_the_daemon),
		T(open_without_a_daemon_is_refused),
		T(another_version_is_refused),
		T(the_socket_is_named_by_the_environment),
		T(read_checks_its_arguments),
		T(read_gives_the_bytes_and_stops_at_the_end),
		T(vectors_are_read_and_written_in_order),
		T(a_read_that_lost_its_pages_is_repeated),
		T(a_partly_bad_buffer_gives_a_partial_count),
		T(a_long_write_goes_in_steps),
		T(append_says_where_it_went),
		T(a_failed_write_is_reported),
		T(o_dsync_syncs_each_write),
		T(a_write_out_names_its_range_and_leaves_the_store_alone), T(seek_asks_the_daemon_for_data_and_holes),
		T(seeks_that_make_no_sense_are_not_asked), T(a_small_file_size_limit_refuses_without_a_signal),
		T(size_and_sync_calls_check_their_arguments),
		T(replies_out_of_order_reach_their_callers),
		T(no_more_requests_are_outstanding_than_allowed),
		T(a_hang_up_ends_every_waiting_request),
		T(a_malformed_reply_ends_the_connection),
		T(mmap_checks_its_arguments),
		T(mappings_show_the_file),
		T(map_fixed_replaces_what_was_there),
		T(a_mapping_refused_by_the_daemon_is_taken_away),
		T(a_buffer_in_an_untouched_mapping_works),
		T(msync_checks_and_asks_for_its_range),
		T(msync_finds_a_mapping_that_was_moved),
		T(msync_of_a_private_mapping_asks_nothing),
		T(msync_joins_what_adjoins_in_the_file),
		T(msync_asks_the_handle_that_mapped),
		T(msync_asks_another_handle_when_a_closed_one_hung_up),
		T(msync_without_proc_syncs_what_the_table_names),
		T(madvise_goes_to_the_daemon_or_the_kernel),
		T(a_mapping_outlives_its_handle),
		T(plain_munmap_of_a_closed_handle_is_noticed),
		T(a_dead_daemon_leaves_mappings_registered),
		T(the_table_stays_sorted_and_cuts_what_is_replaced),
		T(resync_follows_the_address_space),
		T(a_line_of_maps_is_parsed),
		T(a_child_goes_on_with_handles_and_mappings),
		T(without_a_daemon_a_childs_mappings_are_inaccessible),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
