"""Another boot environment has another /var/db: nothing of a killed run may stay for that."""

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
from support.machine import CHECKOUT, Sandbox, shell, wait_for

from host.conftest import clean

pytestmark = pytest.mark.linux(reason="cuts the power and boots, from a pool of the machine's own")

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


def snapshots(machine: Sandbox) -> list[str]:
    listed = machine.run(["zfs", "list", "-H", "-t", "snapshot", "-o", "name"]).stdout
    return [name for name in listed.splitlines() if "@restomic-" in name]


def check(machine: Sandbox, *words: str) -> subprocess.CompletedProcess[str]:
    return machine.run([RESTOMIC, "--check", "--expect", "restomic/default", *words])


def activate_another(machine: Sandbox) -> None:
    """Do what bectl activate and a boot do to /var/db: it is that of another time."""
    power_cut_in_a_run(machine)
    machine.host.boot()
    shell(machine, f"rm {STATE}/restomic.default.unfinished")


def test_the_first_run_after_a_boot_removes_what_another_one_knew_of(installed: Sandbox) -> None:
    backup(installed)
    activate_another(installed)
    (left,) = snapshots(installed)
    assert f"snapshot {left}" in backup(installed)
    assert snapshots(installed) == []
    clean(installed)


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


def test_a_good_morning_does_not_hear_of_it(installed: Sandbox) -> None:
    backup(installed)
    shell(installed, "zfs set org.kopiatomic:backup=off zroot; zfs inherit x:y zroot")
    result = check(installed)
    assert (result.returncode, result.stdout) == (0, "")
    (note,) = json.loads(check(installed, "--json").stdout)["notes"]
    assert "BOOT ENVIRONMENTS in kopiatomic(8)" in note


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
