"""Directories within a dataset: these alone are backed up, frozen, with both clients."""

from __future__ import annotations

import json

import pytest
from support import tree
from support.machine import Machine, shell

from host.conftest import TOP, Repository, clean
from host.ongoing import is_whole, kept_by, meanwhile, pictures
from host.test_restic import NOTHING, changes, modern

RESTOMIC = "/usr/local/sbin/restomic"
INCOMPLETE, NOINPUT, CANTCREAT, CONFIG = 65, 66, 73, 78
HOME = f"{TOP}/home"

CLIENTS = [
    pytest.param("restic", marks=pytest.mark.restic),
    pytest.param("kopia", marks=pytest.mark.kopia),
]


@pytest.fixture(params=CLIENTS)
def repository(request: pytest.FixtureRequest) -> Repository:
    """A repository of each client."""
    made: Repository = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def lived_in(filled: Machine) -> Machine:
    """The machine with directories and a file that are backed up alone, and a dataset below."""
    shell(
        filled,
        f"""
        zfs create -o mountpoint={HOME}/docs/below kta/below; echo low > {HOME}/docs/below/file
        mkdir -p {HOME}/etc/ssl; echo conf > {HOME}/etc/conf; echo cert > {HOME}/etc/ssl/cert
        """,
    )
    return filled


def program(repository: Repository) -> str:
    return {"restic": "restomic", "kopia": "kopiatomic"}[repository.client]


def back_up(repository: Repository, *words: str, status: int = 0, **variables: str) -> str:
    """Run a backup, expect a status and a clean machine; return what was said."""
    machine = repository.machine
    environment = {**repository.environment, **variables}
    argv = [f"/usr/local/sbin/{program(repository)}", *words]
    result = machine.run(argv, env=environment)
    assert result.returncode == status, result.stdout + result.stderr
    clean(machine)
    return result.stdout + result.stderr


def entry(repository: Repository, job: str = "default") -> dict[str, object]:
    """Return the last entry of a job's history."""
    name = f"/var/db/kopiatomic/{program(repository)}.{job}.history"
    found: dict[str, object] = json.loads(
        repository.machine.path(name).read_text().splitlines()[-1]
    )
    return found


def sources(repository: Repository) -> dict[str, str]:
    """Return what the newest backup of each path is called, by path."""
    if repository.client == "restic":
        listed = json.loads(repository("snapshots", "--json", "--latest", "1"))
        return {path: str(each["id"]) for each in listed[-1:] for path in each["paths"]}
    listed = json.loads(repository("snapshot", "list", "--json"))
    listed.sort(key=lambda each: str(each["startTime"]))
    return {each["source"]["path"]: str(each["id"]) for each in listed}


def restored(repository: Repository, path: str) -> str:
    """Restore a path of the newest backup; return where that is."""
    machine, out = repository.machine, f"{repository.directory}/out"
    machine.run(["rm", "-rf", out], check=True)
    if repository.client == "restic":
        repository("restore", "latest", "--target", out)
        return out + path
    repository("restore", sources(repository)[path], out)
    return out


def picture(repository: Repository, path: str) -> dict[str, tuple[object, ...]]:
    return tree.picture(repository.machine.path(path), **kept_by(repository))


def test_they_come_back_as_they_were_at_the_moment(lived_in: Machine, repository: Repository):
    paths = [f"{HOME}/docs", f"{HOME}/etc"]
    shell(lived_in, f"zfs unmount kta/below; rmdir {HOME}/docs/below")
    before = {path: picture(repository, path) for path in paths}
    change = f"echo changed > {HOME}/docs/letter.txt; rm {HOME}/etc/conf; echo > {HOME}/etc/new"
    said = back_up(repository, *paths, "-s", change)
    assert set(sources(repository)) == set(paths)
    for path in paths:
        assert picture(repository, restored(repository, path)) == before[path]
    assert f"{HOME}, only {HOME}/docs, {HOME}/etc" in said
    assert "2 of 2 paths found in the backup" in said
    assert entry(repository)["captured"] == [
        {"dataset": "kta/home", "mountpoint": HOME, "directories": paths}
    ]


def test_nothing_else_of_the_dataset_is_in_it(lived_in: Machine, repository: Repository):
    back_up(repository, f"{HOME}/etc")
    if repository.client == "restic":
        names = set(repository("ls", "latest").splitlines())
        assert f"{HOME}/etc/ssl/cert" in names
        assert not {f"{HOME}/big", f"{HOME}/docs", f"{HOME}/ben"} & names
    assert set(sources(repository)) == {f"{HOME}/etc"}


def test_a_second_run_over_unchanged_data_finds_nothing(lived_in: Machine, repository: Repository):
    paths = (f"{HOME}/etc", f"{TOP}/src")
    back_up(repository, *paths)
    first = sources(repository)
    said = back_up(repository, *paths)
    second = sources(repository)
    assert set(first) == set(second) == set(paths)
    if repository.client == "kopia":
        listed = json.loads(repository("snapshot", "list", "--json", "--all"))
        roots = {each["id"]: each["rootEntry"]["obj"] for each in listed}
        read = {each["id"]: each["stats"].get("nonCachedFiles", 0) for each in listed}
        for path in paths:
            assert roots[first[path]] == roots[second[path]]
            assert read[second[path]] == 0
    else:
        assert changes(said)[:2] == (0, 0)
    assert "New since" not in said


@modern
@pytest.mark.restic
def test_nor_is_anything_added(lived_in: Machine, restic: Repository):
    back_up(restic, f"{HOME}/etc")
    assert changes(back_up(restic, f"{HOME}/etc")) == NOTHING


@modern
@pytest.mark.restic
def test_the_history_of_a_live_backup_goes_on(lived_in: Machine, restic: Repository):
    restic.environment["RESTIC_FEATURES"] = "device-id-for-hardlinks=true"
    restic("backup", f"{HOME}/etc")
    shell(lived_in, "sleep 1")
    said = back_up(restic, f"{HOME}/etc")
    assert "using parent snapshot" in said
    assert changes(said) == NOTHING


@pytest.mark.parametrize("recursive", [False, True])
def test_a_dataset_mounted_below_comes_along_with_r_only(
    lived_in: Machine, repository: Repository, recursive: bool
):
    said = back_up(repository, *(["-r"] if recursive else []), f"{HOME}/docs")
    out = repository.machine.path(restored(repository, f"{HOME}/docs"))
    assert (out / "letter.txt").read_text() == "Dear Ada,\n"
    assert (out / "below/file").exists() == recursive
    assert (f"{HOME}/docs/below  not selected (dataset kta/below)" in said) == (not recursive)
    # Nothing that lies elsewhere in the dataset is of interest.
    assert f"{HOME}/ben " not in said
    datasets = [row["dataset"] for row in entry(repository)["captured"]]
    assert datasets == (["kta/below", "kta/home"] if recursive else ["kta/home"])


def test_a_mount_point_stays_the_whole_dataset(lived_in: Machine, repository: Repository):
    back_up(repository, f"{TOP}/src", f"{HOME}/etc")
    assert entry(repository)["captured"] == [
        {"dataset": "kta/home", "mountpoint": HOME, "directories": [f"{HOME}/etc"]},
        {"dataset": "kta/src", "mountpoint": f"{TOP}/src"},
    ]


def test_what_overlaps_is_reduced_to_the_topmost(lived_in: Machine, repository: Repository):
    said = back_up(repository, f"{HOME}/etc/ssl", f"{HOME}/etc", f"{HOME}/etc", "kta/src",
                   f"{TOP}/src/main.c")  # fmt: skip
    assert set(sources(repository)) == {f"{HOME}/etc", f"{TOP}/src"}
    assert "2 of 2 paths" in said


def test_a_file(lived_in: Machine, repository: Repository):
    back_up(repository, f"{HOME}/docs/letter.txt", f"{HOME}/etc")
    said = back_up(repository, f"{HOME}/docs/letter.txt", f"{HOME}/etc")
    assert "2 of 2 paths found" in said
    out = restored(repository, f"{HOME}/docs/letter.txt")
    assert repository.machine.path(out).read_text() == "Dear Ada,\n"
    drilled = repository.machine.run(
        [f"/usr/local/sbin/{program(repository)}", "--drill", "9"], env=repository.environment
    )
    assert drilled.returncode == 0, drilled.stdout + drilled.stderr
    assert "restored identical" in drilled.stdout


def test_a_symbolic_link_names_what_it_leads_to(lived_in: Machine, repository: Repository):
    shell(lived_in, f"ln -s home/etc {TOP}/conf")
    back_up(repository, f"{TOP}/conf")
    assert set(sources(repository)) == {f"{HOME}/etc"}


def test_what_is_neither_is_refused(lived_in: Machine, repository: Repository):
    said = back_up(repository, f"{HOME}/fifo", status=NOINPUT)
    assert "is neither a directory nor a plain file" in said


def test_one_within_a_path_that_does_not_take_its_dataset_along(
    lived_in: Machine, repository: Repository
):
    """All of kta/home/ben would slip into the backup of its parent's directory."""
    shell(lived_in, f"zfs create -o mountpoint={HOME}/etc/d kta/d; mkdir -p {HOME}/etc/d/a/b; "
          f"echo yes > {HOME}/etc/d/a/b/file; echo no > {HOME}/etc/d/a/other")  # fmt: skip
    said = back_up(repository, f"{HOME}/etc", f"{HOME}/etc/d/a/b")
    assert set(sources(repository)) == {f"{HOME}/etc"}
    out = repository.machine.path(restored(repository, f"{HOME}/etc"))
    assert (out / "d/a/b/file").read_text() == "yes\n"
    assert not (out / "d/a/other").exists()
    assert "2 of 2 paths found" in said


# What is not there


def test_one_that_does_not_exist_is_refused(lived_in: Machine, repository: Repository):
    said = back_up(repository, f"{HOME}/etc", f"{HOME}/gone", status=NOINPUT)
    assert f"the path '{HOME}/gone' does not exist" in said


@pytest.mark.parametrize("how", ["argument", "list", "files-from"])
def test_at_night_the_rest_is_backed_up_without_it(
    lived_in: Machine, repository: Repository, how: str
):
    if how == "files-from" and repository.client != "restic":
        pytest.skip("it is an option of restic's")
    place = write(lived_in, f"{HOME}/etc", f"{HOME}/docs", f"{HOME}/gone")
    words = {"argument": (f"{HOME}/etc", f"{HOME}/docs", f"{HOME}/gone"),
             "list": ("--paths-from", place), "files-from": ("-o", f"--files-from {place}")}[how]
    # By hand it is taken for a mistake.
    assert f"the path '{HOME}/gone' does not exist" in back_up(repository, *words, status=NOINPUT)
    said = back_up(repository, "--periodic", *words, status=3)
    where = "" if how == "argument" else f" ({place}, line 3)"
    assert f"  ! {HOME}/gone is not in this backup: it does not exist{where}\n" in said
    assert "the backup is INCOMPLETE" in said
    assert set(sources(repository)) == {f"{HOME}/etc", f"{HOME}/docs"}
    assert entry(repository)["outcome"] == "incomplete"
    # The hook may make it, and where nothing is left there is no backup.
    made = f"mkdir {HOME}/gone; echo x > {HOME}/gone/x"
    back_up(repository, "--periodic", *words, "-p", made, status=1)
    assert set(sources(repository)) >= {f"{HOME}/gone"}
    shell(lived_in, f"rm -r {HOME}/gone")
    said = back_up(repository, "--periodic", f"{HOME}/gone", status=3)
    assert f"NO BACKUP: the path '{HOME}/gone' does not exist" in said


def test_the_hook_may_make_it(lived_in: Machine, repository: Repository):
    back_up(repository, f"{HOME}/dump", "-p", f"mkdir {HOME}/dump; echo sql > {HOME}/dump/all")
    out = repository.machine.path(restored(repository, f"{HOME}/dump"))
    assert (out / "all").read_text() == "sql\n"


@pytest.mark.restic
@pytest.mark.parametrize("how", ["rm -r {0}", "mv {0} {0}.moved; ln -s {0}.moved {0}"])
def test_one_that_is_gone_at_the_moment_of_the_snapshot(
    lived_in: Machine, restic: Repository, how: str
):
    gone = meanwhile(lived_in, ("zfs", "program"), how.format(f"{HOME}/etc"))
    shell(lived_in, "zfs destroy kta/below")
    expected = pictures(lived_in, f"{HOME}/docs", **kept_by(restic))
    argv = [gone, f"{HOME}/docs", f"{HOME}/etc"]
    result = lived_in.run(argv, env=restic.environment)
    said = result.stdout + result.stderr
    assert result.returncode == CANTCREAT, said
    assert "the backup is INCOMPLETE" in said
    assert f"cannot back up {HOME}/etc: " in said
    is_whole(restic, expected)
    clean(lived_in)


@pytest.mark.restic
def test_if_all_are_gone_there_is_no_backup(lived_in: Machine, restic: Repository):
    gone = meanwhile(lived_in, ("zfs", "program"), f"rm -r {HOME}/etc")
    result = lived_in.run([gone, f"{HOME}/etc"], env=restic.environment)
    assert result.returncode == CANTCREAT, result.stdout
    assert "the backup FAILED" in result.stdout
    clean(lived_in)


def test_an_empty_directory_where_a_dataset_belongs_stands_for_the_dataset(
    lived_in: Machine, repository: Repository
):
    shell(lived_in, "zfs unmount kta/src")
    back_up(repository, f"{TOP}/src", f"{HOME}/etc")
    out = repository.machine.path(restored(repository, f"{TOP}/src"))
    assert (out / "main.c").exists()


def test_what_lies_beneath_a_dataset_that_is_away_does_not_take_its_place(
    lived_in: Machine, repository: Repository
):
    """Not once, and not in the nights after it; but where the dataset was destroyed it does."""
    place = f"{HOME}/data"
    shell(lived_in, f"zfs create -o mountpoint={place} kta/data; echo data > {place}/file")
    back_up(repository, place, "kta/src")
    shell(lived_in, f"zfs unmount kta/data; mkdir -p {place}; echo stray > {place}/pid")
    for _ in range(2):
        said = back_up(repository, place, "kta/src", status=NOINPUT)
        assert f"{place} was in the last successful backup as part of kta/data, which is" in said
        assert "the backup is INCOMPLETE" in said
    shell(lived_in, "zfs destroy kta/data")
    said = back_up(repository, place, "kta/src")
    assert "gone      kta/data" in said


# Lists


def write(machine: Machine, *lines: str, end: str = "\n") -> str:
    """Write a list, and return where it is."""
    place = f"{TOP}/list"
    machine.path(place).write_bytes("".join(line + end for line in lines).encode())
    return place


def test_a_list(lived_in: Machine, repository: Repository):
    place = write(lived_in, "# of mine", "", f"{HOME}/etc", "kta/src", f"{HOME}/docs/letter.txt")
    change = f"echo changed > {HOME}/etc/conf"
    said = back_up(repository, f"{HOME}/hollow", "--paths-from", place, "-s", change)
    paths = {f"{HOME}/etc", f"{HOME}/docs/letter.txt", f"{HOME}/hollow", f"{TOP}/src"}
    assert set(sources(repository)) == paths
    assert "4 of 4 paths found in the backup" in said
    out = repository.machine.path(restored(repository, f"{HOME}/etc"))
    assert (out / "conf").read_text() == "conf\n"


def test_a_list_that_names_what_is_not_there(lived_in: Machine, repository: Repository):
    place = write(lived_in, f"{HOME}/etc", f"{HOME}/gone", "kta/nowhere")
    said = back_up(repository, "--paths-from", place, status=NOINPUT)
    assert f"{place}, line 2: the path '{HOME}/gone' does not exist" in said
    place = write(lived_in, "kta/nowhere")
    said = back_up(repository, "-n", "--paths-from", place, status=NOINPUT)
    assert f"{place}, line 1: no dataset is called 'kta/nowhere'" in said


def test_a_list_that_others_can_write_to_is_told_by_check(
    lived_in: Machine, repository: Repository
):
    place = write(lived_in, f"{HOME}/etc")
    shell(lived_in, f"chmod 644 {place}")
    back_up(repository, "--paths-from", place)
    check = [f"/usr/local/sbin/{program(repository)}", "--check"]
    assert place not in lived_in.run(check).stdout
    shell(lived_in, f"chmod 666 {place}")
    assert f"other users can write the list {place}, and so say" in lived_in.run(check).stdout


def test_a_list_that_nobody_writes_is_not_waited_for(lived_in: Machine, repository: Repository):
    shell(lived_in, f"mkfifo {TOP}/fifo")
    said = back_up(repository, "--paths-from", f"{TOP}/fifo", status=CONFIG)
    assert f"the list {TOP}/fifo is not a plain file; for standard input say -" in said
    assert said.count("\n") == 1


def test_where_a_link_in_a_list_leads_is_told_by_its_line(
    lived_in: Machine, repository: Repository
):
    shell(lived_in, f"ln -s /dev {TOP}/conf")
    place = write(lived_in, f"{HOME}/etc", f"{TOP}/conf")
    said = back_up(repository, "--paths-from", place, status=NOINPUT)
    assert f"{place}, line 2: '/dev' is not on ZFS" in said


@pytest.mark.restic
def test_what_a_pattern_matched_in_a_dataset_that_is_away(lived_in: Machine, restic: Repository):
    """Nothing matches it any more; the night after that is as incomplete as the first one."""
    shell(lived_in, "zfs create kta/data; zfs create kta/data/ben")
    for each in ("data/ann", "data/ben/docs", "data/docs"):
        lived_in.path(f"{TOP}/{each}").mkdir()
    place = write(lived_in, f"{TOP}/data/*/docs", f"{TOP}/data/docs")
    back_up(restic, "-o", f"--files-from {place}")
    shell(lived_in, "zfs unmount kta/data/ben")
    for _ in range(2):
        said = back_up(restic, "-o", f"--files-from {place}", status=66)
        assert "kta/data/ben was in the last successful backup, as a list had patterns" in said
    said = back_up(restic, "-o", f"--files-from {place}", "-x", "kta/data/ben")
    assert "the backup succeeded" in said
    shell(lived_in, "zfs mount kta/data/ben")
    back_up(restic, "-o", f"--files-from {place}")


@pytest.mark.restic
@pytest.mark.parametrize("joined", [" ", "="])
def test_restics_own_lists(lived_in: Machine, restic: Repository, joined: str):
    """Their paths are chosen, frozen and proved as if they were arguments."""
    place = write(lived_in, "# comment", f"  {HOME}/e*c", f"{HOME}/none*")
    raw = f"{TOP}/raw"
    lived_in.path(raw).write_bytes(f"{HOME}/docs\0".encode())
    change = f"echo changed > {HOME}/etc/conf"
    options = f"--files-from{joined}{place} --tag mine --files-from-raw{joined}{raw}"
    said = back_up(restic, "-o", options, "-s", change)
    assert set(sources(restic)) == {f"{HOME}/etc", f"{HOME}/docs"}
    assert "2 of 2 paths found in the backup" in said
    assert f"{place}, line 3: nothing matches the pattern '{HOME}/none*'" in said
    assert "mine" in json.loads(restic("snapshots", "--json"))[0]["tags"]
    out = lived_in.path(restored(restic, f"{HOME}/etc"))
    assert (out / "conf").read_text() == "conf\n"


@pytest.mark.restic
def test_links_in_restics_lists_are_kept_as_links(lived_in: Machine, restic: Repository):
    shell(lived_in, f"mkdir {HOME}/w; cd {HOME}/w; echo a > a; ln -s a link; ln -s ../etc dir; "
                    "ln -s nowhere dangling; mkfifo fifo")  # fmt: skip
    place = write(lived_in, f"{HOME}/w/*")
    said = back_up(restic, "-o", f"--files-from {place}")
    names = ("a", "link", "dir", "dangling")
    assert set(sources(restic)) == {f"{HOME}/w/{name}" for name in names}
    assert "4 of 4 paths found in the backup" in said
    assert f"{place}, line 1: '{HOME}/w/fifo' is no file, and is left out" in said
    out = lived_in.path(restored(restic, f"{HOME}/w"))
    assert [(out / name).is_symlink() for name in names] == [False, True, True, True]


@pytest.mark.restic
def test_a_list_in_the_command(lived_in: Machine, restic: Repository):
    command = f"restic backup --files-from-verbatim {write(lived_in, f'{HOME}/etc')} --quiet"
    back_up(restic, "-c", command)
    assert set(sources(restic)) == {f"{HOME}/etc"}


@pytest.mark.restic
def test_a_list_in_a_wrapper_is_refused(lived_in: Machine, restic: Repository):
    place = write(lived_in, f"{HOME}/etc")
    wrapper = lived_in.path(f"{TOP}/wrapper")
    wrapper.write_text(f'#!/bin/sh\nexec restic backup --files-from {place} "$@"\n')
    wrapper.chmod(0o755)
    said = back_up(restic, "-c", f"{TOP}/wrapper", f"{HOME}/docs", status=CONFIG)
    assert f"{TOP}/wrapper calls restic with --files-from" in said
    assert json.loads(restic("snapshots", "--json")) == []


# What others are told


def test_what_is_new(lived_in: Machine, repository: Repository):
    back_up(repository, f"{HOME}/etc", f"{HOME}/docs")
    said = back_up(repository, f"{HOME}/etc", f"{HOME}/hollow")
    assert "captured  kta/home" in said
    assert f"  {HOME}/hollow" in said
    assert f"gone      {HOME}/docs" in said


def test_status_and_check(lived_in: Machine, repository: Repository):
    back_up(repository, "-r", f"{HOME}/etc", "kta/src", "kta/below")
    status = lived_in.run([f"/usr/local/sbin/{program(repository)}", "--status", "--full"])
    assert f"{HOME}, only {HOME}/etc" in status.stdout
    check = lived_in.run(["/usr/local/sbin/kopiatomic", "--check"])
    (line,) = [line for line in check.stdout.splitlines() if "in no job" in line]
    assert "kta/home/ben" in line
    assert "kta/home," not in line
    assert "kta/src" not in line
    (line,) = [line for line in check.stdout.splitlines() if "only directories" in line]
    assert line == "of 1 dataset only directories are in a job: kta/home"
    lived_in.run(["zfs", "set", "org.kopiatomic:backup=off", "kta/home"], check=True)
    check = lived_in.run(["/usr/local/sbin/kopiatomic", "--check"])
    assert "only directories" not in check.stdout
    said = back_up(repository, f"{HOME}/etc")
    assert f"kta/home  {HOME}, only {HOME}/etc" in said


def test_a_drill_finds_the_directories(lived_in: Machine, repository: Repository):
    back_up(repository, "-r", f"{HOME}/docs", f"{HOME}/etc")
    argv = [f"/usr/local/sbin/{program(repository)}", "--drill", "5", "--json"]
    drilled = lived_in.run(argv, env=repository.environment)
    assert drilled.returncode == 0, drilled.stdout + drilled.stderr
    held = json.loads(drilled.stdout)["mountpoints"]
    assert held == [f"{HOME}/docs", f"{HOME}/docs/below", f"{HOME}/etc"]


def test_names_that_are_not_utf_8(lived_in: Machine, repository: Repository):
    """The clients tell such a name with another sign for each byte that is no text."""
    shell(lived_in, f"""
        cd {HOME}; for each in 375 376 377; do
            mkdir "$(printf "d\\\\$each")"; echo $each > "$(printf "d\\\\$each/file")"
            echo $each > "$(printf "f\\\\$each")"
        done
    """)  # fmt: skip
    names = ["d\udcfe", "d\udcff", "f\udcfe", "f\udcff"]
    list_of = lived_in.path(f"{TOP}/src/list")
    list_of.write_bytes(b"".join(f"{HOME}/{n}\n".encode("utf-8", "surrogateescape") for n in names))
    # The mail is without what the client prints, which would be these bytes.
    words = ("--periodic", "--paths-from", f"{TOP}/src/list")
    argv = [f"/usr/local/sbin/{program(repository)}", *words]
    lived_in.run(argv, env=repository.environment)
    assert entry(repository)["outcome"] == "success"
    assert entry(repository)["found_in_backup"] == [4, 4]
    assert entry(repository)["captured"][0]["directories"] == [f"{HOME}/{n}" for n in names]
    result = lived_in.run(
        [f"/usr/local/sbin/{program(repository)}", "--drill", "2"], env=repository.environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    if repository.client == "restic":
        # One of them is kept out, and that is known although another has its name for restic.
        pattern = HOME + "/f\udcff"
        said = back_up(repository, *words, "-o", f"--exclude '{pattern}'", status=3)
        assert "3 of 4 paths found in the backup" in said
        drill = [f"/usr/local/sbin/{program(repository)}", "--drill", "2"]
        result = lived_in.run(drill, env=repository.environment)
        assert result.returncode == 1, result.stdout
        assert "1 of the 2 that are called " in result.stdout


def test_a_path_among_the_clients_options_is_refused(lived_in: Machine, repository: Repository):
    """It would be backed up live."""
    said = back_up(repository, f"{HOME}/etc", "-o", f"{HOME}/docs", status=CONFIG)
    assert f"the path '{HOME}/docs', which would be backed up live" in said


def test_a_dry_run_shows_it(lived_in: Machine, repository: Repository):
    said = back_up(repository, "-n", f"{HOME}/etc")
    assert f"kta/home  {HOME}, only {HOME}/etc" in said
    plan = json.loads(back_up(repository, "-n", "--json", f"{HOME}/etc"))
    assert plan["paths"] == [f"{HOME}/etc"]
    assert plan["captured"][0]["directories"] == [f"{HOME}/etc"]


@pytest.mark.restic
def test_an_exclude_that_keeps_one_out_is_found(lived_in: Machine, restic: Repository):
    words = (f"{HOME}/etc", f"{HOME}/docs", "-o", f"--exclude {HOME}/etc/*")
    said = back_up(restic, *words, status=INCOMPLETE)
    assert f"kta/home ({HOME}/etc) is without its files in the backup" in said
