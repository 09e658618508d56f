"""zfs(8): finds the code of a subcommand."""

from __future__ import annotations

from sandbox.standin import warn
from sandbox.state import State

MODULES = {
    "list": "zfs_list", "get": "zfs_list", "snapshot": "zfs_snapshot", "snap": "zfs_snapshot",
    "destroy": "zfs_destroy", "hold": "zfs_snapshot", "holds": "zfs_snapshot",
    "release": "zfs_snapshot", "program": "zfs_program", "create": "zfs_change",
    "set": "zfs_change", "inherit": "zfs_change", "clone": "zfs_change", "rename": "zfs_change",
    "mount": "zfs_change", "unmount": "zfs_change", "umount": "zfs_change",
    "jail": "zfs_change", "unjail": "zfs_change",
    "send": "zfs_send", "receive": "zfs_send", "recv": "zfs_send",
    "rollback": "zfs_change", "load-key": "zfs_change", "unload-key": "zfs_change",
}
VERSION = "zfs-2.2.6-FreeBSD_g33174af15\nzfs-kmod-2.2.6-FreeBSD_g33174af15"
TAIL = """
For the property list, run: zfs set|get

For the delegated permission list, run: zfs allow|unallow

For further help on a command or topic, run: zfs help [<topic>]"""
USAGES = {
    "snapshot": "[-r] [-o property=value] ... <filesystem|volume>@<snap> ...",
    "list": "[-Hp] [-r|-d max] [-o property[,...]] [-s property]...\n"
            "\t    [-S property]... [-t type[,...]] [filesystem|volume|snapshot] ...",
    "destroy": "[-fnpRrv] <filesystem|volume>\n"
               "\tdestroy [-dnpRrv] <filesystem|volume>@<snap>[%<snap>][,...]\n"
               "\tdestroy <filesystem|volume>#<bookmark>",
    "create": "[-Pnpuv] [-o property=value] ... <filesystem>\n"
              "\tcreate [-Pnpsv] [-b blocksize] [-o property=value] ... -V <size> <volume>",
    "program": "[-jn] [-t <instruction limit>] [-m <memory limit (b)>]\n"
               "\t    <pool> <program file> [lua args...]",
    "mount": "\n\tmount [-flvO] [-o opts] <-a | filesystem>",
    "set": "<property=value> ... <filesystem|volume|snapshot> ...",
    "rename": "[-f] <filesystem|volume|snapshot> <filesystem|volume|snapshot>",
    "rollback": "[-rRf] <snapshot>",
    "send": "[-DLPbcehnpsVvw] [-i|-I snapshot] <snapshot>",
    "receive": "[-vMnsFhu] <filesystem|volume|snapshot>",
    "hold": "[-r] <tag> <snapshot> ...",
    "release": "[-r] <tag> <snapshot> ...",
}


class Usage(Exception):
    """A command line zfs does not understand: what is wrong, and with which subcommand."""


def main(_name: str, arguments: list[str]) -> int:
    """`zfs SUBCOMMAND ...`."""
    if not arguments:
        warn("missing command\nusage: zfs command args ...")
        return 2
    command, rest = arguments[0], arguments[1:]
    if command == "version" or command in ("-V", "--version"):
        print(VERSION)
        return 0
    module = MODULES.get(command)
    if not module:
        warn(f"unrecognized command '{command}'\nusage: zfs command args ...")
        return 2
    if command in ("receive", "recv"):
        # The sender has to have its turn first.
        from sandbox.zfs_send import stream

        stream()
    with State() as state:
        if not state.flag("zfs"):
            warn("internal error: failed to initialize ZFS library")
            return 1
        function = __import__(f"sandbox.{module}", fromlist=["run"]).run
        try:
            return int(function(state, command, rest))
        except Usage as error:
            return usage(command, str(error))


def usage(command: str, reason: str = "") -> int:
    """The usage text on standard error, status 2."""
    name = {"snap": "snapshot", "umount": "unmount", "recv": "receive"}.get(command, command)
    first = f"{reason}\n" if reason else ""
    warn(f"{first}usage:\n\t{name} {USAGES.get(name, '...')}\n{TAIL}")
    return 2
