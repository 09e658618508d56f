"""A file system that does not answer, one that answers with an error, one whose owner has gone.

mount(8) -v hangs, leaves it out, or crashes; the program asks nobody. On FreeBSD the first needs
a FUSE daemon or an NFS server, the last a user; so this is the sandbox's only.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from support.machine import Sandbox, shell

from host.conftest import TOP, Repository, clean
from host.ongoing import RUN, is_whole, kept_by, ongoing, pictures, started
from host.test_routine import script

pytestmark = pytest.mark.linux(reason="needs file systems that die and recover when told to")

RESTOMIC = "/usr/local/sbin/restomic"
KINDS = {"hangs": {"answer": "hangs"}, "fails": {"answer": "fails"}, "crashes": {"owner": 4711}}

# mount(8) hangs for ever there; what waits for it must not.
LIMIT = 45


def ail(machine: Sandbox, point: str, kind: str) -> None:
    machine.host.file_system(point, **KINDS[kind])


def recover(machine: Sandbox, point: str) -> None:
    machine.host.file_system(point, answer="", owner=0)


@pytest.fixture(params=KINDS)
def sick(filled: Sandbox, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A machine with a file system on /kt/dead that is in a bad way, seen by mount(8)."""
    shell(filled, "mkdir /kt/dead; mount -t nfs server:/export /kt/dead")
    ail(filled, "/kt/dead", request.param)
    try:
        said = filled.run(["mount", "-v"], timeout=2)
        assert said.returncode != 0 or "/kt/dead" not in said.stdout
    except subprocess.TimeoutExpired:
        assert request.param == "hangs"
    yield filled
    recover(filled, "/kt/dead")


def call(machine: Sandbox, *words: str, status: int = 0, **env: str) -> str:
    result = machine.run([RESTOMIC, *words], env=env, timeout=LIMIT)
    assert result.returncode == status, result.stderr + result.stdout
    return result.stdout + result.stderr


def tidy(machine: Sandbox) -> None:
    recover(machine, "/kt/dead")
    clean(machine)
    assert "/kt/dead" in machine.run(["mount", "-v"]).stdout


@pytest.mark.restic
def test_a_backup(sick: Sandbox, restic: Repository):
    before = pictures(sick, f"{TOP}/home", f"{TOP}/src", **kept_by(restic))
    said = call(sick, "-r", "kta", **restic.environment)
    assert "the backup succeeded," in said
    assert "NOT ALL IS WELL" not in said
    is_whole(restic, before)
    tidy(sick)


def test_looking_and_telling(sick: Sandbox):
    assert f"{RUN}/default/hold/0" in call(sick, "-n", "--plain", "-c", "true", "kta/src")
    call(sick, "--plain", "-c", "true", "kta/src")
    assert "default" in call(sick, "--status")
    # Whether all is covered is another matter; that it is told is this one.
    result = sick.run([RESTOMIC, "--check"], timeout=LIMIT)
    assert "kta/home" in result.stdout, result
    assert call(sick, "--sweep") == "nothing was left behind\n"
    tidy(sick)


@pytest.mark.parametrize("how", ["sweep", "the next run"])
def test_a_killed_run_is_swept(sick: Sandbox, how: str):
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
    tidy(sick)


def test_in_the_view_itself(sick: Sandbox):
    """The wrapper speaks of it, so that it is there, and its client leaves it alone."""
    client = script(sick, ": /kt/dead/exclude-list\necho ran", "/kt/client")
    sick.host.forget_commands()
    assert "ran\n" in call(sick, "--plain", "-c", client, "kta/src")
    # By a program, which can be given up.
    assert ["mount_nullfs", "/kt/dead", f"{RUN}/default/view/kt/dead"] in sick.host.commands()
    tidy(sick)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["in order", "killed"])
def test_a_mount_of_ours_that_dies_meanwhile_is_taken_down(
    filled: Sandbox, kind: str, end: str
):
    """As when a server goes away while the client works."""
    shell(filled, "mkdir /kt/usb; mount -t tmpfs tmpfs /kt/usb")
    ours = f"{RUN}/default/view/kt/usb"
    with started(filled, "kta/src", client=": /kt/usb") as run:
        run.wait_for_client()
        assert f" on {ours} " in filled.run(["mount", "-v"]).stdout
        for point in ("/kt/usb", ours):
            ail(filled, point, kind)
        if end == "in order":
            run.let_go()
            assert run.process.returncode == 0, run.said
            assert "NOT ALL IS WELL" not in run.said
        else:
            run.kill(client=True)
            assert f"removed mount {ours}\n" in call(filled, "--sweep")
    recover(filled, "/kt/usb")
    clean(filled)
    assert "/kt/usb" in filled.run(["mount"]).stdout


def test_its_dataset_is_backed_up_as_the_others_are(filled: Sandbox):
    """A mount by a user who was removed is a mount like any other."""
    ail(filled, f"{TOP}/home/ben", "crashes")
    with ongoing(filled, "-r", "kta/home") as run:
        pass
    assert "kta/home/ben" in run.said
    recover(filled, f"{TOP}/home/ben")
    clean(filled)
