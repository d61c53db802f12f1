/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder of warm records: one file for each cached file, named after its identity. Everything here may block: one thread at a
 * time (the offload thread of key 0). A folder that cannot be made, read or written costs one log line, until it works again, and the records.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/warm_record.h"

#define WARM_DIR_RECORDS 4096u
#define WARM_DIR_BYTES   (64ull << 20)

struct warm_dir {
	const char *path;          /* lives as long as this */
	uint64_t max_records, max_bytes;

	bool counted;              /* the numbers below are right, if nobody else puts records there */
	uint64_t records, bytes;
	bool failed;               /* and this was said */
};

/* Touches nothing: the folder is made by the first record, 0700, with the parents that are missing. */
void warm_dir_init(struct warm_dir *d, const char *path);
/*
 * Replaces the file's record at once or not at all. When there are more than max_records or max_bytes then, the oldest go, an eighth of what is allowed in one
 * go. Returns 0 or a negative errno, which was logged if it is news.
 */
int warm_dir_write(struct warm_dir *d, const struct warm_record *r);
/*
 * The record of the file that `now` describes (all but its runs). -ENOENT: there is none. -EBADMSG: there was one, but it is broken
 * or of another state of the file: it was removed and that was logged. Other errors were logged if they are news. `ret` is to be freed after 0 only.
 */
int warm_dir_read(struct warm_dir *d, const struct warm_record *now, struct warm_record *ret);
