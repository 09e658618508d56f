"""The script for rc(8), as it was built: its place in the order, and what it does when."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from port.build import CHECKOUT, Port, needed

pytest.importorskip("jinja2", reason="needs jinja2, as building the port does")

pytestmark = needed()

# What of rc.subr(8) the script uses, as far as it matters here.
SUBR = """
load_rc_config() { [ ! -r "$RC_CONF" ] || . "$RC_CONF"; }
run_rc_command() {
    eval "enabled=\\$$rcvar"
    case $1:$enabled in
    start:[Yy][Ee][Ss] | onestart:*) $start_cmd ;;
    stop:*) $stop_cmd ;;
    *) return 0 ;;
    esac
}
"""


@pytest.fixture
def script(built: Port) -> str:
    return (built.stage / "usr/local/etc/rc.d/kopiatomic_sweep").read_text()


def test_where_it_comes_at_boot(script: str):
    lines = dict(re.findall(r"^# ([A-Z]+): (.*)$", script, re.M))
    # zfs has mounted what is on it; mountlate comes after all else that fstab(5) names.
    assert lines == {
        "PROVIDE": "kopiatomic_sweep", "REQUIRE": "FILESYSTEMS mountlate zfs", "BEFORE": "cron",
    }  # fmt: skip


def test_nothing_of_the_template_is_left(script: str):
    assert "%%" not in script
    assert "/usr/local/sbin/$program" in script


def test_shellcheck_has_nothing_to_say(built: Port):
    if not shutil.which("shellcheck"):
        pytest.skip("needs shellcheck")
    for path in (built.stage / "usr/local/etc/rc.d").iterdir():
        subprocess.run(["shellcheck", "-s", "sh", path], check=True)
    subprocess.run(["shellcheck", CHECKOUT / "files/kopiatomic_sweep.in"], check=True)


def call(
    tmp_path: Path, script: str, word: str, conf: str = "", answer: str = ""
) -> tuple[int, str, list[str]]:
    """Run the script with stand-ins; return its status, its output, and what it started."""
    log = tmp_path / "log"
    log.unlink(missing_ok=True)
    (tmp_path / "rc.subr").write_text(SUBR)
    (tmp_path / "rc.conf").write_text(conf)
    for program in ("kopiatomic", "restomic"):
        path = tmp_path / program
        path.write_text(f'#!/bin/sh\necho "{program} $*" >> {log}\n{answer}\n')
        path.chmod(0o755)
    script = script.replace("/usr/local/sbin", str(tmp_path))
    script = script.replace("/etc/rc.subr", f"{tmp_path}/rc.subr")
    result = subprocess.run(
        ["/bin/sh", "-c", script, "sh", word], env={"RC_CONF": f"{tmp_path}/rc.conf"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    started = log.read_text().splitlines() if log.exists() else []
    return result.returncode, result.stdout, started


ON = 'kopiatomic_sweep_enable="YES"\n'
BOTH = ["kopiatomic --sweep -a --periodic", "restomic --sweep -a --periodic"]


def test_it_is_off_by_default(tmp_path: Path, script: str):
    assert call(tmp_path, script, "start") == (0, "", [])
    assert call(tmp_path, script, "start", 'kopiatomic_sweep_enable="NO"') == (0, "", [])


def test_it_sweeps_the_jobs_of_both_programs(tmp_path: Path, script: str):
    assert call(tmp_path, script, "start", ON) == (0, "", BOTH)
    assert call(tmp_path, script, "onestart") == (0, "", BOTH)


def test_one_that_fails_does_not_stop_the_other(tmp_path: Path, script: str):
    assert call(tmp_path, script, "start", ON, "echo stays; exit 3") == (1, "stays\nstays\n", BOTH)


def test_at_shutdown_it_does_nothing(tmp_path: Path, script: str):
    assert call(tmp_path, script, "stop", ON) == (0, "", [])
