"""zfs program: understands the one shape of channel program that kopiatomic writes.

The text carries `local names = { "pool/fs@snap", ... }` and, optionally,
`local property, value = "name", "value"`; it checks all names by zfs.check.snapshot, returns a
table of errors when there are some, else makes all by zfs.sync.snapshot, sets the property by
zfs.sync.set_prop, and returns the number of names. A text that only returns a number works too.
"""

from __future__ import annotations

import sys

from sandbox.cmd_zfs import Usage
from sandbox.datasets import Dataset, World
from sandbox.standin import options, warn
from sandbox.state import State, quoted
from sandbox.zfs_snapshot import invalid, make

# FreeBSD's numbers, not Linux's.
ENOENT, EEXIST, EXDEV, EINVAL, ENOSPC, EROFS, ENAMETOOLONG = 2, 17, 18, 22, 28, 30, 63
LARGEST = 100 << 20


class Unclear(Exception):
    """A text of another shape."""


def run(state: State, _command: str, arguments: list[str]) -> int:
    """`zfs program [-jn] [-t limit] [-m limit] POOL FILE`."""
    try:
        given, words = options(arguments, "jn", "tm")
    except ValueError as error:
        raise Usage(f"invalid option '{error}'") from None
    if len(words) < 2:
        raise Usage("missing program argument" if words else "missing pool argument")
    pool, path = words[:2]
    for letter, largest in (("t", 100_000_000), ("m", LARGEST)):
        limit = given.get(letter, ["1"])[-1]
        if not limit.isdigit() or not 0 < int(limit) <= largest:
            word = "instruction" if letter == "t" else "memory"
            warn(f"Invalid {word} limit: {limit}" if not limit.isdigit() else
                 f"{word.capitalize()} limit must be within 1 and {largest}")
            return 1
    try:
        text = sys.stdin.read() if path == "-" else _read(path)
    except OSError as error:
        warn(f"cannot open '{path}': {error.strerror}")
        return 1
    world = World(state)
    if pool not in world.pools:
        warn(f"cannot open '{pool}': no such pool")
        return 1
    try:
        result = _execute(world, pool, text, "n" in given)
    except Unclear as error:
        warn(f'Channel program execution failed:\n[string "channel program"]:1: {error}')
        return 1
    _print(result, "j" in given)
    return 0


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _execute(world: World, pool: str, text: str, dry: bool) -> int | dict[str, int]:
    if "zfs.sync." not in text:
        last = text.split("return")[-1].strip() if "return" in text else ""
        if last.isdigit():
            return int(last)
    names = _strings(text, "local names")
    if "zfs.sync.snapshot" not in text or "zfs.check.snapshot" not in text:
        raise Unclear("the sandbox knows no channel programs but those of kopiatomic")
    failed = {}
    for name in names:
        code = _check(world, pool, name)
        if code:
            failed[name] = code
    if failed:
        return failed
    if dry:
        raise Unclear("running functions from the zfs.sync submodule requires passing sync=TRUE"
                      " to lzc_channel_program() (i.e. do not specify the \"-n\" command line"
                      " argument)")
    props = {}
    if "zfs.sync.set_prop" in text:
        pair = _strings(text, "local property, value")
        props[pair[0]] = pair[1]
    wanted: list[tuple[Dataset, str]] = []
    for name in dict.fromkeys(names):
        dataset, _, short = name.partition("@")
        wanted.append((world.datasets[dataset], short))
    make(world, wanted, props)
    return len(names)


def _check(world: World, pool: str, name: str) -> int:
    dataset, at, short = name.partition("@")
    if not at or invalid("", short):
        return ENAMETOOLONG if len(name) > 255 else EINVAL
    if len(name) > 255:
        return ENAMETOOLONG
    if dataset.partition("/")[0] != pool:
        return EXDEV
    if dataset not in world.datasets:
        return ENOENT
    if world.snapshot(name):
        return EEXIST
    _, _, readonly, full = world.pools[pool]
    return EROFS if readonly else ENOSPC if full else 0


def _strings(text: str, start: str) -> list[str]:
    """The string literals of the statement that begins so: a table, or values to the line end."""
    position = text.find(start)
    if position < 0:
        raise Unclear(f"the sandbox misses `{start} = ...` in the channel program")
    position = text.index("=", position) + 1
    in_table = text[position:].lstrip().startswith("{")
    found = []
    while position < len(text):
        letter = text[position]
        if letter == '"':
            word, position = _string(text, position + 1)
            found.append(word)
            continue
        if letter == "}" or (letter == "\n" and not in_table):
            return found
        position += 1
    return found


def _string(text: str, position: int) -> tuple[str, int]:
    escapes = {"n": 10, "t": 9, "r": 13, '"': 34, "\\": 92, "'": 39, "\n": 10}
    data = bytearray()
    while text[position] != '"':
        letter = text[position]
        position += 1
        if letter != "\\":
            data += letter.encode("utf-8", "surrogateescape")
            continue
        digits = ""
        while len(digits) < 3 and text[position].isdigit():
            digits += text[position]
            position += 1
        if digits:
            data.append(int(digits))
        else:
            data.append(escapes[text[position]])
            position += 1
    return data.decode("utf-8", "surrogateescape"), position + 1


def _print(result: int | dict[str, int], json: bool) -> None:
    if json:
        value = str(result) if isinstance(result, int) else (
            "{" + ",".join(f"{quoted(name)}:{code}" for name, code in result.items()) + "}")
        print(f'{{"return":{value}}}')
        return
    print("Channel program fully executed and produced output:")
    if isinstance(result, int):
        print(f"    return: {result}")
        return
    print("    return:")
    for name, code in result.items():
        print(f"        {name}: {code}")
