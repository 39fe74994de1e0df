"""Image-level labels in, segmentation masks out (Sydorskyi 2022) in pure PyTorch.

Modules: cam, models, masks, metrics, data, images, loading, engine, mapstore, report, cli,
steel, synthetic. Importing the
package imports none of them, so `from cam2seg import masks` needs NumPy alone.
"""

__version__ = "0.1.0"
