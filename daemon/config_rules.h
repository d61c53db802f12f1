/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sections of the configuration that are rules: [limit ...], [file ...], [store ...]; and where in a file one is while
 * it is read. For config.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "daemon/config.h"

#define CONFIG_MESSAGE_MAX 512
#define CONFIG_READAHEAD_LIMIT (1ull << 30)

#define CONFIG_SECTION "daemon"
#define CONFIG_SECTIONS "[daemon], [limit uid=USER], [limit cgroup=/PATH], [file PATTERN], [store NAME]"

enum config_section {
	CONFIG_SECTION_NONE,       /* before any */
	CONFIG_SECTION_DAEMON,
	CONFIG_SECTION_LIMIT,
	CONFIG_SECTION_FILE,
	CONFIG_SECTION_STORE,
};

/* Where a file is being read. All zeros at its beginning. */
struct config_place {
	enum config_section section;
	size_t rule;               /* in the array of that section */
	unsigned line;             /* of the section */
	unsigned seen[5];          /* line of each key in this section, as in the table of keys */
	unsigned limit_line[CONFIG_LIMITS_MAX]; /* where in this file; 0: not there */
	unsigned store_line[2];
	size_t first_pattern;      /* of this file, once has_patterns */
	bool has_patterns;
};

/*
 * A section begins on `line`: what stands between the brackets, without blanks around it. -EINVAL with the reason and
 * what is allowed in `message` (CONFIG_MESSAGE_MAX bytes), -ENOMEM.
 */
int config_rules_begin(struct config *c, struct config_place *p, const char *section, unsigned line, char *message);
/* A key of the section, which is neither [daemon] nor none. Likewise. */
int config_rules_key(struct config *c, struct config_place *p, const char *key, const char *value, unsigned line, char *message);
/* The section ends: is all there that it needs? Likewise; the message is about the line p->line. */
int config_rules_end(struct config *c, const struct config_place *p, char *message);
void config_rules_free(struct config *c);
