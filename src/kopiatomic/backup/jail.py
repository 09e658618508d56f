"""Backups within a jail: whether this is one, and whether it may do what a backup needs.

A jail sees its own parameters by sysctl(8): sysctl_jail_default_allow() in
sys/kern/kern_jail.c. What they allow is in jail(8); what a jail may do to the datasets
that it was given is in zfs-jail(8). Not among that are channel programs (zfs-program(8)), for
zfs_secpolicy_config() in OpenZFS's zfs_ioctl.c wants a right that no jail has.
"""

import os

from kopiatomic.errors import EX_UNAVAILABLE, Refusal
from kopiatomic.system.command import CommandFailed, Door

_MOUNT = "security.jail.mount_{}allowed"

# Of mounts, 0 tells a jail those of its host under their names on the host; 2 those of / alone.
LEVEL = "enforce_statfs=1"

# Without it zfs(8) says "No such file or directory" and no more: libzfs_error_init().
ZFS = "/dev/zfs"


def entered(door: Door) -> Door:
    """Return a door that knows if this is a jail; where that is not known, it is none."""
    return door._replace(jailed=True) if _number(door, "security.jail.jailed") else door


def check_rights(door: Door) -> None:
    """Refuse to do anything in a jail that lacks a right, and name all that it lacks."""
    if not os.path.exists(ZFS):
        raise Refusal(
            f"this jail has no {ZFS}: mount its devfs (mount.devfs in jail.conf(5) on the host) "
            "with a ruleset that has 'add path zfs unhide' (devfs.rules(5)), or back it up from "
            "there",
            EX_UNAVAILABLE,
        )
    types = ["", "zfs_", "nullfs_"]
    if os.path.exists("/dev/null"):
        types.append("devfs_")
    known = {kind: _number(door, _MOUNT.format(kind)) for kind in types}
    lacking = [f"allow.mount.{kind}".rstrip("._") for kind in types if not known[kind]]
    if _number(door, "security.jail.enforce_statfs") != 1:
        lacking.append(LEVEL)
    if not lacking:
        return
    # A file system that is not in the kernel has no parameter yet, and a jail loads nothing.
    load = "; load nullfs there before (kldload nullfs)" if known["nullfs_"] is None else ""
    raise Refusal(
        f"this jail may not mount what a backup needs: its parameters lack {', '.join(lacking)}; "
        f"add that in jail.conf(5) on the host{load}, or back it up from there",
        EX_UNAVAILABLE,
    )


def _number(door: Door, name: str) -> int | None:
    """Return the value of a sysctl(8) variable, or None if it is not known."""
    try:
        if door.kernel is not None:
            return door.kernel.number(name)
        return int(door.run(["sysctl", "-n", name]).stdout)
    except (CommandFailed, OSError, ValueError):
        return None
