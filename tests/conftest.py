"""Test configuration: four virtual CPU devices (or $TEST_DEVICES) and a persistent compilation cache."""

import gc
import os
import pathlib

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The older fusion emitters of XLA halve the compilation time.
os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {os.environ.get('XLA_FLAGS', '')}"

import jax

jax.config.update("jax_num_cpu_devices", int(os.environ.get("TEST_DEVICES", 4)))
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(__file__).parent.parent / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
# Tracing allocates many objects; with the default threshold, garbage collection takes a quarter of its time.
gc.set_threshold(50_000)

LONG = ("test_hosts.py", "test_tables.py", "test_notebooks.py", "test_task_contract.py", "test_loop.py")


def pytest_collection_modifyitems(items):
    """Starts the longest files first, since each one runs in one process, with its fixtures."""
    items.sort(key=lambda item: item.path.name not in LONG)
