// The chat page: posts the conversation to /api/chat and shows the answer as its tokens arrive.

const CHAT = "/api/chat";
const REMEMBERED_CHARACTERS = 4000; // a small model reads little; the oldest turns are left out

const [body, log, welcome, notice, model, fresh, composer, prompt, send, stop, said] = [
  document.body,
  ...["log", "welcome", "notice", "model", "fresh", "composer", "prompt", "send", "stop", "said"].map((id) =>
    document.getElementById(id),
  ),
];

let messages = []; // the conversation, as the model gets it
let running = null; // AbortController of the answer that is being made

// ---- asking ----

async function ask(question) {
  if (running || !question.trim()) return;
  const abort = (running = new AbortController());
  const answer = turn(question);
  const asked = [...messages, { role: "user", content: question }];
  const started = performance.now();
  let first = null;
  let limit = null;
  show("waiting");
  try {
    const response = await fetch(CHAT, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ messages: recent(asked) }),
      signal: abort.signal,
    });
    if (!response.ok) throw await refusal(response);
    answer.start = wake(response.headers.get("server-timing"));
    for await (const chunk of chunks(response.body)) {
      if (chunk.model) meet(chunk.model);
      const [choice] = chunk.choices ?? [];
      if (choice?.finish_reason === "length") limit = "ended at the model's limit";
      const token = choice?.delta?.content;
      if (!token) continue;
      if (first === null) {
        first = performance.now() - started;
        answer.light();
        show("lit");
      }
      answer.add(token);
    }
    answer.end([answer.start, first && `first token ${ms(first)}`, `total ${ms(performance.now() - started)}`, limit]);
    said.textContent = `Answer: ${answer.text}`;
  } catch (error) {
    if (abort.signal.aborted) {
      answer.end(["stopped", answer.start, first && `first token ${ms(first)}`]);
      said.textContent = "Stopped.";
    } else {
      answer.fail(error);
      said.textContent = `No answer: ${error.message}`;
    }
  }
  if (abort !== running) return; // a new chat was begun meanwhile
  running = null;
  if (answer.text) messages = [...asked, { role: "assistant", content: answer.text }];
  show("dark");
  fresh.hidden = false;
}

/** The latest turns that fit, beginning with a question. */
function recent(all) {
  let room = REMEMBERED_CHARACTERS;
  const kept = all.filter((_, index) => all.slice(index).reduce((sum, one) => sum + one.content.length, 0) <= room);
  while (kept.length && kept[0].role !== "user") kept.shift();
  return kept.length ? kept : all.slice(-1);
}

// ---- reading the stream ----

/** The JSON chunks of an OpenAI event stream. Throws where the stream tells of an error or ends before [DONE]. */
async function* chunks(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Trouble("The answer was cut short.");
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.match(/^data: ?(.*)$/m)?.[1];
        if (data === "[DONE]") return;
        if (data === undefined) continue; // a comment that keeps the connection alive
        const chunk = JSON.parse(data);
        if (chunk.error || /^event: ?error$/m.test(block)) throw trouble(chunk.error ?? chunk);
        yield chunk;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

class Trouble extends Error {
  constructor(message, detail = "") {
    super(message);
    this.detail = detail;
  }
}

const KIND = {
  RATE_LIMITED: "That was quick. Please wait a moment before the next question.",
  BUDGET_EXCEEDED: "The budget for answers is spent for now.",
  FUNCTION_PAYLOAD_TOO_LARGE: "That is longer than this chat can take.",
  FUNCTION_THROTTLED: "Too many people are asking at once. Please try again in a moment.",
  FUNCTION_INVOCATION_FAILED: "The function failed. Its log says why.",
  FUNCTION_INVOCATION_TIMEOUT: "The answer took too long.",
  EDGE_FUNCTION_INVOCATION_TIMEOUT: "The answer took too long to begin.",
  FUNCTION_CRASHED: "The function stopped unexpectedly.",
  FUNCTION_OUT_OF_MEMORY: "The function ran out of memory.",
  NOT_FOUND: "There is no function at /api/chat.",
};

function trouble({ code, message, id }) {
  return new Trouble(KIND[code] ?? message ?? "Something went wrong.", [code, id].filter(Boolean).join(" · "));
}

/** What a response that is not 2xx says, as a Trouble. */
async function refusal(response) {
  const { error } = await response.json().catch(() => ({}));
  return trouble({
    code: response.headers.get("x-lampyr-error") ?? error?.code ?? `HTTP ${response.status}`,
    message: error?.message,
    id: response.headers.get("x-lampyr-id") ?? error?.id,
  });
}

// ---- the page ----

/** A question and its answer to be, at the end of the conversation. */
function turn(question) {
  welcome.hidden = true;
  const asked = element("li", "question", question);
  const shown = element("li", "answer waiting");
  const text = element("div", "text");
  const body = element("div");
  body.append(element("span", "unseen", "Answer:"), text);
  shown.append(element("span", "firefly"), body);
  shown.setAttribute("aria-busy", "true");
  log.append(asked, shown);
  toEnd();

  function rest(...more) {
    shown.className = "answer";
    shown.removeAttribute("aria-busy");
    follow(() => body.append(...more));
  }
  return {
    text: "",
    light: () => (shown.className = "answer lit"),
    add(token) {
      this.text += token;
      follow(() => text.append(element("span", "", token)));
    },
    end(times) {
      follow(() => text.replaceChildren(...typeset(this.text)));
      rest(element("p", "times quiet", times.filter(Boolean).join(" · ")));
    },
    fail(error) {
      const known = error instanceof Trouble;
      const again = element("button", "again", "Try again");
      again.type = "button";
      again.onclick = () => {
        if (running) return;
        asked.remove();
        shown.remove();
        ask(question);
        prompt.focus();
      };
      const what = known ? error.message : this.text ? "The answer was cut short." : "The server cannot be reached.";
      follow(() => text.replaceChildren(...typeset(this.text)));
      this.text = ""; // half an answer is shown, and not remembered
      rest(element("p", "trouble", what), element("p", "times quiet", known ? error.detail : ""), again);
    },
  };
}

/** Paragraphs, code blocks, `code` and **strong**; nothing of the answer is ever read as HTML. */
function typeset(text) {
  return text.trim().split(/```[\w+-]*\n?/).flatMap((part, index) => {
    if (index % 2) {
      const block = element("pre");
      block.append(element("code", "", part.trimEnd()));
      return block;
    }
    return part.split(/\n{2,}/).filter((one) => one.trim()).map(paragraph);
  });
}

function paragraph(text) {
  const shown = element("p");
  for (const piece of text.trim().split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)) {
    if (/^`.+`$/.test(piece)) shown.append(element("code", "", piece.slice(1, -1)));
    else if (/^\*\*.+\*\*$/.test(piece)) shown.append(element("strong", "", piece.slice(2, -2)));
    else shown.append(piece);
  }
  return shown;
}

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/** Do it, and stay at the end of the page if the reader was there. */
function follow(change) {
  const page = document.documentElement;
  const atEnd = page.scrollHeight - page.clientHeight - page.scrollTop < 80;
  change();
  if (atEnd) toEnd();
}

function toEnd() {
  document.documentElement.scrollTop = document.documentElement.scrollHeight;
}

/** dark, waiting or lit. */
function show(state) {
  body.dataset.state = state;
  const busy = state !== "dark";
  const refocus = document.activeElement === stop;
  send.hidden = busy;
  stop.hidden = !busy;
  if (refocus && !busy) prompt.focus();
  if (state === "waiting") said.textContent = "Waiting for the answer.";
}

function ms(duration) {
  return duration < 1000 ? `${Math.round(duration)} ms` : `${(duration / 1000).toFixed(1)} s`;
}

/** "cold start 4 ms" or "warm", from the platform's server-timing header. */
function wake(timing) {
  const [, duration, how] = timing?.match(/init;dur=([\d.]+);desc=(cold|warm)/) ?? [];
  return how === "cold" ? `cold start ${ms(Number(duration))}` : how;
}

// ---- which model answers ----

let answering = ""; // id of the model that gave the latest answer

/** Say which model answers, once it does: asking on arrival would start the function before anybody has a question. */
async function meet(id) {
  if (id === answering) return;
  answering = id;
  name({ id });
  const response = await fetch(CHAT).catch(() => null);
  const about = response?.ok ? await response.json() : {};
  if (about.id === id) name(about); // the echo tells why it has to answer
}

function name({ id, owned_by, reason, hint }) {
  const isEcho = id === "echo";
  model.textContent = isEcho ? "echo, no model" : id + (owned_by === "this-machine" ? " on this machine" : "");
  notice.hidden = !isEcho;
  notice.textContent = "No language model answers here. This is an echo: it sends your words back.";
  if (reason) notice.append(` Why: ${reason}.`);
  if (hint) notice.append(" What helps: ", element("code", "", hint));
}

// ---- keys and buttons ----

function grow() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
  send.disabled = !prompt.value.trim();
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running || !prompt.value.trim()) return;
  const question = prompt.value.trim();
  prompt.value = "";
  grow();
  ask(question);
});
prompt.addEventListener("input", grow);
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  composer.requestSubmit();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
stop.addEventListener("click", () => running?.abort());
document.getElementById("ideas").addEventListener("click", ({ target }) => {
  if (target.tagName === "BUTTON") ask(target.textContent);
  prompt.focus();
});
fresh.addEventListener("click", () => {
  running?.abort();
  running = null;
  messages = [];
  log.replaceChildren();
  welcome.hidden = false;
  fresh.hidden = true;
  said.textContent = "";
  show("dark");
  prompt.focus();
});

grow();
