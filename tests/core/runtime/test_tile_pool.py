from __future__ import annotations

import torch
from torch.nn.functional import linear

from flexgnn.core.runtime.tile_pool import single_threaded_products, tile_pool


def test_the_first_product_of_a_thread_is_that_of_one_thread() -> None:
    torch.manual_seed(0)
    # Of a shape at which the bits that MKL makes depend on how many threads make them.
    rows, weights, bias = torch.randn(11, 5), torch.randn(40, 5), torch.randn(40)
    with single_threaded_products():
        expected = linear(rows, weights, bias)
        for _ in range(10):
            with tile_pool(2) as pool:
                for product in pool.map(lambda _: linear(rows, weights, bias), range(4)):
                    assert torch.equal(product, expected)


def test_the_number_of_threads_is_what_it_was_before() -> None:
    before = torch.get_num_threads()
    with single_threaded_products(), tile_pool(2) as pool:
        assert list(pool.map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
    assert torch.get_num_threads() == before
