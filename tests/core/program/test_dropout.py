"""Masks drawn by counter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flexgnn.core.program.dropout import draw, dropout, dropout_
from flexgnn.core.program.row_context import RowContext


def rows(start=0, seed=0, epoch=1, training=True):
    return RowContext(start=start, seed=seed, epoch=epoch, training=training)


@pytest.mark.parametrize(
    ("counter", "site", "key", "expected"),
    [
        (0, 0, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (0x85A308D3243F6A88, None, None, None),
    ],
)
def test_philox_known_answers(counter, site, key, expected):
    """From the known-answer tests of Random123 (Salmon et al. 2011), and against a plain transcription."""
    if expected is None:
        site, key = 0x03707344, (0xA4093822, 0x299F31D0)
        expected = philox((counter & 0xFFFFFFFF, counter >> 32, 0, site), key)
    words = np.empty(4, dtype=np.uint32)
    draw(np.uint64(counter), 1, np.uint32(0), np.uint32(site), np.uint32(key[0]), np.uint32(key[1]), words)
    assert words.tolist() == expected


def philox(counter, key):
    c, k, low = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & low, (a >> 32) ^ c[3] ^ k[1], a & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


@pytest.mark.parametrize("width", [1, 7, 47, 128, 5000])
@pytest.mark.parametrize("tile", [1, 3, 64])
def test_mask_does_not_depend_on_the_tile(width, tile):
    x = torch.ones(65, width)
    whole = dropout(x, 0.3, 2, rows(start=1000))
    tiles = [dropout(x[s : s + tile], 0.3, 2, rows(start=1000 + s)) for s in range(0, 65, tile)]
    assert torch.equal(torch.cat(tiles), whole)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_scale(p):
    x = torch.full((2000, 100), 3.0)
    out = dropout(x, p, 0, rows())
    kept = out != 0
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(kept.float().mean().item() - (1 - p)) < 5 * deviation
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 3 / (1 - p)))
    # No row and no column stands out.
    assert (kept.float().mean(0) - (1 - p)).abs().max() < 5 * (p * (1 - p) / 2000) ** 0.5
    assert (kept.float().mean(1) - (1 - p)).abs().max() < 6 * (p * (1 - p) / 100) ** 0.5


def test_masks_differ_by_seed_epoch_site_and_row_and_repeat():
    x = torch.ones(50, 40)
    first = dropout(x, 0.5, 0, rows())
    assert torch.equal(dropout(x, 0.5, 0, rows()), first)
    others = [
        dropout(x, 0.5, 0, rows(seed=1)),
        dropout(x, 0.5, 0, rows(epoch=2)),
        dropout(x, 0.5, 1, rows()),
        dropout(x, 0.5, 0, rows(start=50)),
        dropout(x, 0.5, 0, rows(start=2**31)),
    ]
    for other in others:
        assert 0.4 < ((other != 0) == (first != 0)).float().mean() < 0.6


def test_it_is_its_own_derivative():
    mask = dropout(torch.ones(30, 20), 0.25, 3, rows(start=7))
    gradient = torch.randn(30, 20)
    torch.testing.assert_close(dropout(gradient, 0.25, 3, rows(start=7)), gradient * mask)
    in_place = gradient.clone()
    assert dropout_(in_place, 0.25, 3, rows(start=7)) is in_place
    assert torch.equal(in_place, dropout(gradient, 0.25, 3, rows(start=7)))


def test_the_ends():
    x = torch.randn(4, 3)
    assert dropout(x, 0.5, 0, rows(training=False)) is x
    assert torch.equal(dropout(x, 1.0, 0, rows()), torch.zeros(4, 3))
    assert dropout(torch.empty(0, 3), 0.5, 0, rows()).shape == (0, 3)


def test_inputs_that_are_not_contiguous_or_have_more_dimensions():
    x = torch.randn(6, 4).t()
    assert torch.equal(dropout(x, 0.5, 0, rows()), dropout(x.contiguous(), 0.5, 0, rows()))
    cube = torch.randn(5, 3, 2)
    assert torch.equal(dropout(cube, 0.5, 0, rows()), dropout(cube.view(5, 6), 0.5, 0, rows()).view(5, 3, 2))
