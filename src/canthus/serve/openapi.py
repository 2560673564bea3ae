"""What of the OpenAPI document FastAPI cannot know: examples, and the schemas of faces and videos."""

from __future__ import annotations

import copy
import json
from importlib.resources import files
from typing import Any

from fastapi import FastAPI

EXAMPLES = {"/align": "example.json", "/track": "example_clip.json"}


def answer(description: str, schema: str) -> dict[str, Any]:
    """A successful answer by the schema of this name."""
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    return {"description": description, "content": {"application/json": content}}


def describe(app: FastAPI) -> None:
    """Add examples and schemas to the app's OpenAPI document, after its last route: each new one makes FastAPI forget
    it."""
    faces = json.loads(_text("faces").replace('"#/$defs/', '"#/components/schemas/'))
    video = _text("video").replace('"#/$defs/', '"#/components/schemas/video_')
    video = video.replace("../canthus.faces/1#/$defs/", "#/components/schemas/")
    video = video.replace("../canthus.faces/1#/", "#/components/schemas/Faces/")
    parts = {f"video_{name}": part for name, part in json.loads(video)["$defs"].items()}
    parts |= faces.pop("$defs")
    del faces["$schema"], faces["$id"]
    document = copy.deepcopy(app.openapi())
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update({"Faces": faces, "Video": parts.pop("video_whole"), **parts})
    for path, name in EXAMPLES.items():  # FastAPI would leave out what is null
        example = json.loads(files("canthus.serve").joinpath(name).read_text(encoding="utf-8"))
        document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["example"] = example
    app.openapi_schema = document


def _text(name: str) -> str:
    return files("canthus.face").joinpath(f"{name}.schema.json").read_text(encoding="utf-8")
