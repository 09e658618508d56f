"""`make demo` where nothing is prepared: it shows something before there is any client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import prepare
import pytest
from support import clients
from support.machine import CHECKOUT, Patient, wait_for

pytestmark = [
    pytest.mark.linux(reason="on FreeBSD the clients are packages, and none is built"),
    pytest.mark.restic, pytest.mark.kopia, pytest.mark.slow,
]  # fmt: skip

# A go that builds until it is told that it is enough; the real clients come out of it.
GO = """#!/bin/sh
case $1 in
version) echo "go version go1.99.1 linux/amd64" ;;
mod) echo '{{"Dir": "{0}"}}' ;;
list) echo one; echo two; echo three ;;
build)
    echo $$ > {0}/go.pid
    while [ ! -e {0}/enough ]; do echo one; sleep 0.5; done
    while [ "$1" != -o ]; do shift; done
    cp "{0}/real/${{2##*/}}" "$2" ;;
esac
"""

PLAN = "and then take all of it down again"


class Demo:
    """A demo in a checkout, with a home, a go and an apt-get of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.output = place / "output"
        self.cache = place / "cache/kopiatomic-tests"
        self.checkout = place / "checkout"
        for name in ("src", "tests", "files", "periodic"):
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(CHECKOUT / name, self.checkout / name, ignore=unwanted)
        for name in ("tmp", "bin", "real", "checkout/.venv/bin"):
            (place / name).mkdir(parents=True)
        for name in ("restic", "kopia"):
            (place / "real" / name).symlink_to(clients.find(name).path)
        self.executable("bin/go", GO.format(place))
        # Neither Debian's packages nor a restic that this machine may have.
        self.executable("bin/apt-get", "#!/bin/sh\nexit 1\n")
        self.executable("bin/restic", "#!/bin/sh\nexit 1\n")
        # The venv is there: making one takes the network.
        self.executable("checkout/.venv/bin/python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (self.checkout / ".venv/installed.json").write_text(json.dumps(prepare.DEMO))

    def executable(self, name: str, text: str) -> None:
        (self.place / name).write_text(text)
        (self.place / name).chmod(0o755)

    def start(self) -> None:
        ours = {
            "PATH": f"{self.place}/bin:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.checkout}/src:{self.checkout}/tests",
            "XDG_CACHE_HOME": str(self.place / "cache"),
            "TMPDIR": str(self.place / "tmp"),
            "KOPIATOMIC_GO": f"{self.place}/bin/go",
        }
        named = {clients.variable(source.name) for source in prepare.SOURCES}
        inherited = {name: value for name, value in os.environ.items() if name not in named}
        (self.place / "cache").mkdir()
        with self.output.open("w") as output:
            self.process = Patient(
                [sys.executable, str(self.checkout / "tests/demo.py")],
                env=inherited | ours, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )  # fmt: skip

    def shows(self, text: str) -> None:
        """Expect it to show a text, now or later."""
        wait_for(lambda: text in self.output.read_text() or self.process.poll() is not None, 120)
        assert text in self.output.read_text(), self.output.read_text()

    def go_on(self) -> None:
        (self.place / "enough").touch()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path)
    yield made
    made.go_on()
    if made.process.poll() is None:
        made.process.terminate()
    made.process.wait(60)


def test_the_machine_and_the_plan_come_before_the_clients(demo):
    demo.start()
    demo.shows("kta/home/with space  yes")
    demo.shows(PLAN)
    demo.shows("packages compiled")
    said = demo.output.read_text()
    assert said.index("== restomic -n -r") < said.index(PLAN) < said.index("== Getting restic")
    assert "== restomic -r" not in said
    demo.go_on()
    assert demo.process.wait(240) == 0
    said = demo.output.read_text()
    assert f"with restic {clients.version('restic')}, {demo.cache}" in said
    assert f"with kopia {clients.version('kopia')}, {demo.cache}" in said
    assert said.count("equal\n  those of the moment of the snapshot") == 2
    assert "== The morning after a bad night" in said
    assert "== Done" in said
    assert "still being built" not in said


def test_a_restic_that_is_there_serves_while_kopia_is_built(demo):
    (demo.place / "bin/restic").unlink()
    (demo.place / "bin/restic").symlink_to(demo.place / "real/restic")
    demo.start()
    demo.shows("== The morning after a bad night")
    demo.shows("== Getting kopia")
    said = demo.output.read_text()
    assert said.count("equal\n  those of the moment of the snapshot") == 1
    assert list(demo.cache.glob("restic-*")) == []
    go = int((demo.place / "go.pid").read_text())

    demo.process.send_signal(signal.SIGTERM)
    assert demo.process.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(go, 0)
    assert list((demo.place / "tmp").iterdir()) == []
    assert [each.name for each in demo.cache.rglob("*") if each.is_file()] == []
    assert [each.name for each in demo.cache.glob("tmp*")] == []
