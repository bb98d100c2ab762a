"""Where etcd's users are asked for, the gateway tells nobody what keys hold who has no token: on a real node."""

import contextlib
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest

from actors.kv.proto import etcd_pb2 as pb
from node.gateway.guard import Users
from tests.actors.kv.test_serving import Grpc
from tests.node.test_up import RealNode, answering


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RealNode]:
    with answering(tmp_path / "data", "--etcd", "bcrypt-cost=4") as made:
        yield made


def status(node: RealNode, path: str, token: str = "") -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{node.gateway}{path}", headers=headers), timeout=10
        ) as got:
            return int(got.status)
    except HTTPError as error:
        error.close()
        return error.code


def test_what_keys_hold_is_read_without_a_token_only_while_no_users_are_asked_for(node: RealNode) -> None:
    token = (node.data / "token").read_text().split()[0]
    node.keys("/secret", "x")
    paths = ("/v1/log", "/v1/kv/secret", "/v1/history/secret", "/v1/diff?from=0")
    etcd = Grpc(f"127.0.0.1:{node.etcd}")
    user = pb.AuthUserAddRequest(name="root", password="pw")
    etcd.ask("Auth/UserAdd", user, pb.AuthUserAddResponse)
    etcd.ask("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root"), pb.AuthUserGrantRoleResponse)
    assert [status(node, path) for path in paths] == [200] * 4
    etcd.ask("Auth/AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse)
    assert [status(node, path) for path in paths] == [401] * 4
    assert [status(node, path, token) for path in paths] == [200] * 4
    asked = pb.AuthenticateRequest(name="root", password="pw")
    root = etcd.ask("Auth/Authenticate", asked, pb.AuthenticateResponse).token
    etcd.ask("Auth/AuthDisable", pb.AuthDisableRequest(), pb.AuthDisableResponse, root)
    assert [status(node, path) for path in paths] == [200] * 4
    for path, body in ("users/root", {"user": "root", "password": "pw"}), ("enable", {}):
        url = f"http://127.0.0.1:{node.etcd}/v2/auth/{path}"
        kind = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), kind, method="PUT")).close()
    assert [status(node, path) for path in paths] == [401] * 4
    assert [status(node, path, token) for path in paths] == [200] * 4
    etcd.channel.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n", b"nonsense\r\n\r\n"])
async def test_one_that_can_not_be_asked_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    assert await Users(tmp_path / "nobody.sock").closed()
    monkeypatch.chdir(tmp_path)  # a socket's address has room for 107 bytes only
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("kv.sock")
        listener.listen()

        def serve() -> None:
            for _ in range(2):
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    connection.recv(1000)
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert await Users(Path("kv.sock")).closed()
