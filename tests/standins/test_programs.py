"""Channel programs, in their own language, and the language itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sandbox import lua
from sandbox.host import Host

from standins.prelude import PRELUDE

pytestmark = pytest.mark.linux(reason="the stand-ins are for Linux only")


def program(host: Host, text: str, *words: str, dry: bool = False) -> Any:
    flags = ["-n"] if dry else []
    result = host.run(["zfs", "program", "-j", *flags, "zroot", "-", *words], input=text)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["return"]


def ok(host: Host, script: str) -> str:
    result = host.shell("set -e\n" + script)
    assert result.returncode == 0, result.stderr
    return str(result.stdout)


TAKE = """
local answers = {{}}
for _, name in ipairs({{ {names} }}) do
    local e = zfs.check.snapshot(name)
    if e == 0 then
        e = zfs.sync.snapshot(name)
        zfs.sync.set_prop(name, "org.x:run", "r")
    end
    answers[name] = e
end
return answers
"""
DESTROY = """
local answers = {{}}
for _, name in ipairs({{ {names} }}) do
    answers[name] = zfs.{way}.destroy(name)
end
return answers
"""


def take(host: Host, *names: str) -> Any:
    return program(host, TAKE.format(names=", ".join(f'"{name}"' for name in names)))


def destroy(host: Host, *names: str, way: str = "sync") -> Any:
    quoted = ", ".join(f'"{name}"' for name in names)
    return program(host, DESTROY.format(names=quoted, way=way))


def test_what_can_be_captured_is_captured_in_one_group(host: Host) -> None:
    host.room("zroot/home/ben", False)
    ok(host, "zfs set refreservation=8G zroot/none; zfs snapshot zroot/legacy@p")
    names = ["zroot/home@p", "zroot/home/ben@p", "zroot/none@p", "zroot/gone@p", "zroot/legacy@p",
             "zroot/vol@p", "tank@p", "zroot/home@q", "zroot/home@" + "l" * 300]
    answers = take(host, *names)
    assert answers == dict(zip(names, (0, 28, 28, 2, 17, 0, 18, 35, 63), strict=True))
    listed = ok(host, "zfs list -Hpt snapshot -o name,org.x:run,createtxg").splitlines()
    taken = [line.split("\t") for line in listed if "\tr\t" in line]
    assert [words[0] for words in taken] == ["zroot/home@p", "zroot/vol@p"]
    assert len({words[2] for words in taken}) == 1
    host.room("zroot/home/ben", True)
    assert take(host, "zroot/home/ben@p") == {"zroot/home/ben@p": 0}
    assert ok(host, "mount_nullfs /home/ben/.zfs/snapshot/p /mnt; cat /mnt/dir/b") == "b\n"


def test_destroying_by_name(host: Host) -> None:
    ok(host, """
        for s in none held clone nul direct looked plain; do zfs snapshot zroot/home@$s; done
        zfs hold k zroot/home@held; zfs clone -o canmount=off zroot/home@clone zroot/c
        mkdir -p /v/nul /v/looked; mount_nullfs /home/.zfs/snapshot/nul /v/nul
        mount_nullfs /home/.zfs/snapshot/looked /v/looked; umount /v/looked""")
    mount = host.run(["/usr/local/bin/python3", "-Ic", PRELUDE + """
os.mkdir("/v/direct"); sys.exit(zmount("zroot/home@direct", "/v/direct") != "ok")"""])
    assert mount.returncode == 0, mount.stderr
    names = [f"zroot/home@{s}" for s in "held clone nul direct looked plain gone".split()]
    names += ["zroot/gone@x", "tank@x"]
    # dsl_destroy_snapshot_check(): what is not there counts as destroyed; a mount holds it long,
    # also one that a look made, and a channel program unmounts nothing.
    expected = dict(zip(names, (16, 17, 16, 16, 16, 0, 0, 0, 18), strict=True))
    assert destroy(host, *names, way="check") == expected
    assert destroy(host, *names) == expected
    left = ok(host, "zfs list -Ht snapshot -o name")
    assert left.split() == [f"zroot/home@{s}" for s in
                            "none held clone nul direct looked".split()]
    ok(host, """
        umount /v/nul /v/direct /home/.zfs/snapshot/nul /home/.zfs/snapshot/looked
        zfs release k zroot/home@held; zfs destroy zroot/c""")
    assert set(destroy(host, *left.split()).values()) == {0}
    assert ok(host, "zfs list -Ht snapshot -o name") == ""
    assert list((host.root / "compat/sandbox/pool/snap").glob("*/*")) == []


def test_a_thousand_names(host: Host) -> None:
    host.create_datasets(["zroot/m", *(f"zroot/m/{n}" for n in range(1000))])
    names = [f"zroot/m/{n}@s" for n in range(1000)]
    assert set(take(host, *names).values()) == {0}
    assert len(ok(host, "zfs list -Ht snapshot -o name").splitlines()) == 1000
    assert set(destroy(host, *names).values()) == {0}
    assert ok(host, "zfs list -Ht snapshot -o name") == ""


def test_a_pool_without_room_and_one_that_cannot_be_written(host: Host) -> None:
    text = 'return { zfs.check.snapshot("zroot/home@x"), zfs.check.snapshot("zroot/no@x"),' \
           ' zfs.check.destroy("zroot/no@x") }'
    host.pool("zroot", full=True)
    assert program(host, text) == {"1": 28, "2": 28, "3": 0}
    host.pool("zroot", full=False, readonly=True)
    refused = host.run(["zfs", "program", "-j", "zroot", "-"], input=text)
    assert (refused.returncode, refused.stderr) == (
        1, "Channel program execution failed: pool is read-only\n")
    assert program(host, text, dry=True) == {"1": 0, "2": 2, "3": 0}


def test_a_dry_run_checks_all_but_the_room_and_changes_nothing(host: Host) -> None:
    host.room("zroot/home", False)
    assert program(host, 'return zfs.check.snapshot("zroot/home@x")') == 28
    assert program(host, 'return zfs.check.snapshot("zroot/home@x")', dry=True) == 0
    refused = host.run(["zfs", "program", "-n", "zroot", "-"],
                       input='\nreturn zfs.sync.snapshot("zroot/home@x")')
    assert refused.returncode == 1
    assert 'failed:\n[string "channel program"]:2: running functions from the zfs.sync' in (
        refused.stderr)


def test_what_was_done_before_a_failure_stays(host: Host) -> None:
    text = 'zfs.sync.snapshot("zroot/home@x")\nerror("over")'
    refused = host.run(["zfs", "program", "zroot", "-"], input=text)
    assert (refused.returncode, refused.stderr) == (
        1, 'Channel program execution failed:\n[string "channel program"]:2: over\n')
    assert ok(host, "zfs list -Ht snapshot -o name") == "zroot/home@x\n"


def test_arguments_and_looking(host: Host) -> None:
    ok(host, "zfs snapshot zroot/home@a; zfs set org.x:y=z zroot/home")
    found = program(host, """
        args = ...
        local names = {}
        for name in zfs.list.children(args["argv"][1]) do table.insert(names, name) end
        for name in zfs.list.snapshots(args["argv"][1]) do table.insert(names, name) end
        local value = zfs.get_prop("zroot/home", "org.x:y")
        return { names = table.concat(names, ","), value = value,
                 there = zfs.exists("zroot/home@a"), gone = zfs.exists("zroot/home@b") }
        """, "zroot/home")
    assert found == {"names": "zroot/home/ben,zroot/home/with space,zroot/home@a", "value": "z",
                     "there": True, "gone": False}


@pytest.mark.parametrize(("text", "expected"), [
    ("return 1 + 2 * 3 - 7 % 4, 'a' .. 1 .. \"b\"", [4, "a1b"]),
    ("local a, b, c = (function(...) return ..., 2 end)(7, 8) return a, b, c", [7, 2, None]),
    ("local t = {1, 2, x = 3, [9] = 4, } t.y = t.x t[1] = nil return #t, t.y, t[9]", [2, 3, 4]),
    ("local n = 0 for i = 10, 1, -3 do n = n + i end return n", [22]),
    ("local n = 0 while true do n = n + 1 if n > 4 then break end end return n", [5]),
    ("local n = 0 repeat local m = n n = n + 1 until m == 3 return n", [4]),
    ("if nil then return 1 elseif 0 then return 2 else return 3 end", [2]),
    ("local s = '' for k, v in pairs({a = 1, b = 2}) do s = s .. k .. v end return s", ["a1b2"]),
    ("local function f(n) if n == 0 then return 1 end return n * f(n - 1) end return f(5)", [120]),
    ("return next({}) == nil, not 1, 1 ~= '1', 'a' < 'b', nil and 1, nil or 2",
     [True, False, True, True, None, 2]),
    ("return pcall(error, 'e')", [False, "e"]),
    ("-- nothing\n--[[ of\nthis ]] return '\\065\\n\\x41', [[b]]", ["A\nA", "b"]),
    ("", []),
])
def test_the_language(text: str, expected: list[Any]) -> None:
    assert lua.run(text, lua.library(), []) == expected


@pytest.mark.parametrize(("text", "line", "message"), [
    ("\nreturn x.y", 2, "attempt to index a nil value"),
    ("nothing()", 1, "attempt to call a nil value"),
    ("return 1 + 'a'", 1, "attempt to perform arithmetic on a string value"),
    ("return 1 < 'a'", 1, "attempt to compare a string value"),
    ("local = 1", 1, "<name> expected near '='"),
    ("if true then", 1, "'end' expected near '<eof>'"),
    ("error('no')", 1, "no"),
    ("return @", 1, "unexpected symbol near '@'"),
])
def test_what_is_wrong_is_told(text: str, line: int, message: str) -> None:
    with pytest.raises(lua.LuaError) as caught:
        lua.run(text, lua.library(), [])
    assert caught.value.line == line
    assert message in str(caught.value.value)
