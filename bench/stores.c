/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the contestants work on: a folder on the file system under test, in which each has files of its own; the same folder through FUSE, as the FUSE contestants
 * see it, and as a slow store; and the daemon. All of that is made here, below one folder, and gone at the end, also when the program fails.
 *
 * Files of their own, since a contestant that changes a file behind the others' backs would have them read it again.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pagecached/wire.h"
#include "run.h"

#define START_TRIES 2000       /* 10 ms each */
#define SLOW_RANGE  (16ull << 20)
#define DROP_TRIES  1000       /* 10 ms each */

static struct stores *stores;
static char work[300];
static unsigned slow_ms;
static char setting_now[200];
static pid_t daemon_pid;
static struct { char path[400]; pid_t pid; } cached, direct, slow;

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL);
}

/* ---- FUSE ---- */

static bool mounted(const char *path)
{
	struct stat below, st;

	return !stat(work, &below) && !stat(path, &st) && st.st_dev != below.st_dev;
}

/* 0: it cannot be mounted here. */
static pid_t fuse_mount(const char *path, bool cache, unsigned delay_ms)
{
	char folder[400], delay[16];
	pid_t pid;

	snprintf(folder, sizeof(folder), "%s/files", work);
	snprintf(delay, sizeof(delay), "%u", delay_ms);
	if (mkdir(path, 0700) && errno != EEXIST)
		die("%s: %s", path, strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (pid == 0) {
		execl(stores->fuse, stores->fuse, folder, path, "--delay-ms", delay, cache ? "--cache" : NULL, NULL);
		fprintf(stderr, "pgc-bench: %s: %s\n", stores->fuse, strerror(errno));
		_exit(127);
	}
	for (int i = 0; i < START_TRIES && !waitpid(pid, NULL, WNOHANG); i++) {
		if (mounted(path))
			return pid;
		pause_ms(10);
	}
	return 0;
}

static void fuse_unmount(const char *path, pid_t *pid)
{
	if (!*pid)
		return;
	kill(*pid, SIGTERM); /* it unmounts */
	for (int i = 0; i < 500 && !waitpid(*pid, NULL, WNOHANG); i++) {
		pause_ms(10);
		if (i == 499) {
			kill(*pid, SIGKILL);
			waitpid(*pid, NULL, 0);
		}
	}
	*pid = 0;
	if (mounted(path) && umount2(path, MNT_DETACH))
		fprintf(stderr, "pgc-bench: %s is still mounted: %s\n", path, strerror(errno));
}

/* ---- the daemon ---- */

static void socket_path(char ret[400])
{
	snprintf(ret, 400, "%s/socket", work);
}

static void daemon_exec(void)
{
	char config[400], state[400], log[400], name[400];
	int fd;

	snprintf(config, sizeof(config), "%s/pagecached.conf", work);
	snprintf(state, sizeof(state), "%s/state", work);
	snprintf(log, sizeof(log), "%s/log", work);
	socket_path(name);
	fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
		_exit(126);
	execl(stores->daemon, stores->daemon, "--config", config, "--socket", name, "--state-dir", state, "--bpffs", "none", NULL);
	_exit(127);
}

/*
 * Nothing is written before fsync asks for it, and the files fit: so it is for the kernel's cache, too. And nothing is read in because it was in use some time ago:
 * a cold run is to be cold.
 */
static void daemon_configure(const char *setting)
{
	char path[400];
	FILE *f;

	snprintf(path, sizeof(path), "%s/pagecached.conf", work);
	f = fopen(path, "we");
	if (!f)
		die("%s: %s", path, strerror(errno));
	fprintf(f, "[daemon]\nmemory_max = 60%%\ndirty_expire = 10min\ndirty_background = 50%%\ndirty_max = 60%%\nwarm_start = no\n");
	for (unsigned i = 0; i < stores->n_settings; i++)
		fprintf(f, "%s\n", stores->settings[i]);
	if (setting)
		fprintf(f, "%s\n", setting);
	if (fclose(f))
		die("%s: %s", path, strerror(errno));
}

static void daemon_fails(const char *what)
{
	char line[1000], path[400];
	FILE *f;

	snprintf(path, sizeof(path), "%s/log", work);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		fputs(line, stderr);
	die("%s %s", stores->daemon, what);
}

static void daemon_start(const char *setting)
{
	char name[400];
	int fd;

	daemon_configure(setting);
	fflush(NULL);
	daemon_pid = fork();
	if (daemon_pid < 0)
		die("fork: %s", strerror(errno));
	if (daemon_pid == 0)
		daemon_exec();
	socket_path(name);
	for (int i = 0; (fd = bench_control(name)) < 0; i++) {
		if (waitpid(daemon_pid, NULL, WNOHANG) || i > START_TRIES) {
			daemon_pid = 0;
			daemon_fails("does not start");
		}
		pause_ms(10);
	}
	close(fd);
	snprintf(setting_now, sizeof(setting_now), "%s", setting ? setting : "");
}

/* By SIGTERM in any case: only so does it take away what it keeps for its next start. In an emergency not for ever. */
static void daemon_stop(bool emergency)
{
	int status = 0;
	pid_t pid = daemon_pid;

	if (pid <= 0)
		return;
	daemon_pid = 0;
	kill(pid, SIGTERM);
	for (int i = 0; waitpid(pid, &status, WNOHANG) == 0; i++) {
		if (emergency && i == START_TRIES)
			kill(pid, SIGKILL);
		pause_ms(10);
	}
	if (!emergency && status)
		daemon_fails("ended badly");
}

static void daemon_asked(int fd, struct pgc_msg *m)
{
	m->tag = 2;
	if (send(fd, m, sizeof(*m), MSG_NOSIGNAL) != sizeof(*m) || recv(fd, m, sizeof(*m), 0) != sizeof(*m) || m->status)
		daemon_fails("does not drop its pages");
}

/* What a run that has just ended had mapped to store to is dirty, and only what is clean is dropped. So it is written before, until all of it is gone. */
static void daemon_drop(void)
{
	uint64_t resident = 0;
	char name[400];
	int fd;

	socket_path(name);
	fd = bench_control(name);
	for (unsigned i = 0; i < DROP_TRIES; i++) {
		struct pgc_msg sync = { .type = PGC_CTL_SYNC, .ctl_file.wait = 1 }, drop = { .type = PGC_CTL_DROP }, status = { .type = PGC_CTL_STATUS };

		daemon_asked(fd, &sync);
		daemon_asked(fd, &drop);
		daemon_asked(fd, &status);
		resident = status.ctl_status_reply.resident;
		if (resident <= stores->size / PAGE / 1000) {
			close(fd);
			return;
		}
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	fprintf(stderr, "pgc-bench: %" PRIu64 " pages are still in the daemon's cache\n", resident);
	daemon_fails("does not drop its pages");
}

/* ---- all together ---- */

static void lacks(unsigned which, const char *what)
{
	for (int who = 0; who < CONTESTANTS; who++)
		if (stores->contestants & which & BIT(who))
			fprintf(stderr, "pgc-bench: left out: %s (%s)\n", contestants[who].title, what);
	stores->contestants &= ~which;
}

static void preload_link(void)
{
	char path[400], *library = stores->preload ? realpath(stores->preload, NULL) : NULL;

	snprintf(path, sizeof(path), "%s/preload.so", work);
	if (!library || symlink(library, path))
		lacks(BIT(PRELOAD), "no library");
	else if (strpbrk(path, " :*?[\\"))
		lacks(BIT(PRELOAD), "the loader and patterns cannot take the folder's name");
	free(library);
}

void stores_begin(struct stores *s)
{
	char path[400];

	stores = s;
	snprintf(work, sizeof(work), "%s/pgc-bench-XXXXXX", s->dir);
	if (!mkdtemp(work)) {
		work[0] = '\0';
		die("%s: %s", s->dir, strerror(errno));
	}
	for (const char *const *name = (const char *const[]){ "files", "state", NULL }; *name; name++) {
		snprintf(path, sizeof(path), "%s/%s", work, *name);
		if (mkdir(path, 0700))
			die("%s: %s", path, strerror(errno));
	}
	if (!s->daemon)
		lacks(DAEMON_CONTESTANTS, "no daemon");
	if (s->contestants & BIT(PRELOAD))
		preload_link();
	snprintf(cached.path, sizeof(cached.path), "%s/cached", work);
	snprintf(direct.path, sizeof(direct.path), "%s/direct", work);
	if (s->contestants & FUSE_CONTESTANTS || s->need_fuse) {
		if (s->fuse && !access(s->fuse, X_OK) && !access("/dev/fuse", F_OK)) {
			cached.pid = fuse_mount(cached.path, true, 0);
			direct.pid = cached.pid ? fuse_mount(direct.path, false, 0) : 0;
		}
		if (!direct.pid) {
			lacks(FUSE_CONTESTANTS, "FUSE cannot be mounted here");
			s->need_fuse = false;
		}
	}
	for (int who = 0; who < CONTESTANTS; who++) {
		snprintf(path, sizeof(path), "%s/files/%s", work, contestants[who].name);
		if (s->contestants & BIT(who))
			bench_fill_file(path, s->size);
	}
	if (s->contestants & DAEMON_CONTESTANTS)
		daemon_start(NULL);
}

#define OVERCOMMIT "/proc/sys/vm/nr_overcommit_hugepages"
static long huge_before = -1;

static bool set_huge(long n)
{
	FILE *f = fopen(OVERCOMMIT, "we");
	bool ok = f && fprintf(f, "%ld\n", n) > 0;

	return f && fclose(f) == 0 && ok;
}

bool stores_allow_huge(void)
{
	FILE *f = fopen(OVERCOMMIT, "re");
	long now;
	bool ok = f && fscanf(f, "%ld", &now) == 1;

	if (f)
		fclose(f);
	if (!ok)
		return false;
	if (huge_before < 0)
		huge_before = now;
	return set_huge((long)(stores->size >> 20)); /* twice as many as the file has */
}

void stores_end(bool emergency)
{
	char command[400];

	if (!work[0])
		return;
	daemon_stop(emergency);
	if (huge_before >= 0)
		(void)set_huge(huge_before);
	fuse_unmount(slow.path, &slow.pid);
	fuse_unmount(direct.path, &direct.pid);
	fuse_unmount(cached.path, &cached.pid);
	snprintf(command, sizeof(command), "rm -rf --one-file-system '%s'", work);
	if (system(command))
		fprintf(stderr, "pgc-bench: %s is left\n", work);
	work[0] = '\0';
}

void stores_use(unsigned delay_ms, const char *setting)
{
	bool other = delay_ms != slow_ms || strcmp(setting_now, setting ? setting : "");

	if (!other)
		return;
	/* The daemon has files of the slow store open. */
	daemon_stop(false);
	if (delay_ms != slow_ms) {
		fuse_unmount(slow.path, &slow.pid);
		slow_ms = delay_ms;
		snprintf(slow.path, sizeof(slow.path), "%s/slow-%u", work, delay_ms);
		if (delay_ms)
			slow.pid = fuse_mount(slow.path, true, delay_ms);
		if (delay_ms && !slow.pid)
			die("the slow store cannot be mounted");
	}
	if (stores->contestants & DAEMON_CONTESTANTS)
		daemon_start(setting);
}

void stores_prepare(struct run *r, const struct workload *w)
{
	const char *name = contestants[r->who].name;
	char path[400], plain[400];
	const char *folder = r->who == FUSE ? cached.path : r->who == FUSE_NOCACHE ? direct.path : slow_ms ? slow.path : plain;

	r->slow = slow_ms > 0;
	r->size = stores->size;
	r->many_size = MIN_OF(r->size / MANY_FILES, 128ull << 20);
	r->range = r->slow ? MIN_OF(r->size, SLOW_RANGE) : r->size;
	r->server = BIT(r->who) & DAEMON_CONTESTANTS ? daemon_pid : r->who == FUSE ? cached.pid : r->who == FUSE_NOCACHE ? direct.pid : 0;
	snprintf(r->lower, sizeof(r->lower), "%s/files/%s", work, name);
	snprintf(plain, sizeof(plain), "%s/files", work);
	snprintf(r->path, sizeof(r->path), "%s/%s", folder, name);
	snprintf(r->many, sizeof(r->many), "%s/many-", folder);
	for (unsigned i = 0; w->many && i < MANY_FILES; i++) {
		snprintf(path, sizeof(path), "%s/files/many-%u", work, i);
		if (access(path, F_OK))
			bench_fill_file(path, r->many_size);
	}
	if (w->run == run_lmdb_read)
		database_make(r->lower, false);
	if (w->run == run_sqlite_read || w->run == run_sqlite_write)
		database_make(r->lower, true);
}

static void drop_one(const char *path)
{
	struct stat st;

	if (!stat(path, &st))
		bench_kernel_drop_file(path, (uint64_t)st.st_size & ~(PAGE - 1));
}

/* From the top down; what is there with direct I/O, or of the daemon's, is in no cache of the kernel's but the lower one. */
static void drop_both(const struct run *r, const char *path, const char *lower)
{
	if (r->who == FUSE || (r->who == KERNEL && r->slow))
		drop_one(path);
	drop_one(lower);
}

void stores_drop(const struct run *r, const struct workload *w)
{
	char path[600], lower[600];

	if (BIT(r->who) & DAEMON_CONTESTANTS)
		daemon_drop();
	for (const char *const *suffix = (const char *const[]){ "", ".lmdb", ".sqlite", NULL }; *suffix; suffix++) {
		snprintf(path, sizeof(path), "%s%s", r->path, *suffix);
		snprintf(lower, sizeof(lower), "%s%s", r->lower, *suffix);
		drop_both(r, path, lower);
	}
	for (unsigned i = 0; w->many && i < MANY_FILES; i++) {
		snprintf(path, sizeof(path), "%s%u", r->many, i);
		snprintf(lower, sizeof(lower), "%s/files/many-%u", work, i);
		drop_both(r, path, lower);
	}
}

void stores_exec_as(const struct run *r)
{
	char text[900];

	socket_path(text);
	if (BIT(r->who) & DAEMON_CONTESTANTS && setenv("PAGECACHED_SOCKET", text, 1))
		_exit(126);
	unsetenv("LD_PRELOAD");
	unsetenv("PAGECACHED_PATHS");
	if (r->who != PRELOAD)
		return;
	snprintf(text, sizeof(text), "%s/preload.so", work);
	if (setenv("LD_PRELOAD", text, 1))
		_exit(126);
	snprintf(text, sizeof(text), "%s/files/**:%s/slow-*/**", work, work);
	if (setenv("PAGECACHED_PATHS", text, 1))
		_exit(126);
}

const char *stores_any_file(void)
{
	static char path[400];

	for (int who = 0; who < CONTESTANTS; who++)
		if (stores->contestants & BIT(who)) {
			snprintf(path, sizeof(path), "%s/files/%s", work, contestants[who].name);
			return path;
		}
	return NULL;
}
