"""The kv fold."""
