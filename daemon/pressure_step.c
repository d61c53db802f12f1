/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps down and up. Invariants: the limit of an episode is at least memory_min and below memory_max; pressure never raises it; it never grows
 * within quiet_ms of a sign of pressure, nor into room that is not there, so that growing does not bring the pressure back; an episode begins and ends once.
 * No thread, no clock, no input or output. May call: util.
 */
#include "daemon/pressure_step.h"

#include "daemon/util/util.h"

/*
 * A shortage that was measured shows at once whether a step was enough, so the next one need not wait when the pages are gone. Signs from the kernel tell of
 * the past (stall times are averaged over seconds), so they wait for hold_ms in any case.
 */
static bool may_step(const struct pressure_state *s, const struct pressure_input *in, const struct pressure_timing *timing)
{
	if (in->now - s->stepped >= timing->hold_ms)
		return true;
	return in->lacking > 0 && in->used <= s->limit;
}

static enum pressure_change step_down(struct pressure_state *s, const struct pressure_input *in, const struct pressure_timing *timing)
{
	uint64_t min = MIN(in->memory_min, in->memory_max), from = MIN(s->limit ? s->limit : in->memory_max, in->used);
	uint64_t to = from - from / 8;
	bool begins = s->limit == 0;

	s->pressed = in->now;
	if (!begins && !may_step(s, in, timing))
		return PRESSURE_NOTHING;
	to = MIN(to, from > in->lacking ? from - in->lacking : 0);
	to = MAX(to, MAX(min, 1));
	if (to >= (begins ? in->memory_max : s->limit))
		return PRESSURE_NOTHING;
	s->limit = to;
	s->stepped = in->now;
	s->lowest = begins ? to : MIN(s->lowest, to);
	if (!begins)
		return PRESSURE_SHRANK;
	s->began = in->now;
	return PRESSURE_BEGAN;
}

static enum pressure_change end(struct pressure_state *s)
{
	s->limit = 0;
	return PRESSURE_ENDED;
}

static enum pressure_change step_up(struct pressure_state *s, const struct pressure_input *in, const struct pressure_timing *timing)
{
	uint64_t to;

	if (in->now - s->pressed < timing->quiet_ms || (s->grown > s->pressed && in->now - s->grown < timing->grow_ms))
		return PRESSURE_NOTHING;
	s->grown = in->now;
	/* However late this is called, a step at a time: what the last one brought has to show first. */
	to = MIN(s->limit + MAX(in->memory_max / 8, 1), in->used + MIN(in->room, in->memory_max));
	if (to >= in->memory_max)
		return end(s);
	if (to <= s->limit)
		return PRESSURE_NOTHING;
	s->limit = to;
	return PRESSURE_GREW;
}

enum pressure_change pressure_step(struct pressure_state *s, const struct pressure_input *in, const struct pressure_timing *timing)
{
	/* memory_max was lowered to less than what pressure asks for, or pressure was switched off. */
	if (s->limit && (!in->enabled || s->limit >= in->memory_max))
		return end(s);
	if (!in->enabled)
		return PRESSURE_NOTHING;
	if (in->lacking > 0 || in->event)
		return step_down(s, in, timing);
	return s->limit ? step_up(s, in, timing) : PRESSURE_NOTHING;
}
