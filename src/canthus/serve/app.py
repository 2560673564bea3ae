"""The HTTP interface: what comes in is checked and limited here, and aligned by a `Worker`."""

from __future__ import annotations

import asyncio
import copy
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Annotated, Any

import anyio
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import APIKeyHeader
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import canthus
from canthus.errors import ImageError, ImageKindError, ImageSizeError
from canthus.inference.predictor import Predictor
from canthus.io.outputs import to_json
from canthus.serve.browser import add_browser_page, browser_page
from canthus.serve.worker import BATCH_IMAGES, Closed, QueueFull, Worker
from canthus.weights import shipped

FIELD = "image"  # of a form
FORM_OVERHEAD = 2**16  # bytes of a form beside its image
KEY_HEADER = "X-API-Key"
# The page runs its own script and talks to this server alone.
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DESCRIPTION = """3D face landmarks, head pose and how sure they are, for photos.

    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/align
    curl -F image=@photo.jpg http://127.0.0.1:8000/align

Errors are JSON with one sentence in `detail`."""
ERRORS = {
    401: f"The {KEY_HEADER} header is missing or wrong.",
    408: "The image took too long to arrive.",
    413: "The image has too many bytes or pixels.",
    415: "Neither an image nor a form, or no known kind of image.",
    422: "The image is damaged, the form has no field `image`, or there are too many faces.",
    429: "Too many images wait; try again later.",
    503: "The server is shutting down.",
    504: "The faces were not found in time.",
}


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many may wait."""

    bytes: int = 20_000_000
    """Length of an image file."""
    pixels: int = 40_000_000
    """Width times height of an image."""
    faces: int = 100
    """Faces in an image."""
    seconds: float = 30.0
    """From a request's beginning to its answer."""
    queue: int = 64
    """Images that wait while others are aligned."""


class _Metrics:
    """What /metrics shows; a registry an app, so that apps do not count each other's requests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        seconds = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
        self.requests = Counter("canthus_requests", "Answers of /align by status.", ["status"], registry=self.registry)
        self.seconds = Histogram("canthus_request_seconds", "Time of /align.", buckets=seconds, registry=self.registry)
        self.batch = Histogram(
            "canthus_batch_images", "Images aligned together.", buckets=(1, 2, 4, 8, BATCH_IMAGES),
            registry=self.registry,
        )  # fmt: skip
        self.faces = Counter("canthus_faces", "Faces found.", registry=self.registry)
        self.waiting = Gauge("canthus_queue_images", "Images that wait.", registry=self.registry)


class _Measured:
    """ASGI middleware that counts and times the answers of /align, refusals included."""

    def __init__(self, app: ASGIApp, metrics: _Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/align":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            self.metrics.requests.labels(str(status)).inc()
            self.metrics.seconds.observe(time.perf_counter() - began)


def create_app(predictor: Predictor, limits: Limits | None = None, api_key: str | None = None) -> FastAPI:
    """An ASGI application that answers /align by `predictor`, on one thread that lives as long as the application runs.

    With an `api_key`, /align and /models want it in the header X-API-Key.
    """
    limits = Limits() if limits is None else limits
    metrics = _Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.worker = Worker(predictor, limits.pixels, limits.queue, metrics.batch.observe)
        yield
        await anyio.to_thread.run_sync(app.state.worker.close)

    def authorised(given: Annotated[str | None, Depends(APIKeyHeader(name=KEY_HEADER, auto_error=False))]) -> None:
        if api_key is not None and not secrets.compare_digest((given or "").encode(), api_key.encode()):
            raise HTTPException(401, f"got no or a wrong API key, want it in the header {KEY_HEADER}")

    app = FastAPI(
        title="canthus",
        version=canthus.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load their scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(_Measured, metrics=metrics)

    @app.post(
        "/align",
        summary="Find the faces in a photo",
        dependencies=[Depends(authorised)],
        openapi_extra={"requestBody": _REQUEST_BODY},
        responses={200: _answer(), **{status: {"description": text} for status, text in ERRORS.items()}},
    )
    async def align(request: Request) -> Response:
        """The body is the image file, or a form (multipart/form-data) with the file in its field `image`.

        The answer is the JSON that `canthus align` writes: box, 68 landmarks, their uncertainty and visibility, and the
        pose of each face, in pixels of the upright image. No face gives an empty list.
        """
        late = anyio.current_time() + limits.seconds
        try:
            with anyio.fail_after(limits.seconds):
                data, name = await _upload(request, limits.bytes)
        except TimeoutError:
            raise HTTPException(408, f"got no whole image in {limits.seconds:g} s, want it sooner") from None
        except ClientDisconnect:
            raise HTTPException(400, "got a part of an image, want it whole") from None  # for the metrics: nobody hears
        try:
            answer = request.app.state.worker.submit(data, name or "image")
        except QueueFull:
            sentence = f"got a request while {limits.queue} wait, want it later"
            raise HTTPException(429, sentence, {"Retry-After": "1"}) from None
        except Closed:
            raise HTTPException(503, "got a request while shutting down, want it elsewhere") from None
        try:
            with anyio.fail_after(max(0.0, late - anyio.current_time())):
                faces = await asyncio.wrap_future(answer)
        except TimeoutError:
            raise HTTPException(
                504, f"found no answer in {limits.seconds:g} s, want fewer requests at a time"
            ) from None
        except ImageSizeError as error:
            raise HTTPException(413, str(error)) from error
        except ImageKindError as error:
            raise HTTPException(415, str(error)) from error
        except ImageError as error:
            raise HTTPException(422, str(error)) from error
        if len(faces) > limits.faces:
            raise HTTPException(422, f"got an image with {len(faces)} faces, want at most {limits.faces}")
        metrics.faces.inc(len(faces))
        return Response(json.dumps(to_json(faces, image=name), allow_nan=False), media_type="application/json")

    @app.get("/models", summary="The weights that are served, and those shipped", dependencies=[Depends(authorised)])
    def models() -> dict[str, Any]:
        """Cards of weights: licence, training data and measurements."""
        return {"serving": asdict(predictor.card), "shipped": {name: asdict(card) for name, card in shipped().items()}}

    @app.get("/healthz", summary="Whether images are taken", responses={503: {"description": "Not, or no more."}})
    def healthz(request: Request) -> JSONResponse:
        ready = request.app.state.worker.ready
        return JSONResponse({"status": "ok" if ready else "closed"}, 200 if ready else 503)

    @app.get("/metrics", summary="Counts and times, for Prometheus", response_class=Response)
    def prometheus(request: Request) -> Response:
        metrics.waiting.set(request.app.state.worker.waiting)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    _add_page(app, "/docs", "docs.html")
    browser = browser_page()
    if browser is None:
        _add_page(app, "/", "page.html")
    else:
        add_browser_page(app, browser)
    _describe(app)  # after the last route: each new one makes FastAPI forget its document
    return app


async def _upload(request: Request, limit: int) -> tuple[bytes, str | None]:
    """The image file that a request brings, and its name if it has one; held in memory, as there may be no disk."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    form = kind == "multipart/form-data"
    if not (form or kind.startswith("image/") or kind == "application/octet-stream"):
        raise HTTPException(
            415, f"got the Content-Type {kind!r}, want image/jpeg or the like, application/octet-stream or a form"
        )
    most = limit + FORM_OVERHEAD * form
    too_long = HTTPException(413, f"got an image of more bytes than {limit}, want at most so many")
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
    upload = fields.get(FIELD)
    if not isinstance(upload, UploadFile):
        raise HTTPException(422, f"got a form with {sorted(fields)}, want a file in the field {FIELD!r}")
    data = await upload.read()
    if len(data) > limit:
        raise too_long
    return data, upload.filename


def _add_page(app: FastAPI, path: str, name: str) -> None:
    html = files("canthus.serve").joinpath(name).read_text(encoding="utf-8")

    @app.get(path, include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": PAGE_POLICY, "Referrer-Policy": "no-referrer"})


# What of the OpenAPI document FastAPI cannot know.

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "required": [FIELD], "properties": {FIELD: {"type": "string", "format": "binary"}}}
_REQUEST_BODY = {
    "required": True,
    "content": {
        "image/*": _BYTES,
        "application/octet-stream": _BYTES,
        "multipart/form-data": {"schema": _FORM},
    },
}


def _answer() -> dict[str, Any]:
    example = json.loads(files("canthus.serve").joinpath("example.json").read_text(encoding="utf-8"))
    content = {"schema": {"$ref": "#/components/schemas/Faces"}, "example": example}
    return {"description": "The faces, best first.", "content": {"application/json": content}}


def _describe(app: FastAPI) -> None:
    """Add the schema of the faces to the app's OpenAPI document."""
    text = files("canthus.face").joinpath("faces.schema.json").read_text(encoding="utf-8")
    faces = json.loads(text.replace("#/$defs/", "#/components/schemas/"))
    parts = faces.pop("$defs")
    del faces["$schema"], faces["$id"]
    document = copy.deepcopy(app.openapi())
    document.setdefault("components", {}).setdefault("schemas", {}).update({"Faces": faces, **parts})
    app.openapi_schema = document
