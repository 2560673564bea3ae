"""The file that a request brings, as the body or in a form; held in memory, as there may be no disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anyio
from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

FORM_OVERHEAD = 2**16  # bytes of a form beside its file


@dataclass(frozen=True)
class Wanted:
    """What a path takes: `what`, such as 'image', is also the name of the field of a form; `kinds` are how the content
    types of such files begin."""

    what: str
    kinds: tuple[str, ...]
    example: str

    def body(self) -> dict[str, Any]:
        """The body in an OpenAPI document."""
        data = {"type": "string", "format": "binary"}
        form = {"type": "object", "required": [self.what], "properties": {self.what: data}}
        types = [f"{kind}*" if kind.endswith("/") else kind for kind in self.kinds]
        content = {kind: {"schema": data} for kind in [*types, "application/octet-stream"]}
        return {"required": True, "content": {**content, "multipart/form-data": {"schema": form}}}


IMAGE = Wanted("image", ("image/",), "image/jpeg")
VIDEO = Wanted("video", ("video/", "image/gif", "image/webp"), "video/mp4")


async def uploaded(request: Request, wanted: Wanted, limit: int, seconds: float) -> tuple[bytes, str | None]:
    """The bytes of the file, at most `limit`, and its name if it has one. Raises `HTTPException`."""
    try:
        with anyio.fail_after(seconds):
            return await _read(request, wanted, limit)
    except TimeoutError:
        raise HTTPException(408, f"got no whole {wanted.what} in {seconds:g} s, want it sooner") from None
    except ClientDisconnect:  # for the metrics: nobody hears
        raise HTTPException(400, f"got a part of a file ({wanted.what}), want it whole") from None


async def _read(request: Request, wanted: Wanted, limit: int) -> tuple[bytes, str | None]:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    form = kind == "multipart/form-data"
    if not (form or kind.startswith(wanted.kinds) or kind == "application/octet-stream"):
        likely = f"{wanted.example} or the like, application/octet-stream or a form"
        raise HTTPException(415, f"got the Content-Type {kind!r}, want {likely}")
    most = limit + FORM_OVERHEAD * form
    too_long = HTTPException(413, f"got a file ({wanted.what}) of more bytes than {limit}, want at most so many")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_long
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise too_long
    if not form:
        return bytes(body), None

    async def whole() -> Any:
        yield bytes(body)

    parser = MultiPartParser(request.headers, whole(), max_files=1, max_fields=8)
    parser.spool_max_size = most + 1  # never to a file
    try:
        fields = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(422, f"got a form that cannot be read ({error.message}), want one with one file") from error
    upload = fields.get(wanted.what)
    if not isinstance(upload, UploadFile):
        raise HTTPException(422, f"got a form with {sorted(fields)}, want a file in the field {wanted.what!r}")
    data = await upload.read()
    if len(data) > limit:
        raise too_long
    return data, upload.filename
