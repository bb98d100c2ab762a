"""Why there is no answer to a command. (A compiled class loses its attributes: docs/decisions/0014-native.md.)"""


class NotSent(Exception):
    """The command (or read) was not and will never be written: 503, safe to repeat."""

    status = 503


class TooMany(NotSent):
    """So many wait already that it would not come back in time."""


class TooLarge(NotSent):
    """No record can hold it."""

    status = 413


class OutcomeUnknown(Exception):
    """It was handed to the log and didn't come back in time: 504; it may be applied, now or later."""

    status = 504
