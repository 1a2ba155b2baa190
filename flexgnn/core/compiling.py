"""Kernels: Python functions that Numba compiles for the processor at hand, once, and keeps on disk.

They are kept beside the module that they are in, as Python keeps its own; where that can't be written, in FlexGNN's
cache directory; where that can't be either, not at all. ``NUMBA_CACHE_DIR`` names another place before all of these.
Numba knows a kernel again by the source of its module, the types of its arguments and the processor; not by what it
takes from other modules: ``make kernels`` throws all of them away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numba

from flexgnn.core.cache import cache_directory

_settings: Any = numba.config
"""Made when Numba is imported, from the environment."""

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[Function], Function]:
    """A decorator: the function is compiled when it is first called, and runs without the GIL.

    Args:
        options: further ones of ``numba.njit``.
    """

    def compile_later(function: Function) -> Function:
        with _cache_for(function):
            try:
                kernel: Function = numba.njit(nogil=True, cache=True, **options)(function)
            except RuntimeError:  # no place can be written
                kernel = numba.njit(nogil=True, **options)(function)
        return kernel

    return compile_later


@contextmanager
def _cache_for(function: Callable[..., Any]) -> Iterator[None]:
    """Let Numba choose a place for what it keeps of ``function``, FlexGNN's cache directory before its own.

    The place is chosen when a function is decorated, and stays.
    """
    named, beside = _settings.CACHE_DIR, os.path.dirname(function.__code__.co_filename)
    if not named and not os.access(beside, os.W_OK):
        _settings.CACHE_DIR = str(cache_directory() / "kernels")
    try:
        yield
    finally:
        _settings.CACHE_DIR = named
