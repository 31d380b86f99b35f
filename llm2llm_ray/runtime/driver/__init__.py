"""Puts everything together: `launch.py` is the entrypoint's side, `driver.py` the actor that owns the loop, `parts.py` what the
loop is made of, `exams.py` the test set at the end, `evaluate.py` the command of that name,
`memory.py` and `wrapped_errors.py` what a person reads when a run fails, `evidence.py` what is kept of what really ran.
"""
