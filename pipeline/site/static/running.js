// Brings what runs up to date every two seconds; without scripts the page is loaded again every five.
const place = document.getElementById("now");
const EVERY_MS = 2000;
let shown = "";

async function bring() {
  if (!document.hidden) {
    try {
      const answer = await fetch(place.dataset.from, { credentials: "same-origin" });
      const text = answer.ok ? await answer.text() : shown;
      if (text !== shown) place.innerHTML = shown = text; // the server has escaped all of it
    } catch {
      place.querySelector("[role=status]")?.append(" (the server doesn't answer)");
      return;
    }
  }
  setTimeout(bring, EVERY_MS);
}

setTimeout(bring, EVERY_MS);
