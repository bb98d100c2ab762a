"""The scheduler: units in systemd's syntax, and where each of them runs."""
