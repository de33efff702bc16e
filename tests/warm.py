"""Programs forked from an interpreter that has imported twincast already, in place of those of `subprocess`.

Most of what starting a command or a server costs is imports, half a second each. One interpreter a test run (with
pytest-xdist: a worker) imports once and forks for each program that a test starts. The program is a process like any
other, a child of the test's: arguments, folder, environment, streams, signals and exit status are its own. Whatever
differs in more than these (a shell, a session, a locale, another executable) is left to `subprocess`, and where what a
program imports is the test, the test starts it by `subprocess` itself.

With TWINCAST_TEST_COLD set every program starts from nothing, as at its user's.
"""

import atexit
import codecs
import ctypes
import importlib
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TextIO

ROOT = Path(__file__).parents[1]
COLD = bool(os.environ.get("TWINCAST_TEST_COLD")) or sys.platform != "linux"
MODULES = ("twincast", "uvicorn")
"""Programs that are run by `-m`."""
OWN_INTERPRETERS = {"--reload", "--workers"}
"""Options with which uvicorn starts interpreters of its own."""
IMPORTED = (
    *("certifi", "encodings.idna", "httpcore", "stringprep", "websockets.asyncio.client"),
    *("asyncio", "logging.config", "rich.live", "rich.progress", "rich.table", "typer.main", "uvicorn.main"),
    *("uvicorn.lifespan.on", "uvicorn.loops.uvloop", "uvicorn.protocols.http.httptools_impl"),
    *("twincast.client.opening", "twincast.client.rest", "twincast.client.sync", "twincast.server.process"),
    *("twincast.access.tokens", "twincast.transports.metrics"),
)
"""But `twincast.cli`, whose consoles look at streams and variables when they are made, and `twincast.fast`."""
READ_AT_THE_START = ("PYTHON", "LC_", "LANG", "MALLOC_", "LD_", "OPENSSL_", "SSL_", "TZ", "TWINCAST_PURE")
"""Variables that an interpreter or a library reads as it starts: a program that has others cannot be forked."""
READ_LATER = {"PYTHONUNBUFFERED", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"}
MOST_BYTES = 60_000
"""Of arguments and environment in one datagram."""
PR_SET_CHILD_SUBREAPER = 36
STDIN, STDOUT, STDERR = 0, 1, 2


class Program(NamedTuple):
    """What to run, and where."""

    words: list[str]
    folder: str
    env: dict[str, str]
    closed: tuple[int, ...] = ()


class Closing:
    """For `preexec_fn`: start a program with some of its standard streams closed, by number."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def __call__(self) -> None:
        for number in self.numbers:
            os.close(number)


class _Popen(subprocess.Popen[Any]):
    """A process, forked if it is a program of Python that may be."""

    def _execute_child(self, *how: Any) -> None:
        arguments, executable, preexec, _, pass_fds, folder, env, _, _, shell, *rest = how
        stdin, _, _, stdout, _, stderr, restores_signals, *owner = rest
        program = _forkable(arguments, folder, env)
        if program and isinstance(preexec, Closing):
            program, preexec = program._replace(closed=preexec.numbers), None
        is_plain = not (executable or preexec or pass_fds or shell) and restores_signals
        if program is None or not is_plain or any(other not in {None, -1, False} for other in owner):
            super()._execute_child(*how)  # type: ignore[misc]  # it is not in the stubs
            return
        self.pid = _interpreter().fork(program, [_or(stdin, STDIN), _or(stdout, STDOUT), _or(stderr, STDERR)])
        self._child_created = True
        self._close_pipe_fds(*rest[:6])  # type: ignore[attr-defined]  # nor is this one


def _run(arguments: Any, *, check: bool = False, timeout: float | None = None, **how: Any) -> Any:
    """Run a program to its end, as `subprocess.run` does."""
    given = how.pop("input", None)
    if given is not None:
        how["stdin"] = subprocess.PIPE
    if how.pop("capture_output", False):
        how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with _Popen(arguments, **how) as process:
        try:
            out, err = process.communicate(given, timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(arguments, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


if TYPE_CHECKING:
    Popen, run = subprocess.Popen, subprocess.run
else:
    Popen, run = _Popen, _run


def _or(stream: int, own: int) -> int:
    return own if stream == -1 else stream


def _forkable(arguments: Any, folder: Any, env: Any) -> Program | None:
    if COLD or not isinstance(arguments, list | tuple) or not arguments:
        return None
    words = [os.fsdecode(word) for word in arguments]
    variables = {os.fsdecode(name): os.fsdecode(text) for name, text in (os.environ if env is None else env).items()}
    match words:
        case [sys.executable, "-m", module, *options] if module in MODULES and not OWN_INTERPRETERS & set(options):
            pass
        case [sys.executable, "-c", *_]:
            pass
        case _:
            return None
    if _at_the_start(variables) != _at_the_start(dict(os.environ)):
        return None
    program = Program(words, os.fsdecode(folder or os.getcwd()), variables)
    return program if len(json.dumps(program)) <= MOST_BYTES else None


def _at_the_start(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(READ_AT_THE_START) and name not in READ_LATER}


class _Interpreter:
    """The one that forks, as the tests see it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-c", "import tests.warm; tests.warm.serve()", str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        self._prctl = ctypes.CDLL(None).prctl
        self._lock = threading.Lock()
        atexit.register(self._end)

    def fork(self, program: Program, streams: list[int]) -> int:
        """Start a program as a child of this process, and return its id."""
        with self._lock:
            self._prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # it becomes ours when the process between us ends
            try:
                socket.send_fds(self._socket, [json.dumps(program).encode()], streams)
                return int(self._socket.recv(64))
            finally:
                self._prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def _end(self) -> None:
        self._socket.close()
        self._process.wait()


_running: list[_Interpreter] = []


def _interpreter() -> _Interpreter:
    if not _running:
        _running.append(_Interpreter())
    return _running[0]


def serve() -> None:
    """Import everything, then fork for each program that comes; every fork returns from here as that program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in IMPORTED:
        importlib.import_module(module)
    with socket.socket(fileno=int(sys.argv[1])) as tests:
        while True:
            message, streams, _, _ = socket.recv_fds(tests, MOST_BYTES * 2, 3)
            if not message:
                return
            reader, writer = os.pipe()
            between = os.fork()
            if not between:
                between = os.getpid()
                if child := os.fork():
                    os.write(writer, str(child).encode())
                    os._exit(0)
                break
            for descriptor in (*streams, writer):
                os.close(descriptor)
            os.waitpid(between, 0)
            tests.send(os.read(reader, 64))
            os.close(reader)
    os.close(reader)
    os.close(writer)
    while os.getppid() == between:  # until then it is no child of the test's
        time.sleep(0.0005)
    _end(lambda: _become(Program(*json.loads(message)), streams))


def _end(program: Callable[[], None]) -> NoReturn:
    """Run a program and end the process as an interpreter does, but for freeing the memory piece by piece (0.2 s)."""
    status, is_interrupted = 0, False
    try:
        program()
    except SystemExit as end:
        if isinstance(end.code, int) or end.code is None:
            status = end.code or 0
        else:
            print(end.code, file=sys.stderr)
            status = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status, is_interrupted = 1, isinstance(error, KeyboardInterrupt)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(ValueError):  # it was closed
            try:
                stream.flush()
            except OSError as error:
                print(f"Exception ignored in: {stream!r}\n{type(error).__name__}: {error}", file=sys.stderr)
                status = status or 120
    if is_interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status & 0xFF)


def _become(program: Program, streams: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    for descriptor in streams:
        os.close(descriptor)
    os.chdir(program.folder)
    os.environ.clear()
    os.environ.update(program.env)
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    encoding, errors = (codecs.lookup(encoding).name, errors or "strict") if encoding else ("", errors)
    reader = io.BufferedReader(io.FileIO(STDIN, closefd=False))
    sys.stdin = io.TextIOWrapper(reader, encoding or sys.stdin.encoding, errors or sys.stdin.errors)
    sys.stdout = _printer(STDOUT, encoding or sys.stdout.encoding, errors or sys.stdout.errors)
    sys.stderr = _printer(STDERR, encoding or sys.stderr.encoding, sys.stderr.errors)
    for number in program.closed:
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)
    _, how, what, *words = program.words
    sys.argv = [how, *words]
    if how == "-c":
        exec(compile(what, "<string>", "exec"), sys.modules["__main__"].__dict__)
    else:
        sys.path[0] = program.folder
        runpy.run_module(what, run_name="__main__", alter_sys=True)


def _printer(number: int, encoding: str, errors: str | None) -> TextIO:
    """Open an output as an interpreter does when it starts."""
    file = io.FileIO(number, "wb", closefd=False)
    is_unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    return io.TextIOWrapper(
        file if is_unbuffered else io.BufferedWriter(file),
        encoding,
        errors,
        line_buffering=not is_unbuffered and (number == STDERR or os.isatty(number)),
        write_through=is_unbuffered,
    )
