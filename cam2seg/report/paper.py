"""The numbers of the paper that this project follows, to stand beside one's own.

They are those of Severstal's images of steel, so that they say nothing of other images.
"""

TABLE1 = (("b0 + HFlip", (0.9938, 0.9917, 0.9886, 0.9974)),
          ("b3 + HFlip + VFlip", (0.9970, 0.9932, 0.9932, 0.9962)),
          ("b3 + HFlip", (0.9970, 0.995, 0.9921, 0.9960)))  # ROC-AUC of the defects 1 to 4

TABLE2 = (("Grad-CAM, b0", 0.382956),
          ("Grad-CAM++, b0", 0.440810),
          ("Grad-CAM++ + SWA + aug smooth, b0", 0.452208),
          ("Grad-CAM++ + SWA + aug smooth, b3, HFlip + VFlip", 0.379971),
          ("Grad-CAM++ + SWA + aug smooth, b3, HFlip", 0.386530),
          ("Grad-CAM++ + SWA + aug smooth, b0, confidence 0.5, min_seg_len 0, threshold 0.3",
           0.465))

CAM, FULL, WEAK = "Grad-CAM + improvements", "U-Net on true masks", "U-Net on Grad-CAM masks"
TABLE3 = ((CAM, 0.465), (FULL, 0.621), (WEAK, 0.418))

SOURCE = "paper (Severstal)"
READINGS = {"dice_pairs": "Dice [P-6]", "dice_present": "Dice, present", "dice_dataset":
            "Dice, data set"}
ABOUT_READINGS = (
    "Three readings of Dice stand side by side. [P-6]: the mean over all pairs of an image and a "
    "class, where two empty masks count as 1. Present: the mean over the pairs that have a true "
    "mask. Data set: one ratio of the pixels of all images for each class, then the mean over the "
    "classes. The paper does not say which reading its figures are, and on its images an empty "
    "prediction would score 0.734 by [P-6], more than any of them (DEV-9). Its figures are those "
    "of Severstal's images: beside masks of other images they only show the order of methods.")
