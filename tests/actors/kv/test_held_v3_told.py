"""What people and clients are told: which event made a revision, what differs, and errors to the letter of etcd's."""

from pathlib import Path

import pytest
from grpc import StatusCode

from actors.kv.state import KvFold
from actors.kv.travel import Traveller
from actors.kv.v3 import errors, past
from actors.kv.v3.errors import V3Error
from actors.kv.v3.past import Difference, Made
from actors.kv.v3.revs import Rev
from streams.events import kv3 as says
from streams.events.base import Data, encode, say, unblob
from streams.history.at import state_at
from streams.log.port import RECORD_BYTES_MAX
from tests.actors.kv.test_travel import History
from tests.folds import LOG


async def told(history: History) -> list[tuple[str, str]]:
    seen: list[Made] = []
    await Traveller(history.log, Path("/nowhere"), LOG).told(None, 0, seen.append)
    return [(one.rev.key.decode(), one.action) for one in seen]


PAST: list[Data] = [
    says.Put("a", "1"),
    says.Put("b", "1"),
    says.Delete("a"),
    says.Txn([], [says.OpPut("a", "2"), says.OpDelete("b"), says.OpTxn([], [says.OpPut("c", "1")])]),
    says.Txn([], [says.OpDelete("", "\0")]),
    says.RestoreBegin("r", 1),
    says.RestorePart("r", 0, [("b", "1"), ("c", "1")], ["a"]),
    says.RestoreEnd("r"),
    says.RestoreBegin("s", 1),
    says.RestorePart("s", 0, [("a", "1")], ["c"]),
    says.RestoreEnd("s"),
]
MADE = [
    ("a", "put"),
    ("b", "put"),
    ("a", "delete"),
    ("a", "txn put"),
    ("b", "txn delete"),
    ("c", "txn put"),
    ("a", "txn delete"),
    ("c", "txn delete"),
    ("b", "restore put"),
    ("c", "restore put"),
    ("c", "restore delete"),
    ("a", "restore put"),
]


@pytest.mark.parametrize("together", [False, True])
async def test_each_change_is_told_by_what_its_event_did(together: bool) -> None:
    """The same whether each had a record of its own or all had one."""
    assert await told(History([PAST] if together else [[one] for one in PAST])) == MADE


async def test_an_import_tells_what_it_brought_deletions_too() -> None:
    source = History([[says.Put("a", "1"), says.Put("b", "1"), says.Delete("a"), says.Put("a", "2")]])
    store = (await state_at(source.log, KvFold)).fold.v3  # type: ignore[attr-defined]
    lines = b"".join(store.encode()).decode()
    steps: list[Data] = [says.ImportBegin("i", 1), says.ImportPart("i", 0, lines), says.ImportEnd("i"), says.Put("c")]
    expected = [("a", "import"), ("b", "import"), ("a", "import delete"), ("a", "import"), ("c", "put")]
    assert await told(History([steps])) == expected


# -- differences, and the parts that even them out ------------------------------------------------------------------


def rev(key: bytes, value: bytes, mod: int = 2) -> Rev:
    return Rev(key, value, mod, mod, 1, 0, 0, None)


def test_a_difference_is_an_addition_a_removal_or_a_change() -> None:
    before = [rev(b"gone", b"1"), rev(b"kept", b"1"), rev(b"other", b"1")]
    after = [rev(b"kept", b"1", 9), rev(b"new", b"1"), rev(b"other", b"2")]
    found = past.compared(before, after)
    assert [(one.key, one.op) for one in found] == [(b"gone", "remove"), (b"new", "add"), (b"other", "change")]


@pytest.mark.parametrize(
    ("size_max", "expected"),
    [
        (19, ["a", "b", "c", "d"]),
        (20, ["ab", "c", "d"]),
        (21, ["ab", "cd"]),
        (40, ["abc", "d"]),
        (41, ["abcd"]),
        (1, ["a", "b", "c", "d"]),
    ],
)
def test_a_part_is_as_large_as_it_may_be_and_no_larger(size_max: int, expected: list[str]) -> None:
    """Unless one key alone is: a and b are 10 bytes, their keys along; c is 20, and d, which is deleted, its name."""
    differences = [
        Difference(b"a", None, rev(b"a", b"v" * 9)),
        Difference(b"b", rev(b"b", b""), rev(b"b", b"v" * 9)),
        Difference(b"c", None, rev(b"c", b"v" * 19)),
        Difference(b"d", rev(b"d", b"v" * 99), None),
    ]
    parts = past.parts(differences, "i", size_max)
    assert [b"".join(unblob(key) for key in [*(key for key, _ in one.puts), *one.deletes]) for one in parts] == [
        names.encode() for names in expected
    ]
    assert [(one.id, one.number) for one in parts] == [("i", number) for number in range(len(parts))]


# -- errors ------------------------------------------------------------------

#: etcd's api/v3rpc/rpctypes: its Go client knows an error by these words alone, others by their status.
WORDS = {
    StatusCode.INVALID_ARGUMENT: (
        "etcdserver: key is not provided", "etcdserver: key not found", "etcdserver: value is provided",
        "etcdserver: lease is provided", "etcdserver: too many operations in txn request",
        "etcdserver: duplicate key given in txn request", "etcdserver: request is too large",
        "etcdserver: user name is empty", "etcdserver: role name is empty",
        "etcdserver: authentication failed, invalid user ID or password", "etcdserver: invalid auth management",
        "etcdserver: wrong downgrade target version format", "etcdserver: invalid downgrade target version",
    ),
    StatusCode.OUT_OF_RANGE: (
        "etcdserver: mvcc: required revision has been compacted",
        "etcdserver: mvcc: required revision is a future revision", "etcdserver: too large lease TTL",
    ),
    StatusCode.RESOURCE_EXHAUSTED: ("etcdserver: mvcc: database space exceeded", "etcdserver: too many requests"),
    StatusCode.NOT_FOUND: ("etcdserver: requested lease not found", "etcdserver: member not found"),
    StatusCode.FAILED_PRECONDITION: (
        "etcdserver: lease already exists", "etcdserver: root user does not exist",
        "etcdserver: root user does not have root role", "etcdserver: user name already exists",
        "etcdserver: user name not found", "etcdserver: role name already exists", "etcdserver: role name not found",
        "etcdserver: role is not granted to the user", "etcdserver: permission is not granted to the role",
        "etcdserver: authentication is not enabled", "etcdserver: not leader", "etcdserver: bad leader transferee",
        "etcdserver: cluster has a downgrade job in progress",
    ),
    StatusCode.PERMISSION_DENIED: ("etcdserver: permission denied",),
    StatusCode.UNAUTHENTICATED: ("etcdserver: invalid auth token",),
    StatusCode.UNAVAILABLE: (
        "etcdserver: no leader", "etcdserver: not capable", "etcdserver: server stopped",
        "etcdserver: request timed out", "etcdserver: unhealthy cluster",
    ),
    StatusCode.DATA_LOSS: ("etcdserver: corrupt cluster",),
}  # fmt: skip


def test_errors_have_the_words_and_the_status_of_etcd() -> None:
    made = {str(one): one for one in vars(errors).values() if isinstance(one, V3Error)}
    for status, words in WORDS.items():
        for text in words:
            number, _ = status.value
            assert text in made
            assert (made[text].code, made[text].rejected.code) == (number, f"v3.{number}")
            assert made[text].rejected.message == text


def test_a_large_value_comes_back_in_a_record_also_where_its_text_has_escapes() -> None:
    value = b'"\\' * 750_000
    [part] = past.parts([Difference(b"k", None, Rev(b"k", value, 2, 2, 1, 0, 0, None))], "i")
    assert unblob(part.puts[0][1]) == value
    assert len(encode([say(part)])) < RECORD_BYTES_MAX
