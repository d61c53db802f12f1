/* SPDX-License-Identifier: Apache-2.0 */
/* See kill_point.h. May call nothing. */
#include "daemon/kill_point.h"

#ifdef PGC_FAILURE_INJECTION
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

extern const char *const __start_kill_points[], *const __stop_kill_points[];

bool kill_point_armed;

static char where[160];              /* the one name, without its count */
static uint64_t count, seed, chance; /* chance: 0: by name */
static _Atomic uint64_t reached;     /* relaxed: only its own count matters */

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

void kill_point_reached(const char *name)
{
	uint64_t n;

	if (!chance && strcmp(name, where) != 0)
		return;
	n = atomic_fetch_add_explicit(&reached, 1, memory_order_relaxed) + 1;
	if (chance ? mix(seed + n * 0x9e3779b97f4a7c15ull) % chance == 0 : n == count) {
		static const char text[] = "dies at kill point ";

		(void)!writev(2, (struct iovec[]){ { (void *)text, sizeof(text) - 1 }, { (void *)name, strlen(name) }, { (void *)"\n", 1 } }, 3);
		kill(getpid(), SIGKILL);
	}
}

static void list_names(void)
{
	for (const char *const *p = __start_kill_points; p < __stop_kill_points; p++) {
		bool again = false;

		for (const char *const *q = __start_kill_points; q < p && !again; q++)
			again = strcmp(*p, *q) == 0;
		if (!again)
			puts(*p);
	}
	fflush(stdout);
	_exit(0);
}

static bool known(const char *name)
{
	for (const char *const *p = __start_kill_points; p < __stop_kill_points; p++)
		if (strcmp(*p, name) == 0)
			return true;
	return false;
}

/* A test that kills nowhere for a misspelt name would pass: so the program ends. */
static void parse(void)
{
	char *colon;

	where[strcspn(where, "\n")] = 0;
	if (!where[0])
		return;
	if (strcmp(where, "list") == 0)
		list_names();
	if (strncmp(where, "random:", 7) == 0) {
		seed = strtoull(where + 7, &colon, 0);
		chance = *colon == ':' ? strtoull(colon + 1, NULL, 0) : 0;
		kill_point_armed = chance > 0;
	} else {
		colon = strchr(where, ':');
		count = colon ? strtoull(colon + 1, NULL, 0) : 1;
		if (colon)
			*colon = 0;
		kill_point_armed = count > 0 && known(where);
	}
	if (!kill_point_armed) {
		fprintf(stderr, "PGC_KILL_POINT: no such place, or no count or chance: %s\n", where);
		_exit(2);
	}
}

__attribute__((constructor)) static void arm(void)
{
	const char *s = getenv("PGC_KILL_POINT");
	ssize_t n;
	int fd;

	if (!s)
		return;
	if (s[0] != '@') {
		snprintf(where, sizeof(where), "%s", s);
	} else {
		fd = open(s + 1, O_RDWR | O_CLOEXEC);
		n = fd < 0 ? 0 : read(fd, where, sizeof(where) - 1);
		if (fd >= 0)
			(void)!ftruncate(fd, 0);
		where[n > 0 ? n : 0] = 0;
		if (fd >= 0)
			close(fd);
	}
	parse();
}
#endif
