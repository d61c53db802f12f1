/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the next daemon has to know of a handle or a forked child: its record in `saved_handles`, and its descriptors, which are kept. Runs on the file's worker.
 */
#pragma once

#include "daemon/space.h"

/* Gives it a name and a record, not in use yet. -ENFILE: there is none left, and somebody keeps descriptors. */
int space_save_new(struct space *s, uint32_t flags, uid_t uid, uint64_t parent);
/* The record of a daemon that is gone is this one's. */
void space_save_adopt(struct space *s, uint32_t slot);
/* Has its descriptors kept (`sock` -1: a child) and puts the record into use. -EAGAIN: once more a little later; -ENFILE. */
int space_keep(struct space *s, int sock);
/* It ends. */
void space_save_end(struct space *s);

/* A request that changed something was carried out: written down before its reply is sent. */
void space_save_done(struct space *s, const struct pgc_msg *request, const struct pgc_msg *reply);
/* Was this one? Then what was to be answered is in *reply. */
bool space_was_done(const struct space *s, const struct pgc_msg *request, struct pgc_msg *reply);
/* Which process a child is has shown: s->pid. */
void space_save_process(struct space *s);
void space_save_errseq(struct space *s, uint32_t errseq);
/* The client has the handle. */
void space_save_answered(struct space *s);
void space_save_closing(struct space *s);
