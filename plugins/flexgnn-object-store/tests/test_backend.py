"""The contract of tiers, and what lies in the bucket."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from flexgnn.core.plugins import load_plugins
from flexgnn.testing import TierBackendTests, assert_same_bits, read_back, sample
from flexgnn_object_store import ObjectStoreBackend

OpenTier = Callable[..., ObjectStoreBackend]
ROWS = sample("float32", (101, 103))


class TestObjectStoreBackend(TierBackendTests):
    backend = ObjectStoreBackend
    # The server reads a whole object for each range of it.
    large_blob_bytes = 128 << 20
    num_examples = 15
    settle_seconds = 0.5

    @pytest.fixture(autouse=True)
    def _on_the_server(self, endpoint: str) -> None:
        type(self).settings = {"endpoint": endpoint}

    @pytest.fixture
    def location(self, bucket: str, prefix: str) -> str:
        return f"s3://{bucket}/{prefix}"


def test_the_backend_is_found_by_name() -> None:
    assert load_plugins().tier_backend("object-store") is ObjectStoreBackend


def test_an_object_holds_the_bytes_of_the_tensor_alone(
    open_tier: OpenTier, client: Any, bucket: str, prefix: str
) -> None:
    tier = open_tier()
    tier.put("layer 1/S", ROWS)
    address = tier.where("layer 1/S")
    assert address == f"s3://{bucket}/{prefix}/key-layer!201!2fS"
    body = client.get_object(Bucket=bucket, Key=address.removeprefix(f"s3://{bucket}/"))["Body"].read()
    assert body == ROWS.tobytes()


def test_nothing_is_written_outside_the_prefix(
    open_tier: OpenTier, object_names: Callable[..., list[str]], prefix: str
) -> None:
    before = object_names()
    tier = open_tier()
    for key in ("../x", "/x", "..", ".", "//", "a/../../b", "x" * 200, "\udcff", "?a=b#c", "節" * 200, "\r\n"):
        tier.put(key, ROWS)
    added = set(object_names()) - set(before)
    assert len(added) == 11
    for name in added:
        assert name.startswith(f"{prefix}/")
        assert "/" not in name.removeprefix(f"{prefix}/")


def test_other_objects_are_neither_listed_nor_cleared(
    open_tier: OpenTier, client: Any, object_names: Callable[..., list[str]], bucket: str, prefix: str
) -> None:
    names = [f"{prefix}/notes.txt", f"{prefix}/below/key-a", f"{prefix}/key-!zz", f"{prefix}-2/key-a"]
    for name in names:
        client.put_object(Bucket=bucket, Key=name, Body=b"?")
    tier = open_tier()
    tier.put("a", ROWS)
    assert list(tier.keys()) == ["a"]
    tier.clear()
    assert sorted(object_names(prefix)) == sorted(names)


def test_a_place_with_a_slash_at_its_end(
    open_tier: OpenTier, object_names: Callable[..., list[str]], bucket: str
) -> None:
    tier = open_tier(f"s3://{bucket}/ends/here/")
    tier.put("a", ROWS)
    assert tier.where("a") == f"s3://{bucket}/ends/here/key-a"
    assert object_names("ends") == ["ends/here/key-a"]
    tier.clear()


def test_more_blobs_than_a_store_lists_or_deletes_at_once(
    open_tier: OpenTier, object_names: Callable[..., list[str]], prefix: str
) -> None:
    tier = open_tier()
    keys = [f"{number:04}" for number in range(1003)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: tier.put(key, ROWS[:1]), keys))
    other = open_tier()
    assert sorted(other.keys()) == keys
    tier.clear()
    assert object_names(prefix) == []


def test_clear_settles_the_account(open_tier: OpenTier) -> None:
    tier = open_tier()
    tier.clear()
    for key in ("a", "b" * 200):
        tier.put(key, ROWS)
    assert tier.used_bytes == 2 * ROWS.nbytes
    tier.clear()
    assert (tier.used_bytes, tier.peak_bytes) == (0, 2 * ROWS.nbytes)
    with pytest.raises(KeyError):
        tier.size_bytes("a")
    tier.put("a", ROWS[:1])
    assert tier.used_bytes == ROWS[:1].nbytes
    assert_same_bits(read_back(tier, "a", ROWS[:1]), ROWS[:1])


@pytest.mark.parametrize("size_bytes", [(5 << 20) - 1, 5 << 20, (5 << 20) + 1, 10 << 20, (11 << 20) + 1])
def test_sizes_about_a_piece(open_tier: OpenTier, size_bytes: int) -> None:
    array = sample("uint8", (size_bytes,))
    open_tier().put("a", array)
    tier = open_tier()
    assert_same_bits(read_back(tier, "a", array), array)
    out = np.empty(size_bytes - 3, dtype=np.uint8)
    tier.get_rows("a", 2, out)
    assert_same_bits(out, array[2:-1])
