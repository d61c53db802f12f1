/* SPDX-License-Identifier: Apache-2.0 */
/* Processes by number and start time. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/process.h"

static pid_t start_child(const char *name)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_NAME, name);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
		_exit(0);
	}
	assert_true(pid > 0);
	return pid;
}

static void end_child(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void a_process_says_its_parent_and_its_start(void **state)
{
	uint64_t now = 0;
	struct process_stat st;
	struct timespec t;
	pid_t pid = start_child(") 1 2 (");

	(void)state;
	/* A name of any kind: the child may not have taken it yet at the first looks. */
	for (int i = 0; i < 100; i++) {
		assert_int_equal(process_stat(pid, &st), 0);
		assert_int_equal(st.parent, getpid());
		usleep(1000);
	}
	clock_gettime(CLOCK_BOOTTIME, &t);
	now = (uint64_t)t.tv_sec * (uint64_t)sysconf(_SC_CLK_TCK);
	assert_in_range(st.start, now - 60 * (uint64_t)sysconf(_SC_CLK_TCK), now + (uint64_t)sysconf(_SC_CLK_TCK));
	end_child(pid);
	assert_true(process_stat(pid, &st) < 0);
}

static void only_the_process_that_started_then_lives(void **state)
{
	pid_t pid = start_child("child");
	uint64_t start = process_start(pid);

	(void)state;
	assert_true(start > 0);
	assert_true(process_lives(pid, start));
	assert_true(process_lives(pid, 0));
	assert_false(process_lives(pid, start - 1)); /* as one that had this number before */
	assert_false(process_lives(pid, start + 1));
	end_child(pid);
	assert_false(process_lives(pid, start));
	assert_false(process_lives(pid, 0));
}

static void no_number_is_no_process(void **state)
{
	(void)state;
	assert_false(process_lives(0, 0));
	assert_false(process_lives(-1, 0));
	assert_int_equal(process_start(0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_process_says_its_parent_and_its_start),
		cmocka_unit_test(only_the_process_that_started_then_lives),
		cmocka_unit_test(no_number_is_no_process),
	};

	return cmocka_run_group_tests_name("process", tests, NULL, NULL);
}
