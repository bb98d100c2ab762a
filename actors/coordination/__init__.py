"""Coordination: the election of the master and the life of machines, by a protocol on the log."""
