"""The combined stress: a thousand real operations of all five subsystems in flight at once, and what each part takes.

`python -m tests.load` is its long form, `tests/load/test_load.py` its short one.
"""
