"""A study: methods x draws of the seed set x run seeds x seed sizes, each cell a run of its own, and what they come to. No Ray.

- `spec.py`: what a user writes; `methods.py`: what each built-in method changes in the base config; `cells.py`: the cells in
  their order, and each one's config.
- `given_rows.py`, `eda.py`: rows for methods that ask no model (duplicates, EDA, more real rows, the nearest real row).
- `results.py`: what a finished cell says; `statistics.py`: means, differences, intervals, power; `table.py`: a row per method.

Who runs the cells is `runtime/driver/study.py`.
"""
