/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/*
 * Layout of the state that the daemon keeps in mmapable BPF array maps, shared by the daemon, the BPF
 * programs and anyone who reads the maps. The daemon's plain stores are what a reader sees, so a reader
 * may see an entry in the middle of a change.
 *
 * A slot is empty while its `file` (in `cgroups`: `id`) is 0, whatever else it holds. A name always ends with a zero
 * byte. File numbers, and the indexes of slots of `files`, `blocks` and `mappings` that are used, start at 1.
 */
#ifndef PAGECACHED_MAPS_H
#define PAGECACHED_MAPS_H

#ifndef __VMLINUX_H__
#ifdef __bpf__
typedef unsigned int pgc_u32;
typedef unsigned long long pgc_u64;
#else
#include <stdint.h>
typedef uint32_t pgc_u32;
typedef uint64_t pgc_u64;
#endif
#endif

#define PGC_NAME_MAX 128

/* Map `files`: index = file number. */
struct pgc_file_entry {
	pgc_u32 file;          /* its own number; 0: empty */
	pgc_u32 worker;
	pgc_u64 dev, ino;      /* identity of the store's file */
	pgc_u64 size;          /* bytes, as clients see it */
	pgc_u32 handles;
	pgc_u32 mappings;
	pgc_u64 resident;      /* pages */
	pgc_u64 dirty;
	pgc_u64 writeback;
	pgc_u64 keep;
	pgc_u64 dirty_since;   /* CLOCK_MONOTONIC ns of the oldest dirty page, 0: none */
	pgc_u32 flags;         /* PGC_FILE_* of wire.h */
	pgc_u32 error;         /* errno of the last failed write-out, 0: none since the last good one */
	pgc_u32 kernel_fault_handles;
	pgc_u32 pad;
	char name[PGC_NAME_MAX];
};

/* Map `blocks`: one cache line a block of 64 pages. Bit n of a bitmap is page index * 64 + n. */
struct pgc_block_entry {
	pgc_u32 file;          /* 0: empty */
	pgc_u32 refs;          /* mappings that cover any of it */
	pgc_u64 index;         /* file offset / 256 KiB */
	pgc_u64 cgroup;        /* id of the first toucher's memory cgroup, which is charged */
	pgc_u64 resident;
	pgc_u64 dirty;
	pgc_u64 writeback;
	pgc_u64 keep;
	pgc_u64 dirty_since;   /* CLOCK_MONOTONIC ns, 0: clean */
};

/* Map `mappings`: one entry a file range with equal reference count and cgroup. */
struct pgc_mapping_entry {
	pgc_u32 file;          /* 0: empty */
	pgc_u32 refs;          /* mappings that cover this range */
	pgc_u64 start, end;    /* bytes */
	pgc_u64 cgroup;        /* the first to map it */
};

/* Map `cgroups`. Slot 0 stands for all that found no slot of their own, or whose cgroup is not known. */
struct pgc_cgroup_entry {
	pgc_u64 id;            /* inode number of the cgroup's folder; 0: empty; all ones in slot 0 while it is used */
	pgc_u64 mapped;        /* pages that this cgroup was the first to map */
	pgc_u64 resident;      /* pages of blocks that it was the first to touch */
	pgc_u64 dirty;
	pgc_u32 handles;
	pgc_u32 pad;
	pgc_u64 limit;         /* pages it may have resident, by the configuration; 0: no limit of its own */
	pgc_u64 reclaimed;     /* pages of it that were given up */
};

/* Map `stats`: one entry a worker, and a last one of the main thread; counters since the start of the daemon. */
struct pgc_stats_entry {
	pgc_u64 faults_missing, faults_minor, faults_wp;
	pgc_u64 faults_unknown;        /* at addresses that no mapping covers */
	pgc_u64 pages_mapped;          /* by CONTINUE */
	pgc_u64 fills, fill_bytes, fill_errors, readahead_pages;
	pgc_u64 reads, writes;         /* pgc_pread, pgc_pwrite requests */
	pgc_u64 writeouts, writeout_bytes, writeout_errors;
	pgc_u64 syncs, punched_pages, poisoned_pages;
	pgc_u64 events_fork, events_remap, events_remove, events_unmap;
	pgc_u64 ioctl_retries;         /* EAGAIN: an event was waiting */
	pgc_u64 bad_messages, handles_opened;
	pgc_u64 resident, dirty, writeback, keep; /* pages now */
	pgc_u64 pinned, second_chance;            /* pages now */
	pgc_u64 refaults;              /* fills of pages that were given up not long ago */
	pgc_u64 soft_faults;           /* pages that came back from the second-chance buffer */
	pgc_u64 reclaimed, demoted;    /* pages given up; pages moved into the second-chance buffer */
	pgc_u64 direct_reclaims;       /* charges that had to make room themselves */
	pgc_u64 readahead_hits;        /* pages read ahead that were then asked for */
	pgc_u64 readahead_wasted;      /* pages read ahead that were dropped without that */
	pgc_u64 throttled;             /* stores and writes that waited for dirty pages to be written */
	pgc_u64 throttled_ns;
	pgc_u64 fault_wait_max_ns;     /* the longest that a fault has waited */
};

_Static_assert(sizeof(struct pgc_file_entry) == 224, "layout");
_Static_assert(sizeof(struct pgc_block_entry) == 64, "a block is one cache line");
_Static_assert(sizeof(struct pgc_mapping_entry) == 32, "layout");
_Static_assert(sizeof(struct pgc_cgroup_entry) == 56, "layout");
_Static_assert(sizeof(struct pgc_stats_entry) % 8 == 0, "layout");

#endif
