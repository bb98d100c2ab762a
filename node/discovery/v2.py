"""A token's folder over HTTP: discovery.etcd.io's protocol, or v2 keys themselves (``…/v2/keys/_etcd/registry/T``)."""

from typing import Any

import httpx2
import msgspec

from node.discovery.decide import BadEndpoint, DiscoveryError, DuplicateId, Registration, SizeNotFound, target
from node.discovery.registry import REQUEST_S, WAIT_S, Unreachable

_KEY_NOT_FOUND, _NODE_EXIST, _CLEARED = 100, 105, 401


class _Node(msgspec.Struct):
    key: str = ""
    value: str = ""
    createdIndex: int = 0
    nodes: list["_Node"] = []


class _Answer(msgspec.Struct):
    """An event or an error, as its body says it."""

    node: _Node | None = None
    errorCode: int = 0
    message: str = ""
    cause: str = ""


class Refused(DiscoveryError):
    """The service said no, in etcd's words; ``code`` is v2's."""

    def __init__(self, answer: _Answer) -> None:
        super().__init__(f"discovery: {answer.message} ({answer.cause}) [{answer.errorCode}]")
        self.code = answer.errorCode


class Folder:
    """Implements :class:`node.discovery.registry.Registry`. Raises InvalidUrl."""

    def __init__(self, url: str, proxy: str = "") -> None:
        base, self._path = target(url)
        self._client = httpx2.Client(
            base_url=base, timeout=REQUEST_S, follow_redirects=True, proxy=_with_scheme(proxy) or None
        )

    def close(self) -> None:
        self._client.close()

    def size(self) -> str:
        try:
            return self._node("GET", "/_config/size")[0].value
        except Refused as error:
            if error.code == _KEY_NOT_FOUND:
                raise SizeNotFound from None
            raise

    def log(self) -> str:
        """The public service doesn't know the page, and says so in HTML."""
        try:
            return self._node("GET", "/_config/log")[0].value
        except (Refused, BadEndpoint):
            return ""

    def members(self) -> tuple[list[Registration], int]:
        node, index = self._node("GET", "")
        found = [Registration(one.key.rpartition("/")[2], one.value, one.createdIndex) for one in node.nodes]
        return [one for one in found if not one.member.startswith("_")], index

    def register(self, member: str, value: str) -> None:
        try:
            self._node("PUT", f"/{member}", {"prevExist": "false"}, {"value": value})
        except Refused as error:
            if error.code == _NODE_EXIST:
                raise DuplicateId from None
            raise

    def wait(self, index: int) -> None:
        asked = {"wait": "true", "recursive": "true", "waitIndex": str(index + 1)}
        try:
            self._node("GET", "", asked, timeout_s=WAIT_S)
        except Refused as error:
            if error.code != _CLEARED:  # else much has happened: look
                raise

    def _node(
        self,
        method: str,
        page: str,
        query: dict[str, str] | None = None,
        form: dict[str, str] | None = None,
        timeout_s: float = REQUEST_S,
    ) -> tuple[_Node, int]:
        """The node that is answered, and the index. Raises Unreachable, Refused, BadEndpoint."""
        waits = query is not None and "wait" in query
        asked: dict[str, Any] = query or {"quorum": "true"}
        try:
            answer = self._client.request(method, self._path + page, params=asked, data=form, timeout=timeout_s)
        except httpx2.HTTPError as error:
            if waits and isinstance(error, httpx2.ReadTimeout):
                return _Node(), 0  # nothing happened so long
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        if answer.status_code >= 500:
            raise Unreachable(f"{answer.status_code} {answer.text[:200].strip()}")
        try:
            found = msgspec.json.decode(answer.content, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadEndpoint from None
        if found.errorCode:
            raise Refused(found)
        index = answer.headers.get("x-etcd-index", "0")
        if found.node is None or not index.isascii() or not index.isdigit() or len(index) > 20:
            raise BadEndpoint
        return found.node, int(index)


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"
