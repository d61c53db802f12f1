/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that run other programs.
 *
 * A placeholder without FD_CLOEXEC survives exec. So that the next program can go on with the file, even one that has no name any more, and with its locks, the descriptor of the real
 * file survives beside it, at the number that the placeholder names. At its start the library looks for placeholders and takes them over
 * again. Where the real one is missing (code that we do not see closed it or ran the program), the file is opened by its path, if
 * that still leads there. A real one whose placeholder was closed cannot be told from a descriptor of the program's own, and stays.
 *
 * The kernel reads a program from the store by itself, as the loader does with libraries: what the cache has of it is written first. Libraries that
 * a program needs from its start are not looked for.
 *
 * The library's variables are put back into an environment that lacks them (env -i, a list of the program's own): a child without them would open the same files
 * beside the cache. PAGECACHED_INHERIT=0, in this process's environment or in the one that is handed over, leaves it as it is. Where a
 * variable is there, it is the program's will, even if it is empty.
 *
 * Functions here also run in the child of a fork of a program with threads: no malloc() after the start.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include "ctl.h"
#include "exec.h"

#define INTERPRETERS_MAX 4     /* one script that is another's interpreter, and so on */
#define BUSY_TRIES 500         /* of a millisecond, with one daemon */
#define BUSY_LOOK  100         /* tries until it is asked whether it is still there */

extern char **environ;

/* Set at the start, constant then. A copy, as programs write over their environment's memory to show a title. */
static struct variable { const char *name; size_t len; char *text; } variables[] = {
	{ "PAGECACHED_PATHS", 16, NULL }, { "PAGECACHED_SOCKET", 17, NULL }, { "PAGECACHED_DEBUG", 16, NULL },
};
#define N_VARIABLES (sizeof(variables) / sizeof(variables[0]))
static char *own_path;         /* of this library; NULL: nothing is handed on */

/* --- write-out before the kernel reads --- */

/* The interpreter that a script's first line names, into `ret`. */
static bool script_interpreter(int dirfd, const char *path, char ret[256])
{
	char line[256] = "", *p, *end;
	int fd = REAL(openat)(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	ssize_t n;

	if (fd < 0)
		return false;
	n = REAL(pread)(fd, line, sizeof(line) - 1, 0);
	real_file_close(fd);
	if (n < 3 || line[0] != '#' || line[1] != '!')
		return false;
	line[strcspn(line, "\n")] = '\0';
	p = line + 2 + strspn(line + 2, " \t");
	end = p + strcspn(p, " \t");
	*end = '\0';
	strcpy(ret, p);
	return *p != '\0';
}

static void write_out_at(int dirfd, const char *path, int depth)
{
	char abs[4096], interpreter[256];
	struct stat st;
	int fd, r, saved = errno;

	if (!path_maybe(path) || !*path)
		return;
	if (path_is_ours(dirfd, path, abs, &fd)) {
		ENTER;
		r = fd >= 0 || REAL(fstatat)(dirfd, path, &st, 0) < 0 || !S_ISREG(st.st_mode) ? 0 : ctl_sync(st.st_dev, st.st_ino);
		if (r < 0)
			shim_debug("pagecached: %s: not written out before it is run: %s", abs, strerror(-r));
	}
	/* A script elsewhere may have its interpreter here. */
	if (depth < INTERPRETERS_MAX && script_interpreter(dirfd, path, interpreter))
		write_out_at(AT_FDCWD, interpreter, depth + 1);
	errno = saved;
}

void exec_write_out(const char *path)
{
	write_out_at(AT_FDCWD, path, INTERPRETERS_MAX);
}

/*
 * Calls `fn` for each place where execvp(3) may look, until it says true. The first that can be run is what is run.
 */
static bool search_path(const char *name, bool (*fn)(const char *path))
{
	const char *list = getenv("PATH"), *end;
	char path[PATH_MAX];

	if (strchr(name, '/'))
		return fn(name);
	if (!list)
		list = "/bin:/usr/bin";
	for (;; list = end + 1) {
		size_t len = (size_t)((end = strchrnul(list, ':')) - list), n = strlen(name);

		if (len + n + 2 <= sizeof(path)) {
			memcpy(path, list, len);
			path[len] = '/';
			memcpy(path + len + (len > 0), name, n + 1);
			if (REAL(access)(path, X_OK) == 0)
				return fn(path);
		}
		if (!*end)
			return false;
	}
}

static bool write_out_found(const char *path)
{
	write_out_at(AT_FDCWD, path, 0);
	return true;
}

static bool is_ours(const char *path)
{
	char abs[4096];
	int fd;

	return path_maybe(path) && *path && path_is_ours(AT_FDCWD, path, abs, &fd);
}

void image_write_out(const struct image *im)
{
	int saved = errno;

	if (!path_maybe(im->path) || !*im->path)
		return;
	if (im->search)
		search_path(im->path, write_out_found);
	else
		write_out_at(im->dirfd, im->path, 0);
	errno = saved;
}

/* What one that died had open its keeper has, and the next one lets go of it. */
static void wait_for_next_daemon(struct busy *b)
{
	pid_t now = b->daemon;

	if (ctl_daemon(&now) == 0 && now != b->daemon) {
		b->daemon = now;
		b->tries = 0;
	}
}

bool image_busy(const struct image *im, struct busy *b)
{
	char abs[4096];
	int fd;

	if (!path_maybe(im->path) || !*im->path || !(im->search ? search_path(im->path, is_ours) : path_is_ours(im->dirfd, im->path, abs, &fd)))
		return false;
	if (b->tries % BUSY_LOOK == 0)
		wait_for_next_daemon(b);
	if (b->tries++ >= BUSY_TRIES)
		return false;
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	return true;
}

/* --- the environment --- */

static const char *env_value(const char *text, const char *name, size_t len)
{
	return strncmp(text, name, len) == 0 && text[len] == '=' ? text + len + 1 : NULL;
}

static const char *env_find(char *const envp[], const char *name)
{
	const char *v = NULL;

	for (; !v && *envp; envp++)
		v = env_value(*envp, name, strlen(name));
	return v;
}

/* LD_PRELOAD is separated by colons or blanks. */
static bool list_has(const char *list, const char *item)
{
	size_t n = strlen(item);

	for (; list && *list; list += strcspn(list, ": "), list += strspn(list, ": "))
		if (strcspn(list, ": ") == n && memcmp(list, item, n) == 0)
			return true;
	return false;
}

static bool inherit_off(char *const envp[])
{
	const char *v = env_find(envp, "PAGECACHED_INHERIT");

	return v && strcmp(v, "0") == 0;
}

static void env_fill(char **out, char *text, char *const envp[])
{
	const char *preload = env_find(envp, "LD_PRELOAD");

	for (; *envp; envp++)
		if (!env_value(*envp, "LD_PRELOAD", 10))
			*out++ = *envp;
		else if (list_has(preload, own_path))
			*out++ = *envp;
	if (!list_has(preload, own_path)) {
		*out++ = text;
		text = stpcpy(stpcpy(text, "LD_PRELOAD="), own_path);
		if (preload && *preload)
			text = stpcpy(stpcpy(text, ":"), preload);
		text++;
	}
	*out = NULL;
}

struct env_copy env_complete(char *const envp[])
{
	static char *const none[] = { NULL };
	struct env_copy e = { .envp = (char **)(envp ? envp : none) };
	const char *preload;
	char **out;
	size_t n = 0;
	bool whole;

	if (!own_path || shim_depth > 0 || inherit_off(e.envp))
		return e;
	preload = env_find(e.envp, "LD_PRELOAD");
	whole = list_has(preload, own_path);
	for (size_t i = 0; i < N_VARIABLES; i++)
		whole &= !variables[i].text || env_find(e.envp, variables[i].name);
	if (whole)
		return e;
	while (e.envp[n])
		n++;
	n += N_VARIABLES + 2;
	e.size = n * sizeof(char *) + strlen(own_path) + (preload ? strlen(preload) : 0) + sizeof("LD_PRELOAD=:");
	e.map = REAL(mmap)(NULL, e.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (e.map == MAP_FAILED) {
		e.map = NULL;
		return e;
	}
	out = e.map;
	for (size_t i = 0; i < N_VARIABLES; i++)
		if (variables[i].text && !env_find(e.envp, variables[i].name))
			*out++ = variables[i].text;
	env_fill(out, (char *)e.map + n * sizeof(char *), e.envp);
	e.envp = e.map;
	return e;
}

void env_free(struct env_copy *e)
{
	int saved = errno;

	if (e->map)
		REAL(munmap)(e->map, e->size);
	e->map = NULL;
	errno = saved;
}

void env_restore(void)
{
	static char *none[] = { NULL };
	char **now = environ ? environ : none;
	const char *preload = env_find(now, "LD_PRELOAD");
	char text[PATH_MAX * 2];

	if (!own_path || inherit_off(now))
		return;
	for (size_t i = 0; i < N_VARIABLES; i++)
		if (variables[i].text)
			setenv(variables[i].name, strchr(variables[i].text, '=') + 1, 0);
	if (list_has(preload, own_path) || strlen(own_path) + strlen(preload ? preload : "") + 2 > sizeof(text))
		return;
	stpcpy(stpcpy(stpcpy(text, own_path), preload && *preload ? ":" : ""), preload ? preload : "");
	setenv("LD_PRELOAD", text, 1);
}

static void env_keep(void)
{
	Dl_info self;

	if (!paths_any || inherit_off(environ) || !dladdr((void *)exec_adopt, &self) || !self.dli_fname)
		return;
	for (size_t i = 0; i < N_VARIABLES; i++)
		for (char **p = environ; *p && !variables[i].text; p++)
			if (env_value(*p, variables[i].name, variables[i].len))
				variables[i].text = strdup(*p);
	own_path = realpath(self.dli_fname, NULL);
	/* As it was named, where that holds from everywhere. */
	if (own_path && self.dli_fname[0] == '/') {
		free(own_path);
		own_path = strdup(self.dli_fname);
	}
}

/* --- descriptors of real files --- */

static unsigned inheriting;    /* under shim.lock */

static int table_end(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > FD_MAX ? FD_MAX - 1 : (int)limit.rlim_cur;
}

static bool is_in(int fd, const int *list, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (list[i] == fd)
			return true;
	return false;
}

/* These two with the lock held. */
static void mark_close_on_exec(void)
{
	int last = table_end();

	for (int fd = table_find_next(0, last); fd >= 0; fd = table_find_next(fd + 1, last)) {
		const struct ofd *o = __atomic_load_n(&fd_table[fd], __ATOMIC_ACQUIRE);

		if (o && o != OFD_HIDDEN)
			REAL(fcntl)(ofd_real(o), F_SETFD, FD_CLOEXEC);
	}
}

static bool survives(int fd, const struct given *given)
{
	int flags;

	if (given && is_in(fd, given->kept, given->n_kept))
		return true;
	if (given && is_in(fd, given->closed, given->n_closed))
		return false;
	flags = REAL(fcntl)(fd, F_GETFD);
	return flags >= 0 && !(flags & FD_CLOEXEC);
}

static void mark_inherited(const struct given *given)
{
	int last = table_end();

	for (int fd = table_find_next(0, last); fd >= 0; fd = table_find_next(fd + 1, last)) {
		const struct ofd *o = __atomic_load_n(&fd_table[fd], __ATOMIC_ACQUIRE);

		if (o && o != OFD_HIDDEN && survives(fd, given))
			REAL(fcntl)(ofd_real(o), F_SETFD, 0);
	}
}

void inherit_begin(const struct given *given)
{
	int saved = errno;
	ENTER;

	pthread_mutex_lock(&shim.lock);
	inheriting++;
	mark_inherited(given);
	pthread_mutex_unlock(&shim.lock);
	errno = saved;
}

void inherit_end(void)
{
	int saved = errno;
	ENTER;

	pthread_mutex_lock(&shim.lock);
	if (inheriting > 0 && --inheriting == 0)
		mark_close_on_exec();
	pthread_mutex_unlock(&shim.lock);
	errno = saved;
}

/* Those that other threads had begun are not here. */
static void forked(void)
{
	inheriting = 0;
}

/* --- exec --- */

static int run(const struct image *im, char *const argv[], char *const envp[])
{
	struct env_copy e CLEANUP(env_free) = env_complete(envp);
	struct busy busy = { 0 };
	int r;

	image_write_out(im);
	inherit_begin(NULL);
	do {
		if (im->search)
			r = REAL(execvpe)(im->path, argv, e.envp);
		else if (im->dirfd == AT_FDCWD && im->flags == 0)
			r = REAL(execve)(im->path, argv, e.envp);
		else
			r = REAL(execveat)(im->dirfd, im->path, argv, e.envp, im->flags);
	} while (r < 0 && errno == ETXTBSY && image_busy(im, &busy));
	inherit_end();
	return r;
}

EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	return run(&(struct image){ .dirfd = AT_FDCWD, .path = path }, argv, envp);
}

EXPORT int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

EXPORT int execvpe(const char *name, char *const argv[], char *const envp[])
{
	return run(&(struct image){ .dirfd = AT_FDCWD, .path = name, .search = true }, argv, envp);
}

EXPORT int execvp(const char *name, char *const argv[])
{
	return execvpe(name, argv, environ);
}

/* The program behind a descriptor of ours is the real file, as far as the kernel is concerned. */
static int run_fd(int fd, char *const argv[], char *const envp[], int flags)
{
	struct image im = { .dirfd = fd, .path = "", .flags = flags | AT_EMPTY_PATH };
	WITH_OFD(o, fd, run(&im, argv, envp));

	pgc_fsync(o->file);
	im.dirfd = ofd_real(o);
	shim_leave(&shim_scope_);
	return run(&im, argv, envp);
}

EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	struct env_copy e CLEANUP(env_free) = { 0 };
	int r;

	if (fd_maybe(fd))
		return run_fd(fd, argv, envp, 0);
	e = env_complete(envp);
	inherit_begin(NULL);
	r = REAL(fexecve)(fd, argv, e.envp);
	inherit_end();
	return r;
}

EXPORT int execveat(int dirfd, const char *path, char *const argv[], char *const envp[], int flags)
{
	if (path_given(path) && !*path && (flags & AT_EMPTY_PATH) && fd_maybe(dirfd))
		return run_fd(dirfd, argv, envp, flags);
	return run(&(struct image){ .dirfd = dirfd, .path = path, .flags = flags }, argv, envp);
}

/* The arguments of execl(3) from `first` on as a vector, and with `env` what follows them. */
#define COLLECT(argv, first, envp) \
	va_list ap_; \
	size_t n_ = 0; \
	va_start(ap_, first); \
	for (const char *a_ = first; a_; a_ = va_arg(ap_, const char *)) \
		n_++; \
	va_end(ap_); \
	char *argv[n_ + 1]; \
	char **envp __attribute__((unused)) = NULL; \
	va_start(ap_, first); \
	argv[0] = (char *)first; \
	for (size_t i_ = 1; i_ <= n_; i_++) \
		argv[i_] = va_arg(ap_, char *)

EXPORT int execl(const char *path, const char *arg, ...)
{
	COLLECT(argv, arg, envp);
	va_end(ap_);
	return execve(path, argv, environ);
}

EXPORT int execlp(const char *name, const char *arg, ...)
{
	COLLECT(argv, arg, envp);
	va_end(ap_);
	return execvpe(name, argv, environ);
}

EXPORT int execle(const char *path, const char *arg, ...)
{
	COLLECT(argv, arg, envp);
	if (n_ > 0)
		envp = va_arg(ap_, char **);
	va_end(ap_);
	return execve(path, argv, envp);
}

/* --- dlopen --- */

/*
 * The C library tells by the return address whose search path and namespace dlopen(3) goes by, so the real one is jumped to with everything as the
 * caller left it. Libraries that it needs in turn are not looked for.
 */
HIDDEN void *dlopen_prepare(const char *path);
void *dlopen_prepare(const char *path)
{
	int saved = errno;

	if (path_maybe(path) && strchr(path, '/'))
		exec_write_out(path);
	errno = saved;
	return (void *)REAL(dlopen);
}

#if defined(__x86_64__)
__asm__(".text\n.globl dlopen\n.type dlopen, @function\ndlopen:\n"
	"\tpush %rdi\n\tpush %rsi\n\tsub $8, %rsp\n\tcall dlopen_prepare\n\tadd $8, %rsp\n\tpop %rsi\n\tpop %rdi\n\tjmp *%rax\n"
	".size dlopen, . - dlopen\n");
#elif defined(__aarch64__)
__asm__(".text\n.globl dlopen\n.type dlopen, %function\ndlopen:\n"
	"\tstp x29, x30, [sp, #-32]!\n\tstp x0, x1, [sp, #16]\n\tbl dlopen_prepare\n\tmov x16, x0\n"
	"\tldp x0, x1, [sp, #16]\n\tldp x29, x30, [sp], #32\n\tbr x16\n"
	".size dlopen, . - dlopen\n");
#else
EXPORT void *dlopen(const char *path, int mode)
{
	return ((void *(*)(const char *, int))dlopen_prepare(path))(path, mode);
}
#endif

/* --- after exec --- */

/* The descriptor that the placeholder names, if it is that file and can do what is wanted. */
static int companion(const struct placeholder *p)
{
	struct stat st;
	int flags = p->real < 0 ? -1 : REAL(fcntl)(p->real, F_GETFL);

	if (flags < 0 || (flags & O_PATH) || REAL(fstat)(p->real, &st) < 0 || st.st_dev != p->dev || st.st_ino != p->ino)
		return -1;
	return (flags & O_ACCMODE) == p->accmode ? p->real : -1;
}

static int open_by_path(const struct placeholder *p)
{
	int fd = REAL(open)(p->path, p->accmode | (p->flags & O_SYNC) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), moved;
	struct stat st;

	if (fd < 0)
		return -1;
	if (REAL(fstat)(fd, &st) < 0 || st.st_dev != p->dev || st.st_ino != p->ino) {
		REAL(close)(fd);
		errno = ESTALE;
		return -1;
	}
	REAL(fcntl)(fd, F_SETFL, REAL(fcntl)(fd, F_GETFL) & ~O_NONBLOCK);
	/* At the number that the placeholder names, for the next exec. */
	if (p->real < shim.fd_base || REAL(fcntl)(p->real, F_GETFD) >= 0)
		return fd_keep(fd);
	moved = REAL(dup3)(fd, p->real, O_CLOEXEC);
	if (moved < 0)
		return fd_keep(fd);
	REAL(close)(fd);
	table_hide(moved);
	return moved;
}

static struct ofd *adopt_file(const struct placeholder *p)
{
	int fd = companion(p);
	struct ofd *o = NULL;

	if (fd >= 0) {
		REAL(fcntl)(fd, F_SETFD, FD_CLOEXEC);
		table_hide(fd);
	} else {
		fd = open_by_path(p);
	}
	if (fd >= 0)
		o = ofd_new(fd, p->path, p->accmode);
	if (!o) {
		shim_debug("pagecached: %s came by exec and cannot be taken over: %s", p->path, strerror(errno));
		return NULL;
	}
	o->holder_dev = p->self.st_dev;
	o->holder_ino = p->self.st_ino;
	return o;
}

/* Another descriptor of the same placeholder. */
static struct ofd *adopted(const struct stat *holder, int below)
{
	for (int fd = table_find_next(0, below - 1); fd >= 0; fd = table_find_next(fd + 1, below - 1)) {
		struct ofd *o = fd_table[fd];

		if (o == OFD_HIDDEN || o->holder_ino != holder->st_ino || o->holder_dev != holder->st_dev)
			continue;
		pthread_mutex_lock(&shim.lock);
		o->refs++;
		pthread_mutex_unlock(&shim.lock);
		return o;
	}
	return NULL;
}

static void adopt(int fd)
{
	struct placeholder p;
	struct ofd *o;
	int flags;

	if (fd >= FD_MAX || fd_table[fd])
		return;
	flags = REAL(fcntl)(fd, F_GETFL);
	if (flags < 0 || (flags & O_ACCMODE) != O_WRONLY || (flags & O_PATH) || placeholder_read(fd, &p) <= 0)
		return;
	o = adopted(&p.self, fd);
	if (!o)
		o = adopt_file(&p);
	if (!o)
		return;
	table_set(fd, o);
	shim_debug("pagecached: %s came by exec as descriptor %d", p.path, fd);
}

void exec_adopt(void)
{
	char buf[2048] __attribute__((aligned(8)));
	int dir;
	long n;
	ENTER;

	env_keep();
	pthread_atfork(NULL, NULL, forked);
	dir = REAL(open)("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return;
	while ((n = REAL(syscall)(SYS_getdents64, dir, buf, sizeof(buf))) > 0)
		for (long at = 0; at < n;) {
			const struct dirent64 *d = (const struct dirent64 *)(buf + at);

			at += d->d_reclen;
			if (d->d_name[0] != '.' && atoi(d->d_name) != dir)
				adopt(atoi(d->d_name));
		}
	REAL(close)(dir);
}
