"""Networks at work on the images of a fold: batches, epochs, cross-validation, held-out maps.

Formulas and losses do not belong here: they come in as arguments.
"""
