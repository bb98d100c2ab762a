"""The key-value replica: etcd's stores over the fold of the log, and etcd's port in front of it."""
