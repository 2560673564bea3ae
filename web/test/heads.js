/**
 * Plays a GLB in Chromium with three.js, for tests/web/test_heads.py: `node heads.js CHROMIUM PROFILE GLB TIMES PICTURES`.
 * TIMES: seconds, as a list in JSON. Writes the nodes as they are at these times as JSON, and pictures into the folder
 * PICTURES: what the camera of the file sees at each time, or a still head from the front and from its left.
 */

import {readFileSync} from "node:fs";
import {dirname, join} from "node:path";
import {fileURLToPath} from "node:url";
import {chromium} from "playwright-core";

const [executablePath, profile, file, times, pictures] = process.argv.slice(2);
const three = join(dirname(fileURLToPath(import.meta.url)), "..", "node_modules", "three");
const page_ = `<!doctype html><style>body { margin: 0 }</style><script type="importmap">
  {"imports": {"three": "./three/build/three.module.js", "three/addons/": "./three/examples/jsm/"}}</script>`;
const flags = ["no-sandbox", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update",
  "disable-sync", "use-angle=swiftshader", "enable-unsafe-swiftshader"];
const browser = await chromium.launchPersistentContext(profile, {
  executablePath, headless: true, args: flags.map(flag => `--${flag}`), viewport: {width: 720, height: 576},
});
const page = await browser.newPage(), problems = [];
page.on("pageerror", error => problems.push(error.message));
page.on("console", message => ["error", "warning"].includes(message.type()) && problems.push(message.text()));
await page.route("**/*", route => {
  const path = new URL(route.request().url()).pathname;
  if (path === "/") return route.fulfill({body: page_, contentType: "text/html"});
  if (path === "/head.glb") return route.fulfill({body: readFileSync(file), contentType: "model/gltf-binary"});
  if (path.startsWith("/three/")) return route.fulfill({path: join(three, path.slice(7)), contentType: "text/javascript"});
  return route.fulfill({status: 404, body: ""});
});
await page.goto("http://localhost/");

const about = await page.evaluate(async () => {
  const THREE = await import("three"), {GLTFLoader} = await import("three/addons/loaders/GLTFLoader.js");
  const gltf = await new GLTFLoader().loadAsync("head.glb"), {scene} = gltf;
  const renderer = new THREE.WebGLRenderer({antialias: true, preserveDrawingBuffer: true});
  const [own] = gltf.cameras, aspect = own?.aspect ?? 1.25;
  renderer.setSize(720, 720 / aspect);
  document.body.append(renderer.domElement);
  scene.add(new THREE.HemisphereLight(0xffffff, 0x8899aa, 2.2));
  const light = new THREE.DirectionalLight(0xffffff, 1.6);
  light.position.set(-0.5, 1, 1.5);
  scene.add(light);
  const free = new THREE.PerspectiveCamera(25, aspect, 0.01, 10);
  const view = new THREE.Scene();
  view.background = new THREE.Color(0x556070);
  view.add(scene);
  const mixer = new THREE.AnimationMixer(scene);
  for (const clip of gltf.animations) mixer.clipAction(clip).play();

  const meshes = node => { const found = []; node.traverse(one => one.isMesh && found.push(one)); return found; };
  window.draw = side => {
    free.position.set(side ? 0.9 : 0, 0, side ? 0 : 0.9);
    free.lookAt(0, 0, -0.08);
    renderer.render(view, own ?? free);
  };
  window.at = time => {
    if (gltf.animations.length) mixer.setTime(time);
    scene.updateMatrixWorld(true);
    return scene.children.filter(node => meshes(node).length).map(node => {
      const all = meshes(node), point = new THREE.Vector3(), vertices = [];
      for (const mesh of all) for (let k = 0; k < mesh.geometry.attributes.position.count; k += 97)
        vertices.push(mesh.getVertexPosition(k, point).applyMatrix4(mesh.matrixWorld).toArray());
      return {
        name: node.name, position: node.position.toArray(), quaternion: node.quaternion.toArray(), scale: node.scale.toArray(),
        materials: all.map(mesh => mesh.material.name), textures: all.map(mesh => mesh.material.map?.image.width ?? 0),
        influences: all.map(mesh => [...mesh.morphTargetInfluences]),
        names: all.map(mesh => Object.keys(mesh.morphTargetDictionary)), vertices,
      };
    });
  };
  return {clips: gltf.animations.map(({name, duration}) => ({name, duration})), cameras: gltf.cameras.map(({fov}) => fov),
    extras: scene.userData};
});

const moments = [], wanted = JSON.parse(times);
for (const [number, time] of wanted.entries()) {
  moments.push(await page.evaluate(moment => at(moment), time));
  for (const side of about.cameras.length ? [0] : [0, 1]) {
    await page.evaluate(sideways => draw(sideways), side);
    await page.locator("canvas").screenshot({path: join(pictures, `${number}${side ? "-side" : ""}.png`)});
  }
}
await browser.close();
process.stdout.write(JSON.stringify({...about, moments, problems}));
