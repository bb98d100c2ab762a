"""Supervision: a process for each actor, started anew when it dies. The only package that imports Thespian.

``Supervisor`` is for the node's main process; see ``supervisor``, and ``system`` for what is known of Thespian.
"""
