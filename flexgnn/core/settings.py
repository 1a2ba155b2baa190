"""Settings of a backend: the fields of a dataclass, given as text on the command line or as values in Python."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from flexgnn.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """Settings of a backend that has none."""


def parse_settings(backend: str, kind: type, given: Mapping[str, Any]) -> Any:
    """An instance of the dataclass ``kind``, from values or their text.

    Raises:
        ConfigError: if a setting is unknown or not accepted; ``backend`` is named in the message.
    """
    known = [field.name for field in fields(kind)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            guess = f" Did you mean {close[0]!r}?" if close else ""
            there = f"there are: {', '.join(known)}" if known else "it has none"
            raise ConfigError(f"The backend {backend!r} has no setting {name!r}; {there}.{guess}")
    try:
        return TypeAdapter(with_config(ConfigDict(arbitrary_types_allowed=True))(kind)).validate_python(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"The setting {place}={first['input']!s} of the backend {backend!r} is not accepted: {first['msg']}."
        ) from error
