/* SPDX-License-Identifier: Apache-2.0 */
/* See pagemap.h. May call proc_fd and util. */
#include "daemon/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "daemon/proc_fd.h"
#include "daemon/util/util.h"

/* struct pm_scan_arg */
struct scan_arg {
	uint64_t size, flags;
	uint64_t start, end, walk_end;
	uint64_t vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN _IOWR('f', 16, struct scan_arg)
#define SCAN_WP_MATCHING   (1u << 0)
#define SCAN_CHECK_WPASYNC (1u << 1)

static int scan(int fd, struct scan_arg *a, uint64_t *from, uint64_t to, struct pagemap_region *ret, unsigned max)
{
	int n;

	a->size = sizeof(*a);
	a->start = *from;
	a->end = to;
	a->vec = (uint64_t)(uintptr_t)ret;
	a->vec_len = max;
	n = ioctl(fd, SCAN, a);
	if (n < 0)
		return -errno;
	*from = a->walk_end > *from ? a->walk_end : to;
	return n;
}

int pagemap_take_written(int fd, uint64_t *from, uint64_t to, struct pagemap_region *ret, unsigned max)
{
	struct scan_arg a = {
		.flags = SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC,
		.category_mask = PAGEMAP_WRITTEN | PAGEMAP_PRESENT,
		.return_mask = PAGEMAP_WRITTEN,
	};

	return scan(fd, &a, from, to, ret, max);
}

int pagemap_find_clean(int fd, uint64_t *from, uint64_t to, struct pagemap_region *ret, unsigned max)
{
	struct scan_arg a = {
		.category_inverted = PAGEMAP_WRITTEN,
		.category_mask = PAGEMAP_WRITTEN | PAGEMAP_WP_ALLOWED,
		.return_mask = PAGEMAP_PRESENT,
	};

	return scan(fd, &a, from, to, ret, max);
}

bool pagemap_probe(void)
{
	_cleanup_close_ int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t from = PAGE_SIZE_;
	struct pagemap_region r;

	return fd >= 0 && pagemap_find_clean(fd, &from, 2 * PAGE_SIZE_, &r, 1) >= 0;
}

bool pagemap_is_one(int fd)
{
	const unsigned mask = STATX_TYPE | STATX_MODE;
	struct statx st, proc;
	char name[64];
	size_t n;

	proc_fd_name(fd, name, sizeof(name));
	n = strlen(name);
	/* A file system in user space can show any name, but not the device of proc(5). Its server is not asked. */
	return n > strlen("/pagemap") && strcmp(name + n - strlen("/pagemap"), "/pagemap") == 0 &&
	       statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, mask, &st) == 0 && statx(proc_fd_dir(), "", AT_EMPTY_PATH, mask, &proc) == 0 &&
	       st.stx_dev_major == proc.stx_dev_major && st.stx_dev_minor == proc.stx_dev_minor && S_ISREG(st.stx_mode);
}

int pagemap_open(pid_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 ? fd : errno == ENOENT ? -ESRCH : -errno;
}
