/** A turning head with 52 expressions, drawn by three.js: canthus's own head model, as tools/build_web.py writes it. */

import * as THREE from "three";

const COLOURS = {skin: 0xc99a80, eyes: 0xf4f1ec, teeth: 0xeeeae0, tongue: 0xb5605c};
const IRIS = 0.5, PUPIL = 0.2;  // of the eye's radius
const FOLLOW = 0.35;  // of the way to the newest pose, a drawn frame

export class Head {
  /** A head on `canvas`, from head.json and head.bin in `folder`. Throws where there is no WebGL. */
  static async on(canvas, folder) {
    const [about, bytes] = await Promise.all([
      fetch(`${folder}head.json`).then(answer => answer.json()),
      fetch(`${folder}head.bin`).then(answer => answer.arrayBuffer()),
    ]);
    return new Head(canvas, about, bytes);
  }

  constructor(canvas, {vertices, triangles, expressions, scales, parts}, bytes) {
    this.neutral = new Float32Array(bytes, 0, 3 * vertices);
    this.moves = expressions.map((_, k) => new Int16Array(bytes, 12 * vertices + 6 * vertices * k, 3 * vertices));
    const corners = new Uint16Array(bytes, 12 * vertices + 6 * vertices * expressions.length, 3 * triangles);
    this.expressions = expressions;
    this.scales = scales;

    this.geometry = new THREE.BufferGeometry();
    this.geometry.setAttribute("position", new THREE.BufferAttribute(this.neutral.slice(), 3));
    this.geometry.setIndex(new THREE.BufferAttribute(corners, 1));
    const names = Object.keys(parts);
    names.forEach((name, k) => {
      const [first, end] = parts[name];
      this.geometry.addGroup(3 * first, 3 * (end - first), k);
    });
    this.geometry.setAttribute("uv", new THREE.BufferAttribute(this.eyePlaces(corners, parts.eyes), 2));
    this.geometry.computeVertexNormals();
    const materials = names.map(name => new THREE.MeshStandardMaterial({
      color: COLOURS[name], roughness: name === "eyes" ? 0.25 : 0.62, map: name === "eyes" ? eyeball() : null,
    }));
    this.mesh = new THREE.Mesh(this.geometry, materials);
    this.geometry.computeBoundingBox();
    const middle = this.geometry.boundingBox.getCenter(new THREE.Vector3());
    this.mesh.position.copy(middle).negate();
    this.pivot = new THREE.Group();
    this.pivot.add(this.mesh);

    this.scene = new THREE.Scene();
    this.scene.add(this.pivot, new THREE.HemisphereLight(0xffffff, 0x8a7f78, 1.4));
    const lamp = new THREE.DirectionalLight(0xfff4e8, 2.2), rim = new THREE.DirectionalLight(0xbfd8ff, 1.1);
    lamp.position.set(-1, 1.2, 2);
    rim.position.set(2, 0.6, -1);
    this.scene.add(lamp, rim);
    this.camera = new THREE.PerspectiveCamera(22, 1, 10, 5000);
    this.camera.position.z = 1.12 * this.geometry.boundingBox.getSize(new THREE.Vector3()).y /
      2 / Math.tan(11 * Math.PI / 180);
    this.renderer = new THREE.WebGLRenderer({canvas, antialias: true, alpha: true});
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.wanted = new THREE.Quaternion();
    this.drag = new THREE.Quaternion();
    this.turnable(canvas);
    new ResizeObserver(() => this.fit()).observe(canvas);
    this.fit();
  }

  /** Where each vertex (V,2) of an eye is across its axis, in `eyeball`'s square; the eyes look forward at rest. */
  eyePlaces(corners, [first, end]) {
    const places = new Float32Array(this.neutral.length / 3 * 2), eyes = [[], []];
    for (const v of new Set(corners.subarray(3 * first, 3 * end))) eyes[this.neutral[3 * v] > 0 ? 1 : 0].push(v);
    for (const eye of eyes) {
      const ends = [0, 1].map(axis => eye.map(v => this.neutral[3 * v + axis])).map(at => [Math.min(...at), Math.max(...at)]);
      for (const v of eye) ends.forEach(([low, high], axis) => {
        places[2 * v + axis] = (this.neutral[3 * v + axis] - low) / (high - low);
      });
    }
    return places;
  }

  /** Take over the expression and pose of a face as `Canthus.predict` gives them; `mirrored` as in a mirror. */
  show({expression, pose: {matrix: m}}, mirrored = false) {
    const side = mirrored ? -1 : 1;
    this.wanted.setFromRotationMatrix(new THREE.Matrix4().set(
      m[0][0], side * m[0][1], side * m[0][2], 0,
      side * m[1][0], m[1][1], m[1][2], 0,
      side * m[2][0], m[2][1], m[2][2], 0,
      0, 0, 0, 1,
    ));
    const place = this.geometry.attributes.position, points = place.array;
    points.set(this.neutral);
    this.expressions.forEach((name, k) => {
      const weight = (expression?.[mirrored ? otherSide(name) : name] ?? 0) * this.scales[k], move = this.moves[k];
      if (weight > 1e-3 * this.scales[k]) for (let j = 0; j < points.length; j++) points[j] += weight * move[j];
    });
    place.needsUpdate = true;
    this.geometry.computeVertexNormals();
    this.draw();
  }

  /** Draw until the wanted pose is reached. */
  draw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      const target = this.drag.clone().multiply(this.wanted), away = this.pivot.quaternion.angleTo(target);
      this.pivot.quaternion.slerp(target, away < 1e-3 ? 1 : FOLLOW);
      this.renderer.render(this.scene, this.camera);
      if (away >= 1e-3) this.draw();
    });
  }

  fit() {
    const {clientWidth: width, clientHeight: height} = this.renderer.domElement;
    if (!width || !height) return;
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  /** Turned by a drag; a double click brings it back. */
  turnable(canvas) {
    canvas.addEventListener("pointerdown", event => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", event => {
      if (!event.buttons) return;
      const turn = new THREE.Euler(event.movementY / 120, event.movementX / 120, 0);
      this.drag.premultiply(new THREE.Quaternion().setFromEuler(turn));
      this.draw();
    });
    canvas.addEventListener("dblclick", () => {
      this.drag.identity();
      this.draw();
    });
  }
}

/** An eye seen from the front, as wide as the picture. */
function eyeball() {
  const side = 256, canvas = Object.assign(document.createElement("canvas"), {width: side, height: side});
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, side, side);
  for (const [radius, colour] of [[IRIS, "#2c3a3d"], [0.9 * IRIS, "#5f7f83"], [PUPIL, "#0b0d0e"]]) {
    pen.beginPath();
    pen.arc(side / 2, side / 2, radius * side / 2, 0, 2 * Math.PI);
    pen.fillStyle = colour;
    pen.fill();
  }
  const texture = new THREE.CanvasTexture(canvas);
  texture.colorSpace = THREE.SRGBColorSpace;
  return texture;
}

/** The expression of the other half of the face. */
function otherSide(name) {
  return name.replace(/Left$|Right$/, side => side === "Left" ? "Right" : "Left");
}
