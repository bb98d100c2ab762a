"""A fixed choice of sequences in the quick suite."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from actors.kv.proto import auth_pb2 as auth
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.v3 import errors
from tests.differential.running import Pairs
from tests.differential.steps import HASHED, auth_sequences, sequences

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    with Pairs(tmp_path_factory.mktemp("differential")) as made:
        yield made


#: Errors of etcd's words that no sequence can meet here, and why.
UNREACHABLE = {
    errors.INVALID_CLIENT_API: "of a client whose version can't be read: tests/actors/kv/test_serving.py",
    errors.TOO_MANY_REQUESTS: "wants 5,000 commands that wait: tests/actors/kv/test_serving.py",
    errors.NO_LEADER: "wants a cluster without a leader",
    errors.NOT_LEADER: "there is one member, and it leads",
    errors.STOPPED: "the servers run on",
    errors.TIMEOUT: "wants a log that stands still",
    errors.UNHEALTHY: "wants members that don't answer",
    errors.TRANSFER_TIMEOUT: "wants a member that doesn't answer",
    errors.NOT_FOR_LEARNERS: "there is no learner: tests/actors/coordination",
    errors.NOT_CAPABLE: "both have the version that can do all",
    errors.VERIFY_ONLY: "wants a key that can't sign: tests/actors/kv/rpc",
    errors.OLD_AUTH_REVISION: "a race between two clients; calls are one after the other here",
    errors.UNKNOWN_METHOD: "an action that protobuf's clients don't send",
}
#: What etcd says that isn't among our errors: of a stream, and of members.
MORE_ERRORS = {
    "RangeStream does not support custom sort orders",
    "RangeStream does not support revision filters",
    "etcdserver: given member URLs are invalid",
}


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(sequences)
def test_answers_as_etcd(pairs: Pairs, sequence: list[object]) -> None:
    pairs.run(sequence)


@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(auth_sequences)
def test_users_may_what_they_may_in_etcd(pairs: Pairs, sequence: list[object]) -> None:
    pairs.run(sequence)


PW = "pw"
#: Each error that few random sequences meet, of users: client 0 is root, 1 alice, 2 nobody.
RARE = [
    ("AuthEnable", 0, pb.AuthEnableRequest()),
    ("UserAdd", 0, pb.AuthUserAddRequest(name="root", password=PW)),
    ("AuthEnable", 0, pb.AuthEnableRequest()),
    ("UserDelete", 0, pb.AuthUserDeleteRequest(name="root")),
    ("Authenticate", 0, "root", PW),
    ("SetUp", 0),
    # who may not read a key of a lease's isn't told of leases
    ("LeaseGrant", 0, pb.LeaseGrantRequest(ID=11, TTL=600)),
    *[("LeaseLeases", client) for client in range(3)],
    ("Put", 0, pb.PutRequest(key=b"c/3", lease=11)),
    *[("LeaseLeases", client) for client in range(3)],
    *[("LeaseTimeToLive", client, 11, keys) for client in range(3) for keys in (False, True)],
    # nor may who may not write one renew it
    *[("LeaseKeepAlive", client, lease) for client in range(3) for lease in (11, 12, 99)],
    *[
        ("Alarm", client, pb.AlarmRequest(action=action, alarm=1, memberID=5))
        for action in range(3)
        for client in (1, 2)
    ],
    *[("Status", client) for client in range(3)],
    # a lock is a key of a queue that is read; and nobody's leases are left where it is refused
    ("Lock", 2, b"zz", 0),
    ("Campaign", 2, b"zz", 0),
    ("LeaseLeases", 0),
    *[(what, client, name, 12) for what in ("Lock", "Campaign") for client in (1, 2) for name in (b"zz", b"c/2")],
    (
        "RoleGrantPermission",
        0,
        pb.AuthRoleGrantPermissionRequest(name="r", perm=auth.Permission(permType=2, key=b"q/b")),
    ),
    ("Lock", 1, b"q", 11),
    ("Campaign", 1, b"q", 11),
    ("Lock", 1, b"a", 12),
    ("Range", 0, pb.RangeRequest(key=b"a", range_end=b"{"), None, (None, None, None, None)),
    ("LeaseLeases", 0),
    ("UserAdd", 0, pb.AuthUserAddRequest(name="alice", password=PW)),
    ("UserAdd", 0, pb.AuthUserAddRequest(password=PW)),
    ("UserGet", 0, pb.AuthUserGetRequest(name="nobody")),
    ("UserRevokeRole", 0, pb.AuthUserRevokeRoleRequest(name="alice", role="none")),
    ("UserGrantRole", 0, pb.AuthUserGrantRoleRequest(user="alice", role="none")),
    ("RoleAdd", 0, pb.AuthRoleAddRequest(name="r")),
    ("RoleAdd", 0, pb.AuthRoleAddRequest()),
    ("RoleGrantPermission", 0, pb.AuthRoleGrantPermissionRequest(name="r")),
    ("RoleRevokePermission", 0, pb.AuthRoleRevokePermissionRequest(role="r", key=b"none", range_end=b"nonf")),
    ("UserDelete", 0, pb.AuthUserDeleteRequest(name="root")),
    ("Put", 1, pb.PutRequest(key=b"\xff")),
    ("Put", 2, pb.PutRequest(key=b"a")),
    ("Authenticate", 2, "alice", "other"),
    # the token is void then
    ("UserChangePassword", 0, pb.AuthUserChangePasswordRequest(name="alice", password=PW)),
    ("Range", 1, pb.RangeRequest(key=b"a"), None, (None, None, None, None)),
]
#: What becomes of passwords: none, as hashes, and of users that have none.
PASSWORDS = [
    ("SetUp", 0),
    *[
        one
        for name, more in (
            ("np", {"options": auth.UserAddOptions(no_password=True)}),
            ("empty", {}),
            ("hashed", {"hashedPassword": HASHED}),
            ("both", {"password": PW, "hashedPassword": "%%%"}),
        )
        for one in (
            ("UserAdd", 0, pb.AuthUserAddRequest(name=name, **more)),
            ("Authenticate", 0, "root", PW),
            ("Authenticate", 2, name, ""),
            ("Authenticate", 2, name, PW),
        )
    ],
    *[
        one
        for name, password, hashed in (
            ("np", PW, ""),
            ("np", "", HASHED),
            ("np", "", ""),
            ("both", "", ""),
            ("both", "", HASHED),
            ("both", "other", "%%%"),
            ("both", "", "%%%"),
            ("nobody", "", ""),
        )
        for one in (
            (
                "UserChangePassword",
                0,
                pb.AuthUserChangePasswordRequest(name=name, password=password, hashedPassword=hashed),
            ),
            ("Authenticate", 0, "root", PW),
            ("Authenticate", 2, name, ""),
            ("Authenticate", 2, name, PW),
        )
    ],
]
#: The same of keys.
RARE_KEYS = [
    ("Txn", 0, pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=b"a"))] * 2)),
    ("Put", 0, pb.PutRequest(key=b"b")),
    ("Put", 0, pb.PutRequest(key=b"b")),
    ("Compact", 0, 1, True),
    ("Range", 0, pb.RangeRequest(key=b"a"), -1, (None, None, None, None)),
    # one more than the limit is ordered with the others
    *[("Put", 0, pb.PutRequest(key=b"o/%d" % number, value=b"%d" % (9 - number))) for number in range(4)],
    *[
        ("Range", 0, pb.RangeRequest(key=b"o/", range_end=b"o0", limit=2, sort_target=target), None, (None,) * 4)
        for target in range(5)
    ],
    # what is compared in a way that doesn't exist
    *[
        ("Txn", 0, pb.TxnRequest(compare=[pb.Compare(key=key, range_end=end, target=target, result=7, version=1)]))
        for target in range(5)
        for key, end in ((b"o/1", b""), (b"none", b""), (b"o/", b"o0"), (b"none", b"nonf"))
    ],
    ("Put", 0, pb.PutRequest(key=b"none", ignore_value=True)),
    ("Put", 0, pb.PutRequest(key=b"b", value=b"x", ignore_value=True)),
    ("Put", 0, pb.PutRequest(key=b"b", lease=11, ignore_lease=True)),
    ("LeaseGrant", 0, pb.LeaseGrantRequest(ID=13, TTL=9_000_000_001)),
    ("LeaseGrant", 0, pb.LeaseGrantRequest(ID=11, TTL=60)),
    ("Downgrade", 0, 0, "x"),
    ("Downgrade", 0, 0, "9.0"),
    *[("Downgrade", 0, 0, version) for version in ("LOWER", "LOWER.9", "LOWER.0-x", "", "2.9")],
    ("Downgrade", 0, 1, "LOWER"),
    ("Downgrade", 0, 1, "LOWER"),
    ("Downgrade", 0, 2, ""),
    ("Member", 0, "MemberAdd", pb.MemberAddRequest(peerURLs=["nonsense"], isLearner=True)),
    ("Member", 0, "MemberPromote", pb.MemberPromoteRequest(ID=99)),
    ("Member", 0, "MemberUpdate", pb.MemberUpdateRequest(ID=99, peerURLs=["http://127.0.0.1:9"])),
    ("Member", 0, "MemberRemove", pb.MemberRemoveRequest(ID=99)),
    ("MemberList", 0, True),
    ("WatchProgress", 0),
    ("MoveLeader", 0, 1),
    ("Alarm", 0, pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, alarm=pb.NOSPACE, memberID=5)),
    ("Put", 0, pb.PutRequest(key=b"a")),
    ("Alarm", 0, pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, alarm=pb.CORRUPT, memberID=5)),
    ("Put", 0, pb.PutRequest(key=b"a")),
    ("Range", 0, pb.RangeRequest(key=b"a"), None, (None, None, None, None)),
    ("Txn", 0, pb.TxnRequest()),
]


@pytest.mark.parametrize("sequence", [RARE, PASSWORDS, RARE_KEYS], ids=["users", "passwords", "keys"])
def test_what_few_sequences_meet_is_told_as_in_etcd(pairs: Pairs, sequence: list[object]) -> None:
    pairs.run(sequence)


def test_nothing_was_left_out(pairs: Pairs) -> None:
    """After the sequences."""
    if sum(pairs.steps.values()) < 1000:
        pytest.skip("runs with the sequences only")
    known = {error for error in vars(errors).values() if isinstance(error, errors.V3Error)}
    reachable = {error.message for error in known if error not in UNREACHABLE} | MORE_ERRORS
    assert reachable - set(pairs.errors) == set()
    assert _fields() - set(pairs.fields) == set()
    assert pairs.crashes == []


def _fields() -> set[str]:
    """Of all that may be asked of etcd, and of the messages in it."""
    asked = {method.input_type for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods}
    found: set[str] = set()
    pending = list(asked)
    while pending:
        for field in pending.pop().fields:
            if field.full_name not in found:
                found.add(field.full_name)
                if field.message_type is not None:
                    pending.append(field.message_type)
    return found
