/* SPDX-License-Identifier: Apache-2.0 */
/* What pagecachectl prints: tables for people, JSON for programs. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "pagecached/wire.h"

struct ctl_show {
	bool json;
	bool bytes;                    /* sizes as plain numbers of bytes */
};

/* All return 0, or -ENOMEM. They write to stdout, whose errors are left for the caller's fflush(). */
int ctl_show_status(const struct ctl_show *s, const struct pgc_ctl_status_reply *st);
int ctl_show_files(const struct ctl_show *s, const struct pgc_ctl_file_reply *files, size_t n);
int ctl_show_mappings(const struct ctl_show *s, const struct pgc_ctl_mapping_reply *mappings, size_t n);
/* `verb`: "wrote", "dropped". */
int ctl_show_count(const struct ctl_show *s, const char *verb, const struct pgc_ctl_count_reply *count);
/* `daemon` NULL: none answers. */
int ctl_show_version(const struct ctl_show *s, const char *daemon);

/* "0", "4K", "1.5G": powers of 1024, three digits at most. */
void ctl_format_size(char *ret, size_t n, uint64_t bytes);
/* "0.5 s", "12 s", "3 min 04 s", "2 h 05 min", "4 d 03 h". */
void ctl_format_duration(char *ret, size_t n, uint64_t ms);
