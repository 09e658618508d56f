"""Names are UTF-8, or bytes, whatever the locale of who calls: FreeBSD knows no other names."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.machine import BASE, Machine

from host.conftest import Repository, clean

POINT = f"{BASE}/händler"


def latin1(machine: Machine, tmp_path: Path) -> dict[str, str]:
    """Return an environment in which ä is one byte, as far as there can be one."""
    if "de_DE.ISO8859-1" in machine.run(["locale", "-a"]).stdout.split():
        return {"LC_ALL": "de_DE.ISO8859-1"}
    if machine.is_sandbox and shutil.which("localedef"):
        # Its other categories are missing, of which it warns.
        made = tmp_path / "xx_XX.ISO8859-1"
        subprocess.run(
            ["localedef", "-i", "POSIX", "-f", "ISO-8859-1", made], check=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if made.exists():
            shutil.copytree(made, machine.path(f"/usr/share/locale/{made.name}"))
            return {"LOCPATH": "/usr/share/locale", "LC_ALL": made.name}
    # Python takes C for UTF-8, unless it is told not to.
    return {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(params=["latin1", "C", "POSIX"])
def locale(request: pytest.FixtureRequest, filled: Machine, tmp_path: Path) -> dict[str, str]:
    """The caller's environment; there is a dataset kta/j on a mount point beyond ASCII."""
    filled.run(["zfs", "create", "-o", f"mountpoint={POINT}", "kta/j"], check=True)
    filled.path(f"{POINT}/über").write_text("gefroren\n")
    if request.param == "latin1":
        return latin1(filled, tmp_path)
    return {"LC_ALL": request.param, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_mount_point_beyond_ascii_is_backed_up(filled: Machine, locale: dict[str, str]):
    client = filled.path(f"{BASE}/client")
    client.write_text('#!/bin/sh\ncat "$1/über"\n')
    client.chmod(0o755)
    hook = f"echo live > {POINT}/über; echo ü > {BASE}/hörte"
    words = ["--plain", "-c", f"{BASE}/client", "-s", hook, "kta/j"]
    result = filled.run(["/usr/local/sbin/restomic", *words], env=locale)
    assert result.returncode == 0, result.stdout + result.stderr
    clean(filled)
    assert "gefroren" in result.stdout
    assert POINT in result.stdout
    assert filled.path(f"{BASE}/hörte").read_text() == "ü\n"


@pytest.mark.restic
def test_and_comes_back_in_a_drill(filled: Machine, locale: dict[str, str], restic: Repository):
    environment = {**restic.environment, **locale}
    for words in (["kta/j"], ["--drill", "1"]):
        result = filled.run(["/usr/local/sbin/restomic", *words], env=environment)
        assert result.returncode == 0, result.stdout + result.stderr
    assert "1 of 1 files restored identical" in result.stdout
