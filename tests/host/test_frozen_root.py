"""With / itself frozen: what the client writes to, and what it finds; sandbox only.

No test owns the / of a real machine.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import layouts
from support.machine import Sandbox, shell

from host.conftest import Repository, clean
from host.ongoing import RUN
from host.test_root import repository
from host.test_routine import script

pytestmark = pytest.mark.linux(reason="no test owns the / of a real machine")

# The sandbox's own programs come from the Linux machine: shown, and not backed up.
LIVE = ("--live", "/compat/linux")
PROGRAMS = {"restic": "/usr/local/sbin/restomic", "kopia": "/usr/local/sbin/kopiatomic"}


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Sandbox]:
    """FreeBSD as its installer lays it out, before restic or kopia was ever used."""
    machine = Sandbox(tmp_path / "host", root_dataset="zroot/ROOT/default")
    try:
        layouts.installer(machine.host)
        shell(
            machine,
            """
            zfs create -o mountpoint=/backup zroot/backup
            mkdir -p /root/.config/rclone /root/.ssh /usr/local/etc; chmod 700 /root/.ssh
            echo key > /root/.ssh/id; echo remote > /root/.config/rclone/rclone.conf
            for each in /home /etc /var/log /usr/local/etc; do echo $each > $each/mark; done
            """,
        )
        yield machine
    finally:
        machine.close()


@pytest.fixture
def restic(installed: Sandbox) -> Repository:
    """A restic repository on a dataset that is not backed up; making it has left no cache."""
    made = repository(installed, "restic")
    shell(installed, "rm -rf /root/.cache")
    return made


def back_up(made: Repository, *words: str, **variables: str) -> str:
    """Back up all but the repository's dataset; return the report."""
    given = ["-a", "-x", "zroot/backup", *LIVE, "--live", "/backup", *words]
    if made.client == "restic":
        given += ["-o", "--exclude=/compat/linux/*"]
    environment = {**made.environment, **variables}
    result = made.machine.run([PROGRAMS[made.client], *given], env=environment, timeout=300)
    assert result.returncode == 0, result.stderr + result.stdout
    clean(made.machine)
    return result.stdout + result.stderr


def in_it(restic: Repository) -> set[str]:
    return set(restic("ls", "latest").splitlines())


def is_cache(machine: Sandbox, path: str) -> bool:
    """Say whether restic has made its cache in a directory and keeps something there."""
    top = machine.path(path)
    return (top / "CACHEDIR.TAG").exists() and any(top.glob("*/snapshots/*"))


# The cache


@pytest.mark.restic
def test_a_cache_that_does_not_exist_yet_comes_to_exist(installed: Sandbox, restic: Repository):
    said = back_up(restic)
    assert is_cache(installed, "/root/.cache/restic")
    # As restic makes it itself.
    for path in ("/root/.cache", "/root/.cache/restic"):
        assert stat.S_IMODE(installed.path(path).stat().st_mode) == 0o700, path
    assert "unable to open cache" not in said
    names = in_it(restic)
    assert "/root/.cache" in names
    assert not [name for name in names if name.startswith("/root/.cache/restic/")]


@pytest.mark.restic
def test_the_second_run_uses_it(installed: Sandbox, restic: Repository):
    back_up(restic)
    kept = {path.name for path in installed.path("/root/.cache/restic").glob("*/snapshots/*")}
    back_up(restic)
    now = {path.name for path in installed.path("/root/.cache/restic").glob("*/snapshots/*")}
    assert kept < now or len(now) == 1
    assert len(list(installed.path("/root/.cache/restic").glob("*/index"))) == 1


WHERE = {
    "a variable": ((), {"RESTIC_CACHE_DIR": "/var/cache/restic"}),
    "an option": (("-o", "--cache-dir=/var/cache/restic"), {}),
    "two words": (("-o", "--cache-dir /var/cache/restic"), {}),
    "xdg": ((), {"XDG_CACHE_HOME": "/var/cache"}),
}


@pytest.mark.restic
@pytest.mark.parametrize("how", WHERE)
def test_wherever_it_is_to_be(installed: Sandbox, restic: Repository, how: str):
    words, variables = WHERE[how]
    said = back_up(restic, *words, **variables)
    assert "unable to open cache" not in said
    assert is_cache(installed, "/var/cache/restic")
    assert not installed.path("/root/.cache/restic").exists()
    assert not [name for name in in_it(restic) if name.startswith("/var/cache/restic/")]


@pytest.mark.restic
def test_a_wrapper_says_where(installed: Sandbox, restic: Repository):
    text = 'export RESTIC_CACHE_DIR=/var/cache/restic\nexec restic "$@"'
    wrapper = script(installed, text, "/usr/local/sbin/backup-restic")
    said = back_up(restic, "-c", f"{wrapper} backup")
    assert "unable to open cache" not in said
    assert is_cache(installed, "/var/cache/restic")


@pytest.mark.restic
def test_what_else_is_in_the_cache_directory_is_kept(installed: Sandbox, restic: Repository):
    shell(installed, "mkdir -p /root/.cache/other; echo mine > /root/.cache/other/file")
    back_up(restic)
    assert restic("dump", "latest", "/root/.cache/other/file") == "mine\n"


@pytest.mark.kopia
def test_kopias_too(installed: Sandbox):
    kopia = repository(installed, "kopia")
    shell(installed, "rm -rf /root/.cache")
    # kopia cannot be told on its command line.
    kopia("policy", "set", "/", "--add-ignore=/compat/linux/*")
    back_up(kopia)
    made = [path.name for path in installed.path("/root/.cache/kopia").glob("*")]
    assert len(made) >= 2, made  # a cache for the repository, and logs
    (snapshot,) = json.loads(kopia("snapshot", "list", "--json"))
    names = kopia("ls", "-r", snapshot["rootEntry"]["obj"]).splitlines()
    # Its configuration, without which nobody gets at the backup, is in it.
    assert any(name.endswith("/root/.config/kopia/repository.config") for name in names)


# What belongs to the user is live and in the backup


@pytest.mark.restic
def test_configuration_and_keys_are_in_the_backup(installed: Sandbox, restic: Repository):
    back_up(restic)
    assert restic("dump", "latest", "/root/.ssh/id") == "key\n"
    assert restic("dump", "latest", "/root/.config/rclone/rclone.conf") == "remote\n"
    assert restic("dump", "latest", "/usr/local/etc/mark") == "/usr/local/etc\n"
    assert restic("dump", "latest", "/etc/mark") == "/etc\n"


def test_the_client_can_write_its_configuration(installed: Sandbox):
    """rclone(1) saves fresh tokens, ssh(1) the keys of hosts."""
    client = script(
        installed,
        "echo token > /root/.config/rclone/rclone.conf; echo host > /root/.ssh/known_hosts\n"
        "for each in /etc/new /root/new /usr/local/etc/new /home/new /var/log/new; do\n"
        "    if (echo x > $each) 2> /dev/null; then echo $each; exit 9; fi\ndone",
        "/usr/local/bin/client",
    )
    words = ["--plain", "-c", client, "-a", *LIVE]
    result = installed.run(["/usr/local/sbin/restomic", *words])
    assert result.returncode == 0, result.stderr + result.stdout
    assert installed.path("/root/.config/rclone/rclone.conf").read_text() == "token\n"
    assert installed.path("/root/.ssh/known_hosts").read_text() == "host\n"
    clean(installed)


# TMPDIR


SHOW = "echo TMPDIR=$TMPDIR; echo x > $TMPDIR/file && echo written; ls -ld $TMPDIR"


def shown(machine: Sandbox, *words: str, **variables: str) -> str:
    client = script(machine, SHOW, "/usr/local/bin/client")
    result = machine.run(
        ["/usr/local/sbin/restomic", "--plain", "-c", client, *LIVE, *words], env=variables
    )
    assert result.returncode == 0, result.stderr + result.stdout
    clean(machine)
    assert "written\n" in result.stdout
    return result.stdout


@pytest.mark.parametrize("given", [None, "/var/tmp", "/home/tmp", "/nonexistent"])
def test_a_frozen_tmpdir_gets_a_live_one_of_ours(installed: Sandbox, given: str | None):
    shell(installed, "mkdir /home/tmp")
    variables = {} if given is None else {"TMPDIR": given}
    said = shown(installed, "-a", **variables)
    assert f"TMPDIR={RUN}/default/tmp\n" in said
    assert "drwx------" in said
    assert not installed.path(f"{RUN}/default").exists()


def test_a_live_one_is_left_alone(installed: Sandbox):
    shell(installed, "mkdir /scratch; mount -t tmpfs tmpfs /scratch")
    said = shown(
        installed, "/", "zroot/home", "--live", "/scratch", TMPDIR="/scratch"
    )
    assert "TMPDIR=/scratch\n" in said
    assert installed.path("/scratch/file").read_text() == "x\n"


def test_where_tmp_is_not_backed_up_it_is_the_live_one(installed: Sandbox):
    said = shown(installed, "zroot/home", "zroot/var/log", TMPDIR="/tmp")
    assert "TMPDIR=/tmp\n" in said
    assert installed.path("/tmp/file").read_text() == "x\n"


# /var/run that is a tmpfs, as rc.conf(5)'s varmfs makes it


@pytest.fixture
def varmfs(installed: Sandbox) -> Sandbox:
    """The hints by which programs of packages find their libraries lie on a tmpfs."""
    shell(installed, "mount -t tmpfs tmpfs /var/run; echo hints > /var/run/ld-elf.so.hints")
    return installed


@pytest.mark.parametrize("words", [("-a",), ("zroot/home",), ("/",), ("/", "zroot/var/log")])
def test_the_libraries_hints_are_there(varmfs: Sandbox, words: tuple[str, ...]):
    client = script(
        varmfs, f"cat /var/run/ld-elf.so.hints || exit 9\n{SHOW}", "/usr/local/bin/client"
    )
    argv = ["/usr/local/sbin/restomic", "--plain", "-c", client, *LIVE, *words]
    result = varmfs.run(argv)
    assert result.returncode == 0, result.stderr + result.stdout
    assert "hints\n" in result.stdout
    assert "written\n" in result.stdout
    clean(varmfs)
    assert varmfs.path("/var/run/ld-elf.so.hints").read_text() == "hints\n"


@pytest.mark.restic
def test_it_is_a_whole_backup_there(varmfs: Sandbox, restic: Repository):
    back_up(restic)
    assert restic("dump", "latest", "/etc/mark") == "/etc\n"
    assert not [name for name in in_it(restic) if name.startswith("/var/run/")]
    assert is_cache(varmfs, "/root/.cache/restic")


# The client's own


@pytest.mark.restic
def test_the_repository_in_the_frozen_root_is_refused_and_live_mends_it(
    installed: Sandbox, restic: Repository
):
    shell(installed, "mkdir /srv; cp -R /backup/r /srv/r")
    environment = {**restic.environment, "RESTIC_REPOSITORY": "/srv/r"}
    words = ["/usr/local/sbin/restomic", "/", *LIVE, "-o", "--exclude=/compat/linux/*"]
    refused = installed.run(words, env=environment)
    assert refused.returncode == 78
    assert "--live /srv/r" in refused.stderr
    clean(installed)
    done = installed.run([*words, "--live", "/srv/r"], env=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    clean(installed)
    made = Repository(installed, "restic", "/srv", environment)
    # It does not back up itself.
    assert not [name for name in in_it(made) if name.startswith("/srv/r/")]
    assert made("dump", "latest", "/etc/mark") == "/etc\n"
