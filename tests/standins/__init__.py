"""Tests of the stand-ins in tests/sandbox; the product is not in them."""
