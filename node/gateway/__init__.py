"""The gateway: corelog's HTTP API, events by SSE, metrics, and the objects of the updater."""
