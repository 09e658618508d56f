"""Waiting for a job that still runs, with real runs, and as the scripts of periodic(8) do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from support.machine import BASE, CHECKOUT, Machine, wait_for

from host.conftest import clean

SLOW = f"while [ ! -e {BASE}/go ]; do sleep 0.2; done"
RESTOMIC = "/usr/local/sbin/restomic"


@pytest.fixture
def running(filled: Machine) -> Iterator[subprocess.Popen[str]]:
    """A backup of job default that goes on until /kt/go is there."""
    client = filled.path(f"{BASE}/slow")
    client.write_text(f"#!/bin/sh\n: > {BASE}/begun\n{SLOW}\n")
    client.chmod(0o755)
    process = filled.popen(
        [RESTOMIC, "--plain", "-c", f"{BASE}/slow", "kta/src"], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, new_group=True,
    )  # fmt: skip
    wait_for(lambda: filled.path(f"{BASE}/begun").exists())
    yield process
    filled.path(f"{BASE}/go").touch()
    process.communicate(timeout=60)
    assert process.returncode == 0


def start(machine: Machine, *words: str) -> subprocess.Popen[str]:
    """Start a job that has to wait, and return when it does."""
    process = machine.popen(
        [RESTOMIC, "--verbose", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        new_group=True,
    )  # fmt: skip
    until_it_waits(process.stderr)
    return process


def until_it_waits(stream: IO[str]) -> None:
    for line in stream:
        if "; waiting up to " in line:
            return
    pytest.fail("it does not wait")


WORK = {
    "backup": (["--plain", "-c", "true", "kta/src"], "the backup succeeded"),
    "upkeep": (["-c", f"{BASE}/upkeep backup", "--upkeep", "--prune"], "upkeep succeeded"),
    "sweep": (["--sweep"], "nothing was left behind"),
}


@pytest.mark.parametrize("what", WORK)
def test_it_begins_when_the_other_has_ended(
    filled: Machine, running: subprocess.Popen[str], what: str
):
    words, says = WORK[what]
    filled.path(f"{BASE}/upkeep").write_text("#!/bin/sh\n")
    filled.path(f"{BASE}/upkeep").chmod(0o755)
    waiting = start(filled, *words, "--wait", "10m")
    assert running.poll() is None
    filled.path(f"{BASE}/go").touch()
    output, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, errors
    assert says in output
    if what != "sweep":
        assert " for another run of the job to end\n" in output
    clean(filled)


def test_it_gives_up_in_the_end(filled: Machine, running: subprocess.Popen[str]):
    waiting = start(filled, "--plain", "-c", "true", "kta/src", "--wait", "2s")
    output, errors = waiting.communicate(timeout=60)
    assert (waiting.returncode, output) == (75, "")
    assert errors.startswith("restomic: restomic/default is still running, since 2")
    assert errors.endswith("; waited 2 s for it; end it, or wait longer (with --wait)\n")
    assert running.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it(filled: Machine, running: subprocess.Popen[str], number: int):
    waiting = start(filled, "--plain", "-c", f"touch {BASE}/ran", "kta/src", "--wait=4h")
    os.kill(waiting.pid, number)
    output, errors = waiting.communicate(timeout=60)
    assert (waiting.returncode, output) == (128 + number, "")
    name = signal.Signals(number).name
    assert errors.startswith(f"restomic: interrupted by {name} while it waited: restomic/default")
    assert errors.count("\n") == 1
    assert running.poll() is None
    assert not filled.path(f"{BASE}/ran").exists()


@pytest.fixture
def scripts(machine: Machine, tmp_path: Path) -> Path:
    """The scripts for periodic(8), which call the programs where this machine has them."""
    pytest.importorskip("jinja2", reason="needs jinja2, as building the port does")
    renderer = [sys.executable, str(CHECKOUT / "periodic/render.py"), "--prefix", "/usr/local"]
    destination = tmp_path / "rendered"
    subprocess.run([*renderer, "--destdir", str(destination)], check=True)
    place = machine.path(f"{BASE}/periodic")
    place.mkdir()
    for path in (destination / "usr/local/etc/periodic").glob("*/*"):
        text = path.read_text()
        if not machine.is_sandbox:
            text = text.replace("/usr/local/sbin/", f"{machine.programs}/")
        # So that it can be seen that they wait.
        text = text.replace("set -- --periodic", "set -- --verbose --periodic")
        # Not what this machine's own periodic.conf says.
        text = text.replace("/etc/defaults/periodic.conf", f"{BASE}/none")
        (place / f"{path.parent.name}-{path.name}").write_text(text)
    return place


def by_script(machine: Machine, name: str, settings: str) -> subprocess.Popen[str]:
    line = f"{settings}; . {BASE}/periodic/{name}"
    return machine.popen(
        ["/bin/sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, new_group=True
    )


BACKUP = (
    "daily_restomic_enable=YES daily_restomic_plain=YES daily_restomic_command=true"
    " daily_restomic_datasets=kta/src"
)
UPKEEP = (
    "weekly_upkeep_restomic_enable=YES weekly_upkeep_restomic_prune=YES"
    f" daily_restomic_command='{BASE}/upkeep backup'"
)


@pytest.mark.parametrize(
    ("name", "settings"), [("daily-800.restomic", BACKUP), ("weekly-850.upkeep-restomic", UPKEEP)]
)
class TestPeriodic:
    @pytest.fixture(autouse=True)
    def _upkeep(self, filled: Machine, scripts: Path):
        filled.path(f"{BASE}/upkeep").write_text("#!/bin/sh\n")
        filled.path(f"{BASE}/upkeep").chmod(0o755)

    def test_waits_and_tells_for_how_long(
        self, filled: Machine, running: subprocess.Popen[str], name: str, settings: str
    ):
        waiting = by_script(filled, name, settings)
        until_it_waits(waiting.stdout)
        filled.path(f"{BASE}/go").touch()
        output, _ = waiting.communicate(timeout=60)
        assert waiting.returncode == (1 if "800" in name else 0), output
        assert " succeeded, " in output
        assert "  waited " in output
        assert " for another run of the job to end\n" in output

    def test_does_not_where_it_is_told_not_to(
        self, filled: Machine, running: subprocess.Popen[str], name: str, settings: str
    ):
        # What the backup waits is not for the upkeep.
        variable = "daily_restomic" if "800" in name else "weekly_upkeep_restomic"
        settings += f" daily_restomic_wait=3600 {variable}_wait=0"
        waiting = by_script(filled, name, settings)
        output, _ = waiting.communicate(timeout=60)
        assert waiting.returncode == 3
        assert "restomic/default is still running, since 2" in output

    def test_a_time_that_is_none_is_trouble(self, filled: Machine, name: str, settings: str):
        variable = "daily_restomic" if "800" in name else "weekly_upkeep_restomic"
        waiting = by_script(filled, name, f"{settings} {variable}_wait=soon")
        output, _ = waiting.communicate(timeout=60)
        assert waiting.returncode == 3
        assert "--wait soon: a time is wanted, as in 30s, 10m or 4h" in output


class TestProfiles:
    """Which wait is for whom."""

    @pytest.fixture
    def told(self, filled: Machine, scripts: Path):
        echo = filled.path(f"{filled.prefix}/sbin/restomic")
        echo.write_text('#!/bin/sh\necho "$@"\n')

        def told(name: str, settings: str) -> list[str]:
            output, _ = by_script(filled, name, settings).communicate(timeout=60)
            return [
                " ".join(re.findall(r"(?<=-j )\w+|(?<=--wait )\w+", line))
                for line in output.splitlines() if line
            ]  # fmt: skip

        return told

    def test_of_the_backup(self, told):
        settings = f"{BACKUP} daily_restomic_profiles='a b' daily_restomic_b_wait=1m"
        assert told("daily-800.restomic", settings) == ["a", "b 1m"]
        assert told("daily-800.restomic", f"{settings} daily_restomic_wait=2h") == ["a 2h", "b 1m"]

    @pytest.mark.parametrize("kind", ["850.upkeep", "860.drill"])
    def test_of_what_comes_after(self, told, kind: str):
        name = f"weekly_{kind.split('.')[1]}_restomic"
        settings = (
            f"{UPKEEP} {name}_enable=YES daily_restomic_profiles='a b'"
            " daily_restomic_b_wait=1m daily_restomic_wait=2m"
        )
        script = f"weekly-{kind}-restomic"
        assert told(script, settings) == ["a", "b"]
        assert told(script, f"{settings} {name}_wait=1h {name}_b_wait=0") == ["a 1h", "b 0"]
        assert told(script, f"{settings} {name}_b_wait=") == ["a", "b"]
