/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log.
 *
 * A line goes out in one write(2), so lines of different threads never mix, or as one journal entry when stderr is the
 * journal's own stream. Any thread may log, workers too, so nothing here may wait for whoever reads the log: before
 * each line poll(2) says whether it would go out at once, and if not the line is dropped and counted. The next line
 * that does go out tells how many were lost. (Between poll and write another thread may take the room; then this one
 * waits for the reader. That is accepted: the log is for rare events.)
 *
 * What a client chose (names of files) may be in a message: control characters are replaced, so that nobody forges lines.
 *
 * Uses nothing of the daemon but util. errno is left as it was, and "%m" may be used in a format.
 */
#include "daemon/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "daemon/util/util.h"

/* With the note about lost lines before it a line still fits PIPE_BUF (4096), so that a pipe takes it whole or not at all. */
#define MESSAGE_MAX 2048
#define LINE_MAX_   (MESSAGE_MAX + 1024)
#define JOURNAL_SOCKET "/run/systemd/journal/socket"

int log_max_level = LOG_LEVEL_INFO;

/* A socket connected to the journal, used for nothing but to ask whether the journal's queue has room; -1: lines on stderr.
 * Written by log_init() only. */
static int journal_probe = -1;

/* Lines lost since the last one that went out. Relaxed: a mere count, nothing is published by it. */
static unsigned long lines_dropped;

static const struct { int level; const char *name; } level_names[] = {
	{ LOG_LEVEL_ERROR, "error" }, { LOG_LEVEL_WARNING, "warning" }, { LOG_LEVEL_NOTICE, "notice" },
	{ LOG_LEVEL_INFO, "info" },   { LOG_LEVEL_DEBUG, "debug" },
};

static const char *level_name(int level)
{
	for (size_t i = 0; i < ELEMENTSOF(level_names); i++)
		if (level <= level_names[i].level)
			return level_names[i].name;
	return "debug";
}

int log_level_from_string(const char *s, int *ret)
{
	for (size_t i = 0; i < ELEMENTSOF(level_names); i++)
		if (strcmp(s, level_names[i].name) == 0) {
			*ret = level_names[i].level;
			return 0;
		}
	return -EINVAL;
}

/* $JOURNAL_STREAM is "DEVICE:INODE" of the stream that the service manager made; a redirected stderr is another one. */
static bool stderr_is_journal(void)
{
	const char *v = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;
	int end = 0;

	if (!v || sscanf(v, "%llu:%llu%n", &dev, &ino, &end) != 2 || v[end] != '\0')
		return false;
	return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

static int journal_connect(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = JOURNAL_SOCKET };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -1;
	return take_fd(&fd);
}

void log_init(int max_level)
{
	__atomic_store_n(&log_max_level, max_level, __ATOMIC_RELAXED);
	__atomic_store_n(&lines_dropped, 0, __ATOMIC_RELAXED);
	cleanup_close(&journal_probe);
	journal_probe = stderr_is_journal() ? journal_connect() : -1;
}

static bool writable_now(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, 0) == 1 && (p.revents & (POLLOUT | POLLERR | POLLHUP | POLLNVAL)) == POLLOUT;
}

static void drop(unsigned long n)
{
	__atomic_fetch_add(&lines_dropped, n, __ATOMIC_RELAXED);
}

static size_t append(char *buf, size_t size, size_t used, const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Returns the new length, at most size - 1: what does not fit is cut off. */
static size_t append(char *buf, size_t size, size_t used, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(buf + used, size - used, format, ap);
	va_end(ap);
	return n < 0 ? used : MIN(used + (size_t)n, size - 1);
}

static void make_printable(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			*s = '?';
}

static void write_line(int level, const char *file, pid_t client, const char *message)
{
	char line[LINE_MAX_];
	unsigned long lost;
	size_t body, n = 0;
	ssize_t r;

	if (!writable_now(STDERR_FILENO)) {
		drop(1);
		return;
	}
	lost = __atomic_exchange_n(&lines_dropped, 0, __ATOMIC_RELAXED);
	if (lost)
		n = append(line, sizeof(line), n, "pagecached: warning: %lu lines of the log were lost, its reader was too slow\n", lost);

	body = n;
	n = append(line, sizeof(line), n, "pagecached: %s: ", level_name(level));
	if (file)
		n = append(line, sizeof(line), n, "%.512s: ", file);
	n = append(line, sizeof(line), n, "%s", message);
	if (client > 0)
		n = append(line, sizeof(line), n, " (client %d)", (int)client);
	make_printable(line + body);
	line[n++] = '\n'; /* in place of the final NUL, so it always fits */

	do
		r = write(STDERR_FILENO, line, n);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		drop(lost + 1);
}

static size_t journal_field(struct iovec *iov, char *buf, size_t size, const char *format, ...) __attribute__((format(printf, 4, 5)));

static size_t journal_field(struct iovec *iov, char *buf, size_t size, const char *format, ...)
{
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(buf, size, format, ap);
	va_end(ap);
	*iov = (struct iovec){ .iov_base = buf, .iov_len = n < 0 ? 0 : MIN((size_t)n, size - 1) };
	return 1;
}

static int send_to_journal(int level, const char *file, pid_t client, const char *message)
{
	char message_field[MESSAGE_MAX + 16], priority_field[16], file_field[1024], client_field[32], lost_field[48];
	struct iovec iov[5];
	unsigned long lost;
	size_t n = 0;
	int r;

	if (!writable_now(journal_probe)) {
		drop(1);
		return 0;
	}
	lost = __atomic_exchange_n(&lines_dropped, 0, __ATOMIC_RELAXED);
	n += journal_field(&iov[n], message_field, sizeof(message_field), "MESSAGE=%s", message);
	n += journal_field(&iov[n], priority_field, sizeof(priority_field), "PRIORITY=%d", level);
	if (file)
		n += journal_field(&iov[n], file_field, sizeof(file_field), "PGC_FILE=%s", file);
	if (client > 0)
		n += journal_field(&iov[n], client_field, sizeof(client_field), "PGC_CLIENT=%d", (int)client);
	if (lost)
		n += journal_field(&iov[n], lost_field, sizeof(lost_field), "PGC_LOST=%lu", lost);
	r = sd_journal_sendv(iov, (int)n);
	if (r < 0)
		drop(lost);
	return r;
}

void log_full(int level, const char *file, pid_t client, const char *format, ...)
{
	char message[MESSAGE_MAX];
	int saved = errno;
	va_list ap;

	va_start(ap, format);
	vsnprintf(message, sizeof(message), format, ap);
	va_end(ap);

	/* An entry that the journal refuses still has its stream, which is what stderr is. */
	if (journal_probe < 0 || send_to_journal(level, file, client, message) < 0)
		write_line(level, file, client, message);
	errno = saved;
}
