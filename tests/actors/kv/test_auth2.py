"""v2's users and roles: what each change comes to, in etcd 3.4's words, and what each user may."""

import contextlib
import queue
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.state import KvFold
from actors.kv.v2.auth import (
    DIRECTORIES,
    GUEST,
    ROOT,
    Auth,
    AuthError,
    Role,
    check_change,
    check_command,
    enabled,
    role_data,
    user_of,
)  # fmt: skip
from actors.kv.v2.errors import UNAUTHORIZED, V2Error
from actors.setting import Etcd
from streams.events import kv as kv_says
from streams.events import kv2 as says
from streams.events.base import Base64, Data, say
from streams.outcomes import Accepted, Rejected
from streams.records import Record
from streams.replay import Context, LogState, Position
from tests.actors.kv.server import Client, Running

Rights = says.Rights


def changed(auth: Auth, *said: Data) -> Auth:
    for data in said:
        auth.change(data)
    return auth


def secured() -> Auth:
    """On, with ann, who may read /a and write below /w."""
    auth = changed(Auth(), says.UserAdd(ROOT, "h"), says.RoleAdd("r", Rights(["/a"], ["/w*"])))
    return changed(auth, says.UserAdd("ann", "h", ["r"]), says.AuthEnable())


def test_the_first_change_makes_the_directories_too() -> None:
    auth = Auth()
    assert auth.change(says.UserAdd("ann", "h", ["r"])) == ({"user": "ann", "roles": ["r"]}, 1 + DIRECTORIES)
    assert auth.change(says.UserAdd("bob", "h")) == ({"user": "bob", "roles": None}, 1)
    assert auth.change(says.UserAdd(ROOT, "h")) == ({"user": ROOT, "roles": [ROOT]}, 1)
    assert auth.revision == 4


def test_enabling_makes_the_guest_and_happens_once() -> None:
    auth = changed(Auth(), says.UserAdd(ROOT, "h"))
    assert not enabled(auth)
    assert auth.change(says.AuthEnable()) == (None, 2)
    assert enabled(auth)
    assert auth.roles == {GUEST: Role(["/*"], ["/*"])}
    assert auth.change(says.AuthDisable()) == (None, 1)
    assert not enabled(auth)
    changed(auth, says.RoleUpdate(GUEST, revoke=Rights(["/*"], ["/*"])))
    assert auth.change(says.AuthEnable()) == (None, 1)
    assert auth.roles == {GUEST: Role([], [])}
    assert auth.revision == 6


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        (says.AuthEnable(), 409, "auth: already enabled"),
        (says.UserAdd("ann", "h"), 409, "auth: User ann already exists."),
        (says.UserUpdate("bob"), 404, "auth: User bob does not exist."),
        (says.UserUpdate("ann"), 400, "auth: User not updated. Use grant/revoke/password to update the user."),
        (says.UserUpdate("ann", grant=["r"]), 409, "auth: Granting duplicate role r for user ann"),
        (says.UserUpdate("ann", grant=["s", "s"]), 409, "auth: Granting duplicate role s for user ann"),
        (says.UserUpdate("ann", revoke=["s"]), 409, "auth: Revoking ungranted role s for user ann"),
        (says.UserUpdate("ann", revoke=["r", "r"]), 409, "auth: Revoking ungranted role r for user ann"),
        (says.UserUpdate(ROOT, grant=[ROOT]), 409, "auth: Granting duplicate role root for user root"),
        (says.UserDelete(ROOT), 403, "auth: Cannot delete root user while auth is enabled."),
        (says.UserDelete("bob"), 404, "auth: User bob does not exist"),
        (says.RoleAdd(ROOT), 403, "auth: Cannot modify role root: is root role."),
        (says.RoleAdd("r"), 409, "auth: Role r already exists."),
        (says.RoleUpdate(ROOT), 403, "auth: Cannot modify role root: is root role."),
        (says.RoleUpdate("s"), 404, "auth: Role s does not exist."),
        (says.RoleUpdate("r"), 400, "auth: Role not updated. Use grant/revoke to update the role."),
        (says.RoleUpdate("r", Rights(["/a"])), 409, "auth: Granting duplicate read permission /a"),
        (says.RoleUpdate("r", Rights([], ["/x", "/w*"])), 409, "auth: Granting duplicate write permission /w*"),
        (says.RoleDelete(ROOT), 403, "auth: Cannot modify role root: is root role."),
        (says.RoleDelete("s"), 404, "auth: Role s doesn't exist."),
    ],
)
def test_what_is_refused_changes_nothing(said: Data, status: int, words: str) -> None:
    auth = secured()
    with pytest.raises(AuthError) as raised:
        auth.change(said)
    assert (raised.value.status, str(raised.value), raised.value.steps) == (status, words, 0)
    assert auth == secured()


@pytest.mark.parametrize(
    ("said", "status", "words", "steps"),
    [
        (says.AuthEnable(), 409, "auth: No root user available, please create one", 0),
        (says.AuthDisable(), 409, "auth: already disabled", 0),
        (says.UserDelete("bob"), 404, "auth: User bob does not exist", DIRECTORIES),
        (says.RoleDelete("s"), 404, "auth: Role s doesn't exist.", DIRECTORIES),
    ],
)
def test_what_is_refused_first_may_make_the_directories(said: Data, status: int, words: str, steps: int) -> None:
    auth = Auth()
    with pytest.raises(AuthError) as raised:
        auth.change(said)
    assert (raised.value.status, str(raised.value), raised.value.steps) == (status, words, steps)
    assert auth == Auth(made=bool(steps))
    assert auth.change(says.UserAdd("ann", "h"))[1] == 1 + DIRECTORIES - steps


def test_users_and_roles_change_in_gos_order() -> None:
    auth = secured()
    before = auth.revision
    for said, came in [
        (says.UserUpdate("ann", grant=["z", "é", "a"]), {"user": "ann", "roles": ["a", "r", "z", "é"]}),
        (says.UserUpdate("ann", "new", revoke=["z", "r"]), {"user": "ann", "roles": ["a", "é"]}),
        (says.UserUpdate("ann", grant=["q"], revoke=["q", "a"]), {"user": "ann", "roles": ["é"]}),
        (says.UserUpdate("ann", "newer"), {"user": "ann", "roles": ["é"]}),
        (says.RoleUpdate("r", Rights(["/c", "/b"]), Rights(["/a"], ["/none"])), role("r", ["/b", "/c"], ["/w*"])),
        (says.RoleDelete("r"), None),
        (says.UserDelete("ann"), None),
    ]:
        assert auth.change(said) == (came, 1)
    assert auth.revision == before + 7
    assert (list(auth.users), list(auth.roles)) == ([ROOT], [GUEST])


def role(name: str, read: list[str] | None, write: list[str] | None) -> dict[str, Any]:
    return {"role": name, "permissions": {"kv": {"read": read, "write": write}}}


def test_a_password_stays_unless_it_is_said() -> None:
    auth = changed(secured(), says.UserUpdate("ann", grant=["q"]))
    assert auth.users["ann"].hash == "h"
    assert changed(auth, says.UserUpdate("ann", "new")).users["ann"].hash == "new"


def test_root_may_be_deleted_while_auth_is_off() -> None:
    auth = changed(secured(), says.AuthDisable(), says.UserDelete(ROOT))
    assert list(auth.users) == ["ann"]


def test_what_a_role_was_made_with_is_shown_until_it_is_changed() -> None:
    auth = Auth()
    kv = {"kv": {"read": ["/g"], "write": None}}
    assert auth.change(says.RoleAdd("r", Rights(["/a"]), grant=Rights(["/g"])))[0] == {
        **role("r", ["/a"], None), "grant": kv,
    }  # fmt: skip
    assert auth.change(says.RoleUpdate("r", revoke=Rights(["/a"])))[0] == role("r", [], [])
    assert auth.change(says.RoleAdd("q", revoke=Rights(["/g"])))[0] == {**role("q", None, None), "revoke": kv}
    assert role_data(ROOT, None) == role(ROOT, ["/*"], ["/*"])


names = st.text("ab/*", max_size=4)


@settings(deadline=None)
@given(st.lists(names, max_size=4), names, st.booleans(), st.booleans())
def test_a_pattern_allows_its_key_or_what_begins_so(
    patterns: list[str], key: str, write: bool, recursive: bool
) -> None:
    auth = Auth(users={"u": user_with("r")}, roles={"r": Role(*((None, patterns) if write else (patterns, None)))})
    prefixes = [one[:-1] for one in patterns if one.endswith("*")]
    exactly = [one for one in patterns if not one.endswith("*")]
    allowed = any(key.startswith(prefix) for prefix in prefixes)
    assert auth.allows("u", key, write, True) == allowed
    assert auth.allows("u", key, write, recursive) == (allowed or (key in exactly and not recursive))
    assert not auth.allows("u", key, not write, recursive)
    guests = Auth(roles={GUEST: auth.roles["r"]})
    assert guests.allows("", key, write, recursive) == (allowed or key in exactly)
    assert not auth.allows("", key, write, recursive)
    assert not auth.allows("other", key, write, recursive)


def user_with(*roles: str) -> Any:
    return changed(Auth(), says.UserAdd("u", "h", list(roles))).users["u"]


def test_root_may_all_and_who_has_its_role_too() -> None:
    auth = changed(secured(), says.UserAdd("bob", "h", ["gone", ROOT]))
    assert auth.allows(ROOT, "/x", True, True)
    assert auth.allows("bob", "/x", True, True)
    assert auth.roles_of("bob") == ["gone", ROOT]
    assert auth.roles_of(ROOT) == [ROOT]
    assert auth.roles_of("eve") == []


def test_commands_on_keys_are_checked_by_who_asks() -> None:
    auth = changed(secured(), says.RoleUpdate(GUEST, Rights([], ["/g"]), Rights(["/*"], ["/*"])))
    now = auth.revision
    for said, user in [
        (kv_says.Set("/w/x", "v"), "user:ann"),
        (kv_says.Put("/w/x", "v"), "user:ann"),
        (kv_says.Set(Base64(b"/w\xff"), "v"), "user:ann"),
        (kv_says.Delete("/w/x", True), "user:ann"),
        (kv_says.Set("/g", "v"), ""),
        (kv_says.Set("/g", "v"), "node:ann"),
        (kv_says.Set("/x", "v", auth=now), "user:eve"),
        (kv_says.Set("/x", "v"), "user:root"),
    ]:
        check_command(auth, said, user)
    for said, user in [
        (kv_says.Set("/a", "v"), "user:ann"),
        (kv_says.Set("/w/x", "v"), "ann"),
        (kv_says.Set("/w/x", "v"), ""),
        (kv_says.Set("/x", "v", auth=now - 1), "user:eve"),
    ]:
        with pytest.raises(V2Error) as raised:
            check_command(auth, said, user)
        assert (raised.value.code, raised.value.cause) == (UNAUTHORIZED, "Insufficient credentials")
        check_command(changed(secured(), says.AuthDisable()), said, user)
    changed(auth, says.RoleUpdate("r", Rights([], ["/d"])))
    check_command(auth, kv_says.Delete("/d"), "user:ann")
    with pytest.raises(V2Error):
        check_command(auth, kv_says.Delete("/d", True), "user:ann")  # recursive: the key alone is not enough


def test_only_root_changes_users_and_who_was_let_through_at_this_revision() -> None:
    auth = secured()
    check_change(auth, says.UserDelete("ann"), "user:root")
    check_change(auth, says.UserDelete("ann", auth=auth.revision), "user:ann")
    for principal in ("user:ann", "root", ""):
        with pytest.raises(AuthError) as raised:
            check_change(auth, says.UserDelete("ann"), principal)
        assert (raised.value.status, str(raised.value)) == (401, "auth: Insufficient credentials")
        check_change(changed(secured(), says.AuthDisable()), says.UserDelete("ann"), principal)
    assert user_of("user:user:ann") == "user:ann"


def test_the_fold_keeps_users_and_their_changes_take_indices_of_its_store() -> None:
    fold = KvFold()
    record = Record("ab" * 16, "kv", "kv@m", 1, 1, 1_700_000_000_000, b"", 3)
    context = Context(Position(3), record, LogState())

    def done(data: Data, principal: str = "") -> Any:
        return fold.evolve(say(data, principal=principal), context)

    assert done(says.UserDelete("bob")) == Rejected("v2-auth.404", "auth: User bob does not exist")
    assert fold.store.index == DIRECTORIES
    assert done(says.UserAdd(ROOT, "h")) == Accepted({"user": ROOT, "roles": [ROOT]})
    assert done(says.AuthEnable()) == Accepted(None)
    assert fold.store.index == DIRECTORIES + 3
    assert done(says.UserAdd("ann", "h")) == Rejected("v2-auth.401", "auth: Insufficient credentials")
    assert done(says.UserAdd("ann", "h"), "user:root") == Accepted({"user": "ann", "roles": None})
    assert fold.store.index == DIRECTORIES + 4
    changed(fold.cluster.users2, says.RoleUpdate(GUEST, revoke=Rights(["/*"], ["/*"])))  # type: ignore[arg-type]
    assert isinstance(done(kv_says.Set("/k", "v"), "user:root"), Accepted)
    refused = done(kv_says.Set("/k", "v"))
    assert (refused.code, refused.detail["cause"]) == (f"v2.{UNAUTHORIZED}", "Insufficient credentials")


def test_a_member_that_does_not_know_yet_that_users_are_on_refuses_in_the_same_words(tmp_path: Path) -> None:
    told: queue.Queue[tuple[int, bytes]] = queue.Queue()
    asked: Any = SimpleNamespace(
        body=b"",
        connection=SimpleNamespace(peer="addr:10.0.0.1"),
        respond=lambda status, _, body: told.put((status, body)),
    )
    with Running(tmp_path) as server, contextlib.closing(Client(server.port)) as client:
        json_ = {"Content-Type": "application/json"}
        assert client.raw("PUT", "/v2/auth/users/root", b'{"user":"root","password":"p"}', json_)[0] == 201
        assert client.raw("PUT", "/v2/auth/enable", b"", json_)[0] == 200
        status, _, body = client.raw("PUT", "/v2/auth/enable", b"", json_)
        # let through by one that has not applied it
        server.call(lambda: server.kv_port.users2._submit(asked, says.AuthEnable(), "", 200))
        assert told.get(timeout=10) == (status, body) == (401, b'{"message":"Insufficient credentials"}')


@pytest.mark.parametrize("what", ["auth/users", "auth/roles", "members"])
@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_a_name_that_is_no_text_is_nobodys_and_stops_nothing(tmp_path: Path, what: str, method: str) -> None:
    with Running(tmp_path) as server, contextlib.closing(Client(server.port)) as client:
        status, _, body = client.raw(method, f"/v2/{what}/%ff", b"", {"Content-Type": "application/json"})
        assert 400 <= status < 500
        assert body.isascii() or body.decode()
        assert client.ask("PUT", "/a", "value=1")[0] == 201


def test_a_retry_is_one_though_users_changed_meanwhile(tmp_path: Path) -> None:
    with Running(tmp_path, etcd=Etcd(bcrypt_cost=4)) as server, contextlib.closing(Client(server.port)) as client:
        json_ = {"Content-Type": "application/json", "Authorization": "Basic cm9vdDpw"}
        once = {"Idempotency-Key": "k", "Authorization": "Basic cm9vdDpw"}
        plain = {"Idempotency-Key": "p", "Authorization": "Basic cm9vdDpw"}
        before = client.ask("PUT", "/plain", "value=1", plain)
        assert client.raw("PUT", "/v2/auth/users/root", b'{"user":"root","password":"p"}', json_)[0] == 201
        assert client.raw("PUT", "/v2/auth/enable", b"", json_)[0] == 200
        assert client.ask("PUT", "/plain", "value=1", plain)[::2] == before[::2]
        first = client.ask("PUT", "/job", "value=1&prevExist=false", once)
        assert first[0] == 201
        assert client.raw("PUT", "/v2/auth/users/ann", b'{"user":"ann","password":"p"}', json_)[0] == 201
        assert client.ask("PUT", "/job", "value=1&prevExist=false", once)[::2] == first[::2]
