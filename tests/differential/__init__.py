"""Random operations against real etcd and our replica at once: every answer is compared.

``python -m tests.differential --minutes 10`` goes on without end, with new sequences; the quick suite runs a fixed
choice. Where etcd 3.5 and 3.7 part, the newer decides; what may differ is one closed list in :mod:`masks`.
"""
