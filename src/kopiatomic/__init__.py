"""Atomic backups of ZFS datasets with kopia and restic on FreeBSD.

    cli, usage              the command line, and what --help prints
    job, errors             what the user asked for; refusals and exit statuses
    state                   what a job keeps on disk: lock, unfinished marker, history
    environment             the client's environment, env files
    redact, formatting      what is secret, and hiding it; times, sizes, tables, JSON
    commands                one function for each thing the user can ask for
    backup                  one backup, from the plan to the report: begin at routine.run()
    clients                 all that differs between kopia and restic, a file for each
    system                  FreeBSD as seen from here; command.Door starts all programs
    repository              between backups: upkeep and restore drill
    monitoring              what became of the jobs: history, status, check

Imports run one way: system < clients < backup, repository < monitoring < commands < cli.
"""

__version__ = "0.1.0"
