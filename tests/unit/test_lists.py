"""Lists of what to back up: how each form is read, and what is refused."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from kopiatomic import lists
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.lists import PATHS, PATHS_TO_NUL, PATTERNS, TARGETS, Listing, with_targets_of

JOB = Job("restomic", targets=("tank/a",))


def read(tmp_path: Path, data: bytes, form: str = TARGETS, job: Job = JOB) -> Job:
    file = tmp_path / "list"
    file.write_bytes(data)
    return with_targets_of(job, (Listing(str(file), form),))


def test_its_lines_are_targets_beside_those_that_are_named(tmp_path):
    job = read(tmp_path, b"# mine\n\ntank/b\n/etc/with  space \n./x'y\ntank/a\n/last")
    assert job.targets == ("tank/a", "tank/b", "/etc/with  space ", "./x'y", "/last")
    assert job.place_of("/last") == f"{tmp_path}/list, line 7: "


def test_bytes_that_are_no_text_are_a_path(tmp_path):
    assert read(tmp_path, b"\xef\xbb\xbf/\xff\n").targets == ("tank/a", "/\udcff")


def test_paths_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = read(tmp_path, b"#odd\n /x\n\n/a*b\n", PATHS)
    here = os.path.realpath(tmp_path)
    assert job.targets == ("tank/a", f"{here}/#odd", f"{here}/ /x", "/a*b")


def test_paths_that_a_nul_ends(tmp_path):
    job = read(tmp_path, b"/new\nline\0\0#/#\0/x\0", PATHS_TO_NUL)
    assert job.targets == ("tank/a", "/new\nline", os.path.abspath("#/#"), "/x")
    assert job.place_of("/x") == f"{tmp_path}/list, path 4: "


def test_patterns_are_compared_with_what_there_is(tmp_path):
    for name in ("one", ".two", "a*b", "a-b", "[x]"):
        (tmp_path / name).mkdir()
    (tmp_path / "one/deep").mkdir()
    lines = [f"  {tmp_path}/o*", f"{tmp_path}/?two", rf"{tmp_path}/a\*b", rf"{tmp_path}/\[x]", "#"]
    job = read(tmp_path, "\n".join(lines).encode(), PATTERNS)
    names = [os.path.basename(each) for each in job.targets[1:]]
    assert names == ["one", ".two", "a*b", "[x]"]
    assert not job.remarks


@pytest.mark.parametrize(
    ("pattern", "found"), [("a[^x]b", "a-b"), (r"a[\-]b", "a-b"), ("a[!x]b", "axb")]
)
def test_what_a_pattern_says_of_a_class(tmp_path, pattern, found):
    for name in ("a-b", "axb"):
        (tmp_path / name).mkdir()
    job = read(tmp_path, f"{tmp_path}/{pattern}\n".encode(), PATTERNS)
    assert job.targets[1:] == (f"{tmp_path}/{found}",)


def test_a_pattern_without_a_match_is_told(tmp_path):
    job = read(tmp_path, f"{tmp_path}/gone*\n/there\n".encode(), PATTERNS)
    assert job.targets == ("tank/a", "/there")
    place = f"{tmp_path}/list, line 1"
    assert job.remarks == (f"{place}: nothing matches the pattern '{tmp_path}/gone*'",)


def test_a_path_without_a_pattern_is_wanted_whether_it_is_there_or_not(tmp_path):
    assert read(tmp_path, b"/gone\n", PATTERNS).targets == ("tank/a", "/gone")


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"tank/b\n")))
    job = with_targets_of(JOB, (Listing("-"),))
    assert job.targets == ("tank/a", "tank/b")
    assert job.place_of("tank/b") == "standard input, line 1: "


@pytest.mark.parametrize(
    ("data", "form", "says"),
    [
        (b"/a\0b\n", TARGETS, "line 1: there is a NUL"),
        (b"/a\n/b\r\n", TARGETS, "line 2: it ends with a carriage return"),
        (b"/a\0/b", PATHS_TO_NUL, "not ended by a NUL"),
        (b"/a\n" * (lists.SIZE_LIMIT // 3 + 1), PATHS, "too long"),
    ],
)
def test_what_is_no_list(tmp_path, data, form, says):
    with pytest.raises(Refusal, match=says):
        read(tmp_path, data, form)


def test_one_with_nothing_in_it_is_told_beside_others(tmp_path):
    """Whatever writes it may have failed."""
    assert read(tmp_path, b"# a\n\n").remarks == (f"{tmp_path}/list: nothing is listed there",)


def test_lists_that_name_nothing(tmp_path):
    with pytest.raises(Refusal, match="list: nothing to back up is in it"):
        read(tmp_path, b"# nothing\n", job=Job("restomic"))


@pytest.mark.parametrize("form", [PATHS, PATTERNS])
def test_lines_of_dos_in_lists_for_restic(tmp_path, form):
    assert read(tmp_path, b"/a\r\n\r\n/b\r\n", form).targets[1:] == ("/a", "/b")


def test_an_option_without_its_file():
    with pytest.raises(Refusal, match="without its file"):
        with_targets_of(JOB, (Listing("", PATTERNS),))


@pytest.mark.parametrize("file", ["/gone/list", "/x\0y"])
def test_a_list_that_cannot_be_read(file):
    with pytest.raises(Refusal, match="cannot read the list") as refused:
        with_targets_of(JOB, (Listing(file),))
    assert refused.value.status == 66


def test_links_are_followed_in_our_lists_alone(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/link").symlink_to("nowhere")
    (tmp_path / "way").symlink_to("real")
    text = f"{tmp_path}/way/link\n".encode()
    named = f"{os.path.realpath(tmp_path)}/real/link"
    job = read(tmp_path, text, PATHS)
    assert (job.targets[1:], job.links) == ((named,), {named})
    job = read(tmp_path, text)
    assert (job.targets[1:], job.links) == ((f"{tmp_path}/way/link",), frozenset())


def test_what_is_no_file_is_left_out_of_what_a_pattern_matches(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    job = read(tmp_path, f"{tmp_path}/f*\n".encode(), PATTERNS)
    assert job.targets[1:] == (f"{tmp_path}/file",)
    place = f"{tmp_path}/list, line 1"
    assert job.remarks == (f"{place}: '{tmp_path}/fifo' is no file, and is left out",)


def test_it_is_known_which_files_they_are(tmp_path, monkeypatch):
    (tmp_path / "l").write_text("/x\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"/y\n")))
    job = with_targets_of(JOB, (Listing("l"), Listing("-")))
    assert job.lists == (os.path.abspath("l"),)


@pytest.mark.parametrize("kind", ["fifo", "directory", "device"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path, kind):
    place = str(tmp_path / "list")
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "directory":
        os.mkdir(place)
    else:
        place = "/dev/zero"
    with pytest.raises(Refusal, match=f"the list {place} is not a plain file; for standard input"):
        with_targets_of(JOB, (Listing(place),))


def test_what_the_shell_has_opened_is_read():
    """As in --paths-from <(command) of bash."""
    reading, writing = os.pipe()
    if not os.path.exists(f"/dev/fd/{reading}"):
        pytest.skip("needs fdescfs(5)")
    os.write(writing, b"/x\n")
    os.close(writing)
    try:
        job = with_targets_of(JOB, (Listing(f"/dev/fd/{reading}"),))
    finally:
        os.close(reading)
    assert job.targets[-1] == "/x"
    assert job.lists == ()
