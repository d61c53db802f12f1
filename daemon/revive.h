/* SPDX-License-Identifier: Apache-2.0 */
/* Files of a daemon that is gone, piece by piece, for restore.c and attach.c: see revive.c for the order. Runs on the file's worker. */
#pragma once

#include "daemon/space.h"

/*
 * What a take-over cannot do without is not to be had: memory, descriptors. All that it has is still there, and the next daemon may have more luck: this one dies, as
 * by kill -9. What is short for a moment is tried some times before.
 */
#define REVIVE_TRIES 5u
bool revive_may_pass(int error);
void revive_die(const char *name, const char *what, int error) __attribute__((noreturn));
/* Memory, zeroed. */
void *revive_alloc(size_t size);

/* Gives up what is left of the record in that slot, which is no struct file (yet). `why`: for the log, NULL: nothing to be said. */
void revive_forget_file(struct worker *w, uint32_t slot, const char *why);
/* Opens the store with these descriptors, those without O_DIRECT first, which are taken in any case. Without any there is none. */
int revive_store(struct file *f, int *fds, unsigned n);

/* Where the memfd has data: the run that was asked for last. */
struct revive_run { struct file *file; uint64_t start, end; };
/* The block in that slot, which is of a file that is there. */
void revive_block(struct worker *w, uint32_t slot, struct revive_run *run);
/* When all of them are there: whether writes to the store have to wait for what a dead daemon had asked of it. */
void revive_hold(struct file *f);
void revive_forget_block(struct worker *w, uint32_t slot);

/* From here on its faults are collected, and nothing of the file becomes clean, until it is known what it has mapped. */
void revive_space(struct space *s);
/* Asks for that; s->revived is called when it is known and all are awake. The file is ready. */
void revive_ask(struct space *s);
/* All blocks and spaces are there: goes through the other steps. */
void revive_file(struct file *f);
