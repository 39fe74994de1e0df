"""Ways to masks other than the paper's, and what only they need: flat files, arrays in and out.

The paper's own formulas do not belong here: they are the files of the folder above.
"""
