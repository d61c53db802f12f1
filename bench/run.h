/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One run of one workload by one contestant, and what it is made of. A run has a process of its own, which is executed anew (so that the preload library can be in
 * front of it) and shares one `struct run` with pgc-bench: pgc-bench writes the first part, the run the second.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "bench.h"

/* ---- latencies: buckets of at most 1/32 of their value, 1 ns to 68 s ---- */

#define HIST_SUB     32u
#define HIST_BUCKETS (HIST_SUB * 32u)

struct hist { uint64_t n, bucket[HIST_BUCKETS]; };

void hist_add(struct hist *h, uint64_t ns);
void hist_merge(struct hist *h, const struct hist *other);
double hist_quantile(const struct hist *h, double q); /* ns, the middle of the bucket; 0: empty */
double hist_value(unsigned bucket);                   /* ns, likewise */

/* ---- contestants ---- */

enum contestant { KERNEL, FUSE, FUSE_NOCACHE, PAGECACHED, PRELOAD, CONTESTANTS };
#define BIT(who)         (1u << (who))
#define ALL_CONTESTANTS  (BIT(CONTESTANTS) - 1)
#define MAP_CONTESTANTS  (ALL_CONTESTANTS & ~BIT(FUSE_NOCACHE)) /* the kernel refuses shared mappings of direct I/O */
#define PLAIN_CONTESTANTS (ALL_CONTESTANTS & ~BIT(PAGECACHED))  /* programs of others make plain calls */
#define DAEMON_CONTESTANTS (BIT(PAGECACHED) | BIT(PRELOAD))
#define FUSE_CONTESTANTS (BIT(FUSE) | BIT(FUSE_NOCACHE))

struct pgc_file;
struct subject {
	enum contestant who;
	int fd;
	int access;                        /* O_RDWR or O_RDONLY */
	struct pgc_file *f;
};

/* All but map return 0 or a count, or a negative errno. */
struct contestant_ops {
	const char *name, *title;
	int (*open)(struct subject *s, const char *path);
	void *(*map)(struct subject *s, uint64_t len, int prot);        /* shared; MAP_FAILED and errno */
	int (*unmap)(void *p, uint64_t len);
	int (*advise_random)(struct subject *s, void *p, uint64_t len); /* p NULL: for reads of the whole file */
	ssize_t (*pread)(struct subject *s, void *buf, size_t n, uint64_t off);
	ssize_t (*pwrite)(struct subject *s, const void *buf, size_t n, uint64_t off);
	int (*fsync)(struct subject *s);
	void (*close)(struct subject *s);
};
extern const struct contestant_ops contestants[CONTESTANTS];

/* These end the program where the contestant fails. */
void subject_open(struct subject *s, enum contestant who, const char *path);
void subject_open_read_only(struct subject *s, enum contestant who, const char *path);
uint8_t *subject_map(struct subject *s, uint64_t len, bool write);
void subject_random(struct subject *s, void *p, uint64_t len);
void subject_sync(struct subject *s);

/* ---- a run ---- */

#define PARTS_MAX 64u       /* threads, or processes */
#define MANY_FILES 8u
#define CHECKS_MAX 256u

struct part { double from, to; uint64_t n; int status; };

struct run {
	/* of pgc-bench's */
	unsigned workload;
	enum contestant who;
	unsigned number;                   /* 0: not counted */
	char path[512];                    /* the contestant's file; others of its own have this name and a suffix */
	char lower[512];                   /* the same file, not through FUSE */
	char many[512];                    /* MANY_FILES files that are only read: a number from 0 on follows */
	uint64_t size, range;              /* of the file; as much as is read in first by what is warm */
	uint64_t many_size;
	double seconds;                    /* a run that can end early does after so long */
	bool slow;                         /* the store is */
	pid_t server;                      /* the daemon, or the process of the FUSE file system; 0: none */
	/* of the run's */
	double value, second;
	volatile int ready;
	unsigned n_checks;
	struct { uint64_t off, word; } check[CHECKS_MAX];
	struct part part[PARTS_MAX];
	struct hist hist;
};

struct workload {
	const char *name, *title, *unit;
	void (*run)(struct run *r, const struct workload *w);
	unsigned contestants;
	bool cold;                         /* caches are empty when it begins */
	bool more_is_better;
	bool slow;                         /* also on slow stores */
	uint64_t n;                        /* its number: threads, bytes, pages */
	const char *second_title, *second_unit; /* a further figure, of which less is better */
	const char *sweep;                 /* the name of a series of workloads that differ in `x` */
	double x;
	const char *setting;               /* of the daemon */
	bool many;                         /* it wants the many files */
	bool huge;                         /* the daemon is to have huge pages, of the system; files are only read */
	bool write;
};
extern const struct workload *workload_at(unsigned i); /* NULL: there are no more */

/* workloads.c: mappings */
void run_cold_sequential(struct run *r, const struct workload *w);
void run_cold_random(struct run *r, const struct workload *w);    /* n threads after MADV_RANDOM; 0: one, all pages, no advice */
void run_warm_touch(struct run *r, const struct workload *w);
void run_warm_second(struct run *r, const struct workload *w);
enum { ANY_CPU, ONE_CPU, SAME_CPU, OTHER_CPU };                    /* the run's thread: anywhere, on one processor; the server's threads on the same, on another */
void run_fault_memory(struct run *r, const struct workload *w);   /* n: one of these */
void run_first_store(struct run *r, const struct workload *w);    /* n: 1 in sequence, 0 in random order */
void run_fsync(struct run *r, const struct workload *w);          /* n pages in random order; 0: the whole file in sequence */
/* workloads_io.c: calls; n bytes */
void run_pread(struct run *r, const struct workload *w);
void run_pwrite(struct run *r, const struct workload *w);
void run_direct_sequential(struct run *r, const struct workload *w); /* past all caches, as many at a time as is best */
/* workloads_many.c: n processes */
void run_processes(struct run *r, const struct workload *w);
void run_warm_start(struct run *r, const struct workload *w);
void run_clients(struct run *r, const struct workload *w);
void run_many_files(struct run *r, const struct workload *w);
/* databases.c */
void database_make(const char *lower, bool sqlite);               /* beside the contestant's file */
void run_lmdb_read(struct run *r, const struct workload *w);
void run_sqlite_read(struct run *r, const struct workload *w);
void run_sqlite_write(struct run *r, const struct workload *w);   /* n rows a transaction */
extern const bool databases_lmdb, databases_sqlite;               /* they were there when this was built */

/* What several of them need. */
uint64_t now_ns(void);
uint64_t page_sum(uint64_t page, unsigned step);                  /* of the words of a page, `step` bytes from one to the next */
void touch_all(const uint8_t *map, uint64_t from, uint64_t len);  /* the first word of each page, compared */
void run_check(struct run *r, uint64_t off, uint64_t word);         /* to be found in the store: taken if there is room for it */
void run_checks(struct run *r);                                   /* pgc-bench looks now, past all caches; ends the program where it is not so */
void run_ask(void (*ask)(void));                                  /* what run_checks calls */

/* ---- stores.c: files, mounts, the daemon ---- */

struct stores {
	const char *dir, *daemon, *fuse, *preload; /* a folder on the file system under test; three files, each may be NULL or missing */
	uint64_t size;
	const char *settings[16];          /* further ones of the daemon */
	unsigned n_settings;
	bool need_fuse;                    /* for slow stores, also without a contestant */
	unsigned contestants;              /* those that are wanted; stores_begin takes out what cannot be had, and says so */
};
void stores_begin(struct stores *s);
void stores_end(bool emergency);                                  /* in an emergency nothing that takes long or fails */
/* A store with a delay (0: the folder itself) and a daemon with this setting (NULL: none) from now on. */
void stores_use(unsigned delay_ms, const char *setting);
bool stores_allow_huge(void);                                       /* that the system hands out huge pages, until the end; false: only root may */
void stores_prepare(struct run *r, const struct workload *w);     /* paths and numbers of a run; makes files that are not there yet */
void stores_drop(const struct run *r, const struct workload *w);  /* every cache in which the contestant could find something */
void stores_exec_as(const struct run *r);                         /* in a run's process, before it is executed: its environment */
const char *stores_any_file(void);                                /* that lies on the file system under test, of `size` bytes */

/* ---- noise.c ---- */

#define NOISE_MAX 20000u
void noise_begin(const char *path, uint64_t size);            /* the file is read from */
void noise_sample(void);
struct noise { unsigned n; double spin[3], read[3]; double stolen, load; }; /* median, p90, most, in ms and us; share of processor time; load average */
void noise_end(struct noise *ret);
