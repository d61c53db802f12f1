/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory cgroups. See cgroup.h for the contract.
 *
 * The hierarchy is looked for once: mountinfo says where it is mounted and which part of it is seen there (in a
 * container often not its root). After that a process costs one read of /proc/PID/cgroup and one stat.
 *
 * Threads: the mount point is written by cgroup_init() before other threads start and only read later. The table is
 * the main thread's, but for the three counters and for looking an id up. May call: util.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/cgroup.h"
#include "daemon/util/util.h"

static struct {
	char *proc;
	char *mount_point;         /* NULL: none was found */
	char *root;                /* the folder of the hierarchy that is seen at mount_point; "" is its root */
	bool v1;
} hierarchy;

static void cleanup_fclose(FILE **f)
{
	if (*f)
		fclose(*f);
}

/* Is `word` one of the comma-separated words of `list`? */
static bool list_has(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (;;) {
		if (strncmp(list, word, len) == 0 && (list[len] == ',' || list[len] == '\0'))
			return true;
		list = strchr(list, ',');
		if (!list)
			return false;
		list++;
	}
}

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void unescape_octal(char *s)
{
	char *out = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*out++ = *s++;
		}
	}
	*out = '\0';
}

struct mount_line {
	char *root, *mount_point;
	const char *type, *super_options;
};

/* ID PARENT MAJOR:MINOR ROOT MOUNT-POINT OPTIONS [OPTIONAL-FIELD...] - TYPE SOURCE SUPER-OPTIONS. Cuts `line` up. */
static bool mount_line_parse(char *line, struct mount_line *ret)
{
	char *field[6], *rest, *save = NULL;
	const char *type, *source, *options;

	line[strcspn(line, "\n")] = '\0';
	rest = strstr(line, " - ");
	if (!rest)
		return false;
	*rest = '\0';
	for (unsigned i = 0; i < ELEMENTSOF(field); i++) {
		field[i] = strtok_r(i == 0 ? line : NULL, " ", &save);
		if (!field[i])
			return false;
	}
	type = strtok_r(rest + 3, " ", &save);
	source = strtok_r(NULL, " ", &save);
	options = strtok_r(NULL, " ", &save);
	if (!type || !source || !options)
		return false;
	unescape_octal(field[3]);
	unescape_octal(field[4]);
	*ret = (struct mount_line){ .root = field[3], .mount_point = field[4], .type = type, .super_options = options };
	return true;
}

/* 0: of no use. The memory controller before anything else, then a mount that shows the whole hierarchy. */
static int mount_rank(const struct mount_line *m)
{
	bool whole = strcmp(m->root, "/") == 0;

	if (strcmp(m->type, "cgroup") == 0 && list_has(m->super_options, "memory"))
		return whole ? 4 : 3;
	if (strcmp(m->type, "cgroup2") == 0)
		return whole ? 2 : 1;
	return 0;
}

static int hierarchy_set(const struct mount_line *m)
{
	_cleanup_free_ char *mount_point = strdup(m->mount_point);
	_cleanup_free_ char *root = strdup(strcmp(m->root, "/") == 0 ? "" : m->root);

	if (!mount_point || !root)
		return -ENOMEM;
	free(hierarchy.mount_point);
	free(hierarchy.root);
	hierarchy.mount_point = TAKE_PTR(mount_point);
	hierarchy.root = TAKE_PTR(root);
	hierarchy.v1 = strcmp(m->type, "cgroup") == 0;
	return 0;
}

int cgroup_init(const char *proc, const char *mountinfo)
{
	CLEANUP(cleanup_fclose) FILE *f = NULL;
	_cleanup_free_ char *line = NULL;
	size_t allocated = 0;
	int best = 0;

	cgroup_exit();
	hierarchy.proc = strdup(proc);
	if (!hierarchy.proc)
		return -ENOMEM;
	f = fopen(mountinfo, "re");
	if (!f)
		return -errno;
	while (getline(&line, &allocated, f) >= 0) {
		struct mount_line m;
		int rank, r;

		if (!mount_line_parse(line, &m))
			continue;
		rank = mount_rank(&m);
		if (rank <= best)
			continue;
		r = hierarchy_set(&m);
		if (r < 0)
			return r;
		best = rank;
	}
	if (ferror(f)) {
		cgroup_exit();
		return -EIO;
	}
	return best > 0 ? 0 : -ENOENT;
}

void cgroup_exit(void)
{
	free(hierarchy.proc);
	free(hierarchy.mount_point);
	free(hierarchy.root);
	memset(&hierarchy, 0, sizeof(hierarchy));
}

/*
 * ID:CONTROLLERS:PATH, of which version 2 has "0::PATH". Returns the path when the line is of our hierarchy, else
 * NULL.
 */
static char *cgroup_line_path(char *line)
{
	char *controllers, *path;

	line[strcspn(line, "\n")] = '\0';
	controllers = strchr(line, ':');
	if (!controllers)
		return NULL;
	*controllers++ = '\0';
	path = strchr(controllers, ':');
	if (!path)
		return NULL;
	*path++ = '\0';
	if (hierarchy.v1)
		return list_has(controllers, "memory") ? path : NULL;
	return controllers[0] == '\0' && strcmp(line, "0") == 0 ? path : NULL;
}

/* The part of a cgroup's path below what is mounted; NULL: it is not below that. */
static const char *path_below_root(const char *path)
{
	size_t len = strlen(hierarchy.root);

	/* "/.." and "/../x" are outside our cgroup namespace. */
	if (strncmp(path, hierarchy.root, len) != 0)
		return NULL;
	if (strncmp(path, "/..", 3) == 0 && (path[3] == '/' || path[3] == '\0'))
		return NULL;
	path += len;
	return path[0] == '/' || path[0] == '\0' ? path : NULL;
}

static int cgroup_folder_id(const char *below, uint64_t *ret_id)
{
	_cleanup_free_ char *folder = NULL;
	struct stat st;

	if (asprintf(&folder, "%s%s", hierarchy.mount_point, below) < 0) {
		folder = NULL;
		return -ENOMEM;
	}
	if (stat(folder, &st) < 0)
		return errno == ENOTDIR ? -ENOENT : -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOENT;
	*ret_id = st.st_ino;
	return 0;
}

int cgroup_of_pid(pid_t pid, uint64_t *ret_id) { return cgroup_of_pid_path(pid, ret_id, NULL, 0); }

int cgroup_of_pid_path(pid_t pid, uint64_t *ret_id, char *ret_path, size_t size)
{
	CLEANUP(cleanup_fclose) FILE *f = NULL;
	_cleanup_free_ char *name = NULL, *line = NULL;
	size_t allocated = 0;

	if (pid <= 0)
		return -EINVAL;
	if (!hierarchy.mount_point)
		return -ENOENT;
	if (asprintf(&name, "%s/%d/cgroup", hierarchy.proc, (int)pid) < 0) {
		name = NULL;
		return -ENOMEM;
	}
	f = fopen(name, "re");
	if (!f)
		return errno == ENOENT ? -ESRCH : -errno;
	errno = 0;
	while (getline(&line, &allocated, f) >= 0) {
		const char *path = cgroup_line_path(line);

		if (!path)
			continue;
		path = path_below_root(path);
		if (path && ret_path && snprintf(ret_path, size, "%s%s", *path == '/' ? "" : "/", path) >= (int)size)
			return -ENAMETOOLONG;
		return path ? cgroup_folder_id(path, ret_id) : -ENOENT;
	}
	/* A process that is gone between the open and the read says so in the read. */
	return ferror(f) && errno > 0 ? -errno : -ENOENT;
}

const char *cgroup_mount_point(bool *ret_v1)
{
	*ret_v1 = hierarchy.v1;
	return hierarchy.mount_point;
}

/*
 * The table. Its ids and counters are read and written with relaxed atomics. That is enough: a slot goes from main
 * thread to worker and back by messages, which order everything; what other threads may see of an entry in between
 * is an id that they do not look for, or a counter. The main thread frees an entry when it reads zeros in it, and
 * it does not write the counters then: whoever brought the last one to 0 does not touch the slot again (see
 * cgroup.h), so a late or early reading of it harms nothing.
 *
 * Three counters are not read at one instant, so the order counts: without a handle `mapped` only falls, and without
 * `mapped` a page that is not resident is not dirtied. Hence handles, then mapped, then resident, then dirty.
 */

static uint64_t load(const pgc_u64 *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static void set_id(struct pgc_cgroup_entry *e, uint64_t id)
{
	__atomic_store_n(&e->id, id, __ATOMIC_RELAXED);
}

void cgroup_table_init(struct cgroup_table *t, struct pgc_cgroup_entry *entry, uint32_t n)
{
	assert(n > 0);
	*t = (struct cgroup_table){ .entry = entry, .n = n };
}

/* Empties the entry when nothing needs it any more; true when it is empty then. */
static bool entry_collect(struct pgc_cgroup_entry *e)
{
	if (load(&e->id) == 0)
		return true;
	if (e->handles > 0 || load(&e->mapped) || load(&e->resident) || load(&e->dirty))
		return false;
	set_id(e, 0);
	return true;
}

uint32_t cgroup_table_take(struct cgroup_table *t, uint64_t id)
{
	uint32_t slot = 0;

	if (id != 0 && id != CGROUP_OTHER)
		slot = cgroup_table_find(t, id);
	/*
	 * A new one: the first that is free, looking again at those whose pages have gone since their last handle
	 * went.
	 */
	for (uint32_t i = 1; slot == 0 && i < t->n && id != 0 && id != CGROUP_OTHER; i++)
		if (entry_collect(&t->entry[i])) {
			slot = i;
			t->entry[i].reclaimed = t->entry[i].limit = 0;
		}
	set_id(&t->entry[slot], slot == 0 ? CGROUP_OTHER : id);
	t->entry[slot].handles++;
	return slot;
}

void cgroup_table_put(struct cgroup_table *t, uint32_t slot)
{
	assert(slot < t->n && t->entry[slot].handles > 0);
	t->entry[slot].handles--;
	(void)entry_collect(&t->entry[slot]);
}

uint32_t cgroup_table_find(const struct cgroup_table *t, uint64_t id)
{
	for (uint32_t i = 1; i < t->n; i++)
		if (load(&t->entry[i].id) == id)
			return i;
	return 0;
}

uint64_t cgroup_table_id(const struct cgroup_table *t, uint32_t slot)
{
	assert(slot < t->n);
	return load(&t->entry[slot].id);
}

static void add(pgc_u64 *counter, int64_t pages)
{
	if (pages != 0)
		(void)__atomic_fetch_add(counter, (uint64_t)pages, __ATOMIC_RELAXED);
}

void cgroup_table_add(struct cgroup_table *t, uint32_t slot, int64_t mapped, int64_t resident, int64_t dirty)
{
	struct pgc_cgroup_entry *e;

	assert(slot < t->n);
	e = &t->entry[slot];
	add(&e->mapped, mapped);
	add(&e->resident, resident);
	add(&e->dirty, dirty);
}
