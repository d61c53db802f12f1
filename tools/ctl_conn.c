// SPDX-License-Identifier: Apache-2.0
/*
 * The control connection: one request at a time, blocking, no timeout, since a sync takes as long as its store.
 *
 * The daemon may die with a request. Where the next one has its socket (from a keeper or the service manager) the request is made once more, to that one: all of
 * them may be made twice. Where nobody listens any more, or one daemon after the other dies of it, the caller hears -ECONNRESET.
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
#define DAEMONS_MAX 10             /* that may die while one request is made */

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

static int hello(struct ctl_conn *c)
{
	struct pgc_msg msg = {
		.type = PGC_MSG_HELLO,
		.hello = { .magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .role = PGC_ROLE_CONTROL },
	};
	int r = conn_send(c, &msg);

	if (r == 0)
		r = conn_receive(c, msg.type, msg.tag, &msg);
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

int ctl_connect(struct ctl_conn *c, const char *path)
{
	int r;

	*c = (struct ctl_conn){ .fd = -1 };
	for (unsigned i = 0; i < DAEMONS_MAX; i++) {
		r = path ? conn_try(c, path) : conn_search(c);
		if (r == 0)
			r = hello(c);
		if (r != -ECONNRESET)
			break;
	}
	return r;
}

/* After a hang-up: whether there is another daemon. */
static bool reconnect(struct ctl_conn *c)
{
	ctl_disconnect(c);
	return conn_try(c, c->path) == 0 && hello(c) == 0;
}

/* One exchange, or a list of replies, which `receive` takes. */
static int exchange(struct ctl_conn *c, const struct pgc_msg *request, int (*receive)(struct ctl_conn *c, const struct pgc_msg *request, void *arg), void *arg)
{
	int r = -ECONNRESET;

	for (unsigned i = 0; i < DAEMONS_MAX && r == -ECONNRESET; i++) {
		if (i > 0 && !reconnect(c))
			break;
		r = conn_send(c, request);
		if (r == 0)
			r = receive(c, request, arg);
	}
	return r;
}

static int receive_reply(struct ctl_conn *c, const struct pgc_msg *request, void *arg)
{
	return conn_receive(c, request->type, request->tag, arg);
}

int ctl_request(struct ctl_conn *c, struct pgc_msg *msg)
{
	struct pgc_msg request = *msg;

	return exchange(c, &request, receive_reply, msg);
}

struct rows {
	struct pgc_msg *mem;
	size_t n, allocated;
};

static int add_row(struct rows *rows, const struct pgc_msg *row)
{
	if (rows->n == rows->allocated) {
		size_t allocated = rows->allocated ? rows->allocated * 2 : 64;
		struct pgc_msg *mem = reallocarray(rows->mem, allocated, sizeof(*mem));

		if (!mem)
			return -ENOMEM;
		rows->mem = mem;
		rows->allocated = allocated;
	}
	rows->mem[rows->n++] = *row;
	return 0;
}

static bool is_row(uint32_t type, const struct pgc_msg *reply)
{
	switch (type) {
	case PGC_CTL_CGROUPS:
		return reply->ctl_cgroup_reply.id || reply->ctl_cgroup_reply.is_user;
	case PGC_CTL_MAPPINGS:
		return reply->ctl_mapping_reply.file;
	case PGC_CTL_PINS:
		return reply->ctl_pin_reply.file;
	case PGC_CTL_CHECK:
		return true;
	default:
		return reply->ctl_file_reply.file;
	}
}

/* All of a list, from its beginning. */
static int receive_list(struct ctl_conn *c, const struct pgc_msg *request, void *arg)
{
	struct rows *rows = arg;
	struct pgc_msg reply;
	int r;

	rows->n = 0;
	do {
		r = conn_receive(c, request->type, request->tag, &reply);
		/* The last reply may be one without an entry. */
		if (r == 0 && is_row(request->type, &reply))
			r = add_row(rows, &reply);
	} while (r == 0 && reply.ctl_file_reply.more); /* all kinds of entry start with `more` */
	return r;
}

static int list(struct ctl_conn *c, const struct pgc_msg *request, int (*entry)(void *arg, const struct pgc_msg *reply), void *arg)
{
	struct rows rows = { 0 };
	int r = exchange(c, request, receive_list, &rows);

	for (size_t i = 0; i < rows.n && r == 0; i++)
		r = entry(arg, &rows.mem[i]);
	free(rows.mem);
	return r;
}

int ctl_list(struct ctl_conn *c, uint32_t type, int (*entry)(void *arg, const struct pgc_msg *reply), void *arg)
{
	struct pgc_msg request = { .type = type, .tag = type };

	return list(c, &request, entry, arg);
}

int ctl_list_check(struct ctl_conn *c, const struct pgc_ctl_check *check, int (*entry)(void *arg, const struct pgc_msg *reply), void *arg)
{
	struct pgc_msg request = { .type = PGC_CTL_CHECK, .tag = PGC_CTL_CHECK, .ctl_check = *check };

	return list(c, &request, entry, arg);
}

void ctl_disconnect(struct ctl_conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}
