"""Two small seeded sets which tell methods apart: texture() and ground().

In texture() the contrast within an image fails and a classifier works; in ground() the classifier
has no reason to look at the place and contrast finds it. Lengths are in pixels, images square or
not; grey levels are fractions of white. Only NumPy, as the strips are drawn.
"""

import numpy as np

TONE = 0.45
GRAIN = 0.09
GRAIN_ALONG = 3.0
GRAIN_ACROSS = 0.7

# Radii are in fractions of the shorter side, contrasts in fractions of white.
PATCH_RADIUS = (0.2, 0.3)
CLEAN_CHANCE = 0.3
MARK_COUNT = (2, 6)
MARK_RADIUS = (0.03, 0.09)
MARK_CONTRAST = (0.25, 0.4)

GROUND_TONES = (0.6, 0.4)
BLOB_COUNT = (1, 4)
BLOB_RADIUS = (0.05, 0.1)
BLOB_CONTRAST = (0.2, 0.3)


def _grain(rng, size, angle):
    """Gaussian noise (H, W) of unit deviation, long in the direction angle (0 is along a row).

    Its spectrum at another angle is the same one turned, so that no filter which is alike in all
    directions tells two angles apart.
    """
    fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])
    along = fx * np.cos(angle) + fy * np.sin(angle)
    across = fy * np.cos(angle) - fx * np.sin(angle)
    gain = np.exp(-2 * np.pi**2 * ((GRAIN_ALONG * along) ** 2 + (GRAIN_ACROSS * across) ** 2))
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal(size)) * gain).real
    # Parseval: the mean squared gain is the variance of the filtered noise.
    return noise / np.sqrt((gain**2).mean())


def _disc(rng, size, limits):
    """Soft disc (H, W) in 0..1 which lies inside the image; its edge is about two pixels wide."""
    radius = rng.uniform(*limits) * min(size)
    row, column = (rng.uniform(radius + 1, side - radius - 1) for side in size)
    y, x = np.ogrid[: size[0], : size[1]]
    return np.clip(radius - np.hypot(y - row, x - column) + 0.5, 0, 2) / 2


def _finish(grey):
    return (255 * np.clip(grey, 0, 1)).round().astype(np.uint8)


def texture(rng: np.random.Generator,
            size: tuple[int, int] = (64, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Draw (image uint8 (H, W), masks bool (2, H, W)) whose defect is only grain of another angle.

    Steel is grained along its rows; a patch of kind 1 along its columns, one of kind 2 at 45
    degrees. Mean, deviation and skewness of isotropic filters are the same inside and outside.
    Marks far stronger than that, dark and bright, lie in clean and defective images alike.
    """
    _check(size)
    grain = _grain(rng, size, 0)
    marks = np.zeros(size)
    for _ in range(rng.integers(*MARK_COUNT)):
        contrast = rng.choice((-1, 1)) * rng.uniform(*MARK_CONTRAST)
        marks += contrast * _disc(rng, size, MARK_RADIUS)
    masks = np.zeros((2, *size), bool)
    if rng.random() >= CLEAN_CHANCE:
        kind = rng.integers(2)
        inside = _disc(rng, size, PATCH_RADIUS)
        # Weights whose squares add up to one keep the deviation through the soft edge.
        patch = _grain(rng, size, (np.pi / 2, np.pi / 4)[kind])
        grain = inside * patch + np.sqrt(1 - inside**2) * grain
        masks[kind] = inside >= 0.5
    return _finish(TONE + GRAIN * grain + marks), masks


def ground(rng: np.random.Generator,
           size: tuple[int, int] = (64, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Draw (image uint8 (H, W), masks bool (2, H, W)) whose ground alone tells the kind.

    Kind 1 are dark blobs on bright steel grained along its rows, kind 2 bright blobs on dark steel
    grained along its columns. Every image has one kind, and none is clean.
    """
    _check(size)
    kind = rng.integers(2)
    grey = GROUND_TONES[kind] + 0.5 * GRAIN * _grain(rng, size, kind * np.pi / 2)
    masks = np.zeros((2, *size), bool)
    for _ in range(rng.integers(*BLOB_COUNT)):
        blob = _disc(rng, size, BLOB_RADIUS)
        contrast = (-1, 1)[kind] * rng.uniform(*BLOB_CONTRAST)
        # Blobs that overlap do not add up.
        grey = grey + contrast * blob * ~masks[kind]
        masks[kind] |= blob >= 0.5
    return _finish(grey), masks


def _check(size):
    if min(size) < 32:
        raise ValueError(f"size {size[0]} x {size[1]} is below 32 x 32")
