/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches the kernel's signs of memory pressure and the room that is left, and moves the cache's limit by pressure_step().
 *
 * Two kinds of signs. What is measured (memory_room.c) is looked at by a timer, the more often the less room there is, because a cgroup without
 * memory.high kills without a warning. What the kernel tells (PSI triggers, memory.events, version 1's memory.pressure_level) wakes us earlier; it counts
 * only while something is tight: stalls of a cgroup that thrashes at its own limit are seen in the machine's PSI as well, and would not get less by
 * what we give.
 *
 * Invariants:
 * - One log line when an episode begins and one when it ends.
 * - A source that keeps telling is polled again only SOURCE_PAUSE_MS later, so none can keep this thread busy.
 * - After pressure_stop() nothing of ours is on the ring and every descriptor is closed.
 *
 * Main thread. May call: memory_room, pressure_step, ring, log, util.
 */
#include "daemon/pressure.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "daemon/log.h"
#include "daemon/util/util.h"

#define LOOK_IDLE_MS      5000u
#define LOOK_BUSY_MS      1000u
#define LOOK_NEAR_MS      50u        /* at most this often when there is no episode */
#define LOOK_STEP_MS      20u        /* while steps are being made */
#define FILL_BYTES_PER_MS (256u << 10) /* nobody is expected to take more in this time: half of it is how long we may look away */
#define SOURCE_PAUSE_MS   100u
#define MS                1000000ull

/*
 * A stall of 150 ms in 2 s. Windows that are no multiple of 2 s need CAP_SYS_RESOURCE; this one does not.
 */
static const char psi_trigger[] = "some 150000 2000000";

enum pressure_kind {
	KIND_PSI,
	KIND_EVENTS,               /* memory.events of version 2 */
	KIND_LEVEL,                /* an eventfd bound to memory.pressure_level of version 1 */
};
static const char *const kind_name[] = {
	"tasks are waiting for memory (PSI)", "the memory cgroup is at its limit (memory.events)", "the memory cgroup reclaims in vain (memory.pressure_level)",
};

static uint64_t mib(uint64_t pages) { return pages >> (20 - PAGE_SHIFT); }

static void timer_expired(struct ring_timer *t);

/* --- sources --- */

static int open_in(const char *folder, const char *name, int flags)
{
	_cleanup_free_ char *path = NULL;
	int fd;

	if (asprintf(&path, "%s/%s", folder, name) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static bool write_text(int fd, const char *text)
{
	/* With its final zero, as the kernel cuts off the last byte. */
	return write(fd, text, strlen(text) + 1) >= 0;
}

static void source_add(struct pressure *p, enum pressure_kind kind, int fd, short events)
{
	if (p->n_sources == PRESSURE_SOURCES_MAX) {
		close(fd);
		return;
	}
	p->source[p->n_sources++] = (struct pressure_source){ .p = p, .fd = fd, .events = events, .kind = (uint8_t)kind };
}

static void add_psi(struct pressure *p, const char *folder, const char *name)
{
	_cleanup_close_ int fd = open_in(folder, name, O_RDWR);

	if (fd < 0 || !write_text(fd, psi_trigger)) {
		log_debug("without %s/%s: %s", folder, name, strerror(fd < 0 ? -fd : errno));
		return;
	}
	source_add(p, KIND_PSI, take_fd(&fd), POLLPRI);
}

/* The counters are read before the first poll, which otherwise has something to tell at once. */
static void add_events(struct pressure *p, const char *folder)
{
	_cleanup_close_ int fd = open_in(folder, "memory.events", O_RDONLY);
	uint64_t count;

	if (fd < 0 || memory_room_events(fd, &count) < 0)
		return;
	source_add(p, KIND_EVENTS, take_fd(&fd), POLLPRI);
	p->source[p->n_sources - 1].count = count;
}

/* "local": of this cgroup alone, as those above have sources of their own. */
static void add_level(struct pressure *p, const char *folder)
{
	_cleanup_close_ int level = open_in(folder, "memory.pressure_level", O_RDONLY);
	_cleanup_close_ int control = open_in(folder, "cgroup.event_control", O_WRONLY);
	_cleanup_close_ int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	char text[64];

	if (level < 0 || control < 0 || event < 0)
		return;
	(void)snprintf(text, sizeof(text), "%d %d medium,local", event, level);
	if (!write_text(control, text)) {
		log_debug("without memory.pressure_level of %s: %m", folder);
		return;
	}
	source_add(p, KIND_LEVEL, take_fd(&event), POLLIN);
}

static void add_sources(struct pressure *p)
{
	add_psi(p, p->params.proc, "pressure/memory");
	if (!p->params.v1 && p->room.n_levels > 0)
		add_psi(p, p->room.level[0].folder, "memory.pressure");
	for (unsigned i = 0; i < p->room.n_levels; i++) {
		if (p->params.v1)
			add_level(p, p->room.level[i].folder);
		else
			add_events(p, p->room.level[i].folder);
	}
}

/* Whether what woke us says that there is pressure. */
static bool source_tells(struct pressure_source *s, int revents)
{
	uint64_t count;

	switch (s->kind) {
	case KIND_PSI:
		/* With POLLERR: the cgroup is gone, and so will each poll say from now on. */
		s->gone = revents & POLLERR;
		return !s->gone;
	case KIND_LEVEL:
		return read(s->fd, &count, sizeof(count)) == sizeof(count);
	default:
		/* Other counters than ours change in that file, too. */
		if (memory_room_events(s->fd, &count) < 0) {
			s->gone = true;
			return false;
		}
		if (count == s->count)
			return false;
		s->count = count;
		return true;
	}
}

static void look_at_once(struct pressure *p)
{
	if (p->waking || !p->timer.armed)
		return;
	p->waking = true;
	ring_cancel(p->params.ring, &p->timer.op);
}

static void source_ready(struct ring_op *op, int res, uint32_t cflags)
{
	struct pressure_source *s = container_of(op, struct pressure_source, op);

	s->polled = false;
	s->told = now_ns() / MS;
	if (s->p->stopping)
		return;
	if (res < 0) {
		s->gone = true;
	} else if (source_tells(s, res)) {
		s->p->event = kind_name[s->kind];
		look_at_once(s->p);
	}
}

static void poll_sources(struct pressure *p, uint64_t now_ms)
{
	for (unsigned i = 0; i < p->n_sources; i++) {
		struct pressure_source *s = &p->source[i];

		if (s->polled || s->gone || (s->told && now_ms - s->told < SOURCE_PAUSE_MS))
			continue;
		s->polled = true;
		s->op.done = source_ready;
		io_uring_prep_poll_add(ring_sqe(p->params.ring, &s->op), s->fd, (unsigned)s->events);
	}
}

/* A source that waits for its pause to end needs a look then. */
static bool source_pauses(const struct pressure *p)
{
	for (unsigned i = 0; i < p->n_sources; i++)
		if (!p->source[i].polled && !p->source[i].gone)
			return true;
	return false;
}

/* --- looking --- */

static void say(const struct pressure *p, enum pressure_change change, const struct pressure_input *in, const char *cause)
{
	const struct pressure_state *s = &p->state;

	if (change == PRESSURE_BEGAN)
		log_notice("memory pressure: %s; the cache, of %" PRIu64 " MiB now, is to hold at most %" PRIu64 " of its %" PRIu64 " MiB", cause,
			   mib(in->used), mib(s->limit), mib(in->memory_max));
	else if (change == PRESSURE_ENDED)
		log_notice("memory pressure is over: the cache may hold %" PRIu64 " MiB again; it was limited for %" PRIu64 ".%" PRIu64 " s, at the lowest to %"
			   PRIu64 " MiB", mib(in->memory_max), (in->now - s->began) / 1000, (in->now - s->began) / 100 % 10, mib(s->lowest));
	else
		log_debug("memory pressure: the limit is %" PRIu64 " KiB now (%s)", s->limit * (PAGE_SIZE_ / 1024),
			  change == PRESSURE_SHRANK ? cause : "it grows");
}

static uint64_t next_look(const struct pressure *p, const struct room_reading *r, const struct pressure_input *in)
{
	const struct pressure_state *s = &p->state;
	bool steps = s->limit && in->now - s->pressed < 2 * p->params.timing.hold_ms;
	bool busy = s->limit || in->used != p->used_before;
	uint64_t ms = r->to_mark / FILL_BYTES_PER_MS / 2, most = busy ? LOOK_BUSY_MS : LOOK_IDLE_MS;

	/* Nothing left to give: then there is nothing to hurry for, either. */
	if (!in->enabled || MIN(in->used, s->limit ? s->limit : in->used) <= in->memory_min)
		ms = most;
	ms = MIN(MAX(ms, steps ? LOOK_STEP_MS : LOOK_NEAR_MS), most);
	return source_pauses(p) ? MIN(ms, SOURCE_PAUSE_MS) : ms;
}

uint64_t pressure_look(struct pressure *p, uint64_t now_ms)
{
	const struct pressure_params *a = &p->params;
	enum pressure_change change;
	struct room_reading r;
	struct pressure_input in;
	uint64_t ms;

	memory_room_read(&p->room, &r);
	in = (struct pressure_input){
		.now = now_ms, .used = a->used(a->arg), .memory_max = a->memory_max(a->arg), .memory_min = a->memory_min(a->arg),
		.lacking = page_up(r.lacking), .room = page_down(r.room), .event = p->event && r.tight, .enabled = a->enabled(a->arg),
	};
	change = pressure_step(&p->state, &in, &a->timing);
	if (change != PRESSURE_NOTHING) {
		say(p, change, &in, r.lacking ? r.cause : p->event ? p->event : "");
	}
	/* Said again while it is not reached: who sees to it may have had to wait for dirty pages, and does not look by itself. */
	if (change != PRESSURE_NOTHING || (p->state.limit && in.used > p->state.limit))
		a->set_limit(a->arg, p->state.limit);
	p->event = NULL;
	ms = next_look(p, &r, &in);
	p->used_before = in.used;
	return ms;
}

static void timer_expired(struct ring_timer *t)
{
	struct pressure *p = container_of(t, struct pressure, timer);
	uint64_t now = now_ns() / MS, ms;

	p->waking = false;
	if (p->stopping)
		return;
	poll_sources(p, now);
	ms = pressure_look(p, now);
	ring_timer_arm(p->params.ring, &p->timer, ms * MS);
}

/* --- start and stop --- */

int pressure_start(struct pressure *p, const struct pressure_params *params)
{
	int r;

	*p = (struct pressure){ .params = *params };
	r = memory_room_open(&p->room, params->proc, params->mount_point, params->cgroup, params->v1);
	if (r < 0)
		return r;
	p->params.proc = p->room.proc;
	p->params.mount_point = p->params.cgroup = NULL;
	add_sources(p);
	ring_timer_init(&p->timer, timer_expired);
	p->timer.cancelled = timer_expired;
	timer_expired(&p->timer);
	return 0;
}

static bool under_way(const struct pressure *p)
{
	for (unsigned i = 0; i < p->n_sources; i++)
		if (p->source[i].polled)
			return true;
	return p->timer.armed;
}

void pressure_stop(struct pressure *p)
{
	if (!p->room.proc)
		return;
	p->stopping = true;
	for (unsigned i = 0; i < p->n_sources; i++)
		if (p->source[i].polled)
			ring_cancel(p->params.ring, &p->source[i].op);
	if (p->timer.armed && !p->waking)
		ring_cancel(p->params.ring, &p->timer.op);
	while (under_way(p) && ring_run(p->params.ring, true, 256) >= 0)
		continue;
	for (unsigned i = 0; i < p->n_sources; i++)
		close(p->source[i].fd);
	p->n_sources = 0;
	memory_room_close(&p->room);
}
