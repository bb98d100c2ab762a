"""Certificates for tests: an authority, what it signs, and its list of revoked ones."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """Writes ``NAME.pem`` and ``NAME.key`` into ``folder``; its own certificate is ``file``."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder, self._name, self._key = folder, _name(name), ec.generate_private_key(ec.SECP256R1())
        self._now = datetime.datetime.now(datetime.UTC)
        self.file = folder / f"{name}.pem"
        made = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _DAY)
            .not_valid_after(self._now + _DAY)
        )

    def sign(self, name: str, host: str = "localhost", file: str = "") -> tuple[str, str, int]:
        """Certificate, key, serial number."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = self._builder(_name(name), key).add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = made.sign(self._key, hashes.SHA256())
        cert_file, key_file = self.folder / f"{file or name}.pem", self.folder / f"{file or name}.key"
        key_file.write_bytes(pem(key))
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return str(cert_file), str(key_file), certificate.serial_number

    def revoke(self, serial: int) -> str:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(self._now - _DAY).build()
        made = x509.CertificateRevocationListBuilder().issuer_name(self._name).last_update(self._now - _DAY)
        made = made.next_update(self._now + _DAY).add_revoked_certificate(revoked)
        file = self.folder / "revoked.pem"
        file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return str(file)


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
