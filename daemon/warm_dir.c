/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See warm_dir.h. A record is written under a name of its own and renamed, so that a reader finds an old one, a new one, or none. It is not synced: what
 * a crash of the machine makes of it is found out by its checksum.
 * On the offload thread of key 0. May call warm_record, log and util.
 */
#include "daemon/warm_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/log.h"
#include "daemon/util/util.h"

#define SUFFIX   ".warm"
#define NEW_NAME "new-record"  /* while it is being written; what a crash left is replaced */

void warm_dir_init(struct warm_dir *d, const char *path)
{
	*d = (struct warm_dir){ .path = path, .max_records = WARM_DIR_RECORDS, .max_bytes = WARM_DIR_BYTES };
}

/* The identity as one number: records of two files that meet are told apart by what is in them. */
static void record_name(const struct warm_record *r, char ret[32])
{
	uint64_t h = r->dev * 0x9e3779b97f4a7c15ull;

	h = (h ^ (h >> 32) ^ r->ino) * 0xc2b2ae3d27d4eb4full;
	snprintf(ret, 32, "%016" PRIx64 SUFFIX, h ^ (h >> 29));
}

static bool is_record_name(const char *name)
{
	size_t n = strlen(name);

	return n == 16 + strlen(SUFFIX) && strspn(name, "0123456789abcdef") == 16 && strcmp(name + 16, SUFFIX) == 0;
}

static int fail(struct warm_dir *d, int error, const char *what)
{
	if (!d->failed)
		log_warning("no warm starts: %s in %s: %s", what, d->path, strerror(-error));
	d->failed = true;
	return error;
}

/* The folder and the parents that are missing. */
static int make_dir(const char *path)
{
	_cleanup_free_ char *part = strdup(path);

	if (!part)
		return -ENOMEM;
	for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return mkdir(part, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int open_dir(const struct warm_dir *d)
{
	int fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* --- how many there are --- */

struct found {
	char name[32];
	struct timespec mtime;
	uint64_t size;
};

static int older_first(const void *pa, const void *pb)
{
	const struct found *a = pa, *b = pb;

	int order = compare_times(a->mtime, b->mtime);

	return order ? order : strcmp(a->name, b->name);
}

/* All records of the folder, counted anew; a failed allocation leaves the rest out. */
static size_t list_records(struct warm_dir *d, int dir_fd, struct found **ret)
{
	struct found *list = NULL;
	size_t n = 0, room = 0;
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	struct stat st;

	if (!dir && fd >= 0)
		close(fd);
	d->records = d->bytes = 0;
	while (dir && (e = readdir(dir))) {
		if (!is_record_name(e->d_name) || fstatat(dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (n == room) {
			struct found *more = reallocarray(list, MAX(room * 2, 64u), sizeof(*list));

			if (!more)
				break;
			list = more;
			room = MAX(room * 2, 64u);
		}
		list[n] = (struct found){ .mtime = st.st_mtim, .size = (uint64_t)st.st_size };
		strcpy(list[n++].name, e->d_name);
		d->records++;
		d->bytes += (uint64_t)st.st_size;
	}
	if (dir)
		closedir(dir);
	d->counted = dir != NULL;
	*ret = list;
	return n;
}

static void make_room(struct warm_dir *d, int dir_fd, uint64_t size)
{
	_cleanup_free_ struct found *list = NULL;
	size_t n;

	if (d->counted && d->records + 1 <= d->max_records && d->bytes + size <= d->max_bytes)
		return;
	n = list_records(d, dir_fd, &list);
	if (d->records + 1 <= d->max_records && d->bytes + size <= d->max_bytes)
		return;
	qsort(list, n, sizeof(*list), older_first);
	/* Somewhat more than needed, so that the next ones need not look again. */
	for (size_t i = 0; i < n && (d->records + 1 > d->max_records - d->max_records / 8 || d->bytes + size > d->max_bytes - d->max_bytes / 8); i++)
		if (unlinkat(dir_fd, list[i].name, 0) == 0) {
			d->records--;
			d->bytes -= list[i].size;
		}
}

static void remove_record(struct warm_dir *d, int dir_fd, const char *name)
{
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || unlinkat(dir_fd, name, 0) < 0 || !d->counted)
		return;
	d->records -= MIN(d->records, 1u);
	d->bytes -= MIN(d->bytes, (uint64_t)st.st_size);
}

/* --- writing --- */

static int write_all(int fd, const uint8_t *data, size_t size)
{
	while (size > 0) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		size -= (size_t)n;
	}
	return 0;
}

static int write_new(int dir_fd, const void *data, size_t size)
{
	_cleanup_close_ int fd = -1;

	(void)unlinkat(dir_fd, NEW_NAME, 0);
	fd = openat(dir_fd, NEW_NAME, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : write_all(fd, data, size);
}

int warm_dir_write(struct warm_dir *d, const struct warm_record *r)
{
	_cleanup_close_ int dir_fd = open_dir(d);
	_cleanup_free_ void *data = NULL;
	struct stat before;
	char name[32];
	size_t size;
	int e;

	if (dir_fd == -ENOENT) {
		e = make_dir(d->path);
		if (e < 0)
			return fail(d, e, "the state folder cannot be made");
		d->counted = false;
		dir_fd = open_dir(d);
	}
	if (dir_fd < 0)
		return fail(d, dir_fd, "the state folder cannot be opened");
	e = warm_record_encode(r, &data, &size);
	if (e < 0)
		return e;
	record_name(r, name);
	make_room(d, dir_fd, size);
	if (fstatat(dir_fd, name, &before, AT_SYMLINK_NOFOLLOW) < 0)
		before.st_size = -1;
	e = write_new(dir_fd, data, size);
	if (e == 0 && renameat(dir_fd, NEW_NAME, dir_fd, name) < 0)
		e = -errno;
	if (e < 0) {
		(void)unlinkat(dir_fd, NEW_NAME, 0);
		return fail(d, e, "a record cannot be written");
	}
	if (before.st_size < 0)
		d->records++;
	else
		d->bytes -= MIN(d->bytes, (uint64_t)before.st_size);
	d->bytes += size;
	d->failed = false;
	return 0;
}

/* --- reading --- */

static int read_whole(int fd, void **ret, size_t *ret_size)
{
	_cleanup_free_ uint8_t *data = NULL;
	struct stat st;
	size_t n = 0;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < 0 || st.st_size > WARM_RECORD_MAX)
		return -EFBIG;
	data = malloc((size_t)st.st_size + 1);
	if (!data)
		return -ENOMEM;
	while (n < (size_t)st.st_size) {
		ssize_t r = read(fd, data + n, (size_t)st.st_size - n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		n += (size_t)r;
	}
	*ret = TAKE_PTR(data);
	*ret_size = n;
	return 0;
}

int warm_dir_read(struct warm_dir *d, const struct warm_record *now, struct warm_record *ret)
{
	_cleanup_close_ int dir_fd = open_dir(d), fd = -1;
	_cleanup_free_ void *data = NULL;
	const char *why = NULL;
	struct warm_record r;
	size_t size = 0;
	char name[32];
	int e;

	if (dir_fd == -ENOENT)
		return -ENOENT;
	if (dir_fd < 0)
		return fail(d, dir_fd, "the state folder cannot be opened");
	record_name(now, name);
	fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC); /* what is not a file does not hold us up */
	if (fd < 0)
		return errno == ENOENT ? -ENOENT : fail(d, -errno, "a record cannot be opened");
	e = read_whole(fd, &data, &size);
	if (e == 0)
		e = warm_record_decode(&r, data, size, &why);
	else if (e == -EFBIG)
		why = "it is no file, or too large";
	if (e == 0) {
		why = warm_record_mismatch(&r, now);
		if (why)
			warm_record_free(&r);
	}
	if (why) {
		log_at(LOG_LEVEL_NOTICE, now->name, 0, "its record of hot pages is ignored and removed: %s", why);
		remove_record(d, dir_fd, name);
		return -EBADMSG;
	}
	if (e < 0)
		return fail(d, e, "a record cannot be read");
	*ret = r;
	return 0;
}
