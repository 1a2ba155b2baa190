"""The threads that tiles run on, each of which computes its products alone.

PyTorch's number of threads is one for the process, but MKL's is one for each thread, and a new thread starts with all
cores until an operator of PyTorch happens to set it: the first products of each thread would be made by several, with
other bits and in the way of the other threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


def tile_pool(threads: int) -> ThreadPoolExecutor:
    """A pool to be used within :func:`single_threaded_products` only."""
    return ThreadPoolExecutor(
        threads, thread_name_prefix="flexgnn-tile", initializer=torch.set_num_threads, initargs=(1,)
    )


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """Meanwhile no product is made by several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
