// The model's readiness, watched: a line in the footer, and a promise for whoever must wait for the first "ready".

import { isReady } from "./api.js";

const SOON_MS = 1500;
const SELDOM_MS = 15000;

const WORDS = {
  ready: "Ready",
  starting: "Starting… the model is being loaded",
  away: "The service cannot be reached",
};

// Calls `onChange(state)` whenever the state changes; resolves at the first "ready" and keeps watching.
export function watch(place, onChange) {
  let last = null;
  return new Promise((resolve) => {
    const look = async () => {
      const state = await stateNow();
      if (state !== last) {
        last = state;
        place.dataset.state = state;
        place.querySelector(".state-words").textContent = WORDS[state];
        onChange(state);
      }
      if (state === "ready") resolve();
      setTimeout(look, state === "ready" ? SELDOM_MS : SOON_MS);
    };
    look();
  });
}

async function stateNow() {
  try {
    return (await isReady()) ? "ready" : "starting";
  } catch {
    return "away";
  }
}
