from __future__ import annotations

import socket
from pathlib import Path

import pytest

from extauthz.errors import ConfigError
from extauthz.serving.listen import (
    MAX_UNIX_PATH_BYTES,
    ListenAddress,
    ListenError,
    may_collide,
    read_listen_address,
    remove_stale_socket,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:9001", ListenAddress(host="0.0.0.0", port=9001)),
        ("localhost:0", ListenAddress(host="localhost", port=0)),
        ("[::1]:65535", ListenAddress(host="::1", port=65535)),
        ("unix:/run/extauthz.sock", ListenAddress(path="/run/extauthz.sock")),
    ],
)
def test_reads_what_it_writes(text: str, address: ListenAddress) -> None:
    assert read_listen_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "write host:port"),
        (":9001", "write host:port"),
        ("9001", "write host:port"),
        ("[]:9001", "write host:port"),
        ("::1:9001", "in brackets"),
        ("localhost:", "port must be a number"),
        ("localhost:http", "port must be a number"),
        ("localhost:-1", "port must be a number"),
        ("localhost:65536", "port must be a number"),
        ("localhost:٣", "port must be a number"),
        ("unix:", "whole path"),
        ("unix:relative.sock", "whole path"),
        ("unix:/a\0b", "whole path"),
        ("unix:/" + "x" * MAX_UNIX_PATH_BYTES, "107 bytes"),
    ],
)
def test_refuses_what_is_no_address(text: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        read_listen_address(text)


def test_removes_a_socket_nobody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    remove_stale_socket(str(path))
    assert not path.exists()


def test_a_missing_socket_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "s"
    remove_stale_socket(str(path))
    assert not path.exists()


def test_keeps_a_socket_that_somebody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(ListenError, match="another process"):
            remove_stale_socket(str(path))
    assert path.exists()


def test_keeps_a_socket_whose_backlog_is_full(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as waiting:
        listening.bind(str(path))
        listening.listen(0)
        waiting.connect(str(path))
        with pytest.raises(ListenError, match="another process"):
            remove_stale_socket(str(path))
    assert path.exists()


def test_keeps_a_file_that_is_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ListenError, match="no socket"):
        remove_stale_socket(str(path))
    assert path.read_text() == "precious"


def test_says_why_a_socket_cannot_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ListenError, match="Not a directory"):
        remove_stale_socket(str(tmp_path / "file" / "s"))


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        ("127.0.0.1:9001", "127.0.0.1:9001", True),
        ("127.0.0.1:9001", "127.0.0.1:09001", True),
        ("127.0.0.1:9001", "127.0.0.1:9002", False),
        ("127.0.0.1:9001", "127.0.0.2:9001", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("0.0.0.0:9001", "127.0.0.1:9001", True),
        ("0.0.0.0:9001", "[::]:9001", True),
        ("0.0.0.0:9001", "[::1]:9001", False),
        ("0.0.0.0:9001", "some.host:9001", True),
        ("[::]:9001", "127.0.0.1:9001", True),
        ("[::]:9001", "[::1]:9001", True),
        ("[::]:9001", "some.host:9001", True),
        ("[::1]:9001", "127.0.0.1:9001", False),
        ("[::1]:9001", "[0:0:0::0:1]:9001", True),
        ("[::ffff:127.0.0.1]:9001", "127.0.0.1:9001", True),
        ("[::ffff:0.0.0.0]:9001", "127.0.0.1:9001", True),
        ("localhost:9001", "127.0.0.1:9001", True),
        ("LocalHost.:9001", "[::1]:9001", True),
        ("localhost:9001", "127.0.0.2:9001", False),
        ("127.1:9001", "127.0.0.1:9001", True),
        ("0:9001", "192.0.2.1:9001", True),
        ("some.host:9001", "Some.Host.:9001", True),
        ("some.host:9001", "other.host:9001", False),
        ("some.host:9001", "127.0.0.1:9001", False),
        ("unix:/run/a", "unix:/run/a", True),
        ("unix:/run/a", "unix:/run//./b/../a", True),
        ("unix:/run/a", "unix:/run/b", False),
        ("unix:/run/a", "127.0.0.1:9001", False),
    ],
)
def test_knows_which_two_listeners_cannot_both_be_opened(
    one: str, other: str, *, collide: bool
) -> None:
    first, second = read_listen_address(one), read_listen_address(other)
    assert may_collide(first, second) is may_collide(second, first) is collide


def test_two_names_of_one_socket_collide(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to(tmp_path / "run")
    one, other = (read_listen_address(f"unix:{tmp_path}/{name}/a") for name in ("run", "var"))
    assert may_collide(one, other)
