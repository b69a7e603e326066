"""What a training step needs on a slice of accelerators, known before renting it."""
