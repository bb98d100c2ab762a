"""The pure modules of the kv actor, and the tests of which some are to notice what is wrong in them."""

from pathlib import Path

ROOT = Path(__file__).parents[2]

_V3 = (
    "auth errors floors hashes imports kinds leases lines past policies ranges restores revs store txn"  # the v3 store
)
_V2 = "auth delete errors get imports nodes put request restores store watch"
_BOLT = "errors exported2 file imported imported2 messages page read snapshot v2 wal"
_HTTP2 = "control deadlines frames hpack huffman limits messages receiving request sending tally"
_RPC = "asked json_form json_short told watching"
_BESIDE = "autocompact countdowns decide history prefixes state"

TARGETS = sorted(
    f"actors.kv.{folder}{name}"
    for folder, names in (
        ("v3.", _V3),
        ("v2.", _V2),
        ("bolt.", _BOLT),
        ("http2.", _HTTP2),
        ("rpc.", _RPC),
        ("", _BESIDE),
    )
    for name in names.split()
)

_ELSEWHERE = (
    "test_beside_etcd test_store_beside_etcd test_snapshot_beside_etcd test_snapshots test_conversations test_clients "
    "test_large test_watches_at_scale test_native test_corrupt test_replica test_policies_served"
).split()

#: Those of the kv actor but what starts etcds and clients, or looks at memory and rates: too slow for a thousand times.
TESTS = sorted(
    str(file.relative_to(ROOT)) for file in (ROOT / "tests/actors/kv").rglob("test_*.py") if file.stem not in _ELSEWHERE
)
