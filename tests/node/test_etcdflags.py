"""etcd's flags, variables and file: what is taken, what is warned of, what is refused, and where it stood."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.cli.etcd import made
from node.etcdfile import parse_file
from node.etcdflags import gather, read_flags, serving
from node.etcdnames import KNOWN, FlagError


def test_both_dashes_and_both_ways_to_give_a_value() -> None:
    found = read_flags(["-name", "a", "--data-dir=d", "--client-cert-auth", "--auto-tls=false", "-name=b"])
    assert [(one.name, one.text) for one in found] == [
        ("name", "a"),
        ("data-dir", "d"),
        ("client-cert-auth", "true"),
        ("auto-tls", "false"),
        ("name", "b"),
    ]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--nam", "x"], "flag provided but not defined: -nam; did you mean name?"),
        (["--name"], "flag needs an argument: -name"),
        (["serve"], "'serve' is not a valid flag"),
        (["--listen-client-urls", "127.0.0.1:2379"], "--listen-client-urls: '127.0.0.1:2379': URL scheme must be"),
        (["--listen-client-urls", "http://127.0.0.1"], "no address to listen on"),
        (["--bcrypt-cost", "-1"], "--bcrypt-cost: '-1' is no whole number without a sign: parse error"),
        (["--max-txn-ops=many"], "--max-txn-ops: 'many' is no whole number"),
        (["--auth-token-ttl=-5"], "--auth-token-ttl: '-5' is no whole number without a sign: parse error"),
        (
            ["--quota-backend-bytes=9223372036854775808"],
            "--quota-backend-bytes: 9223372036854775808: value out of range",
        ),
        (["--quota-backend-bytes=08"], "--quota-backend-bytes: '08' is no whole number: parse error"),
        (["--max-concurrent-streams=0x100000000"], "--max-concurrent-streams: 0x100000000: value out of range"),
        (["--heartbeat-interval=abc"], "--heartbeat-interval: 'abc' is no whole number without a sign: parse error"),
        (["--snapshot-count=x"], "--snapshot-count: 'x' is no whole number without a sign: parse error"),
        (["--max-learners=1.5"], "--max-learners: '1.5' is no whole number: parse error"),
        (["--pre-vote=maybe"], "--pre-vote: 'maybe' is neither true nor false"),
        (["--raft-read-timeout=5"], "--raft-read-timeout: '5' is no duration"),
        (["--log-level=nope"], '--log-level: unrecognized level: "nope"'),
        (
            ["--election-timeout=10"],
            "--election-timeout[10ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (["--election-timeout=60000"], "--election-timeout[60000ms] is too long, and should be set less than 50000ms"),
        (["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (["--self-signed-cert-validity=8000"], "--self-signed-cert-validity: 8000: value out of range: 0 to 292"),
        (["--auto-compaction-retention", "²"], "no duration"),
        (["--auth-token", "jwt,foo"], "--auth-token: 'foo' is no option: write NAME=VALUE"),
        (["--auth-token", "jwt,ttl=1h,ttl=2h"], "--auth-token: ttl= is given twice"),
        (["--client-cert-auth=maybe"], "neither true nor false"),
        (["--auto-compaction-retention", "soon"], "no duration"),
        (["--auth-token", "paper"], "'paper' is no kind of token"),
        (["--auth-token", "jwt,sign-method=RS256"], "jwt needs priv-key=FILE"),
        (["--tls-min-version", "SSL3"], "none of TLS1.2, TLS1.3"),
        (["--cipher-suites=NOPE"], '--cipher-suites: unexpected TLS cipher suite "NOPE"'),
        (["--cipher-suites=TLS_RSA_WITH_RC4_128_SHA"], "--cipher-suites: TLS_RSA_WITH_RC4_128_SHA can't be had"),
    ],
)
def test_what_is_wrong_names_the_flag(argv: list[str], words: str) -> None:
    with pytest.raises(FlagError) as refused:
        gather(argv, {})
    assert words in str(refused.value)
    assert refused.value.exit_code == 2


def test_flags_and_variables_and_what_has_no_meaning_is_warned_of() -> None:
    asked = gather(
        ["--name", "flag", "--snapshot-count", "5"],
        {"ETCD_DATA_DIR": "d", "ETCD_QUOTA_BACKEND_BYTES": "1000", "ETCD_PORT": "tcp://10.0.0.1", "HOME": "/"},
    )
    assert asked.node == {"data-dir": "d", "name": "flag"}
    assert serving(asked.serving).quota_backend_bytes == 1000
    assert asked.warnings == [
        "ETCD_PORT is no setting of etcd's",
        "--snapshot-count: without effect here: the log does this part's work",
    ]


@pytest.mark.parametrize("value", ["variable", ""])
def test_a_setting_is_a_flag_or_a_variable(tmp_path: Path, value: str) -> None:
    """Which one was meant isn't known; etcd doesn't start either. A file stands for both."""
    for flag, variable in (("--name=x", "ETCD_NAME"), ("--snapshot-count=5", "ETCD_SNAPSHOT_COUNT")):
        with pytest.raises(FlagError) as refused:
            gather([flag], {variable: value})
        assert str(refused.value) == (
            f'{flag.partition("=")[0]}: conflicting environment variable "{variable}" is shadowed by corresponding '
            "command-line flag (either unset environment variable or disable flag)"
        )
    file = tmp_path / "etcd.yml"
    file.write_text("name: a")
    both = gather([f"--config-file={file}", "--name=x"], {"ETCD_NAME": value, "ETCD_CONFIG_FILE": "elsewhere"})
    assert both.node == {"name": "a"}


FILE = """\
name: 'n1'
data-dir: /var/lib/etcd
listen-client-urls: http://127.0.0.1:2379,http://127.0.0.1:2380
quota-backend-bytes: 0
watch-progress-notify-interval: 600000000000
client-transport-security:
  cert-file: c.pem
  client-cert-auth: true
peer-transport-security:
  cert-file: p.pem
discovery:
cipher-suites: [
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
]
"""


def test_a_file_stands_for_all_of_flags_and_variables(tmp_path: Path) -> None:
    file = tmp_path / "etcd.yml"
    file.write_text(FILE)
    asked = gather(["--config-file", str(file), "--name", "other"], {"ETCD_DATA_DIR": "elsewhere"})
    assert asked.node["name"] == "n1"
    assert asked.node["data-dir"] == "/var/lib/etcd"
    found = serving(asked.serving)
    assert found.cert_file == "c.pem"
    assert found.client_cert_auth
    assert found.watch_progress_notify_interval_s == 600
    assert len(found.cipher_suites) == 2
    assert any("without effect: the log" in one or "have no effect" in one for one in asked.warnings)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("name: a\nnmae: b\n", "f:2: unknown key 'nmae'; did you mean name?"),
        ("name: {a: b}\n", "f:1: name is a text, a number or a list of texts"),
        ("- a\n", "f:1: a mapping of settings is wanted"),
        ("name: [\n", "f: not YAML"),
        ("client-transport-security:\n  cert: x\n", "f:2: unknown key 'cert'"),
        ("peer-transport-security:\n  name: x\n", "f:2: unknown key 'name'"),
        ("socket-options:\n  name: x\n", "f:2: unknown key 'name'"),
        ("client:\n  endpoints: x\n", "f:1: unknown key 'client'"),
        ("client-transport-security:\n  allowed-cn: ['a,b']\n", "f:2: client-cert-allowed-cn: each item of the list"),
        ("client-transport-security:\n  allowed-cn: [a, '']\n", "f:2: client-cert-allowed-cn: each item of the list"),
        ("client-transport-security:\n  allowed-cn: a,b\n", "f:2: client-cert-allowed-cn: write several names as"),
    ],
)
def test_what_is_wrong_in_a_file_names_the_line(source: str, words: str) -> None:
    with pytest.raises(FlagError, match=words.replace("[", r"\[")[:30]) as refused:
        parse_file(source, "f")
    assert words in str(refused.value)


SECTIONS = """\
client-transport-security:
  allowed-cn: [ann, bob]
  skip-client-san-verification: yes
peer-transport-security:
  allowed-cn: [a]
  allowed-hostname: [b]
  skip-client-san-verification: true
socket-options: {reuse-port: true, reuse-address: true}
discovery-config:
  token: t
  client:
    endpoints: [http://127.0.0.1:1]
    dial-timeout: 5000000000
    secure: {cert: c, server-name: s, insecure-transport: false}
    auth: {username: u, password: p}
auth-token: ""
pre-vote: on
"""


def test_sections_of_a_file(tmp_path: Path) -> None:
    """etcd's own keys, also those that no flag has; what they say is kept, or warned of with its line."""
    file = tmp_path / "etcd.yml"
    file.write_text(SECTIONS)
    asked = gather(["--config-file", str(file)], {})
    assert asked.serving == {"client-cert-allowed-cn": "ann,bob", "auth-token": ""}
    assert asked.node == {"discovery-token": "t"}
    assert serving(asked.serving).client_cert_allowed_cn == ["ann", "bob"]
    warned = [one.removeprefix(f"{file}:") for one in asked.warnings]
    assert warned[0] == "3: without effect here: a client's address is never compared with its certificate"
    assert [int(one.split(":")[0]) for one in warned[1:]] == [5, 6, 7, 8, 8, 12, 13, 14, 14, 14, 15, 15, 17]
    file.write_text("client-transport-security: {allowed-hostname: [a.example, b.example]}")
    assert serving(gather(["--config-file", str(file)], {}).serving).client_cert_allowed_hostname == [
        "a.example",
        "b.example",
    ]
    file.write_text("client-transport-security: {allowed-cn: [a], allowed-hostname: [b]}")
    with pytest.raises(FlagError, match="AllowedCNs and AllowedHostnames are mutually exclusive"):
        gather(["--config-file", str(file)], {})


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_no_file_is_worse_than_refused(source: str) -> None:
    try:
        parse_file(source, "f")
    except FlagError as refused:
        assert str(refused).startswith("f")


@given(
    st.lists(st.sampled_from(["--name", "-name=x", "--", "-", "=", "--auto-tls", "--auto-tls=x", "x", "--=a", "-\n"]))
)
def test_no_line_of_flags_is_worse_than_refused(argv: list[str]) -> None:
    try:
        gather(argv, {})
    except FlagError as refused:
        assert str(refused)


def test_every_flag_that_etcd_names_is_known() -> None:
    """Help of 3.7 and of 3.5, names only."""
    assert len(KNOWN) > 140
    for name in ("listen-peer-urls", "experimental-initial-corrupt-check", "enable-v2", "cors", "feature-gates"):
        assert name in KNOWN


def test_the_node_that_comes_of_it(tmp_path: Path) -> None:
    config = made(gather(["-name", "a", "-data-dir", str(tmp_path)], {}), {})
    assert (config.name, config.folder, config.etcd_listen) == ("a", tmp_path, ["http://localhost:2379"])
    assert config.gateway_listen == []
    assert config.etcd_urls == ["http://localhost:2379"]
    assert made(gather([], {}), {"CORELOG_GATEWAY_LISTEN": "127.0.0.1:1"}).gateway_listen == ["127.0.0.1:1"]


def test_discovery_is_by_a_token_of_v2_or_needs_a_log() -> None:
    token = "http://127.0.0.1:2379/" + "0" * 32
    config = made(gather(["--discovery", token, "--discovery-fallback", "exit"], {}), {})
    assert (config.discovery, config.discovery_fallback) == (token, "exit")
    with pytest.raises(FlagError, match="multiple discovery or bootstrap flags are set"):
        made(gather(["--discovery", token, "--initial-cluster", "a=http://127.0.0.1:1"], {}), {})
    for flag in ("--discovery-token", "--discovery-srv"):
        with pytest.raises(FlagError, match=f"{flag} isn't asked here"):
            made(gather([flag, "x"], {}), {})
        assert not made(gather([flag, "x"], {}), {"CORELOG_LOG": "kafka://127.0.0.1:9"}).alone


def test_members_need_one_log() -> None:
    members = "a=http://127.0.0.1:1,b=http://127.0.0.1:2"
    with pytest.raises(FlagError, match="2 members, which need one log: set CORELOG_LOG"):
        made(gather(["--name=a", "--initial-cluster", members], {}), {})
    shared = {"CORELOG_LOG": "kafka://127.0.0.1:9"}
    config = made(gather(["--name=a", "--initial-cluster", members], {}), shared)
    assert not config.alone
    assert config.serving.initial_cluster == ["a", "b"]
    existing = ["--name=a", "--initial-cluster", members, "--initial-cluster-state=existing"]
    assert made(gather(existing, {}), shared).serving.initial_cluster == []
    with pytest.raises(FlagError, match="couldn't find local name 'default' in the initial cluster configuration"):
        made(gather(["--initial-cluster", members], {}), shared)
    with pytest.raises(FlagError, match="'old' is none of new, existing"):
        made(gather(["--initial-cluster-state=old"], {}), shared)
    with pytest.raises(FlagError, match="'b' is no member"):
        made(gather(["--initial-cluster", "a=http://x,b"], {}), {})


def test_the_own_name_is_looked_for_when_a_cluster_is_made_only(tmp_path: Path) -> None:
    flags = ["--initial-cluster", "a=http://127.0.0.1:1,b=http://127.0.0.1:2", "--data-dir", str(tmp_path)]
    shared = {"CORELOG_LOG": "kafka://127.0.0.1:9"}
    with pytest.raises(FlagError, match="couldn't find local name 'default'"):
        made(gather(flags, {}), shared)
    (tmp_path / "log-id").write_text("7" * 32)
    assert made(gather(flags, {}), shared).serving.initial_cluster == ["a", "b"]


def test_https_needs_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(FlagError, match="https needs cert-file and key-file"):
        made(gather(["--listen-client-urls", "https://127.0.0.1:1"], {}), {})
    with pytest.raises(FlagError, match=r"nowhere\.pem and .*: No such file"):
        made(gather(["--cert-file", "nowhere.pem", "--key-file", "k.pem"], {}), {})
    with pytest.raises(FlagError, match="no key-file"):
        made(gather(["--cert-file", "nowhere.pem"], {}), {})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            "tls-min-version=TLS1.3 tls-max-version=TLS1.2",
            r"min version \(TLS1.3\) is greater than max version \(TLS1.2\)",
        ),
        (
            "tls-min-version=TLS1.3 cipher-suites=TLS_AES_128_GCM_SHA256",
            "cipher suites cannot be configured when only TLS1.3",
        ),
        ("tls-max-version=TLS1.2 cipher-suites=TLS_AES_128_GCM_SHA256", "nobody could connect"),
    ],
)
def test_versions_and_suites_of_tls_that_cannot_go_together(given: str, words: str) -> None:
    flags = [f"--{one}" for one in given.split()]
    with pytest.raises(FlagError, match=words):
        gather(flags, {})
    for alone in flags:
        made(gather([alone], {}), {})


@pytest.mark.parametrize(
    ("mode", "kept", "expected"),
    [
        ("periodic", "1.5h", 5400),
        ("periodic", "12", 43200),
        ("periodic", "90m", 5400),
        ("revision", "1000", 1000),
        ("periodic", "0", 0),
        ("periodic", "", 0),
        ("revision", "", 0),
    ],
)
def test_retention(mode: str, kept: str, expected: float) -> None:
    given = {"auto-compaction-mode": mode, "auto-compaction-retention": kept}
    assert serving(given).auto_compaction_retention == expected


def test_retention_by_revision_is_a_number() -> None:
    """etcd takes a time too, as its nanoseconds; a table of ours doesn't."""
    with pytest.raises(ValueError, match="no number of revisions"):
        serving({"auto-compaction-mode": "revision", "auto-compaction-retention": "5m"})
    asked = gather(["--auto-compaction-retention=1h", "--auto-compaction-mode=revision"], {})
    assert serving(asked.serving).auto_compaction_retention == 3600 * 10**9
    assert asked.warnings == [
        "--auto-compaction-retention: by revision, 1h is read as etcd reads it, 3600000000000 revisions: write a number"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0x10_000000", 2**28), ("010", 8), ("0o17", 15), ("0b11", 3), ("1_000", 1000), ("-1", -1), ("+5", 5), ("0", 0)],
)
def test_numbers_are_written_as_go_reads_them(text: str, expected: int) -> None:
    assert serving(gather([f"--quota-backend-bytes={text}"], {}).serving).quota_backend_bytes == expected


@pytest.mark.parametrize("text", ["", "_1", "1_", "1__0", "0x", "0x1g", " 1", "1 ", "٣", "1e3", "9" * 5000])
def test_what_go_reads_as_no_number_is_none(text: str) -> None:
    with pytest.raises(FlagError, match="is no whole number"):
        gather([f"--quota-backend-bytes={text}"], {})


def test_what_etcd_takes_as_something_else_is_warned_of(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 64)
    jwt = f"jwt,sign-method=HS256,priv-key={key},ttl=1.5h"
    asked = gather(["--bcrypt-cost=3", "--metrics=foo", f"--auth-token={jwt},foo=bar", "--max-txn-ops=0"], {})
    found = serving(asked.serving)
    assert (found.bcrypt_cost, found.metrics, found.auth_token, found.max_txn_ops) == (10, "basic", jwt, 0)
    assert asked.warnings == [
        "--bcrypt-cost: the cost of bcrypt is between 4 and 31: 10 is taken instead of 3",
        "--metrics: 'foo' is neither basic nor extensive: basic is taken",
        "--auth-token: without effect: foo: no option of jwt",
    ]
    assert gather(["--auth-token=simple,a=b"], {}).serving == {"auth-token": "simple"}
    assert serving(gather(["--auth-token="], {}).serving).auth_token == ""
    for strict in ({"bcrypt-cost": "3"}, {"metrics": "foo"}, {"auth-token": f"{jwt},foo=bar"}):
        with pytest.raises(ValueError, match=next(iter(strict))):
            serving(strict)


def test_values_without_effect_are_taken_as_etcd_takes_them() -> None:
    flags = "--log-level=INFO --heartbeat-interval=0x10 --election-timeout=80 --pre-vote --raft-read-timeout=1.5s"
    assert len(gather(flags.split(), {}).warnings) == 4
