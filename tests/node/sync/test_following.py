"""Keys followed on real servers: etcd 3.7 and ours, by the same JSON gateway."""

import asyncio
import contextlib
import http.server
import signal
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from actors.setting import Etcd
from node.sync import etcd, following, keys
from node.sync.etcd import V3, Endpoints, Refused
from node.sync.etcd2 import V2
from node.sync.following import Follower
from node.sync.http import Unreachable, address
from node.sync.keys import Range
from tests import needs
from tests.actors.kv.pki import Authority
from tests.actors.kv.server import Running
from tests.foreign import installs, servers
from tests.node.sync.keys import ask, b64, delete, put

WAIT_S = 30


@contextlib.contextmanager
def real(version: str) -> Iterator[servers.Etcd]:
    try:
        with servers.Etcd(version) as made:
            yield made
    except installs.Unavailable as error:
        needs.missing(str(error))


@pytest.fixture(params=["etcd", "corelog"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """host:port of a server with nothing in it."""
    if request.param == "etcd":
        with real("3.7") as server:
            yield server.endpoint.removeprefix("http://")
    else:
        with Running(tmp_path) as ours:
            yield f"127.0.0.1:{ours.port}"


def endpoints(*at: str, login: tuple[str, str] | None = None) -> Endpoints:
    return Endpoints([address(one) for one in at], None, login)


class Following:
    """A follower at work; ``changes`` are what it told."""

    def __init__(self, source: etcd.Source, *ranges: Range) -> None:
        self.changes: list[frozenset[bytes] | None] = []
        self.said: list[str] = []
        self.follower = Follower(source, self.changes.append, self.said.append)
        self.follower.want(ranges)

    async def __aenter__(self) -> "Following":
        self._task = asyncio.ensure_future(self.follower.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def values(self, prefix: bytes = b"") -> dict[bytes, bytes]:
        with contextlib.suppress(keys.Missing):
            return dict(self.follower.known.below(keys.prefix(prefix)))
        return {}

    async def until(self, what: Callable[[], Any]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not what():
                assert not self._task.done(), self._task.exception()
                await asyncio.sleep(0.005)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(4 * WAIT_S):
            await work()

    asyncio.run(limited())


def test_pages_are_read_as_of_one_revision_then_changes_follow(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd, "PAGE_KEYS", 3)
    wanted = {b"/a/%d" % number: b"\xff%d" % number for number in range(10)}
    for key, value in wanted.items():
        put(at, key, value)
    put(at, "/b", "elsewhere")

    async def work() -> None:
        async with Following(V3(endpoints(at)), keys.prefix(b"/a/")) as it:
            await it.until(lambda: it.values(b"/a/") == wanted)
            assert it.changes == [None]
            put(at, "/a/3", "new")
            delete(at, "/a/4")
            put(at, "/b", "not ours")
            expected = {key: value for key, value in {**wanted, b"/a/3": b"new"}.items() if key != b"/a/4"}
            await it.until(lambda: it.values(b"/a/") == expected)
            await it.until(lambda: frozenset().union(*filter(None, it.changes)) == {b"/a/3", b"/a/4"})

    run(work)


def test_a_transaction_in_two_ranges_is_one_change(at: str) -> None:
    async def work() -> None:
        async with Following(V3(endpoints(at)), Range(b"/x"), keys.prefix(b"/y/")) as it:
            await it.until(lambda: it.follower.reached)
            for number in range(5):
                puts = [{"request_put": {"key": b64(key), "value": b64(str(number))}} for key in ("/x", "/y/1", "/z")]
                ask(at, "/v3/kv/txn", {"success": puts})
                await it.until(lambda number=number: len(it.changes) == 2 + number)
            assert it.changes[1:] == [frozenset({b"/x", b"/y/1"})] * 5

    run(work)


def test_more_is_followed_when_it_is_asked_for(at: str) -> None:
    put(at, "/one", "1")
    put(at, "/two/x", "2")

    async def work() -> None:
        async with Following(V3(endpoints(at)), Range(b"/one")) as it:
            await it.until(lambda: it.follower.reached)
            it.follower.want([keys.prefix(b"/two/")])
            await it.until(lambda: it.follower.known.covers(keys.prefix(b"/two/")))
            put(at, "/one", "3")
            put(at, "/two/x", "4")
            known = it.follower.known
            await it.until(lambda: (known.value(b"/one"), known.value(b"/two/x")) == (b"3", b"4"))

    run(work)


def test_who_comes_back_goes_on_behind_what_it_has_or_reads_anew_what_was_compacted(at: str) -> None:
    put(at, "/a/1", "1")

    async def work() -> None:
        it = Following(V3(endpoints(at)), keys.prefix(b"/a/"))
        async with it:
            await it.until(lambda: it.follower.reached)
        put(at, "/a/2", "2")
        async with it:
            await it.until(lambda: it.values(b"/a/") == {b"/a/1": b"1", b"/a/2": b"2"})
            await it.until(lambda: len(it.changes) > 1)
            assert it.changes == [None, frozenset({b"/a/2"})], "it went on, and read nothing twice"
        delete(at, "/a/1")
        revision = put(at, "/a/3", "3")
        ask(at, "/v3/kv/compaction", {"revision": str(revision)})
        async with it:
            await it.until(lambda: it.values(b"/a/") == {b"/a/2": b"2", b"/a/3": b"3"})
            assert it.changes[-1] is None, "it was read anew"
        assert it.said == []

    run(work)


def test_a_server_that_dies_and_comes_back_is_told_once_and_what_is_known_stays() -> None:
    with real("3.7") as server:
        at = server.endpoint.removeprefix("http://")
        put(at, "/a", "1")

        async def work() -> None:
            async with Following(V3(endpoints(at)), Range(b"/a")) as it:
                await it.until(lambda: it.follower.reached)
                server.processes[0].send_signal(signal.SIGKILL)
                server.processes[0].wait()
                await it.until(lambda: it.said)
                await asyncio.sleep(1)
                assert it.follower.known.value(b"/a") == b"1"
                assert len(it.said) == 1
                assert "the log can't be reached" in it.said[0]
                assert "all stays as it is" in it.said[0]
                server.processes[0] = server._start(0)
                await asyncio.to_thread(server._wait)
                put(at, "/a", "2")
                await it.until(lambda: it.follower.known.value(b"/a") == b"2")
                await it.until(lambda: len(it.said) >= 2)
                assert len(it.said) == 2
                assert "reached again" in it.said[1]

        run(work)


def test_without_a_leader_it_is_told_though_the_server_answers() -> None:
    try:
        # members of a busy machine that hold no elections of their own accord: these would be told as well
        with servers.Etcd("3.7", 3, servers.PATIENT) as server:
            at = server.clients[0].removeprefix("http://")
            put(at, "/a", "1")

            async def work() -> None:
                async with Following(V3(endpoints(at)), Range(b"/a")) as it:
                    await it.until(lambda: it.follower.reached)
                    assert not it.said
                    for process in server.processes[1:]:
                        process.send_signal(signal.SIGSTOP)
                    await it.until(lambda: it.said)
                    assert "the log can't be reached" in it.said[0]
                    assert it.follower.known.value(b"/a") == b"1"
                    await asyncio.sleep(3)
                    assert len(it.said) == 1
                    for process in server.processes[1:]:
                        process.send_signal(signal.SIGCONT)
                    await asyncio.to_thread(server._wait)
                    await it.until(lambda: len(it.said) >= 2)
                    assert "reached again" in it.said[1]

            run(work)
    except installs.Unavailable as error:
        needs.missing(str(error))


def test_an_endpoint_that_does_not_answer_is_passed_over(at: str) -> None:
    put(at, "/a", "1")
    (closed,) = servers.free_ports(1)

    async def work() -> None:
        async with Following(V3(endpoints(f"127.0.0.1:{closed}", at)), Range(b"/a")) as it:
            await it.until(lambda: it.follower.reached)
            assert it.follower.known.value(b"/a") == b"1"

    run(work)


def test_users_log_in_and_are_refused_what_they_may_not_read(at: str) -> None:
    put(at, "/open/a", "1")
    put(at, "/closed", "1")
    for name in ("root", "reader"):
        ask(at, "/v3/auth/user/add", {"name": name, "password": "secret"})
        ask(at, "/v3/auth/role/add", {"name": name})
        ask(at, "/v3/auth/user/grant", {"user": name, "role": name})
    permission = {"permType": "READ", "key": b64("/open/"), "range_end": b64("/open0")}
    ask(at, "/v3/auth/role/grant", {"name": "reader", "perm": permission})
    ask(at, "/v3/auth/enable", {})

    async def work() -> None:
        reader = endpoints(at, login=("reader", "secret"))
        assert [pair.value for pair in (await V3(reader).fetch([keys.prefix(b"/open/")]))[1]] == [b"1"]
        with pytest.raises(Refused, match="permission denied"):
            await V3(reader).fetch([Range(b"/closed")])
        with pytest.raises(Refused, match="authentication failed, invalid user ID or password"):
            await V3(endpoints(at, login=("reader", "wrong"))).fetch([Range(b"/open/a")])
        with pytest.raises(Refused, match="user name is empty"):
            await V3(endpoints(at)).fetch([Range(b"/open/a")])
        async with Following(V3(reader), keys.prefix(b"/open/")) as it:
            await it.until(lambda: it.follower.reached)
            reader._token = "gone.1"  # as if it were too old
            token = ask(at, "/v3/auth/authenticate", {"name": "root", "password": "secret"})["token"]
            ask(at, "/v3/kv/put", {"key": b64("/open/a"), "value": b64("2")}, token)
            await it.until(lambda: it.values(b"/open/") == {b"/open/a": b"2"})
            it.follower.want([keys.prefix(b"/open/"), Range(b"/closed")])
            await it.until(lambda: any("permission denied" in line for line in it.said))

    run(work)


class Guarded:
    """A store that refuses what begins so."""

    def __init__(self) -> None:
        self.refused, self.keys, self.changed = b"/no", {b"/a": b"1", b"/no": b"1"}, asyncio.Event()

    def _ask(self, ranges: Iterable[Range]) -> None:
        for one in ranges:
            if self.refused and one.start.startswith(self.refused):
                raise Refused(f"permission denied: {one.start!r}")

    async def fetch(self, ranges: Iterable[Range], at: int = 0) -> tuple[int, list[keys.Pair]]:
        wanted = list(ranges)
        self._ask(wanted)
        found = [keys.Pair(key, value, 1) for key, value in self.keys.items() if any(one.has(key) for one in wanted)]
        return 1, found

    async def watch(self, after: Mapping[Range, int], told: etcd.Told, begun: Callable[[], None]) -> None:
        begun()
        while True:
            self._ask(after)
            await self.changed.wait()
            self.changed.clear()
            for one in after:
                told(one, [keys.Pair(key, value, 2) for key, value in self.keys.items() if one.has(key)], 2)


def test_a_range_that_is_refused_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """One template may ask for what its user may not read."""
    for name in ("REFUSED_S", "REFUSED_MAX_S"):
        monkeypatch.setattr(following, name, 0.05)

    async def work() -> None:
        store = Guarded()
        async with Following(store, Range(b"/a"), Range(b"/no")) as it:
            await it.until(lambda: it.values(b"/a") or it.follower.known.covers(Range(b"/a")))
            store.keys[b"/a"] = b"2"
            store.changed.set()
            await it.until(lambda: it.follower.known.value(b"/a") == b"2")
            await asyncio.sleep(0.3)
            words = "some keys can't be read: permission denied: b'/no'; the files that need them stay as they are"
            assert it.said == [words]
            assert it.changes == [None, frozenset({b"/a"})], "nobody is woken for what is refused again"
            store.refused = b""
            await it.until(lambda: it.follower.known.covers(Range(b"/no")))
            await it.until(lambda: it.said[1:] == ["all keys can be read again"])
            store.refused = b"/no"
            store.keys[b"/a"] = b"3"
            store.changed.set()
            await it.until(
                lambda: it.follower.known.covers(Range(b"/a")) and not it.follower.known.covers(Range(b"/no"))
            )
            store.keys[b"/a"] = b"4"
            store.changed.set()
            await it.until(lambda: it.follower.known.value(b"/a") == b"4")

    run(work)


class Other(http.server.BaseHTTPRequestHandler):
    said = b""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.said)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    "said",
    [
        b"<html>hello</html>",
        b"[]",
        b"{}",
        b'{"header": {"revision": "x"}}',
        b'{"header": 7}',
        b'{"header": {"revision": 1}, "kvs": [7]}',
        b'{"header": {"revision": 1}, "kvs": [{"key": "a", "mod_revision": 1}]}',
        b'{"result": "x"}',
        b'{"result": {"created": true}}',
        b'{"result": {"events": [{}]}}',
        b'{"error": {"grpc_code": null}}',
        b'{"action": "get", "node": 7}',
        b'{"action": "get", "node": {"key": 7, "modifiedIndex": 1}}',
        b'{"errorCode": "x"}',
    ],
)
def test_what_is_no_etcd_is_named(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy may say anything: it is tried again, and ends nothing."""
    monkeypatch.setattr(Other, "said", said)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        at = f"127.0.0.1:{server.server_port}"
        with pytest.raises(Unreachable, match=r"doesn't answer as etcd does"):
            asyncio.run(V3(endpoints(at)).fetch([Range(b"/a")]))
        for source in (V3(endpoints(at)), V2(endpoints(at))):
            with contextlib.suppress(Unreachable, Refused, etcd.Gone):
                asyncio.run(source.fetch([Range(b"/a")]))
            with pytest.raises((Unreachable, Refused, etcd.Gone)):
                asyncio.run(source.watch({Range(b"/a"): 1}, lambda *_: None, lambda: None))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("text", ["", "a b:1", "ftp://a", "http://a/b", "http://u@h:1", "h:port", "unix://", "h:99999"])
def test_endpoints_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"endpoint|socket"):
        address(text)


@pytest.mark.parametrize("which", ["3.4", "corelog"])
def test_v2_keys_are_followed_too(which: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        if which == "3.4":
            at = stack.enter_context(real("3.4")).endpoint.removeprefix("http://")
        else:
            at = f"127.0.0.1:{stack.enter_context(Running(tmp_path)).port}"

        def write(method: str, path: str, body: str = "") -> None:
            import http.client as client

            connection = client.HTTPConnection(at, timeout=10)
            connection.request(method, f"/v2/keys{path}", body, {"content-type": "application/x-www-form-urlencoded"})
            assert connection.getresponse().status < 300
            connection.close()

        async def work() -> None:
            async with Following(V2(endpoints(at)), keys.prefix(b"/web/"), Range(b"/one")) as it:
                await it.until(lambda: it.follower.known.ranges)
                write("PUT", "/web/up/a", "value=1")
                write("PUT", "/one", "value=x")
                write("PUT", "/other", "value=x")
                await it.until(lambda: it.values(b"/web/") == {b"/web/up/a": b"1"})
                await it.until(lambda: it.follower.known.ranges and it.follower.known.value(b"/one") == b"x")
                write("DELETE", "/web?recursive=true")
                await it.until(lambda: it.follower.known.ranges and not it.values(b"/web/"))

        run(work)


def test_over_tls_the_authority_and_the_clients_certificate_count(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    cert, key, _ = ca.sign("server")
    mine = ca.sign("client")
    asked = Etcd(cert_file=cert, key_file=key, trusted_ca_file=str(ca.file), client_cert_auth=True)
    with Running(tmp_path / "n", etcd=asked, at="https://127.0.0.1:0") as server:
        at = [address(f"https://127.0.0.1:{server.port}")]
        trusting = ssl.create_default_context(cafile=ca.file)
        known = ssl.create_default_context(cafile=ca.file)
        known.load_cert_chain(mine[0], mine[1])

        async def fetched(context: ssl.SSLContext | None) -> int:
            return (await V3(Endpoints(at, context)).fetch([Range(b"/a")]))[0]

        assert asyncio.run(fetched(known)) == 1
        for context in (None, trusting):
            with pytest.raises(Unreachable):
                asyncio.run(fetched(context))
