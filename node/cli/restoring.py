"""``corelog kv restore``: keys of either of etcd's key spaces as they once were."""

import json
from typing import Annotated, Any

from cyclopts import Parameter

from .client import COMMON, NOT_FOUND, USAGE, Client, Common, Failure, note
from .history import print_changed
from .kv3 import FORM, Api, Form, Row, blob, key_bytes, print_differences, spaces


def restore(
    *prefixes: str,
    at: Annotated[str, Parameter(help="A position (1234.7), a time ('2 minutes ago') or a revision of v3 (r123).")],
    exact: Annotated[bool, Parameter(help="Of v3: the names are whole keys.")] = False,
    if_revision: Annotated[int, Parameter(help="Of v3: refused if one changed after it (a dry run tells one).")] = 0,
    if_index: Annotated[int, Parameter(help="Of v2: refused if one changed after it (a dry run tells one).")] = 0,
    force: bool = False,
    dry_run: bool = False,
    form: Form = FORM,
    common: Common = COMMON,
) -> None:
    """Make keys what they were, all of them at once; history stays. Without PREFIXES all keys.

    PREFIXES are what keys of v3 begin with, and of v2 keys with all below them. Refused (exit code 4) if one of them
    changes meanwhile. Leases and TTLs don't come back.

    Parameters
    ----------
    force
        Put and delete what was planned, whatever changes meanwhile.
    dry_run
        Show what would change, change nothing.
    """
    meant = spaces(form, {"--exact": exact, "--if-revision": if_revision}, {"--if-index": if_index}, at)
    asks: dict[Api, Row] = {}
    if "v3" in meant:
        named = [blob(key_bytes(one, form)) for one in prefixes]
        asks["v3"] = {"at": at, "keys" if exact else "prefixes": named, "if_revision": if_revision, "force": force}
    if "v2" in meant:
        named = [blob(one.encode("utf-8", "surrogateescape")) for one in prefixes]
        asks["v2"] = {"at": at, "keys": named, "if_index": if_index, "force": force}
    if len(meant) == 1:
        api = meant[0]
        told = _asked(api, asks[api], dry_run, common)
    else:
        api, told = _chosen(asks, common)
        if not dry_run:
            # the moment that was looked at: "a minute ago" is another one by now
            told = _asked(api, {**asks[api], "at": told["at"]}, False, common)
    if common.output in ("json", "jsonl"):
        print(json.dumps({"api": api, **told}, indent=2 if common.output == "json" else None))
    else:
        _print(api, told, dry_run, common, form)


def _asked(api: Api, ask: Row, dry_run: bool, common: Common) -> Row:
    query = {"dry_run": "1" if dry_run else None}
    told: Row = json.loads(Client(common).open("POST", f"/v1/k{api}/restore", query, ask).read())
    return told


def _chosen(asks: dict[Api, Row], common: Common) -> tuple[Api, Row]:
    """The key space in which something differs, and the plan there. Raises Failure where both do: one event can't
    change both."""
    plans: dict[Api, Row] = {}
    for api, ask in asks.items():
        try:
            plans[api] = _asked(api, ask, True, common)
        except Failure as error:
            if error.kind != "no-such-key":
                raise
    if not plans:
        raise Failure("none of these keys is there, nor was then, of v3 or of v2", NOT_FOUND)
    differing = [api for api, plan in plans.items() if plan["changes"]]
    if len(differing) > 1:
        words = " and ".join(f"{len(plans[api]['changes'])} of {api}" for api in differing)
        raise Failure(f"keys of both differ ({words}): say --api v2 or --api v3, one after the other", USAGE)
    api = differing[0] if differing else next(iter(plans))
    return api, plans[api]


def _print(api: Api, told: dict[str, Any], dry_run: bool, common: Common, form: Form) -> None:
    unit = "revision" if api == "v3" else "index"
    if told.get("position"):
        note(f"position {told['position']}")
    if dry_run and api == "v3":
        print_differences(told["changes"], common, form)
    elif dry_run:
        print_changed(told["changes"], common)
    count = f"{told['puts']} keys put, {told['deletes']} deleted"
    if not told["puts"] + told["deletes"]:
        print(f"nothing to do: all is as it was at {unit} {told['restored']}")
    elif dry_run:
        print(f"{count}: it would be so; with --if-{unit} {told['base']} only if nothing changes before")
    else:
        print(f"{count}: as they were at {unit} {told['restored']}, in {unit} {told[unit]}")
    if lost := told.get("without_lease"):
        note(f"{lost} of the keys put had a lease then; leases don't come back, they are without one")
    if lost := told.get("without_ttl"):
        note(f"{lost} of the keys put had a TTL then; TTLs don't come back, they stay")
