"""--status and --check on a machine: after a good night, a bad one, and a killed run."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from support.machine import BASE, Machine, shell, wait_for

from host.conftest import POOL


@pytest.fixture(autouse=True)
def _no_datasets_but_ours(machine: Machine) -> None:
    """What is in no job is told of all pools, so there must be none but the tests'."""
    pools = machine.run(["zpool", "list", "-H", "-o", "name"], check=True).stdout.split()
    if not machine.is_sandbox and pools != [POOL]:
        pytest.skip("needs a machine without a pool of its own")


RESTOMIC = "/usr/local/sbin/restomic"
KOPIATOMIC = "/usr/local/sbin/kopiatomic"
MARK = "org.kopiatomic:run=restomic:default:abc"


def backup(machine: Machine, *words: str) -> subprocess.CompletedProcess[str]:
    return machine.run([RESTOMIC, "--plain", *words])


def status(machine: Machine, *words: str, program: str = RESTOMIC) -> str:
    """Return what --status prints; it must go well."""
    result = machine.run([program, "--status", *words])
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def check(machine: Machine, *words: str) -> list[tuple[str, str | None, str]]:
    """Return the findings; both programs and both forms must agree on whether there are any."""
    result = machine.run([RESTOMIC, "--check", "--json", *words])
    found = json.loads(result.stdout)["findings"]
    assert (result.returncode, result.stderr) == (1 if found else 0, "")
    plain = machine.run([KOPIATOMIC, "--check", *words])
    assert plain.returncode == result.returncode
    assert len(plain.stdout.splitlines()) == 2 * len(found)
    return [(each["kind"], each["job"], each["text"]) for each in found]


def row(text: str, job: str) -> list[str]:
    """Return the words of a job's row."""
    (found,) = [line.split() for line in text.splitlines() if line.startswith(f"{job} ")]
    return found


def test_before_the_first_backup(machine: Machine) -> None:
    assert "has made no backup on this machine yet" in status(machine)
    assert [(kind, job) for kind, job, _ in check(machine)] == [("never", None)]


def test_after_a_good_night_there_is_nothing_to_tell(filled: Machine) -> None:
    assert backup(filled, "-c", "true", "-r", "kta").returncode == 0
    assert check(filled) == []
    assert check(filled, "--expect", "restomic/default", "--max-age", "1") == []
    words = row(status(filled), "default")
    assert words[3:6] == ["just", "now", "5"]
    assert words[-1] == "......+"
    assert "has made no backup" in status(filled, program=KOPIATOMIC)


def test_after_a_bad_night(filled: Machine) -> None:
    backup(filled, "-c", "true", "-r", "kta")
    assert backup(filled, "-j", "offsite", "-c", "false", "kta/src").returncode == 1
    text = status(filled)
    assert row(text, "offsite")[1] == "never"
    assert row(text, "offsite")[-1] == "......x"
    assert "false: exit status 1" in text.split("Last failures:")[1]
    ((kind, job, told),) = check(filled)
    assert (kind, job) == ("never", "restomic/offsite")
    assert "false: exit status 1" in told
    assert check(filled, "--expect", "restomic/default") == []
    assert [line.split()[0] for line in status(filled, "-j", "default").splitlines()[3:4]] == [
        "default"
    ]


def test_a_dataset_that_no_job_covers_until_it_is_excused(filled: Machine) -> None:
    backup(filled, "-c", "true", "-r", "-x", "kta/src", "kta")
    assert check(filled) == []
    # What the job will take in the next night is no finding, nor what its pattern excludes.
    shell(filled, "zfs create kta/new; zfs create kta/src/new")
    assert check(filled) == []
    backup(filled, "-c", "true", "kta", "kta/home")
    shell(filled, "zfs create -o canmount=off kta/container; zfs create kta/home/new")
    ((kind, job, told),) = check(filled)
    assert (kind, job) == ("uncovered", None)
    names = "kta/home/ben, kta/home/new, kta/home/with space, kta/new, kta/src, kta/src/new"
    assert f"6 datasets are in no job: {names};" in told
    shell(filled, "for each in new home src; do zfs set org.kopiatomic:backup=off kta/$each; done")
    assert check(filled) == []


def test_a_first_night_a_same_one_and_one_with_a_change(filled: Machine) -> None:
    """What is left out is told once, and after that what is new; the status lists it all."""

    def night(status_: int) -> str:
        result = backup(filled, "--periodic", "-c", "true", "-r", "-x", "*/src", "kta")
        assert (result.returncode, result.stderr) == (status_, "")
        return result.stdout

    shell(
        filled,
        "zfs create -V 16m kta/vol; zfs create -o canmount=off kta/off;"
        "zfs create -o mountpoint=none kta/none",
    )
    first = night(1)
    assert "\nLeft out:\n  kta/vol  a volume, which holds no files\n" in first
    assert "\nLeft out as you asked:\n  kta/src  excluded by */src\n" in first
    assert ", so without files to back up:\n  kta/none, kta/off\n" in first
    assert "\nAs before: 4 left out; 'restomic --status --full' lists them.\n" in night(0)
    shell(filled, "zfs create kta/new; zfs create kta/more/src 2>/dev/null || true")
    shell(filled, "zfs unmount kta/home/ben; zfs destroy -r 'kta/home/with space'")
    text = night(1)
    assert re.search("New since the last good backup, of 20[^:]*:..:\n", text), text
    assert "  missing   kta/home/ben         was in that backup; now: not mounted\n" in text
    assert "  gone      kta/home/with space  destroyed, renamed, without" in text
    assert "  captured  kta/new              /kt/kta/new\n" in text
    assert "\nAs before: 4 left out; " in text
    assert "New since" not in night(0)
    full = status(filled, "--full")
    for line in ("kta/vol  a volume", "kta/src  excluded by */src", "kta/home/ben  not mounted"):
        assert f"\n  {line}" in re.sub(" {3,}", "  ", full), full
    assert "\n  kta/new   /kt/kta/new\n" in full
    shell(filled, "zfs mount kta/home/ben")


def test_upkeep_and_drills_are_watched(filled: Machine) -> None:
    backup(filled, "-c", "true", "-r", "kta")
    drill = ("--drill", "1", "-c", "false backup")
    assert filled.run([RESTOMIC, *drill]).returncode != 0
    ((kind, job, told),) = check(filled)
    assert (kind, job) == ("failed", "restomic/default")
    assert told.startswith("restomic/default: the restore drill FAILED 20")
    assert " (it has never worked): false snapshots: exit status 1" in told
    text = status(filled)
    assert "  default  restore drill  never\n                            FAILED 20" in text, text
    assert filled.run([RESTOMIC, "--status", "--periodic"]).returncode == 1
    # A job that began just now has had no time for its first upkeep.
    expected = ("--max-age", "180", "--expect", "restomic/default/upkeep")
    assert [kind for kind, _, _ in check(filled, *expected)] == ["failed"]


def test_what_a_dead_run_left_until_it_is_swept(filled: Machine) -> None:
    backup(filled, "-c", "true", "-r", "kta")
    shell(
        filled,
        f"zfs snapshot -o {MARK} kta/src@restomic-x kta/home@restomic-x; zfs snapshot kta@mine;"
        "mkdir -p /var/run/restomic/default/view;"
        "mount_nullfs /kt/kta/src /var/run/restomic/default/view",
    )
    ((kind, job, told),) = check(filled)
    assert (kind, job) == ("leftover", "restomic/default")
    assert "2 snapshots, such as kta/home@restomic-x" in told
    assert "mount /var/run/restomic/default/view" in told
    assert "mine" not in told
    left = status(filled).split("Left behind by earlier runs:\n")[1]
    command = left.split("to remove it: ")[1].split()
    filled.run(command, check=True)
    assert check(filled) == []
    assert "Left behind" not in status(filled)


def test_a_run_under_way_is_told_and_leaves_nothing_behind(filled: Machine) -> None:
    backup(filled, "-c", "true", "-r", "kta")
    filled.path(f"{BASE}/wait").write_text("")
    client = f'sh -c "touch {BASE}/begun; while test -e {BASE}/wait; do sleep 0.05; done"'
    run = filled.popen([RESTOMIC, "--plain", "-c", client, "-r", "kta"], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: filled.path(f"{BASE}/begun").exists())
        assert "/var/run/restomic/default/view" in filled.run(["mount", "-v"]).stdout
        text = status(filled)
        assert "Running now:\n  default, since 2" in text
        assert "Left behind" not in text
        assert check(filled) == []
    finally:
        filled.path(f"{BASE}/wait").unlink()
        assert run.wait(timeout=60) == 0
    assert "Running now" not in status(filled)


def test_a_wrapper_that_others_can_write_or_read_secrets_in(filled: Machine) -> None:
    name = f"{BASE}/true-x"
    wrapper = filled.path(name)
    wrapper.write_text("#!/bin/sh\nexport RESTIC_PASSWORD=hunter2\nexec true\n")
    wrapper.chmod(0o775)
    backup(filled, "-c", name, "-r", "kta")
    found = check(filled)
    assert [(kind, job) for kind, job, _ in found] == [("exposed", "restomic/default")] * 2
    assert f"chmod go-w {name}" in found[0][2]
    assert "RESTIC_PASSWORD" in found[1][2]
    assert "hunter2" not in str(found)
    wrapper.chmod(0o700)
    assert check(filled) == []


def test_an_env_file_and_a_state_that_others_can_read(filled: Machine) -> None:
    filled.path(f"{BASE}/etc").mkdir()
    env_file = filled.path(f"{BASE}/etc/restic.env")
    env_file.write_text("RESTIC_PASSWORD=hunter2\n")
    env_file.chmod(0o600)
    backup(filled, "-e", f"{BASE}/etc/restic.env", "-c", "true", "-r", "kta")
    assert check(filled) == []
    env_file.chmod(0o644)
    shell(filled, f"chmod 755 /var/db/kopiatomic; chmod 777 {BASE}/etc")
    texts = [text for kind, _, text in check(filled) if kind == "exposed"]
    assert len(texts) == 3
    assert any("chmod 700 /var/db/kopiatomic" in text for text in texts)
    assert any(f"chmod 600 {BASE}/etc/restic.env" in text for text in texts)
    assert any(f"chmod go-w {BASE}/etc, or move" in text for text in texts)
    assert "hunter2" not in str(texts)


def test_damage_does_not_hide_a_good_backup(filled: Machine) -> None:
    backup(filled, "-c", "true", "-r", "kta")
    history = filled.path("/var/db/kopiatomic/restomic.default.history")
    history.write_bytes(b'\xff\n{"outcome": 7, "captured": [3]}\n' + history.read_bytes() + b"{")
    assert check(filled) == []
    assert row(status(filled), "default")[-1] == "......+"
