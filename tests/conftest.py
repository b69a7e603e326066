"""Test configuration: four virtual CPU devices (or $TEST_DEVICES) and a persistent compilation cache."""

import gc
import os
import pathlib

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As environment variables, so that processes that tests start compile as fast, and what others compiled once.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(pathlib.Path(__file__).parent.parent / ".jax_cache")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
# The older fusion emitters of XLA halve the compilation time.
os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {os.environ.get('XLA_FLAGS', '')}"

import jax

jax.config.update("jax_num_cpu_devices", int(os.environ.get("TEST_DEVICES", 4)))
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tracing allocates many objects; with the default threshold, garbage collection takes a quarter of its time.
gc.set_threshold(50_000)

LONG = ("test_hosts.py", "test_tables.py", "test_notebooks.py", "test_task_contract.py", "test_loop.py")


def pytest_collection_modifyitems(items):
    """Starts the longest files first, since each one runs in one process, with its fixtures."""
    items.sort(key=lambda item: item.path.name not in LONG)
