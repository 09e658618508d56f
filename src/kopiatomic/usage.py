"""What --help prints."""

from kopiatomic.clients import client_of

HELP = """\
usage: {program} [-anr] [options] dataset | path ...
       {program} --status [-j job] | --sweep [-a | -j job]
       {program} --check [--max-age hours] [--expect program/job] ...
       {program} --upkeep | --drill N [-ceoj as for the backup] ...

Back up ZFS datasets with {client}, all files from one moment in time: snapshot
them, show {client} the live system in which they stand still, clean up.

What to back up:
  dataset | path          a dataset, or a path in it; several may be named
  -a, --all               all mounted datasets
  -r, --recursive         the datasets below those named as well
  -x, --exclude PATTERN   not the datasets PATTERN matches (*, ?, []), nor those
                          below them; may be given more than once

How:
  -c, --command COMMAND   the client, or a wrapper around it that ends in
                          'exec {client} "$@"' (default: {command})
  -o, --options OPTIONS   more options for it, such as -o "--tag nightly"
  -e, --env-file FILE     NAME=VALUE lines for its environment (passwords go
                          here); must be closed to others
  -j, --job NAME          keeps several jobs on one machine apart (default)
      --live DIRECTORY    leave DIRECTORY live although its dataset is frozen
      --plain             COMMAND is neither kopia nor restic: give it the paths
                          and nothing else
      --wait TIME         wait so long (30s, 10m, 4h) for a run of the job that
                          still goes on, not refuse at once; for all that is
                          done to a job. With --periodic 10m, between backups 6h

Commands of yours, run by sh in the live system, with the umask you have:
  -p, --before COMMAND          before the snapshot; if it fails, no backup
  -s, --after-snapshot COMMAND  right after it, also if it failed
  -q, --after COMMAND           when all is over; KOPIATOMIC_OUTCOME and
                                KOPIATOMIC_STATUS say how it went

Between backups, of the same -c, -o, -e and -j:
      --upkeep            look after the repository, with one or more of:
      --verify PERCENT      check it, and read that much of its data
      --maintenance         kopia's full maintenance
      --forget FLAGS        restic forget for this machine; FLAGS say what to
                            keep, as in --forget '--keep-daily 7'
      --prune               restic prune
      --drill N           restore N files of each newest backup and compare
      --seed NUMBER         choose the files of an earlier drill again
      --size-limit SIZE     pass over larger files (1G)

Else:
  -n, --dry-run           say what would be done, and do nothing
      --json              the report as JSON on standard output
      --status            each job's newest good backup and last seven nights,
                          and what runs that died have left behind
      --check             only what endangers the backups, of all jobs of both
                          programs; exit status 1 if there is anything:
      --max-age HOURS       a good backup older than this is too old (48); holds
                            for the jobs that are named after it
      --expect PROGRAM/JOB  a job that must be fresh, not all that ever ran; may
                            be given more than once
      --sweep             remove what a run that was killed has left behind, of
                          the job, or with -a of all jobs of {program}
      --verbose           show every command
      --periodic          report and exit as periodic(8) scripts do
      --datasets WORDS    more datasets and paths in one text, split as sh would
      --excludes WORDS    more patterns for -x, likewise
      --lives WORDS       more directories for --live, likewise
  -h, --help              this text
  -v, --version           the version

Try it: {program} -n -r zroot/home      Manual: {program}(8)
"""


def text(program: str) -> str:
    """Return the help of ``kopiatomic`` or ``restomic``."""
    client = client_of(program)
    command = " ".join((client.name, *client.subcommand))
    return HELP.format(program=program, client=client.name, command=command)
