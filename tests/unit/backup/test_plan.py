"""From a selection to a plan: what is captured, what the view holds, what is refused."""

import pytest
from support.datasets import (
    NAMES,
    NEEDS,
    ROOT,
    captured,
    dataset,
    installer,
    left_out,
    plan_for,
    refused,
    simple,
    view_of,
    zfs,
)

from kopiatomic.backup.plan import Hold, Scene, arrange, mentions
from kopiatomic.backup.selection import select, stand_still, without
from kopiatomic.clients.records import Needs
from kopiatomic.errors import EX_CONFIG, EX_NOINPUT, Refusal
from kopiatomic.job import Job
from kopiatomic.system.machine import Mount, visible_mounts


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
    """The chosen snapshots, and of the live system what the client needs and no more."""

    def test_a_live_system_around_what_is_frozen(self):
        plan = plan_for(simple(), "zroot/home")
        assert view_of(plan) == {
            "/": "live", "/data": "closed", "/dev": "device", "/home": "frozen"
        }  # fmt: skip
        assert plan.unseen == ("/data", "/home/ben")
        assert plan.live == plan.skipped == ()
        assert plan.temporary is None

    def test_what_is_frozen_is_a_snapshot_of_its_own_read_only(self):
        """Not one in the live dataset, which that would keep from being unmounted."""
        plan = plan_for(simple(), "zroot/home", recursive=True)
        assert plan.holds == (
            Hold("zroot/home", "zroot/home@restomic-1", "/var/run/restomic/default/hold/0"),
            Hold("zroot/home/ben", "zroot/home/ben@restomic-1",
                 "/var/run/restomic/default/hold/1"),
        )  # fmt: skip
        frozen = [mount for mount in plan.view if mount.kind == "frozen"]
        assert [(m.source, m.dataset, m.read_only) for m in frozen] == [
            (hold.directory, hold.dataset, True) for hold in plan.holds
        ]

    def test_parents_come_before_children(self):
        datasets, mounts = simple()
        names = ["/home/a b", "/home/a", "/home-x", "/home/a/c", "/home/a!"]
        mounts += [Mount("x", name, "tmpfs") for name in names]
        needs = NEEDS._replace(places=tuple(names))
        plan = plan_for((datasets, mounts), "tank", needs=needs)
        order = [mount.point for mount in plan.view]
        assert set(names) < set(order)
        for point in order:
            above = [other for other in order if point.startswith(other.rstrip("/") + "/")]
            assert all(order.index(other) < order.index(point) for other in above if other != point)

    def test_live_mounts_keep_their_flags(self):
        datasets, mounts = simple()
        mounts.append(Mount("/dev/cd0", "/cd", "cd9660", read_only=True))
        mounts.append(Mount("t", "/tmp", "tmpfs", options=("noexec", "nosuid"), fsid=(7, 8)))
        plan = plan_for((datasets, mounts), "tank", needs=NEEDS._replace(places=("/cd/x",)))
        view = {mount.point: mount for mount in plan.view}
        assert view["/cd"].read_only
        assert not view["/"].read_only
        assert (view["/tmp"].options, view["/tmp"].fsid) == (("noexec", "nosuid"), (7, 8))
        assert (view["/tmp"].source, view["/tmp"].read_only) == ("/tmp", False)

    def test_what_lies_on_or_below_another_machine_is_marked(self):
        datasets, mounts = simple()
        mounts += [Mount("server:/x", "/net", "nfs", local=False), Mount("t", "/net/t", "tmpfs")]
        needs = NEEDS._replace(places=("/net/t/x",))
        plan = plan_for((datasets, mounts), "zroot/home", needs=needs)
        assert [mount.point for mount in plan.view if mount.remote] == ["/net", "/net/t"]

    def test_what_a_view_never_holds(self):
        datasets, mounts = simple()
        mounts += [
            Mount("procfs", "/proc", "procfs"),
            Mount("linsysfs", "/compat/linux/sys", "linsysfs"),
            Mount("devfs", "/jails/a/dev", "devfs"),
            Mount("tank@x", "/data/.zfs/snapshot/x", "zfs"),
            Mount("/", "/var/run/kopiatomic/other/view", "nullfs"),
        ]
        needs = NEEDS._replace(places=tuple(mount.point for mount in mounts))
        plan = plan_for((datasets, mounts), "zroot/home", needs=needs)
        assert set(view_of(plan)) == {"/", "/dev", "/data", "/home"}
        assert plan.unseen == ("/home/ben",)

    def test_what_is_mounted_inside_devfs_is_passed_over_in_silence(self):
        datasets, mounts = installer()
        mounts += [Mount("fdescfs", "/dev/fd", "fdescfs"), Mount("tmpfs", "/dev/shm", "tmpfs")]
        plan = plan_for((datasets, mounts), everything=True)
        assert not {"/dev/fd", "/dev/shm"} & {*view_of(plan), *left_out(plan), *plan.unseen}

    def test_a_gap_is_bridged_by_an_empty_tree(self):
        datasets, mounts = simple()
        datasets.append(dataset("zroot/home/ben/d"))
        mounts.append(zfs("zroot/home/ben/d", "/home/ben/deep/d"))
        plan = plan_for((datasets, mounts), "zroot/home", "zroot/home/ben/d")
        assert view_of(plan)["/home/ben"] == "gap"
        gap = next(mount for mount in plan.view if mount.kind == "gap")
        assert gap.directories == ("deep/d",)
        # By the place that /home/ben has among the mounts: ZFS's own names may hold anything.
        assert gap.source == "/var/run/restomic/default/gap/3"
        assert plan.paths == ("/home",)

    def test_no_gap_where_nothing_is_chosen_below(self):
        assert "gap" not in view_of(plan_for(simple(), "zroot/home")).values()

    def test_a_client_that_stays_on_the_file_systems_of_its_paths_is_given_each(self):
        plan = plan_for(simple(), everything=True, each_point=True)
        assert plan.paths == ("/data", "/home", "/home/ben")


class TestWhatTheClientNeeds:
    """Each live mount of the view is one that nobody can unmount meanwhile."""

    def shown(self, *mounts: str, **needs: object) -> set[str]:
        """Return which of these mounts the view has, beside those of every view."""
        datasets, table = simple()
        table += [Mount("t", point, "tmpfs") for point in mounts]
        plan = plan_for((datasets, table), "zroot/home", needs=NEEDS._replace(**needs))
        seen = {point for point, kind in view_of(plan).items() if kind == "live"} - {"/"}
        assert not seen & {*plan.unseen}
        assert seen | {*plan.unseen} == {*mounts, "/data", "/home/ben"}
        return seen

    @pytest.mark.parametrize("point", ["/usr", "/usr/local", "/var", "/var/run", "/tmp",
                                       "/var/tmp", "/root", "/etc", "/usr/local/bin"])  # fmt: skip
    def test_what_the_system_cannot_do_without(self, point):
        assert self.shown(point) == {point}

    @pytest.mark.parametrize("point", ["/usr/src", "/usr/ports", "/var/log", "/mnt", "/jails/a",
                                       "/usr/local2", "/var/db2"])  # fmt: skip
    def test_what_it_can(self, point):
        assert self.shown(point) == set()

    @pytest.mark.parametrize(
        "needs",
        [
            {"program": "/opt/bin/restic"}, {"temporary": "/opt"}, {"scratch": ("/opt/cache",)},
            {"writable": ("/opt/config",)}, {"live": ("/opt",)}, {"repository": "/opt/r"},
            {"places": ("/opt/x",)}, {"texts": ("restic -r /opt/r",)},
        ],
    )  # fmt: skip
    def test_what_it_is_on(self, needs):
        assert self.shown("/opt", "/optional", **needs) == {"/opt"}

    @pytest.mark.parametrize(
        ("needs", "inner"),
        [
            ({"scratch": ("/opt",)}, True), ({"writable": ("/opt",)}, True),
            ({"live": ("/opt",)}, True), ({"repository": "/opt"}, True),
            # One that a text names is not meant with all that may be mounted in it.
            ({"places": ("/opt",)}, False), ({"texts": ("cd /opt",)}, False),
            ({"program": "/opt"}, False),
        ],
    )  # fmt: skip
    def test_what_is_mounted_in_it(self, needs, inner):
        assert self.shown("/opt", "/opt/deep", **needs) == {"/opt", *(["/opt/deep"] * inner)}

    def test_a_home_on_the_root_does_not_bring_in_all_there_is(self):
        assert self.shown("/mnt", writable=("/",), scratch=("/",)) == set()

    def test_what_leads_to_what_is_chosen(self):
        datasets, mounts = simple()
        datasets.append(dataset("zroot/x"))
        mounts += [Mount("t", "/a", "tmpfs"), Mount("t", "/b", "tmpfs"), zfs("zroot/x", "/a/x")]
        plan = plan_for((datasets, mounts), "zroot/x")
        assert view_of(plan) == {
            "/": "live", "/dev": "device", "/a": "live", "/a/x": "frozen",
            "/b": "closed", "/data": "closed", "/home": "closed",
        }  # fmt: skip
        assert plan.unseen == ("/b", "/data", "/home", "/home/ben")

    def test_what_could_be_written_below_a_mount_left_out_is_closed(self):
        """The directory below it is of the live file system: what is written there is hidden."""
        datasets, mounts = simple()
        mounts += [
            Mount("/dev/cd0", "/cd", "cd9660", read_only=True), Mount("t", "/cd/x", "tmpfs"),
            Mount("server:/x", "/net", "nfs", local=False), Mount("t", "/net/t", "tmpfs"),
            Mount("server:/y", "/far", "nfs", local=False), Mount("t", "/far/t", "tmpfs"),
        ]  # fmt: skip
        needs = NEEDS._replace(places=("/cd/y", "/net/y"))
        plan = plan_for((datasets, mounts), "zroot/home", needs=needs)
        closed = {mount.point: mount for mount in plan.view if mount.kind == "closed"}
        assert set(closed) == {"/data", "/far"}
        assert {mount.source for mount in closed.values()} == {plan.names.closed}
        assert all(mount.read_only and not mount.remote for mount in closed.values())

    def test_in_a_view_that_is_frozen_nothing_has_to_be_closed(self):
        datasets, mounts = installer()
        mounts.append(Mount("/dev/da0p1", "/backup", "ufs"))
        plan = plan_for((datasets, mounts), "zroot/ROOT/default")
        assert "/backup" in plan.unseen
        assert "closed" not in view_of(plan).values()

    def test_what_nobody_chose_within_what_is_frozen_is_not_seen_unless_it_is_live(self):
        """The client may look for its repository there, and finds an empty directory."""
        datasets, mounts = installer()
        mounts += [Mount("/dev/da0p1", "/backup", "ufs"), Mount("t", "/mnt", "tmpfs")]
        plan = plan_for((datasets, mounts), everything=True)
        assert {"/backup", "/mnt"} <= {*plan.unseen}
        needs = NEEDS._replace(live=("/backup/restic",))
        live = plan_for((datasets, mounts), everything=True, needs=needs)
        assert view_of(live)["/backup/restic"] == "live"
        whole = NEEDS._replace(live=("/backup",))
        assert "/backup" not in plan_for((datasets, mounts), everything=True, needs=whole).unseen

    def test_a_snapshot_that_is_mounted_somewhere_is_part_of_the_live_system(self):
        datasets, mounts = simple()
        mounts.append(Mount("tank@x", "/mnt", "zfs"))
        needs = NEEDS._replace(texts=("ls /mnt/x",))
        assert view_of(plan_for((datasets, mounts), "zroot/home", needs=needs))["/mnt"] == "live"
        assert "/mnt" in plan_for((datasets, mounts), "zroot/home").unseen

    @pytest.mark.parametrize(
        ("text", "there"),
        [
            ("/a/b", True), ("/a/b/c", True), ("x=/a/b", True), ("'/a/b'", True),
            ("--file=/a/b/c", True), ("sftp:host:/a/b;", True), ("cd /a/b\n", True),
            ("$HOME/a/b", False), ("/x/a/b", False), ("a/b", False), ("/a/bc", False),
            ("/a/b-c", False), ("/a/b.c", False), ("../a/b", False), ("", False),
        ],
    )  # fmt: skip
    def test_a_text_mentions_a_mount_point(self, text, there):
        assert mentions(text, "/a/b") is there

    def test_a_mount_point_is_no_pattern(self):
        assert mentions("ls /a(b)/c", "/a(b)")
        assert not mentions("ls /aab", "/a+b")


class TestFrozenRoot:
    NEEDS = Needs("/usr/local/bin/restic", "/tmp", writable=("/root/.cache",))
    TEMPORARY = "/var/run/restomic/default/tmp"

    def test_only_what_the_client_writes_is_live(self):
        plan = plan_for(installer(), everything=True, needs=self.NEEDS)
        live = {point for point, kind in view_of(plan).items() if kind != "frozen"}
        assert live == {"/dev", "/root/.cache", self.TEMPORARY}
        assert plan.live == ("/dev", "/root/.cache", self.TEMPORARY)
        assert plan.temporary == self.TEMPORARY
        assert plan.paths == ("/",)

    def test_what_stays_live_is_backed_up_as_well_but_for_what_the_client_writes(self):
        needs = self.NEEDS._replace(scratch=("/root/.cache/restic",), live=("/srv",))
        plan = plan_for(installer(), everything=True, needs=needs)
        assert plan.live == ("/dev", "/root/.cache", "/srv", self.TEMPORARY)
        assert plan.skipped == ("/dev", "/root/.cache/restic", self.TEMPORARY)

    def test_a_place_for_the_client_that_is_not_there_yet_is_live_too(self):
        needs = self.NEEDS._replace(writable=(), scratch=("/root/.cache/restic",))
        plan = plan_for(installer(), everything=True, needs=needs)
        assert view_of(plan)["/root/.cache/restic"] == "live"

    def test_a_repository_in_what_is_frozen_is_left_out_of_its_own_backup(self):
        needs = self.NEEDS._replace(repository="/backup/repo", live=("/backup",))
        plan = plan_for(installer(), everything=True, needs=needs)
        assert "/backup/repo" in plan.skipped
        assert "/backup" not in plan.skipped

    def test_what_the_client_writes_outside_of_the_backup_need_not_be_left_out(self):
        needs = self.NEEDS._replace(scratch=("/root/.cache",))
        assert plan_for(simple(), "zroot/home", needs=needs).skipped == ()

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

    def test_a_live_file_system_that_nobody_chose_is_not_backed_up(self):
        datasets, mounts = installer()
        mounts.append(Mount("nfs:/x", "/compat/linux", "nfs"))
        needs = Needs("/usr/local/bin/restic", live=("/compat/linux",))
        plan = plan_for((datasets, mounts), everything=True, needs=needs)
        assert view_of(plan)["/compat/linux"] == "live"
        assert "/compat/linux" in plan.skipped

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

    def test_programs_find_their_libraries_where_var_run_is_a_tmpfs(self):
        """By ld-elf.so.hints; TMPDIR is there too, and nullfs cannot lie on its own source."""
        datasets, mounts = installer()
        mounts.append(Mount("tmpfs", "/var/run", "tmpfs", options=("nosuid",)))
        plan = plan_for((datasets, mounts), everything=True, needs=self.NEEDS)
        view = {mount.point: mount for mount in plan.view}
        assert (view["/var/run"].kind, view["/var/run"].read_only) == ("live", False)
        assert view["/var/run"].options == ("nosuid",)
        assert self.TEMPORARY not in view
        assert plan.temporary == self.TEMPORARY
        assert "/var/run" in plan.live
        assert {"/var/run", self.TEMPORARY} <= {*plan.skipped}
        assert left_out(plan)["/var/run"] == "not on ZFS (tmpfs)"

    def test_and_where_all_of_var_is(self):
        datasets, mounts = installer()
        keep = [each for each in mounts if not each.point.startswith("/var")]
        plan = plan_for((datasets, [*keep, Mount("md0", "/var", "ufs")]), everything=True,
                        needs=self.NEEDS)  # fmt: skip
        view = {mount.point: mount for mount in plan.view}
        assert (view["/var"].kind, view["/var"].read_only) == ("live", False)
        assert self.TEMPORARY not in view
        assert plan.temporary == self.TEMPORARY

    def test_a_tmpdir_in_a_live_directory_is_kept(self):
        datasets, mounts = installer()
        mounts.append(Mount("tmpfs", "/scratch", "tmpfs"))
        needs = self.NEEDS._replace(temporary="/scratch/tmp", live=("/scratch",))
        assert plan_for((datasets, mounts), everything=True, needs=needs).temporary is None

    def test_a_place_beyond_a_left_out_mount_gets_a_bridge(self):
        datasets, mounts = installer()
        mounts.append(Mount("tmpfs", "/opt", "tmpfs"))
        needs = self.NEEDS._replace(writable=("/opt/deep/config",))
        plan = plan_for((datasets, mounts), everything=True, needs=needs)
        assert view_of(plan)["/opt"] == "gap"
        assert view_of(plan)["/opt/deep/config"] == "live"


class TestDirectoriesAlone:
    """The dataset is frozen as a whole; what lies in none of its directories is as if it was not.
    """

    NEEDS = Needs("/usr/local/bin/restic", "/tmp", scratch=("/root/.cache/restic",))

    def test_the_view_freezes_the_whole_dataset(self):
        plan = plan_for(installer(), "/etc", "/root", needs=self.NEEDS)
        view = {mount.point: mount for mount in plan.view}
        assert (view["/"].kind, view["/"].dataset) == ("frozen", "zroot/ROOT/default")
        assert plan.holds == (
            Hold("zroot/ROOT/default", "zroot/ROOT/default@restomic-1",
                 "/var/run/restomic/default/hold/0"),
        )  # fmt: skip
        assert plan.parts == {"/etc", "/root"}

    def test_of_what_is_mounted_elsewhere_the_client_finds_what_it_needs(self):
        plan = plan_for(installer(), "/etc", needs=self.NEEDS)
        view = view_of(plan)
        assert (view["/tmp"], view["/var/tmp"]) == ("live", "live")
        assert "/home" not in view
        assert "/home" in plan.unseen
        # Nobody walks into /dev.
        assert next(m for m in plan.view if m.point == "/dev").ruleset is None

    def test_what_stays_live_is_told_where_the_directories_hold_it(self):
        plan = plan_for(installer(), "/etc", "/root", needs=self.NEEDS)
        assert plan.live == plan.skipped == ("/root/.cache/restic",)
        plan = plan_for(installer(), "/etc", needs=self.NEEDS)
        assert (plan.live, plan.skipped) == ((), ())
        # It is there all the same.
        assert view_of(plan)["/root/.cache/restic"] == "live"
        assert plan.written == ("/root/.cache/restic",)

    def test_a_directory_in_the_cache_is_frozen_and_not_left_out(self):
        plan = plan_for(installer(), "/root/.cache/restic/x", needs=self.NEEDS)
        assert plan.skipped == ()
        assert "/root/.cache/restic" not in view_of(plan)

    def test_a_repository_beside_them_is_live_by_itself(self):
        needs = self.NEEDS._replace(repository="/backup/r")
        plan = plan_for(installer(), "/etc", needs=needs)
        repository = next(m for m in plan.view if m.point == "/backup/r")
        assert (repository.kind, repository.needed) == ("live", True)
        assert plan.live == ()
        # If it is not there, it is not made either.
        assert "/backup/r" not in plan.written

    @pytest.mark.parametrize("target", ["/backup", "/backup/r", "/backup/r/data"])
    def test_one_within_or_around_them_is_refused(self, target):
        needs = self.NEEDS._replace(repository="/backup/r")
        assert "--live /backup/r" in str(refused(installer(), target, needs=needs))

    def test_live_must_not_thaw_them(self):
        needs = self.NEEDS._replace(live=("/usr/local",))
        assert "would undo the freezing of /usr/local/etc" in str(
            refused(installer(), "/usr/local/etc", needs=needs)
        )
        plan = plan_for(installer(), "/usr/local/etc", "/usr/local/sbin", needs=needs._replace(
            live=("/usr/local/etc/x", "/srv")))  # fmt: skip
        assert plan.live == ("/usr/local/etc/x",)
        assert view_of(plan)["/srv"] == "live"

    def test_what_else_stays_live_is_marked_as_needed(self):
        needs = self.NEEDS._replace(writable=("/root/.config",))
        plan = plan_for(installer(), "/etc", needs=needs)
        assert next(m for m in plan.view if m.point == "/root/.config").needed

    def test_within_another_path_they_are_shown_by_themselves(self):
        """The client would go into all of /home/ben otherwise."""
        plan = plan_for(simple(), "/home", "/home/ben/a/b", "/home/ben/c")
        view = {mount.point: mount for mount in plan.view}
        assert (view["/home"].kind, view["/home/ben"].kind) == ("frozen", "gap")
        assert view["/home/ben"].directories == ("a/b", "c")
        hold = "/var/run/restomic/default/hold/1"
        assert (view["/home/ben/a/b"].source, view["/home/ben/c"].source) == (
            f"{hold}/a/b", f"{hold}/c",
        )  # fmt: skip
        assert {view[point].dataset for point in ("/home/ben/a/b", "/home/ben/c")} == {
            "zroot/home/ben"
        }
        assert plan.paths == ("/home",)

    def test_so_they_are_in_a_pool_that_stands_still(self):
        datasets, mounts = simple()
        scene = Scene(tuple(visible_mounts(mounts)), NEEDS, NAMES)
        job = Job("restomic", targets=("/home", "/home/ben/c"))
        chosen = stand_still(select(job, datasets, scene.mounts, NAMES), ["zroot/home/ben"])
        (shown,) = (m for m in arrange(scene, chosen).view if m.point == "/home/ben/c")
        assert (shown.kind, shown.source) == ("frozen", "/home/ben/c")

    def test_what_of_them_is_live_is_no_strange_file_system(self):
        needs = self.NEEDS._replace(scratch=(), writable=("/home/ben/c/.config",))
        plan = plan_for(simple(), "/home", "/home/ben/c", needs=needs)
        assert plan.live == ("/home/ben/c/.config",)
        assert plan.skipped == ()

    def test_a_client_that_stays_on_the_file_systems_of_its_paths_is_given_each(self):
        plan = plan_for(simple(), "/home", "/home/ben/c", "/data/x", each_point=True)
        assert plan.paths == ("/data/x", "/home", "/home/ben/c")

    def test_a_nullfs_is_shown_twice_only_if_its_files_are_in_one(self):
        datasets, mounts = installer()
        mounts += [Mount("/etc/x", "/root/a", "nullfs"), Mount("/usr/x", "/root/b", "nullfs")]
        plan = plan_for((datasets, mounts), "/etc", "/root", needs=self.NEEDS)
        assert left_out(plan) == {
            "/root/a": "a nullfs of /etc/x, which is in the backup",
            "/root/b": "a nullfs of /usr/x",
        }


class TestLess:
    """What is lost on the way costs itself, and the plan is drawn again without it."""

    def drawn(self, machine, *targets, **job):
        scene = Scene(tuple(visible_mounts(machine[1])), NEEDS, NAMES)
        job = Job("restomic", targets=targets, **job)
        return scene, select(job, machine[0], scene.mounts, scene.names)

    def test_the_rest_keeps_its_places(self):
        scene, selection = self.drawn(simple(), everything=True)
        before, after = arrange(scene, selection), arrange(
            scene, without(selection, {"zroot/home": "it has gone since the run began"})
        )  # fmt: skip
        assert captured(after) == {"tank": "/data", "zroot/home/ben": "/home/ben"}
        assert left_out(after)["zroot/home"] == "it has gone since the run began"
        assert set(after.holds) < set(before.holds)
        assert after.paths == ("/data", "/home/ben")

    def test_in_its_place_is_a_gap_if_something_is_chosen_below_it(self):
        datasets, mounts = installer()
        datasets.append(dataset("zroot/home/ben"))
        mounts.append(zfs("zroot/home/ben", "/home/ben"))
        scene, selection = self.drawn((datasets, mounts), everything=True)
        before = arrange(scene, selection)
        assert view_of(before)["/home"] == "frozen"
        after = arrange(scene, without(selection, {"zroot/home": "gone"}))
        assert view_of(after)["/home"] == "gap"
        assert after.paths == ("/",)
        # It must not slip in live.
        assert {m.point: m.directories for m in after.view}["/home"] == ("ben",)

    def test_the_trees_of_gaps_do_not_move(self):
        """They are there already when the plan is drawn again."""
        datasets, mounts = installer()
        datasets += [dataset("zroot/a"), dataset("zroot/a/b"), dataset("zroot/home/ben")]
        mounts += [zfs("zroot/a", "/a"), zfs("zroot/a/b", "/a/b"), zfs("zroot/home/ben", "/home/x")]
        scene, selection = self.drawn((datasets, mounts), everything=True, exclude=("zroot/home",))
        selection = without(selection, {})
        first = arrange(scene, without(selection, {"zroot/a": "gone"}))
        sources = {m.point: m.source for m in first.view if m.kind == "gap"}
        again = arrange(scene, without(selection, {"zroot/a": "gone", "zroot/tmp": "gone"}))
        assert {m.point: m.source for m in again.view if m.kind == "gap"} == sources
        assert len(set(sources.values())) == len(sources) == 1

    def test_nothing_is_left(self):
        scene, selection = self.drawn(simple(), "tank")
        with pytest.raises(Refusal, match=r"no selected dataset .*tank: out of space"):
            arrange(scene, without(selection, {"tank": "out of space"}))

    def test_what_belongs_to_a_read_only_pool_stands_still_by_itself(self):
        datasets, mounts = simple()
        mounts[-1] = mounts[-1]._replace(read_only=True, fsid=(5, 6))
        scene, selection = self.drawn((datasets, mounts), everything=True)
        plan = arrange(scene, stand_still(selection, ["tank"]))
        assert captured(plan) == captured(arrange(scene, selection))
        assert "tank@restomic-1" not in plan.snapshots
        assert [hold.dataset for hold in plan.holds] == ["zroot/home", "zroot/home/ben"]
        (mount,) = [each for each in plan.view if each.point == "/data"]
        assert (mount.kind, mount.source, mount.read_only) == ("frozen", "/data", True)
        assert (mount.dataset, mount.fsid) == ("tank", (5, 6))

    def test_which_of_them_was_named(self):
        plan = plan_for(simple(), "zroot/home", recursive=True)
        assert {each.dataset: each.named for each in plan.captured} == {
            "zroot/home": True, "zroot/home/ben": False
        }  # fmt: skip


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


def test_ten_thousand_datasets_are_planned():
    names = [f"t/{n // 100}/{n}" for n in range(10_000)]
    machine = (
        [dataset(name) for name in names],
        [*ROOT, *(zfs(name, f"/{name}") for name in names)],
    )
    plan = plan_for(machine, everything=True, exclude=("t/7/*",))
    assert len(plan.captured) == 9_900
