"""mount(8) and mount_nullfs(8)."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time

from sandbox.calls import ruleset_in
from sandbox.jails import current
from sandbox.mounts import Mount, MountError, Table, may_mount, resolve
from sandbox.standin import options, split_commas, warn
from sandbox.state import State

USAGE = """usage: mount [-adflpruvw] [-F fstab] [-o options] [-t external_type]
       mount [-dfpruvw] special | node
       mount [-dfpruvw] [-o options] [-t ufs | external_type] special node"""
USAGE_NULLFS = "usage: mount_nullfs [-o options] target mount-point"
FLAGS = {"ro": "read-only", "rdonly": "read-only", "nosuid": "nosuid", "noatime": "noatime",
         "noexec": "noexec", "nosymfollow": "nosymfollow"}
IGNORED = ("rw", "noro", "suid", "exec", "atime", "nocache", "cache", "nocover", "cover",
           "emptydir", "late", "noauto", "failok", "linrdlnk", "nodup", "nounixbypass",
           "unixbypass")


def main(name: str, arguments: list[str]) -> int:
    """Either of the two programs."""
    if name == "mount_nullfs":
        return mount_nullfs(arguments)
    json = "--libxo" in " ".join(arguments[:4])
    arguments = _without_libxo(arguments)
    try:
        given, rest = options(arguments, "adflpruvw", "oFt")
    except ValueError as error:
        warn(f"mount: illegal option -- {error}\n{USAGE}")
        return 1
    types = split_commas(given.get("t", []))
    words = split_commas(given.get("o", [])) + (["ro"] if "r" in given else [])
    if not rest:
        return _list(types, json, "v" in given, "p" in given)
    if len(rest) != 2:
        warn(USAGE)
        return 1
    return _mount(types[-1] if types else "ufs", words, rest[0], rest[1])


def _without_libxo(arguments: list[str]) -> list[str]:
    rest = []
    words = iter(arguments)
    for word in words:
        if word == "--libxo":
            next(words, "")
        elif not word.startswith("--libxo"):
            rest.append(word)
    return rest


# -- listing ---------------------------------------------------------------------------------


def _list(types: list[str], json: bool, verbose: bool, fstab: bool) -> int:
    with State() as state:
        mounts = Table(state).seen()
    if types:
        wanted = types if not types[0].startswith("no") else []
        unwanted = [types[0][2:], *types[1:]] if types[0].startswith("no") else []
        mounts = [m for m in mounts if (not wanted or m.fstype in wanted)
                  and m.fstype not in unwanted]
    if verbose and not fstab:
        # getmntinfo(3) with MNT_WAIT: each is asked, and some never answer.
        if any(m.answer == "hangs" for m in mounts):
            while True:
                time.sleep(3600)
        mounts = [m for m in mounts if m.answer != "fails"]
    if fstab:
        text = "".join(fstab_line(m) for m in mounts)
    else:
        mounts = [m for m in mounts if verbose or not m.hidden]
        users = _users()
        if any(m.owner and m.owner not in users for m in mounts):
            _crash()
        if json:
            lines = ", ".join(_json(m, verbose, users.get(m.owner, "")) for m in mounts)
            text = f'{{"mount": {{"mounted": [{lines}]}}}}\n'
        else:
            text = "".join(_line(m, verbose, users.get(m.owner, "")) for m in mounts)
    sys.stdout.flush()
    # Not sys.stdout: names are bytes, and a path need not be UTF-8.
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(1, data):]
    return 0


def fstab_line(mount: Mount) -> str:
    """A line of `mount -p`: tabs to columns, and nothing is escaped."""
    text = _pad(mount.special) + _pad(mount.node) + mount.fstype + "\t"
    words = mount.fstab_options
    text += words + ("\t" if len(words) < 8 else " ")
    passes = "0 0"
    if mount.fstype == "ufs":
        passes = "1 1" if mount.node == "/" else "2 2"
    return f"{text}\t{passes}\n"


def _pad(word: str) -> str:
    size = len(word.encode("utf-8", "surrogateescape"))
    return word + ("\t" if size < 8 else "") + ("\t" if size < 16 else "") + (
        "\t" if size < 24 else " ")


def _users() -> dict[int, str]:
    with open("/etc/passwd") as lines:
        found = [line.split(":") for line in lines]
    return {int(words[2]): words[0] for words in reversed(found)}


def _crash() -> None:
    """As mount(8) does when it has no name for who mounted something."""
    import resource
    import signal

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)


def _line(mount: Mount, verbose: bool, user: str) -> str:
    words = [mount.fstype, *mount.options, *([f"mounted by {user}"] if mount.owner else [])]
    if verbose:
        words += [f"fsid {mount.fsid}", "vnodes: count 1 "]
    return f"{mount.special} on {mount.node} ({', '.join(words)})\n"


def _json(mount: Mount, verbose: bool, user: str) -> str:
    text = (f'{{"special":"{_escape(mount.special)}","node":"{_escape(mount.node)}",'
            f'"fstype":"{mount.fstype}"')
    if mount.options:
        text += ', "opts": [' + ",".join(f'"{name}"' for name in mount.options) + "]"
    if mount.owner:
        text += f',"mounter":"{user}"'
    if verbose:
        text += f',"fsid":"{mount.fsid}", "vnodes": {{"count":1}}'
    return text + "}"


def _escape(text: str) -> str:
    """As libxo does it: tabs stay as they are, which is no valid JSON."""
    for character, code in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(character, code)
    return text


# -- mounting --------------------------------------------------------------------------------


def _mount(fstype: str, words: list[str], special: str, node: str) -> int:
    try:
        target = resolve(node)
        if not stat.S_ISDIR(os.stat(target).st_mode) and fstype != "nullfs":
            raise MountError(target, errno.ENOTDIR)
    except MountError as error:
        warn(f"mount: {error.path}: {error.text}")
        return 1
    if fstype == "nullfs":
        arguments = ["-o", ",".join(words)] if words else []
        status = mount_nullfs([*arguments, special, target])
        if not status:
            _tell_mountd()
        return status
    try:
        with State() as state:
            if not may_mount(state, fstype):
                raise MountError(target, errno.EPERM)
            if fstype == "zfs":
                mount_zfs(state, _flags(words, target), special, target)
            elif fstype == "devfs":
                rules = [w.partition("=")[2] for w in words if w.startswith("ruleset=")]
                rules = [ruleset_in(state, each) for each in rules or [""]]
                Table(state).devfs(target, rules[-1], _flags(words, target))
            else:
                Table(state).special(special, target, fstype, _flags(words, target))
    except MountError as error:
        warn(f"mount: {error.path}: {error.text}")
        return 1
    _tell_mountd()
    return 0


def _tell_mountd() -> None:
    """mount(8) has mountd(8) read its exports anew after each mount; nmount(2) does not."""
    import fcntl
    import signal

    try:
        with open("/var/run/mountd.pid") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.kill(int(file.read()), signal.SIGHUP)
    except (OSError, ValueError):
        pass


def mount_zfs(state: State, flags: frozenset[str], special: str, target: str,
              hidden: bool = False) -> None:
    """Mount a dataset or a snapshot on a directory; MountError."""
    jail = current(state)
    if jail and not jail.owns(special.partition("@")[0]):
        raise MountError(special, errno.EPERM)
    if "@" in special:
        Table(state).snapshot(special, target, flags, hidden)
        return
    from sandbox.datasets import World

    world = World(state)
    dataset = world.datasets.get(special)
    if not dataset:
        raise MountError(special, errno.ENOENT)
    if special in world.mounted:
        raise MountError(special, errno.EBUSY)
    if dataset.locked or (world.value(dataset, "jailed")[0] == "on" and not jail):
        raise MountError(special, errno.EPERM)
    world.mount(dataset, target, flags, hidden)


def _flags(words: list[str], target: str) -> frozenset[str]:
    found = set()
    for word in words:
        if word in FLAGS:
            found.add(FLAGS[word])
        elif word not in IGNORED and "=" not in word:
            raise MountError(f"{target}: mount option <{word}> is unknown", errno.EINVAL)
    return frozenset(found)


def mount_nullfs(arguments: list[str]) -> int:
    """mount_nullfs [-o options] source node."""
    try:
        given, rest = options(arguments, "", "o")
    except ValueError as error:
        warn(f"mount_nullfs: illegal option -- {error}\n{USAGE_NULLFS}")
        return 64
    if len(rest) != 2:
        warn(USAGE_NULLFS)
        return 64
    source, target = rest
    try:
        source, target = resolve(source), resolve(target)
    except MountError as error:
        warn(f"mount_nullfs: {error.path}: {error.text}")
        return 64
    try:
        with State() as state:
            if not may_mount(state, "nullfs"):
                raise MountError(target, errno.EPERM)
            flags = _flags(split_commas(given.get("o", [])), target)
            Table(state).nullfs(source, target, flags)
            state.set_meta("nullfs", "1")
    except MountError as error:
        warn(f"mount_nullfs: {error.path}: {error.text}")
        # Only a source that cannot be resolved is a usage error; zfs answers inside State.
        return 64 if error.code in (errno.ENOENT, errno.EBUSY) and "/.zfs" in error.path else 1
    return 0
