"""Existing snapshots instead of new ones: of replicas, and of those whom other tools make.

Whatever happens, no snapshot of others is destroyed, and no hold of ours is left.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from support.machine import BASE, Machine, shell, wait_for

from host.conftest import TOP, Repository, clean, where
from host.ongoing import PLACE, Run, backup_goes_on, is_whole, meanwhile, outcome, pictures, started
from host.test_disturbs_nothing import left_out_of
from host.test_one_dataset_lost import captured, kept_by
from host.test_routine import script

pytestmark = pytest.mark.restic

RESTOMIC, KOPIATOMIC = "/usr/local/sbin/restomic", "/usr/local/sbin/kopiatomic"
NOINPUT, CANTCREAT = 66, 73

# Right before the snapshots are looked at once more, held, and mounted.
HELD, MOUNTED, RELEASED = ("zfs", "hold"), ("mount", "-t", "zfs"), ("zfs", "release")


def snapshots(machine: Machine) -> dict[str, str]:
    """Return all snapshots, with the guid of each."""
    listed = machine.run(["zfs", "list", "-Hp", "-t", "snapshot", "-o", "name,guid"], check=True)
    return dict(line.split("\t") for line in listed.stdout.splitlines())


def holds(machine: Machine) -> list[tuple[str, str]]:
    """Return all holds on the machine: the snapshot, and the tag."""
    names = list(snapshots(machine))
    said = machine.run(["zfs", "holds", "-H", *names]).stdout if names else ""
    return [(line.split("\t")[0], line.split("\t")[1]) for line in said.splitlines()]


def back_up(
    restic: Repository, *words: str, status: int = 0, program: str = RESTOMIC, tidy: bool = True
) -> str:
    """Run a backup of existing snapshots @auto-*; return what it says.

    Expects a status, a clean machine, all snapshots as they were, and all holds.
    """
    machine = restic.machine
    before, held = snapshots(machine), holds(machine)
    result = machine.run([program, "--snapshot", "auto-*", *words], env=restic.environment)
    assert result.returncode == status, result.stderr + result.stdout
    if tidy:
        clean(machine)
        assert snapshots(machine) == before
        assert holds(machine) == held
    return result.stdout + result.stderr


def created(machine: Machine, name: str) -> int:
    """Return when a snapshot was made, in seconds."""
    argv = ["zfs", "list", "-Hp", "-t", "snapshot", "-o", "creation", name]
    return int(machine.run(argv, check=True).stdout)


def dump(restic: Repository, path: str) -> str:
    """Return what a file holds in the newest backup."""
    return restic("dump", "latest", path)


@pytest.fixture
def with_auto(filled: Machine, restic: Repository) -> Iterator[Machine]:
    """A machine with snapshots @auto-1 and @auto-2 of all, and files that are newer."""
    shell(filled, f"""
        echo one > {TOP}/src/file; zfs snapshot -r kta@auto-1; zfs snapshot -r kta@other-1
        echo two > {TOP}/src/file; zfs snapshot -r kta@auto-2; zfs snapshot -r kta@other-2
        echo three > {TOP}/src/file
    """)
    yield filled
    for name, tag in holds(filled):
        filled.run(["zfs", "release", tag, name])


# What is taken


def test_the_newest_that_matches_is_backed_up_and_bears_its_moment(with_auto, restic):
    before = pictures(with_auto, f"{TOP}/home/ben", **kept_by(restic))
    shell(with_auto, f"echo late > {TOP}/home/ben/late")
    said = back_up(restic, "-r", "kta")
    assert dump(restic, f"{TOP}/src/file") == "two\n"
    is_whole(restic, before)
    assert "Captured at one moment, " in said
    assert ", by existing snapshots @auto-2:" in said
    (backup,) = json.loads(restic("snapshots", "--json"))
    entry = outcome(with_auto)
    assert entry["outcome"] == "success"
    assert entry["moment"] == entry["existing"]["newest"] == entry["existing"]["oldest"]
    assert entry["existing"]["one_moment"] is True
    name = next(row for row in entry["captured"] if row["dataset"] == "kta/src")
    assert name["snapshot"] == "kta/src@auto-2"
    made = created(with_auto, "kta/src@auto-2")
    words = ["python3", "-c", "import datetime, sys; print(int(datetime.datetime."
             "fromisoformat(sys.argv[1]).timestamp()))"]  # fmt: skip
    for told in (entry["moment"], re.sub(r"\.\d+", "", backup["time"])):
        assert int(with_auto.run([*words, told], check=True).stdout) == made


@pytest.mark.kopia
def test_by_kopia_as_well(with_auto, kopia):
    result = with_auto.run(
        [KOPIATOMIC, "--snapshot", "auto-*", "kta/src"], env=kopia.environment
    )
    assert result.returncode == 0, result.stderr + result.stdout
    clean(with_auto)
    (made,) = json.loads(kopia("snapshot", "list", "--json", f"{TOP}/src"))
    assert made["stats"]["fileCount"] == 2
    out = f"{kopia.directory}/out"
    kopia("snapshot", "restore", made["id"], out)
    assert with_auto.path(f"{out}/file").read_text() == "two\n"
    assert holds(with_auto) == []


def test_it_is_held_meanwhile_and_nobody_can_destroy_it(with_auto, restic):
    before = snapshots(with_auto)
    with backup_goes_on(restic, "--snapshot", "auto-*", "kta/src", "kta/home") as run:
        run_id = [tag for name, tag in holds(with_auto) if name == "kta/src@auto-2"]
        assert len(run_id) == 1
        assert re.fullmatch(r"restomic:default:[0-9a-f]{12}", run_id[0])
        assert {name for name, _ in holds(with_auto)} == {"kta/src@auto-2", "kta/home@auto-2"}
        for words in ([], ["-d"]):
            result = with_auto.run(["zfs", "destroy", *words, "kta/src@auto-2"])
            assert (result.returncode, "dataset is busy" in result.stderr) == (1, True)
        # Others, and all else, are nobody's business.
        shell(with_auto, "zfs destroy kta/src@auto-1; zfs snapshot kta/src@auto-3")
        shell(with_auto, f"zfs unmount kta/src; zfs mount kta/src; echo > {TOP}/src/x")
    assert isinstance(run, Run)
    clean(with_auto)
    assert holds(with_auto) == []
    assert dump(restic, f"{TOP}/src/file") == "two\n"
    gone = {*before} - {*snapshots(with_auto)}
    assert gone == {"kta/src@auto-1"}


def test_a_hold_whose_note_is_lost_is_found_after_a_boot(with_auto, restic):
    """Nobody else would: what is held cannot be destroyed."""
    mine, others = "restomic:default:0123456789ab", "restomic:other:0123456789ab"
    shell(with_auto, f"""
        zfs hold {mine} kta/src@auto-1; zfs hold {others} kta/src@auto-1
        rm -f /var/run/kopiatomic.searched*
    """)
    try:
        said = back_up(restic, "kta/src", tidy=False)
        assert "hold on kta/src@auto-1" in said
        assert holds(with_auto) == [("kta/src@auto-1", others)]
    finally:
        shell(with_auto, f"zfs release {others} kta/src@auto-1")
    assert "hold on" not in back_up(restic, "kta/src")
    clean(with_auto)


def test_one_that_is_to_be_destroyed_later_goes_when_the_run_has_ended(with_auto, restic):
    """Once it is mounted, -d is refused as well."""
    program = meanwhile(with_auto, MOUNTED, "zfs destroy -d kta/src@auto-2")
    back_up(restic, "kta/src", program=program, tidy=False)
    assert dump(restic, f"{TOP}/src/file") == "two\n"
    assert "kta/src@auto-2" not in snapshots(with_auto)
    assert holds(with_auto) == []
    clean(with_auto)


def test_those_of_our_own_runs_are_never_taken(with_auto, restic):
    shell(with_auto, f"""
        echo ours > {TOP}/src/file
        zfs snapshot -o org.kopiatomic:run=restomic:other:0123456789ab kta/src@restomic-1
        zfs rename kta/src@restomic-1 kta/src@auto-9
        zfs snapshot -o org.kopiatomic:run=restomic:other:0123456789ab kta/src@auto-8
    """)
    back_up(restic, "kta/src")
    assert dump(restic, f"{TOP}/src/file") == "two\n"
    shell(with_auto, "zfs destroy kta/src@auto-9; zfs destroy kta/src@auto-8")


def test_a_copy_of_ours_is_not_taken_and_check_names_it(with_auto, restic):
    shell(with_auto, """
        zfs snapshot -o org.kopiatomic:run=restomic:other:0123456789ab kta/src@restomic-1
        zfs send -R kta/src@restomic-1 | zfs receive kta/copy
        zfs destroy kta/src@restomic-1
    """)
    said = back_up(restic, "--snapshot", "*", "kta/copy", tidy=False)
    assert "@other-2" in said
    result = with_auto.run([RESTOMIC, "--check", "--max-age", "99999"])
    assert result.returncode == 1
    assert "1 snapshot is a copy of snapshots for backups" in result.stdout
    assert "zfs destroy kta/copy@restomic-1" in result.stdout
    # It is nobody's to sweep.
    assert with_auto.run([RESTOMIC, "--sweep", "-j", "other"]).returncode == 0
    assert "kta/copy@restomic-1" in snapshots(with_auto)
    shell(with_auto, "zfs destroy kta/copy@restomic-1")
    assert "copy" not in with_auto.run([RESTOMIC, "--check"]).stdout


def test_a_dataset_without_one_is_left_out_and_told(with_auto, restic):
    shell(with_auto, "zfs create kta/fresh; zfs create kta/fresh2; zfs snapshot kta/fresh@other-9")
    said = back_up(restic, "-r", "kta")
    assert re.search(r"kta/fresh +none of its snapshots matches 'auto-\*'", said)
    assert {"kta/fresh", "kta/fresh2"} & set(captured(with_auto)) == set()
    assert outcome(with_auto)["outcome"] == "success"
    # It is in no backup, and that is told, although the job chooses it.
    check = with_auto.run([RESTOMIC, "--check", "--max-age", "99999"]).stdout
    assert "2 datasets are in no job: kta/fresh, kta/fresh2" in check


def test_where_it_was_named_the_backup_is_incomplete_each_night(with_auto, restic):
    shell(with_auto, "zfs create kta/fresh")
    for _ in range(2):
        said = back_up(restic, "kta/src", f"{TOP}/fresh", status=NOINPUT)
        assert "the backup is INCOMPLETE" in said
        assert "kta/fresh is not in this backup: none of its snapshots matches 'auto-*'" in said
    assert dump(restic, f"{TOP}/src/file") == "two\n"
    assert outcome(with_auto)["outcome"] == "incomplete"
    assert left_out_of(said) == {"kta/fresh"} or "kta/fresh" in said


def test_where_no_dataset_has_one_nothing_is_done(with_auto, restic):
    before = snapshots(with_auto)
    result = with_auto.run(
        [RESTOMIC, "--snapshot", "zrepl_*", "-r", "kta", "-s", f"touch {BASE}/called"],
        env=restic.environment,
    )
    assert result.returncode == NOINPUT
    assert result.stderr.count("\n") == 1
    assert "no chosen dataset has a snapshot that matches 'zrepl_*'" in result.stderr
    assert not with_auto.path(f"{BASE}/called").exists()
    assert snapshots(with_auto) == before
    clean(with_auto)


# Of which moment


def test_one_name_that_all_have_is_preferred(with_auto, restic):
    """As while a replica is received: one dataset has the next one already."""
    shell(with_auto, "zfs snapshot kta/home@auto-3")
    said = back_up(restic, "-r", "kta")
    assert ", by existing snapshots @auto-2:" in said
    assert "Captured at one moment" in said


def test_where_there_is_no_such_name_it_is_told_which_are_taken(with_auto, restic):
    shell(with_auto, "zfs destroy kta/src@auto-2; zfs destroy kta/src@auto-1")
    shell(with_auto, "zfs snapshot kta/src@auto-7")
    said = back_up(restic, "kta/home", "kta/src")
    assert "Captured at one moment" not in said
    assert re.search(r"kta/home +/kt/kta/home( +\(@auto-2, .*\))?\n", said)
    entry = outcome(with_auto)
    assert entry["existing"]["one_moment"] is False
    assert dump(restic, f"{TOP}/src/file") == "three\n"


# Nothing new


def test_nothing_new_is_said_and_nothing_is_called(with_auto, restic):
    back_up(restic, "-r", "kta")
    hooks = [word for option in "psq" for word in (f"-{option}", f"touch {PLACE}/{option}")]
    said = back_up(restic, "-r", "kta", *hooks)
    assert "restomic: the backup was NOT NEEDED, " in said
    assert "all snapshots that would be taken are in a good backup already; the newest is" in said
    assert "@auto-2, " in said
    assert not [each for each in "psq" if with_auto.path(f"{PLACE}/{each}").exists()]
    assert len(json.loads(restic("snapshots", "--json"))) == 1
    assert outcome(with_auto)["outcome"] == "unchanged"
    # It is no backup, and no failure.
    status = json.loads(with_auto.run([RESTOMIC, "--status", "--json"]).stdout)
    (job,) = status["jobs"]
    assert job["newest_success"]["outcome"] == "success"
    assert job["newest_failure"] is None
    assert job["nights"][-1] == "success"
    assert with_auto.run([RESTOMIC, "--status", "--periodic"]).returncode == 0
    metrics = with_auto.run([RESTOMIC, "--status", "--metrics"]).stdout
    assert 'backup_last_run_success{program="restomic",job="default"} 1\n' in metrics
    result = with_auto.run(
        [RESTOMIC, "--periodic", "--snapshot", "auto-*", "-r", "kta"], env=restic.environment
    )
    assert (result.returncode, "was NOT NEEDED" in result.stdout) == (0, True)


def test_a_newer_one_of_any_dataset_makes_a_backup(with_auto, restic):
    back_up(restic, "-r", "kta")
    shell(with_auto, f"echo four > {TOP}/src/file; zfs snapshot -r kta@auto-3")
    assert "the backup succeeded, " in back_up(restic, "-r", "kta")
    assert dump(restic, f"{TOP}/src/file") == "four\n"
    # Where that is destroyed, an older one that was backed up is nothing new.
    shell(with_auto, "zfs destroy -r kta@auto-3")
    assert "was NOT NEEDED" in back_up(restic, "-r", "kta")


def test_an_older_one_with_other_files_makes_a_backup(with_auto, restic):
    """A replica may be made anew from elsewhere: the time of its snapshot says nothing."""
    receive = "zfs send kta/{} | zfs receive kta/copy"
    shell(with_auto, receive.format("src@auto-2"))
    assert "the backup succeeded, " in back_up(restic, "kta/copy")
    shell(with_auto, f"zfs destroy -r kta/copy; {receive.format('home@auto-1')}")
    assert "the backup succeeded, " in back_up(restic, "kta/copy")
    assert "was NOT NEEDED" in back_up(restic, "kta/copy")


@pytest.mark.parametrize("client", ["restic", "kopia"])
def test_a_repository_that_was_made_anew_gets_it_again(with_auto, request, client):
    """It is in the same place, and all that the history says of it is as it was."""
    repository = request.getfixturevalue(client)
    program = {"restic": RESTOMIC, "kopia": KOPIATOMIC}[client]
    back_up(repository, "kta/src", program=program)
    assert "was NOT NEEDED" in back_up(repository, "kta/src", program=program)
    shell(with_auto, f"mv {repository.directory}/{client} {repository.directory}/old")
    said = back_up(repository, "kta/src", program=program, status=meanwhile_away(client))
    assert "the backup FAILED" in said
    make = {"restic": ["init"], "kopia": ["repository", "create", "filesystem", "--path",
            f"{repository.directory}/kopia"]}[client]  # fmt: skip
    repository(*make)
    said = back_up(repository, "kta/src", program=program)
    assert "the backup succeeded, " in said
    assert re.search("the repository does not have the backup [0-9a-f]{8,16} any more, so", said)
    assert "was NOT NEEDED" in back_up(repository, "kta/src", program=program)


def meanwhile_away(client: str) -> int:
    """Return what the client ends with where there is no repository."""
    return {"restic": 10, "kopia": 1}[client]


@pytest.mark.parametrize("client", ["restic", "kopia"])
def test_a_backup_that_was_removed_is_made_again(with_auto, request, client):
    repository = request.getfixturevalue(client)
    program = {"restic": RESTOMIC, "kopia": KOPIATOMIC}[client]
    back_up(repository, "kta/src", program=program)
    forget = {"restic": ["forget", "--unsafe-allow-remove-all", "--tag", "restomic:default"],
              "kopia": ["snapshot", "delete", "--all-snapshots-for-source", f"{TOP}/src",
                        "--delete"]}[client]  # fmt: skip
    repository(*forget)
    assert "the backup succeeded, " in back_up(repository, "kta/src", program=program)
    assert "was NOT NEEDED" in back_up(repository, "kta/src", program=program)


@pytest.mark.kopia
def test_a_backup_that_retention_removes_at_once_is_not_called_good(with_auto, kopia):
    """It bears the time of the snapshot, and kopia removes the oldest when it has made one."""
    kopia("policy", "set", "--global", "--keep-latest", "1", *(
        word for each in ("hourly", "daily", "weekly", "monthly", "annual")
        for word in (f"--keep-{each}", "0")
    ))  # fmt: skip
    kopia("snapshot", "create", f"{TOP}/src")  # as another job of the same path does
    reason = (
        f"the new backup of {TOP}/src is not in the repository any more: the reason is likely to "
        f"be kopia's retention, which removes a backup at once if its source has enough newer ones"
    )
    history = with_auto.path("/var/db/kopiatomic/kopiatomic.default.history")
    for datasets, proof in (
        (("kta/src",), "0 of 1 dataset found"), (("kta/src", "kta/home"), "1 of 2 datasets found")
    ):  # fmt: skip
        said = back_up(kopia, *datasets, status=65, program=KOPIATOMIC)
        assert proof in said
        # The home alone is not removed.
        assert len(re.findall(r"(?m)^  saved as [0-9a-f]{16}$", said)) == len(datasets) - 1
        entry = json.loads(history.read_text().splitlines()[-1])
        assert entry["outcome"] == "incomplete"
        (problem,) = entry["problems"]
        assert problem.startswith(reason)
        assert f" policy show {TOP}/src," in problem
        assert len(entry["client_runs"][0]["backups"]) == len(datasets) - 1
    # As it is with a time that the user says.
    words = [KOPIATOMIC, "--options=--start-time '2020-01-01 00:00:00 UTC'", "kta/src"]
    result = with_auto.run(words, env=kopia.environment)
    assert (result.returncode, reason in result.stderr) == (65, True), result.stderr
    # Where the policy keeps it, all is well.
    kopia("policy", "set", "--global", "--keep-latest", "9")
    back_up(kopia, "kta/src", program=KOPIATOMIC)
    assert "was NOT NEEDED" in back_up(kopia, "kta/src", program=KOPIATOMIC)


def test_one_that_was_tagged_since_is_the_same(with_auto, restic):
    back_up(restic, "kta/src")
    restic("tag", "--add", "kept", "--tag", "restomic:default")
    assert "was NOT NEEDED" in back_up(restic, "kta/src")


def test_another_choice_or_another_repository_is_something_new(with_auto, restic):
    back_up(restic, "kta/src")
    assert "the backup succeeded, " in back_up(restic, "-r", "kta")
    assert "the backup succeeded, " in back_up(restic, "-r", "kta", "-o", "--tag more")
    assert "was NOT NEEDED" in back_up(restic, "-r", "kta", "-o", "--tag more")
    # So is a file of excludes that has another text now.
    excludes = with_auto.path(f"{BASE}/excludes")
    excludes.write_text("*.o\n")
    words = ("-r", "kta", "-o", f"--exclude-file {BASE}/excludes")
    back_up(restic, *words)
    assert "was NOT NEEDED" in back_up(restic, *words)
    excludes.write_text("")
    assert "the backup succeeded, " in back_up(restic, *words)


def test_a_failed_backup_is_made_again(with_auto, restic):
    back_up(restic, "kta/src", "-q", "exit 1", status=69)
    back_up(restic, "kta/src", "-j", "bad", "-o", "--no-such-option", status=1)
    said = back_up(restic, "kta/src", "-j", "bad", "-o", "--no-such-option", status=1)
    assert "FAILED" in said


def test_what_a_hook_brings_is_found(with_auto, restic):
    """-p is called where there may be something to do, and then what it finds counts."""
    back_up(restic, "kta/src")
    shell(with_auto, "zfs snapshot kta/src@auto-3")
    away = "zfs destroy kta/src@auto-3"
    result = with_auto.run(
        [RESTOMIC, "--snapshot", "auto-*", "kta/src", "-p", away, "-s", f"touch {PLACE}/s",
         "-q", f"echo $KOPIATOMIC_OUTCOME > {PLACE}/q"], env=restic.environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "was NOT NEEDED" in result.stdout
    # What -p has begun is ended.
    assert with_auto.path(f"{PLACE}/s").exists()
    assert with_auto.path(f"{PLACE}/q").read_text() == "unchanged\n"
    clean(with_auto)


# Others at work


def test_one_that_goes_before_it_is_held_is_replaced_by_the_next(with_auto, restic):
    program = meanwhile(with_auto, HELD, "zfs destroy kta/src@auto-2")
    said = back_up(restic, "kta/src", "kta/home", program=program, tidy=False)
    assert "kta/src@auto-2 went meanwhile; kta/src@auto-1 is backed up in its place" in said
    assert dump(restic, f"{TOP}/src/file") == "one\n"
    assert holds(with_auto) == []
    clean(with_auto)


def test_one_that_is_renamed_before_it_is_held(with_auto, restic):
    program = meanwhile(with_auto, HELD, "zfs rename kta/src@auto-2 kta/src@auto-kept")
    said = back_up(restic, "kta/src", "kta/home", program=program, tidy=False)
    assert "kta/src@auto-kept is backed up in its place" in said
    assert dump(restic, f"{TOP}/src/file") == "two\n"
    assert holds(with_auto) == []
    clean(with_auto)


def test_where_it_was_the_last_one_that_dataset_is_lost(with_auto, restic):
    shell(with_auto, "zfs destroy kta/src@auto-1")
    program = meanwhile(with_auto, HELD, "zfs destroy kta/src@auto-2")
    said = back_up(restic, "kta/src", "kta/home", program=program, status=CANTCREAT, tidy=False)
    assert "the backup is INCOMPLETE" in said
    assert "  ! no snapshot of kta/src: its snapshot has been destroyed" in said
    assert captured(with_auto) == ["kta/home"]
    assert holds(with_auto) == []
    clean(with_auto)


@pytest.mark.parametrize(
    "does", ["zfs rename kta/src@auto-2 kta/src@moved", "zfs rename -u kta/src kta/moved"]
)
def test_a_hold_that_was_moved_is_found_and_taken_back(with_auto, restic, does):
    with backup_goes_on(restic, "--snapshot", "auto-*", "kta/src"):
        shell(with_auto, does)
        assert len(holds(with_auto)) == 1
    assert holds(with_auto) == []
    clean(with_auto)
    assert dump(restic, f"{TOP}/src/file") == "two\n"


def test_a_replica_is_received_into_meanwhile(with_auto, restic):
    shell(with_auto, f"""
        zfs send -R kta/src@auto-1 | zfs receive -u kta/replica
        zfs set readonly=on kta/replica; zfs mount kta/replica
        sleep 2; echo next > {TOP}/src/file; zfs snapshot kta/src@auto-3
    """)
    with backup_goes_on(restic, "--snapshot", "auto-*", "kta/replica"):
        shell(with_auto, "zfs send -I @auto-1 kta/src@auto-2 | zfs receive kta/replica")
        shell(with_auto, "zfs send -I @auto-2 kta/src@auto-3 | zfs receive -F kta/replica")
    clean(with_auto)
    assert dump(restic, f"{TOP}/replica/file") == "one\n"
    names = [name for name in snapshots(with_auto) if name.startswith("kta/replica@")]
    assert [name.partition("@")[2] for name in names][-3:] == ["auto-2", "other-2", "auto-3"]
    said = back_up(restic, "kta/replica")
    assert dump(restic, f"{TOP}/replica/file") == "next\n"
    assert "@auto-3" in said


def test_the_holds_of_others_are_left_alone(with_auto, restic):
    shell(with_auto, """
        zfs hold keep kta/src@auto-2
        zfs hold restomic:other:0123456789ab kta/src@auto-2
        zfs hold restomic:default2:0123456789ab kta/src@auto-1
    """)
    before = holds(with_auto)
    assert len(before) == 3
    back_up(restic, "kta/src")
    assert with_auto.run([RESTOMIC, "--sweep"]).stdout == "nothing was left behind\n"
    assert holds(with_auto) == before


def test_who_has_it_mounted_keeps_it_mounted(with_auto, restic):
    shell(with_auto, f"mkdir {PLACE}/look; mount -t zfs kta/src@auto-2 {PLACE}/look")
    back_up(restic, "kta/src", "kta/home")
    assert dump(restic, f"{TOP}/src/file") == "two\n"
    assert with_auto.run(["cat", f"{PLACE}/look/file"]).stdout == "two\n"
    shell(with_auto, f"umount {PLACE}/look")


def test_who_reads_in_dot_zfs_reads_on(with_auto, restic):
    place = f"{TOP}/src/.zfs/snapshot/auto-2"
    shell(with_auto, f"mkdir {PLACE}/look; mount_nullfs {place} {PLACE}/look")
    back_up(restic, "kta/src")
    assert dump(restic, f"{TOP}/src/file") == "two\n"
    assert with_auto.run(["cat", f"{PLACE}/look/file"]).stdout == "two\n"
    shell(with_auto, f"umount {PLACE}/look")


def test_who_has_looked_there_is_not_in_the_way(with_auto, restic):
    place = f"{TOP}/src/.zfs/snapshot/auto-2"
    shell(with_auto, f"mkdir {PLACE}/look; mount_nullfs {place} {PLACE}/look; umount {PLACE}/look")
    back_up(restic, "kta/src")
    assert dump(restic, f"{TOP}/src/file") == "two\n"


# Killed


def kill(restic: Repository, *words: str) -> None:
    """Have a run of existing snapshots killed while its client waits."""
    options = {"program": "restomic", "client": "restic", "env": restic.environment}
    with started(restic.machine, "--snapshot", "auto-*", *words, **options) as run:
        run.wait_for_client()
        run.kill(client=True)


def test_the_holds_of_a_killed_run_are_named_and_go_with_the_next_run(with_auto, restic):
    before = snapshots(with_auto)
    kill(restic, "kta/src", "kta/home")
    assert len(holds(with_auto)) == 2
    status = with_auto.run([RESTOMIC, "--status"]).stdout
    assert "2 holds, such as kta/home@auto-2" in status
    assert "restomic --sweep -j default" in status
    check = with_auto.run([RESTOMIC, "--check"])
    assert "left behind by an earlier run: " in check.stdout
    assert "2 holds, such as kta/home@auto-2" in check.stdout
    said = back_up(restic, "kta/src", tidy=False)
    assert "  hold on kta/home@auto-2\n" in said
    assert "  hold on kta/src@auto-2\n" in said
    assert holds(with_auto) == []
    assert snapshots(with_auto) == before
    clean(with_auto)


def test_also_with_a_run_that_takes_no_existing_ones(with_auto, restic):
    kill(restic, "kta/src")
    result = with_auto.run([RESTOMIC, "kta/home"], env=restic.environment)
    assert result.returncode == 0
    assert "  hold on kta/src@auto-2\n" in result.stdout
    assert holds(with_auto) == []
    clean(with_auto)


@pytest.mark.parametrize("noted", [True, False])
def test_and_by_a_sweep(with_auto, restic, noted):
    """Without the note as well: /var/db is another one in another boot environment."""
    kill(restic, "kta/src")
    if not noted:
        state = with_auto.path("/var/db/kopiatomic")
        for path in state.iterdir():
            path.unlink()
    result = with_auto.run([RESTOMIC, "--sweep", *(["-a"] if noted else [])])
    assert result.returncode == 0, result.stderr
    assert "removed hold on kta/src@auto-2\n" in result.stdout
    assert holds(with_auto) == []
    clean(with_auto)


def test_after_a_power_cut(with_auto, restic):
    if not with_auto.is_sandbox:
        pytest.skip("no test cuts the power of a real machine")
    client = script(with_auto, f": > {PLACE}/there; exec sleep 300")
    words = [RESTOMIC, "--plain", "-c", client, "--snapshot", "auto-*", "kta/src"]
    process = with_auto.popen(words, new_group=True)
    wait_for(with_auto.path(f"{PLACE}/there").exists)
    with_auto.host.power_cut()
    process.wait(30)
    with_auto.host.boot()
    assert len(holds(with_auto)) == 1
    said = back_up(restic, "kta/src", tidy=False)
    assert "  hold on kta/src@auto-2\n" in said
    assert holds(with_auto) == []
    clean(with_auto)


# Pools


@pytest.fixture
def two_pools(with_auto: Machine) -> Iterator[Machine]:
    """A machine with another pool, ktb, that has snapshots @auto-1 as well."""
    with_auto.make_pool("ktb")
    shell(with_auto, "zfs create ktb/d; echo b > /kt/ktb/d/file; zfs snapshot -r ktb@auto-1")
    yield with_auto
    with_auto.run(["/bin/sh", "-c", "zpool export ktb"])
    shell(with_auto, f"zpool import{where(with_auto)} ktb")


def test_a_read_only_pool_cannot_be_held_and_is_backed_up(two_pools, restic):
    shell(two_pools, "echo live > /kt/ktb/d/file; zpool export ktb")
    shell(two_pools, f"zpool import -o readonly=on{where(two_pools)} ktb")
    said = back_up(restic, "ktb/d", "kta/src")
    assert dump(restic, "/kt/ktb/d/file") == "b\n"
    assert "NOT ALL IS WELL" not in said
    assert "could not be held" not in said


@pytest.mark.parametrize("at", [False, True])
def test_what_is_not_mounted_hides_no_file_of_an_older_snapshot(with_auto, restic, at):
    """The place is free today, and was not when the snapshot was made."""
    place = f"{TOP}/src/place"
    shell(with_auto, f"""
        mkdir {place}; echo precious > {place}/precious
        zfs create -o canmount=noauto -o mountpoint={'none' if at else place} kta/bare
        zfs snapshot -r kta@auto-3; rm {place}/precious
    """)
    words = ["--at", place] if at else []
    for _ in range(2):
        said = back_up(restic, *words, "kta/src", "kta/bare", status=73)
        told = f"kta/bare: in the snapshot of kta/src there are files in {place}"
        assert f"cannot show at its mount point {told}" in said
        assert dump(restic, f"{place}/precious") == "precious\n"
    shell(with_auto, "zfs snapshot -r kta@auto-4")
    back_up(restic, *words, "kta/src", "kta/bare")


def test_two_pools_lie_apart_and_it_is_told(two_pools, restic):
    said = back_up(restic, "ktb/d", "kta/src")
    assert "Captured at one moment" not in said
    assert set(outcome(two_pools)["captured_at"]) == {"kta", "ktb"}


# What would be done


def test_a_dry_run_tells_which_and_how_old(with_auto, restic):
    result = with_auto.run([RESTOMIC, "-n", "--snapshot", "auto-*", "kta/src"],
                           env=restic.environment)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Would take these existing snapshots, and make none:" in result.stdout
    assert re.search(r"kta/src@auto-2 +.*, (just now|\d+ min old)\n", result.stdout)
    assert re.search(r"  zfs hold restomic:default:\w+ kta/src@auto-2\n", result.stdout)
    assert "zfs snapshot" not in result.stdout
    result = with_auto.run([RESTOMIC, "-n", "--json", "--snapshot", "auto-*", "kta/src"],
                           env=restic.environment)  # fmt: skip
    (row,) = json.loads(result.stdout)["captured"]
    assert row["snapshot"] == "kta/src@auto-2"
    assert row["age_seconds"] >= 0
    back_up(restic, "kta/src")
    result = with_auto.run([RESTOMIC, "-n", "--snapshot", "auto-*", "kta/src"],
                           env=restic.environment)  # fmt: skip
    assert "no backup would be made" in result.stdout
    full = with_auto.run([RESTOMIC, "--status", "--full"]).stdout
    assert re.search(r"kta/src +/kt/kta/src +\(@auto-2\)\n", full)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--snapshot", "", "kta"], "a pattern for what stands after the @"),
        (["--snapshot", "kta@auto-*", "kta"], "a pattern for what stands after the @"),
        (["--status", "--snapshot", "auto-*"], "--snapshot does not go with --status"),
    ],
)
def test_bad_arguments(filled: Machine, words: list[str], says: str):
    result = filled.run([RESTOMIC, *words])
    assert (result.returncode, result.stdout) == (64, "")
    assert says in result.stderr


