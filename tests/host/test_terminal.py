"""What a person at a terminal sees, and what the keys do."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time

from support.machine import BASE, Machine
from support.patience import PATIENCE

from host.conftest import clean


def start(machine: Machine, script: str) -> tuple[subprocess.Popen[str], int]:
    """Start a job on a terminal of its own; return it and our end of the terminal."""
    client = machine.path(f"{BASE}/client")
    client.write_text(f"#!/bin/sh\n{script}\n")
    client.chmod(0o755)
    ours, theirs = pty.openpty()
    process = machine.popen(
        ["/usr/local/sbin/restomic", "--plain", "-c", f"{BASE}/client", "kta/src"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    return process, ours


def read_until(terminal: int, word: str, seconds: float = 30.0) -> str:
    """Return what the terminal shows up to a word, or up to its end."""
    shown, deadline = "", time.monotonic() + seconds * PATIENCE
    while word not in shown and time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.5)[0]:
            continue
        try:
            data = os.read(terminal, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data.decode()
    return shown


def test_the_client_has_the_terminal(filled: Machine):
    process, terminal = start(
        filled,
        'test -t 0 && test -t 1 && test -t 2 && echo "has it"; read answer; echo "<$answer>"',
    )
    assert "has it" in read_until(terminal, "has it")
    os.write(terminal, b"typed\n")
    shown = read_until(terminal, " ran ", 20)
    assert process.wait(30) == 0
    os.close(terminal)
    assert "<typed>" in shown
    assert "restomic: the backup succeeded" in shown
    clean(filled)


def test_an_interrupt_that_is_typed_reaches_the_client_once(filled: Machine):
    script = (
        f"trap 'echo caught >> {BASE}/caught; sleep 0.5; exit 130' INT\necho ready\nsleep 30 & wait"
    )
    process, terminal = start(filled, script)
    assert "ready" in read_until(terminal, "ready")
    os.write(terminal, b"\x03")
    shown = read_until(terminal, "never", 15)
    assert process.wait(30) == 130
    os.close(terminal)
    assert "interrupted by SIGINT" in shown
    assert filled.path(f"{BASE}/caught").read_text() == "caught\n"
    clean(filled)
