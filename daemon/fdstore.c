/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See fdstore.h. One connected datagram socket for all threads: each message is one sendmsg(2), and the kernel keeps them in order, so there is no lock. That order is
 * also why sd_notify(3) is not used here: it would make a socket for each message, and wait where the queue is full.
 *
 * Invariant: `used` counts what is kept or about to be, so it is raised before a message goes out and lowered after one.
 * May call: service_manager, slow_close, log, util.
 */
#include "daemon/fdstore.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "daemon/log.h"
#include "daemon/service_manager.h"
#include "daemon/slow_close.h"
#include "daemon/util/util.h"

#define RESERVE_MAX       64u        /* descriptors that only what is not a client's may take */
#define BARRIER_US        2000000
#define VERIFY_TRIES      5
#define SAID_FULL         1u
#define SAID_LOST         2u

static struct {
	int sock;                          /* main thread, before others start; -1: none */
	struct fdstore_fd *passed;         /* main thread */
	unsigned n_passed;
	bool ask_manager;                  /* the count can be read back; constant after init */
	unsigned said;                     /* fdstore_verify() only: SAID_* */
	/* Any thread. Relaxed: these are limits and counts, and nothing is published by them. */
	atomic_bool active;
	_Atomic unsigned room;             /* how many may be kept */
	_Atomic uint64_t used;             /* how many are, << 32, and the bytes of their names, each with a separator */
	_Atomic uint64_t additions;        /* so far */
	_Atomic uint64_t verified;         /* `additions` at the last look; written by fdstore_verify() only */
	_Atomic uint64_t removals;         /* so far: a number read back while it grew proves nothing */
} store = { .sock = -1 };

static bool is_active(void) { return atomic_load_explicit(&store.active, memory_order_relaxed); }
static unsigned room(void) { return atomic_load_explicit(&store.room, memory_order_relaxed); }
static unsigned kept(void) { return (unsigned)(atomic_load_explicit(&store.used, memory_order_relaxed) >> 32); }

static uint64_t cost(const char *name, unsigned n)
{
	return (uint64_t)n << 32 | (uint64_t)n * (strlen(name) + 1);
}

static bool is_listening(int fd)
{
	socklen_t n = sizeof(int);
	int on = 0;

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) == 0 && on;
}

/* Passed by a socket unit, so not in the store. */
static bool is_from_unit(const struct fdstore_fd *p)
{
	return is_listening(p->fd) && strcmp(p->name, "listen") != 0;
}

const char *fdstore_name(char *buf, char kind, uint32_t slot)
{
	(void)snprintf(buf, FDSTORE_NAME_MAX, "%c%u", kind, slot);
	return buf;
}

/* --- start --- */

static int connect_to(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	const int send_buffer = 8 << 20;
	size_t n = strlen(path);
	_cleanup_close_ int fd = -1;

	if ((*path != '/' && *path != '@') || n < 2)
		return -EINVAL;
	if (n >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	memcpy(a.sun_path, path, n);
	if (*path == '@')
		a.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof(send_buffer));
	if (connect(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (*path == '/'))) < 0)
		return -errno;
	return take_fd(&fd);
}

static void free_names(char ***names)
{
	for (char **n = *names; n && *n; n++)
		free(*n);
	free(*names);
}

static int take_passed(void)
{
	CLEANUP(free_names) char **names = NULL;
	uint64_t used = 0;
	int n = sd_listen_fds_with_names(1, &names);

	if (n < 0)
		return n;
	store.passed = calloc((size_t)n + 1, sizeof(*store.passed));
	if (!store.passed)
		return -ENOMEM;
	for (int i = 0; i < n; i++) {
		struct fdstore_fd *p = &store.passed[i];

		p->fd = SD_LISTEN_FDS_START + i;
		snprintf(p->name, sizeof(p->name), "%s", names[i]);
		if (!is_from_unit(p))
			used += cost(p->name, 1);
	}
	store.n_passed = (unsigned)n;
	atomic_store_explicit(&store.used, used, memory_order_relaxed);
	return 0;
}

/* How many descriptors may be kept; 0: none. */
static unsigned find_room(void)
{
	const char *number = getenv("FDSTORE"); /* systemd 254, pagecached --keep */
	unsigned max = 0, n = 0;
	char *end;
	int r = service_manager_fdstore(&max, &n);

	store.ask_manager = r == 0 && max > 0;
	if (r == 0)
		return max;
	if (number) {
		unsigned long v = strtoul(number, &end, 10);

		return *number && !*end && v <= UINT32_MAX ? (unsigned)v : 0;
	}
	/* What was passed is kept, and can at least be removed. */
	log_warning("whether the service manager keeps descriptors cannot be found out (%s): no more are given to it", strerror(-r));
	return kept();
}

int fdstore_init(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	unsigned n;
	int r;

	cleanup_close(&store.sock);
	store.sock = -1;
	free(store.passed);
	store.passed = NULL;
	store.n_passed = store.said = 0;
	store.ask_manager = false;
	atomic_store_explicit(&store.active, false, memory_order_relaxed);
	atomic_store_explicit(&store.used, 0, memory_order_relaxed);
	r = take_passed();
	if (r < 0 || !path)
		return r;
	n = find_room();
	if (n == 0)
		return 0;
	r = connect_to(path);
	if (r < 0) {
		log_warning("nobody keeps descriptors: %s: %s", path, strerror(-r));
		return 0;
	}
	store.sock = r;
	atomic_store_explicit(&store.room, n, memory_order_relaxed);
	atomic_store_explicit(&store.active, true, memory_order_relaxed);
	return 0;
}

bool fdstore_active(void) { return is_active(); }
int fdstore_socket(void) { return store.sock; }

bool fdstore_alive(void)
{
	static const char nothing[] = "X_PAGECACHED=1"; /* an assignment that nobody knows is passed over */

	return is_active() && (send(store.sock, nothing, sizeof(nothing) - 1, MSG_NOSIGNAL) >= 0 || errno == EAGAIN || errno == ENOBUFS);
}

int fdstore_take_listening(bool *ret_kept)
{
	struct fdstore_fd *found = NULL;

	for (unsigned i = 0; i < store.n_passed; i++) {
		struct fdstore_fd *p = &store.passed[i];

		if (p->fd < 0 || !is_listening(p->fd))
			continue;
		/* That of a socket unit is the one that it watches while no daemon runs. */
		if (!found || strcmp(found->name, "listen") == 0)
			found = p;
	}
	*ret_kept = found && strcmp(found->name, "listen") == 0;
	return found ? take_fd(&found->fd) : -1;
}

struct fdstore_fd *fdstore_passed(unsigned *ret_n)
{
	*ret_n = store.n_passed;
	return store.passed;
}

bool fdstore_has_files(void)
{
	for (unsigned i = 0; i < store.n_passed; i++)
		if (store.passed[i].fd >= 0 && store.passed[i].name[0] == 'f')
			return true;
	return false;
}

/* --- what nobody has taken --- */

/* At start there is time to wait for room in the queue. */
static void forget(const char *name, unsigned n)
{
	for (unsigned tries = 0; fdstore_remove(name, n) == -EAGAIN && tries < 1000; tries++)
		(void)poll(&(struct pollfd){ .fd = store.sock, .events = POLLOUT }, 1, 10);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct fdstore_fd *)a)->name, ((const struct fdstore_fd *)b)->name);
}

void fdstore_drop_rest(void)
{
	int *rest = calloc(store.n_passed + 1, sizeof(*rest));
	unsigned n_rest = 0;

	if (store.n_passed > 0)
		qsort(store.passed, store.n_passed, sizeof(*store.passed), by_name);
	for (unsigned i = 0; i < store.n_passed;) {
		struct fdstore_fd *first = &store.passed[i];
		bool left = false, taken = false, unit = false;
		unsigned n = 0;

		for (; i < store.n_passed && by_name(&store.passed[i], first) == 0; i++, n++) {
			struct fdstore_fd *p = &store.passed[i];

			if (p->fd < 0) {
				taken = true;
				continue;
			}
			left = true;
			unit = unit || is_from_unit(p);
			if (rest)
				rest[n_rest++] = take_fd(&p->fd);
			else
				close(take_fd(&p->fd));
		}
		if (left && !taken && !unit)
			forget(first->name, n);
	}
	slow_close(rest, n_rest);
	free(rest);
	free(store.passed);
	store.passed = NULL;
	store.n_passed = 0;
}

/* --- messages --- */

static int send_message(const char *text, const int *fds, unsigned n)
{
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * FDSTORE_FDS_MAX)]; } control = { 0 };
	struct iovec iov = { (void *)text, strlen(text) };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n > 0) {
		struct cmsghdr *c;

		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n);
	}
	if (sendmsg(store.sock, &h, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return 0;
	switch (errno) {
	case EAGAIN:
	case EINTR:
	case ENOBUFS:
	case ENOMEM:
	case ETOOMANYREFS: /* too many descriptors are on their way in the queues of this user */
		return -EAGAIN;
	case ECONNREFUSED:
	case ECONNRESET:
	case ENOTCONN:
	case EPIPE:
		if (atomic_exchange_explicit(&store.active, false, memory_order_relaxed))
			log_error("nobody keeps this daemon's descriptors any more: its clients would not survive its death (%m)");
		return -ENOTCONN;
	default:
		return -errno;
	}
}

/* What clients bring must leave something for the rest. */
static unsigned reserve_for(const char *name, unsigned max)
{
	return *name == 'h' || *name == 'c' ? MIN(RESERVE_MAX, max / 8) : 0;
}

static bool charge(const char *name, unsigned n)
{
	uint64_t used = atomic_load_explicit(&store.used, memory_order_relaxed), more = cost(name, n), sum;
	unsigned max = room(), reserve = reserve_for(name, max);

	do {
		sum = used + more;
		if ((sum >> 32) + reserve > max || (uint32_t)sum + reserve * FDSTORE_NAME_MAX > FDSTORE_NAMES_MAX)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&store.used, &used, sum, memory_order_relaxed, memory_order_relaxed));
	return true;
}

static void uncharge(const char *name, unsigned n)
{
	atomic_fetch_sub_explicit(&store.used, cost(name, n), memory_order_relaxed);
}

int fdstore_add(const char *name, const int *fds, unsigned n)
{
	char text[64];
	int r;

	assert(n > 0 && n <= FDSTORE_FDS_MAX && strlen(name) < FDSTORE_NAME_MAX);
	if (!is_active())
		return -ENOTCONN;
	if (!charge(name, n))
		return -ENFILE;
	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
	r = send_message(text, fds, n);
	if (r < 0)
		uncharge(name, n);
	else
		atomic_fetch_add_explicit(&store.additions, 1, memory_order_relaxed);
	return r;
}

int fdstore_remove(const char *name, unsigned n)
{
	char text[64];
	int r;

	assert(strlen(name) < FDSTORE_NAME_MAX);
	if (!is_active())
		return 0;
	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	atomic_fetch_add_explicit(&store.removals, 1, memory_order_relaxed);
	r = send_message(text, NULL, 0);
	if (r == 0)
		uncharge(name, n);
	return r == -ENOTCONN ? 0 : r;
}

/* --- looking --- */

static void judge(unsigned max, unsigned n, unsigned given)
{
	bool full = n >= max, lost = n < given;

	/* A store that is full takes nothing, whatever our own count says. */
	atomic_store_explicit(&store.room, full ? 0 : max, memory_order_relaxed);
	if (full && !(store.said & SAID_FULL))
		log_error("the service manager's descriptor store is full (FileDescriptorStoreMax=%u): no more handles are opened", max);
	/* Not a reason to refuse others: a client that passes one descriptor twice makes the number smaller, as the service manager keeps it once. */
	if (lost && !(store.said & SAID_LOST))
		log_warning("the service manager keeps %u descriptors, not %u as it was given", n, given);
	store.said = (full ? SAID_FULL : 0) | (lost ? SAID_LOST : 0);
}

bool fdstore_unverified(void)
{
	return store.ask_manager && is_active() &&
	       (room() == 0 ||
		atomic_load_explicit(&store.additions, memory_order_relaxed) != atomic_load_explicit(&store.verified, memory_order_relaxed));
}

int fdstore_verify(void)
{
	if (!store.ask_manager || !is_active())
		return 0;
	/* What is added from here on is for the next look. */
	atomic_store_explicit(&store.verified, atomic_load_explicit(&store.additions, memory_order_relaxed), memory_order_relaxed);
	for (unsigned i = 0; i < VERIFY_TRIES; i++) {
		uint64_t before = atomic_load_explicit(&store.removals, memory_order_relaxed);
		unsigned given = kept(), max, n;
		int r = sd_notify_barrier(0, BARRIER_US); /* what lies in its queue is not counted yet */

		if (r < 0)
			return r;
		r = service_manager_fdstore(&max, &n);
		if (r < 0)
			return r;
		if (before == atomic_load_explicit(&store.removals, memory_order_relaxed) || n >= given) {
			judge(max, n, given);
			return 0;
		}
	}
	return 0; /* it changes all the time: another day */
}
