"""Template resources as confd writes them, and commands with paths in them."""

import pytest

from node.sync.resource import Resource, ResourceError, command, parse

CONFD = """
[template]
prefix = "/myapp"
src = "myapp.conf.tmpl"
dest = "/tmp/myapp.conf"
owner = "nginx"
uid = 33
gid = 33
mode = "0644"
keys = ["/database/url", "/upstream"]
check_cmd = "/usr/sbin/nginx -t -c {{.src}}"
reload_cmd = "/usr/sbin/service nginx reload"
"""


def test_a_file_of_confds_is_taken_as_it_is() -> None:
    assert parse("conf.d/x.toml", CONFD, "/etc/confd/templates") == Resource(
        name="/tmp/myapp.conf",
        source="/etc/confd/templates/myapp.conf.tmpl",
        dest="/tmp/myapp.conf",
        prefix="/myapp",
        keys=("/database/url", "/upstream"),
        mode=0o644,
        owner="33",
        group="33",
        check="/usr/sbin/nginx -t -c {{.src}}",
        reload="/usr/sbin/service nginx reload",
    )


def test_a_template_may_be_a_key_and_have_variables() -> None:
    text = '[template]\nsrc = "kv:/t"\ndest = "/d"\napi = "v2"\n[template.variables]\na = "b"\n'
    found = parse("x", text, "/t")
    assert (found.source_key, found.api, found.variables) == ("/t", "v2", (("a", "b"),))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[template", "x.toml: not TOML"),
        ("a = 1", "x.toml: there is no table [template]"),
        ('[template]\nsrc = "a"', "x.toml: [template] has no dest"),
        ('[template]\ndest = "/a"', "x.toml: [template] has no src"),
        ('[template]\nsrc = "a"\ndest = "b"', "'b' is no absolute path"),
        ('[template]\nsrc = "a"\ndest = "/b"\nmode = 644', 'mode: 644 is no mode: write it in quotes, such as "0644"'),
        ('[template]\nsrc = "a"\ndest = "/b"\nmode = "rw"', "mode: 'rw' is no mode"),
        ('[template]\nsrc = "a"\ndest = "/b"\nreload = "x"', "unknown key 'reload'"),
        ('[template]\nsrc = "a"\ndest = "/b"\nreload = "x"', "in [template]; did you mean reload_cmd?"),
        ('[template]\nsrc = "a"\ndest = "/b"\nkeys = "/k"', "keys: it is no list of texts"),
        ('[template]\nsrc = "a"\ndest = "/b"\napi = "v4"', "api: 'v4' is neither v2 nor v3"),
        ('[template]\nsrc = "a"\ndest = "/b"\nuid = -1', "uid: -1 is no text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(ResourceError) as caught:
        parse("x.toml", text, "/t")
    assert words in str(caught.value)


def test_paths_in_commands_are_quoted_where_needed() -> None:
    assert command("t {{.src}} {{ src }} {{.dest}} {{other}}", "/a b", "/d") == "t '/a b' '/a b' /d {{other}}"
