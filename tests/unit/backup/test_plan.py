"""From a selection to a plan: what is captured, what the view holds, what is refused."""

import time

import pytest

from kopiatomic.clients.base import Needs
from kopiatomic.errors import EX_CONFIG, EX_NOINPUT, Refusal
from kopiatomic.system.machine import Dataset, Mount, visible_mounts
from unit.machines import (
    ROOT,
    dataset,
    installer,
    left_out,
    left_out_kinds,
    plan_for,
    simple,
    unmounted,
    view_of,
    zfs,
)


def captured(plan):
    return {each.dataset: each.point for each in plan.captured}


def refused(*args, **kwargs) -> Refusal:
    with pytest.raises(Refusal) as caught:
        plan_for(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return caught.value


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

    def test_paths_name_the_dataset_they_lie_in(self):
        plan = plan_for(simple(), "/home/ben/letters")
        assert captured(plan) == {"zroot/home/ben": "/home/ben"}
        assert plan.notes == (
            "/home/ben/letters lies in zroot/home/ben, which is backed up as a whole",
        )

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
            (unmounted("t/x", type="volume"), "volume", "a volume, which holds no files"),
            (dataset("t/x"), "hidden", "another file system is mounted over it"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_captured(self, odd: Dataset, kind: str, reason: str):
        machine = [dataset("t"), odd], [*ROOT, zfs("t", "/t")]
        plan = plan_for(machine, "t", recursive=True)
        assert left_out(plan)["t/x"] == reason
        assert left_out_kinds(plan)["t/x"] == kind
        refusal = refused(machine, "t/x")
        assert str(refusal) == f"t/x cannot be backed up: {reason}"
        assert refusal.status == EX_NOINPUT

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


class TestRefusals:
    def test_unknown_dataset(self):
        assert str(refused(simple(), "zroot/hmoe")).startswith("no dataset is called 'zroot/hmoe'")

    def test_slash_at_the_end(self):
        assert "write 'zroot/home'" in str(refused(simple(), "zroot/home/"))

    def test_snapshot(self):
        assert "name its dataset" in str(refused(simple(), "zroot/home@monday"))

    def test_path_outside_zfs(self):
        refusal = refused(simple(), "/etc")
        assert str(refusal).startswith("'/etc' is not on ZFS but on a ufs file system")
        assert refusal.status == EX_NOINPUT

    def test_path_in_a_snapshot(self):
        datasets, mounts = simple()
        mounts.append(Mount("tank@x", "/mnt", "zfs"))
        assert "in the snapshot tank@x already" in str(refused((datasets, mounts), "/mnt"))

    def test_everything_left_out(self):
        refusal = refused(simple(), "zroot", recursive=True, exclude=("zroot/*",))
        assert refusal.status == EX_NOINPUT
        assert "zroot/home: excluded by zroot/*" in str(refusal)

    def test_no_datasets_at_all(self):
        assert "there is no dataset" in str(refused(([], list(ROOT)), everything=True))


class TestView:
    def test_live_system_around_what_is_frozen(self):
        plan = plan_for(simple(), "zroot/home")
        assert view_of(plan) == {"/": "live", "/dev": "device", "/data": "live", "/home": "frozen"}
        assert plan.live == ()
        assert plan.temporary is None

    def test_frozen_mounts_are_the_snapshots_read_only(self):
        mount = next(m for m in plan_for(simple(), "tank").view if m.point == "/data")
        assert (mount.source, mount.read_only) == ("/data/.zfs/snapshot/restomic-1", True)

    def test_parents_come_before_children(self):
        datasets, mounts = simple()
        names = ["/home/a b", "/home/a", "/home-x", "/home/a/c", "/home/a!"]
        mounts += [Mount("x", name, "tmpfs") for name in names]
        order = [mount.point for mount in plan_for((datasets, mounts), "tank").view]
        for point in order:
            above = [other for other in order if point.startswith(other.rstrip("/") + "/")]
            assert all(order.index(other) < order.index(point) for other in above if other != point)

    def test_read_only_mounts_stay_read_only(self):
        datasets, mounts = simple()
        mounts.append(Mount("/dev/cd0", "/cd", "cd9660", read_only=True))
        view = {mount.point: mount for mount in plan_for((datasets, mounts), "tank").view}
        assert view["/cd"].read_only
        assert not view["/"].read_only

    def test_what_lies_on_or_below_another_machine_is_marked(self):
        datasets, mounts = simple()
        mounts += [Mount("server:/x", "/net", "nfs", local=False), Mount("t", "/net/t", "tmpfs")]
        plan = plan_for((datasets, mounts), "zroot/home")
        assert [mount.point for mount in plan.view if mount.remote] == ["/net", "/net/t"]

    def test_what_a_view_does_not_need(self):
        datasets, mounts = simple()
        mounts += [
            Mount("procfs", "/proc", "procfs"),
            Mount("fdescfs", "/dev/fd", "fdescfs"),
            Mount("devfs", "/jails/a/dev", "devfs"),
            Mount("tank@x", "/data/.zfs/snapshot/x", "zfs"),
            Mount("/", "/var/run/kopiatomic/other/view", "nullfs"),
        ]
        plan = plan_for((datasets, mounts), "zroot/home")
        assert set(view_of(plan)) == {"/", "/dev", "/data", "/home"}

    def test_a_snapshot_that_is_mounted_somewhere_is_part_of_the_live_system(self):
        datasets, mounts = simple()
        mounts.append(Mount("tank@x", "/mnt", "zfs"))
        assert view_of(plan_for((datasets, mounts), "zroot/home"))["/mnt"] == "live"

    def test_a_gap_is_bridged_by_an_empty_tree(self):
        datasets, mounts = simple()
        datasets.append(dataset("zroot/home/ben/d"))
        mounts.append(zfs("zroot/home/ben/d", "/home/ben/deep/d"))
        plan = plan_for((datasets, mounts), "zroot/home", "zroot/home/ben/d")
        assert view_of(plan)["/home/ben"] == "gap"
        gap = next(mount for mount in plan.view if mount.kind == "gap")
        assert gap.directories == ("deep/d",)
        assert gap.source == "/var/run/restomic/default/gap/0"
        assert plan.paths == ("/home",)

    def test_no_gap_where_nothing_is_chosen_below(self):
        assert "gap" not in view_of(plan_for(simple(), "zroot/home")).values()


class TestFrozenRoot:
    NEEDS = Needs("/usr/local/bin/restic", "/tmp", ("/root/.cache",))

    def test_only_what_the_client_writes_is_live(self):
        plan = plan_for(installer(), everything=True, needs=self.NEEDS)
        live = {point for point, kind in view_of(plan).items() if kind != "frozen"}
        temporary = "/var/run/restomic/default/tmp"
        assert live == {"/dev", "/root/.cache", temporary}
        assert plan.live == ("/dev", "/root/.cache", temporary)
        assert plan.temporary == temporary
        assert plan.paths == ("/",)

    def test_devices_are_those_of_a_jail(self):
        plan = plan_for(installer(), everything=True, needs=self.NEEDS)
        assert next(m for m in plan.view if m.point == "/dev").ruleset == "4"

    def test_a_left_out_dataset_does_not_slip_in(self):
        plan = plan_for(installer(), everything=True, exclude=("zroot/var/log",), needs=self.NEEDS)
        assert "/var/log" not in view_of(plan)

    def test_live_directory(self):
        needs = Needs("/usr/local/bin/restic", live=("/backup",), repository="/backup/repo")
        plan = plan_for(installer(), everything=True, needs=needs)
        assert view_of(plan)["/backup"] == "live"
        assert "/backup" in plan.live

    def test_a_live_directory_brings_the_mounts_within_it(self):
        datasets, mounts = installer()
        mounts.append(Mount("nfs:/x", "/backup/x", "nfs"))
        needs = Needs("/usr/local/bin/restic", live=("/backup",))
        plan = plan_for((datasets, mounts), everything=True, needs=needs)
        assert view_of(plan)["/backup/x"] == "live"

    def test_a_live_directory_must_not_thaw_a_dataset(self):
        needs = Needs("/usr/local/bin/restic", live=("/usr",))
        assert "would undo the freezing of /usr/src" in str(
            refused(installer(), everything=True, needs=needs)
        )

    def test_the_clients_program_must_be_in_the_view(self):
        datasets, mounts = installer()
        datasets.append(dataset("zroot/local"))
        mounts.append(zfs("zroot/local", "/usr/local"))
        refusal = refused((datasets, mounts), everything=True, exclude=("zroot/local",))
        assert str(refusal).endswith("add --live /usr/local")
        assert refusal.status == EX_CONFIG

    def test_what_the_client_cannot_do_without_is_marked(self):
        datasets, mounts = simple()
        mounts += [Mount("nas:/b", "/backup", "nfs", local=False), Mount("t", "/other", "tmpfs")]
        needs = Needs("/usr/local/bin/restic", live=("/other",), repository="/backup/restic")
        plan = plan_for((datasets, mounts), "zroot/home", needs=needs)
        assert [mount.point for mount in plan.view if mount.needed] == ["/", "/backup", "/other"]

    def test_a_frozen_repository_is_refused(self):
        needs = Needs("/usr/local/bin/restic", repository="/home/repo")
        refusal = refused(simple(), "zroot/home", needs=needs)
        assert "--live /home/repo" in str(refusal)
        assert refusal.status == EX_CONFIG

    def test_a_temporary_directory_beyond_a_left_out_mount_gets_a_bridge(self):
        datasets, mounts = installer()
        mounts.append(Mount("tmpfs", "/var/run", "tmpfs"))
        plan = plan_for((datasets, mounts), everything=True, needs=self.NEEDS)
        assert view_of(plan)["/var/run"] == "gap"
        assert view_of(plan)["/var/run/restomic/default/tmp"] == "live"


class TestVisibleMounts:
    def test_the_later_of_two_on_one_mount_point_counts(self):
        first, second = zfs("t/one", "/both"), zfs("t/two", "/both")
        assert visible_mounts([*ROOT, first, second]) == [*ROOT, second]

    def test_a_mount_over_a_directory_above_hides(self):
        assert visible_mounts([*ROOT, zfs("t/a", "/a/b"), zfs("t", "/a")]) == [
            *ROOT,
            zfs("t", "/a"),
        ]

    def test_a_later_mount_further_down_hides_nothing(self):
        mounts = [*ROOT, zfs("t", "/a"), zfs("t/a", "/a/b")]
        assert visible_mounts(mounts) == mounts


def test_ten_thousand_datasets_are_planned_within_a_second():
    names = [f"t/{n // 100}/{n}" for n in range(10_000)]
    machine = (
        [dataset(name) for name in names],
        [*ROOT, *(zfs(name, f"/{name}") for name in names)],
    )
    began = time.process_time()
    plan = plan_for(machine, everything=True, exclude=("t/7/*",))
    assert time.process_time() - began < 1.0
    assert len(plan.captured) == 9_900
