"""The fake host's root file system: FreeBSD's directories, Linux's programs behind symlinks."""

from __future__ import annotations

import os
import shutil

COMPAT = "/compat/linux"

DIRECTORIES = (
    "bin boot compat compat/linux compat/sandbox dev etc etc/defaults etc/periodic"
    " etc/periodic/daily etc/periodic/weekly etc/periodic/monthly etc/periodic/security libexec"
    " media mnt net rescue sbin usr usr/bin usr/libexec usr/libexec/syscall usr/local usr/local/bin"
    " usr/local/etc usr/local/etc/periodic usr/local/etc/periodic/daily"
    " usr/local/etc/periodic/weekly usr/local/etc/periodic/monthly"
    " usr/local/etc/periodic/security usr/local/lib usr/local/libexec usr/local/man"
    " usr/local/sbin usr/local/share usr/sbin usr/share usr/tests var var/backups var/cache"
    " var/crash var/db var/empty var/log var/mail var/run var/spool"
).split()
MODES = {"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700, "var/mail": 0o775}

BIN = ("[ cat chmod cp date dd df echo ed expr kill ln ls mkdir mv ps pwd rm rmdir sh sleep stty"
       " sync test timeout pgrep pkill").split()
USR_BIN = (
    "awk base64 basename bash bc cmp comm cut diff dirname du egrep env expand false fgrep file"
    " find flock fold getconf getopt grep gunzip gzip head iconv id install join less logger"
    " logname make md5sum mkfifo mktemp more nice nl nohup od openssl paste perl printenv printf"
    " readlink realpath renice sed seq setsid sha256sum shuf sort split stat strace strings tac"
    " tail tar tee touch tr true truncate tty uname uniq uptime wc who whoami xargs xz yes"
).split()
SBIN = "chown mknod".split()
LIBRARIES = ("lib", "lib32", "lib64", "libx32", "usr/lib", "usr/lib32", "usr/lib64", "usr/libx32",
             "usr/share/zoneinfo", "usr/share/perl", "usr/share/perl5", "etc/ssl",
             "etc/ld.so.cache", "etc/localtime")

FILES = {
    "etc/passwd": """\
root:*:0:0:Charlie &:/root:/bin/sh
toor:*:0:0:Bourne-again Superuser:/root:
daemon:*:1:1:Owner of many system processes:/root:/usr/sbin/nologin
operator:*:2:5:System &:/:/usr/sbin/nologin
www:*:80:80:World Wide Web Owner:/nonexistent:/usr/sbin/nologin
ben:*:1001:1001:Ben:/home/ben:/bin/sh
nobody:*:65534:65534:Unprivileged user:/nonexistent:/usr/sbin/nologin
""",
    "etc/group": """\
wheel:*:0:root
daemon:*:1:
operator:*:5:root
www:*:80:
ben:*:1001:
nobody:*:65534:
""",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n",
    "etc/shells": "/bin/sh\n",
    "etc/motd.template": "Welcome to the sandbox!\n",
    "root/.profile": "export PATH\n",
    "boot/loader.conf": 'zfs_load="YES"\n',
}

# The module that gives the host's python FreeBSD's system calls, and the line that loads it.
LIBC = "freebsd_libc"
LOADS = f"import {LIBC}; {LIBC}.present()\n"
LACKS = f"import {LIBC}; {LIBC}.absent()\n"

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9),
           "tty": (5, 0)}
JAIL_DEVICES = ("null", "zero", "random", "urandom")


def build(root: str, config: dict[str, str]) -> None:
    """Fill an empty directory with the root file system."""
    for name in DIRECTORIES:
        os.makedirs(f"{root}/{name}", exist_ok=True)
    for name, mode in MODES.items():
        os.makedirs(f"{root}/{name}", exist_ok=True)
        os.chmod(f"{root}/{name}", mode)
    for name, text in FILES.items():
        with open(f"{root}/{name}", "w") as file:
            file.write(text)
    os.symlink("compat/linux/proc", f"{root}/proc")
    for directory, names in (("bin", BIN), ("usr/bin", USR_BIN), ("usr/sbin", SBIN)):
        for name in names:
            _link_program(root, directory, name)
    for name in LIBRARIES:
        if os.path.lexists(f"/{name}"):
            os.makedirs(os.path.dirname(f"{root}/{name}"), exist_ok=True)
            os.symlink(f"{COMPAT}/{name}", f"{root}/{name}")
    _python(root, config)
    install_standins(root, config)
    shutil.copytree(f"{config['package']}/etc", f"{root}/etc", dirs_exist_ok=True)


def _link_program(root: str, directory: str, name: str) -> None:
    for place in ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        if os.path.exists(f"{place}/{name}"):
            # The real file: Debian's /etc/alternatives do not exist in the fake host.
            os.symlink(COMPAT + os.path.realpath(f"{place}/{name}"), f"{root}/{directory}/{name}")
            return


def _python(root: str, config: dict[str, str]) -> None:
    """Make /usr/local a prefix of its own for the python that runs the tests."""
    python = config["python"]
    version = config["version"]
    with open(f"{root}/usr/local/pyvenv.cfg", "w") as file:
        file.write(f"home = {COMPAT}{os.path.dirname(python)}\n")
        file.write("include-system-site-packages = false\n")
    packages = f"{root}/usr/local/lib/python{version}/site-packages"
    os.makedirs(packages)
    shutil.copy(f"{config['package']}/libc.py", f"{packages}/{LIBC}.py")
    with open(f"{packages}/{LIBC}.pth", "w") as file:
        file.write(LOADS)
    for name in ("python3", f"python{version}"):
        os.symlink(COMPAT + python, f"{root}/usr/local/bin/{name}")
    prefix = config["prefix"]
    if not prefix.startswith("/usr"):
        # Such a python looks for its library by the absolute path it was built with.
        os.makedirs(os.path.dirname(root + prefix), exist_ok=True)
        os.symlink(COMPAT + prefix, root + prefix)


PLACES = {
    "sbin": "zfs zpool mount mount_nullfs umount kldstat kldload sysctl gpart glabel newfs_msdos"
            " mdconfig",
    "usr/sbin": "chroot jail jexec periodic sendmail",
    "usr/bin": "fstat mail su",
    "bin": "hostname freebsd-version",
    # For tests alone: see syscalls.py.
    "usr/libexec/syscall": "nmount unmount getfsstat",
}


def install_standins(root: str, config: dict[str, str]) -> None:
    """Put the stand-ins where FreeBSD has the real programs, as files of their own."""
    for directory, names in PLACES.items():
        for name in names.split():
            with open(f"{config['package']}/bin/{name}") as source:
                lines = source.readlines()
            with open(f"{root}/{directory}/{name}", "w") as target:
                target.writelines([f"#!{COMPAT}{config['fast_python']} -IS\n", *lines[1:]])
            os.chmod(f"{root}/{directory}/{name}", 0o555)
    os.symlink("/bin/pgrep", f"{root}/usr/bin/pgrep")


def make_devices(directory: str) -> None:
    """All devices in `full`, those a jail sees in `jail`; directory is a tmpfs."""
    for kind, names in (("full", tuple(DEVICES)), ("jail", JAIL_DEVICES)):
        os.makedirs(f"{directory}/{kind}")
        for name in names:
            _device(f"{directory}/{kind}/{name}", name)
        os.symlink("/compat/linux/proc/self/fd", f"{directory}/{kind}/fd")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.symlink(f"fd/{number}", f"{directory}/{kind}/{name}")
        with open(f"{directory}/{kind}/zfs", "w"):
            pass


def _device(path: str, name: str) -> None:
    major, minor = DEVICES[name]
    old = os.umask(0)
    try:
        os.mknod(path, 0o020666, os.makedev(major, minor))
    except PermissionError:
        from sandbox import kernel

        with open(path, "w"):
            kernel.bind(f"/dev/{name}", path)
    finally:
        os.umask(old)
