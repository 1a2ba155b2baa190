"""Names of objects: safe in every store, and the key in them where it is short enough."""

from __future__ import annotations

import hashlib
import re

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_ESCAPED = re.compile(rb"!([0-9a-f]{2})")
# An object's name has 1024 bytes in S3, and the user's prefix is part of it.
_MAX_CHARACTERS = 200
_NAMED, _HASHED = "key-", "hash-"


def object_name(key: str) -> str:
    """The name of the object for ``key``: without slashes, never ``.`` or ``..``, and different for every key."""
    encoded = key.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if byte in _PLAIN else f"!{byte:02x}" for byte in encoded)
    if len(name) <= _MAX_CHARACTERS:
        return f"{_NAMED}{name}"
    return f"{_HASHED}{hashlib.blake2b(encoded, digest_size=20).hexdigest()}"


def is_hashed(name: str) -> bool:
    """Whether ``name`` is one of :func:`object_name` that does not tell the key."""
    return name.startswith(_HASHED) and "/" not in name


def named_key(name: str) -> str | None:
    """The key that ``name`` spells out; None if it is not a name that :func:`object_name` gives."""
    encoded = name.removeprefix(_NAMED).encode("utf-8", "surrogatepass")
    try:
        key = _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), encoded).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return key if key and object_name(key) == name else None
