// The console's behaviour beyond links and forms. Every page works without it, apart from the live
// tail. It is loaded in the head without defer, so that the theme is set before anything is drawn.
"use strict";

(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const storage = {
    get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
    set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* not kept then */ } },
  };

  // Theme

  const themes = ["system", "light", "dark"];
  let theme = storage.get("trunkline-theme");
  if (!themes.includes(theme)) theme = "system";
  const applyTheme = () => {
    if (theme === "system") root.removeAttribute("data-theme");
    else root.dataset.theme = theme;
    for (const name of all("[data-theme-toggle] [data-theme-name]")) name.textContent = theme;
  };
  applyTheme();

  const announce = (text) => {
    const region = document.getElementById("announcer");
    if (region) region.textContent = text;
  };

  // Times. The page says what the broker's clock shows, so a wrong clock here does not distort ages.

  const served = Date.parse(root.dataset.now ?? "");
  const skew = Number.isNaN(served) ? 0 : Date.now() - served;
  const clock = new Intl.DateTimeFormat(undefined, {
    year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit",
    second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23", timeZoneName: "short",
  });
  const local = (date, precise) => {
    const part = {};
    for (const { type, value } of clock.formatToParts(date)) part[type] = value;
    const fraction = precise ? `.${part.fractionalSecond}` : "";
    const text = `${part.year}-${part.month}-${part.day} ${part.hour}:${part.minute}:${part.second}${fraction}`;
    return { text, zone: part.timeZoneName };
  };
  const age = (date) => {
    const seconds = Math.round((Date.now() - skew - date.getTime()) / 1000);
    const ahead = seconds < -1;
    const size = Math.abs(seconds);
    if (size < 1 || seconds === -1) return "now";
    const [count, unit] =
      size < 120 ? [size, "s"]
      : size < 7200 ? [Math.floor(size / 60), "min"]
      : size < 172800 ? [Math.floor(size / 3600), "h"]
      : [Math.floor(size / 86400), "days"];
    return ahead ? `in ${count} ${unit}` : `${count} ${unit} ago`;
  };
  const showTime = (time) => {
    const date = new Date(time.dateTime);
    if (Number.isNaN(date.getTime())) return;
    const precise = /\.\d/.test(time.dateTime);
    const { text, zone } = local(date, precise);
    const relative = time.hasAttribute("data-relative");
    const shown = relative ? age(date) : text;
    if (time.textContent !== shown) time.textContent = shown;
    const utc = `${time.dateTime.replace("T", " ").replace(/Z$/, "")} UTC`;
    const title = relative ? `${text} ${zone}, ${utc}` : `${utc} (shown in ${zone})`;
    if (time.title !== title) time.title = title;
  };
  const showTimes = (within = document) => {
    if (within.matches?.("time[datetime]")) showTime(within);
    all("time[datetime]", within).forEach(showTime);
  };

  // Search in what is loaded

  const filterRows = (input) => {
    const rows = document.querySelector(input.dataset.filterRows);
    if (!rows) return;
    const term = input.value.trim().toLowerCase();
    const messages = all("tbody.message", rows);
    const items = messages.length > 0 ? messages : all("tbody > tr", rows);
    let shown = 0;
    for (const item of items) {
      const hit = term === "" || item.textContent.toLowerCase().includes(term);
      item.hidden = !hit;
      if (hit) shown += 1;
    }
    for (const output of all(`[data-filter-count="${input.dataset.filterRows}"]`)) {
      output.textContent = term === "" ? "" : `${shown} of ${items.length} shown`;
    }
  };
  const filterAll = () => all("[data-filter-rows]").forEach((input) => { if (input.value) filterRows(input); });

  // Forms

  // A form that must be confirmed by typing a name can be sent only when it is typed.
  const confirmTyped = (input) => {
    const right = input.value === input.dataset.confirms;
    for (const button of all("button:not([type='button'])", input.form)) button.disabled = !right;
  };
  // Elements with data-when="SELECT-ID value value" are shown while the select has one of these values.
  const showWhen = () => {
    for (const element of all("[data-when]")) {
      const [id, ...values] = element.dataset.when.split(" ");
      const select = document.getElementById(id);
      if (select) element.hidden = !values.includes(select.value);
    }
  };

  // Copying. Outside of a secure context there is no clipboard, but the old command still works.

  const copy = async (button) => {
    const source = button.dataset.copyFrom && document.querySelector(button.dataset.copyFrom);
    const text = source ? source.textContent : button.dataset.copy;
    let copied = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "visually-hidden";
      document.body.append(area);
      area.select();
      copied = document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.dataset.label ??= button.textContent;
    button.textContent = copied ? "Copied" : "Not copied";
    announce(button.textContent);
    setTimeout(() => { button.textContent = button.dataset.label; }, 1500);
  };

  // Details of a message: a link that opens them below its row, and leads to their page otherwise

  const expand = (link) => {
    const row = document.getElementById(link.dataset.expand);
    if (!row) return;
    const open = row.hidden;
    row.hidden = !open;
    link.setAttribute("aria-expanded", String(open));
    if (open && !row.dataset.loaded) {
      row.dataset.loaded = "yes";
      const cell = row.querySelector("td");
      htmx.ajax("GET", link.getAttribute("href"), { source: row, target: cell, swap: "innerHTML" })
        .then(() => { if (!cell.querySelector(".message-detail")) delete row.dataset.loaded; });
    }
  };

  document.addEventListener("click", (event) => {
    const target = event.target.closest?.("[data-theme-toggle], [data-copy], [data-copy-from], [data-expand]");
    if (!target) return;
    if (target.matches("[data-theme-toggle]")) {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      storage.set("trunkline-theme", theme);
      applyTheme();
    } else if (target.matches("[data-expand]")) {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || !window.htmx) return;
      event.preventDefault();
      expand(target);
    } else {
      copy(target);
    }
  });
  document.addEventListener("input", ({ target }) => {
    if (target.matches("[data-filter-rows]")) filterRows(target);
    if (target.matches("[data-confirms]")) confirmTyped(target);
  });
  document.addEventListener("change", showWhen);
  document.addEventListener("keydown", (event) => {
    const active = document.activeElement;
    if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey) {
      if (active?.matches("input, select, textarea") || active?.isContentEditable) return;
      const search = document.querySelector("[data-search]");
      if (!search) return;
      event.preventDefault();
      search.focus();
      search.select?.();
    } else if (event.key === "Escape" && active?.matches("[data-search]")) {
      active.blur();
    }
  });

  // Sections that htmx polls

  const polls = (element) => element?.getAttribute?.("hx-trigger")?.startsWith("every ");
  const answers = new WeakMap();
  let focused = null;

  const banner = (text) => {
    const element = document.getElementById("banner");
    if (!element) return;
    if (element.textContent !== text) element.textContent = text;
    element.hidden = text === "";
  };
  document.addEventListener("htmx:configRequest", ({ detail }) => {
    if (polls(detail.elt)) detail.timeout = 10_000;
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (document.hidden && polls(event.detail.elt)) event.preventDefault();
  });
  document.addEventListener("htmx:beforeSwap", ({ detail }) => {
    const element = detail.target;
    if (!polls(element) || detail.requestConfig.elt !== element) return;
    // What has not changed stays, and so does what the reader is about to copy.
    const selection = document.getSelection();
    const selecting = selection && !selection.isCollapsed && selection.containsNode(element, true);
    if (answers.get(element) === detail.serverResponse || selecting) {
      detail.shouldSwap = false;
      return;
    }
    const active = document.activeElement;
    focused = element.contains(active) && active.matches("a[href]") ? active.getAttribute("href") : null;
  });
  document.addEventListener("htmx:afterSwap", ({ detail }) => {
    const id = detail.target?.id;
    const element = (id && document.getElementById(id)) || detail.elt;
    if (polls(element) && detail.xhr) answers.set(element, detail.xhr.responseText);
    if (focused !== null) {
      all("a[href]", element).find((link) => link.getAttribute("href") === focused)?.focus({ preventScroll: true });
      focused = null;
    }
    refresh();
  });
  const fails = () => banner("The broker does not answer; retrying");
  document.addEventListener("htmx:sendError", fails);
  document.addEventListener("htmx:timeout", fails);
  document.addEventListener("htmx:responseError", ({ detail }) => {
    const { status } = detail.xhr;
    if (status >= 500) fails();
    else if (status === 401) banner("You are logged out. Reload the page to log in.");
    else if (status === 404) banner("What this page shows is gone. Reload the page.");
    else if (polls(detail.elt)) banner("A part of this page could not be updated; retrying");
  });
  document.addEventListener("htmx:afterOnLoad", ({ detail }) => {
    if (detail.xhr.status < 400) banner("");
  });

  // What a section has to say is announced when it changes, not every time it is polled.
  const said = new Map();
  const announceChanges = () => {
    for (const element of all("[data-announce]")) {
      const text = element.dataset.announce;
      if (said.has(element.id) && said.get(element.id) !== text) announce(text);
      said.set(element.id, text);
    }
  };

  // Live tail

  const tail = (section) => {
    const part = (name) => section.querySelector(`[data-tail-${name}]`);
    const rows = part("rows");
    const kept = 200;
    let source = null;
    let next = null; // the offset to read next, once it is known
    let count = 0;
    let failures = 0;
    let timer = 0;
    let waiting = [];
    let drawing = false;
    let state = "";

    const show = (now, text = now) => {
      state = now;
      const element = part("state");
      element.dataset.state = now;
      if (element.textContent !== text) element.textContent = text;
      const toggle = part("toggle");
      toggle.textContent = now === "paused" ? "Resume" : "Pause";
      toggle.disabled = now === "ended";
    };
    const notice = (text) => {
      part("notice").textContent = text;
      part("notice").hidden = text === "";
    };
    const draw = () => {
      drawing = false;
      if (waiting.length === 0) return;
      const template = document.createElement("template");
      template.innerHTML = waiting.slice(-kept).reverse().join("");
      waiting = [];
      for (const row of all(".message", template.content)) {
        row.classList.add("is-new");
        showTimes(row);
      }
      const first = rows.querySelector("tbody");
      rows.insertBefore(template.content, first);
      for (const row of all("tbody.message", rows).slice(kept)) row.remove();
      part("count").textContent = count.toLocaleString("en");
      if (part("empty")) part("empty").hidden = true;
      rows.hidden = false;
      filterAll();
    };
    const close = () => {
      clearTimeout(timer);
      source?.close();
      source = null;
    };
    const open = () => {
      close();
      show("connecting", failures === 0 ? "connecting" : `connecting again, attempt ${failures}`);
      const url = new URL(section.dataset.tailUrl, location.href);
      if (next !== null) url.searchParams.set("from", String(next));
      const opened = new EventSource(url);
      source = opened;
      const live = () => {
        failures = 0;
        if (state !== "live") show("live");
      };
      opened.addEventListener("ready", ({ data }) => {
        if (/^\d+$/.test(data)) next = BigInt(data);
        live();
      });
      opened.addEventListener("message", ({ data, lastEventId }) => {
        if (/^\d+$/.test(lastEventId)) next = BigInt(lastEventId) + 1n;
        live();
        count += 1;
        waiting.push(data);
        if (waiting.length > 2 * kept) waiting = waiting.slice(-kept);
        if (!drawing) {
          drawing = true;
          // A page in the background draws no frames, but a timer still runs.
          if (document.hidden) setTimeout(draw, 500);
          else requestAnimationFrame(draw);
        }
      });
      opened.addEventListener("notice", ({ data }) => notice(data));
      opened.addEventListener("end", ({ data }) => {
        close();
        if (data) notice(data);
        show("ended");
      });
      opened.addEventListener("error", () => {
        if (source !== opened) return;
        close();
        failures += 1;
        const seconds = Math.min(15, 2 ** (failures - 1));
        show("connecting", `no connection; again in ${seconds} s`);
        timer = setTimeout(open, seconds * 1000 * (0.8 + Math.random() * 0.4));
      });
    };

    part("toggle").addEventListener("click", () => {
      if (state === "paused") {
        failures = 0;
        open();
      } else {
        close();
        draw();
        show("paused");
      }
    });
    part("clear")?.addEventListener("click", () => {
      waiting = [];
      all("tbody.message", rows).forEach((row) => row.remove());
      rows.hidden = true;
      if (part("empty")) part("empty").hidden = false;
    });
    window.addEventListener("pagehide", close);
    const goOn = () => { if (state !== "paused" && state !== "ended") open(); };
    window.addEventListener("pageshow", (event) => { if (event.persisted) goOn(); });
    // A browser opens only a few connections to a host: a page in the background needs none.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) close();
      else goOn();
    });
    open();
  };

  function refresh() {
    showTimes();
    filterAll();
    showWhen();
    announceChanges();
  }
  document.addEventListener("DOMContentLoaded", () => {
    applyTheme();
    all("[data-theme-toggle]").forEach((button) => { button.hidden = false; });
    all("[data-confirms]").forEach(confirmTyped);
    all("[data-tail-url]").forEach(tail);
    refresh();
    setInterval(() => { if (!document.hidden) all("time[data-relative]").forEach(showTime); }, 1000);
  });
  document.addEventListener("htmx:load", ({ detail }) => showTimes(detail.elt));
})();
