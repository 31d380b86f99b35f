"""A run's folder: everything the run knows, and the only thing a restart needs.

`Files(<run.folder>/<run.name>)` opens it, on a path every node sees or a URI that pyarrow opens. Paths in records are
relative to it, so a run folder can be moved or copied. This package writes:

    <run>/
      lease                         who drives the run now (lease.py); the lock is the kernel's, not the text inside
      events.jsonl                  the run's journal, one line per event, for people (stages.Events)
      versions/                     the datasets D^0, D^1, ... (versions.py)
        002-ab12cd34ef56/           iteration and first digits of the version's id
          part-000-<hash>.parquet   rows; parts of the parent first (hard links), then what this version added
          part-002-<hash>.parquet
          README.md                 tells `datasets` which files are the rows
          manifest.json             written last: a folder without it is a commit that did not finish
      replies/<folder of a stage>/  every model answer, durable before it is used (replies.py)
        segment-<uuid>.jsonl        one per writing process, appended only
      stages/train-001-<key>.json     what finished, with its inputs, result and times (stages.py)
      index/rows                    near-duplicate index: a cache, made again from the versions (augmentation/row_index.py)
      .tmp/                         files being written; cleared by the driver when it starts

Nothing above changes once it stands, except `lease`; files that grow (`events.jsonl`, segments) grow at their end.

How to open a version elsewhere: `datasets.load_dataset("<run>/versions/002-ab12cd34ef56", split="train")`, or any
Parquet reader on `part-*.parquet`. Columns are those of `versions.SCHEMA`. How to see what was asked and answered:
`replies.read_replies(Files("<run>"), "replies/...")`.
"""
