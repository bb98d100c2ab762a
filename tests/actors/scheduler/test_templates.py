"""``Template=`` and ``TemplateOnChange=`` of [X-Corelog]."""

import pytest

from actors.engine.spec import spec_of
from actors.scheduler.templates import TemplateFile
from actors.scheduler.unitfile import UnitFileError, parse

SERVICE = "[Service]\nExecStart=/bin/true\n"


def test_templates_add_up_and_have_specifiers() -> None:
    text = (
        f"{SERVICE}ExecReload=/bin/kill -HUP $MAINPID\n[X-Corelog]\n"
        "Template=/etc/t/%i.j2:/run/%i.conf\n"
        "Template=kv:/t/web:/run/web.conf:0640:root:www-data\nTemplateOnChange=reload\n"
    )
    spec = spec_of(parse("web@one.service", text))
    assert spec.templates == (
        TemplateFile("/etc/t/one.j2", "/run/one.conf"),
        TemplateFile("kv:/t/web", "/run/web.conf", "0640", "root", "www-data"),
    )
    assert spec.on_change == "reload"
    assert spec.process is not None
    assert spec.process.reload[0].argv == ("/bin/kill", "-HUP", "$MAINPID")


def test_without_templates_nothing_is_asked_for() -> None:
    spec = spec_of(parse("web.service", SERVICE))
    assert (spec.templates, spec.on_change) == ((), "restart")
    text = f"{SERVICE}[X-Corelog]\nTemplate=/a:/b\nTemplate=\n"
    assert spec_of(parse("web.service", text)).templates == ()


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        ("Template=/a", 4, "'/a' is not SRC:DEST[:MODE[:USER[:GROUP]]]"),
        ("Template=kv:/a", 4, "'kv:/a' is not SRC:DEST"),
        ("Template=a:/b", 4, "'a' is not an absolute path"),
        ("Template=/a:b", 4, "'b' is not an absolute path"),
        ("Template=/a:/b/", 4, "'/b/' is a folder"),
        ("Template=/a:/../b", 4, "has .. in it"),
        ("Template=/a:/b:rw", 4, "'rw' is no mode"),
        ("Template=/a:/b:0644:a b", 4, "'a b' is not a user or group"),
        ("Template=/a:/b:0644:a:b:c", 4, "is not SRC:DEST"),
        ("Template=/a:/b\nTemplate=/c:/b", 4, "/b is rendered twice"),
        ("TemplateOnChange=maybe", 4, "'maybe' is not one of restart, reload, none"),
        ("TemplateOnChange=reload", 4, "reload needs ExecReload="),
    ],
)
def test_what_is_wrong_is_named_with_its_line(lines: str, line: int, words: str) -> None:
    with pytest.raises(UnitFileError) as caught:
        parse("web.service", f"{SERVICE}[X-Corelog]\n{lines}\n")
    assert caught.value.line == line
    assert words in str(caught.value)


def test_a_container_has_no_reload() -> None:
    text = "[Container]\nImage=x\n[X-Corelog]\nTemplate=/a:/b\nTemplateOnChange=reload\n"
    with pytest.raises(UnitFileError, match="a container can't be told to reload"):
        parse("web.service", text)
    assert spec_of(parse("web.service", text.replace("reload", "restart"))).templates == (TemplateFile("/a", "/b"),)
