/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol between libpagecached (or pagecachectl) and the daemon.
 *
 * Transport: a Unix SOCK_SEQPACKET connection. Every message, in both directions, is exactly one
 * struct pgc_msg of PGC_MSG_SIZE bytes, all integers little-endian, unused bytes zero. Descriptors
 * travel beside it as SCM_RIGHTS. Anything else (a wrong size, an unknown type, a reserved byte that is
 * set, a wrong number or kind of descriptors) ends that connection.
 *
 * A connection starts with HELLO. With role CLIENT the next message is OPEN or CLONE, and the
 * connection is one handle from then on: it lives as long as the socket. With role CONTROL the PGC_CTL_*
 * requests follow.
 *
 * Each request carries a tag chosen by the client; its one reply (type | PGC_MSG_REPLY, same tag) comes
 * when the work is done, so replies may overtake each other. A reply's `status` is 0 or a positive errno.
 * At most PGC_REQUESTS_MAX requests may be outstanding on one connection: with one more the daemon stops
 * reading from it until one is answered.
 *
 * The daemon may die and another one take over. Where its sockets were kept for it (by the service manager, or pagecached --keep) the next one says
 * RESUMED on each of them, before anything else; the client then sends all requests that have not been answered once more, in the order of their tags, with
 * the same tags and PGC_REQUEST_AGAIN as status, and XFER before them if it had made a transfer area. A request that the dead daemon had carried out is
 * not carried out twice. Where they were not kept the client connects anew and says ATTACH instead of OPEN.
 */
#ifndef PAGECACHED_WIRE_H
#define PAGECACHED_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "pagecached/shown.h"

#define PGC_WIRE_MAGIC   0x31434750u /* "PGC1" */
#define PGC_WIRE_VERSION 8u          /* differs: the daemon answers EPROTO and hangs up */

#define PGC_MSG_SIZE     256
#define PGC_FDS_MAX      4
#define PGC_REQUESTS_MAX 64

#define PGC_PAGE_SIZE    4096u
#define PGC_BLOCK_PAGES  64u
#define PGC_BLOCK_SIZE   (PGC_PAGE_SIZE * PGC_BLOCK_PAGES)

/* The most that one READ or WRITE may move, and the size of the transfer area for writes. */
#define PGC_READ_MAX     (1u << 20)
#define PGC_WRITE_MAX    (256u << 10)
#define PGC_XFER_SIZE    (1u << 20)
#define PGC_DATA_MAX     0x7ffff000u /* bytes of one WRITE with a data memfd; one such at a time on a handle: EBUSY */

#define PGC_MSG_REPLY    0x80000000u
/*
 * Status of a request that is sent once more after RESUMED: with the incarnation that RESUMED named, so that one which another dead daemon has left unread does
 * not count; 0 after ATTACH.
 */
#define PGC_REQUEST_AGAIN 1u
#define PGC_REQUEST_AGAIN_TO(incarnation) (PGC_REQUEST_AGAIN | (uint32_t)((incarnation) & 0xffffff) << 8)

enum pgc_msg_type {
	PGC_MSG_HELLO = 1,      /* [/proc/self/pagemap, with PGC_FEATURE_PAGEMAP] */

	/* One handle. Client to daemon; descriptors in brackets, those of the reply after the arrow. */
	PGC_MSG_OPEN = 16,      /* [uffd, buffered fd, direct fd or none] -> [control page, memfd unless write-only] */
	PGC_MSG_CLONE,          /* [uffd, memfd] -> [control page]: a handle on what a memfd stands for (after fork) */
	PGC_MSG_CLOSE,          /* no more requests but SYNC; the daemon hangs up once the last mapping is gone */
	PGC_MSG_MAP,            /* a range that the client has mapped and registered */
	PGC_MSG_POPULATE,       /* fill and map a range of addresses */
	PGC_MSG_READ,           /* make a file range resident */
	PGC_MSG_XFER,           /* [memfd of PGC_XFER_SIZE bytes, sealed against shrinking]: the transfer area */
	PGC_MSG_WRITE,          /* [data memfd or none] copy from the transfer area, or from that memfd, into the file */
	PGC_MSG_SYNC,           /* fsync, fdatasync, msync */
	PGC_MSG_TRUNCATE,
	PGC_MSG_FALLOCATE,
	PGC_MSG_STAT,           /* -> [life page, if it is wanted] */
	PGC_MSG_FADVISE,        /* file range */
	PGC_MSG_MADVISE,        /* range of addresses */
	PGC_MSG_KEEP,           /* file range is (not) written outside tracking */
	PGC_MSG_SEEK,           /* where data or a hole begins */
	PGC_MSG_ATTACH,         /* [uffd, memfd unless write-only, buffered fd, direct fd or none] -> [control page]: a handle of a daemon that is gone */
	PGC_MSG_CHILD,          /* [uffd] role TWIN: a forked child of a daemon that is gone; the connection ends with the answer */
	PGC_MSG_WINDOW,         /* [slots, touched] -> [shown, life page, written]: reads and writes without a call */

	PGC_MSG_RESUMED = 48,   /* daemon to client, without being asked, tag 0: see above */
	PGC_MSG_ENDED,          /* likewise: a closed handle has nothing mapped any more, the daemon is about to hang up. Without it, it died */

	/* Role CONTROL. LIST requests are answered by any number of replies with `more` set, then one without. */
	PGC_CTL_STATUS = 64,
	PGC_CTL_FILES,
	PGC_CTL_MAPPINGS,
	PGC_CTL_SYNC,           /* one file (dev, ino) or all (0, 0) */
	PGC_CTL_DROP,           /* likewise; root and the daemon's own user only */
	PGC_CTL_INJECT,         /* faults for a test store; only when the daemon runs with test_stores=yes */
	PGC_CTL_CGROUPS,        /* LIST: the map `cgroups`, and users with a limit */
	PGC_CTL_SET,            /* change a setting while the daemon runs; root and the daemon's own user only */
	PGC_CTL_PIN,            /* keep a range resident, or (on = 0) no more; likewise */
	PGC_CTL_MEMORY,
	PGC_CTL_PINS,           /* LIST: what is pinned */
	PGC_CTL_STAT,           /* what of a stat(2) of a cached file is different with what the cache holds */
	PGC_CTL_CHECK,          /* LIST: one step of comparing the state with what it stands for; root and the daemon's own user only */
};

/* TWIN: a process of the daemon before, which holds what no client can hand over; the daemon's own user only. */
enum pgc_role { PGC_ROLE_CLIENT = 1, PGC_ROLE_CONTROL = 2, PGC_ROLE_TWIN = 3 };

/* HELLO features, both ways: the client's offer, the daemon's choice out of it. */
#define PGC_FEATURE_KERNEL_FAULTS (1ull << 0) /* reply carries a /dev/userfaultfd descriptor to make userfaultfds with */

#define PGC_FEATURE_PAGEMAP       (1ull << 1) /* the client's: so that its stores can be tracked without faults. Not in the reply */

struct pgc_hello {
	uint32_t magic, version;
	uint64_t features;
	uint32_t role;
	uint32_t pad;
};
struct pgc_hello_reply {
	uint32_t magic, version;
	uint64_t features;
	uint64_t memory_max;       /* bytes */
	char     daemon_version[32];
	uint64_t orphan_timeout_ms;/* as in open_reply; 0 of an older daemon, too */
};

struct pgc_open {
	uint32_t flags;            /* O_RDONLY, O_WRONLY or O_RDWR of the handle, and nothing else */
	uint32_t has_direct;       /* 1: a third descriptor, opened with O_DIRECT, follows */
	char     uri[200];         /* "" with descriptors, else a store's URI and only the uffd beside it */
};

#define PGC_HANDLE_FORK_EVENTS   (1u << 0) /* the daemon follows forks: mappings are inherited as they are */
#define PGC_HANDLE_KERNEL_FAULTS (1u << 1)
#define PGC_HANDLE_ASYNC         (1u << 2) /* stores are tracked without faults: before the end of a mapping a SYNC with PGC_SYNC_LOOK spares writing all of it */
struct pgc_open_reply {
	uint64_t file_dev, file_ino;  /* what CLONE wants; unique while the daemon lives */
	uint64_t size;                /* bytes */
	uint32_t file;                /* slot in the BPF map `files` */
	uint32_t flags;               /* PGC_HANDLE_* */
	uint64_t handle;              /* its name for ATTACH; never used again */
	uint64_t orphan_timeout_ms;   /* without a daemon for so long, waiting faults get SIGBUS; 0: they wait for ever */
};

#define PGC_ATTACH_CLEAN (1u << 0) /* the control page said `stopped`: nothing was dirty when the daemon ended */
/* The mappings are found by the daemon itself. ESTALE: the bytes that the memfd holds cannot be trusted, or another cache of the file is there by now. */
struct pgc_attach {
	uint64_t file_dev, file_ino, handle; /* of open_reply */
	uint32_t flags;            /* O_RDONLY, O_WRONLY or O_RDWR */
	uint32_t has_direct;       /* 1: the last descriptor was opened with O_DIRECT */
	uint32_t attach;           /* PGC_ATTACH_* */
	uint32_t kernel_faults;    /* 1: the userfaultfd serves faults taken inside system calls */
	char     uri[168];         /* "" for what descriptors stand for */
	uint64_t window_addr, window_len; /* of WINDOW; 0, 0: there is none */
};
/* EAGAIN: its file's memory has not come yet. ESRCH: the daemon knows of no such record. */
struct pgc_child {
	uint64_t id;               /* of the record in saved_handles */
	uint64_t addr;             /* was mapped there */
	uint32_t slot;             /* of the record */
	uint32_t of_parent;        /* 1: the record is the parent's, as the child has none yet */
};
struct pgc_resumed { uint64_t incarnation; }; /* counts daemons that have had this state */

struct pgc_clone {
	uint64_t file_dev, file_ino;
	uint32_t flags;            /* access mode; no more than the memfd descriptor's own */
	uint32_t pad;
};

#define PGC_MAP_SHARED  (1u << 0) /* MAP_SHARED of a writable handle, registered MISSING|MINOR|WP; else MISSING|MINOR */
struct pgc_map {
	uint64_t addr, len, off;   /* page-aligned */
	uint32_t flags;
	uint32_t prot;
};
struct pgc_populate {
	uint64_t addr, len;
	uint32_t write;            /* 1: pages are mapped writable and count as dirty */
	uint32_t pad;
};

/*
 * READ: the reply says how much of the range is resident, from its beginning on (0 at or past the end of file, else at
 * least a byte; less than asked for also where pages were dropped again), and the file's size and `seq` at that moment. The client reads the bytes from its memfd with pread(2) and then
 * compares `seq` in the control page: a difference means that pages were dropped meanwhile and what was
 * read may be zeros, so ask and read again.
 */
struct pgc_read { uint64_t off, len; };
struct pgc_read_reply { uint64_t len, seq, size; };

/*
 * WINDOW: the client has mapped the file from its beginning on at [addr, addr + len), privately and only to read, registered for missing pages alone, for reads
 * that ask nobody (window.c of the library). It is no mapping: it counts as no reference, and is given to no child. Another one takes its place.
 *
 * `shown` is a bit for each page, 64 pages a word: set while the page may be read so. The client takes a slot, looks at the life page, size, seq and bits, copies,
 * looks at life and seq again, and gives the slot back. Bits are cleared and seq grows before a page is dropped; what is behind a new end of file is cut off only
 * when no slot names it.
 *
 * `slots` and `touched` are memfds of the client's that can neither shrink nor grow, of PGC_PAGE_SIZE and PGC_TOUCHED_SIZE(len) bytes. In `touched` the client sets
 * a page's bit, as in `shown`, and behind all those the bit of its word, in PGC_TOUCHED_WORDS words; the daemon clears them. The last word is 0; the daemon
 * sets it at the end of the handle, and then nothing that is shown counts.
 *
 * A handle that may read and store has the file mapped once more right behind that, at [addr + len, addr + 2 * len), shared and to store to, registered for nothing, for writes that ask nobody. A third memfd
 * comes for it, `written`: a page with a bit for each PGC_WRITTEN_SPAN words, then words as in `shown`. The client takes a slot (PGC_SLOT_WRITES), looks as for a read, and whether
 * `must_ask` is 0, sets the page's bit with an atomic operation and the bit of its word, copies, sets both again, whatever they are, and looks at `must_ask` and life again. What is
 * different means that the daemon has to be asked. A page that such a slot names is not dropped.
 */
struct pgc_window { uint64_t addr, len; }; /* len: of whole blocks. 0, without descriptors: it has none any more */
struct pgc_window_reply { uint64_t blocks; }; /* words in `shown`: pages behind them are asked for */
#define PGC_READER_SLOTS   16u
/* A thread that reads. */
struct pgc_reader_slot {
	uint64_t end;              /* atomic: 0: free; else the page behind the last one that may be read, or (PGC_SLOT_WRITES) that one alone written */
	uint64_t pad[7];
};
#define PGC_SLOT_WRITES (1ull << 63)
#define PGC_WINDOW_MAX (1ull << 40)
#define PGC_WRITTEN_SPAN 1024u
#define PGC_WRITTEN_SIZE(blocks) ((PGC_PAGE_SIZE + (uint64_t)(blocks) * 8 + PGC_PAGE_SIZE - 1) & ~(uint64_t)(PGC_PAGE_SIZE - 1))
#define PGC_TOUCHED_WORDS(blocks) (((blocks) + 4095) / 4096)
/* The index of the last word, which ends it. */
#define PGC_TOUCHED_END(len) (PGC_TOUCHED_SIZE(len) / 8 - 1)
#define PGC_TOUCHED_SIZE(len) ((((len) / PGC_BLOCK_SIZE + PGC_TOUCHED_WORDS((len) / PGC_BLOCK_SIZE) + 1) * 8 + PGC_PAGE_SIZE - 1) & ~(uint64_t)(PGC_PAGE_SIZE - 1))
/* The life page begins with the word of a robust futex that the daemon holds (set_robust_list(2)): the kernel sets this bit in it when the daemon dies. */
#define PGC_LIFE_DIED 0x40000000u

#define PGC_WRITE_APPEND (1u << 0) /* `off` is ignored: at the end of file, atomically */
#define PGC_WRITE_DATAFD (1u << 1) /* the bytes are in the memfd beside the message (sealed against shrinking), up to PGC_DATA_MAX */
struct pgc_write {
	uint64_t off, len;
	uint64_t pos;              /* where the bytes start in the transfer area, or in the data memfd */
	uint32_t flags;
	uint32_t pad;
};
struct pgc_write_reply { uint64_t len, off, size; };

#define PGC_SYNC_DATA  (1u << 0)   /* fdatasync */
#define PGC_SYNC_ASYNC (1u << 1)   /* start the write-out, do not wait */
#define PGC_SYNC_WRITE (1u << 2)   /* only write, without the store's own sync; an error stays for the next sync to report */
#define PGC_SYNC_LOOK  (1u << 3)   /* only find out what is dirty */
/* Bytes [off, off + len) of the file; len 0: all of it. */
struct pgc_sync { uint64_t off, len; uint32_t flags; uint32_t pad; };

struct pgc_truncate { uint64_t size; };
struct pgc_fallocate { uint64_t off, len; int32_t mode; uint32_t pad; }; /* FALLOC_FL_* of fallocate(2) */
struct pgc_fadvise { uint64_t off, len; int32_t advice; uint32_t pad; }; /* POSIX_FADV_*; len 0: to the end */
struct pgc_madvise { uint64_t addr, len; int32_t advice; uint32_t pad; }; /* MADV_* */
struct pgc_keep { uint64_t off, len; uint32_t on; uint32_t pad; };
struct pgc_seek { uint64_t off; uint32_t whence, pad; };                /* SEEK_DATA or SEEK_HOLE; ENXIO as lseek(2) */
struct pgc_seek_reply { uint64_t off; };

/* `life`, 0 or 1: the page that tells of the daemon's end is wanted beside the reply, to read later ones in the control page. EOPNOTSUPP: there is none. */
struct pgc_stat { uint32_t life, pad; };
struct pgc_stat_reply {
	uint64_t dev, ino, size, blocks, rdev;
	uint32_t mode, nlink, uid, gid, blksize, pad;
	int64_t  atime_s, mtime_s, ctime_s;
	uint32_t atime_ns, mtime_ns, ctime_ns, pad2;
};

#define PGC_CTL_SYNC_LOOK 2u
/* wait 0: SYNC only starts the write-out; PGC_CTL_SYNC_LOOK: only finds out what is dirty, and `pages` of the reply says how many pages are */
struct pgc_ctl_file { uint64_t dev, ino; uint32_t wait; uint32_t pad; };
/*
 * PGC_CTL_STAT: a file by the numbers that stat(2) of it has, and what the kernel says of it, which is the store's: the daemon does not look itself. The
 * reply is a struct pgc_stat_reply with dev, ino, size, blocks, mtime and ctime as they are with what the cache holds; all else is 0 and the
 * kernel's to say. ENOENT: nothing of it is cached, or it is older than what the kernel says: then that is the truth.
 */
struct pgc_ctl_stat {
	uint64_t dev, ino, size, blocks;
	int64_t  mtime_s, ctime_s;
	uint32_t mtime_ns, ctime_ns;
};
/* A setting as the configuration file would have it: "memory_max", "2G". The reply's body is a struct pgc_ctl_set_reply, also on errors. */
struct pgc_ctl_set { char name[32], value[200]; };
struct pgc_ctl_set_reply { char message[232]; }; /* what is wrong and what is allowed; "": nothing */
/* Bytes; len 0: to the end of file. A pin reads the pages in first; ENOSPC: more may not be pinned. */
struct pgc_ctl_pin { uint64_t dev, ino, off, len; uint32_t on, pad; };
struct pgc_ctl_count_reply { uint64_t files, pages; };  /* what SYNC wrote or DROP dropped */

struct pgc_ctl_status_reply {
	uint64_t memory_max, memory_used;           /* bytes */
	uint64_t files, handles, mappings, clients;
	uint64_t resident, dirty, writeback, keep;  /* pages */
	uint64_t faults, fills, fill_bytes, fill_errors;
	uint64_t writeouts, writeout_bytes, writeout_errors;
	uint64_t uptime_ms, oldest_dirty_ms;
	uint32_t workers, pid;
	uint32_t bpf, kernel_faults;                /* 0 or 1 */
	char     version[32];
	uint64_t writeout_rate;                     /* bytes a second of late */
	uint64_t faults_lent;                       /* of `faults`: whose pages a lane has mapped */
	uint32_t lanes, pad;
};
/* PGC_CTL_MEMORY: where the memory is, and what the policy does. Pages, but for the bytes. */
struct pgc_ctl_memory_reply {
	uint64_t memory_max, memory_limit, memory_used, tables; /* bytes; limit: memory_max, or less under pressure */
	uint64_t resident, second_chance, pinned, kept;
	uint64_t dirty, dirty_background, dirty_max; /* dirty: or being written */
	uint64_t refaults, soft_faults, reclaimed, direct_reclaims;
	uint64_t readahead_pages, readahead_hits, readahead_wasted;
	uint64_t throttled, throttled_ms, fault_wait_max_us;
	uint64_t pressure_episodes;
	char     policy[16];
};
struct pgc_ctl_cgroup_reply {
	uint32_t more, is_user;    /* is_user: id is a uid */
	uint64_t id;               /* inode number of the cgroup's folder; all ones: the catch-all */
	uint64_t mapped, resident, dirty, limit, reclaimed; /* pages */
	uint32_t handles, pad;
};
struct pgc_ctl_pin_reply {
	uint32_t more, file;
	uint64_t start, end;       /* bytes */
	char     name[128];
};

#define PGC_FILE_WRITABLE      (1u << 0) /* the store has a descriptor that may write */
#define PGC_FILE_DIRECT        (1u << 1) /* O_DIRECT */
#define PGC_FILE_KERNEL_FAULTS (1u << 2) /* every handle serves faults taken inside system calls */
#define PGC_FILE_ERROR         (1u << 3) /* the last write-out failed */
#define PGC_FILE_HUGE          (1u << 4) /* its memory is huge pages */
struct pgc_ctl_file_reply {
	uint32_t more, file;
	uint64_t dev, ino, size;
	uint64_t resident, dirty, writeback, keep; /* pages */
	uint32_t handles, mappings, flags, error;
	uint32_t worker, kernel_fault_handles;
	char     name[128];        /* the end of the path where it is longer */
};
struct pgc_ctl_mapping_reply {
	uint32_t more, file;
	uint64_t start, end;       /* bytes of the file */
	uint64_t cgroup;
	uint32_t refs, pad;
	char     name[128];
};

/*
 * PGC_CTL_CHECK: a bounded step, from `from` on; `next` of the last reply says where the next one begins, PGC_CHECK_END that there is none. Whoever asks goes
 * through all of it, adds the counts up, and asks again before it believes what a step says of something that is in use. ENOENT: no such file or worker.
 * EBUSY: too many at a time.
 */
enum pgc_check_step {
	PGC_CHECK_PAGES = 1,       /* of the file (dev, ino), from a page on: the memfd's pages, and those that clients have mapped, against the bits */
	PGC_CHECK_FILE,            /* sizes, records, references and mappings of the file */
	PGC_CHECK_CONTENT,         /* clean pages of the file against its store, from a page on */
	PGC_CHECK_WORKER,          /* tables of worker `worker`, from an entry on, and counts */
};
#define PGC_CHECK_END UINT64_MAX

enum pgc_check_kind {
	/* Something differs; what `start`, `end`, `found` and `expected` are: in brackets. */
	PGC_DIFFERS_MISSING = 1,   /* resident, and not in the memfd [pages] */
	PGC_DIFFERS_STRAY,         /* in the memfd, and neither resident nor being read in [pages] */
	PGC_DIFFERS_MAPPED,        /* mapped in `pid`, and not resident [pages] */
	PGC_DIFFERS_WRITABLE,      /* writable in `pid`, and neither dirty nor kept [pages] */
	PGC_DIFFERS_UNTRACKED,     /* mapped in `pid`, where no mapping is known [addresses] */
	PGC_DIFFERS_GONE,          /* a mapping that `pid` does not have, or not so [addresses] */
	PGC_DIFFERS_BITS,          /* bits that cannot be together [pages; as they are; those that are wrong] */
	PGC_DIFFERS_BLOCK,         /* an entry of `blocks` that is not the file's block [index; slot] */
	PGC_DIFFERS_REFERENCES,    /* of a block or a range [bytes; shown; counted] */
	PGC_DIFFERS_MAPPINGS,      /* the file's entries of `mappings` [bytes; references shown; counted] */
	PGC_DIFFERS_SIZE,          /* of memfd, entry or control page [bytes; as it is; the file's] */
	PGC_DIFFERS_HANDLES,       /* handles or mappings of the file's entry [shown; counted] */
	PGC_DIFFERS_FILE_ENTRY,    /* an entry of `files` that is not a file [slot] */
	PGC_DIFFERS_FILE_RECORD,   /* an entry of `saved_files` is damaged, or not as the file [slot] */
	PGC_DIFFERS_HANDLE_RECORD, /* likewise of `saved_handles` [slot], `pid`: whose */
	PGC_DIFFERS_CONTENT,       /* clean, and not as in the store [pages] */
	PGC_DIFFERS_CHARGES,       /* pages charged to a worker and to its domains [sum of the domains; the worker's] */

	/* Counted in this step: to be added up; `start` says of what. */
	PGC_COUNT_FILE = 64,       /* of `file`: pages resident, dirty, in writeback, kept */
	PGC_COUNT_CGROUP,          /* of cgroup `start`: pages resident, dirty, mapped */
	PGC_COUNT_WORKER,          /* of the worker: pages resident, dirty, in writeback, kept */
	PGC_COUNT_WORKER_USE,      /* of the worker: pages charged, slots of `blocks`, of `mappings` and of `saved_handles` in use */
	PGC_COUNT_BUDGET,          /* pages charged by a worker, pages dirty or in writeback: for the budget of all */
	/* As the daemon shows it, in the same order. */
	PGC_SHOWN_FILE,
	PGC_SHOWN_WORKER,          /* in the worker's last step */
	PGC_SHOWN_WORKER_USE,      /* likewise */
};

struct pgc_ctl_check { uint64_t dev, ino, from; uint32_t step, worker; };
struct pgc_ctl_check_reply {
	uint32_t more, kind;       /* kind 0: the last reply, without a row */
	uint32_t file;
	int32_t  pid;
	uint64_t start, end, found, expected;
	uint64_t count[4];
	/* In the last reply. */
	uint64_t next;
	uint64_t pages;            /* compared */
	uint64_t skipped;          /* could not be looked at: pages, or mappings of a client that the daemon may not look into */
	uint64_t busy;             /* changed all the time */
	uint64_t unlisted;         /* rows that there was no room for */
	uint64_t moment;           /* of the worker: counts of steps with the same are of one moment */
};

enum pgc_inject {
	PGC_INJECT_READ_ERROR = 1, /* value: errno, 0 ends it */
	PGC_INJECT_WRITE_ERROR,
	PGC_INJECT_SYNC_ERROR,
	PGC_INJECT_READ_DELAY,     /* value: microseconds */
	PGC_INJECT_WRITE_DELAY,
	PGC_INJECT_READ_SHORT,     /* value: the most bytes one transfer moves, 0 ends it */
	PGC_INJECT_WRITE_SHORT,
	PGC_INJECT_WRITE_ZERO,     /* value 1: writes accept 0 bytes */
};
/* Writes or reads go to the store named by `uri` ("mem:NAME"); `count` operations, 0: until changed. */
struct pgc_ctl_inject { uint32_t what, count; uint64_t value; char uri[200]; };

struct pgc_msg {
	uint32_t type;
	uint32_t status;           /* replies: 0 or a positive errno; requests: 0, or PGC_REQUEST_AGAIN_TO() */
	uint64_t tag;
	union {
		uint8_t bytes[PGC_MSG_SIZE - 16];
		struct pgc_hello hello;
		struct pgc_hello_reply hello_reply;
		struct pgc_open open;
		struct pgc_open_reply open_reply;
		struct pgc_clone clone;
		struct pgc_attach attach;
		struct pgc_child child;
		struct pgc_resumed resumed;
		struct pgc_map map;
		struct pgc_populate populate;
		struct pgc_window window;
		struct pgc_window_reply window_reply;
		struct pgc_read read;
		struct pgc_read_reply read_reply;
		struct pgc_write write;
		struct pgc_write_reply write_reply;
		struct pgc_sync sync;
		struct pgc_truncate truncate;
		struct pgc_fallocate fallocate;
		struct pgc_fadvise fadvise;
		struct pgc_madvise madvise;
		struct pgc_keep keep;
		struct pgc_seek seek;
		struct pgc_seek_reply seek_reply;
		struct pgc_stat stat;
		struct pgc_stat_reply stat_reply;
		struct pgc_ctl_file ctl_file;
		struct pgc_ctl_stat ctl_stat;
		struct pgc_ctl_count_reply ctl_count_reply;
		struct pgc_ctl_status_reply ctl_status_reply;
		struct pgc_ctl_file_reply ctl_file_reply;
		struct pgc_ctl_mapping_reply ctl_mapping_reply;
		struct pgc_ctl_inject ctl_inject;
		struct pgc_ctl_set ctl_set;
		struct pgc_ctl_set_reply ctl_set_reply;
		struct pgc_ctl_pin ctl_pin;
		struct pgc_ctl_memory_reply ctl_memory_reply;
		struct pgc_ctl_cgroup_reply ctl_cgroup_reply;
		struct pgc_ctl_pin_reply ctl_pin_reply;
		struct pgc_ctl_check ctl_check;
		struct pgc_ctl_check_reply ctl_check_reply;
	};
};

/* The control page: one page per file, which the daemon writes and clients map read-only. */
struct pgc_control_page {
	uint64_t seq;              /* atomic; grows before pages are dropped. Pairs with the client's acquire load after its read */
	uint64_t size;             /* atomic; the file's size in bytes */
	uint32_t stopped;          /* 1: the daemon has ended after everything was written; what is stored later is lost */
	uint32_t must_ask;         /* atomic; 1: writes must ask */
	/*
	 * What the daemon would go by if it was asked for STAT just now (shown.h). Odd: it must be asked. A client reads stat_seq, then `shown`, then asks the kernel for the
	 * store's part, and then looks whether stat_seq is what it was, and after that whether the daemon lives: what is there when that dies may be half written, or old by
	 * the time that another one has taken over. Grows with each change, also from one page to the next of the same file. Away from what each read looks at.
	 */
	uint64_t stat_seq __attribute__((aligned(128))); /* atomic; grows before anything that stat(2) shows does. Pairs with the client's loads before and after */
	struct pgc_shown shown;    /* of words, each atomic */
};

#define PGC_WIRE_CHECK(type, bytes) \
	_Static_assert(sizeof(struct type) == (bytes), "wire layout of " #type)
PGC_WIRE_CHECK(pgc_msg, PGC_MSG_SIZE);
PGC_WIRE_CHECK(pgc_hello, 24);
PGC_WIRE_CHECK(pgc_hello_reply, 64);
PGC_WIRE_CHECK(pgc_open, 208);
PGC_WIRE_CHECK(pgc_open_reply, 48);
PGC_WIRE_CHECK(pgc_attach, 224);
PGC_WIRE_CHECK(pgc_window, 16);
PGC_WIRE_CHECK(pgc_window_reply, 8);
PGC_WIRE_CHECK(pgc_reader_slot, 64);
PGC_WIRE_CHECK(pgc_child, 24);
PGC_WIRE_CHECK(pgc_clone, 24);
PGC_WIRE_CHECK(pgc_map, 32);
PGC_WIRE_CHECK(pgc_populate, 24);
PGC_WIRE_CHECK(pgc_read, 16);
PGC_WIRE_CHECK(pgc_read_reply, 24);
PGC_WIRE_CHECK(pgc_write, 32);
PGC_WIRE_CHECK(pgc_write_reply, 24);
PGC_WIRE_CHECK(pgc_sync, 24);
PGC_WIRE_CHECK(pgc_fallocate, 24);
PGC_WIRE_CHECK(pgc_fadvise, 24);
PGC_WIRE_CHECK(pgc_madvise, 24);
PGC_WIRE_CHECK(pgc_keep, 24);
PGC_WIRE_CHECK(pgc_seek, 16);
PGC_WIRE_CHECK(pgc_seek_reply, 8);
PGC_WIRE_CHECK(pgc_stat, 8);
PGC_WIRE_CHECK(pgc_stat_reply, 104);
PGC_WIRE_CHECK(pgc_ctl_file, 24);
PGC_WIRE_CHECK(pgc_ctl_stat, 56);
PGC_WIRE_CHECK(pgc_ctl_status_reply, 224);
PGC_WIRE_CHECK(pgc_ctl_file_reply, 216);
PGC_WIRE_CHECK(pgc_ctl_mapping_reply, 168);
PGC_WIRE_CHECK(pgc_ctl_inject, 216);
PGC_WIRE_CHECK(pgc_ctl_set, 232);
PGC_WIRE_CHECK(pgc_ctl_pin, 40);
PGC_WIRE_CHECK(pgc_ctl_memory_reply, 192);
PGC_WIRE_CHECK(pgc_ctl_cgroup_reply, 64);
PGC_WIRE_CHECK(pgc_ctl_pin_reply, 152);
PGC_WIRE_CHECK(pgc_ctl_check, 32);
PGC_WIRE_CHECK(pgc_ctl_check_reply, 128);
_Static_assert(sizeof(struct pgc_control_page) <= PGC_PAGE_SIZE, "the control page is one page");
_Static_assert(offsetof(struct pgc_msg, bytes) == 16, "wire layout of the header");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian");

#endif
