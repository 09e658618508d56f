"""The proof of a backup, by the real clients, in directories of the test's own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import clients

from kopiatomic import state
from kopiatomic.clients import client_of, make_ready
from kopiatomic.clients.base import Task
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.clients.records import Missing, Proof, Request, Wishes
from kopiatomic.job import Job
from kopiatomic.system.command import Door, encode
from kopiatomic.system.process import Signals

MOMENT = 1_700_000_000.0

# Whatever may stand in the name of a mount point.
NAMES = [
    "sp ace", "new\nline", "gl*b?[a]", "quote\"'\\back", "tab\t", "$(id)", "ümläut", "\ufffd",
    "\\ufffd", "b\udcff", "b\udcfe", "%s", "-rf", "#x", "a" * 200,
]  # fmt: skip


@dataclass
class Setup:
    """A client, its repository, and a tree to back up."""

    program: str
    path: Path
    environment: dict[str, str]
    top: Path
    last: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.name

    def task(self, *options: str, command: Sequence[str] = ()) -> Task:
        """A job made ready; ``command`` stands for the client itself."""
        client = client_of(self.program)
        words = tuple(command) or (str(self.path), *client.subcommand)
        job = Job(self.program, command=words, options=options, environment=self.environment)
        return make_ready(job, Door(), {})

    def __call__(self, *words: str, check: bool = True) -> str:
        """Run the client by hand."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            [self.path, *words], env=environment, capture_output=True, text=True
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def backup(
        self, task: Task, *paths: object, mounts: Sequence[Path] = (), captured: bool = True,
        moment: float | None = MOMENT, parent: str | None = None, status: int = 0,
    ) -> Callable[..., tuple[bool, Proof]]:  # fmt: skip
        """Back up and return what proves it; a file called hello is in each of the mounts."""
        client, since = task.client, time.time()
        zone = client.zone(task.environment, task.script)
        request = Request(
            tuple(map(str, paths)), moment=moment, parent=parent, captured=captured, zone=zone
        )
        words = list(map(encode, client.backup_command(task.job, request)))
        if mounts:
            words = [*map(encode, mounting(mounts)), *words]
        ran = subprocess.run(words, env=dict(task.environment), capture_output=True)
        assert ran.returncode == status, ran.stderr
        output, messages = (ran.stdout, ran.stderr) if captured else (b"", b"")
        figures = client.figures(output, messages)
        self.last = {"output": ran.stdout, "messages": ran.stderr, "figures": figures}

        def prove(points: Mapping[object, bool]) -> tuple[bool, Proof]:
            named = {str(point): full for point, full in points.items()}
            itself = client.proves_itself(task.job, request, figures, output, named)
            reader = Reader(
                Door(), client.base_command(task.job), task.environment, Signals(), 60.0
            )
            proof = client.prove(
                reader, task.job, request, figures, named, since, task.script
            )
            return itself, proof

        return prove

    def names(self) -> set[str]:
        """The ids of all backups there are."""
        if self.program == "restomic":
            return set(_fields(self("snapshots", "--json"), "id"))
        return set(_fields(self("manifest", "list", "--json", "--filter", "type:snapshot"), "id"))


def mounting(mounts: Sequence[Path]) -> list[str]:
    """Return a command that runs another one while something else is mounted at some paths."""
    quoted = [shlex.quote(str(each)) for each in mounts]
    if sys.platform.startswith("linux"):
        lines = [f"mount -t tmpfs t {each} && echo > {each}/hello" for each in quoted]
        return ["unshare", "-m", "sh", "-c", " && ".join([*lines, 'exec "$@"']), "sh"]
    source = shlex.quote(str(mounts[0].parent.parent / "elsewhere"))
    undo = "; ".join(f"umount {each}" for each in reversed(quoted))
    lines = [f"mkdir -p {source} && echo > {source}/hello", f"trap '{undo}' EXIT"]
    lines += [f"mount -t nullfs {source} {each}" for each in quoted]
    return ["sh", "-ec", "\n".join([*lines, '"$@"']), "sh"]


def _fields(text: str, name: str) -> list[str]:
    return [each[name] for each in json.loads(text)]


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a file and some directories in it."""
    (tmp_path / "state").mkdir(mode=0o700)
    monkeypatch.setattr(state, "STATE_DIRECTORY", str(tmp_path / "state"))
    directory = tmp_path / "home"
    directory.mkdir()
    (directory / "file").write_text("in home")
    for name in ("ann", "ben", "ben/sub", "hollow"):
        (directory / name).mkdir()
    (directory / "ann/file").write_text("ann's")
    (directory / "ben/file").write_text("ben's")
    return directory


@pytest.fixture
def restic(top: Path) -> Setup:
    """A restic repository."""
    beside = top.parent
    environment = {
        "RESTIC_REPOSITORY": f"{beside}/restic", "RESTIC_PASSWORD": "correct horse",
        "RESTIC_CACHE_DIR": f"{beside}/cache", "HOME": str(beside), "PATH": os.environ["PATH"],
    }  # fmt: skip
    path = clients.restic()
    assert path is not None
    setup = Setup("restomic", path, environment, top)
    setup("init")
    return setup


@pytest.fixture
def kopia(top: Path) -> Setup:
    """A kopia repository, connected."""
    beside = top.parent
    environment = {
        "KOPIA_PASSWORD": "correct horse", "KOPIA_CONFIG_PATH": f"{beside}/kopia.config",
        "KOPIA_CACHE_DIRECTORY": f"{beside}/cache", "KOPIA_LOG_DIR": f"{beside}/log",
        "KOPIA_CHECK_FOR_UPDATES": "false", "HOME": str(beside), "PATH": os.environ["PATH"],
    }  # fmt: skip
    path = clients.kopia()
    assert path is not None
    setup = Setup("kopiatomic", path, environment, top)
    setup("repository", "create", "filesystem", "--path", f"{beside}/kopia")
    return setup


@pytest.fixture(params=[pytest.param("restic", marks=pytest.mark.restic),
                        pytest.param("kopia", marks=pytest.mark.kopia)])  # fmt: skip
def setup(request: pytest.FixtureRequest) -> Setup:
    """Each of the clients in turn."""
    found: Setup = request.getfixturevalue(request.param)
    return found


def wrapper(setup: Setup, *lines: str) -> list[str]:
    """Write a wrapper that ends in a call of the client, and return how it is called."""
    path = setup.top.parent / f"my-{setup.name}"
    path.write_text("\n".join(["#!/bin/sh", *lines, f'{setup.path} "$@"', ""]))
    path.chmod(0o755)
    return [str(path), *client_of(setup.program).subcommand]


def test_what_is_there_is_found(setup: Setup):
    top = setup.top
    prove = setup.backup(setup.task(), top)
    points = {top: True, top / "ann": True, top / "ben": True, top / "hollow": False}
    itself, proof = prove(points)
    assert not itself
    assert proof.found == tuple(map(str, points))
    assert proof.missing == ()
    assert set(proof.backups) == setup.names()
    assert proof.moment == MOMENT
    assert proof.stands_in is None


def test_what_is_not_there_is_missing(setup: Setup):
    top = setup.top
    prove = setup.backup(setup.task(), top / "ben")
    _, proof = prove({top: True, top / "ben": True, top / "ben/sub": True, top / "gone": False})
    assert proof.found == (f"{top}/ben",)
    assert proof.missing == (
        Missing(str(top)), Missing(f"{top}/ben/sub", True), Missing(f"{top}/gone"),
    )  # fmt: skip


def test_one_path_proves_itself(setup: Setup):
    itself, proof = setup.backup(setup.task(), setup.top)({setup.top: True})
    assert itself
    assert proof.found == (str(setup.top),)


def test_nothing_in_it_proves_nothing(setup: Setup):
    hollow = setup.top / "hollow"
    prove = setup.backup(setup.task(), hollow)
    assert not prove({hollow: True})[0]
    assert prove({hollow: True})[1].missing == (Missing(str(hollow), True),)
    itself, proof = prove({hollow: False})
    assert itself
    assert proof.found == (str(hollow),)


def test_several_paths(setup: Setup):
    top = setup.top
    points = {top / "ann": True, top / "ben": True, top / "hollow": False}
    itself, proof = setup.backup(setup.task(), *points)(points)
    assert itself == (setup.name == "kopia")
    assert proof.found == tuple(map(str, points))


def test_hostile_names(setup: Setup):
    top = setup.top
    points = {}
    for name in NAMES:
        os.mkdir(encode(f"{top}/{name}"))
        points[f"{top}/{name}"] = False
        os.mkdir(encode(f"{top}/ben/{name}"))
        Path(os.fsdecode(encode(f"{top}/ben/{name}/x"))).write_text(name if name.isascii() else "")
        points[f"{top}/ben/{name}"] = True
    _, proof = setup.backup(setup.task(), top)(points)
    assert proof.missing == ()
    assert proof.found == tuple(points)


def test_a_name_that_is_like_another(setup: Setup):
    """Bytes that are not UTF-8 look alike in the answers: what lacks is not taken for there."""
    top = setup.top
    os.mkdir(encode(f"{top}/b\udcff"))
    prove = setup.backup(setup.task(), top)
    points = {f"{top}/\ufffd": False, f"{top}/b\ufffd": False, f"{top}/b\\ufffd": False}
    _, proof = prove({**points, f"{top}/b\udcff": False})
    assert proof.found == (f"{top}/b\udcff",)


def test_output_that_was_not_seen(setup: Setup):
    """On a terminal, or with --quiet, the backup is found by when it was made."""
    top = setup.top
    setup.backup(setup.task(), top)
    before = setup.names()
    (top / "new").write_text("another")
    time.sleep(1.1)
    for moment, options in ((MOMENT + 9, ()), (MOMENT + 99, own_time(setup))):
        _, proof = setup.backup(setup.task(*options), top, captured=False, moment=moment)(
            {top: True, top / "ben": True}
        )
        assert set(proof.backups) == setup.names() - before
        assert len(proof.backups) == 1
        assert proof.found == (str(top), f"{top}/ben")
        before = setup.names()
        time.sleep(1.1)


def own_time(setup: Setup) -> tuple[str, str]:
    """The option by which the user sets the time of a backup himself."""
    if setup.name == "restic":
        return "--time", "2001-02-03 04:05:06"
    return "--start-time", "2037-02-03 04:05:06 UTC"


def test_no_backup_at_all(setup: Setup):
    """A wrapper that does nothing and is content with that; an earlier backup is none of it."""
    setup.backup(setup.task(), setup.top)
    time.sleep(1.1)
    path = setup.top.parent / "nothing"
    path.write_text(f'#!/bin/sh\n[ "$1" = {client_of(setup.program).subcommand[0]} ] && '
                    f'[ "$2" != list ] && exit 0\nexec {setup.path} "$@"\n')  # fmt: skip
    path.chmod(0o755)
    task = setup.task(command=[str(path), *client_of(setup.program).subcommand])
    for captured in (True, False):
        itself, proof = setup.backup(task, setup.top, captured=captured)({setup.top: True})
        assert not itself
        assert proof.backups == ()
        assert proof.found == ()


def test_a_wrapper_that_says_something_first(setup: Setup):
    command = wrapper(setup, "echo this is my wrapper; echo '[1]'; echo '{x'; date")
    points = {setup.top: True, setup.top / "ben": True, setup.top / "gone": True}
    for captured in (True, False):
        _, proof = setup.backup(setup.task(command=command), setup.top, captured=captured)(points)
        assert proof.found == (str(setup.top), f"{setup.top}/ben")
        time.sleep(1.1)


def test_a_wrapper_that_backs_up_something_else(setup: Setup):
    path = setup.top.parent / "other"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = {client_of(setup.program).subcommand[0]} ] && '
        f'[ "$2" != list ] || exec {setup.path} "$@"\n'
        'for last; do :; done\n'
        f'set -- "$@" {setup.top}/ann\n'
        f'exec {setup.path} {" ".join(client_of(setup.program).subcommand)} {setup.top}/ann\n'
    )  # fmt: skip
    path.chmod(0o755)
    task = setup.task(command=[str(path), *client_of(setup.program).subcommand])
    _, proof = setup.backup(task, setup.top / "ben")({setup.top / "ben": True})
    assert len(proof.backups) == 1
    assert proof.missing == (Missing(f"{setup.top}/ben"),)


def test_the_time_limit(setup: Setup):
    path = setup.top.parent / "slow"
    path.write_text("#!/bin/sh\nsleep 100\n")
    path.chmod(0o755)
    reader = Reader(Door(), [str(path)], setup.environment, Signals(), 0.2)
    with pytest.raises(ClientFailed, match=r"did not answer within 0\.2 s"):
        reader.whole("ls")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_one_file_system(setup: Setup):
    """What is mounted below a path, nothing mounted there being in the backup."""
    top, ben = setup.top, setup.top / "ben"
    points = {top: True, ben: True}
    options = ("-vx",) if setup.name == "restic" else ()
    if setup.name == "kopia":
        setup("policy", "set", "--one-file-system=true", str(top))
    task = setup.task(*options)
    _, proof = setup.backup(task, top, mounts=[ben])(points)
    assert proof.found == (str(top),)
    assert proof.missing == (Missing(str(ben), setup.name == "restic"),)
    reason = task.client.likely_reason(task.job, task.script, proof.missing[0])
    assert "one-file-system" in reason
    if setup.name == "restic":
        # Given as paths of their own they are in it, and what is not in home itself is told.
        _, proof = setup.backup(task, top, ben, top / "hollow", mounts=[ben, top / "hollow"])(
            {**points, top / "hollow": True}
        )
        assert proof.missing == ()


@pytest.mark.restic
def test_excludes(restic: Setup):
    top = restic.top
    task = restic.task("--exclude", f"{top}/ben", "-e", f"{top}/ann/*", "--exclude=hollow")
    points = {top: True, top / "ben": True, top / "ann": True, top / "hollow": False}
    _, proof = restic.backup(task, top)(points)
    assert proof.found == (str(top),)
    assert proof.missing == (
        Missing(f"{top}/ben"), Missing(f"{top}/ann", True), Missing(f"{top}/hollow"),
    )  # fmt: skip
    patterns = (f"{top}/ben", f"{top}/ann/*", "hollow")
    for missing, pattern in zip(proof.missing, patterns, strict=True):
        reason = task.client.likely_reason(task.job, "", missing)
        assert f"the exclude '{pattern}'" in reason


@pytest.mark.restic
def test_a_path_is_no_proof_of_what_is_above_it(restic: Setup):
    """restic keeps the directories above its paths too, empty but for what leads to them."""
    top = restic.top
    task = restic.task("--exclude", f"{top}")
    prove = restic.backup(task, top, top / "ben")
    assert prove({top: True})[1].missing == (Missing(str(top), True),)
    assert prove({top.parent: True})[1].missing == (Missing(str(top.parent)),)
    prove = restic.backup(restic.task("--exclude", f"{top}/file", "--exclude", f"{top}/[ah]*"),
                          top, top / "ben")  # fmt: skip
    assert prove({top: True, top / "ben": True})[1].missing == (Missing(str(top), True),)


@pytest.mark.restic
def test_a_dry_run_is_no_backup(restic: Setup):
    restic.backup(restic.task(), restic.top)
    time.sleep(1.1)
    for words in (["--dry-run"], ["-vn"], ["--dry-run", "--json"], ["-n", "--skip-if-unchanged"]):
        for captured in (True, False):
            itself, proof = restic.backup(restic.task(*words), restic.top, captured=captured)(
                {restic.top: True}
            )
            assert not itself
            assert proof.backups == (), (words, captured)


@pytest.mark.restic
@pytest.mark.parametrize("words", [[], ["--json"], ["--quiet"]])
def test_an_earlier_snapshot_stands_in(restic: Setup, words: list[str]):
    # restic notes the directories above as well, and in /tmp there is always something new.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        home = Path(directory) / "home"
        shutil.copytree(restic.top, home)
        points = {home: True, home / "ben": True}
        task = restic.task("--skip-if-unchanged", *words)
        for trial in range(5):
            restic.backup(restic.task(), home)
            before = restic.names()
            time.sleep(1.1)
            itself, proof = restic.backup(task, home, moment=MOMENT + 60 - trial)(points)
            if restic.names() == before:
                break
        assert not itself
        assert (proof.backups, proof.stands_in) == ((proof.stands_in,), proof.backups[0])
        assert set(proof.backups) < before or set(proof.backups) == before
        assert proof.moment == MOMENT
        assert proof.missing == ()
        (home / "new").write_text("new")
        _, proof = restic.backup(task, home, moment=MOMENT + 120)(points)
        assert proof.stands_in is None
        assert proof.moment == MOMENT + 120


@pytest.mark.kopia
def test_an_earlier_backup_stands_in(kopia: Setup):
    kopia("policy", "set", "--ignore-identical-snapshots=true", str(kopia.top))
    kopia.backup(kopia.task(), kopia.top)
    (first,) = kopia.names()
    for captured in (True, False):
        time.sleep(1.1)
        itself, proof = kopia.backup(
            kopia.task(), kopia.top, moment=MOMENT + 60, captured=captured
        )({kopia.top: True, kopia.top / "ben": True})
        assert not itself
        assert (proof.backups, proof.stands_in) == ((first,), first)
        assert proof.missing == ()


@pytest.mark.restic
def test_json_and_quiet(restic: Setup):
    for words in (["--json"], ["--quiet"], ["--json", "--quiet"], ["-v", "-v"]):
        itself, proof = restic.backup(restic.task(*words), restic.top)({restic.top: True})
        assert itself == (words != ["--quiet"])
        assert len(proof.backups) == 1
        time.sleep(1.1)


@pytest.mark.kopia
def test_what_kopia_ignores(kopia: Setup):
    top = kopia.top
    (top / ".kopiaignore").write_text("/ben\n/ann/*\n")
    (top / "hollow/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    (top / "hollow/data").write_text("kept by nobody")
    points = {top: True, top / "ben": True, top / "ann": True}
    task = kopia.task()
    _, proof = kopia.backup(task, top)(points)
    assert proof.found == (str(top),)
    assert proof.missing == (Missing(f"{top}/ben"), Missing(f"{top}/ann", True))
    for missing in proof.missing:
        assert f"policy show {missing.point}" in task.client.likely_reason(task.job, "", missing)


@pytest.mark.kopia
def test_kopia_without_json(kopia: Setup):
    itself, proof = kopia.backup(kopia.task("--no-progress"), kopia.top)({kopia.top: True})
    assert not itself
    assert set(proof.backups) == kopia.names()
    assert proof.found == (str(kopia.top),)


def test_what_a_client_keeps(setup: Setup):
    """What it says that it keeps is in the backup, and nothing else."""
    for name in ("fifo", "socket", "device", "link"):
        (setup.top / name).mkdir()
    os.mkfifo(setup.top / "fifo/x")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(setup.top / "socket")
        listener.bind("x")
        os.chdir(here)
    os.symlink("nowhere", setup.top / "link/x")
    os.mknod(setup.top / "device/x", 0o20600, os.makedev(1, 3))
    client = client_of(setup.program)
    points = {
        setup.top / name: client.has_entries(str(setup.top / name))
        for name in ("fifo", "socket", "device", "link")
    }
    kept = {"restic": [True, False, True, True], "kopia": [False, False, False, True]}
    assert list(points.values()) == kept[setup.name]
    prove = setup.backup(setup.task(), setup.top)
    assert prove(points)[1].missing == ()
    all_of_them = prove(dict.fromkeys(points, True))[1].missing
    assert [each.point for each in all_of_them] == [
        str(point) for point, full in points.items() if not full
    ]


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "JST-9", ":America/New_York", "", "UTC", "Mars/X"])
@pytest.mark.parametrize("in_wrapper", [False, True])
@pytest.mark.restic
def test_the_zone_of_the_client(restic: Setup, zone: str, in_wrapper: bool):
    command = wrapper(restic, f"export TZ='{zone}'") if in_wrapper else ()
    if not in_wrapper:
        restic.environment["TZ"] = zone
    proof = restic.backup(restic.task(command=command), restic.top)({restic.top: True})[1]
    assert proof.moment == MOMENT


@pytest.mark.restic
def test_the_host_that_a_wrapper_names(restic: Setup):
    command = wrapper(restic, "export RESTIC_HOST=another")
    task = restic.task("--quiet", command=command)
    _, proof = restic.backup(task, restic.top)({restic.top: True})
    assert set(proof.backups) == restic.names()
    parent = task.client.parent(
        task.door, task.job, [str(restic.top), "/new"], [str(restic.top)], task.environment,
        task.script,
    )  # fmt: skip
    assert (parent,) == proof.backups
    reader = Reader(Door(), client_of("restomic").base_command(task.job), task.environment,
                    Signals())  # fmt: skip
    (source,) = task.client.sources(reader, task.job, task.environment, task.script)
    assert source.paths == (str(restic.top),)
    forget = Wishes(forget=("--keep-last", "1"))
    (step,) = task.client.steps(task.job, forget, task.environment, task.script)
    host = step.argv.index("--host")
    assert step.argv[host + 1] == "another"
