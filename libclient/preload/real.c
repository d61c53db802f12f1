/* SPDX-License-Identifier: Apache-2.0 */
/* The functions that we stand in front of: the next definition of each name, looked up at its first use. Any thread. */
#include <dlfcn.h>

#include "preload.h"

static long not_there(void)
{
	errno = ENOSYS;
	return -1;
}

void *real_find(const char *name)
{
	int saved = errno;
	void *p = dlsym(RTLD_NEXT, name);

	errno = saved;
	return p ? p : (void *)not_there;
}
