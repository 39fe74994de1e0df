"""Ways to masks other than the paper's, and what only they need, one flat file each: arrays in, arrays
out.

The paper's own formulas do not belong here: they are the files of the folder above.
"""
