"""etcd's files: bbolt, the snapshot in it (v3), and the data folder of a v2 backup. Pure: bytes in, bytes out.

Sources of the formats: bbolt (go.etcd.io/bbolt: page, meta, bucket, node), etcd (storage/schema, storage/wal,
etcdserver/api/snap, etcdserver/api/v2store) and what real programs write and take.
"""
