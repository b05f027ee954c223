// Keeps a part of a page up to date while somebody looks at it, and keeps what they have opened
// and where they are in it.
(() => {
  "use strict";

  const part = document.querySelector("[data-live]");
  if (!part) return;
  const state = document.getElementById("live-state");
  const places = "a[href], button, summary, [tabindex]";
  let kept;

  // Nobody looks at a page that is hidden, and nobody wants a list to change behind a question.
  function ask() {
    if (document.visibilityState === "visible" && !document.querySelector("dialog[open]")) htmx.trigger(part, "live");
  }
  setInterval(ask, Number(part.dataset.live) * 1000);
  document.addEventListener("visibilitychange", ask);

  const headline = () => part.querySelector("[data-headline]")?.textContent;

  part.addEventListener("htmx:beforeSwap", () => {
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const box = focused?.closest("[id]");
    kept = {
      headline: headline(),
      open: [...part.querySelectorAll("details[open]")].map((e) => {
        const scroll = e.querySelector(".scroll");
        return { id: e.closest("[id]")?.id, top: scroll?.scrollTop, left: scroll?.scrollLeft };
      }),
      box: box?.id,
      place: box ? [...box.querySelectorAll(places)].indexOf(focused) : -1,
    };
  });

  part.addEventListener("htmx:afterSwap", () => {
    state.textContent = "";
    if (!kept) return;
    for (const { id, top, left } of kept.open) {
      const details = id && document.getElementById(id)?.querySelector("details");
      if (!details) continue;
      details.open = true;
      details.querySelector(".scroll")?.scrollTo(left, top);
    }
    if (kept.place >= 0) document.getElementById(kept.box)?.querySelectorAll(places)[kept.place]?.focus({ preventScroll: true });
    // What has changed for the worse or the better is said aloud, and nothing else.
    if (kept.headline !== headline()) state.textContent = headline();
  });

  const stale = () => { state.textContent = state.dataset.stale; };
  part.addEventListener("htmx:sendError", stale);
  part.addEventListener("htmx:timeout", stale);
  part.addEventListener("htmx:responseError", (e) => {
    if (e.detail.xhr.status === 403) location.reload(); // the page says what is missing
    else stale();
  });
})();
