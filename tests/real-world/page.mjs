// Opens the page of a comparison in headless Chromium, from file:// and offline, and uses it as people do: mouse, wheel, keys,
// fingers, narrow windows, light and dark.
//
//   dype compare --model demo --prompt "a lake" --methods base,yarn,dy_yarn -o x/
//   node tests/real-world/page.mjs x/compare_seed_42_res_4096x4096.html [folder for screenshots]
//
// Each case is one line, "ok" or "FAILED"; the exit code is the number of failures. Needs node 18 or newer and Chromium (or CHROMIUM=path),
// nothing else: it speaks the DevTools protocol over a pipe. The page must have two pictures or more.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [file, shots] = process.argv.slice(2);
if (!file) {
  console.error("name a page: node tests/real-world/page.mjs PAGE.html [folder for screenshots]");
  process.exit(2);
}
if (shots) mkdirSync(shots, { recursive: true });
const profile = mkdtempSync(join(tmpdir(), "page-"));
const browser = spawn(process.env.CHROMIUM ?? "chromium",
  ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", `--user-data-dir=${profile}`, "--remote-debugging-pipe", "about:blank"],
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });

// The DevTools protocol: JSON with a NUL behind it, both ways.
const waiting = new Map(), problems = [], requests = [];
let last = 0, unread = Buffer.alloc(0), session;
browser.stdio[4].on("data", (bytes) => {
  unread = Buffer.concat([unread, bytes]);
  for (let end; (end = unread.indexOf(0)) >= 0; unread = unread.subarray(end + 1)) hear(JSON.parse(unread.subarray(0, end)));
});
function hear({ id, result, error, method, params }) {
  if (id) return waiting.get(id)(error ? Promise.reject(new Error(error.message)) : result);
  if (method === "Runtime.exceptionThrown") problems.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
  if (method === "Log.entryAdded" && params.entry.level === "error") problems.push(params.entry.text);
  if (method === "Network.requestWillBeSent") requests.push(params.request.url);
}
function call(method, params = {}) {
  const id = ++last;
  browser.stdio[3].write(JSON.stringify({ id, method, params, sessionId: session }) + "\0");
  return new Promise((resolve) => waiting.set(id, resolve));
}
async function value(expression) {
  const { result, exceptionDetails } = await call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
}

let failures = 0;
function check(name, holds, found = "") {
  console.log(`${holds ? "ok    " : "FAILED"}  ${name}${found === "" ? "" : `: ${JSON.stringify(found)}`}`);
  failures += holds ? 0 : 1;
}
const drawn = () => value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))");
async function shot(name) {
  await drawn();
  if (shots) writeFileSync(join(shots, `${name}.png`), Buffer.from((await call("Page.captureScreenshot")).data, "base64"));
}
const size = (width, height, scale = 1, mobile = false) =>
  call("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: scale, mobile }).then(drawn);
const scheme = (scheme) => call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
const mouse = (type, x, y, more = {}) => call("Input.dispatchMouseEvent", { type, x, y, button: "left", buttons: 1, clickCount: 1, ...more });
async function key(key, modifiers = 0) {
  const text = key.length === 1 ? { text: key } : {};
  await call("Input.dispatchKeyEvent", { type: "keyDown", key, code: key, modifiers, ...text });
  await call("Input.dispatchKeyEvent", { type: "keyUp", key, code: key, modifiers });
  await drawn();
}
async function drag([x, y], [right, down]) {
  await mouse("mousePressed", x, y);
  for (let part = 1; part <= 10; part++) await mouse("mouseMoved", x + right * part / 10, y + down * part / 10);
  await mouse("mouseReleased", x + right, y + down);
  await drawn();
}
async function wheel(x, y, deltaY) {
  await call("Input.dispatchMouseEvent", { type: "mouseWheel", x, y, deltaX: 0, deltaY });
  await drawn();
}
const click = async (query) => {
  await value(`find(${JSON.stringify(query)}).click()`);
  await drawn();
};
const middle = (query) => value(`(() => { const box = find(${JSON.stringify(query)}).getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2]; })()`);
// Where the middle of the first shown picture's pane is in its picture, and how large; and whether all shown panes agree.
const seen = () => value(`(() => {
  const of = (pane) => {
    const at = new DOMMatrix(picture(pane).style.transform), [width, height] = sides(pane);
    return [(pane.clientWidth / 2 - at.e) / at.a / width, (pane.clientHeight / 2 - at.f) / at.d / height, at.a];
  };
  const all = panes.filter(isShown).map(of), near = (one, other) => Math.abs(one - other) < 0.002 * Math.max(1, Math.abs(one));
  return { x: all[0][0], y: all[0][1], scale: all[0][2], shown: all.length,
    agree: all.every((one) => one.every((number, index) => near(number, all[0][index]))) };
})()`);

async function main() {
  const target = await call("Target.createTarget", { url: "about:blank" });
  session = (await call("Target.attachToTarget", { targetId: target.targetId, flatten: true })).sessionId;
  for (const domain of ["Page", "Runtime", "Log", "Network"]) await call(`${domain}.enable`);
  await call("Network.emulateNetworkConditions", { offline: true, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  await size(1400, 900);
  await scheme("light");
  const begun = Date.now();
  await call("Page.navigate", { url: pathToFileURL(resolve(file)).href });
  await value(`new Promise((done) => document.readyState === "complete" ? done() : addEventListener("load", done))`);
  await value("Promise.all([...document.images].map((image) => image.decode().catch(() => null)))");
  const sizes = await value("panes.map((pane) => [...sides(pane), picture(pane).naturalWidth, picture(pane).naturalHeight])");
  check(`pictures are there (${Date.now() - begun} ms)`, sizes.length >= 2 && sizes.every(([w, h, nw, nh]) => w === nw && h === nh), sizes);
  check("no script but the page's own ran, nothing failed", problems.length === 0, problems);
  check("nothing but files is asked for", requests.every((url) => /^(file|data):/.test(url)), requests.filter((url) => !/^(file|data):/.test(url)));

  await click("#beside");
  await click("#fit");
  check("side by side, all are shown whole", (await seen()).shown === sizes.length && (await seen()).agree, await seen());
  await shot("wide-light");
  await scheme("dark");
  await shot("wide-dark");

  const [x, y] = await middle(".pane");
  await click("#one");
  check("1:1 is one pixel for each", Math.abs((await seen()).scale - 1) < 1e-6, await seen());
  let before = await seen();
  await drag([x, y], [40, -30]);
  let after = await seen();
  const near = (one, other) => Math.abs(one - other) < 1e-3;
  check("all move with the mouse", after.agree && near(after.x, before.x - 40 / sizes[0][0]) && near(after.y, before.y + 30 / sizes[0][1]), after);
  await wheel(x, y, -120);
  check("the wheel zooms", (await seen()).scale > after.scale && (await seen()).agree, await seen());
  await shot("zoomed");
  await value("stage.focus()");
  before = await seen();
  await key("ArrowRight");
  check("arrows pan", (await seen()).x > before.x && (await seen()).agree, await seen());
  await key("+");
  check("+ zooms", (await seen()).scale > before.scale);
  await key("0");
  const whole = await seen();
  check("0 fits", near(whole.x, 0.5) && near(whole.y, 0.5), whole);
  await mouse("mousePressed", x + 30, y);
  await mouse("mouseReleased", x + 30, y);
  await mouse("mousePressed", x + 30, y, { clickCount: 2 });
  await mouse("mouseReleased", x + 30, y, { clickCount: 2 });
  await drawn();
  check("a double click is 1:1 there", Math.abs((await seen()).scale - 1) < 1e-6 && (await seen()).x > 0.49, await seen());

  await key("s");
  await click("#fit");
  check("the slider shows two", (await seen()).shown === (sizes.length > 1 ? 2 : 1) && (await value("isSlide()")), await seen());
  const handle = await middle(".divider");
  await drag(handle, [-200, 0]);
  const moved = Number(await value("divider.getAttribute('aria-valuenow')"));
  check("the mouse moves the slider", moved < 45 && moved > 5, moved);
  await shot("slider-mouse");
  await value("divider.focus()");
  for (let times = 0; times < 3; times++) await key("ArrowRight", 8);
  check("keys move the slider", Number(await value("divider.getAttribute('aria-valuenow')")) === Math.min(moved + 30, 100));
  await shot("slider-keys");
  await key("End");
  check("End shows the left one alone", (await value("getComputedStyle(find('.pane.second')).clipPath")).includes("100%"));
  await key("Home");
  const names = () => value("[pickers.first, pickers.second].map((picker) => picker.selectedOptions[0].textContent)");
  const pair = await names();
  await key("x");
  check("X swaps the two", JSON.stringify(await names()) === JSON.stringify(pair.reverse()), await names());
  await value("pickers.first.selectedIndex = 1; pickers.first.dispatchEvent(new Event('change'))");
  check("any two can be chosen", await value("panes[1].classList.contains('first')"));
  await value("pickers.second.selectedIndex = 1; pickers.second.dispatchEvent(new Event('change'))");
  check("also the same one twice", (await seen()).shown === 1);
  await value("pickers.second.selectedIndex = 0; pickers.second.dispatchEvent(new Event('change')); moveDivider(0.5)");

  await size(1400, 900, 2);
  await click("#one");
  check("1:1 is one pixel of a sharp screen too", Math.abs((await seen()).scale - 0.5) < 1e-6, await seen());
  const frames = await value(`new Promise((done) => {
    const times = [];
    const frame = (time) => {
      times.push(time);
      pan(shownPane(), -7, -5);
      times.length < 60 ? requestAnimationFrame(frame) : done(times.slice(1).map((time, index) => time - times[index]));
    };
    requestAnimationFrame(frame);
  })`);
  const sorted = [...frames].sort((one, other) => one - other);
  console.log(`      60 frames of panning at 1:1, 2800 x 1800 px without a GPU: median ${sorted[29].toFixed(0)} ms, longest ${sorted[58].toFixed(0)} ms`);

  await size(390, 780, 2, true);
  await call("Emulation.setTouchEmulationEnabled", { enabled: true, maxTouchPoints: 2 });
  await click("#fit");
  check("a narrow window is not scrolled sideways", await value("document.documentElement.scrollWidth <= innerWidth"), await value("document.documentElement.scrollWidth"));
  await shot("narrow-slider-dark");
  const touch = (type, ...points) => call("Input.dispatchTouchEvent", { type, touchPoints: points.map(([x, y], id) => ({ x, y, id })) });
  const [fx, fy] = await middle(".stage");
  const small = await seen();
  await touch("touchStart", [fx - 100, fy + 90], [fx - 50, fy + 90]);
  for (let part = 1; part <= 8; part++) await touch("touchMove", [fx - 100 - 8 * part, fy + 90], [fx - 50 + 8 * part, fy + 90]);
  await touch("touchEnd");
  await drawn();
  const pinched = await seen();
  check("two fingers zoom", pinched.scale > small.scale * 2 && pinched.agree, pinched);
  await touch("touchStart", [fx - 60, fy + 90]);
  for (let part = 1; part <= 8; part++) await touch("touchMove", [fx - 60 - 6 * part, fy + 90]);
  await touch("touchEnd");
  await drawn();
  check("one finger pans", (await seen()).x > pinched.x && near((await seen()).scale, pinched.scale), await seen());
  await touch("touchStart", await middle(".divider"));
  for (let part = 1; part <= 8; part++) await touch("touchMove", [fx + 10 * part, fy]);
  await touch("touchEnd");
  check("a finger moves the slider", Number(await value("divider.getAttribute('aria-valuenow')")) > 60);
  await click("#beside");
  await click("#fit");
  await scheme("light");
  await shot("narrow-light");
  await value("scrollTo(0, document.body.scrollHeight)");
  await shot("narrow-tables");
  await size(1400, 900);
  await value("find('details') && (find('details').open = true); find('h2').scrollIntoView()");
  await shot("tables");
  check("nothing failed on the way", problems.length === 0, problems);
}

try {
  await main();
} catch (error) {
  check("the page can be used", false, error.message);
} finally {
  const gone = new Promise((done) => browser.once("exit", done));
  browser.kill();
  await gone;
  rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
}
process.exit(failures);
