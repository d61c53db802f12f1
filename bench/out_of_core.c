/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pgc-bench --out-of-core: files larger than the memory, pagecached beside the kernel's own page cache with the same memory.
 *
 * The kernel's contestants run in a memory cgroup with that limit, to which the page cache of the file is charged
 * (nothing of it is in core before); so does the FUSE file system, with its process in the same cgroup. pagecached's is a daemon of the bench's own with
 * memory_max of that size; its client is limited by nothing. The preload library is in front of the same client with plain calls. Each run starts with empty caches and has a process of its own, whose threads do the accesses and only
 * count them; this process, outside of the cgroup, looks at the counters. First comes a warm-up that is the same for all and not counted.
 *
 * Every access is checked: the first word of each page is known. Stores go to another place of the page.
 *
 * The sequence of pages depends on workload, run and thread alone, so that all contestants meet the same one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "pagecached.h"
#include "pagecached/wire.h"

#define ZIPF_EXPONENT  0.99
#define THREADS_MAX    16
#define STORE_OFFSET   2048u
#define SETTINGS_MAX   32
#define LOOK_NS        2000000      /* how often the counters are looked at */
#define MEMORY_EVERY   50           /* looks from one measurement of the memory to the next */
#define MEMFDS_MAX     4096

enum contestant { KERNEL, KERNEL_RANDOM, KERNEL_SEQUENTIAL, FUSE, PAGECACHED, PRELOAD, CONTESTANTS };
#define HAS_DAEMON(who) ((who) == PAGECACHED || (who) == PRELOAD)
#define ADVICE_THAT_FITS (-2)
static const struct {
	const char *name, *title;
	int advice;                /* MADV_*, -1: none */
} contestants[CONTESTANTS] = {
	[KERNEL] = { "kernel", "kernel mmap, no advice", -1 },
	[KERNEL_RANDOM] = { "kernel-random", "kernel mmap, MADV_RANDOM", MADV_RANDOM },
	[KERNEL_SEQUENTIAL] = { "kernel-sequential", "kernel mmap, MADV_SEQUENTIAL", MADV_SEQUENTIAL },
	[FUSE] = { "fuse", "FUSE mmap, MADV_RANDOM or MADV_SEQUENTIAL", ADVICE_THAT_FITS },
	[PAGECACHED] = { "pagecached", "pagecached, no advice", -1 },
	[PRELOAD] = { "preload", "preload library, no advice", -1 },
};
#define RANDOM_CONTESTANTS (1u << KERNEL | 1u << KERNEL_RANDOM | 1u << FUSE | 1u << PAGECACHED | 1u << PRELOAD)
#define SCAN_CONTESTANTS   (1u << KERNEL | 1u << KERNEL_SEQUENTIAL | 1u << FUSE | 1u << PAGECACHED | 1u << PRELOAD)

static const struct workload {
	const char *name, *title;
	unsigned threads, stores;  /* stores: percent of the accesses */
	bool scan;
	unsigned contestants;      /* those that it makes sense for */
} workloads[] = {
	{ "zipf1", "random reads, Zipf .99, 1 thread", 1, 0, false, RANDOM_CONTESTANTS },
	{ "zipf4", "random reads, Zipf .99, 4 threads", 4, 0, false, RANDOM_CONTESTANTS },
	{ "rw1", "random, Zipf .99, 30 % stores, 1 thread", 1, 30, false, RANDOM_CONTESTANTS },
	{ "rw4", "random, Zipf .99, 30 % stores, 4 threads", 4, 30, false, RANDOM_CONTESTANTS },
	{ "scan", "repeated scans of 1.5 times the memory", 1, 0, true, SCAN_CONTESTANTS },
};

static struct {
	const char *dir, *json, *daemon, *file, *cgroup, *preload;
	char fuse[512];
	const char *settings[SETTINGS_MAX];
	unsigned n_settings;
	uint64_t memory, file_size;
	unsigned warm_seconds, seconds, accesses, passes, runs;
	unsigned contestants;      /* bit mask */
	bool verbose;
} options = { .dir = "/var/tmp", .memory = 512ull << 20, .warm_seconds = 15, .seconds = 10, .passes = 3, .runs = 3,
	.contestants = (1u << CONTESTANTS) - 1 };

/* What the threads of a run count and this process reads; relaxed: each is a number of its own. */
static struct {
	struct { _Alignas(64) _Atomic uint64_t n; } accesses[THREADS_MAX];
	_Atomic int stop;          /* 1: end (release), 2: a page had the wrong bytes */
} *shared;

static char work_dir[300], socket_path[400], cgroup_dir[400];
static bool cgroup_v2;
static pid_t bench_pid, daemon_pid, run_pid, fuse_pid;
static int shared_fd = -1;
static char run_path[900];         /* the file, as the contestant sees it */
static int control = -1;
static volatile sig_atomic_t interrupted;
static uint32_t *page_of_rank;
static char device_stat[64];       /* /sys/dev/block/MAJOR:MINOR/stat, "": there is none */

struct sample {                    /* at one moment */
	double time;
	uint64_t accesses;
	uint64_t device_read, device_written; /* bytes, of all processes */
	uint64_t own_read;         /* bytes, of the process that reads for this contestant */
	uint64_t waits;            /* kernel: major faults; pagecached: reads from the store */
	uint64_t fill_bytes;       /* pagecached */
	uint64_t handles;          /* likewise: open ones */
};

enum figure { SPEED, HIT, READ_KIB, DEVICE_MIB, WRITTEN_MIB, OWN_MIB, WAITS, FILL_MIB, MEMORY_MIB, ANON_MIB, ACCESSES, SECONDS, FIGURES };
static const char *const figure_names[FIGURES] = {
	[SPEED] = "accesses_per_second", [HIT] = "hit_ratio", [READ_KIB] = "read_kib_per_access", [DEVICE_MIB] = "device_read_mib",
	[WRITTEN_MIB] = "device_written_mib", [OWN_MIB] = "own_read_mib", [WAITS] = "waits", [FILL_MIB] = "fill_mib",
	[MEMORY_MIB] = "memory_peak_mib", [ANON_MIB] = "daemon_anonymous_peak_mib", [ACCESSES] = "accesses", [SECONDS] = "seconds",
};

/* ---- small files of the kernel's ---- */

/* The text of a file in proc or sys, always ended; "" when it cannot be read. */
static const char *text_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *text_of(const char *format, ...)
{
	static char text[4096];
	char path[512];
	va_list ap;
	ssize_t n;
	int fd;

	va_start(ap, format);
	vsnprintf(path, sizeof(path), format, ap);
	va_end(ap);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static bool text_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

static uint64_t number_after(const char *text, const char *key)
{
	const char *p = strstr(text, key);

	return p ? strtoull(p + strlen(key), NULL, 10) : 0;
}

/* Field number `n`, from 1, of numbers between blanks. */
static uint64_t field_of(const char *text, unsigned n)
{
	for (;;) {
		text += strspn(text, " \n");
		if (!--n || !*text)
			return strtoull(text, NULL, 10);
		text += strcspn(text, " \n");
	}
}

/* ---- the cgroup ---- */

static void cgroup_make(void)
{
	const char *v1 = "/sys/fs/cgroup/memory", *v2 = "/sys/fs/cgroup", *parent = options.cgroup;
	char path[500], limit[32];

	if (!parent)
		parent = access("/sys/fs/cgroup/memory/memory.limit_in_bytes", F_OK) == 0 ? v1 : v2;
	snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", parent);
	cgroup_v2 = access(path, F_OK) != 0;
	snprintf(path, sizeof(path), "%s/cgroup.subtree_control", parent);
	if (cgroup_v2 && !strstr(text_of("%s", path), "memory") && !text_to(path, "+memory"))
		die("%s: there is no memory controller here (--cgroup): %s", parent, strerror(errno));
	snprintf(cgroup_dir, sizeof(cgroup_dir), "%s/pgc-bench-%d", parent, (int)bench_pid);
	if (mkdir(cgroup_dir, 0755)) {
		int e = errno;

		cgroup_dir[0] = '\0';
		die("cannot make a memory cgroup in %s: %s", parent, strerror(e));
	}
	snprintf(path, sizeof(path), "%s/%s", cgroup_dir, cgroup_v2 ? "memory.max" : "memory.limit_in_bytes");
	snprintf(limit, sizeof(limit), "%" PRIu64, options.memory);
	if (!text_to(path, limit))
		die("%s: %s", path, strerror(errno));
}

static void cgroup_join(void)
{
	char path[500];

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup_dir);
	if (!text_to(path, "0"))
		die("%s: %s", path, strerror(errno));
}

static void cgroup_remove(void)
{
	for (int i = 0; cgroup_dir[0] && rmdir(cgroup_dir) && errno == EBUSY && i < 200; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	cgroup_dir[0] = '\0';
}

/* ---- the daemon ---- */

static bool daemon_status(struct pgc_ctl_status_reply *ret)
{
	struct pgc_msg m = { .type = PGC_CTL_STATUS, .tag = 2 };

	if (send(control, &m, sizeof(m), MSG_NOSIGNAL) != sizeof(m) || recv(control, &m, sizeof(m), 0) != sizeof(m) || m.status)
		return false;
	*ret = m.ctl_status_reply;
	return true;
}

static void daemon_exec(const char *config, const char *state, const char *log)
{
	int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
		_exit(126);
	execl(options.daemon, options.daemon, "--config", config, "--socket", socket_path, "--state-dir", state, "--bpffs", "none", NULL);
	_exit(127);
}

static void work_make(void)
{
	snprintf(work_dir, sizeof(work_dir), "%s/pgc-bench-daemon-XXXXXX", options.dir);
	if (!mkdtemp(work_dir)) {
		work_dir[0] = '\0';
		die("%s: %s", options.dir, strerror(errno));
	}
}

static void daemon_start(void)
{
	char config[400], state[400], log[400];
	FILE *f;

	work_make();
	snprintf(config, sizeof(config), "%s/pagecached.conf", work_dir);
	snprintf(state, sizeof(state), "%s/state", work_dir);
	snprintf(log, sizeof(log), "%s/log", work_dir);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", work_dir);
	f = fopen(config, "we");
	if (!f || mkdir(state, 0700))
		die("%s: %s", work_dir, strerror(errno));
	fprintf(f, "[daemon]\nmemory_max = %" PRIu64 "\n", options.memory);
	for (unsigned i = 0; i < options.n_settings; i++)
		fprintf(f, "%s\n", options.settings[i]);
	fclose(f);
	fflush(NULL);
	daemon_pid = fork();
	if (daemon_pid == 0)
		daemon_exec(config, state, log);
	for (int i = 0; (control = bench_control(socket_path)) < 0; i++) {
		if (waitpid(daemon_pid, NULL, WNOHANG) || i > 2000) {
			fputs(text_of("%s", log), stderr);
			daemon_pid = 0;
			die("%s does not start", options.daemon);
		}
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	setenv("PAGECACHED_SOCKET", socket_path, 1);
}

/* Its folder with all that it wrote, so that the next one starts cold. */
static void work_remove(void)
{
	char command[400];

	snprintf(command, sizeof(command), "rm -rf --one-file-system '%s'", work_dir);
	if (work_dir[0] && system(command))
		fprintf(stderr, "pgc-bench: %s is left\n", work_dir);
	work_dir[0] = '\0';
}

/* Also in an emergency. */
static void daemon_stop(bool gently)
{
	int status = 0;

	if (daemon_pid <= 0)
		return;
	if (control >= 0)
		close(control);
	control = -1;
	kill(daemon_pid, gently ? SIGTERM : SIGKILL);
	waitpid(daemon_pid, &status, 0);
	daemon_pid = 0;
	if (gently && status) {
		fputs(text_of("%s/log", work_dir), stderr);
		die("the daemon ended with status %#x", (unsigned)status);
	}
	work_remove();
}

/* What its policy did, for who tunes it; on stderr. A connection of its own: a daemon that does not know the question ends it. */
static void daemon_print_policy(void)
{
	struct pgc_msg m = { .type = PGC_CTL_MEMORY, .tag = 3 };
	const struct pgc_ctl_memory_reply *r = &m.ctl_memory_reply;
	int fd = bench_control(socket_path);

	if (fd >= 0 && send(fd, &m, sizeof(m), MSG_NOSIGNAL) == sizeof(m) && recv(fd, &m, sizeof(m), 0) == sizeof(m) && !m.status)
		fprintf(stderr, "  since its start, policy %.16s: resident %" PRIu64 " second_chance %" PRIu64 " tables %" PRIu64
			" KiB refaults %" PRIu64 " soft_faults %" PRIu64 " reclaimed %" PRIu64 " direct_reclaims %" PRIu64
			" readahead %" PRIu64 " hits %" PRIu64 " wasted %" PRIu64 " throttled %" PRIu64 " (%" PRIu64
			" ms) longest fault %" PRIu64 " us\n", r->policy, r->resident, r->second_chance, r->tables >> 10, r->refaults,
			r->soft_faults, r->reclaimed, r->direct_reclaims, r->readahead_pages, r->readahead_hits,
			r->readahead_wasted, r->throttled, r->throttled_ms, r->fault_wait_max_us);
	if (fd >= 0)
		close(fd);
}

/* Bytes of the daemon's memfds, and in *ret_anonymous what it has besides. */
static uint64_t daemon_memory(uint64_t *ret_anonymous)
{
	static ino_t seen[MEMFDS_MAX];
	char path[400], link[128];
	uint64_t bytes = 0;
	size_t n = 0, i;
	struct dirent *e;
	struct stat st;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)daemon_pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		ssize_t len = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);

		link[len > 0 ? len : 0] = '\0';
		/* The client's transfer area is not the cache's. */
		if (strncmp(link, "/memfd:pagecached", 17) || strstr(link, "-transfer") || fstatat(dirfd(d), e->d_name, &st, 0))
			continue;
		for (i = 0; i < n && seen[i] != st.st_ino; i++)
			;
		if (i < n || n == MEMFDS_MAX)
			continue;
		seen[n++] = st.st_ino;
		bytes += (uint64_t)st.st_blocks * 512;
	}
	if (d)
		closedir(d);
	*ret_anonymous = number_after(text_of("/proc/%d/status", (int)daemon_pid), "RssAnon:") << 10;
	return bytes;
}

/* ---- the FUSE file system, within the limit like what it serves ---- */

static bool fuse_mounted(const char *path)
{
	struct stat below, st;

	return !stat(work_dir, &below) && !stat(path, &st) && st.st_dev != below.st_dev;
}

static void fuse_start(void)
{
	char folder[512], mount[400], *slash;

	work_make();
	snprintf(mount, sizeof(mount), "%s/mount", work_dir);
	snprintf(folder, sizeof(folder), "%s", bench_path);
	slash = strrchr(folder, '/');
	if (!slash || mkdir(mount, 0700))
		die("%s: %s", mount, strerror(errno));
	snprintf(run_path, sizeof(run_path), "%s%s", mount, slash);
	*slash = '\0';
	fflush(NULL);
	fuse_pid = fork();
	if (fuse_pid == 0) {
		cgroup_join();
		execl(options.fuse, options.fuse, folder[0] ? folder : "/", mount, "--cache", NULL);
		_exit(127);
	}
	for (int i = 0; !fuse_mounted(mount); i++) {
		if (waitpid(fuse_pid, NULL, WNOHANG) || i > 1000) {
			fuse_pid = 0;
			die("%s: cannot be mounted", options.fuse);
		}
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
}

/* Also in an emergency. */
static void fuse_stop(void)
{
	char mount[400];

	if (fuse_pid <= 0)
		return;
	kill(fuse_pid, SIGTERM); /* it unmounts */
	waitpid(fuse_pid, NULL, 0);
	fuse_pid = 0;
	snprintf(mount, sizeof(mount), "%s/mount", work_dir);
	if (fuse_mounted(mount))
		umount2(mount, MNT_DETACH);
	work_remove();
}

static void clean_up(void)
{
	if (getpid() != bench_pid)
		return;
	bench_cleanup = NULL;
	if (run_pid > 0) {
		kill(run_pid, SIGKILL);
		waitpid(run_pid, NULL, 0);
	}
	fuse_stop();
	daemon_stop(false);
	cgroup_remove();
	work_remove();
}

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* ---- one run's process ---- */

/*
 * Zipf's law over ranks 1 to n by rejection-inversion (Hörmann and Derflinger, 1996): draws from the integral of the curve
 * and throws away what lies outside of the bars.
 */
struct zipf {
	double n, first, last, shift;
	uint64_t state;
};

static double zipf_integral(double x)
{
	return pow(x, 1 - ZIPF_EXPONENT) / (1 - ZIPF_EXPONENT);
}

static double zipf_inverse(double y)
{
	return pow(y * (1 - ZIPF_EXPONENT), 1 / (1 - ZIPF_EXPONENT));
}

static uint64_t random_next(uint64_t *state)
{
	return bench_mix(*state += 0x9e3779b97f4a7c15ull);
}

static void zipf_init(struct zipf *z, uint32_t n, uint64_t seed)
{
	z->n = n;
	z->first = zipf_integral(1.5) - 1;
	z->last = zipf_integral(n + 0.5);
	z->shift = 2 - zipf_inverse(zipf_integral(2.5) - pow(2, -ZIPF_EXPONENT));
	z->state = bench_mix(seed);
}

/* A rank from 0 on. */
static uint32_t zipf_next(struct zipf *z)
{
	for (;;) {
		double y = z->last + (double)(random_next(&z->state) >> 11) / 0x1p53 * (z->first - z->last);
		double x = zipf_inverse(y), k = floor(x + 0.5);

		k = k < 1 ? 1 : k > z->n ? z->n : k;
		if (k - x <= z->shift || y >= zipf_integral(k + 0.5) - pow(k, -ZIPF_EXPONENT))
			return (uint32_t)k - 1;
	}
}

struct thread {
	const struct workload *w;
	uint8_t *map;
	unsigned number, run;
};

static void access_page(struct thread *t, uint64_t page, bool store)
{
	_Atomic uint64_t *n = &shared->accesses[t->number].n;
	volatile uint8_t *p = t->map + page * PAGE;

	if (*(volatile uint64_t *)p != bench_word(page * PAGE))
		atomic_store_explicit(&shared->stop, 2, memory_order_release);
	if (store)
		p[STORE_OFFSET]++;
	/* This thread alone writes it: no need of a locked addition. */
	atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

static uint64_t scan_pages(void)
{
	uint64_t pages = options.memory * 3 / 2 / PAGE, all = options.file_size / PAGE;

	return pages < all ? pages : all;
}

static void *thread_main(void *arg)
{
	struct thread *t = arg;
	uint32_t pages = (uint32_t)(options.file_size / PAGE);
	struct zipf z;

	zipf_init(&z, pages, (uint64_t)t->run << 32 | t->number << 8 | t->w->stores);
	for (uint64_t i = 0; !atomic_load_explicit(&shared->stop, memory_order_acquire); i++) {
		uint64_t page = t->w->scan ? i % scan_pages() : page_of_rank[zipf_next(&z)];

		access_page(t, page, t->w->stores && random_next(&z.state) % 100 < t->w->stores);
	}
	return NULL;
}

static void run_body(const struct workload *w, enum contestant who, unsigned run)
{
	struct thread threads[THREADS_MAX];
	pthread_t ids[THREADS_MAX];
	struct pgc_file *f = NULL;
	int prot = PROT_READ | (w->stores ? PROT_WRITE : 0), advice = contestants[who].advice, fd, r;
	uint8_t *map;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	if (who == PAGECACHED) {
		r = pgc_open(&f, run_path, O_RDWR, 0);
		if (r)
			die("pgc_open: %s", strerror(-r));
		map = pgc_mmap(f, NULL, options.file_size, prot, MAP_SHARED, 0);
	} else {
		if (who != PRELOAD)
			cgroup_join();
		fd = open(run_path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			die("%s: %s", run_path, strerror(errno));
		map = mmap(NULL, options.file_size, prot, MAP_SHARED, fd, 0);
		if (advice == ADVICE_THAT_FITS)
			advice = w->scan ? MADV_SEQUENTIAL : MADV_RANDOM;
		if (map != MAP_FAILED && advice >= 0 && madvise(map, options.file_size, advice))
			die("madvise: %s", strerror(errno));
	}
	if (map == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	for (unsigned i = 0; i < w->threads; i++) {
		threads[i] = (struct thread){ .w = w, .map = map, .number = i, .run = run };
		if (pthread_create(&ids[i], NULL, thread_main, &threads[i]))
			die("pthread_create");
	}
	for (unsigned i = 0; i < w->threads; i++)
		pthread_join(ids[i], NULL);
	if (atomic_load(&shared->stop) == 2)
		die("%s by %s: a page has the wrong bytes", w->name, contestants[who].name);
	_exit(0);
}

/* The preload library is there from a program's start: so this one starts anew, with what run_body needs. */
static void run_preloaded(const struct workload *w, unsigned run)
{
	char link[400], fd[16], workload[16], number[16], size[32], memory[32], *library = options.preload ? realpath(options.preload, NULL) : NULL;

	snprintf(link, sizeof(link), "%s/preload.so", work_dir); /* the loader takes no name with a space */
	snprintf(fd, sizeof(fd), "%d", shared_fd);
	snprintf(workload, sizeof(workload), "%u", (unsigned)(w - workloads));
	snprintf(number, sizeof(number), "%u", run);
	snprintf(size, sizeof(size), "%" PRIu64, options.file_size);
	snprintf(memory, sizeof(memory), "%" PRIu64, options.memory);
	if (!library || symlink(library, link) || fcntl(shared_fd, F_SETFD, 0) || setenv("LD_PRELOAD", link, 1) || setenv("PAGECACHED_PATHS", run_path, 1))
		die("the preload library: %s", strerror(errno));
	execl("/proc/self/exe", "pgc-bench", "--out-of-core", "--run", fd, workload, number, run_path, size, memory, NULL);
	die("/proc/self/exe: %s", strerror(errno));
}

static int run_main(char **argv)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[0]), 0);
	if (shared == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	snprintf(run_path, sizeof(run_path), "%s", argv[3]);
	options.file_size = strtoull(argv[4], NULL, 10);
	options.memory = strtoull(argv[5], NULL, 10);
	page_of_rank = bench_shuffled((uint32_t)(options.file_size / PAGE), 7);
	run_body(&workloads[atoi(argv[1])], PRELOAD, (unsigned)atoi(argv[2]));
	return 1;
}

/* ---- looking at it ---- */

static uint64_t accesses_now(const struct workload *w)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < w->threads; i++)
		n += atomic_load_explicit(&shared->accesses[i].n, memory_order_relaxed);
	return n;
}

static void sample_take(const struct workload *w, enum contestant who, struct sample *ret)
{
	struct pgc_ctl_status_reply s;
	const char *text;

	*ret = (struct sample){ .time = bench_now(), .accesses = accesses_now(w) };
	if (device_stat[0]) {
		text = text_of("%s", device_stat);
		ret->device_read = field_of(text, 3) * 512;
		ret->device_written = field_of(text, 7) * 512;
	}
	ret->own_read = number_after(text_of("/proc/%d/io", (int)(HAS_DAEMON(who) ? daemon_pid : who == FUSE ? fuse_pid : run_pid)), "read_bytes: ");
	if (!HAS_DAEMON(who)) {
		text = strrchr(text_of("/proc/%d/stat", (int)run_pid), ')');
		ret->waits = text ? field_of(text + 1, 10) : 0;
	} else if (daemon_status(&s)) {
		ret->waits = s.fills;
		ret->fill_bytes = s.fill_bytes;
		ret->handles = s.handles;
	} else
		die("the daemon does not answer");
}

/* Until so many accesses more, or so many seconds, whatever is first. */
static void wait_for(const struct workload *w, enum contestant who, const struct sample *from, uint64_t accesses, double seconds,
	double figures[FIGURES])
{
	uint64_t anonymous, bytes;
	int status;

	for (unsigned look = 0; bench_now() - from->time < seconds; look++) {
		if (accesses && accesses_now(w) - from->accesses >= accesses)
			return;
		if (interrupted)
			die("interrupted");
		if (waitpid(run_pid, &status, WNOHANG)) {
			run_pid = 0;
			die("%s by %s has ended", w->name, contestants[who].name);
		}
		if (HAS_DAEMON(who) && look % MEMORY_EVERY == 0) {
			bytes = daemon_memory(&anonymous);
			if ((double)bytes > figures[MEMORY_MIB] * 0x1p20)
				figures[MEMORY_MIB] = (double)bytes / 0x1p20;
			if ((double)anonymous > figures[ANON_MIB] * 0x1p20)
				figures[ANON_MIB] = (double)anonymous / 0x1p20;
		}
		nanosleep(&(struct timespec){ .tv_nsec = LOOK_NS }, NULL);
	}
}

static void figures_take(enum contestant who, const struct sample *a, const struct sample *b, double f[FIGURES])
{
	double n = (double)(b->accesses - a->accesses), own = (double)(b->own_read - a->own_read);

	if (n <= 0)
		die("%s made no access", contestants[who].name);
	f[ACCESSES] = n;
	f[SECONDS] = b->time - a->time;
	f[SPEED] = n / f[SECONDS];
	f[FILL_MIB] = (double)(b->fill_bytes - a->fill_bytes) / 0x1p20;
	f[OWN_MIB] = own / 0x1p20;
	f[HIT] = 1 - own / (double)PAGE / n;
	f[READ_KIB] = own / 1024 / n;
	f[DEVICE_MIB] = (double)(b->device_read - a->device_read) / 0x1p20;
	f[WRITTEN_MIB] = (double)(b->device_written - a->device_written) / 0x1p20;
	f[WAITS] = (double)(b->waits - a->waits);
	if (!HAS_DAEMON(who))
		f[MEMORY_MIB] = (double)field_of(text_of("%s/%s", cgroup_dir, cgroup_v2 ? "memory.peak" :
			"memory.max_usage_in_bytes"), 1) / 0x1p20;
}

static void figures_print(const struct workload *w, enum contestant who, unsigned run, const double figures[FIGURES])
{
	fprintf(stderr, "%s %s run %u:", w->name, contestants[who].name, run + 1);
	for (int i = 0; i < FIGURES; i++)
		fprintf(stderr, " %s %.6g", figure_names[i], figures[i]);
	fputc('\n', stderr);
	if (HAS_DAEMON(who))
		daemon_print_policy();
}

static void run_one(const struct workload *w, enum contestant who, unsigned run, double figures[FIGURES])
{
	uint64_t warm = w->scan ? scan_pages() : options.accesses, timed = w->scan ? scan_pages() * options.passes : options.accesses;
	struct sample start, from, to;
	int status;

	if (interrupted)
		die("interrupted");
	memset(figures, 0, FIGURES * sizeof(*figures));
	memset(shared, 0, sizeof(*shared));
	bench_kernel_drop(options.file_size);
	snprintf(run_path, sizeof(run_path), "%s", bench_path);
	if (HAS_DAEMON(who))
		daemon_start();
	else
		cgroup_make();
	if (who == FUSE)
		fuse_start();
	fflush(NULL);
	run_pid = fork();
	if (run_pid == 0 && who == PRELOAD)
		run_preloaded(w, run);
	if (run_pid == 0)
		run_body(w, who, run);
	if (run_pid < 0)
		die("fork: %s", strerror(errno));
	sample_take(w, who, &start);
	wait_for(w, who, &start, warm, options.warm_seconds, figures);
	sample_take(w, who, &from);
	wait_for(w, who, &from, timed, options.seconds, figures);
	sample_take(w, who, &to);
	figures_take(who, &from, &to, figures);
	if (who == PRELOAD && !to.handles)
		die("the preload library did not take the file over");
	atomic_store_explicit(&shared->stop, 1, memory_order_release);
	if (waitpid(run_pid, &status, 0) != run_pid || status) {
		run_pid = 0;
		die("%s by %s ended badly", w->name, contestants[who].name);
	}
	run_pid = 0;
	if (options.verbose)
		figures_print(w, who, run, figures);
	if (who == FUSE)
		fuse_stop();
	if (HAS_DAEMON(who))
		daemon_stop(true);
	else
		cgroup_remove();
}

/* ---- tables ---- */

static bool takes_part(const struct workload *w, int who)
{
	return w->contestants & options.contestants & 1u << who;
}

static void json_contestant(FILE *json, int who, const double values[RUNS_MAX][FIGURES], const struct figures all[FIGURES])
{
	fprintf(json, ",\n   \"%s\": {", contestants[who].name);
	for (int i = 0; i < FIGURES; i++) {
		fprintf(json, "%s\"%s\": {\"median\": %.6g, \"values\": [", i ? ", " : "", figure_names[i], all[i].median);
		for (unsigned run = 0; run < options.runs; run++)
			fprintf(json, "%s%.6g", run ? ", " : "", values[run][i]);
		fprintf(json, "]}");
	}
	fprintf(json, "}");
}

/* The kernel's better setting is the faster one. */
static void print_against_kernel(struct figures all[CONTESTANTS][FIGURES], const struct workload *w, int ours, FILE *json)
{
	int best = -1;
	double speed, read;

	for (int who = 0; who < FUSE; who++)
		if (takes_part(w, who) && (best < 0 || all[who][SPEED].median > all[best][SPEED].median))
			best = who;
	if (best < 0) {
		printf(" |\n");
		return;
	}
	speed = all[ours][SPEED].median / all[best][SPEED].median;
	read = all[best][READ_KIB].median > 0 ? all[ours][READ_KIB].median / all[best][READ_KIB].median : 0;
	printf(" %.2f times the speed, %.2f of the bytes read |\n", speed, read);
	if (json)
		fprintf(json, ",\n   \"kernel_best\": \"%s\", \"speed_ratio\": %.4g, \"read_ratio\": %.4g", contestants[best].name, speed, read);
}

static void run_workload(const struct workload *w, FILE *json, bool first)
{
	static double values[CONTESTANTS][RUNS_MAX][FIGURES];
	struct figures all[CONTESTANTS][FIGURES];
	double column[RUNS_MAX];

	for (unsigned run = 0; run < options.runs; run++)
		for (int who = 0; who < CONTESTANTS; who++)
			if (takes_part(w, who))
				run_one(w, (enum contestant)who, run, values[who][run]);
	if (json)
		fprintf(json, "%s\n  {\"name\": \"%s\"", first ? "" : ",", w->name);
	for (int who = 0; who < CONTESTANTS; who++) {
		if (!takes_part(w, who))
			continue;
		for (int i = 0; i < FIGURES; i++) {
			for (unsigned run = 0; run < options.runs; run++)
				column[run] = values[who][run][i];
			all[who][i] = bench_figures(column, (int)options.runs);
		}
		printf("| %s | %s |", w->title, contestants[who].title);
		bench_print_figures(&all[who][SPEED]);
		printf(" %.3f | %.3f | %.0f | %.0f |", all[who][HIT].median > 0 ? all[who][HIT].median : 0,
			all[who][READ_KIB].median, all[who][DEVICE_MIB].median, all[who][MEMORY_MIB].median + all[who][ANON_MIB].median);
		if (json)
			json_contestant(json, who, values[who], all[who]);
		if (who >= FUSE)
			print_against_kernel(all, w, who, who == PAGECACHED ? json : NULL);
		else
			printf(" |\n");
	}
	fflush(stdout);
	if (json)
		fprintf(json, "}");
}

/* ---- the command ---- */

static void usage(FILE *out)
{
	fprintf(out, "Usage: pgc-bench --out-of-core [OPTION]...\n"
		"Files larger than the memory, beside the kernel's mmap in a memory cgroup; a table on stdout. Wants root.\n\n"
		"  --daemon PATH         the daemon to start (default $PAGECACHED_BIN)\n"
		"  --set KEY=VALUE       a further line of its configuration; may be given again\n"
		"  --preload PATH        the preload library (default $PAGECACHED_PRELOAD)\n"
		"  --fuse PATH           the FUSE file system (default pgc-fuse, beside this program)\n"
		"  --memory SIZE         of the cgroup, and memory_max (default 512M)\n"
		"  --file-size SIZE      default 4 times the memory\n"
		"  --only LIST           these workloads, with commas; may be given again\n"
		"  --contestants LIST    these contestants, with commas\n"
		"  --runs N              1 to %d (default 3)\n"
		"  --warm-seconds N      of warm-up, which is not counted (default 15)\n"
		"  --seconds N           that are counted (default 10)\n"
		"  --accesses N          end warm-up and counting after so many already (thousands; default 0: no)\n"
		"  --passes N            scans that are counted, after one that is not (default 3)\n"
		"  --dir DIR             make the file here (default /var/tmp)\n"
		"  --file PATH           use this file, made when it does not fit, and leave it there\n"
		"  --cgroup DIR          make the cgroup in this one\n"
		"  --json FILE           all values, too\n"
		"  --verbose             every run on stderr\n"
		"Workloads:", RUNS_MAX);
	for (size_t i = 0; i < ELEMS(workloads); i++)
		fprintf(out, " %s", workloads[i].name);
	fprintf(out, "\nContestants:");
	for (size_t i = 0; i < ELEMS(contestants); i++)
		fprintf(out, " %s", contestants[i].name);
	fputc('\n', out);
}

static const char *workload_name(size_t i) { return i < ELEMS(workloads) ? workloads[i].name : NULL; }
static const char *contestant_name(size_t i) { return i < ELEMS(contestants) ? contestants[i].name : NULL; }

/* "a,b" -> bits. */
static unsigned parse_list(const char *option, const char *list, const char *(*name)(size_t i))
{
	unsigned bits = 0;

	while (*list) {
		size_t n = strcspn(list, ","), i = 0;

		while (name(i) && (strlen(name(i)) != n || memcmp(name(i), list, n)))
			i++;
		if (!name(i))
			die("--%s: there is no %.*s", option, (int)n, list);
		bits |= 1u << i;
		list += n + (list[n] == ',');
	}
	return bits;
}

static unsigned parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "daemon", 1, NULL, 'D' }, { "preload", 1, NULL, 'P' }, { "fuse", 1, NULL, 'u' }, { "set", 1, NULL, 'S' }, { "memory", 1, NULL, 'm' }, { "file-size", 1, NULL, 'f' },
		{ "only", 1, NULL, 'o' }, { "contestants", 1, NULL, 'c' }, { "runs", 1, NULL, 'r' }, { "warm-seconds", 1, NULL, 'w' },
		{ "seconds", 1, NULL, 's' }, { "accesses", 1, NULL, 'a' }, { "passes", 1, NULL, 'p' }, { "dir", 1, NULL, 'd' },
		{ "file", 1, NULL, 'F' }, { "cgroup", 1, NULL, 'g' }, { "json", 1, NULL, 'j' }, { "verbose", 0, NULL, 'v' },
		{ "help", 0, NULL, 'h' }, { 0 },
	};
	unsigned chosen = 0;
	int c;

	options.daemon = getenv("PAGECACHED_BIN");
	options.preload = getenv("PAGECACHED_PRELOAD");
	bench_beside("pgc-fuse", options.fuse);
	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
		switch (c) {
		case 'D': options.daemon = optarg; break;
		case 'P': options.preload = optarg; break;
		case 'u': snprintf(options.fuse, sizeof(options.fuse), "%s", optarg); break;
		case 'S':
			if (options.n_settings == SETTINGS_MAX || !strchr(optarg, '='))
				die("--set %s: KEY=VALUE, at most %d times", optarg, SETTINGS_MAX);
			options.settings[options.n_settings++] = optarg;
			break;
		case 'm': options.memory = bench_parse_size("memory", optarg); break;
		case 'f': options.file_size = bench_parse_size("file-size", optarg); break;
		case 'o': chosen |= parse_list("only", optarg, workload_name); break;
		case 'c': options.contestants = parse_list("contestants", optarg, contestant_name); break;
		case 'r': options.runs = bench_parse_number("runs", optarg, 1, RUNS_MAX); break;
		case 'w': options.warm_seconds = bench_parse_number("warm-seconds", optarg, 0, 86400); break;
		case 's': options.seconds = bench_parse_number("seconds", optarg, 1, 86400); break;
		case 'a': options.accesses = bench_parse_number("accesses", optarg, 0, 4000000) * 1000; break;
		case 'p': options.passes = bench_parse_number("passes", optarg, 1, 1000); break;
		case 'd': options.dir = optarg; break;
		case 'F': options.file = optarg; break;
		case 'g': options.cgroup = optarg; break;
		case 'j': options.json = optarg; break;
		case 'v': options.verbose = true; break;
		case 'h': usage(stdout); exit(0);
		default: usage(stderr); exit(2);
		}
	if (optind < argc) {
		usage(stderr);
		exit(2);
	}
	if (!options.daemon && options.contestants & (1u << PAGECACHED | 1u << PRELOAD))
		die("--daemon is wanted");
	if (!options.preload && options.contestants & 1u << PRELOAD)
		die("--preload is wanted");
	if ((access(options.fuse, X_OK) || access("/dev/fuse", F_OK)) && options.contestants & 1u << FUSE) {
		fprintf(stderr, "pgc-bench: left out: FUSE (it cannot be mounted here)\n");
		options.contestants &= ~(1u << FUSE);
	}
	if (!options.file_size)
		options.file_size = options.memory * 4;
	if (options.file_size / PAGE > UINT32_MAX / 4)
		die("--file-size: too large");
	return chosen ? chosen : ~0u;
}

static void setup(void)
{
	struct sigaction a = { .sa_handler = on_signal };
	struct stat st;

	bench_pid = getpid();
	bench_cleanup = clean_up;
	sigaction(SIGINT, &a, NULL);
	sigaction(SIGTERM, &a, NULL);
	sigaction(SIGHUP, &a, NULL);
	signal(SIGPIPE, SIG_IGN);
	shared = bench_shared(sizeof(*shared), &shared_fd);
	bench_make_file(options.dir, options.file, options.file_size);
	if (stat(bench_path, &st))
		die("%s: %s", bench_path, strerror(errno));
	snprintf(device_stat, sizeof(device_stat), "/sys/dev/block/%u:%u/stat", major(st.st_dev), minor(st.st_dev));
	if (access(device_stat, R_OK))
		device_stat[0] = '\0';
	page_of_rank = bench_shuffled((uint32_t)(options.file_size / PAGE), 7);
}

int out_of_core_main(int argc, char **argv)
{
	bool first = true;
	FILE *json = NULL;
	unsigned chosen;

	if (argc == 8 && !strcmp(argv[1], "--run"))
		return run_main(argv + 2);
	chosen = parse(argc, argv);
	setup();
	if (options.json) {
		json = fopen(options.json, "we");
		if (!json)
			die("%s: %s", options.json, strerror(errno));
		fprintf(json, "{\"memory\": %" PRIu64 ", \"file_size\": %" PRIu64 ", \"runs\": %u, \"warm_seconds\": %u, \"seconds\": %u, "
			"\"passes\": %u, \"workloads\": [", options.memory, options.file_size, options.runs, options.warm_seconds, options.seconds,
			options.passes);
	}
	printf("| workload | contestant | accesses/s, median (min - max) | hit ratio | read, KiB/access | device read, MiB | memory, MiB |"
		" against the kernel's faster setting |\n|---|---|---|---|---|---|---|---|\n");
	for (size_t i = 0; i < ELEMS(workloads); i++) {
		if (!(chosen & 1u << i) || !(workloads[i].contestants & options.contestants))
			continue;
		run_workload(&workloads[i], json, first);
		first = false;
	}
	if (json) {
		fprintf(json, "\n]}\n");
		if (fclose(json))
			die("%s: %s", options.json, strerror(errno));
	}
	clean_up();
	bench_remove_file();
	return 0;
}
