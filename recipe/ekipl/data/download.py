"""Reason-RFT-CoT-Dataset from the hub. What is there already is not fetched again, unzipping included."""

import shutil
import zipfile
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
    """Files that are missing or of another size; returns how many. A folder of the archive's own name is left out."""
    root, done = folder.resolve(), 0
    with zipfile.ZipFile(archive) as file:
        members = [member for member in file.infolist() if not member.is_dir()]
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
