"""etcd's v3 keys: revisions of a flat key space, transactions, leases, compaction. Pure."""
