"""How many cases are tried: a bounded number in CI, with a seed that is printed."""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import hypothesis
import pytest

ALL = os.environ.get("KOPIATOMIC_FAULTS") == "all"
SEED = int(os.environ.get("KOPIATOMIC_FAULTS_SEED") or random.randrange(10**6))

# Shrinking takes minutes: KOPIATOMIC_FAULTS_SHRINK=1 asks for it, once something was found.
PHASES = [hypothesis.Phase.generate]
if os.environ.get("KOPIATOMIC_FAULTS_SHRINK"):
    PHASES.append(hypothesis.Phase.shrink)

# What was tried, by name; and how long that took.
CASES: Counter[str] = Counter()
SECONDS: dict[str, float] = {}


def several(in_ci: int, in_all: int) -> hypothesis.settings:
    """Return hypothesis' settings for so many cases."""
    return hypothesis.settings(
        max_examples=in_all if ALL else in_ci, deadline=None, database=None,
        suppress_health_check=list(hypothesis.HealthCheck), print_blob=False,
        phases=PHASES,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _timed(request: pytest.FixtureRequest):
    began = time.monotonic()
    yield
    SECONDS[request.node.name] = time.monotonic() - began


def count(name: str) -> None:
    """Count a case."""
    CASES[name] += 1


def pytest_report_header() -> str:
    """Say what chance begins with."""
    return f"properties: KOPIATOMIC_FAULTS_SEED={SEED}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many cases there were."""
    if CASES:
        terminalreporter.section("properties")
        for name, number in CASES.items():
            seconds = f"  {SECONDS[name]:6.1f} s" if name in SECONDS else ""
            terminalreporter.write_line(f"{name:<58}{number:>8} cases{seconds}")
        terminalreporter.write_line(f"{sum(CASES.values())} cases, KOPIATOMIC_FAULTS_SEED={SEED}")
