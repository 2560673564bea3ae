"""Bulk renderer on OpenGL without a window (moderngl + EGL); on a machine without a GPU it runs on llvmpipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import moderngl
import numpy as np
from PIL import Image

from canthus.io.images import GAMMA
from canthus.synth.light import Light
from canthus.synth.scene import PerspectiveCamera, Piece, light_matrix

SHADE_VERTEX = """#version 330
uniform mat4 clip_from_head; uniform mat3 camera_from_head; uniform mat4 light_from_head;
in vec3 position; in vec3 normal; in vec2 uv; in vec3 colour;
out vec3 v_normal; out vec2 v_uv; out vec3 v_colour; out vec3 v_light;
void main() {
  gl_Position = clip_from_head * vec4(position, 1);
  v_normal = camera_from_head * normal; v_uv = uv; v_colour = colour;
  v_light = (light_from_head * vec4(position, 1)).xyz * 0.5 + 0.5;
}"""

# Wrapped diffuse light, with a wider wrap in red, approximates subsurface scattering; the specular part is Blinn-Phong
# with a Fresnel term.
SHADE_FRAGMENT = (
    f"#version 330\n#define GAMMA {GAMMA}"
    + """
uniform sampler2D image; uniform sampler2D shadow_map; uniform bool textured;
uniform vec3 ambient[9]; uniform vec3 sun_direction; uniform vec3 sun;
uniform float gloss; uniform float alpha; uniform float cutout; uniform float shadow;
in vec3 v_normal; in vec2 v_uv; in vec3 v_colour; in vec3 v_light; out vec4 result;
float lit() {
  float sum = 0.0; vec2 texel = 1.5 / vec2(textureSize(shadow_map, 0));
  for (int i = -1; i <= 1; i++) for (int j = -1; j <= 1; j++)
    sum += texture(shadow_map, v_light.xy + vec2(i, j) * texel).r > v_light.z - 0.008 ? 1.0 : 0.0;
  return mix(1.0, sum / 9.0, shadow);
}
void main() {
  vec3 n = normalize(v_normal); if (!gl_FrontFacing) n = -n;
  vec4 t = textured ? texture(image, v_uv) : vec4(1);
  if (t.a < cutout) discard;
  vec3 albedo = pow(t.rgb, vec3(GAMMA)) * v_colour;
  vec3 irradiance = ambient[0] * 0.282095 + 0.488603 * (ambient[1] * n.y + ambient[2] * n.z + ambient[3] * n.x)
    + 1.092548 * (ambient[4] * n.x * n.y + ambient[5] * n.y * n.z + ambient[7] * n.x * n.z)
    + 0.315392 * ambient[6] * (3.0 * n.z * n.z - 1.0) + 0.546274 * ambient[8] * (n.x * n.x - n.y * n.y);
  float facing = dot(n, sun_direction); vec3 soft = vec3(0.30, 0.12, 0.08);
  vec3 wrapped = clamp((vec3(facing) + soft) / (1.0 + soft), 0.0, 1.0);
  vec3 h = normalize(sun_direction + vec3(0, 0, 1));
  float fresnel = 0.04 + 0.96 * pow(1.0 - max(h.z, 0.0), 5.0);
  float s = lit();
  vec3 colour = albedo * (max(irradiance, 0.0) + sun * wrapped * s)
    + sun * s * gloss * fresnel * pow(max(dot(n, h), 0.0), 28.0) * 8.0 * max(facing, 0.0);
  result = vec4(pow(max(colour, 0.0), vec3(1.0 / GAMMA)), t.a * alpha);
}"""
)

DEPTH_VERTEX = """#version 330
uniform mat4 clip_from_head; in vec3 position; in vec2 uv; out vec2 v_uv;
void main() { gl_Position = clip_from_head * vec4(position, 1); v_uv = uv; }"""

DEPTH_FRAGMENT = """#version 330
uniform sampler2D image; uniform bool textured; uniform float cutout; in vec2 v_uv;
void main() { if (textured && texture(image, v_uv).a < cutout) discard; }"""


class OpenGLRenderer:
    """A `Renderer` on OpenGL. Edges are not smoothed: drawing larger and downsampling costs half of multisampling on
    llvmpipe."""

    def __init__(self, size: int):
        self.size = size
        self.context: Any = moderngl.create_context(standalone=True, backend="egl")  # type: ignore[arg-type]
        c = self.context
        self.shade: Any = c.program(vertex_shader=SHADE_VERTEX, fragment_shader=SHADE_FRAGMENT)
        self.depth: Any = c.program(vertex_shader=DEPTH_VERTEX, fragment_shader=DEPTH_FRAGMENT)
        self.canvas = c.framebuffer(c.renderbuffer((size, size), 4), c.depth_renderbuffer((size, size)))
        self.shadow_map = c.depth_texture((size, size))
        self.shadow_map.compare_func = ""
        self.shadow_map.repeat_x = self.shadow_map.repeat_y = False
        self.shadow_target = c.framebuffer(depth_attachment=self.shadow_map)
        self.sized_targets: dict[int, tuple[Any, Any]] = {}  # depth of some pieces, by size of the picture
        self.textures: dict[str, moderngl.Texture] = {}
        self.loaded: list[tuple[Piece, moderngl.VertexArray, moderngl.VertexArray, list[moderngl.Buffer]]] = []

    def texture(self, key: str, image: Image.Image | np.ndarray) -> None:
        """Upload a texture under a key; an existing one is replaced."""
        self.context.__enter__()  # a process may have two renderers
        rgba = np.asarray(image if isinstance(image, np.ndarray) else image.convert("RGBA"))
        if key in self.textures:
            self.textures[key].release()
        t = self.context.texture((rgba.shape[1], rgba.shape[0]), 4, np.ascontiguousarray(rgba[::-1]).tobytes())
        t.build_mipmaps()
        t.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        self.textures[key] = t

    def load(self, pieces: Sequence[Piece]) -> None:
        """Set the pieces that the next draws show; transparent ones are drawn last."""
        self.context.__enter__()
        for _, full, bare, buffers in self.loaded:
            full.release()
            bare.release()
            for b in buffers:
                b.release()
        self.loaded = []
        for p in sorted(pieces, key=lambda p: p.alpha < 1):
            data = np.column_stack([p.vertices, p.normals, p.uv, p.colour]).astype("f4")
            vertices, index = (
                self.context.buffer(data.tobytes()),
                self.context.buffer(p.triangles.astype("i4").tobytes()),
            )
            full = self.context.vertex_array(
                self.shade, [(vertices, "3f 3f 2f 3f", "position", "normal", "uv", "colour")], index
            )
            bare = self.context.vertex_array(self.depth, [(vertices, "3f 12x 2f 12x", "position", "uv")], index)
            self.loaded.append((p, full, bare, [vertices, index]))

    def draw(self, camera: PerspectiveCamera, light: Light, shadow: float) -> np.ndarray:
        """The picture (S,S,4) uint8, alpha = coverage."""
        self.context.__enter__()
        c = self.context
        head_light = camera.rotation.T @ light.direction
        light_from_head = light_matrix(head_light, camera.target)
        self._draw_depth(self.shadow_target, light_from_head)
        clip = camera.clip_from_head(self.size)
        self.canvas.use()
        self.canvas.clear(0, 0, 0, 0)
        c.enable(moderngl.DEPTH_TEST | moderngl.BLEND)
        c.blend_func = moderngl.SRC_ALPHA, moderngl.ONE_MINUS_SRC_ALPHA, moderngl.ONE, moderngl.ONE_MINUS_SRC_ALPHA
        s = self.shade
        s["clip_from_head"].write(clip.T.astype("f4").tobytes())
        s["camera_from_head"].write(camera.rotation.T.astype("f4").tobytes())
        s["light_from_head"].write(light_from_head.T.astype("f4").tobytes())
        s["ambient"].write(light.ambient.astype("f4").tobytes())
        s["sun_direction"].value = tuple(light.direction)
        s["sun"].value = tuple(light.sun)
        s["shadow"].value = shadow
        s["image"].value, s["shadow_map"].value = 0, 1
        self.shadow_map.use(1)
        for piece, full, _, _ in self.loaded:
            s["textured"].value = piece.texture is not None
            if piece.texture is not None:
                self.textures[piece.texture].use(0)
            s["gloss"].value, s["alpha"].value, s["cutout"].value = piece.gloss, piece.alpha, piece.cutout
            full.render()
        return np.frombuffer(self.canvas.read(components=4), np.uint8).reshape(self.size, self.size, 4)[::-1]

    def depth_of(self, camera: PerspectiveCamera, wanted: Callable[[Piece], bool], size: int) -> np.ndarray:
        """q_z in cm of the nearest opaque surface of the wanted pieces alone, (size,size); -inf where there is none.

        The camera's pixels are those of a picture of `size` px.
        """
        self.context.__enter__()
        if size not in self.sized_targets:
            texture = self.context.depth_texture((size, size))
            self.sized_targets[size] = texture, self.context.framebuffer(depth_attachment=texture)
        texture, target = self.sized_targets[size]
        self._draw_depth(target, camera.clip_from_head(size), wanted)
        buffer = np.frombuffer(texture.read(), np.float32).reshape(size, size)[::-1]
        return np.where(buffer < 1, camera.depth_from_buffer(buffer), -np.inf)

    def _draw_depth(self, target: Any, clip: np.ndarray, wanted: Callable[[Piece], bool] = lambda p: True) -> None:
        target.use()
        target.clear(depth=1.0)
        self.context.enable(moderngl.DEPTH_TEST)
        self.depth["clip_from_head"].write(clip.T.astype("f4").tobytes())
        self.depth["image"].value = 0
        for piece, _, bare, _ in self.loaded:
            if not (piece.casts_shadow and wanted(piece)):
                continue
            self.depth["textured"].value = piece.texture is not None
            if piece.texture is not None:
                self.textures[piece.texture].use(0)
            self.depth["cutout"].value = max(piece.cutout, 0.01)
            bare.render()
