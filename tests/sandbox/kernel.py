"""The Linux system calls that python 3.11 does not offer: mounts, namespaces, loop devices."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

MS_RDONLY = 1
MS_NOSUID = 2
MS_NOEXEC = 8
MS_NOSYMFOLLOW = 256
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWPID = 0x20000000
CLONE_PARENT = 0x00008000

PR_SET_PDEATHSIG = 1

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_AUTOCLEAR = 4

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(result, target)


def bind(source: str, target: str, flags: int = 0) -> None:
    """Bind source on target; the flags of a bind only take effect by a second call."""
    mount(source, target, flags=MS_BIND | (flags & MS_REC))
    if flags & ~MS_REC:
        rebind(target, flags & ~MS_REC)


def rebind(target: str, flags: int) -> None:
    """Change the flags of a bind."""
    mount("none", target, flags=MS_BIND | MS_REMOUNT | flags)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int) -> None:
    """setns(2) for whatever kind of namespace the descriptor is."""
    _check(_libc.setns(descriptor, 0), "setns")


def pivot_root(new: str, put_old: str) -> None:
    """pivot_root(2)."""
    number = {"x86_64": 155, "aarch64": 41, "riscv64": 41}[os.uname().machine]
    _check(_libc.syscall(number, os.fsencode(new), os.fsencode(put_old)), new)


def fork_sibling() -> int:
    """Fork a child whose parent is our own parent, which then can wait for it directly."""
    number = {"x86_64": 56, "aarch64": 220, "riscv64": 220}[os.uname().machine]
    sigchld = 17
    return _check(_libc.syscall(number, CLONE_PARENT | sigchld, 0, 0, 0, 0), "clone")


def die_with_parent() -> None:
    """Ask for SIGKILL when the parent dies."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl")


def attach_loop(image: str) -> tuple[int, int]:
    """Attach image to a free loop device that clears itself after its last use.

    Returns an open descriptor of the device and its number.
    """
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(100):
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            info = struct.pack("=5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, LO_FLAGS_AUTOCLEAR,
                               b"sandbox", b"", b"", 0, 0)
            config = struct.pack("=2I", backing, 0) + info + bytes(64)
            try:
                fcntl.ioctl(device, LOOP_CONFIGURE, config)
                return device, number
            except OSError:
                # Another host took the same device between the two calls.
                os.close(device)
        raise OSError(f"no loop device for {image}")
    finally:
        os.close(control)
        os.close(backing)


def mount_id(path: str, proc: str) -> int:
    """The kernel's number of the mount that path is on; -1 where there is no such path."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        return mount_id_of(descriptor, proc)
    finally:
        os.close(descriptor)


def mount_id_of(descriptor: int, proc: str) -> int:
    """The kernel's number of the mount that an open file is on."""
    with open(f"{proc}/self/fdinfo/{descriptor}") as lines:
        for line in lines:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    return -1
