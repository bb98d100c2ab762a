"""Unit files: a table of what is right and wrong, systemd's own tools as the judge, and properties."""

import shutil
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.scheduler import glob, values
from actors.scheduler.sections import CONTAINER_KEYS, LIMIT_KEYS, SERVICE_KEYS, UNIT_KEYS, Publish, Volume
from actors.scheduler.specifiers import HostFacts, escape, expand, name_of, unescape
from actors.scheduler.syntax import BadValue, digest, quoted, read, serialize, words
from actors.scheduler.unitfile import UnitFileError, parse
from actors.scheduler.values import Command, environment_file, expand_environment, size_bytes, span_ms

HOST = HostFacts("0123456789abcdef" * 2, "node1.example", "b007" * 8, "6.18.1", "x86-64")


def service(lines: str, name: str = "web.service", host: HostFacts | None = None):
    return parse(name, "[Service]\n" + lines, host).service


def commands(line: str, name: str = "web.service") -> list[Command]:
    return list(service(f"Type=oneshot\nExecStart={line}", name).exec_start)


def refused(text: str, name: str = "web.service") -> UnitFileError:
    with pytest.raises(UnitFileError) as caught:
        parse(name, text)
    return caught.value


RUNS = "[Service]\nExecStart=/bin/true\n"


def test_sections_comments_and_continuation() -> None:
    unit = parse(
        "web.service",
        "# a comment\n; another\n\n[Unit]\nDescription = two  words \n[Service]\nExecStart=/bin/echo one \\\n"
        "# inside of a continuation\n   two\n[Unit]\nDocumentation=man:a(1) man:b(1)\n",
    )
    assert unit.unit.description == "two  words"
    assert unit.unit.documentation == ("man:a(1)", "man:b(1)")
    assert unit.service.exec_start[0].argv == ("/bin/echo", "one", "two")
    assert [option.line for option in unit.options] == [5, 7, 11]


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        ("/bin/echo 'a b' \"c d\" e", ["/bin/echo", "a b", "c d", "e"]),
        (r"/bin/echo \x41\102\u00e9 \s\t.", ["/bin/echo", "ABé", " \t."]),
        (r"/bin/echo 'it'\''s' \\", ["/bin/echo", "it's", "\\"]),
        (r"/bin/echo \; ';'", ["/bin/echo", ";", ";"]),
        ('/bin/echo ""', ["/bin/echo", ""]),
        ("/bin/echo %% 100%%", ["/bin/echo", "%", "100%"]),
    ],
)
def test_words_of_a_command(line: str, argv: list[str]) -> None:
    found = parse("web.service", f"[Service]\nExecStart={line}", HOST).service.exec_start[0]
    assert list(found.argv) == argv


def test_prefixes_and_several_commands() -> None:
    one, two = commands("-@/bin/sh shell -c x ; :+/bin/true")
    assert one == Command("/bin/sh", ("shell", "-c", "x"), ignore_failure=True)
    assert two == Command("/bin/true", ("/bin/true",), plain=True, privileges="+")
    assert commands("!!/bin/true")[0].privileges == "!!"


def test_an_empty_value_resets_a_list_and_a_scalar() -> None:
    found = service("ExecStart=/bin/a\nExecStart=\nExecStart=/bin/b\nUser=me\nUser=\nEnvironment=A=1\nEnvironment=\n")
    assert [one.path for one in found.exec_start] == ["/bin/b"]
    assert (found.user, found.environment) == ("", ())


def test_repeated_keys_add_up_or_the_last_one_counts() -> None:
    found = service('ExecStart=/bin/a\nEnvironment=A=1 "B=x y"\nEnvironment=A=2\nRestart=no\nRestart=always\n')
    assert found.environment == (("A", "1"), ("B", "x y"), ("A", "2"))
    assert dict(found.environment) == {"A": "2", "B": "x y"}
    assert found.restart == "always"


def test_defaults_follow_the_type() -> None:
    assert service("ExecStart=/a").timeout_start_ms == 90_000
    assert service("ExecStart=/a\nType=oneshot").timeout_start_ms is None
    found = parse("a.service", "[Unit]\nStartLimitIntervalSec=1min\nStartLimitBurst=3\n[Service]\nExecStart=/a").service
    assert (found.start_limit_interval_ms, found.start_limit_burst) == (60_000, 3)


def test_specifiers_are_expanded_after_the_line_was_split() -> None:
    text = "[Service]\nExecStart=/bin/echo %i %I %n %N %p %j %H %l %m %b %v\nEnvironment=NAME=%p\n"
    found = parse(r"a-b@x\x20y.service", text, HOST).service
    assert found.exec_start[0].argv[1:] == (
        r"x\x20y",
        "x y",
        r"a-b@x\x20y.service",
        r"a-b@x\x20y",
        "a-b",
        "b",
        "node1.example",
        "node1",
        HOST.machine,
        HOST.boot_id,
        "6.18.1",
    )
    assert found.environment == (("NAME", "a-b"),)
    # without the machine what only it knows stays as it is
    assert parse("a@1.service", text).service.exec_start[0].argv[1:8:6] == ("1", "%H")


def test_placement_options() -> None:
    unit = parse(
        "web@7.service",
        RUNS
        + '[X-Fleet]\nMachineMetadata=region=eu region=us\nMachineMetadata="disk=%i"\nConflicts=web@*.service db*\n',
    )
    assert unit.fleet.metadata == (("region", ("eu", "us")), ("disk", ("7",)))
    assert unit.fleet.conflicts == ("web@*.service", "db*")
    assert parse("a.service", RUNS + "[X-Fleet]\nX-ConditionMachineID=abcdef01").fleet.machine_id == "abcdef01"
    assert parse("a.service", RUNS + "[X-Fleet]\nX-ConditionMachineOf=b.service").fleet.machine_of == ("b.service",)
    assert parse("a.service", RUNS + "[X-Fleet]\nGlobal=no\nGlobal=t").fleet.is_global


def test_limits() -> None:
    unit = parse("a.service", RUNS + "[X-Corelog]\nFence=yes\nCPU=1.5\nMemory=1.5G\nPorts=80, 53/udp 7000-7002\n")
    assert unit.fence
    assert (unit.cpu_millis, unit.memory_bytes) == (1500, 1536 * 1024**2)
    assert unit.ports == ((80, "tcp"), (53, "udp"), (7000, "tcp"), (7001, "tcp"), (7002, "tcp"))
    assert [values.cpu_millis(text) for text in ("500m", "150%", "2")] == [500, 1500, 2000]


def test_a_container() -> None:
    unit = parse(
        "web.service",
        "[Container]\nImage=docker.io/nginx:1\nExec=nginx -g 'daemon off;'\nPublishPort=127.0.0.1:8080:80\n"
        "PublishPort=90\nPublishPort=[::1]:7000-7001:6000-6001/udp\nVolume=/srv:/data:ro,z\nVolume=cache:/c\nVolume=/anon\n"
        'HealthCmd=curl -f localhost\nHealthInterval=5s\nLabel=a=b "c=d e"\nAddCapability=CAP_NET_ADMIN sys_time\n'
        "Environment=A=1\nStopTimeout=20\nShmSize=64m\n[Service]\nRestart=always\n",
    )
    found = unit.container
    assert found is not None
    assert unit.engine == "docker"
    assert found.exec == ("nginx", "-g", "daemon off;")
    assert found.publish_ports == (
        Publish(80, "tcp", 8080, "127.0.0.1"),
        Publish(90),
        Publish(6000, "udp", 7000, "::1"),
        Publish(6001, "udp", 7001, "::1"),
    )
    assert found.volumes == (Volume("/srv", "/data", ("ro", "z")), Volume("cache", "/c"), Volume("", "/anon"))
    assert found.labels == (("a", "b"), ("c", "d e"))
    assert found.add_capabilities == ("NET_ADMIN", "SYS_TIME")
    assert unit.ports == ((8080, "tcp"), (7000, "udp"), (7001, "udp"))


@pytest.mark.parametrize(
    ("text", "line", "key", "words_of_it"),
    [
        ("[Service]\nExecStart=/a\nbroken line\n", 3, "", "broken line 'broken line'"),
        ("[Service\nExecStart=/a\n", 1, "", "[Name]"),
        ("ExecStart=/a\n", 1, "ExecStart", "before the first [Section]"),
        ("[Service]\nExecStrat=/a\n", 2, "ExecStrat", "did you mean ExecStart?"),
        (RUNS + "PrivateTmp=yes\n", 3, "PrivateTmp", "not honoured"),
        ("[Servcie]\nExecStart=/a\n", 2, "ExecStart", "section [Servcie] is not known"),
        (RUNS + "[X-fleet]\nGlobal=yes\n", 4, "Global", "section [X-fleet] is not known"),
        (RUNS + "[X-Corelog]\nEngine=rkt\n", 4, "Engine", "unknown engine 'rkt'"),
        (RUNS + "[X-Corelog]\nEngine=docker\n", 4, "Engine", "[Container]"),
        ("[Container]\nImage=a\n[X-Corelog]\nEngine=process\n", 4, "Engine", "docker"),
        ("[Container]\nExec=a\n", 2, "", "Image="),
        ("[Container]\nImage=a\n[Service]\nUser=me\n", 4, "User", "beside a [Container]"),
        ("[Unit]\nDescription=x\n", 0, "", "ExecStart="),
        ("[Service]\nExecStart=/a\nExecStart=/b\n", 2, "ExecStart", "oneshot"),
        ("[Service]\nExecStart=/a 'open\n", 2, "ExecStart", "never closed"),
        ("[Service]\nExecStart=/a \\q\n", 2, "ExecStart", "unknown escape"),
        ("[Service]\nExecStart=/a %Z\n", 2, "ExecStart", "unknown specifier '%Z'"),
        ("[Service]\nExecStart=../a\n", 2, "ExecStart", "absolute"),
        ("[Service]\nExecStart=+!/a\n", 2, "ExecStart", "only one of the prefixes"),
        (RUNS + "RestartSec=5 parsecs\n", 3, "RestartSec", "time span"),
        (RUNS + "KillSignal=SIGNOT\n", 3, "KillSignal", "not a signal"),
        (RUNS + "Environment=1A=2\n", 3, "Environment", "NAME=value"),
        (RUNS + "[X-Fleet]\nMachineMetadata=region\n", 4, "MachineMetadata", "key=value"),
        (RUNS + "[X-Fleet]\nMachineID=abcdef01\nMachineOf=b.service\n", 5, "MachineOf", "can't stand together"),
        (RUNS + "[X-Fleet]\nGlobal=yes\nMachineOf=b.service\n", 5, "MachineOf", "can't stand together"),
        (RUNS + "[X-Fleet]\nConflicts=a*\nReplaces=b*\n", 5, "Replaces", "can't stand together"),
        (RUNS + "[X-Fleet]\nMachineOf=web.service\n", 4, "MachineOf", "cycle of MachineOf: web.service → web.service"),
        (RUNS + "[X-Fleet]\nMachineOf=b.service\nConflicts=b*\n", 4, "MachineOf", "also matched by"),
        (RUNS + "[X-Fleet]\nConflicts=[a\n", 4, "Conflicts", "[class]"),
        (RUNS + "[X-Fleet]\nMachineID=abc\n", 4, "MachineID", "not a machine id"),
        (RUNS + "[X-Fleet]\nMachineMetadata=host=%H\n", 4, "MachineMetadata", "only on the machine"),
        (RUNS + "[X-Fleet]\nGlobal=yes\n[X-Corelog]\nFence=yes\n", 6, "Fence", "one copy only"),
        (RUNS + "[X-Corelog]\nPorts=70000\n", 4, "Ports", "not a port"),
        (RUNS + "# " + "x" * 2050 + "\n", 3, "", "2052 bytes"),
        (RUNS + "User=a\0b\n", 3, "", "control character"),
        ("", 0, "", "ExecStart="),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_key(text: str, line: int, key: str, words_of_it: str) -> None:
    error = refused(text)
    assert (error.line, error.key) == (line, key)
    assert words_of_it in str(error)
    assert str(error).startswith(f"web.service:{line}: " if line else "web.service: ")


def test_systemds_own_x_sections_and_dependencies_are_let_pass() -> None:
    parse(
        "a.service", RUNS + "[Unit]\nAfter=b.service\nRequires=c.service\n[X-Other]\nAny=thing\n[Install]\nWantedBy=x\n"
    )


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a.service", True),
        (r"a:b_c.d\x2d-e@f@g.service", True),
        ("a@.service", True),
        ("a" * 248 + ".service", True),
        ("a" * 249 + ".service", False),
        ("a", False),
        (".service", False),
        ("@1.service", False),
        ("a b.service", False),
        ("a/b.service", False),
        ("a@1.mount", False),
        ("ä.service", False),
    ],
)
def test_names(name: str, good: bool) -> None:
    if good:
        assert parse(name, RUNS).name.full == name
    else:
        assert refused(RUNS, name).line == 0


def test_only_services_can_be_run() -> None:
    assert "no engine of this version runs .timer units" in str(refused(RUNS, "a.timer"))


def test_the_hash_is_fleets() -> None:
    """SHA-1 of the options written again: no comments, sections merged, one blank line between them."""
    one = read("a", "# c\n[A]\nk = v\n[B]\nx=1\\\n  2\n[A]\nl=w\n")
    assert serialize(one) == "[A]\nk=v\nl=w\n\n[B]\nx=1\\\n2\n"
    assert digest(read("a", "[A]\nk=v\nl=w\n[B]\nx=1\\\n2\n")) == digest(one)
    assert digest(read("a", "[A]\nk=v\nl=w2\n[B]\nx=1\\\n2\n")) != digest(one)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("5", 5000),
        ("500ms", 500),
        ("1min 20s", 80_000),
        ("1min20s", 80_000),
        ("1.5h", 5_400_000),
        ("2 us", 1),
        ("1y", 31_557_600_000),
        ("infinity", None),
        ("0", 0),
    ],
)
def test_time_spans(text: str, ms: int | None) -> None:
    assert span_ms(text) == ms


@pytest.mark.parametrize("text", ["", "x", "5 foo", "-1", "1 2 x", "infinity 1"])
def test_bad_time_spans(text: str) -> None:
    with pytest.raises(BadValue):
        span_ms(text)


def test_sizes() -> None:
    assert [size_bytes(text) for text in ("1", "1K", "1.5M", "2GiB", "3 T")] == [
        1,
        1024,
        1536 * 1024,
        2 * 1024**3,
        3 * 1024**4,
    ]


def test_variables_in_commands() -> None:
    environment = {"ONE": "one", "TWO": "'two two' too", "EMPTY": ""}
    argv = ["/bin/echo", "$ONE", "$TWO", "${TWO}", "$EMPTY", "${EMPTY}", "$NONE", "x${ONE}y", "$$ONE", "a$ONE"]
    assert expand_environment(argv, environment) == [
        "/bin/echo",
        "one",
        "two two",
        "too",
        "'two two' too",
        "",
        "xoney",
        "$ONE",
        "a$ONE",
    ]


def test_environment_files() -> None:
    text = '# c\nA=1\nB=\'x y\'\nC="a \\"b\\""\n; d\n D = e f \nE=one\\\ntwo\n'
    assert environment_file(text) == {"A": "1", "B": "x y", "C": 'a "b"', "D": "e f", "E": "onetwo"}
    with pytest.raises(BadValue, match="line 2"):
        environment_file("A=1\nnonsense\n")


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("web*.service", "web@1.service", True),
        ("web?.service", "web1.service", True),
        ("web[0-9].service", "web5.service", True),
        ("web[^0-9].service", "web5.service", False),
        ("web[^0-9].service", "webx.service", True),
        (r"a\*b", "a*b", True),
        (r"a\*b", "axb", False),
        ("*", "a/b", False),
        ("[]a]", "a", None),
        ("[a-]", "a", None),
        ("a\\", "a", None),
        ("[", "a", None),
        ("[z-a]", "m", False),
        (r"[\]]", "]", True),
    ],
)
def test_globs_match_as_in_go(pattern: str, name: str, fits: bool | None) -> None:
    if fits is None:
        with pytest.raises(BadValue):
            glob.compiled(pattern)
    else:
        assert glob.matches(pattern, name) is fits


# -- systemd's own tools are the judge, where they are installed ----------------------------------------------

_ESCAPE = shutil.which("systemd-escape")


@pytest.mark.skipif(_ESCAPE is None, reason="systemd-escape is not installed")
@pytest.mark.parametrize("text", ["a b", "/dev/sda", "é-x", ".hidden", "a.b:c_d", "x\\y", "%"])
def test_names_are_escaped_as_systemd_does(text: str) -> None:
    assert _ESCAPE is not None
    said = subprocess.run([_ESCAPE, "--", text], capture_output=True, text=True, check=True).stdout.removesuffix("\n")
    assert escape(text) == said
    assert unescape(said) == text


_ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(_ANALYZE is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("text", ["5", "1min 20s", "1.5h", "500ms", "2w 3d", "1M", "3y"])
def test_time_spans_are_those_of_systemd(text: str) -> None:
    assert _ANALYZE is not None
    said = subprocess.run([_ANALYZE, "timespan", text], capture_output=True, text=True, check=True).stdout
    us = next(line for line in said.splitlines() if "s:" in line).split(":")[1]
    assert span_ms(text) == -(-int(us) // 1000)


# -- properties -----------------------------------------------------------------------------------------------

_KEYS = sorted(
    {*SERVICE_KEYS, *CONTAINER_KEYS, *UNIT_KEYS, *LIMIT_KEYS, "MachineOf", "MachineMetadata", "Conflicts", "Global"}
)
_LINE = st.one_of(
    st.sampled_from(
        ["[Unit]", "[Service]", "[Container]", "[X-Corelog]", "[X-Fleet]", "[Install]", "", "# c", "[", "="]
    ),
    st.tuples(st.sampled_from(_KEYS), st.text(alphabet="aA19 /=:\\\"'%$in-.,;[]*@é\t+!~", max_size=24)).map("=".join),
    st.text(max_size=40),
)


@given(
    st.lists(_LINE, max_size=12).map("\n".join),
    st.sampled_from(["a.service", "a@.service", "a@1.service", "a.timer", ""]),
)
@example("[Service]\nExecStart=\\", "a.service")
@example("[Service]\nExecStart=/a\\\n\\\n", "a.service")
@example("[X-Corelog]\nCPU=³", "a.service")
@example("[Service]\nExecStart=/a\nKillSignal=²", "a.service")
@example("[X-Corelog]\nPorts=²", "a.service")
@example("\ud800", "a.service")
@example("[Service]\nRestartSec=99999999999999999y", "a.service")
@example("[Service]\n=", "a.service")
def test_nothing_but_unit_file_errors_are_raised_and_what_was_read_is_read_again_the_same(text: str, name: str) -> None:
    try:
        unit = parse(name, text)
    except UnitFileError as error:
        assert str(error)
        return
    assert parse(name, unit.serialize()) == unit
    assert parse(name, unit.serialize()).hash == unit.hash


@given(st.lists(st.text(max_size=20), max_size=6))
@example(["\x00"])
def test_quoted_words_are_read_back(texts: list[str]) -> None:
    texts = ["".join(char for char in text if char != "\0" and not 0xD800 <= ord(char) < 0xE000) for text in texts]
    assert [word.text for word in words(" ".join(quoted(text) for text in texts))] == texts


@given(st.text(alphabet="ab*?[]^-\\/x", max_size=12), st.text(alphabet="abx/-]", max_size=8))
def test_any_glob_matches_or_is_bad(pattern: str, name: str) -> None:
    try:
        glob.matches(pattern, name)
    except BadValue:
        return
    if glob.is_plain(pattern):
        assert glob.matches(pattern, pattern)


@given(st.text(max_size=30).filter(lambda text: "\0" not in text and text.isprintable()))
def test_unescape_undoes_escape(text: str) -> None:
    assert unescape(escape(text)) == text


@given(st.text(alphabet="%niIpPjJfNHmbvaltZ ", max_size=20))
def test_specifiers_are_expanded_or_refused(text: str) -> None:
    name = name_of("a-b@c.service")
    try:
        found = expand(text, name, HOST)
    except BadValue:
        return
    assert "%" not in found or "%%" in text


@given(st.text(max_size=60))
def test_environment_files_are_read_or_refused(text: str) -> None:
    try:
        environment_file(text)
    except BadValue as error:
        assert "line" in str(error)
