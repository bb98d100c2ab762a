"""The discovery protocol on etcd's port, by its bytes."""

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.discovery import BadRequest, wanted
from actors.setting import Etcd
from node.discovery.service import Service
from tests.actors.kv.server import Client, Running

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
TOKEN = re.compile(rb"http://([^/]+)/([0-9a-f]{32})")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("kv")) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    made = Client(server.port)
    yield made
    made.close()


def new(client: Client, query: str = "") -> str:
    status, headers, body = client.raw("GET", f"/new{query}")
    assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
    found = TOKEN.fullmatch(body)
    assert found, body
    return found[2].decode()


def asked(client: Client, method: str, path: str, form: str | None = None) -> tuple[int, dict[str, str], Any]:
    body = None if form is None else form.encode()
    status, headers, content = client.raw(method, path, body, FORM if body is not None else {})
    return status, headers, json.loads(content)


def test_a_token_has_the_address_that_the_caller_used_and_a_size(client: Client) -> None:
    body = client.raw("GET", "/new", None, {"Host": "discovery.example:80"})[2]
    assert body.startswith(b"http://discovery.example:80/")
    for method, path, size in (("GET", "/new", 3), ("PUT", "/new?size=1", 1), ("POST", "/new?size=+12", 12)):
        body = client.raw(method, path.replace("+", "%2B"))[2]
        token = body.rpartition(b"/")[2].decode()
        status, headers, answer = asked(client, "GET", f"/{token}/_config/size")
        assert status == 200
        assert answer["action"] == "get"
        assert answer["node"]["key"] == f"/_etcd/registry/{token}/_config/size"
        assert answer["node"]["value"] == str(size)
        assert int(headers["x-etcd-index"]) >= answer["node"]["createdIndex"]
    assert client.raw("POST", "/new", b"size=5", FORM)[0] == 200


def test_the_log_is_kept_beside_the_size(client: Client) -> None:
    token = new(client, "?size=3&log=kafka://a:9092,b:9092/topic")
    assert asked(client, "GET", f"/{token}/_config/log")[2]["node"]["value"] == "kafka://a:9092,b:9092/topic"
    assert asked(client, "GET", f"/{new(client)}/_config/log")[0] == 404


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("size=three", b'strconv.Atoi: parsing "three": invalid syntax\n'),
        ("size=3.0", b'strconv.Atoi: parsing "3.0": invalid syntax\n'),
        ("size=99999999999999999999", b'strconv.Atoi: parsing "99999999999999999999": value out of range\n'),
        ("size=0", b"size=0: a cluster has one member at least\n"),
        ("size=-3", b"size=-3: a cluster has one member at least\n"),
        ("log=segments:///data", b"log=segments:///data: machines share a log on Kafka: "),
        ("log=kafka://a:1%0a", b"log=kafka://a:1\n: machines share"),
        ("size=%zz", b'invalid URL escape "%zz"\n'),
    ],
)
def test_what_new_refuses(client: Client, query: str, words: bytes) -> None:
    status, _, body = client.raw("GET", f"/new?{query}")
    assert status == 400
    assert body.startswith(words)


def test_members_register_in_order_once_and_may_leave(client: Client) -> None:
    token = new(client)
    for page in (f"/{token}", f"/{token}/"):
        status, _, answer = asked(client, "GET", page)
        assert status == 200
        assert answer["node"]["dir"] is True
        assert "nodes" not in answer["node"]  # _config is hidden
    for name in ("b", "a"):
        form = f"value={name}%3Dhttp%3A%2F%2F127.0.0.1%3A2380"
        status, _, answer = asked(client, "PUT", f"/{token}/{name}?prevExist=false", form)
        assert (status, answer["action"]) == (201, "create")
        assert answer["node"]["value"] == f"{name}=http://127.0.0.1:2380"
    status, headers, answer = asked(client, "PUT", f"/{token}/a?prevExist=false", "value=x")
    assert (status, answer["errorCode"], answer["cause"]) == (412, 105, f"/_etcd/registry/{token}/a")
    assert headers["x-etcd-index"] == str(answer["index"])
    nodes = asked(client, "GET", f"/{token}?quorum=false&recursive=false&sorted=false")[2]["node"]["nodes"]
    by_age = sorted(nodes, key=lambda node: node["createdIndex"])
    assert [node["key"].rpartition("/")[2] for node in by_age] == ["b", "a"]
    assert asked(client, "DELETE", f"/{token}/a")[0] == 200
    assert asked(client, "GET", f"/{token}/a")[2]["errorCode"] == 100


def test_a_watch_on_a_token_hears_of_the_next_member(server: Running, client: Client) -> None:
    token = new(client)
    index = int(asked(client, "GET", f"/{token}")[1]["x-etcd-index"])
    heard: list[Any] = []
    watcher = Client(server.port)
    page = f"/{token}?wait=true&recursive=true&waitIndex={index + 1}"
    thread = threading.Thread(target=lambda: heard.append(asked(watcher, "GET", page)))
    thread.start()
    time.sleep(0.05)
    assert not heard
    asked(client, "PUT", f"/{token}/a?prevExist=false", "value=a")
    thread.join(10)
    watcher.close()
    assert heard[0][2]["node"]["key"].endswith(f"/{token}/a")


def test_there_is_nothing_but_the_protocol(client: Client) -> None:
    token = new(client)
    for method, page, allow in (
        ("DELETE", f"/{token}", "GET,PUT"),
        ("POST", f"/{token}/a", "GET,PUT,DELETE"),
        ("PUT", f"/{token}/_config/size", "GET"),
        ("DELETE", f"/{token}/_config/log", "GET"),
    ):
        status, headers, _ = client.raw(method, page, b"value=9" if method in ("PUT", "POST") else None, FORM)
        assert (status, headers["allow"]) == (405, allow), page
    for page in (f"/{token}/a/b", f"/{token}/_config/other", f"/{token[1:]}", f"/{token.upper()}x", f"/x{token}/a"):
        assert client.raw("GET", page)[0] == 404, page
    for page in (f"/{token}/..", f"/{token}/%2e%2e", f"/{token}/."):
        for method in ("GET", "DELETE"):
            assert client.raw(method, page)[0] == 404, page
    assert asked(client, "GET", f"/{token}/_config/size")[2]["node"]["value"] == "3"
    assert asked(client, "GET", "/" + "0" * 32)[2]["errorCode"] == 100


def test_a_v2_client_sees_the_same_keys(client: Client) -> None:
    token = new(client, "?size=7")
    key = f"/_etcd/registry/{token}/_config/size"
    assert client.ask("GET", key)[2]["node"]["value"] == "7"


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["size", "log", "x"]), st.text(max_size=40)))
def test_fields_are_understood_or_refused(fields: dict[str, str]) -> None:
    try:
        size, log = wanted(fields)
    except BadRequest:
        return
    assert size >= 1
    assert not log or log.startswith("kafka://")


def test_over_the_unix_socket_the_address_is_the_ports(server: Running, tmp_path: Path) -> None:
    transport = httpx2.HTTPTransport(uds=str(server.folder / "run" / "kv.sock"))
    with httpx2.Client(transport=transport) as client:
        assert client.get("http://kv/new").text.startswith(f"http://127.0.0.1:{server.port}/")


def test_who_may_write_keys_may_make_tokens(tmp_path: Path) -> None:
    with Running(tmp_path, etcd=Etcd(bcrypt_cost=4)) as secured, contextlib.closing(Client(secured.port)) as client:
        root = {"Authorization": "Basic cm9vdDpw"}
        json_ = {"Content-Type": "application/json", **root}
        assert client.raw("PUT", "/v2/auth/users/root", b'{"user":"root","password":"p"}', json_)[0] == 201
        assert client.raw("PUT", "/v2/auth/enable", b"", json_)[0] == 200
        none = b'{"role":"guest","revoke":{"kv":{"read":["/*"],"write":["/*"]}}}'
        assert client.raw("PUT", "/v2/auth/roles/guest", none, json_)[0] == 200
        status, _, body = client.raw("GET", "/new")
        assert (status, body) == (401, b"Unable to generate token: Insufficient credentials\n")
        assert client.raw("GET", "/new", None, root)[0] == 200


async def test_the_service_in_front_of_an_etcd_leads_to_nothing_but_tokens(server: Running, client: Client) -> None:
    token = new(client)
    behind = Service([f"http://127.0.0.1:{server.port}"])
    application = behind.application()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(application), base_url="http://d") as service:
        assert (await service.get(f"/{token}/_config/size")).json()["node"]["value"] == "3"
        for method, page in (("GET", "%2e%2e"), ("DELETE", "%2e%2e?recursive=true"), ("GET", "%2e"), ("PUT", "%2E.")):
            url = httpx2.URL("http://d/").copy_with(raw_path=f"/{token}/{page}".encode())
            assert (await service.request(method, url)).status_code in (404, 405), page
    await behind.close()
    assert client.ask("GET", f"/_etcd/registry/{token}/_config/size")[0] == 200
