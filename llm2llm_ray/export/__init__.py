"""What leaves a run: a dataset version as a Hugging Face dataset folder, a student as a model folder, each with its card; the
teacher's replies as a file to repeat the run with.

An export is a copy: changing it cannot change the run. A folder is there whole or not at all. Cards say what was run and what is
not known; text that a teacher, a student or a file wrote appears in them escaped only.
"""
