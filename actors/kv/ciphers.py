"""Cipher suites of TLS: the names that ``--cipher-suites`` takes (IANA's, as Go writes them), and OpenSSL's for them.

A fixed table, so that a name which nobody knows is refused, where a guess would make it another suite or none.
"""

import functools
import ssl
from collections.abc import Iterable

#: Go's ``tls.CipherSuites`` and ``tls.InsecureCipherSuites`` of TLS 1.2, and two older names that etcd takes.
_OPENSSL = {
    "TLS_RSA_WITH_RC4_128_SHA": "RC4-SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA": "DES-CBC3-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA": "ECDHE-ECDSA-RC4-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA": "ECDHE-RSA-RC4-SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA": "ECDHE-RSA-DES-CBC3-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
#: Always there where TLS 1.3 is; neither Go nor ``set_ciphers`` chooses among them.
_TLS13 = frozenset(("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"))


def check(names: Iterable[str]) -> None:
    """Raises ValueError, which names the first that can't be had."""
    for name in names:
        if name in _TLS13:
            continue
        if name not in _OPENSSL:
            raise ValueError(f'unexpected TLS cipher suite "{name}"')
        if not _had(name):
            raise ValueError(
                f"{name} can't be had with {ssl.OPENSSL_VERSION}, which is without it: take it off the list"
            )


def of_tls12(names: Iterable[str]) -> list[str]:
    """Those that ``set_ciphers`` takes, in OpenSSL's words; known ones only."""
    return [_OPENSSL[name] for name in names if name not in _TLS13]


def limit(context: ssl.SSLContext, names: Iterable[str]) -> None:
    """Serve these only. Where all are of TLS 1.3, TLS 1.2 has none left and isn't spoken, as with Go."""
    left = of_tls12(names)
    if left:
        context.set_ciphers(":".join(left))
    else:
        context.minimum_version = ssl.TLSVersion.TLSv1_3


@functools.cache
def _had(name: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(_OPENSSL[name])
    except ssl.SSLError:
        return False
    return True
