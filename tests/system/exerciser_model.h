/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the exerciser's processes share: the model of every file (size and bytes), page locks that order operations
 * which touch the same pages, the operation that each process is in the middle of, and its history.
 *
 * All of it lives in one shared anonymous mapping made before the first fork. Nothing in it needs its owner alive: a
 * lock word says who holds it, so that the supervisor can let go what a killed process held, and an intent says
 * what a killed process may or may not have done.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MODEL_PAGE       4096ull
#define MODEL_FILES_MAX  32
#define MODEL_PROCS_MAX  16
#define MODEL_SLOTS_MAX  (2 * MODEL_PROCS_MAX)  /* every process, and a forked child of each */
#define MODEL_HISTORY    64
#define MODEL_FILE_MAX   (4ull << 20)           /* the largest cap of a file */

enum op {
	OP_NONE,
	OP_LOAD, OP_STORE, OP_SYSCALL_LOAD, OP_SYSCALL_STORE, OP_SIGBUS, OP_TAIL_STORE,
	OP_PREAD, OP_PWRITE, OP_PWRITE_MAPPED, OP_PREAD_MAPPED, OP_APPEND,
	OP_TRUNCATE, OP_PUNCH, OP_FALLOCATE,
	OP_MMAP, OP_MUNMAP, OP_MUNMAP_PART,
	OP_MREMAP_SHRINK, OP_MREMAP_GROW, OP_MREMAP_MOVE, OP_MREMAP_DUP,
	OP_MSYNC, OP_FSYNC, OP_FDATASYNC,
	OP_DONTNEED, OP_WILLNEED, OP_FADVISE, OP_FSTAT,
	OP_FORK, OP_REOPEN, OP_DROP, OP_KILL,
	OP_STORM, OP_VERIFY, OP_CHECK,
	OP_COUNT,
};

/* An operation that changes a file, as long as it is under way: set before, cleared after the model has it. */
struct intent {
	_Atomic int kind;          /* enum op, OP_NONE: nothing */
	int         file;
	uint64_t    off, len;
	uint64_t    stamp;         /* of the bytes; 0: zeros */
	uint64_t    old_size, new_size;
};

struct history {
	uint64_t t_ns, opno;
	int      op, file;
	uint64_t off, len;         /* of the file */
	uint64_t addr;             /* of the mapping, 0: none */
	long     result;           /* 1 while under way */
};

struct slot {
	_Atomic pid_t    pid;
	_Atomic uint64_t opno;     /* grows over all incarnations */
	_Atomic uint64_t ack;      /* the last phase word that was dealt with */
	uint32_t         incarnation;
	struct intent    intent;
	struct history   history[MODEL_HISTORY];
	_Atomic uint64_t history_n;
};

struct model_file {
	_Atomic uint64_t size;     /* stable while one page lock is held; changes with all of them held */
	uint64_t         cap;      /* the largest size, whole pages */
	char             path[512];
	_Atomic uint64_t lock[MODEL_FILE_MAX / MODEL_PAGE]; /* low half: mask of readers; above it: 1 + the writer */
	_Atomic uint32_t cut[MODEL_FILE_MAX / MODEL_PAGE];  /* grows when a truncation takes the page away */
	_Atomic uint32_t touched[MODEL_FILE_MAX / MODEL_PAGE]; /* grows with each exclusive lock, right after it was taken */
	_Atomic uint32_t synced[MODEL_FILE_MAX / MODEL_PAGE]; /* what `touched` was when the page was synced last */
	uint8_t          bytes[MODEL_FILE_MAX];             /* zero past the size */
};

enum phase { PHASE_RUN, PHASE_PAUSE, PHASE_VERIFY, PHASE_STORM, PHASE_EXIT };

struct model {
	uint64_t         seed;
	int              procs, files;
	_Atomic uint64_t phase;    /* generation << 4 | enum phase */
	_Atomic uint64_t ops;      /* finished, by all processes together */
	_Atomic uint64_t beat;     /* anything that moves, for the watchdog */
	_Atomic int      kill_request; /* 1 + slot */
	_Atomic uint64_t compared; /* bytes, with the model */
	_Atomic int      failed;   /* 1 + slot of the first that failed */
	_Atomic int      fail_file;
	_Atomic uint64_t fail_off;
	_Atomic uint64_t storm;    /* number of the storm */
	_Atomic uint64_t count[OP_COUNT];
	struct slot      slots[MODEL_SLOTS_MAX];
	struct model_file file[];
};

extern struct model *model;
extern int self;               /* my slot; the supervisor's checker uses MODEL_SLOTS_MAX - 1 */

int model_new(uint64_t seed, int procs, int files);
const char *op_name(int op);
int op_by_name(const char *name, size_t len);

/* The bytes that a stamp means at a file offset; stamp_new() makes the next of this process. */
uint64_t stamp_new(void);
void stamp_fill(uint8_t *buf, uint64_t off, uint64_t len, uint64_t stamp);
uint8_t stamp_byte(uint64_t off, uint64_t stamp);

/* Page locks of [off, off + len), len > 0: taken in ascending order; never while any other is held, save by trying. */
void model_lock(struct model_file *f, uint64_t off, uint64_t len, bool exclusive);
bool model_trylock(struct model_file *f, uint64_t off, uint64_t len, bool exclusive);
void model_unlock(struct model_file *f, uint64_t off, uint64_t len);
void model_unlock_dead(int slot);
/* Both change without a lock, in a storm. */
void model_touch(struct model_file *f);

/*
 * What a sync covers: begin notes which changes were complete before it, done says that it succeeded. Then model_page_synced() is true for as long as
 * nobody changes the page; *ret_touched is the same at a second call if nobody has begun to in between.
 */
struct model_sync {
	struct model_file *file;
	uint64_t first, n;         /* pages */
	uint32_t touched[MODEL_FILE_MAX / MODEL_PAGE];
	bool     whole[MODEL_FILE_MAX / MODEL_PAGE]; /* not in the middle of a change */
};
void model_sync_begin(struct model_sync *s, struct model_file *f, uint64_t off, uint64_t len);
void model_sync_done(const struct model_sync *s);
bool model_page_synced(const struct model_file *f, uint64_t page, uint32_t *ret_touched);

void intent_begin(enum op kind, int file, uint64_t off, uint64_t len, uint64_t stamp, uint64_t old_size,
	uint64_t new_size);
void intent_end(void);

/* What a finished change does to the model. */
void model_write(struct model_file *f, uint64_t off, const uint8_t *buf, uint64_t len);
void model_zero(struct model_file *f, uint64_t off, uint64_t len);
void model_resize(struct model_file *f, uint64_t size);

struct history *history_begin(enum op op, int file, uint64_t off, uint64_t len, const void *addr);
void history_end(struct history *h, long result);
void history_dump(void);

/* Ends this process: the first to fail prints why. `off` is the file offset at fault, ~0: none. */
void fail_at(int file, uint64_t off, const char *fmt, ...) __attribute__((noreturn, format(printf, 3, 4)));
/* Compares and fails at the first byte that differs. `again` reads the same bytes once more, or is NULL. */
void expect_bytes(int file, uint64_t off, const uint8_t *got, const uint8_t *want, uint64_t len, const char *what,
	const uint8_t *again);
