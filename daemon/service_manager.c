/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See service_manager.h. The manager's own socket comes first, since it answers when no message bus runs; a service that may not use it asks over the bus.
 * Each question makes a connection of its own: they are rare. May call util.
 */
#include "daemon/service_manager.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-id128.h>

#include "daemon/util/util.h"

#define MANAGER    "org.freedesktop.systemd1"
#define TIMEOUT_US 5000000

static int connect_privately(const char *folder, sd_bus **ret)
{
	CLEANUP(sd_bus_unrefp) sd_bus *bus = NULL;
	char address[256];
	int r;

	if (snprintf(address, sizeof(address), "unix:path=%s/systemd/private", folder) >= (int)sizeof(address))
		return -ENAMETOOLONG;
	r = sd_bus_new(&bus);
	if (r >= 0)
		r = sd_bus_set_address(bus, address);
	if (r >= 0)
		r = sd_bus_start(bus);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(bus);
	return 0;
}

static int unit_path(sd_bus *bus, const sd_id128_t *invocation, char **ret)
{
	CLEANUP(sd_bus_message_unrefp) sd_bus_message *question = NULL, *answer = NULL;
	const char *path;
	int r;

	r = sd_bus_message_new_method_call(bus, &question, MANAGER, "/org/freedesktop/systemd1", MANAGER ".Manager", "GetUnitByInvocationID");
	if (r >= 0)
		r = sd_bus_message_append_array(question, 'y', invocation->bytes, sizeof(invocation->bytes));
	if (r >= 0)
		r = sd_bus_call(bus, question, TIMEOUT_US, NULL, &answer);
	if (r >= 0)
		r = sd_bus_message_read(answer, "o", &path);
	if (r < 0)
		return r;
	*ret = strdup(path);
	return *ret ? 0 : -ENOMEM;
}

static int ask(sd_bus *bus, const sd_id128_t *invocation, unsigned *ret_max, unsigned *ret_n)
{
	_cleanup_free_ char *path = NULL;
	uint32_t max, n;
	int r;

	r = sd_bus_set_method_call_timeout(bus, TIMEOUT_US);
	if (r >= 0)
		r = unit_path(bus, invocation, &path);
	if (r >= 0)
		r = sd_bus_get_property_trivial(bus, MANAGER, path, MANAGER ".Service", "FileDescriptorStoreMax", NULL, 'u', &max);
	if (r >= 0)
		r = sd_bus_get_property_trivial(bus, MANAGER, path, MANAGER ".Service", "NFileDescriptorStore", NULL, 'u', &n);
	if (r < 0)
		return r;
	*ret_max = max;
	*ret_n = n;
	return 0;
}

int service_manager_fdstore(unsigned *ret_max, unsigned *ret_n)
{
	CLEANUP(sd_bus_flush_close_unrefp) sd_bus *direct = NULL, *bus = NULL;
	const char *notify = getenv("NOTIFY_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR"), *id = getenv("INVOCATION_ID");
	sd_id128_t invocation;
	bool user;
	int r;

	if (!notify || !id || sd_id128_from_string(id, &invocation) < 0)
		return -ENOENT;
	user = runtime && *runtime && strncmp(notify, runtime, strlen(runtime)) == 0;
	r = connect_privately(user ? runtime : "/run", &direct);
	if (r >= 0)
		r = ask(direct, &invocation, ret_max, ret_n);
	if (r >= 0)
		return 0;
	r = user ? sd_bus_open_user(&bus) : sd_bus_open_system(&bus);
	return r < 0 ? r : ask(bus, &invocation, ret_max, ret_n);
}
