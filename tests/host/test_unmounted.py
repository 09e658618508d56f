"""Datasets that nothing shows on the machine, and those of jails: their snapshots can be shown.

Jails have the root of the machine, path=/, so that they need no system of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from support.machine import Machine, shell

from host.conftest import TOP, Repository, clean, make_read_only, where
from host.ongoing import meanwhile, outcome

pytestmark = pytest.mark.restic

RESTOMIC = "/usr/local/sbin/restomic"
AT = "/kt/at"
NOINPUT = 66


def back_up(restic: Repository, *words: str, status: int = 0, program: str = RESTOMIC) -> str:
    """Run a backup, expect a status and a clean machine, nothing live changed; return all said."""
    machine = restic.machine
    before = standing(machine)
    result = machine.run([program, *words], env=restic.environment)
    assert result.returncode == status, result.stderr + result.stdout
    clean(machine)
    assert standing(machine) == before
    assert machine.run(["ls", "-A", AT]).stdout == ""
    return result.stdout + result.stderr


def standing(machine: Machine) -> list[str]:
    """Return what is mounted, and each dataset with what matters of its properties."""
    columns = "name,mounted,canmount,mountpoint,jailed,keystatus"
    datasets = machine.run(["zfs", "list", "-H", "-o", columns, "-r", "kta"]).stdout
    return [machine.run(["mount", "-p"]).stdout, datasets]


def saved(restic: Repository) -> dict[str, str]:
    """Return the files called ``file`` of the newest backup: their paths and what is in them."""
    listed = restic("ls", "latest", "--json").splitlines()[1:]
    nodes = [json.loads(line) for line in listed]
    paths = [node["path"] for node in nodes if node["path"].endswith("/file")]
    return {path: restic("dump", "latest", path) for path in paths}


def restored(restic: Repository, path: str) -> str:
    """Restore a file of the newest backup and return what is in it."""
    target = f"{restic.directory}/restored"
    restic("restore", "latest", "--target", target, "--include", path)
    return restic.machine.path(f"{target}{path}").read_text()


def left_out(machine: Machine) -> dict[str, str]:
    return {each["name"]: each["reason"] for each in outcome(machine)["left_out"]}


def several(machine: Machine) -> list[list[str]]:
    """Return the ways to choose all of the pool without a name for each; -a is all of a machine."""
    return [["-r", "kta"], *([["-a"]] if machine.is_sandbox else [])]


def section(said: str, title: str) -> list[str]:
    """Return the lines below a title of a report."""
    _, _, rest = said.partition(f"\n{title}\n")
    return [line.strip() for line in rest.split("\n\n")[0].splitlines()]


ALTHOUGH = "Captured although not mounted:"


@pytest.fixture
def odd(machine: Machine) -> Machine:
    """A machine with a dataset of each kind, all with a file, and none of them mounted."""
    shell(machine, f"""
        mkdir -p {AT}
        zfs create kta/home; echo home > {TOP}/home/file
        for each in noauto off none legacy; do
            zfs create kta/$each; echo $each > {TOP}/$each/file; zfs unmount kta/$each
        done
        echo password | zfs create -o encryption=on -o keyformat=passphrase kta/crypt
        echo crypt > {TOP}/crypt/file; zfs unmount kta/crypt
        zfs set canmount=noauto kta/noauto; zfs set canmount=off kta/off
        zfs set mountpoint=none kta/none; zfs set mountpoint=legacy kta/legacy
        mkdir -p {TOP}/noauto {TOP}/off {TOP}/crypt
    """)
    return machine


@pytest.mark.parametrize("name", ["noauto", "off", "crypt"])
def test_at_its_mount_point(odd: Machine, restic: Repository, name: str):
    said = back_up(restic, f"kta/{name}")
    assert saved(restic) == {f"{TOP}/{name}/file": f"{name}\n"}
    assert restored(restic, f"{TOP}/{name}/file") == f"{name}\n"
    (line,) = section(said, ALTHOUGH)
    assert line.startswith(f"kta/{name}")
    assert f"shown at {TOP}/{name}: not mounted" in line
    row = outcome(odd)["captured"][0]
    assert (row["dataset"], row["mountpoint"]) == (f"kta/{name}", f"{TOP}/{name}")
    assert row["unmounted"].startswith("not mounted")


@pytest.mark.parametrize("name", ["none", "legacy"])
def test_what_has_no_mount_point(odd: Machine, restic: Repository, name: str):
    said = back_up(restic, f"kta/{name}", status=NOINPUT)
    assert f"kta/{name} cannot be backed up: not mounted" in said
    assert "say by --at DIRECTORY where to show it" in said
    back_up(restic, f"kta/{name}", "--at", AT)
    assert saved(restic) == {f"{AT}/kta+{name}/file": f"{name}\n"}
    assert restored(restic, f"{AT}/kta+{name}/file") == f"{name}\n"


def test_all_of_them_with_one_that_is_mounted(odd: Machine, restic: Repository):
    names = [f"kta/{each}" for each in ("home", "noauto", "off", "none", "legacy", "crypt")]
    said = back_up(restic, "--at", AT, *names)
    wanted = {f"{TOP}/{each}/file": f"{each}\n" for each in ("home", "noauto", "off", "crypt")}
    wanted |= {f"{AT}/kta+{each}/file": f"{each}\n" for each in ("none", "legacy")}
    assert saved(restic) == wanted
    assert outcome(odd)["found_in_backup"] == [6, 6]
    assert len(section(said, ALTHOUGH)) == 5
    # The second night finds nothing changed, and names them again.
    again = back_up(restic, "--at", AT, *names)
    assert re.search(r"^Files: +0 new, +0 changed", again, re.M), again
    assert len(section(again, ALTHOUGH)) == 5
    assert "New since" not in again


def test_beside_the_dataset_that_its_mount_point_lies_in(odd: Machine, restic: Repository):
    shell(odd, f"echo top > {TOP}/file")
    back_up(restic, "kta", "kta/noauto", "--at", AT)
    assert saved(restic) == {f"{TOP}/file": "top\n", f"{TOP}/noauto/file": "noauto\n"}


def test_what_is_in_the_way(odd: Machine, restic: Repository):
    shell(odd, f"echo live > {TOP}/noauto/live; zfs create -o mountpoint={TOP}/off/x kta/x")
    said = back_up(restic, "kta/noauto", status=NOINPUT)
    assert f"there are files in {TOP}/noauto" in said
    said = back_up(restic, "kta/off", status=NOINPUT)
    assert f"{TOP}/off/x is in the way" in said
    back_up(restic, "kta/noauto", "kta/off", "kta", "--at", AT)
    kept = saved(restic)
    assert kept[f"{AT}/kta+noauto/file"] == "noauto\n"
    assert kept[f"{AT}/kta+off/file"] == "off\n"
    assert restic("dump", "latest", f"{TOP}/noauto/live") == "live\n"


def test_without_a_directory_for_it(odd: Machine, restic: Repository):
    shell(odd, f"rmdir {TOP}/noauto")
    back_up(restic, "kta/noauto")
    assert saved(restic) == {f"{TOP}/noauto/file": "noauto\n"}
    # In a dataset that is captured itself there is no place for one.
    said = back_up(restic, "kta/noauto", "kta", status=NOINPUT)
    assert f"there is no directory {TOP}/noauto" in said
    assert not odd.path(f"{TOP}/noauto").exists()


def test_hidden_by_another_mount(odd: Machine, restic: Repository):
    shell(odd, f"zfs create kta/cover; zfs set mountpoint={TOP}/home/in kta/cover")
    shell(odd, f"zfs create -o mountpoint={TOP}/home kta/over; echo over > {TOP}/home/file")
    said = back_up(restic, "kta/home", status=NOINPUT)
    assert "another file system is mounted over it" in said
    back_up(restic, "kta/home", "--at", AT)
    assert saved(restic) == {f"{AT}/kta+home/file": "home\n"}


def test_the_place_has_to_be_empty(odd: Machine, restic: Repository):
    said = back_up(restic, "kta/none", "--at", f"{TOP}/home", status=NOINPUT)
    assert f"--at {TOP}/home: {TOP}/home is mounted there" in said
    said = back_up(restic, "kta/none", "--at", "/etc", status=NOINPUT)
    assert "--at /etc: there are files in it; give an empty directory" in said
    said = back_up(restic, "kta/none", "--at", "/kt/nonesuch", status=NOINPUT)
    assert "--at /kt/nonesuch: no such directory" in said


def test_a_key_that_is_not_loaded(odd: Machine, restic: Repository):
    shell(odd, "zfs unload-key kta/crypt")
    said = back_up(restic, "kta/crypt", "--at", AT, status=NOINPUT)
    assert "its encryption key is not loaded; load it: zfs load-key kta/crypt" in said


def test_one_that_was_named_is_missed_with_what_lies_below_others(odd: Machine, restic: Repository):
    """With -r the rest is backed up, and the backup is not called whole."""
    shell(odd, "zfs unload-key kta/crypt")
    for words in (["kta/home", "kta/crypt"], [f"{TOP}/home", f"{TOP}/crypt"]):
        said = back_up(restic, "-r", *words, status=NOINPUT)
        assert "the backup is INCOMPLETE" in said
        told = "! kta/crypt is not in this backup: not mounted: its encryption key is not loaded"
        assert f"{told}; load it: zfs load-key kta/crypt\n" in said
        assert saved(restic) == {f"{TOP}/home/file": "home\n"}
    back_up(restic, "-r", "kta")
    shell(odd, "echo password | zfs load-key kta/crypt")
    back_up(restic, "-r", "kta/home", "kta/crypt")


def test_recursion_and_all_leave_them_out_as_ever(odd: Machine, restic: Repository):
    for words in several(odd):
        back_up(restic, *words, "--at", AT)
        assert saved(restic) == {f"{TOP}/home/file": "home\n"}
        assert {"kta/noauto", "kta/off", "kta/none", "kta/legacy"} <= set(left_out(odd))
    # A parent that is never mounted is named for the sake of those below it.
    shell(odd, "zfs create -o mountpoint=/kt/kta/below kta/off/below")
    back_up(restic, "-r", "kta/off")
    assert [each["dataset"] for each in outcome(odd)["captured"]] == ["kta/off/below"]
    assert left_out(odd) == {"kta/off": "not mounted: its property canmount is off"}


def test_a_dry_run_and_the_overview_tell(odd: Machine, restic: Repository):
    words = ["kta/none", "kta/home", "--at", AT]
    result = odd.run([RESTOMIC, "-n", *words], env=restic.environment)
    assert result.returncode == 0, result.stderr
    assert re.search(rf"^  kta/none +{AT}/kta\+none$", result.stdout, re.M)
    assert len(section(result.stdout, ALTHOUGH)) == 1
    told = json.loads(odd.run([RESTOMIC, "-n", "--json", *words], env=restic.environment).stdout)
    assert [row.get("unmounted") for row in told["captured"]] == [
        None, "not mounted: its property mountpoint is none",
    ]  # fmt: skip
    back_up(restic, *words)
    full = odd.run([RESTOMIC, "--status", "--full"]).stdout
    (line,) = section(full, "Not mounted, captured by default:")
    assert line.startswith("kta/none")
    rows = json.loads(odd.run([RESTOMIC, "--status", "--full", "--json"]).stdout)
    (row,) = [r for r in rows["jobs"][0]["captured"] if "unmounted" in r]
    assert row["dataset"] == "kta/none"


def uncovered(machine: Machine) -> list[str]:
    found = json.loads(machine.run(["/usr/local/sbin/kopiatomic", "--check", "--json"]).stdout)
    return [each["text"] for each in found["findings"] if each["kind"] == "uncovered"]


def test_a_pool_that_is_not_imported_is_told_as_long_as_it_is_missed(
    machine: Machine, restic: Repository
):
    """What came along is just not found any more, and the run without it is no worse for that."""
    machine.make_pool("ktb")
    directory = f"{TOP}/home/disks"
    shell(machine, f"""
        zfs create kta/home; mkdir -p {AT} {directory}/usb; echo here > {directory}/file
        zfs set mountpoint={directory}/usb ktb; echo there > {directory}/usb/file
    """)
    back_up(restic, "-r", directory)
    assert len(saved(restic)) == 2
    shell(machine, "zpool export ktb")
    said = back_up(restic, "-r", directory)
    assert re.search(r"^  gone +ktb +destroyed, renamed, without its pool, or", said, re.M), said
    back_up(restic, "-r", directory)
    told = machine.run([RESTOMIC, "--check"]).stdout
    assert "1 dataset was in a backup, and the pool is not imported now: ktb\n" in told
    assert "zpool import ktb; " in told
    back_up(restic, "-x", "ktb", "-r", directory)
    assert "not imported" not in machine.run([RESTOMIC, "--check"]).stdout
    shell(machine, f"zpool import{where(machine)} ktb")
    back_up(restic, "-r", directory)
    assert len(saved(restic)) == 2


def test_mounted_again_it_is_covered_and_the_change_is_told(odd: Machine, restic: Repository):
    words = ["kta", "kta/home", "kta/legacy", "kta/noauto", "--at", AT]
    back_up(restic, *words)
    assert not [each for each in uncovered(odd) if "kta" in each]
    shell(odd, "zfs mount kta/noauto; mkdir -p /kt/l; mount -t zfs kta/legacy /kt/l")
    assert not [each for each in uncovered(odd) if "kta" in each]
    said = back_up(restic, *words)
    assert f"/kt/l (before: {AT}/kta+legacy)" in said
    # That is where it was.
    assert "kta/noauto" not in said.partition("New since")[2].partition("\n\n")[0]
    assert section(said, ALTHOUGH) == [""] or not section(said, ALTHOUGH)
    shell(odd, "umount /kt/l; rmdir /kt/l")


def test_the_clients_backup_is_proved(odd: Machine, restic: Repository):
    """A client that is told to leave such a place out makes no good backup."""
    said = back_up(restic, "kta/none", "kta/home", "--at", AT, "-o", f"--exclude={AT}/kta+none",
                   status=65)  # fmt: skip
    assert "INCOMPLETE" in said
    assert f"kta/none ({AT}/kta+none) is not in the backup" in said


def test_in_a_read_only_pool_it_cannot_be_shown(odd: Machine, restic: Repository):
    """It could have no snapshot, and what is mounted needs none there."""
    make_read_only(odd, "kta")
    said = back_up(restic, "kta/noauto", "kta/home", status=73)
    assert "! no snapshot of kta/noauto: it is not mounted, and its pool is read-only" in said
    assert saved(restic) == {f"{TOP}/home/file": "home\n"}


# A snapshot that cannot be mounted costs itself.
def test_a_key_unloaded_meanwhile(odd: Machine, restic: Repository):
    program = meanwhile(odd, ("mount", "-t", "zfs"), "zfs unload-key kta/crypt")
    said = back_up_anyhow(restic, program, "kta/home", "kta/crypt")
    assert "INCOMPLETE" in said
    assert re.search(r"! cannot mount the snapshot of kta/crypt: .*denied", said), said
    assert saved(restic) == {f"{TOP}/home/file": "home\n"}


def back_up_anyhow(restic: Repository, program: str, *words: str) -> str:
    result = restic.machine.run([program, *words], env=restic.environment)
    assert result.returncode == 73, result.stderr + result.stdout
    clean(restic.machine)
    return result.stdout + result.stderr


# Jails


@pytest.fixture
def jail(odd: Machine) -> Iterator[str]:
    """A jail that has been given kta/jl, and has mounted it."""
    shell(odd, f"""
        zfs create -o jailed=on -o mountpoint={TOP}/jl kta/jl; zfs create kta/jl/below
        kldload -n nullfs
        jail -c name=ktj path=/ persist allow.mount allow.mount.zfs enforce_statfs=1
        zfs jail ktj kta/jl
        jexec ktj zfs mount kta/jl; jexec ktj zfs mount kta/jl/below
        echo jailed > {TOP}/jl/file; echo below > {TOP}/jl/below/file
    """)
    yield "ktj"
    odd.run(["jail", "-r", "ktj"])


def stop(machine: Machine) -> None:
    """Stop the jail, as jail(8) does where the datasets are unmounted in exec.prestop."""
    shell(machine, """
        jexec ktj zfs unmount kta/jl/below; jexec ktj zfs unmount kta/jl
        jail -r ktj
    """)


def test_of_a_running_jail(odd: Machine, restic: Repository, jail: str):
    back_up(restic, "kta/jl")
    assert saved(restic) == {f"{TOP}/jl/file": "jailed\n"}
    assert restored(restic, f"{TOP}/jl/file") == "jailed\n"
    back_up(restic, "-r", "kta/jl")
    both = {f"{TOP}/jl/file": "jailed\n", f"{TOP}/jl/below/file": "below\n"}
    assert saved(restic) == both
    back_up(restic, "-r", "kta")
    assert "belongs to a jail" in left_out(odd)["kta/jl"]
    for words in several(odd):
        back_up(restic, "--jailed", *words)
        assert saved(restic) == {f"{TOP}/home/file": "home\n", **both}
        assert "unmounted" not in str(outcome(odd)["captured"])


def test_of_one_that_is_stopped(odd: Machine, restic: Repository, jail: str):
    """Its mount point is for the jail to choose, so it is never shown there."""
    stop(odd)
    said = back_up(restic, "kta/jl", status=NOINPUT)
    assert "belongs to a jail, and its mount point is its jail's affair" in said
    back_up(restic, "-r", "--jailed", "kta", "--at", AT)
    jailed = {f"{AT}/kta+jl/file": "jailed\n", f"{AT}/kta+jl+below/file": "below\n"}
    assert saved(restic) == {f"{TOP}/home/file": "home\n", **jailed}
    assert restored(restic, f"{AT}/kta+jl/file") == "jailed\n"
    # Without a place for it, what was in the last backup and is not in this one is told.
    said = back_up(restic, "-r", "--jailed", "kta")
    assert re.search(r"^  missing +kta/jl +was in that backup; now: not mounted", said, re.M)


def test_a_job_by_its_path(odd: Machine, restic: Repository, jail: str):
    back_up(restic, f"{TOP}/jl")
    assert saved(restic) == {f"{TOP}/jl/file": "jailed\n"}
