"""What python-etcd's tests import of nose."""

from collections.abc import Callable
from typing import Any


def nottest(function: Callable[..., Any]) -> Callable[..., Any]:
    """Tell a collector to leave the function alone."""
    function.__test__ = False  # type: ignore[attr-defined]
    return function
