"""Tests of one module each; the directories are those of src/kopiatomic."""
