"use strict";
const at = (id) => document.getElementById(id);
const state = { answer: null, wired: {}, timer: null };

const make = (tag, cls, text) => {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  if (text !== undefined) node.textContent = text;
  return node;
};

async function call(method, path, body, key) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["X-API-Key"] = key;
  const reply = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const values = await reply.json();
  if (!reply.ok) throw new Error([values.title, values.where, values.expected].filter(Boolean).join(" · "));
  return values;
}

function say(text, kind) {
  at("message").textContent = text;
  at("message").className = kind || "";
}

function showSlate(answer) {
  state.answer = answer;
  at("release").textContent = answer.release;
  at("arm").textContent = answer.arm;
  at("arm").className = "badge quiet " + (answer.degraded ? "bad" : "");
  const list = answer.items.map((item) => {
    const row = make("li");
    row.dataset.item = item.item_id;
    const text = make("div");
    const title = make("div", "title", item.title || item.item_id);
    if (item.source) title.append(make("span", "tag", item.source));
    const reasons = item.reasons.map((reason) => `${reason.title || reason.item_id} ${Math.round(reason.share * 100)} %`);
    const why = reasons.length ? "because of " + reasons.join(", ") : "popular with everybody";
    text.append(title, make("div", "why", why));
    const acts = make("div", "acts");
    for (const type of ["like", "skip"]) {
      const button = make("button", type, type === "like" ? "Like" : "Skip");
      button.setAttribute("aria-label", `${button.textContent} ${item.title || item.item_id}`);
      button.addEventListener("click", () => send(type, item));
      acts.append(button);
    }
    row.append(make("div", "place", item.position), text, acts);
    return row;
  });
  at("slate").replaceChildren(...list);
  if (!list.length) at("slate").replaceChildren(make("li", "", "Nothing is left to recommend."));
  const total = answer.latency_ms.total || 1;
  const bars = [];
  for (const [stage, ms] of Object.entries(answer.latency_ms)) {
    const meter = make("meter");
    meter.max = total;
    meter.value = ms;
    meter.setAttribute("aria-label", stage);
    bars.push(make("span", "", stage), meter, make("span", "ms", `${ms.toFixed(1)} ms`));
  }
  at("latency").replaceChildren(...bars);
}

async function recommend(note) {
  const user = at("user").value.trim();
  if (!user) return;
  try {
    const answer = await call("POST", "/v1/recommendations", { user_id: user, k: Number(at("k").value) }, key());
    showSlate(answer);
    const degraded = answer.degraded ? `Popular items in place of the models (${answer.degraded_reason}).` : "";
    say([note, degraded].filter(Boolean).join(" "), answer.degraded ? "warm" : "");
    await compare(user);
    await facts();
  } catch (error) {
    say(error.message, "bad");
  }
}

async function send(type, item) {
  const answer = state.answer;
  const event = {
    event_id: crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`,
    type, user_id: answer.user_id, item_id: item.item_id, request_id: answer.request_id, token: answer.token,
    position: item.position, event_time_ms: Date.now(),
  };
  try {
    const done = (await call("POST", "/v1/events", { events: [event] }, key())).acknowledgements[0];
    const verb = type === "like" ? "Liked" : "Skipped";
    await recommend(done.status === "quarantined" ? `Not counted: ${done.reason}.` : `${verb} ${item.title || item.item_id}.`);
  } catch (error) {
    say(error.message, "bad");
  }
}

async function compare(user) {
  const body = { user_id: user, k: Number(at("k").value) };
  const sides = await call("POST", "/v1/demo/compare", body, key());
  const ids = Object.fromEntries(["stable", "canary"].map((side) => [side, new Set(((sides[side] || {}).items || []).map((i) => i.item_id))]));
  for (const side of ["stable", "canary"]) {
    const found = sides[side];
    const other = ids[side === "stable" ? "canary" : "stable"];
    at(`${side}-name`).textContent = found ? `${side} · ${found.release}` : `${side} · none`;
    const rows = ((found || {}).items || []).map((item) => make("li", other.has(item.item_id) ? "both" : "", item.title || item.item_id));
    at(side).replaceChildren(...(rows.length ? rows : [make("li", "both", found ? "no answer" : "no canary is running")]));
  }
}

const key = () => at("key").value.trim();

async function facts() {
  const found = await call("GET", "/v1/demo", undefined, key());
  if (!at("users").children.length) {
    at("users").replaceChildren(...found.users.map((user) => { const o = make("option"); o.value = user; return o; }));
    if (!at("user").value && found.users.length) at("user").value = found.users[Math.floor(found.users.length / 2)];
  }
  at("health").textContent = found.ready ? "models answer" : "models do not answer";
  at("health").className = "badge quiet " + (found.ready ? "good" : "bad");
  state.wired = found.wired;
  for (const verb of ["retrain", "rollback"]) {
    at(verb).disabled = !found.wired[verb] || !key();
    at(verb).title = !found.wired[verb] ? "not wired into this gateway" : key() ? "" : "needs the operator's key";
  }
  const share = (value) => `${(100 * value).toFixed(1)} %`;
  at("online").tBodies[0].replaceChildren(...found.online.map((row) => {
    const line = make("tr");
    const wanted = `${share(row.success_rate)} (${share(row.success_low)} to ${share(row.success_high)})`;
    const dwell = row.mean_dwell_ms === null ? "" : `${(row.mean_dwell_ms / 1000).toFixed(1)} s`;
    for (const text of [row.release, row.arm, `${row.slates} (${share(row.share)})`, wanted, share(row.like_rate), share(row.skip_rate), dwell, row.distinct_items]) line.append(make("td", "", text));
    return line;
  }));
}

async function watch() {
  clearTimeout(state.timer);
  try {
    const run = await call("GET", "/v1/admin/progress", undefined, key());
    at("run").textContent = [run.state, run.stage, run.message].filter(Boolean).join(" · ");
    at("gates").replaceChildren(...(run.gates || []).map((gate) =>
      make("li", gate.passed ? "pass" : "fail", [gate.name, gate.detail].filter(Boolean).join(": "))));
    if (run.state === "running") state.timer = setTimeout(watch, 1000);
    else await facts();
  } catch (error) {
    at("run").textContent = error.message;
  }
}

async function operate(verb) {
  at("run").className = "";
  try {
    const done = await call("POST", `/v1/admin/${verb}`, undefined, key());
    at("run").textContent = `${verb}: ${done.stable || done.run_id || "done"}`;
    if (verb === "retrain" && state.wired.progress) await watch();
    else await recommend("Rolled back.");
  } catch (error) {
    at("run").textContent = error.message;
    at("run").className = "bad";
  }
}

at("ask").addEventListener("submit", (event) => { event.preventDefault(); recommend(); });
at("new-user").addEventListener("click", () => {
  at("user").value = `new-${Math.random().toString(36).slice(2, 8)}`;
  recommend("A user nobody has seen: like a few items.");
});
at("key").addEventListener("input", () => facts().catch((error) => say(error.message, "bad")));
for (const verb of ["retrain", "rollback"]) at(verb).addEventListener("click", () => operate(verb));
facts().then(() => recommend()).catch((error) => say(error.message, "bad"));
