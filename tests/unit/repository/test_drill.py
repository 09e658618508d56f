"""The restore drill, from the repository to the report."""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter

import pytest

from kopiatomic import state
from kopiatomic.clients import make_ready
from kopiatomic.clients.kopia import Kopia
from kopiatomic.clients.records import Source, Tally
from kopiatomic.clients.restic import Restic
from kopiatomic.errors import EX_NOINPUT, Refusal
from kopiatomic.job import Job
from kopiatomic.repository import drill
from kopiatomic.repository.drill import outdated, shared_out
from kopiatomic.system.command import Door
from unit.drills import NoRoom, node

LIMIT = 1 << 30

# A tree as a nested table: a file is its size.
TREE = {
    "a": {f"f{number}": 3 for number in range(50)},
    "b": {"deep": {"g": 3, "nested": {"h": 3, "i": 3}}, "large": LIMIT + 1},
    "empty": {},
    "only": {"mount": {"j": 3}},
}


@pytest.fixture
def restic(tmp_path):
    """A stand-in for restic with two files, of which the second is damaged."""
    (tmp_path / "good").write_text("good")
    found = os.stat(tmp_path / "good")
    entries = [
        {**node(str(tmp_path / "good"), 4), "inode": found.st_ino},
        node("/nowhere/bad\nfile", 4),
    ]
    begun = {"message_type": "snapshot", "id": "0123456789", "paths": ["/p"]}
    answers = {
        "snapshots": json.dumps([{"id": "0123456789", "paths": ["/p"],
                                  "time": "2026-01-02T03:04:05Z"}]),
        "ls": "\n".join(json.dumps(each) for each in [begun, *entries]),
    }  # fmt: skip
    script = tmp_path / "restic-x"
    script.write_text(
        f"#!{sys.executable} -I\nimport os, signal, sys, time\n"
        f"open({str(tmp_path / 'calls')!r}, 'a').write(repr(sys.argv[1:]) + chr(10))\n"
        "if os.environ.get('KILLS') == sys.argv[1]:\n"
        "    os.kill(os.getppid(), signal.SIGTERM); time.sleep(30)\n"
        f"    open({str(tmp_path / 'calls')!r}, 'a').write('slept well')\n"
        "if os.environ.get('FAIL') == sys.argv[1]: sys.stderr.write('Fatal: no'); sys.exit(12)\n"
        f"if sys.argv[1] in {answers!r}: print({answers!r}[sys.argv[1]])\n"
        "elif sys.argv[3].endswith('good'): print('good', end='')\n"
        "else: print('Fatal: ciphertext verification failed', file=sys.stderr); sys.exit(1)\n"
    )
    script.chmod(0o755)
    return Job("restomic", command=(str(script), "backup"))


class TestRun:
    def run(self, job, **environment):
        return drill.run(make_ready(job, Door(), environment), drill.Wishes(files=5, seed=7))

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

    def test_two_ways_to_one_repository_are_told(self, place, restic, monkeypatch):
        """Each run makes a backup of its own in each, so none is in another one."""
        made = {"/a.env": "1", "/b.env": "2", "/c.env": "3"}
        held = {"/a.env": "13", "/b.env": "2", "/c.env": "13"}

        def sources(_client, reader, *_):
            return [Source(made[reader.environment["FILE"]], "/p", 0.0, paths=("/p",))]

        def has_backups(_client, reader, names):
            return any(name in held[reader.environment["FILE"]] for name in names)

        monkeypatch.setattr(Restic, "has_backups", has_backups)
        jobs = [restic._replace(env_files=(file,), environment={"FILE": file}) for file in made]
        monkeypatch.setattr(Restic, "sources", sources)
        task = make_ready(jobs[0], Door(), {}, further=jobs[1:])
        account = drill.run(task, drill.Wishes(files=5, seed=7))
        (problem,) = [each for each in account.problems if "one repository" in each]
        assert problem.startswith("the last backup in a.env is in c.env as well, where no run")
        assert state.read_upkeep(place)[-1]["outcome"] == "failed"

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
        monkeypatch.setattr(Restic, "sources", lambda *_: [])
        assert self.run(restic).status == EX_NOINPUT

    def test_a_layout_is_no_source_of_files(self, place, restic, monkeypatch):
        layout = Source("a", "layout", 0.0, paths=("/kopiatomic/layout/default.json",))
        monkeypatch.setattr(Restic, "sources", lambda *_: [layout])
        assert self.run(restic).status == EX_NOINPUT

    @pytest.mark.usefixtures("surviving")
    @pytest.mark.parametrize("step", ["snapshots", "ls", "dump"])
    def test_a_signal_ends_it_in_order(self, place, restic, step, tmp_path):
        account = self.run(restic, KILLS=step)
        assert (account.outcome, account.status) == ("interrupted", 128 + 15)
        assert os.listdir(state.STATE_DIRECTORY) == ["restomic.default.upkeep"]
        assert "slept well" not in (tmp_path / "calls").read_text()


@pytest.mark.parametrize(
    ("text", "size"), [("5", 5), ("2k", 2048), ("500M", 500 << 20), ("1G", 1 << 30)]
)
def test_sizes(text, size):
    assert drill.size_of(text) == size


def test_size_and_count_raise():
    with pytest.raises(Refusal):
        drill.size_of("1.5G")

class Restics:
    """Answers as ``restic ls`` does."""

    def __init__(self, tree: dict, above: str = "/p") -> None:
        self.told = [json.dumps({"struct_type": "snapshot", "paths": [above]})]
        self.walk(above, tree)

    def walk(self, path: str, tree: dict) -> None:
        self.told.append(json.dumps({"path": path, "type": "dir"}))
        for name, inside in tree.items():
            if isinstance(inside, dict):
                self.walk(f"{path}/{name}", inside)
            else:
                entry = {"path": f"{path}/{name}", "type": "file", "size": inside, "mode": 0o644}
                self.told.append(json.dumps({**entry, "uid": 7, "gid": 8}))

    def lines(self, *words: str) -> list[bytes]:
        return [b"the wrapper says {}", b"{not json", *map(str.encode, self.told)]


class Kopias:
    """Answers as ``kopia show`` does, and counts how often it was asked."""

    preface = b""

    def __init__(self, tree: dict) -> None:
        self.objects: dict[str, dict] = {}
        self.root = self.entry("p", tree)
        self.asked: Counter[str] = Counter()

    def entry(self, name: str, inside: object) -> dict:
        if not isinstance(inside, dict):
            return {"name": name, "type": "f", "size": inside, "obj": f"f{len(self.objects)}",
                    "mode": "04000755", "uid": 7}  # fmt: skip
        entries = [self.entry(*item) for item in inside.items()]
        sums = {"files": 0, "dirs": 1, "symlinks": 0}
        for each in entries:
            for key in sums:
                sums[key] += each["summ"][key] if "summ" in each else key == "files"
        key = f"k{len(self.objects)}"
        self.objects[key] = {"stream": "kopia:directory", "entries": entries or None}
        return {"name": name, "type": "d", "obj": key, "summ": sums}

    def whole(self, *words: str) -> bytes:
        self.asked[words[-1]] += 1
        return b"Connected\n" + json.dumps(self.objects[words[-1]]).encode()


def choose(name: str, wanted: int, *points: str, seed: int = 1, tree: dict = TREE):
    """Return the paths that were chosen, and the tally."""
    rng = random.Random(seed)
    if name == "restic":
        tally = Tally(Source("id", "/p", 9.0, paths=("/p",)), points)
        files = Restic().files(Restics(tree), NoRoom(), tally, wanted, LIMIT, rng)
    else:
        reader = Kopias(tree)
        tally = Tally(Source("id", "/p", 9.0, "/p", reader.root, ("/p",)), points)
        files = Kopia().files(reader, NoRoom(), tally, wanted, LIMIT, rng)
        assert max(reader.asked.values(), default=0) <= 1
    return [file.path for file in files], tally


@pytest.mark.parametrize("name", ["restic", "kopia"])
class TestChoice:
    def test_each_mount_point_has_its_share(self, name: str):
        points = ("/p", "/p/a", "/p/b/deep/nested", "/p/only/mount")
        for seed in range(20):
            paths, tally = choose(name, 4, *points, seed=seed)
            assert len(set(paths)) == 4
            assert sum(path.startswith("/p/a/") for path in paths) == 1
            assert sum(path.startswith("/p/b/deep/nested/") for path in paths) == 1
            assert "/p/b/deep/g" in paths
            assert "/p/only/mount/j" in paths
            assert (tally.absent, tally.empty) == ([], [])

    def test_more_mount_points_than_files(self, name: str):
        paths, _ = choose(name, 1, "/p/a", "/p/b", "/p/only")
        assert len(paths) == 3

    def test_what_some_lack_others_have(self, name: str):
        paths, _ = choose(name, 10, "/p/only", "/p/a", "/p/empty")
        assert len(paths) == 10
        assert "/p/only/mount/j" in paths

    def test_every_file_has_a_chance(self, name: str):
        chosen = Counter()
        for seed in range(150):
            chosen.update(choose(name, 3, "/p", "/p/a", seed=seed)[0])
        assert {"/p/b/deep/g", "/p/b/deep/nested/h", "/p/b/deep/nested/i"} < set(chosen)
        assert len([path for path in chosen if path.startswith("/p/a/")]) > 40
        assert "/p/b/large" not in chosen

    def test_all_there_are(self, name: str):
        paths, tally = choose(name, 999, "/p", "/p/a")
        assert len(paths) == len(set(paths)) == 54
        assert tally.too_large == 1
        assert choose(name, 999)[0]

    def test_what_is_not_there(self, name: str):
        _, tally = choose(name, 3, "/p/a", "/p/gone", "/p/empty", "/p/a/f1", "/other", "/p/only")
        assert tally.absent == ["/p/gone", "/p/a/f1", "/other"]
        assert tally.empty == ["/p/empty"]

    def test_a_backup_without_files(self, name: str):
        paths, tally = choose(name, 3, "/p", "/p/x", tree={"x": {}})
        assert paths == []
        assert tally.empty == ["/p/x"]


def test_what_the_backup_notes_of_a_file():
    source = Source("id", "/p", 9.0, paths=("/p",))
    (file,) = Restic().files(Restics({"f": 3}), NoRoom(), Tally(source), 3, LIMIT, random.Random(1))
    assert (file.owner, file.group, file.mode) == (7, 8, 0o644)
    reader = Kopias({"f": 3})
    source = Source("id", "/p", 9.0, "/p", reader.root)
    (file,) = Kopia().files(reader, NoRoom(), Tally(source), 3, LIMIT, random.Random(1))
    assert (file.owner, file.group, file.mode) == (7, 0, 0o1755)


def test_the_paths_that_a_backup_must_hold():
    rows = [{"dataset": "t", "mountpoint": "/t"},
            {"dataset": "r", "mountpoint": "/", "directories": ["/etc", "/root"]},
            {"dataset": "o", "mountpoint": 7}, {"mountpoint": "/o", "directories": 7}]  # fmt: skip
    assert drill.paths_of(rows) == ["/t", "/etc", "/root", "/o"]


def test_a_file_that_is_backed_up_by_itself():
    tally = Tally(Source("id", "/p/f", 9.0, paths=("/p/f",)), ("/p/f",))
    (file,) = Restic().files(Restics({"f": 3}), NoRoom(), tally, 3, LIMIT, random.Random(1))
    assert (file.path, tally.absent, tally.empty) == ("/p/f", [], [])


class TestSharing:
    def test_the_newest_that_covers_it(self):
        old = Source("1", "", 1.0, paths=("/a", "/b"))
        new = Source("2", "", 2.0, paths=("/a",))
        root = Source("3", "", 0.5, paths=("/",))
        assert shared_out(["/a", "/a/x", "/b", "/c"], [old, new, root]) == (
            [("/b",), ("/a", "/a/x"), ("/c",)], [],
        )  # fmt: skip
        assert shared_out(["/ab", "/a\udcfe"], [new]) == ([()], ["/ab", "/a\udcfe"])
        assert shared_out(["/\udcfe/x"], [Source("1", "", 1.0, paths=("/\udcff",))]) == (
            [("/\udcfe/x",)], [],
        )  # fmt: skip
        assert shared_out(["/a"], []) == ([], ["/a"])


class TestOutdated:
    """restic has a source for each set of paths that a job had in the course of time."""

    OLD = Source("11aa", "", 1.0, paths=("/a", "/b"))
    NEW = Source("22bb", "", 2.0, paths=("/a", "/b", "/c"))
    OTHER = Source("33cc", "", 1.5, paths=("/z",))

    def outdated(self, points: list[str], *backups: str) -> set[str]:
        sources = [self.OLD, self.NEW, self.OTHER]
        return outdated(sources, shared_out(points, sources)[0], backups)

    def test_an_earlier_set_of_paths(self):
        assert self.outdated(["/a", "/b", "/c"], "22bb") == {"11aa"}
        assert self.outdated([]) == {"11aa"}

    def test_one_of_the_jobs_last_backup_is_not(self):
        """As another job of the machine may have more of the same paths."""
        assert self.outdated(["/a", "/b"], "11aa") == set()
        assert self.outdated(["/a", "/b"], "11") == set()

    def test_one_that_must_hold_something_is_not(self):
        sources = [self.OLD, self.NEW._replace(paths=("/a",))]
        assert outdated(sources, shared_out(["/a", "/b"], sources)[0], ["22bb"]) == set()
