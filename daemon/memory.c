/* SPDX-License-Identifier: Apache-2.0 */
/* See memory.h. May call proc_fd. */
#include "daemon/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "daemon/proc_fd.h"
#include "daemon/util/util.h"

#define NAME_MAX_ 80
#define HUGE_SIZE  (2l << 20)
#define HUGE_FLAGS (MFD_HUGETLB | MFD_HUGE_2MB)
#define OF_FILE   "pagecached:%" PRIx64 ":%" PRIx64 ":"  /* how a name begins: of which file */

static void make_name(char buf[NAME_MAX_], uint64_t dev, uint64_t ino, uint64_t birth)
{
	(void)snprintf(buf, NAME_MAX_, OF_FILE "%" PRIx64, dev, ino, birth);
}

int memory_create(uint64_t dev, uint64_t ino, uint64_t birth)
{
	char name[NAME_MAX_];
	int fd;

	make_name(name, dev, ino, birth);
	fd = memfd_create(name, MFD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int memory_create_huge(uint64_t dev, uint64_t ino, uint64_t birth)
{
	_cleanup_close_ int fd = -1;
	char name[NAME_MAX_];
	void *p;

	make_name(name, dev, ino, birth);
	fd = memfd_create(name, MFD_CLOEXEC | HUGE_FLAGS);
	if (fd < 0 || ftruncate(fd, HUGE_SIZE) < 0)
		return -errno;
	/* A mapping takes its pages out of the pool, or fails. */
	p = mmap(NULL, HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	munmap(p, HUGE_SIZE);
	return ftruncate(fd, 0) < 0 ? -errno : take_fd(&fd);
}

bool memory_is_huge(int memfd)
{
	struct statfs fs;

	return fstatfs(memfd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC;
}

/* All memfds of a kind are of one file system, which nobody can mount: so what looks like a memfd's name is no path. */
static int is_memfd_of_ours(int fd)
{
	_cleanup_close_ int other = memfd_create("pagecached-probe", MFD_CLOEXEC | (memory_is_huge(fd) ? HUGE_FLAGS : 0));
	struct stat st, ours;

	if (other < 0)
		return -errno; /* out of descriptors or memory says nothing about it */
	return fstat(other, &ours) == 0 && fstat(fd, &st) == 0 && st.st_dev == ours.st_dev && S_ISREG(st.st_mode) && st.st_uid == geteuid();
}

bool memory_file_of(int memfd, uint64_t *ret_dev, uint64_t *ret_ino)
{
	uint64_t birth;
	char found[256];

	proc_fd_name(memfd, found, sizeof(found));
	return sscanf(found, "/memfd:pagecached:%" SCNx64 ":%" SCNx64 ":%" SCNx64, ret_dev, ret_ino, &birth) == 3 && is_memfd_of_ours(memfd) > 0;
}

bool memory_is_of(int memfd, uint64_t dev, uint64_t ino, uint64_t birth)
{
	char name[NAME_MAX_], wanted[NAME_MAX_ + 32], found[256];

	make_name(name, dev, ino, birth);
	(void)snprintf(wanted, sizeof(wanted), "/memfd:%s (deleted)", name);
	proc_fd_name(memfd, found, sizeof(found));
	return strcmp(found, wanted) == 0;
}

const char *memory_link(char buf[MEMORY_LINK_MAX], uint64_t dev, uint64_t ino)
{
	(void)snprintf(buf, MEMORY_LINK_MAX, "/memfd:" OF_FILE, dev, ino);
	return buf;
}

int memory_claim(int fd, uint64_t dev, uint64_t ino, uint64_t birth)
{
	int own = is_memfd_of_ours(fd);

	if (own < 0)
		return own;
	if (!own || !memory_is_of(fd, dev, ino, birth))
		return -ESTALE;
	if (fchmod(fd, 0600) < 0)
		return -errno;
	own = proc_fd_reopen(fd, O_RDWR);
	(void)fchmod(fd, 0400);
	return own;
}

int memory_map_sealed(int fd, uint64_t pos, uint64_t len, void **ret, size_t *ret_len)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *p;

	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return -EINVAL;
	if (fstat(fd, &st) < 0 || len == 0 || (uint64_t)st.st_size < pos + len)
		return -EINVAL;
	p = mmap(NULL, (size_t)len, PROT_READ, MAP_SHARED, fd, (off_t)pos);
	if (p == MAP_FAILED)
		return -errno;
	*ret = p;
	*ret_len = (size_t)len;
	return 0;
}
