"""The updater: a store of files by content hash, versions as trees of hardlinks, one atomic link to switch."""
