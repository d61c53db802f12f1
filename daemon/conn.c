/* SPDX-License-Identifier: Apache-2.0 */
/* Sending and receiving of messages. See conn.h. May call ring. */
#include "daemon/conn.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define RECEIVED_MAX 32u             /* descriptors */

void conn_close_fd(struct ring *ring, int fd)
{
	if (fd < 0)
		return;
	if (ring)
		ring_close_fd(ring, fd);
	else
		close(fd);
}

static void close_all(struct ring *ring, struct msghdr *h)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			conn_close_fd(ring, fd);
		}
	}
}

int conn_receive(struct ring *ring, int sock, struct pgc_msg *ret, int *ret_fds, unsigned *ret_n_fds, const char **ret_reason)
{
	/* One byte more than a message, so that a longer one shows; room for more descriptors than are allowed, so that they can be closed. */
	struct { struct pgc_msg msg; char more; } buf;
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * RECEIVED_MAX)]; } control;
	struct iovec iov = { &buf, sizeof(buf.msg) + 1 };
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control),
	};
	bool truncated = false, exhausted = true;
	unsigned n_fds = 0;
	ssize_t n;

	n = recvmsg(sock, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	if (n == 0 && h.msg_controllen == 0)
		return 0;
	for (int i = 0; i < PGC_FDS_MAX; i++)
		ret_fds[i] = -1;
	*ret_reason = NULL;
	if (n != sizeof(buf.msg) || (h.msg_flags & MSG_TRUNC))
		*ret_reason = "a message of a wrong size";
	else if (h.msg_flags & MSG_CTRUNC)
		truncated = true;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c && !*ret_reason; c = CMSG_NXTHDR(&h, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		/* There was room here for more: so there was none in the process, or system. */
		exhausted &= count < RECEIVED_MAX;
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || n_fds > 0)
			*ret_reason = "unexpected ancillary data";
		else if (count > PGC_FDS_MAX && !(truncated && count < RECEIVED_MAX))
			*ret_reason = "too many descriptors";
		else
			n_fds = (unsigned)count;
	}
	if (truncated && !exhausted)
		*ret_reason = "too many descriptors";
	if (*ret_reason || truncated) {
		close_all(ring, &h);
		if (*ret_reason)
			return -EPROTO;
		memcpy(ret, &buf.msg, sizeof(*ret));
		return -EMFILE;
	}
	if (n_fds)
		memcpy(ret_fds, CMSG_DATA(CMSG_FIRSTHDR(&h)), n_fds * sizeof(int));
	memcpy(ret, &buf.msg, sizeof(*ret));
	*ret_n_fds = n_fds;
	return 1;
}

int conn_send(int sock, const struct pgc_msg *msg, const int *fds, unsigned n_fds)
{
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * PGC_FDS_MAX)]; } control = { 0 };
	struct iovec iov = { (void *)msg, sizeof(*msg) };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

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
	return sendmsg(sock, &h, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

void conn_reply_init(struct pgc_msg *reply, const struct pgc_msg *request, int error)
{
	memset(reply, 0, sizeof(*reply));
	reply->type = request->type | PGC_MSG_REPLY;
	reply->tag = request->tag;
	reply->status = (uint32_t)(error < 0 ? -error : error);
}

bool conn_body_is_clean(const struct pgc_msg *msg, size_t used)
{
	for (size_t i = used; i < sizeof(msg->bytes); i++)
		if (msg->bytes[i])
			return false;
	return true;
}
