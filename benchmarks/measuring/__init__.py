"""What every benchmark shares: one result with its claims, tables and machine, and RESULTS.md made of them."""
