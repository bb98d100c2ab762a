"""The log and all that is said on it: events, records, drivers, replay and history."""
