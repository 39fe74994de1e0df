# Every target sets up what it needs in .venv; PYTHON=... picks another interpreter.
PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
DATA = data/demo
OUT = runs/demo
# From random weights, at half of the strips' size: small enough for two cores.
SMALL = --weights none --size 64 256
FAST = --lr-encoder 3e-3 --lr-decoder 3e-3 --batch-size 8 --loss bce+dice

.PHONY: demo test peers fuzz mutants crash bench readings severstal clean

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

demo: $(VENV)/run
	[ -f $(DATA)/train.csv ] || $(PY) -m cam2seg.demo $(DATA) --images 400
	$(PY) train_cls.py --data $(DATA) --out $(OUT)/cls --overwrite $(SMALL) --lr-encoder 1e-3 --folds 2 --epochs 18 --batch-size 16
	$(PY) make_masks.py --data $(DATA) --cls $(OUT)/cls --out $(OUT)/masks --overwrite --target-layer features.5 --gate labels --search
	$(PY) train_seg.py --data $(DATA) --masks $(OUT)/masks/masks.csv --folds $(OUT)/cls/folds.csv --out $(OUT)/seg --overwrite $(SMALL) $(FAST) --epochs 3
	$(PY) train_seg.py --data $(DATA) --masks $(DATA)/train.csv --folds $(OUT)/cls/folds.csv --out $(OUT)/seg_true --overwrite $(SMALL) $(FAST) --epochs 7
	$(PY) evaluate.py --data $(DATA) --folds $(OUT)/cls/folds.csv --out $(OUT)/eval --overwrite maps=$(OUT)/masks/masks.csv unet_on_maps=$(OUT)/seg/oof_masks.csv unet_on_truth=$(OUT)/seg_true/oof_masks.csv

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

bench: $(VENV)/test
	$(PY) benchmarks/speed.py
	$(PY) benchmarks/memory.py

# The classifiers of `make demo`; or DATA=neu CLS=runs/cls, all folds trained on it.
CLS = $(OUT)/cls
readings: $(VENV)/run
	$(PY) benchmarks/readings.py --data $(DATA) --cls $(CLS)

# DATA=severstal; `make severstal DATA=... DRY=1` lists the commands and their cost.
severstal: $(VENV)/run
	$(PY) benchmarks/reproduce.py --data $(DATA) --out runs/severstal $(if $(DRY),--dry-run)

clean:
	rm -rf $(DATA) $(OUT)
