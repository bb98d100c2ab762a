"""A store from etcd's snapshot file: in parts, all or nothing; and out again."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.bolt import imported
from actors.kv.bolt.imported import parts, store_of
from actors.kv.bolt.snapshot import written
from actors.kv.rpc.snapshots import auth_rows
from actors.kv.state import KvFold
from actors.kv.v3 import imports
from actors.kv.v3.revs import Rev
from actors.kv.v3.store import Store
from node.cli import transfer
from node.cli.client import Common, Failure
from streams.events import kv3 as says
from streams.events.base import Data, Event, say
from streams.outcomes import Accepted, Outcome, Rejected
from streams.records import Position, Record
from streams.replay import Context, LogState
from tests.actors.kv.server import Running


def apply(store: Store, *data: Data, level: int = 3) -> list[Outcome]:
    return [store.evolve(say(one), offset, level) for offset, one in enumerate(data)]


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


@pytest.mark.parametrize("wrong", ["gone", "empty", "junk", "cut", "cut in the hash", "changed"])
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
    elif wrong == "cut in the hash":
        file.write_bytes(raw[:-10])
    else:
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
    with pytest.raises(Failure, match="f: ") as refused:
        transfer.import_file(file, Common(data=tmp_path))
    assert refused.value.exit_code == 2


def test_a_file_without_its_hash_is_taken_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(filled(), tmp_path / "f")
    file.write_bytes(file.read_bytes()[:-32])
    with Running(tmp_path / "n") as server:
        server.folder.joinpath("run", "corelog.sock").touch()
        transfer.import_file(file, Common(data=tmp_path / "n"))
    assert "unchecked" in capsys.readouterr().err


def file_of_revs(path: Path, *revs: Rev) -> Path:
    store = Store()
    for rev in revs:
        store.revs.relink(rev)
    store.revs.relinked(max(rev.mod for rev in revs), -1)
    return file_of(store, path)


def test_large_values_whose_escapes_are_escaped_again_are_taken(tmp_path: Path) -> None:
    values = [b'"\\' * 780_000, b"\x01" * 1_570_000, b"\x01" * 60_000, b'"' * 60_000, "é".encode() * 700_000]
    revs = [Rev(b"k%d" % at, value, at, at, 1, 0, 0, None) for at, value in enumerate(values * 3, 2)]
    file = file_of_revs(tmp_path / "f", *revs)
    with Running(tmp_path / "n") as server:
        server.folder.joinpath("run", "corelog.sock").touch()
        transfer.import_file(file, Common(data=tmp_path / "n"))
        assert [rev.value for rev in server.fold.v3.revs.retained()] == values * 3


def test_a_value_that_no_record_holds_is_named(tmp_path: Path) -> None:
    large = Rev(b"large", bytes(imported.PAIR_BYTES_MAX), 2, 2, 1, 0, 0, None)
    with pytest.raises(Failure, match=r"key b'large' at revision 2: it has 2621445 bytes with its value"):
        transfer.import_file(file_of_revs(tmp_path / "f", large), Common(data=tmp_path))


def test_a_step_that_is_too_large_is_refused_in_words_that_fit(tmp_path: Path) -> None:
    with Running(tmp_path) as server:
        server.folder.joinpath("run", "corelog.sock").touch()
        connection = transfer._connected(Common(data=tmp_path))
        with pytest.raises(Failure, match=r"a body of \d+ bytes; 4190208 at most; nothing was imported"):
            transfer._step(connection, {"part": {"id": "i", "number": 0, "lines": "a" * 4_190_208}})
        connection.close()


def test_a_key_on_a_lease_that_the_file_lacks_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    revs = [Rev(b"k", b"v", 2, 2, 1, 77, 0, None), Rev(b"once", b"v", 3, 3, 1, 78, 0, None)]
    file = file_of_revs(tmp_path / "f", *revs, Rev(b"once", b"v", 3, 4, 2, 0, 0, None))
    with Running(tmp_path / "n") as server:
        server.folder.joinpath("run", "corelog.sock").touch()
        transfer.import_file(file, Common(data=tmp_path / "n"))
        assert "1 keys were on leases that" in capsys.readouterr().err
        assert [(rev.key, rev.lease) for rev in server.fold.v3.revs.retained()] == [
            (b"k", 0),
            (b"once", 78),  # of the past: it ended since
            (b"once", 0),
        ]
    lines = '{"v3":1,"revision":2,"revs":[["k","v",2,2,1,77,0]]}\n'
    [_, _, outcome] = apply(Store(), says.ImportBegin("i", 1), says.ImportPart("i", 0, lines), says.ImportEnd("i"))
    assert isinstance(outcome, Rejected)
    assert outcome.message.endswith("the key b'k' is on the lease 77, which isn't there")


@pytest.mark.parametrize("wrong", ["revision", "version", "ttl", "auth"])
def test_numbers_that_leave_no_room_are_refused(wrong: str, tmp_path: Path) -> None:
    store, top = Store(), 2**62 + 1
    if wrong == "ttl":
        apply(store, says.LeaseGrant(1, 9_000_000_000))
        store.leases.by_id[1].ttl_s += 1
    if wrong == "auth":
        apply(store, says.UserAdd("a", ""))
        store.auth.revision = top
    mod, version = (top, 1) if wrong == "revision" else (2, top if wrong == "version" else 1)
    store.revs.relink(Rev(b"k", b"v", 2, mod, version, 0, 0, None))
    store.revs.relinked(mod, -1)
    with pytest.raises(Failure, match=r"f: (key|lease|auth)"):
        transfer.import_file(file_of(store, tmp_path / "f"), Common(data=tmp_path))
    if wrong != "ttl":
        # the same by its lines, which the socket takes
        target = Store()
        assert code(apply(target, *steps(store, 1000))[-1]) == "v3-import.damaged"
        assert target.untouched
        assert isinstance(apply(Store(), *steps(store, 1000), level=2)[-1], Accepted), "as older nodes take it"


@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.parametrize(
    "lines",
    [
        '{"v3":1,"revision":5,"revs":[["k","v",1,99999999999999999999,1,0,0],["k","v",1,99999999999999999999,2,0,0]]}\n',
        '{"v3":1,"of others":' + "[" * 100_000,
    ],
)
def test_what_raised_is_refused_at_every_level(lines: str, level: int) -> None:
    target = Store()
    said = [says.PolicySet("k", max_bytes=10**6), says.ImportBegin("i", 1), says.ImportPart("i", 0, lines)]
    assert code(apply(target, *said, says.ImportEnd("i"), level=level)[-1]) == "v3-import.damaged"
    assert target.empty
    assert isinstance(apply(target, says.Put("k", "v"), level=level)[0], Accepted)


def test_revisions_that_are_out_of_order_or_above_the_stores_make_none() -> None:
    for revision, mods in ((9, (4, 3)), (9, (4, 4)), (3, (3, 4))):
        rows = ",".join(f'["k{at}","v",1,{mod},1,0,0]' for at, mod in enumerate(mods))
        lines = f'{{"v3":1,"revision":{revision},"revs":[{rows}]}}\n'
        said = says.ImportBegin("i", 1), says.ImportPart("i", 0, lines), says.ImportEnd("i")
        assert code(apply(Store(), *said)[-1]) == "v3-import.damaged"


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(
    "change", [says.Put("a", "b"), says.Txn([], [says.OpPut("a")]), says.LeaseGrant(1, 9), says.UserAdd("u", "")]
)
def test_an_import_that_can_not_end_any_more_is_dropped_from_level_3_on(change: Data, at_once: bool) -> None:
    for level, is_kept in ((2, True), (3, False)):
        fold, log = KvFold(), LogState(level=level)
        record = Record("log", "kv", "w@m", 1, 1, 1000, b"", offset=1)

        def one(event: Event, index: int) -> Outcome:
            return fold.evolve(event, Context(Position(1, index), record, log))  # noqa: B023 - called in this turn

        said = [say(data) for data in (says.ImportBegin("i", 3), says.ImportPart("i", 0, "x" * 1000), change)]
        if at_once:
            fold.evolve_many(said, record, log, one, False)
        else:
            for index, event in enumerate(said):
                one(event, index)
        assert not fold.v3.empty
        assert (fold.v3.staged is not None) == is_kept


def test_a_compaction_drops_an_import_of_v2_that_was_left_behind() -> None:
    target = Store()
    apply(target, says.ImportBegin("i", 3, v2=True), says.ImportPart("i", 0, "x"), says.Put("a", "b"))
    assert target.staged is not None, "v3's keys don't concern it"
    apply(target, says.Compact(2))
    assert target.staged is None
    [outcome] = apply(target, says.ImportPart("i", 1, "x"))
    assert isinstance(outcome, Rejected)
    assert "a compaction" in outcome.message


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
