"""A plugin of pytest: names that python-etcd's tests use and Python 3.12 took from unittest."""

import unittest

for old, new in (("assertEquals", "assertEqual"), ("assertNotEquals", "assertNotEqual")):
    if not hasattr(unittest.TestCase, old):
        setattr(unittest.TestCase, old, getattr(unittest.TestCase, new))
