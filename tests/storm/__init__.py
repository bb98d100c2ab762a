"""Three nodes on three real brokers in network namespaces, concurrent clients, and faults; what came is then judged.

    unshare --net python -m tests.storm --minutes 30 --seed 7

Needs root (namespaces), iptables, Java and the brokers' jars. ``tests/cluster/test_linearizable.py`` runs it.
"""
