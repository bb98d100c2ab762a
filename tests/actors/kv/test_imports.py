"""A store from etcd's snapshot file: in parts, all or nothing; and out again."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.bolt.imported import parts, store_of
from actors.kv.bolt.snapshot import written
from actors.kv.rpc.snapshots import auth_rows
from actors.kv.v3 import imports
from actors.kv.v3.store import Store
from node.cli import transfer
from node.cli.client import Common, Failure
from streams.events import kv3 as says
from streams.events.base import Data, say
from streams.outcomes import Accepted, Outcome, Rejected
from tests.actors.kv.server import Running


def apply(store: Store, *data: Data) -> list[Outcome]:
    return [store.evolve(say(one), offset) for offset, one in enumerate(data)]


def filled(changes: int = 300) -> Store:
    store = Store()
    # by name, as the file has them
    apply(store, says.LeaseGrant(7, 60), says.UserAdd("ann", ""), says.UserAdd("root", "hash"))
    apply(store, says.RoleAdd("r"), says.RoleAdd("root"), says.UserGrant("root", "root"))
    apply(store, says.RoleGrant("r", says.Permission(2, "a", "b")))
    for at in range(changes):
        apply(store, says.Put(f"k{at % 50}", f"value {at}", 7 if at % 7 == 0 else 0))
        if at % 11 == 0:
            apply(store, says.Delete(f"k{at % 40}"))
    apply(store, says.Compact(changes // 2), says.Alarm(1, 5))
    while store.revs.sweep():
        pass
    return store


def file_of(store: Store, path: Path) -> Path:
    path.write_bytes(b"".join(written(store, auth=auth_rows(store.auth))))
    return path


def steps(store: Store, size: int, ident: str = "i") -> list[Data]:
    pieces = list(parts(store, size))
    made = [says.ImportPart(ident, number, lines) for number, lines in enumerate(pieces)]
    return [says.ImportBegin(ident, len(pieces)), *made, says.ImportEnd(ident)]


def encoded(store: Store) -> bytes:
    return b"".join(store.encode())


def test_a_file_gives_the_store_that_it_was_made_of(tmp_path: Path) -> None:
    store = filled()
    made = store_of(file_of(store, tmp_path / "f"))
    # what a lease had left is as it was told; when it was renewed isn't known
    for lease in (*store.leases.by_id.values(), *made.leases.by_id.values()):
        lease.renewed = lease.left_ms = 0
    assert encoded(made) == encoded(store)


@settings(deadline=None)
@given(st.integers(1, 200_000), st.randoms(use_true_random=False))
def test_parts_of_any_size_in_any_order_make_the_same(size: int, random: object) -> None:
    store = filled(100)
    begin, *middle, end = steps(store, size)
    random.shuffle(middle)  # type: ignore[attr-defined]
    target = Store()
    for one in (begin, *middle, *middle[:2]):
        [outcome] = apply(target, one)
        assert isinstance(outcome, Accepted)
        assert target.revs.revision == 1
        # a restart in the middle keeps what is there
        again = Store()
        again.restore(list(target.encode()))
        assert encoded(again) == encoded(target)
        target = again
    [outcome] = apply(target, end)
    assert isinstance(outcome, Accepted)
    assert encoded(target) == encoded(store)
    assert target.leases.by_id[7].keys == store.leases.by_id[7].keys


def code(outcome: Outcome) -> str:
    assert isinstance(outcome, Rejected), outcome
    return outcome.code


def test_what_can_not_be_is_refused_and_changes_nothing() -> None:
    begin, *middle, end = steps(filled(100), 2000)
    target = Store()
    assert code(apply(target, middle[0])[0]) == "v3-import.not-begun"
    apply(target, begin, *middle[1:])
    assert code(apply(target, end)[0]) == "v3-import.incomplete"
    assert code(apply(target, says.ImportPart("i", 10_000, ""))[0]) == "v3-import.part"
    assert code(apply(target, says.ImportBegin("j", 0))[0]) == "v3-import.parts"
    # a second begin drops the first
    apply(target, says.ImportBegin("j", 1))
    assert code(apply(target, middle[0])[0]) == "v3-import.not-begun"
    apply(target, says.ImportPart("j", 0, '{"v3":1,"revs":[["k","v",9,2,1,0,0'))
    assert code(apply(target, says.ImportEnd("j"))[0]) == "v3-import.damaged"
    assert target.untouched
    # somebody wrote meanwhile
    apply(target, begin, *middle, says.Put("a", "b"))
    assert code(apply(target, end)[0]) == "v3-import.not-empty"
    assert target.staged is None
    assert target.revs.revision == 2
    assert apply(target, begin) == [imports.NOT_EMPTY]


def test_in_and_out_of_a_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = filled(2000)
    file = file_of(store, tmp_path / "f")
    with Running(tmp_path / "n") as server:
        common = Common(data=tmp_path / "n")
        server.folder.joinpath("run", "corelog.sock").touch()
        transfer.import_file(file, common)
        assert server.fold.v3.revs.revision == store.revs.revision
        assert server.fold.v3.auth.users.keys() == {"root", "ann"}
        told = capsys.readouterr()
        assert "keys, revision" in told.out
        with pytest.raises(Failure, match="isn't empty") as refused:
            transfer.import_file(file, common)
        assert refused.value.exit_code == 4
        transfer.export_file(tmp_path / "out", common)
    again = store_of(tmp_path / "out")
    assert [(r.key, r.value, r.create, r.mod, r.version) for r in again.revs.retained()] == [
        (r.key, r.value, r.create, r.mod, r.version) for r in store.revs.retained()
    ]


@pytest.mark.parametrize("wrong", ["gone", "empty", "junk", "cut", "changed"])
def test_a_wrong_file_is_named(wrong: str, tmp_path: Path) -> None:
    file = file_of(filled(), tmp_path / "f")
    raw = bytearray(file.read_bytes())
    if wrong == "gone":
        file.unlink()
    elif wrong == "empty":
        file.write_bytes(b"")
    elif wrong == "junk":
        file.write_bytes(os.urandom(20_000))
    elif wrong == "cut":
        file.write_bytes(raw[: len(raw) // 2])
    else:
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
    with pytest.raises(Failure, match="f: ") as refused:
        transfer.import_file(file, Common(data=tmp_path))
    assert refused.value.exit_code == 2


def test_steps_that_are_none_are_refused_and_only_the_socket_takes_them(tmp_path: Path) -> None:
    with Running(tmp_path) as server:
        from tests.actors.kv.server import Client

        outside = Client(server.port)
        assert outside.raw("POST", "/internal/import", b"{}")[0] == 404
        outside.close()
        server.folder.joinpath("run", "corelog.sock").touch()
        connection = transfer._connected(Common(data=tmp_path))
        for body in (b"", b"{}", b"[]", b'{"part":{"id":1}}', b"\xff"):
            connection.request("POST", "/internal/import", body)
            answer = connection.getresponse()
            assert answer.status == 400, (body, answer.read())
            assert "message" in json.loads(answer.read())
        connection.close()
