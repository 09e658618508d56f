"""What a client needs of the view: its cache, its keys, and whatever the job speaks of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kopiatomic.clients import places
from kopiatomic.clients.kopia import Kopia
from kopiatomic.clients.restic import Restic
from kopiatomic.job import Job


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory with keys and a configuration in it."""
    for name in (".ssh", ".gnupg", ".config/rclone", "other/.cache"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def restic(home: Path, *options: str, script: str = "", command=("restic", "backup"), **variables):
    environment = {"HOME": str(home), **variables}
    job = Job("restomic", command=command, options=options, environment=variables)
    return Restic().needs(job, "/bin/sh", environment, script)


def kopia(home: Path, *options: str, script: str = "", command=("kopia", "snapshot", "create"),
          **variables):  # fmt: skip
    environment = {"HOME": str(home), **variables}
    job = Job("kopiatomic", command=command, options=options, environment=variables)
    return Kopia().needs(job, "/bin/sh", environment, script)


def test_what_is_in_home(home: Path):
    needs = restic(home)
    assert needs.scratch == (f"{home}/.cache/restic",)
    assert needs.writable == (f"{home}/.config", f"{home}/.ssh", f"{home}/.gnupg")
    assert str(home) in needs.places
    assert (needs.temporary, needs.repository) == ("/tmp", None)


def test_a_cache_by_any_of_its_names(home: Path):
    cache = f"{home}/my cache"
    by_option = restic(home, "--cache-dir", cache)
    by_wrapper = restic(home, script=f'export RESTIC_CACHE_DIR="{cache}"', command=("/w", "backup"))
    for needs in (by_option, by_wrapper, restic(home, RESTIC_CACHE_DIR=cache)):
        assert needs.scratch == (cache,)
    assert restic(home, XDG_CACHE_HOME=f"{home}/x").scratch == (f"{home}/x/restic",)
    assert restic(home, "--no-cache").scratch == ()


def test_a_directory_of_the_users_is_no_cache(home: Path):
    """What a foolish variable names is not kept out of the backup for it."""
    (home / "data").mkdir()
    assert restic(home, RESTIC_CACHE_DIR=f"{home}/data").scratch == (f"{home}/data",)
    (home / "data/letter").write_text("dear Ada")
    needs = restic(home, RESTIC_CACHE_DIR=f"{home}/data")
    assert needs.scratch == ()
    assert f"{home}/data" in needs.writable
    (home / "data/CACHEDIR.TAG").touch()
    assert restic(home, RESTIC_CACHE_DIR=f"{home}/data").scratch == (f"{home}/data",)


def test_the_cache_in_kopias_configuration(home: Path):
    config = home / "other/kopia.config"
    caching = {"cacheDirectory": "../../kopia cache"}
    config.write_text(json.dumps({"caching": caching, "storage": {"type": "filesystem", "config": {
        "path": "/backup/kopia"}}}))  # fmt: skip
    by_wrapper = f'KOPIA_CONFIG_PATH={config} exec kopia "$@"'
    for needs in (
        kopia(home, "--config-file", str(config)),
        kopia(home, f"--config-file={config}"),
        kopia(home, KOPIA_CONFIG_PATH=str(config)),
        kopia(home, script=by_wrapper, command=("/w", "snapshot", "create")),
        kopia(home, script=f'kopia --config-file={config} "$@"', command=("/w", "snapshot")),
    ):
        assert os.path.normpath(f"{home}/../kopia cache") in needs.scratch
        assert f"{home}/other" in needs.writable
        assert needs.repository == "/backup/kopia"


def test_kopias_own_places(home: Path):
    (home / ".config/kopia").mkdir()
    config = {"storage": {"type": "filesystem", "config": {"path": str(home / "repository")}}}
    (home / ".config/kopia/repository.config").write_text(json.dumps(config))
    needs = kopia(home)
    assert needs.scratch == (
        f"{home}/.cache/kopia", f"{home}/.cache/kopia/cli-logs",
        f"{home}/.cache/kopia/content-logs",
    )  # fmt: skip
    assert needs.repository == f"{home}/repository"
    assert f"{home}/.config/kopia" in needs.writable
    needs = kopia(home, KOPIA_LOG_DIR=f"{home}/log", KOPIA_CACHE_DIRECTORY=f"{home}/c")
    assert {f"{home}/log/cli-logs", f"{home}/log/content-logs", f"{home}/c"} < set(needs.scratch)
    assert f"{home}/log" not in needs.scratch


def test_a_wrapper_that_cannot_be_read_hides_where_things_are(home: Path):
    needs = kopia(home, command=("/w", "snapshot", "create"), KOPIA_CONFIG_PATH="/x/y")
    assert needs.repository is None
    script = 'export KOPIA_CONFIG_PATH="$1"; kopia'
    assert kopia(home, script=script, KOPIA_CONFIG_PATH="/x/y").repository is None
    environment = {"RESTIC_REPOSITORY": "/x/y"}
    repository = lambda script: Restic().repository(  # noqa: E731
        Job("restomic", command=("/w", "backup")), environment, script
    )
    assert repository("") is None
    assert repository('exec restic "$@"') == "/x/y"
    assert repository('RESTIC_REPOSITORY=/b exec restic "$@"') == "/b"
    assert repository('RESTIC_REPOSITORY=local:/b exec restic "$@"') == "/b"
    assert repository('RESTIC_REPOSITORY=s3:x/b exec restic "$@"') is None
    assert repository('RESTIC_REPOSITORY=$1 exec restic "$@"') is None
    assert repository('exec restic -r /c "$@"') == "/c"


def test_configuration_of_helpers(home: Path):
    needs = restic(home, RCLONE_CONFIG=f"{home}/other/rclone.conf")
    assert f"{home}/other" in needs.writable
    needs = restic(home, script=f"export RCLONE_CONFIG={home}/other/rclone.conf; restic")
    assert f"{home}/other" in needs.writable
    assert f"{home}/other/rclone.conf" in needs.places


def test_whatever_the_job_speaks_of(home: Path):
    (home / "link").symlink_to(home / "other")
    needs = restic(
        home, "--exclude-file=/ex/clude", "-o", 'sftp.command="ssh -i /k/ey" -p2', "-r/re/po",
        command=("/usr/local/bin/wrap", "-r", f"{home}/link/x", "backup"),
        script="#!/opt/bin/bash\nCERT=/c/ert.pem\nPASS='/p w/file'\n. /etc/my\\ conf\n"
        "x --url=https://host/not/this rest:/a/b sftp:u@h:/srv/r /glob/*/x\n",
        RESTIC_PASSWORD_FILE="/pw/file",
    )  # fmt: skip
    assert {
        "/ex/clude", "/k/ey", "/re/po", "/usr/local/bin/wrap", f"{home}/link/x",
        f"{home}/other/x", "/opt/bin/bash", "/c/ert.pem", "/p w/file", "/etc/my conf", "/pw/file",
    } <= set(needs.places)  # fmt: skip
    assert not {"/not/this", "/host/not/this", "//host/not/this", "/glob", "/"} & set(needs.places)
    assert any("PASS='/p w/file'" in text for text in needs.texts)
    assert "/pw/file" in needs.texts


def test_variables_of_others_are_none_of_the_clients(home: Path):
    job = Job("restomic", command=("restic", "backup"))
    environment = {"HOME": str(home), "PATH": "/pa/th", "PWD": "/p/wd", "SSH_AUTH_SOCK": "/s/ock",
                   "AWS_SHARED_CREDENTIALS_FILE": "/aw/s", "LESSOPEN": "/le/ss"}  # fmt: skip
    found = set(Restic().needs(job, "/bin/sh", environment).places)
    assert {"/s/ock", "/aw/s"} <= found
    assert not {"/pa/th", "/p/wd", "/le/ss"} & found


@pytest.mark.parametrize(("text", "expected"), [
    ("/a b/c", ["/a b/c", "/a"]), ("--x=/a b", ["/a b", "/a"]), ("-r/a", ["/a"]),
    ('"/a b" \'/c d\'', ["/a b", "/c d"]), ("-/", []), ("a-r/b", []),
    ("a:/b", ["/b"]), ("/a:/b", ["/a:/b", "/a", "/b"]), ("http://h/p", []), ("a/b", []), ("/", []),
    ("//", []), ("/*", []), ("/a/../b", ["/b"]), ("", []), ("x\n/a\n", ["/a"]), ("${X}/a", []),
])  # fmt: skip
def test_paths_in_a_text(text: str, expected: list[str]):
    assert set(places.paths_in([text])) >= set(expected)
    if not expected:
        assert places.paths_in([text]) == []
