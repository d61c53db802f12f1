/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pgc-bench --fairness: what one client's faults cost another's.
 *
 * A victim takes a few hundred faults a second on a file of its own: loads of and stores to pages that the cache has, and loads
 * of pages that it does not have. Meanwhile an attacker in another process does nothing, burns processor time, or takes as many faults as it can: on a
 * file of its own, which the same worker owns or another, or on one that it has mapped past the cache. All of these follow each other in each round, so
 * that what the machine does otherwise meets all alike. A round's ratio is the victim's 99th percentile in a phase over that in the quiet phase of the
 * same round; what is printed is the median over the rounds.
 *
 * The attacker needs processors as the daemon and the victim do. What the kernel's scheduler makes of that is in the ratio, too; so two phases in which
 * the daemon has nothing to do with the attack stand beside it: threads that only compute, as many as the attack has processors' worth of work, and the
 * same attacker on a mapping of the kernel's own.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "pagecached.h"
#include "pagecached/wire.h"

#define SAMPLES_MAX 8192u      /* of one kind in one phase: so many pages has each of the victim's areas */
#define THREADS_MAX 1024u
#define HANDLES_MAX 64u
#define ROUNDS_MAX  RUNS_MAX
#define ATTACK_SIZE (256ull << 20)
#define ATTACK_PART (4ull << 20) /* of one thread: to take more out of the page tables at once would occupy a processor for longer than what is measured */
#define CANDIDATES  64u
#define STRIDE      64u        /* pages from one fault of the attacker's to the next: what is mapped with one is not the next one */

enum kind { LOAD, STORE, COLD, KINDS };
static const char *const kind_names[KINDS] = { "load", "store", "cold" };

enum attack { QUIET, BURN, KERNEL, LOADS, STORES, COLDS };
static const struct phase {
	const char *name;
	enum attack attack;
	bool other;                /* on a file of another worker */
} phases[] = {
	{ "nobody", QUIET, false },
	{ "processor time", BURN, false },
	{ "loads, the kernel's mapping", KERNEL, false },
	{ "loads, same worker", LOADS, false },
	{ "stores, same worker", STORES, false },
	{ "cold loads, same worker", COLDS, false },
	{ "loads, another worker", LOADS, true },
	{ "stores, another worker", STORES, true },
	{ "cold loads, another worker", COLDS, true },
};

static struct {
	const char *dir;
	double seconds;
	unsigned rounds, threads, handles, rate, burners;
} options = { "/var/tmp", 2, 5, 16, 1, 300, 1 };

static char folder[400], victim_path[448], attack_path[2][448], kernel_path[448];

static struct shared {
	_Atomic int attack;        /* enum attack, -1: end */
	_Atomic int target;
	_Atomic unsigned idle;     /* attacking threads that have noticed */
	_Atomic uint64_t faults[THREADS_MAX];
	unsigned n[KINDS];
	double sample[KINDS][SAMPLES_MAX]; /* us */
} *shared;

/* --- the victim --- */

static struct pgc_file *opened(const char *path)
{
	struct pgc_file *f;
	int r = pgc_open(&f, path, O_RDWR, 0);

	if (r == 0)
		r = pgc_fadvise(f, 0, 0, POSIX_FADV_RANDOM);
	if (r < 0)
		die("%s: %s", path, strerror(-r));
	return f;
}

static uint8_t *mapped(struct pgc_file *f, uint64_t off, uint64_t len)
{
	uint8_t *p = pgc_mmap(f, NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, (off_t)off);

	if (p == MAP_FAILED || pgc_madvise(p, len, MADV_RANDOM) < 0)
		die("pgc_mmap: %s", strerror(errno));
	return p;
}

static void read_in(struct pgc_file *f, uint64_t size)
{
	static char buf[1 << 20];

	for (uint64_t off = 0; off < size; off += sizeof(buf))
		if (pgc_pread(f, buf, sizeof(buf), (off_t)off) != sizeof(buf))
			die("pgc_pread failed");
}

/* The page is in no page table, so that it is a fault, whatever was mapped with its neighbours. */
static void sample(enum kind kind, volatile uint8_t *page, uint8_t value)
{
	double from;

	if (madvise((void *)(uintptr_t)page, PAGE, MADV_DONTNEED) < 0)
		die("madvise: %s", strerror(errno));
	from = bench_now();
	if (kind == STORE)
		*page = value;
	else
		(void)*page;
	shared->sample[kind][shared->n[kind]++] = (bench_now() - from) * 1e6;
}

static void victim_phase(struct pgc_file *f)
{
	const uint64_t area = SAMPLES_MAX * PAGE;
	double from, until;
	uint8_t *p;
	int r = pgc_fsync(f);

	/* The last area goes out of the cache, the others are there and clean. */
	read_in(f, COLD * area);
	if (r == 0)
		r = pgc_fadvise(f, (off_t)(COLD * area), (off_t)area, POSIX_FADV_DONTNEED);
	if (r < 0)
		die("the victim cannot begin: %s", strerror(-r));
	p = mapped(f, 0, KINDS * area);
	memset(shared->n, 0, sizeof(shared->n));
	from = bench_now();
	until = from + options.seconds;
	for (unsigned i = 0; i < SAMPLES_MAX && bench_now() < until; i++) {
		uint64_t page = i * PAGE;
		double due = from + (double)i / options.rate, now = bench_now();

		if (due > now)
			nanosleep(&(struct timespec){ .tv_nsec = (long)((due - now) * 1e9) }, NULL);
		sample(LOAD, p + page, 0);
		sample(STORE, p + STORE * area + page, (uint8_t)i);
		sample(COLD, p + COLD * area + page, 0);
	}
	pgc_munmap(p, KINDS * area);
}

static void victim(int sock)
{
	struct pgc_file *f = opened(victim_path);
	char order;

	while (read(sock, &order, 1) == 1) {
		victim_phase(f);
		if (write(sock, &order, 1) != 1)
			break;
	}
	pgc_close(f);
}

/* --- the attacker --- */

static struct pgc_file *attacked[2][HANDLES_MAX];
static int attacked_kernel = -1;

static bool goes_on(enum attack a) { return atomic_load_explicit(&shared->attack, memory_order_relaxed) == (int)a; }

static uint8_t *kernel_mapped(uint64_t off, uint64_t len)
{
	uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, attacked_kernel, (off_t)off);

	if (p == MAP_FAILED || madvise(p, len, MADV_RANDOM) < 0)
		die("mmap: %s", strerror(errno));
	return p;
}

/* Goes over a part of the file again and again, a fault each STRIDE pages. Between, its pages leave the page tables, and with cold loads the cache. */
static void attack(unsigned thread, enum attack a)
{
	struct pgc_file *f = attacked[atomic_load(&shared->target)][thread % options.handles];
	uint64_t share = ATTACK_SIZE / options.threads / PAGE * PAGE, off = thread * share, part = MIN_OF(share, ATTACK_PART), pages = part / PAGE;
	uint8_t *p = a == KERNEL ? kernel_mapped(off, part) : mapped(f, off, part);

	for (uint64_t first = 0; goes_on(a); first = (first + 1) % STRIDE) {
		for (uint64_t i = first; i < pages && goes_on(a); i += STRIDE) {
			volatile uint8_t *byte = p + i * PAGE;

			if (a == STORES)
				*byte = (uint8_t)i;
			else
				(void)*byte;
			atomic_fetch_add_explicit(&shared->faults[thread], 1, memory_order_relaxed);
		}
		(void)madvise(p, part, MADV_DONTNEED);
		if (a == COLDS)
			(void)pgc_fadvise(f, (off_t)off, (off_t)part, POSIX_FADV_DONTNEED);
	}
	if (a == KERNEL)
		munmap(p, part);
	else
		pgc_munmap(p, part);
}

static void *attack_thread(void *arg)
{
	unsigned thread = (unsigned)(uintptr_t)arg;

	for (;;) {
		int a = atomic_load(&shared->attack);

		if (a < 0)
			return NULL;
		if (a == QUIET || (a == BURN && thread >= options.burners)) {
			atomic_fetch_add(&shared->idle, 1);
			while (goes_on((enum attack)a))
				nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
			continue;
		}
		while (a == BURN && goes_on(BURN))
			;
		if (a != BURN)
			attack(thread, (enum attack)a);
	}
}

static void attacker(int sock)
{
	static pthread_t threads[THREADS_MAX];

	for (unsigned i = 0; i < options.handles; i++) {
		attacked[0][i] = opened(attack_path[0]);
		attacked[1][i] = opened(attack_path[1]);
	}
	attacked_kernel = open(kernel_path, O_RDWR | O_CLOEXEC);
	if (attacked_kernel < 0)
		die("%s: %s", kernel_path, strerror(errno));
	/* The cache has both files, and the kernel's cache the third one, which was just written. */
	read_in(attacked[0][0], ATTACK_SIZE);
	read_in(attacked[1][0], ATTACK_SIZE);
	for (unsigned i = 0; i < options.threads; i++)
		if (pthread_create(&threads[i], NULL, attack_thread, (void *)(uintptr_t)i))
			die("pthread_create failed");
	if (write(sock, "", 1) != 1)
		die("write: %s", strerror(errno));
	for (unsigned i = 0; i < options.threads; i++)
		pthread_join(threads[i], NULL);
}

/* --- files --- */

static void clean_up(void)
{
	unlink(victim_path);
	unlink(attack_path[0]);
	unlink(attack_path[1]);
	unlink(kernel_path);
	if (folder[0])
		rmdir(folder);
	folder[0] = 0;
}

/* Which worker owns the file that is open: the daemon says so. */
static unsigned worker_of(const char *path)
{
	struct pgc_msg m = { .type = PGC_CTL_FILES, .tag = 3 };
	const char *name = getenv("PAGECACHED_SOCKET");
	int fd = bench_control(name ? name : "/run/pagecached/socket");
	unsigned worker = ~0u;
	struct stat st;

	if (fd < 0 || stat(path, &st) < 0 || send(fd, &m, sizeof(m), 0) != sizeof(m))
		die("%s: no daemon, or no file", path);
	do {
		if (recv(fd, &m, sizeof(m), 0) != sizeof(m) || m.status)
			die("the daemon does not list its files");
		if (m.ctl_file_reply.more && m.ctl_file_reply.dev == st.st_dev && m.ctl_file_reply.ino == st.st_ino)
			worker = m.ctl_file_reply.worker;
	} while (m.ctl_file_reply.more);
	close(fd);
	return worker;
}

static void make_file(const char *path, uint64_t size)
{
	static uint64_t chunk[1 << 17];
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	for (uint64_t at = 0; at < size; at += sizeof(chunk)) {
		for (uint64_t i = 0; i < ELEMS(chunk); i++)
			chunk[i] = bench_word(at + i * 8);
		if (write(fd, chunk, sizeof(chunk)) != sizeof(chunk))
			die("%s: %s", path, strerror(errno));
	}
	if (fsync(fd))
		die("%s: %s", path, strerror(errno));
	close(fd);
}

/* In a process of its own, since the library is used: names for files on the victim's worker and on another. 0: all of them found. */
static int choose_files(void)
{
	unsigned victims;
	bool found[2] = { false, false };

	close(open(victim_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	opened(victim_path);
	victims = worker_of(victim_path);
	for (unsigned i = 0; i < CANDIDATES && !(found[0] && found[1]); i++) {
		char path[448];
		int other;

		snprintf(path, sizeof(path), "%s/candidate-%u", folder, i);
		close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
		opened(path);
		other = worker_of(path) != victims;
		if (!found[other] && rename(path, attack_path[other]) == 0)
			found[other] = true;
		else
			unlink(path); /* others are made meanwhile, so that the next one has another inode */
	}
	return found[0] && found[1] ? 0 : 1;
}

/* --- figures --- */

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static double percentile(double *v, unsigned n, unsigned percent)
{
	qsort(v, n, sizeof(*v), by_value);
	return n ? v[(uint64_t)(n - 1) * percent / 100] : 0;
}

struct outcome { double p50[KINDS], p99[KINDS], ratio[KINDS], faults, cpus; };
static struct outcome outcomes[ELEMS(phases)][ROUNDS_MAX];

static uint64_t all_faults(void)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < options.threads; i++)
		n += atomic_load_explicit(&shared->faults[i], memory_order_relaxed);
	return n;
}

/* Seconds of processor time that a process has used. */
static double cpu_of(pid_t pid)
{
	struct timespec t;
	clockid_t id;

	if (clock_getcpuclockid(pid, &id) || clock_gettime(id, &t))
		die("the attacker has ended");
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void run_phase(const struct phase *p, int sock, pid_t attacks, struct outcome *ret)
{
	double from, cpu;
	uint64_t faults;
	char answer;

	atomic_store(&shared->target, p->other);
	atomic_store(&shared->attack, (int)p->attack);
	nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
	from = bench_now();
	cpu = cpu_of(attacks);
	faults = all_faults();
	if (write(sock, "", 1) != 1 || read(sock, &answer, 1) != 1)
		die("the victim has ended");
	ret->faults = (double)(all_faults() - faults) / (bench_now() - from);
	ret->cpus = (cpu_of(attacks) - cpu) / (bench_now() - from);
	atomic_store(&shared->attack, QUIET);
	nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
	for (int k = 0; k < KINDS; k++) {
		ret->p50[k] = percentile(shared->sample[k], shared->n[k], 50);
		ret->p99[k] = percentile(shared->sample[k], shared->n[k], 99);
	}
}

static double over_rounds(unsigned phase, size_t field)
{
	double v[ROUNDS_MAX];

	for (unsigned r = 0; r < options.rounds; r++)
		v[r] = *(const double *)((const char *)&outcomes[phase][r] + field);
	return bench_figures(v, (int)options.rounds).median;
}

#define MEDIAN(phase, field) over_rounds(phase, offsetof(struct outcome, field))

static void print_table(void)
{
	printf("| the attacker: | faults/s | its processors |");
	for (int k = 0; k < KINDS; k++)
		printf(" %s: p50, p99, us | ratio |", kind_names[k]);
	printf("\n|---|---|---|---|---|---|---|---|---|\n");
	for (unsigned i = 0; i < ELEMS(phases); i++) {
		printf("| %s | %.0f | %.2f |", phases[i].name, MEDIAN(i, faults), MEDIAN(i, cpus));
		for (int k = 0; k < KINDS; k++)
			printf(" %.0f, %.0f | %.2f |", MEDIAN(i, p50[k]), MEDIAN(i, p99[k]), MEDIAN(i, ratio[k]));
		putchar('\n');
	}
}

static pid_t start(void (*run)(int), int *ret_sock)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		die("socketpair: %s", strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (pid == 0) {
		bench_cleanup = NULL;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		run(pair[1]);
		_exit(0);
	}
	close(pair[1]);
	*ret_sock = pair[0];
	return pid;
}

static void choose(int sock)
{
	if (choose_files() == 0 && write(sock, "", 1) != 1)
		_exit(1);
}

static void prepare_files(void)
{
	char answer;
	int sock;
	pid_t pid;

	snprintf(folder, sizeof(folder), "%s/pgc-fairness-XXXXXX", options.dir);
	if (!mkdtemp(folder)) {
		folder[0] = 0;
		die("%s: %s", options.dir, strerror(errno));
	}
	bench_cleanup = clean_up;
	snprintf(victim_path, sizeof(victim_path), "%s/victim", folder);
	snprintf(attack_path[0], sizeof(attack_path[0]), "%s/same-worker", folder);
	snprintf(attack_path[1], sizeof(attack_path[1]), "%s/another-worker", folder);
	snprintf(kernel_path, sizeof(kernel_path), "%s/kernel", folder);
	pid = start(choose, &sock);
	if (read(sock, &answer, 1) != 1)
		die("no files for two workers; has the daemon but one?");
	close(sock);
	waitpid(pid, NULL, 0);
	make_file(victim_path, KINDS * SAMPLES_MAX * PAGE);
	make_file(attack_path[0], ATTACK_SIZE);
	make_file(attack_path[1], ATTACK_SIZE);
	make_file(kernel_path, ATTACK_SIZE);
}

static void usage(FILE *out)
{
	fprintf(out, "Usage: pgc-bench --fairness [OPTION]...\n"
		"What the faults of one client cost another: a table on stdout. The daemon has at least two workers and 2 GiB.\n\n"
		"  --socket PATH       the daemon's socket (default $PAGECACHED_SOCKET)\n"
		"  --dir DIR           make the files here (default /var/tmp)\n"
		"  --seconds N         of each phase (default 2)\n"
		"  --rounds N          (default 5)\n"
		"  --threads N         that attack (default 16)\n"
		"  --handles N         of the attacker, on each of its files (default 1)\n"
		"  --rate N            the victim's faults of each kind a second (default 300)\n"
		"  --burners N         threads that burn processor time (default 1)\n");
}

int fairness_main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "socket", 1, NULL, 's' }, { "dir", 1, NULL, 'd' }, { "seconds", 1, NULL, 'S' }, { "rounds", 1, NULL, 'r' }, { "threads", 1, NULL, 't' },
		{ "handles", 1, NULL, 'H' }, { "rate", 1, NULL, 'R' }, { "burners", 1, NULL, 'b' }, { "help", 0, NULL, 'h' }, { 0 },
	};
	int c, victim_sock, attack_sock;
	pid_t victims, attacks;
	char answer;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1)
		switch (c) {
		case 's': setenv("PAGECACHED_SOCKET", optarg, 1); break;
		case 'd': options.dir = optarg; break;
		case 'S': options.seconds = bench_parse_number("seconds", optarg, 1, 20); break;
		case 'r': options.rounds = bench_parse_number("rounds", optarg, 1, ROUNDS_MAX); break;
		case 't': options.threads = bench_parse_number("threads", optarg, 1, THREADS_MAX); break;
		case 'H': options.handles = bench_parse_number("handles", optarg, 1, HANDLES_MAX); break;
		case 'R': options.rate = bench_parse_number("rate", optarg, 1, 400); break;
		case 'b': options.burners = bench_parse_number("burners", optarg, 1, THREADS_MAX); break;
		case 'h': usage(stdout); return 0;
		default: usage(stderr); return 2;
		}
	if (optind < argc) {
		usage(stderr);
		return 2;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	prepare_files();
	victims = start(victim, &victim_sock);
	attacks = start(attacker, &attack_sock);
	if (read(attack_sock, &answer, 1) != 1)
		die("the attacker has ended");
	for (unsigned r = 0; r < options.rounds; r++)
		for (unsigned i = 0; i < ELEMS(phases); i++) {
			struct outcome *o = &outcomes[i][r];

			run_phase(&phases[i], victim_sock, attacks, o);
			for (int k = 0; k < KINDS; k++)
				o->ratio[k] = o->p99[k] / outcomes[0][r].p99[k];
		}
	atomic_store(&shared->attack, -1);
	close(victim_sock);
	waitpid(victims, NULL, 0);
	waitpid(attacks, NULL, 0);
	print_table();
	clean_up();
	return 0;
}
