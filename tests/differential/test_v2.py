"""A fixed choice of v2 sequences in the quick suite, beside etcd 3.4."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from actors.kv.v2 import errors
from actors.kv.v2.store import Store
from tests.differential.running import Differ
from tests.differential.v2 import Pairs
from tests.differential.v2_steps import EXPIRY, FIELDS, SET_UP, auth_sequences, sequences


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    with Pairs(tmp_path_factory.mktemp("differential-v2")) as made:
        yield made


#: Codes that nobody can be told here: etcd's raft stands still or elects; a watch of before a restore.
UNREACHABLE = {errors.RAFT_INTERNAL, errors.LEADER_ELECT, errors.WATCHER_CLEARED}
#: What etcd's pages say, with NAME for users, roles and patterns.
WORDS = {
    "Insufficient credentials",
    "Invalid JSON in request body.",
    "Invalid path",
    "No such member: NAME",
    "Not found",
    "Role JSON contains both permissions and grant/revoke",
    "Role JSON name does not match the name in the URL",
    "URL scheme must be http, https, unix, or unixs: nonsense",
    "User JSON contains both roles and grant/revoke",
    "User JSON name does not match the name in the URL",
    "auth: Cannot create user NAME with an empty password",
    "auth: Cannot delete NAME user while auth is enabled.",
    "auth: Cannot modify role NAME: is NAME role.",
    "auth: Granting duplicate read permission NAME",
    "auth: Granting duplicate role NAME for user NAME",
    "auth: Granting duplicate write permission NAME",
    "auth: No NAME user available, please create one",
    "auth: Revoking ungranted role NAME for user NAME",
    "auth: Role NAME already exists.",
    "auth: Role NAME does not exist.",
    "auth: Role NAME doesn't exist.",
    "auth: Role not updated. Use grant/revoke to update the role.",
    "auth: User NAME already exists.",
    "auth: User NAME does not exist",
    "auth: User NAME does not exist.",
    "auth: User not updated. Use grant/revoke/password to update the user.",
    "auth: already disabled",
    "auth: already enabled",
    "no valid URLs given",
}
#: What etcd looks at of a request, by method.
MEANINGFUL = {
    "GET": "recursive sorted quorum wait waitIndex stream",
    "PUT": "value dir ttl prevExist prevValue prevIndex refresh noValueOnSuccess",
    "POST": "value dir ttl",
    "DELETE": "recursive dir prevValue prevIndex",
}


@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(sequences)
def test_answers_and_watches_are_those_of_etcd(pairs: Pairs, sequence: list[object]) -> None:
    pairs.run(sequence)


def test_keys_end_as_in_etcd(pairs: Pairs) -> None:
    pairs.run(EXPIRY)


#: Real etcd takes 60 ms of a core for each password: no time to shrink.
NO_SHRINKING = (Phase.explicit, Phase.generate)


@settings(max_examples=8, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=NO_SHRINKING)
@given(auth_sequences)
def test_users_may_what_they_may_in_etcd(pairs: Pairs, sequence: list[object]) -> None:
    pairs.run(sequence)


#: Each of auth's words that few random sequences meet.
ROOT, R = ("root", "pw"), {"role": "r"}
RARE = [
    *SET_UP,
    ("Auth", 0, "PUT", "enable", None, ROOT),
    ("Auth", 0, "PUT", "users/alice", {"user": "alice", "grant": ["r"]}, ROOT),
    ("Auth", 0, "PUT", "users/alice", {"user": "alice", "password": "pw", "roles": ["s"]}, ROOT),
    ("Auth", 0, "PUT", "users/alice", {"user": "alice", "grant": ["s"], "roles": ["s"]}, ROOT),
    ("Auth", 0, "PUT", "users/bob", {"user": "bob"}, ROOT),
    ("Auth", 0, "PUT", "users/other", {"user": "bob"}, ROOT),
    ("Auth", 0, "PUT", "users/bob", "not JSON", ROOT),
    ("Auth", 0, "DELETE", "users/root", None, ROOT),
    ("Auth", 0, "DELETE", "users/bob", None, ROOT),
    ("Auth", 0, "GET", "users/bob", None, ROOT),
    ("Auth", 0, "PUT", "roles/r", {**R, "grant": {"kv": {"read": ["@/*"]}}}, ROOT),
    ("Auth", 0, "PUT", "roles/r", {**R, "grant": {"kv": {"write": ["@/a"]}}}, ROOT),
    ("Auth", 0, "PUT", "roles/r", {**R, "revoke": {"kv": {"write": ["/no"]}}}, ROOT),
    ("Auth", 0, "PUT", "roles/r", {**R, "permissions": {"kv": {"read": ["/x"]}}, "grant": {"kv": {"read": ["/x"]}}},
     ROOT),
    ("Auth", 0, "PUT", "roles/other", R, ROOT),
    ("Auth", 0, "PUT", "roles/r", R, ROOT),
    ("Auth", 0, "PUT", "roles/root", {"role": "root"}, ROOT),
    ("Auth", 0, "DELETE", "roles/none", None, ROOT),
    ("Auth", 0, "GET", "roles/none", None, ROOT),
    ("Auth", 0, "DELETE", "roles/r", None, ROOT),
    ("Auth", 0, "GET", "users/alice", None, ROOT),
    ("Auth", 0, "GET", "users", None, ROOT),
    ("Auth", 0, "DELETE", "enable", None, ROOT),
    ("Auth", 0, "DELETE", "enable", None, ROOT),
    ("Auth", 0, "PUT", "users/bob", {"user": "bob", "password": "pw"}, ("", "")),
    ("Auth", 0, "PUT", "users/bob", {"user": "bob", "revoke": ["s"]}, ("", "")),
    ("Auth", 0, "DELETE", "users/root", None, ("", "")),
    ("Auth", 0, "PUT", "enable", None, ("", "")),
]  # fmt: skip


#: And of keys' errors.
RARE_KEYS = [
    ("Page", 0, "POST", "/v2/members", '{"peerURLs":[]}', "application/json", ("", "")),
    ("Keys", 0, "PUT", "@/d/a", {"value": "one"}, True, "", ("", "")),
    ("Keys", 0, "DELETE", "@/d", {"dir": "true"}, True, "", ("", "")),
    ("Keys", 0, "PUT", "@/d/a", {"value": "two", "refresh": "true", "ttl": "1000"}, True, "", ("", "")),
]


def test_what_few_sequences_meet_is_told_as_in_etcd(pairs: Pairs) -> None:
    pairs.run(RARE)
    pairs.run(RARE_KEYS)


def test_nothing_was_left_out(pairs: Pairs) -> None:
    """After the sequences."""
    if len(pairs.steps) < 5:
        pytest.skip("runs with the sequences only")
    codes = {str(code) for code in errors.MESSAGES.keys() - UNREACHABLE}
    assert codes - set(pairs.errors) == set()
    assert WORDS - set(pairs.errors) == set()
    sent = {f"{method} {name}" for method, names in MEANINGFUL.items() for name in names.split()}
    assert sent - set(pairs.fields) == set()
    assert {name for names in MEANINGFUL.values() for name in names.split()} == set(FIELDS)
    auth = {f"users {name}" for name in ("user", "password", "roles", "grant", "revoke")}
    auth |= {f"roles {name}" for name in ("role", "permissions", "grant", "revoke")}
    assert auth - set(pairs.fields) == set()


def test_a_planted_fault_is_found(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that is skipped at each delete."""
    really = Store.took

    def spoiled(store: Store, change: object) -> object:
        if change[1] == "delete":  # type: ignore[index]
            change = (change[0] + 1, *change[1:])  # type: ignore[index]
        return really(store, change)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "took", spoiled)

    @settings(max_examples=50, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(sequences)
    def search(sequence: list[object]) -> None:
        pairs.run(sequence)

    with pytest.raises(Differ):
        search()
