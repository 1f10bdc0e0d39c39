"""The download, against a hub on loopback that speaks the few calls that the client makes."""

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.data.download import _check_room, unzip
from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.data.splits import TASKS

COMMIT = "c0ffee" * 6 + "abcd"


def archive(folder: Path, top: str) -> bytes:
    """A zip of every picture, in a folder of the archive's own name as in the data set."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(folder.iterdir()):
            file.write(path, f"{top}/{path.name}")
    return buffer.getvalue()


def hub(files: dict[str, bytes], asked: list[str]) -> Starlette:
    async def info(request: Request) -> JSONResponse:
        siblings = [{"rfilename": name} for name in files]
        return JSONResponse(
            {"id": "x/y", "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
        )

    async def tree(request: Request) -> JSONResponse:
        oid = {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}
        return JSONResponse([{"type": "file", "path": n, "size": len(c), "oid": oid[n]} for n, c in files.items()])

    async def resolve(request: Request) -> Response:
        name = request.path_params["name"]
        if request.method == "GET":
            asked.append(name)
        content = files[name]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return Response(content, headers=headers, media_type="application/octet-stream")

    at = "/datasets/{owner}/{repo}/resolve/{revision}/{name:path}"
    return Starlette(
        routes=[
            Route("/api/datasets/{owner}/{repo}/revision/{revision}", info),
            Route("/api/datasets/{owner}/{repo}/tree/{revision}", tree),
            Route(at, resolve, methods=["GET", "HEAD"]),
        ]
    )


def command(out: Path, url: str, *options: str) -> subprocess.CompletedProcess:
    """A process of its own: the client reads HF_ENDPOINT once, when it is imported."""
    hub = {"HF_ENDPOINT": url, "HF_HOME": str(out.parent / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    environment = {**os.environ, **hub}
    words = [sys.executable, "-m", "recipe.ekipl.data", "download", "--out", str(out), *options]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_data_set_comes_from_the_hub_unzipped_and_only_once(world, tmp_path, serve):
    files = {str(p.relative_to(world)): p.read_bytes() for p in world.glob("*_jsons/[A-Z]*.json")}
    files |= {
        f"{kind}_images.zip": archive(world / "images" / f"{kind}_images", f"{kind}_images")
        for kind in ("train", "test")
    }
    files |= {"README.md": b"not asked for"}
    asked: list[str] = []
    url, out = serve(hub(files, asked)), tmp_path / "data"
    done = command(out, url)
    assert done.returncode == 0, done.stderr
    assert "README.md" not in asked and not any("/B" in name for name in asked)
    assert len(asked) == 3 + 7 + 2
    converted = convert(out, tmp_path / "rows", list(TASKS))
    assert len(converted) == 3 + 7 and not any(one.refused for one in converted)

    asked.clear()
    (out / "images" / "test_images" / "visual_counting-clevr_math-0.png").unlink()
    assert command(out, url).returncode == 0
    assert asked == []
    assert (out / "images" / "test_images" / "visual_counting-clevr_math-0.png").exists()


def test_a_hub_that_does_not_answer_is_explained(tmp_path, serve):
    done = command(tmp_path / "data", serve(Starlette()), "--tasks", "visual_counting")
    assert done.returncode == 2
    assert "could not be downloaded" in done.stderr
    assert "HF_ENDPOINT" in done.stderr


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr("../escaped.png", b"x")
    with pytest.raises(SettingsError, match="outside"):
        unzip(tmp_path / "evil.zip", tmp_path / "pictures")
    assert not (tmp_path / "escaped.png").exists()


def test_an_archive_that_claims_more_than_the_disk_has_is_not_unzipped(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", b"0" * 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip") as file:
        (member,) = file.infolist()
        member.file_size = 10**15
        with pytest.raises(SettingsError, match="1000000.0 GB of pictures, and .* has room for"):
            _check_room(tmp_path / "bomb.zip", [member], tmp_path / "pictures")
    assert unzip(tmp_path / "bomb.zip", tmp_path / "pictures") == 1


def test_an_archive_that_is_damaged_says_what_to_do(tmp_path):
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(SettingsError, match="half.zip is damaged.*Delete it"):
        unzip(tmp_path / "half.zip", tmp_path / "pictures")
