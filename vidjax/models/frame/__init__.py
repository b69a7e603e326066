"""2D networks on frames, and the fusion of frames over time."""
