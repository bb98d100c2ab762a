"""The updater: versions of a tree by content hash, switched by one link, healthy or back by itself."""
