/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper process and the way to it: a socket pair, one message a change, a descriptor beside it. Messages may be sent from any
 * thread; each is one sendmsg. The process itself is single-threaded, opens nothing, and may block.
 */
#include "daemon/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/uffd.h"
#include "daemon/util/util.h"

#define CHECK_MS 1000

struct keeper_message {
	uint64_t id;
	uint64_t addr;             /* some address that was mapped: to ask whether the child is still there */
	uint64_t hold;             /* 1 with a descriptor, 0: drop */
};

struct held {
	uint64_t id, addr;
	int fd;
};

static int daemon_end = -1;
static pid_t keeper_pid;

/* --- the process --- */

static struct held *table;
static size_t n_held, room;

static void hold(const struct keeper_message *m, int fd)
{
	if (n_held == room) {
		struct held *larger = reallocarray(table, room ? room * 2 : 64, sizeof(*table));

		if (!larger)
			return; /* kept open all the same, till the end of the process */
		table = larger;
		room = room ? room * 2 : 64;
	}
	table[n_held++] = (struct held){ m->id, m->addr, fd };
}

static void drop(uint64_t id)
{
	for (size_t i = 0; i < n_held; i++)
		if (table[i].id == id) {
			close(table[i].fd);
			table[i] = table[--n_held];
			return;
		}
}

/* One message; false at the end of the daemon. */
static bool receive(int sock)
{
	struct keeper_message m;
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int))]; } control;
	struct iovec iov = { &m, sizeof(m) };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);
	int fd;

	if (n < 0)
		return errno == EINTR || errno == EMFILE;
	if (n != sizeof(m))
		return false;
	if (!m.hold) {
		drop(m.id);
	} else if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int))) {
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
		hold(&m, fd);
	}
	return true;
}

static void keep(int sock)
{
	int null = open("/dev/null", O_RDWR);

	prctl(PR_SET_NAME, "pgc-keeper");
	signal(SIGTERM, SIG_IGN); /* it ends when nobody needs it any more */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	/* Nothing of the daemon's may stay open here: its socket and its lock would seem to live on. */
	dup2(sock, 3);
	close_range(4, ~0u, 0);
	while (receive(3))
		continue;
	close(3);
	while (n_held > 0) {
		for (size_t i = n_held; i-- > 0;)
			if (!uffd_alive(table[i].fd, table[i].addr)) {
				close(table[i].fd);
				table[i] = table[--n_held];
			}
		if (n_held > 0)
			poll(NULL, 0, CHECK_MS);
	}
	free(table);
	_exit(0);
}

/* --- the daemon's side --- */

int keeper_start(void)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	keeper_pid = fork();
	if (keeper_pid < 0) {
		close(pair[0]);
		close(pair[1]);
		return -errno;
	}
	if (keeper_pid == 0)
		keep(pair[1]);
	close(pair[1]);
	daemon_end = pair[0];
	return 0;
}

static int say(const struct keeper_message *m, int fd)
{
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int))]; } control = { 0 };
	struct iovec iov = { (void *)m, sizeof(*m) };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (daemon_end < 0)
		return -ENOTCONN;
	if (fd >= 0) {
		struct cmsghdr *c;

		h.msg_control = &control;
		h.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	return sendmsg(daemon_end, &h, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int keeper_hold(uint64_t id, int fd, uint64_t addr)
{
	return say(&(struct keeper_message){ .id = id, .addr = addr, .hold = 1 }, fd);
}

void keeper_drop(uint64_t id) { (void)say(&(struct keeper_message){ .id = id }, -1); }

void keeper_stop(void)
{
	if (daemon_end < 0)
		return;
	close(daemon_end);
	daemon_end = -1;
	/* It ends at once unless children are left; then it goes on without us. */
	for (int i = 0; i < 20 && waitpid(keeper_pid, NULL, WNOHANG) == 0; i++)
		usleep(5000);
}
