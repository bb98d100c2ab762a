"""Keys as files: templates rendered from keys (``corelog kv sync``), trees of files (``corelog kv mount``)."""
