"""The pure modules of the kv actor, each with the tests that are to notice what is wrong in it, quickest first."""

V3 = [
    "tests/actors/kv/v3/test_store.py",
    "tests/actors/kv/v3",
    "tests/actors/kv/test_imports.py",
    "tests/actors/kv/test_told.py",
]
V2 = ["tests/actors/kv/test_store.py", "tests/actors/kv/test_beside_etcd.py", "tests/actors/kv/test_http.py"]
BOLT = [f"tests/actors/kv/bolt/test_{name}.py" for name in ("file", "messages", "read", "snapshot", "v2")]
HTTP2 = [f"tests/actors/kv/http2/test_{name}.py" for name in ("hpack", "messages", "sending", "connection", "fuzz")]

#: module → tests
TARGETS: dict[str, list[str]] = {
    **{f"actors.kv.v3.{name}": V3 for name in ("auth", "errors", "hashes", "leases", "ranges", "revs", "store", "txn")},
    "actors.kv.v3.imports": ["tests/actors/kv/test_imports.py"],
    **{f"actors.kv.v2.{name}": V2 for name in ("delete", "errors", "get", "nodes", "put", "request", "store")},
    "actors.kv.state": [*V2, *V3],
    "actors.kv.decide": ["tests/actors/kv/test_store.py", "tests/actors/kv/test_http.py"],
    "actors.kv.countdowns": ["tests/actors/kv/test_countdowns.py"],
    "actors.kv.autocompact": ["tests/actors/kv/test_autocompact.py"],
    **{f"actors.kv.bolt.{name}": BOLT for name in ("file", "imported", "messages", "page", "read", "snapshot", "v2")},
    **{f"actors.kv.http2.{name}": HTTP2 for name in ("frames", "hpack", "huffman", "messages")},
}
