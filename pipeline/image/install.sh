#!/bin/sh
# Install the locked set of the pyproject.toml and constraints.txt in the current folder. The Containerfile runs this.
#   install.sh cuda|cpu   PIP=...   TORCH_INDEX_URL=... (cpu: where PyTorch's CPU builds are)
set -eu
pip=${PIP:-/opt/venv/bin/pip}

if [ "$1" = cpu ]; then
  index=${TORCH_INDEX_URL:-https://download.pytorch.org/whl/cpu}
  # Asked for these two alone: an index out of reach costs a few seconds, not six tries for each of a hundred packages.
  env -u PIP_EXTRA_INDEX_URL $pip install --index-url "$index" --retries 1 --no-deps --constraint constraints.txt torch torchvision || {
    echo "FLAVOUR=cpu: cannot get torch and torchvision from $index; name a mirror with TORCH_INDEX_URL, or use FLAVOUR=cuda" >&2
    exit 1
  }
fi
python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt
$pip install --constraint constraints.txt --requirement requirements.txt
