/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and their blocks: memory, bits, sizes, references. See file.h for the lifetime of a file.
 *
 * Invariants
 *   - The memfd's size is the file's size, or that up to a whole huge page. Clients with a writable memfd can change it: file_heal() mends that.
 *   - A page is charged from the moment it is being filled or becomes resident until block_forget().
 *   - dirty, writeback and keep are subsets of resident; filling and resident do not meet.
 *   - A block exists while any bit of it is set or someone waits for it; it holds one reference on the host mapper's
 *     chunk, so that its window address stays.
 * Runs on the file's worker. May call stores, the block table and util; knows nothing of handles or faults.
 */
#include "daemon/file.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>

#include "daemon/cgroup.h"
#include "daemon/file_save.h"
#include "daemon/fill.h"
#include "daemon/huge.h"
#include "daemon/kept.h"
#include "daemon/kill_point.h"
#include "daemon/log.h"
#include "daemon/memory.h"
#include "daemon/proc_fd.h"
#include "daemon/reclaim.h"
#include "daemon/saved.h"
#include "daemon/track.h"
#include "daemon/window.h"
#include "daemon/writeback.h"
#include "daemon/written.h"

static const struct frame_refs_functions ref_functions;

void (*file_idle_hook)(struct file *f);

static struct list *hash_bucket(struct worker *w, uint64_t dev, uint64_t ino)
{
	uint64_t h = (dev * 0x9e3779b97f4a7c15ull) ^ (ino * 0xc2b2ae3d27d4eb4full);

	return &w->files[(h ^ (h >> 29)) % FILE_HASH_SIZE];
}

struct file *file_find(struct worker *w, uint64_t dev, uint64_t ino)
{
	struct file *f;

	list_for_each(f, hash_bucket(w, dev, ino), by_hash)
		if (f->dev == dev && f->ino == ino)
			return f;
	return NULL;
}

/* The end of a long path says more than its beginning. */
void file_set_name(struct file *f, const char *name)
{
	size_t n = strlen(name), room = sizeof(f->e->name) - 1;

	memset(f->e->name, 0, sizeof(f->e->name));
	memcpy(f->e->name, n > room ? name + n - room : name, MIN(n, room));
	for (char *c = f->e->name; *c; c++)
		if ((unsigned char)*c < ' ') /* it is printed in tables */
			*c = '?';
}

/* Clients get it read-only: a descriptor opened so, of a memfd that nobody else may open again. The daemon's own is kept, for the next one to write it. */
static int map_control_page(struct file *f)
{
	void *p = mmap(NULL, PAGE_SIZE_, PROT_READ | PROT_WRITE, MAP_SHARED, f->control_fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	f->control = p;
	file_stat_begin(f);
	f->control_ro = proc_fd_reopen(f->control_fd, O_RDONLY);
	if (f->control_ro < 0)
		return f->control_ro;
	return fchmod(f->control_fd, 0400) < 0 ? -errno : 0;
}

static int make_control_page(struct file *f)
{
	f->control_fd = memfd_create("pagecached-control", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (f->control_fd < 0 || ftruncate(f->control_fd, PAGE_SIZE_) < 0 ||
	    fcntl(f->control_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return map_control_page(f);
}

/* Frees the longest idle file of the worker, to have its slot. */
static bool evict_idle(struct worker *w)
{
	struct file *f;

	list_for_each(f, &w->all_files, by_worker)
		if (f->state == FILE_IDLE && f->pins.map.n == 0 && f->e->dirty == 0) {
			file_free(f);
			return true;
		}
	return false;
}

/* Is a slot on its way back, after a moment's work of ours or of who keeps descriptors? */
static bool slot_will_be_free(struct worker *w)
{
	struct file *f;

	if (!list_empty(&w->removals))
		return true;
	list_for_each(f, &w->all_files, by_worker)
		if (f->state == FILE_READY && f->n_handles == 0 && list_empty(&f->spaces) && f->pins.map.n == 0 && f->last_error == 0)
			return true; /* what is dirty is being written */
	return false;
}

/* Without memory. `slot` is taken by the caller. */
static struct file *file_make(struct worker *w, uint32_t slot, uint64_t dev, uint64_t ino)
{
	struct file *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->worker = w;
	f->dev = dev;
	f->ino = ino;
	f->slot = slot;
	f->state = FILE_OPENING;
	f->memfd = f->memfd_ro = f->control_fd = f->control_ro = f->shown.fd = f->tracked.fd = f->written.fd = -1;
	list_init(&f->readers);
	list_init(&f->trackers);
	f->readahead_max = w->config->readahead_max;
	w->file_of[f->slot - w->file_slots.first] = f;
	list_init(&f->opening);
	list_init(&f->spaces);
	list_init(&f->fills);
	list_init(&f->lent);
	list_init(&f->ops);
	list_init(&f->parked);
	list_init(&f->unsynced);
	list_init(&f->poisoned);
	list_init(&f->publish.link);
	list_init(&f->ops_task.link);
	list_init(&f->retain_task.link);
	list_init(&f->stat_task.link);
	list_init(&f->looking);
	list_init(&f->look_next);
	frame_refs_init(&f->refs, &ref_functions, f);
	dirty_set_init(&f->kept);
	dirty_set_init(&f->pins);
	dirty_set_init(&f->locked);
	writeback_file_init(f);
	list_append(hash_bucket(w, dev, ino), &f->by_hash);
	list_append(&w->all_files, &f->by_worker);
	w->n_files++;
	f->e = &w->state->files[slot];
	f->saved = &w->state->saved_files[slot];
	return f;
}

/* The descriptors are there: what else belongs to the memory. */
static int set_up_memory(struct file *f)
{
	struct stat st;

	host_mapper_init(&f->mapper, f->memfd);
	f->memfd_ro = proc_fd_reopen(f->memfd, O_RDONLY);
	if (f->memfd_ro < 0)
		return f->memfd_ro;
	/* Nobody reopens it through /proc with more rights than the descriptor that was given. */
	if (fchmod(f->memfd, 0400) < 0 || fstat(f->memfd, &st) < 0)
		return -errno;
	f->huge = memory_is_huge(f->memfd);
	f->memfd_dev = st.st_dev;
	f->memfd_ino = st.st_ino;
	return 0;
}

static int make_memory(struct worker *w, uint64_t dev, uint64_t ino, uint64_t birth, const char *name, bool huge)
{
	int fd = huge ? memory_create_huge(dev, ino, birth) : -1;

	if (huge && fd < 0 && !w->no_huge_logged) {
		log_at(LOG_LEVEL_WARNING, name, 0, "no huge pages are to be had (%s): it has ordinary ones, as all others that find none", strerror(-fd));
		w->no_huge_logged = true;
	}
	return fd >= 0 ? fd : memory_create(dev, ino, birth);
}

/* `memfd` -1: made here, of that birth. */
static int new_with(struct file **ret, struct worker *w, uint64_t dev, uint64_t ino, uint64_t birth, const char *name, bool huge, int memfd)
{
	struct file *f;
	int64_t slot;
	int r;

	slot = slot_pool_take(&w->file_slots);
	if (slot < 0 && evict_idle(w))
		slot = slot_pool_take(&w->file_slots);
	f = slot < 0 ? NULL : file_make(w, (uint32_t)slot, dev, ino);
	if (!f) {
		if (slot >= 0)
			slot_pool_give(&w->file_slots, (uint32_t)slot);
		if (memfd >= 0)
			close(memfd);
		return slot >= 0 ? -ENOMEM : slot_will_be_free(w) ? -EAGAIN : -ENFILE;
	}
	memset(f->e, 0, sizeof(*f->e));
	memset(f->saved, 0, sizeof(*f->saved));
	f->e->worker = w->id;
	f->e->dev = dev;
	f->e->ino = ino;
	file_set_name(f, name);

	f->memfd = memfd >= 0 ? memfd : make_memory(w, dev, ino, birth, name, huge);
	r = f->memfd < 0 ? f->memfd : set_up_memory(f);
	kill_point("file.memfd_made");
	if (r == 0)
		r = make_control_page(f);
	if (r < 0) {
		file_free(f);
		return r;
	}
	kill_point("file.made");
	f->e->file = f->slot;
	*ret = f;
	return 0;
}

int file_new(struct file **ret, struct worker *w, uint64_t dev, uint64_t ino, uint64_t birth, const char *name, bool huge)
{
	return new_with(ret, w, dev, ino, birth, name, huge, -1);
}

/* The very memfd that the record names, made by our own user. */
static bool is_recorded(const struct stat *st, const struct pgc_saved_file *saved)
{
	return S_ISREG(st->st_mode) && st->st_uid == geteuid() && st->st_ino == saved->memfd_ino && st->st_dev == saved->memfd_dev;
}

int file_new_empty(struct file **ret, struct worker *w, uint64_t dev, uint64_t ino, const char *name, int memfd)
{
	struct file *f;
	struct stat st;
	int r;

	if (fstat(memfd, &st) < 0) {
		r = -errno;
		close(memfd);
		return r;
	}
	r = new_with(&f, w, dev, ino, 0, name, false, memfd);
	if (r < 0)
		return r;
	f->size = f->e->size = (uint64_t)st.st_size;
	__atomic_store_n(&f->control->size, f->size, __ATOMIC_RELEASE);
	r = f->size > 0 ? file_punch(f, 0, file_pages(f)) : 0;
	if (r < 0) {
		file_free(f);
		return r;
	}
	f->version.valid = true; /* of which nothing will be as it is in the store: so its size is taken over */
	*ret = f;
	return 0;
}

static int add_length(void *arg, struct range r, bool keep)
{
	*(uint64_t *)arg += r.end - r.start;
	return 0;
}

/* Pages of a set. */
static uint64_t pages_of(const struct dirty_set *d, struct range r)
{
	uint64_t bytes = 0;

	dirty_set_walk(d, r, add_length, &bytes);
	return bytes / PAGE_SIZE_;
}

#define ALL ((struct range){ 0, ~0ull })

static void forget_pins(struct file *f, struct dirty_set *d)
{
	atomic_fetch_sub_explicit(&f->worker->budget->pinned, pages_of(d, ALL), memory_order_relaxed);
	dirty_set_free(d);
	dirty_set_init(d);
}

static void free_mapping_slots(struct file *f)
{
	f->worker->changes++;
	for (size_t i = 0; i < f->n_ref_slots; i++) {
		memset(&f->worker->state->mappings[f->ref_slots[i]], 0, sizeof(struct pgc_mapping_entry));
		slot_pool_give(&f->worker->mapping_slots, f->ref_slots[i]);
	}
	free(f->ref_slots);
	f->ref_slots = NULL;
	f->n_ref_slots = 0;
}

/* What it has in this process. Its records stay. */
static void let_go(struct file *f)
{
	struct worker *w = f->worker;
	const int fds[] = { f->control_fd, f->control_ro, f->memfd_ro, f->memfd };

	frame_refs_free(&f->refs);
	dirty_set_free(&f->kept);
	forget_pins(f, &f->pins);
	f->worker->locked_files -= f->locked.map.n > 0;
	forget_pins(f, &f->locked);
	free_mapping_slots(f);
	if (f->memfd >= 0)
		host_mapper_free(&f->mapper);
	if (f->store)
		f->store->ops->close(f->store);
	if (f->control) {
		file_stat_end(f);
		munmap(f->control, PAGE_SIZE_);
	}
	window_free(f);
	written_free(f);
	track_file_free(f);
	for (size_t i = 0; i < ELEMENTSOF(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	list_remove(&f->publish.link);
	list_remove(&f->ops_task.link);
	list_remove(&f->retain_task.link);
	list_remove(&f->stat_task.link);
	list_remove(&f->sync_task.link);
	list_remove(&f->by_hash);
	list_remove(&f->by_worker);
	w->n_files--;
	w->kept_bytes -= f->kept_bytes;
	w->file_of[f->slot - w->file_slots.first] = NULL;
}

void file_free(struct file *f)
{
	struct worker *w = f->worker;
	bool tracked_kept = f->tracked.kept;
	char name[FDSTORE_NAME_MAX];
	struct block *b;

	assert(f->n_handles == 0 && list_empty(&f->fills) && list_empty(&f->writes) && list_empty(&f->syncs));
	while ((b = block_tree_next(&f->blocks, 0, false))) {
		block_forget(b, ~0ull);
		assert(list_empty(&b->waiters));
		block_maybe_free(b);
	}
	block_tree_free(&f->blocks);
	kill_point("file.blocks_freed");
	let_go(f);
	f->e->file = 0;
	kill_point("file.closed");
	crash_order();
	memset(f->e, 0, sizeof(*f->e));
	file_save_end(f);
	file_save_no_store(f);
	if (tracked_kept)
		kept_remove(w, fdstore_name(name, 't', f->slot), 1, NULL, 0);
	if (f->memory_kept)
		kept_remove(w, fdstore_name(name, 'f', f->slot), 2, &w->file_slots, f->slot);
	else
		slot_pool_give(&w->file_slots, f->slot);
	free(f);
}

int file_restore(struct file **ret, struct worker *w, uint32_t slot, int memfd, int control_fd)
{
	struct pgc_saved_file *saved = &w->state->saved_files[slot];
	struct file *f = file_make(w, slot, saved->dev, saved->ino);
	struct stat st;
	int r;

	if (!f)
		return -ENOMEM;
	f->memfd = memfd;
	f->control_fd = control_fd;
	f->memory_kept = control_fd >= 0;
	r = set_up_memory(f);
	if (r == 0)
		r = control_fd >= 0 ? map_control_page(f) : make_control_page(f);
	if (r == 0)
		r = file_load(f);
	if (r == 0 && (fstat(memfd, &st) < 0 || !is_recorded(&st, saved) || f->e->size > INT64_MAX))
		r = -ESTALE;
	f->exact = r == 0 && saved->filling == 0 && saved->drop_n == 0 && saved->op.kind == 0 && (uint64_t)st.st_size == file_memory_size(f, f->e->size) &&
		   (uint64_t)st.st_blocks == f->e->resident * (PAGE_SIZE_ / 512);
	if (r == 0 && (uint64_t)st.st_size != file_memory_size(f, f->e->size) && ftruncate(memfd, (off_t)file_memory_size(f, f->e->size)) < 0)
		r = -errno;
	if (r < 0) {
		f->memfd = -1;
		if (f->control_fd == control_fd)
			f->control_fd = -1;
		let_go(f);
		free(f);
		return r;
	}
	f->e->file = slot;
	f->e->worker = w->id;
	f->e->dev = saved->dev;
	f->e->ino = saved->ino;
	f->e->name[sizeof(f->e->name) - 1] = 0;
	f->e->handles = f->e->mappings = f->e->kernel_fault_handles = 0;
	f->e->resident = f->e->dirty = f->e->writeback = f->e->keep = f->e->dirty_since = 0;
	f->size = f->e->size;
	__atomic_store_n(&f->control->size, f->size, __ATOMIC_RELEASE);
	f->control->stopped = 0;
	f->taking_over = true;
	/* Whoever has read with an answer of the dead daemon looks again. */
	file_bump_seq(f);
	*ret = f;
	return 0;
}

int file_adopt(struct file **ret, struct worker *w, uint32_t slot, int memfd)
{
	const struct pgc_saved_file *saved = &w->state->saved_files[slot];
	struct stat st;
	int r = fstat(memfd, &st) < 0 || !is_recorded(&st, saved) ? -ESTALE : file_restore(ret, w, slot, memfd, -1);

	if (r < 0)
		close(memfd);
	return r;
}

/* --- versions, open and idle --- */

static void times_changed(struct file *f)
{
	file_save_times(f);
	file_stat_show(f);
}

void file_looked_at(struct file *f, const struct store_stat *st)
{
	f->unlinked = st->nlink == 0;
	/* Asking where holes are may block on what is no disk (FUSE, NFS: devices without a major number). */
	f->sparse = st->blocks * 512 < st->size && major(st->dev) != 0;
}

static void remember_version(struct file *f, const struct store_stat *st)
{
	f->version = (struct file_version){ true, st->size, st->blocks, st->mtime, st->ctime };
	file_save_version(f);
	file_looked_at(f, st);
}

/* The end in bytes of the last dirty page, 0: clean. */
static uint64_t dirty_end(struct file *f)
{
	uint64_t end = 0;

	for (struct block *b = block_tree_next(&f->blocks, 0, true); b; b = block_tree_next(&f->blocks, b->e->index + 1, true))
		end = (block_first(b) + 64 - (unsigned)__builtin_clzll(b->e->dirty)) * PAGE_SIZE_;
	return MIN(end, f->size);
}

bool file_version_differs(const struct file *f, uint64_t size, struct timespec mtime, struct timespec ctime)
{
	return f->version.valid && (size != f->version.size || !same_time(mtime, f->version.mtime) || !same_time(ctime, f->version.ctime));
}

int file_opened(struct file *f, const struct store_stat *st, uint64_t moves)
{
	bool first = f->state == FILE_OPENING && !f->version.valid && f->blocks.count == 0 && f->size == 0;
	bool old = moves != f->moves, changed = !old && file_version_differs(f, st->size, st->mtime, st->ctime);
	int r = 0;

	if (f->state == FILE_OPENING)
		f->store_size = st->size; /* nobody of ours writes; and of a file that was taken over idle it is not known */
	f->state = FILE_READY;
	f->stat_failed = false;
	if (first) {
		r = file_set_size(f, st->size);
	} else if (changed && list_empty(&f->ops) && list_empty(&f->writes)) {
		log_at(LOG_LEVEL_INFO, f->e->name, 0, "changed in its store: clean pages are dropped");
		f->fill_gen++;
		file_drop_clean(f, 0, ~0ull, false);
		f->store_size = st->size;
		r = file_set_size(f, MAX(st->size, dirty_end(f)));
	} else if (old || changed || !f->version.valid) {
		file_stat_show(f);
		return 0; /* we are writing, or have: what changed is our own doing, and is looked at when that is over */
	}
	if (r == 0) {
		remember_version(f, st);
		file_times_looked(&f->times, file_times_now(), st, true);
		times_changed(f);
	}
	return r;
}

static void version_done(struct store_op *op, ssize_t result)
{
	struct file *f = container_of(op, struct file, version_op);
	bool idle = list_empty(&f->writes) && list_empty(&f->ops), quiet = idle && f->moves == f->version_moves;
	const struct store_stat *st = f->restoring ? &f->restore.after : &f->version_stat;
	struct list waiting;
	struct parked *p;

	f->version_busy = false;
	f->stat_failed = result < 0;
	kill_point("times.looked_at");
	if (result == 0 && f->restoring)
		file_times_restored(&f->times, file_times_now(), &f->restore, quiet);
	else if (result == 0)
		file_times_looked(&f->times, file_times_now(), st, quiet);
	times_changed(f);
	/*
	 * A write that began meanwhile has made it stale: its own end will look again. And where nothing of ours was written since the version was remembered, a
	 * difference is somebody else's, for the next open to find.
	 */
	if (result == 0 && quiet && !f->version.valid)
		remember_version(f, st);
	list_init(&waiting);
	list_splice(&waiting, &f->looking);
	f->requests++; /* whoever is told may be the last to use the file */
	while ((p = list_first(&waiting, struct parked, link))) {
		list_remove(&p->link);
		p->resume(p);
	}
	f->requests--;
	if (!list_empty(&f->look_next) || (idle && !quiet)) /* what has ended meanwhile found us at it */
		file_refresh_version(f);
	file_maybe_idle(f);
}

void file_refresh_version(struct file *f)
{
	if (f->version_busy || !f->store)
		return;
	f->version_busy = true;
	f->version_moves = f->moves;
	list_splice(&f->looking, &f->look_next);
	f->version_op.done = version_done;
	f->restoring = f->times.moved && f->store->writable;
	if (f->restoring) {
		file_times_restore(&f->times, &f->restore);
		times_changed(f);
		f->store->ops->restore(f->store, &f->version_op, &f->restore);
	} else {
		f->store->ops->stat(f->store, &f->version_op, &f->version_stat);
	}
}

void file_look(struct file *f, struct parked *p)
{
	list_append(&f->look_next, &p->link);
	file_refresh_version(f);
}

void file_changed(struct file *f)
{
	file_times_changed(&f->times, file_times_now());
	times_changed(f);
}

void file_moving(struct file *f)
{
	f->moves++;
	f->version.valid = false;
	file_save_version(f);
	file_times_moving(&f->times, file_times_now());
	times_changed(f);
}

void file_maybe_idle(struct file *f)
{
	if (f->unmapped_to > 0 && f->n_handles > 0)
		worker_queue(f->worker, &f->retain_task);
	if (f->n_handles > 0 || f->awaited > 0 || f->state == FILE_IDLE || !list_empty(&f->opening) || f->worker->stopped)
		return;
	if (!list_empty(&f->fills) || !list_empty(&f->writes) || !list_empty(&f->syncs) || !list_empty(&f->ops) ||
	    f->version_busy || f->timers > 0 || f->requests > 0)
		return;
	if (f->e->dirty > f->e->keep) {
		writeback_background(f);
		return;
	}
	if (f->store && !f->stat_failed && !f->unlinked &&
	    (f->times.moved || (!f->version.valid && f->retain != RETAIN_MAPPED && f->size != 0 && f->last_error == 0 && f->blocks.count > 0))) {
		file_refresh_version(f);
		if (f->version_busy)
			return;
	}
	if (file_idle_hook)
		file_idle_hook(f);
	if (f->unlinked || f->blocks.count == 0 || !f->version.valid || f->retain == RETAIN_MAPPED) {
		file_free(f);
		return;
	}
	file_save_no_store(f);
	if (f->store) {
		f->store->ops->close(f->store);
		f->store = NULL;
	}
	kill_point("file.idle");
	file_stat_hide(f);
	f->state = FILE_IDLE;
}

/* --- pages of a file --- */

void file_clear_keep(struct file *f)
{
	if (f->kept_bytes == 0)
		return;
	for (struct block *b = block_tree_next(&f->blocks, 0, false); b; b = block_tree_next(&f->blocks, b->e->index + 1, false)) {
		block_set_dirty(b, b->e->keep); /* one in writeback too: it was writable until now */
		block_set_keep(b, ~0ull, false);
	}
	f->worker->kept_bytes -= f->kept_bytes;
	dirty_set_free(&f->kept);
	dirty_set_init(&f->kept);
	f->kept_bytes = 0;
	file_save_ranges(f);
}

int file_punch_only(struct file *f, uint64_t first, uint64_t n)
{
	if (fallocate(f->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(first * PAGE_SIZE_),
		      (off_t)(n * PAGE_SIZE_)) < 0)
		return -errno;
	f->worker->stats->punched_pages += n;
	return 0;
}

int file_punch(struct file *f, uint64_t first, uint64_t n)
{
	int r = file_punch_only(f, first, n);

	if (r == 0)
		track_punched(f, first, n);
	return r;
}

int file_zero_pages(struct file *f, uint64_t first, uint64_t n)
{
	int r = file_punch(f, first, n);

	if (r < 0)
		return r;
	/* Keeps the size; a memfd that a client cut short is mended first. */
	if (fallocate(f->memfd, FALLOC_FL_KEEP_SIZE, (off_t)(first * PAGE_SIZE_), (off_t)(n * PAGE_SIZE_)) < 0)
		return -errno;
	return 0;
}

uint64_t file_drop_clean(struct file *f, uint64_t from, uint64_t to, bool unmapped)
{
	uint64_t dropped = 0, index = from / PGC_BLOCK_PAGES;
	struct block *b;

	if (f->huge)
		return huge_drop(f, from, to, unmapped);
	for (; (b = block_tree_next(&f->blocks, index, false)) && block_first(b) < to;) {
		index = b->e->index + 1;
		if (!unmapped || b->e->refs == 0)
			dropped += block_drop_clean(b, block_mask(b, from, to));
	}
	return dropped;
}

/* --- memory that clients made --- */

#define STRAYS_MIN  64u              /* pages: below this nobody looks */
#define STRAYS_TURN 512u             /* pieces that are looked at in one go */

uint64_t file_punch_strays(struct file *f, uint64_t page, uint64_t end)
{
	uint64_t dropped = 0;

	while (page < end) {
		struct block *b = block_tree_find(&f->blocks, page / PGC_BLOCK_PAGES);
		unsigned from = (unsigned)(page % PGC_BLOCK_PAGES);
		uint64_t ours = b ? b->e->resident | b->filling : 0, n;

		n = MIN(ours & (1ull << from) ? bits_run(ours, from) : bits_run(~ours, from), end - page);
		if (!(ours & (1ull << from)) && file_punch(f, page, n) == 0)
			dropped += n;
		page += n;
	}
	return dropped;
}

/* From f->stray_cursor on. */
static void punch_strays(struct file *f)
{
	uint64_t dropped = 0;

	for (unsigned i = 0; i < STRAYS_TURN; i++) {
		off_t data = lseek(f->memfd, (off_t)(f->stray_cursor * PAGE_SIZE_), SEEK_DATA), hole;
		uint64_t page, end;

		if (data < 0) {
			f->stray_cursor = 0;
			break;
		}
		hole = lseek(f->memfd, data, SEEK_HOLE);
		page = (uint64_t)data / PAGE_SIZE_;
		end = MIN(hole < 0 ? page + 1 : page_up((uint64_t)hole), align_down(page, PGC_BLOCK_PAGES) + PGC_BLOCK_PAGES);
		dropped += file_punch_strays(f, page, end);
		f->stray_cursor = end;
	}
	if (dropped > 0 && !f->stray_logged)
		log_at(LOG_LEVEL_WARNING, f->e->name, 0, "a client put %llu pages of its own into the cache's memory: dropped",
		       (unsigned long long)dropped);
	f->stray_logged |= dropped > 0;
}

bool file_audit(struct worker *w)
{
	bool again = false;
	struct file *f;

	list_for_each(f, &w->all_files, by_worker) {
		uint64_t ours = f->e->resident;
		struct fill *fill;
		struct stat st;

		if (f->n_handles == 0 || !f->store || (!f->store->writable && !f->huge))
			continue;
		again = true;
		if (f->huge) {
			huge_audit(f);
			continue;
		}
		list_for_each(fill, &f->fills, link)
			ours += fill->n;
		if (fstat(f->memfd, &st) == 0 && (uint64_t)st.st_blocks / (PAGE_SIZE_ / 512) > ours + STRAYS_MIN)
			punch_strays(f);
	}
	return again;
}

/* --- pins --- */

struct wanted { struct block *b; uint64_t pages; };

static int add_wanted(void *arg, struct range r, bool keep)
{
	struct wanted *w = arg;

	w->pages |= block_mask(w->b, r.start / PAGE_SIZE_, page_up(r.end));
	return 0;
}

void file_apply_pins(struct file *f, struct block *b)
{
	struct range r = { b->e->index << BLOCK_SHIFT, (b->e->index + 1) << BLOCK_SHIFT };
	struct wanted w = { b, 0 };

	if (f->pins.map.n == 0 && f->locked.map.n == 0 && b->pinned == 0)
		return;
	dirty_set_walk(&f->pins, r, add_wanted, &w);
	dirty_set_walk(&f->locked, r, add_wanted, &w);
	block_set_pinned(b, w.pages, true);
	block_set_pinned(b, b->pinned & ~w.pages, false);
}

static void apply_pins(struct file *f, uint64_t from, uint64_t to)
{
	struct block *b = block_tree_next(&f->blocks, from >> BLOCK_SHIFT, false);

	for (; b && b->e->index << BLOCK_SHIFT < to; b = block_tree_next(&f->blocks, b->e->index + 1, false)) {
		reclaim_restore(b, f->pins.map.n || f->locked.map.n ? block_mask(b, from / PAGE_SIZE_, page_up(to)) : 0, POLICY_CALL);
		file_apply_pins(f, b);
	}
}

static bool charge_pins(struct file *f, uint64_t pages)
{
	struct budget *b = f->worker->budget;
	uint64_t max = atomic_load_explicit(&b->pin_max, memory_order_relaxed);

	/* The limit is checked by the add itself. */
	if (atomic_fetch_add_explicit(&b->pinned, pages, memory_order_relaxed) + pages <= max)
		return true;
	atomic_fetch_sub_explicit(&b->pinned, pages, memory_order_relaxed);
	return false;
}

int file_pin(struct file *f, uint64_t from, uint64_t to, bool on)
{
	struct range r = { from, to };
	uint64_t had = pages_of(&f->pins, r), more = (to - from) / PAGE_SIZE_ - had;
	int e;

	if (on && !charge_pins(f, more))
		return -ENOSPC;
	e = on ? dirty_set_mark_dirty(&f->pins, r, false) : dirty_set_forget(&f->pins, r);
	if (e < 0 || !on)
		atomic_fetch_sub_explicit(&f->worker->budget->pinned, e < 0 ? (on ? more : 0) : had, memory_order_relaxed);
	if (e == 0) {
		file_save_ranges(f);
		apply_pins(f, from, to);
	}
	return e;
}

bool file_set_locked(struct file *f, struct dirty_set *locked)
{
	bool all = true;

	f->worker->locked_files -= f->locked.map.n > 0;
	forget_pins(f, &f->locked);
	if (charge_pins(f, pages_of(locked, ALL))) {
		f->locked = *locked;
		f->worker->locked_files += f->locked.map.n > 0;
	} else {
		dirty_set_free(locked);
		all = false;
	}
	dirty_set_init(locked);
	apply_pins(f, 0, ~0ull);
	return all;
}

/* --- barrier --- */

bool file_park(struct file *f, uint64_t first, uint64_t n, struct parked *p)
{
	if (!f->barrier.active || first >= f->barrier.to || first + n <= f->barrier.from)
		return false;
	list_append(&f->parked, &p->link);
	return true;
}

void file_lift_barrier(struct file *f)
{
	struct list waiting;
	struct parked *p;

	f->barrier.active = false;
	list_init(&waiting);
	list_splice(&waiting, &f->parked);
	while ((p = list_first(&waiting, struct parked, link))) {
		list_remove(&p->link);
		p->resume(p);
	}
}

/* --- references --- */

static struct pgc_cgroup_entry *cgroup_by_id(struct file *f, uint64_t id)
{
	struct state *s = f->worker->state;

	for (uint32_t i = 0; i < s->map[3].entries; i++)
		if (s->cgroups[i].id == id)
			return &s->cgroups[i];
	return NULL;
}

static void refs_charge(void *arg, uint64_t cgroup, uint64_t bytes)
{
	struct pgc_cgroup_entry *cg = cgroup_by_id(arg, cgroup);

	if (cg)
		cgroup_count(&cg->mapped, (int64_t)(bytes / PAGE_SIZE_));
}

static void refs_uncharge(void *arg, uint64_t cgroup, uint64_t bytes)
{
	struct pgc_cgroup_entry *cg = cgroup_by_id(arg, cgroup);

	if (cg)
		cgroup_count(&cg->mapped, -(int64_t)(bytes / PAGE_SIZE_));
}

static const struct frame_refs_functions ref_functions = { refs_charge, refs_uncharge };

/* Writes the file's reference segments into its slots of the `mappings` map. */
static void publish_refs(struct task *t)
{
	struct file *f = container_of(t, struct file, publish);
	struct worker *w = f->worker;
	size_t n = f->refs.map.n;

	w->changes++;
	if (n > f->n_ref_slots) {
		uint32_t *slots = realloc(f->ref_slots, n * sizeof(*slots));

		if (!slots)
			n = f->n_ref_slots;
		else
			f->ref_slots = slots;
	}
	while (f->n_ref_slots > n) {
		uint32_t slot = f->ref_slots[--f->n_ref_slots];

		memset(&w->state->mappings[slot], 0, sizeof(struct pgc_mapping_entry));
		slot_pool_give(&w->mapping_slots, slot);
	}
	while (f->n_ref_slots < n) {
		int64_t slot = slot_pool_take(&w->mapping_slots);

		if (slot < 0) {
			if (!w->no_slots_logged)
				log_warning("the map of mappings is full (max_mappings): some are not shown");
			w->no_slots_logged = true;
			break;
		}
		f->ref_slots[f->n_ref_slots++] = (uint32_t)slot;
	}
	for (size_t i = 0; i < f->n_ref_slots && i < f->refs.map.n; i++) {
		const struct range_seg *s = &f->refs.map.seg[i];

		w->state->mappings[f->ref_slots[i]] = (struct pgc_mapping_entry){
			.file = f->slot, .refs = (uint32_t)s->v.a, .start = s->r.start, .end = s->r.end, .cgroup = s->v.b,
		};
	}
}

void file_refs_changed(struct file *f)
{
	f->worker->changes++;
	f->publish.run = publish_refs;
	worker_queue(f->worker, &f->publish);
}

/* --- in flight, errors --- */

void file_record_error(struct file *f, int error)
{
	f->errseq++;
	f->last_error = f->errseq_code = error;
	file_save_errors(f);
	f->e->error = (uint32_t)-error;
	f->e->flags |= PGC_FILE_ERROR;
	f->worker->stats->writeout_errors++;
}

bool file_is_stuck(const struct file *f)
{
	return f->last_error && f->e->dirty > atomic_load_explicit(&f->worker->budget->memory_max, memory_order_relaxed) / 8;
}
