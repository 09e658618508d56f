"""What a run costs: processes started, and the time that --version takes."""

from __future__ import annotations

from collections import Counter

import pytest
from faults import bench
from support.machine import MODULES, Machine, shell

from host.conftest import clean

pytestmark = pytest.mark.linux(reason="counts what the sandbox's commands note")

CALLS = ("nmount", "unmount", "getfsstat", "fstatfs", "sysctlbyname")


def spent(machine: Machine, *words: str) -> Counter[str]:
    """Run a job and return how often which of the system's programs was started.

    It is not the first run since the boot, which looks once for what was left before.
    """
    backup = ["/usr/local/sbin/restomic", "--plain", "-c", "true", *words]
    # That there is a state directory now is something new as well.
    for argv in (backup, ["/usr/local/sbin/restomic", "--status"], backup):
        machine.host.forget_commands()
        result = machine.run(argv, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
    names = started(machine)
    clean(machine)
    return names


def started(machine: Machine) -> Counter[str]:
    """Return how often which program was started since the commands were forgotten."""
    names = Counter()
    for argv in machine.host.commands():
        verb = argv[1] if argv[0].endswith("zfs") else ""
        names[" ".join(filter(None, (argv[0].rpartition("/")[2], verb)))] += 1
    return names


def test_processes(machine: Machine):
    for name in ["ktb", "ktc"]:
        machine.make_pool(name)
    machine.host.create_datasets([f"{pool}/d{n}" for pool in ("kta", "ktb") for n in range(30)])
    names = spent(machine, "-r", "kta", "ktb", "ktc")
    assert names["zfs list"] == 1
    # One that makes the snapshots of each pool; one that destroys them, where they are several.
    assert names["zfs program"] == 3 + 2
    assert names["zfs destroy"] == 1
    calls = {name: names.pop(name) for name in CALLS}
    assert sum(names.values()) == 1 + 5 + 1
    # All else are system calls: each snapshot is mounted, and shown in the view, in which there
    # are /, /dev and /compat/linux besides.
    assert calls["nmount"] == calls["unmount"] == 63 + 63 + 3
    # The mount table before and after; the first question of each is how long it is.
    assert calls["getfsstat"] == 2 * 2
    assert calls["sysctlbyname"] == 1


def test_without_ctypes_there_is_a_process_for_each_mount(machine: Machine):
    shell(machine, "zfs create kta/a")
    machine.host.nmount(there=False)
    names = spent(machine, "kta/a")
    assert not names.keys() & set(CALLS)
    assert names["mount_nullfs"] == 4  # /, /compat/linux, what stands for kta, and the snapshot


def test_one_dataset(machine: Machine):
    shell(machine, "zfs create kta/a")
    names = spent(machine, "kta/a")
    assert names["zfs list"] == names["zfs program"] == names["zfs destroy"] == 1
    assert sum(number for name, number in names.items() if name not in CALLS) == 3


def test_what_others_keep_costs_nothing(machine: Machine):
    """To show and check the jobs asks nothing about snapshots, however many there are."""
    shell(machine, "zfs create kta/a")
    spent(machine, "kta/a")
    asked = []
    for snapshots in (0, 300):
        if snapshots:
            names = [f"kta/d{number:03}" for number in range(snapshots)]
            machine.host.create_datasets(names)
            shell(machine, "zfs snapshot -r kta@autosnap_daily")
        for option in ("--status", "--check"):
            machine.host.forget_commands()
            machine.run(["/usr/local/sbin/restomic", option, "--expect", "restomic/default"]
                        if option == "--check" else ["/usr/local/sbin/restomic", option])
            assert not [c for c in machine.host.commands() if "snapshot" in c or "get" in c]
            asked.append(started(machine))
    assert asked[:2] == asked[2:]
    assert asked[0]["zpool"] == 1


def test_three_thousand_datasets_are_one_moment(machine: Machine):
    """More names than a command line takes go through a channel program, in one group."""
    above = "kta/" + "p" * 80 + "/" + "q" * 80
    shell(machine, f"zfs create -p -o canmount=off {above}")
    machine.host.create_datasets([f"{above}/d{number:04}" for number in range(3000)])
    code = f"import sys; sys.path.insert(0, {MODULES!r})\n" + """
from kopiatomic.system import zfs
from kopiatomic.system.command import Door, argument_bytes
door = Door()
names = [f"{each.name}@one" for each in zfs.list_datasets(door) if each.name.startswith("kta/p")]
assert argument_bytes(names) > 524288
zfs.snapshot(door, names, "restomic:default:1")
assert zfs.own_snapshots(door, "restomic:default:") == sorted(names)
groups = door.run(["zfs", "list", "-Hp", "-t", "snapshot", "-o", "createtxg"]).stdout.split()
print(len(names), *set(groups))
assert zfs.destroy(door, names) == zfs.Destroyed()
assert zfs.own_snapshots(door, "restomic:default:") == []
"""
    result = machine.run(["/usr/local/bin/python3", "-I", "-c", code], timeout=300)
    assert result.returncode == 0, result.stderr
    count, *groups = result.stdout.split()
    assert int(count) >= 3000
    assert len(groups) == 1


def test_the_bench_measures_whole_runs():
    """What it counts is the same on every machine."""
    row = bench.row_of(1)
    assert (row["started"], row["asked"], row["calls"]) == (5, 0, 26)
