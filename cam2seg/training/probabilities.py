"""The probabilities of held-out images by the classifiers of train_cls.py: as a network gives them,
and as they are read back from the folders of the folds.
"""

import argparse

import numpy as np
import torch

from ..data import csv_files
from ..data.labels import Labels
from ..runs import folder, processes
from ..runs.checkpoints import save_checkpoint
from . import epochs
from .cross_validation import Fold


def of_held_out(trained: Fold, name: str) -> np.ndarray:
    """Probabilities (n, C) of the held-out images by the weights that are now in the model.

    The weights are saved as `name`.pt.
    """
    settings = trained.settings
    save_checkpoint(trained.out / f"{name}.pt", trained.model,
                    {**settings.meta, "best": trained.best})
    predicted = epochs.predict(trained.model, trained.val, settings.prepare, settings.amp,
                               f"{settings.title}held-out images, {name}", settings.report)
    return torch.cat(processes.gather_in_turn([y.sigmoid().cpu() for y, _ in predicted])).numpy()


def finished(args: argparse.Namespace, name: str, labels: Labels) -> tuple[Labels, np.ndarray]:
    """Labels and probabilities (n, C) of the images whose fold is finished, from its `name`.csv.

    args: the flags of train_cls.py. Raises DataError where such a file is damaged.
    """
    probs = csv_files.read_all_probs(folder.fold_files(args.out, f"{name}.csv").values(),
                                     labels.classes)
    kept = labels.keep(np.array([n in probs for n in labels.names]))
    return kept, np.array([probs[n] for n in kept.names])
