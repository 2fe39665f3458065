"use strict";
const $ = (id) => document.getElementById(id);
const WORDS = { 1: "bad", 2: "poor", 3: "fair", 4: "good", 5: "excellent" };
const BREAK_EVERY = 60;
let rater = "";
let state = null;
let shownAt = 0;
let busy = false;
const ahead = new Map();

async function post(name, content) {
  const response = await fetch(name, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ rater, ...content }),
  });
  const found = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(found.error || `the server answered ${response.status}`);
  return found;
}

function trouble(error) {
  const gone = error instanceof TypeError;
  $("trouble").textContent = gone
    ? "The server cannot be reached. Nothing is lost: start it again, open the address that it prints, and give the same name."
    : error.message;
  $("trouble").hidden = false;
}

function load(key) {
  if (!ahead.has(key)) {
    const image = new Image();
    image.src = `picture/${key}`;
    ahead.set(key, image);
    if (ahead.size > 12) ahead.delete(ahead.keys().next().value);
  }
  return ahead.get(key);
}

// One request at a time: a key that is held down, or pressed twice, answers once.
async function ask(name, content) {
  if (busy) return;
  busy = true;
  try {
    show(await post(name, content));
    $("trouble").hidden = true;
  } catch (error) {
    trouble(error);
  } finally {
    busy = false;
  }
}

function show(found) {
  state = found;
  $("start").hidden = true;
  $("rate").hidden = state.kind === "none";
  $("end").hidden = state.kind !== "none";
  $("progress").max = Math.max(1, state.total);
  $("progress").value = state.done;
  $("count").textContent = `${state.done} of about ${state.total}`;
  $("phase").textContent = state.warm_up ? "to warm up, not counted" : "";
  if (state.kind === "none") {
    learn().then(() => { $("summary").textContent = $("known").textContent; });
    return;
  }
  const stage = $("stage");
  stage.className = state.kind === "comparison" ? "two" : "";
  $("zoom").setAttribute("aria-pressed", "false");
  const images = state.pictures.map((key, place) => {
    const image = load(key);
    image.alt = state.kind === "comparison" ? (place ? "second picture" : "first picture") : "the picture to rate";
    image.onclick = zoom;
    const broken = () => trouble(new Error("This picture cannot be shown: skip it (S)."));
    const there = () => {
      // As many screen pixels as it has of its own, or fewer to fit: never scaled up, on fine screens neither.
      image.style.width = `${image.naturalWidth / window.devicePixelRatio}px`;
      shownAt = performance.now();
    };
    image.onerror = broken;
    image.onload = there;
    if (image.complete) (image.naturalWidth ? there : broken)();
    return image;
  });
  stage.replaceChildren(
    ...(state.kind === "comparison"
      ? images.map((image) => {
          const half = document.createElement("div");
          half.className = "half";
          half.append(image);
          return half;
        })
      : images),
  );
  const choices =
    state.kind === "comparison"
      ? [["first", "← first"], ["tie", "↓ cannot tell"], ["second", "second →"]]
      : [1, 2, 3, 4, 5].map((level) => [String(level), `${level} ${WORDS[level]}`]);
  $("answers").replaceChildren(
    ...choices.map(([value, words]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = words;
      button.dataset.value = value;
      button.onclick = () => answer(value);
      return button;
    }),
  );
  shownAt = performance.now();
  document.body.dataset.number = state.number;
  post("ahead", {}).then((next) => next.pictures.forEach(load)).catch(() => {});
  if (state.done % 5 === 0) learn();
  if (state.done && state.done % BREAK_EVERY === 0 && !$("break").open) $("break").showModal();
}

function answer(value) {
  if (!state || state.kind === "none") return;
  // Nobody rates what is not there yet.
  if (![...document.querySelectorAll("#stage img")].every((image) => image.naturalWidth)) return;
  ask("answer", { number: state.number, value, seconds: (performance.now() - shownAt) / 1000 });
}

function zoom() {
  const real = $("stage").classList.toggle("real");
  $("zoom").setAttribute("aria-pressed", String(real));
}

async function learn() {
  try {
    const known = await (await fetch("known")).json();
    if (!known) return;
    const round = (value) => value.toFixed(2);
    const srcc = known.srcc === null ? "" : `expected SRCC ${round(known.srcc)}`;
    const ends = known.interval[0] === null ? "" : ` [${round(known.interval[0])}, ${round(known.interval[1])}]`;
    const gain = known.gain === null ? "" : `, the last ten took ${(100 * known.gain).toFixed(1)} % off the error`;
    $("known").textContent = `${known.labels} pictures rated${srcc ? `: ${srcc}${ends}${gain}` : ""}; ${known.words}.`;
  } catch {
    // What is known is not needed to go on.
  }
}

function skip() {
  if (!state || state.kind === "none") return;
  $("reason-list").replaceChildren(
    ...state.skips.map((reason) => {
      const button = document.createElement("button");
      button.value = reason;
      button.textContent = reason;
      return button;
    }),
  );
  $("reasons").showModal();
}

$("reasons").addEventListener("close", () => {
  const reason = $("reasons").returnValue;
  if (reason) ask("skip", { number: state.number, reason });
  $("reasons").returnValue = "";
});
$("who").addEventListener("submit", (event) => {
  event.preventDefault();
  rater = $("name").value.trim();
  if (!rater) return;
  sessionStorage.setItem("rater", rater);
  ask("state", {});
});
const undo = () => ask("undo", { number: state.number });
$("undo").onclick = undo;
$("undo-end").onclick = undo;
$("zoom").onclick = zoom;
$("skip").onclick = skip;
$("finish").onclick = () => post("finish", {}).then(() => { $("finish").disabled = true; }).catch(trouble);
document.addEventListener("keydown", (event) => {
  if (!$("end").hidden && event.key === "Backspace") undo();
  if ($("rate").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if ($("reasons").open || $("break").open) return;
  const comparing = state && state.kind === "comparison";
  const choice = { ArrowLeft: "first", ArrowRight: "second", ArrowDown: "tie" }[event.key];
  if (!comparing && /^[1-5]$/.test(event.key)) answer(event.key);
  else if (comparing && choice) answer(choice);
  else if (event.key === "Backspace") undo();
  else if (event.key === "z" || event.key === "Z") zoom();
  else if (event.key === "s" || event.key === "S") skip();
  else return;
  event.preventDefault();
});
const before = sessionStorage.getItem("rater");
if (before) {
  rater = before;
  ask("state", {});
}
