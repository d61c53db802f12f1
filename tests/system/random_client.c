/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that send valid messages at random, in any order, with any descriptors, stall, and die: several processes of them at a time, each killed after some
 * moments, beside a client that does as it should and whose bytes are compared all the while. Afterwards the daemon has as many handles and descriptors as
 * before. The same under a keeper, with the daemon killed, too.
 *
 *	random-client [--seconds N] [--seed N]
 */
#include "tests/system/harness.h"

#include <dirent.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define HOSTILE    4u                /* processes at a time */
#define CONNS      5u                /* of each */
#define FILES      3u                /* that they have, beside the good one, which they may only read */
#define FILE_PAGES 80u
#define GOOD_PAGES 70u
#define MARGIN     (4 * FILES + 8)   /* descriptors of files that nobody has open any more, and of the last clients */

static unsigned seconds = 4;
static uint64_t seed;

/* --- chance --- */

static uint64_t rng;

static uint64_t next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng * 0x2545f4914f6cdd1dull >> 11;
}

static unsigned below(unsigned n) { return (unsigned)(next() % n); }
static bool once_in(unsigned n) { return below(n) == 0; }
static void begin_chance(uint64_t n) { rng = (seed + 1) * 0x9e3779b97f4a7c15ull ^ n << 32 ^ 1; }

/* --- the bare protocol --- */

struct conn {
	int sock, uffd, memfd, control;
	struct pgc_open_reply reply;
	uint8_t *map;
	size_t len;
};

static int uffd_new(int flags) { return (int)syscall(SYS_userfaultfd, flags | O_CLOEXEC | UFFD_USER_MODE_ONLY); }

static void send_msg(struct conn *c, const struct pgc_msg *m, const int *fds, unsigned n)
{
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * 8)]; } control = {0};
	struct iovec iov = {(void *)m, sizeof(*m)};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n > 0) {
		struct cmsghdr *head;

		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		head = CMSG_FIRSTHDR(&h);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(sizeof(int) * n);
		memcpy(CMSG_DATA(head), fds, sizeof(int) * n);
	}
	(void)!sendmsg(c->sock, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Whether something came. The first two descriptors that ever come are kept. */
static bool receive(struct conn *c, int ms)
{
	union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * 8)]; } control;
	struct pgc_msg m;
	struct iovec iov = {&m, sizeof(m)};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct pollfd p = {.fd = c->sock, .events = POLLIN};
	struct cmsghdr *head;

	if (poll(&p, 1, ms) <= 0 || recvmsg(c->sock, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof(m))
		return false;
	head = CMSG_FIRSTHDR(&h);
	if (m.type == (PGC_MSG_OPEN | PGC_MSG_REPLY) && m.status == 0)
		c->reply = m.open_reply;
	for (unsigned i = 0; head && i < (head->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
		int fd, *place = i == 0 ? &c->control : &c->memfd;

		memcpy(&fd, CMSG_DATA(head) + i * sizeof(int), sizeof(int));
		if (*place < 0 && m.type != (PGC_MSG_HELLO | PGC_MSG_REPLY))
			*place = fd;
		else
			close(fd);
	}
	return true;
}

static void hang_up(struct conn *c)
{
	int *fds[] = {&c->sock, &c->uffd, &c->memfd, &c->control};

	for (unsigned i = 0; i < 4; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	/* What it has mapped stays. */
	c->map = NULL;
}

static void say_hello(struct conn *c, uint32_t role)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct pgc_msg m = {.type = PGC_MSG_HELLO, .hello = {.magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .role = role}};

	c->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	strcpy(a.sun_path, env.socket);
	if (c->sock < 0 || connect(c->sock, (struct sockaddr *)&a, sizeof(a)) < 0) {
		hang_up(c);
		return;
	}
	send_msg(c, &m, NULL, 0);
	(void)receive(c, 1000);
}

static int some_file(int *ret_flags)
{
	static const int modes[] = {O_RDWR, O_RDWR, O_RDONLY, O_WRONLY};
	char name[8];

	if (once_in(5)) {
		*ret_flags = O_RDONLY;
		return open("good", O_RDONLY | O_CLOEXEC);
	}
	snprintf(name, sizeof(name), "h%u", below(FILES));
	*ret_flags = modes[below(4)];
	return open(name, *ret_flags | O_CLOEXEC);
}

static int some_descriptor(struct conn *c)
{
	int flags;

	switch (below(8)) {
	case 0:
		return uffd_new(O_NONBLOCK);
	case 1:
		return uffd_new(0);
	case 2:
		return some_file(&flags);
	case 3:
		return c->memfd >= 0 ? dup(c->memfd) : -1;
	case 4:
		return c->control >= 0 ? dup(c->control) : -1;
	case 5:
		return dup(c->sock);
	case 6:
		return eventfd(0, EFD_CLOEXEC);
	default:
		return open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
}

static int memfd(size_t size, bool sealed)
{
	int fd = memfd_create("transfer", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd >= 0 && ftruncate(fd, (off_t)size) == 0 && sealed)
		(void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
	return fd;
}

static void open_one(struct conn *c)
{
	struct pgc_msg m = {.type = PGC_MSG_OPEN, .tag = next()};
	int flags, fds[2];

	say_hello(c, PGC_ROLE_CLIENT);
	if (c->sock < 0)
		return;
	c->uffd = uffd_new(O_NONBLOCK);
	fds[0] = c->uffd;
	fds[1] = some_file(&flags);
	m.open.flags = (uint32_t)flags;
	if (once_in(20)) /* the wrong one */
		fds[below(2)] = some_descriptor(c);
	if (fds[0] >= 0 && fds[1] >= 0)
		send_msg(c, &m, fds, 2);
	if (!once_in(4))
		(void)receive(c, 1000);
	if (fds[1] >= 0)
		close(fds[1]);
}

/* --- what they do --- */

static uint64_t pages(unsigned n) { return below(n) * PAGE; }
static uint64_t any_address(const struct conn *c) { return (uintptr_t)c->map + pages(32); }

static void map_some(struct conn *c)
{
	struct pgc_msg m = {.type = PGC_MSG_MAP, .tag = next()};
	size_t len = (1 + below(FILE_PAGES)) * PAGE;
	uint64_t off = pages(FILE_PAGES);
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR};
	bool shared = !once_in(3);
	void *at = c->memfd < 0 ? MAP_FAILED : mmap(NULL, len, PROT_READ | PROT_WRITE, shared ? MAP_SHARED : MAP_PRIVATE, c->memfd, (off_t)off);

	if (at == MAP_FAILED)
		return;
	reg.mode |= shared ? UFFDIO_REGISTER_MODE_WP : 0;
	reg.range.start = (uintptr_t)at;
	reg.range.len = len;
	if (ioctl(c->uffd, UFFDIO_REGISTER, &reg) < 0) {
		munmap(at, len);
		return;
	}
	c->map = at;
	c->len = len;
	m.map = (struct pgc_map){.addr = (uintptr_t)at, .len = len, .off = off, .flags = shared ? PGC_MAP_SHARED : 0, .prot = PROT_READ | PROT_WRITE};
	if (!once_in(10))
		send_msg(c, &m, NULL, 0);
}

/* It may wait for ever, or die of it. */
static void touch(struct conn *c)
{
	volatile uint8_t *p = c->map + below((unsigned)(c->len / PAGE)) * PAGE;

	switch (below(6)) {
	case 0:
		(void)madvise(c->map, c->len, MADV_DONTNEED);
		break;
	case 1:
		(void)madvise(c->map, c->len, once_in(4) ? MADV_REMOVE : MADV_DONTNEED);
		break;
	case 2:
		(void)munmap(c->map, c->len);
		c->map = NULL;
		break;
	case 3:
		(void)*p;
		break;
	default:
		*p = (uint8_t)next();
	}
}

/* Reads that ask nobody, of one who never reads: slots that say anything, pages that were touched or not. */
static void window(struct conn *c)
{
	struct pgc_msg m = {.type = PGC_MSG_WINDOW, .tag = next()};
	uint64_t len = once_in(10) ? next() : (1 + below(4)) * (128ull << 20), size = PGC_TOUCHED_SIZE(len);
	int fds[2] = {memfd(once_in(10) ? 2 * PAGE : PAGE, true), memfd(size > 64 * PAGE || once_in(10) ? 3 * PAGE : size, true)};
	unsigned n = once_in(10) ? below(3) : 2;

	m.window = (struct pgc_window){once_in(2) ? any_address(c) : next() & ~(uint64_t)(PAGE - 1), once_in(8) ? 0 : len};
	for (unsigned i = 0; i < 40; i++) {
		uint64_t word = next();

		(void)!pwrite(fds[i & 1], &word, sizeof(word), (off_t)(below((unsigned)PAGE / 8) * 8));
	}
	for (int i = 0; i < 2; i++)
		if (!once_in(10))
			(void)fcntl(fds[i], F_ADD_SEALS, F_SEAL_GROW);
	send_msg(c, &m, fds, m.window.len == 0 ? 0 : n);
	for (int i = 0; i < 2; i++)
		close(fds[i]);
}

static void request(struct conn *c)
{
	static const uint32_t types[] = {
		PGC_MSG_READ, PGC_MSG_READ, PGC_MSG_WRITE, PGC_MSG_WRITE, PGC_MSG_XFER, PGC_MSG_SYNC, PGC_MSG_TRUNCATE, PGC_MSG_FALLOCATE, PGC_MSG_STAT,
		PGC_MSG_FADVISE, PGC_MSG_MADVISE, PGC_MSG_KEEP, PGC_MSG_SEEK, PGC_MSG_POPULATE, PGC_MSG_CLOSE,
	};
	struct pgc_msg m = {.type = types[below(once_in(30) ? 15 : 14)], .tag = once_in(20) ? 5 : next()};
	uint64_t off = pages(FILE_PAGES) + below(100), len = pages(32) + below(100);
	int fd = -1;

	/* But not of what is written: a store that takes no byte so far away leaves it dirty for ever. */
	if (once_in(20) && m.type != PGC_MSG_WRITE)
		off = next();
	switch (m.type) {
	case PGC_MSG_READ:
		m.read = (struct pgc_read){off, len};
		break;
	case PGC_MSG_WRITE:
		m.write = (struct pgc_write){.off = off, .len = len, .flags = below(4)};
		if (m.write.flags & PGC_WRITE_DATAFD)
			fd = memfd(PGC_XFER_SIZE, !once_in(5));
		break;
	case PGC_MSG_XFER:
		fd = memfd(PGC_XFER_SIZE, !once_in(5));
		break;
	case PGC_MSG_SYNC:
		m.sync = (struct pgc_sync){.off = once_in(2) ? 0 : off, .len = once_in(2) ? 0 : len, .flags = below(8)};
		break;
	case PGC_MSG_TRUNCATE:
		m.truncate.size = once_in(30) ? next() : pages(FILE_PAGES) + below(5000);
		break;
	case PGC_MSG_FALLOCATE:
		m.fallocate = (struct pgc_fallocate){.off = pages(FILE_PAGES), .len = len, .mode = (int32_t)below(4)};
		break;
	case PGC_MSG_FADVISE:
		m.fadvise = (struct pgc_fadvise){.off = off, .len = len, .advice = (int32_t)below(7)};
		break;
	case PGC_MSG_MADVISE:
		m.madvise = (struct pgc_madvise){.addr = any_address(c), .len = (1 + below(32)) * PAGE, .advice = (int32_t)below(25)};
		break;
	case PGC_MSG_KEEP:
		m.keep = (struct pgc_keep){.off = off, .len = len + 1, .on = below(2)};
		break;
	case PGC_MSG_SEEK:
		m.seek = (struct pgc_seek){.off = off, .whence = SEEK_DATA + below(2)};
		break;
	case PGC_MSG_POPULATE:
		m.populate = (struct pgc_populate){.addr = any_address(c), .len = (1 + below(32)) * PAGE, .write = below(2)};
		break;
	case PGC_MSG_STAT:
		m.stat.life = below(2);
		break;
	default:
		break;
	}
	if (once_in(100))
		fd = some_descriptor(c);
	send_msg(c, &m, fd >= 0 ? &fd : NULL, fd >= 0);
	if (fd >= 0)
		close(fd);
}

/* Until it is killed, or dies of what it does. */
static void hostile(uint64_t n)
{
	struct conn conns[CONNS];

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)signal(SIGBUS, SIG_DFL); /* of memory that it has cut itself */
	begin_chance(n);
	for (unsigned i = 0; i < CONNS; i++)
		conns[i] = (struct conn){.sock = -1, .uffd = -1, .memfd = -1, .control = -1};
	for (;;) {
		struct conn *c = &conns[below(CONNS)];
		unsigned what = below(100);

		if (c->sock < 0)
			open_one(c);
		else if (what < 57)
			request(c);
		else if (what < 60)
			window(c);
		else if (what < 75)
			(void)receive(c, 0);
		else if (what < 80 && !c->map)
			map_some(c);
		else if (what < 92 && c->map)
			touch(c);
		else if (what < 94)
			nanosleep(&(struct timespec){.tv_nsec = (long)below(20000000)}, NULL);
		else if (what < 96)
			hang_up(c);
		else if (what < 97 && c->memfd >= 0)
			(void)!ftruncate(c->memfd, (off_t)pages(FILE_PAGES));
		else if (what < 98)
			(void)shutdown(c->sock, SHUT_WR);
	}
}

/* --- the good client --- */

static void good_body(struct peer *p, void *arg)
{
	size_t size = GOOD_PAGES * PAGE;
	struct pgc_file *f = open_file("good", O_RDWR);
	uint8_t *m = map(f, size, PROT_READ | PROT_WRITE, MAP_SHARED, 0), *want = malloc(size), *got = malloc(size);
	volatile uint32_t *stop = arg;
	uint64_t rounds = 0;

	CHECK(want && got);
	pattern_fill(want, size, 0, 1);
	begin_chance(1000);
	peer_tell(p, 1);
	for (; !*stop; rounds++) {
		size_t at = below(GOOD_PAGES) * PAGE + below(3000), n = 1 + below(1000);

		store(m + at, (uint8_t)rounds);
		want[at] = (uint8_t)rounds;
		at = below(GOOD_PAGES) * PAGE + below(3000);
		memset(want + at, (int)next(), n);
		CHECK_EQ(pgc_pwrite(f, want + at, n, (off_t)at), n);
		CHECK_EQ(pgc_pread(f, got, size, 0), size);
		CHECK(memcmp(got, want, size) == 0);
		CHECK(memcmp(m, want, size) == 0);
		if (once_in(8)) {
			CHECK_EQ(pgc_fsync(f), 0);
			store_read("good", got, size, 0);
			CHECK(memcmp(got, want, size) == 0);
		}
	}
	CHECK_EQ(pgc_fsync(f), 0);
	store_read("good", got, size, 0);
	CHECK(memcmp(got, want, size) == 0);
	peer_tell(p, rounds);
	CHECK_EQ(peer_hear(p), 0);
	CHECK_EQ(pgc_munmap(m, size), 0);
	CHECK_EQ(pgc_close(f), 0);
	free(want);
	free(got);
}

/* --- */

static unsigned count_fds(pid_t pid)
{
	char path[64];
	unsigned n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static bool answers(void)
{
	int fd = control_try();

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static pid_t start_hostile(uint64_t n)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0)
		hostile(n);
	return pid;
}

/* Each lives for some moments; some are stopped before they are killed. */
static unsigned run_hostile(uint64_t until, bool kill_daemon)
{
	struct { pid_t pid; uint64_t dies, stops; } h[HOSTILE] = {{0}};
	uint64_t next_death = now_ms() + 700;
	unsigned n = 0, deaths = 0;

	begin_chance(2000);
	while (now_ms() < until) {
		for (unsigned i = 0; i < HOSTILE; i++) {
			if (h[i].pid == 0) {
				h[i].pid = start_hostile(n++);
				h[i].dies = now_ms() + 30 + below(400);
				h[i].stops = once_in(3) ? now_ms() + 20 + below(200) : ~0ull;
			} else if (now_ms() >= h[i].dies || waitpid(h[i].pid, NULL, WNOHANG) > 0) {
				if (now_ms() >= h[i].dies) {
					(void)kill(h[i].pid, SIGKILL);
					(void)waitpid(h[i].pid, NULL, 0);
				}
				h[i].pid = 0;
			} else if (now_ms() >= h[i].stops) {
				(void)kill(h[i].pid, SIGSTOP);
				h[i].stops = ~0ull;
			}
		}
		if (kill_daemon && now_ms() >= next_death && answers()) {
			daemon_kill();
			deaths++;
			next_death = now_ms() + 300 + below(700);
		}
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	for (unsigned i = 0; i < HOSTILE; i++)
		if (h[i].pid) {
			(void)kill(h[i].pid, SIGKILL);
			(void)waitpid(h[i].pid, NULL, 0);
		}
	fprintf(stderr, "seed %" PRIu64 ": %u clients died, the daemon %u times\n", seed, n, deaths);
	return n;
}

static void run_all(bool kill_daemon)
{
	uint32_t *stop = shared_memory(sizeof(*stop));
	struct peer *good;
	uint64_t handles;
	unsigned fds;

	make_file("good", GOOD_PAGES * PAGE, 1);
	for (unsigned i = 0; i < FILES; i++) {
		char name[8];

		snprintf(name, sizeof(name), "h%u", i);
		make_file(name, FILE_PAGES * PAGE, 2);
	}
	good = peer_start(good_body, stop);
	CHECK_EQ(peer_hear(good), 1);
	handles = status().handles;
	fds = count_fds(daemon_pid());
	CHECK(run_hostile(now_ms() + seconds * 1000, kill_daemon) >= HOSTILE);
	*stop = 1;
	CHECK(peer_hear(good) >= 10);
	WAIT_UNTIL_MS(answers(), 30000);
	WAIT_UNTIL_MS(status().handles == handles, 30000);
	WAIT_UNTIL_MS(count_fds(daemon_pid()) <= fds + MARGIN, 30000);
	CHECK_EQ(sync_all(), 0);
	peer_tell(good, 0);
	peer_join(good);
	/* Nothing of it stays in memory. */
	WAIT_UNTIL_MS((drop_clean(), status().resident == 0), 30000);
}

SYSTEM_TEST(clients_at_random_harm_nobody_else, .config = "log_level = error", .dirty_expire = "100ms", .memory_max = "64M", .seconds = 150) { run_all(false); }
SYSTEM_TEST(clients_at_random_and_a_daemon_that_dies_harm_nobody_else, .config = "log_level = error", .dirty_expire = "100ms", .memory_max = "64M", .keep = true,
	    .seconds = 150)
{
	run_all(true);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clients_at_random_harm_nobody_else), cmocka_unit_test(clients_at_random_and_a_daemon_that_dies_harm_nobody_else),
	};

	seed = (uint64_t)time(NULL);
	for (int i = 1; i + 1 < argc; i += 2)
		if (strcmp(argv[i], "--seconds") == 0)
			seconds = (unsigned)atoi(argv[i + 1]);
		else if (strcmp(argv[i], "--seed") == 0)
			seed = strtoull(argv[i + 1], NULL, 10);
	return system_tests_main("random_client", tests, 2);
}
