"""A night on the sandbox host from nothing but the package, set up as its message says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import layouts
from support import clients
from support.machine import PROGRAMS, Sandbox

from port.build import Port, deinstall, install, needed

pytest.importorskip("jinja2", reason="needs jinja2, as building the port does")

pytestmark = [*needed(), pytest.mark.linux(reason="would install the package on a real machine")]

ETC = "/usr/local/etc/kopiatomic"


class Packaged(Sandbox):
    """The sandbox host with the package installed, and no client yet."""

    port: Port

    def install(self) -> None:
        install(self.port, self.host.root)


@pytest.fixture
def machine(tmp_path: Path, built: Port) -> Iterator[Sandbox]:
    """FreeBSD as its installer lays it out."""
    kind = type("Machine", (Packaged,), {"port": built})
    made = kind(tmp_path / "host", root_dataset="zroot/ROOT/default")
    try:
        layouts.installer(made.host)
        made.run(["zfs", "create", "zroot/home/ben"], check=True)
        # The sandbox's own programs come from the Linux machine, mounted here; /backup stands
        # for the other machine that the sample speaks of.
        live = "".join(f'daily_{each}_live="/compat/linux /backup"\n' for each in PROGRAMS)
        made.path("/etc/periodic.conf.local").write_text(live)
        made.path("/backup").mkdir()
        made.run(["mount", "-t", "tmpfs", "tmpfs", "/backup"], check=True)
        made.path("/home/ben/letter").write_text("Dear Ada,\n")
        yield made
    finally:
        made.close()


def clean(machine: Sandbox) -> bool:
    """Whether a run has left nothing behind."""
    snapshots = machine.run(["zfs", "list", "-H", "-t", "snapshot", "-o", "name"]).stdout
    return not snapshots and "/var/run/restomic" not in machine.run(["mount", "-v"]).stdout


# Who follows the message: pkg(8), sysrc(8) for names that are not set yet, and in vi(1) what the
# sample asks for.
STEPS = {
    "pkg": '[ "$*" = "install restic" ] && ln -s /compat/linux{restic} /usr/local/bin/restic',
    "sysrc": """[ "$1 $2" = "-f /etc/periodic.conf" ] && shift 2 || exit 1
for each; do
    case $each in
    *=*) printf '%s="%s"\\n' "${{each%%=*}}" "${{each#*=}}" >> /etc/periodic.conf ;;
    *) exit 1 ;;
    esac
done""",
    "vi": """sed -i 's|sftp:backup@vault.example.org:/srv/restic|/backup|' "$1"
file=$(sed -n 's/.*RESTIC_PASSWORD_FILE=//p' "$1")
[ -n "$file" ] && install -m 600 /dev/null "$file" && echo correct horse > "$file"
""",
}


def commands(message: str) -> list[str]:
    """Return what a message says to type."""
    found = re.findall(r"^  # ((?:.*\\\n)*.*)$", message, re.M)
    assert found
    return found


@pytest.mark.restic
def test_what_the_message_says_ends_with_silent_mornings(machine: Sandbox, built: Port):
    for name, text in STEPS.items():
        path = machine.path(f"/usr/sbin/{name}")
        path.write_text(f"#!/bin/sh\n{text.format(restic=clients.restic())}\n")
        path.chmod(0o755)
    said = (built.directory / "work/pkg-message").read_text()
    typed = machine.run(["/bin/sh", "-ec", "\n".join(commands(said))])
    assert typed.returncode in (0, 1), typed.stdout + typed.stderr
    assert "restomic: the backup succeeded" in typed.stdout, typed.stdout + typed.stderr
    assert re.search(r"zroot/home/ben +/home/ben\n", typed.stdout)
    assert clean(machine)
    wrapper = machine.path(f"{ETC}/restic-home")
    assert wrapper.stat().st_mode & 0o7777 == 0o700

    for night in (1, 2):
        machine.path(f"/home/ben/day{night}").write_text("written by day\n")
        *others, daily = machine.periodic()
        assert "Subject: fbsd142.test daily run output\n" in daily
        assert "restomic: the backup succeeded" in daily
        assert re.search(r"zroot/ROOT/default +/\n", daily)
        assert re.search(r"zroot/home/ben +/home/ben\n", daily)
        assert "correct horse" not in daily
        # Where all is well, there is no security mail.
        assert others == [], others
        assert clean(machine)
    listed = machine.run([f"{ETC}/restic-home", "ls", "latest"], check=True).stdout
    wanted = {"/etc/passwd", "/home/ben/letter", "/home/ben/day1", "/home/ben/day2"}
    assert wanted <= set(listed.split("\n"))

    # And away with it.
    etc = machine.path(ETC)
    deinstall(built, machine.host.root)
    left = {str(path.relative_to(etc)) for path in etc.rglob("*")}
    assert left == {"restic-home"}
    assert not list(machine.path("/usr/local/etc/periodic").rglob("*omic*"))
    assert not list(machine.path("/usr/local/libexec").rglob("*"))


def test_a_night_without_any_client(machine: Sandbox, built: Port):
    machine.path("/root/copy").write_text('#!/bin/sh\nexec cp -R "$@" /backup/\n')
    machine.path("/root/copy").chmod(0o755)
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
    packed = {path.relative_to(built.stage): path.read_bytes()
              for path in built.stage.rglob("*.pyc")}  # fmt: skip
    root = machine.host.root
    found = {path.relative_to(root): path.read_bytes()
             for path in (root / "usr/local/libexec").rglob("*.pyc")}  # fmt: skip
    assert found == packed
