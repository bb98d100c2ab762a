"""``--cors``: which sites' pages may ask, with etcd's headers."""

import http.client
from pathlib import Path

import pytest

from actors.setting import Etcd
from tests.actors.kv.server import Client, Running

ALLOWED = "access-control-allow-origin"


@pytest.mark.parametrize(
    ("cors", "origin", "told", "status"),
    [
        ([], "http://a.example", None, 403),
        ([], None, None, 200),
        (["*"], "http://a.example", "*", 200),
        (["*"], None, "*", 200),
        (["http://a.example"], "http://a.example", "http://a.example", 200),
        (["http://a.example"], "http://b.example", None, 403),
        (["http://a.example"], None, None, 200),
    ],
)
def test_pages_of_other_sites(
    cors: list[str], origin: str | None, told: str | None, status: int, tmp_path: Path
) -> None:
    headers = {"Origin": origin} if origin else {}
    with Running(tmp_path, etcd=Etcd(cors=cors)) as server:
        client = Client(server.port)
        # one after the other on a connection: what one may, the next need not
        for asked, expected in (
            (headers, (status, told)),
            ({}, (200, "*" if cors == ["*"] else None)),
            (headers, (status, told)),
        ):
            got, lines, _ = client.raw("GET", "/v2/keys/", None, asked)
            assert (got, lines.get(ALLOWED)) == expected
        if told:
            got, lines, body = client.raw("OPTIONS", "/v3/kv/put", None, headers)
            assert (got, body, lines[ALLOWED]) == (200, b"", told)
            assert lines["access-control-allow-methods"] == "POST, GET, OPTIONS, PUT, DELETE"
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            connection.request("GET", "/v2/keys/?wait=true", headers=headers)
            assert connection.getresponse().getheader(ALLOWED) == told
            connection.close()
        client.close()
