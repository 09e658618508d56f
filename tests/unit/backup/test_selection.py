"""Which datasets are captured and which are left out, and why."""


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
    view_of,
    zfs,
)

from kopiatomic.errors import EX_NOINPUT
from kopiatomic.system.machine import Dataset, Mount

VOLUME = unmounted("t/v", type="volume")


class TestSelection:
    def test_one_dataset(self):
        plan = plan_for(simple(), "zroot/home")
        assert captured(plan) == {"zroot/home": "/home"}
        assert plan.snapshots == ("zroot/home@restomic-1",)
        assert plan.paths == ("/home",)

    def test_a_dataset_within_that_was_not_selected_is_named(self):
        plan = plan_for(simple(), "zroot/home")
        assert left_out(plan) == {"/home/ben": "not selected (dataset zroot/home/ben)"}
        assert left_out_kinds(plan) == {"/home/ben": "not selected"}

    def test_a_file_system_within_that_is_not_zfs_is_named(self):
        datasets, mounts = simple()
        mounts.append(Mount("tmpfs", "/home/ben/scratch", "tmpfs"))
        plan = plan_for((datasets, mounts), "zroot/home", recursive=True)
        assert left_out(plan) == {"/home/ben/scratch": "not on ZFS (tmpfs)"}
        assert left_out_kinds(plan) == {"/home/ben/scratch": "not zfs"}
        assert "/home/ben/scratch" not in view_of(plan)

    def test_recursive(self):
        plan = plan_for(simple(), "zroot", recursive=True)
        assert captured(plan) == {"zroot/home": "/home", "zroot/home/ben": "/home/ben"}
        assert left_out(plan) == {"zroot": "not mounted"}
        assert plan.paths == ("/home",)

    def test_recursion_stops_at_name_boundaries(self):
        machine = [dataset("t/a"), dataset("t/ab")], [*ROOT, zfs("t/a", "/a"), zfs("t/ab", "/ab")]
        assert captured(plan_for(machine, "t/a", recursive=True)) == {"t/a": "/a"}

    def test_everything(self):
        plan = plan_for(simple(), everything=True)
        assert set(captured(plan)) == {"zroot/home", "zroot/home/ben", "tank"}
        assert plan.paths == ("/data", "/home")

    def test_a_mount_point_is_taken_from_the_mount_table(self):
        machine = [dataset("t/a")], [*ROOT, zfs("t/a", "/else where")]
        assert captured(plan_for(machine, "t/a")) == {"t/a": "/else where"}

    def test_the_same_dataset_by_several_names_is_captured_once(self):
        plan = plan_for(simple(), "zroot/home", "/home", "zroot/home", recursive=True)
        assert plan.snapshots == ("zroot/home/ben@restomic-1", "zroot/home@restomic-1")[::-1]

    def test_exclude_takes_what_is_below_along(self):
        plan = plan_for(simple(), everything=True, exclude=("zroot/h*",))
        assert set(captured(plan)) == {"tank"}
        assert left_out(plan)["zroot/home/ben"] == "excluded by zroot/h*"
        assert left_out_kinds(plan)["zroot/home/ben"] == "excluded"

    def test_an_exclude_that_matches_nothing_is_told(self):
        plan = plan_for(simple(), "tank", exclude=("zroot/hmoe",))
        assert plan.notes == ("-x zroot/hmoe matches no dataset",)

    def test_backup_off_counts_for_recursion_and_not_for_names(self):
        datasets, mounts = simple()
        datasets[2] = dataset("zroot/home/ben", backup="off")
        plan = plan_for((datasets, mounts), "zroot/home", recursive=True)
        assert left_out(plan)["zroot/home/ben"] == "its property org.kopiatomic:backup is off"
        assert left_out_kinds(plan)["zroot/home/ben"] == "property"
        assert captured(plan_for((datasets, mounts), "zroot/home/ben"))

    @pytest.mark.parametrize(
        ("odd", "kind", "reason"),
        [
            (unmounted("t/x"), "not mounted", "not mounted"),
            (unmounted("t/x", canmount="off"), "canmount",
             "not mounted: its property canmount is off"),
            (unmounted("t/x", keystatus="unavailable"), "locked",
             "not mounted: its encryption key is not loaded"),
            (dataset("t/x", jailed=True), "jailed",
             "belongs to a jail (its property jailed is on)"),
            (dataset("t/x"), "hidden", "another file system is mounted over it"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_captured(self, odd: Dataset, kind: str, reason: str):
        machine = [dataset("t"), odd], [*ROOT, zfs("t", "/t")]
        plan = plan_for(machine, "t", recursive=True)
        assert left_out(plan)["t/x"] == reason
        assert left_out_kinds(plan)["t/x"] == kind
        refusal = refused(machine, "t/x")
        # Named, it is shown all the same where there is a place for it.
        assert str(refusal).startswith("t/x cannot be backed up: ")
        if kind in ("locked", "volume"):
            advice = "; load it: zfs load-key t/x" if kind == "locked" else ""
            assert str(refusal) == f"t/x cannot be backed up: {reason}{advice}"
        else:
            assert "say by --at DIRECTORY where to show it" in str(refusal)
        assert refusal.status == EX_NOINPUT

    @pytest.mark.parametrize(
        ("odd", "missed"),
        [
            (unmounted("t/x", keystatus="unavailable"), True), (dataset("t/x"), True),
            (unmounted("t/x"), True),
            (unmounted("t/x", type="volume", keystatus="unavailable"), True),
            (unmounted("t/x", canmount="off"), False),
            (unmounted("t/x", canmount="noauto"), False),
            (unmounted("t/x", mountpoint="none"), False),
            (unmounted("t/x", mountpoint="legacy"), False),
        ],
    )  # fmt: skip
    def test_what_was_named_beside_those_below_it(self, odd: Dataset, missed: bool):
        """With -r others are backed up, and without what has files the backup is not whole."""
        below = dataset("t/x/below")
        mounts = [*ROOT, zfs("t", "/t"), zfs("t/x/below", "/t/x/below")]
        plan = plan_for(([dataset("t"), odd, below], mounts), "t", "t/x", recursive=True)
        (left,) = plan.left_out
        assert (left.name, left.named, left.missed) == ("t/x", True, missed)
        plan = plan_for(([dataset("t"), odd, below], mounts), "t", recursive=True)
        assert not any(each.named or each.missed for each in plan.left_out)

    def test_a_boot_environment_that_was_named_and_is_not_in_use_any_more(self):
        datasets = [dataset("z/ROOT/new"), unmounted("z/ROOT/old", canmount="noauto"),
                    dataset("z/home")]  # fmt: skip
        mounts = [zfs("z/ROOT/new", "/"), zfs("z/home", "/home"), *ROOT[1:]]
        plan = plan_for((datasets, mounts), "z/ROOT/old", "z/home", recursive=True)
        assert [(each.name, each.kind, each.missed) for each in plan.left_out] == [
            ("z/ROOT/old", "inactive", True)
        ]

    def test_a_volume_is_left_out_where_it_is_not_asked_for(self):
        plan = plan_for(([dataset("t"), VOLUME], [*ROOT, zfs("t", "/t")]), "t", recursive=True)
        assert left_out(plan) == {"t/v": "a volume, which holds no files"}
        assert plan.volumes == ()

    @pytest.mark.parametrize("how", [{"everything": True}, {"recursive": True}])
    def test_volumes_that_are_asked_for(self, how: dict[str, bool]):
        others = [unmounted("t/w", type="volume"), unmounted("t/x", type="volume", backup="off"),
                  unmounted("t/y", type="volume", keystatus="unavailable"),
                  unmounted(f"t/{'z' * 244}", type="volume")]  # fmt: skip
        machine = [dataset("t"), VOLUME, *others], [*ROOT, zfs("t", "/t")]
        targets = () if "everything" in how else ("t",)
        plan = plan_for(machine, *targets, volumes=True, exclude=("t/w",), **how)
        assert [(each.dataset, each.point) for each in plan.volumes] == [("t/v", "/dev/zvol/t/v")]
        assert left_out_kinds(plan) == {
            "t/w": "excluded", "t/x": "property", "t/y": "locked", f"t/{'z' * 244}": "too long",
        }  # fmt: skip

    def test_a_volume_that_is_named(self):
        machine = [dataset("t"), VOLUME], [*ROOT, zfs("t", "/t")]
        plan = plan_for(machine, "t/v")
        (volume,) = plan.volumes
        assert (volume.dataset, volume.named, plan.captured) == ("t/v", True, ())
        assert plan.snapshots == (f"t/v@{NAMES.snapshot}",)
        locked = unmounted("t/v", type="volume", keystatus="unavailable")
        refusal = refused(([locked], ROOT), "t/v")
        assert str(refusal).startswith("t/v cannot be backed up: its encryption key is not loaded;")

    def test_a_name_too_long_for_a_snapshot(self):
        name = "t/" + "x" * 243
        machine = [dataset("t"), dataset(name)], [*ROOT, zfs("t", "/t"), zfs(name, "/t/x")]
        plan = plan_for(machine, "t", recursive=True)
        assert "too long" in left_out(plan)[name]
        assert left_out_kinds(plan)[name] == "too long"

    def test_a_mount_point_too_long_to_be_mounted_again(self):
        point = "/" + "ä" * 500
        machine = [dataset("t"), dataset("t/x")], [*ROOT, zfs("t", "/t"), zfs("t/x", point)]
        assert "too long" in left_out(plan_for(machine, "t", recursive=True))["t/x"]

    def test_every_candidate_is_captured_or_left_out(self):
        plan = plan_for(installer(), everything=True, exclude=("zroot/tmp",))
        named = set(captured(plan)) | set(left_out(plan))
        assert named == {each.name for each in installer()[0]}


class TestBootEnvironments:
    """Beside the one that runs, all are names of another time."""

    def machine(self, **old: object):
        datasets, mounts = installer()
        return [*datasets, dataset("zroot/ROOT/old", canmount="noauto", **old)], mounts

    def test_one_that_is_not_in_use_is_told_from_what_is_just_not_mounted(self):
        refusal = refused(self.machine(mounted=False), "zroot/ROOT/old")
        assert "name /, which is always the one in use" in str(refusal)
        assert captured(plan_for(self.machine(mounted=False), "/")) == {"zroot/ROOT/default": "/"}

    def test_elsewhere_there_are_none(self):
        machine = ([*simple()[0], unmounted("zroot/old", canmount="noauto")], simple()[1])
        assert str(refused(machine, "zroot/old")).startswith(
            "zroot/old cannot be backed up: not mounted, and "
        )

    def test_one_that_bectl_has_mounted_to_look_into_it_is_not_taken_along(self):
        datasets, mounts = self.machine()
        point = "/tmp/be_mount.Xa1"
        plan = plan_for((datasets, [*mounts, zfs("zroot/ROOT/old", point)]), everything=True)
        assert "zroot/ROOT/old" not in captured(plan)
        assert "mounted by bectl" in left_out(plan)["zroot/ROOT/old"]
        assert [each.kind for each in plan.left_out if each.name == "zroot/ROOT/old"] == [
            "inactive"
        ]

    def test_nor_is_what_belongs_to_it(self):
        datasets, mounts = self.machine()
        datasets.append(dataset("zroot/ROOT/old/usr"))
        mounts += [zfs("zroot/ROOT/old", "/tmp/be_mount.Xa1"),
                   zfs("zroot/ROOT/old/usr", "/tmp/be_mount.Xa1/usr")]  # fmt: skip
        plan = plan_for((datasets, mounts), everything=True)
        assert not {"zroot/ROOT/old", "zroot/ROOT/old/usr"} & {*captured(plan)}

    def test_what_belongs_to_the_one_in_use_is(self):
        datasets, mounts = installer()
        datasets.append(dataset("zroot/ROOT/default/usr", canmount="noauto"))
        mounts.append(zfs("zroot/ROOT/default/usr", "/tmp/be_mount.x"))
        plan = plan_for((datasets, mounts), everything=True)
        assert "zroot/ROOT/default/usr" in captured(plan)

    def test_not_all_that_lies_beside_the_root_is_one(self):
        """There are layouts in which / is a dataset among others."""
        datasets = [dataset("zroot/root"), unmounted("zroot/spare")]
        refusal = refused((datasets, [zfs("zroot/root", "/")]), "zroot/spare")
        assert str(refusal).startswith("zroot/spare cannot be backed up: not mounted, and ")

    def test_another_dataset_may_be_mounted_there(self):
        datasets, mounts = installer()
        datasets.append(dataset("zroot/x"))
        mounts.append(zfs("zroot/x", "/tmp/be_mount.Xa1"))
        assert "zroot/x" in captured(plan_for((datasets, mounts), everything=True))
