"""Tiny copies of the benchmarks' published layouts: the same files and columns, a few items each."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image

_RNG = np.random.default_rng(11)


def sound(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, _RNG.uniform(-0.5, 0.5, 8000).astype(np.float32), 16_000)


def video(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 48, "yuv420p"
        colour = _RNG.integers(0, 256, 3)
        for _ in range(8):
            frame = np.broadcast_to(colour, (48, 48, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def picture(path: Path, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_RNG.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)).save(path)


def depth(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_RNG.integers(400, 8000, (48, 64)).astype(np.uint16)).save(path)


def table(path: Path, rows: list[dict[str, Any]], *, header: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if header:
            writer.writeheader()
        writer.writerows(rows)


def esc50(root: Path) -> None:
    names = ["dog", "sea_waves", "hand_saw"]
    rows = [
        {"filename": f"1-{n}-A-{n}.wav", "fold": 1 + n % 5, "target": n % 3, "category": names[n % 3], "esc10": n % 2} for n in range(6)
    ]
    table(root / "meta/esc50.csv", rows)
    for row in rows:
        sound(root / "audio" / row["filename"])


def vggsound(root: Path) -> None:
    rows = [
        {
            "id": f"vid_{n}-x",
            "start": n * 10,
            "label": ["playing harp, plucked", "dog barking"][n % 2],
            "split": "test" if n < 4 else "train",
        }
        for n in range(6)
    ]
    table(root / "vggsound.csv", rows, header=False)
    for row in rows[:4]:
        stem = f"{row['id']}_{row['start']:06d}"
        sound(root / "audio" / f"{stem}.wav")
        video(root / "video" / f"{stem}.mp4")


def audioset(root: Path) -> None:
    table(
        root / "class_labels_indices.csv",
        [{"index": n, "mid": f"/m/0{n}", "display_name": name} for n, name in enumerate(["Speech", "Whoop, shout", "Bell"])],
    )
    lines = ["# Segments csv created Sun Mar  5 10:54:25 2017", "# num_ytids=3", "# YTID, start_seconds, end_seconds, positive_labels"]
    lines += ['-aa, 30.000, 40.000, "/m/00,/m/01"', 'bb_, 0.000, 10.000, "/m/02"', 'c-c, 20.000, 30.000, "/m/00"']
    (root / "eval_segments.csv").write_text("\n".join(lines) + "\n")
    for name in ("-aa", "bb_", "c-c"):
        sound(root / "audio" / f"{name}.wav")


def clotho(root: Path) -> None:
    rows = [
        {"file_name": f"A sound {n}.wav", **{f"caption_{c}": f"Caption {c} of sound {n}, with a comma." for c in range(1, 6)}}
        for n in range(4)
    ]
    table(root / "clotho_captions_evaluation.csv", rows)
    for row in rows:
        sound(root / "evaluation" / row["file_name"])


def audiocaps(root: Path) -> None:
    rows = [{"audiocap_id": n, "youtube_id": f"id{n // 2}", "start_time": 30, "caption": f"a person speaks in take {n}"} for n in range(6)]
    table(root / "test.csv", rows)
    for n in range(3):
        sound(root / "audio" / f"id{n}.wav")


def kinetics(root: Path) -> None:
    rows = [
        {"label": ["riding a bike", "juggling balls"][n % 2], "youtube_id": f"k{n}", "time_start": n, "time_end": n + 10, "split": "val"}
        for n in range(4)
    ]
    table(root / "annotations/val.csv", rows)
    for row in rows:
        video(root / "val" / f"{row['youtube_id']}_{row['time_start']:06d}_{row['time_end']:06d}.mp4")


def msrvtt(root: Path) -> None:
    rows = [{"key": f"ret{n}", "vid_key": f"msr{n}", "video_id": f"video{n}", "sentence": f"a man talks about thing {n}"} for n in range(3)]
    table(root / "MSRVTT_JSFUSION_test.csv", rows)
    for row in rows:
        video(root / "videos" / f"{row['video_id']}.mp4")


def msvd(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    ids = [f"mv89psg6zh4_{n}_{n + 13}" for n in range(4)]
    lines = ["#Video descriptions", *(f"{id_} a bird number {n} is bathing in a sink" for id_ in ids for n in range(2))]
    (root / "AllVideoDescriptions.txt").write_text("\n".join(lines) + "\n")
    (root / "test_list.txt").write_text("\n".join(ids[1:]) + "\n")
    for id_ in ids[1:]:
        video(root / "YouTubeClips" / f"{id_}.avi")


def didemo(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    rows = [
        {"video": f"12@N0_{n // 2}_ab.mp4", "description": f"moment {n} begins", "annotation_id": n, "times": [[0, 1]]} for n in range(6)
    ]
    (root / "test_data.json").write_text(json.dumps(rows))
    for n in range(3):
        video(root / "videos" / f"12@N0_{n}_ab.mp4")


def activitynet(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    rows = {f"v_{n}": {"duration": 80.0, "timestamps": [[0, 9.5], [9, 80]], "sentences": [f"First {n}.", f" Then {n}."]} for n in range(3)}
    (root / "val_1.json").write_text(json.dumps(rows))
    for name in rows:
        video(root / "videos" / f"{name}.mp4")


def nyu(root: Path) -> None:
    for scene in ("bathroom", "home_office"):
        for n in range(2):
            depth(root / "data/val" / scene / f"{n:05d}.png")
            picture(root / "rgb/val" / scene / f"{n:05d}.jpg")


def sunrgbd(root: Path) -> None:
    for n, scene in enumerate(["bathroom", "computer_room", "bathroom", "stairs"]):
        folder = root / "kv1/NYUdata" / f"NYU{n:04d}"
        depth(folder / "depth_bfx" / f"NYU{n:04d}.png")
        picture(folder / "image" / f"NYU{n:04d}.jpg")
        (folder / "scene.txt").write_text(scene)


def llvip(root: Path) -> None:
    for n in range(2):
        for kind in ("infrared", "visible"):
            picture(root / kind / "test" / f"19000{n}.jpg", (160, 120))
        xml = (
            "<annotation><size><width>160</width><height>120</height><depth>1</depth></size>"
            "<object><name>person</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>80</ymax></bndbox></object>"
            "<object><name>person</name><bndbox><xmin>60</xmin><ymin>20</ymin><xmax>64</xmax><ymax>24</ymax></bndbox></object></annotation>"
        )
        (root / "Annotations").mkdir(parents=True, exist_ok=True)
        (root / "Annotations" / f"19000{n}.xml").write_text(xml)


def _coco(path: Path, prefix: str, suffix: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
        "images": [{"id": n, "file_name": f"{prefix}FLIR_{n}{suffix}", "width": 64, "height": 48} for n in range(2)],
        "annotations": [{"image_id": n, "category_id": c, "bbox": [4 + c, 5, 20, 25]} for n in range(2) for c in (1, 3)],
    }
    path.write_text(json.dumps(document))


def flir1(root: Path) -> None:
    _coco(root / "val/thermal_annotations.json", "thermal_8_bit/", ".jpeg")
    for n in range(2):
        picture(root / "val/thermal_8_bit" / f"FLIR_{n}.jpeg")


def flir2(root: Path) -> None:
    _coco(root / "images_thermal_val/coco.json", "data/", ".jpg")
    for n in range(2):
        picture(root / "images_thermal_val/data" / f"FLIR_{n}.jpg")


MAKERS: dict[str, Callable[[Path], None]] = {
    "activitynet": activitynet,
    "audiocaps": audiocaps,
    "audioset": audioset,
    "clotho": clotho,
    "didemo": didemo,
    "esc50": esc50,
    "flir1": flir1,
    "flir2": flir2,
    "kinetics400": kinetics,
    "kinetics600": kinetics,
    "llvip": llvip,
    "msrvtt": msrvtt,
    "msvd": msvd,
    "nyu": nyu,
    "sunrgbd": sunrgbd,
    "vggsound": vggsound,
}
