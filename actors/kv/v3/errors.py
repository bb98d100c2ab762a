"""etcd's v3 errors: gRPC status codes and the strings that clients match, to the letter (api/v3rpc/rpctypes)."""

from streams.outcomes import Rejected

INVALID, NOT_FOUND, EXISTS, DENIED, EXHAUSTED, FAILED, ABORTED, RANGE = 3, 5, 6, 7, 8, 9, 10, 11
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED = 12, 13, 14, 15, 16
CANCELLED, UNKNOWN, DEADLINE = 1, 2, 4


class V3Error(Exception):
    """A call that can't be: ``code`` is a gRPC status, ``str(error)`` etcd's words. Made once, raised often."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def rejected(self) -> Rejected:
        """As an outcome of apply."""
        return Rejected(f"v3.{self.code}", self.message)


EMPTY_KEY = V3Error(INVALID, "etcdserver: key is not provided")
KEY_NOT_FOUND = V3Error(INVALID, "etcdserver: key not found")
VALUE_PROVIDED = V3Error(INVALID, "etcdserver: value is provided")
LEASE_PROVIDED = V3Error(INVALID, "etcdserver: lease is provided")
TOO_MANY_OPS = V3Error(INVALID, "etcdserver: too many operations in txn request")
DUPLICATE_KEY = V3Error(INVALID, "etcdserver: duplicate key given in txn request")
INVALID_SORT = V3Error(INVALID, "etcdserver: invalid sort option")
INVALID_CLIENT_API = V3Error(INVALID, "etcdserver: invalid client api version")
COMPACTED = V3Error(RANGE, "etcdserver: mvcc: required revision has been compacted")
FUTURE_REV = V3Error(RANGE, "etcdserver: mvcc: required revision is a future revision")
NO_SPACE = V3Error(EXHAUSTED, "etcdserver: mvcc: database space exceeded")
LEASE_NOT_FOUND = V3Error(NOT_FOUND, "etcdserver: requested lease not found")
LEASE_EXISTS = V3Error(FAILED, "etcdserver: lease already exists")
LEASE_TTL_TOO_LARGE = V3Error(RANGE, "etcdserver: too large lease TTL")
TOO_LARGE = V3Error(INVALID, "etcdserver: request is too large")
TOO_MANY_REQUESTS = V3Error(EXHAUSTED, "etcdserver: too many requests")
NO_LEADER = V3Error(UNAVAILABLE, "etcdserver: no leader")
NOT_LEADER = V3Error(FAILED, "etcdserver: not leader")
STOPPED = V3Error(UNAVAILABLE, "etcdserver: server stopped")
TIMEOUT = V3Error(UNAVAILABLE, "etcdserver: request timed out")
UNHEALTHY = V3Error(UNAVAILABLE, "etcdserver: unhealthy cluster")
CORRUPT = V3Error(DATA_LOSS, "etcdserver: corrupt cluster")
MEMBER_NOT_FOUND = V3Error(NOT_FOUND, "etcdserver: member not found")
BAD_LEADER_TRANSFEREE = V3Error(FAILED, "etcdserver: bad leader transferee")
TRANSFER_TIMEOUT = V3Error(UNAVAILABLE, "etcdserver: request timed out, leader transfer took too long")
NOT_FOR_LEARNERS = V3Error(FAILED, "etcdserver: rpc not supported for learner")
NOT_CAPABLE = V3Error(UNAVAILABLE, "etcdserver: not capable")
ROOT_USER_MISSING = V3Error(FAILED, "etcdserver: root user does not exist")
ROOT_ROLE_MISSING = V3Error(FAILED, "etcdserver: root user does not have root role")
USER_EXISTS = V3Error(FAILED, "etcdserver: user name already exists")
USER_EMPTY = V3Error(INVALID, "etcdserver: user name is empty")
USER_NOT_FOUND = V3Error(FAILED, "etcdserver: user name not found")
ROLE_EXISTS = V3Error(FAILED, "etcdserver: role name already exists")
ROLE_EMPTY = V3Error(INVALID, "etcdserver: role name is empty")
ROLE_NOT_FOUND = V3Error(FAILED, "etcdserver: role name not found")
AUTH_FAILED = V3Error(INVALID, "etcdserver: authentication failed, invalid user ID or password")
PERMISSION_NOT_GIVEN = V3Error(INVALID, "etcdserver: permission not given")
PERMISSION_DENIED = V3Error(DENIED, "etcdserver: permission denied")
ROLE_NOT_GRANTED = V3Error(FAILED, "etcdserver: role is not granted to the user")
PERMISSION_NOT_GRANTED = V3Error(FAILED, "etcdserver: permission is not granted to the role")
AUTH_NOT_ENABLED = V3Error(FAILED, "etcdserver: authentication is not enabled")
INVALID_TOKEN = V3Error(UNAUTHENTICATED, "etcdserver: invalid auth token")
VERIFY_ONLY = V3Error(UNKNOWN, "auth: token signing attempted with verify-only key")
INVALID_MANAGEMENT = V3Error(INVALID, "etcdserver: invalid auth management")
OLD_AUTH_REVISION = V3Error(INVALID, "etcdserver: revision of auth store is old")
WRONG_DOWNGRADE_VERSION = V3Error(INVALID, "etcdserver: wrong downgrade target version format")
INVALID_DOWNGRADE_TARGET = V3Error(INVALID, "etcdserver: invalid downgrade target version")
DOWNGRADE_IN_PROCESS = V3Error(FAILED, "etcdserver: cluster has a downgrade job in progress")
UNKNOWN_METHOD = V3Error(UNKNOWN, "etcdserver: unknown method")

#: Why somebody may not, by the users that are known.
RIGHTS = frozenset({USER_EMPTY, USER_NOT_FOUND, PERMISSION_DENIED})
