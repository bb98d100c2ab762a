"""Random steps, as Hypothesis draws them. Revisions are told from the sequence's start, so that they hit something."""

import base64
from typing import Any

import bcrypt
from hypothesis import strategies as st

from actors.kv.proto import auth_pb2 as auth
from actors.kv.proto import etcd_pb2 as pb
from tests.differential.servers import CLIENTS

KEYS = [b"a", b"ab", b"b", b"b\x00", b"c/1", b"c/2", b"d\xff", b"\xff"]
key = st.sampled_from([*KEYS, *KEYS, b""])
some_key = st.sampled_from(KEYS)
end = st.sampled_from([b"", b"", b"\0", b"b", b"c/2", b"d", b"z", b"a"])
value = st.sampled_from([b"", b"x", b"y", b"a longer value", b"\x00\xff"])
lease = st.sampled_from([0, 0, 0, 11, 12, 99])
#: an offset from the sequence's first revision; None: field not set
back = st.one_of(st.none(), st.none(), st.integers(-3, 12))
small = st.integers(0, 4)
rare = st.sampled_from([False, False, False, True])

put = st.builds(
    pb.PutRequest, key=key, value=value, lease=lease, prev_kv=st.booleans(), ignore_value=rare, ignore_lease=rare
)
plain_put = st.builds(pb.PutRequest, key=some_key, value=value, lease=st.sampled_from([0, 0, 11]))
refused_put = st.builds(
    pb.PutRequest, key=some_key, value=value, lease=lease, ignore_value=st.booleans(), ignore_lease=st.booleans()
)
delete = st.builds(pb.DeleteRangeRequest, key=key, range_end=end, prev_kv=st.booleans())
some_range = st.builds(
    pb.RangeRequest,
    key=key,
    range_end=end,
    limit=small,
    sort_order=st.sampled_from([0, 0, 1, 2, 2, 3]),
    sort_target=st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5]),
    serializable=st.booleans(),
    keys_only=rare,
    count_only=rare,
)
bounds = st.tuples(*[st.one_of(st.none(), st.none(), st.none(), st.integers(-3, 12)) for _ in range(4)])


@st.composite
def compares(draw: Any) -> pb.Compare:
    made = pb.Compare(
        target=draw(st.integers(0, 4)), result=draw(st.sampled_from([*range(4)] * 4 + [7])), key=draw(key)
    )
    made.range_end = draw(end)
    number = draw(st.sampled_from([0, 1, 2, 3, 11]))
    # now and then the operand isn't that of the target
    match made.target if draw(st.integers(0, 9)) else draw(st.integers(0, 4)):
        case 0:
            made.version = number
        case 1:
            made.create_revision = number
        case 2:
            made.mod_revision = number
        case 3:
            made.value = draw(value)
        case _:
            made.lease = number
    return made


@st.composite
def operations(draw: Any, depth: int = 1) -> list[pb.RequestOp]:
    kinds = ["put", "put", "range", "delete"] + (["txn"] if depth else [])
    out: list[pb.RequestOp] = []
    for _ in range(draw(st.integers(0, 3))):
        op = pb.RequestOp()
        match draw(st.sampled_from([*kinds, *kinds, *kinds, "nothing"])):
            case "put":
                op.request_put.CopyFrom(draw(st.one_of(plain_put, put)))
            case "range":
                op.request_range.CopyFrom(draw(some_range))
            case "delete":
                op.request_delete_range.CopyFrom(draw(delete))
            case "txn":
                op.request_txn.CopyFrom(draw(txns(depth - 1)))
            case _:
                pass
        out.append(op)
    return out


@st.composite
def txns(draw: Any, depth: int = 1) -> pb.TxnRequest:
    return pb.TxnRequest(
        compare=draw(st.lists(compares(), max_size=2)),
        success=draw(operations(depth)),
        failure=draw(operations(depth)),
    )


@st.composite
def many_operations(draw: Any) -> pb.TxnRequest:
    """Around the limit of 128, outside and inside."""
    outer, inner = draw(st.sampled_from([(128, 0), (129, 0), (64, 64), (64, 65), (1, 127), (1, 128)]))
    op = pb.RequestOp(request_range=pb.RangeRequest(key=b"a", count_only=True))
    made = pb.TxnRequest(success=[op] * (outer - 1 if inner else outer))
    if inner:
        made.success.add().request_txn.success.extend([op] * inner)
    return made


watch = st.builds(
    pb.WatchCreateRequest,
    key=key,
    range_end=end,
    prev_kv=st.booleans(),
    fragment=rare,
    progress_notify=rare,
    filters=st.sampled_from([[], [], [0], [1], [0, 1]]),
    watch_id=st.sampled_from([0, 0, 0, 1, 7]),
)
client = st.integers(0, CLIENTS - 1)
lease_id = st.sampled_from([11, 12, 13, 99])
grant = st.builds(
    pb.LeaseGrantRequest, ID=st.sampled_from([11, 12, 13]), TTL=st.sampled_from([-5, 0, 1000, 2000, 9_000_000_001])
)


def step(name: str, *parts: Any) -> Any:
    return st.tuples(st.just(name), client, *parts)


steps = st.one_of(
    step("Put", plain_put),
    step("Put", put),
    step("Put", refused_put),
    step("DeleteRange", delete),
    step("Range", some_range, back, bounds),
    step("Range", some_range, back, bounds),
    step("RangeStream", some_range, back, bounds),
    step("RangeStream", st.builds(pb.RangeRequest, key=some_key, range_end=end, limit=small), back, bounds),
    step("Txn", txns()),
    step("Txn", txns()),
    step("Compact", st.one_of(st.integers(-3, 12)), st.booleans()),
    step("LeaseGrant", grant),
    step("LeaseGrantAny", st.just(1000)),
    step("LeaseRevoke", lease_id),
    step("LeaseTimeToLive", lease_id, st.booleans()),
    step("LeaseLeases"),
    step("LeaseKeepAlive", lease_id),
    step("HashKV", back),
    step("WatchCreate", watch, back),
    step("WatchCreate", watch, back),
    step("WatchCancel", st.sampled_from([0, 1, 2, 7, 99])),
    step("Alarm", st.builds(pb.AlarmRequest, alarm=st.integers(0, 2), memberID=st.sampled_from([0, 5]))),
    step("MemberList", st.booleans()),
    step("MoveLeader", st.just(1)),
    # Downgrade (etcd looks after it by a clock of its own), progress (untold where a watch is behind: five seconds) and
    # Status (read beside the log) stand in the sequences of test_differential that are always the same
    step("Defragment"),
)

#: Changes of the members that can't be: one that could would need a second server.
members = st.one_of(
    step("Member", st.just("MemberRemove"), st.just(pb.MemberRemoveRequest(ID=99))),
    step("Member", st.just("MemberPromote"), st.just(pb.MemberPromoteRequest(ID=99))),
    step("Member", st.just("MemberUpdate"), st.just(pb.MemberUpdateRequest(ID=99, peerURLs=["http://127.0.0.1:9"]))),
    step(
        "Member",
        st.just("MemberAdd"),
        st.builds(pb.MemberAddRequest, peerURLs=st.sampled_from([[], ["nonsense"]]), isLearner=st.booleans()),
    ),
)
#: Full, or broken: what is refused then. Rare, for little else is met.
alarms = st.builds(
    pb.AlarmRequest, action=st.integers(1, 2), alarm=st.sampled_from([1, 1, 2]), memberID=st.sampled_from([5, 5, 0])
)
# -- users and roles ------------------------------------------------------------------------------------------

user = st.sampled_from(["root", "alice", "bob", "nobody", ""])
role = st.sampled_from(["root", "r", "s", "none", ""])
password = st.sampled_from(["pw", "pw", "other"])
#: Of "pw".
HASHED = base64.b64encode(bcrypt.hashpw(b"pw", bcrypt.gensalt(4))).decode()
#: Without a password, or with one that is hashed already.
odd_users = st.builds(
    pb.AuthUserAddRequest,
    name=user,
    password=st.sampled_from(["", "pw"]),
    hashedPassword=st.sampled_from(["", HASHED]),
    options=st.builds(auth.UserAddOptions, no_password=st.booleans()),
)
permission = st.builds(auth.Permission, permType=st.integers(0, 2), key=key, range_end=end)
auth_steps = st.one_of(
    step("Authenticate", user, password),
    step("Authenticate", st.sampled_from(["root", "alice", "alice"]), st.just("pw")),
    step("Forget"),
    step("UserAdd", st.builds(pb.AuthUserAddRequest, name=user, password=password)),
    step("UserAdd", odd_users),
    step("UserDelete", st.builds(pb.AuthUserDeleteRequest, name=user)),
    step(
        "UserChangePassword",
        st.builds(
            pb.AuthUserChangePasswordRequest,
            name=user,
            password=password,
            hashedPassword=st.sampled_from(["", "", "", HASHED]),
        ),
    ),
    step("UserGrantRole", st.builds(pb.AuthUserGrantRoleRequest, user=user, role=role)),
    step("UserRevokeRole", st.builds(pb.AuthUserRevokeRoleRequest, name=user, role=role)),
    step("UserGet", st.builds(pb.AuthUserGetRequest, name=user)),
    step("UserList", st.just(pb.AuthUserListRequest())),
    step("RoleAdd", st.builds(pb.AuthRoleAddRequest, name=role)),
    step("RoleDelete", st.builds(pb.AuthRoleDeleteRequest, role=role)),
    step(
        "RoleGrantPermission",
        st.one_of(
            st.builds(pb.AuthRoleGrantPermissionRequest, name=role, perm=permission),
            st.builds(pb.AuthRoleGrantPermissionRequest, name=st.sampled_from(["r", "s"]), perm=permission),
            st.builds(pb.AuthRoleGrantPermissionRequest, name=role),
        ),
    ),
    step("RoleRevokePermission", st.builds(pb.AuthRoleRevokePermissionRequest, role=role, key=key, range_end=end)),
    step("RoleGet", st.builds(pb.AuthRoleGetRequest, role=role)),
    step("RoleList", st.just(pb.AuthRoleListRequest())),
    step("AuthStatus", st.just(pb.AuthStatusRequest())),
    step("AuthEnable", st.just(pb.AuthEnableRequest())),
    step("AuthDisable", st.just(pb.AuthDisableRequest())),
)
rare_steps = st.one_of(
    step("Alarm", alarms),
    members,
    step("Txn", many_operations()),
    step("Put", st.builds(pb.PutRequest, key=some_key, value=st.sampled_from([bytes(1_572_864), bytes(2_200_000)]))),
    step("Txn", st.just(pb.TxnRequest())),
)


def sensible(one: Any) -> bool:
    """No range in a step ends before it starts: who may read such nothing hangs, in etcd, on how a tree was built."""
    return all(_sensible(part) for part in one if hasattr(part, "ListFields"))


def _sensible(message: Any) -> bool:
    key, end = getattr(message, "key", b""), getattr(message, "range_end", b"")
    if end and end != b"\0" and end <= (key or b"\0"):
        return False
    for field, value in message.ListFields():
        if field.message_type is not None and not all(map(_sensible, value if field.is_repeated else [value])):
            return False
    return True


#: Users and roles, and what they let through: client 0 is root, 1 alice, 2 nobody, until they authenticate otherwise.
auth_sequences = st.builds(
    lambda first, rest: [*first, *rest],
    st.sampled_from([[("SetUp", 0)], [("SetUp", 0)], []]),
    st.lists(st.one_of(steps.filter(sensible), auth_steps, auth_steps), min_size=12, max_size=30),
)
sequences = st.lists(st.one_of(*[steps] * 40, rare_steps), min_size=12, max_size=30)
