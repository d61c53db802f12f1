/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contestants: who serves the calls of a workload. The kernel, the FUSE file systems and the preload library are called in the same way; they differ in the path,
 * and in what is in front of the C library.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pagecached.h"
#include "pagecached/wire.h"
#include "run.h"

static int plain_open(struct subject *s, const char *path)
{
	s->fd = open(path, s->access | O_CLOEXEC);
	return s->fd < 0 ? -errno : 0;
}

static void *plain_map(struct subject *s, uint64_t len, int prot) { return mmap(NULL, len, prot, MAP_SHARED, s->fd, 0); }
static int plain_unmap(void *p, uint64_t len) { return munmap(p, len) ? -errno : 0; }

static int plain_advise_random(struct subject *s, void *p, uint64_t len)
{
	if (p)
		return madvise(p, len, MADV_RANDOM) ? -errno : 0;
	return -posix_fadvise(s->fd, 0, 0, POSIX_FADV_RANDOM);
}

static ssize_t plain_pread(struct subject *s, void *buf, size_t n, uint64_t off)
{
	ssize_t r = pread(s->fd, buf, n, (off_t)off);

	return r < 0 ? -errno : r;
}

static ssize_t plain_pwrite(struct subject *s, const void *buf, size_t n, uint64_t off)
{
	ssize_t r = pwrite(s->fd, buf, n, (off_t)off);

	return r < 0 ? -errno : r;
}

static int plain_fsync(struct subject *s) { return fsync(s->fd) ? -errno : 0; }
static void plain_close(struct subject *s) { close(s->fd); }

/* Without the library, or with patterns that miss the file, this would be the kernel once more. */
static int preload_open(struct subject *s, const char *path)
{
	const char *name = getenv("PAGECACHED_SOCKET");
	struct pgc_msg m = { .type = PGC_CTL_STATUS, .tag = 2 };
	int r = plain_open(s, path), fd;

	if (r < 0)
		return r;
	fd = name ? bench_control(name) : -1;
	if (fd < 0 || send(fd, &m, sizeof(m), MSG_NOSIGNAL) != sizeof(m) || recv(fd, &m, sizeof(m), 0) != sizeof(m) || m.status)
		die("preload: the daemon does not answer");
	close(fd);
	if (!m.ctl_status_reply.handles)
		die("preload: %s was not taken over by the library", path);
	return 0;
}

static int lib_open(struct subject *s, const char *path) { return pgc_open(&s->f, path, s->access, 0); }
static void *lib_map(struct subject *s, uint64_t len, int prot) { return pgc_mmap(s->f, NULL, len, prot, MAP_SHARED, 0); }
static int lib_unmap(void *p, uint64_t len) { return pgc_munmap(p, len); }
static ssize_t lib_pread(struct subject *s, void *buf, size_t n, uint64_t off) { return pgc_pread(s->f, buf, n, (off_t)off); }
static ssize_t lib_pwrite(struct subject *s, const void *buf, size_t n, uint64_t off) { return pgc_pwrite(s->f, buf, n, (off_t)off); }
static int lib_fsync(struct subject *s) { return pgc_fsync(s->f); }
static void lib_close(struct subject *s) { pgc_close(s->f); }

static int lib_advise_random(struct subject *s, void *p, uint64_t len)
{
	return p ? pgc_madvise(p, len, MADV_RANDOM) : pgc_fadvise(s->f, 0, 0, POSIX_FADV_RANDOM);
}

#define PLAIN plain_map, plain_unmap, plain_advise_random, plain_pread, plain_pwrite, plain_fsync, plain_close

const struct contestant_ops contestants[CONTESTANTS] = {
	[KERNEL] = { "kernel", "kernel", plain_open, PLAIN },
	[FUSE] = { "fuse", "FUSE", plain_open, PLAIN },
	[FUSE_NOCACHE] = { "fuse-nocache", "FUSE, direct I/O", plain_open, PLAIN },
	[PAGECACHED] = { "pagecached", "pagecached", lib_open, lib_map, lib_unmap, lib_advise_random, lib_pread, lib_pwrite, lib_fsync, lib_close },
	[PRELOAD] = { "preload", "preload library", preload_open, PLAIN },
};

static void open_as(struct subject *s, enum contestant who, const char *path, int access)
{
	int r;

	*s = (struct subject){ .who = who, .fd = -1, .access = access };
	r = contestants[who].open(s, path);
	if (r < 0)
		die("%s: %s: %s", contestants[who].name, path, strerror(-r));
}

void subject_open(struct subject *s, enum contestant who, const char *path) { open_as(s, who, path, O_RDWR); }
void subject_open_read_only(struct subject *s, enum contestant who, const char *path) { open_as(s, who, path, O_RDONLY); }

uint8_t *subject_map(struct subject *s, uint64_t len, bool write)
{
	void *p = contestants[s->who].map(s, len, PROT_READ | (write ? PROT_WRITE : 0));

	if (p == MAP_FAILED)
		die("%s: mmap: %s", contestants[s->who].name, strerror(errno));
	return p;
}

void subject_random(struct subject *s, void *p, uint64_t len)
{
	int r = contestants[s->who].advise_random(s, p, len);

	if (r < 0)
		die("%s: advice: %s", contestants[s->who].name, strerror(-r));
}

void subject_sync(struct subject *s)
{
	int r = contestants[s->who].fsync(s);

	if (r < 0)
		die("%s: fsync: %s", contestants[s->who].name, strerror(-r));
}
