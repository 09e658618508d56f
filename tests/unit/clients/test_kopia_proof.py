"""What proves that backups of kopia's hold what was captured; see also tests/host."""

from __future__ import annotations

import json

import pytest

from kopiatomic.clients.kopia import Kopia
from kopiatomic.clients.reader import ClientFailed
from kopiatomic.clients.records import Figures, Missing, Request
from kopiatomic.job import Job
from unit.clients.answers import Matching

KOPIA = Job("kopiatomic", command=("kopia", "snapshot", "create"))


def lines(*objects: object) -> bytes:
    return b"\n".join(json.dumps(each).encode() for each in objects)


def manifest(path: str = "/a", **more: object) -> dict[str, object]:
    root = {**entry("root", files=1), "name": path.rpartition("/")[2]}
    return {"id": "a" * 32, "source": {"path": path}, "startTime": "2026-01-02T03:04:05Z",
            "rootEntry": root, **more}  # fmt: skip


def entry(name: str, files: int = 0, dirs: int = 1) -> dict[str, object]:
    summary = {"files": files, "symlinks": 0, "dirs": dirs}
    return {"name": name, "type": "d", "obj": f"k-{name}", "summ": summary}


def shown(each: dict[str, object]) -> bytes:
    text = json.dumps({**each, "id": ""}, indent=2)
    return f"// id: {each['id']}\n// length: 1\n// label type:snapshot\n{text}".encode()


def listing(*entries: dict[str, object]) -> bytes:
    return json.dumps({"stream": "kopia:directory", "entries": list(entries) or None}).encode()


class Gone(Matching):
    """Does not show some of the manifests, nor any other that is asked for with them."""

    def __init__(self, gone: set[str], answers: dict[str, bytes], status: int = 1) -> None:
        super().__init__(answers)
        self.gone, self.status = gone, status

    def whole(self, *words: str) -> bytes:
        if words[:2] == ("manifest", "show") and self.gone.intersection(words):
            self.asked.append(words)
            raise ClientFailed(self.status, "no such manifest")
        return super().whole(*words)


class TestKopia:
    def prove(self, points: dict[str, bool], answers: dict[str, bytes], **figures: object):
        figures = {"snapshots": ("a" * 32,), **figures}
        self.reader = Matching(answers)
        request = Request(("/a",), moment=1767323045.0)
        return Kopia().prove(self.reader, KOPIA, request, Figures(**figures), points, 0.0)

    def test_a_file_that_is_backed_up_by_itself_is_there(self):
        root = {"name": "f", "type": "f", "obj": "x", "summ": {"files": 1, "dirs": 0}}
        made = manifest("/a/f", rootEntry=root)
        proof = self.prove({"/a/f": True, "/a": True}, {"manifest show": shown(made)})
        assert (proof.found, proof.missing) == (("/a/f",), (Missing("/a"),))
        said = json.dumps(made).encode()
        assert Kopia().proves_itself(KOPIA, Request(("/a/f",)), Figures(), said, {"/a/f": True})

    def test_what_an_action_has_put_in_the_place_of_a_path_is_not_the_path(self):
        """By KOPIA_SNAPSHOT_PATH: the source bears the path, and its entry the other's name."""
        made = manifest(rootEntry=entry("elsewhere", files=1))
        proof = self.prove({"/a": True}, {"manifest show": shown(made)})
        assert (proof.backups, proof.found) == (("a" * 32,), ())
        assert proof.missing == (Missing("/a"),)
        assert "an action that names another directory" in Kopia().likely_reason(
            KOPIA, "", proof.missing[0]
        )

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

    def test_one_that_was_removed_already_is_missing(self):
        """As the first of two sources, whose retention has removed it when it was made."""
        other = {**manifest("/b"), "id": "b" * 32}
        reader = Gone({"a" * 32}, {
            "manifest show": shown(other), "manifest list": lines([{"id": "b" * 32}]),
        })  # fmt: skip
        request = Request(("/a", "/b"), moment=1767323045.0)
        figures = Figures(snapshots=("a" * 32, "b" * 32), unchanged=True)
        points = {"/a": True, "/a/c": False, "/b": True, "/z": False}
        proof = Kopia().prove(reader, KOPIA, request, figures, points, 0.0)
        assert (proof.found, proof.backups, proof.stands_in) == (("/b",), ("b" * 32,), None)
        assert proof.missing == (
            Missing("/a", removed="/a"), Missing("/a/c", removed="/a"), Missing("/z"),
        )  # fmt: skip
        reason = Kopia().likely_reason(KOPIA, "", proof.missing[1])
        assert "kopia's retention" in reason
        assert "kopia policy show /a," in reason
        assert [words[:2] for words in reader.asked] == [
            ("manifest", "show"), ("manifest", "list"), ("manifest", "show"),
        ]  # fmt: skip

    def test_also_where_it_was_the_only_one(self):
        answers = {"manifest list": b"[]"}
        request = Request(("/a",), moment=1767323045.0)
        figures = Figures(snapshots=("a" * 32,))
        proof = Kopia().prove(Gone({"a" * 32}, answers), KOPIA, request, figures, {"/a": True}, 0)
        assert proof == ((), (), (Missing("/a", removed="/a"),), None, None)

    @pytest.mark.parametrize(("status", "asked"), [(1, 2), (-9, 1)])
    def test_one_that_is_there_and_not_shown_proves_nothing(self, status: int, asked: int):
        reader = Gone({"a" * 32}, {"manifest list": lines([{"id": "a" * 32}])}, status)
        figures = Figures(snapshots=("a" * 32,))
        with pytest.raises(ClientFailed, match="no such manifest"):
            Kopia().prove(reader, KOPIA, Request(("/a",)), figures, {"/a": True}, 0.0)
        assert len(reader.asked) == asked

    def test_of_an_earlier_time_the_repository_is_asked(self):
        """As of an existing snapshot; its backup may be removed as soon as it is made."""
        past = KOPIA._replace(snapshot="auto-*")
        said, request = lines(manifest()), Request(("/a",))
        wrapped = past._replace(command=("/w",))
        for job, script, itself in (
            (KOPIA, "", True), (past, "", False), (wrapped, 'exec kopia "$@"', False),
            (wrapped, "kopia snapshot create --json /a", True),
            (KOPIA._replace(options=("--start-time", "2020-01-01")), "", False),
            (wrapped, "kopia snapshot create --start-time=2020-01-01 /a", False),
        ):  # fmt: skip
            proves = Kopia().proves_itself(job, request, Figures(), said, {"/a": True}, script)
            assert proves == itself

    def test_what_proves_itself(self):
        def proves(points: dict[str, bool], *manifests: dict[str, object]) -> bool:
            output = b"Connected\n" + lines(*manifests)
            return Kopia().proves_itself(KOPIA, Request(tuple(points)), Figures(), output, points)

        assert proves({"/a": True}, manifest())
        assert proves({"/a": True, "/b": False}, manifest(), manifest("/b", rootEntry=entry("b")))
        assert not proves({"/a": True}, manifest(rootEntry=entry("a")))
        assert not proves({"/a": True}, manifest(rootEntry=entry("elsewhere", files=1)))
        assert proves({"/": True}, manifest("/", rootEntry=entry("/", files=1)))
        assert not proves({"/a": True, "/a/b": True}, manifest())
        assert not proves({"/a": True}, manifest(incomplete="canceled"))
        assert not proves({"/a": True}, manifest(id=None))
        assert not proves({"/a": True}, manifest(rootEntry={}))
        assert not proves({"/a": True})
        assert not proves({})


@pytest.mark.parametrize(
    ("names", "there"),
    [
        (("abcdef0123",), True), (("abcd",), True), (("abcd", "beef"), True),
        (("abcd", "cafe"), False), (("bcd",), False),
    ],
)  # fmt: skip
def test_whether_backups_are_there_by_the_beginnings_of_their_ids(names, there):
    listed = json.dumps([{"id": "abcdef0123"}, {"id": "beef"}]).encode()
    assert Kopia().has_backups(Matching({"manifest list": listed}), names) == there
