"""The layout comes along, and a machine is made anew from it, short of booting."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import layouts
from support import tree
from support.machine import Machine, Sandbox, shell

from host.conftest import POOL, TOP, Repository, clean

PROGRAMS = {"restic": "restomic", "kopia": "kopiatomic"}
ALTROOT = "/kt/anew"

# As the manual has it: the commands that stand in a layout, by what base has.
BY_SED = r"""
sed -n '/^ "commands": /,/^ ]/s/^  "\(.*\)",*$/\1/p' {0}/layout.json |
    sed 's/\\\(["\\]\)/\1/g' > {0}/layout.sh
"""
LATER = "sed -n 's/^#after: //p' {0}/layout.sh | sh -e"


@pytest.fixture(autouse=True)
def with_layouts(request: pytest.FixtureRequest) -> None:
    """Let runs save the layout, as they do."""
    if "machine" in request.fixturenames:
        request.getfixturevalue("machine").layouts = True


@pytest.fixture(params=[pytest.param(name, marks=getattr(pytest.mark, name)) for name in PROGRAMS])
def repository(request: pytest.FixtureRequest) -> Repository:
    return request.getfixturevalue(request.param)


def back_up(made: Repository, *words: str, status: int = 0, **variables: str) -> str:
    program = f"/usr/local/sbin/{PROGRAMS[made.client]}"
    environment = {**made.environment, **variables}
    result = made.machine.run([program, *words], env=environment, timeout=300)
    assert result.returncode == status, result.stdout + result.stderr
    clean(made.machine)
    return result.stdout + result.stderr


def saved(made: Repository) -> list[str]:
    """Return the names of the layouts in a repository."""
    if made.client == "restic":
        listed = json.loads(made("snapshots", "--json"))
        return [each["paths"][0] for each in listed if each["paths"][0].startswith("/kopiatomic/")]
    listed = json.loads(made("snapshot", "list", "--all", "--json"))
    paths = [each["source"]["path"] for each in listed]
    return [path for path in paths if path.startswith("/kopiatomic/")]


def dump(made: Repository, job: str = "default") -> str:
    """Get the last layout of a job out of a repository by hand, as the manual has it."""
    name = f"/kopiatomic/layout/{job}.json"
    if made.client == "restic":
        return made("dump", "--tag", f"restomic:{job}:layout", "latest", name)
    shell(made.machine, f"mkdir -p {made.directory}/out")
    made("restore", name, f"{made.directory}/out")
    return made.machine.path(f"{made.directory}/out/{job}.json").read_text()


def without_streams(made: Repository, instead: str) -> str:
    """Return the command of a wrapper that does something else than to store a stream."""
    wrapper = made.machine.path(f"{made.directory}/wrapper")
    wrapper.write_text(
        f'#!/bin/sh\ncase "$*" in *--stdin*) {instead};; esac\nexec {made.client} "$@"\n'
    )
    wrapper.chmod(0o755)
    verb = {"restic": "backup", "kopia": "snapshot create"}[made.client]
    return f"{made.directory}/wrapper {verb}"


def forget_looks(machine: Machine) -> None:
    """Let the last look at the layout be of yesterday."""
    for path in machine.path("/var/db/kopiatomic").glob("*.history"):
        text = re.sub(r'"looked": [0-9.]+', '"looked": 1000.0', path.read_text())
        path.write_text(text)


class TestSaving:
    def test_once_and_as_a_backup_of_its_own(self, filled: Machine, repository: Repository):
        said = back_up(repository, "kta/src")
        assert "the layout of the pools is saved as " in said
        assert saved(repository) == ["/kopiatomic/layout/default.json"]
        assert "layout" not in back_up(repository, "kta/src")
        forget_looks(filled)
        assert "layout" not in back_up(repository, "kta/src")
        assert len(saved(repository)) == 1

    def test_again_when_it_has_changed(self, filled: Machine, repository: Repository):
        back_up(repository, "kta/src")
        shell(filled, f"zfs set quota=67108864 {POOL}/src")
        forget_looks(filled)
        said = back_up(repository, "kta/src")
        assert "the layout of the pools has changed and is saved as " in said
        held = json.loads(dump(repository))
        (source,) = [each for each in held["datasets"] if each["name"] == f"{POOL}/src"]
        assert source["properties"] == {"quota": "67108864"}

    @pytest.mark.restic
    def test_again_where_the_job_is_led_to_another_repository(
        self, filled: Machine, restic: Repository
    ):
        back_up(restic, "kta/src")
        other = {"RESTIC_REPOSITORY": f"{restic.directory}/other"}
        result = filled.run(["restic", "init"], env={**restic.environment, **other})
        assert result.returncode == 0, result.stderr
        assert "the layout of the pools is saved as " in back_up(restic, "kta/src", **other)
        assert "layout" not in back_up(restic, "kta/src", **other)

    def test_a_mark_on_datasets_takes_nothing_out_of_it(self, filled: Machine, repository):
        shell(filled, f"zfs set org.kopiatomic:run=x {POOL}")
        try:
            said = back_up(repository, "kta/src")
        finally:
            shell(filled, f"zfs inherit org.kopiatomic:run {POOL}")
        assert "is saved as" in said
        assert "internal error" not in said
        names = {each["name"] for each in json.loads(dump(repository))["datasets"]}
        assert {POOL, f"{POOL}/src", f"{POOL}/home/ben"} <= names

    def test_no_secret_gets_into_it(self, filled: Machine, repository: Repository):
        secret = "correct horse"
        assert secret in repository.environment.values()
        shell(filled, f"zfs set org.x:note='it is {secret}' {POOL}/src")
        shell(filled, f"zpool set comment='TOKEN=geheim' {POOL}")
        try:
            said = back_up(repository, "kta/src")
        finally:
            shell(filled, f"zpool set comment= {POOL}")
        assert f"the comment of the pool {POOL}, which may hold a secret" in said
        text = dump(repository)
        assert secret not in text
        assert "geheim" not in text
        assert "org.x:note" in text

    def test_it_holds_the_pools_that_the_job_captures(self, filled: Machine, repository):
        filled.make_pool("ktb")
        back_up(repository, "kta/src")
        assert [each["name"] for each in json.loads(dump(repository))["pools"]] == ["kta"]

    def test_of_each_job_by_its_name(self, filled: Machine, repository: Repository):
        back_up(repository, "-j", "home", "kta/src")
        assert saved(repository) == ["/kopiatomic/layout/home.json"]

    def test_not_without_being_asked(self, filled: Machine, repository: Repository):
        said = back_up(repository, "--no-layout", "kta/src")
        assert "layout" not in said
        assert saved(repository) == []

    def test_not_where_the_files_are_not_in_a_backup(self, filled: Machine, repository: Repository):
        program = f"/usr/local/sbin/{PROGRAMS[repository.client]}"
        key = "RESTIC_PASSWORD" if repository.client == "restic" else "KOPIA_CONFIG_PATH"
        environment = {**repository.environment, key: "/nowhere"}
        result = filled.run([program, "kta/src"], env=environment)
        assert result.returncode != 0
        assert "layout" not in result.stdout
        assert saved(repository) == []

    def test_a_client_that_cannot_is_a_note(self, filled: Machine, repository: Repository):
        command = without_streams(repository, "echo no room >&2; exit 5")
        said = back_up(repository, "-c", command, "kta/src")
        assert "the layout of the pools was not saved: exit status 5, no room" in said
        assert "the backup succeeded" in said
        assert "the layout of the pools is saved" in back_up(repository, "kta/src")

    def test_what_is_not_in_the_repository_is_saved_again(self, filled: Machine, repository):
        """A wrapper may end well and have saved nothing."""
        words = ("-c", without_streams(repository, "exec cat >/dev/null"), "kta/src")
        for _ in range(2):
            said = back_up(repository, *words)
            assert "the layout of the pools was not saved: " in said
        assert "the layout of the pools is saved" in back_up(repository, "kta/src")
        assert saved(repository) == ["/kopiatomic/layout/default.json"]

    @pytest.mark.restic
    def test_the_latest_backup_is_the_one_with_the_files(self, filled: Machine, restic: Repository):
        back_up(restic, "kta/src")
        assert restic("ls", "latest").splitlines()[-1] == f"{TOP}/src/main.c"

    @pytest.mark.restic
    def test_forgetting_keeps_both(self, filled: Machine, restic: Repository):
        back_up(restic, "kta/src")
        back_up(restic, "kta/src")
        result = filled.run(
            ["/usr/local/sbin/restomic", "--upkeep", "--forget", "--keep-last 1", "--prune"],
            env=restic.environment,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        paths = [each["paths"] for each in json.loads(restic("snapshots", "--json"))]
        assert sorted(paths) == [["/kopiatomic/layout/default.json"], [f"{TOP}/src"]]

    def test_a_drill_is_about_the_files(self, filled: Machine, repository: Repository):
        back_up(repository, "kta/src")
        program = f"/usr/local/sbin/{PROGRAMS[repository.client]}"
        result = filled.run([program, "--drill", "3"], env=repository.environment)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "layout" not in result.stdout


def properties(machine: Machine) -> str:
    """Return what is set on the datasets of the pool, without what makes no difference."""
    words = ["-Hp", "-r", "-t", "filesystem,volume", "-s", "local,received"]
    said = shell(machine, f"zfs get {' '.join(words)} -o name,property,value all {POOL}").stdout
    lines = [line for line in said.splitlines() if not line.endswith("\tcanmount\ton")]
    return "\n".join(sorted(lines))


MUCH = f"""
zfs set compression=gzip {POOL}/home
zfs set quota=209715200 atime=off {POOL}/src
zfs create -o mountpoint={TOP}/deep/down -o recordsize=16384 -o org.test:note="it's mine" {POOL}/up
zfs create -o canmount=noauto -o mountpoint={TOP}/na {POOL}/na
zfs create -o canmount=off {POOL}/home/none
zfs create -o mountpoint=legacy {POOL}/legacy
zfs create -s -V 16777216 {POOL}/vol
mkdir -p /kt/legacy
mount -t zfs {POOL}/legacy /kt/legacy
zfs mount {POOL}/na
echo up > {TOP}/deep/down/up
echo legacy > /kt/legacy/file
echo na > {TOP}/na/file
zfs set readonly=on {POOL}/up
"""


def restore(made: Repository, top: str) -> None:
    """Restore all files below the altroot, by the commands that the manual has."""
    if made.client == "restic":
        made("restore", "latest", "--tag", "restomic:default", "--target", top)
        return
    listed = json.loads(made("snapshot", "list", "--json"))
    paths = {each["source"]["path"] for each in listed}
    for path in sorted(each for each in paths if not each.startswith("/kopiatomic/")):
        made("restore", path, f"{top}{path}")


def test_a_pool_is_made_anew(filled: Machine, repository: Repository):
    shell(filled, MUCH)
    home = filled.path(f"{TOP}/home")
    is_restic = repository.client == "restic"
    expected = tree.picture(home, symlink_times=False) if is_restic else names(home)
    before = properties(filled)
    back_up(repository, "-r", POOL)
    text = dump(repository)
    place = repository.directory
    filled.path(f"{place}/layout.json").write_text(text)
    (device,) = json.loads(text)["pools"][0]["groups"][0]["devices"]
    # The pool is lost, and so is what it was on.
    shell(filled, f"umount /kt/legacy; zpool destroy {POOL}")
    shell(filled, BY_SED.format(place))
    printed = filled.run(["/usr/local/sbin/restomic", "--layout", f"{place}/layout.json"])
    assert printed.stdout == filled.path(f"{place}/layout.sh").read_text()
    shell(filled, f"mkdir -p {ALTROOT}; ALTROOT={ALTROOT} sh {place}/layout.sh")
    restore(repository, ALTROOT)
    shell(filled, LATER.format(place))
    anew = filled.path(f"{ALTROOT}{TOP}/home")
    assert (tree.picture(anew, symlink_times=False) if is_restic else names(anew)) == expected
    for path, content in (
        (f"{TOP}/deep/down/up", "up\n"), ("/kt/legacy/file", "legacy\n"), (f"{TOP}/na/file", "na\n")
    ):  # fmt: skip
        assert filled.path(f"{ALTROOT}{path}").read_text() == content
    # As after the boot that follows.
    shell(filled, f"zpool export {POOL}; zpool import -d {Path(device).parent} {POOL}")
    shell(filled, f"zfs mount {POOL}/na; mount -t zfs {POOL}/legacy /kt/legacy")
    assert properties(filled) == before
    assert filled.path(f"{TOP}/src/main.c").exists()
    forget_looks(filled)
    assert "layout" not in back_up(repository, "-r", POOL)
    shell(filled, "umount /kt/legacy; rmdir /kt/legacy")


def names(top: Path) -> dict[str, bytes | None]:
    """Return the files below a directory with what is in them: what any client restores."""
    return {
        str(each.relative_to(top)): each.read_bytes() if each.is_file() else None
        for each in sorted(top.rglob("*"))
        if each.is_dir() or each.is_file()
    }


# A whole machine, onto an empty disk of another


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[Sandbox]:
    """The machine that will be lost, as FreeBSD's installer lays it out."""
    made = Sandbox(tmp_path / "lost", root_dataset="zroot/ROOT/default")
    try:
        layouts.installer(made.host)
        made.layouts = True
        shell(
            made,
            """
            zpool create -m /backup backup /dev/ada1
            zfs create zroot/home/ann; echo mine > /home/ann/file
            zfs create -o encryption=on -o keyformat=passphrase -o mountpoint=/safe zroot/safe
            zfs create -o mountpoint=/ -o canmount=noauto zroot/ROOT/old
            echo 'hostname="lost"' > /etc/rc.conf
            """,
        )
        yield made
    finally:
        made.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Sandbox]:
    """A machine with empty disks, as the installation medium has booted it."""
    made = Sandbox(tmp_path / "empty")
    try:
        for name in ("pmbr", "gptzfsboot", "loader.efi"):
            path = made.path(f"/boot/{name}")
            path.parent.mkdir(exist_ok=True)
            path.write_text(name)
        yield made
    finally:
        made.close()


@pytest.mark.linux(reason="no test owns the disks of a real machine")
@pytest.mark.parametrize(
    "client", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in PROGRAMS]
)
def test_from_an_empty_disk(lost: Sandbox, empty: Sandbox, client: str):
    environment = {
        "RESTIC_REPOSITORY": "/backup/restic", "RESTIC_PASSWORD": "correct horse",
        "KOPIA_PASSWORD": "correct horse", "KOPIA_CHECK_FOR_UPDATES": "false",
    }  # fmt: skip
    made = Repository(lost, client, "/backup", environment)
    if client == "restic":
        made("init")
    else:
        made("repository", "create", "filesystem", "--path", "/backup/kopia")
    excludes = ["-o", "--exclude=/compat/linux/*"] if client == "restic" else []
    if client == "kopia":
        made("policy", "set", "/", "--add-ignore=/compat/linux/*")
    back_up(made, "-a", "-x", "backup", "--live", "/backup", "--live", "/compat/linux", *excludes)
    picture = names(lost.path("/home"))
    shutil.copytree(lost.path("/backup") / client, empty.path("/backup") / client)

    there = Repository(empty, client, "/backup", environment)
    if client == "kopia":
        host = lost.run(["hostname"]).stdout.strip().partition(".")[0].lower()
        there(
            "repository", "connect", "filesystem", "--path", "/backup/kopia",
            "--override-hostname", host, "--override-username", "root",
        )  # fmt: skip
    empty.path("/tmp/layout.json").write_text(dump(there))
    shell(empty, BY_SED.format("/tmp"))
    shell(empty, "sh /tmp/layout.sh")
    restore(there, "/mnt")
    shell(empty, LATER.format("/tmp"))

    table = lost.run(["gpart", "backup", "ada0"]).stdout
    assert empty.run(["gpart", "backup", "ada0"]).stdout == table
    assert empty.run(["zpool", "get", "-H", "-o", "value", "bootfs", "zroot"]).stdout == (
        "zroot/ROOT/default\n"
    )
    mounted = shell(empty, "zfs list -Hp -o name,mounted -r zroot").stdout
    # The key of the dataset that was encrypted is a new one; the other environment is empty.
    assert "zroot/safe\tyes" in mounted
    assert "zroot/ROOT/old\tno" in mounted
    assert names(empty.path("/mnt/home")) == picture
    assert empty.path("/mnt/etc/rc.conf").read_text() == 'hostname="lost"\n'
    # Nothing is done twice: the disk has partitions now.
    again = empty.run(["sh", "/tmp/layout.sh"])
    assert again.returncode != 0
    assert again.stderr == "gpart: geom 'ada0': File exists\n"
    shell(empty, "cd /; zpool export zroot")
