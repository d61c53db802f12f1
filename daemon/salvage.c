/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See salvage.h. Without the bits nobody knows what was dirty, so each page that the memory has is compared with the store's.
 *
 * One thing cannot be told so: a page of zeros may be what a client has stored, or one that a read was about to fill when the daemon died. The first can be
 * mapped by a client, the second never is; so zeros that nobody has mapped are left out, and the log says how many.
 * May call: fdstore, memory, vma_query, service_manager, log, util.
 */
#include "daemon/salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <systemd/sd-daemon.h>

#include "daemon/fdstore.h"
#include "daemon/log.h"
#include "daemon/memory.h"
#include "daemon/proc_fd.h"
#include "daemon/util/util.h"
#include "daemon/vma_query.h"

#define CHUNK        (256u << 10)
#define PIDS_MAX     1024u
#define PATIENCE_MS  10000            /* for writes of the dead daemon that are still under way */
#define PM_PRESENT   (1ull << 63)
#define BLOCK_DEVICE (1ull << 63)     /* `dev` of a block device's memory, whose `ino` is its number */

struct salvage {
	int memfd, store;
	struct stat st;            /* of the memfd */
	char name[4096];           /* the store's */
	struct vma_query maps[PIDS_MAX];
	unsigned n_maps;
	uint64_t written, zeros;   /* pages */
	int error;
	char memory[CHUNK], file[CHUNK];
};

/* --- who has it mapped --- */

static void find_maps(struct salvage *s)
{
	unsigned n;
	struct fdstore_fd *p = fdstore_passed(&n);

	s->n_maps = 0;
	for (unsigned i = 0; i < n && s->n_maps < PIDS_MAX; i++) {
		struct ucred cred;
		socklen_t len = sizeof(cred);
		bool known = false;

		if (p[i].fd < 0 || p[i].name[0] != 'h' || getsockopt(p[i].fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
			continue;
		for (unsigned k = 0; k < s->n_maps; k++)
			known |= s->maps[k].pid == cred.pid;
		if (known)
			continue;
		s->maps[s->n_maps] = (struct vma_query){ .pid = cred.pid, .all = true, .list = true, .dev = s->st.st_dev, .ino = s->st.st_ino };
		if (vma_query_look(&s->maps[s->n_maps]) == 0)
			s->n_maps++;
	}
}

static void free_maps(struct salvage *s)
{
	for (unsigned i = 0; i < s->n_maps; i++)
		free(TAKE_PTR(s->maps[i].segs));
	s->n_maps = 0;
}

static bool is_present(pid_t pid, uint64_t addr)
{
	char path[64];
	uint64_t entry;
	_cleanup_close_ int fd = -1;

	(void)snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && pread(fd, &entry, sizeof(entry), (off_t)(addr / PAGE_SIZE_ * sizeof(entry))) == sizeof(entry) && (entry & PM_PRESENT);
}

static bool somebody_has_mapped(const struct salvage *s, uint64_t off)
{
	for (unsigned i = 0; i < s->n_maps; i++)
		for (size_t k = 0; k < s->maps[i].n_segs; k++) {
			const struct vma_seg *v = &s->maps[i].segs[k];

			if (off >= v->off && off - v->off < v->end - v->start && is_present(s->maps[i].pid, v->start + (off - v->off)))
				return true;
		}
	return false;
}

/* --- pages --- */

static ssize_t read_whole(int fd, char *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int write_whole(int fd, const char *buf, size_t len, uint64_t off)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

static bool is_zero(const char *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Is it to be written? `have` bytes of it are in the store. */
static bool is_wanted(struct salvage *s, const char *memory, const char *file, size_t len, size_t have, uint64_t off)
{
	if (have == len && memcmp(memory, file, len) == 0)
		return false;
	if (!is_zero(memory, len) || somebody_has_mapped(s, off))
		return true;
	s->zeros += have > 0 && !is_zero(file, have);
	return false;
}

static int salvage_chunk(struct salvage *s, uint64_t off, size_t len)
{
	ssize_t have = read_whole(s->memfd, s->memory, len, off), stored;
	size_t from = 0, to = 0;
	int r = 0;

	if (have < 0)
		return (int)have;
	len = (size_t)have;
	stored = read_whole(s->store, s->file, len, off);
	if (stored < 0)
		return (int)stored;
	for (size_t at = 0; at < len && r == 0; at += PAGE_SIZE_) {
		size_t n = MIN(PAGE_SIZE_, len - at), in_store = at < (size_t)stored ? MIN(n, (size_t)stored - at) : 0;

		if (!is_wanted(s, s->memory + at, s->file + at, n, in_store, off + at))
			continue;
		if (at != to && to > from) {
			r = write_whole(s->store, s->memory + from, to - from, off + from);
			from = at;
		} else if (to == from) {
			from = at;
		}
		to = at + n;
		s->written++;
	}
	return r == 0 && to > from ? write_whole(s->store, s->memory + from, to - from, off + from) : r;
}

static int salvage_pages(struct salvage *s)
{
	uint64_t size = (uint64_t)s->st.st_size, at = 0;
	struct stat st;
	int r = 0;

	while (r == 0 && at < size) {
		off_t data = lseek(s->memfd, (off_t)at, SEEK_DATA), hole = data < 0 ? -1 : lseek(s->memfd, data, SEEK_HOLE);

		if (data < 0)
			break;
		for (at = (uint64_t)data; r == 0 && at < MIN((uint64_t)hole, size); at += CHUNK) {
			r = salvage_chunk(s, at, MIN(CHUNK, MIN((uint64_t)hole, size) - at));
			(void)sd_notify(0, "EXTEND_TIMEOUT_USEC=60000000\nWATCHDOG=1");
		}
		at = (uint64_t)hole;
	}
	/* It had grown, and its end was a hole. */
	if (r == 0 && fstat(s->store, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size < size && ftruncate(s->store, (off_t)size) < 0)
		r = -errno;
	if (r == 0 && fsync(s->store) < 0)
		r = -errno;
	return r;
}

/* --- files --- */

/* Of the file that `memfd`'s name says, to read and write, not past the kernel's cache. *ret_reader: there is one that only reads. */
static int find_store(const char *name, uint64_t dev, uint64_t ino, bool *ret_reader)
{
	unsigned n;
	struct fdstore_fd *p = fdstore_passed(&n);

	*ret_reader = false;
	for (unsigned i = 0; i < n; i++) {
		struct stat st;
		int flags;

		if (p[i].fd < 0 || p[i].name[0] != 's' || strcmp(p[i].name + 1, name + 1) != 0 || fstat(p[i].fd, &st) < 0)
			continue;
		if (S_ISBLK(st.st_mode) ? dev != BLOCK_DEVICE || ino != st.st_rdev : dev != st.st_dev || ino != st.st_ino)
			continue;
		flags = fcntl(p[i].fd, F_GETFL);
		if (flags >= 0 && (flags & O_ACCMODE) == O_RDWR && !(flags & O_DIRECT))
			return p[i].fd;
		*ret_reader |= flags >= 0 && (flags & O_ACCMODE) == O_RDONLY;
	}
	return -1;
}

static void salvage_file(struct salvage *s, const struct fdstore_fd *p)
{
	uint64_t dev, ino;
	bool reader;
	int r;

	if (memory_is_huge(p->fd) || !memory_file_of(p->fd, &dev, &ino) || fstat(p->fd, &s->st) < 0)
		return; /* its control page, or what nobody can have written to */
	s->memfd = p->fd;
	s->store = find_store(p->name, dev, ino, &reader);
	s->written = s->zeros = 0;
	if (s->store < 0) {
		/* Who only reads has changed nothing; and who has closed it has had it written. */
		log_at(LOG_LEVEL_NOTICE, NULL, 0, "state lost: the memory of file %" PRIx64 ":%" PRIx64 " is dropped, %s", dev, ino,
		       reader ? "it was open to read only" : "nobody had it open");
		return;
	}
	proc_fd_name(s->store, s->name, sizeof(s->name));
	find_maps(s);
	r = salvage_pages(s);
	free_maps(s);
	if (r < 0)
		log_at(LOG_LEVEL_ERROR, s->name, 0, "state lost: %" PRIu64 " pages that were not as in the store have been written to it, the rest is lost: %s",
		       s->written, strerror(-r));
	else
		log_at(LOG_LEVEL_WARNING, s->name, 0, "state lost: %" PRIu64 " pages that were not as in the store have been written to it", s->written);
	if (s->zeros > 0)
		log_at(LOG_LEVEL_WARNING, s->name, 0, "state lost: %" PRIu64 " pages of zeros that nobody has mapped have been left out", s->zeros);
}

/* What the dead daemon had begun to write must not come after what is written here. */
static void wait_for_lifelines(void)
{
	unsigned n;
	struct fdstore_fd *p = fdstore_passed(&n);

	for (unsigned i = 0; i < n; i++) {
		struct pollfd l = { .fd = p[i].fd };

		if (p[i].fd >= 0 && p[i].name[0] == 'L' && poll(&l, 1, PATIENCE_MS) == 0)
			log_warning("state lost: writes of the daemon before are still under way");
	}
}

void salvage_all(void)
{
	unsigned n;
	struct fdstore_fd *p = fdstore_passed(&n);
	struct salvage *s = NULL;

	for (unsigned i = 0; i < n; i++) {
		if (p[i].fd < 0 || p[i].name[0] != 'f')
			continue;
		if (!s) {
			s = calloc(1, sizeof(*s));
			if (!s) {
				log_error("state lost: out of memory, what was dirty is lost");
				return;
			}
			wait_for_lifelines();
		}
		salvage_file(s, &p[i]);
	}
	free(s);
}
