"""A plugin of pytest: clients that etcd3's and aetcd's tests make without an address reach the test's server too."""

import functools
import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

_PORT = int(os.environ["CORELOG_FOREIGN_PORT"])


def _with_port(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose ``port`` is ours when nobody says one."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "port" not in signature.bind_partial(*args, **kwargs).arguments:
            kwargs["port"] = _PORT
        return function(*args, **kwargs)

    return call


def _repoint(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError:
        return
    for kind in ("Etcd3Client", "Client"):
        if hasattr(module, kind):
            client = getattr(module, kind)
            client.__init__ = _with_port(client.__init__)
    if name == "etcd3":
        module.client = _with_port(module.client)  # type: ignore[attr-defined]


for _name in ("etcd3", "aetcd"):
    _repoint(_name)

# Hypothesis came to object to what etcd3's tests do (fixtures under given) after they were written. Their own
# profile is made of the one that is loaded then; the same examples each time.
settings.register_profile("foreign", suppress_health_check=list(HealthCheck), derandomize=True, database=None)
settings.load_profile("foreign")
