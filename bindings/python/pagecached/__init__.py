# SPDX-License-Identifier: Apache-2.0
"""
Files through pagecached, a page cache in user space.

    with pagecached.open("/srv/data/index", "r+") as f, f.mmap() as m:
        numbers = numpy.frombuffer(m, dtype="<f4")   # no copy; stores reach the file

All offsets and sizes are bytes. What fails raises OSError, with errno and the file's name; what is asked of a closed file
or mapping, and an argument that makes no sense, ValueError. Every function may be called by several threads at once, and
lets other threads run while it waits for the daemon.

The daemon's socket is $PAGECACHED_SOCKET, or one of the usual places; see libpagecached(3). The library is
$PAGECACHED_LIBRARY, or libpagecached.so.0 where the loader finds it.
"""

from ._file import File, fdopen, open
from ._library import library_version
from ._mapping import (
    MADV_COLD,
    MADV_PAGEOUT,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    MS_ASYNC,
    MS_INVALIDATE,
    MS_SYNC,
    Mapping,
)

__version__ = "0.1.0"

__all__ = [
    "File",
    "MADV_COLD",
    "MADV_PAGEOUT",
    "MADV_POPULATE_READ",
    "MADV_POPULATE_WRITE",
    "MS_ASYNC",
    "MS_INVALIDATE",
    "MS_SYNC",
    "Mapping",
    "fdopen",
    "library_version",
    "open",
]
