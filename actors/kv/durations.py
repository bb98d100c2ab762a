"""Durations as Go reads them: ``1h30m``, ``1.5h``, ``300ms``. For flags, files and the options of tokens."""

import re

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)"
#: Go's are nanoseconds in 63 bits: 292 years.
_MAX_S = 2**63 / 1e9


def duration_s(text: str) -> float:
    """A bare 0 needs no unit; none is negative. Raises ValueError."""
    if text == "0":
        return 0.0
    if not re.fullmatch(f"(?:{_PART})+", text):
        raise ValueError(f"{text!r} is no duration: write 5s, 300ms or 1h30m")
    found = sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(_PART, text))
    if found >= _MAX_S:
        raise ValueError(f"{text} is no duration: it is longer than 292 years")
    return found
