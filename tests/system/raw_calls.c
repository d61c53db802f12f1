/* SPDX-License-Identifier: Apache-2.0 */
/* A program that no preload library reaches: linked statically. What it inherits as the descriptor argv[1] must refuse everything. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int fd = argc > 1 ? atoi(argv[1]) : -1;
	char c;

	if (lseek(fd, 0, SEEK_CUR) != 0)
		return 1;
	if (read(fd, &c, 1) >= 0 || errno != EBADF || pread(fd, &c, 1, 0) >= 0 || errno != EBADF)
		return 2;
	if (write(fd, "x", 1) >= 0 || errno != EPERM || pwrite(fd, "x", 1, 0) >= 0 || errno != EPERM)
		return 3;
	if (mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED || errno != EACCES)
		return 4;
	return 0;
}
