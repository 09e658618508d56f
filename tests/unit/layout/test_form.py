"""The file of a layout: written, read, and refused."""

import json

import pytest

from kopiatomic.errors import EX_DATAERR, Refusal
from kopiatomic.layout import form
from kopiatomic.layout.form import DatasetLayout
from unit.layout.layouts import LAYOUT, with_dataset


def changed(path: list[object], value: object) -> bytes:
    """Return the file of a layout with one value changed."""
    data = json.loads(form.as_text(LAYOUT, []))
    place = data
    for each in path[:-1]:
        place = place[each]
    place[path[-1]] = value
    return json.dumps(data).encode()


def refused(data: bytes) -> str:
    with pytest.raises(Refusal) as caught:
        form.parse(data, "layout.json")
    assert caught.value.status == EX_DATAERR
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_what_is_written_is_read_again():
    assert form.parse(form.as_text(LAYOUT, ["zpool create"]).encode(), "-") == LAYOUT._replace(
        pools=tuple(
            each._replace(features=tuple(sorted(each.features))) for each in LAYOUT.pools
        )
    )


@pytest.mark.parametrize("label", ["swap 0", "a [b] c", "two words [bootme]", "[bootme]"])
def test_a_partition_may_be_called_by_several_words(label):
    line = f"1 freebsd-zfs 40 4096 {label}"
    read = form.parse(changed(["disks", 0, "table", 1], line), "-")
    assert read.disks[0].table[1] == line


def test_the_order_in_which_properties_are_found_changes_nothing():
    pairs = [("quota", "1"), ("atime", "off"), ("a:b", "c")]
    texts = {
        form.as_text(with_dataset(DatasetLayout("t/a", dict(order))), [])
        for order in (pairs, pairs[::-1])
    }
    assert len(texts) == 1


def test_a_value_stands_in_its_own_line_and_letters_as_they_are():
    text = form.as_text(with_dataset(DatasetLayout("t/a", {"mountpoint": "/müll"})), ["a", "b'c"])
    assert '"mountpoint": "/müll"' in text
    assert '\n  "b\'c"\n' in text


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"[]", b"{}", b'{"format": "something"}', b"zfs create", b"[" * 100_000,
     b'{"format": "kopiatomic layout", "version": 1}'],
)  # fmt: skip
def test_other_files_are_refused(data):
    assert "is no layout that a backup has saved" in refused(data)


def test_a_newer_one_is_refused_with_what_to_do():
    assert "of version 2, of which this program knows 1" in refused(changed(["version"], 2))


HOSTILE: list[tuple[list[object], object]] = [
    (["host"], "a b"),
    (["versions"], {"FreeBSD": "14\n"}),
    (["disks", 0, "name"], "-F"),
    (["disks", 0, "name"], "ada0; rm x"),
    (["disks", 0, "table", 0], "END"),
    (["disks", 0, "table", 1], "GPT 128"),
    (["disks", 0, "table", 1], "END"),
    (["disks", 0, "table", 1], "1 efi 40 1 a\nEND\nreboot"),
    (["disks", 0, "table"], []),
    (["loaders", 0], "/EFI/../../x.efi"),
    (["loaders", 0], "EFI/BOOT/BOOTX64.EFI"),
    (["pools", 0, "name"], "-f"),
    (["pools", 0, "name"], "other"),
    (["pools", 0, "properties"], {"a b": "c"}),
    (["pools", 0, "features", 0], "x=y"),
    (["pools", 0, "groups", 0, "kind"], "mirror -f"),
    (["pools", 0, "groups", 0, "use"], "-f"),
    (["pools", 0, "groups", 0, "devices"], []),
    (["pools", 0, "groups", 0, "devices", 0], "-f"),
    (["pools", 0, "groups", 0, "devices", 0], "/dev/../etc"),
    (["pools", 0, "bootfs"], "a;b"),
    (["datasets", 1, "name"], "zroot/ROOT@snap"),
    (["datasets", 1, "name"], "zroot/a\x1b[2J"),
    (["datasets", 1, "name"], "zroot/gone/ROOT"),
    (["datasets", 1, "name"], "zroot/home"),
    (["datasets", 1, "properties"], {"mountpoint": "/a/../../etc"}),
    (["datasets", 1, "properties"], {"mountpoint": "a"}),
    (["datasets", 1, "properties"], {"quota": 5}),
    (["datasets", 1, "properties"], {"-o": "x"}),
    (["datasets", 1, "properties"], {"a:b": "\x00"}),
    (["datasets", 1, "properties"], []),
    (["datasets", 1, "mounted"], "/mnt/../etc"),
    (["datasets", 1, "mounted"], "etc"),
    (["datasets", 1, "volume"], "1G"),
    (["datasets", 1, "key"], {"cipher": "x", "form": "other", "place": "prompt"}),
    (["datasets", 1, "clone of"], "no snapshot"),
    (["datasets"], {}),
    (["datasets", 1], "zroot/ROOT"),
]


@pytest.mark.parametrize(("path", "value"), HOSTILE)
def test_what_no_layout_has_is_refused(path, value):
    assert refused(changed(path, value)).startswith("layout.json is no layout")


def test_a_dataset_without_the_one_that_it_is_in_is_refused():
    data = json.loads(form.as_text(LAYOUT, []))
    data["datasets"] = [each for each in data["datasets"] if each["name"] != "zroot/ROOT"]
    assert "zroot/ROOT/default hangs in the air" in refused(json.dumps(data).encode())
