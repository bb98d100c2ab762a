"""``corelog kv policy``: quotas, rates of writes, and how much history is kept, by prefix of etcd's v3 keys."""

import base64
from typing import Annotated, Any

from cyclopts import App, Parameter

from .client import COMMON, DOING, USAGE, At, Client, Common, Doing, Failure
from .output import show

app = App(name="policy", help="Limit the keys (of v3) that begin with a prefix.")

Base64 = Annotated[bool, Parameter(negative=(), help="PREFIX is given in base64.")]


@app.command(name="set")
def set_(
    prefix: str,
    *,
    max_bytes: str | None = None,
    writes_per_s: float = 0.0,
    burst: int = 0,
    keep_age: str | None = None,
    keep_bytes: str | None = None,
    base64: Base64 = False,
    common: Common = COMMON,
    doing: Doing = DOING,
) -> None:
    """Limit what begins with PREFIX ("": all keys). What isn't named here isn't limited any more.

    All policies that a key begins with hold for it. Deletes always pass.

    Parameters
    ----------
    max_bytes
        What its keys and values may have (10M, 4GiB); more is refused as etcd refuses when it is full.
    writes_per_s
        Puts a second, over all nodes.
    burst
        Puts that may come at once (default: a second's worth).
    keep_age
        History older than this is compacted (1h, 30m).
    keep_bytes
        History beyond this size is compacted.
    """
    body = {
        "prefix": _named(prefix, base64),
        "max_bytes": _size("--max-bytes", max_bytes),
        "writes_per_s": writes_per_s,
        "burst": burst,
        "keep_age_s": _seconds(keep_age),
        "keep_bytes": _size("--keep-bytes", keep_bytes),
    }
    Client(common).command("PUT", "/v1/policies", body, doing)


@app.command
def remove(prefix: str, *, base64: Base64 = False, common: Common = COMMON, doing: Doing = DOING) -> None:
    """End the policy of PREFIX. What was compacted for it stays so."""
    Client(common).command("POST", "/v1/policies/remove", {"prefix": _named(prefix, base64)}, doing)


@app.command(name="list")
def list_(*, at: At = None, common: Common = COMMON) -> None:
    """Print the policies, and what is used of them."""
    rows = Client(common).get("/v1/policies", {"at": at})
    if common.output in ("table", "wide", "name"):
        rows = [_told(row) for row in rows]
    columns = ("prefix", "bytes", "writes_per_s", "history", "keep_age", "compacted")
    show(rows, columns, common, ("burst",), "prefix")


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """For people: what is used, of what."""
    prefix = row["prefix"]
    return {
        "prefix": prefix if isinstance(prefix, str) else f"base64:{prefix['base64']}",
        "bytes": _of(row["live_bytes"], row["max_bytes"]),
        "writes_per_s": f"{row['writes_per_s']:g}" if row["writes_per_s"] else "-",
        "history": _of(row["history_bytes"], row["keep_bytes"]),
        "keep_age": f"{row['keep_age_s']}s" if row["keep_age_s"] else "-",
        "compacted": row["compacted"] or "-",
        "burst": row["burst"] or "-",
    }


def _of(used: int, limit: int) -> str:
    return f"{used}/{limit} ({100 * used / limit:.0f}%)" if limit else str(used)


def _named(prefix: str, encoded: bool) -> str | dict[str, str]:
    """As the log has bytes: text where they are."""
    raw = _raw(prefix) if encoded else prefix.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def _raw(prefix: str) -> bytes:
    try:
        return base64.b64decode(prefix, validate=True)
    except ValueError as error:
        raise Failure(f"PREFIX: {prefix!r} is no base64: {error}", USAGE) from error


def _size(option: str, text: str | None) -> int:
    from node.config import size_bytes

    if text is None:
        return 0
    try:
        return size_bytes(text)
    except ValueError as error:
        raise Failure(f"{option}: {error}", USAGE) from error


def _seconds(text: str | None) -> int:
    from node.config import duration_ms

    if text is None:
        return 0
    try:
        made = duration_ms(text)
    except ValueError as error:
        raise Failure(f"--keep-age: {error}", USAGE) from error
    if made % 1000:
        raise Failure(f"--keep-age: {text!r} is no whole number of seconds", USAGE)
    return made // 1000
