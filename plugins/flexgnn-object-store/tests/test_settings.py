"""Places and settings that are not accepted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flexgnn.core.errors import ConfigError, TierError
from flexgnn_object_store import ObjectStoreBackend

OpenTier = Callable[..., ObjectStoreBackend]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "'' is no place"),
        ("bucket/prefix", "name a URL such as s3://bucket/prefix"),
        ("/tmp/flexgnn-1", "no place"),
        ("file:///tmp/x", "no place"),
        ("memory:///x", "no place"),
        ("s3://", "no place"),
        ("s3:///x", "no place"),
        ("ftp://host/x", "no place"),
        ("az://container/x", "Account must be specified"),
    ],
)
def test_a_location_that_is_no_place(open_tier: OpenTier, location: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_tier(location)


@pytest.mark.parametrize("location", ["az://container/x?sig=hidden", "s3://me:hidden@bucket/x", "s3://bucket/x#hidden"])
def test_credentials_in_a_location_are_refused_and_not_repeated(open_tier: OpenTier, location: str) -> None:
    with pytest.raises(ConfigError, match="environment") as raised:
        open_tier(location)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpoint": "localhost:9000"}, "write https://HOST"),
        ({"endpoint": "ftp://localhost"}, "write https://HOST"),
        ({"endpoint": "https://me:hidden@localhost"}, "holds no credentials"),
        ({"endpoint": "http://minio.example.org"}, r"not encrypted.*allow_http=true"),
        ({"allow_http": "perhaps"}, "allow_http=perhaps"),
        ({"endpont": "https://localhost"}, "Did you mean 'endpoint'"),
        ({"secret_access_key": "hidden"}, "no setting 'secret_access_key'"),
    ],
)
def test_settings_that_are_not_accepted(open_tier: OpenTier, settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        open_tier(**settings)
    assert "hidden" not in str(raised.value)


def test_a_region_is_for_s3_alone(open_tier: OpenTier) -> None:
    with pytest.raises(ConfigError, match="leave region=here out"):
        open_tier("gs://bucket/x", region="here")


def test_http_to_another_machine_when_it_is_allowed(open_tier: OpenTier) -> None:
    with pytest.raises(TierError, match=r"http://minio.invalid .*check the"):
        open_tier(endpoint="http://minio.invalid", allow_http="true")
