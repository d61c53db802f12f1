/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of settings as text, for config and config_rules; sizes, amounts and durations are in config.h. Fallible
 * ones return -EINVAL or -ERANGE.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config_amount;

int config_parse_number(const char *s, int base, uint64_t *ret);
/* yes, on, true, 1 and their opposites. */
int config_parse_bool(const char *s, bool *ret);
/* "10%", or "0". */
int config_parse_percent(const char *s, unsigned *ret);
/* Index in `words`, which end with NULL. */
int config_parse_word(const char *s, const char *const *words);
extern const char *const config_retain_words[];
extern const char *const config_auto_words[]; /* of a number that may be left to us */
extern const char *const config_tracking_words[]; /* as enum retain */
extern const char *const config_policy_words[]; /* as enum policy_kind */

/* With the largest of K, M, G, T that divides `v`. */
void config_format_size(char *buf, size_t size, uint64_t v);
void config_format_amount(char *buf, size_t size, const struct config_amount *a);

/* Bytes of RAM of this machine, 0: not known. */
uint64_t config_ram_size(void);
