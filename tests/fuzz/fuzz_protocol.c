/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients and pagecachectl may send: messages of every type, well formed or not, in any order, with any descriptors, while clients map, touch, unmap and cut
 * what they got, and hang up at any time. The daemon is whole but for its threads (serve.h). After each input all clients are gone, and everything that
 * they had made the daemon hold must be given back.
 *
 * An input is a list of steps of some bytes each, see step().
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "daemon/store/store.h"
#include "tests/fuzz/at_once.h"
#include "tests/fuzz/messages.h"

#define CLIENTS   6u
#define STEPS_MAX 120u
#define TURNS     12u

static struct served d;
static struct client clients[CLIENTS];
static struct pgc_msg last;          /* to be sent again */
static bool configured;

static const char *const uris[] = { "mem:a", "mem:b?size=70000", "mem:c?size=3000000", "mem:", "mem:x?size=-1", "http://x/y", "mem:d?size=9223372036854775807" };

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	serve_init(&d);
	client_init(clients, CLIENTS);
	REQUIRE(serve_start(&d, false));
	return 0;
}

/* At most `n` rounds. */
static void turn(unsigned n)
{
	while (n-- > 0 && serve_turn(&d))
		;
}

/* --- messages --- */

static void send_message(struct client *c, const struct pgc_msg *m, size_t n, const int *fds, unsigned n_fds)
{
	struct pgc_msg copy = *m;

	message_bound(&copy);
	if (c->sock >= 0 && client_send(c, &copy, n, fds, n_fds) == -EAGAIN)
		turn(TURNS);
	last = copy;
}

static void request(struct input *in, struct client *c)
{
	int fds[MESSAGE_FDS];
	unsigned n_fds;
	struct pgc_msg m;

	take_request(in, c, clients, CLIENTS, &m, fds, &n_fds);
	send_message(c, &m, sizeof(m), fds, n_fds);
	while (n_fds > 0)
		close(fds[--n_fds]);
}

/* PGC_CTL_SET of any setting with a value that may do, PGC_CTL_INJECT. */
static void control(struct input *in, struct client *c)
{
	static const char *const names[] = { "memory_max", "memory_min", "dirty_background", "dirty_max", "dirty_expire", "readahead_max", "pin_max", "retain",
					     "warm_start", "pressure", "log_level", "socket" };
	static const char *const values[] = { "0", "1M", "2M", "4M", "50%", "100%", "10ms", "256K", "mapped", "lru", "yes", "no", "debug", "error", "" };
	uint8_t how = take_byte(in);
	struct pgc_msg m = { .type = how & 8 ? PGC_CTL_SET : PGC_CTL_INJECT };

	if (how & 8) {
		snprintf(m.ctl_set.name, sizeof(m.ctl_set.name), "%s", names[take_below(in, ELEMENTSOF(names))]);
		snprintf(m.ctl_set.value, sizeof(m.ctl_set.value), "%s", values[take_below(in, ELEMENTSOF(values))]);
		configured = true;
	} else {
		m.ctl_inject.what = take_below(in, 10);
		m.ctl_inject.count = take_below(in, 4);
		/* Delays are short: the clock is the real one. */
		m.ctl_inject.value = m.ctl_inject.what == PGC_INJECT_READ_DELAY || m.ctl_inject.what == PGC_INJECT_WRITE_DELAY ? take_below(in, 200) : take_u64(in, c);
		snprintf(m.ctl_inject.uri, sizeof(m.ctl_inject.uri), "%s", uris[take_below(in, ELEMENTSOF(uris))]);
	}
	message_spoil(in, c, how & 7, &m);
	send_message(c, &m, sizeof(m), NULL, 0);
}

static void hello(struct input *in, struct client *c, uint8_t how)
{
	struct pgc_msg m = { .type = PGC_MSG_HELLO, .hello = { .magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .features = how & 1 } };

	m.hello.role = how & 2 ? PGC_ROLE_CONTROL : PGC_ROLE_CLIENT;
	message_spoil(in, c, how >> 4 == 15 ? 4 : 0, &m);
	send_message(c, &m, sizeof(m), NULL, 0);
	turn(3);
	c->role = m.hello.role;
}

static void join(struct input *in, struct client *c)
{
	uint8_t how = take_byte(in);

	if (c->sock >= 0 || !client_connect(&d, c, how & 4))
		return;
	turn(2);
	if (!(how & 8))
		hello(in, c, how);
}

/* OPEN, CLONE or ATTACH with what belongs to it. */
static void open_file(struct input *in, struct client *c)
{
	static const int modes[] = { O_RDWR, O_RDONLY, O_WRONLY, O_RDWR };
	uint8_t how = take_byte(in), what = take_byte(in);
	int mode = modes[how & 3], fds[MESSAGE_FDS] = { -1, -1, -1, -1, -1, -1 };
	struct client *other = &clients[what % CLIENTS];
	struct pgc_msg m = { .type = how & 16 ? (how & 32 ? PGC_MSG_ATTACH : PGC_MSG_CLONE) : PGC_MSG_OPEN };
	bool direct = how & 4 && m.type != PGC_MSG_CLONE, uri = how & 8 && m.type == PGC_MSG_OPEN;
	unsigned n = 0;

	fds[n++] = client_uffd(O_NONBLOCK);
	if (c->uffd < 0)
		c->uffd = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
	if (m.type == PGC_MSG_OPEN) {
		m.open.flags = (uint32_t)mode;
		m.open.has_direct = direct && !uri;
		if (uri)
			snprintf(m.open.uri, sizeof(m.open.uri), "%s", uris[what % ELEMENTSOF(uris)]);
	} else if (m.type == PGC_MSG_CLONE) {
		m.clone.flags = (uint32_t)mode;
		m.clone.file_dev = other->reply.file_dev;
		m.clone.file_ino = other->reply.file_ino;
		if (c->memfd < 0 && other->memfd >= 0)
			c->memfd = fcntl(other->memfd, F_DUPFD_CLOEXEC, 0);
	} else {
		m.attach = (struct pgc_attach){ .file_dev = other->reply.file_dev, .file_ino = other->reply.file_ino, .handle = other->reply.handle,
						.flags = (uint32_t)mode, .has_direct = direct, .attach = how >> 6 & PGC_ATTACH_CLEAN };
		if (c->memfd < 0)
			c->memfd = other->memfd >= 0 ? fcntl(other->memfd, F_DUPFD_CLOEXEC, 0) : client_memfd(what * PAGE_SIZE_ / 4, false);
	}
	if (m.type == PGC_MSG_CLONE || (m.type == PGC_MSG_ATTACH && mode != O_WRONLY))
		fds[n++] = c->memfd >= 0 ? fcntl(c->memfd, F_DUPFD_CLOEXEC, 0) : client_memfd(8192, false);
	if (m.type != PGC_MSG_CLONE && !uri)
		fds[n++] = client_file(what, mode);
	if (direct && !uri)
		fds[n++] = client_file(what, mode | O_DIRECT);
	message_spoil(in, c, how & 128 ? take_byte(in) & 7 : 0, &m);
	for (unsigned i = 0; i < n; i++)
		if (fds[i] < 0)
			fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
	send_message(c, &m, sizeof(m), fds, n);
	while (n > 0)
		close(fds[--n]);
}

/* Bytes as they are, of any length, with any descriptors. */
static void raw(struct input *in, struct client *c)
{
	uint8_t bytes[PGC_MSG_SIZE + 16] = { 0 };
	size_t n = take_byte(in), have = MIN(n, in->n);
	struct pgc_msg m;
	int fds[MESSAGE_FDS];
	unsigned n_fds = 0;

	take_descriptors(in, c, fds, &n_fds);
	have = MIN(have, in->n);
	if (have)
		memcpy(bytes, in->p, have);
	in->p += have;
	in->n -= have;
	n = n < 250 ? PGC_MSG_SIZE : n + 4;
	memcpy(&m, bytes, sizeof(m));
	if (n == PGC_MSG_SIZE)
		send_message(c, &m, n, fds, n_fds);
	else if (c->sock >= 0)
		(void)client_send(c, bytes, n, fds, n_fds);
	while (n_fds > 0)
		close(fds[--n_fds]);
}

/* --- memory --- */

static void map_memory(struct input *in, struct client *c)
{
	uint8_t slot = take_byte(in), how = take_byte(in);
	size_t len = (1 + take_below(in, 128)) * PAGE_SIZE_;
	uint64_t off = take_below(in, 96) * PAGE_SIZE_;
	struct client_map *m = &c->map[slot % CLIENT_MAPS];
	struct pgc_msg msg = { .type = PGC_MSG_MAP, .tag = c->tag++ };

	if (c->sock < 0 || !client_mmap(c, slot, len, off, how & 1, how & 2))
		return;
	msg.map = (struct pgc_map){ .addr = (uintptr_t)m->at, .len = len, .off = off, .flags = (how & 3) == 3 ? PGC_MAP_SHARED : 0, .prot = PROT_READ };
	if (!(how & 128))
		send_message(c, &msg, sizeof(msg), NULL, 0);
	turn(2);
}

static void act(struct input *in, struct client *c)
{
	uint8_t slot = take_byte(in), what = take_byte(in);

	client_do(&d, c, slot, what % ACTS, take_byte(in) * PAGE_SIZE_, (1 + take_byte(in)) * PAGE_SIZE_);
}

/* What a client does to the cache's memory by itself. */
static void meddle(struct input *in, struct client *c)
{
	uint8_t how = take_byte(in);
	uint64_t at = take_below(in, 128) * PAGE_SIZE_;

	if (c->memfd < 0)
		return;
	switch (how % 4) {
	case 0:
		(void)!ftruncate(c->memfd, (off_t)at);
		break;
	case 1:
		(void)fallocate(c->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)((1 + (how >> 2)) * PAGE_SIZE_));
		break;
	case 2:
		(void)fallocate(c->memfd, 0, (off_t)at, (off_t)((1 + (how >> 2)) * PAGE_SIZE_));
		break;
	default:
		(void)!pwrite(c->memfd, "client", 6, (off_t)at);
	}
}

/* --- */

static void leave(struct client *c)
{
	/* What it has mapped stays, as with a process that has passed its descriptors on. */
	client_end(c);
	turn(2);
}

static void step(struct input *in)
{
	uint8_t op = take_byte(in), n;
	struct client *c = &clients[(op >> 4) % CLIENTS];

	switch (op & 15) {
	case 0:
		join(in, c);
		break;
	case 1:
		open_file(in, c);
		break;
	case 2:
	case 3:
	case 4:
		request(in, c);
		break;
	case 5:
		request(in, c);
		turn(TURNS);
		break;
	case 6:
		map_memory(in, c);
		break;
	case 7:
	case 8:
		act(in, c);
		break;
	case 9:
		meddle(in, c);
		break;
	case 10:
		control(in, c);
		break;
	case 11:
		raw(in, c);
		break;
	case 12:
		send_message(c, &last, sizeof(last), NULL, 0);
		break;
	case 13:
		if (c->sock >= 0 && take_byte(in) & 1)
			(void)shutdown(c->sock, SHUT_WR);
		else
			leave(c);
		break;
	case 14:
		n = take_byte(in);
		at_once(!(n & 128));
		if (n & 64)
			serve_wait();
		turn(1 + n % 32);
		break;
	default:
		if (c->sock >= 0 && !client_receive(c))
			leave(c);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	for (unsigned i = 0; i < STEPS_MAX && in.n > 0; i++)
		step(&in);
	at_once(true);
	turn(TURNS);
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (clients[i].sock >= 0)
			(void)client_receive(&clients[i]);
		client_end(&clients[i]);
	}
	for (size_t i = 0; i < ELEMENTSOF(uris); i++)
		for (uint32_t what = PGC_INJECT_READ_ERROR; what <= PGC_INJECT_WRITE_ZERO; what++)
			(void)mem_store_inject(uris[i], what, 0, 0);
	if (configured)
		serve_settings(&d);
	configured = false;
	mem_store_forget_all();
	client_forget(&d, clients, CLIENTS);
	client_files_reset();
	memset(&last, 0, sizeof(last));
	return 0;
}
