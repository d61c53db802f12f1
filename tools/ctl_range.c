// SPDX-License-Identifier: Apache-2.0
/* Ranges of a file on the command line: strict, so that a slip does not pin something else. */
#include "tools/ctl_range.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A number at the start of `s`. */
static int parse_size(const char *s, uint64_t *ret, const char **ret_end)
{
	static const char suffixes[] = "KMGT";
	const char *suffix;
	unsigned long long v;
	char *end;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno == ERANGE)
		return -ERANGE;
	suffix = *end ? strchr(suffixes, toupper((unsigned char)*end)) : NULL;
	if (suffix) {
		if (__builtin_mul_overflow(v, 1ull << (10 * (suffix - suffixes + 1)), &v))
			return -ERANGE;
		end++;
	}
	*ret = v;
	*ret_end = end;
	return 0;
}

int ctl_parse_size(const char *s, uint64_t *ret)
{
	const char *end;
	uint64_t v;
	int r = parse_size(s, &v, &end);

	if (r == 0 && *end)
		r = -EINVAL;
	if (r == 0)
		*ret = v;
	return r;
}

int ctl_parse_range(const char *s, uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t off, v;
	int r = parse_size(s, &off, &s);

	if (r < 0)
		return r;
	if (off > INT64_MAX)
		return -ERANGE;
	if (*s == '\0' || strcmp(s, "-") == 0) {
		*ret_off = off;
		*ret_len = 0;
		return 0;
	}
	char sign = *s++;
	if (sign != '-' && sign != '+')
		return -EINVAL;
	r = parse_size(s, &v, &s);
	if (r < 0)
		return r;
	if (*s != '\0')
		return -EINVAL;
	if (sign == '-') {
		if (v <= off)
			return -EINVAL;
		v -= off;
	}
	if (v == 0)
		return -EINVAL;
	if (v > INT64_MAX - off)
		return -ERANGE;
	*ret_off = off;
	*ret_len = v;
	return 0;
}
