"""HTTP/2 and gRPC's framing, server side: bytes of one connection → :class:`call.Call` → bytes.

Only :mod:`connection` knows asyncio; the other modules are pure and get the time told.
"""
