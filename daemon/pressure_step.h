/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far the cache gives way, as arithmetic alone: what was measured and the time go in, the limit comes out. Units are pages and milliseconds.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct pressure_timing {
	uint64_t hold_ms;          /* a step is given this long to show its effect */
	uint64_t quiet_ms;         /* without pressure this long, the limit begins to grow */
	uint64_t grow_ms;          /* and grows by an eighth of memory_max each of these */
};
#define PRESSURE_TIMING_DEFAULT { .hold_ms = 500, .quiet_ms = 10000, .grow_ms = 1000 }

/* All zeros: no episode. An episode goes from the first step down to the return to memory_max. */
struct pressure_state {
	uint64_t limit;            /* 0: no episode */
	uint64_t lowest;           /* that `limit` was in this episode */
	uint64_t began, pressed, stepped, grown; /* times: its start, the last sign of pressure, the last step down and up */
};

struct pressure_input {
	uint64_t now;
	uint64_t used, memory_max, memory_min;
	uint64_t lacking;          /* pages that somebody has to give up, measured */
	uint64_t room;             /* pages that are free beyond the mark at which growth ends */
	bool     event;            /* the kernel says that there is pressure, but not how much is lacking */
	bool     enabled;
};

enum pressure_change {
	PRESSURE_NOTHING,
	PRESSURE_BEGAN,            /* an episode, with its first step */
	PRESSURE_SHRANK,
	PRESSURE_GREW,
	PRESSURE_ENDED,            /* the limit is 0: memory_max again */
};

/* Moves `s` on. Any change but PRESSURE_NOTHING makes s->limit the new limit. */
enum pressure_change pressure_step(struct pressure_state *s, const struct pressure_input *in, const struct pressure_timing *timing);
