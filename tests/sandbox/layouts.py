"""Two machines to test on: one with everything odd, one as FreeBSD's installer makes it."""

from __future__ import annotations

from pathlib import Path

from sandbox.host import Host

DEMO = """
zpool create -m none zroot /dev/vtbd2
zpool create -m /data tank /dev/vtbd3
zfs create -o mountpoint=/usr/home -o canmount=off zroot/usr
zfs create -o mountpoint=/home zroot/home
zfs create zroot/home/ben
zfs create 'zroot/home/with space'
zfs create -o mountpoint=legacy zroot/legacy
mkdir -p /mnt/legacy
printf 'zroot/legacy\\t/mnt/legacy\\tzfs\\trw\\t0\\t0\\n' > /etc/fstab
mount -t zfs zroot/legacy /mnt/legacy
zfs create -o mountpoint=none zroot/none
zfs create -o mountpoint=/noauto -o canmount=noauto zroot/noauto
zfs create -o mountpoint=/jailed -o jailed=on zroot/jailed
zfs create -V 16m zroot/vol
zfs create -o mountpoint=/elsewhere tank/overlay
zfs create -o mountpoint=/tmpmp -o canmount=noauto zroot/moved
mkdir -p /mnt/else
mount -t zfs zroot/moved /mnt/else
mkdir -p /home/ben/dir
echo live > /home/a
ln /home/a /home/a.hard
ln -s a /home/a.sym
mkfifo /home/fifo
echo b > /home/ben/dir/b
echo s > '/home/with space/s'
echo tank > /data/file
echo over > /elsewhere/file
echo legacy > /mnt/legacy/file
echo moved > /mnt/else/file
"""

INSTALLER = """
zfs create -o mountpoint=/home zroot/home
zfs create -o mountpoint=/tmp -o exec=on -o setuid=off zroot/tmp
zfs create -o mountpoint=/usr -o canmount=off zroot/usr
zfs create -o setuid=off zroot/usr/ports
zfs create zroot/usr/src
zfs create -o mountpoint=/var -o canmount=off zroot/var
zfs create -o exec=off -o setuid=off zroot/var/audit
zfs create -o exec=off -o setuid=off zroot/var/crash
zfs create -o exec=off -o setuid=off zroot/var/log
zfs create -o atime=on zroot/var/mail
zfs create -o setuid=off zroot/var/tmp
chmod 1777 /tmp /var/tmp
zfs mount zroot 2>/dev/null
"""


def demo(host: Host) -> Host:
    """Pools zroot and tank: nested, a space in a name, canmount off and noauto, mountpoint none
    and legacy, a volume, jailed, a mount point that does not follow the name, and one dataset
    mounted elsewhere than its property says."""
    host.shell("set -e\n" + DEMO, check=True)
    host.forget_commands()
    return host


def create_installer(directory: Path) -> Host:
    """Make and boot a machine whose / is zroot/ROOT/default."""
    return installer(Host.create(directory, root_dataset="zroot/ROOT/default"))


def installer(host: Host) -> Host:
    """The installer's datasets, on a host created with root_dataset="zroot/ROOT/default"."""
    host.shell(INSTALLER, check=False)
    host.forget_commands()
    return host
