"""The layout of the machine: what belongs to it, and what does not."""

import os
from pathlib import Path

import pytest

from kopiatomic import __version__
from kopiatomic.layout import commands, form, taking
from kopiatomic.layout.form import DatasetLayout, Key
from kopiatomic.system import mounts
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.machine import Mount
from kopiatomic.system.pools import Group
from unit.layout.layouts import with_dataset

DOOR = Door()
STATUS = """\
  pool: t
config:

\tNAME    STATE     READ WRITE CKSUM
\tt       ONLINE       0     0     0
\t  {device}  ONLINE       0     0     0

errors: No known data errors
"""


def answer(fp, settings: str, of_pool: str = "", device: str = "/f", table=(), patch=None):
    """Let the machine have one pool with these settings; those of its root are there already."""
    head = "t\ttype\t-\tfilesystem\n"
    said = (head + settings).encode("utf-8", "surrogateescape")
    fp.register(["zfs", "get", fp.any()], stdout=said)
    fp.register(["zpool", "get", fp.any()], stdout=of_pool)
    fp.register(["zpool", "status", fp.any()], stdout=STATUS.format(device=device))
    fp.register(["freebsd-version"], stdout="14.2-RELEASE-p1\n")
    fp.register(["zfs", "version"], stdout="zfs-2.2.6-FreeBSD_g1\nzfs-kmod-2.2.6\n")
    patch.setattr(mounts, "table", lambda door: list(table))


@pytest.fixture
def datasets(fp, monkeypatch):
    """Return what makes a layout of settings and mounts, and gives its datasets by name."""

    def take(settings: str, table=(), of_pool: str = "") -> dict[str, DatasetLayout]:
        answer(fp, settings, of_pool, table=table, patch=monkeypatch)
        found = taking.take(DOOR, ["t"], {}).layout.datasets
        return {each.name: each for each in found}

    return take


def of(name: str, *lines: tuple[str, str, str], kind: str = "filesystem") -> str:
    rows = [("type", "-", kind), *lines]
    return "".join(f"{name}\t{row[0]}\t{row[1]}\t{row[2]}\n" for row in rows)


class TestAsAWhole:
    def test_of_one_pool(self, fp, monkeypatch):
        of_pool = (
            "t\tsize\t-\t1\nt\taltroot\tdefault\t-\nt\tbootfs\tlocal\tt/a\nt\tashift\tlocal\t12\n"
            "t\tcachefile\tlocal\tnone\nt\tfeature@a\tlocal\tactive\nt\tfeature@b\tlocal\tenabled\n"
            "t\tfeature@c\tlocal\tdisabled\nt\tunsupported@d\tlocal\tinactive\n"
        )
        answer(fp, of("t/a", ("quota", "local", "5")), of_pool, patch=monkeypatch)
        taken = taking.take(DOOR, ["t"], {"client": "1.0"})
        (pool,) = taken.layout.pools
        assert pool == form.PoolLayout(
            "t", {"ashift": "12"}, ("a", "b"), (Group("", "", ("/f",)),), "t/a"
        )
        assert taken.layout.datasets[1] == DatasetLayout("t/a", {"quota": "5"})
        assert taken.layout.versions == {
            "FreeBSD": "14.2-RELEASE-p1", "ZFS": "2.2.6-FreeBSD_g1", "client": "1.0",
            "kopiatomic": __version__,
        }  # fmt: skip
        assert taken.layout.host == os.uname().nodename
        assert taken.lacking == ()

    def test_what_is_taken_can_be_read_again(self, fp, monkeypatch):
        settings = of("t/a b", ("mountpoint", "local", "/ü"), ("x:y", "received", "it's"))
        answer(fp, settings, patch=monkeypatch)
        layout = taking.take(DOOR, ["t"], {}).layout
        assert form.parse(form.as_text(layout, ["a"]).encode(), "-") == layout

    def test_disks_that_do_not_answer_are_lacking_and_no_failure(self, fp, monkeypatch):
        answer(fp, "", device="/dev/ada0p1", patch=monkeypatch)
        fp.register(["gpart", fp.any()], returncode=1, stderr="gpart: no\n")
        taken = taking.take(DOOR, ["t"], {})
        assert taken.layout.disks == ()
        assert taken.lacking == ("the partitions of the disks: gpart show -p: gpart: no "
                                 "(exit status 1)",)  # fmt: skip

    def test_a_label_that_is_no_text_is_lacking(self, fp, monkeypatch):
        answer(fp, "", device="/dev/ada0p1", patch=monkeypatch)
        fp.register("gpart show -p", stdout="=> 40 9 ada0 GPT (1G)\n 40 8 ada0p1 efi (1G)\n")
        fp.register("glabel status -s")
        said = b"GPT 4\n1 efi 40 8 caf\xe9 x [bootme]\n2 efi 48 8 caf\xc3\xa9 x\n"
        fp.register("gpart backup ada0", stdout=said)
        taken = taking.take(DOOR, ["t"], {})
        assert taken.layout.disks[0].table[1:] == ("1 efi 40 8", "2 efi 48 8 café x")
        assert taken.lacking == ("the label of partition 1 of ada0: no text",)
        assert form.parse(form.as_text(taken.layout, []).encode(), "-") == taken.layout

    def test_a_version_that_cannot_be_told_is_lacking(self, fp, monkeypatch):
        answer(fp, "", patch=monkeypatch)
        monkeypatch.setattr(taking, "_VERSIONS", (("FreeBSD", ("false",)),))
        fp.register(["false"], returncode=1)
        assert taking.take(DOOR, ["t"], {}).lacking == (
            "the version of FreeBSD: false: exit status 1",
        )

    def test_datasets_that_cannot_be_asked_for_are_a_failure(self, fp):
        fp.register(["zfs", fp.any()], returncode=1, stderr="cannot open 't'\n")
        with pytest.raises(CommandFailed, match="cannot open 't'"):
            taking.take(DOOR, ["t"], {})


class TestDatasets:
    def test_what_is_stored_and_when_is_none_of_it(self, datasets):
        lines = [("creation", "-", "179"), ("used", "-", "5"), ("guid", "-", "9"),
                 ("casesensitivity", "-", "sensitive"), ("utf8only", "-", "off")]  # fmt: skip
        assert datasets(of("t/a", *lines))["t/a"] == DatasetLayout("t/a", {})

    def test_what_is_decided_when_it_is_made_is(self, datasets):
        lines = [("casesensitivity", "-", "insensitive"), ("normalization", "-", "formD")]
        volume = of("t/v", ("volsize", "local", "64"), ("volblocksize", "-", "8192"), kind="volume")
        found = datasets(of("t/a", *lines) + volume)
        assert found["t/a"].properties == {"casesensitivity": "insensitive",
                                           "normalization": "formD"}  # fmt: skip
        assert found["t/v"] == DatasetLayout("t/v", {"volblocksize": "8192"}, "64")

    def test_canmount_is_said_where_it_is_not_the_usual(self, datasets):
        found = datasets(of("t/a", ("canmount", "local", "on")))
        assert found["t/a"].properties == {}

    def test_a_clone_of_ours_is_gone_after_the_run(self, datasets):
        clone = "t/restomic-20261127T030000Z-0123456789ab.0"
        mark = ("org.kopiatomic:run", "local", "x")
        found = datasets(of(clone, ("volsize", "local", "64"), mark, kind="volume")
                         + of("t/d", ("origin", "-", "t/a@s")))  # fmt: skip
        assert clone not in found
        assert found["t/d"].clone_of == "t/a@s"

    def test_anything_else_that_is_marked_is_the_user_s(self, fp, monkeypatch):
        """The whole pool may be marked, by whoever may set a property."""
        mark = ("org.kopiatomic:run", "local", "x")
        clone = "t/restomic-20261127T030000Z-0123456789ab.0"
        text = f"t\t{mark[0]}\tlocal\tx\n"
        text += of("t/a", ("quota", "local", "5"), mark) + of("t/a/b") + of(clone, mark)
        text += of(f"{clone[:-1]}1", ("volsize", "received", "64"),
                   (mark[0], "received", "x"), kind="volume")  # fmt: skip
        answer(fp, text, patch=monkeypatch)
        layout = taking.take(DOOR, ["t"], {}).layout
        names = ["t", "t/a", "t/a/b", clone, f"{clone[:-1]}1"]
        assert [each.name for each in layout.datasets] == names
        assert layout.datasets[1].properties == {"quota": "5"}
        assert form.parse(form.as_text(layout, commands.script(layout)).encode(), "-") == layout

    @pytest.mark.parametrize(
        ("name", "value"),
        [("org.x:password", "geheim"), ("org.x:api-key", "geheim"), ("org.x:url", "https://u:p@h/x"),
         ("mountpoint", "/a\nb"), ("org.x:y", "\x1b[2J"), ("org.x:z", "caf\udce9"),
         ("org.x:note", "log in with PASSWORD=geheim there"), ("org.x:how", "run x --token geheim"),
         ("org.x:pem", "-----BEGIN OPENSSH PRIVATE KEY----- geheim")],
    )  # fmt: skip
    def test_what_may_be_secret_or_is_no_text_is_named_only(self, datasets, name, value):
        found = datasets(of("t/a", (name, "local", value)))["t/a"]
        assert found == DatasetLayout("t/a", {}, omitted=(name,))
        assert value not in form.as_text(with_dataset(found), [])
        assert "geheim" not in form.as_text(with_dataset(found), [])

    def test_addresses_without_a_password_stay(self, datasets):
        found = datasets(of("t/a", ("org.x:url", "local", "https://example.org/x")))
        assert found["t/a"].properties == {"org.x:url": "https://example.org/x"}


class TestSecrets:
    """Properties are free text, and the layout goes into the repository and is printed."""

    def hide(self, text: str) -> str:
        return text.replace("correct horse", "[hidden]")

    def test_what_the_job_knows_as_secret(self, fp, monkeypatch):
        lines = [("mountpoint", "local", "/correct horse"),
                 ("org.x:note", "local", "it is correct horse"), ("org.x:other", "local", "horse"),
                 ]  # fmt: skip
        comment = "t\tcomment\tlocal\tcorrect horse\nt\tashift\tlocal\t12\n"
        answer(fp, of("t/a", *lines), comment, patch=monkeypatch)
        taken = taking.take(DOOR, ["t"], {}, self.hide)
        (found,) = [each for each in taken.layout.datasets if each.name == "t/a"]
        assert found.omitted == ("org.x:note",)
        # Where it is mounted is no free text, and known to whoever sees the paths.
        assert found.properties == {"org.x:other": "horse", "mountpoint": "/correct horse"}
        assert taken.layout.pools[0].properties == {"ashift": "12"}
        assert taken.lacking == ("the comment of the pool t, which may hold a secret",)

    @pytest.mark.parametrize("comment", ["https://u:p4ss@h/", "PASSWORD=geheim", "--token geheim"])
    def test_a_comment_that_looks_like_one(self, fp, monkeypatch, comment):
        answer(fp, "", f"t\tcomment\tlocal\t{comment}\n", patch=monkeypatch)
        taken = taking.take(DOOR, ["t"], {})
        assert taken.layout.pools[0].properties == {}
        assert len(taken.lacking) == 1

    def test_an_ordinary_comment_stays(self, fp, monkeypatch):
        answer(fp, "", "t\tcomment\tlocal\tthe disks of 2026\n", patch=monkeypatch)
        taken = taking.take(DOOR, ["t"], {})
        assert taken.layout.pools[0].properties == {"comment": "the disks of 2026"}
        assert taken.lacking == ()


class TestKeys:
    ROOT = (("encryption", "-", "aes-256-gcm"), ("encryptionroot", "-", "t/k"),
            ("pbkdf2iters", "-", "350000"))  # fmt: skip

    @pytest.mark.parametrize(
        ("location", "told"),
        [("prompt", "prompt"), ("file:///root/key", "file:///root/key"),
         ("https://me:geheim@keys.example.org/k?token=geheim", "https://keys.example.org/...")],
    )  # fmt: skip
    def test_a_root_is_told_with_where_its_key_was(self, datasets, location, told):
        lines = [*self.ROOT, ("keyformat", "-", "passphrase"), ("keylocation", "local", location)]
        found = datasets(of("t/k", *lines))["t/k"]
        assert found == DatasetLayout("t/k", {}, key=Key("aes-256-gcm", "passphrase", told))

    def test_what_is_below_it_has_none(self, datasets):
        lines = [*self.ROOT, ("keyformat", "-", "passphrase")]
        assert datasets(of("t/k/a", *lines))["t/k/a"] == DatasetLayout("t/k/a", {})


def zfs(special: str, point: str) -> Mount:
    return Mount(special, point, "zfs")


class TestMounts:
    def test_where_it_is_is_said_if_its_properties_do_not(self, datasets):
        table = [zfs("t", "/t"), zfs("t/a", "/a"), zfs("t/a/b", "/a/b"), zfs("t/l", "/l"),
                 zfs("t/m", "/m"), zfs("t/n", "/elsewhere"), zfs("t/a@s", "/.zfs")]  # fmt: skip
        found = datasets(
            of("t/a", ("mountpoint", "local", "/a")) + of("t/a/b")
            + of("t/l", ("mountpoint", "local", "legacy"))
            + of("t/m", ("mountpoint", "local", "/m"), ("canmount", "local", "noauto"))
            + of("t/n"), table,
        )  # fmt: skip
        told = {name: each.mounted for name, each in found.items() if each.mounted}
        assert told == {"t/l": "/l", "t/m": "/m", "t/n": "/elsewhere"}

    def test_without_the_altroot_of_the_pool(self, datasets):
        found = datasets(
            of("t/a", ("mountpoint", "local", "/mnt/a"))
            + of("t/r", ("mountpoint", "local", "/mnt")),
            [zfs("t/a", "/mnt/a"), zfs("t/r", "/mnt"), zfs("t", "/mnt/t")],
            "t\taltroot\tlocal\t/mnt\n",
        )
        assert found["t/a"] == DatasetLayout("t/a", {"mountpoint": "/a"})
        assert found["t/r"] == DatasetLayout("t/r", {"mountpoint": "/"})
        assert found["t"].mounted == ""


def test_what_firmware_finds_on_the_efi_partition(fp, monkeypatch, tmp_path: Path):
    for name in ("FreeBSD/loader.efi", "BOOT/bootx64.efi", "BOOT/fallback.csv"):
        path = tmp_path / "efi/EFI" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    table = [Mount("/dev/gpt/efi", str(tmp_path / "efi"), "msdosfs"),
             Mount("/dev/da0s1", str(tmp_path / "stick"), "msdosfs")]  # fmt: skip
    answer(fp, "", table=table, patch=monkeypatch)
    assert taking.take(DOOR, ["t"], {}).layout.loaders == (
        "/EFI/BOOT/bootx64.efi", "/EFI/FreeBSD/loader.efi",
    )  # fmt: skip
