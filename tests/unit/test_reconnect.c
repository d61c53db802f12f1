/* SPDX-License-Identifier: Apache-2.0 */
/* libpagecached and a daemon that dies (fake_daemon.h): what is sent once more, what is handed over, who does it, and how long is waited. */
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "fake_daemon.h"

static char content[64];
static time_t clock_ahead; /* atomic */

/* In place of the C library's, so that hours pass in no time. */
int clock_gettime(clockid_t id, struct timespec *ret)
{
	int r = (int)syscall(SYS_clock_gettime, id, ret);

	if (r == 0 && id == CLOCK_MONOTONIC)
		ret->tv_sec += get(clock_ahead);
	return r;
}

static void assert_reads(struct pgc_file *f, size_t off)
{
	assert_int_equal(pgc_pread(f, content, 10, (off_t)off), 10);
	for (size_t i = 0; i < 10; i++)
		assert_int_equal(content[i], byte_at(off + i));
}

struct call { pthread_t thread; struct pgc_file *f; size_t off; bool append; ssize_t r; char buf[10]; };

static void *call_run(void *arg)
{
	struct call *c = arg;

	c->r = c->append ? pgc_append(c->f, "appended", 8, NULL) : pgc_pread(c->f, c->buf, 10, (off_t)c->off);
	return NULL;
}

static void call_start(struct call *c) { assert_int_equal(pthread_create(&c->thread, NULL, call_run, c), 0); }

static void call_read(struct call *c)
{
	pthread_join(c->thread, NULL);
	assert_int_equal(c->r, 10);
	for (size_t i = 0; i < 10; i++)
		assert_int_equal(c->buf[i], byte_at(c->off + i));
}

/* The Nth request of the type in the log, from 0. */
static const struct fake_request *logged(uint32_t type, int n)
{
	for (int i = 0; i < MIN(get(fake.logged), FAKE_LOG); i++)
		if (fake.log[i].type == type && n-- == 0)
			return &fake.log[i];
	fail_msg("the daemon has not got so many");
	return NULL;
}

/* The Nth ATTACH was for this handle, and requests go over the new connection. */
static bool handed_over(struct pgc_file *f, int n)
{
	if (!wait_for(&fake.seen[PGC_MSG_ATTACH], n))
		return false;
	for (int i = 0; i < 5000 && conn_dead(&f->conn); i++)
		usleep(1000);
	return conn_dead(&f->conn) == 0;
}

/* --- requests --- */

static void a_request_under_way_at_the_hang_up_is_sent_again(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	struct call c = { .f = f, .off = 2 * PAGE };

	set(fake.mute, 1);
	call_start(&c);
	assert_true(wait_for(&fake.seen[PGC_MSG_READ], 1) && wait_for(&fake.mute, 0));
	fake_die(ATTACH_TAKEN);
	call_read(&c);
	assert_int_equal(fake_logged(PGC_MSG_ATTACH, false), 1);
	assert_int_equal(fake_logged(PGC_MSG_READ, false), 2);
	assert_int_equal(logged(PGC_MSG_READ, 0)->status, 0);
	assert_int_equal(logged(PGC_MSG_READ, 1)->status, PGC_REQUEST_AGAIN);
	assert_int_equal(logged(PGC_MSG_READ, 1)->tag, logged(PGC_MSG_READ, 0)->tag);
	pgc_close(f);
}

/* So that a daemon which finds it in its records does not append twice. */
static void an_append_that_was_carried_out_is_told_from_a_new_one(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	struct call c = { .f = f, .append = true };

	set(fake.mute, 1);
	call_start(&c);
	assert_true(wait_for(&fake.seen[PGC_MSG_WRITE], 1) && wait_for(&fake.mute, 0));
	fake_die(ATTACH_TAKEN);
	pthread_join(c.thread, NULL);
	assert_int_equal(c.r, 8);
	assert_int_equal(fake_logged(PGC_MSG_WRITE, false), 2);
	assert_int_equal(logged(PGC_MSG_WRITE, 1)->status, PGC_REQUEST_AGAIN);
	assert_int_equal(logged(PGC_MSG_WRITE, 1)->tag, logged(PGC_MSG_WRITE, 0)->tag);
	/* The next one is new. */
	assert_int_equal(pgc_append(f, "appended", 8, NULL), 8);
	assert_int_equal(logged(PGC_MSG_WRITE, 2)->status, 0);
	assert_true(logged(PGC_MSG_WRITE, 2)->tag > logged(PGC_MSG_WRITE, 1)->tag);
	pgc_close(f);
}

static void what_was_answered_is_not_sent_again(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);

	assert_reads(f, 0);
	assert_int_equal(pgc_pwrite(f, "a", 1, 0), 1);
	fake_die(ATTACH_TAKEN);
	assert_true(handed_over(f, 1));
	assert_reads(f, PAGE);
	assert_int_equal(fake_logged(PGC_MSG_READ, false), 2);
	assert_int_equal(fake_logged(PGC_MSG_READ, true), 0);
	assert_int_equal(fake_logged(PGC_MSG_WRITE, false), 1);
	pgc_close(f);
}

static void after_RESUMED_what_has_no_answer_goes_again_in_the_order_of_tags(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	struct call c[3];

	assert_int_equal(pgc_pwrite(f, "a", 1, 0), 1); /* with a transfer area */
	set(fake.mute, 3);
	for (int i = 0; i < 3; i++) {
		c[i] = (struct call){ .f = f, .off = (size_t)(i + 1) * PAGE };
		call_start(&c[i]);
		assert_true(wait_for(&fake.mute, 2 - i));
	}
	set(fake.incarnation, 7);
	for (int i = 0; i < 3; i++)
		call_read(&c[i]);
	assert_int_equal(fake_logged(PGC_MSG_ATTACH, false), 0);
	assert_int_equal(fake_logged(PGC_MSG_WRITE, false), 1);
	assert_int_equal(fake_logged(PGC_MSG_XFER, false), 2);
	assert_int_equal(logged(PGC_MSG_XFER, 1)->status, PGC_REQUEST_AGAIN_TO(7));
	assert_int_equal(fake_logged(PGC_MSG_READ, false), 6);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(logged(PGC_MSG_READ, 3 + i)->status, PGC_REQUEST_AGAIN_TO(7));
		assert_int_equal(logged(PGC_MSG_READ, 3 + i)->tag, logged(PGC_MSG_READ, i)->tag);
	}
	assert_true(logged(PGC_MSG_XFER, 1) < logged(PGC_MSG_READ, 3));
	assert_int_equal(pgc_pwrite(f, "b", 1, 0), 1); /* the area is the new daemon's, too */
	pgc_close(f);
}

static void an_answer_that_came_before_RESUMED_counts(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);

	set(fake.answer_first, 9);
	assert_reads(f, PAGE);
	assert_reads(f, 2 * PAGE); /* on its way when RESUMED is read, so it may go twice */
	for (int i = 1; i < fake_logged(PGC_MSG_READ, false); i++)
		assert_int_not_equal(logged(PGC_MSG_READ, i)->tag, logged(PGC_MSG_READ, 0)->tag);
	pgc_close(f);
}

/* --- ATTACH --- */

static void ATTACH_says_what_the_handle_is(void **state)
{
	char path[] = "/tmp/pgc-test-file-XXXXXX";
	int fd = mkstemp(path);
	struct pgc_file *f;

	assert_true(fd >= 0);
	assert_int_equal(pgc_open(&f, path, O_RDONLY, 0), 0);
	fake_die(ATTACH_TAKEN);
	assert_true(handed_over(f, 1));
	assert_reads(f, 0);
	assert_int_equal(fake.attached.file_dev, f->file_dev);
	assert_int_equal(fake.attached.file_ino, f->file_ino);
	assert_int_equal(fake.attached.handle, 1);
	assert_int_equal(fake.attached.flags, O_RDONLY);
	assert_int_equal(fake.attached.attach, 0);
	assert_int_equal(fake.attached.kernel_faults, 0);
	assert_string_equal(fake.attached.uri, "");
	assert_int_equal(fake.attached_uffd, 0);
	assert_int_equal(fake.attached_memfd, 1);
	assert_int_equal(fake.attached_fds, 3 + (int)fake.attached.has_direct);
	/* The next daemon's name for it is the one that the daemon after that hears. */
	fake_die(ATTACH_TAKEN);
	assert_true(handed_over(f, 2));
	assert_reads(f, 0);
	assert_int_equal(fake.attached.handle, 3);
	pgc_close(f);
	close(fd);
	unlink(path);
}

static void ATTACH_of_a_URI_names_it_and_hands_over_the_transfer_area(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);

	assert_int_equal(pgc_pwrite(f, "a", 1, 0), 1);
	set(fake.control->stopped, 1);
	fake_die(ATTACH_TAKEN);
	assert_true(handed_over(f, 1));
	assert_int_equal(pgc_pwrite(f, "b", 1, 1), 1);
	assert_string_equal(fake.attached.uri, "mem:test");
	assert_int_equal(fake.attached.flags, O_RDWR);
	assert_int_equal(fake.attached.attach, PGC_ATTACH_CLEAN);
	assert_int_equal(fake.attached_fds, 2);
	assert_int_equal(fake_logged(PGC_MSG_XFER, false), 2);
	pgc_close(f);
}

static void what_the_next_daemon_does_not_trust_is_lost_for_good(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	int attaches;

	fake_die(ESTALE);
	assert_true(wait_for(&fake.seen[PGC_MSG_ATTACH], 1)); /* until then the dying one may answer */
	assert_int_equal(pgc_pread(f, content, 1, 0), -ESTALE);
	attaches = fake_logged(PGC_MSG_ATTACH, false);
	assert_int_equal(attaches, 1);
	assert_int_equal(pgc_pread(f, content, 1, 0), -ESTALE);
	assert_int_equal(pgc_fsync(f), -ESTALE);
	assert_int_equal(fake_logged(PGC_MSG_ATTACH, false), attaches);
	pgc_close(f);
}

static void a_daemon_that_is_not_ready_is_asked_again(void **state)
{
	struct pgc_file *f;

	setenv("PAGECACHED_ORPHAN_TIMEOUT", "30", 1);
	f = open_mem(O_RDWR);
	fake_die(EAGAIN);
	for (int i = 0; i < 5000 && get(fake.seen[PGC_MSG_ATTACH]) < 3; i++)
		usleep(1000);
	assert_true(get(fake.seen[PGC_MSG_ATTACH]) >= 3);
	set(fake.attach, ATTACH_TAKEN);
	assert_reads(f, PAGE);
	pgc_close(f);
}

static void callers_that_wait_share_one_ATTACH(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	struct call c[8];

	set(fake.mute, 8);
	for (int i = 0; i < 8; i++) {
		c[i] = (struct call){ .f = f, .off = (size_t)i * PAGE };
		call_start(&c[i]);
	}
	assert_true(wait_for(&fake.mute, 0));
	fake_die(ATTACH_TAKEN);
	for (int i = 0; i < 8; i++)
		call_read(&c[i]);
	assert_int_equal(fake_logged(PGC_MSG_ATTACH, false), 1);
	assert_int_equal(fake_logged(PGC_MSG_READ, true), 8);
	pgc_close(f);
}

static int held, let_go;

static void hold(int sig)
{
	set(held, 1);
	while (!get(let_go))
		usleep(1000);
}

static ino_t inode_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

/* A caller that is late would read from whatever has the number by then: another handle's socket. */
static void the_old_socket_stays_open_until_all_callers_have_left_it(void **state)
{
	struct sigaction old, sa = { .sa_handler = hold };
	struct pgc_file *f = open_mem(O_RDWR);
	struct call c = { .f = f, .off = PAGE };
	int fd = f->conn.fd;
	ino_t ino = inode_of(fd);

	held = let_go = 0;
	sigaction(SIGUSR2, &sa, &old);
	set(fake.mute, 1);
	call_start(&c);
	assert_true(wait_for(&fake.mute, 0));
	pthread_kill(c.thread, SIGUSR2);
	assert_true(wait_for(&held, 1));
	fake_die(ATTACH_TAKEN);
	assert_true(wait_for(&fake.seen[PGC_MSG_ATTACH], 1));
	for (int i = 0; i < 100; i++) {
		assert_int_equal(inode_of(fd), ino);
		usleep(1000);
	}
	set(let_go, 1);
	call_read(&c);
	sigaction(SIGUSR2, &old, NULL);
	pgc_close(f);
}

/* --- the watcher --- */

static int watchers(void)
{
	DIR *d = opendir("/proc/self/task");
	char path[300], name[32];
	struct dirent *e;
	int n = 0, fd;

	assert_non_null(d);
	while ((e = readdir(d))) {
		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n += fd >= 0 && read(fd, name, sizeof(name)) == 10 && memcmp(name, "pgc-watch\n", 10) == 0;
		if (fd >= 0)
			close(fd);
	}
	closedir(d);
	return n;
}

static bool has_one_watcher(void)
{
	for (int i = 0; i < 5000 && watchers() != 1; i++)
		usleep(1000);
	return watchers() == 1;
}

/* In a child, since this process has one since its first test. */
static void the_first_open_makes_the_watcher_and_the_second_none(void **state)
{
	pid_t pid = fork();
	int st;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct pgc_file *f = NULL, *g = NULL;
		bool ok = watchers() == 0 && pgc_open(&f, "mem:test", O_RDWR, 0) == 0 && has_one_watcher() &&
			  pgc_open(&g, "mem:test", O_RDWR, 0) == 0 && has_one_watcher();

		_exit(ok ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &st, 0), pid);
	assert_int_equal(st, 0);
}

static void a_handle_that_makes_no_calls_is_handed_over(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR), *g = open_mem(O_RDONLY);

	fake_die(ATTACH_TAKEN);
	assert_true(wait_for(&fake.seen[PGC_MSG_ATTACH], 2));
	pgc_close(f);
	pgc_close(g);
}

static void a_forked_child_has_a_watcher_of_its_own(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	int go[2], st;
	char b;
	pid_t pid;

	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(go[1]);
		if (pgc_pread(f, &b, 1, 0) != 1 || !has_one_watcher())
			_exit(1);
		(void)!read(go[0], &b, 1); /* no calls from here on */
		_exit(0);
	}
	close(go[0]);
	assert_true(wait_for(&fake.seen[PGC_MSG_READ], 1));
	assert_true(wait_for(&fake.connections, 2));
	fake_die(ATTACH_TAKEN);
	assert_true(wait_for(&fake.seen[PGC_MSG_ATTACH], 2)); /* its own, and its parent's */
	close(go[1]);
	assert_int_equal(waitpid(pid, &st, 0), pid);
	assert_int_equal(st, 0);
	pgc_close(f);
}

/* Else the daemon would not hear of the parent's end as long as the child lives. */
static void a_child_that_is_forked_during_an_ATTACH_does_not_keep_its_socket(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int deaf = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), fd, st;
	pid_t pid;

	fake_goes();
	strcpy(sa.sun_path, fake.path);
	unlink(fake.path);
	assert_int_equal(bind(deaf, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(deaf, 8), 0);
	assert_int_equal(poll(&(struct pollfd){ .fd = deaf, .events = POLLIN }, 1, 5000), 1); /* somebody waits for an answer */
	fd = __atomic_load_n(&f->next_fd, __ATOMIC_SEQ_CST);
	assert_true(fd >= 0 && fcntl(fd, F_GETFD) >= 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(fcntl(fd, F_GETFD) >= 0);
	assert_int_equal(waitpid(pid, &st, 0), pid);
	assert_int_equal(st, 0);
	close(deaf);
	unlink(fake.path);
	set(fake.attach, ATTACH_TAKEN);
	fake_comes();
	assert_true(handed_over(f, 1));
	pgc_close(f);
}

/* What was stored through it may be nowhere else. */
static void a_handle_that_is_closed_while_no_daemon_is_there_is_handed_over_and_let_go(void **state)
{
	struct pgc_file *f, *g;

	setenv("PAGECACHED_ORPHAN_TIMEOUT", "30", 1);
	f = open_mem(O_RDWR);
	g = open_mem(O_RDONLY);
	fake_goes();
	usleep(50000); /* the watcher is at it */
	assert_int_equal(pgc_close(f), 0);
	fake_comes();
	set(fake.attach, ATTACH_TAKEN);
	assert_reads(g, PAGE);
	assert_true(reaped_but(g));
	assert_int_equal(fake_logged(PGC_MSG_ATTACH, false), 2);
	pgc_close(g);
}

static void a_closed_handle_with_a_mapping_is_handed_over_and_closed_again(void **state)
{
	struct pgc_file *f = open_mem(O_RDWR);
	void *m = pgc_mmap(f, NULL, PAGE, PROT_READ, MAP_SHARED, 0);

	assert_true(m != MAP_FAILED);
	assert_int_equal(pgc_close(f), 0);
	assert_true(wait_for(&fake.seen[PGC_MSG_CLOSE], 1));
	fake.attach_map = (struct pgc_map){ .addr = (uint64_t)(uintptr_t)m, .len = PAGE };
	fake_die(ATTACH_TAKEN);
	assert_true(wait_for(&fake.seen[PGC_MSG_ATTACH], 1));
	assert_true(wait_for(&fake.seen[PGC_MSG_CLOSE], 2));
	assert_int_equal(pgc_munmap(m, PAGE), 0);
	assert_true(all_reaped());
}

/* --- how long --- */

static uint64_t took(struct pgc_file *f, int expect)
{
	uint64_t start = clock_ms();

	assert_int_equal(pgc_pread(f, content, 1, 0), expect);
	return clock_ms() - start;
}

static void a_call_waits_as_long_as_the_environment_says(void **state)
{
	struct pgc_file *f;

	set(fake.orphan_ms, 60000);
	setenv("PAGECACHED_ORPHAN_TIMEOUT", "0.4", 1);
	f = open_mem(O_RDWR);
	fake_goes();
	assert_in_range(took(f, -ECONNRESET), 350, 20000);
	assert_in_range(took(f, -ECONNRESET), 350, 20000); /* each for itself */
	fake_comes();
	pgc_close(f);
}

static void a_call_waits_as_long_as_the_daemon_said(void **state)
{
	struct pgc_file *f;

	set(fake.orphan_ms, 400);
	unsetenv("PAGECACHED_ORPHAN_TIMEOUT");
	f = open_mem(O_RDWR);
	fake_goes();
	assert_in_range(took(f, -ECONNRESET), 350, 20000);
	fake_comes();
	pgc_close(f);
}

static void *comes_later(void *arg)
{
	usleep(700000);
	set(fake.attach, ATTACH_TAKEN);
	fake_comes();
	return NULL;
}

static void zero_is_for_ever(void **state)
{
	struct pgc_file *f;
	pthread_t t;

	set(fake.orphan_ms, 100);
	setenv("PAGECACHED_ORPHAN_TIMEOUT", "0", 1);
	f = open_mem(O_RDWR);
	fake_goes();
	assert_int_equal(pthread_create(&t, NULL, comes_later, NULL), 0);
	assert_in_range(took(f, 1), 600, 20000);
	pthread_join(t, NULL);
	pgc_close(f);
}

static void an_open_fails_at_once_where_nobody_listens(void **state)
{
	struct pgc_file *f = NULL;
	uint64_t start = clock_ms();

	setenv("PAGECACHED_ORPHAN_TIMEOUT", "30", 1);
	fake_goes();
	assert_int_equal(pgc_open(&f, "mem:test", O_RDWR, 0), -ECONNREFUSED);
	assert_true(clock_ms() - start < 5000);
	fake_comes();
}

static void *opens(void *arg)
{
	struct pgc_file *f = NULL;

	*(int *)arg = pgc_open(&f, "mem:test", O_RDWR, 0);
	if (f)
		pgc_close(f);
	return NULL;
}

static void an_open_that_a_daemon_worked_on_for_long_is_asked_of_the_next(void **state)
{
	pthread_t t;
	int r = 1;

	set(fake.late, 1);
	assert_int_equal(pthread_create(&t, NULL, opens, &r), 0);
	assert_true(wait_for(&fake.seen[PGC_MSG_OPEN], 1) && wait_for(&fake.late, 0));
	add(clock_ahead, 3600); /* a store may be slow */
	fake_die(ATTACH_TAKEN);
	pthread_join(t, NULL);
	assert_int_equal(r, 0);
	assert_int_equal(get(fake.seen[PGC_MSG_OPEN]), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_first_open_makes_the_watcher_and_the_second_none),
		T(a_request_under_way_at_the_hang_up_is_sent_again), T(an_append_that_was_carried_out_is_told_from_a_new_one),
		T(what_was_answered_is_not_sent_again), T(after_RESUMED_what_has_no_answer_goes_again_in_the_order_of_tags),
		T(an_answer_that_came_before_RESUMED_counts),
		T(ATTACH_says_what_the_handle_is), T(ATTACH_of_a_URI_names_it_and_hands_over_the_transfer_area),
		T(what_the_next_daemon_does_not_trust_is_lost_for_good), T(a_daemon_that_is_not_ready_is_asked_again),
		T(callers_that_wait_share_one_ATTACH), T(the_old_socket_stays_open_until_all_callers_have_left_it),
		T(a_handle_that_makes_no_calls_is_handed_over), T(a_forked_child_has_a_watcher_of_its_own),
		T(a_child_that_is_forked_during_an_ATTACH_does_not_keep_its_socket),
		T(a_handle_that_is_closed_while_no_daemon_is_there_is_handed_over_and_let_go), T(a_closed_handle_with_a_mapping_is_handed_over_and_closed_again),
		T(a_call_waits_as_long_as_the_environment_says), T(a_call_waits_as_long_as_the_daemon_said), T(zero_is_for_ever),
		T(an_open_fails_at_once_where_nobody_listens), T(an_open_that_a_daemon_worked_on_for_long_is_asked_of_the_next),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
