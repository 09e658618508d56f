"""A night on the sandbox host from nothing but the package, set up as its message says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import clients

from port.build import Port, deinstall, install, needed

pytest.importorskip("jinja2", reason="needs jinja2, as building the port does")

pytestmark = [*needed(), pytest.mark.linux]

ETC = "/usr/local/etc/kopiatomic"


@pytest.fixture
def machine(tmp_path: Path, built: Port) -> Iterator[object]:
    from support.machine import Sandbox

    class Packaged(Sandbox):
        """The sandbox host with the package installed."""

        def install(self) -> None:
            install(built, self.host.root)
            for name, path in (("restic", clients.restic()), ("kopia", clients.kopia())):
                if path is not None:
                    (self.host.root / "usr/local/bin" / name).symlink_to(f"/compat/linux{path}")

    made = Packaged(tmp_path / "host")
    try:
        made.make_pool("zroot")
        made.run(["zfs", "set", "mountpoint=none", "zroot"], check=True)
        made.run(["zfs", "create", "-o", "mountpoint=/home", "zroot/home"], check=True)
        made.run(["zfs", "create", "zroot/home/ben"], check=True)
        made.path("/home/ben/letter").write_text("Dear Ada,\n")
        yield made
    finally:
        made.close()


def clean(machine) -> bool:
    """Whether a run has left nothing behind."""
    snapshots = machine.run(["zfs", "list", "-H", "-t", "snapshot", "-o", "name"]).stdout
    return not snapshots and "/var/run/restomic" not in machine.run(["mount", "-v"]).stdout


@pytest.mark.restic
def test_the_three_steps_of_the_message_and_two_nights(machine, built: Port):
    said = (built.directory / "work/pkg-message").read_text()
    etc = machine.path(ETC)

    # 1. The wrapper, and a repository.
    assert "cp -p restic-myrepo.sample restic-home" in said
    machine.run(["cp", "-p", f"{ETC}/restic-myrepo.sample", f"{ETC}/restic-home"], check=True)
    wrapper = etc / "restic-home"
    assert wrapper.stat().st_mode & 0o7777 == 0o700
    text = wrapper.read_text().replace("sftp:backup@vault.example.org:/srv/restic", "/backup")
    wrapper.write_text(text)
    password = re.search("RESTIC_PASSWORD_FILE=(.*)", text)[1]
    machine.path(password).write_text("correct horse\n")
    machine.path(password).chmod(0o600)
    machine.run([f"{ETC}/restic-home", "init"], check=True)

    # 2. By hand.
    for line in re.findall(r"# (restomic .*-r zroot/home)", said):
        result = machine.run(["/bin/sh", "-c", line])
        assert result.returncode in (0, 1), result.stdout + result.stderr
        assert "zroot/home/ben" in result.stdout
        assert clean(machine)

    # 3. At night.
    settings = re.findall(r"^  (\w+=.*)$", said, re.M)
    machine.path("/etc/periodic.conf").write_text("\n".join(settings) + "\n")
    for night in (1, 2):
        machine.path(f"/home/ben/day{night}").write_text("written by day\n")
        *others, daily = machine.periodic()
        assert "Subject: fbsd142.test daily run output\n" in daily
        assert "restomic: the backup succeeded" in daily
        assert re.search(r"zroot/home/ben +/home/ben\n", daily)
        assert "correct horse" not in daily
        # Where all is well, there is no security mail.
        assert others == [], others
        assert clean(machine)
    listed = machine.run([f"{ETC}/restic-home", "ls", "latest"], check=True).stdout
    assert {"/home/ben/letter", "/home/ben/day1", "/home/ben/day2"} <= set(listed.split("\n"))

    # And away with it.
    deinstall(built, machine.host.root)
    left = {str(path.relative_to(etc)) for path in etc.rglob("*")}
    assert left == {"restic-home"}
    assert not list(machine.path("/usr/local/etc/periodic").rglob("*omic*"))
    assert not list(machine.path("/usr/local/lib").rglob("kopiatomic"))


def test_a_night_without_any_client(machine, built: Port):
    machine.path("/root/copy").write_text('#!/bin/sh\nexec cp -R "$@" /backup/\n')
    machine.path("/root/copy").chmod(0o755)
    machine.path("/backup").mkdir()
    machine.path("/etc/periodic.conf").write_text(
        'daily_restomic_enable="YES"\ndaily_restomic_datasets="zroot/home"\n'
        'daily_restomic_recursive="YES"\ndaily_restomic_plain="YES"\n'
        'daily_restomic_command="/root/copy"\ndaily_status_restomic_enable="YES"\n'
    )
    *_, daily = machine.periodic()
    assert "restomic: the backup succeeded" in daily
    assert machine.path("/backup/home/ben/letter").read_text() == "Dear Ada,\n"
    assert clean(machine)
    state = machine.path("/var/db/kopiatomic")
    assert state.stat().st_mode & 0o7777 == 0o700
    assert any(state.iterdir())
    # The bytecode of the package served, none was written.
    packed = sorted(path.name for path in built.stage.rglob("*.pyc"))
    found = machine.path("/usr/local/lib").glob("python3*/site-packages/kopiatomic/**/*.pyc")
    assert sorted(path.name for path in found) == packed
    for path in built.stage.rglob("*.pyc"):
        assert machine.path(f"/{path.relative_to(built.stage)}").read_bytes() == path.read_bytes()
