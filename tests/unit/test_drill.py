"""The restore drill: which files, how they are compared, and that nothing else is touched."""

import json
import os
import random
import signal
import stat
import sys
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from kopiatomic import cli, drill, state
from kopiatomic.client import Signals
from kopiatomic.command import Door
from kopiatomic.drill import CHANGED, IDENTICAL, Comparer, File, Scratch, Source, Tally
from kopiatomic.job import Job
from kopiatomic.refusal import EX_NOINPUT, EX_USAGE, Refusal
from kopiatomic.upkeep import Account


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(state, "RUN_ROOT", str(tmp_path / "run"))
    monkeypatch.setattr(state, "STATE_DIRECTORY", str(tmp_path / "db"))
    monkeypatch.setattr("kopiatomic.preflight.need_root", lambda job: None)
    return state.Place("restomic", "default")


class Client:
    """Answers in a client's place: a dictionary of words to output."""

    def __init__(self, answers):
        self.answers = dict(answers)
        self.asked = []

    def whole(self, *words):
        self.asked.append(words)
        return self.answers[words]

    def lines(self, *words):
        return iter(self.whole(*words).split(b"\n"))


def node(path, size=3, kind="file"):
    return {
        "name": os.path.basename(path), "type": kind, "path": path, "size": size, "inode": 7,
        "mtime": "2026-01-02T03:04:05.000000006Z", "ctime": "2026-01-02T03:04:05.7+01:00",
    }  # fmt: skip


def listing(*nodes):
    return "\n".join(json.dumps(each, ensure_ascii=False) for each in nodes).encode()


class TestResticFiles:
    SOURCE = Source("abc", "/h", 0.0)

    def choose(self, listed, wanted=2, limit=100, seed=1):
        tally = Tally(self.SOURCE)
        client = Client({("ls", "--json", "abc"): listed})
        return drill.restic_files(client, tally, wanted, limit, random.Random(seed)), tally

    def test_only_plain_files(self):
        listed = listing({"message_type": "snapshot"}, node("/h", kind="dir"), node('/h/"file"'),
                         node("/h/l", kind="symlink"))  # fmt: skip
        ((file,), _) = self.choose(listed)
        assert file == File(
            '/h/"file"', 3, 1767323045_000000006, ("dump", "abc", '/h/"file"'),
            ctime=1767319445_700000000, inode=7,
        )  # fmt: skip

    def test_every_file_has_the_same_chance(self):
        listed = listing(*(node(f"/h/{number}") for number in range(10)))
        counts = Counter(
            file.path for seed in range(2000) for file in self.choose(listed, 3, seed=seed)[0]
        )
        assert len(counts) == 10
        assert all(500 < count < 700 for count in counts.values())

    def test_the_same_seed_chooses_the_same(self):
        listed = listing(*(node(f"/h/{number}") for number in range(100)))
        assert self.choose(listed, seed=5)[0] == self.choose(listed, seed=5)[0]

    def test_large_files_are_counted_and_passed_over(self):
        files, tally = self.choose(listing(node("/h/large", size=101), node("/h/small", size=100)))
        assert [file.path for file in files] == ["/h/small"]
        assert tally.too_large == 1

    def test_names_that_are_not_utf8_are_counted_and_passed_over(self):
        raw = listing(node("/h/X")).replace(b"X", b"\\ufffd")
        genuine, backslash = listing(node("/h/\ufffd")), listing(node("/h/\\ufffd"))
        files, tally = self.choose(b"\n".join([raw, genuine, backslash]), 9)
        assert [file.path for file in files] == ["/h/\ufffd", "/h/\\ufffd"]
        assert tally.unnamed == 1


def directory(name, obj, files):
    return {"name": name, "type": "d", "obj": obj, "summ": {"files": files}}


def plain(name, obj, size=3):
    return {"name": name, "type": "f", "obj": obj, "size": size, "mtime": "2026-01-02T03:04:05Z"}


KOPIA_ROOT = directory("h", "k0", 5)
KOPIA_ANSWERS = {
    ("show", "k0"): {"entries": [
        directory("d", "k1", 3), {"name": "l", "type": "s", "obj": "o"}, plain("e\n", "f1"),
        directory("empty", "k3", 0), plain("-f", "f2", 200)]},
    ("show", "k1"): {"entries": [directory("d", "k2", 2), plain("a", "f3")]},
    ("show", "k2"): {"entries": [plain("b", "f4"), plain("c", "f5")]},
}  # fmt: skip


class TestKopiaFiles:
    def choose(self, wanted, limit=100, seed=1, root=None):
        root = KOPIA_ROOT if root is None else root
        tally = Tally(Source("id", "/h", 0.0, path="/h", root=root))
        answers = {words: json.dumps(each).encode() for words, each in KOPIA_ANSWERS.items()}
        client = Client(answers)
        return drill.kopia_files(client, tally, wanted, limit, random.Random(seed)), tally, client

    def test_all_of_them(self):
        files, tally, client = self.choose(9)
        assert {(file.path, *file.fetch) for file in files} == {
            ("/h/e\n", "show", "f1"), ("/h/d/a", "show", "f3"), ("/h/d/d/b", "show", "f4"),
            ("/h/d/d/c", "show", "f5"),
        }  # fmt: skip
        assert tally.too_large == 1
        assert len(client.asked) == 3

    def test_every_file_has_the_same_chance(self):
        counts = Counter(
            file.path for seed in range(2000) for file in self.choose(1, 300, seed)[0]
        )
        assert len(counts) == 5
        assert all(330 < count < 470 for count in counts.values())

    def test_a_source_that_is_a_file(self):
        files, _, client = self.choose(3, root=plain("h", "f9"))
        assert [(file.path, file.fetch) for file in files] == [("/h", ("show", "f9"))]
        assert client.asked == []

    def test_a_directory_that_lacks_files(self):
        with pytest.raises(drill.ClientFailed, match="fewer files"):
            self.choose(9, root=directory("h", "k2", 30))

    def test_what_is_no_json(self):
        client = Client({("show", "k0"): b"garbage"})
        tally = Tally(Source("id", "/h", 0.0, path="/h", root=KOPIA_ROOT))
        with pytest.raises(drill.ClientFailed, match="not understood"):
            drill.kopia_files(client, tally, 1, 100, random.Random(1))


def test_kopias_newest_complete_backup_of_each_source():
    def manifest(name, path, when, **more):
        return {"id": name, "source": {"path": path}, "startTime": when, "rootEntry": {}, **more}

    listed = [
        manifest("1", "/b", "2026-01-01T00:00:00Z"), manifest("2", "/b", "2026-01-03T00:00:00Z"),
        manifest("3", "/b", "2026-01-02T00:00:00Z"), manifest("4", "/a", "2026-01-01T00:00:00Z"),
        manifest("5", "/a", "2026-01-09T00:00:00Z", incomplete="canceled"),
    ]  # fmt: skip
    client = Client({("snapshot", "list", "--json"): json.dumps(listed).encode()})
    assert [(each.path, each.backup) for each in drill.kopia_sources(client)] == [
        ("/a", "4"), ("/b", "2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("2001-09-09T01:46:40.123456789Z", 10**18 + 123456789),
        ("2001-09-09T03:46:40.5+02:00", 10**18 + 500000000),
        ("1969-12-31T23:59:59.25Z", -750000000),
        ("0001-01-01T00:00:00Z", -62135596800 * 10**9),
        ("garbage", None),
        (None, None),
        ("12026-01-01T00:00:00Z", None),
    ],
)
def test_times(text, value):
    assert drill.nanoseconds(text) == value


@pytest.fixture
def live(tmp_path):
    path = tmp_path / "live"
    path.write_bytes(b"x" * 300_000 + b"end")
    return path


def recorded(path, **changes):
    found = os.stat(path)
    fields = {
        "path": str(path), "size": found.st_size, "mtime": found.st_mtime_ns, "fetch": (),
        "ctime": found.st_ctime_ns, "inode": found.st_ino,
    }  # fmt: skip
    return File(**{**fields, **changes})


def compare(tmp_path, file, content, moment=None):
    (tmp_path / "restored").write_bytes(content)
    descriptor = os.open(tmp_path / "restored", os.O_RDONLY)
    try:
        moment = time.time() + 60 if moment is None else moment
        return Comparer(Door()).compare(descriptor, file, moment)
    finally:
        os.close(descriptor)


@pytest.fixture
def no_zfs(fp):
    table = '{"mount": {"mounted": []}}'
    fp.register(["mount", "-v", "--libxo", "json"], stdout=table, occurrences=9)


@pytest.mark.usefixtures("no_zfs")
class TestComparison:
    def test_identical(self, tmp_path, live):
        assert compare(tmp_path, recorded(live), live.read_bytes()) == IDENTICAL

    def test_identical_whatever_its_inode_and_change(self, tmp_path, live):
        file = recorded(live, ctime=1, inode=1)
        assert compare(tmp_path, file, live.read_bytes()) == IDENTICAL

    def test_different_although_unchanged(self, tmp_path, live):
        verdict = compare(tmp_path, recorded(live), b"x" * 300_000 + b"eNd")
        assert verdict.startswith("differs from byte 300001 on, although ")

    def test_a_backup_without_change_times_goes_by_its_moment(self, tmp_path, live):
        file = recorded(live, ctime=None, inode=None)
        other = b"x" * 300_000 + b"eNd"
        assert "differs" in compare(tmp_path, file, other)
        assert compare(tmp_path, file, other, moment=1.0) == CHANGED

    @pytest.mark.parametrize("field", ["mtime", "ctime", "inode"])
    def test_a_changed_live_file_is_no_difference(self, tmp_path, live, field):
        file = recorded(live, **{field: 5})
        assert compare(tmp_path, file, b"y" * 300_003) == CHANGED

    def test_a_live_file_that_is_gone_or_else(self, tmp_path, live):
        file = recorded(live)
        content = live.read_bytes()
        live.unlink()
        assert compare(tmp_path, file, content) == CHANGED
        os.mkfifo(live)
        assert compare(tmp_path, file, content) == CHANGED
        live.unlink()
        live.symlink_to("/dev/zero")
        assert compare(tmp_path, file, content) == CHANGED

    def test_another_size_than_recorded(self, tmp_path, live):
        verdict = compare(tmp_path, recorded(live), b"short")
        assert verdict == "restored as 5 bytes, but backed up as 300003"


def test_a_changed_file_is_looked_for_in_the_nearest_zfs_snapshots(fp, tmp_path):
    point = tmp_path / "data"
    entry = {"special": "tank/a", "node": str(point), "fstype": "zfs"}
    fp.register(
        ["mount", "-v", "--libxo", "json"], stdout=json.dumps({"mount": {"mounted": [entry]}})
    )
    fp.register(
        ["zfs", "list", "-Hp", "-d", "1", "-t", "snapshot", "-o", "name,creation", "tank/a"],
        stdout="tank/a@old\t10\ntank/a@before\t90\ntank/a@after\t110\ntank/a@late\t200\n",
    )
    (point / "d").mkdir(parents=True)
    (point / "d/f").write_text("new")
    for name in ("old", "before", "after", "late"):
        (point / ".zfs/snapshot" / name / "d").mkdir(parents=True)
    kept = point / ".zfs/snapshot/after/d/f"
    kept.write_text("as it was")
    file = replace(recorded(kept), path=str(point / "d/f"))
    assert compare(tmp_path, file, b"as it was", moment=100.5) == IDENTICAL


class TestScratch:
    @pytest.fixture
    def account(self, place):
        state.private_directory(state.STATE_DIRECTORY)
        return Account("drill", "restomic", "default", 0.0)

    def test_is_closed_and_goes(self, place, account):
        with Scratch(place, account) as scratch:
            assert stat.S_IMODE(os.stat(scratch.path).st_mode) == 0o700
            with scratch.file(10) as descriptor:
                assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
                assert os.listdir(scratch.path) == ["file"]
            assert os.listdir(scratch.path) == []
        assert os.listdir(state.STATE_DIRECTORY) == []
        assert account.problems == []

    def test_what_is_not_ours_in_it_stays_and_is_told(self, place, account, tmp_path):
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious/file").write_text("x")
        with Scratch(place, account) as scratch:
            os.symlink(tmp_path / "precious", scratch.path + "/link")
            os.mkdir(scratch.path + "/directory")
            open(scratch.path + "/left", "w").close()
        assert (tmp_path / "precious/file").exists()
        assert sorted(os.listdir(scratch.path)) == ["directory", "link"]
        assert account.status
        assert f"{scratch.path} stays" in account.problems[0]

    def test_no_room(self, place, account):
        with (
            Scratch(place, account) as scratch,
            pytest.raises(OSError, match="too much"),
            scratch.file(1 << 60),
        ):
            pass

    def test_what_a_killed_drill_left_is_swept(self, place, account):
        other = state.Place("restomic", "default.x")
        dead, foreign = Scratch(place, account), Scratch(other, account)
        open(dead.path + "/file", "w").close()
        os.symlink("/etc", f"{state.STATE_DIRECTORY}/drill.restomic.default.abcdefgh")
        open(f"{state.STATE_DIRECTORY}/restomic.default.history", "w").close()
        notes = drill.sweep(place)
        assert any(dead.path in note and "is removed" in note for note in notes)
        assert any("abcdefgh" in note and "stays" in note for note in notes)
        assert not os.path.exists(dead.path)
        assert os.path.exists(foreign.path)
        assert os.path.exists("/etc/passwd")


@pytest.fixture
def restic(tmp_path):
    """A stand-in for restic with two files, of which the second is damaged."""
    (tmp_path / "good").write_text("good")
    found = os.stat(tmp_path / "good")
    entries = [
        {**node(str(tmp_path / "good"), 4), "inode": found.st_ino},
        node("/nowhere/bad\nfile", 4),
    ]
    answers = {
        "snapshots": json.dumps([{"id": "0123456789", "paths": ["/p"],
                                  "time": "2026-01-02T03:04:05Z"}]),
        "ls": "\n".join(json.dumps(each) for each in entries),
    }  # fmt: skip
    script = tmp_path / "restic-x"
    script.write_text(
        f"#!{sys.executable} -I\nimport os, sys, time\n"
        f"open({str(tmp_path / 'calls')!r}, 'a').write(repr(sys.argv[1:]) + chr(10))\n"
        "if os.environ.get('SLOW') == sys.argv[1]: time.sleep(30)\n"
        "if os.environ.get('FAIL') == sys.argv[1]: sys.stderr.write('Fatal: no'); sys.exit(12)\n"
        f"if sys.argv[1] in {answers!r}: print({answers!r}[sys.argv[1]])\n"
        "elif sys.argv[3].endswith('good'): print('good', end='')\n"
        "else: print('Fatal: ciphertext verification failed', file=sys.stderr); sys.exit(1)\n"
    )
    script.chmod(0o755)
    return Job("restomic", command=(str(script), "backup"))


class TestRun:
    def run(self, job, **environment):
        return drill.run(job, Door(), environment, drill.Wishes(files=5, seed=7))

    def test_what_does_not_come_back_is_told(self, place, restic):
        account = self.run(restic)
        assert (account.outcome, account.status) == ("failed", 1)
        (problem,) = account.problems
        assert problem == (
            "/nowhere/bad\nfile: cannot be restored: restic-x dump: "
            "Fatal: ciphertext verification failed (exit status 1)"
        )
        (tally,) = account.tallies
        assert (tally.chosen, tally.restored) == (2, 1)
        text = drill.as_text(account)
        assert text.startswith("restomic: the restore drill FAILED, ")
        assert "  ! /nowhere/bad\\x0afile: cannot be restored" in text
        assert "--seed 7 " in text
        assert "0 of 2 files restored identical" in text
        assert os.listdir(state.STATE_DIRECTORY) == ["restomic.default.upkeep"]

    def test_goes_into_the_history_of_upkeep(self, place, restic):
        self.run(restic)
        (entry,) = state.read_upkeep(place)
        assert (entry["kind"], entry["outcome"]) == ("drill", "failed")
        assert entry["steps"][0]["outcome"] == "failed"
        assert state.read_history(place) == []

    def test_is_limited_to_this_host(self, place, restic, tmp_path):
        self.run(restic, RESTIC_HOST="elsewhere")
        first = (tmp_path / "calls").read_text().split("\n")[0]
        assert first == "['snapshots', '--json', '--latest', '1', '--host', 'elsewhere']"

    def test_a_client_that_fails(self, place, restic):
        account = self.run(restic, FAIL="snapshots")
        assert account.status == 12
        assert account.problems[0].endswith(
            "Fatal: no (exit status 12); the repository's password is wrong"
        )

    def test_a_source_that_cannot_be_listed(self, place, restic):
        account = self.run(restic, FAIL="ls")
        assert account.status == 1
        assert account.problems[0].startswith("/p: restic-x ls: Fatal: no (exit status 12)")

    def test_secrets_stay_unseen(self, place, restic):
        account = self.run(restic, PASSWORD="ciphertext")
        kept = [drill.as_dict(account), state.read_upkeep(place)]
        told = drill.as_text(account) + json.dumps(kept)
        assert "Fatal: [hidden] verification failed" in told
        assert "ciphertext" not in told

    def test_no_backup(self, place, restic, monkeypatch):
        monkeypatch.setattr(drill, "restic_sources", lambda reader, host: [])
        assert self.run(restic).status == EX_NOINPUT

    @pytest.mark.parametrize("step", ["snapshots", "ls", "dump"])
    def test_a_signal_ends_it_in_order(self, place, restic, step):
        timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        began = time.monotonic()
        account = self.run(restic, SLOW=step)
        assert time.monotonic() - began < 10
        assert (account.outcome, account.status) == ("interrupted", 128 + 15)
        assert os.listdir(state.STATE_DIRECTORY) == ["restomic.default.upkeep"]


def test_a_listing_is_read_as_it_comes(place):
    state.private_directory(state.STATE_DIRECTORY)
    code = "import sys\nfor i in range(100000): print('x' * 50)\nprint('end', end='')"
    with Signals() as signals:
        reader = drill.Reader(Door(), [sys.executable, "-c"], os.environ, signals)
        lines = list(reader.lines(code))
    assert len(lines) == 100_001
    assert lines[-1] == b"end"


def test_a_listing_left_early_ends_the_client(place):
    state.private_directory(state.STATE_DIRECTORY)
    code = "import time\nprint('one', flush=True)\ntime.sleep(60)"
    with Signals() as signals:
        reader = drill.Reader(Door(), [sys.executable, "-c"], os.environ, signals)
        began = time.monotonic()
        lines = reader.lines(code)
        assert next(lines) == b"one"
        lines.close()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("text", "size"), [("5", 5), ("2k", 2048), ("500M", 500 << 20), ("1G", 1 << 30)]
)
def test_sizes(text, size):
    assert drill.size_of(text) == size


@pytest.mark.parametrize("words", [["--size-limit", "x"], ["--seed", "-1"], ["--seed", "x"]])
def test_bad_numbers(capsys, monkeypatch, words):
    monkeypatch.setattr("kopiatomic.preflight.need_root", lambda job: None)
    assert cli.main("restomic", ["--drill", "3", *words]) == EX_USAGE
    assert cli.main("restomic", ["--drill", "0"]) == EX_USAGE


def test_size_and_count_raise():
    with pytest.raises(Refusal):
        drill.size_of("1.5G")
