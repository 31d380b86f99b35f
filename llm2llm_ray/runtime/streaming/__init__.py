"""Ray Data streams rows through student and teacher.

`streams.py` are the plans (E^i, A^i); `role_operator.py` is one role as an operator of a plan; `asker.py` is the process
that the operator hands its rows to, `stream_role.py` what is done with them there (durable replies, many in flight), `by_fold.py`
the same where several students answer, and `telling.py` what is told of it; `transports.py` says how a request reaches a model.
"""
