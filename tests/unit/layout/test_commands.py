"""The commands of a layout: which, in which order, and safely quoted."""

import shlex
import subprocess

import pytest

from kopiatomic.layout import commands
from kopiatomic.layout.form import DatasetLayout, Key, Layout
from kopiatomic.system.disks import Disk
from kopiatomic.system.pools import Group
from unit.layout.layouts import LAYOUT, POOL, with_dataset

# What a shell may start for a layout.
PROGRAMS = {
    "set", "zfs", "zpool", "gpart", "newfs_msdos", "mount", "umount", "mkdir", "cp", "ALTROOT=",
}  # fmt: skip


def joined(layout: Layout) -> list[str]:
    """Return the commands, those over several lines as one, without remarks and tables."""
    text = "\n".join(commands.script(layout)).replace("\\\n", " ")
    lines, inside = [], False
    for line in text.split("\n"):
        if not inside and line and not line.startswith("#"):
            lines.append(" ".join(line.split()))
        inside = "<<'END'" in line or (inside and line != "END")
    return lines


def remarks(layout: Layout) -> str:
    return "\n".join(line for line in commands.script(layout) if line.startswith("#"))


def starting(layout: Layout, start: str) -> list[str]:
    return [line for line in joined(layout) if line.startswith(start)]


class TestAsAWhole:
    def test_in_an_order_that_works(self):
        first = [" ".join(line.split()[:2]) for line in joined(LAYOUT)]
        assert list(dict.fromkeys(first)) == [
            "set -eu", "ALTROOT=${ALTROOT:-/mnt}", "gpart restore", "newfs_msdos -F",
            "mkdir -p", "mount -t", "cp /boot/loader.efi", "umount /tmp/efi", "gpart bootcode",
            "zpool create", "zfs create", "zfs set", "zpool set", "zfs mount",
        ]  # fmt: skip

    def test_a_shell_can_read_it_and_nothing_is_forced(self):
        text = "\n".join(commands.script(LAYOUT))
        assert subprocess.run(["/bin/sh", "-n"], input=text, text=True).returncode == 0
        words = {word for line in joined(LAYOUT) for word in shlex.split(line)}
        assert not words & {"-f", "-F" if "newfs" not in text else "--force", "destroy"}
        assert "gpart restore -l ada0 <<'END'" in text
        assert text.index("set -eu") < text.index("gpart")

    def test_it_stops_at_the_first_failure(self):
        text = "\n".join(["gpart() { return 1; }", "zpool() { echo made; }",
                          *commands.script(LAYOUT)])  # fmt: skip
        result = subprocess.run(["/bin/sh"], input=text, text=True, capture_output=True)
        assert (result.returncode, result.stdout) == (1, "")


class TestDisks:
    def test_a_table_stands_as_it_was(self):
        lines = commands.script(LAYOUT)
        start = lines.index("gpart restore -l ada0 <<'END'")
        assert lines[start + 1 : start + 6] == [*LAYOUT.disks[0].table, "END"]

    def test_a_label_of_several_words_is_given_anew_with_the_flags(self):
        """gpart(8) restores the first word of it, and no flags then."""
        table = (
            "GPT 128",
            "1 freebsd-zfs 40 4096 my data [bootme,bootonce]",
            "2 freebsd-zfs 4136 4096 its own",
            "3 freebsd-swap 8232 1 one [bootme]",
        )
        layout = LAYOUT._replace(disks=(Disk("ada0", table),))
        assert [each for each in joined(layout) if each.startswith(("gpart m", "gpart s"))] == [
            "gpart modify -i 1 -l 'my data' ada0",
            "gpart set -a bootme -i 1 ada0",
            "gpart set -a bootonce -i 1 ada0",
            "gpart modify -i 2 -l 'its own' ada0",
        ]

    def test_boot_code_and_the_loader(self):
        assert starting(LAYOUT, "gpart bootcode") == [
            "gpart bootcode -b /boot/pmbr -p /boot/gptzfsboot -i 2 ada0"
        ]
        assert starting(LAYOUT, "newfs_msdos") == ["newfs_msdos -F 32 -c 1 /dev/ada0p1"]
        assert [line.split()[-1] for line in starting(LAYOUT, "cp")] == [
            "/tmp/efi/EFI/BOOT/BOOTX64.EFI", "/tmp/efi/EFI/FREEBSD/LOADER.EFI",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("machine", "name"), [("amd64", "BOOTX64.EFI"), ("arm64", "BOOTAA64.EFI")]
    )
    def test_where_nothing_is_known_of_the_loader_it_is_where_firmware_looks(self, machine, name):
        layout = LAYOUT._replace(machine=machine, loaders=())
        assert starting(layout, "cp") == [f"cp /boot/loader.efi /tmp/efi/EFI/BOOT/{name}"]

    def test_loaders_of_others_are_told_and_not_overwritten(self):
        layout = LAYOUT._replace(loaders=("/EFI/Microsoft/bootmgr.efi",))
        assert "Other systems had there: /EFI/Microsoft/bootmgr.efi" in remarks(layout)
        assert [line.split()[-1] for line in starting(layout, "cp")] == [
            "/tmp/efi/EFI/BOOT/BOOTX64.EFI"
        ]

    def test_of_a_scheme_without_numbers_in_names_no_efi_partition_is_made(self):
        layout = LAYOUT._replace(disks=(Disk("da1s1", ("BSD 8", "1 efi 0 1")),))
        assert starting(layout, "newfs_msdos") == []

    def test_what_geli_has_encrypted_is_told(self):
        pool = POOL._replace(groups=(Group("", "", ("/dev/ada0p3.eli",)),))
        said = remarks(LAYOUT._replace(pools=(pool,)))
        assert "geli init -b -s 4096 /dev/ada0p3; geli attach /dev/ada0p3" in said


class TestPools:
    def test_with_its_features_and_properties_and_not_mounted(self):
        (line,) = starting(LAYOUT, "zpool create")
        assert shlex.split(line) == [
            "zpool", "create", "-d", "-R", "$ALTROOT", "-o", "ashift=12", "-o",
            "comment=it's ours", "-o", "feature@async_destroy=enabled", "-o",
            "feature@lz4_compress=enabled", "-O", "canmount=off", "-O", "compression=lz4",
            "-O", "mountpoint=/zroot", "zroot", "mirror", "/dev/gpt/zfs0", "/dev/gpt/zfs1",
            "log", "/dev/l",
        ]  # fmt: skip
        assert starting(LAYOUT, "zfs set") == ["zfs set canmount=on zroot"]

    def test_a_device_by_itself_does_not_get_into_a_mirror(self):
        groups = (
            Group("", "mirror", ("/a", "/b")), Group("special", "mirror", ("/s", "/t")),
            Group("", "", ("/c",)), Group("spare", "", ("/e",)),
        )  # fmt: skip
        (line,) = starting(LAYOUT._replace(pools=(POOL._replace(groups=groups),)), "zpool create")
        assert line.endswith("zroot /c mirror /a /b spare /e special mirror /s /t")

    def test_a_root_that_is_not_mounted_stays_so(self):
        assert starting(with_dataset(DatasetLayout("t", {"canmount": "off"})), "zfs set") == []

    def test_a_root_that_is_encrypted(self):
        root = DatasetLayout("t", {}, key=Key("aes-256-gcm", "passphrase", "file:///k"))
        (line,) = starting(with_dataset(root), "zpool create")
        assert "-O encryption=aes-256-gcm -O keyformat=passphrase -O keylocation=prompt" in line

    def test_a_boot_environment_that_is_no_more_is_not_set(self):
        layout = LAYOUT._replace(pools=(POOL._replace(boots="zroot/gone"),))
        assert starting(LAYOUT, "zpool set") == ["zpool set bootfs=zroot/ROOT/default zroot"]
        assert starting(layout, "zpool set") == []


class TestDatasets:
    def test_each_after_the_one_that_it_is_in(self):
        layout = with_dataset(
            DatasetLayout("t/b/c", {}), DatasetLayout("t/b", {}), DatasetLayout("t/b-a", {})
        )
        assert starting(layout, "zfs create") == [
            "zfs create -u t/b", "zfs create -u t/b/c", "zfs create -u t/b-a"
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("dataset", "expected"),
        [
            (DatasetLayout("t/a b", {"org.x:y": "it's $HOME"}),
             "zfs create -u -o 'org.x:y=it'\"'\"'s $HOME' 't/a b'"),
            (DatasetLayout("t/v", {"volblocksize": "8192"}, "1024"),
             "zfs create -s -V 1024 -o volblocksize=8192 t/v"),
            (DatasetLayout("t/v", {"refreservation": "1100"}, "1024"),
             "zfs create -V 1024 -o refreservation=1100 t/v"),
            (DatasetLayout("t/k", {}, key=Key("aes-256-gcm", "raw", "file:///k")),
             "zfs create -u -o encryption=aes-256-gcm -o keyformat=raw "
             "-o keylocation=file:///tmp/t_k.key t/k"),
            (DatasetLayout("t/d", {"readonly": "off", "sharenfs": "off"}),
             "zfs create -u -o readonly=off -o sharenfs=off t/d"),
            (DatasetLayout("t/u", {"keylocation": "file:///etc/passwd", "unheard": "of"}),
             "zfs create -u t/u"),
        ],
    )  # fmt: skip
    def test_with_what_was_set_on_it(self, dataset, expected):
        assert starting(with_dataset(dataset), "zfs create") == [expected]

    def test_what_keeps_files_from_being_written_comes_afterwards(self):
        said = remarks(LAYOUT)
        assert "#after: zfs set readonly=on zroot/home/ann" in said
        assert "#after: zfs set jailed=on zroot/jail" in said
        assert not [line for line in joined(LAYOUT) if "jailed=" in line or "readonly=" in line]

    def test_what_no_option_says_is_told(self):
        layout = with_dataset(DatasetLayout("t/u", {"unheard": "of"}))
        assert "t/u had a property that is not known here: unheard=of" in remarks(layout)
        said = remarks(LAYOUT)
        assert "Not kept of zroot/home/ann, for it may be secret or is no text: org.x:token" in said
        assert "zroot/was was a clone of zroot/home@then" in said
        assert "zroot/safe is encrypted. Its key, which was asked for, is in no layout." in said
        assert "zroot/vm is a volume" in said


class TestMounts:
    def mounts(self, *datasets: DatasetLayout) -> list[str]:
        lines = joined(with_dataset(DatasetLayout("t", {"mountpoint": "none"}), *datasets))
        return [line for line in lines if line.startswith(("zfs mount", "mount", "mkdir"))]

    def test_the_root_first_and_only_what_was_mounted(self):
        mounts = [line for line in joined(LAYOUT) if line.startswith(("zfs mount", "mount -t zfs"))]
        assert mounts == [
            "zfs mount zroot/ROOT/default", "zfs mount zroot/home", "zfs mount zroot/home/ann",
            "mount -t zfs zroot/jail $ALTROOT/jails/a/data", "zfs mount zroot",
            "zfs mount zroot/safe", "zfs mount zroot/was",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("properties", "mounted", "expected"),
        [
            ({"mountpoint": "legacy"}, "/a b", ["mkdir -p $ALTROOT'/a b'",
                                                "mount -t zfs t/x $ALTROOT'/a b'"]),
            ({"mountpoint": "legacy"}, "", []),
            ({}, "", []),
            ({"mountpoint": "/x", "canmount": "off"}, "", []),
            ({"mountpoint": "/x", "canmount": "noauto"}, "", []),
            ({"mountpoint": "/x", "canmount": "noauto"}, "/x", ["zfs mount t/x"]),
            ({"mountpoint": "/x", "jailed": "on"}, "", []),
            ({"mountpoint": "/x"}, "", ["zfs mount t/x"]),
        ],
    )  # fmt: skip
    def test_where_it_was(self, properties, mounted, expected):
        assert self.mounts(DatasetLayout("t/x", properties, mounted=mounted)) == expected

    def test_without_a_mount_point_of_its_own_below_the_one_above(self):
        below = DatasetLayout("t/a/b", {}), DatasetLayout("t/a", {"mountpoint": "/z"})
        other = DatasetLayout("t/c", {"mountpoint": "/z/a"})
        assert self.mounts(*below, other) == ["zfs mount t/a", "zfs mount t/c", "zfs mount t/a/b"]

    def test_a_volume_is_not_mounted(self):
        assert self.mounts(DatasetLayout("t/v", {}, "1024", mounted="/v")) == []


NASTY = "'; reboot; echo $(reboot) `reboot` \\"


def test_whatever_values_say_no_other_program_is_started():
    dataset = DatasetLayout(
        "t/x", {"org.x:y": NASTY, "mountpoint": f"/{NASTY}", "unheard": NASTY, "jailed": NASTY},
        key=Key("a", "passphrase", NASTY), mounted=f"/m{NASTY}",
    )  # fmt: skip
    layout = with_dataset(dataset)._replace(
        versions={"FreeBSD": NASTY}, disks=(Disk("ada0", ("GPT 128", "1 efi 40 1 $(reboot)")),),
        loaders=(f"/EFI/{NASTY}",),
    )  # fmt: skip
    pool = layout.pools[0]._replace(
        properties={"comment": NASTY, "odd": NASTY}, groups=(Group("", "", (f"/d{NASTY}",)),)
    )
    stubs = "".join(
        f'{each}() {{ printf "%s\\n" {each} "$@"; cat > /dev/null; }}\n'
        for each in ("zfs", "zpool", "gpart", "newfs_msdos", "mount", "umount", "mkdir", "cp")
    )
    text = stubs + "reboot() { echo REBOOTED; }\n"
    text += "\n".join(commands.script(layout._replace(pools=(pool,))))
    # As a file, so that what it starts cannot read it.
    result = subprocess.run(["/bin/sh", "-c", text], text=True, capture_output=True,
                            stdin=subprocess.DEVNULL)  # fmt: skip
    assert result.returncode == 0, result.stderr
    said = result.stdout.splitlines()
    assert "REBOOTED" not in said
    assert f"comment={NASTY}" in said
    assert f"org.x:y={NASTY}" in said
    assert f"mountpoint=/{NASTY}" in said
    assert f"/mnt/m{NASTY}" in said
    assert f"/d{NASTY}" in said
