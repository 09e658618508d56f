"""What is parsed is fuzzed: whatever comes, there is an answer or a clear refusal, no crash."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import time
from collections.abc import Sequence

import hypothesis
import pytest
from hypothesis import strategies as st
from support.datasets import NAMES, NEEDS, make_plan
from unit.drills import NoRoom

from kopiatomic import cli, environment, redact, state
from kopiatomic.backup import calling, takedown
from kopiatomic.clients import client_of, make_ready, parsing, programs, restic_parent
from kopiatomic.clients.kopia import Kopia
from kopiatomic.clients.reader import ClientFailed
from kopiatomic.clients.records import Request, Source, Tally
from kopiatomic.clients.restic import Restic
from kopiatomic.errors import Refusal
from kopiatomic.job import Job, split_words
from kopiatomic.monitoring import check, status
from kopiatomic.repository import drill, upkeep
from kopiatomic.system import command, mounts, process, zfs
from kopiatomic.system.command import CommandFailed
from properties.conftest import ALL, SEED, count, several
from properties.machines import jobs, machines
from properties.model import Model, place, show

__all__ = ["place"]

# At least this long for each, in seconds, where everything is tried.
LEAST = 20.0 if ALL else 0.0

ANY_TEXT = st.text(
    st.one_of(
        st.sampled_from("\t\n\r\0 \\\"'{}[]@#/%$`:=,-\x1b\udcff\u2028é²"), st.characters(),
        st.sampled_from("abyesno0123456789"),
    ),
    max_size=60,
)  # fmt: skip
SCALARS = [None, True, False, 0, -1, 3, 10**400, 1e308, float("inf"), float("nan"), "", "x", "/",
           "/a", "zfs", "p/a", "2026-11-23T20:07:25+0000", "\udcff\t\n", "9" * 5000,
           "é\0"]  # fmt: skip


def _json(chance: random.Random, depth: int = 3) -> object:
    """Any JSON value; by random itself, since hypothesis takes its time over such trees."""
    kind = chance.randrange(6) if depth else 0
    if kind < 4:
        return chance.choice(SCALARS)
    count = chance.randrange(4)
    if kind == 4:
        return [_json(chance, depth - 1) for _ in range(count)]
    keys = ["paths", "dataset", "name", "mountpoint", "summ", "files", "size", "x", "status"]
    return {chance.choice(keys): _json(chance, depth - 1) for _ in range(count)}


def _entry(chance: random.Random, keys: Sequence[str]) -> dict[str, object]:
    return {key: _json(chance) for key in keys if chance.random() < 0.6}


CHANCE = st.integers(0, 2**64).map(random.Random)
JSON = CHANCE.map(_json)


def clear(message: str) -> None:
    """Assert that a message can be shown to a person."""
    assert message.strip()
    assert len(message) < 3000
    assert "Traceback" not in message
    assert "internal error" not in message


def fuzz(name: str, *strategies, in_ci: int = 80, in_all: int = 3000):
    """Make a test of a function that may raise nothing but a clear refusal."""

    def decorate(function):
        def test(place) -> None:
            began = time.monotonic()
            rounds = 0
            while rounds == 0 or time.monotonic() - began < LEAST:

                @hypothesis.seed(SEED + rounds)
                @several(in_ci, in_all)
                @hypothesis.given(st.tuples(*strategies))
                def once(values) -> None:
                    count(f"test_{name}")
                    try:
                        function(*values)
                    except (Refusal, CommandFailed) as error:
                        clear(str(error))

                once()
                rounds += 1

        return test

    return decorate


def mangled(text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A text in which something was put in, left out or doubled."""

    def mangle(parts: tuple[str, int, int, str]) -> str:
        whole, start, length, piece = parts
        start %= len(whole) + 1
        return whole[:start] + piece + whole[start + length :]

    return st.tuples(text, st.integers(0, 10**6), st.integers(0, 12), ANY_TEXT).map(mangle)


LIST = st.sampled_from([
    "p\tfilesystem\tyes\ton\toff\t-\t/x\t-\np/a b\tvolume\t-\t-\t-\t-\t-\t-\n",
    "zroot\tfilesystem\tno\tnoauto\ton\toff\tnone\tunavailable\n", "",
])  # fmt: skip


@fuzz("zfs_list", st.one_of(ANY_TEXT, mangled(LIST), mangled(mangled(LIST))))
def test_zfs_list(text: str) -> None:
    for dataset in zfs.parse_list(("zfs", "list"), text):
        assert zfs.pool_of(dataset.name) in dataset.name


SNAPSHOTS = ("p/a@s", "p/b c@s")
RESULTS = st.one_of(
    ANY_TEXT, mangled(st.just('{"return":{"p/a@s":28,"p/b c@s":2}}\n')), st.just("[" * 100000),
    JSON.map(lambda value: json.dumps({"return": value})), JSON.map(json.dumps),
    CHANCE.map(lambda chance: json.dumps({"return": {
        chance.choice([*SNAPSHOTS, "p@x"]): _json(chance) for _ in range(3)}})),
)  # fmt: skip


@fuzz("channel_program", RESULTS, st.booleans())
def test_channel_program(text: str, mends: bool) -> None:
    """Whatever it prints, no snapshot counts as refused, or as gone, that it does not name."""

    class Answering(command.Door):
        def run(self, argv, *, check=True, **_):
            if argv[1] == "program":
                return command.Result(tuple(argv), 0, text, "")
            return command.Result(tuple(argv), int(not mends), "", "dataset is busy")

    assert set(zfs.snapshot(Answering(), SNAPSHOTS, "R")) <= set(SNAPSHOTS)
    done = zfs.destroy(Answering(), SNAPSHOTS)
    assert {each.name for each in done.left} | set(done.missing) <= set(SNAPSHOTS)
    assert not done.left or not mends


OPEN = mangled(st.just(
    "USER     CMD          PID   FD DEV        INUM       MODE SZ|DV R/W\n"
    "root     tail        1676 root 0x2904ffe7      2     100644      2  r\n"
    "ben      x 1 root 0x2904ffe7 2 4 2 r  1677 root 0x2904ffe3     34      40755     29  r\n"
))  # fmt: skip


@fuzz("open_files", st.one_of(ANY_TEXT, OPEN, mangled(OPEN)))
def test_open_files(text: str) -> None:
    """Whoever is killed is the process of a line that ends as fstat(1) ends its lines."""

    class Answering(command.Door):
        def run(self, argv, **_):
            return command.Result(tuple(argv), 0, text, "")

    ours = mounts.Mount("/a", "/v", "nullfs", fsid=(0x2904FFE7, 0x29))
    for pid in takedown._users(Answering(), [ours]):
        assert pid > 1
        assert any(
            re.search(rf"\s{pid}\s+root\s+0x0*2904ffe7\s+\d+\s+[0-7]+\s+\S+\s+\S+\s*$", line)
            for line in text.split("\n")
        )


TABLE = json.dumps({"mount": {"mounted": [
    {"special": "/dev/ada0", "node": "/", "fstype": "ufs", "opts": ["local"]},
    {"special": "p/a", "node": "/a b", "fstype": "zfs", "opts": ["read-only"], "fsid": "00"},
]}})  # fmt: skip
ENTRY = CHANCE.map(lambda chance: _entry(chance, ("special", "node", "fstype", "opts")))
TABLES = st.one_of(
    ANY_TEXT, mangled(st.just(TABLE)), JSON.map(json.dumps),
    st.lists(ENTRY, max_size=5).map(lambda found: json.dumps({"mount": {"mounted": found}})),
    st.just("[" * 100000),
)  # fmt: skip


@fuzz("mount_table", TABLES, machines().flatmap(lambda m: st.tuples(st.just(m), jobs(m))))
def test_mount_table(text: str, made: tuple[Model, Job]) -> None:
    model, job = made
    table = mounts.parse(("mount", "-v"), text)
    make_plan(job, list(model.datasets.values()), table, NAMES, NEEDS)


@fuzz("env_file", st.one_of(
    st.binary(max_size=200), mangled(st.just("export A='b c'\n# no\nRESTIC_PASSWORD=xyzzy\n"))
    .map(lambda text: text.encode("utf-8", "surrogateescape" if text.isascii() else "ignore")),
))  # fmt: skip
def test_env_file(data: bytes) -> None:
    path = f"{os.path.dirname(state.RUN_ROOT)}/env"
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o600)
    try:
        variables = environment.read(path, os.geteuid())
    except Refusal as refusal:
        assert "xyzzy" not in str(refusal)  # noqa: PT017
        raise
    for name, value in variables.items():
        assert name.isidentifier()
        assert name.isascii()
        os.fsencode(value)
        assert "\0" not in value


KEYS = ("program", "job", "status", "began", "ended", "seconds", "moment", "captured",
        "captured_at", "left_out", "paths", "client", "problems", "notes", "env_file", "command",
        "kind", "not_frozen", "swept")  # fmt: skip
RUN_ENTRY = CHANCE.map(lambda chance: {
    **_entry(chance, KEYS),
    "outcome": chance.choice(["success", "trouble", "failed", "incomplete", 3]),
})  # fmt: skip
HISTORIES = st.lists(
    st.one_of(ANY_TEXT, RUN_ENTRY.map(json.dumps), mangled(RUN_ENTRY.map(json.dumps)),
              JSON.map(json.dumps), st.just("[" * 50000)), max_size=5,
)  # fmt: skip


@fuzz("history", HISTORIES, HISTORIES)
def test_history(lines: list[str], upkeep_lines: list[str]) -> None:
    here = state.Place("restomic", "default")
    os.makedirs(state.STATE_DIRECTORY, 0o700, exist_ok=True)
    for path, content in ((here.history, lines), (here.upkeep, upkeep_lines)):
        with open(path, "wb") as file:
            file.write("\n".join(content).encode("utf-8", "surrogatepass"))
    entries = state.read_history(here)
    calling.last_paths(here)
    model = Model({}, [])
    now = time.time()
    account = status.observe(model.door(), "restomic", None, now)
    status.as_text(account)
    json.dumps(status.as_dict(account))
    found = check.findings(check.observe(model.door(), [], 48.0), now)
    check.as_text(found)
    state.remember(here, {"outcome": "success"})
    assert len(state.read_history(here)) == min(len(entries) + 1, state.HISTORY_LENGTH)


SAID = st.one_of(
    ANY_TEXT,
    mangled(st.just(
        "Files:           3 new,     1 changed,   122 unmodified\nDirs:  1 new, 2 changed,\n"
        "Added to the repository: 1.5 MiB (900 KiB stored)\n"
        "processed 126 files, 3.234 GiB in 0:01\nsnapshot 0123abcd saved\n")),
    mangled(st.just('{"message_type":"summary","files_new":1,"data_added":5,"snapshot_id":"a"}\n')),
    mangled(st.just('{"id":"k","rootEntry":{"summ":{"files":3,"size":10}}}\n'
                    " * 0 hashing, 1 hashed (2 B)")),
    JSON.map(lambda value: json.dumps({"message_type": "summary", "data_added": value})),
    JSON.map(lambda value: json.dumps({"id": value, "rootEntry": {"summ": value}})),
)  # fmt: skip


@fuzz("client_output", SAID, SAID, st.integers(-64, 255))
def test_client_output(output: str, messages: str, code: int) -> None:
    from kopiatomic.backup.client_runs import Called, ClientRun
    from kopiatomic.backup.report import Report, as_dict, as_mail
    from kopiatomic.formatting import as_json

    for program in programs():
        client = client_of(program)
        encoded = [text.encode("utf-8", "surrogatepass") for text in (output, messages)]
        report = Report(program, "default", "run", 0.0)
        called = Called(ClientRun())
        report.runs, report.said = [called], command.decode(encoded[0])
        called.figures, called.status = client.figures(*encoded), 0
        report.problems.append(client.hint(code, output + messages) or "x")
        as_mail(report)
        as_json(as_dict(report))


@fuzz("restic_snapshots", st.lists(JSON | CHANCE.map(lambda chance: {
    **_entry(chance, ("time", "id")), "hostname": "h",
    "paths": chance.choice([["/a"], ["/b", 3], ["/a/b", "/c"], _json(chance)]),
}), max_size=4))  # fmt: skip
def test_restic_snapshots(snapshots: list[object]) -> None:
    try:
        restic_parent.choose(snapshots, ["/a"], "h")
    except (ValueError, KeyError, TypeError):
        return  # these, Restic.parent() expects


RESTIC_LIST = json.dumps([{"id": "ab", "paths": ["/a"], "time": "2026-01-02T03:04:05Z"}])
RESTIC_FILES = json.dumps({"type": "file", "path": "/a", "size": 3, "inode": 7, "mtime": "x"})
KOPIA_LIST = json.dumps([{"id": "ab", "source": {"path": "/a"}, "startTime": "2026-01-02T03:04:05Z",
                          "rootEntry": {"type": "d", "obj": "k", "summ": {"files": 2}}}])
KOPIA_FILES = json.dumps({"entries": [{"type": "f", "obj": "a", "name": "x", "size": 3},
                                      {"type": "f", "obj": "b", "name": "y"}]})  # fmt: skip


def answer(good: str) -> st.SearchStrategy[str]:
    return st.one_of(mangled(st.just(good)), JSON.map(json.dumps), CHANCE.map(
        lambda chance: json.dumps([_entry(chance, ("id", "paths", "time", "source", "startTime",
                                                   "rootEntry", "type", "summ", "entries"))])))


JOBS = (Job("restomic"), Job("kopiatomic"))


class Printer:
    """A client that prints the same to whatever it is asked."""

    def __init__(self, text: str) -> None:
        self.text = text.encode("utf-8", "surrogatepass")

    def whole(self, *_: str) -> bytes:
        return self.text

    def lines(self, *_: str) -> list[bytes]:
        return self.text.split(b"\n")


@fuzz("repository_contents", answer(RESTIC_LIST), answer(RESTIC_FILES), answer(KOPIA_LIST),
      answer(KOPIA_FILES))  # fmt: skip
def test_repository_contents(snapshots: str, listing: str, manifests: str, shown: str) -> None:
    chance = random.Random(1)
    source = Source("ab", "/a", 0.0)
    root = {"type": "d", "obj": "k", "summ": {"files": 2}}
    for ask in (
        lambda: Restic().sources(Printer(snapshots), JOBS[0], {}),
        lambda: Restic().files(Printer(listing), NoRoom(), Tally(source), 2, 9, chance),
        lambda: Kopia().sources(Printer(manifests), JOBS[1], {}),
        lambda: Kopia().files(
            Printer(shown), NoRoom(), Tally(source._replace(root=root, path="/a")), 2, 9,
            chance),
    ):  # fmt: skip
        try:
            for each in ask():
                command.printable(str(each))
        except ClientFailed as error:
            clear(str(error))


@fuzz("client_times", st.one_of(
    ANY_TEXT, mangled(st.sampled_from(["2026-01-02T03:04:05.123456789+01:00", "20260102Z"])),
))  # fmt: skip
def test_client_times(text: str) -> None:
    when = parsing.nanoseconds(text)
    assert when is None or isinstance(when, int)


def as_argument(text: str) -> str:
    """Return a text as arguments and variables come: no NUL, and of surrogates those of bytes."""
    return re.sub("[\0\ud800-\udc7f\udd00-\udfff]", "", text)


WORDS = st.one_of(
    ANY_TEXT.map(as_argument), st.sampled_from([
        "restic backup", "kopia snapshot create --json", "kopia-my 'repo", '"', "a\\", "restic -r",
        "env A=b restic backup --tag x", "", " ", "#", "kopia snapshot", "restic --repo",
    ]),
)  # fmt: skip


@fuzz("wrapper_strings", WORDS, WORDS, st.booleans(), st.sampled_from(["restomic", "kopiatomic"]))
def test_wrapper_strings(text: str, options: str, plain: bool, program: str) -> None:
    job = Job(program, targets=("p",), plain=plain, command=split_words(text, "-c"),
              options=split_words(options, "-o"))  # fmt: skip
    inherited = {"RESTIC_REPOSITORY": text, "RESTIC_PASSWORD": text, "KOPIA_PASSWORD": options}
    client = client_of(program)
    environment = client.environment(job, inherited)
    hide = redact.redactor(environment, [*job.command, *job.options])
    hide(text + options)
    drawn = make_plan(job, *SMALL, NAMES, client.needs(job, "/bin/sh", environment))
    words = client.backup_command(job, Request(drawn.paths, drawn.live, 1.0))
    assert words[-1] == "/p"
    assert all(isinstance(word, str) for word in words)
    client.about_repository(job.options)
    client.by_hand(job)("unlock")
    client.base_command(job)
    make_ready(job, _machine().door(), inherited)


SMALL = ([zfs.Dataset("p", "filesystem", True, "on", False, "-", "-")],
         [mounts.Mount("/dev/a", "/", "ufs"), mounts.Mount("p", "/p", "zfs")])  # fmt: skip

FLAGS = st.sampled_from([
    "-a", "-c", "-e", "-h", "-j", "-n", "-o", "-p", "-q", "-r", "-s", "-v", "-x", "--live",
    "--plain", "--json", "--status", "--check", "--max-age", "--expect", "--sweep", "--verbose",
    "--periodic", "--datasets", "--excludes", "--upkeep", "--verify", "--maintenance", "--forget",
    "--prune", "--drill", "--seed", "--size-limit", "--wait", "--wait=4h", "--wait=²", "--", "-",
    "--notify", "--metrics", "--no-proof", "--wait=0", "--wait", "--lives",
    "--no-proof", "--wait=0", "--wait", "--lives", "--retries", "--retries=2", "--retries=²",
    "--retry-pause", "--retry-pause=0", "--retry-pause=1h",
    "--ex", "--max-age=nan", "-jx",
    "--size-limit=1e9G", "--drill=²", "--verify=inf", "p", "p/a", "/", "/bin/true", "true", "5",
    "restomic/default", "..", "-c/bin/true", "--seed=-1", "--max-age=1e308",
])  # fmt: skip
ARGUMENT = st.one_of(FLAGS, FLAGS, FLAGS, ANY_TEXT.map(as_argument))


def _machine() -> Model:
    return Model({each.name: each for each in SMALL[0]},
                 [*copy.copy(SMALL[1]), mounts.Mount("devfs", "/dev", "devfs")],
                 directories={"/", "/p", "/dev"})  # fmt: skip


def with_clients(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put what is named as the clients are into a directory, and that in the path."""
    os.makedirs(directory, exist_ok=True)
    for program in programs():
        path = f"{directory}/{client_of(program).name}"
        with open(path, "w") as file:
            file.write("#!/bin/sh\n")
        os.chmod(path, 0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_arguments(place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Whole command lines, run on the machine in memory."""

    def not_here(*_: object) -> None:
        raise Refusal("not in this test")

    monkeypatch.setattr(upkeep, "run", not_here)
    monkeypatch.setattr(drill, "run", not_here)
    # Whatever --notify is given: no shell runs it.
    monkeypatch.setattr(process, "run_told", lambda *_: process.Ended(0, 0.0))
    # The clients are found, and process.run stands for them.
    with_clients(f"{place}/bin", monkeypatch)
    monkeypatch.setattr(os, "write", lambda descriptor, data: len(data))
    began = time.monotonic()
    rounds = 0
    while rounds == 0 or time.monotonic() - began < LEAST:

        @hypothesis.seed(SEED + rounds)
        @several(80, 3000)
        @hypothesis.given(
            st.lists(ARGUMENT, max_size=8), st.sampled_from(["restomic", "kopiatomic"])
        )
        def once(arguments: list[str], program: str) -> None:
            count("test_arguments")
            model, mask = _machine(), os.umask(0o022)
            try:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(command, "Door", lambda *_: model.door())
                    show(model, patch)
                    answer = cli.main(program, [*arguments])
            finally:
                os.umask(mask)
            said = capsys.readouterr()
            assert answer in range(256)
            assert "internal error" not in said.err + said.out, (arguments, said.err)
            if answer in (64, 66, 69, 78):
                clear(said.err)

        once()
        rounds += 1

