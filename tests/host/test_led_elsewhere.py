"""Whoever owns a directory above a mount point can lead its path elsewhere at any time.

What is killed and unmounted is told by what it is, and not by a name; a directory that is only
busy is no attack.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.machine import Machine, shell

from host.conftest import TOP, Repository, clean
from host.ongoing import PLACE, RUN, is_whole, kept_by, ongoing, pictures, started
from host.test_disturbs_nothing import left_out_of
from host.test_routine import script

RESTOMIC = "/usr/local/sbin/restomic"
CANTCREAT = 73
LACKING = 65

# In a directory of ben's, x, something is mounted on x/data; so is something on /kt/strange/data.
ABOVE, STRANGE = f"{TOP}/home/ben", "/kt/strange"
SWAPS = {
    "a link": f"cd {ABOVE}; mv x y; ln -s {STRANGE} x",
    "a link to /": f"cd {ABOVE}; mv x y; mkdir x; ln -s / x/data",
    "a directory": f"cd {ABOVE}; mv x y; mkdir -p x/data",
    "nothing": f"cd {ABOVE}; mv x y",
    "a file": f"cd {ABOVE}; mv x y; mkdir x; echo > x/data",
}
BACK = f"cd {ABOVE}; if [ -d y ]; then rm -rf x; mv y x; fi"


@pytest.fixture
def ben(filled: Machine) -> Iterator[Machine]:
    """A machine on which ben can lead kta/xd elsewhere, for instance to kta/strange."""
    shell(
        filled,
        f"""
        mkdir {ABOVE}/x; zfs create -o mountpoint={ABOVE}/x/data kta/xd; echo xd > {ABOVE}/x/data/f
        zfs create -o mountpoint={STRANGE}/data kta/strange; echo strange > {STRANGE}/data/f
        chown -h 1001 {ABOVE} {ABOVE}/x
        """,
    )
    try:
        yield filled
    finally:
        # Where the path of a mount leads elsewhere zfs(8) cannot unmount it, nor destroy the pool.
        shell(filled, BACK)


@contextmanager
def stranger(machine: Machine) -> Iterator[subprocess.Popen[str]]:
    """Have a program of somebody else's use what a path may be led to."""
    process = machine.popen(["/bin/sh", "-c", f"cd {STRANGE}/data; exec sleep 300 < f"])
    try:
        yield process
        assert process.poll() is None, "a stranger was ended"
        assert machine.path(f"{STRANGE}/data/f").read_text() == "strange\n"
        points = [line.split()[1] for line in machine.run(["mount", "-p"]).stdout.splitlines()]
        assert f"{STRANGE}/data" in points
        assert "/" in points
    finally:
        process.kill()
        process.wait()


# tail(1) has the file open once it has printed it.
STAYS = (
    f"tail -f {ABOVE}/x/data/f > {PLACE}/said 2>&1 & "
    f"until [ -s {PLACE}/said ]; do sleep 0.1; done; rm {PLACE}/said"
)


@pytest.mark.parametrize("swap", SWAPS)
def test_what_a_killed_run_left_is_swept_and_nothing_else(ben: Machine, swap: str):
    with stranger(ben):
        with started(ben, "kta/xd", first=STAYS) as run:
            run.wait_for_client()
            run.kill(client=False)
            shell(ben, SWAPS[swap])
            result = ben.run([RESTOMIC, "--sweep"])
        assert result.returncode == 0, result.stderr
        clean(ben)
    ended = re.findall(r"removed process (\S+) \((\d+)\)", result.stdout)
    assert "tail" in [name for name, _ in ended]
    assert run.client in [number for _, number in ended]


@pytest.mark.parametrize("swap", SWAPS)
def test_what_a_run_leaves_in_the_end_likewise(ben: Machine, swap: str):
    with stranger(ben):
        with ongoing(ben, "kta/xd", status=LACKING, first=STAYS) as run:
            shell(ben, SWAPS[swap])
        clean(ben)
    assert "ended what the client left running: tail (" in run.said
    assert "the backup is INCOMPLETE," in run.said


def test_the_next_run_sweeps_as_well(ben: Machine):
    with stranger(ben):
        with started(ben, "kta/xd", first=STAYS) as run:
            run.wait_for_client()
            run.kill(client=True)
            shell(ben, SWAPS["a link"])
            result = ben.run([RESTOMIC, "--plain", "-c", "true", "kta/src"])
        assert result.returncode == 0, result.stderr
        clean(ben)
    assert "  process tail (" in result.stdout


# While the view is built


def busy_directory(machine: Machine) -> list[str]:
    """Return the words of a program that makes and removes a file, as fast as it can."""
    python = "/usr/local/bin/python3" if machine.is_sandbox else sys.executable
    path = f"{ABOVE}/x/busy"
    code = f"import os\nwhile True: os.close(os.open({path!r}, os.O_CREAT)); os.unlink({path!r})"
    return [python, "-I", "-S", "-c", code]


@pytest.mark.restic
def test_a_busy_directory_above_is_no_attack(ben: Machine, restic: Repository):
    busy = ben.popen(busy_directory(ben))
    try:
        for _ in range(3):
            result = ben.run([RESTOMIC, "kta/xd", "kta/src"], env=restic.environment)
            assert result.returncode == 0, result.stderr + result.stdout
            assert "NOT ALL IS WELL" not in result.stdout
            assert busy.poll() is None
    finally:
        busy.kill()
        busy.wait()
    clean(ben)
    assert restic("dump", "latest", f"{ABOVE}/x/data/f") == "xd\n"


# With an ordinary directory in its place the dataset is shown where it was after all.
AWAY = [each for each in SWAPS if each != "a directory"]


@pytest.mark.restic
@pytest.mark.parametrize("swap", AWAY)
def test_a_mount_point_that_leads_elsewhere_costs_its_dataset(
    ben: Machine, restic: Repository, swap: str
):
    before = pictures(ben, f"{TOP}/src", f"{TOP}/home/with space", **kept_by(restic))
    words = ("-r", "kta/src", "kta/home/with space", "kta/xd", "-s", SWAPS[swap])
    with stranger(ben):
        result = ben.run([RESTOMIC, *words], env=restic.environment)
        clean(ben)
    assert result.returncode == CANTCREAT, result.stderr + result.stdout
    assert "the backup is INCOMPLETE" in result.stdout
    assert "  ! cannot show at its mount point kta/xd: " in result.stdout
    assert left_out_of(result.stdout) == {"kta/xd"}
    is_whole(restic, before)
    names = restic("ls", "latest").splitlines()
    assert not [name for name in names if "strange" in name or name.startswith(f"{ABOVE}/x/data/")]


@pytest.mark.restic
def test_an_ordinary_directory_in_its_place_is_as_good(ben: Machine, restic: Repository):
    words = ("kta/src", "kta/xd", "-s", SWAPS["a directory"])
    result = ben.run([RESTOMIC, *words], env=restic.environment)
    assert result.returncode == 0, result.stderr + result.stdout
    assert restic("dump", "latest", f"{ABOVE}/x/data/f") == "xd\n"
    clean(ben)


@pytest.mark.parametrize("swap", SWAPS)
def test_a_live_mount_that_leads_elsewhere_is_not_shown(ben: Machine, swap: str):
    """The wrapper speaks of it, so that it is in the view; the client does without."""
    client = script(ben, f"cat {ABOVE}/x/data/f; ls /kt/strange/data; echo ended", f"{PLACE}/w")
    words = ("--plain", "-c", client, "kta/src")
    with stranger(ben):
        result = ben.run([RESTOMIC, *words])
        assert "xd\n" in result.stdout
        result = ben.run([RESTOMIC, *words, "-s", SWAPS[swap]])
        clean(ben)
    assert result.returncode == 0, result.stderr + result.stdout
    assert f"  {ABOVE}/x/data is not in the view: " in result.stdout
    assert "xd\n" not in result.stdout
    assert "ended\n" in result.stdout


def test_the_mount_table_names_it_by_where_it_was(ben: Machine):
    """What is taken down is what the table lists, however its path reads by now."""
    with ongoing(ben, "kta/xd", status=LACKING) as run:
        shell(ben, SWAPS["a link"])
        assert f" on {RUN}/default/view{ABOVE}/x/data (nullfs" in ben.run(["mount", "-v"]).stdout
    assert "NOT ALL IS WELL" not in run.said
    clean(ben)
