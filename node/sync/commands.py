"""Check and reload commands: a shell's, with a time limit, in a process group of their own."""

import asyncio
import contextlib
import os
import signal
import tempfile

COMMAND_S = 60.0
OUTPUT_BYTES = 2000


class CommandFailed(Exception):
    """Says how, with the end of what the command printed."""


async def run(line: str, timeout_s: float = COMMAND_S) -> None:
    """Raises CommandFailed. What the command leaves running in the background is let be."""
    with contextlib.ExitStack() as stack:
        try:
            # a file, no pipe: a daemon that the command starts may keep it open
            output = stack.enter_context(tempfile.TemporaryFile())
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                line,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise CommandFailed(f"`{line}` can't be run: {error}") from error
        try:
            async with asyncio.timeout(timeout_s):
                code = await process.wait()
        except TimeoutError:
            raise CommandFailed(f"`{line}` did not end in {timeout_s:g} s{_said(output.fileno())}") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if code:
            how = f"exited with code {code}" if code > 0 else f"was killed by {_named(-code)}"
            raise CommandFailed(f"`{line}` {how}{_said(output.fileno())}")


def _named(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # real-time signals have no names


def _said(fd: int) -> str:
    size = os.fstat(fd).st_size
    text = os.pread(fd, OUTPUT_BYTES, max(0, size - OUTPUT_BYTES)).decode("utf-8", "replace").strip()
    return f": {text}" if text else ""
