"""What a round is: a stream of rows answered by the student, the wrong ones asked of the teacher, drained and committed.

- `solving.py`: the student's role, one row at a time; `weakness.py`: what counts as weak; `targeting.py` and
  `aiming.py`: which rows are asked about; `folds.py`: which student may be asked about
  which seeds, with cross-fitted errors; `augmenting.py`: the teacher's role; `judging.py`: the judge's.
- `rows.py`: what a drained stream left in storage; `enough_answered.py`: whether enough of it was answered to count.
- `versioning.py`: from a stream to D^{i+1}, with both stages recorded; `round_inputs.py`: what each of them depends on, for its
  key.
"""
