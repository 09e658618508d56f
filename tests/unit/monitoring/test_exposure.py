"""Who else can reach what backups rely on, and that this tells no secret."""

import os
import stat

import pytest

from kopiatomic import state
from kopiatomic.monitoring import exposure
from kopiatomic.monitoring.exposure import Thing
from kopiatomic.monitoring.history import Past, Run
from unit.monitoring.runs import PLACE

FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR


class TestExposed:
    def see(self, *things: Thing) -> list[str]:
        return ["; ".join(each) for thing in things for each in exposure.exposures(thing)]

    @pytest.mark.parametrize(
        "thing",
        [
            Thing("env file", "/e", 0, FILE | 0o600),
            Thing("program", "/w", 0, FILE | 0o755),
            Thing("state directory", "/s", 0, DIRECTORY | 0o700),
            Thing("directory", "/d", 0, DIRECTORY | 0o755, serves="/d/w"),
            Thing("directory", "/tmp", 0, DIRECTORY | 0o1777, serves="/tmp/w"),
        ],
    )
    def test_as_it_should_be(self, thing):
        assert self.see(thing) == []

    @pytest.mark.parametrize(
        ("thing", "says", "does"),
        [
            (Thing("env file", "/e f", 0, FILE | 0o640), "get at the env file", "chmod 600 '/e f'"),
            (Thing("env file", "/e", 0, FILE | 0o602), "get at the env file", "chmod 600 /e"),
            (Thing("env file", "/e", 9, FILE | 0o600), "not belong to root", "chown root /e"),
            (Thing("program", "/w", 0, FILE | 0o775), "others can write", "chmod go-w /w"),
            (Thing("program", "/w", 0, FILE | 0o757), "others can write", "chmod go-w /w"),
            (Thing("program", "/w", 9, FILE | 0o755), "not root's own", "chown root /w"),
            (Thing("state directory", "/s", 0, DIRECTORY | 0o750), "get at", "chmod 700 /s"),
            (Thing("directory", "/d", 0, DIRECTORY | 0o775, serves="/w"), "replace /w", "go-w /d"),
            (Thing("directory", "/d", 9, DIRECTORY | 0o755, serves="/w"), "replace /w", "move /w"),
        ],
    )  # fmt: skip
    def test_told_with_what_to_do(self, thing, says, does):
        (text,) = self.see(thing)
        assert says in text
        assert does in text

    def test_every_danger_of_a_program_is_told(self):
        told = self.see(Thing("program", "/w", 9, FILE | 0o777, secret="RESTIC_PASSWORD"))
        assert len(told) == 3
        assert "RESTIC_PASSWORD" in told[2]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("RESTIC_PASSWORD=hunter2", "RESTIC_PASSWORD"),
        ("export RESTIC_PASSWORD='hunter 2'", "RESTIC_PASSWORD"),
        ('A=1 KOPIA_PASSWORD="hunter2" kopia', "KOPIA_PASSWORD"),
        ("export AWS_SECRET_ACCESS_KEY=hunter2", "AWS_SECRET_ACCESS_KEY"),
        ("setenv B2_TOKEN hunter2", "B2_TOKEN"),
        ("exec kopia --password=hunter2 \"$@\"", "password"),
        ("RESTIC_PASSWORD='$hunter2'", "RESTIC_PASSWORD"),
        ("RESTIC_PASSWORD=$(cat /etc/pw)", None),
        ('RESTIC_PASSWORD="$(cat /etc/pw)"', None),
        ('RESTIC_PASSWORD="`cat /etc/pw`"', None),
        ('RESTIC_PASSWORD="$PW"', None),
        ("RESTIC_PASSWORD=${PW}", None),
        ("RESTIC_PASSWORD=", None),
        ("RESTIC_PASSWORD='' ", None),
        ('RESTIC_PASSWORD=""; export RESTIC_PASSWORD', None),
        ("RESTIC_PASSWORD_FILE=/etc/pw", None),
        ("RESTIC_PASSWORD_COMMAND='cat /etc/pw'", None),
        ("restic --password-file=/etc/pw", None),
        ("  # RESTIC_PASSWORD=example", None),
        ('[ -n "$RESTIC_PASSWORD" ] || exit 1', None),
    ],
)
def test_secrets_in_a_script(line, name):
    assert exposure.secret_in(f"#!/bin/sh\n{line}\n") == name


class TestThings:
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

    def things(self, **changes) -> dict[str, Thing]:
        found = exposure.find_things([Past(PLACE, (Run("success", **changes),))])
        return {thing.path: thing for thing in found}

    def test_a_wrapper_everybody_can_read_with_its_secret(self, tmp_path):
        path = self.wrapper(tmp_path)
        found = self.things(program=path)
        assert found[path].secret == "RESTIC_PASSWORD"
        assert found[path].job == "restomic/default"
        assert found[str(tmp_path / "bin")].serves == path
        assert found["/"].role == "directory"
        told = str([exposure.exposures(thing) for thing in found.values()])
        assert "RESTIC_PASSWORD" in told
        assert "hunter2" not in told

    def test_a_hook_is_run_by_root_like_the_client(self, tmp_path):
        path = self.wrapper(tmp_path, mode=0o777)
        found = self.things(hooks=[path, "relative/x"])
        assert found[path].role == "program"
        told = [text for thing in found.values() for text, _ in exposure.exposures(thing)]
        assert f"root runs {path}, which others can write" in told

    def test_closed_to_others_by_itself_or_by_a_directory(self, tmp_path):
        path = self.wrapper(tmp_path, mode=0o700)
        assert self.things(program=path)[path].secret is None
        path = self.wrapper(tmp_path)
        os.chmod(os.path.dirname(path), 0o700)
        assert self.things(program=path)[path].secret is None

    def test_a_program_is_no_script(self, tmp_path):
        path = self.wrapper(tmp_path, text="\x7fELF PASSWORD=hunter2")
        assert self.things(program=path)[path].secret is None

    def test_behind_a_link_both_ways_are_looked_at(self, tmp_path):
        path = self.wrapper(tmp_path)
        (tmp_path / "link").mkdir()
        (tmp_path / "link" / "restic-y").symlink_to(path)
        found = self.things(program=str(tmp_path / "link" / "restic-y"))
        assert str(tmp_path / "bin") in found
        assert str(tmp_path / "link") in found

    def test_links_in_a_circle(self, tmp_path):
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        assert self.things(program=str(tmp_path / "a")) == {}

    def test_a_bare_name_is_looked_up(self):
        (path,) = [each for each, thing in self.things(program="sh").items()
                   if thing.role == "program"]  # fmt: skip
        assert path.endswith("/sh")

    def test_env_file_and_state(self, tmp_path):
        env_file = tmp_path / "env"
        env_file.write_text("A=1")
        env_file.chmod(0o644)
        os.mkdir(state.STATE_DIRECTORY, 0o755)
        found = self.things(env_file=str(env_file))
        assert found[str(env_file)].role == "env file"
        assert stat.S_IMODE(found[str(env_file)].mode) == 0o644
        assert found[state.STATE_DIRECTORY].role == "state directory"

    @pytest.mark.parametrize("name", ["relative/x", "", "/no/such", "/a\0b"])
    def test_what_is_not_there(self, name):
        assert self.things(program=name, env_file=name) == {}
