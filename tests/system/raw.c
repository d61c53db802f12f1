/* SPDX-License-Identifier: Apache-2.0 */
/* See raw.h. */
#include "raw.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

int raw_socket(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	strcpy(a.sun_path, env.socket);
	CHECK(connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	return fd;
}

/* Any bytes with any number of descriptors. Returns -errno. */
int send_bytes(int sock, const void *bytes, size_t n, const int *fds, unsigned n_fds)
{
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * 256)]; } control = {0};
	struct iovec iov = {(void *)bytes, n};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n_fds) {
		struct cmsghdr *c;

		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	return sendmsg(sock, &h, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

void send_msg(int sock, const struct pgc_msg *m, const int *fds, unsigned n_fds)
{
	CHECK_EQ(send_bytes(sock, m, sizeof(*m), fds, n_fds), 0);
}

/* One message; false: the daemon hung up. Nothing at all is a failure. */
bool recv_msg(int sock, struct pgc_msg *m, int fds[3])
{
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * 3)]; } control;
	struct iovec iov = {m, sizeof(*m)};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct pollfd p = {.fd = sock, .events = POLLIN};
	struct cmsghdr *c;
	ssize_t n;

	if (poll(&p, 1, 10000) <= 0)
		FAIL("neither an answer nor a hang-up");
	n = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return false;
	CHECK_EQ(n, PGC_MSG_SIZE);
	for (int i = 0; fds && i < 3; i++)
		fds[i] = -1;
	c = CMSG_FIRSTHDR(&h);
	if (c && fds)
		memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	return true;
}

struct pgc_msg hello(uint32_t role)
{
	return (struct pgc_msg){.type = PGC_MSG_HELLO, .tag = 1,
		.hello = {.magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .role = role}};
}

void raw_hello(struct raw *r, uint32_t role)
{
	struct pgc_msg m = hello(role);

	*r = (struct raw){.sock = raw_socket(), .uffd = -1, .control = -1, .memfd = -1};
	send_msg(r->sock, &m, NULL, 0);
	CHECK(recv_msg(r->sock, &m, NULL));
	CHECK_EQ(m.type, PGC_MSG_HELLO | PGC_MSG_REPLY);
	CHECK_EQ(m.status, 0);
}

int raw_uffd(int flags)
{
	int fd = (int)syscall(SYS_userfaultfd, flags | O_CLOEXEC | UFFD_USER_MODE_ONLY);

	CHECK(fd >= 0);
	return fd;
}

void raw_close(struct raw *r)
{
	if (r->map)
		munmap(r->map, r->map_len);
	for (int *fd = (int[]){r->sock, r->uffd, r->control, r->memfd}, i = 0; i < 4; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	*r = (struct raw){.sock = -1, .uffd = -1, .control = -1, .memfd = -1};
}

/* Sends OPEN for a local path (descriptor `fd`) or for a URI. */
void raw_send_open(struct raw *r, int fd, const char *uri, uint32_t flags)
{
	struct pgc_msg m = {.type = PGC_MSG_OPEN, .tag = 2, .open = {.flags = flags}};

	if (uri)
		strcpy(m.open.uri, uri);
	r->uffd = raw_uffd(O_NONBLOCK);
	send_msg(r->sock, &m, (int[]){r->uffd, fd}, uri ? 1 : 2);
}

void raw_finish_open(struct raw *r)
{
	struct pgc_msg m;
	int fds[3];

	CHECK(recv_msg(r->sock, &m, fds));
	CHECK_EQ(m.type, PGC_MSG_OPEN | PGC_MSG_REPLY);
	CHECK_EQ(m.status, 0);
	r->control = fds[0];
	r->memfd = fds[1];
	r->reply = m.open_reply;
}

void raw_open(struct raw *r, const char *name, int flags)
{
	bool uri = strncmp(name, "mem:", 4) == 0;
	int fd = uri ? -1 : open(name, flags | O_CLOEXEC);

	raw_hello(r, PGC_ROLE_CLIENT);
	CHECK(uri || fd >= 0);
	raw_send_open(r, fd, uri ? name : NULL, (uint32_t)flags);
	if (fd >= 0)
		close(fd);
	raw_finish_open(r);
}

/* A request and its reply: the status, or -1 when the daemon hung up. */
int raw_call(struct raw *r, struct pgc_msg *m, const int *fds, unsigned n_fds)
{
	uint32_t type = m->type;

	m->tag = 77;
	if (send_bytes(r->sock, m, sizeof(*m), fds, n_fds) < 0)
		return -1;
	if (!recv_msg(r->sock, m, NULL))
		return -1;
	CHECK_EQ(m->type, type | PGC_MSG_REPLY);
	CHECK_EQ(m->tag, 77);
	return (int)m->status;
}

int raw_register(int uffd, void *addr, size_t len, uint64_t mode)
{
	struct uffdio_register reg = {.range = {(uintptr_t)addr, len}, .mode = mode};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

void raw_mmap(struct raw *r, size_t pages)
{
	r->map_len = pages * PAGE;
	r->map = mmap(NULL, r->map_len, PROT_READ | PROT_WRITE, MAP_SHARED, r->memfd, 0);
	CHECK(r->map != MAP_FAILED);
}

struct pgc_msg map_msg(const void *addr, size_t len, uint64_t off)
{
	return (struct pgc_msg){.type = PGC_MSG_MAP, .tag = 3,
		.map = {.addr = (uintptr_t)addr, .len = len, .off = off, .flags = PGC_MAP_SHARED, .prot = PROT_READ | PROT_WRITE}};
}

void raw_map(struct raw *r, size_t pages)
{
	struct pgc_msg m;

	raw_mmap(r, pages);
	CHECK_EQ(raw_register(r->uffd, r->map, r->map_len, MODES_SHARED), 0);
	m = map_msg(r->map, r->map_len, 0);
	CHECK_EQ(raw_call(r, &m, NULL, 0), 0);
}

/* The daemon ends the connection; a reply before that must be an error. */
void expect_hangup(struct raw *r)
{
	struct pgc_msg m;

	while (recv_msg(r->sock, &m, NULL))
		if (m.status == 0)
			FAIL("a bad message was answered with success");
}

/* An error, or the end of the connection. */
void expect_refused(int status)
{
	if (status == 0)
		FAIL("the request was granted");
}

int sealed_memfd(size_t size, int seals)
{
	int fd = memfd_create("xfer", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	CHECK(!seals || fcntl(fd, F_ADD_SEALS, seals) == 0);
	return fd;
}
