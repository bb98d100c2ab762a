"""The log port and its drivers."""
