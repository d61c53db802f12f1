# SPDX-License-Identifier: Apache-2.0
"""An open file. All of it goes by offsets: there is no position, and nothing is buffered in this process."""

from __future__ import annotations

import ctypes
import fcntl
import operator
import os
from typing import Any, Optional, Union

from . import _library as _c
from ._mapping import Mapping

Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]

_MODES = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "x+": os.O_RDWR | os.O_CREAT | os.O_EXCL,
    "a": os.O_WRONLY | os.O_CREAT,
    "a+": os.O_RDWR | os.O_CREAT,
}
# What one call reads at most: room for more would never be filled.
_READ_MAX = 0x7FFFF000


def open(  # noqa: A001 - the name says what it is
    path_or_uri: Path, mode: str = "r", *, sync: bool = False, flags: int = 0, permissions: int = 0o666
) -> File:
    """
    Opens a file by its path, or an object by its URI ("mem:name").

    mode: "r" (the default) reads; "r+" reads and writes; "w+" does so and truncates, "x+" and must make the file,
    "a+" and makes it if it is not there; "w", "x" and "a" are the same for writing only, and cannot be mapped. A "b" has no
    effect; there is no text mode. sync: every write is durable when it returns. flags: more flags of os.O_*, such as
    O_NOFOLLOW. permissions: of a file that is made, less the umask.

    OSError: as the kernel's open(2), FileNotFoundError, PermissionError and so on; IsADirectoryError; EINVAL: neither a
    regular file nor a block device; ConnectionRefusedError: no daemon answers. ValueError: the mode, or a zero byte in the
    path.
    """
    plain = mode.replace("b", "", 1)
    if plain not in _MODES:
        raise ValueError(f"invalid mode: {mode!r}")
    name = os.fspath(path_or_uri)
    raw = os.fsencode(name)
    if b"\0" in raw:
        raise ValueError("embedded null byte")
    handle = _c.Handle(name)
    how = _MODES[plain] | flags | (os.O_SYNC if sync else 0)
    handle.check(_c.pgc_open(ctypes.byref(handle.pointer), raw, how, permissions))
    return File(handle, plain)


def fdopen(fd: int) -> File:
    """
    Opens what a descriptor stands for, with its access mode. The descriptor stays the caller's and may be closed at once.

    OSError: EBADF: not open, or O_PATH; IsADirectoryError; EINVAL: neither a regular file nor a block device;
    PermissionError: it cannot be opened again and has O_DIRECT or O_APPEND.
    """
    fd = operator.index(fd)
    handle = _c.Handle(fd)
    handle.check(_c.pgc_fdopen(ctypes.byref(handle.pointer), fd))
    access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    return File(handle, {os.O_RDONLY: "r", os.O_WRONLY: "w", os.O_RDWR: "r+"}[access])


class File:
    """
    An open file; open() and fdopen() make it. Closed by close(), at the end of a `with`, or when nothing refers to it.
    Mappings outlive it.

    Its methods raise OSError with the file's name, and ValueError once it is closed. Everything may fail with
    ConnectionResetError: the daemon has ended.
    """

    __slots__ = ("_handle", "_mode", "_name", "__weakref__")

    def __init__(self, handle: _c.Handle, mode: str) -> None:
        self._handle: Optional[_c.Handle] = handle
        self._mode = mode
        self._name = handle.name

    def _open(self) -> _c.Handle:
        handle = self._handle
        if handle is None:
            raise ValueError("I/O operation on closed file")
        return handle

    @property
    def name(self) -> _c.Name:
        """What it was opened by: a path, a URI or a descriptor's number."""
        return self._name

    @property
    def mode(self) -> str:
        return self._mode

    @property
    def closed(self) -> bool:
        return self._handle is None

    def readable(self) -> bool:
        return self._mode not in ("w", "x", "a")

    def writable(self) -> bool:
        return self._mode != "r"

    def close(self) -> None:
        """
        Ends it. What is dirty is written out in time; call fsync() before to know that it was. Calls of other threads
        that are under way come to their end.
        """
        self._handle = None

    def __enter__(self) -> File:
        self._open()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<pagecached.File name={self._name!r} mode={self._mode!r}{' closed' if self.closed else ''}>"

    def pread(self, n: int, off: int) -> bytes:
        """
        Up to n bytes from offset off on: fewer at the end of file, none past it. They are those of all stores and writes
        made before, by any process. At most 0x7ffff000 bytes, as os.pread().

        OSError: EBADF: not open for reading; EINVAL: off is negative; EIO: the store failed.
        """
        handle = self._open()
        n = operator.index(n)
        if n < 0:
            raise ValueError("a negative number of bytes")
        return _c.read_bytes(handle, min(n, _READ_MAX), _c.check_offset(off))

    def preadinto(self, buffer: Any, off: int) -> int:
        """
        Reads into a writable buffer (bytearray, memoryview, array, numpy array) and returns how many bytes: fewer than it
        holds at the end of file only. A mapping will do as well. Errors: as pread(); BufferError: it is read-only, or
        not contiguous.
        """
        handle = self._open()
        with _c.exported(buffer, writable=True) as (address, n):
            return handle.check(_c.pgc_pread(handle.pointer, address, n, _c.check_offset(off)))

    def pwrite(self, buffer: Any, off: int) -> int:
        """
        Writes the bytes of a buffer from offset off on, and returns how many. Seen by every mapping and read at once; in
        the file after fsync(), or in time. Beyond the end it leaves a hole of zeros. The count is that of the buffer, up to
        0x7ffff000, unless an error came in between.

        OSError: EBADF: not open for writing; EINVAL: off is negative; EFBIG; ENOSPC, EIO: the store failed.
        """
        handle = self._open()
        with _c.exported(buffer) as (address, n):
            return handle.check(_c.pgc_pwrite(handle.pointer, address, n, _c.check_offset(off)))

    def append(self, data: Any) -> int:
        """
        Writes the bytes of a buffer at the end of file, in one piece whatever other processes append, and returns the
        offset where they went. OSError: as pwrite().
        """
        handle = self._open()
        at = ctypes.c_int64()
        with _c.exported(data) as (address, n):
            wrote = handle.check(_c.pgc_append(handle.pointer, address, n, ctypes.byref(at)))
        if wrote != n:
            raise OSError(f"only {wrote} of {n} bytes were appended to {self._name!r}, at {at.value}")
        return at.value

    def fsync(self) -> None:
        """
        After it the store has every byte that was stored or written before, by any process. OSError: what a write-out
        since the last call met, EIO, ENOSPC, once; its pages are tried again.
        """
        handle = self._open()
        handle.check(_c.pgc_fsync(handle.pointer))

    def fdatasync(self) -> None:
        """As fsync(), but for times and the like."""
        handle = self._open()
        handle.check(_c.pgc_fdatasync(handle.pointer))

    def truncate(self, size: int) -> None:
        """Makes the file `size` bytes long. OSError: EINVAL: size is negative, or not open for writing; EFBIG."""
        handle = self._open()
        handle.check(_c.pgc_ftruncate(handle.pointer, _c.check_offset(size)))

    def fallocate(self, off: int, length: int, mode: int = 0) -> None:
        """
        As fallocate(2): mode is 0 (room for the range, the file longer if need be), 1 (KEEP_SIZE), 3 (PUNCH_HOLE with
        KEEP_SIZE), 16 or 17 (ZERO_RANGE). OSError: EOPNOTSUPP: another mode, or not in the store; EINVAL: off is negative
        or length not positive; EBADF: not open for writing; ENOSPC; EFBIG.
        """
        handle = self._open()
        handle.check(_c.pgc_fallocate(handle.pointer, mode, _c.check_offset(off), _c.check_offset(length)))

    def advise(self, advice: int, off: int = 0, length: int = 0) -> None:
        """
        As os.posix_fadvise(), with os.POSIX_FADV_*; length 0 is to the end. WILLNEED reads up to 32 MiB in without
        waiting; DONTNEED starts the write-out of what is dirty and drops clean pages that nobody has mapped.
        """
        handle = self._open()
        handle.check(_c.pgc_fadvise(handle.pointer, _c.check_offset(off), _c.check_offset(length), advice))

    def keep(self, off: int, length: int, on: bool = True) -> None:
        """
        Says that the pages of a range are (or with on=False are no longer) written by something that page protection does
        not notice, such as a device: every sync writes them. OSError: EINVAL: off is negative or length not positive;
        EBADF: not open for writing.
        """
        handle = self._open()
        handle.check(_c.pgc_keep(handle.pointer, _c.check_offset(off), _c.check_offset(length), on))

    def stat(self) -> os.stat_result:
        """As os.fstat(): size and times as they are with what the cache holds."""
        return self._open().stat()

    @property
    def size(self) -> int:
        """Bytes, asked of the daemon each time."""
        return self.stat().st_size

    def mmap(
        self, length: Optional[int] = None, offset: int = 0, *, access: Optional[int] = None, private: bool = False
    ) -> Mapping:
        """
        Maps `length` bytes from `offset` on, a multiple of the page size; without a length to the end of file. It may
        reach past the end, where a touch is a SIGBUS.

        access: mmap.ACCESS_READ, ACCESS_WRITE (what is stored is seen by every process and reaches the file) or
        ACCESS_COPY (what is stored stays in this process); by default ACCESS_WRITE where the file may be written, else
        ACCESS_READ. private=True is ACCESS_COPY; with ACCESS_READ it is a private mapping that cannot be written.

        ValueError: the file is empty or ends before `offset`, and no length was given. OSError: EACCES: opened for writing
        only, or ACCESS_WRITE of a file opened for reading; EINVAL: the offset; ENOMEM, ENOSPC: too many mappings.
        """
        return Mapping(self._open(), self.readable(), self.writable(), length, offset, access, private)
