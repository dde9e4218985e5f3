// Follows the log: lines are appended as they come, as text and never as markup.
"use strict";

const MOST_LINES = 2000;
const lines = document.getElementById("lines");
const button = document.getElementById("follow");
const CLASSES = /^[a-z]+$/;
let source = null;
let atEnd = true;

function cell(name, className, text) {
  const one = document.createElement(name);
  one.className = className;
  one.textContent = text;
  return one;
}

function add(line) {
  const row = cell("div", ["row", line.stream, line.level].filter((one) => CLASSES.test(one)).join(" "), "");
  const time = cell("time", "", line.time.slice(11, 23));
  time.dateTime = line.time;
  row.append(time, cell("span", "who", line.function ?? "server"), cell("span", "what", line.message));
  lines.append(row);
}

function follow(on) {
  button.setAttribute("aria-pressed", String(on));
  button.textContent = on ? "Following" : "Follow";
  source?.close();
  source = null;
  if (!on) return;
  source = new EventSource(lines.dataset.stream);
  source.onmessage = (event) => {
    for (const line of JSON.parse(event.data)) add(line);
    while (lines.childElementCount > MOST_LINES) lines.firstElementChild.remove();
    document.getElementById("no-lines").hidden = lines.childElementCount > 0;
    if (atEnd) lines.scrollTop = lines.scrollHeight;
  };
}

// Who scrolls up reads; new lines do not pull the text away.
lines.addEventListener("scroll", () => {
  atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 24;
});
button.addEventListener("click", () => follow(source === null));
lines.scrollTop = lines.scrollHeight;
follow(true);
