"""The files of the ``direct-io`` backend: one block of header, then the tensor, padded with zeros to whole blocks.

The header is a magic, the version of this layout, the length and CRC-32 of a JSON text, that text (key, dtype and
shape), and zeros.
"""

from __future__ import annotations

import json
import struct
import zlib

from flexgnn.core.tier import Blob
from flexgnn_direct_io.access import BLOCK_BYTES

BODY_OFFSET = BLOCK_BYTES
"""Where in its file a tensor begins."""

_MAGIC, _VERSION = b"FLEXGNND", 1
_PREFIX = struct.Struct("<8sIII")


def padded(size_bytes: int) -> int:
    """``size_bytes`` rounded up to whole blocks."""
    return size_bytes + -size_bytes % BLOCK_BYTES


def pack_header(key: str, blob: Blob) -> bytes:
    """The first block of the file of ``blob``."""
    text = json.dumps({"key": key, **blob.to_json()}, separators=(",", ":")).encode()
    return (_PREFIX.pack(_MAGIC, _VERSION, len(text), zlib.crc32(text)) + text).ljust(BLOCK_BYTES, b"\0")


def unpack_header(header: bytes) -> tuple[str, Blob]:
    """The key and the blob that :func:`pack_header` got.

    Raises:
        ValueError: if ``header`` is anything else.
    """
    if len(header) != BLOCK_BYTES:
        raise ValueError(f"a header has {BLOCK_BYTES} bytes, not {len(header)}")
    magic, version, length, checksum = _PREFIX.unpack_from(header)
    text = header[_PREFIX.size : _PREFIX.size + length]
    if (magic, version, len(text), zlib.crc32(text)) != (_MAGIC, _VERSION, length, checksum):
        raise ValueError("not a header of this layout")
    values = json.loads(text)
    return values["key"], Blob.from_json(values)
