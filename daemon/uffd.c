/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrappers of the userfaultfd ioctls. May be called on any thread; may call nothing but the kernel.
 *
 * A userfaultfd comes from a client, which keeps a descriptor of its own: nothing here relies on its
 * flags after uffd_accept(), and reads ask for RWF_NOWAIT because the client can clear O_NONBLOCK.
 */
#include "daemon/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "daemon/pagemap.h"
#include "daemon/proc_fd.h"
#include "daemon/util/util.h"

#define HUGE_SIZE (2ull << 20)

#define UFFD_REQUIRED \
	(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP | \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMAP | \
	 UFFD_FEATURE_EVENT_REMOVE)

static int uffd_api(int fd, uint64_t features, uint64_t *ret_features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	if (ioctl(fd, UFFDIO_API, &api) < 0)
		return -errno;
	if (ret_features)
		*ret_features = api.features;
	return 0;
}

static int uffd_new(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	return fd < 0 ? -errno : fd;
}

int uffd_probe(struct uffd_caps *ret, bool kernel_faults, const char **ret_lacking)
{
	static const struct { uint64_t bit; const char *name; } required[] = {
		{ UFFD_FEATURE_MISSING_SHMEM, "missing faults on shared memory (Linux 4.11)" },
		{ UFFD_FEATURE_MINOR_SHMEM, "minor faults on shared memory (Linux 5.14)" },
		{ UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "write protection of shared memory (Linux 5.19)" },
		{ UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE, "events (Linux 4.11)" },
	};
	struct uffd_caps caps = { .device = -1 };
	_cleanup_close_ int probe = -1, second = -1;
	uint64_t features = 0;
	struct uffd_msg msg;
	int r;

	*ret_lacking = "userfaultfd";
	probe = uffd_new();
	if (probe < 0)
		return probe;
	r = uffd_api(probe, 0, &features);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ELEMENTSOF(required); i++)
		if ((features & required[i].bit) != required[i].bit) {
			*ret_lacking = required[i].name;
			return -EOPNOTSUPP;
		}
	caps.poison = features & UFFD_FEATURE_POISON;
	caps.wp_async = (features & UFFD_FEATURE_WP_ASYNC) && pagemap_probe();
	caps.features = UFFD_REQUIRED | (features & UFFD_FEATURE_THREAD_ID) | (caps.poison ? UFFD_FEATURE_POISON : 0);

	second = uffd_new();
	if (second >= 0 && uffd_api(second, caps.features | UFFD_FEATURE_EVENT_FORK, NULL) >= 0) {
		caps.fork_events = true;
		caps.features |= UFFD_FEATURE_EVENT_FORK;
	}
	r = (int)preadv2(probe, &(struct iovec){ &msg, sizeof(msg) }, 1, -1, RWF_NOWAIT);
	caps.read_nowait = r >= 0 || errno == EAGAIN;

	if (kernel_faults)
		caps.device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	*ret = caps;
	return 0;
}

bool uffd_device_is_for(int device, uid_t uid, gid_t gid, const gid_t *groups, size_t n)
{
	struct stat st;
	bool member;

	if (fstat(device, &st) < 0)
		return false;
	if (uid == 0)
		return true;
	if (uid == st.st_uid)
		return (st.st_mode & 0600) == 0600;
	member = gid == st.st_gid;
	for (size_t i = 0; i < n && !member; i++)
		member = groups[i] == st.st_gid;
	return member ? (st.st_mode & 0060) == 0060 : (st.st_mode & 0006) == 0006;
}

bool uffd_is_one(int fd)
{
	char path[64], target[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = 0;
	return strcmp(target, "anon_inode:[userfaultfd]") == 0;
}

int uffd_accept(int fd, const struct uffd_caps *caps, bool async)
{
	uint64_t features = async ? (caps->features & ~(uint64_t)UFFD_FEATURE_EVENT_FORK) | UFFD_FEATURE_WP_ASYNC : caps->features;
	int flags;

	if (!uffd_is_one(fd))
		return -EINVAL;
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || !(flags & O_NONBLOCK))
		return -EINVAL;
	return uffd_api(fd, features, NULL);
}

bool uffd_is_readable(int fd, const struct uffd_caps *caps)
{
	char c;

	if (!uffd_is_one(fd) || !(fcntl(fd, F_GETFL) & O_NONBLOCK))
		return false;
	/* Too short for a message: nothing is taken. One without that mode comes from a fork event, and must be the daemon's alone. */
	return !caps->read_nowait || preadv2(fd, &(struct iovec){ &c, 1 }, 1, -1, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP;
}

void uffd_unblock(int fd) { (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

int uffd_read(int fd, const struct uffd_caps *caps, struct uffd_msg *msg, int n)
{
	ssize_t r = -1;

	errno = EOPNOTSUPP;
	if (caps->read_nowait)
		r = preadv2(fd, &(struct iovec){ msg, sizeof(*msg) * (size_t)n }, 1, -1, RWF_NOWAIT);
	if (r < 0 && errno == EOPNOTSUPP) {
		/*
		 * Before Linux 6.10, and a forked child's userfaultfd, which is the daemon's alone: one message at a
		 * time, and only when one is there.
		 */
		struct pollfd p = { .fd = fd, .events = POLLIN };

		if (poll(&p, 1, 0) <= 0 || !(p.revents & POLLIN))
			return -EAGAIN;
		r = read(fd, msg, sizeof(*msg));
	}
	if (r < 0)
		return -errno;
	return (int)(r / (ssize_t)sizeof(*msg));
}

/* What /proc/self/fdinfo says of it, behind `name`. NULL: nothing. */
static const char *fd_info(int fd, const char *name, char *text, size_t size)
{
	char path[32];
	ssize_t n;
	int info;

	snprintf(path, sizeof(path), "../fdinfo/%d", fd);
	info = openat(proc_fd_dir(), path, O_RDONLY | O_CLOEXEC);
	if (info < 0)
		return NULL;
	n = pread(info, text, size - 1, 0);
	close(info);
	text[MAX(n, 0)] = 0;
	text = strstr(text, name);
	return text ? text + strlen(name) : NULL;
}

int uffd_pending(int fd)
{
	char text[256];
	const char *at = fd_info(fd, "pending:", text, sizeof(text));

	return at ? (int)strtol(at, NULL, 10) : -EIO;
}

bool uffd_is_async(int fd)
{
	char text[256];
	const char *at = fd_info(fd, "API:", text, sizeof(text));

	at = at ? strchr(at, ':') : NULL; /* the version, then what it was asked for */
	return at && (strtoul(at + 1, NULL, 16) & UFFD_FEATURE_WP_ASYNC);
}

int uffd_continue(int fd, uint64_t addr, uint64_t len, bool protect, uint64_t *ret_mapped)
{
	struct uffdio_continue c = {
		.range = { .start = addr, .len = len },
		.mode = protect ? UFFDIO_CONTINUE_MODE_WP : 0,
	};
	int r = ioctl(fd, UFFDIO_CONTINUE, &c) < 0 ? -errno : 0;

	*ret_mapped = c.mapped > 0 ? (uint64_t)c.mapped : 0;
	if (r == -EAGAIN && *ret_mapped > 0)
		/* A partial success: the kernel says EAGAIN and how far it came; what stopped it shows at the next try. */
		return 0;
	return r;
}

int uffd_protect(int fd, uint64_t addr, uint64_t len, bool on, bool quiet)
{
	struct uffdio_writeprotect w = {
		.range = { .start = addr, .len = len },
		.mode = (on ? UFFDIO_WRITEPROTECT_MODE_WP : 0) | (quiet && !on ? UFFDIO_WRITEPROTECT_MODE_DONTWAKE : 0),
	};

	return ioctl(fd, UFFDIO_WRITEPROTECT, &w) < 0 ? -errno : 0;
}

int uffd_poison(int fd, uint64_t addr, uint64_t len)
{
	struct uffdio_poison p = { .range = { .start = addr, .len = len } };

	return ioctl(fd, UFFDIO_POISON, &p) < 0 ? -errno : 0;
}

int uffd_wake(int fd, uint64_t addr, uint64_t len)
{
	struct uffdio_range range = { .start = addr, .len = len };

	return ioctl(fd, UFFDIO_WAKE, &range) < 0 ? -errno : 0;
}

int uffd_wake_all(int fd)
{
	/* Not looked up: any range within the address space will do. */
	static const uint64_t ends[] = { (1ull << 56) - PAGE_SIZE_, (1ull << 52) - PAGE_SIZE_, (1ull << 47) - PAGE_SIZE_, (1ull << 38) - PAGE_SIZE_ };
	int r = -EINVAL;

	for (size_t i = 0; i < ELEMENTSOF(ends) && r == -EINVAL; i++)
		r = uffd_wake(fd, 1u << 16, ends[i] - (1u << 16));
	return r;
}

/*
 * Is there a mapping that some userfaultfd serves? A copy from what cannot be read changes nothing: it fails with ENOENT where nobody serves, else with EFAULT at
 * last. True as well where the kernel does not say.
 */
static bool is_served(int fd, uint64_t addr)
{
	struct uffdio_copy c = { .dst = addr, .len = PAGE_SIZE_ };
	void *unreadable = mmap(NULL, PAGE_SIZE_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool served;

	if (unreadable == MAP_FAILED)
		return true;
	c.src = (uint64_t)(uintptr_t)unreadable;
	served = ioctl(fd, UFFDIO_COPY, &c) == 0 || (errno != ENOENT && errno != ESRCH);
	munmap(unreadable, PAGE_SIZE_);
	return served;
}

bool uffd_serves(int fd, uint64_t addr)
{
	/* What it serves is left as it is, since less is asked for; another's is EBUSY. What nobody serves would be its from now on. */
	struct uffdio_register reg = {
		.range = { .start = addr, .len = PAGE_SIZE_ },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
	};

	if (!is_served(fd, addr))
		return false;
	if (ioctl(fd, UFFDIO_REGISTER, &reg) == 0)
		return true;
	reg.range = (struct uffdio_range){ .start = align_down(addr, HUGE_SIZE), .len = HUGE_SIZE }; /* of huge pages no less is taken */
	return errno == EINVAL && ioctl(fd, UFFDIO_REGISTER, &reg) == 0;
}

/* O_APPEND, which means nothing to a userfaultfd. It belongs to the description, whatever the number. */
void uffd_set_seen(int fd)
{
	int flags = uffd_is_one(fd) ? fcntl(fd, F_GETFL) : -1;

	if (flags >= 0 && !(flags & O_APPEND))
		(void)fcntl(fd, F_SETFL, flags | O_APPEND);
}

int uffd_new_own(void)
{
	_cleanup_close_ int fd = uffd_new();
	int r = fd < 0 ? fd : uffd_api(fd, 0, NULL);

	if (r < 0)
		return r;
	uffd_set_seen(fd); /* no forked child's */
	return take_fd(&fd);
}

int uffd_register_missing(int fd, uint64_t addr, uint64_t len)
{
	struct uffdio_register reg = { .range = { .start = addr, .len = len }, .mode = UFFDIO_REGISTER_MODE_MISSING };

	return ioctl(fd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

int uffd_copy(int fd, uint64_t addr, const void *from, uint64_t len)
{
	struct uffdio_copy copy = { .dst = addr, .src = (uint64_t)(uintptr_t)from, .len = len, .mode = UFFDIO_COPY_MODE_DONTWAKE };

	return ioctl(fd, UFFDIO_COPY, &copy) < 0 ? -errno : 0;
}

bool uffd_is_new_child(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	char c;

	/* Too short for a message: nothing is taken. Only one that a process has made itself can be read so, from Linux 6.10 on. */
	return flags >= 0 && !(flags & O_APPEND) && preadv2(fd, &(struct iovec){ &c, 1 }, 1, -1, RWF_NOWAIT) < 0 && errno == EOPNOTSUPP;
}

bool uffd_is_changing(int fd)
{
	uint64_t mapped;

	return uffd_continue(fd, 0, 0, false, &mapped) == -EAGAIN; /* which comes before EINVAL */
}

bool uffd_alive(int fd, uint64_t addr)
{
	/*
	 * Protecting what may be protected already changes nothing that counts: a store there faults once more. Where no address is known any does, but not 0, which is
	 * refused before anybody looks whether there is an address space.
	 */
	addr = addr ? addr : 1ull << 20;
	return uffd_protect(fd, addr, PAGE_SIZE_, true, false) != -ESRCH;
}
