"""What every actor process of a node is told when it starts. Made by the node, never changed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec


class Etcd(msgspec.Struct, frozen=True, kw_only=True):
    """How etcd's clients are served: each field is what etcd's flag of that name says, lists hold URLs or names."""

    advertise_client_urls: list[str] = []
    #: told as the member's peer URLs; members have the log between them
    initial_advertise_peer_urls: list[str] = []
    #: names of the members that a new cluster begins with; clients are answered when most of them serve
    initial_cluster: list[str] = []
    listen_client_http_urls: list[str] = []
    listen_metrics_urls: list[str] = []
    #: "extensive": also how long calls took
    metrics: str = "basic"
    cert_file: str = ""
    key_file: str = ""
    trusted_ca_file: str = ""
    client_cert_auth: bool = False
    client_crl_file: str = ""
    #: allowed-cn of a file's client-transport-security; etcd has no flag for it
    client_cert_allowed_cn: list[str] = []
    client_cert_allowed_hostname: list[str] = []
    cipher_suites: list[str] = []
    tls_min_version: str = "TLS1.2"
    tls_max_version: str = ""
    auto_tls: bool = False
    self_signed_cert_validity: int = 1
    host_whitelist: list[str] = []
    #: sites whose pages may ask; none, where etcd lets all
    cors: list[str] = []
    enable_grpc_gateway: bool = True
    auth_token: str = "simple"
    auth_token_ttl: int = 300
    bcrypt_cost: int = 10
    max_txn_ops: int = 128
    max_request_bytes: int = 1536 * 1024
    max_concurrent_streams: int = 2**31 - 1
    grpc_keepalive_min_time_s: float = 5.0
    grpc_keepalive_interval_s: float = 7200.0
    grpc_keepalive_timeout_s: float = 20.0
    watch_progress_notify_interval_s: float = 600.0
    #: 0: 2 GiB, as etcd's default; negative: no end
    quota_backend_bytes: int = 0
    auto_compaction_mode: str = "periodic"
    #: seconds (periodic) or revisions; 0: nothing is compacted by itself
    auto_compaction_retention: float = 0

    @property
    def tls(self) -> bool:
        """Whether there is a certificate to serve ``https`` and ``unixs`` with."""
        return bool(self.cert_file and self.key_file) or self.auto_tls


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """``machine``: 32 hex digits, made once in the data folder. ``nonce``: new at each start of the node.

    ``folder``: the data folder; actors keep their own files in ``folder/<actor>/``, sockets in ``folder/run/``.
    ``log``: address (``segments://…`` or ``kafka://…``), ``log_id`` as founded, ``log_options`` for the driver.
    ``alone``: the log is embedded: the file lock is the term, nothing is renewed, an idle node writes nothing.
    """

    machine: str
    nonce: str
    boot_id: str
    folder: str
    log: str
    log_id: str
    log_options: dict[str, str] = {}
    #: by whom started the node (streams.log.open.check_of); empty: each process looks by itself
    log_checked: str = ""
    #: Ed25519 public key (hex) of `log.opened`: voids must be signed by it
    operator_key: str = ""
    alone: bool = True
    name: str = ""
    version: str = ""
    metadata: dict[str, str] = {}
    cpu_millis: int = 0
    memory_bytes: int = 0
    control: bool = True
    #: it serves clients from the log, and is no machine of the cluster: nobody places, watches or elects it
    replica: bool = False
    #: addresses to listen on (host:port, for etcd's also URLs); empty: don't
    etcd_listen: list[str] = []
    etcd: Etcd = Etcd()
    gateway_listen: list[str] = []
    #: how others reach this node's gateway (host:port)
    gateway_advertise: str = ""
    #: L of the election, the machines' TTL and T_a, in milliseconds
    lease_ms: int = 1000
    machine_ttl_ms: int = 3000
    fence_ms: int = 10000
    #: engine settings: docker host, static units folder, cgroup root …
    engine: dict[str, str] = {}
    updater: dict[str, str] = {}


class Signals:
    """What the supervisor says to a running actor (``stop``, ``drain``), and what the actor tells of itself."""

    def __init__(self, report: Callable[[dict[str, Any]], None] = lambda _status: None) -> None:
        self.stop = asyncio.Event()
        #: the node goes down in an orderly way: hand over the mastership (coordination) before stop
        self.drain = asyncio.Event()
        #: called with plain data now and then: ``{"applied": 12, "live": true}``
        self.report = report
        #: set by an actor that takes observations from the supervisor (coordination: Progress)
        self.notice: Callable[[Any], None] = lambda _observation: None


#: Each ``actors/<name>/actor.py`` has ``async def serve(setting, signals)``: runs until ``signals.stop``.
Serve = Callable[[Setting, Signals], Awaitable[None]]
