"""What --help prints."""

from kopiatomic.clients import client_of

HELP = """\
usage: {program} [-anr] [options] dataset | path ...
       {program} --status [--full] [-j job] | --sweep [-a | -j job]
       {program} --check [--max-age hours] [--expect program/job[/work]] ...
       {program} --layout [file] [--json]
       {program} --upkeep | --drill N [-ceoj as for the backup] ...

Back up ZFS datasets with {client}, with all files as they were at one moment:
snapshot the datasets, show {client} the live system with the snapshots in place
of these datasets, and clean up.

What to back up:
  dataset | path          a dataset, by its name or mount point, or a directory
                          or file of one alone; several may be named
      --paths-from FILE   those that stand in FILE, one on each line; - is
                          standard input
  -a, --all               all mounted datasets
  -r, --recursive         also all datasets below those that are named, and what
                          is mounted below the named directories
      --volumes           with -a or -r: also the volumes among them; a single
                          one is backed up by its name or its device
  -x, --exclude PATTERN   leave out datasets that PATTERN matches (*, ?, [])
                          and those below them; may be given more than once
      --jailed            with -a and -r also datasets that belong to jails
      --at DIRECTORY      show there, in the backup, what is named and mounted
                          nowhere, if it cannot be shown at its mount point
      --snapshot PATTERN  make no snapshot, but take the newest existing one of
                          each dataset that matches, such as 'autosnap_*'

How to back it up:
  -c, --command COMMAND   the client, or a wrapper around it that ends in
                          'exec {client} "$@"' (default: {command})
  -o, --options OPTIONS   more options for the client: -o "--tag nightly"
  -e, --env-file FILE     file with NAME=VALUE lines for the environment of the
                          client, such as passwords; only root may read it;
                          given more than once, the same moment goes to the
                          repository of each
  -j, --job NAME          name of the job, to have several (default: default)
      --live DIRECTORY    leave DIRECTORY live although its dataset is frozen
      --no-proof          do not ask the repository after the backup whether
                          everything is in it
      --no-layout         do not save the layout of the pools as well
      --wait TIME         wait at most TIME for another run of the job to end,
                          such as 30m or 4h (default: 0; more with --periodic)
      --retries N         if {client} cannot reach the repository, try again up to
                          N times from the same snapshots (default: 0)
      --retry-pause TIME    wait so long before each of them (default: 5m)
      --plain             COMMAND is neither kopia nor restic: add the paths to
                          it and nothing else

Your own commands, run by sh in the live system, with your umask:
  -p, --before COMMAND          before the snapshot; no backup if it fails
  -s, --after-snapshot COMMAND  right after the snapshot, even if that failed
  -q, --after COMMAND           at the end, after the cleanup; the variables
                                KOPIATOMIC_OUTCOME and KOPIATOMIC_STATUS tell
                                how the run ended
      --notify COMMAND          when a backup, upkeep or drill has ended, or was
                                refused: the same variables tell how, and the
                                report is on standard input

Repository, with the same -c, -o, -e and -j as for the backup:
      --upkeep            maintain the repository; give one or more of these:
      --verify PERCENT      check it, and read this percentage of its data
      --maintenance         full maintenance (kopia only)
      --forget FLAGS        remove old snapshots of the job (retention),
                            except those that FLAGS keep, such as
                            --forget '--keep-daily 7' (restic only)
      --prune               remove data that no snapshot needs (restic only)
      --drill N           restore N files of each last backup and compare them
      --seed NUMBER         choose the files of an earlier drill again
      --size-limit SIZE     do not choose larger files (default: 1G)

Jobs:
      --status            show the last successful backup of each job, its last
                          seven nights, upkeep and drills, and what earlier runs
                          have left behind
      --full                and list what that backup captured and left out
      --metrics             as numbers instead, in the text format of Prometheus
      --check             print what endangers the backups of all jobs of both
                          programs; the exit status is 1 if anything does
      --max-age HOURS       greatest age of the last successful backup
                            (default: 48), for each --expect after it
      --expect PROGRAM/JOB  a job that must have a recent successful backup
                            (default: all that have ever run); with /upkeep or
                            /drill behind it, upkeep or a drill; may be given
                            more than once
      --sweep             remove what earlier runs of the job have left behind;
                          with -a, of all jobs of {program}

The machine:
      --layout [FILE]     print the commands that make its pools and datasets
                          anew, or those of the machine that FILE is from,
                          which is in its backups; - is standard input

Output, and options for scripts:
  -n, --dry-run           print what would be done, and do nothing
      --json              print the report as JSON on standard output
      --verbose           show every command
      --periodic          report and exit as periodic(8) scripts do
      --datasets WORDS    more datasets and paths, quoted as for sh
      --excludes WORDS    more patterns for -x, likewise
      --lives WORDS       more directories for --live, likewise
      --env-files WORDS   more files for -e, likewise
  -h, --help              print this help
  -v, --version           print the version

Try it: {program} -n -r zroot/home      Manual: {program}(8)
"""


def text(program: str) -> str:
    """Return the help of ``kopiatomic`` or ``restomic``."""
    client = client_of(program)
    command = " ".join((client.name, *client.subcommand))
    return HELP.format(program=program, client=client.name, command=command)
