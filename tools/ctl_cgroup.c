// SPDX-License-Identifier: Apache-2.0
/*
 * Looks through the mounted hierarchies, folder by folder, as there is no other way from a number to a path without
 * privilege. A path is told as /proc/PID/cgroup tells it, but for what a mount does not show.
 */
#include "tools/ctl_cgroup.h"

#include <fts.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool all_found(const struct ctl_cgroup *cgroups, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!cgroups[i].path)
			return false;
	return true;
}

static void search(struct ctl_cgroup *cgroups, size_t n, char *mount_point)
{
	char *const roots[] = { mount_point, NULL };
	size_t len = strlen(mount_point);
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
	FTSENT *e;

	while (fts && !all_found(cgroups, n) && (e = fts_read(fts))) {
		if (e->fts_info != FTS_D)
			continue;
		for (size_t i = 0; i < n; i++)
			if (!cgroups[i].path && cgroups[i].id == e->fts_statp->st_ino)
				cgroups[i].path = strdup(e->fts_path[len] ? e->fts_path + len : "/");
	}
	if (fts)
		fts_close(fts);
}

/* The mount point of a line of mountinfo, cut out of it, when its type and option are these; `option` NULL: any. */
static char *mount_point_of(char *line, const char *type, const char *option)
{
	char *rest = strstr(line, " - "), *save = NULL, *field = NULL, *word;
	bool found = !option;

	if (!rest)
		return NULL;
	*rest = '\0';
	for (unsigned i = 0; i < 5; i++) {
		field = strtok_r(i == 0 ? line : NULL, " ", &save);
		if (!field)
			return NULL;
	}
	word = strtok_r(rest + 3, " \n", &save);
	if (!word || strcmp(word, type) != 0)
		return NULL;
	(void)strtok_r(NULL, " \n", &save);
	for (word = strtok_r(NULL, ",\n", &save); word && !found; word = strtok_r(NULL, ",\n", &save))
		found = strcmp(word, option) == 0;
	return found ? field : NULL;
}

static void search_all(struct ctl_cgroup *cgroups, size_t n, const char *mountinfo, const char *type, const char *option)
{
	FILE *f = fopen(mountinfo, "re");
	size_t allocated = 0;
	char *line = NULL;

	while (f && !all_found(cgroups, n) && getline(&line, &allocated, f) >= 0) {
		char *mount_point = mount_point_of(line, type, option);

		if (mount_point)
			search(cgroups, n, mount_point);
	}
	free(line);
	if (f)
		fclose(f);
}

void ctl_cgroup_find(struct ctl_cgroup *cgroups, size_t n, const char *mountinfo)
{
	search_all(cgroups, n, mountinfo, "cgroup", "memory");
	search_all(cgroups, n, mountinfo, "cgroup2", NULL);
}
