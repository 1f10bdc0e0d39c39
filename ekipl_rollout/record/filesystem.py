"""What kind of file system a path lies on. A record needs a local one.

SQLite's write-ahead log keeps its index in memory that all processes map, and relies on locks that really lock. Neither
holds between machines (sqlite.org/wal.html: "WAL does not work over a network filesystem"), and the damage is silent.
"""

import os
import re
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

NETWORK = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "lustre",
        "gpfs",
        "beegfs",
        "ceph",
        "glusterfs",
        "afs",
        "orangefs",
        "panfs",
        "wekafs",
        "gfs2",
        "ocfs2",
        "ncpfs",
        "coda",
    ]
)
SHARED_WITH_A_HOST = frozenset({"9p", "virtiofs", "vboxsf", "prl_fs"})  # other machines may have it mounted as well
LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs"})  # the root of a rootless container


def file_system_of(path: str | Path, mountinfo: Path | None = None) -> str | None:
    """Type as in /proc/self/mountinfo (`ext4`, `nfs4`, `fuse.sshfs`, ...); None where it cannot be known (no Linux).

    Links are followed; the path itself need not exist yet.
    """
    try:
        lines = (mountinfo or MOUNTINFO).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    target = os.path.realpath(path)
    best, kind = "", None
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 7 or "-" not in fields[6:]:
            continue
        point = _unescape(fields[4])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # a later mount on the same point hides the earlier one
            best, kind = point, fields[fields.index("-", 6) + 1]
    return kind


def is_network(kind: str | None) -> bool:
    """True for a type that several machines can have mounted at once. An unknown type is taken for local."""
    if kind is None or kind in LOCAL_FUSE:
        return False
    return kind in NETWORK or kind in SHARED_WITH_A_HOST or kind == "fuse" or kind.startswith("fuse.")


def network_problem(path: str | Path, mountinfo: Path | None = None) -> str | None:
    """Why a record cannot be kept at `path`, and the way out; None when it can."""
    kind = file_system_of(path, mountinfo)
    if not is_network(kind):
        return None
    return (
        f"{path} lies on a network file system ({kind}), where SQLite's log and locks do not hold and answers would be "
        "lost. Keep the record on a disk of this machine (ekipl.record.path=/local/disk/records.sqlite; one file a "
        "node) and bring the files together afterwards: python -m ekipl_rollout.record merge."
    )


def _unescape(point: str) -> str:
    """mountinfo writes blank, tab, newline and backslash as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
