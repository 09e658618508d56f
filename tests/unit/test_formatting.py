"""Times, sizes and tables as people read them."""

import pytest

from kopiatomic import formatting

HOUR, DAY = 3600.0, 86400.0


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (-DAY, "in the future"), (-5, "just now"), (59, "just now"), (60, "1 min"),
        (3599, "59 min"), (7.5 * HOUR, "7 h"), (24 * HOUR, "1 d"), (51 * HOUR, "2 d 3 h"),
    ],
)  # fmt: skip
def test_age(seconds, says):
    assert formatting.age(seconds) == says
