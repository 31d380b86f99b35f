"""What a file system refuses, told as the mistake that a person can mend: full, read-only, not ours, a path that is none."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from llm2llm_ray.errors import UserError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""True of the disk, whichever of its files was being written."""
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
"""What `flock` says where there are none: NFS without its lock service, Lustre mounted without `flock`, some FUSE."""
_REFUSED = FULL | {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}


@contextmanager
def refusals(place: str, remedy: str, only: frozenset[int] = _REFUSED) -> Iterator[None]:
    """Raises UserError for what the system refuses inside; other failures stay what they are.

    Example: "run.folder /data/runs: No space left on device; free some, or set run.folder to another disk"
    """
    try:
        yield
    except OSError as error:
        if error.errno not in only:
            raise
        raise UserError(f"{place}: {os.strerror(error.errno)}; {remedy}") from error
