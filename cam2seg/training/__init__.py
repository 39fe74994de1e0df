"""Networks at work on the images of a fold: batches, epochs, cross-validation, held-out maps; and
what the scripts read and check before that, and score after it.

Formulas and losses do not belong here: they come in as arguments.
"""
