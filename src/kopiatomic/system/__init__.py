"""FreeBSD as seen from here: programs, processes, datasets, mounts, system calls."""
