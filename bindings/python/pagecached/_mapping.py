# SPDX-License-Identifier: Apache-2.0
"""
A mapping is an mmap.mmap whose pages are pagecached's.

mmap.mmap of the standard library makes an anonymous mapping, and pgc_mmap() with MAP_FIXED takes its place. What that class is
careful about thereby holds here: it counts who uses its memory (memoryview, numpy arrays), refuses to close meanwhile, and
unmaps when the last of them is gone. A class in Python alone could not do that before Python 3.12.

That mmap.mmap unmaps its range at its end, with munmap(2), has two consequences:

- The range must be the object's own until then. Where a call may leave a hole that another thread's mapping could fill, the hole
  is reserved again, and if that comes too late the object is kept for ever rather than unmap what is another's.
- munmap(2) waits for the daemon, and for ever if that is dead. So the daemon is asked something before, and if there is no
  answer pgc_munmap(), which does not wait, goes first.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import io
import mmap as _mmap
import weakref
from typing import Any, Optional

from . import _library as _c

MS_ASYNC, MS_INVALIDATE, MS_SYNC = 1, 2, 4
# Linux's numbers, not all of which the standard library has.
MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE = 20, 21, 22, 23
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE = 0x01, 0x02, 0x10, 0x20, 0x4000
_MAP_FIXED_NOREPLACE = 0x100000
_RESERVATION = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE


def _reserve_again(address: int, length: int) -> bool:
    """True: a hole is now an anonymous mapping without access. False: something is there."""
    got = _c.libc_mmap(address, length, 0, _RESERVATION | _MAP_FIXED_NOREPLACE, -1, 0)
    if got == address:
        return True
    if got != _c.MAP_FAILED:
        _c.libc_munmap(got, length)
    return False


class Mapping(_mmap.mmap):
    """
    Bytes of a file as memory; File.mmap() makes it. It is an mmap.mmap, with indices, slices, find(), read(), write() and the
    like, and has the buffer protocol: memoryview(m), numpy.frombuffer(m) and numpy.ndarray(buffer=m) are the file's own pages,
    without a copy, and writable where the mapping is.

    It outlives its File. close() raises BufferError while anything still uses the memory; a mapping that is dropped stays until the
    last array on it is gone. A forked child has it too.

    Only methods let other threads of the interpreter run while they wait: a touch of a page that has to be read in first holds
    the interpreter's lock, as with any mmap; madvise(MADV_POPULATE_READ) reads it in beforehand without. A touch beyond the end of
    file, or of a page that the store cannot read, is a SIGBUS. Where the daemon runs without privilege, system calls cannot
    be given a page of it that was never touched (EFAULT); pread() and pwrite() of File can.
    """

    _handle: Optional[_c.Handle] = None
    _address: int

    def __new__(
        cls,
        handle: _c.Handle,
        readable: bool,
        writable: bool,
        length: Optional[int],
        offset: int,
        access: Optional[int],
        private: bool,
    ) -> Mapping:
        if access is None:
            access = _mmap.ACCESS_COPY if private else _mmap.ACCESS_WRITE if writable else _mmap.ACCESS_READ
        if access not in (_mmap.ACCESS_READ, _mmap.ACCESS_WRITE, _mmap.ACCESS_COPY):
            raise ValueError("access is ACCESS_READ, ACCESS_WRITE or ACCESS_COPY")
        prot = _mmap.PROT_READ | (0 if access == _mmap.ACCESS_READ else _mmap.PROT_WRITE)
        private = private or access == _mmap.ACCESS_COPY
        offset = _c.check_offset(offset)
        if length is not None and length < 0:
            raise ValueError("a negative length")
        # What pgc_mmap() would refuse, and a daemon that is gone, are found here, before there is a range that could be lost.
        size = handle.stat().st_size
        if not readable or (access == _mmap.ACCESS_WRITE and not private and not writable):
            _c.fail(errno.EACCES, handle.name)
        if offset % _mmap.PAGESIZE:
            _c.fail(errno.EINVAL, handle.name)
        if not length:
            length = size - offset
            if length <= 0:
                raise ValueError("nothing to map: the file is empty or ends before the offset")
        if offset < 0 or offset + length > _c.OFF_MAX - _mmap.PAGESIZE:
            _c.fail(errno.EOVERFLOW, handle.name)

        self = super().__new__(cls, -1, length, _RESERVATION, prot)
        with _c.exported(self) as (address, _):
            self._address = address
        flags = _MAP_FIXED | (_MAP_PRIVATE if private else _MAP_SHARED)
        if _c.pgc_mmap(handle.pointer, address, length, prot, flags, offset) != address:
            why = ctypes.get_errno()
            # It left a hole, or if it failed early the first mapping, which then stays: it is only addresses.
            if not _reserve_again(address, length):
                _c.keep_for_ever(self)
            _c.fail(why, handle.name)
        self._handle = handle
        _mappings.add(self)
        return self

    def _leave(self, handle: _c.Handle, length: int) -> None:
        """Before munmap(2): if the daemon does not answer, unmaps without waiting for it, and leaves a mapping of nothing."""
        try:
            handle.stat()
            return
        except OSError:
            pass
        handle.check(_c.pgc_munmap(self._address, length))
        if not _reserve_again(self._address, length):
            _c.keep_for_ever(self)
            raise OSError(errno.ENOMEM, "addresses of a mapping were taken while it was closed", handle.name)

    def close(self) -> None:
        """
        Unmaps it. What is dirty is written out in time; call flush() before to know that it was. BufferError: a memoryview
        or an array still uses it.
        """
        if self.closed:
            return
        try:
            super().resize(-1)  # looks for users first, and then finds the size wrong
        except BufferError:
            raise BufferError("cannot close exported pointers exist") from None
        except (ValueError, TypeError, SystemError):
            pass
        handle = self.__dict__.pop("_handle", None)  # in one step: of two threads that close, one does
        if handle is None:
            return
        try:
            self._leave(handle, len(self))
            super().close()
        except BufferError:
            self._handle = handle  # another thread has begun to use it
            raise

    def __del__(self) -> None:
        # Nobody uses it any more, for whoever does has a reference. mmap.mmap unmaps when this has returned.
        handle = self._handle
        if handle is not None and not self.closed:
            self._leave(handle, len(self))

    def __enter__(self) -> Mapping:
        if self.closed:
            raise ValueError("mmap closed or invalid")
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return "<pagecached.Mapping closed>"
        return f"<pagecached.Mapping of {self._mapped().name!r} length={len(self)}>"

    def _mapped(self) -> _c.Handle:
        handle = self._handle
        if self.closed or handle is None:
            raise ValueError("mmap closed or invalid")
        return handle

    def flush(self, offset: int = 0, size: Optional[int] = None, *, flags: int = MS_SYNC) -> None:  # type: ignore[override]
        """
        As msync(2): after it the store has the bytes of the range, without arguments those of all the mapping. An offset
        within a page means the whole page. flags=MS_ASYNC starts the write-out and does not wait. Does nothing for a private
        mapping.

        ValueError: beyond the mapping. OSError: EIO, ENOSPC: what the store said.
        """
        handle = self._mapped()
        with _c.exported(self) as (address, length):
            if size is None:
                size = length - offset
            if offset < 0 or size < 0 or offset + size > length:
                raise ValueError("flush values out of range")
            before = offset % _mmap.PAGESIZE
            handle.check(_c.pgc_msync(address + offset - before, size + before, flags))

    def madvise(self, option: int, start: int = 0, length: Optional[int] = None) -> None:
        """
        As madvise(2), for all its advice, with mmap.MADV_* and the MADV_* of this module. start is a multiple of the page
        size. MADV_WILLNEED reads up to 32 MiB in without waiting, MADV_POPULATE_READ all of the range, and waits.

        ValueError: start is not in the mapping, or length is negative. OSError: EINVAL: start is not a multiple of the page
        size, or there is no such advice.
        """
        handle = self._mapped()
        with _c.exported(self) as (address, whole):
            if not 0 <= start < whole:
                raise ValueError("madvise start out of bounds")
            if length is not None and length < 0:
                raise ValueError("madvise length invalid")
            n = whole - start if length is None else min(length, whole - start)
            handle.check(_c.pgc_madvise(address + start, n, option))

    def size(self) -> int:
        """Bytes of the file, which may be more or fewer than those of the mapping, len(m)."""
        return self._mapped().stat().st_size

    def resize(self, newsize: int) -> None:
        """Is refused: truncate the file, and map it again."""
        raise io.UnsupportedOperation("a mapping of pagecached cannot be resized")


_mappings: weakref.WeakSet[Mapping] = weakref.WeakSet()


@atexit.register
def _leave_to_the_kernel() -> None:
    # The interpreter empties modules before it frees objects, and then __del__() would lack what it needs. The end of the process
    # unmaps without waiting for anyone.
    for m in list(_mappings):
        _c.keep_for_ever(m)
