"""What the tier says when the store fails, or is out of reach."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flexgnn.core.errors import TierError, TierFullError
from flexgnn.testing import assert_same_bits, read_back, sample
from flexgnn_object_store import ObjectStoreBackend

OpenTier = Callable[..., ObjectStoreBackend]
ROWS = sample("float32", (101, 103))


def test_a_missing_bucket(open_tier: OpenTier, endpoint: str) -> None:
    with pytest.raises(TierError, match=rf"can't open s3://absent/x at {endpoint} .*NoSuchBucket.* check the bucket"):
        open_tier("s3://absent/x")


def test_a_bucket_that_vanishes(open_tier: OpenTier, client: Any) -> None:
    client.create_bucket(Bucket="passing")
    tier = open_tier("s3://passing/x")
    tier.put("a", ROWS)
    client.delete_object(Bucket="passing", Key="x/key-a")
    client.delete_bucket(Bucket="passing")
    large = sample("uint8", (6 << 20,))
    for use in (
        lambda: tier.put("b", ROWS),
        lambda: tier.put("b", large),
        lambda: read_back(tier, "a", ROWS),
        lambda: tier.delete("a"),
        lambda: tier.size_bytes("b"),
        lambda: list(tier.keys()),
        tier.clear,
    ):
        with pytest.raises(TierError, match=r"bucket.* s3://passing/x|s3://passing/x.* bucket"):
            use()


def test_credentials_that_are_not_accepted(open_tier: OpenTier, strict_endpoint: str) -> None:
    with pytest.raises(TierError, match=r"can't open .*InvalidAccessKeyId.*check the credentials in the environment"):
        open_tier(endpoint=strict_endpoint)


def test_no_server_at_the_endpoint(open_tier: OpenTier) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(TierError, match=rf"at http://127.0.0.1:{port} \(Connection refused\): check the .* endpoint"):
        open_tier(endpoint=f"http://127.0.0.1:{port}")
    assert time.monotonic() - begin < 30


@pytest.mark.slow
def test_a_server_that_never_answers(open_tier: OpenTier) -> None:
    begin = time.monotonic()
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as server,
        pytest.raises(TierError, match=r"\(no answer in time\): check the .* endpoint"),
    ):
        open_tier(endpoint=f"http://127.0.0.1:{server.getsockname()[1]}")
    assert time.monotonic() - begin < 35


class _Full(BaseHTTPRequestHandler):
    """A store that can be listed and has no room, as MinIO says it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(507, "<Error><Code>XMinioStorageFull</Code><Message>Storage backend is full.</Message></Error>")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def full_endpoint() -> Iterator[str]:
    """A server without room."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Full) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_store_without_room(open_tier: OpenTier, full_endpoint: str) -> None:
    tier = open_tier(endpoint=full_endpoint)
    with pytest.raises(
        TierFullError, match=r"can't write .*key-a at .*StorageFull: Storage backend is full.*free some"
    ):
        tier.put("a", ROWS)
    assert tier.used_bytes == 0


class _CuttingProxy(socketserver.ThreadingTCPServer):
    """Hands connections on to a server, and breaks some of them in the middle of an answer."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.port = port
        self.cuts_left = 0


class _Connection(socketserver.BaseRequestHandler):
    """One connection through the proxy."""

    server: _CuttingProxy

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port)) as far:
            asking = threading.Thread(target=_hand_on, args=(self.request, far))
            asking.start()
            _hand_on(far, self.request, self._is_cut)
            with suppress(OSError):
                self.request.shutdown(socket.SHUT_RDWR)
            asking.join()

    def _is_cut(self, passed_bytes: int) -> bool:
        cut = passed_bytes > 1 << 20 and self.server.cuts_left > 0
        self.server.cuts_left -= cut
        return cut


def _hand_on(source: socket.socket, target: socket.socket, is_cut: Callable[[int], bool] = lambda _: False) -> None:
    """Pass on what ``source`` sends until it ends, or is cut."""
    passed_bytes = 0
    with suppress(OSError):
        while data := source.recv(1 << 16):
            passed_bytes += len(data)
            if is_cut(passed_bytes):
                return
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_connections_that_break_are_made_again(open_tier: OpenTier, endpoint: str) -> None:
    array = sample("float32", (16 << 10, 256))
    with _CuttingProxy(int(endpoint.rpartition(":")[2])) as proxy:
        serving = threading.Thread(target=proxy.serve_forever)
        serving.start()
        tier = open_tier(endpoint=f"http://127.0.0.1:{proxy.server_address[1]}")
        tier.put("a", array)
        proxy.cuts_left = 3
        assert_same_bits(read_back(tier, "a", array), array)
        assert proxy.cuts_left == 0
        proxy.shutdown()
        serving.join()
