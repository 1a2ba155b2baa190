"""Where FlexGNN keeps what it need not make twice: data sets, and what it measured of the machine."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_directory() -> Path:
    """The directory that the environment variable ``FLEXGNN_CACHE`` names, else one in the user's cache directory."""
    override = os.environ.get("FLEXGNN_CACHE")
    return Path(override) if override else user_cache_path("flexgnn")
