/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One address space that maps a file: a userfaultfd and what is mapped where. A handle has one; a forked child that the kernel
 * told us of has one without a handle. Runs on the file's worker.
 *
 * Lifetime
 *   space_new()    -> OPEN: counted by the file, polled by fault.c
 *   space_close()  -> its mappings are gone; closing until the last operation that points to it has completed (`pins`)
 *   (freed)        by space_unpin()
 */
#pragma once

#include "daemon/file.h"
#include "daemon/fill.h"
#include "daemon/lane.h"
#include "daemon/file_range_set.h"
#include "daemon/readahead.h"
#include "daemon/track.h"
#include "daemon/twin.h"
#include "daemon/window.h"

#define SPACE_SEGMENTS_MAX 16384u    /* a write-out walks them all */
#define PAGE_MAPPINGS_MAX  16384u    /* of one page, by all clients: a write-out of it protects it in each. Forked children come on top */
#define SPACE_FAULTS_MAX   1024u     /* outstanding in one space: more stay unread */
#define SPACE_EXPECT_MAX   64u
#define SPACE_CHECK_NS     1000000000ull

/* Attribute of a segment. */
#define SEG_SHARED 1ull              /* write-tracked; else private or read-only */
#define SEG_ADVICE(advice) ((uint64_t)(advice) << 1) /* POSIX_FADV_NORMAL, RANDOM or SEQUENTIAL */
#define SEG_ADVICE_OF(attr) ((int)((attr) >> 1 & 3))

/*
 * A range whose UNMAP event is still to come although something else is mapped there already. A REMAP may come before it, if what was there was moved away: the
 * older mapping is remembered until then, and its tracker told of its end when that is known.
 */
struct space_expect {
	uint64_t start, end;
	uint64_t off, attr;        /* of the older mapping */
	bool may_move;
	uint64_t since;            /* ns */
};

/* A page that was poisoned because its read failed, until a later read succeeds. */
struct poisoned {
	struct list by_file, by_space;
	struct space *space;
	uint64_t addr, page;
	bool shared;
};

struct space {
	struct list by_file;       /* file->spaces */
	struct list by_worker;     /* worker->spaces */
	struct worker *worker;
	struct file *file;
	int uffd;
	bool writable, kernel_faults;
	bool has_handle;           /* false: a forked child */
	bool closed, gone;         /* gone: the process is */
	pid_t pid;
	uint64_t start_time;       /* of that process; 0: not known */
	/* For the next daemon: space_save.c. */
	uint64_t id;               /* its name for ATTACH */
	struct pgc_saved_handle *saved; /* NULL: it has no record */
	uint32_t saved_slot;
	bool kept;                 /* its descriptors are */
	struct task keeping;       /* tries again */
	/* Taken over from an earlier daemon: restore.c. */
	unsigned ask_tries;
	struct task asking_again;  /* what it has mapped: there was no memory to ask, or for the answer */
	void (*revived)(struct space *s); /* NULL: nobody wants to know */
	bool restoring;            /* what it has mapped is not known yet: nothing is answered or written */
	bool unheard;              /* its client has been without a daemon, and may have unmapped something of which no event tells */
	void (*numbered)(struct space *s); /* a forked child has shown its process: once. NULL: nobody waits for that */
	bool watched;              /* fault_watch() has been called */
	bool blind;                /* nor can it be found out: pages never become clean for it */
	struct toucher toucher;    /* who is charged for what is touched through it */
	uint64_t stalled_since;    /* ns: nothing can be answered, as an event is not finished; 0: it can */
	struct file_range_set maps; /* addresses -> file offset */

	struct tracker tracker;    /* on: stores are tracked without faults */
	/* Else pages (of the file) that may be mapped writable here: a superset. Empty: lo == hi. */
	uint64_t unprotected_lo, unprotected_hi;

	struct space_expect expect[SPACE_EXPECT_MAX];
	unsigned n_expect;
	uint64_t changes;          /* events that changed the table */
	bool asking;               /* a struct vma_query is under way */
	bool confirmed, unsure;    /* nothing is mapped, says the kernel; or it may be that something is */
	uint64_t last_addr;        /* of a fault */

	/* fault.c */
	struct ring_op poll;
	struct task task;          /* more to read, or faults to try again */
	struct task rewatch;       /* poll again, a little later */
	struct task ending;        /* the owner's: after `changed` */
	struct list faults;        /* struct fault, all */
	struct list pending;       /* struct fault, to be tried */
	unsigned n_faults;
	struct list jobs;          /* struct lane_job: under way. Until they have ended no message is read */
	bool settling;             /* those that have are being looked at */
	uint64_t lend_from;        /* ns: none before, as somebody wants the messages read */
	struct readahead_set readahead;
	int advice;                /* POSIX_FADV_*, of the handle, where a mapping has none of its own */
	bool noreuse;              /* what it reads is not worth keeping */
	/* Addresses that show the file from its beginning on, for its reads that ask nobody: no mapping. start == end: none. */
	uint64_t window_start, window_end;
	struct window_readers readers;
	uint64_t next_write, write_window; /* pages: stores that run in sequence */
	struct list poisoned;
	uint64_t unknown[16];      /* addresses of faults that nobody may wait with any more */
	unsigned next_unknown;
	bool logged_unknown;
	bool read_later;           /* there is something that is not read yet */

	unsigned pins;             /* operations in flight that point here */
	/* Up: the process is gone, or the last mapping went. The owner decides, in a later round: nothing may be closed in here. */
	void (*changed)(struct space *s);
	void (*forked)(struct space *child, struct space *parent);
	void *owner;
};

/*
 * Makes what `n` messages of its userfaultfd may need: forked children, and pieces of mappings. -ENOMEM: they must not be read yet.
 */
int space_prepare(struct space *s, unsigned n);
void space_spare_free(struct worker *w);
/* Takes the descriptor. -ENOMEM, but not after space_prepare(). */
int space_new(struct space **ret, struct file *f, int uffd);
void space_pin(struct space *s);
void space_unpin(struct space *s);
/* Forgets all mappings and references and closes the userfaultfd; the struct lives until the last pin goes. The file may be gone afterwards. */
void space_close(struct space *s);

/* A client mapped and registered this. -EINVAL, -EOVERFLOW, -EACCES, -ENOMEM, -EMFILE (too many segments, or mappings of a page). */
int space_map(struct space *s, uint64_t addr, uint64_t len, uint64_t off, bool shared);
/* [start, end) was unmapped (an event). */
void space_unmapped(struct space *s, uint64_t start, uint64_t end);
void space_remapped(struct space *s, uint64_t from, uint64_t to, uint64_t len);
/* A shared mapping may have been moved to where nobody knows of it yet: nothing can be protected in all mappings now. */
bool space_expects_move(const struct space *s);
/*
 * How many messages may be read, at most `most`. Where the user has so many children that another one waits, and the client many of them, as many as
 * there are faults, which come first: events are not told apart before they are read, and with that a fork goes on.
 */
int space_may_read(const struct space *s, int most);
/*
 * uffd_read(). A fork goes on in the moment that its event is read, and the child's userfaultfd is the reader's alone: the twin knows of those that have come when
 * this returns.
 */
int space_read(struct space *s, struct uffd_msg *ret, int most);
/*
 * Its userfaultfd tracks stores without faults: begins with that, or (`dead`) goes on, with the bits of `row`. Takes *pagemap (-1: it comes later). -errno: it cannot be, and
 * nothing was changed.
 */
int space_track(struct space *s, int *pagemap, bool dead, uint32_t row);
/* UFFDIO_CONTINUE of pages [page, page + n), which are resident; where stores are tracked without faults they count as mapped from before on. uffd_continue(), and -ENOMEM. */
int space_continue(struct space *s, uint64_t addr, uint64_t page, uint64_t n, bool shared, bool protect, uint64_t *ret_mapped);
/* The same mappings in a forked child's space. */
int space_copy(struct space *child, struct space *parent);
/* The slot of its record; UINT32_MAX: it has none. */
struct twin_record space_record(const struct space *s);
/* Mapped there, if anything is. */
uint64_t space_some_address(struct space *s);
/* The same; the next daemon finds it in the record. */
uint64_t space_save_address(struct space *s);

/* A window instead of the one it had; 0, 0: none. -EINVAL. */
int space_set_window(struct space *s, uint64_t addr, uint64_t len);
void space_end_window(struct space *s);
/* Bytes, with what is mapped behind it for writes (written.h): who may store has as much once more. */
static inline uint64_t space_window_whole(const struct space *s) { return (s->window_end - s->window_start) * (s->writable ? 2 : 1); }
static inline bool space_in_window(const struct space *s, uint64_t addr) { return addr >= s->window_start && addr < s->window_end; }
/* What is mapped at `addr`, the window too: 0, or -ENOENT: nothing that we were told of. An mremap that makes a mapping longer is told by no event. */
int space_find(struct space *s, uint64_t addr, struct range *ret_seg, uint64_t *ret_off, bool *ret_shared);
/* Is all of that in the table already, and the same? */
bool space_has(struct space *s, uint64_t start, uint64_t end, uint64_t off, bool shared);
/* How what is mapped in [addr, addr + len) will be touched: POSIX_FADV_NORMAL, RANDOM, SEQUENTIAL. -ENOMEM, -EMFILE (too many segments). */
int space_advise(struct space *s, uint64_t addr, uint64_t len, int advice);
/* That of the mapping at `addr`, POSIX_FADV_NORMAL where there is none. */
int space_advice(struct space *s, uint64_t addr);
/* The kernel has been asked (vma_query.h): this is mapped now, whatever the table said. */
int space_learn(struct space *s, uint64_t start, uint64_t end, uint64_t off, bool shared);
/* The kernel cannot be asked: the line of the nearest mapping below goes on, for one page. -ENOENT: there is none. */
int space_guess(struct space *s, uint64_t addr);

void space_note_unprotected(struct space *s, uint64_t first, uint64_t n);
