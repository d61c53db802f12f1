/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper process and the way to it: a socket pair, one message a descriptor. It finds out itself when one is needed no more. Messages may be sent from any
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
	uint64_t addr;             /* some address that was mapped: to ask whether the child is still there */
};

struct held {
	uint64_t addr;
	int fd;
};

static int daemon_end = -1;
static pid_t keeper_pid;

/* --- the process --- */

static struct held *table;
static size_t n_held, room;

static void hold(uint64_t addr, int fd)
{
	if (n_held == room) {
		struct held *larger = reallocarray(table, room ? room * 2 : 64, sizeof(*table));

		if (!larger)
			return; /* kept open all the same, till the end of the process */
		table = larger;
		room = room ? room * 2 : 64;
	}
	table[n_held++] = (struct held){ addr, fd };
}

static void let_go_of_the_dead(void)
{
	for (size_t i = n_held; i-- > 0;)
		if (!uffd_alive(table[i].fd, table[i].addr)) {
			close(table[i].fd);
			table[i] = table[--n_held];
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
	if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int))) {
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
		hold(m.addr, fd);
	}
	return true;
}

static void keep(int sock)
{
	int null = open("/dev/null", O_RDWR);
	uint64_t checked = now_ns();
	bool daemon = true;

	prctl(PR_SET_NAME, "pgc-keeper");
	signal(SIGTERM, SIG_IGN); /* it ends when nobody needs it any more */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	/* Nothing of the daemon's may stay open here: its socket and its lock would seem to live on. */
	dup2(sock, 3);
	close_range(4, ~0u, 0);
	while (daemon || n_held > 0) {
		struct pollfd p = { .fd = daemon ? 3 : -1, .events = POLLIN };

		if (poll(&p, 1, n_held > 0 ? CHECK_MS : -1) > 0)
			daemon = receive(3);
		if (!daemon || now_ns() - checked >= CHECK_MS * 1000000ull) {
			let_go_of_the_dead();
			checked = now_ns();
		}
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

int keeper_hold(int fd, uint64_t addr)
{
	struct keeper_message m = { addr };
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int))]; } control = { 0 };
	struct iovec iov = { &m, sizeof(m) };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);

	if (daemon_end < 0)
		return -ENOTCONN;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	return sendmsg(daemon_end, &h, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}


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
