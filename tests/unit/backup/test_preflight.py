"""What is refused before anything is touched."""

import os

import pytest

from kopiatomic.backup import preflight
from kopiatomic.backup.unmounted import ELSEWHERE, EMPTY, MISSING, OCCUPIED
from kopiatomic.errors import EX_NOINPUT, EX_UNAVAILABLE, Refusal
from kopiatomic.job import Job
from kopiatomic.system import zfs
from kopiatomic.system.command import CommandFailed, Door, GivenUp

DOOR = Door()


class TestHooks:
    def test_a_program_that_is_not_there(self):
        with pytest.raises(Refusal, match=r"command of -s .*: /no/such does not exist") as caught:
            preflight.hooks(Job("restomic", before="true", after_snapshot="/no/such thing"))
        assert caught.value.status == EX_UNAVAILABLE

    def test_one_that_cannot_be_run(self, tmp_path):
        (tmp_path / "hook").write_text("#!/bin/sh\n")
        for path in (tmp_path / "hook", tmp_path):
            with pytest.raises(Refusal, match="is not executable"):
                preflight.hooks(Job("restomic", after=str(path)))

    def test_one_that_can(self, tmp_path):
        (tmp_path / "hook").write_text("#!/bin/sh\n")
        (tmp_path / "hook").chmod(0o700)
        preflight.hooks(Job("restomic", before=f"{tmp_path}/hook now"))

    @pytest.mark.parametrize(
        "text", ["", "  ", "echo /no/such", "$HOME/no", "/no/'such'", "X=/no/such y", "(/no)"]
    )
    def test_what_only_the_shell_can_tell_is_left_to_it(self, text):
        job = Job("restomic", before=text)
        assert preflight.hook_programs(job) == {}
        preflight.hooks(job)

    def test_the_programs_by_option(self):
        job = Job("restomic", before="/b x", after_snapshot="thaw", after="./a")
        assert preflight.hook_programs(job) == {"-p": "/b", "-q": "./a"}

    def test_the_command_of_notify_is_watched_and_not_needed(self):
        job = Job("restomic", notify="/no/such thing")
        assert preflight.hook_programs(job) == {"--notify": "/no/such"}
        preflight.hooks(job)


class TestPaths:
    def test_live_directories_are_real_and_named_once(self, tmp_path):
        real = os.path.realpath(tmp_path)
        (tmp_path / "link").symlink_to(real)
        job = Job("restomic", live=(f"{tmp_path}/link", real))
        assert preflight.live_directories(job) == (real,)

    @pytest.mark.parametrize("place", ["tmp", "/no/such", "/etc/passwd"])
    def test_what_is_no_live_directory(self, place):
        with pytest.raises(Refusal, match="no such directory; give an absolute path") as caught:
            preflight.live_directories(Job("restomic", live=(place,)))
        assert caught.value.status == EX_NOINPUT

    def test_the_place_for_what_is_not_mounted(self, tmp_path):
        real = os.path.realpath(tmp_path)
        (tmp_path / "link").symlink_to(real)
        assert preflight.place_for_unseen(Job("restomic")) is None
        assert preflight.resolve(Job("restomic", at=f"{tmp_path}/link")).at == real
        for place in ("tmp", "/no/such", "/etc/passwd"):
            with pytest.raises(Refusal, match="no such directory; give an absolute path") as caught:
                preflight.resolve(Job("restomic", at=place))
            assert caught.value.status == EX_NOINPUT

    def test_what_a_path_leads_to(self, tmp_path):
        real = os.path.realpath(tmp_path)
        for name in ("empty", "full/x"):
            os.makedirs(f"{real}/{name}")
        (tmp_path / "link").symlink_to("empty")
        (tmp_path / "file").touch()
        found = {
            "empty": EMPTY, "full": OCCUPIED, "link": ELSEWHERE, "link/x": ELSEWHERE,
            "file": ELSEWHERE, "file/x": ELSEWHERE, "none": MISSING, "none/x": MISSING,
        }  # fmt: skip
        assert {name: preflight.look(f"{real}/{name}") for name in found} == found

    def test_targets_that_are_paths_are_made_real_and_datasets_stay(self, tmp_path, monkeypatch):
        real = os.path.realpath(tmp_path)
        (tmp_path / "home").mkdir()
        (tmp_path / "link").symlink_to("home")
        monkeypatch.chdir(tmp_path)
        job = Job("restomic", targets=("home", "tank/link", "./home", f"{real}/link", ".", ".."))
        assert preflight.targets(job) == (
            "home", "tank/link", f"{real}/home", f"{real}/home", real, os.path.dirname(real)
        )  # fmt: skip

    def test_at_night_what_is_gone_costs_the_others_nothing(self, tmp_path, monkeypatch):
        real = os.path.realpath(tmp_path)
        (tmp_path / "home").mkdir()
        monkeypatch.chdir(tmp_path)
        job = Job("restomic", targets=("./home", "./gone", "tank/gone", f"{real}/lost"),
                  origins={f"{real}/lost": "/l, line 2"}, periodic=True)  # fmt: skip
        found = preflight.resolve(job)
        assert found.targets == (f"{real}/home", "tank/gone")
        assert found.gone == (f"{real}/gone", f"{real}/lost")
        assert found.place_of(f"{real}/lost") == "/l, line 2: "
        for other in (job._replace(periodic=False), job._replace(targets=("./gone",))):
            with pytest.raises(Refusal, match=r"the path './gone' does not exist"):
                preflight.resolve(other)

    def test_the_device_of_a_volume_is_the_volume(self):
        """Where its volmode is none there is no such path."""
        job = Job("restomic", targets=("/dev/zvol/tank/vm/disk 0", "/dev/zvol/tank/x/"))
        assert preflight.targets(job) == ("tank/vm/disk 0", "tank/x")

    def test_what_is_neither_directory_nor_file_is_refused(self, tmp_path):
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "file").write_text("x")
        job = Job("restomic", targets=(f"{tmp_path}/file",))
        assert preflight.targets(job) == (f"{os.path.realpath(tmp_path)}/file",)
        with pytest.raises(Refusal, match="neither a directory nor a plain file"):
            preflight.targets(Job("restomic", targets=(f"{tmp_path}/fifo",)))

    @pytest.mark.parametrize("target", ["/no/such", "./no-such", "../no-such"])
    def test_a_path_that_is_not_there(self, target):
        with pytest.raises(Refusal, match=f"the path '{target}' does not exist") as caught:
            preflight.targets(Job("restomic", targets=("tank", target)))
        assert caught.value.status == EX_NOINPUT


class TestKernel:
    def test_no_zfs_is_told_with_what_to_do(self, fp):
        fp.register(["zfs", "list", fp.any()], returncode=1, stderr="internal error")
        fp.register("kldstat -q -m zfs", returncode=1)
        with pytest.raises(Refusal, match="kldload zfs") as caught:
            preflight.list_datasets(DOOR)
        assert caught.value.status == EX_UNAVAILABLE

    def test_with_zfs_its_own_words_are_told(self, fp):
        fp.register(["zfs", "list", fp.any()], returncode=1, stderr="out of memory")
        fp.register("kldstat -q -m zfs")
        with pytest.raises(CommandFailed, match="out of memory"):
            preflight.list_datasets(DOOR)

    def test_of_names_that_are_not_known_all_are_listed(self, fp):
        """So that it can be told what is wrong with them."""
        line = "t\tfilesystem\tyes\ton\toff\t-\t/x\t-\n"
        fp.register(["zfs", "list", fp.any(), "x"], returncode=1, stderr="does not exist")
        fp.register(["zfs", "list", fp.any()], stdout=line)
        assert [each.name for each in preflight.list_datasets(DOOR, ["x"])] == ["t"]

    def test_one_that_hangs_is_not_asked_again(self, monkeypatch):
        asked = []

        def hang(*words):
            asked.append(words)
            raise GivenUp(["zfs", "list"], "did not end within 900 s")

        monkeypatch.setattr(zfs, "list_datasets", hang)
        with pytest.raises(GivenUp):
            preflight.list_datasets(DOOR, ["x"])
        assert len(asked) == 1

    @pytest.mark.parametrize(("status", "missing"), [(0, False), (1, True)])
    def test_nullfs(self, fp, status, missing):
        fp.register("kldstat -q -m nullfs", returncode=status)
        assert preflight.nullfs_missing(DOOR) is missing
