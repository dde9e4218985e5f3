// The playground: one call by way of the console's server, and its answer piece by piece.
"use strict";

const byId = (id) => document.getElementById(id);
const answer = byId("answer");
const SVG = "http://www.w3.org/2000/svg";
const MOST_CHARS = 400_000;
const MOST_DOTS = 600;
const bodyless = new Set(["GET", "HEAD", "OPTIONS"]);
let stopping = null;

function took(ms) {
  return ms >= 10000 ? `${(ms / 1000).toFixed(1)} s` : ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

function choose() {
  const option = byId("function").selectedOptions[0];
  const methods = (option.dataset.methods || "GET POST PUT PATCH DELETE").split(" ");
  byId("method").replaceChildren(...methods.map((one) => new Option(one, one)));
  if (methods.includes("POST")) byId("method").value = "POST";
  byId("path").value = option.value.replace(/\/?\[\[\.\.\.[^\]]+\]\]/g, "").replace(/\[(?:\.\.\.)?[^\]]+\]/g, "1") || "/";
  show();
}

function show() {
  byId("body-label").hidden = bodyless.has(byId("method").value);
}

// The text of a stream: what the events of a chat say, or else what came, as it came.
class Reading {
  constructor(type) {
    this.events = type.startsWith("text/event-stream");
    this.rest = "";
    this.raw = "";
    this.said = "";
    this.any = false;
  }

  feed(text) {
    this.raw = (this.raw + text).slice(0, MOST_CHARS);
    if (!this.events) return text.length > 0;
    const blocks = (this.rest + text).split(/\r?\n\r?\n/);
    this.rest = blocks.pop();
    let token = false;
    for (const block of blocks)
      for (const line of block.split(/\r?\n/)) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        token = token || (data !== "" && data !== "[DONE]");
        const said = spoken(data);
        if (said !== null) {
          this.any = true;
          this.said = (this.said + said).slice(0, MOST_CHARS);
        }
      }
    return token;
  }

  get text() {
    return this.any ? this.said : this.raw;
  }
}

// What a provider's event adds to the answer: OpenAI, Anthropic, the Vercel AI SDK; null where it is none of theirs.
function spoken(data) {
  try {
    const event = JSON.parse(data);
    const delta = event.choices?.[0]?.delta ?? event.delta;
    if (typeof delta === "string") return delta;
    const text = delta?.content ?? delta?.text;
    return typeof text === "string" ? text : delta || event.type ? "" : null;
  } catch {
    return null;
  }
}

class Pulse {
  constructor(svg) {
    this.svg = svg;
    this.at = [];
    this.due = false;
    svg.querySelectorAll("circle").forEach((one) => one.remove());
  }

  beat(ms, size) {
    this.at.push([ms, size]);
    if (!this.due) {
      this.due = true;
      requestAnimationFrame(() => this.draw());
    }
  }

  draw() {
    this.due = false;
    const last = Math.max(this.at.at(-1)[0], 1);
    const step = Math.ceil(this.at.length / MOST_DOTS);
    const width = this.svg.clientWidth || 600;
    this.svg.setAttribute("viewBox", `0 0 ${width} 54`);
    this.svg.querySelector("line").setAttribute("x2", width);
    const dots = this.at.filter((_, number) => number % step === 0).map(([ms, size], number) => {
      const dot = document.createElementNS(SVG, "circle");
      dot.setAttribute("cx", (6 + (ms / last) * (width - 12)).toFixed(1));
      dot.setAttribute("cy", "36");
      dot.setAttribute("r", Math.min(1.6 + Math.log2(1 + size) / 4, 6).toFixed(2));
      if (number === 0) dot.setAttribute("class", "first");
      return dot;
    });
    this.svg.querySelectorAll("circle").forEach((one) => one.remove());
    this.svg.append(...dots);
  }
}

async function call() {
  stopping = new AbortController();
  const method = byId("method").value;
  for (const id of ["status", "first", "token", "total", "count"]) byId(id).textContent = "–";
  byId("text").textContent = "";
  byId("note").textContent = "";
  answer.dataset.state = "waiting";
  byId("send").disabled = true;
  byId("stop").hidden = false;
  const begun = performance.now();
  const since = () => performance.now() - begun;
  const pulse = new Pulse(byId("pulse"));
  let pieces = 0;
  try {
    const response = await fetch("/api/play", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        method,
        path: byId("path").value,
        headers: byId("headers").value,
        body: bodyless.has(method) ? "" : byId("body").value,
      }),
      signal: stopping.signal,
    });
    if (!response.ok) {
      const error = (await response.json()).error;
      byId("note").textContent = [error.message, error.hint].filter(Boolean).join(" ");
      return;
    }
    let told = null;
    let reading = null;
    let token = null;
    for await (const line of lines(response.body)) {
      if ("status" in line) {
        told = line;
        reading = new Reading(told.type);
        byId("status").textContent = told.status;
        byId("text").classList.toggle("prose", reading.events);
        answer.dataset.state = "lit";
      } else if ("text" in line) {
        pieces += 1;
        if (pieces === 1) byId("first").textContent = took(line.ms);
        pulse.beat(line.ms, line.text.length);
        if (reading.feed(line.text) && token === null) {
          token = line.ms;
          byId("token").textContent = took(token);
        }
        byId("text").textContent = reading.text;
        byId("text").scrollTop = byId("text").scrollHeight;
        byId("count").textContent = pieces;
      } else {
        if (!reading.events) byId("text").textContent = pretty(reading.raw, told.type);
        byId("count").textContent = pieces;
        end(told, line.end);
      }
      byId("total").textContent = took(line.ms);
    }
  } catch (error) {
    byId("note").textContent = error.name === "AbortError" ? `Stopped after ${took(since())}; the function was told.` : "The answer broke off.";
  } finally {
    answer.dataset.state = "dark";
    byId("send").disabled = false;
    byId("stop").hidden = true;
    stopping = null;
  }
}

// Lines of JSON, each when it is whole.
async function* lines(body) {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const whole = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = whole.pop();
    for (const line of whole) yield JSON.parse(line);
  }
}

function end(told, how) {
  const note = byId("note");
  const said = { complete: "", cut: "The function broke its answer off. ", "too long": "The answer is longer than the playground reads. " };
  note.textContent = [said[how] + (told.error ? `${told.error} ` : ""), told.timing].filter(Boolean).join("");
  if (!told.id) return;
  const link = document.createElement("a");
  link.href = `/invocations/${encodeURIComponent(told.id)}`;
  link.textContent = told.id;
  note.append(document.createElement("br"), "its row, in half a second: ", link);
}

function pretty(text, type) {
  if (!/\bjson\b/.test(type)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

if (byId("call")) {
  byId("function").addEventListener("change", choose);
  byId("method").addEventListener("change", show);
  byId("call").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!stopping) call();
  });
  byId("call").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("call").requestSubmit();
  });
  byId("stop").addEventListener("click", () => stopping?.abort());
  choose();
}
