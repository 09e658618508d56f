"""From what the user selected to what will be done. Pure: nothing here acts.

The plan says what is snapshotted, what the view consists of, which paths the
client gets, and what is left out and why.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from kopiatomic import state
from kopiatomic.backup.client_runs import VOLUME, ClientRun
from kopiatomic.backup.names import Names, clone_of
from kopiatomic.backup.selection import (
    NOT_SELECTED,
    NOT_ZFS,
    SHOWN_TWICE,
    Captured,
    Existing,
    LeftOut,
    Selection,
    nothing_left,
)
from kopiatomic.backup.targets import topmost
from kopiatomic.clients import programs
from kopiatomic.clients.records import Needs
from kopiatomic.errors import EX_CONFIG, EX_NOINPUT, EX_OSERR, Refusal
from kopiatomic.record import Record
from kopiatomic.system.machine import Mount, ancestors, device_of, lies_in, nearest

# What a view never needs: these show processes, file descriptors or nothing.
UNWANTED = frozenset({"fdescfs", "procfs", "linprocfs", "linsysfs", "autofs"})

# Of the live system a client and its libraries need these places, on whatever mounts they are.
SYSTEM_PLACES = (
    "/bin", "/sbin", "/lib", "/libexec", "/etc", "/root", "/usr", "/usr/bin", "/usr/sbin",
    "/usr/lib", "/usr/local", "/usr/local/bin", "/usr/local/sbin", "/var", "/var/db", "/var/run",
    "/tmp", "/var/tmp",
)  # fmt: skip

# rtld(1) finds the libraries of packages by /var/run/ld-elf.so.hints.
HINTS_PLACE = "/var/run"

# The ruleset of devfs.rules(5) that shows a jail null, zero, random and the
# standard streams: all that a client in a frozen system needs of /dev.
JAIL_RULESET = "4"


class Hold(Record):
    """A snapshot that is mounted at a private place of ours, which nobody else can reach.

    One that is ``existing`` is somebody else's, and is neither made nor destroyed.
    """

    dataset: str
    snapshot: str
    directory: str
    existing: Existing | None = None


class ViewMount(Record):
    """One mount of the view: ``source`` appears in it as ``point``.

    ``kind`` is ``frozen`` (a snapshot, of ``dataset``), ``live`` (the live system's
    own), ``device`` (devfs), ``gap``: an empty tree with ``directories``, in place of a
    mount that was left out although something below it is chosen, or ``closed``: an empty
    directory that nobody can write to, in place of any other. ``fsid`` is what a live
    source is on; ``remote`` is what lies on another machine, which may not
    answer; without what is ``needed``, the client or its repository would be missing.
    """

    kind: str
    source: str
    point: str
    dataset: str = ""
    read_only: bool = False
    options: tuple[str, ...] = ()
    fsid: tuple[int, int] | None = None
    ruleset: str | None = None
    directories: tuple[str, ...] = ()
    remote: bool = False
    needed: bool = False


class Plan(Record):
    """What one run does, in full.

    ``live`` are the places within what is backed up that stay live, because the
    client has to find them so; of these ``skipped`` is left out of the backup, where
    the client can be told so, for it writes there meanwhile. ``written`` is all that it
    writes so, within or not. ``temporary`` is the TMPDIR to give it, or None where the
    usual one serves. ``unseen`` are the mount points of live file systems that are not
    in the view. ``runs`` are the client runs. ``volumes`` are captured as
    well, and not in the view.
    """

    names: Names
    captured: tuple[Captured, ...]
    left_out: tuple[LeftOut, ...]
    holds: tuple[Hold, ...]
    view: tuple[ViewMount, ...]
    paths: tuple[str, ...]
    live: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    temporary: str | None = None
    unseen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    runs: tuple[ClientRun, ...] = ()
    volumes: tuple[Captured, ...] = ()
    written: tuple[str, ...] = ()

    @property
    def snapshots(self) -> tuple[str, ...]:
        """The snapshots to make, by full name."""
        cloned = [each.dataset for each in self.volumes if not each.still]
        volumes = (f"{dataset}@{self.names.snapshot}" for dataset in cloned)
        made = (hold.snapshot for hold in self.holds if hold.existing is None)
        return (*made, *volumes)

    @property
    def members(self) -> tuple[Captured, ...]:
        """All that is captured, file systems and volumes."""
        return (*self.captured, *self.volumes)

    @property
    def parts(self) -> frozenset[str]:
        """The directories and files that are backed up alone, not all of their datasets."""
        return frozenset(path for each in self.captured for path in each.directories)


class Scene(Record):
    """What a plan is drawn from beside the selection: the mounts, the needs, the names.

    Of several ``repositories`` each is the directory of a local one, or None; the needs are
    those of all. ``temporaries`` are the usual TMPDIRs of those after the first.
    """

    mounts: tuple[Mount, ...]
    needs: Needs
    names: Names
    each_point: bool = False  # whether the client stays on the file systems of its paths
    in_jail: bool = False
    repositories: tuple[str | None, ...] = (None,)
    temporaries: tuple[str, ...] = ()

    @property
    def local(self) -> list[str]:
        """The directories of the local repositories."""
        return [each for each in (self.needs.repository, *self.repositories) if each]


def arrange(scene: Scene, selection: Selection) -> Plan:
    """Return the plan for a selection; raises Refusal if nothing is left, or no client could work.

    Call it again with a smaller selection where a dataset has been lost on the way.
    """
    captured, left_out, notes, volumes = selection
    if not (captured or volumes):
        raise Refusal(nothing_left(left_out), EX_NOINPUT)
    if not any(mount.point == "/" for mount in scene.mounts):
        raise Refusal("the mount table has nothing at /, where a client could run", EX_OSERR)
    paths = {path for each in captured for path in each.paths}
    view, unchosen, unseen = _lay_out(scene, captured, paths)
    live, written, temporary = _keep_live(scene, view, paths)
    _check_away(scene, view, captured)
    _bridge_gaps(scene, view)
    _check_client(scene, view)
    unseen += [each.point for each in unchosen if not _is_shown(view, each.point)]
    _close(scene, view, unseen)
    skipped = {place for place in written if nearest(place, paths) is not None}
    within = {place for place in live if place in skipped or _matters(place, paths)}
    holds = [_held(scene.names, each) for each in captured if not each.still]
    client_paths = tuple(sorted(paths)) if scene.each_point else topmost(paths)
    return Plan(
        names=scene.names,
        captured=captured,
        left_out=_named_once(scene, captured, left_out, unchosen),
        holds=tuple(holds),
        view=_in_order(scene, view, live - written - within),
        paths=client_paths,
        live=tuple(sorted(within)),
        skipped=tuple(sorted(skipped)),
        temporary=temporary,
        unseen=tuple(sorted(unseen)),
        notes=notes,
        written=tuple(sorted(written)),
        runs=_client_runs(scene, view, client_paths, volumes),
        volumes=volumes,
    )


def _client_runs(
    scene: Scene, view: Mapping[str, ViewMount], paths: tuple[str, ...], volumes: Sequence[Captured]
) -> tuple[ClientRun, ...]:
    """Return what the client is called for, all of it for one repository and then the next.

    A repository that the client could not write keeps nothing from the others; raises
    Refusal if there is none beside those.
    """
    obstacles = [_not_writable(scene, view, directory) for directory in scene.repositories]
    if all(obstacles):
        raise Refusal(str(obstacles[0]), EX_CONFIG)
    runs = [ClientRun(paths=paths)] if paths else []
    runs += [_run_of(scene.names, each) for each in volumes]
    return tuple(
        run._replace(repository=number, directory=directory, obstacle=obstacle)
        for number, (directory, obstacle) in enumerate(
            zip(scene.repositories, obstacles, strict=True)
        )
        for run in runs
    )


def cut_off(runs: Iterable[ClientRun], missing: Collection[str]) -> tuple[ClientRun, ...]:
    """Return client runs as they are when the view lacks what is mounted at ``missing`` points."""
    return tuple(
        run
        if run.directory is None or nearest(run.directory, missing) is None
        else run._replace(obstacle=f"its repository {run.directory} is not in the view")
        for run in runs
    )


def _run_of(names: Names, volume: Captured) -> ClientRun:
    clone = clone_of(names, volume.dataset, volume.number)
    source = device_of(volume.dataset if volume.still else clone)
    return ClientRun(VOLUME, volume.dataset, stream=volume.point, source=source)


def _matters(place: str, paths: Collection[str]) -> bool:
    """Say whether a place holds something of what is backed up, or lies in that."""
    return nearest(place, paths) is not None or _is_chosen_within(place, paths)


def _is_chosen_within(place: str, paths: Iterable[str]) -> bool:
    return any(lies_in(path, place) for path in paths)


def _held(names: Names, captured: Captured) -> Hold:
    place, existing = _hold_of(names, captured), captured.existing
    snapshot = existing.name if existing else f"{captured.dataset}@{names.snapshot}"
    return Hold(captured.dataset, snapshot, place, existing)


def _hold_of(names: Names, captured: Captured) -> str:
    return f"{names.holds}/{captured.number}"


def _named_once(
    scene: Scene,
    captured: Sequence[Captured],
    left_out: Sequence[LeftOut],
    unchosen: Sequence[Mount],
) -> tuple[LeftOut, ...]:
    """Add the mounts within what is captured that nobody selected to what is left out."""
    frozen = {each.point: each.paths for each in captured}
    points = {m.special: m.point for m in scene.mounts if m.type == "zfs"}
    told = {points.get(each.name) for each in left_out}
    rest = [mount for mount in unchosen if mount.point not in told]
    return (*left_out, *(_unchosen(scene, frozen, mount) for mount in rest))


def _unchosen(scene: Scene, frozen: Mapping[str, Sequence[str]], mount: Mount) -> LeftOut:
    """Say why what is mounted within a captured dataset is left out.

    ``frozen`` are the paths of each captured dataset by its mount point.
    """
    if mount.type == "nullfs" and mount.special.startswith("/"):
        # Its files lie elsewhere: of a thin jail, for one, in the dataset of its template.
        if nearest(mount.special, frozen.get(_mount_at(scene, mount.special).point, ())):
            reason = f"a nullfs of {mount.special}, which is in the backup"
            return LeftOut(mount.point, reason, SHOWN_TWICE)
        return LeftOut(mount.point, f"a nullfs of {mount.special}", NOT_ZFS)
    if mount.type == "zfs":
        return LeftOut(mount.point, f"not selected (dataset {mount.special})", NOT_SELECTED)
    return LeftOut(mount.point, f"not on ZFS ({mount.type})", NOT_ZFS)


# What the view consists of


def _lay_out(
    scene: Scene, captured: Sequence[Captured], paths: Collection[str]
) -> tuple[dict[str, ViewMount], list[Mount], list[str]]:
    """Return the view by mount point, the mounts kept out of the backup, and those not in view.

    Of the live system there is only what the client needs: FreeBSD refuses to unmount
    a file system that has a nullfs on it, so each live mount here takes it from others.
    ``paths`` are all that is to be backed up.
    """
    frozen = {each.point: each for each in captured}
    wanted = _wanted(scene, [each.point for each in captured if not each.away])
    ours = _our_places(scene.names)
    view: dict[str, ViewMount] = {}
    unchosen, unseen = [], []
    for mount in scene.mounts:
        if mount.point in frozen:
            shown = _frozen(scene.names, frozen[mount.point], mount, paths)
            view |= {each.point: each for each in shown}
        elif mount.type in UNWANTED or _is_inner(mount, ours):
            continue
        elif lies_in(mount.point, "/dev"):
            # What is mounted inside devfs has no place in ours, and no files of anybody.
            if mount.type == "devfs" and mount.point == "/dev":
                # A jail has its own, and can ask for no other: devfs_mount().
                ruleset = ("" if scene.in_jail else JAIL_RULESET) if "/" in paths else None
                view["/dev"] = ViewMount("device", "devfs", "/dev", ruleset=ruleset)
        elif mount.type == "devfs":
            continue
        elif nearest(mount.point, paths) is not None:
            unchosen.append(mount)
        elif mount.point in wanted:
            view[mount.point] = _live(mount)
        else:
            unseen.append(mount.point)
    view |= _unmounted(scene, captured)
    return view, unchosen, unseen


def _frozen(
    names: Names, captured: Captured, mount: Mount, paths: Collection[str]
) -> list[ViewMount]:
    """Return the mounts that show a captured dataset: one of it as a whole, as a rule.

    Where it lies within a path, and only directories of it are chosen, the client would
    go into all of it: there each of these is shown by itself.
    """
    inside = captured.directories and nearest(mount.point, paths) is not None
    made = []
    for point in captured.directories if inside else (mount.point,):
        source = point
        if not captured.still:
            source = _hold_of(names, captured) + point[len(mount.point.rstrip("/")) :].rstrip("/")
        fsid = mount.fsid if captured.still else None
        made.append(ViewMount("frozen", source, point, captured.dataset, True, fsid=fsid))
    return made


def _unmounted(scene: Scene, captured: Iterable[Captured]) -> dict[str, ViewMount]:
    """Return what is shown where nothing is mounted, and an empty tree for what --at takes."""
    view, trees = {}, dict[str, list[str]]()
    for each in captured:
        if each.unmounted:
            hold = _hold_of(scene.names, each)
            view[each.point] = ViewMount("frozen", hold, each.point, each.dataset, read_only=True)
        if each.below:
            trees.setdefault(each.below, []).append(each.point[len(each.below) + 1 :])
    for top, inside in trees.items():
        source = f"{scene.names.gaps}/at"
        view[top] = ViewMount("gap", source, top, read_only=True, directories=tuple(inside))
    return view


def _check_away(
    scene: Scene, view: Mapping[str, ViewMount], captured: Iterable[Captured]
) -> None:
    """Refuse to show anything where there is no directory for it on what the client needs."""
    # To find a mount costs as much as there are: only where there is something to look up.
    for each in (each for each in captured if each.away):
        if _is_shown(view, _mount_at(scene, each.point).point):
            raise Refusal(
                f"{each.dataset} cannot be shown at its mount point: there is no directory "
                f"{each.point}; make it, or say where by --at DIRECTORY",
                EX_NOINPUT,
            )


def _wanted(scene: Scene, frozen: Iterable[str]) -> set[str]:
    """Return the mount points of the live system that the view cannot do without.

    What leads to a chosen mount point is among them, although nobody needs its files: an
    empty tree in its place would have other inode numbers and times in each backup, and
    restic would find something changed every night.
    """
    needs = scene.needs
    whole = [*needs.live, *needs.scratch, *needs.writable]
    whole += scene.local
    temporary = (needs.temporary, *scene.temporaries)
    places = [*SYSTEM_PLACES, needs.program, *temporary, *needs.places, *frozen, *whole]
    leads = {up for place in places for up in ancestors(place)}
    return {
        mount.point
        for mount in scene.mounts
        if mount.point in leads
        or any(lies_in(mount.point, place) for place in whole if place != "/")
        or any(mentions(text, mount.point) for text in needs.texts)
    }


def mentions(text: str, point: str) -> bool:
    """Say whether a text holds a path that is the mount point ``point`` or lies below it."""
    if point not in text:
        return False
    return re.search(rf"(?<![\w./-]){re.escape(point)}(?![\w.-])", text) is not None


def _our_places(names: Names) -> list[str]:
    """Return where mounts of ours are.

    Where /var or /var/run is a symbolic link, they have other names in the mount table.
    """
    run = ancestors(names.directory)[2]
    return [f"{root}/{program}" for root in (state.RUN_ROOT, run) for program in programs()]


def _is_inner(mount: Mount, ours: Sequence[str]) -> bool:
    """Say whether a mount is in one of ``ours``, or one that ZFS made to show a snapshot."""
    automount = mount.type == "zfs" and "/.zfs/snapshot/" in mount.point
    return automount or any(lies_in(mount.point, each) for each in ours)


def _live(mount: Mount) -> ViewMount:
    return ViewMount(
        "live",
        mount.point,
        mount.point,
        read_only=mount.read_only,
        options=mount.options,
        fsid=mount.fsid,
    )


def _keep_live(
    scene: Scene, view: dict[str, ViewMount], paths: Collection[str]
) -> tuple[set[str], set[str], str | None]:
    """Put back live what the client must find so.

    Returns these places, those of them that it writes to, and the TMPDIR to give it.
    """
    needs, names = scene.needs, scene.names
    chosen = {*paths, *(point for point, mount in view.items() if mount.kind == "frozen")}
    live = {"/dev"} if "/dev" in view and view["/dev"].ruleset is not None else set()
    skipped = set(live)
    for place in needs.live:
        undone = min((path for path in chosen if lies_in(path, place)), default=None)
        if undone is not None:
            raise Refusal(
                f"--live {place} would undo the freezing of {undone}; name a directory below it"
            )
    skipped |= _show_all_live(scene, view, needs.live, live)
    hints = _mount_at(scene, HINTS_PLACE)
    if hints.type != "zfs" and not _is_live(scene, view, HINTS_PLACE):
        # Writable, for our TMPDIR is there as well, and nullfs cannot lie on its own source.
        live.add(hints.point)
        skipped.add(hints.point)
        view[hints.point] = _live(hints)
    usual = (needs.temporary, *scene.temporaries)
    temporary = None if all(_is_live(scene, view, each) for each in usual) else names.temporary
    written = [*needs.scratch, *([temporary] if temporary else [])]
    repositories = scene.local
    # One within what is backed up is in the way, and refused.
    beside = [place for place in repositories if nearest(place, paths) is None]
    writable, written, beside = (
        [place for place in places if not _is_chosen_within(place, chosen)]
        for places in (needs.writable, written, beside)
    )
    skipped |= _show_all_live(scene, view, [*writable, *written, *beside], live)
    frozen = {mount.point for mount in view.values() if mount.kind == "frozen"}
    written += [*needs.repositories, *repositories]
    skipped |= {place for place in written if nearest(place, frozen) is not None}
    return live, skipped.difference(beside), temporary


def _show_all_live(
    scene: Scene, view: dict[str, ViewMount], places: Iterable[str], live: set[str]
) -> set[str]:
    """Show those places live that are not so yet, and add them to ``live``.

    Returns what in them is left out of the backup.
    """
    skipped: set[str] = set()
    for place in places:
        if not _is_live(scene, view, place):
            live.add(place)
            skipped |= _show_live(scene, view, place)
    return skipped


def _show_live(scene: Scene, view: dict[str, ViewMount], place: str) -> set[str]:
    """Lay a live directory, with what is mounted in it, over the frozen one.

    Returns what of it is on file systems that nobody chose, and so is not to be backed up.
    """
    mount = _mount_at(scene, place)
    # Of its file system a directory alone may be shown, by itself.
    shown = (view[point] for point in (mount.point, nearest(place, view)) if point in view)
    is_chosen = any(each.kind == "frozen" and each.dataset == mount.special for each in shown)
    strange = set() if is_chosen else {place}
    ours = _our_places(scene.names)
    view[place] = _live(mount)._replace(source=place, point=place)
    for inner in scene.mounts:
        if inner.point == place or not lies_in(inner.point, place) or inner.point in view:
            continue
        if inner.type not in UNWANTED | {"devfs"} and not _is_inner(inner, ours):
            view[inner.point] = _live(inner)
            strange.add(inner.point)
    return strange


def _mount_at(scene: Scene, path: str) -> Mount:
    """Return the live mount that a path is on."""
    mounted = {mount.point: mount for mount in scene.mounts}
    return mounted[nearest(path, mounted) or "/"]


def _is_shown(view: Mapping[str, ViewMount], point: str) -> bool:
    """Say whether the view has at a mount point what is mounted there, live or frozen."""
    return point in view and view[point].kind != "gap"


def _is_live(scene: Scene, view: Mapping[str, ViewMount], path: str) -> bool:
    """Say whether a live path is found in the view, and is the live one there."""
    point = _found_at(scene, view, path)
    return point is not None and view[point].kind == "live"


def _found_at(scene: Scene, view: Mapping[str, ViewMount], path: str) -> str | None:
    """Return the mount of the view that shows a live ``path``, or None if none does.

    Where a mount was left out, the view shows the empty directory below it.
    """
    point = nearest(path, view)
    really = _mount_at(scene, path).point
    return point if point is not None and lies_in(point, really) else None


def _bridge_gaps(scene: Scene, view: dict[str, ViewMount]) -> None:
    """Lay an empty tree over each mount left out that has something chosen below it.

    Without it the mount point of what is chosen would not exist in the view.
    """
    # By these numbers each gap keeps its tree when the plan is drawn anew.
    live_points = {mount.point: number for number, mount in enumerate(scene.mounts)}
    gaps: dict[str, list[str]] = {}
    for point in sorted(view, key=_by_depth):
        missing = None
        for above in ancestors(point)[1:]:
            if above in view:
                break
            if above in live_points:
                missing = above
        if missing is not None:
            gaps.setdefault(missing, []).append(point[len(missing.rstrip("/")) + 1 :])
    for point, inside in sorted(gaps.items()):
        source = f"{scene.names.gaps}/{live_points[point]}"
        view[point] = ViewMount("gap", source, point, read_only=True, directories=tuple(inside))


def _close(scene: Scene, view: dict[str, ViewMount], unseen: Iterable[str]) -> None:
    """Lay an empty directory over each mount point left out that could be written to.

    Below the mount is a directory of the live file system that it is on. What a client
    wrote there would be hidden, and would stay. Where that lies on another machine,
    it is left alone, for it may not answer.
    """
    distant = _distant(scene)
    for point in topmost(each for each in unseen if each not in view):
        on = view.get(nearest(point, view) or "")
        if on is None or on.kind != "live" or on.read_only or nearest(on.point, distant):
            continue
        view[point] = ViewMount("closed", scene.names.closed, point, read_only=True)


def _check_client(scene: Scene, view: Mapping[str, ViewMount]) -> None:
    """Refuse a run whose client could not start, or could not write its repository."""
    needs = scene.needs
    if _found_at(scene, view, needs.program) is None:
        raise Refusal(
            f"the client would not find {needs.program}: its file system is left out of the view; "
            f"add --live {_mount_at(scene, needs.program).point}",
            EX_CONFIG,
        )
    obstacle = _not_writable(scene, view, needs.repository)
    if obstacle is not None:
        raise Refusal(obstacle, EX_CONFIG)


def _not_writable(
    scene: Scene, view: Mapping[str, ViewMount], directory: str | None
) -> str | None:
    """Say why the client could not write a local repository, or None if it can."""
    if directory is None or _is_live(scene, view, directory):
        return None
    return (
        f"the repository {directory} would be frozen or not visible during the backup; "
        f"keep it in another dataset, or add --live {directory}"
    )


def _in_order(
    scene: Scene, view: Mapping[str, ViewMount], live: Iterable[str]
) -> tuple[ViewMount, ...]:
    """Return the mounts of the view, parents first; marked are those needed or far away.

    Needed are those at the places that stay ``live``, among others.
    """
    needs = scene.needs
    distant = _distant(scene)
    places = [needs.program, *needs.live, *live]
    places += [needs.repository] if needs.repository else []
    needed = {_found_at(scene, view, place) for place in places}
    marked = dict(view)
    for point, mount in view.items():
        remote = mount.kind != "closed" and nearest(point, distant) is not None
        if remote or point in needed:
            marked[point] = mount._replace(remote=remote, needed=point in needed)
    return tuple(marked[point] for point in sorted(marked, key=_by_depth))


def _distant(scene: Scene) -> set[str]:
    """Return the mount points of what lies on other machines."""
    return {m.point for m in scene.mounts if not m.local and m.type != "devfs"}


def _by_depth(point: str) -> list[str]:
    return [] if point == "/" else point.split("/")[1:]
