"""What a shim's child does between fork and exec: it becomes the unit. Standard library alone."""

import os
import signal
from typing import Any

from actors.engine import cgroups

#: Keys of the spec, all required: unit, machine, fence, generation, run (a token), fenced (bool), folder, cgroup
#: (name or ""), cgroup_roots (list or None), type (simple, exec, oneshot, notify), remain (bool), env (dict),
#: cwd ("" = /, a leading "-" ignores failure), uid, gid, groups (uid None: as the shim), umask, kill_signal,
#: kill_mode, start_timeout_s, stop_timeout_s (0 = for ever), journal_bytes,
#: pre, start, post, reload, stop, stop_post: lists of {"argv": [...], "path": str, "ignore": bool, "privileged": bool}
SPEC = dict[str, Any]

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36
EXIT_EXEC = 203


def prctl(option: int, value: Any) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def become(spec: SPEC, command: dict[str, Any], cgroup: str, main: int, tell: int, out: int, err: int) -> None:
    """Execute ``command``; never returns. A failure is written to ``tell``, which exec closes.

    main      pid of the unit's main process, 0 if there is none: $MAINPID
    out, err  pipes of the journal
    """
    step = "set up"
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        for fd, target in ((out, 1), (err, 2)):
            os.dup2(fd, target)
        if cgroup:
            step = "enter its cgroup"
            cgroups.enter(cgroup)
        os.umask(spec["umask"])
        if spec["uid"] is not None and not command["privileged"]:
            step = f"become uid {spec['uid']}"
            os.setgroups(spec["groups"])
            os.setgid(spec["gid"])
            os.setuid(spec["uid"])
        if not cgroup:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        step = f"enter {spec['cwd']}"
        _chdir(spec["cwd"])
        env = {**spec["env"], "MAINPID": str(main)} if main else spec["env"]
        argv = [_mainpid(word, main) for word in command["argv"]]
        step = f"execute {command['path']}"
        _exec(command["path"], argv, env)
    except BaseException as error:
        reason = error.strerror if isinstance(error, OSError) else repr(error)
        os.write(tell, f"can't {step}: {reason}".encode())
    os._exit(EXIT_EXEC)


def _mainpid(word: str, pid: int) -> str:
    text = str(pid) if pid else ""
    return word.replace("${MAINPID}", text).replace("$MAINPID", text)


def _chdir(cwd: str) -> None:
    try:
        os.chdir(cwd.removeprefix("-") or "/")
    except OSError:
        if not cwd.startswith("-"):
            raise
        os.chdir("/")


def _exec(path: str, argv: list[str], env: dict[str, str]) -> None:
    if "/" in path:
        os.execve(path, argv, env)
    for folder in env.get("PATH", "/usr/bin:/bin").split(":"):
        candidate = f"{folder}/{path}"
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            os.execve(candidate, argv, env)
    raise FileNotFoundError(2, "no such program in PATH")
