"""``corelog kv sync`` and ``corelog kv mount``: keys as files."""

import asyncio
import contextlib
import json
import ssl
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from .client import COMMON, FALSE, USAGE, Common, Failure, note, socket_path

if TYPE_CHECKING:
    from node.sync.etcd import Endpoints
    from node.sync.resource import Resource
    from node.sync.worker import Told


@Parameter(name="*", group="Store")
@dataclass(frozen=True)
class Store:
    """Whose keys: by default those of this machine's node.

    Parameters
    ----------
    endpoints
        etcd's endpoints, separated by commas: HOST:PORT, https://HOST:PORT or unix:///PATH. Any etcd will do.
    user
        NAME:PASSWORD, where the store has users.
    cacert
        Certificates of authorities to trust, for https.
    cert
        The client's certificate.
    key
        Its key.
    """

    endpoints: Annotated[str, Parameter(env_var="ETCDCTL_ENDPOINTS")] = ""
    user: Annotated[str, Parameter(env_var="ETCDCTL_USER")] = ""
    cacert: Annotated[Path | None, Parameter(env_var="ETCDCTL_CACERT")] = None
    cert: Annotated[Path | None, Parameter(env_var="ETCDCTL_CERT")] = None
    key: Annotated[Path | None, Parameter(env_var="ETCDCTL_KEY")] = None


STORE = Store()


def endpoints_of(store: Store, common: Common) -> "Callable[[], Endpoints]":
    """Raises Failure."""
    from node.sync import http
    from node.sync.etcd import Endpoints

    try:
        if store.endpoints:
            addresses = [http.address(text.strip()) for text in store.endpoints.split(",")]
        else:
            addresses = [http.address(f"unix://{socket_path(common)}")]
    except ValueError as error:
        raise Failure(f"--endpoints: {error}", USAGE) from error
    context = None
    try:
        if store.cacert or store.cert:
            context = ssl.create_default_context(cafile=store.cacert)
        if context is not None and store.cert:
            context.load_cert_chain(store.cert, store.key)
    except (OSError, ssl.SSLError) as error:
        raise Failure(f"the certificates can't be used: {error}", USAGE) from error
    name, colon, password = store.user.partition(":")
    if store.user and not colon:
        raise Failure("--user: write NAME:PASSWORD", USAGE)
    login = (name, password) if store.user else None
    return lambda: Endpoints(addresses, context, login, min(common.timeout, 10.0))


def sync(
    template: str | None = None,
    dest: Path | None = None,
    *,
    config: Path | None = None,
    prefix: str = "",
    mode_: Annotated[str | None, Parameter(name="--mode")] = None,
    owner: str = "",
    check: str = "",
    reload: str = "",
    api: str = "v3",
    once: bool = False,
    dry_run: bool = False,
    parent: Annotated[int, Parameter(show=False)] = 0,
    store: Store = STORE,
    common: Common = COMMON,
) -> int:
    """Render keys into files, and again whenever they change: TEMPLATE (a file, or kv:KEY) into DEST.

    Parameters
    ----------
    template
        A jinja2 template with confd's and consul-template's functions (docs/sync.md).
    dest
        The file. Until a new one is whole and checked the old one stays.
    config
        A folder of template resources (confd's conf.d/*.toml), instead of TEMPLATE and DEST.
    prefix
        Stands before each key that the template names.
    mode_
        Of the file, such as 0640. By default as it is, or 0644.
    owner
        USER, USER:GROUP or :GROUP. By default as it is.
    check
        Command that has to succeed with the new file, {{.src}}, before it takes its place.
    reload
        Command that is run after it did.
    api
        v3, or v2: the older store of keys.
    once
        Render and end: 0, or 1 if something failed.
    dry_run
        Show what would change, change nothing.
    parent
        Process that this one doesn't outlive.
    """
    if parent:
        from actors.supervision.process import die_with_parent

        die_with_parent(parent)
    from node.sync.service import Service, read_folder

    if config is not None:
        if template is not None:
            raise Failure("say TEMPLATE and DEST, or --config", USAGE)
        folder = config
        read: Callable[[], list[Resource]] = lambda: read_folder(folder)  # noqa: E731
    else:
        if template is None or dest is None:
            raise Failure("TEMPLATE and DEST are missing (or --config DIR)", USAGE)
        one = _resource(template, dest, prefix, mode_, owner, check, reload, api)
        read = lambda: [one]  # noqa: E731
    tell = Teller(common, dry_run)
    service = Service(endpoints_of(store, common), read, tell.told, tell.said, tell.noted)
    if once or dry_run:
        told = asyncio.run(service.once(dry_run))
        return 0 if all(each.well for each in told) else FALSE
    _forever(service.run)
    return 0


def _resource(
    template: str, dest: Path, prefix: str, mode_: str | None, owner: str, check: str, reload: str, api: str
) -> "Resource":
    """Raises Failure."""
    from node.sync.resource import KEY_SOURCE, Resource, mode

    if api not in ("v2", "v3"):
        raise Failure(f"--api: {api!r} is neither v2 nor v3", USAGE)
    try:
        bits = None if mode_ is None else mode(mode_)
    except ValueError as error:
        raise Failure(f"--mode: {error}", USAGE) from error
    user, _, group = owner.partition(":")
    place = str(dest.absolute())
    source = template if template.startswith(KEY_SOURCE) else str(Path(template).absolute())
    return Resource(
        name=place,
        source=source,
        dest=place,
        prefix=prefix,
        mode=bits,
        owner=user,
        group=group,
        check=check,
        reload=reload,
        api=api,
    )


def _forever(run: Callable[[Callable[[], None]], Coroutine[Any, Any, None]]) -> None:
    """Tells the service manager when all is there."""
    from node.systemd import Notifier

    notifier = Notifier()
    asyncio.run(run(lambda: notifier.ready("following")))


class Teller:
    """Lines for people on standard error; with -o json or jsonl a JSON object each on standard output."""

    def __init__(self, common: Common, dry: bool = False) -> None:
        self._json, self._dry = common.output in ("json", "jsonl"), dry

    def told(self, told: "Told") -> None:
        if self._json:
            self._line(msgspec.to_builtins(told))
            return
        if told.diff:
            print(told.diff, end="" if told.diff.endswith("\n") else "\n")
        words = f": {told.why}" if told.why else ""
        self.said(f"{told.dest}: {told.what} at revision {told.revision}{words}")

    def said(self, words: str) -> None:
        if self._json:
            self._line({"said": words})
        else:
            note(words)

    def noted(self, words: str) -> None:
        if self._json:
            self._line({"noted": words})
        else:
            note(words)

    def _line(self, data: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(data), flush=True)
            sys.stdout.flush()


def mount(
    path: Path,
    prefix: str,
    *,
    mode_: Annotated[str, Parameter(name="--mode")] = "0444",
    api: str = "v3",
    once: bool = False,
    store: Store = STORE,
    common: Common = COMMON,
) -> None:
    """Show the keys below PREFIX as a read-only tree of files at PATH, which follows them until interrupted.

    PATH becomes a link to a folder beside it; each change is there whole, or not yet.

    Parameters
    ----------
    path
        Where. It must not be there, or be an empty folder, or a link of ours.
    prefix
        Of the keys; / means all that begin with a slash, '' all.
    mode_
        Of the files, such as 0440.
    api
        v3, or v2: the older store of keys.
    once
        Make the tree and end.
    """
    from node.sync.mounting import Mount
    from node.sync.resource import mode
    from node.sync.service import source_of

    if api not in ("v2", "v3"):
        raise Failure(f"--api: {api!r} is neither v2 nor v3", USAGE)
    try:
        bits = mode(mode_)
    except ValueError as error:
        raise Failure(f"--mode: {error}", USAGE) from error
    endpoints = endpoints_of(store, common)
    say = Teller(common).said

    async def work(ready: Callable[[], None]) -> None:
        made = Mount(path, prefix, source_of(api, endpoints()), say, bits)
        await (made.once() if once else made.run(ready))

    _forever(work)
