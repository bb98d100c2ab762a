"""Numbers in a query. What can't be one is the caller's fault, and is named."""

import math

from starlette.requests import Request

from .problem import Problem


def whole_number(request: Request, name: str, default: int) -> int:
    """The parameter as a number of things, 0 or more. Raises Problem 400 naming it."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise _bad(name, text, "a whole number, 0 or more")
    return number


def seconds(request: Request, name: str, default: float) -> float:
    """The parameter in seconds, 0 or more, with or without a fraction. Raises Problem 400 naming it."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise _bad(name, text, "a number of seconds, 0 or more")
    return number


def one_of(request: Request, name: str, choices: tuple[str, ...]) -> str:
    """The parameter, one of ``choices``, of which the first is the default. Raises Problem 400 naming it."""
    text = request.query_params.get(name, choices[0])
    if text not in choices:
        raise _bad(name, text, " or ".join(choices))
    return text


def _bad(name: str, text: str, allowed: str) -> Problem:
    shown = text if len(text) <= 40 else text[:37] + "..."
    return Problem(400, "bad-parameter", f"{name}={shown!r} is not {allowed}", parameter=name)
