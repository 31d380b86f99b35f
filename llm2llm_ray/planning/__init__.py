"""What a run will take, before it starts: updates, calls, tokens, seconds, disk, memory. No Ray, no torch."""
