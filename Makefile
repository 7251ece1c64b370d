# The course's commands; a bare `make` lists them. On Windows: from Git Bash.
PYTHON ?= $(if $(filter Windows_NT,$(OS)),python,python3)
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY := .venv/.installed

GPU_SECONDS ?= 480
help:
	@echo "make lab     open the course in JupyterLab        LAB_ARGS=\"--port=9999 --no-browser\""
	@echo "make test    run everything that CI runs          TEST_ARGS=\"-k transformer\""
	@echo "make sync    execute notebooks from their .py     NOTEBOOKS=\"02 06\""
	@echo "make record  record a table again; bare: a list   TABLE=scan RECORD_ARGS=\"--workers=4\""
	@echo "make gpu     measure what an NVIDIA card shows    GPU_SECONDS=480 GPU_PHASES=\"mfu sweep\""
	@echo "make bench   measure speed                        BENCH=\"start\""
	@echo "Each makes the environment .venv first if need be.   PYTHON=python3.12 chooses its Python."

lab: $(READY)
	-@$(BIN)/python tools/sync.py --keep
	$(BIN)/python -m jupyterlab --ServerApp.ip=127.0.0.1 --ServerApp.allow_root=True --ServerApp.root_dir=. --LabApp.extension_manager=readonly --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LAB_ARGS)

test: $(READY)
	$(BIN)/python -m pytest -n logical --dist loadscope $(TEST_ARGS)

sync: $(READY)
	$(BIN)/python tools/sync.py $(NOTEBOOKS)

record: $(READY)
	$(BIN)/python -m recordings $(TABLE) $(RECORD_ARGS)

gpu: $(READY)
	GPU_SECONDS=$(GPU_SECONDS) GPU_PHASES="$(GPU_PHASES)" $(BIN)/python -m recordings.gpu

bench: $(READY)
	$(BIN)/python tests/benchmarks $(BENCH)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) tools/environment.py

.PHONY: help lab test sync record gpu bench
