"""Templates: functions, errors that name line and key, and which keys are needed."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node.sync import keys
from node.sync.functions import shaped
from node.sync.keys import Known, Missing, Pair, Range
from node.sync.render import RenderError, Template
from node.sync.resource import Resource

KEYS = {
    "/web/host": "example.org",
    "/web/port": "8080",
    "/web/up/a": "10.0.0.1",
    "/web/up/b": "10.0.0.2",
    "/web/json": '{"a": [1, 2]}',
    "/other": "x",
    "flat": "y",
}


def known(pairs: dict[str, str] = KEYS) -> Known:
    made = Known()
    made.add([keys.prefix(b"")], [Pair(keys.raw(k), keys.raw(v), 1) for k, v in pairs.items()], 7)
    return made


def resource(**fields: object) -> Resource:
    return Resource(**{"name": "d", "source": "s", "dest": "d", **fields})  # type: ignore[arg-type]


def rendered(source: str, **fields: object) -> str:
    return Template("t", source).render(known(), resource(**fields), {"HOME": "/root"}).content.decode()


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ('{{ getv("/web/host") }}:{{ getv("/web/port", 1) }}\n', "example.org:8080\n"),
        ('{{ getv("/nope", "d") }}{{ keyOrDefault("nope", "e") }}', "de"),
        ('{{ get("/web/host").Key }}={{ get("/web/host").value }}={{ get("/web/host") }}',
         "/web/host=example.org=example.org"),
        ('{{ exists("/web/host") }} {{ keyExists("flat") }} {{ exists("/flat") }}', "True True False"),
        ('{% for k, v in gets("/web/up/*") %}{{ base(k) }}={{ v }};{% endfor %}', "a=10.0.0.1;b=10.0.0.2;"),
        ('{{ getvs("/web/*") | join(",") }}', 'example.org,{"a": [1, 2]},8080'),
        ('{{ ls("/web") }} {{ lsdir("/web/") }}', "['host', 'json', 'port', 'up'] ['up']"),
        ('{{ ls("/") }}', "['other', 'web']"),
        ('{% for e in tree("/web/up") %}{{ e.key }}{{ e.Value }} {% endfor %}', "a10.0.0.1 b10.0.0.2 "),
        ('{{ tree() | length }} {{ ls() }}', "7 ['', 'flat']"),
        ('{{ json(getv("/web/json")).a[1] }} {{ jsonArray("[3]")[0] }}', "2 3"),
        ('{{ dir("/a/b") }} {{ split("a:b", ":")[1] }} {{ toUpper("x") }}', "/a b X"),
        ('{{ base64Encode("hi") }} {{ base64Decode("aGk=") }} {{ getenv("HOME") }} {{ getenv("NO", "n") }}',
         "aGk= hi /root n"),
        ("{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}\n\n", "02\n\n"),
    ],
)  # fmt: skip
def test_functions(source: str, told: str) -> None:
    assert rendered(source) == told


def test_a_prefix_stands_before_every_key_and_is_not_told() -> None:
    told = rendered(
        '{{ getv("/host") }} {{ gets("/up/*")[0].key }} {{ ls("/up") }} {{ tree("/")[0].key }}', prefix="/web"
    )
    assert told == "example.org /up/a ['a', 'b'] host"


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ('a\nb {{ getv("/web/nope") }}\n', 2, "there is no key /web/nope"),
        ('\n\n{% for x in ls("/web") %}\n{{ get("/no/" ~ x) }}{% endfor %}', 4, "there is no key /no/host"),
        ("x\n{{ nothing }}", 2, "'nothing' is undefined"),
        ("x\n{% if %}", 2, "Expected an expression, got 'end of statement block'"),
        ('\n{{ json("{") }}', 2, "is no JSON"),
        ('\n{{ jsonArray("{}") }}', 2, "no array"),
        ('\n{{ base64Decode("%") }}', 2, "is no base64"),
        ("\n{{ 1 / 0 }}", 2, "ZeroDivisionError"),
        ("\n{{ ''.__class__.__mro__ }}", 2, "unsafe"),
        ("\n{{ 'x' * 99999999999 }}", 2, "more than any file"),
        ("\n{{ 9 ** 99999 }}", 2, "more than 1000"),
        ("\n{{ getv(3) }}", 2, "a key is text, not 3"),
        ('\n{{ getv("") }}', 2, "a key can't be empty"),
        ('\n{{ gets("/[") }}', 2, "without its ]"),
        ("\n{% include 'x' %}", 2, "no loader"),
        ('\n{{ getv "/web/host" }}', 2, "this looks like Go's templates"),
        ('\n{{ getv("\\ud800") }}', 2, "half a character"),
        ("\n{{ getv('x' * 20000) }}", 2, "has 20000 bytes, and may have 16384"),
        ('\n{{range gets "/web/*"}}{{.Key}}{{end}}', 2, "this looks like Go's templates"),
    ],
)
def test_errors_name_the_line(source: str, line: int, words: str) -> None:
    with pytest.raises(RenderError) as caught:
        rendered(source)
    assert str(caught.value).startswith(f"t:{line}: ")
    assert words in str(caught.value)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% for i in [1] %}" * 25 + "x" + "{% endfor %}" * 25, "too many statically nested blocks"),
        ("{{ f(a=1, a=2) }}", "keyword argument repeated"),
        ("{{ " + "1" * 5000 + " }}", "4300 digits"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deeply"),
        ("{{ 1" + " + x" * 5000 + " }}", "nested too deeply"),
    ],
)
def test_what_python_cannot_compile_is_an_error_of_the_template(source: str, words: str) -> None:
    with pytest.raises(RenderError, match=words):
        Template("t", source)


def test_a_key_that_cannot_be_is_not_asked_for() -> None:
    """Those of other templates would be refused with it."""
    source = (
        '{{ getv("\\ud800") }}{{ gets("\\ud800*") }}{{ ls("\\ud800") }}{{ getv("' + "x" * 20000 + '") }}{{ get("/a") }}'
    )
    assert Template("t", source).ranges(resource()) == {Range(b"/a")}


def test_an_error_has_no_more_words_than_one_can_read() -> None:
    with pytest.raises(RenderError) as caught:
        rendered("{{ atoi('x' * 1000000) }}")
    assert len(str(caught.value)) < 1100
    assert str(caught.value).endswith("…")


def test_what_is_wrong_with_the_whole_has_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.sync.render.OUTPUT_MAX_BYTES", 1 << 20)
    for source, words in (
        ("{{ '\\ud800' }}", "UnicodeEncodeError"),
        ("{% for a in range(2000) %}{{ 'x' * 999 }}{% endfor %}", "more than 1 MiB"),
    ):
        with pytest.raises(RenderError, match=words) as caught:
            rendered(source)
        assert caught.value.line == 0


def test_the_key_that_is_missing_is_named_as_the_store_has_it() -> None:
    with pytest.raises(RenderError) as caught:
        rendered('{{ getv("/nope") }}', prefix="/prod")
    assert caught.value.key == "/prod/nope"


def test_names_in_the_text_are_needed_before_it_is_rendered() -> None:
    found = Template("t", '{{ getv("/a") }}{{ ls("/b") }}{{ gets("/c*") }}{{ tree(x) }}{{ toUpper("/d") }}')
    wanted = {Range(b"/p/a"), Range(b"/p/b/", b"/p/b0"), Range(b"/p/c", b"/p/d")}
    assert found.ranges(resource(prefix="/p")) == wanted
    assert found.ranges(resource(prefix="/p", keys=("/e",))) - wanted == {Range(b"/p/e"), Range(b"/p/e/", b"/p/e0")}


def test_what_is_needed_on_the_way_is_asked_for_and_is_a_dependency() -> None:
    template, made = Template("t", '{{ getv("/to/" ~ getv("/which")) }}'), Known()
    made.add(template.ranges(resource()), [Pair(b"/which", b"x", 1)], 3)
    with pytest.raises(Missing) as caught:
        template.render(made, resource(), {})
    assert caught.value.ranges == {Range(b"/to/x")}
    made.add(caught.value.ranges, [Pair(b"/to/x", b"v", 1)], 3)
    assert template.render(made, resource(), {}) == (b"v", {Range(b"/which"), Range(b"/to/x")})


def test_bytes_that_are_no_text_come_out_as_they_went_in() -> None:
    made = Known()
    made.add([Range(b"/\xff")], [Pair(b"/\xff", b"\x80\x00\xfe", 1)], 1)
    assert (
        Template("t", "{{ getv(k) }}").render(made, resource(variables=(("k", "/\udcff"),)), {}).content
        == b"\x80\0\xfe"
    )


@given(st.text("ab/*?[]^-\\x", max_size=12), st.text("abx/-", max_size=8))
@example("[?--]", "")
def test_patterns_never_fail_but_by_name_and_fit_no_slash(pattern: str, key: str) -> None:
    from node.sync.functions import Fault

    try:
        fits = shaped(pattern)
    except Fault:
        return
    if fits.fullmatch(key):
        assert key.count("/") == pattern.replace("\\/", "/").count("/") or "[" in pattern


@given(st.dictionaries(st.binary(min_size=1, max_size=4), st.binary(max_size=2), max_size=20), st.binary(max_size=3))
def test_what_is_below_a_prefix_is_what_begins_with_it(pairs: dict[bytes, bytes], start: bytes) -> None:
    made = Known()
    made.add([keys.prefix(b"")], [Pair(k, v, 1) for k, v in pairs.items() if k != b"\0"], 1)
    wanted = sorted((k, v) for k, v in pairs.items() if k.startswith(start) and k != b"\0")
    assert list(made.below(keys.prefix(start))) == wanted


RANGES = st.builds(
    Range, st.binary(min_size=1, max_size=2), st.one_of(st.just(b""), st.just(b"\0"), st.binary(max_size=2))
)


@given(st.lists(RANGES, max_size=6), st.binary(min_size=1, max_size=3))
def test_merged_ranges_have_the_same_keys(ranges: list[Range], key: bytes) -> None:
    found = keys.merged(ranges)
    assert any(one.has(key) for one in found) == any(one.has(key) for one in ranges)
    assert set(found) <= set(ranges)
    assert not any(a is not b and a.covers(b) for a in found for b in found)


@given(st.lists(RANGES, max_size=6), RANGES)
def test_what_is_covered_is_covered_by_one_of_the_ranges(ranges: list[Range], wanted: Range) -> None:
    made = Known()
    made.add(ranges, [], 1)
    assert made.covers(wanted) == any(one.covers(wanted) for one in ranges)


def test_many_keys_in_one_template_are_looked_for_at_once() -> None:
    """Whoever may write a template may write one with thousands: nobody else may wait for it."""
    ranges = [Range(b"/a/%d" % number) for number in range(20_000)]
    began_s = time.process_time()
    made = Known()
    made.add(ranges, [], 1)
    assert made.lacks([*ranges, Range(b"/b")]) == {Range(b"/b")}
    assert time.process_time() - began_s < 5
