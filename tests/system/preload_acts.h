/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests whose body runs in a program under the preload library, by plain POSIX calls, in a folder that is served:
 *
 *	ACT_TEST(a_name) { CHECK(open("f", O_RDWR) >= 0); }
 *	ACTS_MAIN("group", ACT(a_name), ...)
 *
 * The test program runs itself again for that. The folder `served`, below the test's own, is the current one.
 */
#pragma once

#include <limits.h>

#include "harness.h"

/* What the call gave, and errno where it failed. */
#define FAILS(call, error) \
	do { \
		errno = 0; \
		CHECK_EQ((long)(call), -1); \
		CHECK_EQ(errno, error); \
	} while (0)

struct act { const char *name; void (*test)(void **state), (*body)(void); };

static char act_self[PATH_MAX];

/* The program, which is left to run. */
static pid_t act_start(const char *name)
{
	const char *library = getenv("PAGECACHED_PRELOAD");
	char text[2 * PATH_MAX];
	pid_t pid;

	if (!library)
		FAIL("PAGECACHED_PRELOAD is not set");
	CHECK_EQ(mkdir("served", 0755), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		snprintf(text, sizeof(text), "%s/served/**", env.dir);
		setenv("PAGECACHED_PATHS", text, 1);
		setenv("PAGECACHED_SOCKET", env.socket, 1);
		setenv("LD_PRELOAD", library, 1);
		CHECK_EQ(chdir("served"), 0);
		execl(act_self, act_self, "--act", name, (char *)NULL);
		FAIL("%s: %s", act_self, strerror(errno));
	}
	return pid;
}

static inline void act_run(const char *name)
{
	expect_exit_0(act_start(name));
}

#define ACT_TEST(name, ...) \
	static void name##_act(void); \
	SYSTEM_TEST(name, __VA_ARGS__) { act_run(#name); } \
	static void name##_act(void)
/* One whose other side is the block that follows: it starts the program by act_start() and sees to its end. */
#define ACT_TEST_BESIDE(name, ...) \
	static void name##_act(void); \
	SYSTEM_TEST(name, __VA_ARGS__)
#define ACT_OF(name) static void name##_act(void)
#define ACT(name) { #name, name, name##_act }

#define ACTS_MAIN(group, ...) \
	int main(int argc, char **argv) \
	{ \
		static const struct act acts[] = { __VA_ARGS__ }; \
		struct CMUnitTest tests[sizeof(acts) / sizeof(acts[0])]; \
\
		CHECK(realpath("/proc/self/exe", act_self)); \
		for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) { \
			if (argc == 3 && strcmp(argv[1], "--act") == 0 && strcmp(argv[2], acts[i].name) == 0) { \
				acts[i].body(); \
				return 0; \
			} \
			tests[i] = (struct CMUnitTest){ .name = acts[i].name, .test_func = acts[i].test }; \
		} \
		CHECK_EQ(argc, 1); \
		return system_tests_main(group, tests, sizeof(tests) / sizeof(tests[0])); \
	}
