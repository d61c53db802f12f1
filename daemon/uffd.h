/* SPDX-License-Identifier: Apache-2.0 */
/*
 * userfaultfd(2) as the daemon uses it: thin wrappers that return 0 or a negative errno and hide structure
 * layouts, with the definitions that headers of Linux 6.1 do not have yet. Thread-safe: no state but what
 * uffd_probe() found.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <linux/userfaultfd.h>

#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef UFFD_FEATURE_POISON /* Linux 6.6 */
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC /* Linux 6.7 */
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFDIO_CONTINUE_MODE_WP /* Linux 6.4 */
#define UFFDIO_CONTINUE_MODE_WP ((uint64_t)1 << 1)
#endif
#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

struct uffd_caps {
	uint64_t features;     /* what UFFDIO_API is asked for */
	bool poison;           /* else a failing read keeps its faults waiting */
	bool fork_events;      /* the daemon has CAP_SYS_PTRACE */
	bool wp_async;         /* stores can be tracked without faults (track.h) */
	bool read_nowait;      /* preadv2(RWF_NOWAIT) works: no read of it can block */
	int  device;           /* /dev/userfaultfd to hand out, or -1 */
};

/* What this kernel and the daemon's privileges allow. -ENOSYS, -EOPNOTSUPP (with the lacking feature in *ret_lacking). */
int uffd_probe(struct uffd_caps *ret, bool kernel_faults, const char **ret_lacking);

/* May who has these ids open `device` (open for reading and writing) by the permissions that it has? */
bool uffd_device_is_for(int device, uid_t uid, gid_t gid, const gid_t *groups, size_t n);

/*
 * Is `fd` an unconfigured, non-blocking userfaultfd? Configures it. -EINVAL otherwise. `async`: it tracks stores without faults, and no forks: a child's could not be
 * asked what was stored to.
 */
int uffd_accept(int fd, const struct uffd_caps *caps, bool async);
/* Does one that is configured track stores without faults? */
bool uffd_is_async(int fd);

/* Is it a userfaultfd, in whatever state? */
bool uffd_is_one(int fd);
/* Is it one that uffd_read() never waits for, whoever else reads it? Set up already or not. */
bool uffd_is_readable(int fd, const struct uffd_caps *caps);
/* The client has made it blocking, which all who hold it share. */
void uffd_unblock(int fd);

/* Reads up to `n` messages. Returns how many, -EAGAIN when there are none, or another errno. Never blocks. */
/* Faults that wait to be read, which come before events; -errno: not known. */
int uffd_pending(int fd);
int uffd_read(int fd, const struct uffd_caps *caps, struct uffd_msg *msg, int n);

/*
 * Maps pages [addr, addr + len) from the memfd and wakes who waits there. *ret_mapped: bytes that were mapped, on errors too.
 * -EEXIST: the page at addr + *ret_mapped is mapped already; -EFAULT: it is absent in the memfd; -EAGAIN: an event waits; -ENOENT: no such registered
 * range; -ESRCH: the process is gone.
 */
int uffd_continue(int fd, uint64_t addr, uint64_t len, bool protect, uint64_t *ret_mapped);
/* One for memory of the daemon's own, with no feature. A descriptor, or a negative errno. */
int uffd_new_own(void);
int uffd_register_missing(int fd, uint64_t addr, uint64_t len);
/* Makes pages with what lies at `from`. -EEXIST: one is there already; -EFAULT: the memory is shorter. Some may have been made then. */
int uffd_copy(int fd, uint64_t addr, const void *from, uint64_t len);
/* Protects or un-protects against writes; un-protecting wakes unless `quiet`. -EAGAIN, -ENOENT, -ESRCH as above. */
int uffd_protect(int fd, uint64_t addr, uint64_t len, bool on, bool quiet);
int uffd_poison(int fd, uint64_t addr, uint64_t len);
int uffd_wake(int fd, uint64_t addr, uint64_t len);
/* Wakes whoever waits at any address: faults that an earlier daemon has read come again. */
int uffd_wake_all(int fd);
/* Does this userfaultfd serve the mapping at `addr` of its process? One that nobody serves yet stays so. */
bool uffd_serves(int fd, uint64_t addr);
/* Marks one that is somebody's by now: a client's, or a forked child's that its reader knows of. What is no userfaultfd is left alone. */
void uffd_set_seen(int fd);
/* May it be one that a fork event has just brought, and that nobody has marked? */
bool uffd_is_new_child(int fd);
/*
 * Whether an event is under way: what it tells of has happened, and it has not come to its end. What is looked up meanwhile may be newer than what is still to be
 * read. False: all that had happened by now has been read. (`mmap_changing` in fs/userfaultfd.c.)
 */
bool uffd_is_changing(int fd);
/* Is the process behind it still there? `addr`: any address that was mapped; 0: none is known. */
bool uffd_alive(int fd, uint64_t addr);
