/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state that a dead daemon has left, and the descriptors that were kept for it. An input says what state: files with their memory and store, blocks, handles of
 * clients that are there; then which bytes of it are changed, and which checksums are put right afterwards, since no mutation would hit those; then what the clients
 * do, as in fuzz_protocol.c. A daemon takes that over, or not, serves, and ends: whatever was in it, it neither dies nor hangs nor keeps a descriptor.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "daemon/attach.h"
#include "daemon/fdstore.h"
#include "daemon/saved.h"
#include "tests/fuzz/messages.h"

#define ARRAYS      7u
#define FILES       16u
#define BLOCKS      64u
#define MAPPINGS    16u
#define CGROUPS     5u
#define HANDLES     8u
#define CLIENTS     4u
#define FD_FIRST    3                /* where passed descriptors begin, by sd_listen_fds(3) */
#define FDS_PASSED  48u
#define LIFELINES   6u               /* of so many workers: without one the daemon waits two seconds */
#define STEPS_MAX   40u
#define TURNS       40u

enum { A_FILES, A_BLOCKS, A_MAPPINGS, A_CGROUPS, A_STATS, A_SAVED_FILES, A_SAVED_HANDLES };

static const char *const names[ARRAYS] = { "files", "blocks", "mappings", "cgroups", "stats", "saved_files", "saved_handles" };

/* A state as it lies in its files: arrays of whole pages. */
static struct {
	struct pgc_file_entry files[FILES];
	struct pgc_block_entry blocks[BLOCKS];
	struct pgc_mapping_entry mappings[MAPPINGS];
	struct pgc_cgroup_entry cgroups[CGROUPS];
	struct pgc_stats_entry stats[SERVE_WORKERS + 1];
	union { struct pgc_saved_header header; struct pgc_saved_file saved_files[FILES]; };
	struct pgc_saved_handle saved_handles[HANDLES];
} image;

static struct { void *at; size_t size; } array[ARRAYS] = {
	{ image.files, sizeof(image.files) }, { image.blocks, sizeof(image.blocks) }, { image.mappings, sizeof(image.mappings) },
	{ image.cgroups, sizeof(image.cgroups) }, { image.stats, sizeof(image.stats) }, { image.saved_files, sizeof(image.saved_files) },
	{ image.saved_handles, sizeof(image.saved_handles) },
};

static struct served d;
static struct client clients[CLIENTS];
static unsigned n_clients;
static int memfds[FILES];            /* of the files; -1: none */

/* --- descriptors that are passed --- */

static char passed_names[FDS_PASSED * FDSTORE_NAME_MAX];
static unsigned n_passed;

/* The numbers where they will be. */
static void reserve(void)
{
	for (int fd = FD_FIRST; fd < FD_FIRST + (int)FDS_PASSED; fd++)
		if (fcntl(fd, F_GETFD) < 0) {
			int null = open("/dev/null", O_RDWR | O_CLOEXEC);

			REQUIRE(null >= 0);
			if (null != fd) {
				REQUIRE(dup2(null, fd) == fd);
				close(null);
			}
		}
}

/* Takes the descriptor. */
static void pass(int fd, const char *name)
{
	REQUIRE(fd >= 0);
	if (n_passed < FDS_PASSED) {
		REQUIRE(dup2(fd, FD_FIRST + (int)n_passed) >= 0);
		snprintf(passed_names + strlen(passed_names), sizeof(passed_names) - strlen(passed_names), "%s%s", n_passed > 0 ? ":" : "", name);
		n_passed++;
	}
	close(fd);
}

static void pass_slot(int fd, char kind, unsigned slot)
{
	char name[FDSTORE_NAME_MAX];

	snprintf(name, sizeof(name), "%c%u", kind, slot);
	pass(fd, name);
}

static void pass_all(void)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", (int)getpid());
	REQUIRE(setenv("LISTEN_PID", number, 1) == 0);
	snprintf(number, sizeof(number), "%u", n_passed);
	REQUIRE(setenv("LISTEN_FDS", number, 1) == 0);
	REQUIRE(setenv("LISTEN_FDNAMES", passed_names, 1) == 0);
	REQUIRE(fdstore_init() == 0);
}

/* --- the state --- */

static uint64_t take_pages(struct input *in)
{
	uint8_t how = take_byte(in);

	return how < 128 ? (1ull << (how % 64)) - (how & 64 ? 0 : 1) : how == 255 ? take_number(in, 8) : ~0ull << (how % 64);
}

static void make_header(void)
{
	image.header = (struct pgc_saved_header){
		.workers = SERVE_WORKERS, .files = FILES, .blocks = BLOCKS, .mappings = MAPPINGS, .cgroups = CGROUPS, .handles = HANDLES, .incarnation = 7,
	};
	REQUIRE(saved_boot_id(image.header.boot_id) == 0);
	saved_seal_header(&image.header);
}

static void make_file(struct input *in)
{
	unsigned slot = 1 + take_below(in, FILES - 1), which = take_below(in, CLIENT_FILES);
	uint8_t has = take_byte(in), more = take_byte(in);
	struct pgc_saved_file *s = &image.saved_files[slot];
	struct pgc_file_entry *e = &image.files[slot];
	int store = client_file(which, has & 32 ? O_RDONLY : O_RDWR), control;
	struct stat st, mem;

	REQUIRE(store >= 0 && fstat(store, &st) == 0);
	if (memfds[slot] >= 0) {
		close(store);
		return;
	}
	memfds[slot] = memfd_create("pagecached", MFD_CLOEXEC);
	REQUIRE(memfds[slot] >= 0 && ftruncate(memfds[slot], more & 1 ? take_byte(in) * 1000 : st.st_size) == 0 && fstat(memfds[slot], &mem) == 0);
	for (unsigned i = 0; i < 8 && more & 2; i++)
		(void)!pwrite(memfds[slot], "kept", 4, (off_t)(i * i * PAGE_SIZE_) % (mem.st_size + 1));
	*e = (struct pgc_file_entry){ .file = slot, .dev = st.st_dev, .ino = st.st_ino, .size = (uint64_t)mem.st_size };
	snprintf(e->name, sizeof(e->name), "file %u", slot);
	s->dev = makedev(major(st.st_dev), minor(st.st_dev));
	s->ino = st.st_ino;
	s->memfd_dev = mem.st_dev;
	s->memfd_ino = mem.st_ino;
	s->retain = more >> 2 & 1;
	s->readahead_max = 1 << 20;
	if (more & 8) {
		s->version_valid = 1;
		s->version_size = (uint64_t)st.st_size;
		s->version_blocks = (uint64_t)st.st_blocks;
		s->version_mtime = (struct pgc_saved_time){ (uint64_t)st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec, 0 };
		s->version_ctime = (struct pgc_saved_time){ (uint64_t)st.st_ctim.tv_sec, (uint32_t)st.st_ctim.tv_nsec, 0 };
	}
	if (more & 16) {
		s->op = (struct pgc_saved_op){ .kind = take_below(in, 6), .mode = take_byte(in), .handle = take_below(in, 4), .tag = take_byte(in) };
		s->op.off = take_u64(in, clients);
		s->op.len = take_u64(in, clients);
		s->op.size = take_u64(in, clients);
		/* It is carried out, and what it allocates is the machine's memory. */
		if (s->op.len > (2 << 20))
			s->op.len %= 2 << 20;
	}
	if (more & 32) {
		s->n_kept = s->n_pins = 1;
		s->kept[0] = (struct pgc_saved_range){ 0, take_u64(in, clients) };
		s->pins[0] = (struct pgc_saved_range){ take_u64(in, clients), take_u64(in, clients) };
		s->n_poisoned = take_byte(in);
	}
	saved_seal_file(s, slot);
	if (has & 1)
		pass_slot(fcntl(memfds[slot], F_DUPFD_CLOEXEC, 0), 'f', slot);
	if (has & 2) {
		control = memfd_create("pagecached-control", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		REQUIRE(control >= 0 && ftruncate(control, (off_t)PAGE_SIZE_) == 0);
		pass_slot(control, 'f', slot);
	}
	if (has & 4)
		pass_slot(fcntl(store, F_DUPFD_CLOEXEC, 0), 's', slot);
	if (has & 8) {
		int direct = client_file(which, O_RDWR | O_DIRECT);

		if (direct >= 0)
			pass_slot(direct, 's', slot);
	}
	close(store);
}

static void make_block(struct input *in)
{
	struct pgc_block_entry *b = &image.blocks[1 + take_below(in, BLOCKS - 1)];

	b->file = take_below(in, FILES);
	b->index = take_below(in, 4);
	b->resident = take_pages(in);
	b->dirty = take_pages(in) & b->resident;
	b->writeback = take_pages(in) & b->resident;
	b->keep = take_pages(in) & b->dirty;
}

/* With its client, which has mapped the file where it can; a forked child's without a socket. */
static void make_handle(struct input *in)
{
	unsigned slot = 1 + take_below(in, HANDLES - 1), file = take_below(in, FILES);
	uint8_t has = take_byte(in), flags = take_byte(in);
	struct pgc_saved_handle *h = &image.saved_handles[slot];
	struct client *c = &clients[n_clients % CLIENTS];
	struct uffdio_api api = { .api = UFFD_API, .features = d.server.caps.features };
	bool child = flags & PGC_SAVED_CHILD;
	int pair[2];

	if (h->file || n_clients == CLIENTS)
		return;
	n_clients++;
	*h = (struct pgc_saved_handle){ .id = 1 + take_byte(in), .parent = take_below(in, 4), .pid = has & 1 ? getpid() : 0x3fffffff, .uid = has & 2 ? 65534 : 0,
					.flags = flags & 31, .errseq = take_below(in, 3) };
	if (has & 4)
		h->done = (struct pgc_saved_done){ .tag = take_below(in, 4), .type = PGC_MSG_WRITE + take_below(in, 4), .len = 5, .size = 5 };
	saved_seal_handle(h, file);
	c->uffd = client_uffd(O_NONBLOCK);
	REQUIRE(c->uffd >= 0);
	if (!(has & 8))
		(void)ioctl(c->uffd, UFFDIO_API, &api);
	c->opened = true;
	c->role = PGC_ROLE_CLIENT;
	c->sent = 1000;            /* of the daemon before: answers may come once more */
	c->answered = 0;
	if (memfds[file] >= 0) {
		c->memfd = fcntl(memfds[file], F_DUPFD_CLOEXEC, 0);
		(void)client_mmap(c, 0, (1 + take_below(in, 80)) * PAGE_SIZE_, 0, !(has & 16), true);
	}
	if (has & 32)
		pass_slot(fcntl(c->uffd, F_DUPFD_CLOEXEC, 0), child ? 'c' : 'h', slot);
	if (child)
		return;
	REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	c->sock = pair[0];
	if (has & 64)
		pass_slot(pair[1], 'h', slot);
	else
		close(pair[1]);
}

/* Anything, anywhere. Ends with an array that there is not. */
static void spoil(struct input *in)
{
	for (unsigned which; in->n > 0 && (which = take_byte(in)) < ARRAYS;) {
		size_t at = (size_t)take_number(in, 2) % array[which].size;
		uint8_t *p = (uint8_t *)array[which].at + at, n = 1 + take_below(in, 8);

		for (unsigned i = 0; i < n && at + i < array[which].size; i++)
			p[i] = take_byte(in);
	}
}

/* Lengths of a truncation that would be carried out are bounded, see make_file(). */
static void mend(uint8_t how)
{
	for (unsigned i = 1; i < FILES; i++) {
		struct pgc_saved_file *s = &image.saved_files[i];

		if (how & 1 && s->file)
			saved_seal_file(s, s->file);
		if (s->op.len > 2 << 20)
			s->op.len %= 2 << 20;
	}
	for (unsigned i = 0; i < HANDLES && how & 2; i++)
		if (image.saved_handles[i].file)
			saved_seal_handle(&image.saved_handles[i], image.saved_handles[i].file);
	if (how & 4)
		saved_seal_header(&image.header);
}

static void write_state(uint8_t how)
{
	for (unsigned i = 0; i < ARRAYS; i++) {
		size_t size = page_up(array[i].size) * PAGE_SIZE_;
		char path[128];
		int fd;

		snprintf(path, sizeof(path), "%s/state.%s", d.dir, names[i]);
		fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		REQUIRE(fd >= 0 && write(fd, array[i].at, array[i].size) == (ssize_t)array[i].size);
		/* As long as it is, or shorter, or longer. */
		REQUIRE(ftruncate(fd, (off_t)(how >> 4 == (int)i + 1 ? (how & 8 ? size + (1 << 20) : size / 2) : size)) == 0);
		close(fd);
	}
}

static void make_state(struct input *in)
{
	uint8_t counts = take_byte(in), how;

	memset(&image, 0, sizeof(image));
	make_header();
	for (unsigned i = 0; i < (counts & 3u) + 1; i++)
		make_file(in);
	for (unsigned i = 0; i < (counts >> 2 & 7u); i++)
		make_block(in);
	for (unsigned i = 0; i < (counts >> 5 & 7u); i++)
		make_handle(in);
	spoil(in);
	how = take_byte(in);
	mend(how);
	write_state(how);
}

/* Rings of the dead daemon with nothing under way any more. */
static void pass_lifelines(void)
{
	for (unsigned i = 0; i < LIFELINES; i++) {
		char name[FDSTORE_NAME_MAX];
		int end[2];

		REQUIRE(pipe2(end, O_CLOEXEC) == 0);
		close(end[1]);
		snprintf(name, sizeof(name), "L%u.7", i);
		pass(end[0], name);
	}
}

/* --- what clients do then --- */

static void turn(unsigned n)
{
	while (n-- > 0 && serve_turn(&d))
		;
}

/* A client that comes back by itself, or anew, on a file of the state. */
static void attach(struct input *in, struct client *c)
{
	unsigned file = take_below(in, FILES);
	uint8_t how = take_byte(in);
	struct pgc_msg m = { .type = PGC_MSG_HELLO, .hello = { .magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .role = PGC_ROLE_CLIENT } };
	int fds[4], memfd;
	unsigned n = 0;

	memfd = c->memfd >= 0 ? fcntl(c->memfd, F_DUPFD_CLOEXEC, 0) : memfds[file] >= 0 ? fcntl(memfds[file], F_DUPFD_CLOEXEC, 0) : -1;
	if (!client_connect(&d, c, how & 1)) {
		if (memfd >= 0)
			close(memfd);
		return;
	}
	c->role = PGC_ROLE_CLIENT;
	turn(4);
	(void)client_send(c, &m, sizeof(m), NULL, 0);
	turn(4);
	c->uffd = client_uffd(O_NONBLOCK);
	fds[n++] = fcntl(c->uffd, F_DUPFD_CLOEXEC, 0);
	m = (struct pgc_msg){ .type = how & 2 ? PGC_MSG_OPEN : PGC_MSG_ATTACH, .tag = c->tag++ };
	if (how & 2) {
		m.open.flags = O_RDWR;
		if (memfd >= 0)
			close(memfd);
	} else {
		m.attach = (struct pgc_attach){ .file_dev = image.saved_files[file].dev, .file_ino = image.saved_files[file].ino, .handle = take_byte(in),
						.flags = O_RDWR, .attach = how >> 2 & 1 };
		c->memfd = memfd;
		fds[n++] = memfd >= 0 ? fcntl(memfd, F_DUPFD_CLOEXEC, 0) : client_memfd(PAGE_SIZE_, false);
	}
	fds[n++] = client_file(how >> 4, O_RDWR);
	(void)client_send(c, &m, sizeof(m), fds, n);
	while (n > 0)
		close(fds[--n]);
}

static void step(struct input *in)
{
	uint8_t op = take_byte(in);
	struct client *c = &clients[(op >> 4) % CLIENTS];
	int fds[MESSAGE_FDS];
	struct pgc_msg m;
	unsigned n_fds;

	switch (op & 7) {
	case 0:
	case 1:
		take_request(in, c, clients, CLIENTS, &m, fds, &n_fds);
		message_bound(&m);
		if (c->sock >= 0)
			(void)client_send(c, &m, sizeof(m), fds, n_fds);
		while (n_fds > 0)
			close(fds[--n_fds]);
		break;
	case 2:
		turn(1 + take_below(in, TURNS));
		break;
	case 3:
	case 4:
		client_do(&d, c, 0, take_below(in, ACTS), take_byte(in) * PAGE_SIZE_, take_byte(in) * PAGE_SIZE_);
		break;
	case 5:
		attach(in, c);
		turn(TURNS);
		break;
	case 6:
		client_end(c);
		break;
	default:
		if (c->sock >= 0 && !client_receive(c))
			client_end(c);
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	reserve();
	serve_init(&d);
	client_init(clients, CLIENTS);
	for (unsigned i = 0; i < FILES; i++)
		memfds[i] = -1;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	unsigned before;

	reserve();
	before = serve_count_fds();
	n_clients = n_passed = 0;
	passed_names[0] = 0;
	make_state(&in);
	pass_lifelines();
	pass_all();
	REQUIRE(serve_start(&d, true));
	d.fds = ~0u;               /* what is passed is closed as it is taken: they are counted at the end */
	turn(TURNS);
	for (unsigned i = 0; i < STEPS_MAX && in.n > 0; i++)
		step(&in);
	turn(TURNS);
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (clients[i].sock >= 0)
			(void)client_receive(&clients[i]);
		client_end(&clients[i]);
	}
	serve_give_up(&d);
	client_forget(&d, clients, CLIENTS);
	serve_stop(&d);
	fdstore_drop_rest();
	for (unsigned i = 0; i < FILES; i++)
		if (memfds[i] >= 0)
			close(take_fd(&memfds[i]));
	client_files_reset();
	reserve();
	REQUIRE(serve_count_fds() == before);
	return 0;
}
