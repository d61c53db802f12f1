/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits and what is used of them. Invariants: what the kernel can take back by itself, which is the page cache, is not counted as used: a cgroup that reads
 * large files stands at its limit all the time and lacks nothing. Pages of memfds are not on the lists of files, so they count, and they are what the cache
 * can give. Nothing is kept between two readings. Main thread (reads of /proc and cgroup files do not wait for a disk). May call: util.
 */
#include "daemon/memory_room.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/util/util.h"

#define MIB ((uint64_t)1 << 20)
#define NO_LIMIT UINT64_MAX

/* A file of `folder`, as text. */
static int read_text(const char *folder, const char *name, char *ret, size_t size)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *path = NULL;
	ssize_t n;

	if (asprintf(&path, "%s/%s", folder, name) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, ret, size - 1);
	if (n < 0)
		return -errno;
	ret[n] = '\0';
	return 0;
}

/* A number at the start of `s`; "max" is NO_LIMIT. */
static bool parse_number(const char *s, uint64_t *ret)
{
	char *after;

	s += strspn(s, " \t");
	if (strncmp(s, "max", 3) == 0) {
		*ret = NO_LIMIT;
		return true;
	}
	if (*s < '0' || *s > '9')
		return false;
	*ret = strtoull(s, &after, 10);
	return true;
}

/* False: no such file, or no number in it; *ret is as before. */
static bool read_number(const char *folder, const char *name, uint64_t *ret)
{
	char text[64];

	return read_text(folder, name, text, sizeof(text)) == 0 && parse_number(text, ret);
}

/* The number that stands behind `key` at the start of a line. */
static bool find_key(const char *text, const char *key, uint64_t *ret)
{
	size_t n = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, n) == 0 && (line[n] == ' ' || line[n] == ':'))
			return parse_number(line + n + 1, ret);
	}
	return false;
}

int memory_room_open(struct memory_room *m, const char *proc, const char *mount_point, const char *path, bool v1)
{
	_cleanup_free_ char *below = NULL;
	size_t n;

	*m = (struct memory_room){ .proc = strdup(proc), .v1 = v1 };
	if (mount_point)
		below = strdup(path);
	if (!m->proc || (mount_point && !below)) {
		memory_room_close(m);
		return -ENOMEM;
	}
	while (mount_point && m->n_levels < ROOM_LEVELS_MAX) {
		char *folder;

		for (n = strlen(below); n > 0 && below[n - 1] == '/';)
			below[--n] = '\0';
		if (asprintf(&folder, "%s%s", mount_point, below) < 0) {
			memory_room_close(m);
			return -ENOMEM;
		}
		m->level[m->n_levels++].folder = folder;
		if (n == 0)
			break;
		while (n > 0 && below[n - 1] != '/')
			below[--n] = '\0';
	}
	return 0;
}

void memory_room_close(struct memory_room *m)
{
	if (!m)
		return;
	for (unsigned i = 0; i < m->n_levels; i++)
		free(m->level[i].folder);
	free(m->proc);
	*m = (struct memory_room){ 0 };
}

/* Something of which `limit` is there and `used` cannot be taken back by the kernel; short from `mark` on, at ease below `ease`. */
struct share {
	uint64_t used, limit, mark, ease;
	const char *folder;        /* NULL: the machine */
};

static void share_count(const struct share *s, struct room_reading *ret)
{
	uint64_t to_mark = s->used < s->mark ? s->mark - s->used : 0;
	uint64_t room = s->used < s->ease ? s->ease - s->used : 0;

	ret->to_mark = MIN(ret->to_mark, to_mark);
	ret->room = MIN(ret->room, room);
	if (s->used >= s->limit - s->limit / 4)
		ret->tight = true;
	if (s->used < s->mark || s->used - s->ease < ret->lacking)
		return;
	ret->lacking = MAX(s->used - s->ease, 1);
	if (s->folder)
		(void)snprintf(ret->cause, sizeof(ret->cause), "%" PRIu64 " of %" PRIu64 " MiB are in use in the memory cgroup %s",
			       s->used / MIB, s->limit / MIB, s->folder);
	else
		(void)snprintf(ret->cause, sizeof(ret->cause), "%" PRIu64 " of %" PRIu64 " MiB are available on the machine",
			       (s->limit - s->used) / MIB, s->limit / MIB);
}

/*
 * Version 1 has no memory.high; its soft limit is the nearest to that. hierarchical_memory_limit also knows of cgroups above the mount point, which a
 * container cannot see. Its plain counters in memory.stat are the cgroup's own, those with total_ those of all below it, as usage is.
 */
static bool read_level(const struct memory_room *m, const struct room_level *l, struct share *ret)
{
	uint64_t usage = 0, limit = NO_LIMIT, number, active = 0, inactive = 0;
	char stat[8192];

	if (!read_number(l->folder, m->v1 ? "memory.usage_in_bytes" : "memory.current", &usage) ||
	    read_text(l->folder, "memory.stat", stat, sizeof(stat)) < 0)
		return false;
	if (read_number(l->folder, m->v1 ? "memory.limit_in_bytes" : "memory.max", &number))
		limit = MIN(limit, number);
	if (read_number(l->folder, m->v1 ? "memory.soft_limit_in_bytes" : "memory.high", &number))
		limit = MIN(limit, number);
	if (m->v1 && find_key(stat, "hierarchical_memory_limit", &number))
		limit = MIN(limit, number);
	(void)find_key(stat, m->v1 ? "total_active_file" : "active_file", &active);
	(void)find_key(stat, m->v1 ? "total_inactive_file" : "inactive_file", &inactive);
	*ret = (struct share){
		.used = usage > active + inactive ? usage - active - inactive : 0, .limit = limit,
		.mark = limit - limit / 20, .ease = limit - limit / 10, .folder = l->folder,
	};
	return true;
}

/* The machine is the last resort: its own reclaim has long begun when so little is available. */
static bool read_machine(const struct memory_room *m, struct share *ret)
{
	uint64_t total, available, reserve;
	char text[8192];

	if (read_text(m->proc, "meminfo", text, sizeof(text)) < 0 || !find_key(text, "MemTotal", &total) ||
	    !find_key(text, "MemAvailable", &available))
		return false;
	total *= 1024;
	available = MIN(available * 1024, total);
	reserve = MIN(MAX(total / 50, 128 * MIB), total / 2);
	*ret = (struct share){
		.used = total - available, .limit = total, .mark = total - reserve, .ease = total - MIN(reserve * 2, total),
	};
	return true;
}

void memory_room_read(const struct memory_room *m, struct room_reading *ret)
{
	struct share s;

	*ret = (struct room_reading){ .to_mark = UINT64_MAX, .room = UINT64_MAX };
	for (unsigned i = 0; i < m->n_levels; i++)
		if (read_level(m, &m->level[i], &s))
			share_count(&s, ret);
	if (read_machine(m, &s))
		share_count(&s, ret);
}

int memory_room_events(int fd, uint64_t *ret)
{
	static const char *const keys[] = { "high", "max", "oom" };
	char text[512];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	uint64_t number, sum = 0;
	bool found = false;

	if (n < 0)
		return -errno;
	text[n] = '\0';
	for (unsigned i = 0; i < ELEMENTSOF(keys); i++)
		if (find_key(text, keys[i], &number)) {
			sum += number;
			found = true;
		}
	if (!found)
		return -ENODATA;
	*ret = sum;
	return 0;
}
