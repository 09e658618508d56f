"""Another boot environment has another /var/db: nothing of a killed run may stay for that.

And whoever makes, mounts and activates one by bectl(8) is in no backup's way, nor it in theirs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import layouts
from support.machine import BASE, CHECKOUT, Machine, Sandbox, shell, wait_for

from host.conftest import Repository, clean
from host.ongoing import backup_goes_on, meanwhile, started

boots = pytest.mark.linux(reason="cuts the power and boots, from a pool of the machine's own")

RESTOMIC = "/usr/local/sbin/restomic"
RUN = ["--plain", "-c", "true", "--live", "/compat/linux", "zroot/home"]
STATE = "/var/db/kopiatomic"


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Sandbox]:
    """FreeBSD as its installer lays it out."""
    machine = Sandbox(tmp_path / "host", root_dataset="zroot/ROOT/default")
    try:
        layouts.installer(machine.host)
        yield machine
    finally:
        machine.close()


def backup(machine: Sandbox) -> str:
    result = machine.run([RESTOMIC, *RUN])
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def power_cut_in_a_run(machine: Sandbox) -> None:
    """Have the power fail while the client runs."""
    machine.path("/root/sleeper").write_text("#!/bin/sh\n: > /root/sleeping\nexec sleep 300\n")
    machine.path("/root/sleeper").chmod(0o755)
    process = machine.popen(
        [RESTOMIC, "--plain", "-c", "/root/sleeper", *RUN[3:]],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, new_group=True,
    )  # fmt: skip
    wait_for(machine.path("/root/sleeping").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    machine.host.power_cut()


def snapshots(machine: Machine) -> list[str]:
    listed = machine.run(["zfs", "list", "-H", "-t", "snapshot", "-o", "name"]).stdout
    return [name for name in listed.splitlines() if "@restomic-" in name]


def check(machine: Machine, *words: str) -> subprocess.CompletedProcess[str]:
    return machine.run([RESTOMIC, "--check", "--expect", "restomic/default", *words])


def activate_another(machine: Sandbox) -> None:
    """Do what bectl activate and a boot do to /var/db: it is that of another time."""
    power_cut_in_a_run(machine)
    machine.host.boot()
    shell(machine, f"rm {STATE}/restomic.default.unfinished")


@boots
def test_the_first_run_after_a_boot_removes_what_another_one_knew_of(installed: Sandbox) -> None:
    backup(installed)
    activate_another(installed)
    (left,) = snapshots(installed)
    assert f"snapshot {left}" in backup(installed)
    assert snapshots(installed) == []
    clean(installed)


@boots
def test_check_finds_it_where_no_run_comes(installed: Sandbox) -> None:
    backup(installed)
    activate_another(installed)
    (left,) = snapshots(installed)
    for _ in range(2):
        result = check(installed, "--json")
        found = json.loads(result.stdout)["findings"]
        assert [each["kind"] for each in found if each["kind"] != "uncovered"] == ["leftover"]
        assert left in result.stdout
    # Where something was found that may have its reason in it, the mail has it as well.
    assert "part of the boot environment zroot/ROOT/default" in check(installed).stdout
    backup(installed)
    assert "leftover" not in check(installed, "--json").stdout


@boots
def test_a_good_morning_does_not_hear_of_it(installed: Sandbox) -> None:
    backup(installed)
    shell(installed, "zfs set org.kopiatomic:backup=off zroot; zfs inherit x:y zroot")
    result = check(installed)
    assert (result.returncode, result.stdout) == (0, "")
    (note,) = json.loads(check(installed, "--json").stdout)["notes"]
    assert "BOOT ENVIRONMENTS in kopiatomic(8)" in note


@boots
def test_the_state_on_a_dataset_of_its_own_as_the_manual_has_it(installed: Sandbox) -> None:
    backup(installed)
    before = installed.run([RESTOMIC, "--status"]).stdout.splitlines()[2:]
    manual = (CHECKOUT / "files/manual.8.j2").read_text()
    section = manual.partition(".Sh BOOT ENVIRONMENTS")[2].partition(".Sh ")[0]
    block = re.search(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed", section, re.M | re.S)
    assert block
    shell(installed, "set -e\n" + block[1])
    assert json.loads(check(installed, "--json").stdout)["notes"] == []
    assert [line.split()[:3] for line in before] == [
        line.split()[:3]
        for line in installed.run([RESTOMIC, "--status"]).stdout.splitlines()[2:]
    ]
    assert oct(installed.path(STATE).stat().st_mode & 0o777) == "0o700"
    backup(installed)
    assert len(installed.path(f"{STATE}/restomic.default.history").read_text().splitlines()) == 2
    assert not installed.path(f"{STATE}.old").exists()
    clean(installed)


# The same on any machine, as far as it needs no boot


def another_environment(machine: Machine) -> str:
    """Kill a run, and leave what a boot of another environment leaves; return its snapshot."""
    with started(machine, "kta/src") as run:
        run.wait_for_client()
        run.kill(client=True)
    table = machine.run(["mount", "-p"]).stdout.splitlines()
    for point in [line.split()[1] for line in reversed(table)]:
        if point.startswith("/var/run/restomic/"):
            shell(machine, f"umount {point}")
    shell(machine, f"rm {STATE}/restomic.default.unfinished")
    (left,) = snapshots(machine)
    return left


@pytest.mark.parametrize("by", ["the next run", "sweep"])
def test_what_only_another_environment_knew_of_goes(filled: Machine, by: str) -> None:
    left = another_environment(filled)
    found = json.loads(check(filled, "--json").stdout)["findings"]
    assert [each["kind"] for each in found if left in each["text"]] == ["leftover"]
    words = ["--sweep", "-a"] if by == "sweep" else ["--plain", "-c", "true", "kta/src"]
    result = filled.run([RESTOMIC, *words])
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"snapshot {left}" in result.stdout
    assert snapshots(filled) == []
    clean(filled)


BECTL = "bectl -r ktc/ROOT"


@pytest.fixture
def environments(filled: Machine) -> Iterator[Machine]:
    """A machine with a pool of boot environments, which is not the one it runs from."""
    filled.make_pool("ktc")
    shell(filled, f"""
        zfs create -o mountpoint=none ktc/ROOT
        zfs create -o mountpoint={BASE}/root -o canmount=noauto ktc/ROOT/default
        zfs mount ktc/ROOT/default; echo root > {BASE}/root/file
        zpool set bootfs=ktc/ROOT/default ktc; mkdir {BASE}/other
    """)
    yield filled
    filled.run(["/bin/sh", "-c", f"{BECTL} umount other"])


@pytest.mark.freebsd  # the sandbox has no bectl(8) and no clones of file systems
@pytest.mark.restic
def test_environments_come_and_go_during_a_backup(environments: Machine, restic: Repository):
    with backup_goes_on(restic, "-r", "ktc/ROOT", "kta/src") as run:
        shell(environments, f"""
            {BECTL} create -e default other; {BECTL} mount other {BASE}/other
            [ "$(cat {BASE}/other/file)" = root ]; {BECTL} list
            {BECTL} umount other; {BECTL} rename other another; {BECTL} destroy -Fo another
        """)
    assert "NOT ALL IS WELL" not in run.said
    assert restic("dump", "latest", f"{BASE}/root/file") == "root\n"
    clean(environments)


@pytest.mark.freebsd  # the sandbox has no bectl(8) and no clones of file systems
@pytest.mark.restic
def test_one_that_is_made_meanwhile_is_activated_afterwards(environments, restic: Repository):
    """It would be promoted, and would take our snapshot along: the manual says so."""
    shell(environments, f"{BECTL} create -e default older")
    with backup_goes_on(restic, "-r", "ktc/ROOT", "kta/src") as run:
        shell(environments, f"{BECTL} create -e default younger")
        refused = environments.run(["/bin/sh", "-c", f"{BECTL} activate younger"])
        assert refused.returncode != 0
        assert "cannot promote 'ktc/ROOT/younger': dataset is busy" in refused.stderr
        # One that was there before takes along what is older than itself.
        shell(environments, f"{BECTL} activate older")
    assert "NOT ALL IS WELL" not in run.said
    assert restic("dump", "latest", f"{BASE}/root/file") == "root\n"
    clean(environments)
    for name in ("younger", "older", "default"):
        shell(environments, f"{BECTL} activate {name}")


@pytest.mark.freebsd  # the sandbox has no bectl(8) and no clones of file systems
def test_one_is_activated_before_the_snapshot_is_shown(environments: Machine):
    shell(environments, f"{BECTL} create -e default older")
    program = meanwhile(environments, ("mount_nullfs",), f"{BECTL} activate older")
    result = environments.run([program, "--plain", "-c", "true", "-r", "ktc/ROOT", "kta/src"])
    assert result.returncode == 73, result.stdout + result.stderr
    reason = "somebody has unmounted or destroyed its snapshot meanwhile"
    assert f"cannot show at its mount point ktc/ROOT/default: {reason}" in result.stdout
    clean(environments)
