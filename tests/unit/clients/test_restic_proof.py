"""What proves that a snapshot of restic's holds what was captured; see also tests/host."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kopiatomic.clients.reader import ClientFailed
from kopiatomic.clients.records import Figures, Missing, Request
from kopiatomic.clients.restic import Restic
from kopiatomic.clients.restic_proof import excludes, patterns
from kopiatomic.job import Job
from unit.clients.answers import Matching

RESTIC = Job("restomic", command=("restic", "backup"))


def snapshot(**more: object) -> dict[str, object]:
    return {"id": "abc123", "paths": ["/a"], "time": "2026-01-02T03:04:05Z",
            "hostname": os.uname().nodename, "struct_type": "snapshot", **more}  # fmt: skip


def node(path: str, kind: str = "dir") -> dict[str, object]:
    return {"path": path, "type": kind, "struct_type": "node"}


def lines(*objects: object) -> bytes:
    return b"\n".join(json.dumps(each).encode() for each in objects)


def restic_proof(answer: bytes, points: dict[str, bool], made=("abc",), **answers: bytes):
    reader = Matching({"ls ": answer, **{f"{k} ": v for k, v in answers.items()}})
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

    def test_a_file_that_is_backed_up_by_itself_is_there(self):
        answer = lines(snapshot(paths=["/a/f", "/b"]), node("/a/f", "file"), node("/b"))
        proof = restic_proof(answer, {"/a/f": True, "/b": False, "/a/g": True})
        assert proof.found == ("/a/f", "/b")
        assert proof.missing == (Missing("/a/g"),)

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
        reader = Matching(answers)
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
        reader = Matching({"ls ": answer, "snapshots ": listed})
        points = {"/a": True}
        proof = Restic().prove(reader, job, Request(("/a",)), Figures(), points, 0.0)
        assert proof.backups == ("abc123",)
        job = Job("restomic", command=RESTIC.command, options=("--time", "2026-01-02 09:09:09"))
        proof = Restic().prove(reader, job, Request(("/a",)), Figures(), points, 0.0)
        assert proof == ((), (), (Missing("/a"),), None, None)

    def test_many_points_are_asked_for_in_turns(self):
        points = {f"/a/{number:0200}": False for number in range(4000)}
        reader = Matching({"ls ": lines(snapshot(), *map(node, points))})
        proof = Restic().prove(
            reader, RESTIC, Request(("/a",)), Figures(snapshots=("abc",)), points, 0.0
        )
        assert proof.missing == ()
        assert len(reader.asked) == 3

    def test_many_listed_ones_are_looked_for_where_they_lie(self, monkeypatch):
        """Of so many paths restic compares each with each of its files."""
        monkeypatch.setattr("kopiatomic.clients.restic_proof.MANY", 50)
        files = [f"/a/{number}" for number in range(60)]
        points = {**dict.fromkeys(files, True), "/a/d": True, "/a/e": True, "/b/f": True}
        seen = snapshot(paths=list(points))
        kinds = {"/a/d": "dir", "/a/e": "dir"}
        nodes = [node(each, kinds.get(each, "file")) for each in points if each[:2] == "/a"]
        reader = Matching({
            "abc /b/f": lines(seen, node("/b/f", "file")),
            "abc /a/d /a/e": lines(seen, node("/a/d"), node("/a/d/x", "file"), node("/a/e")),
            "abc /a": lines(seen, node("/a"), *nodes[1:], node("/a/other", "file")),
        })  # fmt: skip
        proof = Restic().prove(
            reader, RESTIC, Request(tuple(points)), Figures(snapshots=("abc",)), points, 0.0
        )
        assert [words[-2:] for words in reader.asked] == [
            ("abc", "/b/f"), ("abc", "/a"), ("/a/d", "/a/e"),
        ]  # fmt: skip
        assert proof.missing == (Missing("/a/0"), Missing("/a/e", True))

    def test_names_that_are_not_utf_8_are_asked_for_one_by_one(self):
        """In the list of paths restic has U+FFFD for such a byte, in a file's path an escape."""
        points = {f"/{name}{byte}": True for name in "ad" for byte in ("\udcff", "\udcfe")}
        seen = snapshot(paths=["/a\ufffd", "/a\ufffd", "/d\ufffd", "/d\ufffd"])
        told = json.dumps(seen, ensure_ascii=False).encode()
        answers = [
            ("/a\udcff", node("/a\ufffd", "file")), ("/d\udcff", node("/d\ufffd")),
            ("/d\udcfe", node("/d\ufffd")),
        ]  # fmt: skip
        texts = {name: told + b"\n" + json.dumps(each).encode() for name, each in answers}
        texts["/d\udcff"] += b"\n" + json.dumps(node("/d\ufffd/x", "file")).encode()
        reader = Matching({**texts, "ls ": told})
        proof = Restic().prove(
            reader, RESTIC, Request(tuple(points)), Figures(snapshots=("abc",)), points, 0.0
        )
        assert len(reader.asked) == 4
        assert proof.found == ("/a\udcff", "/d\udcff")
        assert proof.missing == (Missing("/a\udcfe"), Missing("/d\udcfe", True))

    def test_a_snapshot_of_such_a_path_is_found_by_it(self):
        made = snapshot(paths=["/a\ufffd"])
        listed = json.dumps([made], ensure_ascii=False).encode()
        proof = restic_proof(
            json.dumps(made, ensure_ascii=False).encode() + b"\n" + lines(node("/a\ufffd")),
            {"/a\udcff": False}, (), snapshots=listed,
        )  # fmt: skip
        assert proof.found == ("/a\udcff",)

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
