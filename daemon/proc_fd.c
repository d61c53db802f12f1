/* SPDX-License-Identifier: Apache-2.0 */
/* See proc_fd.h. Any thread, after proc_fd_init(). */
#include "daemon/proc_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int dir_fd = -1;

int proc_fd_init(void)
{
	if (dir_fd >= 0)
		return 0;
	dir_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return dir_fd < 0 ? -errno : 0;
}

int proc_fd_dir(void) { return dir_fd; }

int proc_fd_reopen(int fd, int flags)
{
	char name[16];
	int r;

	snprintf(name, sizeof(name), "%d", fd);
	r = openat(dir_fd, name, flags | O_CLOEXEC);
	return r < 0 ? -errno : r;
}

void proc_fd_name(int fd, char *ret, size_t size)
{
	char name[16], path[4096];
	ssize_t n;

	snprintf(name, sizeof(name), "%d", fd);
	n = readlinkat(dir_fd, name, path, sizeof(path) - 1);
	if (n < 0) {
		snprintf(ret, size, "?");
		return;
	}
	path[n] = 0;
	/* The end says more than the beginning. */
	snprintf(ret, size, "%s", (size_t)n >= size ? path + n - (size - 1) : path);
}

bool proc_fd_is(int fd, const char *what)
{
	char path[4096];

	proc_fd_name(fd, path, sizeof(path));
	return strncmp(path, what, strlen(what)) == 0;
}
