"""Run a leafiqa command again and again, killed at random moments: `python kill_often.py LONGEST KILLS ARGUMENT...`.

What takes seconds, importing torch, is done once; each run is a fork of that. Prints how many runs were killed before
they had ended, and exits as the last run does, which is left alone.
"""

import os
import random
import signal
import sys
import time

import timm  # noqa: F401
import torch  # noqa: F401

import leafiqa.distillation.training_loop
from leafiqa.cli.main import cli


def begin(arguments):
    """Return the process id of a run."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        leafiqa.distillation.training_loop._CHECKPOINT_SECONDS = 0
        code = cli(arguments, standalone_mode=False) or 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def main():
    longest, kills, arguments = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    rng, killed = random.Random(0), 0
    for _ in range(kills):
        child = begin(arguments)
        time.sleep(rng.uniform(0.05, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
    _, status = os.waitpid(begin(arguments), 0)
    print(f"killed {killed}")
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
