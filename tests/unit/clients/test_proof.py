"""What proves that a backup holds what was captured; see also tests/host."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from kopiatomic import state
from kopiatomic.clients.base import Figures, Missing, Request
from kopiatomic.clients.kopia import Kopia
from kopiatomic.clients.parsing import (
    as_marked,
    is_switched_on,
    json_answer,
    last_value,
    marked,
    parse_options,
)
from kopiatomic.clients.reader import ClientFailed, Reader
from kopiatomic.clients.restic import Restic
from kopiatomic.clients.restic_proof import excludes, patterns
from kopiatomic.job import Job
from kopiatomic.system.command import Door, decode, encode
from kopiatomic.system.process import Signals

RESTIC = Job("restomic", command=("restic", "backup"))
KOPIA = Job("kopiatomic", command=("kopia", "snapshot", "create"))


class Answers:
    """A reader that answers from a table, and notes what it was asked."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, ...]] = []
        self.base = ["client"]
        self.environment = {"HOME": "/root"}
        self.preface = b""

    def whole(self, *words: str) -> bytes:
        self.asked.append(words)
        return self.answers[next(key for key in self.answers if key in " ".join(words))]

    def lines(self, *words: str) -> list[bytes]:
        return self.whole(*words).split(b"\n")


def snapshot(**more: object) -> dict[str, object]:
    return {"id": "abc123", "paths": ["/a"], "time": "2026-01-02T03:04:05Z",
            "hostname": os.uname().nodename, "struct_type": "snapshot", **more}  # fmt: skip


def node(path: str, kind: str = "dir") -> dict[str, object]:
    return {"path": path, "type": kind, "struct_type": "node"}


def lines(*objects: object) -> bytes:
    return b"\n".join(json.dumps(each).encode() for each in objects)


def restic_proof(answer: bytes, points: dict[str, bool], made=("abc",), **answers: bytes):
    reader = Answers({"ls ": answer, **{f"{k} ": v for k, v in answers.items()}})
    request = Request(tuple(points), moment=1767323045.0)
    return Restic().prove(reader, RESTIC, request, Figures(snapshots=made), points, 0.0)


class TestRestic:
    def test_what_is_listed_is_there(self):
        answer = lines(snapshot(), node("/a"), node("/a/f", "file"), node("/a/b"))
        proof = restic_proof(b"hello\n{half\n\n" + answer, {"/a": True, "/a/b": False, "/c": False})
        assert proof.found == ("/a", "/a/b")
        assert proof.missing == (Missing("/c"),)
        assert proof.backups == ("abc123",)
        assert proof.moment == 1767323045.0

    @pytest.mark.parametrize("answer", [
        b"", b"hello", b"[]", lines(node("/a"), node("/a/f", "file")),
        lines({**snapshot(), "id": "other"}, node("/a"), node("/a/f")),
        lines(snapshot(), {"struct_type": "node", "type": "dir"}), lines(snapshot()) + b"\n{half",
        lines({"struct_type": "snapshot", "id": "abc123"}, node("/a"), node("/a/f")),
        lines(snapshot(paths="/a"), node("/a"), node("/a/f")),
    ])  # fmt: skip
    def test_what_is_not_understood_proves_nothing(self, answer: bytes):
        with pytest.raises(ClientFailed, match="not understood"):
            restic_proof(answer, {"/a": True})

    def test_a_file_in_the_place_of_a_mount_point(self):
        answer = lines(snapshot(), node("/a"), node("/a/b", "file"))
        assert restic_proof(answer, {"/a/b": False}).missing == (Missing("/a/b"),)

    def test_what_leads_to_a_path_is_no_entry(self):
        answer = lines(snapshot(paths=["/a", "/a/b/c"]), node("/a"), node("/a/b"), node("/a/b/c"))
        proof = restic_proof(answer, {"/a": True, "/a/b/c": False, "/": False, "/a/b": True})
        assert proof.missing == (Missing("/a", True), Missing("/"), Missing("/a/b", True))
        assert restic_proof(answer, {"/a": False}).missing == ()

    def test_the_root(self):
        answer = lines(snapshot(paths=["/"]), node("/a"))
        assert restic_proof(answer, {"/": True}).found == ("/",)
        assert restic_proof(lines(snapshot(paths=["/"])), {"/": True}).missing == (
            Missing("/", True),
        )

    def test_several_repositories(self):
        """A wrapper may write to two of them, and is asked for each of the backups."""
        answers = {"ls --no-lock --json one": lines(snapshot(id="one"), node("/a"))}
        answers["ls --no-lock --json two"] = lines(
            snapshot(id="two"), node("/a"), node("/a/f", "file"), node("/a/b")
        )
        reader = Answers(answers)
        points = {"/a": True, "/a/b": False}
        proof = Restic().prove(
            reader, RESTIC, Request(("/a",)), Figures(snapshots=("one", "two")), points, 0.0
        )
        assert proof.found == ("/a", "/a/b")
        assert proof.backups == ("one", "two")

    def test_an_old_restic_tells_no_start(self):
        """Before 0.17 a snapshot is known again by the time that it was given."""
        listed = json.dumps([
            snapshot(), snapshot(id="fff", time="2026-01-02T03:04:06+09:00"),
            snapshot(id="def", time="2026-01-02T03:04:05+09:00", hostname="other"),
        ]).encode()  # fmt: skip
        answer = lines(snapshot(), node("/a"), node("/a/f"))
        job = Job("restomic", command=RESTIC.command, options=("--time", "2026-01-02 03:04:05"))
        reader = Answers({"ls ": answer, "snapshots ": listed})
        points = {"/a": True}
        proof = Restic().prove(reader, job, Request(("/a",)), Figures(), points, 0.0)
        assert proof.backups == ("abc123",)
        job = Job("restomic", command=RESTIC.command, options=("--time", "2026-01-02 09:09:09"))
        proof = Restic().prove(reader, job, Request(("/a",)), Figures(), points, 0.0)
        assert proof == ((), (), (Missing("/a"),), None, None)

    def test_many_points_are_asked_for_in_turns(self):
        points = {f"/a/{number:0200}": False for number in range(4000)}
        reader = Answers({"ls ": lines(snapshot(), *map(node, points))})
        proof = Restic().prove(
            reader, RESTIC, Request(("/a",)), Figures(snapshots=("abc",)), points, 0.0
        )
        assert proof.missing == ()
        assert len(reader.asked) == 3

    @pytest.mark.parametrize(("options", "expected"), [
        ((), True), (("-v", "--exclude", "/x"), True), (("-e/x", "--tag=a"), True),
        (("/etc",), False), (("--files-from", "/x"), False), (("-x",), False),
        (("-vx",), False), (("--unknown",), False), (("--exclude-caches", "/etc"), False),
        (("--", "/etc"), False), (("--dry-run",), False),
    ])  # fmt: skip
    def test_what_proves_itself(self, options: tuple[str, ...], expected: bool):
        job = Job("restomic", command=RESTIC.command, options=options)
        figures = Figures(files=3, snapshots=("abc",))
        request = Request(("/a",))
        assert Restic().proves_itself(job, request, figures, b"", {"/a": True}) == expected

    def test_what_does_not(self):
        proves, request = Restic().proves_itself, Request(("/a",))
        figures = Figures(files=3, snapshots=("abc",))
        wrapped = Job("restomic", command=("/my-restic-x", "backup"))
        assert not proves(wrapped, request, figures, b"", {"/a": True})
        assert not proves(RESTIC, request, figures, b"", {"/a": True, "/a/b": True})
        assert not proves(RESTIC, Request(("/a", "/b")), figures, b"", {"/a": True})
        assert not proves(RESTIC, request, figures._replace(files=0), b"", {"/a": True})
        assert proves(RESTIC, request, figures._replace(files=0), b"", {"/a": False})
        assert not proves(RESTIC, request, figures._replace(snapshots=()), b"", {"/a": True})

    @pytest.mark.parametrize(("options", "script", "expected"), [
        ((), "", False), (("--one-file-system",), "", True), (("-vx",), "", True),
        (("--one-file-system=false",), "", False), (("-x", "--one-file-system=false"), "", False),
        (("--exclude", "-x"), "", False), (("-ex",), "", False),
        ((), 'exec restic -x "$@"', True), ((), 'set -x; exec restic "$@"', False),
        ((), 'O="--one-file-system -v"; restic $O "$@"', True),
    ])  # fmt: skip
    def test_one_file_system(self, options: tuple[str, ...], script: str, expected: bool):
        job = Job("restomic", command=("/w", "backup"), options=options)
        assert Restic().one_file_system(job, script) == expected

    def test_reasons(self, tmp_path: Path):
        (tmp_path / "x").write_text("# comment\n\n!/a\n *.b \n")
        job = Job("restomic", command=("/w", "backup"),
                  options=("--exclude-file", str(tmp_path / "x"), "-e", "/c/*"))  # fmt: skip
        reason = Restic().likely_reason
        assert "the exclude '*.b' keeps" in reason(job, "", Missing("/home/a.b"))
        assert "the exclude '/c/*' keeps" in reason(job, "", Missing("/c", True))
        assert "/w does not pass on" in reason(job, "restic backup /x", Missing("/c"))
        assert "look for an exclude" in reason(job, 'restic "$@"', Missing("/c"))


@pytest.mark.parametrize(("pattern", "path", "expected"), [
    ("/a", "/a", True), ("/a", "/a/b", True), ("/a", "/ab", False), ("/a/b", "/a", False),
    ("b", "/a/b/c", True), ("b", "/a/bc", False), ("b/c", "/a/b/c", True), ("a/c", "/a/b/c", False),
    ("*.o", "/a/x.o", True), ("/a/*", "/a/b/c", True), ("/*/c", "/a/b/c", False),
    ("/a/**/c", "/a/b/x/c", True), ("/a/**/c", "/a/c", True), ("?", "/a", True),
    ("?", "/ab", False),
    ("[ab]", "/b", True), ("[ab]", "/c", False), ("\\*", "/*", True), ("\\*", "/x", False),
    ("", "/a", False), ("/", "/a", False), ("**", "/a", True),
])  # fmt: skip
def test_patterns_of_restic(pattern: str, path: str, expected: bool):
    assert excludes(pattern, path) == expected


def test_an_exclude_file_that_is_not_there():
    assert list(patterns([("--exclude-file", "/nonexistent"), ("-e", "x"), ("-v", None)])) == ["x"]


def manifest(path: str = "/a", **more: object) -> dict[str, object]:
    return {"id": "a" * 32, "source": {"path": path}, "startTime": "2026-01-02T03:04:05Z",
            "rootEntry": entry("root", files=1), **more}  # fmt: skip


def entry(name: str, files: int = 0, dirs: int = 1) -> dict[str, object]:
    summary = {"files": files, "symlinks": 0, "dirs": dirs}
    return {"name": name, "type": "d", "obj": f"k-{name}", "summ": summary}


def shown(each: dict[str, object]) -> bytes:
    text = json.dumps({**each, "id": ""}, indent=2)
    return f"// id: {each['id']}\n// length: 1\n// label type:snapshot\n{text}".encode()


def listing(*entries: dict[str, object]) -> bytes:
    return json.dumps({"stream": "kopia:directory", "entries": list(entries) or None}).encode()


class TestKopia:
    def prove(self, points: dict[str, bool], answers: dict[str, bytes], **figures: object):
        figures = {"snapshots": ("a" * 32,), **figures}
        self.reader = Answers(answers)
        request = Request(("/a",), moment=1767323045.0)
        return Kopia().prove(self.reader, KOPIA, request, Figures(**figures), points, 0.0)

    def test_directories_are_read_once(self):
        answers = {
            "manifest show": b"Connected\n" + shown(manifest()),
            "show k-root": b"Connected\n" + listing(entry("b", 2), entry("c"), entry("d", 1)),
            "show k-b": listing(entry("x", 1), {"name": "y", "type": "f"}),
        }
        points = {"/a": True, "/a/b": True, "/a/c": True, "/a/b/x": True, "/a/b/y": True,
                  "/a/b/z": True, "/b": True}  # fmt: skip
        proof = self.prove(points, answers)
        assert proof.found == ("/a", "/a/b", "/a/b/x")
        assert proof.missing == (
            Missing("/a/c", True), Missing("/a/b/y"), Missing("/a/b/z"), Missing("/b"),
        )  # fmt: skip
        assert len(self.reader.asked) == 3
        assert self.reader.preface == b""

    def test_two_manifests(self):
        other = {**manifest("/b"), "id": "b" * 32}
        text = shown(manifest()) + shown(other)
        proof = self.prove({"/a": True, "/b": True}, {"manifest show": text},
                           snapshots=("a" * 32, "b" * 32))  # fmt: skip
        assert proof.missing == ()
        assert proof.backups == ("a" * 32, "b" * 32)

    @pytest.mark.parametrize("answer", [
        b"", b"hello", shown(manifest())[:-9], shown({**manifest(), "id": "c" * 32}),
        shown(manifest(rootEntry={"type": "d"})), shown(manifest(rootEntry=[])),
        shown(manifest(source={})),
    ])  # fmt: skip
    def test_what_is_not_understood_proves_nothing(self, answer: bytes):
        with pytest.raises(ClientFailed, match="not understood"):
            self.prove({"/a": True}, {"manifest show": answer})

    @pytest.mark.parametrize("answer", [b"", b"{}", b'{"entries": 3}', listing({"name": "b"})])
    def test_a_directory_that_is_not_understood(self, answer: bytes):
        with pytest.raises(ClientFailed, match="not understood"):
            self.prove(
                {"/a/b": True}, {"manifest show": shown(manifest()), "show k-root": answer}
            )

    def test_an_incomplete_backup_is_none(self):
        answer = shown(manifest(incomplete="canceled"))
        proof = self.prove({"/a": True}, {"manifest show": answer})
        assert proof == ((), (), (Missing("/a"),), None, None)

    def test_names_that_cannot_be_told_apart(self):
        """Of two directories whose names differ in bytes that are not UTF-8 both must do."""
        twin = json.dumps(entry("b?", 1)), json.dumps(entry("b?"))
        text = ('{"entries":[' + ",".join(twin) + "]}").replace("b?", "b\\ufffd").encode()
        proof = self.prove(
            {"/a/b\udcff": True}, {"manifest show": shown(manifest()), "show k-root": text}
        )
        assert proof.missing == (Missing("/a/b\udcff", True),)

    def test_what_proves_itself(self):
        def proves(points: dict[str, bool], *manifests: dict[str, object]) -> bool:
            output = b"Connected\n" + lines(*manifests)
            return Kopia().proves_itself(KOPIA, Request(tuple(points)), Figures(), output, points)

        assert proves({"/a": True}, manifest())
        assert proves({"/a": True, "/b": False}, manifest(), manifest("/b", rootEntry=entry("b")))
        assert not proves({"/a": True}, manifest(rootEntry=entry("b")))
        assert not proves({"/a": True, "/a/b": True}, manifest())
        assert not proves({"/a": True}, manifest(incomplete="canceled"))
        assert not proves({"/a": True}, manifest(id=None))
        assert not proves({"/a": True}, manifest(rootEntry={}))
        assert not proves({"/a": True})
        assert not proves({})


@pytest.mark.parametrize(("client", "kept"), [
    (Restic(), {"reg", "dir", "lnk", "fifo", "blk", "chr"}), (Kopia(), {"reg", "dir", "lnk"}),
])  # fmt: skip
def test_what_a_client_keeps(client, kept: set[str]):
    kinds = {"reg": stat.S_IFREG, "dir": stat.S_IFDIR, "lnk": stat.S_IFLNK, "fifo": stat.S_IFIFO,
             "blk": stat.S_IFBLK, "chr": stat.S_IFCHR, "sock": stat.S_IFSOCK}  # fmt: skip
    assert {name for name, mode in kinds.items() if client.keeps(mode | 0o4755)} == kept


def test_entries_of_a_directory(tmp_path: Path):
    client = Kopia()
    assert not client.has_entries(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "nested").mkdir()
    assert not client.has_entries(str(tmp_path), {"nested"})
    assert client.has_entries(str(tmp_path))
    with pytest.raises(OSError, match="nonexistent"):
        client.has_entries("/nonexistent")


class TestComplaints:
    def test_restic(self):
        said = b"""repository 1234abcd opened (version 2)
unable to open cache: mkdir /x: permission denied
{"message_type":"error","error":{"message":"open /a: denied"},"during":"scan","item":"/a"}
{"message_type":"status","percent_done":1}
rclone: 2026/01/02 ERROR : failed to save config
unable to open cache: mkdir /x: permission denied
{"message_type":"exit_error","code":1,"message":"Fatal: no"}
"""
        assert Restic().complaints(said).split("\n") == [
            "unable to open cache: mkdir /x: permission denied", "/a: open /a: denied",
            "rclone: 2026/01/02 ERROR : failed to save config", "Fatal: no",
        ]  # fmt: skip

    def test_kopia(self):
        said = b"""Snapshotting root@vm:/a ...
\r | 1 hashing, 0 hashed (2 B), 0 cached (0 B), uploaded 0 B, estimating...\r * 0 hashing, 6 hashed
 ! Error when processing "x": permission denied
\x1b[33mIgnored 1 error(s) while snapshotting root@vm:/a.\x1b[0m
Created snapshot with root k0e51fde504b7 and ID 81028b02f5f98a5e6f54a5322f6338c6 in 0s
Running full maintenance...
GC found 0 unused contents (0 B)
Finished full maintenance.
"""
        assert Kopia().complaints(said).split("\n") == [
            '! Error when processing "x": permission denied',
            "Ignored 1 error(s) while snapshotting root@vm:/a.",
        ]

    @pytest.mark.parametrize("client", [Restic(), Kopia()])
    def test_nobody_reads_thousands_of_lines(self, client):
        said = "".join(f"error {number}: {'x' * 999}\n" for number in range(1000))
        lines = client.complaints(said.encode()).split("\n")
        assert len(lines) == 21
        assert max(map(len, lines)) == 300
        assert lines[-1] == "... and 980 lines more"

    @pytest.mark.parametrize("client", [Restic(), Kopia()])
    def test_nothing_to_tell(self, client):
        assert client.complaints(b"") == ""
        assert client.complaints(b"\n\r\n  \n") == ""
        assert client.complaints(b"bad \xff\x1b\n") == "bad \\xff\\x1b"


class TestJson:
    def test_an_answer_behind_other_lines(self):
        text = b'[info] {"a": 1}\n[1]\n{"b": 2}\n[{"id": "x"}]\ndone\n'
        assert json_answer(text, list) == ([{"id": "x"}], text[:29])
        assert json_answer(text, dict) == ({"b": 2}, text[:20])
        assert json_answer(text, dict, "b")[0] == {"b": 2}
        with pytest.raises(ValueError, match="no dict"):
            json_answer(text, dict, "c")
        assert json_answer(b" [1, 2]\n", list) == ([1, 2], b"")

    def test_bytes_that_are_no_text(self):
        """As Go writes them, and as the path is that was asked for."""
        text = rb'{"bad": "x\ufffd\\ufffd\\\ufffd", "good": "' + "\ufffd".encode() + b'"}'
        value, _ = json_answer(text, dict)
        assert value == {"bad": "x\udcff\\ufffd\\\udcff", "good": "\ufffd"}
        assert as_marked(decode(b"x\xfe\\ufffd\\\x80")) == value["bad"]
        assert marked(rb"\\ufffd") == rb"\\ufffd"
        assert encode(as_marked("plain")) == b"plain"


def test_options_of_programs_in_go():
    words = "-vx -Hme --time now --json=false -e a -e=b /p - -- -z".split()
    options = parse_options(words, {"-H", "-e", "--time"})
    assert options == [
        ("-v", None), ("-x", None), ("-H", "me"), ("--time", "now"), ("--json", "false"),
        ("-e", "a"), ("-e", "b"), ("", "/p"), ("", "-"), ("", "-z"),
    ]  # fmt: skip
    assert is_switched_on(options, "-x", "--long")
    assert not is_switched_on(options, "--json")
    assert not is_switched_on(options, "-z")
    assert last_value(options, "-e") == "b"
    assert last_value(options, "-n") is None
    assert parse_options(["--time"], {"--time"}) == [("--time", None)]


class TestReader:
    @pytest.fixture(autouse=True)
    def _state(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(state, "STATE_DIRECTORY", str(tmp_path))

    def reader(self, script: str, limit: float | None) -> Reader:
        return Reader(Door(), ["/bin/sh", "-c", script, "client"], os.environ, Signals(), limit)

    @pytest.mark.parametrize("script", ["sleep 60", "echo x; sleep 60 & sleep 60", "trap '' TERM; "
                                        "sleep 0.1; while :; do sleep 1; done"])  # fmt: skip
    def test_a_client_that_hangs_is_ended(self, script: str, monkeypatch, tmp_path: Path):
        monkeypatch.setattr("kopiatomic.clients.reader.GRACE", 0.3)
        reader = self.reader(script, 0.2)
        for ask in (lambda: reader.whole("ls"), lambda: list(reader.lines("ls"))):
            with pytest.raises(ClientFailed, match=r"sh ls: did not answer within 0\.2 s"):
                ask()
        with open(tmp_path / "file", "wb") as file, pytest.raises(ClientFailed, match="answer"):
            reader.into(file.fileno(), "dump")

    def test_one_that_does_not_hang_is_not(self):
        assert self.reader("echo x", 60.0).whole("ls") == b"x\n"
        assert self.reader("echo x", None).whole("ls") == b"x\n"

    @pytest.mark.parametrize(("preface", "written", "size", "start"), [
        (b"", b"content", 7, 0), (b"a\n", b"a\ncontent", 7, 2), (b"a\n", b"content", 7, 0),
        (b"1\n2\n", b"33\n4\ncontent", 7, 5), (b"a\n", b"a\nshort", 7, 2),
        (b"a\n", b"b\nshort", 7, 0), (b"a\n", b"a\na\n", 2, 2), (b"a\n", b"a\n", 0, 2),
    ])  # fmt: skip
    def test_where_the_content_begins(
        self, preface: bytes, written: bytes, size: int, start: int, tmp_path: Path
    ):
        reader = self.reader("", None)
        reader.preface = preface
        with open(tmp_path / "file", "w+b") as file:
            file.write(written)
            file.flush()
            assert reader.begins_at(file.fileno(), size) == start
