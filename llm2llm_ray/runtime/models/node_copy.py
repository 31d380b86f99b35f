"""Model folders as an engine or a training needs them: on the node's own disk, and with the weights that were meant.

vLLM's `weights_path` is never a URI. A folder that this node sees is used where it is; anything else is fetched once per
node, under a name of its own, and put in place by a rename so that two engines of a node cannot see half of it.

Invariant: `node_local` returns a folder only after its content was found to be the sha's. `model_sha` remembers by path, size and
time, so a file is read for that once per node, and again when it was changed, not for every load.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from pyarrow import fs

from llm2llm_ray.errors import UserError
from llm2llm_ray.runtime.models.folders import model_sha
from llm2llm_ray.runtime.models.hand_off import WrongWeights


def node_local(path: str, sha: str) -> str:
    """A local folder with the weights `sha`, found at `path` (a folder, or a URI that pyarrow opens). Raises WrongWeights."""
    folder = fetched(path, sha)
    found = _sha_of(folder)
    if found != sha and folder != path:  # a copy that a cleaner of temporary folders has been at
        shutil.rmtree(folder, ignore_errors=True)
        folder = fetched(path, sha)
        found = _sha_of(folder)
    if found != sha:
        raise WrongWeights(f"{path}: the weights there are {found}, not {sha} as they were when they were handed on")
    return folder


def fetched(path: str, name: str) -> str:
    """What is at `path` as a local folder, whatever is in it; `name` is that of the copy."""
    if "://" not in path:
        if not os.path.isdir(path):
            raise FileNotFoundError(f"{path}: not visible on this node; put the run folder on storage every node sees")
        return path
    target = Path(tempfile.gettempdir()) / "llm2llm_ray" / "weights" / name
    if not target.exists():
        source, inner = fs.FileSystem.from_uri(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent))
        fs.copy_files(inner, str(scratch), source_filesystem=source, destination_filesystem=fs.LocalFileSystem())
        try:
            scratch.rename(target)
        except OSError:  # another engine of this node was faster
            shutil.rmtree(scratch)
    return str(target)


def _sha_of(folder: str) -> str:
    try:
        return model_sha(folder)
    except UserError:
        return "no weights at all"
