"""How a tensor goes between a caller's memory and its file: straight where alignments allow it, else in copies."""

from __future__ import annotations

import numpy as np

from flexgnn.core.tier import Array
from flexgnn_direct_io.access import BLOCK_BYTES
from flexgnn_direct_io.blob_file import BlobFile
from flexgnn_direct_io.layout import padded


def address(buffer: Array) -> int:
    """Where in memory ``buffer`` begins."""
    return int(buffer.ctypes.data)


def write_body(file: BlobFile, header: bytes, body: Array, spare: Array) -> None:
    """Write ``header``, one block, and ``body``, uint8 of any alignment, to the beginning of ``file``.

    Args:
        spare: page-aligned uint8, whole blocks, two or more, for what can't go straight.
    """
    spare[:BLOCK_BYTES] = np.frombuffer(header, dtype=np.uint8)
    if address(body) % file.access.memory_bytes == 0:
        whole = len(body) - len(body) % BLOCK_BYTES
        end = _put_padded(spare, BLOCK_BYTES, body[whole:])
        parts = (spare[:BLOCK_BYTES], body[:whole], spare[BLOCK_BYTES:end])
        file.write([part for part in parts if len(part)], 0)
        return
    used, done, offset = BLOCK_BYTES, 0, 0
    while used or done < len(body):
        piece = body[done : done + len(spare) - used]
        end = _put_padded(spare, used, piece)
        file.write([spare[:end]], offset)
        used, done, offset = 0, done + len(piece), offset + end


def read_body(file: BlobFile, offset: int, body: Array, spare: Array) -> bool:
    """Fill ``body``, uint8 of any alignment, with the bytes of ``file`` from ``offset`` on.

    Args:
        spare: as for :func:`write_body`.

    Returns:
        Whether the file was long enough.
    """
    block = file.access.block_bytes
    end = offset + len(body)
    first, last = offset + -offset % block, end - end % block
    if first < last and (address(body) + first - offset) % file.access.memory_bytes == 0:
        return _read_straight(file, offset, body, spare)
    begin = offset - offset % block
    while begin < end:
        piece = spare[: min(len(spare), padded(end - begin))]
        start, stop = max(offset, begin), min(end, begin + len(piece))
        if file.read([piece], begin) < stop - begin:
            return False
        body[start - offset : stop - offset] = piece[start - begin : stop - begin]
        begin += len(piece)
    return True


def _read_straight(file: BlobFile, offset: int, body: Array, spare: Array) -> bool:
    """As :func:`read_body`, in one go: whole blocks into ``body``, blocks at its ends that it covers in part beside."""
    block = file.access.block_bytes
    head = -offset % block  # bytes of the body before the first whole block
    tail = (len(body) - head) % block
    before, behind = (block if head else 0), (block if tail else 0)
    parts = (spare[:before], body[head : len(body) - tail], spare[before : before + behind])
    begin = offset + head - before
    if file.read([part for part in parts if len(part)], begin) < offset + len(body) - begin:
        return False
    if head:
        body[:head] = spare[before - head : before]
    if tail:
        body[len(body) - tail :] = spare[before : before + tail]
    return True


def _put_padded(spare: Array, begin: int, piece: Array) -> int:
    """Copy ``piece`` to ``spare`` from ``begin`` on, and zeros up to a whole block. Returns where that ends."""
    stop = begin + len(piece)
    end = padded(stop)
    np.copyto(spare[begin:stop], piece)
    spare[stop:end] = 0
    return end
