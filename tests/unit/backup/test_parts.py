"""Directories chosen alone: whether they are in the snapshots, and where."""

import os

import pytest
from support.datasets import NAMES, ROOT, dataset, plan_for, zfs

from kopiatomic.backup import parts
from kopiatomic.backup.plan import Hold, Plan
from kopiatomic.backup.selection import Captured
from kopiatomic.errors import EX_NOINPUT, Refusal


def plan_of(tmp_path, *names: str, still: bool = False) -> Plan:
    """Return a plan with directories of a dataset whose snapshot is mounted in tmp_path/hold."""
    point = f"{tmp_path}/live" if still else "/t"
    directories = tuple(f"{point}/{name}" for name in names)
    captured = Captured("t", point, still=still, directories=directories)
    holds = () if still else (Hold("t", "t@s", f"{tmp_path}/hold"),)
    return Plan(NAMES, (captured,), (), holds, (), directories)


def test_where_they_are():
    captured = (
        Captured("r", "/", directories=("/etc", "/usr/local")),
        Captured("t", "/t"),
        Captured("s", "/s", still=True, directories=("/s/a",)),
    )
    plan = Plan(NAMES, captured, (), (Hold("r", "r@s", "/h/0"), Hold("t", "t@s", "/h/1")), (), ())
    assert parts.places(plan) == {
        "/etc": "/h/0/etc", "/usr/local": "/h/0/usr/local", "/t": "/h/1", "/s/a": "/s/a",
    }  # fmt: skip
    root = Plan(NAMES, (Captured("r", "/"),), (), (Hold("r", "r@s", "/h/0"),), (), ())
    assert parts.places(root) == {"/": "/h/0"}


@pytest.mark.parametrize("still", [False, True])
def test_which_are_absent(tmp_path, still: bool):
    top = tmp_path / ("live" if still else "hold")
    (top / "there/inner").mkdir(parents=True)
    (top / "file").write_text("x")
    (top / "link").symlink_to("there")
    plan = plan_of(
        tmp_path, "there", "there/inner", "file", "gone", "link", "link/inner", "file/x",
        still=still,
    )  # fmt: skip
    lost = parts.absent(plan)
    found = {os.path.relpath(path, plan.captured[0].point): each for path, each in lost.items()}
    assert {name: each.reason for name, each in found.items()} == {
        "gone": parts.ABSENT, "file/x": parts.ABSENT,
        "link": parts.LED_ELSEWHERE, "link/inner": parts.LED_ELSEWHERE,
    }  # fmt: skip
    assert not any(each.gone or each.told for each in lost.values())


def test_a_link_that_is_kept_as_one_is_there(tmp_path):
    (tmp_path / "hold").mkdir()
    (tmp_path / "hold/link").symlink_to("nowhere")
    assert parts.absent(plan_of(tmp_path, "link"), {"/t/link"}) == {}


def test_of_whole_datasets_none_is(tmp_path):
    plan = Plan(NAMES, (Captured("t", "/nowhere"),), (), (), (), ())
    assert parts.absent(plan) == {}


class TestWhatIsShownAlone:
    def plan(self, tmp_path, *targets: str) -> Plan:
        top = str(tmp_path)
        machine = [dataset("t"), dataset("t/a")], [*ROOT, zfs("t", top), zfs("t/a", f"{top}/a")]
        return plan_for(machine, *(f"{top}{target}" for target in targets))

    def test_a_file_cannot_be(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a/file").write_text("x")
        plan = self.plan(tmp_path, "", "/a/file")
        with pytest.raises(Refusal, match="is no directory") as caught:
            parts.check_shown(plan)
        assert caught.value.status == EX_NOINPUT
        assert f"name {tmp_path}/a, or add -r" in str(caught.value)

    def test_directories_can(self, tmp_path):
        (tmp_path / "a/b").mkdir(parents=True)
        parts.check_shown(self.plan(tmp_path, "", "/a/b"))

    def test_what_is_in_a_dataset_that_is_shown_as_a_whole_need_not(self, tmp_path):
        parts.check_shown(self.plan(tmp_path, "/a/file"))


@pytest.mark.parametrize(
    ("there", "member", "lost"),
    [
        ("at/file", Captured("t/x", "/t/at/t+x", unmounted="bare", below="/t/at"), ["t/x"]),
        ("x/file", Captured("t/x", "/t/x", unmounted="noauto"), ["t/x"]),
        ("x", Captured("t/x", "/t/x", unmounted="noauto"), []),
        ("y", Captured("t/x", "/t/x", unmounted="noauto"), []),
        ("x/file", Captured("t/x", "/t/x"), []),
        ("x/file", Captured("u/x", "/u/x", unmounted="noauto"), []),
    ],
)  # fmt: skip
def test_what_would_hide_files_of_the_snapshot(tmp_path, there, member, lost):
    (tmp_path / "hold" / there).mkdir(parents=True)
    holds = (Hold("t", "t@s", f"{tmp_path}/hold"), Hold(member.dataset, "x@s", "/nowhere"))
    plan = Plan(NAMES, (Captured("t", "/t"), member), (), holds, (), ())
    found = parts.covered(plan)
    assert list(found) == lost
    assert all("in the snapshot of t there are files in /t/" in e.reason for e in found.values())
    apart = plan._replace(captured=(Captured("t", "/t", directories=("/t/etc",)), member))
    assert parts.covered(apart) == {}
