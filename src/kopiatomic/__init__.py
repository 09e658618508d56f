"""Atomic backups of ZFS datasets with kopia and restic on FreeBSD."""

__version__ = "0.1.0"
