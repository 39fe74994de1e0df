"""The life of a run: its flags, its folder, lock, checkpoints, signals, processes and exit status.

Formulas do not belong here, nor does anything that decides how a network is trained.
"""
