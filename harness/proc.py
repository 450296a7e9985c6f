# SPDX-License-Identifier: GPL-2.0-or-later
"""The one module that starts processes: argv always a list, always a deadline, logged once."""

import contextlib
import ctypes
import logging
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from harness.errors import BuildError, HostError
from harness.text import printable
from harness.timeouts import Deadline

T = TypeVar("T")
log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
# What a guest on another machine needs, which does not die with its harness.
END_GRACE_S = 60.0
_CHUNK_BYTES = 64 << 10
_libc = ctypes.CDLL(None, use_errno=True)
# So that an interruption of one thread can end what others wait for.
_running: "set[subprocess.Popen[str] | subprocess.Popen[bytes]]" = set()


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished command left: exit status and output, bounded by the caller's log."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def pasteable(argv: Sequence[str | os.PathLike[str]]) -> str:
    """The command as a person can paste it into a shell."""
    return shlex.join(os.fspath(word) for word in argv)


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    log_path: Path | None = None,
    hint: str | None = None,
    stdin: Path | None = None,
    grace_s: float = 0.0,
) -> Result:
    """Run a command to its end; it dies with the harness, SIGKILL of the harness included.

    Its input is the file `stdin`, or nothing. Raises HostError when it cannot start or overruns
    `timeout_s`, BuildError when it fails and `check` is set. Where it overruns or we are
    interrupted, its whole process group is asked to end, and killed `grace_s` later. With
    `log_path` the output is also kept.
    """
    words = tuple(os.fspath(word) for word in argv)
    log.debug("run: %s", pasteable(words))
    deadline = Deadline(timeout_s)
    child = _start(words, cwd, env, stdin or Path(os.devnull), hint)
    try:
        with awaited(child):
            out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise HostError(
            f"{words[0]} was still running after {deadline.elapsed_s():.0f} s: {pasteable(words)}",
            hint=hint,
        ) from error
    finally:
        if grace_s:
            _end((child,), grace_s)
        kill_group(child)
    result = Result(words, child.returncode, out, err)
    if log_path:
        log_path.write_text(f"$ {pasteable(words)}\n{out}{err}exit {child.returncode}\n")
    if check and child.returncode:
        tail = "\n".join((err or out).strip().splitlines()[-3:])
        after = f"after {deadline.elapsed_s():.0f} s: {tail}"
        what = f"{words[0]} failed with {child.returncode} {after}"
        raise BuildError(what, hint=hint, log=log_path)
    return result


def bounded(
    argv: Sequence[str], *, timeout_s: float, stdin: bytes, most: int
) -> tuple[int, bytes, bytes]:
    """Exit status, output and errors of a command, `most` bytes of each; the rest is dropped.

    Raises HostError as run() does, and for a command that is not there too.
    """
    log.debug("run: %s", pasteable(argv))
    words, deadline = list(argv), Deadline(timeout_s)
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_dying_with(os.getpid()),
        )
    except (OSError, ValueError) as error:
        raise HostError(f"cannot start {printable(words[0], 80)}: {error}") from error
    assert child.stdin and child.stdout and child.stderr
    kept = bytearray(), bytearray()
    threads = [
        threading.Thread(target=_fill, args=(child.stdout, kept[0], most), daemon=True),
        threading.Thread(target=_fill, args=(child.stderr, kept[1], most), daemon=True),
        threading.Thread(target=_feed, args=(child.stdin, stdin), daemon=True),
    ]
    try:
        with awaited(child):
            for thread in threads:
                thread.start()
            child.wait(timeout_s)
            # What it started may hold its output open.
            for thread in threads:
                thread.join(deadline.left_s())
    except subprocess.TimeoutExpired as error:
        said = f"{printable(pasteable(words), 200)} was still running"
        raise HostError(f"{said} after {deadline.elapsed_s():.0f} s") from error
    finally:
        kill_group(child)
    return child.returncode, bytes(kept[0]), bytes(kept[1])


def _fill(pipe: IO[bytes], kept: bytearray, most: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := pipe.read1(_CHUNK_BYTES):  # type: ignore[attr-defined]
            kept += data[: most - len(kept)]


def _feed(pipe: IO[bytes], data: bytes) -> None:
    # It need not read what it is given.
    with contextlib.suppress(OSError, ValueError), pipe:
        pipe.write(data)


def _start(
    words: tuple[str, ...],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    stdin: Path,
    hint: str | None,
) -> "subprocess.Popen[str]":
    try:
        with stdin.open("rb") as given:
            return subprocess.Popen(
                words,
                cwd=cwd,
                env=None if env is None else dict(env),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
                preexec_fn=_dying_with(os.getpid()),
            )
    except OSError as error:
        raise HostError(f"cannot start {words[0]}: {error.strerror or error}", hint=hint) from error


@contextlib.contextmanager
def awaited(child: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> Iterator[None]:
    """While a command is waited for, end_children() ends it."""
    _running.add(child)
    try:
        yield
    finally:
        _running.discard(child)


def end_children(grace_s: float = END_GRACE_S) -> None:
    """End every command that a thread waits for; politely at first."""
    _end(tuple(_running), grace_s)


def _end(
    children: "Sequence[subprocess.Popen[str] | subprocess.Popen[bytes]]", grace_s: float
) -> None:
    deadline = Deadline(grace_s)
    for child in children:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(deadline.left_s())
        kill_group(child)


def spawn(
    argv: Sequence[str | os.PathLike[str]],
    *,
    stdout: IO[bytes],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    stdin: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a long-lived child that dies with the harness, SIGKILL of the harness included.

    Output and errors go to `stdout`, input comes from `stdin`, or there is none. Raises HostError
    when it cannot start.
    """
    words = [os.fspath(word) for word in argv]
    log.debug("spawn: %s", pasteable(words))

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words,
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
            preexec_fn=_dying_with(os.getpid()),
        )

    try:
        return _on_lasting_thread(start)
    except OSError as error:
        raise HostError(f"cannot start {words[0]}: {error.strerror or error}") from error


def _on_lasting_thread(start: Callable[[], T]) -> T:
    """Call `start` on a thread that lives as long as the process.

    A child is told of the death of the thread that started it, not of the process.
    """
    if threading.current_thread() is threading.main_thread():
        return start()
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(start())
        except BaseException as error:
            done.set_exception(error)
        threading.Event().wait()

    threading.Thread(target=work, name="keeper of a child", daemon=True).start()
    return done.result()


def _dying_with(parent: int) -> Callable[[], None]:
    """What a child does before exec so that it does not outlive the harness."""

    def die_with_parent() -> None:
        # The kernel sends the signal when the parent's thread ends; the check closes the race of
        # a parent that died before prctl ran.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return die_with_parent


def kill_group(child: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    """End the child and all that it started; safe to call twice."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
