"""Sweeps: a training run for every combination of config values and every seed."""
