"""The machine of the stand-ins that most of their tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import layouts
from sandbox.host import Host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Host.create(tmp_path / "host") as made:
        yield layouts.demo(made)
        assert made.violations() == []


def said(host: Host, script: str) -> tuple[str, int]:
    """Run a script; return all that it printed, and its exit status."""
    result = host.shell(script, stderr_to_stdout=True)
    return result.stdout, result.returncode
