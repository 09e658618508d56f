"""What zpool(8), gpart(8) and glabel(8) say, as FreeBSD 14.2 said it."""

from __future__ import annotations

import pytest
from sandbox.host import Host

from standins.conftest import said

pytestmark = pytest.mark.linux(reason="the stand-ins are for Linux only")

# As gpart(8) gave it for a disk of 200 MB, each line with the blank at its end.
BACKUP = """\
GPT 128
1   freebsd-boot     40   1024 boot0 \n\
2            efi   1064  69632  \n\
3   freebsd-swap  70696  40960 swap \n\
4    freebsd-zfs 112640 294912 zfs0  [bootme] \n\
"""


def restored(host: Host, table: str) -> None:
    (host.root / "tmp/table").write_text(table)
    assert said(host, "gpart restore -l ada1 < /tmp/table") == ("", 0)


def test_a_table_of_partitions_comes_back_as_it_was(host: Host) -> None:
    restored(host, BACKUP)
    assert said(host, "gpart backup ada1") == (BACKUP, 0)
    assert said(host, "gpart restore -l ada1 < /tmp/table") == (
        "gpart: geom 'ada1': File exists\n", 1,
    )  # fmt: skip


def test_of_a_label_the_first_word_is_restored_and_then_no_flags(host: Host) -> None:
    restored(host, BACKUP.replace("zfs0 ", "zfs 0 ").replace("swap \n", "swap one \n"))
    assert said(host, "gpart backup ada1") == (
        BACKUP.replace("zfs0  [bootme] ", "zfs "), 0,
    )  # fmt: skip
    assert said(host, "gpart modify -i 4 -l 'zfs 0' ada1") == ("ada1p4 modified\n", 0)
    assert said(host, "gpart set -a bootme -i 4 ada1") == ("bootme set on ada1p4\n", 0)
    assert said(host, "gpart backup ada1")[0].endswith("294912 zfs 0  [bootme] \n")
    assert "gpt/zfs%200  N/A  ada1p4\n" in said(host, "glabel status -s")[0]
    assert said(host, "gpart modify -i 9 -l x ada1") == (
        "gpart: index '9': No such file or directory\n", 1,
    )  # fmt: skip


def test_properties_of_a_pool_come_in_the_order_that_is_asked_for(host: Host) -> None:
    ask = "zpool get -Hp -o property,value,source readonly,altroot,bootfs tank"
    assert said(host, ask) == ("readonly\toff\t-\naltroot\t-\tdefault\nbootfs\t-\tdefault\n", 0)


def test_pools_that_are_not_there(host: Host) -> None:
    assert said(host, "zpool get -Hp all nosuch tank") == (
        "Cannot get properties of nosuch: no such pool available.\n", 1,
    )  # fmt: skip
    text, status = said(host, "zpool status -P nosuch tank")
    assert text.startswith("cannot open 'nosuch': no such pool\n  pool: tank\n")
    assert status == 1
    assert said(host, "zpool set bootfs=tank/none tank") == (
        "cannot set property for 'tank': no such pool or dataset\n", 1,
    )  # fmt: skip
    assert said(host, "zpool create -d -o feature@nosuch=enabled new /dev/vtbd9") == (
        "cannot create 'new': feature 'nosuch' unsupported by kernel\n", 1,
    )  # fmt: skip


def test_disks_in_memory(host: Host) -> None:
    assert said(host, "mdconfig -a -t swap -s 300m; mdconfig -a -t swap -s 310m; mdconfig -l") == (
        "md0\nmd1\nmd0 md1 \n", 0,
    )  # fmt: skip
    none = "mdconfig: ioctl(/dev/mdctl): No such file or directory\n"
    assert said(host, "mdconfig -d -u 9") == said(host, "mdconfig -d -u md9") == (none, 1)
    assert said(host, "mdconfig -a -t swap")[1] == 1
    assert said(host, "gpart backup md1") == ("gpart: No such geom: md1.\n", 1)
    (host.root / "tmp/table").write_text(BACKUP)
    assert said(host, "gpart restore -l md0 < /tmp/table; zpool create ktc /dev/gpt/zfs0") == (
        "", 0,
    )  # fmt: skip
    busy = "mdconfig: ioctl(/dev/mdctl): Device busy\n"
    assert said(host, "mdconfig -d -u md0") == (busy, 1)
    assert said(host, "zpool destroy ktc; mdconfig -d -u md0; mdconfig -d -u md1") == ("", 0)
    assert said(host, "mdconfig -l") == ("\n", 0)
    assert said(host, "gpart restore -l md0 < /tmp/table") == (
        "gpart: arg0 'md0': Invalid argument\n", 1,
    )  # fmt: skip
    for device in ("/dev/gpt/zfs0", "/dev/md0"):
        assert said(host, f"zpool create ktc {device}") == (f"cannot resolve path '{device}'\n", 1)
    assert said(host, "zpool create ktc md0") == (
        "cannot open 'md0': no such device in /dev\nmust be a full path or shorthand device name\n",
        1,
    )  # fmt: skip


def test_keys_of_encrypted_datasets(host: Host) -> None:
    secret = "zfs create -o encryption=on -o keyformat=passphrase tank/safe"
    assert said(host, f"{secret} < /dev/null") == (
        "cannot create 'tank/safe': encryption failure\n", 1,
    )  # fmt: skip
    assert said(host, f"echo short | {secret}") == (
        "cannot create 'tank/safe': Passphrase too short (min 8).\n", 1,
    )  # fmt: skip
    assert said(host, f"echo 'correct horse' | {secret}") == ("", 0)
    raw = "zfs create -o encryption=on -o keyformat=raw -o keylocation=file:///tmp/key tank/raw"
    assert said(host, raw) == (
        "cannot create 'tank/raw': Failed to open key material file: No such file or directory\n",
        1,
    )  # fmt: skip
    assert said(host, f"head -c 31 /dev/zero > /tmp/key; {raw}") == (
        "cannot create 'tank/raw': Raw key too short (expected 32).\n", 1,
    )  # fmt: skip
    assert said(host, f"head -c 32 /dev/zero > /tmp/key; {raw}") == ("", 0)
    ask = "zfs get -Ho value,source keylocation tank/raw tank/safe"
    assert said(host, ask) == ("file:///tmp/key\tlocal\nprompt\tlocal\n", 0)
    assert said(host, "zfs unmount tank/safe; zfs unload-key tank/safe") == ("", 0)
    assert said(host, "zfs load-key tank/safe < /dev/null") == (
        "Key load error: encryption failure\n", 255,
    )  # fmt: skip
    assert said(host, "echo 'correct horse' | zfs load-key tank/safe") == ("", 0)
    assert said(host, "zfs load-key tank/safe < /dev/null") == (
        "Key load error: Key already loaded for 'tank/safe'.\n", 255,
    )  # fmt: skip
