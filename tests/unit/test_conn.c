/* SPDX-License-Identifier: Apache-2.0 */
/* Messages over a connection: what is taken, what is refused, and that no descriptor is left over from either. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "daemon/conn.h"
#include "daemon/util/util.h"

#define FDS_MOST 253 /* that the kernel passes in one message */

static int peer, sock;       /* the client's end and the daemon's */
static unsigned fds_before;

static struct pgc_msg got;
static int got_fds[PGC_FDS_MAX];
static unsigned got_n;
static const char *reason;

static unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int begin(void **state)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	peer = pair[0];
	sock = pair[1];
	memset(&got, 0, sizeof(got));
	got_n = 99;
	reason = NULL;
	fds_before = count_fds();
	return 0;
}

static int end(void **state)
{
	unsigned left = count_fds();

	if (peer >= 0)
		close(peer);
	else
		left++;
	close(sock);
	return left == fds_before ? 0 : -1;
}

static int receive(struct ring *ring) { return conn_receive(ring, sock, &got, got_fds, &got_n, &reason); }

/* As a client that keeps to nothing: `len` bytes and `n` times one descriptor, which only the message holds then. */
static void send_raw(size_t len, unsigned n)
{
	static char bytes[2 * PGC_MSG_SIZE];
	static union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * FDS_MOST)]; } control;
	struct iovec iov = { bytes, len };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	_cleanup_close_ int fd = eventfd(0, EFD_CLOEXEC);

	assert_true(fd >= 0 && n <= FDS_MOST && len <= sizeof(bytes));
	memset(bytes, 'm', sizeof(bytes));
	if (n) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n);
		for (unsigned i = 0; i < n; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(int));
	}
	assert_int_equal(sendmsg(peer, &h, 0), (ssize_t)len);
}

static bool same_file(int a, int b)
{
	struct stat x, y;

	assert_int_equal(fstat(a, &x), 0);
	assert_int_equal(fstat(b, &y), 0);
	return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void a_message_arrives_whole_with_its_descriptors(void **state)
{
	struct pgc_msg msg = { .type = PGC_MSG_OPEN, .tag = 0x1122334455667788ull };
	int pipes[2];

	memset(msg.bytes, 0x5a, sizeof(msg.bytes));
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(conn_send(peer, &msg, (int[]){ peer, sock, pipes[0] }, 3), 0);
	assert_int_equal(receive(NULL), 1);
	assert_memory_equal(&got, &msg, sizeof(msg));
	assert_null(reason);
	assert_int_equal(got_n, 3);
	assert_true(same_file(got_fds[0], peer)); /* in the order in which they were sent */
	assert_true(same_file(got_fds[1], sock));
	assert_true(same_file(got_fds[2], pipes[0]));
	for (unsigned i = 0; i < 3; i++) {
		assert_true(fcntl(got_fds[i], F_GETFD) & FD_CLOEXEC);
		close(got_fds[i]);
	}
	assert_int_equal(fcntl(pipes[0], F_GETFD), FD_CLOEXEC); /* the sender keeps its own */
	close(pipes[0]);
	close(pipes[1]);
}

static void where_there_is_no_descriptor_is_minus_one(void **state)
{
	struct pgc_msg msg = { .type = PGC_MSG_HELLO };

	memset(got_fds, 0x77, sizeof(got_fds));
	assert_int_equal(conn_send(peer, &msg, NULL, 0), 0);
	assert_int_equal(receive(NULL), 1);
	assert_int_equal(got_n, 0);
	for (unsigned i = 0; i < PGC_FDS_MAX; i++)
		assert_int_equal(got_fds[i], -1);

	memset(got_fds, 0x77, sizeof(got_fds));
	send_raw(PGC_MSG_SIZE, 1);
	assert_int_equal(receive(NULL), 1);
	assert_int_equal(got_n, 1);
	assert_true(got_fds[0] >= 0);
	assert_int_equal(got_fds[1], -1);
	assert_int_equal(got_fds[2], -1);
	close(got_fds[0]);
}

static void messages_keep_their_order_and_their_bounds(void **state)
{
	struct pgc_msg msg = { .type = PGC_MSG_STAT };

	for (msg.tag = 1; msg.tag <= 5; msg.tag++)
		assert_int_equal(conn_send(peer, &msg, NULL, 0), 0);
	for (uint64_t tag = 1; tag <= 5; tag++) {
		assert_int_equal(receive(NULL), 1);
		assert_int_equal(got.tag, tag);
	}
	assert_int_equal(receive(NULL), -EAGAIN);
}

static void a_wrong_size_is_refused(void **state)
{
	static const size_t sizes[] = { 1, 16, PGC_MSG_SIZE - 1, PGC_MSG_SIZE + 1, 2 * PGC_MSG_SIZE };

	for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
		reason = NULL;
		send_raw(sizes[i], 0);
		assert_int_equal(receive(NULL), -EPROTO);
		assert_string_equal(reason, "a message of a wrong size");
	}
	assert_int_equal(receive(NULL), -EAGAIN); /* nothing of the longer ones is left to be taken for a message */
	assert_int_equal(got.type, 0);
}

static void descriptors_of_a_refused_message_are_closed(void **state)
{
	static const size_t sizes[] = { 0, 10, PGC_MSG_SIZE + 1 };
	unsigned before = count_fds();

	for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
		send_raw(sizes[i], 3);
		assert_int_equal(receive(NULL), -EPROTO);
		assert_non_null(reason);
		assert_int_equal(count_fds(), before);
	}
}

static void too_many_descriptors_are_refused_and_closed(void **state)
{
	/* Around what is allowed, around what the buffer holds, and the most that can be sent. */
	static const unsigned numbers[] = { PGC_FDS_MAX + 1, 5, 31, 32, 33, 34, FDS_MOST };
	unsigned before = count_fds();

	for (size_t i = 0; i < ELEMENTSOF(numbers); i++) {
		reason = NULL;
		send_raw(PGC_MSG_SIZE, numbers[i]);
		assert_int_equal(receive(NULL), -EPROTO);
		assert_string_equal(reason, "too many descriptors");
		assert_int_equal(count_fds(), before);
		for (unsigned j = 0; j < PGC_FDS_MAX; j++)
			assert_int_equal(got_fds[j], -1);
	}
}

/* The one descriptor of two that found a place is closed, and the message is there to be answered. */
static void without_a_free_descriptor_a_message_can_be_refused(void **state)
{
	unsigned before = count_fds();

	for (unsigned room = 0; room < 2; room++) {
		struct rlimit limit, low;
		int next, r;

		send_raw(PGC_MSG_SIZE, 2);
		next = dup(sock);      /* the lowest number that is free; all above it are, too */
		close(next);
		assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
		low = (struct rlimit){ (rlim_t)next + room, limit.rlim_max };
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
		memset(&got, 0, sizeof(got));
		reason = NULL;
		r = receive(NULL);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
		assert_int_equal(r, -EMFILE);
		assert_null(reason);
		assert_int_equal(got.type, 0x6d6d6d6d);
		assert_int_equal(count_fds(), before);
	}
}

static void with_a_ring_the_ring_closes_them(void **state)
{
	unsigned before;
	struct ring ring;

	assert_int_equal(ring_init(&ring, 64), 0);
	before = count_fds();
	send_raw(PGC_MSG_SIZE, 20);
	assert_int_equal(receive(&ring), -EPROTO);
	assert_int_equal(count_fds(), before + 20); /* not by this thread: a close may wait for the client */
	assert_int_equal(ring_flush(&ring), 0);
	for (uint64_t until = now_ns() + 5000000000ull; count_fds() != before;)
		assert_true(now_ns() < until);
	ring_free(&ring);
}

static void the_end_of_the_connection_is_told_after_what_was_sent(void **state)
{
	struct pgc_msg msg = { .type = PGC_MSG_CLOSE };

	assert_int_equal(receive(NULL), -EAGAIN); /* none is there, and that is not the end */
	assert_int_equal(conn_send(peer, &msg, NULL, 0), 0);
	close(peer);
	peer = -1;
	assert_int_equal(receive(NULL), 1);
	assert_int_equal(got.type, PGC_MSG_CLOSE);
	assert_int_equal(receive(NULL), 0);
	assert_int_equal(receive(NULL), 0);
}

static void sending_to_nobody_is_an_error_and_no_signal(void **state)
{
	struct pgc_msg msg = { .type = PGC_MSG_STAT };

	close(peer);
	peer = -1;
	assert_int_equal(conn_send(sock, &msg, NULL, 0), -EPIPE);
}

static void a_peer_that_does_not_read_is_eagain_and_keeps_nothing(void **state)
{
	struct pgc_msg msg = { .type = PGC_MSG_STAT };
	int fd = eventfd(0, EFD_CLOEXEC), r = 0;
	unsigned before = count_fds(), sent = 0, read_back = 0;

	while ((r = conn_send(sock, &msg, &fd, 1)) == 0) {
		sent++;
		assert_true(sent < 100000);
	}
	assert_true(r == -EAGAIN);
	assert_true(sent > 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC); /* still the caller's */
	/* Each one that was sent is there, the one that was refused is not. */
	while (conn_receive(NULL, peer, &got, got_fds, &got_n, &reason) == 1) {
		assert_int_equal(got_n, 1);
		close(got_fds[0]);
		read_back++;
	}
	assert_int_equal(read_back, sent);
	assert_int_equal(conn_send(sock, &msg, &fd, 1), 0);
	assert_int_equal(count_fds(), before);
	close(fd);
}

static void a_reply_carries_the_tag_and_a_positive_errno(void **state)
{
	struct pgc_msg request = { .type = PGC_MSG_SYNC, .tag = 77 }, reply;

	memset(request.bytes, 0xff, sizeof(request.bytes));
	memset(&reply, 0xff, sizeof(reply));
	conn_reply_init(&reply, &request, -ENOSPC);
	assert_int_equal(reply.type, PGC_MSG_SYNC | PGC_MSG_REPLY);
	assert_int_equal(reply.tag, 77);
	assert_int_equal(reply.status, ENOSPC);
	assert_true(conn_body_is_clean(&reply, 0)); /* nothing of what was in memory goes out */
	conn_reply_init(&reply, &request, ENOSPC);
	assert_int_equal(reply.status, ENOSPC);
	conn_reply_init(&reply, &request, 0);
	assert_int_equal(reply.status, 0);
}

static void a_body_is_clean_from_where_its_type_ends(void **state)
{
	struct pgc_msg msg = { .type = PGC_MSG_READ };

	assert_true(conn_body_is_clean(&msg, 0));
	msg.bytes[15] = 1;
	assert_false(conn_body_is_clean(&msg, 15));
	assert_true(conn_body_is_clean(&msg, 16));
	msg.bytes[sizeof(msg.bytes) - 1] = 1;
	assert_false(conn_body_is_clean(&msg, 16));
	assert_true(conn_body_is_clean(&msg, sizeof(msg.bytes)));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		T(a_message_arrives_whole_with_its_descriptors),
		T(where_there_is_no_descriptor_is_minus_one),
		T(messages_keep_their_order_and_their_bounds),
		T(a_wrong_size_is_refused),
		T(descriptors_of_a_refused_message_are_closed),
		T(too_many_descriptors_are_refused_and_closed),
		T(without_a_free_descriptor_a_message_can_be_refused),
		T(with_a_ring_the_ring_closes_them),
		T(the_end_of_the_connection_is_told_after_what_was_sent),
		T(sending_to_nobody_is_an_error_and_no_signal),
		T(a_peer_that_does_not_read_is_eagain_and_keeps_nothing),
		T(a_reply_carries_the_tag_and_a_positive_errno),
		T(a_body_is_clean_from_where_its_type_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
