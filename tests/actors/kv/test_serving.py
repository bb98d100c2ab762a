"""The port as etcd's flags ask for it: TLS and certificates, users by certificate, JWT, quota, limits, listeners."""

import asyncio
import base64
import json
import os
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from actors.kv import ciphers, places
from actors.kv.certificates import CertificateError, Certificates, check, common_name, named
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc.jwts import Jwts
from actors.setting import Etcd
from deploy.kafka.brokers import free_port
from streams.log.memory import MemoryLog
from streams.log.port import Log
from streams.records import Record
from tests import needs
from tests.actors.kv import pki
from tests.actors.kv.pki import Authority
from tests.actors.kv.server import Client, Running


class Grpc:
    """Calls by name: ``ask("KV/Put", request, response type)``."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.channel = grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target)

    def ask(self, path: str, request: Any, told: Any, token: str = "") -> Any:
        call = self.channel.unary_unary(f"/etcdserverpb.{path}", type(request).SerializeToString, told.FromString)
        return call(request, timeout=10, metadata=[("token", token)] if token else None)

    def put(self, key: bytes, value: bytes = b"v", token: str = "") -> Any:
        return self.ask("KV/Put", pb.PutRequest(key=key, value=value), pb.PutResponse, token)

    def get(self, key: bytes, token: str = "") -> Any:
        return self.ask("KV/Range", pb.RangeRequest(key=key), pb.RangeResponse, token)


@contextmanager
def client(server: Running, credentials: grpc.ChannelCredentials | None = None) -> Iterator[Grpc]:
    made = Grpc(f"localhost:{server.port}" if credentials else f"127.0.0.1:{server.port}", credentials)
    try:
        yield made
    finally:
        made.channel.close()


def refused(code: grpc.StatusCode, words: str, call: Any, *args: Any) -> None:
    with pytest.raises(grpc.RpcError) as error:
        call(*args)
    assert (error.value.code(), words in error.value.details()) == (code, True), error.value


def credentials(ca: Authority, pair: tuple[str, str, int] | None = None) -> grpc.ChannelCredentials:
    key, cert = (Path(pair[1]).read_bytes(), Path(pair[0]).read_bytes()) if pair else (None, None)
    return grpc.ssl_channel_credentials(ca.file.read_bytes(), key, cert)


# -- TLS --------------------------------------------------------------------------------------------------------------


def test_both_protocols_over_tls_told_by_alpn_or_first_bytes(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    cert, key, _ = ca.sign("server")
    with Running(tmp_path / "n", etcd=Etcd(cert_file=cert, key_file=key), at="https://127.0.0.1:0") as server:
        with client(server, credentials(ca)) as etcd:
            etcd.put(b"k")
            assert etcd.get(b"k").kvs[0].value == b"v"
        assert _http(server.port, ca, ["http/1.1"]) == ("http/1.1", b"HTTP/1.1 200 OK")
        assert _http(server.port, ca, []) == (None, b"HTTP/1.1 200 OK")
        assert server.kv_port.urls == [f"https://127.0.0.1:{server.port}"]
        # who speaks plainly to it is cut off, and nobody else is
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as plain:
            plain.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" not in _all(plain)
        assert _http(server.port, ca, [])[1] == b"HTTP/1.1 200 OK"


def _curl(ca: Authority, *words: str) -> tuple[str, str]:
    """What curl, which chooses HTTP/2 where TLS offers it, got: the body, then status and version."""
    command = [
        needs.program("curl"),
        "-s",
        "-m",
        "10",
        "--cacert",
        str(ca.file),
        "-w",
        "\n%{http_code} %{http_version}",
    ]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    body, _, how = done.stdout.rpartition("\n")
    return body, how


def test_the_pages_over_tls_are_had_by_http_2_as_well(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    cert, key, _ = ca.sign("server")
    with Running(tmp_path / "n", etcd=Etcd(cert_file=cert, key_file=key), at="https://127.0.0.1:0") as server:
        at = f"https://127.0.0.1:{server.port}"
        assert _curl(ca, f"{at}/health") == ('{"health":"true","reason":""}\n', "200 2")
        assert _curl(ca, "--http1.1", f"{at}/health")[1] == "200 1.1"
        assert _curl(ca, f"{at}/none") == ("404 page not found\n", "404 2")
        head, told = _curl(ca, "--head", f"{at}/metrics")
        assert (told, head.splitlines()[0]) == ("200 2", "HTTP/2 200 ")
        put, told = _curl(ca, f"{at}/v2/keys/a", "-XPUT", "-d", "value=1")
        assert (told, json.loads(put)["node"]["value"]) == ("201 2", "1")
        put, told = _curl(ca, f"{at}/v3/kv/put", "-d", '{"key":"YQ==","value":"MQ=="}')
        assert (told, json.loads(put)["header"]["revision"]) == ("200 2", "2")
        asked = '{"create_request":{"key":"YQ==","start_revision":"2"}}'
        seen, _ = _curl(ca, "-N", "-m", "1", f"{at}/v3/watch", "-d", asked)
        assert [sorted(json.loads(line)["result"]) for line in seen.splitlines()] == [
            ["created", "header"],
            ["events", "header"],
        ]
        large = tmp_path / "large"
        large.write_bytes(b"value=" + b"x" * (3 << 20))
        for _ in range(10):  # also where the client still sends when it is refused
            assert _curl(ca, f"{at}/v2/keys/a", "-XPUT", "-d", f"@{large}")[1] == "413 2"
        large.write_bytes(b"x" * (40 << 20))
        assert _curl(ca, f"{at}/v2/keys/a", "-XPUT", "-T", str(large))[1] in ("413 2", "000 0")
        assert _curl(ca, f"{at}/health")[1] == "200 2"
        # gRPC is served beside them, and what says that it is gRPC and isn't is refused as before
        assert _curl(ca, f"{at}/health", "-H", "content-type: application/grpcx")[1] == "415 2"
        with client(server, credentials(ca)) as etcd:
            assert etcd.get(b"a").kvs[0].value == b"1"


def _http(port: int, ca: Authority, protocols: list[str]) -> tuple[str | None, bytes]:
    context = ssl.create_default_context(cafile=str(ca.file))
    if protocols:
        context.set_alpn_protocols(protocols)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        return tls.selected_alpn_protocol(), tls.recv(4096).partition(b"\r\n")[0]


def _all(connection: socket.socket) -> bytes:
    out = b""
    try:
        while piece := connection.recv(4096):
            out += piece
    except ConnectionResetError:
        pass
    return out


def test_a_replaced_certificate_is_served_at_once_and_a_broken_one_never(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    cert, key, first = ca.sign("server")
    with Running(tmp_path / "n", etcd=Etcd(cert_file=cert, key_file=key), at="https://127.0.0.1:0") as server:
        assert _serial(server.port) == first
        assert _serial(server.port, "localhost") == first
        time.sleep(0.01)
        _, _, second = ca.sign("server")
        assert _serial(server.port) == second
        assert _serial(server.port, "localhost") == second
        Path(cert).write_text("-----BEGIN CERTIFICATE-----\nhalf")
        assert _serial(server.port) == second
        _, _, third = ca.sign("server")
        assert _serial(server.port) == third


def _serial(port: int, name: str | None = None) -> int:
    """Of the certificate shown, with and without the client naming a host."""
    from cryptography import x509

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=name) as tls,
    ):
        shown = tls.getpeercert(True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number


def test_clients_must_show_a_certificate_that_is_good(tmp_path: Path) -> None:
    ca, other_folder = Authority(tmp_path), tmp_path / "other"
    other_folder.mkdir()
    other = Authority(other_folder)
    cert, key, _ = ca.sign("server")
    good, bad, stranger = ca.sign("good"), ca.sign("bad"), other.sign("good")
    elsewhere = ca.sign("elsewhere", host="elsewhere.example")
    etcd = Etcd(
        cert_file=cert,
        key_file=key,
        trusted_ca_file=str(ca.file),
        client_crl_file=ca.revoke(bad[2]),
        client_cert_allowed_hostname=["localhost"],
    )
    with Running(tmp_path / "n", etcd=etcd, at="https://127.0.0.1:0") as server:
        with client(server, credentials(ca, good)) as accepted:
            accepted.put(b"k")
        for shown in (None, bad, stranger, elsewhere):
            with client(server, credentials(ca, shown)) as rejected:
                refused(grpc.StatusCode.UNAVAILABLE, "", rejected.put, b"k")
        with client(server, credentials(ca, good)) as accepted:
            assert accepted.get(b"k").kvs[0].version == 1


def _resumed(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
    """Whether the session was gone on with, and the one to go on with next. Raises OSError: there is no answer."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="localhost", session=session) as tls,
    ):
        tls.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        if not _all(tls).startswith(b"HTTP/1.1 200"):
            raise ConnectionError("no answer")
        return bool(tls.session_reused), tls.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_was_revoked_does_not_come_back_by_an_old_session(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Also of a list in DER, the form that etcd takes."""
    ca = Authority(tmp_path)
    cert, key, _ = ca.sign("server")
    alice, bob = ca.sign("alice"), ca.sign("bob")
    listed = Path(ca.revoke(bob[2]))
    listed.write_bytes(x509.load_pem_x509_crl(listed.read_bytes()).public_bytes(serialization.Encoding.DER))
    etcd = Etcd(cert_file=cert, key_file=key, trusted_ca_file=str(ca.file), client_crl_file=str(listed))
    context = ssl.create_default_context(cafile=str(ca.file))
    context.load_cert_chain(*alice[:2])
    context.maximum_version = version
    with Running(tmp_path / "n", etcd=etcd, at="https://127.0.0.1:0") as server:
        _, session = _resumed(server.port, context, None)
        _, session = _resumed(server.port, context, session)
        ca.revoke(alice[2])
        for known in (session, None):
            with pytest.raises(OSError):
                _resumed(server.port, context, known)


def test_only_those_named_in_a_file_are_let_in(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    cert, key, _ = ca.sign("server")
    ann, eve = ca.sign("ann"), ca.sign("eve")
    etcd = Etcd(cert_file=cert, key_file=key, trusted_ca_file=str(ca.file), client_cert_allowed_cn=["bob", "ann"])
    with Running(tmp_path / "n", etcd=etcd, at="https://127.0.0.1:0") as server:
        with client(server, credentials(ca, ann)) as accepted:
            accepted.put(b"k")
        for shown in (None, eve):
            with client(server, credentials(ca, shown)) as rejected:
                refused(grpc.StatusCode.UNAVAILABLE, "", rejected.put, b"k")


def test_a_certificate_of_its_own_making(tmp_path: Path) -> None:
    with Running(tmp_path / "n", etcd=Etcd(auto_tls=True), at="https://127.0.0.1:0") as server:
        made = _serial(server.port)
        assert os.stat(tmp_path / "n" / "tls" / "key.pem").st_mode & 0o777 == 0o600
    with Running(tmp_path / "n", etcd=Etcd(auto_tls=True), at="https://127.0.0.1:0") as server:
        assert _serial(server.port) == made


def test_what_can_not_be_served_is_said_before_anything_starts(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    cert, key, _ = ca.sign("server")
    _, other_key, _ = ca.sign("other")
    junk = tmp_path / "junk"
    junk.write_text("junk")
    check(Etcd(cert_file=cert, key_file=key, cipher_suites=["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]))
    for wrong, words in (
        (Etcd(cert_file=cert, key_file=other_key), "or no pair"),
        (Etcd(cert_file=str(junk), key_file=key), "junk and"),
        (Etcd(cert_file=cert, key_file=key, trusted_ca_file=str(junk)), "junk"),
        (Etcd(cert_file=cert), "no key-file"),
    ):
        with pytest.raises(CertificateError, match=words):
            check(wrong)


def test_names() -> None:
    assert common_name({"subject": ((("commonName", "root"),), (("commonName", "alice"),))}) == "alice", "as Go's"
    assert common_name({"subject": ((("organizationName", "x"),),)}) == ""
    wild = {"subjectAltName": (("DNS", "*.example.org"),)}
    assert named(wild, ["a.example.org"])
    assert not named(wild, ["example.org"])


def test_cipher_suites_are_those_that_were_named(tmp_path: Path) -> None:
    """A name of TLS 1.3 adds none to TLS 1.2, and alone leaves none of it."""
    cert, key, _ = Authority(tmp_path).sign("server")
    one, of_tls13 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"

    def served(names: list[str]) -> tuple[set[str], ssl.TLSVersion]:
        context = Certificates(Etcd(cert_file=cert, key_file=key, cipher_suites=names), tmp_path).context
        found = {str(cipher["name"]) for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"}
        return found, context.minimum_version

    assert served([of_tls13, one]) == ({"ECDHE-ECDSA-AES256-GCM-SHA384"}, ssl.TLSVersion.TLSv1_2)
    assert served([of_tls13])[1] == ssl.TLSVersion.TLSv1_3
    old = ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_RSA_WITH_AES_128_CBC_SHA"]
    assert ciphers.of_tls12(old) == ["ECDHE-RSA-CHACHA20-POLY1305", "AES128-SHA"]


def test_cipher_suites_that_cannot_be_had_are_refused_by_name() -> None:
    ciphers.check(["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"])
    for name in ("NOPE", "TLS_ECDHE_RSA_WITH_AES_128_GCM", "ECDHE-RSA-AES128-GCM-SHA256", ""):
        with pytest.raises(ValueError, match=f'unexpected TLS cipher suite "{name}"'):
            ciphers.check([name])
    for name in ("TLS_RSA_WITH_RC4_128_SHA", "TLS_ECDHE_RSA_WITH_RC4_128_SHA"):
        with pytest.raises(ValueError, match=f"{name} can't be had with OpenSSL"):
            ciphers.check([name])


# -- who asks -------------------------------------------------------------------------------------------------------


def enabled(etcd: Grpc) -> None:
    """root, and ``ann`` who may do anything with what begins with a."""
    for user, password in (("root", "r"), ("ann", "a")):
        etcd.ask("Auth/UserAdd", pb.AuthUserAddRequest(name=user, password=password), pb.AuthUserAddResponse)
    for role in ("root", "as"):
        etcd.ask("Auth/RoleAdd", pb.AuthRoleAddRequest(name=role), pb.AuthRoleAddResponse)
    grant = pb.AuthRoleGrantPermissionRequest(name="as")
    grant.perm.permType, grant.perm.key, grant.perm.range_end = 2, b"a", b"b"
    etcd.ask("Auth/RoleGrantPermission", grant, pb.AuthRoleGrantPermissionResponse)
    for user, role in (("root", "root"), ("ann", "as")):
        etcd.ask("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user=user, role=role), pb.AuthUserGrantRoleResponse)
    etcd.ask("Auth/AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse)


def test_users_by_the_common_name_of_their_certificate(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    cert, key, _ = ca.sign("server")
    etcd = Etcd(cert_file=cert, key_file=key, trusted_ca_file=str(ca.file), client_cert_auth=True, bcrypt_cost=4)
    with (
        Running(tmp_path / "n", etcd=etcd, at="https://127.0.0.1:0") as server,
        client(server, credentials(ca, ca.sign("ann"))) as ann,
        client(server, credentials(ca, ca.sign("nobody"))) as nobody,
    ):
        enabled(ann)
        ann.put(b"a1")
        refused(grpc.StatusCode.PERMISSION_DENIED, "permission denied", ann.put, b"b1")
        refused(grpc.StatusCode.PERMISSION_DENIED, "permission denied", nobody.put, b"a1")
        # a token is who the caller is, whatever the certificate says
        ask = pb.AuthenticateRequest(name="root", password="r")
        token = ann.ask("Auth/Authenticate", ask, pb.AuthenticateResponse).token
        nobody.put(b"b1", token=token)


@pytest.fixture
def signing(tmp_path: Path) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "jwt.key").write_bytes(pki.pem(key))
    (tmp_path / "jwt.pub").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return f"jwt,sign-method=ES256,priv-key={tmp_path}/jwt.key,pub-key={tmp_path}/jwt.pub,ttl=1h"


def test_json_web_tokens(tmp_path: Path, signing: str) -> None:
    with Running(tmp_path / "n", etcd=Etcd(auth_token=signing, bcrypt_cost=4)) as server, client(server) as etcd:
        enabled(etcd)
        ask = pb.AuthenticateRequest(name="ann", password="a")
        token = etcd.ask("Auth/Authenticate", ask, pb.AuthenticateResponse).token
        assert token.count(".") == 2
        etcd.put(b"a1", token=token)
        refused(grpc.StatusCode.PERMISSION_DENIED, "permission denied", etcd.put, b"b1", b"v", token)
        head, body, signature = token.split(".")
        forged = f"{head}.{body}.{signature[::-1]}"
        refused(grpc.StatusCode.UNAUTHENTICATED, "invalid auth token", etcd.put, b"a1", b"v", forged)
        late = Jwts(signing.replace("ttl=1h", "ttl=1ms")).sign("root", 1)
        time.sleep(1.1)
        refused(grpc.StatusCode.UNAUTHENTICATED, "invalid auth token", etcd.put, b"a1", b"v", late)
        old = Jwts(signing).sign("ann", 1)
        refused(grpc.StatusCode.INVALID_ARGUMENT, "revision of auth store is old", etcd.put, b"a1", b"v", old)
        # nothing of it is on the log
        assert not server.fold.v3.auth.tokens


def test_keys_by_which_nobody_could_log_in_are_refused_at_the_start(tmp_path: Path, signing: str) -> None:
    files = {"rsa": rsa.generate_private_key(65537, 2048), "p384": ec.generate_private_key(ec.SECP384R1())}
    for name, made in files.items():
        (tmp_path / name).write_bytes(pki.pem(made))
    (tmp_path / "empty").write_bytes(b"")
    Jwts(signing)
    for method, keys, words in (
        ("ES256", "priv-key=rsa", "doesn't fit sign-method=ES256"),
        ("RS256", "priv-key=jwt.key", "doesn't fit sign-method=RS256"),
        ("RS256", "pub-key=jwt.pub", "doesn't fit sign-method=RS256"),
        ("ES512", "priv-key=p384", "doesn't fit sign-method=ES512"),
        ("HS256", "priv-key=jwt.key", "doesn't fit sign-method=HS256"),
        ("HS256", "priv-key=empty", "doesn't fit sign-method=HS256"),
        ("ES384", "priv-key=p384,pub-key=jwt.pub", "no pair|doesn't fit"),
    ):
        with pytest.raises(ValueError, match=words):
            Jwts(f"jwt,sign-method={method},{keys.replace('key=', f'key={tmp_path}/')}")


def test_a_node_with_the_public_key_only_checks(tmp_path: Path, signing: str) -> None:
    public = f"jwt,sign-method=ES256,pub-key={tmp_path}/jwt.pub"
    with Running(tmp_path / "n", etcd=Etcd(auth_token=public, bcrypt_cost=4)) as server, client(server) as etcd:
        enabled(etcd)
        ask = pb.AuthenticateRequest(name="ann", password="a")
        refused(grpc.StatusCode.UNKNOWN, "verify-only key", etcd.ask, "Auth/Authenticate", ask, pb.AuthenticateResponse)
        etcd.put(b"a1", token=Jwts(signing).sign("ann", server.fold.v3.auth.revision))


def test_no_kind_of_token_at_all(tmp_path: Path, signing: str) -> None:
    """`--auth-token=`: as in etcd, a right password leads to none, and none is known."""
    with Running(tmp_path / "n", etcd=Etcd(auth_token="", bcrypt_cost=4)) as server, client(server) as etcd:
        enabled(etcd)
        ask = pb.AuthenticateRequest(name="ann", password="a")
        failed = "authentication failed, invalid user ID or password"
        refused(grpc.StatusCode.INVALID_ARGUMENT, failed, etcd.ask, "Auth/Authenticate", ask, pb.AuthenticateResponse)
        for token in (Jwts(signing).sign("ann", server.fold.v3.auth.revision), "junk.1"):
            refused(grpc.StatusCode.UNAUTHENTICATED, "invalid auth token", etcd.put, b"a1", b"v", token)


def test_no_operation_in_a_transaction(tmp_path: Path) -> None:
    """`--max-txn-ops=0`: as in etcd, transactions are empty or refused."""
    with Running(tmp_path / "n", etcd=Etcd(max_txn_ops=0)) as server, client(server) as etcd:
        etcd.put(b"k")
        etcd.ask("KV/Txn", pb.TxnRequest(), pb.TxnResponse)
        put = pb.RequestOp(request_put=pb.PutRequest(key=b"k", value=b"w"))
        for asked in (pb.TxnRequest(success=[put]), pb.TxnRequest(compare=[pb.Compare(key=b"k")])):
            refused(grpc.StatusCode.INVALID_ARGUMENT, "too many operations", etcd.ask, "KV/Txn", asked, pb.TxnResponse)


# -- limits ---------------------------------------------------------------------------------------------------------


def test_the_quota_raises_the_alarm_and_deletes_still_pass(tmp_path: Path) -> None:
    nospace = grpc.StatusCode.RESOURCE_EXHAUSTED, "mvcc: database space exceeded"
    with Running(tmp_path / "n", etcd=Etcd(quota_backend_bytes=10_000)) as server, client(server) as etcd:
        etcd.put(b"a", b"v" * 8000)
        refused(*nospace, etcd.put, b"b", b"v" * 8000)
        listed = etcd.ask("Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse).alarms
        assert [(one.alarm, one.memberID) for one in listed] == [(pb.NOSPACE, int("5e" * 8, 16))]
        # while it is on even a small one is refused, in a transaction, too; so are leases
        refused(*nospace, etcd.put, b"b")
        txn = pb.TxnRequest(failure=[pb.RequestOp(request_put=pb.PutRequest(key=b"c"))])
        refused(*nospace, etcd.ask, "KV/Txn", txn, pb.TxnResponse)
        refused(*nospace, etcd.ask, "Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=60), pb.LeaseGrantResponse)
        page = Client(server.port)
        assert page.raw("GET", "/health")[0] == 503
        page.close()
        assert etcd.get(b"a").count == 1
        gone = etcd.ask("KV/DeleteRange", pb.DeleteRangeRequest(key=b"a"), pb.DeleteRangeResponse)
        compact = pb.CompactionRequest(revision=gone.header.revision)
        etcd.ask("KV/Compact", compact, pb.CompactionResponse)
        etcd.ask("Maintenance/Defragment", pb.DefragmentRequest(), pb.DefragmentResponse)
        off = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, alarm=pb.NOSPACE, memberID=listed[0].memberID)
        etcd.ask("Maintenance/Alarm", off, pb.AlarmResponse)
        etcd.put(b"b")


class SlowLog(MemoryLog):
    async def append(self, records: Sequence[Record]) -> list[int]:
        await asyncio.sleep(0.1)
        return await super().append(records)


def test_many_refused_puts_raise_one_alarm(tmp_path: Path) -> None:
    async def slow() -> Log:
        return SlowLog()

    with Running(tmp_path, slow, Etcd(quota_backend_bytes=100)) as server, client(server) as etcd:
        put = etcd.channel.unary_unary(
            "/etcdserverpb.KV/Put", pb.PutRequest.SerializeToString, pb.PutResponse.FromString
        )
        asked = [put.future(pb.PutRequest(key=b"b", value=b"v" * 8000), timeout=10) for _ in range(50)]
        assert {one.code() for one in asked} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert server.call(lambda: server.fold.v3.alarms), "who was refused can see why"
        assert sum(entry.raw.count(b"kv.v3.alarm") for entry in server.log.entries) == 1


def test_a_corrupt_store_takes_no_commands(tmp_path: Path) -> None:
    corrupt = grpc.StatusCode.DATA_LOSS, "corrupt cluster"
    with Running(tmp_path / "n") as server, client(server) as etcd:
        etcd.put(b"a")
        on = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, alarm=pb.CORRUPT, memberID=1)
        etcd.ask("Maintenance/Alarm", on, pb.AlarmResponse)
        refused(*corrupt, etcd.put, b"a")
        etcd.get(b"a")  # etcd answers reads all the same
        off = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, alarm=pb.CORRUPT, memberID=1)
        etcd.ask("Maintenance/Alarm", off, pb.AlarmResponse)
        assert etcd.get(b"a").count == 1


def test_an_alarm_that_nobody_knows_is_told_by_its_number(tmp_path: Path) -> None:
    with Running(tmp_path / "n") as server, client(server) as etcd:
        on = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, alarm=77, memberID=1)  # type: ignore[arg-type]
        etcd.ask("Maintenance/Alarm", on, pb.AlarmResponse)
        status = etcd.ask("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
        assert list(status.errors) == ["memberID:1 alarm:77 "]
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/health")
        with caught.value as answer:
            assert json.load(answer) == {"health": "false", "reason": "ALARM UNKNOWN"}
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/health?exclude=77") as answer:
            assert json.load(answer)["health"] == "true"


def _page(server: Running, path: str, method: str = "GET") -> tuple[int, str]:
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
    try:
        with urllib.request.urlopen(asked) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_checks_one_by_one_and_together(tmp_path: Path) -> None:
    with Running(tmp_path / "n") as server, client(server) as etcd:
        corruption, *rest = "data_corruption", "serializable_read", "linearizable_read", "non_learner"
        for page in (
            "/livez",
            "/livez/serializable_read",
            "/readyz",
            *[f"/readyz/{one}" for one in (corruption, *rest)],
        ):
            assert _page(server, page) == (200, "ok\n")
            assert _page(server, page, "HEAD")[0] == _page(server, page, "POST")[0] == 405
        assert _page(server, "/livez?verbose") == (200, "[+]serializable_read ok\nok\n")
        well = "".join(f"[+]{one} ok\n" for one in rest)
        assert _page(server, "/readyz?verbose&exclude=data_corruption") == (200, f"{well}ok\n")
        for page in ("/livez/", "/livez/non_learner", "/readyz/x", "/readyz/non_learner/x", "/livezz"):
            assert _page(server, page)[0] == 404
        on = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, alarm=pb.CORRUPT, memberID=1)
        etcd.ask("Maintenance/Alarm", on, pb.AlarmResponse)
        broken = "[-]data_corruption failed: alarm activated: CORRUPT\n"
        assert _page(server, "/readyz") == (503, f"{broken}{well}\n")
        assert _page(server, "/readyz/data_corruption") == (503, f"{broken}\n")
        assert _page(server, "/readyz?exclude=data_corruption") == _page(server, "/livez") == (200, "ok\n")


def test_limits_are_those_of_the_flags(tmp_path: Path) -> None:
    with Running(tmp_path / "n", etcd=Etcd(max_txn_ops=2, max_request_bytes=1000)) as server, client(server) as etcd:
        ops = [pb.RequestOp(request_put=pb.PutRequest(key=b"%d" % number)) for number in range(3)]
        many = grpc.StatusCode.INVALID_ARGUMENT, "too many operations in txn request"
        refused(*many, etcd.ask, "KV/Txn", pb.TxnRequest(success=ops), pb.TxnResponse)
        etcd.ask("KV/Txn", pb.TxnRequest(success=ops[:2]), pb.TxnResponse)
        refused(grpc.StatusCode.INVALID_ARGUMENT, "request is too large", etcd.put, b"k", b"v" * 1000)


# -- listeners ------------------------------------------------------------------------------------------------------


def test_listeners_serve_what_they_are_for(tmp_path: Path) -> None:
    http, metrics = free_port(), free_port()
    etcd = Etcd(
        listen_client_http_urls=[f"http://127.0.0.1:{http}"], listen_metrics_urls=[f"http://127.0.0.1:{metrics}"]
    )
    with Running(tmp_path / "n", etcd=etcd) as server:
        with client(server) as grpc_only:
            grpc_only.put(b"k")
        for port, pages in ((http, {"/version": 200, "/v2/keys/": 200}), (metrics, {"/health": 200, "/version": 404})):
            page = Client(port)
            assert {path: page.raw("GET", path)[0] for path in pages} == pages
            page.close()
            other = Grpc(f"127.0.0.1:{port}")
            refused(grpc.StatusCode.UNAVAILABLE, "", other.put, b"k")
            other.channel.close()
        with pytest.raises(OSError):
            Client(server.port).raw("GET", "/version")
        assert server.kv_port.urls == [f"http://127.0.0.1:{server.port}"]


def test_a_unix_socket_and_another_host_than_those_allowed(tmp_path: Path) -> None:
    path = tmp_path / "etcd.sock"
    etcd = Etcd(listen_client_http_urls=[f"unix://{path}"], host_whitelist=["known.example"])
    with Running(tmp_path / "n", etcd=etcd):
        for host, status in (("known.example", b"200"), ("known.example:2379", b"200"), ("rebound.example", b"403")):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.sendall(f"GET /version HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                assert _all(connection).split(b" ")[1] == status


@pytest.mark.parametrize("text", ["", "http://", "ftp://a:1", "http://a", "http://a:x", "http://a:1/path", "unix://"])
def test_no_place_to_listen_at(text: str) -> None:
    with pytest.raises(ValueError):
        places.parse(text)


def test_places() -> None:
    assert places.parse("[::1]:2379", tls=True) == places.Place("https", "::1", 2379, "")
    assert places.parse("unixs://etcd.sock").tls


def test_who_asked_for_a_leader_is_told_when_nothing_of_one_came_for_three_leases(tmp_path: Path) -> None:
    """Also where nobody writes: this node may be cut off, and another one the master."""
    server = Running(tmp_path)
    server.setting = msgspec.structs.replace(server.setting, alone=False, lease_ms=400)
    with server, client(server) as etcd:
        create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"w"))
        kinds = (pb.WatchRequest.SerializeToString, pb.WatchResponse.FromString)
        watch = etcd.channel.stream_stream("/etcdserverpb.Watch/Watch", *kinds)

        def asks() -> Iterator[pb.WatchRequest]:
            yield create
            over.wait(30)

        over = threading.Event()
        wants, plain = watch(asks(), metadata=[("hasleader", "true")]), watch(asks())
        assert next(wants).created
        assert next(plain).created
        time.sleep(2)  # five leases, renewed
        etcd.put(b"w")
        assert next(wants).events
        began_s = time.monotonic()
        server.call(server.coordination.cancel)
        with pytest.raises(grpc.RpcError) as told:
            next(wants)
        over.set()
        assert (told.value.code(), told.value.details()) == (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        assert 0.8 < time.monotonic() - began_s < 5
        etcd.put(b"w")  # and the others go on
        assert [len(next(plain).events) for _ in range(2)] == [1, 1]


@pytest.mark.parametrize("one", [b"\x01", b'"', b"\\", b"\xff", "é".encode(), b"a"])
def test_a_value_of_any_bytes_may_be_as_large_as_in_etcd(one: bytes, tmp_path: Path) -> None:
    value = (one * 1_572_000)[:1_572_000]
    with Running(tmp_path / "n") as server, client(server) as etcd:
        etcd.put(b"k", value)
        compare = pb.Compare(key=b"k", target=pb.Compare.VALUE, value=value)
        txn = pb.TxnRequest(compare=[compare], success=[pb.RequestOp(request_put=pb.PutRequest(key=b"t"))])
        assert etcd.ask("KV/Txn", txn, pb.TxnResponse).succeeded
        page = Client(server.port)
        body = json.dumps({"key": "ag==", "value": base64.b64encode(value).decode()})
        assert page.raw("POST", "/v3/kv/put", body.encode())[0] == 200
        page.close()
        newest = server.fold.v3.revs.newest
        assert newest[b"k"].value == newest[b"j"].value == value
        refused(grpc.StatusCode.INVALID_ARGUMENT, "request is too large", etcd.put, b"k", value + b"a" * 1000)
