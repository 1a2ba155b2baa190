"""A real S3 server for all tests: moto's, in a process of its own, so that its memory is not the tests'."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest

from flexgnn.core.tier import TierOptions
from flexgnn_object_store import ObjectStoreBackend

BUCKET = "flexgnn-tests"

# It ends with the tests, however they end: its standard input is closed then.
_SERVE = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def _served(**environment: str) -> Iterator[str]:
    """The endpoint of a new server with one empty bucket."""
    command = [sys.executable, "-c", _SERVE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, env={**os.environ, **environment}, **pipes) as server:
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        _client(endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint
        server.kill()


def _client(endpoint: str) -> Any:
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")


@pytest.fixture(scope="session", autouse=True)
def _credentials() -> Iterator[None]:
    """Credentials that a server takes, and nothing else that steers a client."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield


@pytest.fixture(scope="session")
def endpoint(_credentials: None) -> Iterator[str]:
    """A server that takes any credentials."""
    with _served() as endpoint:
        yield endpoint


@pytest.fixture
def strict_endpoint() -> Iterator[str]:
    """A server that knows nobody, from the second request on."""
    with _served(INITIAL_NO_AUTH_ACTION_COUNT="1") as endpoint:
        yield endpoint


@pytest.fixture
def client(endpoint: str) -> Iterator[Any]:
    """Another way to the server, to look at it and to do damage."""
    client = _client(endpoint)
    yield client
    client.close()


@pytest.fixture
def bucket() -> str:
    """The one bucket that there is."""
    return BUCKET


@pytest.fixture
def prefix() -> str:
    """The names below which a test may put objects."""
    return f"scratch/flexgnn-{uuid.uuid4().hex}"


@pytest.fixture
def open_tier(endpoint: str, prefix: str) -> Iterator[Callable[..., ObjectStoreBackend]]:
    """Opens tiers, below the prefix unless told otherwise, and closes them."""
    opened = []

    def open_one(location: str = f"s3://{BUCKET}/{prefix}", **settings: object) -> ObjectStoreBackend:
        opened.append(ObjectStoreBackend(TierOptions(location=location, settings={"endpoint": endpoint, **settings})))
        return opened[-1]

    yield open_one
    for tier in opened:
        tier.close()


@pytest.fixture
def object_names(client: Any) -> Callable[[str], list[str]]:
    """The names of all objects below a prefix, as the server lists them."""

    def listed(prefix: str = "") -> list[str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    return listed
