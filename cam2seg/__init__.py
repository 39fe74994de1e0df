"""Image-level labels in, segmentation masks out (Sydorskyi 2022) in pure PyTorch.

    import cam2seg
    predict = cam2seg.load("runs/seg")       # or "runs/cls"
    found = predict("photo.jpg")             # found.masks: bool (C, H, W), found.classes: C names

The files of this folder hold the formulas and the networks of the paper: arrays go in, arrays come
out, and no file, flag or process is touched. They are cam, models, masks, metrics, losses and
averaging, and each can be copied alone (metrics together with masks). Everything else lives in a
folder: methods, data, runs, training, report and demo. The first lines of each folder's __init__
say what belongs there.
"""

import os

__version__ = "0.1.0"
__all__ = ["CheckpointError", "DataError", "Error", "Prediction", "Predictor", "load"]


class Error(ValueError):
    """Base of the errors that say in one line what is wrong with a file or a flag."""


def load(run: str | os.PathLike, device: str = "auto",
         checkpoint: str | None = None) -> "Predictor":  # noqa: F821
    """Predictor of a folder that train_cls.py or train_seg.py has written.

    See cam2seg.training.predictor.load for the parameters. Raises cam2seg.Error.
    """
    from .training import predictor
    return predictor.load(run, device, checkpoint)


def __getattr__(name):
    """Import the other public names on first use, so that `import cam2seg` does not load torch."""
    homes = {"DataError": "data.errors", "CheckpointError": "runs.checkpoints",
             "Predictor": "training.predictor", "Prediction": "training.predictor"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
