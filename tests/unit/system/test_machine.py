"""Paths, and which mount can be seen."""

import pytest

from kopiatomic.system import machine
from kopiatomic.system.machine import Mount


@pytest.mark.parametrize(
    ("path", "directory", "lies"),
    [
        ("/a", "/a", True), ("/a/b", "/a", True), ("/ab", "/a", False), ("/a", "/a/b", False),
        ("/a", "/", True), ("/", "/", True), ("/", "/a", False),
    ],
)  # fmt: skip
def test_lies_in(path, directory, lies):
    assert machine.lies_in(path, directory) is lies


def test_ancestors_are_the_path_and_all_above_it():
    assert machine.ancestors("/a/b c/d") == ["/a/b c/d", "/a/b c", "/a", "/"]
    assert machine.ancestors("/") == ["/"]


@pytest.mark.parametrize("kind", [list, set, dict.fromkeys])
def test_the_nearest_of_several_points(kind):
    points = kind(["/", "/a", "/a/b", "/ab"])
    assert machine.nearest("/a/b/c", points) == "/a/b"
    assert machine.nearest("/a/b", points) == "/a/b"
    assert machine.nearest("/abc", points) == "/"
    assert machine.nearest("/abc", kind(["/a"])) is None


def test_which_entries_lead_on_to_another_point():
    points = ["/", "/a", "/a/b/c", "/a/b/d", "/ab", "/x/y"]
    assert machine.leading_on(points) == {"/": {"a", "ab", "x"}, "/a": {"b"}}
    assert machine.leading_on(["/a"]) == {}


def test_join():
    assert machine.join("/view", "/a/b") == "/view/a/b"
    assert machine.join("/view", "/") == "/view"
    assert machine.join("/", "/a") == "/a"


class TestVisibleMounts:
    def see(self, *points: str) -> list[str]:
        mounts = [Mount(f"{number}:{point}", point, "ufs") for number, point in enumerate(points)]
        return [mount.special for mount in machine.visible_mounts(mounts)]

    def test_a_later_mount_on_the_same_point_covers(self):
        assert self.see("/", "/a", "/a") == ["0:/", "2:/a"]

    def test_and_one_on_a_directory_above(self):
        assert self.see("/", "/a/b", "/a") == ["0:/", "2:/a"]
        assert self.see("/", "/a", "/") == ["2:/"]

    def test_one_made_below_another_is_seen(self):
        assert self.see("/", "/a", "/a/b", "/ab") == ["0:/", "1:/a", "2:/a/b", "3:/ab"]

    def test_one_made_anew_below_what_covered_it(self):
        assert self.see("/", "/a/b", "/a", "/a/b") == ["0:/", "2:/a", "3:/a/b"]
