/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See inject.h. What fails is drawn from the seed and from how often the kind was asked for, so that one thread meets the same failures again.
 * May call nothing that allocates or makes descriptors but in the constructor, since those calls ask here.
 */
#include "daemon/inject.h"

#ifdef PGC_FAILURE_INJECTION
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/log.h"

#define SPEC_MAX 1024

static const char *const names[INJECT_KINDS] = {
	[INJECT_MALLOC] = "malloc", [INJECT_MMAP] = "mmap", [INJECT_MEMORY] = "memory", [INJECT_FD] = "fd", [INJECT_CTRUNC] = "ctrunc",
	[INJECT_SEND] = "send", [INJECT_THREAD] = "thread", [INJECT_ENTER] = "enter", [INJECT_POST] = "post", [INJECT_SQ] = "sq",
	[INJECT_CQ] = "cq", [INJECT_STORE_READ] = "store_read", [INJECT_STORE_WRITE] = "store_write", [INJECT_STORE_SYNC] = "store_sync",
	[INJECT_STORE_OTHER] = "store_other", [INJECT_STORE_AGAIN] = "store_again", [INJECT_STORE_SHORT] = "store_short",
	[INJECT_STORE_DELAY] = "store_delay", [INJECT_UFFD_AGAIN] = "uffd_again", [INJECT_UFFD_EXIST] = "uffd_exist", [INJECT_UFFD_PART] = "uffd_part",
};

static struct kind {
	bool set;
	uint64_t below;            /* fails if the number drawn, of 64 bits, is below; UINT64_MAX: always */
	uint64_t nth;              /* or this time and no other, from 1; 0: not so */
	uint64_t value;            /* 0: not given */
	_Atomic uint64_t asked, failed; /* relaxed: only their own counts matter */
} kinds[INJECT_KINDS];

static uint64_t seed = 1;
static bool at_start;
static _Atomic bool begun;          /* relaxed: a little earlier or later does not matter */
static const volatile char *pause_switch; /* first byte of the file that $PGC_INJECT names; '-': nothing fails */
static _Atomic uint64_t drawn;      /* relaxed */

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

bool inject(enum inject_kind kind)
{
	struct kind *k = &kinds[kind];
	uint64_t n;

	if (!k->set || !atomic_load_explicit(&begun, memory_order_relaxed) || (pause_switch && *pause_switch == '-'))
		return false;
	n = atomic_fetch_add_explicit(&k->asked, 1, memory_order_relaxed) + 1;
	if (k->nth ? n != k->nth : mix(mix(seed + kind) + n * 0x9e3779b97f4a7c15ull) > k->below)
		return false;
	atomic_fetch_add_explicit(&k->failed, 1, memory_order_relaxed);
	return true;
}

uint64_t inject_below(uint64_t n)
{
	return mix(seed + atomic_fetch_add_explicit(&drawn, 0x9e3779b97f4a7c15ull, memory_order_relaxed)) % n;
}

uint64_t inject_value(enum inject_kind kind, uint64_t otherwise) { return kinds[kind].value ? kinds[kind].value : otherwise; }

void inject_begin(void) { atomic_store_explicit(&begun, true, memory_order_relaxed); }

void inject_report(void)
{
	char text[1024];
	size_t at = 0;

	for (unsigned i = 0; i < INJECT_KINDS && at < sizeof(text); i++)
		if (kinds[i].set && (i == INJECT_SQ || i == INJECT_CQ))
			at += (size_t)snprintf(text + at, sizeof(text) - at, " %s of %llu", names[i], (unsigned long long)kinds[i].value);
		else if (kinds[i].set)
			at += (size_t)snprintf(text + at, sizeof(text) - at, " %s %llu/%llu", names[i],
					       (unsigned long long)atomic_load_explicit(&kinds[i].failed, memory_order_relaxed),
					       (unsigned long long)atomic_load_explicit(&kinds[i].asked, memory_order_relaxed));
	if (at > 0)
		log_notice("injected (of so many asked):%s", text);
}

/* --- the specification --- */

static void wrong(const char *what, const char *item)
{
	fprintf(stderr, "PGC_INJECT: %s: %s\n", what, item);
	_exit(2);
}

static uint64_t parse_number(const char *text, const char *item, const char *unit_of_time)
{
	static const struct { const char *name; uint64_t ns; } units[] = { { "us", 1000 }, { "ms", 1000000 }, { "s", 1000000000 } };
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (end == text || *text == '-' || errno || n == 0)
		wrong("a number from 1 is wanted", item);
	for (size_t i = 0; unit_of_time && i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(end, units[i].name) == 0 && n <= UINT64_MAX / units[i].ns)
			return n * units[i].ns;
	if (*end || unit_of_time)
		wrong(unit_of_time ? "a time in us, ms or s is wanted" : "a number from 1 is wanted", item);
	return n;
}

static void parse_chance(struct kind *k, const char *text, const char *item)
{
	char *end;
	double chance;

	if (text[0] == '@') {
		k->nth = parse_number(text + 1, item, NULL);
		return;
	}
	chance = strtod(text, &end);
	if (end == text || *end || !(chance > 0 && chance <= 1))
		wrong("a chance above 0 and up to 1, or @N, is wanted", item);
	k->below = chance >= 1 ? UINT64_MAX : (uint64_t)(chance * 18446744073709551616.0);
}

static void parse_item(char *text)
{
	char item[100];
	char *colon = strchr(text, ':'), *value;
	unsigned kind = 0;

	snprintf(item, sizeof(item), "%s", text);
	if (strcmp(text, "start") == 0) {
		at_start = true;
		return;
	}
	if (!colon)
		wrong("NAME:CHANCE is wanted", item);
	*colon++ = 0;
	if (strcmp(text, "seed") == 0) {
		seed = parse_number(colon, item, NULL);
		return;
	}
	while (kind < INJECT_KINDS && strcmp(names[kind], text) != 0)
		kind++;
	if (kind == INJECT_KINDS)
		wrong("no such failure", item);
	kinds[kind].set = true;
	if (kind == INJECT_SQ || kind == INJECT_CQ) {
		kinds[kind].value = parse_number(colon, item, NULL);
		return;
	}
	value = strchr(colon, ':');
	if (value)
		*value++ = 0;
	if (value && kind != INJECT_STORE_DELAY)
		wrong("it has no value", item);
	parse_chance(&kinds[kind], colon, item);
	if (value)
		kinds[kind].value = parse_number(value, item, "time");
}

static void read_file(const char *path, char *text)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, SPEC_MAX - 1);
	void *p = n > 0 ? mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (p == MAP_FAILED)
		wrong("the file cannot be read", path);
	close(fd);
	text[n] = 0;
	pause_switch = p;
	if (text[0] != '-' && text[0] != '+')
		wrong("the file has to begin with - or +", path);
	text[0] = ',';
}

__attribute__((constructor)) static void arm(void)
{
	const char *s = getenv("PGC_INJECT");
	char text[SPEC_MAX], *save = NULL;

	if (!s || !*s)
		return;
	if (s[0] == '@')
		read_file(s + 1, text);
	else if ((size_t)snprintf(text, sizeof(text), "%s", s) >= sizeof(text))
		wrong("too long", s);
	text[strcspn(text, "\n")] = 0;
	for (char *item = strtok_r(text, ",", &save); item; item = strtok_r(NULL, ",", &save))
		parse_item(item);
	atomic_store_explicit(&begun, at_start, memory_order_relaxed);
}
#endif
