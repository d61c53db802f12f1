/* SPDX-License-Identifier: Apache-2.0 */
/* See messages.h. */
#include "tests/fuzz/messages.h"

#include <fcntl.h>
#include <sys/eventfd.h>

#define ALLOC_MAX (2ull << 20)       /* of one FALLOCATE */

/* --- numbers --- */

static const uint64_t edges[] = {
	0, 1, PAGE_SIZE_ - 1, PAGE_SIZE_, PGC_BLOCK_SIZE, PGC_READ_MAX, PGC_WRITE_MAX, PGC_XFER_SIZE, PGC_DATA_MAX, 1ull << 32, 1ull << 40, 1ull << 47,
	1ull << 52, 1ull << 62, INT64_MAX - PAGE_SIZE_ + 1, INT64_MAX, INT64_MAX + 1ull, ~0ull - PAGE_SIZE_ + 1, ~0ull, PAGE_SIZE_ + 1, 5000, 70 * PAGE_SIZE_ + 100,
};

uint64_t take_u64(struct input *in, const struct client *c)
{
	uint8_t how = take_byte(in);

	switch (how >> 5) {
	case 0:
		return how & 31;
	case 1:
		return (how & 31) * PAGE_SIZE_;
	case 2:
		return take_byte(in) * PAGE_SIZE_ + (how & 31) * 133;
	case 3:
		return edges[(how & 31) % ELEMENTSOF(edges)];
	case 4:
		return (how & 31) * PGC_BLOCK_SIZE;
	case 5: /* in what it has mapped */
		return (uintptr_t)c->map[how % CLIENT_MAPS].at + (how & 28) / 4 * PAGE_SIZE_;
	case 6:
		return c->map[how % CLIENT_MAPS].len;
	default:
		return take_number(in, 8);
	}
}

/* --- descriptors --- */

int take_descriptor(struct input *in, struct client *c)
{
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_DIRECT, O_RDONLY | O_DIRECT, O_RDWR | O_APPEND, O_PATH };
	uint8_t kind = take_byte(in);
	int pair[2];

	switch (kind % 16) {
	case 0:
		return client_uffd(O_NONBLOCK);
	case 1:
		return client_uffd(0);
	case 2:
	case 3:
	case 4:
	case 5:
		return client_file(kind % 16, modes[(kind >> 4) % ELEMENTSOF(modes)]);
	case 6:
		return c->memfd >= 0 ? fcntl(c->memfd, F_DUPFD_CLOEXEC, 0) : -1;
	case 7:
		return c->control >= 0 ? fcntl(c->control, F_DUPFD_CLOEXEC, 0) : -1;
	case 8:
		return c->uffd >= 0 ? fcntl(c->uffd, F_DUPFD_CLOEXEC, 0) : -1;
	case 9:
		return client_memfd(PGC_XFER_SIZE, true);
	case 10:
		return client_memfd((kind >> 4) * PAGE_SIZE_ * 3, kind & 128);
	case 11:
		if (pipe2(pair, O_CLOEXEC) < 0)
			return -1;
		close(pair[kind >> 7]);
		return pair[!(kind >> 7)];
	case 12:
		return fcntl(c->sock, F_DUPFD_CLOEXEC, 0);
	case 13:
		return eventfd(0, EFD_CLOEXEC);
	case 14:
		return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	default:
		return open(kind & 16 ? "/dev/zero" : "/proc/self/maps", O_RDONLY | O_CLOEXEC);
	}
}

void take_descriptors(struct input *in, struct client *c, int *fds, unsigned *n)
{
	for (unsigned want = take_below(in, MESSAGE_FDS + 1); *n < want;) {
		int fd = take_descriptor(in, c);

		if (fd < 0)
			return;
		fds[(*n)++] = fd;
	}
}

/* --- messages --- */

/* 64-bit fields first, then 32-bit ones, of which the last is reserved where `pad`. */
static const struct shape { uint32_t type; uint8_t longs, words; bool pad, memfd; } shapes[] = {
	{ PGC_MSG_MAP, 3, 2, false, false },
	{ PGC_MSG_READ, 2, 0, false, false },
	{ PGC_MSG_WRITE, 3, 2, true, false },
	{ PGC_MSG_POPULATE, 2, 2, true, false },
	{ PGC_MSG_SYNC, 2, 2, true, false },
	{ PGC_MSG_TRUNCATE, 1, 0, false, false },
	{ PGC_MSG_FALLOCATE, 2, 2, true, false },
	{ PGC_MSG_STAT, 0, 2, true, false },
	{ PGC_MSG_FADVISE, 2, 2, true, false },
	{ PGC_MSG_MADVISE, 2, 2, true, false },
	{ PGC_MSG_KEEP, 2, 2, true, false },
	{ PGC_MSG_SEEK, 1, 2, true, false },
	{ PGC_MSG_CLOSE, 0, 0, false, false },
	{ PGC_MSG_XFER, 0, 0, false, true },
	{ PGC_MSG_RESUMED, 1, 0, false, false },
	{ PGC_CTL_STATUS, 0, 0, false, false },
	{ PGC_CTL_FILES, 0, 0, false, false },
	{ PGC_CTL_MAPPINGS, 0, 0, false, false },
	{ PGC_CTL_CGROUPS, 0, 0, false, false },
	{ PGC_CTL_MEMORY, 0, 0, false, false },
	{ PGC_CTL_PINS, 0, 0, false, false },
	{ PGC_CTL_SYNC, 2, 2, true, false },
	{ PGC_CTL_DROP, 2, 2, true, false },
	{ PGC_CTL_PIN, 4, 2, true, false },
	{ PGC_CTL_STAT, 6, 2, false, false },
};
#define FIRST_CONTROL 15u

/* The words of a message: small ones are flags, kinds of advice and modes. */
static uint32_t take_word(struct input *in)
{
	uint8_t v = take_byte(in);

	return v < 200 ? v % 32 : v == 255 ? (uint32_t)take_number(in, 4) : 1u << (v % 32);
}

static void name_file(struct input *in, const struct client *all, unsigned n_all, struct pgc_msg *m)
{
	const struct client *c = &all[take_below(in, n_all)];

	if (c->opened) {
		m->ctl_file.dev = c->reply.file_dev;
		m->ctl_file.ino = c->reply.file_ino;
	}
}

void message_bound(struct pgc_msg *m)
{
	if (m->type == PGC_MSG_FALLOCATE && m->fallocate.len > ALLOC_MAX)
		m->fallocate.len %= ALLOC_MAX;
}

static void fill_fields(struct input *in, const struct client *c, const struct shape *s, struct pgc_msg *m)
{
	for (unsigned i = 0; i < s->longs; i++) {
		uint64_t v = take_u64(in, c);

		memcpy(m->bytes + 8 * i, &v, 8);
	}
	for (unsigned i = 0; i + s->pad < s->words; i++) {
		uint32_t v = take_word(in);

		memcpy(m->bytes + 8 * s->longs + 4 * i, &v, 4);
	}
}

void message_spoil(struct input *in, struct client *c, uint8_t how, struct pgc_msg *m)
{
	m->tag = how & 1 ? take_byte(in) : c->tag++;
	if (how & 2)
		m->status = take_byte(in) & 1 ? PGC_REQUEST_AGAIN : PGC_REQUEST_AGAIN_TO(take_byte(in));
	if (how & 4) {
		uint8_t at = take_byte(in);

		((uint8_t *)m)[at] = take_byte(in);
	}
}

/* Slots and touched pages that say what they like. */
static int window_memfd(struct input *in, size_t size)
{
	int fd = client_memfd(size, true);
	uint64_t word[4] = { take_byte(in), ~0ull, (uint64_t)take_number(in, 8), 0 };

	REQUIRE(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW) == 0 && pwrite(fd, word, sizeof(word), take_byte(in) * 8) == sizeof(word));
	return fd;
}

static void take_window(struct input *in, struct client *c, uint8_t how, struct pgc_msg *ret, int *fds, unsigned *ret_n_fds)
{
	struct pgc_msg m = { .type = PGC_MSG_WINDOW };
	uint64_t blocks = take_below(in, 65) * 64;

	m.window = (struct pgc_window){ take_u64(in, c), blocks * PGC_BLOCK_SIZE };
	if (take_byte(in) < 16)
		m.window.len = take_u64(in, c);
	message_spoil(in, c, how, &m);
	if (how & 16)
		take_descriptors(in, c, fds, ret_n_fds);
	else if (m.window.len > 0) {
		fds[(*ret_n_fds)++] = window_memfd(in, PGC_PAGE_SIZE);
		fds[(*ret_n_fds)++] = window_memfd(in, PGC_TOUCHED_SIZE(blocks * PGC_BLOCK_SIZE) + (blocks == 0) * PGC_PAGE_SIZE);
	}
	*ret = m;
}

void take_request(struct input *in, struct client *c, const struct client *all, unsigned n_all, struct pgc_msg *ret, int *fds, unsigned *ret_n_fds)
{
	uint8_t which = take_byte(in), how = take_byte(in);
	bool control = c->role == PGC_ROLE_CONTROL;
	unsigned first = control ? FIRST_CONTROL : 0, n = control ? ELEMENTSOF(shapes) - FIRST_CONTROL : FIRST_CONTROL;
	const struct shape *s = &shapes[how & 8 ? which % ELEMENTSOF(shapes) : first + which % n];
	struct pgc_msg m = { .type = s->type };

	*ret_n_fds = 0;
	if (!control && (how & 96) == 96) {
		take_window(in, c, how, ret, fds, ret_n_fds);
		return;
	}
	fill_fields(in, c, s, &m);
	if (m.type >= PGC_CTL_STATUS && s->longs >= 2 && take_byte(in) & 3)
		name_file(in, all, n_all, &m);
	message_spoil(in, c, how, &m);
	if (how & 16)
		take_descriptors(in, c, fds, ret_n_fds);
	else if (s->memfd || (m.type == PGC_MSG_WRITE && m.write.flags & PGC_WRITE_DATAFD))
		fds[(*ret_n_fds)++] = client_memfd(PGC_XFER_SIZE, true);
	*ret = m;
}
