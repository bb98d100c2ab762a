"""Settings: three sources in order, typed values, and errors that name their place."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import Config, ConfigError, cpu_millis, duration_ms, load, pairs, parse, read_variables, size_bytes


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "corelog.toml"
    file.write_text(text)
    return file


def test_flags_win_over_variables_which_win_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'name = "file"\nlease = "1s"\nmachine_ttl = "4s"\n[metadata]\nregion = "eu"\nrack = "1"\n')
    config = load(
        file,
        {"CORELOG_NAME": "variable", "CORELOG_LEASE": "2s", "CORELOG_METADATA": "rack=2"},
        {"name": "flag", "cpu": None, "metadata": ["disk=ssd"]},
    )
    assert config.name == "flag"
    assert config.lease == 2000
    assert config.machine_ttl == 4000
    assert config.metadata == {"region": "eu", "rack": "2", "disk": "ssd"}


def test_all_of_it_in_a_file(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
data = "/var/lib/corelog"
name = "web-1"
cpu = "1500m"
memory = "4GiB"
etcd_listen = ["127.0.0.1:12379", "[::1]:12379"]
gateway_listen = "none"
fence = "15s"
one_process = true

[log]
address = "kafka://a:9092,b:9092/events"
[log.kafka]
"security.protocol" = "SSL"
ssl.ca.location = "/etc/ca.pem"
enable.ssl.certificate.verification = true

[engine]
docker = "unix:///run/docker.sock"
""",
    )
    config = load(file, {}, {})
    assert config == Config(
        data=Path("/var/lib/corelog"),
        log="kafka://a:9092,b:9092/events",
        log_options={
            "security.protocol": "SSL",
            "ssl.ca.location": "/etc/ca.pem",
            "enable.ssl.certificate.verification": "true",
        },
        name="web-1",
        cpu=1500,
        memory=4 * 2**30,
        etcd_listen=["127.0.0.1:12379", "[::1]:12379"],
        gateway_listen=[],
        fence=15000,
        one_process=True,
        engine={"docker": "unix:///run/docker.sock"},
    )
    assert not config.alone


def test_without_anything_it_is_one_machine_on_loopback() -> None:
    config = load(None, {"PATH": "/bin", "CORELOG_ENDPOINT": "x", "CORELOG_TOKEN": "y"}, {})
    assert config.alone
    assert config.log_address == f"segments://{Path('data').absolute()}/log"
    assert [at.rpartition(":")[0] for at in config.etcd_listen + config.gateway_listen] == ["127.0.0.1"] * 2


def test_a_file_named_by_a_variable(tmp_path: Path) -> None:
    file = write(tmp_path, 'name = "here"')
    assert load(None, {"CORELOG_CONFIG": str(file)}, {}).name == "here"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "a"\nmachine_tll = "3s"\n', "f.toml:2: unknown key 'machine_tll'; did you mean machine_ttl?"),
        ('\n\n"lese" = "1s"', "f.toml:3: unknown key 'lese'; did you mean lease?"),
        ("[metadata]\na = '1'\n[engin]\nx = '1'", "f.toml:3: unknown key 'engin'; did you mean engine?"),
        ("[log]\naddress = 'segments:///x'\nadress = 1", "f.toml:3: unknown key 'log.adress'; did you mean address?"),
        ("[log]\n[log.kafak]\nx = 1", "f.toml:2: unknown key 'log.kafak'; did you mean kafka?"),
        ("[metadata]\nlease = '1'\n\nlease.x = 2\nlease = 3", "f.toml: not TOML"),
        ("zzzzzz = 1", "f.toml:1: unknown key 'zzzzzz'; known are data, log, discovery"),
        ('[metadata]\nlease = "odd"\n[engine]\na = "1"\n[updater]\nb = ["x"]', "f.toml:5: updater: b must be a text"),
        ("a = 1\na = 2\n", "f.toml: not TOML: Cannot overwrite a value (at line 2"),
        ("lease = 1", "f.toml:1: lease: 1 is no duration: write 1s"),
        ("cpu = '2 cores'", "f.toml:1: cpu: '2 cores' is no number of cores"),
        ("memory = -1", "f.toml:1: memory: -1 is no size"),
        ("etcd_listen = '2379'", "f.toml:1: etcd_listen: '2379' is no address"),
        ("etcd_listen = ['::1:2379']", "in brackets"),
        ("log = 'redis://x'", "f.toml:1: log: 'redis://x' is no log's address"),
        ("log = 'kafka://a:b'", "f.toml:1: log: 'a:b' is no address"),
        ("log_options = 'a=b'", "unknown key 'log_options'"),
        ("one_process = 'maybe'", "f.toml:1: one_process: 'maybe' is neither true nor false"),
        ("name = ''", "f.toml:1: name: '' is no text"),
        ("color = 'blue'", "auto, always or never"),
    ],
)
def test_a_wrong_file_is_told_with_line_and_key(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.toml")
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown variable CORELOG_LEESE; did you mean CORELOG_LEASE"):
        read_variables({"CORELOG_LEESE": "1s"})
    with pytest.raises(ConfigError, match="CORELOG_LEASE: lease: 'soon' is no duration"):
        read_variables({"CORELOG_LEASE": "soon"})


def test_a_wrong_flag_is_named() -> None:
    with pytest.raises(ConfigError, match="--machine-ttl: machine_ttl: 'x' is no duration"):
        load(None, {}, {"machine_ttl": "x"})
    with pytest.raises(ConfigError, match="--log-option: log_options: 'x' is no pair"):
        load(None, {}, {"log_options": ["x"]})


def test_settings_that_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"machine_ttl \(500 ms\) is shorter than lease"):
        load(None, {}, {"machine_ttl": "500ms"})
    with pytest.raises(ConfigError, match="same address"):
        load(None, {}, {"etcd_listen": "127.0.0.1:1", "gateway_listen": "127.0.0.1:1"})
    with pytest.raises(ConfigError, match="embedded"):
        load(None, {}, {"log_options": ["security.protocol=SSL"]})


def test_a_file_that_cant_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: No such file"):
        load(tmp_path / "missing.toml", {}, {})
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe4"')
    with pytest.raises(ConfigError, match="byte 8 is not UTF-8"):
        load(tmp_path / "latin.toml", {}, {})


def test_units() -> None:
    assert [duration_ms(text) for text in ("250ms", "1.5s", "2m", "1h")] == [250, 1500, 120_000, 3_600_000]
    assert [size_bytes(text) for text in ("10", "1k", "1KiB", "1.5 GiB", 2048)] == [10, 1000, 1024, 3 * 2**29, 2048]
    assert [cpu_millis(text) for text in ("2", 2, 0.5, "250m")] == [2000, 2000, 500, 250]
    assert pairs("a=b, c=d=e,") == {"a": "b", "c": "d=e"}


@given(st.text(max_size=200))
def test_whatever_stands_in_the_file_it_is_read_or_told(text: str) -> None:
    try:
        parse(text, "f.toml")
    except ConfigError as error:
        assert str(error).startswith("f.toml:")


_values = st.one_of(st.text(max_size=20), st.integers(), st.floats(allow_nan=True), st.booleans(), st.lists(st.text()))


@given(st.dictionaries(st.sampled_from(sorted(__import__("node.config").config.OPTIONS)), _values, max_size=4))
def test_whatever_the_flags_hold_they_are_taken_or_told(flags: dict[str, object]) -> None:
    try:
        load(None, {}, flags)
    except ConfigError as error:
        assert str(error)


@given(st.integers(1, 10**9))
def test_durations_and_sizes_are_read_as_written(number: int) -> None:
    assert size_bytes(f"{number}KiB") == number * 1024
    assert duration_ms(f"{number}ms") == number
