"""TLS and SASL: the options reach the hot clients and the administration, against a real broker."""

import datetime
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.kafka.brokers import Brokers, Missing
from streams.log.kafka import KafkaLog
from streams.log.port import LogUnavailable
from streams.records import Entry, Record
from tests import needs
from tests.cluster import parts

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
EXTRA = """\
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config={plain} user_corelog="right";
ssl.keystore.type=PEM
ssl.keystore.location={pem}
"""


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1; also the file of key and certificate that a broker reads."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.pem").write_bytes(public)
    (folder / "broker.pem").write_bytes(private + public)
    return folder / "ca.pem", folder / "broker.pem"


async def test_tls_and_a_password_are_used_by_both_clients_and_a_wrong_one_is_said(tmp_path):
    authority, pem = certificate(tmp_path)
    try:
        made = Brokers(1, tmp_path / "k", EXTRA.format(plain=PLAIN, pem=pem), secure=True)
    except Missing as error:
        needs.missing(str(error))
        raise
    options = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "corelog",
        "sasl.password": "right",
        "ssl.ca.location": str(authority),
    }
    with made.up() as kafka:
        address = parts.address(kafka.secure_bootstrap)
        log = await KafkaLog.open(address, options)
        record = Record("ab" * 16, "kv", "kv@m1", 1, 1, 5, b"[]")
        [offset] = await log.append([record])
        tail = log.tail(0)
        assert await anext(tail) == [Entry(offset, record.canonical())]
        await tail.aclose()
        await log.trim(1)
        assert await log.first() == 1
        await log.close()
        with pytest.raises(LogUnavailable, match="security options"):
            await KafkaLog.open(address, options | {"sasl.password": "wrong"})
        with pytest.raises(LogUnavailable, match="security options"):
            await KafkaLog.open(address, {})
