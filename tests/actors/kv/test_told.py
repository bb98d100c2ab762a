"""/metrics by etcd's names, reflection, and a move of the leader where there is one member."""

from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from prometheus_client.parser import text_string_to_metric_families

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import reflection_pb2 as reflected
from actors.kv.rpc.reflection import PATHS
from actors.setting import Etcd
from streams.log.port import Log
from streams.log.segments.driver import SegmentsLog
from tests.actors.kv.server import Client, Running
from tests.actors.kv.test_serving import client, refused

#: What etcd's own alerts and dashboard ask for, but the backend and the peers, which aren't here.
MIXIN = (
    "etcd_server_has_leader etcd_server_is_leader etcd_server_leader_changes_seen_total "
    "etcd_server_proposals_failed_total etcd_server_proposals_pending etcd_server_proposals_committed_total "
    "etcd_server_proposals_applied_total etcd_server_quota_backend_bytes etcd_mvcc_db_total_size_in_bytes "
    "etcd_mvcc_db_total_size_in_use_in_bytes etcd_network_client_grpc_received_bytes_total "
    "etcd_network_client_grpc_sent_bytes_total grpc_server_handled_total grpc_server_started_total "
    "process_resident_memory_bytes process_open_fds process_max_fds"
).split()


def values(server: Running) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    page = Client(server.port)
    status, headers, body = page.raw("GET", "/metrics")
    page.close()
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_what_is_counted_is_what_happened(tmp_path: Path) -> None:
    with Running(tmp_path) as server, client(server) as etcd:
        before = values(server)
        assert set(MIXIN) <= {name for name, _ in before}
        for number in range(5):
            etcd.put(b"k%d" % number)
        etcd.get(b"k1")
        refused(grpc.StatusCode.INVALID_ARGUMENT, "key is not provided", etcd.get, b"")
        page = Client(server.port)
        page.raw("POST", "/v3/kv/put", b'{"key":"YQ==","value":"YQ=="}')
        page.close()
        after = values(server)
        kv = (("grpc_service", "etcdserverpb.KV"), ("grpc_type", "unary"))

        def handled(method: str, code: str) -> float:
            return after["grpc_server_handled_total", (("grpc_code", code), ("grpc_method", method), *kv)]

        assert handled("Put", "OK") == 6
        assert (handled("Range", "OK"), handled("Range", "InvalidArgument")) == (1, 1)
        assert after["grpc_server_started_total", (("grpc_method", "Range"), *kv)] == 2
        assert after["etcd_debugging_mvcc_put_total", ()] == 6
        assert after["etcd_debugging_mvcc_keys_total", ()] == 6
        assert after["etcd_debugging_mvcc_current_revision", ()] == 7
        assert after["etcd_server_has_leader", ()] == after["etcd_server_is_leader", ()] == 1
        got = "etcd_network_client_grpc_received_bytes_total"
        assert after[got, ()] > before[got, ()] > -1


def test_how_long_calls_and_syncs_took_is_told_if_asked_for_and_true(tmp_path: Path) -> None:
    async def log() -> Log:
        return await SegmentsLog.open(tmp_path / "log")

    with Running(tmp_path / "plain") as server:
        told = {name for name, _ in values(server)}
        assert not {"grpc_server_handling_seconds_bucket", "etcd_disk_wal_fsync_duration_seconds_bucket"} & told
    with Running(tmp_path / "n", log, Etcd(metrics="extensive")) as server, client(server) as etcd:
        for number in range(3):
            etcd.put(b"k%d" % number)
        refused(grpc.StatusCode.INVALID_ARGUMENT, "key is not provided", etcd.put, b"")
        page = Client(server.port)
        page.raw("POST", "/v3/kv/put", b'{"key":"YQ==","value":"YQ=="}')
        page.close()
        after = values(server)
        put = (("grpc_method", "Put"), ("grpc_service", "etcdserverpb.KV"), ("grpc_type", "unary"))
        assert after["grpc_server_handling_seconds_count", put] == 5
        assert after["grpc_server_handling_seconds_bucket", tuple(sorted((("le", "10.0"), *put)))] == 5
        assert 0 <= after["grpc_server_handling_seconds_sum", put] < 10
        assert after["etcd_disk_wal_fsync_duration_seconds_count", ()] >= 4
        assert after["etcd_disk_wal_fsync_duration_seconds_sum", ()] > 0


@pytest.mark.parametrize("path", PATHS)
def test_reflection_gives_descriptors_that_hold_together(tmp_path: Path, path: str) -> None:
    with Running(tmp_path) as server, client(server) as etcd:
        ask = etcd.channel.stream_stream(
            path,
            reflected.ServerReflectionRequest.SerializeToString,
            reflected.ServerReflectionResponse.FromString,
        )

        def one(**asked: str) -> reflected.ServerReflectionResponse:
            return next(iter(ask(iter([reflected.ServerReflectionRequest(**asked)]), timeout=10)))

        services = [found.name for found in one(list_services="").list_services_response.service]
        assert {"etcdserverpb.KV", "v3lockpb.Lock", "grpc.health.v1.Health", path.split("/")[1]} <= set(services)
        pool = descriptor_pool.DescriptorPool()
        added: set[str] = set()
        for service in services:
            raws = one(file_containing_symbol=service).file_descriptor_response.file_descriptor_proto
            files = [descriptor_pb2.FileDescriptorProto.FromString(raw) for raw in raws]
            for file in reversed(files):
                if file.name not in added:
                    added.add(file.name)
                    pool.Add(file)
        put = pool.FindServiceByName("etcdserverpb.KV").FindMethodByName("Put")
        assert [field.name for field in put.input_type.fields] == [
            field.name for field in pb.PutRequest.DESCRIPTOR.fields
        ]
        assert one(file_by_filename="actors/kv/proto/kv.proto").HasField("file_descriptor_response")
        assert one(file_containing_symbol="etcdserverpb.RangeRequest.SortOrder").HasField("file_descriptor_response")
        assert one(file_containing_symbol="nothing.Here").error_response.error_code == 5
        assert one(all_extension_numbers_of_type="etcdserverpb.KV").error_response.error_code == 5


def test_the_only_member_moves_to_itself_and_to_nobody_else(tmp_path: Path) -> None:
    with Running(tmp_path) as server, client(server) as etcd:
        mine = etcd.get(b"k").header.member_id
        etcd.ask("Maintenance/MoveLeader", pb.MoveLeaderRequest(targetID=mine), pb.MoveLeaderResponse)
        wrong = pb.MoveLeaderRequest(targetID=1)
        bad = grpc.StatusCode.FAILED_PRECONDITION, "bad leader transferee"
        refused(*bad, etcd.ask, "Maintenance/MoveLeader", wrong, pb.MoveLeaderResponse)
