/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What systemd says of our own unit, over D-Bus. A service is found by $INVOCATION_ID; which manager it is, the system's or a user's, by $NOTIFY_SOCKET.
 */
#pragma once

/*
 * How many descriptors the unit may keep (FileDescriptorStoreMax) and does (NFileDescriptorStore). 0 or a negative errno: -ENOENT when no service manager started
 * us. Blocks, for some seconds if nobody answers. Any thread, at most one at a time.
 */
int service_manager_fdstore(unsigned *ret_max, unsigned *ret_n);
