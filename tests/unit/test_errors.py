"""The exit statuses, and what goes with a refusal."""

import os

import pytest

from kopiatomic import errors
from kopiatomic.errors import Refusal

SYSEXITS = [name for name in vars(errors) if name.startswith("EX_")]


@pytest.mark.parametrize("name", SYSEXITS)
def test_the_statuses_are_those_of_sysexits(name):
    assert getattr(errors, name) == getattr(os, name)


def test_periodic_is_told_trouble_where_badconfig_may_be_hidden():
    """periodic.conf(5): a status of 2 is not in the mail where daily_show_badconfig is NO."""
    assert errors.PERIODIC_INFORMATION == 1
    assert errors.PERIODIC_TROUBLE >= 3


def test_a_refusal_is_one_of_usage_unless_it_says_otherwise():
    assert Refusal("leave out -a").status == errors.EX_USAGE
    refusal = Refusal("not root", errors.EX_NOPERM)
    assert (str(refusal), refusal.status) == ("not root", errors.EX_NOPERM)
