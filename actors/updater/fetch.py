"""Fetching trees and objects from other machines' gateways: any that has it, resumed by range, never trusted.

    GET /v1/trees/<sha256>     the manifest's bytes
    GET /v1/objects/<sha256>   a content; ``Range: bytes=N-`` goes on where a fetch broke off (RFC 9110, section 14)

What arrives is never longer than the manifest says, must keep a least speed, and is hashed before it gets its name.
A gateway that sends something else is not asked again in this fetch. Gateways that don't answer are tried again until
``patience_s`` is over; when each of them answered and none has it, the fetch fails at once.
"""

import contextlib
import errno
import hashlib
import http.client
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from urllib.parse import urlsplit

import msgspec

from actors.updater import manifest as manifests
from actors.updater.manifest import MANIFEST_BYTES_MAX, BadManifest, Manifest
from actors.updater.store import CHUNK_BYTES, Adding, Store, UpdaterError, digest, write_all

#: Objects above this size go through a part file and can be resumed.
PART_BYTES = 256 * 1024
WORKERS = 4
REST_S = 1.0


class FetchFailed(UpdaterError):
    """No gateway gave it; the message names the object, each gateway and why."""

    step = "fetch"
    http_status = 502


class Cancelled(UpdaterError):
    """A newer order came; what was fetched so far is kept."""

    step = "cancelled"


class Terms(msgspec.Struct, frozen=True):
    """How to fetch. ``rate_min``: bytes a second below which (after ``timeout_s``) a gateway counts as not answering.
    ``headers`` are sent with each request (a token where gateways ask for one)."""

    connect_timeout_s: float = 3.0
    timeout_s: float = 10.0
    rate_min: int = 16 * 1024
    patience_s: float = 120.0
    headers: Mapping[str, str] = {}


class _Absent(Exception):
    """The gateway answered that it doesn't have it."""


class _Wrong(Exception):
    """The gateway sent something that isn't what was asked for."""


class Wanted(msgspec.Struct, frozen=True):
    """A content to fetch: the modes that it is wanted with, and a path of the tree that it stands at (for errors)."""

    hash: str
    size_bytes: int
    modes: tuple[int, ...]
    path: str


#: Called with a chunk and the offset in the object at which it stands.
Take = Callable[[bytes, int], None]


class Gateway:
    """One gateway, asked by one thread at a time over one kept connection."""

    def __init__(self, address: str, terms: Terms) -> None:
        self.address = address
        self._terms = terms
        self._connection: http.client.HTTPConnection | None = None

    def hang_up(self) -> None:
        """From another thread: whoever waits for an answer gets an error at once."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def read(self, path: str, size_max: int, exact: bool, take: "Take", offset: int = 0) -> None:
        """GET ``path`` from ``offset`` on (or from 0, where it knows no ranges): ``take(chunk, at)`` for each chunk.

        Raises _Absent, _Wrong, OSError or http.client.HTTPException; then the connection is closed.
        """
        try:
            self._read(path, size_max, exact, take, offset)
        except BaseException:
            self.close()
            raise

    def _read(self, path: str, size_max: int, exact: bool, take: "Take", offset: int) -> None:
        headers = {**self._terms.headers, "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        response = self._ask(path, headers)
        if response.status in (404, 410):
            response.read(65536)
            raise _Absent
        begun = 0
        if response.status == 206:
            begun = offset
            if not (response.headers.get("Content-Range") or "").startswith(f"bytes {offset}-"):
                raise _Wrong("another range than was asked for")
        elif response.status != 200:
            raise OSError(f"answered {response.status} {response.reason}")
        got, until_s = begun, time.monotonic() + self._terms.timeout_s
        while chunk := response.read(CHUNK_BYTES):
            if got + len(chunk) > size_max:
                raise _Wrong(f"more than {size_max} bytes")
            take(chunk, got)
            got += len(chunk)
            if time.monotonic() > until_s + (got - begun) / self._terms.rate_min:
                raise OSError(f"slower than {self._terms.rate_min} bytes a second")
        if exact and got != size_max:
            raise OSError(f"broke off after {got} of {size_max} bytes")

    def _ask(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """Send; once more on a fresh connection if the kept one had been closed meanwhile."""
        kept = self._connection is not None
        connection = self._connection = self._connection or self._connect()
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse()
        except (ConnectionError, http.client.BadStatusLine):
            if not kept:
                raise
        self.close()
        connection = self._connection = self._connect()
        connection.request("GET", path, headers=headers)
        return connection.getresponse()

    def _connect(self) -> http.client.HTTPConnection:
        url = urlsplit(self.address if "://" in self.address else f"http://{self.address}")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise OSError(f"{self.address!r} is not a gateway's address (host:port)")
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.hostname, url.port, timeout=self._terms.connect_timeout_s)
        connection.connect()
        connection.sock.settimeout(self._terms.timeout_s)
        return connection


class Fetcher:
    """Fetches into ``store`` from ``gateways`` (host:port or URLs, best first)."""

    def __init__(
        self,
        store: Store,
        gateways: Iterable[str],
        terms: Terms | None = None,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.store = store
        self.addresses = list(dict.fromkeys(gateways))
        self.terms = terms or Terms()
        self.cancelled = cancelled or threading.Event()
        self.fetched_bytes = 0
        self._lock = threading.Lock()
        self._down: dict[str, str] = {}
        self._banned: dict[str, str] = {}
        self._asked: list[Gateway] = []

    def hang_up(self) -> None:
        """After ``cancelled`` was set: don't wait for answers under way either."""
        for gateway in list(self._asked):
            gateway.hang_up()

    def tree(self, hash_: str) -> Manifest:
        """Fetch, check and keep a manifest. Raises FetchFailed or Cancelled."""
        out: list[Manifest] = []

        def one(gateway: Gateway) -> None:
            chunks: list[bytes] = []
            gateway.read(f"/v1/trees/{hash_}", MANIFEST_BYTES_MAX, False, lambda chunk, _at: chunks.append(chunk))
            raw = b"".join(chunks)
            if hashlib.sha256(raw).hexdigest() != hash_:
                raise _Wrong("a manifest with another hash")
            try:
                out.append(manifests.parse(raw))
            except BadManifest as error:
                # it has the right hash, so it is what was published: no other gateway has a better one
                raise FetchFailed(f"tree {hash_} is not a manifest that this version takes: {error}") from error
            self.store.step("fetch-tree")
            self.store.put_tree(raw)
            self.fetched_bytes += len(raw)

        self._persist(lambda: self._try(f"tree {hash_}", one, 0))
        return out[0]

    def objects(self, wanted: list[Wanted]) -> None:
        """Fetch contents into the store; what arrived whole is kept. Raises FetchFailed, Cancelled, NoSpace."""
        if not wanted:
            return
        with Adding(self.store) as adding:
            try:
                left = list(wanted)
                self._persist(lambda: self._round(left, adding))
            finally:
                adding.commit()

    # -- trying -----------------------------------------------------------------------------------------------

    def _persist(self, attempt: Callable[[], "FetchFailed | None"]) -> None:
        """Call ``attempt`` until it succeeds, fails for good, or the patience with silent gateways is over."""
        until_s = time.monotonic() + self.terms.patience_s
        rest_s = REST_S / 4
        while (failed := attempt()) is not None:
            if not self._down or time.monotonic() + rest_s > until_s:
                raise failed
            if self.cancelled.wait(rest_s):
                raise Cancelled("a newer order came")
            rest_s = min(rest_s * 2, 5.0)
            self._down.clear()

    def _try(
        self, what: str, one: Callable[[Gateway], None], start: int, pool: dict[str, Gateway] | None = None
    ) -> "FetchFailed | None":
        """Ask the gateways in turn, beginning with the ``start``-th; the error that says why none gave it, or None."""
        own = pool if pool is not None else {}
        reasons: dict[str, str] = {}
        count = len(self.addresses)
        try:
            for index in range(count):
                address = self.addresses[(start + index) % count]
                if self.cancelled.is_set():
                    raise Cancelled("a newer order came")
                if reason := self._banned.get(address) or self._down.get(address):
                    reasons[address] = reason
                    continue
                try:
                    if address not in own:
                        own[address] = Gateway(address, self.terms)
                        self._asked.append(own[address])
                    one(own[address])
                    return None
                except _Absent:
                    reasons[address] = "doesn't have it"
                except _Wrong as error:
                    self._banned[address] = reasons[address] = f"sent {error}"
                except (OSError, http.client.HTTPException) as error:
                    self._local(error)
                    self._down[address] = reasons[address] = str(error) or type(error).__name__
        finally:
            if pool is None:
                for gateway in own.values():
                    gateway.close()
        if not reasons:
            return FetchFailed(f"{what} is not here, and no other gateway is known to fetch it from")
        return FetchFailed(f"{what} is not here; " + "; ".join(f"{at}: {why}" for at, why in reasons.items()))

    @staticmethod
    def _local(error: Exception) -> None:
        """An error of our own disk is not the gateway's fault: it has a file's name, or is about space."""
        if isinstance(error, OSError) and (error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)):
            raise error

    def _round(self, left: list[Wanted], adding: Adding) -> "FetchFailed | None":
        """Fetch what is left with WORKERS threads; drops from ``left`` what arrived. Raises what a worker raised."""
        jobs: queue.SimpleQueue[Wanted | None] = queue.SimpleQueue()
        for item in left:
            jobs.put(item)
        failed: list[FetchFailed] = []
        raised: list[BaseException] = []
        done: set[str] = set()
        count = min(WORKERS, len(left))

        def work(number: int) -> None:
            pool: dict[str, Gateway] = {}
            try:
                while not raised and len(failed) < 3 and (item := jobs.get()) is not None:
                    what = f"object {item.hash} of {item.path!r}"
                    error = self._try(what, partial(self._object, item, adding), number, pool)
                    failed.append(error) if error else done.add(item.hash)
            except BaseException as error:
                raised.append(error)
            finally:
                for gateway in pool.values():
                    gateway.close()

        for _ in range(count):
            jobs.put(None)
        threads = [threading.Thread(target=work, args=(number,), name=f"fetch-{number}") for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left[:] = [item for item in left if item.hash not in done]
        if raised:
            raise raised[0]
        return failed[0] if failed else None

    # -- one object -------------------------------------------------------------------------------------------

    def _object(self, item: Wanted, adding: Adding, gateway: Gateway) -> None:
        if item.size_bytes > PART_BYTES:
            self._large(gateway, item, adding)
            return
        chunks: list[bytes] = []
        gateway.read(f"/v1/objects/{item.hash}", item.size_bytes, True, lambda chunk, _at: chunks.append(chunk))
        content = b"".join(chunks)
        if hashlib.sha256(content).hexdigest() != item.hash:
            raise _Wrong(f"an object with another hash than {item.hash}")
        with self._lock:
            self.fetched_bytes += len(content)
            for mode in item.modes:
                self.store.step("fetch-object")
                adding.put(content, (item.hash, mode))

    def _large(self, gateway: Gateway, item: Wanted, adding: Adding) -> None:
        """Through a part file. A part that turns out wrong is dropped, and the same gateway asked for the whole:
        another one may have sent the beginning."""
        path = str(self.store.parts / f"{item.hash}.part")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            have = os.fstat(descriptor).st_size
            if have > item.size_bytes:
                os.ftruncate(descriptor, 0)
                have = 0
            if self._fill(gateway, item, descriptor, have) != item.hash:
                os.ftruncate(descriptor, 0)
                if not have or self._fill(gateway, item, descriptor, 0) != item.hash:
                    os.ftruncate(descriptor, 0)
                    raise _Wrong(f"an object with another hash than {item.hash}")
            with self._lock:
                adding.keep(descriptor, path, item.hash, item.modes, item.size_bytes)
        finally:
            os.close(descriptor)

    def _fill(self, gateway: Gateway, item: Wanted, descriptor: int, have: int) -> str:
        """Get the bytes from ``have`` on; returns the hash of the whole part."""

        def take(chunk: bytes, at: int) -> None:
            if self.cancelled.is_set():
                raise Cancelled("a newer order came")
            self.store.step("fetch-part")
            os.lseek(descriptor, at, os.SEEK_SET)
            write_all(descriptor, chunk)
            with self._lock:
                self.fetched_bytes += len(chunk)

        if have < item.size_bytes:
            gateway.read(f"/v1/objects/{item.hash}", item.size_bytes, True, take, have)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return digest(descriptor, item.size_bytes)
