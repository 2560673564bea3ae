/** Runs the networks beside the page, so that it stays quick: answers each message {number, task, ...} with its number. */

import {load} from "./canthus.js";
import {Follower} from "./follow.js";

let canthus, follower;

const tasks = {
  async load({folder}) {
    canthus = await load(folder);
    follower = new Follower(canthus);
    return canthus.card;
  },
  async photo({bitmap}) {
    follower.reset();
    return canthus.predict(bitmap);
  },
  async frame({bitmap, first}) {
    if (first) follower.reset();
    return follower.step(bitmap);
  },
};

let last = Promise.resolve();

// one message after the other: a follower is in the middle of a frame while it waits for a network
addEventListener("message", ({data}) => { last = last.then(() => work(data)); });

async function work({number, task, ...given}) {
  const began = performance.now();
  try {
    const answer = await tasks[task](given);
    postMessage({number, answer, milliseconds: performance.now() - began});
  } catch (error) {
    postMessage({number, problem: error.message});
  } finally {
    given.bitmap?.close();
  }
}
