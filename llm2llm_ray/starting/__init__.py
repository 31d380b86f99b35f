"""`llm2llm init`: from one file of labelled rows to a config and its seed, dev and test files.

`table.py` reads the file whatever it is separated by and encoded in, `columns.py` says which column is what and why,
`cleaning.py` which rows are left out, `splitting.py` which are dev and test, `config_text.py` writes the YAML, `project.py` goes
through all of it.
"""
