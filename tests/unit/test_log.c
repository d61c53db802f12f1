/* SPDX-License-Identifier: Apache-2.0 */
/* The log, with a pipe in place of stderr, and with the journal's socket and sendv() played by this program. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "daemon/log.h"

struct fixture {
	int real_stderr;
	int out;                   /* reads what was written to stderr */
	int journal;               /* stands for the journal's end of its socket */
};

static struct sockaddr_un journal_address; /* sun_family 0: there is no journal */
static char journal_entry[4096];           /* fields of the last entry, each with a newline behind it */
static unsigned journal_entries;
static int journal_result;

/* These two come before those of the libraries: the daemon's code meets this test's journal. */
int connect(int fd, const struct sockaddr *a, socklen_t n)
{
	if (journal_address.sun_family != AF_UNIX) {
		errno = ENOENT;
		return -1;
	}
	return (int)syscall(SYS_connect, fd, &journal_address, sizeof(journal_address));
}

int sd_journal_sendv(const struct iovec *iov, int n)
{
	size_t used = 0;

	if (journal_result < 0)
		return journal_result;
	for (int i = 0; i < n; i++) {
		memcpy(journal_entry + used, iov[i].iov_base, iov[i].iov_len);
		used += iov[i].iov_len;
		journal_entry[used++] = '\n';
	}
	journal_entry[used] = '\0';
	journal_entries++;
	return 0;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int p[2];

	assert_non_null(f);
	assert_int_equal(pipe2(p, O_CLOEXEC | O_NONBLOCK), 0);
	/* The writing end blocks, as a real stderr does. */
	assert_int_equal(fcntl(p[1], F_SETFL, 0), 0);
	f->real_stderr = fcntl(2, F_DUPFD_CLOEXEC, 3);
	assert_int_equal(dup2(p[1], 2), 2);
	close(p[1]);
	f->out = p[0];
	f->journal = -1;
	unsetenv("JOURNAL_STREAM");
	journal_entries = 0;
	journal_result = 0;
	log_init(LOG_LEVEL_INFO);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	unsetenv("JOURNAL_STREAM");
	memset(&journal_address, 0, sizeof(journal_address));
	log_init(LOG_LEVEL_INFO);
	dup2(f->real_stderr, 2);
	close(f->real_stderr);
	close(f->out);
	if (f->journal >= 0)
		close(f->journal);
	free(f);
	return 0;
}

static const char *written(struct fixture *f)
{
	static char buf[65536 + 1];
	ssize_t n = read(f->out, buf, sizeof(buf) - 1);

	buf[n > 0 ? n : 0] = '\0';
	return buf;
}

/* Makes stderr the stream that $JOURNAL_STREAM names. */
static void name_stream(void)
{
	struct stat st;
	char v[64];

	assert_int_equal(fstat(2, &st), 0);
	snprintf(v, sizeof(v), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", v, 1);
}

static void start_journal(struct fixture *f)
{
	journal_address.sun_family = AF_UNIX; /* an abstract name: the first byte of sun_path stays NUL */
	snprintf(journal_address.sun_path + 1, sizeof(journal_address.sun_path) - 1, "pagecached-test-log-%d", (int)getpid());
	f->journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(f->journal, (struct sockaddr *)&journal_address, sizeof(journal_address)), 0);
	name_stream();
	log_init(LOG_LEVEL_INFO);
}

static void line_has_level_and_message(void **state)
{
	log_error("no space for %d pages", 3);
	assert_string_equal(written(*state), "pagecached: error: no space for 3 pages\n");
}

static void line_names_file_and_client(void **state)
{
	log_at(LOG_LEVEL_WARNING, "/srv/a", 4711, "short read");
	assert_string_equal(written(*state), "pagecached: warning: /srv/a: short read (client 4711)\n");
}

static void each_level_has_its_name(void **state)
{
	log_init(LOG_LEVEL_DEBUG);
	log_error("m");
	log_warning("m");
	log_notice("m");
	log_info("m");
	log_debug("m");
	assert_string_equal(written(*state), "pagecached: error: m\npagecached: warning: m\npagecached: notice: m\n"
					     "pagecached: info: m\npagecached: debug: m\n");
}

static void level_that_is_off_is_not_formatted(void **state)
{
	int evaluated = 0;

	log_debug("%d", ++evaluated);
	assert_string_equal(written(*state), "");
	assert_int_equal(evaluated, 0);
}

static void percent_m_is_errno_and_errno_survives(void **state)
{
	errno = ENOSPC;
	log_error("write: %m");
	assert_int_equal(errno, ENOSPC);
	assert_string_equal(written(*state), "pagecached: error: write: No space left on device\n");
}

static void control_characters_cannot_forge_a_line(void **state)
{
	log_at(LOG_LEVEL_ERROR, "a\npagecached: error: b", 0, "tab\there");
	assert_string_equal(written(*state), "pagecached: error: a?pagecached: error: b: tab?here\n");
}

static void long_message_is_cut_to_one_line(void **state)
{
	char *big = malloc(10000);
	const char *s;

	memset(big, 'x', 9999);
	big[9999] = '\0';
	log_error("%s", big);
	free(big);
	s = written(*state);
	assert_in_range(strlen(s), 2000, 4096);
	assert_ptr_equal(strchr(s, '\n'), s + strlen(s) - 1);
}

static void full_pipe_drops_and_does_not_block(void **state)
{
	char page[4096];

	memset(page, '.', sizeof(page));
	assert_int_equal(fcntl(2, F_SETFL, O_NONBLOCK), 0);
	while (write(2, page, sizeof(page)) > 0)
		;
	assert_int_equal(fcntl(2, F_SETFL, 0), 0);
	alarm(20); /* a write that blocks would otherwise last for ever */
	log_error("lost");
	log_error("lost");
	alarm(0);
	while (*written(*state))
		;
	log_error("back");
	assert_string_equal(written(*state), "pagecached: warning: 2 lines of the log were lost, its reader was too slow\n"
					     "pagecached: error: back\n");
	log_error("again");
	assert_string_equal(written(*state), "pagecached: error: again\n");
}

static void closed_pipe_raises_no_signal(void **state)
{
	struct fixture *f = *state;

	close(f->out);
	log_error("nobody reads this");
	f->out = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void level_names_are_parsed(void **state)
{
	int l = 0;

	assert_int_equal(log_level_from_string("error", &l), 0);
	assert_int_equal(l, LOG_LEVEL_ERROR);
	assert_int_equal(log_level_from_string("debug", &l), 0);
	assert_int_equal(l, LOG_LEVEL_DEBUG);
}

static void unknown_level_is_refused(void **state)
{
	int l = 42;

	assert_int_equal(log_level_from_string("loud", &l), -EINVAL);
	assert_int_equal(log_level_from_string("", &l), -EINVAL);
	assert_int_equal(l, 42);
}

static void journal_entry_has_fields(void **state)
{
	start_journal(*state);
	log_at(LOG_LEVEL_WARNING, "/srv/a", 4711, "short read");
	assert_string_equal(journal_entry, "MESSAGE=short read\nPRIORITY=4\nPGC_FILE=/srv/a\nPGC_CLIENT=4711\n");
	assert_string_equal(written(*state), "");
}

static void journal_entry_without_file_and_client(void **state)
{
	start_journal(*state);
	log_error("m");
	assert_string_equal(journal_entry, "MESSAGE=m\nPRIORITY=3\n");
}

static void redirected_stderr_is_not_the_journal(void **state)
{
	start_journal(*state);
	setenv("JOURNAL_STREAM", "1:1", 1);
	log_init(LOG_LEVEL_INFO);
	log_error("m");
	assert_int_equal(journal_entries, 0);
	assert_string_equal(written(*state), "pagecached: error: m\n");
}

static void malformed_journal_stream_is_ignored(void **state)
{
	start_journal(*state);
	setenv("JOURNAL_STREAM", "rubbish", 1);
	log_init(LOG_LEVEL_INFO);
	log_error("m");
	assert_int_equal(journal_entries, 0);
	assert_string_equal(written(*state), "pagecached: error: m\n");
}

static void absent_journal_leaves_lines(void **state)
{
	name_stream();
	log_init(LOG_LEVEL_INFO);
	log_error("m");
	assert_int_equal(journal_entries, 0);
	assert_string_equal(written(*state), "pagecached: error: m\n");
}

static void refused_entry_becomes_a_line(void **state)
{
	start_journal(*state);
	journal_result = -ECONNREFUSED;
	log_error("m");
	assert_string_equal(written(*state), "pagecached: error: m\n");
}

static void full_journal_drops_and_counts(void **state)
{
	struct fixture *f = *state;
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char c;

	start_journal(f);
	assert_int_equal(connect(s, NULL, 0), 0);
	while (send(s, "x", 1, 0) == 1)
		;
	assert_int_equal(errno, EAGAIN);
	log_error("lost");
	assert_int_equal(journal_entries, 0);
	while (recv(f->journal, &c, 1, 0) == 1)
		;
	log_error("back");
	assert_string_equal(journal_entry, "MESSAGE=back\nPRIORITY=3\nPGC_LOST=1\n");
	close(s);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(line_has_level_and_message),
		T(line_names_file_and_client),
		T(each_level_has_its_name),
		T(level_that_is_off_is_not_formatted),
		T(percent_m_is_errno_and_errno_survives),
		T(control_characters_cannot_forge_a_line),
		T(long_message_is_cut_to_one_line),
		T(full_pipe_drops_and_does_not_block),
		T(closed_pipe_raises_no_signal),
		T(level_names_are_parsed),
		T(unknown_level_is_refused),
		T(journal_entry_has_fields),
		T(journal_entry_without_file_and_client),
		T(redirected_stderr_is_not_the_journal),
		T(malformed_journal_stream_is_ignored),
		T(absent_journal_leaves_lines),
		T(refused_entry_becomes_a_line),
		T(full_journal_drops_and_counts),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
