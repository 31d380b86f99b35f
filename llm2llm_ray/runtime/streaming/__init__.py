"""Ray Data streams rows through student and teacher.

`streams.py` are the plans (E^i, A^i); `role_operator.py` is one role as an operator of a plan; `asker.py` what the operator hands
its rows to (durable replies, many in flight); `transports.py` how a request reaches a model.
"""
