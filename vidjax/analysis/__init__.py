"""Cost analysis: parameters, multiply-adds, memory, receptive fields."""
