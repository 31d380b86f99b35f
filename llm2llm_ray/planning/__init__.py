"""What a run will take, before it starts: updates, calls, tokens, seconds, disk. No Ray, no torch."""
