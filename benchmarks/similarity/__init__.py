"""The gates that compare texts: `dedup` measures how the near-duplicate index grows,
`contamination` what the gate before dev and test rows sees."""
