"""The host that faults are tried on, and the table that is printed in the end.

`KOPIATOMIC_FAULTS=all` tries every fault at every step; otherwise a sample is tried, drawn
with a seed that is printed and can be given as `KOPIATOMIC_FAULTS_SEED`.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

import pytest

from faults.injector import Injected

ALL = os.environ.get("KOPIATOMIC_FAULTS") == "all"
SEED = int(os.environ.get("KOPIATOMIC_FAULTS_SEED") or random.randrange(10**6))

# (table, row, column): outcome
OUTCOMES: dict[tuple[str, str, str], str] = {}

_Any = TypeVar("_Any")


def sample(of: Sequence[_Any], count: int, what: str) -> list[_Any]:
    """Return all of a sequence, or where not everything is tried ``count`` of them."""
    if ALL or len(of) <= count:
        return list(of)
    return random.Random(f"{SEED} {what}").sample(list(of), count)


def enter(table: str, row: str, column: str, outcome: str) -> None:
    """Enter what came of one fault into the table."""
    OUTCOMES[table, row, column] = outcome


@pytest.fixture(scope="module")
def injected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Injected]:
    """One sandbox host for many faults: after each it has to be as it was before."""
    made = Injected(tmp_path_factory.mktemp("faults") / "host")
    try:
        yield made
    finally:
        made.close()


def pytest_report_header() -> str:
    """Say what is tried."""
    return "faults: all of them" if ALL else f"faults: a sample, KOPIATOMIC_FAULTS_SEED={SEED}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables, with their totals."""
    write = terminalreporter.write_line
    for table in dict.fromkeys(name for name, _, _ in OUTCOMES):
        cells = {(r, c): v for (t, r, c), v in OUTCOMES.items() if t == table}
        rows = sorted(dict.fromkeys(row for row, _ in cells))
        columns = list(dict.fromkeys(column for _, column in cells))
        terminalreporter.section(f"faults: {table}")
        for start in range(0, len(columns), 9):
            part = columns[start : start + 9]
            if not any((row, column) in cells for row in rows for column in part):
                continue
            write(" " * 34 + " ".join(f"{each:>14.14}" for each in part))
            for row in rows:
                line = [cells.get((row, column), "-") for column in part]
                if any(each != "-" for each in line):
                    write(f"{row:<34.34}" + " ".join(f"{each:>14.14}" for each in line))
        totals = Counter(cells.values())
        told = ", ".join(f"{count} {outcome}" for outcome, count in totals.most_common())
        write(f"{len(cells)} faults at {len(rows)} places in {len(columns)} ways: {told}")
    if OUTCOMES:
        bad = sum(value == "WRONG" for value in OUTCOMES.values())
        write(f"in all {len(OUTCOMES)} faults, {bad} with a wrong outcome")
