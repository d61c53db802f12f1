/* SPDX-License-Identifier: Apache-2.0 */
/* A program that sends its standard output to one file by dup2 and to another by freopen. Built at a fixed address, too, where `stdout` is a copy of its own. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	FILE *old = stdout;
	int fd;

	if (argc != 3)
		return 2;
	printf("waiting ");
	fd = open(argv[1], O_WRONLY | O_CREAT, 0644);
	if (fd < 0 || dup2(fd, 1) != 1)
		return 1;
	printf("printf %d\n", 1);
	puts("puts");
	putchar('c');
	fputs("\nold pointer\n", old);
	if (!freopen(argv[2], "w", stdout))
		return 1;
	return puts("freopen") < 0;
}
