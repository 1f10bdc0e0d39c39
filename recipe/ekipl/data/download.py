"""Reason-RFT-CoT-Dataset from the hub. What is there already is not fetched again, unzipping included."""

import shutil
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.data.splits import SPLITS

REPOSITORY = "tanhuajie2001/Reason-RFT-CoT-Dataset"
ARCHIVES = ("train_images.zip", "test_images.zip")
COPY_AT_ONCE = 1 << 20


def download(out: Path, tasks: Iterable[str], revision: str) -> Path:
    """The JSON files of `tasks` and all pictures, below `out`. HF_ENDPOINT and HF_TOKEN are read by the hub's client.

    Raises SettingsError when the hub does not give them.
    """
    from huggingface_hub import snapshot_download

    patterns = [split.pattern for split in SPLITS if split.task in tasks and split.name != "base"]
    try:
        snapshot_download(
            REPOSITORY, repo_type="dataset", revision=revision, local_dir=out, allow_patterns=[*patterns, *ARCHIVES]
        )
    except Exception as error:  # the client raises many kinds; all mean that the files are not here
        raise SettingsError(
            f"{REPOSITORY} could not be downloaded: {error}. The same command goes on where it stopped. Behind a mirror set "
            "HF_ENDPOINT; without a network copy the data set's folder here and give it to `reason_rft --data`."
        ) from None
    for name in ARCHIVES:
        if (out / name).exists():
            unzip(out / name, out / "images" / Path(name).stem)
    return out


def unzip(archive: Path, folder: Path) -> int:
    """Files that are missing or of another size; returns how many. A folder of the archive's own name is left out.

    Raises SettingsError for an archive that is damaged, needs more room than there is, or reaches out of `folder`.
    """
    try:
        return _unzip(archive, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SettingsError(
            f"{archive} is damaged: {error}. Delete it, and the same command fetches it again."
        ) from None


def _unzip(archive: Path, folder: Path) -> int:
    root, done = folder.resolve(), 0
    with zipfile.ZipFile(archive) as file:
        members = [member for member in file.infolist() if not member.is_dir()]
        _check_room(archive, members, folder)
        for member in tqdm(members, desc=f"unzipping {archive.name}", unit="file", disable=None, leave=False):
            target = (root / member.filename.removeprefix(f"{archive.stem}/")).resolve()
            if root not in target.parents:
                raise SettingsError(f"{archive} holds {member.filename!r}, which would be written outside {folder}.")
            if target.exists() and target.stat().st_size == member.file_size:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(target.name + ".partial")
            with file.open(member) as source, open(partial, "wb") as copy:
                shutil.copyfileobj(source, copy, COPY_AT_ONCE)
            partial.replace(target)
            done += 1
    return done


def _check_room(archive: Path, members: list[zipfile.ZipInfo], folder: Path) -> None:
    """Raises SettingsError before the disk is full: a small archive can claim any size."""
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = sum(member.file_size for member in members), shutil.disk_usage(folder).free
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if needed - there > free:
        raise SettingsError(
            f"{archive} holds {needed / 1e9:.1f} GB of pictures, and {folder} has room for {free / 1e9:.1f} GB. Make room, "
            "or unzip it elsewhere and link that folder."
        )
