"""Objects that are not what was put: each is found out, at the latest when the tier is opened again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flexgnn.core.errors import DamagedBlobError
from flexgnn.testing import assert_same_bits, read_back, sample
from flexgnn_object_store import ObjectStoreBackend

OpenTier = Callable[..., ObjectStoreBackend]
ROWS = sample("float32", (101, 103))


def other_bytes(found: dict[str, Any], body: bytes) -> dict[str, Any]:
    return {"Body": body[::-1]}


def other_bytes_with_the_metadata(found: dict[str, Any], body: bytes) -> dict[str, Any]:
    return {"Body": body[::-1], "Metadata": found["Metadata"]}


def cut_short(found: dict[str, Any], body: bytes) -> dict[str, Any]:
    return {"Body": body[:-1], "Metadata": found["Metadata"]}


def made_longer(found: dict[str, Any], body: bytes) -> dict[str, Any]:
    return {"Body": body + b"?", "Metadata": found["Metadata"]}


def emptied(found: dict[str, Any], body: bytes) -> dict[str, Any]:
    return {"Body": b"", "Metadata": found["Metadata"]}


def metadata_of_another_key(found: dict[str, Any], body: bytes) -> dict[str, Any]:
    values = json.loads(found["Metadata"]["flexgnn"])
    return {"Body": body, "Metadata": {"flexgnn": json.dumps({**values, "key": "eA=="})}}


def metadata_of_no_tensor(found: dict[str, Any], body: bytes) -> dict[str, Any]:
    values = json.loads(found["Metadata"]["flexgnn"])
    return {"Body": body, "Metadata": {"flexgnn": json.dumps({**values, "dtype": "O"})}}


def metadata_that_is_no_json(found: dict[str, Any], body: bytes) -> dict[str, Any]:
    return {"Body": body, "Metadata": {"flexgnn": "{"}}


BODIES = [other_bytes, cut_short, made_longer, emptied]
METADATA = [metadata_of_another_key, metadata_of_no_tensor, metadata_that_is_no_json]


def damage(client: Any, bucket: str, name: str, harm: Callable[..., dict[str, Any]]) -> None:
    found = client.get_object(Bucket=bucket, Key=name)
    client.put_object(Bucket=bucket, Key=name, **harm(found, found["Body"].read()))


@pytest.mark.parametrize("harm", [*BODIES, other_bytes_with_the_metadata])
def test_an_object_that_is_damaged_while_the_tier_is_open(
    open_tier: OpenTier, client: Any, bucket: str, prefix: str, harm: Callable[..., dict[str, Any]]
) -> None:
    tier = open_tier()
    tier.put("a", ROWS)
    damage(client, bucket, f"{prefix}/key-a", harm)
    out = np.empty_like(ROWS[:3])
    for read in (lambda: tier.get_rows("a", 5, out), lambda: read_back(tier, "a", ROWS)):
        with pytest.raises(DamagedBlobError, match=f"s3://{bucket}/{prefix}/key-a .* run again"):
            read()
    tier.put("a", ROWS)
    assert_same_bits(read_back(tier, "a", ROWS), ROWS)


@pytest.mark.parametrize("key", ["a", "a" * 200])
@pytest.mark.parametrize("harm", [*BODIES, *METADATA])
def test_an_object_that_is_damaged_before_the_tier_is_opened(
    open_tier: OpenTier,
    client: Any,
    bucket: str,
    object_names: Callable[..., list[str]],
    prefix: str,
    key: str,
    harm: Callable[..., dict[str, Any]],
) -> None:
    open_tier().put(key, ROWS)
    (name,) = object_names(prefix)
    damage(client, bucket, name, harm)
    tier = open_tier()
    for read in (lambda: tier.size_bytes(key), lambda: read_back(tier, key, ROWS)):
        with pytest.raises(DamagedBlobError, match="run again"):
            read()
    tier.clear()
    assert object_names(prefix) == []


def test_an_object_that_is_damaged_in_a_large_blob(open_tier: OpenTier, client: Any, bucket: str, prefix: str) -> None:
    array = sample("float32", (24 << 10, 256))
    tier = open_tier()
    tier.put("a", array)
    damage(client, bucket, f"{prefix}/key-a", other_bytes_with_the_metadata)
    with pytest.raises(DamagedBlobError):
        read_back(tier, "a", array)


def test_an_object_that_was_deleted_by_others(open_tier: OpenTier, client: Any, bucket: str, prefix: str) -> None:
    tier = open_tier()
    tier.put("a", ROWS)
    client.delete_object(Bucket=bucket, Key=f"{prefix}/key-a")
    with pytest.raises(KeyError):
        read_back(tier, "a", ROWS)
    with pytest.raises(KeyError):
        tier.delete("a")
