/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the next daemon has to know of a file beside its row in `files` and its blocks: its record in `saved_files` follows it, store by store, so that it is
 * right at any instruction. Runs on the file's worker.
 */
#pragma once

#include "daemon/file.h"

/* Puts the record into use: what it names is kept by now. */
void file_save(struct file *f);
/* Takes it out of use. */
void file_save_end(struct file *f);

/* The store is closed, or about to be: so are what copies of its descriptors are kept. */
void file_save_no_store(struct file *f);

void file_save_version(struct file *f);
void file_save_times(struct file *f);
void file_save_errors(struct file *f);
/* `kept` and `pins`, or ranges that cover them. */
void file_save_ranges(struct file *f);
void file_save_poisoned(struct file *f, uint64_t page);

/* A change begins: before its first step, and once more where `off` is known only later. */
void file_save_op(struct file *f, unsigned kind, int mode, uint64_t handle, uint64_t tag, uint64_t off, uint64_t len);
void file_save_op_end(struct file *f);
/* Whether our writes to the store wait, until those of a dead daemon are over. */
void file_hold_writes(struct file *f, bool hold);

/* The other way: everything but the blocks and the store. */
int file_load(struct file *f);
