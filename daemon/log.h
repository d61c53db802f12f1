/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: lines on stderr, or journal entries with the fields PGC_FILE and PGC_CLIENT when stderr is the journal
 * (JOURNAL_STREAM). Thread-safe. Never formats when the level is off.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_NOTICE = 5, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 }; /* as syslog(3) */

extern int log_max_level;      /* set before threads start, or by reload (relaxed atomic) */

void log_init(int max_level);
int log_level_from_string(const char *s, int *ret);   /* error, warning, notice, info, debug */

/* `file` (a file's name) and `client` (its pid) may be NULL and 0. errno goes into the text with %m; it is left as it was. */
void log_full(int level, const char *file, pid_t client, const char *format, ...) __attribute__((format(printf, 4, 5)));

#define log_at(level, file, client, ...) \
	do { if ((level) <= __atomic_load_n(&log_max_level, __ATOMIC_RELAXED)) log_full(level, file, client, __VA_ARGS__); } while (0)
#define log_error(...)   log_at(LOG_LEVEL_ERROR, NULL, 0, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, NULL, 0, __VA_ARGS__)
#define log_notice(...)  log_at(LOG_LEVEL_NOTICE, NULL, 0, __VA_ARGS__)
#define log_info(...)    log_at(LOG_LEVEL_INFO, NULL, 0, __VA_ARGS__)
#define log_debug(...)   log_at(LOG_LEVEL_DEBUG, NULL, 0, __VA_ARGS__)
