"""Files turned into arrays and arrays into files: label and mask CSVs, folds, images, stored maps.

What runs a network, and what knows that a run can be stopped and resumed, does not belong here.
"""
