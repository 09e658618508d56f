"""What a program does on FreeBSD, for scripts in the host's python."""

# What a program does on FreeBSD, without a word about the sandbox.
PRELUDE = """\
import ctypes as C, errno, json, os, sys

class Statfs(C.Structure):
    _fields_ = [("version", C.c_uint32), ("type", C.c_uint32), ("flags", C.c_uint64)] + [
        (n, C.c_uint64) for n in "bsize iosize blocks bfree bavail files ffree sw aw sr ar".split()
    ] + [("nvnodes", C.c_uint32), ("spare0", C.c_uint32), ("spare", C.c_uint64 * 9),
         ("namemax", C.c_uint32), ("owner", C.c_uint32), ("fsid", C.c_int32 * 2),
         ("charspare", C.c_char * 80), ("fstype", C.c_char * 16), ("mntfrom", C.c_char * 1024),
         ("mnton", C.c_char * 1024)]

class Iovec(C.Structure):
    _fields_ = [("base", C.c_void_p), ("length", C.c_size_t)]

libc = C.CDLL(None, use_errno=True)
WAIT, NOWAIT, IGNORE, BYFSID, FORCE = 1, 2, 0x800000, 0x8000000, 0x80000

def say(result):
    return "ok" if result == 0 else errno.errorcode[C.get_errno()]

def nmount(flags=0, **options):
    words = []
    for name, value in options.items():
        words.append(name.rstrip("_").encode() + b"\\0")
        words.append(None if value is None else os.fsencode(value) + b"\\0")
    kept = [C.create_string_buffer(w, len(w)) if w is not None else None for w in words]
    err = C.create_string_buffer(255)
    kept += [C.create_string_buffer(b"errmsg\\0", 7), err]
    iov = (Iovec * len(kept))(*(
        Iovec(C.addressof(k), C.sizeof(k)) if k is not None else Iovec(None, 0) for k in kept))
    return say(libc.nmount(iov, len(iov), flags))

def table(mode=NOWAIT):
    n = libc.getfsstat(None, C.c_long(0), mode)
    buf = (Statfs * (n + 8))()
    return buf[:libc.getfsstat(buf, C.c_long(C.sizeof(buf)), mode)]

def at(path):
    return [m for m in table() if m.mnton == os.fsencode(path)]

def zmount(snapshot, path, flags=0, **more):
    return nmount(flags, fstype="zfs", fspath=path, from_=snapshot, ro=None, **more)

def nul(source, path, flags=0, **more):
    return nmount(flags, fstype="nullfs", fspath=path, target=source, **more)

def by_id(fsid, flags=0):
    return say(libc.unmount(b"FSID:%d:%d" % (fsid[0], fsid[1]), flags | BYFSID))

def by_path(path, flags=0):
    return say(libc.unmount(os.fsencode(path), flags))
"""
