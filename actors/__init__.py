"""The actors: pure cores (state, decide) and their shells, one folder each, driven by one host."""
