#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Python package against a real daemon. Needs the environment that support.py lists; meson's test "python" sets it."""

import array
import ctypes
import errno
import gc
import mmap
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import unittest
import unittest.mock

sys.dont_write_bytecode = True
import support  # noqa: E402

sys.path.insert(0, support.PACKAGE)
import pagecached  # noqa: E402
from pagecached import _library  # noqa: E402

try:
    import numpy
except ImportError:
    numpy = None

PAGE = mmap.PAGESIZE


class Reading(support.DaemonTest):
    def test_what_is_written_is_read(self):
        with pagecached.open("f", "x+") as f:
            self.assertEqual(f.pwrite(b"hello, world", 10), 12)
            self.assertEqual(f.pread(5, 17), b"world")

    def test_a_read_at_the_end_of_file_is_short(self):
        self.make("f", b"12345")
        with pagecached.open("f") as f:
            self.assertEqual((f.pread(100, 3), f.pread(100, 5), f.pread(0, 0)), (b"45", b"", b""))

    def test_preadinto_fills_any_writable_buffer(self):
        self.make("f", support.pattern(100))
        with pagecached.open("f") as f:
            for buffer in (bytearray(10), array.array("H", [0] * 5), memoryview(bytearray(20))[5:15]):
                self.assertEqual(f.preadinto(buffer, 30), 10)
                self.assertEqual(bytes(buffer), support.pattern(100)[30:40])

    def test_preadinto_refuses_a_read_only_buffer(self):
        self.make("f", b"12345")
        with pagecached.open("f") as f, self.assertRaises(BufferError):
            f.preadinto(b"xxxxx", 0)

    def test_preadinto_fills_a_mapping_of_another_file(self):
        self.make("f", support.pattern(3 * PAGE))
        self.make("g", bytes(3 * PAGE))
        with pagecached.open("f") as f, pagecached.open("g", "r+") as g, g.mmap() as m:
            self.assertEqual(f.preadinto(m, 0), 3 * PAGE)
            self.assertEqual(g.pread(3 * PAGE, 0), support.pattern(3 * PAGE))

    def test_a_negative_count_is_refused(self):
        self.make("f", b"12345")
        with pagecached.open("f") as f, self.assertRaises(ValueError):
            f.pread(-1, 0)

    def test_an_offset_of_more_than_64_bits_is_not_cut(self):
        self.make("f", b"12345")
        with pagecached.open("f") as f, self.assertRaises(OverflowError):
            f.pread(5, 1 << 64)

    def test_another_thread_runs_while_a_call_waits(self):
        self.make("f", b"12345")
        with pagecached.open("f") as f:
            self.daemon.send_signal(signal.SIGSTOP)
            try:
                reader = threading.Thread(target=f.pread, args=(5, 0))
                reader.start()
                time.sleep(0.1)
                self.assertTrue(reader.is_alive())
            finally:
                self.daemon.send_signal(signal.SIGCONT)
            reader.join()

    def test_threads_read_through_one_file(self):
        data = support.pattern(1 << 20)
        self.make("f", data)
        wrong = []

        def scan(f, start):
            for off in range(start, 1 << 20, 50000):
                if f.pread(1000, off) != data[off : off + 1000]:
                    wrong.append(off)

        with pagecached.open("f") as f:
            threads = [threading.Thread(target=scan, args=(f, i * 999)) for i in range(4)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        self.assertEqual(wrong, [])


class Writing(support.DaemonTest):
    def test_after_fsync_the_real_file_has_it(self):
        with pagecached.open("f", "w+") as f:
            f.pwrite(support.pattern(10000), 0)
            f.fsync()
            self.assertEqual(self.in_file("f"), support.pattern(10000))

    def test_after_fdatasync_the_real_file_has_it(self):
        with pagecached.open("f", "w+") as f:
            f.pwrite(b"12345", 0)
            f.fdatasync()
            self.assertEqual(self.in_file("f"), b"12345")

    def test_with_sync_a_write_is_in_the_real_file_at_once(self):
        with pagecached.open("f", "w", sync=True) as f:
            f.pwrite(b"12345", 0)
            self.assertEqual(self.in_file("f"), b"12345")

    def test_any_contiguous_buffer_is_written(self):
        with pagecached.open("f", "w+") as f:
            for buffer in (b"abcdef", bytearray(b"abcdef"), memoryview(b"xabcdefx")[1:7], array.array("B", b"abcdef")):
                f.truncate(0)
                self.assertEqual(f.pwrite(buffer, 0), 6)
                self.assertEqual(f.pread(10, 0), b"abcdef")

    def test_a_buffer_that_is_not_contiguous_is_refused(self):
        with pagecached.open("f", "w+") as f, self.assertRaises(BufferError):
            f.pwrite(memoryview(b"abcdef")[::2], 0)

    def test_text_is_refused(self):
        with pagecached.open("f", "w+") as f, self.assertRaises(TypeError):
            f.pwrite("abc", 0)

    def test_append_tells_where_the_bytes_went(self):
        self.make("f", b"12345")
        with pagecached.open("f", "r+") as f:
            self.assertEqual((f.append(b"abc"), f.append(b"def")), (5, 8))
            self.assertEqual(f.pread(100, 0), b"12345abcdef")

    def test_truncate_changes_the_size(self):
        self.make("f", b"12345")
        with pagecached.open("f", "r+") as f:
            f.truncate(3)
            self.assertEqual((f.size, f.pread(9, 0)), (3, b"123"))
            f.truncate(100)
            self.assertEqual((f.size, f.pread(9, 0)), (100, b"123" + bytes(6)))

    def test_fallocate_makes_a_file_longer_and_punches_holes(self):
        self.make("f", support.pattern(3 * PAGE))
        with pagecached.open("f", "r+") as f:
            f.fallocate(0, 5 * PAGE)
            self.assertEqual(f.size, 5 * PAGE)
            f.fallocate(PAGE, PAGE, 3)  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
            self.assertEqual(f.pread(PAGE, PAGE), bytes(PAGE))
            self.assertEqual(f.pread(PAGE, 0), support.pattern(PAGE))

    def test_stat_is_that_of_the_real_file(self):
        self.make("f", support.pattern(5000))
        os.chmod("f", 0o640)
        with pagecached.open("f") as f:
            mine, real = f.stat(), os.stat("f")
        for field in dir(real):
            if field.startswith("st_"):
                self.assertEqual(getattr(mine, field), getattr(real, field), field)

    def test_size_counts_what_was_not_written_out_yet(self):
        with pagecached.open("f", "w+") as f:
            f.pwrite(b"x", 9999)
            self.assertEqual((f.size, f.stat().st_size), (10000, 10000))

    def test_advice_to_read_in_makes_pages_resident(self):
        self.make("f", support.pattern(100 * PAGE))
        with pagecached.open("f") as f:
            f.advise(os.POSIX_FADV_WILLNEED, 0, 100 * PAGE)
            end = time.monotonic() + 10
            while self.control("files", "f")[0]["resident"] < 100:
                self.assertLess(time.monotonic(), end, "still not resident")
                time.sleep(0.01)

    def test_kept_pages_are_written_by_every_sync(self):
        self.make("f", bytes(PAGE))
        with pagecached.open("f", "r+") as f:
            f.keep(0, PAGE)
            with f.mmap() as m:
                for text in (b"one", b"two"):
                    m[:3] = text
                    f.fsync()
                    self.assertEqual(self.in_file("f")[:3], text)
            f.keep(0, PAGE, False)


class Opening(support.DaemonTest):
    def test_a_file_that_is_not_there(self):
        with self.assertRaises(FileNotFoundError) as c:
            pagecached.open("missing")
        self.assertEqual((c.exception.errno, c.exception.filename), (errno.ENOENT, "missing"))

    def test_a_folder(self):
        with self.assertRaises(IsADirectoryError):
            pagecached.open(self.dir)

    def test_x_does_not_open_what_exists(self):
        self.make("f", b"12345")
        with self.assertRaises(FileExistsError):
            pagecached.open("f", "x")

    def test_w_truncates_and_a_does_not(self):
        self.make("f", b"12345")
        with pagecached.open("f", "a+") as f:
            self.assertEqual(f.size, 5)
        with pagecached.open("f", "w+") as f:
            self.assertEqual(f.size, 0)

    def test_modes_of_text_are_refused(self):
        for mode in ("rt", "rw", "", "+", "rbb"):
            with self.assertRaises(ValueError):
                pagecached.open("f", mode)

    def test_a_path_may_be_bytes_or_a_pathlib_path(self):
        import pathlib

        self.make("f\udcff", b"12345")
        with pagecached.open(b"f\xff") as f, pagecached.open(pathlib.Path("f\udcff")) as g:
            self.assertEqual((f.size, g.size), (5, 5))

    def test_a_zero_byte_in_a_path_is_refused(self):
        self.make("f", b"12345")
        with self.assertRaises(ValueError):
            pagecached.open("f\0x")

    def test_permissions_of_a_file_that_is_made(self):
        old = os.umask(0o022)
        self.addCleanup(os.umask, old)
        pagecached.open("f", "x", permissions=0o660).close()
        self.assertEqual(os.stat("f").st_mode & 0o777, 0o640)

    def test_an_object_by_its_uri(self):
        with pagecached.open("mem:a", "r+") as f, pagecached.open("mem:a") as g:
            f.pwrite(b"12345", 0)
            self.assertEqual(g.pread(9, 0), b"12345")

    def test_a_descriptor(self):
        self.make("f", b"12345")
        with open("f", "r+b") as real:
            f = pagecached.fdopen(real.fileno())
        with f:
            f.pwrite(b"x", 0)
            self.assertEqual((f.pread(9, 0), f.mode), (b"x2345", "r+"))

    def test_a_descriptor_that_is_not_open(self):
        with self.assertRaises(OSError) as c:
            pagecached.fdopen(999)
        self.assertEqual((c.exception.errno, c.exception.filename), (errno.EBADF, 999))

    def test_writing_a_file_that_was_opened_for_reading(self):
        path = self.make("f", b"12345")
        with pagecached.open(path) as f, self.assertRaises(OSError) as c:
            f.pwrite(b"x", 0)
        self.assertEqual((c.exception.errno, c.exception.filename), (errno.EBADF, path))

    def test_a_negative_offset(self):
        self.make("f", b"12345")
        with pagecached.open("f") as f, self.assertRaises(OSError) as c:
            f.pread(1, -1)
        self.assertEqual(c.exception.errno, errno.EINVAL)

    def test_a_closed_file_refuses_everything(self):
        self.make("f", b"12345")
        with pagecached.open("f", "r+") as f:
            self.assertFalse(f.closed)
        self.assertTrue(f.closed)
        for call in (lambda: f.pread(1, 0), lambda: f.pwrite(b"x", 0), f.fsync, f.stat, f.mmap, f.__enter__):
            with self.assertRaises(ValueError):
                call()
        f.close()

    def test_no_daemon(self):
        self.make("f", b"12345")
        os.environ["PAGECACHED_SOCKET"] = os.path.join(self.dir, "no-socket")
        with self.assertRaises(ConnectionRefusedError) as c:
            pagecached.open("f")
        self.assertEqual(c.exception.filename, "f")

    def test_a_daemon_that_dies(self):
        self.make("f", b"12345")
        with pagecached.open("f") as f:
            self.kill_daemon()
            with self.assertRaises(ConnectionResetError) as c:
                f.pread(1, 0)
            self.assertEqual(c.exception.filename, "f")

    def test_descriptors_do_not_pile_up(self):
        self.make("f", support.pattern(PAGE))

        def use():
            f = pagecached.open("f", "r+")
            m = f.mmap()
            self.assertEqual(m[0], support.pattern(1)[0])
            return f, m

        use()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(100):
            use()
        # The daemon says when the last mapping of a closed file is gone; the next file opened frees what it was.
        end = time.monotonic() + 10
        while len(os.listdir("/proc/self/fd")) > before + 10:
            self.assertLess(time.monotonic(), end, "descriptors are left")
            time.sleep(0.01)
            pagecached.open("f").close()

    def test_the_package_has_the_librarys_version(self):
        self.assertEqual(pagecached.__version__, pagecached.library_version())


class Mapped(support.DaemonTest):
    def setUp(self):
        super().setUp()
        self.data = support.pattern(10 * PAGE)
        self.make("f", self.data)

    def test_it_shows_the_file(self):
        with pagecached.open("f") as f, f.mmap() as m:
            self.assertEqual((len(m), m[:], m.size()), (10 * PAGE, self.data, 10 * PAGE))

    def test_indices_and_slices_are_set_as_in_an_mmap(self):
        with pagecached.open("f", "r+") as f, f.mmap() as m:
            m[5] = 7
            m[10:20] = b"0123456789"
            m[20:26:2] = b"xyz"
            self.assertEqual((m[5], f.pread(1, 5), f.pread(10, 10)), (7, b"\x07", b"0123456789"))
            self.assertEqual(f.pread(5, 20)[::2], b"xyz")
            with self.assertRaises(IndexError):
                m[10 * PAGE]

    def test_a_part_from_an_offset(self):
        with pagecached.open("f") as f:
            self.assertEqual(f.mmap(100, PAGE)[:], self.data[PAGE : PAGE + 100])
            self.assertEqual(f.mmap(offset=9 * PAGE)[:], self.data[9 * PAGE :])

    def test_flush_puts_it_into_the_real_file(self):
        with pagecached.open("f", "r+") as f, f.mmap() as m:
            m[:3] = b"one"
            m[5 * PAGE : 5 * PAGE + 3] = b"two"
            m.flush(5 * PAGE + 1, 2)
            self.assertEqual(self.in_file("f")[5 * PAGE :][:3], b"two")
            self.assertEqual(self.in_file("f")[:3], self.data[:3])
            m.flush()
            self.assertEqual(self.in_file("f")[:3], b"one")

    def test_flush_beyond_the_end_is_refused(self):
        with pagecached.open("f", "r+") as f, f.mmap() as m, self.assertRaises(ValueError):
            m.flush(0, 11 * PAGE)

    def test_madvise_reads_pages_in(self):
        with pagecached.open("f") as f, f.mmap() as m:
            m.madvise(pagecached.MADV_POPULATE_READ)
            self.assertEqual(self.control("files", "f")[0]["resident"], 10)

    def test_madvise_refuses_what_is_no_advice(self):
        with pagecached.open("f") as f, f.mmap() as m, self.assertRaises(OSError) as c:
            m.madvise(9999)
        self.assertEqual((c.exception.errno, c.exception.filename), (errno.EINVAL, "f"))

    def test_what_is_stored_in_a_private_mapping_does_not_reach_the_file(self):
        for how in ({"private": True}, {"access": mmap.ACCESS_COPY}):
            with pagecached.open("f", "r+") as f, f.mmap(**how) as m:
                m[:5] = b"mine!"
                m.flush()
                f.fsync()
                self.assertEqual((m[:5], f.pread(5, 0), self.in_file("f")), (b"mine!", self.data[:5], self.data))

    def test_a_file_opened_for_reading_has_a_private_mapping_that_is_writable(self):
        with pagecached.open("f") as f, f.mmap(private=True) as m:
            m[0] = 0
            self.assertEqual(m[0], 0)

    def test_a_mapping_for_reading_cannot_be_written(self):
        for mode, how in (("r", {}), ("r+", {"access": mmap.ACCESS_READ})):
            with pagecached.open("f", mode) as f, f.mmap(**how) as m:
                self.assertTrue(memoryview(m).readonly)
                with self.assertRaises(TypeError):
                    m[0] = 1

    def test_a_mapping_for_writing_needs_a_file_opened_so(self):
        with pagecached.open("f") as f, self.assertRaises(PermissionError) as c:
            f.mmap(access=mmap.ACCESS_WRITE)
        self.assertEqual((c.exception.errno, c.exception.filename), (errno.EACCES, "f"))

    def test_a_file_opened_for_writing_only_is_not_mapped(self):
        with pagecached.open("f", "a") as f, self.assertRaises(PermissionError):
            f.mmap()

    def test_an_offset_within_a_page_is_refused(self):
        with pagecached.open("f") as f, self.assertRaises(OSError) as c:
            f.mmap(PAGE, 1)
        self.assertEqual(c.exception.errno, errno.EINVAL)

    def test_an_empty_file_has_nothing_to_map(self):
        self.make("g", b"")
        with pagecached.open("g") as f, self.assertRaises(ValueError):
            f.mmap()

    def test_a_mapping_that_has_no_room_is_refused(self):
        with pagecached.open("f") as f, self.assertRaises(OSError) as c:
            f.mmap(1 << 62)
        self.assertEqual(c.exception.errno, errno.ENOMEM)

    def test_it_outlives_its_file(self):
        with pagecached.open("f", "r+") as f:
            m = f.mmap()
        with m:
            m[9 * PAGE] = 200
            m.flush()
            self.assertEqual(self.in_file("f")[9 * PAGE], 200)

    def test_two_mappings_share_their_bytes(self):
        with pagecached.open("f", "r+") as f, pagecached.open("f") as g, f.mmap() as m, g.mmap() as n:
            self.assertEqual(n[77], self.data[77])
            m[77] = 0
            self.assertEqual(n[77], 0)

    def test_it_grows_with_a_file_that_is_longer_later(self):
        with pagecached.open("f", "r+") as f, f.mmap(20 * PAGE) as m:
            f.truncate(20 * PAGE)
            m[20 * PAGE - 1] = 9
            self.assertEqual(f.pread(1, 20 * PAGE - 1), b"\x09")

    def test_a_touch_beyond_the_end_of_file_is_a_sigbus(self):
        with pagecached.open("f") as f, f.mmap(20 * PAGE) as m:
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGBUS, signal.SIG_DFL)
                m[15 * PAGE]
                os._exit(0)
            self.assertEqual(self.wait(pid), -signal.SIGBUS)

    @staticmethod
    def wait(pid):
        status = os.waitpid(pid, 0)[1]
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def test_a_resize_is_refused(self):
        with pagecached.open("f", "r+") as f, f.mmap() as m:
            with self.assertRaises(OSError):
                m.resize(PAGE)
            self.assertEqual(m[:], self.data)

    def test_a_forked_child_has_it(self):
        with pagecached.open("f", "r+") as f, f.mmap() as m:
            m[0] = 1
            pid = os.fork()
            if pid == 0:
                m[PAGE] = m[0] + 1
                right = m[2 * PAGE :] == self.data[2 * PAGE :] and f.pread(1, 0) == b"\x01"
                m.close()
                os._exit(0 if right else 1)
            self.assertEqual(self.wait(pid), 0)
            self.assertEqual((m[PAGE], f.pread(1, PAGE)), (2, b"\x02"))


class Addresses(support.DaemonTest):
    """
    That nothing but the mapping's own range is ever unmapped: what another thread maps where a call of the library has left a hole
    is simulated in that call.
    """

    def setUp(self):
        super().setUp()
        self.make("f", support.pattern(4 * PAGE))
        self.hole = None

    def take(self, address, length):
        """Maps a range as another thread would, with bytes of its own."""
        self.hole = address
        anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100000  # MAP_FIXED_NOREPLACE
        self.assertEqual(_library.libc_mmap(address, length, mmap.PROT_READ | mmap.PROT_WRITE, anonymous, -1, 0), address)
        ctypes.memset(address, 0x55, length)
        self.addCleanup(_library.libc_munmap, address, length)

    def assert_still_taken(self):
        gc.collect()
        self.assertEqual(ctypes.string_at(self.hole, 4 * PAGE), b"\x55" * 4 * PAGE)

    def fail_to_map(self, then):
        """pgc_mmap() that unmaps what was there and fails."""

        def pgc_mmap(pointer, address, length, prot, flags, offset):
            self.assertEqual(_library.libc_munmap(address, length), 0)
            then(address, length)
            ctypes.set_errno(errno.ENOSPC)
            return _library.MAP_FAILED

        with unittest.mock.patch.object(_library, "pgc_mmap", pgc_mmap):
            with pagecached.open("f") as f, self.assertRaises(OSError) as c:
                f.mmap()
        self.assertEqual((c.exception.errno, c.exception.filename), (errno.ENOSPC, "f"))

    def test_a_mapping_that_failed_leaves_no_range_behind(self):
        def note(address, length):
            self.hole = address

        self.fail_to_map(note)
        gc.collect()
        self.take(self.hole, 4 * PAGE)  # is free

    def test_a_mapping_that_failed_does_not_unmap_what_took_its_place(self):
        self.fail_to_map(self.take)
        self.assert_still_taken()

    def test_a_mapping_that_is_closed_after_the_daemon_died_does_not_unmap_what_took_its_place(self):
        munmap = _library.pgc_munmap

        def pgc_munmap(address, length):
            self.assertEqual(munmap(address, length), 0)
            self.take(address, length)
            return 0

        with pagecached.open("f", "r+") as f:
            m = f.mmap()
        self.kill_daemon()
        with unittest.mock.patch.object(_library, "pgc_munmap", pgc_munmap), self.assertRaises(OSError):
            m.close()
        m.close()
        self.assert_still_taken()
        del m
        self.assert_still_taken()


class Lifetime(support.DaemonTest):
    """That memory in use is never unmapped, and that what is not in use is."""

    def setUp(self):
        super().setUp()
        self.data = support.pattern(4 * PAGE)
        self.make("f", self.data)
        self.file = pagecached.open("f", "r+")
        self.addCleanup(self.file.close)

    def mappings(self):
        return self.control("mappings", "f")

    def assert_unmapped(self):
        end = time.monotonic() + 10
        while self.mappings():
            self.assertLess(time.monotonic(), end, "still mapped")
            time.sleep(0.01)

    def test_close_unmaps(self):
        m = self.file.mmap()
        self.assertEqual(len(self.mappings()), 1)
        m.close()
        self.assertTrue(m.closed)
        self.assert_unmapped()

    def test_the_end_of_a_with_block_unmaps(self):
        with self.file.mmap() as m:
            self.assertFalse(m.closed)
        self.assertTrue(m.closed)
        self.assert_unmapped()

    def test_the_last_reference_unmaps(self):
        m = self.file.mmap()
        self.assertEqual(m[0], self.data[0])
        del m
        gc.collect()
        self.assert_unmapped()

    def test_a_closed_mapping_refuses_everything(self):
        m = self.file.mmap()
        m.close()
        m.close()
        for call in (lambda: m[0], lambda: memoryview(m), m.flush, m.size, m.__enter__, lambda: m.madvise(0), lambda: len(m)):
            with self.assertRaises(ValueError):
                call()

    def test_close_raises_while_a_memoryview_is_there(self):
        m = self.file.mmap()
        view = memoryview(m)
        part = view[PAGE : 2 * PAGE]
        with self.assertRaises(BufferError):
            m.close()
        view.release()
        with self.assertRaises(BufferError):
            m.close()
        self.assertEqual((m.closed, bytes(part)), (False, self.data[PAGE : 2 * PAGE]))
        part[0] = 99
        self.assertEqual(self.file.pread(1, PAGE), b"\x63")
        part.release()
        m.close()
        self.assert_unmapped()

    def test_a_memoryview_keeps_the_memory_of_a_mapping_that_is_dropped(self):
        view = memoryview(self.file.mmap())
        gc.collect()
        self.file.close()
        self.assertEqual(bytes(view), self.data)
        view[3] = 44
        with pagecached.open("f") as f:
            self.assertEqual(f.pread(1, 3), b"\x2c")
        del view
        gc.collect()
        self.assert_unmapped()

    def test_threads_that_close_and_use_it_meet_a_valueerror_and_nothing_worse(self):
        odd = []

        def use(m):
            try:
                while True:
                    if bytes(memoryview(m)[:8]) != self.data[:8]:
                        odd.append("wrong bytes")
            except ValueError:
                pass
            except Exception as e:  # noqa: BLE001
                odd.append(repr(e))

        def close(m):
            while not m.closed:
                try:
                    m.close()
                except BufferError:
                    pass

        for _ in range(30):
            m = self.file.mmap()
            threads = [threading.Thread(target=t, args=(m,)) for t in (use, use, close, close)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        self.assertEqual(odd, [])

    def test_a_file_closed_during_a_call_of_another_thread_stays_until_it_is_done(self):
        got = []
        self.daemon.send_signal(signal.SIGSTOP)
        try:
            reader = threading.Thread(target=lambda: got.append(self.file.pread(PAGE, 0)))
            reader.start()
            time.sleep(0.1)
            self.file.close()
        finally:
            self.daemon.send_signal(signal.SIGCONT)
        reader.join()
        self.assertEqual(got, [self.data[:PAGE]])

    def test_close_does_not_wait_for_a_daemon_that_is_dead(self):
        m = self.file.mmap()
        self.assertEqual(m[0], self.data[0])
        view = memoryview(m)
        self.kill_daemon()
        with self.assertRaises(BufferError):
            m.close()
        view.release()
        m.close()
        self.assertTrue(m.closed)

    def test_the_last_reference_does_not_wait_for_a_daemon_that_is_dead(self):
        m = self.file.mmap()
        self.assertEqual(m[0], self.data[0])
        self.kill_daemon()
        self.assertEqual(self.count_mappings(), 1)
        del m
        gc.collect()
        self.assertEqual(self.count_mappings(), 0)

    def test_an_interpreter_with_mappings_ends_when_the_daemon_is_dead(self):
        out = self.run_python(
            "import os, signal, sys, time, pagecached\n"
            "f = pagecached.open('f', 'r+')\n"
            "m, n = f.mmap(), f.mmap()\n"
            "view = memoryview(n)\n"
            "sys.kept_longest = f.mmap()\n"  # is freed when the package's modules are empty already
            "print(m[0], view[1], sys.kept_longest[2])\n"
            "os.kill(int(sys.argv[1]), signal.SIGKILL)\n"
            "while True:\n"
            "    try:\n"
            "        f.stat()\n"
            "    except ConnectionResetError:\n"
            "        break\n"
            "    time.sleep(0.01)\n",
            str(self.daemon.pid),
        )
        self.daemon.wait()
        self.assertEqual(out, f"{self.data[0]} {self.data[1]} {self.data[2]}\n")


class Numpy(support.DaemonTest):
    def setUp(self):
        super().setUp()
        if numpy is None:
            support.missing(self, "no numpy")

    def test_what_is_stored_by_numpy_is_read_through_another_handle_and_reaches_the_file(self):
        with pagecached.open("f", "w+") as f, pagecached.open("f") as g:
            f.truncate(8 * 10000)
            m = f.mmap()
            a = numpy.frombuffer(m, dtype="<u8")
            a[:] = numpy.arange(10000) * 3
            self.assertEqual(g.pread(8, 8 * 500), (1500).to_bytes(8, "little"))
            f.fsync()
            self.assertTrue((numpy.fromfile("f", dtype="<u8") == numpy.arange(10000) * 3).all())

    def test_frombuffer_and_ndarray_share_the_memory(self):
        self.make("f", bytes(2 * PAGE))
        with pagecached.open("f", "r+") as f:
            m = f.mmap()
            a = numpy.frombuffer(m, dtype="u1")
            b = numpy.ndarray((2, PAGE), "u1", buffer=m)
            self.assertTrue(numpy.shares_memory(a, b) and a.flags.writeable and b.flags.writeable)
            b[1, 7] = 5
            self.assertEqual((a[PAGE + 7], m[PAGE + 7], f.pread(1, PAGE + 7)), (5, 5, b"\x05"))
            f.pwrite(b"\x06", PAGE + 7)
            self.assertEqual(a[PAGE + 7], 6)

    def test_an_array_of_a_mapping_for_reading_is_read_only(self):
        self.make("f", bytes(PAGE))
        with pagecached.open("f") as f:
            a = numpy.frombuffer(f.mmap(), dtype="u1")
            self.assertFalse(a.flags.writeable)

    def test_an_array_keeps_the_memory_of_a_mapping_that_is_dropped(self):
        self.make("f", support.pattern(50 * PAGE))
        with pagecached.open("f", "r+") as f:
            a = numpy.frombuffer(f.mmap(), dtype="u1")[10 * PAGE :]
        gc.collect()
        self.assertEqual(a.tobytes(), support.pattern(50 * PAGE)[10 * PAGE :])
        a[0] = 3
        with pagecached.open("f") as f:
            self.assertEqual(f.pread(1, 10 * PAGE), b"\x03")

    def test_close_raises_while_an_array_is_there(self):
        self.make("f", bytes(PAGE))
        with pagecached.open("f", "r+") as f:
            m = f.mmap()
            a = numpy.frombuffer(m, dtype="u1")
            with self.assertRaises(BufferError):
                m.close()
            a[0] = 1
            del a
            m.close()

    def test_arrays_are_read_and_written_by_calls(self):
        with pagecached.open("f", "w+") as f:
            a = numpy.arange(1000, dtype="<i4").reshape(10, 100)
            self.assertEqual(f.pwrite(a, 0), 4000)
            b = numpy.zeros((10, 100), dtype="<i4")
            self.assertEqual(f.preadinto(b, 0), 4000)
            self.assertTrue((a == b).all())

    def test_the_example_of_the_readme(self):
        with open(os.path.join(support.PACKAGE, "README.md")) as f:
            text = f.read()
        program = re.search(r"```python\n(.*?)```", text, re.S).group(1)
        printed = re.search(r"```text\n(.*?)```", text, re.S).group(1)
        self.assertEqual(self.run_python(program), printed)


class LargerThanMemory(support.DaemonTest):
    memory_max = "16M"

    def setUp(self):
        super().setUp()
        if numpy is None:
            support.missing(self, "no numpy")
        self.numbers = numpy.arange(64 << 17, dtype="<u8")
        self.numbers.tofile("f")

    def test_a_file_is_scanned_by_numpy(self):
        with pagecached.open("f") as f:
            a = numpy.frombuffer(f.mmap(), dtype="<u8")
            self.assertEqual(int(a.sum()), int(self.numbers.sum()))
            self.assertTrue((a == self.numbers).all())
            self.assertLessEqual(self.control("status")["memory_used"], 16 << 20)

    def test_a_file_is_changed_in_place_by_numpy(self):
        with pagecached.open("f", "r+") as f:
            a = numpy.frombuffer(f.mmap(), dtype="<u8")
            a += 1
            self.assertLessEqual(self.control("status")["memory_used"], 16 << 20)
            f.fsync()
        self.assertTrue((numpy.fromfile("f", dtype="<u8") == self.numbers + 1).all())


def increment(m, lock, times):
    for _ in range(times):
        with lock:
            m[PAGE : PAGE + 8] = (int.from_bytes(m[PAGE : PAGE + 8], "little") + 1).to_bytes(8, "little")


def open_and_increment(lock, times):
    with pagecached.open("f", "r+") as f, f.mmap() as m:
        increment(m, lock, times)


class Processes(support.DaemonTest):
    def setUp(self):
        super().setUp()
        self.make("f", bytes(2 * PAGE))

    def count(self, how, target, *arguments):
        context = multiprocessing.get_context(how)
        lock = context.Lock()
        all_of_them = [context.Process(target=target, args=(*arguments, lock, 500)) for _ in range(4)]
        for p in all_of_them:
            p.start()
        for p in all_of_them:
            p.join()
        self.assertEqual([p.exitcode for p in all_of_them], [0] * 4)

    def test_four_that_open_the_file_count_to_2000(self):
        self.count("spawn", open_and_increment)
        with pagecached.open("f") as f:
            self.assertEqual(f.pread(8, PAGE), (2000).to_bytes(8, "little"))

    def test_four_that_were_forked_with_a_mapping_count_to_2000(self):
        with pagecached.open("f", "r+") as f, f.mmap() as m:
            self.count("fork", increment, m)
            self.assertEqual(int.from_bytes(m[PAGE : PAGE + 8], "little"), 2000)
            f.fsync()
            self.assertEqual(self.in_file("f")[PAGE : PAGE + 8], (2000).to_bytes(8, "little"))


if __name__ == "__main__":
    support.main()
