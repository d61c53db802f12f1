/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork(2). Sockets and userfaultfds that a child inherits belong to its parent: it closes its copies before any other
 * code runs and never sends on them. A handle gets a connection of its own in the child at its first use.
 *
 * Mappings: where the daemon follows forks (PGC_HANDLE_FORK_EVENTS) it has the child's userfaultfd by the event, and
 * they are served as they are. Where it may not, or does not because stores are tracked without faults, the kernel takes the child's registration away, and holes would read
 * as zeros. There, mappings are kept from children (MADV_DONTFORK). Shared ones are made anew here at the same address; private ones, whose copies only the child's inheritance
 * has, are let through for the fork and registered again here. What cannot be restored is left inaccessible: a signal is better than zeros.
 *
 * The parent waits for that: were it to exit first, as a program does that becomes a daemon, its handles would end, and
 * with the last one the file that the child is about to ask for.
 *
 * prepare() holds lib.lock over the fork, so that the table and the list of handles are whole in the child. All other
 * locks belong to threads that the child does not have and are made anew.
 *
 * The kernel lets a fork go on when a daemon has heard of it. If that dies meanwhile, and nobody keeps its descriptors, the watcher has to hand them to the next one
 * first. So a fork that takes long lends it the lock: the forking thread does nothing but wait, and the child's copy of memory and descriptors is made by then.
 * malloc(3)'s locks are not lent.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "libclient/internal.h"

#define REMAKE_PATIENCE_MS 10000
#define SHORTAGE_MS        2000
#define WAIT_NS            2000000
#define LEND_MS            200

/*
 * A fork that no handler sees (clone(2), syscall(2)) leaves the child with its parent's connections, and both would take each other's replies and transfer areas.
 * This page is zeros in a child until the handler has run. NULL: the kernel cannot do that.
 */
static bool *own;

static struct {
	pthread_mutex_t lock;      /* after lib.lock, if both */
	pthread_cond_t returned;
	uint64_t since;            /* a fork is under way, for so long; 0: none */
	unsigned lent;
	bool was_lent;
} lending = { .lock = PTHREAD_MUTEX_INITIALIZER, .returned = PTHREAD_COND_INITIALIZER };

bool fork_lock_lib(void)
{
	while (pthread_mutex_trylock(&lib.lock) != 0) {
		bool lent;

		pthread_mutex_lock(&lending.lock);
		lent = lending.since > 0 && clock_ms() - lending.since >= LEND_MS;
		if (lent) {
			lending.lent++;
			lending.was_lent = true;
		}
		pthread_mutex_unlock(&lending.lock);
		if (lent)
			return false;
		nanosleep(&(struct timespec){ .tv_nsec = WAIT_NS }, NULL);
	}
	return true;
}

void fork_unlock_lib(bool held)
{
	if (held) {
		pthread_mutex_unlock(&lib.lock);
		return;
	}
	pthread_mutex_lock(&lending.lock);
	if (--lending.lent == 0)
		pthread_cond_broadcast(&lending.returned);
	pthread_mutex_unlock(&lending.lock);
}

static void lend(void)
{
	pthread_mutex_lock(&lending.lock);
	lending.since = clock_ms();
	pthread_mutex_unlock(&lending.lock);
}

/* Whether it was lent. */
static bool take_back(void)
{
	bool was;

	pthread_mutex_lock(&lending.lock);
	lending.since = 0;
	while (lending.lent > 0)
		pthread_cond_wait(&lending.returned, &lending.lock);
	was = lending.was_lent;
	lending.was_lent = false;
	pthread_mutex_unlock(&lending.lock);
	return was;
}

/* A pipe: its end, in the child, says that the mappings are there. Under lib.lock. */
static int remade[2] = { -1, -1 };

/* Under lib.lock. */
static bool waits_for_a_daemon(void)
{
	for (struct pgc_file *f = lib.files; f; f = f->next)
		if (f->maps > 0 && file_is_awaited(f))
			return true;
	return false;
}

/* Where there is no daemon, the next one is waited for here and not in the kernel. */
static void lock_for_fork(void)
{
	for (;;) {
		watch_fork(-1);
		pthread_mutex_lock(&lib.lock);
		if (!waits_for_a_daemon())
			return;
		pthread_mutex_unlock(&lib.lock);
		watch_fork(0);
		nanosleep(&(struct timespec){ .tv_nsec = WAIT_NS }, NULL);
	}
}

/* Private mappings. All of them, since of which handle one is may be a guess of the table. Under lib.lock. */
static void let_through(void)
{
	for (size_t i = 0; i < lib.n_map; i++)
		if (!lib.map[i].tracked && !lib.map[i].dontfork)
			madvise((void *)lib.map[i].addr, lib.map[i].len, MADV_DOFORK);
}

static void keep_back(void)
{
	for (size_t i = 0; i < lib.n_map; i++)
		if (!lib.map[i].tracked && !(file_flags(lib.map[i].f) & PGC_HANDLE_FORK_EVENTS))
			madvise((void *)lib.map[i].addr, lib.map[i].len, MADV_DONTFORK);
}

static void prepare(void)
{
	bool remake = false;

	lock_for_fork();
	for (const struct pgc_file *f = lib.files; f; f = f->next)
		remake |= f->maps > 0 && !(file_flags(f) & PGC_HANDLE_FORK_EVENTS);
	/* The child has to make what really is, not what the library remembers. */
	if (remake) {
		table_resync();
		let_through();
		if (pipe2(remade, O_CLOEXEC) < 0)
			remade[0] = remade[1] = -1;
	}
	lend();
}

static void parent(void)
{
	_cleanup_close_ int wait_for = take_fd(&remade[0]);
	bool lent = take_back();

	keep_back();
	close_fd(&remade[1]); /* while no other thread can fork, so that only the child has it */
	pthread_mutex_unlock(&lib.lock);
	watch_fork(0);
	if (lent)
		watch_changed(); /* what it left undone */
	if (wait_for >= 0)
		(void)poll(&(struct pollfd){ .fd = wait_for }, 1, REMAKE_PATIENCE_MS);
}

/* Nothing else may ever be mapped at an address that the program believes to be its file. */
static void block_range(const struct mapping *m)
{
	mmap((void *)m->addr, m->len, PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (m->tracked ? MAP_FIXED_NOREPLACE : MAP_FIXED), -1, 0);
}

static int remake(const struct mapping *m)
{
	int r = file_connect(m->f);
	void *p;

	if (r < 0)
		return r;
	if (m->tracked) {
		p = mmap((void *)m->addr, m->len, PROT_NONE, MAP_SHARED | MAP_FIXED_NOREPLACE, m->f->memfd,
			 (off_t)m->off);
		if (p == MAP_FAILED)
			return -errno;
	}
	r = map_attach(m->f, m);
	if (r == 0 && m->prot != PROT_NONE && mprotect((void *)m->addr, m->len, m->prot) < 0)
		r = -errno;
	if (r < 0 && m->tracked)
		munmap((void *)m->addr, m->len);
	return r;
}

/* A shortage of memory or descriptors passes, here or in the daemon. */
static int remake_patiently(const struct mapping *m, uint64_t until)
{
	int r = remake(m);

	while ((r == -ENOMEM || r == -EMFILE || r == -ENFILE || r == -EAGAIN) && clock_ms() < until) {
		nanosleep(&(struct timespec){ .tv_nsec = WAIT_NS }, NULL);
		r = remake(m);
	}
	return r;
}

/*
 * Closed handles have nothing mapped yet in the child, and would end if the daemon heard that they are closed. Nor is there a watcher: it could change the table, and the
 * stack of its thread could come to lie where a mapping has to be.
 */
static bool remaking;

bool fork_is_remaking(void) { return __atomic_load_n(&remaking, __ATOMIC_RELAXED); }

/* The child is the only thread, so the table is walked without its lock: connecting takes that. */
static void restore_mappings(void)
{
	uint64_t until = clock_ms() + SHORTAGE_MS;
	bool followed = true;
	size_t n = 0;

	for (size_t i = 0; i < lib.n_map; i++)
		followed &= !!(file_flags(lib.map[i].f) & PGC_HANDLE_FORK_EVENTS);
	/* As the parent's connections were: those made below may say otherwise. */
	for (size_t i = 0; i < lib.n_map; i++)
		lib.map[i].inherited |= followed;
	for (size_t i = 0; i < lib.n_map; i++) {
		struct mapping *m = &lib.map[i];
		bool lost = m->dontfork;
		int r = lost || (m->inherited && followed) ? 0 : remake_patiently(m, until);

		/* Of which handle it is may be a guess of the table. One whose forks the daemon follows: then it is there, and served. */
		if (r == -EBUSY || r == -EEXIST) {
			m->inherited = true;
		} else if (r < 0) {
			block_range(m);
			lost = true;
		}
		if (lost)
			m->f->maps--;
		else
			lib.map[n++] = *m;
	}
	lib.n_map = n;
}

static void child(void)
{
	struct pgc_file *f, *next;
	bool mapped = false;

	if (own)
		*own = true;
	watch_fork(1);
	pthread_mutex_init(&lib.lock, NULL);
	pthread_cond_init(&lib.idle, NULL);
	pthread_mutex_init(&lending.lock, NULL);
	pthread_cond_init(&lending.returned, NULL);
	lending.since = lending.lent = lending.was_lent = 0;
	for (f = lib.files; f; f = next) {
		next = f->next;
		file_forked(f);
		if (!f->opening)
			continue;
		/* The thread that was opening it is not here. */
		*f->prev = next;
		if (next)
			next->prev = f->prev;
		file_destroy(f);
	}
	__atomic_store_n(&remaking, true, __ATOMIC_RELAXED);
	restore_mappings();
	__atomic_store_n(&remaking, false, __ATOMIC_RELAXED);
	close_fd(&remade[0]);
	close_fd(&remade[1]);
	for (f = lib.files; f && !mapped; f = f->next)
		mapped = __atomic_load_n(&f->mapped, __ATOMIC_RELAXED);
	if (mapped)
		watch_changed();
	for (f = lib.files; f; f = f->next)
		if (f->closed)
			file_send_close(f);
}

bool fork_unseen(void)
{
	return own && !*(volatile bool *)own;
}

void fork_late(void)
{
	child();
}

static void install(void)
{
	bool *p = mmap(NULL, PGC_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p != MAP_FAILED && madvise(p, PGC_PAGE_SIZE, MADV_WIPEONFORK) == 0) {
		*p = true;
		own = p;
	} else if (p != MAP_FAILED) {
		munmap(p, PGC_PAGE_SIZE);
	}
	pthread_atfork(prepare, parent, child);
}

void fork_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, install);
}

/* As early as can be: child handlers run in the order in which they were installed. */
__attribute__((constructor)) static void fork_construct(void)
{
	fork_init();
}
