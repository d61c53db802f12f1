/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the values of settings look like: text to numbers and back. Strict: no sign, no fraction, no space but before
 * the unit of a time, nothing behind the unit. Any thread. May call util.
 */
#include "daemon/config_value.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/util/util.h"

const char *const config_auto_words[] = { "auto", NULL };
const char *const config_tracking_words[] = { [TRACKING_SYNC] = "sync", [TRACKING_ASYNC] = "async", NULL };
const char *const config_retain_words[] = { [RETAIN_LRU] = "lru", [RETAIN_MAPPED] = "mapped", NULL };
const char *const config_policy_words[] = { [POLICY_ADAPTIVE] = "adaptive", [POLICY_FIFO] = "fifo", [POLICY_LRU] = "lru", NULL };

/* Digits only: no sign, no space, no other base. */
static int parse_digits(const char *s, int base, uint64_t *ret, const char **ret_end)
{
	unsigned long long v;
	char *end;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	errno = 0;
	v = strtoull(s, &end, base);
	if (errno == ERANGE)
		return -ERANGE;
	*ret = v;
	*ret_end = end;
	return 0;
}

static int multiply(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t v;

	if (__builtin_mul_overflow(a, b, &v))
		return -ERANGE;
	*ret = v;
	return 0;
}

int config_parse_size(const char *s, uint64_t whole, uint64_t *ret)
{
	static const char suffixes[] = "KMGT";
	const char *end, *suffix;
	uint64_t v;
	int r = parse_digits(s, 10, &v, &end);

	if (r < 0)
		return r;
	if (*end == '\0') {
		*ret = v;
		return 0;
	}
	if (end[1] != '\0')
		return -EINVAL;
	if (*end == '%') {
		if (whole == 0)
			return -EINVAL;
		if (v > 100)
			return -ERANGE;
		*ret = whole / 100 * v + whole % 100 * v / 100;
		return 0;
	}
	suffix = strchr(suffixes, toupper((unsigned char)*end));
	return suffix ? multiply(v, 1ull << (10 * (suffix - suffixes + 1)), ret) : -EINVAL;
}

int config_parse_amount(const char *s, struct config_amount *ret)
{
	size_t n = strlen(s);
	const char *end;
	uint64_t v;
	int r;

	if (n == 0 || s[n - 1] != '%') {
		r = config_parse_size(s, 0, &v);
		if (r == 0)
			*ret = (struct config_amount){ .bytes = v };
		return r;
	}
	r = parse_digits(s, 10, &v, &end);
	if (r < 0)
		return r;
	if (end != s + n - 1)
		return -EINVAL;
	if (v > 100)
		return -ERANGE;
	/* A share of nothing is no bytes. */
	*ret = (struct config_amount){ .percent = (unsigned)v };
	return 0;
}

int config_parse_percent(const char *s, unsigned *ret)
{
	struct config_amount a;
	int r = config_parse_amount(s, &a);

	if (r < 0)
		return r;
	if (a.bytes)
		return -EINVAL;
	*ret = a.percent;
	return 0;
}

int config_parse_duration(const char *s, uint64_t *ret_ms)
{
	static const struct { const char *unit; uint64_t ms; } units[] = { { "", 1000 }, { "s", 1000 }, { "ms", 1 }, { "min", 60000 } };
	const char *end;
	uint64_t v;
	int r = parse_digits(s, 10, &v, &end);

	if (r < 0)
		return r;
	while (*end == ' ')
		end++;
	for (size_t i = 0; i < ELEMENTSOF(units); i++)
		if (strcmp(end, units[i].unit) == 0)
			return multiply(v, units[i].ms, ret_ms);
	return -EINVAL;
}

int config_parse_number(const char *s, int base, uint64_t *ret)
{
	const char *end;
	uint64_t v;
	int r = parse_digits(s, base, &v, &end);

	if (r < 0)
		return r;
	if (*end != '\0')
		return -EINVAL;
	*ret = v;
	return 0;
}

int config_parse_bool(const char *s, bool *ret)
{
	static const char *const words[][2] = { { "no", "yes" }, { "off", "on" }, { "false", "true" }, { "0", "1" } };

	for (size_t i = 0; i < ELEMENTSOF(words); i++)
		for (unsigned v = 0; v < 2; v++)
			if (strcasecmp(s, words[i][v]) == 0) {
				*ret = v != 0;
				return 0;
			}
	return -EINVAL;
}

int config_parse_word(const char *s, const char *const *words)
{
	for (int i = 0; words[i]; i++)
		if (strcmp(s, words[i]) == 0)
			return i;
	return -EINVAL;
}

uint64_t config_ram_size(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

	return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

void config_format_size(char *buf, size_t size, uint64_t v)
{
	static const char suffixes[] = "KMGT";
	unsigned n = 0;

	while (n < 4 && v && v % 1024 == 0) {
		v /= 1024;
		n++;
	}
	snprintf(buf, size, "%llu%.1s", (unsigned long long)v, n ? suffixes + n - 1 : "");
}

void config_format_amount(char *buf, size_t size, const struct config_amount *a)
{
	if (a->percent)
		snprintf(buf, size, "%u%%", a->percent);
	else
		config_format_size(buf, size, a->bytes);
}
