"""A service that meets a fault of ours ends as one that failed; one that meets a template's goes on."""

import asyncio
import os
from pathlib import Path

import pytest

from node.sync import keys
from node.sync.etcd import Endpoints
from node.sync.http import address
from node.sync.keys import Known, Pair
from node.sync.resource import Resource
from node.sync.service import Service, ServiceFault
from node.sync.worker import Told, Worker


def service(dest: Path, said: list[str]) -> Service:
    one = Resource(name="one", source="kv:/t", dest=str(dest))
    return Service(lambda: Endpoints([address("127.0.0.1:1")]), lambda: [one], lambda _: None, said.append, said.append)


def test_a_fault_of_ours_ends_it_with_a_code_that_is_not_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> Told:
        raise KeyError("what can't be")

    monkeypatch.setattr(Worker, "turn", broken)
    with pytest.raises(
        ServiceFault, match=r"KeyError\(\"what can't be\"\) in .*test_service.py:\d+; .*report it"
    ) as caught:
        asyncio.run(service(tmp_path / "f", []).run(lambda: None))
    assert caught.value.exit_code == 1
    assert isinstance(caught.value.__cause__, KeyError)


BAD = [
    "{% for i in [1] %}" * 25 + "x" + "{% endfor %}" * 25,
    "{{ f(a=1, a=2) }}",
    "{{ " + "1" * 5000 + " }}",
    '{{ getv("\\ud800") }}',
    '{{ "a".ljust(900000000) }}',
    "{{ [] + {} }}",
    "{{ " + "[" * 3000,
    "\ud800",
    "\0",
]


@pytest.mark.parametrize("source", BAD)
def test_a_template_in_a_key_ends_nothing(tmp_path: Path, source: str) -> None:
    known = Known()
    known.add([keys.prefix(b"")], [Pair(b"/t", source.encode("utf-8", "surrogatepass"), 1)], 1)
    told: list[Told] = []
    resource = Resource(name="one", source="kv:/t", dest=str(tmp_path / "f"))
    worker = Worker(resource, lambda: known, lambda _: None, told.append, os.environ)
    found = asyncio.run(worker.turn())
    assert found.what == ("rendered" if source in ("\ud800", "\0") else "failed")
