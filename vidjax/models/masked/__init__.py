"""Masked autoencoders of video, and their encoders as classifiers."""
