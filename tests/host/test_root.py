"""The installer's layout, with / itself frozen: sandbox only, no test owns a real /."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import layouts
from support.machine import Sandbox, shell

from host.conftest import Repository, clean

pytestmark = pytest.mark.linux(reason="no test owns the / of a real machine")

# The sandbox's own programs come from the Linux machine, mounted here.
LIVE = ["--live", "/compat/linux"]


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Sandbox]:
    """FreeBSD as its installer lays it out, with some files in each dataset."""
    machine = Sandbox(tmp_path / "host", root_dataset="zroot/ROOT/default")
    try:
        layouts.installer(machine.host)
        shell(
            machine,
            "mkdir -p /backup /root/.cache /root/.config; echo live > /root/.cache/mark;"
            "for each in /home /tmp /usr/src /var/log /var/mail /var/tmp /zroot /etc;"
            "do echo $each > $each/mark; done",
        )
        yield machine
    finally:
        machine.close()


def repository(machine: Sandbox, client: str) -> Repository:
    """Return a repository in /backup."""
    if client == "restic":
        environment = {"RESTIC_REPOSITORY": "/backup/r", "RESTIC_PASSWORD": "correct horse"}
        made = Repository(machine, client, "/backup", environment)
        made("init")
    else:
        environment = {"KOPIA_PASSWORD": "correct horse", "KOPIA_CHECK_FOR_UPDATES": "false"}
        made = Repository(machine, client, "/backup", environment)
        made("repository", "create", "filesystem", "--path", "/backup/k")
    return made


MARKS = {
    f"{top}/mark"
    for top in ("/home", "/tmp", "/usr/src", "/var/log", "/var/mail", "/var/tmp", "/zroot", "/etc")
}


@pytest.mark.restic
def test_restic_backs_up_everything(installed: Sandbox):
    restic = repository(installed, "restic")
    words = ["-a", "-x", "zroot/var/mail", *LIVE, "--live", "/backup"]
    change = "echo late > /home/mark; echo late > /etc/mark"
    first = installed.run(
        ["/usr/local/sbin/restomic", *words, "-s", change], env=restic.environment
    )
    assert first.returncode == 0, first.stderr + first.stdout
    assert "Live, not frozen, because the client needs it so:" in first.stdout
    clean(installed)
    listing = set(restic("ls", "latest").splitlines())
    assert MARKS - listing == {"/var/mail/mark"}
    # What stays live is in the backup, but not what restic writes, nor what nobody chose.
    assert "/root/.cache/mark" in listing
    written = ("/root/.cache/restic/", "/compat/linux/", "/backup/r/", "/dev/")
    assert not [name for name in listing if name.startswith(written)]
    assert restic("dump", "latest", "/etc/mark") == "/etc\n"
    assert restic("dump", "latest", "/home/mark") == "/home\n"
    (snapshot,) = json.loads(restic("snapshots", "--json"))
    assert snapshot["paths"] == ["/"]


@pytest.mark.kopia
def test_kopia_backs_up_everything(installed: Sandbox):
    kopia = repository(installed, "kopia")
    for place in ("/compat/linux", "/backup", "/dev"):
        kopia("policy", "set", "/", f"--add-ignore={place}/*")
    words = ["-a", *LIVE, "--live", "/backup"]
    change = "echo late > /home/mark; echo late > /etc/mark"
    result = installed.run(
        ["/usr/local/sbin/kopiatomic", *words, "-s", change], env=kopia.environment, timeout=300
    )
    assert result.returncode == 0, result.stderr + result.stdout
    assert "kopia policy set" in result.stdout
    assert "'--add-ignore=/backup/k/*'" in result.stdout
    clean(installed)
    (snapshot,) = json.loads(kopia("snapshot", "list", "--json"))
    assert snapshot["source"]["path"] == "/"
    names = {
        "/" + line.partition("/")[2]
        for line in kopia("ls", "-r", snapshot["rootEntry"]["obj"]).splitlines()
    }
    assert names >= MARKS
    kept = {name for name in names if name.startswith(("/compat/linux/", "/backup/"))}
    assert kept == {"/compat/linux/", "/backup/"}
    assert kopia("show", f"{snapshot['rootEntry']['obj']}/etc/mark") == "/etc\n"


def test_a_frozen_repository_is_refused(installed: Sandbox):
    environment = {"RESTIC_REPOSITORY": "/backup/r", "RESTIC_PASSWORD": "x"}
    words = ["-a", *LIVE, "-c", "restic backup"]
    installed.path("/usr/local/bin/restic").unlink(missing_ok=True)
    installed.path("/usr/local/bin/restic").symlink_to("/compat/linux/bin/true")
    installed.path("/backup/r").mkdir()
    result = installed.run(["/usr/local/sbin/restomic", *words], env=environment)
    assert result.returncode == 78
    assert "--live /backup/r" in result.stderr


def test_the_clients_writes_reach_the_live_system(installed: Sandbox):
    client = installed.path("/usr/local/bin/client")
    client.write_text(
        "#!/bin/sh\necho new > /root/.cache/written\necho x > $TMPDIR/file\n"
        "if echo x > /etc/new; then exit 9; fi 2>/dev/null\n"
        "cat /dev/null; echo zero > /dev/null; ls /dev\nmktemp > /dev/null\n"
    )
    client.chmod(0o755)
    words = ["--plain", "-c", "client", "-a", *LIVE]
    result = installed.run(["/usr/local/sbin/restomic", *words])
    assert result.returncode == 0, result.stderr + result.stdout
    assert installed.path("/root/.cache/written").read_text() == "new\n"
    assert "/var/run/restomic/default/tmp" in result.stdout
    clean(installed)


