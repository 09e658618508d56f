"""How long tests wait for what has to come, on the machine at hand.

It only puts off the end of a test that fails: no test asserts a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

# What a machine takes to start a Python that the seconds in the tests are meant for.
USUAL = 0.05


def _measured() -> float:
    """Return how many times longer than usual this machine takes to start a Python."""
    took = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
        took.append(time.monotonic() - began)
    return max(1.0, min(took) / USUAL)


# Measured once for all processes that run tests.
PATIENCE = float(os.environ.setdefault("KOPIATOMIC_PATIENCE", f"{_measured():.1f}"))


class Patient(subprocess.Popen[Any]):
    """A process that is waited for as long as this machine may need."""

    def wait(self, timeout: float | None = None) -> int:
        return super().wait(None if timeout is None else timeout * PATIENCE)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        return super().communicate(input, None if timeout is None else timeout * PATIENCE)
