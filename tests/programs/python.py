# SPDX-License-Identifier: Apache-2.0
"""What Python programs do to files: python.py FOLDER SEED STEP. Prints what it saw; that, and the files, must not depend on who serves the folder."""
import array, fcntl, hashlib, io, mmap, multiprocessing, os, random, resource, select, shutil, signal, sqlite3, struct, subprocess, sys, tempfile

folder, seed, step = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.chdir(folder)
rng = random.Random(seed)
SIZE = 12 << 20


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def content(name):
    with open(name, "rb") as f:
        return digest(f.read())


def attempt(what, f, *args):
    """Its result, or the error's name: a program may depend on either."""
    try:
        r = f(*args)
        print(what, r if isinstance(r, (int, str, bytes, bool, type(None))) else type(r).__name__)
    except (OSError, ValueError, TypeError) as e:
        print(what, type(e).__name__, getattr(e, "errno", None))


def fill(name, size=SIZE):
    with open(name, "wb") as f:
        f.write(rng.randbytes(size))


def step_mmap():
    fill("mapped")
    with open("mapped", "r+b") as f:
        with mmap.mmap(f.fileno(), 0) as m:
            print(len(m), digest(m), m.size())
            for _ in range(2000):
                at = rng.randrange(SIZE - 100)
                m[at:at + 60] = bytes([at % 256]) * 60
            m[0], m[-1] = 1, 2
            print(m[0], m[-1], m[5:25:3], m[-10:].hex())
            m[1000000:1000006] = b"needle"
            print(m.find(b"needle"), m.rfind(b"needle"), m.find(b"needle", 1000001), m.find(b"not there at all"))
            m.move(5000, 1000000, 6000)
            m.flush()
            m.flush(mmap.PAGESIZE * 3, mmap.PAGESIZE * 5)
            print(content("mapped"))
            m.seek(100); m.write(b"written"); m.write_byte(7); m.seek(-3, os.SEEK_END); print(m.tell(), m.read(), m.read_byte if m.tell() < len(m) else "end")
            m.seek(0); print(len(m.readline()))
            attempt("past the end", m.write, b"x" * 100) if not m.seek(SIZE - 5) else None
            for advice in ("MADV_NORMAL", "MADV_RANDOM", "MADV_SEQUENTIAL", "MADV_WILLNEED", "MADV_DONTNEED"):
                m.madvise(getattr(mmap, advice))
            print(digest(m))
            f.seek(0); print(digest(f.read()))
        with mmap.mmap(f.fileno(), 65536, access=mmap.ACCESS_COPY, offset=mmap.ALLOCATIONGRANULARITY * 4) as m:
            before = content("mapped")
            m[:] = b"c" * 65536
            print(digest(m), content("mapped") == before)
        with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m:
            print(digest(m))
            try:
                m[0] = 1
            except TypeError as e:
                print(e)
        with mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as m:
            m[:100] = b"p" * 100
            print(m[:3])
        attempt("larger than the file", mmap.mmap, f.fileno(), SIZE + 1)
        with mmap.mmap(f.fileno(), 0) as m:
            for size in (SIZE + 5000, SIZE // 2, SIZE // 2 + 123456):
                m.resize(size)
                m[-1] = 77
                print(len(m), m.size(), os.fstat(f.fileno()).st_size, os.stat("mapped").st_size, digest(m))
    with open("mapped", "rb") as f:
        attempt("writable map of a read-only file", mmap.mmap, f.fileno(), 0)
        m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
    print(digest(m), "after the file was closed")
    m.close()
    print(content("mapped"))
    with open("empty", "wb"):
        pass
    with open("empty", "r+b") as f:
        attempt("empty", mmap.mmap, f.fileno(), 0)


def changer(name, n, count):
    with open(name, "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        for i in range(n, SIZE // 4096, count):
            m[i * 4096:i * 4096 + 4] = struct.pack("<I", i)


def step_processes():
    for method in ("fork", "spawn"):
        fill("shared")
        context = multiprocessing.get_context(method)
        with open("shared", "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
            workers = [context.Process(target=changer, args=("shared", n, 3)) for n in range(3)]
            for w in workers:
                w.start()
            for w in workers:
                w.join()
            print(method, [w.exitcode for w in workers], all(struct.unpack_from("<I", m, i * 4096)[0] == i for i in range(SIZE // 4096)))
    with open("shared", "r+b") as f, mmap.mmap(f.fileno(), 0) as m:  # a child inherits the mapping
        pid = os.fork()
        if pid == 0:
            m[123] = 45
            m[SIZE - 1] = 99
            os._exit(0)
        os.waitpid(pid, 0)
        print(m[123], m[SIZE - 1])
    print(content("shared"))
    with open("log", "ab", buffering=0):
        pass
    children = []
    for n in range(4):
        pid = os.fork()
        if pid == 0:
            fd = os.open("log", os.O_WRONLY | os.O_APPEND)
            for i in range(300):
                os.write(fd, b"%d %04d %s\n" % (n, i, b"x" * (i % 50)))
            os._exit(0)
        children.append(pid)
    print([os.waitpid(p, 0)[1] for p in children])
    lines = open("log", "rb").read().splitlines()
    print(len(lines), digest(b"\n".join(sorted(lines))))
    os.remove("log")  # its order is not the same twice
    with multiprocessing.Pool(2) as pool:
        print(pool.map(content, ["shared"] * 3))


def step_numpy():
    import numpy
    a = numpy.memmap("array", dtype="float64", mode="w+", shape=(SIZE // 8,))
    a[:] = numpy.arange(SIZE // 8) * 0.5
    a.flush()
    del a
    a = numpy.memmap("array", dtype="float64", mode="r+").reshape(1024, -1)
    a[:, 3] = -1
    a *= 3
    a.sort(axis=1)
    print(float(a.sum()), a.shape, float(a[17, 100]))
    del a
    a = numpy.memmap("array", dtype="float64", mode="r", offset=4096, shape=(100, 100))
    print(float(a.mean()))
    c = numpy.memmap("array", dtype="float64", mode="c")
    c[:] = 0
    print(float(c.sum()), float(numpy.memmap("array", dtype="float64", mode="r").sum()))
    numpy.save("saved.npy", numpy.arange(1000000).reshape(1000, 1000))
    m = numpy.load("saved.npy", mmap_mode="r+")
    m[500] += 7
    print(int(m.sum()), int(numpy.load("saved.npy").sum()))
    numpy.savez("saved.npz", a=numpy.ones(50000), b=m[:10])
    print(int(numpy.load("saved.npz")["b"].sum()))
    numpy.arange(100000, dtype="int32").tofile("raw")
    print(int(numpy.fromfile("raw", dtype="int32", count=1000, offset=4000).sum()))
    os.remove("saved.npz")  # has times in it


def step_files():
    fill("file", 3 << 20)
    with open("file", "r+b") as f:
        f.seek(1000); print(f.tell(), f.read(10).hex()); f.seek(-10, 2); print(f.read().hex(), f.tell())
        f.write(b"at the end"); f.seek(0); f.write(b"start"); print(f.tell())
        b = bytearray(100000); print(f.readinto(b), digest(b))
        f.truncate(2000000); print(os.fstat(f.fileno()).st_size); f.seek(2100000); f.write(b"hole before"); f.flush(); print(os.path.getsize("file"))
        print(len(f.peek(1)) if hasattr(f, "peek") else 0)
        os.fsync(f.fileno()); os.fdatasync(f.fileno())
    with open("file", "rb", buffering=0) as f:
        print(digest(f.readall()), f.seekable(), f.isatty(), f.mode)
        f.seek(5); b = array.array("i", [0] * 100); print(f.readinto(b), sum(b))
    with open("text", "w", encoding="utf-8", newline="\r\n") as f:
        for i in range(50000):
            f.write(f"{i} é ü 漢\n")
        print(f.tell())
    with open("text", encoding="utf-8") as f:
        for i, line in enumerate(f):
            if i == 30000:
                print(line.strip()); break
        print(sum(1 for _ in f)); f.seek(0); print(f.readline().strip()); at = f.tell(); x = f.read(20); f.seek(at); print(x == f.read(20))
    with open("text", "a+", encoding="utf-8") as f:
        f.write("appended\n"); f.seek(0); print(len(f.read()))
    attempt("exclusive", open, "text", "x")
    attempt("absent", open, "absent")
    attempt("a folder", open, ".")
    fd = os.open("file", os.O_RDWR)
    print(digest(os.pread(fd, 5000, 12345)), os.pwrite(fd, b"pwritten", 777), os.lseek(fd, 0, os.SEEK_CUR))
    bufs = [bytearray(10), bytearray(5000), bytearray(1)]
    print(os.preadv(fd, bufs, 770), digest(b"".join(bufs)), os.pwritev(fd, [b"one", b"two", b"three"], 100000))
    print(os.lseek(fd, 50, os.SEEK_SET), os.readv(fd, bufs), os.writev(fd, [b"a" * 1000, b"b"]), os.lseek(fd, 0, os.SEEK_CUR))
    print(os.pread(fd, 100, 10 << 20), os.read(fd, 0))
    attempt("negative offset", os.pread, fd, 10, -1)
    os.ftruncate(fd, 500000); os.truncate("file", 600000); os.posix_fallocate(fd, 0, 700000); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    print(os.fstat(fd).st_size, os.lseek(fd, 0, os.SEEK_END))
    copy = os.dup(fd); os.lseek(copy, 42, os.SEEK_SET); print(os.lseek(fd, 0, os.SEEK_CUR), os.get_inheritable(copy), os.get_blocking(fd))
    os.close(fd); print(digest(os.read(copy, 100))); os.close(copy)
    attempt("closed", os.read, copy, 1)
    w = os.open("file", os.O_WRONLY); attempt("read of a write-only file", os.read, w, 1); os.close(w)
    r = os.open("file", os.O_RDONLY); attempt("write to a read-only file", os.write, r, b"x"); attempt("truncate", os.ftruncate, r, 1)
    p = select.poll(); p.register(r, select.POLLIN); print([e for _, e in p.poll(0)]); os.close(r)
    # tempfile: without a name, with one, spooled
    with tempfile.TemporaryFile(dir=".") as t:
        t.write(b"t" * 3000000); t.seek(2999990); print(t.read()); print(os.fstat(t.fileno()).st_nlink)
    with tempfile.NamedTemporaryFile(dir=".", prefix="named") as t:
        t.write(b"named"); t.flush(); print(open(t.name, "rb").read())
    with tempfile.SpooledTemporaryFile(max_size=1000, dir=".") as t:
        t.write(b"s" * 5000); t.seek(0); print(len(t.read()))
    with tempfile.TemporaryDirectory(dir=".") as d:
        open(os.path.join(d, "in it"), "w").write("x")
    print(sorted(n for n in os.listdir(".") if n.startswith(("tmp", "named"))))


def step_copy():
    fill("source")
    shutil.copy("source", "copy"); shutil.copy2("source", "copy2"); shutil.copyfile("source", "copyfile"); shutil.copyfileobj(open("source", "rb"), open("copyobj", "wb"), 10000)
    print({content(n) for n in ("source", "copy", "copy2", "copyfile", "copyobj")} == {content("source")}, os.stat("copy2").st_mtime_ns == os.stat("source").st_mtime_ns)
    with open("source", "rb") as a, open("sent", "wb") as b:
        at = 0
        while n := os.sendfile(b.fileno(), a.fileno(), at, 1000000):
            at += n
        print(at, a.tell(), b.tell())
    with open("source", "rb") as a, open("ranged", "w+b") as b:
        n = 0
        while n < 5000000:
            n += os.copy_file_range(a.fileno(), b.fileno(), 5000000 - n, offset_dst=1000 + n)
        print(os.lseek(a.fileno(), 0, os.SEEK_CUR), os.fstat(b.fileno()).st_size)
    r, w = os.pipe()
    with open("source", "rb") as a, open("spliced", "wb") as b:
        total = 0
        while n := os.splice(a.fileno(), w, 60000):
            while n > 0:
                m = os.splice(r, b.fileno(), n)
                n -= m; total += m
        print(total)
    print([content(n) for n in ("sent", "ranged", "spliced")])
    import socket
    one, two = socket.socketpair()
    with open("source", "rb") as a:
        pid = os.fork()
        if pid == 0:
            one.close(); h = hashlib.sha256()
            while d := two.recv(65536):
                h.update(d)
            print(h.hexdigest()[:16], flush=True); os._exit(0)
        two.close(); print(one.sendfile(a), flush=True); one.close(); os.waitpid(pid, 0)
    shutil.copytree(".", "../tree" if False else "tree", ignore=lambda d, names: ["tree"])
    print(sorted(os.listdir("tree"))); shutil.rmtree("tree")
    shutil.make_archive("archive", "tar", ".", "source"); shutil.unpack_archive("archive.tar", "unpacked"); print(content("unpacked/source")); os.remove("archive.tar")
    shutil.move("copy", "moved"); os.rename("copy2", "renamed"); os.replace("copyfile", "renamed"); os.link("moved", "linked"); print(os.stat("moved").st_nlink, content("renamed"))


def step_children():
    fill("input", 2 << 20)
    with open("output", "wb") as out, open("input", "rb") as inp:
        inp.seek(0)
        print(subprocess.run(["cat"], stdin=inp, stdout=out, close_fds=True).returncode, os.fstat(out.fileno()).st_size)
        print(subprocess.run(["sh", "-c", "echo more; echo error >&2"], stdout=out, stderr=subprocess.STDOUT).returncode)
        print(os.lseek(out.fileno(), 0, os.SEEK_CUR))
        out.write(b"from the parent"); out.flush()
    print(content("output"))
    fd = os.open("input", os.O_RDONLY)
    os.set_inheritable(fd, True)
    print(subprocess.run(["sh", "-c", f"head -c 100 <&{fd} | wc -c"], pass_fds=[fd], capture_output=True).stdout)
    print(os.lseek(fd, 0, os.SEEK_CUR) > 0)
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "cat; echo spawned"], os.environ, file_actions=[
        (os.POSIX_SPAWN_OPEN, 1, "spawned", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), (os.POSIX_SPAWN_OPEN, 0, "input", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 1, 2),
        (os.POSIX_SPAWN_CLOSE, fd)])
    print(os.waitpid(pid, 0)[1], content("spawned")); os.close(fd)
    pid = os.fork()
    if pid == 0:
        out = os.open("duplicated", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1); os.execvp("seq", ["seq", "200000"])
    print(os.waitpid(pid, 0)[1], content("duplicated"))
    print(subprocess.run([sys.executable, "-c", "import sys; d = sys.stdin.buffer.read(); print(len(d)); sys.stdout.flush(); print(sys.stdin.buffer.seek(0))"], stdin=open("input", "rb"), stdout=open("piped", "w")).returncode, open("piped").read().split())
    code = subprocess.Popen(["cat", "input"], stdout=subprocess.PIPE)
    print(digest(code.stdout.read()), code.wait())


def step_attributes():
    fill("file", 100000)
    os.utime("file", ns=(10**18, 10**18 + 123456789)); s = os.stat("file"); print(s.st_mtime_ns, s.st_atime_ns, s.st_size)
    f = os.open("file", os.O_RDWR)
    print(os.fstat(f).st_mtime_ns == s.st_mtime_ns, os.fstat(f).st_ino == s.st_ino, os.path.samestat(os.fstat(f), s), os.fstat(f).st_mode, os.fstat(f).st_nlink)
    os.pwrite(f, b"x", 5); print(os.fstat(f).st_mtime_ns > 10**18 + 123456789, os.fstat(f).st_mtime_ns == os.stat("file").st_mtime_ns)
    os.utime(f, (5, 6)); print(os.stat("file").st_mtime, os.fstat(f).st_mtime); os.close(f); print(os.stat("file").st_mtime)
    f = os.open("file", os.O_RDWR); os.pwrite(f, b"y", 7); os.utime("file", (7, 8)); os.fsync(f); os.close(f); print(os.stat("file").st_mtime)
    f = os.open("file", os.O_RDWR); os.write(f, b"z" * 200000); print({n.name: n.stat().st_size for n in os.scandir(".") if n.name == "file"}, os.lstat("file").st_size)
    os.fchmod(f, 0o640); os.chmod("file", 0o600); print(oct(os.fstat(f).st_mode), os.access("file", os.R_OK | os.W_OK), os.access("file", os.X_OK))
    attempt("setxattr", os.setxattr, f, "user.one", b"1"); attempt("getxattr", os.getxattr, "file", "user.one"); attempt("listxattr", os.listxattr, "file")
    fcntl.flock(f, fcntl.LOCK_EX); g = os.open("file", os.O_RDWR); attempt("flock", fcntl.flock, g, fcntl.LOCK_EX | fcntl.LOCK_NB); fcntl.flock(f, fcntl.LOCK_UN); attempt("flock", fcntl.flock, g, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.lockf(f, fcntl.LOCK_EX, 100, 50)
    if not (pid := os.fork()):
        attempt("lockf in a child", fcntl.lockf, f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 60); attempt("elsewhere", fcntl.lockf, f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 600); sys.stdout.flush(); os._exit(0)
    sys.stdout.flush(); os.waitpid(pid, 0)
    os.close(g)  # drops the record locks, as POSIX has it
    if not (pid := os.fork()):
        attempt("lockf after a close", fcntl.lockf, f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 60); sys.stdout.flush(); os._exit(0)
    os.waitpid(pid, 0)
    print(fcntl.fcntl(f, fcntl.F_GETFL) & os.O_ACCMODE, fcntl.fcntl(f, fcntl.F_GETFD)); fcntl.fcntl(f, fcntl.F_SETFL, os.O_APPEND); os.lseek(f, 0, os.SEEK_SET); os.write(f, b"appended"); print(os.fstat(f).st_size, bool(fcntl.fcntl(f, fcntl.F_GETFL) & os.O_APPEND))
    print(os.readlink(f"/proc/self/fd/{f}").endswith("/file")); os.unlink("file"); print(os.fstat(f).st_nlink, os.pread(f, 4, 0), os.path.exists("file")); os.close(f)
    print(sorted((e.name, e.is_file(), e.stat().st_size) for e in os.scandir(".") if e.name.startswith("in")))
    caught = []; signal.signal(signal.SIGXFSZ, lambda *_: caught.append(1)); resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    f = os.open("limited", os.O_RDWR | os.O_CREAT)
    for what, call in (("ftruncate", lambda: os.ftruncate(f, 1 << 20)), ("ftruncate", lambda: os.ftruncate(f, (1 << 20) + 1)), ("posix_fallocate", lambda: os.posix_fallocate(f, 0, 2 << 20)),
                       ("pwrite", lambda: os.pwrite(f, b"x", 1 << 20)), ("pwrite", lambda: os.pwrite(f, b"x" * 100, (1 << 20) - 10))):
        attempt(what, call); print(len(caught), os.fstat(f).st_size)
    os.close(f); resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    os.mkfifo("fifo"); print(os.path.isfile("fifo")); os.remove("fifo"); open("input", "ab").close(); os.symlink("input", "link"); print(os.path.getsize("link"), os.path.islink("link"), len(open("link", "rb").read()))


def step_sqlite():
    for mode in ("delete", "wal", "truncate"):
        db = sqlite3.connect(f"{mode}.db")
        print(db.execute(f"pragma journal_mode={mode}").fetchone(), db.execute("pragma mmap_size=4000000").fetchone())
        db.execute("create table t(i integer primary key, s text)")
        with db:
            db.executemany("insert into t(s) values (?)", ((f"{n} " * 20,) for n in range(20000)))
        with db:
            db.execute("delete from t where i % 3 = 0")
        db.execute("vacuum")
        print(db.execute("select count(*), sum(length(s)) from t").fetchone(), db.execute("pragma integrity_check").fetchone())
        db.close()
        print(sorted(os.listdir(".").count(f"{mode}.db{x}") for x in ("", "-wal", "-journal")))
        os.system(f"echo 'select max(i) from t;' | {sys.executable} -c 'import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.stdin.read()).fetchone())' {mode}.db")
        os.remove(f"{mode}.db")  # counters in it need not be the same


if __name__ == "__main__":  # not in what multiprocessing spawns
    globals()["step_" + step]()
