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

import pytest
from support.machine import BASE, Machine

from host.conftest import clean

RESTOMIC = "/usr/local/sbin/restomic"
SEED = os.environ["KOPIATOMIC_FAULTS_SEED"]
TIMES = 20 if os.environ.get("KOPIATOMIC_FAULTS") == "all" else 2
CLIENT = '#!/bin/sh\nfind "$@" -type f -exec cat {} + > /dev/null || exit 9\n'


def start(machine: Machine) -> subprocess.Popen[str]:
    """Start a backup of all that is below kta."""
    return machine.popen(
        [RESTOMIC, "--plain", "-c", f"{BASE}/client", "-r", "kta"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, new_group=True,
    )  # fmt: skip


@pytest.fixture
def usual(filled: Machine) -> float:
    """Return how long an undisturbed run takes, in seconds."""
    client = filled.path(f"{BASE}/client")
    client.write_text(CLIENT)
    client.chmod(0o755)
    began = time.monotonic()
    process = start(filled)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return time.monotonic() - began


@pytest.mark.parametrize("whom", ["one", "group"])
@pytest.mark.parametrize("name", ["KILL", "TERM", "INT", "HUP"])
def test_at_a_random_moment(filled: Machine, usual: float, name: str, whom: str):
    number = getattr(signal, f"SIG{name}")
    chance = random.Random(f"{SEED} {name} {whom}")
    for _ in range(TIMES):
        delay = chance.uniform(0, usual)
        process = start(filled)
        time.sleep(delay)
        if process.poll() is None:
            (os.kill if whom == "one" else os.killpg)(process.pid, number)
        said, _ = process.communicate(timeout=120)
        told = f"after {delay:.3f} of {usual:.3f} s, seed {SEED}: {process.returncode}, {said}"
        assert process.returncode in (0, -number, 128 + number), told
        assert "internal error" not in said, told
        if process.returncode == 128 + number:
            assert "interrupted by" in said, told
        if name != "KILL":
            clean(filled)
        else:
            again = filled.run([RESTOMIC, "--plain", "-c", f"{BASE}/client", "-r", "kta"])
            assert again.returncode == 0, told + again.stdout + again.stderr
            clean(filled)
