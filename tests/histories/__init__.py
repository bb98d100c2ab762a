"""Recorded histories of concurrent clients, and what judges them. Pure: no clock, no randomness, no I/O but of files.

The store says of each answer at which revision it was true, so that no search is needed: the revisions are the order,
and what is left to see is whether clocks, contents and outcomes agree with it.
"""
