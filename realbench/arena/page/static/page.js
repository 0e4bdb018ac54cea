// Shows pairs, sends choices, and goes on only when the server says that a vote is on disk.

import { SharedZoom } from "./zoom.js";

const $ = (id) => document.getElementById(id);
const LETTERS = { left: "A", right: "B" };
const GONE =
  "RealBench is no longer running. Every vote confirmed here is saved; run the same command again to go on.";

let state = null; // what the server last said
let shown = null; // the id of the pair on the screen
let ready = false; // whether both of its pictures can be seen
let busy = false; // whether a vote is on its way
let countdown = 0;
let lookedSince = 0;
let lookedFor = 0; // milliseconds before the page was last hidden
const loaded = new Map(); // pair id -> {images, promise}

const zoom = new SharedZoom([$("view-a"), $("view-b")], (scale) => {
  $("stage").classList.toggle("zoomed", scale > 1);
  $("zoom").setAttribute("aria-pressed", String(scale > 1));
});

// --- The server -----------------------------------------------------------------------------

class Unreachable extends Error {}

async function call(path, body) {
  const options = { cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
    return { status: response.status, state: await response.json() };
  } catch {
    throw new Unreachable();
  }
}

// Send something and show what follows; nothing else can be sent meanwhile.
async function send(path, body, said) {
  busy = true;
  enable();
  const slow = setTimeout(() => tell("Saving …"), 1500);
  try {
    const answer = await call(path, body);
    if (answer.status === 200) {
      hush();
      announce(said);
    } else if (answer.status === 409) {
      tell(path === "undo" ? "There is nothing to take back." : "That pair was judged already, perhaps in another window.");
    } else if (answer.status !== 503) {
      tell("RealBench did not understand that; load the page again.");
      return;
    }
    update(answer.state);
    if (answer.status === 503) tell("The run has ended. This last action may not have been saved.");
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error;
    tell(GONE, "Try again", refresh);
  } finally {
    clearTimeout(slow);
    busy = false;
    unmark();
    enable();
  }
}

async function refresh() {
  if (busy) return;
  try {
    const answer = await call("state");
    hush();
    update(answer.state);
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error;
    if (state?.phase === "last") update({ ...state, phase: "ended" });
    else if (state?.phase !== "ended") tell(GONE, "Try again", refresh);
  }
}

// --- What is on the screen ------------------------------------------------------------------

function update(next) {
  state = next;
  showProgress();
  const pair = state.phase === "voting" ? state.pairs[0] : null;
  const ending = state.phase === "last" || state.phase === "ended";
  document.body.dataset.phase = ending ? "end" : "voting";
  clearInterval(countdown);
  $("voting").hidden = ending;
  $("end").hidden = !ending;
  for (const one of state.pairs) preload(one);
  for (const id of loaded.keys()) if (!state.pairs.some((one) => one.id === id)) loaded.delete(id);
  if (ending) showEnd();
  else if (!pair) wait();
  else if (pair.id !== shown) show(pair);
  enable();
}

function showProgress() {
  const { done, total, session } = state;
  $("done").textContent = total === null ? `${session} judged` : `${done} / ${total}`;
  $("session").textContent = total === null ? "this session" : `${session} this session`;
  const bar = $("progress");
  if (total !== null) {
    bar.setAttribute("aria-valuemax", total);
    bar.setAttribute("aria-valuenow", done);
  }
  bar.setAttribute("aria-valuetext", total === null ? `${session} judged` : `${done} of ${total}, ${session} in this session`);
  $("bar-done").style.transform = `scaleX(${total ? done / total : 0})`;
}

function preload(pair) {
  const known = loaded.get(pair.id);
  if (known) return known;
  const images = [pair.left, pair.right].map((address, i) => {
    const image = new Image();
    image.alt = `Image ${"AB"[i]}`;
    image.draggable = false;
    image.src = address;
    return image;
  });
  const entry = { images, promise: Promise.all(images.map((image) => image.decode())) };
  entry.promise.catch(() => {}); // told when it is its turn
  loaded.set(pair.id, entry);
  return entry;
}

async function show(pair) {
  shown = pair.id;
  ready = false;
  $("prompt").hidden = !pair.prompt;
  $("prompt-text").textContent = pair.prompt ?? "";
  $("prompt").scrollTop = 0;
  if ($("prompt").scrollHeight > $("prompt").clientHeight + 1) $("prompt").tabIndex = 0;
  else $("prompt").removeAttribute("tabindex");
  const { images, promise } = preload(pair);
  const views = [$("view-a"), $("view-b")];
  const late = setTimeout(() => {
    zoom.show([null, null]);
    for (const view of views) view.classList.add("loading");
  }, 60);
  try {
    await promise;
  } catch {
    if (shown !== pair.id) return;
    loaded.delete(pair.id);
    tell("A picture of this pair did not load.", "Load it again", () => {
      shown = null;
      refresh();
    });
    return;
  } finally {
    clearTimeout(late);
    if (shown === pair.id) for (const view of views) view.classList.remove("loading");
  }
  if (shown !== pair.id) return;
  for (const image of images) image.classList.add("entering");
  zoom.show(images);
  lookedFor = 0;
  lookedSince = performance.now();
  ready = true;
  enable();
}

function wait() {
  shown = null;
  ready = false;
  zoom.show([null, null]);
  setTimeout(refresh, 300);
}

function showEnd() {
  const first = shown !== "end";
  shown = "end";
  ready = false;
  zoom.show([null, null]);
  const last = state.phase === "last";
  const votes = state.session === 1 ? "1 vote" : `${state.session} votes`;
  const are = state.session === 1 ? "is" : "are";
  $("end-title").textContent = last ? "That was the last pair" : "Thank you";
  $("end-text").textContent = last
    ? `Your ${votes} of this session ${are} saved.`
    : `Your ${votes} of this session ${are} saved. You can close this page.`;
  $("end-finish").hidden = $("end-undo").hidden = !last;
  $("end-note").textContent = state.complete ? "" : "To go on later, run the same realbench command again.";
  if (last) {
    const end = performance.now() + state.closes_in * 1000;
    const tick = () => {
      const left = Math.ceil((end - performance.now()) / 1000);
      $("end-note").textContent = `Ends by itself in ${Math.max(0, left)} s.`;
      if (left <= 0) {
        clearInterval(countdown);
        setTimeout(refresh, 500);
      }
    };
    tick();
    countdown = setInterval(tick, 1000);
  }
  if (first) $(last ? "end-finish" : "end-title").focus({ preventScroll: true });
  else if (!last) $("end-title").focus({ preventScroll: true });
}

function enable() {
  const voting = state?.phase === "voting";
  const able = (button, yes) => button.setAttribute("aria-disabled", String(!yes));
  // Not "disabled", which would take the focus from who tabs through the page.
  for (const button of document.querySelectorAll(".choice")) able(button, !busy && ready && voting);
  for (const id of ["undo", "end-undo"]) able($(id), !busy && state?.can_undo);
  able($("zoom"), ready);
}

function tell(text, action, carryOut) {
  $("message-text").textContent = text;
  $("message-action").textContent = action ?? "OK";
  $("message-action").onclick = () => {
    hush();
    carryOut?.();
  };
  $("message").hidden = false;
}

function hush() {
  $("message").hidden = true;
}

function announce(text) {
  $("announcer").textContent = text;
}

function unmark() {
  for (const one of document.querySelectorAll(".chosen")) one.classList.remove("chosen");
}

// --- What the person does -------------------------------------------------------------------

function vote(choice) {
  if (busy || !ready || state.phase !== "voting") return;
  document.querySelector(`[data-choice="${choice}"]`).classList.add("chosen");
  if (choice !== "right") $("figure-a").classList.add("chosen");
  if (choice !== "left") $("figure-b").classList.add("chosen");
  const seconds = (lookedFor + (document.hidden ? 0 : performance.now() - lookedSince)) / 1000;
  const said = choice === "tie" ? "Saved: a tie." : `Saved: ${LETTERS[choice]}.`;
  return send("vote", { pair: shown, choice, seconds: Math.round(seconds * 1000) / 1000 }, said);
}

function undo() {
  if (busy || !state?.can_undo) return;
  return send("undo", {}, "The last vote is taken back.");
}

function finish() {
  if (busy) return;
  return send("finish", {}, "Finished.");
}

function askToStop() {
  const { session } = state;
  const saved = session === 0 ? "There is no vote of this session yet." : session === 1 ? "Your vote is saved." : `Your ${session} votes are saved.`;
  $("ask-stop-text").textContent = `${saved} To go on later, run the same realbench command again.`;
  $("ask-stop").showModal();
}

const KEYS = {
  ArrowLeft: () => vote("left"),
  ArrowRight: () => vote("right"),
  ArrowDown: () => vote("tie"),
  Backspace: undo,
  u: undo,
  z: () => ready && zoom.toggle(),
  " ": () => ready && zoom.toggle(),
  Escape: () => zoom.reset(),
  "+": () => ready && zoom.by(1.5),
  "=": () => ready && zoom.by(1.5),
  "-": () => ready && zoom.by(1 / 1.5),
  "0": () => zoom.reset(),
};
const PANS = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };

document.addEventListener("keydown", (event) => {
  if ($("ask-stop").open || event.isComposing) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if ((event.ctrlKey || event.metaKey) && key === "z" && !event.shiftKey && !event.altKey) {
    event.preventDefault();
    if (!event.repeat) undo();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return; // those are the browser's
  if (event.shiftKey && PANS[key]) {
    event.preventDefault();
    zoom.pan(...PANS[key]);
    return;
  }
  if (event.shiftKey && key.startsWith("Arrow")) return;
  if (key === " " && event.target.closest?.("button")) return; // a space presses a button
  const action = KEYS[key];
  if (!action) return;
  event.preventDefault();
  if (!event.repeat || key === "+" || key === "-" || key === "=") action(); // a key held down votes once
});

for (const button of document.querySelectorAll(".choice")) {
  button.addEventListener("click", () => vote(button.dataset.choice));
}
// After a click with the mouse the focus leaves, so that the next space zooms and does not vote.
document.addEventListener("click", (event) => {
  if (event.detail > 0) event.target.closest?.("#choices button, .tools button")?.blur();
});
$("undo").addEventListener("click", undo);
$("zoom").addEventListener("click", () => ready && zoom.toggle());
$("stop").addEventListener("click", askToStop);
$("stop-no").addEventListener("click", () => $("ask-stop").close());
$("stop-yes").addEventListener("click", () => {
  $("ask-stop").close();
  finish();
});
$("end-finish").addEventListener("click", finish);
$("end-undo").addEventListener("click", undo);

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    lookedFor += performance.now() - lookedSince;
  } else {
    lookedSince = performance.now();
    if (state && state.phase !== "ended") refresh(); // another window may have gone on
  }
});

refresh();
