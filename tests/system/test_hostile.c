/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that do what the library never does, over the bare protocol. After each, a healthy client of the same daemon and the same
 * file still reads and writes the right bytes within 2 s, the daemon has as many descriptors as before, and no time is burnt.
 *
 * The test process speaks the bare protocol and never calls the library; the healthy client is a peer that does nothing else.
 * Whoever holds a writable memfd may harm that one file: then the healthy client expects its bytes from the other file only.
 * The healthy client holds all files open, so that what the daemon keeps for a file is there before anything goes wrong.
 */
#include "raw.h"

#include <dirent.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define FILE_PAGES 65
#define FILE_SIZE  (FILE_PAGES * PAGE + 100)
#define HEALTH_MS  2000
#define SLOW_SIZE  (1 << 20)              /* of mem:slow, a file that every test may slow down */
#define QUIET      .config = "log_level = notice"  /* so that every line of the log says that something is wrong */

/* ---- the healthy client ---- */

enum order { CHECK_BOTH = 1, CHECK_OTHER, LEAVE };

struct healthy_file {
	struct pgc_file *f;
	uint8_t *map, *want;
	unsigned round;
};

static void healthy_check(struct healthy_file *h, const char *path)
{
	uint8_t *got = malloc(FILE_SIZE);
	size_t p = h->round * 7 % FILE_PAGES, q = (h->round * 11 + 3) % FILE_PAGES;

	CHECK(got);
	h->round++;
	store(h->map + p * PAGE + 17, (uint8_t)h->round);
	h->want[p * PAGE + 17] = (uint8_t)h->round;
	memset(h->want + q * PAGE + 100, (int)h->round ^ 0x80, 300);
	CHECK_EQ(pgc_pwrite(h->f, h->want + q * PAGE + 100, 300, (off_t)(q * PAGE + 100)), 300);
	CHECK_EQ(pgc_pread(h->f, got, FILE_SIZE, 0), FILE_SIZE);
	CHECK(memcmp(got, h->want, FILE_SIZE) == 0);
	CHECK(memcmp(h->map, h->want, FILE_SIZE) == 0);
	CHECK_EQ(pgc_fsync(h->f), 0);
	store_read(path, got, FILE_SIZE, 0);
	CHECK(memcmp(got, h->want, FILE_SIZE) == 0);
	free(got);
}

/* The file belongs to whoever may write it, and somebody did: only that every call comes back. */
static void healthy_survive(struct healthy_file *h)
{
	uint8_t *got = malloc(FILE_SIZE), byte;

	CHECK(got);
	(void)pgc_pread(h->f, got, FILE_SIZE, 0);
	(void)load_signal(h->map, &byte);
	(void)store_signal(h->map + PAGE, 1);
	(void)pgc_pwrite(h->f, got, 300, PAGE);
	(void)pgc_fsync(h->f);
	free(got);
}

static void healthy_body(struct peer *p, void *arg)
{
	static const char *const names[2] = {"f", "g"};
	struct pgc_file *others[2] = {open_file("h", O_RDWR), open_file("mem:slow", O_RDWR)};
	struct healthy_file h[2] = {{0}};
	uint64_t order;

	(void)arg;
	CHECK_EQ(pgc_ftruncate(others[1], SLOW_SIZE), 0);
	for (int i = 0; i < 2; i++) {
		h[i].want = malloc(FILE_SIZE);
		CHECK(h[i].want);
		pattern_fill(h[i].want, FILE_SIZE, 0, 1);
		h[i].f = open_file(names[i], O_RDWR);
		h[i].map = map(h[i].f, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	}
	while ((order = peer_hear(p)) != LEAVE) {
		if (order == CHECK_BOTH)
			healthy_check(&h[0], names[0]);
		else
			healthy_survive(&h[0]);
		healthy_check(&h[1], names[1]);
		peer_tell(p, order);
	}
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(pgc_munmap(h[i].map, FILE_SIZE), 0);
		CHECK_EQ(pgc_close(h[i].f), 0);
		CHECK_EQ(pgc_close(others[i]), 0);
		free(h[i].want);
	}
}

static struct {
	struct peer *peer;
	unsigned fds;
	uint64_t handles;
	size_t log;
} healthy;

static unsigned daemon_fds(void)
{
	char path[64];
	struct dirent *e;
	unsigned n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)env.daemon);
	d = opendir(path);
	CHECK(d);
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void print_fds(void)
{
	char path[64], name[512], to[256];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)env.daemon);
	d = opendir(path);
	CHECK(d);
	while ((e = readdir(d))) {
		ssize_t n;

		snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		n = readlink(name, to, sizeof(to) - 1);
		if (n > 0)
			fprintf(stderr, "descriptor %s: %.*s\n", e->d_name, (int)n, to);
	}
	closedir(d);
}

/* Clock ticks that the daemon has used. */
static unsigned long daemon_ticks(void)
{
	char path[64], *text, *p;
	unsigned long user = 0, kernel = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)env.daemon);
	text = read_whole(path);
	p = strrchr(text, ')');
	CHECK(p && sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) == 2);
	free(text);
	return user + kernel;
}

static unsigned time_factor(void)
{
	const char *s = getenv("PGC_TEST_TIME_FACTOR");
	int v = s ? atoi(s) : 1;

	return v > 0 ? (unsigned)v : 1;
}

static void mark_log(void)
{
	char *log = daemon_log();

	healthy.log = strlen(log);
	free(log);
}

static bool log_grew(void)
{
	char *log = daemon_log();
	bool grew = strlen(log) > healthy.log + 10;

	free(log);
	return grew;
}

static void begin(void)
{
	make_file("f", FILE_SIZE, 1);
	make_file("g", FILE_SIZE, 1);
	make_file("h", FILE_SIZE, 1);
	healthy.peer = peer_start(healthy_body, NULL);
	for (int i = 0; i < 20; i++) /* so often that it has all that comes to who asks often */
		peer_ask(healthy.peer, CHECK_BOTH);
	healthy.handles = status().handles;  /* opens the control connection, too */
	healthy.fds = daemon_fds();
	mark_log();
}

static void ask_healthy(enum order order)
{
	uint64_t from = now_ms(), took;

	peer_ask(healthy.peer, order);
	took = now_ms() - from;
	if (took > HEALTH_MS * time_factor())
		FAIL("the healthy client needed %d ms", (int)took);
	CHECK(kill(env.daemon, 0) == 0);
}

/* For states that last: the daemon waits, and does not spin. */
static void expect_idle(void)
{
	unsigned long from = daemon_ticks(), used;

	nanosleep(&(struct timespec){.tv_nsec = 250000000}, NULL);
	used = daemon_ticks() - from;
	if (used * 1000 / (unsigned long)sysconf(_SC_CLK_TCK) > 120)
		FAIL("the daemon burnt %lu ticks in a quarter of a second", used);
}

/* While the bad client is still there, then: ask_healthy(). When it is gone: */
static void end(enum order order)
{
	ask_healthy(order);
	WAIT_UNTIL(status().handles == healthy.handles);
	for (uint64_t until = now_ms() + WAIT_MS; daemon_fds() > healthy.fds;) {
		if (now_ms() > until) {
			print_fds();
			FAIL("the daemon has %u descriptors, and had %u", daemon_fds(), healthy.fds);
		}
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	expect_idle();
	peer_tell(healthy.peer, LEAVE);
	peer_join(healthy.peer);
}

static void need_root(void)
{
	if (env.user)
		skip_test("needs root, to be another user");
}

/* ---- messages that end the connection ---- */

enum stage { CONNECTED, GREETED, CONTROL, OPENED };

static void bad_message(enum stage stage, void (*send_it)(struct raw *r))
{
	struct raw r = {.uffd = -1, .control = -1, .memfd = -1};

	begin();
	if (stage == CONNECTED)
		r.sock = raw_socket();
	else if (stage == OPENED)
		raw_open(&r, "f", O_RDWR);
	else
		raw_hello(&r, stage == CONTROL ? PGC_ROLE_CONTROL : PGC_ROLE_CLIENT);
	send_it(&r);
	expect_hangup(&r);
	WAIT_UNTIL(log_grew());
	raw_close(&r);
	end(CHECK_BOTH);
}

#define BAD_MESSAGE(name, stage, ...) \
	static void name##_send(struct raw *r) { __VA_ARGS__ } \
	SYSTEM_TEST(name, QUIET) { bad_message(stage, name##_send); }

static void send_noise(struct raw *r, size_t n)
{
	uint8_t *noise = malloc(n);

	CHECK(noise);
	pattern_fill(noise, n, 0, 99);
	CHECK_EQ(send_bytes(r->sock, noise, n, NULL, 0), 0);
	free(noise);
}

/* A message that is right but for one thing. */
#define SEND(...) do { struct pgc_msg m = {__VA_ARGS__}; m.tag = 9; send_msg(r->sock, &m, NULL, 0); } while (0)

BAD_MESSAGE(garbage_before_hello, CONNECTED, send_noise(r, PGC_MSG_SIZE);)
BAD_MESSAGE(garbage_after_hello, GREETED, send_noise(r, PGC_MSG_SIZE);)
BAD_MESSAGE(garbage_on_a_control_connection, CONTROL, send_noise(r, PGC_MSG_SIZE);)
BAD_MESSAGE(garbage_on_a_handle, OPENED, send_noise(r, PGC_MSG_SIZE);)
BAD_MESSAGE(a_message_of_one_byte, CONNECTED, send_noise(r, 1);)
BAD_MESSAGE(a_truncated_message, OPENED, send_noise(r, PGC_MSG_SIZE - 1);)
BAD_MESSAGE(a_message_one_byte_too_long, OPENED, send_noise(r, PGC_MSG_SIZE + 1);)
BAD_MESSAGE(a_message_of_64_kib, GREETED, send_noise(r, 64 << 10);)
BAD_MESSAGE(an_unknown_type_after_hello, GREETED, SEND(.type = 999);)
BAD_MESSAGE(an_unknown_type_on_a_handle, OPENED, SEND(.type = 55);)
BAD_MESSAGE(a_reply_as_a_request, OPENED, SEND(.type = PGC_MSG_STAT | PGC_MSG_REPLY);)
BAD_MESSAGE(a_control_request_on_a_handle, OPENED, SEND(.type = PGC_CTL_STATUS);)
BAD_MESSAGE(a_client_request_on_a_control_connection, CONTROL, SEND(.type = PGC_MSG_STAT);)
BAD_MESSAGE(a_request_before_hello, CONNECTED, SEND(.type = PGC_MSG_STAT);)
BAD_MESSAGE(a_request_before_open, GREETED, SEND(.type = PGC_MSG_STAT);)
BAD_MESSAGE(hello_twice, GREETED, struct pgc_msg m = hello(PGC_ROLE_CLIENT); send_msg(r->sock, &m, NULL, 0);)
BAD_MESSAGE(hello_with_a_wrong_magic, CONNECTED, struct pgc_msg m = hello(PGC_ROLE_CLIENT); m.hello.magic ^= 1; send_msg(r->sock, &m, NULL, 0);)
BAD_MESSAGE(hello_with_an_unknown_role, CONNECTED, struct pgc_msg m = hello(7); send_msg(r->sock, &m, NULL, 0);)
BAD_MESSAGE(hello_with_a_status, CONNECTED, struct pgc_msg m = hello(PGC_ROLE_CLIENT); m.status = 5; send_msg(r->sock, &m, NULL, 0);)
BAD_MESSAGE(hello_with_its_padding_set, CONNECTED, struct pgc_msg m = hello(PGC_ROLE_CLIENT); m.hello.pad = 1; send_msg(r->sock, &m, NULL, 0);)
BAD_MESSAGE(hello_with_a_reserved_byte, CONNECTED, struct pgc_msg m = hello(PGC_ROLE_CLIENT); m.bytes[200] = 1; send_msg(r->sock, &m, NULL, 0);)
BAD_MESSAGE(a_status_in_a_request, OPENED, SEND(.type = PGC_MSG_STAT, .status = 2);)
BAD_MESSAGE(a_reserved_byte_at_the_end, OPENED, SEND(.type = PGC_MSG_STAT, .bytes = {[PGC_MSG_SIZE - 17] = 1});)
BAD_MESSAGE(padding_in_sync, OPENED, SEND(.type = PGC_MSG_SYNC, .sync = {.pad = 1});)
BAD_MESSAGE(an_unknown_flag_in_sync, OPENED, SEND(.type = PGC_MSG_SYNC, .sync = {.flags = 0x80});)
BAD_MESSAGE(an_unknown_flag_in_write, OPENED, SEND(.type = PGC_MSG_WRITE, .write = {.flags = 0x80});)
BAD_MESSAGE(an_unknown_flag_in_map, OPENED, SEND(.type = PGC_MSG_MAP, .map = {.addr = 1 << 20, .len = PAGE, .flags = 0x80});)
BAD_MESSAGE(a_read_of_more_than_the_most, OPENED, SEND(.type = PGC_MSG_READ, .read = {.off = 0, .len = PGC_READ_MAX + 1});)
BAD_MESSAGE(a_read_that_overflows, OPENED, SEND(.type = PGC_MSG_READ, .read = {.off = UINT64_MAX - 100, .len = 200});)
BAD_MESSAGE(a_write_without_a_transfer_area, OPENED, SEND(.type = PGC_MSG_WRITE, .write = {.len = 10});)
BAD_MESSAGE(descriptors_beside_hello, CONNECTED, struct pgc_msg m = hello(PGC_ROLE_CLIENT); send_msg(r->sock, &m, (int[]){1}, 1);)
BAD_MESSAGE(descriptors_beside_a_request_that_takes_none, OPENED,
	struct pgc_msg m = {.type = PGC_MSG_STAT}; send_msg(r->sock, &m, (int[]){1, 2}, 2);)
BAD_MESSAGE(descriptors_on_a_control_connection, CONTROL, struct pgc_msg m = {.type = PGC_CTL_STATUS}; send_msg(r->sock, &m, (int[]){1}, 1);)
BAD_MESSAGE(a_reserved_byte_in_a_control_request, CONTROL, SEND(.type = PGC_CTL_CGROUPS, .bytes = {[8] = 1});)
BAD_MESSAGE(a_reserved_byte_in_a_request_for_memory, CONTROL, SEND(.type = PGC_CTL_MEMORY, .bytes = {[PGC_MSG_SIZE - 17] = 1});)
BAD_MESSAGE(a_reserved_byte_behind_a_setting, CONTROL, SEND(.type = PGC_CTL_SET, .bytes = {[PGC_MSG_SIZE - 17] = 1});)
BAD_MESSAGE(the_name_of_a_setting_without_an_end, CONTROL, struct pgc_msg m = {.type = PGC_CTL_SET, .ctl_set = {.value = "1"}};
	memset(m.ctl_set.name, 'x', sizeof(m.ctl_set.name)); send_msg(r->sock, &m, NULL, 0);)
BAD_MESSAGE(the_value_of_a_setting_without_an_end, CONTROL, struct pgc_msg m = {.type = PGC_CTL_SET, .ctl_set = {.name = "memory_max"}};
	memset(m.ctl_set.value, '1', sizeof(m.ctl_set.value)); send_msg(r->sock, &m, NULL, 0);)
BAD_MESSAGE(one_descriptor_too_many, OPENED, struct pgc_msg m = {.type = PGC_MSG_STAT}; send_msg(r->sock, &m, (int[]){1, 1, 1, 1}, 4);)
BAD_MESSAGE(two_hundred_descriptors, GREETED,
	int fds[200]; for (int i = 0; i < 200; i++) fds[i] = 1;
	struct pgc_msg m = {.type = PGC_MSG_OPEN, .open = {.flags = O_RDWR}}; send_msg(r->sock, &m, fds, 200);)
BAD_MESSAGE(open_twice, OPENED, struct pgc_msg m = {.type = PGC_MSG_OPEN, .open = {.flags = O_RDWR}};
	int fds[2] = {raw_uffd(O_NONBLOCK), open("f", O_RDWR | O_CLOEXEC)};
	send_msg(r->sock, &m, fds, 2); close(fds[0]); close(fds[1]);)
BAD_MESSAGE(clone_after_open, OPENED, struct pgc_msg m = {.type = PGC_MSG_CLONE, .clone = {.flags = O_RDWR}};
	int fds[2] = {raw_uffd(O_NONBLOCK), r->memfd}; m.clone.file_dev = r->reply.file_dev; m.clone.file_ino = r->reply.file_ino;
	send_msg(r->sock, &m, fds, 2); close(fds[0]);)
BAD_MESSAGE(open_without_descriptors, GREETED, SEND(.type = PGC_MSG_OPEN, .open = {.flags = O_RDWR});)
BAD_MESSAGE(open_with_the_uffd_only, GREETED, struct pgc_msg m = {.type = PGC_MSG_OPEN, .open = {.flags = O_RDWR}};
	int uffd = raw_uffd(O_NONBLOCK); send_msg(r->sock, &m, &uffd, 1); close(uffd);)
BAD_MESSAGE(clone_without_descriptors, GREETED, SEND(.type = PGC_MSG_CLONE, .clone = {.flags = O_RDWR});)

SYSTEM_TEST(another_version_is_told_so, QUIET)
{
	struct pgc_msg m = hello(PGC_ROLE_CLIENT);
	struct raw r = {.uffd = -1, .control = -1, .memfd = -1};

	begin();
	r.sock = raw_socket();
	m.hello.version = 77;
	send_msg(r.sock, &m, NULL, 0);
	CHECK(recv_msg(r.sock, &m, NULL));
	CHECK_EQ(m.status, EPROTO);
	expect_hangup(&r);
	WAIT_UNTIL(log_grew());
	raw_close(&r);
	end(CHECK_BOTH);
}

/* ---- descriptors of a wrong kind ---- */

static int bad_pipe(void)
{
	int p[2];

	CHECK(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
	return p[0];
}
static int bad_socket(void) { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); }
static int bad_directory(void) { return open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); }
static int bad_o_path(void) { return open("f", O_PATH | O_CLOEXEC); }
static int bad_dev_null(void) { return open("/dev/null", O_RDWR | O_CLOEXEC); }
static int bad_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }
static int bad_blocking_uffd(void) { return raw_uffd(0); }
static int bad_uffd(void) { return raw_uffd(O_NONBLOCK); }
static int bad_regular_file(void) { return open("f", O_RDWR | O_CLOEXEC); }
static int bad_fifo(void)
{
	CHECK(mkfifo("fifo", 0600) == 0 || errno == EEXIST);
	return open("fifo", O_RDWR | O_CLOEXEC | O_NONBLOCK);
}
static int bad_configured_uffd(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd = raw_uffd(O_NONBLOCK);

	CHECK(ioctl(fd, UFFDIO_API, &api) == 0);
	return fd;
}

/* OPEN with one descriptor of the wrong kind, first or second: refused by an error or a hang-up, with a line in the log. */
static void bad_descriptor(int (*make)(void), bool as_uffd)
{
	struct pgc_msg m = {.type = PGC_MSG_OPEN, .tag = 5, .open = {.flags = O_RDWR}};
	struct raw r;
	int bad, good;

	begin();
	raw_hello(&r, PGC_ROLE_CLIENT);
	bad = make();
	good = as_uffd ? open("f", O_RDWR | O_CLOEXEC) : raw_uffd(O_NONBLOCK);
	CHECK(bad >= 0 && good >= 0);
	send_msg(r.sock, &m, (int[]){as_uffd ? bad : good, as_uffd ? good : bad}, 2);
	expect_refused(recv_msg(r.sock, &m, NULL) ? (int)m.status : -1);
	close(bad);
	close(good);
	if (as_uffd)
		WAIT_UNTIL(log_grew());
	raw_close(&r);
	end(CHECK_BOTH);
}

#define BAD_UFFD(kind) SYSTEM_TEST(as_userfaultfd_##kind, QUIET) { bad_descriptor(bad_##kind, true); }
#define BAD_FILE(kind) SYSTEM_TEST(as_file_##kind, QUIET) { bad_descriptor(bad_##kind, false); }
BAD_UFFD(pipe)
BAD_UFFD(socket)
BAD_UFFD(directory)
BAD_UFFD(o_path)
BAD_UFFD(dev_null)
BAD_UFFD(eventfd)
BAD_UFFD(regular_file)
BAD_UFFD(configured_uffd)
BAD_UFFD(blocking_uffd)
BAD_FILE(pipe)
BAD_FILE(socket)
BAD_FILE(directory)
BAD_FILE(o_path)
BAD_FILE(dev_null)
BAD_FILE(eventfd)
BAD_FILE(fifo)
BAD_FILE(uffd)

/* The descriptor says what is allowed, not the message. */
SYSTEM_TEST(a_read_only_descriptor_opens_no_writable_handle, QUIET)
{
	struct pgc_msg m;
	struct raw r;
	int fd = -1, fds[3];

	begin();
	fd = open("f", O_RDONLY | O_CLOEXEC);
	raw_hello(&r, PGC_ROLE_CLIENT);
	raw_send_open(&r, fd, NULL, O_RDWR);
	close(fd);
	if (recv_msg(r.sock, &m, fds) && m.status == 0) {
		r.control = fds[0];
		r.memfd = fds[1];
		CHECK_EQ(fcntl(r.memfd, F_GETFL) & O_ACCMODE, O_RDONLY);
		m = (struct pgc_msg){.type = PGC_MSG_TRUNCATE, .truncate = {.size = 1}};
		expect_refused(raw_call(&r, &m, NULL, 0));
	}
	raw_close(&r);
	end(CHECK_BOTH);
}

/* A second descriptor that is a different file than the first. */
SYSTEM_TEST(the_direct_descriptor_of_another_file_is_refused, QUIET)
{
	struct pgc_msg m = {.type = PGC_MSG_OPEN, .tag = 5, .open = {.flags = O_RDWR, .has_direct = 1}};
	struct raw r;
	int fds[3];

	begin();
	raw_hello(&r, PGC_ROLE_CLIENT);
	fds[0] = r.uffd = raw_uffd(O_NONBLOCK);
	fds[1] = open("f", O_RDWR | O_CLOEXEC);
	fds[2] = open("g", O_RDWR | O_CLOEXEC);
	send_msg(r.sock, &m, fds, 3);
	close(fds[1]);
	close(fds[2]);
	expect_refused(recv_msg(r.sock, &m, NULL) ? (int)m.status : -1);
	raw_close(&r);
	end(CHECK_BOTH);
}

/* ---- requests whose fields are wrong ---- */

/* Each in a handle of its own, since most end the connection. */
static void refused_on_a_handle(struct pgc_msg m, int fd)
{
	struct raw r;

	raw_open(&r, "f", O_RDWR);
	expect_refused(raw_call(&r, &m, &fd, fd >= 0));
	raw_close(&r);
	if (fd >= 0)
		close(fd);
}

SYSTEM_TEST(map_ranges_that_cannot_be)
{
	static const struct pgc_map bad[] = {
		{.addr = 4097, .len = PAGE}, {.addr = PAGE, .len = 100}, {.addr = PAGE, .len = PAGE, .off = 1}, {.addr = PAGE, .len = 0},
		{.addr = UINT64_MAX - PAGE + 1, .len = 2 * PAGE}, {.addr = PAGE, .len = UINT64_MAX - PAGE + 1},
		{.addr = PAGE, .len = PAGE, .off = UINT64_MAX - PAGE + 1}, {.addr = 1ull << 63, .len = 1ull << 63},
		{.addr = PAGE, .len = PAGE, .off = 1ull << 63},
	};

	begin();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct pgc_msg m = {.type = PGC_MSG_MAP, .map = bad[i]};

		m.map.flags = PGC_MAP_SHARED;
		m.map.prot = PROT_READ;
		refused_on_a_handle(m, -1);
	}
	end(CHECK_BOTH);
}

/* As large as addresses are, and where nothing is mapped: whatever the answer, nobody else notices, and msync of it ends. */
SYSTEM_TEST(map_ranges_that_are_absurd)
{
	struct pgc_msg m = map_msg((void *)PAGE, (1ull << 47) - 2 * PAGE, 0);
	struct raw r;

	begin();
	raw_open(&r, "f", O_RDWR);
	(void)raw_call(&r, &m, NULL, 0);
	ask_healthy(CHECK_BOTH);
	raw_close(&r);
	raw_open(&r, "f", O_RDWR);
	m = map_msg((void *)(PAGE * 16), 1ull << 40, 1ull << 40);
	if (raw_call(&r, &m, NULL, 0) == 0) {
		m = (struct pgc_msg){.type = PGC_MSG_SYNC, .sync = {.off = PAGE * 16, .len = 1ull << 40}};
		(void)raw_call(&r, &m, NULL, 0);
		m = (struct pgc_msg){.type = PGC_MSG_POPULATE, .populate = {.addr = PAGE * 16, .len = 1ull << 40, .write = 1}};
		m.tag = 78;
		(void)send_bytes(r.sock, &m, sizeof(m), NULL, 0);
	}
	ask_healthy(CHECK_BOTH);
	raw_close(&r);
	end(CHECK_BOTH);
}

SYSTEM_TEST(many_mappings_of_one_client_end)
{
	struct raw r;

	begin();
	raw_open(&r, "f", O_RDWR);
	for (uint64_t i = 1; i <= 5000; i++) {
		struct pgc_msg m = map_msg((void *)(i * 4 * PAGE), PAGE, i % FILE_PAGES * PAGE);

		if (raw_call(&r, &m, NULL, 0) < 0)
			break;
	}
	ask_healthy(CHECK_BOTH);
	raw_close(&r);
	WAIT_UNTIL(file_state("f").mappings <= 1);
	end(CHECK_BOTH);
}

/* One handle may have as many segments as a page may have mappings: the second one has none left. */
SYSTEM_TEST(a_page_is_mapped_a_bounded_number_of_times)
{
	enum { MOST = 16384 };
	struct raw r[2];
	struct pgc_msg m;

	begin();
	for (int k = 0; k < 2; k++)
		raw_open(&r[k], "h", O_RDWR);
	for (uint64_t i = 1; i <= MOST; i++) {
		m = map_msg((void *)(i * 4 * PAGE), PAGE, 3 * PAGE);
		CHECK_EQ(raw_call(&r[0], &m, NULL, 0), 0);
	}
	m = map_msg((void *)((MOST + 1) * 4 * PAGE), PAGE, 0);
	CHECK_EQ(raw_call(&r[0], &m, NULL, 0), EMFILE);
	m = map_msg((void *)(4 * PAGE), PAGE, 3 * PAGE);
	CHECK_EQ(raw_call(&r[1], &m, NULL, 0), EMFILE);
	m = map_msg((void *)(4 * PAGE), PAGE, 4 * PAGE);
	CHECK_EQ(raw_call(&r[1], &m, NULL, 0), 0);
	ask_healthy(CHECK_BOTH);
	raw_close(&r[0]);
	raw_close(&r[1]);
	end(CHECK_BOTH);
}

SYSTEM_TEST(a_transfer_area_that_could_shrink_or_is_none)
{
	struct pgc_msg m = {.type = PGC_MSG_XFER};
	int all = F_SEAL_SHRINK | F_SEAL_GROW;

	begin();
	refused_on_a_handle(m, sealed_memfd(PGC_XFER_SIZE, 0));
	refused_on_a_handle(m, sealed_memfd(PGC_XFER_SIZE, F_SEAL_GROW));
	refused_on_a_handle(m, sealed_memfd(PGC_XFER_SIZE / 2, all));
	refused_on_a_handle(m, sealed_memfd(0, all));
	refused_on_a_handle(m, bad_pipe());
	refused_on_a_handle(m, bad_regular_file());
	refused_on_a_handle(m, bad_uffd());
	refused_on_a_handle(m, -1);
	end(CHECK_BOTH);
}

SYSTEM_TEST(writes_out_of_the_transfer_area)
{
	static const struct pgc_write bad[] = {
		{.len = PGC_WRITE_MAX + 1}, {.len = 10, .pos = PGC_XFER_SIZE - 9}, {.len = 10, .pos = UINT64_MAX - 4},
		{.len = UINT64_MAX, .pos = 1}, {.len = 10, .off = UINT64_MAX - 4}, {.len = 10, .off = 1ull << 63},
		{.len = UINT64_MAX - 5, .pos = 10, .off = 10},
	};
	int xfer = sealed_memfd(PGC_XFER_SIZE, F_SEAL_SHRINK | F_SEAL_GROW);

	begin();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct pgc_msg m = {.type = PGC_MSG_XFER};
		struct raw r;

		raw_open(&r, "f", O_RDWR);
		CHECK_EQ(raw_call(&r, &m, &xfer, 1), 0);
		m = (struct pgc_msg){.type = PGC_MSG_WRITE, .write = bad[i]};
		expect_refused(raw_call(&r, &m, NULL, 0));
		raw_close(&r);
	}
	end(CHECK_BOTH);
}

SYSTEM_TEST(writes_from_a_wrong_data_descriptor)
{
	struct pgc_msg m = {.type = PGC_MSG_WRITE, .write = {.len = 8192, .flags = PGC_WRITE_DATAFD}};
	int all = F_SEAL_SHRINK | F_SEAL_GROW;

	begin();
	refused_on_a_handle(m, -1);
	refused_on_a_handle(m, sealed_memfd(8192, 0));
	refused_on_a_handle(m, sealed_memfd(8191, all));
	refused_on_a_handle(m, bad_pipe());
	refused_on_a_handle(m, bad_regular_file());
	m.write.pos = UINT64_MAX - 100;
	refused_on_a_handle(m, sealed_memfd(8192, all));
	m.write.pos = 1;
	refused_on_a_handle(m, sealed_memfd(8192, all));
	end(CHECK_BOTH);
}

SYSTEM_TEST(sizes_and_ranges_out_of_range)
{
	static const struct pgc_msg bad[] = {
		{.type = PGC_MSG_TRUNCATE, .truncate = {.size = 1ull << 63}},
		{.type = PGC_MSG_TRUNCATE, .truncate = {.size = UINT64_MAX}},
		{.type = PGC_MSG_FALLOCATE, .fallocate = {.off = UINT64_MAX - 10, .len = 20, .mode = 3}},
		{.type = PGC_MSG_FALLOCATE, .fallocate = {.off = 0, .len = 0, .mode = 3}},
		{.type = PGC_MSG_FALLOCATE, .fallocate = {.off = 0, .len = PAGE, .mode = 0x7f00}},
		{.type = PGC_MSG_FADVISE, .fadvise = {.off = UINT64_MAX, .len = 20, .advice = 0}},
		{.type = PGC_MSG_FADVISE, .fadvise = {.off = 0, .len = 20, .advice = 4711}},
		{.type = PGC_MSG_MADVISE, .madvise = {.addr = PAGE, .len = PAGE, .advice = 4711}},
		{.type = PGC_MSG_MADVISE, .madvise = {.addr = 1, .len = PAGE, .advice = 3}},
		{.type = PGC_MSG_SYNC, .sync = {.off = 1ull << 63, .len = PAGE}},
		{.type = PGC_MSG_SYNC, .sync = {.off = PAGE, .len = UINT64_MAX}},
		{.type = PGC_MSG_POPULATE, .populate = {.addr = 1, .len = PAGE}},
		{.type = PGC_MSG_POPULATE, .populate = {.addr = PAGE, .len = PAGE}},
		{.type = PGC_MSG_KEEP, .keep = {.off = UINT64_MAX, .len = 20, .on = 1}},
		{.type = PGC_MSG_KEEP, .keep = {.off = 0, .len = 20, .on = 2}},
		{.type = PGC_MSG_SYNC, .sync = {.flags = 1u << 4}},
		{.type = PGC_MSG_SEEK, .seek = {.off = 1ull << 63, .whence = SEEK_DATA}},
		{.type = PGC_MSG_SEEK, .seek = {.off = PAGE, .whence = SEEK_DATA, .pad = 1}},
		{.type = PGC_MSG_SEEK, .seek = {.off = 0, .whence = SEEK_SET}},
	};

	begin();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refused_on_a_handle(bad[i], -1);
	end(CHECK_BOTH);
}

/* ---- clone ---- */

static void refused_clone(uint64_t dev, uint64_t ino, uint32_t flags, int memfd)
{
	struct pgc_msg m = {.type = PGC_MSG_CLONE, .clone = {.file_dev = dev, .file_ino = ino, .flags = flags}};
	struct raw r;

	raw_hello(&r, PGC_ROLE_CLIENT);
	r.uffd = raw_uffd(O_NONBLOCK);
	expect_refused(raw_call(&r, &m, (int[]){r.uffd, memfd}, 2));
	raw_close(&r);
}

SYSTEM_TEST(a_clone_needs_the_memfd_of_that_file)
{
	struct raw f, g;
	int own, pipe_fd, file;

	begin();
	raw_open(&f, "f", O_RDWR);
	raw_open(&g, "g", O_RDWR);
	own = sealed_memfd(FILE_SIZE, 0);
	pipe_fd = bad_pipe();
	file = bad_regular_file();
	refused_clone(f.reply.file_dev, f.reply.file_ino, O_RDWR, own);
	refused_clone(f.reply.file_dev, f.reply.file_ino, O_RDWR, g.memfd);
	refused_clone(f.reply.file_dev, f.reply.file_ino, O_RDWR, pipe_fd);
	refused_clone(f.reply.file_dev, f.reply.file_ino, O_RDWR, file);
	refused_clone(f.reply.file_dev, f.reply.file_ino, O_RDWR, f.control);
	refused_clone(f.reply.file_dev, f.reply.file_ino + 12345, O_RDWR, f.memfd);
	refused_clone(f.reply.file_dev, f.reply.file_ino, O_RDWR | O_APPEND, f.memfd);
	close(own);
	close(pipe_fd);
	close(file);
	raw_close(&f);
	raw_close(&g);
	end(CHECK_BOTH);
}

SYSTEM_TEST(a_clone_of_a_read_only_memfd_cannot_write)
{
	struct raw f;

	begin();
	raw_open(&f, "f", O_RDONLY);
	refused_clone(f.reply.file_dev, f.reply.file_ino, O_RDWR, f.memfd);
	refused_clone(f.reply.file_dev, f.reply.file_ino, O_WRONLY, f.memfd);
	raw_close(&f);
	end(CHECK_BOTH);
}

/* ---- too many, too slow, too silent ---- */

SYSTEM_TEST(more_requests_than_may_be_outstanding_wait_their_turn)
{
	enum { N = 4 * PGC_REQUESTS_MAX };
	static uint8_t seen[N];
	unsigned sent = 0, answered = 0;
	struct raw r;

	begin();
	raw_open(&r, "mem:slow", O_RDWR);
	inject("mem:slow", PGC_INJECT_READ_DELAY, 20000, 0);
	while (answered < N) {
		struct pollfd p = {.fd = r.sock, .events = POLLIN | (sent < N ? POLLOUT : 0)};
		struct pgc_msg m = {.type = PGC_MSG_READ, .tag = 1000 + sent, .read = {.off = sent % 256 * PAGE, .len = 100}};

		if (poll(&p, 1, 10000) <= 0)
			FAIL("%u of %u requests were answered", answered, sent);
		/* All that go in, and only then the replies. */
		if (sent < N && send(r.sock, &m, sizeof(m), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(m)) {
			sent++;
			continue;
		}
		if (!(p.revents & POLLIN))
			continue;
		CHECK(recv_msg(r.sock, &m, NULL));
		CHECK_EQ(m.status, 0);
		CHECK(m.tag >= 1000 && m.tag < 1000 + N && !seen[m.tag - 1000]);
		seen[m.tag - 1000] = 1;
		answered++;
	}
	raw_close(&r);
	end(CHECK_BOTH);
}

/* Sends until nothing more goes in, and reads nothing. */
static void flood(struct raw *r, uint32_t type)
{
	struct pgc_msg m = {.type = type};

	for (int i = 0, idle = 0; i < 20000 && idle < 50; i++) {
		m.tag = (uint64_t)i;
		if (send(r->sock, &m, sizeof(m), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(m)) {
			idle = 0;
			continue;
		}
		if (errno != EAGAIN)
			break;
		idle++;
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
}

SYSTEM_TEST(a_client_that_never_reads_its_replies)
{
	struct raw r;

	begin();
	raw_open(&r, "f", O_RDWR);
	flood(&r, PGC_MSG_STAT);
	ask_healthy(CHECK_BOTH);
	expect_idle();
	raw_close(&r);
	end(CHECK_BOTH);
}

SYSTEM_TEST(a_control_connection_that_never_reads_its_replies)
{
	struct raw r;

	begin();
	raw_hello(&r, PGC_ROLE_CONTROL);
	flood(&r, PGC_CTL_FILES);
	ask_healthy(CHECK_BOTH);
	expect_idle();
	raw_close(&r);
	end(CHECK_BOTH);
}

SYSTEM_TEST(hundreds_that_connect_and_say_nothing)
{
	static int socks[400];

	begin();
	for (int i = 0; i < 400; i++)
		socks[i] = raw_socket();
	ask_healthy(CHECK_BOTH);
	expect_idle();
	for (int i = 0; i < 400; i++)
		close(socks[i]);
	end(CHECK_BOTH);
}

SYSTEM_TEST(hundreds_that_say_hello_and_no_more)
{
	static struct raw r[400];

	begin();
	for (int i = 0; i < 400; i++)
		raw_hello(&r[i], i & 1 ? PGC_ROLE_CLIENT : PGC_ROLE_CONTROL);
	ask_healthy(CHECK_BOTH);
	expect_idle();
	for (int i = 0; i < 400; i++)
		raw_close(&r[i]);
	end(CHECK_BOTH);
}

/* ---- clients that die ---- */

enum step {
	STEP_CONNECT, STEP_HELLO, STEP_OPEN_SENT, STEP_OPEN, STEP_MMAP, STEP_REGISTER, STEP_MAP_SENT, STEP_MAP, STEP_FAULT, STEP_FSYNC,
	STEP_WRITE,
};

/* A client of a slow file that goes as far as `step` and then waits for its death. */
static void dying_body(struct peer *p, void *arg)
{
	enum step step = *(enum step *)arg;
	struct raw r = {.sock = raw_socket(), .uffd = -1};
	struct pgc_msg m = hello(PGC_ROLE_CLIENT);

	if (step >= STEP_HELLO) {
		send_msg(r.sock, &m, NULL, 0);
		CHECK(recv_msg(r.sock, &m, NULL) && m.status == 0);
	}
	if (step >= STEP_OPEN_SENT)
		raw_send_open(&r, -1, "mem:slow", O_RDWR);
	if (step >= STEP_OPEN)
		raw_finish_open(&r);
	if (step >= STEP_MMAP)
		raw_mmap(&r, 256);
	if (step >= STEP_REGISTER)
		CHECK_EQ(raw_register(r.uffd, r.map, r.map_len, MODES_SHARED), 0);
	m = map_msg(r.map, r.map_len, 0);
	if (step == STEP_MAP_SENT)
		send_msg(r.sock, &m, NULL, 0);
	if (step >= STEP_MAP)
		CHECK_EQ(raw_call(&r, &m, NULL, 0), 0);
	if (step == STEP_FSYNC) {
		store(r.map + 3 * PAGE, 7);
		m = (struct pgc_msg){.type = PGC_MSG_SYNC, .tag = 8};
		send_msg(r.sock, &m, NULL, 0);
	}
	if (step == STEP_WRITE) {
		int xfer = sealed_memfd(PGC_XFER_SIZE, F_SEAL_SHRINK | F_SEAL_GROW);

		m = (struct pgc_msg){.type = PGC_MSG_XFER};
		CHECK_EQ(raw_call(&r, &m, &xfer, 1), 0);
		m = (struct pgc_msg){.type = PGC_MSG_WRITE, .tag = 8, .write = {.off = 5 * PAGE + 1, .len = 3 * PAGE}};
		send_msg(r.sock, &m, NULL, 0);
	}
	peer_tell(p, 1);
	if (step == STEP_FAULT)
		store(r.map + 200 * PAGE, 7);
	for (;;)
		pause();
}

static void dies_at(enum step step)
{
	enum step arg = step;

	begin();
	inject("mem:slow", PGC_INJECT_READ_DELAY, 150000, 0);
	inject("mem:slow", PGC_INJECT_WRITE_DELAY, 150000, 0);
	/* Several times: what is leaked once may hide. */
	for (int i = 0; i < 3; i++) {
		uint64_t faults = status().faults;
		struct peer *p = peer_start(dying_body, &arg);

		peer_hear(p);
		if (step == STEP_FAULT)
			WAIT_UNTIL(status().faults > faults);
		peer_kill(p);
		ask_healthy(CHECK_BOTH);
		WAIT_UNTIL(file_state("mem:slow").handles == 1);
		WAIT_UNTIL(file_state("mem:slow").mappings == 0);
	}
	/* What it stored is written without anyone asking. */
	WAIT_UNTIL(file_state("mem:slow").dirty == 0 && file_state("mem:slow").writeback == 0);
	end(CHECK_BOTH);
}

#define DIES(name, step) SYSTEM_TEST(a_client_dies_##name) { dies_at(step); }
DIES(after_connect, STEP_CONNECT)
DIES(after_hello, STEP_HELLO)
DIES(with_open_sent, STEP_OPEN_SENT)
DIES(after_open, STEP_OPEN)
DIES(after_mmap, STEP_MMAP)
DIES(after_register, STEP_REGISTER)
DIES(with_map_sent, STEP_MAP_SENT)
DIES(after_map, STEP_MAP)
DIES(with_a_fault_pending, STEP_FAULT)
DIES(with_fsync_under_way, STEP_FSYNC)
DIES(with_a_write_under_way, STEP_WRITE)

static void *remove_again_and_again(void *arg)
{
	struct raw *r = arg;

	for (;;)
		madvise(r->map, 64 * PAGE, MADV_DONTNEED);
	return NULL;
}

static void stopped_body(struct peer *p, void *arg)
{
	pthread_t t;
	struct raw r;

	(void)arg;
	raw_open(&r, "mem:slow", O_RDWR);
	raw_map(&r, 256);
	CHECK(pthread_create(&t, NULL, remove_again_and_again, &r) == 0);
	peer_tell(p, 1);
	for (unsigned i = 0;; i = (i + 1) % 128)
		store(r.map + (64 + i) * PAGE, 7);
}

/* Stopped, so it takes neither the answer to its fault nor to its event. */
SYSTEM_TEST(a_stopped_client_with_a_fault_and_an_event_pending)
{
	struct peer *p;

	begin();
	inject("mem:slow", PGC_INJECT_READ_DELAY, 30000, 0);
	p = peer_start(stopped_body, NULL);
	peer_hear(p);
	for (int i = 0; i < 5; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 40000000}, NULL);
		CHECK(kill(p->pid, SIGSTOP) == 0);
		ask_healthy(CHECK_BOTH);
		expect_idle();
		if (i < 4)
			CHECK(kill(p->pid, SIGCONT) == 0);
	}
	peer_kill(p);
	end(CHECK_BOTH);
}

/* ---- userfaultfds that are not what they say ---- */

struct victim {
	void (*touch)(struct peer *p);
	enum order order;          /* what the healthy client may expect afterwards */
};

static void victim_body(struct peer *p, void *arg)
{
	((struct victim *)arg)->touch(p);
	for (;;)
		pause();
}

/* A peer that goes wrong and may well hang by its own fault; it is looked at, then killed. */
static void goes_wrong(void (*touch)(struct peer *p), enum order order)
{
	struct victim v = {touch, order};
	struct peer *p;

	begin();
	p = peer_start(victim_body, &v);
	peer_hear(p);
	nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
	ask_healthy(order);
	expect_idle();
	peer_kill(p);
	end(order);
}

#define GOES_WRONG(name, order, ...) \
	static void name##_touch(struct peer *p) { struct raw r; __VA_ARGS__ } \
	SYSTEM_TEST(name) { goes_wrong(name##_touch, order); }

/* These may end in a signal or hang; neither is the daemon's concern. A store that gets through changes f, which is allowed. */
static void touch(struct peer *p, uint8_t *at)
{
	uint8_t byte;

	peer_tell(p, 1);
	(void)load_signal(at, &byte);
	(void)store_signal(at, 1);
}

GOES_WRONG(faults_where_no_mapping_was_announced, CHECK_BOTH,
	raw_open(&r, "f", O_RDWR);
	raw_mmap(&r, 16);
	CHECK_EQ(raw_register(r.uffd, r.map, r.map_len, MODES_SHARED), 0);
	drop_clean();
	uint8_t byte;
	peer_tell(p, 1);
	(void)load_signal(r.map, &byte);)

GOES_WRONG(anonymous_memory_is_registered_as_the_file, CHECK_BOTH,
	raw_open(&r, "f", O_RDWR);
	r.map = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(r.map != MAP_FAILED);
	CHECK_EQ(raw_register(r.uffd, r.map, 16 * PAGE, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP), 0);
	struct pgc_msg m = map_msg(r.map, 16 * PAGE, 0);
	(void)raw_call(&r, &m, NULL, 0);
	touch(p, r.map);)

GOES_WRONG(a_memfd_of_ones_own_is_registered_as_the_file, CHECK_BOTH,
	raw_open(&r, "f", O_RDWR);
	int own = sealed_memfd(FILE_SIZE, 0);
	r.map = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, own, 0);
	CHECK(r.map != MAP_FAILED);
	CHECK_EQ(raw_register(r.uffd, r.map, 16 * PAGE, MODES_SHARED), 0);
	struct pgc_msg m = map_msg(r.map, 16 * PAGE, 0);
	(void)raw_call(&r, &m, NULL, 0);
	touch(p, r.map);)

GOES_WRONG(another_files_memfd_is_registered_as_the_file, CHECK_BOTH,
	struct raw other;
	raw_open(&r, "f", O_RDWR);
	raw_open(&other, "h", O_RDWR);
	r.map = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, other.memfd, 32 * PAGE);
	CHECK(r.map != MAP_FAILED);
	CHECK_EQ(raw_register(r.uffd, r.map, 16 * PAGE, MODES_SHARED), 0);
	struct pgc_msg m = map_msg(r.map, 16 * PAGE, 0);
	(void)raw_call(&r, &m, NULL, 0);
	touch(p, r.map);)

GOES_WRONG(a_mapping_at_another_offset_than_announced, CHECK_OTHER,
	raw_open(&r, "f", O_RDWR);
	raw_mmap(&r, 16);
	CHECK_EQ(raw_register(r.uffd, r.map, r.map_len, MODES_SHARED), 0);
	struct pgc_msg m = map_msg(r.map, r.map_len, 40 * PAGE);
	(void)raw_call(&r, &m, NULL, 0);
	touch(p, r.map);)

GOES_WRONG(a_shared_mapping_without_write_protection, CHECK_OTHER,
	raw_open(&r, "f", O_RDWR);
	raw_mmap(&r, 16);
	CHECK_EQ(raw_register(r.uffd, r.map, r.map_len, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR), 0);
	struct pgc_msg m = map_msg(r.map, r.map_len, 0);
	(void)raw_call(&r, &m, NULL, 0);
	touch(p, r.map);
	m = (struct pgc_msg){.type = PGC_MSG_SYNC}; (void)raw_call(&r, &m, NULL, 0);)

GOES_WRONG(o_nonblock_is_cleared_on_the_userfaultfd, CHECK_BOTH,
	raw_open(&r, "f", O_RDWR);
	raw_map(&r, 16);
	CHECK(fcntl(r.uffd, F_SETFL, 0) == 0);
	drop_clean();
	uint8_t byte;
	peer_tell(p, 1);
	for (;;) {
		(void)load_signal(r.map + 3 * PAGE, &byte);
		madvise(r.map, 16 * PAGE, MADV_DONTNEED);
		nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
	})

static void *steal(void *arg)
{
	struct raw *r = arg;
	struct uffd_msg m;

	for (;;)
		if (read(r->uffd, &m, sizeof(m)) < 0)
			nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	return NULL;
}

GOES_WRONG(messages_are_stolen_from_the_userfaultfd, CHECK_BOTH,
	pthread_t t;
	raw_open(&r, "f", O_RDWR);
	raw_map(&r, 64);
	drop_clean();
	CHECK(pthread_create(&t, NULL, steal, &r) == 0);
	uint8_t byte;
	peer_tell(p, 1);
	for (unsigned i = 0;; i = (i + 1) % 64) {
		(void)load_signal(r.map + i * PAGE, &byte);
		madvise(r.map + i * PAGE, PAGE, MADV_DONTNEED);
		nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
	})

/* The events of munmap and mremap are read by the client itself: the daemon's view is stale. */
GOES_WRONG(events_are_stolen_from_the_userfaultfd, CHECK_BOTH,
	pthread_t t;
	raw_open(&r, "f", O_RDWR);
	raw_map(&r, 64);
	CHECK(pthread_create(&t, NULL, steal, &r) == 0);
	munmap(r.map, 16 * PAGE);
	(void)mremap(r.map + 32 * PAGE, 16 * PAGE, 32 * PAGE, MREMAP_MAYMOVE);
	struct pgc_msg m = {.type = PGC_MSG_SYNC, .sync = {.off = 0, .len = 64 * PAGE}};
	(void)raw_call(&r, &m, NULL, 0);
	peer_tell(p, 1);)

GOES_WRONG(the_userfaultfd_is_unregistered_behind_the_daemons_back, CHECK_OTHER,
	raw_open(&r, "f", O_RDWR);
	raw_map(&r, 16);
	store(r.map, 9);
	struct uffdio_range all = {.start = (uintptr_t)r.map, .len = r.map_len};
	CHECK(ioctl(r.uffd, UFFDIO_UNREGISTER, &all) == 0);
	store(r.map + PAGE, 9);
	struct pgc_msg m = {.type = PGC_MSG_SYNC};
	(void)raw_call(&r, &m, NULL, 0);
	peer_tell(p, 1);)

/* ---- what one may do to a memfd that one may write ---- */

GOES_WRONG(the_memfd_is_truncated_to_nothing, CHECK_OTHER,
	raw_open(&r, "f", O_RDWR);
	raw_map(&r, 16);
	store(r.map, 9);
	(void)!ftruncate(r.memfd, 0);
	struct pgc_msg m = {.type = PGC_MSG_SYNC};
	(void)raw_call(&r, &m, NULL, 0);
	m = (struct pgc_msg){.type = PGC_MSG_READ, .read = {.len = FILE_SIZE}};
	(void)raw_call(&r, &m, NULL, 0);
	touch(p, r.map);)

GOES_WRONG(the_memfd_is_grown, CHECK_OTHER,
	raw_open(&r, "f", O_RDWR);
	raw_mmap(&r, 512);
	CHECK_EQ(raw_register(r.uffd, r.map, r.map_len, MODES_SHARED), 0);
	struct pgc_msg m = map_msg(r.map, r.map_len, 0);
	(void)raw_call(&r, &m, NULL, 0);
	(void)!ftruncate(r.memfd, 512 * PAGE);
	(void)store_signal(r.map, 9);
	peer_tell(p, 1);
	(void)store_signal(r.map + 500 * PAGE, 9);
	m = (struct pgc_msg){.type = PGC_MSG_SYNC};
	(void)raw_call(&r, &m, NULL, 0);)

GOES_WRONG(holes_are_punched_under_dirty_and_clean_pages, CHECK_OTHER,
	raw_open(&r, "f", O_RDWR);
	raw_map(&r, 64);
	for (unsigned i = 0; i < 64; i += 2)
		store(r.map + i * PAGE, 9);
	(void)fallocate(r.memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 64 * PAGE);
	(void)madvise(r.map + 8 * PAGE, 8 * PAGE, MADV_REMOVE);
	peer_tell(p, 1);
	for (unsigned i = 0; i < 64; i++) {
		uint8_t byte;
		(void)load_signal(r.map + i * PAGE, &byte);
	}
	struct pgc_msg m = {.type = PGC_MSG_SYNC};
	(void)raw_call(&r, &m, NULL, 0);)

GOES_WRONG(the_memfd_is_sealed, CHECK_OTHER,
	raw_open(&r, "f", O_RDWR);
	raw_map(&r, 16);
	store(r.map, 9);
	(void)fcntl(r.memfd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK);
	(void)fcntl(r.memfd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
	struct pgc_msg m = {.type = PGC_MSG_TRUNCATE, .truncate = {.size = 3 * PAGE}};
	(void)raw_call(&r, &m, NULL, 0);
	peer_tell(p, 1);)

/* Bytes go in beside all tracking. */
GOES_WRONG(the_memfd_is_written_directly, CHECK_OTHER,
	raw_open(&r, "f", O_RDWR);
	uint8_t *junk = malloc(FILE_SIZE);
	CHECK(junk);
	memset(junk, 0x5a, FILE_SIZE);
	(void)!pwrite(r.memfd, junk, FILE_SIZE, 0);
	(void)!pwrite(r.memfd, junk, PAGE, 300 * PAGE);
	free(junk);
	peer_tell(p, 1);)

/* Pages that nobody is charged for: the memory limit holds all the same. */
SYSTEM_TEST(pages_put_into_the_memfd_past_the_daemon_are_dropped, .memory_max = "32M")
{
	char *path = make_file("f", 4096 * PAGE, 1), block[BLOCK];
	struct raw r;
	struct stat st;

	raw_open(&r, "f", O_RDWR);
	memset(block, 'x', sizeof(block));
	for (uint64_t off = 0; off < 4096 * PAGE; off += BLOCK)
		CHECK_EQ(pwrite(r.memfd, block, BLOCK, (off_t)off), BLOCK);
	CHECK(fstat(r.memfd, &st) == 0 && (uint64_t)st.st_blocks * 512 == 4096 * PAGE);
	WAIT_UNTIL(fstat(r.memfd, &st) == 0 && (uint64_t)st.st_blocks * 512 <= 64 * PAGE);
	WAIT_UNTIL(strstr(daemon_log(), "of its own"));
	raw_close(&r);
	/* And the file is what it was. */
	struct pgc_file *f = open_file(path, O_RDONLY);
	uint8_t *m = map(f, 4096 * PAGE, PROT_READ, MAP_SHARED, 0);

	PATTERN_CHECK(m, 4096 * PAGE, 0, 1);
}

SYSTEM_TEST(a_fork_storm)
{
	struct raw r;

	begin();
	raw_open(&r, "f", O_RDWR);
	raw_map(&r, 64);
	for (int round = 0; round < 10; round++) {
		pid_t pids[20];

		for (int i = 0; i < 20; i++) {
			pids[i] = fork();
			CHECK(pids[i] >= 0);
			if (pids[i] == 0) {
				uint8_t byte;

				/* Some go at once, some touch, some unmap, some die of a signal. */
				if (i % 4 == 1 && (r.reply.flags & PGC_HANDLE_FORK_EVENTS))
					(void)load_signal(r.map + i * PAGE, &byte);
				if (i % 4 == 2)
					munmap(r.map, r.map_len);
				if (i % 4 == 3)
					raise(SIGKILL);
				_exit(0);
			}
		}
		if (round % 3 == 0)
			ask_healthy(CHECK_BOTH);
		for (int i = 0; i < 20; i++)
			wait_child(pids[i]);
	}
	raw_close(&r);
	end(CHECK_BOTH);
}

static void fork_forever(struct peer *p)
{
	struct raw r;

	raw_open(&r, "f", O_RDWR);
	raw_map(&r, 64);
	peer_tell(p, 1);
	for (;;) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		if (pid > 0)
			waitpid(pid, NULL, 0);
	}
}

SYSTEM_TEST(a_client_that_forks_without_end)
{
	struct victim v = {fork_forever, CHECK_BOTH};
	struct peer *p;

	begin();
	p = peer_start(victim_body, &v);
	peer_hear(p);
	for (int i = 0; i < 3; i++)
		ask_healthy(CHECK_BOTH);
	peer_kill(p);
	end(CHECK_BOTH);
}

/* ---- a reader of another user ---- */

/* As nobody, with a read-only handle on f, of which nothing is resident. */
static void reader_body(struct peer *p, void *arg)
{
	void (*act)(struct raw *r) = *(void (**)(struct raw *))arg;
	struct raw r;

	drop_privilege();
	raw_open(&r, "f", O_RDONLY);
	act(&r);
	peer_tell(p, 1);
	peer_hear(p);              /* the healthy client has looked */
	raw_close(&r);
}

static void reader(void (*act)(struct raw *r))
{
	struct peer *p;

	need_root();
	begin();
	CHECK(chmod("f", 0644) == 0);
	drop_clean();
	p = peer_start(reader_body, &act);
	peer_hear(p);
	ask_healthy(CHECK_BOTH);
	ask_healthy(CHECK_BOTH);
	peer_tell(p, 1);
	peer_join(p);
	end(CHECK_BOTH);
}

#define READER(name, ...) \
	static void name##_act(struct raw *r) { __VA_ARGS__ } \
	SYSTEM_TEST(a_foreign_reader_##name) { reader(name##_act); }

static int reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_CLOEXEC);
}

READER(cannot_write_the_memfd,
	CHECK(write(r->memfd, "x", 1) < 0);
	CHECK(pwrite(r->memfd, "x", 1, 5 * PAGE) < 0);
	CHECK(ftruncate(r->memfd, 0) < 0);
	CHECK(fallocate(r->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) < 0);)

READER(cannot_reopen_the_memfd_for_writing,
	CHECK(fchmod(r->memfd, 0777) < 0);
	CHECK(fchown(r->memfd, geteuid(), getegid()) < 0);
	CHECK(reopen(r->memfd, O_RDWR) < 0);
	CHECK(reopen(r->memfd, O_WRONLY) < 0);
	CHECK(reopen(r->memfd, O_WRONLY | O_TRUNC) < 0);)

READER(cannot_map_the_memfd_for_writing,
	void *q = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r->memfd, 0);
	CHECK(q == MAP_FAILED);
	q = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, r->memfd, 0);
	CHECK(q != MAP_FAILED);
	CHECK(mprotect(q, PAGE, PROT_READ | PROT_WRITE) < 0);
	CHECK(madvise(q, PAGE, MADV_REMOVE) < 0);
	munmap(q, PAGE);)

READER(cannot_seal_the_memfd,
	/* A seal against writing or growing would lock the daemon out. */
	CHECK(fcntl(r->memfd, F_ADD_SEALS, F_SEAL_WRITE) < 0);
	CHECK(fcntl(r->memfd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0);)

READER(cannot_write_the_control_page,
	CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r->control, 0) == MAP_FAILED);
	CHECK(write(r->control, "x", 1) < 0);
	CHECK(ftruncate(r->control, 0) < 0);
	int fd = reopen(r->control, O_RDWR);
	CHECK(fd < 0 || (pwrite(fd, "x", 1, 0) < 0 && ftruncate(fd, 0) < 0 &&
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED));
	if (fd >= 0) close(fd);)

/* Zero pages come to be in the memfd where nothing was filled: nobody else may take them for the file. */
READER(touches_unfilled_holes_through_a_mapping,
	uint8_t *q = mmap(NULL, FILE_SIZE, PROT_READ, MAP_SHARED, r->memfd, 0);
	CHECK(q != MAP_FAILED);
	for (unsigned i = 0; i < FILE_PAGES; i++)
		(void)load(q + i * PAGE);
	munmap(q, FILE_SIZE);)

READER(reads_unfilled_holes,
	uint8_t *q = malloc(FILE_SIZE);
	CHECK(q);
	CHECK(pread(r->memfd, q, FILE_SIZE, 0) >= 0);
	free(q);)

READER(populates_and_prefetches_unfilled_holes,
	uint8_t *q = mmap(NULL, FILE_SIZE, PROT_READ, MAP_PRIVATE | MAP_POPULATE, r->memfd, 0);
	CHECK(q != MAP_FAILED);
	(void)posix_fadvise(r->memfd, 0, 0, POSIX_FADV_WILLNEED);
	(void)mlock(q, 16 * PAGE);
	munmap(q, FILE_SIZE);)

READER(is_refused_every_change,
	struct pgc_msg m = {.type = PGC_MSG_TRUNCATE, .truncate = {.size = 0}};
	expect_refused(raw_call(r, &m, NULL, 0));
	raw_close(r);
	raw_open(r, "f", O_RDONLY);
	m = (struct pgc_msg){.type = PGC_MSG_FALLOCATE, .fallocate = {.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, .len = PAGE}};
	expect_refused(raw_call(r, &m, NULL, 0));
	raw_close(r);
	raw_open(r, "f", O_RDONLY);
	m = (struct pgc_msg){.type = PGC_MSG_WRITE, .write = {.len = PAGE, .flags = PGC_WRITE_DATAFD}};
	int data = sealed_memfd(PAGE, F_SEAL_SHRINK);
	expect_refused(raw_call(r, &m, &data, 1));
	close(data);
	raw_close(r);
	raw_open(r, "f", O_RDONLY);
	m = (struct pgc_msg){.type = PGC_MSG_KEEP, .keep = {.len = PAGE, .on = 1}};
	expect_refused(raw_call(r, &m, NULL, 0));)

/*
 * Memory of its own stands where it said the file would: the daemon finds no page there that it knows to be resident. That tells
 * nothing of the file, and must not make it zeros, or fill it again over what others stored.
 */
static void touch_own_memory(struct raw *r, int flags, uint64_t modes)
{
	int own = sealed_memfd(FILE_SIZE, 0);
	struct pgc_msg m;
	pid_t pid;

	r->map_len = FILE_PAGES * PAGE;
	r->map = mmap(NULL, r->map_len, PROT_READ | PROT_WRITE, flags, flags & MAP_ANONYMOUS ? -1 : own, 0);
	CHECK(r->map != MAP_FAILED);
	close(own);
	CHECK_EQ(raw_register(r->uffd, r->map, r->map_len, modes), 0);
	m = map_msg(r->map, r->map_len, 0);
	m.map.flags = 0;
	(void)raw_call(r, &m, NULL, 0);
	/* In a child, which may hang for ever; one fault after the other until it does. */
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		uint8_t byte;

		for (unsigned i = 0; i < FILE_PAGES; i++) {
			(void)load_signal(r->map + i * PAGE, &byte);
			(void)store_signal(r->map + i * PAGE, 1);
		}
		_exit(0);
	}
	nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

READER(registers_a_memfd_of_its_own, touch_own_memory(r, MAP_SHARED, MODES_SHARED);)
READER(registers_a_private_mapping_of_its_own_memfd,
	touch_own_memory(r, MAP_PRIVATE, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);)
READER(registers_anonymous_memory, touch_own_memory(r, MAP_PRIVATE | MAP_ANONYMOUS, UFFDIO_REGISTER_MODE_MISSING);)

/* A private mapping may be announced as shared; it cannot be registered for writing, and marks nothing dirty. */
READER(cannot_announce_a_shared_mapping,
	struct pgc_msg m = map_msg((void *)(16 * PAGE), 16 * PAGE, 0);
	expect_refused(raw_call(r, &m, NULL, 0));)

READER(cannot_drop_or_set_or_inject,
	struct raw c;
	raw_hello(&c, PGC_ROLE_CONTROL);
	struct pgc_msg m = {.type = PGC_CTL_DROP};
	expect_refused(raw_call(&c, &m, NULL, 0));
	raw_close(&c);
	raw_hello(&c, PGC_ROLE_CONTROL);
	m = (struct pgc_msg){.type = PGC_CTL_INJECT, .ctl_inject = {.what = 4711, .uri = "mem:x"}};
	expect_refused(raw_call(&c, &m, NULL, 0));
	raw_close(&c);
	raw_hello(&c, PGC_ROLE_CONTROL);
	m = (struct pgc_msg){.type = PGC_CTL_SET, .ctl_set = {.name = "memory_max", .value = "64M"}};
	expect_refused(raw_call(&c, &m, NULL, 0));
	raw_close(&c);)

#define T(name) cmocka_unit_test(name)
SYSTEM_TESTS_MAIN("hostile",
	T(garbage_before_hello), T(garbage_after_hello), T(garbage_on_a_control_connection), T(garbage_on_a_handle),
	T(a_message_of_one_byte), T(a_truncated_message), T(a_message_one_byte_too_long), T(a_message_of_64_kib),
	T(an_unknown_type_after_hello), T(an_unknown_type_on_a_handle), T(a_reply_as_a_request), T(a_control_request_on_a_handle),
	T(a_client_request_on_a_control_connection), T(a_request_before_hello), T(a_request_before_open), T(hello_twice),
	T(hello_with_a_wrong_magic), T(hello_with_an_unknown_role), T(hello_with_a_status), T(hello_with_its_padding_set),
	T(hello_with_a_reserved_byte), T(a_status_in_a_request), T(a_reserved_byte_at_the_end), T(padding_in_sync),
	T(an_unknown_flag_in_sync), T(an_unknown_flag_in_write), T(an_unknown_flag_in_map), T(a_read_of_more_than_the_most),
	T(a_read_that_overflows), T(a_write_without_a_transfer_area), T(descriptors_beside_hello),
	T(descriptors_beside_a_request_that_takes_none), T(descriptors_on_a_control_connection), T(a_reserved_byte_in_a_control_request),
	T(a_reserved_byte_in_a_request_for_memory), T(a_reserved_byte_behind_a_setting), T(the_name_of_a_setting_without_an_end),
	T(the_value_of_a_setting_without_an_end), T(one_descriptor_too_many),
	T(two_hundred_descriptors), T(open_twice), T(clone_after_open), T(open_without_descriptors), T(open_with_the_uffd_only),
	T(clone_without_descriptors), T(another_version_is_told_so),
	T(as_userfaultfd_pipe), T(as_userfaultfd_socket), T(as_userfaultfd_directory), T(as_userfaultfd_o_path), T(as_userfaultfd_dev_null),
	T(as_userfaultfd_eventfd), T(as_userfaultfd_regular_file), T(as_userfaultfd_configured_uffd), T(as_userfaultfd_blocking_uffd),
	T(as_file_pipe), T(as_file_socket), T(as_file_directory), T(as_file_o_path), T(as_file_dev_null), T(as_file_eventfd), T(as_file_fifo),
	T(as_file_uffd), T(a_read_only_descriptor_opens_no_writable_handle), T(the_direct_descriptor_of_another_file_is_refused),
	T(map_ranges_that_cannot_be), T(map_ranges_that_are_absurd), T(many_mappings_of_one_client_end), T(a_page_is_mapped_a_bounded_number_of_times),
	T(a_transfer_area_that_could_shrink_or_is_none), T(writes_out_of_the_transfer_area), T(writes_from_a_wrong_data_descriptor),
	T(sizes_and_ranges_out_of_range), T(a_clone_needs_the_memfd_of_that_file), T(a_clone_of_a_read_only_memfd_cannot_write),
	T(more_requests_than_may_be_outstanding_wait_their_turn), T(a_client_that_never_reads_its_replies),
	T(a_control_connection_that_never_reads_its_replies), T(hundreds_that_connect_and_say_nothing), T(hundreds_that_say_hello_and_no_more),
	T(a_client_dies_after_connect), T(a_client_dies_after_hello), T(a_client_dies_with_open_sent), T(a_client_dies_after_open),
	T(a_client_dies_after_mmap), T(a_client_dies_after_register), T(a_client_dies_with_map_sent), T(a_client_dies_after_map),
	T(a_client_dies_with_a_fault_pending), T(a_client_dies_with_fsync_under_way), T(a_client_dies_with_a_write_under_way),
	T(a_stopped_client_with_a_fault_and_an_event_pending), T(faults_where_no_mapping_was_announced),
	T(anonymous_memory_is_registered_as_the_file), T(a_memfd_of_ones_own_is_registered_as_the_file),
	T(another_files_memfd_is_registered_as_the_file), T(a_mapping_at_another_offset_than_announced),
	T(a_shared_mapping_without_write_protection), T(o_nonblock_is_cleared_on_the_userfaultfd), T(messages_are_stolen_from_the_userfaultfd),
	T(events_are_stolen_from_the_userfaultfd), T(the_userfaultfd_is_unregistered_behind_the_daemons_back), T(the_memfd_is_truncated_to_nothing),
	T(the_memfd_is_grown), T(holes_are_punched_under_dirty_and_clean_pages), T(the_memfd_is_sealed), T(the_memfd_is_written_directly),
	T(pages_put_into_the_memfd_past_the_daemon_are_dropped), T(a_fork_storm),
	T(a_client_that_forks_without_end), T(a_foreign_reader_cannot_write_the_memfd), T(a_foreign_reader_cannot_reopen_the_memfd_for_writing),
	T(a_foreign_reader_cannot_map_the_memfd_for_writing), T(a_foreign_reader_cannot_seal_the_memfd),
	T(a_foreign_reader_cannot_write_the_control_page), T(a_foreign_reader_touches_unfilled_holes_through_a_mapping),
	T(a_foreign_reader_reads_unfilled_holes), T(a_foreign_reader_populates_and_prefetches_unfilled_holes),
	T(a_foreign_reader_registers_a_memfd_of_its_own),
	T(a_foreign_reader_registers_a_private_mapping_of_its_own_memfd), T(a_foreign_reader_registers_anonymous_memory),
	T(a_foreign_reader_is_refused_every_change), T(a_foreign_reader_cannot_announce_a_shared_mapping),
	T(a_foreign_reader_cannot_drop_or_set_or_inject))
