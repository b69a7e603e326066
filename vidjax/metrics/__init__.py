"""Metrics as pure numpy functions, each with its definition and source."""
