"""A run that is stopped at a random moment, and what the kernel has of it then.

The sandbox is stopped at every step: tests/faults. Here the moment is any, so that the
machine's own kernel has to do with it as well.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from support.machine import BASE, Machine, shell, wait_for

from host.conftest import Repository, clean

RESTOMIC = "/usr/local/sbin/restomic"
SEED = os.environ["KOPIATOMIC_FAULTS_SEED"]
ALL = os.environ.get("KOPIATOMIC_FAULTS") == "all"
CLIENT = '#!/bin/sh\nfind "$@" -type f -exec cat {} + > /dev/null || exit 9\n'
PLAIN = (RESTOMIC, "--plain", "-c", f"{BASE}/client", "-r", "kta")


class Job:
    """A job of a machine's, and how long an undisturbed run of it takes, in seconds."""

    def __init__(self, machine: Machine, words: tuple[str, ...], env: dict[str, str]) -> None:
        self.machine, self.words, self.env = machine, words, env
        began = time.monotonic()
        process = self.start()
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        self.usual = time.monotonic() - began

    def start(self) -> subprocess.Popen[str]:
        return self.machine.popen(
            self.words, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            new_group=True,
        )  # fmt: skip

    def stop(self, name: str, delay: float, send: Callable[[int, int], None] = os.kill) -> str:
        """Stop a run by a signal, expect that it says so, and return what is known of it."""
        number = getattr(signal, f"SIG{name}")
        process = self.start()
        time.sleep(delay)
        if process.poll() is None:
            send(process.pid, number)
        said, _ = process.communicate(timeout=120)
        told = f"after {delay:.3f} of {self.usual:.3f} s, seed {SEED}: {process.returncode}, {said}"
        # Before it has come to a program at all, python(1) ends in its own way.
        unborn = said.startswith("Fatal Python error: init_")
        assert unborn or process.returncode in (0, -number, 128 + number), told
        assert "internal error" not in said, told
        assert process.returncode != 128 + number or "interrupted by" in said, told
        return told

    def next_run(self, told: str) -> None:
        """Run it once more, which sweeps first."""
        again = self.machine.run(self.words, env=self.env)
        assert again.returncode == 0, told + again.stdout + again.stderr


@pytest.mark.parametrize("whom", ["one", "group"])
@pytest.mark.parametrize("name", ["KILL", "TERM", "INT", "HUP"])
def test_while_files_are_backed_up(filled: Machine, name: str, whom: str):
    client = filled.path(f"{BASE}/client")
    client.write_text(CLIENT)
    client.chmod(0o755)
    job = Job(filled, PLAIN, {})
    chance = random.Random(f"{SEED} {name} {whom}")
    for _ in range(20 if ALL else 2):
        told = job.stop(name, chance.uniform(0, job.usual), os.kill if whom == "one" else os.killpg)
        if name == "KILL":
            job.next_run(told)
        clean(filled)


def left(machine: Machine) -> str:
    """Return the clones and the holds that there are."""
    clones = shell(machine, "zfs list -H -o name -r kta | grep tomic- || true").stdout
    names = machine.run(["zfs", "list", "-H", "-t", "snapshot", "-o", "name"]).stdout.split("\n")
    return clones + machine.run(["zfs", "holds", "-H", *filter(None, names)]).stdout


@pytest.mark.restic
@pytest.mark.parametrize("option", ["--volumes", "--snapshot=mine"])
@pytest.mark.parametrize("name", ["KILL", "TERM"])
def test_while_there_are_clones_or_holds(
    filled: Machine, restic: Repository, name: str, option: str
):
    shell(filled, "zfs create -V 1m kta/disk; zfs snapshot -r kta@mine")
    wait_for(lambda: filled.run(["test", "-e", "/dev/zvol/kta/disk"]).returncode == 0)
    job = Job(filled, (RESTOMIC, option, "-r", "kta"), restic.environment)
    chance = random.Random(f"{SEED} {name} {option}")
    for _ in range(10 if ALL else 1):
        if option != "--volumes":
            # A run would make no second backup of the same snapshots.
            shell(filled, "zfs destroy -r kta@mine; zfs snapshot -r kta@mine")
        told = job.stop(name, chance.uniform(0, job.usual))
        if name == "KILL":
            job.next_run(told)
        clean(filled)
        assert left(filled) == "", told
