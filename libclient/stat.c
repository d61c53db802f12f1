/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fstat(2). The kernel says of the file itself what the cache has no part in; size, blocks and times are worked out from that and from what the daemon shows in the
 * control page, in the way in which the daemon does it (pagecached/shown.h). So it says what an answer to STAT would.
 *
 * What is shown counts if it stayed the same from before the kernel was asked until after it, and the daemon that showed it lived then. A dead daemon's page may be half
 * written, and the next daemon may have changed the file by the time that it writes there. Where it does not count, or nothing is shown, the daemon is asked.
 *
 * Any thread. Calls file and conn.
 */
#include <string.h>
#include <sys/mman.h>

#include "libclient/internal.h"

#define ASKED_FIRST 4                /* answers, before it is worth to have the life page */
#define ASKED_AGAIN 1024             /* until it is tried again, when it could not be had */

/* Does the daemon live that has written the control page? */
static bool is_alive(const struct pgc_file *f)
{
	const uint32_t *life = __atomic_load_n(&f->life, __ATOMIC_ACQUIRE);

	return life && __atomic_load_n(&f->life_of, __ATOMIC_ACQUIRE) == __atomic_load_n(&f->controls, __ATOMIC_ACQUIRE) &&
	       !(__atomic_load_n(life, __ATOMIC_ACQUIRE) & PGC_LIFE_DIED);
}

bool stat_look(const struct pgc_file *f, struct stat_look *ret)
{
	uint64_t words[sizeof(ret->shown) / sizeof(uint64_t)];
	const uint64_t *from;

	if (!__atomic_load_n(&f->life, __ATOMIC_ACQUIRE) || __atomic_load_n(&f->stale, __ATOMIC_ACQUIRE) || fork_unseen())
		return false;
	__atomic_thread_fence(__ATOMIC_ACQUIRE); /* who has seen a change sees that it is hidden, or shown */
	from = (const uint64_t *)&f->control->shown;
	ret->seq = __atomic_load_n(&f->control->stat_seq, __ATOMIC_ACQUIRE);
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		words[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
	memcpy(&ret->shown, words, sizeof(words));
	return !(ret->seq & 1);
}

bool stat_shown(struct pgc_file *f, const struct stat_look *look, struct stat *st)
{
	struct timespec now = { 0 };

	if (!S_ISREG(st->st_mode) || (look->shown.bits && !window_has_no_writes(f)))
		return false;
	if (look->shown.times.moved)
		clock_gettime(CLOCK_REALTIME, &now);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (__atomic_load_n(&f->control->stat_seq, __ATOMIC_ACQUIRE) != look->seq || !is_alive(f))
		return false;
	st->st_size = (off_t)look->shown.size;
	st->st_blocks = (blkcnt_t)pgc_show_blocks(&look->shown, (uint64_t)st->st_blocks);
	pgc_show_times(&look->shown.times, now, false, &st->st_mtim, &st->st_ctim);
	return true;
}

/* The page in `fd` is of the daemon that had written control page number `of`. It takes the place of an earlier one at once, whoever reads that. */
static void set_life(struct pgc_file *f, int fd, unsigned of)
{
	void *p;

	if (pthread_mutex_trylock(&f->connect_lock) != 0)
		return;
	p = f->controls == of ? mmap((void *)f->life, PGC_PAGE_SIZE, PROT_READ, MAP_SHARED | (f->life ? MAP_FIXED : 0), fd, 0) : MAP_FAILED;
	if (p != MAP_FAILED) {
		__atomic_store_n(&f->life_of, of, __ATOMIC_RELEASE);
		__atomic_store_n(&f->life, p, __ATOMIC_RELEASE);
		__atomic_store_n(&f->stats_asked, 0, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&f->connect_lock);
}

/* Who asks often gets a life page, so that it need not. */
static bool wants_life(struct pgc_file *f)
{
	return f->buffered >= 0 && !is_alive(f) && __atomic_add_fetch(&f->stats_asked, 1, __ATOMIC_RELAXED) >= ASKED_FIRST;
}

static int ask(struct pgc_file *f, struct pgc_msg *m, bool life)
{
	unsigned of = __atomic_load_n(&f->controls, __ATOMIC_ACQUIRE);
	_cleanup_close_ int fd = -1;
	int got[PGC_FDS_MAX], r;

	*m = (struct pgc_msg){ .type = PGC_MSG_STAT, .stat.life = life };
	r = file_request_fds(f, m, NULL, 0, got, life);
	if (!life)
		return r;
	__atomic_store_n(&f->stats_asked, ASKED_FIRST - ASKED_AGAIN, __ATOMIC_RELAXED);
	if (r == -EOPNOTSUPP)
		return ask(f, m, false);
	if (r < 0)
		return r;
	fd = got[0];
	set_life(f, fd, of);
	return 0;
}

PGC_PUBLIC int pgc_fstat(struct pgc_file *f, struct stat *ret)
{
	NO_CANCEL;
	const struct pgc_stat_reply *s;
	struct stat_look look;
	struct pgc_msg m;
	struct stat st;
	int r;

	if (!f)
		return -EBADF;
	if (!ret)
		return -EFAULT;
	if (stat_look(f, &look) && fstat(f->buffered, &st) == 0 && stat_shown(f, &look, &st)) {
		*ret = st;
		return 0;
	}
	r = ask(f, &m, wants_life(f));
	if (r < 0)
		return r;
	s = &m.stat_reply;
	*ret = (struct stat){
		.st_dev = s->dev,
		.st_ino = s->ino,
		.st_mode = s->mode,
		.st_nlink = s->nlink,
		.st_uid = s->uid,
		.st_gid = s->gid,
		.st_rdev = s->rdev,
		.st_size = (off_t)s->size,
		.st_blksize = s->blksize,
		.st_blocks = (blkcnt_t)s->blocks,
		.st_atim = { s->atime_s, s->atime_ns },
		.st_mtim = { s->mtime_s, s->mtime_ns },
		.st_ctim = { s->ctime_s, s->ctime_ns },
	};
	return 0;
}
