"""TLS of etcd's port: its certificate, read again when its files changed, and what clients' certificates say."""

import datetime
import ipaddress
import os
import socket
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from actors.kv import ciphers
from actors.setting import Etcd

if TYPE_CHECKING:
    from cryptography import x509

_log = structlog.get_logger(actor="kv")
_VERSIONS = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}


class CertificateError(Exception):
    """A certificate, key or list can't be used; the message names the file."""

    exit_code = 2


class Certificates:
    """``context`` for the listeners: each handshake looks whether certificate or key were replaced, as etcd's do."""

    def __init__(self, etcd: Etcd, folder: Path) -> None:
        """``folder``: where a self-signed certificate is kept. Raises CertificateError."""
        self._etcd = etcd
        self._cert, self._key = etcd.cert_file, etcd.key_file
        if not (self._cert and self._key):
            self._cert, self._key = self_signed(folder, etcd.self_signed_cert_validity)
        self._seen = self._stamps()
        self.context = self._newest = self._made()

    def _made(self) -> ssl.SSLContext:
        etcd = self._etcd
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[etcd.tls_min_version]
        if etcd.tls_max_version:
            context.maximum_version = _VERSIONS[etcd.tls_max_version]
        if etcd.cipher_suites:
            ciphers.limit(context, etcd.cipher_suites)
        context.set_alpn_protocols(["h2", "http/1.1"])
        _loaded(f"{self._cert} and {self._key}", lambda: context.load_cert_chain(self._cert, self._key, _no_password))
        if etcd.trusted_ca_file or etcd.client_cert_auth:
            context.verify_mode = ssl.CERT_REQUIRED
            # who comes back with a session isn't looked at again: those that the server keeps, of TLS 1.2, has_revoked
            # looks at
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        if etcd.trusted_ca_file:
            _loaded(etcd.trusted_ca_file, lambda: context.load_verify_locations(etcd.trusted_ca_file))
        elif etcd.client_cert_auth:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        if etcd.client_crl_file:
            _loaded(etcd.client_crl_file, lambda: _load_crl(context, etcd.client_crl_file))
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        # called in every handshake, with or without a name
        context.sni_callback = self._shake_hands
        return context

    def has_revoked(self, connection: ssl.SSLObject) -> bool:
        """Whether a client that came back with an old session shows a certificate that is revoked by now."""
        shown = connection.getpeercert(True) if connection.session_reused and self._etcd.client_crl_file else None
        if shown is None:
            return False
        from cryptography import x509

        certificate = x509.load_der_x509_certificate(shown)
        try:
            return any(
                crl.issuer == certificate.issuer
                and crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
                for crl in _crls(self._etcd.client_crl_file)
            )
        except (OSError, ValueError):
            return False  # the one before, which was looked at when the session began, is good on

    def _shake_hands(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        stamps = self._stamps()
        if stamps != self._seen:
            self._seen = stamps
            try:
                self._newest = self._made()
            except CertificateError as error:
                _log.warning("the new certificate can't be used; the old one is served on", error=str(error))
        if self._newest is not self.context:
            connection.context = self._newest

    def _stamps(self) -> list[tuple[int, int, int]]:
        return [_stamp(file) for file in (self._cert, self._key, self._etcd.client_crl_file)]


def _no_password() -> str:
    raise CertificateError("the key is encrypted; etcd's port takes a key without a password")


def _stamp(file: str) -> tuple[int, int, int]:
    try:
        found = os.stat(file)
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


def _loaded(what: str, load: Any) -> None:
    try:
        load()
    except ssl.SSLError as error:
        raise CertificateError(f"{what}: no certificate, key or list in PEM, or no pair: {error.reason}") from error
    except OSError as error:
        raise CertificateError(f"{what}: {error.strerror}") from error


def _load_crl(context: ssl.SSLContext, file: str) -> None:
    """In DER, as etcd takes it, or in PEM. Raises OSError, ssl.SSLError."""
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        lists = _crls(file)
    except ValueError as error:
        raise CertificateError(f"{file}: no list in DER or PEM: {error}") from error
    if b"-----BEGIN" in Path(file).read_bytes():
        context.load_verify_locations(file)
        return
    with tempfile.NamedTemporaryFile() as given:  # OpenSSL takes lists of files only, in PEM
        given.write(b"".join(one.public_bytes(Encoding.PEM) for one in lists))
        given.flush()
        context.load_verify_locations(given.name)


def _crls(file: str) -> "list[x509.CertificateRevocationList]":
    """Raises OSError, ValueError."""
    from cryptography import x509

    raw, end = Path(file).read_bytes(), b"-----END X509 CRL-----"
    if b"-----BEGIN" not in raw:
        return [x509.load_der_x509_crl(raw)]
    return [x509.load_pem_x509_crl(part + end) for part in raw.split(end)[:-1]] or [x509.load_pem_x509_crl(raw)]


def check(etcd: Etcd) -> None:
    """Raises CertificateError if listeners could not be opened with these settings (self-signed ones aside)."""
    for given, other, name in (
        (etcd.cert_file, etcd.key_file, "key-file"),
        (etcd.key_file, etcd.cert_file, "cert-file"),
    ):
        if given and not other:
            raise CertificateError(f"{given} is given, but no {name}: a certificate and its key come together")
    if etcd.cert_file:
        Certificates(etcd, Path())


# -- what clients show --------------------------------------------------------------------------------------------


def common_name(certificate: Mapping[str, Any]) -> str:
    """Of what ``SSLObject.getpeercert`` gives; empty: it has none."""
    names = [value for part in certificate["subject"] for key, value in part if key == "commonName"]
    return names[-1] if names else ""  # of several Go takes the last


def named(certificate: Mapping[str, Any], allowed: Sequence[str]) -> bool:
    """Whether one of its alternative names (not the common name) is allowed; ``*`` stands for one label."""
    names = {value.lower() for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")}
    wanted = [name.lower() for name in allowed]
    return any(name in names or f"*.{name.partition('.')[2]}" in names for name in wanted)


# -- self-signed ----------------------------------------------------------------------------------------------------


def self_signed(folder: Path, years: int) -> tuple[str, str]:
    """Certificate and key in ``folder``, made if they aren't there or have ended."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    now = datetime.datetime.now(datetime.UTC)
    if cert_file.exists() and key_file.exists():
        known = x509.load_pem_x509_certificate(cert_file.read_bytes())
        if known.not_valid_after_utc > now:
            return str(cert_file), str(key_file)
    key = ec.generate_private_key(ec.SECP521R1())
    who = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "corelog")])
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName(socket.gethostname())]
    names += [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=365 * years))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(private)
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return str(cert_file), str(key_file)
