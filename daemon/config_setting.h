/* SPDX-License-Identifier: Apache-2.0 */
/* The table of the settings of section [daemon], each of which is a flag as well. For config. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/config.h"

enum setting_type {
	SETTING_PATH,      /* char * */
	SETTING_SOCKET,    /* char *: a path that fits a socket's address */
	SETTING_PINS,      /* char *: a path, or "none", kept as "" */
	SETTING_PATTERNS,  /* char *: patterns separated by ":"; each value adds to those before, "none" forgets them */
	SETTING_SIZE,      /* uint64_t, bytes */
	SETTING_SHARE,     /* uint64_t, bytes; may be a share of RAM, and is no more than that */
	SETTING_AMOUNT,    /* struct config_amount, of memory_max; min in bytes, max in percent */
	SETTING_PERCENT,   /* unsigned */
	SETTING_DURATION,  /* uint64_t, milliseconds */
	SETTING_COUNT,     /* uint32_t; with `words` also "auto": CONFIG_AUTO */
	SETTING_MODE,      /* mode_t, octal */
	SETTING_BOOL,      /* bool */
	SETTING_LEVEL,     /* int */
	SETTING_WORD,      /* an enum whose words are in `words` */
};

struct setting {
	const char *name;          /* the key; as a flag with - for _ */
	enum setting_type type;
	size_t offset;             /* in struct config */
	uint64_t min, max;         /* in the unit that is stored */
	const char *initial;       /* the default as a user would write it; NULL: found out by set_computed_defaults() */
	const char *initial_note;  /* how --help puts it, if not as `initial` */
	const char *argument;      /* what --help calls the value */
	const char *help;
	bool running;              /* may change while the daemon runs */
	const char *const *words;
};

#define CONFIG_SETTINGS 30
extern const struct setting config_settings[CONFIG_SETTINGS];

/* NULL: there is none of that name. */
const struct setting *config_setting_find(const char *name);
/*
 * Stores a value as a user writes it. -EINVAL: what is wrong and what is allowed is in `message` (CONFIG_MESSAGE_MAX
 * bytes); -ENOMEM, likewise. `relative_ok`: a path need not start with /.
 */
int config_setting_store(struct config *c, const struct setting *s, const char *value, bool relative_ok, char *message);
/*
 * What settings must be to each other. -EINVAL: what is wrong is in `message`, and which settings contradict each
 * other.
 */
int config_check_together(const struct config *c, const struct setting **ret_more, const struct setting **ret_less, char *message);
