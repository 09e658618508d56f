"""A hook of -p that brings what the backup needs, and one of -q that takes it away again."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from support.machine import Machine, shell, wait_for

from host.conftest import TOP, Repository, clean, where
from host.ongoing import backup_goes_on, is_whole, kept_by, meanwhile, pictures, started
from host.test_routine import script

pytestmark = pytest.mark.restic

RESTOMIC = "/usr/local/sbin/restomic"
NOINPUT, UNAVAILABLE, CANTCREAT, CONFIG = 66, 69, 73, 78


def mounted(machine: Machine, point: str) -> bool:
    lines = machine.run(["mount", "-p"]).stdout.splitlines()
    return any(line.split()[1:2] == [point] for line in lines)


@pytest.fixture
def disk(filled: Machine) -> Iterator[Repository]:
    """A restic repository on a disk of its own, which is not mounted."""
    shell(filled, "zfs create -o canmount=noauto -o mountpoint=/kt/disk kta/disk")
    shell(filled, "zfs mount kta/disk")
    environment = {"RESTIC_REPOSITORY": "/kt/disk/r", "RESTIC_PASSWORD": "correct horse"}
    repository = Repository(filled, "restic", "/kt", environment)
    repository("init")
    shell(filled, "zfs unmount kta/disk")
    yield repository
    filled.run(["/bin/sh", "-c", "zfs unmount kta/disk"])


HOOKS = ("-p", "zfs mount kta/disk", "-q", "zfs unmount kta/disk")


def call(repository: Repository, *words: str, status: int = 0, program: str = RESTOMIC) -> str:
    """Run restomic, expect a status and a clean machine; return what it said."""
    result = repository.machine.run([program, *words], env=repository.environment)
    assert result.returncode == status, result.stderr + result.stdout
    clean(repository.machine)
    return result.stdout + result.stderr


# What the hook brings


def test_the_disk_with_the_repository(filled: Machine, disk: Repository):
    before = pictures(filled, f"{TOP}/home", **kept_by(disk))
    said = call(disk, "-r", "kta/home", *HOOKS)
    assert not mounted(filled, "/kt/disk")
    # Nobody is told to make a new repository where the old one was just not there.
    assert "restic init" not in said
    shell(filled, "zfs mount kta/disk")
    is_whole(disk, before)


def test_the_disk_is_pinned_while_it_is_written_to(filled: Machine, disk: Repository):
    with backup_goes_on(disk, "kta/src", *HOOKS):
        assert mounted(filled, "/kt/disk")
        assert filled.run(["zfs", "unmount", "kta/disk"]).returncode != 0
    assert not mounted(filled, "/kt/disk")


def test_without_a_hook_the_missing_disk_is_told(filled: Machine, disk: Repository):
    said = call(disk, "kta/src", status=10)
    assert "repository" in said
    # The directory below the disk was not taken for it.
    assert not filled.path("/kt/disk/r").exists()


def test_the_pool(filled: Machine, restic: Repository):
    filled.make_pool("ktb")
    shell(filled, "echo b > /kt/ktb/file; zpool export ktb")
    hooks = ("-p", f"zpool import{where(filled)} ktb", "-q", "zpool export ktb")
    said = call(restic, "kta/src", "ktb", *hooks)
    assert "ktb " in said
    assert restic("dump", "latest", "/kt/ktb/file") == "b\n"
    assert filled.run(["zpool", "list", "ktb"]).returncode != 0
    call(restic, f"{TOP}/src", "/kt/ktb", *hooks)
    assert restic("dump", "latest", "/kt/ktb/file") == "b\n"
    shell(filled, f"zpool import{where(filled)} ktb")


def test_the_key_of_an_encrypted_dataset(filled: Machine, restic: Repository):
    shell(
        filled,
        f"""
        echo correct-horse > /kt/key
        zfs create -o encryption=on -o keyformat=passphrase kta/vault < /kt/key
        echo gold > {TOP}/vault/file
        zfs unmount kta/vault; zfs unload-key kta/vault
        """,
    )
    hooks = (
        "-p", "zfs load-key kta/vault < /kt/key; zfs mount kta/vault",
        "-q", "zfs unmount kta/vault && zfs unload-key kta/vault",
    )  # fmt: skip
    for selection in (("kta/vault",), ("-r", "kta")):
        said = call(restic, *selection, *hooks)
        assert "NOT ALL IS WELL" not in said
        assert "its encryption key is not loaded" not in said
        assert restic("dump", "latest", f"{TOP}/vault/file") == "gold\n"
        keys = filled.run(["zfs", "list", "-Ho", "mounted,keystatus", "kta/vault"]).stdout
        assert keys == "no\tunavailable\n"


def test_a_dataset_that_the_hook_makes(filled: Machine, restic: Repository):
    make = f"zfs create kta/dump; echo dumped > {TOP}/dump/all.sql"
    said = call(restic, "-r", "kta", "-p", make, "-q", "zfs destroy kta/dump")
    assert restic("dump", "latest", f"{TOP}/dump/all.sql") == "dumped\n"
    assert "kta/dump" in said
    said = call(restic, "kta/dump", "-p", make, "-q", "zfs destroy kta/dump")
    assert "kta/dump" in said


def test_a_dataset_that_the_hook_leaves_unmounted(filled: Machine, restic: Repository):
    """What was mounted at the first look is not at the second: it is shown all the same."""
    hooks = ("-p", "zfs unmount kta/src", "-q", "zfs mount kta/src")
    said = call(restic, "kta/home", "kta/src", *hooks)
    assert f"kta/src  shown at {TOP}/src: not mounted" in said
    assert "main" in restic("dump", "latest", f"{TOP}/src/main.c")
    assert mounted(filled, f"{TOP}/src")


def test_a_dataset_that_the_hook_leaves_without_a_place(filled: Machine, restic: Repository):
    """What could be backed up at the first look cannot be any more at the second."""
    hooks = ("-p", "zfs set mountpoint=none kta/src", "-q", "zfs inherit mountpoint kta/src")
    said = call(restic, "kta/home", "kta/src", *hooks, status=NOINPUT)
    assert "kta/src cannot be backed up: not mounted" in said
    assert mounted(filled, f"{TOP}/src")


# -q undoes it whatever happened


LOG = "/kt/log"
WITNESSED = (
    "-p", f"echo p >> {LOG}; zfs mount kta/disk",
    "-s", f"echo s >> {LOG}",
    "-q", f"echo q $KOPIATOMIC_OUTCOME >> {LOG}; zfs unmount kta/disk",
)  # fmt: skip


def log(machine: Machine) -> list[str]:
    path = machine.path(LOG)
    return path.read_text().splitlines() if path.exists() else []


REFUSED = {
    "a typo": (["kta/nosuch"], NOINPUT, "no dataset is called 'kta/nosuch'"),
    "a path that is not there": (["/kt/nosuch"], NOINPUT, "'/kt/nosuch' does not exist"),
    "not mounted": (["kta/off", "kta"], NOINPUT, "kta/off cannot be backed up: not mounted"),
    "nothing left": (["-r", "kta/src", "-x", "kta/src"], NOINPUT, "no selected dataset"),
    "a repository that would be frozen": (["kta/disk"], CONFIG, "/kt/disk/r would be frozen"),
    "live that is not": (
        ["kta/src", "--live", "/kt/nosuch"], NOINPUT, "--live /kt/nosuch: no such directory"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_the_plan_is_refused(filled: Machine, disk: Repository, what: str):
    shell(filled, "zfs create -o canmount=off kta/off")
    words, status, says = REFUSED[what]
    said = call(disk, *words, *WITNESSED, status=status)
    assert says in said
    assert "the backup FAILED" in said
    assert log(filled) == ["p", "s", "q failed"]
    assert not mounted(filled, "/kt/disk")


def test_the_hook_itself_fails(filled: Machine, disk: Repository):
    words = list(WITNESSED)
    words[1] += "; exit 3"
    call(disk, "kta/src", *words, status=UNAVAILABLE)
    assert log(filled) == ["p", "s", "q failed"]
    assert not mounted(filled, "/kt/disk")


def test_the_snapshot_fails(filled: Machine, disk: Repository):
    program = meanwhile(filled, ("zfs", "program"), "zfs rename -u kta/src kta/source")
    call(disk, "kta/src", *WITNESSED, program=program, status=CANTCREAT)
    assert log(filled) == ["p", "s", "q failed"]
    assert not mounted(filled, "/kt/disk")


def test_the_view_cannot_be_built(filled: Machine, disk: Repository):
    program = meanwhile(filled, ("mount_nullfs",), "exit 9")
    result = filled.run([program, "kta/src", *WITNESSED], env=disk.environment)
    assert result.returncode == 70, result.stderr
    clean(filled)
    assert log(filled) == ["p", "s", "q failed"]
    assert not mounted(filled, "/kt/disk")


def test_the_client_fails(filled: Machine, disk: Repository):
    client = script(filled, f"echo client >> {LOG}; exit 42")
    call(disk, "--plain", "-c", client, "kta/src", *WITNESSED, status=42)
    assert log(filled) == ["p", "s", "client", "q failed"]
    assert not mounted(filled, "/kt/disk")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_client_works(filled: Machine, disk: Repository, signum: int):
    with started(filled, "kta/src", *WITNESSED, client="restic", env=disk.environment) as run:
        run.wait_for_client()
        assert run.end(signum) == 128 + signum, run.said
    clean(filled)
    assert log(filled) == ["p", "s", "q interrupted"]
    assert not mounted(filled, "/kt/disk")


def test_a_signal_while_the_hook_works(filled: Machine, disk: Repository):
    words = list(WITNESSED)
    words[1] += "; echo > /kt/hooked; while [ ! -e /kt/never ]; do sleep 0.1; done"
    with started(filled, "kta/src", *words, client="restic", env=disk.environment) as run:
        wait_for(lambda: filled.path("/kt/hooked").exists())
        assert run.end(signal.SIGTERM) == 128 + signal.SIGTERM, run.said
    clean(filled)
    assert log(filled) == ["p", "s", "q interrupted"]
    assert not mounted(filled, "/kt/disk")


# What is refused at the first look, where nothing has been stopped yet


EARLY = {
    "no client": (["-c", "no-such-client backup", "kta/src"], UNAVAILABLE),
    "no hook": (["kta/src", "-s", "/no/hook"], UNAVAILABLE),
    "no target": ([], 64),
}


@pytest.mark.parametrize("what", EARLY)
def test_what_no_hook_can_mend_is_refused_before_it(filled: Machine, disk: Repository, what: str):
    words, status = EARLY[what]
    hooks = [*WITNESSED[:2], *WITNESSED[4:]]
    said = call(disk, *hooks, *words, status=status)
    assert said.count("\n") == 1
    assert log(filled) == []


def test_without_p_the_first_look_is_final(filled: Machine, disk: Repository):
    said = call(disk, "kta/nosuch", *WITNESSED[2:], status=NOINPUT)
    assert "no dataset is called 'kta/nosuch'" in said
    assert said.count("\n") == 1
    assert log(filled) == []


def test_a_plan_is_drawn_without_the_hook_where_nothing_is_to_be_done(
    filled: Machine, disk: Repository
):
    result = filled.run([RESTOMIC, "-n", "kta/src", *WITNESSED], env=disk.environment)
    assert result.returncode == 0, result.stderr
    assert log(filled) == []
    assert not mounted(filled, "/kt/disk")


def test_what_a_killed_run_left_in_a_pool_that_was_away_is_removed(filled: Machine):
    """The next run, which sees only the other pools, ends the note of it."""
    filled.make_pool("ktb")
    restomic = ["/usr/local/sbin/restomic", "--plain", "-c", "true"]
    for _ in range(2):
        filled.run([*restomic, "kta/src"], check=True)
    killed = filled.run([*restomic, "-s", "kill -9 $PPID", "kta/src", "ktb"])
    assert killed.returncode != 0
    shell(filled, "zpool export ktb")
    filled.run([*restomic, "kta/src"], check=True)
    shell(filled, f"zpool import{where(filled)} ktb")
    assert "snapshot ktb@restomic-" in filled.run(["/usr/local/sbin/restomic", "--check"]).stdout
    shell(filled, "zpool export ktb")
    filled.run([*restomic, "kta/src"], check=True)
    hooks = ("-p", f"zpool import{where(filled)} ktb")
    result = filled.run([*restomic, *hooks, "kta/src", "ktb"])
    assert (result.returncode, result.stderr) == (0, "")
    assert "Removed, left behind by an earlier run:\n  snapshot ktb@restomic-" in result.stdout
    clean(filled)
