"""Tests of one module each; the directories are those of src/kopiatomic."""

import sys

from support import datasets

# The name by which the tests that have not moved yet import it.
sys.modules["unit.machines"] = datasets
