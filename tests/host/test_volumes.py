"""Volumes: what is in the backup is the moment of the snapshot, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
from collections.abc import Callable

import pytest
from support import fat
from support.machine import BASE, Machine, shell, wait_for

from host.conftest import POOL, TOP, Repository, clean

RESTOMIC, KOPIATOMIC = "/usr/local/sbin/restomic", "/usr/local/sbin/kopiatomic"
DISK = f"{POOL}/vm/disk0"
DEVICE = f"/dev/zvol/{DISK}"
SIZE = 4 << 20
FILES = {"HELLO.TXT": b"before\n" * 500, "EMPTY": b"", "BIG.BIN": bytes(range(256)) * 300}

restic_only = pytest.mark.restic
kopia_only = pytest.mark.kopia


def image(files: dict[str, bytes] = FILES) -> bytes:
    """The content of a machine's disk: a file system, and behind it what is no file."""
    rest = b"".join(number.to_bytes(8, "big") for number in range((SIZE - (1 << 20)) // 8))
    return fat.make(files) + rest


def write(machine: Machine, content: bytes, name: str = "image") -> str:
    """Put what is to be written to a disk into a file, and return the command that does it."""
    machine.path(f"{BASE}/{name}").write_bytes(content)
    return f"dd if={BASE}/{name} of={DEVICE} bs=65536 conv=notrunc 2>/dev/null"


@pytest.fixture
def guest(filled: Machine) -> Machine:
    """A machine with a virtual machine's disk beside its files."""
    shell(filled, f"zfs create {POOL}/vm; zfs create -V {SIZE} {DISK}")
    wait_for(lambda: filled.run(["test", "-e", DEVICE]).returncode == 0)
    shell(filled, write(filled, image()))
    filled.path(f"{TOP}/vm/config").write_text("cpu=2\n")
    return filled


def run(repository: Repository, *words: str, status: int = 0) -> str:
    """Run the program of a repository's client; expect a status, and nothing left behind."""
    program = RESTOMIC if repository.client == "restic" else KOPIATOMIC
    result = repository.machine.run([program, *words], env=repository.environment)
    assert result.returncode == status, result.stdout + result.stderr
    clean(repository.machine)
    clones_gone(repository.machine)
    return result.stdout + result.stderr


def datasets(machine: Machine) -> list[str]:
    return machine.run(["zfs", "list", "-H", "-o", "name"]).stdout.split()


def clones_gone(machine: Machine) -> None:
    assert not [each for each in datasets(machine) if "tomic-" in each]
    listed = shell(machine, f"ls /dev/zvol/{POOL} 2>/dev/null || true").stdout
    assert "tomic-" not in listed


def dump(repository: Repository, target: str) -> bytes:
    """Restore the disk as the manual says, and return its bytes."""
    env = repository.environment
    commands = {
        "restic": f"restic dump --path {DEVICE} latest {DEVICE} > {target}",
        "kopia": f"kopia restore {DEVICE}/disk0 {target}",
    }
    shell(repository.machine, commands[repository.client], env=env)
    return repository.machine.path(target).read_bytes()


@pytest.fixture(params=[pytest.param("restic", marks=restic_only),
                        pytest.param("kopia", marks=kopia_only)])  # fmt: skip
def repository(request: pytest.FixtureRequest) -> Repository:
    made: Repository = request.getfixturevalue(request.param)
    return made


def test_it_is_the_moment_of_the_snapshot(guest: Machine, repository: Repository):
    """The disk is written over while the backup runs, as its machine does."""
    later = write(guest, image({"HELLO.TXT": b"after", "NEW.TXT": b"new"}), "later")
    output = run(repository, DISK, "-s", later)
    restored = dump(repository, f"{BASE}/restored")
    assert restored == image()
    assert fat.read(restored) == FILES
    assert f"{DISK}  {DEVICE}\n" in output
    assert "found in the backup in full size" in output
    # And so it is the next time.
    run(repository, DEVICE)
    assert fat.read(dump(repository, f"{BASE}/again")) == {"HELLO.TXT": b"after", "NEW.TXT": b"new"}



def test_volumes_and_files_are_of_one_moment(guest: Machine, repository: Repository):
    """Those that -r selects come along, each in a client run of its own."""
    shell(guest, f"zfs create -V 1m {POOL}/vm/swap; zfs set org.freebsd:swap=on {POOL}/vm/swap")
    shell(guest, f"zfs create -s -V 1m {POOL}/vm/disk1")
    groups = f"zfs list -Hp -t snapshot -o name,createtxg -r {POOL} > {BASE}/groups"
    output = run(repository, "-r", "--volumes", f"{POOL}/vm", "-s", groups)
    made = dict(line.split("\t") for line in guest.path(f"{BASE}/groups").read_text().splitlines())
    assert len({name.partition("@")[0] for name in made}) == 3
    assert len(set(made.values())) == 1
    for line in (f"{POOL}/vm ", f"{DISK} ", f"{POOL}/vm/disk1 "):
        assert f"\n  {line}" in output
    assert f"{POOL}/vm/swap  swap space (its property org.freebsd:swap is on)" in output
    assert output.count("found in the backup in full size") == 2
    (entry,) = history(repository)
    assert [each["name"] for each in entry["client_runs"]] == ["files", DISK, f"{POOL}/vm/disk1"]
    assert dump(repository, f"{BASE}/restored") == image()


@restic_only
def test_one_that_no_job_has_any_more_is_told(guest: Machine, restic: Repository):
    run(restic, "-r", "--volumes", POOL)
    assert DISK not in guest.run([RESTOMIC, "--check"]).stdout
    run(restic, "-r", POOL)
    told = guest.run([RESTOMIC, "--check"]).stdout
    assert f"1 dataset was in a backup once, and no job has it now: {DISK}\n" in told
    shell(guest, f"zfs set org.kopiatomic:backup=off {DISK}")
    assert DISK not in guest.run([RESTOMIC, "--check"]).stdout


@restic_only
@pytest.mark.parametrize("group", ["--group-by host", "-g host,tags", "--group-by ''"])
def test_one_is_not_forgotten_for_another(guest: Machine, restic: Repository, group: str):
    shell(guest, f"zfs create -s -V 1m {POOL}/vm/disk1")
    for _ in range(2):
        run(restic, "-r", "--volumes", f"{POOL}/vm")
    run(restic, "--upkeep", "--forget", f"--keep-last 1 {group}", "--verify", "0")
    kept = [path for each in json.loads(restic("snapshots", "--json")) for path in each["paths"]]
    assert sorted(path for path in kept if path.startswith("/dev")) == [DEVICE, f"{DEVICE[:-1]}1"]


def history(repository: Repository) -> list[dict[str, object]]:
    program = "restomic" if repository.client == "restic" else "kopiatomic"
    text = repository.machine.path(f"/var/db/kopiatomic/{program}.default.history").read_text()
    return [json.loads(line) for line in text.splitlines()]


@restic_only
def test_without_being_asked_for_they_are_left_out(guest: Machine, restic: Repository):
    output = run(restic, "-r", f"{POOL}/vm")
    assert f"{DISK}  a volume, which holds no files" in output
    (entry,) = history(restic)
    assert [each["name"] for each in entry["client_runs"]] == ["files"]


@restic_only
def test_nothing_of_the_user_s_is_touched(guest: Machine, restic: Repository):
    before = settings(guest)
    assert any("\tmountpoint\t" in each for each in before)
    run(restic, "-a", "--volumes", "-x", f"{POOL}/src")
    assert settings(guest) == before


def settings(machine: Machine) -> list[str]:
    """Return what is set, and which datasets they are, without what ZFS counts of itself."""
    ask = f"zfs get -rHp -o name,property,value,source all {POOL}"
    lines = shell(machine, ask).stdout.splitlines()
    identity = ("type", "creation", "origin", "guid", "volsize")
    return [
        each for each in lines if not each.endswith("\t-") or each.split("\t")[1] in identity
    ]


@restic_only
def test_a_volmode_of_none_from_above(guest: Machine, restic: Repository):
    """The clone gets a volmode of its own."""
    shell(guest, f"zfs set volmode=dev {DISK}; zfs set volmode=none {POOL}")
    run(restic, DISK)
    assert dump(restic, f"{BASE}/restored") == image()
    assert shell(guest, f"zfs get -H -o value volmode {POOL}").stdout == "none\n"


@restic_only
@pytest.mark.parametrize("volume", [f"{POOL}/vm/none", "/dev/zvol/kta/vm/none"])
def test_one_that_is_not_there_is_refused(guest: Machine, restic: Repository, volume: str):
    assert f"no dataset is called '{POOL}/vm/none'" in run(restic, volume, status=66)


# What they give to restic is less than there is, or another thing, and the last two end well.
WRAPPERS = {
    "closed": ("exec restic \"$@\" < /dev/null", 3, f"{DEVICE} is not in the backup"),
    "short": ("head -c 1000000 | restic \"$@\"", 65, "with 1000000 of its 4194304 bytes"),
    "other": ("echo x | restic backup --stdin", 69, "does not pass on the paths"),
}


@restic_only
@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_client_that_reads_less_has_made_no_good_backup(
    guest: Machine, restic: Repository, kind: str
):
    text, status, reason = WRAPPERS[kind]
    wrapper = guest.path(f"{BASE}/wrapper")
    wrapper.write_text(f"#!/bin/sh\n{text}\n")
    wrapper.chmod(0o755)
    output = run(restic, "-c", f"{BASE}/wrapper backup", DISK, status=status)
    assert reason in output
    assert history(restic)[-1]["outcome"] == "incomplete"


@pytest.fixture
def sleeper(guest: Machine) -> Callable[..., subprocess.Popen[str]]:
    """Return what begins a run whose client takes its time over a volume."""
    script = guest.path(f"{BASE}/sleeper")
    script.write_text(f"#!/bin/sh\n: > {BASE}/sleeping\nexec sleep 300\n")
    script.chmod(0o755)
    mark = guest.path(f"{BASE}/sleeping")

    def begin(*words: str) -> subprocess.Popen[str]:
        mark.unlink(missing_ok=True)
        command = [RESTOMIC, "--no-proof", "-c", f"{BASE}/sleeper backup", *words, DISK]
        process = guest.popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, new_group=True
        )
        wait_for(mark.exists)
        return process

    return begin


def clone_of(machine: Machine) -> str:
    (clone,) = [each for each in datasets(machine) if each.startswith(f"{POOL}/restomic-")]
    return clone


def stop(process: subprocess.Popen[str]) -> str:
    """Ask a run to end, and return what it has said."""
    os.kill(process.pid, signal.SIGTERM)
    return process.communicate(timeout=60)[0]


def test_the_host_does_not_look_into_it(
    guest: Machine, sleeper: Callable[..., subprocess.Popen[str]]
):
    """What is in the disk of a virtual machine stays there: partitions, labels, mirrors."""
    table = bytearray(512)
    table[446:462] = struct.pack("<4B4BII", 0x80, 0, 2, 0, 0xA5, 0, 2, 0, 63, SIZE // 512 - 63)
    table[510:] = b"\x55\xaa"
    shell(guest, f"{write(guest, bytes(table))}; zfs set test:written=yes {DISK}")
    # So it does with the disk itself.
    wait_for(lambda: guest.run(["test", "-e", f"{DEVICE}s1"]).returncode == 0)
    process = sleeper()
    clone = clone_of(guest)
    shown = shell(guest, f"cd /dev/zvol && ls -d {clone}*").stdout
    stop(process)
    assert shown == f"{clone}\n"
    clones_gone(guest)


def test_what_a_killed_run_leaves_is_swept(
    guest: Machine, sleeper: Callable[..., subprocess.Popen[str]]
):
    process = sleeper()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    clone = clone_of(guest)
    # What others that snapshot or send whole pools heed.
    for name in ("com.sun:auto-snapshot", "syncoid:sync"):
        assert shell(guest, f"zfs get -H -o value,source {name} {clone}").stdout == "false\tlocal\n"
    told = guest.run([RESTOMIC, "--status"]).stdout
    assert f"clone {clone}\n" in told
    told = guest.run([RESTOMIC, "--sweep"]).stdout
    assert f"removed clone {clone}\n" in told
    assert f"removed snapshot {DISK}@restomic-" in told
    clean(guest)
    clones_gone(guest)
    assert DISK in datasets(guest)


def test_and_by_the_next_run(guest: Machine, sleeper: Callable[..., subprocess.Popen[str]]):
    process = sleeper()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    first = clone_of(guest)
    process = sleeper()
    assert clone_of(guest) != first
    output = stop(process)
    assert f"clone {first}" in output
    clean(guest)
    clones_gone(guest)


def test_a_clone_is_nobody_s_dataset(
    guest: Machine, sleeper: Callable[..., subprocess.Popen[str]]
):
    """Another job that takes all does not take it, and --check does not count it."""
    process = sleeper()
    try:
        clone = clone_of(guest)
        # One that is called so, but not by us.
        theirs = f"{POOL}/restomic-20261127T030000Z-0123456789ab.0"
        shell(guest, f"zfs create -s -V 1m {theirs}")
        plan = guest.run([RESTOMIC, "-n", "-j", "two", "-a", "--volumes", "-c", "true"]).stdout
        assert f"  {theirs} " in plan
        assert clone not in plan
        assert clone not in guest.run([RESTOMIC, "--check"]).stdout
        shell(guest, f"zfs destroy {theirs}")
    finally:
        stop(process)
    clean(guest)
    clones_gone(guest)


def test_a_snapshot_that_another_program_makes_of_all_is_in_nobody_s_way(
    guest: Machine, sleeper: Callable[..., subprocess.Popen[str]]
):
    process = sleeper()
    clone = clone_of(guest)
    shell(guest, f"zfs snapshot -r {POOL}@hourly")
    output = stop(process)
    assert f"had made the snapshot {clone}@hourly of a clone of ours; it went with it" in output
    clones_gone(guest)
    kept = shell(guest, f"zfs list -H -t snapshot -o name -r {POOL}").stdout
    assert f"{DISK}@hourly\n" in kept
    assert f"{POOL}@hourly\n" in kept


def test_one_that_another_program_holds_is_told_and_swept_once_it_is_released(
    guest: Machine, sleeper: Callable[..., subprocess.Popen[str]]
):
    process = sleeper()
    clone = clone_of(guest)
    shell(guest, f"zfs snapshot -r {POOL}@hourly; zfs hold keep {clone}@hourly")
    output = stop(process)
    reason = f"another program has made the snapshot {clone}@hourly of it, which stays: "
    assert f"the clone {clone} cannot be destroyed: {reason}" in output
    assert f"if it is held, release it, see: zfs holds {clone}@hourly; the next run" in output
    assert "tries again, or: restomic --sweep -j default" in output
    assert "zfs destroy" not in output
    held = guest.run([RESTOMIC, "--sweep", "-j", "default"])
    assert held.returncode == 71
    assert reason in held.stderr
    shell(guest, f"zfs release keep {clone}@hourly")
    swept = guest.run([RESTOMIC, "--sweep", "-j", "default"])
    assert (swept.returncode, swept.stderr) == (0, "")
    assert f"removed clone {clone}\n" in swept.stdout
    assert f"removed snapshot {clone}@hourly, which another program had made of" in swept.stdout
    clean(guest)
    clones_gone(guest)
    assert f"{DISK}@hourly\n" in shell(guest, f"zfs list -H -t snapshot -o name -r {POOL}").stdout


def test_a_drill_compares_blocks(guest: Machine, repository: Repository):
    run(repository, "-r", "--volumes", f"{POOL}/vm")
    program = RESTOMIC if repository.client == "restic" else KOPIATOMIC
    ask = [program, "--drill", "2"]
    # The disk has changed since, which is no matter.
    shell(guest, write(guest, bytes(SIZE), "zero"))
    result = guest.run(ask, env=repository.environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "  4 MiB of it read\n  32 of 32 blocks are as noted when" in result.stdout
    result = guest.run([*ask, "--size-limit", "1M"], env=repository.environment)
    assert "1 MiB of its 4 MiB read, as far as --size-limit allows\n" in result.stdout
    (source,) = (
        each for each in json.loads(guest.run([*ask, "--json"], env=repository.environment).stdout)
        ["sources"] if each["title"] == DEVICE
    )  # fmt: skip
    assert (source["blocks"], source["problems"]) == ([32, 32], [])
    # What is noted is not what is in the backup.
    kept = guest.path(f"/var/db/kopiatomic/{os.path.basename(program)}.default.history")
    (entry,) = history(repository)
    blocks = entry["client_runs"][1]["blocks"]
    blocks[0] = blocks[0][:-1] + ("0" if blocks[0][-1] != "0" else "1")
    kept.write_text(json.dumps(entry) + "\n")
    result = guest.run(ask, env=repository.environment)
    assert result.returncode == 1
    assert f"{DEVICE}: differs from what was backed up in 1 of 32 blocks," in result.stdout


def test_a_drill_of_what_another_job_has_backed_up_since(guest: Machine, repository: Repository):
    run(repository, "-r", "--volumes", f"{POOL}/vm")
    shell(guest, write(guest, bytes(SIZE), "zero"))
    run(repository, "-j", "other", DISK)
    program = RESTOMIC if repository.client == "restic" else KOPIATOMIC
    result = guest.run([program, "--drill", "2"], env=repository.environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "  32 of 32 blocks are as noted when" in result.stdout
    # Without what is noted of it, nothing is known of it.
    guest.path(f"/var/db/kopiatomic/{os.path.basename(program)}.other.history").unlink()
    result = guest.run([program, "--drill", "2"], env=repository.environment)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{DEVICE}: nothing is noted of this backup" in result.stderr


@restic_only
def test_it_is_told_by_its_name(guest: Machine, restic: Repository):
    run(restic, DISK)
    told = guest.run([RESTOMIC, "--status", "--full"]).stdout
    assert f"\n  {DISK}  {DEVICE}\n" in told
    metrics = guest.run([RESTOMIC, "--status", "--metrics"]).stdout
    assert 'backup_captured_datasets{program="restomic",job="default"} 1\n' in metrics
    shell(guest, f"zfs rename {DISK} {POOL}/vm/old; zfs create -s -V 1m {DISK}")
    output = run(restic, "-r", "--volumes", f"{POOL}/vm")
    assert f"captured  {POOL}/vm/old  /dev/zvol/{POOL}/vm/old" in output


@restic_only
def test_an_exclude_is_about_files_and_not_about_volumes(guest: Machine, restic: Repository):
    run(restic, "-c", "restic backup --exclude /dev -e disk0", DISK, f"{TOP}/vm")
    assert dump(restic, f"{BASE}/restored") == image()


@restic_only
def test_an_exclude_of_a_wrapper_that_hits_one_is_named(guest: Machine, restic: Repository):
    wrapper = guest.path(f"{BASE}/wrapper")
    wrapper.write_text("""#!/bin/sh
        case $1 in backup) shift; exec restic backup --exclude /dev "$@";; esac
        exec restic "$@"
    """)
    wrapper.chmod(0o700)
    said = run(restic, "-c", f"{BASE}/wrapper backup", DISK, f"{TOP}/vm", status=65)
    assert f"{DEVICE} is not in the backup: the exclude '/dev' keeps all of it out" in said


def test_a_directory_of_devices_is_refused(guest: Machine):
    for target in (f"/dev/zvol/{POOL}", f"/dev/zvol/{POOL}/vm"):
        result = guest.run([RESTOMIC, "-n", target])
        assert (result.returncode, result.stderr.count("\n")) == (66, 1)
        assert f"'{target}' is a directory of devices, and " in result.stderr
