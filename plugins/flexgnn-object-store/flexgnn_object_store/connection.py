"""The connection to a store: what users can set, and how long it is tried."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore import parse_scheme
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from flexgnn.core.errors import ConfigError
from flexgnn_object_store.failures import reason_of

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, ObjectStore, RetryConfig, S3Config

# No request is tried again after 15 s, and none waits longer than 12 s for a byte: one that stalls gets a second try,
# and a dead endpoint is told of within half a minute.
_RETRIES: RetryConfig = {
    "max_retries": 10,
    "retry_timeout": timedelta(seconds=15),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
}
_CONNECT_TIMEOUT = timedelta(seconds=5)
_READ_TIMEOUT = timedelta(seconds=12)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class ObjectStoreSettings:
    """Settings of the ``object-store`` backend. Credentials are none: they come from the environment."""

    endpoint: str | None = None
    """URL of the service, such as ``https://minio.example.org:9000``; None: that of the provider."""
    region: str | None = None
    """Of the bucket; None: ``AWS_REGION``, else ``us-east-1``. Only S3 has regions."""
    allow_http: bool = False
    """Whether an endpoint on another machine may be ``http://``, without encryption."""


def connect(location: str, settings: ObjectStoreSettings) -> ObjectStore:
    """The store below ``location``, a URL. Nothing is sent yet.

    Raises:
        ConfigError: if ``location`` is no URL of an object store, or does not go with ``settings``.
    """
    provider = _provider(location)
    options = _client_options(settings)
    endpoint = settings.endpoint
    if settings.region is not None and provider != "s3":
        raise ConfigError(f"{location} has no region, which is for s3:// alone: leave region={settings.region} out.")
    try:
        if provider == "gcs":
            gcs: GCSConfig = {"base_url": endpoint} if endpoint else {}
            return GCSStore.from_url(location, config=gcs, client_options=options, retry_config=_RETRIES)
        if provider == "azure":
            azure: AzureConfig = {"endpoint": endpoint} if endpoint else {}
            return AzureStore.from_url(location, config=azure, client_options=options, retry_config=_RETRIES)
        s3: S3Config = {"endpoint": endpoint} if endpoint else {}
        if settings.region is not None:
            s3["region"] = settings.region
        return S3Store.from_url(location, config=s3, client_options=options, retry_config=_RETRIES)
    except (BaseError, ValueError) as error:
        raise ConfigError(
            f"The object-store tier can't use {location} ({reason_of(error)}): "
            "check the URL, the settings and the variables of the environment for this provider."
        ) from error


def _provider(location: str) -> str:
    """``s3``, ``gcs`` or ``azure``."""
    parts = urlsplit(location)
    if parts.query or parts.fragment or parts.password:
        raise ConfigError(
            "The location of an object-store tier is a URL without ? # or a password: credentials would be recorded, "
            "so give them in the environment."
        )
    try:
        provider = parse_scheme(location)
    except (BaseError, ValueError):
        provider = None
    if provider not in ("s3", "gcs", "azure"):
        raise ConfigError(
            f"{location!r} is no place for an object-store tier: name a URL such as s3://bucket/prefix, "
            "gs://bucket/prefix or az://container/prefix."
        )
    return provider


def _client_options(settings: ObjectStoreSettings) -> ClientConfig:
    options: ClientConfig = {"connect_timeout": _CONNECT_TIMEOUT, "read_timeout": _READ_TIMEOUT}
    parts = urlsplit(settings.endpoint or "")
    if parts.username or parts.password:
        raise ConfigError("The endpoint of an object-store tier holds no credentials: give them in the environment.")
    if settings.endpoint is not None and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ConfigError(f"endpoint={settings.endpoint} is not accepted: write https://HOST[:PORT].")
    if parts.scheme == "http" and not settings.allow_http and parts.hostname not in _LOOPBACK:
        raise ConfigError(
            f"endpoint={settings.endpoint} is not encrypted: anyone on the way could read and change tensors; "
            "use https, or set allow_http=true."
        )
    if settings.allow_http or parts.scheme == "http":
        options["allow_http"] = True
    return options
