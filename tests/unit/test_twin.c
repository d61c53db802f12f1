/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the twin of a daemon that is killed while it reads a space's events hands to the next daemon: a child that has just been forked, and nothing else. This
 * process is the client, its child the daemon; who hears of it is this process again.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/twin.h"
#include "daemon/uffd.h"
#include "daemon/util/util.h"
#include "pagecached/wire.h"

#define PATIENCE_MS 20000

static const struct twin_record record = { .slot = 5, .id = 77 };

static struct uffd_caps caps;
static char dir[64];
static struct sockaddr_un address;
static int uffd, next_daemon, go[2];
static char *page;                 /* registered with `uffd` */
static pid_t child;

static void *new_page(void)
{
	void *p = mmap(NULL, PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static void serve(char *p)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)p, .len = PAGE_SIZE_ },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
	};

	assert_int_equal(ioctl(uffd, UFFDIO_REGISTER, &reg), 0);
}

static int begin(void **state)
{
	const char *lacking;

	if (uffd_probe(&caps, false, &lacking) < 0)
		skip();
	snprintf(dir, sizeof(dir), "/tmp/pagecached-twin-XXXXXX");
	assert_non_null(mkdtemp(dir));
	address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", dir);
	next_daemon = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(next_daemon, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(next_daemon, 8), 0);
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* the twin becomes this process's child */
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	assert_true(uffd >= 0);
	child = 0;
	return 0;
}

static int end(void **state)
{
	if (child > 0)
		kill(child, SIGKILL);
	close(uffd);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	munmap(page, PAGE_SIZE_);
	close(next_daemon);
	close(go[0]);
	close(go[1]);
	unlink(address.sun_path);
	rmdir(dir);
	return 0;
}

/*
 * A daemon that dies as soon as it has read `forks` events, with no word of what they brought, or when `learn` has been told. It reads the events of a space that has
 * something at `page`, as this process has. Returns its number; it has begun.
 */
static pid_t start_daemon(int forks, void (*learn)(int fd))
{
	int ready[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		struct uffd_msg m = { 0 };

		if (twin_start(address.sun_path) < 0 || write(ready[1], "", 1) != 1 || read(go[0], &c, 1) != 1)
			_exit(1);
		twin_reading(1, record, (uintptr_t)page);
		while (forks > 0) {
			(void)poll(&(struct pollfd){ .fd = uffd, .events = POLLIN }, 1, -1);
			if (uffd_read(uffd, &caps, &m, 1) == 1 && m.event == UFFD_EVENT_FORK && --forks == 0 && learn)
				learn((int)m.arg.fork.ufd);
		}
		(void)kill(getpid(), SIGKILL);
	}
	assert_true(pid > 0);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void answer(int sock, struct pgc_msg *m, int *ret_fd)
{
	union { struct cmsghdr h; char space[CMSG_SPACE(sizeof(int))]; } control;
	struct iovec iov = { m, sizeof(*m) };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct pgc_msg reply;

	assert_int_equal(recvmsg(sock, &h, MSG_CMSG_CLOEXEC), sizeof(*m));
	*ret_fd = -1;
	if (h.msg_controllen > 0)
		memcpy(ret_fd, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof(int));
	reply = (struct pgc_msg){ .type = m->type | PGC_MSG_REPLY, .tag = m->tag };
	assert_int_equal(send(sock, &reply, sizeof(reply), 0), sizeof(reply));
}

/* What the twin brings until it has ended: how many children, and the last one in *ret and *ret_fd. */
static int brought(pid_t daemon, struct pgc_child *ret, int *ret_fd)
{
	uint64_t until = now_ns() + PATIENCE_MS * 1000000ull;
	int n = 0, status;
	pid_t pid, twin = 0;

	*ret_fd = -1;
	while ((pid = waitpid(daemon, &status, 0)) < 0 && errno == EINTR)
		;
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	while (now_ns() < until) {
		struct pollfd p = { .fd = next_daemon, .events = POLLIN };
		struct pgc_msg m;
		int sock, fd;

		if (poll(&p, 1, 20) > 0) {
			sock = accept4(next_daemon, NULL, NULL, SOCK_CLOEXEC);
			answer(sock, &m, &fd);
			assert_int_equal(m.hello.role, PGC_ROLE_TWIN);
			answer(sock, &m, &fd);
			assert_int_equal(m.type, PGC_MSG_CHILD);
			*ret = m.child;
			*ret_fd = fd;
			n++;
			close(sock);
			continue;
		}
		pid = waitpid(-1, &status, WNOHANG);
		if (pid > 0 && pid != child) {
			twin = pid;
			break;
		}
	}
	assert_true(twin > 0);
	return n;
}

/* It has something mapped at the same address, as all have that one process has forked; but it is no child of that space. */
static void a_clients_userfaultfd_is_nobodys_child(void **state)
{
	struct pgc_child c;
	pid_t daemon;
	int fd;

	page = new_page();
	assert_int_equal(uffd_accept(uffd, &(struct uffd_caps){ .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM }, false), 0);
	daemon = start_daemon(0, NULL);
	serve(page);
	assert_int_equal(write(go[1], "", 1), 1);
	assert_int_equal(brought(daemon, &c, &fd), 0);
}

/* The child of this process, which waits until it is killed. */
static void fork_child(void)
{
	child = fork();
	if (child == 0)
		for (;;)
			pause();
	assert_true(child > 0);
}

static pid_t daemon_that_reads_a_fork(void (*learn)(int fd))
{
	pid_t daemon;

	if (!caps.fork_events)
		skip();
	page = new_page();
	assert_int_equal(uffd_accept(uffd, &caps, false), 0);
	daemon = start_daemon(1, learn);
	serve(page);
	assert_int_equal(write(go[1], "", 1), 1);
	fork_child();
	return daemon;
}

static void a_child_that_was_just_read_is_handed_over(void **state)
{
	pid_t daemon = daemon_that_reads_a_fork(NULL);
	struct pgc_child c;
	int fd;

	assert_int_equal(brought(daemon, &c, &fd), 1);
	assert_true(c.of_parent);
	assert_int_equal(c.slot, record.slot);
	assert_int_equal(c.id, record.id);
	assert_true(uffd_serves(fd, (uintptr_t)page));
	close(fd);
}

/* An earlier twin has sent it, and still has it, as it had no answer. */
static void a_child_that_somebody_knew_is_not(void **state)
{
	pid_t daemon = daemon_that_reads_a_fork(uffd_set_seen);
	struct pgc_child c;
	int fd;

	assert_int_equal(brought(daemon, &c, &fd), 0);
}

static void keep_own(int fd) { twin_child_passed(fd, record, false, (uintptr_t)page); }
static void keep_of_parent(int fd) { twin_child_passed(fd, record, true, (uintptr_t)page); }

static void assert_passed_on(void (*learn)(int fd), bool of_parent)
{
	pid_t daemon = daemon_that_reads_a_fork(learn);
	struct pgc_child c;
	int fd;

	assert_int_equal(brought(daemon, &c, &fd), 1);
	assert_int_equal(c.of_parent, of_parent);
	assert_int_equal(c.slot, record.slot);
	assert_int_equal(c.id, record.id);
	assert_true(uffd_serves(fd, (uintptr_t)page));
	close(fd);
}

/* With what keeps descriptors it has died before any worker came to it, and earlier twins ended when it was ready. */
static void a_child_that_was_passed_is_handed_over(void **state) { assert_passed_on(keep_own, false); }
static void a_child_that_was_passed_as_its_parents_is_handed_over(void **state) { assert_passed_on(keep_of_parent, true); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_clients_userfaultfd_is_nobodys_child, begin, end),
		cmocka_unit_test_setup_teardown(a_child_that_was_just_read_is_handed_over, begin, end),
		cmocka_unit_test_setup_teardown(a_child_that_somebody_knew_is_not, begin, end),
		cmocka_unit_test_setup_teardown(a_child_that_was_passed_is_handed_over, begin, end),
		cmocka_unit_test_setup_teardown(a_child_that_was_passed_as_its_parents_is_handed_over, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
