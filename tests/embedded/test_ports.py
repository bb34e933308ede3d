"""Ports: free, different, and the same again after a restart."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from goatherd.embedded._ports import MEMORY, Ports, any_free, why_not


def test_a_part_gets_the_port_it_had_last_time(tmp_path: Path) -> None:
    port = Ports(tmp_path).pick("store")
    assert Ports(tmp_path).pick("store") == port


def test_a_port_that_was_taken_meanwhile_is_replaced_and_the_new_one_remembered(tmp_path: Path) -> None:
    port = Ports(tmp_path).pick("store")
    with socket.create_server(("127.0.0.1", port)):
        other = Ports(tmp_path).pick("store")
    assert other != port
    assert Ports(tmp_path).pick("store") == other


def test_the_usual_port_is_taken_only_if_it_is_free(tmp_path: Path) -> None:
    usual = any_free()
    with socket.create_server(("127.0.0.1", usual)):
        assert Ports(tmp_path).pick("a", usual=usual) != usual
    (tmp_path / MEMORY).unlink()
    assert Ports(tmp_path).pick("a", usual=usual) == usual


def test_two_parts_never_get_the_same_port(tmp_path: Path) -> None:
    ports, usual = Ports(tmp_path), any_free()
    assert len({ports.pick(part, usual=usual) for part in "abcd"}) == 4


def test_a_forgotten_port_is_not_asked_for_again(tmp_path: Path) -> None:
    ports = Ports(tmp_path)
    port = ports.pick("store")
    ports.forget("store")
    assert ports.pick("store") != port


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"store": "x", "ui": 0, "api": 99999}', "\x00"])
def test_a_memory_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / MEMORY).write_text(text)
    assert 0 < Ports(tmp_path).pick("store") < 65_536


def test_why_a_port_cannot_be_used_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert why_not("127.0.0.1", server.getsockname()[1]) == "Address already in use"
    assert why_not("127.0.0.1", any_free()) is None
    assert why_not("192.0.2.1", 8080) == "Cannot assign requested address"
