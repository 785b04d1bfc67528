"""Questions about images and images to describe: A-OKVQA and records like TARA's. Images are named by path."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindworks.data.agent_tasks.records import (
    as_object,
    each,
    json_array,
    json_lines,
    plain_name,
    read_bytes,
    read_text,
    shown,
    text_of,
    texts_of,
)
from mindworks.errors import InputError, require

COCO = "coco/{split}2017/{image_id:012}.jpg"
"""Where A-OKVQA's images lie in its own layout; https://github.com/allenai/aokvqa"""
_BETWEEN = "_!_"
_CAPTION_FIELDS = ("abstract", "paragraph", "entities", "image", "place")
_LARGEST = 20 * 2**20  # bytes


@dataclass(frozen=True)
class VisualQuestion:
    """One multiple-choice question about an image."""

    question_id: str
    """the question's name"""
    question: str
    """what is asked"""
    options: tuple[str, ...]
    """the texts to choose from"""
    answer: int | None
    """the index of the right option; none in the part whose answers are kept back"""
    image: Path
    """the image's file; whether it exists is not looked up"""
    direct_answers: tuple[str, ...] = ()
    """answers in free words, one per person asked"""


@dataclass(frozen=True)
class CaptionTask:
    """One image of a news article, to be described with place, time and event."""

    abstract: str
    """of the article"""
    paragraph: str
    """of the article, beside the image"""
    entities: str
    """the text that a description is compared with"""
    image: Path
    """the image's file; whether it exists is not looked up"""
    place: str
    """where it was taken"""


def read_aokvqa(path: str | Path, images: str = COCO) -> list[VisualQuestion]:
    """Read A-OKVQA from its JSON file, such as `aokvqa_v1p0_val.json`.

    `images` is the pattern of an image's path, with `{image_id}` and `{split}` filled in from the record. Raises
    `InputError` for a pattern that cannot be filled in, and for a bad record with its file and line.
    """
    return each(path, json_array(path), lambda place, record: _visual(place, as_object(place, record), images))


def _visual(place: str, record: dict[str, Any], images: str) -> VisualQuestion:
    options = texts_of(place, record, "choices", 2)
    answer, image_id = record.get("correct_choice_idx"), record.get("image_id")
    known = answer is None or (type(answer) is int and 0 <= answer < len(options))
    require(known, f"{place}: 'correct_choice_idx' must be from 0 to {len(options) - 1}, got {shown(answer)}")
    whole = type(image_id) is int and image_id >= 0
    require(whole, f"{place}: 'image_id' must be a whole number, got {shown(image_id)}")
    split = plain_name(place, "split", text_of(place, record, "split")) if "{split" in images else ""
    direct = texts_of(place, record, "direct_answers", 0) if record.get("direct_answers") is not None else ()
    names = (text_of(place, record, "question_id"), text_of(place, record, "question"))
    return VisualQuestion(*names, options, answer, _filled(images, split, image_id), direct)


def _filled(images: str, split: str, image_id: Any) -> Path:
    try:
        return Path(images.format(split=split, image_id=image_id))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(f"images must be a pattern of {{split}} and {{image_id}}, got {images!r}") from error


def read_tara(path: str | Path, images: str | Path) -> list[CaptionTask]:
    """Read records of images to describe, whose files lie in the folder `images`.

    A line holds abstract, paragraph, entities, image and place, with `_!_` between them, as in the file that came with
    the mindstorm experiments; a file that ends in `.jsonl` holds objects with these five fields instead. Raises
    `InputError` that names the file and the line.
    """
    records = json_lines(path) if Path(path).suffix == ".jsonl" else _tara_lines(path)
    return each(path, records, lambda place, record: _caption(place, record, Path(images)))


def _tara_lines(path: str | Path) -> Any:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            fields, place = line.rstrip("\r").split(_BETWEEN), f"{path}:{number}"
            count = len(_CAPTION_FIELDS)
            require(
                len(fields) == count, f"{place} must have {count} fields with {_BETWEEN} between, got {len(fields)}"
            )
            yield place, dict(zip(_CAPTION_FIELDS, fields, strict=True))


def _caption(place: str, record: dict[str, Any], folder: Path) -> CaptionTask:
    optional = ("abstract", "paragraph", "place")
    abstract, paragraph, entities, image, where = (
        text_of(place, record, field, empty=field in optional).strip() for field in _CAPTION_FIELDS
    )
    return CaptionTask(abstract, paragraph, entities, folder / plain_name(place, "image", image), where)


def image_url(path: str | Path) -> str:
    """Return the image in a file as a `data:` URL, the form in which chat endpoints take images.

    PNG, JPEG, GIF and WebP are known by their first bytes, so that no other file is ever sent to an endpoint. Raises
    `InputError` that names the file if it is none of these, larger than 20 MiB, or cannot be read.
    """
    content = read_bytes(path)
    require(len(content) <= _LARGEST, f"{path} must have at most {_LARGEST} bytes, got {len(content)}")
    kind = _kind(content)
    require(bool(kind), f"{path} is no PNG, JPEG, GIF or WebP: it starts with 0x{content[:4].hex()}")
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"


def _kind(content: bytes) -> str:
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "webp"
    marks = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF87a": "gif", b"GIF89a": "gif"}
    return next((kind for mark, kind in marks.items() if content.startswith(mark)), "")
