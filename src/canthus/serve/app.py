"""The HTTP interface: what comes in is checked and limited here, and aligned by a `Worker`."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Annotated, Any

import anyio
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from fastapi.security import APIKeyHeader
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import canthus
from canthus.errors import ImageError, ImageKindError, ImageSizeError, VideoError, VideoSizeError, amount
from canthus.face.faces import Faces
from canthus.inference.predictor import Predictor
from canthus.io.outputs import to_json
from canthus.serve.browser import add_browser_page, browser_page
from canthus.serve.clips import ClipLimits, ClipWorker, Job, Lack
from canthus.serve.jobs import Closed
from canthus.serve.openapi import answer, describe
from canthus.serve.upload import IMAGE, VIDEO, uploaded
from canthus.serve.worker import BATCH_IMAGES, QueueFull, Worker
from canthus.weights import shipped

KEY_HEADER = "X-API-Key"
LINES = "application/x-ndjson"  # what a client accepts that wants lines
ASK_EVERY = 1.0  # seconds, whether a client that waits is still there
GONE = "got no client any more, want it to wait"
# The page runs its own script and talks to this server alone.
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DESCRIPTION = """3D face landmarks, head pose and how sure they are, for photos and short clips.

    curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/align
    curl -F image=@photo.jpg http://127.0.0.1:8000/align
    curl -F video=@clip.mp4 http://127.0.0.1:8000/track

Errors are JSON with one sentence in `detail`."""
ERRORS = {
    401: f"The {KEY_HEADER} header is missing or wrong.",
    408: "The file took too long to arrive.",
    413: "The file has too many bytes, pixels, or, of a clip, frames or seconds.",
    415: "Neither such a file nor a form, or no known kind of image.",
    422: "The file is damaged, the form has no such field, or there are too many faces.",
    429: "Too many requests wait; try again later.",
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
    clips: ClipLimits = field(default_factory=ClipLimits)
    """What a clip may ask for."""


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
        self.clip_requests = Counter(
            "canthus_clip_requests", "Answers of /track by status.", ["status"], registry=self.registry
        )
        self.clip_seconds = Histogram(
            "canthus_clip_seconds", "Time of /track, to the last line.", buckets=(0.1, 0.5, 1, 2, 5, 10, 30, 60, 120),
            registry=self.registry,
        )  # fmt: skip
        self.clip_frames = Counter("canthus_clip_frames", "Frames of clips.", registry=self.registry)
        self.clip_faces = Counter("canthus_clip_faces", "Faces in frames of clips.", registry=self.registry)
        self.clips = Gauge("canthus_clips", "Clips under way.", registry=self.registry)

    def frame(self, faces: int) -> None:
        """Count a frame of a clip."""
        self.clip_frames.inc()
        self.clip_faces.inc(faces)


class _Measured:
    """ASGI middleware that counts and times the answers of /align and /track, refusals included."""

    def __init__(self, app: ASGIApp, metrics: _Metrics):
        self.app = app
        self.measures = {
            "/align": (metrics.requests, metrics.seconds),
            "/track": (metrics.clip_requests, metrics.clip_seconds),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in self.measures:
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
            requests, seconds = self.measures[scope["path"]]
            requests.labels(str(status)).inc()
            seconds.observe(time.perf_counter() - began)


def create_app(predictor: Predictor, limits: Limits | None = None, api_key: str | None = None) -> FastAPI:
    """An ASGI application that answers /align and /track by `predictor`, on a thread for each that lives as long as the
    application runs.

    With an `api_key`, /align, /track and /models want it in the header X-API-Key.
    """
    limits = Limits() if limits is None else limits
    metrics = _Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.worker = Worker(predictor, limits.pixels, limits.queue, metrics.batch.observe)
        app.state.clip_worker = ClipWorker(predictor, limits.clips, metrics.frame)
        app.state.clips = 0
        yield
        await anyio.to_thread.run_sync(app.state.worker.close)
        await anyio.to_thread.run_sync(app.state.clip_worker.close)

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
    errors: dict[int | str, dict[str, Any]] = {status: {"description": text} for status, text in ERRORS.items()}

    @app.post(
        "/align",
        summary="Find the faces in a photo",
        dependencies=[Depends(authorised)],
        openapi_extra={"requestBody": IMAGE.body()},
        responses={200: answer("The faces, best first.", "Faces"), **errors},
    )
    async def align(request: Request) -> Response:
        """The body is the image file, or a form (multipart/form-data) with the file in its field `image`.

        The answer is the JSON that `canthus align` writes: box, 68 landmarks, their uncertainty and visibility, and the
        pose of each face, in pixels of the upright image. No face gives an empty list.
        """
        late = anyio.current_time() + limits.seconds
        data, name = await uploaded(request, IMAGE, limits.bytes, limits.seconds)
        try:
            found = request.app.state.worker.submit(data, name or "image")
        except QueueFull:
            sentence = f"got a request while {limits.queue} wait, want it later"
            raise HTTPException(429, sentence, {"Retry-After": "1"}) from None
        except Closed:
            raise HTTPException(503, "got a request while shutting down, want it elsewhere") from None
        try:
            with anyio.fail_after(max(0.0, late - anyio.current_time())):
                faces = await _while_wanted(request, found)
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
            raise HTTPException(422, f"got an image with {amount(len(faces), 'face')}, want at most {limits.faces}")
        metrics.faces.inc(len(faces))
        return Response(json.dumps(to_json(faces, image=name), allow_nan=False), media_type="application/json")

    @app.post(
        "/track",
        summary="Follow the faces of a short clip",
        dependencies=[Depends(authorised)],
        openapi_extra={"requestBody": VIDEO.body()},
        responses={200: answer("The frames, first to last.", "Video"), **errors},
    )
    async def track(request: Request) -> Response:
        """The body is the video file, or a form (multipart/form-data) with the file in its field `video`.

        The answer is one JSON document: what holds for all frames, and `frames` with the faces of each, every face
        under a number that it keeps. With `Accept: application/x-ndjson` it is the lines that `canthus track` writes,
        each sent as soon as its frame is done; lines that end by an error end with one that has only `detail`. Where
        frames are missing, `missing` counts them and `problems` says why: in a last line, or beside `frames`.
        """
        state = request.app.state
        if state.clips >= limits.clips.queue:
            sentence = f"got a clip while {state.clips} are under way, want it later"
            raise HTTPException(429, sentence, {"Retry-After": "5"})
        clip = _Clip(state, limits)
        try:
            await clip.begin(request)
            if LINES in request.headers.get("accept", ""):
                return _ClipAnswer(clip, clip.lines(), LINES)
            return _ClipAnswer(clip, [await clip.document(request)], "application/json")
        except BaseException:
            clip.end()
            raise

    @app.get(
        "/models",
        summary="The weights that are served, and those shipped",
        dependencies=[Depends(authorised)],
        responses={401: errors[401]},
    )
    def models() -> dict[str, Any]:
        """Cards of weights: licence, training data and measurements."""
        return {"serving": asdict(predictor.card), "shipped": {name: asdict(card) for name, card in shipped().items()}}

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="Whether images are taken", responses={503: {"description": "Not, or no more."}})
    def healthz(request: Request) -> JSONResponse:
        ready = request.app.state.worker.ready
        return JSONResponse({"status": "ok" if ready else "closed"}, 200 if ready else 503)

    @app.get("/metrics", summary="Counts and times, for Prometheus", response_class=Response)
    def prometheus(request: Request) -> Response:
        metrics.waiting.set(request.app.state.worker.waiting)
        metrics.clips.set(request.app.state.clips)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    _add_page(app, "/docs", "docs.html")
    browser = browser_page()
    if browser is None:
        _add_page(app, "/", "page.html")
    else:
        add_browser_page(app, browser)
    describe(app)
    return app


async def _while_wanted(request: Request, found: Future[Faces]) -> Faces:
    """The answer, which is given up when the client goes."""
    awaited = asyncio.wrap_future(found)
    try:
        while not (await asyncio.wait({awaited}, timeout=ASK_EVERY))[0]:
            if await request.is_disconnected():
                raise HTTPException(400, GONE)
        return awaited.result()
    finally:
        awaited.cancel()  # an answer that is there stays


class _Clip:
    """One request of /track, which counts as under way from its making to `end`."""

    def __init__(self, state: Any, limits: Limits):
        self.state, self.limits, self.ended = state, limits, False
        self.late = time.monotonic() + limits.clips.seconds
        self.answers: asyncio.Queue[bytes | Lack | Exception | None] = asyncio.Queue()
        self.job: Job | None = None
        self.header = b""
        self.ask_at = 0.0  # when to ask next whether the client is still there
        state.clips += 1

    async def begin(self, request: Request) -> None:
        """Take the file, and wait for the first line. Raises `HTTPException`."""
        most, loop = self.limits.clips, asyncio.get_running_loop()
        data, name = await uploaded(request, VIDEO, most.bytes, min(self.limits.seconds, most.seconds))
        put: Callable[[Any], object] = lambda item: loop.call_soon_threadsafe(self.answers.put_nowait, item)
        self.job = Job(data, name or "video", self.late, put)
        try:
            self.state.clip_worker.submit(self.job)
        except Closed:
            raise HTTPException(503, "got a clip while shutting down, want it elsewhere") from None
        first = await self._next(request)
        self.header = first if isinstance(first, bytes) else b""

    async def _next(self, request: Request | None = None) -> bytes | Lack | None:
        """The next line; after the last what the clip lacks, and then None. With a request, the answer ends once its
        client is gone."""
        while True:
            now = time.monotonic()
            if request is not None and now >= self.ask_at:
                self.ask_at = now + ASK_EVERY
                if await request.is_disconnected():
                    raise HTTPException(400, GONE)
            left = self.late - now
            try:
                item = await asyncio.wait_for(self.answers.get(), max(0.0, min(left, ASK_EVERY)))
            except asyncio.TimeoutError:
                if left > ASK_EVERY:
                    continue
                item = TimeoutError()
            if isinstance(item, Exception):
                raise self._refusal(item) from item
            return item

    def _refusal(self, error: Exception) -> Exception:
        if isinstance(error, TimeoutError):
            most = self.limits.clips.seconds
            return HTTPException(504, f"found no answer in {most:g} s, want a shorter clip or fewer at a time")
        if isinstance(error, VideoSizeError):
            return HTTPException(413, str(error))
        return HTTPException(422, str(error)) if isinstance(error, VideoError) else error

    async def document(self, request: Request) -> bytes:
        """The whole answer. Raises `HTTPException`."""
        frames, lack = [], Lack(0, [])
        while (item := await self._next(request)) is not None:
            if isinstance(item, Lack):
                lack = item
            else:
                frames.append(item.rstrip())
        end = json.dumps(lack._asdict())[1:].encode()
        return self.header.rstrip()[:-1] + b', "frames": [' + b",\n".join(frames) + b"], " + end + b"\n"

    async def lines(self) -> AsyncIterator[bytes]:
        """The answer line by line."""
        try:
            yield self.header
            while (item := await self._next()) is not None:
                if not isinstance(item, Lack):
                    yield item
                elif item.missing or item.problems:
                    yield json.dumps(item._asdict()).encode() + b"\n"
        except HTTPException as error:
            yield json.dumps({"detail": error.detail}).encode() + b"\n"

    def end(self) -> None:
        """Stop the work; more of it is not wanted."""
        if self.job is not None:
            self.job.gone.set()
        if not self.ended:
            self.ended, self.state.clips = True, self.state.clips - 1


class _ClipAnswer(StreamingResponse):
    """What a clip answers with; the clip ends when it is sent, when its client goes, or when it is too late."""

    def __init__(self, clip: _Clip, content: Any, kind: str):
        super().__init__(content, media_type=kind)
        self.clip = clip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # a moment more, for the line that says so
            with anyio.move_on_after(max(0.0, self.clip.late - time.monotonic()) + 1.0):
                await super().__call__(scope, receive, send)
        finally:
            self.clip.end()


def _add_page(app: FastAPI, path: str, name: str) -> None:
    html = files("canthus.serve").joinpath(name).read_text(encoding="utf-8")

    @app.get(path, include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": PAGE_POLICY, "Referrer-Policy": "no-referrer"})
