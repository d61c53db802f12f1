/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What SECURITY.md claims and no other test shows. test_hostile.c has those who speak the protocol wrongly; these speak it well, to get at what is not theirs: by
 * ATTACH, which believes what a client brings, by numbers that the kernel gives again, and by what lies about.
 */
#include "raw.h"

#include <dirent.h>
#include <linux/aio_abi.h>
#include <linux/userfaultfd.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#define NOBODY 65534
#define PAGES  64u
#define SIZE   (PAGES * PAGE)

/* --- ATTACH --- */

static struct pgc_msg attach_msg(const char *path, uint32_t flags, uint32_t attach, uint64_t handle)
{
	struct stat st;

	CHECK(stat(path, &st) == 0);
	return (struct pgc_msg){.type = PGC_MSG_ATTACH, .tag = 2,
		.attach = {.file_dev = st.st_dev, .file_ino = st.st_ino, .handle = handle, .flags = flags, .attach = attach}};
}

/* Status, or -1 for a hang-up. `flags`: of the handle, and of the file's descriptor. On success `r` is the handle. */
static int raw_attach_with(struct raw *r, const char *path, int flags, uint32_t attach, uint64_t handle, int memfd, int uffd)
{
	struct pgc_msg m = attach_msg(path, (uint32_t)flags, attach, handle);
	int fd = open(path, flags | O_CLOEXEC), status, fds[3] = {-1, -1, -1};

	CHECK(fd >= 0);
	raw_hello(r, PGC_ROLE_CLIENT);
	r->uffd = uffd;
	send_msg(r->sock, &m, (int[]){uffd, memfd, fd}, 3);
	close(fd);
	if (!recv_msg(r->sock, &m, fds))
		return -1;
	CHECK_EQ(m.type, PGC_MSG_ATTACH | PGC_MSG_REPLY);
	status = (int)m.status;
	if (status == 0) {
		r->reply = m.open_reply;
		r->control = fds[0];
		r->memfd = fcntl(memfd, F_DUPFD_CLOEXEC, 0);
	}
	return status;
}

static int raw_attach(struct raw *r, const char *path, int flags, uint32_t attach, uint64_t handle, int memfd)
{
	return raw_attach_with(r, path, flags, attach, handle, memfd, raw_uffd(O_NONBLOCK));
}

static void refused_attach(const char *path, int flags, uint32_t attach, int memfd)
{
	struct raw r;

	CHECK_EQ(raw_attach(&r, path, flags, attach, 0, memfd), ESTALE);
	raw_close(&r);
}

/* As the daemon names the memory of this file. */
static void memory_name(char name[128], const char *path)
{
	struct statx st;

	CHECK(statx(AT_FDCWD, path, 0, STATX_BASIC_STATS | STATX_BTIME, &st) == 0);
	snprintf(name, 128, "pagecached:%" PRIx64 ":%" PRIx64 ":%" PRIx64, (uint64_t)makedev(st.stx_dev_major, st.stx_dev_minor), (uint64_t)st.stx_ino,
		 st.stx_mask & STATX_BTIME ? (uint64_t)st.stx_btime.tv_sec * 1000000000u + st.stx_btime.tv_nsec : 0);
}

static void read_through(struct raw *r, uint64_t len, uint8_t *buf)
{
	struct pgc_msg m = {.type = PGC_MSG_READ, .read = {.off = 0, .len = len}};

	CHECK_EQ(raw_call(r, &m, NULL, 0), 0);
	CHECK_EQ(m.read_reply.len, len);
	CHECK_EQ(pread(r->memfd, buf, len, 0), (long long)len);
}

static void expect_bytes(const char *path, unsigned gen)
{
	uint8_t buf[SIZE];
	struct raw r;

	raw_open(&r, path, O_RDONLY);
	read_through(&r, SIZE, buf);
	PATTERN_CHECK(buf, SIZE, 0, gen);
	raw_close(&r);
}

SYSTEM_TEST(the_memory_of_another_file_is_not_taken_for_this_ones)
{
	char *own = make_file("own", SIZE, 1), *victim = make_file("victim", SIZE, 2);
	uint8_t buf[SIZE];
	struct raw f;

	raw_open(&f, own, O_RDWR);
	read_through(&f, SIZE, buf);
	refused_attach(victim, O_RDONLY, PGC_ATTACH_CLEAN, f.memfd);
	refused_attach(victim, O_RDONLY, 0, f.memfd);
	expect_bytes(victim, 2);
	CHECK_EQ(pread(f.memfd, buf, SIZE, 0), (long long)SIZE);
	PATTERN_CHECK(buf, SIZE, 0, 1);
	raw_close(&f);
	expect_bytes(own, 1);
}

/* A memfd of the daemon's user, in `name`, with bytes in it: untouched, whatever it is offered as. */
static void stays_untouched(const char *path, const char *name, uid_t owner)
{
	struct stat before, after;
	char byte = 0;
	int fd;

	setfsuid(owner);
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	setfsuid(0);
	CHECK(fd >= 0 && pwrite(fd, "x", 1, 5 * PAGE) == 1 && fchmod(fd, 0644) == 0 && fstat(fd, &before) == 0);
	refused_attach(path, O_RDONLY, PGC_ATTACH_CLEAN, fd);
	refused_attach(path, O_RDWR, PGC_ATTACH_CLEAN, fd);
	CHECK(fstat(fd, &after) == 0);
	CHECK_EQ(after.st_mode, before.st_mode);
	CHECK_EQ(after.st_size, before.st_size);
	CHECK(pread(fd, &byte, 1, 5 * PAGE) == 1 && byte == 'x');
	close(fd);
}

SYSTEM_TEST(memory_that_the_daemon_did_not_make_is_refused_and_left_alone)
{
	char *path = make_file("f", SIZE, 1), name[128];

	memory_name(name, path);
	stays_untouched(path, "something", 0);
	stays_untouched(path, "pagecached", 0);
	stays_untouched(path, "pagecached-control", 0);
	stays_untouched(path, name, NOBODY);
	expect_bytes(path, 1);
}

SYSTEM_TEST(a_file_that_is_named_as_memory_is_refused_and_left_alone)
{
	char *path = make_file("f", SIZE, 1), name[128], bait[300];
	struct stat st;
	char byte = 0;
	int fd;

	if (!env.small[0])
		skip_test("needs a tmpfs");
	memory_name(name, path);
	snprintf(bait, sizeof(bait), "%s/memfd:%s (deleted)", env.small, name);
	fd = open(bait, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	CHECK(fd >= 0 && pwrite(fd, "x", 1, 0) == 1);
	refused_attach(path, O_RDONLY, PGC_ATTACH_CLEAN, fd);
	CHECK(pread(fd, &byte, 1, 0) == 1 && byte == 'x');
	CHECK(fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0644);
	CHECK(unlink(bait) == 0);
	close(fd);
}

SYSTEM_TEST(memory_of_a_daemon_that_has_stopped_brings_no_bytes)
{
	char *path = make_file("f", SIZE, 1);
	uint8_t buf[SIZE];
	struct stat st;
	struct raw f, g;

	raw_open(&f, path, O_RDWR);
	read_through(&f, SIZE, buf);
	daemon_stop();
	/* It may write the file; but not so that nobody hears of it, nor in a size that the store does not have. */
	CHECK(pwrite(f.memfd, "forged", 6, 0) == 6);
	CHECK(ftruncate(f.memfd, 1ll << 40) == 0);
	daemon_start();
	CHECK_EQ(raw_attach(&g, path, O_RDWR, PGC_ATTACH_CLEAN, 0, f.memfd), 0);
	CHECK(fstat(g.memfd, &st) == 0);
	CHECK_EQ(st.st_size, SIZE);
	CHECK_EQ(st.st_mode & 0777, 0400);
	read_through(&g, SIZE, buf);
	PATTERN_CHECK(buf, SIZE, 0, 1);
	expect_bytes(path, 1);
	raw_close(&g);
	raw_close(&f);
}

static void end_all(void)
{
	pid_t daemon = daemon_pid();

	CHECK(kill(env.daemon, SIGKILL) == 0 && kill(daemon, SIGKILL) == 0);
	wait_child(env.daemon);
	env.daemon = 0;
	WAIT_UNTIL(kill(daemon, 0) < 0);
}

/* What only a writer may: that a range is written outside tracking. */
static int try_keep(struct raw *r)
{
	struct pgc_msg m = {.type = PGC_MSG_KEEP, .tag = 5, .keep = {.len = PAGE, .on = 1}};

	send_msg(r->sock, &m, NULL, 0);
	do
		CHECK(recv_msg(r->sock, &m, NULL));
	while (m.type == PGC_MSG_RESUMED);
	return (int)m.status;
}

SYSTEM_TEST(a_reader_does_not_inherit_the_rights_of_a_writers_record, .keep = true)
{
	char *path = make_file("f", SIZE, 1);
	uint8_t buf[SIZE];
	struct raw f, reader;
	pid_t before;

	raw_open(&f, path, O_RDWR);
	read_through(&f, SIZE, buf);
	end_all();
	daemon_start();
	CHECK_EQ(raw_attach(&reader, path, O_RDONLY, 0, f.reply.handle, f.memfd), 0);
	CHECK_EQ(try_keep(&reader), EBADF);
	before = daemon_pid();
	daemon_kill();
	WAIT_UNTIL(kill(before, 0) < 0);
	CHECK_EQ(try_keep(&reader), EBADF);
	raw_close(&reader);
	raw_close(&f);
}

static int attach_living(const char *path, int memfd, int uffd)
{
	struct raw r;
	int status = raw_attach_with(&r, path, O_RDWR, 0, 0, memfd, uffd);

	raw_close(&r);
	return status;
}

SYSTEM_TEST(a_userfaultfd_that_could_hold_the_daemon_is_refused)
{
	char *path = make_file("f", SIZE, 1);
	struct uffdio_api api = {.api = UFFD_API};
	int ends[2], uffd;
	struct raw f;

	raw_open(&f, path, O_RDWR);
	CHECK_EQ(attach_living(path, f.memfd, raw_uffd(O_NONBLOCK)), 0);
	CHECK_EQ(attach_living(path, f.memfd, raw_uffd(0)), EINVAL);
	CHECK(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
	close(ends[1]);
	CHECK_EQ(attach_living(path, f.memfd, ends[0]), EINVAL);
	uffd = raw_uffd(O_NONBLOCK); /* set up by another daemon, as far as anybody knows */
	CHECK(ioctl(uffd, UFFDIO_API, &api) == 0);
	CHECK(fcntl(uffd, F_SETFL, 0) == 0);
	CHECK_EQ(attach_living(path, f.memfd, uffd), EINVAL);
	raw_close(&f);
}

/* --- inode numbers that are given again --- */

static ino_t inode_of(const char *path)
{
	struct stat st;

	CHECK(stat(path, &st) == 0);
	return st.st_ino;
}

/* A file with the inode number `wanted`; false: the file system does not give it again. */
static bool make_file_with_inode(const char *name, ino_t wanted)
{
	char other[64];
	bool found = false;
	unsigned n = 0;

	for (; n < 500 && !found; n++) {
		snprintf(other, sizeof(other), "%s.%u", name, n);
		make_file(other, SIZE, 2);
		found = inode_of(other) == wanted;
	}
	if (found)
		CHECK(rename(other, name) == 0);
	for (unsigned i = 0; i + found < n; i++) {
		snprintf(other, sizeof(other), "%s.%u", name, i);
		CHECK(unlink(other) == 0);
	}
	return found;
}

SYSTEM_TEST(who_kept_the_memory_of_a_removed_file_does_not_write_the_next_one_of_its_number)
{
	char *path = make_file("mine", SIZE, 1);
	ino_t ino = inode_of(path);
	uint8_t buf[SIZE];
	struct stat a, b;
	struct raw f, g;
	int kept;

	raw_open(&f, path, O_RDWR);
	read_through(&f, SIZE, buf);
	kept = fcntl(f.memfd, F_DUPFD_CLOEXEC, 0);
	CHECK(kept >= 0);
	raw_close(&f);
	WAIT_UNTIL(file_state(path).handles == 0 && file_state(path).resident == PAGES);
	CHECK(unlink(path) == 0);
	if (!make_file_with_inode("theirs", ino))
		skip_test("the file system does not use inode numbers again");
	raw_open(&g, "theirs", O_RDONLY);
	read_through(&g, SIZE, buf);
	PATTERN_CHECK(buf, SIZE, 0, 2);
	CHECK(fstat(kept, &a) == 0 && fstat(g.memfd, &b) == 0);
	CHECK(a.st_ino != b.st_ino);
	raw_close(&g);
	/* Nor by saying that it is the cache of that file, which it may only read. */
	WAIT_UNTIL(file_state("theirs").handles == 0);
	daemon_stop();
	daemon_start();
	refused_attach("theirs", O_RDONLY, PGC_ATTACH_CLEAN, kept);
	expect_bytes("theirs", 2);
	close(kept);
}

/* --- what lies about --- */

/* As another user: none of the files in a folder whose names have `part` may be opened, to read or to write. */
static void expect_closed_to_others(const char *folder, const char *part)
{
	pid_t pid = fork();
	unsigned n = 0;

	CHECK(pid >= 0);
	if (pid == 0) {
		struct dirent *e;
		DIR *d;

		drop_privilege();
		d = opendir(folder);
		if (!d)
			_exit(3);
		while ((e = readdir(d))) {
			struct stat st;

			if (e->d_name[0] == '.' || !strstr(e->d_name, part) || fstatat(dirfd(d), e->d_name, &st, 0) < 0 || S_ISDIR(st.st_mode) || S_ISSOCK(st.st_mode))
				continue;
			n++;
			if (openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC) >= 0 || openat(dirfd(d), e->d_name, O_WRONLY | O_CLOEXEC) >= 0) {
				fprintf(stderr, "%s/%s can be opened by another user\n", folder, e->d_name);
				_exit(2);
			}
		}
		_exit(n == 0);
	}
	expect_exit_0(pid);
}

SYSTEM_TEST(another_user_opens_no_pin)
{
	if (!env.bpffs[0])
		skip_test("needs a BPF file system");
	CHECK_EQ(status().bpf, 1);
	expect_closed_to_others(env.bpffs, "");
}

SYSTEM_TEST(another_user_opens_no_file_of_the_state, .no_bpf = true, .keep = true)
{
	char part[400] = "";
	struct raw f;

	/* The socket's path, with "-" for "/" and "--" for "-". */
	for (size_t i = 0, n = 0; env.socket[i]; i++) {
		part[n++] = env.socket[i] == '/' ? '-' : env.socket[i];
		if (env.socket[i] == '-')
			part[n++] = '-';
	}
	make_file("f", SIZE, 1);
	raw_open(&f, "f", O_RDWR);
	expect_closed_to_others("/dev/shm", part);
	raw_close(&f);
}

/* --- who hands over forked children --- */

static void twin_as_nobody(struct peer *p, void *arg)
{
	struct pgc_msg m = hello(PGC_ROLE_TWIN);
	struct raw r = {.sock = raw_socket(), .uffd = -1, .control = -1, .memfd = -1};

	(void)arg;
	peer_tell(p, 1);
	peer_hear(p);
	send_msg(r.sock, &m, NULL, 0);
	CHECK(!recv_msg(r.sock, &m, NULL));
	raw_close(&r);
}

static void twin_of_another_user(struct peer *p, void *arg)
{
	drop_privilege();
	twin_as_nobody(p, arg);
}

SYSTEM_TEST(the_role_of_the_twin_is_the_daemons_users_own)
{
	struct peer *p;

	if (geteuid() != 0)
		skip_test("needs root, to be another user");
	CHECK(chmod(".", 0755) == 0);
	p = peer_start(twin_of_another_user, NULL);
	peer_hear(p);
	peer_tell(p, 1);
	peer_join(p);
}

SYSTEM_TEST(a_child_of_no_record_is_not_served)
{
	for (unsigned i = 0; i < 6; i++) {
		struct pgc_msg m = {.type = PGC_MSG_CHILD, .tag = 2,
			.child = {.id = 1 + i, .slot = (uint32_t[]){0, 1, 100, 1u << 20, UINT32_MAX - 1, UINT32_MAX}[i], .of_parent = i % 2}};
		struct raw r;
		int uffd = raw_uffd(O_NONBLOCK);

		raw_hello(&r, PGC_ROLE_TWIN);
		send_msg(r.sock, &m, &uffd, 1);
		CHECK(recv_msg(r.sock, &m, NULL));
		CHECK_EQ(m.type, PGC_MSG_CHILD | PGC_MSG_REPLY);
		CHECK_EQ(m.status, ESRCH);
		CHECK(!recv_msg(r.sock, &m, NULL)); /* the connection ends with the answer */
		close(uffd);
		raw_close(&r);
	}
}

static void opens_as_nobody(struct peer *p, void *arg)
{
	drop_privilege();
	open_file(arg, O_RDWR);
	peer_tell(p, 1);
	peer_hear(p);
}

/* Handles of root and of nobody: how many of them have faults inside system calls served. */
static void check_kernel_faults(unsigned want)
{
	char *path = make_file("f", PAGE, 1);
	struct peer *p;

	if (geteuid() != 0)
		skip_test("needs root, to be another user");
	CHECK(chmod(path, 0666) == 0 && chmod(".", 0755) == 0);
	CHECK_EQ(status().kernel_faults, 1);
	open_file(path, O_RDWR);
	p = peer_start(opens_as_nobody, path);
	peer_hear(p);
	CHECK_EQ(file_state(path).handles, 2);
	CHECK_EQ(file_state(path).kernel_fault_handles, want);
	peer_tell(p, 1);
	peer_join(p);
}

static bool all_may_open_the_device(void)
{
	struct stat st;

	CHECK(stat("/dev/userfaultfd", &st) == 0);
	return (st.st_mode & 0006) == 0006;
}

SYSTEM_TEST(faults_inside_system_calls_are_for_whom_the_device_is) { check_kernel_faults(all_may_open_the_device() ? 2 : 1); }
SYSTEM_TEST(faults_inside_system_calls_are_for_all_where_that_is_said, .config = "kernel_faults_for_all = yes") { check_kernel_faults(2); }

/* --- the lock of a file's memory --- */

static void *memory_that_never_comes(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(uffd >= 0 && p != MAP_FAILED && ioctl(uffd, UFFDIO_API, &api) == 0);
	CHECK_EQ(raw_register(uffd, p, PAGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	return p;
}

/* With a call that names the memory; or with one that does not, by which nobody can tell who it is. */
static void hold_the_lock(struct peer *p, void *arg)
{
	struct raw r;
	aio_context_t context = 0;
	struct iocb one = { .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_buf = (uintptr_t)memory_that_never_comes(), .aio_nbytes = PAGE };

	raw_open(&r, "f", O_RDWR);
	raw_map(&r, PAGES);
	load(r.map);
	one.aio_fildes = (uint32_t)r.memfd;
	CHECK_EQ(syscall(SYS_io_setup, 1, &context), 0);
	peer_tell(p, 0);
	if (arg)
		(void)syscall(SYS_io_submit, context, 1, (struct iocb *[]){ &one });
	else
		(void)!pwrite(r.memfd, (void *)(uintptr_t)one.aio_buf, PAGE, 0);
	FAIL("the call came back");
}

static void wait_for_the_lock(struct peer *p, void *arg)
{
	struct raw r;
	char byte = 1;

	raw_open(&r, "f", O_RDWR);
	(void)peer_ask(p, 0);
	CHECK_EQ(pwrite(r.memfd, &byte, 1, PAGE), 1);
}

static void who_keeps_the_lock_is_ended(void *how)
{
	struct peer *p, *waits;
	struct raw r;
	int st;

	if (geteuid() != 0)
		skip_test("needs root, to have a call wait for memory");
	make_file("f", SIZE, 1);
	make_file("g", SIZE, 2);
	raw_open(&r, "g", O_RDWR);
	waits = peer_start(wait_for_the_lock, NULL);
	p = peer_start(hold_the_lock, how);
	peer_hear(waits);
	peer_hear(p);
	usleep(100000); /* it has the lock */
	peer_tell(waits, 0);
	usleep(100000);
	drop_clean(); /* the one worker waits for the lock, and for whoever has it */
	raw_map(&r, PAGES); /* it serves others again */
	CHECK_EQ(load(r.map + PAGE), pattern_byte(PAGE, 2));
	CHECK(waitpid(p->pid, &st, 0) == p->pid && WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL);
	close(p->sock);
	free(p);
	peer_join(waits); /* who only waited, too, goes on */
	raw_close(&r);
}

SYSTEM_TEST(who_keeps_the_lock_of_a_files_memory_is_ended, .workers = 1, .seconds = 60) { who_keeps_the_lock_is_ended(NULL); }
SYSTEM_TEST(who_keeps_it_without_a_trace_is_ended_with_all_who_could, .workers = 1, .seconds = 60) { who_keeps_the_lock_is_ended(&(int){ 0 }); }

SYSTEM_TESTS_MAIN("security", cmocka_unit_test(the_memory_of_another_file_is_not_taken_for_this_ones),
		  cmocka_unit_test(memory_that_the_daemon_did_not_make_is_refused_and_left_alone),
		  cmocka_unit_test(a_file_that_is_named_as_memory_is_refused_and_left_alone),
		  cmocka_unit_test(memory_of_a_daemon_that_has_stopped_brings_no_bytes),
		  cmocka_unit_test(a_reader_does_not_inherit_the_rights_of_a_writers_record),
		  cmocka_unit_test(a_userfaultfd_that_could_hold_the_daemon_is_refused),
		  cmocka_unit_test(who_kept_the_memory_of_a_removed_file_does_not_write_the_next_one_of_its_number),
		  cmocka_unit_test(the_role_of_the_twin_is_the_daemons_users_own), cmocka_unit_test(a_child_of_no_record_is_not_served),
		  cmocka_unit_test(another_user_opens_no_pin), cmocka_unit_test(another_user_opens_no_file_of_the_state),
	cmocka_unit_test(who_keeps_the_lock_of_a_files_memory_is_ended), cmocka_unit_test(who_keeps_it_without_a_trace_is_ended_with_all_who_could),
	cmocka_unit_test(faults_inside_system_calls_are_for_whom_the_device_is),
	cmocka_unit_test(faults_inside_system_calls_are_for_all_where_that_is_said))
