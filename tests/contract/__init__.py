"""One suite for the log port; every driver runs it. ``drivers.py`` says how a driver takes part."""
