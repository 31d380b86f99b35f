"""Our updates: `throughput` against a Hugging Face Trainer, `mfu` against the device's peak."""
