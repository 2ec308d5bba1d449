// Shows answers as they are written, and keeps one without leaving the page. Without scripts the
// same forms are sent, and the page comes back with whole answers. All HTML is the server's, which
// has escaped it; a text that is on its way is set as text.
const ask = document.getElementById("ask");
const keep = document.getElementById("keep");
const log = document.getElementById("talk");
const state = document.getElementById("state");
const read = document.getElementById("read");
const refused = document.getElementById("refused");
const stop = document.getElementById("stop");
const field = ask.elements.text;
const TAIL = 20000; // characters that are shown of an answer that is being written
const READ = 2000; // and that are read out of one that has ended

let request = null; // the question that is being answered
let begun = false; // its answers, after a model was loaded
let stopped = false;
let keeping = false;
let texts = [];
let drawing = 0;

const talk = () => ask.elements.talk.value;
const say = (text) => { state.textContent = text; };
const sides = () => log.lastElementChild.querySelectorAll(".side");

function complain(text) {
  say("");
  refused.textContent = text;
}

async function send(form, action, button, signal) {
  const body = new URLSearchParams(new FormData(form, button));
  body.set("plain", "1");
  const answer = await fetch(action, { method: "POST", body, signal });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer;
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

// The newest turn, unless it is so long that showing its end would hide its beginning.
function show() {
  const turn = log.lastElementChild;
  if (turn.offsetHeight < innerHeight / 2) turn.scrollIntoView({ block: "nearest" });
}

function begin(event) {
  if (talk() !== event.talk) {
    log.replaceChildren();
    for (const one of [ask, keep]) one.elements.talk.value = event.talk;
    history.replaceState(null, "", `/chat?talk=${encodeURIComponent(event.talk)}`);
  }
  log.insertAdjacentHTML("beforeend", event.turn);
  show();
  texts = [...sides()].map(() => "");
  begun = true;
  read.replaceChildren();
  field.value = "";
  say("The answers are being written.");
}

function draw() {
  drawing = 0;
  sides().forEach((side, place) => {
    const text = texts[place];
    if (text) side.querySelector(".answer").textContent = text.length > TAIL ? `… ${text.slice(-TAIL)}` : text;
  });
}

// A screen reader hears whole answers, without the buttons under them.
function readOut(by, side) {
  const text = (side.querySelector(".bad") ?? side.querySelector(".answer")).textContent;
  const line = document.createElement("p");
  line.textContent = `${by}: ${text.slice(0, READ)}`;
  read.append(line);
}

function take(event) {
  if (event.error) throw new Error(event.error);
  if (event.say) say(event.say);
  if (event.turn) begin(event);
  if (event.text) {
    texts[event.side] += event.text;
    drawing ||= requestAnimationFrame(draw);
  }
  if (event.html) {
    texts[event.side] = "";
    const side = sides()[event.side];
    side.innerHTML = event.html;
    readOut(event.by, side);
  }
}

function busy(on) {
  if (!on && document.activeElement === stop) field.focus();
  stop.hidden = !on;
}

async function answer() {
  if (request) return complain("Answers are still being written: wait, or stop them.");
  request = new AbortController();
  begun = stopped = false;
  refused.textContent = "";
  say("Asking …");
  field.focus();
  busy(true);
  try {
    const answers = await send(ask, ask.action, undefined, request.signal);
    for await (const event of events(answers.body)) take(event);
    show();
    say(stopped ? "Stopped." : "Answered.");
  } catch (error) {
    complain(error.name === "AbortError" ? "Stopped before anything was answered." : error.message);
  } finally {
    request = null;
    busy(false);
  }
}

async function halt() {
  if (!request) return;
  if (begun) {
    stopped = true;
    await send(ask, "/chat/stop").catch((error) => complain(error.message));
  } else {
    request.abort();
  }
}

async function keepIt(button) {
  if (keeping) return;
  keeping = true;
  refused.textContent = "";
  say("Keeping it …");
  try {
    const side = button.closest(".side");
    const kept = await (await send(keep, keep.action, button)).json();
    side.innerHTML = kept.html;
    side.querySelector(`button[value="${button.value}"]`).focus();
    say(kept.said);
  } catch (error) {
    complain(error.message);
  } finally {
    keeping = false;
  }
}

ask.addEventListener("submit", (event) => {
  if (event.submitter?.hasAttribute("formaction")) return; // a new talk is another page
  event.preventDefault();
  answer();
});

keep.addEventListener("submit", (event) => {
  event.preventDefault();
  keepIt(event.submitter);
});

field.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    ask.requestSubmit();
  }
});

stop.addEventListener("click", halt);
ask.addEventListener("keydown", (event) => {
  if (event.key === "Escape") halt();
});

log.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || !event.target.matches(".answer")) return;
  const kind = { r: "row", i: "item" }[event.key.toLowerCase()];
  if (kind) event.target.closest(".side").querySelector(`button[value^="${kind} "]`)?.click();
});

document.getElementById("keys").hidden = false;
