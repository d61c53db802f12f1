/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comparing the state with what it stands for: the memfd's pages, the page tables and mappings of clients, the store, and the tables with each other.
 * PGC_CTL_CHECK of wire.h says what a step compares; each is bounded, and holds nobody up. Runs on the worker but for what is marked.
 *
 * What is compared is of one moment, or it is looked at once more: nothing that is only under way is reported.
 */
#pragma once

#include "daemon/space.h"

#define CHECK_ROWS_MAX 2048u         /* of one step */
#define CHECK_TRIES    8u            /* looks at something that changes meanwhile */
#define CHECK_RUNNING_MAX 4u         /* steps of one worker that wait for something */

struct check {
	struct worker *worker;
	struct pgc_ctl_check request;
	void (*done)(struct check *c);     /* may free it */

	/* The answer. */
	int error;
	struct pgc_ctl_check_reply *rows;  /* to be freed */
	size_t n_rows, allocated;
	struct pgc_ctl_check_reply end;
};

/* Begins the step. done() is called in here, or later. */
void check_start(struct check *c);

/* --- for the steps --- */

void check_row(struct check *c, const struct pgc_ctl_check_reply *row);
/* Pages [first, first + n), or whatever start and end are. */
void check_differs(struct check *c, enum pgc_check_kind kind, const struct file *f, uint64_t start, uint64_t end, uint64_t found, uint64_t expected);
/* Adds to the row of `kind` for `file` and `start`, which is made if need be. */
void check_count(struct check *c, enum pgc_check_kind kind, uint32_t file, uint64_t start, const uint64_t count[4]);
/* A step that waits holds its file; the end of it. */
void check_hold(struct check *c, struct file *f);
void check_release(struct check *c, struct file *f);

/* Each calls c->done() in the end. */
void check_pages(struct check *c, struct file *f);
void check_file(struct check *c, struct file *f);
void check_content(struct check *c, struct file *f);
/* At once, without done(). */
void check_tables(struct check *c);
