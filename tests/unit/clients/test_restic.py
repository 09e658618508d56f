"""What restic is told, and how its answers are read."""

from __future__ import annotations

import json
import os
import shlex
import time

import pytest
from support.datasets import installer, plan_for, simple

from kopiatomic.clients.reader import ClientFailed
from kopiatomic.clients.records import (
    CHECK,
    FORGET,
    MAINTENANCE,
    PRUNE,
    TAG,
    UNLOCK,
    ByHand,
    Made,
    Past,
    Request,
    Source,
    Wishes,
)
from kopiatomic.clients.restic import Restic, host_of
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.lists import PATHS, PATHS_TO_NUL, PATTERNS
from unit.clients.answers import Answers, Matching

MOMENT = 1795410241.9  # 2026-11-23 05:04:01 UTC
HOST = os.uname().nodename
JOB = Job("restomic")
OURS = "--tag restomic:default --group-by host"


def job(command="restic-x backup", options="", **more):
    return Job("restomic", command=tuple(command.split()), options=tuple(options.split()), **more)


def asked(plan, parent=None):
    """Return how a plan's backup is asked for."""
    return Request(plan.paths, plan.live, MOMENT, parent)


class TestBackupCommand:
    @pytest.fixture
    def _in_new_york(self, monkeypatch):
        if not hasattr(time, "tzset"):
            pytest.skip("this Python has no time.tzset")
        monkeypatch.setenv("TZ", "EST5")
        time.tzset()
        yield
        monkeypatch.undo()
        time.tzset()

    @pytest.mark.usefixtures("_in_new_york")
    def test_in_full(self):
        job = Job("restomic", command=("restic-x", "backup"), options=("--exclude", "/home/ben/x"))
        plan = plan_for(simple(), everything=True)
        assert Restic().backup_command(job, asked(plan, "abc")) == [
            "restic-x", "backup", "--time", "2026-11-23 00:04:01", "--tag", "restomic:default",
            "--parent", "abc",
            "--exclude", "/home/ben/x", "/data", "/home",
        ]  # fmt: skip

    def test_what_is_not_frozen_stays_out(self):
        command = Restic().backup_command(JOB, asked(plan_for(installer(), everything=True)))
        assert command[command.index("--exclude") + 1] == "/dev/*"

    def test_a_place_is_excluded_by_its_name_and_nothing_else_is(self):
        words = Restic().arguments(JOB, Request((), ("/a*[b]?\\c/",), MOMENT))
        assert words[4:] == ["--exclude", r"/a\*\[b\]\?\\c/*"]

    def test_before_the_moment_is_known(self):
        words = ["--time", "TIME-OF-SNAPSHOT", "--tag", "restomic:default"]
        assert Restic().arguments(JOB, Request(())) == words

    def test_the_users_own_time_wins(self):
        own = Job("restomic", options=("--time=2020-01-01 00:00:00",))
        command = Restic().backup_command(own, asked(plan_for(simple(), "tank")))
        assert "--time" not in command

    def test_what_is_kept_aside_has_a_tag_of_its_own(self):
        words = Restic().arguments(JOB, Request((), stream="/a/b", aside="layout"))
        assert words[-2:] == ["--tag", "restomic:default:layout"]
        assert words.count("--tag") == 1

    @pytest.mark.parametrize("options", ["--tag=a,restomic:home", "--tag restomic:home"])
    def test_the_tag_of_the_job_is_given_once(self, options):
        words = Restic().arguments(job(options=options, name="home"), Request(()))
        assert "--tag" not in words
        words = Restic().arguments(job(options=options, name="other"), Request(()))
        assert words[2:] == ["--tag", "restomic:other"]

    def test_speaks_to_the_user_and_to_us(self):
        assert not Restic().speaks_to_us_alone(["restic", "backup", "--json"])


class TestLists:
    def test_they_are_taken_out_of_the_options_and_the_command(self):
        given = job(
            "restic backup --files-from=/a -x", "--files-from-raw /b -e x --files-from-verbatim=/c"
        )
        rest, lists = Restic().without_lists(given)
        assert rest == job("restic backup -x", "-e x")
        assert [(each.file, each.form) for each in lists] == [
            ("/a", PATTERNS), ("/b", PATHS_TO_NUL), ("/c", PATHS)
        ]  # fmt: skip

    def test_a_word_of_another_option_is_no_list(self):
        given = job("restic backup", "--exclude --files-from --tag a -vx")
        assert Restic().without_lists(given) == (given, ())
        given = job("restic backup", "--exclude --files-from --files-from /l /x")
        rest, lists = Restic().without_lists(given)
        assert rest.options == ("--exclude", "--files-from", "/x")
        assert [each.file for each in lists] == ["/l"]

    @pytest.mark.parametrize("given", [JOB, job("other --files-from /x", plain=True)])
    def test_without_any_the_job_stays_as_it_is(self, given):
        assert Restic().without_lists(given) == (given, ())

    @pytest.mark.parametrize(
        ("command", "options", "path"),
        [
            ("restic backup /etc", "", "/etc"), ("restic backup", "-x /etc /root", "/etc"),
            ("", "./here", "./here"), ("nice -n 5 /usr/bin/restic backup", "/etc", "/etc"),
            ("nice /usr/bin/restic backup", "-e /etc --cache-dir /c --exclude-file=/x", None),
            ("/root/wrapper", "--tag /etc", None),
        ],
    )
    def test_paths_in_the_users_own_words_are_refused(self, command, options, path):
        given = job(command, options)
        if path is None:
            Restic().check_words(given, "")
        else:
            with pytest.raises(Refusal, match=f"the path '{path}', which would be backed up live"):
                Restic().check_words(given, "")
        Restic().check_words(given._replace(plain=True), "")

    def test_in_a_wrapper_they_are_refused(self):
        text = '#!/bin/sh\nexec restic backup --files-from /etc/list "$@"\n'
        with pytest.raises(Refusal, match="/w calls restic with --files-from, so"):
            Restic().check_words(job("/w"), text)
        Restic().check_words(job("/w"), text.replace("--files-from", "--exclude-file"))
        Restic().check_words(job("/w", plain=True), text)

    @pytest.mark.parametrize(
        ("tags", "theirs"),
        [
            ("--tag restomic:other", "restomic:other"), ("--tag=a,restomic:x,b", "restomic:x"),
            ("--tag 'a, restomic:x:layout'", "restomic:x:layout"), ("--tag restomic:default", None),
            ("--tag a,b --tag other", None),
        ],
    )  # fmt: skip
    def test_the_tag_of_another_job_is_refused(self, tags, theirs):
        """As one of that job's a backup would be forgotten, and another in its place."""
        given = Job("restomic", options=tuple(shlex.split(tags)))
        if theirs is None:
            Restic().check_words(given, "")
        else:
            with pytest.raises(Refusal, match=f"--tag {theirs} is the tag of another job"):
                Restic().check_words(given, "")
        Restic().check_words(given._replace(plain=True), "")


class TestVariables:
    def env(self, **environment):
        return Restic().environment(Job("restomic", environment=environment), {})

    def test_the_feature_is_added_to_the_users(self):
        assert self.env()["RESTIC_FEATURES"] == "device-id-for-hardlinks=true"
        environment = self.env(RESTIC_FEATURES="s3-restore=true")
        assert environment["RESTIC_FEATURES"] == "s3-restore=true,device-id-for-hardlinks=true"

    def test_the_users_word_on_that_feature_stays(self):
        own = {"RESTIC_FEATURES": "device-id-for-hardlinks=false"}
        assert self.env(**own)["RESTIC_FEATURES"] == own["RESTIC_FEATURES"]


class TestRepository:
    @pytest.mark.parametrize(
        ("command", "options", "environment", "path"),
        [
            ("", "", {"RESTIC_REPOSITORY": "/backup"}, "/backup"),
            ("", "", {"RESTIC_REPOSITORY": "local:/backup"}, "/backup"),
            ("", "", {"RESTIC_REPOSITORY": "sftp:host:/backup"}, None),
            ("", "-r /b", {"RESTIC_REPOSITORY": "/a"}, "/b"),
            ("restic --repo=/b backup", "", {}, "/b"),
            ("restic-wrapper backup", "", {"RESTIC_REPOSITORY": "/a"}, None),
            ("", "", {}, None),
        ],
    )
    def test_where_it_is(self, command, options, environment, path):
        assert Restic().repository(job(command, options), environment) == path

    def test_directories_of_its_own(self):
        variables = {"RESTIC_CACHE_DIR": "/no/c", "KOPIA_CACHE_DIRECTORY": "/k", "HOME": "/h"}
        assert Restic().scratch(JOB, variables, "") == (["/no/c"], [])
        assert Restic().scratch(JOB, {"HOME": "/h"}, "") == (["/h/.cache/restic"], [])
        assert Restic().scratch(job(options="--no-cache"), variables, "") == ([], [])


LOCKED = """repo already locked, waiting up to 0s for the lock
unable to create lock in backend: repository is already locked by PID 26 on bob.test by root (UID 0, GID 0)
lock was created at 2026-11-23 22:22:34 (812.085163ms ago)
storage ID bf2ff28c
the `unlock` command can be used to remove stale locks
"""  # noqa: E501
OWNER = "locked by PID 26 on bob.test by root (UID 0, GID 0) for "


class TestLocks:
    def test_the_owner_and_the_command_are_told(self):
        by_hand = ByHand("restic-x -r /r")
        said = Restic().hint(11, LOCKED, by_hand)
        assert f"{OWNER}812ms; if that restic still runs" in said
        assert "if it is dead: restic-x -r /r unlock, on bob.test at once" in said

    def test_in_json_too(self):
        text = json.dumps({"message_type": "exit_error", "code": 11, "message": LOCKED})
        assert OWNER in Restic().hint(11, text)

    def test_a_lock_for_itself(self):
        assert OWNER in Restic().hint(11, LOCKED.replace("locked by", "locked exclusively by"))

    @pytest.mark.parametrize(
        ("age", "told", "dead"),
        [
            ("3.2s", "3s", False), ("29m59.9s", "29m59s", False), ("30m0s", "30m0s", True),
            ("26h3m4.5s", "26h3m4s", True), ("1h0m0s", "1h0m0s", True), ("45ms", "45ms", False),
        ],
    )  # fmt: skip
    def test_its_age_decides_whether_it_is_dead(self, age, told, dead):
        said = Restic().hint(11, LOCKED.replace("812.085163ms", age))
        assert f"{OWNER}{told}; " in said
        assert ("that restic is dead" in said, "at once" in said) == (dead, not dead)
        assert "restic unlock" in said

    def test_the_env_file_is_named(self):
        by_hand = ByHand("restic", "/root/my env")
        said = Restic().hint(11, LOCKED, by_hand)
        assert "dead: restic unlock (with the variables of '/root/my env'), on bob.test" in said

    def test_restic_has_not_told_the_owner(self):
        said = Restic().hint(11, "")
        assert said.startswith("the repository is locked; if that restic still runs")
        assert "restic unlock, on its machine at once" in said

    def test_one_that_cannot_be_read(self):
        said = Restic().hint(1, "Fatal: invalid lock file: x", ByHand("restic-x"))
        assert said.endswith("on any machine: restic-x unlock --remove-all")

    def test_a_file_of_that_name_is_none(self):
        said = Restic().hint(3, "error: open /home/ben/invalid lock file: permission denied")
        assert said.startswith("some files could not be read")


class TestStatuses:
    def test_a_view_that_cannot_be_written(self):
        assert "--live" in Restic().hint(1, "open /x: read-only file system")

    @pytest.mark.parametrize(
        ("status", "told"),
        [
            (3, "the backup is incomplete"),
            (10, "if it is to be made: restic-x init"),
            (12, "password is wrong"),
        ],
    )
    def test_of_a_backup(self, status, told):
        assert told in str(Restic().hint(status, "", ByHand("restic-x")))

    def test_one_that_no_longer_knows_the_feature(self):
        said = 'Fatal: unknown feature flag "device-id-for-hardlinks"'
        assert "use --plain" in str(Restic().hint(1, said))

    def test_which_mean_incomplete(self):
        assert [each for each in range(256) if Restic().is_incomplete(each)] == [3]

    @pytest.mark.parametrize(
        ("status", "told"), [(1, "None"), (3, "None"), (12, "password is wrong"), (10, "init")]
    )
    def test_outside_of_a_backup(self, status, told):
        text = "open /x: read-only file system"
        assert told in str(Restic().hint_between(job(), status, text))

    def test_a_lock_is_told_with_the_jobs_own_command(self):
        assert "restic-x unlock" in str(Restic().hint_between(job(), 11, LOCKED))

    def test_between_backups_it_names_the_repository(self):
        given = job("restic -r /r backup")._replace(env_files=("/etc/away.env",))
        assert str(Restic().hint_between(given, 10)).endswith(
            "if it is to be made: restic -r /r init (with the variables of /etc/away.env)"
        )


def commands(wishes, environment=None, **words):
    return [" ".join(each.argv) for each in Restic().steps(job(**words), wishes, environment or {})]


class TestSteps:
    def test_the_check_comes_before_forget(self):
        assert commands(Wishes(verify=5.0, forget=("--keep-daily", "7"), prune=True)) == [
            "restic-x check --read-data-subset=5%",
            f"restic-x forget --host {HOST} {OURS} --keep-daily 7 --prune",
        ]

    def test_each_only_when_asked_for(self):
        assert commands(Wishes(verify=0)) == ["restic-x check"]
        assert commands(Wishes(prune=True)) == ["restic-x prune"]
        assert commands(Wishes(verify=2.5)) == ["restic-x check --read-data-subset=2.5%"]

    def test_their_kinds_and_titles(self):
        keep = ("--keep-last", "1")
        found = [
            step[:2]
            for wishes in (Wishes(0, forget=keep), Wishes(5, forget=keep, prune=True),
                           Wishes(prune=True))
            for step in Restic().steps(JOB, wishes, {})
        ]  # fmt: skip
        assert found == [
            (CHECK, "check"), (FORGET, "forget"), (CHECK, "check with 5 % of the data"),
            (FORGET, "forget and prune"), (PRUNE, "prune"),
        ]  # fmt: skip

    def test_the_host_is_the_backups(self):
        wishes = Wishes(forget=("--keep-last=1",))
        assert commands(wishes, {"RESTIC_HOST": "e"}) == [
            f"restic-x forget --host e {OURS} --keep-last=1"
        ]
        assert commands(wishes, {"RESTIC_HOST": "e"}, options="--host o") == [
            f"restic-x forget --host o {OURS} --keep-last=1"
        ]
        own = Wishes(forget=("--keep-last=1", "--host", "all"))
        assert commands(own) == [f"restic-x forget {OURS} --keep-last=1 --host all"]

    def test_restics_short_h_of_forget_is_not_the_host(self):
        assert commands(Wishes(forget=("-H", "24"))) == [
            f"restic-x forget --host {HOST} {OURS} -H 24"
        ]

    @pytest.mark.parametrize(
        ("wishes", "says"),
        [
            (Wishes(), "say what is to be done: --verify, --forget or --prune"),
            (Wishes(maintenance=True), "--maintenance is kopia's"),
            (Wishes(verify=5.0, maintenance=True), "--maintenance is kopia's"),
        ],
    )
    def test_what_cannot_be(self, wishes, says):
        with pytest.raises(Refusal, match=says):
            commands(wishes, command="")

    def test_what_could_not_be_removed(self):
        said = "unable to remove snapshot/802eb from the repository"
        assert "leave --forget and --prune to one that may" in Restic().step_problem(FORGET, said)
        assert Restic().step_problem(FORGET, "2 snapshots have been removed") is None
        assert Restic().step_problem(CHECK, said) is None

    def test_a_tag_that_could_not_be_given(self):
        for said in ('unable to modify the tags for snapshot ID "ab", ignoring: EOF',
                     f'Ignoring "{"ab" * 32}": failed to load snapshot'):  # fmt: skip
            assert "could not give" in str(Restic().step_problem(TAG, said))
            assert Restic().step_problem(CHECK, said) is None
        said = 'Ignoring "filters": explicit snapshot ids are given'
        assert Restic().step_problem(TAG, said) is None

    def test_how_many_locks_were_removed(self):
        told = Restic().step_told
        assert told(UNLOCK, "x\nsuccessfully removed 2 locks\n") == "restic removed 2 stale locks"
        assert told(UNLOCK, "successfully removed 1 locks\n") == "restic removed 1 stale lock"
        assert told(UNLOCK, "") is None
        assert told(CHECK, "successfully removed 2 locks") is None

    @pytest.mark.parametrize(
        ("kind", "status", "told"),
        [
            (CHECK, 1, "prune nothing"), (CHECK, 12, "password is wrong"), (CHECK, 5, "None"),
            (PRUNE, 1, "None"), (FORGET, 3, "None"), (MAINTENANCE, 1, "None"),
        ],
    )  # fmt: skip
    def test_a_failed_check_may_mean_damage(self, kind, status, told):
        assert told in str(Restic().step_hint(job(), kind, status, ""))


class TestReady:
    WHEN = "2026-01-01T00:00:00Z"
    LOCK = json.dumps({"time": WHEN, "hostname": HOST, "pid": 1, "username": "root"}).encode()
    OLD = json.dumps([{"id": "ab", "paths": ["/a"], "time": WHEN, "hostname": HOST}]).encode()

    def ready(self, wishes, answers, task=JOB):
        past = Past((Made("default", 2e9, 2e9, ("/a",)),))
        steps = Restic().steps(task, wishes, {})
        return Restic().ready(Matching(answers), task, wishes, steps, past)

    def test_what_is_put_before_which_step(self):
        answers = {"list": b"a" * 64, "cat": self.LOCK, "snapshots": self.OLD}
        found = self.ready(Wishes(0, forget=("-l1",)), answers)
        assert [step.kind for step in found.steps] == [UNLOCK, CHECK, TAG, FORGET]
        assert found.steps[0].argv == ("client", "unlock")
        assert found.steps[2].argv == ("client", "tag", "--add", "restomic:default", "ab")
        assert found.steps[2].title == "give 1 earlier backup the tag restomic:default"
        assert not found.doubts

    def test_nothing_is_asked_about_backups_unless_some_are_forgotten(self):
        found = self.ready(Wishes(0), {"list": b""})
        assert [step.kind for step in found.steps] == [CHECK]

    def test_what_is_not_answered_is_a_doubt(self):
        found = self.ready(Wishes(0, forget=("-l1",)), {"list": b"", "snapshots": b"what?"})
        assert [step.kind for step in found.steps] == [CHECK, FORGET]
        ((doubt, status),) = found.doubts
        assert "before the tag restomic:default could not be looked for" in doubt
        assert status == 1

    def test_a_rehearsal_changes_no_tags(self):
        answers = {"list": b"", "snapshots": self.OLD}
        found = self.ready(Wishes(forget=("-l1", "-n")), answers)
        assert [step.kind for step in found.steps] == [FORGET]


class TestSources:
    ASKED = ("snapshots", "--json", "--latest", "1", "--host")

    def test_the_newest_of_the_jobs_host(self):
        listed = [
            {"id": "ab", "paths": ["/a", "/b"], "time": "1970-01-01T00:00:01.5Z"},
            {"id": "cd", "paths": ["/c"], "time": "nonsense"},
        ]
        client = Answers({(*self.ASKED, "web"): json.dumps(listed).encode()})
        assert Restic().sources(client, JOB, {"RESTIC_HOST": "web"}) == [
            Source("ab", "/a, /b", 1.5, paths=("/a", "/b")), Source("cd", "/c", 0.0, paths=("/c",)),
        ]  # fmt: skip

    @pytest.mark.parametrize("answer", [b"", b"{}", b'[{"id": "1"}]', b"[1]"])
    def test_a_list_that_is_none(self, answer):
        client = Answers({(*self.ASKED, HOST): answer})
        with pytest.raises(ClientFailed, match="not understood"):
            Restic().sources(client, JOB, {})

    def test_whose_backups_they_are(self):
        assert host_of(job(options="--host o"), {"RESTIC_HOST": "e"}) == "o"
        assert host_of(job(options="-H o"), {"RESTIC_HOST": "e"}) == "o"
        assert host_of(job(), {"RESTIC_HOST": "e"}) == "e"
        assert host_of(job(), {}) == HOST


# What a listing begins with.


def test_a_host_that_a_wrapper_works_out_is_not_guessed():
    """Nothing would match, and nothing be removed, for ever, while all seems well."""
    job = Job("restomic", command=("restic-x", "backup"))
    wishes = Wishes(forget=("--keep-last", "1"))
    script = '#!/bin/sh\nexport RESTIC_HOST="$(hostname -s)"\nexec restic "$@"\n'
    with pytest.raises(Refusal, match="works out RESTIC_HOST"):
        Restic().steps(job, wishes, {}, script)
    named = wishes._replace(forget=("--host", "web", "--keep-last", "1"))
    assert "web" in Restic().steps(job, named, {}, script)[0].argv


@pytest.mark.parametrize(
    "line",
    ["Warning: at least one source file could not be read",
     "/kt/kta/src does not exist, skipping",
     'pattern "/kt/kta/src" does not match any files, skipping'],
)  # fmt: skip
def test_it_says_itself_that_something_is_missing(line):
    """A wrapper with `|| true` ends with 0 all the same."""
    assert Restic().lacking(f"using parent snapshot\n{line}\nsnapshot 1 saved\n") == line
    assert Restic().lacking("Files: 1 new\nskipping\n") is None
