/* SPDX-License-Identifier: Apache-2.0 */
/* See bounded_daemon.h. The measurement is not of one moment: a page that moves from one file to another meanwhile is counted twice, or not. */
#include "bounded_daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEMFDS_MAX 4096
#define ANSWER_SECONDS 20
#define LOG_TAIL   6000l

static void nap_ms(long ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

static void print_tail(const char *path)
{
	FILE *f = fopen(path, "re");
	long size;
	int c;

	if (!f)
		return;
	fseek(f, 0, SEEK_END);
	size = ftell(f);
	fseek(f, size > LOG_TAIL ? size - LOG_TAIL : 0, SEEK_SET);
	fprintf(stderr, "end of %s:\n", path);
	while ((c = getc(f)) != EOF)
		putc(c, stderr);
	fclose(f);
}

int bounded_connect(const char *name)
{
	struct pgc_msg m = { .type = PGC_MSG_HELLO, .tag = 1,
		.hello = { .magic = PGC_WIRE_MAGIC, .version = PGC_WIRE_VERSION, .role = PGC_ROLE_CONTROL } };
	struct timeval limit = { .tv_sec = ANSWER_SECONDS };
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, r;

	if (strlen(name) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	strcpy(a.sun_path, name);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)))
		r = -errno;
	else {
		r = bounded_ask(fd, &m);
		if (!r && m.status)
			r = -(int)m.status;
	}
	if (r) {
		close(fd);
		return r;
	}
	return fd;
}

int bounded_ask(int control, struct pgc_msg *m)
{
	ssize_t n;

	if (send(control, m, sizeof(*m), MSG_NOSIGNAL) != sizeof(*m))
		return -EPIPE;
	do
		n = recv(control, m, sizeof(*m), 0);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return -ETIMEDOUT;
	return n == sizeof(*m) ? 0 : -EPIPE;
}

static void daemon_exec(const struct daemon *d, const char *program, const char *config, const char *state)
{
	int fd = open(d->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
		_exit(126);
	execl(program, program, "--config", config, "--socket", d->socket, "--state-dir", state, "--bpffs", "none", NULL);
	dprintf(2, "%s: %s\n", program, strerror(errno));
	_exit(127);
}

int bounded_daemon_start(struct daemon *d, const char *program, const char *dir, const char *const *settings, unsigned n)
{
	char config[340], state[340];
	FILE *f;

	*d = (struct daemon){ .control = -1 };
	snprintf(d->dir, sizeof(d->dir), "%s", dir);
	snprintf(d->socket, sizeof(d->socket), "%s/socket", dir);
	snprintf(d->log, sizeof(d->log), "%s/daemon.log", dir);
	snprintf(config, sizeof(config), "%s/pagecached.conf", dir);
	snprintf(state, sizeof(state), "%s/state", dir);
	f = fopen(config, "we");
	if (!f || mkdir(state, 0700)) {
		fprintf(stderr, "%s: %s\n", config, strerror(errno));
		return -EIO;
	}
	fprintf(f, "[daemon]\n");
	for (unsigned i = 0; i < n; i++)
		fprintf(f, "%s\n", settings[i]);
	fclose(f);
	fflush(NULL);
	d->pid = fork();
	if (d->pid == 0)
		daemon_exec(d, program, config, state);
	for (int i = 0; (d->control = bounded_connect(d->socket)) < 0; i++) {
		if (waitpid(d->pid, NULL, WNOHANG) || i > 4000) {
			fprintf(stderr, "%s does not start\n", program);
			bounded_daemon_kill(d);
			return -EIO;
		}
		nap_ms(5);
	}
	return 0;
}

static bool log_has_report(const char *path)
{
	char line[512];
	FILE *f = fopen(path, "re");
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f))
		found = strstr(line, "Sanitizer") || strstr(line, "runtime error:");
	if (f)
		fclose(f);
	return found;
}

int bounded_daemon_stop(struct daemon *d)
{
	int status = 0;

	close(d->control);
	d->control = -1;
	kill(d->pid, SIGTERM);
	for (int i = 0; waitpid(d->pid, &status, WNOHANG) == 0; i++) {
		if (i > 6000) {
			fprintf(stderr, "the daemon does not end on SIGTERM\n");
			bounded_daemon_kill(d);
			return -ETIMEDOUT;
		}
		nap_ms(10);
	}
	d->pid = 0;
	if (!status && !log_has_report(d->log))
		return 0;
	fprintf(stderr, "the daemon ended with status %#x\n", (unsigned)status);
	print_tail(d->log);
	return -EIO;
}

void bounded_daemon_kill(struct daemon *d)
{
	int status;

	if (d->control >= 0)
		close(d->control);
	d->control = -1;
	if (d->pid > 0) {
		if (waitpid(d->pid, &status, WNOHANG) == d->pid)
			fprintf(stderr, "the daemon had ended by itself, status %#x\n", (unsigned)status);
		else {
			kill(d->pid, SIGABRT);  /* a sanitizer or a core may tell more */
			nap_ms(300);
			kill(d->pid, SIGKILL);
			waitpid(d->pid, NULL, 0);
		}
	}
	d->pid = 0;
	print_tail(d->log);
}

void bounded_daemon_remove_files(const struct daemon *d)
{
	static const char *const names[] = { "daemon.log", "pagecached.conf", "socket", "socket.lock" };
	char path[400];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", d->dir, names[i]);
		unlink(path);
	}
	snprintf(path, sizeof(path), "rm -rf '%s/state'", d->dir);
	if (system(path))
		fprintf(stderr, "%s/state is left\n", d->dir);
}

/* The cache's files and tables. What clients handed over (transfer areas, long appends) is theirs, and a "mem:" file is a store. */
static bool memfd_counts(const char *link)
{
	static const char ours[] = "/memfd:pagecached";

	return !strncmp(link, ours, strlen(ours)) && !strstr(link, "pagecached-transfer") && !strstr(link, "pagecached-append");
}

static uint64_t memfd_bytes(pid_t pid)
{
	static ino_t seen[MEMFDS_MAX];
	char path[64], link[128];
	uint64_t bytes = 0;
	size_t n = 0, i;
	struct dirent *e;
	struct stat st;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		ssize_t len = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);

		link[len > 0 ? len : 0] = '\0';
		if (!memfd_counts(link) || fstatat(dirfd(d), e->d_name, &st, 0))
			continue;
		for (i = 0; i < n && seen[i] != st.st_ino; i++)
			;
		if (i < n || n == MEMFDS_MAX)
			continue;
		seen[n++] = st.st_ino;
		bytes += (uint64_t)st.st_blocks * 512;
	}
	if (d)
		closedir(d);
	return bytes;
}

static uint64_t status_kib(const char *text, const char *key)
{
	const char *p = strstr(text, key);

	return p ? strtoull(p + strlen(key), NULL, 10) << 10 : 0;
}

int bounded_memory(const struct daemon *d, struct memory *ret, struct pgc_ctl_status_reply *ret_status)
{
	struct pgc_msg m = { .type = PGC_CTL_STATUS, .tag = 2 };
	char path[64], text[4096];
	ssize_t n;
	int fd, r;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)d->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return -ESRCH;
	text[n] = '\0';
	r = bounded_ask(d->control, &m);
	if (r || m.status)
		return r ? r : -(int)m.status;
	*ret_status = m.ctl_status_reply;
	*ret = (struct memory){ .used = m.ctl_status_reply.memory_used, .memfds = memfd_bytes(d->pid),
		.own = status_kib(text, "RssAnon:") };
	return 0;
}
