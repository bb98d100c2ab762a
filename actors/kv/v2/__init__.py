"""etcd's v2 keys: one store, and a file per family of verbs over it."""
