"""How fast Reason-RFT files become parquet, and in how much memory.

    python -m recipe.ekipl.data.benchmark --rows 100000

Two pictures of 320 x 240 a row, as in TRANCE, from 400 different ones. The last line is one JSON object; processor_s is what
the conversion would take on a machine that does nothing else.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.data.splits import splits_of

PICTURES = 400


def write_rows(data: Path, rows: int) -> None:
    """Train file of spatial transformation, written as a stream."""
    folder = data / "images" / "train_images"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(PICTURES):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC).save(folder / f"{k}.png", compress_level=1)
    path = data / splits_of("spatial_transformation")[0].pattern.replace("*", str(rows))
    path.parent.mkdir(parents=True)
    with open(path, "w") as file:
        file.write("[")
        for k in range(rows):
            row = {
                "id": f"train-{k}",
                "image": [f"{k % PICTURES}.png", f"{(k * 7 + 1) % PICTURES}.png"],
                "problem": "(0, cube, small, red, metal) (1, sphere, large, blue, glass) " * 5,
                "cot": "The first object moved to the left and the second one changed its colour. " * 20,
                "answer": "change_position(0, left)\nchange_color(1, red)",
            }
            file.write((",\n" if k else "") + json.dumps(row))
        file.write("]")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--pictures", choices=("embed", "reference"), default="reference", help="as in the conversion")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        write_rows(data, args.rows)
        start, used = time.monotonic(), time.process_time()
        (done,) = convert(data, Path(folder, "rows"), ["spatial_transformation"], pictures=args.pictures)
        seconds, used = time.monotonic() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = args.rows / seconds
    speed = {"seconds": round(seconds, 1), "rows_per_s": round(rate), "processor_s": round(used, 1)}
    print(json.dumps({"rows": done.rows, **speed, "peak_mib": round(peak)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
