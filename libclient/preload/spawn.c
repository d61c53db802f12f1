/* SPDX-License-Identifier: Apache-2.0 */
/*
 * posix_spawn(3), system(3), popen(3), and the kinds of fork(2). The C library makes the child with calls that are not seen here, so everything that it needs is got
 * ready before.
 *
 * File actions are recorded as far as we need them: which descriptors go to the child, and files of ours that are to be opened there. Such a file is opened
 * in the parent each time that it spawns, and given to the child from a hidden number (its "slot"), which is what the C library's own list says.
 * Where the child closes the real files' descriptors (addclosefrom_np), it opens the files by their paths again.
 */
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>

#include "exec.h"

extern char **environ;

struct action {
	struct action *next;
	const posix_spawn_file_actions_t *of;
	enum { ACTION_DUP, ACTION_CLOSE, ACTION_OPEN, ACTION_CHDIR } kind;
	int fd;                    /* the descriptor that is given on, or where it is opened: the slot */
	int flags;
	mode_t mode;
	char *path;
};

/* Newest first. The lock is held while files for a child are open: two spawns with the same list use the same slots. */
static struct action *actions;
static pthread_mutex_t actions_lock = PTHREAD_MUTEX_INITIALIZER;
static bool any_actions;       /* atomic, relaxed: a list that is not recorded has nothing of ours */

static void actions_prepare(void)
{
	pthread_mutex_lock(&actions_lock);
}

static void actions_parent(void)
{
	pthread_mutex_unlock(&actions_lock);
}

static void actions_child(void)
{
	pthread_mutex_init(&actions_lock, NULL);
}

static void actions_start(void)
{
	pthread_atfork(actions_prepare, actions_parent, actions_child);
}

static void action_free(struct action *a)
{
	if (a->kind == ACTION_OPEN)
		close_fd(&a->fd);
	free(a->path);
	free(a);
}

static void actions_forget(const posix_spawn_file_actions_t *of)
{
	if (!__atomic_load_n(&any_actions, __ATOMIC_RELAXED))
		return;
	ENTER;
	pthread_mutex_lock(&actions_lock);
	for (struct action **p = &actions, *a; (a = *p);) {
		if (a->of != of) {
			p = &a->next;
			continue;
		}
		*p = a->next;
		action_free(a);
	}
	pthread_mutex_unlock(&actions_lock);
}

/* Takes what *new owns. 0 or an error number. */
static int action_add(const struct action *new)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct action *a;
	ENTER;

	pthread_once(&once, actions_start);
	a = malloc(sizeof(*a));
	if (!a) {
		if (new->kind == ACTION_OPEN)
			real_file_close(new->fd);
		free(new->path);
		return ENOMEM;
	}
	*a = *new;
	pthread_mutex_lock(&actions_lock);
	a->next = actions;
	actions = a;
	__atomic_store_n(&any_actions, true, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&actions_lock);
	return 0;
}

/* Where a relative path starts after the addchdir actions so far. The lock is held, or nobody else uses the list. */
static bool actions_path(const posix_spawn_file_actions_t *of, const char *path, char ret[PATH_MAX])
{
	size_t at = PATH_MAX, n = strlen(path) + 1;

	if (n > PATH_MAX)
		return false;
	at -= n;
	memcpy(ret + at, path, n);
	for (const struct action *a = actions; a && of && ret[at] != '/'; a = a->next) {
		if (a->of != of || a->kind != ACTION_CHDIR)
			continue;
		n = strlen(a->path);
		if (n + 1 > at)
			return false;
		ret[--at] = '/';
		memcpy(ret + (at -= n), a->path, n);
	}
	memmove(ret, ret + at, PATH_MAX - at);
	return true;
}

/* --- the list's functions --- */

EXPORT int posix_spawn_file_actions_init(posix_spawn_file_actions_t *fa)
{
	actions_forget(fa); /* of one that was never destroyed */
	return REAL(posix_spawn_file_actions_init)(fa);
}

EXPORT int posix_spawn_file_actions_destroy(posix_spawn_file_actions_t *fa)
{
	actions_forget(fa);
	return REAL(posix_spawn_file_actions_destroy)(fa);
}

EXPORT int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *fa, int from, int to)
{
	int r;

	if (fd_is_hidden(from) || fd_is_hidden(to))
		return EBADF;
	r = REAL(posix_spawn_file_actions_adddup2)(fa, from, to);
	return r ? r : action_add(&(struct action){ .of = fa, .kind = ACTION_DUP, .fd = from });
}

EXPORT int posix_spawn_file_actions_addclose(posix_spawn_file_actions_t *fa, int fd)
{
	int r;

	if (fd_is_hidden(fd))
		return EBADF;
	r = REAL(posix_spawn_file_actions_addclose)(fa, fd);
	return r ? r : action_add(&(struct action){ .of = fa, .kind = ACTION_CLOSE, .fd = fd });
}

EXPORT int posix_spawn_file_actions_addchdir_np(posix_spawn_file_actions_t *fa, const char *path)
{
	struct action a = { .of = fa, .kind = ACTION_CHDIR };
	int r = REAL(posix_spawn_file_actions_addchdir_np)(fa, path);

	if (r)
		return r;
	a.path = strdup(path);
	return a.path ? action_add(&a) : ENOMEM;
}

EXPORT int posix_spawn_file_actions_addfchdir_np(posix_spawn_file_actions_t *fa, int fd)
{
	struct action a = { .of = fa, .kind = ACTION_CHDIR };
	int r = REAL(posix_spawn_file_actions_addfchdir_np)(fa, fd);

	if (r)
		return r;
	return asprintf(&a.path, "/proc/self/fd/%d", fd) < 0 ? ENOMEM : action_add(&a);
}

/* A number of our own for what the child gets; until it spawns nothing is there. */
static int slot_make(void)
{
	int fd;
	ENTER;

	fd = REAL(open)("/dev/null", O_RDWR | O_CLOEXEC);
	return fd < 0 ? fd : fd_keep(fd);
}

EXPORT int posix_spawn_file_actions_addopen(posix_spawn_file_actions_t *fa, int to, const char *path, int flags, mode_t mode)
{
	struct action a = { .of = fa, .kind = ACTION_OPEN, .flags = flags, .mode = mode };
	char whole[PATH_MAX], abs[4096];
	int n, r;

	if (fd_is_hidden(to))
		return EBADF;
	pthread_mutex_lock(&actions_lock);
	r = path_maybe(path) && *path && actions_path(fa, path, whole);
	pthread_mutex_unlock(&actions_lock);
	if (!r || !path_is_ours(AT_FDCWD, whole, abs, &n))
		return REAL(posix_spawn_file_actions_addopen)(fa, to, path, flags, mode);
	a.path = strdup(whole);
	a.fd = slot_make();
	if (!a.path || a.fd < 0) {
		free(a.path);
		return a.path ? errno : ENOMEM;
	}
	r = REAL(posix_spawn_file_actions_adddup2)(fa, a.fd, to);
	if (r) {
		free(a.path);
		close_fd(&a.fd);
		return r;
	}
	return action_add(&a);
}

/* --- spawn --- */

struct for_child {
	struct given given;        /* descriptors, of ours or not */
	unsigned own;              /* the first of what is kept, which are open for the child alone */
};

/* In the order of the list, as the child would have done it. 0 or an error number. */
static int open_next(const posix_spawn_file_actions_t *fa, struct action *a, struct for_child *ret)
{
	int fd, r;

	if (!a)
		return 0;
	r = open_next(fa, a->next, ret);
	if (r || a->of != fa || a->kind != ACTION_OPEN)
		return r;
	if (ret->given.n_kept == GIVEN_MAX)
		return EMFILE;
	fd = open(a->path, a->flags | O_CLOEXEC, a->mode);
	if (fd < 0)
		return errno;
	ret->given.kept[ret->given.n_kept++] = fd;
	ret->own++;
	return REAL(dup3)(fd, a->fd, O_CLOEXEC) < 0 ? errno : 0;
}

static int open_for_child(const posix_spawn_file_actions_t *fa, struct for_child *ret)
{
	struct given *g = &ret->given;
	int r = open_next(fa, actions, ret);

	for (struct action *a = actions; a && r == 0; a = a->next) {
		if (a->of == fa && a->kind == ACTION_DUP && g->n_kept < GIVEN_MAX)
			g->kept[g->n_kept++] = a->fd;
		else if (a->of == fa && a->kind == ACTION_CLOSE && g->n_closed < GIVEN_MAX)
			g->closed[g->n_closed++] = a->fd;
	}
	return r;
}

static void close_for_child(struct for_child *c)
{
	for (unsigned i = 0; i < c->own; i++)
		close(c->given.kept[i]);
}

static int spawn(__typeof__(&posix_spawn) real, bool search, pid_t *pid, const char *path, const posix_spawn_file_actions_t *fa,
		 const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	struct env_copy e CLEANUP(env_free) = env_complete(envp);
	struct image im = { .dirfd = AT_FDCWD, .path = path, .search = search };
	bool recorded = fa && __atomic_load_n(&any_actions, __ATOMIC_RELAXED);
	struct for_child child;
	char whole[PATH_MAX];
	struct busy busy = { 0 };
	int r = 0;

	child.own = child.given.n_kept = child.given.n_closed = 0;
	if (recorded)
		pthread_mutex_lock(&actions_lock);
	if (recorded && !(search && !strchr(path, '/')) && actions_path(fa, path, whole))
		im.path = whole;
	image_write_out(&im);
	if (recorded)
		r = open_for_child(fa, &child);
	if (r == 0) {
		inherit_begin(&child.given);
		do
			r = real(pid, path, fa, attr, argv, e.envp);
		while (r == ETXTBSY && image_busy(&im, &busy));
		inherit_end();
	}
	close_for_child(&child);
	if (recorded)
		pthread_mutex_unlock(&actions_lock);
	return r;
}

EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *fa, const posix_spawnattr_t *attr, char *const argv[],
		       char *const envp[])
{
	return spawn(REAL(posix_spawn), false, pid, path, fa, attr, argv, envp);
}

EXPORT int posix_spawnp(pid_t *pid, const char *name, const posix_spawn_file_actions_t *fa, const posix_spawnattr_t *attr, char *const argv[],
			char *const envp[])
{
	return spawn(REAL(posix_spawnp), true, pid, name, fa, attr, argv, envp);
}

/* --- what runs a shell --- */

EXPORT int system(const char *command)
{
	int r;

	if (!command)
		return REAL(system)(command);
	env_restore();
	inherit_begin(NULL);
	r = REAL(system)(command);
	inherit_end();
	return r;
}

EXPORT FILE *popen(const char *command, const char *type)
{
	FILE *f;

	env_restore();
	inherit_begin(NULL);
	f = REAL(popen)(command, type);
	inherit_end();
	return f;
}

/* --- forks --- */

/*
 * A child of vfork(2) lives in its parent's memory: what it closes and opens before its exec would change the parent's table and handles. fork(2) gives it
 * its own, which is all that a portable program may count on.
 */
EXPORT pid_t vfork(void)
{
	return fork();
}

/* The handlers must run: a child without them would use its parent's connections. */
EXPORT pid_t _Fork(void)
{
	return fork();
}

/* Only the fork is left to the C library: the rest goes through the functions that keep the tables true. */
EXPORT int daemon(int nochdir, int noclose)
{
	int null;

	if (REAL(daemon)(1, 1) < 0 || (!nochdir && chdir("/") < 0))
		return -1;
	if (noclose)
		return 0;
	null = open("/dev/null", O_RDWR);
	if (null < 0)
		return -1;
	for (int fd = 0; fd <= 2; fd++)
		if (dup2(null, fd) < 0)
			return -1;
	if (null > 2)
		close(null);
	return 0;
}
