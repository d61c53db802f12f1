// SPDX-License-Identifier: Apache-2.0
/*
 * The control connection: one request at a time, blocking, no timeout, since a sync takes as long as its store.
 *
 * The daemon's answers are checked before they are believed: exactly PGC_MSG_SIZE bytes, the type that was asked
 * for, the same tag. Descriptors are never asked for; what comes beside a message is dropped by the kernel.
 */
#include "tools/ctl_conn.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CTL_SYSTEM_SOCKET "/run/pagecached/socket"

static int conn_try(struct ctl_conn *c, const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	c->path = path;
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path) + 1);

	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int r = -errno;
		close(fd);
		return r;
	}
	c->fd = fd;
	return 0;
}

/* The user's own daemon is looked for only where the system's does not answer. */
static int conn_search(struct ctl_conn *c)
{
	const char *env = getenv("PAGECACHED_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");

	if (env && *env)
		return conn_try(c, env);
	int r = conn_try(c, CTL_SYSTEM_SOCKET);
	if (r == 0 || !runtime || !*runtime)
		return r;
	if ((size_t)snprintf(c->found, sizeof(c->found), "%s/pagecached/socket", runtime) >= sizeof(c->found))
		return -ENAMETOOLONG;
	return conn_try(c, c->found);
}

static int conn_send(struct ctl_conn *c, const struct pgc_msg *msg)
{
	ssize_t n;

	do
		n = send(c->fd, msg, sizeof(*msg), MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EPIPE ? -ECONNRESET : -errno;
	return 0;
}

static int conn_receive(struct ctl_conn *c, uint32_t type, uint64_t tag, struct pgc_msg *ret)
{
	struct iovec iov = { .iov_base = ret, .iov_len = sizeof(*ret) };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	do
		n = recvmsg(c->fd, &hdr, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n == 0)
		return -ECONNRESET;
	if (n != PGC_MSG_SIZE || (hdr.msg_flags & MSG_TRUNC) || ret->type != (type | PGC_MSG_REPLY) || ret->tag != tag)
		return -EBADMSG;
	if (ret->status > 4095)
		return -EBADMSG;
	return -(int)ret->status;
}

int ctl_request(struct ctl_conn *c, struct pgc_msg *msg)
{
	uint32_t type = msg->type;
	uint64_t tag = msg->tag;

	int r = conn_send(c, msg);
	if (r < 0)
		return r;
	return conn_receive(c, type, tag, msg);
}

int ctl_list(struct ctl_conn *c, uint32_t type, int (*entry)(void *arg, const struct pgc_msg *reply), void *arg)
{
	struct pgc_msg request = { .type = type, .tag = type }, reply;

	int r = conn_send(c, &request);
	if (r < 0)
		return r;
	for (;;) {
		uint32_t more;
		bool row;

		r = conn_receive(c, type, request.tag, &reply);
		if (r < 0)
			return r;
		/* All kinds of entry start with `more`. The last reply may be one without an entry. */
		more = reply.ctl_file_reply.more;
		switch (type) {
		case PGC_CTL_CGROUPS:
			row = reply.ctl_cgroup_reply.id || reply.ctl_cgroup_reply.is_user;
			break;
		case PGC_CTL_MAPPINGS:
			row = reply.ctl_mapping_reply.file;
			break;
		case PGC_CTL_PINS:
			row = reply.ctl_pin_reply.file;
			break;
		default:
			row = reply.ctl_file_reply.file;
		}
		r = row ? entry(arg, &reply) : 0;
		if (r || !more)
			return r;
	}
}

int ctl_connect(struct ctl_conn *c, const char *path)
{
	struct pgc_msg msg = {
		.type = PGC_MSG_HELLO,
		.hello = { .magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .role = PGC_ROLE_CONTROL },
	};

	*c = (struct ctl_conn){ .fd = -1 };
	int r = path ? conn_try(c, path) : conn_search(c);
	if (r < 0)
		return r;

	r = ctl_request(c, &msg);
	if (r == 0 && (msg.hello_reply.magic != PGC_WIRE_MAGIC || msg.hello_reply.version != PGC_WIRE_VERSION))
		r = -EPROTO;
	if (r < 0) {
		ctl_disconnect(c);
		return r;
	}
	c->hello = msg.hello_reply;
	c->hello.daemon_version[sizeof(c->hello.daemon_version) - 1] = 0;
	return 0;
}

void ctl_disconnect(struct ctl_conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}
