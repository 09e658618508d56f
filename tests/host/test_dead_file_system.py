"""A file system that does not answer, one that answers with an error, one whose owner has gone.

mount(8) -v hangs, leaves it out, or crashes; the program asks nobody. On FreeBSD the first two
need a server of NFS or a FUSE daemon that dies and recovers when told to, and so are the sandbox's.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Protocol

import pytest
from support.machine import FreeBSD, Machine, Sandbox, shell

from host.conftest import TOP, Repository, clean
from host.ongoing import RUN, is_whole, kept_by, ongoing, pictures, started
from host.test_routine import script

RESTOMIC = "/usr/local/sbin/restomic"
KINDS = {"hangs": {"answer": "hangs"}, "fails": {"answer": "fails"}, "crashes": {"owner": 4711}}
SERVER = pytest.mark.linux(reason="needs a server that dies and recovers when told to")
USER = "ktgone"

# mount(8) hangs for ever there; what waits for it must not.
LIMIT = 45


class Ailment(Protocol):
    """What can be wrong with a file system, as mount(8) and statfs(2) see it."""

    kind: str

    def mount(self, point: str, words: str) -> None:
        """Mount something by mount(8), which will be in a bad way."""

    def mount_dataset(self, name: str) -> None:
        """Mount a dataset, which will be in a bad way, at its mount point."""

    def begin(self, *points: str) -> None:
        """Let what is mounted on these be in a bad way."""

    def end(self) -> None:
        """Let it be well again."""

    def close(self) -> None:
        """Remove what was made for it; it must be well."""


class Told:
    """The sandbox is told how a file system answers."""

    def __init__(self, machine: Sandbox, kind: str) -> None:
        self.machine, self.kind = machine, kind
        self.points: list[str] = []

    def mount(self, point: str, words: str) -> None:
        shell(self.machine, f"mkdir {point}; mount {words} {point}")

    def mount_dataset(self, name: str) -> None:
        """It is mounted already."""

    def begin(self, *points: str) -> None:
        self.points += points
        for point in points:
            self.machine.host.file_system(point, **KINDS[self.kind])

    def end(self) -> None:
        for point in self.points:
            self.machine.host.file_system(point, answer="", owner=0)

    def close(self) -> None:
        """Nothing was made."""


class UserGone:
    """A user of the tests' own mounts file systems, and is removed: mount(8) -v crashes."""

    kind = "crashes"

    def __init__(self, machine: FreeBSD) -> None:
        self.machine = machine
        self.mounted: list[str] = []
        assert machine.run(["id", USER]).returncode != 0, f"there is a user {USER}"
        shell(machine, f"pw useradd {USER} -d /nonexistent -s /usr/sbin/nologin")
        self.number = machine.run(["id", "-u", USER]).stdout.strip()
        self.allowed = machine.run(["sysctl", "-n", "vfs.usermount"]).stdout.strip()

    def _by_user(self, point: str, command: str) -> None:
        machine = self.machine
        shell(machine, f"chown {USER} {point}; sysctl vfs.usermount=1")
        try:
            shell(machine, f"su -m {USER} -c '{command}'")
            self.mounted.append(point)
        finally:
            shell(machine, f"sysctl vfs.usermount={self.allowed}")

    def mount(self, point: str, words: str) -> None:
        shell(self.machine, f"mkdir {point}")
        self._by_user(point, f"mount -t tmpfs tmpfs {point}")

    def mount_dataset(self, name: str) -> None:
        shell(self.machine, f"zfs unmount {name}; zfs allow -u {USER} mount {name}")
        self._by_user(f"/kt/{name}", f"zfs mount {name}")

    def begin(self, *points: str) -> None:
        shell(self.machine, f"pw userdel {USER}")

    def end(self) -> None:
        if self.machine.run(["id", USER]).returncode != 0:
            shell(self.machine, f"pw useradd {USER} -u {self.number} -s /usr/sbin/nologin")

    def close(self) -> None:
        for point in reversed(self.mounted):
            self.machine.run(["umount", "-f", point])
        shell(self.machine, f"pw userdel {USER}")


@pytest.fixture(
    params=[pytest.param(kind, marks=() if kind == "crashes" else SERVER) for kind in KINDS]
)
def ailment(filled: Machine, request: pytest.FixtureRequest) -> Iterator[Ailment]:
    made: Ailment = (
        Told(filled, request.param) if isinstance(filled, Sandbox) else UserGone(filled)
    )
    try:
        yield made
    finally:
        made.end()
        made.close()


@pytest.fixture
def sick(filled: Machine, ailment: Ailment) -> Machine:
    """A machine with a file system on /kt/dead that is in a bad way, seen by mount(8)."""
    ailment.mount("/kt/dead", "-t nfs server:/export")
    ailment.begin("/kt/dead")
    try:
        said = filled.run(["/bin/sh", "-c", "ulimit -c 0; mount -v"], timeout=2)
        assert said.returncode != 0 or "/kt/dead" not in said.stdout
    except subprocess.TimeoutExpired:
        assert ailment.kind == "hangs"
    return filled


def call(machine: Machine, *words: str, status: int = 0, **env: str) -> str:
    result = machine.run([RESTOMIC, *words], env=env, timeout=LIMIT)
    assert result.returncode == status, result.stderr + result.stdout
    return result.stdout + result.stderr


def tidy(machine: Machine, ailment: Ailment) -> None:
    ailment.end()
    clean(machine)
    assert "/kt/dead" in machine.run(["mount", "-v"]).stdout


@pytest.mark.restic
def test_a_backup(sick: Machine, ailment: Ailment, restic: Repository):
    before = pictures(sick, f"{TOP}/home", f"{TOP}/src", **kept_by(restic))
    said = call(sick, "-r", "kta", **restic.environment)
    assert "the backup succeeded," in said
    assert "NOT ALL IS WELL" not in said
    is_whole(restic, before)
    tidy(sick, ailment)


def test_looking_and_telling(sick: Machine, ailment: Ailment):
    assert f"{RUN}/default/hold/0" in call(sick, "-n", "--plain", "-c", "true", "kta/src")
    call(sick, "--plain", "-c", "true", "kta/src")
    assert "default" in call(sick, "--status")
    # Whether all is covered is another matter; that it is told is this one.
    result = sick.run([RESTOMIC, "--check"], timeout=LIMIT)
    assert "kta/home" in result.stdout, result
    assert call(sick, "--sweep") == "nothing was left behind\n"
    tidy(sick, ailment)


@pytest.mark.parametrize("how", ["sweep", "the next run"])
def test_a_killed_run_is_swept(sick: Machine, ailment: Ailment, how: str):
    with started(sick, "kta/src") as run:
        run.wait_for_client()
        run.kill(client=False)
        status = json.loads(call(sick, "--status", "--json"))
        left = [(each["kind"], each["name"].split("-")[0]) for each in status["left_over"]]
        assert ("snapshot", "kta/src@restomic") in left
        words = ["--sweep"] if how == "sweep" else ["--plain", "-c", "true", "kta/src"]
        said = call(sick, *words)
    assert "snapshot kta/src@restomic-" in said
    assert f"mount {RUN}/default/view\n" in said
    tidy(sick, ailment)


def test_in_the_view_itself(sick: Machine, ailment: Ailment):
    """The wrapper speaks of it, so that it is there, and its client leaves it alone."""
    client = script(sick, ": /kt/dead/exclude-list\necho ran", "/kt/client")
    if sick.is_sandbox:
        sick.host.forget_commands()
    assert "ran\n" in call(sick, "--plain", "-c", client, "kta/src")
    if sick.is_sandbox:
        # By a program, which can be given up.
        assert ["mount_nullfs", "/kt/dead", f"{RUN}/default/view/kt/dead"] in sick.host.commands()
    tidy(sick, ailment)


@pytest.mark.parametrize("end", ["in order", "killed"])
def test_a_mount_of_ours_that_dies_meanwhile_is_taken_down(
    filled: Machine, ailment: Ailment, end: str
):
    """As when a server goes away while the client works."""
    ailment.mount("/kt/usb", "-t tmpfs tmpfs")
    ours = f"{RUN}/default/view/kt/usb"
    with started(filled, "kta/src", client=": /kt/usb") as run:
        run.wait_for_client()
        assert f" on {ours} " in filled.run(["mount", "-v"]).stdout
        ailment.begin("/kt/usb", ours)
        if end == "in order":
            run.let_go()
            assert run.process.returncode == 0, run.said
            assert "NOT ALL IS WELL" not in run.said
        else:
            run.kill(client=True)
            assert f"removed mount {ours}\n" in call(filled, "--sweep")
    ailment.end()
    clean(filled)
    assert "/kt/usb" in filled.run(["mount"]).stdout


@pytest.mark.parametrize("ailment", ["crashes"], indirect=True)
def test_its_dataset_is_backed_up_as_the_others_are(filled: Machine, ailment: Ailment):
    """A mount by a user who was removed is a mount like any other."""
    ailment.mount_dataset("kta/home/ben")
    ailment.begin(f"{TOP}/home/ben")
    with ongoing(filled, "-r", "kta/home") as run:
        pass
    assert "kta/home/ben" in run.said
    ailment.end()
    clean(filled)
