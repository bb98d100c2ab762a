"""Mutation testing of the kv actor's pure modules: ``make mutation``. What no test notices is told, line by line."""
