import subprocess
import sys

import pytest

from streams.audit.cli import main


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["export", "segments:///data"], 4, "use `corelog log --jsonl`"),
        (["run", "segments:///data"], 4, "use `corelog log --jsonl`"),
        (["export", "kafka://nonsense"], 4, "is not host:port"),
        (["export", "kafka://127.0.0.1:1", "-O", "client.idd=x"], 4, "client.id?"),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(
    words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    assert says in capsys.readouterr().err


def test_wrong_usage_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", "kafka://127.0.0.1:1", "-O", "novalue"])
    assert caught.value.code == 2
    assert "KEY=VALUE" in capsys.readouterr().err


def test_lines_and_their_reading_import_no_stream_library() -> None:
    code = "import sys, streams.audit.lines, streams.audit.trail, streams.audit.outcomes, streams.audit.cli\n"
    code += "assert not {'faust', 'confluent_kafka', 'kafka', 'aiokafka'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_extra_is_said_in_words() -> None:
    code = "import sys; sys.modules['faust'] = None\nfrom streams.audit.cli import main\n"
    code += "sys.exit(main(['run', 'kafka://127.0.0.1:1']))"
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "pip install 'corelog[audit]'" in ended.stderr
