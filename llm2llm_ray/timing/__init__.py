"""Where a run spent its time, read from its records."""
