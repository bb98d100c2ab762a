"""A deterministic simulation of a cluster: virtual time, a lossy log, crashes, pauses and drifting clocks.

It runs the product's own hosts, folds and actors; only the log, the clocks, the network and the machines are made up.
A seed and a commit reproduce a run. ``python -m tests.simulator --seeds N [--seed S]``.
"""
