"""A fake FreeBSD machine on Linux: real files, mounts and chroot; stand-ins for the rest."""
