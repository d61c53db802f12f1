/* SPDX-License-Identifier: Apache-2.0 */
/* See exerciser_inject.h. */
#include "exerciser_inject.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 30000u

static char path[PATH_MAX];
static volatile char *state;   /* '+' or '-' */

int inject_prepare(const char *dir, const char *spec, uint64_t seed)
{
	char name[PATH_MAX + 16];
	int fd, n;

	snprintf(path, sizeof(path), "%s/inject", dir);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	n = fd < 0 ? -1 : dprintf(fd, "-%s,seed:%" PRIu64 "\n", spec, seed + 1);
	if (n < 0)
		return -1;
	state = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (state == MAP_FAILED)
		return -1;
	snprintf(name, sizeof(name), "@%s", path);
	return setenv("PGC_INJECT", name, 1);
}

void inject_switch(bool on)
{
	if (state)
		*state = on ? '+' : '-';
}

void inject_remove(void)
{
	if (state)
		unlink(path);
}

bool injecting(void) { return state; }

bool inject_expects(long error)
{
	static const int expected[] = { EIO, ENOSPC, EDQUOT, ENOMEM, EMFILE, ENFILE, EAGAIN, EINTR, EFAULT };

	for (size_t i = 0; state && i < sizeof(expected) / sizeof(expected[0]); i++)
		if (error == -expected[i])
			return true;
	return false;
}

bool inject_again(long error, uint64_t *since)
{
	struct timespec t;
	uint64_t now;

	if (!inject_expects(error))
		return false;
	clock_gettime(CLOCK_MONOTONIC, &t);
	now = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
	if (*since == 0)
		*since = now;
	if (now - *since > PATIENCE_MS)
		return false;
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	return true;
}
