// The dashboard. Everything it shows comes from `/dashboard/events`; everything it does goes to the
// endpoints that anybody can use.

const KEPT = 300; // samples, one a second
const MINUTE = 60; // samples over which rates and flows are taken
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

const STATES = {
  CLOSED: "● closed",
  OPEN: "■ open",
  HALF_OPEN: "◐ half-open",
  FORCED_OPEN: "■ forced open",
  DISABLED: "○ disabled",
};
const REASONS = {
  CONSECUTIVE_FAILURES: "too many failures in a row",
  ERROR_RATE: "too high a share of failures",
  SLOW_CALLS: "too high a share of slow calls",
  RETRY_AFTER: "the provider asked to be left alone",
  PROBE_FAILED: "a probe failed",
  HALF_OPEN_TIMEOUT: "the probes did not decide in time",
  FORCED: "by hand",
};

let samples = [];
let span = MINUTE; // samples that the charts show: all there are, and a minute at least
let arrived = 0; // when the newest sample came, by this page's own clock
let token = null;

// ===== what comes in =====

const source = new EventSource("/dashboard/events");
source.addEventListener("hello", (event) => {
  const hello = JSON.parse(event.data);
  samples = hello.samples.slice(-KEPT);
  byId("events").replaceChildren();
  hello.changes.forEach(addChange);
  arrived = performance.now();
  draw();
});
source.addEventListener("sample", (event) => {
  samples.push(JSON.parse(event.data));
  samples = samples.slice(-KEPT);
  arrived = performance.now();
  draw();
});
source.addEventListener("state", (event) => addChange(JSON.parse(event.data)));
source.addEventListener("error", () => say("the gateway does not answer; trying again…", true));
setInterval(countDown, 200);

function say(text, bad) {
  byId("summary").textContent = text;
  byId("summary").classList.toggle("bad", bad);
}

// ===== what is shown =====

function draw() {
  const now = samples.at(-1);
  if (!now) return;
  span = Math.max(MINUTE, samples.length);
  drawHeader(now);
  drawModels(now);
  const names = Object.keys(now.circuits);
  for (const card of byId("circuits").children) {
    if (!names.includes(card.dataset.name)) card.remove();
  }
  for (const name of names) drawCircuit(name, now);
  drawFlow(now);
  countDown();
}

function drawHeader(now) {
  const circuits = Object.values(now.circuits);
  const away = circuits.filter((circuit) => rejects(circuit.state)).length;
  if (away === 0) say("all circuits let requests through", false);
  else if (away < circuits.length) say(`${away} of ${circuits.length} circuits are open`, true);
  else say("every circuit is open: requests are turned away", true);

  const before = samples.at(-1 - MINUTE) ?? samples[0];
  const seconds = Math.max(1, (now.at - before.at) / 1000);
  let all = 0, answered = 0, elsewhere = 0;
  for (const [model, provider, count] of recentAnswers(now)) {
    all += count;
    if (provider) answered += count;
    if (provider && provider !== now.models[model]) elsewhere += count;
  }
  figures(byId("figures"), [
    ["requests/s", all ? (all / seconds).toFixed(1) : "0"],
    ["answered", all ? percent(answered / all) : "–"],
    ["by fallbacks", all ? percent(elsewhere / all) : "–"],
  ]);
  byId("trouble").hidden = !now.configError;
  byId("trouble").textContent = `The new configuration is not in force: ${now.configError}`;
}

function drawModels(now) {
  const names = Object.keys(now.models);
  const select = byId("model");
  if (select.options.length === names.length && names.every((name, at) => select.options[at].value === name)) return;
  select.replaceChildren(...names.map((name) => new Option(name, name, false, name === now.defaultModel)));
}

function drawCircuit(name, now) {
  const circuit = now.circuits[name];
  const card = cardOf(name);
  const at = (selector) => card.querySelector(selector);
  card.dataset.state = circuit.state;
  at(".state").textContent = STATES[circuit.state];
  figures(at(".counts"), [
    ["succeeded", circuit.succeeded],
    ["failed", circuit.failed],
    ["rejected", circuit.rejected],
    ["in flight", circuit.inFlight],
  ]);

  const past = samples.map((sample) => sample.circuits[name]);
  at(".rate").textContent = percent(circuit.errorRate ?? 0);
  const rates = past.map((circuit) => circuit?.errorRate ?? null);
  chart(at(".rates"), [["area", rates, true], ["error", rates]], Math.max(0.25, ...rates));
  const lines = ["p50", "p90", "p99"].map((p) => [p, past.map((circuit) => circuit?.[p] ?? null)]);
  const highest = Math.max(1, ...lines.flatMap(([, values]) => values));
  chart(at(".latencies"), lines.reverse(), highest * 1.1);
  at(".latency").replaceChildren(...["p50", "p90", "p99"].flatMap((p) => [
    element("span", { className: p, textContent: p }), ` ${milliseconds(circuit[p])} `,
  ]));
  drawStates(at(".states"), past);
  at(".past").textContent = `${duration(span * 1000)} ago`;

  const provider = now.providers[name];
  at(".credentials").hidden = !provider?.credentials;
  at(".credentials").textContent = `Key or account refused: ${provider?.credentials?.message}`;
  const simulated = provider?.simulated;
  at(".faults").hidden = !simulated;
  if (simulated) {
    const select = at(".faults select");
    if (!select.options.length) {
      select.replaceChildren(...simulated.faults.map((fault) => new Option(fault)));
      select.value = "server-error";
    }
    at(".repair").disabled = !simulated.fault;
    at(".break").textContent = simulated.fault ? `Broken: ${simulated.fault}` : "Break it";
  }
}

function cardOf(name) {
  for (const card of byId("circuits").children) if (card.dataset.name === name) return card;
  const card = byId("circuit").content.firstElementChild.cloneNode(true);
  card.dataset.name = name;
  card.querySelector("h2").textContent = name;
  const circuit = `/admin/circuit-breakers/${encodeURIComponent(name)}`;
  for (const button of card.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () => admin("POST", `${circuit}/${button.dataset.action}`));
  }
  const fault = `/admin/simulated/${encodeURIComponent(name)}/fault`;
  const form = card.querySelector(".faults");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    admin("POST", `${fault}/${form.querySelector("select").value}`);
  });
  form.querySelector(".repair").addEventListener("click", () => admin("DELETE", fault));
  byId("circuits").append(card);
  return card;
}

/** The time until the next probe, between samples too. */
function countDown() {
  const now = samples.at(-1);
  if (!now) return;
  const passed = performance.now() - arrived;
  for (const card of byId("circuits").children) {
    const circuit = now.circuits[card.dataset.name];
    if (!circuit) continue;
    const since = now.at - circuit.since;
    let text = `for ${duration(since + passed)}`;
    let share = 0;
    if (circuit.state === "OPEN" && circuit.retryAfter !== null) {
      const left = Math.max(0, circuit.retryAfter - passed);
      share = left / Math.max(1, since + circuit.retryAfter);
      text = left > 0 ? `next probe in ${duration(left)}` : "the next request is a probe";
    }
    if (circuit.reason && circuit.state !== "CLOSED") text += ` · ${REASONS[circuit.reason] ?? circuit.reason}`;
    card.querySelector(".reason").textContent = text;
    card.querySelector(".wait div").style.width = `${share * 100}%`;
  }
}

function addChange(change) {
  const list = byId("events");
  const reason = REASONS[change.reason];
  const line = element("li", {});
  line.append(
    element("time", { dateTime: change.at, textContent: new Date(change.at).toLocaleTimeString([], { hour12: false }) }),
    element("b", { textContent: change.circuit }),
    element("span", {}),
  );
  line.lastChild.append(
    `${change.from} → `, element("b", { className: change.to, textContent: change.to }),
    ...(reason ? [element("small", { textContent: reason })] : []),
  );
  list.prepend(line);
  while (list.children.length > 100) list.lastChild.remove();
}

// ===== charts =====

function chart(svg, lines, highest) {
  svg.setAttribute("viewBox", `0 0 ${span - 1} 100`);
  svg.replaceChildren(...lines.map(([name, values, area]) => path(name, values, highest, area)));
}

/** A line through the values, the newest at the right edge; it is broken where there are none. */
function path(name, values, highest, area) {
  const left = span - values.length;
  let d = "", begun = null;
  values.forEach((value, index) => {
    const x = left + index;
    if (value !== null) {
      const y = (97 - (value / highest) * 92).toFixed(1);
      if (begun === null) d += area ? `M${x} 100L${x} ${y}` : `M${x} ${y}h.01`;
      d += `L${x} ${y}`;
      begun = begun ?? x;
    }
    const ends = value === null || index === values.length - 1;
    if (ends && begun !== null) {
      if (area) d += `L${value === null ? x - 1 : x} 100Z`;
      begun = null;
    }
  });
  return shape("path", { class: name, d });
}

function drawStates(svg, past) {
  svg.setAttribute("viewBox", `0 0 ${span} 1`);
  const left = span - past.length;
  const bars = [];
  past.forEach((circuit, index) => {
    if (!circuit) return;
    const last = bars.at(-1);
    if (last?.state === circuit.state && last.to === index) last.to = index + 1;
    else bars.push({ state: circuit.state, from: index, to: index + 1 });
  });
  svg.replaceChildren(...bars.map(({ state, from, to }) =>
    shape("rect", { class: state, x: left + from, y: 0, width: to - from, height: 1 })));
}

/** From the provider that was preferred to the one that answered. */
function drawFlow(now) {
  const flows = new Map();
  for (const [model, provider, count] of recentAnswers(now)) {
    if (!count || !now.models[model]) continue;
    const key = JSON.stringify([now.models[model], provider || "nobody"]);
    flows.set(key, (flows.get(key) ?? 0) + count);
  }
  const svg = byId("flow");
  const width = Math.max(280, svg.clientWidth);
  const entries = [...flows].map(([key, count]) => [...JSON.parse(key), count]).sort();
  if (!entries.length) {
    svg.setAttribute("viewBox", `0 0 ${width} 40`);
    svg.replaceChildren(shape("text", { class: "count", x: 0, y: 22 }, "no requests: send one"));
    return;
  }
  const total = entries.reduce((sum, [, , count]) => sum + count, 0);
  const place = (column) => {
    const sums = new Map();
    for (const entry of entries) sums.set(entry[column], (sums.get(entry[column]) ?? 0) + entry[2]);
    let y = 0;
    const nodes = new Map();
    for (const name of [...sums.keys()].sort()) {
      const height = Math.max(6, (sums.get(name) / total) * 130);
      nodes.set(name, { y, height, used: 0, count: sums.get(name) });
      y += Math.max(height, 34) + 14;
    }
    return { nodes, bottom: y };
  };
  const [from, to] = [place(0), place(1)];
  const label = Math.min(120, width / 3);
  const shapes = [];
  for (const [name, target, count] of entries) {
    const [a, b] = [from.nodes.get(name), to.nodes.get(target)];
    const [thickA, thickB] = [(count / a.count) * a.height, (count / b.count) * b.height];
    const [x1, x2, y1, y2] = [label + 10, width - label - 10, a.y + a.used + thickA / 2, b.y + b.used + thickB / 2];
    const middle = (x1 + x2) / 2;
    const kind = target === "nobody" ? "nobody" : target === name ? "same" : "away";
    shapes.push(shape("path", {
      class: kind, "stroke-width": Math.max(1.5, Math.min(thickA, thickB)),
      d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`,
    }));
    a.used += thickA;
    b.used += thickB;
  }
  for (const [{ nodes }, x, text, anchor] of [
    [from, label, label - 8, "end"], [to, width - label - 10, width - label + 8, "start"],
  ]) {
    for (const [name, { y, height, count }] of nodes) {
      shapes.push(shape("rect", { class: name, x, y, width: 10, height }));
      shapes.push(shape("text", { x: text, y: y + 12, "text-anchor": anchor }, name));
      shapes.push(shape("text", { class: "count", x: text, y: y + 28, "text-anchor": anchor }, String(count)));
    }
  }
  const height = Math.max(from.bottom, to.bottom);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.style.height = `${height}px`;
  svg.replaceChildren(...shapes);
}

/** Who has answered how much since a minute ago. */
function recentAnswers(now) {
  const before = new Map((samples.at(-1 - MINUTE) ?? { answers: [] }).answers.map(([model, provider, count]) => [`${model}\n${provider}`, count]));
  return now.answers.map(([model, provider, count]) => [model, provider, count - (before.get(`${model}\n${provider}`) ?? 0)]);
}

// ===== what is done =====

let sending = null;
byId("send").addEventListener("click", send);
byId("load").addEventListener("click", () => {
  if (sending) clearInterval(sending);
  sending = sending ? null : setInterval(send, 200);
  byId("load").setAttribute("aria-pressed", String(Boolean(sending)));
  byId("load").textContent = sending ? "Stop sending" : "Keep sending";
});

async function send() {
  const answer = byId("answer");
  try {
    const response = await fetch("/v1/process", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "Say hello to the dashboard.", preferredModel: byId("model").value || undefined }),
    });
    const body = await response.json();
    const tried = (body.metadata?.attempts ?? []).filter((attempt) => attempt.reason);
    const why = tried.map((attempt) => `${attempt.provider} ${attempt.outcome}: ${attempt.reason}`).join("; ");
    answer.replaceChildren(
      element("b", { textContent: response.ok ? `${body.provider} answered` : `${response.status}: ${body.error?.message}` }),
      why ? ` (${why})` : "",
    );
  } catch (error) {
    answer.textContent = `no answer: ${error.message}`;
  }
}

/** One request to `/admin`, which asks for the token where there is need of one. */
async function admin(method, path) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { method, headers });
  if (response.status === 401) {
    token = await askForToken();
    if (token) await admin(method, path);
  } else if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    byId("answer").textContent = `${response.status}: ${body.error?.message ?? "refused"}`;
  }
}

function askForToken() {
  const dialog = byId("ask");
  byId("token").value = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "ok" ? byId("token").value : null), { once: true });
  });
}

// ===== small things =====

function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

function shape(name, attributes, text) {
  const shape = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
  if (text) shape.textContent = text;
  return shape;
}

function figures(list, pairs) {
  list.replaceChildren(...pairs.map(([name, value]) => {
    const pair = element("div", {});
    pair.append(element("dt", { textContent: name }), element("dd", { textContent: value }));
    return pair;
  }));
}

function rejects(state) {
  return state === "OPEN" || state === "FORCED_OPEN";
}

function percent(share) {
  return `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1000) return `${(value / 1000).toFixed(1)} s`;
  return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

function duration(milliseconds) {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}:${String(Math.floor(seconds % 60)).padStart(2, "0")} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
