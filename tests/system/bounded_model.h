/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model of exerciser-bounded: large sparse files, of which only numbers are kept. A file is an array of units of 1 KiB; each has a generation,
 * which says what its bytes are. A store makes the next generation, a truncation makes zeros. What has never been written costs nothing.
 *
 * All of it lies in shared mappings that are made before the first fork. Order: a page's lock is held while its bytes are used, shared to read
 * and exclusive to change; a file's lock is held shared for that, and exclusive to change the size. No process that holds one may die: the
 * supervisor ends the whole run then.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE         ((uint64_t)4096)
#define UNIT         ((uint64_t)1024)
#define UNITS        (PAGE / UNIT)    /* in a page */
#define FILES_MAX    16
#define PROCS_MAX    16
#define VICTIMS      2                /* processes on the file whose store is slow */
#define SPAN_MAX     ((uint64_t)64)            /* pages that one operation may touch */
#define STRIPES      4096u            /* locks a file; more than SPAN_MAX */

enum kind { LOAD, STORE, SCAN, PREAD, PWRITE, TRUNCATE, FSYNC, MSYNC, REOPEN, KINDS };

struct model_file {
	char path[400];
	_Atomic uint64_t size;     /* whole units; changes with the file's lock held exclusively */
	_Atomic uint32_t *units;   /* generation and MODEL_ZERO; `cap` / UNIT of them, for `cap` bytes */
	pthread_rwlock_t lock;
	pthread_rwlock_t page[STRIPES];
};

struct counters {
	_Atomic uint64_t ops[KINDS];
	_Atomic uint64_t longest_ns[KINDS];
};

struct model {
	uint64_t seed, cap;        /* bytes of each file at most */
	int files, procs;
	_Atomic int stop;          /* 1: workers end */
	_Atomic int failed;        /* the first to fail sets it, and prints */
	_Atomic uint64_t ops;      /* of all workers, victims not counted */
	struct counters count;
	_Atomic int victims_ready;
	_Atomic uint64_t victim_ops, victim_slow; /* slow: that took at least half of what the store was told to take */
	_Atomic uint64_t delay_us; /* what it was told; 0: nothing */
	struct model_file file[FILES_MAX];
};

extern struct model *model;
extern int self;                   /* number of the process, -1: the supervisor */

#define MODEL_ZERO 0x80000000u     /* in a unit: reads as zeros; the generation is that of the last store */

int model_new(uint64_t seed, int files, int procs, uint64_t cap); /* -ENOMEM */
uint64_t now_ns(void);

/* The bytes of one unit. `state` is what model_file.units has. */
void unit_fill(uint8_t *buf, int file, uint64_t unit, uint32_t state);

/* A file's lock and those of the pages of [off, off + len), len > 0, at most SPAN_MAX pages. */
void model_lock(int file, uint64_t off, uint64_t len, bool exclusive);
void model_unlock(int file, uint64_t off, uint64_t len);
void model_lock_file(int file);
void model_unlock_file(int file);

/* Locked exclusively: makes the next generation of whole units and puts its bytes into `buf`. It is in the model after model_stored(). */
void model_next(int file, uint64_t off, uint64_t len, uint8_t *buf);
void model_stored(int file, uint64_t off, uint64_t len);
/* With the file's lock held exclusively. */
void model_resize(int file, uint64_t size);
/* Locked: fails unless these are the bytes. Whole units; `what` was done to get them. */
void model_check(int file, uint64_t off, uint64_t len, const uint8_t *got, const char *what);

/* The first to fail prints; ends this process. */
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
