"""What kopia and restic are told, and how their answers are read."""

import json

import pytest

from kopiatomic.clients import base, parent
from kopiatomic.clients.base import Figures, Kopia, Restic
from kopiatomic.job import Job
from unit.machines import installer, plan_for, simple

MOMENT = 1795410241.9  # 2026-11-23 05:04:01 UTC


def words(program, *command, **job):
    return base.backend_of(program).command(Job(program, command=command, **job))


class TestCommand:
    @pytest.mark.parametrize(
        ("given", "completed"),
        [
            ("", "kopia snapshot create"),
            ("kopia", "kopia snapshot create"),
            ("/usr/local/bin/kopia", "/usr/local/bin/kopia snapshot create"),
            ("kopia snapshot", "kopia snapshot create"),
            ("kopia snapshot --parallel=4", "kopia snapshot create --parallel=4"),
            ("kopia-myrepo snapshot", "kopia-myrepo snapshot create"),
            ("kopia-myrepo snapshot create", "kopia-myrepo snapshot create"),
            ("backup-home", "backup-home"),
        ],
    )
    def test_kopia(self, given, completed):
        assert words("kopiatomic", *given.split()) == completed.split()

    @pytest.mark.parametrize(
        ("given", "completed"),
        [
            ("", "restic backup"),
            ("restic", "restic backup"),
            ("restic -r /backup", "restic -r /backup backup"),
            ("restic-myrepo backup", "restic-myrepo backup"),
            ("backup-home", "backup-home"),
        ],
    )
    def test_restic(self, given, completed):
        assert words("restomic", *given.split()) == completed.split()

    def test_plain_is_left_alone(self):
        assert words("restomic", "restic", plain=True) == ["restic"]


class TestClientCommand:
    def test_kopia(self):
        job = Job("kopiatomic", options=("--tags=a:b",))
        assert base.client_command(job, plan_for(simple(), "tank"), MOMENT, None, True) == [
            "kopia", "snapshot", "create", "--start-time", "2026-11-23 05:04:01 UTC", "--json",
            "--progress", "--tags=a:b", "/data",
        ]  # fmt: skip

    def test_restic(self, monkeypatch):
        monkeypatch.setenv("TZ", "UTC")
        job = Job("restomic", command=("restic-x", "backup"), options=("--exclude", "/home/ben/x"))
        plan = plan_for(simple(), everything=True)
        assert base.client_command(job, plan, MOMENT, "abc", True) == [
            "restic-x", "backup", "--time", base.Restic().moment(MOMENT), "--parent", "abc",
            "--exclude", "/home/ben/x", "/data", "/home",
        ]  # fmt: skip

    def test_what_is_not_frozen_stays_out_of_restics_backup(self):
        command = base.client_command(
            Job("restomic"), plan_for(installer(), everything=True), MOMENT, None, True
        )
        assert command[command.index("--exclude") + 1] == "/dev/*"

    def test_the_users_own_time_wins(self):
        job = Job("restomic", options=("--time=2020-01-01 00:00:00",))
        command = base.client_command(job, plan_for(simple(), "tank"), MOMENT, None, True)
        assert "--time" not in command

    def test_plain_gets_paths_and_nothing_else(self):
        job = Job("restomic", command=("tar", "-cf", "/x"), options=("-v",), plain=True)
        command = base.client_command(job, plan_for(simple(), "tank"), MOMENT, "p", True)
        assert command == ["tar", "-cf", "/x", "-v", "/data"]


class TestEnvironment:
    def env(self, program="restomic", inherited=None, **job):
        return base.client_environment(Job(program, **job), inherited or {}, None)

    def test_what_endangers_root_is_dropped(self):
        inherited = {"LD_PRELOAD": "x", "PYTHONPATH": "x", "PATH": "/evil", "COLD_KEY": "k"}
        environment = self.env(inherited=inherited)
        assert environment["COLD_KEY"] == "k"
        assert "/evil" not in environment["PATH"]
        assert not {"LD_PRELOAD", "PYTHONPATH"} & set(environment)

    def test_the_env_file_wins(self):
        environment = self.env(inherited={"A": "1"}, environment={"A": "2"})
        assert environment["A"] == "2"

    def test_restics_feature_is_added_to_the_users(self):
        assert self.env()["RESTIC_FEATURES"] == "device-id-for-hardlinks=true"
        environment = self.env(environment={"RESTIC_FEATURES": "s3-restore=true"})
        assert environment["RESTIC_FEATURES"] == "s3-restore=true,device-id-for-hardlinks=true"

    def test_the_users_word_on_that_feature_stays(self):
        own = {"RESTIC_FEATURES": "device-id-for-hardlinks=false"}
        assert self.env(environment=own)["RESTIC_FEATURES"] == own["RESTIC_FEATURES"]

    def test_kopia_and_plain_get_none_of_it(self):
        assert "RESTIC_FEATURES" not in self.env("kopiatomic")
        assert "RESTIC_FEATURES" not in self.env(plain=True)


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
    def test_restic(self, command, options, environment, path):
        job = Job("restomic", command=tuple(command.split()), options=tuple(options.split()))
        assert Restic().repository(job, environment, "/root") == path

    def test_kopia(self, tmp_path):
        config = tmp_path / ".config/kopia/repository.config"
        config.parent.mkdir(parents=True)
        config.write_text('{"storage": {"type": "filesystem", "config": {"path": "/backup"}}}')
        assert Kopia().repository(Job("kopiatomic"), {}, str(tmp_path)) == "/backup"
        config.write_text('{"storage": {"type": "s3", "config": {"path": "/backup"}}}')
        assert Kopia().repository(Job("kopiatomic"), {}, str(tmp_path)) is None
        config.write_text("[]")
        assert Kopia().repository(Job("kopiatomic"), {}, str(tmp_path)) is None


RESTIC_SAID = b"""using parent snapshot 1290b76e

Files:           1 new,     2 changed,  7781 unmodified
Dirs:            0 new,    19 changed,   952 unmodified
Added to the repository: 370.349 KiB (61.627 KiB stored)

processed 7784 files, 265.116 MiB in 0:03
snapshot f1b4b257 saved
"""


class TestFigures:
    def test_restics_lines(self):
        figures = Restic().figures(RESTIC_SAID, b"")
        assert figures == Figures(7784, 3, 19, 277994275, 379237, ("f1b4b257",))

    def test_restics_json(self):
        line = (
            b'{"message_type":"summary","files_new":1,"files_changed":2,"files_unmodified":3,'
            b'"dirs_new":0,"dirs_changed":4,"data_added":5,"total_files_processed":6,'
            b'"total_bytes_processed":7,"snapshot_id":"abc"}\n'
        )
        said = b'{"message_type":"status"}\n' + line
        assert Restic().figures(said, b"") == Figures(6, 3, 4, 7, 5, ("abc",))

    def test_kopias_json_and_last_lines_of_progress(self):
        one = (
            b'{"id":"a","rootEntry":{"name":"x","obj":"k1",'
            b'"summ":{"size":5,"files":1,"symlinks":1}},"x":[{}]}\n'
        )
        two = one.replace(b'"a"', b'"b"')
        said = (
            b"Snapshotting root@h:/x ...\n\r | 1 hashing, 0 hashed (0 B), 0 cached (0 B)"
            b"\r * 0 hashing, 1 hashed (5 B), 0 cached (0 B), uploaded 1.5 KB, estimating...\n"
            b"\r * 0 hashing, 2 hashed (5 B), 1 cached (9 B), uploaded 20 B, estimating...\n"
        )
        figures = Kopia().figures(one + two, said)
        assert figures == Figures(4, 3, None, 10, None, ("a", "b"))

    @pytest.mark.parametrize("text", [b"", b"{" * 10000, b"\n{" * 10000, b"\xff\xfe{}", b"{}\n[]"])
    def test_nonsense_gives_no_figures(self, text):
        assert Restic().figures(text, b"") == Figures()
        assert Kopia().figures(text, b"") == Figures()


LOCKED = """repo already locked, waiting up to 0s for the lock
unable to create lock in backend: repository is already locked by PID 26 on bob.test by root (UID 0, GID 0)
lock was created at 2026-11-23 22:22:34 (812.085163ms ago)
storage ID bf2ff28c
the `unlock` command can be used to remove stale locks
"""  # noqa: E501
OWNER = "locked by PID 26 on bob.test by root (UID 0, GID 0) for "


class TestLocks:
    def test_the_owner_and_the_command_are_told(self):
        by_hand = base.ByHand("restic-x -r /r")
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
        by_hand = base.ByHand("restic", "/root/my env")
        said = Restic().hint(11, LOCKED, by_hand)
        assert "dead: restic unlock (with the variables of '/root/my env'), on bob.test" in said

    def test_restic_has_not_told_the_owner(self):
        said = Restic().hint(11, "")
        assert said.startswith("the repository is locked; if that restic still runs")
        assert "restic unlock, on its machine at once" in said

    def test_one_that_cannot_be_read(self):
        said = Restic().hint(1, "Fatal: invalid lock file: x", base.ByHand("restic-x"))
        assert said.endswith("on any machine: restic-x unlock --remove-all")

    def test_a_file_of_that_name_is_none(self):
        said = Restic().hint(3, "error: open /home/ben/invalid lock file: permission denied")
        assert said.startswith("some files could not be read")


def test_hints():
    assert "--live" in Restic().hint(1, "open /x: read-only file system")
    assert Kopia().hint(1, "boom") is None


class TestParent:
    SNAPSHOTS = (
        {"id": "1", "time": "2026-01-01", "hostname": "h", "paths": ["/home"]},
        {"id": "2", "time": "2026-01-02", "hostname": "h", "paths": ["/home"]},
        {"id": "3", "time": "2026-01-03", "hostname": "h", "paths": ["/etc"]},
        {"id": "4", "time": "2026-01-04", "hostname": "other", "paths": ["/home", "/data"]},
    )

    def test_the_newest_that_shares_most(self):
        assert parent.choose(self.SNAPSHOTS, ["/data", "/home"], "h") == "2"

    def test_restic_finds_one_that_holds_all_by_itself(self):
        assert parent.choose(self.SNAPSHOTS, ["/home"], "h") is None

    def test_none_shares_anything(self):
        assert parent.choose(self.SNAPSHOTS, ["/srv"], "h") is None

    def test_the_repository_may_be_named_after_the_subcommand(self, fp):
        from kopiatomic.system.command import Door

        asked = ["restic", "-r", "/r", "--no-cache", "--no-lock", "snapshots", "--json"]
        fp.register(asked, stdout=json.dumps(self.SNAPSHOTS))
        job = Job(
            "restomic", command=("restic", "backup", "-r", "/r", "--tag", "t"),
            options=("--host", "h", "--no-cache"),
        )  # fmt: skip
        assert parent.find(Door(), job, ["/data", "/home"], ["/home"], {}) == "2"

    def test_one_above_or_below_counts(self):
        assert parent.choose(self.SNAPSHOTS, ["/home/ben", "/srv"], "h") == "2"

    @pytest.mark.parametrize(
        "job",
        [
            Job("kopiatomic"),
            Job("restomic", plain=True),
            Job("restomic", options=("--force",)),
            Job("restomic", command=("wrapper",)),
        ],
    )
    def test_nothing_is_asked(self, fp, job):
        from kopiatomic.system.command import Door

        assert parent.find(Door(), job, ["/a"], None, {}) is None
        assert not fp.calls

    def test_asks_through_the_wrapper_with_the_repositorys_options(self, fp):
        import os

        from kopiatomic.system.command import Door

        host = os.uname().nodename
        fp.register(
            "restic-x -r /repo --no-lock snapshots --json",
            stdout=f'[{{"id":"9","time":"t","hostname":"{host}","paths":["/home"]}}]',
        )
        options = ("--exclude", "x", "-r", "/repo")
        job = Job("restomic", command=("restic-x", "backup"), options=options)
        assert parent.find(Door(), job, ["/home", "/data"], ["/home"], {}) == "9"


def test_the_home_of_another_user_is_not_taken_over(tmp_path, monkeypatch):
    """As `su -m` leaves it: kopia would take that user's configuration, as root."""
    job = Job("kopiatomic")
    names = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    given = dict.fromkeys(names, str(tmp_path))
    kept = base.client_environment(job, given, None)
    assert kept.items() >= given.items()
    monkeypatch.setattr(base.os, "geteuid", lambda: 12345)
    base.os.chown(tmp_path, 54321, -1)
    monkeypatch.setattr(base, "_home", lambda: "/root")
    ours = base.client_environment(job, given, None)
    assert ours["HOME"] == "/root"
    assert not ours.keys() & set(names[1:])
    missing = base.client_environment(job, {"HOME": "/no/such"}, None)
    assert missing["HOME"] == "/no/such"
