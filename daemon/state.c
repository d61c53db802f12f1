/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's visible state: arrays, in BPF maps, in files on a tmpfs or in memfds.
 *
 * How it comes up: state_open() tries the BPF way first, step by step (folder, load, mmap, pin, iterators), and writes
 * down the first step that failed with its reason. A failure before the iterators takes everything back that was made
 * and uses memfds; a failure of the iterators only costs the tables.
 *
 * Invariants:
 *  - what the arrays hold is all zeros at first, whichever way they come;
 *  - a pin is removed only while it is the very inode that was pinned here. Nothing else in the folder is touched,
 *    but for stale pins of our names at the start, and that only under the lock on the folder, which a
 *    living daemon holds;
 *  - what an earlier daemon left is taken over whole or not at all.
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

#include "daemon/saved.h"
#include "daemon/state.h"
#include "daemon/twin.h"
#include "daemon/util/util.h"
#include "pagecached.skel.h"
#include "version.h"

#define N_MAPS 7
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
	{ "saved_files", sizeof(struct pgc_saved_file) },
	{ "saved_handles", sizeof(struct pgc_saved_handle) },
};
#define SAVED_FILES 5

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
static __attribute__((format(printf, 2, 3))) void keep_reason(char **reason, const char *format, ...)
{
	va_list args;

	if (*reason)
		return;
	va_start(args, format);
	if (vasprintf(reason, format, args) < 0)
		*reason = NULL;
	va_end(args);
}
#define state_lacks(s, ...)   keep_reason(&(s)->missing, __VA_ARGS__)
#define state_refuses(s, ...) keep_reason(&(s)->not_recovered, __VA_ARGS__) /* what was found is not used */

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
	r = twin_lock(b->dir_fd);
	if (r < 0) {
		b->made_dir = false;
		s->held = r == -EWOULDBLOCK;
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

/* One that an earlier daemon has made: ours from now on. */
static void pin_known(struct state_bpf *b, unsigned i, const char *name)
{
	struct stat st;

	if (fstatat(b->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		b->pin[i] = (struct pin){ .name = name, .dev = st.st_dev, .ino = st.st_ino };
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
		skel->maps.saved_files, skel->maps.saved_handles,
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
		r = s->recovered ? bpf_map__reuse_fd(skel_map(skel, i), s->map[i].fd) : bpf_map__set_max_entries(skel_map(skel, i), s->map[i].entries);
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

/* --- what an earlier daemon left --- */

static int state_set_sizes(struct state *s, const struct state_params *p);

/* Too little of something just now: no reason to take what is there for lost. */
static bool may_pass(int error) { return error == -ENOMEM || error == -EMFILE || error == -ENFILE; }

/* All arrays are there, `entries` of each by its own account: maps them and looks whether they belong together. 0, -ESTALE, or what may_pass(). */
static int take_over(struct state *s, const uint32_t entries[N_MAPS])
{
	struct state_params old = s->params;
	unsigned char boot_id[16];
	const struct pgc_saved_header *h;
	const char *wrong;
	int r;

	for (unsigned i = 0; i < N_MAPS; i++) {
		struct state_map *m = &s->map[i];

		m->entries = entries[i];
		m->mem_size = align_up((uint64_t)entries[i] * m->entry_size, (uint64_t)sysconf(_SC_PAGESIZE));
		r = map_memory(m, m->fd);
		if (r < 0) {
			state_refuses(s, "%s cannot be mapped: %s", m->name, strerror(-r));
			return may_pass(r) ? r : -ESTALE;
		}
	}
	h = s->map[SAVED_FILES].mem;
	wrong = saved_boot_id(boot_id) < 0 ? "the boot cannot be told" : saved_check_header(h, boot_id);
	if (!wrong && (h->files != entries[0] || h->blocks != entries[1] || h->mappings != entries[2] || h->cgroups != entries[3] ||
		       h->workers + 1 != entries[4] || h->files != entries[5] || h->handles != entries[6]))
		wrong = "its parts do not fit together";
	if (wrong) {
		state_refuses(s, "%s", wrong);
		return -ESTALE;
	}
	s->params = (struct state_params){ .bpffs = old.bpffs, .workers = h->workers, .files = h->files, .blocks = h->blocks,
					   .mappings = h->mappings, .cgroups = h->cgroups, .handles = h->handles };
	s->recovered = true;
	return 0;
}

/* What was found is not used: everything is as if nothing had been there. */
static void find_again(struct state *s)
{
	const char *bpffs = s->params.bpffs;

	unmap_memory(s, true);
	s->recovered = false;
	(void)state_set_sizes(s, s->wanted); /* it was right before */
	s->params.bpffs = bpffs;
}

/* Under the folder's lock. -ENOENT: nothing is there; -ESTALE: something that cannot be used; what may_pass(). */
static int bpf_find(struct state *s, struct state_bpf *b)
{
	uint32_t entries[N_MAPS];

	for (unsigned i = 0; i < N_MAPS; i++) {
		_cleanup_free_ char *path = NULL;
		struct bpf_map_info info = { 0 };
		uint32_t len = sizeof(info);
		int fd;

		if (asprintf(&path, "%s/%s", b->dir, s->map[i].name) < 0) {
			path = NULL;
			return -ENOMEM;
		}
		fd = bpf_obj_get(path);
		if (fd < 0 && errno == ENOENT && i == 0)
			return -ENOENT;
		if (fd < 0 && may_pass(-errno))
			return -errno;
		s->map[i].fd = fd;
		if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0) {
			state_refuses(s, "%s is missing", s->map[i].name);
			return -ESTALE;
		}
		if (info.type != BPF_MAP_TYPE_ARRAY || !(info.map_flags & BPF_F_MMAPABLE) || info.value_size != s->map[i].entry_size) {
			state_refuses(s, "%s is of another layout", s->map[i].name);
			return -ESTALE;
		}
		entries[i] = info.max_entries;
	}
	return take_over(s, entries);
}

/* Writes down what this state is: the last step of making it. */
static int state_seal(struct state *s)
{
	struct pgc_saved_header *h = s->map[SAVED_FILES].mem;
	struct pgc_saved_header n = { .workers = s->params.workers, .files = s->map[0].entries, .blocks = s->map[1].entries,
				      .mappings = s->map[2].entries, .cgroups = s->map[3].entries, .handles = s->map[6].entries };
	int r = s->recovered ? 0 : saved_boot_id(n.boot_id);

	if (r < 0)
		return r;
	if (!s->recovered) {
		saved_seal_header(&n);
		*h = n;
	}
	h->incarnation++;
	if (s->priv && s->recovered)
		s->priv->made_dir = h->made_folder;
	h->made_folder = s->priv && s->priv->made_dir;
	(void)snprintf(h->version, sizeof(h->version), "%s", PGC_VERSION);
	return 0;
}

/* Maps and pins all maps. An error has its reason in s->missing. */
static int maps_attach(struct state *s, struct state_bpf *b)
{
	for (unsigned i = 0; i < N_MAPS; i++) {
		int fd = bpf_map__fd(skel_map(b->skel, i));
		int r;

		if (s->recovered) { /* its own descriptor, kept in s->map[i].fd, is not needed any more */
			close(s->map[i].fd);
			s->map[i].fd = fd;
			pin_known(b, i, s->map[i].name);
			continue;
		}
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
	s->found = s->wanted->recover && may_pass(r); /* there may be */
	if (r < 0)
		return r;
	r = s->wanted->recover ? bpf_find(s, b) : -ENOENT;
	s->found = may_pass(r) || r == 0;
	if (may_pass(r))
		return r;
	if (r < 0)
		find_again(s);
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
		if (s->found && may_pass(r)) {
			unmap_memory(s, true);
		} else if (s->recovered) {
			state_refuses(s, "the BPF maps cannot be used");
			find_again(s);
		} else {
			unmap_memory(s, false);
		}
		state_bpf_free(b);
	} else {
		s->priv = b;
		s->bpf = true;
		s->params.bpffs = b->dir;
	}
	libbpf_set_print(print);
	return r;
}

/* Files on a tmpfs. */

static int file_open(struct state *s, unsigned i, bool make)
{
	_cleanup_free_ char *path = NULL;
	struct statfs fs;
	struct stat st;
	int fd, r;

	if (asprintf(&path, "%s%s", s->wanted->prefix, s->map[i].name) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	if (make && unlink(path) < 0 && errno != ENOENT)
		return -errno;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (make ? O_CREAT | O_EXCL : 0), 0600);
	if (fd < 0)
		return -errno;
	/* The folder may be everybody's: only what nobody else can have written counts. A disk's file would make stores to it wait. */
	r = fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0 ? -errno : 0;
	if (r == 0 && (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 0177) || st.st_nlink != 1))
		r = -EPERM;
	if (r == 0 && fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC)
		r = -ENODEV;
	/* Goes with the last descriptor, as the folder's. */
	if (r == 0 && i == 0 && twin_lock(fd) < 0)
		r = -EBUSY;
	if (r < 0) {
		if (make)
			(void)unlink(path);
		close(fd);
		return r;
	}
	s->map[i].fd = fd;
	return 0;
}

static void files_remove(struct state *s, const char *prefix)
{
	for (unsigned i = 0; i < N_MAPS; i++) {
		_cleanup_free_ char *path = NULL;

		if (asprintf(&path, "%s%s", prefix, s->map[i].name) >= 0)
			(void)unlink(path);
		else
			path = NULL;
	}
}

static int files_find(struct state *s)
{
	struct pgc_saved_header h;
	int r;

	for (unsigned i = 0; i < N_MAPS; i++) {
		r = file_open(s, i, false);
		if (r == -EBUSY || (r == -ENOENT && i == 0) || may_pass(r))
			return r;
		if (r < 0) {
			state_refuses(s, "%s: %s", s->map[i].name, strerror(-r));
			return -ESTALE;
		}
	}
	if (pread(s->map[SAVED_FILES].fd, &h, sizeof(h), 0) != sizeof(h)) {
		state_refuses(s, "it is none, or was not finished");
		return -ESTALE;
	}
	const uint32_t entries[N_MAPS] = { h.files, h.blocks, h.mappings, h.cgroups, h.workers + 1, h.files, h.handles };

	for (unsigned i = 0; i < N_MAPS; i++) {
		struct stat st;

		/* Shorter than it says: a touch would kill us. */
		if (fstat(s->map[i].fd, &st) < 0 || (uint64_t)st.st_size < (uint64_t)entries[i] * s->map[i].entry_size) {
			state_refuses(s, "%s is too short", s->map[i].name);
			return -ESTALE;
		}
	}
	return take_over(s, entries);
}

static int state_open_files(struct state *s)
{
	int r = s->wanted->recover ? files_find(s) : -ENOENT;

	if (r == -ENOENT && s->held && s->wanted->kept)
		r = -EBUSY; /* what was kept goes with what is in that folder */
	s->found = may_pass(r) || r == 0;
	if (r == 0) {
		s->prefix = strdup(s->wanted->prefix);
		return s->prefix ? 0 : -ENOMEM;
	}
	find_again(s);
	if (r == -EBUSY || may_pass(r))
		return r;
	s->prefix = strdup(s->wanted->prefix);
	r = s->prefix ? 0 : -ENOMEM;
	for (unsigned i = 0; i < N_MAPS && r == 0; i++) {
		r = file_open(s, i, true);
		if (r == 0 && ftruncate(s->map[i].fd, (off_t)s->map[i].mem_size) < 0)
			r = -errno;
		if (r == 0)
			r = map_memory(&s->map[i], s->map[i].fd);
	}
	if (r < 0 && s->prefix) {
		files_remove(s, s->prefix);
		free(s->prefix);
		s->prefix = NULL;
		find_again(s);
	}
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

	if (p->workers == 0 || p->workers >= UINT32_MAX || p->cgroups == 0 || p->cgroups == UINT32_MAX || p->handles == UINT32_MAX)
		return -EINVAL;
	if (share_slots(p->files, p->workers, &entries[0]) < 0 || share_slots(p->blocks, p->workers, &entries[1]) < 0 ||
	    share_slots(p->mappings, p->workers, &entries[2]) < 0)
		return -EINVAL;
	entries[3] = p->cgroups + 1;
	entries[4] = p->workers + 1;
	entries[5] = entries[0];
	/* At least one a worker. */
	if (share_slots(MAX(p->handles, p->workers), p->workers, &entries[6]) < 0)
		return -EINVAL;
	s->params = (struct state_params){ .workers = p->workers, .files = entries[0], .blocks = entries[1],
					   .mappings = entries[2], .cgroups = entries[3], .handles = entries[6] };
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
	struct state n = { .wanted = p };
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
	if (r < 0 && !(n.found && may_pass(r)) && p->prefix)
		r = state_open_files(&n);
	n.lasting = r == 0;
	if (r < 0 && !(n.found && may_pass(r)) && !(r == -EBUSY && p->kept))
		r = state_open_memfd(&n);
	if (r == 0)
		r = state_seal(&n);
	if (r < 0) {
		n.wanted = NULL;
		state_close(&n);
		return r;
	}
	n.wanted = NULL;
	n.files = n.map[0].mem;
	n.blocks = n.map[1].mem;
	n.mappings = n.map[2].mem;
	n.cgroups = n.map[3].mem;
	n.stats = n.map[4].mem;
	n.saved_files = n.map[5].mem;
	n.saved_handles = n.map[6].mem;
	*s = n;
	return 0;
}

void state_close(struct state *s)
{
	if (s->map[0].mem)
		unmap_memory(s, !s->bpf);
	if (s->prefix)
		files_remove(s, s->prefix);
	state_bpf_free(s->priv);
	free(s->prefix);
	free(s->missing);
	free(s->not_recovered);
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

void slot_pool_exclude(struct slot_pool *p, bool (*used)(void *arg, uint32_t slot), void *arg)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < p->n_free; i++)
		if (!used(arg, p->free[i]))
			p->free[n++] = p->free[i];
	p->n_free = n;
}
