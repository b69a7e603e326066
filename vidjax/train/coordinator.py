"""Runs the JAX coordination service of a multi-host run in a separate process.

By default JAX runs this service inside process 0, and all other processes abort with a stack dump as soon as
process 0 dies. A separate service outlives process 0 long enough for the others to read the reason.
"""

import sys
import time

from jaxlib import _jax

if __name__ == "__main__":
    address, processes, timeout, linger = sys.argv[1], *map(int, sys.argv[2:])
    service = _jax.get_distributed_runtime_service(
        address, processes, heartbeat_timeout=timeout, shutdown_timeout=timeout, recoverable=False
    )
    print("ready", flush=True)
    if sys.stdin.read() != "done":  # the pipe closed because process 0 died
        time.sleep(linger)
    service.shutdown()
