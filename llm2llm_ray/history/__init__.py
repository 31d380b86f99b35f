"""A run as it lies in storage, for whoever reads it: no Ray, and the run may be live, dead or a copy.

- `record.py`: its stages, rounds and mistakes; `standing.py`: where it stands now; `summary.py`: what it came to.
- `progress.py`: a live run in one line. `comparison.py`: two runs beside each other.
- `retention.py`: what it keeps on disk, and what can go.
"""
