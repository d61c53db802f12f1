/* SPDX-License-Identifier: Apache-2.0 */
/* See space_save.h. May call space, kept, saved. */
#include "daemon/space_save.h"

#include <string.h>

#include "daemon/kept.h"
#include "daemon/kill_point.h"
#include "daemon/process.h"
#include "daemon/saved.h"

static struct pgc_saved_handle *record(struct space *s, uint32_t slot) { return &s->worker->state->saved_handles[slot]; }

int space_save_new(struct space *s, uint32_t flags, uid_t uid, uint64_t parent)
{
	struct worker *w = s->worker;
	int64_t slot = slot_pool_take(&w->handle_slots);

	s->id = ++w->next_handle;
	if (slot < 0)
		return !fdstore_active() ? 0 : list_empty(&w->removals) ? -ENFILE : -EAGAIN; /* one may be on its way back */
	s->saved_slot = (uint32_t)slot;
	s->saved = record(s, s->saved_slot);
	*s->saved = (struct pgc_saved_handle){
		.id = s->id, .parent = parent, .pid = s->pid, .start_time = s->start_time, .uid = uid, .flags = flags, .errseq = s->file->errseq,
		.track_row = s->tracker.row, .window_addr = s->window_start, .window_len = s->window_end - s->window_start,
	};
	return 0;
}

void space_save_adopt(struct space *s, uint32_t slot)
{
	s->saved_slot = slot;
	s->saved = record(s, slot);
	s->id = s->saved->id;
	s->saved->track_row = s->tracker.row;
	s->kept = true;
	(void)space_set_window(s, s->saved->window_addr, s->saved->window_len);
}

static char kind(const struct space *s) { return s->has_handle ? 'h' : 'c'; }

int space_keep(struct space *s, int sock)
{
	char name[FDSTORE_NAME_MAX];
	int r;

	if (!s->saved)
		return 0;
	if (!s->kept) {
		r = kept_add(s->worker, fdstore_name(name, kind(s), s->saved_slot), (int[]){ s->uffd, sock }, sock >= 0 ? 2 : 1);
		if (r < 0)
			return r;
		s->kept = true;
	}
	kill_point("handle.kept");
	saved_seal_handle(s->saved, s->file->slot);
	s->worker->changes++;
	return 0;
}

void space_save_end(struct space *s)
{
	struct worker *w = s->worker;
	char name[FDSTORE_NAME_MAX];

	if (!s->saved)
		return;
	saved_clear(s->saved);
	w->changes++;
	s->saved = NULL;
	if (s->kept)
		kept_remove(w, fdstore_name(name, kind(s), s->saved_slot), s->has_handle ? 2 : 1, &w->handle_slots, s->saved_slot);
	else
		slot_pool_give(&w->handle_slots, s->saved_slot);
	s->kept = false;
}

static bool changes_something(uint32_t type)
{
	return type == PGC_MSG_WRITE || type == PGC_MSG_TRUNCATE || type == PGC_MSG_FALLOCATE || type == PGC_MSG_SYNC;
}

void space_save_done(struct space *s, const struct pgc_msg *request, const struct pgc_msg *reply)
{
	struct pgc_saved_done *d;

	if (!s->saved || !changes_something(request->type))
		return;
	d = &s->saved->done;
	d->tag = 0;
	crash_order();
	d->type = request->type;
	d->status = reply->status;
	d->len = reply->write_reply.len;
	d->off = reply->write_reply.off;
	d->size = reply->write_reply.size;
	crash_order();
	d->tag = request->tag;
	crash_order();
}

bool space_was_done(const struct space *s, const struct pgc_msg *request, struct pgc_msg *reply)
{
	const struct pgc_saved_done *d = s->saved ? &s->saved->done : NULL;

	if (!d || d->tag == 0 || d->tag != request->tag || d->type != request->type)
		return false;
	reply->status = d->status;
	if (d->type != PGC_MSG_SYNC)
		reply->write_reply = (struct pgc_write_reply){ .len = d->len, .off = d->off, .size = d->size };
	return true;
}

void space_save_process(struct space *s)
{
	struct pgc_saved_handle *r = s->saved;

	if (!r || r->pid > 0)
		return;
	r->start_time = s->start_time = process_start(s->pid);
	crash_order();
	r->pid = s->pid;
}

void space_save_errseq(struct space *s, uint32_t errseq)
{
	if (s->saved)
		s->saved->errseq = errseq;
}

void space_save_answered(struct space *s)
{
	if (s->saved)
		s->saved->flags |= PGC_SAVED_ANSWERED;
}

void space_save_closing(struct space *s)
{
	if (s->saved)
		s->saved->flags |= PGC_SAVED_CLOSING;
}
