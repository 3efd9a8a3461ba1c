from __future__ import annotations

import socket
from pathlib import Path

import pytest

from extauthz.errors import ConfigError
from extauthz.serving.listen import (
    MAX_UNIX_PATH_BYTES,
    ListenAddress,
    ListenError,
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
