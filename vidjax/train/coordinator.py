"""The coordination service of a run on several hosts, in a process of its own.

JAX runs this service inside process 0, and every other process aborts with a stack dump the moment that one
dies. Run apart, the service outlives process 0 for a while, in which the others learn what happened.
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
