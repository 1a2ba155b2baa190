"""The ``object-store`` backend of FlexGNN: tensors in S3-compatible storage, one object a blob."""

from __future__ import annotations

from flexgnn.core.hookspecs import hookimpl
from flexgnn.core.tier import TierBackend
from flexgnn_object_store.backend import ObjectStoreBackend
from flexgnn_object_store.connection import ObjectStoreSettings

__all__ = ["ObjectStoreBackend", "ObjectStoreSettings"]


@hookimpl
def flexgnn_list_tier_backends() -> list[type[TierBackend]]:
    """The backend of this package."""
    return [ObjectStoreBackend]
