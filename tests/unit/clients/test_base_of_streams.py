"""A stream: what the clients are told to store, and how it is found again."""

from __future__ import annotations

import json
import os

import pytest

from kopiatomic.clients.base import Client
from kopiatomic.clients.kopia import Kopia
from kopiatomic.clients.reader import ClientFailed
from kopiatomic.clients.records import Figures, File, Request, Source, Streamed
from kopiatomic.clients.restic import Restic
from kopiatomic.job import Job
from unit.clients.answers import Matching

DISK = "/dev/zvol/zroot/vm/disk0"
MOMENT = 1767323045.0  # 2026-01-02 03:04:05 UTC
REQUEST = Request((), moment=MOMENT, zone="UTC", stream=DISK)
RESTIC = Job("restomic", command=("restic", "backup"))
SUMMARY = {"message_type": "summary", "snapshot_id": "abc", "total_files_processed": 1,
           "total_bytes_processed": 4096}  # fmt: skip
KOPIA = Job("kopiatomic", command=("kopia", "snapshot", "create"))


def lines(*objects: object) -> bytes:
    return b"\n".join(json.dumps(each).encode() for each in objects)


def test_a_client_says_how_a_stream_is_stored() -> None:
    with pytest.raises(NotImplementedError):
        Client().stream_words(DISK)
    assert Client().said_of_stream(RESTIC, REQUEST, Figures(), b"") is None


class TestRestic:
    def test_the_command(self):
        job = RESTIC._replace(options=("--exclude", "*.raw", "--files-from=/l", "--limit-upload=9"))
        assert Restic().backup_command(job, REQUEST) == [
            "restic", "backup", "--time", "2026-01-02 03:04:05", "--tag", "restomic:default",
            "--limit-upload=9", "--stdin", "--stdin-filename", DISK,
        ]  # fmt: skip

    def test_what_chooses_files_in_the_command_is_left_out_as_well(self):
        """But not what belongs to a program that runs restic."""
        command = ("nice", "-e", "5", "restic", "-r", "/r", "backup", "-ve/dev", "--exclude=/dev")
        job = RESTIC._replace(command=command)
        assert Restic().backup_command(job, REQUEST)[:8] == [
            "nice", "-e", "5", "restic", "-r", "/r", "backup", "-v",
        ]  # fmt: skip
        assert "--exclude=/dev" not in Restic().backup_command(job, REQUEST)
        files = REQUEST._replace(stream=None, paths=("/x",))
        assert Restic().backup_command(job, files)[: len(command)] == list(command)

    def test_an_exclude_of_a_wrapper_is_named(self):
        """What a wrapper adds cannot be taken out."""
        job = RESTIC._replace(command=("/w", "backup"))
        told = Restic().excluded_by(job, 'exec restic --exclude "/dev" "$@"', DISK)
        assert told is not None
        assert told.startswith("the exclude '/dev' keeps all of it out")
        assert Restic().excluded_by(job, 'exec restic -e "/other" "$@"', DISK) is None
        assert Kopia().excluded_by(KOPIA, "", DISK) is None

    def said(self, *objects: object, job: Job = RESTIC, script: str = "") -> Streamed | None:
        output = lines(*objects)
        figures = Restic().figures(output, b"")
        return Restic().said_of_stream(job, REQUEST, figures, output, script)

    def test_its_json_is_exact(self):
        assert self.said(SUMMARY) == Streamed(("abc",), 4096)

    def test_an_exclude_of_the_command_keeps_it_out(self):
        assert self.said({**SUMMARY, "total_files_processed": 0}) == Streamed(("abc",), None)

    def test_its_text_is_not(self):
        text = b"processed 1 files, 4.000 KiB in 0:00\nsnapshot 12345678 saved\n"
        figures = Restic().figures(text, b"")
        assert Restic().said_of_stream(RESTIC, REQUEST, figures, text) is None

    def test_a_wrapper_is_asked_no_questions(self):
        assert self.said(SUMMARY, script="#!/bin/sh\n") is None
        assert self.said(SUMMARY, job=RESTIC._replace(command=("w", "backup"))) is None
        assert self.said(SUMMARY, {**SUMMARY, "snapshot_id": "def"}) is None

    def snapshot(self, **more: object) -> dict[str, object]:
        return {"id": "abc123", "paths": [DISK], "time": "2026-01-02T03:04:05Z",
                "hostname": os.uname().nodename, "struct_type": "snapshot", **more}  # fmt: skip

    def node(self, path: str = DISK, kind: str = "file", size: int = 4096) -> dict[str, object]:
        return {"path": path, "type": kind, "size": size, "struct_type": "node"}

    def prove(self, answers: dict[str, bytes], made: tuple[str, ...] = ("abc",)) -> Streamed:
        self.reader = Matching(answers)
        figures = Figures(snapshots=made)
        return Restic().prove_stream(self.reader, RESTIC, REQUEST, figures, MOMENT)

    def test_the_directory_of_it_is_listed(self):
        listed = lines(self.snapshot(), self.node("/dev/zvol/zroot/vm", "dir"), self.node())
        assert self.prove({"ls ": listed}) == Streamed(("abc",), 4096)
        assert self.reader.asked == [
            ("ls", "--no-lock", "--json", "abc", "/dev/zvol/zroot/vm"),
        ]  # fmt: skip

    @pytest.mark.parametrize("kind", ["dir", "chardev"])
    def test_the_name_of_something_else(self, kind: str):
        listed = lines(self.snapshot(), self.node(kind=kind))
        assert self.prove({"ls ": listed}) == Streamed(("abc",), None)

    def test_where_it_did_not_say_what_it_made_that_is_found(self):
        other = self.snapshot(id="def456", paths=["/home"])
        answers = {
            "snapshots ": json.dumps([other, self.snapshot()]).encode(),
            "ls ": lines(self.snapshot(), self.node()),
        }
        assert self.prove(answers, ()) == Streamed(("abc123",), 4096)
        assert self.prove({"snapshots ": b"[]"}, ()) == Streamed()

    def test_of_several_repositories_each_counts(self):
        first = lines(self.snapshot(), self.node())
        second = lines(self.snapshot(id="def456"), self.node(size=512))
        answers = {"ls --no-lock --json abc": first, "ls --no-lock --json def": second}
        assert self.prove(answers, ("abc", "def")) == Streamed(("abc", "def"), 512)
        answers["ls --no-lock --json def"] = lines(self.snapshot(id="def456"))
        assert self.prove(answers, ("abc", "def")) == Streamed(("abc", "def"), None)

    def test_what_is_not_understood_proves_nothing(self):
        with pytest.raises(ClientFailed, match="not understood"):
            self.prove({"ls ": b"hello"})

    def test_the_file_for_a_drill(self):
        reader = Matching({"ls ": lines(self.snapshot(), self.node())})
        source = Source("abc123", DISK, MOMENT, paths=(DISK,))
        found = Restic().stream_in(reader, source)
        assert found == File(DISK, 4096, None, ("dump", "abc123", DISK))
        reader = Matching({"ls ": lines(self.snapshot())})
        assert Restic().stream_in(reader, source) is None


class TestKopia:
    def test_the_command(self):
        """A source of its own, since kopia's retention is for each source."""
        assert Kopia().backup_command(KOPIA, REQUEST) == [
            "kopia", "snapshot", "create", "--start-time", "2026-01-02 03:04:05 UTC", "--json",
            "--json-verbose", "--progress", "--stdin-file", "disk0", DISK,
        ]  # fmt: skip

    def manifest(self, **more: object) -> dict[str, object]:
        root = {"type": "d", "obj": "k1", "summ": {"files": 1, "dirs": 1, "size": 4096}}
        return {"id": "a" * 32, "source": {"path": DISK}, "startTime": "2026-01-02T03:04:05Z",
                "rootEntry": root, **more}  # fmt: skip

    def said(self, *objects: object) -> Streamed | None:
        output = lines(*objects)
        return Kopia().said_of_stream(KOPIA, REQUEST, Kopia().figures(output, b""), output)

    def test_its_json_is_exact(self):
        assert self.said(self.manifest()) == Streamed(("a" * 32,), 4096)

    @pytest.mark.parametrize("odd", [{"id": ""}, {"incomplete": "checkpoint"}])
    def test_what_is_no_backup_yet_says_nothing(self, odd: dict[str, object]):
        assert self.said(self.manifest(**odd)) is None

    @pytest.mark.parametrize(
        "odd", [{"source": {"path": "/dev/zvol/zroot/vm"}}, {"rootEntry": {"summ": {"files": 2}}}]
    )
    def test_one_of_something_else_is_none_of_it(self, odd: dict[str, object]):
        assert self.said(self.manifest(**odd)) == Streamed(("a" * 32,), None)

    @pytest.mark.parametrize("odd", [{"source": {}}, {"rootEntry": 1}])
    def test_what_is_not_understood_says_nothing(self, odd: dict[str, object]):
        assert self.said(self.manifest(**odd)) is None

    def test_the_repository_is_asked_for_what_it_made(self):
        shown = json.dumps({**self.manifest(), "id": ""}, indent=2)
        text = f"// id: {'a' * 32}\n// length: 1\n{shown}".encode()
        reader = Matching({"manifest show": text})
        figures = Figures(snapshots=("a" * 32,))
        assert Kopia().prove_stream(reader, KOPIA, REQUEST, figures, 0.0) == Streamed(
            ("a" * 32,), 4096
        )

    def test_and_for_what_is_new(self):
        listed = json.dumps([{"id": "a" * 32, "mtime": "2026-01-02T03:04:06Z"}]).encode()
        shown = json.dumps({**self.manifest(), "id": ""}, indent=2)
        text = f"// id: {'a' * 32}\n// length: 1\n{shown}".encode()
        reader = Matching({"manifest list": listed, "manifest show": text})
        found = Kopia().prove_stream(reader, KOPIA, REQUEST, Figures(), MOMENT)
        assert found == Streamed(("a" * 32,), 4096)
        reader = Matching({"manifest list": b"[]"})
        assert Kopia().prove_stream(reader, KOPIA, REQUEST, Figures(), MOMENT) == Streamed()

    def test_the_file_for_a_drill(self):
        entries = [{"name": "disk0", "type": "f", "size": 4096, "obj": "Ixabc"}]
        reader = Matching({"show k1": json.dumps({"entries": entries}).encode()})
        source = Source("a" * 32, DISK, MOMENT, DISK, {"obj": "k1"}, (DISK,))
        assert Kopia().stream_in(reader, source) == File(
            f"{DISK}/disk0", 4096, None, ("show", "Ixabc")
        )
        reader = Matching({"show k1": json.dumps({"entries": None}).encode()})
        assert Kopia().stream_in(reader, source) is None
