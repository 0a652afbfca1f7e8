"""Experiments, one file each. The header says the command, the expected time and result.

`get_config(argument)` returns the settings of `tlc ... --config=configs/FILE.py:ARGUMENT`. Settings
that several files share are in common.py.
"""
