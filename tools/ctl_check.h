/* SPDX-License-Identifier: Apache-2.0 */
/* Has the daemon compare its state with what it stands for, step by step (PGC_CTL_CHECK of wire.h), and keeps what differs. */
#pragma once

#include "tools/ctl_conn.h"
#include "tools/ctl_show.h"

struct ctl_difference {
	struct pgc_ctl_check_reply row;
	const char *what;              /* of a count: which; else NULL */
	char name[128];                /* of the file, "": none */
	uint64_t dev, ino;
};

struct ctl_check {
	struct ctl_conn *conn;
	bool content;                  /* clean pages against the store, too */
	uint64_t rate;                 /* bytes of that a second; 0: as fast as it goes */
	bool progress;                 /* on stderr */

	/* What came out. */
	struct ctl_difference *differences;
	size_t n, allocated;
	uint64_t files, pages, content_pages; /* compared */
	uint64_t skipped, busy, unlisted;
};

/* `files`: those that are checked; `all`: they are all that the daemon has, so the tables and counts are checked as well. 0 or a negative errno, also what the daemon answered. */
int ctl_check(struct ctl_check *c, const struct pgc_ctl_file_reply *files, size_t n, bool all);
void ctl_check_free(struct ctl_check *c);

/* One line a difference and one at the end, or JSON. */
int ctl_check_show(const struct ctl_show *s, const struct ctl_check *c);
