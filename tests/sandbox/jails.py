"""Jails with the root of the host, path=/: what a program in one may do, and what it sees.

One program runs in a jail at a time, jexec(8)'s or `jail -c ... command=`'s, and as long as it
does, all the machine is that jail. As sys/kern/kern_jail.c, sys/kern/vfs_mount.c and OpenZFS's
zfs_ioctl.c have it: without allow.mount, or with enforce_statfs=2, nothing is mounted; each file
system needs a right of its own; file systems' numbers are not told; what was mounted outside
stays. Of datasets there are those that were given to it, what lies below them, and above them
those that lead there, which it cannot change. A channel program is for the host alone.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandbox.state import State

FILE_SYSTEMS = ("zfs", "nullfs", "devfs", "tmpfs", "procfs")
# In the flags of a mount that was made in a jail.
MADE_IN_JAIL = "jailed"


class Jail:
    """A jail: its name, its parameters, and the datasets it was given."""

    def __init__(self, name: str, parameters: dict[str, str], given: list[str]) -> None:
        self.name = name
        self.parameters = parameters
        self.given = given

    @property
    def level(self) -> int:
        """enforce_statfs: 0 shows all mounts, 1 those in the jail, 2 that of its root."""
        return int(self.parameters.get("enforce_statfs", "2"))

    @property
    def ruleset(self) -> str:
        """devfs_ruleset."""
        return self.parameters.get("devfs_ruleset", "0")

    def allows(self, right: str) -> bool:
        """Whether it has a parameter such as allow.mount.zfs, or that without its `no`."""
        return f"allow.{right}" in self.parameters

    @property
    def mounts(self) -> bool:
        """PRIV_VFS_MOUNT and the like."""
        return self.allows("mount") and self.level < 2

    def mounts_a(self, fstype: str) -> bool:
        """Whether it may mount, and unmount, a file system of a type."""
        return self.mounts and self.allows(f"mount.{fstype}")

    def sees(self, dataset: str) -> bool:
        """zone_dataset_visible()."""
        return self.owns(dataset) or any(each.startswith(f"{dataset}/") for each in self.given)

    def owns(self, dataset: str) -> bool:
        """Whether a dataset is one that it was given, or below such."""
        return any(f"{dataset}/".startswith(f"{each}/") for each in self.given)


def jails(state: State) -> dict[str, Jail]:
    """All that there are, by name."""
    found = {}
    for key, value in state.rows("select key, value from meta where key like 'jail:%'"):
        name = key.partition(":")[2]
        words = [line.partition("=") for line in value.split("\n") if line]
        given = state.meta(f"given:{name}").split("\n")
        parameters = {word: text for word, _, text in words}
        found[name] = Jail(name, parameters, [each for each in given if each])
    return found


def current(state: State) -> Jail | None:
    """The jail that this is, or None on the host."""
    if not state.flag("jailed"):
        return None
    return jails(state).get(state.meta("jail")) or Jail("", {}, [])


def sysctls(state: State) -> dict[str, str]:
    """security.jail: a jail's own parameters, and on the host what a new jail gets.

    That of a file system is there as soon as its module is.
    """
    jail = current(state)
    mine = jail or Jail("", {}, [])
    known = {
        "security.jail.jailed": str(int(jail is not None)),
        "security.jail.enforce_statfs": str(mine.level),
        "security.jail.mount_allowed": str(int(mine.allows("mount"))),
    }
    loaded = {"zfs": state.flag("zfs"), "nullfs": state.flag("nullfs")}
    for fstype in FILE_SYSTEMS:
        if loaded.get(fstype, True):
            known[f"security.jail.mount_{fstype}_allowed"] = str(
                int(mine.allows(f"mount.{fstype}")))
    return known


# -- programs --------------------------------------------------------------------------------


def jail(arguments: list[str]) -> int:
    """jail -c path=/ name=NAME PARAMETER ... [persist | command=PROGRAM ARGUMENT ...], jail -r."""
    from sandbox.standin import warn
    from sandbox.state import State

    if arguments[:1] == ["-r"]:
        with State() as state:
            return _remove(state, arguments[1])
    words = arguments[arguments.index("-c") + 1:] if "-c" in arguments else arguments
    start = next((n for n, word in enumerate(words) if word.startswith("command=")), len(words))
    pairs = [word.partition("=") for word in words[:start]]
    parameters = {name: value for name, _, value in pairs}
    if parameters.get("path", "/") != "/":
        warn("jail: in the sandbox there are only jails with path=/")
        return 1
    name = parameters.get("name", "j")
    with State() as state:
        unknown = [f"allow.mount.{each}" for each in ("zfs", "nullfs")
                   if f"allow.mount.{each}" in parameters and not state.flag(each)]
        if unknown:
            warn(f"jail: unknown parameter: {unknown[0]}")
            return 1
        text = "\n".join(f"{key}={value}" for key, value in parameters.items())
        state.set_meta(f"jail:{name}", text)
    if start == len(words):
        return 0
    command = [words[start].removeprefix("command="), *words[start + 1:]]
    status = _run_in(name, command)
    if "persist" not in parameters:
        with State() as state:
            _remove(state, name)
    if status:
        warn(f"jail: {' '.join(command)}: failed")
    return 1 if status else 0


def _remove(state: State, name: str) -> int:
    """Its mounts stay, and what it was given is nobody's."""
    from sandbox.standin import warn

    if name not in jails(state):
        warn(f'jail: "{name}" not found')
        return 1
    for key in (f"jail:{name}", f"given:{name}"):
        state.run("delete from meta where key = ?", key)
    return 0


def jexec(arguments: list[str]) -> int:
    """jexec JAIL PROGRAM ARGUMENT ...; its status is the program's."""
    from sandbox.standin import warn
    from sandbox.state import State

    name, *command = arguments
    with State() as state:
        if name not in jails(state):
            warn(f'jexec: jail "{name}" not found')
            return 1
    return _run_in(name, command)


def _run_in(name: str, command: list[str]) -> int:
    import os
    import signal

    from sandbox.state import State

    with State() as state:
        state.set_meta("jail", name)
        state.set_meta("jailed", "1")
    # What is sent to this process is meant for the program, as if that had taken its place.
    process = os.spawnvp(os.P_NOWAIT, command[0], command)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: os.kill(process, got))
    try:
        while True:
            try:
                return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) & 0xFF
            except InterruptedError:
                continue
    finally:
        with State() as state:
            state.set_meta("jailed", "0")
            state.set_meta("jail", "")


def give(state: State, arguments: list[str], take: bool = False) -> int:
    """zfs jail, zfs unjail: JAIL DATASET."""
    from sandbox.standin import warn

    name, dataset = arguments
    known = jails(state)
    if name not in known:
        warn(f"invalid argument: jail '{name}' does not exist")
        return 1
    if not state.one("select 1 from datasets where name = ?", dataset):
        warn(f"cannot open '{dataset}': dataset does not exist")
        return 1
    given = [each for each in known[name].given if each != dataset]
    state.set_meta(f"given:{name}", "\n".join(given if take else [*given, dataset]))
    return 0
