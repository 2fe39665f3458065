"""Run a leafiqa command that kills itself at named points: `python kill_at.py POINT... -- ARGUMENT...`.

A point reads `MODULE:NAME:COUNT:WHEN`: SIGKILL when NAME is called for the COUNT-th time, before or after it runs.
What takes seconds, importing torch, is done once; each run is a fork of that. Each run must die at its point; prints
how many did, and exits as the last run does, which is left alone.
"""

import functools
import importlib
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path


def kill_at(points, *arguments):
    """Run a command that dies at each point, and once more; it must have died at each. Called by the tests."""
    done = subprocess.run(
        [sys.executable, __file__, *points, "--", *map(str, arguments)],
        capture_output=True, text=True, timeout=900, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"died {len(points)}", done.stderr[-2000:]


def arm(point):
    """Make a function kill the process."""
    module, name, count, when = point.split(":")
    owner = importlib.import_module(module)
    *outer, name = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original, left = getattr(owner, name), [int(count)]

    @functools.wraps(original)
    def deadly(*arguments, **options):
        left[0] -= 1
        if not left[0] and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def run(arguments, point=None):
    """Return the exit status of a run, negative where a signal ended it."""
    import leafiqa.distillation.training_loop
    from leafiqa.cli.main import cli

    child = os.fork()
    if not child:
        code = 1
        try:
            leafiqa.distillation.training_loop._CHECKPOINT_SECONDS = 0
            if point:
                arm(point)
            code = cli(arguments, standalone_mode=False) or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main():
    import timm  # noqa: F401
    import torch  # noqa: F401

    at = sys.argv.index("--")
    points, arguments = sys.argv[1:at], sys.argv[at + 1 :]
    died = 0
    for point in points:
        status = run(arguments, point)
        died += status == -signal.SIGKILL
        if status != -signal.SIGKILL:
            print(f"{point} was not reached: {status}", file=sys.stderr)
    code = run(arguments)
    print(f"died {died}")
    sys.exit(code)


if __name__ == "__main__":
    main()
