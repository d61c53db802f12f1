/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service that does with the service manager's descriptor store what it is told, then says that it is ready, and stays. So what the daemon relies on, and what
 * it must bear, is seen of the systemd that is there.
 *
 *	fdstore_facts WORD...
 *	got=FILE            appends to FILE how many descriptors were passed to it
 *	add=NAME            a memfd, with FDPOLL=0
 *	uffd=NAME           a userfaultfd, with FDPOLL=0
 *	polled-uffd=NAME    a userfaultfd, without
 *	remove=NAME         FDSTOREREMOVE=1
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

static void must(long r, const char *what)
{
	if (r < 0) {
		perror(what);
		exit(1);
	}
}

static void give(int fd, const char *field, const char *more)
{
	char text[128];

	must(fd, field);
	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s%s", field, more);
	must(sd_pid_notify_with_fds(0, 0, text, &fd, 1), "FDSTORE");
	close(fd);
}

/* A blocking one, as any client can make its own by fcntl(2): poll(2) says POLLERR of it. */
static int new_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	must(fd, "userfaultfd");
	must(ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
	return fd;
}

static void act(const char *word, int passed)
{
	const char *value = strchr(word, '=');
	size_t n = value ? (size_t)(value - word) : 0;
	char text[128];

	value = value ? value + 1 : "";
	if (n == 3 && strncmp(word, "got", n) == 0) {
		FILE *f = fopen(value, "ae");

		must(f ? fprintf(f, "%d\n", passed) : -1, value);
		must(fclose(f), value);
	} else if (n == 3 && strncmp(word, "add", n) == 0) {
		give(memfd_create("fact", MFD_CLOEXEC), value, "\nFDPOLL=0");
	} else if (n == 4 && strncmp(word, "uffd", n) == 0) {
		give(new_uffd(), value, "\nFDPOLL=0");
	} else if (n == 11 && strncmp(word, "polled-uffd", n) == 0) {
		give(new_uffd(), value, "");
	} else if (n == 6 && strncmp(word, "remove", n) == 0) {
		snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", value);
		must(sd_notify(0, text), "FDSTOREREMOVE");
	} else {
		fprintf(stderr, "fdstore_facts: %s?\n", word);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	int passed = sd_listen_fds(1);

	for (int i = 1; i < argc; i++)
		act(argv[i], passed);
	must(sd_notify_barrier(0, 5000000), "sd_notify_barrier");
	must(sd_notify(0, "READY=1"), "READY");
	for (;;)
		pause();
}
