"""What targets name: whole datasets, and directories of them."""

import pytest
from support.datasets import (
    NAMES,
    ROOT,
    captured,
    dataset,
    installer,
    left_out,
    left_out_kinds,
    plan_for,
    refused,
    simple,
    unmounted,
    zfs,
)

from kopiatomic.backup.plan import Plan
from kopiatomic.backup.selection import Captured, select, shown, without
from kopiatomic.backup.targets import asked_for, topmost
from kopiatomic.backup.unmounted import EMPTY, OCCUPIED, Sight
from kopiatomic.errors import EX_NOINPUT, Refusal
from kopiatomic.job import Job
from kopiatomic.system.machine import Mount


def parts(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return what a plan captures of each dataset: nothing but its directories."""
    return {each.dataset: each.directories for each in plan.captured}


class TestDirectories:
    def test_a_path_below_a_mount_point_is_that_directory_alone(self):
        plan = plan_for(simple(), "/home/ben/letters")
        assert captured(plan) == {"zroot/home/ben": "/home/ben"}
        assert parts(plan) == {"zroot/home/ben": ("/home/ben/letters",)}
        assert plan.paths == ("/home/ben/letters",)
        assert plan.notes == ()
        assert plan.left_out == ()

    def test_the_mount_point_is_the_whole_dataset(self):
        plan = plan_for(simple(), "/home/ben", "/data/x")
        assert parts(plan) == {"zroot/home/ben": (), "tank": ("/data/x",)}
        assert plan.paths == ("/data/x", "/home/ben")
        assert all(each.named for each in plan.captured)

    def test_several_of_a_dataset_are_sorted_and_named_once(self):
        plan = plan_for(simple(), "/data/y", "/data/x", "/data/y")
        assert parts(plan) == {"tank": ("/data/x", "/data/y")}

    @pytest.mark.parametrize(
        ("targets", "expected", "paths"),
        [
            (("/data/x", "/data/x/y"), {"tank": ("/data/x",)}, ("/data/x",)),
            (("/data/x", "/data/xy"), {"tank": ("/data/x", "/data/xy")}, ("/data/x", "/data/xy")),
            (("/data/x", "tank"), {"tank": ()}, ("/data",)),
            (("/data/x", "/data"), {"tank": ()}, ("/data",)),
            (("/home", "/home/ben/x"), {"zroot/home": (), "zroot/home/ben": ("/home/ben/x",)},
             ("/home",)),
        ],
    )  # fmt: skip
    def test_what_overlaps_is_reduced_to_the_topmost(self, targets, expected, paths):
        plan = plan_for(simple(), *targets)
        assert parts(plan) == expected
        assert plan.paths == paths

    def test_a_whole_dataset_that_comes_along_takes_the_place_of_its_directories(self):
        plan = plan_for(simple(), "zroot", "/home/ben/x", recursive=True)
        assert parts(plan) == {"zroot/home": (), "zroot/home/ben": ()}

    def test_of_one_that_is_set_off_no_more_comes_along_than_is_named(self):
        datasets, mounts = simple()
        datasets[2] = dataset("zroot/home/ben", backup="off")
        plan = plan_for((datasets, mounts), "zroot/home", "/home/ben/x", recursive=True)
        assert parts(plan) == {"zroot/home": (), "zroot/home/ben": ("/home/ben/x",)}

    def test_backup_off_does_not_count_for_one_that_is_named(self):
        machine = [dataset("t", backup="off")], [*ROOT, zfs("t", "/t")]
        assert parts(plan_for(machine, "/t/a")) == {"t": ("/t/a",)}

    def test_an_excluded_dataset_is_refused_as_by_its_name(self):
        refusal = refused(simple(), "/data/x", exclude=("tank",))
        assert str(refusal) == "tank cannot be backed up: excluded by tank"

    def test_what_is_not_on_zfs_is_refused(self):
        assert "is not on ZFS but on a ufs file system" in str(refused(simple(), "/usr/x"))

    def test_the_line_of_a_list_is_told(self):
        datasets, mounts = simple()
        job = Job("restomic", targets=("tnak",), origins={"tnak": "/l, line 3"})
        with pytest.raises(Refusal, match=r"^/l, line 3: no dataset is called 'tnak'"):
            select(job, datasets, mounts, NAMES)


class TestWhatIsMountedBelow:
    def test_without_r_it_is_left_out_and_told(self):
        plan = plan_for(installer(), "/usr")
        assert captured(plan) == {"zroot/ROOT/default": "/"}
        assert left_out(plan) == {"/usr/src": "not selected (dataset zroot/usr/src)"}

    def test_what_is_mounted_elsewhere_is_nobodys_concern(self):
        plan = plan_for(installer(), "/etc")
        assert plan.left_out == ()

    def test_with_r_it_comes_along_whatever_its_name(self):
        datasets, mounts = installer()
        datasets.append(dataset("tank/x"))
        mounts += [zfs("tank/x", "/usr/local/x"), Mount("tmpfs", "/usr/local/tmp", "tmpfs")]
        plan = plan_for((datasets, mounts), "/usr", recursive=True)
        assert captured(plan) == {
            "tank/x": "/usr/local/x", "zroot/ROOT/default": "/", "zroot/usr/src": "/usr/src",
        }  # fmt: skip
        assert plan.paths == ("/usr",)
        assert not [each for each in plan.captured if each.named != (each.point == "/")]
        assert left_out(plan) == {"/usr/local/tmp": "not on ZFS (tmpfs)"}

    def test_but_not_what_is_below_it_by_name_alone(self):
        datasets = [dataset("t"), dataset("t/a"), dataset("t/a/b")]
        mounts = [*ROOT, zfs("t", "/t"), zfs("t/a", "/t/x/a"), zfs("t/a/b", "/elsewhere")]
        plan = plan_for((datasets, mounts), "/t/x", recursive=True)
        assert set(captured(plan)) == {"t", "t/a"}

    def test_one_that_belongs_there_and_is_not_mounted_is_told(self):
        datasets = [dataset("t"), unmounted("t/a", keystatus="unavailable", mountpoint="/t/x/a")]
        plan = plan_for((datasets, [*ROOT, zfs("t", "/t")]), "/t/x", recursive=True)
        assert left_out_kinds(plan) == {"t/a": "locked"}

    def test_not_so_a_replica_of_what_is_mounted_there(self):
        datasets = [dataset("t"), dataset("t/a"), unmounted("r/a", mountpoint="/t/x/a")]
        mounts = [*ROOT, zfs("t", "/t"), zfs("t/a", "/t/x/a")]
        plan = plan_for((datasets, mounts), "/t/x", recursive=True)
        assert set(captured(plan)) == {"t", "t/a"}
        assert left_out(plan) == {}

    def test_nor_what_a_jail_has_mounted_there_in_itself(self):
        datasets = [dataset("t"), unmounted("t/j", jailed=True, mountpoint="/t/x/j")]
        plan = plan_for((datasets, [*ROOT, zfs("t", "/t")]), "/t/x", recursive=True)
        assert left_out(plan) == {}

    def test_exclude_and_property_leave_it_out(self):
        datasets = [dataset("t"), dataset("t/a"), dataset("t/b", backup="off")]
        mounts = [*ROOT, zfs("t", "/t"), zfs("t/a", "/t/x/a"), zfs("t/b", "/t/x/b")]
        plan = plan_for((datasets, mounts), "/t/x", recursive=True, exclude=("*/a",))
        assert left_out_kinds(plan) == {"t/a": "excluded", "t/b": "property"}


class TestWhereADatasetBelongs:
    """An empty directory is all that there is while the dataset is not mounted."""

    def machine(self, **changes: object):
        usual = {"mountpoint": "/t/home", **changes}
        return [dataset("t"), unmounted("t/home", **usual)], [*ROOT, zfs("t", "/t")]

    def choose(self, machine, *targets: str, found=EMPTY, **job: object):
        sight = Sight(lambda path: found if path == "/t/home" else OCCUPIED)
        return select(Job("restomic", targets=targets, **job), *machine, NAMES, sight)

    @pytest.mark.parametrize("changes", [{}, {"canmount": "noauto"}])
    def test_it_is_meant(self, changes):
        (captured,) = self.choose(self.machine(**changes), "/t/home").captured
        assert (captured.dataset, captured.directories) == ("t/home", ())
        assert captured.unmounted == "not mounted"

    def test_without_its_key_it_is_refused(self):
        with pytest.raises(Refusal) as caught:
            self.choose(self.machine(keystatus="unavailable"), "/t/home")
        assert str(caught.value).startswith(
            "t/home cannot be backed up: not mounted: its encryption key is not loaded"
        )
        assert caught.value.status == EX_NOINPUT

    def test_beside_others_it_is_an_obstacle_of_what_was_named(self):
        locked = self.machine(keystatus="unavailable")
        selection = self.choose(locked, "/t/home", "/t/etc", recursive=True)
        assert [each.directories for each in selection.captured] == [("/t/etc",)]
        (left,) = selection.left_out
        assert (left.name, left.named, left.is_obstacle) == ("t/home", True, True)

    @pytest.mark.parametrize(
        "changes", [{"canmount": "off"}, {"jailed": True}, {"mountpoint": "/t/other"}]
    )
    def test_where_none_can_be_the_directory_is(self, changes):
        selection = self.choose(self.machine(**changes), "/t/home")
        assert [each.directories for each in selection.captured] == [("/t/home",)]

    def test_where_something_is_in_it_too(self):
        """There may be a replica of another machine's dataset, never mounted here."""
        selection = self.choose(self.machine(), "/t/home", found=OCCUPIED)
        assert [each.directories for each in selection.captured] == [("/t/home",)]


class TestWhatAJobHasToKnowOf:
    @pytest.mark.parametrize(
        ("job", "names"),
        [
            ({"targets": ("zroot/home", "/data")}, ("tank", "zroot/home")),
            ({"targets": ("/data", "tank")}, ("tank",)),
            ({"targets": ("no/such",)}, ("no/such",)),
            # All: for what patterns match, what is below or belongs at a directory, and to
            # tell what is wrong with a target.
            ({"everything": True}, ()),
            ({"targets": ("tank",), "exclude": ("*/b",)}, ()),
            ({"targets": ("tank", "/data/x")}, ()),
            ({"targets": ("tank", "/usr")}, ()),
            ({"targets": ("/",)}, ()),
        ],
    )
    def test_as_far_as_it_is_not_all(self, job, names):
        assert asked_for(Job("restomic", **job), simple()[1]) == names


def test_topmost():
    assert topmost(["/b", "/a/c", "/a", "/ab"]) == ("/a", "/ab", "/b")


class TestTelling:
    def test_what_of_a_dataset_is_captured(self):
        assert shown("/", ()) == "/"
        assert shown("/", ("/etc", "/root")) == "/, only /etc, /root"
        assert shown("/", tuple("/abcdefg")) == "/, only /, a, b, c, d and 3 more"
        assert Captured("t", "/t").paths == ("/t",)
        assert Captured("t", "/t", directories=("/t/a",)).paths == ("/t/a",)

    def test_without_some(self):
        datasets, mounts = simple()
        job = Job("restomic", targets=("/data/x", "/data/y", "zroot/home"))
        chosen = select(job, datasets, mounts, NAMES)
        fewer = without(chosen, {"/data/x": "gone"})
        assert [each.paths for each in fewer.captured] == [("/data/y",), ("/home",)]
        assert [(each.name, each.reason) for each in fewer.left_out] == [("/data/x", "gone")]
        none = without(chosen, {"/data/x": "gone", "/data/y": "gone"})
        assert [each.dataset for each in none.captured] == ["zroot/home"]
        assert without(chosen, {"tank": "gone"}).captured == none.captured
