"""gpart(8), glabel(8) and newfs_msdos(8), on disks that are no more than their tables."""

from __future__ import annotations

import json
import os
import sys

from sandbox.standin import options, warn
from sandbox.state import State

Table = list[str]


def main(name: str, arguments: list[str]) -> int:
    """The program of that name."""
    programs = {"gpart": _gpart, "glabel": _glabel, "newfs_msdos": _newfs_msdos}
    with State() as state:
        return programs[name](state, arguments)


def disks(state: State) -> dict[str, Table]:
    """The disks of the machine, each with its table as gpart backup tells it; without, none."""
    found: dict[str, Table] = json.loads(state.meta("disks") or "{}")
    return found


def keep(state: State, found: dict[str, Table]) -> None:
    """Write the disks down."""
    state.set_meta("disks", json.dumps(found))


def _parts(table: Table) -> list[list[str]]:
    return [line.split() for line in table[1:]]


def _gpart(state: State, arguments: list[str]) -> int:
    commands = {"show": _show, "backup": _backup, "restore": _restore, "bootcode": _bootcode}
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
    wide = max((len(part[1]) for part in _parts(table)), default=0)
    for index, kind, start, size, *rest in _parts(table):
        label = next((word for word in rest if not word.startswith("[")), "")
        flags = next((word for word in rest if word.startswith("[")), "")
        print(f"{index:<3} {kind:>{wide}} {start:>8} {size:>8} {label} {flags}")
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
        if "l" not in given:
            lines = [lines[0], *(" ".join(line.split()[:4]) for line in lines[1:])]
        found[name] = lines
    keep(state, found)
    return 0


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
    rows = [
        (f"gpt/{part[4]}", "N/A", f"{name}p{part[0]}")
        for name, table in disks(state).items()
        for part in (_parts(table) if table else [])
        if len(part) > 4 and not part[4].startswith("[")
    ]
    if "-s" not in arguments:
        rows = [("Name", "Status", "Components"), *rows]
    width = max((len(row[0]) for row in rows), default=0)
    for name, status, component in rows:
        print(f"{name:>{width}}  {status}  {component}")
    return 0


def _newfs_msdos(state: State, arguments: list[str]) -> int:
    _, words = options(arguments, "N", "FcLBbae")
    known = {f"/dev/{name}p{part[0]}" for name, table in disks(state).items()
             for part in (_parts(table) if table else [])}
    if not words or words[0] not in known:
        warn(f"newfs_msdos: {words[0] if words else ''}: No such file or directory")
        return 1
    print(f"{words[0]}: 532288 sectors in 532288 FAT32 clusters (512 bytes/cluster)")
    return 0
