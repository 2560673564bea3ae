/** The faces of a video from frame to frame: a short form of `canthus.inference.tracker.Tracker`. */

import {SAME_FACE, pixelsOf} from "./canthus.js";
import {centre, overlap, sizeOf} from "./geometry.js";

const SEARCH_EVERY = 12;  // frames between two searches for newcomers while all who were there still are
const MIN_TRUST = 0.3, MAX_GROWTH = 0.4;  // of a face that is followed; of the logarithm of its size in one frame
const KNOWN_FACE = 0.3;  // intersection over union of a face and a detection
const MEMORY = 25, REACH = 1;  // frames for which a lost face keeps its number, and face sizes in which it comes back

/**
 * Crops come from the landmarks of the frame before; the detector takes one quick look for newcomers, and in every frame
 * while somebody is missing. Faces have an `id` beside what `Canthus.predict` gives.
 */
export class Follower {
  constructor(canthus) {
    this.canthus = canthus;
    this.reset();
  }

  /** Forget everyone, as before another video. */
  reset() {
    this.tracks = [];
    this.frame = 0;
    this.next = 0;
    this.shape = "";
  }

  /** The faces of the next frame. One of another size than the last ends every track. */
  async step(source) {
    const image = pixelsOf(source), shape = `${image.width} ${image.height}`;
    if (shape !== this.shape) [this.shape, this.tracks] = [shape, []];
    await this.follow(image);
    const missing = this.tracks.some(track => track.missing);
    if (!this.tracks.length || missing || this.frame % SEARCH_EVERY === 0) await this.search(image);
    this.frame += 1;
    this.tracks = this.tracks.filter(track => track.missing <= MEMORY);
    return this.present().map(({id, face}) => ({id, ...face}));
  }

  present() {
    return this.tracks.filter(track => !track.missing);
  }

  /** The nearest face that is missing and may be the one in a box. */
  lost(box) {
    const [x, y] = centre(box), away = ({face}) => Math.hypot(x - centre(face.box)[0], y - centre(face.box)[1]);
    const near = this.tracks.filter(track => track.missing && away(track) < REACH * sizeOf(track.face.box));
    return near.sort((a, b) => away(a) - away(b))[0];
  }

  async follow(image) {
    for (const track of this.tracks) if (track.missing) track.missing += 1;
    const tracks = this.present();
    const answers = await this.canthus.onCrops(image, tracks.map(({face}) => this.canthus.uprightCrop(face)));
    const healthy = [];
    answers.map((answer, k) => ({...answer, track: tracks[k]})).sort((a, b) => b.trust - a.trust)
      .forEach(({face, trust, track}) => {
        const [x, y] = centre(face.box), growth = Math.abs(Math.log(sizeOf(face.box) / sizeOf(track.face.box)));
        const inside = x >= -0.5 && y >= -0.5 && x < image.width - 0.5 && y < image.height - 0.5;
        const alone = healthy.every(other => overlap(other.box, face.box) <= SAME_FACE);
        if (trust >= MIN_TRUST && growth <= MAX_GROWTH && inside && alone) {
          healthy.push(face);
          track.face = {...face, detection_score: null};
        } else track.missing = 1;
      });
  }

  async search(image) {
    const known = ({box}) => this.present().some(({face}) => overlap(face.box, box) >= KNOWN_FACE);
    const found = (await this.canthus.detector.quick(image)).filter(face => !known(face));
    for (const face of await this.canthus.aligned(image, found)) {
      if (this.present().some(track => overlap(track.face.box, face.box) > SAME_FACE)) continue;
      const track = this.lost(face.box);
      if (track) Object.assign(track, {face, missing: 0});
      else this.tracks.push({id: this.next++, face, missing: 0});
    }
  }
}
