# SPDX-License-Identifier: Apache-2.0
"""
The C library, by ctypes: its functions, its handle, its errors, and buffers as it wants them.

ctypes lets other threads run during a call. A handle is owned by a Python object, and every call holds a reference to that
object until it has returned, so that pgc_close() is the last call on a handle whatever other threads do.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import operator
import os
import platform
from typing import Any, Dict, Iterator, NoReturn, Tuple, Union

Name = Union[str, bytes, int]


def _load() -> ctypes.CDLL:
    path = os.environ.get("PAGECACHED_LIBRARY")
    if path:
        return ctypes.CDLL(path, use_errno=True)
    try:
        return ctypes.CDLL("libpagecached.so.0", use_errno=True)
    except OSError as why:
        found = ctypes.util.find_library("pagecached")
        if not found:
            raise ImportError(f"{why} (PAGECACHED_LIBRARY may say where it is)") from why
        return ctypes.CDLL(found, use_errno=True)


_lib = _load()
_libc = ctypes.CDLL(None, use_errno=True)

_p, _int, _size, _ssize, _off = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_ssize_t, ctypes.c_int64


def _function(lib: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    f = getattr(lib, name)
    f.restype, f.argtypes = result, arguments
    return f


pgc_open = _function(_lib, "pgc_open", _int, ctypes.POINTER(_p), ctypes.c_char_p, _int, ctypes.c_uint)
pgc_fdopen = _function(_lib, "pgc_fdopen", _int, ctypes.POINTER(_p), _int)
pgc_close = _function(_lib, "pgc_close", _int, _p)
pgc_mmap = _function(_lib, "pgc_mmap", _p, _p, _p, _size, _int, _int, _off)
pgc_munmap = _function(_lib, "pgc_munmap", _int, _p, _size)
pgc_msync = _function(_lib, "pgc_msync", _int, _p, _size, _int)
pgc_madvise = _function(_lib, "pgc_madvise", _int, _p, _size, _int)
pgc_fadvise = _function(_lib, "pgc_fadvise", _int, _p, _off, _off, _int)
pgc_pread = _function(_lib, "pgc_pread", _ssize, _p, _p, _size, _off)
pgc_pwrite = _function(_lib, "pgc_pwrite", _ssize, _p, _p, _size, _off)
pgc_append = _function(_lib, "pgc_append", _ssize, _p, _p, _size, ctypes.POINTER(_off))
pgc_fsync = _function(_lib, "pgc_fsync", _int, _p)
pgc_fdatasync = _function(_lib, "pgc_fdatasync", _int, _p)
pgc_ftruncate = _function(_lib, "pgc_ftruncate", _int, _p, _off)
pgc_fallocate = _function(_lib, "pgc_fallocate", _int, _p, _int, _off, _off)
pgc_fstat = _function(_lib, "pgc_fstat", _int, _p, _p)
pgc_keep = _function(_lib, "pgc_keep", _int, _p, _off, _off, ctypes.c_bool)
_pgc_version = _function(_lib, "pgc_version", ctypes.c_char_p)
libc_mmap = _function(_libc, "mmap", _p, _p, _size, _int, _int, _int, _off)
libc_munmap = _function(_libc, "munmap", _int, _p, _size)

MAP_FAILED = ctypes.c_void_p(-1).value


def library_version() -> str:
    """The version of the C library, "MAJOR.MINOR.PATCH"."""
    return _pgc_version().decode()


def fail(errno: int, name: Name) -> NoReturn:
    """Raises the OSError of that number; it is a FileNotFoundError or another subclass where Python has one."""
    raise OSError(errno, os.strerror(errno), name)


OFF_MAX = (1 << 63) - 1


def check_offset(value: int) -> int:
    """ctypes would cut off silently what does not fit an off_t."""
    value = operator.index(value)
    if not -OFF_MAX - 1 <= value <= OFF_MAX:
        raise OverflowError("an offset or size does not fit 64 bits")
    return value


_increase_references = ctypes.pythonapi.Py_IncRef
_increase_references.restype, _increase_references.argtypes = None, (ctypes.py_object,)


def keep_for_ever(obj: Any) -> None:
    """It is never freed, not even when the interpreter shuts down."""
    _increase_references(obj)


class Handle:
    """Owns a struct pgc_file. The last reference closes it: that of a File, of a mapping, or of a call in another thread."""

    __slots__ = ("pointer", "name")

    def __init__(self, name: Name) -> None:
        self.pointer = ctypes.c_void_p()
        self.name = name

    # As a default, so that it is still there when the interpreter shuts down and empties modules.
    def __del__(self, close: Any = pgc_close) -> None:
        if self.pointer:
            close(self.pointer)

    def check(self, result: int) -> int:
        if result < 0:
            fail(-result, self.name)
        return result

    def stat(self) -> os.stat_result:
        st = _Stat()
        self.check(pgc_fstat(self.pointer, ctypes.byref(st)))
        return st.result()


# --- struct stat ---

_i64, _u64, _u32 = ctypes.c_int64, ctypes.c_uint64, ctypes.c_uint32
_TIMES = [(f"{which}{part}", _i64) for which in ("atime", "mtime", "ctime") for part in ("", "_nsec")]
# Of glibc and musl alike; the second is what the kernel has for all machines that came later.
_STAT_X86_64 = [
    ("dev", _u64), ("ino", _u64), ("nlink", _u64), ("mode", _u32), ("uid", _u32), ("gid", _u32), ("pad0", _u32),
    ("rdev", _u64), ("size", _i64), ("blksize", _i64), ("blocks", _i64), *_TIMES, ("unused", _i64 * 3),
]  # fmt: skip
_STAT_GENERIC = [
    ("dev", _u64), ("ino", _u64), ("mode", _u32), ("nlink", _u32), ("uid", _u32), ("gid", _u32),
    ("rdev", _u64), ("pad0", _u64), ("size", _i64), ("blksize", ctypes.c_int32), ("pad1", ctypes.c_int32), ("blocks", _i64),
    *_TIMES, ("unused", _u32 * 2),
]  # fmt: skip
_STAT_OF = {"x86_64": _STAT_X86_64, "aarch64": _STAT_GENERIC, "riscv64": _STAT_GENERIC, "loongarch64": _STAT_GENERIC}

if platform.machine() not in _STAT_OF or ctypes.sizeof(ctypes.c_void_p) != 8:
    raise ImportError(f"pagecached does not know the layout of struct stat on {platform.machine()}")


class _Stat(ctypes.Structure):
    _fields_ = _STAT_OF[platform.machine()]

    def result(self) -> os.stat_result:
        seconds = (self.atime, self.mtime, self.ctime)
        nanoseconds = (self.atime_nsec, self.mtime_nsec, self.ctime_nsec)
        more: Dict[str, Any] = {"st_blksize": self.blksize, "st_blocks": self.blocks, "st_rdev": self.rdev}
        for which, s, ns in zip(("atime", "mtime", "ctime"), seconds, nanoseconds):
            more[f"st_{which}"] = s + 1e-9 * ns
            more[f"st_{which}_ns"] = s * 10**9 + ns
        first = (self.mode, self.ino, self.dev, self.nlink, self.uid, self.gid, self.size, *seconds)
        return os.stat_result(first, more)


# --- buffers ---


class _PyBuffer(ctypes.Structure):
    """Py_buffer of Python's C interface."""

    _fields_ = [
        ("buf", ctypes.c_void_p), ("obj", ctypes.c_void_p), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_void_p), ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    ]  # fmt: skip


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.restype, _get_buffer.argtypes = ctypes.c_int, (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.restype, _release_buffer.argtypes = None, (ctypes.POINTER(_PyBuffer),)
_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype, _new_bytes.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_ssize_t)
_bytes_address = ctypes.pythonapi.PyBytes_AsString
_bytes_address.restype, _bytes_address.argtypes = ctypes.c_void_p, (ctypes.py_object,)


@contextlib.contextmanager
def exported(obj: Any, writable: bool = False) -> Iterator[Tuple[int, int]]:
    """
    Address and length of an object's buffer, which stays where it is as long as this lasts. TypeError: it has no buffer;
    BufferError: it is not contiguous, or not writable and should be.
    """
    view = _PyBuffer()
    _get_buffer(obj, view, 1 if writable else 0)  # PyBUF_WRITABLE, PyBUF_SIMPLE; raises by itself
    try:
        yield view.buf or 0, view.len
    finally:
        _release_buffer(view)


def read_bytes(handle: Handle, n: int, off: int) -> bytes:
    """Up to n bytes as bytes, read into the object itself: nobody else has seen it yet, so it may still change."""
    data = _new_bytes(None, n)
    got = handle.check(pgc_pread(handle.pointer, _bytes_address(data), n, off)) if n else 0
    return data if got == n else data[:got]
