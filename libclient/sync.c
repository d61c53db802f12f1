/* SPDX-License-Identifier: Apache-2.0 */
/* Syncs: of a handle, and of whatever handle stands for a memfd that is mapped somewhere. Any thread. Calls file. */
#include "libclient/internal.h"

int file_sync(struct pgc_file *f, bool data)
{
	struct pgc_msg m = { .type = PGC_MSG_SYNC };

	m.sync.flags = data ? PGC_SYNC_DATA : 0;
	return file_request(f, &m, NULL, 0);
}

int file_write_out(struct pgc_file *f, uint64_t off, uint64_t len, bool wait)
{
	struct pgc_msg m = { .type = PGC_MSG_SYNC };

	m.sync = (struct pgc_sync){ .off = off, .len = len, .flags = PGC_SYNC_WRITE | (wait ? 0 : PGC_SYNC_ASYNC) };
	return file_request(f, &m, NULL, 0);
}

static bool has_memfd(const struct pgc_file *f, dev_t mem_dev, ino_t mem_ino)
{
	return f->memfd >= 0 && f->mem_ino == mem_ino && f->mem_dev == mem_dev;
}

/*
 * Handle number `n` of that memfd, kept alive until file_put(): `first` if it is one, then those that are open, then
 * closed ones that live on for their mappings.
 */
static struct pgc_file *take_by_memfd(struct pgc_file *first, dev_t mem_dev, ino_t mem_ino, unsigned n)
{
	struct pgc_file *f = NULL;

	pthread_mutex_lock(&lib.lock);
	/* One that was closed before the fork has no error to tell in this process: no reason to connect it. */
	if (first && (!has_memfd(first, mem_dev, mem_ino) ||
		      (first->closed && __atomic_load_n(&first->stale, __ATOMIC_RELAXED))))
		first = NULL;
	if (first && n-- == 0)
		f = first;
	for (int closed = 0; closed < 2 && !f; closed++)
		for (f = lib.files; f; f = f->next)
			if (f != first && !f->opening && f->closed == closed && has_memfd(f, mem_dev, mem_ino) &&
			    n-- == 0)
				break;
	if (f)
		f->busy++;
	pthread_mutex_unlock(&lib.lock);
	return f;
}

int file_sync_memfd(struct pgc_file *first, dev_t mem_dev, ino_t mem_ino, uint64_t off, uint64_t len, bool async)
{
	struct pgc_file *f;
	int r = 0;

	for (unsigned n = 0; (f = take_by_memfd(first, mem_dev, mem_ino, n)); n++) {
		struct pgc_msg m = { .type = PGC_MSG_SYNC };

		m.sync = (struct pgc_sync){ .off = off, .len = len, .flags = async ? PGC_SYNC_ASYNC : 0 };
		r = file_request(f, &m, NULL, 0);
		file_put(f);
		/* A closed handle's connection may be gone already; another of the same file does as well. */
		if (r != -ECONNRESET && r != -ENOTCONN && r != -EPROTO)
			break;
	}
	return r;
}

PGC_PUBLIC int pgc_fsync(struct pgc_file *f)
{
	NO_CANCEL;

	return f ? file_sync(f, false) : -EBADF;
}

PGC_PUBLIC int pgc_fdatasync(struct pgc_file *f)
{
	NO_CANCEL;

	return f ? file_sync(f, true) : -EBADF;
}
