"""How a teacher's reply becomes a row of the next dataset version.

    reply ─ split_reasoning ─ task.parse ──► Draft ─ gates.check ──► Candidate ─ CommitGates.admit ──► Example
                                  │                      │                              │
                                  └──────────────────────┴──── Rejected(reason, detail) ┘ counted and stored

- `gates.py` looks at one draft alone, so it runs in the stream, where the reply arrives. A new gate of this kind is one
  function there and one name in its `GATES`.
- `commit.py` looks at all rows (copies, contamination, conflicts), so it runs once per round, in canonical order: what
  arrived first changes nothing. A new gate of this kind is one method there.
- `held_out.py` says what is near to a dev or test row, strictly, by comparing with each. `similarity.py` finds near copies
  among any number of training rows. When two texts are the same: `tasks/normal_form.py`.
"""
