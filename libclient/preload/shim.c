/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State, scopes and the start of the preload library.
 *
 * Before the constructor has run, and where it fails, nothing is taken over: `paths_any` is false and the table is empty.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "preload.h"

/* Enough for the hidden descriptors of a thousand files, and not so many that programs which close all that could be open take long. */
#define NOFILE_WANTED 16384

struct shim shim = { .lock = PTHREAD_MUTEX_INITIALIZER };
__thread int shim_depth __attribute__((tls_model("initial-exec")));

static __thread sigset_t program_mask __attribute__((tls_model("initial-exec"))); /* of the outermost scope */

struct shim_scope shim_enter(void)
{
	struct shim_scope s = { .open = true };
	sigset_t wait;

	/* Nested: all of it is so already. */
	if (shim_depth > 0) {
		shim_depth++;
		return s;
	}
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &s.cancel);
	/* What a thread's own mistake raises must come at once. */
	sigfillset(&wait);
	sigdelset(&wait, SIGSEGV);
	sigdelset(&wait, SIGBUS);
	sigdelset(&wait, SIGILL);
	sigdelset(&wait, SIGFPE);
	sigdelset(&wait, SIGTRAP);
	sigdelset(&wait, SIGABRT);
	sigdelset(&wait, SIGSYS);
	pthread_sigmask(SIG_BLOCK, &wait, &s.old);
	program_mask = s.old;
	shim_depth++;
	return s;
}

void shim_leave(struct shim_scope *s)
{
	int saved = errno;

	if (!s->open)
		return;
	s->open = false;
	if (--shim_depth > 0)
		return;
	pthread_sigmask(SIG_SETMASK, &s->old, NULL);
	pthread_setcancelstate(s->cancel, NULL);
	errno = saved;
}

void shim_debug(const char *format, ...)
{
	int saved = errno, n;
	char line[1024];
	va_list ap;

	if (!shim.debug)
		return;
	va_start(ap, format);
	n = vsnprintf(line, sizeof(line) - 1, format, ap);
	va_end(ap);
	if (n > 0) {
		n = MIN(n, (int)sizeof(line) - 2);
		line[n++] = '\n';
		(void)!REAL(write)(STDERR_FILENO, line, (size_t)n);
	}
	errno = saved;
}

static __thread bool own_thread_here __attribute__((tls_model("initial-exec"))); /* this one is the library's own */

/*
 * fork(2). libpagecached's own handlers make connections and mappings, as calls inside a scope: ours lie around them. pthread_atfork(3) runs what is installed
 * last first before the fork, and what is installed first first after it: so those of the lock are installed before libpagecached's, those of the scope after.
 */
static __thread struct shim_scope fork_scope __attribute__((tls_model("initial-exec")));

/* --- signals, while a call waits for a daemon --- */

static bool ends_or_stops(int sig)
{
	return sig != SIGCHLD && sig != SIGCONT && sig != SIGURG && sig != SIGWINCH;
}

/* As between two calls of the program: what comes finds no scope, and may open its own. */
static void deliver(const sigset_t *those)
{
	int depth = shim_depth;
	sigset_t mask = program_mask, before;

	shim_depth = 0;
	pthread_sigmask(SIG_UNBLOCK, those, &before);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	shim_depth = depth;
	program_mask = mask;
}

/* The hook of libpagecached. What the program ignores or has blocked itself is none of our business. */
static int take_signals(bool handlers)
{
	sigset_t pending, those;
	bool any = false, interrupts = false;
	struct sigaction sa;

	if (shim_depth == 0 || own_thread_here || fork_scope.open || sigpending(&pending) < 0)
		return 0;
	sigemptyset(&those);
	for (int sig = 1; sig < NSIG; sig++) {
		if (sigismember(&pending, sig) != 1 || sigismember(&program_mask, sig) == 1 || sigaction(sig, NULL, &sa) < 0)
			continue;
		if (sa.sa_handler == SIG_IGN || (sa.sa_handler == SIG_DFL && !ends_or_stops(sig)))
			continue;
		if (sa.sa_handler != SIG_DFL)
			interrupts |= !(sa.sa_flags & SA_RESTART);
		if (sa.sa_handler != SIG_DFL && !handlers)
			continue;
		sigaddset(&those, sig);
		any = true;
	}
	if (any)
		deliver(&those);
	return interrupts ? -EINTR : 0;
}

static void lock_prepare(void)
{
	pthread_mutex_lock(&shim.lock);
}

static void lock_parent(void)
{
	pthread_mutex_unlock(&shim.lock);
}

static void lock_child(void)
{
	pthread_mutex_init(&shim.lock, NULL);
	table_forked();
}

/*
 * The C library's lock of its list of streams, which it takes for a fork itself, after these: fflush(NULL) holds it while streams of ours are written, which needs
 * our locks, so it comes before them. Recursive.
 */
void _IO_list_lock(void) __attribute__((weak));
void _IO_list_unlock(void) __attribute__((weak));
void _IO_list_resetlock(void) __attribute__((weak));

static void scope_prepare(void)
{
	if (_IO_list_lock)
		_IO_list_lock();
	fork_scope = shim_enter();
}

static void scope_parent(void)
{
	shim_leave(&fork_scope);
	if (_IO_list_unlock)
		_IO_list_unlock();
}

static void scope_child(void)
{
	shim_leave(&fork_scope);
	/* With more than one thread the C library has reset it by now, else not. */
	if (_IO_list_resetlock)
		_IO_list_resetlock();
}

__attribute__((constructor(101))) static void start_early(void)
{
	pthread_atfork(lock_prepare, lock_parent, lock_child);
	fork_init();
	pthread_atfork(scope_prepare, scope_parent, scope_child);
}

/* Hidden descriptors lie in the upper half of what there may be. */
static void make_room(void)
{
	struct rlimit limit;

	shim.fd_base = 256;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	if (limit.rlim_cur < NOFILE_WANTED && limit.rlim_cur < limit.rlim_max) {
		struct rlimit more = { MIN(limit.rlim_max, (rlim_t)NOFILE_WANTED), limit.rlim_max };

		if (setrlimit(RLIMIT_NOFILE, &more) == 0)
			limit = more;
	}
	shim.fd_base = (int)MIN(limit.rlim_cur / 2, (rlim_t)FD_MAX / 2);
}

/* A descriptor of the library's own goes. Of a regular file it may be one that locks hang on. */
static void close_own(int fd)
{
	if (fd_is_hidden(fd))
		__atomic_store_n(&fd_table[fd], NULL, __ATOMIC_RELEASE);
	real_file_close(fd);
}

/* All that it does is inside of a scope. */
static void own_thread(void)
{
	own_thread_here = true;
	shim_depth = 1;
}

__attribute__((constructor)) static void start(void)
{
	const char *patterns = secure_getenv("PAGECACHED_PATHS"), *debug = secure_getenv("PAGECACHED_DEBUG"),
		*address = secure_getenv("PAGECACHED_SOCKET");

	shim.debug = debug && *debug && strcmp(debug, "0") != 0;
	make_room();
	fd_hooks = (struct fd_hooks){ .base = shim.fd_base, .made = table_hide, .close = close_own, .thread = own_thread, .signals = take_signals };
	/* Programs clear their environment. */
	if (address && *address)
		fd_hooks.address = strdup(address);
	if (patterns && *patterns)
		paths_init(patterns);
	exec_adopt();
	stdio_adopt();
}

#ifdef __SANITIZE_ADDRESS__
/* In builds with the sanitizer: it is loaded with this library, after the program's own libraries, and sees only what they have in common. */
EXPORT const char *__asan_default_options(void);
EXPORT const char *__asan_default_options(void)
{
	/* A cancelled thread leaves marks on its stack that it stumbles over when it takes the signal stack away. */
	return "verify_asan_link_order=0:detect_leaks=0:use_sigaltstack=0";
}
#endif
