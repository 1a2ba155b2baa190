import pytest

from flexgnn.core.errors import ConfigError
from flexgnn.core.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        (4096, 4096),
        ("1048576", 2**20),
        ("512MiB", 512 * 2**20),
        ("512 mib", 512 * 2**20),
        (" 2GB ", 2 * 10**9),
        ("1.5KiB", 1536),
        ("3TiB", 3 * 2**40),
        ("7B", 7),
    ],
)
def test_sizes_as_people_write_them(text: str | int, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "MiB", "12 apples", "-1MiB", "1,5GiB", "1e9", "0", "0MiB", 0, -5, True, "0.1B"])
def test_what_is_no_size(text: str | int) -> None:
    with pytest.raises(ConfigError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (512 * 2**20, "512.0 MiB"),
        (-(2**30), "-1.0 GiB"),
        (5 * 2**50, "5120.0 TiB"),
    ],
)
def test_sizes_as_people_read_them(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text
