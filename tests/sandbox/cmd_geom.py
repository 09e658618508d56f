"""gpart(8), glabel(8), newfs_msdos(8) and mdconfig(8): disks are no more than their tables."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from uuid import NAMESPACE_OID, uuid5

from sandbox.standin import options, warn
from sandbox.state import State

Table = list[str]


def main(name: str, arguments: list[str]) -> int:
    """The program of that name."""
    programs = {"gpart": _gpart, "glabel": _glabel, "newfs_msdos": _newfs_msdos,
                "mdconfig": _mdconfig}
    with State() as state:
        return programs[name](state, arguments)


def disks(state: State) -> dict[str, Table]:
    """The disks of the machine, each with its table as gpart backup tells it; without, none."""
    found: dict[str, Table] = json.loads(state.meta("disks") or "{}")
    return found


def contents(state: State, device: str) -> str:
    """The directory of the files that are on the FAT file system of a partition."""
    return f"{state.base}/fat/{os.path.basename(device)}"


def lacks(state: State, device: str) -> bool:
    """Whether a path names a memory disk, or a part of a disk by its label, that is not there.

    Of other disks the pools of the tests are made on names alone.
    """
    name = device.removeprefix("/dev/")
    if not re.match(r"gpt/|md[0-9]", name):
        return False
    found = disks(state)
    parts = [(disk, part) for disk, table in found.items() for part in _parts(table)]
    return name not in {
        *found, *(f"{disk}p{part[0]}" for disk, part in parts),
        *(f"gpt/{_label(part).replace(' ', '%20')}" for _, part in parts),
    }


def keep(state: State, found: dict[str, Table]) -> None:
    """Write the disks down."""
    state.set_meta("disks", json.dumps(found))


def _parts(table: Table) -> list[list[str]]:
    return [line.split() for line in table[1:]]


def _label(part: list[str]) -> str:
    """Its words but for the flags; more than one blank is not kept here."""
    return " ".join(part[4:-1] if _flags(part) else part[4:])


def _flags(part: list[str]) -> str:
    return part[-1] if len(part) > 4 and part[-1].startswith("[") else ""


def _gpart(state: State, arguments: list[str]) -> int:
    commands = {"show": _show, "backup": _backup, "restore": _restore, "bootcode": _bootcode,
                "modify": _modify, "set": _modify}
    if not arguments or arguments[0] not in commands:
        warn(f"gpart: unknown command: {arguments[0] if arguments else ''}")
        return 1
    return commands[arguments[0]](disks(state), state, arguments[1:])


def _show(found: dict[str, Table], _state: State, arguments: list[str]) -> int:
    given, words = options(arguments, "lpr")
    for name in words or [name for name, table in found.items() if table]:
        if not found.get(name):
            warn(f"gpart: No such geom: {name}.")
            return 1
        table = found[name]
        width = max(len(name) + 3, 6)
        print(f"=>{'40':>10}  {'20971440':>10}  {name:>{width}}  {table[0].split()[0]}  (10G)")
        for index, kind, start, size, *_ in _parts(table):
            what = f"{name}p{index}" if "p" in given else index
            print(f"  {start:>10}  {size:>10}  {what:>{width}}  {kind}  (1.0G)")
        print(f"  {'20969472':>10}  {'2008':>10}  {'':>{width}}  - free -  (1.0M)\n")
    return 0


def _backup(found: dict[str, Table], _state: State, arguments: list[str]) -> int:
    if len(arguments) != 1:
        warn("gpart: Invalid number of arguments.")
        return 1
    table = found.get(arguments[0])
    if not table:
        warn(f"gpart: No such geom: {arguments[0]}.")
        return 1
    print(table[0])
    parts = _parts(table)
    first = len(table[0].split()[1])
    wide = [max((len(part[column]) for part in parts), default=0) for column in range(4)]
    for part in parts:
        index, kind, start, size = part[:4]
        label, flags = _label(part), _flags(part)
        print(f"{index:<{first}} {kind:>{wide[1]}} {start:>{wide[2]}} {size:>{wide[3]}} {label} "
              + (f" {flags} " if flags else ""))
    return 0


def _restore(found: dict[str, Table], state: State, arguments: list[str]) -> int:
    given, words = options(arguments, "lF", "f")
    lines = [" ".join(line.split()) for line in sys.stdin.read().splitlines() if line.strip()]
    for name in words:
        if name not in found:
            warn(f"gpart: arg0 '{name}': Invalid argument")
            return 1
        if found[name] and "F" not in given:
            warn(f"gpart: geom '{name}': File exists")
            return 1
        if not lines or len(lines[0].split()) > 2:
            warn("gpart: Incorrect backup format.")
            return 1
        # Of a label it takes the first word, and then it sees no flags.
        rows = [line.split() for line in lines[1:]]
        cut = [row[:5] if len(_label(row).split()) > 1 else row for row in rows]
        if "l" not in given:
            cut = [[*row[:4], *filter(None, [_flags(row)])] for row in cut]
        found[name] = [lines[0], *(" ".join(row) for row in cut)]
    keep(state, found)
    return 0


def _modify(found: dict[str, Table], state: State, arguments: list[str]) -> int:
    """modify -i INDEX -l LABEL GEOM, and set -a FLAG -i INDEX GEOM."""
    given, words = options(arguments, "", "ila")
    name, index = words[0] if words else "", given.get("i", [""])[-1]
    table = found.get(name)
    if not table:
        warn(f"gpart: arg0 '{name}': Invalid argument")
        return 1
    rows = _parts(table)
    for row in rows:
        if row[0] != index:
            continue
        label, flags = given.get("l", [_label(row)])[-1], _flags(row)[1:-1].split(",")
        flags += given.get("a", [])
        known = ",".join(filter(None, flags))
        row[4:] = filter(None, [label, f"[{known}]" if known else ""])
        found[name] = [table[0], *(" ".join(each) for each in rows)]
        keep(state, found)
        print(f"{given['a'][-1]} set on {name}p{index}" if "a" in given
              else f"{name}p{index} modified")
        return 0
    warn(f"gpart: index '{index}': No such file or directory")
    return 1


def _bootcode(found: dict[str, Table], _state: State, arguments: list[str]) -> int:
    given, words = options(arguments, "N", "bpi")
    for each in (*given.get("b", []), *given.get("p", [])):
        if not os.path.isfile(each):
            warn(f"gpart: {each}: No such file or directory")
            return 1
    parts = {part[0] for part in _parts(found.get(words[0]) or ["-"])} if words else set()
    if not words or given.get("i", ["1"])[-1] not in parts:
        warn("gpart: Invalid argument")
        return 1
    if "p" in given:
        print(f"partcode written to {words[0]}p{given['i'][-1]}")
    if "b" in given:
        print(f"bootcode written to {words[0]}")
    return 0


def _glabel(state: State, arguments: list[str]) -> int:
    if not arguments or arguments[0] not in ("status", "list"):
        warn("glabel: unknown command")
        return 1
    rows = []
    for name, table in disks(state).items():
        for part in _parts(table) if table else []:
            component = f"{name}p{part[0]}"
            if _label(part):
                rows.append((f"gpt/{_label(part).replace(' ', '%20')}", "N/A", component))
            rows.append((f"gptid/{uuid5(NAMESPACE_OID, component)}", "N/A", component))
    if "-s" not in arguments:
        rows = [("Name", "Status", "Components"), *rows]
    wide = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    for row in rows:
        print(f"{row[0]:>{wide[0]}}  {row[1]:>{wide[1]}}  {row[2]}")
    return 0


def _newfs_msdos(state: State, arguments: list[str]) -> int:
    _, words = options(arguments, "N", "FcLBbae")
    known = {f"/dev/{name}p{part[0]}" for name, table in disks(state).items()
             for part in (_parts(table) if table else [])}
    if not words or words[0] not in known:
        warn(f"newfs_msdos: {words[0] if words else ''}: No such file or directory")
        return 1
    shutil.rmtree(contents(state, words[0]), ignore_errors=True)
    print(f"{words[0]}: 532288 sectors in 532288 FAT32 clusters (512 bytes/cluster)")
    return 0


def _mdconfig(state: State, arguments: list[str]) -> int:
    """mdconfig -a -t type -s size, -d -u unit and -l."""
    given, _ = options(arguments, "adln", "tsuf")
    found = disks(state)
    units = sorted(name for name in found if re.fullmatch("md[0-9]+", name))
    if "l" in given:
        print("".join(f"{name} " for name in units))
        return 0
    if "d" in given:
        name = f"md{given['u'][-1].removeprefix('md')}"
        if name not in found or _in_use(state, name):
            reason = "Device busy" if name in found else "No such file or directory"
            warn(f"mdconfig: ioctl(/dev/mdctl): {reason}")
            return 1
        for part in _parts(found.pop(name)):
            shutil.rmtree(contents(state, f"{name}p{part[0]}"), ignore_errors=True)
        keep(state, found)
        return 0
    if "s" not in given:
        warn("mdconfig: must specify -s for -t malloc, -t swap, or -t null")
        return 1
    if not re.fullmatch("[0-9]+[bkmgt]?", given["s"][-1]):
        warn("mdconfig: unknown suffix on -s argument")
        return 1
    name = next(f"md{number}" for number in range(len(units) + 1) if f"md{number}" not in units)
    found[name] = []
    keep(state, found)
    print(name)
    return 0


def _in_use(state: State, disk: str) -> bool:
    """Whether a pool is on a disk, or on a part of it, or a file system of it is mounted."""
    own = {disk}
    for part in _parts(disks(state)[disk]):
        own |= {f"{disk}p{part[0]}", f"gpt/{_label(part).replace(' ', '%20')}"}
    used: set[str] = set()
    for (vdevs,) in state.rows("select vdevs from pools where exported = 0"):
        used |= {each.removeprefix("/dev/") for each in (vdevs or "").split("\t")}
    for (special,) in state.rows("select special from mounts"):
        used.add(str(special).removeprefix("/dev/"))
    return bool(own & used)
