"use strict";
// Steps through the playings of the lab. Every text comes from the page's JSON and is set as text, never as HTML.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  // Milliseconds from one step to the next while the story plays.
  const PACE = 2500;
  let at = { story: null, agent: null, beside: null, row: 0 };
  let rows = [];
  let timer = null;

  // -- elements ------------------------------------------------------------------------------------------------------

  function h(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== ""));
    return element;
  }

  function svg(tag, attributes, ...children) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // -- what is known at a step ---------------------------------------------------------------------------------------

  /** What every actor holds, shows and has read after an event; `before` is what the clients held ahead of it. */
  function world(playing, last) {
    const state = { held: {}, before: {}, server: {}, index: last };
    for (const actor of playing.actors) state.server[actor.name] = { shown: [], header: null, bytes: 0, gone: false };
    playing.events.slice(0, last + 1).forEach((event) => {
      state.before = { ...state.held };
      Object.assign(state.held, event.held);
      const visit = event.outcome !== null;
      const server = state.server[visit ? event.target : event.actor];
      if (!server) return;
      if (visit) server.bytes += event.bytes;
      // A chain that was refused was shown too; one that an agent does not tell changes nothing.
      if (event.shown.length) server.shown = event.shown;
      if (event.header !== null) server.header = event.header;
      if (!visit && event.shown.length) server.gone = false;
      if (event.leaves) server.gone = true;
    });
    return state;
  }

  /** The entry that applies to a host: its own, or that of a parent which covers subdomains. */
  function entryFor(entries, host) {
    for (let name = host || ""; name; name = name.includes(".") ? name.slice(name.indexOf(".") + 1) : "") {
      const found = (entries || []).find((entry) => entry.host === name);
      if (found && (name === host || found.include_subdomains)) return found;
    }
    return null;
  }

  function length(seconds) {
    for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]]) {
      // A visit takes a moment: 30 days less a second are 30 days.
      const count = Math.floor((size > 60 ? seconds + 30 : seconds) / size);
      if (count >= 1) return `${count} ${unit}${count === 1 ? "" : "s"}`;
    }
    return "0 seconds";
  }

  // -- two playings side by side -------------------------------------------------------------------------------------

  const place = (event) => JSON.stringify([event.at, event.actor, event.host, event.outcome !== null, event.report !== null]);

  /** The events of two playings in rows: those with the same place beside each other (longest common subsequence). */
  function aligned(left, right) {
    if (!right) return left.map((_, index) => [index]);
    const one = left.map(place);
    const two = right.map(place);
    const best = Array.from({ length: one.length + 1 }, () => new Array(two.length + 1).fill(0));
    for (let i = one.length - 1; i >= 0; i--) {
      for (let j = two.length - 1; j >= 0; j--) {
        best[i][j] = one[i] === two[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
      }
    }
    // Of two events that have no like the earlier one comes first, so that no row is before the one above it.
    const leftIsNext = (i, j) => {
      if (i >= one.length || j >= two.length) return i < one.length;
      if (best[i + 1][j] !== best[i][j + 1]) return best[i + 1][j] > best[i][j + 1];
      return left[i].at <= right[j].at;
    };
    const found = [];
    let i = 0;
    let j = 0;
    while (i < one.length || j < two.length) {
      if (i < one.length && j < two.length && one[i] === two[j]) found.push([i++, j++]);
      else if (leftIsNext(i, j)) found.push([i++, null]);
      else found.push([null, j++]);
    }
    return found;
  }

  /** What of an event may differ between agents: how it ended, what was noted and reported, what is held after it. */
  function essence(playing, index) {
    if (index === null) return null;
    const event = playing.events[index];
    const held = Object.entries(world(playing, index).held).map(([client, entries]) => [
      client,
      entries.map((e) => [e.host, e.pins.map((pin) => playing.keys[pin].name), e.include_subdomains, e.static, e.until && Math.round(e.until / 3600)]),
    ]);
    return JSON.stringify([event.outcome, event.noting, event.report, held.filter(([, entries]) => entries.length).sort()]);
  }

  function firstDifference() {
    if (!at.beside) return -1;
    return rows.findIndex(([i, j]) => essence(at.agent, i) !== essence(at.beside, j));
  }

  // -- a moment ------------------------------------------------------------------------------------------------------

  function badge(playing, number, mark) {
    const key = playing.keys[number];
    const title = `${key.name}, pin-sha256="${key.pin}"`;
    const sign = h("span", { class: `badge ${key.shape} ${key.letter ? key.color : "plain"}`, "aria-hidden": "true" });
    sign.append(key.letter || "·");
    return h("span", { class: `key${mark ? " match" : ""}`, title }, sign, h("span", {}, key.name));
  }

  function badges(playing, numbers, marked, none) {
    if (!numbers.length) return h("span", { class: "faint" }, none);
    return h("span", { class: "keys" }, ...numbers.map((number) => badge(playing, number, marked.has(number))));
  }

  function outcomeSign(outcome) {
    const form = data.outcomes[outcome];
    return h("span", { class: `outcome ${form.color}` }, h("span", { "aria-hidden": "true" }, form.sign), ` ${form.word}`);
  }

  function arrow(event) {
    const form = data.outcomes[event.outcome] || { color: event.report === "failed" ? "dull" : "ink", passed: event.report !== "failed" };
    const group = svg("g", { class: `arrow ${form.color}` });
    const end = form.passed ? 288 : 205;
    group.append(svg("line", { x1: 12, y1: 20, x2: end, y2: 20, "stroke-dasharray": form.passed ? "none" : "9 7" }));
    if (form.passed) group.append(svg("path", { d: "M276 10 L290 20 L276 30" }));
    else if (form.sign === "⊣" ) group.append(svg("line", { x1: end + 6, y1: 4, x2: end + 6, y2: 36, class: "bar" }));
    else group.append(svg("path", { d: `M${end} 12 l16 16 m0 -16 l-16 16` }));
    group.append(svg("circle", { cx: 12, cy: 20, r: 6, class: form.passed ? "packet passes" : "packet stops" }));
    return svg("svg", { viewBox: "0 0 300 40", "aria-hidden": "true", class: "wire" }, group);
  }

  function row(name, value) {
    return h("div", { class: "row" }, h("dt", {}, name), h("dd", {}, value));
  }

  function connection(playing, event, state) {
    const box = h("div", { class: "connection" });
    if (event.target && event.target !== event.actor) {
      box.append(h("p", { class: "ends" }, h("span", {}, event.actor), h("span", {}, event.target)), arrow(event));
    }
    if (event.outcome === null) return box;
    const held = entryFor(state.before[event.actor], event.host);
    const pins = held ? held.pins : [];
    const both = new Set(event.shown.filter((pin) => pins.includes(pin)));
    const rows = h("dl", {});
    rows.append(
      row("Asked for", event.host || ""),
      row("Chain shown", badges(playing, event.shown, both, "not told")),
      row("Pins held before", badges(playing, pins, both, "none: only the authorities are asked")),
    );
    if (held) rows.append(row("In both", badges(playing, [...both], both, "no key")));
    const read = event.bytes ? `${event.bytes} bytes, by ${event.target}` : "nothing was sent";
    rows.append(row("Request read", event.outcome === "failed" && !event.target ? "nobody was reached" : read));
    if (event.header !== null) {
      rows.append(row("Header received", event.header ? h("code", {}, event.header) : h("span", { class: "faint" }, "none")));
    }
    if (event.noting) rows.append(row("The store", `pins ${event.noting}`));
    box.append(h("p", { class: "word" }, outcomeSign(event.outcome)), rows);
    return box;
  }

  function store(playing, name, state, event) {
    const after = state.held[name] || [];
    const changed = name in event.held;
    const before = changed ? state.before[name] || [] : after;
    const list = h("ul", { class: "store" });
    for (const entry of after) {
      const was = before.find((other) => other.host === entry.host);
      const same = was && JSON.stringify(was.pins) === JSON.stringify(entry.pins);
      const note = !changed || (same && was.until === entry.until) ? "" : was ? (same ? "renewed" : "replaced") : "new";
      const until = entry.until === null ? "for good" : `for ${length(Math.max(0, entry.until - event.at))} more`;
      const more = [until, entry.include_subdomains ? "and all subdomains" : "", entry.static ? "static" : ""];
      list.append(
        h("li", { class: note ? "fresh" : null }, h("strong", {}, entry.host), note ? h("em", {}, note) : null,
          badges(playing, entry.pins, new Set(), "no pins"), h("span", { class: "faint" }, more.filter(Boolean).join(", "))),
      );
    }
    for (const entry of before.filter((each) => !after.some((other) => other.host === each.host))) {
      list.append(h("li", { class: "gone" }, h("strong", {}, entry.host), h("em", {}, "gone"), badges(playing, entry.pins, new Set(), "")));
    }
    return list.childElementCount ? list : h("p", { class: "faint" }, "holds no pins");
  }

  function card(playing, actor, state, event) {
    const active = actor.name === event.actor || actor.name === event.target;
    const card = h("li", { class: `card ${actor.role}${active ? " active" : ""}` });
    card.append(h("h4", {}, actor.name, h("span", { class: "faint" }, ` ${actor.role}`)));
    if (actor.about) card.append(h("p", { class: "faint" }, actor.about));
    if (actor.role === "client") card.append(store(playing, actor.name, state, event));
    const server = state.server[actor.name];
    if (actor.role !== "site" && actor.role !== "attacker") return card;
    if (server.gone) card.append(h("p", { class: "faint" }, "answers nobody now"));
    else if (server.shown.length) card.append(h("p", {}, "shows ", badges(playing, server.shown.slice(0, 1), new Set(), "")));
    if (!server.gone && server.header) card.append(h("p", {}, "sends ", h("code", {}, server.header)));
    if (!server.gone && server.header === "") card.append(h("p", { class: "faint" }, "sends no pins"));
    if (server.bytes) card.append(h("p", { class: actor.role === "attacker" ? "bad" : null }, `has read ${server.bytes} bytes of requests`));
    return card;
  }

  /** What one agent's playing looks like in a row; where it has no event there, as it was after the last one before. */
  function board(playing, side, differs) {
    const title = data.agents.find((agent) => agent.name === playing.agent).title;
    const here = rows[at.row][side];
    let index = here;
    for (let up = at.row; index === null && up > 0; ) index = rows[--up][side];
    const box = h("section", { class: `board${differs ? " differs" : ""}` });
    box.append(h("h2", {}, title));
    if (differs) box.append(h("p", { class: "notice" }, "The first difference is here."));
    if (index === null) return box;
    const event = playing.events[index];
    const state = world(playing, index);
    if (here === null) {
      // Nothing happens in this playing now: its stores stand as they were.
      box.append(h("p", { class: "sentence faint" }, `Nothing of this happens with ${playing.agent}.`));
    } else {
      box.append(h("p", { class: "sentence" }, event.sentence));
      if (event.reason || event.section) {
        const why = event.section ? `${event.reason ? `${event.reason} ` : ""}(RFC 7469 §${event.section})` : event.reason;
        box.append(h("p", { class: "reason" }, why));
      }
    }
    const quiet = here === null ? { ...event, actor: null, target: null, held: {}, outcome: null } : event;
    const lanes = (roles) => h("ul", { class: "cards" }, ...playing.actors.filter((a) => roles.includes(a.role)).map((a) => card(playing, a, state, quiet)));
    box.append(
      h("div", { class: "moment" },
        h("div", { class: "middle" }, h("h3", {}, "Connection"), here === null || (!event.target && event.outcome === null) ? h("p", { class: "faint" }, "none at this step") : connection(playing, event, state)),
        h("div", {}, h("h3", {}, "Clients and their stores"), lanes(["client"])),
        h("div", {}, h("h3", {}, "Servers and their headers"), lanes(["site", "attacker", "authority"]))),
    );
    return box;
  }

  // -- the page ------------------------------------------------------------------------------------------------------

  function draw() {
    const difference = firstDifference();
    const sides = [at.agent, at.beside].filter(Boolean);
    const events = rows[at.row].map((index, side) => (index === null ? null : sides[side].events[index]));
    const event = events[0] || events[1];
    $("boards").className = at.beside ? "two" : "";
    $("boards").replaceChildren(...sides.map((playing, side) => board(playing, side, at.row === difference)));
    $("range").max = rows.length;
    $("range").value = at.row + 1;
    $("range").setAttribute("aria-valuetext", `${at.row + 1} of ${rows.length}, ${event.when}`);
    $("place").textContent = `Step ${at.row + 1} of ${rows.length} · ${event.when}`;
    $("first").disabled = $("back").disabled = at.row === 0;
    $("last").disabled = $("forward").disabled = at.row === rows.length - 1;
    $("difference").hidden = !at.beside;
    $("difference").disabled = difference < 0;
    $("difference").textContent = difference < 0 ? "No difference" : `First difference: step ${difference + 1}`;
    $("live").textContent = events.map((each, side) => (each ? `${at.beside ? `${sides[side].agent}: ` : ""}${each.sentence}` : "")).join(" ");
    for (const [number, item] of [...$("list").children].entries()) {
      item.firstChild.toggleAttribute("aria-current", false);
      if (number === at.row) item.firstChild.setAttribute("aria-current", "step");
    }
    const current = $("list").children[at.row];
    const list = $("list");
    if (current.offsetTop < list.scrollTop || current.offsetTop + current.offsetHeight > list.scrollTop + list.clientHeight) {
      list.scrollTop = current.offsetTop - list.clientHeight / 3;
    }
    const fragment = new URLSearchParams({ story: at.story.name, agent: at.agent.agent });
    if (at.beside) fragment.set("beside", at.beside.agent);
    fragment.set("step", at.row + 1);
    $("link").href = `#${fragment}`;
    history.replaceState(null, "", `#${fragment}`);
  }

  function drawList() {
    const difference = firstDifference();
    const sides = [at.agent, at.beside].filter(Boolean);
    $("list").replaceChildren(
      ...rows.map((indices, number) => {
        const events = indices.map((index, side) => (index === null ? null : sides[side].events[index]));
        const event = events[0] || events[1];
        const signs = events.map((each, side) => {
          if (each === null) return h("span", { class: "faint" }, at.beside ? `not with ${sides[side].agent}` : "");
          return each.outcome ? outcomeSign(each.outcome) : null;
        });
        const same = events.length === 2 && events[0] && events[1] && events[0].outcome === events[1].outcome;
        const button = h("button", { type: "button" }, h("span", { class: "faint" }, `${number + 1} · ${event.when} `), event.sentence, " ",
          ...(same ? signs.slice(0, 1) : signs).filter(Boolean).flatMap((sign, i) => (i ? [" / ", sign] : [sign])));
        if (number === difference) button.append(h("strong", { class: "mark" }, "first difference"));
        button.addEventListener("click", () => go(number));
        return h("li", { class: event.outcome ? "visit" : null }, button);
      }),
    );
  }

  function go(number) {
    at.row = Math.max(0, Math.min(rows.length - 1, number));
    draw();
  }

  function play(on) {
    clearInterval(timer);
    timer = null;
    $("play").setAttribute("aria-pressed", String(on));
    $("play").textContent = on ? "Pause" : "Play";
    if (!on) return;
    if (at.row === rows.length - 1) go(0);
    timer = setInterval(() => {
      go(at.row + 1);
      if (at.row === rows.length - 1) play(false);
    }, PACE);
  }

  /** Choose by names; one that is not there gives way to the first that is. */
  function choose(story, agent, beside, step) {
    play(false);
    at.story = data.stories.find((each) => each.name === story) || data.stories[0];
    const played = at.story.playings.filter((each) => each.events);
    at.agent = played.find((each) => each.agent === agent) || played[0] || null;
    at.beside = played.find((each) => each.agent === beside && each !== at.agent) || null;
    $("story").value = at.story.name;
    $("about").textContent = at.story.story;
    const chapter = $("chapter");
    if (chapter) chapter.href = `${chapter.dataset.handout}#${at.story.name}`;
    const options = at.story.playings.map((each) => h("option", { value: each.agent, disabled: each.events ? null : "" }, each.events ? each.agent : `${each.agent}: ${each.missing}`));
    $("agent").replaceChildren(...options);
    $("beside").replaceChildren(h("option", { value: "" }, "nobody"), ...options.map((option) => option.cloneNode(true)).filter((option) => !at.agent || option.value !== at.agent.agent));
    $("transport").hidden = $("view").hidden = at.agent === null;
    if (at.agent === null) return;
    $("agent").value = at.agent.agent;
    $("beside").value = at.beside ? at.beside.agent : "";
    rows = aligned(at.agent.events, at.beside && at.beside.events);
    at.row = Math.max(0, Math.min(rows.length - 1, (Number.parseInt(step, 10) || 1) - 1));
    drawList();
    draw();
  }

  function fromFragment() {
    const asked = new URLSearchParams(location.hash.slice(1));
    choose(asked.get("story"), asked.get("agent"), asked.get("beside"), asked.get("step"));
  }

  // -- hands ---------------------------------------------------------------------------------------------------------

  $("story").replaceChildren(...data.stories.map((story) => h("option", { value: story.name }, story.title)));
  for (const id of ["story", "agent", "beside"]) {
    $(id).addEventListener("change", () => choose($("story").value, $("agent").value, $("beside").value, id === "story" ? 1 : at.row + 1));
  }
  const steps = { first: () => 0, back: () => at.row - 1, forward: () => at.row + 1, last: () => rows.length - 1, difference: firstDifference };
  for (const [id, where] of Object.entries(steps)) {
    $(id).addEventListener("click", () => {
      play(false);
      go(where());
    });
  }
  $("play").addEventListener("click", () => play(timer === null));
  $("range").addEventListener("input", () => go($("range").valueAsNumber - 1));
  document.addEventListener("keydown", (event) => {
    const where = { ArrowLeft: steps.back, ArrowRight: steps.forward, Home: steps.first, End: steps.last }[event.key];
    if (!where || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey || event.target.closest("select, input")) return;
    event.preventDefault();
    play(false);
    go(where());
  });
  let began = null;
  $("boards").addEventListener("touchstart", (event) => { began = event.touches.length === 1 ? event.touches[0] : null; }, { passive: true });
  $("boards").addEventListener("touchend", (event) => {
    if (!began) return;
    const across = event.changedTouches[0].clientX - began.clientX;
    const down = event.changedTouches[0].clientY - began.clientY;
    began = null;
    if (Math.abs(across) < 50 || Math.abs(across) < 2 * Math.abs(down)) return;
    play(false);
    go(at.row + (across < 0 ? 1 : -1));
  }, { passive: true });
  addEventListener("hashchange", fromFragment);
  $("explorer").hidden = false;
  fromFragment();
})();
