"""JSON Web Tokens instead of simple ones: ``--auth-token jwt,sign-method=RS256,priv-key=FILE,pub-key=FILE,ttl=10m``.

Every node with the key makes and knows them; nothing of them is on the log. Source: etcd's ``server/auth`` (options,
claims ``username``, ``revision``, ``exp``).
"""

import time
from pathlib import Path
from typing import Any

import jwt

from actors.kv.durations import duration_s
from actors.kv.v3 import errors

TTL_S = 300.0
_METHODS = frozenset("RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 HS256 HS384 HS512 EdDSA".split())
OPTIONS = frozenset(("sign-method", "priv-key", "pub-key", "ttl"))


def parts_of(text: str) -> tuple[str, dict[str, str]]:
    """The kind of token and what follows it, known or not. Raises ValueError."""
    kind, *parts = text.split(",")
    found: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or "=" in value:
            raise ValueError(f"{part!r} is no option: write NAME=VALUE")
        if key in found:
            raise ValueError(f"{key}= is given twice")
        found[key] = value
    return kind, found


class Jwts:
    """``text``: the flag's; an empty one gives nobody a token, as in etcd. Raises ValueError, which names the part."""

    def __init__(self, text: str) -> None:
        self._none = not text
        if self._none:
            return
        kind, options = parts_of(text)
        if kind != "jwt":
            raise ValueError(f"{kind!r} is no kind of token: simple or jwt,sign-method=…")
        for key in options:
            if key not in OPTIONS:
                raise ValueError(f"{key!r} is no option of jwt: sign-method=, priv-key=, pub-key=, ttl=")
        self._method = options.get("sign-method", "")
        if self._method not in _METHODS:
            raise ValueError(f"sign-method={self._method} is none of {', '.join(sorted(_METHODS))}")
        self._ttl_s = _ttl_s(options.get("ttl", ""))
        private = _read(options.get("priv-key", ""))
        public = _read(options.get("pub-key", ""))
        if self._method.startswith("HS"):
            self._sign_by: Any = private
            self._check_by: Any = private
        else:
            self._sign_by, self._check_by = self._keys(private, public)
        if self._check_by is None:
            raise ValueError("jwt needs priv-key=FILE, or pub-key=FILE to check only")
        self._try()

    def _keys(self, private: bytes | None, public: bytes | None) -> tuple[Any, Any]:
        """Raises ValueError."""
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

        try:
            signing: Any = None if private is None else load_pem_private_key(private, None)
            if public is not None:
                return signing, load_pem_public_key(public)
            return signing, None if signing is None else signing.public_key()
        except (ValueError, TypeError) as error:
            raise ValueError(f"priv-key or pub-key holds no key in PEM: {error}") from error

    def _try(self) -> None:
        """Raises ValueError: nobody could log in with these keys."""
        try:
            jwt.get_algorithm_by_name(self._method).prepare_key(self._check_by)
            if self.signs:
                jwt.decode(self.sign("root", 1), self._check_by, [self._method], options={"verify_exp": False})
        except jwt.InvalidSignatureError as error:
            raise ValueError("priv-key and pub-key are no pair") from error
        except (jwt.PyJWTError, TypeError) as error:
            raise ValueError(f"the key doesn't fit sign-method={self._method}: {error}") from error

    @property
    def signs(self) -> bool:
        """Whether there is a key to make tokens with."""
        return self._none or self._sign_by is not None

    def sign(self, user: str, revision: int) -> str:
        """Raises AUTH_FAILED where nobody gets a token."""
        if self._none:
            raise errors.AUTH_FAILED
        claims = {"username": user, "revision": revision, "exp": int(time.time() + self._ttl_s)}
        return jwt.encode(claims, self._sign_by, self._method)

    def verify(self, token: str) -> tuple[str, int] | None:
        """User and auth revision; None: it is no token of ours, or its time is over."""
        if self._none:
            return None
        try:
            claims = jwt.decode(token, self._check_by, [self._method], options={"require": ["exp"]})
            return str(claims["username"]), int(claims["revision"])
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            return None


def _read(file: str) -> bytes | None:
    if not file:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from error


def _ttl_s(text: str) -> float:
    if not text:
        return TTL_S
    try:
        return duration_s(text)
    except ValueError as error:
        raise ValueError(f"ttl={text}: {error}") from error
