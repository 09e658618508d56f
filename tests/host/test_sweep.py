"""Sweeping all jobs at once, by hand and at boot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable

import pytest
from support.machine import BASE, CHECKOUT, Machine, Sandbox, shell, wait_for

from host.conftest import clean

RESTOMIC, KOPIATOMIC = "/usr/local/sbin/restomic", "/usr/local/sbin/kopiatomic"


def begin(machine: Machine, job: str, program: str = RESTOMIC) -> subprocess.Popen[str]:
    """Start a run of a job, and wait until its client sleeps."""
    client = machine.path(f"{BASE}/sleeper")
    client.write_text(f"#!/bin/sh\n: > {BASE}/sleeping\nexec sleep 300\n")
    client.chmod(0o755)
    mark = machine.path(f"{BASE}/sleeping")
    mark.unlink(missing_ok=True)
    process = machine.popen(
        [program, "--plain", "-j", job, "-c", f"{BASE}/sleeper", "kta/src"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, new_group=True,
    )  # fmt: skip
    wait_for(mark.exists)
    return process


def kill(machine: Machine, job: str, program: str = RESTOMIC) -> None:
    """Have a run of a job killed, so that all it made stays."""
    process = begin(machine, job, program)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)


def snapshots(machine: Machine) -> list[str]:
    listed = machine.run(["zfs", "list", "-H", "-t", "snapshot", "-o", "name"]).stdout
    return [name for name in listed.splitlines() if "tomic-" in name]


def test_every_job_of_the_program_and_no_other(filled: Machine):
    for job, program in (("one", RESTOMIC), ("two", RESTOMIC), ("one", KOPIATOMIC)):
        kill(filled, job, program)
    # A user's own, which only looks like one of ours.
    shell(filled, "zfs snapshot kta/src@restomic-20261126T030000Z-0123456789ab")
    result = filled.run([RESTOMIC, "--sweep", "-a"])
    assert (result.returncode, result.stderr) == (0, "")
    for job in ("one", "two"):
        assert f"job {job}: removed process sleep (" in result.stdout
        assert f"job {job}: removed mount /var/run/restomic/{job}/view" in result.stdout
        assert f"job {job}: removed snapshot kta/src@restomic-" in result.stdout
    left = snapshots(filled)
    assert "kta/src@restomic-20261126T030000Z-0123456789ab" in left
    programs = (name.split("@")[1].split("-")[0] for name in left)
    assert sorted(programs) == ["kopiatomic", "restomic"]
    result = filled.run([KOPIATOMIC, "--sweep", "-a", "--json"])
    account = json.loads(result.stdout)
    assert [each["job"] for each in account["jobs"]] == ["one"]
    assert any(each.startswith("snapshot kta/src@kopia") for each in account["jobs"][0]["removed"])
    assert (account["running"], account["problems"]) == ([], [])
    shell(filled, "zfs destroy kta/src@restomic-20261126T030000Z-0123456789ab")
    clean(filled)


def test_a_job_that_runs_now_is_passed_over_and_told(filled: Machine):
    kill(filled, "dead")
    process = begin(filled, "alive")
    try:
        result = filled.run([RESTOMIC, "--sweep", "-a"])
        assert (result.returncode, result.stderr) == (0, "")
        assert "job dead: removed snapshot kta/src@restomic-" in result.stdout
        assert result.stdout.endswith("job alive runs now and was passed over\n")
        assert process.poll() is None
        assert len(snapshots(filled)) == 1
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143
    clean(filled)


@pytest.mark.parametrize("names", [("precious", "u"), ("restomic-precious", "restomic-a")])
def test_what_a_property_says_of_others_is_not_believed(filled: Machine, names: tuple[str, str]):
    """A value may hold a newline, and who may set it is not who may destroy all snapshots."""
    theirs, liar = f"kta/src@{names[0]}", f"kta/home@{names[1]}"
    shell(filled, f"zfs snapshot {theirs} {liar}")
    lie = f"x\\n{theirs}\\tlocal\\trestomic:default:0123456789ab"
    lie += f"\\n{theirs}\\trestomic:default:0123456789ab"
    try:
        shell(filled, f"zfs set org.kopiatomic:run=\"$(printf '{lie}')\" {liar}")
        result = filled.run([RESTOMIC, "--sweep"])
        assert (result.returncode, result.stdout) == (0, "nothing was left behind\n")
        shell(filled, f"zfs list {theirs}")
    finally:
        shell(filled, f"zfs destroy {theirs}; zfs destroy {liar}")
    clean(filled)


def test_nothing_left(filled: Machine):
    result = filled.run([RESTOMIC, "--sweep", "-a"])
    assert (result.returncode, result.stdout, result.stderr) == (0, "nothing was left behind\n", "")
    result = filled.run([RESTOMIC, "--sweep", "-a", "--periodic"])
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_what_stays_of_one_job_is_told_and_does_not_stop_the_next(filled: Machine):
    kill(filled, "held")
    (name,) = snapshots(filled)
    filled.run(["zfs", "hold", "keep", name], check=True)
    kill(filled, "next")
    try:
        result = filled.run([RESTOMIC, "--sweep", "-a"])
        assert result.returncode == 71
        assert f"restomic (job held): the snapshot {name} of an earlier run stays" in result.stderr
        assert "job next: removed snapshot kta/src@restomic-" in result.stdout
        assert snapshots(filled) == [name]
        result = filled.run([RESTOMIC, "--sweep", "-a", "--periodic"])
        assert (result.returncode, result.stderr) == (3, "")
        assert "restomic (job held): the snapshot" in result.stdout
    finally:
        filled.run(["zfs", "release", "keep", name], check=True)
    assert filled.run([RESTOMIC, "--sweep", "-a"]).returncode == 0
    clean(filled)


def test_without_a_it_is_one_job(filled: Machine):
    kill(filled, "one")
    kill(filled, "default")
    assert "removed snapshot" in filled.run([RESTOMIC, "--sweep"]).stdout
    assert len(snapshots(filled)) == 1
    assert "removed snapshot" in filled.run([RESTOMIC, "--sweep", "-j", "one"]).stdout
    clean(filled)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-a", "-j", "one"], "--sweep -a is about all jobs: leave out -a, or -j"),
        (["-a", "kta/src"], "name no dataset or path"),
        (["kta/src"], "name no dataset or path"),
    ],
)
def test_bad_arguments(filled: Machine, words: list[str], says: str):
    result = filled.run([RESTOMIC, "--sweep", *words])
    assert (result.returncode, result.stdout) == (64, "")
    assert says in result.stderr


@pytest.fixture
def at_boot(filled: Machine) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run the script for rc(8), given what rc.conf(5) says."""
    text = (CHECKOUT / "files/kopiatomic_sweep.in").read_text()
    if filled.is_sandbox:
        text = text.replace("%%PREFIX%%", "/usr/local")
        filled.path("/etc/rc.subr").write_text(
            "load_rc_config() { . /etc/rc.conf; }\n"
            'run_rc_command() { eval "on=\\$$rcvar"; [ "$on" != YES ] || ${1}_it; }\n'
            'start_it() { $start_cmd; }\n'
        )
    else:
        text = text.replace("%%PREFIX%%/sbin", str(filled.programs))
    filled.path(f"{BASE}/kopiatomic_sweep").write_text(text)

    def start(setting: str) -> subprocess.CompletedProcess[str]:
        if filled.is_sandbox:
            filled.path("/etc/rc.conf").write_text(f"{setting}\n")
            return filled.run(["/bin/sh", f"{BASE}/kopiatomic_sweep", "start"])
        # The real rc.subr(8) takes what the environment says, unless rc.conf(5) says more.
        return filled.run(["/bin/sh", "-c", f"{setting}; set start; . {BASE}/kopiatomic_sweep"])

    return start


def test_at_boot_it_removes_what_a_power_cut_has_left(filled: Machine, at_boot):
    kill(filled, "one")
    if isinstance(filled, Sandbox):
        begin(filled, "one", KOPIATOMIC)
        filled.host.power_cut()
        filled.host.boot()
        assert "tomic/one" not in filled.run(["mount", "-v"]).stdout
    else:
        kill(filled, "one", KOPIATOMIC)
    assert len(snapshots(filled)) == 2
    off = at_boot("kopiatomic_sweep_enable=NO")
    assert off.returncode in (0, 1)  # the real rc.subr(8) says that it is not enabled
    assert len(snapshots(filled)) == 2
    result = at_boot("kopiatomic_sweep_enable=YES")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "job one: removed snapshot kta/src@restomic-" in result.stdout
    assert "job one: removed snapshot kta/src@kopiatomic-" in result.stdout
    clean(filled)
    result = at_boot("kopiatomic_sweep_enable=YES")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
