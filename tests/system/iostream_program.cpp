// SPDX-License-Identifier: Apache-2.0
// The same as stdout_program.c with C++'s streams, which have taken their pointers to the C library's before main() runs. With one argument: says it.
#include <cstdio>
#include <fcntl.h>
#include <iostream>
#include <string>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc == 2) {
		std::cout << argv[1] << std::endl;
		return !std::cout;
	}
	if (argc != 3)
		return 2;
	std::cout << "waiting ";
	int fd = open(argv[1], O_WRONLY | O_CREAT, 0644);
	if (fd < 0 || dup2(fd, 1) != 1)
		return 1;
	std::cout << "printf " << 1 << '\n' << "puts\n";
	std::printf("c");
	std::cout << "\nold pointer\n";
	if (!std::freopen(argv[2], "w", stdout))
		return 1;
	std::cout << "freopen" << std::endl;
	return !std::cout;
}
