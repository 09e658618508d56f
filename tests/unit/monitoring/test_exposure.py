"""What other users can do to what backups rely on, and that this tells no secret."""

import os
import stat

import pytest

from kopiatomic import redact, state
from kopiatomic.monitoring import exposure
from kopiatomic.monitoring.exposure import WatchedPath
from kopiatomic.monitoring.history import JobHistory, PastRun
from unit.monitoring.runs import PLACE

FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR


class TestExposed:
    def see(self, *watched: WatchedPath) -> list[str]:
        return ["; ".join(each) for each in watched for each in exposure.exposures(each)]

    @pytest.mark.parametrize(
        "each",
        [
            WatchedPath("env file", "/e", 0, FILE | 0o600),
            WatchedPath("executable", "/w", 0, FILE | 0o755),
            WatchedPath("list", "/l", 0, FILE | 0o644),
            WatchedPath("state directory", "/s", 0, DIRECTORY | 0o700),
            WatchedPath("directory", "/d", 0, DIRECTORY | 0o755, serves="/d/w"),
            WatchedPath("directory", "/tmp", 0, DIRECTORY | 0o1777, serves="/tmp/w"),
        ],
    )
    def test_as_it_should_be(self, each):
        assert self.see(each) == []

    @pytest.mark.parametrize(
        ("role", "uid", "mode", "says", "does"),
        [
            ("env file", 0, FILE | 0o640, "other users can read the env file", "chmod 600 '/a b'"),
            ("env file", 0, FILE | 0o602, "other users can write the env file", "chmod 600"),
            ("env file", 0, FILE | 0o666, "users can read and write the env file", "chmod 600"),
            ("env file", 9, FILE | 0o600, "env file /a b does not belong to root", "chown root"),
            ("executable", 0, FILE | 0o775, "which other users can write", "chmod go-w"),
            ("executable", 0, FILE | 0o757, "which other users can write", "chmod go-w"),
            ("executable", 9, FILE | 0o755, "which does not belong to root", "chown root"),
            ("list", 0, FILE | 0o664, "can write the list /a b, and so say what", "chmod go-w"),
            ("list", 9, FILE | 0o644, "its owner can say what is backed up", "chown root"),
            ("state directory", 0, DIRECTORY | 0o750, "users can read the state", "chmod 700"),
            ("state directory", 0, DIRECTORY | 0o711, "users can enter the state", "chmod 700"),
            ("directory", 0, DIRECTORY | 0o775, "and so replace /w", "chmod go-w '/a b', or move"),
            ("directory", 9, DIRECTORY | 0o755, "its owner can replace /w", "move /w"),
        ],
    )
    def test_told_with_what_to_do(self, role, uid, mode, says, does):
        (text,) = self.see(WatchedPath(role, "/a b", uid, mode, serves="/w"))
        assert says in text
        assert does in text

    def test_every_danger_of_a_program_is_told(self):
        told = self.see(WatchedPath("executable", "/w", 9, FILE | 0o777, secret="RESTIC_PASSWORD"))
        assert len(told) == 3
        assert "RESTIC_PASSWORD" in told[2]


class TestWatched:
    @pytest.fixture(autouse=True)
    def everybody_gets_to_the_script(self, places, tmp_path, monkeypatch):
        """Wherever the tests run."""
        real = os.stat

        def opened(path, **options):
            found = real(path, **options)
            if stat.S_ISDIR(found.st_mode) and str(path) in map(str, tmp_path.parents):
                return os.stat_result((found.st_mode | 0o001, *found[1:]))
            return found

        tmp_path.chmod(0o755)
        monkeypatch.setattr(os, "stat", opened)

    def wrapper(self, tmp_path, text="#!/bin/sh\nRESTIC_PASSWORD=hunter2\n", mode=0o755):
        path = tmp_path / "bin" / "restic-x"
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o755)
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def watched(self, **changes) -> dict[str, WatchedPath]:
        found = exposure.find_watched([JobHistory(PLACE, (PastRun("success", **changes),))])
        return {each.path: each for each in found}

    def test_a_wrapper_everybody_can_read_with_its_secret(self, tmp_path):
        path = self.wrapper(tmp_path)
        found = self.watched(client=path)
        assert found[path].secret == "RESTIC_PASSWORD"
        assert found[path].job == "restomic/default"
        assert found[str(tmp_path / "bin")].serves == path
        assert found["/"].role == "directory"
        told = str([exposure.exposures(each) for each in found.values()])
        assert "RESTIC_PASSWORD" in told
        assert "hunter2" not in told

    def test_a_hook_is_run_by_root_like_the_client(self, tmp_path):
        path = self.wrapper(tmp_path, mode=0o777)
        found = self.watched(hooks=[path, "relative/x"])
        assert found[path].role == "executable"
        told = [text for each in found.values() for text, _ in exposure.exposures(each)]
        assert f"root runs {path}, which other users can write" in told

    @pytest.mark.parametrize(
        "name", ["B2_ACCOUNT_KEY", "AZURE_ACCOUNT_KEY", "ST_KEY", "PGPASS", "MYSQL_PWD"]
    )
    def test_what_is_hidden_in_a_mail_is_told_in_a_script(self, tmp_path, name):
        path = self.wrapper(tmp_path, text=f"#!/bin/sh\nexport {name}=hunter2\nexec true\n")
        assert self.watched(client=path)[path].secret == name
        assert redact.redactor({name: "hunter2"})("hunter2") == redact.HIDDEN

    def test_closed_to_others_by_itself_or_by_a_directory(self, tmp_path):
        path = self.wrapper(tmp_path, mode=0o700)
        assert self.watched(client=path)[path].secret is None
        path = self.wrapper(tmp_path)
        os.chmod(os.path.dirname(path), 0o700)
        assert self.watched(client=path)[path].secret is None

    def test_a_program_is_no_script(self, tmp_path):
        path = self.wrapper(tmp_path, text="\x7fELF PASSWORD=hunter2")
        assert self.watched(client=path)[path].secret is None

    def test_behind_a_link_both_ways_are_looked_at(self, tmp_path):
        path = self.wrapper(tmp_path)
        (tmp_path / "link").mkdir()
        (tmp_path / "link" / "restic-y").symlink_to(path)
        found = self.watched(client=str(tmp_path / "link" / "restic-y"))
        assert str(tmp_path / "bin") in found
        assert str(tmp_path / "link") in found

    def test_links_in_a_circle(self, tmp_path):
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        assert self.watched(client=str(tmp_path / "a")) == {}

    def test_a_bare_name_is_looked_up(self):
        found = self.watched(client="sh").values()
        (path,) = [each.path for each in found if each.role == "executable"]
        assert path.endswith("/sh")

    def test_env_file_and_state(self, tmp_path):
        env_file = tmp_path / "env"
        env_file.write_text("A=1")
        env_file.chmod(0o644)
        os.mkdir(state.STATE_DIRECTORY, 0o755)
        found = self.watched(env_files=(str(env_file),))
        assert found[str(env_file)].role == "env file"
        assert stat.S_IMODE(found[str(env_file)].mode) == 0o644
        assert found[state.STATE_DIRECTORY].role == "state directory"

    def test_a_list_and_what_leads_to_it(self, tmp_path):
        file = tmp_path / "open" / "list"
        file.parent.mkdir()
        file.parent.chmod(0o777)
        file.touch(0o600)
        found = self.watched(lists=(str(file),))
        assert (found[str(file)].role, found[str(file)].job) == ("list", "restomic/default")
        told = [text for each in found.values() for text, _ in exposure.exposures(each)]
        assert f"other users can write the directory {file.parent}, and so replace {file}" in told

    @pytest.mark.parametrize("name", ["relative/x", "", "/no/such", "/a\0b"])
    def test_what_is_not_there(self, name):
        assert self.watched(client=name, env_files=(name,)) == {}
