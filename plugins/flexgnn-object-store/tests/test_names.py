"""Names of objects."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from flexgnn_object_store.names import is_hashed, named_key, object_name

KEYS = st.text(st.characters(exclude_categories=()), min_size=1, max_size=200)


@given(KEYS)
def test_a_name_is_safe_in_every_store_and_tells_the_key_or_is_hashed(key: str) -> None:
    name = object_name(key)
    assert re.fullmatch(r"(key|hash)-[A-Za-z0-9._!-]{1,200}", name)
    assert named_key(name) == (None if is_hashed(name) else key)


@given(st.lists(KEYS | st.text("ab!/2f", min_size=1, max_size=5), unique=True))
def test_no_two_keys_share_a_name(keys: list[str]) -> None:
    assert len(set(map(object_name, keys))) == len(keys)


def test_what_others_may_have_put_there_is_no_key() -> None:
    for name in ("", "key-", "other", "a/key-b", "key-a/b", "key-!2F", "key-!61", "key-!ff", "key-a!", "key-ä", "hash"):
        assert named_key(name) is None, name
        assert not is_hashed(name), name
    assert not is_hashed("hash-a/b")
