/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A FUSE file system that shows a folder elsewhere: what a page cache in user space looks like when it is built on FUSE, for pgc-bench to compare with; and, with
 * --delay-ms, a store that is slow.
 *
 * With --cache the kernel keeps pages of its files, over opens too, and writes stores back later (FUSE_CAP_WRITEBACK_CACHE). Without, every read and write
 * comes here (direct I/O), and shared mappings are refused by the kernel. --delay-ms holds each read, write and fsync up for so long, whatever its size, and as many at
 * a time as are asked for, up to THREADS: so a store far away behaves.
 *
 * It is mounted in the foreground, with libfuse3's own threads, and SIGTERM unmounts it. It trusts who may mount it: for benchmarks only.
 */
#define FUSE_USE_VERSION 312
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define THREADS 64u

static struct {
	char *root;
	bool cache;
	long delay_ms;
} settings;

/* A lower path; `path` starts with '/'. */
static int lower(const char *path, char ret[PATH_MAX])
{
	return snprintf(ret, PATH_MAX, "%s%s", settings.root, path) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static void delay(void)
{
	struct timespec t = { settings.delay_ms / 1000, settings.delay_ms % 1000 * 1000000 };

	while (settings.delay_ms && nanosleep(&t, &t) && errno == EINTR)
		;
}

static void *fs_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
	config->use_ino = 1;
	config->nullpath_ok = 1;
	config->kernel_cache = settings.cache;
	config->direct_io = !settings.cache;
	if (settings.cache)
		config->attr_timeout = config->entry_timeout = 3600; /* nobody changes the folder but through here */
	if (settings.cache && conn->capable & FUSE_CAP_WRITEBACK_CACHE)
		conn->want |= FUSE_CAP_WRITEBACK_CACHE;
	conn->max_background = THREADS;
	conn->congestion_threshold = THREADS;
	return NULL;
}

static int fs_getattr(const char *path, struct stat *ret, struct fuse_file_info *fi)
{
	char p[PATH_MAX];
	int r;

	if (fi)
		return fstat((int)fi->fh, ret) ? -errno : 0;
	r = lower(path, p);
	return r ? r : lstat(p, ret) ? -errno : 0;
}

static int fs_open(const char *path, struct fuse_file_info *fi)
{
	int flags = fi->flags & ~(O_DIRECT | O_CREAT | O_EXCL | O_NOFOLLOW), fd, r;
	char p[PATH_MAX];

	/* With the write-back cache the kernel reads what it will write a part of, and finds the end itself. */
	if (settings.cache) {
		flags &= ~O_APPEND;
		if ((flags & O_ACCMODE) == O_WRONLY)
			flags = (flags & ~O_ACCMODE) | O_RDWR;
	}
	r = lower(path, p);
	if (r)
		return r;
	fd = open(p, flags | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	return 0;
}

static int fs_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	char p[PATH_MAX];
	int fd, r = lower(path, p);

	if (r)
		return r;
	fd = open(p, O_RDWR | O_CREAT | O_CLOEXEC | (fi->flags & (O_EXCL | O_TRUNC)), mode);
	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	return 0;
}

static int fs_read(const char *path, char *buf, size_t n, off_t off, struct fuse_file_info *fi)
{
	size_t done = 0;

	delay();
	while (done < n) {
		ssize_t r = pread((int)fi->fh, buf + done, n - done, off + (off_t)done);

		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		done += (size_t)r;
	}
	return (int)done;
}

static int fs_write(const char *path, const char *buf, size_t n, off_t off, struct fuse_file_info *fi)
{
	ssize_t r;

	delay();
	r = pwrite((int)fi->fh, buf, n, off);
	return r < 0 ? -errno : (int)r;
}

static int fs_fsync(const char *path, int data, struct fuse_file_info *fi)
{
	delay();
	return (data ? fdatasync((int)fi->fh) : fsync((int)fi->fh)) ? -errno : 0;
}

static int fs_release(const char *path, struct fuse_file_info *fi)
{
	close((int)fi->fh);
	return 0;
}

static int fs_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	char p[PATH_MAX];
	int r;

	if (fi)
		return ftruncate((int)fi->fh, size) ? -errno : 0;
	r = lower(path, p);
	return r ? r : truncate(p, size) ? -errno : 0;
}

static int fs_fallocate(const char *path, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	return fallocate((int)fi->fh, mode, off, len) ? -errno : 0;
}

static int fs_unlink(const char *path)
{
	char p[PATH_MAX];
	int r = lower(path, p);

	return r ? r : unlink(p) ? -errno : 0;
}

static int fs_rename(const char *from, const char *to, unsigned flags)
{
	char f[PATH_MAX], t[PATH_MAX];
	int r = lower(from, f);

	if (!r)
		r = lower(to, t);
	if (!r && flags)
		r = -EINVAL;
	return r ? r : rename(f, t) ? -errno : 0;
}

static int fs_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	char p[PATH_MAX];
	int r;

	if (fi)
		return fchmod((int)fi->fh, mode) ? -errno : 0;
	r = lower(path, p);
	return r ? r : chmod(p, mode) ? -errno : 0;
}

static int fs_utimens(const char *path, const struct timespec t[2], struct fuse_file_info *fi)
{
	char p[PATH_MAX];
	int r;

	if (fi)
		return futimens((int)fi->fh, t) ? -errno : 0;
	r = lower(path, p);
	return r ? r : utimensat(AT_FDCWD, p, t, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int fs_opendir(const char *path, struct fuse_file_info *fi)
{
	char p[PATH_MAX];
	DIR *d;
	int r = lower(path, p);

	if (r)
		return r;
	d = opendir(p);
	if (!d)
		return -errno;
	fi->fh = (uint64_t)(uintptr_t)d;
	return 0;
}

static int fs_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off, struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	DIR *d = (DIR *)(uintptr_t)fi->fh;
	struct dirent *e;

	rewinddir(d);
	while ((e = readdir(d))) {
		struct stat st = { .st_ino = e->d_ino, .st_mode = (mode_t)DTTOIF(e->d_type) };

		if (fill(buf, e->d_name, &st, 0, 0))
			break;
	}
	return 0;
}

static int fs_releasedir(const char *path, struct fuse_file_info *fi)
{
	closedir((DIR *)(uintptr_t)fi->fh);
	return 0;
}

static const struct fuse_operations operations = {
	.init = fs_init, .getattr = fs_getattr, .open = fs_open, .create = fs_create, .read = fs_read, .write = fs_write, .fsync = fs_fsync,
	.release = fs_release, .truncate = fs_truncate, .fallocate = fs_fallocate, .unlink = fs_unlink, .rename = fs_rename, .chmod = fs_chmod,
	.utimens = fs_utimens, .opendir = fs_opendir, .readdir = fs_readdir, .releasedir = fs_releasedir,
};

static int usage(FILE *out, int status)
{
	fprintf(out, "Usage: pgc-fuse FOLDER MOUNTPOINT [--cache] [--delay-ms N]\n"
		"Shows FOLDER at MOUNTPOINT until SIGTERM, in the foreground.\n\n"
		"  --cache       the kernel keeps pages and writes later\n"
		"  --delay-ms N  each read, write and fsync takes so much longer (0 to 60000)\n");
	return status;
}

int main(int argc, char **argv)
{
	char option[80];
	char *args[] = { argv[0], "-f", "-o", option, NULL, NULL };

	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
		return usage(stdout, 0);
	if (argc < 3)
		return usage(stderr, 2);
	for (int i = 3; i < argc; i++) {
		char *end = NULL;

		if (!strcmp(argv[i], "--cache")) {
			settings.cache = true;
		} else if (!strcmp(argv[i], "--delay-ms") && i + 1 < argc) {
			settings.delay_ms = strtol(argv[++i], &end, 10);
			if (end == argv[i] || *end || settings.delay_ms < 0 || settings.delay_ms > 60000)
				return usage(stderr, 2);
		} else
			return usage(stderr, 2);
	}
	settings.root = realpath(argv[1], NULL);
	if (!settings.root) {
		fprintf(stderr, "pgc-fuse: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	/* Whoever mounts it asks for it to go with him. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	snprintf(option, sizeof(option), "fsname=pgc-fuse,max_threads=%u,max_idle_threads=%u", THREADS, THREADS);
	args[4] = argv[2];
	return fuse_main(5, args, &operations, NULL);
}
