"""A third client, which nothing but this file knows: one class, and one row of the table.

It stands for all that somebody would add. The client itself is a small script that copies files.
"""

from __future__ import annotations

import inspect
import json
import os
import random
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from support.machine import CHECKOUT, MODULES, Machine, shell

from host.conftest import TOP, clean, empty_directory
from kopiatomic.clients.base import Client
from kopiatomic.clients.reader import Reader
from kopiatomic.clients.records import (
    CHECK,
    FORGET,
    ByHand,
    Figures,
    File,
    Missing,
    Proof,
    Request,
    Source,
    Step,
    Tally,
    Wishes,
)
from kopiatomic.clients.room import Room
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system.machine import lies_in


class Copy(Client):
    """The script below."""

    name = "copy"
    subcommand = ("save",)
    repository_words = ("--store",)

    def arguments(self, job: Job, request: Request) -> list[str]:
        """Return the moment, and the places to pass over."""
        skipped = [word for place in request.skipped for word in ("--skip", place)]
        return [*skipped, "--moment", f"{request.moment or 0}"]

    def variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Have it say what it did."""
        return {"COPY_TELL": "yes"}

    def repository(
        self, job: Job, environment: Mapping[str, str], script: str = ""
    ) -> str | None:
        """Return the directory of the copies."""
        return environment.get("COPY_STORE")

    def figures(self, output: bytes, messages: bytes) -> Figures:
        """Read its only line."""
        said = re.search(rb"^saved (\d+) files as (\d+)$", output, re.M)
        return Figures(files=int(said[1]), snapshots=(said[2].decode(),)) if said else Figures()

    def is_incomplete(self, status: int) -> bool:
        """Say whether it passed over a file that it could not read."""
        return status == 4

    def hint(self, status: int, text: str, by_hand: ByHand | None = None) -> str | None:
        """Explain its exit statuses."""
        if status == 4 and by_hand:
            return f"some files could not be copied; {by_hand('list')} shows what there is"
        return "a copy is broken" if status == 5 else super().hint(status, text, by_hand)

    def keeps(self, mode: int) -> bool:
        """Say that cp(1) copies everything."""
        return True

    def prove(
        self,
        reader: Reader,
        job: Job,
        request: Request,
        figures: Figures,
        points: Mapping[str, bool],
        since: float,
        script: str = "",
    ) -> Proof:
        """Look for the directories in the copy; each that has files is listed with them."""
        if not figures.snapshots:
            return Proof((), missing=tuple(map(Missing, points)))
        (number,) = figures.snapshots
        listed = [line.decode().split(" ", 2)[2] for line in reader.lines("files", number)]
        there = {point: any(lies_in(file, point) for file in listed) for point in points}
        found = tuple(point for point, full in points.items() if there[point] or not full)
        missing = tuple(Missing(point) for point in points if point not in found)
        return Proof((number,), found, missing)

    def likely_reason(self, job: Job, script: str, missing: Missing) -> str:
        """Guess."""
        return "copy was told to skip it"

    def steps(
        self, job: Job, wishes: Wishes, environment: Mapping[str, str], script: str = ""
    ) -> list[Step]:
        """Return the test, and dropping the oldest copies."""
        if wishes.prune or wishes.maintenance:
            raise Refusal("copy knows nothing but --verify and --forget")
        base = self.base_command(job)
        steps = []
        if wishes.verify is not None:
            steps.append(Step(CHECK, "test of all copies", (*base, "test")))
        if wishes.forget is not None:
            steps.append(Step(FORGET, "drop", (*base, "drop", *wishes.forget)))
        return steps

    def sources(
        self, reader: Reader, job: Job, environment: Mapping[str, str], script: str = ""
    ) -> list[Source]:
        """Return the last copy of each path."""
        newest = {}
        for line in reader.lines("list"):
            number, moment, path = line.decode().split(" ", 2)
            newest[path] = Source(number, path, float(moment), paths=(path,))
        return list(newest.values())

    def files(
        self,
        reader: Reader,
        room: Room,
        tally: Tally,
        wanted: int,
        size_limit: int,
        rng: random.Random,
    ) -> list[File]:
        """Return files of a copy."""
        number = tally.source.backup
        listed = [line.decode().split(" ", 2) for line in reader.lines("files", number)]
        paths = [path for _, _, path in listed]
        tally.empty += [
            point for point in tally.points if not any(lies_in(path, point) for path in paths)
        ]
        return [
            File(path, int(size), int(mtime) * 10**9, ("show", number, path))
            for size, mtime, path in rng.sample(listed, min(wanted, len(listed)))
        ]


# What the port would install for it; its last line but one is the row.
PROGRAM = f"""\
import random
import re
import sys
from collections.abc import Mapping

sys.path.insert(0, "SOURCE")

from kopiatomic.cli import main
from kopiatomic.clients import TABLE
from kopiatomic.clients.base import *
from kopiatomic.clients.records import *
from kopiatomic.clients.reader import Reader
from kopiatomic.clients.room import Room
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system.machine import lies_in

{inspect.getsource(Copy)}

TABLE["copyomic"] = Copy
sys.exit(main("copyomic", sys.argv[1:]))
"""

CLIENT = r"""#!/bin/sh
set -eu
[ "$1" != --store ] || { COPY_STORE=$2; shift 2; }
verb=$1
shift
cd "$COPY_STORE"
copies() {
    ls | sort -n
}
case $verb in
save)
    skipped=
    [ "$1" != --skip ] || { skipped=$2; shift 2; }
    [ "$1" = --moment ]
    moment=$2
    shift 2
    number=$(($(copies | tail -n 1) + 1))
    mkdir $number
    echo "$moment" > $number/moment
    echo "$1" > $number/path
    for path; do
        mkdir -p "$number/files$path"
        for each in "$path"/*; do
            [ "$each" = "$skipped" ] || cp -Rp "$each" "$number/files$path"
        done
    done
    files=$(find $number/files -type f | wc -l)
    [ "$COPY_TELL" != yes ] || echo "saved $((files)) files as $number"
    [ ! -e $number/files$1/unreadable ] || exit 4
    ;;
list)
    for each in $(copies); do echo "$each $(cat $each/moment) $(cat $each/path)"; done
    ;;
files)
    cd "$1/files"
    find . -type f | while read -r file; do
        size=$(wc -c < "$file")
        echo "$((size)) $(date -r "$file" +%s) ${file#.}"
    done
    ;;
show)
    cat "$1/files$2"
    ;;
test)
    for each in $(copies); do [ -f $each/moment ] || exit 5; done
    ;;
drop)
    left=$(copies | wc -l)
    for each in $(copies); do
        [ $((left)) -gt "$1" ] || break
        rm -r $each
        left=$((left - 1))
    done
    ;;
*)
    exit 9
    ;;
esac
"""


class Copyomic:
    """The program and its client on a machine."""

    def __init__(self, machine: Machine, directory: str) -> None:
        self.machine = machine
        self.store = f"{directory}/store"
        self.client = f"{directory}/copy"
        machine.path(self.store).mkdir()
        self._write(self.client, CLIENT)
        if machine.is_sandbox:
            source = MODULES
            python, self.program = "/usr/local/bin/python3", "/usr/local/sbin/copyomic"
        else:
            source = str(CHECKOUT / "src")
            python, self.program = sys.executable, f"{directory}/copyomic"
        self._write(self.program, f"#!{python} -I\n{PROGRAM.replace('SOURCE', source)}")

    def _write(self, name: str, text: str) -> None:
        path = self.machine.path(name)
        path.write_text(text)
        path.chmod(0o755)

    def __call__(self, *words: str, status: int = 0) -> str:
        """Run the program, expect its status and a clean machine; return its standard output."""
        argv = [self.program, "-c", self.client, *words]
        result = self.machine.run(argv, env={"COPY_STORE": self.store})
        assert result.returncode == status, result.stdout + result.stderr
        self.clean()
        self.messages = result.stderr
        return result.stdout

    def clean(self) -> None:
        """Assert that the run has left nothing of its own behind."""
        clean(self.machine)
        snapshots = self.machine.run(["zfs", "list", "-H", "-t", "snapshot", "-o", "name"]).stdout
        assert "copyomic-" not in snapshots
        assert "/var/run/copyomic" not in self.machine.run(["mount", "-v"]).stdout
        run = self.machine.path("/var/run/copyomic")
        assert not run.exists() or all(each.suffix == ".lock" for each in run.iterdir())

    def history(self, kind: str = "history") -> list[dict[str, object]]:
        """Return what the program remembers of its job."""
        path = self.machine.path(f"/var/db/kopiatomic/copyomic.default.{kind}")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def copies(self) -> Sequence[str]:
        """Return the names of the copies."""
        return sorted(each.name for each in self.machine.path(self.store).iterdir())


@pytest.fixture
def copyomic(filled: Machine, tmp_path: Path) -> Iterator[Copyomic]:
    """The program, on a machine with files whose times are whole seconds."""
    shell(filled, f"touch -t 202601020304.05 {TOP}/src/main.c")
    yield Copyomic(filled, empty_directory(filled, tmp_path))
    shell(filled, "rm -f /var/run/copyomic/*.lock; rmdir /var/run/copyomic || true")


class TestBackup:
    def test_is_of_one_moment_and_told(self, copyomic: Copyomic):
        machine = copyomic.machine
        change = f"echo late > {TOP}/src/main.c"
        report = json.loads(copyomic("--json", "-s", change, "kta/src"))
        assert (report["program"], report["outcome"]) == ("copyomic", "success")
        assert (report["client"]["files"], report["client"]["snapshots"]) == (1, ["1"])
        command = report["client"]["command"]
        assert [*command[:3], command[-1]] == [
            copyomic.client, "save", "--moment", f"{TOP}/src",
        ]  # fmt: skip
        copied = machine.path(f"{copyomic.store}/1/files{TOP}/src/main.c")
        assert copied.read_text() == "int main(void) { return 0; }\n"
        assert machine.path(f"{TOP}/src/main.c").read_text() == "late\n"
        assert machine.path(f"{copyomic.store}/1/moment").read_text() == f"{command[3]}\n"
        assert float(command[3]) > 0
        (entry,) = copyomic.history()
        assert (entry["outcome"], entry["paths"]) == ("success", [f"{TOP}/src"])

    def test_its_incomplete_backups_are_told_as_such(self, copyomic: Copyomic):
        copyomic.machine.path(f"{TOP}/src/unreadable").touch()
        report = json.loads(copyomic("--json", "kta/src", status=4))
        assert report["outcome"] == "incomplete"
        assert report["problems"] == [
            "copy: exit status 4; some files could not be copied; "
            f"{copyomic.client} list shows what there is"
        ]

    def test_dry_run(self, copyomic: Copyomic):
        out = copyomic("-n", "kta/src")
        assert "org.kopiatomic:run=copyomic:default:" in out
        assert f"{copyomic.client} save --moment 0 {TOP}/src\n" in out
        assert copyomic.copies() == []

    def test_a_view_does_not_contain_its_views(self, copyomic: Copyomic):
        machine = copyomic.machine
        other = "/var/run/copyomic/other/view"
        shell(machine, f"mkdir -p {other}; chmod 700 /var/run/copyomic; mount_nullfs / {other}")
        argv = [copyomic.program, "-n", "--json", "-c", copyomic.client, "kta/src"]
        plan = json.loads(machine.run(argv, env={"COPY_STORE": copyomic.store}).stdout)
        shell(machine, f"umount {other}; rmdir {other} /var/run/copyomic/other")
        points = [mount["point"] for mount in plan["view"]]
        assert f"{TOP}/src" in points
        assert not [point for point in points if point.endswith(other)]

    def test_its_repository_must_not_be_frozen(self, copyomic: Copyomic):
        shell(copyomic.machine, f"mkdir {TOP}/src/store")
        copyomic.store = f"{TOP}/src/store"
        copyomic("kta/src", status=78)
        assert f"--live {TOP}/src/store" in copyomic.messages
        copyomic("--live", f"{TOP}/src/store", "kta/src")
        assert copyomic.copies() == ["1"]


class TestUpkeep:
    def test_its_steps(self, copyomic: Copyomic):
        copyomic("kta/src")
        copyomic("kta/src")
        out = copyomic("--upkeep", "--verify", "0", "--forget", "1")
        assert "copyomic: upkeep succeeded, " in out
        assert copyomic.copies() == ["2"]
        (entry,) = copyomic.history("upkeep")
        assert [(step["name"], step["outcome"]) for step in entry["steps"]] == [
            ("test of all copies", "ok"), ("drop", "ok"),
        ]  # fmt: skip

    def test_after_a_failed_check_nothing_is_dropped(self, copyomic: Copyomic):
        copyomic("kta/src")
        copyomic("kta/src")
        copyomic.machine.path(f"{copyomic.store}/1/moment").unlink()
        out = copyomic("--upkeep", "--verify", "0", "--forget", "1", status=5)
        assert "copyomic: upkeep FAILED, " in out
        assert re.search("drop +not run", out)
        assert "test of all copies: exit status 5; a copy is broken" in copyomic.messages
        assert copyomic.copies() == ["1", "2"]

    def test_what_it_lacks(self, copyomic: Copyomic):
        copyomic("--upkeep", "--prune", status=64)
        assert "copy knows nothing but --verify and --forget" in copyomic.messages

    def test_dry_run_with_the_repositorys_option(self, copyomic: Copyomic):
        out = copyomic("--upkeep", "-n", "--verify", "0", "-o", "--store /elsewhere --fast")
        assert out == f"Would run:\n  {copyomic.client} --store /elsewhere test\n"


class TestDrill:
    def test_files_come_back(self, copyomic: Copyomic):
        copyomic("kta/src")
        account = json.loads(copyomic("--drill", "9", "--json"))
        (source,) = account["sources"]
        assert (account["program"], account["outcome"]) == ("copyomic", "success")
        assert (source["title"], source["backup"]) == (f"{TOP}/src", "1")
        assert (source["chosen"], source["restored"], source["identical"]) == (1, 1, 1)
        (entry,) = copyomic.history("upkeep")
        assert (entry["kind"], entry["outcome"]) == ("drill", "success")

    def test_a_damaged_copy_is_found(self, copyomic: Copyomic):
        copyomic("kta/src")
        copied = copyomic.machine.path(f"{copyomic.store}/1/files{TOP}/src/main.c")
        times = (copied.stat().st_atime_ns, copied.stat().st_mtime_ns)
        text = copied.read_text()
        copied.write_text(text.replace("0", "1"))
        os.utime(copied, ns=times)
        account = json.loads(copyomic("--drill", "9", "--json", status=1))
        (problem,) = account["problems"]
        assert problem.startswith(f"{TOP}/src/main.c: differs from byte {text.index('0')} on, ")

    def test_no_backup(self, copyomic: Copyomic):
        account = json.loads(copyomic("--drill", "9", "--json", status=66))
        assert "there is no backup of this machine" in account["problems"][0]


class TestOthers:
    def test_what_became_of_its_runs(self, copyomic: Copyomic):
        copyomic("kta/src")
        assert "copyomic" in copyomic("--status", "--json")

        def missed(job: str) -> str:
            # kta/home is in no backup, which is told each time.
            return copyomic("--check", "--expect", f"copyomic/{job}", status=1)

        assert "copyomic" not in missed("default")
        assert "copyomic" in missed("nightly")

    def test_what_a_killed_run_has_left_is_swept(self, copyomic: Copyomic):
        snapshot = "kta/src@copyomic-20261123T050401Z-0123456789ab"
        mark = "org.kopiatomic:run=copyomic:default:0123456789ab"
        shell(copyomic.machine, f"zfs snapshot -o {mark} {snapshot}")
        assert f"removed snapshot {snapshot}\n" in copyomic("--sweep")

    def test_help(self, copyomic: Copyomic):
        out = copyomic("--help")
        assert "copyomic -n -r zroot/home" in out
        assert "copy save" in out
