/* SPDX-License-Identifier: Apache-2.0 */
/* What pagecachectl prints: tables for people, JSON for programs. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "pagecached/wire.h"
#include "tools/ctl_cgroup.h"

struct ctl_warmed {
	const char *file;
	uint64_t bytes, ms;
};

struct ctl_show {
	bool json;
	bool bytes;                    /* sizes as plain numbers of bytes */
};

/* All return 0, or -ENOMEM. They write to stdout, whose errors are left for the caller's fflush(). */
int ctl_show_status(const struct ctl_show *s, const struct pgc_ctl_status_reply *st, const struct pgc_ctl_memory_reply *m);
int ctl_show_memory(const struct ctl_show *s, const struct pgc_ctl_memory_reply *m);
int ctl_show_files(const struct ctl_show *s, const struct pgc_ctl_file_reply *files, size_t n);
int ctl_show_mappings(const struct ctl_show *s, const struct pgc_ctl_mapping_reply *mappings, size_t n);
int ctl_show_pins(const struct ctl_show *s, const struct pgc_ctl_pin_reply *pins, size_t n);
/* `found`: the cgroups among them, in their order, with their paths. */
int ctl_show_cgroups(const struct ctl_show *s, const struct pgc_ctl_cgroup_reply *cgroups, size_t n,
		     const struct ctl_cgroup *found, size_t n_found);
/* JSON: people have seen it already. */
int ctl_show_warmed(const struct ctl_warmed *warmed, size_t n);
/* `verb`: "wrote", "dropped". */
int ctl_show_count(const struct ctl_show *s, const char *verb, const struct pgc_ctl_count_reply *count);
/* `daemon` NULL: none answers. */
int ctl_show_version(const struct ctl_show *s, const char *daemon);

/* A string of JSON; what is not UTF-8 is replaced. NULL: no memory. */
struct json_object *ctl_json_name(const char *name);

/* "0", "4K", "1.5G": powers of 1024, three digits at most. */
void ctl_format_size(char *ret, size_t n, uint64_t bytes);
/* "0.5 s", "12 s", "3 min 04 s", "2 h 05 min", "4 d 03 h". */
void ctl_format_duration(char *ret, size_t n, uint64_t ms);
