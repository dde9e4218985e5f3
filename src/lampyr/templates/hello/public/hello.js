// Asks the function without leaving the page; without this file the form still works, and shows the JSON.

const form = document.querySelector("form");
const hello = document.getElementById("hello");
const note = document.getElementById("note");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  document.body.classList.remove("lit");
  const started = performance.now();
  try {
    const response = await fetch(`${form.action}?${new URLSearchParams(new FormData(form))}`);
    const body = await response.json();
    if (!response.ok) throw new Error(body.error?.message);
    hello.textContent = `Hello, ${body.hello}!`;
    const how = response.headers.get("server-timing")?.match(/desc=(cold|warm)/)?.[1] ?? "answered";
    note.textContent = `${how}, ${Math.round(performance.now() - started)} ms`;
    document.body.classList.add("lit");
  } catch (error) {
    note.textContent = error.message || "The server cannot be reached.";
  }
});
