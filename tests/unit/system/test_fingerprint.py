"""The fingerprint of a volume, and what a comparison with it finds."""

import pytest

from kopiatomic.system import fingerprint
from kopiatomic.system.fingerprint import BLOCK, Compared, Fingerprint

SIZE = 100 * BLOCK + 512


@pytest.fixture
def volume(tmp_path):
    """A file that stands for a device; no two blocks of it are the same."""
    path = tmp_path / "volume"
    path.write_bytes(b"".join(bytes([n]) * BLOCK for n in range(100)) + b"e" * 512)
    return path


def pieces(path, size=100_000):
    data = path.read_bytes()
    return (data[at : at + size] for at in range(0, len(data), size))


class TestTake:
    def test_so_many_blocks_of_all(self, volume):
        taken = fingerprint.take(str(volume), SIZE)
        assert taken.size == SIZE
        assert len(taken.blocks) == fingerprint.CHOSEN
        assert all(0 <= number <= 100 for number in taken.blocks)
        assert fingerprint.take(str(volume), SIZE).blocks != taken.blocks

    def test_all_of_a_small_one(self, tmp_path):
        (tmp_path / "v").write_bytes(b"x" * (2 * BLOCK + 512))
        assert list(fingerprint.take(str(tmp_path / "v"), 2 * BLOCK + 512).blocks) == [0, 1, 2]
        (tmp_path / "v").write_bytes(b"")
        assert fingerprint.take(str(tmp_path / "v"), 0) == Fingerprint(0, {})

    def test_more_of_the_first_part_of_a_large_one(self, tmp_path, monkeypatch):
        """A drill reads no further, as a rule."""
        monkeypatch.setattr(fingerprint, "FIRST", 20 * BLOCK)
        (tmp_path / "v").touch()
        taken = fingerprint.take(str(tmp_path / "v"), 1000 * BLOCK)
        first = [number for number in taken.blocks if number < 20]
        assert len(first) >= fingerprint.MORE
        assert len(taken.blocks) > fingerprint.CHOSEN

    def test_of_what_gives_little_at_a_time(self, volume, monkeypatch):
        whole = fingerprint.take(str(volume), BLOCK)
        read = fingerprint.os.pread
        monkeypatch.setattr(fingerprint.os, "pread", lambda f, n, at: read(f, min(n, 4096), at))
        assert fingerprint.take(str(volume), BLOCK) == whole

    def test_of_what_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            fingerprint.take(str(tmp_path / "none"), BLOCK)


class TestCompare:
    @pytest.mark.parametrize("size", [1, 511, BLOCK, 3 * BLOCK + 1, SIZE + 1])
    def test_however_it_comes(self, volume, size):
        if size == 1:
            volume.write_bytes(volume.read_bytes()[: BLOCK + 512])
        known = fingerprint.take(str(volume), volume.stat().st_size)
        found = fingerprint.compare(pieces(volume, size), known)
        assert found == Compared(volume.stat().st_size, len(known.blocks), ())

    def test_one_bit(self, volume):
        known = fingerprint.take(str(volume), SIZE)
        number = next(iter(known.blocks))
        data = bytearray(volume.read_bytes())
        data[number * BLOCK + 511] ^= 1
        volume.write_bytes(data)
        found = fingerprint.compare(pieces(volume), known)
        assert found == Compared(SIZE, len(known.blocks) - 1, (number,))

    def test_the_end_of_it(self, tmp_path):
        (tmp_path / "v").write_bytes(b"x" * (BLOCK + 512))
        known = fingerprint.take(str(tmp_path / "v"), BLOCK + 512)
        (tmp_path / "v").write_bytes(b"x" * (BLOCK + 511) + b"y")
        assert fingerprint.compare(pieces(tmp_path / "v"), known).different == (1,)

    def test_a_beginning_of_it(self, volume):
        known = fingerprint.take(str(volume), SIZE)
        part = volume.read_bytes()[: 50 * BLOCK + 100]
        within = sum(number < 50 for number in known.blocks)
        assert fingerprint.compare([part], known) == Compared(len(part), within, ())
        assert fingerprint.compare([], known) == Compared(0, 0, ())


class TestHistory:
    def test_there_and_back(self, volume):
        taken = fingerprint.take(str(volume), SIZE)
        assert fingerprint.from_list(SIZE, fingerprint.as_list(taken)) == taken

    @pytest.mark.parametrize("odd", [(None, []), (4096, None), ("4096", [])])
    def test_what_makes_no_sense(self, odd):
        assert fingerprint.from_list(*odd) is None

    def test_what_makes_no_sense_in_it(self):
        assert fingerprint.from_list(4096, ["x:1", 7, "3:abc"]) == Fingerprint(4096, {3: "abc"})
