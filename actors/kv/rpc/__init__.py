"""etcd's v3 services over the kv replica: a call → its check and event, or a read → the answer.

``asked`` and ``told`` are pure translations of messages; the other modules are one service each, on
:class:`service.Rpc`. They know of a call what :class:`service.Call` says, so that HTTP/2 and the JSON gateway share
them.
"""
