/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pagecached: start, loop, stop. The main thread reads the configuration, probes the kernel, makes state, workers and socket, and
 * then runs its ring until a signal ends it.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/vfs.h>
#include <poll.h>
#include <unistd.h>
#include <systemd/sd-daemon.h>

#include "daemon/fdstore.h"
#include "daemon/fdstore_watch.h"
#include "daemon/inject.h"
#include "daemon/keep.h"
#include "daemon/kill_point.h"
#include "daemon/lock_guard.h"
#include "daemon/log.h"
#include "daemon/offload.h"
#include "daemon/pressure.h"
#include "daemon/proc_fd.h"
#include "daemon/process.h"
#include "daemon/restore.h"
#include "daemon/salvage.h"
#include "daemon/server.h"
#include "daemon/twin.h"
#include "daemon/warm.h"
#include "daemon/watchdog.h"
#include "daemon/window.h"
#include "version.h"

#define MAIN_RING_ENTRIES 512
#define CGROUP_SLOTS      1024
#define DRAIN_EXTEND_USEC "300000000"
#define START_PAUSE_S     2
#define EXIT_UNWRITTEN    3      /* pagecached(8) */

struct daemon {
	struct config config;
	struct server server;
	struct pressure pressure;
	struct watchdog watchdog;
	struct lock_guard lock_guard;
	struct fdstore_watch fdstore_watch;
	int argc;
	char **argv;
	int signal_fd;
	struct ring_op signal_poll;
	bool stopping;
	bool abandoned;            /* stores that hang still have memory of ours: it ends with the process, whatever looks for leaks */
};

static void watch_signals(struct daemon *d);

/* Reads files and flags again. All of it is taken over, but what needs a restart; or, where there is an error, nothing. */
static void reload(struct daemon *d)
{
	_cleanup_free_ char *error = NULL;
	char ignored[512];
	struct config c;
	size_t size = 0;
	FILE *err;
	int r;

	(void)sd_notify(0, "RELOADING=1");
	err = open_memstream(&error, &size);
	r = err ? config_load(&c, d->argc, d->argv, stdout, err) : -ENOMEM;
	if (err)
		fclose(err);
	if (r == 0) {
		config_take_over(&d->config, &c, ignored, sizeof(ignored));
		config_free(&c);
		server_configure(&d->server);
		log_notice("configuration read again and taken over%s%s", *ignored ? "; a restart is needed for: " : "", ignored);
	} else {
		if (size && error[size - 1] == '\n')
			error[size - 1] = '\0';
		log_error("configuration not taken over: %s", size ? error : strerror(ENOMEM));
	}
	(void)sd_notify(0, "READY=1");
}

/* At once, whatever is under way: the next daemon finds all of it. */
static void hand_over(struct daemon *d)
{
	if (!d->server.state.lasting) {
		log_warning("SIGUSR1: nothing of this daemon would outlive it (neither BPF maps nor a tmpfs for its state), so it stays");
		return;
	}
	log_notice("handing over to the next daemon");
	(void)sd_notify(0, "STATUS=Handing over");
	_exit(0);
}

static void signal_ready(struct ring_op *op, int res, uint32_t cflags)
{
	struct daemon *d = container_of(op, struct daemon, signal_poll);
	struct signalfd_siginfo si;

	while (read(d->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGHUP)
			reload(d);
		else if (si.ssi_signo == SIGUSR1)
			hand_over(d);
		else
			d->stopping = true;
	}
	if (!d->stopping)
		watch_signals(d);
}

static void watch_signals(struct daemon *d)
{
	d->signal_poll.done = signal_ready;
	io_uring_prep_poll_add(ring_sqe(&d->server.ring, &d->signal_poll), d->signal_fd, POLLIN);
}

static int setup_process(struct daemon *d)
{
	struct rlimit files;
	sigset_t set;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return d->signal_fd < 0 ? -errno : 0;
}

/* Where the state is without BPF maps: beside the socket where that is a tmpfs, else in a folder that is one. */
static void state_prefix(const struct config *c, char *ret, size_t size)
{
	char dir[PATH_MAX], name[200];
	size_t n = 0;
	struct statfs fs;
	char *slash;

	snprintf(dir, sizeof(dir), "%s", c->socket);
	slash = strrchr(dir, '/');
	if (slash)
		*slash = 0;
	if (slash && statfs(*dir ? dir : "/", &fs) == 0 && fs.f_type == TMPFS_MAGIC) {
		snprintf(ret, size, "%s.", c->socket);
		return;
	}
	/* The socket's path as a name: "/run/a-b" is "-run-a--b". A socket's path is short. */
	for (const char *p = c->socket; *p && n + 3 < sizeof(name); p++) {
		name[n++] = *p == '/' ? '-' : *p;
		if (*p == '-')
			name[n++] = '-';
	}
	name[n] = 0;
	snprintf(ret, size, "/dev/shm/pagecached-%u%s.", geteuid(), name);
}

/* What of an earlier daemon's state is made anew. */
static void start_over(struct server *s)
{
	static const unsigned anew[] = { 2, 3, 4 }; /* mappings, cgroups, stats */

	for (size_t i = 0; i < ELEMENTSOF(anew); i++)
		memset(s->state.map[anew[i]].mem, 0, s->state.map[anew[i]].mem_size);
	if (s->config->workers != s->state.params.workers)
		log_notice("workers=%u holds after a full stop; until then %u", s->config->workers, s->state.params.workers);
	s->config->workers = s->state.params.workers;
	kill_point("restore.state_found");
}

static int setup_state(struct daemon *d)
{
	struct server *s = &d->server;
	struct config *c = &d->config;
	char prefix[PATH_MAX];
	uint64_t blocks = c->max_blocks, files = c->max_files, mappings = c->max_mappings, tables = 0;
	struct state_params p;
	int r;

	/* Two pages a block: those of a file that is touched at random are far apart. */
	if (blocks == 0)
		blocks = MIN(MAX(c->memory_max / PGC_BLOCK_SIZE * 32, 4096), 4u << 20);
	if (files == 0)
		files = MIN(MAX(c->memory_max >> 16, 256), 16384);
	if (mappings == 0)
		mappings = MIN(MAX(c->memory_max >> 14, 1024), 65536);
	state_prefix(c, prefix, sizeof(prefix));
	p = (struct state_params){
		.bpffs = c->bpffs, .workers = c->workers, .files = (uint32_t)files, .blocks = (uint32_t)blocks,
		.mappings = (uint32_t)mappings, .cgroups = CGROUP_SLOTS, .handles = (uint32_t)MIN(MAX(c->memory_max >> 14, 1024), 65536),
		.prefix = prefix, .recover = true, .kept = fdstore_has_files(),
	};
	r = state_open(&s->state, &p);
	if (r == -EBUSY)
		log_error("an earlier daemon does not come to its end and holds the state (%s, or %s*): not started, so that nothing is lost", c->bpffs, prefix);
	if (r < 0)
		return r;
	if (s->state.not_recovered)
		log_warning("the state of an earlier daemon is not taken over: %s", s->state.not_recovered);
	if (s->state.recovered)
		start_over(s);
	for (size_t i = 0; i < ELEMENTSOF(s->state.map); i++)
		tables += page_up(s->state.map[i].mem_size);
	if (tables > c->memory_max / PAGE_SIZE_ / 2) {
		log_error("memory_max is too small: the tables alone take %llu KiB (max_files, max_mappings, max_blocks)",
			  (unsigned long long)tables * 4);
		return -EINVAL;
	}
	atomic_store_explicit(&s->budget.tables, tables, memory_order_relaxed);
	atomic_store_explicit(&s->budget.used, tables, memory_order_relaxed);
	s->cgroup_tenant = calloc(s->state.map[3].entries, sizeof(*s->cgroup_tenant));
	if (!s->cgroup_tenant)
		return -ENOMEM;
	cgroup_table_init(&s->cgroups, s->state.cgroups, s->state.map[3].entries);
	if (cgroup_init("/proc", "/proc/self/mountinfo") < 0)
		log_notice("no memory cgroups: pages are charged to one entry for all");
	return 0;
}

/* Once, what this daemon cannot do here and why. */
static void say_what_is_missing(struct server *s)
{
	if (s->state.missing)
		log_notice("%s: %s", s->state.bpf ? "without the BPF tables (show_*)" : "without BPF maps", s->state.missing);
	if (s->caps.device < 0)
		log_notice("without faults inside system calls (%s): clients' system calls on pages not yet touched fail with EFAULT",
			   s->config->kernel_faults ? "/dev/userfaultfd cannot be opened" : "kernel_faults=no");
	if (!s->caps.fork_events)
		log_notice("without fork events (no CAP_SYS_PTRACE): libpagecached maps anew in forked children");
	if (!s->caps.poison)
		log_notice("without UFFDIO_POISON (Linux 6.6): a page that cannot be read is waited for");
}

static int start_workers(struct server *s)
{
	/* Clients whose state is lost hear of it, as their connections end. Before anything of the same names is kept. */
	if (!s->state.recovered) {
		salvage_all();
		fdstore_drop_rest();
	}
	if (lanes_start(&s->lanes, s->config->lanes, s->config->test_stores) < 0)
		log_warning("without lanes: no thread can be made");
	s->n_workers = s->config->workers;
	s->workers = calloc(s->n_workers, sizeof(*s->workers));
	if (!s->workers)
		return -ENOMEM;
	for (unsigned i = 0; i < s->n_workers; i++)
		s->workers[i] = (struct worker){
			.id = i, .n_workers = s->n_workers, .all = s->workers, .server = s, .main_ring = &s->ring, .config = s->config,
			.caps = &s->caps, .state = &s->state, .budget = &s->budget, .lanes.lanes = s->lanes,
		};
	for (unsigned i = 0; i < s->n_workers; i++) {
		int r = worker_init(&s->workers[i]);

		if (r < 0)
			return r;
	}
	if (s->state.recovered) {
		int r = restore_begin(s);

		if (r < 0)
			return r;
	}
	for (unsigned i = 0; i < s->n_workers; i++) {
		int r = worker_start(&s->workers[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * Once a second while the workers write everything back. There is more time (EXTEND_TIMEOUT_USEC=) as long as dirty pages get fewer: a store that hangs gets
 * what TimeoutStopSec= says.
 */
static void report_drain(struct daemon *d, uint64_t *left)
{
	uint64_t dirty = atomic_load_explicit(&d->server.budget.dirty, memory_order_relaxed);

	watchdog_look(&d->watchdog);
	(void)sd_notifyf(0, "STATUS=Writing back: %llu MiB left%s", (unsigned long long)((dirty * PAGE_SIZE_ + (1 << 20) - 1) >> 20),
			 dirty < *left ? "\nEXTEND_TIMEOUT_USEC=" DRAIN_EXTEND_USEC : "");
	*left = MIN(*left, dirty);
}

static void join_worker(struct daemon *d, struct worker *w, uint64_t *left)
{
	struct timespec until;

	do {
		report_drain(d, left);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec++;
	} while (pthread_clockjoin_np(w->thread, NULL, CLOCK_MONOTONIC, &until) == ETIMEDOUT);
}

/* Everything is written back before this returns. Whether it could be. */
static bool stop_workers(struct daemon *d)
{
	struct server *s = &d->server;
	uint64_t left = UINT64_MAX;
	bool good = true;

	d->abandoned = false;
	/* Each has to be told, or it would never end. */
	for (unsigned i = 0; i < s->n_workers; i++)
		while (worker_drain(&s->workers[i], &s->ring) < 0)
			usleep(1000);
	ring_push(&s->ring);
	for (unsigned i = 0; i < s->n_workers; i++) {
		/* Their messages keep coming meanwhile; the ring holds them. */
		join_worker(d, &s->workers[i], &left);
		if (atomic_load_explicit(&s->workers[i].failed, memory_order_acquire))
			good = false;
		d->abandoned |= s->workers[i].abandoned;
	}
	return good;
}

static uint64_t budget_value(_Atomic uint64_t *v) { return atomic_load_explicit(v, memory_order_relaxed); }
static uint64_t pressure_used(void *arg) { return budget_value(&((struct server *)arg)->budget.used); }
static uint64_t pressure_max(void *arg) { return budget_value(&((struct server *)arg)->budget.memory_max); }
static uint64_t pressure_min(void *arg) { return budget_value(&((struct server *)arg)->budget.memory_min); }
static bool pressure_enabled(void *arg) { return ((struct server *)arg)->config->pressure; }

static void pressure_limit(void *arg, uint64_t pages)
{
	struct server *s = arg;

	if (pages && !budget_value(&s->budget.pressed))
		atomic_fetch_add_explicit(&s->budget.pressure_episodes, 1, memory_order_relaxed);
	budget_press(&s->budget, pages);
	for (unsigned i = 0; i < s->n_workers; i++)
		(void)ring_post(&s->ring, &s->workers[i].ring, &s->workers[i].wake, 0);
}

/* Not being able to is no reason not to serve. */
static void watch_pressure(struct daemon *d)
{
	struct pressure_params p = {
		.ring = &d->server.ring, .proc = "/proc", .timing = PRESSURE_TIMING_DEFAULT, .arg = &d->server, .used = pressure_used,
		.memory_max = pressure_max, .memory_min = pressure_min, .enabled = pressure_enabled, .set_limit = pressure_limit,
	};
	char cgroup[PATH_MAX];
	uint64_t id;

	if (cgroup_of_pid_path(getpid(), &id, cgroup, sizeof(cgroup)) == 0) {
		p.mount_point = cgroup_mount_point(&p.v1);
		p.cgroup = cgroup;
	}
	if (pressure_start(&d->pressure, &p) < 0)
		log_warning("memory pressure is not watched: out of memory");
}

static int run(struct daemon *d)
{
	struct server *s = &d->server;
	bool good;

	kill_point("start.serving");
	(void)sd_notifyf(0, "READY=1\nSTATUS=Serving %s", d->config.socket);
	log_info("version %s, %u workers, %llu MiB of memory, socket %s", PGC_VERSION, s->n_workers,
		 (unsigned long long)(d->config.memory_max >> 20), d->config.socket);
	inject_begin();
	while (!d->stopping)
		ring_run(&s->ring, true, 256);
	(void)sd_notify(0, "STOPPING=1\nSTATUS=Writing everything back");
	pressure_stop(&d->pressure);
	server_stop(s);
	while (ring_run(&s->ring, false, 256) > 0)
		continue;
	good = stop_workers(d);
	while (ring_run(&s->ring, false, 256) > 0)
		continue;
	inject_report();
	log_info("stopped%s", good ? "" : ": not everything could be written back");
	return good ? 0 : EXIT_UNWRITTEN;
}

static void end_conns(struct server *s)
{
	struct conn *c;

	if (!s->conns.next)
		return;
	while ((c = list_first(&s->conns, struct conn, link))) {
		list_remove(&c->link);
		if (!c->job) /* a statx under way still writes into it: that one ends with the process */
			conn_end(c, NULL);
	}
}

/* The service manager starts us again at once, as is right after a crash; a mistake in the configuration does not go away that fast. */
static int cannot_start(void)
{
	if (config_is_unit())
		sleep(START_PAUSE_S);
	return 1;
}

int main(int argc, char **argv)
{
	static struct daemon d = { .signal_fd = -1 };
	struct server *s = &d.server;
	const char *lacking = NULL;
	bool kept = false;
	int listening, r, status = -1;

	d.argc = argc;
	d.argv = argv;
	r = config_load(&d.config, argc, argv, stdout, stderr);
	if (r != 0)
		return r > 0 ? 0 : cannot_start();
	log_init(d.config.log_level);
	if (d.config.keep) {
		status = keep_run(&(struct keep_params){ .argc = argc, .argv = argv, KEEP_PARAMS_DEFAULT });
		config_free(&d.config);
		return status;
	}
	s->config = &d.config;
	s->caps.device = -1;
	s->listen_fd = s->lock_fd = -1;
	s->started = now_ns();
	server_configure(s);

	r = setup_process(&d);
	if (r == 0)
		r = fdstore_init();
	if (r == 0)
		r = proc_fd_init();
	if (r == 0)
		r = process_init();
	if (r < 0) {
		log_error("cannot set up the process: %s", strerror(-r));
		return cannot_start();
	}
	r = uffd_probe(&s->caps, d.config.kernel_faults, &lacking);
	if (r < 0) {
		log_error("this kernel or its configuration lacks %s: %s", lacking, strerror(-r));
		return cannot_start();
	}
	fault_init();
	warm_init(d.config.state_dir);
	if (s->caps.fork_events) {
		r = twin_start(d.config.socket);
		if (r < 0) {
			log_error("cannot make the twin process: %s", strerror(-r));
			return cannot_start();
		}
	}
	listening = fdstore_take_listening(&kept);
	r = server_listen(s, listening, kept);
	if (r < 0) {
		log_error(r == -EADDRINUSE ? "another pagecached serves %s" : "cannot listen on %s: %s", d.config.socket, strerror(-r));
		goto out;
	}
	kill_point("start.listening");
	r = setup_state(&d);
	if (r < 0) {
		log_error("cannot make the state: %s", strerror(-r));
		goto out;
	}
	kill_point("start.state_made");
	say_what_is_missing(s);
	r = window_global_init();
	if (r < 0)
		log_warning("reads always ask the daemon, as their clients could not tell its death: %s", strerror(-r));
	r = ring_init(&s->ring, MAIN_RING_ENTRIES);
	if (r == 0)
		r = offload_start();
	if (r == 0)
		r = start_workers(s);
	if (r < 0) {
		log_error("cannot start the workers: %s", strerror(-r));
		goto out;
	}
	if (!s->state.recovered)
		fdstore_drop_rest(); /* of a daemon whose state is lost: its clients' connections end here, and they come back with what they have */
	server_watch(s);
	watch_signals(&d);
	watch_pressure(&d);
	fdstore_watch_start(&d.fdstore_watch, &s->ring);
	if (watchdog_start(&d.watchdog, &s->ring, s->workers, s->n_workers) < 0)
		log_warning("the watchdog is not fed: out of memory");
	lock_guard_start(&d.lock_guard, &s->ring, &s->state);
	status = run(&d);
	end_conns(s);
	offload_stop(&s->ring);
	if (!d.abandoned)
		lanes_stop(s->lanes, &s->ring);
	for (unsigned i = 0; i < s->n_workers; i++)
		worker_free(&s->workers[i]);
	watchdog_free(&d.watchdog);
	mem_store_forget_all();
	ring_free(&s->ring);
out:
	/* What there is of the daemon before, state and socket, is for the next one to take over. */
	if (status < 0 && (kept || s->state.recovered))
		return cannot_start();
	server_unlisten(s);
	state_close(&s->state);
	cgroup_exit();
	if (s->caps.device >= 0)
		close(s->caps.device);
	free(s->workers);
	for (size_t i = 0; i < s->n_users; i++)
		free(s->users[i]);
	free(s->users);
	free(s->restored);
	budget_free(&s->budget);
	free(s->cgroup_tenant);
	config_free(&d.config);
	twin_stop();
	if (d.abandoned)
		_exit(status);
	return status < 0 ? cannot_start() : status;
}
