"""Suites and programs that nobody here wrote, run against an etcd: a real one, to prove the runner, or ours."""
