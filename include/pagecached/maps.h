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
	pgc_u64 put_back;              /* pages that were stored to while they were given up */
	pgc_u64 faults_lent;           /* whose pages a lane has mapped */
};

/*
 * What a daemon that takes over has to know besides: maps `saved_files` and `saved_handles`. The layout is versioned: a daemon takes the state of one
 * with the same major version and a minor version that is not newer than its own.
 */
#define PGC_SAVED_MAGIC 0x3176617363677001ull
#define PGC_SAVED_MAJOR 2
#define PGC_SAVED_MINOR 0

struct pgc_saved_range { pgc_u64 start, end; }; /* bytes */
#define PGC_SAVED_RANGES   4
#define PGC_SAVED_POISONED 8

/* A change of size or content under way: at most one a file. Kinds as in enum file_op_kind of the daemon. */
struct pgc_saved_op {
	pgc_u32 kind;          /* 0: none, else 1 + kind */
	pgc_u32 mode;
	pgc_u64 handle, tag;   /* who asked for it */
	pgc_u64 off, len;      /* an append's `off` is where it goes */
	pgc_u64 size;          /* of the file before it */
};

struct pgc_saved_time { pgc_u64 sec; pgc_u32 nsec, pad; };

/* Map `saved_files`: index = file number. */
struct pgc_saved_file {
	pgc_u32 file;          /* its own number, set last and cleared first; 0: empty */
	pgc_u32 crc;           /* CRC-32C of dev to memfd_ino */
	pgc_u64 dev, ino;      /* identity of the store's file */
	pgc_u64 memfd_dev, memfd_ino;
	pgc_u32 retain, warm_start;
	pgc_u64 readahead_max; /* bytes */
	pgc_u32 dio_align;
	pgc_u32 filling;       /* reads into its memory that are under way: it may hold pages that are not resident, and get more */
	pgc_u32 moving;        /* 1: what a daemon before had asked of the store may be under way still */
	pgc_u32 tracked;       /* 1: somebody tracks stores without faults, or did: what is not dirty may be all the same */
	/* The store's version, while cache and store agree; version_valid is cleared before anything is written. */
	pgc_u32 version_valid, times_valid;
	pgc_u64 version_size, version_blocks;
	struct pgc_saved_time version_mtime, version_ctime;
	pgc_u32 errseq;
	int errseq_code, last_error;
	pgc_u32 n_kept, n_pins, n_poisoned;
	struct pgc_saved_op op;
	struct pgc_saved_range kept[PGC_SAVED_RANGES], pins[PGC_SAVED_RANGES]; /* cover what was declared, perhaps more */
	pgc_u64 poisoned[PGC_SAVED_POISONED]; /* pages, the newest ones */
	unsigned char times[160]; /* a struct pgc_times */
	/* Pages whose write-protection is being looked at and renewed; which of them were written is not in `blocks` yet. */
	pgc_u64 scan_from, scan_to;
	/* Pages that are being given up, and in the pipe of the worker that does it. drop_n 0: none. */
	pgc_u64 drop_from;
	pgc_u32 drop_n, pad2;
};

/* In slot 0 of `saved_files`. */
struct pgc_saved_header {
	pgc_u32 file;          /* 0 */
	pgc_u32 crc;           /* CRC-32C of magic to boot_id */
	pgc_u64 magic;
	pgc_u32 major, minor;
	pgc_u32 workers, files, blocks, mappings, cgroups, handles; /* entries of the maps */
	unsigned char boot_id[16];
	pgc_u32 incarnation;   /* how many daemons have had this state */
	pgc_u32 made_folder;   /* the folder of the pins is ours to remove */
	char version[32];      /* of the daemon that wrote it last */
};

#define PGC_SAVED_READABLE      (1u << 0)
#define PGC_SAVED_WRITABLE      (1u << 1)
#define PGC_SAVED_KERNEL_FAULTS (1u << 2)
#define PGC_SAVED_CLOSING       (1u << 3)
#define PGC_SAVED_CHILD         (1u << 4) /* a forked child: no socket */
#define PGC_SAVED_ANSWERED      (1u << 5) /* the client has it */
#define PGC_SAVED_ASYNC         (1u << 6) /* stores are tracked without faults, in row `track_row` */

/* The last request of a handle that changed something and was carried out; its reply may not have been sent. */
struct pgc_saved_done {
	pgc_u64 tag;           /* 0: none */
	pgc_u32 type;          /* enum pgc_msg_type */
	pgc_u32 status;        /* errno */
	pgc_u64 len, off, size;
};

/* Map `saved_handles`. */
struct pgc_saved_handle {
	pgc_u32 file;          /* set last and cleared first; 0: empty */
	pgc_u32 crc;           /* CRC-32C of id to flags, without PGC_SAVED_CLOSING */
	pgc_u64 id;            /* never used again */
	pgc_u64 parent;        /* a child's: id of the handle or child that forked */
	pgc_u64 start_time;    /* of the process (proc(5)), to tell it from a later one of the same number; 0: not known */
	int pid;               /* 0: not known */
	pgc_u32 uid;
	pgc_u32 flags;         /* PGC_SAVED_* */
	pgc_u32 errseq;        /* of the file, as this handle has heard of it */
	struct pgc_saved_done done;
	pgc_u64 last_addr;     /* some address that was mapped */
	pgc_u64 window_addr, window_len; /* mapped for reads that ask nobody (wire.h) */
	pgc_u32 track_row;     /* of the file's memfd of bits: which pages it may have mapped to store to */
	unsigned char reserved[12];
};

_Static_assert(sizeof(struct pgc_saved_file) % 8 == 0, "layout");
_Static_assert(sizeof(struct pgc_saved_header) <= sizeof(struct pgc_saved_file), "layout");
_Static_assert(sizeof(struct pgc_saved_handle) % 8 == 0, "layout");
_Static_assert(sizeof(struct pgc_file_entry) == 224, "layout");
_Static_assert(sizeof(struct pgc_block_entry) == 64, "a block is one cache line");
_Static_assert(sizeof(struct pgc_mapping_entry) == 32, "layout");
_Static_assert(sizeof(struct pgc_cgroup_entry) == 56, "layout");
_Static_assert(sizeof(struct pgc_stats_entry) % 8 == 0, "layout");

#endif
