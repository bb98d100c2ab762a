"""etcd's messages and services: .proto text of ours, and what protoc makes of it.

Made by ``python -m actors.kv.proto.generate``.
Names and numbers are those of etcd's own interface; clients' code is generated from theirs.
"""
