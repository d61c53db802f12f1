/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See exerciser_crash.h.
 *
 * A daemon that is to die at a kill point finds its name in a file when it starts, and takes it out; as soon as one answers the file is written for the one after
 * it. One that does not come to that point in time is killed as the others. Any other death is a failure of the test.
 *
 * While the daemon is dead and its keeper stopped, every page that was synced, and that nobody has begun to change since, must be in the store.
 */
#include "exerciser_crash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "exerciser_model.h"

#define POINTS_MAX   400
#define ARMED_TIMES  4u              /* a daemon that is to die at a point has so many times longer to come there */
#define DEATHS_TOLD  12u             /* the last ones, when the test has failed */
#define KILLS_MAX    100000
#define DEATH_MS     20000           /* until a killed process has gone */
#define ANSWER_MS    60000           /* until a daemon answers again */

static struct crash *crash;
static struct crash_counts counts;
static pid_t keeper, daemon_pid, dead_pid; /* dead_pid: the daemon before, which the keeper may not have reaped */
static struct point { char *name; unsigned armed, hits; } point[POINTS_MAX];
static unsigned n_points;
static struct armed { bool on; unsigned point, count; } armed, next_armed; /* the daemon that is there; the next one */
static char point_file[300];
static uint64_t next_ms, rng_state;
static unsigned *pauses;
static struct death { pid_t pid; uint64_t at_ms; int point; unsigned count; bool again; } told[DEATHS_TOLD];

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t rng_below(uint64_t n)
{
	uint64_t x = rng_state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return (x ^ x >> 31) % (n ? n : 1);
}

/* --- processes --- */

static void read_proc(const char *path, char *ret, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, ret, size - 1) : -1;

	if (fd >= 0)
		close(fd);
	ret[n > 0 ? n : 0] = '\0';
}

/*
 * The keeper's child that is a daemon, and not what a dead one has left for a moment; 0: none has been seen. There may be one even so: the kernel leaves children
 * out of the list while others of it exit (proc(5)).
 */
static pid_t child_of(pid_t pid)
{
	char path[64], text[256], name[32];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	read_proc(path, text, sizeof(text));
	for (char *save = NULL, *t = strtok_r(text, " ", &save); t; t = strtok_r(NULL, " ", &save)) {
		snprintf(path, sizeof(path), "/proc/%d/comm", atoi(t));
		read_proc(path, name, sizeof(name));
		if (*name && strcmp(name, "pgc-twin\n") != 0)
			return (pid_t)atoi(t);
	}
	return 0;
}

/* Dead as far as anybody can tell: its descriptors and its memory are gone, and so are its threads. */
static bool is_dead(pid_t pid)
{
	char path[64], text[512];
	const char *state;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (n < 0 && errno != ENOENT && errno != ESRCH)
		crash->fail("/proc cannot be read");
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return true;
	text[n] = '\0';
	state = strrchr(text, ')');
	return state && state[2] == 'Z';
}

static void wait_dead(pid_t pid)
{
	uint64_t until = now_ms() + DEATH_MS;

	while (!is_dead(pid)) {
		if (now_ms() > until)
			crash->fail("a daemon that was killed does not go");
		crash->pause();
	}
}

static void start_keeper(void)
{
	fflush(NULL);
	keeper = fork();
	if (keeper == 0) {
		char where[310];
		int fd = open(crash->log, O_WRONLY | O_CREAT | O_APPEND, 0600);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
			_exit(126);
		snprintf(where, sizeof(where), "@%s", point_file);
		setenv("PGC_KILL_POINT", where, 1);
		execv(crash->program, (char *const *)crash->argv);
		dprintf(2, "exerciser: %s: %s\n", crash->program, strerror(errno));
		_exit(127);
	}
	if (keeper < 0)
		crash->fail("fork failed");
}

/* --- kill points --- */

static void learn_points(void)
{
	char command[600], line[160];
	FILE *f;

	snprintf(command, sizeof(command), "PGC_KILL_POINT=list '%s' --version", crash->program);
	f = popen(command, "re");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		/* One that does not know the variable says its version. The end is not what is tested. */
		if (strchr(line, ' ') || !strchr(line, '.') || !strncmp(line, "drain.", 6) || n_points == POINTS_MAX)
			continue;
		point[n_points++].name = strdup(line);
	}
	if (f)
		pclose(f);
	counts.points_known = n_points;
	if (n_points == 0 && crash->points > 0)
		crash->fail("kill points are wanted, but this daemon has none (-Dfailure_injection=true)");
}

static void write_point(const char *text)
{
	int fd = open(point_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		crash->fail("the file for kill points cannot be written");
	close(fd);
}

/*
 * Any, but rarely one that two daemons did not come to: some are for what this test does not do.
 */
static unsigned draw_point(void)
{
	unsigned i = (unsigned)rng_below(n_points);

	for (unsigned tries = 0; tries < 8 && point[i].hits == 0 && point[i].armed >= 2; tries++)
		i = (unsigned)rng_below(n_points);
	return i;
}

/*
 * For the daemon that comes next. Of two points the one that was drawn less often, so that a long run comes to all; and one that no daemon has come to is tried
 * at an earlier time.
 */
static void arm(void)
{
	unsigned a = draw_point(), b = draw_point(), missed, order = (unsigned)rng_below(6);
	char text[200] = "";

	/* The last one is not to die. */
	next_armed = (struct armed){ .on = rng_below(100) < crash->points && counts.deaths + 1 < crash->kills, .point = point[a].armed <= point[b].armed ? a : b };
	if (next_armed.on) {
		missed = point[next_armed.point].armed++ - point[next_armed.point].hits;
		next_armed.count = 1 + (unsigned)rng_below(1ull << (order > 2 * missed ? order - 2 * missed : 0));
		snprintf(text, sizeof(text), "%s:%u", point[next_armed.point].name, next_armed.count);
	}
	write_point(text);
}

static void disarm(void)
{
	next_armed.on = false;
	write_point("");
}

static void new_daemon(pid_t pid)
{
	if (daemon_pid > 0)
		dead_pid = daemon_pid;
	daemon_pid = pid;
	armed = next_armed;
	next_armed.on = false;
}

/* --- what must be in the store --- */

/* What the disk has of a page, past the kernel's cache of the store. */
static const char *on_disk(const char *path, uint64_t off, const uint8_t *wanted, uint64_t n)
{
	static uint8_t page[MODEL_PAGE] __attribute__((aligned(MODEL_PAGE)));
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	ssize_t r = fd < 0 ? -1 : pread(fd, page, sizeof(page), (off_t)off);

	if (fd >= 0)
		close(fd);
	return r < (ssize_t)n ? "cannot be read" : memcmp(page, wanted, n) == 0 ? "is as it should be" : "is wrong";
}

static void check_synced(int file)
{
	static uint8_t bytes[MODEL_PAGE];
	struct model_file *f = &model->file[file];
	uint32_t before, after;
	char what[600];
	struct stat st;
	int fd = open(f->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		crash->fail("a file cannot be opened");
	for (uint64_t page = 0; page < f->cap / MODEL_PAGE; page++) {
		uint64_t off = page * MODEL_PAGE, size, n, differ = 0, first = 0;
		ssize_t r;

		if (!model_page_synced(f, page, &before))
			continue;
		size = atomic_load(&f->size);
		if (off >= size)
			break;
		n = size - off < MODEL_PAGE ? size - off : MODEL_PAGE;
		r = pread(fd, bytes, n, (off_t)off);
		if (r == (ssize_t)n && memcmp(bytes, f->bytes + off, n) == 0) {
			counts.synced_bytes += n;
			continue;
		}
		if (!model_page_synced(f, page, &after) || after != before)
			continue; /* somebody has begun to change it */
		for (uint64_t i = 0; i < (uint64_t)(r > 0 ? r : 0); i++) {
			first = bytes[i] != f->bytes[off + i] && differ == 0 ? i : first;
			differ += bytes[i] != f->bytes[off + i];
		}
		snprintf(what, sizeof(what), "the daemon is dead, and page %" PRIu64 " of file %d, which was synced, is not in the store: "
			 "%zd of %" PRIu64 " bytes could be read, the store has %lld of %" PRIu64 ", %" PRIu64 " bytes differ, the first at %" PRIu64 " has %02x, should be %02x; "
			 "the disk %s", page, file, r, n, fstat(fd, &st) ? -1ll : (long long)st.st_size, size, differ, first, bytes[first], f->bytes[off + first],
			 on_disk(f->path, off, f->bytes + off, n));
		atomic_store(&model->fail_file, file + 1);
		atomic_store(&model->fail_off, off);
		crash->fail(what);
	}
	close(fd);
}

static void check_all_synced(void)
{
	for (int i = 0; i < model->files; i++)
		check_synced(i);
}

/* --- deaths --- */

static void schedule(void)
{
	next_ms = now_ms() + (armed.on ? ARMED_TIMES * crash->every_ms : rng_below(2 * crash->every_ms + 1));
}

static void note_death(pid_t pid, bool at_point, bool again)
{
	told[counts.deaths++ % DEATHS_TOLD] = (struct death){ pid, now_ms(), at_point ? (int)armed.point : -1, armed.count, again };
}

static void died_at_point(bool again)
{
	if (!armed.on)
		crash->fail(again ? "a daemon has died by itself while it took over" : "the daemon has died by itself");
	note_death(daemon_pid, true, again);
	armed.on = false;
	point[armed.point].hits++;
	counts.at_points++;
	counts.double_deaths += again;
}

/* Waits until a daemon answers, however many die before. */
static void wait_answer(uint64_t died)
{
	unsigned deaths = counts.deaths;

	for (;;) {
		pid_t pid = child_of(keeper);

		if (pid > 0 && pid == dead_pid)
			pid = 0; /* not reaped yet */
		if (waitpid(keeper, NULL, WNOHANG) == keeper) {
			keeper = 0;
			crash->fail("the keeper has given up");
		}
		if (pid > 0 && pid != daemon_pid && (daemon_pid == 0 || is_dead(daemon_pid))) {
			if (daemon_pid > 0)
				died_at_point(true);
			new_daemon(pid);
		}
		if (daemon_pid > 0 && crash->answers() && !is_dead(daemon_pid))
			break;
		if (now_ms() > died + ANSWER_MS)
			crash->fail("no daemon answers after a death");
		crash->pause();
	}
	arm();
	if (counts.deaths == deaths && deaths > 0 && deaths <= KILLS_MAX)
		pauses[deaths - 1] = (unsigned)(now_ms() - died) + 1; /* 0: not measured */
}

static void after_death(uint64_t died, bool check)
{
	wait_answer(died);
	/* Now and then the next one follows at once. */
	if (check && rng_below(5) > 0)
		crash->check();
	schedule();
	if (!armed.on && rng_below(8) == 0)
		next_ms = now_ms() + rng_below(20);
}

static void kill_daemon(bool check)
{
	bool total = rng_below(100) < crash->total;
	uint64_t died;

	kill(keeper, SIGSTOP);
	armed.on = false;
	kill(daemon_pid, SIGKILL);
	died = now_ms();
	wait_dead(daemon_pid);
	dead_pid = daemon_pid;
	note_death(daemon_pid, false, false);
	check_all_synced();
	if (total) {
		kill(keeper, SIGKILL);
		while (waitpid(keeper, NULL, 0) < 0 && errno == EINTR)
			;
		counts.total++;
		disarm();          /* the keeper would take it */
		start_keeper();
		daemon_pid = 0;
	} else {
		daemon_pid = 0;
		kill(keeper, SIGCONT);
	}
	after_death(died, check);
}

bool crash_poll(bool check)
{
	if (counts.deaths >= crash->kills)
		return true;
	if (is_dead(daemon_pid)) {
		uint64_t died = now_ms();
		pid_t pid = child_of(keeper);

		died_at_point(false);
		if (pid > 0 && pid != daemon_pid) {
			new_daemon(pid);
		} else {
			dead_pid = daemon_pid;
			daemon_pid = 0;
		}
		after_death(died, check);
	} else if (now_ms() >= next_ms) {
		kill_daemon(check);
	}
	return counts.deaths >= crash->kills;
}

/* --- begin and end --- */

void crash_begin(struct crash *c)
{
	crash = c;
	rng_state = c->seed ^ 0x6b696c6c;
	snprintf(point_file, sizeof(point_file), "%s/kill-point", c->dir);
	pauses = calloc(KILLS_MAX + 1, sizeof(*pauses));
	if (!pauses)
		c->fail("out of memory");
	learn_points();
	disarm();
	start_keeper();
	wait_answer(now_ms());
	schedule();
}

static int by_value(const void *a, const void *b)
{
	const unsigned *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

void crash_end(struct crash_counts *ret)
{
	size_t n = 0;

	for (unsigned i = 0; i < counts.deaths && i < KILLS_MAX; i++)
		if (pauses[i])
			pauses[n++] = pauses[i];
	qsort(pauses, n, sizeof(*pauses), by_value);
	counts.pause_median_ms = n ? pauses[n / 2] : 0;
	counts.pause_max_ms = n ? pauses[n - 1] : 0;
	for (unsigned i = 0; i < n_points; i++)
		counts.points_hit += point[i].hits > 0;
	*ret = counts;
	crash->kills = crash->points = 0;
	disarm();
}

void crash_tell_points(FILE *out)
{
	bool missed = false;

	for (unsigned i = 0; i < n_points; i++)
		if (point[i].hits > 0)
			fprintf(out, " %s %u", point[i].name, point[i].hits);
	for (unsigned i = 0; i < n_points; i++)
		if (point[i].armed > 0 && point[i].hits == 0) {
			fprintf(out, "%s %s", missed ? "" : "; drawn, but no daemon came there:", point[i].name);
			missed = true;
		}
	fputc('\n', out);
}

void crash_tell_deaths(FILE *out)
{
	for (unsigned i = counts.deaths > DEATHS_TOLD ? counts.deaths - DEATHS_TOLD : 0; i < counts.deaths; i++) {
		const struct death *d = &told[i % DEATHS_TOLD];

		fprintf(out, "death %u, %.3f s ago: daemon %d", i + 1, (double)(now_ms() - d->at_ms) / 1000, (int)d->pid);
		if (d->point >= 0)
			fprintf(out, " at %s:%u%s\n", point[d->point].name, d->count, d->again ? ", while it took over" : "");
		else
			fprintf(out, "\n");
	}
	if (armed.on)
		fprintf(out, "daemon %d is to die at %s:%u\n", (int)daemon_pid, point[armed.point].name, armed.count);
}

int crash_stop(void)
{
	uint64_t until = now_ms() + ANSWER_MS;
	int status;

	kill(keeper, SIGTERM);
	while (waitpid(keeper, &status, WNOHANG) == 0) {
		if (now_ms() > until)
			return -1;
		crash->pause();
	}
	keeper = 0;
	unlink(point_file);
	return status;
}

void crash_kill(void)
{
	pid_t pid = keeper > 0 ? child_of(keeper) : 0;

	if (keeper > 0)
		kill(keeper, SIGKILL);
	if (pid > 0) {
		kill(pid, SIGABRT);    /* a sanitizer may tell more */
		crash->pause();
		kill(pid, SIGKILL);
	}
}

pid_t crash_keeper(void) { return keeper; }
