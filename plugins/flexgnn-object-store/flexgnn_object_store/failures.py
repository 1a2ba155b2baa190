"""What a store reports, in words: errors of :mod:`obstore` as those of FlexGNN."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError, PreconditionError

from flexgnn.core.errors import DamagedBlobError, TierError, TierFullError

# obstore's text is a line, what the service answered (XML), and a dump of the error below it.
_DUMP = "\n\nDebug source:"
_ANSWER = re.compile(r"<Code>(?P<code>[^<]*)</Code>(?:\s*<Message>(?P<message>[^<]*)</Message>)?")
_BELOW = re.compile(r'\b(?:message|error): "([^"]+)"')
_FILLER = re.compile(r"^Generic \w+ error: ")
_NO_ANSWER = "HTTP error: "
# Not every request that is refused raises PermissionDeniedError.
_REFUSED = re.compile(r"status code: 40[13]\b")
_FULL = ("QuotaExceeded", "StorageFull", "507 Insufficient Storage")


def reason_of(error: Exception) -> str:
    """Why a request failed, in a few words."""
    text, _, dump = str(error).partition(_DUMP)
    answer = _ANSWER.search(text)
    if answer:
        return ": ".join(part.strip().rstrip(".") for part in answer.groups() if part)
    if _NO_ANSWER in text:
        below = _BELOW.search(dump)
        if below:
            return below[1]
        return "no answer in time" if "TimedOut" in dump else text.rpartition(_NO_ANSWER)[2].strip()
    line = next(iter(text.splitlines()), "") or type(error).__name__
    return _FILLER.sub("", line.rpartition(" - ")[2]).rstrip(" .:")


def damaged(url: str) -> DamagedBlobError:
    """The error to raise for an object that is not what was put there."""
    return DamagedBlobError(f"The object-store tier's object {url} is cut short or was replaced: run again.")


@contextmanager
def explained(verb: str, url: str, endpoint: str | None) -> Iterator[None]:
    """Turn what obstore reports into a :class:`TierError`.

    A missing object passes as :class:`FileNotFoundError`; so does a missing bucket, which can look the same.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except PreconditionError as error:
        raise damaged(url) from error
    except (BaseError, OSError) as error:
        reason = reason_of(error)
        kind = TierFullError if any(sign in reason for sign in _FULL) else TierError
        where = f"{url} at {endpoint}" if endpoint else url
        raise kind(f"The object-store tier can't {verb} {where} ({reason}): {_advice(error, kind)}.") from error


def _advice(error: Exception, kind: type[TierError]) -> str:
    if kind is TierFullError:
        return "free some space there, or name another place"
    if _REFUSED.search(str(error).partition(_DUMP)[0]):
        return "check the credentials in the environment, what they permit, and the region"
    return "check the bucket, the endpoint, the region and the credentials in the environment"
