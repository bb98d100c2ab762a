"""Random requests to a real etcd 3.4 and to us: status, body and headers must be the same."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from actors.kv.v2 import put as putting
from actors.kv.v2.store import Store
from deploy.kafka.brokers import free_port
from tests import needs
from tests.actors.kv.server import Client, Running


class Pair:
    def __init__(self, real: Client, ours: Client) -> None:
        self.real, self.ours = real, ours
        self.sequences = 0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    program = needs.program("etcd")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if "3.4." not in version:
        pytest.skip(f"v2's reference is etcd 3.4, here is {version.splitlines()[0]}")
    clients, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    folder = tmp_path_factory.mktemp("etcd")
    command = [program, "--enable-v2", "--unsafe-no-fsync"] if "unsafe" in version else [program, "--enable-v2"]
    command += ["--data-dir", str(folder / "data"), "--listen-client-urls", clients, "--advertise-client-urls", clients]
    command += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
    command += ["--initial-cluster", f"default={peers}", "--log-level", "error"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        real = _when_there(int(clients.rpartition(":")[2]))
        with Running(tmp_path_factory.mktemp("ours")) as running:
            ours = Client(running.port)
            yield Pair(real, ours)
            ours.close()
        real.close()
    finally:
        process.kill()
        process.wait()


def _when_there(port: int) -> Client:
    for _ in range(200):
        client = Client(port)
        try:
            if client.raw("GET", "/health")[0] == 200:
                return client
        except OSError:
            pass
        client.close()
        time.sleep(0.05)
    raise AssertionError("etcd doesn't serve")


KEYS = st.sampled_from(["", "/", "/a", "/b", "/a/b", "/a/b/c", "/_h", "/a/_h", "/a/_h/x", "/b/", "/a/é<&>"])
VALUES = st.sampled_from(["", "one", "two", "<é&\u2028>", "a+b c"])
BOOLS = st.sampled_from(["true", "true", "false", "1", "F", "yes", ""])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "value": VALUES,
    "dir": BOOLS,
    "ttl": st.sampled_from(["1000", "1000", "", "x", "-1", "1e3"]),
    "prevExist": BOOLS,
    "prevValue": VALUES,
    "prevIndex": st.one_of(st.integers(0, 4), st.sampled_from(["x", "", "-1", "00"])),
    "refresh": BOOLS,
    "recursive": BOOLS,
    "sorted": BOOLS,
    "quorum": BOOLS,
    "noValueOnSuccess": BOOLS,
}
ODD = st.sampled_from(["", "", "", "", "", "%zz=1", "a;b", "wait=x", "stream=x", "waitIndex=x"])


#: Requests that mean something, on few keys and values, so that conditions hold as often as not.
FEW = st.sampled_from(["/a", "/a", "/a", "/d/b", "/d"])
ONE_OR_TWO = st.sampled_from(["one", "two"])
SMALL: dict[str, st.SearchStrategy[Any]] = {
    "value": ONE_OR_TWO,
    "prevValue": ONE_OR_TWO,
    "prevIndex": st.integers(1, 6),
    "ttl": st.just("1000"),
    **{name: st.just("true") for name in ("dir", "recursive", "refresh")},
    "prevExist": st.sampled_from(["true", "true", "false"]),
}
SHAPES = [
    *[("PUT", "value")] * 4, ("PUT", "value ttl"), ("PUT", "dir"), ("PUT", "value prevExist"),
    ("PUT", "value prevExist ttl"), ("PUT", "prevExist refresh ttl"), ("PUT", "value prevValue"),
    ("PUT", "value prevValue ttl"), ("PUT", "value prevIndex"), ("PUT", "value prevIndex ttl"),
    ("PUT", "dir prevExist ttl"), ("POST", "value"), ("POST", "value ttl"), ("DELETE", ""), ("DELETE", "recursive"),
    ("DELETE", "dir"), ("DELETE", "prevValue"), ("DELETE", "prevIndex"), ("GET", ""), ("GET", "recursive"),
]  # fmt: skip


@st.composite
def meant(draw: st.DrawFn) -> "Request":
    method, names = draw(st.sampled_from(SHAPES))
    return method, draw(FEW), {name: draw(SMALL[name]) for name in names.split()}, method == "DELETE", ""


@st.composite
def odd(draw: st.DrawFn) -> "Request":
    method = draw(st.sampled_from(["GET", "PUT", "PUT", "PUT", "POST", "DELETE", "DELETE", "HEAD"]))
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=4, unique=True))
    if method in ("PUT", "POST") and draw(st.booleans()):
        names = ["value"]
    return method, draw(KEYS), {name: draw(FIELDS[name]) for name in names}, draw(st.booleans()), draw(ODD)


Request = tuple[str, str, dict[str, Any], bool, str]
SEQUENCES = st.lists(st.one_of(meant(), meant(), odd()), min_size=6, max_size=16)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)
@given(sequence=SEQUENCES)
def test_answers_are_those_of_etcd(pair: Pair, sequence: list[Request]) -> None:
    compare(pair, sequence)


class Differs(AssertionError):
    """We answered otherwise than etcd."""


def compare(pair: Pair, sequence: list[Request]) -> None:
    """Ask both the same below a fresh key. Raises Differs."""
    pair.sequences += 1
    top = f"/s{pair.sequences}-{time.monotonic_ns()}"
    bases = [int(client.ask("GET", "/")[1]["x-etcd-index"]) for client in (pair.real, pair.ours)]
    for method, key, fields, in_query, odd in sequence:
        answers = []
        for client, base in zip((pair.real, pair.ours), bases, strict=True):
            # an index is meant relative to the sequence's begin
            given_fields = {
                name: base + value if name == "prevIndex" and value and isinstance(value, int) else value
                for name, value in fields.items()
            }
            form = urlencode(given_fields)
            query = "&".join(
                part for part in (form if in_query or method in ("GET", "HEAD", "DELETE") else "", odd) if part
            )
            path = f"/v2/keys{top}{quote(key)}" + (f"?{query}" if query else "")
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answers.append(
                _comparable(client.raw(method, path, b"" if in_query else form.encode(), headers), base, top)
            )
        if answers[0] != answers[1]:
            raise Differs(f"{(method, key, fields, in_query, odd)}\netcd: {answers[0]}\nwe:   {answers[1]}")


# --- whether it would find something: faults planted in our store


def index_off_by_one_on_delete(monkeypatch: pytest.MonkeyPatch) -> None:
    _on_took(monkeypatch, "delete", lambda change: (change[0] + 1, *change[1:]))


def no_prev_node_on_update(monkeypatch: pytest.MonkeyPatch) -> None:
    _on_took(monkeypatch, "update", lambda change: (*change[:4], None, *change[5:]))


def expiration_lost_on_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    really = putting._compare_and_swap
    monkeypatch.setattr(
        putting, "_compare_and_swap", lambda store, key, data, _ttl_s, time_ms: really(store, key, data, None, time_ms)
    )


def _on_took(monkeypatch: pytest.MonkeyPatch, action: str, spoil: Callable[[Any], Any]) -> None:
    really = Store.took
    monkeypatch.setattr(
        Store, "took", lambda store, change: really(store, spoil(change) if change[1] == action else change)
    )


@pytest.mark.parametrize("plant", [index_off_by_one_on_delete, no_prev_node_on_update, expiration_lost_on_swap])
def test_a_planted_fault_is_found(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    # always the same sequences, and the first that differs is enough: no shrinking
    @settings(
        max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None,
        phases=[Phase.generate], report_multiple_bugs=False,
    )  # fmt: skip
    @given(sequence=SEQUENCES)
    def search(sequence: list[Request]) -> None:
        compare(pair, sequence)

    plant(monkeypatch)
    with pytest.raises(Differs):
        search()


def _comparable(answer: Any, base: int, top: str) -> Any:
    status, headers, content = answer
    index = int(headers.get("x-etcd-index", -1))
    shown = {
        "type": headers.get("content-type"),
        "index": index - base if index >= base else index,
        "raft": sorted(name for name in headers if name.startswith("x-raft")),
        "cluster": "x-etcd-cluster-id" in headers,
    }
    if not content:
        return status, shown, None
    return status, shown, _relative(json.loads(content), base, top)


def _relative(data: Any, base: int, top: str) -> Any:
    """Indices relative to ``base``, keys to ``top``; expirations by their presence, listings in order of keys."""
    if isinstance(data, list):
        return sorted((_relative(one, base, top) for one in data), key=lambda node: node["key"])
    if not isinstance(data, dict):
        return data
    out: dict[str, Any] = {}
    for name, value in data.items():
        if name in ("modifiedIndex", "createdIndex", "index"):
            out[name] = value - base if value >= base else value
        elif name == "key":
            out[name] = re.sub(r"\d{20}", lambda found: str(int(found[0]) - base), value.removeprefix(top))
        elif name == "cause":
            out[name] = (
                re.sub(r"\d+", lambda found: str(int(found[0]) - base), value.removeprefix(top))
                if "!=" in value
                else value.removeprefix(top)
            )
        elif name == "expiration":
            out[name] = True
        elif name == "ttl":
            assert 990 <= value <= 1000
            out[name] = 1000
        else:
            out[name] = _relative(value, base, top)
    return out
