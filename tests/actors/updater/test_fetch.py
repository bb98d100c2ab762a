import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.updater import stage
from actors.updater.fetch import Cancelled, Fetcher, FetchFailed, Terms, Wanted
from actors.updater.publish import publish
from actors.updater.store import NoSpace, Store
from tests.actors.updater.trees import V1, Serving, make, nobody, read

LARGE = bytes(range(256)) * 8000  # two megabytes: several chunks, a part file
NOW = Terms(patience_s=0, timeout_s=5)


@pytest.fixture
def publisher(tmp_path: Path) -> Store:
    store = Store(tmp_path / "publisher" / "updater")
    store.published = publish(store, make(tmp_path / "source", {**V1, "lib/larger": LARGE}))  # type: ignore[attr-defined]
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "mine" / "updater")


def wanted(content: bytes) -> Wanted:
    return Wanted(hashlib.sha256(content).hexdigest(), len(content), (0o644,), "a/path")


@contextmanager
def answering(answer: Callable[[bytes], bytes | None]) -> Iterator[str]:
    """A gateway that answers each request (its head) with these bytes and hangs up; None: say nothing, hold on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def work() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                head = b""
                while b"\r\n\r\n" not in head and (more := one.recv(4096)):
                    head += more
                reply = answer(head) if head else b""
                if reply is None:
                    held.append(one)
                    continue
                with suppress(OSError):
                    one.sendall(reply)
                one.close()

        thread = threading.Thread(target=work)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in held:
            one.close()


def ok(content: bytes, length: int | None = None) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(content) if length is None else length) + content


def test_a_version_is_fetched_from_the_gateway_that_has_it(tmp_path: Path, publisher: Store, store: Store) -> None:
    tree = publisher.published  # type: ignore[attr-defined]
    empty = Serving(tmp_path / "empty")
    with Serving(tmp_path / "publisher") as full, empty, nobody() as silent:
        fetcher = Fetcher(store, [silent, empty.address, full.address], NOW)
        done = stage.stage(store, "1", tree, fetcher)
    assert read(store.versions / "1") == {**V1, "lib/larger": LARGE}
    assert done.fetched_bytes > len(LARGE)
    assert list(store.parts.iterdir()) == []
    assert len(full.asked) == len(set(full.asked))


def test_a_broken_fetch_is_resumed_by_range(tmp_path: Path, publisher: Store, store: Store) -> None:
    one = wanted(LARGE)
    (store.parts / f"{one.hash}.part").write_bytes(LARGE[:1_500_000])
    with Serving(tmp_path / "publisher") as gateway:
        fetcher = Fetcher(store, [gateway.address], NOW)
        fetcher.objects([one])
    assert gateway.ranges == ["bytes=1500000-"]
    assert fetcher.fetched_bytes == len(LARGE) - 1_500_000
    assert store.object_fault((one.hash, 0o644), len(LARGE)) == ""


def test_the_next_gateway_goes_on_where_the_first_broke_off(tmp_path: Path, publisher: Store, store: Store) -> None:
    one = wanted(LARGE)
    with (
        answering(lambda _head: ok(LARGE[:1_200_000], len(LARGE))) as dying,
        Serving(tmp_path / "publisher") as gateway,
    ):
        Fetcher(store, [dying, gateway.address], NOW).objects([one])
    assert gateway.ranges == ["bytes=1200000-"]
    assert store.object_fault((one.hash, 0o644), len(LARGE)) == ""


def test_a_poisoned_beginning_is_thrown_away_and_fetched_whole(tmp_path: Path, publisher: Store, store: Store) -> None:
    one = wanted(LARGE)
    (store.parts / f"{one.hash}.part").write_bytes(os.urandom(1_500_000))
    with Serving(tmp_path / "publisher") as gateway:
        Fetcher(store, [gateway.address], NOW).objects([one])
    assert store.object_fault((one.hash, 0o644), len(LARGE)) == ""


def test_a_gateway_without_ranges_is_taken_from_the_start(store: Store) -> None:
    one = wanted(LARGE)
    (store.parts / f"{one.hash}.part").write_bytes(LARGE[:1_500_000])
    with answering(lambda _head: ok(LARGE)) as plain:
        Fetcher(store, [plain], NOW).objects([one])
    assert store.object_fault((one.hash, 0o644), len(LARGE)) == ""


@pytest.mark.parametrize("content", [b"small content", LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda content: ok(bytes(len(content))), "another hash"),
        (lambda content: ok(content + b"x"), "more than"),
        (lambda content: ok(content[:-1]), "broke off after"),
        (lambda content: ok(content[:-1], len(content)), "broke off|IncompleteRead"),
        (lambda content: b"HTTP/1.1 200 OK\r\n\r\n" + content * 3, "more than"),
        (lambda content: b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 5-9/10\r\n\r\n" + content, "another range"),
        (lambda content: b"HTTP/1.1 500 Oops\r\n\r\n", "answered 500 Oops"),
        (lambda content: b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n", "answered 302"),
        (lambda content: b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "doesn't have it"),
        (lambda content: b"\0\1\2 what is this\r\n\r\n", "BadStatusLine|what is this"),
        (lambda content: b"", "closed|RemoteDisconnected|reset"),
    ],
)
def test_a_gateway_is_never_trusted_and_the_next_one_serves(
    store: Store, content: bytes, answer: Callable[[bytes], bytes], why: str
) -> None:
    one = wanted(content)
    with answering(lambda _head: answer(content)) as bad:
        with pytest.raises(FetchFailed, match=rf"object {one.hash} of 'a/path' is not here; {bad}: .*({why})"):
            Fetcher(store, [bad], NOW).objects([one])
        assert list(store.objects.rglob("*.644")) == []
        with answering(lambda _head: ok(content)) as good:
            Fetcher(store, [bad, good], NOW).objects([one])
    assert store.object_fault((one.hash, 0o644), len(content)) == ""


def test_a_tree_with_another_hash_is_refused(store: Store) -> None:
    with (
        answering(lambda _head: ok(b"corelog-tree 1\n")) as bad,
        pytest.raises(FetchFailed, match="a manifest with another hash"),
    ):
        Fetcher(store, [bad], NOW).tree("0" * 64)
    assert list(store.trees.iterdir()) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reply=st.binary(max_size=200) | st.binary(max_size=100).map(lambda body: b"HTTP/1.1 206 \r\n\r\n" + body))
def test_whatever_a_gateway_says_nothing_false_gets_a_name(store: Store, reply: bytes) -> None:
    with answering(lambda _head: reply) as odd, pytest.raises(FetchFailed):
        Fetcher(store, [odd], Terms(patience_s=0, timeout_s=2)).objects([wanted(b"what is asked for")])
    assert list(store.objects.rglob("*.644")) == []


def test_a_silent_gateway_is_given_up_and_a_slow_one_too(store: Store) -> None:
    one = wanted(LARGE)
    quick = Terms(patience_s=0, timeout_s=0.2, rate_min=1 << 40)
    with answering(lambda _head: None) as silent, pytest.raises(FetchFailed, match="timed out"):
        Fetcher(store, [silent], quick).objects([one])


def test_who_comes_back_within_the_patience_is_asked_again(tmp_path: Path, publisher: Store, store: Store) -> None:
    one = wanted(LARGE)
    with nobody() as address:
        fetcher = Fetcher(store, [address], Terms(patience_s=60))
        port = int(address.rpartition(":")[2])
    failed: list[Exception] = []

    def fetch() -> None:
        try:
            fetcher.objects([one])
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    time.sleep(0.3)
    with Serving(tmp_path / "publisher", port):
        thread.join()
    assert failed == []
    assert store.object_fault((one.hash, 0o644), len(LARGE)) == ""


def test_a_newer_order_breaks_a_fetch_off_and_what_came_is_kept(store: Store) -> None:
    one = wanted(LARGE)
    fetcher: Fetcher
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        fetcher = Fetcher(store, [f"127.0.0.1:{server.getsockname()[1]}"], Terms(patience_s=60, timeout_s=60))
        raised: list[Exception] = []

        def fetch() -> None:
            try:
                fetcher.objects([one])
            except Exception as error:
                raised.append(error)

        thread = threading.Thread(target=fetch)
        thread.start()
        gateway, _ = server.accept()
        with gateway:
            gateway.recv(4096)
            gateway.sendall(head + LARGE[: 1 << 20])
            part = store.parts / f"{one.hash}.part"
            while not part.exists() or part.stat().st_size < 1 << 20:
                time.sleep(0.005)
            fetcher.cancelled.set()
            fetcher.hang_up()
            thread.join(30)
            assert not thread.is_alive()
    assert [type(error) for error in raised] == [Cancelled]
    assert part.read_bytes() == LARGE[: 1 << 20]


def test_our_own_full_disk_is_not_the_gateways_fault(
    tmp_path: Path, publisher: Store, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = publisher.published  # type: ignore[attr-defined]
    real = os.statvfs(tmp_path)
    with Serving(tmp_path / "publisher") as gateway:
        full = os.statvfs_result((*real[:4], 3, *real[5:]))
        monkeypatch.setattr(os, "statvfs", lambda _path: full)
        with pytest.raises(NoSpace, match="staging needs"):
            stage.stage(store, "1", tree, Fetcher(store, [gateway.address], NOW))
    assert [hash_ for hash_ in gateway.asked if hash_ != tree] == []


def test_all_gateways_and_their_reasons_are_named(store: Store) -> None:
    with (
        nobody() as silent,
        answering(lambda _head: b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n") as empty,
        pytest.raises(FetchFailed) as caught,
    ):
        Fetcher(store, [silent, empty, "ftp://x"], NOW).objects([wanted(b"x")])
    assert silent in str(caught.value)
    assert f"{empty}: doesn't have it" in str(caught.value)
    assert "ftp://x: 'ftp://x' is not a gateway's address" in str(caught.value)
