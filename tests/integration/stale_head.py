"""A worker's extension whose head stays as it was first loaded: what vLLM does by itself to a tied head on CPU."""

from __future__ import annotations


class StaleHead:
    def refresh_tied_head(self) -> int:
        return 0
