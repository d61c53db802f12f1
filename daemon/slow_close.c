/* SPDX-License-Identifier: Apache-2.0 */
/* See slow_close.h. Looking at the link asks no file system, as fstat(2) would. May call util. */
#include "daemon/slow_close.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "daemon/util/util.h"

struct batch {
	unsigned n;
	int fd[];
};

/* A name with a slash is a file; "socket:[7]", "pipe:[7]" and "anon_inode:[userfaultfd]" have none in front, and a memfd waits for nobody. */
static bool may_wait(int fd)
{
	char link[32], name[16];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, name, sizeof(name));
	return n <= 0 || (name[0] == '/' && !(n >= 7 && memcmp(name, "/memfd:", 7) == 0));
}

static void *close_batch(void *arg)
{
	struct batch *b = arg;

	for (unsigned i = 0; i < b->n; i++)
		close(b->fd[i]);
	free(b);
	return NULL;
}

static void close_aside(struct batch *b)
{
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_attr_init(&attr);
	if (r == 0) {
		(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		r = pthread_create(&thread, &attr, close_batch, b);
		pthread_attr_destroy(&attr);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		close_batch(b);
}

void slow_close(const int *fds, unsigned n)
{
	struct batch *b = n > 0 ? malloc(sizeof(*b) + n * sizeof(b->fd[0])) : NULL;

	if (b)
		b->n = 0;
	for (unsigned i = 0; i < n; i++) {
		if (b && may_wait(fds[i]))
			b->fd[b->n++] = fds[i];
		else
			close(fds[i]);
	}
	if (b && b->n > 0)
		close_aside(b);
	else
		free(b);
}
