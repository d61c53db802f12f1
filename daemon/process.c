/* SPDX-License-Identifier: Apache-2.0 */
/* See process.h. May call nothing but the kernel. */
#include "daemon/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/util/util.h"

static int dir_fd = AT_FDCWD;

int process_init(void)
{
	if (dir_fd < 0)
		dir_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return dir_fd < 0 ? -errno : 0;
}

int process_dir(void) { return dir_fd < 0 ? -1 : dir_fd; }

int process_stat(pid_t pid, struct process_stat *ret)
{
	char path[32], text[1024], *at;
	_cleanup_close_ int fd = -1;
	unsigned long long start;
	ssize_t n;
	int parent;

	(void)snprintf(path, sizeof(path), "%s%d/stat", dir_fd < 0 ? "/proc/" : "", (int)pid);
	fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return -ESRCH;
	text[n] = '\0';
	at = strrchr(text, ')'); /* a name may have anything in it */
	if (!at || sscanf(at + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &parent, &start) != 2)
		return -ESRCH;
	*ret = (struct process_stat){ parent, start };
	return 0;
}

uint64_t process_start(pid_t pid)
{
	struct process_stat st;

	return pid > 0 && process_stat(pid, &st) == 0 ? st.start : 0;
}

bool process_lives(pid_t pid, uint64_t start)
{
	struct process_stat st;

	if (pid <= 0 || (kill(pid, 0) < 0 && errno != EPERM))
		return false;
	return start == 0 || process_stat(pid, &st) < 0 || st.start == start;
}

bool process_holds(pid_t pid, const char *name)
{
	char path[32], what[256];
	struct dirent *e;
	bool found = false;
	DIR *dir;
	int fd;

	(void)snprintf(path, sizeof(path), "%s%d/fd", dir_fd < 0 ? "/proc/" : "", (int)pid);
	fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		bool gone = fd < 0 && (errno == ENOENT || errno == ESRCH);

		if (fd >= 0)
			close(fd);
		return !gone;
	}
	while (!found && (e = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, what, sizeof(what) - 1);

		what[MAX(n, 0)] = '\0';
		found = strncmp(what, name, strlen(name)) == 0;
	}
	closedir(dir);
	return found;
}
