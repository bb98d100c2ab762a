"""The audit trail: who asked for what, when, and what came of it. Lines and outcomes here need no stream library."""
