"""Maintenance.Downgrade: asked of a cluster before its nodes are replaced by older ones; answers as etcd 3.7's.

A log has no format that would have to be made older, so nothing else follows: the target is kept, shown by Status, and
holds off a second one, until it is cancelled.
"""

import re
from collections.abc import Iterator

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc.maintenance import CLUSTER_VERSION
from actors.kv.rpc.service import Call, Method, Rpc
from actors.kv.v3 import errors
from streams.events import kv3 as says

#: Semantic versions, also without the last number.
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.\d+(?:-[^+]*)?(?:\+.*)?)?")
MAJOR, MINOR = (int(part) for part in CLUSTER_VERSION.split(".")[:2])


class Downgrades:
    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    def methods(self) -> Iterator[Method]:
        path = "/etcdserverpb.Maintenance/Downgrade"
        yield Method(path, pb.DowngradeRequest, pb.DowngradeResponse, self.downgrade)

    def downgrade(self, call: Call, request: pb.DowngradeRequest, size: int) -> None:
        """Raises V3Error."""
        rpc = self._rpc
        rpc.check_root(call)
        action = pb.DowngradeRequest.DowngradeAction
        if request.action == action.VALIDATE:
            target = _target(request.version)
            rpc.read(call, False, lambda: self._validated(target))
        elif request.action == action.ENABLE:
            rpc.submit(call, says.Downgrade(_target(request.version)), size, lambda _result: self._answer())
        elif request.action == action.CANCEL:
            # where there is none, etcd says so in its log only
            rpc.submit(call, says.Downgrade(), size, lambda _result: self._answer())
        else:
            raise errors.UNKNOWN_METHOD

    def _validated(self, _target: str) -> pb.DowngradeResponse:
        if self._rpc.fold.v3.downgrade:
            raise errors.DOWNGRADE_IN_PROCESS
        return self._answer()

    def _answer(self) -> pb.DowngradeResponse:
        return self._rpc.head(pb.DowngradeResponse(version=f"{MAJOR}.{MINOR}"))


def _target(text: str) -> str:
    """The one that may be: a minor version less than the cluster's. Raises V3Error."""
    found = _VERSION.fullmatch(text)
    if found is None:
        raise errors.WRONG_DOWNGRADE_VERSION
    if (int(found[1]), int(found[2])) != (MAJOR, MINOR - 1):
        raise errors.INVALID_DOWNGRADE_TARGET
    return f"{MAJOR}.{MINOR - 1}.0"
