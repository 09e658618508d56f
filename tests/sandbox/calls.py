"""What the fake kernel does for each system call; see syscalls.py for what programs call.

A call is its name and words such as `fstype=zfs`; its answer is bytes, or None where some file
system never answers. Everything else is an OSError with Linux's number.
"""

from __future__ import annotations

import errno
import os

from sandbox.mounts import Mount, MountError, Table, may_mount, resolve
from sandbox.state import State, log_command

# Those that a program can stand for.
PROGRAMS = ("nmount", "unmount", "getfsstat")

# struct statfs: bytes, and the version that says which layout it is.
STATFS = 2344
VERSION = 0x20140518
LAYOUT = "<IIQ11Q2I9Q2I8s80s16s1024s1024s"
BLOCK = 512

MNT_WAIT = 1
RDONLY, NOEXEC, NOSUID, NFS4ACLS, LOCAL, ROOTFS = 0x1, 0x4, 0x8, 0x10, 0x1000, 0x4000
SOFTDEP, NOSYMFOLLOW, IGNORE, NOATIME = 0x200000, 0x400000, 0x800000, 0x10000000
FORCE, BYFSID = 0x80000, 0x8000000
BITS = {
    "read-only": RDONLY, "noexec": NOEXEC, "nosuid": NOSUID, "nfsv4acls": NFS4ACLS,
    "local": LOCAL, "soft-updates": SOFTDEP, "nosymfollow": NOSYMFOLLOW, "noatime": NOATIME,
}
FLAGS = {"ro": "read-only", "noro": "", "nosuid": "nosuid", "noexec": "noexec",
         "nosymfollow": "nosymfollow", "noatime": "noatime"}
# Those that each file system knows besides.
VALUED = {"nullfs": ("target", "from"), "zfs": ("from",), "devfs": ("from", "ruleset"),
          "tmpfs": ("from", "size", "mode")}


def answer(name: str, words: list[str]) -> bytes | None:
    """Carry out a call, after noting it."""
    log_command([name, *words])
    functions = {"nmount": nmount, "unmount": unmount, "getfsstat": getfsstat, "statfs": statfs,
                 "fstatfs": fstatfs, "sysctlbyname": sysctlbyname}
    try:
        with State() as state:
            return functions[name](state, words)
    except MountError as error:
        raise OSError(error.code, "") from error


def _options(words: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in words)}


# -- mounting --------------------------------------------------------------------------------


def nmount(state: State, words: list[str]) -> bytes:
    """`fstype=... fspath=... ...`, options without a value, and `flags=0x800000`."""
    options = _options(words)
    bits = int(options.pop("flags", "0"), 16)
    fstype, point = options.pop("fstype", ""), options.pop("fspath", "")
    if not fstype or not point or bits & ~(IGNORE | RDONLY | NOSUID | NOEXEC | NOSYMFOLLOW):
        raise OSError(errno.EINVAL, "")
    if len(os.fsencode(point)) > 1023:
        raise OSError(errno.ENAMETOOLONG, "")
    if not may_mount(state):
        raise OSError(errno.EPERM, "")
    if fstype not in VALUED or (fstype == "nullfs" and _must_load(state)):
        raise OSError(errno.ENODEV, "")
    if not may_mount(state, fstype):
        raise OSError(errno.EPERM, "")
    flags = {flag for flag, bit in BITS.items() if bits & bit}
    for name in list(options):
        if name in FLAGS:
            flags |= {FLAGS[name]} - {""}
            del options[name]
        elif name not in VALUED[fstype]:
            raise OSError(errno.EINVAL, f"mount option <{name}> is unknown")
    # The kernel mounts on what the path leads to, and writes down its whole name.
    target = resolve(os.path.join(os.getcwd(), point))
    moves = os.path.samestat(os.stat("."), os.stat(target))
    _mount(state, fstype, options, target, frozenset(flags), bool(bits & IGNORE))
    if moves:
        # mountcheckdirs(): whoever stands on what is mounted on now stands on the mount. The
        # kernel sees to that for all processes, here it is the one that calls.
        os.chdir(target)
    return b""


def _must_load(state: State) -> bool:
    """Whether there is no nullfs yet, and no jail can load it: PRIV_KLD_LOAD."""
    return state.flag("jailed") and not state.flag("nullfs")


def _mount(state: State, fstype: str, options: dict[str, str], target: str,
           flags: frozenset[str], hidden: bool) -> None:
    if fstype == "nullfs":
        source = options.get("target") or options.get("from") or ""
        if not source:
            raise OSError(errno.EINVAL, "")
        # So does mount_nullfs(8) for those who use it; the kernel follows links itself.
        Table(state).nullfs(resolve(os.path.join(os.getcwd(), source)), target, flags, hidden)
        state.set_meta("nullfs", "1")
        return
    if not os.path.isdir(target):
        raise OSError(errno.ENOTDIR, "")
    if fstype == "devfs":
        Table(state).devfs(target, ruleset_in(state, options.get("ruleset", "")), flags, hidden)
    elif fstype == "zfs":
        from sandbox.cmd_mount import mount_zfs

        if not state.flag("zfs"):
            raise OSError(errno.ENODEV, "")
        mount_zfs(state, flags, options.get("from", ""), target, hidden)
    else:
        Table(state).special(options.get("from", fstype), target, fstype, flags)


def ruleset_in(state: State, wanted: str) -> str:
    """The ruleset that a devfs gets: in a jail its own, and no other may be asked for."""
    from sandbox.jails import current

    jail = current(state)
    if jail is None:
        return wanted
    if wanted not in ("", "0", jail.ruleset):
        raise OSError(errno.EPERM, "")
    return jail.ruleset


def unmount(state: State, words: list[str]) -> bytes:
    """A path, or with MNT_BYFSID `FSID:first:second`, two signed numbers; and `flags=...`."""
    where, flags = words[0], int(_options(words[1:])["flags"], 16)
    if flags & ~(FORCE | BYFSID):
        raise OSError(errno.EINVAL, "")
    table = Table(state)
    if flags & BYFSID:
        fsid = _fsid(where)
        mount = table.identified(fsid)
        if not may_mount(state):
            raise OSError(errno.EPERM, "")
        if mount.node == "/" and mount.lower is None:
            raise OSError(errno.EINVAL, "")
        table.remove(mount, bool(flags & FORCE))
        return b""
    if not may_mount(state):
        raise OSError(errno.EPERM, "")
    table.unmount(os.path.join(os.getcwd(), where), bool(flags & FORCE))
    return b""


def _fsid(text: str) -> str:
    """sscanf("FSID:%d:%d"), in the form of the table."""
    import struct

    word, *numbers = text.split(":")
    try:
        if word != "FSID" or len(numbers) != 2:
            raise ValueError
        return struct.pack("<2i", *map(int, numbers)).hex()
    except (ValueError, struct.error):
        raise OSError(errno.EINVAL, "") from None


# -- looking ---------------------------------------------------------------------------------


def getfsstat(state: State, words: list[str]) -> bytes | None:
    """All of the table, in the order of mounting; with MNT_WAIT each is asked first."""
    mounts = Table(state).seen()
    if int(_options(words)["mode"]) == MNT_WAIT:
        if any(m.answer == "hangs" for m in mounts):
            return None
        mounts = [m for m in mounts if m.answer != "fails"]
    return b"".join(map(statfs_of, mounts))


def statfs(state: State, words: list[str]) -> bytes | None:
    """The mount that a path is on."""
    path = os.path.realpath(words[0], strict=True)
    return _asked(Table(state).holding(path), state.flag("jailed"))


def fstatfs(state: State, words: list[str]) -> bytes | None:
    """The mount that an open file is on, by the number that Linux gives it."""
    found = Table(state).numbered(int(_options(words)["mount"]))
    return _asked(found, state.flag("jailed"))


def _asked(mount: Mount | None, jailed: bool) -> bytes | None:
    if mount is None:
        # Of a mount that was taken away by force.
        raise OSError(errno.EIO, "")
    if mount.answer == "fails":
        raise OSError(errno.EIO, "")
    if jailed:
        mount.fsid = "00" * 8
    return None if mount.answer == "hangs" else statfs_of(mount)


def statfs_of(mount: Mount) -> bytes:
    """A struct statfs; sizes are those of an empty pool."""
    import struct

    flags = sum(bit for flag, bit in BITS.items() if flag in mount.flags)
    flags |= IGNORE if mount.hidden else 0
    flags |= ROOTFS if mount.node == "/" and mount.fstype != "nullfs" else 0
    blocks = 7806648320 // BLOCK
    zfs = 0xDE if mount.fstype == "zfs" else 0
    return struct.pack(
        LAYOUT, VERSION, zfs, flags, BLOCK, 131072, blocks, blocks - 192, blocks - 192,
        blocks - 192, blocks - 200, 0, 0, 0, 0, 1, 0, *([0] * 9), 255, mount.owner,
        bytes.fromhex(mount.fsid), b"", mount.fstype.encode(),
        os.fsencode(mount.special)[:1023], os.fsencode(mount.node)[:1023])


def sysctlbyname(state: State, words: list[str]) -> bytes:
    """The value as it lies in memory: an int, or a string with its NUL."""
    from sandbox.cmd_small import sysctls

    value = sysctls(state).get(words[0])
    if value is None:
        raise OSError(errno.ENOENT, "")
    if value.isdigit():
        return int(value).to_bytes(4, "little")
    return value.encode() + b"\0"
