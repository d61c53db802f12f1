/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exerciser for bounded memory: processes load, store, read, write, truncate and sync at random in files many times larger than the
 * budget. Every byte that they see is compared with the model of bounded_model.h, every fault and call is timed, and the supervisor (this program)
 * measures the daemon's memory ten times a second, from outside: never more than the budget and 1 % (at least 4 MiB).
 *
 * While that goes on, as wanted: the store of one more file becomes slow and then gets stuck, which must not slow the others down; and
 * the budget is lowered to a tenth and raised again. The run is a sequence of such phases after a warm-up. At the end the daemon writes
 * what it has and goes, and the files themselves are compared.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bounded_daemon.h"
#include "bounded_model.h"
#include "pagecached.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#endif
#ifdef SANITIZED
#define SLOWER  4u                     /* all takes so many times as long */
#define GROWTH  (512ull << 20)         /* what was freed is kept for a while */
#else
#define SLOWER  1u
#define GROWTH  (8ull << 20)
#endif

#define ELEMS(x)       (sizeof(x) / sizeof((x)[0]))
#define SETTINGS_MAX   32
#define SAMPLE_MS      100
#define STALL_SECONDS  90.0
#define SHRINK_SECONDS (10.0 * SLOWER)
#define SCAN_PAGES     512u
#define VICTIM_URI     "mem:slow"
#define VICTIM_FILE    200             /* in place of a file's number, for the bytes */
#define VICTIM_SIZE    ((uint64_t)16 << 20)
#define SLOW_US        100000u
#define STUCK_US       30000000u

static const char *const kind_names[KINDS] = {
	[LOAD] = "load", [STORE] = "store", [SCAN] = "scan", [PREAD] = "pread", [PWRITE] = "pwrite", [TRUNCATE] = "truncate",
	[FSYNC] = "fsync", [MSYNC] = "msync", [REOPEN] = "reopen",
};
static const unsigned weights[KINDS] = {
	[LOAD] = 500, [STORE] = 300, [SCAN] = 10, [PREAD] = 90, [PWRITE] = 80, [TRUNCATE] = 4, [FSYNC] = 3, [MSYNC] = 10, [REOPEN] = 3,
};

static struct {
	uint64_t seed, file_size, memory, ops;
	int procs, files;
	double seconds;
	unsigned max_wait_ms, max_sync_ms;
	bool lower, slow, stuck, keep;
	const char *daemon, *dir, *settings[SETTINGS_MAX];
	unsigned n_settings;
} options = { .file_size = 2ull << 30, .memory = 512ull << 20, .procs = 8, .files = 8, .seconds = 120, .max_wait_ms = 2000 * SLOWER,
	.max_sync_ms = 10000 * SLOWER };

static struct daemon daemon_;
static char work_dir[256];

static void nap_ms(long ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

/* ---- a worker ---- */

static struct open_file {
	struct pgc_file *f;
	uint8_t *map;
} opened[FILES_MAX];
static uint64_t rng_state;
static uint8_t *buf;
static struct { int file; uint64_t page; } here; /* where this process has been last */

static uint64_t rng(void)
{
	uint64_t x = rng_state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static uint64_t rng_below(uint64_t n)
{
	return n ? rng() % n : 0;
}

static bool rng_percent(unsigned percent)
{
	return rng_below(100) < percent;
}

static void on_bus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	fail("signal %d at %p: file %d near page %" PRIu64 " of %" PRIu64, sig, info->si_addr, here.file, here.page,
		(uint64_t)atomic_load(&model->file[here.file].size) / PAGE);
}

/* One fault or call that began at `from`. The supervisor judges. */
static void timed(enum kind kind, uint64_t from)
{
	uint64_t took = now_ns() - from, longest = atomic_load_explicit(&model->count.longest_ns[kind], memory_order_relaxed);

	while (took > longest && !atomic_compare_exchange_weak(&model->count.longest_ns[kind], &longest, took))
		;
}

static void open_file(int file)
{
	struct open_file *o = &opened[file];
	uint64_t from = now_ns();
	int r = pgc_open(&o->f, model->file[file].path, O_RDWR, 0);

	if (r)
		fail("open of %s gave %d", model->file[file].path, r);
	o->map = pgc_mmap(o->f, NULL, model->cap, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	if (o->map == MAP_FAILED)
		fail("mmap of %s: %s", model->file[file].path, strerror(errno));
	timed(REOPEN, from);
}

static void do_reopen(int file)
{
	struct open_file *o = &opened[file];
	uint64_t from = now_ns();
	int r = pgc_munmap(o->map, model->cap);

	if (r || (r = pgc_close(o->f)))
		fail("munmap or close gave %d", r);
	timed(REOPEN, from);
	open_file(file);
}

/* A few pages are hot, some come after those before, and the rest are anywhere. */
static void place_choose(int *ret_file, uint64_t *ret_page)
{
	uint64_t pages = model->cap / PAGE;

	if (rng_percent(30)) {
		here.page = (here.page + 1 + rng_below(3)) % pages;
	} else if (rng_percent(70)) {
		double u = (double)(rng() >> 11) / 0x1p53;
		uint64_t rank = (uint64_t)(u * u * u * u * u * u * (double)pages);

		here.file = (int)rng_below((uint64_t)model->files);
		here.page = rank * 0x9e3779b1u % pages;
	} else {
		here.file = (int)rng_below((uint64_t)model->files);
		here.page = rng_below(pages);
	}
	*ret_file = here.file;
	*ret_page = here.page;
}

/* Locked: how much of [off, off + len) lies inside the file; whole units. */
static uint64_t inside(int file, uint64_t off, uint64_t len)
{
	uint64_t size = atomic_load(&model->file[file].size);

	return off >= size ? 0 : size - off < len ? size - off : len;
}

static void do_load(int file, uint64_t page)
{
	uint64_t first = rng_below(UNITS), off = page * PAGE + first * UNIT, len = (1 + rng_below(UNITS - first)) * UNIT, n, from;

	model_lock(file, off, len, false);
	n = inside(file, off, len);
	if (n) {
		from = now_ns();
		memcpy(buf, opened[file].map + off, n);
		timed(LOAD, from);
		model_check(file, off, n, buf, "load");
	}
	model_unlock(file, off, len);
}

static void do_store(int file, uint64_t page)
{
	uint64_t off = page * PAGE + rng_below(UNITS) * UNIT, from;

	model_lock(file, off, UNIT, true);
	if (inside(file, off, UNIT)) {
		model_next(file, off, UNIT, buf);
		from = now_ns();
		memcpy(opened[file].map + off, buf, UNIT);
		timed(STORE, from);
		model_stored(file, off, UNIT);
	}
	model_unlock(file, off, UNIT);
}

static void do_scan(int file, uint64_t page)
{
	uint64_t end = page + SCAN_PAGES, pages = model->cap / PAGE;

	for (end = end < pages ? end : pages; page < end && !atomic_load(&model->stop); page++) {
		uint64_t off = page * PAGE, n, from;

		model_lock(file, off, PAGE, false);
		n = inside(file, off, PAGE);
		if (n) {
			from = now_ns();
			memcpy(buf, opened[file].map + off, n);
			timed(SCAN, from);
			model_check(file, off, n, buf, "scan");
		}
		model_unlock(file, off, PAGE);
	}
}

static void do_read_write(enum kind kind, int file, uint64_t page)
{
	uint64_t most = rng_percent(20) ? (SPAN_MAX - 1) * UNITS : 2 * UNITS, n, from;
	uint64_t off = page * PAGE + rng_below(UNITS) * UNIT, len = (1 + rng_below(most)) * UNIT;
	ssize_t r;

	if (off + len > model->cap)
		len = model->cap - off;
	model_lock(file, off, len, kind == PWRITE);
	n = inside(file, off, len);
	if (n) {
		if (kind == PWRITE)
			model_next(file, off, n, buf);
		from = now_ns();
		r = kind == PWRITE ? pgc_pwrite(opened[file].f, buf, n, (off_t)off) : pgc_pread(opened[file].f, buf, n, (off_t)off);
		timed(kind, from);
		if (r != (ssize_t)n)
			fail("%s of %" PRIu64 " bytes at %" PRIu64 " of file %d gave %zd", kind_names[kind], n, off, file, r);
		if (kind == PWRITE)
			model_stored(file, off, n);
		else
			model_check(file, off, n, buf, "pread");
	}
	model_unlock(file, off, len);
}

/* Cuts the end off and makes it longer again, most often to its full length. */
static void do_truncate(int file)
{
	uint64_t units = model->cap / UNIT, cut = rng_below(rng_percent(10) ? units / 4 : units / 64);
	uint64_t sizes[2] = { (units - cut) * UNIT, rng_percent(75) ? model->cap : (units - rng_below(cut + 1)) * UNIT };

	for (int i = 0; i < 2; i++) {
		uint64_t from;
		int r;

		model_lock_file(file);
		from = now_ns();
		r = pgc_ftruncate(opened[file].f, (off_t)sizes[i]);
		timed(TRUNCATE, from);
		if (r)
			fail("ftruncate of file %d to %" PRIu64 " gave %d", file, sizes[i], r);
		model_resize(file, sizes[i]);
		model_unlock_file(file);
	}
}

static void do_sync(enum kind kind, int file, uint64_t page)
{
	uint64_t pages = model->cap / PAGE - page, len = (1 + rng_below(pages < 4096 ? pages : 4096)) * PAGE, from = now_ns();
	int r;

	if (kind == FSYNC)
		r = rng_percent(50) ? pgc_fsync(opened[file].f) : pgc_fdatasync(opened[file].f);
	else
		r = pgc_msync(opened[file].map + page * PAGE, len, rng_percent(50) ? MS_SYNC : MS_ASYNC);
	timed(kind, from);
	if (r)
		fail("%s of file %d gave %d", kind_names[kind], file, r);
}

static enum kind kind_choose(void)
{
	unsigned sum = 0;
	uint64_t at;
	int k = 0;

	for (int i = 0; i < KINDS; i++)
		sum += weights[i];
	at = rng_below(sum);
	for (; at >= weights[k]; k++)
		at -= weights[k];
	return (enum kind)k;
}

static void process_setup(int number)
{
	struct sigaction a = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGBUS, &a, NULL);
	signal(SIGPIPE, SIG_IGN);
	self = number;
	rng_state = model->seed ^ (uint64_t)(number + 1) << 40;
	rng();
	buf = malloc(SPAN_MAX * PAGE);
	if (!buf)
		fail("out of memory");
}

static void worker(int number)
{
	process_setup(number);
	here.file = number % model->files;
	for (int i = 0; i < model->files; i++)
		open_file(i);
	while (!atomic_load(&model->stop)) {
		enum kind kind = kind_choose();
		uint64_t page;
		int file;

		place_choose(&file, &page);
		switch (kind) {
		case LOAD: do_load(file, page); break;
		case STORE: do_store(file, page); break;
		case SCAN: do_scan(file, page); break;
		case PREAD: case PWRITE: do_read_write(kind, file, page); break;
		case TRUNCATE: do_truncate(file); break;
		case FSYNC: case MSYNC: do_sync(kind, file, page); break;
		default: do_reopen(file); break;
		}
		atomic_fetch_add(&model->count.ops[kind], 1);
		atomic_fetch_add(&model->ops, 1);
		if (atomic_load(&model->failed))
			_exit(3);
	}
	_exit(0);
}

/* ---- the victims: on a file of a store that can be made slow ---- */

static void victim_make(struct pgc_file *f)
{
	for (uint64_t off = 0; off < VICTIM_SIZE; off += SPAN_MAX * PAGE) {
		for (uint64_t at = 0; at < SPAN_MAX * PAGE; at += UNIT)
			unit_fill(buf + at, VICTIM_FILE, (off + at) / UNIT, 1);
		if (pgc_pwrite(f, buf, SPAN_MAX * PAGE, (off_t)off) != (ssize_t)(SPAN_MAX * PAGE))
			fail("pwrite to " VICTIM_URI " failed");
	}
	if (pgc_fsync(f))
		fail("fsync of " VICTIM_URI " failed");
	atomic_store(&model->victims_ready, 1);
}

/* The pages go, so that the store is read. May be refused while one of them is on its way. */
static void victim_drop(int *control, const struct stat *st)
{
	struct pgc_msg m = { .type = PGC_CTL_DROP, .tag = 3, .ctl_file = { .dev = st->st_dev, .ino = st->st_ino } };

	if (*control < 0)
		*control = bounded_connect(daemon_.socket);
	if (*control >= 0 && bounded_ask(*control, &m)) {
		close(*control);
		*control = -1;
	}
}

static void victim(int number)
{
	uint8_t want[UNIT];
	struct pgc_file *f;
	int r, control = -1;
	struct stat st;
	uint8_t *map;

	process_setup(model->procs + number);
	r = pgc_open(&f, VICTIM_URI, O_RDWR, 0);
	if (r)
		fail("open of " VICTIM_URI " gave %d", r);
	if (number == 0)
		victim_make(f);
	while (!atomic_load(&model->victims_ready))
		nap_ms(1);
	map = pgc_mmap(f, NULL, VICTIM_SIZE, PROT_READ, MAP_SHARED, 0);
	if (map == MAP_FAILED || pgc_fstat(f, &st))
		fail("mmap or fstat of " VICTIM_URI " failed");
	for (unsigned i = 0; !atomic_load(&model->stop); i++) {
		uint64_t unit = rng_below(VICTIM_SIZE / UNIT), delay = atomic_load(&model->delay_us), from;

		if (number == 1 && i % 16 == 0)
			victim_drop(&control, &st);
		from = now_ns();
		if (number == 0)
			memcpy(buf, map + unit * UNIT, UNIT);
		else if (pgc_pread(f, buf, UNIT, (off_t)(unit * UNIT)) != (ssize_t)UNIT)
			fail("pread of " VICTIM_URI " failed");
		if (delay && now_ns() - from >= delay * 500)
			atomic_fetch_add(&model->victim_slow, 1);
		unit_fill(want, VICTIM_FILE, unit, 1);
		if (memcmp(buf, want, UNIT))
			fail(VICTIM_URI ": wrong bytes at %" PRIu64, unit * UNIT);
		atomic_fetch_add(&model->victim_ops, 1);
		nap_ms(2);
	}
	_exit(0);
}

/* ---- the supervisor ---- */

static pid_t pids[PROCS_MAX + VICTIMS];
static uint64_t started_ns;

static double seconds(void)
{
	return (double)(now_ns() - started_ns) / 1e9;
}

static double mib(uint64_t bytes)
{
	return (double)bytes / 0x1p20;
}

static void print_proc(pid_t pid, const char *name)
{
	char path[64], text[1024];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (fd >= 0)
		close(fd);
	if (n > 0)
		fprintf(stderr, "    %s: %.*s%s", name, (int)n, text, text[n - 1] == '\n' ? "" : "\n");
}

static void give_up(void) __attribute__((noreturn));
static void give_up(void)
{
	for (size_t i = 0; i < ELEMS(pids); i++)
		if (pids[i] > 0) {
			fprintf(stderr, "  process %zu (pid %d)\n", i, (int)pids[i]);
			print_proc(pids[i], "wchan");
			print_proc(pids[i], "syscall");
		}
	for (size_t i = 0; i < ELEMS(pids); i++)
		if (pids[i] > 0) {
			kill(pids[i], SIGKILL);
			waitpid(pids[i], NULL, 0);
		}
	bounded_daemon_kill(&daemon_);
	fprintf(stderr, "exerciser-bounded: seed %" PRIu64 ", after %.1f s and %" PRIu64 " operations", model->seed, seconds(),
		(uint64_t)atomic_load(&model->ops));
	if (options.keep)
		fprintf(stderr, "; files kept in %s\n", work_dir);
	else {
		for (int i = 0; i < model->files; i++)
			unlink(model->file[i].path);
		bounded_daemon_remove_files(&daemon_);
		fprintf(stderr, "%s\n", rmdir(work_dir) ? "; something is left" : "");
	}
	exit(1);
}

static void broken(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void broken(const char *format, ...)
{
	int none = 0;
	va_list ap;

	if (atomic_compare_exchange_strong(&model->failed, &none, 1)) {
		fprintf(stderr, "\nFAILED: seed %" PRIu64 ": ", model->seed);
		va_start(ap, format);
		vfprintf(stderr, format, ap);
		va_end(ap);
		fputc('\n', stderr);
	}
	give_up();
}

/* Where the budget is and has been. */
static struct {
	uint64_t max;              /* bytes, as last set */
	uint64_t enforced;         /* bytes: the one before, as long as it shrinks */
	double shrink_until;       /* seconds; 0: it does not */
	struct memory peak;
	double shrink_took;
} budget;

static uint64_t slack_of(uint64_t max)
{
	return max / 100 > 4ull << 20 ? max / 100 : 4ull << 20;
}

static bool within(const struct memory *m, uint64_t max)
{
	uint64_t limit = max + slack_of(max);

	return m->used <= limit && m->memfds <= limit;
}

static void memory_sample(struct memory *ret)
{
	struct pgc_ctl_status_reply s;
	int r = 0;

	/* A page may be counted in two files when it moves meanwhile: what is too much is looked at again, at once. */
	for (int i = 0; i < 3; i++) {
		r = bounded_memory(&daemon_, ret, &s);
		if (r)
			broken("the daemon does not say how it is: %s", strerror(-r));
		if (within(ret, budget.enforced))
			break;
	}
	if (!budget.shrink_until && s.memory_max != budget.max)
		broken("memory_max is %.1f MiB, not %.1f", mib(s.memory_max), mib(budget.max));
	if (budget.shrink_until && within(ret, budget.max)) {
		budget.shrink_took = SHRINK_SECONDS - (budget.shrink_until - seconds());
		budget.enforced = budget.max;
		budget.shrink_until = 0;
	} else if (budget.shrink_until && seconds() > budget.shrink_until)
		broken("%.0f s after memory_max was set to %.1f MiB: used %.1f, memfds %.1f MiB", SHRINK_SECONDS,
			mib(budget.max), mib(ret->used), mib(ret->memfds));
	if (!within(ret, budget.enforced))
		broken("memory: used %.1f, memfds %.1f MiB; memory_max is %.1f, and %.1f more are allowed", mib(ret->used),
			mib(ret->memfds), mib(budget.enforced), mib(slack_of(budget.enforced)));
	budget.peak.used = ret->used > budget.peak.used ? ret->used : budget.peak.used;
	budget.peak.memfds = ret->memfds > budget.peak.memfds ? ret->memfds : budget.peak.memfds;
	budget.peak.own = ret->own > budget.peak.own ? ret->own : budget.peak.own;
}

static void budget_set(uint64_t max)
{
	struct pgc_msg m = { .type = PGC_CTL_SET, .tag = 4, .ctl_set = { .name = "memory_max" } };
	int r;

	snprintf(m.ctl_set.value, sizeof(m.ctl_set.value), "%" PRIu64, max);
	r = bounded_ask(daemon_.control, &m);
	if (r)
		broken("the daemon does not answer a request to change memory_max (%s)",
			r == -EPIPE ? "it ended the connection" : strerror(-r));
	if (m.status)
		broken("the daemon does not change memory_max: %s: %s", strerror((int)m.status), m.ctl_set_reply.message);
	if (max < budget.max)
		budget.shrink_until = seconds() + SHRINK_SECONDS;
	else {
		budget.enforced = max;
		budget.shrink_until = 0;
	}
	budget.max = max;
}

static void delay_set(uint64_t us)
{
	struct pgc_msg m = { .type = PGC_CTL_INJECT, .tag = 5,
		.ctl_inject = { .what = PGC_INJECT_READ_DELAY, .value = us, .uri = VICTIM_URI } };
	int r = bounded_ask(daemon_.control, &m);

	if (r || m.status)
		broken("the store cannot be made slow: %s", strerror(r ? -r : (int)m.status));
	atomic_store(&model->delay_us, us);
}

static void watch(void)
{
	static uint64_t last_ops;
	static double last_time;
	uint64_t ops = atomic_load(&model->ops);
	int status;
	pid_t pid;

	if (atomic_load(&model->failed))
		give_up();
	if (ops != last_ops) {
		last_ops = ops;
		last_time = seconds();
	} else if (seconds() - last_time > STALL_SECONDS)
		broken("no progress for %.0f s", STALL_SECONDS);
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == daemon_.pid)
			daemon_.pid = 0;
		for (size_t i = 0; i < ELEMS(pids); i++)
			if (pids[i] == pid)
				pids[i] = 0;
		broken("%s has ended, status %#x", daemon_.pid ? "a process" : "the daemon", (unsigned)status);
	}
	for (int k = 0; k < KINDS; k++) {
		unsigned limit = k == FSYNC || k == MSYNC ? options.max_sync_ms : options.max_wait_ms;
		uint64_t ns = atomic_load(&model->count.longest_ns[k]);

		if (ns / 1000000 > limit)
			broken("a %s took %.2f s; %.2f are allowed", kind_names[k], (double)ns / 1e9, limit / 1e3);
	}
}

/* ---- phases ---- */

enum phase { WARM, CALM, SLOW, STUCK, LOWERED, RAISED, PHASES };
static const char *const phase_names[PHASES] = { "warm-up", "calm", "slow store", "stuck store", "budget lowered", "budget raised" };

static struct stretch {
	enum phase phase;
	double seconds, rate;      /* rate: operations of the workers a second */
	uint64_t victim_ops, victim_slow;
	uint64_t own;              /* the daemon's own memory at its end: the least of the last samples */
	int64_t uncharged;         /* what the daemon has beyond what it charges, likewise: what is charged, like the second-chance buffer, comes and goes within the budget */
} plan[8];
static int n_plan;

static void plan_make(void)
{
	n_plan = 0;
	plan[n_plan++].phase = WARM;
	plan[n_plan++].phase = CALM;
	if (options.slow)
		plan[n_plan++].phase = SLOW;
	if (options.stuck)
		plan[n_plan++].phase = STUCK;
	if (options.slow || options.stuck)
		plan[n_plan++].phase = CALM;
	if (options.lower) {
		plan[n_plan++].phase = LOWERED;
		plan[n_plan++].phase = RAISED;
	}
	for (int i = 0; i < n_plan; i++)
		plan[i].seconds = i ? options.seconds * 0.75 / (n_plan - 1) : options.seconds * 0.25;
}

static int64_t uncharged(const struct memory *m)
{
	return (int64_t)(m->own + m->memfds) - (int64_t)m->used;
}

static void stretch_run(struct stretch *s)
{
	uint64_t ops = atomic_load(&model->ops);
	uint64_t victim_ops = atomic_load(&model->victim_ops), victim_slow = atomic_load(&model->victim_slow);
	double from = seconds(), tail = s->seconds < 4 ? s->seconds / 2 : 2;
	struct memory m;

	if (s->phase == SLOW || s->phase == STUCK)
		delay_set(s->phase == SLOW ? SLOW_US : STUCK_US);
	else if (atomic_load(&model->delay_us))
		delay_set(0);
	if (s->phase == LOWERED || s->phase == RAISED)
		budget_set(s->phase == LOWERED ? (options.memory / 10) >> 20 << 20 : options.memory);
	s->own = UINT64_MAX;
	s->uncharged = INT64_MAX;
	while (seconds() - from < s->seconds && (!options.ops || atomic_load(&model->ops) < options.ops)) {
		watch();
		memory_sample(&m);
		if (s->seconds - (seconds() - from) < tail) {
			s->own = m.own < s->own ? m.own : s->own;
			s->uncharged = uncharged(&m) < s->uncharged ? uncharged(&m) : s->uncharged;
		}
		nap_ms(SAMPLE_MS);
	}
	if (s->own == UINT64_MAX) {
		s->own = m.own;
		s->uncharged = uncharged(&m);
	}
	s->rate = (double)(atomic_load(&model->ops) - ops) / (seconds() - from);
	s->victim_ops = atomic_load(&model->victim_ops) - victim_ops;
	s->victim_slow = atomic_load(&model->victim_slow) - victim_slow;
	fprintf(stderr, "exerciser-bounded: %-14s %5.1f s, %7.0f operations/s, used %.1f, memfds %.1f, own %.1f MiB",
		phase_names[s->phase], seconds() - from, s->rate, mib(m.used), mib(m.memfds), mib(m.own));
	if (options.slow || options.stuck)
		fprintf(stderr, "; %" PRIu64 " reads of the slow store's file, %" PRIu64 " of them slow", s->victim_ops, s->victim_slow);
	fputc('\n', stderr);
}

/* Speed beside a store that does not answer, against the slower of the calm stretches before and after. */
static void plan_judge(void)
{
	double calm = 0;
	int64_t first = plan[0].uncharged, last = plan[n_plan - 1].uncharged;

	for (int i = 0; i < n_plan; i++)
		if (plan[i].phase == CALM && (!calm || plan[i].rate < calm))
			calm = plan[i].rate;
	for (int i = 0; i < n_plan; i++) {
		if (plan[i].phase != SLOW && plan[i].phase != STUCK)
			continue;
		if (plan[i].rate < calm / 2)
			broken("with a %s the others made %.0f operations a second, without %.0f", phase_names[plan[i].phase],
				plan[i].rate, calm);
		if (plan[i].phase == SLOW && !plan[i].victim_slow)
			broken("the store was not slow: none of %" PRIu64 " reads took long", plan[i].victim_ops);
		if (plan[i].phase == STUCK && plan[i].victim_ops > plan[i].seconds * 1000)
			broken("the store was not stuck: %" PRIu64 " reads", plan[i].victim_ops);
	}
	if (last > first + (int64_t)GROWTH)
		broken("memory of the daemon that it does not charge grew by %.1f MiB after the warm-up, of its own from %.1f to %.1f", mib((uint64_t)(last - first)),
			mib(plan[0].own), mib(plan[n_plan - 1].own));
	if (budget.shrink_until)
		broken("memory_max was lowered too late to see the memory shrink");
}

/* ---- beginning and end ---- */

static void spawn(int slot, void (*body)(int), int number)
{
	fflush(NULL);
	pids[slot] = fork();
	if (pids[slot] == 0)
		body(number);
	if (pids[slot] < 0)
		broken("fork: %s", strerror(errno));
}

/* Everybody ends by itself, also who waits for a store that is stuck. */
static void workers_end(void)
{
	double from = seconds();
	int status;

	if (atomic_load(&model->delay_us))
		delay_set(0);
	atomic_store(&model->stop, 1);
	for (size_t i = 0; i < ELEMS(pids); i++) {
		while (pids[i] > 0 && waitpid(pids[i], &status, WNOHANG) == 0) {
			if (atomic_load(&model->failed))
				give_up();
			if (seconds() - from > STALL_SECONDS)
				broken("process %zu does not end", i);
			nap_ms(5);
		}
		if (pids[i] > 0 && status) {
			pids[i] = 0;
			broken("process %zu ended with status %#x", i, (unsigned)status);
		}
		pids[i] = 0;
	}
}

static void files_make(void)
{
	const char *tmp = options.dir ? options.dir : getenv("TMPDIR");

	snprintf(work_dir, sizeof(work_dir), "%s/pagecached-bounded-XXXXXX", tmp && *tmp == '/' ? tmp : "/var/tmp");
	if (!mkdtemp(work_dir)) {
		fprintf(stderr, "exerciser-bounded: %s: %s\n", work_dir, strerror(errno));
		exit(2);
	}
	for (int i = 0; i < model->files; i++) {
		struct model_file *f = &model->file[i];
		int fd;

		snprintf(f->path, sizeof(f->path), "%s/file%d", work_dir, i);
		fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 || ftruncate(fd, (off_t)model->cap)) {
			fprintf(stderr, "exerciser-bounded: %s: %s\n", f->path, strerror(errno));
			exit(2);
		}
		close(fd);
	}
}

static void zeros_check(int file, uint64_t from, uint64_t end)
{
	for (uint64_t u = from / UNIT; u < end / UNIT; u++) {
		uint32_t state = atomic_load_explicit(&model->file[file].units[u], memory_order_relaxed);

		if (state && !(state & MODEL_ZERO))
			fail("the store at the end: file %d has a hole at byte %" PRIu64 ", which should have generation %u", file,
				u * UNIT, state);
	}
}

/* With the daemon gone: the files themselves. */
static void store_check(int file)
{
	uint64_t size = atomic_load(&model->file[file].size), chunk = SPAN_MAX * PAGE, at = 0;
	int fd = open(model->file[file].path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || (uint64_t)st.st_size != size)
		fail("the store at the end: file %d has not its %" PRIu64 " bytes", file, size);
	while (at < size) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;

		if (data < 0) {
			if (errno != ENXIO)
				fail("lseek: %s", strerror(errno));
			data = (off_t)size;
		}
		zeros_check(file, at, (uint64_t)data);
		at = (uint64_t)data / UNIT * UNIT;
		hole = at < size ? lseek(fd, (off_t)at, SEEK_HOLE) : (off_t)size;
		while (at < (uint64_t)hole) {
			uint64_t n = (uint64_t)hole - at < chunk ? (uint64_t)hole - at : chunk;

			if (pread(fd, buf, n, (off_t)at) != (ssize_t)n)
				fail("read of %s at %" PRIu64 " failed", model->file[file].path, at);
			model_check(file, at, n, buf, "the store at the end");
			at += n;
		}
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	}
	close(fd);
}

static void report(void)
{
	fprintf(stderr, "exerciser-bounded: %" PRIu64 " operations in %.1f s without a difference; longest waits, ms:",
		(uint64_t)atomic_load(&model->ops), seconds());
	for (int k = 0; k < KINDS; k++)
		fprintf(stderr, " %s %.1f (%" PRIu64 ")", kind_names[k], (double)atomic_load(&model->count.longest_ns[k]) / 1e6,
			(uint64_t)atomic_load(&model->count.ops[k]));
	fprintf(stderr, "\nexerciser-bounded: peaks: used %.1f, memfds %.1f, own %.1f MiB; own after the warm-up %.1f, at the end %.1f; uncharged then %+.1f",
		mib(budget.peak.used), mib(budget.peak.memfds), mib(budget.peak.own), mib(plan[0].own), mib(plan[n_plan - 1].own),
		(double)(plan[n_plan - 1].uncharged - plan[0].uncharged) / (1 << 20));
	if (options.lower)
		fprintf(stderr, "; a tenth was reached in %.2f s", budget.shrink_took);
	fputc('\n', stderr);
}

static void usage(FILE *out)
{
	fprintf(out, "Usage: exerciser-bounded [OPTION]...\n"
		"Random operations on files many times larger than the budget, against a model, with the memory and all waits measured.\n\n"
		"  --seconds N, --minutes N  how long (default 2 minutes); --ops N: end after so many operations\n"
		"  --memory MIB              memory_max (default 512)\n"
		"  --files N, --file-size MIB  default 8 files of 2048\n"
		"  --procs N                 1 to %d (default 8)\n"
		"  --max-wait MS             for a fault or call (default %u); --max-sync MS: for fsync and msync (default %u)\n"
		"  --lower                   the budget is lowered to a tenth and raised again\n"
		"  --slow, --stuck           the store of one more file takes 100 ms, or 30 s, for each read\n"
		"  --set KEY=VALUE           a further line of the daemon's configuration; may be given again\n"
		"  --daemon PATH             start this one (default $PAGECACHED_BIN)\n"
		"  --dir DIR                 files go here (default $TMPDIR or /var/tmp); --keep: leave them after a failure\n"
		"  --seed N                  the same choices again (default: random, printed)\n", PROCS_MAX, options.max_wait_ms,
		options.max_sync_ms);
}

static uint64_t number(const char *name, const char *text, uint64_t min, uint64_t max)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 0);
	if (errno || *end || end == text || v < min || v > max) {
		fprintf(stderr, "exerciser-bounded: --%s %s: a number from %" PRIu64 " to %" PRIu64 " is wanted\n", name, text, min, max);
		exit(2);
	}
	return v;
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "seconds", 1, NULL, 't' }, { "minutes", 1, NULL, 'T' }, { "ops", 1, NULL, 'o' }, { "memory", 1, NULL, 'm' },
		{ "files", 1, NULL, 'f' }, { "file-size", 1, NULL, 'F' }, { "procs", 1, NULL, 'p' }, { "max-wait", 1, NULL, 'w' },
		{ "max-sync", 1, NULL, 'W' }, { "lower", 0, NULL, 'l' }, { "slow", 0, NULL, 'a' }, { "stuck", 0, NULL, 'b' },
		{ "set", 1, NULL, 'S' }, { "daemon", 1, NULL, 'd' }, { "dir", 1, NULL, 'D' }, { "keep", 0, NULL, 'k' },
		{ "seed", 1, NULL, 's' }, { "help", 0, NULL, 'h' }, { 0 },
	};
	int c;

	if (getrandom(&options.seed, sizeof(options.seed), 0) != sizeof(options.seed))
		options.seed = (uint64_t)time(NULL);
	options.seed >>= 32;
	options.daemon = getenv("PAGECACHED_BIN");
	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
		switch (c) {
		case 't': options.seconds = (double)number("seconds", optarg, 4, 1000000); break;
		case 'T': options.seconds = 60 * (double)number("minutes", optarg, 1, 20000); break;
		case 'o': options.ops = number("ops", optarg, 1, UINT64_MAX); break;
		case 'm': options.memory = number("memory", optarg, 32, 1 << 20) << 20; break;
		case 'f': options.files = (int)number("files", optarg, 1, FILES_MAX); break;
		case 'F': options.file_size = number("file-size", optarg, 16, 1 << 20) << 20; break;
		case 'p': options.procs = (int)number("procs", optarg, 1, PROCS_MAX); break;
		case 'w': options.max_wait_ms = (unsigned)number("max-wait", optarg, 1, 1000000); break;
		case 'W': options.max_sync_ms = (unsigned)number("max-sync", optarg, 1, 1000000); break;
		case 'l': options.lower = true; break;
		case 'a': options.slow = true; break;
		case 'b': options.stuck = true; break;
		case 'S':
			if (options.n_settings == SETTINGS_MAX - 4) {
				fprintf(stderr, "exerciser-bounded: too many --set\n");
				exit(2);
			}
			options.settings[options.n_settings++] = optarg;
			break;
		case 'd': options.daemon = optarg; break;
		case 'D': options.dir = optarg; break;
		case 'k': options.keep = true; break;
		case 's': options.seed = number("seed", optarg, 0, UINT64_MAX); break;
		case 'h': usage(stdout); exit(0);
		default: usage(stderr); exit(2);
		}
	if (optind < argc || !options.daemon) {
		fprintf(stderr, "exerciser-bounded: %s\n", optind < argc ? "no arguments are wanted" : "--daemon is wanted");
		exit(2);
	}
}

static void daemon_run(void)
{
	static char memory[64];
	const char *settings[SETTINGS_MAX] = { memory, "dirty_expire = 1s", "workers = 2", "test_stores = yes" };

	snprintf(memory, sizeof(memory), "memory_max = %" PRIu64, options.memory);
	memcpy(settings + 4, options.settings, options.n_settings * sizeof(*settings));
	if (bounded_daemon_start(&daemon_, options.daemon, work_dir, settings, 4 + options.n_settings)) {
		bounded_daemon_remove_files(&daemon_);
		for (int i = 0; i < model->files; i++)
			unlink(model->file[i].path);
		rmdir(work_dir);
		exit(2);
	}
	setenv("PAGECACHED_SOCKET", daemon_.socket, 1);
	budget.max = budget.enforced = options.memory;
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	fprintf(stderr, "exerciser-bounded: --seed %" PRIu64 " --procs %d --files %d --file-size %" PRIu64 " --memory %" PRIu64 "\n", options.seed,
		options.procs, options.files, options.file_size >> 20, options.memory >> 20);
	signal(SIGPIPE, SIG_IGN);
	if (model_new(options.seed, options.files, options.procs, options.file_size)) {
		fprintf(stderr, "exerciser-bounded: no memory for the model\n");
		return 2;
	}
	files_make();
	daemon_run();
	started_ns = now_ns();
	for (int i = 0; i < options.procs; i++)
		spawn(i, worker, i);
	for (int i = 0; i < VICTIMS && (options.slow || options.stuck); i++)
		spawn(PROCS_MAX + i, victim, i);
	while ((options.slow || options.stuck) && !atomic_load(&model->victims_ready)) {
		watch();
		nap_ms(10);
	}
	plan_make();
	for (int i = 0; i < n_plan; i++)
		stretch_run(&plan[i]);
	watch();
	workers_end();
	plan_judge();
	if (bounded_daemon_stop(&daemon_))
		broken("the daemon ended badly");
	buf = malloc(SPAN_MAX * PAGE);
	if (!buf)
		broken("out of memory");
	for (int i = 0; i < options.files; i++)
		store_check(i);
	report();
	for (int i = 0; i < options.files; i++)
		unlink(model->file[i].path);
	bounded_daemon_remove_files(&daemon_);
	if (rmdir(work_dir))
		fprintf(stderr, "exerciser-bounded: %s is left\n", work_dir);
	return 0;
}
