"""Datasets that come and go, and those that cannot be captured: each costs itself, not the others.

What happens right before a command of the program's own does so by a program that is the
installed one but for that: see ongoing.meanwhile().
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from support.machine import Machine, shell

from host.conftest import TOP, Repository, clean, leave_pool_no_room, where
from host.ongoing import RUN, is_whole, kept_by, meanwhile, outcome, pictures
from host.test_disturbs_nothing import left_out_of

pytestmark = pytest.mark.restic

RESTOMIC = "/usr/local/sbin/restomic"
CANTCREAT = 73

# Right before the snapshots are taken, and before they are mounted.
TAKEN, MOUNTED = ("zfs", "program"), ("mount", "-t", "zfs")

GONE = "it has gone since the run began"


def back_up(
    restic: Repository, *words: str, program: str = RESTOMIC, status: int = 0, tidy: bool = True
) -> str:
    """Run a backup, expect a status and a clean machine; return the report."""
    result = restic.machine.run([program, *words], env=restic.environment)
    assert result.returncode == status, result.stderr + result.stdout
    if tidy:
        clean(restic.machine)
    return result.stdout + result.stderr


def reason(said: str, name: str) -> str:
    """Return why a report says something was left out, nothing if it does not."""
    _, _, section = said.partition("Left out:\n")
    line = rf"^  {re.escape(name)} +(.*)$"
    if "New since the last good backup" in said:
        _, _, section = said.partition("New since the last good backup")
        was = "(?:missing|left out) +" + re.escape(name) + " +(?:was in that backup; now: )?"
        line = rf"^  {was}(.*)$"
    found = re.search(line, section.split("\n\n")[0], re.M)
    return found[1] if found else ""


def captured(machine: Machine) -> list[str]:
    return [each["dataset"] for each in outcome(machine)["captured"]]


@pytest.fixture
def others(filled: Machine, restic: Repository) -> Iterator[dict[str, object]]:
    """What is in the datasets that nothing happens to; it must be in each backup as it is now."""
    shell(filled, f"zfs create kta/short; echo short > {TOP}/short/file")
    return pictures(filled, f"{TOP}/home/ben", f"{TOP}/src", **kept_by(restic))


GOES = {
    "destroyed": "zfs destroy -r kta/short",
    "renamed": "zfs rename kta/short kta/brief",
    "renamed where it is": "zfs rename -u kta/short kta/brief",
}


# It goes after the plan was drawn


@pytest.mark.parametrize(("before", "how"), [
    *((TAKEN, how) for how in GOES), (MOUNTED, "destroyed"),
], ids=lambda each: each if isinstance(each, str) else each[-1])  # fmt: skip
def test_what_goes_is_left_out_and_named(filled, restic, others, how, before):
    program = meanwhile(filled, before, GOES[how])
    said = back_up(restic, "-r", "kta", program=program)
    is_whole(restic, others)
    assert reason(said, "kta/short") == GONE
    assert "the backup succeeded," in said
    assert "NOT ALL IS WELL" not in said
    assert "kta/short" not in captured(filled)
    assert {"kta", "kta/home", "kta/home/ben", "kta/src"} <= set(captured(filled))
    assert outcome(filled)["outcome"] == "success"


@pytest.mark.parametrize("how", ["renamed", "renamed where it is"])
def test_what_is_there_under_another_name_is_missed(filled, restic, others, how):
    """Its snapshot was made, and is not in the backup."""
    program = meanwhile(filled, MOUNTED, GOES[how])
    said = back_up(restic, "-r", "kta", program=program, status=CANTCREAT)
    is_whole(restic, others)
    assert "the backup is INCOMPLETE" in said
    told = "  ! kta/short: not in this backup, as a dataset was renamed, or promoted from a clone, "
    assert told in said
    assert {"kta", "kta/home", "kta/home/ben", "kta/src"} <= set(captured(filled))
    assert outcome(filled)["outcome"] == "incomplete"


@pytest.mark.parametrize("how", GOES)
@pytest.mark.parametrize("before", [TAKEN, MOUNTED], ids=["snapshot", "mount"])
def test_where_it_was_named_the_backup_is_incomplete(filled, restic, others, how, before):
    program = meanwhile(filled, before, GOES[how])
    words = ("-r", "kta/home", "kta/src", "kta/short")
    said = back_up(restic, *words, program=program, status=CANTCREAT)
    is_whole(restic, others)
    assert "the backup is INCOMPLETE" in said
    what = "no snapshot of" if before is TAKEN else "cannot mount the snapshot of"
    assert f"  ! {what} kta/short: " in said
    assert outcome(filled)["outcome"] == "incomplete"
    # Nobody takes that for a good one.
    status = filled.run([RESTOMIC, "--status"]).stdout
    assert re.search(r"default +never ", status), status


def test_by_the_path_of_its_mount_point_it_is_named_as_well(filled, restic, others):
    program = meanwhile(filled, TAKEN, GOES["destroyed"])
    said = back_up(restic, f"{TOP}/src", f"{TOP}/short", program=program, status=CANTCREAT)
    assert "no snapshot of kta/short: no such dataset" in said


def test_what_is_unmounted_before_the_snapshot_is_in_it_all_the_same(filled, restic, others):
    """A snapshot can be mounted without its dataset."""
    program = meanwhile(filled, TAKEN, "zfs unmount kta/short")
    back_up(restic, "-r", "kta/home", "kta/src", "kta/short", program=program)
    is_whole(restic, others)
    assert restic("dump", "latest", f"{TOP}/short/file") == "short\n"


def test_what_is_mounted_elsewhere_meanwhile_is_where_it_was(filled, restic, others):
    shell(filled, "zfs set mountpoint=/kt/was kta/short")
    program = meanwhile(filled, TAKEN, "zfs set mountpoint=/kt/elsewhere kta/short")
    back_up(restic, "kta/src", "kta/short", program=program)
    assert restic("dump", "latest", "/kt/was/file") == "short\n"


def test_whose_snapshot_is_unmounted_before_it_is_shown(filled, restic, others):
    """As ``zfs promote`` does it, which takes away all snapshots that nothing is mounted on."""
    unmount = "umount $(mount -p | awk '$1 ~ /^kta.short@/ { print $2 }')"
    program = meanwhile(filled, ("mount_nullfs",), unmount)
    said = back_up(restic, "-r", "kta", program=program, status=CANTCREAT)
    is_whole(restic, others)
    assert "the backup is INCOMPLETE" in said
    reason = "somebody has unmounted or destroyed its snapshot meanwhile"
    assert f"  ! cannot show at its mount point kta/short: {reason}" in said


def test_unless_its_mount_point_was_removed(filled, restic, others):
    """As zfs(8) does where the mount point was inherited: there is no place for it then."""
    program = meanwhile(filled, TAKEN, "zfs set mountpoint=/kt/elsewhere kta/short")
    said = back_up(restic, "kta/src", "kta/short", program=program, status=CANTCREAT)
    assert "the backup is INCOMPLETE" in said
    assert "  ! cannot show at its mount point kta/short: No such file or directory" in said
    assert left_out_of(said) == {"kta/short"}


def test_what_comes_meanwhile_is_not_missed(filled, restic, others):
    """As a build system makes datasets all night: the next run has it."""
    program = meanwhile(filled, TAKEN, "zfs create kta/fresh")
    said = back_up(restic, "-r", "kta", program=program)
    assert "kta/fresh" not in captured(filled)
    assert "NOT ALL IS WELL" not in said


def test_a_whole_tree_may_go(filled, restic, others):
    shell(filled, "zfs create kta/short/a; zfs create kta/short/a/b; zfs create kta/short/c")
    program = meanwhile(filled, TAKEN, "zfs destroy -r kta/short")
    said = back_up(restic, "-r", "kta", program=program)
    is_whole(restic, others)
    names = ("kta/short", "kta/short/a", "kta/short/a/b", "kta/short/c")
    assert {each: reason(said, each) for each in names} == dict.fromkeys(names, GONE)


def test_one_in_the_middle_goes_and_what_is_below_stays(filled, restic, others):
    """Its mount point has to be bridged then, as if it had not been selected."""
    shell(
        filled,
        f"zfs create kta/mid; zfs create -o mountpoint={TOP}/mid/low kta/low;"
        f"echo low > {TOP}/mid/low/file",
    )
    program = meanwhile(filled, TAKEN, "zfs rename -u kta/mid kta/away")
    said = back_up(restic, "-r", "kta", program=program)
    assert reason(said, "kta/mid") == GONE
    assert restic("dump", "latest", f"{TOP}/mid/low/file") == "low\n"
    is_whole(restic, others)


def test_where_all_of_it_goes_there_is_no_backup(filled, restic, others):
    program = meanwhile(filled, TAKEN, GOES["destroyed"])
    said = back_up(restic, "kta/short", program=program, status=CANTCREAT)
    assert "the backup FAILED" in said
    assert restic("snapshots", "--json").strip() in ("[]", "null")


def test_a_hook_that_takes_one_away_is_no_different(filled, restic, others):
    """-p runs before the plan is final, -s right after the snapshot."""
    said = back_up(restic, "-r", "kta", "-p", "zfs destroy kta/short")
    assert reason(said, "kta/short") == ""
    assert "kta/short" not in captured(filled)
    shell(filled, f"zfs create kta/short; echo short > {TOP}/short/file")
    said = back_up(restic, "-r", "kta", "-s", "zfs destroy -r kta/short")
    assert reason(said, "kta/short") == GONE, said
    is_whole(restic, others)


# It is there, and cannot be captured


def leave_no_room(machine: Machine) -> None:
    """Have kta/short reserve so much that a snapshot of it finds no room."""
    if machine.is_sandbox:
        machine.host.room("kta/short", False)
        return
    # What is in it would have to be reserved once more beside the snapshot.
    shell(
        machine,
        f"""
        room=$(zfs list -Hpo avail kta/short)
        dd if=/dev/random of={TOP}/short/big bs=1m count=$((room * 4 / 10 / 1048576))
        zpool sync kta
        zfs set refreservation=$((room * 7 / 10)) kta/short
        """,
    )


def test_no_room_for_one_snapshot(filled, restic, others):
    leave_no_room(filled)
    said = back_up(restic, "-r", "kta", status=CANTCREAT)
    is_whole(restic, others)
    assert "the backup is INCOMPLETE" in said
    assert "  ! no snapshot of kta/short: out of space" in said
    assert reason(said, "kta/short") == "out of space"
    assert left_out_of(said) == {"kta/short"}
    assert outcome(filled)["outcome"] == "incomplete"


def test_the_others_are_of_one_moment(filled, restic, others):
    leave_no_room(filled)
    keep = "zfs list -Hp -t snapshot -o name,createtxg | grep restomic > /kt/txg"
    back_up(restic, "-r", "kta", "-s", keep, status=CANTCREAT)
    lines = filled.path("/kt/txg").read_text().splitlines()
    assert len(lines) == 5
    assert len({line.split("\t")[1] for line in lines}) == 1


def test_a_dataset_on_its_quota_is_backed_up(filled, restic, others):
    shell(filled, "zfs set quota=2m kta/short")
    # Where quotas are heeded, it is full then.
    filled.run(["dd", "if=/dev/urandom", f"of={TOP}/short/big", "bs=65536", "count=32"])
    back_up(restic, "-r", "kta")
    assert restic("dump", "latest", f"{TOP}/short/file") == "short\n"


@pytest.fixture
def two_pools(filled: Machine, others: dict[str, object]) -> Iterator[Machine]:
    """A machine with another pool, ktb, that comes back whatever becomes of it."""
    filled.make_pool("ktb")
    shell(filled, "zfs create ktb/d; echo b > /kt/ktb/d/file; echo top > /kt/ktb/file")
    yield filled
    if filled.is_sandbox:
        filled.host.pool("ktb", full=False)
    filled.run(["/bin/sh", "-c", "zpool export ktb"])
    shell(filled, f"zpool import{where(filled)} ktb")


def test_a_read_only_pool_stands_still_by_itself(two_pools, restic, others):
    shell(two_pools, f"zpool export ktb; zpool import -o readonly=on{where(two_pools)} ktb")
    said = back_up(restic, "-r", "kta", "ktb")
    is_whole(restic, others)
    assert restic("dump", "latest", "/kt/ktb/d/file") == "b\n"
    assert restic("dump", "latest", "/kt/ktb/file") == "top\n"
    assert "the pool ktb is read-only and so stands still" in said
    assert "NOT ALL IS WELL" not in said
    assert {"ktb", "ktb/d", "kta/src"} <= set(captured(two_pools))


def test_a_read_only_pool_alone(two_pools, restic, others):
    shell(two_pools, f"zpool export ktb; zpool import -o readonly=on{where(two_pools)} ktb")
    back_up(restic, "-r", "ktb")
    assert restic("dump", "latest", "/kt/ktb/d/file") == "b\n"


@pytest.mark.parametrize("selection", [("-r", "kta", "ktb"), ("-r", "ktb", "kta")])
def test_a_pool_that_goes_costs_itself(two_pools, restic, others, selection):
    program = meanwhile(two_pools, TAKEN, "zpool export ktb")
    said = back_up(restic, *selection, program=program, status=CANTCREAT)
    is_whole(restic, others)
    assert "the backup is INCOMPLETE" in said
    assert "  ! no snapshot of ktb: " in said
    assert {"ktb", "ktb/d"} <= left_out_of(said)
    assert not {"ktb", "ktb/d"} & set(captured(two_pools))


def test_a_pool_that_goes_with_its_snapshots_costs_itself(two_pools, restic):
    """Nobody has named what is in it, and it has not been destroyed for all that is known."""
    directory = f"{TOP}/home/disks"
    shell(two_pools, f"mkdir -p {directory}/usb; zfs set mountpoint={directory}/usb ktb")
    said = back_up(restic, "-r", directory, "-s", "zpool export -f ktb", status=CANTCREAT)
    assert "! cannot mount the snapshot of ktb: its pool is not imported any more\n" in said
    assert {"ktb", "ktb/d"} <= left_out_of(said)
    # What is left in the pool goes with the next run that sees it.
    shell(two_pools, f"zpool import{where(two_pools)} ktb")
    assert "snapshot ktb/d@restomic-" in back_up(restic, "-r", directory)


def test_a_pool_without_any_room_costs_itself(two_pools, restic, others):
    leave_pool_no_room(two_pools, "ktb")
    said = back_up(restic, "-r", "kta", "ktb", status=CANTCREAT)
    is_whole(restic, others)
    assert "no snapshot of ktb/d: out of space" in said
    assert {"ktb", "ktb/d"} <= left_out_of(said)


def test_what_else_goes_wrong_does_not_hide_that_one_is_missing(filled, restic, others):
    leave_no_room(filled)
    # Of a backup that is whole it would be said that it succeeded.
    words = ("-r", "kta", "-s", "exit 1", "-q", "exit 1")
    said = back_up(restic, *words, status=CANTCREAT)
    is_whole(restic, others)
    assert "the backup is INCOMPLETE" in said
    assert "the command of -s failed" in said
    assert outcome(filled)["outcome"] == "incomplete"


# Its snapshot is there, and cannot be mounted


LOOK = "snapshot=$(zfs list -Ht snapshot -o name kta/short); name=${snapshot#*@}; mkdir -p /kt/look"


def test_who_has_looked_into_a_snapshot_does_not_keep_it_from_us(filled, restic, others):
    """ZFS has mounted it then, and a snapshot is mounted once only."""
    look = f"{LOOK}; mount_nullfs {TOP}/short/.zfs/snapshot/$name /kt/look; umount /kt/look"
    back_up(restic, "-r", "kta", "-s", look)
    assert restic("dump", "latest", f"{TOP}/short/file") == "short\n"
    is_whole(restic, others)


def test_who_keeps_a_snapshot_mounted_costs_that_dataset(filled, restic, others):
    keep = f"{LOOK}; mount_nullfs {TOP}/short/.zfs/snapshot/$name /kt/look"
    said = back_up(restic, "-r", "kta", "-s", keep, status=CANTCREAT, tidy=False)
    is_whole(restic, others)
    assert "  ! cannot mount the snapshot of kta/short: " in said
    assert left_out_of(said) == {"kta/short"}
    # It is not destroyed under who uses it, either, but by the next run.
    assert "zfs destroy kta/short@restomic-" in said
    shell(filled, "umount /kt/look")
    said = back_up(restic, "-r", "kta")
    assert "snapshot kta/short@restomic-" in said
    assert not filled.path(f"{RUN}/default").exists()
