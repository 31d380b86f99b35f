"""The gates that compare texts: `dedup` measures how the near-duplicate index grows."""
