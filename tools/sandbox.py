"""Execute a student's cells where they can harm nobody: bubblewrap, and limits on top of it.

Inside there is no network, no file of the instructor and no other submission: only the system's
libraries, Python, the environment and regkit, all read-only, and a small disk in memory.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from shlex import split
from typing import Any, TextIO

import matplotlib
import psutil

ROOT = Path(__file__).parent.parent
RUNNER = Path(__file__).with_name("runner.py")
SECONDS = 60  # of a cell, unless told otherwise
STARTUP = 60  # seconds until the kernel is there
MEMORY = 2 * 2**30  # bytes of a process
TOGETHER = 3 * 2**30  # bytes of all processes
PROCESSES = 64  # and threads
DISK = 100 * 2**20  # bytes
STOPS = 3  # cells that may be stopped before the rest of a notebook is not run any more

SYSTEM = ["/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"]
ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "MKL_NUM_THREADS": "1",
    "MPLCONFIGDIR": "/tmp/matplotlib",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": "/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "TQDM_DISABLE": "1",
    "USER": "student",
}
Outputs = list[dict[str, Any]]


def command() -> list[str]:
    """The command line in front of a program that shuts it in."""
    root = os.getuid() == 0
    line = split("bwrap --die-with-parent --new-session --clearenv")
    line += split("--unshare-net --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup-try")
    line += [] if root else split("--unshare-user --uid 1000 --gid 1000")
    for name, value in ENVIRONMENT.items():
        line += ["--setenv", name, value]
    line += split(f"--proc /proc --dev /dev --size {DISK} --perms 1777 --tmpfs /tmp")
    line += split(f"--size {DISK} --perms 1777 --tmpfs /dev/shm")
    for path in map(Path, [*SYSTEM, sys.base_prefix, sys.prefix, ROOT / "regkit", RUNNER]):
        for folder in reversed(path.parents[:-1]):
            line += ["--dir", str(folder)]
        line += ["--ro-bind-try", str(path), str(path)]
    cache = next(Path(matplotlib.get_cachedir()).glob("fontlist-*.json"), None)
    if cache:
        line += split("--perms 0777 --dir /tmp/matplotlib --ro-bind")
        line += [str(cache), f"/tmp/matplotlib/{cache.name}"]
    line += split("--remount-ro /dev --remount-ro / --chdir /tmp")
    if root:  # a user of its own, whose processes the kernel counts
        user = 100_000 + os.getpid()
        line += split(f"setpriv --reuid {user} --regid {user} --clear-groups")
        line += split("--inh-caps=-all --bounding-set=-all")
    return [*line, *limits(), f"--nproc={PROCESSES}"]


def limits() -> list[str]:
    """Limits of each process: memory, the size of a file, no memory dump."""
    return ["prlimit", f"--data={MEMORY}", f"--fsize={DISK}", "--core=0"]


def missing() -> str | None:
    """Why there is no sandbox, or None if there is one."""
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed (Debian: apt install bubblewrap)"
    trial = subprocess.run([*command(), "true"], capture_output=True, text=True)
    if trial.returncode == 0:
        return None
    return f"bubblewrap does not work here: {trial.stderr.strip()}"


def execute(cells: list[str], seconds: int, shut_in: bool = True) -> list[Outputs]:
    """Run cells one after the other in one kernel, and return their outputs.

    A cell that must be stopped costs only itself: we run the others again without it. Its output is
    an error that says why. If that does not help, or happens too often, the rest is not run.

    Args:
        cells: their sources.
        seconds: how long a cell may take.
        shut_in: False runs them with limits, but without a sandbox.
    """
    stopped: dict[int, str] = {}
    while True:
        sources = [
            f"raise RuntimeError({stopped[number]!r})" if number in stopped else cell
            for number, cell in enumerate(cells)
        ]
        outputs, reason = attempt(sources, seconds, shut_in)
        if reason is None:
            return outputs
        current = len(outputs)
        if current in stopped or len(stopped) == STOPS:
            rest = error(f"not run, because something before it blocks the kernel: {reason}")
            return outputs + [[rest] for _ in cells[current:]]
        stopped[current] = f"we stopped this cell: {reason}"


def error(message: str) -> dict[str, Any]:
    """The output of a cell that failed for a reason that its code does not say."""
    return {
        "output_type": "error",
        "ename": "RuntimeError",
        "evalue": message,
        "traceback": [f"RuntimeError: {message}"],
    }


def attempt(sources: list[str], seconds: int, shut_in: bool) -> tuple[list[Outputs], str | None]:
    """Run cells until one must be stopped: the outputs before it, and the reason (or None)."""
    line = [*(command() if shut_in else limits()), sys.executable, str(RUNNER)]
    request = json.dumps({"cells": sources, "seconds": seconds})
    answers: list[Any] = []
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        process.stdin.write(request)
        process.stdin.close()
        reader = threading.Thread(target=collect, args=(process.stdout, answers))
        reader.start()
        try:
            reason = watch(process, answers, seconds)
        finally:
            for child in family(process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            reader.join()
    if answers and isinstance(answers[-1], str):
        reason = answers.pop()
    if reason is None and len(answers) < len(sources):
        reason = "it ended all processes"
    return answers, reason


def collect(lines: TextIO, answers: list[Any]) -> None:
    """Append the runner's answers as they come."""
    for line in lines:
        if line.endswith("\n"):  # else it was killed in the middle
            answers.append(json.loads(line))


def watch(process: subprocess.Popen[str], answers: list[Any], seconds: int) -> str | None:
    """Wait for the end; return at once, with the reason, if there is too much of something."""
    known, since = 0, time.monotonic()
    while process.poll() is None:
        time.sleep(0.1)
        if memory(process) > TOGETHER:
            return f"it used more than {TOGETHER / 2**30:g} GB of memory"
        if len(answers) > known:
            known, since = len(answers), time.monotonic()
        if time.monotonic() - since > seconds + STARTUP:
            return f"it took longer than {seconds} seconds"
    return None


def memory(process: subprocess.Popen[str]) -> int:
    """Bytes that a process and all its descendants hold."""
    total = 0
    for child in family(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += child.memory_info().rss
    return total


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """A process and all its descendants."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
