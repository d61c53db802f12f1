# SPDX-License-Identifier: Apache-2.0
"""
A daemon for each test, on a folder of its own, as the C system tests have it.

Environment: PAGECACHED_BIN, PAGECACHECTL_BIN, PAGECACHED_LIBRARY (paths); PGC_TEST_USER=1 (all runs as nobody);
PGC_REQUIRE_KERNEL=1 (what is missing is a failure, not a skip); TMPDIR (where the files lie; /var/tmp).
"""

import ctypes
import faulthandler
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

NOBODY = 65534
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(HERE)
BAD = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:", "ThreadSanitizer", "Assertion")
# What is preloaded for this process's sake is none of the daemon's, which is to look for leaks, too.
NOT_THE_DAEMONS = ("LD_PRELOAD", "ASAN_OPTIONS", "NOTIFY_SOCKET", "JOURNAL_STREAM")


def drop_privilege():
    if os.geteuid() != 0:
        return
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    # Else /proc/self belongs to root, and the library cannot open its own descriptors again.
    if LIBC.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0:
        raise OSError("prctl")


def end_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def missing(test, what):
    if os.environ.get("PGC_REQUIRE_KERNEL") == "1":
        test.fail(f"cannot run here: {what}")
    test.skipTest(what)


def pattern(n, seed=1):
    """n bytes that differ from page to page, none of them 0."""
    line = bytes(1 + (i * 7 + seed) % 251 for i in range(251))
    return (line * (n // len(line) + 1))[:n]


class DaemonTest(unittest.TestCase):
    memory_max = "256M"
    seconds = 120

    def setUp(self):
        # A test that does not end says where it is, and ends all.
        faulthandler.dump_traceback_later(self.seconds, exit=True)
        self.addCleanup(faulthandler.cancel_dump_traceback_later)
        self.dir = tempfile.mkdtemp(prefix="pagecached-python.", dir=os.environ.get("TMPDIR", "/var/tmp"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.socket = os.path.join(self.dir, "socket")
        self.log = os.path.join(self.dir, "log")
        config = os.path.join(self.dir, "config")
        with open(config, "w") as f:
            f.write("[daemon]\ntest_stores = yes\ndirty_expire = 10min\n")
        old = os.getcwd()
        os.chdir(self.dir)
        self.addCleanup(os.chdir, old)
        os.environ["PAGECACHED_SOCKET"] = self.socket
        os.environ["PAGECACHED_ORPHAN_TIMEOUT"] = "0.2"  # a daemon that is killed here does not come back
        self.addCleanup(os.environ.pop, "PAGECACHED_SOCKET")
        command = [os.environ["PAGECACHED_BIN"], "--config", config, "--socket", self.socket]
        command += ["--state-dir", os.path.join(self.dir, "state"), "--bpffs", "none", "--memory-max", self.memory_max]
        environ = self.plain_environ()
        with open(self.log, "w") as log:
            self.daemon = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent
            )
        self.addCleanup(self.remove_state)
        self.addCleanup(self.stop)
        self.wait_for_daemon()

    def wait_for_daemon(self):
        end = time.monotonic() + 20
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
                try:
                    return s.connect(self.socket)
                except OSError:
                    self.assertIsNone(self.daemon.poll(), "the daemon ended at its start")
                    self.assertLess(time.monotonic(), end, "the daemon does not answer")
            time.sleep(0.005)

    def stop(self):
        """SIGTERM must end it with 0 and without a sanitizer's report."""
        with open(self.log) as f:
            if self.daemon.returncode is None:
                self.daemon.send_signal(signal.SIGTERM)
                code = self.daemon.wait(30)
                said = f.read()
                self.assertEqual(code, 0, said)
            else:
                said = f.read()
        for bad in BAD:
            self.assertNotIn(bad, said)

    def remove_state(self):
        """Of a daemon that was killed here; one that stops removes it itself."""
        name = self.socket.replace("-", "--").replace("/", "-")
        for path in glob.glob(f"/dev/shm/pagecached-{os.getuid()}{glob.escape(name)}.*"):
            os.unlink(path)

    def kill_daemon(self):
        self.daemon.kill()
        self.daemon.wait()

    def control(self, *arguments):
        out = subprocess.run(
            [os.environ["PAGECACHECTL_BIN"], "--json", *arguments], stdout=subprocess.PIPE, check=True, env=self.plain_environ()
        ).stdout
        return json.loads(out) if out.strip() else None

    @staticmethod
    def plain_environ():
        return {k: v for k, v in os.environ.items() if k not in NOT_THE_DAEMONS}

    def make(self, name, data):
        """A file, made without pagecached."""
        with open(name, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        return os.path.join(self.dir, name)

    @staticmethod
    def count_mappings():
        """How many ranges of files of the cache are mapped in this process."""
        with open("/proc/self/maps") as f:
            return sum("/memfd:pagecached:" in line for line in f)

    def in_file(self, name):
        """The file's bytes, read without pagecached."""
        with open(name, "rb") as f:
            return f.read()

    def run_python(self, program, *arguments, seconds=60):
        """Runs another interpreter; returns its stdout. It must exit with 0."""
        environ = dict(os.environ, PYTHONPATH=PACKAGE, PYTHONDONTWRITEBYTECODE="1")
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=seconds,
            universal_newlines=True,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout


def main():
    if os.environ.get("PGC_TEST_USER") == "1":
        drop_privilege()
    unittest.main(verbosity=2)
