"""Handling of SIGINT and SIGTERM."""

import os
import signal
import subprocess
import sys

LOST = """
import gc, os, signal, time
from vidjax import interrupts
interrupts.GRACE = 0.3

def in_callback(phase, info):
    gc.callbacks.clear()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)

with interrupts.handled():
    gc.callbacks.append(in_callback)
    gc.collect()
    time.sleep(20)
"""


def test_interrupt_lost_in_a_callback_ends_in_one_line():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", LOST], env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (128 + signal.SIGINT, "vidjax: interrupted\n")


REPLACED = """
import os, signal, types
from vidjax import cli

def run(args):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass
    except KeyboardInterrupt:
        raise ImportError("an extension was interrupted")

cli.COMMANDS = [types.SimpleNamespace(NAME="x", HELP="", run=run, add_arguments=lambda parser: None)]
cli.main(["x"])
"""


def test_interrupt_that_an_import_replaced_by_its_own_error_ends_in_one_line():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", REPLACED], env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (128 + signal.SIGINT, "vidjax: interrupted\n")
