"""Small wrong edits, one at a time in a copy of the project; each must turn a test red.

    make mutants
    python tests/mutants.py --only fold --jobs 1    # those with "fold" in what they say

Prints every edit with the test that caught it; exits 1 if one survives. Every test that caught one
is then run without any edit, because a test that fails anyway catches nothing.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy  # noqa: F401
import pytest
import torch
import torchvision  # noqa: F401

ROOT = Path(__file__).parent.parent
CAM, MODELS, MASKS, METRICS, AVERAGING = (
    f"cam2seg/{name}.py" for name in ("cam", "models", "masks", "metrics", "averaging"))
LABELS, FOLDS, IMAGES, DATASET, FILES = (
    f"cam2seg/data/{name}.py" for name in ("labels", "folds", "images", "dataset", "files"))
BATCHES, EPOCHS, FIT, CROSS, MAPS, MAP_MASKS, PREDICTOR = (
    f"cam2seg/training/{name}.py" for name in ("batches", "epochs", "fit", "cross_validation",
                                               "held_out_maps", "map_masks", "predictor"))
CHECKPOINTS, PROGRESS, RESTORE, RUN_FOLDER, STREAMS = (
    f"cam2seg/runs/{name}.py" for name in ("checkpoints", "progress", "restore", "folder",
                                           "streams"))
CLASSES, STORED = "cam2seg/data/classes.py", "cam2seg/data/stored_maps.py"
ENDINGS, EXITS, INPUTS, LOCKS = (
    f"cam2seg/runs/{name}.py" for name in ("endings", "exits", "inputs", "locks"))
CONTRAST, TEXTURE, LABEL_ONLY = (
    "cam2seg/methods/contrast.py", "cam2seg/methods/texture.py", "cam2seg/training/label_only.py")
AUTO, CHOICE = "cam2seg/methods/auto.py", "cam2seg/methods/label_choice.py"
WAYS, WORK, SEG_WORK = (
    f"cam2seg/training/{name}.py" for name in ("ways", "work", "segmentation_work"))
COPIES, RELABEL, REFLECTION = (
    "cam2seg/data/copies.py", "cam2seg/methods/relabel.py", "cam2seg/methods/reflection.py")
DEPTH, DEPTH_FILES, DEPTH_MASKS, INITIAL, ROOMS = (
    "cam2seg/methods/depth.py", "cam2seg/data/depth_files.py", "cam2seg/training/depth_masks.py",
    "cam2seg/training/initial.py", "cam2seg/demo/rooms.py")
PROCESSING, KEPT = "cam2seg/training/mask_processing.py", "cam2seg/training/kept_maps.py"
HULLS, FINISHED, CLOUDS = ("cam2seg/methods/hulls.py", "cam2seg/training/finished_masks.py",
                           "cam2seg/demo/clouds.py")
WARPS, OPTIMIZERS = "cam2seg/data/warps.py", "cam2seg/training/optimizers.py"
VIDEO, VIDEO_MASKS, BOUNDARIES = (
    "cam2seg/methods/video.py", "cam2seg/training/video_masks.py", "cam2seg/methods/boundaries.py")

COCO, POLYGONS, DRAWN, PNGS, MASK_FOLDERS, EXPORTS = (
    f"cam2seg/data/{name}.py" for name in ("coco", "polygons", "drawn", "mask_pngs", "mask_folders",
                                           "exports"))
SEGNET, SEGMENTERS, LOSSES = (
    "cam2seg/segnet.py", "cam2seg/training/segmenters.py", "cam2seg/losses.py")

CHARTS, CURVES, PAGE, PANELS, RUN_CHARTS, RUN_FILES, STYLE, RUN_TABLES = (
    f"cam2seg/report/{name}.py" for name in ("charts", "curves", "page", "panels", "run_charts",
                                             "run_files", "style", "tables_of_runs"))

MUTANTS = [  # what is wrong, file, the line's text, its replacement
    ("optimizers: Adam under the name of RAdam", OPTIMIZERS, '"radam": torch.optim.RAdam',
     '"radam": torch.optim.Adam'),
    ("optimizers: RAdam under the name of Adam", OPTIMIZERS, '"adam": torch.optim.Adam',
     '"adam": torch.optim.RAdam'),
    ("optimizers: one rate for all parts", OPTIMIZERS, '"lr": rate}', '"lr": parts[0][1]}'),
    ("optimizers: moments of RAdam of another form let pass", CHECKPOINTS,
     "(torch.optim.Adam, torch.optim.RAdam)", "torch.optim.Adam"),
    ("warps: turned the other way", WARPS, "u * np.sin(a) + v * np.cos(a)",
     "v * np.cos(a) - u * np.sin(a)"),
    ("warps: turned about the corner of the middle", WARPS, "v = (rows - (H - 1) / 2 -",
     "v = (rows - H / 2 -"),
    ("warps: shifts of H and W mixed up", WARPS, "shift[1] * W) / scale", "shift[1] * H) / scale"),
    ("warps: shift after the scale", WARPS, "shift[0] * H) / scale", "shift[0] * H * scale) / scale"),
    ("warps: scale the other way", WARPS, "shift[1] * W) / scale", "shift[1] * W) * scale"),
    ("warps: stretched cells that do not end at the border", WARPS, " / np.sum(s)", " / len(s)"),
    ("warps: stretched cells of rows and columns mixed up", WARPS, "size, (tall, wide)",
     "size, (wide, tall)"),
    ("warps: cells from edge to edge", WARPS, "np.linspace(0, L - 1, len(s) + 1)",
     "np.linspace(0, L, len(s) + 1)"),
    ("warps: the outermost pixel twice in the mirror", WARPS, "period = 2 * max(length - 1, 1)",
     "period = 2 * length"),
    ("warps: repeated in place of mirrored", WARPS, "np.minimum(at, period - at)", "at"),
    ("warps: weights of the two columns mixed up", WARPS,
     "((1 - right) * image[r, j] + right *", "(right * image[r, j] + (1 - right) *"),
    ("warps: colours cut off in place of rounded", WARPS, "np.rint(out)", "np.floor(out)"),
    ("warps: masks by the pixel above and left", WARPS, "L) + 0.5)", "L))"),
    ("warps: always drawn", WARPS, "rng.random() < 0.5:", "rng.random() < 1:"),
    ("warps: shift drawn to one side alone", WARPS, "= (2 * u - 1 for u in ssr)",
     "= (u for u in ssr)"),
    ("warps: masks not warped with the image", DATASET,
     "warps.nearest(target, found) if has_masks", "target if has_masks"),
    ("warps: another warp in every run", DATASET, "warps.draw(rng, ",
     "warps.draw(np.random.default_rng(), "),
    ("report: a place on a logarithmic axis without the logarithm", CHARTS,
     "np.log10(np.maximum(values, low))", "np.maximum(values, low)"),
    ("report: y axes upside down", CHARTS, "place(y, line.points[:, 1], BOTTOM, TOP)",
     "place(y, line.points[:, 1], TOP, BOTTOM)"),
    ("report: one tick too many", CHARTS, "math.ceil(axis.low / s - 1e-9) < most",
     "math.ceil(axis.low / s - 1e-9) <= most"),
    ("report: a turn back is thinned away", CHARTS, "turns | back", "turns"),
    ("report: bars of equal width", CHARTS, 'width=f"{b - a:.1f}"', 'width=f"{at[1] - at[0]:.1f}"'),
    ("report: no dark edge below a light line", CHARTS, "[] if line.colour in (INK, MUTED) else",
     "[] if line.colour else"),
    ("report: classes in the colours of their neighbours", CHARTS, "COLOURS[c % len(COLOURS)])",
     "COLOURS[(c + 1) % len(COLOURS)])"),
    ("report: ties of a ROC curve one by one", CURVES, "np.diff(p[order]) != 0",
     "np.diff(p[order]) != 2"),
    ("report: axes of a ROC curve swapped", CURVES, "np.stack([false, true], axis=1)",
     "np.stack([true, false], axis=1)"),
    ("report: a ROC curve from the lowest score", CURVES, "np.argsort(-p, kind",
     "np.argsort(p, kind"),
    ("report: areas as parts, not in %", CURVES, "100 * areas[made] / pixels[made]",
     "areas[made] / pixels[made]"),
    ("report: small areas left out", CURVES, "part.clip(AREA_EDGES[0], AREA_EDGES[-1])", "part"),
    ("report: thresholds gated by probabilities", CURVES, "_score(counts, t, counts.gate,",
     "_score(counts, t, counts.probs,"),
    ("report: confidences by the first threshold", CURVES,
     "np.abs(np.array(THRESHOLDS) - threshold).argmin()", "np.array(THRESHOLDS).argmin()"),
    ("report: text not escaped", PAGE, "Html(escape(said, quote=True))", "Html(said)"),
    ("report: quotes in attributes not escaped", PAGE, "escape(said, quote=True)",
     "escape(said, quote=False)"),
    ("report: direction marks left in", PAGE, "c if c.isprintable() else repr(c)[1:-1]", "c"),
    ("report: pictures from elsewhere allowed", PAGE, "default-src 'none'; img",
     "default-src *; img"),
    ("report: muted text too light", STYLE, '"#52606d"', '"#8a97a5"'),
    ("report: the worst image called the best", PANELS, '(0, "best"), (last, "worst")',
     '(last, "best"), (0, "worst")'),
    ("report: images ranked from the worst", PANELS, "np.argsort(-dice", "np.argsort(dice"),
    ("report: images without a label among the surest", PANELS, "if doubt[i, c] >= 0]", "]"),
    ("report: least sure images from the surer end", PANELS, "order[2:][::-1][:2]",
     "order[2:][:2]"),
    ("report: the mask of another class drawn", PANELS, "content.sets[title].get((name, c), \"\")",
     "content.sets[title].get((name, 0), \"\")"),
    ("report: training loss for the held-out one", RUN_CHARTS, "rows[:, ::2]", "rows[:, :2]"),
    ("report: ROC curves of other images' labels", RUN_CHARTS, "labels[1][rows]",
     "labels[1][:len(rows)]"),
    ("report: labels do not gate the sweep", RUN_CHARTS, 'run.flag("gate") == "labels"',
     'run.flag("gate") == "label"'),
    ("report: images without a true mask in the sweep", RUN_CHARTS,
     "if any(content.truth.get((n, c)) for c in range(C))]", "]"),
    ("report: the ratio upside down", RUN_TABLES, "present / full if full",
     "full / present if full"),
    ("report: a U-Net on any masks counts as one on true masks", RUN_TABLES,
     "if truth and run.sha256.get(paths[0]) == truth:", "if truth:"),
    ("report: the first class for the mean", RUN_TABLES,
     '*(dice[s][1] for s in (*paper.READINGS, "iou"))',
     '*(dice[s][0][0] for s in (*paper.READINGS, "iou"))'),
    ("report: the score of all empty masks for ours", RUN_TABLES,
     '*(result["scores"][s][1] for s in columns)', '*(result["all_empty"][s][1] for s in columns)'),
    ("report: one choice for all folds claimed", RUN_TABLES,
     "if any(v != values[0] for v in values):", "if not values:"),
    ("report: areas of a table as parts", RUN_TABLES, '100 * f["area_quantiles"][n]',
     'f["area_quantiles"][n]'),
    ("report: no changed file is named", RUN_FILES, "not in (None, then)", "in ()"),
    ("report: runs behind a U-Net not read", RUN_FILES, '[*mask_paths(run), run.flag("folds")]',
     '[run.flag("folds")]'),
    ("segnet: the last row of an odd side lost", SEGNET, "ceil_mode=True, ", ""),
    ("segnet: places without the size", SEGNET, ", output_size=size)", ")"),
    ("segnet: poolings undone in the wrong order", SEGNET, "*pooled.pop()", "*pooled.pop(0)"),
    ("segnet: a decoder that does not mirror", SEGNET,
     "layer.out_channels, layer.in_channels)", "layer.out_channels, layer.out_channels)"),
    ("segnet: Xavier in the place of He", SEGNET,
     'nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")',
     "nn.init.xavier_normal_(conv.weight)"),
    ("segnet: ReLU forgotten", SEGNET, "nn.BatchNorm2d(out_ch), nn.ReLU(inplace=True)]",
     "nn.BatchNorm2d(out_ch)]"),
    ("segnet: VGG16 without BatchNorm", MODELS, 'vgg.cfgs["D"], batch_norm=True', 'vgg.cfgs["D"]'),
    ("segnet: VGG19 in the place of VGG16", MODELS, 'vgg.cfgs["D"]', 'vgg.cfgs["E"]'),
    ("segnet: random encoder not after He", MODELS,
     'nn.init.kaiming_normal_(m.weight, nonlinearity="relu")', "pass"),
    ("segnet: a download that is not checked", MODELS, "check_hash=True", "check_hash=False"),
    ("multiclass: no background channel", SEGMENTERS, 'num_classes += target == "multiclass"',
     "pass"),
    ("multiclass: the class a channel too low", LOSSES, "argmax(dim=1) + 1, 0)",
     "argmax(dim=1), 0)"),
    ("multiclass: pixels in two masks trained on", LOSSES, "inside.sum(dim=1) > 1",
     "inside.sum(dim=1) > 9"),
    ("multiclass: pixels to leave out trained on", LOSSES, "(target == 255).any(dim=1) |",
     "(target == 254).any(dim=1) |"),
    ("multiclass: mean over all pixels", LOSSES, "(label >= 0).sum().clamp(min=1)",
     "label.numel()"),
    ("multiclass: softmax over the images", MODELS, "softmax(dim=1)[:, 1:]",
     "softmax(dim=0)[:, 1:]"),
    ("multiclass: the background among the classes", MODELS, "softmax(dim=1)[:, 1:]",
     "softmax(dim=1)[:, :-1]"),
    ("multiclass: background never wins", MASKS, "[1 - probs.sum(axis=0, keepdims=True), probs]",
     "[0 * probs[:1], probs]"),
    ("multiclass: pixels in two true masks scored", METRICS, "truth.sum(axis=0) < 2",
     "truth.sum(axis=0) < 9"),
    ("multiclass: IoU without the predicted pixels", METRICS,
     "n.sum(axis=0) + n.sum(axis=1) - n.diagonal()", "n.sum(axis=1)"),
    ("multiclass: accuracy over the first row", METRICS, "n.trace() / n.sum())",
     "n.trace() / n[0].sum())"),
    ("segnet: weights not handed on", SEGMENTERS, "SegNet(encoder(arch, weights)",
     "SegNet(encoder(arch)"),
    ("hull: corners that turn the other way kept", HULLS, "p) <= 0:", "p) >= 0:"),
    ("hull: rounded down and not up", HULLS, "return y0 - (y0 - y1) * (at - x0)",
     "return y0 + (y1 - y0) * (at - x0)"),
    ("hull: without its right outline", HULLS, "(columns <= last", "(columns < last"),
    ("hull: the smallest component on top", HULLS, "in area.argsort(", "in (-area).argsort("),
    ("hull: the size is that of the hull", HULLS, "= area[k]",
     "= convex_hull(number[box] == k).sum()"),
    ("hull: a component of the least size left out", HULLS, ">= max(least, 1)", "> max(least, 1)"),
    ("least sizes: those of all images for each fold", FINISHED,
     'by_fold[k].append(found["threshold"])', "by_fold[k].append(on_all[-1])"),
    ("least sizes: searched without hulls", FINISHED, "hulls.sizes(mask(c, t), hull)",
     "hulls.sizes(mask(c, t))"),
    ("least sizes: one fold's for all", FINISHED, "chosen[folds[name]]", "chosen[min(chosen)]"),
    ("joint search: one threshold for all sizes", FINISHED,
     "for t in thresholds])  # (T, H, W)", "for t in thresholds[:1] * len(thresholds)])"),
    ("joint search: pairs in another order than their counts", FINISHED,
     "list(itertools.product(thresholds, least))",
     "[(t, n) for n in least for t in thresholds]"),
    ("joint search: the truth of another class", FINISHED, "true[c].sum()))", "true[0].sum()))"),
    ("joint search: probabilities of another class", FINISHED, "masks.binarize(p[c], t)",
     "masks.binarize(p[0], t)"),
    ("joint search: masks without the least size", FINISHED, "hulls.clean(mask(c, t), n, hull)",
     "hulls.clean(mask(c, t), 0, hull)"),
    ("joint search: a threshold for the step without components alone", PROCESSING,
     'Step("components", t, n, False)', 'Step("components", None, n, False)'),
    ("output size: pixel centres in place of areas", PROCESSING, "size, 0.5)", "size, None)"),
    ("output size: true masks as they were", PROCESSING,
     "truth=work.truth._replace(rles=resized(\"truth\", work.truth.rles))", "truth=work.truth"),
    ("kept maps: columns of classes mixed up", KEPT, "maps[row][list(column.values())]",
     "maps[row][sorted(column.values())]"),
    ("kept maps: the gate forgotten", KEPT, "* np.reshape(kept, (-1, 1, 1))", ""),
    ("kept maps: the row of another image", KEPT, "[self.row[name]]", "[0]"),
    ("kept maps: nearest cells", KEPT, 'mode="bilinear")', 'mode="nearest")'),
    ("kept maps: new images by the maps of the folds", KEPT, "if masks.name == NEW[1]:",
     'if masks.name == "":'),
    ("submission: rows sorted", "cam2seg/data/samples.py",
     "for _, image, name in order)",
     "for _, image, name in sorted(order, key=lambda row: row[1:]))"),
    ("class sets: lift of counts", METRICS, "n * N / (count[A]", "n / (count[A]"),
    ("class sets: confidence of the other side", METRICS, "n / count[A], n", "n / count[B], n"),
    ("clouds: masks under the wedge", CLOUDS, "masks & ~hidden", "masks"),
    ("video: b of Lab from X", VIDEO, "2 * (Y - Z)", "2 * (X - Z)"),
    ("video: the values of sRGB taken as light", VIDEO, "((u + 0.055) / 1.055) ** 2.4)",
     "u)"),
    ("video: the window a cell too wide", VIDEO, ".abs() <= radius", ".abs() <= radius + 1"),
    ("video: cells outside the frame copied", VIDEO, "    reach = reach & _window",
     "    reach = (reach | True) & _window"),
    ("video: temperature forgotten", VIDEO, "A = (s / temperature)", "A = (s)"),
    ("video: the most alike of each reference alone", VIDEO,
     "torch.cat(known, dim=4), top)", "torch.cat(known, dim=4), None)"),
    ("video: the channel seen", VIDEO, "seen[:, channel] = 0", "pass"),
    ("video: colour of the query copied", VIDEO, "[J], TRAIN_RADIUS), I,",
     "[I], TRAIN_RADIUS), I,"),
    ("video: loss without a line", VIDEO, "beta=HUBER", "beta=10.0"),
    ("video: first frame forgotten", VIDEO, "zip(start, *recent)",
     "zip(*(recent or [start]))"),
    ("video: only masks left out", VIDEO, "(DOUBT[0] < p)", "(0.5 < p)"),
    ("video: features of any length", VIDEO, "return F.normalize(net(frames), dim=1)",
     "return net(frames)"),
    ("video: names as plain text", VIDEO_MASKS, "int(part) if part.isdecimal() else part",
     "part"),
    ("video: a step drawn from no seed", VIDEO_MASKS, "np.random.default_rng((0, done))",
     "np.random.default_rng()"),
    ("video: crops of two places", VIDEO_MASKS, "    return [torch.nn.functional.pad(frame[:, y:",
     "    return [torch.nn.functional.pad(frame[:, int(rng.integers(9)) + y:"),
    ("J over the true mask", BOUNDARIES, "union = int((truth | pred).sum())",
     "union = int(truth.sum())"),
    ("F of a square window", BOUNDARIES, "if y * y + x * x <= radius * radius:", "if True:"),
    ("outline of two neighbours", BOUNDARIES,
     "    out[:-1, :-1] |= m[:-1, :-1] ^ m[1:, 1:]\n", ""),
    ("precision for recall", BOUNDARIES, "R = (t & _within(p, radius)).sum() / t.sum()", "R = P"),
    ("first frame scored", BOUNDARIES, "for t in range(1, len(truth))",
     "for t in range(len(truth))"),
    ("principal point forgotten", DEPTH, "np.arange(size[1]) - camera.cx", "np.arange(size[1])"),
    ("focal lengths exchanged", DEPTH, "b * camera.fx, c * camera.fy",
     "b * camera.fy, c * camera.fx"),
    ("plane fitted to depth", DEPTH, "q = 1 / np.where(known, depth, np.inf)",
     "q = np.where(known, depth, 0.0)"),
    ("pixels without depth fitted", DEPTH, "ones = known.astype(np.float64)",
     "ones = np.ones(depth.shape)"),
    ("plane of the middle for that of the camera", DEPTH, "a - b * (cols - camera.cx) -", "a -"),
    ("normals not of length 1", DEPTH, "return n / np.linalg.norm(n, axis=-1, keepdims=True)",
     "return n"),
    ("ramps taken for floors", DEPTH, "(15.0, 5))", "(45.0, 5))"),
    ("floors alone give gravity", DEPTH, "walls.T @ walls - floors",
     "0 * walls.T @ walls - floors"),
    ("walls alone give gravity", DEPTH, "- floors.T @ floors", "- 0 * floors.T @ floors"),
    ("gravity of any sign", DEPTH, "(1 if vectors[:, 0] @ g >= 0 else -1)", "-1"),
    ("a bare wall turns gravity", DEPTH, "> TIE * (len", "> -TIE * (len"),
    ("angle in radians", DEPTH, "np.degrees(np.arccos(", "(np.arccos("),
    ("height below the ceiling", DEPTH, "100 - percent) - along", "percent) - along"),
    ("bins of angles miscounted", DEPTH, "(len(bins.angles) + 1) + np", "len(bins.angles) + np"),
    ("an edge in the bin below", DEPTH, "np.digitize(h, bins.heights)",
     "np.digitize(h, bins.heights, right=True)"),
    ("windows exchanged", DEPTH, "N, wide = (", "wide, N = ("),
    ("ignored pixels lost", DEPTH_MASKS, "            if left_out:", "            if False:"),
    ("copies in another fold", DEPTH_MASKS, "fold[(groups == groups[i]) & (fold < 0)] = known[i]",
     "pass"),
    ("whole numbers taken for metres", DEPTH_FILES, 'values / (units if values.dtype.kind in "iu"',
     'values / (units if values.dtype.kind in "x"'),
    ("no depth taken for depth", DEPTH_FILES, "return np.where(depth > 0, depth, np.nan)",
     "return depth"),
    ("encoder that has seen the held-out images", INITIAL,
     "fit = [j for j in order if seen[j] is None]", "fit = order"),
    ("start from the first fold", INITIAL, "(j != k, j)", "j"),
    ("start from random weights", INITIAL, "return network.encoder",
     "return models.UNet(arch, 1).encoder"),
    ("normals of things turned round", ROOMS, "normal[seen] = -thing", "normal[seen] = thing"),
    ("what is behind is seen", ROOMS, "(near < far) & (near > 0) & (near < depth)",
     "(near < far) & (near > 0)"),
    ("mirrored copies unseen", COPIES, "return turns + [view[:, :, ::-1] for view in turns]",
     "return turns"),
    ("limit by the stronger contrast", COPIES, "np.minimum(spread", "np.maximum(spread"),
    ("group shared out", FOLDS, "np.arange(len(y)) if groups is None", "np.arange(len(y)) if True"),
    ("groups weigh alike", FOLDS, "lacks_images[k] -= folds * size[i]",
     "lacks_images[k] -= folds"),
    ("overlap from the run's end", MASKS, 'b[:, 0], x, side="right")',
     'b[:, 0], x, side="left") + 1'),
    ("entropy in nats", RELABEL, "-q * np.log2(", "-q * np.log("),
    ("limit of one side", RELABEL, "np.where(defect, limit[1], limit[0])",
     "np.where(defect, limit[1], limit[1])"),
    ("floor of the entropy forgotten", RELABEL, "max(float(np.median(entropy(q))), LEAST_ENTROPY)",
     "float(np.median(entropy(q)))"),
    ("threshold lowered", REFLECTION, "np.geomspace(1, 4, 33)", "np.geomspace(0.5, 4, 33)"),
    ("all ground above the threshold", REFLECTION, "2 * mirrored <= reached",
     "mirrored <= reached"),
    ("correction of the wrong sign", LABEL_ONLY, "for s in (sign, -sign)",
     "for s in (-sign, sign)"),
    ("sum for mean in alpha", CAM, "alpha = G.mean(dim=(2, 3)", "alpha = G.sum(dim=(2, 3)"),
    ("no ReLU of the map", CAM, "return F.relu((alpha * A).sum(dim=1))",
     "return (alpha * A).sum(dim=1)"),
    ("ReLU of each channel", CAM, "return F.relu((alpha * A).sum(dim=1))",
     "return F.relu(alpha * A).sum(dim=1)"),
    ("denominator dropped", CAM, "denominator = 2 + S * G", "denominator = torch.ones_like(G)"),
    ("epsilon in the denominator", CAM, "denominator = 2 + S * G",
     "denominator = 2 + S * G + 1e-6"),
    ("sum of A times G", CAM, "denominator = 2 + S * G",
     "denominator = 2 + (A * G).sum(dim=(2, 3), keepdim=True)"),
    ("mean of A", CAM, "S = A.sum(dim=(2, 3)", "S = A.mean(dim=(2, 3)"),
    ("no ReLU of G", CAM, "(alpha * F.relu(G))", "(alpha * G)"),
    ("score after the sigmoid", CAM, "torch.autograd.grad(logits,",
     "torch.autograd.grad(logits.sigmoid(),"),
    ("activation not copied", CAM, "return captured[-1].clone()", "return captured[-1]"),
    ("hooks left behind", CAM, "handle.remove()", "pass"),
    ("mode left behind", CAM, "module.training = mode", "pass"),
    ("guided gate dropped", CAM, "F.relu(R) * gate", "F.relu(R)"),
    ("guided ReLU dropped", CAM, "F.relu(R) * gate", "R * gate"),
    ("mirror not undone", CAM, "maps_of(scaled(mirror, f)).flip(-1)", "maps_of(scaled(mirror, f))"),
    ("raw image not normalised again", CAM, "f * (view + shift) - shift", "f * (view + shift)"),
    ("alphas of the authors unscaled", CAM, "    if normalized:", "    if False:"),
    ("factor forgotten", CAM, "SMOOTH_FACTORS = (1.0, 1.1, 0.9)",
     "SMOOTH_FACTORS = (1.0, 1.1, 1.0)"),
    ("minimum kept", CAM, "(maps - low) / torch", "maps / torch"),
    ("corners aligned", CAM, "align_corners=False", "align_corners=True"),
    ("max pooling in the head", MODELS, ".mean(dim=(2, 3)))", ".amax(dim=(2, 3)))"),
    ("skip of the wrong stage", MODELS, "(1, 2, 3, 5), 7", "(1, 2, 3, 4), 7"),
    ("SiLU left in lite0", MODELS, "isinstance(child, nn.SiLU)", "isinstance(child, nn.ReLU)"),
    ("eps of lite0", MODELS, "eps=1e-3", "eps=1e-5"),
    ("input of lite0", MODELS, "127 / 255", "128 / 255"),
    ("order of lite0's tensors unchecked", MODELS, "if [k.rpartition(\".\")[2] for k in theirs] !=",
     "if False and [k.rpartition(\".\")[2] for k in theirs] !="),
    ("mean of logits", MODELS, "probabilities(member(x).float(), self.exclusive)",
     "member(x).float()"),
    ("last epochs for best", FIT, 'key=lambda b: (b["val_loss"], b["epoch"])',
     'key=lambda b: -b["epoch"]'),
    ("plateau one epoch late", FIT, "patience=3", "patience=4"),
    ("epoch not seeded", FIT,
     "seed_torch(*seed, *([] if processes.is_first() else [processes.rank()]))", "pass"),
    ("fold not seeded", CROSS, "seed_torch(plan.seed, k)", "seed_torch(plan.seed)"),
    ("loss of the first output alone", EPOCHS, "settings.loss(as_float32(outputs),",
     "settings.loss(as_float32(outputs[0] if isinstance(outputs, tuple) else outputs),"),
    ("BatchNorm pass in eval mode", AVERAGING, "        model.train()\n        for x in",
     "        model.eval()\n        for x in"),
    ("batches weigh alike", AVERAGING, "m.momentum = len(x) / n", "m.momentum = 0.1"),
    ("running statistics kept", AVERAGING, "m.reset_running_stats()", "pass"),
    ("states summed", AVERAGING, "for s in states]).mean(dim=0)", "for s in states]).sum(dim=0)"),
    ("pickles run", CHECKPOINTS, 'map_location="cpu", weights_only=True',
     'map_location="cpu", weights_only=False'),
    ("checkpoint half written", FILES, 'tmp = Path(f"{path}.tmp")', "tmp = Path(path)"),
    ("order the same in each epoch", BATCHES, "(self.seed, self.epoch)", "self.seed"),
    ("not centred", BATCHES, "x.sub_(mean).div_(std)", "x.div_(std)"),
    ("rows for columns", MASKS, "np.sort(column * H + row + 1)", "np.sort(row * W + column + 1)"),
    ("run starts off by one", MASKS, "np.sort(column * H + row + 1)", "np.sort(column * H + row)"),
    ("a column's first pixel beside its neighbour", MASKS, "mask[-1:, :-1], out",
     "mask[:1, :-1], out"),
    ("numbers that overflow", MASKS, "values.max() >= 10**18", "values.max() >= 10**19"),
    ("decoded by rows", MASKS, "reshape(W, H).T", "reshape(H, W)"),
    ("above, not at, the threshold", MASKS, ">= float(threshold)", "> float(threshold)"),
    ("area above, not at, the bound", MASKS, "mask.sum() >= min_seg_len",
     "mask.sum() > min_seg_len"),
    ("empties are 0", METRICS, "np.where(both_empty, empty, out)", "out"),
    ("no 2 in Dice", METRICS, "_ratio(2 * inter", "_ratio(inter"),
    ("mean of class means for present", METRICS, '(shown, _mean(pairs[present]))',
     '(shown, _mean(np.array([v for v in shown if v is not None])))'),
    ("ties ranked from the top", METRICS, "np.cumsum(size) - (size - 1) / 2", "np.cumsum(size)"),
    ("below for above", METRICS, "values >= t", "values > t"),
    ("confidence ignored", METRICS, "(probs >= confidence) & (pred", "(pred"),
    ("chosen on its own fold", METRICS, "rest = folds != k", "rest = folds == k"),
    ("folds from the file's order", FOLDS, "np.random.default_rng(seed).permutation(len(y))",
     "np.arange(len(y))"),
    ("not stratified", FOLDS, "need = lacks_images if c is None else lacks_class[:, c]",
     "need = lacks_images"),
    ("doubled rows taken", LABELS, "        if key in rows:", "        if False:"),
    ("unlisted images dropped", LABELS, "if with_masks and images and not complete", "if False"),
    ("flip of the image alone", DATASET, "np.flip(target, axis + 1) if has_masks else target",
     "target"),
    ("low byte of 16 bits", IMAGES, ".astype(np.int64) >> 8", ".astype(np.int64) & 255"),
    ("flips forget the epoch", DATASET, "(self.seed, epoch, index)", "(self.seed, index)"),
    ("model of another fold", MAPS, "else [classifiers.nets[k]]",
     "else [classifiers.nets[max(classifiers.nets) - k]]"),
    ("trained on the held-out fold", CROSS, "for part in (plan.fold != k, plan.fold == k)",
     "for part in (plan.fold == k, plan.fold == k)"),
    ("no BatchNorm pass", "train_cls.py", 'if args.swa_bn == "update"', "if False"),
    ("masks below the threshold", "train_seg.py", "masks.binarize(heat,",
     "masks.binarize(1 - heat,"),
    ("an area at the bound kept by --strict-len", "make_masks.py",
     "args.min_seg_len + args.strict_len", "args.min_seg_len"),
    ("std over mean", MAPS, 'for k in ("mean", "std"))',
     'for k in ("std", "mean"))'),
    ("labels leak through the gate", "make_masks.py", 'if args.gate == "labels" else probs',
     'if labels is not None else probs'),
    ("arithmetic mean of the views", AUTO, "maps.prod(dim=0) ** (1 / len(maps))", "maps.mean(dim=0)"),
    ("product without the map", AUTO, "skew(A[c] * v)", "skew(v)"),
    ("clean images are no negatives of auto", AUTO, "if clean.sum() >= ENOUGH else ~labels",
     "if False else ~labels"),
    ("all negatives of auto", AUTO, "return found & first", "return found"),
    ("no standard error", AUTO, "- np.sqrt((n + m + 1) / (12 * n * m))", "- 0"),
    ("all that the classifier tells is needed", AUTO, '"contrast": 0.4', '"contrast": 1.0'),
    ("contrast must know half", AUTO, '"contrast": 0.4', '"contrast": 0.5'),
    ("agreement over all images", "cam2seg/report/mask_report.py", "ours + theirs > 0",
     "ours + theirs >= 0"),
    ("the network needs half", AUTO, '"network": 0.75', '"network": 0.5'),
    ("product before network", AUTO, "for m, told in tells.items() if",
     "for m, told in sorted(tells.items(), key=lambda t: t[0] == 'network') if"),
    ("Otsu for a product", AUTO, "PEAK * u.max() if choice == \"product\" else otsu(u)", "otsu(u)"),
    ("doubt above the threshold of auto", AUTO, "(u > DOUBT * t) & (u <= t)", "u > DOUBT * t"),
    ("mean of thresholds", CHOICE, "np.median(otsu)", "np.mean(otsu)"),
    ("alarms forgotten", CHOICE, "(hits - alarms).mean()", "hits.mean()"),
    ("empty masks pass the area", CHOICE, "(areas >= least) & (areas > 0)", "areas >= least"),
    ("sign of the skewness flipped", CONTRAST, "mean > 0 and auc > 0.5", "mean < 0 and auc > 0.5"),
    ("clean images are no negatives", CONTRAST, "Q = Q if Q.sum() >= ENOUGH else ~labels[:, c]",
     "Q = ~labels[:, c]"),
    ("images with several labels are positives", CONTRAST, "P, Q = labels[:, c] & one, clean",
     "P, Q = labels[:, c], clean"),
    ("a filter for a class that none tells", CONTRAST, "np.where(found, best // 2, -1)",
     "best // 2"),
    ("labels ignored in the names of regions", TEXTURE, "for c in np.flatnonzero(y):\n        L =",
     "for c in range(len(mu)):\n        L ="),
    ("power 1 in the names of regions", TEXTURE, "log.max(axis=0)) / len(TEXTURE))",
     "log.max(axis=0)))"),
    ("determinant dropped", TEXTURE, " - L.diagonal().log().sum()", ""),
    ("median unweighted", CONTRAST, "q.flatten()[order].cumsum(dim=0)",
     "torch.ones_like(q).flatten().cumsum(dim=0)"),
    ("ground of all regions", CONTRAST, "blur(w * x, l) / blur(w, l)", "blur(x, l)"),
    ("threshold of the image alone", CONTRAST, "np.sqrt(o * np.median(class_o))", "np.sqrt(o * o)"),
    ("highest component dropped", CONTRAST, "min(SEED, peak[1:].max())", "SEED"),
    ("doubt laid over the masks", CONTRAST, "(best > DOUBT) & ~masks.any(axis=0)", "best > DOUBT"),
    ("a pixel for two classes", CONTRAST, "(u[c] > 1) & (u[c] == best)", "u[c] > 1"),
    ("rows of the blur not summed to 1", CONTRAST, "return K / K.sum(dim=1, keepdim=True)",
     "return K / K.sum(dim=1).max()"),
    ("thresholds of images with several labels", LABEL_ONLY, "rows = np.flatnonzero(count == 1)",
     "rows = np.flatnonzero(count >= 1)"),
    ("texture of the mask alone", LABEL_ONLY, "for part in (region, ~region)]",
     "for part in (region, region)]"),
    ("masks of classes without the label", LABEL_ONLY,
     "    for c in np.flatnonzero(y):\n        if",
     "    for c in range(len(y)):\n        if"),
    ("true masks shown to the contrast", WAYS,
     "label_only.make_masks(\n        lambda i: label_only.masks_of_image(log_image(i), y[i], model), "
     "work.names, y, report)", "(work.labels.rles or {}, {})"),
    ("labels from the true masks", WAYS, "label_only.fit(log_image, y, report)",
     "label_only.fit(log_image, y if work.labels.rles is None else ~y, report)"),
    ("components joined by their sides alone", MASKS, "(row - 1) * wide + start)",
     "(row - 1) * wide + start + 1)"),
    ("trained on the truth that is given for scores", "train_seg.py",
     "MaskTargets(work.given.rles,", "MaskTargets((work.truth or work.given).rles,"),
    ("masks of unlabelled classes at --confidence 0", "make_masks.py", "2.0 * work.labels.y - 1",
     "1.0 * work.labels.y"),
    ("maps of some networks drown the others", MAPS, 'cam.normalize(m, "max") for m, _ in seen',
     "m for m, _ in seen"),
    ("ignored pixels read as masks", DATASET, "size, targets.area_cut)] = 255",
     "size, targets.area_cut)] = 1"),
    ("ignored pixels not left out of the loss", "train_seg.py",
     "ignore = target == 255 if work.ignored else None", "ignore = None"),
    ("area cut inverted", DATASET, "(inside >= area_cut * whole)", "(inside <= area_cut * whole)"),
    ("masks below ignored pixels count", DATASET, "mask if counted is None else mask & counted",
     "mask"),
    ("BatchNorm pass over all images", "train_cls.py",
     "trained.train.loader.dataset, trained.train.indices,",
     "trained.train.loader.dataset, range(len(trained.train.loader.dataset)),"),
    ("BatchNorm pass over the held-out images", "train_cls.py",
     "trained.train.loader.dataset, trained.train.indices,",
     "trained.train.loader.dataset, trained.val.indices,"),
    ("probabilities of the training images", "train_cls.py",
     "epochs.predict(trained.model, trained.val,", "epochs.predict(trained.model, trained.train,"),
    ("new images masked by one U-Net", "train_seg.py",
     'in folder.fold_files(args.out, "best.pt").values()]',
     'in list(folder.fold_files(args.out, "best.pt").values())[:1]]'),
    ("new images mapped by one network", MAPS, "list(classifiers.nets.values()) if k == -1",
     "list(classifiers.nets.values())[:1] if k == -1"),
    ("images of the folds mapped by all networks", WORK,
     "known = {} if args.new_images else", "known = {} if True else"),
    ("coco: along the rows", COCO, "runs = checked_runs(rle, size)",
     "runs = checked_runs(rle_encode(rle_decode(rle, size).T), size)"),
    ("coco: a first run of nothing left out", COCO, "edges = np.concatenate([[0], np.stack",
     "edges = np.concatenate([[0][:int(runs[:1, 0].sum() != 1)], np.stack"),
    ("coco: differences from the third on", COCO, "if i > 2 else 0), True", "if i > 1 else 0), True"),
    ("coco: no sign", COCO, "x -= 1 << shift if code & 16 else 0", "x -= 0"),
    ("coco: the last annotation of a class wins", COCO, "_union(found[key][1], rle, sizes[name])",
     "rle"),
    ("coco: counts that do not fill the image", COCO, " or sum(counts) != pixels", ""),
    ("coco: clean images left out", COCO,
     'cells = [(where, name, "", None) for where, name in images.values()]', "cells = []"),
    ("coco: the side of a box", COCO, "int(columns.max()) - x + 1", "int(columns.max()) - x"),
    ("polygons by the corners of pixels", POLYGONS, "rows + 0.5 - y0", "rows - y0"),
    ("polygons that turn at their last row", POLYGONS, "np.ceil(y - 0.5)", "np.floor(y + 0.5)"),
    ("polygons whose upper edges fill up", POLYGONS, "^= 1", "|= 1"),
    ("two images with one mask file", DRAWN, 'count.update(f"{name}.png".lower() for name in images)',
     "pass"),
    ("mask files that differ in the case of letters", DRAWN,
     "count = Counter(short(name).lower() for name in images)",
     "count = Counter(short(name) for name in images)"),
    ("the folder of a class leads out", DRAWN, '|^\\.|', "|"),
    ("values of a palette in another order", PNGS, "in (None, 0, n)\n", "is not ...\n"),
    ("colours below transparent pixels", PNGS, "pixels[:, :, 3:] > 0", "pixels[:, :, 3:] >= 0"),
    ("an unknown colour is background", PNGS, "if k not in known]", "if False]"),
    ("white is no class", MASK_FOLDERS, "known[0 if white else v - 1]", "known[v - 1]"),
    ("white among values is a class", MASK_FOLDERS,
     "if v > most and not white]", "if v > most and v != WHITE]"),
    ("cvat: images without a file not listed", MASK_FOLDERS,
     'cells += [(str(text), name, "", None)]', "pass"),
    ("masks for copies of images", MASK_FOLDERS, "return not filecmp.cmp(", "return bool("),
    ("masks of another size", LABELS, "if name in sizes and sizes[name] != size:", "if False:"),
    ("a folder of masks does not name all its images", LABELS, " or isinstance(row, str) for", " for"),
    ("export: overlapping masks in one palette", EXPORTS,
     "and not masks.overlapping(*_all(made))", ""),
    ("export: the first class on top", EXPORTS, "number[mask] = c + 1",
     "number[mask & (number == 0)] = c + 1"),
    ("export: what a person changed is deleted", EXPORTS,
     "if path.is_symlink() or recorded(out).get(name) == digest(path):", "if path.exists():"),
    ("export: half of it stays", EXPORTS, "    finally:\n        _remove(tmp)\n", "    finally:\n        pass\n"),
    ("export: the record leads out", EXPORTS, "if Path(name).name == name}", "}"),
    ("overlay: no outline", "cam2seg/report/exports.py", "return mask & ~inner", "return mask & False"),
    ("a changed correction goes unnoticed", RUN_FOLDER,
     'else digest(path)\n', 'else "" if Path(path).is_dir() else digest(path)\n'),
    ("corrected to empty counts as not corrected", SEG_WORK, "names = {name for name, _ in more.rows}",
     "names = {name for name, _ in more.rles}"),
    ("the first masks win over corrected ones", SEG_WORK, "if key[0] not in names} | more.rles",
     "if key[0] in first.names} | {k: r for k, r in more.rles.items() if k not in rles}"),
    ("pixels in doubt after a person looked", SEG_WORK, "if key[0] not in corrected}", "}"),
    ("folds by their order, not by name", SEG_WORK,
     "fold = np.array([known[n] for n in given.names])",
     "fold = np.array(list(known.values())[-len(given.names):])"),
    ("masks.csv by parameters that true masks chose", "make_masks.py",
     'chosen = {"masks": dict', 'chosen = {"masks": map_masks.searched_parameters(args, work, '
     'report)["masks_crossfit"] if work.labels.rles else dict'),
    ("least area that true masks chose, for labels", MAP_MASKS,
     "areas[i] = (full >= threshold)",
     "areas[i] = (masks.decode_all(work.labels.rles, name, full.shape[1:], len(full)) "
     "if work.labels.rles else full >= threshold)"),
    ("parameters of the union called cross-fitted", MAP_MASKS, "crossed.get(k, best)", "best"),
    ("masks of a fold by another fold's parameters", MAP_MASKS, "chosen[int(work.fold[i])]",
     "chosen[max(chosen) - int(work.fold[i])]"),
    ("gate of another class", "train_seg.py", "work.gate[name][c] >=",
     "work.gate[name][-1 - c] >="),
    ("gate of another image", "train_seg.py", "work.gate[name][c] >=",
     "work.gate[min(work.gate)][c] >="),
    ("masks of the last epoch, not the best", "train_seg.py",
     'trained.model.load_state_dict(state["model"])', "pass"),
    ("fold of a predictor ignored", PREDICTOR, "return [self.nets[fold]]",
     "return list(self.nets.values())"),
    ("epochs chosen on the training images", FIT, "predict(model, parts[1],",
     "predict(model, parts[0],"),
    ("cosine over one epoch too many", FIT, "CosineAnnealingLR(optimizer, settings.epochs)",
     "CosineAnnealingLR(optimizer, settings.epochs + 1)"),
    ("cosine never stepped", FIT, "        scheduler.step(*",
     '        settings.schedule == "plateau" and scheduler.step(*'),
    ("steps of a stopped epoch taken twice", EPOCHS,
     "batches(epoch, skip) if skip else batches(epoch)", "batches(epoch)"),
    ("random numbers of a stopped epoch anew", FIT, 'torch.set_rng_state(mine["rng"])', "pass"),
    ("every process prints", PROGRESS, "if processes.is_first():", "if True:"),
    ("classes by their place", LABELS, "to = {self.classes.index(name): c for", "to = {c: c for"),
    ("classes called like a column", CLASSES, "if name == TAKEN:", "if False:"),
    ("control characters in a class", CLASSES, "if UNFIT.search(name):", "if False:"),
    ("folds without images of a class", FOLDS, "            check_folds(path, labels, fold, k)",
     "            pass"),
    ("weights of NaN taken", RESTORE, "if not value.isfinite().all()]", "if False]"),
    ("changed pixels taken", RUN_FOLDER, '["the content of the images"] = _sha256(content.encode())',
     '["the content of the images"] = ""'),
    ("the order of rows counts", RUN_FOLDER, "sorted(json.dumps(row, sort_keys=True)",
     "list(json.dumps(row, sort_keys=True)"),
    ("a broken pipe stops a run", STREAMS, "            self._drop_all()\n            return len(text)",
     "            raise"),
    ("last flag of a command without quotes", ENDINGS, "return shlex.join(words)",
     'return " ".join(words)'),
    ("a value of a command that looks like a flag", ENDINGS, 'if text.startswith("-") else',
     "if False else"),
    ("a flag switched off not told", ENDINGS, 'found[f"no_{name}"] = True', "pass"),
    ("next script looked for elsewhere", ENDINGS,
     "str(own.with_name(name)) if own.stem in SCRIPTS else name", "name"),
    ("folds not among what is written", ENDINGS, '*exports.recorded(out), *folds]',
     "*exports.recorded(out)]"),
    ("the network's flags not told", ENDINGS, "if then.get(k, default) != default}",
     "if then.get(k, default) == default}"),
    ("the next run into a folder that holds one", ENDINGS,
     '    while (found / "args.json").exists():', "    while False:"),
    ("the next masks into a folder that holds a run", "train_cls.py",
     'endings.unused(args.out.parent / "masks")', 'args.out.parent / "masks"'),
    ("the next scores into a folder that holds a run", "train_seg.py",
     'endings.unused(args.out.parent / "eval")', 'args.out.parent / "eval"'),
    ("the next masks of a layer of one cell", "train_cls.py", "if max(size) <= 32:", "if False:"),
    ("a training on empty masks follows", "make_masks.py", 'if any(result["made"]) and len(',
     "if len("),
    ("a training on one fold follows", "make_masks.py", "if n in known}) > 1:",
     "if n in known}) > 0:"),
    ("parameters that a method does not have", "cam2seg/report/mask_report.py",
     'gives more of them" if cell else', 'gives more of them" if True else'),
    ("half of what a class lacks told", FOLDS, '+ ["without it"] * (N - n < 2)', ""),
    ("the only class to be left out", FOLDS, "if len(with_class) > 1 else", "if True else"),
    ("each flag told", ENDINGS, "        elif value != default:", "        else:"),
    ("digest of what Pillow leaves", IMAGES, "file.seek(0)", "pass"),
    ("digest of a file's first chunk", IMAGES,
     "    while chunk := file.read(CHUNK):\n        found.update(chunk)",
     "    found.update(file.read(CHUNK))"),
    ("width before height", IMAGES, "return pixels.shape[:2],", "return pixels.shape[1::-1],"),
    ("the darkest image of 16 bits decides", IMAGES, "if max(peaks.values(), default=255) < 64",
     "if min(peaks.values(), default=255) < 64"),
    ("images of 8 bits count as dark", IMAGES, "        if deep:", "        if True:"),
    ("the scan says nothing of how far it is", IMAGES, "            after_each()",
     "            pass"),
    ("every process looks at the images", INPUTS, "found = processes.run_on_first(",
     "found = (lambda look, errors: look())("),
    ("state of a finished fold kept", CROSS, "Fold(k, model, train, val, best, out, settings))\n"
     "        _delete_last(out, recipe)", "Fold(k, model, train, val, best, out, settings))"),
    ("state that a kill left kept", CROSS, "            _delete_last(out, recipe)  # the run",
     "            pass  # the run"),
    ("state of a fold without results deleted", CROSS,
     "if processes.is_first() and (out / recipe.done).exists():", "if processes.is_first():"),
    ("next commands in spite of --quiet", EXITS, "*(() if quiet else ending.then)", "*ending.then"),
    ("tables in spite of --quiet", EXITS, "if rank or quiet else nullcontext():",
     "if rank else nullcontext():"),
    ("progress in spite of --quiet", PROGRESS, "if self.quiet or not due:", "if not due:"),
    ("a planted link under a half-written file", FILES,
     "        tmp.unlink(missing_ok=True)  # an old", "        pass  # an old"),
    ("a link planted just before the file is opened", FILES, 'mode.replace("w", "x")', "mode"),
    ("a planted link for the lock", LOCKS, " | os.O_NOFOLLOW", ""),
    ("a planted link for half-made maps", STORED, "            if path.is_symlink():",
     "            if False:"),
    ("a planted link for new maps", STORED, "    path.unlink(missing_ok=True)  # an old",
     "    pass  # an old"),
    ("a planted link for a run that has begun", RUN_FOLDER, "    if begun.is_symlink():",
     "    if False:"),
    ("a planted link for a fold", RUN_FOLDER, "    if links:", "    if False:"),
]


LEAKS = "tests/test_leaks.py"
SCRIPTS = [LEAKS, "tests/test_label_only.py", "tests/test_cli.py",
           "tests/test_sizes_and_flags.py", "tests/test_talk.py"]
OTHER_TESTS = {MODELS: ["tests/test_models.py", "tests/test_lite0.py", "tests/test_segnet.py",
                        "tests/test_multiclass.py"],
               LOSSES: ["tests/test_losses.py", "tests/test_multiclass.py"],
               MASKS: ["tests/test_masks.py", "tests/test_multiclass.py"],
               METRICS: ["tests/test_metrics.py", "tests/test_multiclass.py"],
               SEGMENTERS: ["tests/test_segnet.py", "tests/test_multiclass.py"],
               LABELS: ["tests/test_data.py", "tests/test_clouds.py", "tests/test_mask_forms.py"],
               **dict.fromkeys((COCO, POLYGONS, DRAWN, PNGS, MASK_FOLDERS, EXPORTS,
                                "cam2seg/report/exports.py"), ["tests/test_mask_forms.py"]),
               MAPS: SCRIPTS,
               FOLDS: ["tests/test_data.py", "tests/test_copies.py", "tests/test_classes.py"],
               MAP_MASKS: SCRIPTS, WAYS: SCRIPTS, WORK: SCRIPTS,
               SEG_WORK: [LEAKS, "tests/test_correct.py"], PREDICTOR: [LEAKS],
               DATASET: ["tests/test_images.py", "tests/test_mask_targets.py",
                         "tests/test_warps.py"],
               FILES: ["tests/test_runs.py", "tests/test_links.py"], RESTORE: ["tests/test_streams.py"],
               STREAMS: ["tests/test_streams.py"],
               RUN_FOLDER: ["tests/test_same_run.py", "tests/test_links.py",
                            "tests/test_stopping.py"],
               **dict.fromkeys((ENDINGS, EXITS), ["tests/test_talk.py"]),
               PROGRESS: ["tests/test_runs.py", "tests/test_talk.py"],
               CROSS: ["tests/test_training.py"],
               IMAGES: ["tests/test_images.py", "tests/test_same_run.py", "tests/test_talk.py"],
               INPUTS: ["tests/test_scan.py"], LOCKS: ["tests/test_same_run.py"],
               STORED: ["tests/test_links.py"],
               COPIES: ["tests/test_copies.py"], RELABEL: ["tests/test_relabel.py"],
               REFLECTION: ["tests/test_contrast.py"],
               CONTRAST: ["tests/test_contrast.py"],
               TEXTURE: ["tests/test_contrast.py"], LABEL_ONLY: ["tests/test_label_only.py"],
               DEPTH: ["tests/test_depth.py"], ROOMS: ["tests/test_depth.py"],
               **dict.fromkeys((DEPTH_FILES, DEPTH_MASKS, INITIAL), ["tests/test_depth_masks.py"]),
               HULLS: ["tests/test_hulls.py"], WARPS: ["tests/test_warps.py"],
               OPTIMIZERS: ["tests/test_optimizers.py"],
               CHECKPOINTS: ["tests/test_runs.py", "tests/test_optimizers.py"],
               **dict.fromkeys((CLOUDS, "cam2seg/data/samples.py"), ["tests/test_clouds.py"]),
               KEPT: ["tests/test_kept_maps.py"],
               **dict.fromkeys((FINISHED, PROCESSING), ["tests/test_clouds.py",
                                                        "tests/test_kept_maps.py"]),
               VIDEO: ["tests/test_video.py"], VIDEO_MASKS: ["tests/test_video.py"],
               "cam2seg/report/mask_report.py": ["tests/test_label_only.py"],
               **dict.fromkeys((CHARTS, CURVES), ["tests/test_report_charts.py"]),
               **dict.fromkeys((PAGE, PANELS, RUN_CHARTS, RUN_FILES, STYLE, RUN_TABLES),
                               ["tests/test_report_page.py"]),
               AUTO: ["tests/test_auto.py"], CHOICE: ["tests/test_label_choice.py"]}


def tests_of(path):
    """The test files that shall notice an edit of a file: those of its folder or its own."""
    if path in OTHER_TESTS:
        return OTHER_TESTS[path]
    if "/" not in path:
        return SCRIPTS
    folder, name = Path(path).parts[-2:]
    what = name.removesuffix(".py") if folder in ("cam2seg", "data") else folder
    return [f"tests/test_{what}.py"]


def _left_out(folder, names):
    """What the copy is made without: the user's runs and data, not the package's folders."""
    top = {"runs", "data", "docs"} if Path(folder) == ROOT else set()
    return [n for n in names if n.startswith(".") or n in top]


def start(folder, tests, edit=None):
    """Start tests in a copy of the project in a child process; return its id.

    The child is a fork, so that it need not import torch again. edit: (what is wrong, file, text,
    replacement), or None. What pytest prints goes to folder/log.
    """
    shutil.copytree(ROOT, folder / "copy", ignore=_left_out)
    if edit:
        _, path, old, new = edit
        text = (folder / "copy" / path).read_text(encoding="utf-8")
        (folder / "copy" / path).write_text(text.replace(old, new), encoding="utf-8")
    child = os.fork()
    if not child:
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder / "copy")
        sys.path[0] = str(folder / "copy")  # in place of the folder of this file
        code = 3
        try:
            code = pytest.main(["-x", "-q", "--tb=no", "-p", "no:cacheprovider", *tests])
        finally:
            sys.stdout.flush()
            os._exit(code)
    return child


def red_test(folder, status):
    """The test that failed in a child that has ended, or None where all passed."""
    if os.waitstatus_to_exitcode(status) == 0:
        return None
    said = (folder / "log").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.M)
    return found[1] if found else sys.exit(f"pytest broke down: {said[-2000:]}")


def check_list():
    """Leave with a message unless the text that each edit replaces is once in its file."""
    for what, path, old, _ in MUTANTS:
        if (ROOT / path).read_text(encoding="utf-8").count(old) != 1:
            sys.exit(f"{what}: '{old}' is not once in {path}: bring the list up to date")


def run_all(jobs, count):
    """Yield (job, the test that failed or None, seconds) for all jobs (tests, edit), of which
    `count` run at a time."""
    waiting, running = list(jobs), {}
    while waiting or running:
        while waiting and len(running) < count:
            job, where = waiting.pop(0), tempfile.TemporaryDirectory()
            running[start(Path(where.name), *job)] = job, where, time.time()
        child, status = os.wait()
        job, where, began = running.pop(child)
        with where as folder:
            yield job, red_test(Path(folder), status), time.time() - began


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", default="", help="a part of the text that says what is wrong")
    p.add_argument("--jobs", type=int, default=2, help="how many run at a time")
    args = p.parse_args()
    check_list()
    torch.set_num_threads(1)  # a pool of threads does not outlive a fork
    chosen = [(tests_of(m[1]), m) for m in MUTANTS if args.only in m[0]]
    survivors, catchers = 0, set()
    for (_, edit), test, seconds in run_all(chosen, args.jobs):
        survivors += test is None
        catchers |= {test.partition("[")[0]} if test else set()
        print(f"{edit[1]}: {edit[0]}: {test or 'SURVIVES'}, {seconds:.0f} s", flush=True)
    _, test, _ = next(run_all([(sorted(catchers), None)], 1)) if catchers else (None, None, 0)
    if test:
        sys.exit(f"{test} fails without any edit: it catches nothing")
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
