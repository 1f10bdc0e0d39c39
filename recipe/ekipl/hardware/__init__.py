"""What a run needs and what this machine has: memory, hours, and what is missing, before anything is loaded."""
