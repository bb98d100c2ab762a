"""What users may, and what changes of users and roles come to, by the rules of etcd's auth store."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.v3 import errors
from actors.kv.v3.auth import BOTH, READ, ROOT, TOKENS_MAX, WRITE, Auth, check_event, needs
from actors.kv.v3.errors import V3Error
from actors.kv.v3.leases import Leases
from streams.events import kv3 as says
from streams.events.base import Base64, Data

KEYS = [b"a", b"a\0", b"aa", b"ab", b"b", b"c"]
ends = st.sampled_from([b"", b"\0", *KEYS])
permissions = st.lists(st.tuples(st.sampled_from([READ, WRITE, BOTH]), st.sampled_from(KEYS), ends), max_size=4)


def changed(auth: Auth, *said: Data) -> Auth:
    for data in said:
        auth.change(data)
    return auth


def secured() -> Auth:
    """With root, and a user ann who has a role of nothing."""
    auth = changed(Auth(), says.UserAdd(ROOT, "h"), says.RoleAdd(ROOT), says.UserGrant(ROOT, ROOT))
    return changed(auth, says.UserAdd("ann", "h"), says.RoleAdd("r"), says.UserGrant("ann", "r"), says.AuthEnable())


def granted(role: str, kind: int, key: bytes, end: bytes = b"") -> says.RoleGrant:
    return says.RoleGrant(role, says.Permission(kind, Base64(key), Base64(end)))


def may(auth: Auth, user: str, key: bytes, end: bytes, kind: int) -> bool:
    try:
        auth.check(user, auth.revision, key, end, kind)
    except V3Error as error:
        assert error is errors.PERMISSION_DENIED
        return False
    return True


def behind(key: bytes, start: bytes, end: bytes) -> bool:
    return key == start if not end else start <= key and (end == b"\0" or key < end)


@settings(deadline=None)
@given(permissions, st.sampled_from(KEYS), ends, st.sampled_from([READ, WRITE]))
def test_a_range_is_allowed_if_each_of_its_keys_is(
    given_: list[tuple[int, bytes, bytes]], start: bytes, end: bytes, kind: int
) -> None:
    auth, kinds = secured(), dict[tuple[bytes, bytes], int]()
    for one, key, last in given_:
        if not last or last == b"\0" or last > key:
            changed(auth, granted("r", one, key, last))
            kinds[key, last] = one
    # what a key is to be looked at: each of those that are named, and one right behind it; and one behind all
    points = sorted({*KEYS, *(key + b"\0" for key in KEYS), b"zz"})
    asked = [point for point in points if behind(point, start, end)]
    allowed = all(any(one in (BOTH, kind) and behind(point, *named) for named, one in kinds.items()) for point in asked)
    assert may(auth, "ann", start, end, kind) == (allowed and bool(asked))
    assert may(auth, ROOT, start, end, kind)


def test_who_is_asked_before_what() -> None:
    auth = secured()
    for user, revision, error in [
        ("ann", 0, errors.USER_EMPTY),
        ("ann", auth.revision - 1, errors.OLD_AUTH_REVISION),
        ("bob", auth.revision, errors.PERMISSION_DENIED),
        ("ann", auth.revision, errors.PERMISSION_DENIED),
    ]:
        with pytest.raises(V3Error) as raised:
            auth.check(user, revision, b"k", b"", READ)
        assert raised.value is error
    for user, error in [("", errors.USER_EMPTY), ("bob", errors.USER_NOT_FOUND), ("ann", errors.PERMISSION_DENIED)]:
        with pytest.raises(V3Error) as raised:
            auth.check_root(user)
        assert raised.value is error
    auth.check_root(ROOT)
    changed(auth, says.AuthDisable())
    auth.check_root("")
    auth.check("", 0, b"k", b"", WRITE)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (says.UserAdd(""), errors.USER_EMPTY),
        (says.UserAdd("ann"), errors.USER_EXISTS),
        (says.UserDelete("bob"), errors.USER_NOT_FOUND),
        (says.UserDelete(ROOT), errors.INVALID_MANAGEMENT),
        (says.UserPassword("bob", "h"), errors.USER_NOT_FOUND),
        (says.UserGrant("bob", "r"), errors.USER_NOT_FOUND),
        (says.UserGrant("ann", "s"), errors.ROLE_NOT_FOUND),
        (says.UserRevoke("ann", "s"), errors.ROLE_NOT_GRANTED),
        (says.UserRevoke("bob", "r"), errors.USER_NOT_FOUND),
        (says.UserRevoke(ROOT, ROOT), errors.INVALID_MANAGEMENT),
        (says.RoleAdd(""), errors.ROLE_EMPTY),
        (says.RoleAdd("r"), errors.ROLE_EXISTS),
        (says.RoleDelete("s"), errors.ROLE_NOT_FOUND),
        (says.RoleDelete(ROOT), errors.INVALID_MANAGEMENT),
        (granted("r", READ, b""), errors.INVALID_MANAGEMENT),
        (granted("r", READ, b"b", b"b"), errors.INVALID_MANAGEMENT),
        (granted("r", READ, b"b", b"a"), errors.INVALID_MANAGEMENT),
        (granted("s", READ, b"a"), errors.ROLE_NOT_FOUND),
        (says.RoleRevoke("r", "a"), errors.PERMISSION_NOT_GRANTED),
        (says.RoleRevoke("s", "a"), errors.ROLE_NOT_FOUND),
        (says.AuthToken("bob", Base64(b"d"), 8), errors.OLD_AUTH_REVISION),
        (says.AuthToken("ann", Base64(b"d"), 1), errors.OLD_AUTH_REVISION),
    ],
)
def test_what_is_refused_changes_nothing(said: Data, error: V3Error) -> None:
    auth, same = secured(), secured()
    with pytest.raises(V3Error) as raised:
        auth.change(said)
    assert raised.value is error
    assert auth.encode() == same.encode()


def test_each_change_counts_and_one_that_changes_nothing_does_not() -> None:
    auth = Auth()
    counted = []
    for said in (
        says.UserAdd("ann"), says.RoleAdd("r"), says.UserGrant("ann", "r"), says.UserGrant("ann", "r"),
        granted("r", READ, b"a"), granted("r", WRITE, b"a"), says.UserPassword("ann", "h"), says.RoleRevoke("r", "a"),
        says.AuthDisable(), says.UserRevoke("ann", "r"), says.UserGrant("ann", ROOT), says.RoleDelete("r"),
        says.UserDelete("ann"),
    ):  # fmt: skip
        changed(auth, said)
        counted.append(auth.revision)
    assert counted == [2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12]


def test_auth_needs_root_and_its_role_and_is_switched_once() -> None:
    auth = Auth()
    with pytest.raises(V3Error) as raised:
        auth.change(says.AuthEnable())
    assert raised.value is errors.ROOT_USER_MISSING
    changed(auth, says.UserAdd(ROOT), says.RoleAdd(ROOT))
    with pytest.raises(V3Error) as raised:
        auth.change(says.AuthEnable())
    assert raised.value is errors.ROOT_ROLE_MISSING
    changed(auth, says.UserGrant(ROOT, ROOT), says.AuthEnable())
    before = auth.revision
    changed(auth, says.AuthEnable())
    assert (auth.enabled, auth.revision) == (True, before)
    changed(auth, says.AuthDisable())
    assert (auth.enabled, auth.revision) == (False, before + 1)
    with pytest.raises(V3Error) as raised:
        auth.change(says.AuthToken("ann", Base64(b"d"), auth.revision))
    assert raised.value is errors.AUTH_NOT_ENABLED


def test_tokens_end_with_their_user_its_password_and_auth_and_the_oldest_first() -> None:
    def token(auth: Auth, user: str, digest: bytes) -> says.AuthToken:
        return says.AuthToken(user, Base64(digest), auth.revision)

    auth = secured()
    changed(auth, token(auth, "ann", b"1"), token(auth, ROOT, b"2"))
    assert auth.tokens == {b"1": "ann", b"2": ROOT}
    changed(auth, says.UserPassword("ann", "new"))
    assert auth.tokens == {b"2": ROOT}
    assert auth.users["ann"].hash == "new"
    changed(auth, token(auth, "ann", b"3"))
    changed(auth, says.UserDelete("ann"))
    assert auth.tokens == {b"2": ROOT}
    changed(auth, *(token(auth, ROOT, b"%d" % number) for number in range(3, TOKENS_MAX + 3)))
    assert len(auth.tokens) == TOKENS_MAX
    assert b"2" not in auth.tokens
    assert b"3" in auth.tokens
    changed(auth, says.AuthDisable())
    assert auth.tokens == {}


def test_a_role_that_is_deleted_is_nobodys() -> None:
    auth = secured()
    changed(auth, says.RoleAdd("q"), says.UserGrant("ann", "q"), granted("q", BOTH, b"a"))
    assert auth.users["ann"].roles == ["q", "r"]
    assert may(auth, "ann", b"a", b"", READ)
    changed(auth, says.RoleDelete("q"))
    assert auth.users["ann"].roles == ["r"]
    assert not may(auth, "ann", b"a", b"", READ)
    assert auth.users[ROOT].roles == [ROOT]


@settings(deadline=None)
@given(permissions)
def test_a_snapshot_gives_all_of_it_back(given_: list[tuple[int, bytes, bytes]]) -> None:
    auth, again = secured(), Auth()
    changed(auth, says.AuthToken("ann", Base64(b"\xff"), auth.revision))
    for one, key, last in given_:
        if not last or last == b"\0" or last > key:
            changed(auth, granted("r", one, key, last))
    assert [one.key for one in auth.roles["r"]] == sorted(one.key for one in auth.roles["r"])
    again.restore(auth.encode())
    for what in ("enabled", "revision", "users", "roles", "tokens"):
        assert getattr(again, what) == getattr(auth, what)


def test_untouched_has_nothing_to_keep() -> None:
    assert Auth().encode() is None
    assert changed(Auth(), says.RoleAdd("r")).encode() is not None
    assert changed(Auth(), says.UserAdd("u"), says.UserDelete("u")).encode() is not None


def leased() -> Leases:
    leases = Leases()
    leases.grant(says.LeaseGrant(7, 10), 1)
    leases.attach(7, b"x")
    return leases


@pytest.mark.parametrize(
    ("said", "needed"),
    [
        (says.Put("k", "v"), [(b"k", b"", WRITE)]),
        (says.Put("k", "v", lease=7), [(b"k", b"", WRITE), (b"x", b"", WRITE)]),
        (says.Put("k", "v", lease=8), [(b"k", b"", WRITE)]),
        (says.Delete("k", "l"), [(b"k", b"l", WRITE)]),
        (says.LeaseRevoke(7), [(b"x", b"", WRITE)]),
        (says.LeaseGrant(9, 10), []),
        (
            says.Txn(
                [says.Compare("c", range_end="d")],
                [says.OpPut("p"), says.OpTxn([], [says.OpDelete("q")], [])],
                [says.OpRange("r", "s")],
            ),
            [(b"c", b"d", READ), (b"p", b"", WRITE), (b"q", b"", WRITE), (b"r", b"s", READ)],
        ),
    ],
)
def test_what_a_command_needs(said: Any, needed: list[Any]) -> None:
    assert needs(leased(), said) == needed


def test_commands_are_checked_before_they_are_applied() -> None:
    auth = changed(secured(), granted("r", WRITE, b"k"))
    now = auth.revision
    check_event(auth, leased(), says.Put("k", "v", auth=now), "user:ann")
    check_event(auth, leased(), says.AuthToken("ann", Base64(b"d"), now), "")
    check_event(auth, leased(), says.Compact(3), "user:root")
    for said, principal, error in [
        (says.Put("j", "v", auth=now), "user:ann", errors.PERMISSION_DENIED),
        (says.Put("k", "v", auth=now, lease=7), "user:ann", errors.PERMISSION_DENIED),
        (says.Put("k", "v", auth=now), "ann", errors.PERMISSION_DENIED),
        (says.Put("k", "v"), "user:ann", errors.USER_EMPTY),
        (says.Compact(3), "user:ann", errors.PERMISSION_DENIED),
        (says.Compact(3), "root", errors.USER_EMPTY),
        (says.Downgrade("3.4"), "user:ann", errors.PERMISSION_DENIED),
        (says.RoleAdd("q"), "user:ann", errors.PERMISSION_DENIED),
    ]:
        with pytest.raises(V3Error) as raised:
            check_event(auth, leased(), said, principal)
        assert raised.value is error
