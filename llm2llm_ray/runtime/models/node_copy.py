"""Model folders as an engine needs them: on the node's own disk, complete.

vLLM's `weights_path` is never a URI. A folder that this node sees is used where it is; anything else is fetched once per
node, under its sha, and put in place by a rename so that two engines of a node cannot see half of it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from pyarrow import fs


def node_local(path: str, sha: str) -> str:
    """A local folder holding the weights `sha` found at `path` (a folder, or a URI that pyarrow opens)."""
    if "://" not in path:
        if not os.path.isdir(path):
            raise FileNotFoundError(f"{path}: not visible on this node; put the run folder on storage every node sees")
        return path
    target = Path(tempfile.gettempdir()) / "llm2llm_ray" / "weights" / sha
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
