"""Recorded replies: what a run may ask is written down ahead, answered by somebody, and joined into a file that a run reads."""
