"""One moment in two repositories, by an env file for each, with the real clients."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.machine import Machine, shell, wait_for

from host.conftest import TOP, Repository, clean, empty_directory
from host.test_restic import moment_of

SECRETS = {"here": "correct horse", "away": "battery staple"}


@dataclass
class Two:
    """Two repositories of one client, each with its env file, and a way to run our program."""

    machine: Machine
    program: str
    here: Repository
    away: Repository

    def file(self, name: str) -> str:
        return f"{self.here.directory}/etc/{name}.env"

    def each(self) -> tuple[tuple[str, Repository], ...]:
        return ("here", self.here), ("away", self.away)

    def write(self, name: str, **variables: str) -> str:
        """Write an env file that only root can read; return its path."""
        path = self.machine.path(self.file(name))
        path.write_text("".join(f"{key}={value}\n" for key, value in variables.items()))
        path.chmod(0o600)
        return self.file(name)

    def run(self, *words: str, status: int = 0, files: tuple[str, ...] = ("here", "away")) -> str:
        """Run our program on both repositories; it is clean afterwards, and shows no secret."""
        given = [word for name in files for word in ("-e", self.file(name))]
        result = self.machine.run([f"/usr/local/sbin/{self.program}", *given, *words])
        said = result.stdout + result.stderr
        assert result.returncode == status, said
        assert not [secret for secret in SECRETS.values() if secret in said]
        clean(self.machine)
        return said

    def check(self, *words: str) -> list[str]:
        """Return what --check says is stale or never was, with no backup older than two hours."""
        words = ("--check", "--json", *words)
        result = self.machine.run([f"/usr/local/sbin/{self.program}", *words])
        kinds = ("stale", "never", "failed")
        found = json.loads(result.stdout)["findings"]
        return [each["text"] for each in found if each["kind"] in kinds]

    def entries(self, ending: str = "history") -> list[dict[str, object]]:
        text = self.machine.path(f"/var/db/kopiatomic/{self.program}.default.{ending}").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def age(self, hours: float) -> None:
        """Let all that the history tells have been so long ago."""
        from datetime import datetime, timedelta

        path = self.machine.path(f"/var/db/kopiatomic/{self.program}.default.history")
        aged = []
        for entry in self.entries():
            for key in ("began", "ended", "moment"):
                if entry.get(key):
                    then = datetime.fromisoformat(str(entry[key])) - timedelta(hours=hours)
                    entry[key] = then.isoformat()
            aged.append(json.dumps(entry) + "\n")
        path.write_text("".join(aged))

    def moments(self, repository: Repository) -> list[float]:
        """Return the times of a repository's backups, to the second."""
        if repository.client == "restic":
            listed = json.loads(repository("snapshots", "--json"))
            of_files = [each for each in listed if each["paths"][0].startswith(TOP)]
            return [int(moment_of(each)) for each in of_files]
        from datetime import datetime

        listed = json.loads(repository("snapshot", "list", "--json"))
        listed = [each for each in listed if each["source"]["path"].startswith(TOP)]
        times = [str(each["startTime"])[:19] + "+00:00" for each in listed]
        return sorted(int(datetime.fromisoformat(each).timestamp()) for each in times)

    def restored(self, name: str, repository: Repository) -> dict[str, bytes]:
        """Restore the last backup of kta/src; return its files."""
        target = f"{self.here.directory}/restored-{name}"
        if repository.client == "restic":
            words = ("restore", f"latest:{TOP}/src", "--path", f"{TOP}/src", "--target", target)
        else:
            words = ("restore", f"{TOP}/src", target)
        repository(*words)
        top = self.machine.path(target)
        return {each.name: each.read_bytes() for each in top.rglob("*") if each.is_file()}

    def hide(self, name: str) -> Path:
        """Take a repository away, and return where it is; a disk that is not there."""
        place = self.machine.path(f"{self.here.directory}/{name}")
        place.rename(place.with_name(f"{name}.gone"))
        return place

    @staticmethod
    def bring_back(place: Path) -> None:
        place.with_name(f"{place.name}.gone").rename(place)


    def another(self, name: str, file: str, place: str) -> Repository:
        """Make a third repository in a directory, and let an env file lead to it from now on."""
        directory = self.here.directory
        held = dict(self.away.environment)
        if self.here.client == "restic":
            held |= {"RESTIC_REPOSITORY": place, "RESTIC_CACHE_DIR": f"{directory}/cache-{name}"}
            words = ["init"]
        else:
            held |= {"KOPIA_CONFIG_PATH": f"{directory}/{name}.config",
                     "KOPIA_CACHE_DIRECTORY": f"{directory}/cache-{name}"}  # fmt: skip
            words = ["repository", "create", "filesystem", "--path", place]
        made = Repository(self.machine, self.here.client, directory, held)
        made(*words)
        self.write(file, **held)
        return made


@pytest.fixture(params=[
    pytest.param("restic", marks=pytest.mark.restic),
    pytest.param("kopia", marks=pytest.mark.kopia),
])  # fmt: skip
def two(request, filled: Machine, tmp_path: Path) -> Two:
    """Two repositories of a client: each has a password of its own."""
    directory = empty_directory(filled, tmp_path)
    filled.path(f"{directory}/etc").mkdir()
    made = {}
    for name, secret in SECRETS.items():
        if request.param == "restic":
            variables = {
                "RESTIC_REPOSITORY": f"{directory}/{name}", "RESTIC_PASSWORD": secret,
                "RESTIC_CACHE_DIR": f"{directory}/cache-{name}",
            }  # fmt: skip
            words = ["init"]
        else:
            variables = {
                "KOPIA_CONFIG_PATH": f"{directory}/{name}.config", "KOPIA_PASSWORD": secret,
                "KOPIA_CACHE_DIRECTORY": f"{directory}/cache-{name}",
                "KOPIA_LOG_DIR": f"{directory}/log-{name}", "KOPIA_CHECK_FOR_UPDATES": "false",
            }  # fmt: skip
            words = ["repository", "create", "filesystem", "--path", f"{directory}/{name}"]
        made[name] = Repository(filled, request.param, directory, variables)
        made[name](*words)
    program = {"restic": "restomic", "kopia": "kopiatomic"}[request.param]
    both = Two(filled, program, made["here"], made["away"])
    for name, repository in both.each():
        both.write(name, **repository.environment)
    return both


def test_both_have_the_same_files_of_one_moment(two: Two):
    said = two.run("--verbose", "kta/src")
    assert len(set(re.findall(rf"kta/src@{two.program}-[\w-]+", said))) == 1
    assert f"{two.here.client} ran" in said
    assert "files to here.env" in said
    assert "files to away.env" in said
    assert two.moments(two.here) == two.moments(two.away)
    assert len(two.moments(two.here)) == 1
    held = [two.restored(name, repository) for name, repository in two.each()]
    assert held[0] == held[1] == {"main.c": b"int main(void) { return 0; }\n"}
    (entry,) = two.entries()
    assert entry["env_files"] == [two.file("here"), two.file("away")]
    assert [row["found_in_backup"] for row in entry["client_runs"]] == [[1, 1], [1, 1]]
    assert two.check() == []


def test_one_that_is_away_is_told_by_name_and_catches_up(two: Two):
    two.run("kta/src")
    two.age(72)
    place = two.hide("away")
    said = two.run("kta/src", status=STATUS[two.program])
    assert "the backup is INCOMPLETE" in said
    assert "! files to away.env: " in said
    assert "! files to here.env" not in said
    assert len(two.moments(two.here)) == 2
    (finding,) = two.check()
    assert finding.startswith(f"{two.program}/default: the last good backup to away.env was made ")
    assert ", 3 d ago; at most 48 h are allowed; the last run " in finding
    status = two.machine.run([f"/usr/local/sbin/{two.program}", "--status"]).stdout
    assert "Client runs, and their last good backups:" in status
    metrics = two.machine.run([f"/usr/local/sbin/{two.program}", "--status", "--metrics"]).stdout
    assert 'client_run_last_success{program="' in metrics
    two.bring_back(place)
    two.run("kta/src")
    assert two.check() == []
    assert two.moments(two.here)[-1] == two.moments(two.away)[-1]


STATUS = {"restomic": 10, "kopiatomic": 1}


def test_one_that_is_no_longer_the_jobs_is_told_no_more(two: Two):
    two.run("kta/src")
    two.age(72)
    two.hide("away")
    two.run("kta/src", status=STATUS[two.program])
    assert len(two.check()) == 1
    two.run("kta/src", files=("here",))
    assert two.check() == []


def test_a_wrong_password(two: Two):
    secret = {"restic": "RESTIC_PASSWORD", "kopia": "KOPIA_PASSWORD"}[two.here.client]
    two.write("here", **{**two.here.environment, secret: "not the right one"})
    said = two.run("kta/src", status={"restomic": 12, "kopiatomic": 1}[two.program])
    assert "the backup is INCOMPLETE" in said
    assert "! files to here.env: " in said
    assert len(two.moments(two.away)) == 1
    assert two.moments(two.here) == []


def test_all_of_them_away_is_no_backup(two: Two):
    two.hide("here")
    two.hide("away")
    said = two.run("kta/src", status=STATUS[two.program])
    assert "the backup FAILED" in said


def test_a_dry_run_shows_each(two: Two):
    said = two.run("-n", "kta/src")
    commands = [line for line in said.splitlines() if "chroot" in line]
    assert [line.rpartition("# ")[2] for line in commands] == [
        "files to here.env", "files to away.env",
    ]  # fmt: skip


def test_an_env_file_that_is_not_there_is_told_before_anything_is_touched(two: Two):
    said = two.run("kta/src", status=66, files=("here", "nowhere"))
    assert f"cannot read the env file {two.file('nowhere')}" in said
    assert two.moments(two.here) == []


def test_two_that_lead_to_the_same_repository_are_refused(two: Two):
    two.write("twin", **two.here.environment)
    said = two.run("kta/src", status=78, files=("here", "twin"))
    assert f"{two.file('here')} and {two.file('twin')} lead to the same repository" in said
    assert two.moments(two.here) == []


def test_also_by_another_way(two: Two):
    held = dict(two.here.environment)
    if two.here.client == "restic":
        # Relative to /, where the client starts, and by way of a link.
        link = two.machine.path(f"{two.here.directory}/link")
        link.symlink_to("here")
        held["RESTIC_REPOSITORY"] = f"{two.here.directory}/etc/../link"[1:]
    else:
        held["KOPIA_CONFIG_PATH"] = f"{two.here.directory}/etc/../here.config"
    two.write("twin", **held)
    assert "lead to the same repository" in two.run("kta/src", status=78, files=("here", "twin"))


def test_an_empty_file_beside_what_is_inherited(two: Two):
    two.write("empty")
    words = [f"/usr/local/sbin/{two.program}", "-e", two.file("here"), "-e", two.file("empty")]
    result = two.machine.run([*words, "kta/src"], env=two.here.environment)
    assert result.returncode == 78, result.stderr
    assert "lead to the same repository" in result.stderr


def test_one_that_only_the_repository_can_tell_is_found_by_a_drill(two: Two):
    """Two ways to the same files: here by a mount, as two names of a server are."""
    machine, directory = two.machine, two.here.directory
    held = dict(two.here.environment)
    shell(machine, f"mkdir {directory}/alias; mount_nullfs {directory}/here {directory}/alias")
    if two.here.client == "restic":
        held |= {"RESTIC_REPOSITORY": f"{directory}/alias"}
    else:
        held |= {"KOPIA_CONFIG_PATH": f"{directory}/alias.config"}
        words = ("repository", "connect", "filesystem", "--path", f"{directory}/alias")
        Repository(machine, "kopia", directory, held)(*words)
    two.write("alias", **held)
    try:
        two.run("kta/src", files=("here", "alias"))
        said = two.run("--drill", "1", status=78, files=("here", "alias"))
        assert "the last backup in here.env is in alias.env as well, " in said
    finally:
        shell(machine, f"umount {directory}/alias")


def test_a_wrapper_with_a_repository_of_its_own_is_refused(two: Two):
    name = {"restic": "RESTIC_REPOSITORY", "kopia": "KOPIA_CONFIG_PATH"}[two.here.client]
    wrapper = two.machine.path(f"{two.here.directory}/wrapper")
    value = two.here.environment[name]
    wrapper.write_text(f'#!/bin/sh\nexport {name}={value}\nexec {two.here.client} "$@"\n')
    wrapper.chmod(0o700)
    backup = {"restic": "backup", "kopia": "snapshot create"}[two.here.client]
    command = f"{two.here.directory}/wrapper {backup}"
    said = two.run("-c", command, "kta/src", status=78)
    assert "lead to the same repository" in said


def test_one_in_what_is_backed_up_is_refused_and_the_other_has_all(two: Two):
    """It would be frozen; what is refused before anything is touched is a job without any other."""
    two.another("inside", "inside", f"{TOP}/src/repository")
    files = ("here", "inside")
    said = two.run("-n", "kta/src", files=files)
    assert "nothing for files to inside.env: the repository " in said
    said = two.run("kta/src", files=files, status=78)
    assert "the backup is INCOMPLETE" in said
    assert f"! files to inside.env: the repository {TOP}/src/repository would be frozen" in said
    assert "! files to here.env" not in said
    assert two.restored("here", two.here)["main.c"] == b"int main(void) { return 0; }\n"
    (finding,) = two.check()
    assert finding.startswith(f"{two.program}/default: no good backup to inside.env yet")
    said = two.run("kta/src", files=("inside",), status=78)
    assert "would be frozen" in said
    assert len(two.moments(two.here)) == 1


def test_an_existing_snapshot_is_backed_up_where_it_is_not_yet(two: Two):
    """Also where an env file, as old as before, leads to another repository than it did."""
    shell(two.machine, "zfs snapshot kta/src@auto-1")
    words = ("--snapshot", "auto-*", "kta/src")
    place = two.hide("away")
    two.run(*words, status=STATUS[two.program])
    two.bring_back(place)
    assert "the backup succeeded, " in two.run(*words)
    assert "the backup was NOT NEEDED, " in two.run(*words)
    file = two.machine.path(two.file("away"))
    before = file.stat()
    third = two.another("third", "away", f"{two.here.directory}/third")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "the backup succeeded, " in two.run(*words)
    assert len(two.moments(third)) == 1
    assert "the backup was NOT NEEDED, " in two.run(*words)


def test_a_run_that_is_killed_between_the_two(two: Two):
    """The next one takes down what it left, and makes both anew."""
    hold = f"{two.here.directory}/hold"
    wrapper = two.machine.path(f"{two.here.directory}/wrapper")
    mark = {"restic": "$RESTIC_REPOSITORY", "kopia": "$KOPIA_CONFIG_PATH"}[two.here.client]
    wrapper.write_text(
        f'#!/bin/sh\ncase "{mark}" in */away*) test ! -e {hold} || sleep 60;; esac\n'
        f'exec {two.here.client} "$@"\n'
    )
    wrapper.chmod(0o700)
    two.machine.path(hold).touch()
    backup = {"restic": "backup", "kopia": "snapshot create"}[two.here.client]
    words = ["-e", two.file("here"), "-e", two.file("away"), "-c", f"{wrapper_of(two)} {backup}"]
    child = two.machine.popen(
        [f"/usr/local/sbin/{two.program}", *words, "kta/src"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: two.moments(two.here))
    wait_for(lambda: "sleep 60" in two.machine.run(["ps", "-axww", "-o", "command"]).stdout)
    child.send_signal(signal.SIGKILL)
    child.wait()
    two.machine.path(hold).unlink()
    two.run("-c", f"{wrapper_of(two)} {backup}", "kta/src")
    assert len(two.moments(two.here)) == 2
    assert len(two.moments(two.away)) == 1
    assert two.moments(two.here)[-1] == two.moments(two.away)[-1]


def wrapper_of(two: Two) -> str:
    return f"{two.here.directory}/wrapper"


def test_upkeep_and_drill_of_both(two: Two):
    two.run("kta/src")
    said = two.run("--upkeep", "--verify", "0")
    assert ", here.env  ok" in said
    assert ", away.env  ok" in said
    said = two.run("--drill", "1")
    assert said.count("1 of 1 files restored identical") == 2
    assert " in away.env of " in said
    label = f"{two.program}/default"
    expect = [f"--expect={label}{each}" for each in ("", "/upkeep", "/drill")]
    assert two.check(*expect) == []
    status = two.machine.run([f"/usr/local/sbin/{two.program}", "--status"]).stdout
    assert "restore drill of away.env" in status
    place = two.hide("away")
    two.run("--upkeep", "--verify", "0", status=STATUS[two.program])
    said = two.run("--drill", "1", status=STATUS[two.program])
    assert "1 of 1 files restored identical" in said
    assert "! away.env: " in said
    if two.here.client == "restic":
        assert f"init (with the variables of {two.file('away')})" in said
    found = two.check(*expect)
    assert len(found) == 2
    assert all("of away.env" in each for each in found)
    two.bring_back(place)
    two.run("--upkeep", "--verify", "0")
    two.run("--drill", "1")
    assert two.check(*expect) == []


def test_upkeep_and_drill_of_one_do_not_count_for_both(two: Two):
    """As where the second env file was added to the backup alone."""
    two.run("kta/src")
    two.age(100)
    for words in (("--upkeep", "--verify", "0"), ("--drill", "1")):
        two.run(*words, files=("here",))
    program = f"/usr/local/sbin/{two.program}"
    lines = two.machine.run([program, "--status"]).stdout.splitlines()
    for what in ("repository check", "restore drill"):
        assert [line for line in lines if f"{what} of here.env" in line and "just now" in line]
        assert [line for line in lines if f"{what} of away.env" in line and "never" in line]
    expect = [f"--expect={two.program}/default/{each}" for each in ("upkeep", "drill")]
    found = two.check(*expect)
    assert len(found) == 2
    assert all("of away.env is enabled, and none has ever worked" in each for each in found)
    two.run("--upkeep", "--verify", "0", files=("away",))
    two.run("--drill", "1")
    assert two.check(*expect) == []


def test_one_that_fails_does_not_keep_the_next_from_its_upkeep(two: Two):
    two.run("kta/src")
    two.hide("here")
    said = two.run("--upkeep", "--verify", "0", status=STATUS[two.program])
    assert ", away.env  ok" in said


@pytest.mark.restic
def test_retention_is_about_each_repository(two: Two):
    if two.here.client != "restic":
        pytest.skip("kopia has its policies")
    for number in range(3):
        two.machine.path(f"{TOP}/src/main.c").write_text(f"int main(void) {{ return {number}; }}")
        two.run("kta/src")
    two.run("--upkeep", "--forget", "--keep-last 1")
    assert [len(two.moments(each)) for _, each in two.each()] == [1, 1]


@pytest.mark.restic
def test_a_parent_is_one_of_the_right_repository(two: Two):
    """Where a dataset is added, the backup that most of it is in is named, of each its own."""
    if two.here.client != "restic":
        pytest.skip("kopia finds its own")
    two.run("kta/home")
    said = two.run("kta/home", "kta/src")
    assert said.count("using parent snapshot") == 2
    two.hide("away")
    two.run("kta/home", "kta/src", status=10)


def test_every_night(two: Two):
    machine = two.machine
    machine.install_periodic()
    files = " ".join(shlex.quote(two.file(name)) for name in ("here", "away"))
    machine.path(machine.periodic_conf).write_text(f"""
daily_show_success=NO
daily_{two.program}_enable=YES
daily_{two.program}_datasets=kta/src
daily_{two.program}_env_file="{files}"
""")
    machine.periodic()
    assert two.moments(two.here) == two.moments(two.away) != []
    place = two.hide("away")
    (mail,) = [each for each in machine.periodic() if "INCOMPLETE" in each]
    assert "! files to away.env: " in mail
    assert f"What {two.here.client}, files to away.env, said" in mail
    assert not [secret for secret in SECRETS.values() if secret in mail]
    two.bring_back(place)
    assert not [each for each in machine.periodic() if "INCOMPLETE" in each]
    shell(machine, "true")
