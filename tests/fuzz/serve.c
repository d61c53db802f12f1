/* SPDX-License-Identifier: Apache-2.0 */
/* See serve.h. */
#include "tests/fuzz/serve.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "daemon/attach.h"
#include "daemon/domain.h"
#include "daemon/fault.h"
#include "daemon/fdstore.h"
#include "daemon/log.h"
#include "daemon/offload.h"
#include "daemon/proc_fd.h"
#include "daemon/restore.h"
#include "daemon/warm.h"
#include "daemon/writeback.h"
#include "daemon/window.h"
#include "tests/fuzz/at_once.h"

#define PATIENCE_NS 20000000000ull
#define STUCK_NS      30000000ull  /* some tries of a write-out */
#define RING_ENTRIES 256

/* In place of the log's (-Wl,--wrap): the formats and what goes into them are tried. */
void __wrap_log_full(int level, const char *file, pid_t client, const char *format, ...);
void __wrap_log_full(int level, const char *file, pid_t client, const char *format, ...)
{
	static __thread char text[2048];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (getenv("PGC_FUZZ_LOG"))
		fprintf(stderr, "%d: %.*s: %s (%d)\n", level, PGC_NAME_MAX, file ? file : "", text, (int)client);
}

unsigned serve_count_fds(void)
{
	unsigned n = 0;
	DIR *d = opendir("/proc/self/fd");

	REQUIRE(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void print_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	char name[512];

	REQUIRE(d);
	while ((e = readdir(d))) {
		proc_fd_name(atoi(e->d_name), name, sizeof(name));
		fprintf(stderr, "descriptor %s: %s\n", e->d_name, name);
	}
	closedir(d);
}

static void print_files(const struct server *s)
{
	for (unsigned i = 0; i < s->n_workers; i++) {
		const struct file *f;

		list_for_each(f, &s->workers[i].all_files, by_worker)
			fprintf(stderr, "file %s: state %d, size %llu, resident %llu, dirty %llu, kept %llu, handles %u, requests %u, timers %u, looked at %d, fills %d, "
					"writes %d, syncs %d, ops %d, opening %d, last error %d, awaited %u; write-outs of the worker: %llu\n", f->e->name, f->state, (unsigned long long)f->size,
				(unsigned long long)f->e->resident, (unsigned long long)f->e->dirty, (unsigned long long)f->e->keep, f->n_handles, f->requests,
				f->timers, f->version_busy, !list_empty(&f->fills), !list_empty(&f->writes), !list_empty(&f->syncs), !list_empty(&f->ops),
				!list_empty(&f->opening), f->last_error, f->awaited, (unsigned long long)f->worker->stats->writeouts);
	}
}

static void load_config(const struct served *d, struct config *c)
{
	char path[PATH_MAX], *argv[] = { (char *)"pagecached", (char *)"--config", path, NULL };

	snprintf(path, sizeof(path), "%s/conf", d->dir);
	REQUIRE(config_load(c, 3, argv, stderr, stderr) == 0);
}

void serve_init(struct served *d)
{
	struct server *s = &d->server;
	const char *tmp = getenv("PGC_FUZZ_TMPFS"), *lacking = NULL;
	char path[PATH_MAX];
	FILE *f;

	/* Only on a tmpfs the files of a state can lie. */
	snprintf(d->dir, sizeof(d->dir), "%s/pagecached-fuzz-XXXXXX", tmp ? tmp : "/dev/shm");
	REQUIRE(mkdtemp(d->dir));
	snprintf(path, sizeof(path), "%s/conf", d->dir);
	f = fopen(path, "we");
	REQUIRE(f);
	fprintf(f, "[daemon]\nsocket = %s/socket\nstate_dir = %s/state\nbpffs = none\nworkers = %u\nmemory_max = 6M\ntest_stores = yes\n"
		   "warm_start = no\ndirty_expire = 10ms\npressure = no\nmax_handles = 6\nlog_level = debug\n", d->dir, d->dir, SERVE_WORKERS);
	REQUIRE(fclose(f) == 0);
	load_config(d, &d->config);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN);
	REQUIRE(proc_fd_init() == 0);
	REQUIRE(uffd_probe(&s->caps, true, &lacking) == 0);
	/* A sanitizer forks to name the functions of its report, and would wait for the daemon. */
	s->caps.fork_events = false;
	s->caps.features &= ~(uint64_t)UFFD_FEATURE_EVENT_FORK;
	(void)cgroup_init("/proc", "/proc/self/mountinfo");
	fault_init();
	warm_init(d->config.state_dir);
	REQUIRE(offload_start() == 0 && window_global_init() == 0);
	at_once_init();
}

static void make_workers(struct server *s)
{
	s->n_workers = s->config->workers;
	s->workers = calloc(s->n_workers, sizeof(*s->workers));
	REQUIRE(s->workers);
	for (unsigned i = 0; i < s->n_workers; i++)
		s->workers[i] = (struct worker){
			.id = i, .n_workers = s->n_workers, .all = s->workers, .server = s, .main_ring = &s->ring, .config = s->config,
			.caps = &s->caps, .state = &s->state, .budget = &s->budget,
		};
	for (unsigned i = 0; i < s->n_workers; i++)
		REQUIRE(worker_init(&s->workers[i]) == 0);
}

/* A message between rings that is on its way when the process ends is known to the kernel's ring alone. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:post_spare\n"; }

bool serve_start(struct served *d, bool recover)
{
	struct server *s = &d->server;
	char prefix[PATH_MAX];
	struct state_params p = {
		.bpffs = "", .workers = SERVE_WORKERS, .files = 16, .blocks = 256, .mappings = 64, .cgroups = 8, .handles = 32,
		.prefix = recover ? prefix : NULL, .recover = recover,
	};
	uint64_t tables = 0;

	snprintf(prefix, sizeof(prefix), "%s/state.", d->dir);
	s->config = &d->config;
	s->listen_fd = s->lock_fd = -1;
	s->started = now_ns();
	server_configure(s);
	REQUIRE(ring_init(&s->ring, RING_ENTRIES) == 0);
	REQUIRE(server_listen(s, -1, false) == 0);
	if (state_open(&s->state, &p) < 0) {
		server_unlisten(s);
		ring_free(&s->ring);
		return false;
	}
	d->config.workers = s->state.params.workers;
	if (s->state.not_recovered)
		log_warning("the state is not taken over: %s", s->state.not_recovered);
	if (s->state.recovered)
		for (unsigned i = 2; i <= 4; i++) /* mappings, cgroups and stats are made anew */
			memset(s->state.map[i].mem, 0, s->state.map[i].mem_size);
	for (size_t i = 0; i < ELEMENTSOF(s->state.map); i++)
		tables += page_up(s->state.map[i].mem_size);
	atomic_store(&s->budget.tables, tables);
	atomic_store(&s->budget.used, tables);
	s->cgroup_tenant = calloc(s->state.map[3].entries, sizeof(*s->cgroup_tenant));
	REQUIRE(s->cgroup_tenant);
	cgroup_table_init(&s->cgroups, s->state.cgroups, s->state.map[3].entries);
	make_workers(s);
	if (s->state.recovered)
		REQUIRE(restore_begin(s) == 0);
	else
		fdstore_drop_rest();
	server_watch(s);
	serve_turn(d);
	d->fds = serve_count_fds();
	return true;
}

void serve_settings(struct served *d)
{
	struct config fresh;
	char ignored[512];

	load_config(d, &fresh);
	config_take_over(&d->config, &fresh, ignored, sizeof(ignored));
	config_free(&fresh);
	server_configure(&d->server);
}

bool serve_turn(struct served *d)
{
	struct server *s = &d->server;
	int n = ring_run(&s->ring, false, 256);
	bool any = n > 0;

	REQUIRE(n >= 0);
	for (unsigned i = 0; i < s->n_workers; i++) {
		struct worker *w = &s->workers[i];

		/* Whether it brings anything the loop does not tell. */
		any |= !drr_empty(&w->turns) || io_uring_cq_ready(&w->ring.uring) > 0 || io_uring_sq_ready(&w->ring.uring) > 0;
		worker_round(w, false);
		any |= !drr_empty(&w->turns) || io_uring_sq_ready(&w->ring.uring) > 0;
	}
	return any;
}

void serve_wait(void) { (void)usleep(10); }

static bool in_flight(const struct file *f)
{
	return f->n_handles > 0 || !list_empty(&f->fills) || !list_empty(&f->writes) || !list_empty(&f->syncs) || !list_empty(&f->ops) ||
	       !list_empty(&f->opening) || f->requests > 0 || f->version_busy || f->timers > 0;
}

/* What keeps the worker from being as it was before the first client; NULL: nothing does. `dirty`: may be what is left of files. */
static const char *worker_busy(struct worker *w, bool dirty)
{
	struct file *f, *next;

	if (w->live > 0)
		return "handles or spaces are left";
	if (w->lifelines > 0 || !list_empty(&w->awaited) || !list_empty(&w->attach_jobs))
		return "it waits for somebody who was there before it";
	list_for_each_safe(f, next, &w->all_files, by_worker) {
		if (in_flight(f) || (f->state != FILE_IDLE && !dirty))
			return "a file is not idle";
		if (f->e->dirty > f->e->keep && !dirty)
			return "a file is dirty";
		file_free(f);
	}
	return drr_empty(&w->turns) && list_empty(&w->retry) && list_empty(&w->later) && w->warm_jobs == 0 && !w->looking ? NULL : "work is left";
}

static const char *busy(struct served *d, uint64_t since)
{
	struct server *s = &d->server;
	const char *why = s->n_conns > 0 ? "connections are left" : s->n_clients > 0 && !d->given_up ? "clients are counted" : NULL;

	for (unsigned i = 0; i < s->n_workers && !why; i++)
		why = worker_busy(&s->workers[i], d->given_up && now_ns() - since > STUCK_NS);
	if (!why)
		mem_store_forget_all(); /* what a request made that had not been read before */
	if (!why && serve_count_fds() > d->fds)
		why = "descriptors are left";
	return why;
}

static void check_given_back(struct server *s)
{
	struct budget *b = &s->budget;
	uint64_t touched = 0;

	for (unsigned i = 0; i < s->n_workers; i++) {
		struct worker *w = &s->workers[i];
		struct domain *dom;

		list_for_each(dom, &w->domains, link)
			touched += dom->second_touched;
		REQUIRE(w->n_files == 0 && w->kept_bytes == 0 && w->locked_files == 0 && w->fills_in_flight == 0 && w->writes_in_flight == 0);
		REQUIRE(w->file_slots.n_free == w->file_slots.count && w->block_slots.n_free == w->block_slots.count);
		REQUIRE(w->mapping_slots.n_free == w->mapping_slots.count && w->handle_slots.n_free == w->handle_slots.count);
		REQUIRE(w->stats->resident == 0 && w->stats->dirty == 0 && w->stats->writeback == 0 && w->stats->keep == 0);
		REQUIRE(w->stats->pinned == 0 && w->stats->second_chance == 0);
	}
	REQUIRE(b->used - b->tables == touched);
	REQUIRE(b->dirty == 0 && b->kept == 0 && b->pinned == 0);
	for (unsigned i = 0; i < CLIENT_SLOTS; i++)
		REQUIRE(b->dirty_by[i] == 0);
	for (size_t i = 0; i < s->n_users; i++)
		REQUIRE(s->users[i]->handles == 0 && s->users[i]->dirty == 0 && s->users[i]->conns == 0);
	for (uint32_t i = 0; i < s->cgroups.n; i++)
		REQUIRE(s->cgroups.entry[i].handles == 0 && s->cgroups.entry[i].resident == 0 && s->cgroups.entry[i].dirty == 0 &&
			s->cgroups.entry[i].mapped == 0);
}

void serve_quiesce(struct served *d)
{
	uint64_t start = now_ns();
	const char *why;

	while ((why = busy(d, start))) {
		if (!serve_turn(d))
			serve_wait();
		if (now_ns() - start > PATIENCE_NS) {
			fprintf(stderr, "after %llu s %s\n", PATIENCE_NS / 1000000000ull, why);
			print_files(&d->server);
			print_fds();
			abort();
		}
	}
	if (!d->given_up)
		check_given_back(&d->server);
}

void serve_give_up(struct served *d)
{
	for (unsigned i = 0; i < d->server.n_workers; i++) {
		struct worker *w = &d->server.workers[i];
		struct file *f;

		attach_stop(w);
		handle_end_all(w);
		list_for_each(f, &w->all_files, by_worker)
			f->awaited = 0;
	}
	d->given_up = true;
}

void serve_stop(struct served *d)
{
	struct server *s = &d->server;

	/* Messages that nobody has waited for. */
	while (serve_turn(d))
		;
	server_stop(s);
	while (ring_run(&s->ring, false, 256) > 0)
		;
	for (unsigned i = 0; i < s->n_workers; i++)
		worker_free(&s->workers[i]);
	ring_free(&s->ring);
	state_close(&s->state);
	free(s->workers);
	for (size_t i = 0; i < s->n_users; i++)
		free(s->users[i]);
	free(s->users);
	free(s->restored);
	free(s->cgroup_tenant);
	budget_free(&s->budget);
	*s = (struct server){ .caps = s->caps };
	d->given_up = false;
}
