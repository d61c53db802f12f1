/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs under the preload library that run other programs. This program runs itself: with a name of `acts` it is a program that knows nothing of
 * pagecached, and does with files under DIR/served what is to be tested, by plain calls.
 *
 * Environment besides that of harness.h: PAGECACHED_PRELOAD, the library's path.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include "harness.h"

#define TEXT "0123456789abcdef"

extern char **environ;
static char self[PATH_MAX];     /* this program */

/* ---- the program under the library ---- */

static const char *number(int n)
{
	static char text[4][16];
	static unsigned next;
	char *t = text[next++ % 4];

	snprintf(t, 16, "%d", n);
	return t;
}

static pid_t run_self(const char *act, ...)
{
	char *argv[8] = { "self", (char *)act };
	va_list ap;
	pid_t pid;
	int n = 2;

	va_start(ap, act);
	while (n < 7 && (argv[n] = va_arg(ap, char *)))
		n++;
	va_end(ap);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		execv(self, argv);
		FAIL("execv: %s", strerror(errno));
	}
	return pid;
}

static int open_checked(const char *path, int flags)
{
	int fd = open(path, flags, 0755);

	CHECK(fd >= 0);
	return fd;
}

static void write_checked(int fd, const char *text)
{
	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
}

static void expect_text(int fd, const char *text)
{
	char buf[256] = "";

	CHECK_EQ(read(fd, buf, strlen(text)), strlen(text));
	if (strcmp(buf, text) != 0)
		FAIL("read \"%s\" where \"%s\" is", buf, text);
}

static void expect_file(const char *path, const char *text)
{
	int fd = open_checked(path, O_RDONLY);
	char c;

	expect_text(fd, text);
	CHECK_EQ(read(fd, &c, 1), 0);
	close(fd);
}

/* What the kernel knows of a descriptor, whatever the library says. */
static bool links_to(int fd, const char *what)
{
	char link[64], target[512];
	long n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = syscall(SYS_readlink, link, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = '\0';
	return strstr(target, what);
}

static bool is_cached(int fd)
{
	return links_to(fd, "memfd:pagecached-file");
}

static bool is_close_on_exec(int fd)
{
	char path[64], *info, *flags;
	bool set;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = read_whole(path);
	flags = strstr(info, "flags:");
	CHECK(flags);
	set = strtoul(flags + 6, NULL, 8) & O_CLOEXEC;
	free(info);
	return set;
}

/* The real file's descriptors, all of which are hidden: how many there are, or would survive exec. Returns the first, or -1. */
static int find_real(const char *path, unsigned *ret_n, unsigned *ret_inherited)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	int first = -1;

	CHECK(d);
	*ret_n = *ret_inherited = 0;
	while ((e = readdir(d)))
		if (e->d_name[0] != '.' && links_to(atoi(e->d_name), path)) {
			first = first < 0 ? atoi(e->d_name) : first;
			++*ret_n;
			*ret_inherited += !is_close_on_exec(atoi(e->d_name));
		}
	closedir(d);
	return first;
}

static void act_read(char **arg)
{
	expect_text(atoi(arg[0]), arg[1]);
}

static void act_write(char **arg)
{
	write_checked(atoi(arg[0]), arg[1]);
}

static void act_offset(char **arg)
{
	int in = open_checked(arg[0], O_RDONLY), out = open_checked(arg[1], O_WRONLY | O_CREAT);

	CHECK(is_cached(in) && is_cached(out));
	expect_text(in, "0123");
	expect_exit_0(run_self("read", number(in), "4567", NULL));
	expect_text(in, "89ab");
	write_checked(out, "one ");
	expect_exit_0(run_self("write", number(out), "two ", NULL));
	write_checked(out, "three");
	expect_file(arg[1], "one two three");
}

static void act_append_many(char **arg)
{
	int fd = atoi(arg[0]);

	for (int i = 0; i < 50; i++)
		write_checked(fd, arg[1]);
}

static void act_append(char **arg)
{
	static const char *const line[] = { "aaaaaaaaaaaaaaa\n", "bbbbbbbbbbbbbbb\n", "ccccccccccccccc\n" };
	int fd = open_checked(arg[0], O_WRONLY | O_APPEND | O_CREAT), in;
	unsigned count[3] = { 0 };
	pid_t pid[3];
	char buf[17];

	for (int i = 0; i < 3; i++)
		pid[i] = run_self("append-many", number(fd), line[i], NULL);
	for (int i = 0; i < 3; i++)
		expect_exit_0(pid[i]);
	in = open_checked(arg[0], O_RDONLY);
	while (read(in, buf, 16) == 16) {
		buf[16] = '\0';
		CHECK(buf[0] >= 'a' && buf[0] <= 'c' && strcmp(buf, line[buf[0] - 'a']) == 0);
		count[buf[0] - 'a']++;
	}
	for (int i = 0; i < 3; i++)
		CHECK_EQ(count[i], 50);
}

/* One program after the other in the same process. */
static void act_read_last(char **arg)
{
	int fd = atoi(arg[0]), left = atoi(arg[1]);

	CHECK(is_cached(fd));
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	expect_text(fd, TEXT);
	CHECK(pwrite(fd, TEXT, 16, 16 * left) == 16);
	if (left > 0) {
		execl(self, "self", "read-last", arg[0], number(left - 1), NULL);
		FAIL("execl: %s", strerror(errno));
	}
}

static void act_unlinked(char **arg)
{
	int fd = open_checked(arg[0], O_RDWR | O_CREAT);

	write_checked(fd, TEXT);
	CHECK(unlink(arg[0]) == 0);
	expect_exit_0(run_self("read-last", number(fd), "3", NULL));
	CHECK_EQ(lseek(fd, 0, SEEK_END), 64);
}

static void act_lock(char **arg)
{
	CHECK(flock(atoi(arg[0]), LOCK_EX) == 0);
}

static void act_is_locked(char **arg)
{
	CHECK(flock(open_checked(arg[0], O_RDONLY), LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK);
}

/* As flock(1) on a shell's descriptor. */
static void act_lock_stays(char **arg)
{
	int fd = open_checked(arg[0], O_RDWR | O_CREAT);

	expect_exit_0(run_self("lock", number(fd), NULL));
	expect_exit_0(run_self("is-locked", arg[0], NULL));
}

static void act_nothing(char **arg)
{
	unsigned n, inherited;

	CHECK(syscall(SYS_fcntl, atoi(arg[0]), F_GETFD) < 0 && errno == EBADF);
	find_real(arg[1], &n, &inherited);
	CHECK_EQ(n, 0);
}

static void act_close_on_exec(char **arg)
{
	int fd = open_checked(arg[0], O_RDONLY | O_CLOEXEC);

	expect_exit_0(run_self("nothing", number(fd), arg[0], NULL));
}

static void act_exec_fails(char **arg)
{
	char *argv[] = { "nothing", NULL };
	int fd = open_checked(arg[0], O_RDONLY), real;
	unsigned n, inherited;

	CHECK(execv("/nonexistent/program", argv) < 0);
	CHECK_EQ(errno, ENOENT);
	real = find_real(arg[0], &n, &inherited);
	CHECK(real > fd && n > 0);
	CHECK_EQ(inherited, 0);
	expect_text(fd, TEXT);
}

/* Reads descriptor 0 to its end and copies it to 1, and what is at 5 after it. */
static void act_copy(char **arg)
{
	char buf[256];
	ssize_t n;

	while ((n = read(0, buf, sizeof(buf))) > 0)
		CHECK_EQ(write(1, buf, (size_t)n), n);
	CHECK_EQ(n, 0);
	n = read(5, buf, 4);
	CHECK_EQ(n, 4);
	CHECK_EQ(write(1, buf, 4), 4);
	(void)arg;
}

static void spawn_self(const posix_spawn_file_actions_t *fa, const char *act, const char *a, char **envp)
{
	char *argv[] = { "self", (char *)act, (char *)a, NULL };
	pid_t pid;
	int r = posix_spawn(&pid, self, fa, NULL, argv, envp);

	if (r)
		FAIL("posix_spawn: %s", strerror(r));
	expect_exit_0(pid);
}

static void act_spawn(char **arg)
{
	posix_spawn_file_actions_t fa;
	int fd = open_checked(arg[0], O_RDONLY | O_CLOEXEC);

	CHECK(posix_spawn_file_actions_init(&fa) == 0);
	CHECK(posix_spawn_file_actions_addopen(&fa, 0, arg[0], O_RDONLY, 0) == 0);
	CHECK(posix_spawn_file_actions_addopen(&fa, 1, arg[1], O_WRONLY | O_CREAT | O_TRUNC, 0640) == 0);
	CHECK(posix_spawn_file_actions_adddup2(&fa, fd, 5) == 0);
	CHECK(access(arg[1], F_OK) < 0); /* opened when it spawns, not before */
	spawn_self(&fa, "copy", NULL, environ);
	expect_file(arg[1], TEXT "0123");
	/* Each child opens anew, and shares what it got by dup2. */
	spawn_self(&fa, "copy", NULL, environ);
	expect_file(arg[1], TEXT "4567");
	CHECK(posix_spawn_file_actions_destroy(&fa) == 0);
}

static void act_spawn_missing(char **arg)
{
	char *argv[] = { "self", "copy", NULL };
	posix_spawn_file_actions_t fa;
	pid_t pid;

	CHECK(posix_spawn_file_actions_init(&fa) == 0);
	CHECK(posix_spawn_file_actions_addopen(&fa, 0, arg[0], O_RDONLY, 0) == 0);
	CHECK_EQ(posix_spawn(&pid, self, &fa, NULL, argv, environ), ENOENT);
	CHECK(posix_spawn_file_actions_destroy(&fa) == 0);
}

static void act_spawn_hidden(char **arg)
{
	posix_spawn_file_actions_t fa;
	int fd = open_checked(arg[0], O_RDONLY), real;
	unsigned n, inherited;

	real = find_real(arg[0], &n, &inherited);
	CHECK(posix_spawn_file_actions_init(&fa) == 0);
	CHECK_EQ(posix_spawn_file_actions_adddup2(&fa, real, 5), EBADF);
	CHECK_EQ(posix_spawn_file_actions_adddup2(&fa, fd, real), EBADF);
	CHECK_EQ(posix_spawn_file_actions_addclose(&fa, real), EBADF);
	CHECK(posix_spawn_file_actions_destroy(&fa) == 0);
}

static void act_spawn_close(char **arg)
{
	posix_spawn_file_actions_t fa;
	char *argv[] = { "self", "nothing", NULL, arg[0], NULL };
	int fd = open_checked(arg[0], O_RDONLY);
	pid_t pid;

	argv[2] = (char *)number(fd);
	CHECK(posix_spawn_file_actions_init(&fa) == 0);
	CHECK(posix_spawn_file_actions_addclose(&fa, fd) == 0);
	CHECK_EQ(posix_spawn(&pid, self, &fa, NULL, argv, environ), 0);
	expect_exit_0(pid);
	CHECK(posix_spawn_file_actions_destroy(&fa) == 0);
	expect_text(fd, TEXT);
}

static void act_read_0(char **arg)
{
	expect_text(0, TEXT);
	(void)arg;
}

/* The child loses the real file's descriptor and finds the file by its path. */
static void act_spawn_closefrom(char **arg)
{
	posix_spawn_file_actions_t fa;
	int fd = open_checked(arg[0], O_RDONLY | O_CLOEXEC);

	CHECK(posix_spawn_file_actions_init(&fa) == 0);
	CHECK(posix_spawn_file_actions_adddup2(&fa, fd, 0) == 0);
	CHECK(posix_spawn_file_actions_addclosefrom_np(&fa, 3) == 0);
	spawn_self(&fa, "read-0", NULL, environ);
	CHECK(posix_spawn_file_actions_destroy(&fa) == 0);
}

static void act_spawn_chdir(char **arg)
{
	posix_spawn_file_actions_t fa;

	CHECK(posix_spawn_file_actions_init(&fa) == 0);
	CHECK(posix_spawn_file_actions_addchdir_np(&fa, arg[0]) == 0);
	CHECK(posix_spawn_file_actions_addopen(&fa, 0, "in", O_RDONLY, 0) == 0);
	spawn_self(&fa, "read-0", NULL, environ);
	CHECK(posix_spawn_file_actions_destroy(&fa) == 0);
}

static void act_opens_cached(char **arg)
{
	CHECK(is_cached(open_checked(arg[0], O_RDONLY)));
}

static void act_opens_plain(char **arg)
{
	CHECK(!is_cached(open_checked(arg[0], O_RDONLY)));
}

static pid_t exec_with(char **envp, const char *act, const char *a)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		execle(self, "self", act, a, NULL, envp);
		FAIL("execle: %s", strerror(errno));
	}
	return pid;
}

static void act_environment(char **arg)
{
	char *none[] = { NULL }, *other[] = { "LD_PRELOAD=", "HOME=/", NULL };

	expect_exit_0(exec_with(none, "opens-cached", arg[0]));
	expect_exit_0(exec_with(other, "opens-cached", arg[0]));
	spawn_self(NULL, "opens-cached", arg[0], other);
	CHECK(clearenv() == 0);
	act_opens_cached(arg);
	expect_exit_0(run_self("opens-cached", arg[0], NULL));
}

static void act_environment_kept(char **arg)
{
	char *off[] = { "PAGECACHED_INHERIT=0", NULL }, *empty[] = { "PAGECACHED_PATHS=", NULL };

	expect_exit_0(exec_with(off, "opens-plain", arg[0]));
	expect_exit_0(exec_with(empty, "opens-plain", arg[0]));
}

/* With `more` bytes after it. */
static void copy_file(const char *from, const char *to, size_t more)
{
	static char buf[1 << 16];
	int in = open_checked(from, O_RDONLY), out = open_checked(to, O_WRONLY | O_CREAT | O_TRUNC);
	ssize_t n;

	while ((n = read(in, buf, sizeof(buf))) > 0)
		CHECK_EQ(write(out, buf, (size_t)n), n);
	CHECK_EQ(n, 0);
	for (memset(buf, 'x', sizeof(buf)); more >= sizeof(buf); more -= sizeof(buf))
		CHECK_EQ(write(out, buf, sizeof(buf)), sizeof(buf));
	close(in);
	close(out);
}

static void run_written(const char *program, const char *a, const char *b)
{
	char *argv[] = { (char *)program, (char *)a, (char *)b, NULL };
	pid_t pid;
	int fd[2];

	CHECK(pipe(fd) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		dup2(fd[1], 1);
		execv(program, argv);
		FAIL("execv: %s", strerror(errno));
	}
	close(fd[1]);
	expect_text(fd[0], "hello");
	close(fd[0]);
	expect_exit_0(pid);
}

static void act_run_written(char **arg)
{
	for (int i = 0; i < 3; i++) {
		copy_file("/bin/sh", arg[0], 48 << 20);
		run_written(arg[0], "-c", "printf hello");
	}
	/* A script, whose interpreter was written just now. */
	for (int i = 0; i < 3; i++) {
		char text[600];
		int fd = open_checked(arg[1], O_WRONLY | O_CREAT | O_TRUNC);

		copy_file("/bin/sh", arg[2], 0);
		snprintf(text, sizeof(text), "#!%s\nprintf %%s \"$2\" # %d\n", arg[2], i);
		write_checked(fd, text);
		close(fd);
		run_written(arg[1], "-", "hello");
	}
}

/* While somebody has it open nothing is written out by itself. */
static void act_load_written(char **arg)
{
	int keep = open_checked(arg[0], O_RDONLY | O_CREAT);
	Dl_info from;
	void *lib, *symbol;

	CHECK(dladdr((void *)pgc_open, &from));
	copy_file(from.dli_fname, arg[0], 0);
	lib = dlopen(arg[0], RTLD_NOW | RTLD_LOCAL);
	if (!lib)
		FAIL("%s", dlerror());
	symbol = dlsym(lib, "pgc_close");
	CHECK(symbol && dladdr(symbol, &from) && strcmp(from.dli_fname, arg[0]) == 0);
	close(keep);
}

static void act_system(char **arg)
{
	int fd = open_checked("in", O_RDONLY);
	char command[128], buf[32] = "";
	FILE *f;

	CHECK_EQ(system("cat < in > out && cat in >> out"), 0);
	expect_file("out", TEXT TEXT);
	expect_text(fd, "0123");
	snprintf(command, sizeof(command), "cat <&%d", fd);
	f = popen(command, "r");
	CHECK(f && fgets(buf, sizeof(buf), f));
	CHECK(strcmp(buf, &TEXT[4]) == 0);
	CHECK_EQ(pclose(f), 0);
	CHECK(unlink("in") == 0 && lseek(fd, 0, SEEK_SET) == 0);
	snprintf(command, sizeof(command), "cat <&%d > out", fd);
	CHECK_EQ(system(command), 0);
	expect_file("out", TEXT);
	(void)arg;
}

static void act_vfork(char **arg)
{
	int fd = open_checked(arg[0], O_RDONLY);
	pid_t pid = vfork();

	CHECK(pid >= 0);
	if (pid == 0) {
		dup2(fd, 0);
		close(fd);
		execl(self, "self", "read-0", NULL);
		_exit(127);
	}
	expect_exit_0(pid);
	/* What the child closed is the parent's still. */
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	expect_text(fd, TEXT);
}

static void act_daemon(char **arg)
{
	int fd = open_checked(arg[0], O_RDWR), done[2];
	char c = 0;
	pid_t pid;

	CHECK(pipe(done) == 0);
	expect_text(fd, "0123");
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK(daemon(0, 0) == 0);
		CHECK(read(fd, &c, 1) == 1 && c == '4');
		CHECK(open("in", O_RDONLY) < 0); /* at / */
		CHECK(pwrite(fd, "D", 1, 0) == 1);
		CHECK(write(done[1], "x", 1) == 1);
		_exit(0);
	}
	close(done[1]);
	CHECK_EQ(read(done[0], &c, 1), 1);
	expect_exit_0(pid);
	CHECK(pread(fd, &c, 1, 0) == 1 && c == 'D');
}

static void *spawn_in_turn(void *arg)
{
	char text[] = TEXT;
	posix_spawn_file_actions_t fa;

	for (int i = 0; i < 15; i++) {
		int fd = open_checked(arg, O_RDONLY | O_CLOEXEC);

		text[15] = '\0';
		expect_text(fd, "0");
		CHECK(posix_spawn_file_actions_init(&fa) == 0);
		CHECK(posix_spawn_file_actions_adddup2(&fa, fd, 0) == 0);
		spawn_self(&fa, "read-rest", text + 1, environ);
		CHECK(posix_spawn_file_actions_destroy(&fa) == 0);
		expect_text(fd, "f");
		close(fd);
	}
	return NULL;
}

static void act_read_rest(char **arg)
{
	expect_text(0, arg[0]);
}

static void act_threads(char **arg)
{
	pthread_t thread[4];

	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&thread[i], NULL, spawn_in_turn, arg[0]) == 0);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(thread[i], NULL) == 0);
	act_close_on_exec(arg);
}

/* Without the library: nothing but refusals. */
static void act_refused(char **arg)
{
	int fd = atoi(arg[0]);
	char c;

	CHECK(read(fd, &c, 1) < 0 && errno == EBADF);
	CHECK(pread(fd, &c, 1, 0) < 0 && errno == EBADF);
	CHECK(write(fd, "x", 1) < 0 && errno == EPERM);
	CHECK(pwrite(fd, "x", 1, 0) < 0 && errno == EPERM);
	CHECK(ftruncate(fd, 0) < 0);
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED && errno == EACCES);
}

static void act_without_library(char **arg)
{
	char *off[] = { "PAGECACHED_INHERIT=0", NULL };
	int fd = open_checked(arg[0], O_RDWR);

	expect_exit_0(exec_with(off, "refused", number(fd)));
	expect_text(fd, TEXT);
}

static void act_run_program(char **arg)
{
	int fd = open_checked(arg[1], O_RDWR);
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		execl(arg[0], arg[0], number(fd), NULL);
		FAIL("execl: %s", strerror(errno));
	}
	expect_exit_0(pid);
	expect_text(fd, TEXT);
}

static void act_run_busy(char **arg)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		execl(arg[0], arg[0], NULL);
		FAIL("execl: %s", strerror(errno));
	}
	expect_exit_0(pid);
}

static void act_duplicates(char **arg)
{
	int fd = open_checked(arg[0], O_RDONLY), again = dup(fd), other = open_checked(arg[0], O_RDONLY);
	char text[64];

	expect_text(other, "01");
	snprintf(text, sizeof(text), "%d %d", again, other);
	expect_exit_0(run_self("read-duplicates", number(fd), number(again), number(other), NULL));
}

static void act_read_duplicates(char **arg)
{
	expect_text(atoi(arg[0]), "0123");
	expect_text(atoi(arg[1]), "4567");
	expect_text(atoi(arg[2]), "2345");
	close(atoi(arg[0]));
	expect_text(atoi(arg[1]), "89ab");
}

static const struct { const char *name; void (*fn)(char **arg); } acts[] = {
	{ "read", act_read }, { "write", act_write }, { "offset", act_offset }, { "append", act_append }, { "append-many", act_append_many },
	{ "read-last", act_read_last }, { "unlinked", act_unlinked }, { "lock", act_lock }, { "is-locked", act_is_locked },
	{ "lock-stays", act_lock_stays }, { "nothing", act_nothing }, { "close-on-exec", act_close_on_exec }, { "exec-fails", act_exec_fails },
	{ "copy", act_copy }, { "spawn", act_spawn }, { "spawn-missing", act_spawn_missing }, { "spawn-hidden", act_spawn_hidden },
	{ "spawn-close", act_spawn_close }, { "read-0", act_read_0 }, { "spawn-closefrom", act_spawn_closefrom }, { "spawn-chdir", act_spawn_chdir },
	{ "opens-cached", act_opens_cached }, { "opens-plain", act_opens_plain }, { "environment", act_environment },
	{ "environment-kept", act_environment_kept }, { "run-written", act_run_written }, { "load-written", act_load_written },
	{ "system", act_system },
	{ "vfork", act_vfork }, { "daemon", act_daemon }, { "threads", act_threads }, { "read-rest", act_read_rest }, { "refused", act_refused }, { "without-library", act_without_library },
	{ "run-program", act_run_program }, { "run-busy", act_run_busy }, { "duplicates", act_duplicates }, { "read-duplicates", act_read_duplicates },
};

/* ---- the tests ---- */

/* In DIR/served, with "in" in it, under the library; must exit with 0. */
static void preloaded(const char *const argv[])
{
	const char *library = getenv("PAGECACHED_PRELOAD"), *sanitizer = getenv("PGC_TEST_PRELOAD_FIRST");
	char preload[1024], paths[256], sock[256];
	const char *all[16] = { "env", preload, paths, sock };
	struct output o;
	int n = 4;

	if (!library)
		FAIL("PAGECACHED_PRELOAD is not set");
	snprintf(preload, sizeof(preload), "LD_PRELOAD=%s%s%s", sanitizer ? sanitizer : "", sanitizer && *sanitizer ? ":" : "", library);
	snprintf(paths, sizeof(paths), "PAGECACHED_PATHS=%s/served/**", env.dir);
	snprintf(sock, sizeof(sock), "PAGECACHED_SOCKET=%s", env.socket);
	for (; *argv; argv++)
		all[n++] = *argv;
	o = run_program(all);
	if (o.code != 0 || o.err[0])
		FAIL("exit code %d: %s", o.code, o.err);
	output_free(&o);
}
#define ACT(...) preloaded((const char *const[]){ self, __VA_ARGS__, NULL })
#define PROGRAM(...) preloaded((const char *const[]){ __VA_ARGS__, NULL })

static char *served(const char *name)
{
	char *path;

	CHECK(asprintf(&path, "%s/served/%s", env.dir, name) > 0);
	return path;
}

static void prepare(void)
{
	int fd;

	CHECK(mkdir("served", 0755) == 0 && chdir("served") == 0);
	fd = open_checked("in", O_WRONLY | O_CREAT);
	write_checked(fd, TEXT);
	close(fd);
}

#define ACT_TEST(name, ...) \
	SYSTEM_TEST(name) \
	{ \
		prepare(); \
		ACT(__VA_ARGS__); \
	}

ACT_TEST(a_descriptor_goes_on_after_exec_at_the_shared_offset, "offset", served("in"), served("out"))
ACT_TEST(programs_append_to_one_log, "append", served("log"))
ACT_TEST(an_unlinked_file_survives_exec_after_exec, "unlinked", served("gone"))
ACT_TEST(a_lock_taken_by_another_program_stays_with_the_description, "lock-stays", served("lock"))
ACT_TEST(duplicates_share_their_offset_after_exec_and_others_do_not, "duplicates", served("in"))
ACT_TEST(close_on_exec_leaves_nothing_behind, "close-on-exec", served("in"))
ACT_TEST(after_an_exec_that_fails_all_is_as_before, "exec-fails", served("in"))
ACT_TEST(spawn_opens_and_duplicates_files_for_the_child, "spawn", served("in"), served("out"))
ACT_TEST(spawn_says_which_file_it_cannot_open, "spawn-missing", served("missing"))
ACT_TEST(spawn_refuses_descriptors_that_are_the_librarys_own, "spawn-hidden", served("in"))
ACT_TEST(a_child_whose_other_descriptors_were_closed_finds_the_file_by_path, "spawn-closefrom", served("in"))
ACT_TEST(what_spawn_closes_leaves_nothing_behind, "spawn-close", served("in"))
ACT_TEST(spawn_opens_relative_to_the_childs_folder, "spawn-chdir", served(""))
ACT_TEST(a_program_run_with_another_environment_is_under_the_library, "environment", served("in"))
ACT_TEST(the_environment_is_left_alone_when_asked_for, "environment-kept", served("in"))
ACT_TEST(programs_and_scripts_just_written_can_be_run, "run-written", served("program"), served("script"), served("interpreter"))
ACT_TEST(a_library_just_written_can_be_loaded, "load-written", served("lib.so"))
ACT_TEST(system_and_popen_give_descriptors_on, "system")
ACT_TEST(a_child_of_vfork_leaves_its_parents_descriptors_alone, "vfork", served("in"))
ACT_TEST(a_program_that_becomes_a_daemon_goes_on_with_its_files, "daemon", served("in"))
ACT_TEST(threads_spawn_at_the_same_time, "threads", served("in"))
ACT_TEST(a_program_without_the_library_is_refused, "without-library", served("in"))

SYSTEM_TEST(shells_redirect_for_programs)
{
	char *text;

	prepare();
	PROGRAM("sh", "-c", "cat < in > out; cat in >> out; cat in in > both; (dd bs=4 count=1 status=none; cat) < in > halves");
	PROGRAM("sh", "-c", "exec 7<> in; cat <&7 > seven; cat out <&7 >> seven");
	CHECK_EQ(sync_all(), 0);
	text = read_whole("out");
	CHECK(strcmp(text, TEXT TEXT) == 0);
	text = read_whole("both");
	CHECK(strcmp(text, TEXT TEXT) == 0);
	text = read_whole("halves");
	CHECK(strcmp(text, TEXT) == 0);
	text = read_whole("seven");
	CHECK(strcmp(text, TEXT TEXT TEXT) == 0);
}

static void runs_program(struct peer *p, void *arg)
{
	peer_hear(p);
	ACT("run-busy", arg);
}

/* Copies a program through the cache: nothing of it is in the store, and the handle stays open. */
static struct pgc_file *program_being_written(const char *path)
{
	struct pgc_file *f = open_file(path, O_RDWR | O_CREAT);
	char *bytes = malloc(1 << 20);
	int in = open("/bin/true", O_RDONLY | O_CLOEXEC);
	ssize_t n = read(in, bytes, 1 << 20);

	CHECK(n > 0);
	CHECK_EQ(pgc_pwrite(f, bytes, (size_t)n, 0), n);
	CHECK_EQ(chmod(path, 0755), 0);
	close(in);
	free(bytes);
	return f;
}

/* The program is busy until its writer's handle is closed, and for that there is no daemon for longer than exec waits with one. */
SYSTEM_TEST(a_program_just_written_is_run_by_the_next_daemon, .keep = true)
{
	char *path = served("program");
	struct peer *p;
	struct pgc_file *f;
	pid_t daemon;

	prepare();
	p = peer_start(runs_program, path);
	f = program_being_written(path);
	daemon = daemon_pid();
	peer_tell(p, 0);
	WAIT_UNTIL(file_state(path).dirty == 0 && file_state(path).writeback == 0); /* the write-out before the exec ... */
	usleep(50000);                                                              /* ... which is tried for ten times that */
	stop_process(env.daemon);
	CHECK(kill(daemon, SIGKILL) == 0 || errno == ESRCH);
	CHECK_EQ(pgc_close(f), 0);
	usleep(1500000);
	CHECK_EQ(kill(env.daemon, SIGCONT), 0);
	peer_join(p);
}

SYSTEM_TEST(env_i_does_not_take_the_library_away)
{
	prepare();
	PROGRAM("env", "-i", self, "opens-cached", served("in"));
	PROGRAM("sh", "-c", "unset LD_PRELOAD PAGECACHED_PATHS PAGECACHED_SOCKET; exec \"$0\" opens-cached in", self);
}

#ifdef STATIC_PROGRAM
SYSTEM_TEST(a_static_program_is_refused)
{
	prepare();
	ACT("run-program", STATIC_PROGRAM, served("in"));
}
#endif

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test(a_descriptor_goes_on_after_exec_at_the_shared_offset),
		cmocka_unit_test(programs_append_to_one_log),
		cmocka_unit_test(an_unlinked_file_survives_exec_after_exec),
		cmocka_unit_test(a_lock_taken_by_another_program_stays_with_the_description),
		cmocka_unit_test(duplicates_share_their_offset_after_exec_and_others_do_not),
		cmocka_unit_test(close_on_exec_leaves_nothing_behind),
		cmocka_unit_test(after_an_exec_that_fails_all_is_as_before),
		cmocka_unit_test(spawn_opens_and_duplicates_files_for_the_child),
		cmocka_unit_test(spawn_says_which_file_it_cannot_open),
		cmocka_unit_test(spawn_refuses_descriptors_that_are_the_librarys_own),
		cmocka_unit_test(a_child_whose_other_descriptors_were_closed_finds_the_file_by_path),
		cmocka_unit_test(what_spawn_closes_leaves_nothing_behind),
		cmocka_unit_test(spawn_opens_relative_to_the_childs_folder),
		cmocka_unit_test(a_program_run_with_another_environment_is_under_the_library),
		cmocka_unit_test(the_environment_is_left_alone_when_asked_for),
		cmocka_unit_test(programs_and_scripts_just_written_can_be_run),
		cmocka_unit_test(a_library_just_written_can_be_loaded),
		cmocka_unit_test(system_and_popen_give_descriptors_on),
		cmocka_unit_test(a_child_of_vfork_leaves_its_parents_descriptors_alone),
		cmocka_unit_test(a_program_that_becomes_a_daemon_goes_on_with_its_files),
		cmocka_unit_test(threads_spawn_at_the_same_time),
		cmocka_unit_test(a_program_without_the_library_is_refused),
		cmocka_unit_test(shells_redirect_for_programs),
		cmocka_unit_test(a_program_just_written_is_run_by_the_next_daemon),
		cmocka_unit_test(env_i_does_not_take_the_library_away),
#ifdef STATIC_PROGRAM
		cmocka_unit_test(a_static_program_is_refused),
#endif
	};

	return system_tests_main("preload_exec", all, sizeof(all) / sizeof(all[0]));
}

int main(int argc, char **argv)
{
	CHECK(realpath("/proc/self/exe", self));
	for (size_t i = 0; argc > 1 && i < sizeof(acts) / sizeof(acts[0]); i++)
		if (strcmp(acts[i].name, argv[1]) == 0) {
			acts[i].fn(argv + 2);
			return 0;
		}
	return argc > 1 ? 2 : tests();
}
