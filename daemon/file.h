/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cached file: its memfd, its store, its blocks and their bits, its references. Everything here runs on
 * the worker that owns the file; nothing is locked.
 *
 * Lifetime
 *   OPENING  made by the first open; the store's stat is under way; handles wait in `opening`
 *   READY    has handles, or pages in the cache
 *   IDLE     no handle and nothing dirty or in flight: the store is closed, the pages stay until they are
 *            reclaimed or the file is opened again (then they are kept if the store's version is the same)
 *   gone     file_free(): out of the table, memfd closed
 *
 * file_get() -> OPENING -> file_opened() -> READY -> file_maybe_idle() -> IDLE -> file_get() -> OPENING ...
 */
#pragma once

#include "daemon/dirty_set.h"
#include "daemon/file_times.h"
#include "daemon/frame_refs.h"
#include "daemon/host_mapper.h"
#include "daemon/store/store.h"
#include "daemon/worker.h"

enum file_state { FILE_OPENING, FILE_READY, FILE_IDLE };

/* What the store's file looked like when cache and store were last known to agree. */
struct file_version {
	bool valid;                /* false: we wrote since, and have not looked again */
	uint64_t size, blocks;
	struct timespec mtime, ctime;
};

/* Pages [from, to) are being cut or punched: new faults, fills, reads and write-outs there wait. */
struct file_barrier {
	bool active;
	uint64_t from, to;
};

struct file {
	struct worker *worker;
	struct list by_hash, by_worker;
	uint64_t dev, ino;
	uint32_t slot;
	struct pgc_file_entry *e;
	struct pgc_saved_file *saved; /* file_save.c */
	enum file_state state;
	struct list opening;       /* struct open_wait of handle.c */

	/* Memory: owned by this module. */
	int memfd, memfd_ro;       /* memfd_ro: the same, opened O_RDONLY, for read-only handles */
	uint64_t memfd_dev, memfd_ino; /* as /proc/PID/maps shows them */
	bool huge;                 /* it has huge pages: huge.h */
	bool no_page;              /* a window found none that was free */
	uint64_t starved_since, starved_last; /* ns: tries to read something in that found none */
	int control_fd, control_ro; /* control_ro is what clients get */
	struct pgc_control_page *control;
	uint64_t size;             /* bytes, as clients see it; the memfd has the same size */
	/* For reads that ask nobody: window.c. */
	struct shown { int fd; uint64_t *word, blocks; } shown; /* a word of bits a block, for the first `blocks` of them; none: 0 */
	struct list readers;       /* struct window_readers */
	struct written { int fd; bool kept; uint64_t *word, blocks; } written; /* for writes that ask nobody: written.c */
	/* For stores that no fault tells of: track.c. */
	struct list trackers;      /* struct tracker */
	struct tracked { int fd; bool kept; uint64_t *rows; uint32_t n_rows; /* a row of bits each; those in use, 64 a word */ unsigned look_first; } tracked;
	bool track_looking;        /* a look of the timer is under way */
	uint64_t uncut;            /* bytes: the memfd still has this size, as somebody reads there; 0: it has the file's */
	struct ring_timer cut_timer;
	struct host_mapper mapper;
	struct block_tree blocks;
	struct dirty_set kept;     /* byte ranges that pgc_keep declared */
	uint64_t kept_bytes;
	struct dirty_set pins, locked; /* byte ranges that may not be given up: by request, and because clients locked them in memory */
	bool lock_logged, stray_logged;
	uint64_t stray_cursor;     /* page: file_audit() goes on there */
	uint64_t fill_gen;         /* fills begun under an older one are thrown away */

	/* Store: owned by this module and ops.c. */
	struct store *store;       /* NULL while IDLE */
	uint64_t store_size;       /* bytes that the store has; beyond it a read is zeros without asking */
	int kept_fds[4];           /* descriptors of the store that are kept for the next daemon */
	unsigned n_kept_fds;
	bool memory_kept;          /* so are memfd and control page */
	bool sparse;               /* the store has holes: zero pages are looked at before they are written */
	bool unlinked;
	struct file_version version;
	struct store_op version_op;
	struct store_stat version_stat;
	struct store_restore restore;
	uint64_t moves, version_moves; /* begins and ends of operations of ours that move the store's times: now, and when the look began */
	bool version_busy, restoring, stat_failed;
	struct list looking, look_next; /* struct parked: wait for the look under way, and for one that has not begun */
	struct pgc_times times;
	struct task stat_task;     /* file_stat.c: what stat shows is hidden from clients until then */

	/* Address spaces and references: space.c. */
	struct list spaces;
	unsigned n_handles;        /* spaces: handles and forked children */
	unsigned n_mappings;       /* segments of all of them */
	struct frame_refs refs;
	bool refs_changed;         /* the `mappings` map is behind */
	uint64_t maps_changes;     /* of what is mapped of it, where and by whom */
	uint32_t *ref_slots;       /* slots of the `mappings` map in use */
	size_t n_ref_slots;
	struct task publish;

	/* In flight: fill.c and writeback.c. */
	struct list fills;
	struct list lent;          /* struct lane_job: pages that lanes may map */
	unsigned staged_slow;      /* reads by way of buffers that took long, in turn */
	unsigned unstaged_fills;   /* so many large ones go straight into the memfd, since that was so */
	struct list writes;        /* struct wb, in order of issue */
	uint64_t write_seq, writes_done;
	struct list unsynced;      /* blocks with pages that were written since the store's last good fsync */
	struct list syncs;         /* struct sync_dirty */
	struct task sync_task;
	bool background;           /* a background write-out is running */
	uint64_t dirty_since;      /* ns, 0: clean; when the oldest dirty page became so (a lower bound) */
	uint32_t errseq;           /* counts failed write-outs */
	int last_error;            /* of the last write-out, 0: it went well */
	int errseq_code;           /* what is reported for errseq */
	unsigned n_async;          /* write-outs that nobody waits for */
	unsigned requests;         /* in flight: the file stays */
	bool exact;                /* of a dead daemon: its memory has just as many pages as it says, and no read into it was under way: nobody looks for each */
	bool taking_over;          /* of a dead daemon: its store has not been asked for size and version yet */
	unsigned awaited;          /* handles of a dead daemon that have not attached yet (attach.c): what they have writable cannot be protected */
	bool distrusted;           /* of a dead daemon, whose record of it was damaged: what is dirty is written out, the rest is dropped */
	bool hold_writes;          /* writes of a dead daemon may still be under way: none of ours before they are over */
	uint64_t wasted;           /* pages that were read ahead and given up unasked for, since somebody looked */

	/* Changes of size and content, one at a time: ops.c. */
	struct list ops;
	struct task ops_task;
	struct file_barrier barrier;
	struct list parked;        /* struct parked: wait for the barrier */
	uint64_t size_sure;        /* bytes: the store's file system takes a file that long, as far as it was asked */

	/* Poisoned pages, to be tried again: fault.c. */
	struct list poisoned;
	unsigned n_poisoned;
	struct ring_timer poison_timer;
	unsigned poison_backoff;
	unsigned timers;           /* armed timers that point here: the file may not be freed */

	/* What holds for it by its path, as its last open found it. */
	enum retain retain;
	bool warm_start;
	uint64_t readahead_max;    /* bytes */

	/* Pages that may have lost their last mapping, with retain=mapped: retain.c. */
	uint64_t unmapped_from, unmapped_to; /* 0, 0: none */
	struct task retain_task;
	bool retain_busy;

	/* Warm starts: warm.c. */
	bool warm_looked;          /* for its record, since it was last idle */
	struct warm_job *warm_job; /* reads its record */
	struct prefetch *prefetch; /* reads its pages in */
	uint64_t warm_pages, warm_sum; /* of the record that was written last */
};

/* Pages that were read ahead in vain since the last call: whoever reads next holds back. */
static inline uint64_t file_take_wasted(struct file *f)
{
	uint64_t n = f->wasted;

	f->wasted = 0;
	return n;
}

/* What its memory and mappings consist of. */
static inline uint64_t file_unit(const struct file *f) { return f->huge ? HOST_CHUNK_SIZE : PAGE_SIZE_; }
/* How long its memfd is when it has `size` bytes. */
static inline uint64_t file_memory_size(const struct file *f, uint64_t size) { return f->huge ? align_up(size, HOST_CHUNK_SIZE) : size; }
/* Pages that there may be of it: with huge pages the last one is whole, and zeros behind the end. */
static inline uint64_t file_pages(const struct file *f) { return page_up(file_memory_size(f, f->size)); }
/* Bytes of the file in `n` pages from `page` on: the last page may hold its end, and what lies behind that is nobody's. */
static inline size_t file_bytes_in(const struct file *f, uint64_t page, uint64_t n)
{
	return (size_t)MIN(n * PAGE_SIZE_, f->size - MIN(f->size, page * PAGE_SIZE_));
}

/* The file (dev, ino) of this worker, or NULL. */
struct file *file_find(struct worker *w, uint64_t dev, uint64_t ino);
/*
 * Makes it, state OPENING, without a store. -ENOMEM, -ENFILE (no slot), memfd_create's errors. `name` is shown to people. `huge`: with huge pages, if there are
 * any.
 */
int file_new(struct file **ret, struct worker *w, uint64_t dev, uint64_t ino, uint64_t birth, const char *name, bool huge);
void file_free(struct file *f);
/*
 * The same file of a daemon that is gone, its record checked: takes over memfd and control page (-1: a new one). Blocks, store and state are the caller's
 * to add. -ESTALE: the memfd is another one. On errors the descriptors stay the caller's, and the record as it is.
 */
int file_restore(struct file **ret, struct worker *w, uint32_t slot, int memfd, int control_fd);
/* As file_restore(), with claimed memory (memory.h). Takes `memfd` in any case. */
int file_adopt(struct file **ret, struct worker *w, uint32_t slot, int memfd);
/* A file as by file_new(), with claimed memory of a daemon that is gone, of which nothing counts. Takes `memfd`. */
int file_new_empty(struct file **ret, struct worker *w, uint64_t dev, uint64_t ino, const char *name, int memfd);
/* Has the store's file changed since the version that is remembered? False where none is. */
bool file_version_differs(const struct file *f, uint64_t size, struct timespec mtime, struct timespec ctime);
/* Has what it consists of kept for the next daemon, as far as it is not yet. -EAGAIN: once more a little later; -ENFILE: there is no room. */
int file_keep(struct file *f);
void file_set_name(struct file *f, const char *name);

/*
 * The store's stat is there. A new file takes its size; a known one is compared: changed from outside means that
 * the clean pages are dropped and the size is taken over; but what was asked for before an operation of ours, at another
 * count of `moves`, tells nothing. Returns 0 or a negative errno.
 */
int file_opened(struct file *f, const struct store_stat *st, uint64_t moves);
/* The store was looked at, and that is not its version: we have written since, or may have. */
void file_looked_at(struct file *f, const struct store_stat *st);
/* No handle and nothing to do any more: closes the store, or frees the file when it may not stay. The file may be gone afterwards. */
void file_maybe_idle(struct file *f);
/* Up, set by warm.c: the file goes idle or away, with nothing dirty or in flight. */
extern void (*file_idle_hook)(struct file *f);
/* Looks at the store again and remembers its version, after our own writes; puts back the mtime that those have moved. */
void file_refresh_version(struct file *f);
/* As that; `p` is resumed when a look that begins from now on is over, however it went. Only with a store. */
void file_look(struct file *f, struct parked *p);

/* A client has changed it: its times move. */
void file_changed(struct file *f);
/* A write or the like of ours is about to be given to the store, whose times and version move. */
void file_moving(struct file *f);
/*
 * Clients read in the control page what STAT would go by. Before anything of that changes, or what of it others can see: it is hidden, and STAT is asked. Shown again by
 * file_stat_show(), at the latest in a later round; before a client that has changed something goes on, so that it need not ask.
 */
void file_stat_hide(struct file *f);
void file_stat_show(struct file *f);
/* A control page of its own, or one that a dead daemon had; and one that nobody changes any more. Hidden. */
void file_stat_begin(struct file *f);
void file_stat_end(struct file *f);
/* Makes what the store says of it what clients are to see: size, blocks, times. */
void file_stat_shown(const struct file *f, struct store_stat *st);
/* The same for what somebody else has asked the kernel. -ENOENT: there is nothing to add to that. */
int file_stat_overlay(const struct file *f, struct store_stat *st);

/* Sets the size of memfd and file; cuts bits, blocks and charges beyond it. Nothing may be in flight there. Returns 0 or a negative errno. */
int file_set_size(struct file *f, uint64_t size);
/* A write to the memfd has made it this long: takes over its size. */
void file_grown(struct file *f, uint64_t size);
/* Zeroes what the memfd holds from byte `from` to the end of that page. */
void file_zero_tail(struct file *f, uint64_t from);

/* The name of a page for the policy. */
static inline policy_key file_key(const struct file *f, uint64_t page)
{
	return (uint64_t)(f->slot - f->worker->file_slots.first) << f->worker->page_bits | page;
}

/*
 * Blocks. file_block() makes it when it is not there, in the domain of `who` (may be NULL): NULL when there is no slot (wait in
 * worker->no_room).
 */
struct block *file_block(struct file *f, uint64_t index, const struct toucher *who);
/* The block that entry `slot` tells of, of a daemon that is gone: what the memfd has of it, and what of that is dirty or kept. Frees it if nothing is left. -ENOMEM. */
int block_restore(struct file *f, uint32_t slot, uint64_t resident, uint64_t dirty, uint64_t keep);
/* Tells the policy of what block_restore() has brought, which takes longer than all the rest. */
void block_tell_policy(struct block *b);
/* `pages`: bits of b. They count and are shown from here on; the charge is the caller's. `flags`: POLICY_*. Dirty pages are resident. */
void block_set_resident(struct block *b, uint64_t pages, unsigned flags);
void block_set_dirty(struct block *b, uint64_t pages);
void block_clear_dirty(struct block *b, uint64_t pages);
void block_set_writeback(struct block *b, uint64_t pages, bool on);
void block_set_keep(struct block *b, uint64_t pages, bool on);
/* Resident pages in ranges that pgc_keep declared are dirty and kept. */
void block_apply_keep(struct block *b);
/* Written, but not yet covered by an fsync of the store; clear forgets all of the block's. */
void block_set_unsynced(struct block *b, uint64_t pages);
void block_clear_unsynced(struct block *b);
/* Pages become part of the policy, or come back from the second-chance buffer, of which it knows already. */
void block_in_policy(struct block *b, uint64_t pages, unsigned flags);
void block_came_back(struct block *b, uint64_t pages);
/* The policy has given resident pages up: all but the memfd. */
void block_give_up(struct block *b, uint64_t pages);
/* Somebody asks for pages, which are resident: for the policy, and for what was read ahead. */
void block_touched(struct block *b, uint64_t pages, unsigned flags);
/* Pages that are the next to be given up, if they may be. */
void block_deactivate(struct block *b, uint64_t pages);
/* Forgets what the second-chance buffer has of them. */
void block_forget_second(struct block *b, uint64_t pages);
/* Pins resident pages, so that the policy does not have them, or lets them go. */
void block_set_pinned(struct block *b, uint64_t pages, bool on);
/* `client`, a slot of budget->dirty_by, is about to make pages of the block dirty. */
void block_dirtied_by(struct block *b, const struct toucher *who);
/* Forgets pages (not filling, not in writeback): resident, dirty and keep go, the charge is given back. The memfd is the caller's. */
void block_forget(struct block *b, uint64_t pages);
/* Frees the block when nothing of it is left. Returns whether it did. */
bool block_maybe_free(struct block *b);
/* Charges a block's first toucher. */
void block_set_cgroup(struct block *b, struct pgc_cgroup_entry *cg);

static inline uint64_t block_first(const struct block *b) { return b->e->index * PGC_BLOCK_PAGES; }
/* Bits of block `index` for pages [from, to). */
static inline uint64_t block_part(uint64_t index, uint64_t from, uint64_t to)
{
	uint64_t first = index * PGC_BLOCK_PAGES, lo = MAX(from, first), hi = MIN(to, first + PGC_BLOCK_PAGES);

	return lo >= hi ? 0 : bits_range((unsigned)(lo - first), (unsigned)(hi - lo));
}

/* Bits of b for pages [from, to) of the file. */
static inline uint64_t block_mask(const struct block *b, uint64_t from, uint64_t to) { return block_part(b->e->index, from, to); }

/* What of the block is pinned follows file->pins and file->locked. */
void file_apply_pins(struct file *f, struct block *b);
/*
 * Pins bytes [from, to) (of whole pages), or lets them go; pages that are not here are the caller's to fill. -ENOSPC: more may not be pinned (pin_max);
 * -ENOMEM. Nothing was changed then.
 */
int file_pin(struct file *f, uint64_t from, uint64_t to, bool on);
/* Takes over `locked` (which is emptied) as what clients have locked, as far as pin_max allows. Whether all of it could be. */
bool file_set_locked(struct file *f, struct dirty_set *locked);

/* No handle is left that could write outside tracking: what was kept is dirty like the rest. */
void file_clear_keep(struct file *f);

/* Resident pages from `page` on, at most `max`. */
uint64_t file_resident_run(struct file *f, uint64_t page, uint64_t max);
/* Resident pages right below `page`, at most `max`. */
uint64_t file_resident_below(struct file *f, uint64_t page, uint64_t max);
/* Pages [from, to) that were read ahead: the stream has come to them. */
void file_used_ahead(struct file *f, uint64_t from, uint64_t to);

/* Grows `seq` of the control page. Before pages are punched: window_hide(). */
void file_bump_seq(struct file *f);
/* Punches the pages out of the memfd, so out of every mapping, whether they were stored to or not. */
int file_punch(struct file *f, uint64_t first, uint64_t n);
/* The same, but nobody is told (track.h). */
int file_punch_only(struct file *f, uint64_t first, uint64_t n);
/* Of pages [page, end), which the memfd has: punches what is neither resident nor being filled. Returns how many. */
uint64_t file_punch_strays(struct file *f, uint64_t page, uint64_t end);
/* Makes pages exist as zeros. */
int file_zero_pages(struct file *f, uint64_t first, uint64_t n);
/* Drops clean, idle pages of [from, to) (pages); with `unmapped` only in blocks that no mapping covers. Returns how many. */
uint64_t file_drop_clean(struct file *f, uint64_t from, uint64_t to, bool unmapped);
/* Those of one block, of `among`. May free it. */
uint64_t block_drop_clean(struct block *b, uint64_t among);
/* The memfd may have been cut, grown or punched by a client: sets the size right and forgets clean pages that are not there. */
void file_heal(struct file *f);

/*
 * Who may write a file holds its memfd, and can put pages there that nobody is charged for, and so can who reads one of huge pages: looks for that, and drops what it finds. Whether it is worth
 * looking again later.
 */
bool file_audit(struct worker *w);

/* Does [first, first + n) touch the barrier? Then `p` is parked until it goes. */
bool file_park(struct file *f, uint64_t first, uint64_t n, struct parked *p);
void file_lift_barrier(struct file *f);
/* References changed: the `mappings` map is brought up to date at the end of the round. */
void file_refs_changed(struct file *f);

/*
 * Its store takes nothing and it has a good part of the memory dirty already: no more of it may become dirty, or it would take the
 * memory of all others.
 */
bool file_is_stuck(const struct file *f);
/* A write-out failed: every handle will hear of it once. */
void file_record_error(struct file *f, int error);
