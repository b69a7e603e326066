"""Entry point of data workers; apart from `workers`, because numpy must be imported after `run` starts."""

import os
from multiprocessing.connection import Connection


def run(connection: Connection) -> None:
    """Runs a data worker whose numerical libraries use one thread."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    from vidjax.data.workers import work

    work(connection)
