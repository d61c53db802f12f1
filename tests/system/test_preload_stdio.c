/* SPDX-License-Identifier: Apache-2.0 */
/* Programs that were not rebuilt: the C library's streams, what is written through standard output, asynchronous calls, system calls by number. */
#include "preload_acts.h"

#include <aio.h>
#include <locale.h>
#include <pthread.h>
#include <stdio_ext.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <wchar.h>

/* That is so, and this is errno. */
#define FAILS_SO(so, error) \
	do { \
		errno = 0; \
		CHECK((so)); \
		CHECK_EQ(errno, error); \
	} while (0)

/* What the kernel knows of a descriptor: the placeholder's name. */
static bool is_cached(int fd)
{
	char link[64], target[512] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	syscall(SYS_readlink, link, target, sizeof(target) - 1);
	return strstr(target, "memfd:pagecached-file");
}

/* The path of a file beside the folder that is served. */
static char *outside(const char *name)
{
	char here[PATH_MAX], *path;

	CHECK(getcwd(here, sizeof(here)));
	*strrchr(here, '/') = '\0';
	CHECK(asprintf(&path, "%s/%s", here, name) > 0);
	return path;
}

static FILE *stream(const char *path, const char *mode)
{
	FILE *f = fopen(path, mode);

	if (!f)
		FAIL("fopen %s %s: %s", path, mode, strerror(errno));
	CHECK(is_cached(fileno(f)));
	return f;
}

static void put_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
	CHECK_EQ(close(fd), 0);
}

static void holds(const char *path, const char *text)
{
	char buf[65536];
	int fd = open(path, O_RDONLY);
	ssize_t n;

	CHECK(fd >= 0);
	n = read(fd, buf, sizeof(buf) - 1);
	CHECK(n >= 0);
	buf[n] = '\0';
	if (strcmp(buf, text) != 0)
		FAIL("%s holds \"%s\", not \"%s\"", path, buf, text);
	CHECK_EQ(close(fd), 0);
}

/* In a child, so that its standard streams are its own. */
static void in_child(void (*fn)(void))
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		fn();
		exit(0);
	}
	expect_exit_0(pid);
}

/* --- streams on paths --- */

ACT_TEST(modes_of_fopen_do_what_they_say)
{
	FILE *f;

	FAILS_SO(!fopen("f", "r"), ENOENT);
	FAILS_SO(!fopen("f", "r+"), ENOENT);
	FAILS_SO(!fopen("f", "q"), EINVAL);
	f = stream("f", "wx");
	CHECK(fputs("first", f) >= 0);
	CHECK_EQ(fclose(f), 0);
	holds("f", "first");
	FAILS_SO(!fopen("f", "wx"), EEXIST);
	f = stream("f", "a+e");
	CHECK(fcntl(fileno(f), F_GETFD) & FD_CLOEXEC);
	CHECK(fcntl(fileno(f), F_GETFL) & O_APPEND);
	CHECK_EQ(fgetc(f), 'f');
	CHECK_EQ(fseek(f, 0, SEEK_SET), 0);
	CHECK(fputs(" second", f) >= 0);
	CHECK_EQ(fclose(f), 0);
	holds("f", "first second");
	f = stream("f", "r+b");
	CHECK(fputs("FIRST", f) >= 0);
	CHECK_EQ(fclose(f), 0);
	holds("f", "FIRST second");
	f = stream("f", "w+");
	CHECK_EQ(fgetc(f), EOF);
	CHECK(feof(f) && !ferror(f));
	CHECK_EQ(fclose(f), 0);
	holds("f", "");
	f = stream("f", "r");
	CHECK_EQ(fputc('x', f), EOF);
	CHECK(ferror(f));
	CHECK_EQ(fclose(f), 0);
	f = stream("f", "w");
	CHECK_EQ(fgetc(f), EOF);
	CHECK(ferror(f));
	CHECK_EQ(fclose(f), 0);
}

ACT_TEST(a_stream_has_its_position_in_common_with_the_descriptor)
{
	FILE *f;
	char c[4] = "";

	put_file("f", "0123456789");
	f = stream("f", "r+");
	setvbuf(f, NULL, _IONBF, 0);
	CHECK_EQ(fgetc(f), '0');
	CHECK_EQ(read(fileno(f), c, 2), 2);
	CHECK_EQ(strcmp(c, "12"), 0);
	CHECK_EQ(ftell(f), 3);
	CHECK_EQ(fgetc(f), '3');
	CHECK_EQ(lseek(fileno(f), 8, SEEK_SET), 8);
	CHECK_EQ(fgetc(f), '8');
	CHECK_EQ(fseek(f, 4, SEEK_SET), 0);
	CHECK_EQ(fputs("x", f) >= 0, 1);
	CHECK_EQ(write(fileno(f), "y", 1), 1);
	CHECK_EQ(fclose(f), 0);
	holds("f", "0123xy6789");
}

ACT_TEST(what_was_read_ahead_is_given_back_at_fclose_of_a_duplicate)
{
	FILE *f;
	int fd;

	put_file("f", "0123456789");
	f = stream("f", "r");
	fd = dup(fileno(f));
	CHECK_EQ(fgetc(f), '0');
	CHECK_EQ(fclose(f), 0);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 1);
}

static void read_one_byte(void)
{
	CHECK_EQ(getchar(), '0');
}

ACT_TEST(what_was_read_ahead_is_given_back_at_exit)
{
	int fd, in = dup(0);

	put_file("f", "0123456789");
	fd = open("f", O_RDONLY);
	CHECK_EQ(dup2(fd, 0), 0);
	in_child(read_one_byte);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 1);
	CHECK_EQ(dup2(in, 0), 0);
}

ACT_TEST(fflush_of_all_streams_flushes_them)
{
	FILE *f = stream("f", "w"), *g = freopen("g", "w", fopen(outside("plain"), "w"));

	CHECK(fputs("f", f) >= 0 && fputs("g", g) >= 0);
	CHECK_EQ(fflush(NULL), 0);
	holds("f", "f");
	holds("g", "g");
	CHECK_EQ(fclose(g), 0);
	CHECK(fputs("f", f) >= 0);
	CHECK_EQ(fflush(NULL), 0);
	holds("f", "ff");
}

/* The same calls on a file of ours and one of the kernel's must have the same results. */
ACT_TEST(a_stream_behaves_as_one_of_the_c_library)
{
	FILE *f[2] = { stream("f", "w+"), fopen(outside("plain"), "w+") };
	static char a[2][200000];
	unsigned seed = 7;

	CHECK(f[1] && !is_cached(fileno(f[1])));
	for (int step = 0; step < 6000; step++) {
		unsigned what = (unsigned)rand_r(&seed) % 12, n = (unsigned)rand_r(&seed), at = (unsigned)rand_r(&seed) % 300000;
		long r[2] = { 0, 0 };

		n = n % 8 ? n % 300 : n % 100000;
		for (int i = 0; i < 2; i++) {
			switch (what) {
			case 0:
				r[i] = fseek(f[i], at, SEEK_SET);
				break;
			case 1:
				r[i] = fseek(f[i], -(long)(at % 1000), SEEK_END);
				break;
			case 2:
			case 3:
				/* Between reading and writing there is a seek. */
				fseek(f[i], 0, SEEK_CUR);
				memset(a[i], (int)(step & 0x7f) | 1, n);
				r[i] = (long)fwrite(a[i], 1, n, f[i]);
				r[i] += fseek(f[i], 0, SEEK_CUR);
				break;
			case 4:
			case 5:
				r[i] = (long)fread(a[i], 1, n, f[i]);
				break;
			case 6:
				r[i] = fgetc(f[i]);
				if (r[i] != EOF)
					r[i] = ungetc('u', f[i]) * 1000 + fgetc(f[i]);
				break;
			case 7:
				r[i] = ftell(f[i]);
				break;
			case 8:
				r[i] = fgets(a[i], 100, f[i]) != NULL;
				break;
			case 9:
				fseek(f[i], 0, SEEK_CUR);
				r[i] = fprintf(f[i], "%u line %d\n", at, step) + fflush(f[i]);
				fseek(f[i], 0, SEEK_CUR);
				break;
			case 10:
				r[i] = feof(f[i]) * 2 + ferror(f[i]);
				clearerr(f[i]);
				break;
			case 11:
				rewind(f[i]);
				break;
			}
		}
		if (r[0] != r[1] || memcmp(a[0], a[1], sizeof(a[0])) != 0)
			FAIL("step %d (%u): %ld, not %ld", step, what, r[0], r[1]);
		CHECK_EQ(ftell(f[0]), ftell(f[1]));
	}
	for (;;) {
		size_t n = fread(a[0], 1, sizeof(a[0]), f[0]);

		CHECK_EQ(fread(a[1], 1, sizeof(a[1]), f[1]), n);
		CHECK_EQ(memcmp(a[0], a[1], n), 0);
		if (n == 0)
			break;
	}
	CHECK_EQ(fclose(f[0]) + fclose(f[1]), 0);
}

ACT_TEST(fdopen_agrees_with_the_access_mode)
{
	int r = open("f", O_RDONLY | O_CREAT, 0644), w = open("f", O_WRONLY);
	FILE *f;

	FAILS_SO(!fdopen(r, "w"), EINVAL);
	FAILS_SO(!fdopen(r, "r+"), EINVAL);
	FAILS_SO(!fdopen(w, "r"), EINVAL);
	FAILS_SO(!fdopen(w, "z"), EINVAL);
	f = fdopen(w, "a");
	CHECK(f);
	CHECK_EQ(fileno(f), w);
	CHECK(fcntl(w, F_GETFL) & O_APPEND);
	put_file("f", "longer");
	CHECK(fputs("+", f) >= 0);
	CHECK_EQ(fclose(f), 0);
	FAILS_SO(fcntl(w, F_GETFD) < 0, EBADF);
	holds("f", "longer+");
	f = fdopen(r, "r");
	CHECK_EQ(fgetc(f), 'l');
	CHECK_EQ(fclose(f), 0);
}

ACT_TEST(lines_appended_by_two_processes_stay_whole)
{
	FILE *f = stream("f", "a");
	char line[64];
	int n[2] = { 0, 0 };
	pid_t pid = fork();

	CHECK(pid >= 0);
	for (int i = 0; i < 300; i++) {
		CHECK(fprintf(f, "process %d line %d\n", pid == 0, i) > 0);
		CHECK_EQ(fflush(f), 0);
	}
	if (pid == 0)
		_exit(0);
	expect_exit_0(pid);
	CHECK_EQ(fclose(f), 0);
	f = stream("f", "r");
	while (fgets(line, sizeof(line), f)) {
		int who, i;

		CHECK_EQ(sscanf(line, "process %d line %d\n", &who, &i), 2);
		CHECK_EQ(i, n[who]++);
	}
	CHECK_EQ(n[0], 300);
	CHECK_EQ(n[1], 300);
}

static void leave_unflushed(void)
{
	CHECK(fputs("exit flushes", stream("f", "w")) >= 0);
}

static void leave_at_once(void)
{
	CHECK(fputs("nothing", stream("g", "w")) >= 0);
	_exit(0);
}

ACT_TEST(exit_flushes_and__exit_does_not)
{
	in_child(leave_unflushed);
	in_child(leave_at_once);
	holds("f", "exit flushes");
	holds("g", "");
}

ACT_TEST(a_write_that_fails_is_the_streams_error)
{
	struct rlimit limit = { 1000, RLIM_INFINITY };
	char text[2000] = "";
	FILE *f = stream("f", "w");

	signal(SIGXFSZ, SIG_IGN);
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	CHECK_EQ(fwrite(text, 1, sizeof(text), f), sizeof(text));
	FAILS_SO(fflush(f) == EOF, EFBIG);
	CHECK(ferror(f));
	fclose(f);
}

static void *print_lines(void *f)
{
	for (int i = 0; i < 2000; i++)
		CHECK_EQ(fprintf(f, "a line\n"), 7);
	return NULL;
}

ACT_TEST(threads_share_a_stream)
{
	FILE *f = stream("f", "w");
	pthread_t t[4];
	char line[16];
	int n = 0;

	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, print_lines, f), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	CHECK_EQ(fclose(f), 0);
	f = stream("f", "r");
	for (; fgets(line, sizeof(line), f); n++)
		CHECK_EQ(strcmp(line, "a line\n"), 0);
	CHECK_EQ(n, 8000);
}

ACT_TEST(dprintf_writes_at_the_position)
{
	int fd = open("f", O_WRONLY | O_CREAT, 0644);

	CHECK_EQ(dprintf(fd, "%s %d", "number", 12), 9);
	CHECK_EQ(dprintf(fd, "%s", "!"), 1);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 10);
	holds("f", "number 12!");
	CHECK_EQ(close(fd), 0);
}

ACT_TEST(a_stream_has_wide_characters)
{
	FILE *f;
	wchar_t line[40];

	CHECK(setlocale(LC_ALL, "C.UTF-8"));
	f = stream("f", "w");
	CHECK_EQ(fwide(f, 0), 0);
	CHECK_EQ(fwprintf(f, L"%ls=%d\n", L"h\u00f6he", 42), 8);
	CHECK_EQ(fputwc(L'\u20ac', f), L'\u20ac');
	CHECK(fputws(L"uro", f) >= 0);
	CHECK(fwide(f, 0) > 0);
	CHECK_EQ(fclose(f), 0);
	holds("f", "h\u00f6he=42\n\u20acuro");
	f = stream("f", "r");
	CHECK(fgetws(line, 40, f));
	CHECK_EQ(wcscmp(line, L"h\u00f6he=42\n"), 0);
	CHECK_EQ(fgetwc(f), L'\u20ac');
	CHECK_EQ(ungetwc(L'\u20ac', f), L'\u20ac');
	CHECK_EQ(fgetwc(f), L'\u20ac');
	CHECK_EQ(fgetwc(f), L'u');
	CHECK_EQ(fclose(f), 0);
	put_file("f", "\xff");
	f = stream("f", "r");
	FAILS_SO(fgetwc(f) == WEOF, EILSEQ);
	CHECK(ferror(f));
}

ACT_TEST(files_with_made_up_names_are_served_and_renamed_into_place)
{
	char a[] = "aXXXXXX", b[] = "bXXXXXX.txt", *plain = outside("pXXXXXX");
	int fd = mkstemp(a), other = mkostemps(b, 4, O_APPEND | O_CLOEXEC), third = mkstemp(plain);
	struct stat st;

	CHECK(is_cached(fd) && is_cached(other) && third >= 0 && !is_cached(third));
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_mode & 0777, 0600);
	CHECK(!(fcntl(fd, F_GETFD) & FD_CLOEXEC) && !(fcntl(third, F_GETFD) & FD_CLOEXEC));
	CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
	CHECK((fcntl(other, F_GETFD) & FD_CLOEXEC) && (fcntl(other, F_GETFL) & O_APPEND));
	CHECK_EQ(write(fd, "new", 3), 3);
	put_file("f", "old");
	CHECK_EQ(rename(a, "f"), 0);
	holds("f", "new");
	CHECK_EQ(close(fd), 0);
	holds("f", "new");
}

ACT_TEST(files_without_a_name_and_pipes_are_the_c_librarys)
{
	char line[16];
	FILE *f = tmpfile();

	CHECK(f && !is_cached(fileno(f)));
	CHECK(fputs("x", f) >= 0);
	CHECK_EQ(fclose(f), 0);
	f = popen("echo piped", "r");
	CHECK(f && fgets(line, sizeof(line), f));
	CHECK_EQ(strcmp(line, "piped\n"), 0);
	CHECK_EQ(pclose(f), 0);
}

/* --- streams that become others --- */

static void reopen_stdout(void)
{
	FILE *old = stdout;

	CHECK(freopen("f", "w", stdout) == stdout);
	CHECK(is_cached(1));
	CHECK_EQ(fileno(stdout), 1);
	printf("printf %d\n", 1);
	puts("puts");
	putchar('c');
	putc_unlocked('u', stdout);
	fputs("\nold pointer\n", old);
	putc_unlocked('o', old);
	CHECK_EQ(fflush(old), 0);
	CHECK(freopen("g", "a", stdout) == stdout);
	CHECK_EQ(fileno(stdout), 1);
	printf("next");
	CHECK(freopen("/dev/null", "w", stdout) == stdout);
	printf("lost");
	CHECK(!is_cached(1));
	CHECK(freopen("h", "w", stdout) == stdout);
	printf("last");
}

ACT_TEST(freopen_of_stdout_goes_to_the_file)
{
	in_child(reopen_stdout);
	holds("f", "printf 1\nputs\ncu\nold pointer\no");
	holds("g", "next");
	holds("h", "last");
}

static void reopen_stdin(void)
{
	char *line = NULL;
	size_t n = 0;
	int number;

	CHECK(freopen("f", "r", stdin) == stdin);
	CHECK_EQ(scanf("%d", &number), 1);
	CHECK_EQ(number, 42);
	CHECK_EQ(getchar(), '\n');
	CHECK_EQ(getline(&line, &n, stdin), 6);
	CHECK_EQ(strcmp(line, "a line"), 0);
	CHECK_EQ(getchar(), EOF);
	free(line);
}

ACT_TEST(freopen_of_stdin_reads_the_file)
{
	put_file("f", "42\na line");
	in_child(reopen_stdin);
}

ACT_TEST(freopen_of_another_stream_keeps_the_pointer)
{
	FILE *f = fopen(outside("plain"), "w"), *kept = f;
	int fd = fileno(f);

	CHECK(fputs("outside", f) >= 0);
	f = freopen("f", "w", f);
	CHECK(f == kept);
	CHECK_EQ(fileno(f), fd);
	CHECK(is_cached(fd));
	CHECK_EQ(fprintf(f, "in%s", "side"), 6);
	CHECK_EQ(ftell(f), 6);
	f = freopen(outside("plain2"), "w", f);
	CHECK(f == kept);
	CHECK(!is_cached(fileno(f)));
	CHECK(fputs("outside again", f) >= 0);
	CHECK_EQ(fclose(f), 0);
	holds(outside("plain"), "outside");
	holds("f", "inside");
	holds(outside("plain2"), "outside again");
	FAILS_SO(fcntl(fd, F_GETFD) < 0, EBADF);
	FAILS_SO(!freopen("missing", "r", fopen("f", "r")), ENOENT);
}

static void print_around_dup2(void)
{
	int out = dup(1), fd = open("f", O_WRONLY | O_CREAT, 0644);
	FILE *f = fopen(outside("plain"), "w");

	/* Standard output is a file of the kernel's at first. */
	CHECK_EQ(dup2(fileno(f), 1), 1);
	setvbuf(stdout, NULL, _IOFBF, 4096);
	printf("waiting ");
	CHECK_EQ(dup2(fd, 1), 1);
	printf("then here\n");
	CHECK_EQ(fflush(stdout), 0);
	CHECK_EQ(dup2(fileno(f), 1), 1);
	printf("back\n");
	CHECK_EQ(fflush(stdout), 0);
	CHECK_EQ(dup2(out, 1), 1);
}

ACT_TEST(printf_goes_where_dup2_put_standard_output)
{
	in_child(print_around_dup2);
	holds("f", "waiting then here\n");
	holds(outside("plain"), "back\n");
}

static void print_after_close(void)
{
	CHECK_EQ(close(1), 0);
	CHECK_EQ(open("f", O_WRONLY | O_CREAT, 0644), 1);
	printf("one");
	fflush(stdout);
	CHECK_EQ(close(2), 0);
	CHECK_EQ(dup(1), 2);
	fprintf(stderr, "two");
	/* Unbuffered, so it is there before the other. */
	errno = ENOENT;
	perror("three");
	printf("four");
}

ACT_TEST(printf_goes_to_the_file_that_was_opened_as_descriptor_1)
{
	in_child(print_after_close);
	holds("f", "onetwothree: No such file or directory\nfour");
}

static void read_around_dup2(void)
{
	int a = open(outside("plain"), O_RDONLY), b = open("f", O_RDONLY);

	CHECK_EQ(dup2(a, 0), 0);
	CHECK_EQ(getchar(), 'a');
	CHECK_EQ(dup2(b, 0), 0);
	/* What is in the buffer comes first, as always. */
	CHECK_EQ(getchar(), 'b');
	CHECK_EQ(getchar(), 'c');
	CHECK_EQ(getchar(), '1');
	CHECK_EQ(getchar(), '2');
	CHECK_EQ(getchar(), EOF);
}

ACT_TEST(getchar_reads_what_dup2_put_at_standard_input)
{
	put_file(outside("plain"), "abc");
	put_file("f", "12");
	in_child(read_around_dup2);
}

static void close_stdout(void)
{
	CHECK(freopen("f", "w", stdout));
	printf("text");
	CHECK_EQ(fclose(stdout), 0);
	/* What exit handlers do. */
	CHECK_EQ(fflush(stdout), 0);
	CHECK(!ferror(stdout));
}

ACT_TEST(fclose_of_stdout_leaves_a_stream_that_may_be_looked_at)
{
	in_child(close_stdout);
	holds("f", "text");
}

/* --- programs --- */

static void script(const char *shell, const char *flag, const char *text, const char *out)
{
	struct output o = RUN(shell, flag, text);

	if (o.code != 0 || *o.err)
		FAIL("%s: exit code %d, %s", shell, o.code, o.err);
	if (strcmp(o.out, out) != 0)
		FAIL("%s says \"%s\", not \"%s\"", shell, o.out, out);
	output_free(&o);
}

#define SHELL_SCRIPT "echo one > f; echo two >> f; printf '%s\\n' three >> f; while read l; do echo \"got $l\"; done < f; echo out; { echo a; cat f; echo b; } > g; exec 3>&1 > h; " \
	"echo to h; echo to out >&3; exec >&3; cat h; echo end"
#define SHELL_OUT "got one\ngot two\ngot three\nout\nto out\nto h\nend\n"

ACT_TEST(bash_redirects_its_own_commands)
{
	script("/bin/bash", "-c", SHELL_SCRIPT, SHELL_OUT);
	holds("g", "a\none\ntwo\nthree\nb\n");
}

ACT_TEST(sh_redirects_its_own_commands)
{
	script("/bin/sh", "-c", SHELL_SCRIPT, SHELL_OUT);
	holds("g", "a\none\ntwo\nthree\nb\n");
}

ACT_TEST(perl_redirects_its_standard_output)
{
	script("/usr/bin/perl", "-e",
		"open(F, '>f') or die; print F \"line\\n\"; close F; open(my $o, '>&', STDOUT); open(STDOUT, '>', 'g') or die; $| = 1; print \"to g\\n\"; "
		"system('echo child'); open(STDOUT, '>&', $o); open(F, '<f'); print <F>;", "line\n");
	holds("g", "to g\nchild\n");
}

ACT_TEST(sed_edits_in_place)
{
	put_file("f", "a word\n");
	script("/bin/sh", "-c", "sed -i s/word/phrase/ f && cat f", "a phrase\n");
	holds("f", "a phrase\n");
}

static void program_stdout(const char *program)
{
	struct output o = RUN(program, "f", "g");

	if (o.code != 0)
		FAIL("%s: exit code %d, %s", program, o.code, o.err);
	holds("f", "waiting printf 1\nputs\nc\nold pointer\n");
	holds("g", "freopen\n");
	output_free(&o);
}

ACT_TEST(a_program_at_a_fixed_address_has_its_stdout_replaced)
{
	program_stdout(STDOUT_NO_PIE_PROGRAM);
}

ACT_TEST(a_position_independent_program_has_its_stdout_replaced)
{
	program_stdout(STDOUT_PROGRAM);
}

#ifdef IOSTREAM_PROGRAM
ACT_TEST(cout_of_a_cpp_program_goes_where_dup2_put_standard_output)
{
	program_stdout(IOSTREAM_PROGRAM);
}

static void iostream_at_start(void)
{
	CHECK_EQ(dup2(open("h", O_WRONLY | O_CREAT, 0644), 1), 1);
	execl(IOSTREAM_PROGRAM, IOSTREAM_PROGRAM, "hello", (char *)NULL);
	FAIL("execl");
}

ACT_TEST(cout_of_a_cpp_program_that_is_started_with_a_file)
{
	in_child(iostream_at_start);
	holds("h", "hello\n");
}
#endif

/* --- asynchronous calls --- */

static volatile sig_atomic_t signal_value;
static volatile int signal_code;
static int thread_value;

static void on_signal(int n, siginfo_t *info, void *context)
{
	signal_code = info->si_code;
	signal_value = info->si_value.sival_int;
}

static void on_thread(union sigval v)
{
	__atomic_store_n(&thread_value, v.sival_int, __ATOMIC_RELEASE);
}

static void finish(struct aiocb *cb, ssize_t result)
{
	const struct aiocb *list[] = { cb };

	while (aio_error(cb) == EINPROGRESS)
		CHECK_EQ(aio_suspend(list, 1, NULL), 0);
	CHECK_EQ(aio_error(cb), 0);
	CHECK_EQ(aio_return(cb), result);
}

ACT_TEST(aio_reads_writes_and_syncs)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644), w = open("f", O_WRONLY);
	char buf[16] = "";
	struct aiocb cb = { .aio_fildes = fd, .aio_buf = (char *)"0123456789", .aio_nbytes = 10, .aio_offset = 2, .aio_sigevent.sigev_notify = SIGEV_NONE };

	CHECK_EQ(aio_write(&cb), 0);
	finish(&cb, 10);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
	CHECK_EQ(aio_fsync(O_SYNC, &cb), 0);
	finish(&cb, 0);
	CHECK_EQ(aio_fsync(O_DSYNC, &cb), 0);
	finish(&cb, 0);
	FAILS_SO(aio_fsync(12345, &cb) == -1, EINVAL);
	cb.aio_buf = buf;
	cb.aio_nbytes = sizeof(buf);
	cb.aio_offset = 9;
	CHECK_EQ(aio_read(&cb), 0);
	CHECK_EQ(aio_cancel(fd, &cb), AIO_ALLDONE);
	finish(&cb, 3);
	CHECK_EQ(strcmp(buf, "789"), 0);
	cb.aio_fildes = w;
	CHECK_EQ(aio_read(&cb), 0);
	CHECK_EQ(aio_error(&cb), EBADF);
	CHECK_EQ(aio_return(&cb), -1);
}

ACT_TEST(aio_appends)
{
	int fd = open("f", O_WRONLY | O_CREAT | O_APPEND, 0644);
	struct aiocb cb = { .aio_fildes = fd, .aio_buf = (char *)"ab", .aio_nbytes = 2, .aio_sigevent.sigev_notify = SIGEV_NONE };

	CHECK_EQ(aio_write(&cb), 0);
	finish(&cb, 2);
	CHECK_EQ(aio_write(&cb), 0);
	finish(&cb, 2);
	holds("f", "abab");
}

ACT_TEST(aio_tells_by_a_signal)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644);
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	struct aiocb cb = { .aio_fildes = fd, .aio_buf = (char *)"x", .aio_nbytes = 1,
		.aio_sigevent = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1, .sigev_value.sival_int = 77 } };

	CHECK_EQ(sigaction(SIGRTMIN + 1, &action, NULL), 0);
	CHECK_EQ(aio_write(&cb), 0);
	WAIT_UNTIL(signal_value == 77);
	CHECK_EQ(signal_code, SI_ASYNCIO);
	finish(&cb, 1);
}

ACT_TEST(aio_tells_by_a_thread)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644);
	struct aiocb cb = { .aio_fildes = fd, .aio_buf = (char *)"x", .aio_nbytes = 1,
		.aio_sigevent = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_thread, .sigev_value.sival_int = 78 } };

	CHECK_EQ(aio_write(&cb), 0);
	WAIT_UNTIL(__atomic_load_n(&thread_value, __ATOMIC_ACQUIRE) == 78);
	finish(&cb, 1);
}

ACT_TEST(a_list_of_aio_may_have_files_of_both_kinds)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644), plain = open(outside("plain"), O_RDWR | O_CREAT, 0644), w = open("f", O_WRONLY);
	char buf[4] = "";
	struct aiocb a = { .aio_fildes = fd, .aio_buf = (char *)"ours", .aio_nbytes = 4, .aio_lio_opcode = LIO_WRITE, .aio_sigevent.sigev_notify = SIGEV_NONE };
	struct aiocb b = { .aio_fildes = plain, .aio_buf = (char *)"plain", .aio_nbytes = 5, .aio_lio_opcode = LIO_WRITE, .aio_sigevent.sigev_notify = SIGEV_NONE };
	struct aiocb c = { .aio_fildes = w, .aio_buf = buf, .aio_nbytes = 4, .aio_lio_opcode = LIO_READ, .aio_sigevent.sigev_notify = SIGEV_NONE };
	struct aiocb nop = { .aio_fildes = fd, .aio_lio_opcode = LIO_NOP };
	struct aiocb *list[] = { &a, NULL, &nop, &b }, *bad[] = { &c, &a };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_thread, .sigev_value.sival_int = 79 };

	CHECK_EQ(lio_listio(LIO_WAIT, list, 4, NULL), 0);
	finish(&a, 4);
	finish(&b, 5);
	holds("f", "ours");
	holds(outside("plain"), "plain");
	FAILS_SO(lio_listio(LIO_WAIT, bad, 2, NULL) == -1, EIO);
	CHECK_EQ(aio_error(&c), EBADF);
	finish(&a, 4);
	CHECK_EQ(lio_listio(LIO_NOWAIT, list, 1, &event), 0);
	WAIT_UNTIL(__atomic_load_n(&thread_value, __ATOMIC_ACQUIRE) == 79);
}

ACT_TEST(the_kernels_asynchronous_interfaces_do_not_exist)
{
	char params[512] = "";
	void *context = NULL;

	FAILS_SO(syscall(SYS_io_uring_setup, 4, params) == -1, ENOSYS);
	FAILS_SO(syscall(SYS_io_setup, 4, &context) == -1, ENOSYS);
}

ACT_TEST(system_calls_by_number_serve_files)
{
	int fd = (int)syscall(SYS_openat, AT_FDCWD, "f", O_RDWR | O_CREAT, 0640);
	struct iovec iov = { (char *)"vec", 3 };
	struct stat st;
	char buf[8] = "", *p;

	CHECK(is_cached(fd));
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_mode & 0777, 0640);
	CHECK_EQ(syscall(SYS_write, fd, "abcd", 4), 4);
	CHECK_EQ(syscall(SYS_pwritev, fd, &iov, 1, 4l, 0l), 3);
	CHECK_EQ(syscall(SYS_lseek, fd, 1, SEEK_SET), 1);
	CHECK_EQ(syscall(SYS_read, fd, buf, 3), 3);
	CHECK_EQ(strcmp(buf, "bcd"), 0);
	CHECK_EQ(syscall(SYS_pread64, fd, buf, 7, 0), 7);
	CHECK_EQ(strcmp(buf, "abcdvec"), 0);
	p = (char *)syscall(SYS_mmap, NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0l);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(p[6], 'c');
	CHECK_EQ(syscall(SYS_munmap, p, PAGE), 0);
	CHECK_EQ(syscall(SYS_ftruncate, fd, 2l), 0);
	CHECK_EQ(syscall(SYS_close, fd), 0);
	FAILS_SO(syscall(SYS_read, fd, buf, 1) == -1, EBADF);
	CHECK_EQ(syscall(SYS_getpid), getpid());
	holds("f", "ab");
}

ACTS_MAIN("preload_stdio",
	ACT(modes_of_fopen_do_what_they_say),
	ACT(a_stream_has_its_position_in_common_with_the_descriptor),
	ACT(what_was_read_ahead_is_given_back_at_fclose_of_a_duplicate),
	ACT(what_was_read_ahead_is_given_back_at_exit),
	ACT(fflush_of_all_streams_flushes_them),
	ACT(a_stream_behaves_as_one_of_the_c_library),
	ACT(fdopen_agrees_with_the_access_mode),
	ACT(lines_appended_by_two_processes_stay_whole),
	ACT(exit_flushes_and__exit_does_not),
	ACT(a_write_that_fails_is_the_streams_error),
	ACT(threads_share_a_stream),
	ACT(dprintf_writes_at_the_position),
	ACT(a_stream_has_wide_characters),
	ACT(files_with_made_up_names_are_served_and_renamed_into_place),
	ACT(files_without_a_name_and_pipes_are_the_c_librarys),
	ACT(freopen_of_stdout_goes_to_the_file),
	ACT(freopen_of_stdin_reads_the_file),
	ACT(freopen_of_another_stream_keeps_the_pointer),
	ACT(printf_goes_where_dup2_put_standard_output),
	ACT(printf_goes_to_the_file_that_was_opened_as_descriptor_1),
	ACT(getchar_reads_what_dup2_put_at_standard_input),
	ACT(fclose_of_stdout_leaves_a_stream_that_may_be_looked_at),
	ACT(bash_redirects_its_own_commands),
	ACT(sh_redirects_its_own_commands),
	ACT(perl_redirects_its_standard_output),
	ACT(sed_edits_in_place),
	ACT(a_program_at_a_fixed_address_has_its_stdout_replaced),
	ACT(a_position_independent_program_has_its_stdout_replaced),
#ifdef IOSTREAM_PROGRAM
	ACT(cout_of_a_cpp_program_goes_where_dup2_put_standard_output),
	ACT(cout_of_a_cpp_program_that_is_started_with_a_file),
#endif
	ACT(aio_reads_writes_and_syncs),
	ACT(aio_appends),
	ACT(aio_tells_by_a_signal),
	ACT(aio_tells_by_a_thread),
	ACT(a_list_of_aio_may_have_files_of_both_kinds),
	ACT(the_kernels_asynchronous_interfaces_do_not_exist),
	ACT(system_calls_by_number_serve_files))
