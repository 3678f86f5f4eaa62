# Everything a fresh clone needs: `make demo` and `make test` do all of their own set-up.
# `make install ROS=apt` leaves the ROS 2 wheels out and lets the virtual environment see the system's packages.
SHELL := bash
ROS ?= wheels
PYTHON312 ?= python3.12
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed-$(ROS)
export MUJOCO_GL ?= egl
export HF_HUB_OFFLINE ?= 1

.PHONY: install demo test lint check lock reproduce bench clean

install: $(STAMP)

# --clear: the ROS wheels carry a second, unprefixed metadata folder each, which a later sync would take for packages to
# remove; so a changed lock gets a fresh environment.
$(STAMP): requirements.lock setup.py pyproject.toml
	@command -v $(PYTHON312) >/dev/null || { echo "make: python3.12 not found: install it (Debian 13, Ubuntu 24.04: apt install python3.12-venv; or pyenv install 3.12)"; exit 1; }
	@bash tools/install_system.sh
	$(PYTHON312) -m venv --clear $(if $(filter apt,$(ROS)),--system-site-packages) $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check uv==0.13.8
	$(if $(filter apt,$(ROS)),grep -vE '^ros-' requirements.in | $(VENV)/bin/uv pip install -q -p $(PY) --overrides overrides.txt -c <(grep -oE '^[a-z0-9-]+==[^ ]+' requirements.lock) -r -,\
	$(VENV)/bin/uv pip sync -q -p $(PY) --compile-bytecode --require-hashes requirements.lock)
	$(VENV)/bin/uv pip install -q -p $(PY) --no-deps -e . -e plugins/lerobot_policy_vla_rl
	@touch $@

demo: install
	$(PY) -m vla_rl demo --out outputs/demo

test: install
	$(PY) -m pytest -n 2 --dist worksteal -m "not alone" tests
	$(PY) -m pytest -n 1 -m alone tests

lint: install
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy vla_rl

check: lint test

reproduce: install
	bash tools/reproduce.sh

bench: install
	$(PY) -m vla_rl bench all

lock:
	$(VENV)/bin/uv pip compile -q --python-version 3.12 --generate-hashes --no-emit-index-url --override overrides.txt requirements.in -o requirements.lock

clean:
	rm -rf build dist *.egg-info outputs
