"""Programs of a few lines: chroot, kldstat, kldload, sysctl, jail, jexec, su, hostname, ..."""

from __future__ import annotations

import os

from sandbox import jails
from sandbox.launch import execute
from sandbox.standin import options, warn
from sandbox.state import State

VERSION = "2.2.6-FreeBSD_g33174af15"
SYSCTL = {
    "kern.ostype": "FreeBSD", "kern.osreldate": "1402000", "kern.osrelease": "14.2-BETA1",
    "kern.argmax": "524288", "kern.maxphys": "1048576", "user.localbase": "/usr/local",
    "vfs.usermount": "0", "hw.ncpu": "2",
}


def main(name: str, arguments: list[str]) -> int:
    """The program of that name."""
    programs = {
        "chroot": chroot, "kldstat": kldstat, "kldload": kldload, "sysctl": sysctl,
        "jail": jails.jail, "jexec": jails.jexec, "su": su, "hostname": hostname,
        "freebsd-version": freebsd_version,
    }
    return programs[name](arguments)


def chroot(arguments: list[str]) -> int:
    """chroot [-u user] [-g group] newroot [command [arguments ...]]."""
    try:
        given, rest = options(arguments, "n", "ugG")
    except ValueError as error:
        warn(f"chroot: illegal option -- {error}")
        rest = []
    if not rest:
        warn("usage: chroot [-g group] [-G group,group,...] [-u user] newroot [command]")
        return 1
    root, *command = rest
    command = command or [os.environ.get("SHELL", "/bin/sh"), "-i"]
    ids = _ids(given["u"][-1]) if "u" in given else None
    try:
        os.chdir(root)
        os.chroot(".")
    except OSError as error:
        warn(f"chroot: {root}: {error.strerror}")
        return 1
    if ids:
        os.setgroups([ids[1]])
        os.setgid(ids[1])
        os.setuid(ids[0])
    return _execute("chroot", command)


def _execute(name: str, command: list[str]) -> int:
    error = execute(command)
    warn(f"{name}: {command[0]}: {error.strerror}")
    return 1


def _ids(user: str) -> tuple[int, int]:
    with open("/etc/passwd") as lines:
        for line in lines:
            words = line.split(":")
            if user in (words[0], words[2]):
                return int(words[2]), int(words[3])
    warn(f"chroot: no such user: {user}")
    raise SystemExit(1)


def kldstat(arguments: list[str]) -> int:
    """kldstat [-q] -m module."""
    given, _ = options(arguments, "qvh", "mni")
    with State() as state:
        present = {name: state.flag(name) for name in ("zfs", "nullfs")}
    module = (given.get("m") or given.get("n") or ["kernel"])[-1].removesuffix(".ko")
    if present.get(module, module == "kernel"):
        if "q" not in given:
            print("Id Refs Address                Size Name")
            print(f" 1    1 0xffffffff80200000  1f3c6c0 {module}")
        return 0
    if "q" not in given:
        warn(f"kldstat: can't find module {module}: No such file or directory")
    return 1


def kldload(arguments: list[str]) -> int:
    """kldload [-n] module."""
    given, rest = options(arguments, "nqv", "")
    status = 0
    with State() as state:
        for module in rest:
            name = module.removesuffix(".ko")
            loads = state.flag("loadable") or state.flag(name)
            if name not in ("zfs", "nullfs") or not loads:
                warn(f"kldload: can't load {module}: No such file or directory")
                status = 1
            elif state.flag(name) and "n" not in given:
                warn(f"kldload: can't load {module}: module already loaded or in kernel")
                status = 1
            else:
                state.set_meta(name, "1")
    return status


def sysctl(arguments: list[str]) -> int:
    """sysctl [-i] [-n] name ..."""
    given, rest = options(arguments, "inqaeAx", "")
    with State() as state:
        known = sysctls(state)
    status = 0
    for name in rest:
        if name in known:
            print(known[name] if "n" in given else f"{name}: {known[name]}")
        elif "i" not in given:
            warn(f"sysctl: unknown oid '{name}'")
            status = 1
    return status


def sysctls(state: State) -> dict[str, str]:
    """All that there are, with their values."""
    known = dict(SYSCTL)
    known |= jails.sysctls(state)
    known["kern.hostname"] = os.uname().nodename
    if state.flag("zfs"):
        known["vfs.zfs.version.module"] = VERSION
    return known


def su(arguments: list[str]) -> int:
    """su [-m] [user] [-c command]."""
    words = [word for word in arguments if word not in ("-m", "-l", "-")]
    user = words.pop(0) if words and not words[0].startswith("-") else "root"
    uid, gid = _ids(user)
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)
    return _execute("su", ["/bin/sh", *words])


def hostname(arguments: list[str]) -> int:
    """hostname [-s]; works without any state, so also in a view."""
    name = os.uname().nodename
    print(name.partition(".")[0] if "-s" in arguments else name)
    return 0


def freebsd_version(arguments: list[str]) -> int:
    """freebsd-version [-kru]."""
    letters = "".join(word.lstrip("-") for word in arguments) or "u"
    for _ in letters:
        print("14.2-BETA1")
    return 0


