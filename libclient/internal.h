/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of libpagecached share. Calls go down only: fork, map, io, stat, window, watch, file, (conn, vma).
 *
 * Locks, in the order in which they may be taken: pgc_file.window_lock, pgc_file.connect_lock, lib.lock, pgc_file.xfer_lock, conn.lock.
 * Nothing waits for the daemon with lib.lock held, so a slow request on one handle delays no other handle.
 *
 * The library makes one thread, with the first mapping (watch.c), never logs, prints or exits, and every descriptor that it makes is close-on-exec.
 */
#pragma once

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "pagecached.h"
#include "pagecached/wire.h"

/* A program that links the static library keeps its own names: ours all begin with pgc. */
#define conn_address pgcpriv_conn_address
#define conn_destroy pgcpriv_conn_destroy
#define conn_dial pgcpriv_conn_dial
#define conn_empty pgcpriv_conn_empty
#define conn_ended pgcpriv_conn_ended
#define conn_hello pgcpriv_conn_hello
#define conn_hung_up pgcpriv_conn_hung_up
#define conn_init pgcpriv_conn_init
#define conn_kill pgcpriv_conn_kill
#define conn_dead pgcpriv_conn_dead
#define conn_renew pgcpriv_conn_renew
#define conn_request pgcpriv_conn_request
#define conn_set_xfer pgcpriv_conn_set_xfer
#define conn_socket pgcpriv_conn_socket
#define fd_hooks pgcpriv_fd_hooks
#define fd_keep pgcpriv_fd_keep
#define file_append pgcpriv_file_append
#define file_attach pgcpriv_file_attach
#define file_orphan_ms pgcpriv_file_orphan_ms
#define file_attach_try pgcpriv_file_attach_try
#define file_connect pgcpriv_file_connect
#define file_destroy pgcpriv_file_destroy
#define file_forked pgcpriv_file_forked
#define file_is_uri pgcpriv_file_is_uri
#define file_is_awaited pgcpriv_file_is_awaited
#define file_put pgcpriv_file_put
#define file_reap pgcpriv_file_reap
#define file_reap_locked pgcpriv_file_reap_locked
#define file_request pgcpriv_file_request
#define file_request_fds pgcpriv_file_request_fds
#define file_send_close pgcpriv_file_send_close
#define file_sync pgcpriv_file_sync
#define file_sync_memfd pgcpriv_file_sync_memfd
#define file_wait pgcpriv_file_wait
#define file_write_out pgcpriv_file_write_out
#define fork_init pgcpriv_fork_init
#define fork_is_remaking pgcpriv_fork_is_remaking
#define fork_late pgcpriv_fork_late
#define fork_lock_lib pgcpriv_fork_lock_lib
#define fork_unlock_lib pgcpriv_fork_unlock_lib
#define fork_unseen pgcpriv_fork_unseen
#define lib pgcpriv_lib
#define map_attach pgcpriv_map_attach
#define map_detach pgcpriv_map_detach
#define map_look_before_end pgcpriv_map_look_before_end
#define map_populate_buffer pgcpriv_map_populate_buffer
#define table_covers pgcpriv_table_covers
#define table_may_cover pgcpriv_table_may_cover
#define table_insert pgcpriv_table_insert
#define table_next pgcpriv_table_next
#define table_remove pgcpriv_table_remove
#define table_reserve pgcpriv_table_reserve
#define table_resync pgcpriv_table_resync
#define table_set_dontfork pgcpriv_table_set_dontfork
#define vector_length pgcpriv_vector_length
#define sealed_memfd pgcpriv_sealed_memfd
#define watch_changed pgcpriv_watch_changed
#define watch_has_replaced pgcpriv_watch_has_replaced
#define watch_fork pgcpriv_watch_fork
#define window_asked pgcpriv_window_asked
#define window_end pgcpriv_window_end
#define window_forked pgcpriv_window_forked
#define window_is_at pgcpriv_window_is_at
#define window_read pgcpriv_window_read
#define stat_look pgcpriv_stat_look
#define stat_shown pgcpriv_stat_shown
#define vma_close pgcpriv_vma_close
#define vma_next pgcpriv_vma_next
#define vma_open pgcpriv_vma_open
#define vma_parse pgcpriv_vma_parse

#define PGC_PUBLIC __attribute__((visibility("default")))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define HUGE_MASK  ((uintptr_t)(2u << 20) - 1)
#define PAGE_MASK_ ((uint64_t)PGC_PAGE_SIZE - 1)
#define INTERRUPT_MS 5000      /* a wait for a daemon becomes one that signals interrupt: longer than any take-over */
#define RW_MAX 0x7ffff000u     /* what one read(2) or write(2) moves at most */

static inline uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t clock_ms(void) { return clock_ns() / 1000000u; }

#define CLEANUP(f) __attribute__((cleanup(f)))
static inline int take_fd(int *fd)
{
	int r = *fd;

	*fd = -1;
	return r;
}

/*
 * Where descriptors of the library's own go when the program must not notice them (preload/): at numbers from `base` on, each told to
 * `made`; `close` closes one, perhaps later. Set before the first handle, or never.
 */
struct fd_hooks {
	int base;
	void (*made)(int fd);
	void (*close)(int fd);
	void (*thread)(void);      /* a thread of the library's own begins; NULL: nothing to be done */
	/*
	 * A call waits for a daemon, longer than a moment, on a thread whose signals the owner of these hooks has blocked: takes those that end or stop the program.
	 * `handlers`: those with a handler, too, as no lock is held and the calls in a handler find everything as between calls; -EINTR: one had no SA_RESTART.
	 * NULL: signals come as they do.
	 */
	int (*signals)(bool handlers);
	const char *address;       /* of the daemon's socket, whatever the environment says by now; NULL: the environment */
};
extern struct fd_hooks fd_hooks;

static inline void close_fd(int *fd)
{
	if (*fd >= 0 && fd_hooks.close)
		fd_hooks.close(*fd);
	else if (*fd >= 0)
		close(*fd);
	*fd = -1;
}
/* A new descriptor, or a negative error, which stays: the number where it is kept. */
int fd_keep(int fd);
static inline void cleanup_close(int *fd)
{
	close_fd(fd);
}
#define _cleanup_close_ CLEANUP(cleanup_close)

/*
 * Most of what the library does passes a cancellation point with its record on a list or with a slot taken. A
 * thread is therefore not cancelled inside the library: each public function that may block opens with NO_CANCEL.
 */
static inline int cancel_off(void)
{
	int old = PTHREAD_CANCEL_ENABLE;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
	return old;
}
static inline void cancel_restore(int *old)
{
	pthread_setcancelstate(*old, NULL);
}
#define NO_CANCEL int no_cancel_ CLEANUP(cancel_restore) __attribute__((unused)) = cancel_off()

/* conn.c: one connection, used by any number of threads. */
struct pending;
struct conn {
	int fd;                    /* -1: none. Changes only where lib.lock and `lock` are held and nobody uses the connection */
	pthread_mutex_t lock;      /* the rest */
	pthread_cond_t slot;       /* outstanding fell below the limit, or dead */
	bool receiving;            /* one of the waiting threads is in recvmsg() for all of them */
	unsigned looks, unlooked;  /* times yet that it looks for an answer in vain; answers that it did not look for. Who is `receiving` has them */
	bool ended;                /* the daemon has said that it hangs up for good */
	int dead;                  /* 0, or the negative errno that every request gets from now on */
	bool single;               /* one thread's, for a question that may be given up: a signal ends the connection. Constant while it is used */
	unsigned outstanding;
	uint64_t tag;
	struct pending *pending;
	unsigned epoch;            /* daemons that have taken the socket over */
	uint64_t incarnation;      /* of the last of them */
	int xfer_fd;               /* transfer area of the handle, which the next daemon has to be given; -1: none. Not ours */
	uint64_t xfers;            /* so often that was done */
};

void conn_init(struct conn *c);
void conn_destroy(struct conn *c);
/* The address of the daemon's socket, number `n` of those to try, into `ret`. -ENOENT: no more; -ENAMETOOLONG. */
int conn_address(unsigned n, char *ret, size_t size);
/* A new socket for a connection, or -errno. */
int conn_socket(void);
/* Connects an unbound socket to the first address that answers. -ECONNREFUSED: no daemon listens. */
int conn_dial(int fd);
/* HELLO. *ret_dev: a descriptor of /dev/userfaultfd, or -1. */
/* `stores`: it is for a handle whose mappings can be stored to. */
int conn_hello(struct conn *c, bool stores, int *ret_dev);
/*
 * Sends *msg with `fds` beside it, waits for the reply and puts it into *msg. The descriptors of the reply go to
 * ret_fds, which has room for PGC_FDS_MAX, and must be `want_fds` when the reply's status is 0 and none otherwise;
 * with want_fds -1 any number is taken. Entries that are not filled are -1. Returns 0, the reply's status negated, or:
 * -ECONNRESET when the daemon hung up, -EPROTO when it sent nonsense (from then on every request fails so), -EMFILE
 * when the reply's descriptors did not fit into the process.
 */
int conn_request(struct conn *c, struct pgc_msg *msg, const int *fds, int n_fds, int *ret_fds, int want_fds);
/* The connection died: waits until all callers have left it. */
void conn_empty(struct conn *c);
/* Then, with lib.lock held: goes on with another socket. Tags go on. */
void conn_renew(struct conn *c, int fd, int xfer_fd);
void conn_set_xfer(struct conn *c, int fd);
int conn_dead(struct conn *c);         /* 0, or why */
void conn_kill(struct conn *c);
bool conn_hung_up(struct conn *c);
/* Of one that hung up: whether the daemon has said ENDED. Else it died. */
bool conn_ended(struct conn *c);

/* file.c: the handle. */
#define XFER_SLOTS (PGC_XFER_SIZE / PGC_WRITE_MAX)
struct pgc_file {
	struct conn conn;

	/* Set before the handle is handed out, constant then. */
	int accmode;               /* O_RDONLY, O_WRONLY, O_RDWR */
	int sync_flags;            /* O_SYNC or O_DSYNC: each write is followed by a sync */
	char uri[sizeof(((struct pgc_open *)0)->uri)];
	int buffered, direct;      /* kept open, as closing one would drop the process's record locks; -1: none */
	int memfd;                 /* -1 where write-only */
	dev_t mem_dev;             /* identity of the memfd, as in /proc/self/maps */
	ino_t mem_ino;
	bool huge;                 /* the memory consists of huge pages, so of mappings too */
	uint64_t file_dev, file_ino;
	const struct pgc_control_page *control;

	/* stat.c. Atomic, changed under connect_lock but for stats_asked */
	const uint32_t *life;      /* the life page of the daemon that has written the control page number: */
	unsigned life_of;
	unsigned controls;         /* control pages so far */
	int stats_asked;           /* since there was one */

	/* Made anew in a forked child at first use, under connect_lock. */
	pthread_mutex_t connect_lock;
	/* Atomic: no connection yet. Release store after the fields below, acquire load before their use. */
	bool stale;
	int uffd;
	bool no_clone;             /* no daemon knows the file by now: ATTACH instead. Under connect_lock */
	int lost;                  /* what it had is lost: every request's error. Under connect_lock */
	int next_fd;               /* the socket that ATTACH goes over; -1: none. Changes under connect_lock and lib.lock */
	uint64_t handle;           /* the daemon's name for it */
	uint64_t orphan_ms;        /* how long to wait for another daemon, 0: for ever */
	uint32_t handle_flags;     /* PGC_HANDLE_*: atomic, relaxed; see file_flags() */
	bool mapped;               /* atomic, relaxed: a MAP was sent on this connection */

	pthread_mutex_t xfer_lock;
	pthread_cond_t xfer_free;
	int xfer_fd;               /* -1: not made yet */
	unsigned xfer_used;        /* bit n: slot n is taken */

	/* window.c. Atomic, changed under window_lock */
	pthread_mutex_t window_lock;
	struct window *window;     /* NULL: none */
	struct pgc_reader_slot *slots; /* NULL until there is a window; the same until the handle is freed */
	int slots_fd;
	uintptr_t window_addr;     /* of it, for ATTACH */
	uint64_t window_len;
	int reads_asked;           /* or writes, since it was looked at last whether a window is worth it */
	uint32_t writes_unasked;   /* atomic: pages that were not written before, since a write asked */

	/* Under lib.lock, as are changes of memfd and its identity. */
	struct pgc_file *next, **prev; /* lib.files */
	bool opening;              /* not handed out yet */
	bool ended;                /* it is closed, and has nothing mapped any more, as far as is known */
	bool given_up;             /* no daemon came: who touches what is not mapped gets SIGBUS */
	bool closed;               /* pgc_close() was called: lives on for its mappings */
	unsigned watched;          /* the watcher looks at it: it is not freed */
	unsigned busy;             /* calls that found the handle through the table of mappings */
	size_t maps;               /* entries of the table that name it */
};

static inline uint32_t file_flags(const struct pgc_file *f)
{
	return __atomic_load_n(&f->handle_flags, __ATOMIC_RELAXED);
}

/* map.c: one entry of the table of mappings. A hint: programs may call munmap(2) and mremap(2) behind the library. */
struct mapping {
	uintptr_t addr, len;
	uint64_t off;
	uintptr_t head, tail;      /* bytes at its ends that are there only to make whole huge pages of it */
	int prot;
	bool shared;               /* as the program asked; what a read-only handle really maps is private */
	bool tracked;              /* really shared and registered for write-protection */
	bool inherited;            /* came by fork and is served as it is; this process's connection does not know it */
	bool dontfork;             /* the program asked for MADV_DONTFORK */
	bool closed;               /* set by table_next(): SYNC is the only request that the handle may still send */
	struct pgc_file *f;
};

/* The process-wide state. */
struct lib {
	pthread_mutex_t lock;
	pthread_cond_t idle;       /* some handle's `busy` fell to 0 */
	struct pgc_file *files;    /* all: opening, open, closed with mappings */
	struct mapping *map;       /* sorted, without overlap */
	size_t n_map, allocated;
	uintptr_t lowest, highest; /* atomic: all that was ever in it lies in between */
};
extern struct lib lib;

/* Builds the handle's connection in a forked child when it has none. Takes connect_lock. */
int file_connect(struct pgc_file *f);
/*
 * The connection died (conn_dead()): waits for a daemon and hands over to it what the handle has. 0: another connection is there. -ESTALE: the bytes
 * that it had are lost, or not to be trusted; -ETIMEDOUT: no daemon came; -EINTR, with `may_end`: a signal came. Any thread; takes connect_lock.
 */
int file_attach(struct pgc_file *f, bool may_end);
/* A pause between two tries to reach a daemon, the first of which was at `since`; no lock is held. -EINTR: the call is to end, see fd_hooks. */
struct waiting { uint64_t since; bool interrupted; };
int file_wait(struct waiting *w, unsigned ms);
/* What has been done from then until now was an attempt, and no wait: a daemon may have worked on it for long before it died. */
void file_not_waited(struct waiting *w, uint64_t from);
/* How long to wait for the next daemon, in milliseconds, 0 for ever: the environment's setting, else `daemons`, which the last daemon told. */
uint64_t file_orphan_ms(uint64_t daemons);
/* One try, which waits for nobody. -EAGAIN: not yet. */
int file_attach_try(struct pgc_file *f);
/* conn_request() on a handle's connection, which is made first if need be. No descriptors in the reply. */
int file_request(struct pgc_file *f, struct pgc_msg *msg, const int *fds, int n_fds);
/* The same, with `want` descriptors in the reply, as conn_request(). */
int file_request_fds(struct pgc_file *f, struct pgc_msg *msg, const int *fds, int n_fds, int *ret_fds, int want);
int file_sync(struct pgc_file *f, bool data);
/*
 * Writes what is dirty of the range to the store, without a sync of the store itself; len 0: to the end. Not `wait`: only starts it. With it an error is
 * returned, and a later pgc_fsync() returns it all the same.
 */
int file_write_out(struct pgc_file *f, uint64_t off, uint64_t len, bool wait);
/*
 * window.c. Reads from the handle's window at once, without a system call: -EAGAIN: it has none, or what is wanted is not there: the daemon must be asked. Less than
 * `n`: the file ends, or the rest must be asked for. The buffer is no mapping of ours: what is past a file's end is EFAULT, and no signal. Takes no lock.
 */
/* No write that asked nobody is still to be looked at. */
bool window_has_no_writes(struct pgc_file *f);
ssize_t window_write(struct pgc_file *f, const char *buf, uint64_t n, uint64_t off);
ssize_t window_read(struct pgc_file *f, char *buf, uint64_t n, uint64_t off);
/* The daemon was asked and the bytes were there: who does so often gets a window. No lock is held. */
void window_asked(struct pgc_file *f);
/* The handle is closed. Whether it had a window. */
bool window_end(struct pgc_file *f);
void window_forked(struct pgc_file *f);
/* Is it a window that is mapped there? Under lib.lock. */
bool window_is_at(uintptr_t addr);
/*
 * stat.c: what stat(2) is to say, without asking the daemon. First a look, then fstat(2) of the file itself, any description of it, then stat_shown(), which puts into
 * *st what is different with the cache. False: that cannot be told, the daemon must be asked, and *st is not to be used. Takes no lock.
 */
struct stat_look { uint64_t seq; struct pgc_shown shown; };
bool stat_look(const struct pgc_file *f, struct stat_look *ret);
bool stat_shown(struct pgc_file *f, const struct stat_look *look, struct stat *st);
/* io.c */
/* A memfd of `size` bytes that can neither shrink nor grow, or a negative errno. */
int sealed_memfd(const char *name, uint64_t size);
struct iovec;
/* The sum of a vector's lengths, at most RW_MAX as with readv(2). -EINVAL. */
int vector_length(const struct iovec *iov, int n, size_t *ret);
/* pgc_append() of a vector, of which `n` bytes are written. */
ssize_t file_append(struct pgc_file *f, const struct iovec *iov, int iovcnt, size_t n, off_t *ret_off);
/*
 * A range of the file behind that memfd, through `first` (may be NULL) if it is a handle of it, else through any other.
 * 0 when no handle has it: it is not ours. `async`: starts it only.
 */
int file_sync_memfd(struct pgc_file *first, dev_t mem_dev, ino_t mem_ino, uint64_t off, uint64_t len, bool async);
/*
 * Frees closed handles whose mappings are gone. Takes lib.lock; may be called by any public function that waits for
 * nobody.
 */
void file_reap(void);
/* With lib.lock, which it lets go of. */
void file_reap_locked(void);
void file_send_close(struct pgc_file *f); /* when the daemon knows mappings of it */
void file_put(struct pgc_file *f); /* ends one `busy` */
/* Its daemon died, and the next one may still want it. */
bool file_is_awaited(struct pgc_file *f);
/*
 * In a forked child: forgets the parent's connection without a word on it, and all state of threads that are not here.
 */
void file_forked(struct pgc_file *f);
void file_destroy(struct pgc_file *f); /* not in lib.files any more */
bool file_is_uri(const char *s);

/* map.c */
/* The table; lib.lock is held. */
int table_reserve(size_t more);                         /* -ENOMEM */
void table_remove(uintptr_t addr, uintptr_t len);       /* needs room for one more entry */
void table_insert(const struct mapping *m);             /* replaces what it overlaps; needs room for two more */
bool table_resync(void);                                /* makes it the truth of /proc/self/maps; false: as it was */
int table_set_dontfork(uintptr_t addr, uintptr_t end, bool on);
/*
 * The first entry that ends above `addr` and starts below `end`, cut to that range, its handle kept alive until
 * file_put().
 */
bool table_next(uintptr_t addr, uintptr_t end, struct mapping *ret);
/*
 * Takes in what lies beyond the range only to make whole huge pages of a mapping. False: it begins or ends within one all the same. Takes lib.lock.
 */
bool table_enlarge(uintptr_t *addr, uintptr_t *end);
/* Is any of it in a mapping of ours, as far as the table knows? Takes lib.lock, if it may be; the other one does not, and says only that. */
bool table_covers(uintptr_t addr, uintptr_t end);
bool table_may_cover(uintptr_t addr, uintptr_t end);
/* Registers a mapped range and tells the daemon. The range is PROT_NONE, or nobody runs. */
int map_attach(struct pgc_file *f, const struct mapping *m);
void map_detach(struct pgc_file *f, uintptr_t addr, uintptr_t len);
/* What of these addresses will end without the daemon seeing it: map.c. */
void map_look_before_end(uintptr_t addr, uintptr_t end);
/*
 * Fills and maps what of [buf, buf + n) lies in mappings whose faults are not served inside system calls. True:
 * something was done, so the system call is worth another try. `again`: it has been tried; the table may be old.
 */
bool map_populate_buffer(const void *buf, size_t n, bool write, bool again);

/* vma.c: the lines of /proc/self/maps. */
struct vma {
	uintptr_t start, end;
	uint64_t off;
	int prot;
	bool shared;
	dev_t dev;
	ino_t ino;
};
struct vma_iter {
	int fd;
	size_t pos, have;
	char buf[4096];
};
int vma_open(struct vma_iter *it);
int vma_next(struct vma_iter *it, struct vma *ret);     /* 1; 0 at the end; a negative errno */
void vma_close(struct vma_iter *it);
bool vma_parse(const char *line, struct vma *ret);

/* watch.c */
void watch_changed(void);                               /* a handle has its first mapping */
bool watch_has_replaced(dev_t dev, ino_t ino);          /* that stands for a mapping whose handle was given up */
void watch_fork(int phase);                             /* -1: before, 0: in the parent, 1: in the child */

/* fork.c */
void fork_init(void);                                   /* once a process */
/*
 * lib.lock, for who hands a handle to the next daemon. False: a thread that forks has it and has lent it, as it waits for just that; what is shared may be looked at
 * then and no more, and malloc(3) may not be called.
 */
bool fork_lock_lib(void);
void fork_unlock_lib(bool held);
bool fork_unseen(void);                                 /* a child whose fork no handler saw */
/* A forked child is making its mappings: closed handles are told of as closed when it has. */
bool fork_is_remaking(void);
void fork_late(void);                                   /* what the handler would have done there */
