"""Recurrent networks on the features of frames."""
