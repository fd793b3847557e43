"""Lists of images and labels as other programs leave them, each with the small pictures that it lists."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

COLOURS = {0: (190, 60, 60), 1: (60, 190, 60), 2: (60, 60, 190)}
SPLITS = ("train",) * 7 + ("validation",) * 2 + ("test",) * 3
"""The splits of the 12 pictures of a class, in order."""


def pixels(kind: int, number: int) -> np.ndarray:
    """Return one noisy picture (24, 24, 3), uint8, whose colour is that of its kind."""
    noise = np.random.default_rng([kind, number]).integers(-50, 50, (24, 24, 3))
    return (np.array(COLOURS[kind]) + noise).astype(np.uint8)


def save(path: Path, kind: int, number: int) -> None:
    """Write one picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(kind, number)).save(path)


def automl(folder: Path) -> Path:
    """Google's AutoML and Vertex AI: an import file without a header, the split first, paths in a bucket."""
    lines = []
    for kind, label in enumerate(("daisy", "tulip")):
        for number, split in enumerate(SPLITS):
            name = f"{label}/IMG_{kind}{number:03}.jpg"
            save(folder / "flowers" / name, kind, number)
            lines.append(f"{split.upper()},gs://my-project-vcm/flowers/{name},{label}")
    (folder / "import.csv").write_text("\n".join(lines) + "\n")
    return folder / "import.csv"


def ground_truth(folder: Path) -> Path:
    """Amazon's SageMaker Ground Truth: output.manifest, JSON lines with a number and the name in its metadata."""
    lines = []
    for kind, label in enumerate(("scratch", "clean")):
        for number in range(12):
            save(folder / "images" / f"part-{kind}{number:03}.jpg", kind, number)
            line = {
                "source-ref": f"s3://acme-line-4/images/part-{kind}{number:03}.jpg",
                "surface": kind,
                "surface-metadata": {
                    "class-name": label,
                    "job-name": "labeling-job/surface",
                    "confidence": 0.9 + number / 1000,
                    "type": "groundtruth/image-classification",
                    "human-annotated": "yes",
                    "creation-date": f"2023-03-01T10:{number:02}:{kind:02}.000000",
                },
            }
            lines.append(json.dumps(line))
    (folder / "output.manifest").write_text("\n".join(lines) + "\n")
    return folder / "output.manifest"


def mxnet(folder: Path) -> Path:
    """MXNet and GluonCV: im2rec's .lst, a number, a class as a float and a path, between tabs, without a header."""
    lines = []
    for kind, label in enumerate(("bolt", "nut", "washer")):
        for number in range(12):
            save(folder / label / f"{number:04}.jpg", kind, number)
            lines.append(f"{5 * number + 60 * kind}\t{kind:.6f}\t{label}/{number:04}.jpg")
    (folder / "parts_train.lst").write_text("\n".join(lines) + "\n")
    return folder / "parts_train.lst"


def timelapse(folder: Path) -> Path:
    """Timelapse and other camera trap programs: the folder in one column, the file in another; names repeat."""
    lines = ["RootFolder,File,RelativePath,DateTime,DeleteFlag,Species,Count,Analyst"]
    for kind, species in enumerate(("Fox", "Boar")):
        for number in range(12):
            station, name = f"Station{1 + number % 3}\\100RECNX", f"RCNX{1 + number // 3 + 10 * kind:04}.JPG"
            save(folder / station.replace("\\", "/") / name, kind, number)
            when = f"2022-05-{1 + number:02} 04:1{kind}:00"
            lines.append(f"Forest2022,{name},{station},{when},false,{species},1,jm")
    (folder / "TimelapseData.csv").write_text("\n".join(lines) + "\n")
    return folder / "TimelapseData.csv"


def faces(folder: Path) -> Path:
    """FER2013, and MNIST as a table: the pixels themselves are in the table, and there are no files."""
    lines = ["emotion,pixels,Usage"]
    for kind in (0, 3):
        for number, split in enumerate(SPLITS):
            usage = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}[split]
            grey = pixels(kind // 3, number)[..., 0].ravel()
            lines.append(f"{kind},{' '.join(map(str, grey))},{usage}")
    (folder / "fer2013.csv").write_text("\n".join(lines) + "\n")
    return folder / "fer2013.csv"


def hub(folder: Path) -> Path:
    """A file downloaded from the hub: Parquet in which each image is {bytes, path} and labels are numbers."""
    rows = []
    for kind in (0, 1):
        for number in range(12):
            file = io.BytesIO()
            Image.fromarray(pixels(kind, number)).save(file, "JPEG")
            rows.append({"image": {"bytes": file.getvalue(), "path": f"{kind}{number:03}.jpg"}, "label": kind})
    features = {"image": {"_type": "Image"}, "label": {"names": ["bean rust", "healthy"], "_type": "ClassLabel"}}
    table = pa.Table.from_pylist(rows)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (folder / "data").mkdir()
    parquet.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    return folder / "data" / "train-00000-of-00001.parquet"


def roboflow(folder: Path) -> Path:
    """Roboflow's multi-label CSV export: _classes.csv in each split's folder, a space after every comma."""
    names = ("crack", "hole", "ok")
    for folder_name, split in (("train", "train"), ("valid", "validation"), ("test", "test")):
        lines = ["filename, " + ", ".join(names)]
        for kind in range(3):
            for number in (number for number, given in enumerate(SPLITS) if given == split):
                name = f"IMG_{kind}{number:03}_jpg.rf.{kind}{number:02}c4f8e2.jpg"
                save(folder / folder_name / name, kind, number)
                lines.append(f"{name}, " + ", ".join(str(int(other == kind)) for other in range(3)))
        (folder / folder_name / "_classes.csv").write_text("\n".join(lines) + "\n")
    (folder / "README.roboflow.txt").write_text("https://universe.roboflow.com\n")
    return folder


def pets(folder: Path) -> Path:
    """Oxford-IIIT Pets and other lists of researchers: lines of # first, fields between spaces, no header, no suffix.

    The last columns are numbers of the class, the species and the breed within its species.
    """
    lines = ["#Image CLASS-ID SPECIES BREED ID", "#ID: 1:37 Class ids", "#SPECIES: 1:Cat 2:Dog"]
    for kind, breed in enumerate(("Abyssinian", "Beagle", "Birman")):
        for number in range(12):
            save(folder / "images" / f"{breed}_{number}.jpg", kind, number)
            lines.append(f"{breed}_{number} {kind + 1} {(1, 2, 1)[kind]} {(1, 1, 2)[kind]}")
    (folder / "annotations").mkdir()
    (folder / "annotations" / "list.txt").write_text("\n".join(lines) + "\n")
    return folder / "annotations" / "list.txt"


def votes(folder: Path) -> Path:
    """Zooniverse, Mechanical Turk and hospitals with several readers: a row for each reader; some do not agree."""
    lines = ["classification_id,user_name,filename,annotation"]
    for kind, label in enumerate(("spiral", "smooth")):
        for number in range(12):
            save(folder / "subjects" / f"{kind}{number:03}.jpg", kind, number)
            for voter in range(3):
                said = ("spiral", "smooth")[1 - kind] if number < 3 and voter == 2 else label
                lines.append(f"{len(lines)},not-logged-in-{voter},{kind}{number:03}.jpg,{said}")
    (folder / "classifications.csv").write_text("\n".join(lines) + "\n")
    return folder / "classifications.csv"


def report(folder: Path) -> Path:
    """Laboratories and inspection machines: a title above the header, empty columns and lines, a total at the end."""
    text = io.StringIO()
    rows = csv.writer(text, delimiter=";", lineterminator="\r\n")
    rows.writerows(
        [["Inspection report line 4", "", "", "", ""], ["Exported 01.03.2024 10:15", "", "", "", ""], [""] * 5]
    )
    rows.writerow(["No.", "Image file", "Result", "Remark", ""])
    for kind, label in enumerate(("OK", "NOK")):
        for number in range(12):
            save(folder / "Images" / f"L4_{kind}{number:03}.bmp", kind, number)
            rows.writerow([12 * kind + number + 1, f"L4_{kind}{number:03}.bmp", label, "", ""])
    rows.writerows([[""] * 5] * 20)
    rows.writerow(["Total:", "", 24, "", ""])
    (folder / "report.csv").write_bytes(text.getvalue().encode("utf-8-sig"))
    return folder / "report.csv"
