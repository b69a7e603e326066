"""3D convolutional networks."""
