"""Image-level labels in, segmentation masks out (Sydorskyi 2022) in pure PyTorch.

Formulas: cam, models, masks, metrics. Files: tables, data, images, report, mapstore, rundir.
Training: loading, engine, checkpoints, restore, mapping, process, progress. Scripts: cli. Demo:
synthetic, steel. Importing the package imports none of them, so `from cam2seg import masks` needs
NumPy alone.
"""

__version__ = "0.1.0"
