/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's visible state: five arrays, in BPF maps or in memfds.
 *
 * How it comes up: state_open() tries the BPF way first, step by step (folder, load, mmap, pin, iterators), and writes
 * down the first step that failed with its reason. A failure before the iterators takes everything back that was made
 * and uses memfds; a failure of the iterators only costs the tables.
 *
 * Invariants:
 *  - what the arrays hold is all zeros at first, whichever way they come;
 *  - a pin is removed only while it is the very inode that was pinned here. Nothing else in the folder is touched,
 *    but for stale pins of our eight names at the start, and that only under the lock on the folder, which a
 *    living daemon holds.
 *
 * Thread: state_open() and state_close() on the main thread, with no worker running. libbpf's print hook is the
 * process's own and is set only during them. A slot_pool belongs to one thread. May call: util, libbpf, the
 * generated skeleton.
 */
#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "daemon/state.h"
#include "daemon/util/util.h"
#include "pagecached.skel.h"

#define N_MAPS 5
#define N_ITERS 3

struct pin {
	const char *name;          /* in the folder; NULL: not pinned */
	dev_t dev;
	ino_t ino;
};

struct state_bpf {
	struct pagecached_bpf *skel;
	struct bpf_link *link[N_ITERS];
	struct pin pin[N_MAPS + N_ITERS];
	char *dir;
	int dir_fd;                /* also holds the lock */
	bool made_dir;
};

static const struct { const char *name; uint32_t entry_size; } layout[N_MAPS] = {
	{ "files", sizeof(struct pgc_file_entry) },
	{ "blocks", sizeof(struct pgc_block_entry) },
	{ "mappings", sizeof(struct pgc_mapping_entry) },
	{ "cgroups", sizeof(struct pgc_cgroup_entry) },
	{ "stats", sizeof(struct pgc_stats_entry) },
};

/* Each iterator walks the map of the same index. */
static const char *const iter_name[N_ITERS] = { "show_files", "show_blocks", "show_mappings" };

/* The first complaint of libbpf since it was emptied: it says more than the errno. */
static char complaint[200];

static int keep_complaint(enum libbpf_print_level level, const char *format, va_list args)
{
	char line[sizeof(complaint)];
	const char *text = line;

	if (level != LIBBPF_WARN || complaint[0] != '\0')
		return 0;
	(void)vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\n")] = '\0';
	if (strncmp(text, "libbpf: ", 8) == 0)
		text += 8;
	(void)snprintf(complaint, sizeof(complaint), "%s", text);
	return 0;
}

/* Keeps the first reason. One that there is no memory for is lost; nothing else depends on it. */
static __attribute__((format(printf, 2, 3))) void state_lacks(struct state *s, const char *format, ...)
{
	va_list args;

	if (s->missing)
		return;
	va_start(args, format);
	if (vasprintf(&s->missing, format, args) < 0)
		s->missing = NULL;
	va_end(args);
}

/* As state_lacks(), with the errno's words and libbpf's own. */
static void state_lacks_bpf(struct state *s, const char *what, int error)
{
	if (complaint[0] != '\0')
		state_lacks(s, "%s: %s (%s)", what, strerror(-error), complaint);
	else
		state_lacks(s, "%s: %s", what, strerror(-error));
}

/* The folder. */

static bool is_bpffs(const struct statfs *fs)
{
	return (uint32_t)fs->f_type == BPF_FS_MAGIC;
}

/* Makes the folder where it is missing, but only inside a bpffs: no stray folder is left on another file system. */
static int folder_make(struct state *s, struct state_bpf *b)
{
	_cleanup_free_ char *parent = strdup(b->dir);
	struct statfs fs;
	char *slash;

	if (!parent)
		return -ENOMEM;
	slash = strrchr(parent, '/');
	if (slash)
		slash[slash == parent] = '\0'; /* "/" stays "/" */
	else
		strcpy(parent, ".");
	if (statfs(parent, &fs) < 0) {
		int r = -errno;

		state_lacks(s, "cannot look for a bpf file system at %s: %s", parent, strerror(-r));
		return r;
	}
	if (!is_bpffs(&fs)) {
		state_lacks(s, "%s is not on a bpf file system (mount one: mount -t bpf bpf %s)", parent, parent);
		return -ENODEV;
	}
	if (mkdir(b->dir, 0755) < 0) {
		int r = -errno;

		if (r == -EEXIST)
			return 0;
		state_lacks(s, "cannot make the folder %s: %s", b->dir, strerror(-r));
		return r;
	}
	b->made_dir = true;
	return 0;
}

static int folder_open(struct state *s, struct state_bpf *b)
{
	struct statfs fs;
	int r;

	b->dir_fd = open(b->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (b->dir_fd < 0 && errno == ENOENT) {
		r = folder_make(s, b);
		if (r < 0)
			return r;
		b->dir_fd = open(b->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (b->dir_fd < 0) {
		r = -errno;
		state_lacks(s, "cannot open the folder %s: %s", b->dir, strerror(-r));
		return r;
	}
	if (fstatfs(b->dir_fd, &fs) < 0 || !is_bpffs(&fs)) {
		state_lacks(s, "%s is not on a bpf file system", b->dir);
		return -ENODEV;
	}
	/*
	 * Goes with the last descriptor, so a crashed daemon holds it no longer. Whoever holds it has the folder now.
	 */
	if (flock(b->dir_fd, LOCK_EX | LOCK_NB) < 0) {
		r = -errno;
		b->made_dir = false;
		state_lacks(s, "the folder %s is in use by another daemon: %s", b->dir, strerror(-r));
		return r;
	}
	return 0;
}

/* The pins. */

static int pin_make(struct state *s, struct state_bpf *b, unsigned i, const char *name, int fd)
{
	_cleanup_free_ char *path = NULL;
	struct stat st;
	int r;

	if (asprintf(&path, "%s/%s", b->dir, name) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	if (unlinkat(b->dir_fd, name, 0) < 0 && errno != ENOENT) {
		r = -errno;
		state_lacks(s, "cannot replace %s: %s", path, strerror(-r));
		return r;
	}
	if (bpf_obj_pin(fd, path) < 0) {
		r = -errno;
		state_lacks(s, "cannot pin %s: %s", path, strerror(-r));
		return r;
	}
	if (fstatat(b->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		r = -errno;
		state_lacks(s, "cannot look at %s: %s", path, strerror(-r));
		return r;
	}
	b->pin[i] = (struct pin){ .name = name, .dev = st.st_dev, .ino = st.st_ino };
	return 0;
}

static void pin_remove(struct state_bpf *b, unsigned i)
{
	struct pin *p = &b->pin[i];
	struct stat st;

	if (p->name && fstatat(b->dir_fd, p->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    st.st_dev == p->dev && st.st_ino == p->ino)
		(void)unlinkat(b->dir_fd, p->name, 0);
	p->name = NULL;
}

static void state_bpf_free(struct state_bpf *b)
{
	if (!b)
		return;
	for (unsigned i = 0; i < N_MAPS + N_ITERS; i++)
		pin_remove(b, i);
	for (unsigned i = 0; i < N_ITERS; i++)
		bpf_link__destroy(b->link[i]);
	pagecached_bpf__destroy(b->skel);
	/* Before the lock goes: whoever takes it next makes the folder anew. Not empty, or busy: it stays. */
	if (b->made_dir)
		(void)rmdir(b->dir);
	if (b->dir_fd >= 0)
		close(b->dir_fd);
	free(b->dir);
	free(b);
}

/* The maps. */

static struct bpf_map *skel_map(struct pagecached_bpf *skel, unsigned i)
{
	struct bpf_map *const map[N_MAPS] = {
		skel->maps.files, skel->maps.blocks, skel->maps.mappings, skel->maps.cgroups, skel->maps.stats,
	};

	return map[i];
}

static struct bpf_program *skel_prog(struct pagecached_bpf *skel, unsigned i)
{
	struct bpf_program *const prog[N_ITERS] = {
		skel->progs.show_files, skel->progs.show_blocks, skel->progs.show_mappings,
	};

	return prog[i];
}

static int bpf_load(const struct state *s, bool iterators, struct pagecached_bpf **ret)
{
	struct pagecached_bpf *skel;
	int r = 0;

	skel = pagecached_bpf__open();
	if (!skel)
		return -errno;
	for (unsigned i = 0; i < N_MAPS && r == 0; i++)
		r = bpf_map__set_max_entries(skel_map(skel, i), s->map[i].entries);
	for (unsigned i = 0; i < N_ITERS && r == 0; i++)
		r = bpf_program__set_autoload(skel_prog(skel, i), iterators);
	if (r == 0)
		r = pagecached_bpf__load(skel);
	if (r < 0) {
		pagecached_bpf__destroy(skel);
		return r;
	}
	*ret = skel;
	return 0;
}

static int map_memory(struct state_map *m, int fd)
{
	void *mem = mmap(NULL, m->mem_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (mem == MAP_FAILED)
		return -errno;
	m->mem = mem;
	m->fd = fd;
	return 0;
}

/* `fd_is_ours`: the descriptors of BPF maps are the skeleton's. */
static void unmap_memory(struct state *s, bool fd_is_ours)
{
	for (unsigned i = 0; i < N_MAPS; i++) {
		struct state_map *m = &s->map[i];

		if (m->mem)
			munmap(m->mem, m->mem_size);
		if (fd_is_ours && m->fd >= 0)
			close(m->fd);
		m->mem = NULL;
		m->fd = -1;
	}
}

/* Maps and pins all maps. An error has its reason in s->missing. */
static int maps_attach(struct state *s, struct state_bpf *b)
{
	for (unsigned i = 0; i < N_MAPS; i++) {
		int fd = bpf_map__fd(skel_map(b->skel, i));
		int r;

		r = map_memory(&s->map[i], fd);
		if (r < 0) {
			state_lacks(s, "cannot map the BPF map %s into memory: %s", s->map[i].name, strerror(-r));
			return r;
		}
		r = pin_make(s, b, i, s->map[i].name, fd);
		if (r < 0)
			return r;
	}
	return 0;
}

static void iterators_attach(struct state *s, struct state_bpf *b)
{
	for (unsigned i = 0; i < N_ITERS; i++) {
		union bpf_iter_link_info info = { .map.map_fd = (uint32_t)s->map[i].fd };
		LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));

		b->link[i] = bpf_program__attach_iter(skel_prog(b->skel, i), &opts);
		if (!b->link[i]) {
			state_lacks_bpf(s, "the tables cannot be attached to the BPF maps", -errno);
			return;
		}
		if (pin_make(s, b, N_MAPS + i, iter_name[i], bpf_link__fd(b->link[i])) < 0)
			return;
	}
}

/* Stale tables show the arrays of a daemon that is gone: they go even when no new ones can be had. */
static void iterators_remove_stale(struct state_bpf *b)
{
	for (unsigned i = 0; i < N_ITERS; i++)
		(void)unlinkat(b->dir_fd, iter_name[i], 0);
}

/*
 * Maps with the tables' programs, or, where the kernel refuses those, without. `*ret_tables`: 0 or why there are
 * none.
 */
static int bpf_load_best(struct state *s, struct pagecached_bpf **ret_skel, int *ret_tables)
{
	char first[sizeof(complaint)];
	int r, tables;

	complaint[0] = '\0';
	tables = bpf_load(s, true, ret_skel);
	if (tables == 0) {
		*ret_tables = 0;
		return 0;
	}
	memcpy(first, complaint, sizeof(first));
	complaint[0] = '\0';
	r = bpf_load(s, false, ret_skel);
	if (r < 0) {
		state_lacks_bpf(s, "BPF maps cannot be made", r);
		return r;
	}
	memcpy(complaint, first, sizeof(complaint));
	*ret_tables = tables;
	return 0;
}

static int bpf_try(struct state *s, struct state_bpf *b)
{
	int r, tables;

	r = folder_open(s, b);
	if (r < 0)
		return r;
	r = bpf_load_best(s, &b->skel, &tables);
	if (r < 0)
		return r;
	r = maps_attach(s, b);
	if (r < 0)
		return r;
	iterators_remove_stale(b);
	if (tables < 0) {
		state_lacks_bpf(s, "the tables cannot be loaded", tables);
		return 0;
	}
	complaint[0] = '\0';      /* what libbpf minded without failing is no reason for what fails later */
	iterators_attach(s, b);
	return 0;
}

/* Takes back what it did when it fails; the reason is in s->missing. */
static int state_open_bpf(struct state *s)
{
	libbpf_print_fn_t print;
	struct state_bpf *b;
	size_t len;
	int r;

	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->dir_fd = -1;
	b->dir = strdup(s->params.bpffs);
	if (!b->dir) {
		free(b);
		return -ENOMEM;
	}
	for (len = strlen(b->dir); len > 1 && b->dir[len - 1] == '/'; len--)
		b->dir[len - 1] = '\0';

	print = libbpf_set_print(keep_complaint);
	r = bpf_try(s, b);
	if (r < 0) {
		/* Unless a better reason is known. */
		state_lacks(s, "BPF maps cannot be had: %s", strerror(-r));
		unmap_memory(s, false);
		state_bpf_free(b);
	} else {
		s->priv = b;
		s->bpf = true;
		s->params.bpffs = b->dir;
	}
	libbpf_set_print(print);
	return r;
}

static int state_open_memfd(struct state *s)
{
	for (unsigned i = 0; i < N_MAPS; i++) {
		_cleanup_close_ int fd = -1;
		struct state_map *m = &s->map[i];
		char name[32];
		int r;

		(void)snprintf(name, sizeof(name), "pagecached-%s", m->name);
		fd = memfd_create(name, MFD_CLOEXEC);
		if (fd < 0)
			return -errno;
		/* Nobody else opens it again through /proc. */
		if (fchmod(fd, 0600) < 0 || ftruncate(fd, (off_t)m->mem_size) < 0)
			return -errno;
		r = map_memory(m, fd);
		if (r < 0)
			return r;
		(void)take_fd(&fd);
	}
	return 0;
}

/* One more for slot 0, which nobody gets, then equal shares. */
static int share_slots(uint32_t wanted, unsigned workers, uint32_t *ret)
{
	uint64_t n = (uint64_t)wanted + 1;

	n = (n + workers - 1) / workers * workers;
	if (wanted == 0 || n > UINT32_MAX)
		return -EINVAL;
	*ret = (uint32_t)n;
	return 0;
}

static int state_set_sizes(struct state *s, const struct state_params *p)
{
	uint32_t entries[N_MAPS];
	long page = sysconf(_SC_PAGESIZE);

	if (p->workers == 0 || p->workers >= UINT32_MAX || p->cgroups == 0 || p->cgroups == UINT32_MAX)
		return -EINVAL;
	if (share_slots(p->files, p->workers, &entries[0]) < 0 || share_slots(p->blocks, p->workers, &entries[1]) < 0 ||
	    share_slots(p->mappings, p->workers, &entries[2]) < 0)
		return -EINVAL;
	entries[3] = p->cgroups + 1;
	entries[4] = p->workers + 1;
	s->params = (struct state_params){ .workers = p->workers, .files = entries[0], .blocks = entries[1],
					   .mappings = entries[2], .cgroups = entries[3] };
	for (unsigned i = 0; i < N_MAPS; i++)
		s->map[i] = (struct state_map){
			.name = layout[i].name,
			.entries = entries[i],
			.entry_size = layout[i].entry_size,
			.mem_size = align_up((uint64_t)entries[i] * layout[i].entry_size, (uint64_t)page),
			.fd = -1,
		};
	return 0;
}

int state_open(struct state *s, const struct state_params *p)
{
	struct state n = { 0 };
	int r;

	r = state_set_sizes(&n, p);
	if (r < 0)
		return r;
	r = -ENODEV;
	if (p->bpffs && p->bpffs[0] != '\0' && strcmp(p->bpffs, "none") != 0) {
		n.params.bpffs = p->bpffs;
		r = state_open_bpf(&n);
		if (r < 0)
			n.params.bpffs = NULL;
	}
	if (r < 0) {
		r = state_open_memfd(&n);
		if (r < 0) {
			unmap_memory(&n, true);
			free(n.missing);
			return r;
		}
	}
	n.files = n.map[0].mem;
	n.blocks = n.map[1].mem;
	n.mappings = n.map[2].mem;
	n.cgroups = n.map[3].mem;
	n.stats = n.map[4].mem;
	*s = n;
	return 0;
}

void state_close(struct state *s)
{
	if (s->map[0].mem)
		unmap_memory(s, !s->bpf);
	state_bpf_free(s->priv);
	free(s->missing);
	*s = (struct state){ 0 };
}

/* Slots: a stack, filled so that the lowest comes off first. */

int slot_pool_init(struct slot_pool *p, uint32_t first, uint32_t count)
{
	uint32_t *slots;

	if ((uint64_t)first + count > UINT32_MAX)
		return -EINVAL;
	if (first == 0 && count > 0) {
		first++;
		count--;
	}
	slots = malloc(sizeof(*slots) * MAX(count, 1u));
	if (!slots)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++)
		slots[i] = first + count - 1 - i;
	*p = (struct slot_pool){ .free = slots, .first = first, .count = count, .n_free = count };
	return 0;
}

void slot_pool_free(struct slot_pool *p)
{
	free(p->free);
	*p = (struct slot_pool){ 0 };
}

int64_t slot_pool_take(struct slot_pool *p)
{
	if (p->n_free == 0)
		return -ENOSPC;
	return p->free[--p->n_free];
}

void slot_pool_give(struct slot_pool *p, uint32_t slot)
{
	assert(slot >= p->first && slot - p->first < p->count);
	assert(p->n_free < p->count);
	p->free[p->n_free++] = slot;
}
