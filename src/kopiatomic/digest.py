"""A digest of data: whether something is as it was, without keeping all of it."""

try:
    # hashlib brings OpenSSL with it, 4 MB in each run. random.py of Python does likewise.
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

# The length of a digest, in bytes: two that are alike are of the same data.
SIZE = 16


def digest(data: bytes) -> str:
    """Return the digest of some data, as hexadecimal digits: BLAKE2b of RFC 7693."""
    return blake2b(data, digest_size=SIZE).hexdigest()
