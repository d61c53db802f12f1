/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stop_thread TID SECONDS: stops one thread of another process, as if it were stuck, and lets it go on after SECONDS or when the process dies. Says "stopped".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	pid_t tid = argc == 3 ? atoi(argv[1]) : 0;
	int status;

	if (tid <= 0) {
		fprintf(stderr, "usage: stop_thread TID SECONDS\n");
		return 2;
	}
	if (ptrace(PTRACE_SEIZE, tid, 0, 0) < 0 || ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0 || waitpid(tid, &status, __WALL) != tid) {
		fprintf(stderr, "stop_thread: %d: %s\n", tid, strerror(errno));
		return 1;
	}
	puts("stopped");
	fflush(stdout);
	/* Its end must be taken note of: until then the process is not gone. */
	for (int i = atoi(argv[2]) * 100; i > 0; i--) {
		if (waitpid(tid, &status, __WALL | WNOHANG) == tid && (WIFEXITED(status) || WIFSIGNALED(status)))
			break;
		usleep(10000);
	}
	return 0;
}
