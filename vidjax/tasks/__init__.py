"""What models learn: the results of each task, and how they are combined."""
