// What pages do better with a script than without: times in the viewer's zone, buttons that
// copy, questions in a dialog, and forms that are sent once.
(() => {
  "use strict";

  const lang = document.documentElement.lang || undefined;
  const format = (options) => new Intl.DateTimeFormat(lang, options);
  const exact = format({ dateStyle: "full", timeStyle: "long" });
  const usual = format({ dateStyle: "medium", timeStyle: "medium" });
  const clocks = {
    hour: format({ hour: "2-digit", minute: "2-digit" }),
    weekday: format({ weekday: "short", hour: "2-digit", minute: "2-digit" }),
    day: format({ day: "numeric", month: "short" }),
  };
  const relative = new Intl.RelativeTimeFormat(lang, { numeric: "auto" });
  const units = [["second", 60], ["minute", 60], ["hour", 24], ["day", 30], ["month", 12], ["year", Infinity]];

  function ago(date) {
    let n = (date - Date.now()) / 1000;
    for (const [unit, next] of units) {
      if (Math.abs(n) < next) return relative.format(Math.round(n), unit);
      n /= next;
    }
  }

  function times(root) {
    for (const e of root.querySelectorAll("time[datetime]")) {
      const date = new Date(e.dateTime);
      if (isNaN(date)) continue;
      const clock = clocks[e.dataset.clock];
      e.textContent = clock ? clock.format(date) : "ago" in e.dataset ? ago(date) : usual.format(date);
      e.title = exact.format(date);
    }
  }

  function buttons(root) {
    for (const e of root.querySelectorAll("[data-copy],[data-reveal]")) e.hidden = false;
  }

  function prepare(root) {
    times(root);
    buttons(root);
  }

  async function copy(button) {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // not in a secure context: the text is marked, so that the keyboard copies it
      const source = button.parentElement.querySelector("pre");
      if (source) getSelection().selectAllChildren(source);
      return;
    }
    const was = button.textContent;
    button.textContent = button.dataset.done;
    setTimeout(() => { button.textContent = was; }, 2000);
  }

  function reveal(button) {
    const field = document.getElementById(button.dataset.reveal);
    const hidden = field.type === "password";
    field.type = hidden ? "text" : "password";
    button.setAttribute("aria-pressed", String(hidden));
    field.focus();
  }

  // ask opens the question of another page in a dialog. Where that does not work, the page
  // itself is opened.
  async function ask(link) {
    let page;
    try {
      const answer = await fetch(link.href, { headers: { Accept: "text/html" } });
      page = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch {
      location.assign(link.href);
      return;
    }
    const form = page.querySelector("form[data-confirm]");
    if (!form) {
      location.assign(link.href);
      return;
    }
    const dialog = document.createElement("dialog");
    const title = document.createElement("h2");
    title.id = "dialog-title";
    title.textContent = page.querySelector("h1").textContent;
    dialog.setAttribute("aria-labelledby", title.id);
    dialog.append(title, document.adoptNode(form));
    dialog.addEventListener("close", () => { dialog.remove(); link.focus(); });
    form.querySelector("[data-cancel]")?.addEventListener("click", (e) => { e.preventDefault(); dialog.close(); });
    prepare(dialog);
    document.body.append(dialog);
    dialog.showModal();
  }

  document.addEventListener("click", (e) => {
    if (!(e.target instanceof Element) || e.button !== 0 || e.ctrlKey || e.metaKey || e.shiftKey || e.altKey) return;
    const link = e.target.closest("a[data-dialog]");
    if (link) {
      e.preventDefault();
      ask(link);
      return;
    }
    const button = e.target.closest("button");
    if (button?.dataset.copy !== undefined) copy(button);
    if (button?.dataset.reveal) reveal(button);
  });

  // A double click sends a form once. Whoever comes back to the page may send it again.
  document.addEventListener("submit", (e) => {
    const form = e.target;
    if (e.defaultPrevented || form.method === "get") return;
    if (form.dataset.sent) {
      e.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
    form.setAttribute("aria-busy", "true");
  });
  addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) {
      delete form.dataset.sent;
      form.removeAttribute("aria-busy");
    }
  });

  document.addEventListener("htmx:afterSwap", (e) => prepare(e.target));
  setInterval(() => times(document), 30000);
  prepare(document);
})();
